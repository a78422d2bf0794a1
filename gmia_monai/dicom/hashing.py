"""Hashes of files."""

from __future__ import annotations

import hashlib
from pathlib import Path

from gmia_monai.typing import PathLike

__all__ = ["sha256_of"]


def sha256_of(path: PathLike) -> str:
    """SHA-256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
