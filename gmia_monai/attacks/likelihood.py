"""From a score to evidence: the likelihood ratio of "same person", learned on the role V2.

A score can betray a person by being low as well as by being high: a system that pushes each image away from its own
identity leaves every other image nearer. The ratio of the two densities sees both sides; with even odds it is also a
calibrated probability.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float
from scipy.ndimage import gaussian_filter1d

from gmia_monai.attacks.base import TooLittleDataError

__all__ = ["LikelihoodRatio"]

_GRID = 512
_LIMIT = 10.0


class LikelihoodRatio:
    """Log of the ratio of two kernel densities, as a function of the score.

    Args:
        scores: of pairs of V2.
        same: whether each is of one person.
        weights: of each pair; within either kind they are brought to sum 1.
        n_patients: patients behind the pairs: kernels are as wide as so many scores ask for; None: the pairs are
            independent.

    Raises:
        UsageError: ``GM-U315`` with fewer than two pairs of a kind that have a weight.
    """

    def __init__(
        self,
        scores: Float[np.ndarray, "n"],
        same: Bool[np.ndarray, "n"],
        weights: Float[np.ndarray, "n"] | None = None,
        n_patients: int | None = None,
    ) -> None:
        self._n_patients = n_patients
        weights = np.ones(len(scores)) if weights is None else weights
        n_same, n_other = ((weights[kind] > 0).sum() for kind in (same, ~same))
        if min(n_same, n_other) < 2:
            raise TooLittleDataError(
                "GM-U315", "a likelihood ratio needs pairs of both kinds", got=f"{n_same} positive, {n_other} negative"
            )
        spread = float(np.std(scores)) or 1.0
        self.grid = np.linspace(scores.min() - spread / 2, scores.max() + spread / 2, _GRID)
        densities = [self._density(scores[kind], weights[kind]) for kind in (same, ~same)]
        # Where neither kind was seen, neither is favoured.
        floor = 1e-3 / (self.grid[-1] - self.grid[0])
        log_ratio = np.log(densities[0] + floor) - np.log(densities[1] + floor)
        self.log_ratio = np.clip(log_ratio, -_LIMIT, _LIMIT)

    def _density(self, scores: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """Gaussian kernel density on the grid, with Scott's bandwidth, but no narrower than two steps of the grid."""
        step = self.grid[1] - self.grid[0]
        place = np.rint((scores - self.grid[0]) / step).astype(int)
        mass = np.bincount(place, weights / weights.sum(), _GRID)
        mean = mass @ self.grid
        width = float(np.sqrt(mass @ (self.grid - mean) ** 2))
        effective = weights.sum() ** 2 / np.square(weights).sum()
        if self._n_patients is not None:
            effective = min(effective, self._n_patients)
        smooth = gaussian_filter1d(mass, max(2.0, width * effective ** (-1 / 5) / step), mode="constant")
        return np.asarray(smooth / step)

    def __call__(self, scores: Float[np.ndarray, "m"]) -> Float[np.ndarray, "m"]:
        """Log likelihood ratio; beyond the scores that were seen, that of the nearest seen."""
        return np.interp(scores, self.grid, self.log_ratio)

    def probability(self, scores: Float[np.ndarray, "m"]) -> Float[np.ndarray, "m"]:
        """P(same person) at even odds."""
        return np.asarray(1.0 / (1.0 + np.exp(-self(scores))))
