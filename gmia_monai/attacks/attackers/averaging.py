"""An attacker with several images of a person, or several releases of one image: what differs is averaged away.

A person is known by the mean embedding of all their real images (in the folder), the source of the released image left
out under T1. An image that was released several times is known by the mean of its releases; released images of a
patient are averaged, too, unless the policy says that nothing links them. Under T1 no exposure may stand on both sides,
which would be T2: the mean of the released images then meets the one real image, whichever of the two ways of averaging
tells more on V2.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from jaxtyping import Float, Float32, Float64, Int
from scipy.sparse import csr_array

from gmia_monai.attacks.attackers.base import Attacker, CombiningAttacker, EmbeddingAttacker
from gmia_monai.attacks.base import AttackerKnowledge, Judged
from gmia_monai.data.pairs import Pairs
from gmia_monai.data.threats import THREATS, threat_pairs
from gmia_monai.metrics.verification import roc_auc

__all__ = ["AveragingAttacker"]

_CHUNK = 8192  # pairs whose means are held at once


class AveragingAttacker(CombiningAttacker):
    """Another attacker, with means in the place of single embeddings; which one, is chosen on V2.

    Args:
        makers: name to a function that makes an attacker that embeds; its cosine or comparison is kept.

    Attributes:
        chosen: after :meth:`fit`, threat model to the attacker whose embeddings are averaged, and of which side.
    """

    name = "averaging"

    def __init__(self, makers: Mapping[str, Callable[[], Attacker]]) -> None:
        super().__init__(makers)
        self._attackers: dict[str, EmbeddingAttacker] = {}
        self.chosen: dict[str, tuple[str, str]] = {}

    def fit(self, knowledge: AttackerKnowledge, seed: int) -> None:
        """Fits the other attackers, and chooses the one whose means tell most on V2, near or far."""
        judged = knowledge.choice
        others = self.others(knowledge, seed)
        self._attackers = {name: a for name, a in others.items() if isinstance(a, EmbeddingAttacker)}
        for threat in THREATS:
            pairs = threat_pairs(judged.real.cohort, threat, "matched", judged.released)
            candidates = [(name, side) for name in self._attackers for side in _sides(judged, threat)]
            self.chosen[threat] = candidates[0]
            if len(candidates) > 1 and pairs.n_positives and pairs.n_negatives:
                found = {each: self._score(*each, judged, pairs, threat) for each in candidates}
                distance = {each: abs(roc_auc(s, pairs.same, pairs.weight) - 0.5) for each, s in found.items()}
                self.chosen[threat] = max(distance, key=lambda each: distance[each])

    def score(self, judged: Judged, pairs: Pairs, threat: str) -> Float64[np.ndarray, "n"]:
        """One score a pair; under T3 nothing but the two images is held."""
        return self._score(*self.chosen[threat], judged, pairs, threat)

    def all_scores(self, judged: Judged, pairs: Pairs, threat: str) -> Float64[np.ndarray, "n k"]:
        """Scores by the means of every attacker, of each side: what others can weigh. Under T3 the chosen one alone,
        as the other attackers compare the same two images."""
        if threat == "T3":
            return self.score(judged, pairs, threat)[:, None]
        candidates = [(name, side) for name in self._attackers for side in _sides(judged, threat)]
        return np.stack([self._score(*each, judged, pairs, threat) for each in candidates], axis=1)

    def _score(self, name: str, side: str, judged: Judged, pairs: Pairs, threat: str) -> Float64[np.ndarray, "n"]:
        attacker = self._attackers[name]
        _, real = attacker.embeddings(judged)
        released = _mean_release(attacker, judged)
        if threat == "T3":
            return attacker.compare_positions(released, released, pairs)
        released, real = (_unit(e.astype(np.float64)).astype(np.float32) for e in (released, real))
        group = _groups(judged)
        lefts, rights = _Means(released), _Means(real)
        if side in ("real", "both"):
            left_out = pairs.first if threat == "T1" else None
            rights = _Means(real, np.ones(len(real)), group, pairs.second, left_out)
        if side in ("released", "both"):
            mask, left_out = judged.released.astype(np.float64), pairs.second if threat == "T1" else None
            lefts = _Means(released, mask, group, pairs.first, left_out)
        scores = [np.zeros(0)]
        for start in range(0, len(pairs), _CHUNK):
            rows = np.arange(start, min(start + _CHUNK, len(pairs)))
            left, right = lefts.of(pairs.first, rows), rights.of(pairs.second, rows)
            scores.append(attacker.compare_rows(left, right))
        return np.concatenate(scores)


def _sides(judged: Judged, threat: str) -> tuple[str, ...]:
    """Whose images may be averaged: real, released, or both."""
    if judged.release.policy in ("unlinkable", "k_anonymous"):
        return ("real",)
    return ("real", "released") if threat == "T1" else ("both",)


def _mean_release(attacker: EmbeddingAttacker, judged: Judged) -> Float[np.ndarray, "n d"]:
    """Embedding of the released image of each real one: the mean where it was released several times."""
    single, _ = attacker.embeddings(judged)
    source = judged.release.only_source()
    if len(np.unique(source)) == len(source) or attacker.embed_released is None:
        return single
    sums = np.zeros(single.shape)
    np.add.at(sums, source, _unit(attacker.embed_released(judged.release.pixels).astype(np.float64)))
    return _unit(sums).astype(np.float32)


def _groups(judged: Judged) -> Int[np.ndarray, "n"]:
    """One number for each patient and folder."""
    cohort = judged.real.cohort
    folders = {name: i for i, name in enumerate(cohort.folders)}
    return cohort.patient_index * len(folders) + np.array([folders[r.folder] for r in cohort], dtype=np.int64)


class _Means:
    """Mean embedding of the group of each member, without one image of it: the given one if it is of the same group,
    any other one if not. Means of fewer images are noisier, and the number must not tell whom they are of.

    Args:
        embeddings: unit embeddings by position.
        counted: which of them count, 0 or 1; None: nothing is averaged, a member stands for itself.
        group: number of each embedding's group.
        member: the member of each pair.
        without: what is left out for each pair; None: nothing.
    """

    def __init__(
        self,
        embeddings: Float32[np.ndarray, "n d"],
        counted: Float[np.ndarray, "n"] | None = None,
        group: Int[np.ndarray, "n"] | None = None,
        member: Int[np.ndarray, "p"] | None = None,
        without: Int[np.ndarray, "p"] | None = None,
    ) -> None:
        self.embeddings = embeddings
        self.group = None
        if counted is None or group is None or member is None:
            return
        self.group = group
        members = csr_array((counted, (group, np.arange(len(group)))), shape=(int(group.max()) + 1, len(group)))
        self._sums = (members @ embeddings.astype(np.float64)).astype(np.float32)
        self._less = np.zeros(len(member), dtype=bool)
        self._alone = np.zeros(len(member), dtype=bool)
        self._without = member
        if without is not None:
            self._without = np.where(group[without] == group[member], without, _another(group, member))
            same = group[self._without] == group[member]
            self._less = same & (counted[self._without] > 0) & (self._without != member)
            self._alone = np.bincount(group, counted, len(self._sums))[group[member]] - self._less < 0.5

    def of(self, member: Int[np.ndarray, "p"], rows: Int[np.ndarray, "r"]) -> Float32[np.ndarray, "r d"]:
        """Those of some pairs; ``member`` as given before."""
        who = member[rows]
        if self.group is None:
            return self.embeddings[who]
        total = self._sums[self.group[who]]
        less, alone = self._less[rows], self._alone[rows]
        total[less] -= self.embeddings[self._without[rows][less]]
        total[alone] = self.embeddings[who[alone]]
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
