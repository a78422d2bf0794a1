"""Moves: files of a release into their places, whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

from gmia_monai.dicom.atomic import sync_folder

__all__ = ["move", "stem_and_suffix"]


def stem_and_suffix(name: Path) -> tuple[str, str]:
    """Name and suffix of a released file."""
    stem, _, suffix = name.name.partition(".")
    return stem, f".{suffix}"


def move(staged: Path, place: Path, mode: int = 0o644) -> None:
    """Into its place in one step; both folders are on the disk when this returns."""
    place.parent.mkdir(parents=True, exist_ok=True)
    staged.chmod(mode)
    os.replace(staged, place)  # noqa: PTH105
    sync_folder(place.parent)
    sync_folder(place.parent.parent)
