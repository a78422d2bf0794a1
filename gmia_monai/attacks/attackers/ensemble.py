"""An attacker who trains several networks where others train one: the evidence of all seeds together.

Each seed's fusion gives log odds, which are added. Whatever the seed of a judgement, it is the same attacker, so that
its interval is of patients alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float64

from gmia_monai.attacks.attackers.base import Attacker, CombiningAttacker
from gmia_monai.attacks.base import AttackerKnowledge, Judged
from gmia_monai.data.pairs import Pairs
from gmia_monai.errors import UsageError

__all__ = ["EnsembleAttacker"]


class EnsembleAttacker(CombiningAttacker):
    """Sum of the log odds of one attacker with several seeds.

    Args:
        make: makes the attacker whose log odds are added.
        seeds: with which it is fitted.
    """

    name = "ensemble"

    def __init__(self, make: Callable[[], Attacker], seeds: Sequence[int]) -> None:
        super().__init__({"fusion": make})
        self.seeds = tuple(dict.fromkeys(seeds))
        self._members: list[Attacker] = []

    def fit(self, knowledge: AttackerKnowledge, seed: int) -> None:
        """Fits a member with each seed; ``seed`` itself decides nothing.

        Raises:
            TooLittleDataError: as the member does.
        """
        self._members = [self.others(knowledge, own)["fusion"] for own in self.seeds]

    def score(self, judged: Judged, pairs: Pairs, threat: str) -> Float64[np.ndarray, "n"]:
        """Log odds of "same person", added over seeds.

        Raises:
            UsageError: ``GM-U311`` before :meth:`fit`.
        """
        if not self._members:
            raise UsageError("GM-U311", "attacker ensemble has not been fitted")
        return np.sum([member.score(judged, pairs, threat) for member in self._members], axis=0)
