"""The trunk of the small encoders: MONAI's network up to its pooling."""

from __future__ import annotations

import torch
from monai.networks.nets import ResNet

from gmia_monai.networks.residual import SMALL_TRUNK_CHANNELS, small_trunk


def test_trunk_is_monais_network_without_its_end():
    torch.manual_seed(0)
    monai = ResNet(
        "basic",
        [2, 2, 2, 2],
        [32, 64, 128, 256],
        spatial_dims=2,
        n_input_channels=1,
        conv1_t_size=3,
        conv1_t_stride=2,
        no_max_pool=True,
        num_classes=3,
    )
    x = torch.rand(4, 1, 64, 64)
    monai(x)
    ours = small_trunk()
    ours.load_state_dict({k: v for k, v in monai.state_dict().items() if not k.startswith("fc.")})
    with torch.no_grad():
        feature = ours.eval()(x)
        assert feature.shape == (4, SMALL_TRUNK_CHANNELS, 4, 4)
        torch.testing.assert_close(monai.eval().fc(feature.mean(dim=(2, 3))), monai(x), rtol=1e-4, atol=1e-5)
