"""Losses of the two classifiers: findings (masked binary cross-entropy) and identity (ArcFace)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float32
from numpy import ndarray
from pytorch_metric_learning.losses import ArcFaceLoss
from torch import Tensor, nn

__all__ = ["ArcFace", "MaskedBCE", "positive_weights"]


def positive_weights(labels: Float32[ndarray, "n k"], power: float = 0.5, limit: float = 10.0) -> list[float]:
    """Weight of the positives of each finding, ``min((negatives / positives) ** power, limit)``.

    Args:
        labels: 1, 0, or nan where not known.
        power: 0 for no weights, 1 for balanced classes.
        limit: upper limit, also for findings without a positive.
    """
    positives, negatives = (labels == 1).sum(axis=0), (labels == 0).sum(axis=0)
    return [min((n / p) ** power, limit) if p else limit for p, n in zip(positives, negatives, strict=True)]


class MaskedBCE(nn.Module):
    """Binary cross-entropy with logits over the labels that are known.

    Args:
        positive_weight: weight of the positives of each finding; None for 1.
    """

    def __init__(self, positive_weight: list[float] | None = None) -> None:
        super().__init__()
        self.register_buffer("positive_weight", None if positive_weight is None else torch.tensor(positive_weight))

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Mean loss over the labels ``[b, k]`` that are not nan; soft labels are allowed."""
        known = ~torch.isnan(labels)
        weight = None if self.positive_weight is None else self.positive_weight.to(logits.device)
        losses = F.binary_cross_entropy_with_logits(logits, labels.nan_to_num(), pos_weight=weight, reduction="none")
        return (losses * known).sum() / known.sum().clamp_min(1)


class ArcFace(ArcFaceLoss):
    """Additive angular margin (Deng et al., CVPR 2019, eq. 3) of pytorch-metric-learning, with the margin in radians.

    Args:
        n_classes: number of patients.
        embedding_dim: length of the embedding.
        margin_rad: angular margin, in radians; 0.5 in GMIA.
        scale: factor on the cosines; 64 in GMIA.
    """

    def __init__(self, n_classes: int, embedding_dim: int = 512, margin_rad: float = 0.5, scale: float = 64.0) -> None:
        super().__init__(
            num_classes=n_classes, embedding_size=embedding_dim, margin=math.degrees(margin_rad), scale=scale
        )

    def set_margin_rad(self, margin_rad: float) -> None:
        """Changes the margin, for schedules that ramp it up."""
        self.margin = float(margin_rad)
