"""Identity encoders: the counts of IResNet, embeddings, refused arguments."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from gmia_monai.errors import UsageError
from gmia_monai.networks import IdentityNet
from gmia_monai.networks.identity import IDENTITY_ARCHITECTURES, _Block


def test_iresnet50_at_256_px_has_the_parameters_of_the_paper():
    with torch.device("meta"):
        net = IdentityNet(256)
    assert sum(p.numel() for p in net.parameters()) == pytest.approx(97.9e6, rel=0.01)
    assert net.fc.weight.shape == (512, 512 * 16 * 16)


@pytest.mark.parametrize(("architecture", "blocks"), [("small", 6), ("iresnet18", 8), ("iresnet50", 24)])
def test_depths(architecture, blocks):
    with torch.device("meta"):
        net = IdentityNet(64, architecture)
    found = [m for m in net.modules() if isinstance(m, _Block)]
    assert len(found) == blocks
    # Four halvings, each in the second convolution of the first block of a stage.
    assert [m.body[4].stride for m in found].count((2, 2)) == 4
    assert all(m.body[1].stride == (1, 1) for m in found)


@pytest.mark.parametrize("architecture", ["small", "small_pooled", "iresnet18"])
def test_embeddings_are_neither_normalised_nor_coupled_in_eval_mode(architecture):
    torch.manual_seed(0)
    net = IdentityNet(64, architecture, embedding_dim=96).eval()
    x = torch.rand(3, 1, 64, 64)
    with torch.no_grad():
        out = net(x)
        torch.testing.assert_close(out[1:2], net(x[1:2]), rtol=1e-3, atol=1e-4 * out.abs().max().item())
    assert out.shape == (3, 96) and out.dtype == torch.float32
    assert (out[0] - out[1]).abs().max() > 0
    assert not torch.allclose(out.norm(dim=1), torch.ones(3), atol=1e-2)


def test_block_is_its_printed_order():
    torch.manual_seed(0)
    block = _Block(6, 8, stride=2).eval()
    for module in block.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2.0)
    x = torch.randn(2, 6, 10, 10)

    def norm(bn, y):
        shape = (1, -1, 1, 1)
        scale = bn.weight / (bn.running_var + bn.eps).sqrt()
        return (y - bn.running_mean.view(shape)) * scale.view(shape) + bn.bias.view(shape)

    bn1, conv1, bn2, prelu, conv2, bn3 = block.body
    y = norm(bn2, F.conv2d(norm(bn1, x), conv1.weight, padding=1))
    y = torch.where(y > 0, y, y * prelu.weight.view(1, -1, 1, 1))
    y = norm(bn3, F.conv2d(y, conv2.weight, stride=2, padding=1))
    skip = norm(block.skip[1], F.conv2d(x, block.skip[0].weight, stride=2))
    torch.testing.assert_close(block(x), y + skip, rtol=1e-4, atol=1e-5)


def test_pooled_encoder_is_the_average_of_its_trunk_and_scriptable():
    torch.manual_seed(0)
    net, x = IdentityNet(64, "small_pooled", embedding_dim=24), torch.rand(5, 1, 64, 64)
    net(x)  # other than initial statistics
    net.eval()
    with torch.no_grad():
        average = net.trunk(2.0 * x - 1.0).mean(dim=(2, 3))
        raw = average @ net.fc.weight.T + net.fc.bias
        expected = (raw - net.norm.running_mean) / (net.norm.running_var + net.norm.eps).sqrt() + net.norm.bias
        torch.testing.assert_close(net(x), expected, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(torch.jit.script(net)(x), net(x))


def test_two_views_are_the_image_and_its_mirror_image_and_cosines_their_mean():
    torch.manual_seed(0)
    net, x = IdentityNet(64, "small_pooled", embedding_dim=24, two_views=True), torch.rand(5, 1, 64, 64)
    assert net(x).shape == (5, 24), "one view in training"
    one = IdentityNet(64, "small_pooled", embedding_dim=24).eval()
    one.load_state_dict(net.eval().state_dict())
    with torch.no_grad():
        found, a, b = net(x), one(x), one(x.flip(-1))
        assert found.shape == (5, 48)
        torch.testing.assert_close(torch.jit.script(net)(x), found)
        mean = (F.cosine_similarity(a[:1], a) + F.cosine_similarity(b[:1], b)) / 2
        torch.testing.assert_close(F.cosine_similarity(found[:1], found), mean)
        torch.testing.assert_close(net(x.flip(-1)), found.roll(24, dims=1))


def test_scale_of_the_embedding_is_fixed_and_dropout_is_for_training_only():
    torch.manual_seed(0)
    net = IdentityNet(32, "small", embedding_dim=32, dropout=0.5)
    assert [n for n, p in net.named_parameters() if not p.requires_grad] == ["norm.weight"]
    assert torch.equal(net.norm.weight, torch.ones(32))
    x = torch.rand(4, 1, 32, 32)
    assert not torch.equal(net(x), net(x))
    net.eval()
    assert torch.equal(net(x), net(x))


@pytest.mark.parametrize(
    ("image_size", "architecture"), [(64, "resnet50"), (72, "small"), (8, "small"), (0, "small"), (-16, "iresnet50")]
)
def test_unsupported_encoders_are_refused(image_size, architecture):
    with pytest.raises(UsageError) as caught:
        IdentityNet(image_size, architecture)
    assert caught.value.code == "GM-U011"
    assert all(name in str(caught.value) for name in IDENTITY_ARCHITECTURES)


def test_double_precision_is_kept():
    torch.manual_seed(0)
    net, x = IdentityNet(32, "small", embedding_dim=16).eval(), torch.rand(2, 1, 32, 32)
    with torch.no_grad():
        single, double = net(x), net.double()(x.double())
    assert double.dtype == torch.float64
    torch.testing.assert_close(double.float(), single, rtol=1e-3, atol=1e-4 * single.abs().max().item())


def test_embedding_is_float32_under_autocast():
    net = IdentityNet(32, "small", embedding_dim=16).eval()
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        assert net(torch.rand(2, 1, 32, 32)).dtype == torch.float32
