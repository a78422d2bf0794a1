"""A gallery searched by several attackers together: their evidence, weighed on V2 as for verification."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float64, Int

from gmia_monai.attacks.attackers.base import EmbeddingAttacker
from gmia_monai.attacks.base import Judged
from gmia_monai.attacks.folds import CrossFitted
from gmia_monai.attacks.weighing import LogOdds
from gmia_monai.data.threats import threat_pairs

__all__ = ["FusedSearch"]


class FusedSearch:
    """Log odds of "same person" of each released image with each real one, by all attackers of one seed.

    Args:
        attackers: fitted.
        choice: release of V2, on whose T1 pairs with random negatives they are weighed.

    Raises:
        UsageError: ``GM-U315`` with fewer than two pairs of a kind.
    """

    def __init__(self, attackers: Sequence[EmbeddingAttacker], choice: Judged) -> None:
        self._attackers = tuple(attackers)
        self._choice = choice
        pairs = threat_pairs(choice.real.cohort, "T1", "random", choice.released)
        scores = np.stack([attacker.score(choice, pairs, "T1") for attacker in self._attackers], axis=1)

        def learn(rows: Bool[np.ndarray, "n"]) -> LogOdds:
            patients = len(np.unique(pairs.patient_first[rows & pairs.same]))
            return LogOdds(scores[rows], pairs.same[rows], pairs.weight[rows], float(patients), n_patients=patients)

        self._weighed = CrossFitted(learn, pairs.same, pairs.patient_first, pairs.patient_second)

    def scores(
        self, judged: Judged, direction: str, queries: Int[np.ndarray, "q"] | None = None
    ) -> Float64[np.ndarray, "q n"]:
        """Of each query with each image of the gallery, by position; on V2 itself by weights that have not seen the
        patient of the query.

        Args:
            judged: a release, one to one.
            direction: ``released_in_real`` or ``real_in_released``.
            queries: positions of the images that are looked for; None: all.
        """
        columns, n = [], len(judged.real)
        asked = np.arange(n) if queries is None else queries
        for attacker in self._attackers:
            released, real = attacker.embeddings(judged)
            if direction == "released_in_real":
                found = attacker.compare_all(released[asked], real)
            else:
                found = attacker.compare_all(released, real[asked]).T
            columns.append(found.ravel())
        evidence = np.stack(columns, axis=1)
        if judged is not self._choice:
            return self._weighed.all(evidence).reshape(len(asked), n)
        patients = np.repeat(judged.real.cohort.patient_index[asked], n)
        return self._weighed.left_out(evidence, patients).reshape(len(asked), n)
