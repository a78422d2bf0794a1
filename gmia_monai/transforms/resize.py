"""ResizeSquared: to the side that the model takes, exact area average downwards, bilinear upwards."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform

from gmia_monai.transforms.frame import frame_key, plane
from gmia_monai.transforms.resample import resize_image

__all__ = ["ResizeSquared"]


class ResizeSquared(MapTransform):
    """Resize ``[1, h, w]`` to ``[1, size, size]``; recorded in the image's `Frame`, where it has one.

    Args:
        keys: keys of the images.
        size: side in pixels.
        allow_missing_keys: pass over keys that are absent.

    Raises:
        UsageError: GM-U065 where an image is not ``[1, h, w]``.
    """

    def __init__(self, keys: KeysCollection, size: int, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.size = size

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        result = dict(data)
        for key in self.key_iterator(result):
            image = resize_image(plane(result, key), (self.size, self.size))
            result[key] = torch.from_numpy(image)[None]
            if (record := frame_key(key)) in result:
                result[record] = result[record].resized(self.size)
        return result
