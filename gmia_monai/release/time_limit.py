"""A limit of time for work in this process, by the alarm of the operating system."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["time_limit"]


class _Expired(BaseException):
    """No error that a library would take for one of its own, and go on."""


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Ends what is inside after so many seconds, between two instructions of Python.

    Alarms go to the main thread alone: in another one, and on systems without them, nothing is limited.

    Raises:
        TimeoutError: where it took longer.
    """
    if not hasattr(signal, "setitimer") or threading.current_thread() is not threading.main_thread():
        yield
        return

    def expire(number: int, frame: FrameType | None) -> None:
        raise _Expired

    before = signal.signal(signal.SIGALRM, expire)
    timer = signal.setitimer(signal.ITIMER_REAL, seconds)  # one of the host program stops for so long
    try:
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, *timer)
    except _Expired:
        raise TimeoutError(f"more than {seconds:g} s") from None
    finally:
        signal.signal(signal.SIGALRM, before)
