"""Pixels of a release: from the input's size to the model's and back, and nothing of the input around the square."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, UInt16

from gmia_monai.dicom.intensity import integer_to_unit
from gmia_monai.errors import UsageError
from gmia_monai.transforms.boxes import square_box
from gmia_monai.transforms.resample import resize_image

__all__ = ["blanked", "bytes_written", "full_image", "model_image", "upscale"]


def model_image(levels: UInt16[np.ndarray, "h w"], size: int) -> Float[np.ndarray, "size size"]:
    """The largest square around the centre, at the model's size; in [0, 1]."""
    box = square_box(*levels.shape)
    square = levels[box.top : box.top + box.height, box.left : box.left + box.width]
    image: np.ndarray = np.clip(resize_image(integer_to_unit(square, 16), (size, size)), 0.0, 1.0)
    return image


def blanked(
    levels: UInt16[np.ndarray, "h w"], boxes: Sequence[tuple[int, int, int, int]], margin: float = 0.3
) -> UInt16[np.ndarray, "h w"]:
    """The image with boxes of one grey each, the median of what is around it.

    Args:
        levels: grey levels.
        boxes: first row and column, and those behind the last.
        margin: of a box, in parts of its height: letters reach beyond their lines.
    """
    found: np.ndarray = levels.copy()
    inside = np.zeros(levels.shape, dtype=bool)
    places = []
    for top, left, bottom, right in boxes:
        more = max(2, round(margin * (bottom - top)))
        inner, outer = (
            (slice(max(0, top - m), bottom + m), slice(max(0, left - m), right + m)) for m in (more, 2 * more)
        )
        inside[inner] = True
        places.append((inner, outer))
    for inner, outer in places:
        around = levels[outer][~inside[outer]]
        found[inner] = np.uint16(np.median(around if around.size else levels[outer]))
    return found


def full_image(
    square: Float[np.ndarray, "size size"], rows: int, cols: int, background: str = "black"
) -> Float[np.ndarray, "rows cols"]:
    """A new image in the rows and columns of its source.

    Args:
        square: as the model made it, in [0, 1].
        rows: of the source.
        cols: of the source.
        background: what is outside the square: ``black``, or ``edge``, the new square's own border repeated.

    Raises:
        UsageError: ``GM-U417`` for another background.
    """
    if background not in ("black", "edge"):
        raise UsageError("GM-U417", "unknown background", got=background, expected="black or edge")
    box = square_box(rows, cols)
    inner = np.clip(resize_image(square, (box.height, box.width)), 0.0, 1.0)
    around = ((box.top, rows - box.top - box.height), (box.left, cols - box.left - box.width))
    return np.pad(inner, around, mode="edge") if background == "edge" else np.pad(inner, around)


def bytes_written(rows: int, cols: int, bits: int) -> int:
    """What a released file takes on the disk, about: its pixels, uncompressed, and a header."""
    return rows * cols * (2 if bits > 8 else 1) + 4096


def upscale(rows: int, cols: int, size: int) -> float:
    """Factor between the sides of the square that is written and the model's image."""
    return square_box(rows, cols).height / size
