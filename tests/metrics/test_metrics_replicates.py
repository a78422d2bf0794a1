"""Replicates stay beside the lines that they belong to, and never beside others."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from gmia_monai.errors import IntegrityError
from gmia_monai.metrics.differences import Replicates
from gmia_monai.metrics.replicates import ReplicateLog, keep_replicates, read_replicates
from gmia_monai.metrics.results import RunContext, append_results

CONTEXT = RunContext("noise", "cxr64", release_hash="ab" * 8, config_hash="cd" * 8)


def _made(value: float = 0.6, name: str = "auc", context: RunContext = CONTEXT, seed: int = 0):
    found = value + 0.01 * np.random.default_rng(seed).normal(size=(6, 3))
    found[0] = value
    line = context.result(f"{name}.v1", value, n_patients=9, n_images=20, negatives="matched", attacker="worst")
    return line, Replicates(found, 9, "0123", (0, 1, 2), (-1.0, 1.0), True)


def _attack(folder, *made, name: str = "verification.0"):
    """The file that an attack leaves."""
    log = ReplicateLog()
    for line, replicates in made:
        log.add(line, replicates)
    folder.mkdir(exist_ok=True)
    with (folder / f"{name}.npz").open("wb") as stream:
        np.savez_compressed(stream, other=np.zeros(3), **log.arrays())


def test_what_is_written_comes_back_in_single_precision(tmp_path):
    made = [_made(), _made(0.7, "loss", seed=1)]
    _attack(tmp_path / "attacks", *made)
    lines = tmp_path / "lines" / "noise.jsonl"
    append_results(lines, [line for line, _ in made])
    keep_replicates(lines, tmp_path / "attacks")
    for source in (lines.with_suffix(".npz"), lines.parent):
        log = read_replicates(source)
        assert len(log.kept) == 2
        for line, replicates in made:
            back = log.of(line)
            assert back is not None and back.found.dtype == np.float32
            np.testing.assert_allclose(back.found, replicates.found, atol=1e-7)
            assert (back.n_patients, back.draws, back.seeds) == (9, "0123", (0, 1, 2))
            assert back.bounds == (-1.0, 1.0) and back.by_seed
    assert lines.with_suffix(".npz").stat().st_size < 3000
    assert sorted(path.name for path in lines.parent.iterdir()) == ["noise.jsonl", "noise.npz"]
    before = lines.with_suffix(".npz").read_bytes()
    keep_replicates(lines, tmp_path / "attacks")
    assert lines.with_suffix(".npz").read_bytes() == before, "the same lines give the same bytes"


def test_replicates_of_another_line_are_none_of_it():
    line, replicates = _made()
    log = ReplicateLog()
    log.add(line, replicates)
    assert log.of(line) is replicates and log.of(replace(line, command="x", extra={"list": "half"})) is replicates
    changes = {"config_hash": "ef" * 8, "release_hash": None, "seed": 1, "negatives": "random", "value": 0.61}
    for change in (*({key: value} for key, value in changes.items()), {"value": None}, {"system": "noise 2"}):
        assert log.of(replace(line, **change)) is None, change
    log.add(replace(line, name="x.v1", value=None), replicates)
    assert len(log.kept) == 1, "what has no value has no replicates"


def test_old_ones_go_with_their_lines_and_others_stay(tmp_path):
    lines, attacks = tmp_path / "a.jsonl", tmp_path / "attacks"
    old, stays = _made(0.6), _made(0.7, "loss")
    append_results(lines, [old[0], stays[0]])
    _attack(attacks, old, stays)
    keep_replicates(lines, attacks)
    again = _made(0.65, context=replace(CONTEXT, config_hash="ef" * 8))
    append_results(lines, [again[0]])
    assert read_replicates(lines.with_suffix(".npz")).of(again[0]) is None, (
        "before it is written, nothing is taken for it"
    )
    for path in attacks.iterdir():
        path.unlink()
    _attack(attacks, again, name="verification.1")
    keep_replicates(lines, attacks)
    log = read_replicates(lines.with_suffix(".npz"))
    assert log.of(again[0]) and log.of(stays[0]) and log.of(old[0]) is None and len(log.kept) == 2
    append_results(lines, [], lambda line: True)
    keep_replicates(lines, attacks)
    assert not lines.with_suffix(".npz").exists() and read_replicates(lines.with_suffix(".npz")).kept == {}


def test_a_file_that_cannot_be_read_is_refused_when_read_and_replaced_when_written(tmp_path, caplog):
    lines = tmp_path / "a.jsonl"
    made = _made()
    append_results(lines, [made[0]])
    _attack(tmp_path / "attacks", made)
    keep_replicates(lines, tmp_path / "attacks")
    path = lines.with_suffix(".npz")
    whole = path.read_bytes()
    arrays = dict(np.load(path))
    ruined = {"cut": whole[:200], "no file": b"nothing"}
    broken = {
        "no array": {k: v for k, v in arrays.items() if k.endswith("about")},
        "other shape": {k: v if k.endswith("about") else v[:, :2] for k, v in arrays.items()},
        "no text": {k: np.array("[]") if k.endswith("about") else v for k, v in arrays.items()},
        "no JSON": {k: np.array("{") if k.endswith("about") else v for k, v in arrays.items()},
    }
    for name, content in broken.items():
        np.savez(tmp_path / "x.npz", **content)
        ruined[name] = (tmp_path / "x.npz").read_bytes()
    (tmp_path / "x.npz").unlink()
    for name, content in ruined.items():
        path.write_bytes(content)
        with pytest.raises(IntegrityError, match="GM-W252"):
            read_replicates(path)
        caplog.clear()
        keep_replicates(lines, tmp_path / "attacks")
        assert "GM-W252" in caplog.text and path.read_bytes() == whole, name
