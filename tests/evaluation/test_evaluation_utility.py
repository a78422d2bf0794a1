"""Utility lines against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, roc_auc_score

from gmia_monai.evaluation.utility import evaluate_utility, predict_logits
from gmia_monai.metrics.results import RunContext


def test_lines_carry_macro_means_and_findings():
    rng = np.random.default_rng(0)
    labels = (rng.random((300, 3)) < [0.3, 0.2, 0.01]).astype(np.float32)
    logits = torch.from_numpy((rng.normal(size=(300, 3)) + labels).astype(np.float32))
    patients = np.arange(300) // 3
    results = evaluate_utility(
        logits, torch.from_numpy(labels), patients, ["x", "y", "rare"], RunContext("real", "cxr64"), n_boot=60
    )
    auroc, precision = results
    expected = {n: roc_auc_score(labels[:, i], logits[:, i]) for i, n in enumerate(["x", "y"])}
    assert auroc.extra["per_finding"] == pytest.approx(expected, abs=1e-5)
    assert auroc.value == pytest.approx(np.mean(list(expected.values())), abs=1e-5)
    assert auroc.low < auroc.value < auroc.high
    expected = np.mean([average_precision_score(labels[:, i], logits[:, i]) for i in range(2)])
    assert precision.value == pytest.approx(expected, abs=1e-5)
    assert auroc.extra["left_out"] == {"rare": int(labels[:, 2].sum())}
    assert (auroc.name, precision.name) == ("utility_macro_auroc.v1", "utility_macro_ap.v1")
    assert (auroc.n_patients, auroc.n_images) == (100, 300)


def test_batches_of_predictions_are_put_together():
    weight = torch.randn((16, 3), generator=torch.Generator().manual_seed(0))
    images = torch.rand((11, 1, 4, 4), generator=torch.Generator().manual_seed(1))
    logits = predict_logits(lambda b: b.flatten(1) @ weight, images, batch_size=4)
    assert np.allclose(logits, (images.flatten(1) @ weight).numpy(), atol=1e-6)
