"""Teach the weights of a result by marks, and forget marks."""

from collections.abc import Iterable, Sequence
from numbers import Integral
from typing import TYPE_CHECKING, Unpack

from volseg.api.keywords import described, takes
from volseg.api.options import Device, Place, Result, Threads
from volseg.api.running import build, file_of, place_of, shown, text_of
from volseg.defaults import NAME

if TYPE_CHECKING:
    from volseg.engine.progress import Progress
    from volseg.stages.teach.run import TeachReport


@described
class TeachKeywords(Device, Threads, Result, total=False):
    """Options of `teach`.

    marked_no : Mark these objects as no mitochondria.
    marked_yes : Mark these objects as mitochondria.
    points : Mark what lies under the points of a CSV file: of yes=FILE or no=FILE all alike, of
        FILE by its column mark; or of a state of Neuroglancer (.json); may be repeated. See
        docs/teach.md.
    painted : Mark regions painted in labels of the volume's shape: 1 is none, 2 a mitochondrion.
    slices : Marked objects count in these slices only, counted from 0; 5-9 is a range.
    simulate : Let these labels, the truth, click on false and missed objects.
    axes : Name the axes of --painted and --simulate that are files, slowest first, such as YXZ,
        where these do not say.
    minutes : Train for so long; 0 keeps the marks for `apply --marks`, and trains nothing.
    steps : Train for so many steps instead, which is the same on any machine.
    strength : Keep this part of what the training changed, up to 1: more removes more false
        objects, and forgets more true ones.
    model : Weights that made the result, if they are neither shipped nor beside VOLUME.
    output : Write the new weights to this .safetensors file.  [default: VOLUME-taught-N]
    sheet : Draw the contact sheet to this PNG file.  [default: beside the new weights]
    """

    marked_no: Sequence[Sequence[int]] | Sequence[int]
    marked_yes: Sequence[Sequence[int]] | Sequence[int]
    points: Sequence[str] | str
    painted: Place | None
    slices: Sequence[Sequence[int]] | Sequence[int]
    simulate: Place | None
    axes: str | None
    minutes: float
    steps: int | None
    strength: float
    model: str | None
    output: Place | None
    sheet: Place | None


@takes(TeachKeywords)
def teach(
    volume: Place, *, progress: "Progress | None" = None, **options: Unpack[TeachKeywords]
) -> "TeachReport":
    """Teach the weights of a result by marks on a few of its objects, and write new weights.

    The marks are kept in the volume, and those of earlier calls count too; see `forget_marks`.

    Parameters
    ----------
    volume : path
        With probabilities and labels that `segment` made.
    progress : Progress, optional

    Raises
    ------
    InputError
        If marks or options cannot be used; nothing was written.
    WorkError
        If training fails, or something cannot be read or written.
    """
    from volseg.stages.teach import run

    points, output = options.get("points", ()), options.get("output")
    named = (points,) if isinstance(points, str) else tuple(points)
    painted, truth, sheet = options.get("painted"), options.get("simulate"), options.get("sheet")
    chosen = build(
        run.TeachOptions,
        options,
        points=[read_sign(text) for text in named],
        painted=None if painted is None else text_of(painted),
        simulate=None if truth is None else text_of(truth),
        marked_no=_flat(options.get("marked_no", ())),
        marked_yes=_flat(options.get("marked_yes", ())),
        slices=_flat(options.get("slices", ())) or None,
        output=None if output is None else file_of(output),
        sheet=None if sheet is None else file_of(sheet),
    )
    return run.teach(place_of(volume), chosen, shown(progress))


def _flat(numbers: Iterable[Sequence[int] | int]) -> tuple[int, ...]:
    """Join numbers and lists of numbers, as the command line gives them, to one list.

    Examples
    --------
    >>> import numpy as np
    >>> _flat(np.array([3, 1])), _flat([(3, 1), (2,)])
    ((3, 1), (3, 1, 2))
    """
    # Integral: numbers that NumPy and tables give are no int
    lists = ((n,) if isinstance(n, int | Integral) else tuple(n) for n in numbers)
    return tuple(int(number) for some in lists for number in some)


def read_sign(text: str) -> tuple[Place, bool | None]:
    """Read ``yes=FILE``, ``no=FILE`` or ``FILE``.

    Examples
    --------
    >>> sign = read_sign("no=clicks.csv")
    >>> str(sign[0]), sign[1]
    ('clicks.csv', False)
    """
    word, _, name = text.partition("=")
    sign = {"yes": True, "no": False}.get(word)
    return file_of(text if sign is None else name), sign


def forget_marks(volume: Place, *, name: str = NAME) -> tuple[int, int]:
    """Drop the marks on a result that the last call of `teach` added.

    Weights that were made of them stay where they are.

    Returns
    -------
    dropped, left : how many marks

    Raises
    ------
    InputError
        If there are none.
    """
    from volseg.storage.marks import forget
    from volseg.storage.volumes import open_image

    place = place_of(volume)
    return forget(place, name, open_image(place).levels[0].shape)
