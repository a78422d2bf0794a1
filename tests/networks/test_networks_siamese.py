"""Siamese verifier: the published trunk, features, comparison, loss over all pairs of a batch."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from gmia_monai.errors import UsageError
from gmia_monai.losses import PairBCE
from gmia_monai.networks import SiameseVerifier


@pytest.mark.parametrize(("architecture", "size"), [("small", 64), ("small_iresnet_pooled", 64), ("resnet50", 96)])
def test_features_lie_between_0_and_1_and_the_comparison_has_no_order(architecture, size):
    torch.manual_seed(0)
    net = SiameseVerifier(architecture, features=32).eval()
    with torch.no_grad():
        a, b = net(torch.rand(2, 1, size, size))
    assert a.shape == (32,) and 0 <= a.min() and a.max() <= 1
    assert net.compare(a, b) == net.compare(b, a)
    expected = F.linear((a - b).abs()[None], net.head.weight, net.head.bias).item()
    assert net.compare(a, b).item() == pytest.approx(expected)
    assert net.compare(a, a) > net.compare(a, b), "a difference speaks against one person"


def test_the_published_trunk_is_resnet_50():
    with torch.device("meta"):
        net = SiameseVerifier("resnet50", 128)
    assert sum(p.numel() for p in net.trunk.parameters()) == pytest.approx(23.5e6, rel=0.01)
    assert net.fc.weight.shape == (128, 2048)
    with pytest.raises(UsageError, match="GM-U016"):
        SiameseVerifier("vgg")


def test_the_loss_is_that_of_a_loop_over_pairs():
    torch.manual_seed(1)
    features, labels = torch.rand(7, 5), torch.tensor([0, 0, 1, 2, 1, 0, 3])
    compare = lambda a, b: 1.0 - (a - b).abs().sum(-1)  # noqa: E731
    same, other = [], []
    for i in range(7):
        for j in range(i + 1, 7):
            logit = compare(features[i], features[j])
            alike = bool(labels[i] == labels[j])
            (same if alike else other).append(-torch.log(torch.sigmoid(logit if alike else -logit)))
    expected = (torch.stack(same).mean() + torch.stack(other).mean()) / 2
    assert PairBCE(compare)(features, labels).item() == pytest.approx(expected.item(), rel=1e-5)


def test_batches_of_one_kind_of_pair_have_a_loss():
    loss = PairBCE(lambda a, b: -(a - b).abs().sum(-1))
    features = torch.rand(4, 3, requires_grad=True)
    for labels in (torch.zeros(4), torch.arange(4)):
        assert torch.isfinite(loss(features, labels))
    alone = loss(features[:1], torch.zeros(1))
    alone.backward()
    assert alone.item() == 0.0
