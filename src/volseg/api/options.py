"""Options of Python and of the command line, each said once: its name, type and words.

A group of options is a `TypedDict`, and what a verb takes is made of groups. A function takes them
as ``**options: Unpack[...]``, which type checkers and editors read; `volseg.api.keywords.takes`
shows them in its signature and help; and the command line makes a flag of each. An option that is
never None, nor a switch, has its default in `volseg.defaults`, under its name.

A new option is an entry here, and a field of that name in the options of its stage, which checks
its value (decision 0053).
"""

from collections.abc import Mapping
from os import PathLike
from typing import Any, Literal, TypeAlias, TypedDict

from volseg.api.keywords import described
from volseg.types import Names, VoxelSize, Zyx

Place: TypeAlias = str | PathLike[str]
"""A path, or the URL of a place on object storage."""


@described
class Threads(TypedDict, total=False):
    """Work in this process.

    workers : Blocks to run at a time.  [default: one per core]
    """

    workers: int | None


@described
class Running(Threads, total=False):
    """Workers and schedulers; see ``docs/clusters.md``.

    scheduler : Use a running Dask scheduler, such as tcp://host:8786; excludes --workers.
    cluster : Start processes, or jobs of a queue; excludes --workers; see docs/clusters.md.
    cluster_config : Read the number and size of the workers from this TOML file.
    dashboard : Tell the address of Dask's dashboard; needs a cluster or a scheduler.
    block_timeout : Take a worker to hang when a block needs longer.
    """

    scheduler: str | None
    cluster: Literal["local", "slurm", "lsf", "pbs"] | None
    cluster_config: Place | Mapping[str, Any] | None
    dashboard: bool
    block_timeout: float


@described
class Objects(TypedDict, total=False):
    """Rules of what becomes an object.

    threshold : Take voxels of at least this probability as foreground.  [default: the model's]
    seed_threshold : Keep objects with a voxel of at least this probability.  [default: all]
    connectivity : Join neighbours over faces (6), also edges (18), also corners (26); or those of
        one slice, over edges (4), also corners (8).
    complement : Take what is below the threshold as objects, such as cells between membranes.
    images : Take slices as unrelated images, through which no object reaches; volumes that
        `volseg convert --images` made need no saying.
    min_size : Drop objects of fewer voxels.  [default: the model's]
    min_size_nm3 : Drop objects of fewer nm³; of both sizes the larger counts.
    max_volume_um3 : Drop objects of more µm³, and tell how many.
    max_section_um2 : Drop objects of which a section in one slice has more µm², and tell how many.
    min_probability : Drop objects whose mean probability is lower; by darkness, evenness and other
        columns of the table `volseg apply --keep` drops.  [default: the model's]
    faint_size : Keep objects of more voxels whatever their mean probability.  [default: the
        model's with its lowest mean, none with one that is given]
    median_nm : Take at each voxel the median of three probabilities, its own and those of the
        slices so many nm before and after; 0 for its own.  [default: the model's]
    fill_holes : Add enclosed background to its object.
    split : Separate touching objects by a watershed from maxima of the distance to their surface,
        from probabilities/NAME-centerline, from where probabilities/NAME-contour is low, from where
        many voxels point by probabilities/NAME-offset-y and others, or from the centres of K-means.
    split_depth : Cut necks that are thinner by this much, with --split distance.
    split_centres : Put this many centres into each object, with --split kmeans.  [default: as many
        as the elbow of the sum of squares asks for]
    split_sure : Seeds have at least this probability, with --split contour.  [default: the model's]
    split_contour : Seeds have a contour below this probability.  [default: the model's]
    split_votes : Seeds lie where this many voxels point at each voxel, with --split offset.
        [default: the model's]
    """

    threshold: float | None
    seed_threshold: float | None
    connectivity: Literal[4, 6, 8, 18, 26]
    complement: bool
    images: bool
    min_size: int | None
    min_size_nm3: float
    max_volume_um3: float | None
    max_section_um2: float | None
    min_probability: float | None
    faint_size: int | None
    median_nm: float | None
    fill_holes: bool
    split: Literal["none", "distance", "centerline", "contour", "offset", "kmeans"]
    split_depth: float
    split_centres: int | None
    split_sure: float | None
    split_contour: float | None
    split_votes: float | None


@described
class Device(TypedDict, total=False):
    """Place where the network runs.

    device : Run the network on this device.
    """

    device: Literal["auto", "cpu", "cuda", "mps", "xpu"]


@described
class Network(TypedDict, total=False):
    """The network, how it sees a volume, and where it runs.

    device : Run the network on this device; openvino is a faster way to use the CPU.
    model : Use this shipped model (`volseg models list`) or .safetensors file.  [default: unet2d;
        emnet if centerlines are needed]
    tta : Average over flips: 8 times the work, 4 for 2D networks.
    rotations : With --tta, average over quarter turns in (y, x) too.
    views : Show a 2D network slices along z, y or x, or average over those along all three axes of
        cubic voxels.  [default: xy; without --model, what suits the form of the volume]
    zoom : Take voxels as so many times as large as they are said to be; see `volseg preview`.
    tile : Evaluate smaller tiles where memory is short; this changes the result.
    batch : Show a 2D network so many slices at once; this may change last bits.  [default: 4; on
        GPUs what their memory holds]
    normalise : Take intensities as they are in the whole volume, or make slices, or parts of
        slices, equally bright first.
    invert : Show the network bright membranes dark.
    precision : Evaluate the network in this type; this changes the result. auto: bfloat16 where the
        hardware multiplies it, float32 on CPUs of other machines. int8: with --device openvino.
        tf32: float32 that GPUs multiply with 10 bits.
    """

    device: Literal["auto", "cpu", "cuda", "mps", "xpu", "openvino"]
    model: str | None
    tta: bool
    rotations: bool
    views: Literal["xy", "xz", "yz", "ortho"] | None
    zoom: float
    tile: Zyx | None
    batch: int | None
    normalise: Literal["volume", "slices", "local"]
    invert: bool
    precision: Literal["auto", "float32", "bfloat16", "tf32", "int8"]


@described
class Result(TypedDict, total=False):
    """A result in a volume.

    name : Name of the result in the volume.
    """

    name: str


@described
class Results(TypedDict, total=False):
    """Results in a volume.

    name : Name of the result in the volume; several are separated by commas.
    """

    name: str


@described
class Region(TypedDict, total=False):
    """Part of a volume.

    roi : Process this region only, in voxels; bounds are optional.
    """

    roi: str | None


@described
class Writing(Running, total=False):
    """Writing of a result, block by block.

    block : Voxels of one task, rounded up to whole shards.
    overwrite : Replace a different result, or continue the same one.
    """

    block: Zyx | None
    overwrite: bool


@described
class SourceSize(TypedDict, total=False):
    """Size of the voxels of a source.

    voxel_size : Set the voxel size in nm; overrides the file's.
    """

    voxel_size: VoxelSize | None


@described
class Made(TypedDict, total=False):
    """A result that a network makes.

    name : Name of the result in the volume; several classes keep their own names.  [default:
        mitochondria; of a network of several classes their own names]
    """

    name: str | None


@described
class SegmentKeywords(Network, Objects, Made, Region, Writing, total=False):
    """Options of `segment`.

    mask : Look only where these labels are above 0; coarser ones are scaled.
    classes : Write these classes of a network of several, each by its own name.  [default: all]
    store_centerline : Also write probabilities/NAME-centerline (EM-Net only); implied by --split
        centerline.
    repair : Replace the damaged parts of a complete result, and nothing else.
    """

    mask: Place | None
    classes: Names | None
    store_centerline: bool
    repair: bool


class PredictArrayKeywords(Network, Threads, total=False):
    """Options of `predict_array`."""


class LabelArrayKeywords(Objects, Threads, total=False):
    """Options of `label_array`."""


@described
class Measured(TypedDict, total=False):
    """Measures of objects.

    measure : Measure everything; all but intensities; or voxels, places and boxes only.
    surface : Measure surfaces by this method; marching cubes is slow and reads 9% more.
    centerline : Measure the centerline of each object too; slow.
    outline : Measure Feret diameter, solidity, outlines in slices, and darkness against the
        surroundings too, object by object.
    """

    measure: Literal["full", "shapes", "basic"]
    surface: Literal["crofton", "marching-cubes"]
    centerline: bool
    outline: bool


class MeasureArrayKeywords(Measured, Threads, total=False):
    """Options of `measure_array`."""


@described
class StatsKeywords(Measured, Running, total=False):
    """Options of `stats`.

    name : Name of labels in VOLUME, and of tables; several are separated by commas.  [default:
        mitochondria, or the --labels file's]
    labels : Measure these labels, Zarr or TIFF, instead of VOLUME/labels/NAME.
    axes : Name the axes of --labels, slowest first, such as YXZ, where they do not say.
    output : Also write one row per object to this .csv, .tsv or .parquet file.
    instances : Take labels of one value as one object, not as a mask.
    images : Take slices as unrelated images; volumes that `volseg convert --images` made need no
        saying.
    contacts : Also write where the objects touch those of VOLUME/labels/CONTACTS, another result,
        to tables/NAME-CONTACTS-contacts.parquet.
    """

    name: str | None
    labels: Place | None
    axes: str | None
    output: Place | None
    instances: bool
    images: bool
    contacts: str | None
