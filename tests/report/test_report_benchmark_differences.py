"""Differences on the page are those of resamples that both systems share, else of two intervals, and it says which."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from gmia_monai.errors import IntegrityError
from gmia_monai.metrics.differences import Replicates, paired_difference, unpaired_difference
from gmia_monai.metrics.intervals import intervals_over_seeds
from gmia_monai.metrics.limits import Interval
from gmia_monai.metrics.replicates import ReplicateLog, keep_replicates
from gmia_monai.metrics.results import Result, RunContext, append_results
from gmia_monai.report.benchmark import main, write_benchmark_pages
from gmia_monai.report.benchmark_differences import Difference, Differences, difference_parts, reference_of
from gmia_monai.report.cells import number, systems_of
from gmia_monai.report.counted import signed

T1, SMALL, DENSE = (
    "verification_auc.T1.worst.v1",
    "utility_macro_auroc_loss.released_to_real.small.v1",
    "utility_macro_auroc_loss.released_to_real.small_densenet.v1",
)
_SHARED = np.random.default_rng(0).normal(size=(101, 1))


def _figure(system: str, name: str, value: float, draws: str = "same", spread: float = 0.002):
    """A line and its replicates: most of what chance does is shared by all systems."""
    own = np.random.default_rng(sum(map(ord, system + name))).normal(size=(101, 1))
    found = value + 0.02 * _SHARED + spread * own
    found[0] = value
    bounds = (0.0, 1.0) if name == T1 else (-1.0, 1.0)
    [interval] = intervals_over_seeds(found[..., None], 300, bounds=bounds)
    context = RunContext(system, "cxr64", release_hash="ab" * 8, config_hash="cd" * 8)
    line = context.result(name, interval, n_patients=300, n_images=9, negatives="matched" if name == T1 else None)
    return line, Replicates(found, 300, draws, (0,), bounds, name != T1)


def _system(system: str, t1: float, loss: float, dense: float | None = None, **other):
    values = {T1: t1, SMALL: loss, DENSE: loss if dense is None else dense}
    return [_figure(system, name, value, **other) for name, value in values.items()]


def _pool(*systems):
    log = ReplicateLog()
    for line, replicates in (each for system in systems for each in system):
        log.add(line, replicates)
    return systems_of([line for system in systems for line, _ in system]), Differences(log)


def _rows(parts: list[str]) -> dict[str, list[str]]:
    [table] = [part for part in parts if part.startswith("| system")]
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in table.splitlines()]
    return {row[0]: row[1:] for row in cells if not row[0].startswith("---")}


def _words(parts: list[str]) -> list[str]:
    return [line.rpartition(": ")[2] for line in parts[-1].splitlines()]


OURS = _system("robust", 0.55, 0.02)
FAR = _system("gmia m=0", 0.9, 0.06)
NEAR = _system("plan", 0.551, 0.019)
PRIVATE = _system("noise", 0.5, 0.12)


def test_a_cell_is_the_paired_difference_of_the_two_lines():
    systems, differences = _pool(OURS, FAR, NEAR)
    rows = _rows(difference_parts(systems, differences))
    assert rows["system"] == ["T1 AUC", "AUROC loss, `small`", "AUROC loss, `small_densenet`"]
    assert list(rows) == ["system", "gmia m=0", "plan"], "the one that all are compared with is no row"
    value, low, high = paired_difference(FAR[0][1], OURS[0][1])
    assert rows["gmia m=0"][0] == f"{signed(value)} [{number(low)}, {number(high)}], shown" and low > 0.34
    assert (high - low) < 0.3 * (FAR[0][0].high - FAR[0][0].low), "what both share is lost"
    assert ", unpaired" not in "".join(sum(rows.values(), []))


def test_a_difference_without_shared_resamples_is_wider_and_marked():
    other = _system("plan", 0.58, 0.03, draws="other")
    systems, differences = _pool(OURS, other)
    lines = [each[0][0] for each in (other, OURS)]
    found = differences.of(*lines)
    expected = unpaired_difference(*(Interval(x.value, x.low, x.high) for x in lines))
    assert found is not None and not found.paired and found.interval == expected
    assert _rows(difference_parts(systems, differences))["plan"][0].endswith(", unpaired")
    paired = _pool(OURS, _system("plan", 0.58, 0.03))[1].of(
        *(each[0][0] for each in (_system("plan", 0.58, 0.03), OURS))
    )
    assert paired is not None and paired.shown == 1 and found.shown == 0
    bare = Differences().of(replace(lines[0], low=None), lines[1])
    assert bare is not None and bare.shown == 0 and str(bare) == "+0.030"
    assert differences.of(lines[0], None) is None and differences.of(replace(lines[0], value=None), lines[1]) is None


def test_a_stale_replicate_is_no_part_of_a_difference():
    systems, differences = _pool(OURS, FAR)
    judged_again = replace(FAR[0][0], config_hash="ef" * 8)
    found = differences.of(judged_again, OURS[0][0])
    assert found is not None and not found.paired


def test_words_say_who_is_behind_on_both_axes_on_neither_and_ahead():
    mixed = _system("dp-pix", 0.9, 0.06, dense=0.02)
    alone, shuffled = [_figure("k-salsa", SMALL, 0.05)], [_figure("shuffled", T1, 0.49)]
    systems, differences = _pool(OURS, FAR, NEAR, PRIVATE, mixed, alone, shuffled)
    rows, parts = (f(difference_parts(systems, differences)) for f in (_rows, list))
    assert rows["noise"][0].startswith("-0.050") and rows["noise"][0].endswith("shown")
    assert _words(parts) == ["gmia m=0", "plan", "noise, shuffled", "shuffled, k-salsa"]
    assert "**not** shown to be behind robust on either axis: plan" in parts[-1]
    assert rows["k-salsa"] == ["–", rows["k-salsa"][1], "–"]
    few, _ = _pool(OURS, FAR)
    assert _words(difference_parts(few, differences)) == ["gmia m=0", "none", "none"]


def test_the_one_compared_with_is_the_one_asked_for_then_ours_then_the_best():
    systems, differences = _pool(FAR, NEAR, PRIVATE)
    assert reference_of(systems) == "plan", "a control is nobody's aim"
    assert reference_of(systems, "gmia m=0") == "gmia m=0" and reference_of(systems, "nobody") is None
    assert "lowest of many" in "".join(difference_parts(systems, differences))
    assert reference_of(_pool(FAR, OURS, NEAR)[0]) == "robust"
    only = _pool(PRIVATE)[0]
    assert reference_of(only) == "noise" and reference_of({}) is None
    assert "needs two systems" in difference_parts(only, differences)[1]
    assert "`nobody`, which has no line" in difference_parts(systems, differences, "nobody")[1]


def test_the_page_reads_what_stands_beside_the_lines(tmp_path, capsys):
    folder = tmp_path / "lines"
    for system in (OURS, FAR, NEAR):
        lines = folder / f"{system[0][0].system.split()[0]}.jsonl"
        append_results(lines, [line for line, _ in system])
        log = ReplicateLog()
        for made in system:
            log.add(*made)
        (tmp_path / "attacks").mkdir(exist_ok=True)
        with (tmp_path / "attacks" / "x.npz").open("wb") as stream:
            np.savez(stream, **log.arrays())
        keep_replicates(lines, tmp_path / "attacks")
    page = write_benchmark_pages(folder, tmp_path / "docs")[0].read_text(encoding="utf-8")
    found = paired_difference(NEAR[0][1], OURS[0][1])
    assert f"| plan | {Difference(found, True)} |" in page and "## Differences from robust" in page
    (folder / "plan.npz").unlink()
    page = write_benchmark_pages(folder, tmp_path / "docs")[0].read_text(encoding="utf-8")
    section = page[page.index("## Differences") :].split("\n## ")[0]
    [row] = [line for line in section.splitlines() if line.startswith("| plan")]
    assert row.count("unpaired") == 3 and "| gmia m=0 |" in section
    assert main([str(folder), str(tmp_path / "docs"), "--reference", "gmia m=0"]) == 0
    page = (tmp_path / "docs" / "benchmark.md").read_text(encoding="utf-8")
    assert "## Differences from gmia m=0" in page and "--reference 'gmia m=0'" in page
    assert "## Differences from robust" not in page
    (folder / "plan.npz").write_bytes(b"no file")
    with pytest.raises(IntegrityError, match="GM-W252"):
        write_benchmark_pages(folder, tmp_path / "docs")
    assert main([str(folder), str(tmp_path / "docs")]) == 3 and "GM-W252" in capsys.readouterr().err


def test_one_file_of_lines_has_its_replicates_beside_it(tmp_path):
    lines = tmp_path / "all.jsonl"
    made = [*OURS, *NEAR]
    append_results(lines, [line for line, _ in made])
    log = ReplicateLog()
    for each in made:
        log.add(*each)
    with (tmp_path / "all.npz").open("wb") as stream:
        np.savez(stream, **log.arrays())
    page = write_benchmark_pages(lines, tmp_path / "docs")[0].read_text(encoding="utf-8")
    assert "unpaired |" not in page and "| plan | +" in page


def _line(system: str, name: str, value: float) -> Result:
    found = Interval(value, value - 0.02, value + 0.01)
    return RunContext(system, "cxr64").result(name, found, n_patients=3, n_images=9, negatives="matched")


def test_lines_of_two_profiles_are_compared_with_ours_of_the_first():
    lines = [_line("robust", T1, 0.5), _line("plan", T1, 0.6)]
    lines += [replace(line, profile="cxr128") for line in lines]
    assert reference_of(systems_of(lines)) == "robust (cxr64)"
