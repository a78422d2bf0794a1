"""Boxes of the preprocessing (GMIA, section 3): the black border away, then the largest square around a centre."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from scipy import ndimage

from gmia_monai.typing import MIN_IMAGE_SIZE

__all__ = ["Box", "border_box", "square_box"]

_EIGHT = np.ones((3, 3), dtype=bool)


@dataclass(frozen=True)
class Box:
    """A rectangle in pixels of the input: rows ``top`` to ``top + height``, columns ``left`` to ``left + width``."""

    top: int
    left: int
    height: int
    width: int


def border_box(image: Float[np.ndarray, "h w"], threshold: float = 10 / 255) -> Box:
    """Bounding box of the largest bright region, holes counted in (so by the area inside its outer contour).

    Args:
        image: [0, 1].
        threshold: grey value above which a pixel belongs to the picture; 10 of 255 in the paper's code.

    Returns:
        the box; the whole image where nothing is bright or the box would be under 32 pixels a side.
    """
    whole = Box(0, 0, *image.shape)
    # Half a grey level of slack: 10/255 itself is not above 10/255 in float32.
    bright = image > threshold + 1e-6
    labels, n_regions = ndimage.label(_filled(bright), structure=_EIGHT)
    if n_regions == 0:
        return whole
    largest = 1 + int(np.argmax(np.bincount(labels.ravel())[1:]))
    rows, cols = ndimage.find_objects(labels)[largest - 1]
    box = Box(rows.start, cols.start, rows.stop - rows.start, cols.stop - cols.start)
    return whole if min(box.height, box.width) < MIN_IMAGE_SIZE else box


def square_box(rows: int, cols: int, mask: Bool[np.ndarray, "h w"] | None = None) -> Box:
    """The largest square inside the image around a centre: half a side is the centre's distance to the nearest border.

    Args:
        rows: rows of the image.
        cols: columns of the image.
        mask: region (lungs) whose bounding box gives the centre; None, an empty one, or one so near a border that the
            square would be under 32 pixels a side: the centre of the image.
    """
    centre_row, centre_col = rows / 2, cols / 2
    if mask is not None and mask.any():
        on_rows, on_cols = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        row, col = (on_rows[0] + on_rows[-1] + 1) / 2, (on_cols[0] + on_cols[-1] + 1) / 2
        if 2 * min(row, col, rows - row, cols - col) >= MIN_IMAGE_SIZE:
            centre_row, centre_col = row, col
    side = int(2 * min(centre_row, centre_col, rows - centre_row, cols - centre_col))
    top, left = int(centre_row - side / 2), int(centre_col - side / 2)
    return Box(top, left, side, side)


def _filled(bright: Bool[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    """Regions with their holes: everything but the dark that reaches the image's border (4-connected)."""
    dark, _ = ndimage.label(~bright)
    outer = np.unique(np.concatenate([dark[0], dark[-1], dark[:, 0], dark[:, -1]]))
    return ~np.isin(dark, outer[outer > 0])
