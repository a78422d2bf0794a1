"""Verification: are a released and a real image (or two released ones) of one person?

The question of Packhäuser et al. (Scientific Reports 12:14851, 2022), asked of releases as in PriCheXy-Net's evaluation
(Packhäuser et al., MICCAI 2023), with more attackers, with threat models kept apart, and with patients alike.

Every attacker scores the pairs of every threat model. Signs and likelihood ratios are chosen on V2, for each kind of
negatives, and the attacker of the headline there with matched ones (protocol v1, "Headline"), each one's two-sided
variant being a candidate of its own. Under T1 the headline is broken down: see :mod:`gmia_monai.attacks.breakdown`.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from gmia_monai.attacks.attackers.adaptive import AdaptiveAttacker
from gmia_monai.attacks.attackers.base import Attacker
from gmia_monai.attacks.base import AttackerKnowledge, Judged, TooLittleDataError
from gmia_monai.attacks.breakdown import Breakdown, ScoredPairs, breakdown, years_breakdown
from gmia_monai.attacks.folds import CrossFitted
from gmia_monai.attacks.likelihood import LikelihoodRatio
from gmia_monai.attacks.pool import AttackerPool
from gmia_monai.attacks.seeds import checked_seeds
from gmia_monai.data.pairs import Pairs
from gmia_monai.data.threats import THREATS, threat_pairs
from gmia_monai.errors import UsageError
from gmia_monai.metrics.differences import Replicates, draws_of
from gmia_monai.metrics.intervals import intervals_over_seeds, pair_bootstrap_found
from gmia_monai.metrics.limits import Interval
from gmia_monai.metrics.pair_figures import CalibrationBins, PairSplit, PlacedPairs
from gmia_monai.metrics.results import Result, RunContext
from gmia_monai.metrics.verification import SortedScores

__all__ = ["VerificationAttack"]

_FIGURE_OF = {"signed": "verification_auc", "two_sided": "verification_auc_two_sided"}
_RATES = {"tar_at_far_1pct": 0.01, "tar_at_far_0_1pct": 0.001}
_CHOSEN_ON = "matched"
_NEGATIVES = (_CHOSEN_ON, "random")
_log = logging.getLogger(__name__)
FLOOR = "metadata"
_BROKEN_DOWN = "T1"
_BY_YEARS = "snn"  # whose AUC against years Packhäuser et al. show


@dataclass(frozen=True)
class _Chosen:
    """What V2 said of one attacker, seed, threat and kind of negatives: the sign, the likelihood ratio, and for the
    signed score and the ratio the AUC and the threshold of 1 % false accepts there. The AUC of the ratio is that of
    ratios that have not seen the patient."""

    sign: float
    ratio: LikelihoodRatio
    auc: float
    auc_two_sided: float
    threshold: float
    threshold_two_sided: float

    def apply(self, variant: str, scores: Float[np.ndarray, "n"]) -> Float[np.ndarray, "n"]:
        """Scores of a variant, higher for one person."""
        return self.ratio(scores) if variant == "two_sided" else self.sign * scores


class VerificationAttack:
    """All attackers under all threat models.

    Args:
        attackers: who scores the pairs.
        seeds: seeds of the attackers.
        threats: threat models.
        n_boot: bootstrap resamples.

    Attributes:
        scores: after :meth:`score`, (attacker, threat, negatives) to the scores of each seed, with their pairs: for
            figures.
    """

    name = "verification"

    def __init__(
        self,
        attackers: AttackerPool,
        seeds: Sequence[int] = (0, 1, 2),
        threats: Sequence[str] = THREATS,
        n_boot: int = 500,
    ) -> None:
        self.attackers = attackers
        self.seeds = checked_seeds(seeds)
        self.threats = tuple(threats)
        self.n_boot = n_boot
        self._fitted: dict[tuple[str, int], Attacker] = {}
        self._chosen: dict[tuple[str, int, str, str], _Chosen] = {}
        self._knowledge: AttackerKnowledge | None = None
        self.scores: dict[tuple[str, str, str], tuple[Pairs, list[np.ndarray]]] = {}
        self._breakdown: Breakdown | None = None

    def fit(self, knowledge: AttackerKnowledge) -> None:
        """Fits every attacker with every seed, and chooses signs and likelihood ratios on V2.

        Raises:
            UsageError: ``GM-U317`` where V2 has too few pairs under any threat model.
        """
        self._knowledge = knowledge
        pairs = _all_pairs(knowledge.choice, self.threats)
        self._fitted.clear()
        for name, of_seeds in self.attackers.of_seeds(self.seeds, knowledge).items():
            for seed, attacker in zip(self.seeds, of_seeds, strict=True):
                self._fitted[name, seed] = attacker
                for (threat, negatives), of_kind in pairs.items():
                    scores = attacker.score(knowledge.choice, of_kind, threat)
                    self._chosen[name, seed, threat, negatives] = _choose(scores, of_kind)

    def score(self, judged: Judged, context: RunContext) -> list[Result]:
        """Result lines of one release; ``verification_auc.<threat>.worst.v1`` among them, and its breakdown under T1.

        Raises:
            UsageError: ``GM-U311`` before :meth:`fit`.
            ManifestError: where the release shares a patient with what was learned from.
        """
        if self._knowledge is None:
            raise UsageError("GM-U311", "the verification attack has not been fitted")
        self._knowledge.refuse_overlap(judged)
        self.scores.clear()
        results = []
        known = {threat for _, _, threat, _ in self._chosen}
        for (threat, negatives), pairs in _all_pairs(judged, [t for t in self.threats if t in known]).items():
            for name in self._names():
                scores = [self._fitted[name, seed].score(judged, pairs, threat) for seed in self.seeds]
                self.scores[name, threat, negatives] = (pairs, scores)
            results += self._lines(threat, negatives, pairs, judged.real.cohort.patients, context)
            _log.info("%s with %s negatives: %d attackers scored", threat, negatives, len(self._names()))
        if self._of_pixels() and any(threat == _BROKEN_DOWN for _, threat, _ in self.scores):
            self._breakdown = self._broken_down(judged, context)
            results += [*self._breakdown.results, *self._by_years(judged, context)]
        return results

    def figure_data(self) -> dict[str, np.ndarray]:
        """What pictures are drawn from: matched negatives, first seed, under ``<kind>/<threat>/<attacker>``.

        ``roc``: false- and true-accept rates ``[2, 201]`` of the signed score; ``histogram``: densities of negatives
        and positives and the edges of their bins, ``[3, 61]`` with a last column of zeros in the first two rows.
        For the worst attacker, over all seeds, ``years`` and ``patient_risk``: see :class:`Breakdown`.
        """
        data = {}
        for (name, threat, negatives), (pairs, scores) in self.scores.items():
            if negatives == _CHOSEN_ON:
                sign = self._chosen[name, self.seeds[0], threat, negatives].sign
                data[f"roc/{threat}/{name}"] = _roc(SortedScores(sign * scores[0], pairs.same), pairs.weight)
                data[f"histogram/{threat}/{name}"] = _histogram(scores[0], pairs)
        if self._breakdown is not None:
            data[f"years/{_BROKEN_DOWN}/worst"] = self._breakdown.years
            data[f"patient_risk/{_BROKEN_DOWN}/worst"] = self._breakdown.patient_risk
        return data

    # -- lines -------------------------------------------------------------------------------------------------------
    def _lines(
        self, threat: str, negatives: str, pairs: Pairs, patients: Sequence[str], context: RunContext
    ) -> list[Result]:
        """Lines of all attackers and of the worst, from the same resamples: those of all patients of the cohort, so
        that releases that leave some out share them with others."""
        figures = ["verification_auc", "verification_auc_two_sided", "equal_error_rate", "calibration_error"]
        reasons = {label: _too_few(pairs, rate) for label, rate in _RATES.items()}
        figures += [label for label, reason in reasons.items() if reason is None]
        left_out = {f"no_{label}": reason for label, reason in reasons.items() if reason is not None}
        split, statistics = PairSplit(pairs.same), []
        for name in self._names():
            of_seeds = zip(
                self._of_seeds(name, threat, negatives), self.scores[name, threat, negatives][1], strict=True
            )
            statistics += _of_distinct([_Figures(how, scores, split, figures) for how, scores in of_seeds])
        at = (pairs.same, pairs.patient_first, pairs.patient_second, pairs.weight, self.n_boot, context.seed)
        found = pair_bootstrap_found(statistics, *at, n_cohort=len(patients))
        by_attacker = dict(zip(self._names(), np.split(found, len(self._names()), axis=1), strict=True))
        lines: list[Result] = []
        for name, of_attacker in by_attacker.items():
            intervals = intervals_over_seeds(of_attacker, pairs.n_positive_patients)
            of_figures = dict(zip(figures, intervals, strict=True))
            lines += self._attacker_lines(name, threat, negatives, pairs, of_figures, left_out, context)
        if not self._of_pixels():
            return lines
        name, variant, _ = self._worst(threat)
        worst = self._worst_line(threat, negatives, pairs, lines, context)
        if negatives == _CHOSEN_ON and context.keep is not None:
            drawn = by_attacker[name][..., figures.index(_FIGURE_OF[variant])]
            draws = draws_of(patients, context.seed)
            context.keep(worst, Replicates(drawn, pairs.n_positive_patients, draws, self.seeds))
        return [*lines, worst]

    def _attacker_lines(
        self,
        name: str,
        threat: str,
        negatives: str,
        pairs: Pairs,
        intervals: Mapping[str, Interval],
        left_out: Mapping[str, object],
        context: RunContext,
    ) -> list[Result]:
        chosen = self._of_seeds(name, threat, negatives)
        extras: dict[str, dict[str, object]] = {
            "verification_auc": {
                "signs": [c.sign for c in chosen],
                "auc_on_choice": [round(c.auc, 6) for c in chosen],
                **self._refits(name),
            },
            "verification_auc_two_sided": {"auc_on_choice": [round(c.auc_two_sided, 6) for c in chosen]},
            "equal_error_rate": dict(left_out),
        }
        return [
            self._line(f"{figure}.{threat}.{name}.v1", interval, negatives, name, pairs, context, extras.get(figure))
            for figure, interval in intervals.items()
        ]

    def _refits(self, name: str) -> dict[str, object]:
        """What is to be known of a refitted attacker: its updates, and of which seeds none of them helped."""
        refits = [a for s in self.seeds if isinstance(a := self._fitted[name, s], AdaptiveAttacker)]
        if not refits:
            return {}
        return {"updates": refits[0].recipe.steps, "kept_start": [attacker.kept_start for attacker in refits]}

    def _worst(self, threat: str) -> tuple[str, str, float]:
        """The attacker of pixels and variant with the highest AUC on V2, averaged over seeds, and that AUC."""
        candidates = {}
        # Metadata are the floor beside the headline: what they find, no change of pixels hides.
        for name in self._of_pixels():
            chosen = self._of_seeds(name, threat, _CHOSEN_ON)
            candidates[name, "signed"] = float(np.mean([c.auc for c in chosen]))
            candidates[name, "two_sided"] = float(np.mean([c.auc_two_sided for c in chosen]))
        (name, variant), best = max(candidates.items(), key=lambda item: item[1])
        return name, variant, best

    def _of_pixels(self) -> list[str]:
        return [name for name in self._names() if name != FLOOR]

    def _names(self) -> list[str]:
        return list(dict.fromkeys(name for name, _ in self._fitted))

    def _of_seeds(self, name: str, threat: str, negatives: str) -> list[_Chosen]:
        return [self._chosen[name, seed, threat, negatives] for seed in self.seeds]

    def _worst_line(
        self, threat: str, negatives: str, pairs: Pairs, lines: Sequence[Result], context: RunContext
    ) -> Result:
        """The AUC on the release of what was worst on V2."""
        name, variant, best = self._worst(threat)
        extra = {"attacker": name, "variant": variant, "auc_on_choice": round(best, 6)}
        [line] = [r for r in lines if r.name == f"{_FIGURE_OF[variant]}.{threat}.{name}.v1"]
        value = Interval(*(float("nan") if v is None else v for v in (line.value, line.low, line.high)))
        return self._line(f"verification_auc.{threat}.worst.v1", value, negatives, "worst", pairs, context, extra)

    def _broken_down(self, judged: Judged, context: RunContext) -> Breakdown:
        name, variant, _ = self._worst(_BROKEN_DOWN)
        chosen = self._of_seeds(name, _BROKEN_DOWN, _CHOSEN_ON)
        pairs, scores = self.scores[name, _BROKEN_DOWN, _CHOSEN_ON]
        return breakdown(
            judged.real.cohort,
            _BROKEN_DOWN,
            ScoredPairs(pairs, [c.apply(variant, s) for c, s in zip(chosen, scores, strict=True)]),
            [c.threshold_two_sided if variant == "two_sided" else c.threshold for c in chosen],
            self.n_boot,
            context,
            {"attacker": name, "variant": variant, "attacker_seeds": list(self.seeds)},
        )

    def _by_years(self, judged: Judged, context: RunContext) -> list[Result]:
        """The Siamese verifier's own AUC by years."""
        key = (_BY_YEARS, _BROKEN_DOWN, _CHOSEN_ON)
        if key not in self.scores:
            return []
        pairs, scores = self.scores[key]
        signs = [chosen.sign for chosen in self._of_seeds(*key)]
        scored = ScoredPairs(pairs, [sign * of_seed for sign, of_seed in zip(signs, scores, strict=True)])
        extra = {"signs": signs, "attacker_seeds": list(self.seeds)}
        return years_breakdown(judged.real.cohort, _BROKEN_DOWN, _BY_YEARS, scored, self.n_boot, context, extra)

    def _line(
        self,
        figure: str,
        interval: Interval,
        negatives: str,
        attacker: str,
        pairs: Pairs,
        context: RunContext,
        extra: dict[str, object] | None,
    ) -> Result:
        return context.result(
            figure,
            interval,
            n_patients=pairs.n_positive_patients,
            n_images=pairs.n_positive_images,
            negatives=negatives,
            attacker=attacker,
            extra={
                "attacker_seeds": list(self.seeds),
                **pairs.facts(),
                **(extra or {}),
            },
        )


class _Figures:
    """From weights to the figures of one attacker and seed."""

    def __init__(
        self, chosen: _Chosen, scores: Float[np.ndarray, "n"], split: PairSplit, figures: Sequence[str]
    ) -> None:
        self.chosen, self.scores, self.split, self.figures = chosen, scores, split, figures
        self._signed, self._two_sided = (PlacedPairs(chosen.apply(v, scores), split) for v in _FIGURE_OF)
        self._bins = CalibrationBins(chosen.ratio.probability(scores), split)

    def __call__(self, weights: Float[np.ndarray, "n"]) -> list[float]:
        draw = self.split(weights)
        curve = self._signed.curve(draw)
        values = {
            "verification_auc": curve.auc,
            "verification_auc_two_sided": lambda: self._two_sided.curve(draw).auc(),
            "equal_error_rate": curve.eer,
            "calibration_error": lambda: self._bins.error(draw),
        } | {label: lambda rate=rate: curve.tar_at_far(rate) for label, rate in _RATES.items()}
        return [values[figure]() for figure in self.figures]


def _of_distinct(figures: Sequence[_Figures]) -> list[_Figures]:
    """An attacker that says the same with another seed is one attacker: the figures of both are the first's."""
    found: list[_Figures] = []
    for one in figures:
        known = [other for other in found if np.array_equal(other.scores, one.scores)]
        found.append(known[0] if known else one)
    return found


def _too_few(pairs: Pairs, rate: float) -> str | None:
    """Why a rate cannot be measured, whoever scores the pairs."""
    return SortedScores(np.zeros(len(pairs)), pairs.same).tar_at_far(rate, pairs.weight).reason


def _all_pairs(judged: Judged, threats: Sequence[str]) -> dict[tuple[str, str], Pairs]:
    """Pairs of each threat model and kind of negatives; threat models that have too few are left out.

    Raises:
        TooLittleDataError: ``GM-U317`` where nothing is left.
    """
    found: dict[tuple[str, str], Pairs] = {}
    for threat in threats:
        of_threat = {
            (threat, negatives): threat_pairs(judged.real.cohort, threat, negatives, judged.released)
            for negatives in _NEGATIVES
        }
        kinds = [p.counted & kind for p in of_threat.values() for kind in (p.same, ~p.same)]
        if min(kind.sum() for kind in kinds) < 2:
            _log.warning("threat model %s is left out: too few pairs of one person, or of strangers who match", threat)
        else:
            found |= of_threat
    if not found:
        raise TooLittleDataError(
            "GM-U317",
            f"no pairs for threat models {', '.join(threats)}",
            expected="images of one person, and of strangers of one folder",
            next_step="use a cohort with several images of a patient",
        )
    return found


def _choose(scores: np.ndarray, pairs: Pairs) -> _Chosen:
    auc = SortedScores(scores, pairs.same).auc(pairs.weight)
    sign = 1.0 if auc >= 0.5 else -1.0

    def ratio_of(learnt: Bool[np.ndarray, "n"]) -> LikelihoodRatio:
        patients = len(np.unique(pairs.patient_first[learnt & pairs.same]))
        return LikelihoodRatio(scores[learnt], pairs.same[learnt], pairs.weight[learnt], patients)

    ratio = CrossFitted(ratio_of, pairs.same, pairs.patient_first, pairs.patient_second)
    signed, two_sided = (SortedScores(s, pairs.same) for s in (sign * scores, ratio.all(scores)))
    return _Chosen(
        sign,
        ratio.all,
        max(auc, 1.0 - auc),
        SortedScores(ratio.left_out(scores, pairs.patient_first), pairs.same).auc(pairs.weight),
        signed.tar_at_far(0.01, pairs.weight).threshold,
        two_sided.tar_at_far(0.01, pairs.weight).threshold,
    )


def _roc(scores: SortedScores, weights: np.ndarray) -> np.ndarray:
    tar, far = scores.accept_rates(weights)
    grid = np.linspace(0.0, 1.0, 201)
    return np.stack([grid, np.interp(grid, np.append(far[::-1], 1.0), np.append(tar[::-1], 1.0))])


def _histogram(scores: np.ndarray, pairs: Pairs) -> np.ndarray:
    edges = np.linspace(scores.min(), scores.max() + 1e-9, 61)
    rows = [np.histogram(scores[k], edges, weights=pairs.weight[k], density=True)[0] for k in (~pairs.same, pairs.same)]
    return np.stack([*(np.append(row, 0.0) for row in rows), edges])
