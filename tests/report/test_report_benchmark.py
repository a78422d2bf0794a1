"""The page of the benchmark shows what lines say, leaves out what none says, and says which."""

from __future__ import annotations

import numpy as np
import pytest
from report_lines import more, results

from gmia_monai.errors import UsageError
from gmia_monai.metrics.limits import Interval
from gmia_monai.metrics.results import Result, RunContext, append_results
from gmia_monai.report.benchmark import budget_curves, costs, main, write_benchmark_pages
from gmia_monai.report.benchmark_plots import budget_picture, cost_picture
from gmia_monai.report.cells import systems_of
from gmia_monai.report.counted import Figure, compact, counted_table, signed, three_digits
from gmia_monai.report.reidentification import NO_NETWORK

LOSS = "utility_macro_auroc_loss.released_to_real.small.v1"


def _line(system: str, name: str, value: float, negatives: str | None = None, **extra: object) -> Result:
    command = f"judge {system} --suite#max_images 4"
    n = int(extra.pop("n_patients", 300))
    context = RunContext(system, "cxr64", release_hash="ab" * 8, command=command)
    found = Interval(value, value - 0.02, value + 0.01)
    return context.result(name, found, n_patients=n, n_images=900, negatives=negatives, extra=extra)


def _headline(system: str, auc: float, loss: float, presence: float) -> list[Result]:
    worst = {"attacker": "ensemble", "variant": "signed", "attacker_seeds": [0, 1, 2]}
    return [
        _line(system, "verification_auc.T1.worst.v1", auc, "matched", **worst),
        _line(system, LOSS, loss, n_patients=675),
        _line(system, "presence_auc.worst.v1", presence, attacker="frozen", statistic="largest"),
    ]


def _write(tmp_path, lines: list[Result]) -> tuple[str, list[str]]:
    folder = tmp_path / "lines"
    for old in folder.glob("*.jsonl"):
        old.unlink()
    for line in lines:
        append_results(folder / f"{line.system.replace(' ', '_')}.jsonl", [line])
    written = write_benchmark_pages(folder, tmp_path / "docs")
    return written[0].read_text(encoding="utf-8"), [path.name for path in written]


def _table(page: str, section: str, column: str) -> dict[str, str]:
    """First table with a column behind a heading, by system."""
    behind = page[page.index(section) :]
    for block in behind.split("\n\n"):
        if block.startswith("| system") and f"| {column} |" in block:
            header, _, *rows = [[cell.strip() for cell in row.strip("|").split("|")] for row in block.splitlines()]
            return {row[0]: row[header.index(column)] for row in rows}
    raise AssertionError(f"no table with {column} behind {section}")


SYSTEMS = [*_headline("unchanged", 0.99, 0.0, 0.9), *_headline("gmia m=0", 0.9, 0.03, 0.6)]
OURS = [
    *_headline("robust half", 0.6, 0.02, 0.55),
    *_headline("robust half one encoder", 0.75, 0.021, 0.56),
    _line("robust half", "cost_seconds_per_image.v1", 2.5),
    _line("robust half one encoder", "cost_seconds_per_image.v1", 0.8),
]


def test_numbers_of_the_page_are_those_of_the_lines(tmp_path):
    page, files = _write(tmp_path, [*SYSTEMS, *OURS])
    expected = {"unchanged": 0.99, "gmia m=0": 0.9, "robust half": 0.6, "robust half one encoder": 0.75}
    shown = {label: f"{auc:.3f} [{auc - 0.02:.3f}, {auc + 0.01:.3f}]" for label, auc in expected.items()}
    assert _table(page, "### Another image", "AUC, worst") == shown
    assert _table(page, "## Every system", "T1, matched") == shown
    frontier = _table(page, "### Another image", "on the frontier, `small`")
    assert frontier == {"unchanged": "yes", "gmia m=0": "no", "robust half": "yes", "robust half one encoder": "no"}
    assert "Patients: 300 (*AUC, worst*); 675 (*AUROC loss, `small`*)." in page
    assert files == [
        "benchmark.md",
        "benchmark_frontier_t1_small.svg",
        "benchmark_frontier_presence_small.svg",
        "benchmark_cost.svg",
    ]
    assert all(f"({name})" in page for name in files[1:])
    assert all((tmp_path / "docs" / name).stat().st_size < 400_000 for name in files)


def test_each_switch_stands_against_ours_with_all(tmp_path):
    page, _ = _write(tmp_path, [*SYSTEMS, *OURS])
    section = "## What each part of ours does"
    assert list(_table(page, section, "T1 AUC")) == ["robust half", "robust half one encoder"]
    assert _table(page, section, "T1 AUC")["robust half one encoder"] == (
        "0.750 [0.730, 0.760] (+0.150 [0.128, 0.172], shown, unpaired)"
    )
    assert _table(page, section, "seconds an image")["robust half"] == "**2.5 [2.48, 2.51]**"
    assert "KID" not in page[page.index(section) :].split("\n\n")[2]
    alone, _ = _write(tmp_path, [*SYSTEMS, *_headline("robust half", 0.6, 0.02, 0.5)])
    without, _ = _write(tmp_path, SYSTEMS)
    assert "No ablation yet" in alone and "No ablation yet" in without and "No ablation yet" not in page
    more = [*_headline("robust own", 0.7, 0.0, 0.5), *_headline("robust", 0.5, 0.0, 0.5)]
    other, _ = _write(tmp_path, [*SYSTEMS, *OURS, *more])
    assert "robust own" not in other[other.index(section) :].split("\n## ")[0], "another list, or another ladder"


def test_sections_without_lines_say_what_is_missing(tmp_path):
    page, files = _write(tmp_path, [_line("alone", "fidelity_psnr.v1", 21.0)])
    assert files == ["benchmark.md"] and "![" not in page
    for said in (
        "No frontier yet",
        "No comparison yet",
        "No ablation yet",
        "no system has `verification_auc_budget.T1.1_of_1.v1`",
        "no system has `cost_seconds_per_image.v1` or `cost_gflop_per_image.v1`",
        "No lines of the Siamese attacker `snn`",
        "`prichexy_protocol_auc.v1`",
        "`privacy_filter_recall.<kind>.v1`",
        "rates of rejection",
    ):
        assert said in page, said
    assert _table(page, "## Every system", "PSNR, dB") == {"alone": "21.0"}
    assert "No line yet: policy; T1, matched" in page


def test_lines_of_an_evaluation_are_shown(tmp_path):
    page, files = _write(tmp_path, [*results(), *more()])
    assert "benchmark_frontier_t1_small.svg" in files and "metadata floor" in page
    assert _table(page, "## Every system", "metadata floor") == {"gmia m=-0.5": "0.610"}
    assert "Latent <optimiser>" in page and "judge it --seeds 3" in page


def test_one_system_has_a_frontier_and_no_differences(tmp_path):
    page, files = _write(tmp_path, _headline("alone", 0.8, 0.1, 0.7))
    assert "benchmark_frontier_t1_small.svg" in files
    assert _table(page, "### Another image", "on the frontier, `small`") == {"alone": "yes"}
    assert "No comparison yet" in page


def test_old_pictures_go_when_their_lines_do(tmp_path):
    _write(tmp_path, [*SYSTEMS, *OURS])
    other = tmp_path / "docs" / "other.svg"
    other.write_text("<svg/>")
    _write(tmp_path, SYSTEMS)
    left = sorted(path.name for path in (tmp_path / "docs").glob("*.svg"))
    assert left == ["benchmark_frontier_presence_small.svg", "benchmark_frontier_t1_small.svg", "other.svg"]


def test_sheets_that_were_drawn_are_shown_and_stay(tmp_path):
    page, _ = _write(tmp_path, SYSTEMS)
    assert "What releases look like" not in page
    sheet = tmp_path / "docs" / "contact_sheet_systems.png"
    sheet.write_bytes(b"drawn")
    page, _ = _write(tmp_path, SYSTEMS)
    assert "(contact_sheet_systems.png)" in page and "figure_2" not in page and sheet.is_file()


def test_policies_facts_lists_and_protocols_stand_where_lines_have_them(tmp_path):
    lines = [
        _line("gmia m=0", "cost_seconds_per_image.v1", 0.5, policy="pseudonymous"),
        _line("dp-pix", "cost_seconds_per_image.v1", 0.01, whole_image_epsilon=409.6),
        _line("diffusion", "cost_gflop_per_image.v1", 1234.5, settings={"rejection_rate": 0.0625}),
        _line("prichexy", "prichexy_protocol_auc.v1", 0.71, "balanced"),
        _line("prichexy", "prichexy_protocol_macro_auroc.v1", 0.76),
        _line("diffusion", "privacy_filter_rejection.other_people.v1", 0.01),
        _line("diffusion", "privacy_filter_recall.shifted_copy.v1", 0.97),
    ]
    page, _ = _write(tmp_path, [*SYSTEMS, *lines])
    assert _table(page, "## Every system", "policy") == {
        "unchanged": "–",
        "gmia m=0": "pseudonymous",
        "prichexy": "–",
    }
    assert "| dp-pix | `whole_image_epsilon` | 409.6 | 300 |" in page
    assert "| diffusion | `rejection_rate` | 0.0625 | 300 |" in page
    terms = "## In the systems' own terms"
    assert _table(page, terms, "AUC") == {"prichexy": "0.710 [0.690, 0.720]"}
    assert _table(page, terms, "other people") == {"diffusion": "0.010 [-0.010, 0.020]"}
    assert _table(page, terms, "macro AUROC") == {"prichexy": "0.760 [0.740, 0.770]"}
    assert _table(page, terms, "shifted copy") == {"diffusion": "0.970 [0.950, 0.980]"}
    assert _table(page, "## How it was judged", "list")["prichexy"] == "`max_images=4`"
    assert "1,234" in page and "- `judge dp-pix --suite#max_images 4`" in page


def test_reidentification_stands_beside_what_was_published(tmp_path):
    lines = [
        _line("unchanged", "verification_auc.T1.snn.v1", 0.98, "random"),
        _line("unchanged", "linkability_accuracy.inner.snn.v1", 0.93, "balanced"),
        _line("unchanged", "map_at_r.released_in_real.snn.v1", 0.67),
        _line("unchanged", "rank_1.released_in_real.snn.v1", 0.8),
        _line("unchanged", "map_at_r.released_in_real.retrieval.v1", 0.5),
        _line("unchanged", "rank_1.released_in_real.retrieval.v1", 0.7),
        _line("unchanged", "verification_auc_years.T1.snn.10_or_more.v1", 0.85, "matched", n_patients=11),
        _line("unchanged", "verification_auc_years.T1.worst.5_to_10.v1", 0.9, "matched", n_patients=12),
    ]
    page, _ = _write(tmp_path, [*SYSTEMS, *lines])
    section = "## Patients found again"
    assert _table(page, section, "AUC (random negatives)") == {"unchanged": "0.980 [0.960, 0.990]"}
    assert _table(page, section, "mAP@R") == {"unchanged": "0.500 [0.480, 0.510]"}
    assert _table(page, section, "precision@1") == {"unchanged": "0.700 [0.680, 0.710]"}
    assert _table(page, section, "precision@1, Siamese features") == {"unchanged": "0.800 [0.780, 0.810]"}
    assert _table(page, section, "10 or more") == {"unchanged": "0.850 [0.830, 0.860]"}, "of the Siamese verifier"
    assert "Patients: 11." in page and "Patients: 12." in page and "0.9748" in page and "Not the same data" in page
    assert page.index("the Siamese verifier, matched negatives") < page.index("the worst attacker, matched negatives")
    assert NO_NETWORK not in page and "No lines of the Siamese verifier by years" not in page


def test_reidentification_says_what_there_are_no_lines_of(tmp_path):
    page, _ = _write(tmp_path, SYSTEMS)
    assert "No lines of the Siamese attacker `snn` or of the retrieval network yet." in page
    page, _ = _write(tmp_path, [*SYSTEMS, _line("unchanged", "rank_1.released_in_real.snn.v1", 0.8)])
    section = "## Patients found again"
    assert _table(page, section, "precision@1, Siamese features") == {"unchanged": "0.800 [0.780, 0.810]"}
    assert NO_NETWORK in page and "No lines of the Siamese verifier by years" in page


def test_curves_and_bars_are_those_of_the_lines():
    parts = {8: 0.7, 4: 0.75, 2: 0.8, 1: 0.85}
    curve = [
        _line("a", f"verification_auc_budget.T1.1_of_{part}.v1", auc, "matched", patients=800 // part)
        for part, auc in parts.items()
    ]
    systems = systems_of([*curve, _line("b", "cost_seconds_per_image.v1", 0.0), curve_of("b")])
    curves = budget_curves(systems)
    assert list(curves) == ["a"], "one point is no curve"
    np.testing.assert_allclose(curves["a"][0], [100, 200, 400, 800])
    np.testing.assert_allclose(curves["a"][1:, 2], [0.8, 0.78, 0.81])
    assert "<!-- a -->" in budget_picture(curves, "patients")
    assert costs(systems, "cost_seconds_per_image.v1") == {}, "0 has no place on a logarithmic axis"
    markup = cost_picture({"seconds": {"fast": 1e-4, "slow": 20.0}, "GFLOP": {"slow": 5.0}})
    assert "<!-- fast -->" in markup and "<!-- 0.0001 -->" in markup and "<!-- 20 -->" in markup


def curve_of(system: str) -> Result:
    """A single point of the attacker's budget."""
    return _line(system, "verification_auc_budget.T1.1_of_1.v1", 0.6, "matched", patients=684)


def test_names_at_the_ends_of_curves_are_apart():
    from gmia_monai.report.benchmark_plots import spread

    placed = spread([0.5, 0.5, 0.51, 0.9], 0.05)
    assert np.diff(placed).min() >= 0.05 - 1e-12 and placed[-1] == 0.9
    assert np.mean(placed[:3]) == pytest.approx(np.mean([0.5, 0.5, 0.51]))


def test_counted_tables_leave_out_what_no_line_says():
    systems = systems_of([*SYSTEMS, _line("bare", "kid.other.v1", 0.0123)])
    figures = {"loss": Figure(LOSS), "nothing": Figure("nothing.v1"), "KID": Figure("kid.other.v1", show=compact)}
    text, count = counted_table(systems, figures, {"mark": {"bare": "a|b"}})
    assert "nothing" not in text and "| bare | a\\|b | – | 0.0123 [-0.0077, 0.0223] |" in text
    assert count == "Patients: 675 (*loss*); 300 (*KID*)."
    assert counted_table(systems, {"nothing": Figure("nothing.v1")}) == []
    assert signed(0.1) == "+0.100" and signed(-0.1) == "-0.100"
    assert [three_digits(x) for x in (1e-6, 0.01234, 999.4, 4490.2)] == ["1e-06", "0.0123", "999", "4,490"]


def test_the_command_writes_the_pages_and_shows_coded_errors(tmp_path, capsys):
    append_results(tmp_path / "in" / "a.jsonl", SYSTEMS[:3])
    assert main([str(tmp_path / "in"), str(tmp_path / "out")]) == 0
    assert capsys.readouterr().out.startswith("benchmark.md, ")
    assert "python -m gmia_monai.report.benchmark" in (tmp_path / "out" / "benchmark.md").read_text()
    assert main([str(tmp_path / "nowhere"), str(tmp_path / "out")]) == 2
    assert "GM-U252" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="GM-U385"):
        write_benchmark_pages(tmp_path / "empty", tmp_path / "out")
