"""Several processes that do the same work together, one thread each; what keeps them apart is up to the work."""

from __future__ import annotations

import logging
import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

__all__ = ["shared_work"]

_log = logging.getLogger(__name__)
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
_PARENT_GONE = 130


def shared_work(work: Callable[..., None], arguments: tuple[Any, ...], workers: int = 1) -> None:
    """Runs ``work(*arguments)`` in this process and in ``workers - 1`` others, and once more here when these have
    ended: for what one that was killed left behind.

    Others end when this one does, however it ends.

    Args:
        work: a function of a module, that does what nobody else has done or is at.
        arguments: what it takes; they have to be picklable where there are several workers.
        workers: number of processes.
    """
    if workers <= 1:
        work(*arguments)
        return
    context = multiprocessing.get_context("spawn")
    told = logging.getLogger().getEffectiveLevel()
    others = [context.Process(target=_other, args=(work, arguments, told)) for _ in range(workers - 1)]
    with _single_threaded():
        try:
            for process in others:
                process.start()
            work(*arguments)
            for process in others:
                process.join()
        finally:
            for process in others:
                if process.is_alive():
                    process.terminate()
                    process.join()
        ended = [process.exitcode for process in others if process.exitcode]
        if ended:
            _log.warning("%d of %d workers ended early, with code %s; this one goes on", len(ended), workers, ended[0])
        work(*arguments)


@contextmanager
def _single_threaded() -> Iterator[None]:
    """One thread here, and in the processes that are started meanwhile."""
    threads, before = torch.get_num_threads(), {name: os.environ.get(name) for name in _THREADS}
    torch.set_num_threads(1)
    os.environ.update(dict.fromkeys(_THREADS, "1"))
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _other(work: Callable[..., None], arguments: tuple[Any, ...], level: int) -> None:
    logging.basicConfig(level=level, format=f"%(asctime)s worker {os.getpid()} %(message)s")
    torch.set_num_threads(1)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        work(*arguments)
    except KeyboardInterrupt:
        raise SystemExit(_PARENT_GONE) from None


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(_PARENT_GONE)  # files are written beside their place and moved: nothing is left half done
