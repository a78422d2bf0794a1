"""A DenseNet for small images (Huang et al., CVPR 2017), on MONAI's: the trunk of the verifier of the release gate."""

from __future__ import annotations

from collections import OrderedDict

from monai.networks.nets import DenseNet
from torch import nn

__all__ = ["SMALL_DENSE_CHANNELS", "small_dense_trunk"]

_SIZES = {"init_features": 32, "growth_rate": 24, "block_config": (4, 6, 8, 6)}
SMALL_DENSE_CHANNELS = 292


def small_dense_trunk() -> nn.Sequential:
    """Maps ``[b, 1, h, w]`` to ``[b, 292, h / 16, w / 16]``.

    The stem halves the image once, where that of DenseNet leaves a quarter.
    """
    features = DenseNet(spatial_dims=2, in_channels=1, out_channels=1, **_SIZES).features
    layers = [(name, layer) for name, layer in features.named_children() if name != "pool0"]
    return nn.Sequential(OrderedDict([*layers, ("relu5", nn.ReLU())]))
