"""Fidelity of an image to its reference, one value an image: PSNR, SSIM, multi-scale SSIM (MONAI's metrics), and
information-content weighted SSIM (piq's).

All take float tensors of the same shape ``b 1 h w`` in [0, 1] and return ``b`` values. SSIM: Wang et al. 2004, Gaussian
window of 11 px, sigma 1.5. MS-SSIM: Wang, Simoncelli and Bovik 2003, five scales; smaller images have a variant of
three scales under its own name, since the two cannot be compared. IW-SSIM: Wang and Li 2011.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from monai.metrics import MultiScaleSSIMMetric, PSNRMetric, SSIMMetric
from torch import Tensor

from gmia_monai.errors import UsageError
from gmia_monai.losses.perceptual import import_torchvision

__all__ = [
    "IW_SSIM_MIN_SIDE",
    "MS_SSIM_MIN_SIDE",
    "iw_ssim",
    "mean_squared_error",
    "ms_ssim",
    "ms_ssim_3scale",
    "psnr",
    "ssim",
]

MS_SSIM_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
MS_SSIM_MIN_SIDE = 176  # the window of 11 px must fit after four halvings; MONAI's message says 160, its check 176
IW_SSIM_MIN_SIDE = 161  # piq's: odd sides are padded before each halving
_WINDOW, _SMALL_WINDOW = 11, 7


def _checked(x: Tensor, y: Tensor, min_side: int) -> tuple[Tensor, Tensor]:
    if x.shape != y.shape or x.ndim != 4 or x.shape[1] != 1:
        raise UsageError(
            "GM-U231", "images do not fit", got=f"{tuple(x.shape)}, {tuple(y.shape)}", expected="b 1 h w twice"
        )
    if min(x.shape[2:]) < min_side:
        raise UsageError(
            "GM-U232", "images are too small for this metric", got=f"{min(x.shape[2:])} px", expected=f"{min_side} px"
        )
    return x.detach().as_subclass(Tensor).float(), y.detach().as_subclass(Tensor).float()


def mean_squared_error(x: Float[Tensor, "b 1 h w"], y: Float[Tensor, "b 1 h w"]) -> Float[Tensor, "b"]:
    """Mean squared difference of each image."""
    x, y = _checked(x, y, 1)
    return (x - y).square().mean(dim=(1, 2, 3))


def psnr(x: Float[Tensor, "b 1 h w"], y: Float[Tensor, "b 1 h w"]) -> Float[Tensor, "b"]:
    """Peak signal-to-noise ratio in dB for the data range 1, ``10 log10(1 / mse)``; ``inf`` for equal images."""
    x, y = _checked(x, y, 1)
    return torch.as_tensor(PSNRMetric(max_val=1.0, reduction="none")(x, y))[:, 0]


def ssim(x: Float[Tensor, "b 1 h w"], y: Float[Tensor, "b 1 h w"]) -> Float[Tensor, "b"]:
    """Structural similarity in [-1, 1], mean over the windows that lie inside the image."""
    x, y = _checked(x, y, _WINDOW)
    return torch.as_tensor(SSIMMetric(spatial_dims=2, win_size=_WINDOW, reduction="none")(x, y))[:, 0]


def ms_ssim(x: Float[Tensor, "b 1 h w"], y: Float[Tensor, "b 1 h w"]) -> Float[Tensor, "b"]:
    """Multi-scale SSIM in [0, 1] over five scales; images of at least `MS_SSIM_MIN_SIDE` px."""
    x, y = _checked(x, y, MS_SSIM_MIN_SIDE)
    metric = MultiScaleSSIMMetric(spatial_dims=2, weights=MS_SSIM_WEIGHTS, kernel_size=_WINDOW, reduction="none")
    return torch.as_tensor(metric(x, y))[:, 0]


def ms_ssim_3scale(x: Float[Tensor, "b 1 h w"], y: Float[Tensor, "b 1 h w"]) -> Float[Tensor, "b"]:
    """Multi-scale SSIM over the three finest scales, their weights brought to a sum of 1; images of at least 28 px.

    The window is 11 px from 44 px on and 7 px below, where 11 px would not fit the coarsest scale.
    """
    x, y = _checked(x, y, 4 * _SMALL_WINDOW)
    weights = tuple(weight / sum(MS_SSIM_WEIGHTS[:3]) for weight in MS_SSIM_WEIGHTS[:3])
    window = _WINDOW if min(x.shape[2:]) >= 4 * _WINDOW else _SMALL_WINDOW
    metric = MultiScaleSSIMMetric(spatial_dims=2, weights=weights, kernel_size=window, reduction="none")
    return torch.as_tensor(metric(x, y))[:, 0]


def iw_ssim(x: Float[Tensor, "b 1 h w"], y: Float[Tensor, "b 1 h w"]) -> Float[Tensor, "b"]:
    """Information-content weighted SSIM over five scales of ``x`` to the reference ``y``, whose information decides the
    weights; images of at least `IW_SSIM_MIN_SIDE` px.

    ``nan`` where the reference has so little structure that its information cannot be computed.

    Raises:
        UsageError: ``GM-U353`` where piq is not installed.
    """
    x, y = _checked(x, y, IW_SSIM_MIN_SIDE)
    import_torchvision()
    try:
        import piq
    except ImportError as error:
        raise UsageError(
            "GM-U353", "information-content weighted SSIM needs piq", next_step="pip install 'gmia_monai[quality]'"
        ) from error
    values = []
    for one, other in zip(x[:, None], y[:, None], strict=True):
        try:
            values.append(piq.information_weighted_ssim(one, other, data_range=1.0, reduction="none").reshape(1))
        except torch.linalg.LinAlgError:  # the covariance of the reference's neighbourhoods has no inverse
            values.append(one.new_full((1,), float("nan")))
    return torch.cat(values)
