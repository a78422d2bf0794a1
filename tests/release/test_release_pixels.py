"""Pixels of a release come back in the input's size, and nothing of the input with them."""

from __future__ import annotations

import numpy as np
import pytest

from gmia_monai.errors import UsageError
from gmia_monai.release.pixels import blanked, full_image, model_image, upscale

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("shape", [(200, 130), (130, 200), (128, 128), (131, 129)])
@pytest.mark.parametrize("background", ["black", "edge"])
def test_size_comes_back_and_the_square_stands_where_it_was(shape, background):
    y, x = np.mgrid[:64, :64] / 64
    square = (0.5 + 0.4 * np.sin(7 * x) * np.cos(5 * y)).astype(np.float32)
    image = full_image(square, *shape, background)
    assert image.shape == shape and 0.0 <= image.min() and image.max() <= 1.0
    again = model_image(np.rint(image * 65535).astype(np.uint16), 64)
    assert np.abs(again - square).max() < 0.02
    rows, cols = shape
    if rows > cols:
        border = image[: (rows - cols) // 2]
        assert (border == 0).all() if background == "black" else np.allclose(border, border[-1])


def test_what_is_outside_the_square_does_not_matter():
    levels = RNG.integers(0, 65536, (200, 128), dtype=np.uint16)
    other = levels.copy()
    other[:36], other[164:] = 0, 65535
    assert np.array_equal(model_image(levels, 64), model_image(other, 64))


def test_scale_and_unknown_background():
    assert upscale(2048, 1500, 64) == pytest.approx(1500 / 64)
    with pytest.raises(UsageError, match="GM-U417"):
        full_image(np.zeros((64, 64), np.float32), 64, 64, "original")


def test_blanked_boxes_hold_nothing_of_what_was_there():
    levels = RNG.integers(20_000, 30_000, (60, 80), dtype=np.uint16)
    with_text = levels.copy()
    with_text[20:30, 10:40], with_text[:8, 70:] = 65535, 0
    boxes = [(20, 10, 30, 40), (0, 70, 8, 80), (28, 35, 32, 50)]
    found = blanked(with_text, boxes)
    for top, left, bottom, right in boxes:
        part = found[top:bottom, left:right]
        assert 20_000 <= part.min() and part.max() <= 30_000
        np.testing.assert_array_equal(part, blanked(levels, boxes)[top:bottom, left:right])
    np.testing.assert_array_equal(found[45:], levels[45:])
    assert blanked(levels, [(0, 0, 60, 80)]).std() == 0 and (blanked(levels, []) == levels).all()
