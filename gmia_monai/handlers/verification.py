"""Validation metric of identity encoders: ROC AUC of T1 verification."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import ignite.distributed as idist
import torch
import torch.nn.functional as F
from ignite.metrics import EpochMetric
from torch import Tensor

from gmia_monai.data.cohort import Cohort
from gmia_monai.data.pairs import t1_pairs
from gmia_monai.metrics.verification import roc_auc

__all__ = ["VerificationAUC"]


class VerificationAUC(EpochMetric):
    """AUC of the cosine, or of another comparison, over all T1 pairs of a cohort, as :class:`gmia_monai.data.Pairs`
    weighs them.

    Args:
        cohort: the images in the order in which the evaluator sees them.
        negatives: ``random`` or ``matched`` (see :func:`gmia_monai.data.t1_pairs`).
        compare: maps two sets of embeddings to the score of each pair; None for the cosine.
        output_transform: takes embeddings out of the evaluator's output; twice, as Ignite wants a pair.
    """

    def __init__(
        self,
        cohort: Cohort,
        negatives: str = "random",
        output_transform: Callable[[Any], Any] = lambda x: x,
        compare: Callable[[Tensor, Tensor], Tensor] | None = None,
    ) -> None:
        self.compare = compare or F.cosine_similarity
        self.n_images = len(cohort)
        self.pairs = t1_pairs(cohort, negatives=negatives, negatives_per_positive=20, seed=0)
        super().__init__(self._auc, output_transform=output_transform, check_compute_fn=False)

    def _auc(self, embeddings: Tensor, _: Tensor) -> float:
        if len(embeddings) == self.n_images * idist.get_world_size():
            embeddings = embeddings[: self.n_images]  # each of several processes embeds all images
        if len(embeddings) != self.n_images:
            raise RuntimeError(f"{len(embeddings)} embeddings for {self.n_images} images: do not shuffle or drop")
        e = embeddings.float()
        with torch.no_grad():
            scores = [self.compare(e[i], e[j]) for i, j in zip(*self._chunks(), strict=True)]
        return float(roc_auc(torch.cat(scores).double().cpu().numpy(), self.pairs.same, self.pairs.weight))

    def _chunks(self) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
        return torch.from_numpy(self.pairs.first).split(1 << 15), torch.from_numpy(self.pairs.second).split(1 << 15)
