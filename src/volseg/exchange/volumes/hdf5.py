"""HDF5 datasets, with the words by which ImageJ's plugin and ilastik know the size of voxels."""

from __future__ import annotations

from volseg.engine.progress import Progress
from volseg.errors import ParameterError, StorageError
from volseg.exchange.volumes.cut import Cut
from volseg.exchange.volumes.plan import ExportPlan
from volseg.storage.files import drafting

NM_PER_UM = 1000.0


def write_hdf5(plan: ExportPlan, cut: Cut, progress: Progress) -> None:
    """Write one compressed dataset; a file that is there stands until this one is complete.

    Raises
    ------
    ParameterError
        If h5py is not installed.
    StorageError
        If it cannot be written, or voxels cannot be read.
    """
    path = plan.options.output
    try:
        import h5py
    except ImportError as error:
        raise ParameterError(
            f"{path.name} is an HDF5 file, which needs h5py: pip install 'volseg[formats]'"
        ) from error
    chunk = tuple(min(c, n) for c, n in zip(cut.array.chunk, cut.shape, strict=True))
    try:
        with drafting(path, parents=False) as draft, h5py.File(draft, "w") as file:
            made = file.create_dataset(
                plan.options.what,
                cut.shape,
                cut.dtype,
                chunks=chunk,
                compression="gzip",
                shuffle=True,
            )
            for axis, dimension in zip("zyx", made.dims, strict=True):
                dimension.label = axis
            if (size := cut.space.voxel_size) is not None:
                made.attrs["element_size_um"] = [s / NM_PER_UM for s in size]
                made.attrs["origin_nm"] = cut.origin_nm
            for start, slab in cut.slabs(progress, "writing HDF5"):
                made[start : start + len(slab)] = slab
    except RuntimeError as error:
        raise StorageError(f"cannot write {path}: {error}") from error
