"""Atomic checkpoints of plain state dicts, and the resuming from the last one."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events

from gmia_monai.dicom.atomic import atomic_path
from gmia_monai.errors import IntegrityError
from gmia_monai.typing import PathLike

__all__ = ["ResumableCheckpoint", "find_last_checkpoint"]

_NAME = "checkpoint_epoch={epoch}.pt"
_PATTERN = re.compile(r"checkpoint_epoch=(\d+)\.pt")


def _checkpoints(folder: Path) -> list[tuple[int, Path]]:
    return [(int(m[1]), p) for p in folder.glob("checkpoint_epoch=*.pt") if (m := _PATTERN.fullmatch(p.name))]


def find_last_checkpoint(folder: PathLike) -> Path | None:
    """The checkpoint with the highest epoch in a folder, or None."""
    found = _checkpoints(Path(folder))
    return max(found)[1] if found else None


class ResumableCheckpoint:
    """Saves at the end of epochs, resumes at the start of a run.

    MONAI's CheckpointSaver writes without an intermediate file (``atomic=False`` in 1.6.1), so that an interruption
    can destroy the only copy; here the file appears whole or not at all. Files hold tensors and numbers only and are
    read with ``weights_only=True``.

    Args:
        folder: where checkpoints go.
        objects: name -> object with ``state_dict`` and ``load_state_dict``.
        interval: epochs between two checkpoints; the last epoch is always saved.
        keep: number of checkpoints that are kept.
        resume: continue from the last checkpoint in ``folder``.
        best_of: evaluator whose ``best_metric_epoch`` is watched.
        write: whether this process writes (rank 0 only, in distributed runs).
    """

    def __init__(
        self,
        folder: PathLike,
        objects: Mapping[str, Any],
        interval: int = 1,
        keep: int = 2,
        resume: bool = True,
        best_of: Engine | None = None,
        write: bool = True,
    ) -> None:
        self.folder = Path(folder)
        self.objects = dict(objects)
        self.interval = interval
        self.keep = keep
        self.resume = resume
        self.best_of = best_of
        self.write = write
        self._best_epoch = -1
        self.logger = logging.getLogger(__name__)

    def attach(self, engine: Engine) -> None:
        """Registers the handler. Attach it after handlers whose state the checkpoint holds."""
        if self.resume:
            engine.add_event_handler(Events.STARTED, self.load)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._epoch_completed)

    def _state(self, engine: Engine) -> dict[str, Any]:
        state = {name: obj.state_dict() for name, obj in self.objects.items()}
        state["engine"] = {"epoch": engine.state.epoch, "iteration": engine.state.iteration}
        if self.best_of is not None:
            s = self.best_of.state
            state["best"] = {"metric": float(s.best_metric), "epoch": int(s.best_metric_epoch)}
        return state

    def _save(self, state: Mapping[str, Any], name: str) -> None:
        with atomic_path(self.folder / name) as temporary:
            torch.save(state, temporary)

    def _epoch_completed(self, engine: Engine) -> None:
        if not self.write:
            return
        epoch = engine.state.epoch
        new_best = (
            self.best_of is not None
            and self.best_of.state.best_metric_epoch > self._best_epoch
            and math.isfinite(self.best_of.state.best_metric)
        )
        due = epoch % self.interval == 0 or epoch == engine.state.max_epochs
        if not (due or new_best):
            return
        state = self._state(engine)
        if new_best:
            self._best_epoch = self.best_of.state.best_metric_epoch
            self._save(state, "best.pt")
        if due:
            self._save(state, _NAME.format(epoch=epoch))
            for _, old in sorted(_checkpoints(self.folder))[: -self.keep]:
                old.unlink()

    def load(self, engine: Engine) -> None:
        """Restores the last checkpoint, if there is one.

        Raises:
            IntegrityError: ``GM-W030`` for a checkpoint that cannot be read or does not fit the networks.
        """
        path = find_last_checkpoint(self.folder)
        if path is None:
            return
        try:
            state = torch.load(path, map_location=engine.state.device, weights_only=True)
            for name, obj in self.objects.items():
                obj.load_state_dict(state[name])
        except Exception as error:
            raise IntegrityError(
                "GM-W030",
                "checkpoint cannot be resumed",
                got=f"{path.name}: {type(error).__name__}",
                expected="a checkpoint of the same networks and settings",
                next_step="use another output_dir, or remove the checkpoints",
            ) from error
        engine.state.epoch = state["engine"]["epoch"]
        engine.state.iteration = state["engine"]["iteration"]
        if self.best_of is not None and "best" in state:
            self.best_of.state.best_metric = state["best"]["metric"]
            self.best_of.state.best_metric_epoch = self._best_epoch = state["best"]["epoch"]
        self.logger.info("resumed after epoch %d from %s", engine.state.epoch, path.name)
