"""Would an attacker with more releases, or with more patience, win? Verification AUC against either.

The network whose refit finds most on V2 under T1 is refitted on an eighth, a quarter, a half and all of the patients of
A, for the same number of updates, each part holding the smaller ones; and on all of them for three times the updates.
Only what the network itself says counts, also where its attacker has more to go by, which no budget changes. Where one
of the two still brings something, the headline is no limit: what the last doubling of patients brought, and what the
updates did, are lines of their own, on the same resamples. PriCheXy-Net's verifier saw 10,000 pairs where that of
Packhäuser et al. (Scientific Reports 12:14851, 2022) saw 792,294: this curve shows what that means.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float

from gmia_monai.attacks.attackers.adaptive import AdaptiveAttacker, real_side, released_side, within_budget
from gmia_monai.attacks.attackers.base import EmbeddingAttacker, with_enough_data
from gmia_monai.attacks.base import AttackerKnowledge, Judged, TooLittleDataError
from gmia_monai.attacks.pool import AttackerPool
from gmia_monai.attacks.refit import Side
from gmia_monai.data.pairs import Pairs
from gmia_monai.data.threats import threat_pairs
from gmia_monai.errors import UsageError
from gmia_monai.metrics.intervals import pair_bootstrap_over_seeds
from gmia_monai.metrics.results import Result, RunContext
from gmia_monai.metrics.verification import SortedScores, roc_auc

__all__ = ["BudgetAttack", "n_training_pairs"]

_log = logging.getLogger(__name__)
_THREAT = "T1"
_PARTS = (8, 4, 2, 1)
_UPDATES = 3
_MIN_PATIENTS = 2
Statistic = Callable[[Float[np.ndarray, "n"]], float]


@dataclass(frozen=True)
class _Fitted:
    """One attacker, what it learned from, and what V2 said of it."""

    attacker: AdaptiveAttacker
    n_patients: int
    n_pairs: int
    updates: int
    auc_on_choice: float

    @property
    def sign(self) -> float:
        return 1.0 if self.auc_on_choice >= 0.5 else -1.0


class BudgetAttack:
    """Curve of T1 AUC over the attacker's budget, matched negatives.

    Args:
        attackers: those among them that refit a network are candidates; without any there is no curve.
        seed: of the attackers; several give the mean.
        n_boot: bootstrap resamples.
    """

    name = "budget"

    def __init__(self, attackers: AttackerPool, seed: int | Sequence[int] = 0, n_boot: int = 500) -> None:
        self.attackers = attackers
        self.seeds = (seed,) if isinstance(seed, int) else tuple(seed)
        self.n_boot = n_boot
        self._fitted: dict[str, list[_Fitted]] = {}
        self._name = ""
        self._knowledge: AttackerKnowledge | None = None
        self._curve: list[tuple[float, ...]] = []

    def fit(self, knowledge: AttackerKnowledge) -> None:
        """Refits for each part of at least two patients, for all of them with more updates, and each seed.

        The attacker of all patients with the usual updates is the one that other attacks use.

        Raises:
            UsageError: ``GM-U303``, ``GM-U313``, ``GM-U314`` as :meth:`AdaptiveAttacker.fit`.
        """
        self._knowledge = knowledge
        self._fitted.clear()
        pairs = threat_pairs(knowledge.choice.real.cohort, _THREAT, "matched", knowledge.choice.released)
        self._name = self._best(knowledge, pairs)
        if not self._name:
            _log.warning("no curve over the attacker's budget without an attacker that is refitted")
            return
        everyone = released_side(knowledge.own)
        n_all = len(np.unique(everyone.patient))
        for part, times in [*((part, 1) for part in _PARTS), (1, _UPDATES)]:
            n = math.ceil(n_all / part)
            if n < _MIN_PATIENTS and part > 1:
                continue
            for seed in self.seeds:
                attacker = self._attacker(n if part > 1 else None, times, seed, knowledge)
                auc = roc_auc(_by_network(attacker, knowledge.choice, pairs), pairs.same, pairs.weight)
                learned = n_training_pairs(within_budget(everyone, n, seed), real_side(knowledge.own))
                updates = attacker.recipe.steps
                fitted = _Fitted(attacker, n, learned, updates, auc)
                self._fitted.setdefault(_name(part, times), []).append(fitted)

    def _best(self, knowledge: AttackerKnowledge, pairs: Pairs) -> str:
        """The attacker whose refitted network has the highest AUC on V2, near or far; empty where there is none."""
        refitted = [name for name in self.attackers if isinstance(self.attackers.make(name), AdaptiveAttacker)]
        if not refitted:
            return ""
        found = {}
        fitted = with_enough_data(
            refitted, lambda name: [self.attackers.fitted(name, seed, knowledge) for seed in self.seeds]
        )
        for name, of_seeds in fitted.items():
            scores = [_by_network(attacker, knowledge.choice, pairs) for attacker in of_seeds]
            found[name] = float(np.mean([abs(roc_auc(s, pairs.same, pairs.weight) - 0.5) for s in scores]))
        return max(found, key=lambda name: found[name])

    def _attacker(
        self, max_patients: int | None, times: int, seed: int, knowledge: AttackerKnowledge
    ) -> AdaptiveAttacker:
        usual = max_patients is None and times == 1
        attacker = self.attackers.fitted(self._name, seed, knowledge) if usual else self.attackers.make(self._name)
        assert isinstance(attacker, AdaptiveAttacker)
        if not usual:
            recipe = attacker.recipe
            attacker.max_patients = max_patients
            attacker.recipe = replace(recipe, steps=times * recipe.steps, validate_every=times * recipe.validate_every)
            attacker.fit(knowledge, seed)
        return attacker

    def score(self, judged: Judged, context: RunContext) -> list[Result]:
        """``verification_auc_budget.T1.1_of_<part>.v1``, ``verification_auc_budget.T1.3_times_the_updates.v1``,
        ``verification_auc_budget_gain.T1.v1``, which is what all patients of A brought over half of them, and
        ``verification_auc_updates_gain.T1.v1``, what more updates brought.

        Raises:
            UsageError: ``GM-U311`` before :meth:`fit`.
            TooLittleDataError: ``GM-U355`` where there are no pairs.
        """
        if self._knowledge is None:
            raise UsageError("GM-U311", "the budget attack has not been fitted")
        self._knowledge.refuse_overlap(judged)
        self._curve = []
        if not self._fitted:
            return []
        pairs = threat_pairs(judged.real.cohort, _THREAT, "matched", judged.released)
        if pairs.n_positives == 0 or pairs.n_negatives == 0:
            raise TooLittleDataError("GM-U355", "no pairs to score attackers of several budgets on", got=repr(pairs))
        aucs: dict[str, list[Statistic]] = {}
        results = []
        for budget, fitted in self._fitted.items():
            aucs[budget] = [
                SortedScores(f.sign * _by_network(f.attacker, judged, pairs), pairs.same).auc for f in fitted
            ]
            n_pairs = round(float(np.mean([f.n_pairs for f in fitted])), 1)
            extra = {
                "patients": fitted[0].n_patients,
                "training_pairs": n_pairs,
                "updates": fitted[0].updates,
                "signs": [f.sign for f in fitted],
                "auc_on_choice": [round(max(f.auc_on_choice, 1 - f.auc_on_choice), 6) for f in fitted],
            }
            line = self._line(f"verification_auc_budget.{_THREAT}.{budget}.v1", aucs[budget], pairs, context, extra)
            results.append(line)
            if fitted[0].updates == self._fitted[_name(1)][0].updates:
                shown = (n_pairs, line.value, line.low, line.high)
                self._curve.append(tuple(math.nan if v is None else v for v in shown))
        for name, more, less in (
            ("verification_auc_budget_gain", _name(1), _name(2)),
            ("verification_auc_updates_gain", _name(1, _UPDATES), _name(1)),
        ):
            if less in aucs:
                gain: list[Statistic] = [
                    lambda w, a=a, b=b: a(w) - b(w) for a, b in zip(aucs[more], aucs[less], strict=True)
                ]
                results.append(self._line(f"{name}.{_THREAT}.v1", gain, pairs, context, {}, bounds=(-1.0, 1.0)))
        return results

    def figure_data(self) -> dict[str, np.ndarray]:
        """``budget/T1``: training pairs, AUC and its limits, one column a part."""
        return {f"budget/{_THREAT}": np.array(self._curve).T} if self._curve else {}

    def _line(
        self,
        name: str,
        per_seed: Sequence[Statistic],
        pairs: Pairs,
        context: RunContext,
        extra: dict[str, object],
        bounds: tuple[float, float] = (0.0, 1.0),
    ) -> Result:
        first, second = pairs.patient_first, pairs.patient_second
        value = pair_bootstrap_over_seeds(
            per_seed, pairs.same, first, second, pairs.weight, self.n_boot, context.seed, bounds=bounds
        )
        return context.result(
            name,
            value,
            n_patients=pairs.n_positive_patients,
            n_images=pairs.n_positive_images,
            negatives="matched",
            attacker=self._name,
            extra={"attacker_seeds": list(self.seeds), **extra},
        )


def _name(part: int, times: int = 1) -> str:
    return f"1_of_{part}" if times == 1 else f"{times}_times_the_updates"


def _by_network(attacker: AdaptiveAttacker, judged: Judged, pairs: Pairs) -> Float[np.ndarray, "n"]:
    """What the refitted network says of each pair, without whatever else the attacker compares."""
    return EmbeddingAttacker.score(attacker, judged, pairs, _THREAT)


def n_training_pairs(released: Side, real: Side) -> int:
    """Pairs of a released and a real image of one patient, other than its source."""
    n = max(released.patient.max(initial=-1), real.patient.max(initial=-1)) + 1
    pairs = int(np.bincount(released.patient, minlength=n) @ np.bincount(real.patient, minlength=n))
    return pairs - int(np.isin(released.exposure, real.exposure).sum())
