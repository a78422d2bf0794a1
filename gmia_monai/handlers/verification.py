"""Validation metric of identity encoders: ROC AUC of T1 verification."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ignite.distributed as idist
import torch.nn.functional as F
from ignite.metrics import EpochMetric
from torch import Tensor

from gmia_monai.data.cohort import Cohort
from gmia_monai.data.pairs import t1_pairs
from gmia_monai.metrics.verification import roc_auc

__all__ = ["VerificationAUC"]


class VerificationAUC(EpochMetric):
    """AUC of the cosine over all T1 pairs of a cohort, patients of equal weight.

    Args:
        cohort: the images in the order in which the evaluator sees them.
        negatives: ``random`` or ``matched`` (see :func:`gmia_monai.data.t1_pairs`).
        output_transform: takes embeddings out of the evaluator's output; twice, as Ignite wants a pair.
    """

    def __init__(
        self, cohort: Cohort, negatives: str = "random", output_transform: Callable[[Any], Any] = lambda x: x
    ) -> None:
        self.n_images = len(cohort)
        self.pairs = t1_pairs(cohort, negatives=negatives, negatives_per_positive=20, seed=0)
        super().__init__(self._auc, output_transform=output_transform, check_compute_fn=False)

    def _auc(self, embeddings: Tensor, _: Tensor) -> float:
        if len(embeddings) == self.n_images * idist.get_world_size():
            embeddings = embeddings[: self.n_images]  # each of several processes embeds all images
        if len(embeddings) != self.n_images:
            raise RuntimeError(f"{len(embeddings)} embeddings for {self.n_images} images: do not shuffle or drop")
        e = F.normalize(embeddings.float(), dim=1).cpu().numpy()
        scores = (e[self.pairs.first] * e[self.pairs.second]).sum(axis=1)
        return float(roc_auc(scores, self.pairs.same, self.pairs.weight))
