"""Planted copies: what each kind does to an image, and the share of them that a filter finds."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from attack_cohorts import real_images
from tiny_bundle import phantoms
from tiny_diffusion import save_diffusion, tiny_diffusion

from gmia_monai.anonymizers.privacy_filter import PrivacyFilter
from gmia_monai.errors import UsageError
from gmia_monai.evaluation.planted_copies import KINDS, NETWORK_KINDS, filter_lines, planted_copies
from gmia_monai.metrics.results import RunContext
from gmia_monai.networks import load_network

IMAGES = (phantoms(3) * 255).round() / 255
CONTEXT = RunContext("filter", "tiny")


@pytest.mark.parametrize("kind", [*KINDS, *NETWORK_KINDS])
def test_copies_are_images_of_8_bits_and_repeat(kind):
    network = tiny_diffusion()
    found = planted_copies(IMAGES, kind, network, seed=1, n_steps=10)
    assert found.shape == IMAGES.shape and 0.0 <= found.min() and found.max() <= 1.0
    assert torch.allclose((found * 255).round(), found * 255, atol=1e-3)
    assert torch.equal(found, planted_copies(IMAGES, kind, network, seed=1, n_steps=10))
    assert torch.equal(found, IMAGES) == (kind == "unchanged")


def test_kinds_do_what_they_say():
    def copy(kind):
        return planted_copies(IMAGES, kind)

    assert torch.equal(copy("mirrored"), IMAGES.flip(-1))
    assert torch.equal(copy("shift_4px")[..., 4:, 4:], IMAGES[..., :-4, :-4])
    assert torch.equal(copy("shift_4px")[..., 4:, 0], IMAGES[..., :-4, 0]), "the border goes on"
    middle = (IMAGES > 0.25) & (IMAGES < 0.75)
    assert torch.allclose((copy("brighter_10") - IMAGES)[middle], torch.tensor(0.1), atol=3e-3)
    assert torch.allclose((copy("darker_20") - IMAGES)[middle], torch.tensor(-0.2), atol=3e-3)
    for kind, sd in (("noise_05", 0.05), ("noise_20", 0.2)):
        grey = torch.full((4, 1, 64, 64), 0.5)
        assert float((planted_copies(grey, kind) - 0.5).std()) == pytest.approx(sd, rel=0.03)
    flat = torch.full((1, 1, 32, 32), 0.8)
    assert torch.allclose(planted_copies(flat, "blur_2px"), flat, atol=3e-3), "no dark border"
    assert copy("blur_2px").diff(dim=-1).abs().mean() < copy("blur_1px").diff(dim=-1).abs().mean()


@pytest.mark.parametrize("sigma", [1, 2])
def test_blur_is_a_gaussian_integrated_over_pixels_with_the_border_repeated(sigma):
    ends = [math.erf((i - 0.5) / (sigma * math.sqrt(2))) / 2 for i in range(-4 * sigma, 4 * sigma + 2)]
    taps = np.diff(ends)
    expected = np.pad(IMAGES[0, 0].double().numpy(), 4 * sigma, mode="edge")
    for axis in (0, 1):
        expected = np.apply_along_axis(np.convolve, axis, expected, taps, mode="valid")
    assert np.abs(KINDS[f"blur_{sigma}px"](IMAGES, [])[0, 0].numpy() - expected).max() < 1e-5


def test_the_generator_redraws_by_a_share_of_the_noise_levels():
    network = tiny_diffusion()
    start, little, much = (
        planted_copies(IMAGES, kind, network, n_steps=10) for kind in ("reconstruction", "redraw_20", "redraw_80")
    )
    assert torch.allclose(start, network.reconstruct(IMAGES), atol=2.1 / 255)
    assert 0 < (little - start).abs().mean() < (much - start).abs().mean()


@pytest.mark.parametrize(("kind", "network"), [("rotated", True), ("reconstruction", False), ("redraw_20", False)])
def test_unknown_kinds_are_refused(kind, network):
    with pytest.raises(UsageError) as caught:
        planted_copies(IMAGES, kind, tiny_diffusion() if network else None)
    assert caught.value.code == "GM-U378"


def test_lines_say_what_share_is_rejected(tmp_path):
    models = save_diffusion(tmp_path)
    networks = [load_network(models / f"{name}.safetensors") for name in ("identity", "verifier")]
    training, others = real_images("s", 8), real_images("v", 4)
    found = PrivacyFilter(training, *networks)  # type: ignore[arg-type]
    rounded = planted_copies(torch.from_numpy(training.pixels), "unchanged")
    found.threshold_logit = float(found.scores(rounded).min()) - 1e-5
    some = training.take(np.arange(3, 18))
    lines = filter_lines(found, some, others, CONTEXT, kinds=["unchanged", "noise_20"], n_boot=50)
    assert [line.name for line in lines] == [
        "privacy_filter_recall.unchanged.v1",
        "privacy_filter_recall.noise_20.v1",
        "privacy_filter_rejection.other_people.v1",
    ]
    same, noisy, people = lines
    assert (same.value, same.high, same.n_patients, same.n_images) == (1.0, 1.0, 5, 15) and same.low < 1.0
    assert same.extra["mean_absolute_change"] < 1 / 255 and same.extra["best_match_is_the_source"] == 1.0
    assert noisy.extra["mean_absolute_change"] > 0.05
    expected = found.rejects(planted_copies(torch.from_numpy(some.pixels), "noise_20")).double().mean()
    assert noisy.value == pytest.approx(float(expected), abs=1e-6)
    expected = found.rejects(torch.from_numpy(others.pixels)).double().mean()
    assert people.value == pytest.approx(float(expected), abs=1e-6) and people.n_images == len(others)
    every = filter_lines(found, some.take([0]), others, CONTEXT, tiny_diffusion(), n_steps=10, n_boot=10)
    assert len(every) == len(KINDS) + len(NETWORK_KINDS) + 1
