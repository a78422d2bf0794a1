"""Resampling by two small matrices, one an axis: exact area average downwards, bilinear upwards."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from jaxtyping import Float

__all__ = ["axis_weights", "resize_image"]


@lru_cache(maxsize=64)
def axis_weights(n_in: int, n_out: int) -> Float[np.ndarray, "n_out n_in"]:
    """Weights of one axis, each row summing to 1 (float32, read-only).

    Downwards an output pixel is the mean of the interval that it covers, with the exact share of pixels cut by its ends
    (`torch`'s ``area`` rounds the interval to whole pixels). Upwards it is bilinear with pixel centres at halves
    (``align_corners=False``), edges repeated.
    """
    weights = np.zeros((n_out, n_in), dtype=np.float64)
    if n_out <= n_in:
        edges = np.arange(n_out + 1) * (n_in / n_out)
        starts, ends = edges[:-1, None], edges[1:, None]
        pixel = np.arange(n_in)[None]
        weights = np.clip(np.minimum(ends, pixel + 1) - np.maximum(starts, pixel), 0.0, 1.0)
    else:
        centre = np.clip((np.arange(n_out) + 0.5) * (n_in / n_out) - 0.5, 0, n_in - 1)
        lower = np.minimum(np.floor(centre).astype(int), max(n_in - 2, 0))
        upper = np.minimum(lower + 1, n_in - 1)
        np.add.at(weights, (np.arange(n_out), lower), 1.0 - (centre - lower))
        np.add.at(weights, (np.arange(n_out), upper), centre - lower)
    weights = (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
    weights.flags.writeable = False
    return weights


def resize_image(image: Float[np.ndarray, "h w"], shape: tuple[int, int]) -> Float[np.ndarray, "h2 w2"]:
    """``image`` at ``shape`` (rows, columns), float32; the same values where the shape is the same already."""
    image = np.asarray(image, dtype=np.float32)
    if image.shape == tuple(shape):
        return image.copy()
    return axis_weights(image.shape[0], shape[0]) @ image @ axis_weights(image.shape[1], shape[1]).T
