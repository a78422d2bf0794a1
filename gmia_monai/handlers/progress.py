"""One plain line now and then: epoch, losses, speed, time left."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence

from ignite.engine import Engine, Events

__all__ = ["ProgressLine"]


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}"


class ProgressLine:
    """Logs progress of an engine every few seconds and at the end of each epoch.

    Args:
        every_seconds: shortest time between two lines within an epoch.
        names: keys of the engine's output (a dict of scalars) that are shown.
        name: word that begins the line.
        write: False in all but one of several processes.
    """

    def __init__(
        self,
        every_seconds: float = 10.0,
        names: Sequence[str] = ("loss",),
        name: str = "train",
        write: bool = True,
    ) -> None:
        self.every_seconds = every_seconds
        self.names = tuple(names)
        self.name = name
        self.write = write
        self.logger = logging.getLogger(__name__)

    def attach(self, engine: Engine) -> None:
        """Registers the handler."""
        if not self.write:
            return
        # A resumed run sets the iteration when it starts, so the clock starts with the first epoch after that.
        engine.add_event_handler(Events.STARTED, self._reset)
        engine.add_event_handler(Events.EPOCH_STARTED, self._start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._iteration)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._epoch)

    def _reset(self, engine: Engine) -> None:
        self._t0: float | None = None

    def _start(self, engine: Engine) -> None:
        if self._t0 is None:
            self._t0 = self._last = time.monotonic()
            self._first = engine.state.iteration

    def _iteration(self, engine: Engine) -> None:
        if time.monotonic() - self._last >= self.every_seconds:
            self._write(engine)

    def _epoch(self, engine: Engine) -> None:
        self._write(engine, " (epoch complete)")

    def _write(self, engine: Engine, note: str = "") -> None:
        self._last = now = time.monotonic()
        s = engine.state
        done = s.iteration - self._first
        total = s.epoch_length * s.max_epochs
        left = (now - self._t0) / max(done, 1) * (total - s.iteration)
        output = s.output if isinstance(s.output, dict) else {}
        values = "  ".join(f"{k} {float(output[k]):.4f}" for k in self.names if k in output)
        self.logger.info(
            "%s  epoch %d/%d  iteration %d/%d  %s  %.2f it/s  left %s%s",
            self.name,
            s.epoch,
            s.max_epochs,
            s.iteration,
            total,
            values,
            done / max(now - self._t0, 1e-9),
            _duration(left),
            note,
        )
