"""Groups of k different patients, for systems that make one image from several: one image a patient, equal groups.

The published k-same systems count images; where a patient has several, k images may be one person.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int
from scipy.spatial.distance import cdist

from gmia_monai.data.cohort import Cohort
from gmia_monai.data.release import RealImages, Release
from gmia_monai.errors import UsageError
from gmia_monai.typing import IntArray

__all__ = ["diversity_figures", "label_diversity", "majority_labels", "one_image_per_patient", "same_size_clusters"]


def one_image_per_patient(real: RealImages, seed: int = 0) -> IntArray:
    """Positions of one image of each patient: the one whose pixels and ``seed`` have the smallest SHA-256.

    They come in the order of these hashes, so that neither the choice nor what follows from the order depends on how
    the images were listed; only patients with the same image keep the order of the list.

    Args:
        real: images of any number of patients, in [0, 1].
        seed: another one chooses other images.
    """
    found: dict[int, tuple[bytes, int]] = {}
    for i, patient in enumerate(real.cohort.patient_index.tolist()):
        pixels = np.ascontiguousarray(real.pixels[i], dtype=np.float32)
        rank = (hashlib.sha256(f"{seed} ".encode() + pixels.tobytes()).digest(), i)
        found[patient] = min(found.get(patient, rank), rank)
    return np.array([i for _, i in sorted(found.values())], dtype=np.int64)


def same_size_clusters(points: Float[np.ndarray, "n d"], k: int) -> Int[np.ndarray, "clusters k"]:
    """Groups of ``k`` points each, as k-SALSA makes them (Jeon et al., ECCV 2022), by Euclidean distance.

    The point with the largest sum of distances to all that are left takes its ``k - 1`` nearest of them; then again.
    Of equal ones the first counts. Points that remain at the end, fewer than ``k``, are in no group.

    Args:
        points: codes, one a patient.
        k: points of a group, at least 2.

    Returns:
        positions; each group begins with the point that it was formed around, its others come by distance.

    Raises:
        UsageError: ``GM-U067`` for a ``k`` below 2, or for fewer than ``k`` points.
    """
    if not 2 <= k <= len(points):
        raise UsageError(
            "GM-U067",
            "no groups of k different patients can be formed",
            got=f"k = {k}, {len(points)} patients",
            expected="k of at least 2, and at least k patients",
            next_step="give more patients, or a smaller k",
        )
    distance = cdist(points, points)
    left = np.ones(len(points), dtype=bool)
    total = distance.sum(axis=1)
    groups = []
    for _ in range(len(points) // k):
        first = int(np.where(left, total, -np.inf).argmax())
        left[first] = False
        near = np.where(left, distance[first], np.inf)
        group = np.concatenate([[first], np.argsort(near, kind="stable")[: k - 1]])
        left[group] = False
        total -= distance[:, group].sum(axis=1)
        groups.append(group)
    return np.array(groups, dtype=np.int64)


def label_diversity(release: Release, cohort: Cohort) -> IntArray:
    """Number of different sets of findings among the sources of each released image.

    The smallest one is the l of distinct l-diversity (Machanavajjhala et al., TKDD 2007): at 1, all sources share their
    findings, and who knows that somebody is among them knows these. An uncertain finding counts as absent; sources in
    which nobody looked for findings are left out.

    Args:
        release: its sources are positions in ``cohort``.
        cohort: the real images.
    """
    labels = cohort.label_matrix()
    known = np.array([record.labels is not None for record in cohort.records], dtype=bool)
    return np.array(
        [len({labels[i].tobytes() for i in source if known[i]}) for source in release.sources], dtype=np.int64
    )


def majority_labels(cohort: Cohort, groups: Sequence[Sequence[int]]) -> Float[np.ndarray, "groups k"] | None:
    """Findings that half of the known labels of a group's images or more have, to be released with its image.

    ``nan`` where nobody looked for a finding; None for a cohort without findings.

    Args:
        cohort: the real images.
        groups: positions of the images of each group.
    """
    if not cohort.findings:
        return None
    labels = cohort.label_matrix().astype(np.float64)
    found = np.full((len(groups), labels.shape[1]), np.nan)
    for i, group in enumerate(groups):
        rows = labels[list(group)]
        known = (~np.isnan(rows)).sum(axis=0)
        found[i, known > 0] = np.nansum(rows, axis=0)[known > 0] / known[known > 0] >= 0.5
    return found


def diversity_figures(sets: Int[np.ndarray, "n"]) -> dict[str, float]:
    """``label_diversity_min`` and ``label_diversity_mean`` of :func:`label_diversity`."""
    if not len(sets):
        return {}
    return {"label_diversity_min": float(sets.min()), "label_diversity_mean": round(float(sets.mean()), 3)}
