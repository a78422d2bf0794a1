"""Dictionary transforms for chest radiographs, their inverses, and writing back in the input's size and depth."""

from __future__ import annotations

from gmia_monai.transforms.augmentation import BatchAugmentation
from gmia_monai.transforms.crop import BorderCropd, CentreSquared, border_box, square_box
from gmia_monai.transforms.frame import Box, Frame, collate_frames, frame_key, restore
from gmia_monai.transforms.load import LoadRadiographd
from gmia_monai.transforms.readers import file_kind, read_radiograph
from gmia_monai.transforms.resample import resize_image
from gmia_monai.transforms.resize import ResizeSquared
from gmia_monai.transforms.write import write_image

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
