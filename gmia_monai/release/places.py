"""Places: the folders of a release, checked before anything is written, and the lock that keeps a second run out.

The output holds what is released, the ledger and the report. What is not released yet, or never will be, stands in the
work folder beside it, ``<output>.work``, which is for its owner only: whoever shares the output shares nothing else.
No word of the input is ever part of a name.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from gmia_monai.errors import InputError, ResourceError, UsageError
from gmia_monai.typing import PathLike

__all__ = ["Places", "check_source", "input_files", "places_of"]

_NAME = re.compile(r"[0-9a-f]{8,64}")
_TEMPORARY = re.compile(r"\.[0-9a-f]{16}-")  # as gmia_monai.dicom.atomic names them
_MAX_FILES = 5_000_000
_RESEARCH = "NOT_RELEASED.txt"  # of a run without a gate


@dataclass(frozen=True)
class Places:
    """The folders of one release.

    Attributes:
        source: what is anonymized.
        output: what is released.
        work: staged and held images, the plan, the lock.
    """

    source: Path
    output: Path
    work: Path

    @property
    def ledger(self) -> Path:
        """The ledger, which goes with the release."""
        return self.output / "ledger.jsonl"

    @property
    def policy(self) -> Path:
        """The policy with all its defaults, which goes with the release."""
        return self.output / "policy.json"

    def released(self, name: str, suffix: str) -> Path:
        """Where a released image stands.

        Raises:
            UsageError: ``GM-U416`` for a name that is no keyed hash.
        """
        return self.output / "images" / _checked(name)[:2] / (name + suffix)

    def staged(self, name: str, suffix: str) -> Path:
        """Where an image waits for its checks."""
        return self.work / "staged" / (_checked(name) + suffix)

    def waiting(self, name: str, suffix: str) -> Path:
        """Where an image that passed its checks waits for the attack on the whole release."""
        return self.work / "waiting" / (_checked(name) + suffix)

    def held(self, name: str, suffix: str) -> Path:
        """Where an image stands that is not released."""
        return self.work / "held" / (_checked(name) + suffix)

    def make(self) -> None:
        """Makes the folders; those of the work folder are for their owner only.

        Raises:
            UsageError: ``GM-U414`` for two file systems, ``GM-U415`` for a work folder that others can read,
                ``GM-U431`` for an output of images that passed no gate.
            ResourceError: ``GM-R302`` where that cannot be done.
        """
        if (self.output / _RESEARCH).exists():
            raise UsageError(
                "GM-U431",
                "the output holds images that are not released",
                got=_RESEARCH,
                next_step="choose another one",
            )
        try:
            (self.output / "images").mkdir(parents=True, exist_ok=True)
            for folder in self._private:
                folder.mkdir(mode=0o700, exist_ok=True)
            self.check_private()
        except OSError as error:
            raise ResourceError("GM-R302", "the output folder cannot be made", got=error.strerror) from None
        if self.output.stat().st_dev != self.work.stat().st_dev:
            raise UsageError(
                "GM-U414",
                "output and work folder are on different file systems",
                next_step="choose an output folder below the mount point",
            )

    @property
    def _private(self) -> list[Path]:
        return [self.work, *(self.work / name for name in ("staged", "waiting", "held"))]

    def check_private(self) -> None:
        """Refuses a work folder that others can read.

        Raises:
            UsageError: ``GM-U415``.
        """
        for folder in self._private:
            if folder.is_symlink() or stat.S_IMODE(folder.stat().st_mode) & 0o077:
                raise UsageError(
                    "GM-U415", "the work folder is open to others", got=folder.name, next_step="chmod -R go= it"
                )

    def sweep(self) -> None:
        """Removes temporary files that a process left when it was killed; only while the lock is held."""
        for folder in (self.output, self.work, *self.work.glob("*/")):
            for left in folder.iterdir():
                if _TEMPORARY.match(left.name) and left.is_file():
                    left.unlink()

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Holds the lock of this release.

        Raises:
            UsageError: ``GM-U413`` where another process holds it. It goes with its process, however that ends.
        """
        lock = FileLock(self.work / "lock", timeout=0, mode=0o600)
        try:
            lock.acquire()
        except Timeout:
            raise UsageError(
                "GM-U413", "another process is at work on this output", next_step="wait for it, or stop it"
            ) from None
        try:
            yield
        finally:
            lock.release()

    def check_room(self, needed_bytes: int) -> None:
        """Refuses to start where the disk cannot hold the release.

        Raises:
            ResourceError: ``GM-R303``.
        """
        free = shutil.disk_usage(self.output if self.output.exists() else self.output.parent).free
        if free < 1.2 * needed_bytes:
            raise ResourceError(
                "GM-R303",
                "not enough room on the disk",
                got=f"{free >> 20} MiB",
                expected=f"{int(1.2 * needed_bytes) >> 20} MiB",
            )


def places_of(source: PathLike, output: PathLike) -> Places:
    """The folders of a release; nothing is made yet.

    Raises:
        UsageError: ``GM-U410`` where the input is no folder, ``GM-U411`` where one of input, output and work folder is
            inside another or they are the same, ``GM-U412`` where the output is a link, or is there and no folder.
    """
    source, output = Path(source), Path(output)
    check_source(source)
    for place in (output, output.with_name(output.name + ".work")):
        if place.is_symlink() or (place.exists() and not place.is_dir()):
            raise UsageError("GM-U412", "the output is a link or no folder", next_step="name a folder of its own")
    real_source, real_output = source.resolve(), output.resolve()
    work = real_output.with_name(real_output.name + ".work")
    for inner in (real_output, work):
        if inner == real_source or inner in real_source.parents or real_source in inner.parents:
            raise UsageError(
                "GM-U411", "input and output are the same folder, or one is inside the other", next_step="part them"
            )
    return Places(real_source, real_output, work)


def check_source(source: Path) -> None:
    """Refuses an input that is no folder.

    Raises:
        UsageError: ``GM-U410``.
    """
    if not source.is_dir():
        raise UsageError("GM-U410", "the input is no folder", next_step="check the first path")


def input_files(source: Path) -> Iterator[str]:
    """Paths of all entries below a folder that are no folders, relative to it, in the order of their bytes; links are
    named, not followed.

    Raises:
        InputError: ``GM-D029`` where there are too many.
        ResourceError: ``GM-R304`` where a folder cannot be listed: a release that misses some is not the one asked for.
    """

    def fail(error: OSError) -> None:
        raise ResourceError("GM-R304", "a folder of the input cannot be listed", got=error.strerror) from None

    found: list[bytes] = []
    root = os.fsencode(source)
    for folder, folders, names in os.walk(root, onerror=fail, followlinks=False):
        here = folder[len(root) + 1 :]  # bytes, for names may be in no encoding
        links = [name for name in folders if os.path.islink(folder + b"/" + name)]  # noqa: PTH114
        found += [here + b"/" + name if here else name for name in [*names, *links]]
        if len(found) > _MAX_FILES:
            raise InputError("GM-D029", "too many files", expected=f"at most {_MAX_FILES}")
    return map(os.fsdecode, sorted(found))


def _checked(name: str) -> str:
    if _NAME.fullmatch(name) is None:
        raise UsageError("GM-U416", "no name for a file: only keyed hashes are")
    return name
