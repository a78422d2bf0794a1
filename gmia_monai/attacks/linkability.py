"""Linkability as GMIA frames it (Li et al., ISBI 2025, table 3): a verdict on each pair, by one threshold.

``inner``: two released images of one person (threat model T3). ``outer``: a released image and its source (T2). Here
negatives stand beside the positives with the same weight, and threshold and sign are those of the highest F1 on V2
releases: one sign for all seeds of an attacker, a threshold for each. Beside it stands the published protocol under the
name ``paper``: the threshold of real pairs, the optimiser's own encoder, and for ``outer`` no negatives at all, so that
accuracy and TAR are one number, F1 a function of it, and what is printed as "FAR" is the share of rejected positives:
the false-reject rate.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from gmia_monai.attacks.attackers.base import Attacker, EmbeddingAttacker
from gmia_monai.attacks.base import AttackerKnowledge, Judged, TooLittleDataError
from gmia_monai.attacks.pool import AttackerPool
from gmia_monai.attacks.seeds import Statistics, checked_seeds, shared_statistics
from gmia_monai.data.pairs import Pairs
from gmia_monai.data.release import Release
from gmia_monai.data.threats import threat_pairs
from gmia_monai.errors import UsageError
from gmia_monai.metrics.intervals import pair_bootstrap_figures
from gmia_monai.metrics.results import Result, RunContext
from gmia_monai.metrics.verification import best_threshold_f1

__all__ = ["LinkabilityAttack", "verdict_figures"]

_SIDES = {"inner": "T3", "outer": "T2"}
_FIGURES = ("f1", "accuracy", "tar", "far", "frr")
_PAIRS_SEED = 0
_log = logging.getLogger(__name__)


def verdict_figures(
    accepted: Bool[np.ndarray, "n"], same: Bool[np.ndarray, "n"], weights: Float[np.ndarray, "n"]
) -> dict[str, float]:
    """F1, accuracy, true- and false-accept rate and false-reject rate of verdicts; ``nan`` for an empty class."""
    positive, negative = weights[same].sum(), weights[~same].sum()
    hit, false = weights[same & accepted].sum(), weights[~same & accepted].sum()
    with np.errstate(invalid="ignore", divide="ignore"):
        tar, far = np.float64(hit) / positive, np.float64(false) / negative
        f1 = 2 * np.float64(hit) / (hit + false + positive)
        accuracy = np.float64(hit + negative - false) / (positive + negative)
    return {"f1": float(f1), "accuracy": float(accuracy), "tar": float(tar), "far": float(far), "frr": float(1 - tar)}


@dataclass(frozen=True)
class _Chosen:
    """What V2 said of one attacker and side: the sign of the highest F1 as a mean over seeds, and for each seed the
    threshold of the signed score."""

    sign: float
    thresholds: tuple[float, ...]


class LinkabilityAttack:
    """Verdicts by each attacker, and by the published protocol.

    Args:
        attackers: who gives the verdicts; with ``frozen`` among them the published protocol is scored, too.
        seeds: seeds of the attackers; figures are means over them.
        n_boot: bootstrap resamples.

    Raises:
        UsageError: ``GM-U316`` without a seed.
    """

    name = "linkability"

    def __init__(self, attackers: AttackerPool, seeds: Sequence[int] = (0, 1, 2), n_boot: int = 500) -> None:
        self.attackers = attackers
        self.seeds = checked_seeds(seeds)
        self.n_boot = n_boot
        self._fitted: dict[str, list[Attacker]] = {}
        self._chosen: dict[tuple[str, str], _Chosen] = {}
        self._sides: tuple[str, ...] = ()
        self._paper_threshold = float("nan")
        self._knowledge: AttackerKnowledge | None = None

    def fit(self, knowledge: AttackerKnowledge) -> None:
        """Fits the attackers and chooses their signs and thresholds on V2, for each side that has pairs there.

        Raises:
            TooLittleDataError: ``GM-U317`` where neither side has.
        """
        self._knowledge = knowledge
        of_side = _each_side(knowledge.choice, _SIDES)
        self._fitted = self.attackers.of_seeds(self.seeds, knowledge)
        self._chosen.clear()
        for side, pairs in of_side.items():
            threat = _SIDES[side]
            for name, fitted in self._fitted.items():
                scores = [attacker.score(knowledge.choice, pairs, threat) for attacker in fitted]
                best = {s: [best_threshold_f1(s * x, pairs.same, pairs.weight) for x in scores] for s in (1.0, -1.0)}
                f1 = {s: np.mean([b.f1 for b in per_seed]) for s, per_seed in best.items()}
                sign = -1.0 if f1[-1.0] > f1[1.0] else 1.0
                self._chosen[name, side] = _Chosen(sign, tuple(b.threshold for b in best[sign]))
        self._sides = tuple(of_side)
        frozen = self._fitted.get("frozen", [None])[0]
        self._paper_threshold = float("nan")
        if isinstance(frozen, EmbeddingAttacker) and "inner" in of_side:
            real = knowledge.choice.real
            unchanged = Judged(real, Release("unchanged", real.pixels, tuple((i,) for i in range(len(real)))))
            pairs = _pairs(unchanged, "T3", published=True)
            self._paper_threshold = best_threshold_f1(frozen.score(unchanged, pairs, "T3"), pairs.same).threshold

    def score(self, judged: Judged, context: RunContext) -> list[Result]:
        """``linkability_<figure>.<side>.<attacker>.v1`` and ``paper_linkability_<figure>.<side>.frozen.v1``, of the
        sides that have pairs here and on V2; the paper's need the inner one there, whose threshold they take.

        Raises:
            UsageError: ``GM-U311`` before :meth:`fit`.
            TooLittleDataError: ``GM-U317`` where neither side has pairs.
            ManifestError: where the release shares a patient with what was learned from.
        """
        if self._knowledge is None:
            raise UsageError("GM-U311", "the linkability attack has not been fitted")
        self._knowledge.refuse_overlap(judged)
        results = []
        for side, pairs in _each_side(judged, self._sides).items():
            threat = _SIDES[side]
            for name, fitted in self._fitted.items():
                chosen = self._chosen[name, side]
                accepted = [
                    chosen.sign * attacker.score(judged, pairs, threat) >= threshold
                    for attacker, threshold in zip(fitted, chosen.thresholds, strict=True)
                ]
                extra = {"thresholds": [round(t, 6) for t in chosen.thresholds], "sign": chosen.sign}
                results += self._ours(accepted, pairs, side, name, context, extra)
            if not math.isnan(self._paper_threshold):
                pairs = _pairs(judged, threat, published=True)
                accepted = self._fitted["frozen"][0].score(judged, pairs, threat) >= self._paper_threshold
                results += self._paper(accepted, pairs, side, context)
        return results

    def _ours(
        self,
        accepted: Sequence[Bool[np.ndarray, "n"]],
        pairs: Pairs,
        side: str,
        attacker: str,
        context: RunContext,
        extra: dict[str, object],
    ) -> list[Result]:
        def statistics(of_seed: Bool[np.ndarray, "n"]) -> Statistics:
            return lambda w: list(verdict_figures(of_seed, pairs.same, w).values())

        intervals = pair_bootstrap_figures(
            shared_statistics(accepted, statistics),
            pairs.same,
            pairs.patient_first,
            pairs.patient_second,
            pairs.weight,
            self.n_boot,
            context.seed,
        )
        results = []
        for figure, interval in zip(_FIGURES, intervals, strict=True):
            name = f"linkability_{figure}.{side}.{attacker}.v1"
            more = {"n_seeds": len(self.seeds), **extra}
            results.append(self._line(name, interval, pairs, attacker, "balanced", context, more))
        return results

    def _paper(self, accepted: np.ndarray, pairs: Pairs, side: str, context: RunContext) -> list[Result]:
        """Images count alike, and there is no interval, as published."""
        kept = pairs.same if side == "outer" else np.ones(len(pairs), dtype=bool)
        figures = verdict_figures(accepted[kept], pairs.same[kept], np.ones(int(kept.sum())))
        printed = {name: figures[name] for name in ("f1", "accuracy", "tar")} | {"frr": figures["frr"]}
        extra: dict[str, object] = {"protocol": "paper", "threshold": round(self._paper_threshold, 6)}
        if side == "outer":
            extra["negatives"] = "none: every pair is of one person"
        return [
            self._line(
                f"paper_linkability_{name}.{side}.frozen.v1",
                value,
                pairs,
                "frozen",
                "balanced" if side == "inner" else None,
                context,
                extra | ({"published_as": "FAR"} if name == "frr" else {}),
            )
            for name, value in printed.items()
        ]

    @staticmethod
    def _line(
        name: str,
        value: object,
        pairs: Pairs,
        attacker: str,
        negatives: str | None,
        context: RunContext,
        extra: dict[str, object],
    ) -> Result:
        return context.result(
            name,
            value,
            n_patients=pairs.n_positive_patients,
            n_images=pairs.n_positive_images,
            negatives=negatives,
            attacker=attacker,
            extra=pairs.facts() | extra,
        )


def _each_side(judged: Judged, sides: Iterable[str]) -> dict[str, Pairs]:
    """Pairs of those sides that have any: patients with one image each have none inside."""
    found: dict[str, Pairs] = {}
    lacking: TooLittleDataError | None = None
    for side in sides:
        try:
            found[side] = _pairs(judged, _SIDES[side])
        except TooLittleDataError as error:
            lacking = error
            _log.warning("linkability, %s, is left out: %s", side, error.what)
    if lacking is not None and not found:
        raise lacking
    return found


def _pairs(judged: Judged, threat: str, published: bool = False) -> Pairs:
    """Weighed pairs; the published protocol counts them instead, one negative for each positive."""
    each = 1 if published else 50
    pairs = threat_pairs(judged.real.cohort, threat, "random", judged.released, each, _PAIRS_SEED, not published)
    if pairs.n_positives == 0 or pairs.n_negatives == 0:
        raise TooLittleDataError("GM-U317", f"no pairs for threat model {threat}", got=repr(pairs))
    return pairs
