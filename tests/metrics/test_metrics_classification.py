"""Findings against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from gmia_monai.errors import UsageError
from gmia_monai.metrics.classification import score_findings


def _data(n=400):
    rng = np.random.default_rng(0)
    labels = (rng.random((n, 4)) < [0.3, 0.2, 0.15, 0.01]).astype(float)
    scores = np.round(rng.normal(size=(n, 4)) + labels, 2)
    labels[rng.random((n, 4)) < 0.1] = np.nan
    return scores, labels, ["a", "b", "c", "rare"], np.arange(n) // 2


def test_values_are_sklearns_with_unknown_labels_left_out():
    scores, labels, names, patients = _data()
    table = score_findings(scores, labels, names, patients, min_positives=30, n_boot=50)
    assert [f.name for f in table.findings] == ["a", "b", "c"]
    assert table.left_out == {"rare": int(np.nansum(labels[:, 3]))}
    for index, finding in enumerate(table.findings):
        known = ~np.isnan(labels[:, index])
        assert finding.n_known == known.sum() and finding.n_positive == np.nansum(labels[:, index])
        assert finding.auroc == pytest.approx(roc_auc_score(labels[known, index], scores[known, index]))
        assert finding.average_precision == pytest.approx(
            average_precision_score(labels[known, index], scores[known, index])
        )
    assert table.macro_auroc.value == pytest.approx(np.mean([f.auroc for f in table.findings]))
    assert table.macro_average_precision.value == pytest.approx(np.mean([f.average_precision for f in table.findings]))
    assert table.macro_auroc.low < table.macro_auroc.value < table.macro_auroc.high


def test_interval_draws_patients():
    scores, labels, names, patients = _data(100)
    draws = np.random.default_rng(11)
    naive = []
    for _ in range(30):
        rows = np.concatenate([np.flatnonzero(patients == p) for p in draws.integers(0, 50, 50)])
        s, y = scores[rows, 0], labels[rows, 0]
        naive.append(roc_auc_score(y[~np.isnan(y)], s[~np.isnan(y)]))
    table = score_findings(scores[:, :1], labels[:, :1], names[:1], patients, min_positives=5, n_boot=30, seed=11)
    assert table.macro_auroc[1:] == pytest.approx(tuple(np.quantile(naive, [0.025, 0.975])))


def test_too_few_positives_everywhere_is_an_error():
    scores, labels, names, patients = _data()
    with pytest.raises(UsageError, match="GM-U242"):
        score_findings(scores, labels, names, patients, min_positives=1000)
    with pytest.raises(UsageError, match="GM-U241"):
        score_findings(scores, labels, names[:2], patients)
