"""What decides a training run, in one typed place."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from volseg.errors import ParameterError
from volseg.training.augmentation import Augmentation
from volseg.types import Zyx


@dataclass(frozen=True)
class TrainConfig:
    """A training recipe.

    Attributes
    ----------
    architecture, width : the network and its base width.
    patch, batch : shape (z, y, x) and number of the patches in one step.
    steps, minutes : what ends the run; exactly one of them is set.
    learning_rate, weight_decay, warmup : AdamW; ``warmup`` is a part of the run, then cosine.
    clip : largest norm of the gradient.
    ema : decay of the averaged weights, which are what is validated and saved.
    freeze_norms_after : part of the run after which batch norm uses its running statistics, so
        that the network learns to live with what inference will use; 1 never does.
    balance, centerline_weight, cross_entropy_weight : see `volseg.training.losses.emnet_loss`.
    foreground_share : part of the patches centred on the foreground.
    validate_every : steps between validations.
    seed : with the step's number, the only source of chance.
    """

    architecture: str = "emnet"
    width: int = 32
    patch: Zyx = (32, 96, 96)
    batch: int = 1
    steps: int | None = None
    minutes: float | None = None
    learning_rate: float = 2e-3
    weight_decay: float = 1e-2
    warmup: float = 0.03
    clip: float = 1.0
    ema: float = 0.997
    freeze_norms_after: float = 0.1
    balance: float = 0.7
    centerline_weight: float = 1.0
    cross_entropy_weight: float = 0.5
    foreground_share: float = 0.6
    validate_every: int = 250
    seed: int = 0
    augmentation: Augmentation = field(default_factory=Augmentation)

    def __post_init__(self) -> None:
        if (self.steps is None) == (self.minutes is None):
            raise ParameterError(
                f"a run ends after steps or after minutes: give exactly one of them, found "
                f"steps {self.steps} and minutes {self.minutes}"
            )
        for name in ("width", "batch", "learning_rate", "validate_every"):
            if not 0 < getattr(self, name) < math.inf:
                raise ParameterError(f"{name} must be positive, found {getattr(self, name)}")
        for name in ("steps", "minutes"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise ParameterError(f"{name} must be above 0, found {value}")
        for name in ("warmup", "freeze_norms_after", "foreground_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise ParameterError(f"{name} is a part of 1, found {getattr(self, name)}")


def learning_rate(config: TrainConfig, progress: float) -> float:
    """Follow a linear warm-up, then a half cosine down to a hundredth.

    Examples
    --------
    >>> config = TrainConfig(steps=100, learning_rate=1.0, warmup=0.1)
    >>> [round(learning_rate(config, p), 3) for p in (0.05, 0.1, 1.0)]
    [0.5, 1.0, 0.01]
    """
    if progress < config.warmup:
        return config.learning_rate * progress / config.warmup
    along = min((progress - config.warmup) / max(1 - config.warmup, 1e-9), 1.0)
    return config.learning_rate * (0.01 + 0.99 * (1 + math.cos(math.pi * along)) / 2)
