"""Utility and fidelity on both pages: means, findings, subgroups, drifts; each line in its cell, nothing else."""

from __future__ import annotations

import re

from gmia_monai.metrics.limits import Interval
from gmia_monai.metrics.results import Result, RunContext
from gmia_monai.report.systems import systems_markdown
from gmia_monai.report.utility_sections import utility_sections

LEFT = "What is left for diagnosis"


def _line(name: str, value: float, half: float | None = 0.01, system: str = "x", **extra: object) -> Result:
    found = value if half is None else Interval(value, value - half, value + half)
    return RunContext(system, "cxr64").result(name, found, n_patients=675, n_images=1326, extra=extra)


def _figures(part: str, auroc: float) -> list[Result]:
    values = {"auroc": auroc, "ap": 0.2, "accuracy": 0.8, "f1": 0.15}
    extra = {"n_positive": {"Effusion": 94, "Mass": 44}, "left_out": {"Hernia": 8}}
    each = lambda v: {"Effusion": [v + 0.1, v, v + 0.2], "Mass": [v - 0.1, None, None]}  # noqa: E731
    lines = [_line(f"utility_macro_{f}.{part}.small.v1", v, per_finding=each(v), **extra) for f, v in values.items()]
    return [*lines, _line(f"utility_macro_ece.{part}.small.v1", 0.03, None, per_finding={"Effusion": [0.04, 0, 0]})]


LINES = [
    *_figures("real_to_real", 0.7),
    *_figures("released_to_real", 0.65),
    _line(
        "utility_macro_auroc_loss.released_to_real.small.v1",
        0.05,
        per_finding={"Effusion": [0.04, 0.01, 0.07], "Mass": [0.06, None, None]},
        **{"non_inferior_at_0.02": False},
    ),
    _line("utility_macro_ap_loss.released_to_real.small.v1", -0.0001, 0.0002),
    _line("utility_macro_auroc_loss.released_to_real.small.age_40_59.v1", 0.03, released=0.6),
    _line("utility_macro_auroc_loss.released_to_real.small.view_PA.v1", 0.02, released=0.61),
    _line("utility_macro_auroc_loss.real_to_released.small.view_PA.v1", 0.08),
    _line("utility_paper_auroc.released_to_real.small.v1", 0.68, per_finding={"Effusion": [0.68, 0.6, 0.7]}),
    _line("fidelity_psnr.v1", 22.5, 0.1),
    _line("kid.loss.v1", 0.0021, 0.0002),
    _line("logit_drift.loss.v1", 0.1, per_finding={"Effusion": 0.12, "Mass": 0.08}),
    _line("probability_drift.other.v1", 0.02, per_finding={"Effusion": 0.03}),
]


def _sections(lines: list[Result]) -> dict[str, dict[str, dict[str, str]]]:
    """Cells by title, row and column."""
    found = {}
    for section in utility_sections(lines):
        header = section["header"]
        assert all(len(row) == len(header) for row in section["rows"])
        found[section["title"]] = {row[0]: dict(zip(header[1:], row[1:], strict=True)) for row in section["rows"]}
    return found


def test_the_report_has_means_losses_and_claims():
    found = _sections(LINES)
    left = found[LEFT]["released to real, small"]
    assert left == {
        "AUROC": "0.650 (0.640 to 0.660)",
        "AP": "0.200 (0.190 to 0.210)",
        "accuracy": "0.800 (0.790 to 0.810)",
        "F1": "0.150 (0.140 to 0.160)",
        "calibration error": "0.030",
    }
    lost = found["What diagnosis loses"]
    assert set(lost) == {"released to real, small"}
    assert lost["released to real, small"]["AUROC loss"] == "0.050 (0.040 to 0.060)"
    assert lost["released to real, small"]["AP loss"] == "0.000 (0.000 to 0.000)", "no zero has a sign"
    assert lost["released to real, small"]["sound at 0.02"] == "no"
    assert found["The paper's labels"]["released to real, small"]["AUROC"].startswith("0.680")
    assert "F1 at 0.5" not in found["The paper's labels"]["released to real, small"]
    half = _line("utility_paper_f1_at_half.released_to_real.small.v1", 0.11)
    assert _sections([*LINES, half])["The paper's labels"]["released to real, small"]["F1 at 0.5"].startswith("0.110")
    note = next(s["note"] for s in utility_sections(LINES) if s["title"] == LEFT)
    assert "Hernia (8)" in note


def test_the_report_has_each_finding_beside_real_training():
    found = _sections(LINES)
    effusion = found["Each finding: released to real, small"]["Effusion"]
    assert effusion["positive images"] == "94" and effusion["AUROC (real)"] == "0.750 (0.800)"
    assert effusion["AUROC loss (95 %)"] == "0.040 (0.010 to 0.070)" and effusion["F1 (real)"] == "0.250 (0.250)"
    mass = found["Each finding: released to real, small"]["Mass"]
    assert mass["AUROC loss (95 %)"] == "0.060" and mass["calibration error (real)"] == "–"
    assert not any("real to real" in title for title in found)


def test_the_report_has_subgroups_and_fidelity():
    found = _sections(LINES)
    groups = found["Diagnosis by subgroup"]
    assert groups["age 40 to 59"]["released to real, small"] == "0.030 (0.020 to 0.040) [0.600]"
    assert groups["age 40 to 59"]["real to released, small"] == "–" and groups["view PA"]["patients"] == "675"
    fidelity = found["Fidelity"]
    assert fidelity["PSNR, dB"]["value"] == "22.5" and fidelity["KID, network loss"]["value"] == "0.00210"
    assert fidelity["probability drift, network other"]["95 %"] == "0.01000 to 0.03000"
    drift = found["Drift of each finding"]
    assert drift["Mass"] == {"logit, network loss": "0.080", "probability, network other": "–"}
    assert utility_sections([_line("presence_auc.worst.v1", 0.5)]) == []


def _table(page: str, above: str) -> list[dict[str, str]]:
    [block] = re.findall(rf"{re.escape(above)}.*:\n\n((?:\|.*\n)+)", page)
    header, _, *rows = [[c.strip() for c in row.strip("|").split("|")] for row in block.splitlines()]
    return [dict(zip(header, row, strict=True)) for row in rows]


def test_the_page_of_systems_has_means_and_subgroups():
    page = systems_markdown([*LINES, _line("fidelity_psnr.v1", 30.0, system="y")])
    one, other = _table(page, "Trained on the release, tested on real images")
    assert one["AUROC (loss)"] == "0.650 (0.050 [0.040, 0.060])" and one["accuracy (loss)"] == "0.800"
    assert one["AP (loss)"] == "0.200 (0.000 [0.000, 0.000])"
    assert one["calibration error (real)"] == "0.030 (0.030)" and one["sound at 0.02"] == "no"
    assert other["system"] == "y" and set(list(other.values())[1:]) == {"–"}
    assert "Trained on real images" not in page, "no line, no table"
    groups = _table(page, "AUROC loss by subgroup of the test images, trained on the release")[0]
    assert groups["age 40 to 59"].startswith("0.030") and groups["view PA"].startswith("0.020")
    reverse = _table(page, "AUROC loss by subgroup of the test images, trained on real images")[0]
    assert list(reverse) == ["system", "view PA"]
    assert _table(page, "Under the diagnostic network `loss`")[0]["KID"] == "0.00210 [0.00190, 0.00230]"
    assert "22.5 [22.4, 22.6]" in page and "## Utility" not in systems_markdown([LINES[-1]])
