"""Planted copies of training images are found, with and without noise, shift and dimming; unseen images are not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from attack_cohorts import SIZE, flat, knowledge, real_images

from gmia_monai.attacks.attackers.frozen import FrozenAttacker
from gmia_monai.attacks.base import AttackerKnowledge, Judged
from gmia_monai.attacks.memorisation import MemorisationAttack, nearest_similarity, pixel_features
from gmia_monai.attacks.pool import AttackerPool
from gmia_monai.data.cohort import Cohort
from gmia_monai.data.release import RealImages, Release
from gmia_monai.errors import UsageError
from gmia_monai.metrics.results import RunContext

TRAIN = real_images("s", 40)


def _knowledge() -> AttackerKnowledge:
    known = knowledge("unchanged")
    split = Cohort(tuple(replace(r, split="train") for r in TRAIN.cohort), role_scheme="split")
    return replace(known, training=RealImages(split, TRAIN.pixels))


def _share(pixels: np.ndarray) -> dict[str, float]:
    attack = MemorisationAttack(AttackerPool({"frozen": FrozenAttacker}), n_boot=50)
    attack.fit(_knowledge())
    release = Release("drawn", np.clip(pixels, 0, 1).astype(np.float32), ((),) * len(pixels))
    results = attack.score(Judged(real_images("t"), release), RunContext("x", "p"))
    return {r.name.split(".")[1]: r.value for r in results}


def test_the_nearest_is_that_of_a_loop():
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((9, 4)), rng.standard_normal((7, 4))
    expected = [max(x @ y / np.linalg.norm(x) / np.linalg.norm(y) for y in b) for x in a]
    assert nearest_similarity(a, b) == pytest.approx(expected)


def test_features_are_block_means_without_mean_and_contrast():
    image = real_images("t").pixels[:2]
    found = pixel_features(image)
    block = image[0, 0].reshape(16, 2, 16, 2).mean(axis=(1, 3)).ravel()
    block = block - block.mean()
    assert found[0] == pytest.approx(block / np.linalg.norm(block), abs=1e-6)
    assert pixel_features(0.2 + 0.5 * image) == pytest.approx(found, abs=1e-5)


@pytest.mark.parametrize("change", ["none", "noise", "dimmed", "shifted"])
def test_planted_copies_are_found(change):
    rng = np.random.default_rng(1)
    copies = TRAIN.pixels[::6]
    changed = {
        "none": lambda x: x,
        "noise": lambda x: x + 0.1 * rng.standard_normal(x.shape),
        "dimmed": lambda x: 0.1 + 0.7 * x,
        "shifted": lambda x: np.roll(x, 1, axis=3),
    }[change](copies)
    fresh = rng.random((20, 8, 8)).repeat(SIZE // 8, axis=1).repeat(SIZE // 8, axis=2)[:, None]
    share = _share(np.concatenate([changed, fresh]))
    assert share["pixels"] == pytest.approx(len(copies) / (len(copies) + 20), abs=0.06)


def test_unseen_people_are_no_copies():
    share = _share(real_images("u", 60).pixels)
    # The threshold rests on 72 held-out images of 24 people here.
    assert share["pixels"] < 0.15 and share["frozen"] < 0.15


def test_training_images_must_be_known():
    attack = MemorisationAttack(AttackerPool({"frozen": FrozenAttacker}))
    known = knowledge("unchanged", frozen=flat)
    split = Cohort(tuple(replace(r, split="A") for r in TRAIN.cohort), role_scheme="split")
    with pytest.raises(UsageError, match="GM-U325"):
        attack.fit(replace(known, training=RealImages(split, TRAIN.pixels)))
