"""DP-Pix: its formula, the size of its noise, its inequality, and what it promises to a whole image."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from attack_cohorts import real_images

from gmia_monai.anonymizers.dp_pix import DPPix, laplace_noise
from gmia_monai.errors import UsageError


def _density(x: float, centre: float, scale: float) -> float:
    return math.exp(-abs(x - centre) / scale) / (2 * scale)


def test_it_is_the_formula():
    images = torch.rand(2, 1, 8, 12, generator=torch.Generator().manual_seed(0))
    system = DPPix(b=4, m=2, eps=3.0)
    released, outcomes = system.anonymize_batch(images, [5, 6])
    assert released.dtype == torch.float32 and len(outcomes) == 2
    for n, seed in enumerate((5, 6)):
        noise = laplace_noise((1, 2, 3), 2 / (4**2 * 3.0), seed)
        for r in range(8):
            for c in range(12):
                i, j = r // 4, c // 4
                mean = sum(float(images[n, 0, 4 * i + y, 4 * j + x]) for y in range(4) for x in range(4)) / 16
                expected = min(1.0, max(0.0, mean + float(noise[0, i, j])))
                assert float(released[n, 0, r, c]) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(("b", "scale"), [(2, 2.5), (4, 0.625), (8, 0.15625)])
def test_the_noise_has_the_published_scale(b, scale):
    system = DPPix(b=b)
    assert system.scale == pytest.approx(scale)
    draws = laplace_noise((200_000,), system.scale, 0).numpy()
    assert np.abs(draws).mean() == pytest.approx(scale, rel=0.01)
    assert draws.std() == pytest.approx(math.sqrt(2) * scale, rel=0.02)
    assert draws.mean() == pytest.approx(0.0, abs=0.02 * scale)
    for q in (0.01, 0.25, 0.9):  # the inverse of the distribution function, not of some other one
        exact = scale * math.log(2 * q) if q < 0.5 else -scale * math.log(2 * (1 - q))
        assert np.quantile(draws, q) == pytest.approx(exact, abs=0.05 * scale)


def test_cells_of_a_release_have_that_noise():
    system = DPPix(b=2, eps=20.0)  # little enough that the cut to [0, 1] cuts next to nothing
    images = torch.full((16, 1, 64, 64), 0.5)
    released = system.anonymize_batch(images, list(range(16)))[0]
    assert (released[:, :, ::2, ::2] - 0.5).abs().mean().item() == pytest.approx(system.scale, rel=0.03)
    assert torch.equal(released[:, :, ::2, ::2], released[:, :, 1::2, 1::2])


@pytest.mark.parametrize(("b", "m", "eps"), [(2, 1, 0.1), (4, 3, 1.0), (8, 16, 0.5)])
def test_neighbours_are_as_likely_as_eps_allows(b, m, eps):
    system = DPPix(b, m, eps)
    image = np.zeros((b, b))
    neighbour = image.copy()
    neighbour.ravel()[:m] = 1.0  # the farthest that m pixels can go
    ratios = [
        _density(x, image.mean(), system.scale) / _density(x, neighbour.mean(), system.scale)
        for x in np.linspace(-3 * system.scale, 3 * system.scale + 1, 401)
    ]
    assert max(ratios) <= math.exp(eps) * (1 + 1e-9) and 1 / min(ratios) <= math.exp(eps) * (1 + 1e-9)
    assert max(ratios) == pytest.approx(math.exp(eps)), "no more noise than it needs"


def test_a_histogram_of_releases_obeys_the_inequality():
    system = DPPix(b=2, m=1, eps=1.0)
    seeds = list(range(20_000))
    cells = [torch.zeros(len(seeds), 1, 2, 2), torch.zeros(len(seeds), 1, 2, 2)]
    cells[1][:, :, 0, 0] = 1.0
    first, second = (
        system.anonymize_batch(images, [s + k * len(seeds) for s in seeds])[0][:, 0, 0, 0]
        for k, images in enumerate(cells)
    )
    shares = [torch.histc(x, 5, 0.0, 1.0) / len(seeds) for x in (first, second)]
    assert (shares[0] / shares[1]).max() <= math.e * 1.1 and (shares[1] / shares[0]).max() <= math.e * 1.1
    assert (shares[0] / shares[1] - 1).abs().max() > 0.5, "the two do differ"


def test_a_whole_image_is_not_protected():
    assert DPPix(b=8, m=1, eps=0.1).whole_image_epsilon(256) == pytest.approx(6553.6)
    assert DPPix(b=8, m=1, eps=0.1).whole_image_epsilon(64) == pytest.approx(409.6)
    assert DPPix(m=10, eps=2.0).whole_image_epsilon(5) == pytest.approx(6.0), "25 pixels are 3 steps of 10"
    assert "6553.6" in DPPix().description


def test_name_seed_and_release():
    real = real_images("t", 2)
    system = DPPix.from_weights(None, b=4, eps=50.0)
    assert system.name == "dp-pix b=4 m=1 eps=50" and DPPix().name == "dp-pix b=8 m=1 eps=0.1"
    first, again, other = (system.anonymize(real, seed) for seed in (0, 0, 1))
    assert np.array_equal(first.pixels, again.pixels) and not np.array_equal(first.pixels, other.pixels)
    assert first.kind == "one_to_one" and DPPix(8, eps=0.2).fingerprint != DPPix(8).fingerprint


@pytest.mark.parametrize("setting", [{"b": 0}, {"b": 2.5}, {"m": 0}, {"eps": 0.0}, {"eps": math.inf}])
def test_unusable_settings_are_refused(setting):
    with pytest.raises(UsageError) as caught:
        DPPix(**setting)
    assert caught.value.code == "GM-U060"


def test_cells_have_to_fill_the_image():
    with pytest.raises(UsageError) as caught:
        DPPix(b=8).anonymize_batch(torch.zeros(1, 1, 16, 20), [0])
    assert caught.value.code == "GM-U060"


def test_it_tells_the_epsilon_of_a_whole_image():
    real = real_images("t", 1)
    size = real.pixels.shape[-1]
    assert DPPix(b=8, eps=0.1).figures_of(real) == {"epsilon": 0.1, "whole_image_epsilon": pytest.approx(0.1 * size**2)}
