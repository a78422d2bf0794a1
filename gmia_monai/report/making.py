"""How a release was made: what systems that optimise say of their steps and settings.

Lines ``release_converged.v1`` have the share of images whose optimisation converged, and in ``extra`` ``mean_steps``,
``settings`` and a ``description``.
"""

from __future__ import annotations

from collections.abc import Mapping

from gmia_monai.metrics.results import Result
from gmia_monai.report.cells import DASH, Columns, System, line, number, plain, table

__all__ = ["LINE", "TITLE", "making_parts", "mean_steps", "settings_of"]

LINE = "release_converged.v1"
TITLE = "How the release was made"
_NOTE = "Systems that optimise each image: on the judged role, the share of images whose optimisation converged."


def mean_steps(result: Result) -> str:
    """Steps an image took, on average."""
    steps = result.extra.get("mean_steps")
    return DASH if not isinstance(steps, int | float) else number(float(steps), 1)


def settings_of(result: Result) -> str:
    """Settings as ``key=value``, in the order of the line."""
    settings = result.extra.get("settings")
    if not isinstance(settings, Mapping) or not settings:
        return DASH
    return ", ".join(f"{key}={value}" for key, value in settings.items())


def making_parts(systems: Mapping[str, System]) -> list[str]:
    """Paragraphs and a table of the systems that have the line; none where no system has it."""
    having = {label: system for label, system in systems.items() if (LINE, None) in system.lines}
    columns: Columns = {
        "converged": line(LINE, show=plain),
        "mean steps": line(LINE, show=mean_steps),
        "settings": line(LINE, show=_code),
        "what it is": line(LINE, show=lambda result: str(result.extra.get("description") or DASH)),
    }
    shown = table(having, columns) if having else ""
    return [f"## {TITLE}", _NOTE, shown] if shown else []


def _code(result: Result) -> str:
    shown = settings_of(result)
    return shown if shown == DASH else f"`{shown}`"
