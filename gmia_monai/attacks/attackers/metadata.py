"""The floor: an attacker without pixels, who compares sex, age, view and findings.

A system that keeps the diagnosis keeps these; what an attacker gains from pixels is what lies above this one.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float64
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from gmia_monai.attacks.base import AttackerKnowledge, Judged, TooLittleDataError
from gmia_monai.data.cohort import Cohort
from gmia_monai.data.pairs import NEGATIVES, Pairs, t1_pairs
from gmia_monai.errors import UsageError

__all__ = ["MetadataAttacker", "pair_facts"]


def pair_facts(cohort: Cohort, pairs: Pairs) -> Float64[np.ndarray, "n 6"]:
    """What a pair's records have in common: same sex, same view, years between ages, its being known, share of common
    findings, number of differing findings. What is not known counts as neither same nor different."""
    i, j = pairs.first, pairs.second
    sex, view = (np.array([getattr(r, name) for r in cohort]) for name in ("sex", "view"))
    known_age = ~np.isnan(cohort.ages[i]) & ~np.isnan(cohort.ages[j])
    gap = np.where(known_age, np.abs(np.nan_to_num(cohort.ages[i]) - np.nan_to_num(cohort.ages[j])), 0.0)
    present = cohort.label_matrix() == 1
    both, either = (present[i] & present[j]).sum(axis=1), (present[i] | present[j]).sum(axis=1)
    return np.stack(
        [
            _same(sex, i, j),
            _same(view, i, j),
            np.log1p(gap),
            known_age,
            np.where(either > 0, both / np.maximum(either, 1), 1.0),
            either - both,
        ],
        axis=1,
    ).astype(np.float64)


def _same(values: np.ndarray, i: np.ndarray, j: np.ndarray) -> np.ndarray:
    known = (values[i] != "") & (values[j] != "")
    return np.where(known, np.where(values[i] == values[j], 1.0, -1.0), 0.0)


class MetadataAttacker:
    """Logistic regression on :func:`pair_facts`, fitted on pairs of real records of S and A, for
    each kind of negatives."""

    name = "metadata"

    def __init__(self) -> None:
        self._models: dict[str, Pipeline] = {}

    def fit(self, knowledge: AttackerKnowledge, seed: int) -> None:
        """Learns from all pairs of the training records against strangers of their folder, of either kind.

        Raises:
            TooLittleDataError: ``GM-U317`` where no patient of S and A has two images of different exposures.
        """
        self._models.clear()
        cohort = knowledge.training.cohort
        for negatives in NEGATIVES:
            pairs = t1_pairs(cohort, negatives, negatives_per_positive=10, max_positives_per_patient=20, seed=seed)
            if pairs.n_positives and pairs.n_negatives:
                model = self._models[negatives] = make_pipeline(StandardScaler(), LogisticRegression(max_iter=500))
                weights = pairs.weight * 1e4
                model.fit(pair_facts(cohort, pairs), pairs.same, logisticregression__sample_weight=weights)
        if not self._models:
            raise TooLittleDataError("GM-U317", "no pairs of one person among the records of S and A to learn from")

    def score(self, judged: Judged, pairs: Pairs, threat: str) -> Float64[np.ndarray, "n"]:
        """Log odds of "same person"; the same under every threat model, since no pixel is looked at."""
        if not self._models:
            raise UsageError("GM-U311", "attacker metadata has not been fitted")
        model = self._models.get(pairs.negatives, self._models["random"])
        return model.decision_function(pair_facts(judged.real.cohort, pairs)).astype(np.float64)
