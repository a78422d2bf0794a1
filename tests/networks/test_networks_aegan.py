"""AE-GAN: sizes, parts, shapes."""

from __future__ import annotations

import pytest
import torch

from gmia_monai.errors import UsageError
from gmia_monai.networks import AEGAN


def test_parameters_at_256_px_are_those_of_the_paper():
    with torch.device("meta"):
        net = AEGAN(256, channel_base=16384)
    counts = [sum(p.numel() for p in part.parameters()) for part in (net.encoder, net.synthesis)]
    assert counts == [pytest.approx(24.0e6, rel=0.01), pytest.approx(22.7e6, rel=0.01)]
    assert sum(p.numel() for p in net.parameters()) == sum(counts)
    assert net.latent_dim == net.encoder.fc.weight.shape[0] == net.synthesis.latent_dim == 512


@pytest.mark.parametrize("image_size", [32, 64, 128, 256, 512, 1024])
def test_reconstruction_is_the_synthesis_of_the_code(image_size):
    torch.manual_seed(0)
    net = AEGAN(image_size, 16, channel_base=2048, channel_max=4)
    x = torch.rand(1, 1, image_size, image_size)
    with torch.no_grad():
        code, out = net.encoder(x), net(x)
        assert code.shape == (1, 16) and out.shape == x.shape
        assert torch.equal(out, net.synthesis(code))


@pytest.mark.parametrize("image_size", [31, 72, 4096])
def test_other_sizes_are_refused(image_size):
    with pytest.raises(UsageError) as caught:
        AEGAN(image_size)
    assert caught.value.code == "GM-U010"


def test_it_learns_one_image():
    torch.manual_seed(0)
    net = AEGAN(32, 32, channel_base=512, channel_max=16)
    x = torch.rand(1, 1, 4, 4).repeat_interleave(8, 2).repeat_interleave(8, 3)
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01, betas=(0.0, 0.99))
    losses = []
    for _ in range(40):
        loss = (net(x) - x).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.2 * losses[0]


def test_double_precision_is_kept_throughout():
    torch.manual_seed(0)
    net, x = AEGAN(32, 16, channel_base=512, channel_max=16), torch.rand(2, 1, 32, 32)
    with torch.no_grad():
        single = net(x)
        double = net.double()(x.double())
    assert double.dtype == torch.float64
    torch.testing.assert_close(double.float(), single, rtol=1e-4, atol=1e-4)
    # A value that passed through float32 anywhere near the end would be a float32 value.
    assert not torch.equal(double, double.float().double())
