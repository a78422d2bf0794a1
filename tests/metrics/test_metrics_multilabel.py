"""Figures under weights against scikit-learn on images that are repeated as often as they weigh."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, average_precision_score, brier_score_loss, f1_score, roc_auc_score

from gmia_monai.errors import UsageError
from gmia_monai.metrics.multilabel import FIGURES, resampled_figures


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    labels = (rng.random((80, 2)) < 0.4).astype(float)
    labels[rng.random((80, 2)) < 0.1] = np.nan
    probabilities = np.round(np.clip(0.3 * np.nan_to_num(labels) + 0.7 * rng.random((80, 2)), 0, 1), 2)  # with ties
    return probabilities, labels, np.array([0.3, 0.6]), rng.integers(0, 3, (4, 80)).astype(float)


def _calibration_error(probability, present):
    """Sum over 15 bins of the share of images times the gap between mean probability and share of positives."""
    total = 0.0
    for b in range(15):
        inside = [i for i, p in enumerate(probability) if b / 15 <= p < (b + 1) / 15 or (b == 14 and p == 1.0)]
        if inside:
            gap = abs(np.mean(probability[inside]) - np.mean(present[inside]))
            total += len(inside) / len(probability) * gap
    return total


def test_figures_are_sklearns_on_repeated_images(data):
    probabilities, labels, thresholds, weights = data
    found = resampled_figures(probabilities, labels, thresholds, weights)
    assert tuple(found) == FIGURES
    for row, w in enumerate(weights):
        for k in range(2):
            known = ~np.isnan(labels[:, k])
            index = np.repeat(np.flatnonzero(known), w[known].astype(int))
            p, y = probabilities[index, k], labels[index, k]
            expected = {
                "auroc": roc_auc_score(y, p),
                "ap": average_precision_score(y, p),
                "accuracy": accuracy_score(y, p >= thresholds[k]),
                "f1": f1_score(y, p >= thresholds[k]),
                "brier": brier_score_loss(y, p),
                "ece": _calibration_error(p, y),
            }
            assert {name: found[name][row, k] for name in FIGURES} == pytest.approx(expected, abs=1e-9)


def test_a_weighting_without_a_class_has_no_auroc(data):
    probabilities, labels, thresholds, weights = data
    weights = weights[:1] * (labels[:, 0] != 1)
    found = resampled_figures(probabilities, labels, thresholds, weights, ("auroc", "brier"))
    assert set(found) == {"auroc", "brier"}
    assert np.isnan(found["auroc"][0, 0]) and np.isfinite(found["brier"]).all()


def test_a_finding_that_nobody_looked_for_has_no_figure(data):
    probabilities, labels, thresholds, weights = data
    labels = labels.copy()
    labels[:, 1] = np.nan
    found = resampled_figures(probabilities, labels, thresholds, weights)
    assert all(np.isnan(figure[:, 1]).all() and np.isfinite(figure[:, 0]).all() for figure in found.values())


def test_probabilities_out_of_range_are_refused(data):
    probabilities, labels, thresholds, weights = data
    with pytest.raises(UsageError, match="GM-U352"):
        resampled_figures(probabilities + 1.0, labels, thresholds, weights)
