"""Settings that determine a training run."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from volseg.defaults import NAME
from volseg.errors import ParameterError
from volseg.models.maps import (
    CENTERLINE,
    CONTOUR_WIDTH,
    DISTANCE_REACH,
    OFFSET_REACH,
    WIDEST,
    MapSpec,
    build_maps,
)
from volseg.training.annotation import parse_class
from volseg.training.augmentation import Augmentation
from volseg.training.centerline import ALPHA, REACH_NM
from volseg.types import VoxelSize, Zyx
from volseg.voxels.intensity import Preprocessing

OPTIMIZERS = ("adam", "adamw", "sgd")
SCHEDULES = ("constant", "cosine", "step")
LENGTHS = ("steps", "minutes", "epochs")
LARGEST_BATCH = 1 << 31
PARTS, ABOVE_0 = ("centre_crop", "curve"), ("zoom", "section_thickness", "elastic_sigma")
"""Strengths of changes to patches that are parts of 1, and those that cannot be 0."""


@dataclass(frozen=True)
class TrainConfig:
    """A training recipe.

    Attributes
    ----------
    architecture, width : the network and its base width.
    loss : name of the loss, see `volseg.training.losses`.
    patch, batch : shape (z, y, x) and number of the patches in one step.
    steps, minutes, epochs : what ends the run; exactly one of them is set. An epoch is as many
        steps as it takes to draw as many voxels as there are to train on.
    patience : end the run after so many validations without a better one; 0 never does.
    optimizer : adam, adamw or sgd.
    learning_rate, weight_decay : of the optimizer; Adam takes no weight decay.
    betas, epsilon, momentum : of Adam's two kinds; of sgd.
    schedule : how the rate falls: along a cosine, in steps, or not at all.
    decay, decay_epochs : the steps' factor, and the epochs between them.
    warmup : part of the run in which the rate rises from 0.
    clip : largest norm of the gradient; 0 sets no limit.
    ema : decay of the averaged weights, which are what is validated and saved; 0 averages nothing.
    freeze_norms_after : part of the run after which batch norm uses its running statistics, so
        that the network learns to live with what inference will use; 1 never does.
    balance, centerline_weight, cross_entropy_weight : see `volseg.training.losses.emnet_loss`.
    centerline_alpha, centerline_reach_nm : steepness of the target of EM-Net's second output, and
        the distance from a centerline, in nm, at which it falls to zero.
    foreground_share : part of the patches centred on the foreground.
    hard_share : part of the patches centred where the network is wrong on its training data.
    hard_every : steps after which those places are looked for again.
    fraction : part of the slices, or of the images, that is trained on.
    validate_every : steps between validations.
    seed : with the step's number, the only seed of random numbers.
    classes : NAME, NAME=VALUE or NAME=LABELS of each class; none for a single one of any name.
    auxiliary : maps that are learned of a class, see `volseg.models.maps.build_maps`.
    exclusive : whether a voxel is of one class at most.
    ignore : value of labels that nobody annotated.
    map_weights : weights of the losses of maps, by name; 1 for others. Fewer patches are centred
        on a class that weighs less, unless it is rare.
    contour_width, distance_reach, offset_reach : see `volseg.training.targets`.
    resample_to : voxel size in nm (z, y, x) that the network sees; None takes that of the data.
    preprocessing, augmentation : of the intensities, of the patches.
    """

    architecture: str = "emnet"
    width: int = 32
    loss: str = "emnet"
    patch: Zyx = (32, 96, 96)
    batch: int = 1
    steps: int | None = None
    minutes: float | None = None
    epochs: int | None = None
    patience: int = 0
    optimizer: str = "adamw"
    learning_rate: float = 2e-3
    weight_decay: float = 1e-2
    betas: tuple[float, float] = (0.9, 0.999)
    epsilon: float = 1e-8
    momentum: float = 0.9
    schedule: str = "cosine"
    decay: float = 0.9
    decay_epochs: int = 15
    warmup: float = 0.03
    clip: float = 1.0
    ema: float = 0.997
    freeze_norms_after: float = 0.1
    balance: float = 0.7
    centerline_weight: float = 50.0
    cross_entropy_weight: float = 0.5
    centerline_alpha: float = ALPHA
    centerline_reach_nm: float = REACH_NM
    foreground_share: float = 0.6
    hard_share: float = 0.0
    hard_every: int = 100
    fraction: float = 1.0
    validate_every: int = 250
    seed: int = 0
    classes: tuple[str, ...] = ()
    auxiliary: tuple[str, ...] = ()
    exclusive: bool = False
    ignore: int | None = None
    map_weights: Mapping[str, float] = field(default_factory=dict)
    contour_width: float = CONTOUR_WIDTH
    distance_reach: float = DISTANCE_REACH
    offset_reach: float = OFFSET_REACH
    resample_to: VoxelSize | None = None
    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    augmentation: Augmentation = field(default_factory=Augmentation)

    def __post_init__(self) -> None:
        given = [name for name in LENGTHS if getattr(self, name) is not None]
        if len(given) != 1:
            raise ParameterError(
                f"a run ends after steps, minutes or epochs: give exactly one of them, found "
                f"{' and '.join(given) or 'none'}"
            )
        positive = ("width", "batch", "learning_rate", "epsilon", "decay_epochs", "validate_every")
        centerline = "centerline_alpha", "centerline_reach_nm"
        reaches = "contour_width", "distance_reach", "offset_reach"
        for name in (*positive, "hard_every", *centerline, *reaches):
            if not 0 < getattr(self, name) < math.inf:
                raise ParameterError(f"{name} must be positive, found {getattr(self, name)}")
        for name in given:
            if not 0 < getattr(self, name) < math.inf:
                raise ParameterError(f"{name} must be above 0, found {getattr(self, name)}")
        for name in ("patience", "clip", "weight_decay", "cross_entropy_weight"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ParameterError(f"{name} must be at least 0, found {getattr(self, name)}")
        self._check_ignored()
        unknown = sorted(set(self.map_weights) - {m.name for m in self.maps})
        if unknown or not all(0 <= w < math.inf for w in self.map_weights.values()):
            raise ParameterError(
                f"map_weights are at least 0, and of {', '.join(m.name for m in self.maps)}; found "
                f"{dict(self.map_weights)}"
            )
        if self.resample_to and not all(0 < nm < math.inf for nm in self.resample_to):
            raise ParameterError(f"resample_to must be positive, found {self.resample_to}")
        self._check_sizes()
        self._check_parts()
        self._check_patches()
        self._check_names()

    @property
    def maps(self) -> tuple[MapSpec, ...]:
        """List the maps of a network of several; none where there is one class alone."""
        if not self.classes and not self.auxiliary:
            return ()
        from volseg.models.registry import find_architecture

        able, asked = find_architecture(self.architecture).centerline, list(self.auxiliary)
        if any(kind.endswith(CENTERLINE) for kind in asked) != able:
            if not able:
                raise ParameterError(f"{self.architecture} gives no centerlines")
            asked.append(CENTERLINE)
        names = [parse_class(text)[0] for text in self.classes]
        return build_maps(names or [NAME], asked, exclusive=self.exclusive)

    def _check_ignored(self) -> None:
        if self.ignore is None:
            return
        if not self.maps:
            raise ParameterError(
                f"ignore {self.ignore} is heeded with classes or auxiliary maps alone: name a "
                f"class, as in --classes {NAME}=1"
            )
        named = [t for t in self.classes if parse_class(t)[1] == self.ignore]
        if named:
            raise ParameterError(f"{', '.join(named)} is of the value that is ignored")

    def _check_sizes(self) -> None:
        if self.width > WIDEST:
            raise ParameterError(f"width is at most {WIDEST}, found {self.width}")
        if not 0 < math.prod(self.patch) * self.batch <= LARGEST_BATCH:
            raise ParameterError(
                f"the patches of a step hold 1 to {LARGEST_BATCH} voxels, found {self.batch} of "
                f"{self.patch}"
            )
        if not 0 <= self.seed < 2**63:
            raise ParameterError(f"seed lies between 0 and 2**63, found {self.seed}")

    def _check_parts(self) -> None:
        parts = ("warmup", "freeze_norms_after", "foreground_share", "hard_share", "ema")
        for name in (*parts, "decay", "balance"):
            if not 0 <= getattr(self, name) <= 1:
                raise ParameterError(f"{name} is a part of 1, found {getattr(self, name)}")
        if not all(0 <= part < 1 for part in (*self.betas, self.momentum)):
            raise ParameterError(
                f"betas and momentum are at least 0 and below 1, found {self.betas} and "
                f"{self.momentum}"
            )
        if not 0 < self.fraction <= 1:
            raise ParameterError(f"fraction is a part of 1, above 0, found {self.fraction}")

    def _check_patches(self) -> None:
        for name, value in vars(self.augmentation).items():
            low, high = value if isinstance(value, tuple) else (value, value)
            if (name.endswith("_probability") or name in PARTS) and not 0 <= low <= 1:
                raise ParameterError(f"{name} is a part of 1, found {value}")
            least = -math.inf if name == "rotate" else 0
            if not least <= low <= high < math.inf or (low == 0 and name in ABOVE_0):
                limit = " above 0" if name in ABOVE_0 else "" if least else " of at least 0"
                pair = isinstance(value, tuple)
                rule = f"two numbers{limit} that rise" if pair else f"a number{limit}"
                raise ParameterError(f"{name} is {rule}, found {value}")

    def _check_names(self) -> None:
        # these know torch, which nobody needs who only asks for the defaults
        from volseg.models.registry import find_architecture
        from volseg.training.losses import EMNET, LOSS_NAMES

        for name, known in (
            ("loss", LOSS_NAMES),
            ("optimizer", OPTIMIZERS),
            ("schedule", SCHEDULES),
        ):
            if getattr(self, name) not in known:
                raise ParameterError(
                    f"{name} is one of {', '.join(known)}, found {getattr(self, name)!r}"
                )
        lines = self.loss == EMNET and find_architecture(self.architecture).centerline
        if self.augmentation.crowd_probability and (self.maps or lines):
            raise ParameterError(
                "crowd_probability paints mitochondria for networks of one class: contours, "
                "distances and centerlines of what is painted are not known; set it to 0, or leave "
                "classes and auxiliary out and choose another loss than emnet"
            )


def steps_per_epoch(config: TrainConfig, voxels: int) -> int:
    """Count the steps that draw as many voxels as there are to train on.

    Examples
    --------
    >>> steps_per_epoch(TrainConfig(steps=1, patch=(10, 10, 10), batch=2), 9_000)
    5
    """
    return max(-(-voxels // (math.prod(config.patch) * config.batch)), 1)


def learning_rate(config: TrainConfig, progress: float, epoch: float = 0.0) -> float:
    """Follow a linear warm-up, then the schedule.

    A cosine falls to a hundredth; steps fall by a factor every so many epochs, as in Yuan et al.
    2020, section 3.

    Parameters
    ----------
    progress : the part of the run that is done, from 0 to 1.

    Examples
    --------
    >>> config = TrainConfig(steps=100, learning_rate=1.0, warmup=0.1)
    >>> [round(learning_rate(config, p), 3) for p in (0.05, 0.1, 1.0)]
    [0.5, 1.0, 0.01]
    >>> config = TrainConfig(steps=100, learning_rate=1.0, warmup=0, schedule="step")
    >>> [round(learning_rate(config, 0.5, epoch), 3) for epoch in (14.9, 15, 30)]
    [1.0, 0.9, 0.81]
    """
    if progress < config.warmup:
        return config.learning_rate * progress / config.warmup
    if config.schedule == "constant":
        return config.learning_rate
    if config.schedule == "step":
        return config.learning_rate * config.decay ** int(epoch / config.decay_epochs)
    along = min((progress - config.warmup) / max(1 - config.warmup, 1e-9), 1.0)
    return config.learning_rate * (0.01 + 0.99 * (1 + math.cos(math.pi * along)) / 2)
