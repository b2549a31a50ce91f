"""Small sound files of every kind that volseg reads: what is going to be damaged."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import zipfile
from pathlib import Path
from typing import Any

import h5py
import imagecodecs
import mrcfile
import numpy as np
import tifffile
import zarr
from click.testing import CliRunner

import toy_formats
from volseg.cli import main

SHAPE = (12, 40, 36)
OME_XML = (
    '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Image ID="Image:0">'
    '<Pixels ID="Pixels:0" DimensionOrder="XYZCT" Type="uint8" SizeX="12" SizeY="10" SizeZ="3" '
    'SizeC="1" SizeT="1" PhysicalSizeX="5" PhysicalSizeXUnit="nm" PhysicalSizeY="5" '
    'PhysicalSizeYUnit="nm" PhysicalSizeZ="0.05"><TiffData/></Pixels></Image></OME>'
)


def run(*arguments: Any) -> None:
    """Run a command that must succeed."""
    done = CliRunner().invoke(main, [str(a) for a in arguments])
    if done.exit_code:
        raise RuntimeError(f"{arguments}: {done.output}")


def raw(shape: tuple[int, ...] = SHAPE, dtype: str = "uint8") -> np.ndarray:
    """Draw bright lumps on noise."""
    z, y, x = np.indices(shape[-3:])
    lumps = 100 * ((np.sin(z / 2) + np.sin(y / 4) + np.sin(x / 4)) > 1)
    return (lumps + np.random.default_rng(1).integers(0, 90, shape[-3:])).astype(dtype)


def make_tiff(folder: Path) -> None:
    """Write TIFF stacks in the forms that programs write."""
    small = raw((3, 10, 12))
    wide = raw((3, 32, 40), "uint16")
    grey = {"photometric": "minisblack"}
    tifffile.imwrite(folder / "plain.tif", small, **grey)
    tifffile.imwrite(folder / "big.tif", small.astype("float32"), bigtiff=True, **grey)
    tifffile.imwrite(folder / "strips.tif", wide, rowsperstrip=4, **grey)
    options = {"resolution": (0.2, 0.2), "metadata": {"spacing": 5.0, "unit": "nm", "axes": "ZYX"}}
    tifffile.imwrite(folder / "imagej.tif", small, imagej=True, **options)
    ome = {"description": OME_XML, "metadata": None}
    tifffile.imwrite(folder / "described.ome.tif", small, **ome, **grey)
    for name, how in {
        "deflate": {"compression": "zlib", "predictor": True},
        "lzw": {"compression": "lzw", "tile": (16, 16)},
        "packbits": {"compression": "packbits"},
        "zstd": {"compression": "zstd", "tile": (16, 32)},
    }.items():
        tifffile.imwrite(folder / f"{name}.tif", wide, **how, **grey)
    jpeg = imagecodecs.jpeg8_encode(small[0], level=90)
    tifffile.imwrite(
        folder / "jpeg.tif", iter([jpeg] * 3), shape=small.shape, dtype="uint8", compression=7
    )
    colour = np.stack([small] * 3, axis=-1)
    tifffile.imwrite(folder / "colour.tif", colour, photometric="rgb")
    tifffile.imwrite(folder / "planar.tif", np.moveaxis(colour, -1, 1), photometric="rgb")


def make_hdf5(folder: Path) -> None:
    """Write HDF5 files of one dataset, in the layouts and versions that programs write."""
    layouts = {
        "contiguous": {},
        "chunked": {"chunks": (2, 16, 16), "compression": "gzip", "shuffle": True},
        "checked": {"chunks": (1, 32, 40), "fletcher32": True},
    }
    for name, form in layouts.items():
        for version in ("earliest", "latest"):
            with h5py.File(folder / f"{name}-{version}.h5", "w", libver=version) as file:
                made = file.create_dataset("volumes/raw", data=raw((3, 32, 40)), **form)
                made.attrs["element_size_um"] = (0.03, 0.004, 0.004)


def make_mrc(folder: Path) -> None:
    """Write MRC files of several types."""
    for dtype in ("int8", "int16", "uint16", "float32"):
        with mrcfile.new(folder / f"{dtype}.mrc", data=raw((3, 32, 40), dtype)) as made:
            made.voxel_size = (40, 40, 300)


def make_dm(folder: Path) -> None:
    """Write files as DigitalMicrograph does."""
    for version in (3, 4):
        toy_formats.write_dm(folder / f"stack.dm{version}", raw((3, 32, 40), "uint16"), version)
        toy_formats.write_dm(folder / f"slice.dm{version}", raw((3, 32, 40))[0], version)


def make_nifti(folder: Path) -> None:
    """Write NIfTI files of both versions, packed and not."""
    for name in ("a.nii", "a.nii.gz"):
        toy_formats.write_nifti(folder / name, raw((3, 32, 40), "int16"))
    toy_formats.write_nifti(folder / "b.nii", raw((3, 32, 40)), second=True, order=">", slope=2.0)


def make_nrrd(folder: Path) -> None:
    """Write NRRD files, packed and with voxels beside them."""
    size = ("spacings: 5 4 30", 'units: "nm" "nm" "nm"')
    toy_formats.write_nrrd(folder / "a.nrrd", raw((3, 32, 40), "uint16"), *size)
    toy_formats.write_nrrd(folder / "b.nrrd", raw((3, 32, 40)), packed=True)
    toy_formats.write_nrrd(folder / "c.nhdr", raw((3, 32, 40)), *size, data="c.raw")


def make_jpeg(folder: Path) -> None:
    """Write JPEG pictures of greys and of colours that are greys."""
    page = raw((3, 32, 40))[0]
    (folder / "grey.jpg").write_bytes(imagecodecs.jpeg8_encode(page, level=90))
    colours = np.stack([page] * 3, -1)
    (folder / "colour.jpg").write_bytes(imagecodecs.jpeg8_encode(colours, level=90))


def make_ome_set(folder: Path) -> None:
    """Write a set of three OME-TIFF files, of which each describes all."""
    (folder / "set").mkdir()
    planes = raw((3, 10, 12))
    places = "".join(
        f'<TiffData FirstZ="{k}" IFD="0" PlaneCount="1"><UUID FileName="z{k}.ome.tif">urn:uuid:{k}'
        f"</UUID></TiffData>"
        for k in range(3)
    )
    for k, plane in enumerate(planes):
        xml = OME_XML.replace("<OME ", f'<OME UUID="urn:uuid:{k}" ').replace("<TiffData/>", places)
        tifffile.imwrite(folder / "set" / f"z{k}.ome.tif", plane, description=xml, metadata=None)


def make_n5(folder: Path) -> None:
    """Write an N5 dataset."""
    noted = {"pixelResolution": {"unit": "nm", "dimensions": [5, 4, 30]}, "axes": ["x", "y", "z"]}
    toy_formats.write_n5(folder / "n5", raw((3, 32, 40), "uint16"), block=(16, 16, 2), **noted)


def make_precomputed(folder: Path) -> None:
    """Write a precomputed volume."""
    toy_formats.write_precomputed(folder / "seg", raw((3, 32, 40)), (5, 6, 7), (16, 16, 2))


def make_axes(folder: Path) -> None:
    """Write an OME-Zarr image of two channels and axes in another order."""
    axes = [{"name": "c", "type": "channel"}]
    axes += [{"name": a, "type": "space", "unit": "nanometer"} for a in "xyz"]
    scale = [{"type": "scale", "scale": [1, 5, 4, 30]}]
    datasets = [{"path": "0", "coordinateTransformations": scale}]
    ome = {"version": "0.5", "multiscales": [{"axes": axes, "datasets": datasets}]}
    image = zarr.create_group(folder / "axes", attributes={"ome": ome})
    voxels = np.stack([raw((3, 32, 40)).T] * 2)
    image.create_array("0", data=voxels, chunks=(1, 16, 16, 2))


def make_slices(folder: Path) -> None:
    """Write folders of single slices."""
    for name, stack in (("png", raw((3, 10, 12))), ("deep", raw((3, 10, 12), "uint16"))):
        (folder / name).mkdir()
        for k, page in enumerate(stack):
            (folder / name / f"s{k}.png").write_bytes(imagecodecs.png_encode(page))
    (folder / "tif").mkdir()
    for k, page in enumerate(raw((3, 10, 12))):
        tifffile.imwrite(folder / "tif" / f"s{k}.tif", page)


def make_model(path: Path) -> None:
    """Write the weights and the card of a tiny network of chance."""
    import torch

    from toy_weights import toy_card
    from volseg.models.registry import count_parameters, find_architecture
    from volseg.storage.weights import save_weights

    torch.manual_seed(5)
    network = find_architecture("unet2d").build(2).eval()
    card = toy_card(
        count_parameters(network),
        name=path.stem,
        architecture="unet2d",
        width=2,
        tile=[1, 32, 32],
        overlap=[0, 16, 16],
        stride=[1, 16, 16],
        scores={"Jaccard": 0.5},
    )
    save_weights(path, network.state_dict(), card)


def make_models(folder: Path) -> None:
    """Write weights with their card, and a volume to use them on."""
    make_model(folder / "toy.safetensors")
    tifffile.imwrite(folder / "raw.tif", raw())
    run("convert", folder / "raw.tif", folder / "vol.zarr", "--voxel-size", "5,5,5")


def make_volume(folder: Path) -> None:
    """Segment and measure a small volume, and label another stack."""
    make_models(folder)
    volume, model = folder / "vol.zarr", folder / "toy.safetensors"
    truth = (raw() > 90).astype(np.uint16)
    tifffile.imwrite(folder / "truth.tif", truth)
    run("segment", volume, "--model", model)
    run("stats", volume)


def make_interrupted(folder: Path) -> None:
    """Leave a volume as a killed run does: ledgers that are begun, results that are incomplete."""
    make_volume(folder)
    for image in ("probabilities", "labels"):
        path = folder / "vol.zarr" / image / "mitochondria" / "zarr.json"
        noted = json.loads(path.read_text())
        noted["attributes"]["volseg"]["complete"] = False
        path.write_text(json.dumps(noted))


def make_foreign(folder: Path) -> None:
    """Write an OME-Zarr 0.4 image of another program, Zarr v2: chunks as they are."""
    tifffile.imwrite(folder / "truth.tif", (raw() > 90).astype(np.uint8))
    volume = folder / "vol.zarr"
    (volume / "0").mkdir(parents=True)
    scale = [{"type": "scale", "scale": [1.0, 0.005, 0.005, 0.005]}]
    axes = [{"name": "c", "type": "channel"}] + [
        {"name": a, "type": "space", "unit": "micrometer"} for a in "zyx"
    ]
    datasets = [{"path": "0", "coordinateTransformations": scale}]
    multiscales = [{"version": "0.4", "axes": axes, "datasets": datasets, "name": "x"}]
    array = {
        "zarr_format": 2,
        "shape": [1, *SHAPE],
        "chunks": [1, *SHAPE],
        "dtype": "|u1",
        "compressor": {"id": "zlib", "level": 1},
        "fill_value": 0,
        "order": "C",
        "filters": None,
        "dimension_separator": "/",
    }
    (volume / ".zgroup").write_text('{"zarr_format": 2}')
    (volume / ".zattrs").write_text(json.dumps({"multiscales": multiscales}))
    (volume / "0" / ".zarray").write_text(json.dumps(array))
    chunk = volume / "0" / "0" / "0" / "0" / "0"
    chunk.parent.mkdir(parents=True)
    chunk.write_bytes(imagecodecs.zlib_encode((raw() > 90).astype(np.uint8).tobytes()))


def make_packages(folder: Path) -> None:
    """Write a package that volseg exported: as a folder and as a zip."""
    import torch
    import yaml

    from volseg.exchange import bioimageio
    from volseg.storage.cards import load_card
    from volseg.storage.weights import load_weights

    make_model(folder / "toy.safetensors")
    card = load_card(folder / "toy.safetensors")
    saved = io.BytesIO()
    torch.save(load_weights(folder / "toy.safetensors", card), saved)
    # an import never opens a program, so any bytes do
    files = {bioimageio.STATE_DICT: saved.getvalue(), bioimageio.TORCHSCRIPT: b"program"}
    hashes = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    form = card.form
    description = bioimageio.describe_model(card, form, form.multiple, hashes, ("volseg", "build"))
    (folder / "own").mkdir()
    text = yaml.safe_dump(json.loads(json.dumps(description)), sort_keys=False)
    (folder / "own" / "bioimageio.yaml").write_text(text)
    for name, content in files.items():
        (folder / "own" / name).write_bytes(content)
    with zipfile.ZipFile(folder / "own.zip", "w") as package:
        for file in sorted((folder / "own").iterdir()):
            package.write(file, file.name)


def make_training(folder: Path) -> None:
    """Train for one step: a recipe, a checkpoint and weights to start from."""
    tifffile.imwrite(folder / "raw.tif", raw())
    tifffile.imwrite(folder / "labels.tif", (raw() > 90).astype(np.uint8))
    (folder / "mine.toml").write_text(
        '[recipe]\narchitecture = "unet2d"\nwidth = 2\npatch = [1, 32, 32]\nsteps = 1\nbatch = 1\n'
        "[recipe.preprocessing]\npercentiles = [1.0, 99.0]\n"
        '[run]\nname = "mine"\nterms = "CC0"\nvoxel_size = [5, 5, 5]\n'
        '[[data]]\nraw = "raw.tif"\nlabels = "labels.tif"\nslices = [0, 1, 2, 3, 4, 5]\n'
    )
    here = Path.cwd()
    try:
        import os

        os.chdir(folder)
        run("train", "--config", "mine.toml", "--output", "run", "--workers", "1")
    finally:
        os.chdir(here)
    shutil.rmtree(folder / "run" / "samples", ignore_errors=True)
    shutil.rmtree(folder / "run" / "tensorboard", ignore_errors=True)
