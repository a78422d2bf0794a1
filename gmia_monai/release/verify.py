"""Verify: a second opinion on a folder, whether this package made it or not.

With a ledger it has to be whole, and every file has to be the one that a line of it released, and the other way round.
With or without, the header of every DICOM file is read by the rules of :mod:`gmia_monai.dicom.header_check`.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from gmia_monai.dicom.header_check import check_header
from gmia_monai.errors import GmiaError, IntegrityError, UsageError
from gmia_monai.release.ledger import Entry, head_path, read_ledger
from gmia_monai.release.places import input_files
from gmia_monai.typing import PathLike

__all__ = ["Findings", "verify_folder"]

_HASHED = re.compile(r"images/[0-9a-f]{2}/[0-9a-f]{32}\.(dcm|png|nii\.gz)")
_OWN = ("ledger.jsonl", "ledger.jsonl.head", "policy.json", "report.html", "report.json")


@dataclass
class Findings:
    """What a second look found.

    Attributes:
        n_files: files that were looked at.
        n_released: lines of the ledger that released something; None without a ledger.
        complete: whether the ledger says that every file of the input had its end; None without a ledger.
        keyed: whether the chain of the ledger was checked with the project key.
        problems: what is wrong, in words without any value of a file; ``file: what``.
    """

    n_files: int = 0
    n_released: int | None = None
    complete: bool | None = None
    keyed: bool = False
    problems: list[str] = field(default_factory=list)

    @property
    def good(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems


def verify_folder(
    folder: PathLike,
    key: bytes | None = None,
    watch: Callable[[int, int], None] = lambda done, total: None,
    show_names: bool = False,
) -> Findings:
    """Looks at every file of a folder; writes nothing.

    Args:
        folder: of a release, or any other.
        key: project key, for the ledger; without it a ledger that somebody wrote anew looks whole.
        watch: is told how many of how many files are done.
        show_names: name files that are not named by keyed hashes, too; else they are numbered in the order of names.

    Raises:
        UsageError: ``GM-U418`` where there is no such folder.
    """
    root = Path(folder)
    if not root.is_dir():
        raise UsageError("GM-U418", "no such folder", next_step="check the path")
    found = Findings()
    released = _of_ledger(root, key, found)
    paths = [path for path in input_files(root) if path not in _OWN or released is None]
    for number, path in enumerate(paths):
        shown = path if _HASHED.fullmatch(path) or (show_names and path.isprintable()) else f"file {number + 1}"
        _look_at(root, path, shown, released, found)
        watch(number + 1, len(paths))
    found.n_files = len(paths)
    for path in sorted(set(released or {}) - set(paths)):
        found.problems.append(f"{path}: released, and not there")
    return found


def _of_ledger(root: Path, key: bytes | None, found: Findings) -> dict[str, str] | None:
    """Hash of each released file; None where there is no ledger."""
    path = root / "ledger.jsonl"
    if not path.exists() and not head_path(path).exists():
        return None
    try:
        entries: list[Entry] = read_ledger(path, key)
    except (IntegrityError, OSError) as error:
        found.problems.append(f"ledger.jsonl: {error.what if isinstance(error, GmiaError) else 'unreadable'}")
        return {}
    found.keyed = key is not None
    found.complete = bool(entries) and entries[-1].kind == "complete"
    if not found.complete:
        found.problems.append("ledger.jsonl: the release is not complete")
    policies = [entry.body.get("policy") for entry in entries if entry.kind == "run"]
    policy = root / "policy.json"
    if policies and (not policy.is_file() or hashlib.sha256(policy.read_bytes()).hexdigest() != policies[-1]):
        found.problems.append("policy.json: not the policy that the ledger names")
    released: dict[str, tuple[object, str]] = {}
    for entry in entries:
        if entry.kind != "instance":
            continue
        file, state, handle = str(entry.body.get("file")), entry.body.get("state"), entry.body.get("handle")
        if state == "released":
            if file in released:
                found.problems.append(f"ledger.jsonl: line {entry.number + 1} releases a file again")
            released[file] = handle, str(entry.body.get("sha256"))
        elif state == "held" and released.get(file, (None,))[0] == handle:
            del released[file]  # a person took it back
    found.n_released = len(released)
    return {file: digest for file, (_, digest) in released.items()}


def _look_at(root: Path, path: str, shown: str, released: dict[str, str] | None, found: Findings) -> None:
    full = root / path
    if full.is_symlink() or not full.is_file():
        found.problems.append(f"{shown}: no plain file")
        return
    try:
        raw = full.read_bytes()
    except OSError as error:
        found.problems.append(f"{shown}: {os.strerror(error.errno or 0).lower()}")
        return
    if released is not None and released.get(path) != hashlib.sha256(raw).hexdigest():
        found.problems.append(f"{shown}: {'changed since its release' if path in released else 'never released'}")
    if full.suffix == ".dcm" or raw[128:132] == b"DICM":
        wrong = check_header(raw)
        if wrong:
            found.problems.append(f"{shown}: header: {', '.join(wrong)}")
