"""HDF5 datasets, with the words by which ImageJ's plugin and ilastik know the size of voxels."""

from __future__ import annotations

import io
import itertools
import math
import zlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import numpy as np

from volseg.engine.progress import Job, Progress, core_voxels
from volseg.errors import require
from volseg.exchange.volumes.cut import Cut
from volseg.exchange.volumes.plan import ExportPlan
from volseg.exchange.volumes.resumed import Pieces, keeping
from volseg.geometry.grid import Block, Grid
from volseg.storage.files import drafting

NM_PER_UM = 1000.0
LEVEL = 4
"""Of gzip, as h5py takes it."""
TOGETHER = 32
"""Chunks that are packed together."""


class HeldFile(io.RawIOBase):
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


def write_hdf5(plan: ExportPlan, cut: Cut, progress: Progress) -> tuple[()]:
    """Write one compressed dataset; a file that is there stands until this one is complete."""
    path = plan.options.output
    require("h5py", "formats", f"{path.name} is an HDF5 file, which needs h5py")
    import h5py

    z, y, x = (min(c, n) for c, n in zip(cut.array.chunk, cut.shape, strict=True))
    grid = Grid(cut.shape, (z, y, x))
    with keeping(plan) as pieces:
        _pack(pieces, cut, grid, progress, plan.options.engine.workers)
        with (
            drafting(path, parents=False) as draft,
            draft.open("wb+", buffering=0) as raw,
            closing(HeldFile(raw)) as held,
            h5py.File(held, "w") as file,
        ):
            made = file.create_dataset(
                plan.options.what,
                cut.shape,
                cut.dtype,
                chunks=grid.size,
                compression="gzip",
                compression_opts=LEVEL,
                shuffle=True,
            )
            for axis, dimension in zip("zyx", made.dims, strict=True):
                dimension.label = axis
            if (size := cut.space.voxel_size) is not None:
                made.attrs["element_size_um"] = [s / NM_PER_UM for s in size]
                made.attrs["origin_nm"] = cut.origin_nm
            for block, packed in zip(grid.blocks(), pieces, strict=True):
                made.id.write_direct_chunk([s.start for s in block.core], packed)
                held.check()
    return ()


def _pack(pieces: Pieces, cut: Cut, grid: Grid, progress: Progress, workers: int | None) -> None:
    """Keep the chunks that are not kept yet, each as HDF5's filters shuffle and gzip pack it."""

    def pack(block: Block) -> bytes:
        chunk = np.zeros(grid.size, cut.dtype)  # those at the border are filled up
        read = cut.read(block.core)
        chunk[tuple(slice(0, n) for n in read.shape)] = read
        shuffled = chunk.reshape(-1).view(np.uint8).reshape(-1, chunk.itemsize).T
        return zlib.compress(shuffled.tobytes(), LEVEL)

    done = sum(core_voxels(b, None) for b in itertools.islice(grid.blocks(), pieces.count))
    left = itertools.islice(grid.blocks(), pieces.count, None)
    job = Job(progress, math.prod(cut.shape), "voxels", "writing HDF5", done, core_voxels)
    with job.shown(), ThreadPoolExecutor(workers) as pool:
        while some := list(itertools.islice(left, TOGETHER)):
            for block, packed in zip(some, pool.map(pack, some), strict=True):
                pieces.add([packed])
                job.count(block, None)
