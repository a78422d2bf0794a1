"""What a reader of the figures has to know beforehand: said in the log, and kept among the settings of the report."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gmia_monai.attacks.refit import RefitRecipe
from gmia_monai.evaluation.case import Case
from gmia_monai.evaluation.options import EVERYDAY
from gmia_monai.evaluation.suite import NO_SYSTEM, ONE_TO_ONE_ATTACKS, protocol_attackers
from gmia_monai.typing import PathLike
from gmia_monai.weights import read_index, read_metadata

__all__ = ["case_notes", "trained_sizes", "weaknesses"]

_log = logging.getLogger(__name__)


def case_notes(
    case: Case, weights: Sequence[PathLike] = (), left_out: Mapping[str, str] | None = None, weaker: str = ""
) -> dict[str, str]:
    """Warnings of a case by topic, each logged: a release without links, without a policy, of an unlike size; images
    and attackers that are left out.

    Args:
        case: what is judged.
        weights: files of trained attackers.
        left_out: attackers of the protocol that cannot be had, with what they lack; see
            :func:`gmia_monai.evaluation.suite.attackers_left_out`.
        weaker: what :func:`weaknesses` says.

    Raises:
        IntegrityError: ``GM-W001`` … ``GM-W005`` for weights that cannot be read.
    """
    release, notes = case.judged.release, dict(case.notes)
    if release.kind == "generated":
        notes["links"] = (
            "no released image has a source, so the release is judged as generated: no headline, and left out are "
            f"{', '.join(ONE_TO_ONE_ATTACKS)}; if its images were made from single ones, give --links"
        )
    if not release.policy:
        notes["policy"] = (
            "none given: released images of a patient are averaged as if one pseudonym stood above them, which is the "
            "harder case, and nothing says whether T3 is meant to be high (pseudonymous) or has to be at chance "
            "(unlinkable)"
        )
    side = case.judged.real.pixels.shape[-1]
    unlike = {name: size for name, size in trained_sizes(weights).items() if size != side}
    if unlike:
        sizes = ", ".join(map(str, sorted(set(unlike.values()))))
        notes["image_size"] = (
            f"images of {side} px, but {', '.join(unlike)} learned from images of {sizes} px: these attackers, and "
            f"what is refitted from them, are weaker than ones trained at {side} px would be"
        )
    if left_out:
        by_reason: dict[str, list[str]] = {}
        for name, reason in left_out.items():
            by_reason.setdefault(reason, []).append(name)
        told = "; ".join(f"{', '.join(names)} for lack of {reason}" for reason, names in by_reason.items())
        notes["attackers"] = f"left out, so that the worst is over fewer: {told}"
    if weaker:
        notes["strength"] = f"weaker than the protocol, so that no figure is called good: {weaker}"
    for topic, text in notes.items():
        _log.warning("%s: %s", topic, text)
    return notes


def weaknesses(
    attackers: Sequence[str], left_out: Mapping[str, str], seeds: Sequence[int], refit: Mapping[str, Any] | None
) -> str:
    """In what attackers fall short of what could be had and of the settings of everyday use; empty: in nothing.

    What a kind of release leaves no place for is no shortcoming; the system itself, which a folder does not hold, is
    one: who has it finds more.

    Args:
        attackers: that are used.
        left_out: as in :func:`case_notes`.
        seeds: of the attackers.
        refit: settings of :class:`gmia_monai.attacks.refit.RefitRecipe` that are not its own.
    """
    found = []
    missing = [name for name in protocol_attackers() if name not in attackers and name not in left_out]
    if missing:
        found.append(f"not asked for: {', '.join(missing)}")
    lacking = [name for name, reason in left_out.items() if "weights" in reason]
    if lacking:
        found.append(f"no weights for {', '.join(lacking)}")
    unheld = [name for name, reason in left_out.items() if reason == NO_SYSTEM]
    if unheld:
        found.append(f"nobody holds the system for {', '.join(unheld)}")
    if len(seeds) < len(EVERYDAY["seeds"]):
        found.append(f"{len(seeds)} attacker seed{'s' * (len(seeds) > 1)} instead of {len(EVERYDAY['seeds'])}")
    steps = RefitRecipe(**dict(refit or {})).steps
    if steps < EVERYDAY["refit"]["steps"]:
        found.append(f"{steps} updates a refit instead of {EVERYDAY['refit']['steps']}")
    return "; ".join(found)


def trained_sizes(weights: Sequence[PathLike]) -> dict[str, int]:
    """Side in px of the images that networks learned from, by the name of their file.

    From the arguments in the file; where they do not say it, from ``index.json`` beside it, if all that it records are
    of one size; else the file is left out.

    Raises:
        IntegrityError: ``GM-W001``, ``GM-W003``, ``GM-W005`` for what cannot be read.
    """
    sizes = {}
    for path in map(Path, weights):
        own = read_metadata(path).get("arguments", {}).get("image_size")
        index = read_index(path.parent).values()
        beside = {found for entry in index if (found := entry.get("arguments", {}).get("image_size")) is not None}
        if own is not None or len(beside) == 1:
            sizes[path.stem] = int(own if own is not None else beside.pop())
    return sizes
