"""A linear map from embeddings of released images to embeddings of the real images behind them: seconds to fit.

Ridge regression on the attacker's own releases undoes what a system does to an embedding as far as that is linear, a
turn to the far side included. The real side is reduced to the directions in which people differ more than their images
do (Fisher's discriminants with a shrunken within-person covariance, on real images of S and A). An attacker that is
refitted by gradients has to beat this one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float64, Int
from scipy.linalg import eigh

from gmia_monai.attacks.attackers.base import EmbeddingAttacker, cosine_score
from gmia_monai.attacks.attackers.embedder import NetworkEmbedder
from gmia_monai.attacks.attackers.trained import load_attacker_network
from gmia_monai.attacks.base import AttackerKnowledge, Embed, Pixels
from gmia_monai.data.threats import threat_pairs
from gmia_monai.errors import UsageError
from gmia_monai.metrics.verification import roc_auc
from gmia_monai.typing import PathLike

__all__ = ["LinearAttacker"]

_SHRINKAGE = (0.3, 3.0)  # of the mean variance within persons
_DIRECTIONS = (64, 128, 256)
_RIDGE = (0.1, 1.0, 10.0)  # of the mean squared length along one axis of the released embeddings


@dataclass(frozen=True, eq=False)
class _Maps:
    """Maps of either side into one space."""

    released: _Affine
    real: _Affine


class LinearAttacker(EmbeddingAttacker):
    """Cosine after a linear map of either side; shrinkage, ridge and number of directions are chosen on V2.

    Args:
        name: of the attacker.
        weights: weights files of the network that embeds, one a seed; empty: the optimiser's own encoder.
        device: where the network runs.
    """

    def __init__(self, name: str, weights: Sequence[PathLike] = (), device: str = "cpu") -> None:
        super().__init__(name)
        self.weights = tuple(weights)
        self.device = device
        self.compare = cosine_score

    def fit(self, knowledge: AttackerKnowledge, seed: int) -> None:
        """Solves for the maps on releases of A and real images of S and A; keeps the best on V2 under T1.

        Raises:
            UsageError: ``GM-U303`` for a release without one source an image, ``GM-U312`` without an encoder.
        """
        embed = self._embedder(knowledge, seed)
        source = knowledge.own.release.only_source()
        released, behind = embed(knowledge.own.release.pixels), embed(knowledge.own.real.pixels)[source]
        training = embed(knowledge.training.pixels)
        judged = knowledge.choice
        pairs = threat_pairs(judged.real.cohort, "T1", "matched", judged.released, 20)
        best, chosen = -1.0, None
        for maps in _maps(training, knowledge.training.cohort.patient_index, released, behind):
            self._take(embed, maps)
            found = roc_auc(self.score(judged, pairs, "T1"), pairs.same, pairs.weight)
            if chosen is None or found > best:  # where V2 has no pairs, the first
                best, chosen = found, maps
        assert chosen is not None
        self._take(embed, chosen)

    def _embedder(self, knowledge: AttackerKnowledge, seed: int) -> Embed:
        if self.weights:
            return NetworkEmbedder(load_attacker_network(self.weights, seed), device=self.device)
        if knowledge.frozen is None:
            raise UsageError("GM-U312", f"{self.name} needs the encoder of the system that is judged")
        return knowledge.frozen

    def _take(self, embed: Embed, maps: _Maps) -> None:
        def of(side: _Affine) -> Callable[[Pixels], np.ndarray]:
            return lambda pixels: side(embed(pixels)).astype(np.float32)

        self.use(of(maps.released), of(maps.real))


def _maps(
    training: Float[np.ndarray, "t d"],
    person: Int[np.ndarray, "t"],
    released: Float[np.ndarray, "a d"],
    behind: Float[np.ndarray, "a d"],
) -> Iterator[_Maps]:
    """The maps of each setting, from embeddings of real images with their persons, and of releases beside sources."""
    training, released, behind = (_unit(x.astype(np.float64)) for x in (training, released, behind))
    middle, middle_released = training.mean(0), released.mean(0)
    u, s, vt = np.linalg.svd(released - middle_released, full_matrices=False)
    dims = training.shape[1]
    scale = float(np.square(s).sum()) / dims
    for shrinkage in _SHRINKAGE:
        axes = _discriminants(training - middle, person, shrinkage)
        for n in dict.fromkeys(min(n, dims) for n in _DIRECTIONS):
            project = axes[:, :n]
            target = u.T @ (behind - middle) @ project
            for ridge in _RIDGE:
                weight = vt.T @ (target * (s / (np.square(s) + ridge * scale))[:, None])
                yield _Maps(_Affine(middle_released, weight), _Affine(middle, project))


def _discriminants(centred: Float64[np.ndarray, "t d"], person: Int[np.ndarray, "t"], shrinkage: float) -> np.ndarray:
    """Directions, the one in which people differ most beside their own images first, shape ``[d, d]``."""
    dims = centred.shape[1]
    _, member, count = np.unique(person, return_inverse=True, return_counts=True)
    means = np.zeros((len(count), dims))
    np.add.at(means, member, centred)
    inner = (centred - (means / count[:, None])[member])[count[member] > 1]
    within = inner.T @ inner / max(1, len(inner) - int((count > 1).sum()))
    total = centred.T @ centred / len(centred)
    level = float(np.trace(within)) / dims or 1e-12
    values, axes = eigh(total - within, within + shrinkage * level * np.eye(dims))
    return axes[:, np.argsort(-values)]


@dataclass(frozen=True, eq=False)
class _Affine:
    middle: Float64[np.ndarray, "d"]
    weight: Float64[np.ndarray, "d k"]

    def __call__(self, embeddings: Float[np.ndarray, "n d"]) -> Float64[np.ndarray, "n k"]:
        return (_unit(embeddings.astype(np.float64)) - self.middle) @ self.weight


def _unit(vectors: Float64[np.ndarray, "n d"]) -> Float64[np.ndarray, "n d"]:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
