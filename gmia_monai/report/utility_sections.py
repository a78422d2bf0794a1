"""Sections of the report on what is left for diagnosis: means over findings, each finding, subgroups, fidelity.

A part of the lines is a direction and an architecture, e.g. ``released_to_real.small``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from gmia_monai.metrics.results import Result
from gmia_monai.report.cells import DASH, subgroup, unsigned_zero
from gmia_monai.report.html_cells import limits, make_section, number, with_limits

__all__ = ["LEARNED_LABELS", "utility_sections"]

LEARNED_LABELS = (
    "A system whose loss holds a diagnostic network that learned from the very images that are released for training, "
    "with their labels, can hand these labels on: training on its release then flatters it. Testing on its release is "
    "free of that."
)

Lines = Mapping[str, Result]
_FIGURES = {"AUROC": "auroc", "AP": "ap", "accuracy": "accuracy", "F1": "f1", "calibration error": "ece"}
_LOSSES = {"AUROC loss": "auroc", "AP loss": "ap", "accuracy loss": "accuracy", "F1 loss": "f1"}
_PART = re.compile(r"utility_(?:macro|paper)_[a-z0-9]+\.(\w+\.\w+)\.v1")
_SUBGROUP = re.compile(r"utility_macro_auroc_loss\.(\w+\.\w+)\.(\w+)\.v1")
_FIDELITY = ("fidelity_", "kid.", "feature_drift.", "logit_drift.", "probability_drift.")
_LABELS = {
    "fidelity_psnr": "PSNR, dB",
    "fidelity_ssim": "SSIM",
    "fidelity_ms_ssim_3scale": "MS-SSIM, 3 scales",
    "fidelity_ms_ssim": "MS-SSIM",
    "fidelity_iw_ssim": "IW-SSIM",
    "fidelity_lpips_cxr": "LPIPS on the own utility encoder",
    "kid": "KID",
}
_DRIFT = re.compile(r"(logit|probability)_drift\.(\w+)\.v1")


def utility_sections(results: Sequence[Result]) -> list[dict[str, Any]]:
    """All sections that there are lines for."""
    lines = {r.name: r for r in results}
    parts = list(dict.fromkeys(m.group(1) for name in lines if (m := _PART.fullmatch(name)) and "_loss" not in name))
    found = [_means(lines, parts), _losses(lines, parts), _papers(lines, parts)]
    found += [_findings(lines, part) for part in parts if not part.startswith("real_to_real")]
    found += [_subgroups(lines), _fidelity(results), _drifts(lines)]
    return [section for section in found if section is not None]


def _spoken(part: str) -> str:
    return part.replace("_to_", " to ").replace(".", ", ")


def _said(row: Sequence[str]) -> bool:
    return any(cell != DASH for cell in row[1:])


def _means(lines: Lines, parts: Sequence[str]) -> dict[str, Any] | None:
    rows = [
        [_spoken(p), *(with_limits(lines.get(f"utility_macro_{figure}.{p}.v1")) for figure in _FIGURES.values())]
        for p in parts
    ]
    note = (
        "Classifiers trained on the release and tested on real images, the reverse, and both real; means over findings "
        "and seeds. Verdicts by the threshold of the highest F1 on real images of V2."
    )
    left_out = {n: k for p in parts for n, k in _extra(lines, f"utility_macro_auroc.{p}.v1", "left_out").items()}
    if left_out:
        few = ", ".join(f"{name} ({count})" for name, count in left_out.items())
        note += f" Findings with too few positive test images are left out: {few}."
    rows = [row for row in rows if _said(row)]
    if not rows:
        return None
    return make_section("What is left for diagnosis", note, ("trained on, tested on, architecture", *_FIGURES), rows)


def _losses(lines: Lines, parts: Sequence[str]) -> dict[str, Any] | None:
    rows = []
    for part in parts:
        found = [lines.get(f"utility_macro_{figure}_loss.{part}.v1") for figure in _LOSSES.values()]
        rows.append([_spoken(part), *map(with_limits, found), _claim(found[0])])
    rows = [row for row in rows if _said(row)]
    if not rows:
        return None
    note = (
        "Training and testing on the real images minus this, seed by seed and on the same resamples, with 95 % "
        "limits; below 0 nothing is lost. Sound at 0.02: the upper limit of the AUROC loss is below 0.02. "
        + LEARNED_LABELS
    )
    header = ("trained on, tested on, architecture", *_LOSSES, "sound at 0.02")
    return make_section("What diagnosis loses", note, header, rows)


def _claim(loss: Result | None) -> str:
    said = None if loss is None else loss.extra.get("non_inferior_at_0.02")
    return DASH if said is None else "yes" if said else "no"


def _papers(lines: Lines, parts: Sequence[str]) -> dict[str, Any] | None:
    figures = {label: figure for label, figure in _FIGURES.items() if figure != "ece"}
    if any("_at_half." in name for name in lines):
        figures |= {"accuracy at 0.5": "accuracy_at_half", "F1 at 0.5": "f1_at_half"}
    rows = []
    for part in parts:
        found = [with_limits(lines.get(f"utility_paper_{figure}.{part}.v1")) for figure in figures.values()]
        rows.append([_spoken(part), *found, with_limits(lines.get(f"utility_paper_auroc_loss.{part}.v1"))])
    rows = [row for row in rows if _said(row)]
    if not rows:
        return None
    named = {n for p in parts for n in _extra(lines, f"utility_paper_auroc.{p}.v1", "per_finding")}
    note = (
        f"The same over those of the paper's four labels that the test images have: {', '.join(sorted(named))}. The "
        "threshold is not the paper's 0.5 where a column does not say so."
    )
    header = ("trained on, tested on, architecture", *figures, "AUROC loss")
    return make_section("The paper's labels", note, header, rows)


def _findings(lines: Lines, part: str) -> dict[str, Any] | None:
    """Each finding of one part, with what real training and testing gives in brackets."""
    real = f"real_to_real.{part.split('.')[1]}"
    auroc = f"utility_macro_auroc.{part}.v1"
    positive, loss = _extra(lines, auroc, "n_positive"), _extra(lines, f"utility_macro_auroc_loss.{part}.v1")
    rows = []
    for name in _extra(lines, auroc):
        cells = [
            _beside(
                _extra(lines, f"utility_macro_{figure}.{part}.v1").get(name),
                _extra(lines, f"utility_macro_{figure}.{real}.v1").get(name),
            )
            for figure in _FIGURES.values()
        ]
        rows.append([name.replace("_", " "), str(positive.get(name, DASH)), *cells, _interval(loss.get(name))])
    if not rows:
        return None
    header = ("finding", "positive images", *(f"{label} (real)" for label in _FIGURES), "AUROC loss (95 %)")
    note = "In brackets: trained and tested on real images. One finding is a small sample: read the limits."
    return make_section(f"Each finding: {_spoken(part)}", note, header, rows)


def _subgroups(lines: Lines) -> dict[str, Any] | None:
    """Losses of subgroups, and the AUROC on the released side in brackets."""
    found = {(m.group(2), m.group(1)): r for name, r in lines.items() if (m := _SUBGROUP.fullmatch(name))}
    if not found:
        return None
    parts = list(dict.fromkeys(part for _, part in found))
    rows = []
    for group in dict.fromkeys(group for group, _ in found):
        of_group = [found.get((group, part)) for part in parts]
        first = next(r for r in of_group if r is not None)
        cells = [_loss_beside_auroc(r) for r in of_group]
        rows.append([subgroup(group), f"{first.n_patients or 0:,}", f"{first.n_images:,}", *cells])
    note = (
        "AUROC loss of each subgroup of the test images with 95 % limits; in square brackets the AUROC with the "
        "release. The findings with at least 10 positive images of the subgroup count, so that two subgroups can be "
        "judged by different findings."
    )
    header = ("subgroup", "patients", "images", *(_spoken(part) for part in parts))
    return make_section("Diagnosis by subgroup", note, header, rows)


def _loss_beside_auroc(loss: Result | None) -> str:
    released = None if loss is None else loss.extra.get("released")
    shown = with_limits(loss)
    return shown if released is None or shown == DASH else f"{shown} [{float(released):.3f}]"


def _fidelity(results: Sequence[Result]) -> dict[str, Any] | None:
    rows = []
    for result in results:
        if not result.name.startswith(_FIDELITY):
            continue
        figure, *network = result.name.removesuffix(".v1").split(".")
        label = _LABELS.get(figure, figure.removeprefix("fidelity_").replace("_", " "))
        decimals = 5 if network else 3  # KID and drifts are small
        label += f", network {network[0]}" if network else ""
        rows.append([label, number(result, decimals), limits(result, decimals)])
    if not rows:
        return None
    note = (
        "Released images beside their sources, then under diagnostic networks: KID between all released "
        "and all real images, and how far features (mean squared difference), logits and probabilities (mean absolute "
        "ones) of an image are from its source's. Network loss: the one in the system's loss; other: one that it does "
        "not optimise."
    )
    return make_section("Fidelity", note, ("figure", "value", "95 %"), rows)


def _drifts(lines: Lines) -> dict[str, Any] | None:
    """Drift of each finding under diagnostic networks."""
    found = {m.groups(): _extra(lines, name) for name in lines if (m := _DRIFT.fullmatch(name))}
    findings = list(dict.fromkeys(name for values in found.values() for name in values))
    if not findings:
        return None
    rows = [[f.replace("_", " "), *(_plain(values.get(f)) for values in found.values())] for f in findings]
    header = ("finding", *(f"{kind}, network {network}" for kind, network in found))
    note = "Mean absolute difference between an image's and its source's logit, or probability, of each finding."
    return make_section("Drift of each finding", note, header, rows)


# -- values in ``extra`` -------------------------------------------------------------------------------------------
def _extra(lines: Lines, name: str, key: str = "per_finding") -> Mapping[str, Any]:
    found = lines[name].extra.get(key) if name in lines else None
    return found if isinstance(found, Mapping) else {}


def _value(found: object) -> float | None:
    """Of a number, or of a value with its limits."""
    first = found[0] if isinstance(found, list | tuple) and found else found
    return float(first) if isinstance(first, int | float) else None


def _plain(found: object) -> str:
    value = _value(found)
    return DASH if value is None else unsigned_zero(f"{value:.3f}")


def _beside(found: object, real: object) -> str:
    return _plain(found) if _value(real) is None else f"{_plain(found)} ({_plain(real)})"


def _interval(found: object) -> str:
    limits = [_plain(x) for x in found[1:]] if isinstance(found, list | tuple) else []
    return _plain(found) if DASH in limits or len(limits) != 2 else f"{_plain(found)} ({limits[0]} to {limits[1]})"
