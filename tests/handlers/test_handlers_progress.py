"""Progress lines."""

from __future__ import annotations

import logging
import re
import time

from ignite.engine import Engine, Events

from gmia_monai.handlers import ProgressLine


def _lines(caplog, start: int = 0, **kwargs) -> list[str]:
    def step(engine: Engine, batch: int) -> dict[str, float]:
        time.sleep(0.02)
        return {"loss": 0.25, "other": 1.0}

    engine = Engine(step)
    if start:

        @engine.on(Events.STARTED)
        def resume(e: Engine) -> None:
            e.state.epoch, e.state.iteration = start // 4, start

    ProgressLine(**kwargs).attach(engine)
    with caplog.at_level(logging.INFO, logger="gmia_monai"):
        engine.run(range(4), max_epochs=3, epoch_length=4)
    return [r.getMessage() for r in caplog.records if r.name == "gmia_monai.handlers.progress"]


def test_a_line_an_epoch_with_loss_speed_and_time_left(caplog):
    lines = _lines(caplog, every_seconds=100, name="word")
    assert len(lines) == 3
    pattern = r"word  epoch 1/3  iteration 4/12  loss 0\.2500  \d+\.\d\d it/s  left 0:00:0\d \(epoch complete\)"
    assert re.fullmatch(pattern, lines[0])
    assert "left 0:00:00" in lines[-1]


def test_lines_within_an_epoch_by_the_clock(caplog):
    assert len(_lines(caplog, every_seconds=0.0)) == 12 + 3


def test_the_speed_of_a_resumed_run_counts_its_own_iterations(caplog):
    lines = _lines(caplog, start=8, every_seconds=100)
    assert len(lines) == 1 and "epoch 3/3  iteration 12/12" in lines[0]
    assert float(re.search(r"([\d.]+) it/s", lines[0])[1]) < 60


def test_other_processes_are_silent(caplog):
    assert _lines(caplog, write=False) == []


def test_hours_are_written_out(caplog):
    from gmia_monai.handlers.progress import _duration

    assert _duration(2 * 3600 + 3 * 60 + 4.9) == "2:03:04"
