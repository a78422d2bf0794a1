"""Systems give an image the same pixels whatever its neighbours, resume from finished units, and round to 8 bits."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from attack_cohorts import real_images
from tiny_bundle import save_tiny

from gmia_monai.anonymizers import (
    ANONYMIZERS,
    GMIA,
    Anonymizer,
    ImageAnonymizer,
    Noise,
    Outcome,
    Reconstruction,
    Shuffled,
    Unchanged,
    UnitStore,
)
from gmia_monai.anonymizers.base import image_seeds
from gmia_monai.networks import load_anonymizer

STEPS = {"max_steps": 2, "min_steps": 2, "lambda_id": 1.0, "margin_cos": -1.0}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    return save_tiny(tmp_path_factory.mktemp("models"))


class _Counting(Unchanged):
    """Counts what it is asked for; stops in the middle when told to."""

    def __init__(self, stop_after: int = 10**9) -> None:
        super().__init__()
        self.unit_size, self.asked, self.stop_after = 4, 0, stop_after

    def anonymize_batch(self, images, seeds):
        if self.asked >= self.stop_after:
            raise KeyboardInterrupt
        self.asked += len(images)
        return super().anonymize_batch(images, seeds)


def test_every_system_is_an_anonymizer(models):
    made = [Unchanged(), Noise(), Shuffled(), Reconstruction.from_weights(models), GMIA.from_weights(models, **STEPS)]
    assert {type(system) for system in made} <= set(ANONYMIZERS.values())  # the others have files of their own
    real = real_images("t", 2)
    for system in made:
        release = system.anonymize(real, seed=1)
        assert isinstance(system, Anonymizer) and release.system == system.name and release.kind == "one_to_one"
        levels = release.pixels * 255
        assert np.abs(levels - np.rint(levels)).max() < 1e-4


def test_unchanged_is_the_image_and_noise_depends_on_seed_and_image():
    real = real_images("t", 3)
    assert np.abs(Unchanged().anonymize(real).pixels - real.pixels).max() <= 0.5 / 255 + 1e-6
    first, again, other = (Noise().anonymize(real, seed).pixels for seed in (0, 0, 1))
    assert np.array_equal(first, again)
    assert abs(np.corrcoef(first.ravel(), other.ravel())[0, 1]) < 0.05
    assert first.mean() == pytest.approx(0.5, abs=0.02) and first.std() == pytest.approx(12**-0.5, abs=0.02)
    reversed_order = Noise().anonymize(real.take(np.arange(len(real))[::-1])).pixels[::-1]
    assert np.array_equal(first, reversed_order), "an image has its own seed, wherever it stands"


def test_shuffled_gives_each_image_to_somebody_else():
    real = real_images("t", 30)
    first, again, other = (Shuffled().anonymize(real, seed).pixels for seed in (0, 0, 1))
    assert np.array_equal(first, again) and not np.array_equal(first, other)
    levels = np.rint(real.pixels * 255).astype(int).reshape(len(real), -1)
    found = np.rint(first * 255).astype(int).reshape(len(real), -1)
    assert sorted(map(tuple, found)) == sorted(map(tuple, levels)), "the same images"
    assert (found == levels).all(1).mean() < 0.1, "in other places"


def test_seeds_differ_between_images_and_seeds():
    pixels = real_images("t", 3).pixels
    seeds = image_seeds(pixels, 0) + image_seeds(pixels, 1)
    assert len(set(seeds)) == 2 * len(pixels)


def test_reconstruction_is_the_auto_encoder(models):
    real = real_images("t", 2)
    with torch.no_grad():
        expected = load_anonymizer(models)(torch.from_numpy(real.pixels)).numpy()
    assert np.abs(Reconstruction.from_weights(models).anonymize(real).pixels - expected).max() <= 0.5 / 255 + 1e-5


def test_gmia_moves_away_from_the_reconstruction_and_says_what_it_did(models):
    pixels = real_images("t", 2).pixels
    released, outcomes = GMIA.from_weights(models, **STEPS).anonymize_pixels(pixels)
    assert outcomes == [Outcome(False, 2)] * len(pixels)
    start = Reconstruction.from_weights(models).anonymize_pixels(pixels)[0]
    assert np.abs(released - start).max() > 1 / 255


def test_a_release_says_how_its_images_came_out_also_from_finished_units(models, tmp_path):
    real, store = real_images("t", 2), UnitStore(tmp_path)
    system = GMIA.from_weights(models, **STEPS, lr=0.2, betas=(0.5, 0.99))
    for _ in range(2):
        found = system.anonymize(real, store=store).convergence
        assert found.steps.tolist() == [2] * len(real) and not found.converged.any()
    assert found.settings["betas"] == [0.5, 0.99] and found.settings["stop"] == "paper", "defaults as well"
    assert json.loads(json.dumps(found.settings)) == found.settings
    assert "learning rate 0.2, betas 0.5 and 0.99, at most 2 steps; margin -1" in found.description
    assert Unchanged().anonymize(real).convergence is None


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({}, "gmia m=-0.5"),
        ({"margin_cos": 0.0}, "gmia m=0"),
        ({"lambda_ut": 0.0}, "gmia m=-0.5 id only"),
        ({"lambda_id": 0.0}, "gmia ut only"),
    ],
)
def test_the_name_tells_settings_apart(models, settings, name):
    assert GMIA.from_weights(models, **settings).name == name


def test_a_stopped_run_goes_on(tmp_path):
    pixels = real_images("t", 4).pixels
    store = UnitStore(tmp_path / "units")
    with pytest.raises(KeyboardInterrupt):
        _Counting(stop_after=8).anonymize_pixels(pixels, store=store)
    rest = _Counting()
    whole, outcomes = rest.anonymize_pixels(pixels, store=store)
    assert rest.asked == len(pixels) - 8 and len(outcomes) == len(pixels)
    assert np.array_equal(whole, _Counting().anonymize_pixels(pixels)[0])


def test_units_of_another_seed_or_image_are_not_mistaken(tmp_path):
    real = real_images("t", 2)
    store = UnitStore(tmp_path)
    first = Noise().anonymize(real, 0, store).pixels
    assert not np.array_equal(first, Noise().anonymize(real, 1, store).pixels)
    assert np.array_equal(first, Noise().anonymize(real, 0, store).pixels)
    fixed = _Counting()
    fixed.anonymize(real, 0, store)
    fixed.anonymize(real, 1, store)
    assert fixed.asked == len(real), "a system without chance is the same for every seed"


def test_a_damaged_unit_is_made_again(tmp_path):
    real = real_images("t", 1)
    store = UnitStore(tmp_path)
    whole = Unchanged().anonymize(real, 0, store).pixels
    for path in tmp_path.rglob("*.npz"):
        path.write_bytes(path.read_bytes()[:40])
    assert np.array_equal(Unchanged().anonymize(real, 0, store).pixels, whole)


def test_the_base_class_asks_for_the_one_method():
    with pytest.raises(TypeError, match="anonymize_batch"):
        ImageAnonymizer("x", "x")  # type: ignore[abstract]
