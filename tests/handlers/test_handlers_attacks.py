"""Lines of attacks: written when an attack is done, read back by a resumed run, with the time left."""

from __future__ import annotations

import re
import time

import numpy as np
import pytest
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


def test_a_run_of_some_attacks_keeps_what_others_have_done(tmp_path):
    mark = "ab" * 8
    _run(AttackLines(tmp_path, mark, NAMES))
    _run(AttackLines(tmp_path, "cd" * 8, ("elsewhere",)))
    again = AttackLines(tmp_path, mark, ("five", "two"))
    _run(again)
    order = ["five", "two", "four", "one", "three"]
    assert [r.name for r in read_results(tmp_path / "results.jsonl")] == [f"{name}.v1" for name in order]
    assert set(again.figure_data()) == {f"roc/{name}" for name in order}


def test_an_attack_with_facts_of_its_own_has_its_own_fingerprint(tmp_path):
    mark = "ab" * 8
    first, second = ({"two": mark + more} for more in ("00000000", "11111111"))
    _run(AttackLines(tmp_path, mark, ("one", "two"), first))
    assert AttackLines(tmp_path, mark, ("one", "two"), second).pending() == ["two"]
    lines = AttackLines(tmp_path, mark, ("one",), second)
    assert lines.pending() == [] and [r.name for r in lines.finish()] == ["one.v1", "two.v1"]
    _run(AttackLines(tmp_path, mark, ("two",), second))
    assert [r.name for r in lines.finish()] == ["one.v1", "two.v1"], "once, not of both lists of members"


def test_facts_that_change_while_a_run_goes_on_are_asked_for_anew(tmp_path):
    facts = {"two": ""}
    lines = AttackLines(tmp_path, "ab" * 8, ("one", "two"), {}, lambda name: facts.get(name, ""))
    _run(lines)
    assert lines.pending() == []
    facts["two"] = "12345678"
    assert lines.pending() == ["two"] and lines.path("two").name == f"two.{'ab' * 8}12345678.jsonl"


def test_fidelity_is_not_done_before_utility_is(tmp_path):
    _run(AttackLines(tmp_path, "ab" * 8, ("fidelity",)))
    assert AttackLines(tmp_path, "ab" * 8, ("fidelity",)).pending() == []
    assert AttackLines(tmp_path, "ab" * 8, ("utility", "fidelity")).pending() == ["utility", "fidelity"]


def test_the_time_left_knows_what_attacks_cost(tmp_path, monkeypatch, caplog):
    names = ("presence", "verification", "release")
    lines, now = AttackLines(tmp_path, "ab" * 8, names), [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    lines._started(Engine(_attack))
    engine = Engine(_attack)
    with caplog.at_level("INFO"):
        for name, seconds in zip(names, (10.0, 240.0, 1.0), strict=True):
            now[0] += seconds
            engine.state.output = _attack(engine, name)
            lines(engine)
    left = [int(h) * 3600 + int(m) * 60 + int(s) for h, m, s in re.findall(r"about (\d+):(\d+):(\d+)", caplog.text)]
    assert left[0] == pytest.approx(10 / 5 * 60, abs=2), "twelve times as long as the first"
    assert left[1:] == [0, 0]


def test_what_was_left_out_says_nothing_of_the_time(tmp_path, caplog):
    lines, engine = AttackLines(tmp_path, "ab" * 8, NAMES), Engine(_attack)
    lines._started(engine)
    result = CONTEXT.result("one_left_out.v1", float("nan"), n_patients=None, n_images=1)
    engine.state.output = {"attack": "one", "results": [result], "figure_data": {}}
    with caplog.at_level("INFO"):
        lines(engine)
    assert "3 left, about an unknown time" in caplog.text


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
