"""Resampling against torch and against the definition of an area mean."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from gmia_monai.transforms import ResizeSquared
from gmia_monai.transforms.resample import axis_weights, resize_image

IMAGE = np.random.default_rng(4).random((48, 60)).astype(np.float32)


def test_whole_factors_downwards_are_block_means():
    expected = IMAGE.reshape(12, 4, 15, 4).mean(axis=(1, 3))
    np.testing.assert_allclose(resize_image(IMAGE, (12, 15)), expected, atol=1e-6)
    area = F.interpolate(torch.from_numpy(IMAGE)[None, None], (12, 15), mode="area")[0, 0].numpy()
    np.testing.assert_allclose(resize_image(IMAGE, (12, 15)), area, atol=1e-6)


def test_other_factors_downwards_are_exact_area_means():
    """Repeat each pixel so that input and output divide the same fine grid, then take block means."""
    fine = np.repeat(np.repeat(IMAGE, 35, axis=0), 7, axis=1)
    expected = fine.reshape(35, 48, 7, 60).mean(axis=(1, 3))
    np.testing.assert_allclose(resize_image(IMAGE, (35, 7)), expected, atol=1e-5)


def test_upwards_is_bilinear_as_in_torch():
    expected = F.interpolate(torch.from_numpy(IMAGE)[None, None], (100, 77), mode="bilinear", align_corners=False)
    np.testing.assert_allclose(resize_image(IMAGE, (100, 77)), expected[0, 0].numpy(), atol=1e-5)


@pytest.mark.parametrize(("n_in", "n_out"), [(1, 5), (5, 1), (64, 1000), (1000, 64), (33, 32), (32, 33)])
def test_weights_are_means(n_in, n_out):
    weights = axis_weights(n_in, n_out)
    assert weights.shape == (n_out, n_in) and weights.min() >= 0
    np.testing.assert_allclose(weights.sum(axis=1), 1, atol=1e-6)


def test_same_shape_is_an_untouched_copy():
    out = resize_image(IMAGE, IMAGE.shape)
    np.testing.assert_array_equal(out, IMAGE)
    assert not np.shares_memory(out, IMAGE)


def test_transform_resizes_each_key():
    out = ResizeSquared(["a", "b"], 32)({"a": torch.rand(1, 64, 64), "b": torch.from_numpy(IMAGE)[None]})
    assert out["a"].shape == out["b"].shape == (1, 32, 32)
    np.testing.assert_array_equal(out["b"][0].numpy(), resize_image(IMAGE, (32, 32)))
