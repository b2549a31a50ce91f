"""Export of models for other programs."""

from __future__ import annotations

import io
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from volseg import __version__
from volseg.errors import ConflictError, ParameterError, StorageError, own_words
from volseg.exchange.bioimageio import (
    COVER,
    README,
    STATE_DICT,
    TEST_INPUT,
    TEST_OUTPUT,
    TORCHSCRIPT,
    describe_model,
    describe_preprocessing,
    halo_of,
    preprocess,
    validate_package,
)
from volseg.exchange.export_network import (
    Network,
    Probabilities,
    build_network,
    largest_difference,
    load_network,
    onnx_runner,
    smallest_tile,
    trace_network,
    write_onnx,
)
from volseg.exchange.packages import write_description, zip_folder
from volseg.storage.cards import Card
from volseg.storage.files import hash_file, put_in_place
from volseg.storage.locations import refuse_file
from volseg.types import Floats, Zyx, extent

Format = Literal["torchscript", "onnx", "bioimageio"]
SUFFIXES: dict[str, str] = {"torchscript": ".pt", "onnx": ".onnx", "bioimageio": ".zip"}


@dataclass(frozen=True)
class ExportReport:
    """Result of an export.

    Attributes
    ----------
    difference : largest absolute difference from the original, on noise of another size than the
        network was traced with, of probabilities.
    checked_on : shape of that noise.
    notes : what the user should know.
    """

    output: Path
    model: str
    format: str
    difference: float
    checked_on: tuple[int, ...]
    size_bytes: int
    notes: tuple[str, ...]


def export_model(
    model: str | Path, form: Format, output: Path, *, overwrite: bool = False
) -> ExportReport:
    """Write a model in another form, checked against the original; all of it or nothing.

    Parameters
    ----------
    model : shipped name, or path of a safetensors file with its card
    overwrite : replace a file that is already there
    """
    _check_output(output, form, overwrite=overwrite)
    network = load_network(model)
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".volseg-export-", dir=output.parent) as folder:
            # the suffix tells readers what to expect, so the temporary file has it too
            draft = Path(folder) / f"export{SUFFIXES[form]}"
            difference, shape = WRITERS[form](network, draft)
            put_in_place(draft, output)
    except OSError as error:
        raise StorageError(f"cannot write {output}: {own_words(error)}") from error
    size = output.stat().st_size
    return ExportReport(output, network.card.name, form, difference, shape, size, _notes(network))


def _check_output(output: Path, form: Format, *, overwrite: bool) -> None:
    if form not in SUFFIXES:
        raise ParameterError(f"a format is {', '.join(SUFFIXES)}, found {form!r}")
    if output.suffix != SUFFIXES[form]:
        raise ParameterError(f"{form} is written to a {SUFFIXES[form]} file, found {output}")
    refuse_file(output.parent)
    if output.is_dir() or (output.exists() and not overwrite):
        raise ConflictError(f"{output} exists; choose another --output, or give --overwrite")


def _notes(network: Network) -> tuple[str, ...]:
    size = ", ".join(f"{v:g}" for v in network.card.voxel_size)
    steps = network.card.preprocessing
    notes = [f"it expects voxels of {size} nm (z, y, x)"]
    if steps.equalise or steps.gamma != 1 or steps.gain != 1:
        notes.append(f"intensities must be prepared as the card says: {steps}")
    return tuple(notes)


def _write_traced(network: nn.Module, example: Tensor, path: Path) -> None:
    """Write a network as TorchScript; PyTorch itself ends the process where the disk is full."""
    path.write_bytes(trace_network(network, example).save_to_buffer())


def _tiles(network: Network) -> tuple[Zyx, Zyx]:
    """Choose the tile that is traced, and another one to check with."""
    form = network.form
    traced = smallest_tile(form)
    z, y, x = (n + m for n, m in zip(traced, form.multiple, strict=True))
    return traced, form.fit((z, y, x))


def _checked(
    network: Network, exported: Callable[[Tensor], Tensor]
) -> tuple[float, tuple[int, ...]]:
    """Compare what was written with the original; return the difference, and on what shape."""
    x = network.inputs(_tiles(network)[1], seed=1, batch=2)
    return largest_difference(network.probabilities, exported, x), tuple(x.shape)


def _write_torchscript(network: Network, path: Path) -> tuple[float, tuple[int, ...]]:
    whole, example = network.probabilities, network.inputs(_tiles(network)[0], 0)
    _write_traced(whole, example, path)
    return _checked(network, _load_own(path))


def _load_own(path: Path) -> torch.jit.ScriptModule:
    """Load the program that this call has written."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        loaded: torch.jit.ScriptModule = torch.jit.load(str(path), map_location="cpu")
    return loaded


def _write_onnx(network: Network, path: Path) -> tuple[float, tuple[int, ...]]:
    whole, example = network.probabilities, network.inputs(_tiles(network)[0], 0)
    write_onnx(whole, example, path)
    return _checked(network, onnx_runner(path))


def _write_bioimageio(network: Network, path: Path) -> tuple[float, tuple[int, ...]]:
    card, form = network.card, network.form
    # before any work: a preprocessing that cannot be described ends it here
    describe_preprocessing(card.preprocessing, "zyx")
    folder = path.parent / "package"
    folder.mkdir()
    held = io.BytesIO()
    torch.save(network.weights, held)
    (folder / STATE_DICT).write_bytes(held.getbuffer())
    example = network.inputs(_tiles(network)[0], seed=0)
    _write_traced(network.logits, example, folder / TORCHSCRIPT)
    # the smallest input of which the halo leaves something
    z, y, x = halo_of(card)
    least = form.input_shape(smallest_tile(form, (2 * z + 1, 2 * y + 1, 2 * x + 1)))
    raw, probabilities = _test_tensors(network, least)
    np.save(folder / TEST_INPUT, raw)
    np.save(folder / TEST_OUTPUT, probabilities)
    (folder / COVER).write_bytes(draw_cover(raw, probabilities))
    (folder / README).write_text(write_readme(card), encoding="utf-8")
    hashes = {name: hash_file(folder / name) for name in (STATE_DICT, TORCHSCRIPT)}
    builder = (build_network.__module__, build_network.__name__)
    write_description(folder, describe_model(card, form, least, hashes, builder))
    validate_package(folder)
    zip_folder(folder, path)
    return _checked(network, Probabilities(_load_own(folder / TORCHSCRIPT)))


@torch.inference_mode()
def _test_tensors(network: Network, least: Zyx) -> tuple[Floats, Floats]:
    """Draw a raw image, and evaluate it as a program that reads the package does."""
    sizes = least[-network.form.dimensions :]
    raw = np.random.default_rng(7).integers(0, 256, (1, 1, *sizes)).astype(np.float32)
    seen = torch.from_numpy(preprocess(raw, network.card.preprocessing))
    return raw, network.probabilities(seen).numpy()


WRITERS = {"torchscript": _write_torchscript, "onnx": _write_onnx, "bioimageio": _write_bioimageio}


def write_readme(card: Card) -> str:
    """Write a package's documentation from its card."""
    sizes = card.voxel_size, card.tile, card.overlap, halo_of(card)
    size, tile, overlap, halo = map(extent, sizes)
    scores = "".join(f"- {k}: {v}\n" for k, v in card.scores.items()) or "Nothing was measured.\n"
    training = "".join(
        f"- {k}: {card.training[k]}\n" for k in ("data", "terms") if k in card.training
    )
    return f"""# {card.name}

{card.architecture}, base width {card.width}, {card.parameters} parameters, exported by volseg
{__version__}. For images of {size} nm (z, y, x). Foreground is where the probability is at least
{card.threshold:g}{_describe_objects(card)}.

## Tiles

volseg evaluates tiles of {tile} voxels (z, y, x) that overlap by {overlap}. The halo of {halo} is
half of that, so cropped tiles abut. Smaller tiles see less context, and score less.

Intensities are scaled by percentiles of a sample. volseg takes them from the whole volume: give
whole volumes where your program lets you, since percentiles of single tiles differ from tile to
tile, and so do results.

## Training

{training or "Nothing is recorded."}
## Validation

{scores}
Measure it on annotated data of your own before you rely on it.
"""


def _describe_objects(card: Card) -> str:
    """Say what volseg does besides comparing probabilities with the threshold."""
    drops = [f"of fewer than {card.min_size} voxels"] if card.min_size else []
    if card.min_probability:
        largest = f", if they have at most {card.faint_size} voxels" if card.faint_size else ""
        drops.append(f"whose mean is below {card.min_probability:g}{largest}")
    objects = f", and volseg drops objects {' and those '.join(drops)}" if drops else ""
    if card.median_nm:
        objects += f". Before, volseg takes the median of slices {card.median_nm:g} nm apart"
    return objects


def draw_cover(raw: Floats, probabilities: Floats) -> bytes:
    """Draw the middle slices of input and output side by side, as PNG.

    Parameters
    ----------
    raw : float32, shape (1, 1, z, y, x) or (1, 1, y, x), 0..255
    probabilities : the same axes, 0..1
        Padded to the size of ``raw`` where the network gives less.
    """
    import imagecodecs

    before, after = (_middle(a) for a in (raw, 255 * probabilities))
    rows, columns = ((a - b) // 2 for a, b in zip(before.shape, after.shape, strict=True))
    framed = np.zeros_like(before)
    framed[rows : rows + after.shape[0], columns : columns + after.shape[1]] = after
    return bytes(imagecodecs.png_encode(np.hstack([before, framed])))


def _middle(batch: Floats) -> NDArray[np.uint8]:
    volume = batch[0, 0] if batch.ndim == 5 else batch[0, :1]
    middle: NDArray[np.uint8] = volume[len(volume) // 2].round().astype(np.uint8)
    return middle
