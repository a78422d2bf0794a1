"""Frame: what a transform chain did to an image, kept so that a result can go back into the input's frame."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from monai.data.utils import list_data_collate

from gmia_monai.errors import UsageError
from gmia_monai.transforms.boxes import Box
from gmia_monai.transforms.resample import resize_image

__all__ = ["Frame", "collate_frames", "frame_key", "plane", "restore"]

Kind = Literal["png", "jpeg", "dicom", "nifti"]


@dataclass(frozen=True)
class Frame:
    """The input's size, depth and kind, and the crop and scale applied since. Holds no path and no header value.

    Attributes:
        rows: rows of the input.
        cols: columns of the input.
        bits: bits a pixel of the input and of what is written for it: 8 to 16, or 32 for a NIfTI of floats or wide
            integers.
        photometric: sense of the stored input; images in the package are MONOCHROME2 whatever it is.
        kind: file format of the input.
        dtype: numpy name of the input's pixel type; NIfTI is written back in it (floats as float32).
        low: value of the input that became 0 (NIfTI; 0 elsewhere).
        high: value of the input that became 1 (NIfTI; 1 elsewhere).
        box: part of the input that is kept, None for all of it.
        model_size: side in pixels after `ResizeSquared`, None before it.
    """

    rows: int
    cols: int
    bits: int
    photometric: str = "MONOCHROME2"
    kind: Kind = "png"
    dtype: str = "uint8"
    low: float = 0.0
    high: float = 1.0
    box: Box | None = None
    model_size: int | None = None

    @property
    def kept(self) -> Box:
        """The part of the input that is kept."""
        return self.box or Box(0, 0, self.rows, self.cols)

    def cropped(self, box: Box) -> Frame:
        """After a crop to ``box``, given in pixels of the present image.

        Raises:
            UsageError: GM-U061 after a resize, where pixels of the input cannot be told any more.
        """
        if self.model_size is not None:
            raise UsageError("GM-U061", "crop after resize", expected="crops before ResizeSquared in the config")
        now = self.kept
        return replace(self, box=Box(now.top + box.top, now.left + box.left, box.height, box.width))

    def resized(self, size: int) -> Frame:
        """After a resize to ``size`` pixels a side."""
        return replace(self, model_size=size)


def frame_key(key: str) -> str:
    """Key under which the `Frame` of the image ``key`` stands in a data dictionary."""
    return f"{key}_frame"


def plane(data: Mapping[Hashable, Any], key: Hashable) -> Float[np.ndarray, "h w"]:
    """The grey plane of the image ``key``.

    Raises:
        UsageError: GM-U065 where it is not ``[1, h, w]``.
    """
    image = np.asarray(data[key])
    if image.ndim != 3 or image.shape[0] != 1:
        raise UsageError("GM-U065", "the transform takes single grey images", got=image.shape, expected="[1, h, w]")
    return image[0]


def restore(
    image: Float[np.ndarray, "*channel s s"] | Float[torch.Tensor, "*channel s s"],
    frame: Frame,
    fill: Literal["edge", "zero"] = "edge",
) -> Float[np.ndarray, "rows cols"]:
    """A result of the model in the frame of its input.

    MONAI's `Invertd` is not used: it replays traces that live in a MetaTensor, which training does without, and its
    inverse of a crop can only pad with a constant known beforehand.

    Args:
        image: result in [0, 1], ``[s, s]`` or ``[1, s, s]`` (array or tensor).
        frame: as recorded when the input was read, cropped and resized.
        fill: what stands where the crop took pixels away: ``edge``, the median of the outermost pixels of the result,
            or ``zero``. Never pixels of the input.

    Returns:
        float32 in [0, 1], rows by columns of the input.
    """
    if isinstance(image, torch.Tensor):
        image = image.detach().cpu().numpy()
    image = image.astype(np.float32).reshape(image.shape[-2:])
    box = frame.kept
    patch = np.clip(resize_image(image, (box.height, box.width)), 0.0, 1.0)
    if (box.height, box.width) == (frame.rows, frame.cols):
        return patch
    border = np.concatenate([image[0], image[-1], image[:, 0], image[:, -1]])
    full = np.full((frame.rows, frame.cols), np.median(border) if fill == "edge" else 0.0, dtype=np.float32)
    full[box.top : box.top + box.height, box.left : box.left + box.width] = patch
    return np.clip(full, 0.0, 1.0)


def collate_frames(batch: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Collate function for a DataLoader: tensors are stacked by MONAI, each image's `Frame` goes into a list."""
    frames = {k: [item[k] for item in batch] for k, v in batch[0].items() if isinstance(v, Frame)}
    rest = [{k: v for k, v in item.items() if k not in frames} for item in batch]
    return {**list_data_collate(rest), **frames}
