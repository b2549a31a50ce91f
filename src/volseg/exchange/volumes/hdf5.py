"""HDF5 datasets, with the words by which ImageJ's plugin and ilastik know the size of voxels."""

from __future__ import annotations

import io
from contextlib import closing
from typing import Any

from volseg.engine.progress import Progress
from volseg.errors import ParameterError
from volseg.exchange.volumes.cut import Cut
from volseg.exchange.volumes.plan import ExportPlan
from volseg.storage.files import drafting

NM_PER_UM = 1000.0


class Held(io.RawIOBase):
    """A file whose errors are kept: the HDF5 library ends the process where it cannot close one."""

    def __init__(self, file: io.FileIO) -> None:
        self.file = file
        self.error: OSError | None = None

    def check(self) -> None:
        """Raise the first error that was kept."""
        if self.error is not None:
            raise self.error

    def close(self) -> None:
        """Raise the first error, once nothing is written any more."""
        if not self.closed:
            super().close()
            self.check()

    def readinto(self, buffer: Any) -> int:
        """Read into a buffer."""
        return self.file.readinto(buffer) or 0

    def write(self, content: Any) -> int:
        """Write, as long as nothing has failed; then nothing more."""
        left = memoryview(content)
        try:
            while self.error is None and left:
                left = left[self.file.write(left) or 0 :]
        except OSError as error:
            self.error = error
        return len(content)

    def seek(self, offset: int, whence: int = 0) -> int:
        """Move to a place."""
        return self.file.seek(offset, whence)

    def tell(self) -> int:
        """Tell the place."""
        return self.file.tell()

    def truncate(self, size: int | None = None) -> int:
        """Set the size."""
        return self.file.truncate(size)

    def seekable(self) -> bool:
        """Tell that it has places."""
        return True


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
    with (
        drafting(path, parents=False) as draft,
        draft.open("wb+", buffering=0) as raw,
        closing(Held(raw)) as held,
        h5py.File(held, "w") as file,
    ):
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
            held.check()
