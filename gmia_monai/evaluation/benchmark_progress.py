"""The line that says how far a benchmark is, and about how long it will take."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from ignite.engine import Engine, Events

from gmia_monai.evaluation.benchmark_state import SystemState
from gmia_monai.handlers.attacks import AttackLines
from gmia_monai.typing import PathLike

__all__ = ["ProgressLog"]

_log = logging.getLogger(__name__)


class ProgressLog:
    """Progress of one process among those that share a benchmark.

    Args:
        output_dir: where the states of the systems are.
        systems: ids of all.
        since: when the benchmark began, in seconds since the epoch: systems that ended later are not left.
        workers: processes that share the work.
    """

    def __init__(self, output_dir: PathLike, systems: Sequence[str], since: float, workers: int = 1) -> None:
        self.output_dir = output_dir
        self.systems = list(systems)
        self.since = since
        self.workers = workers
        self.finished = 0  # by this process
        self._started = time.monotonic()
        self._system = ""

    def begin(self, system: str) -> None:
        """A system is taken on."""
        self._system = system
        _log.info("system %d of %d: %s", self._place(), len(self.systems), system)

    def end(self, state: SystemState) -> None:
        """A system is done, whose state is not written yet."""
        self.finished += 1
        left = self._left(0.0, self._remaining() - 1)
        took = timedelta(seconds=round(state.seconds))
        _log.info(
            "system %d of %d: %s done in %s; about %s left", self._place(), len(self.systems), state.system, took, left
        )

    def handler(self, state: SystemState, lines: AttackLines) -> _AttackProgress:
        """A handler that notes each attack in the state of its system, and logs it."""
        return _AttackProgress(self, state, lines)

    def tell(self, attack: str, fraction: float) -> None:
        """Logs that an attack is done, with which a fraction of its system's is."""
        _log.info(
            "system %d of %d: %s, %s done; %s so far, about %s left",
            self._place(),
            len(self.systems),
            self._system,
            attack,
            timedelta(seconds=round(time.monotonic() - self._started)),
            self._left(fraction, self._remaining()),
        )

    def _place(self) -> int:
        return self.systems.index(self._system) + 1

    def _remaining(self) -> int:
        """Systems that have not ended since the beginning, whoever is at them."""
        return sum(SystemState.read(self.output_dir, system).ended < self.since for system in self.systems)

    def _left(self, fraction: float, remaining: int) -> timedelta | str:
        done = self.finished + fraction
        if done <= 0:
            return "an unknown time"
        seconds = (time.monotonic() - self._started) / done * max(0.0, remaining - fraction) / self.workers
        return timedelta(seconds=round(seconds))


class _AttackProgress:
    def __init__(self, progress: ProgressLog, state: SystemState, lines: AttackLines) -> None:
        self.progress = progress
        self.state = state
        self.lines = lines
        self._last = time.monotonic()

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.STARTED, self._begin)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)

    def finish(self) -> None:
        """All attacks were done already."""
        self._note()

    def _begin(self, engine: Engine) -> None:
        self._last = time.monotonic()

    def __call__(self, engine: Engine) -> None:
        name, now = str(engine.state.output["attack"]), time.monotonic()
        self.state.attacks[name] = round(now - self._last, 1)
        self._last = now
        self._note()
        total = max(1, len(self.lines.names))
        self.progress.tell(name, (total - len(self.lines.pending())) / total)

    def _note(self, *_: Any) -> None:
        pending = set(self.lines.pending())
        for name in self.lines.names:
            if name not in pending:
                self.state.attacks.setdefault(name, 0.0)
        self.state.write(self.progress.output_dir)
