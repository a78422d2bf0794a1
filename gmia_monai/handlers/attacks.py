"""Handlers of the engine that goes through the attacks: result lines of each, and resuming."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path

import numpy as np
from ignite.engine import Engine, Events

from gmia_monai.dicom.atomic import atomic_path
from gmia_monai.metrics.results import Result, read_results
from gmia_monai.typing import PathLike

__all__ = ["AttackLines"]

_log = logging.getLogger(__name__)

# Relative times of one run of all attacks at 64 px, read from its log; attacks that are not named take a middling one.
_COSTS = {
    **{"verification": 60, "retrieval": 6, "linkability": 8, "singling_out": 4, "presence": 5, "membership": 30},
    **{"memorisation": 5, "attribute": 15, "inversion": 60, "budget": 90, "anonymeter": 8},
    **{"utility": 120, "fidelity": 2, "release": 0.1},
}
_UNKNOWN_COST = 10.0
_AFTER = {"fidelity": "utility"}  # what the one leaves decides which lines the other gives


class AttackLines:
    """Writes the lines of each attack when it is done; what is done with the same fingerprint is not done again. The
    log says about how long the others will take, from what this run has taken so far and what attacks usually cost.

    Args:
        output_dir: folder of the evaluation: ``attacks/<name>.<fingerprint>.jsonl`` for each attack, and
            ``results.jsonl`` with all of them at the end; an attack's data for pictures in ``.npz`` beside its lines.
        fingerprint: hash of all that decides the figures.
        names: attacks of this run. Lines of others that earlier runs left under this fingerprint are kept.
        own: fingerprints of attacks that further facts decide, by name; each starts with ``fingerprint``.
        facts: digits to put behind an attack's fingerprint, by its name: facts that may change while a run goes on.
    """

    def __init__(
        self,
        output_dir: PathLike,
        fingerprint: str,
        names: Sequence[str],
        own: Mapping[str, str] | None = None,
        facts: Callable[[str], str] = lambda name: "",
    ) -> None:
        self.output_dir = Path(output_dir)
        self.fingerprint = fingerprint
        self.names = list(names)
        self.own = dict(own or {})
        self.facts = facts

    def path(self, name: str) -> Path:
        """Lines of one attack."""
        mark = self.own.get(name, self.fingerprint) + self.facts(name)
        return self.output_dir / "attacks" / f"{name}.{mark}.jsonl"

    def pending(self) -> list[str]:
        """Attacks that are not done, and those that such a one may have changed the facts of when it is done."""
        undone = {name for name in self.names if not self.path(name).is_file()}
        return [name for name in self.names if name in undone or _AFTER.get(name) in undone]

    def attach(self, engine: Engine) -> None:
        """Registers the handler."""
        engine.add_event_handler(Events.STARTED, self._started)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)
        engine.add_event_handler(Events.COMPLETED, self.finish)

    def _started(self, engine: Engine) -> None:
        self._last = time.monotonic()
        self._taken = self._cost = 0.0
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
        now, pending = time.monotonic(), self.pending()
        _log.info(
            "attack %s done in %.0f s, %d lines; %d left, about %s",
            output["attack"],
            now - self._last,
            len(results),
            len(pending),
            self._left(output["attack"], now - self._last, results, pending),
        )
        self._last = now

    def _left(self, name: str, seconds: float, results: Sequence[Result], pending: Sequence[str]) -> timedelta | str:
        """Time that the pending attacks will take; an attack that was left out took none, and says nothing of it."""
        if not any("_left_out." in result.name for result in results):
            self._taken += seconds
            self._cost += _cost(name)
        if not pending:
            return timedelta(0)
        if self._cost == 0.0:
            return "an unknown time"
        return timedelta(seconds=round(self._taken / self._cost * sum(map(_cost, pending))))

    def _files(self) -> list[Path]:
        """Lines that are there: of this run's attacks in their order, then of those that earlier runs have done.

        Of an attack that this run does not name, and that further facts decide, the newest ones.
        """
        found = (self.output_dir / "attacks").glob(f"*.{self.fingerprint}*.jsonl")
        others = {path.name.split(".")[0]: path for path in sorted(found, key=lambda path: path.stat().st_mtime_ns)}
        own = [self.path(name) for name in self.names]
        return [path for path in own if path.is_file()] + [
            path for name, path in sorted(others.items()) if name not in self.names
        ]

    def figure_data(self) -> dict[str, np.ndarray]:
        """Data for pictures of all attacks."""
        found: dict[str, np.ndarray] = {}
        for path in self._files():
            if path.with_suffix(".npz").is_file():
                with np.load(path.with_suffix(".npz"), allow_pickle=False) as data:
                    found.update({key: data[key] for key in data.files})
        return found

    def finish(self, engine: Engine | None = None) -> list[Result]:
        """Writes ``results.jsonl`` from the lines of all attacks, and gives them."""
        results = [result for path in self._files() for result in read_results(path)]
        with atomic_path(self.output_dir / "results.jsonl") as temporary:
            temporary.write_text("".join(result.to_json() + "\n" for result in results), encoding="utf-8")
        return results


def _cost(name: str) -> float:
    return float(_COSTS.get(name, _UNKNOWN_COST))
