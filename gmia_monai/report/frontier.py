"""The frontier of privacy and utility: who gives away less for the same loss, as points, a table and a picture.

A point is a system: the AUC of an attack against what a classifier loses that learns from the release. Both are better
where they are lower. A system is dominated where another is at least as good in both and better in one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gmia_monai.metrics.results import Result
from gmia_monai.report.cells import System, interval, plain, who
from gmia_monai.report.counted import Figure, counted_table

__all__ = [
    "PRIVACY",
    "Attack",
    "Point",
    "architectures",
    "frontier_parts",
    "missing",
    "non_dominated",
    "points",
    "utility",
]

CHANCE = 0.5
_LOSS = re.compile(r"utility_macro_auroc_loss\.released_to_real\.(\w+)\.v1")


@dataclass(frozen=True)
class Attack:
    """The coordinate of privacy.

    Attributes:
        title: of the section.
        axis: of the picture.
        stem: of its file.
        worst: line of the attacker that was worst on V2.
        ensemble: line of all attackers together, shown beside it; None where there is no such line.
        parts: attacks without which the line is missing, for the reason.
    """

    title: str
    axis: str
    stem: str
    worst: Figure
    ensemble: Figure | None = None
    parts: tuple[str, ...] = ()


PRIVACY = (
    Attack(
        "Another image of the person (T1)",
        "T1 AUC of the worst attacker, matched negatives",
        "t1",
        Figure("verification_auc.T1.worst.v1", ("matched",)),
        Figure("verification_auc.T1.ensemble.v1", ("matched",)),
        ("verification",),
    ),
    Attack(
        "Presence in the release",
        "presence AUC of the worst attacker",
        "presence",
        Figure("presence_auc.worst.v1"),
        parts=("presence",),
    ),
)


@dataclass(frozen=True)
class Point:
    """A system with both coordinates.

    Attributes:
        label: of the system.
        privacy: line of the attack, AUC.
        utility: line of the loss of macro AUROC.
    """

    label: str
    privacy: Result
    utility: Result

    @property
    def costs(self) -> tuple[float, float]:
        """Loss and AUC as they count: nothing is worth more than an attack at chance, or than no loss."""
        return max(float(self.utility.value or 0.0), 0.0), max(float(self.privacy.value or 0.0), CHANCE)


def utility(architecture: str) -> Figure:
    """The loss of macro AUROC of a classifier that learns from the release and is tested on real images."""
    return Figure(f"utility_macro_auroc_loss.released_to_real.{architecture}.v1")


def architectures(systems: Mapping[str, System]) -> list[str]:
    """Those that learned from a release; the one in the loss of systems, which their lines mark, comes last."""
    in_loss: dict[str, bool] = {}
    for system in systems.values():
        for (name, _), found in system.lines.items():
            if match := _LOSS.fullmatch(name):
                in_loss[match.group(1)] = in_loss.get(match.group(1), False) or bool(found.extra.get("in_loss"))
    return sorted(in_loss, key=lambda name: in_loss[name])


def points(systems: Mapping[str, System], attack: Attack, architecture: str) -> list[Point]:
    """Systems that have both lines."""
    found = ((label, attack.worst.of(s), utility(architecture).of(s)) for label, s in systems.items())
    return [Point(label, privacy, loss) for label, privacy, loss in found if privacy is not None and loss is not None]


def non_dominated(found: Sequence[Point]) -> list[Point]:
    """Points that no other is at least as good as in both coordinates and better than in one, from the lowest loss."""

    def beats(one: Point, other: Point) -> bool:
        return all(a <= b for a, b in zip(one.costs, other.costs, strict=True)) and one.costs != other.costs

    kept = [point for point in found if not any(beats(other, point) for other in found)]
    return sorted(kept, key=lambda point: (point.costs, point.label))


def missing(systems: Mapping[str, System], attack: Attack, names: Sequence[str]) -> list[str]:
    """A line for each system that has no point: which coordinate is missing, and why as far as a line says so."""
    said = []
    for label, system in systems.items():
        wanted = [(attack.worst, attack.parts), *((utility(name), ("utility",)) for name in names)]
        reasons = [_reason(system, figure, parts) for figure, parts in wanted if figure.of(system) is None]
        if reasons:
            said.append(f"- {label}: {'; '.join(reasons)}")
    return said


def _reason(system: System, figure: Figure, parts: Sequence[str]) -> str:
    empty = system.lines.get((figure.name, figure.negatives[0] if figure.negatives else None))
    for found in (empty, *(system.lines.get((f"{part}_left_out.v1", None)) for part in parts)):
        if found is not None and found.extra.get("reason"):
            return f"no `{figure.name}`, {found.extra['reason']}"
    return f"no line `{figure.name}`"


def frontier_parts(systems: Mapping[str, System], attack: Attack, pictures: Mapping[str, str]) -> list[str]:
    """Paragraphs, pictures and the table of one attack.

    Args:
        systems: by label.
        attack: the coordinate of privacy.
        pictures: file of the picture of each architecture.
    """
    names = architectures(systems)
    parts = [f"### {attack.title}"]
    if not any(points(systems, attack, name) for name in names):
        return [
            *parts,
            f"No frontier yet: no system has both `{attack.worst.name}` and a line "
            "`utility_macro_auroc_loss.released_to_real.<architecture>.v1`.",
        ]
    on: dict[str, dict[str, str]] = {}
    for name in names:
        found = points(systems, attack, name)
        kept = {point.label for point in non_dominated(found)}
        on[f"on the frontier, `{name}`"] = {point.label: "yes" if point.label in kept else "no" for point in found}
        if name in pictures:
            parts.append(f"![{attack.title}, `{name}`]({pictures[name]})")
    figures = {"AUC, worst": attack.worst, "attacker": Figure(attack.worst.name, attack.worst.negatives, who)}
    if attack.ensemble is not None:
        figures["AUC, ensemble"] = Figure(attack.ensemble.name, attack.ensemble.negatives, interval)
    figures |= {f"AUROC loss, `{name}`": utility(name) for name in names}
    figures |= {
        f"AUROC, `{name}`": Figure(f"utility_macro_auroc.released_to_real.{name}.v1", show=plain) for name in names
    }
    parts += counted_table(systems, figures, on)
    without = missing(systems, attack, names)
    if without:
        parts += ["Not in every picture, since a coordinate is missing:", "\n".join(without)]
    return parts
