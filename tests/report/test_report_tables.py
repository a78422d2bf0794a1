"""Pages from result lines."""

from __future__ import annotations

import subprocess
import sys

from gmia_monai.metrics.limits import Interval
from gmia_monai.metrics.results import RunContext, append_results
from gmia_monai.report.tables import main, results_markdown


def _results():
    one, two = RunContext("unchanged", "cxr64", command="make identity"), RunContext("gmia m=0", "cxr64", command="x|y")
    per_finding = {"per_finding": {"Effusion": 0.812, "Mass": 0.6}, "n_positive": {"Effusion": 120, "Mass": 31}}
    folders = {"per_folder": {"a": {"mean": 27.85, "n_images": 3}, "b": {"mean": 26.0, "n_images": 2}}}
    return [
        one.result(
            "verification_auc.T1.frozen.v1",
            Interval(0.97812, 0.97, 0.985),
            n_patients=309,
            n_images=1234,
            negatives="random",
            attacker="frozen",
        ),
        one.result("tar_at_far_1pct.T1.frozen.v1", float("nan"), n_patients=9, n_images=9, extra={"reason": "too few"}),
        one.result("utility_macro_auroc.v1", 0.7, n_patients=675, n_images=2124, extra=per_finding),
        one.result("reconstruction_psnr.v1", 27.123, n_patients=675, n_images=2124, system="pca_128", extra=folders),
        two.result("latent_optimization.steps_median.v1", 8.0, n_patients=None, n_images=1326),
        one.result("something_new.v1", 0.0001, n_patients=1, n_images=1),
    ]


def test_page_has_every_result_under_its_topic():
    page = results_markdown(_results(), "the command")
    assert "Generated" in page and "`the command`" in page and "unless a topic says otherwise" in page
    sections = {part.split("\n")[0]: part for part in page.split("\n## ")[1:]}
    assert list(sections) == ["Identity", "Utility", "Reconstruction", "Latent optimisation", "Other"]
    identity = sections["Identity"]
    assert "| 0.978 | 0.970 to 0.985 | 309 | 1,234 | 0 | (1) |" in identity
    assert "– (too few)" in identity and "1. `make identity`" in identity
    assert "| Effusion | 120 | 0.812 |" in sections["Utility"]
    assert "| pca_128 | cxr64 | 27.12 |" in sections["Reconstruction"]
    assert "| figure | system | a | b |" in sections["Reconstruction"]
    assert "| `reconstruction_psnr.v1` | pca_128 | 27.85 | 26 |" in sections["Reconstruction"]
    assert "By folder" not in sections["Utility"]
    assert "| gmia m=0 | cxr64 | 8 | – | – | 1,326 |" in sections["Latent optimisation"]
    assert "`something_new.v1`" in sections["Other"]
    for part in sections.values():  # each table has rows of one width
        table = [line for line in part.split("\n\n")[2 if "T1:" in part else 1].split("\n") if line.startswith("|")]
        assert len({line.replace("\\|", "").count("|") for line in table}) <= 1


def test_coverages_are_said_to_have_intervals_of_another_kind():
    context = RunContext("simulation", "none")
    line = context.result("interval_coverage.x.v1", Interval(0.95, 0.92, 0.97), n_patients=150, n_images=0)
    assert "Wilson's, over the simulated data sets" in results_markdown([line])
    assert "simulated data sets" not in results_markdown(_results())


def test_positive_controls_stand_apart():
    context, shared = RunContext("auto-encoder, by heart", "cxr64"), {"n_patients": 9, "n_images": 9}
    lines = [
        context.result("membership_auc.worst.v1", 0.99, **shared),
        context.result("memorised_excess.pixels.v1", 0.2, system="planted copies, blur", **shared),
        context.result("membership_auc.lira.v1", 0.85, system="small auto-encoder", **shared),
    ]
    sections = results_markdown(lines).split("\n## ")
    [controls] = [part for part in sections if part.startswith("Positive controls")]
    assert "0.990" in controls and "planted copies, blur" in controls and "lira" not in controls


def test_a_page_without_results_says_so():
    assert "No result lines yet" in results_markdown([])


def test_command_writes_the_page(tmp_path):
    append_results(tmp_path / "results" / "a.jsonl", _results())
    out = tmp_path / "results.md"
    done = subprocess.run(
        [sys.executable, "-m", "gmia_monai.report.tables", "results", "results.md"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "6 results" in done.stdout
    page = out.read_text(encoding="utf-8")
    assert "`python -m gmia_monai.report.tables results results.md`" in page
    assert sorted(p.name for p in tmp_path.iterdir()) == ["results", "results.md"]


def test_command_refuses_malformed_lines(tmp_path, capsys):
    (tmp_path / "a.jsonl").write_text("{}\n")
    assert main([str(tmp_path), str(tmp_path / "out.md")]) == 3
    assert "a.jsonl, line 1" in capsys.readouterr().err
    assert not (tmp_path / "out.md").exists()
    assert main([str(tmp_path / "absent"), str(tmp_path / "out.md")]) == 2
