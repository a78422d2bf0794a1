"""Pictures of the benchmark as SVG markup: the frontier, the attacker's budget, the cost of an image.

Systems of one family share colour and marker, and every point, line and bar has its name beside it, so that no colour
has to be told from another.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from gmia_monai.metrics.results import Result
from gmia_monai.report.benchmark_differences import OURS
from gmia_monai.report.cells import CONTROLS
from gmia_monai.report.counted import three_digits
from gmia_monai.report.frontier import CHANCE, Point, non_dominated
from gmia_monai.report.label_places import leader, place_labels
from gmia_monai.report.plots import as_svg

__all__ = ["budget_picture", "cost_picture", "family", "frontier_picture", "looks", "spread"]

# Okabe and Ito's colours, which the colour-blind tell apart; their yellow and sky blue are too faint on white.
_COLOURS = ("#0072b2", "#d55e00", "#007a5a", "#9c3f7c", "#8a6d00", "#333333")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "p", "h")
_GREY = "#6b727a"
_INK = "#22272e"
_FAINT = "#e3e7eb"


def family(label: str) -> str:
    """The first word of a system's name, which its settings follow; ``control`` for controls, ours by its beginning."""
    if label.split(" (")[0] in CONTROLS:
        return "control"
    return OURS if label.startswith(OURS) else label.split()[0]


def looks(labels: Sequence[str], among: Sequence[str] = ()) -> dict[str, tuple[str, str]]:
    """Colour and marker of each system, by family; controls are grey, ours is a star.

    Args:
        labels: of the systems.
        among: all systems of the page, so that a family looks the same in each of its pictures.
    """
    names = sorted({family(label) for label in (*labels, *among)} - {"control", OURS})
    of = {name: (_COLOURS[i % len(_COLOURS)], _MARKERS[i % len(_MARKERS)]) for i, name in enumerate(names)}
    of |= {"control": (_GREY, "o"), OURS: ("#b42318", "*")}
    return {label: of[family(label)] for label in labels}


def _figure(width: float, height: float) -> tuple[Any, Any]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)  # measures labels
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color=_FAINT, linewidth=0.8)
    axes.set_axisbelow(True)
    return figure, axes


def frontier_picture(found: Sequence[Point], axis: str, architecture: str, among: Sequence[str] = ()) -> Any:
    """AUC against loss with error bars both ways, the non-dominated set joined, each point named.

    Args:
        found: at least one point.
        axis: what the AUC is of.
        architecture: of the classifiers.
        among: as :func:`looks`.
    """
    figure, axes = _figure(9.6, 7.2)
    look = looks([point.label for point in found], among)
    kept = non_dominated(found)
    best = {point.label for point in kept}
    axes.axhline(CHANCE, linestyle=":", color=_GREY, linewidth=1.2)
    axes.axvline(0.0, linestyle=":", color=_GREY, linewidth=1.2)
    axes.plot(
        [float(p.utility.value or 0) for p in kept],
        [float(p.privacy.value or 0) for p in kept],
        color=_INK,
        linewidth=1.3,
        zorder=2,
    )
    for point in found:
        colour, marker = look[point.label]
        axes.errorbar(
            float(point.utility.value or 0),
            float(point.privacy.value or 0),
            xerr=_arms(point.utility),
            yerr=_arms(point.privacy),
            fmt=marker,
            color=colour,
            markersize=9 if marker == "*" else 6,
            markerfacecolor=colour if point.label in best else "white",
            elinewidth=0.9,
            ecolor=colour,
            zorder=3,
        )
    _limits(axes, found)
    axes.set_xlabel(f"loss of macro AUROC, trained on the release, tested on real images ({architecture})")
    axes.set_ylabel(axis)
    axes.set_title(
        "Lower left is better. Filled and joined: no other system is better in both. Dotted: chance, no loss.",
        fontsize=9,
        loc="left",
        color=_INK,
    )
    _name_points(figure, axes, found, look)
    return as_svg(figure)


def _arms(result: Result) -> Float[np.ndarray, "2 1"] | None:
    if result.low is None or result.high is None or result.value is None:
        return None
    # A value may lie outside the interval of its resamples by a rounding.
    return np.array([[max(result.value - result.low, 0.0)], [max(result.high - result.value, 0.0)]])


def _limits(axes: Any, found: Sequence[Point]) -> None:
    """Room for all error bars and, around them, for names."""
    for values, set_limits, least in (
        ([p.utility for p in found], axes.set_xlim, (0.0,)),
        ([p.privacy for p in found], axes.set_ylim, (CHANCE,)),
    ):
        ends = [v for r in values for v in (r.value, r.low, r.high) if v is not None] + list(least)
        room = 0.08 * max(max(ends) - min(ends), 0.02)
        set_limits(min(ends) - room, max(ends) + room)


def _name_points(figure: Any, axes: Any, found: Sequence[Point], look: Mapping[str, tuple[str, str]]) -> None:
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    renderer = figure.canvas.get_renderer()
    places = np.array([[float(p.utility.value or 0), float(p.privacy.value or 0)] for p in found])
    anchors = axes.transData.transform(places)
    back = {"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 0.6}
    texts = [axes.text(0, 0, p.label, fontsize=8.5, color=look[p.label][0], zorder=5, bbox=back) for p in found]
    sizes = np.array([[box.width, box.height] for box in (t.get_window_extent(renderer) for t in texts)])
    box = axes.get_window_extent(renderer)
    bounds = np.array([box.x0 + 6, box.y0 + 4, box.x1 - 2, box.y1 - 2])
    bars = [np.array([a[0] - 6, a[1] - 6, a[0] + 6, a[1] + 6]) for a in anchors]
    for point, at in zip(found, anchors, strict=True):
        for result, way in ((point.utility, 0), (point.privacy, 1)):
            if result.low is not None and result.high is not None:
                ends = np.array([at, at])
                mixed = places[0].copy()
                for end, value in enumerate((result.low, result.high)):
                    mixed[way] = value
                    ends[end, way] = axes.transData.transform(mixed)[way]
                bars.append(np.concatenate([ends.min(axis=0) - 1, ends.max(axis=0) + 1]))
    boxes = place_labels(anchors, sizes, bounds, np.array(bars))
    to_data = axes.transData.inverted()
    for text, label, at in zip(texts, boxes, anchors, strict=True):
        text.set_position(to_data.transform(label[:2]))
        text.set_verticalalignment("bottom")
        line = leader(at, label)
        if np.linalg.norm(line[1] - line[0]) > 10:
            axes.plot(*to_data.transform(line).T, color="#6b727a", linewidth=0.7, zorder=4, scalex=False, scaley=False)


def budget_picture(curves: Mapping[str, Float[np.ndarray, "4 n"]], label: str, among: Sequence[str] = ()) -> Any:
    """AUC of refitted attackers against what they learned from, with bands, a line a system, named at its end.

    Args:
        curves: by system; place, AUC, lower and upper limit.
        label: of the places.
        among: as :func:`looks`.
    """
    figure, axes = _figure(8.2, 5.0)
    look = looks(list(curves), among)
    axes.axhline(CHANCE, linestyle=":", color=_GREY, linewidth=1.2)
    for name, (place, value, low, high) in curves.items():
        colour, marker = look[name]
        axes.fill_between(place, low, high, color=colour, alpha=0.13, linewidth=0)
        axes.plot(place, value, marker=marker, color=colour, markersize=5, linewidth=1.6)
    places = sorted({float(x) for curve in curves.values() for x in curve[0]})
    axes.set_xscale("log")
    axes.set_xticks(_spread_ticks(places), [f"{x:,.0f}" for x in _spread_ticks(places)])
    axes.minorticks_off()
    axes.set(xlabel=label, ylabel="T1 AUC, matched negatives")
    ends = sorted(((float(curve[1][-1]), name) for name, curve in curves.items()))
    low, high = axes.get_ylim()
    step = (high - low) * 0.045
    heights = spread([end for end, _ in ends], step)
    axes.set_ylim(min(low, heights[0] - step), max(high, heights[-1] + step))
    for (end, name), height in zip(ends, heights, strict=True):
        axes.annotate(
            name,
            (float(curves[name][0][-1]), end),
            xytext=(1.03, height),
            textcoords=axes.get_yaxis_transform(),
            fontsize=8.5,
            color=look[name][0],
            va="center",
            annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": "#9aa1a9", "linewidth": 0.7},
        )
    return as_svg(figure)


def _spread_ticks(places: Sequence[float]) -> list[float]:
    """Places that are far enough apart for their numbers."""
    kept: list[float] = []
    for place in places:
        if not kept or place / kept[-1] > 1.15:
            kept.append(place)
    return kept


def spread(values: Sequence[float], step: float) -> list[float]:
    """Sorted values moved apart to at least ``step``, with as little change as keeps their order and their middle."""
    groups: list[list[float]] = []
    for value in values:
        groups.append([value])
        while (
            len(groups) > 1
            and _middle(groups[-1]) - _middle(groups[-2]) < step * (len(groups[-1]) + len(groups[-2])) / 2
        ):
            last = groups.pop()
            groups[-1] = groups[-1] + last
    return [_middle(group) + step * (i - (len(group) - 1) / 2) for group in groups for i in range(len(group))]


def _middle(group: Sequence[float]) -> float:
    return sum(group) / len(group)


def cost_picture(panels: Mapping[str, Mapping[str, float]], among: Sequence[str] = ()) -> Any:
    """Cost of an image as bars on a logarithmic axis, cheapest on top; a panel a kind of cost.

    Args:
        panels: by label of the axis, positive costs by system.
        among: as :func:`looks`.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    n = max(len(costs) for costs in panels.values())
    figure = Figure(figsize=(4.6 * len(panels) + 1.0, 0.27 * n + 1.1), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, (label, costs) in zip(np.atleast_1d(figure.subplots(1, len(panels))), panels.items(), strict=True):
        ordered = sorted(costs.items(), key=lambda item: (-item[1], item[0]))
        look = looks(list(costs), among)
        least = 10.0 ** (np.floor(np.log10(min(costs.values()))) - 0.3)
        for place, (name, cost) in enumerate(ordered):
            axes.barh(place, cost - least, left=least, color=look[name][0], height=0.62)
            axes.text(cost * 1.12, place, three_digits(cost), va="center", fontsize=8.5, color=_INK)
        axes.set_yticks(range(len(ordered)), [name for name, _ in ordered], fontsize=8.5)
        axes.set_ylim(-0.6, len(ordered) - 0.4)
        axes.set_xscale("log")
        axes.set_xlim(least, max(costs.values()) * 6)
        axes.set_xlabel(label)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="x", color=_FAINT, linewidth=0.8)
        axes.set_axisbelow(True)
    return as_svg(figure)
