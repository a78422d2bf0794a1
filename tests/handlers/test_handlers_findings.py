"""Macro metrics with labels that are not known, against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ignite.engine import Engine
from monai.metrics import compute_average_precision, compute_roc_auc
from sklearn.metrics import average_precision_score, roc_auc_score

from gmia_monai.handlers import FindingsMetric


def _value(compute, scores: np.ndarray, labels: np.ndarray, batch: int = 7) -> float:
    def step(engine: Engine, rows: slice):
        return list(torch.from_numpy(scores[rows])), list(torch.from_numpy(labels[rows]))

    engine = Engine(step)
    FindingsMetric(compute).attach(engine, "value")
    engine.run([slice(i, i + batch) for i in range(0, len(scores), batch)])
    return engine.state.metrics["value"]


@pytest.mark.parametrize(
    ("compute", "reference"), [(compute_roc_auc, roc_auc_score), (compute_average_precision, average_precision_score)]
)
def test_unknown_labels_are_left_out_finding_by_finding(compute, reference) -> None:
    rng = np.random.default_rng(0)
    scores = rng.random((40, 3)).astype(np.float32)
    labels = (rng.random((40, 3)) < 0.3).astype(np.float32)
    labels[rng.random((40, 3)) < 0.2] = np.nan
    known = ~np.isnan(labels)
    expected = np.mean([reference(labels[known[:, k], k], scores[known[:, k], k]) for k in range(3)])
    assert _value(compute, scores, labels) == pytest.approx(expected, abs=1e-6)


def test_a_finding_of_one_class_does_not_count_and_without_any_there_is_no_value() -> None:
    scores = np.linspace(0, 1, 8, dtype=np.float32)[:, None].repeat(2, 1)
    labels = np.zeros((8, 2), dtype=np.float32)
    labels[4:, 0] = 1
    assert _value(compute_roc_auc, scores, labels) == 1.0
    assert np.isnan(_value(compute_roc_auc, scores, np.full((8, 2), np.nan, dtype=np.float32)))
