"""Radiographs that lie as they should are told from those that do not."""

from __future__ import annotations

import numpy as np
import pytest

from gmia_monai.release.layout import ODD, Layout, layout_of, pattern

RNG = np.random.default_rng(0)


def _chests(seed: int) -> np.ndarray:
    """Two dark lungs over a bright belly, a heart on one side, and much that differs."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:64, :64] / 63
    found = []
    for dx, dy, size, light in rng.uniform(-1, 1, (150, 4)) * (0.05, 0.05, 0.1, 0.1):
        lungs = sum(np.exp(-(((x - c - dx) / 0.14) ** 2 + ((y - 0.42 - dy) / (0.3 + size)) ** 2)) for c in (0.27, 0.73))
        heart = np.exp(-(((x - 0.6 - dx) / 0.12) ** 2 + ((y - 0.62 - dy) / 0.16) ** 2))
        image = 0.55 + light - 0.45 * lungs + 0.3 * heart + 0.2 * y + rng.normal(0, 0.05, x.shape)
        found.append(np.clip(image, 0, 1))
    return np.stack(found).astype(np.float32)


@pytest.fixture(scope="module")
def images():
    return [_chests(seed) for seed in range(3)]


@pytest.fixture(scope="module")
def layout(images):
    return layout_of(images[0], images[1], within=0.97)


def test_pattern_is_the_mean_of_cells_without_brightness_and_contrast():
    image = RNG.random((1, 64, 64), dtype=np.float32)
    cells = np.array([[image[0, 4 * i : 4 * i + 4, 4 * j : 4 * j + 4].mean() for j in range(16)] for i in range(16)])
    np.testing.assert_allclose(pattern(image)[0], ((cells - cells.mean()) / cells.std()).ravel(), atol=1e-5)
    np.testing.assert_allclose(pattern(0.3 * image + 0.2), pattern(image), atol=1e-4)
    assert np.isfinite(pattern(np.zeros((2, 32, 32), np.float32))).all()


@pytest.mark.parametrize("name", ODD)
def test_what_lies_otherwise_is_strange(layout, images, name):
    changed = np.ascontiguousarray(ODD[name](images[2]))
    assert changed.shape == images[2].shape and (layout.strangeness(changed) > 1).mean() > 0.9


def test_the_limit_is_that_of_known_images(layout, images):
    assert (layout.strangeness(images[1]) > 1).mean() == pytest.approx(0.03, abs=0.01)
    assert (layout.strangeness(images[2]) > 1).mean() < 0.15
    np.testing.assert_allclose(
        np.log(layout.strangeness(images[2][:5])), pattern(images[2][:5]) @ layout.weights + layout.bias, rtol=1e-6
    )


def test_odds_are_numbers_whatever_comes(layout):
    assert np.isfinite(Layout(layout.weights * 1e6, 0.0).strangeness(RNG.random((3, 32, 32), dtype=np.float32))).all()
