"""Handlers of the engine that goes through the attacks: result lines of each, and resuming."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import numpy as np
from ignite.engine import Engine, Events

from gmia_monai.dicom.atomic import atomic_path
from gmia_monai.metrics.results import Result, read_results
from gmia_monai.typing import PathLike

__all__ = ["AttackLines"]

_log = logging.getLogger(__name__)


class AttackLines:
    """Writes the lines of each attack when it is done; what is done with the same fingerprint is not done again. The
    log says about how long the others will take, as if each took as long as those of this run did on average.

    Args:
        output_dir: folder of the evaluation: ``attacks/<name>.<fingerprint>.jsonl`` for each attack, and
            ``results.jsonl`` with all of them at the end; an attack's data for pictures in ``.npz`` beside its lines.
        fingerprint: hash of all that decides the figures.
        names: attacks of this run.
    """

    def __init__(self, output_dir: PathLike, fingerprint: str, names: Sequence[str]) -> None:
        self.output_dir = Path(output_dir)
        self.fingerprint = fingerprint
        self.names = list(names)

    def path(self, name: str) -> Path:
        """Lines of one attack."""
        return self.output_dir / "attacks" / f"{name}.{self.fingerprint}.jsonl"

    def pending(self) -> list[str]:
        """Attacks that are not done."""
        return [name for name in self.names if not self.path(name).is_file()]

    def attach(self, engine: Engine) -> None:
        """Registers the handler."""
        engine.add_event_handler(Events.STARTED, self._started)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)
        engine.add_event_handler(Events.COMPLETED, self.finish)

    def _started(self, engine: Engine) -> None:
        self._t0 = self._last = time.monotonic()
        self._done = 0
        done = len(self.names) - len(self.pending())
        if done:
            _log.info("resuming: %d of %d attacks are done", done, len(self.names))

    def __call__(self, engine: Engine) -> None:
        """Writes the lines of the attack of this iteration."""
        output = engine.state.output
        results: Sequence[Result] = output["results"]
        if output["figure_data"]:
            with (
                atomic_path(self.path(output["attack"]).with_suffix(".npz")) as temporary,
                temporary.open("wb") as file,
            ):
                np.savez_compressed(file, **output["figure_data"])
        with atomic_path(self.path(output["attack"])) as temporary:
            temporary.write_text("".join(result.to_json() + "\n" for result in results), encoding="utf-8")
        now, pending = time.monotonic(), len(self.pending())
        self._done += 1
        _log.info(
            "attack %s done in %.0f s, %d lines; %d left, about %s",
            output["attack"],
            now - self._last,
            len(results),
            pending,
            timedelta(seconds=round((now - self._t0) / self._done * pending)),
        )
        self._last = now

    def figure_data(self) -> dict[str, np.ndarray]:
        """Data for pictures of all attacks."""
        found: dict[str, np.ndarray] = {}
        for name in self.names:
            path = self.path(name).with_suffix(".npz")
            if path.is_file():
                with np.load(path, allow_pickle=False) as data:
                    found.update({key: data[key] for key in data.files})
        return found

    def finish(self, engine: Engine | None = None) -> list[Result]:
        """Writes ``results.jsonl`` from the lines of all attacks."""
        results = [r for name in self.names if self.path(name).is_file() for r in read_results(self.path(name))]
        with atomic_path(self.output_dir / "results.jsonl") as temporary:
            temporary.write_text("".join(result.to_json() + "\n" for result in results), encoding="utf-8")
        return results
