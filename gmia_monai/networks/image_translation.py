"""Image-to-image U-Net of Privacy-Net (Kim et al., IEEE TMI 40(7):1737-1749, 2021), in the two-dimensional form that
PriCheXy-Net (MICCAI 2023) compares itself with.

Published are 16 base filters, leaky ReLU with slope 0.2, batch normalisation, and a sigmoid behind a normalised output
convolution. The body here is MONAI's ``BasicUNet``, which halves the image four times, the published one three times.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from monai.networks.nets import BasicUNet
from torch import Tensor, nn

from gmia_monai.errors import UsageError
from gmia_monai.networks.layers import at_least_float32

__all__ = ["TranslationNet", "unet_of_images"]


def unet_of_images(out_channels: int, features: Sequence[int], slope: float = 0.0) -> BasicUNet:
    """MONAI's U-Net on one channel, with batch normalisation, convolutions without bias, and ReLU.

    Args:
        out_channels: channels of the output, behind a 1 x 1 convolution.
        features: channels of the five levels, finest first, and of the last layer.
        slope: of the ReLU below zero.

    Raises:
        UsageError: ``GM-U013`` where ``features`` are not six positive numbers.
    """
    if len(features) != 6 or min(features) < 1:
        raise UsageError(
            "GM-U013", "unusable setting of a U-Net", got=f"features {list(features)}", expected="six positive numbers"
        )
    act = ("leakyrelu", {"negative_slope": slope, "inplace": True}) if slope else ("relu", {"inplace": True})
    return BasicUNet(2, 1, out_channels, tuple(features), act, "batch", bias=False)


class TranslationNet(nn.Module):
    """Draws the released image itself: U-Net, batch normalisation, sigmoid.

    Args:
        features: channels of the five levels, finest first, and of the last layer.

    Raises:
        UsageError: ``GM-U013`` as :func:`unet_of_images`.
    """

    def __init__(self, features: Sequence[int] = (16, 32, 64, 64, 64, 16)) -> None:
        super().__init__()
        self.unet = unet_of_images(1, features, slope=0.2)
        self.norm = nn.BatchNorm2d(1)

    def forward(self, image: Tensor) -> Tensor:
        """Maps ``[b, 1, h, w]`` in [0, 1] to the same; sides are at least 32 pixels."""
        return torch.sigmoid(at_least_float32(self.norm(self.unet(image))))
