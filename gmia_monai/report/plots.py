"""Pictures of a report, as SVG markup: no scripts, no fonts or files from elsewhere. Matplotlib loads on first use."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from sklearn.metrics import auc

__all__ = [
    "as_svg",
    "band_picture",
    "gallery_picture",
    "grid_picture",
    "histogram_picture",
    "risk_picture",
    "roc_picture",
]

_INK = {"worst": "#b42318", "metadata": "#8a8f98"}
_COLOURS = ("#1f5fa8", "#0b6b4f", "#8a5a00", "#6b3fa0", "#0e7c86", "#a03a6b", "#4d5b2a", "#444c56")


def _axes() -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.2, 3.9), layout="constrained")
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#e3e7eb", linewidth=0.8)
    axes.set_axisbelow(True)
    return figure, axes


def as_svg(figure: Any) -> Any:
    """The figure as markup that the template may take as it is; nothing of it comes from outside."""
    import matplotlib
    from markupsafe import Markup

    file = io.StringIO()
    # A fixed salt and no date: the same figures give the same bytes.
    with matplotlib.rc_context({"svg.hashsalt": "gmia_monai", "svg.fonttype": "path"}):
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    text = file.getvalue()
    return Markup(text[text.index("<svg") :])


def roc_picture(curves: Mapping[str, Float[np.ndarray, "2 n"]]) -> Any:
    """False- against true-accept rate of attackers: those with the largest areas by name, the others in grey, since
    more colours than eight cannot be told apart. Metadata always have a name."""
    figure, axes = _axes()
    axes.plot([0, 1], [0, 1], ":", color="#8a8f98", linewidth=1.2)
    area = {name: float(auc(far, tar)) for name, (far, tar) in curves.items()}
    ranked = sorted((name for name in curves if name not in _INK), key=lambda name: (-area[name], name))
    named, others = ranked[: len(_COLOURS)], ranked[len(_COLOURS) :]
    for i, name in enumerate(others):
        axes.plot(*curves[name], color="#c9ced4", linewidth=1.2, label=None if i else f"{len(others)} others")
    styles = {name: {"color": colour} for name, colour in zip(named, _COLOURS, strict=False)}
    styles |= {name: {"color": ink, "linestyle": "--"} for name, ink in _INK.items() if name in curves}
    for name, style in reversed(styles.items()):  # the first of the legend is on top
        axes.plot(*curves[name], label=name, linewidth=1.6, **style)
    axes.set(xlabel="false-accept rate", ylabel="true-accept rate", xlim=(0, 1), ylim=(0, 1.01))
    handles, labels = axes.get_legend_handles_labels()
    order = [labels.index(name) for name in (*styles, f"{len(others)} others") if name in labels]
    axes.legend([handles[i] for i in order], [labels[i] for i in order], fontsize=8, frameon=False, loc="lower right")
    return as_svg(figure)


def histogram_picture(data: Float[np.ndarray, "3 n"]) -> Any:
    """Densities of the scores of two people and of one, over their edges."""
    figure, axes = _axes()
    edges = data[2]
    for row, label, colour in ((0, "two people", "#8a8f98"), (1, "one person", "#b42318")):
        axes.stairs(data[row, :-1], edges, label=label, color=colour, fill=True, alpha=0.35)
        axes.stairs(data[row, :-1], edges, color=colour, linewidth=1.2)
    axes.set(xlabel="score", ylabel="density")
    axes.legend(fontsize=8, frameon=False)
    return as_svg(figure)


def gallery_picture(
    curves: Mapping[str, Mapping[str, float]], chance: Sequence[Mapping[str, float]] = (), label: str = "rank-1"
) -> Any:
    """A figure of retrieval against the size of the gallery.

    Args:
        curves: by name, the figure by size.
        chance: curves of random orders, dotted.
        label: name of the figure.
    """
    figure, axes = _axes()
    for (name, curve), colour in zip(curves.items(), _COLOURS, strict=False):
        axes.plot([int(size) for size in curve], list(curve.values()), "o-", markersize=4, label=name, color=colour)
    for curve in chance:
        axes.plot([int(size) for size in curve], list(curve.values()), ":", color="#8a8f98")
    sizes = sorted({int(size) for curve in curves.values() for size in curve})
    axes.set(xscale="log", xlabel="images in the gallery", ylabel=label, ylim=(0, 1.02))
    axes.set_xticks(sizes, [f"{size:,}" for size in sizes])
    axes.minorticks_off()
    axes.legend(fontsize=8, frameon=False)
    return as_svg(figure)


def band_picture(data: Float[np.ndarray, "4 n"], label: str, *, log: bool = False) -> Any:
    """AUC with its interval against something.

    Args:
        data: place, AUC, lower and upper limit.
        label: of the places.
        log: whether the places double from one to the next.
    """
    figure, axes = _axes()
    place, value, low, high = data
    axes.axhline(0.5, linestyle=":", color="#8a8f98", linewidth=1.2)
    axes.fill_between(place, low, high, color="#1f5fa8", alpha=0.18, linewidth=0)
    axes.plot(place, value, "o-", color="#1f5fa8", markersize=5)
    axes.set(xlabel=label, ylabel="AUC", ylim=(min(0.4, float(np.nanmin(low)) - 0.02), 1.01))
    if log:
        axes.set_xscale("log")
        axes.set_xticks(place, [f"{x:,.0f}" for x in place])
        axes.minorticks_off()
    return as_svg(figure)


def risk_picture(data: Float[np.ndarray, "2 n"]) -> Any:
    """Risk of each patient, sorted, and below it what the same pairs give by chance."""
    figure, axes = _axes()
    share = np.linspace(0, 100, data.shape[1])
    axes.plot(share, data[0], color="#b42318", linewidth=1.8, label="patients")
    axes.plot(share, data[1], ":", color="#8a8f98", linewidth=1.6, label="by chance")
    axes.set(xlabel="percent of the patients", ylabel="risk of the patient", xlim=(0, 100), ylim=(-0.01, 1.01))
    axes.legend(fontsize=8, frameon=False, loc="upper left")
    return as_svg(figure)


def grid_picture(real: Float[np.ndarray, "n 1 h w"], released: Float[np.ndarray, "n 1 h w"]) -> Any:
    """Real images above released ones, each twice enlarged, as one PNG inside the page."""
    from markupsafe import Markup
    from PIL import Image

    rows = np.concatenate([np.concatenate(list(images[:, 0]), axis=1) for images in (real, released)], axis=0)
    picture = Image.fromarray(np.rint(rows * 255).astype(np.uint8))
    picture = picture.resize((picture.width * 2, picture.height * 2), Image.Resampling.BICUBIC)
    file = io.BytesIO()
    picture.save(file, format="PNG", optimize=True)
    code = base64.b64encode(file.getvalue()).decode("ascii")
    return Markup('<img alt="real images above, released images below" src="data:image/png;base64,{}">').format(code)
