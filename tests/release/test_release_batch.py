"""The attack on a whole release rings where identity is there, is silent on noise, and says when it cannot tell."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from attack_cohorts import real_images

from gmia_monai.networks import IdentityNet, save_network
from gmia_monai.release.batch import BatchAttack, ReleasedImage


@pytest.fixture(scope="module")
def attack(tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "arcface.safetensors"
    arguments = {"image_size": 32, "architecture": "small", "embedding_dim": 16}
    torch.manual_seed(0)
    save_network(path, IdentityNet(**arguments), arguments)
    return BatchAttack(path, max_auc=0.7, min_patients=40, folds=3, steps=8, n_boot=60)


def _images(how: str, patients: int = 48) -> list[ReleasedImage]:
    real = real_images("b", patients)
    rng = np.random.default_rng(5)
    found = []
    for i, record in enumerate(real.cohort):
        source = real.pixels[i, 0]
        released = {"same": source, "noise": rng.random(source.shape, dtype=np.float32)}[how]
        known = {"view": record.view, "sex": record.sex, "age": record.age}
        found.append(ReleasedImage(f"{i:016x}", record.patient_id, known, source, released))
    return found


def test_it_rings_on_images_that_are_released_as_they_are(attack):
    seen = []
    found = attack(_images("same"), lambda done, total: seen.append((done, total)))
    assert found["told"] and not found["passed"] and found["auc"] > 0.9 and found["low"] > 0.7
    assert found["patients"] == 48 and found["images"] == 144 and seen == [(1, 3), (2, 3), (3, 3)]
    assert sum(found["attackers"].values()) == 3


def test_it_is_silent_on_noise(attack):
    found = replace(attack, max_auc=0.8)(_images("noise"))
    assert found["told"] and found["low"] < 0.5 < found["high"] and found["passed"]
    assert not replace(attack, max_auc=0.501)(_images("noise"))["passed"], "the upper limit counts"


def test_with_few_patients_it_cannot_tell(attack):
    images = _images("same", 30)
    assert attack(images) == {
        "told": False, "passed": False, "patients": 30, "images": 90, "folds": 3, "steps": 8, "max_auc": 0.7,
    }  # fmt: skip
    single = [image for image in _images("same") if image.handle.endswith(("0", "3", "6", "9"))]
    assert not attack(single)["told"], "patients with one image are no patients to be found again"
    assert not replace(attack, min_patients=20)([])["told"]


def test_the_order_of_the_images_does_not_matter(attack):
    images = _images("same")
    assert attack(images) == attack(images[::-1])


def test_at_most_four_images_of_a_patient_count(attack):
    images = _images("same", 45)
    more = [replace(image, handle=f"f{k}{image.handle[2:]}") for k in range(3) for image in images]
    assert replace(attack, steps=1)(more)["images"] == 45 * 4
