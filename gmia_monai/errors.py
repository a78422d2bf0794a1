"""Coded exceptions: what went wrong, what was got, what was expected, the next step. Never a value from a header."""

from __future__ import annotations

import os
import signal
import sys
import threading
from enum import IntEnum
from types import TracebackType
from typing import Any

__all__ = [
    "INTERRUPTED",
    "ExitCode",
    "GmiaError",
    "InputError",
    "IntegrityError",
    "ManifestError",
    "ResourceError",
    "UsageError",
    "coded_cause",
    "end_bundle_run",
    "show_coded_errors",
]


INTERRUPTED = "interrupted; the same command goes on from its last checkpoint, or from the parts that were finished"


class ExitCode(IntEnum):
    """Exit codes shared by every command."""

    OK = 0
    SOME_REJECTED = 1
    USAGE = 2
    INTEGRITY = 3
    RESOURCES = 4
    INTERRUPTED = 130


class GmiaError(Exception):
    """Base of all errors that a user can meet; subclasses fix the exit code.

    Args:
        code: stable identifier, ``GM-`` + one letter for the area + three digits, e.g. ``GM-D004``.
        what: one sentence that says what is wrong.
        got: what was found, if that can be said without a value from a header.
        expected: what would have been right.
        next_step: what the reader can do about it.
    """

    exit_code: ExitCode = ExitCode.USAGE

    def __init__(
        self, code: str, what: str, *, got: object = None, expected: object = None, next_step: str | None = None
    ) -> None:
        self.code = code
        self.what = what
        self.got = got
        self.expected = expected
        self.next_step = next_step
        parts = [f"{code} {what}"]
        if got is not None:
            parts.append(f"got: {got}")
        if expected is not None:
            parts.append(f"expected: {expected}")
        if next_step is not None:
            parts.append(f"next: {next_step}")
        super().__init__("; ".join(parts))

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.code, self.what, self.got, self.expected, self.next_step)


def _rebuild(
    cls: type[GmiaError], code: str, what: str, got: object, expected: object, next_step: str | None
) -> GmiaError:
    return cls(code, what, got=got, expected=expected, next_step=next_step)


class UsageError(GmiaError):
    """An option, a path or a config that cannot be used (``GM-U…``)."""


class ManifestError(UsageError):
    """A manifest or a data-set table that cannot be used (``GM-M…``)."""


class InputError(GmiaError):
    """One image that cannot be read or is outside what the models take (``GM-D…``); others can go on."""

    exit_code = ExitCode.SOME_REJECTED


class IntegrityError(GmiaError):
    """Weights or outputs whose content is not what was recorded (``GM-W…``)."""

    exit_code = ExitCode.INTEGRITY


class ResourceError(GmiaError):
    """Memory, disk or a download that is not to be had (``GM-R…``)."""

    exit_code = ExitCode.RESOURCES


def coded_cause(error: BaseException) -> GmiaError | None:
    """The coded error that a chain of exceptions goes back to; MONAI wraps what its transforms and configs raise."""
    seen: BaseException | None = error
    past: set[int] = set()  # a chain set by hand can be a ring
    while seen is not None and id(seen) not in past:
        if isinstance(seen, GmiaError):
            return seen
        past.add(id(seen))
        seen = seen.__cause__ or seen.__context__
    return None


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory is exhausted, on the processor or on a device."""
    text = str(error).lower()
    return isinstance(error, MemoryError) or "out of memory" in text or "allocate memory" in text


def show_coded_errors() -> None:
    """Lets an uncaught coded error end the program with its one line instead of the trace through the config parser,
    and with its exit code.

    Configs call it first. ``GMIA_TRACEBACK=1`` keeps the whole trace. SIGTERM, which schedulers send before they kill,
    then ends a run as Ctrl-C does.
    """
    sys.excepthook = _show
    untouched = signal.getsignal(signal.SIGTERM) is signal.SIG_DFL  # a host program's own handler stays
    if untouched and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.default_int_handler)


def end_bundle_run(code: ExitCode) -> None:
    """Ends ``python -m monai.bundle`` with an exit code; in any other program, a notebook say, it does nothing."""
    spec = getattr(sys.modules.get("__main__"), "__spec__", None)
    if code != ExitCode.OK and spec is not None and spec.name == "monai.bundle.__main__":
        raise SystemExit(int(code))


def _show(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    coded = coded_cause(error)
    interrupted = issubclass(kind, KeyboardInterrupt)
    if interrupted:
        sys.stderr.write(f"\n{INTERRUPTED}\n")
    elif coded is None or os.environ.get("GMIA_TRACEBACK"):
        sys.__excepthook__(kind, error, trace)
    else:
        sys.stderr.write(f"\nerror: {coded}\n(GMIA_TRACEBACK=1 shows where it was raised)\n")
    if interrupted or coded is not None:
        sys.stderr.flush()
        # Python ends with the code of a SystemExit that its hook raises; by itself it knows 1 only.
        raise SystemExit(int(ExitCode.INTERRUPTED if coded is None else coded.exit_code))
