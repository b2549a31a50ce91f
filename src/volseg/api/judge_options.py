"""Options of `evaluate` and `verify`; see `volseg.api.options`."""

from typing import Required, TypedDict

from volseg.api.keywords import described
from volseg.api.options import Place, Region, Results, Running, Threads


@described
class Matching(TypedDict, total=False):
    """Comparison of objects.

    iou : Match objects of at least this intersection over union.
    min_size : Ignore smaller objects, in voxels, in truth and prediction.  [default: the --min-size
        that the labels were made with]
    tolerance : Also measure how far the surfaces of truth and prediction lie apart, and the F1 of
        boundaries at this distance in nm (in voxels where their size is unknown).
    ignore_border : Count objects at the border of the region neither as missed nor as false.
    instances : Take labels of one value as one object, not as a mask.
    images : Take slices as unrelated images, and score each by itself too; volumes that
        `volseg convert --images` made need no saying.
    """

    iou: float
    min_size: int | None
    tolerance: float | None
    ignore_border: bool
    instances: bool
    images: bool


class CompareArraysKeywords(Matching, Threads, total=False):
    """Options of `compare_arrays`."""


@described
class EvaluateKeywords(Results, Region, Matching, Running, total=False):
    """Options of `evaluate`.

    truth : Compare with labels of this name in VOLUME, or with a Zarr array, image or label TIFF.
        The objects of a mask are its connected components. {name} stands for each of several
        --name, here and in --mask.
    labels : Evaluate these labels, Zarr or TIFF, instead of VOLUME/labels/NAME.
    foreground : Take this value of the truth as foreground, such as 0 for membranes.  [default: all
        above 0]
    mask : Count only voxels above 0 in these labels, a name or a path.
    output : Write evaluation.json, errors.parquet and curves.png to this folder, of several --name
        to a folder in it for each.
    """

    truth: Required[Place]
    labels: Place | None
    foreground: int | None
    mask: Place | None
    output: Place | None


@described
class VerifyKeywords(Running, total=False):
    """Options of `verify`.

    quick : Read everything, compare nothing.
    sample : Predict N blocks of each array of probabilities again.
    model : Use this model, if it is not a shipped one.
    elsewhere : Allow for the rounding of another machine that made the probabilities.
    """

    quick: bool
    sample: int
    model: str | None
    elsewhere: bool
