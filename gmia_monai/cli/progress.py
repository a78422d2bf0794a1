"""Progress of long work: a bar on a terminal, one plain line every ten seconds elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from types import TracebackType

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

__all__ = ["Shown"]

_EVERY_S = 10.0


class Shown:
    """Shows how far work is, on standard error; a context that ends with it.

    Args:
        terminal: whether bars can be drawn; None: as standard error says.
        clock: seconds.
    """

    def __init__(self, terminal: bool | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._stage, self._began, self._last, self._first = "", 0.0, -_EVERY_S, 0
        self._bars: Bars | None = None
        self._task: TaskID | None = None
        if sys.stderr.isatty() if terminal is None else terminal:
            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
            self._bars = Bars(*columns, TextColumn("{task.fields[note]}"), console=Console(stderr=True))

    def __enter__(self) -> Shown:
        if self._bars is not None:
            self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bars is not None:
            self._bars.stop()

    def tell(self, stage: str, done: int, total: int, note: str = "") -> None:
        """So many of so many; ``note`` is shown beside."""
        if stage != self._stage:
            self._stage, self._began, self._first, self._last = stage, self._clock(), done, -_EVERY_S
            self._task = (
                None if self._bars is None else self._bars.add_task(stage, total=total, completed=done, note="")
            )
        if self._bars is not None and self._task is not None:
            self._bars.update(self._task, completed=done, total=total, note=note)
            return
        now = self._clock()
        if now - self._last < _EVERY_S and done < total:
            return
        self._last = now
        left = self._left(now, done, total)
        typer.echo(f"{stage}: {done} of {total}{left}{f'; {note}' if note else ''}", err=True)

    def _left(self, now: float, done: int, total: int) -> str:
        made, spent = done - self._first, now - self._began
        if made <= 0 or done >= total or spent < _EVERY_S:
            return ""
        seconds = round(spent / made * (total - done))
        return f", about {seconds // 3600}:{seconds // 60 % 60:02d}:{seconds % 60:02d} left"
