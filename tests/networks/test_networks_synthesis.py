"""Synthesis network: layers of StyleGAN2 as GMIA uses it, W and W+, noise modes, second derivatives."""

from __future__ import annotations

import pytest
import torch

from gmia_monai.errors import UsageError
from gmia_monai.losses import PathLengthPenalty
from gmia_monai.networks import SynthesisNetwork
from gmia_monai.networks.layers import bilinear_up
from gmia_monai.networks.synthesis import channels_at, check_image_size


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def small(image_size=32, latent_dim=24):
    return SynthesisNetwork(image_size, latent_dim, channel_base=512, channel_max=16)


def with_noise(net, strength=0.5):
    for name, p in net.named_parameters():
        if name.endswith("noise_strength"):
            torch.nn.init.constant_(p, strength)
    return net


def test_facts_of_the_paper_at_256_px():
    with torch.device("meta"):
        net = SynthesisNetwork(256)
    assert net.n_layers == 14
    assert sum(p.numel() for p in net.parameters()) == pytest.approx(22.7e6, rel=0.01)
    assert net.const.shape == (512, 4, 4)
    assert [b.conv1.conv.weight.shape[0] for b in net.blocks] == [512, 512, 512, 256, 128, 64]
    # One noise buffer for each of 13 convolutions; learned strengths start at zero.
    noise = [b for n, b in net.named_buffers() if n.endswith("noise_const")]
    assert sorted(b.shape[-1] for b in noise) == sorted([4] + [s for k in range(3, 9) for s in (2**k, 2**k)])
    strengths = [p for n, p in small().named_parameters() if n.endswith("noise_strength")]
    assert len(strengths) == 7 and all(p.item() == 0 for p in strengths)


@pytest.mark.parametrize(("resolution", "channels"), [(4, 512), (32, 512), (64, 256), (128, 128), (256, 64)])
def test_channels_at_each_resolution(resolution, channels):
    assert channels_at(resolution, 16384, 512) == channels


@pytest.mark.parametrize("image_size", [32, 64, 128, 256, 512, 1024])
def test_every_power_of_two(image_size):
    net = SynthesisNetwork(image_size, 16, channel_base=2048, channel_max=4)
    with torch.no_grad():
        image = net(torch.randn(2, 16))
    assert image.shape == (2, 1, image_size, image_size) and image.dtype == torch.float32
    assert 2 ** check_image_size(image_size) == image_size
    assert net.n_layers == 2 * check_image_size(image_size) - 2
    assert (image[0] - image[1]).abs().max() > 0


@pytest.mark.parametrize("image_size", [0, 4, 16, 33, 96, 2048])
def test_other_sizes_are_refused(image_size):
    with pytest.raises(UsageError) as caught:
        SynthesisNetwork(image_size)
    assert caught.value.code == "GM-U010"


def test_a_channel_base_that_leaves_no_channel_is_refused():
    with pytest.raises(UsageError):
        SynthesisNetwork(1024, channel_base=512)


def test_w_is_w_plus_with_one_code_everywhere():
    net = with_noise(small())
    w = torch.randn(3, 24)
    torch.testing.assert_close(net(w), net(w[:, None].repeat(1, net.n_layers, 1)))


def test_every_layer_of_w_plus_matters():
    net = small(64)
    ws = torch.randn(1, net.n_layers, 24, requires_grad=True)
    net(ws).square().sum().backward()
    assert (ws.grad.abs().sum(dim=2) > 0).all()


def test_layers_take_their_codes_in_the_order_of_stylegan2():
    net = small(64)
    taken = []
    for module in net.modules():
        if hasattr(module, "affine"):
            module.affine.register_forward_pre_hook(lambda _, args: taken.append(round(args[0][0, 0].item())))
    net(torch.arange(net.n_layers, dtype=torch.float32)[None, :, None].expand(1, -1, 24))
    # 4 px: conv, to-grey; then conv0, conv1, to-grey, where conv0 shares the code of the to-grey layer before it.
    assert taken == [0, 1, 1, 2, 3, 3, 4, 5, 5, 6, 7, 7, 8, 9]


def test_image_is_the_sum_of_the_skips():
    net = small(32)
    greys = []
    for module in net.modules():
        if type(module).__name__ == "_ToGrey":
            module.register_forward_hook(lambda _, __, out: greys.append(out))
    image = net(torch.randn(2, 24))
    total = torch.zeros(2, 1, 2, 2)
    for grey in greys:
        total = bilinear_up(total) + grey
    assert [g.shape[-1] for g in greys] == [4, 8, 16, 32]
    torch.testing.assert_close(image, 0.5 + 0.25 * total)


def test_noise_has_no_effect_while_its_strength_is_zero():
    net, w = small(), torch.randn(2, 24)
    for mode in ("const", "random"):
        assert torch.equal(net(w, mode), net(w, "none"))


def test_noise_modes():
    net, w = with_noise(small()), torch.randn(1, 24).repeat(2, 1)
    const, none = net(w, "const"), net(w, "none")
    assert torch.equal(net(w), const) and torch.equal(net(w, "none"), none)
    assert (const - none).abs().max() > 1e-3
    first, second = net(w, "random"), net(w, "random")
    assert (first - second).abs().max() > 1e-3
    # Fresh noise for each image; the fixed buffers are the same for all.
    assert (first[0] - first[1]).abs().max() > 1e-3
    torch.testing.assert_close(const[0], const[1])
    torch.manual_seed(5)
    again = net(w, "random")
    torch.manual_seed(5)
    assert torch.equal(net(w, "random"), again)


def test_an_image_does_not_depend_on_its_batch():
    net, w = with_noise(small()), torch.randn(5, 24)
    torch.testing.assert_close(net(w), torch.cat([net(v[None]) for v in w]), rtol=1e-5, atol=1e-5)


def test_noise_buffers_are_saved_and_not_trained():
    net = small()
    assert "blocks.0.conv0.noise_const" in net.state_dict()
    assert not any("noise_const" in n for n, _ in net.named_parameters())


@pytest.mark.parametrize("form", ["w", "w_plus"])
def test_path_length_has_gradients_for_every_kernel_but_the_biases_of_the_image(form):
    net = small()
    ws = torch.randn((2, 24) if form == "w" else (2, net.n_layers, 24), requires_grad=True)
    PathLengthPenalty()(net(ws), ws).backward()
    for name, p in net.named_parameters():
        if name.endswith("weight") or name == "const":
            assert p.grad is not None and torch.isfinite(p.grad).all() and p.grad.abs().sum() > 0, name


def test_bfloat16_autocast_keeps_the_image_in_float32():
    net, w = small(), torch.randn(2, 24)
    with torch.autocast("cpu", torch.bfloat16):
        image = net(w)
    assert image.dtype == torch.float32
    # Within the rounding of bfloat16 features, and finer than eight bits of the image itself.
    assert (image - net(w)).abs().max() < 0.05
    assert len(image.unique()) > 512


def test_a_base_without_channels_at_full_size_is_refused():
    with pytest.raises(UsageError, match="GM-U012"):
        SynthesisNetwork(64, 8, channel_base=32, channel_max=8)
