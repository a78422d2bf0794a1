"""Finished units of a long anonymization, by the hash of all that decides them: for resuming, and for sharing between
releases that hold the same images."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
from jaxtyping import Int64, UInt8

from gmia_monai.dicom.atomic import atomic_path
from gmia_monai.typing import PathLike

__all__ = ["UnitStore"]


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
