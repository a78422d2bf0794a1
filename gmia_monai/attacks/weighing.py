"""Several scores as one: each becomes a log likelihood ratio, so that *too far* counts as *too near* does, and a
logistic regression weighs them, as verifiers of speakers are fused (Brümmer et al., IEEE TASLP 15:2072, 2007).
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Float64
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from gmia_monai.attacks.likelihood import LikelihoodRatio

__all__ = ["LogOdds"]


class LogOdds:
    """Likelihood ratios of some scores, and a logistic regression over them.

    Args:
        scores: one row a pair or a patient.
        positive: whether each is of one person, or a member.
        weight: of each row; both kinds are brought to the same sum.
        effective: how many independent rows of either kind there are; the penalty is weighed against it.
        c: inverse strength of that penalty, as scikit-learn has it.
        n_patients: behind the positives, as :class:`LikelihoodRatio` asks.

    Raises:
        UsageError: ``GM-U315`` with fewer than two rows of a kind.
    """

    def __init__(
        self,
        scores: Float[np.ndarray, "n k"],
        positive: Bool[np.ndarray, "n"],
        weight: Float[np.ndarray, "n"],
        effective: float,
        c: float = 1.0,
        n_patients: int | None = None,
    ) -> None:
        self._ratios = [LikelihoodRatio(column, positive, weight, n_patients) for column in scores.T]
        sums = np.where(positive, weight[positive].sum(), weight[~positive].sum())
        self._model = make_pipeline(StandardScaler(), LogisticRegression(C=c, max_iter=500))
        balanced = weight * effective / sums
        self._model.fit(self._evidence(scores), positive, logisticregression__sample_weight=balanced)

    def _evidence(self, scores: Float[np.ndarray, "m k"]) -> Float64[np.ndarray, "m k"]:
        return np.stack([ratio(column) for ratio, column in zip(self._ratios, scores.T, strict=True)], axis=1)

    def __call__(self, scores: Float[np.ndarray, "m k"]) -> Float64[np.ndarray, "m"]:
        """Log odds of a positive."""
        return self._model.decision_function(self._evidence(scores)).astype(np.float64)
