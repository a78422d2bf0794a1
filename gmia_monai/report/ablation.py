"""Each switch of ours against ours with all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from gmia_monai.metrics.results import Result
from gmia_monai.report.benchmark_differences import Differences, lower_is_better
from gmia_monai.report.cells import DASH, System, row
from gmia_monai.report.counted import Figure, compact, counted, patients_of

__all__ = ["LADDERS", "ablation_parts", "compared", "ladders"]

LADDERS = ("robust half", "robust own")


def compared(
    systems: Mapping[str, System], figures: Mapping[str, Figure], against: Mapping[str, str], differences: Differences
) -> list[str]:
    """A table of figures with, in brackets, their difference from another system's, and the patients.

    Args:
        systems: the rows.
        figures: the columns.
        against: label of the system that each column is compared with; a column without one is left out.
        differences: of lines.
    """
    having = {heading: figure for heading, figure in figures.items() if heading in against}
    rows = [row(["system", *having]), row(["---", *["---:"] * len(having)])]
    for label, system in systems.items():
        cells = []
        for heading, figure in having.items():
            one, other = figure.of(system), figure.of(systems[against[heading]])
            cells.append(_cell(one, other, label == against[heading], figure, differences))
        if any(cell != DASH for cell in cells):
            rows.append(row([label, *cells]))
    counts = {heading: patients_of(systems, figure) for heading, figure in having.items()}
    return ["\n".join(rows), counted(counts)] if having else []


def _cell(one: Result | None, other: Result | None, same: bool, figure: Figure, differences: Differences) -> str:
    if one is None:
        return DASH
    if same:
        return f"**{figure.show(one)}**"
    found = differences.of(one, other)
    return figure.show(one) if found is None else f"{figure.show(one)} ({found})"


def ladders(labels: Sequence[str]) -> dict[str, list[str]]:
    """Systems that change one thing each of one of :data:`LADDERS`, which their names begin with, by its name."""
    return {full: [x for x in labels if x.startswith(f"{full} ")] for full in LADDERS if full in labels}


def ablation_parts(systems: Mapping[str, System], differences: Differences) -> list[str]:
    """A row for each switch of ours, against the one that it is a switch of; both are judged on the same list."""
    title = "## What each part of ours does"
    found = {full: rows for full, rows in ladders(list(systems)).items() if rows}
    if not found:
        names = " or ".join(f"`{name}`" for name in LADDERS)
        return [title, f"No ablation yet: it needs {names}, and systems whose names begin with one of these."]
    parts = [
        title,
        "Each row is the system in bold with one thing changed, as its name says; in brackets the difference from it "
        "with its 95 % interval: `shown` where that is on one side of 0, `unpaired` where it is made of two intervals "
        "and not from resamples of both. Above 0: worse than it.",
    ]
    for full, names in found.items():
        rows = {label: systems[label] for label in (full, *names)}
        figures = lower_is_better(rows) | {
            "T1 AUC, random": Figure("verification_auc.T1.worst.v1", ("random",)),
            "T3 AUC": Figure("verification_auc.T3.worst.v1", ("matched",)),
            "KID": Figure("kid.other.v1", show=compact),
            "seconds an image": Figure("cost_seconds_per_image.v1", show=compact),
        }
        against = {heading: full for heading, figure in figures.items() if any(map(figure.of, rows.values()))}
        parts += [f"### {full}", *compared(rows, figures, against, differences)]
    return parts
