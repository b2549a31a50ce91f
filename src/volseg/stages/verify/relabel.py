"""Verify labels: make them again by the rules on record, and compare every voxel.

Labels do not depend on blocks, so in other blocks the same ones must come out.
"""

from __future__ import annotations

from pathlib import Path

from volseg.differences import describe_difference
from volseg.engine.options import EngineOptions
from volseg.engine.progress import Progress
from volseg.errors import VolsegError
from volseg.stages.apply.plan import ApplyOptions, plan_apply
from volseg.stages.apply.run import apply
from volseg.stages.label.again import recorded_rules
from volseg.stages.label.plan import LabelOptions, plan_labels, plan_labels_on
from volseg.stages.label.run import label
from volseg.stages.verify.findings import Skipped
from volseg.stages.verify.images import Subject
from volseg.storage.arrays import StoredArray
from volseg.storage.volumes import open_image
from volseg.types import Zyx

BLOCK: Zyx = (32, 512, 512)
"""Smaller than those that labels are made with."""


def relabel(
    volume: Path, folder: Path, subject: Subject, engine: EngineOptions, progress: Progress
) -> tuple[StoredArray, int]:
    """Make the labels of a volume again in another folder; return them and count the objects.

    Parameters
    ----------
    folder : takes the place of the volume

    Raises
    ------
    Skipped
        If they cannot be made here by the rules on record.
    WorkError
        If they should have been, and were not.
    """
    if "corrections" in subject.image.attributes:
        return _correct_again(volume, folder, subject, engine, progress)
    try:
        options = LabelOptions(**vars(recorded_rules(subject.run)), block=BLOCK, engine=engine)
        plan = plan_labels(volume, subject.name, options)
        if plan.header != dict(subject.run):
            difference = describe_difference(subject.run, plan.header)
            raise Skipped(f"its rules are not known here ({difference})")
        again = plan_labels_on(folder, plan.source, options)
    except (KeyError, TypeError, ValueError, ArithmeticError, OSError, VolsegError) as error:
        raise Skipped(f"it cannot be made again: {' '.join(str(error).split())}") from error
    report = label(again, progress)
    return open_image(again.path).levels[0], report.objects


def _correct_again(
    volume: Path, folder: Path, subject: Subject, engine: EngineOptions, progress: Progress
) -> tuple[StoredArray, int]:
    """Correct labels again, as `relabel` makes others."""
    noted = subject.image.attributes["corrections"]
    try:
        options = ApplyOptions(noted["operations"], noted["parent"], subject.name, engine)
        plan = plan_apply(volume, options, progress, folder)
        if plan.header != dict(subject.run):
            difference = describe_difference(subject.run, plan.header)
            raise Skipped(f"it was made of other labels, or by other paintings ({difference})")
    except (KeyError, TypeError, ValueError, OSError, VolsegError) as error:
        raise Skipped(f"it cannot be corrected again: {' '.join(str(error).split())}") from error
    report = apply(plan, progress)
    return open_image(plan.path).levels[0], report.objects
