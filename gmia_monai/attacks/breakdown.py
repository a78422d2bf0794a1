"""What a mean hides: one attacker's verification AUC by years between the images and by subgroup, and the patients whom
it finds best.

The AUC is a mean over patients; a release is no safer than it is for the patient who is found most easily. The risk of
a patient is the chance that one of their pairs outscores a pair of two people: its mean over patients is the AUC,
where the balance of the pairs leaves patients their equal weight.
Noise has a tail, too, since few pairs make a coarse figure: beside each figure stands the one of patients whose pairs
are swapped for pairs of two people with the same released images.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Float, Int

from gmia_monai.attacks.attribute import ATTRIBUTES, attribute_classes
from gmia_monai.data.balance import balanced_weights
from gmia_monai.data.cohort import Cohort
from gmia_monai.data.pairs import N_GAPS, Pairs, age_gaps
from gmia_monai.metrics.intervals import pair_bootstrap_over_seeds, patient_bootstrap
from gmia_monai.metrics.limits import Interval, wilson_interval
from gmia_monai.metrics.results import Result, RunContext
from gmia_monai.metrics.verification import SortedScores

__all__ = ["Breakdown", "PatientRisk", "ScoredPairs", "breakdown", "patient_risk", "years_breakdown"]

YEARS = (1.0, 2.0, 5.0, 10.0)
_YEAR_NAMES = ("under_1", "1_to_2", "2_to_5", "5_to_10", "10_or_more")
_AGE_NAMES = ("under_40", "40_to_59", "60_or_more")
_VIEWS = {"AP_AP": (0, 0), "AP_PA": (0, 1), "PA_PA": (1, 1)}
_QUANTILES = {"median": 0.5, "p90": 0.9, "p95": 0.95}
_LEVELS = {"above_0_9": 0.9, "above_0_99": 0.99}
_CHANCE_DRAWS = 200


@dataclass(frozen=True, eq=False)
class ScoredPairs:
    """Pairs with what each seed of one attacker says of them, higher for one person.

    Attributes:
        pairs: of threat model T1 or T3.
        per_seed: scores of each seed.
    """

    pairs: Pairs
    per_seed: Sequence[Float[np.ndarray, "n"]]


@dataclass(frozen=True)
class Breakdown:
    """Result lines, and what pictures are drawn from.

    Attributes:
        results: the lines.
        years: mean years between, AUC and its limits, one column a bin that has positives.
        patient_risk: sorted risks of patients, and below them those of chance.
    """

    results: list[Result]
    years: Float[np.ndarray, "4 bins"]
    patient_risk: Float[np.ndarray, "2 patients"]


@dataclass(frozen=True, eq=False)
class PatientRisk:
    """The risk of each patient with a positive pair.

    Attributes:
        risk: chance that a pair of the patient outscores one of two people, mean over pairs and seeds.
        found: whether a pair of the patient passes the thresholds of most seeds.
        chance_risk: the same for pairs of two people, draw by draw.
        chance_found: likewise.
    """

    risk: Float[np.ndarray, "p"]
    found: Bool[np.ndarray, "p"]
    chance_risk: Float[np.ndarray, "draws p"] = field(repr=False)
    chance_found: Bool[np.ndarray, "draws p"] = field(repr=False)


def patient_risk(scored: ScoredPairs, thresholds: Sequence[float], seed: int = 0) -> PatientRisk:
    """How well an attacker finds each patient, and what it would look like by chance.

    Args:
        scored: pairs and scores.
        thresholds: of each seed; a score at or above it is a find.
        seed: of the draws of chance: for each positive a negative with the same released image, or any where that image
            has none.
    """
    pairs = scored.pairs
    positive, negative = np.flatnonzero(pairs.same), np.flatnonzero(~pairs.same)
    place = np.mean([_place(s, s[negative], pairs.weight[negative]) for s in scored.per_seed], axis=0)
    passed = np.mean([s >= t for s, t in zip(scored.per_seed, thresholds, strict=True)], axis=0) > 0.5
    _, member = np.unique(pairs.patient_first[positive], return_inverse=True)

    def by_patient(rows: Int[np.ndarray, "m"]) -> tuple[np.ndarray, np.ndarray]:
        count = np.bincount(member)
        return np.bincount(member, place[rows]) / count, np.bincount(member, passed[rows]) > 0

    by_image = negative[np.argsort(pairs.first[negative], kind="stable")]
    low = np.searchsorted(pairs.first[by_image], pairs.first[positive], side="left")
    high = np.searchsorted(pairs.first[by_image], pairs.first[positive], side="right")
    summed = np.concatenate([[0.0], np.cumsum(pairs.weight[by_image])])
    some = summed[high] > summed[low]
    low, high = np.where(some, summed[low], 0.0), np.where(some, summed[high], summed[-1])
    rng = np.random.default_rng(seed)
    draws = [
        by_patient(by_image[np.searchsorted(summed[1:-1], rng.uniform(low, high), side="right")])
        for _ in range(_CHANCE_DRAWS)
    ]
    risk, found = by_patient(positive)
    return PatientRisk(risk, found, np.stack([d[0] for d in draws]), np.stack([d[1] for d in draws]))


def _place(scores: np.ndarray, negatives: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Share of the negatives' weight below each score, ties one half."""
    order = np.argsort(negatives, kind="stable")
    ranked, below = negatives[order], np.concatenate([[0.0], np.cumsum(weight[order])])
    left, right = (below[np.searchsorted(ranked, scores, side)] for side in ("left", "right"))
    return (left + right) / (2 * below[-1])


def breakdown(
    cohort: Cohort,
    threat: str,
    scored: ScoredPairs,
    thresholds: Sequence[float],
    n_boot: int,
    context: RunContext,
    extra: Mapping[str, object],
) -> Breakdown:
    """Result lines of one attacker, named ``<figure>.<threat>.worst.<part>.v1``.

    ``verification_auc_years``: images so many years apart (by the age of the patients), of one person or of two.
    ``verification_auc_subgroup``: both images in the subgroup. Pairs of a part are balanced anew. ``patient_risk``:
    quantiles over patients, shares of patients above a risk, and the share with a pair above the threshold of 1 % false
    accepts on V2.

    Args:
        cohort: the real images behind the pairs.
        threat: threat model, for the names.
        scored: pairs with matched negatives.
        thresholds: of each seed, at a false-accept rate of 1 % on V2; ``nan`` where there are too few pairs for one.
        n_boot: bootstrap resamples.
        context: of the lines.
        extra: further values of each line.
    """
    lines = _Lines(cohort, threat, n_boot, context, extra)
    years = _years(lines, scored)
    _subgroups(lines, scored)
    risk = patient_risk(scored, thresholds, context.seed)
    _risk_lines(lines, scored.pairs, risk, thresholds)
    curve = np.stack([np.sort(risk.risk), np.sort(risk.chance_risk, axis=1).mean(axis=0)])
    return Breakdown(lines.results, years, curve)


def years_breakdown(
    cohort: Cohort,
    threat: str,
    attacker: str,
    scored: ScoredPairs,
    n_boot: int,
    context: RunContext,
    extra: Mapping[str, object],
) -> list[Result]:
    """Lines ``verification_auc_years.<threat>.<attacker>.<part>.v1`` of an attacker of this name; arguments as those of
    :func:`breakdown`, whose lines are of the worst one."""
    lines = _Lines(cohort, threat, n_boot, context, extra, attacker)
    _years(lines, scored)
    return lines.results


class _Lines:
    """Makes the lines of one breakdown."""

    def __init__(
        self,
        cohort: Cohort,
        threat: str,
        n_boot: int,
        context: RunContext,
        extra: Mapping[str, object],
        attacker: str = "worst",
    ) -> None:
        self.cohort, self.threat, self.n_boot, self.context, self.extra = cohort, threat, n_boot, context, extra
        self.attacker = attacker
        self.results: list[Result] = []

    def auc(self, figure: str, part: str, scored: ScoredPairs, kept: Bool[np.ndarray, "n"]) -> Interval:
        """A line for some of the pairs: patients alike among the positives, as far as negatives can be found."""
        pairs = scored.pairs
        kept = kept & pairs.counted
        kept[kept] = (weight := _balanced(self.cohort, pairs, kept, self.threat != "T3")) > 0
        weight = weight[weight > 0]
        same, first, second = pairs.same[kept], pairs.patient_first[kept], pairs.patient_second[kept]
        tables = [SortedScores(scores[kept], same).auc for scores in scored.per_seed]
        interval = Interval(*(float("nan"),) * 3)
        if same.any() and not same.all():
            interval = pair_bootstrap_over_seeds(tables, same, first, second, weight, self.n_boot, self.context.seed)
        images = np.concatenate([pairs.first[kept][same], pairs.second[kept][same]])
        counts = {"n_positive_pairs": int(same.sum()), "n_negative_pairs": int((~same).sum())}
        self.add(figure, part, interval, len(np.unique(first[same])), len(np.unique(images)), counts)
        return interval

    def add(
        self, figure: str, part: str, value: Interval, n_patients: int, n_images: int, extra: Mapping[str, object]
    ) -> None:
        """A line."""
        self.results.append(
            self.context.result(
                f"{figure}.{self.threat}.{self.attacker}.{part}.v1",
                value,
                n_patients=n_patients,
                n_images=n_images,
                negatives="matched",
                attacker=self.attacker,
                extra={**self.extra, **extra},
            )
        )


def _years(lines: _Lines, scored: ScoredPairs) -> Float[np.ndarray, "4 bins"]:
    pairs, ages = scored.pairs, lines.cohort.ages
    gap = np.abs(ages[pairs.first] - ages[pairs.second])
    place = np.where(np.isnan(gap), -1, np.digitize(np.nan_to_num(gap), YEARS))
    columns = []
    for k, name in enumerate(_YEAR_NAMES):
        inside = pairs.same & (place == k)
        interval = lines.auc("verification_auc_years", name, scored, place == k)
        if inside.any():
            columns.append((gap[inside].mean(), *interval))
    return np.array(columns).reshape(-1, 4).T


def _subgroups(lines: _Lines, scored: ScoredPairs) -> None:
    classes = attribute_classes(lines.cohort)
    names = {"sex": [f"sex_{value}" for value in ATTRIBUTES["sex"]], "age": [f"age_{name}" for name in _AGE_NAMES]}
    first, second = scored.pairs.first, scored.pairs.second
    for attribute, parts in names.items():
        of_image = classes[attribute]
        for k, part in enumerate(parts):
            kept = (of_image[first] == k) & (of_image[second] == k)
            lines.auc("verification_auc_subgroup", part, scored, kept)
    of_views = np.sort(np.stack([classes["view"][first], classes["view"][second]]), axis=0)
    for name, views in _VIEWS.items():
        kept = (of_views == np.array(views)[:, None]).all(axis=0)
        lines.auc("verification_auc_subgroup", f"view_{name}", scored, kept)


def _balanced(cohort: Cohort, pairs: Pairs, kept: Bool[np.ndarray, "n"], ordered: bool) -> Float[np.ndarray, "m"]:
    """Weights of some matched pairs, balanced among themselves."""
    same, first, second, patient = (a[kept] for a in (pairs.same, pairs.first, pairs.second, pairs.patient_first))
    weight = np.zeros(len(same))
    if same.any() and not same.all():
        alike = 1.0 / np.bincount(patient[same], minlength=1)[patient[same]]
        sides = [(first[kind], second[kind]) for kind in (same, ~same)]
        weight[same], weight[~same], _ = balanced_weights(
            sides[0],
            alike / alike.sum(),
            sides[1],
            pairs.weight[kept][~same],
            max(len(cohort), N_GAPS),
            ordered,
            (age_gaps(cohort, *sides[0]), age_gaps(cohort, *sides[1])),
        )
    return weight


def _risk_lines(lines: _Lines, pairs: Pairs, found: PatientRisk, thresholds: Sequence[float]) -> None:
    n, seed = len(found.risk), lines.context.seed
    images = len(np.unique(np.concatenate([pairs.first[pairs.same], pairs.second[pairs.same]])))

    def add(part: str, value: Interval, chance: float) -> None:
        lines.add("patient_risk", part, value, n, images, {"chance": round(float(chance), 6)})

    def quantile(w: np.ndarray, q: float) -> float:
        return float(np.quantile(np.repeat(found.risk, w.astype(int)), q))

    for part, q in _QUANTILES.items():
        value = patient_bootstrap(lambda w, q=q: quantile(w, q), np.arange(n), lines.n_boot, seed)
        add(part, value, np.quantile(found.chance_risk, q, axis=1).mean())
    # Resamples never exceed the largest value seen: an interval of the maximum would be wrong.
    largest = Interval(float(found.risk.max()), float("nan"), float("nan"))
    add("max", largest, found.chance_risk.max(axis=1).mean())
    for part, level in _LEVELS.items():
        above = int((found.risk > level).sum())
        add(part, wilson_interval(above, n), (found.chance_risk > level).mean())
    if np.isnan(thresholds).any():
        reason = {"reason": "too few negatives on V2 for a threshold"}
        lines.add("patient_risk", "found_at_far_1pct", wilson_interval(0, 0), n, images, reason)
    else:
        add("found_at_far_1pct", wilson_interval(int(found.found.sum()), n), found.chance_found.mean())
