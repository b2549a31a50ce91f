"""Options of `train`, for Python and the command line; see `volseg.api.options`."""

from collections.abc import Sequence
from typing import Literal, Required, TypeAlias, TypedDict

from volseg.api.keywords import described
from volseg.api.options import Device, Place, SourceSize
from volseg.types import Names, VoxelSize, Zyx

Pair: TypeAlias = tuple[Place, Place]
"""A volume or stack, and its labels."""


@described
class Data(TypedDict, total=False):
    """Data to train on and to validate on.

    labels : Labels of each VOLUME: a name in it, or a Zarr array or label TIFF. Voxels above 0 are
        foreground.
    data : Train on this volume with these labels; may be repeated.
    validation_data : Validate on this volume, and hold out nothing else; may be repeated.
    roi : Train on this region; give it once, or once for each VOLUME.  [default: all that is not
        held out]
    validation : Validate on this region, or on so many slices or images drawn at random, such as
        random:80.  [default: the last fifth along z; with --images, one in five]
    slices : Use these annotated slices only, counted from 0; 5-9 is a range.
    images : Treat slices as unrelated images, each seen by its own brightness; for 2D networks.
        Volumes that `volseg convert --images` made need no saying.
    foreground : Take this value of labels as foreground, such as 0 for membranes.  [default: all
        above 0]
    axes : Name the axes of images and labels in files, slowest first, such as YXZ, where they do
        not say.
    """

    labels: Place | Sequence[Place]
    data: Sequence[Pair]
    validation_data: Sequence[Pair]
    roi: str | Sequence[str]
    validation: str | Sequence[str]
    slices: Sequence[Sequence[int]] | Sequence[int]
    images: bool
    foreground: int | None
    axes: str | None


@described
class Length(TypedDict, total=False):
    """Length of a run.

    steps : Train for this many steps.
    minutes : Train for this many minutes.
    epochs : Train for this many epochs; an epoch draws as many voxels as there are to train on.
    patience : Stop after this many validations without a better one.  [default: 0, never]
    """

    steps: int | None
    minutes: float | None
    epochs: int | None
    patience: int | None


@described
class Learning(TypedDict, total=False):
    """Network and optimisation.

    architecture : Train this network: emnet, unet2d, unet3d, attention-unet, ...  [default: emnet]
    classes : Learn these classes: NAME=VALUE of the labels, or NAME=LABELS of its own, in the
        folder that --labels names if it is one.  [default: one class, all labels above 0]
    auxiliary : Learn these maps of the first class, too: contour, distance, offset (to the centre
        of the object); CLASS-contour is of another class.
    ignore : Ignore voxels of this value in the labels.  [default: values below 0, with --classes or
        --auxiliary]
    width : Channels at full resolution.  [default: 32 for emnet, else 16]
    loss : Minimise this loss.  [default: emnet for emnet, else bce-dice]
    patch : Size of a training patch in voxels.  [default: 32,96,96; 1,256,256 for 2D networks]
    batch : Patches per step.  [default: 1; 2 in 2D]
    optimizer : Optimise by this.  [default: adamw]
    schedule : Lower the learning rate this way; step is by 0.9 every 15 epochs.  [default: cosine]
    learning_rate : Learning rate after warm-up.  [default: 0.002 for emnet, else 0.001]
    resample_to : Show the network voxels of this size in nm; data of other sizes are resampled.
        [default: as the data]
    fraction : Train on this fraction of the slices, drawn by --seed.  [default: 1]
    validate_every : Steps between validations.  [default: 250]
    seed : Random seed.  [default: 0]
    """

    architecture: str | None
    classes: Names | None
    auxiliary: Names | None
    ignore: int | None
    width: int | None
    loss: Literal["bce", "bce-dice", "dice", "emnet", "jaccard", "log-dice", "square-dice"] | None
    patch: Zyx | None
    batch: int | None
    optimizer: Literal["adam", "adamw", "sgd"] | None
    schedule: Literal["constant", "cosine", "step"] | None
    learning_rate: float | None
    resample_to: VoxelSize | None
    fraction: float | None
    validate_every: int | None
    seed: int | None


@described
class Intensities(TypedDict, total=False):
    """Preprocessing of intensities.

    gamma : Raise intensities, scaled to 0..1 between two percentiles, to this power.  [default: 1]
    equalise : Equalise the histogram of intensities: of the volume, of each slice, or of what is
        around each voxel, with limited contrast (CLAHE).
    """

    gamma: float | None
    equalise: Literal["volume", "slice", "local"] | None


@described
class Card(SourceSize, total=False):
    """Start and card of the weights.

    start : Start from these weights, by name or path, at a tenth of the rate and augmented calmly.
    name : Name the weights.  [default: the output folder's name]
    terms : Record the terms of use of the data in the weights' card.
    """

    start: str | None
    name: str | None
    terms: str | None


@described
class TrainKeywords(Data, Length, Learning, Intensities, Card, Device, total=False):
    """Options of `train`.

    output : Write checkpoint, log and weights to this folder.
    config : Read options from a TOML recipe, which flags override. Every run writes its
        recipe.toml.
    workers : Threads that draw patches; any number gives the same result.  [default: one per core,
        at most 4]
    overwrite : Replace a different result, or continue the same one.
    """

    output: Required[Place]
    config: Place | None
    workers: int | None
    overwrite: bool
