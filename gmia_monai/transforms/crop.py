"""Crops of the paper's preprocessing: the black border away, then the largest square around a centre (GMIA, section 3).

Both record their box in the image's `Frame`, where it has one, so that `restore` can undo them.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

from monai.config import KeysCollection
from monai.transforms import MapTransform

from gmia_monai.errors import UsageError
from gmia_monai.transforms.boxes import Box, border_box, square_box
from gmia_monai.transforms.frame import frame_key, plane

__all__ = ["BorderCropd", "CentreSquared"]


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
