"""Loss of the retrieval network: contrastive, with a memory of earlier batches (Packhäuser et al., 2022).

Contrastive loss: Hadsell et al., CVPR 2006. Memory across batches: Wang et al., CVPR 2020. Both are classes of
pytorch-metric-learning.
"""

from __future__ import annotations

from typing import Any

from pytorch_metric_learning.distances import LpDistance
from pytorch_metric_learning.losses import ContrastiveLoss, CrossBatchMemory

__all__ = ["MemoryContrastive"]


class MemoryContrastive(CrossBatchMemory):
    """Pulls images of one patient together, and pushes others apart to a margin, in Euclidean distance.

    Each image is compared with those of its batch and with the last ones before it, which are remembered as they were
    embedded then. Pairs of one patient weigh as much as all others; of both, those that cost nothing are not counted.

    Args:
        embedding_dim: length of the embeddings, which are taken as they are.
        memory_size: how many embeddings are remembered, at least a batch; 128 in the paper.
        margin: distance between strangers from which on they cost nothing; 1 in the paper.
    """

    def __init__(self, embedding_dim: int = 128, memory_size: int = 128, margin: float = 1.0) -> None:
        distance = LpDistance(normalize_embeddings=False, p=2)
        loss = ContrastiveLoss(pos_margin=0, neg_margin=margin, distance=distance)
        super().__init__(loss, embedding_size=embedding_dim, memory_size=memory_size)

    def get_extra_state(self) -> dict[str, Any]:
        """How far the memory is filled: a resumed run goes on with it."""
        return {"queue_idx": self.queue_idx, "has_been_filled": self.has_been_filled}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """As it was."""
        self.queue_idx, self.has_been_filled = int(state["queue_idx"]), bool(state["has_been_filled"])
