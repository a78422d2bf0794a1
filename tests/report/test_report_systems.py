"""The page of systems shows each line where it belongs, and nothing that no line says."""

from __future__ import annotations

from gmia_monai.metrics.intervals import Interval
from gmia_monai.metrics.results import RunContext, append_results
from gmia_monai.report.systems import main, systems_markdown


def _lines(system: str, value: float):
    context = RunContext(system, "cxr64", command=f"make {system}")
    shared = {"n_patients": 10, "n_images": 20}
    return [
        context.result(
            "verification_auc.T1.worst.v1",
            Interval(value, value - 0.1, value + 0.05),
            negatives="matched",
            attacker="worst",
            extra={"attacker": "adaptive_cross", "variant": "two_sided"},
            **shared,
        ),
        context.result("verification_auc.T1.frozen.v1", value - 0.3, negatives="matched", attacker="frozen", **shared),
        context.result("paper_linkability_tar.outer.frozen.v1", 0.25, attacker="frozen", **shared),
        context.result("local_cloaking_avatars.T2.frozen.v1", 1529.0, attacker="frozen", **shared),
    ]


def _rows(page: str, column: str) -> dict[str, str]:
    """Value of a column for each system, in the first table that has it."""
    table = next(block for block in page.split("\n\n") if block.startswith("| system") and f"| {column} |" in block)
    header, _, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
    return {row[0]: row[header.index(column)] for row in rows}


def test_every_line_stands_in_its_column():
    page = systems_markdown([*_lines("unchanged", 0.9), *_lines("gmia m=0", 0.7)])
    assert _rows(page, "T1 worst, matched") == {
        "unchanged": "0.900 [0.800, 0.950]",
        "gmia m=0": "0.700 [0.600, 0.750]",
    }
    assert "adaptive_cross two-sided" in page
    assert _rows(page, "frozen") == {"unchanged": "0.600", "gmia m=0": "0.400"}
    assert _rows(page, "outer tar") == {"unchanged": "0.250", "gmia m=0": "0.250"}
    assert _rows(page, "LC avatars")["unchanged"] == "1529.0"
    assert _rows(page, "T2 worst")["unchanged"] == "–", "no line, no figure"
    assert "Utility and fidelity" not in page
    assert page.count("`make unchanged`") == 1


def test_the_command_reads_a_folder(tmp_path, capsys):
    for system in ("a", "b"):
        append_results(tmp_path / "in" / f"{system}.jsonl", _lines(system, 0.8))
    assert main([str(tmp_path / "in"), str(tmp_path / "out.md")]) == 0
    assert "8 results" in capsys.readouterr().out
    assert set(_rows((tmp_path / "out.md").read_text(), "frozen")) == {"a", "b"}
    assert main([str(tmp_path / "nowhere"), str(tmp_path / "out.md")]) != 0
    assert "GM-U252" in capsys.readouterr().err


def test_without_lines_the_page_says_so():
    assert "No result lines yet." in systems_markdown([])


def test_the_papers_utility_stands_under_a_row_of_real_training():
    context, shared = RunContext("gmia m=0", "cxr64"), {"n_patients": 10, "n_images": 20}
    extra = {"per_finding": {"Effusion": [0.7, 0.6, 0.8], "Atelectasis": [0.6, 0.5, 0.7]}}
    lines = [
        context.result(f"utility_paper_auroc.{part}.small.v1", value, extra=extra, **shared)
        for part, value in (("real_to_real", 0.71), ("released_to_real", 0.66))
    ]
    lines.append(context.result("fidelity_psnr.v1", 22.5, **shared))
    page = systems_markdown([*_lines("unchanged", 0.9), *lines])
    assert _rows(page, "AUROC") == {"real": "0.710", "unchanged": "–", "gmia m=0": "0.660"}
    assert _rows(page, "LPIPS, own trunk")["gmia m=0"] == "–"
    assert "Atelectasis, Effusion" in page
