"""What MLflow gets to know, and how runs end."""

from __future__ import annotations

import json
import logging
import subprocess
import sys

import mlflow
import pytest
from ignite.engine import Engine, Events

from gmia_monai.errors import ResourceError
from gmia_monai.handlers import RunTracker
from gmia_monai.handlers.tracking import flatten_settings


@pytest.fixture(autouse=True)
def _no_other_store(monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    logging.getLogger("mlflow").setLevel(logging.WARNING)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """One database for all tests, whose tables take seconds to make; every test has an experiment of its own."""
    return tmp_path_factory.mktemp("mlflow")


def _engine(error: BaseException | None = None) -> Engine:
    def step(engine: Engine, batch: int) -> dict[str, object]:
        if error is not None and engine.state.iteration == 3:
            raise error
        return {"loss": float(batch), "note": "text", "count": 3}

    engine = Engine(step)
    return engine


def _run(root, name, error=None, **kwargs):
    tracker = RunTracker(root / name, name, **kwargs)
    engine = _engine(error)
    tracker.attach(engine)
    if error is None:
        engine.run(range(1, 7), max_epochs=1)
    else:
        with pytest.raises(type(error)):
            engine.run(range(1, 7), max_epochs=1)
    return tracker


def _runs(root, name):
    client = mlflow.MlflowClient(f"sqlite:///{root / 'mlflow.db'}")
    found = client.search_runs([client.get_experiment_by_name(name).experiment_id], order_by=["start_time ASC"])
    return client, found


def test_settings_are_flat_and_without_folders():
    settings = {"a": {"b": 1, "c": [1, 2], "d": object()}, "path": "/data/x.pt", "rel": "models/x.pt", "n": None}
    assert flatten_settings(settings) == {"a.b": 1, "a.c": [1, 2], "path": "x.pt", "rel": "models/x.pt", "n": None}


def test_a_run_has_parameters_settings_and_some_of_its_losses(root):
    _run(root, "params", settings={"net": {"width": 8}, "weights": "/secret/place/w.pt"}, every_iterations=4)
    client, (run,) = _runs(root, "params")
    assert run.info.status == "FINISHED"
    assert run.data.params["net.width"] == "8" and run.data.params["weights"] == "w.pt"
    assert [(m.step, m.value) for m in client.get_metric_history(run.info.run_id, "loss")] == [(1, 1.0), (4, 4.0)]
    assert "note" not in run.data.metrics
    written = json.loads((root / "params" / "settings.json").read_text())
    assert written == {"net.width": 8, "weights": "w.pt"}
    assert [a.path for a in client.list_artifacts(run.info.run_id)] == ["settings.json"]
    assert not any("/secret" in str(v) for v in (run.data.params | run.data.tags).values())


@pytest.mark.parametrize("error, status", [(ValueError("x"), "FAILED"), (KeyboardInterrupt(), "KILLED")])
def test_a_run_that_breaks_off_says_so_and_the_next_is_another(root, error, status):
    name = status.lower()
    _run(root, name, error)
    _run(root, name)
    _, runs = _runs(root, name)
    assert [r.info.status for r in runs] == [status, "FINISHED"]
    assert len({r.info.run_name for r in runs}) == 2


def test_evaluators_log_under_a_prefix_and_pictures_into_the_run(root, tmp_path):
    tracker = RunTracker(root / "val", "val")
    trainer, evaluator = _engine(), Engine(lambda e, b: None)
    tracker.attach(trainer)
    tracker.for_evaluator().attach(evaluator)
    evaluator.state.metrics = {"auc": 0.5, "curve": [1, 2]}
    picture = tmp_path / "p.png"
    picture.write_bytes(b"x")
    evaluator.run([0])  # before the run: nothing to log into
    tracker.log_picture(picture)

    def validate(engine):
        evaluator.state.metrics = {"auc": 0.75, "curve": [1, 2]}
        evaluator.state.epoch = engine.state.epoch - 1
        evaluator.run([0], max_epochs=engine.state.epoch)
        tracker.log_picture(picture)

    trainer.add_event_handler(Events.EPOCH_COMPLETED, validate)
    trainer.run([1], max_epochs=1)
    client, (run,) = _runs(root, "val")
    assert run.data.metrics["val_auc"] == 0.75 and "val_curve" not in run.data.metrics
    assert [a.path for a in client.list_artifacts(run.info.run_id, "images")] == ["images/p.png"]


def test_other_processes_log_nothing(tmp_path):
    tracker = _run(tmp_path, "silent", write=False)
    tracker.for_evaluator().attach(_engine())
    tracker.log_picture("x.png")
    assert list(tmp_path.iterdir()) == []


def test_two_runs_that_start_together_share_a_new_database(tmp_path):
    code = "import sys; from gmia_monai.handlers import RunTracker; RunTracker(sys.argv[1], sys.argv[2])"
    started = [
        subprocess.Popen([sys.executable, "-c", code, str(tmp_path / name), name], stderr=subprocess.PIPE)
        for name in ("one", "two")
    ]
    for process in started:
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors.decode()[-500:]


def test_a_batch_that_does_not_fit_is_a_coded_error_of_a_failed_run(root):
    tracker = RunTracker(root / "memory", "memory")
    engine = _engine(RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 10 bytes"))
    tracker.attach(engine)
    with pytest.raises(ResourceError, match="GM-R031.*--batch_size"):
        engine.run(range(1, 7), max_epochs=1)
    _, (run,) = _runs(root, "memory")
    assert run.info.status == "FAILED"


def test_what_a_run_lacks_is_logged_and_nothing_twice(root):
    tracker = RunTracker(root / "missing", "missing")
    tracker.log_missing({"a": 1.0}, 0)  # outside a run: nothing to log into
    engine = _engine()
    many = {f"line_{i}": float(i) for i in range(1100)}

    # Attached before the tracker, which ends the run.
    @engine.on(Events.COMPLETED)
    def log(engine):
        tracker.log_missing({"count": 7.0, **many}, 3)
        tracker.log_missing(many, 4)

    tracker.attach(engine)
    engine.run(range(1, 3), max_epochs=1)
    client, [run] = _runs(root, "missing")
    assert run.data.metrics["line_1099"] == 1099 and len(run.data.metrics) == len({"count", "loss", *many})
    assert [m.step for m in client.get_metric_history(run.info.run_id, "line_5")] == [3]
    assert [m.value for m in client.get_metric_history(run.info.run_id, "loss")] == [1.0]


def test_a_file_is_logged_into_its_folder(root, tmp_path):
    tracker, engine = RunTracker(root / "files", "files"), _engine()
    (tmp_path / "a.svg").write_text("<svg/>")
    engine.add_event_handler(Events.COMPLETED, lambda: tracker.log_file(tmp_path / "a.svg", "figures"))
    tracker.attach(engine)
    engine.run([1], max_epochs=1)
    client, [run] = _runs(root, "files")
    assert [a.path for a in client.list_artifacts(run.info.run_id, "figures")] == ["figures/a.svg"]
