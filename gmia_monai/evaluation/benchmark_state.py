"""What processes that share a benchmark know of each other: claims, which die with who holds them, and a small file a
system that says how far it is."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

from filelock import FileLock, Timeout

from gmia_monai.dicom.atomic import atomic_path
from gmia_monai.typing import PathLike

__all__ = ["SystemState", "claimed"]


@dataclass
class SystemState:
    """How far one system is.

    Attributes:
        system: id of the system.
        mark: hash of all that decides its lines; empty before the system was built.
        attacks: those that are done under this mark, with the seconds that they took in the run that made them.
        seconds: spent on it under this mark, over all runs.
        done: whether every attack that was asked for is done.
        left_out: why it was not judged at all, e.g. weights that are not recorded.
        failed: the coded error that ended it.
        exit_code: of that error.
        ended: when this was written at the end of the system, in seconds since the epoch; 0: it was not ended.
    """

    system: str
    mark: str = ""
    attacks: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    done: bool = False
    left_out: str = ""
    failed: str = ""
    exit_code: int = 0
    ended: float = 0.0

    @staticmethod
    def path(output_dir: PathLike, system: str) -> Path:
        """Its file."""
        return Path(output_dir) / system / "state.json"

    @classmethod
    def read(cls, output_dir: PathLike, system: str) -> SystemState:
        """The state of a system; an empty one where there is none, or none that can be read."""
        try:
            found = json.loads(cls.path(output_dir, system).read_text(encoding="utf-8"))
            known = {entry.name for entry in fields(cls)}
            state = cls(**{key: value for key, value in found.items() if key in known})
        except (FileNotFoundError, ValueError, TypeError, AttributeError):
            return cls(system)
        return state if state.system == system else cls(system)

    def write(self, output_dir: PathLike) -> None:
        """Writes the file: a temporary one, then a rename."""
        with atomic_path(self.path(output_dir, self.system)) as temporary:
            temporary.write_text(json.dumps(asdict(self), indent=2) + "\n", encoding="utf-8")


@contextmanager
def claimed(output_dir: PathLike, system: str) -> Iterator[bool]:
    """Whether this process has the system to itself while the block lasts.

    A lock of the operating system on ``claims/<system>.lock``: it is gone when its process is, however that ended.
    """
    path = Path(output_dir) / "claims" / f"{system}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()
