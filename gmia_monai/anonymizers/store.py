"""Finished units of a long anonymization, by the hash of all that decides them: for resuming, and for sharing between
releases that hold the same images; and the loop over units that every system makes its release in."""

from __future__ import annotations

import hashlib
import logging
import time
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float, Float32, Int64, UInt8
from torch import Tensor

from gmia_monai.dicom.atomic import atomic_path
from gmia_monai.typing import PathLike

__all__ = ["Unit", "UnitStore", "finished_units", "to_levels"]

_log = logging.getLogger(__name__)
_TELL_EVERY_S = 10.0
_LEVELS = 255.0

Unit = tuple[
    Iterable[bytes],
    Callable[[], tuple[UInt8[np.ndarray, "b 1 h w"], Sequence[tuple[bool, int]] | Int64[np.ndarray, "b 2"]]],
]
"""All that decides the pixels of a unit, and what makes them: images in 8 bits, and whether each converged, and its
steps."""


class UnitStore:
    """A folder with one file a unit.

    Args:
        folder: made when the first unit is put into it.
    """

    def __init__(self, folder: PathLike) -> None:
        self.folder = Path(folder)

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.npz"

    def get(self, key: str) -> tuple[UInt8[np.ndarray, "b 1 h w"], Int64[np.ndarray, "b 2"]] | None:
        """Pixels and outcomes of a unit; None where there is none, or a file that cannot be read."""
        try:
            with np.load(self._path(key), allow_pickle=False) as data:
                return data["pixels"], data["outcomes"]
        except (FileNotFoundError, KeyError, ValueError, EOFError, zipfile.BadZipFile):
            return None

    def put(self, key: str, pixels: UInt8[np.ndarray, "b 1 h w"], outcomes: Int64[np.ndarray, "b 2"]) -> None:
        """Keeps a unit: a temporary file, then a rename."""
        self._path(key).parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(self._path(key)) as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, pixels=pixels, outcomes=outcomes)


def to_levels(images: Float[Tensor, "b 1 h w"]) -> UInt8[np.ndarray, "b 1 h w"]:
    """What a file of 8 bits holds of images in [0, 1]."""
    return np.rint(images.detach().cpu().numpy() * _LEVELS).clip(0, 255).astype(np.uint8)


def finished_units(
    n: int, unit_size: int, unit_of: Callable[[slice], Unit], store: UnitStore | None, name: str, what: str = "images"
) -> Iterator[tuple[slice, Float32[np.ndarray, "b 1 h w"], Int64[np.ndarray, "b 2"]]]:
    """Goes through a release unit by unit; those in the store are not made again. Progress is logged.

    Args:
        n: things to work on: images, groups, paths.
        unit_size: how many of them make a unit; the last one may have fewer.
        unit_of: the unit of a slice of them. The key in the store is the sha256 of its bytes, one after the other.
        store: of finished units; None: all are made.
        name: of the system, for the log.
        what: the things are, for the log.

    Yields:
        The slice, its images as multiples of 1/255, and for each image whether it converged and its steps.
    """
    started = told = time.monotonic()
    made = 0
    for first in range(0, n, unit_size):
        part = slice(first, min(first + unit_size, n))
        decides, make = unit_of(part)
        digest = hashlib.sha256()
        for fact in decides:
            digest.update(fact)
        kept = None if store is None else store.get(digest.hexdigest())
        if kept is None:
            levels, outcomes = make()
            kept = levels, np.array(outcomes, dtype=np.int64)
            if store is not None:
                store.put(digest.hexdigest(), *kept)
            made += part.stop - first
        now = time.monotonic()
        if made and now - told >= _TELL_EVERY_S:
            told = now
            left = (now - started) / made * (n - part.stop)
            _log.info("%s: %d of %d %s, %.0f s left", name, part.stop, n, what, left)
        yield part, kept[0] / np.float32(_LEVELS), kept[1]
