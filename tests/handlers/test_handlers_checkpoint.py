"""Checkpoints: which are written, which are kept, what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from ignite.engine import Engine, Events, State
from torch import nn

from gmia_monai.errors import IntegrityError
from gmia_monai.handlers import ResumableCheckpoint
from gmia_monai.handlers.checkpoint import find_last_checkpoint


def _engine(net: nn.Module) -> Engine:
    def step(engine: Engine, batch: float) -> None:
        with torch.no_grad():
            net.weight += batch

    engine = Engine(step)
    engine.state.device = torch.device("cpu")
    return engine


def _run(folder: Path, epochs: int, evaluator: Any = None, **kwargs: Any) -> tuple[nn.Module, Engine]:
    net = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(net.weight)
    engine = _engine(net)
    handler = ResumableCheckpoint(folder, {"net": net}, best_of=evaluator, **kwargs)
    if evaluator is not None:
        engine.add_event_handler(Events.EPOCH_COMPLETED, lambda e: evaluator.judge(e.state.epoch))
    handler.attach(engine)
    engine.run([1.0, 1.0], max_epochs=epochs)
    return net, engine


class _Judge:
    """An evaluator whose metric is given for each epoch."""

    def __init__(self, metrics: list[float]) -> None:
        self.metrics = metrics
        self.state = State(best_metric=-1.0, best_metric_epoch=-1)

    def judge(self, epoch: int) -> None:
        if self.state.best_metric_epoch == -1 or self.metrics[epoch - 1] > self.state.best_metric:
            self.state.best_metric, self.state.best_metric_epoch = self.metrics[epoch - 1], epoch


def _names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def test_interval_and_keep_choose_the_files_and_the_last_epoch_is_among_them(tmp_path):
    _run(tmp_path, 7, interval=2, keep=2)
    assert _names(tmp_path) == ["checkpoint_epoch=6.pt", "checkpoint_epoch=7.pt"]
    assert find_last_checkpoint(tmp_path).name == "checkpoint_epoch=7.pt"


def test_the_last_checkpoint_is_that_of_the_highest_number(tmp_path):
    for name in ("checkpoint_epoch=9.pt", "checkpoint_epoch=10.pt", "checkpoint_epoch=11.pt.tmp", "best.pt"):
        (tmp_path / name).touch()
    assert find_last_checkpoint(tmp_path).name == "checkpoint_epoch=10.pt"
    assert find_last_checkpoint(tmp_path / "absent") is None


def test_a_second_run_goes_on_where_the_first_ended(tmp_path):
    _run(tmp_path, 2)
    net, engine = _run(tmp_path, 5)
    assert net.weight.item() == 10.0  # five epochs of two steps in all
    assert engine.state.iteration == 10 and engine.state.epoch == 5
    fresh, _ = _run(tmp_path, 5, resume=False)
    assert fresh.weight.item() == 10.0


def test_without_resume_the_run_starts_anew(tmp_path):
    _run(tmp_path, 3)
    steps: list[int] = []
    net = nn.Linear(1, 1, bias=False)
    engine = _engine(net)
    engine.add_event_handler(Events.ITERATION_COMPLETED, lambda e: steps.append(e.state.iteration))
    ResumableCheckpoint(tmp_path, {"net": net}, resume=False).attach(engine)
    engine.run([1.0], max_epochs=1)
    assert steps == [1]


def test_best_is_written_at_every_new_best_also_between_intervals(tmp_path):
    _run(tmp_path, 4, _Judge([0.3, 0.1, 0.7, 0.6]), interval=4)
    best = torch.load(tmp_path / "best.pt", weights_only=True)
    assert best["engine"] == {"epoch": 3, "iteration": 6} and best["best"] == {"metric": 0.7, "epoch": 3}
    assert best["net"]["weight"].item() == 6.0


def test_a_resumed_run_keeps_the_best_until_it_is_beaten(tmp_path):
    _run(tmp_path, 2, _Judge([0.9, 0.1]))
    judge = _Judge([0.0, 0.0, 0.5, 0.95])
    _run(tmp_path, 3, judge)
    assert torch.load(tmp_path / "best.pt", weights_only=True)["best"] == {"metric": 0.9, "epoch": 1}
    _run(tmp_path, 4, judge)
    assert torch.load(tmp_path / "best.pt", weights_only=True)["best"] == {"metric": 0.95, "epoch": 4}


def test_other_processes_read_and_do_not_write(tmp_path):
    _run(tmp_path, 2)
    net, _ = _run(tmp_path, 3, write=False)
    assert net.weight.item() == 6.0
    assert _names(tmp_path) == ["checkpoint_epoch=1.pt", "checkpoint_epoch=2.pt"]


@pytest.mark.parametrize("damage", ["cut", "empty", "text", "other network", "other names"])
def test_a_checkpoint_that_does_not_fit_is_refused_and_left_alone(tmp_path, damage):
    _run(tmp_path, 1)
    path = tmp_path / "checkpoint_epoch=1.pt"
    if damage == "other network":
        torch.save({"net": nn.Linear(2, 1).state_dict(), "engine": {"epoch": 1, "iteration": 2}}, path)
    elif damage == "other names":
        torch.save({"engine": {"epoch": 1, "iteration": 2}}, path)
    else:
        data = path.read_bytes()
        path.write_bytes({"cut": data[: len(data) // 2], "empty": b"", "text": b"hello"}[damage])
    before = path.read_bytes()
    with pytest.raises(IntegrityError, match="GM-W030"):
        _run(tmp_path, 2)
    assert path.read_bytes() == before and _names(tmp_path) == [path.name]


def test_a_write_that_fails_leaves_the_older_checkpoint_and_no_fragment(tmp_path, monkeypatch):
    _run(tmp_path, 1)

    def fail(state: Any, path: Path) -> None:
        Path(path).write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(OSError, match="disk full"):
        _run(tmp_path, 2)
    assert _names(tmp_path) == ["checkpoint_epoch=1.pt"]
    torch.load(tmp_path / "checkpoint_epoch=1.pt", weights_only=True)
