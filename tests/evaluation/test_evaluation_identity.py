"""Identity figures on a made-up cohort whose answer is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from gmia_monai.data.cohort import Cohort, ImageRecord
from gmia_monai.data.pairs import t1_pairs
from gmia_monai.errors import UsageError
from gmia_monai.evaluation.identity import embed_images, evaluate_identity, pair_cosines
from gmia_monai.metrics.results import RunContext


def _cohort(n_patients: int = 40, images: int = 3) -> Cohort:
    rng = np.random.default_rng(0)
    records = []
    for patient in range(n_patients):
        sex, age = str(rng.choice(["M", "F"])), float(rng.integers(30, 50))
        for visit in range(images + (patient == 0) * 6):  # one patient has a long series
            records.append(
                ImageRecord(
                    image=Path(f"/images/{patient}_{visit}.png"),
                    patient_id=f"p{patient}",
                    study_id=str(visit),
                    view="PA",
                    sex=sex,
                    age=age + visit,
                    labels=(),
                    folder="a" if patient % 2 else "b",
                )
            )
    return Cohort(tuple(records))


def _images(cohort: Cohort, noise: float) -> torch.Tensor:
    """Images whose first 16 pixels are the patient's signature."""
    generator = torch.Generator().manual_seed(0)
    signature = torch.rand((len(cohort.patients), 16), generator=generator)
    own = signature[torch.from_numpy(cohort.patient_index)]
    return (own + noise * torch.randn(own.shape, generator=generator)).reshape(-1, 1, 4, 4)


def _embed(batch: torch.Tensor) -> torch.Tensor:
    return batch.flatten(1) - 0.5


def test_an_encoder_that_sees_the_signature_and_one_that_does_not():
    cohort = _cohort()
    context = RunContext("unchanged", "cxr64", seed=1, command="c")
    images = _images(cohort, 0.05)
    results = evaluate_identity(_embed, images, cohort, context, negatives_per_positive=10, batch_size=32, n_boot=50)
    table = {(r.name, r.negatives): r for r in results}
    assert len(table) == len(results) == 9
    for negatives in ("random", "matched"):
        auc = table["verification_auc.T1.frozen.v1", negatives]
        assert auc.value > 0.99 and auc.low <= auc.value <= auc.high
        assert table["equal_error_rate.T1.frozen.v1", negatives].value < 0.05
    assert table["rank_1.frozen.v1", None].value > 0.95
    assert table["map_at_r.frozen.v1", None].value > 0.9
    folders = [sum(record.folder == name for record in cohort) for name in ("a", "b")]
    assert table["rank_1.frozen.v1", None].extra["gallery_sizes"] == sorted(size - 1 for size in folders)
    assert table["verification_auc.T1.frozen.v1", "random"].n_patients == 40
    matched = table["verification_auc.T1.frozen.v1", "matched"]
    assert matched.n_patients == 39 and 0 < matched.extra["weight_moved"] < 0.1, "one patient is matched by nobody"

    blind = evaluate_identity(
        lambda b: torch.randn((len(b), 8), generator=torch.Generator().manual_seed(int(b.sum() * 1e6) % 2**31)),
        images,
        cohort,
        context,
        attacker="snn",
        negatives_per_positive=10,
        n_boot=50,
    )
    table = {(r.name, r.negatives): r for r in blind}
    auc = table["verification_auc.T1.snn.v1", "random"]
    assert auc.low < 0.5 < auc.high and auc.attacker == "snn"
    assert table["rank_1.snn.v1", None].value < 0.3


def test_random_and_matched_figures_are_those_of_their_pairs():
    cohort = _cohort()
    images = _images(cohort, 0.35)
    results = evaluate_identity(
        _embed, images, cohort, RunContext("unchanged", "p", seed=3), negatives_per_positive=10, n_boot=5
    )
    table = {(r.name, r.negatives): r for r in results}
    embeddings = embed_images(_embed, images)
    assert np.allclose(np.linalg.norm(embeddings, axis=1), 1, atol=1e-6)
    for negatives, cap in (("random", 20), ("matched", None)):
        pairs = t1_pairs(cohort, negatives=negatives, negatives_per_positive=10, max_positives_per_patient=cap, seed=3)
        scores = [float(embeddings[i] @ embeddings[j]) for i, j in zip(pairs.first, pairs.second, strict=True)]
        assert pair_cosines(embeddings, pairs) == pytest.approx(scores, abs=1e-6)
        weights = None if negatives == "random" else pairs.weight
        result = table["verification_auc.T1.frozen.v1", negatives]
        assert 0.6 < result.value < 0.99
        assert result.value == pytest.approx(roc_auc_score(pairs.same, scores, sample_weight=weights), abs=1e-4)
        assert result.extra["n_positive_pairs"] == pairs.same.sum()
        if negatives == "random":
            equal = table["verification_auc_patients_equal.T1.frozen.v1", "random"]
            assert equal.value != result.value
            assert equal.value == pytest.approx(roc_auc_score(pairs.same, scores, sample_weight=pairs.weight), abs=1e-4)
    few = table["tar_at_far_1pct.T1.frozen.v1", "random"]
    assert few.value is not None and "threshold_cos" in few.extra  # 40 patients: 153 positives or so, ten each


def test_too_few_negatives_leave_the_rate_open():
    cohort = _cohort(10)
    results = evaluate_identity(
        _embed, _images(cohort, 0.1), cohort, RunContext("unchanged", "p"), negatives_per_positive=2, n_boot=5
    )
    tar = next(r for r in results if r.name.startswith("tar_at_far") and r.negatives == "random")
    assert tar.value is None and "1000 needed" in tar.extra["reason"]


def test_what_cannot_be_evaluated_is_refused():
    cohort = _cohort(5)
    with pytest.raises(UsageError, match="GM-U263"):
        evaluate_identity(_embed, _images(cohort, 0.1)[:3], cohort, RunContext("x", "p"))
    single = cohort[np.array([0, 12])]
    with pytest.raises(UsageError, match="GM-U264"):
        evaluate_identity(_embed, torch.rand(2, 1, 4, 4), single, RunContext("x", "p"), n_boot=5)
