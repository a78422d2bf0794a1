"""Replicates of figures beside their result lines: kept as an attack runs, and in ``<id>.npz`` beside ``<id>.jsonl``.

A line says a value and its limits; what another system's are on the same resamples takes the resamples themselves. They
belong to one line each, of one release and one configuration, and are never taken for another one's: what fits no line
is not read, and goes when the file is written next.
"""

from __future__ import annotations

import json
import logging
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from gmia_monai.errors import IntegrityError
from gmia_monai.metrics.differences import Replicates
from gmia_monai.metrics.results import Result, read_results
from gmia_monai.typing import PathLike

__all__ = ["ReplicateLog", "keep_replicates", "read_replicates"]

_log = logging.getLogger(__name__)
_PREFIX = "replicates/"
_ABOUT = "/about"
_OF_LINE = ("name", "system", "profile", "negatives", "attacker", "seed", "release_hash", "config_hash")
_ROUNDING = 1e-5  # of lines and of what is kept of replicates
_SUFFIX = ".npz"


def _line_key(line: Result) -> dict[str, Any]:
    return {name: getattr(line, name) for name in _OF_LINE}


@dataclass
class ReplicateLog:
    """Replicates with what names their lines.

    Attributes:
        kept: by the name, as JSON.
    """

    kept: dict[str, Replicates] = field(default_factory=dict)

    def add(self, line: Result, replicates: Replicates) -> None:
        """Keeps the replicates of a line; those of a value that could not be measured are none."""
        if line.value is not None:
            self.kept[json.dumps(_line_key(line))] = replicates

    def of(self, line: Result) -> Replicates | None:
        """The replicates of a line: of the same figure, release and configuration, and with its value."""
        found = self.kept.get(json.dumps(_line_key(line)))
        if found is None or line.value is None or not abs(found.value - line.value) < _ROUNDING:
            return None
        return found

    def arrays(self) -> dict[str, np.ndarray]:
        """Arrays for an ``.npz``: ``replicates/<n>`` float32, and ``replicates/<n>/about`` with the rest as JSON."""
        made = {}
        for number, key in enumerate(sorted(self.kept)):
            one = self.kept[key]
            about = {"line": json.loads(key), "n_patients": one.n_patients, "draws": one.draws}
            about |= {"seeds": list(one.seeds), "bounds": list(one.bounds), "by_seed": one.by_seed}
            made[f"{_PREFIX}{number}"] = one.found.astype(np.float32)
            made[f"{_PREFIX}{number}{_ABOUT}"] = np.array(json.dumps(about))
        return made

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> ReplicateLog:
        """What :meth:`arrays` made; other arrays are passed over.

        Raises:
            KeyError: where an array is missing.
            TypeError: for a description that is none.
            ValueError: for one that is not JSON, or an array of another shape.
        """
        log = cls()
        for name in [n for n in arrays if n.startswith(_PREFIX) and n.endswith(_ABOUT)]:
            about, found = json.loads(str(arrays[name])), arrays[name.removesuffix(_ABOUT)]
            seeds, (low, high) = tuple(about["seeds"]), about["bounds"]
            if found.ndim != 2 or found.shape[1] != len(seeds) or len(found) < 1:
                raise ValueError("an array of rows and seeds")
            key = json.dumps({name: about["line"][name] for name in _OF_LINE})
            log.kept[key] = Replicates(
                found, int(about["n_patients"]), str(about["draws"]), seeds, (low, high), bool(about["by_seed"])
            )
        return log


def read_replicates(path: PathLike) -> ReplicateLog:
    """The replicates of a file, or of all ``*.npz`` of a folder; a file that is not there holds none.

    Raises:
        IntegrityError: ``GM-W252`` for a file that cannot be read.
    """
    path, log = Path(path), ReplicateLog()
    for file in sorted(path.glob(f"*{_SUFFIX}")) if path.is_dir() else [path] if path.is_file() else []:
        try:
            with np.load(file, allow_pickle=False) as arrays:
                log.kept |= ReplicateLog.from_arrays(arrays).kept
        except (zipfile.BadZipFile, EOFError, KeyError, OSError, TypeError, ValueError) as error:
            raise IntegrityError(
                "GM-W252",
                f"unreadable replicates in {file.name}",
                expected="a file that a benchmark wrote beside its result lines",
                next_step="remove it: differences are then made from intervals, and are wider",
            ) from error
    return log


def keep_replicates(lines_path: PathLike, folder: PathLike) -> None:
    """Writes ``<stem>.npz`` beside a file of result lines: all that belongs to the lines that it has now, of what a
    folder has and of what was there; where nothing does, the file is removed.

    Args:
        lines_path: the file of lines.
        folder: with ``.npz`` files of attacks; one that cannot be read is told of and passed over.
    """
    from gmia_monai.dicom.atomic import atomic_path  # its room loads Pillow

    path, log = Path(lines_path).with_suffix(_SUFFIX), ReplicateLog()
    found = []
    for file in (*sorted(Path(folder).glob(f"*{_SUFFIX}")), path):
        try:
            found.append(read_replicates(file))
        except IntegrityError as error:
            _log.warning("%s", error)
    for line in read_results(lines_path):
        known = [one for each in found if (one := each.of(line)) is not None]
        if known:
            log.add(line, known[0])
    if not log.kept:
        path.unlink(missing_ok=True)
        return
    with atomic_path(path) as temporary, temporary.open("wb") as stream:
        np.savez_compressed(stream, **log.arrays())  # type: ignore[arg-type]
