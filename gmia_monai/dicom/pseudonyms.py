"""Pseudonyms: keyed hashes in the place of names and UIDs. Whoever lacks the key cannot go back, nor test a guess.

The key and the table of links stand beside the output folder, never inside: sharing the folder shares neither.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import stat
import uuid
from pathlib import Path

from gmia_monai.errors import UsageError
from gmia_monai.typing import PathLike

__all__ = ["KEY_BYTES", "create_key", "default_key_path", "handle", "links_path", "load_key", "uid"]

KEY_BYTES = 32


def create_key(path: PathLike) -> Path:
    """A new random project key: 32 bytes in hexadecimal, readable by its owner only (mode 0600).

    Raises:
        UsageError: GM-U081 where the file exists already; a key is never overwritten, for all handles hang on it.
            GM-U086 where it cannot be made.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError("GM-U086", "the key's folder cannot be made", got=error.strerror) from error
    try:
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    except FileExistsError:
        raise UsageError("GM-U081", "the key exists already", next_step="use it, or name another path") from None
    except OSError as error:
        raise UsageError("GM-U086", "the key cannot be made there", got=error.strerror) from error
    with os.fdopen(descriptor, "w", encoding="ascii") as stream:
        stream.write(secrets.token_hex(KEY_BYTES) + "\n")
        stream.flush()
        os.fsync(stream.fileno())
    return path


def load_key(path: PathLike) -> bytes:
    """The key of a file made by `create_key`.

    Raises:
        UsageError: GM-U082 no such file, GM-U083 readable by others, GM-U084 not 32 bytes in hexadecimal.
    """
    path = Path(path)
    if not path.is_file():
        raise UsageError("GM-U082", "no key file", next_step="make one with `gmia key new`")
    if os.name == "posix" and path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise UsageError("GM-U083", "the key file is open to others", expected="mode 0600", next_step="chmod 600 it")
    try:
        key = bytes.fromhex(path.read_text(encoding="ascii").strip())
    except ValueError:
        key = b""
    if len(key) != KEY_BYTES:
        raise UsageError("GM-U084", "the key file is damaged", expected=f"{KEY_BYTES} bytes in hexadecimal")
    return key


def handle(key: bytes, name: str, length: int = 16) -> str:
    """Pseudonym of ``name``: the first ``length`` hexadecimal digits of its HMAC-SHA256 (16 digits are 64 bits).

    Args:
        key: from `load_key`.
        name: path, patient or study identifier; callers put a prefix before it where kinds must not meet.
        length: 8 to 64 digits.

    Raises:
        UsageError: GM-U085 for another length.
    """
    if not 8 <= length <= 64:
        raise UsageError("GM-U085", "length of a handle out of range", got=length, expected="8 to 64")
    return _digest(key, "handle", name).hex()[:length]


def uid(key: bytes, name: str) -> str:
    """DICOM UID of ``name``: ``2.25.`` and a name-based UUID made from its HMAC-SHA256 (PS3.5 B.2)."""
    return f"2.25.{uuid.UUID(bytes=_digest(key, 'uid', name)[:16], version=5).int}"


def default_key_path(output_dir: PathLike) -> Path:
    """Where the key stands unless named otherwise: ``<output_dir>.key``, beside the output."""
    return _beside(output_dir, ".key")


def links_path(output_dir: PathLike) -> Path:
    """Where the table from source to handle stands: ``<output_dir>.links.csv``, beside the output."""
    return _beside(output_dir, ".links.csv")


def _beside(output_dir: PathLike, suffix: str) -> Path:
    # Resolved, so that "." and "out/.." have a name too.
    folder = Path(output_dir).resolve()
    return folder.with_name(folder.name + suffix)


def _digest(key: bytes, purpose: str, name: str) -> bytes:
    # The purpose keeps handles and UIDs of one name unrelated.
    return hmac.new(key, f"{purpose}\0{name}".encode(), hashlib.sha256).digest()
