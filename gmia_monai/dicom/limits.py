"""Limits: what counts as one grey radiograph, checked before memory is taken where the header allows it."""

from __future__ import annotations

import numpy as np
from jaxtyping import Shaped
from pydicom import Dataset

from gmia_monai.errors import InputError
from gmia_monai.typing import MIN_IMAGE_SIZE

__all__ = ["MAX_PIXELS", "check_dataset", "check_finite", "check_image", "check_size"]

MAX_PIXELS = 100_000_000


def check_size(rows: int, cols: int) -> None:
    """Refuse images outside `MIN_IMAGE_SIZE` pixels a side to `MAX_PIXELS` in all.

    Raises:
        InputError: GM-D006 too small, GM-D010 too large.
    """
    if min(rows, cols) < MIN_IMAGE_SIZE:
        raise InputError(
            "GM-D006", "the image is too small", got=f"{rows} x {cols}", expected=f"{MIN_IMAGE_SIZE} pixels a side"
        )
    if rows * cols > MAX_PIXELS:
        raise InputError(
            "GM-D010", "the image is too large", got=f"{rows} x {cols}", expected=f"at most {MAX_PIXELS} pixels"
        )


def check_finite(pixels: Shaped[np.ndarray, "h w"]) -> None:
    """Refuse NaN and infinity.

    Raises:
        InputError: GM-D008.
    """
    if not np.isfinite(pixels).all():
        raise InputError("GM-D008", "the image has values that are not finite", expected="no NaN, no infinity")


def check_image(pixels: Shaped[np.ndarray, "h w"]) -> None:
    """Refuse pixel values that no radiograph has.

    Raises:
        InputError: GM-D006 and GM-D010 by size, GM-D007 constant image, GM-D008 NaN or infinity.
    """
    check_size(*pixels.shape)
    check_finite(pixels)
    if pixels.min() == pixels.max():
        raise InputError("GM-D007", "the image is constant", expected="at least two grey values")


def check_dataset(dataset: Dataset) -> None:
    """Refuse, from the header alone, a DICOM object that is not one grey frame of 8 to 16 bits.

    Raises:
        InputError: GM-D009 no image in it, GM-D005 several frames, GM-D004 colour, GM-D011 bit depth, and `check_size`.
    """
    if "PixelData" not in dataset or "Rows" not in dataset or "Columns" not in dataset:
        raise InputError("GM-D009", "the DICOM object holds no integer image, or is cut off before its end")
    try:
        frames = int(dataset.get("NumberOfFrames") or 1)
        samples = int(dataset.get("SamplesPerPixel") or 1)
        bits, allocated = int(dataset.get("BitsStored") or 0), int(dataset.get("BitsAllocated") or 0)
        rows, cols = int(dataset.Rows), int(dataset.Columns)
    except (TypeError, ValueError):
        raise InputError("GM-D003", "the image description of the header is damaged") from None
    if frames != 1:
        raise InputError("GM-D005", "the file holds several frames", got=frames, expected=1)
    if samples != 1 or not str(dataset.get("PhotometricInterpretation", "")).startswith("MONOCHROME"):
        raise InputError("GM-D004", "the image is not monochrome", expected="MONOCHROME1 or MONOCHROME2")
    if allocated not in (8, 16) or not 8 <= bits <= allocated:
        raise InputError("GM-D011", "bit depth out of range", got=f"{bits} of {allocated}", expected="8 to 16")
    check_size(rows, cols)
