"""The composite of all networks: what the bundle exports, and what latent optimisation differentiates."""

from __future__ import annotations

import copy
import io

import pytest
import torch

from gmia_monai.losses import identity_hinge, utility_drift
from gmia_monai.networks import AEGAN, AnonymizerNet, Discriminator, IdentityNet, UtilityNet


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    net = AnonymizerNet(
        AEGAN(32, 24, channel_base=512, channel_max=16),
        IdentityNet(32, "small", embedding_dim=16),
        UtilityNet(3),
    )
    for name, p in net.named_parameters():
        if name.endswith("noise_strength"):
            torch.nn.init.constant_(p, 0.1)
    return net.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def scripted(net):
    return torch.jit.script(net)


@pytest.fixture
def x():
    torch.manual_seed(1)
    return torch.rand(2, 1, 32, 32)


def test_forward_is_the_clamped_auto_encoder(net, x):
    raw = net.synthesis(net.encoder(x))
    torch.testing.assert_close(net(x), raw.clamp(0, 1))
    bright = copy.deepcopy(net)
    torch.nn.init.constant_(bright.synthesis.to_grey4.bias, 5.0)
    assert bright.synthesis(bright.encoder(x)).max() > 1 and bright(x).max() == 1


def test_scripted_composite_is_the_same(net, scripted, x):
    torch.testing.assert_close(scripted(x), net(x))


def test_scripted_parts_are_the_same(net, scripted, x):
    torch.testing.assert_close(scripted.utility.features(x), net.utility.features(x))
    torch.testing.assert_close(scripted.utility(x), net.utility(x))
    torch.testing.assert_close(scripted.identity(x), net.identity(x))
    w = scripted.encoder(x)
    torch.testing.assert_close(w, net.encoder(x))
    torch.testing.assert_close(scripted.synthesis(w, "none"), net.synthesis(w, "none"))
    w_plus = torch.randn(2, net.synthesis.n_layers, 24)
    torch.testing.assert_close(scripted.synthesis(w_plus), net.synthesis(w_plus))
    assert not torch.equal(scripted.synthesis(w, "random"), scripted.synthesis(w, "random"))


def test_scripted_composite_survives_a_file_and_has_gradients_to_w(net, scripted, x):
    stream = io.BytesIO()
    torch.jit.save(scripted, stream)
    stream.seek(0)
    loaded = torch.jit.load(stream)
    torch.testing.assert_close(loaded(x), net(x))
    w = net.encoder(x).requires_grad_()
    loaded.utility.features(loaded.synthesis(w)).sum().backward()
    assert w.grad.abs().sum() > 0


def test_scripted_aegan_and_discriminator_are_the_same(x):
    torch.manual_seed(0)
    for plain in (AEGAN(32, 24, channel_base=512, channel_max=16), Discriminator(32, 512, 16)):
        torch.testing.assert_close(torch.jit.script(plain)(x), plain(x))


def test_gradients_reach_w_through_the_frozen_networks_and_nothing_else(net, x):
    w = net.encoder(x).requires_grad_()
    image = net.synthesis(w)
    identity = identity_hinge(net.identity(x), net.identity(image), -0.99).sum()
    utility = utility_drift(net.utility.features(x), net.utility.features(image)).sum()
    for loss in (identity, utility):
        (gradient,) = torch.autograd.grad(loss, w, retain_graph=True)
        assert torch.isfinite(gradient).all() and (gradient.abs().sum(dim=1) > 0).all()
    (identity + utility).backward()
    assert all(p.grad is None for p in net.parameters())


def test_gradient_of_a_sum_is_that_of_each_image_alone(net, x):
    def gradient(images):
        w = net.encoder(images).requires_grad_()
        utility_drift(net.utility.features(images), net.utility.features(net.synthesis(w))).sum().backward()
        return w.grad

    together, alone = gradient(x), torch.cat([gradient(x[:1]), gradient(x[1:])])
    torch.testing.assert_close(together, alone, rtol=1e-3, atol=1e-3 * together.abs().max().item())
