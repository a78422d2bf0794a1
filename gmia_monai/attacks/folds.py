"""What was learned from pairs of V2, asked about pairs of V2: by parts of the patients, each asked of the others.

Read on the pairs that it was fitted on, whatever has freedom looks better than what has none; the choice among them
would then fall on the one that learned most by heart.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from gmia_monai.data.pairs import Pairs

__all__ = ["left_out", "patient_parts"]

_PARTS = 5

Fit = Callable[[Bool[np.ndarray, "n"]], Callable[[Shaped[np.ndarray, "..."]], Float[np.ndarray, "m"]]]
"""From which pairs are learned from to a function of scores."""


def patient_parts(pairs: Pairs) -> tuple[Int[np.ndarray, "n"], Int[np.ndarray, "n"]]:
    """Part of the patients, 0 to 4, of the first and of the second image of each pair."""
    patients = np.unique([pairs.patient_first, pairs.patient_second])
    part = np.random.default_rng(0).permutation(len(patients)) % _PARTS
    return part[np.searchsorted(patients, pairs.patient_first)], part[np.searchsorted(patients, pairs.patient_second)]


def left_out(fit: Fit, scores: Shaped[np.ndarray, "n ..."], pairs: Pairs) -> Float[np.ndarray, "n"]:
    """What ``fit`` says of each pair where it has learned from no pair with the patient of the pair's first image.

    Args:
        fit: learns from some of the pairs.
        scores: what it is asked about, a row a pair.
        pairs: of V2. Where one part leaves fewer than two pairs of a kind to learn from, it is asked of all.
    """
    first, second = patient_parts(pairs)
    said = np.zeros(len(pairs))
    for part in np.unique(first):
        learnt = (first != part) & (second != part)
        if min((pairs.same & learnt).sum(), (~pairs.same & learnt).sum()) < 2:
            learnt = np.ones(len(pairs), dtype=bool)
        said[first == part] = fit(learnt)(scores[first == part])
    return said
