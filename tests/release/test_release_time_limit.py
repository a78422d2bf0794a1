"""The limit ends what takes too long, and leaves nothing of itself."""

from __future__ import annotations

import signal
import threading
import time

import pytest

from gmia_monai.release.time_limit import time_limit


def _busy() -> None:
    while True:
        try:
            time.sleep(0.01)
        except OSError:  # as libraries do
            continue


def test_what_takes_too_long_is_ended_and_what_does_not_is_not():
    with pytest.raises(TimeoutError, match=r"0\.05"), time_limit(0.05):
        _busy()
    with time_limit(60.0):
        value = sum(range(1000))
    assert value == 499500 and signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
    assert signal.getsignal(signal.SIGALRM) is signal.SIG_DFL


def test_what_swallows_errors_is_ended_too():
    def stubborn() -> None:
        while True:
            try:
                time.sleep(5)
            except Exception:  # noqa: BLE001
                continue

    began = time.monotonic()
    with pytest.raises(TimeoutError), time_limit(0.05):
        stubborn()
    assert time.monotonic() - began < 4


def test_a_timer_of_the_host_program_goes_on():
    rang = []
    before = signal.signal(signal.SIGALRM, lambda *given: rang.append(1))
    signal.setitimer(signal.ITIMER_REAL, 0.2)
    with time_limit(60.0):
        time.sleep(0.01)
    time.sleep(0.5)
    signal.signal(signal.SIGALRM, before)
    assert rang == [1]


def test_other_errors_come_through_and_end_the_limit():
    with pytest.raises(KeyError), time_limit(60.0):
        raise KeyError
    assert signal.getitimer(signal.ITIMER_REAL)[0] == 0.0


def test_in_another_thread_nothing_is_limited():
    done = []

    def work() -> None:
        with time_limit(0.01):
            time.sleep(0.1)
        done.append(1)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert done == [1]
