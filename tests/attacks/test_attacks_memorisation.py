"""Planted copies of training images are found, with and without noise, shift, dimming and mirroring; unseen images are
not."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest
from attack_cohorts import SIZE, flat, knowledge, real_images
from attack_controls import is_silent

from gmia_monai.attacks.attackers.base import EmbeddingAttacker
from gmia_monai.attacks.attackers.frozen import FrozenAttacker
from gmia_monai.attacks.base import AttackerKnowledge, Judged
from gmia_monai.attacks.memorisation import (
    MemorisationAttack,
    inner_features,
    nearest_original,
    nearest_similarity,
    pixel_features,
)
from gmia_monai.attacks.pool import AttackerPool
from gmia_monai.data.cohort import Cohort
from gmia_monai.data.release import RealImages, Release
from gmia_monai.errors import UsageError
from gmia_monai.metrics.limits import wilson_interval
from gmia_monai.metrics.results import Result, RunContext

TRAIN = real_images("s", 40)


def _knowledge() -> AttackerKnowledge:
    known = knowledge("unchanged")
    split = Cohort(tuple(replace(r, split="train") for r in TRAIN.cohort), role_scheme="split")
    return replace(known, training=RealImages(split, TRAIN.pixels))


def _lines(pixels: np.ndarray, sources: tuple[tuple[int, ...], ...] | None = None) -> dict[str, Result]:
    attack = MemorisationAttack(AttackerPool({"frozen": FrozenAttacker}), n_boot=500)
    attack.fit(_knowledge())
    release = Release("drawn", np.clip(pixels, 0, 1).astype(np.float32), sources or ((),) * len(pixels))
    return {r.name: r for r in attack.score(Judged(real_images("t"), release), RunContext("x", "p"))}


def _share(pixels: np.ndarray) -> dict[str, float]:
    return {name.split(".")[1]: r.value for name, r in _lines(pixels).items() if name.startswith("memorised_share")}


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


def test_the_nearest_original_is_that_of_a_loop_over_moves_and_mirrors():
    rng = np.random.default_rng(0)
    images, originals = (rng.random((n, 1, 32, 48), dtype=np.float32) for n in (19, 7))

    def blocks(image: np.ndarray, down: int = 0, right: int = 0) -> np.ndarray:
        inner = image[2 + down : 30 + down, 2 + right : 46 + right][:, :42]
        return inner.reshape(14, 2, 14, 3).mean(axis=(1, 3)).ravel()

    expected = [
        max(
            np.corrcoef(blocks(image, down, right), blocks(original[0]))[0, 1]
            for original in originals
            for image in (x[0], x[0, :, ::-1])
            for down in range(-2, 3)
            for right in range(-2, 3)
        )
        for x in images
    ]
    assert nearest_original(images, inner_features(originals)) == pytest.approx(expected, abs=1e-5)
    assert len(nearest_original(images[:0], inner_features(originals))) == 0


def test_a_search_over_all_moves_takes_seconds():
    rng = np.random.default_rng(0)
    images, originals = (rng.random((n, 1, 64, 64), dtype=np.float32) for n in (300, 2000))
    features = inner_features(originals)
    started = time.process_time()
    nearest_original(images, features)
    assert time.process_time() - started < 10, "thousands with thousands in less than a minute"


@pytest.mark.parametrize(
    "change", ["none", "noise", "dimmed", "shifted", "shifted by two", "shifted, edge repeated", "mirrored", "both"]
)
def test_planted_copies_are_found(change):
    rng = np.random.default_rng(1)
    copies = TRAIN.pixels[::6]
    changed = {
        "none": lambda x: x,
        "noise": lambda x: x + 0.1 * rng.standard_normal(x.shape),
        "dimmed": lambda x: 0.1 + 0.7 * x,
        "shifted": lambda x: np.roll(x, 1, axis=3),
        "shifted by two": lambda x: np.roll(x, (2, -2), axis=(2, 3)),
        "shifted, edge repeated": lambda x: np.pad(x, ((0, 0), (0, 0), (0, 2), (2, 0)), mode="edge")[:, :, 2:, :-2],
        "mirrored": lambda x: x[..., ::-1],
        "both": lambda x: np.roll(x[..., ::-1], (-2, -1), axis=(2, 3)),
    }[change](copies)
    fresh = rng.random((20, 8, 8)).repeat(SIZE // 8, axis=1).repeat(SIZE // 8, axis=2)[:, None]
    share = _share(np.concatenate([changed, fresh]))
    assert share["pixels"] == pytest.approx(len(copies) / (len(copies) + 20), abs=0.06)


def test_unseen_people_are_no_copies():
    lines = _lines(real_images("u", 60).pixels)
    for by in ("pixels", "frozen"):
        # The threshold rests on 72 held-out images of 24 people here.
        assert lines[f"memorised_share.{by}.v1"].value < 0.15
        assert is_silent(lines[f"memorised_excess.{by}.v1"], 0.0)


def _half_copies() -> np.ndarray:
    """As many images as there are real ones in T: those of every other patient are copies, the others noise."""
    pixels = np.random.default_rng(2).random(real_images("t").pixels.shape, dtype=np.float32)
    copied = real_images("t").cohort.patient_index % 2 == 0
    pixels[copied] = TRAIN.pixels[: copied.sum()]
    return pixels


def test_the_excess_is_what_an_alarm_reads():
    for sources in (None, tuple((i,) for i in range(72))):
        lines = _lines(_half_copies(), sources)
        for by in ("pixels", "frozen"):
            share, excess = lines[f"memorised_share.{by}.v1"], lines[f"memorised_excess.{by}.v1"]
            expected = share.extra["share_of_real_held_out"]
            assert excess.value == pytest.approx(share.value - expected, abs=1e-5)
            assert excess.low > 0.15, "half of them are copies"
            low, high = share.extra["share_of_real_held_out_95"]
            assert low <= expected <= high < 0.3, "24 patients"


def test_patients_are_drawn_where_images_have_sources():
    n = 72
    one = tuple((i,) for i in range(n))
    two = tuple((i, (i + 3) % n) for i in range(n))  # of this patient and the next
    made_from = {"1": one, "k": two, "0": None}
    found = {kind: _lines(_half_copies(), s)["memorised_share.pixels.v1"] for kind, s in made_from.items()}
    assert {kind: line.value for kind, line in found.items()} == dict.fromkeys("1k0", 0.5)
    units = {kind: (line.extra["unit"], line.extra["n_units"], line.n_patients) for kind, line in found.items()}
    assert units == {
        "1": ("patient", 24, 24),
        "k": ("set of source patients", 24, 24),
        "0": ("released image", n, None),
    }
    # A share of one half: 1.96 standard errors of 24 patients, and of 72 images.
    for kind, drawn in (("1", 24), ("k", 24), ("0", n)):
        half = (found[kind].high - found[kind].low) / 2
        assert half == pytest.approx(1.96 * 0.5 / np.sqrt(drawn), rel=0.2), kind


def test_limits_at_a_bound_are_those_of_the_units_released():
    """A release without a copy: the patients of T, who are asked for the control, say nothing of it."""
    pixels = np.random.default_rng(4).random((100, 1, SIZE, SIZE), dtype=np.float32)
    line = _lines(pixels)["memorised_share.pixels.v1"]
    assert (line.value, line.low) == (0.0, 0.0) and line.high == pytest.approx(0.037, abs=5e-4)
    assert line.high == pytest.approx(wilson_interval(0, 100).high, abs=1e-6)
    two = tuple((i, (i + 3) % 72) for i in range(72))
    pixels = np.random.default_rng(4).random((72, 1, SIZE, SIZE), dtype=np.float32)
    line = _lines(pixels, two)["memorised_share.pixels.v1"]
    assert line.high == pytest.approx(wilson_interval(0, line.extra["n_units"]).high, abs=1e-6)


class _Projected(EmbeddingAttacker):
    """Looks at images through a random projection of its seed."""

    def fit(self, knowledge: AttackerKnowledge, seed: int) -> None:
        axes = np.random.default_rng(seed).standard_normal((SIZE * SIZE, 6))
        self.use(lambda pixels: (flat(pixels) @ axes).astype(np.float32))


def test_figures_are_means_over_seeds_each_with_a_threshold_of_its_own():
    def table(seeds: tuple[int, ...]) -> dict[str, Result]:
        attack = MemorisationAttack(AttackerPool({"projected": lambda: _Projected("projected")}), seeds, 50)
        attack.fit(_knowledge())
        release = Release("drawn", _half_copies(), ((),) * 72)
        return {r.name: r for r in attack.score(Judged(real_images("t"), release), RunContext("x", "p"))}

    three, single = table((0, 1, 2)), [table((seed,)) for seed in range(3)]
    for name in ("memorised_share.projected.v1", "memorised_excess.projected.v1"):
        assert three[name].value == pytest.approx(np.mean([t[name].value for t in single]), abs=1e-5)
        thresholds = [t[name].extra["threshold"] for t in single]
        assert len(set(thresholds)) == 3
        assert three[name].extra["threshold"] == pytest.approx(np.mean(thresholds), abs=1e-5)
        assert three[name].extra["attacker_seeds"] == [0, 1, 2]
    pixels, alone = three["memorised_share.pixels.v1"], single[0]["memorised_share.pixels.v1"]
    assert (pixels.value, pixels.low, pixels.high) == (alone.value, alone.low, alone.high), "pixels have no seed"
    with pytest.raises(UsageError, match="GM-U316"):
        MemorisationAttack(AttackerPool({}), ())


def test_encoders_of_real_images_look_where_there_are_some():
    class Refitted(FrozenAttacker):
        def fit(self, knowledge: AttackerKnowledge, seed: int) -> None:
            raise AssertionError("it has nothing to add")

    attack = MemorisationAttack(AttackerPool({"frozen": FrozenAttacker, "adaptive_cross": Refitted}), n_boot=10)
    attack.fit(_knowledge())
    release = Release("drawn", _half_copies(), ((),) * 72)
    lines = attack.score(Judged(real_images("t"), release), RunContext("x", "p"))
    assert {r.attacker for r in lines} == {None, "frozen"}


def test_training_images_must_be_known():
    attack = MemorisationAttack(AttackerPool({"frozen": FrozenAttacker}))
    known = knowledge("unchanged", frozen=flat)
    split = Cohort(tuple(replace(r, split="A") for r in TRAIN.cohort), role_scheme="split")
    with pytest.raises(UsageError, match="GM-U325"):
        attack.fit(replace(known, training=RealImages(split, TRAIN.pixels)))
