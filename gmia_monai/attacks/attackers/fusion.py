"""An attacker who listens to all the others: their evidence, weighed on V2. Of the averaging attacker it hears the
means of every attacker, not of one alone.

On V2 itself, where attackers are chosen, a pair is scored by weights that were fitted without the patient of its first
image, as far as there are patients enough.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping

import numpy as np
from jaxtyping import Bool, Float64

from gmia_monai.attacks.attackers.averaging import AveragingAttacker
from gmia_monai.attacks.attackers.base import Attacker, CombiningAttacker
from gmia_monai.attacks.base import AttackerKnowledge, Judged, TooLittleDataError
from gmia_monai.attacks.folds import CrossFitted
from gmia_monai.attacks.weighing import LogOdds
from gmia_monai.data.pairs import Pairs
from gmia_monai.data.threats import THREATS, threat_pairs

__all__ = ["FusionAttacker"]


class FusionAttacker(CombiningAttacker):
    """Several attackers as one.

    Args:
        makers: name to a function that makes the attacker anew.
    """

    name = "fusion"

    def __init__(self, makers: Mapping[str, Callable[[], Attacker]]) -> None:
        super().__init__(makers)
        self._attackers: dict[str, Attacker] = {}
        self._weighed: dict[str, CrossFitted[LogOdds]] = {}
        self._choice: Judged | None = None
        self._scored: weakref.WeakKeyDictionary[Pairs, tuple[str, Judged, np.ndarray]] = weakref.WeakKeyDictionary()

    def fit(self, knowledge: AttackerKnowledge, seed: int) -> None:
        """Fits the attackers, and weighs them under each threat model on V2, with matched negatives.

        Raises:
            UsageError: as the attackers do.
        """
        judged = self._choice = knowledge.choice
        self._scored.clear()
        self._attackers = self.others(knowledge, seed)
        for threat in THREATS:
            pairs = threat_pairs(judged.real.cohort, threat, "matched", judged.released)
            if pairs.n_positives >= 2 and pairs.n_negatives >= 2:
                self._weighed[threat] = _weighed(self._scores(judged, pairs, threat), pairs)

    def score(self, judged: Judged, pairs: Pairs, threat: str) -> Float64[np.ndarray, "n"]:
        """Log odds of "same person"; of pairs that were asked about before those of then, since the ensemble asks, too.

        Raises:
            UsageError: ``GM-U317`` where V2 has too few pairs under this threat model.
        """
        if threat not in self._weighed:
            raise TooLittleDataError(
                "GM-U317", f"too few patients of V2 to weigh attackers under threat model {threat}"
            )
        kept = self._scored.get(pairs)
        if kept is None or kept[0] != threat or kept[1] is not judged:
            scores, weighed = self._scores(judged, pairs, threat), self._weighed[threat]
            on_choice = judged is self._choice
            found = weighed.left_out(scores, pairs.patient_first) if on_choice else weighed.all(scores)
            kept = self._scored[pairs] = (threat, judged, found)
        return kept[2].copy()

    def _scores(self, judged: Judged, pairs: Pairs, threat: str) -> Float64[np.ndarray, "n k"]:
        columns = []
        for attacker in self._attackers.values():
            if isinstance(attacker, AveragingAttacker):
                columns.append(attacker.all_scores(judged, pairs, threat))
            else:
                columns.append(attacker.score(judged, pairs, threat)[:, None])
        return np.concatenate(columns, axis=1)


def _weighed(scores: Float64[np.ndarray, "n k"], pairs: Pairs) -> CrossFitted[LogOdds]:
    """Either kind weighs as much as there are patients behind the positives."""

    def learn(rows: Bool[np.ndarray, "n"]) -> LogOdds:
        patients = len(np.unique(pairs.patient_first[rows & pairs.same]))
        return LogOdds(scores[rows], pairs.same[rows], pairs.weight[rows], float(patients), n_patients=patients)

    return CrossFitted(learn, pairs.same, pairs.patient_first, pairs.patient_second)
