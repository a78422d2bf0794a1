"""What the release gate knows of the images that networks learned from: numbers, kept as other weights are."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["KnownImages"]


class KnownImages(nn.Module):
    """Where features of known images lie, and the embeddings of all that the makers of new images learned from.

    Args:
        feature_dim: length of the features.
        n_learned: images that were learned from.
        embedding_dim: length of their embeddings.

    Attributes:
        mean: of the features, ``[feature_dim]``.
        whitening: takes their correlations away, ``[feature_dim, feature_dim]``.
        limit: distance that nearly all known images stay within.
        layout: weights of the pattern of 16 by 16 cells, ``[256]``, see :mod:`gmia_monai.release.layout`.
        layout_bias: of the same.
        learned: embeddings of unit length, ``[n_learned, embedding_dim]``, float16.
    """

    mean: Tensor
    whitening: Tensor
    limit: Tensor
    layout: Tensor
    layout_bias: Tensor
    learned: Tensor

    def __init__(self, feature_dim: int, n_learned: int, embedding_dim: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(feature_dim))
        self.register_buffer("whitening", torch.eye(feature_dim))
        self.register_buffer("limit", torch.ones(()))
        self.register_buffer("layout", torch.zeros(256))
        self.register_buffer("layout_bias", torch.zeros(()))
        self.register_buffer("learned", torch.zeros(n_learned, embedding_dim, dtype=torch.float16))
