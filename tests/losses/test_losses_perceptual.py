"""Perceptual losses: LPIPS against the lpips package, lpips_cxr against hooks on the utility network."""

from __future__ import annotations

import urllib.error
import warnings

import pytest
import torch
from torch import nn

from gmia_monai.errors import ResourceError, UsageError
from gmia_monai.losses import LPIPS, CXRPerceptualLoss
from gmia_monai.losses.perceptual import import_torchvision
from gmia_monai.networks import UtilityNet

LAYERS = ("relu0", "denseblock1", "denseblock2")


@pytest.fixture(scope="module")
def utility():
    torch.manual_seed(0)
    net = UtilityNet(3, mean=0.45, std=0.3)
    net(torch.rand(4, 1, 64, 64))  # other than initial statistics
    return net.eval()


@pytest.fixture
def images():
    torch.manual_seed(1)
    return torch.rand(2, 3, 1, 64, 64)


def naive_cxr_distance(utility, layers, a, b):
    kept = {}

    def keep(name):
        return lambda module, args, output: kept.setdefault(name, []).append(output.clone())

    handles = [getattr(utility.trunk, name).register_forward_hook(keep(name)) for name in layers]
    with torch.no_grad():
        utility(a)
        utility(b)
    for handle in handles:
        handle.remove()
    distances = torch.zeros(len(a))
    for f, g in kept.values():
        for i in range(len(a)):
            unit = [v[i] / (v[i].norm(dim=0, keepdim=True) + 1e-12) for v in (f, g)]
            distances[i] += (unit[0] - unit[1]).square().sum(dim=0).mean()
    return distances


@pytest.mark.parametrize("layers", [LAYERS, ("denseblock1",), ("norm0", "relu0", "norm5")])
def test_lpips_cxr_is_the_distance_of_hooked_features(utility, images, layers):
    loss = CXRPerceptualLoss(utility, layers)
    ours = loss(*images)
    assert ours.shape == (3,) and (ours > 0).all()
    torch.testing.assert_close(ours, naive_cxr_distance(utility, layers, *images), rtol=1e-3, atol=1e-5)


def test_lpips_cxr_is_zero_for_equal_images_and_symmetric(utility, images):
    loss = CXRPerceptualLoss(utility)
    assert loss(images[0], images[0]).abs().max() == 0
    torch.testing.assert_close(loss(images[0], images[1]), loss(images[1], images[0]))
    nearer = images[0] + 0.1 * (images[1] - images[0])
    assert (loss(nearer, images[0]) < loss(images[1], images[0])).all()


def test_lpips_cxr_has_gradients_to_the_prediction_alone(utility, images):
    loss = CXRPerceptualLoss(utility)
    prediction, target = images[0].clone().requires_grad_(), images[1].clone().requires_grad_()
    loss(prediction, target).sum().backward()
    assert prediction.grad.abs().sum() > 0 and target.grad is None
    assert all(not p.requires_grad and p.grad is None for p in loss.parameters())
    moved = (prediction - 0.05 * prediction.grad.sign()).detach()
    assert loss(moved, images[1]).sum() < loss(images[0], images[1]).sum()


def test_lpips_cxr_gradient_is_the_finite_difference(utility, images):
    # In-place operators between the features that are kept would falsify the gradient, or stop it.
    loss = CXRPerceptualLoss(utility, ("norm0", *LAYERS))
    prediction = images[0, :1].clone().requires_grad_()
    (gradient,) = torch.autograd.grad(loss(prediction, images[1, :1]).sum(), prediction)
    direction = gradient / gradient.norm()
    step = 0.02
    with torch.no_grad():
        difference = loss(prediction + step * direction, images[1, :1]) - loss(
            prediction - step * direction, images[1, :1]
        )
    assert difference.item() / (2 * step) == pytest.approx(gradient.norm().item(), rel=0.05)


def test_lpips_cxr_stays_in_eval_mode(utility, images):
    loss = CXRPerceptualLoss(utility)
    before = loss(*images)
    statistics = utility.trunk.norm0.running_mean.clone()
    nn.ModuleList([loss]).train()
    assert not any(m.training for m in loss.modules())
    assert torch.equal(loss(*images), before) and torch.equal(utility.trunk.norm0.running_mean, statistics)


def test_lpips_cxr_refuses_unknown_layers(utility):
    with pytest.raises(UsageError) as caught:
        CXRPerceptualLoss(utility, ("relu0", "denseblock9"))
    assert caught.value.code == "GM-U021" and caught.value.got == "denseblock9"
    assert "denseblock4" in caught.value.expected


@pytest.fixture(scope="module")
def alexnet_file(tmp_path_factory):
    import_torchvision()
    import torchvision

    torch.manual_seed(2)
    path = tmp_path_factory.mktemp("trunk") / "alexnet.pth"
    torch.save(torchvision.models.alexnet(weights=None).state_dict(), path)
    return path


def their_lpips(net="alex"):
    import_torchvision()
    import lpips

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return lpips.LPIPS(net=net, pnet_rand=True, verbose=False)


def their_distance(metric, a, b):
    pairs = [(x.repeat(1, 3, 1, 1), y.repeat(1, 3, 1, 1)) for x, y in zip(a, b, strict=True)]
    return torch.stack([metric(x, y, normalize=True).squeeze() for x, y in pairs])


def test_torchvision_can_be_imported_more_than_once():
    import_torchvision()
    import_torchvision()
    import torchvision

    assert callable(torchvision.models.alexnet)


@pytest.mark.parametrize("net", ["alex", "vgg"])
def test_lpips_is_the_package_on_the_same_trunk(images, net):
    small = images[:, :, :, :48, :48]
    ours, theirs = LPIPS(net, "random"), their_lpips(net)
    missing = theirs.net.load_state_dict(ours.metric.net.state_dict())
    assert not missing.missing_keys
    with torch.no_grad():
        expected = their_distance(theirs, small[0][:, None], small[1][:, None])
        distance = ours(small[0], small[1])
    assert distance.shape == (3,) and (distance > 0).all()
    torch.testing.assert_close(distance, expected, rtol=1e-4, atol=1e-7)


def test_lpips_has_the_learned_heads_of_the_package(alexnet_file):
    # The heads come with the package, so that a random trunk still has them: none is negative, none is empty.
    heads = [lin.model[-1].weight for lin in LPIPS("alex", alexnet_file).metric.lins]
    assert [h.shape[1] for h in heads] == [64, 192, 384, 256, 256]
    assert all((h >= 0).all() and h.sum() > 0 for h in heads)


@pytest.mark.parametrize("kind", [str, None])
def test_lpips_takes_a_local_trunk(images, alexnet_file, kind):
    ours, theirs = LPIPS("alex", kind(alexnet_file) if kind else alexnet_file), their_lpips()
    state = torch.load(alexnet_file, weights_only=True)
    for index, slice_name in ((0, "slice1"), (3, "slice2"), (6, "slice3"), (8, "slice4"), (10, "slice5")):
        convolution = getattr(theirs.net, slice_name).get_submodule(str(index))
        for part in ("weight", "bias"):
            getattr(convolution, part).data.copy_(state[f"features.{index}.{part}"])
    with torch.no_grad():
        torch.testing.assert_close(
            ours(*images), their_distance(theirs, images[0][:, None], images[1][:, None]), rtol=1e-4, atol=1e-7
        )
        assert (ours(*images) - LPIPS("alex", "random")(*images)).abs().max() > 1e-7


def test_lpips_is_frozen_stays_in_eval_mode_and_has_gradients(images, alexnet_file):
    loss = LPIPS("alex", alexnet_file).train()
    assert not any(m.training for m in loss.modules()) and not any(p.requires_grad for p in loss.parameters())
    prediction = images[0].clone().requires_grad_()
    loss(prediction, images[1]).sum().backward()
    assert prediction.grad.abs().sum() > 0
    assert torch.equal(loss(*images), loss(*images)) and loss(images[0], images[0]).abs().max() == 0


def test_unknown_lpips_network():
    with pytest.raises(UsageError) as caught:
        LPIPS("resnet", "random")
    assert caught.value.code == "GM-U022"


def write_nothing(path):
    pass


def write_text(path):
    path.write_text("no weights here")


def write_empty(path):
    path.write_bytes(b"")


def write_other_network(path):
    torch.save({"conv1.weight": torch.zeros(2)}, path)


def write_list(path):
    torch.save([torch.zeros(2)], path)


def write_other_shapes(path):
    torch.save({f"features.{i}.{p}": torch.zeros(2) for i in (0, 3, 6, 8, 10) for p in ("weight", "bias")}, path)


@pytest.mark.parametrize(
    "write", [write_nothing, write_text, write_empty, write_other_network, write_list, write_other_shapes]
)
def test_a_local_trunk_that_does_not_fit_is_refused(tmp_path, write):
    path = tmp_path / "trunk.pth"
    write(path)
    with pytest.raises(UsageError) as caught:
        LPIPS("alex", path)
    assert caught.value.code == "GM-U023" and str(tmp_path) not in str(caught.value)


def test_trunk_of_the_other_network_is_refused(alexnet_file):
    with pytest.raises(UsageError) as caught:
        LPIPS("vgg", alexnet_file)
    assert caught.value.code == "GM-U023" and "vgg16" in str(caught.value)


@pytest.mark.parametrize("error", [urllib.error.URLError("no route"), OSError("timed out")])
def test_without_a_network_the_way_out_is_said(monkeypatch, error):
    import_torchvision()
    import torchvision.models._api as api

    asked = []

    def refuse(url, *args, **kwargs):
        asked.append(url)
        raise error

    monkeypatch.setattr(api, "load_state_dict_from_url", refuse)
    with pytest.raises(ResourceError) as caught:
        LPIPS("alex")
    assert len(asked) == 1 and "alexnet" in asked[0]
    assert caught.value.code == "GM-R020"
    assert "lpips_cxr" in caught.value.next_step and "trunk_weights" in caught.value.next_step
