"""The ledger of a release: what became of every instance, line after line, so that no line can be changed unseen.

A line is JSON with a number, a kind, a body, the SHA-256 of the line before it, and an HMAC of all that under the
project key. Whoever changes, moves, inserts or removes a line breaks the chain; whoever writes the chain anew lacks the
key. The end is guarded by ``<name>.head``, which says how many lines there are. Bodies hold handles, codes and numbers;
no line has a time of day, so that a run that was interrupted leaves the same bytes as one that was not.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gmia_monai.dicom.atomic import atomic_path, sync_folder
from gmia_monai.errors import IntegrityError, UsageError
from gmia_monai.typing import PathLike

__all__ = ["Entry", "Ledger", "head_path", "read_ledger"]

_START = "0" * 64
_WORD = re.compile(r"[A-Za-z0-9_.,:;=+/ -]{0,200}")
_FIELDS = ("body", "kind", "mac", "n", "previous")


@dataclass(frozen=True)
class Entry:
    """One line.

    Attributes:
        number: from 0.
        kind: ``run``, ``instance``, ``batch``, ``decision`` or ``complete``.
        body: what is recorded.
    """

    number: int
    kind: str
    body: Mapping[str, Any]


def head_path(path: PathLike) -> Path:
    """The file that guards the end of a ledger: ``<name>.head`` beside it."""
    path = Path(path)
    return path.with_name(path.name + ".head")


def read_ledger(path: PathLike, key: bytes | None) -> list[Entry]:
    """Reads a ledger and checks every line of it.

    Args:
        path: the file.
        key: project key; without it a chain that somebody has written anew looks whole.

    Raises:
        IntegrityError: ``GM-W301`` where a line, their order or their number is not what was written, or the last one
            is cut off.
    """
    path = Path(path)
    raw = path.read_bytes() if path.is_file() else b""
    lines = _lines(raw)
    if raw and not raw.endswith(b"\n"):
        raise _broken("the last line is cut off", len(lines))
    entries, last = _checked(lines, key)
    _check_head(path, len(entries), last, key, whole=True)
    return entries


class Ledger:
    """A ledger that is written to: each line is on the disk before :meth:`append` returns.

    A line that a crash cut off is taken away, as it was never confirmed.

    Args:
        path: the file; made where it is not there.
        key: project key.

    Raises:
        IntegrityError: ``GM-W301`` as :func:`read_ledger`.
    """

    def __init__(self, path: PathLike, key: bytes) -> None:
        self.path = Path(path)
        self._key = key
        self._behind = False
        raw = self.path.read_bytes() if self.path.is_file() else b""
        whole = raw[: raw.rfind(b"\n") + 1]
        self.entries, self._last = _checked(_lines(whole), key)
        _check_head(self.path, len(self.entries), self._last, key, whole=False)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = os.open(self.path, os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW, 0o644)
        if len(whole) != len(raw):
            os.ftruncate(self._file, len(whole))
        os.lseek(self._file, 0, os.SEEK_END)
        os.fsync(self._file)
        sync_folder(self.path.parent)
        self._write_head()

    def __iter__(self) -> Iterator[Entry]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)

    @property
    def head(self) -> str:
        """SHA-256 of the last line; of an empty ledger zeros."""
        return self._last

    def append(self, kind: str, body: Mapping[str, Any]) -> Entry:
        """Adds a line.

        Args:
            kind: as :attr:`Entry.kind`.
            body: handles, codes and numbers; strings of at most 200 plain characters.

        Raises:
            UsageError: ``GM-U401`` for a value that no ledger holds: free text, NaN, an object.
        """
        _check_plain(body)
        if self._behind:  # an earlier line that found the disk full
            self._write_head()
        entry = Entry(len(self.entries), kind, json.loads(json.dumps(body)))
        line = _line(entry, self._last, self._key)
        view = memoryview(line)
        start = os.lseek(self._file, 0, os.SEEK_CUR)
        try:
            while view:
                view = view[os.write(self._file, view) :]
            os.fsync(self._file)
        except OSError:
            os.ftruncate(self._file, start)  # half a line is none
            os.lseek(self._file, start, os.SEEK_SET)
            raise
        self.entries.append(entry)
        self._last = hashlib.sha256(line).hexdigest()
        self._write_head()
        return entry

    def close(self) -> None:
        """Closes the file; the ledger takes no more lines."""
        if self._file >= 0:
            os.close(self._file)
        self._file = -1

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, *of: object) -> None:
        self.close()

    def _write_head(self) -> None:
        about = {"n": len(self.entries), "last": self._last}
        self._behind = True
        with atomic_path(head_path(self.path)) as temporary:
            temporary.write_bytes(_canonical(about | {"mac": _mac(self._key, _canonical(about))}) + b"\n")
        self._behind = False


def _canonical(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode("ascii")


def _mac(key: bytes, message: bytes) -> str:
    return hmac.new(key, b"ledger\0" + message, hashlib.sha256).hexdigest()


def _line(entry: Entry, previous: str, key: bytes) -> bytes:
    content = {"n": entry.number, "kind": entry.kind, "body": entry.body, "previous": previous}
    return _canonical(content | {"mac": _mac(key, _canonical(content))}) + b"\n"


def _lines(raw: bytes) -> list[bytes]:
    return [line + b"\n" for line in raw.split(b"\n")[:-1]]


def _broken(what: str, number: int) -> IntegrityError:
    return IntegrityError(
        "GM-W301",
        f"the ledger is not as it was written: {what}",
        got=f"line {number + 1}",
        next_step="trust none of this output; make it anew in another folder",
    )


def _checked(lines: list[bytes], key: bytes | None) -> tuple[list[Entry], str]:
    entries, last = [], _START
    for number, line in enumerate(lines):
        try:
            found = json.loads(line)
            if not isinstance(found, dict) or tuple(sorted(found)) != _FIELDS:
                raise ValueError
            again = _canonical(found) + b"\n"
            entry = Entry(found["n"], str(found["kind"]), dict(found["body"]))
        except (ValueError, TypeError, RecursionError):
            raise _broken("a line is damaged", number) from None
        if again != line or found["n"] is True or found["n"] != number:
            raise _broken("a line is damaged or out of its place", number)
        if found["previous"] != last:
            raise _broken("the line before it was changed", number)
        if key is not None and not hmac.compare_digest(_line(entry, last, key), line):
            raise _broken("a line was written without the project key", number)
        entries.append(entry)
        last = hashlib.sha256(line).hexdigest()
    return entries, last


def _check_head(path: Path, n: int, last: str, key: bytes | None, *, whole: bool) -> None:
    """The end is as the head says; while a ledger is written, it may be one line ahead of its head."""
    head = head_path(path)
    if not head.is_file():
        if n > (0 if whole else 1):
            raise _broken("the file that guards its end is missing", n)
        return
    try:
        found = json.loads(head.read_bytes())
        about = {"n": found["n"], "last": found["last"]}
        if _canonical(found) + b"\n" != head.read_bytes() or set(found) != {"n", "last", "mac"}:
            raise ValueError
        right = key is None or hmac.compare_digest(found["mac"], _mac(key, _canonical(about)))
        ahead = n - int(found["n"])
    except (ValueError, TypeError, KeyError, RecursionError):
        raise _broken("the file that guards its end is damaged", n) from None
    if not right:
        raise _broken("the file that guards its end was written without the project key", n)
    if ahead not in ((0,) if whole else (0, 1)) or (ahead == 0 and found["last"] != last):
        raise _broken("lines are missing at its end, or were added", n)


def _check_plain(value: Any) -> None:
    if isinstance(value, Mapping):
        for name, each in value.items():
            _check_plain(name)
            _check_plain(each)
    elif isinstance(value, list | tuple):
        for each in value:
            _check_plain(each)
    elif isinstance(value, str):
        if _WORD.fullmatch(value) is None:
            raise UsageError("GM-U401", "the ledger takes no free text", expected="handles, codes, numbers")
    elif isinstance(value, float):
        if value != value or value in (float("inf"), float("-inf")):
            raise UsageError("GM-U401", "the ledger takes finite numbers only")
    elif value is not None and not isinstance(value, bool | int):
        raise UsageError("GM-U401", "the ledger takes plain values only", got=type(value).__name__)
