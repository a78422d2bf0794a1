"""The report of an evaluation: one HTML file without scripts or anything from the network.

It shows no image of a person unless it is asked to, and says so at its top then.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from ignite.engine import Engine, Events
from jaxtyping import Float

import gmia_monai
from gmia_monai.attacks.base import Judged
from gmia_monai.dicom.atomic import atomic_path
from gmia_monai.errors import UsageError
from gmia_monai.handlers.attacks import AttackLines
from gmia_monai.handlers.tracking import RunTracker
from gmia_monai.metrics.results import Result
from gmia_monai.report.plots import grid_picture
from gmia_monai.report.sections import THREATS, limits, make_sections
from gmia_monai.typing import PathLike

__all__ = ["ReportHandler", "evaluation_report", "report_handlers"]

_log = logging.getLogger(__name__)
Images = Float[np.ndarray, "n 1 h w"]


def evaluation_report(
    results: Sequence[Result],
    path: PathLike,
    figure_data: Mapping[str, np.ndarray] | None = None,
    settings: Mapping[str, object] | None = None,
    shown: tuple[Images, Images] | None = None,
) -> Path:
    """Writes the report (temporary file, then rename).

    Args:
        results: lines of one release.
        path: the HTML file.
        figure_data: as :class:`gmia_monai.handlers.AttackLines` keeps it.
        settings: what else was set, for the last section.
        shown: real images and what was released for them, only where they may be shown; None: none are.

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
        sections=make_sections(results, data),
        shown=None if shown is None else grid_picture(*shown),
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
        judged: release and real images, for pictures.
        n_shown: patients of whom a real and a released image are shown; 0 unless they may be.
    """

    def __init__(
        self, lines: AttackLines, tracker: RunTracker | None = None, judged: Judged | None = None, n_shown: int = 0
    ) -> None:
        self.lines = lines
        self.tracker = tracker
        self.judged = judged
        self.n_shown = n_shown

    def attach(self, engine: Engine) -> None:
        """Registers the handler."""
        engine.add_event_handler(Events.COMPLETED, lambda: self.finish())

    def finish(self) -> Path:
        """Writes the report."""
        results, data = self.lines.finish(), self.lines.figure_data()
        shown = None if self.judged is None or self.n_shown == 0 else _some(self.judged, self.n_shown)
        path = evaluation_report(results, self.lines.output_dir / "report.html", data, shown=shown)
        if self.tracker is not None:
            self.tracker.log_file(self.lines.output_dir / "results.jsonl")
            self.tracker.log_file(path)
        _log.info("report: %s", path)
        return path


def report_handlers(
    lines: AttackLines, tracker: RunTracker | None, judged: Judged | None = None, n_shown: int = 0
) -> list[ReportHandler]:
    """For :class:`gmia_monai.evaluation.command.Judgement`."""
    return [ReportHandler(lines, tracker, judged, n_shown)]


def _some(judged: Judged, n: int) -> tuple[Images, Images] | None:
    """Images of as many patients, evenly over those that have a released image of their own."""
    kept = np.flatnonzero(judged.released)
    if not len(kept):
        return None
    _, first = np.unique(judged.real.cohort.patient_index[kept], return_index=True)
    chosen = kept[np.sort(first)[np.linspace(0, len(first) - 1, min(n, len(first))).astype(int)]]
    return judged.real.pixels[chosen], judged.released_pixels()[chosen]


# -- sections ----------------------------------------------------------------------------------------------------------
def _headline(by_name: Mapping[tuple[str, str | None], Result]) -> list[dict[str, str]]:
    items = []
    for threat, title in THREATS.items():
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
                "note": f"AUC {limits(worst)}; upper limit {high:.3f}; worst attacker: {who}",
            }
        )
    floor = by_name.get(("verification_auc.T1.metadata.v1", "matched"))
    if items and floor is not None and floor.value is not None:
        note = f"AUC {limits(floor)}; no pixels (T1)"
        items.append({"title": "Floor: metadata alone", "value": f"{floor.value:.3f}", "tone": "", "note": note})
    return items


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
