"""The calibration error as its paper states it: what the faster one is held against."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float


def expected_calibration_error(
    probability: Float[np.ndarray, "n"],
    same: Bool[np.ndarray, "n"],
    weights: Float[np.ndarray, "n"] | None = None,
    bins: int = 10,
) -> float:
    """Mean gap between what is predicted and what is true, over bins of the prediction (Guo et al., ICML 2017, eq. 5).

    Args:
        probability: P(same person) of each pair at even odds.
        same: the truth.
        weights: of each pair; both kinds are brought to equal weight.
        bins: number of bins of equal width.

    Returns:
        ``nan`` where one kind of pair has no weight.
    """
    weights = np.ones(len(same)) if weights is None else np.asarray(weights, dtype=np.float64)
    if not (weights[same].any() and weights[~same].any()):
        return float("nan")
    balanced = np.where(same, weights / weights[same].sum(), weights / weights[~same].sum()) / 2
    place = np.clip((probability * bins).astype(int), 0, bins - 1)
    predicted = np.bincount(place, balanced * probability, bins)
    true = np.bincount(place, balanced * same, bins)
    return float(np.abs(predicted - true).sum())
