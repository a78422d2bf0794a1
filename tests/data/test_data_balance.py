"""Balanced weights: what one image alone is worth, and what happens where no balance exists."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from gmia_monai.data import Cohort, ImageRecord, t1_pairs
from gmia_monai.data.balance import balanced_weights
from gmia_monai.data.threats import threat_pairs
from gmia_monai.metrics.verification import roc_auc


@pytest.fixture(scope="module")
def cohort() -> Cohort:
    """Patients who come often are old men; those who come once are young women."""
    rng = np.random.default_rng(0)
    records = []
    for patient in range(150):
        n = int(rng.integers(1, 7))
        for i in range(n):
            age = float(30 + 6 * n + rng.integers(9))
            sex = "M" if rng.random() < n / 7 else "F"
            view = "PA" if rng.random() < 0.7 else "AP"
            records.append(ImageRecord(Path(f"/{patient}_{i}.png"), f"p{patient}", view=view, sex=sex, age=age))
    return Cohort(tuple(records))


@pytest.mark.parametrize("threat", ["T1", "T2", "T3"])
@pytest.mark.parametrize("negatives", ["random", "matched"])
def test_one_image_alone_tells_nothing(cohort, threat, negatives):
    pairs = threat_pairs(cohort, threat, negatives)
    number_of_images = np.bincount(cohort.patient_index)[cohort.patient_index].astype(float)
    for score in (number_of_images, np.random.default_rng(1).random(len(cohort))):
        if threat == "T3":  # both places are of one kind: shares are those in both together
            values = np.concatenate([score[pairs.first], score[pairs.second]])
            same, weight = np.tile(pairs.same, 2), np.tile(pairs.weight, 2)
            assert roc_auc(values, same, weight) == pytest.approx(0.5, abs=2e-5)
        else:
            assert roc_auc(score[pairs.first], pairs.same, pairs.weight) == pytest.approx(0.5, abs=2e-5)
            assert roc_auc(score[pairs.second], pairs.same, pairs.weight) == pytest.approx(0.5, abs=2e-5)
    assert pairs.weight[pairs.same].sum() == pytest.approx(1) and pairs.weight[~pairs.same].sum() == pytest.approx(1)
    assert pairs.weight_moved < (1e-4 if negatives == "random" else 0.25)


def test_unweighted_the_same_pairs_do_tell(cohort):
    """The positive control of the test above."""
    pairs = t1_pairs(cohort, "matched")
    number_of_images = np.bincount(cohort.patient_index)[cohort.patient_index].astype(float)
    alike = np.where(pairs.same, pairs.weight, 1.0)
    assert abs(roc_auc(number_of_images[pairs.second], pairs.same, alike) - 0.5) > 0.1


def test_an_image_that_no_negative_stands_for_loses_its_positive():
    # images 0-3 can be compared with each other, image 4 with nobody
    positives = np.array([0, 1, 2, 3, 4]), np.array([1, 0, 3, 2, 4])
    negatives = np.array([0, 1, 2, 3]), np.array([2, 3, 0, 1])
    positive, negative, left = balanced_weights(positives, np.full(5, 0.2), negatives, np.ones(4), 5, ordered=True)
    assert left < 1e-5
    np.testing.assert_allclose(positive, [0.25, 0.25, 0.25, 0.25, 0], atol=1e-5)
    np.testing.assert_allclose(negative, 0.25, atol=1e-5)


def test_where_there_is_no_balance_weights_stay():
    only_once = np.array([0, 0]), np.array([2, 3])
    one = (np.array([0]), np.array([1])), np.ones(1)
    positive, negative, left = balanced_weights(*one, only_once, np.array([0.25, 0.75]), 4, ordered=True)
    assert left == 1.0, "and it is said"
    assert positive.tolist() == [1.0] and negative.tolist() == [0.25, 0.75]
    none = np.empty(0, np.int64)
    assert balanced_weights((none, none), np.empty(0), only_once, np.full(2, 0.5), 4, False)[1].tolist() == [0.5, 0.5]


def test_kinds_of_pairs_have_equal_shares():
    positives = np.array([0, 1, 2, 3]), np.array([1, 0, 3, 2])
    negatives = np.array([0, 0, 1, 1, 2, 2, 3, 3]), np.array([2, 3, 2, 3, 0, 1, 0, 1])
    kinds = np.array([0, 1, 0, 1]), np.array([0, 1, 1, 0, 1, 0, 1, 1])
    positive, negative, left = balanced_weights(positives, np.full(4, 0.25), negatives, np.ones(8), 4, True, kinds)
    assert left < 1e-5
    for place in (0, 1):
        shares = [np.bincount(p[place], w) for p, w in ((positives, positive), (negatives, negative))]
        np.testing.assert_allclose(*shares, atol=1e-5)
    np.testing.assert_allclose(np.bincount(kinds[0], positive), np.bincount(kinds[1], negative), atol=1e-5)


def test_pairs_that_are_only_counted_weigh_alike(cohort):
    pairs = threat_pairs(cohort, "T2", "random", negatives_per_positive=1, balanced=False)
    assert np.ptp(pairs.weight[~pairs.same]) == 0 and pairs.counted.all()
    assert pairs.n_positive_patients == len(cohort.patients) and pairs.weight_moved == 0
    facts = threat_pairs(cohort, "T1", "matched").facts()
    assert facts["n_negative_pairs_effective"] < facts["n_negative_pairs"] < len(cohort) ** 2
