"""Result lines: round trip, replacement, refusal of malformed ones, and no half-written file."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

import numpy as np
import pytest

from gmia_monai.errors import IntegrityError, UsageError
from gmia_monai.metrics.limits import Interval
from gmia_monai.metrics.results import Result, RunContext, append_results, read_results

GOOD = Result(
    name="verification_auc.T1.frozen.v1",
    value=0.978,
    low=0.97,
    high=0.985,
    n_patients=309,
    n_images=1500,
    system="unchanged",
    profile="cxr64",
    negatives="random",
    attacker="frozen",
    seed=3,
    release_hash="0123abcd",
    config_hash=None,
    command="python -m something",
    extra={"n_positive_pairs": 7, "nested": {"a": [1, 2]}, "text": "line\u2028separator"},
)


def test_round_trip(tmp_path):
    path = tmp_path / "deep" / "identity.jsonl"
    unmeasured = replace(GOOD, name="tar_at_far_1pct.T1.frozen.v1", value=None, low=None, high=None)
    append_results(path, [GOOD, unmeasured])
    assert read_results(path) == [GOOD, unmeasured]
    assert len(path.read_text().strip().split("\n")) == 2
    assert [p.name for p in path.parent.iterdir()] == ["identity.jsonl"]


def test_same_identity_replaces_and_others_stay(tmp_path):
    path = tmp_path / "r.jsonl"
    append_results(path, [GOOD, replace(GOOD, negatives="matched")])
    newer = replace(GOOD, value=0.98, command="another", n_images=9)
    append_results(path, [newer, replace(GOOD, seed=4), replace(GOOD, system="gmia m=-0.5")])
    found = read_results(path)
    assert len(found) == 4
    assert found[0] == newer and found[1].negatives == "matched"


def test_outdated_lines_go_but_not_new_ones(tmp_path):
    path = tmp_path / "a.jsonl"
    other = replace(GOOD, name="verification_auc.T2.frozen.v1", release_hash="ffffffff")
    append_results(path, [GOOD, other])
    new = replace(GOOD, name="verification_auc.T3.frozen.v1", release_hash="ffffffff")
    append_results(path, [new], lambda line: line.release_hash == "ffffffff")
    assert read_results(path) == [GOOD, new]


def test_folder_is_read_in_order(tmp_path):
    append_results(tmp_path / "b.jsonl", [replace(GOOD, system="b")])
    append_results(tmp_path / "a.jsonl", [replace(GOOD, system="a")])
    assert [r.system for r in read_results(tmp_path)] == ["a", "b"]
    with pytest.raises(UsageError, match="GM-U252"):
        read_results(tmp_path / "absent.jsonl")


@pytest.mark.parametrize(
    "change",
    [
        {"name": "verification_auc.T1.frozen"},
        {"name": "Verification.v1"},
        {"name": "a b.v1"},
        {"name": "auc..v1"},
        {"name": "auc.v0"},
        {"name": "auc.v1\n"},
        {"value": "high"},
        {"value": True},
        {"low": 0.99, "high": 0.5},
        {"n_images": -1},
        {"n_images": 2.5},
        {"negatives": "some"},
        {"release_hash": "not hexadecimal"},
        {"system": ""},
        {"command": "two\nlines"},
        {"extra": []},
    ],
)
def test_malformed_lines_are_refused(tmp_path, change):
    line = json.dumps(asdict(GOOD) | change)
    with pytest.raises(UsageError, match="GM-U251"):
        Result.from_json(line)
    path = tmp_path / "r.jsonl"
    path.write_text(GOOD.to_json() + "\n" + line + "\n")
    with pytest.raises(IntegrityError, match="line 2"):
        read_results(path)


@pytest.mark.parametrize("line", ["", "[]", "{}", "not json", GOOD.to_json()[:-5], '{"value": NaN}'])
def test_lines_that_are_no_records_are_refused(line):
    with pytest.raises(UsageError, match="GM-U251"):
        Result.from_json(line)


def test_unknown_and_missing_fields_are_refused():
    record = asdict(GOOD)
    with pytest.raises(UsageError, match="GM-U251"):
        Result.from_json(json.dumps(record | {"more": 1}))
    del record["command"]
    with pytest.raises(UsageError, match="GM-U251"):
        Result.from_json(json.dumps(record))


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "r.jsonl"
    append_results(path, [GOOD])

    def broken(*_):
        raise OSError("disk full")

    monkeypatch.setattr("gmia_monai.metrics.results.os.replace", broken)
    with pytest.raises(OSError, match="disk full"):
        append_results(path, [replace(GOOD, seed=9)])
    monkeypatch.undo()
    assert read_results(path) == [GOOD]
    assert [p.name for p in tmp_path.iterdir()] == ["r.jsonl"]


def test_context_makes_results_and_explains_what_is_not_finite():
    context = RunContext("unchanged", "cxr64", seed=2, command="c")
    result = context.result("x.v1", Interval(0.5, 0.25, 0.75), n_patients=3, n_images=4, extra={"k": 1})
    assert (result.value, result.low, result.high, result.seed, result.extra) == (0.5, 0.25, 0.75, 2, {"k": 1})
    infinite = context.result("x.v1", float("inf"), n_patients=None, n_images=4)
    assert infinite.value is None and infinite.low is None and infinite.extra == {"reason": "infinite"}
    told = context.result("x.v1", float("nan"), n_patients=None, n_images=4, extra={"reason": "too few"})
    assert told.extra == {"reason": "too few"}
    assert context.result("x.v1", np.float64(1) / 3, n_patients=1, n_images=1).to_json()
    dated = RunContext("unchanged", "cxr64", suite_version=3).result("x.v1", 0.5, n_patients=1, n_images=1)
    assert dated.extra == {"suite_version": 3} and Result.from_json(dated.to_json()) == dated
