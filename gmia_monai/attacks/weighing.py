"""Several scores as one, honest where it is compared with each of them.

Each score becomes a log likelihood ratio, so that *too far* counts as *too near* does, and a logistic regression weighs
them (Brümmer et al., IEEE TASLP 15:2072, 2007). On the very patients that it was fitted on, what is scored is left out:
weights of the other patients are used, part by part.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import Bool, Float, Float64, Int, Shaped
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from gmia_monai.attacks.likelihood import LikelihoodRatio

__all__ = ["CrossFitted", "LogOdds"]

_FOLDS = 5

Model = Callable[[Float[np.ndarray, "m *k"]], Float64[np.ndarray, "m"]]


class LogOdds:
    """Likelihood ratios of some scores, and a logistic regression over them.

    Args:
        scores: one row a pair or a patient.
        positive: whether each is of one person, or a member.
        weight: of each row; both kinds are brought to the same sum.
        effective: how many independent rows of either kind there are; the penalty is weighed against it.
        c: inverse strength of that penalty, as scikit-learn has it.

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
    ) -> None:
        self._ratios = [LikelihoodRatio(column, positive, weight) for column in scores.T]
        sums = np.where(positive, weight[positive].sum(), weight[~positive].sum())
        self._model = make_pipeline(StandardScaler(), LogisticRegression(C=c, max_iter=500))
        balanced = weight * effective / sums
        self._model.fit(self._evidence(scores), positive, logisticregression__sample_weight=balanced)

    def _evidence(self, scores: Float[np.ndarray, "m k"]) -> Float64[np.ndarray, "m k"]:
        return np.stack([ratio(column) for ratio, column in zip(self._ratios, scores.T, strict=True)], axis=1)

    def __call__(self, scores: Float[np.ndarray, "m k"]) -> Float64[np.ndarray, "m"]:
        """Log odds of a positive."""
        return self._model.decision_function(self._evidence(scores)).astype(np.float64)


class CrossFitted:
    """A model of all patients, and one without each part of them.

    Args:
        learn: fits a model on some of the rows.
        positive: which rows are positive.
        first: patient of each row.
        second: patient of the other image of a pair; None: there is none.

    Attributes:
        all: the model of all patients.
    """

    def __init__(
        self,
        learn: Callable[[Bool[np.ndarray, "n"]], Model],
        positive: Bool[np.ndarray, "n"],
        first: Int[np.ndarray, "n"],
        second: Int[np.ndarray, "n"] | None = None,
    ) -> None:
        patients = np.unique(first)
        part = np.random.default_rng(0).permutation(len(patients)) % _FOLDS
        self._part = dict(zip(patients.tolist(), part.tolist(), strict=True))
        self.all = learn(np.ones(len(positive), dtype=bool))
        self._without: dict[int, Model] = {}
        parts = [self._parts(side) for side in (first, first if second is None else second)]
        for fold in range(_FOLDS):
            learnt = (parts[0] != fold) & (parts[1] != fold)
            if min((positive & learnt).sum(), (~positive & learnt).sum()) >= 2:
                self._without[fold] = learn(learnt)

    def _parts(self, patients: Shaped[np.ndarray, "n"]) -> Int[np.ndarray, "n"]:
        return np.array([self._part.get(p, -1) for p in patients.tolist()], dtype=np.int64)

    def left_out(self, scores: Float[np.ndarray, "m *k"], first: Int[np.ndarray, "m"]) -> Float64[np.ndarray, "m"]:
        """What the model says that was fitted without the (first) patient of each row, as far as there is one."""
        part, found = self._parts(first), self.all(scores)
        for fold, without in self._without.items():
            if (part == fold).any():
                found[part == fold] = without(scores[part == fold])
        return found
