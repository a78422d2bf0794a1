"""Sections of the report: a title, a note, a table, pictures; made from result lines and from data for figures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from gmia_monai.metrics.results import Result
from gmia_monai.report import making
from gmia_monai.report.attack_sections import attack_sections
from gmia_monai.report.cards import THREATS
from gmia_monai.report.html_cells import limits, make_section, number, with_limits
from gmia_monai.report.plots import band_picture, gallery_picture, histogram_picture, risk_picture, roc_picture
from gmia_monai.report.utility_sections import utility_sections

__all__ = ["make_sections"]

_RETRIEVAL = {"rank_1": "rank-1", "rank_5": "rank-5", "map_at_r": "mAP@R"}


def make_sections(results: Sequence[Result], data: Mapping[str, np.ndarray]) -> list[dict[str, Any]]:
    """All sections that there are lines for.

    Args:
        results: lines of one release.
        data: as :class:`gmia_monai.handlers.AttackLines` keeps it.
    """
    found = [
        *_verification(results, data),
        _patients(results, data),
        _years(results, data),
        _budget(results, data),
        _retrieval(results),
        *utility_sections(results),
        *attack_sections(results),
        _making(results),
        _left_out(results),
    ]
    return [section for section in found if section is not None]


def _pictures(
    data: Mapping[str, np.ndarray], kind: str, draw: Callable[[np.ndarray], Any], caption: str
) -> list[dict[str, Any]]:
    return [{"svg": draw(curve), "caption": caption} for name, curve in data.items() if name.startswith(f"{kind}/")]


def _of(results: Sequence[Result], *prefixes: str) -> list[Result]:
    return [r for r in results if r.name.startswith(prefixes)]


_RISKS = {
    "p90": "90th percentile",
    "p95": "95th percentile",
    "above_0_9": "share of patients above 0.9",
    "above_0_99": "share of patients above 0.99",
    "found_at_far_1pct": "share of patients found at FAR 1 %",
    "max": "highest",
}


def _plain_rows(lines: Sequence[Result]) -> list[list[str]]:
    """The last part of each name says what is particular to the line."""
    kinds = {"patient_risk": "risk, ", "verification_auc_subgroup": "AUC, "}
    gains = {
        "verification_auc_budget_gain": "gain of the last doubling of patients",
        "verification_auc_updates_gain": "gain of the updates",
    }
    rows = []
    for r in lines:
        figure, *parts = r.name.removesuffix(".v1").split(".")
        label = gains.get(figure) or kinds.get(figure, "") + _RISKS.get(parts[-1], parts[-1].replace("_", " "))
        rows.append([label, number(r), limits(r), f"{r.n_patients or 0:,}"])
    return rows


def _years(results: Sequence[Result], data: Mapping[str, np.ndarray]) -> dict[str, Any] | None:
    lines = [r for r in _of(results, "verification_auc_years") if ".worst." in r.name]
    if not lines:
        return None
    caption = "The worst attacker; band: 95 % interval."
    pictures = _pictures(data, "years", lambda curve: band_picture(curve, "years between the images"), caption)
    note = "Does time hide a person? AUC of the worst attacker by the years between the two images."
    header = ("years", "AUC", "95 %", "patients")
    return make_section("Years between the images", note, header, _plain_rows(lines), pictures)


def _patients(results: Sequence[Result], data: Mapping[str, np.ndarray]) -> dict[str, Any] | None:
    lines = [*_of(results, "patient_risk"), *_of(results, "verification_auc_subgroup")]
    if not lines:
        return None
    caption = "Each patient's risk, sorted; the dotted line is what chance gives."
    pictures = _pictures(data, "patient_risk", risk_picture, caption)
    note = (
        "The mean says little to the patient who is found most easily. Risk of a patient: how often one of their pairs "
        "outscores a pair of two people, for the worst attacker. Then subgroups."
    )
    header = ("figure", "value", "95 %", "patients")
    return make_section("Patients and subgroups", note, header, _plain_rows(lines), pictures)


def _budget(results: Sequence[Result], data: Mapping[str, np.ndarray]) -> dict[str, Any] | None:
    lines = [*_of(results, "verification_auc_budget"), *_of(results, "verification_auc_updates_gain")]
    if not lines:
        return None
    caption = "AUC of the refitted attacker."
    pictures = _pictures(data, "budget", lambda curve: band_picture(curve, "training pairs", log=True), caption)
    note = (
        "Would an attacker with more releases win? The refitted attacker with an eighth, a quarter, a half and all of "
        "the patients of A, and with all of them for three times the updates. A curve that still rises at its end "
        "says that the headline is no limit."
    )
    header = ("part of the patients", "AUC", "95 %", "patients scored")
    return make_section("The attacker's budget", note, header, _plain_rows(lines), pictures)


def _making(results: Sequence[Result]) -> dict[str, Any] | None:
    found = next((r for r in results if r.name == making.LINE and r.value is not None), None)
    if found is None:
        return None
    settings = found.extra.get("settings")
    rows = [["share converged", with_limits(found)], ["mean steps of an image", making.mean_steps(found)]]
    rows += [[str(key), str(value)] for key, value in settings.items()] if isinstance(settings, dict) else []
    return make_section(making.TITLE, str(found.extra.get("description") or ""), ("figure or setting", "value"), rows)


def _left_out(results: Sequence[Result]) -> dict[str, Any] | None:
    lines = [r for r in results if "_left_out." in r.name]
    rows = [[r.name.split("_left_out")[0].replace("_", " "), str(r.extra.get("reason", ""))] for r in lines]
    return make_section("Left out", "What could not be judged, and why.", ("attack", "reason"), rows) if rows else None


def _verification(results: Sequence[Result], data: Mapping[str, np.ndarray]) -> list[dict[str, Any]]:
    sections = []
    for threat, title in THREATS.items():
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
            ("TAR, 1 %", "tar_at_far_1pct", "matched"),
            ("TAR, 0.1 %", "tar_at_far_0_1pct", "matched"),
            ("TAR, 0.1 %, random", "tar_at_far_0_1pct", "random"),
            ("calibration error", "calibration_error", "matched"),
        ]
        rows: list[list[str]] = []
        for attacker in attackers:
            cells = [attacker]
            for header, figure, negatives in columns:
                found = table.get((figure, negatives, attacker))
                cells.append("–" if found is None else limits(found) if header == "95 %" else number(found))
            rows.append(cells)
        pictures = []
        rocs = {k.split("/")[2]: v for k, v in data.items() if k.startswith(f"roc/{threat}/")}
        if rocs:
            caption = "ROC curves, matched negatives, first seed; the sign of each score was chosen on V2."
            pictures.append({"svg": roc_picture(rocs), "caption": caption})
        worst = table.get(("verification_auc", "matched", "worst"))
        shown = str(worst.extra.get("attacker")) if worst is not None else next(iter(rocs), "")
        if f"histogram/{threat}/{shown}" in data:
            pictures.append(
                {
                    "svg": histogram_picture(data[f"histogram/{threat}/{shown}"]),
                    "caption": f"Scores of {shown}: pairs of one person and of two. Apart on either side means found.",
                }
            )
        sections.append(
            {
                "title": title,
                "note": "Who compares a pair of images, and how often it is right. TAR: share of pairs of one person "
                "that are accepted where 1 % or 0.1 % of pairs of two people are. Negatives are matched where a column "
                "does not say otherwise.",
                "header": ["attacker", *(c[0] for c in columns)],
                "rows": rows,
                "pictures": pictures,
            }
        )
    return sections


def _gallery(figure: str, of_directions: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """A figure of retrieval against the size of the gallery, by direction."""
    curves = {d.replace("_", " "): extra[f"{figure}_at_gallery"] for d, extra in of_directions.items()}
    chance: list[dict[str, float]] = []  # both directions ask the same images, as a rule
    for extra in of_directions.values():
        by_chance = extra.get(f"{figure}_at_gallery_by_chance")
        if by_chance and by_chance not in chance:
            chance.append(by_chance)
    label = _RETRIEVAL[figure]
    caption = f"{label} of the strongest attacker against the size of the gallery, the best match and random others"
    caption = caption[0].upper() + caption[1:] if figure != "map_at_r" else caption
    caption += "; the line of dots is chance." if chance else "."
    return {"svg": gallery_picture(curves, chance, label), "caption": caption}


def _retrieval(results: Sequence[Result]) -> dict[str, Any] | None:
    lines = [r for r in results if r.name.split(".")[0] in _RETRIEVAL and "_in_" in r.name]
    if not lines:
        return None
    keys = list(dict.fromkeys((r.name.split(".")[1], r.attacker) for r in lines))
    table = {(r.name.split(".")[0], r.name.split(".")[1], r.attacker): r for r in lines}
    rows = [
        [f"{direction.replace('_', ' ')}, {attacker}"]
        + [with_limits(table.get((figure, direction, attacker))) for figure in _RETRIEVAL]
        for direction, attacker in keys
    ]
    worst = [direction for direction, by in keys if by == "worst"]
    drawn = {
        figure: {d: table[figure, d, "worst"].extra for d in worst if (figure, d, "worst") in table}
        for figure in _RETRIEVAL
    }
    pictures = [_gallery(figure, of_directions) for figure, of_directions in drawn.items() if of_directions]
    return {
        "title": "Finding the person in a gallery",
        "note": "The image looks for another image of its patient; the source itself is not in the gallery.",
        "header": ["query, attacker", *_RETRIEVAL.values()],
        "rows": rows,
        "pictures": pictures,
    }
