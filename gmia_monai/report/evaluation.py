"""The report of an evaluation: one HTML file without scripts or anything from the network.

It shows no image of a person unless it is asked to, and says so at its top then.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ignite.engine import Engine, Events
from jaxtyping import Float

import gmia_monai
from gmia_monai.attacks.base import Judged
from gmia_monai.dicom.atomic import atomic_path
from gmia_monai.errors import UsageError
from gmia_monai.handlers.attacks import AttackLines
from gmia_monai.handlers.tracking import RunTracker, flatten_settings
from gmia_monai.metrics.results import Result
from gmia_monai.report.cards import AIM, BAD, headline_cards
from gmia_monai.report.plots import grid_picture
from gmia_monai.report.sections import make_sections
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
    figures_dir: PathLike | None = None,
) -> Path:
    """Writes the report (temporary file, then rename).

    Args:
        results: lines of one release.
        path: the HTML file.
        figure_data: as :class:`gmia_monai.handlers.AttackLines` keeps it.
        settings: what else was set, for the last section; its ``policy``, the release's, decides how linked released
            images are judged, and ``notes.<topic>`` stand under the headline, too.
        shown: real images and what was released for them, only where they may be shown; None: none are.
        figures_dir: folder for the pictures of the page as SVG files, too, in the place of those there; never images
            of ``shown``.

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
    environment.filters["unbroken"] = _unbroken
    sections = make_sections(results, data)
    page = environment.get_template("evaluation.html").render(
        system=next(iter(systems)),
        profile=results[0].profile,
        headline=headline_cards(
            by_name, str((settings or {}).get("policy") or ""), bool((settings or {}).get("notes.strength"))
        ),
        notes=_notes(settings or {}),
        aim=f"{AIM:.2f}",
        bad=f"{BAD:.2f}",
        sections=sections,
        shown=None if shown is None else grid_picture(*shown),
        provenance=_provenance(results, settings or {}),
    )
    path = Path(path)
    with atomic_path(path) as temporary:
        temporary.write_text(page, encoding="utf-8")
    if figures_dir is not None:
        _write_figures(sections, Path(figures_dir))
    return path


def _notes(settings: Mapping[str, object]) -> list[tuple[str, str]]:
    """Topic and text of each note of :func:`gmia_monai.evaluation.notes.case_notes` among flat settings."""
    named = {key.removeprefix("notes."): text for key, text in settings.items() if key.startswith("notes.")}
    return [(topic.replace("_", " "), str(text)) for topic, text in named.items() if text]


def _unbroken(text: str) -> str:
    """Limits, a figure with one beside it, and per cent stay in one piece; a narrow column breaks elsewhere."""
    pieces = r"(?<=\d) (?=to [-\d]|%|\([-\d.,]+\))|(?<=\d to) (?=[-\d])"
    return re.sub(pieces, "\u00a0", text)


def _write_figures(sections: Sequence[Mapping[str, Any]], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.svg"):
        old.unlink()
    for section in sections:
        stem = re.sub(r"[^a-z0-9]+", "_", section["title"].lower()).strip("_")
        for number, picture in enumerate(section["pictures"], start=1):
            with atomic_path(folder / f"{stem}_{number}.svg") as temporary:
                temporary.write_text(str(picture["svg"]), encoding="utf-8")


class ReportHandler:
    """Writes ``report.html`` and ``figures/*.svg`` beside the lines when all attacks are done, and logs all of them.

    The run then holds the value of every line, of attacks that an earlier run did, too.

    Args:
        lines: the handler that keeps the lines.
        tracker: MLflow run to log it in, whose settings the report shows; attach this one first, for the run ends when
            its engine does.
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
        folder, figures = self.lines.output_dir, self.lines.output_dir / "figures"
        settings = {} if self.tracker is None else flatten_settings(self.tracker.settings)
        if self.judged is not None:
            settings["policy"] = self.judged.release.policy
            settings["real images judged"] = self.judged.real.content_hash[:16]
        path = evaluation_report(results, folder / "report.html", data, settings, shown, figures)
        if self.tracker is not None:
            values = {f"{r.name}.{r.negatives}" if r.negatives else r.name: r.value for r in results}
            self.tracker.log_missing({k: v for k, v in values.items() if v is not None}, len(self.lines.names))
            for file in (folder / "results.jsonl", path):
                self.tracker.log_file(file)
            for file in sorted(figures.glob("*.svg")):
                self.tracker.log_file(file, "figures")
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


# -- provenance --------------------------------------------------------------------------------------------------------
def _provenance(results: Sequence[Result], settings: Mapping[str, object]) -> list[tuple[str, object]]:
    first = results[0]
    seeds = next((r.extra["attacker_seeds"] for r in results if "attacker_seeds" in r.extra), None)
    counted = [r for r in results if r.n_patients is not None]
    return [
        ("system", first.system),
        ("release", first.release_hash or "–"),
        ("configuration", first.config_hash or "–"),
        ("patients, images behind a figure, at most", _largest(counted)),
        ("attacker seeds", ", ".join(map(str, seeds)) if seeds else "–"),
        ("result lines", len(results)),
        ("software", f"gmia_monai {gmia_monai.__version__}"),
        *(("command", command) for command in dict.fromkeys(r.command for r in results if r.command)),
        *((key, "–" if value is None or value == "" else str(value)) for key, value in settings.items()),
    ]


def _largest(results: Sequence[Result]) -> str:
    return (
        f"{max((r.n_patients or 0 for r in results), default=0):,}, {max((r.n_images for r in results), default=0):,}"
    )
