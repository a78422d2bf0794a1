"""Verify pixels: the scores of every released image, measured again on its file, and held against limits and ledger.

Contrast, findings that look like text and similarity to learned images need the file alone. Identity and drift need the
sources at the model's size, which stand in the work folder beside a release as long as nobody removes it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from gmia_monai.dicom.decoder import Decoder
from gmia_monai.errors import InputError
from gmia_monai.release.instance import read_instance
from gmia_monai.release.ledger import read_ledger
from gmia_monai.release.parts import TextFinder, Watching
from gmia_monai.release.reasons import HELD_BY_CHECK
from gmia_monai.release.scores import pixel_scores, scores_with_sources
from gmia_monai.typing import PathLike

__all__ = ["PixelFindings", "verify_pixels"]

_TOLERANCE = 2e-3  # networks round otherwise on another machine


@dataclass
class PixelFindings:
    """What was measured again.

    Attributes:
        n_images: released images that were looked at.
        n_identity: those whose sources were there, so that identity and drift could be measured.
        problems: what is wrong; ``file: what``.
    """

    n_images: int = 0
    n_identity: int = 0
    problems: list[str] = field(default_factory=list)


def verify_pixels(
    folder: PathLike,
    watch: Watching,
    find_text: TextFinder,
    tell: Callable[[int, int], None] = lambda done, total: None,
) -> PixelFindings:
    """Measures the scores of every released image again; writes nothing.

    Args:
        folder: of a release with its ledger, whose chain is not looked at here.
        watch: networks of the gate; others give other scores.
        find_text: looks for text.
        tell: is told how many images of how many are done.

    Raises:
        IntegrityError: ``GM-W301`` for a ledger that is damaged.
        ResourceError: ``GM-R089`` without a detector of text.
    """
    root, found = Path(folder), PixelFindings()
    entries = read_ledger(root / "ledger.jsonl", None)
    runs = [entry.body for entry in entries if entry.kind == "run"]
    if not runs:
        return found
    limits, size = runs[-1].get("limits", {}), int(runs[-1].get("image_size", 0))
    last = {e.body.get("handle"): e.body for e in entries if e.kind == "instance"}
    released = [body for body in last.values() if body.get("state") == "released"]
    if dict(runs[-1].get("watching", {})) != dict(watch.weights):
        found.problems.append("ledger.jsonl: the networks of the gate were others than those that are here")
    sources = _Sources(root.with_name(root.name + ".work") / "intake")
    with Decoder() as decoder:
        for number, body in enumerate(released):
            file = str(body.get("file"))
            try:
                levels = decoder.decode((root / file).read_bytes()).levels
            except (OSError, InputError):
                found.problems.append(f"{file}: the image cannot be read")
            else:
                found.n_images += 1
                scores = pixel_scores(levels, size, watch, find_text)
                known = sources.of(str(body.get("handle")))
                if known is not None:
                    found.n_identity += 1
                    scores |= scores_with_sources(levels, *known, watch)
                overruled = set(body.get("overruled", ()))
                left = {k: v for k, v in limits.items() if not overruled & set(HELD_BY_CHECK.get(k, ()))}
                found.problems += [f"{file}: {what}" for what in _wrong(scores, body.get("scores", {}), left)]
            tell(number + 1, len(released))
    return found


class _Sources:
    """What was kept of the sources, by patient, as far as it is there."""

    def __init__(self, folder: Path) -> None:
        self._known: dict[str, Path] = {path.stem: path for path in sorted(folder.glob("*/*.npz"))}
        self._of_patient: dict[str, list[str]] = {}
        for handle, path in self._known.items():
            found = read_instance(path)
            if found is not None and found.image is not None:
                self._of_patient.setdefault(found.patient, []).append(handle)

    def of(self, handle: str) -> tuple[np.ndarray, np.ndarray] | None:
        """The image of an instance and all images of its patient; None where it is not there."""
        own = read_instance(self._known[handle]) if handle in self._known else None
        if own is None or own.image is None:
            return None
        others = [read_instance(self._known[name]) for name in self._of_patient[own.patient]]
        return own.image, np.stack([other.image for other in others if other is not None and other.image is not None])


def _wrong(scores: Mapping[str, list[float]], said: Mapping[str, Any], limits: Mapping[str, Any]) -> Iterator[str]:
    """What speaks against scores: limits of the gate, and what the ledger names."""
    for name, values in scores.items():
        low, high = limits.get(name, (None, None))
        ends = (min(values), max(values))
        if not np.isfinite(values).all():
            yield f"{name}: no number"
        elif (low is not None and ends[0] < low - _TOLERANCE) or (high is not None and ends[1] > high + _TOLERANCE):
            yield f"{name}: beyond the limits of the gate"
        elif name not in said or not np.allclose(ends, said[name], rtol=0.0, atol=_TOLERANCE):
            yield f"{name}: not the score that the ledger names"
