"""Compare how tissue looks to a network with how its training data did. Pure functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from volseg.types import Doubles

Likeness = Literal["like", "unlike", "very unlike"]
VERY_UNLIKE: Likeness = "very unlike"
UNKNOWN = "unknown"
"""Likeness to weights whose card does not say what their training data look like."""
LIKE, VERY = 1.8, 5.0
"""Distances up to which tissue is like the training data, and beyond which it is very unlike them
(decision 0066)."""
FAR = 0.9
"""Part of the training data that lies nearer than 1: what makes the unit of a distance."""
SHRINKAGE = 0.1
"""Part of the covariance that is taken as the same in all directions, as places are few."""
FAINT = 0.01
"""Least spread of a number, as part of the median spread: channels that are always 0 have none."""
ADVICE: Mapping[str, str] = {
    "like": "",
    "unlike": "look at a few objects before you count, and mark false ones with volseg teach",
    VERY_UNLIKE: "do not count on the result: annotate a few slices, and train on them",
    UNKNOWN: "look at a few objects before you count, and mark false ones with volseg teach",
}


@dataclass(frozen=True)
class Reference:
    """Features of the places that a network was trained on.

    Attributes
    ----------
    means : float64, shape (sources, features)
    whitening : float64, shape (features, features)
        Lower triangle that maps the spread within the sources to a unit ball.
    unit : distance within which nine of ten training places lie.
    places : how many were looked at.
    """

    means: Doubles
    whitening: Doubles
    unit: float
    places: int

    def measure(self, features: Doubles) -> Doubles:
        """Measure how far places are from the nearest source: Mahalanobis distance, in units.

        Parameters
        ----------
        features : float64, shape (n, features)

        Returns
        -------
        float64, shape (n,)
        """
        apart = (features[:, None] - self.means[None]) @ self.whitening.T
        found: Doubles = np.sqrt((apart**2).mean(axis=2)).min(axis=1) / self.unit
        return found


def fit_reference(sources: Sequence[Doubles]) -> Reference:
    """Fit a reference to the features of places, source by source.

    The spread about the mean of each source is pooled, and shrunk towards equal spread
    (Ledoit and Wolf, J. Multivariate Analysis 2004, with a fixed weight).

    Parameters
    ----------
    sources : float64, each of shape (places, features); together of at least two places.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> known = fit_reference([rng.normal(m, 1, (99, 2)) for m in (0, 9)])
    >>> bool(known.measure(np.array([[9.0, 9.0]]))[0] < 0.2), len(known.means)
    (True, 2)
    """
    means = np.array([found.mean(axis=0) for found in sources])
    rest = np.concatenate([found - mean for found, mean in zip(sources, means, strict=True)])
    spread = rest.std(axis=0)
    spread = np.maximum(spread, FAINT * np.median(spread) or FAINT)
    covariance = np.atleast_2d(np.cov((rest / spread).T))
    covariance *= 1 - SHRINKAGE
    covariance += SHRINKAGE * np.eye(len(spread))
    whitening = np.linalg.inv(np.linalg.cholesky(covariance)) / spread
    raw = Reference(means, whitening, 1.0, len(rest))
    unit = float(np.quantile(raw.measure(np.concatenate(sources)), FAR))
    return Reference(means, whitening, unit or 1.0, len(rest))


def write_reference(reference: Reference) -> dict[str, Any]:
    """Write a reference as JSON knows it: four digits of each number, a row of them in one text."""
    rows = [row[: k + 1] for k, row in enumerate(reference.whitening)]
    return {
        "means": [" ".join(f"{v:.4g}" for v in row) for row in reference.means],
        "whitening": " ".join(f"{v:.4g}" for row in rows for v in row),
        "unit": float(f"{reference.unit:.4g}"),
        "places": reference.places,
    }


def read_reference(written: Mapping[str, Any]) -> Reference | None:
    """Read what `write_reference` wrote; None where a card has nothing of it, or something else."""
    try:
        means = np.array([[float(v) for v in row.split()] for row in written["means"]])
        given = np.array([float(v) for v in written["whitening"].split()])
        lower = np.tril_indices(means.shape[1])
        if len(given) != len(lower[0]):
            return None
        whitening = np.zeros((means.shape[1],) * 2)
        whitening[lower] = given
        reference = Reference(means, whitening, float(written["unit"]), int(written["places"]))
    except (KeyError, TypeError, ValueError, AttributeError, IndexError):
        return None
    finite = all(np.isfinite(v).all() for v in (means, whitening, reference.unit))
    return reference if finite and reference.unit > 0 else None


def name_likeness(distance: float) -> Likeness:
    """Name a distance.

    Examples
    --------
    >>> [name_likeness(d) for d in (0.7, 2.0, 9.0)]
    ['like', 'unlike', 'very unlike']
    """
    return "like" if distance <= LIKE else "unlike" if distance <= VERY else VERY_UNLIKE


def expect_precision(noted: Mapping[str, Any], certainty: float) -> tuple[float, float] | None:
    """Find between which values the precision of voxels lay in tissue of such a likeness.

    Parameters
    ----------
    noted : of tissue, with ``ratios``
        The lowest and the highest ratio of precision to certainty that were measured.
    certainty : mean probability of the voxels that were found

    Examples
    --------
    >>> expect_precision({"ratios": [0.5, 0.9]}, 0.9)
    (0.45, 0.81)
    """
    if len(ratios := noted.get("ratios") or ()) != 2:
        return None
    low, high = (min(max(float(r) * certainty, 0.0), 1.0) for r in ratios)
    return round(low, 2), round(high, 2)


def describe_tissue(noted: object) -> str:
    """Say of tissue how like the training data it is, and what can be expected of a count there.

    Parameters
    ----------
    noted : of a result; anything else gives no words

    Examples
    --------
    >>> describe_tissue({"likeness": "unlike", "expected_precision": [0.41, 0.7]})
    'expected precision of voxels 0.41 to 0.7: this tissue is unlike the training data'
    >>> describe_tissue({"likeness": "very unlike"})
    'expected precision of voxels unknown: this tissue is very unlike the training data'
    >>> describe_tissue({"likeness": "like"})
    'this tissue is like the training data; the precision to expect there was not measured'
    >>> describe_tissue({"likeness": "unknown"})
    'expected precision unknown: the weights do not say what their training data look like'
    >>> describe_tissue({"likeness": "like", "expected_precision": []})
    'this tissue is like the training data'
    >>> describe_tissue({})
    ''
    """
    if not isinstance(noted, Mapping) or noted.get("likeness") not in ADVICE:
        return ""
    if noted["likeness"] == UNKNOWN:
        return (
            f"expected precision {UNKNOWN}: the weights do not say what their training data look "
            f"like"
        )
    between = noted.get("expected_precision")
    tissue = f"this tissue is {noted['likeness']} the training data"
    if between == []:  # nothing was found
        return tissue
    if not between and noted["likeness"] != VERY_UNLIKE:
        return f"{tissue}; the precision to expect there was not measured"
    words = " to ".join(f"{p:.2g}" for p in between) if between else UNKNOWN
    return f"expected precision of voxels {words}: {tissue}"


def tell_tissue(noted: object) -> str:
    """Say what can be expected of a count, and what to do, in one line; '' where nothing is noted.

    Examples
    --------
    >>> tell_tissue({"likeness": "very unlike"}).split("; ")[1]
    'do not count on the result: annotate a few slices, and train on them'
    """
    return "; ".join(text for text in (describe_tissue(noted), advise_on(noted)) if text)


def advise_on(noted: object) -> str:
    """Say in one sentence what to do; nothing where tissue is like the training data.

    Examples
    --------
    >>> advise_on({"likeness": "like"}), advise_on(None)
    ('', '')
    """
    return ADVICE.get(noted.get("likeness", ""), "") if isinstance(noted, Mapping) else ""
