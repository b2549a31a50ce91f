"""Letters and scale bars on pictures, without a font: each letter is five pixels wide."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

WIDTH, HEIGHT = 5, 9
"""Pixels of a letter; the last two rows hold what hangs below the line."""
STEP, LINE = WIDTH + 1, HEIGHT + 1
"""Pixels from one letter, and from one line, to the next."""
BLACK, WHITE = (0, 0, 0), (255, 255, 255)

_ROWS = """
.00000cc ,00000cc48 :0cc0cc0 ;0cc0cc48 -000e000 _00000000v /01248g0 (2488842 )8422248 +044v440
=00v0v00 %op248j3 <248g842 >8421248 ?eh12404 !4444404 '448 "aa #aavavaa &cik8lid *04lel40
@eh1dlle [e88888e ]e22222e ~008l200 |4444444 µ00hhhjtgg
0ehjlphe 14c4444e 2eh1248v 3v2421he 426aivv2 5vgu11he 668guhhe 7v124888 8ehhehhe 9ehhf12c
Aehhvhhh Buhhuhhu Cehggghe Duhhhhhu Evgguggv Fvgguggg Gehgnhhf Hhhhvhhh Ie44444e J72222ic
Khikokih Lggggggv Mhrllhhh Nhhpljhh Oehhhhhe Puhhuggg Qehhhlid Ruhhukih Sfgge11u Tv444444
Uhhhhhhe Vhhhhha4 Whhhllla Xhha4ahh Yhhha444 Zv1248gv
a00e1fhf bggmphhu c00eggge d11djhhf e00ehvge f698s888 g00fhhhf1e hggmphhh i40c444e j2062222ic
kggikoki lc44444e m00qllhh n00mphhh o00ehhhe p00uhhhugg q00fhhhf11 r00mpggg s00ege1u t88s8896
u00hhhjd v00hhha4 w00hhlla x00ha4ah y00hhhhf1e z00v248v
"""
"""Each letter, then its rows from the top as digits of base 32: a bit for each pixel."""
_UNKNOWN = "vhhhhhv"


def _drawn(rows: str) -> NDArray[np.bool_]:
    values = np.array([int(row, 32) for row in rows.ljust(HEIGHT, "0")])
    found: NDArray[np.bool_] = (values[:, None] >> np.arange(WIDTH - 1, -1, -1)) & 1 == 1
    return found


_LETTERS = {entry[0]: _drawn(entry[1:]) for entry in _ROWS.split()}
_LETTERS[" "] = _drawn("")


def shape_text(text: str) -> NDArray[np.bool_]:
    """Tell which pixels a line of text covers; a letter that is not known is a box.

    Returns
    -------
    bool, shape (9, width)

    Examples
    --------
    >>> for row in shape_text("Fit")[:7]:
    ...     print("".join(" #"[int(on)] for on in row).rstrip())
    #####   #    #
    #            #
    #      ##   ###
    ####    #    #
    #       #    #
    #       #    #  #
    #      ###    ##
    """
    covered = np.zeros((HEIGHT, max(STEP * len(text) - 1, 0)), bool)
    for k, letter in enumerate(text):
        at = slice(STEP * k, STEP * k + WIDTH)
        covered[:, at] = _LETTERS[letter] if letter in _LETTERS else _drawn(_UNKNOWN)
    return covered


def draw_text(
    picture: NDArray[np.uint8],
    corner: tuple[int, int],
    text: str,
    *,
    colour: tuple[int, int, int] = BLACK,
    scale: int = 2,
) -> None:
    """Draw a line of text into a picture; what is beyond it is left out.

    Parameters
    ----------
    picture : uint8, shape (y, x, 3)
    corner : (y, x) of the upper left one, in pixels
    text : of which letters are `STEP` pixels wide, times the scale
    """
    y, x = corner
    covered = shape_text(text).repeat(scale, 0).repeat(scale, 1)
    seen = picture[y : y + covered.shape[0], x : x + covered.shape[1]]
    seen[covered[: seen.shape[0], : seen.shape[1]]] = colour


def shorten(text: str, count: int) -> str:
    """Cut the middle out of a text of too many letters.

    Examples
    --------
    >>> shorten("mitochondria", 8), shorten("mito", 8)
    ('mit..ria', 'mito')
    """
    if len(text) <= count:
        return text
    kept = max(count - 2, 2)
    return f"{text[: (kept + 1) // 2]}..{text[len(text) - kept // 2 :]}"


def choose_bar(nanometres: float) -> tuple[str, float]:
    """Choose a round length for a scale bar, of a tenth to a quarter of a picture's width.

    Examples
    --------
    >>> choose_bar(5120.0), choose_bar(2600.0)
    (('1 µm', 0.1953125), ('500 nm', 0.19230769230769232))
    """
    length = _round_length(nanometres / 4)
    words = f"{length / 1000:g} µm" if length >= 1000 else f"{length:g} nm"
    return words, length / nanometres


def count_bar(voxels: int) -> tuple[str, float]:
    """Choose a scale bar where the size of voxels is unknown: a round number of them.

    Examples
    --------
    >>> count_bar(256), count_bar(3)
    (('50 voxels', 0.1953125), ('1 voxel', 0.3333333333333333))
    """
    length = max(_round_length(voxels / 4), 1)
    return f"{length:g} voxel{'' if length == 1 else 's'}", length / voxels


def _round_length(most: float) -> float:
    power = 10.0 ** math.floor(math.log10(most))
    return float(max(n * power for n in (1, 2, 5) if n * power <= most))


def draw_bar(picture: NDArray[np.uint8], words: str, part: float, *, scale: int = 2) -> None:
    """Draw a scale bar, white on black, into the lower left corner of a picture.

    Parameters
    ----------
    picture : uint8, shape (y, x, 3)
    words : length of the bar
    part : of the picture's width that it is long
    """
    height, width = picture.shape[:2]
    bar, gap = max(round(part * width), 1), 2 * scale
    across = max(bar, STEP * scale * len(words) - scale) + 2 * gap
    top = max(height - (LINE + 2) * scale - 3 * gap, 0)
    picture[top:, :across] = BLACK
    draw_text(picture, (top + gap, gap), words, colour=WHITE, scale=scale)
    picture[height - gap - 2 * scale : height - gap, gap : gap + bar] = WHITE
