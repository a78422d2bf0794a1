"""Silence: pydicom's warnings and log lines quote header values, so none gets out while a file is being decoded."""

from __future__ import annotations

import logging
import threading
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

__all__ = ["header_silence"]

_lock = threading.Lock()
_depth = 0
_stack = ExitStack()


@contextmanager
def header_silence() -> Iterator[None]:
    """Drop Python warnings and the log of pydicom; nested and concurrent uses (CacheDataset loads in threads) share it.

    Filters of warnings belong to the process, not to a thread: only the first to enter sets them and only the last to
    leave puts them back.
    """
    global _depth
    with _lock:
        if _depth == 0:
            _stack.enter_context(_quiet())
        _depth += 1
    try:
        yield
    finally:
        with _lock:
            _depth -= 1
            if _depth == 0:
                _stack.close()


@contextmanager
def _quiet() -> Iterator[None]:
    logger = logging.getLogger("pydicom")
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
