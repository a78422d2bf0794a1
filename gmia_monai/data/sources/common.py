"""What the sources share: names of findings, walking a tree, counts of what was left out."""

from __future__ import annotations

import logging
from collections import Counter
from pathlib import Path

from gmia_monai.data.labels import Labels
from gmia_monai.errors import ManifestError

__all__ = [
    "CHEXPERT_FINDINGS",
    "IMAGE_SUFFIXES",
    "NIH_FINDINGS",
    "Skipped",
    "chexpert_labels",
    "walk_files",
]

_log = logging.getLogger(__name__)

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".nii"})
NIH_FINDINGS = (
    "Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Effusion", "Emphysema", "Fibrosis", "Hernia",
    "Infiltration", "Mass", "Nodule", "Pleural_Thickening", "Pneumonia", "Pneumothorax",
)  # fmt: skip
CHEXPERT_FINDINGS = (
    "Enlarged Cardiomediastinum", "Cardiomegaly", "Lung Opacity", "Lung Lesion", "Edema", "Consolidation", "Pneumonia",
    "Atelectasis", "Pneumothorax", "Pleural Effusion", "Pleural Other", "Fracture", "Support Devices",
)  # fmt: skip
_CHEXPERT_VALUES = {"1.0": 1.0, "1": 1.0, "0.0": 0.0, "0": 0.0, "-1.0": -1.0, "-1": -1.0}


def chexpert_labels(row: dict[str, str], row_number: int) -> Labels:
    """Findings of a CheXpert table: 1, 0, -1 (uncertain); a blank cell (not mentioned) is absent, as in GMIA.

    Raises:
        ManifestError: ``GM-M023`` for any other cell.
    """
    labels = []
    for name in CHEXPERT_FINDINGS:
        text = row.get(name, "")
        if text and text not in _CHEXPERT_VALUES:
            raise ManifestError("GM-M023", f"row {row_number}, column {name}: is none of 1, 0, -1 or blank")
        if text:
            labels.append((name, _CHEXPERT_VALUES[text]))
    return tuple(labels)


def walk_files(root: Path) -> list[Path]:
    """All files below ``root`` but hidden ones, sorted by their path relative to it."""
    relative = (path.relative_to(root) for path in root.rglob("*") if path.is_file())
    return [root / path for path in sorted(relative) if not any(part.startswith(".") for part in path.parts)]


class Skipped:
    """Counts what a source left out, by reason, and says it once.

    Args:
        source: name of the source.
    """

    def __init__(self, source: str) -> None:
        self._source = source
        self._reasons: Counter[str] = Counter()

    def add(self, reason: str, count: int = 1) -> None:
        """Note ``count`` left out for ``reason`` (words, no values)."""
        self._reasons[reason] += count

    def notes(self) -> tuple[str, ...]:
        """One line a reason; logged as a warning."""
        notes = tuple(f"{count} skipped: {reason}" for reason, count in sorted(self._reasons.items()))
        for note in notes:
            _log.warning("%s: %s", self._source, note)
        return notes
