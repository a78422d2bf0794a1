"""Validation mAP@R against loops over queries."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from ignite.engine import Engine

from gmia_monai.data.cohort import Cohort, ImageRecord
from gmia_monai.handlers import RetrievalMAP


@pytest.fixture
def cohort() -> Cohort:
    """Two folders; p0 has images in both, which are not looked for in the other one."""
    at = [("a", p) for p in range(4) for _ in range(1 + p)] + [("b", p) for p in (0, 4, 4, 4, 5)]
    records = [ImageRecord(Path(f"/x/{i}.png"), f"p{p}", folder=folder) for i, (folder, p) in enumerate(at)]
    return Cohort(tuple(records))


def _found(cohort: Cohort, embeddings: torch.Tensor) -> float:
    engine = Engine(lambda e, part: {"pred": part})
    compare = lambda a, b: -(a - b).norm(dim=-1)  # noqa: E731
    metric = RetrievalMAP(cohort, compare, output_transform=lambda o: (o["pred"], o["pred"][:, 0]))
    metric.attach(engine, "map_at_r")
    engine.run(list(embeddings.split(4)))
    return engine.state.metrics["map_at_r"]


def test_it_is_the_mean_of_average_precision_at_r(cohort):
    g = torch.Generator().manual_seed(0)
    centres = torch.randn(6, 5, generator=g)
    embeddings = torch.stack([centres[p] for p in cohort.patient_index.tolist()])
    embeddings = embeddings + 1.2 * torch.randn(embeddings.shape, generator=g)
    of_query = []
    for q, record in enumerate(cohort):
        gallery = [i for i, other in enumerate(cohort) if other.folder == record.folder and i != q]
        gallery.sort(key=lambda i, q=q: float((embeddings[q] - embeddings[i]).norm()))
        hit = [cohort[i].patient_id == record.patient_id for i in gallery]
        r = sum(hit)
        if r:
            of_query.append(sum(sum(hit[: i + 1]) / (i + 1) for i in range(r) if hit[i]) / r)
    expected = sum(of_query) / len(of_query)
    assert 0.2 < expected < 0.95 and len(of_query) < len(cohort)
    assert _found(cohort, embeddings) == pytest.approx(expected, abs=1e-9)


def test_embeddings_of_other_images_are_refused(cohort):
    with pytest.raises(RuntimeError, match="do not shuffle or drop"):
        _found(cohort, torch.randn(len(cohort) - 1, 3))
