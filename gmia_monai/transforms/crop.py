"""Crops of the paper's preprocessing: the black border away, then the largest square around a centre (GMIA, section 3).

Both record their box in the image's `Frame`, where it has one, so that `restore` can undo them.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from monai.config import KeysCollection
from monai.transforms import MapTransform
from scipy import ndimage

from gmia_monai.errors import UsageError
from gmia_monai.transforms.frame import Box, frame_key, plane
from gmia_monai.typing import MIN_IMAGE_SIZE

__all__ = ["BorderCropd", "CentreSquared", "border_box", "square_box"]

_EIGHT = np.ones((3, 3), dtype=bool)


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


class BorderCropd(MapTransform):
    """Crop ``[1, h, w]`` to `border_box`.

    Args:
        keys: keys of the images.
        threshold: grey value in [0, 1] above which a pixel belongs to the picture.
        allow_missing_keys: pass over keys that are absent.

    Raises:
        UsageError: GM-U065 where an image is not ``[1, h, w]``.
    """

    def __init__(self, keys: KeysCollection, threshold: float = 10 / 255, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.threshold = threshold

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        result = dict(data)
        for key in self.key_iterator(result):
            _crop(result, key, border_box(plane(result, key), self.threshold))
        return result


class CentreSquared(MapTransform):
    """Crop ``[1, h, w]`` to `square_box`.

    Args:
        keys: keys of the images.
        mask_key: key of a mask ``[1, h, w]`` of the same size; its bounding box gives the centre.
        allow_missing_keys: pass over keys that are absent.

    Raises:
        UsageError: GM-U062 where mask and image differ in size, GM-U065 where one is not ``[1, h, w]``.
    """

    def __init__(self, keys: KeysCollection, mask_key: str | None = None, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.mask_key = mask_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        result = dict(data)
        mask = None if self.mask_key is None else plane(data, self.mask_key) > 0
        for key in self.key_iterator(result):
            shape = plane(result, key).shape
            if mask is not None and mask.shape != shape:
                raise UsageError("GM-U062", "mask and image differ in size", got=mask.shape, expected=shape)
            _crop(result, key, square_box(*shape, mask))
        return result


def _crop(result: dict[Hashable, Any], key: Any, box: Box) -> None:
    result[key] = result[key][..., box.top : box.top + box.height, box.left : box.left + box.width].contiguous()
    if (record := frame_key(key)) in result:
        result[record] = result[record].cropped(box)


def _filled(bright: Bool[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    """Regions with their holes: everything but the dark that reaches the image's border (4-connected)."""
    dark, _ = ndimage.label(~bright)
    outer = np.unique(np.concatenate([dark[0], dark[-1], dark[:, 0], dark[:, -1]]))
    return ~np.isin(dark, outer[outer > 0])
