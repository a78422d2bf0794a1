"""Systems against one: each to the best of a figure, and each switch of ours against ours with all of them.

No line holds two systems on the same resamples, so that intervals are compared, which are apart less often than a
paired test finds a difference: apart means that systems differ, not apart says nothing. Lines of differences, where
there are some, stand beside.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from gmia_monai.metrics.results import Result
from gmia_monai.report.cells import CONTROLS, DASH, System, interval, row
from gmia_monai.report.counted import Figure, apart, compact, counted, patients_of, signed
from gmia_monai.report.frontier import PRIVACY, architectures, utility

__all__ = ["LADDERS", "OURS", "ablation_parts", "compared", "difference_parts", "ladders", "lower_is_better"]

OURS = "robust"
LADDERS = ("robust half", "robust own")
_DIFFERENCE = "_difference"


def lower_is_better(systems: Mapping[str, System]) -> dict[str, Figure]:
    """Figures of which less is better: the attacks, and the losses of the architectures that there are lines of."""
    figures = {f"{name}": attack.worst for name, attack in zip(("T1 AUC", "presence AUC"), PRIVACY, strict=True)}
    return figures | {f"AUROC loss, `{name}`": utility(name) for name in architectures(systems)}


def compared(systems: Mapping[str, System], figures: Mapping[str, Figure], against: Mapping[str, str]) -> list[str]:
    """A table of figures with, in brackets, their difference from another system's, and the patients.

    Args:
        systems: the rows.
        figures: the columns.
        against: label of the system that each column is compared with; a column without one is left out.
    """
    having = {heading: figure for heading, figure in figures.items() if heading in against}
    rows = [row(["system", *having]), row(["---", *["---:"] * len(having)])]
    for label, system in systems.items():
        cells = []
        for heading, figure in having.items():
            one, other = figure.of(system), figure.of(systems[against[heading]])
            cells.append(_cell(one, other, label == against[heading], figure))
        if any(cell != DASH for cell in cells):
            rows.append(row([label, *cells]))
    counts = {heading: patients_of(systems, figure) for heading, figure in having.items()}
    return ["\n".join(rows), counted(counts)] if having else []


def _cell(one: Result | None, other: Result | None, same: bool, figure: Figure) -> str:
    if one is None:
        return DASH
    if same:
        return f"**{figure.show(one)}**"
    if other is None or one.value is None or other.value is None:
        return figure.show(one)
    return f"{figure.show(one)} ({signed(one.value - other.value)}{', apart' if apart(one, other) else ''})"


def difference_parts(systems: Mapping[str, System]) -> list[str]:
    """Each system against the one with the lowest value of each figure, and lines of paired differences."""
    figures = lower_is_better(systems)
    best = {}
    for heading, figure in figures.items():
        values = {label: found.value for label, s in systems.items() if (found := figure.of(s)) is not None}
        judged = {label: v for label, v in values.items() if systems[label].name not in CONTROLS} or values
        if len(values) > 1:
            best[heading] = min(judged, key=lambda label: (judged[label], label))
    parts = ["## Differences from the best"]
    if best:
        parts += [
            "In bold the lowest value of each column among systems that are no controls; in brackets the difference "
            "from it. `apart`: the two 95 % intervals do not overlap. The systems are judged on the same patients, but "
            "no line holds their paired resamples: not apart does not mean alike, and the lowest of many is lowest by "
            "some luck.",
            *compared(systems, figures, best),
        ]
    else:
        parts.append("No comparison yet: it needs two systems with a line of one attack or of the loss of AUROC.")
    return [*parts, *_paired(systems)]


def _paired(systems: Mapping[str, System]) -> list[str]:
    rows = [
        row([label, f"`{name}`", interval(found), DASH if found.n_patients is None else f"{found.n_patients:,}"])
        for label, system in systems.items()
        for (name, _), found in system.lines.items()
        if _DIFFERENCE in name.split(".")[0] and found.value is not None
    ]
    if not rows:
        return []
    head = [row(["system", "line", "difference", "patients"]), row(["---", "---", "---:", "---:"])]
    return ["Paired differences, on the same resamples:", "\n".join([*head, *rows])]


def ladders(labels: Sequence[str]) -> dict[str, list[str]]:
    """Systems that change one thing each of one of :data:`LADDERS`, which their names begin with, by its name."""
    return {full: [x for x in labels if x.startswith(f"{full} ")] for full in LADDERS if full in labels}


def ablation_parts(systems: Mapping[str, System]) -> list[str]:
    """A row for each switch of ours, against the one that it is a switch of; both are judged on the same list."""
    title = "## What each part of ours does"
    found = {full: rows for full, rows in ladders(list(systems)).items() if rows}
    if not found:
        names = " or ".join(f"`{name}`" for name in LADDERS)
        return [title, f"No ablation yet: it needs {names}, and systems whose names begin with one of these."]
    parts = [
        title,
        "Each row is the system in bold with one thing changed, as its name says; in brackets the difference from it, "
        "and `apart` where the 95 % intervals do not overlap. Above 0: worse than it.",
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
        parts += [f"### {full}", *compared(rows, figures, against)]
    return parts
