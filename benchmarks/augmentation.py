"""Measure what training patches cost, against MONAI and batchgeneratorsv2.

The same work for all that are installed: a box out of a volume, its intensities mapped; flips,
quarter turns, a rotation by any angle in the (y, x) plane and a zoom, raw linear and labels
nearest; then with an elastic displacement; then with gain, brightness, gamma, blur and noise too.
Alternating; processor time, so that other work on the machine counts little. The facts that decide
besides speed are measured after it. Without the others it prints volseg's numbers alone.

    OMP_NUM_THREADS=1 python benchmarks/augmentation.py --repeats 40
"""

from __future__ import annotations

import argparse
import importlib.util
import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import chain, islice
from typing import Any, TypeAlias

import numpy as np
import torch
from scipy import ndimage

from volseg.geometry.grid import full_roi
from volseg.training.augmentation import Augmentation, Frame, draw_knots, draw_placement
from volseg.training.config import TrainConfig
from volseg.training.loader import load_batches
from volseg.training.looks import apply_looks
from volseg.training.sampling import Source, draw_patch
from volseg.training.tissue import RAW, locate, target_of
from volseg.voxels.intensity import Tone

PATCH, VOLUME = (32, 96, 96), (80, 320, 320)
ZOOM, ALPHA, SIGMA, TURN = (0.7, 1.4), 2.0, 12.0, math.pi
MOVED = Augmentation(
    zoom=ZOOM,
    shift=0.0,
    elastic_alpha=ALPHA,
    elastic_sigma=SIGMA,
    rotate_probability=1.0,
    section_probability=0.0,
    fault_probability=0.0,
)
# others draw their parameters where nobody sees them, so that their box must hold the worst case:
# the diagonal of the patch at the smallest zoom, and four standard deviations of the displacement
SIDE = math.ceil(PATCH[1] * math.sqrt(2) / ZOOM[0] + 8 * ALPHA)
BOX = (math.ceil(PATCH[0] + 8 * ALPHA), SIDE, SIDE)
SCALE = (1 / ZOOM[1], 1 / ZOOM[0])
# MONAI smooths uniform noise, of variance 1/3, by a Gaussian in three dimensions
MAGNITUDE = ALPHA * math.sqrt(3) * (2 * math.sqrt(math.pi) * SIGMA) ** 1.5
ELASTIC = {"sigma_range": (SIGMA, SIGMA), "magnitude_range": (MAGNITUDE, MAGNITUDE)}
GEOMETRY, DISPLACEMENT, INTENSITIES = "rotation and zoom", "displacement too", "intensities too"

Draw: TypeAlias = Callable[[int], object]
"""Draws a patch from a seed."""


def make_source() -> Source:
    """Return smooth noise, blobs of it as labels, and as foreground where any box fits about."""
    noise = ndimage.gaussian_filter(np.random.default_rng(0).normal(size=VOLUME), 3.0)
    raw = np.clip(127.5 + 60 * noise / noise.std(), 0, 255).astype(np.uint8)
    corners = np.random.default_rng(1).integers(0, np.subtract(VOLUME, BOX) + 1, (4096, 3))
    centres = corners + np.array(BOX) // 2
    labels = (noise > 0).astype(np.uint8)
    return Source(raw, labels, full_roi(VOLUME), Tone((0.0, 255.0)), centres, isotropic=False)


def read_box(source: Source, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Read raw and labels of a random box that holds whatever is drawn, with a channel axis."""
    rng = np.random.default_rng(seed)
    starts = source.foreground[rng.integers(len(source.foreground))] - np.array(BOX) // 2
    box = tuple(slice(s, s + b) for s, b in zip(starts, BOX, strict=True))
    raw = torch.from_numpy(source.tone(np.asarray(source.raw[box])))
    return raw[None], torch.from_numpy(np.array(source.labels[box]))[None]


def with_volseg(source: Source, work: str) -> Draw:
    """Draw as training does."""
    options = replace(MOVED, intensity_probability=float(work == INTENSITIES))
    options = replace(options, elastic_alpha=0.0) if work == GEOMETRY else options

    def draw(seed: int) -> object:
        rng = np.random.default_rng(seed)
        drawn = draw_patch(source, rng, PATCH, options, shares=(1.0, 0.0))
        raw = apply_looks(drawn.channels[RAW][None, None], [drawn.look])
        return raw, target_of(drawn.channels)

    return draw


def with_monai(source: Source, work: str) -> Draw:
    """Draw with MONAI: one transform resamples, and none carries metadata along."""
    import monai.data
    import monai.transforms as mt

    monai.data.set_track_meta(False)
    keys, zoom = ["raw", "labels"], tuple(s - 1 for s in SCALE)
    warp: dict[str, Any] = {"prob": 1.0, "rotate_range": (TURN, 0.0, 0.0), "spatial_size": PATCH}
    warp |= {"scale_range": ((0.0, 0.0), zoom, zoom), "mode": ("bilinear", "nearest")}
    elastic = work != GEOMETRY
    steps = [
        mt.Rand3DElasticd(keys, **ELASTIC, **warp) if elastic else mt.RandAffined(keys, **warp)
    ]
    steps += [mt.RandFlipd(keys, prob=0.5, spatial_axis=axis) for axis in range(3)]
    steps.append(mt.RandRotate90d(keys, prob=0.5, max_k=3, spatial_axes=(1, 2)))
    if work == INTENSITIES:
        steps += [
            mt.RandScaleIntensityd("raw", factors=0.5, prob=1.0),
            mt.RandShiftIntensityd("raw", offsets=0.4, prob=1.0),
            mt.RandAdjustContrastd("raw", prob=1.0, gamma=(2**-0.8, 2**0.8)),
            mt.RandGaussianSmoothd("raw", *([(0.01, 1.5)] * 3), prob=1.0),
            mt.RandGaussianNoised("raw", prob=1.0, std=0.3),
        ]
    pipeline = mt.Compose(steps)
    return lambda seed: pipeline.set_random_state(seed)(
        dict(zip(keys, read_box(source, seed), strict=True))
    )


def with_batchgeneratorsv2(source: Source, work: str) -> Draw:
    """Draw with what trains nnU-Net."""
    from batchgeneratorsv2.transforms.intensity import brightness, contrast, gamma, gaussian_noise
    from batchgeneratorsv2.transforms.noise.gaussian_blur import GaussianBlurTransform
    from batchgeneratorsv2.transforms.spatial import mirroring, rot90, spatial
    from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms

    warp: dict[str, Any] = {"p_rotation": 1.0, "p_scaling": 1.0, "scaling": SCALE}
    warp |= {"p_elastic_deform": float(work != GEOMETRY), "elastic_deform_magnitude": 2 * ALPHA}
    warp |= {"p_synchronize_scaling_across_axes": 1.0, "mode_seg": "nearest"}
    warp["rotation"] = lambda dim, **_: np.random.uniform(0, TURN) * (dim == 0)  # noqa: NPY002
    warp["elastic_deform_scale"] = lambda dim, patch_size, **_: SIGMA / patch_size[dim]
    steps: list[Any] = [spatial.SpatialTransform(PATCH, 0, False, **warp)]
    steps.append(mirroring.MirrorTransform((0, 1, 2)))
    steps.append(rot90.Rot90Transform(1, (1, 2, 3), {1, 2}))
    if work == INTENSITIES:
        steps += [
            contrast.ContrastTransform((0.5, 1.5), False, True),
            brightness.BrightnessAdditiveTransform(0.0, 0.4),
            gamma.GammaTransform((2**-0.8, 2**0.8), 0.0, True, 1.0, 0.0),
            GaussianBlurTransform((0.01, 1.5)),
            gaussian_noise.GaussianNoiseTransform((0.0, 0.3)),
        ]
    pipeline = ComposeTransforms(steps)

    def draw(seed: int) -> object:
        np.random.seed(seed)  # noqa: NPY002 # it draws from both global generators
        torch.manual_seed(seed)
        raw, labels = read_box(source, seed)
        return pipeline(image=raw, segmentation=labels)

    return draw


MAKERS = {
    "volseg": with_volseg,
    "monai": with_monai,
    "batchgeneratorsv2": with_batchgeneratorsv2,
}


def processor_time(draw: Draw, seed: int) -> float:
    """Return the seconds that a patch takes on one thread."""
    begun = time.process_time()
    draw(seed)
    return time.process_time() - begun


def print_speed(names: list[str], repeats: int) -> None:
    """Print the time of a patch, and its ratio to volseg's."""
    source = make_source()
    for work in (GEOMETRY, DISPLACEMENT, INTENSITIES):
        draws = {name: MAKERS[name](source, work) for name in names}
        for draw in draws.values():
            draw(0)
        times = [{n: processor_time(d, s) for n, d in draws.items()} for s in range(repeats)]
        print(f"{work}:")
        for name in names:
            typical = statistics.median(t[name] for t in times)
            tenths = statistics.quantiles([t[name] / t["volseg"] for t in times], n=10)
            print(f"  {name}: {1e3 * typical:.0f} ms a patch, ", end="")
            print(f"{tenths[4]:.2f} times volseg's ({tenths[0]:.2f}..{tenths[8]:.2f})")


def print_sharpness(names: list[str]) -> None:
    """Print how much of white noise survives a rotation: less, the more often it is resampled."""
    noise = np.random.default_rng(1).normal(size=VOLUME).astype(np.float32)
    turned = replace(MOVED, zoom=(1.0, 1.0), intensity_probability=0.0)
    source = replace(make_source(), raw=noise, tone=Tone((-1.0, 1.0)))
    rngs = [np.random.default_rng(seed) for seed in range(5)]
    patches = [draw_patch(source, r, PATCH, turned).channels[RAW] for r in rngs]
    own = statistics.mean(float(patch.std()) for patch in patches)
    print(f"white noise left by a rotation and a displacement: volseg {own:.2f}", end="")
    if "monai" in names:
        import monai.data
        import monai.transforms as mt

        monai.data.set_track_meta(True)  # lazy transforms need it
        box = torch.from_numpy(noise[None, : BOX[0], : BOX[1], : BOX[2]].copy())
        warp: dict[str, Any] = ELASTIC | {"prob": 1.0, "spatial_size": PATCH}
        once = mt.Rand3DElastic(**warp, rotate_range=(TURN, 0.0, 0.0))
        turn = mt.RandRotate(range_x=TURN, prob=1.0, keep_size=True)
        twice = mt.Compose([turn, mt.Rand3DElastic(**warp)], lazy=True)
        for name, pipeline in {"monai in one transform": once, "in two, lazy": twice}.items():
            kept = [float(pipeline.set_random_state(s)(box).std()) for s in range(5)]
            print(f", {name} {statistics.mean(kept):.2f}", end="")
    print()


def print_displacement(names: list[str]) -> None:
    """Print whether the displacement is as strong at the patch's border as in its middle."""

    def strength(fields: np.ndarray) -> str:
        z, y, x = (n // 2 for n in fields.shape[2:])
        middle = fields[:, :, z, y, x]
        return f"{fields[:, :, 0, 0, 0].std():.1f} and {middle.std():.1f}"

    # between knots it is interpolated, so that corners and middles of knots say it all
    own = [draw_knots(np.random.default_rng(s), MOVED, PATCH) for s in range(40)]
    print(
        f"displacement, {ALPHA} meant, corner and middle: volseg {strength(np.stack(own))}", end=""
    )
    if "monai" in names:
        from monai.networks.layers import GaussianFilter

        smooth = GaussianFilter(3, SIGMA, 3.0)  # what Rand3DElastic applies
        torch.manual_seed(0)
        found = [smooth(2 * torch.rand(1, 3, *PATCH) - 1)[0].numpy() for _ in own]
        print(f", monai {strength(MAGNITUDE * np.stack(found))}", end="")
    print()


def print_reading(repeats: int) -> None:
    """Print how much is read for a patch: the box of its positions, or one for the worst case."""
    rng, read, size = np.random.default_rng(0), [], math.prod(PATCH)
    for _ in range(repeats):
        placed = draw_placement(rng, MOVED, PATCH, (40.0, 160.0, 160.0), Frame(isotropic=False))
        cut = locate(placed, PATCH, full_roi(VOLUME), (False, True, True))
        read.append(float((cut.high - cut.low).prod()) / size)
    print(f"voxels read for each of a patch: volseg {statistics.mean(read):.1f}, ", end="")
    print(f"a box for the worst case {math.prod(BOX) / size:.1f}")


def print_determinism(names: list[str]) -> None:
    """Print whether batches depend on the number of workers."""
    config = TrainConfig(patch=(8, 16, 16), batch=2, steps=8)
    by = [islice(load_batches([make_source()], config, 0, workers), 8) for workers in (1, 2)]
    pairs = zip(*(chain.from_iterable(b) for b in by), strict=True)
    same = all(torch.equal(one, two) for one, two in pairs)
    print(f"same batches from 1 and 2 workers: volseg {same}", end="")
    if "monai" in names:
        import monai.transforms as mt
        from monai.data import DataLoader, Dataset
        from monai.utils import set_determinism

        box, drawn = torch.arange(64.0).reshape(1, 4, 4, 4), []
        for workers in (1, 2):
            set_determinism(0)
            patches = Dataset([box] * 32, mt.Compose([mt.RandFlip(0.5, axis) for axis in range(3)]))
            drawn.append(torch.cat([p.clone() for p in DataLoader(patches, workers)]))
        print(f", monai {torch.equal(*drawn)}", end="")
    print()


def print_weight(names: list[str]) -> None:
    """Print what importing them adds to a process that has torch and scipy."""
    modules = {
        "volseg": "volseg.training.augmentation",
        "monai": "monai.transforms",
        "batchgeneratorsv2": "batchgeneratorsv2.transforms.spatial.spatial",
    }
    code = (
        "import sys, time; import torch, scipy.ndimage; known = len(sys.modules); "
        "begun = time.process_time(); import {}; "
        "print(f'{{time.process_time() - begun:.2f}} s, {{len(sys.modules) - known}} modules')"
    )
    for name in names:
        command = [sys.executable, "-c", code.format(modules[name])]
        subprocess.check_output(command)  # the first time also reads files and compiles
        print(f"importing {name}: {subprocess.check_output(command, text=True).strip()}")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=40)
    repeats = parser.parse_args().repeats
    if os.environ.get("OMP_NUM_THREADS") != "1":
        parser.error("set OMP_NUM_THREADS=1 before Python starts: one thread is what is compared")
    names = [n for n in MAKERS if n == "volseg" or importlib.util.find_spec(n)]
    for missing in MAKERS.keys() - names:
        print(f"{missing} is not installed: not measured")
    print_speed(names, repeats)
    print_sharpness(names)
    print_displacement(names)
    print_reading(repeats)
    print_determinism(names)
    print_weight(names)


if __name__ == "__main__":
    main()
