"""List, describe and exchange models."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from volseg.api.running import Place, place_of

if TYPE_CHECKING:
    from volseg.exchange.export_model import ExportReport
    from volseg.exchange.import_model import ImportReport
    from volseg.storage.weights import Card
    from volseg.types import VoxelSize, Zyx


def list_models() -> list[Card]:
    """List the cards of the shipped models."""
    from volseg.storage.weights import load_card, shipped_models

    return [load_card(name) for name in shipped_models()]


def show_model(model: str) -> Card:
    """Read the card of a model: its network, training data and scores.

    Raises
    ------
    ModelError
        If there is no such model, or its card cannot be used.
    """
    from volseg.storage.weights import load_card

    return load_card(model)


def export_model(
    model: str,
    *,
    form: Literal["torchscript", "onnx", "bioimageio"],
    output: Place,
    overwrite: bool = False,
) -> ExportReport:
    """Write a model for other programs, checked against the original.

    Raises
    ------
    InputError
        If it cannot be exported in this form, or the output exists.
    """
    from volseg.exchange.export_model import export_model as run

    return run(model, form, place_of(output), overwrite=overwrite)


def import_model(
    package: Place,
    *,
    output: Place,
    voxel_size: VoxelSize | None = None,
    tile: Zyx | None = None,
    overlap: Zyx | None = None,
    overwrite: bool = False,
) -> ImportReport:
    """Make a model from a BioImage.IO package that volseg exported.

    Raises
    ------
    InputError
        If the package cannot be used, or the output exists.
    """
    from volseg.exchange.import_model import ImportOptions
    from volseg.exchange.import_model import import_model as run

    options = ImportOptions(voxel_size=voxel_size, tile=tile, overlap=overlap, overwrite=overwrite)
    return run(place_of(package), place_of(output), options)
