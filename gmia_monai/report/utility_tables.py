"""Tables of utility and fidelity on the page of systems: one row a system."""

from __future__ import annotations

import re
from collections.abc import Mapping

from gmia_monai.metrics.results import Result
from gmia_monai.report.cells import (
    DASH,
    Cell,
    Columns,
    Lines,
    System,
    find,
    finer,
    interval,
    line,
    plain,
    subgroup,
    table,
)
from gmia_monai.report.utility_sections import LEARNED_LABELS

__all__ = ["utility_parts"]

_FIGURES = {"AUROC": "auroc", "AP": "ap", "accuracy": "accuracy", "F1": "f1"}
_DIRECTIONS = {
    "released_to_real": "trained on the release, tested on real images",
    "real_to_released": "trained on real images, tested on the release",
}
_SUBGROUP = re.compile(r"utility_macro_auroc_loss\.(\w+)\.(\w+)\.(\w+)\.v1")
_ARCHITECTURE = re.compile(r"utility_macro_auroc\.\w+_to_\w+\.(\w+)\.v1")


_SOURCES: Columns = {
    "PSNR, dB": line("fidelity_psnr.v1"),
    "SSIM": line("fidelity_ssim.v1"),
    "MS-SSIM, 3 scales": line("fidelity_ms_ssim_3scale.v1"),
    "MS-SSIM": line("fidelity_ms_ssim.v1"),
    "IW-SSIM": line("fidelity_iw_ssim.v1"),
    "LPIPS, own trunk": line("fidelity_lpips_cxr.v1"),
}
_NETWORKS = {
    "loss": "the network in the loss of the systems that have one",
    "other": "one that no system optimises",
}


def utility_parts(systems: Mapping[str, System]) -> list[str]:
    """Paragraphs and tables; none without lines."""
    parts = [*_macro(systems), *_subgroups(systems)]
    if parts:
        parts = [
            "## Utility",
            "Classifiers of several seeds, means over the findings with at least 30 positive test images; thresholds "
            "are those of the highest F1 on real images of V2. In brackets the loss against training and testing on "
            "the same images, real, with its 95 % limits (below 0: nothing is lost); beside the calibration error that "
            "of real training. Sound at 0.02: the upper limit of the AUROC loss is below 0.02, for one architecture "
            "and direction. " + LEARNED_LABELS + " The classifiers are small, and learn from fewer images and for "
            "fewer updates than the bundle's own, whose AUROC is in `results.md`: better ones may lose more.",
            *parts,
        ]
    return [*parts, *_fidelity(systems)]


def _macro(systems: Mapping[str, System]) -> list[str]:
    parts = []
    for direction, spoken in _DIRECTIONS.items():
        for architecture in _architectures(systems):
            columns: dict[str, Cell] = {
                f"{label} (loss)": _beside_loss(figure, f"{direction}.{architecture}")
                for label, figure in _FIGURES.items()
            }
            columns["calibration error (real)"] = _calibration(direction, architecture)
            columns["sound at 0.02"] = line(f"utility_macro_auroc_loss.{direction}.{architecture}.v1", show=_claim)
            shown = table(systems, columns)
            if shown:
                parts += [f"{spoken.capitalize()}, architecture `{architecture}`:", shown]
    return parts


def _architectures(systems: Mapping[str, System]) -> list[str]:
    names = (name for system in systems.values() for name, _ in system.lines)
    return list(dict.fromkeys(m.group(1) for name in names if (m := _ARCHITECTURE.fullmatch(name))))


def _beside_loss(figure: str, part: str) -> Cell:
    def cell(lines: Lines) -> str:
        found, loss = (find(lines, f"utility_macro_{name}.{part}.v1") for name in (figure, f"{figure}_loss"))
        if found is None:
            return DASH
        return plain(found) + ("" if loss is None else f" ({interval(loss)})")

    return cell


def _calibration(direction: str, architecture: str) -> Cell:
    def cell(lines: Lines) -> str:
        found, real = (find(lines, f"utility_macro_ece.{d}.{architecture}.v1") for d in (direction, "real_to_real"))
        if found is None:
            return DASH
        return plain(found) + ("" if real is None else f" ({plain(real)})")

    return cell


def _claim(loss: Result) -> str:
    said = loss.extra.get("non_inferior_at_0.02")
    return DASH if said is None else "yes" if said else "no"


def _subgroups(systems: Mapping[str, System]) -> list[str]:
    """AUROC losses of subgroups by direction and architecture."""
    found: dict[tuple[str, str], dict[str, None]] = {}
    for system in systems.values():
        for name, _ in system.lines:
            if match := _SUBGROUP.fullmatch(name):
                direction, architecture, group = match.groups()
                found.setdefault((direction, architecture), {})[group] = None
    parts = []
    for direction, spoken in _DIRECTIONS.items():
        for (of, architecture), groups in found.items():
            if of != direction:
                continue
            columns = {
                subgroup(group): line(f"utility_macro_auroc_loss.{direction}.{architecture}.{group}.v1")
                for group in groups
            }
            shown = table(systems, columns)
            if shown:
                parts += [f"AUROC loss by subgroup of the test images, {spoken}, architecture `{architecture}`:", shown]
    return parts


def _fidelity(systems: Mapping[str, System]) -> list[str]:
    beside = table(systems, _SOURCES)
    parts = [beside] if beside else []
    for network, spoken in _NETWORKS.items():
        columns: Columns = {
            "KID": line(f"kid.{network}.v1", show=finer),
            "feature drift": line(f"feature_drift.{network}.v1", show=finer),
            "logit drift": line(f"logit_drift.{network}.v1", show=finer),
            "probability drift": line(f"probability_drift.{network}.v1", show=finer),
        }
        shown = table(systems, columns)
        if shown:
            parts += [f"Under the diagnostic network `{network}`, {spoken}:", shown]
    if not parts:
        return []
    note = (
        "Released images beside their sources, means over images. KID compares all released with all real images; "
        "drifts are the mean squared difference of features and mean absolute ones of logits and probabilities."
    )
    return ["## Fidelity", note, *parts]
