"""Verification AUC against scikit-learn."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from ignite.engine import Engine
from sklearn.metrics import roc_auc_score

from gmia_monai.data.cohort import Cohort, ImageRecord
from gmia_monai.data.pairs import t1_pairs
from gmia_monai.handlers import VerificationAUC


@pytest.fixture
def cohort() -> Cohort:
    records = [ImageRecord(Path(f"/x/{p}{i}.png"), f"p{p}") for p in range(5) for i in range(2 + p % 3)]
    return Cohort(tuple(records))


def _auc(cohort: Cohort, embeddings: torch.Tensor, **kwargs) -> float:
    engine = Engine(lambda e, part: {"pred": part})
    metric = VerificationAUC(cohort, output_transform=lambda o: (o["pred"], o["pred"][:, 0]), **kwargs)
    metric.attach(engine, "auc")
    engine.run(list(embeddings.split(4)))
    return engine.state.metrics["auc"]


def test_it_is_the_weighted_auc_of_the_cosines(cohort):
    g = torch.Generator().manual_seed(0)
    centres = torch.randn(5, 6, generator=g)
    embeddings = torch.stack([centres[p] for p in cohort.patient_index.tolist()])
    embeddings = (embeddings + torch.randn(embeddings.shape, generator=g)) * torch.rand(len(cohort), 1, generator=g)
    pairs = t1_pairs(cohort, negatives="random", negatives_per_positive=20, seed=0)
    unit = (embeddings / embeddings.norm(dim=1, keepdim=True)).numpy()
    scores = np.einsum("nd,nd->n", unit[pairs.first], unit[pairs.second])
    expected = roc_auc_score(pairs.same, scores, sample_weight=pairs.weight)
    assert 0.5 < expected < 1.0
    assert _auc(cohort, embeddings) == pytest.approx(expected, abs=1e-6)


def test_another_comparison_than_the_cosine(cohort):
    embeddings = torch.randn(len(cohort), 6, generator=torch.Generator().manual_seed(1))
    pairs = t1_pairs(cohort, negatives="random", negatives_per_positive=20, seed=0)
    scores = -(embeddings[pairs.first] - embeddings[pairs.second]).norm(dim=1).numpy()
    found = _auc(cohort, embeddings, compare=lambda a, b: -(a - b).norm(dim=1))
    assert found == pytest.approx(roc_auc_score(pairs.same, scores, sample_weight=pairs.weight), abs=1e-6)


def test_embeddings_of_other_images_are_refused(cohort):
    with pytest.raises(RuntimeError, match="do not shuffle or drop"):
        _auc(cohort, torch.randn(len(cohort) - 1, 3))
