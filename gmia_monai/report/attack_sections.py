"""Sections of the report on the attacks beside verification and retrieval: who found what, one row an attacker."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from gmia_monai.metrics.results import Result
from gmia_monai.report.cells import DASH
from gmia_monai.report.html_cells import make_section, with_limits

__all__ = ["attack_sections"]

_ACRONYMS = re.compile(r"\b(auc|f1|tar|far|frr|tpr|fpr)\b")


@dataclass(frozen=True)
class _Topic:
    """One section.

    Attributes:
        title: its heading.
        note: how to read it.
        figures: beginnings of the names of its lines.
        strip: what headings of columns leave out.
        across: whether what stands between figure and attacker is part of the column; of the row otherwise.
    """

    title: str
    note: str
    figures: tuple[str, ...]
    strip: str = ""
    across: bool = False


_TOPICS = (
    _Topic(
        "Linkability",
        "Verdicts by one threshold on balanced pairs; inner: T3, outer: T2.",
        ("linkability_",),
        "linkability_",
    ),
    _Topic(
        "The published protocol",
        "As printed by the paper: the optimiser's own encoder and, outside, no pairs of two people. What is printed "
        "there as FAR is the false-reject rate.",
        ("paper_linkability_",),
        "paper_linkability_",
    ),
    _Topic(
        "Presence",
        "Is a patient among the sources of the release, given another image of that patient? 0.5 is chance.",
        ("presence_",),
        "presence_",
    ),
    _Topic(
        "Membership",
        "Was a patient among those that the system was trained on? By the loss on the image, by the nearest released "
        "image, and by attackers trained on shadow models or on known members. 0.5 is chance.",
        ("membership_",),
        "membership_",
    ),
    _Topic(
        "Singling out, linking, inferring",
        "Anonymeter's form: the attacker's success on the released patients beyond that on patients who were not "
        "released. 0: nothing is gained; one attempt a patient.",
        ("anonymeter_",),
        "anonymeter_",
        across=True,
    ),
    _Topic(
        "Memorisation",
        "Share of released images that are nearer to a training image than all but 1 % of unseen real images are, and "
        "its excess over the share of unseen real images of the judged role.",
        ("memorised_",),
        "memorised_",
    ),
    _Topic(
        "Attributes",
        "Sex, view and age band from released images, and what the same network, which learned from releases, reads "
        "off the real images behind them.",
        ("attribute_auc",),
        "attribute_",
    ),
    _Topic(
        "Inversion",
        "A network trained to give the real image back; its output is compared with real images, and so is the release "
        "itself. An inversion that tells less than the release is a failed attack, not a safe release.",
        ("inversion_",),
        "inversion_",
    ),
    _Topic(
        "Singling out, as published",
        "Images count alike, and the nearest release alone is looked at: an image at the far side of its source hides "
        "from these figures. Paper: by distances of embeddings as they are.",
        (
            *("hidden_rate.", "local_cloaking_avatars.", "local_cloaking_records."),
            *("paper_hidden_rate", "paper_local_cloaking"),
        ),
    ),
    _Topic(
        "Singling out, by patient and from both sides",
        "Patients count alike (patient); the nearest release is another person's (person); the own release is "
        "neither nearest nor farthest (two sided). Place spread: 0.25 at chance, 0.5 if all are found.",
        (
            *("hidden_rate_patient", "local_cloaking_avatars_patient", "local_cloaking_records_patient"),
            *("hidden_rate_person", "hidden_rate_two_sided", "place_spread"),
        ),
    ),
)


def attack_sections(results: Sequence[Result]) -> list[dict[str, Any]]:
    """All sections that there are lines for."""
    sections = []
    for topic in _TOPICS:
        lines = [r for r in results if r.name.startswith(topic.figures) and "_left_out." not in r.name]
        if lines:
            header, rows = _table(lines, topic)
            sections.append(make_section(topic.title, topic.note, header, rows))
    return sections


def _table(lines: Sequence[Result], topic: _Topic) -> tuple[list[str], list[list[str]]]:
    """A column a figure, a row an attacker."""
    several = {name for name in {r.name for r in lines} if len({r.negatives for r in lines if r.name == name}) > 1}
    cells: dict[tuple[str, str], str] = {}
    for r in lines:
        figure, *parts = r.name.removesuffix(".v1").split(".")
        between, last = (parts[:-1], parts[-1:]) if topic.across else ([], parts)
        column = _spoken(" ".join([figure.removeprefix(topic.strip), *between]))
        at = ", ".join([*last, *([str(r.negatives)] if r.name in several else [])])
        cells[at, column] = with_limits(r)
    columns = list(dict.fromkeys(column for _, column in cells))
    rows = list(dict.fromkeys(at for at, _ in cells))
    shown = [[at, *(cells.get((at, column), DASH) for column in columns)] for at in rows]
    return ["by", *columns], shown


def _spoken(name: str) -> str:
    return _ACRONYMS.sub(lambda m: m.group().upper(), name.replace("_", " "))
