"""Preview: the first minute with a volume, before anything is segmented."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from volseg.defaults import DEVICE, PLACES, PRECISION, PREVIEW, SECONDS
from volseg.engine.progress import Progress
from volseg.errors import ParameterError, VolumeError
from volseg.models.registry import Views
from volseg.scores.likeness import VERY_UNLIKE, expect_precision
from volseg.stages.predict.lattice import choose_views, network_scales
from volseg.stages.predict.loading import NetworkChoice, predictor_for
from volseg.stages.predict.look import look_apart
from volseg.stages.preview.places import Window, choose_places, look_around
from volseg.stages.preview.sheet import compose_sheet
from volseg.stages.preview.trial import Candidate, Trial, rank, try_model
from volseg.stages.survey.intensities import check_counted
from volseg.stages.survey.likeness import look_at_tissue
from volseg.storage.cards import load_card
from volseg.storage.locations import check_writable, folder_of, place_beside, refuse_folder
from volseg.storage.plots import save_pixels
from volseg.storage.volumes import Image, open_image, volume_tone
from volseg.types import Zyx
from volseg.voxels.apart import Apart
from volseg.voxels.background import count_constant, without_areas
from volseg.voxels.histogram import count_intensities
from volseg.voxels.intensity import Preprocessing, Tone, find_tone

MODELS = ("unet2d", "unet2d-general")
"""Shipped models that are tried unless others are asked for."""
ZOOMS = (1.0, 0.7, 1.4, 0.5, 2.0, 2.8, 4.0)
"""In the order in which they are tried."""
SURE, AGREED = 0.6, 0.25
"""Certainty and agreement from which a model is worth a try; below, annotating is better advice."""
SHOWN = 4
"""Trials in the contact sheet."""


@dataclass(frozen=True)
class PreviewOptions:
    """Options of a preview, and scales to try; see `volseg.api.looking.PreviewKeywords`.

    The first trial of each model begins however little time there is.
    """

    models: tuple[str, ...] = MODELS
    zooms: tuple[float, ...] = ZOOMS
    places: int = PLACES
    seconds: float = SECONDS
    output: Path | None = None
    device: str = DEVICE
    precision: str = PRECISION

    def __post_init__(self) -> None:
        if not self.zooms or not all(0.05 <= z <= 20 for z in self.zooms):
            raise ParameterError(f"zooms lie between 0.05 and 20, found {self.zooms}")
        if not 1 <= self.places <= 20:
            raise ParameterError(f"places are 1 to 20, found {self.places}")
        if not self.seconds > 0:
            raise ParameterError(f"seconds must be positive, found {self.seconds}")


@dataclass(frozen=True)
class PreviewReport:
    """Result of a preview.

    Attributes
    ----------
    trials : models at scales, the one that is advised first.
    places : centres, (z, y, x), in voxels.
    sheet : the PNG file.
    sure : whether the best trial is worth a try on the whole volume.
    views : of slices that suit the volume and the best model.
    tissue : how like the training data of the best model, see `volseg.stages.survey.likeness`.
    skipped : trials that were left out, for lack of time, or where a slice is too small.
    late : those of them that were left out for lack of time.
    notes : what the user should know.
    seconds : of this call.
    """

    trials: tuple[Trial, ...]
    places: tuple[Zyx, ...]
    sheet: Path
    sure: bool
    views: Views
    tissue: Mapping[str, Any]
    skipped: int
    late: int
    notes: tuple[str, ...]
    seconds: float


def preview(volume: Path, options: PreviewOptions, progress: Progress) -> PreviewReport:
    """Try models at several scales on a few places, and draw what they find.

    Nothing is written into the volume.

    Raises
    ------
    InputError
        If the volume cannot be read or is empty, or a model or option cannot be used.
    """
    begun = time.monotonic()
    image, sheet = open_image(volume), place_sheet(volume, options.output)
    check_counted(image.levels[0])
    windows = look_around(image, options.seconds / 3)
    places = choose_places(windows, options.places)
    if not places:
        raise VolumeError(
            f"{volume} holds one value wherever it was looked at ({len(windows)} places): there is "
            f"no tissue to preview; is it the right file, and the right channel?"
        )
    candidates = [open_candidate(model, image, windows, options) for model in options.models]
    trials: list[Trial] = []
    wanted = choose_trials(image, options.zooms, candidates)
    progress.start(len(wanted), "trials", "trying models and scales")
    late = 0
    for zoom, candidate in wanted:
        over = time.monotonic() - begun > options.seconds and zoom != options.zooms[0]
        trial = None if over else try_model(candidate, image, places, zoom)
        trials += [] if trial is None else [trial]
        late += over
        progress.advance(0 if over else 1)
    progress.finish()
    if not trials:
        raise VolumeError(
            f"the slices of {volume}, {image.levels[0].shape[1:]} voxels, are too small or too "
            f"large for every model and scale; is the voxel size right, "
            f"{image.voxel_size or 'unknown'} nm?"
        )
    ranked, tissue = _known_first(image, rank(trials, image.voxel_size), candidates)
    best = ranked[0]
    views, _ = choose_views(
        image.levels[0].shape, image.voxel_size, load_card(best.model), best.zoom
    )
    thresholds = {c.model: c.card.threshold for c in candidates}
    save_pixels(sheet, compose_sheet(image, candidates[0].tone, ranked[:SHOWN], thresholds))
    return PreviewReport(
        tuple(ranked),
        tuple(places),
        sheet,
        best.certainty >= SURE and best.agreement >= AGREED,
        views,
        tissue,
        len(wanted) - len(trials),
        late,
        () if image.voxel_size else (_tell_sizes(candidates),),
        time.monotonic() - begun,
    )


def _tell_sizes(candidates: Sequence[Candidate]) -> str:
    """Tell how large each model takes voxels of unknown size."""
    sizes = ", ".join(f"{Path(c.model).stem} {c.card.voxel_size[-1]:g} nm" for c in candidates)
    return f"the voxel size is unknown: a zoom of 1 takes pixels as large as the model's ({sizes})"


def _known_first(
    image: Image, ranked: Sequence[Trial], candidates: Sequence[Candidate]
) -> tuple[list[Trial], dict[str, Any]]:
    """Put first the trial at the stated scale of a model that knows such tissue, the surest one.

    Where none does, the best trial of a model to which it is not foreign comes first, if any.

    Returns
    -------
    The trials, and how like its training data the tissue is to the model of the first.
    """
    stated = [trial for trial in ranked if trial.zoom == 1] if image.voxel_size else []
    looks = [(trial, _look(image, trial, candidates)) for trial in stated]
    if home := [look for look in looks if look[1].get("likeness") == "like"]:
        first, tissue = max(home, key=lambda look: look[0].certainty)
    else:
        best: dict[str, Trial] = {}
        for trial in ranked:
            best.setdefault(trial.model, trial)
        looks = [(trial, _look(image, trial, candidates)) for trial in best.values()]
        known = [look for look in looks if look[1].get("likeness") != VERY_UNLIKE]
        first, tissue = (known or looks)[0]
    return [first, *(trial for trial in ranked if trial is not first)], tissue


def _look(image: Image, best: Trial, candidates: Sequence[Candidate]) -> dict[str, Any]:
    """Compare the tissue with the training data of the best model."""
    card, tone = next((c.card, c.tone) for c in candidates if c.model == best.model)
    scales, _ = network_scales(image, card, zoom=best.zoom)
    noted = look_at_tissue(image, best.model, card, scales, tone=tone)
    between = expect_precision(noted, best.sureness)
    return noted if between is None else {**noted, "expected_precision": between}


def choose_trials(
    image: Image, zooms: Sequence[float], candidates: Sequence[Candidate]
) -> list[tuple[float, Candidate]]:
    """List models and zooms, without those where a model would see the same as before.

    Thick sections are never made finer than `FINEST`, so from some zoom on nothing changes.
    """
    wanted, seen = [], set()
    for zoom, candidate in product(zooms, candidates):
        scales, _ = network_scales(image, candidate.card, zoom=zoom)
        if (candidate.model, scales) not in seen:
            seen.add((candidate.model, scales))
            wanted.append((zoom, candidate))
    return wanted


def place_sheet(volume: Path, output: Path | None) -> Path:
    """Choose where the contact sheet goes, and refuse a place where none can be written.

    By default it lies beside the volume; in the current folder where that is on object storage.

    Raises
    ------
    InputError
        If it is a folder, or would lie in none.
    StorageError
        If nothing can be written there.
    """
    sheet = output or place_beside(volume, PREVIEW)
    check_writable(folder_of(sheet))
    refuse_folder(sheet)
    return sheet


def open_candidate(
    model: str, image: Image, windows: Sequence[Window], options: PreviewOptions
) -> Candidate:
    """Make a model ready to be tried on a volume.

    Raises
    ------
    ModelError
        If it cannot be used.
    ParameterError
        If it is a network of volumes.
    """
    card = load_card(model)
    if card.form.dimensions != 2:
        raise ParameterError(
            f"preview tries networks of slices, and {model} looks at volumes; try it on a part, "
            f"with volseg segment --roi"
        )
    choice = NetworkChoice(model, options.device, options.precision, sha256=card.sha256)
    tone = _look_at(image, card.preprocessing, windows)
    return Candidate(model, card, predictor_for(choice), tone)


def _look_at(image: Image, preprocessing: Preprocessing, windows: Sequence[Window]) -> Tone | Apart:
    """Look at a volume as `segment` does, and at each unrelated image by itself."""
    whole = _tone(image, preprocessing, windows)
    return look_apart(image, image.levels[0], preprocessing, whole, invert=False) or whole


def _tone(image: Image, preprocessing: Preprocessing, windows: Sequence[Window]) -> Tone:
    """Take the volume's histogram; where it has none, that of the windows stands for it."""
    if image.attributes.get("histogram"):
        return volume_tone(image, preprocessing)
    total, levels = count_intensities(windows[0].values[:0])
    for window in windows:
        counts, _ = count_intensities(window.values)
        total = total + without_areas(count_constant(window.values), counts, window.values.dtype)
    seen = total > 0
    return find_tone(preprocessing, total[seen], levels[seen])
