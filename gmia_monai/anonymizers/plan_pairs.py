"""Who is paired with whom by PLAN: two images of different patients that share their findings, where possible."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence

import numpy as np
from jaxtyping import Float, Int

from gmia_monai.data.cohort import Cohort

__all__ = ["draw_pairs", "shared_labels"]


def draw_pairs(cohort: Cohort, labels: Float[np.ndarray, "n k"], seed: int = 0) -> Int[np.ndarray, "p 2"]:
    """Pairs of positions of two patients, each image in one at most.

    Images are paired within a folder and with the same findings; who is left over, with whom also has any finding or
    none, as the published pairs share one of two classes; then within the folder, and in the end with anybody.

    Args:
        cohort: images.
        labels: findings of each, 1 present, 0 absent, nan where nobody looked.
        seed: of all draws.
    """
    rng = np.random.default_rng(seed)
    present = np.nan_to_num(labels, nan=-1.0)
    folders = [record.folder for record in cohort]
    sets: list[Hashable] = [(folder, row.tobytes()) for folder, row in zip(folders, present, strict=True)]
    any_finding: list[Hashable] = list(zip(folders, (present > 0).any(axis=1).tolist(), strict=True))
    pairs: list[tuple[int, int]] = []
    left = list(range(len(cohort)))
    for groups in (sets, any_finding, folders, [""] * len(cohort)):
        members: dict[Hashable, list[int]] = {}
        for i in left:
            members.setdefault(groups[i], []).append(i)
        left = sorted(i for images in members.values() for i in _pair(images, cohort.patient_index, pairs, rng))
    return np.array(pairs, dtype=np.int64).reshape(-1, 2)


def shared_labels(labels: Float[np.ndarray, "n k"], pairs: Int[np.ndarray, "p 2"]) -> Float[np.ndarray, "p k"]:
    """What both images of a pair are said to have or not to have; nan for a finding in which they differ."""
    first, second = labels[pairs[:, 0]], labels[pairs[:, 1]]
    return np.where(first == second, first, np.nan).astype(labels.dtype)


def _pair(
    images: Sequence[int],
    patients: Int[np.ndarray, "n"],
    pairs: list[tuple[int, int]],
    rng: np.random.Generator,
) -> list[int]:
    """Adds random pairs of ``images`` to ``pairs``; gives the images that are left.

    An image of the patient who has most left goes first, so that nobody is left over who need not be.
    """
    waiting = [int(i) for i in rng.permutation(images)]
    while len({int(patients[i]) for i in waiting}) > 1:
        (most, _), *_ = Counter(int(patients[i]) for i in waiting).most_common(1)
        one = next(i for i in waiting if patients[i] == most)
        others = [i for i in waiting if patients[i] != most]
        two = others[int(rng.integers(len(others)))]
        pairs.append((one, two))
        waiting = [i for i in waiting if i not in (one, two)]
    return waiting
