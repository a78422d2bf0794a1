"""The image-to-image U-Net: range, learning, TorchScript."""

from __future__ import annotations

import pytest
import torch

from gmia_monai.errors import UsageError
from gmia_monai.networks.image_translation import TranslationNet, unet_of_images

TINY = (4, 4, 8, 8, 8, 4)


def test_it_learns_the_identity():
    torch.manual_seed(0)
    network = TranslationNet(TINY)
    images = torch.rand(4, 1, 1, 32).expand(-1, -1, 32, -1).contiguous()
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    losses = []
    for _ in range(60):
        loss = (network(images) - images).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.25 * losses[0]


def test_images_come_out_as_they_went_in_alone_or_among_others():
    torch.manual_seed(0)
    network = TranslationNet(TINY).eval()
    images = torch.rand(3, 1, 48, 64)
    out = network(images)
    assert out.shape == images.shape and 0.0 < out.min() and out.max() < 1.0
    torch.testing.assert_close(network(images[1:2]), out[1:2])
    torch.testing.assert_close(torch.jit.script(network)(images), out)


def test_slope_and_channels_are_those_asked_for():
    network = unet_of_images(2, TINY, slope=0.2)
    assert network(torch.rand(2, 1, 32, 32)).shape == (2, 2, 32, 32)
    slopes = {m.negative_slope for m in network.modules() if isinstance(m, torch.nn.LeakyReLU)}
    assert slopes == {0.2}
    assert not any(isinstance(m, torch.nn.LeakyReLU) for m in unet_of_images(2, TINY).modules())


def test_other_numbers_of_levels_are_refused():
    with pytest.raises(UsageError, match="GM-U013"):
        TranslationNet((16, 32))
