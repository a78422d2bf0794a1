"""Releases of one kind: what is made from single images and what is made from several is judged by other attacks."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from gmia_monai.attacks.base import Judged
from gmia_monai.errors import UsageError

__all__ = ["of_one_kind"]


def of_one_kind(parts: Mapping[str, Judged], role_of: Mapping[str, str]) -> tuple[dict[str, Judged], dict[str, str]]:
    """The releases of all purposes, each of images made from single ones or of images made from several.

    A few images of the other kind must not decide which attacks there are: where most images have one source, those
    with several are left out; else they stay together.

    Args:
        parts: release of each purpose.
        role_of: role of each purpose.

    Returns:
        the releases, and notes by topic on what was left out.

    Raises:
        UsageError: ``GM-U376`` where the kinds of purposes then differ: attackers would learn from another kind than
            they judge.
    """
    kept, lost = {}, []
    for purpose, part in parts.items():
        several = np.array([len(sources) > 1 for sources in part.release.sources], dtype=bool)
        if several.any() and 2 * several.sum() < len(several):
            lost.append(f"{several.sum()} of {len(several)} of role {role_of[purpose]}")
            part = Judged(part.real, part.release.take(np.flatnonzero(~several)))
        kept[purpose] = part
    kinds = {role_of[purpose]: part.release.kind for purpose, part in kept.items()}
    if len(set(kinds.values())) > 1:
        raise UsageError(
            "GM-U376",
            "the release is of different kinds in different roles",
            got=", ".join(f"{role} {kind}" for role, kind in kinds.items()),
            expected="images made alike in all roles: each from one image, or from several",
            next_step="anonymize the whole manifest by one system, and give its links whole",
        )
    if not lost:
        return kept, {}
    return kept, {
        "several_sources": f"released images with several sources, left out since most have one: {', '.join(lost)}"
    }
