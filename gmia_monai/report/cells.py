"""Cells and tables of the page of systems: one row a system, one column a figure, – where no line says it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from gmia_monai.errors import UsageError
from gmia_monai.metrics.results import Result

__all__ = [
    "DASH",
    "Cell",
    "Columns",
    "Lines",
    "System",
    "by_worst",
    "chosen_line",
    "find",
    "finer",
    "interval",
    "line",
    "number",
    "plain",
    "row",
    "subgroup",
    "systems_of",
    "table",
    "takes_farthest",
    "unsigned_zero",
    "who",
    "who_is_worst",
    "worst_on_choice",
]

DASH = "–"
FLOOR = "metadata"
CONTROLS = (
    "unchanged", "noise", "shuffled", "reconstruction", "reconstruction e-training", "black boxes", "blur sigma=2",
    "downsampled 4", "random warp mu=0.01",
)  # fmt: skip
Lines = Mapping[tuple[str, str | None], Result]
Cell = Callable[[Lines], str]
Columns = Mapping[str, Cell]
_VARIANTS = {"signed": "verification_auc", "two_sided": "verification_auc_two_sided"}


@dataclass(frozen=True)
class System:
    """The lines of one system at one profile.

    Attributes:
        name: of the system.
        profile: of its lines.
        lines: by name and kind of negatives.
    """

    name: str
    profile: str
    lines: dict[tuple[str, str | None], Result]


def systems_of(results: Sequence[Result]) -> dict[str, System]:
    """Systems by label, controls first and the others by name; the label names the profile where a page has several.

    Raises:
        UsageError: ``GM-U335`` where two lines say the same of one system, e.g. under two seeds: one cell cannot show
            both.
    """
    several = len({result.profile for result in results}) > 1
    systems: dict[str, System] = {}
    for result in results:
        label = f"{result.system} ({result.profile})" if several else result.system
        lines = systems.setdefault(label, System(result.system, result.profile, {})).lines
        key = (result.name, result.negatives)
        if key in lines:
            raise UsageError("GM-U335", "two lines of one system say the same", got=f"{result.system}, {result.name}")
        lines[key] = result
    return dict(sorted(systems.items(), key=lambda item: _place(item[1])))


def _place(system: System) -> tuple[int, str]:
    return CONTROLS.index(system.name) if system.name in CONTROLS else len(CONTROLS), system.name


def find(lines: Lines, name: str, *negatives: str | None) -> Result | None:
    """The line of a name with the first of these kinds of negatives that there is (none given: without pairs), if it
    has a value."""
    for kind in negatives or (None,):
        found = lines.get((name, kind))
        if found is not None and found.value is not None:
            return found
    return None


# -- which attacker -----------------------------------------------------------------------------------------------
def _best_on_choice(
    lines: Lines, threat: str, among: Sequence[str], negatives: str = "matched"
) -> tuple[str, str] | None:
    """The attacker and variant (``signed`` or ``two_sided``) with the highest AUC on V2, mean over seeds; None where no
    line has a figure of V2."""
    found = {}
    for name in among:
        for variant, figure in _VARIANTS.items():
            of_line = lines.get((f"{figure}.{threat}.{name}.v1", negatives))
            aucs = None if of_line is None else of_line.extra.get("auc_on_choice")
            if aucs:
                found[name, variant] = float(np.mean(aucs))
    return max(found, key=lambda key: found[key]) if found else None


def chosen_line(
    lines: Lines, threat: str, among: Sequence[str], negatives: str = "matched"
) -> tuple[Result, str] | None:
    """The AUC of the attacker and variant with the highest AUC on V2, and the variant, ``signed`` or ``two_sided``."""
    best = _best_on_choice(lines, threat, among, negatives)
    if best is None:
        return None
    result = find(lines, f"{_VARIANTS[best[1]]}.{threat}.{best[0]}.v1", negatives)
    return None if result is None else (result, best[1])


def worst_on_choice(lines: Lines, threat: str, figure: str, without: Sequence[str] = ()) -> str | None:
    """Of the attackers that look at pixels and have a line ``<figure>.<attacker>.v1``, the one with the highest
    verification AUC on V2 under a threat model; ``without`` some of them."""
    pattern = re.compile(re.escape(figure) + r"\.(\w+)\.v1")
    names = dict.fromkeys(match.group(1) for name, _ in lines if (match := pattern.fullmatch(name)))
    best = _best_on_choice(lines, threat, [name for name in names if name not in (FLOOR, "worst", *without)])
    return None if best is None else best[0]


# -- cells --------------------------------------------------------------------------------------------------------
def number(value: float, decimals: int = 3) -> str:
    """A figure as tables show it, with so many decimals below 10."""
    return unsigned_zero(f"{value:.{decimals if abs(value) < 10 else 1}f}")


def unsigned_zero(text: str) -> str:
    """The text, without the sign of a number that was rounded to 0."""
    return text.removeprefix("-") if text.startswith("-") and not text.strip("-0.") else text


def plain(result: Result, decimals: int = 3) -> str:
    """The value."""
    return DASH if result.value is None else number(result.value, decimals)


def interval(result: Result, decimals: int = 3) -> str:
    """The value and its limits, where there are some."""
    if result.low is None or result.high is None:
        return plain(result, decimals)
    return f"{plain(result, decimals)} [{number(result.low, decimals)}, {number(result.high, decimals)}]"


def finer(result: Result) -> str:
    """As :func:`interval`, for figures that three decimals do not show."""
    return interval(result, 5)


def who(result: Result) -> str:
    """Who or what gave a worst case: the attacker and its variant or statistic, or the signal of membership."""
    words = [result.extra.get("attacker", result.extra.get("signal")), result.extra.get("variant")]
    words.append(result.extra.get("statistic"))
    return " ".join(str(word) for word in words if word).replace("two_sided", "two-sided") or DASH


def takes_farthest(lines: Lines, figure: Result) -> bool:
    """Whether the attacker of a figure of verification, signed, or of presence takes the farthest image for the
    person: on V2 the sign of its score turned out negative for every seed, or that direction told more."""
    if figure.name.startswith("presence_"):
        return figure.extra.get("direction") == -1.0
    attacker, threat = figure.attacker, figure.name.split(".")[1]
    if attacker in (None, "worst"):
        attacker = figure.extra.get("attacker")
    if figure.extra.get("variant", "signed") != "signed" or figure.name.startswith(_VARIANTS["two_sided"]):
        return False
    of_attacker = lines.get((f"verification_auc.{threat}.{attacker}.v1", figure.negatives))
    signs = () if of_attacker is None else of_attacker.extra.get("signs", ())
    return bool(signs) and all(sign < 0 for sign in signs)


def kept_start(figure: Result) -> bool:
    """Whether the attacker of a figure of verification was refitted, and is, for every seed, what it was before."""
    kept = figure.extra.get("kept_start", ())
    return str(figure.attacker).startswith("adaptive") and bool(kept) and all(kept)


def subgroup(name: str) -> str:
    """A subgroup of lines of utility in words, e.g. ``age_40_59``."""
    return name.replace("40_59", "40_to_59").replace("60_up", "60_or_more").replace("_", " ")


def line(name: str, *negatives: str | None, show: Callable[[Result], str] = interval) -> Cell:
    """A cell with what one line says."""

    def cell(lines: Lines) -> str:
        found = find(lines, name, *negatives)
        return DASH if found is None else show(found)

    return cell


def by_worst(
    threat: str,
    figure: str,
    name: str,
    *negatives: str | None,
    show: Callable[[Result], str] = interval,
    without: Sequence[str] = (),
) -> Cell:
    """A cell with the line ``name``, ``{}`` in it standing for the attacker of :func:`worst_on_choice`."""

    def cell(lines: Lines) -> str:
        attacker = worst_on_choice(lines, threat, figure, without)
        return DASH if attacker is None else line(name.format(attacker), *negatives, show=show)(lines)

    return cell


def who_is_worst(threat: str, figure: str, without: Sequence[str] = ()) -> Cell:
    """A cell with the name of the attacker of :func:`worst_on_choice`."""
    return lambda lines: worst_on_choice(lines, threat, figure, without) or DASH


# -- tables -------------------------------------------------------------------------------------------------------
def row(cells: Sequence[str]) -> str:
    """A row of a Markdown table."""
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def table(systems: Mapping[str, System], columns: Columns, *, always: bool = False) -> str:
    """A Markdown table; empty where no cell says anything, unless it stands there ``always``."""
    rows = [[label, *(cell(system.lines) for cell in columns.values())] for label, system in systems.items()]
    if not always and all(cell == DASH for cells in rows for cell in cells[1:]):
        return ""
    head = [row(["system", *columns]), row(["---", *["---:"] * len(columns)])]
    return "\n".join([*head, *(row(cells) for cells in rows)])
