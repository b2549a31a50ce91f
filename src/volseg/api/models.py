"""List, describe and exchange models."""

from typing import TYPE_CHECKING, Any, Literal, Required, TypedDict, Unpack

from volseg.api.keywords import described, takes
from volseg.api.options import Place, SourceSize
from volseg.api.running import file_of
from volseg.types import Zyx

if TYPE_CHECKING:
    from volseg.exchange.export_model import ExportReport
    from volseg.exchange.import_model import ImportReport
    from volseg.storage.cards import Card


@described
class ExportKeywords(TypedDict, total=False):
    """Options of `export_model`.

    form : Write a traced network (.pt, .onnx) or a BioImage.IO package (.zip).
    output : File to write.
    overwrite : Replace an existing --output.
    """

    form: Required[Literal["torchscript", "onnx", "bioimageio"]]
    output: Required[Place]
    overwrite: bool


@described
class ImportKeywords(SourceSize, total=False):
    """Options of `import_model`.

    output : Write weights and card to this folder.
    tile : Network voxels that are evaluated at once.
    overlap : Network voxels that neighbouring tiles share; 0 for none.
    overwrite : Replace an existing --output.
    """

    output: Required[Place]
    tile: Zyx | None
    overlap: Zyx | None
    overwrite: bool


def list_models() -> "list[Card]":
    """List the cards of the shipped models."""
    from volseg.storage.cards import load_card, shipped_models

    return [load_card(name) for name in shipped_models()]


def show_model(model: str) -> "Card":
    """Read the card of a model: its network, training data and scores.

    Raises
    ------
    ModelError
        If there is no such model, or its card cannot be used.
    """
    from volseg.storage.cards import load_card

    return load_card(model)


@takes(ExportKeywords)
def export_model(model: str, **options: Unpack[ExportKeywords]) -> "ExportReport":
    """Write a model for other programs, checked against the original.

    Raises
    ------
    InputError
        If it cannot be exported in this form, or the output exists.
    """
    from volseg.exchange.export_model import export_model as run

    overwrite = options.get("overwrite", False)
    return run(model, options["form"], file_of(options["output"]), overwrite=overwrite)


@takes(ImportKeywords)
def import_model(package: Place, **options: Unpack[ImportKeywords]) -> "ImportReport":
    """Make a model from a BioImage.IO package that volseg exported.

    Raises
    ------
    InputError
        If the package cannot be used, or the output exists.
    """
    from volseg.exchange.import_model import import_model as run

    settings: dict[str, Any] = {k: v for k, v in options.items() if k != "output"}
    return run(file_of(package), file_of(options["output"]), **settings)
