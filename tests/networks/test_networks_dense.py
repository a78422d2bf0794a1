"""The dense trunk of the gate's verifier."""

from __future__ import annotations

import torch

from gmia_monai.networks.dense import SMALL_DENSE_CHANNELS, small_dense_trunk
from gmia_monai.networks.identity import IdentityNet


def test_it_halves_the_image_four_times_and_keeps_its_whole_field():
    trunk = small_dense_trunk().eval()
    image = torch.rand(2, 1, 64, 96, requires_grad=True)
    found = trunk(image)
    assert found.shape == (2, SMALL_DENSE_CHANNELS, 4, 6) and found.min() >= 0
    found.sum().backward()
    assert (image.grad != 0).float().mean() > 0.99


def test_an_encoder_on_it_embeds_and_can_be_exported():
    network = IdentityNet(64, "small_dense_pooled", 128, two_views=True).eval()
    image = torch.rand(3, 1, 64, 64)
    found = network(image)
    assert found.shape == (3, 256)
    torch.testing.assert_close(network(image.flip(-1))[:, :128], found[:, 128:])
    torch.testing.assert_close(torch.jit.script(network)(image), found)
