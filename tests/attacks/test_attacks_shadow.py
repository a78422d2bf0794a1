"""Shadow models: halves of patients, what a trained one remembers, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from attack_cohorts import real_images

from gmia_monai.attacks.membership_models import AttackModel
from gmia_monai.attacks.shadow import AutoencoderTrainer, Shadow, SmallAutoencoder, patient_halves
from gmia_monai.attacks.training import Schedule
from gmia_monai.errors import UsageError


def test_pairs_of_models_share_the_patients_out():
    patients = np.repeat([f"p{i}" for i in range(11)], 3)
    halves = patient_halves(patients, 6, 0)
    assert halves.shape == (6, 33) and (halves.sum(axis=0) == 3).all()
    for one, other in zip(halves[::2], halves[1::2], strict=True):
        assert np.array_equal(one, ~other) and one.sum() == 15
        assert not set(patients[one]) & set(patients[other])
    assert not np.array_equal(halves[0], halves[2])
    assert np.array_equal(halves, patient_halves(patients, 6, 0))


@pytest.mark.parametrize("n_models", [2, 5])
def test_numbers_that_cannot_be_dealt_out_are_refused(n_models):
    with pytest.raises(UsageError, match="GM-U343"):
        patient_halves(["a", "b"], n_models, 0)
    with pytest.raises(UsageError, match="GM-U343"):
        patient_halves(["a", "a"], 4, 0)


@pytest.mark.parametrize("size", [32, 64])
def test_the_small_auto_encoder_keeps_the_shape(size):
    assert SmallAutoencoder(size)(torch.rand(2, 1, size, size)).shape == (2, 1, size, size)


def test_sizes_that_it_cannot_take_are_refused():
    with pytest.raises(UsageError, match="GM-U343"):
        SmallAutoencoder(36)


def test_a_trained_shadow_remembers_its_images_and_is_the_same_again():
    real, others = real_images("m", 8), real_images("n", 8)
    trainer = AutoencoderTrainer(Schedule(steps=60, lr=3e-3, weight_decay=0.0))
    state = torch.random.get_rng_state()
    model = trainer(real.pixels, 3)
    assert torch.equal(state, torch.random.get_rng_state())
    error = [float(np.square(model(r.pixels) - r.pixels).mean()) for r in (real, others)]
    assert error[0] < 0.8 * error[1]
    out = model(others.pixels)
    assert out.dtype == np.float32 and 0.0 <= out.min() and out.max() <= 1.0
    assert np.array_equal(out, trainer(real.pixels, 3)(others.pixels))


def test_shadows_know_whom_they_learned_from():
    seen = []

    def trainer(images: np.ndarray, seed: int):
        seen.append((len(images), seed))
        return np.copy

    real = real_images("m", 8)
    shadows = Shadow.train_all(real, trainer, 4, 10)
    assert seen == [(12, 40), (12, 41), (12, 42), (12, 43)]
    patients = [record.patient_id for record in real.cohort]
    assert (np.stack([s.knows(patients) for s in shadows]).sum(axis=0) == 2).all()
    assert not shadows[0].knows(["stranger"]).any()


def test_neighbouring_attackers_have_no_initialisation_and_no_half_in_common():
    seen: dict[int, list[tuple[int, bytes]]] = {0: [], 1: [], 2: []}
    for attacker, found in seen.items():
        train = lambda x, seed, found=found: found.append((seed, x.tobytes())) or np.copy  # noqa: E731
        Shadow.train_all(real_images("m", 24), train, 6, attacker)
    seeds, halves = ({m[k] for found in seen.values() for m in found} for k in (0, 1))
    assert seeds == set(range(18)) and len(halves) == 18


def test_a_shadow_that_changes_the_size_is_refused():
    with pytest.raises(UsageError, match="GM-U343"):
        Shadow.train_all(real_images("m", 8), lambda images, seed: lambda x: x[..., :16], 4, 0)


def test_the_attack_model_takes_features_relative_to_non_members():
    rng = np.random.default_rng(0)
    member = np.arange(400) < 200
    systems = []
    for scale, offset in ((1.0, 0.0), (30.0, -500.0)):
        x = rng.standard_normal((400, 2)) - 2.0 * member[:, None] * [1.0, 0.0]
        systems.append((x * scale + offset, member))
    model = AttackModel().fit(systems)
    judged = (rng.standard_normal((400, 2)) - 2.0 * member[:, None] * [1.0, 0.0]) * 0.01 + 7.0
    scores = model.score(judged, judged[~member])
    assert np.mean((scores > 0) == member) > 0.8
    assert np.isfinite(model.score(np.ones((3, 2)), np.ones((5, 2)))).all()
