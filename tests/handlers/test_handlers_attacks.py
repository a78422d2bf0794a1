"""Lines of attacks: written when an attack is done, read back by a resumed run, with the time left."""

from __future__ import annotations

import re
import time

import numpy as np
from ignite.engine import Engine

from gmia_monai.handlers import AttackLines
from gmia_monai.metrics.results import RunContext, read_results

CONTEXT = RunContext("x", "cxr64")
NAMES = ("one", "two", "three", "four")


def _attack(engine: Engine, name: str) -> dict[str, object]:
    result = CONTEXT.result(f"{name}.v1", 0.5, n_patients=1, n_images=1)
    return {"attack": name, "results": [result], "figure_data": {f"roc/{name}": np.arange(3.0)}}


def _run(lines: AttackLines) -> None:
    engine = Engine(_attack)
    lines.attach(engine)
    engine.run(lines.pending(), max_epochs=1)


def test_lines_and_pictures_of_all_attacks_are_read_back(tmp_path):
    _run(AttackLines(tmp_path, "ab" * 8, NAMES[:2]))
    resumed = AttackLines(tmp_path, "ab" * 8, NAMES)
    assert resumed.pending() == list(NAMES[2:])
    _run(resumed)
    assert [r.name for r in read_results(tmp_path / "results.jsonl")] == [f"{name}.v1" for name in NAMES]
    assert sorted(resumed.figure_data()) == sorted(f"roc/{name}" for name in NAMES)
    assert AttackLines(tmp_path, "cd" * 8, NAMES).pending() == list(NAMES), "another fingerprint is another run"


def test_the_log_says_about_how_long_the_others_take(tmp_path, monkeypatch, caplog):
    lines = AttackLines(tmp_path, "ab" * 8, NAMES)
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    engine = Engine(_attack)
    lines._started(engine)
    with caplog.at_level("INFO"):
        for name in NAMES:
            now[0] += 90.0
            engine.state.output = _attack(engine, name)
            lines(engine)
    left = re.findall(r"attack \w+ done in 90 s, 1 lines; (\d) left, about ([\d:]+)", caplog.text)
    assert left == [("3", "0:04:30"), ("2", "0:03:00"), ("1", "0:01:30"), ("0", "0:00:00")]
