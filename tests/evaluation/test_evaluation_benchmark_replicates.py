"""Resamples of headline figures stand beside the lines of each system, and only those that belong to them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from benchmark_cohort import tiny_plan, write_cohort, write_models

from gmia_monai.evaluation import suite
from gmia_monai.evaluation.benchmark import run_benchmark
from gmia_monai.metrics.differences import paired_difference, share_draws
from gmia_monai.metrics.replicates import read_replicates
from gmia_monai.metrics.results import read_results

SYSTEMS = ["unchanged", "noise"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("benchmark")
    return write_cohort(folder / "real"), write_models(folder / "models")


def _headline(lines: Path, system: str):
    [line] = [
        r
        for r in read_results(lines / f"{system}.jsonl")
        if (r.name, r.negatives) == ("verification_auc.T1.worst.v1", "matched")
    ]
    return line, read_replicates(lines / f"{system}.npz").of(line)


def test_systems_leave_shared_resamples_that_follow_their_lines(folders, tmp_path, monkeypatch):
    plan = tiny_plan(*folders, tmp_path, only=SYSTEMS, attacks=["verification"], n_boot=8)
    plan = replace(plan, judgement=replace(plan.judgement, more_handlers=lambda *of: []))  # no report
    lines = plan.results_dir
    assert run_benchmark(plan).done == tuple(SYSTEMS)
    (first, one), (second, other) = (_headline(lines, system) for system in SYSTEMS)
    assert one.found.shape == (9, 1) and share_draws(one, other)
    found = paired_difference(one, other)
    assert found.value == pytest.approx(first.value - second.value, abs=1e-5) and found.low > 0
    kept = {system: (lines / f"{system}.npz").read_bytes() for system in SYSTEMS}

    run_benchmark(plan)  # nothing is left to do; what was lost comes back from what attacks keep
    (lines / "noise.npz").unlink()
    run_benchmark(plan)
    assert {system: (lines / f"{system}.npz").read_bytes() for system in SYSTEMS} == kept

    again = replace(plan, only=["noise"], judgement=replace(plan.judgement, n_boot=6))
    run_benchmark(again)
    line, newer = _headline(lines, "noise")
    assert newer.found.shape == (7, 1) and line.config_hash != second.config_hash
    log = read_replicates(lines / "noise.npz")
    assert log.of(second) is None and len(log.kept) == 3, "one a threat model, and none of the lines before"
    assert share_draws(one, newer) and (lines / "unchanged.npz").read_bytes() == kept["unchanged"]

    monkeypatch.setitem(suite.ATTACK_VERSIONS, "verification", 99)  # one attack alone is repeated
    run_benchmark(again)
    repeated, newest = _headline(lines, "noise")
    assert newest is not None and repeated.config_hash != line.config_hash
    assert read_replicates(lines / "noise.npz").of(line) is None
