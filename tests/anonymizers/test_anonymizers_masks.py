"""Black boxes, blur, a coarser grid and a random warp, each against a plain restatement."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from attack_cohorts import real_images
from scipy.ndimage import gaussian_filter, map_coordinates

from gmia_monai.anonymizers.base import Anonymizer
from gmia_monai.anonymizers.masks import BlackBoxes, Blur, Downsampled, RandomWarp
from gmia_monai.errors import UsageError


def _images(n: int = 2, h: int = 16, w: int = 24) -> torch.Tensor:
    return 0.1 + 0.9 * torch.rand(n, 1, h, w, generator=torch.Generator().manual_seed(0))


def test_boxes_are_black_and_the_rest_is_the_image():
    images = _images()
    kept = images.clone()
    released, outcomes = BlackBoxes(height=0.2, width=0.25).anonymize_batch(images, [0, 0])
    assert torch.equal(images, kept) and len(outcomes) == 2, "the real images stay as they are"
    for r in range(16):
        for c in range(24):
            inside = (r < 4 or r >= 12) and (c < 6 or c >= 18)  # 3.2 rows: a box covers the row that it cuts
            expected = torch.zeros(2) if inside else images[:, 0, r, c]
            assert torch.equal(released[:, 0, r, c], expected), (r, c)


def test_blur_is_a_gaussian():
    images = _images(h=24)
    released = Blur(sigma_px=1.5).anonymize_batch(images, [0, 0])[0]
    for image, blurred in zip(images.numpy(), released.numpy(), strict=True):
        expected = gaussian_filter(image[0].astype(np.float64), 1.5, mode="nearest", radius=6)
        assert np.abs(blurred[0] - expected).max() < 1e-5
    flat = torch.full((1, 1, 16, 16), 0.7)
    assert Blur(3.0).anonymize_batch(flat, [0])[0].sub(0.7).abs().max() < 1e-6, "no dark edges"


def test_downsampled_has_the_means_of_cells_and_less_detail():
    images = _images(1)
    released = Downsampled(4).anonymize_batch(images, [0])[0]
    means = images[0, 0].numpy().reshape(4, 4, 6, 4).mean((1, 3))
    for r, c in [(5, 7), (9, 14), (3, 3)]:
        y, x = np.clip([(r + 0.5) / 4 - 0.5, (c + 0.5) / 4 - 0.5], 0, [3, 5])
        expected = map_coordinates(means, [[y], [x]], order=1, mode="nearest")[0]
        assert float(released[0, 0, r, c]) == pytest.approx(expected, abs=1e-5)
    assert released.std() < 0.7 * images.std()


@pytest.mark.parametrize("mu", [0.01, 0.2])
def test_a_warp_is_as_large_as_it_says_and_smooth(mu):
    fields = torch.stack([RandomWarp(mu).displacement(64, 64, seed) for seed in range(4)])
    assert fields.abs().amax((1, 2, 3)).tolist() == pytest.approx([mu] * 4)
    steps = fields.diff(dim=1).abs().max()
    assert 0 < steps < mu / 3
    assert (fields[0] - fields[1]).abs().max() > mu / 2


def test_a_warp_looks_the_image_up_at_the_displaced_place():
    images = torch.rand(1, 1, 32, 32, generator=torch.Generator().manual_seed(1))
    system = RandomWarp(0.1)
    released = system.anonymize_batch(images, [7])[0][0, 0].numpy()
    field = system.displacement(32, 32, 7).numpy()
    rows, columns = np.meshgrid(np.arange(32.0), np.arange(32.0), indexing="ij")
    where = [np.clip(rows + field[..., 1] * 31 / 2, 0, 31), np.clip(columns + field[..., 0] * 31 / 2, 0, 31)]
    expected = map_coordinates(images[0, 0].numpy().astype(np.float64), where, order=1)
    assert np.abs(released - expected).max() < 1e-4
    assert np.abs(released - images[0, 0].numpy()).mean() > 0.01


@pytest.mark.parametrize("system", [BlackBoxes(), Blur(), Downsampled(), RandomWarp()], ids=lambda s: s.name)
def test_they_are_anonymizers(system):
    real = real_images("t", 2)
    first, again, other = (system.anonymize(real, seed) for seed in (0, 0, 1))
    assert isinstance(system, Anonymizer) and first.kind == "one_to_one" and first.system == system.name
    assert np.array_equal(first.pixels, again.pixels) and not np.array_equal(first.pixels, real.pixels)
    assert np.array_equal(first.pixels, other.pixels) is not system.random


def test_settings_are_told_apart():
    names = {s.name for s in (Blur(1.0), Blur(2.0), Downsampled(2), Downsampled(8), RandomWarp(0.01), RandomWarp(0.05))}
    assert len(names) == 6
    assert BlackBoxes(0.1).fingerprint != BlackBoxes(0.2).fingerprint


@pytest.mark.parametrize(
    "make",
    [
        lambda: BlackBoxes(height=0.0),
        lambda: BlackBoxes(width=0.6),
        lambda: Blur(0.0),
        lambda: Blur(math.inf),
        lambda: Downsampled(1),
        lambda: RandomWarp(0.0),
        lambda: RandomWarp(1.5),
        lambda: Downsampled(4).anonymize_batch(torch.zeros(1, 1, 10, 16), [0]),
    ],
)
def test_unusable_settings_are_refused(make):
    with pytest.raises(UsageError) as caught:
        make()
    assert caught.value.code == "GM-U078"
