"""The kinds of files that are damaged, how, and the commands that read them."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

VOLUME, TOY = "IN/vol.zarr", "IN/toy.safetensors"
READ = [["info", VOLUME], ["info", VOLUME, "--json"], ["verify", VOLUME, "--quick"]]


@dataclass(frozen=True)
class Kind:
    """A kind of input.

    Attributes
    ----------
    make : writes sound files into a folder.
    damage : by pattern, how the files of that name are damaged.
    commands : of which one reads what was damaged; ``IN`` and ``OUT`` stand for folders.
    rehash : whether hashes are made to fit again, most of the time.
    """

    make: Callable[[Path], None]
    damage: dict[str, Callable[[random.Random, bytes], bytes]]
    commands: list[list[str]]
    rehash: bool = False


def all_kinds() -> dict[str, Kind]:
    """List the kinds of input."""
    return {**images(), **volumes(), **models(), **training()}


def images() -> dict[str, Kind]:
    """List stacks and slices."""
    import mutators as m
    import seeds as s

    return {
        "tiff": Kind(s.make_tiff, {"*.tif": m.change_tiff}, [["convert", "FILE", "OUT/vol.zarr"]]),
        "hdf5": Kind(s.make_hdf5, {"*.h5": m.any_bytes}, [["convert", "FILE", "OUT/vol.zarr"]]),
        "mrc": Kind(s.make_mrc, {"*.mrc": m.any_bytes}, [["convert", "FILE", "OUT/vol.zarr"]]),
        "dm": Kind(s.make_dm, {"*.dm?": m.any_bytes}, [["convert", "FILE", "OUT/vol.zarr"]]),
        "nifti": Kind(s.make_nifti, {"*.nii*": m.any_bytes}, [["convert", "FILE", "OUT/vol.zarr"]]),
        "nrrd": Kind(s.make_nrrd, {"*.n???": m.any_bytes}, [["convert", "FILE", "OUT/vol.zarr"]]),
        "jpeg": Kind(s.make_jpeg, {"*.jpg": m.any_bytes}, [["convert", "FILE", "OUT/vol.zarr"]]),
        "ome-sets": Kind(
            s.make_ome_set, {"set/*": m.change_tiff}, [["convert", "FILE", "OUT/vol.zarr"]]
        ),
        "n5": Kind(
            s.make_n5,
            {"n5/*.json": m.change_json, "n5/0/*/*": m.any_bytes},
            [["convert", "IN/n5", "OUT/vol.zarr"]],
        ),
        "precomputed": Kind(
            s.make_precomputed,
            {"seg/info": m.change_json, "seg/4*/*": m.any_bytes},
            [["convert", "IN/seg", "OUT/vol.zarr"]],
        ),
        "zarr-axes": Kind(
            s.make_axes,
            {"axes/zarr.json": m.change_json, "axes/0/zarr.json": m.change_json},
            [["convert", "IN/axes", "OUT/vol.zarr", "--channel", "1"]],
        ),
        "slices": Kind(
            s.make_slices,
            {"*/*.png": m.change_png, "*/*.tif": m.change_tiff},
            [["convert", "PARENT", "OUT/vol.zarr"]],
        ),
    }


def volumes() -> dict[str, Kind]:
    """List what a volume consists of."""
    import mutators as m
    import seeds as s

    used = [
        ["stats", VOLUME],
        ["stats", VOLUME, "--centerline", "--surface", "marching-cubes"],
        ["label", VOLUME, "--overwrite", "--threshold", "0.4"],
        ["evaluate", VOLUME, "--truth", "IN/truth.tif"],
        ["segment", VOLUME, "--model", TOY],
        ["segment", VOLUME, "--model", TOY, "--dry-run"],
        ["verify", VOLUME, "--model", TOY],
    ]
    resumed = [["segment", VOLUME, "--model", TOY], ["label", VOLUME], *READ, used[-1]]
    foreign = [
        *READ,
        ["evaluate", VOLUME, "--labels", VOLUME, "--truth", "IN/truth.tif"],
        ["stats", VOLUME, "--labels", VOLUME],
    ]
    return {
        "zarr": Kind(
            s.make_volume,
            {"vol.zarr/zarr.json": m.change_json, "vol.zarr/**/zarr.json": m.change_json},
            [*READ, *used],
        ),
        "zarr-v2": Kind(
            s.make_foreign,
            {"vol.zarr/.z*": m.change_json, "vol.zarr/0/.zarray": m.change_json},
            foreign,
        ),
        "chunks": Kind(s.make_volume, {"vol.zarr/**/c/**/[0-9]": m.any_bytes}, [*READ, *used]),
        "ledgers": Kind(
            s.make_interrupted,
            {"vol.zarr/.volseg/*.jsonl": m.change_lines, "vol.zarr/*/*/zarr.json": m.change_json},
            resumed,
        ),
    }


def models() -> dict[str, Kind]:
    """List weights, their cards, and packages that others exchange."""
    import mutators as m
    import seeds as s

    imported = ["models", "import", "--output", "OUT/in"]
    modelled = [
        ["models", "show", TOY],
        ["segment", VOLUME, "--model", TOY, "--dry-run"],
        ["segment", VOLUME, "--model", TOY],
        ["models", "export", TOY, "--format", "torchscript", "--output", "OUT/toy.pt"],
    ]
    of_package, zipped = [[*imported, "IN/own"]], [[*imported, "IN/own.zip"]]
    return {
        "cards": Kind(s.make_models, {"toy.json": m.change_json}, modelled),
        "weights": Kind(s.make_models, {"toy.safetensors": m.change_safetensors}, modelled, True),
        "descriptions": Kind(s.make_packages, {"own/bioimageio.yaml": m.change_yaml}, of_package),
        "packages": Kind(s.make_packages, {"own.zip": m.change_zip}, zipped),
        "states": Kind(s.make_packages, {"own/weights.pt": m.change_zip}, of_package, True),
    }


def training() -> dict[str, Kind]:
    """List recipes, and the folders of runs."""
    import mutators as m
    import seeds as s

    trained = ["train", "--config", "IN/mine.toml", "--workers", "1"]
    resume = [[*trained, "--output", "IN/run"], ["models", "show", "IN/run/mine.safetensors"]]
    return {
        "recipes": Kind(
            s.make_training, {"mine.toml": m.change_toml}, [[*trained, "--output", "OUT/run"]]
        ),
        "checkpoints": Kind(
            s.make_training,
            {"run/checkpoint.safetensors": m.change_safetensors, "run/*.json": m.change_json},
            resume,
        ),
    }
