"""A linear map from embeddings of released images to embeddings of the real images behind them: seconds to fit.

See :mod:`gmia_monai.attacks.linear_maps`. Attackers that are refitted by gradients may start from the same maps.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from gmia_monai.attacks.attackers.base import EmbeddingAttacker, cosine_score
from gmia_monai.attacks.attackers.embedder import NetworkEmbedder
from gmia_monai.attacks.attackers.trained import load_attacker_network
from gmia_monai.attacks.base import AttackerKnowledge, Embed, Pixels
from gmia_monai.attacks.linear_maps import AffineMap, LinearMaps, linear_maps
from gmia_monai.data.threats import threat_pairs
from gmia_monai.errors import UsageError
from gmia_monai.metrics.verification import roc_auc
from gmia_monai.typing import PathLike

__all__ = ["LinearAttacker", "use_best_maps"]


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
        use_best_maps(
            self,
            embed,
            linear_maps(training, knowledge.training.cohort.patient_index, released, behind),
            lambda: roc_auc(self.score(judged, pairs, "T1"), pairs.same, pairs.weight),
        )

    def _embedder(self, knowledge: AttackerKnowledge, seed: int) -> Embed:
        if self.weights:
            return NetworkEmbedder(load_attacker_network(self.weights, seed), device=self.device)
        if knowledge.frozen is None:
            raise UsageError("GM-U312", f"{self.name} needs the encoder of the system that is judged")
        return knowledge.frozen


def use_best_maps(
    attacker: EmbeddingAttacker, embed: Embed, candidates: Iterable[LinearMaps], found: Callable[[], float]
) -> tuple[LinearMaps, float]:
    """Lets an attacker compare by cosine behind the best of several maps.

    Args:
        attacker: who uses the maps.
        embed: what they map.
        candidates: at least one.
        found: a figure of the attacker as it is when called, better when higher.

    Returns:
        the best maps and their figure; the first ones where the figure is no number.
    """
    best, chosen = math.nan, None
    for maps in candidates:
        _use(attacker, embed, maps)
        figure = found()
        if chosen is None or figure > best:  # where V2 has no pairs, the first
            best, chosen = figure, maps
    assert chosen is not None
    _use(attacker, embed, chosen)
    return chosen, best


def _use(attacker: EmbeddingAttacker, embed: Embed, maps: LinearMaps) -> None:
    def of(side: AffineMap) -> Callable[[Pixels], np.ndarray]:
        return lambda pixels: side(embed(pixels)).astype(np.float32)

    attacker.compare = cosine_score
    attacker.use(of(maps.released), of(maps.real))
