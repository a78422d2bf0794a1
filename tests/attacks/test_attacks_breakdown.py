"""AUC by years and subgroup against plain selections of pairs; the risk of patients against loops; tails of chance."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest
from attack_cohorts import judged, knowledge

from gmia_monai.attacks.attackers.frozen import FrozenAttacker
from gmia_monai.attacks.breakdown import ScoredPairs, breakdown, patient_risk
from gmia_monai.attacks.pool import AttackerPool
from gmia_monai.attacks.verification import VerificationAttack
from gmia_monai.data.balance import balanced_weights
from gmia_monai.data.cohort import Cohort, ImageRecord
from gmia_monai.data.pairs import Pairs, age_gaps
from gmia_monai.data.threats import threat_pairs
from gmia_monai.metrics.results import RunContext
from gmia_monai.metrics.verification import roc_auc

CONTEXT = RunContext("x", "cxr64")


def _cohort(n_patients: int = 60) -> Cohort:
    """Patients with two to four images in the course of twenty years, in both views."""
    rng = np.random.default_rng(5)
    records = []
    for p in range(n_patients):
        sex, age = "FM"[int(rng.integers(2))], rng.integers(25, 70)
        for i in range(int(rng.integers(2, 5))):
            view = ("AP", "PA")[int(rng.integers(2))]
            years = float(rng.choice([0, 0.5, 1, 3, 7, 15]))
            records.append(ImageRecord(Path(f"{p}_{i}"), str(p), view=view, sex=sex, age=age + years, folder="f"))
    return Cohort(tuple(records))


def _scored(cohort: Cohort, gain: float, seeds: int = 1) -> dict[str, ScoredPairs]:
    """Scores that patients find more or less easily, in the order of their numbers."""
    rng = np.random.default_rng(6)
    found = {}
    for negatives in ("matched", "random"):
        pairs = threat_pairs(cohort, "T1", negatives)
        ease = gain * pairs.patient_first / len(cohort.patients)
        scores = [rng.standard_normal(len(pairs)) + ease * pairs.same for _ in range(seeds)]
        found[negatives] = ScoredPairs(pairs, scores)
    return found


@cache
def _lines(gain: float, n_boot: int = 40, seeds: int = 1):
    cohort = _cohort()
    scored = _scored(cohort, gain, seeds)
    made = breakdown(cohort, "T1", scored["matched"], [2.0] * seeds, n_boot, CONTEXT, {})
    return cohort, scored, made, {r.name.removesuffix(".v1"): r for r in made.results}


def _weight(cohort: Cohort, pairs: Pairs, rows: np.ndarray) -> np.ndarray:
    """Weights of some of the pairs: patients alike among the positives, all balanced."""
    positive, negative = rows[pairs.same[rows]], rows[~pairs.same[rows]]
    patient = pairs.patient_first[positive]
    alike = np.array([1 / (patient == p).sum() for p in patient])
    n = int(max(pairs.first.max(), pairs.second.max())) + 1
    sides = [(pairs.first[kind], pairs.second[kind]) for kind in (positive, negative)]
    kinds = tuple(age_gaps(cohort, *side) for side in sides)
    of_kinds = balanced_weights(sides[0], alike / alike.sum(), sides[1], pairs.weight[negative], n, True, kinds)
    weight = np.zeros(len(pairs))
    weight[positive], weight[negative] = of_kinds[:2]
    return weight[rows]


def test_bins_of_years_are_plain_selections():
    cohort, scored, made, lines = _lines(4.0)
    pairs, (scores,) = scored["matched"].pairs, scored["matched"].per_seed
    edges = {"under_1": (0, 1), "1_to_2": (1, 2), "2_to_5": (2, 5), "5_to_10": (5, 10), "10_or_more": (10, 99)}
    gap = np.abs(cohort.ages[pairs.first] - cohort.ages[pairs.second])
    for k, (name, (low, high)) in enumerate(edges.items()):
        inside = (gap >= low) & (gap < high)
        rows = np.flatnonzero(inside & pairs.counted)
        weight = _weight(cohort, pairs, rows)
        counted = rows[pairs.same[rows] & (weight > 0)]
        line = lines[f"verification_auc_years.T1.worst.{name}"]
        assert line.value == pytest.approx(roc_auc(scores[rows], pairs.same[rows], weight), abs=1e-6)
        assert line.n_patients == len(np.unique(pairs.patient_first[counted]))
        assert line.extra["n_positive_pairs"] == len(counted)
        years = gap[inside & pairs.same].mean()
        assert made.years[:, k] == pytest.approx([years, line.value, line.low, line.high], abs=1e-6)


def test_subgroups_hold_both_images():
    cohort, scored, _, lines = _lines(4.0)
    pairs, (scores,) = scored["matched"].pairs, scored["matched"].per_seed
    old = cohort.ages >= 60
    kept = old[pairs.first] & old[pairs.second] & pairs.counted
    line = lines["verification_auc_subgroup.T1.worst.age_60_or_more"]
    expected = roc_auc(scores[kept], pairs.same[kept], _weight(cohort, pairs, np.flatnonzero(kept)))
    assert line.value == pytest.approx(expected, abs=1e-6)
    women = np.array([r.sex == "F" for r in cohort])
    positives_of_women = women[pairs.first][pairs.same & pairs.counted].sum()
    found = lines["verification_auc_subgroup.T1.worst.sex_F"].extra["n_positive_pairs"]
    assert 0.8 * positives_of_women < found <= positives_of_women
    mixed = lines["verification_auc_subgroup.T1.worst.view_AP_PA"]
    two = np.array([cohort[int(i)].view != cohort[int(j)].view for i, j in zip(pairs.first, pairs.second, strict=True)])
    rows = np.flatnonzero(two & pairs.counted)
    assert mixed.value == pytest.approx(roc_auc(scores[rows], pairs.same[rows], _weight(cohort, pairs, rows)), abs=1e-6)


def test_one_image_alone_tells_nothing_in_any_part():
    """Patients who come often look alike: a score of the real image alone tells positives from negatives unweighted."""
    cohort = _cohort()
    pairs = threat_pairs(cohort, "T1", "matched")
    often = np.bincount(cohort.patient_index)[cohort.patient_index] + np.random.default_rng(1).random(len(cohort))
    made = breakdown(cohort, "T1", ScoredPairs(pairs, [often[pairs.second]]), [9.0], 5, CONTEXT, {})
    parts = [r for r in made.results if r.name.startswith("verification_auc")]
    assert len(parts) == 13
    for line in parts:
        assert line.value == pytest.approx(0.5, abs=1e-4), line.name


@pytest.mark.parametrize("negatives", ["matched", "random"])
def test_the_risk_of_patients_is_a_count_and_its_mean_is_the_auc(negatives):
    cohort = _cohort()
    scored = _scored(cohort, 3.0, seeds=3)[negatives]
    pairs = scored.pairs
    found = patient_risk(scored, [1.5, 2.0, 2.5])
    for p in (0, 17, 59):
        own = pairs.same & (pairs.patient_first == p)
        negative = pairs.weight[~pairs.same]
        wins = [((s[own][:, None] > s[~pairs.same][None]) @ negative).mean() for s in scored.per_seed]
        assert found.risk[p] == pytest.approx(np.mean(wins))
        votes = sum((s[own] >= t).astype(int) for s, t in zip(scored.per_seed, (1.5, 2.0, 2.5), strict=True))
        assert found.found[p] == (votes >= 2).any()
    aucs = [roc_auc(s, pairs.same, pairs.weight) for s in scored.per_seed]
    assert found.risk.mean() == pytest.approx(np.mean(aucs), abs=pairs.weight_moved + 1e-5)
    assert negatives == "matched" or pairs.weight_moved < 1e-5


def test_the_tail_rings_where_some_patients_are_found_and_noise_has_the_tail_of_chance():
    *_, loud = _lines(6.0)
    *_, quiet = _lines(0.0)
    for part in ("p95", "above_0_9", "above_0_99", "found_at_far_1pct"):
        line, noise = loud[f"patient_risk.T1.worst.{part}"], quiet[f"patient_risk.T1.worst.{part}"]
        assert line.low > line.extra["chance"], part
        assert noise.low <= noise.extra["chance"] <= noise.high, part
    largest = quiet["patient_risk.T1.worst.max"]
    assert largest.low is None and abs(largest.value - largest.extra["chance"]) < 0.1
    assert largest.value > 0.8, "noise has a tail, too"


def test_without_a_threshold_no_one_is_said_to_be_found():
    cohort = _cohort(12)
    made = breakdown(cohort, "T1", _scored(cohort, 1.0)["matched"], [np.nan], 5, CONTEXT, {})
    (line,) = [r for r in made.results if r.name.endswith("found_at_far_1pct.v1")]
    assert line.value is None and line.extra["reason"].startswith("too few")


def test_verification_breaks_its_headline_down():
    attack = VerificationAttack(AttackerPool({"frozen": FrozenAttacker}), seeds=(0, 1), threats=("T1",), n_boot=20)
    attack.fit(knowledge("unchanged"))
    lines = {r.name.removesuffix(".v1"): r for r in attack.score(judged("unchanged"), CONTEXT)}
    short = lines["verification_auc_years.T1.worst.under_1"]
    assert short.value > 0.99 and short.extra["attacker"] == "frozen" and short.attacker == "worst"
    assert lines["verification_auc_years.T1.worst.10_or_more"].value is None
    assert lines["patient_risk.T1.worst.median"].value > 0.95
    assert lines["patient_risk.T1.worst.found_at_far_1pct"].value > 0.9
    data = attack.figure_data()
    assert data["years/T1/worst"].shape == (4, 2) and data["patient_risk/T1/worst"].shape == (2, 24)
    assert (np.diff(data["patient_risk/T1/worst"], axis=1) >= 0).all()


class _Siamese(FrozenAttacker):
    def __init__(self) -> None:
        super().__init__()
        self.name = "snn"


def test_the_siamese_verifier_has_years_of_its_own():
    attack = VerificationAttack(AttackerPool({"snn": _Siamese, "frozen": FrozenAttacker}), (0,), ("T1",), n_boot=10)
    attack.fit(knowledge("negative"))
    lines = {r.name.removesuffix(".v1"): r for r in attack.score(judged("negative"), CONTEXT)}
    worst = {n: r for n, r in lines.items() if n.startswith("verification_auc_years.T1.worst")}
    assert worst and any(line.value is not None for line in worst.values())
    for name, line in worst.items():
        own = lines[name.replace("worst", "snn")]
        assert own.attacker == "snn" and own.negatives == "matched" and own.extra["signs"] == [-1.0]
        assert own.value is None or own.value > 0.9, "turned by its sign on V2"
        assert own.extra["n_positive_pairs"] == line.extra["n_positive_pairs"]
    alone = VerificationAttack(AttackerPool({"frozen": FrozenAttacker}), (0,), ("T1",), n_boot=10)
    alone.fit(knowledge("negative"))
    assert not any(".snn." in r.name for r in alone.score(judged("negative"), CONTEXT))
