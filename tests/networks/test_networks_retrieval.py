"""Retrieval network: the published head, Euclidean comparison, unit length where asked for."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from gmia_monai.errors import UsageError
from gmia_monai.networks import RetrievalNet, load_network, save_network


@pytest.mark.parametrize(("architecture", "size"), [("small", 64), ("small_iresnet_pooled", 64), ("resnet50", 96)])
def test_embeddings_are_those_of_the_layers_one_by_one(architecture, size):
    torch.manual_seed(0)
    net = RetrievalNet(architecture, embedding_dim=16, grid=2, squeezed=8, hidden=12).eval()
    image = torch.rand(3, 1, size, size)
    with torch.no_grad():
        maps = net.trunk(2 * image - 1)
        pooled = torch.cat([F.adaptive_avg_pool2d(maps, 2), F.adaptive_max_pool2d(maps, 2)], dim=1)
        x = torch.einsum("bchw,oc->bohw", pooled, net.squeeze.weight[:, :, 0, 0]).reshape(3, 8 * 2 * 2)
        for norm, linear in ((net.hidden[0], net.hidden[2]), (net.embed[0], net.embed[2])):
            x = (x - norm.running_mean) / (norm.running_var + norm.eps).sqrt() * norm.weight + norm.bias
            x = x @ linear.weight.T + linear.bias
            if linear is net.hidden[2]:
                x = x.clamp_min(0)
        assert x.std() > 0
        torch.testing.assert_close(net(image), x, rtol=1e-4, atol=1e-5)


def test_the_published_sizes():
    with torch.device("meta"):
        net = RetrievalNet("resnet50")
    assert sum(p.numel() for p in net.trunk.parameters()) == pytest.approx(23.5e6, rel=0.01)
    assert net.squeeze.weight.shape == (100, 4096, 1, 1) and net.squeeze.bias is None
    assert net.hidden[2].weight.shape == (2048, 2500) and net.embed[2].weight.shape == (128, 2048)
    assert (net.hidden[1].p, net.embed[1].p) == (0.5, 0.25)
    with pytest.raises(UsageError, match="GM-U017"):
        RetrievalNet("vgg")


def test_nearer_embeddings_score_higher():
    net = RetrievalNet("small", grid=1, hidden=8)
    a, b = torch.tensor([[0.0, 3.0], [1.0, 1.0]]), torch.tensor([[4.0, 0.0], [1.0, 1.0]])
    assert net.compare(a, b).tolist() == [-5.0, 0.0]
    assert net.compare(a[:, None], b[None]).shape == (2, 2)


def test_unit_length_where_asked_for():
    torch.manual_seed(0)
    net = RetrievalNet("small", grid=1, hidden=16, embedding_dim=8).eval()
    image = torch.rand(4, 1, 32, 32)
    with torch.no_grad():
        free = net(image)
        net.normalised = True
        torch.testing.assert_close(net(image), free / free.norm(dim=1, keepdim=True))
    assert (free.norm(dim=1) - 1).abs().min() > 1e-3


def test_weights_say_how_the_network_is_built(tmp_path):
    arguments = {
        "architecture": "small",
        "embedding_dim": 8,
        "grid": 2,
        "hidden": 16,
        "dropout": [0.1, 0.2],
        "normalised": True,
    }
    net = RetrievalNet(**arguments).eval()
    save_network(tmp_path / "retrieval.safetensors", net, arguments)
    image = torch.rand(2, 1, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(load_network(tmp_path / "retrieval.safetensors")(image), net(image))
