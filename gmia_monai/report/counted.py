"""Tables of the benchmark: a column is a line, and below each table stands how many patients its figures rest on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from gmia_monai.metrics.results import Result
from gmia_monai.report.cells import DASH, Columns, System, find, interval, line, number, table, who

__all__ = ["Figure", "compact", "counted", "counted_table", "patients_of", "signed", "three_digits"]


@dataclass(frozen=True)
class Figure:
    """What a column shows: a line of each system.

    Attributes:
        name: of the line.
        negatives: kinds of negatives, the first that there is wins; none: a line without pairs.
        show: text of a cell.
    """

    name: str
    negatives: tuple[str | None, ...] = ()
    show: Callable[[Result], str] = interval

    def of(self, system: System) -> Result | None:
        """The line of a system, if it has a value."""
        return find(system.lines, self.name, *self.negatives)


def counted_table(
    systems: Mapping[str, System], figures: Mapping[str, Figure], more: Mapping[str, Mapping[str, str]] | None = None
) -> list[str]:
    """A table, and the patients behind each of its columns; nothing where no system has one of the lines.

    Columns and rows without any line are left out.

    Args:
        systems: by label.
        figures: columns by heading.
        more: further columns at the left by heading, each with texts by label.
    """
    having = {heading: figure for heading, figure in figures.items() if any(map(figure.of, systems.values()))}
    if not having:
        return []
    rows = {label: s for label, s in systems.items() if any(figure.of(s) for figure in having.values())}
    columns: Columns = {heading: line(f.name, *f.negatives, show=f.show) for heading, f in having.items()}
    shown = table(rows, columns, always=True)
    if more:
        shown = _with_columns(shown, list(rows), more)
    counts = {heading: patients_of(rows, figure) for heading, figure in having.items() if figure.show is not who}
    return [shown, counted(counts)]


def _with_columns(text: str, labels: Sequence[str], more: Mapping[str, Mapping[str, str]]) -> str:
    """The table with columns of texts behind the names of the systems."""
    head, rule, *rows = text.splitlines()
    cells = [
        [heading, "---", *(texts.get(label, DASH).replace("|", "\\|") for label in labels)]
        for heading, texts in more.items()
    ]
    made = []
    for place, old in enumerate([head, rule, *rows]):
        first, _, rest = old.removeprefix("| ").partition(" | ")
        made.append("| " + " | ".join([first, *(column[place] for column in cells), rest]))
    return "\n".join(made)


def patients_of(systems: Mapping[str, System], figure: Figure) -> str:
    """How many patients a figure rests on, as a range where systems differ; – where no line says it."""
    found = sorted({f.n_patients for s in systems.values() if (f := figure.of(s)) and f.n_patients is not None})
    if not found:
        return DASH
    return f"{found[0]:,}" if len(found) == 1 else f"{found[0]:,} to {found[-1]:,}"


def counted(counts: Mapping[str, str]) -> str:
    """The sentence on patients; headings with the same number stand together."""
    together: dict[str, list[str]] = {}
    for heading, count in counts.items():
        together.setdefault(count, []).append(heading)
    if len(together) == 1:
        return f"Patients: {next(iter(together))}."
    shown = (f"{count} ({', '.join(f'*{name}*' for name in names)})" for count, names in together.items())
    return f"Patients: {'; '.join(shown)}."


def compact(result: Result) -> str:
    """Value and limits with three significant digits, for figures over several orders of magnitude."""
    if result.value is None:
        return DASH
    if result.low is None or result.high is None:
        return three_digits(result.value)
    return f"{three_digits(result.value)} [{three_digits(result.low)}, {three_digits(result.high)}]"


def three_digits(value: float) -> str:
    """A number with three significant digits, and whole from 1,000."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def signed(difference: float) -> str:
    """A difference with its sign."""
    text = number(difference)
    return text if text.startswith("-") else f"+{text}"
