"""An attacker with several images of a person: noise in one comparison is averaged away.

Each candidate is known by the mean embedding of all real images of that person (in the folder), the source of the
released image left out under T1. Where the policy says that released images of a patient carry one pseudonym, these
are averaged, too.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from jaxtyping import Float, Float64, Int

from gmia_monai.attacks.attackers.base import EmbeddingAttacker
from gmia_monai.attacks.base import AttackerKnowledge, Judged
from gmia_monai.data.pairs import Pairs

__all__ = ["AveragingAttacker"]


class AveragingAttacker:
    """Another attacker, with means in the place of single embeddings.

    Args:
        base: attacker that embeds; its cosine or comparison is kept.
    """

    name = "averaging"

    def __init__(self, base: EmbeddingAttacker) -> None:
        self.base = base

    def fit(self, knowledge: AttackerKnowledge, seed: int) -> None:
        """Fits the other attacker."""
        self.base.fit(knowledge, seed)

    def score(self, judged: Judged, pairs: Pairs, threat: str) -> Float64[np.ndarray, "n"]:
        """One score a pair; under T3 that of the other attacker, for nothing but the two images is held."""
        if threat == "T3":
            return self.base.score(judged, pairs, threat)
        released, real = (_unit(e.astype(np.float64)) for e in self.base.embeddings(judged))
        group = _groups(judged)
        # Under T1 the real image of the release at hand is not among those that the attacker holds.
        right = _mean_without(real, np.ones(len(real)), group, pairs.second, pairs.first if threat == "T1" else None)
        left = released[pairs.first]
        if judged.release.policy == "pseudonymous":
            mask = judged.released.astype(np.float64)
            left = _mean_without(released, mask, group, pairs.first, pairs.second if threat == "T1" else None)
        rows = np.arange(len(pairs))
        places = replace(pairs, first=rows, second=rows)
        return self.base.compare_positions(left.astype(np.float32), right.astype(np.float32), places)


def _groups(judged: Judged) -> Int[np.ndarray, "n"]:
    """One number for each patient and folder."""
    cohort = judged.real.cohort
    folders = {name: i for i, name in enumerate(cohort.folders)}
    return cohort.patient_index * len(folders) + np.array([folders[r.folder] for r in cohort], dtype=np.int64)


def _mean_without(
    embeddings: Float[np.ndarray, "n d"],
    counted: Float[np.ndarray, "n"],
    group: Int[np.ndarray, "n"],
    member: Int[np.ndarray, "p"],
    without: Int[np.ndarray, "p"] | None,
) -> Float[np.ndarray, "p d"]:
    """Mean embedding of the group of each ``member``, without one image of it: the given one if it is of the same
    group, any other one if not. Means of fewer images are noisier, and the number must not tell whom they are of."""
    sums = np.zeros((int(group.max()) + 1, embeddings.shape[1]))
    np.add.at(sums, group, embeddings * counted[:, None])
    total = sums[group[member]]
    if without is not None:
        without = np.where(group[without] == group[member], without, _another(group, member))
        same = (group[without] == group[member]) & (counted[without] > 0) & (without != member)
        total = total - np.where(same[:, None], embeddings[without], 0.0)
        alone = np.bincount(group, counted, len(sums))[group[member]] - same < 0.5
        total[alone] = embeddings[member[alone]]
    return _unit(total)


def _another(group: Int[np.ndarray, "n"], member: Int[np.ndarray, "p"]) -> Int[np.ndarray, "p"]:
    """A random other image of the group of each member; the member itself where it is alone."""
    order = np.argsort(group, kind="stable")
    first = np.searchsorted(group[order], group[member], side="left")
    count = np.searchsorted(group[order], group[member], side="right") - first
    place = np.empty(len(group), dtype=np.int64)
    place[order] = np.arange(len(group))
    step = np.random.default_rng(0).integers(1, np.maximum(count, 2))
    return order[first + (place[member] - first + step) % count]


def _unit(vectors: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n d"]:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
