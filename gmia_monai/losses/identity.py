"""Identity loss of GMIA (Li et al., ISBI 2025, eq. 1): a hinge on the cosine of two identity embeddings."""

from __future__ import annotations

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

__all__ = ["cosine", "identity_hinge"]


def cosine(a: Float[Tensor, "b d"], b: Float[Tensor, "b d"]) -> Float[Tensor, "b"]:
    """Cosine of each pair of embeddings, in [-1, 1]."""
    return F.cosine_similarity(a, b, dim=1, eps=1e-8)


def identity_hinge(
    reference: Float[Tensor, "b d"], embedding: Float[Tensor, "b d"], margin_cos: float
) -> Float[Tensor, "b"]:
    """``max(0, cos(reference, embedding) - margin_cos)`` of each image.

    Args:
        reference: identity embedding of the real image.
        embedding: identity embedding of the synthesised image.
        margin_cos: cosine that is low enough, in [-1, 1].
    """
    return (cosine(reference, embedding) - margin_cos).clamp_min(0.0)
