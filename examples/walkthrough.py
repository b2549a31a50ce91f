"""Mitochondria in a corner of a FIB-SEM volume: a notebook in percent format."""

# %% [markdown]
# # Mitochondria in a corner of a FIB-SEM volume
#
# From a TIFF stack to counted, measured, scored mitochondria in Python. Editors open this file as a
# notebook; `python examples/walkthrough.py FOLDER` runs it from top to bottom.

# %%
import sys
from pathlib import Path

import numpy as np
import tifffile

import volseg

crop = Path(__file__).parent / "crop"
folder = Path(sys.argv[1] if len(sys.argv) > 1 else "walkthrough-output")
folder.mkdir(exist_ok=True)

# %% [markdown]
# A corner with one mitochondrion, so that the network needs seconds.

# %%
corner = (slice(None), slice(96, 176), slice(64, 144))
for name in ("raw", "labels"):
    tifffile.imwrite(folder / f"{name}.tif", tifffile.imread(crop / f"{name}.tif")[corner])

# %% [markdown]
# ## Convert and segment
#
# The stack becomes an OME-Zarr volume; the voxel size goes with it into every number. Running a
# step again does only what is missing.

# %%
path = folder / "corner.zarr"
converted = volseg.convert(folder / "raw.tif", path, voxel_size=(5, 5, 5), overwrite=True)
print(f"{converted.shape} voxels of {converted.voxel_size} nm, {converted.levels} levels")

segmented = volseg.segment(path, model="emnet")
print(f"{segmented.label.objects} object(s) at threshold {segmented.label.threshold}")

# %% [markdown]
# ## Look at it
#
# Arrays are read where they are sliced; `.dask` is for volumes that do not fit in memory.

# %%
volume = volseg.open(path)
print(volume)
middle = volume.labels["mitochondria"][volume.shape[0] // 2]
print(f"{np.count_nonzero(middle)} voxels of mitochondria in the middle slice")
brightness = volume.raw.dask.mean(axis=(1, 2)).compute()
print(f"mean intensity of the slices: {brightness.min():.0f} to {brightness.max():.0f}")

# %% [markdown]
# ## Measure and score

# %%
measured = volseg.stats(path)
table = volume.tables["mitochondria"]
for row in table.select(["label", "volume_nm3", "surface_area_nm2", "sphericity"]).to_pylist():
    print({name: round(value, 3) for name, value in row.items()})

scores = volseg.evaluate(path, truth=folder / "labels.tif")
print(f"Jaccard index {scores.foreground.jaccard:.2f}, {scores.objects.matched} object(s) matched")

# %% [markdown]
# ## Other rules, without predicting again
#
# Probabilities are kept, so that thresholds can be compared in memory.

# %%
truth = tifffile.imread(folder / "labels.tif")
probabilities = volume.probabilities["mitochondria"][...]
for threshold in (0.3, 0.5, 0.7):
    labels = volseg.label_array(probabilities, threshold=threshold)
    found = volseg.compare_arrays(truth, labels)
    print(f"threshold {threshold}: Jaccard index {found.foreground.jaccard:.2f}")
