"""Utility encoders: the same functions as MONAI's networks."""

from __future__ import annotations

import pytest
import torch
from monai.networks.nets import DenseNet121

from gmia_monai.errors import UsageError
from gmia_monai.losses.perceptual import CXRPerceptualLoss
from gmia_monai.networks import UtilityNet
from gmia_monai.networks.utility import UTILITY_ARCHITECTURES

ARCHITECTURES = sorted(UTILITY_ARCHITECTURES)


@pytest.fixture(scope="module")
def pair():
    """MONAI's DenseNet121 and ours with its weights, both in eval mode, with other than initial statistics."""
    torch.manual_seed(0)
    monai = DenseNet121(spatial_dims=2, in_channels=1, out_channels=5)
    monai(torch.randn(4, 1, 64, 64))
    ours = UtilityNet(5, mean=0.4, std=0.2)
    ours.trunk.load_state_dict(monai.features.state_dict())
    ours.head.load_state_dict(monai.class_layers.out.state_dict())
    return monai.eval(), ours.eval()


def test_logits_and_features_are_those_of_monai(pair):
    monai, ours = pair
    x = torch.rand(3, 1, 64, 64)
    with torch.no_grad():
        normalised = (x - 0.4) / 0.2
        feature = monai.class_layers[:-1](monai.features(normalised))
        torch.testing.assert_close(ours.features(x), feature, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(ours(x), monai(normalised), rtol=1e-4, atol=1e-5)
    assert ours.features(x).shape == (3, ours.feature_dim) and ours(x).shape == (3, 5)


def test_small_is_a_head_on_the_average_of_its_trunk():
    torch.manual_seed(0)
    net, x = UtilityNet(5, "small", mean=0.4, std=0.2), torch.rand(3, 1, 64, 64)
    net(x)  # other than initial statistics
    net.eval()
    with torch.no_grad():
        average = net.trunk((x - 0.4) / 0.2).mean(dim=(2, 3))
        torch.testing.assert_close(net.features(x), average)
        torch.testing.assert_close(net(x), average @ net.head.weight.T + net.head.bias)
    assert average.shape == (3, net.feature_dim)


def test_feature_is_pooled_after_the_activation(pair):
    _, ours = pair
    with torch.no_grad():
        assert (ours.features(torch.rand(2, 1, 64, 64)) >= 0).all()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_findings_and_dropout(architecture):
    net = UtilityNet(3, architecture, dropout=0.2)
    assert net.n_findings == net.head.out_features == 3
    assert any(isinstance(m, (torch.nn.Dropout, torch.nn.Dropout2d)) and m.p == 0.2 for m in net.modules())


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_double_precision_is_kept(architecture):
    torch.manual_seed(0)
    net = UtilityNet(2, architecture).eval().double()
    with torch.no_grad():
        assert net.features(torch.rand(1, 1, 32, 32, dtype=torch.float64)).dtype == torch.float64
        assert net(torch.rand(1, 1, 32, 32, dtype=torch.float64)).dtype == torch.float64


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_torchscript_gives_the_same(architecture):
    torch.manual_seed(0)
    net, x = UtilityNet(3, architecture).eval(), torch.rand(2, 1, 64, 64)
    scripted = torch.jit.script(net)
    torch.testing.assert_close(scripted(x), net(x))
    torch.testing.assert_close(scripted.features(x), net.features(x))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_layers_of_the_perceptual_loss_exist_and_features_get_coarser(architecture):
    net = UtilityNet(3, architecture).eval()
    sizes = [f.shape[-1] for f in CXRPerceptualLoss(net).features(torch.rand(1, 1, 64, 64))]
    assert len(sizes) == 3
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] == 32


def test_unknown_architecture_is_refused():
    with pytest.raises(UsageError, match="GM-U015"):
        UtilityNet(3, "resnet50")
