"""Workers: a workshop in this process, or one in each of several; the answers are the same, and in the same order."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from types import TracebackType
from typing import Any, TypeVar

import numpy as np

from gmia_monai.errors import GmiaError, ResourceError
from gmia_monai.release.instance import Instance
from gmia_monai.release.workshop import Made, Workshop

__all__ = ["Alone", "Several"]

T = TypeVar("T")
Unit = tuple[Sequence[Instance], dict[str, np.ndarray]]
_AHEAD = 2  # questions a worker that wait for their turn; what is finished early stays in memory


class Alone:
    """Works in this process.

    Args:
        workshop: what it works with.
    """

    def __init__(self, workshop: Workshop) -> None:
        self.workshop = workshop

    def take_in(self, paths: Sequence[str]) -> Iterator[Instance]:
        """Instances of files."""
        return map(self.workshop.take_in, paths)

    def make(self, units: Iterable[Unit]) -> Iterator[list[Made]]:
        """New images of units."""
        return (self.workshop.make(*unit) for unit in units)


class Several:
    """Works in processes of its own, which end with this one however it ends.

    Args:
        open_workshop: makes the workshop of a worker; a function of a module, and what it needs, go to the process.
        n: processes.
    """

    def __init__(self, open_workshop: Callable[[], Workshop], n: int) -> None:
        self._n = n
        self._pool = ProcessPoolExecutor(
            n, multiprocessing.get_context("spawn"), initializer=_begin, initargs=(open_workshop, os.getpid())
        )

    def take_in(self, paths: Sequence[str]) -> Iterator[Instance]:
        """Instances of files.

        Raises:
            ResourceError: ``GM-R306`` where a worker was ended from outside.
        """
        return self._in_order(_take_in, [(path,) for path in paths])

    def make(self, units: Iterable[Unit]) -> Iterator[list[Made]]:
        """New images of units.

        Raises:
            ResourceError: ``GM-R306`` as :meth:`take_in`.
        """
        return self._in_order(_make, units)

    def close(self) -> None:
        """Ends the processes; what they have begun is dropped."""
        processes = list((self._pool._processes or {}).values())
        self._pool.shutdown(wait=False, cancel_futures=True)
        for process in processes:
            process.kill()
        for process in processes:
            process.join()

    def __enter__(self) -> Several:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _in_order(self, function: Callable[..., T], questions: Iterable[tuple[Any, ...]]) -> Iterator[T]:
        waiting: list[Future[T]] = []
        try:
            for question in questions:
                waiting.append(self._pool.submit(function, *question))
                if len(waiting) > _AHEAD * self._n:
                    yield waiting.pop(0).result()
            while waiting:
                yield waiting.pop(0).result()
        except BrokenProcessPool:
            raise ResourceError(
                "GM-R306",
                "a worker was ended from outside, for want of memory most often",
                next_step="run the same command again, with fewer workers: it goes on",
            ) from None


_own: Workshop | GmiaError | None = None


def _begin(open_workshop: Callable[[], Workshop], parent: int) -> None:
    """In a worker: it shall end with its parent, and leave interrupts to it."""
    global _own
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
        if os.getppid() != parent:
            os._exit(1)
    try:
        _own = open_workshop()
    except GmiaError as error:  # said with the first answer: one that ends here would look killed
        _own = error


def _opened() -> Workshop:
    if isinstance(_own, GmiaError):
        raise _own
    assert _own is not None
    return _own


def _take_in(path: str) -> Instance:
    return _opened().take_in(path)


def _make(unit: Sequence[Instance], others: dict[str, np.ndarray]) -> list[Made]:
    return _opened().make(unit, others)
