"""Released beside released: who holds the anonymizer lets it look at the real image, too.

What a system does to images of a person, it does to the real image at hand as well; where it has no chance in it, a
fresh release of the very source is the released image itself. Embeddings of both are then of one kind, and every attack
that only embeds images can use them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from gmia_monai.attacks.attackers.base import EmbeddingAttacker
from gmia_monai.attacks.attackers.embedder import NetworkEmbedder
from gmia_monai.attacks.attackers.trained import load_attacker_network
from gmia_monai.attacks.base import AttackerKnowledge, Pixels
from gmia_monai.data.threats import threat_pairs
from gmia_monai.errors import UsageError
from gmia_monai.metrics.verification import roc_auc
from gmia_monai.typing import PathLike

__all__ = ["SEED_STEP", "FreshReleaseAttacker"]

SEED_STEP = 7919  # keeps the owner's seeds apart from those of the releases that are judged


class FreshReleaseAttacker(EmbeddingAttacker):
    """Cosine of the released image and a fresh release of the real one, under the optimiser's encoder or the ArcFace
    one, whichever tells more on V2 (T1, matched negatives).

    Args:
        weights: weights files of the ArcFace attacker, one a seed; may be empty where the knowledge holds an encoder.
        number: of the fresh release; ``owner`` makes others to learn from.
        device: where networks run.
    """

    def __init__(self, weights: Sequence[PathLike], number: int = 2, device: str = "cpu") -> None:
        super().__init__("owner_fresh")
        self.weights = tuple(weights)
        self.number = number
        self.device = device
        self._known: dict[bytes, int] = {}
        self._fresh: list[np.ndarray] = []

    def fit(self, knowledge: AttackerKnowledge, seed: int) -> None:
        """Chooses the encoder; nothing is learned.

        Raises:
            UsageError: ``GM-U318`` where the attacker does not hold the anonymizer, ``GM-U313`` without an encoder.
        """
        if knowledge.anonymize is None:
            raise UsageError("GM-U318", "the owner attacker needs the anonymizer of the release that is judged")
        anonymize, number = knowledge.anonymize, (seed + 1) * SEED_STEP + self.number
        self._known.clear()
        self._fresh.clear()
        judged = knowledge.choice
        pairs = threat_pairs(judged.real.cohort, "T1", "matched", judged.released)
        best = -1.0
        for embed in self._encoders(knowledge, seed):
            self.use(embed, lambda pixels, e=embed: e(self._of(pixels, anonymize, number)))
            found = abs(roc_auc(self.score(judged, pairs, "T1"), pairs.same, pairs.weight) - 0.5)
            if found > best or best < 0.0:
                best, chosen = found, (self.embed_released, self.embed_real)
        self.use(*chosen)

    def _encoders(self, knowledge: AttackerKnowledge, seed: int) -> list[Callable[[Pixels], np.ndarray]]:
        found = [] if knowledge.frozen is None else [knowledge.frozen]
        if self.weights or not found:
            found.append(NetworkEmbedder(load_attacker_network(self.weights, seed), device=self.device))
        return found

    def _of(self, pixels: Pixels, anonymize: Callable[[Pixels, int], Pixels], number: int) -> Pixels:
        """Fresh releases; of an image that was seen before, the same again."""
        keys = [image.tobytes() for image in pixels]
        new = [i for i, key in enumerate(keys) if key not in self._known]
        if new:
            made = anonymize(pixels if len(new) == len(pixels) else pixels[new], number)
            for i, image in zip(new, made, strict=True):
                self._known[keys[i]] = len(self._fresh)
                self._fresh.append(image)
        return np.stack([self._fresh[self._known[key]] for key in keys])
