"""Identity encoders for one channel: IResNet (Duta et al., ICPR 2020; as used with ArcFace, Deng et al., CVPR 2019).

``iresnet50`` at 256 px is the encoder that GMIA optimises against. ``small`` is a narrow residual network for 64 px.
Embeddings are not normalised: losses and verification take the cosine.
"""

from __future__ import annotations

from torch import Tensor, nn

from gmia_monai.errors import UsageError
from gmia_monai.networks.layers import at_least_float32

__all__ = ["IDENTITY_ARCHITECTURES", "IdentityNet"]

# name: (width of the stem, width of each stage, blocks of each stage)
IDENTITY_ARCHITECTURES: dict[str, tuple[int, tuple[int, ...], tuple[int, ...]]] = {
    "small": (32, (32, 64, 128, 128), (1, 2, 2, 1)),
    "iresnet18": (64, (64, 128, 256, 512), (2, 2, 2, 2)),
    "iresnet50": (64, (64, 128, 256, 512), (3, 4, 14, 3)),
}


class _Block(nn.Module):
    """BN, conv, BN, PReLU, conv, BN, with the stride in the second convolution."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.BatchNorm2d(in_channels),
            nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(out_channels),
            nn.PReLU(out_channels),
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


class IdentityNet(nn.Module):
    """Maps radiographs to identity embeddings.

    Args:
        image_size: rows and columns of the image; a multiple of 16.
        architecture: ``small``, ``iresnet18`` or ``iresnet50``.
        embedding_dim: length of the embedding.
        dropout: probability of dropping a feature before the last linear layer.

    Raises:
        UsageError: ``GM-U011`` for an unknown architecture or an image size that is no multiple of 16.
    """

    def __init__(
        self, image_size: int, architecture: str = "iresnet50", embedding_dim: int = 512, dropout: float = 0.0
    ) -> None:
        super().__init__()
        if architecture not in IDENTITY_ARCHITECTURES or image_size < 16 or image_size % 16 != 0:
            raise UsageError(
                "GM-U011",
                "unsupported identity encoder",
                got=f"{architecture} at {image_size} px",
                expected=f"one of {', '.join(IDENTITY_ARCHITECTURES)}, image size a multiple of 16",
            )
        stem, widths, depths = IDENTITY_ARCHITECTURES[architecture]
        layers: list[nn.Module] = [
            nn.Conv2d(1, stem, 3, padding=1, bias=False),
            nn.BatchNorm2d(stem),
            nn.PReLU(stem),
        ]
        in_channels = stem
        for width, depth in zip(widths, depths, strict=True):
            for i in range(depth):
                layers.append(_Block(in_channels, width, stride=2 if i == 0 else 1))
                in_channels = width
        self.trunk = nn.Sequential(*layers, nn.BatchNorm2d(in_channels))
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(in_channels * (image_size // 16) ** 2, embedding_dim)
        self.norm = nn.BatchNorm1d(embedding_dim)
        # The scale of an embedding that is compared by its cosine is no degree of freedom worth learning.
        nn.init.ones_(self.norm.weight)
        self.norm.weight.requires_grad_(False)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=0.1)

    def forward(self, image: Tensor) -> Tensor:
        """Maps ``[b, 1, image_size, image_size]`` in [0, 1] to embeddings ``[b, embedding_dim]``."""
        x = self.trunk((image - 0.5) * 2.0)
        return self.norm(at_least_float32(self.fc(self.dropout(x.flatten(1)))))
