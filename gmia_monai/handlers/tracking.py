"""MLflow tracking on SQLite: parameters, metrics, settings and pictures, with a truthful end of the run."""

from __future__ import annotations

import json
import logging
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock
from ignite.engine import Engine, Events
from monai.handlers import MLFlowHandler

from gmia_monai.dicom.atomic import atomic_path
from gmia_monai.errors import ResourceError, is_out_of_memory
from gmia_monai.typing import PathLike

__all__ = ["RunTracker", "flatten_settings"]

_METRICS_AT_ONCE = 500  # MLflow takes at most 1000


def flatten_settings(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings as ``{"a.b": value}``: numbers, texts, booleans, lists; of an absolute path the name."""
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        name = f"{prefix}{key}"
        if isinstance(value, (str, Path)) and Path(value).is_absolute():
            value = Path(value).name
        if isinstance(value, Mapping):
            flat.update(flatten_settings(value, f"{name}."))
        elif value is None or isinstance(value, (bool, int, float, str, list, tuple)):
            flat[name] = value
    return flat


class RunTracker(MLFlowHandler):
    """MLFlowHandler with a unique run name that ends FINISHED, FAILED or KILLED, as it was.

    Attach it to a trainer, and give evaluators :meth:`for_evaluator`.

    Args:
        output_dir: folder of the run; the SQLite file is ``mlflow.db`` in its parent, so that runs stand side by side.
        name: experiment; also the first part of the run's name.
        settings: hyper-parameters, nested mappings allowed; logged as parameters and as ``settings.json``.
        tracking_uri: another MLflow store; ``MLFLOW_TRACKING_URI`` wins over both.
        every_iterations: iterations between two entries of the losses; the first iteration has one, too.
        write: False in all but one of several processes: the handler is there, and does nothing.
    """

    def __init__(
        self,
        output_dir: PathLike,
        name: str,
        settings: Mapping[str, Any] | None = None,
        tracking_uri: str | None = None,
        every_iterations: int = 20,
        write: bool = True,
    ) -> None:
        self.write = write
        self.settings = dict(settings or {})
        if not write:
            self.cur_run = None
            return
        self.output_dir = Path(output_dir).absolute()
        self.output_dir.mkdir(parents=True, exist_ok=True)
        # Alembic announces every migration of a new SQLite file, some forty lines.
        logging.getLogger("alembic").setLevel(logging.WARNING)
        database = self.output_dir.parent / "mlflow.db"
        # Two runs that start together would both make the tables of a new file, and one of them would fail.
        with FileLock(f"{database}.lock"):
            super().__init__(
                tracking_uri=tracking_uri or f"sqlite:///{database}",
                experiment_name=name,
                run_name=f"{name}-{time.strftime('%Y%m%d-%H%M%S')}-{uuid.uuid4().hex[:6]}",
                iteration_log=lambda _, i: i == 1 or i % every_iterations == 0,
                iteration_logger=self._log_iteration,
                epoch_log=False,
                optimizer_param_names=[],
            )

    def attach(self, engine: Engine) -> None:
        """Registers the handler on the trainer."""
        if not self.write:
            return
        super().attach(engine)
        engine.add_event_handler(Events.STARTED, self._log_settings)
        engine.add_event_handler(Events.COMPLETED, self.close)
        engine.add_event_handler(Events.EXCEPTION_RAISED, self._failed)

    def for_evaluator(self, names: Sequence[str] | None = None, prefix: str = "val_") -> _EvaluatorTracker:
        """A handler that logs an evaluator's metrics into the same run."""
        return _EvaluatorTracker(self, names, prefix)

    def log_picture(self, path: PathLike) -> None:
        """Logs a file under ``images``; does nothing outside a run."""
        if self.cur_run is not None:
            self.client.log_artifact(self.cur_run.info.run_id, str(path), "images")

    def log_file(self, path: PathLike, folder: str | None = None) -> None:
        """Logs a file, in a folder of the run's if given; does nothing outside a run."""
        if self.cur_run is not None:
            self.client.log_artifact(self.cur_run.info.run_id, str(path), folder)

    def log_missing(self, values: Mapping[str, float], step: int) -> None:
        """Logs those of the values that the run has not got yet, as a resumed one; does nothing outside a run."""
        if self.cur_run is None:
            return
        known = self.client.get_run(self.cur_run.info.run_id).data.metrics
        missing = [(key, value) for key, value in values.items() if key not in known]
        for start in range(0, len(missing), _METRICS_AT_ONCE):
            self._log_metrics(dict(missing[start : start + _METRICS_AT_ONCE]), step)

    def _log_settings(self, engine: Engine) -> None:
        flat = flatten_settings(self.settings)
        self._log_params({k: str(v)[:500] for k, v in flat.items()})
        path = self.output_dir / "settings.json"
        with atomic_path(path) as temporary:
            temporary.write_text(json.dumps(flat, indent=2, default=str) + "\n")
        self.client.log_artifact(self.cur_run.info.run_id, str(path))

    def _log_iteration(self, engine: Engine) -> None:
        output = engine.state.output
        scalars = {k: float(v) for k, v in output.items() if isinstance(v, float) or getattr(v, "ndim", 1) == 0}
        self._log_metrics(scalars, engine.state.iteration)

    def _failed(self, engine: Engine, error: BaseException) -> None:
        # Ignite swallows an exception that has a handler, unless the handler raises it again.
        if self.cur_run is not None:
            status = "KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED"
            self.client.set_terminated(self.cur_run.info.run_id, status)
            self.cur_run = None
        if is_out_of_memory(error):
            raise ResourceError(
                "GM-R031", "a batch does not fit into memory", next_step="lower --batch_size, or use another device"
            ) from error
        raise error


class _EvaluatorTracker:
    def __init__(self, tracker: RunTracker, names: Sequence[str] | None, prefix: str) -> None:
        self.tracker = tracker
        self.names = names
        self.prefix = prefix

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        if self.tracker.cur_run is None:
            return
        metrics = {
            f"{self.prefix}{k}": float(v)
            for k, v in engine.state.metrics.items()
            if (self.names is None or k in self.names) and isinstance(v, (int, float))
        }
        # MONAI's ValidationHandler runs the evaluator for one epoch, whose number is the trainer's.
        self.tracker._log_metrics(metrics, engine.state.epoch)
