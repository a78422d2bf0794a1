"""The report of an evaluation: one HTML file without scripts, images of people or anything from the network."""

from __future__ import annotations

import io
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ignite.engine import Engine, Events

import gmia_monai
from gmia_monai.dicom.atomic import atomic_path
from gmia_monai.errors import UsageError
from gmia_monai.handlers.attacks import AttackLines
from gmia_monai.handlers.tracking import RunTracker
from gmia_monai.metrics.results import Result
from gmia_monai.typing import PathLike

__all__ = ["ReportHandler", "evaluation_report", "report_handlers"]

_log = logging.getLogger(__name__)

_THREATS = {
    "T1": "Another image of the person (T1)",
    "T2": "The very source image (T2)",
    "T3": "Two released images (T3)",
}
_INK = {"worst": "#b42318", "metadata": "#8a8f98"}
_COLOURS = ("#1f5fa8", "#0b6b4f", "#8a5a00", "#6b3fa0", "#0e7c86", "#a03a6b", "#4d5b2a", "#444c56")


def evaluation_report(
    results: Sequence[Result],
    path: PathLike,
    figure_data: Mapping[str, np.ndarray] | None = None,
    settings: Mapping[str, object] | None = None,
) -> Path:
    """Writes the report (temporary file, then rename).

    Args:
        results: lines of one release.
        path: the HTML file.
        figure_data: as :class:`gmia_monai.handlers.AttackLines` keeps it.
        settings: what else was set, for the last section.

    Raises:
        UsageError: ``GM-U330`` without lines, or with those of several systems.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    systems = {result.system for result in results}
    if len(systems) != 1:
        raise UsageError("GM-U330", "a report is of one system", got=f"{len(systems)} systems, {len(results)} lines")
    data = dict(figure_data or {})
    by_name = {(r.name, r.negatives): r for r in results}
    environment = Environment(
        loader=PackageLoader("gmia_monai.report", "templates"), autoescape=True, undefined=StrictUndefined
    )
    page = environment.get_template("evaluation.html").render(
        system=next(iter(systems)),
        profile=results[0].profile,
        headline=_headline(by_name),
        sections=[s for s in (*_verification(results, data), _retrieval(results), *_others(results)) if s is not None],
        provenance=_provenance(results, settings or {}),
    )
    path = Path(path)
    with atomic_path(path) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return path


class ReportHandler:
    """Writes ``report.html`` beside the lines when all attacks are done, and logs it.

    Args:
        lines: the handler that keeps the lines.
        tracker: MLflow run to log it in; attach this one first, for the run ends when its engine does.
    """

    def __init__(self, lines: AttackLines, tracker: RunTracker | None = None) -> None:
        self.lines = lines
        self.tracker = tracker

    def attach(self, engine: Engine) -> None:
        """Registers the handler."""
        engine.add_event_handler(Events.COMPLETED, lambda: self.finish())

    def finish(self) -> Path:
        """Writes the report."""
        results, data = self.lines.finish(), self.lines.figure_data()
        path = evaluation_report(results, self.lines.output_dir / "report.html", data)
        if self.tracker is not None:
            self.tracker.log_file(self.lines.output_dir / "results.jsonl")
            self.tracker.log_file(path)
        _log.info("report: %s", path)
        return path


def report_handlers(lines: AttackLines, tracker: RunTracker) -> list[ReportHandler]:
    """For ``evaluate_release``."""
    return [ReportHandler(lines, tracker)]


# -- sections ----------------------------------------------------------------------------------------------------------
def _headline(by_name: Mapping[tuple[str, str | None], Result]) -> list[dict[str, str]]:
    items = []
    for threat, title in _THREATS.items():
        worst = by_name.get((f"verification_auc.{threat}.worst.v1", "matched"))
        if worst is None or worst.value is None:
            continue
        high = worst.high if worst.high is not None else worst.value
        tone = "good" if high <= 0.6 else "bad" if worst.value >= 0.75 else "mid"
        who = f"{worst.extra.get('attacker')}, {str(worst.extra.get('variant')).replace('_', '-')}"
        items.append(
            {
                "title": title,
                "value": f"{worst.value:.3f}",
                "tone": tone,
                "note": f"AUC {_limits(worst)}; upper limit {high:.3f}; worst attacker: {who}",
            }
        )
    floor = by_name.get(("verification_auc.T1.metadata.v1", "matched"))
    if items and floor is not None and floor.value is not None:
        note = f"AUC {_limits(floor)}; no pixels (T1)"
        items.append({"title": "Floor: metadata alone", "value": f"{floor.value:.3f}", "tone": "", "note": note})
    return items


def _verification(results: Sequence[Result], data: Mapping[str, np.ndarray]) -> list[dict[str, Any]]:
    sections = []
    for threat, title in _THREATS.items():
        of_threat = [r for r in results if f".{threat}." in r.name and r.name.startswith("verification_auc")]
        if not of_threat:
            continue
        attackers = list(dict.fromkeys(r.attacker for r in of_threat if r.attacker))
        table = {(r.name.split(".")[0], r.negatives, r.attacker): r for r in results if f".{threat}." in r.name}
        columns = [
            ("AUC, matched", "verification_auc", "matched"),
            ("95 %", "verification_auc", "matched"),
            ("two-sided", "verification_auc_two_sided", "matched"),
            ("AUC, random", "verification_auc", "random"),
            ("EER", "equal_error_rate", "matched"),
            ("TAR at FAR 1 %", "tar_at_far_1pct", "matched"),
            ("calibration error", "calibration_error", "matched"),
        ]
        rows = []
        for attacker in attackers:
            cells = [attacker]
            for header, figure, negatives in columns:
                found = table.get((figure, negatives, attacker))
                cells.append("–" if found is None else _limits(found) if header == "95 %" else _number(found))
            rows.append(cells)
        pictures = []
        rocs = {k.split("/")[2]: v for k, v in data.items() if k.startswith(f"roc/{threat}/")}
        if rocs:
            caption = "ROC curves, matched negatives, first seed; the sign of each score was chosen on V2."
            pictures.append({"svg": _roc_picture(rocs), "caption": caption})
        worst = table.get(("verification_auc", "matched", "worst"))
        shown = str(worst.extra.get("attacker")) if worst is not None else next(iter(rocs), "")
        if f"histogram/{threat}/{shown}" in data:
            pictures.append(
                {
                    "svg": _histogram_picture(data[f"histogram/{threat}/{shown}"]),
                    "caption": f"Scores of {shown}: pairs of one person and of two. Apart on either side means found.",
                }
            )
        sections.append(
            {
                "title": title,
                "note": "Who compares a pair of images, and how often it is right.",
                "header": ["attacker", *(c[0] for c in columns)],
                "rows": rows,
                "pictures": pictures,
            }
        )
    return sections


def _retrieval(results: Sequence[Result]) -> dict[str, Any] | None:
    lines = [r for r in results if r.name.split(".")[0] in ("rank_1", "rank_5", "map_at_r") and "_in_" in r.name]
    if not lines:
        return None
    keys = list(dict.fromkeys((r.name.split(".")[1], r.attacker) for r in lines))
    table = {(r.name.split(".")[0], r.name.split(".")[1], r.attacker): r for r in lines}
    rows = [
        [f"{direction.replace('_', ' ')}, {attacker}"]
        + [_with_limits(table.get((figure, direction, attacker))) for figure in ("rank_1", "rank_5", "map_at_r")]
        for direction, attacker in keys
    ]
    curves = {
        f"{direction.replace('_', ' ')}": table["rank_1", direction, attacker].extra["rank_1_at_gallery"]
        for direction, attacker in keys
        if attacker == "worst"
    }
    pictures = []
    if curves:
        caption = "Rank-1 of the strongest attacker against the size of the gallery; the line of dots is chance."
        pictures.append({"svg": _gallery_picture(curves), "caption": caption})
    return {
        "title": "Finding the person in a gallery",
        "note": "The image looks for another image of its patient; the source itself is not in the gallery.",
        "header": ["query, attacker", "rank-1", "rank-5", "mAP@R"],
        "rows": rows,
        "pictures": pictures,
    }


def _others(results: Sequence[Result]) -> list[dict[str, Any]]:
    topics = {
        "Linkability": ("linkability_", "Verdicts by one threshold on balanced pairs; inner: T3, outer: T2."),
        "The published protocol": (
            "paper_linkability_",
            "As printed by the paper: the optimiser's own encoder and, outside, no pairs of two people. What is "
            "printed there as FAR is the false-reject rate.",
        ),
        "Presence": (
            "presence_",
            "Is a patient among the sources of the release, given another image of that patient? 0.5 is chance.",
        ),
        "Memorisation": (
            "memorised_share",
            "Share of released images that are nearer to a training image than all but 1 % of unseen real images are.",
        ),
        "Attributes": (
            "attribute_auc",
            "Sex, view and age band from released images; below, from the real images behind them: what there was to "
            "find.",
        ),
        "Inversion": (
            "inversion_",
            "A network trained to give the real image back; its output is compared with real images, and so is the "
            "release itself. An inversion that tells less than the release is a failed attack, not a safe release.",
        ),
        "Singling out": (
            ("hidden_rate", "local_cloaking", "place_spread"),
            "Hidden rate and local cloaking as published, then by patient and from both sides: an image at the far "
            "side of its source hides from the published figure alone. Place spread: 0.25 at chance, 0.5 if all are "
            "found.",
        ),
    }
    sections = []
    for title, (prefix, note) in topics.items():
        lines = [r for r in results if r.name.startswith(prefix)]
        if lines:
            rows = [[r.name.removesuffix(".v1").replace(".", " · "), _number(r), _limits(r)] for r in lines]
            header = ["figure", "value", "95 %"]
            sections.append({"title": title, "note": note, "header": header, "rows": rows, "pictures": []})
    return sections


def _provenance(results: Sequence[Result], settings: Mapping[str, object]) -> list[tuple[str, object]]:
    first = results[0]
    seeds = next((r.extra["attacker_seeds"] for r in results if "attacker_seeds" in r.extra), None)
    counted = [r for r in results if r.n_patients is not None]
    return [
        ("system", first.system),
        ("release", first.release_hash or "–"),
        ("configuration", first.config_hash or "–"),
        ("patients, images behind the figures", _largest(counted)),
        ("attacker seeds", ", ".join(map(str, seeds)) if seeds else "–"),
        ("result lines", len(results)),
        ("software", f"gmia_monai {gmia_monai.__version__}"),
        *((key, str(value)) for key, value in settings.items()),
    ]


def _largest(results: Sequence[Result]) -> str:
    return (
        f"{max((r.n_patients or 0 for r in results), default=0):,}, {max((r.n_images for r in results), default=0):,}"
    )


# -- numbers -----------------------------------------------------------------------------------------------------------
def _number(result: Result) -> str:
    if result.value is None:
        return "–"
    return f"{result.value:.3f}" if abs(result.value) < 10 else f"{result.value:,.0f}"


def _limits(result: Result) -> str:
    if result.low is None or result.high is None:
        return "–"
    digits = 3 if max(abs(result.low), abs(result.high)) < 10 else 0
    return f"{result.low:.{digits}f} to {result.high:.{digits}f}"


def _with_limits(result: Result | None) -> str:
    return "–" if result is None else f"{_number(result)} ({_limits(result)})"


# -- pictures ----------------------------------------------------------------------------------------------------------
def _axes() -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.2, 3.9), layout="constrained")
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#e3e7eb", linewidth=0.8)
    axes.set_axisbelow(True)
    return figure, axes


def _svg(figure: Any) -> Any:
    """The figure as markup that the template may take as it is; nothing of it comes from outside."""
    import matplotlib
    from markupsafe import Markup

    file = io.StringIO()
    # A fixed salt and no date: the same figures give the same bytes.
    with matplotlib.rc_context({"svg.hashsalt": "gmia_monai", "svg.fonttype": "path"}):
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    text = file.getvalue()
    return Markup(text[text.index("<svg") :])


def _roc_picture(curves: Mapping[str, np.ndarray]) -> Any:
    figure, axes = _axes()
    axes.plot([0, 1], [0, 1], ":", color="#8a8f98", linewidth=1.2)
    colours = iter(_COLOURS * 2)
    for name, (far, tar) in sorted(curves.items()):
        style = {"color": _INK[name], "linestyle": "--"} if name in _INK else {"color": next(colours)}
        axes.plot(far, tar, label=name, linewidth=1.6, **style)
    axes.set(xlabel="false-accept rate", ylabel="true-accept rate", xlim=(0, 1), ylim=(0, 1.01))
    axes.legend(fontsize=8, frameon=False, loc="lower right")
    return _svg(figure)


def _histogram_picture(data: np.ndarray) -> Any:
    figure, axes = _axes()
    edges = data[2]
    for row, label, colour in ((0, "two people", "#8a8f98"), (1, "one person", "#b42318")):
        axes.stairs(data[row, :-1], edges, label=label, color=colour, fill=True, alpha=0.35)
        axes.stairs(data[row, :-1], edges, color=colour, linewidth=1.2)
    axes.set(xlabel="score", ylabel="density")
    axes.legend(fontsize=8, frameon=False)
    return _svg(figure)


def _gallery_picture(curves: Mapping[str, Mapping[str, float]]) -> Any:
    figure, axes = _axes()
    for (name, curve), colour in zip(curves.items(), _COLOURS, strict=False):
        axes.plot([int(size) for size in curve], list(curve.values()), "o-", markersize=4, label=name, color=colour)
    sizes = sorted({int(size) for curve in curves.values() for size in curve})
    axes.plot(sizes, [1 / size for size in sizes], ":", color="#8a8f98")
    axes.set(xscale="log", xlabel="images in the gallery", ylabel="rank-1", ylim=(0, 1.02))
    axes.legend(fontsize=8, frameon=False)
    return _svg(figure)
