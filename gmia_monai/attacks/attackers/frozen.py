"""The encoder that a system was optimised against: the published judge of GMIA, and the weakest attacker here."""

from __future__ import annotations

from gmia_monai.attacks.attackers.base import EmbeddingAttacker
from gmia_monai.attacks.base import AttackerKnowledge
from gmia_monai.errors import UsageError

__all__ = ["FrozenAttacker"]


class FrozenAttacker(EmbeddingAttacker):
    """Cosine under the optimiser's own identity encoder."""

    def __init__(self) -> None:
        super().__init__("frozen")

    def fit(self, knowledge: AttackerKnowledge, seed: int) -> None:
        """Takes the encoder; nothing is learned.

        Raises:
            UsageError: ``GM-U312`` where the knowledge holds no encoder.
        """
        if knowledge.frozen is None:
            raise UsageError("GM-U312", "the frozen attacker needs the encoder of the system that is judged")
        self.use(knowledge.frozen)
