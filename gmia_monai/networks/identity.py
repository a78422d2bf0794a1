"""Identity encoders for one channel: IResNet (Duta et al., ICPR 2020; as used with ArcFace, Deng et al., CVPR 2019).

``iresnet50`` at 256 px is the encoder that GMIA optimises against. For 64 px there are ``small``, a narrow IResNet, and
three that average over the image at their end and so forget where a structure is: ``small_pooled`` on the residual
trunk of the small encoders, ``small_iresnet_pooled`` on blocks of IResNet after a stem that halves the image, and
``small_dense_pooled`` on a DenseNet.
Embeddings are not normalised: losses and verification take the cosine.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gmia_monai.errors import UsageError
from gmia_monai.networks.dense import SMALL_DENSE_CHANNELS, small_dense_trunk
from gmia_monai.networks.layers import at_least_float32
from gmia_monai.networks.prelu import PReLU
from gmia_monai.networks.residual import SMALL_TRUNK_CHANNELS, small_trunk

__all__ = ["IDENTITY_ARCHITECTURES", "IdentityNet", "iresnet_trunk"]

# name: (width of the stem, its stride, width of each stage, blocks of each stage)
_IRESNETS: dict[str, tuple[int, int, tuple[int, ...], tuple[int, ...]]] = {
    "small": (32, 1, (32, 64, 128, 128), (1, 2, 2, 1)),
    "small_iresnet_pooled": (64, 2, (64, 128, 256), (2, 2, 2)),
    "iresnet18": (64, 1, (64, 128, 256, 512), (2, 2, 2, 2)),
    "iresnet50": (64, 1, (64, 128, 256, 512), (3, 4, 14, 3)),
}
IDENTITY_ARCHITECTURES = ("small_pooled", "small_dense_pooled", *_IRESNETS)


class _Block(nn.Module):
    """BN, conv, BN, PReLU, conv, BN, with the stride in the second convolution."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.BatchNorm2d(in_channels),
            nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(out_channels),
            PReLU(out_channels),
            nn.Conv2d(out_channels, out_channels, 3, stride=stride, padding=1, bias=False),
            nn.BatchNorm2d(out_channels),
        )
        self.skip: nn.Module = nn.Identity()
        if stride != 1 or in_channels != out_channels:
            self.skip = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False), nn.BatchNorm2d(out_channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x) + self.skip(x)


def iresnet_trunk(architecture: str) -> tuple[nn.Sequential, int]:
    """The convolutional part of an IResNet of :data:`IDENTITY_ARCHITECTURES`, and its number of channels."""
    stem, stem_stride, widths, depths = _IRESNETS[architecture]
    layers: list[nn.Module] = [nn.Conv2d(1, stem, 3, stem_stride, 1, bias=False), nn.BatchNorm2d(stem), PReLU(stem)]
    channels = stem
    for width, depth in zip(widths, depths, strict=True):
        for i in range(depth):
            layers.append(_Block(channels, width, stride=2 if i == 0 else 1))
            channels = width
    trunk = nn.Sequential(*layers, nn.BatchNorm2d(channels))
    for module in trunk.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.normal_(module.weight, std=0.1)
    return trunk, channels


class IdentityNet(nn.Module):
    """Maps radiographs to identity embeddings.

    Args:
        image_size: rows and columns of the image; a multiple of 16.
        architecture: one of :data:`IDENTITY_ARCHITECTURES`.
        embedding_dim: length of the embedding.
        dropout: probability of dropping a feature before the last linear layer.
        two_views: in eval mode, embed the image and its mirror image and put the two unit embeddings side by side, so
            that a cosine is the mean of two. For networks that learned mirrored patients as patients of their own.

    Raises:
        UsageError: ``GM-U011`` for an unknown architecture or an image size that is no multiple of 16.
    """

    def __init__(
        self,
        image_size: int,
        architecture: str = "iresnet50",
        embedding_dim: int = 512,
        dropout: float = 0.0,
        two_views: bool = False,
    ) -> None:
        super().__init__()
        self.two_views = two_views
        if architecture not in IDENTITY_ARCHITECTURES or image_size < 16 or image_size % 16 != 0:
            raise UsageError(
                "GM-U011",
                "unsupported identity encoder",
                got=f"{architecture} at {image_size} px",
                expected=f"one of {', '.join(IDENTITY_ARCHITECTURES)}, image size a multiple of 16",
            )
        if architecture == "small_pooled":
            self.trunk, channels = small_trunk(), SMALL_TRUNK_CHANNELS
        elif architecture == "small_dense_pooled":
            self.trunk, channels = small_dense_trunk(), SMALL_DENSE_CHANNELS
        else:
            self.trunk, channels = iresnet_trunk(architecture)
        pooled = architecture.endswith("_pooled")
        self.pool: nn.Module = nn.AdaptiveAvgPool2d(1) if pooled else nn.Identity()
        features = channels if pooled else channels * (image_size // 16) ** 2
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(features, embedding_dim)
        self.norm = nn.BatchNorm1d(embedding_dim)
        # The scale of an embedding that is compared by its cosine is no degree of freedom worth learning.
        nn.init.ones_(self.norm.weight)
        self.norm.weight.requires_grad_(False)

    def forward(self, image: Tensor) -> Tensor:
        """Maps ``[b, 1, image_size, image_size]`` in [0, 1] to embeddings ``[b, embedding_dim]``, twice that of two
        views."""
        if self.training or not self.two_views:
            return self._embed(image)
        both = F.normalize(self._embed(torch.cat([image, image.flip(-1)])), dim=1)
        return torch.cat([both[: image.shape[0]], both[image.shape[0] :]], dim=1)

    def _embed(self, image: Tensor) -> Tensor:
        x = self.pool(self.trunk((image - 0.5) * 2.0))
        return self.norm(at_least_float32(self.fc(self.dropout(x.flatten(1)))))
