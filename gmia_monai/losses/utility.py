"""Utility loss of GMIA (Li et al., ISBI 2025, eq. 2) on the feature of a diagnostic network."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from gmia_monai.errors import UsageError

__all__ = ["utility_drift"]


def utility_drift(
    reference: Float[Tensor, "b d"], feature: Float[Tensor, "b d"], form: str = "mse"
) -> Float[Tensor, "b"]:
    """Distance of two diagnostic features, for each image.

    Args:
        reference: feature of the real image.
        feature: feature of the synthesised image.
        form: ``mse``, the mean squared difference of the published code, or ``norm``, the Euclidean norm as printed.

    Raises:
        UsageError: ``GM-U020`` for another form.
    """
    squares = (reference - feature).square()
    if form == "mse":
        return squares.mean(dim=1)
    if form == "norm":
        # The square root has no gradient at zero; the offset is below the resolution of float32 features.
        return (squares.sum(dim=1) + 1e-12).sqrt()
    raise UsageError("GM-U020", "unknown form of the utility loss", got=form, expected="mse or norm")
