"""Write the methods of a report from what volumes say of their making, with references."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from volseg import __version__
from volseg.errors import ModelError
from volseg.models.registry import VARIED, find_architecture
from volseg.objects.dropped import is_limit, read_dropped
from volseg.sources.corrections import count_entries
from volseg.sources.probabilities import RULES as TAKEN
from volseg.stages.label.median import median_step
from volseg.storage.results import dropped_from
from volseg.storage.volumes import Image
from volseg.types import FULL_PROBABILITY

REFERENCES = {
    "emnet": "Z. Yuan et al., EM-Net: centerline-aware mitochondria segmentation in EM images via "
    "hierarchical view-ensemble convolutional network, ISBI 2020.",
    "unet2d": "O. Ronneberger, P. Fischer, T. Brox, U-Net: convolutional networks for biomedical "
    "image segmentation, MICCAI 2015.",
    "unet3d": "Ö. Çiçek et al., 3D U-Net: learning dense volumetric segmentation from sparse "
    "annotation, MICCAI 2016.",
    "attention-unet": "O. Oktay et al., Attention U-Net: learning where to look for the pancreas, "
    "MIDL 2018.",
    "crofton": "G. Lehmann, D. Legland, Efficient N-dimensional surface estimation using Crofton "
    "formula and run-length encoding, Insight Journal 2012.",
    "marching-cubes": "T. Lewiner et al., Efficient implementation of marching cubes' cases with "
    "topological guarantees, Journal of Graphics Tools 2003.",
    "sphericity": "H. Wadell, Volume, shape, and roundness of quartz particles, Journal of Geology "
    "1935.",
    "complexity": "A. E. Vincent et al., Quantitative 3D mapping of the human skeletal muscle "
    "mitochondrial network, Cell Reports 2019.",
    "poisson": "F. Garwood, Fiducial limits for the Poisson distribution, Biometrika 1936.",
    "unbiased": "H. J. G. Gundersen, Notes on the estimation of the numerical density of arbitrary "
    "profiles: the edge effect, Journal of Microscopy 1977.",
    "Mann-Whitney U": "H. B. Mann, D. R. Whitney, On a test of whether one of two random variables "
    "is stochastically larger than the other, Annals of Mathematical Statistics 1947.",
    "Cliff's delta": "N. Cliff, Dominance statistics: ordinal analyses to answer ordinal "
    "questions, Psychological Bulletin 1993.",
    "Kruskal-Wallis H": "W. H. Kruskal, W. A. Wallis, Use of ranks in one-criterion variance "
    "analysis, JASA 1952.",
    "holm": "S. Holm, A simple sequentially rejective multiple test procedure, Scandinavian "
    "Journal of Statistics 1979.",
    "ome-zarr": "J. Moore et al., OME-Zarr: a cloud-optimized bioimaging file format with "
    "international community support, Histochemistry and Cell Biology 2023.",
}
NETWORKS = {
    "emnet": "EM-Net",
    "unet2d": "2D U-Net",
    "unet3d": "3D U-Net",
    "attention-unet": "Attention U-Net",
}
VIEWS = {"xy": "z", "xz": "y", "yz": "x", "ortho": "z, y and x, averaged"}
RULES = {
    "seed_threshold_of_255": "kept only with a voxel of at least probability {:.2f}",
    "min_size": "dropped below {} voxels",
    "max_volume_um3": "dropped above {:g} µm³",
    "max_section_um2": "dropped with a section in a slice above {:g} µm²",
    "min_probability": "dropped below a mean probability of {:.2f}",
    "faint_size": "kept above {} voxels whatever that mean",
}
DROPPED = {
    "min_size": "smaller",
    "seed_threshold_of_255": "without such a voxel",
    "max_volume_um3": "larger",
    "max_section_um2": "of a larger section",
    "min_probability": "of a lower mean probability",
}
"""Rules that are on record of labels, and how the objects were that they dropped."""


@dataclass(frozen=True)
class Methods:
    """Methods of a report."""

    paragraphs: tuple[str, ...]
    references: tuple[str, ...]


class _Citations:
    """Numbers of references, in the order in which they are first cited."""

    def __init__(self) -> None:
        self.keys: list[str] = []

    def __call__(self, *keys: str) -> str:
        """Cite works; those that are not known are left out."""
        known = [key for key in keys if key in REFERENCES]
        self.keys += [key for key in dict.fromkeys(known) if key not in self.keys]
        numbers = ", ".join(str(self.keys.index(key) + 1) for key in known)
        return f" [{numbers}]" if known else ""


def describe_methods(
    volumes: Sequence[tuple[str, Image, Image, Image | None]],
    surfaces: Sequence[str],
    tests: Sequence[tuple[str, str]],
) -> Methods:
    """Describe how the results of volumes were made; what several share is said once.

    Parameters
    ----------
    volumes : title, raw image, labels, probabilities
    tests : names of tests, with their effect sizes
    """
    cite, made = _Citations(), dict[str, list[str]]()
    sources = [
        describe_source(title, image, image.voxel_size or labels.voxel_size)
        for title, image, labels, _ in volumes
    ]
    first = (
        f"Volumes were segmented and measured with volseg {__version__} and stored as OME-Zarr"
        f"{cite('ome-zarr')}. {' '.join(sources)}"
    )
    for title, _, labels, probabilities in volumes:
        network = _describe_network(labels, probabilities, cite)
        made.setdefault(f"{network} {_describe_rules(labels)}".strip(), []).append(title)
    several = len(made) > 1
    found = [f"{', '.join(who)}: {text}" if several else text for text, who in made.items()]
    return Methods(
        (first, *found, _describe_measures(surfaces, cite), *_describe_tests(tests, cite)),
        tuple(REFERENCES[key] for key in cite.keys),
    )


def describe_source(title: str, image: Image, size: Sequence[float] | None) -> str:
    """Say what a volume is and where its voxel size is from."""
    shape = " × ".join(map(str, image.levels[0].shape))
    notes = image.attributes
    voxels = "unknown size" if size is None else f"{' × '.join(f'{s:g}' for s in size)} nm"
    origin = notes.get("voxel_size_from")
    stated = f", as {origin} states" if origin and size is not None else ""
    return f"{title}: {shape} voxels (z, y, x; {image.levels[0].dtype}) of {voxels}{stated}."


def _describe_network(labels: Image, probabilities: Image | None, cite: _Citations) -> str:
    model = labels.attributes.get("model")
    if not isinstance(model, Mapping):
        return "The objects were not made by a network of volseg; their origin is not on record."
    if isinstance(model.get("imported"), Mapping):
        read_as = TAKEN.get(model["imported"].get("rule"), "probabilities")
        return f"Another program made “{model.get('name')}”, which was taken as {read_as}."
    form = str(model.get("architecture", ""))
    run: Mapping[str, Any] = (
        {} if probabilities is None else probabilities.attributes.get("run", {})
    )
    text = (
        f"{_name_network(form, cite)} with the weights “{model.get('name')}” "
        f"(SHA-256 {model.get('sha256')}) predicted the probability of each voxel"
    )
    window = run.get("tone", {}).get("window") if isinstance(run.get("tone"), Mapping) else None
    if window:
        text += f", with intensities {window[0]:g} to {window[1]:g} as its window"
    if run.get("averaged"):
        flips, turns, views = run["averaged"]
        text += f", on slices along {VIEWS.get(views, views)}" if _sees_slices(form) else ""
        text += ", averaged over flips" if flips else ""
        text += " and quarter turns" if turns else ""
    if run.get("precision"):
        text += f", in {run['precision']} ({run.get('device')})"
    work = None if probabilities is None else probabilities.attributes.get("work")
    if isinstance(work, float):
        text += f"; its tiles held {work:.2f} times the voxels of the region"
    return f"{text}."


def _name_network(form: str, cite: _Citations) -> str:
    kind = next((kind for kind in NETWORKS if form.startswith(kind)), form)
    varied, details = VARIED.fullmatch(form), []
    if varied and varied[2]:
        details.append(f"{varied[2]} halvings")
    if varied and varied[3]:
        details.append(f"filters of {varied[3]} × {varied[3]}")
    if form.endswith("-neighbours"):
        details.append("a slice and its neighbours as channels")
    told = f" ({', '.join(details)})" if details else ""
    name = NETWORKS.get(kind, form)
    article = "An" if name.startswith(("Attention", "EM-")) else "A"
    return f"{article} {name}{cite(kind)}{told}"


def _sees_slices(form: str) -> bool:
    try:
        return find_architecture(form).dimensions == 2
    except ModelError:  # of a later version, or of another program
        return False


def _describe_rules(labels: Image) -> str:
    corrections = labels.attributes.get("corrections")
    if isinstance(corrections, Mapping):
        done = corrections.get("operations", {})
        broken = corrections.get("rules")
        if isinstance(broken, Mapping):
            size = dropped_from(labels).size
            gone = [
                f"{'marked as none' if rule == 'marks' else f'without {rule}'}: {found.objects}"
                f"{f', {size(found.voxels)}' * (found.voxels > 0)}"
                for rule, noted in broken.items()
                if (found := read_dropped(noted))
            ]
            return (
                f"Of the objects “{corrections.get('parent')}” some were then dropped by rules "
                f"({', '.join(gone)})."
            )
        counts = [f"{count_entries(done[kind])} × {kind}" for kind in done]
        return (
            f"The objects “{corrections.get('parent')}” were then corrected by hand "
            f"({', '.join(counts)})."
        )
    run = labels.attributes.get("run")
    if not isinstance(run, Mapping) or not is_limit(run.get("threshold_of_255")):
        return ""
    told = []
    for key, words in RULES.items():
        value = run.get(key)
        if is_limit(value):
            told.append(words.format(value / FULL_PROBABILITY if key.endswith("255") else value))
    apart = run.get("median_nm")
    step = median_step(apart, labels.voxel_size) if is_limit(apart) else 0
    text = (
        f"Probabilities are the median of a slice and those {step} before and after. "
        if step
        else ""
    )
    text += (
        f"Voxels of at least probability {run['threshold_of_255'] / FULL_PROBABILITY:.2f} became "
        f"objects by {run.get('connectivity', 26)}-connectivity"
    )
    text += f"; objects were {', and '.join(told)}" if told else ""
    text += "; enclosed background was filled" if run.get("fill_holes") else ""
    text += f"; touching objects were split ({run['split']})" if run.get("split") else ""
    dropped = dropped_from(labels)
    for rule, found in dropped.by_rule.items():
        text += f"; {found.objects} ({dropped.size(found.voxels)}) were {DROPPED[rule]}"
    return f"{text}."


def _describe_measures(surfaces: Sequence[str], cite: _Citations) -> str:
    text = (
        f"Intervals of counts are exact 95% intervals of a Poisson mean{cite('poisson')}: they "
        f"hold for objects that lie independently, and say nothing of objects that the network "
        f"missed. Unbiased densities leave out objects that touch the far faces{cite('unbiased')}."
    )
    known = [s for s in dict.fromkeys(surfaces) if s in REFERENCES]
    if known:
        ways = {"crofton": "Crofton's formula", "marching-cubes": "marching cubes"}
        text += (
            f" Surfaces were measured by {' and '.join(ways[s] for s in known)}{cite(*known)}; "
            f"sphericity is the surface of a ball of the same volume over the object's"
            f"{cite('sphericity')}, and the mitochondrial complexity index surface³ / (16 π² "
            f"volume²){cite('complexity')}."
        )
    return text


def _describe_tests(tests: Sequence[tuple[str, str]], cite: _Citations) -> list[str]:
    if not tests:
        return []
    named = " and ".join(
        f"the two-sided {test} test{cite(test)} with {effect}{cite(effect)}"
        for test, effect in dict.fromkeys(tests)
    )
    return [f"Volumes were compared by {named}; p was corrected by Holm's method{cite('holm')}."]
