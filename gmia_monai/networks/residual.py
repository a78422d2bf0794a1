"""The residual trunk of the small encoders: MONAI's ResNet of 18 layers with half the channels."""

from __future__ import annotations

from collections import OrderedDict

from monai.networks.nets import ResNet
from torch import nn

__all__ = ["SMALL_TRUNK_CHANNELS", "small_trunk"]

SMALL_TRUNK_CHANNELS = 256


def small_trunk() -> nn.Sequential:
    """Maps ``[b, 1, h, w]`` to ``[b, 256, h / 16, w / 16]`` (He et al., CVPR 2016), for small images.

    The stem halves the image once, where those of ResNet and DenseNet leave a quarter.
    Children: ``conv1``, ``bn1``, ``act``, ``layer1`` to ``layer4``.
    """
    net = ResNet(
        "basic",
        [2, 2, 2, 2],
        [32, 64, 128, SMALL_TRUNK_CHANNELS],
        spatial_dims=2,
        n_input_channels=1,
        conv1_t_size=3,
        conv1_t_stride=2,
        no_max_pool=True,
        feed_forward=False,
    )
    names = ("conv1", "bn1", "act", "layer1", "layer2", "layer3", "layer4")
    return nn.Sequential(OrderedDict((name, getattr(net, name)) for name in names))
