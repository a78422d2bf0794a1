"""Silence is judged over a whole family; Holm's rule against its plain statement."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm

from gmia_monai.metrics.intervals import Interval
from gmia_monai.metrics.results import Result, RunContext
from gmia_monai.report.alarm import figures_of, holm
from gmia_monai.report.systems import systems_markdown


def _line(system: str, name: str, value: float, half: float | None = 0.02, negatives: str | None = None) -> Result:
    found = value if half is None else Interval(value, value - half, value + half)
    context = RunContext(system, "cxr64", command="make it")
    return context.result(name, found, n_patients=10, n_images=20, negatives=negatives)


def test_figures_that_chance_decides_are_found_with_their_distance():
    lines = [
        _line("noise", "verification_auc.T1.frozen.v1", 0.52, negatives="matched"),
        _line("noise", "verification_auc_two_sided.T3.adaptive_cross_snn.v1", 0.49, negatives="random"),
        _line("noise", "presence_auc.largest.frozen.v1", 0.5),
        _line("noise", "anonymeter_singling_out_risk.arcface.v1", 0.01, half=0.02),
        _line("noise", "anonymeter_linkability_risk.arcface.v1", 0.1, half=0.05),
        # no figures of their own, or none that chance decides
        _line("noise", "verification_auc.T1.worst.v1", 0.9),
        _line("noise", "verification_auc.T1.metadata.v1", 0.6),
        _line("noise", "presence_auc.worst.v1", 0.9),
        _line("noise", "fidelity_psnr.v1", 20.0),
        _line("noise", "verification_auc.T1.snn.v1", 0.7, half=None),
    ]
    found = {f.line.name: f for f in figures_of(lines)}
    assert len(found) == 5
    assert found["verification_auc.T1.frozen.v1"].z == pytest.approx(1.959964)
    assert found["verification_auc_two_sided.T3.adaptive_cross_snn.v1"].attack == "verification, T3"
    assert found["verification_auc_two_sided.T3.adaptive_cross_snn.v1"].z < 0
    assert found["presence_auc.largest.frozen.v1"].z == 0
    assert found["anonymeter_singling_out_risk.arcface.v1"].z == 0
    assert found["anonymeter_linkability_risk.arcface.v1"].z == pytest.approx(2 * 1.959964)


def test_holm_is_its_plain_statement():
    rng = np.random.default_rng(0)
    lines = [_line("noise", f"verification_auc.T1.a{i}.v1", 0.5 + 0.02 * rng.normal()) for i in range(12)]
    figures = figures_of(lines)
    p = [2 * norm.sf(abs(f.z)) for f in figures]
    adjusted = holm(figures)
    for rank, i in enumerate(np.argsort(p)):
        earlier = [min(1.0, (12 - r) * p[j]) for r, j in enumerate(np.argsort(p)) if r <= rank]
        assert adjusted[i] == pytest.approx(max(earlier))
    assert len(holm([])) == 0


def test_the_page_says_which_attack_is_not_silent():
    lines = [
        _line("unchanged", "verification_auc.T1.frozen.v1", 0.97, negatives="matched"),
        _line("noise", "verification_auc.T1.frozen.v1", 0.51, negatives="matched"),
        _line("unchanged", "presence_auc.largest.frozen.v1", 0.9),
        _line("noise", "presence_auc.largest.frozen.v1", 0.7),
        _line("unchanged", "inversion_auc.T1.v1", 0.51),
    ]
    page = systems_markdown(lines)
    rows = {row.split(" | ")[0].strip("| "): row for row in page.splitlines() if row.startswith("|")}
    assert "0.970" in rows["verification, T1"] and rows["verification, T1"].endswith("| yes |")
    assert rows["verification, T1"].count("| yes |") == 2
    assert rows["presence"].endswith("| **no** |")
    assert "**no**" in rows["inversion"] and rows["attribute"].count("–") == 6, "a dead attack is marked"
    assert "Does the alarm work" not in systems_markdown(lines[:1])
