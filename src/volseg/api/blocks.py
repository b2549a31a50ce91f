"""Run one's own function over the blocks of a volume, on the engine of the commands."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias, Unpack

from volseg.api.keywords import read_three, takes
from volseg.api.opening import Volume
from volseg.api.opening import open as open_volume
from volseg.api.options import Place, Running
from volseg.api.running import engine_of, place_of, shown
from volseg.api.slicing import ImageArray
from volseg.errors import ParameterError, ShapeError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import DTypeLike, NDArray

    from volseg.engine.progress import Progress
    from volseg.geometry.grid import Block
    from volseg.storage.arrays import ArraySpec, StoredArray
    from volseg.types import Zyx

Function: TypeAlias = Callable[..., Any]


@dataclass(frozen=True)
class CallFunction:
    """Read a block with its halo, and call a function on it.

    Attributes
    ----------
    function : of an array, shape (z, y, x)
    source : array in storage
    halo : voxels of context on each side, cut off at the array's border
    target : where to write; None returns what the function gives
    trim : whether the function gives an array of the shape that it got, of which the core is kept
    dtype : of that array
    """

    function: Function
    source: StoredArray
    halo: Zyx
    target: StoredArray | None
    trim: bool
    dtype: Any

    def __call__(self, block: Block) -> Any:
        """Process one block."""
        import numpy as np

        from volseg.geometry.grid import grow, roi_shape, shift

        region = grow(block.core, self.halo, self.source.shape)
        found = self.function(self.source[region])
        if not self.trim:
            return found
        array = np.asarray(found)
        if array.shape != roi_shape(region):
            raise ShapeError(
                f"the function got a block of shape {roi_shape(region)} and returned "
                f"{array.shape}; return the same shape, or leave dtype out to collect anything"
            )
        core = cast(array[shift(block.core, [side.start for side in region])], self.dtype)
        if self.target is None:
            return core
        self.target.write(block.core, np.ascontiguousarray(core))
        return None


def cast(values: NDArray[Any], kind: np.dtype[Any]) -> NDArray[Any]:
    """Make values those of a type, which has to hold them: NumPy wraps 300 to 44 and cuts 0.5 to 0.

    Floats may be rounded to shorter ones, but not to infinity, and anything has a truth.
    """
    import numpy as np

    with np.errstate(invalid="ignore", over="ignore"):
        found = values.astype(kind)
    rounds = kind.kind in "fc"
    if kind.kind == "b" or np.can_cast(values.dtype, kind, "safe"):
        return found
    if rounds and np.can_cast(values.dtype, kind, "same_kind"):
        lost = values[np.isinf(found) & ~np.isinf(values)]
    else:
        lost = values[found != values]
    if lost.size:
        raise ParameterError(
            f"the function returned {lost.flat[0]}, which {kind} cannot hold; give another dtype, "
            f"or round and clip in the function"
        )
    return found


@takes(Running)
def map_blocks(
    function: Function,
    source: ImageArray | Volume | Place,
    block: Zyx,
    halo: Zyx = (0, 0, 0),
    *,
    dtype: DTypeLike | None = None,
    output: Place | None = None,
    progress: Progress | None = None,
    **running: Unpack[Running],
) -> list[Any] | NDArray[Any] | ImageArray:
    """Call a function on every block of an array, each with a halo of context.

    If the function looks no further than the halo, its results do not depend on the blocks. At the
    border of the array there is no halo: the function sees the border itself.

    Parameters
    ----------
    function : callable
        Takes an array of shape (z, y, x), block and halo. For other processes it must be picklable.
    source : array, volume or path
        ``volseg.open(p).raw``, ``volseg.open(p).labels["mitochondria"]``, or a path.
    block, halo : three integers
        Voxels (z, y, x); the block is rounded up to whole shards where ``output`` is given.
    dtype : optional
        The function returns an array of the shape that it got, and the result is an array of this
        type without halos, which has to hold what the function returns. Without ``dtype`` the
        results are collected in a list, in raster order.
    output : path, optional
        New Zarr array for the result, which is removed if the function fails; without it the result
        is a NumPy array.

    Raises
    ------
    InputError
        If an argument cannot be used, or ``output`` exists.
    BlockError
        If the function failed on blocks; the message names them.
    """
    import numpy as np

    from volseg.engine.progress import Job
    from volseg.engine.run import run_blocks
    from volseg.geometry.grid import Grid, whole_multiples

    array, engine = _array_of(source), engine_of(**running)
    block, halo = read_three("block", block), read_three("halo", halo)
    if min(halo) < 0:
        raise ParameterError(f"a halo is 0 voxels or more, found {halo}")
    kind = None if dtype is None else np.dtype(dtype)
    spec = None if output is None else _specify(array.shape, kind)
    grid = Grid(array.shape, block if spec is None else whole_multiples(block, spec.shard))
    whole = np.empty(array.shape, kind) if kind is not None and output is None else None
    found: dict[Zyx, Any] = {}

    def on_result(item: Block, result: Any) -> None:
        if whole is not None:
            whole[item.core] = result
        else:
            found[item.index] = result

    with _created(output, spec) as target:
        task = CallFunction(function, array.stored, halo, target, kind is not None, kind)
        job = Job(shown(progress), int(np.prod(grid.counts)), "blocks", "mapping")
        on_each = on_result if target is None else None
        run_blocks(task, grid.blocks(), engine, on_result=on_each, progress=job)
    if target is not None:
        return open_volume(target.path).raw
    return [found[index] for index in sorted(found)] if whole is None else whole


def _specify(shape: Zyx, kind: np.dtype[Any] | None) -> ArraySpec:
    """Describe the array that results are written to."""
    from volseg.storage.arrays import fit_spec

    if kind is None:
        raise ParameterError("an output array needs a dtype")
    return fit_spec(shape, kind.name)


@contextmanager
def _created(output: Place | None, spec: ArraySpec | None) -> Iterator[StoredArray | None]:
    """Create an array, and remove it if what fills it fails: nothing tells its gaps from zeros."""
    from volseg.storage.arrays import create_array
    from volseg.storage.files import discard

    if output is None or spec is None:
        yield None
        return
    target = create_array(place_of(output), spec)
    try:
        yield target
    except BaseException:
        with suppress(OSError):  # the reason why it failed says more
            discard(target.path)
        raise


def _array_of(source: ImageArray | Volume | Place) -> ImageArray:
    if isinstance(source, ImageArray):
        return source
    return source.raw if isinstance(source, Volume) else open_volume(source).raw
