"""Boxes of crops: the bright region, and the largest square around a centre."""

from __future__ import annotations

import numpy as np
import pytest
from skimage.measure import label, regionprops

from gmia_monai.transforms.boxes import Box, border_box, square_box


def framed(shape=(120, 100), top=20, left=10, height=80, width=70) -> np.ndarray:
    image = np.zeros(shape, dtype=np.float32)
    image[top : top + height, left : left + width] = 0.5
    return image


def test_border_box_takes_the_largest_region_by_outer_contour():
    image = framed()
    image[30:90, 20:70] = 0.0  # a dark hole: the ring still encloses the larger area
    image[2:18, 85:99] = 1.0  # a bright marker beside it
    image[105:119, :] = 10 / 255  # not above the threshold
    assert border_box(image) == Box(20, 10, 80, 70)


def test_border_box_agrees_with_skimage_on_scattered_regions():
    image = np.random.default_rng(3).random((90, 110)).astype(np.float32)
    image = np.where(image > 0.55, image, 0)
    image[20:70, 30:90] = 0.9
    regions = regionprops(label(image > 10 / 255, connectivity=2))
    top, left, bottom, right = max(regions, key=lambda r: r.area_filled).bbox
    assert border_box(image) == Box(top, left, bottom - top, right - left)


def test_border_box_keeps_the_whole_image_where_it_finds_nothing():
    assert border_box(np.zeros((50, 40), np.float32)) == Box(0, 0, 50, 40)
    assert border_box(framed((50, 40), 5, 5, 10, 10)) == Box(0, 0, 50, 40)
    assert border_box(np.ones((50, 40), np.float32)) == Box(0, 0, 50, 40)


@pytest.mark.parametrize(
    ("shape", "box"),
    [((100, 140), Box(0, 20, 100, 100)), ((141, 100), Box(20, 0, 100, 100)), ((64, 64), Box(0, 0, 64, 64))],
)
def test_square_of_the_whole_image(shape, box):
    assert square_box(*shape) == box
    assert square_box(*shape, np.zeros(shape, bool)) == box


def test_square_around_a_mask_reaches_the_nearest_border():
    mask = np.zeros((200, 300), bool)
    mask[60:100, 100:180] = True  # centre (80, 140): nearest border is the top, 80 away
    assert square_box(200, 300, mask) == Box(0, 60, 160, 160)
    mask[:] = False
    mask[2:6, 2:6] = True  # a square of 8 pixels would be too small
    assert square_box(200, 300, mask) == square_box(200, 300)


@pytest.mark.parametrize("seed", range(20))
def test_squares_lie_inside(seed):
    rng = np.random.default_rng(seed)
    rows, cols = rng.integers(32, 200, 2)
    mask = np.zeros((rows, cols), bool)
    mask[rng.integers(rows) :, rng.integers(cols) :] = True
    box = square_box(int(rows), int(cols), mask)
    assert box.height == box.width >= 32 and box.top >= 0 and box.left >= 0
    assert box.top + box.height <= rows and box.left + box.width <= cols
