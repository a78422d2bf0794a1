"""Arms and their paired difference against loops over seeds and resamples."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import f1_score, roc_auc_score

from gmia_monai.evaluation.arms import MARGIN, Arm, arm_lines, loss_lines
from gmia_monai.metrics.intervals import intervals_over_seeds, patient_counts
from gmia_monai.metrics.results import RunContext

CONTEXT = RunContext("gmia", "cxr64")
PATIENTS = np.arange(240) // 2
LABELS = np.random.default_rng(0).random((240, 3)) < [0.3, 0.4, 0.02]
NAMES = ("Atelectasis", "Mass", "rare")
PAPER = np.array([True, False, False])
NONE = np.zeros(3, dtype=bool)


def _arm(strength, n_seeds=5, seed=0, n_boot=200):
    """Classifiers whose errors are mostly those of the images, which two arms share."""
    shared = np.random.default_rng(1).normal(size=(1, 240, 3))
    own = 0.3 * np.random.default_rng([2, seed]).normal(size=(n_seeds, 240, 3))
    probabilities = 1 / (1 + np.exp(-(strength * LABELS + shared + own)))
    counts = patient_counts(120, n_boot, 0)[:, PATIENTS]
    thresholds = np.full((n_seeds, 3), 0.6)
    return Arm(probabilities, LABELS.astype(float), thresholds, counts, PATIENTS, NAMES)


def _macro(arm, row):
    """Macro AUROC over the first two findings, of each seed, of the images repeated as drawn."""
    index = np.repeat(np.arange(240), arm.weights[row].astype(int))
    return [
        np.mean([roc_auc_score(LABELS[index, k], probabilities[index, k]) for k in range(2)])
        for probabilities in arm.probabilities
    ]


def test_lines_are_means_over_seeds_with_patients_drawn():
    arm = _arm(1.0, n_boot=20)
    lines = {line.name: line for line in arm_lines(arm, "real_to_real.small", 30, PAPER, CONTEXT)}
    auroc = lines["utility_macro_auroc.real_to_real.small.v1"]
    drawn = np.array([_macro(arm, row) for row in range(21)])
    (expected,) = intervals_over_seeds(drawn[..., None], 120)
    assert (auroc.value, auroc.low, auroc.high) == pytest.approx((drawn[0].mean(), *expected[1:]), abs=1e-6)
    assert auroc.extra["left_out"] == {"rare": int(LABELS[:, 2].sum())}
    assert (auroc.n_patients, auroc.n_images, len(auroc.extra["per_seed"])) == (120, 240, 5)
    paper = lines["utility_paper_auroc.real_to_real.small.v1"]
    assert paper.value == pytest.approx(auroc.extra["per_finding"]["Atelectasis"][0])
    accuracy = np.mean([((p >= 0.6) == LABELS)[:, :2].mean() for p in arm.probabilities])
    assert lines["utility_macro_accuracy.real_to_real.small.v1"].value == pytest.approx(accuracy, abs=1e-6)
    called = arm.probabilities[:, :, 0] >= 0.5
    half = np.mean([(of_seed == LABELS[:, 0]).mean() for of_seed in called])
    assert lines["utility_paper_accuracy_at_half.real_to_real.small.v1"].value == pytest.approx(half, abs=1e-6)
    f1 = np.mean([f1_score(LABELS[:, 0], of_seed) for of_seed in called])
    line = lines["utility_paper_f1_at_half.real_to_real.small.v1"]
    assert line.value == pytest.approx(f1, abs=1e-6) and line.low < line.value < line.high
    assert line.value != lines["utility_paper_f1.real_to_real.small.v1"].value
    ece = lines["utility_macro_ece.real_to_real.small.v1"]
    assert 0 < ece.value < 1 and ece.low is None and "no_interval" in ece.extra
    assert {name.split(".")[0].removeprefix("utility_macro_") for name in lines} > {"ap", "f1", "brier", "ece"}


def test_loss_is_the_paired_difference():
    real, released = _arm(1.5, n_boot=20), _arm(0.5, seed=1, n_boot=20)
    lines = {line.name: line for line in loss_lines(real, released, "d.small", 30, PAPER, CONTEXT)}
    loss = lines["utility_macro_auroc_loss.d.small.v1"]
    drawn = np.array([np.subtract(_macro(real, row), _macro(released, row)) for row in range(21)])
    (expected,) = intervals_over_seeds(drawn[..., None], 120, bounds=(-1.0, 1.0))
    assert (loss.value, loss.low, loss.high) == pytest.approx((drawn[0].mean(), *expected[1:]), abs=1e-6)
    assert loss.extra["real"] == pytest.approx(np.mean(_macro(real, 0)), abs=1e-6)
    assert loss.extra[f"non_inferior_at_{MARGIN}"] is False
    assert lines["utility_paper_auroc_loss.d.small.v1"].extra["n_positive"].keys() == {"Atelectasis"}
    assert {"utility_macro_ap_loss.d.small.v1", "utility_macro_f1_loss.d.small.v1"} < set(lines)


def test_the_loss_of_auroc_leaves_its_resamples_where_somebody_keeps_them():
    real, released = _arm(1.5, n_boot=20), _arm(0.5, seed=1, n_boot=20)
    kept = []
    context = replace(CONTEXT, keep=lambda line, found: kept.append((line, found)))
    how = {"kept": ("name", (3, 4, 5, 6, 7))}
    lines = list(loss_lines(real, released, "d.small", 30, PAPER, context, **how))
    [(line, found)] = kept
    assert line.name == "utility_macro_auroc_loss.d.small.v1" and line in lines
    drawn = np.array([np.subtract(_macro(real, row), _macro(released, row)) for row in range(21)])
    np.testing.assert_allclose(found.found, drawn, atol=1e-12)
    assert (found.draws, found.seeds, found.n_patients) == ("name", (3, 4, 5, 6, 7), 120)
    assert found.bounds == (-1.0, 1.0) and found.by_seed
    list(loss_lines(real, released, "d.small", 30, PAPER, context))
    list(loss_lines(real, released, "d.small", 30, PAPER, CONTEXT, **how))
    assert len(kept) == 1, "without a name of the draws, or without a keeper, nothing is kept"


def test_pairing_narrows_the_interval():
    real, released = _arm(1.0), _arm(0.9, seed=1)
    (loss,) = loss_lines(real, released, "d.small", 30, NONE, CONTEXT, figures=("auroc",))
    alone = [next(iter(arm_lines(arm, "d.small", 30, NONE, CONTEXT))) for arm in (real, released)]
    unpaired = np.sqrt(sum((line.high - line.low) ** 2 for line in alone))
    assert loss.high - loss.low < 0.6 * unpaired


def test_equal_arms_lose_nothing_and_a_claim_needs_five_seeds():
    for n_seeds, claim in ((5, True), (4, None)):
        arm = _arm(1.0, n_seeds)
        loss = next(iter(loss_lines(arm, arm, "d.small", 30, NONE, CONTEXT)))
        assert (loss.value, loss.low, loss.high) == (0.0, 0.0, 0.0)
        assert loss.extra[f"non_inferior_at_{MARGIN}"] is claim


def test_seeds_that_disagree_allow_no_claim():
    """One of five training runs that went wrong: drawing runs cannot leave their range, Student's t can."""
    arm = _arm(1.5)
    good, bad = arm.probabilities, arm.probabilities.copy()
    bad[0] = _arm(1.0, 1).probabilities[0]
    losses = [next(loss_lines(arm, replace(arm, probabilities=p), "d.small", 30, NONE, CONTEXT)) for p in (good, bad)]
    worst = max(losses[1].extra["per_seed"])
    assert losses[0].high == 0.0 and losses[0].extra[f"non_inferior_at_{MARGIN}"] is True
    assert losses[1].high > losses[1].value + stats.t.ppf(0.975, 4) * 0.95 * worst / 5 > MARGIN
    assert losses[1].extra[f"non_inferior_at_{MARGIN}"] is False


def test_a_part_of_the_images_keeps_its_patients_and_too_few_positives_are_said():
    arm = _arm(1.0)
    part = arm.images(np.arange(240) < 20)
    assert (len(part), part.n_patients, part.weights.shape[1]) == (20, 10, 20)
    for lines in (
        arm_lines(part, "d.small", 30, NONE, CONTEXT),
        loss_lines(arm, part, "d.small", 30, NONE, CONTEXT),
    ):
        (line,) = lines
        assert line.value is None and "positive" in line.extra["reason"]
