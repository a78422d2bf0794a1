"""Atomic files: written under a temporary name in the same folder, then renamed; no half-written file is left."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gmia_monai.typing import PathLike

__all__ = ["atomic_path", "sync_folder"]


@contextmanager
def atomic_path(path: PathLike) -> Iterator[Path]:
    """A temporary path to write to; renamed to ``path`` when the block ends well, removed when it does not.

    The temporary name keeps the suffix, by which writers choose a format, and starts with a dot, so that a folder scan
    passes over it.

    Args:
        path: final path; its folder is made where absent. A file of that name is replaced.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{secrets.token_hex(8)}-{path.name}")
    try:
        yield temporary
        # The content has to be on the disk before the name is.
        with temporary.open("rb") as stream:
            os.fsync(stream.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def sync_folder(folder: PathLike) -> None:
    """Brings the names in a folder to the disk: without it a crash can undo a rename."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
