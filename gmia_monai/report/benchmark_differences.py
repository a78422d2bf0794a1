"""Differences of systems: each against one of them, figure by figure, on the same resamples where both have been kept.

What is shown of two systems is shown by the interval of their difference. Where the replicates of one are missing, or
are of other draws, it is made from the two intervals, as if the systems were judged on other patients: wider, and
marked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from gmia_monai.metrics.differences import paired_difference, share_draws, unpaired_difference
from gmia_monai.metrics.limits import Interval
from gmia_monai.metrics.replicates import ReplicateLog
from gmia_monai.metrics.results import Result
from gmia_monai.report.cells import CONTROLS, DASH, System, number, row
from gmia_monai.report.counted import Figure, counted, patients_of, signed
from gmia_monai.report.frontier import PRIVACY, architectures, utility

__all__ = ["OURS", "Difference", "Differences", "difference_parts", "lower_is_better", "reference_of"]

OURS = "robust"
_T1, _LOSS = "T1 AUC", "AUROC loss"


@dataclass(frozen=True)
class Difference:
    """A figure of one system less that of another.

    Attributes:
        interval: value and limits; ``nan`` limits where one of the two has none.
        paired: whether it is made from resamples that both share.
    """

    interval: Interval
    paired: bool

    @property
    def shown(self) -> int:
        """1 where the interval is above 0, -1 where it is below, else 0."""
        return int(self.interval.low > 0) - int(self.interval.high < 0)

    def __str__(self) -> str:
        value, low, high = self.interval
        known = low == low and high == high
        text = f"{signed(value)} [{number(low)}, {number(high)}]" if known else signed(value)
        marks = (["shown"] if self.shown else []) + ([] if self.paired or not known else ["unpaired"])
        return ", ".join([text, *marks])


@dataclass(frozen=True)
class Differences:
    """Makes differences of lines.

    Attributes:
        log: replicates of the lines.
    """

    log: ReplicateLog = field(default_factory=ReplicateLog)

    def of(self, one: Result | None, other: Result | None) -> Difference | None:
        """``one`` less ``other``; None where one of the two is missing or has no value."""
        if one is None or other is None or one.value is None or other.value is None:
            return None
        ours, theirs = self.log.of(one), self.log.of(other)
        if ours is not None and theirs is not None and share_draws(ours, theirs):
            return Difference(paired_difference(ours, theirs), True)
        return Difference(unpaired_difference(_interval(one), _interval(other)), False)


def _interval(line: Result) -> Interval:
    return Interval(*(float("nan") if x is None else x for x in (line.value, line.low, line.high)))


def lower_is_better(systems: Mapping[str, System]) -> dict[str, Figure]:
    """Figures of which less is better: the attacks, and the losses of the architectures that there are lines of."""
    figures = {name: attack.worst for name, attack in zip((_T1, "presence AUC"), PRIVACY, strict=True)}
    return figures | {f"{_LOSS}, `{name}`": utility(name) for name in architectures(systems)}


def reference_of(systems: Mapping[str, System], asked: str | None = None) -> str | None:
    """Label of the system that others are compared with: the one asked for, ours, or the one of the lowest T1 AUC that
    is no control; None where it has no line, or nobody has."""
    for wanted in (asked, None if asked else OURS):
        for label, system in systems.items():
            if wanted is not None and wanted in (label, system.name):
                return label
    if asked:
        return None
    t1 = PRIVACY[0].worst
    values = {label: found.value for label, s in systems.items() if (found := t1.of(s)) is not None}
    judged = {label: v for label, v in values.items() if systems[label].name not in CONTROLS} or values
    return min(judged, key=lambda label: (judged[label], label)) if judged else None


def difference_parts(systems: Mapping[str, System], differences: Differences, asked: str | None = None) -> list[str]:
    """Every system against one: a table, and in words who is not shown to be behind it.

    Args:
        systems: by label.
        differences: of their lines.
        asked: label or name of the system to compare with; None: ours, else the best on T1.
    """
    against = reference_of(systems, asked)
    if against is None or len(systems) < 2:
        wanted = f"`{asked}`, which has no line" if asked and against is None else "two systems with a line of T1"
        return ["## Differences", f"No comparison yet: it needs {wanted}."]
    figures = {k: f for k, f in lower_is_better(systems).items() if f.of(systems[against]) is not None}
    found = {
        label: {k: differences.of(f.of(system), f.of(systems[against])) for k, f in figures.items()}
        for label, system in systems.items()
        if label != against
    }
    found = {label: cells for label, cells in found.items() if any(cells.values())}
    parts = [f"## Differences from {against}"]
    if not found:
        return [*parts, f"No comparison yet: no other system has a line that {against} has."]
    how = "ours" if against.startswith(OURS) else "the lowest of many, so by some luck"
    rows = [row(["system", *figures]), row(["---", *["---:"] * len(figures)])]
    rows += [row([label, *(DASH if d is None else str(d) for d in cells.values())]) for label, cells in found.items()]
    rows_of = {label: systems[label] for label in found}
    return [
        *parts,
        f"Each system's figure less that of {against}{'' if asked else f' ({how})'}, with the 95 % interval of the "
        "difference; above 0: the system is worse. Both are judged on the same patients, and resampled together, so "
        "that what chance does to both is no difference; of verification both sides' attacker seeds are counted in, "
        "of the loss the differences of classifiers of one seed. `shown`: the interval is on one side of 0. "
        "`unpaired`: no resamples of both are kept, so it is made from two intervals as if of other patients, and "
        f"wider. Intervals are of one difference each: of {sum(map(len, found.values()))} a few miss by chance.",
        "\n".join(rows),
        counted({k: patients_of(rows_of, f) for k, f in figures.items()}),
        *_in_words(against, found),
    ]


def _in_words(against: str, found: Mapping[str, Mapping[str, Difference | None]]) -> list[str]:
    """Who is behind on both axes, on neither, and who is ahead on one; of whom an axis is missing."""
    compared: dict[str, tuple[list[int], list[int]]] = {}
    ahead = []
    for label, cells in found.items():
        privacy = [d.shown for k, d in cells.items() if d is not None and k == _T1]
        loss = [d.shown for k, d in cells.items() if d is not None and k.startswith(_LOSS)]
        if min([*privacy, *loss], default=0) < 0:
            ahead.append(label)
        if privacy and loss:
            compared[label] = (privacy, loss)
    both = [label for label, axes in compared.items() if all(min(axis) > 0 for axis in axes)]
    neither = [label for label, axes in compared.items() if all(max(axis) <= 0 for axis in axes)]
    missing = [label for label in found if label not in compared]
    said = [
        f"- shown to be behind {against} on both axes, T1 and the loss of every architecture: {_named(both)}",
        f"- **not** shown to be behind {against} on either axis: {_named(neither)}",
        f"- shown to be ahead of {against} on T1 or on the loss of an architecture: {_named(ahead)}",
    ]
    if missing:
        said.append(f"- not compared on both axes, since a line is missing: {_named(missing)}")
    return ["In words:", "\n".join(said)]


def _named(labels: Sequence[str]) -> str:
    return ", ".join(labels) if labels else "none"
