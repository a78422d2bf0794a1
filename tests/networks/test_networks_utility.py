"""Utility encoder: the same function as MONAI's DenseNet121."""

from __future__ import annotations

import pytest
import torch
from monai.networks.nets import DenseNet121

from gmia_monai.networks import UtilityNet


@pytest.fixture(scope="module")
def pair():
    """MONAI's network and ours with its weights, both in eval mode, with other than initial statistics."""
    torch.manual_seed(0)
    monai = DenseNet121(spatial_dims=2, in_channels=1, out_channels=5)
    monai(torch.randn(4, 1, 64, 64))
    ours = UtilityNet(5, mean=0.4, std=0.2)
    ours.dense.load_state_dict(monai.features.state_dict())
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
    assert ours.features(x).shape == (3, UtilityNet.feature_dim) and ours(x).shape == (3, 5)


def test_feature_is_pooled_after_the_activation(pair):
    _, ours = pair
    with torch.no_grad():
        assert (ours.features(torch.rand(2, 1, 64, 64)) >= 0).all()


def test_findings_and_dropout():
    net = UtilityNet(3, dropout=0.2)
    assert net.n_findings == net.head.out_features == 3
    assert any(isinstance(m, torch.nn.Dropout2d) and m.p == 0.2 for m in net.modules())


def test_double_precision_is_kept():
    torch.manual_seed(0)
    net = UtilityNet(2).eval().double()
    with torch.no_grad():
        assert net.features(torch.rand(1, 1, 32, 32, dtype=torch.float64)).dtype == torch.float64
        assert net(torch.rand(1, 1, 32, 32, dtype=torch.float64)).dtype == torch.float64


def test_without_the_stem_pool_features_are_twice_as_fine():
    x = torch.rand(2, 1, 64, 64)
    coarse, fine = UtilityNet(3).eval(), UtilityNet(3, stem_pool=False).eval()
    assert coarse.dense(x).shape[2:] == (2, 2)
    assert fine.dense(x).shape[2:] == (4, 4)
    assert fine.features(x).shape == (2, UtilityNet.feature_dim)
    assert sorted(coarse.state_dict()) == sorted(fine.state_dict())
    scripted = torch.jit.script(fine)
    torch.testing.assert_close(scripted(x), fine(x))
