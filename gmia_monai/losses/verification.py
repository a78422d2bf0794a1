"""Verification loss of the Siamese network: is this pair of images of one person? (Packhäuser et al., 2022)

The published training takes a list of pairs. Here every pair within a batch is used: the features are computed once, so
that 64 images give 2,016 comparisons.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["PairBCE"]


class PairBCE(nn.Module):
    """Binary cross-entropy of all pairs in a batch; pairs of one patient weigh as much as all others together.

    Args:
        compare: maps two features to the logit that they are of one patient, e.g. ``SiameseVerifier.compare``.
    """

    def __init__(self, compare: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.compare = compare

    def forward(self, features: Tensor, labels: Tensor) -> Tensor:
        """Loss of features ``[b, d]`` with patient numbers ``[b]``; a kind of pair that is absent counts nothing."""
        i, j = torch.triu_indices(len(labels), len(labels), 1, device=features.device)
        logits = self.compare(features[i], features[j])
        same = labels[i] == labels[j]
        losses = F.binary_cross_entropy_with_logits(logits, same.to(logits), reduction="none")
        parts = [losses[mask].mean() for mask in (same, ~same) if mask.any()]
        return torch.stack(parts).mean() if parts else features.sum() * 0.0
