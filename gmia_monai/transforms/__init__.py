"""Dictionary transforms for chest radiographs, their inverses, and writing back in the input's size and depth.

Names are loaded when they are first asked for: boxes and resampling need no MONAI.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gmia_monai.transforms.augmentation import BatchAugmentation
    from gmia_monai.transforms.boxes import Box, border_box, square_box
    from gmia_monai.transforms.crop import BorderCropd, CentreSquared
    from gmia_monai.transforms.frame import Frame, collate_frames, frame_key, restore
    from gmia_monai.transforms.load import LoadRadiographd
    from gmia_monai.transforms.readers import file_kind, read_radiograph
    from gmia_monai.transforms.resample import resize_image
    from gmia_monai.transforms.resize import ResizeSquared
    from gmia_monai.transforms.write import write_image

_WHERE = {
    "BatchAugmentation": "augmentation",
    "BorderCropd": "crop",
    "Box": "boxes",
    "CentreSquared": "crop",
    "Frame": "frame",
    "LoadRadiographd": "load",
    "ResizeSquared": "resize",
    "border_box": "boxes",
    "collate_frames": "frame",
    "file_kind": "readers",
    "frame_key": "frame",
    "read_radiograph": "readers",
    "resize_image": "resample",
    "restore": "frame",
    "square_box": "boxes",
    "write_image": "write",
}

__all__ = [
    "BatchAugmentation",
    "BorderCropd",
    "Box",
    "CentreSquared",
    "Frame",
    "LoadRadiographd",
    "ResizeSquared",
    "border_box",
    "collate_frames",
    "file_kind",
    "frame_key",
    "read_radiograph",
    "resize_image",
    "restore",
    "square_box",
    "write_image",
]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"gmia_monai.transforms.{_WHERE[name]}"), name)
