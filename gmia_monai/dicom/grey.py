"""Grey values of formats that say little of themselves: the one channel of PNG and JPEG, the range of NIfTI."""

from __future__ import annotations

import numpy as np
from jaxtyping import Shaped

from gmia_monai.errors import InputError

__all__ = ["grey_channel", "nifti_range"]


def grey_channel(pixels: np.ndarray, mode: str) -> Shaped[np.ndarray, "h w"]:
    """The grey channel; colour modes pass when all colours are equal and nothing is transparent.

    Args:
        pixels: as Pillow gives them.
        mode: Pillow's word for their kind.

    Raises:
        InputError: GM-D004.
    """
    if mode in ("L", "I;16", "I;16B", "I;16L", "I"):
        return pixels
    if mode in ("LA", "RGB", "RGBA"):
        colours = pixels[..., :-1] if mode.endswith("A") else pixels
        opaque = not mode.endswith("A") or bool((pixels[..., -1] == 255).all())
        if opaque and bool((colours == colours[..., :1]).all()):
            return colours[..., 0]
    raise InputError("GM-D004", "the image is not monochrome", expected="grey, or equal colour channels")


def nifti_range(values: Shaped[np.ndarray, "h w"]) -> tuple[float, float]:
    """Values that become 0 and 1: NIfTI says nothing of its range, so bytes and [0, 1] are taken as such, others by
    their extremes."""
    low, high = float(values.min()), float(values.max())
    if values.dtype == np.uint8:
        return 0.0, 255.0
    if np.issubdtype(values.dtype, np.floating) and low >= 0.0 and high <= 1.0:
        return 0.0, 1.0
    return low, high
