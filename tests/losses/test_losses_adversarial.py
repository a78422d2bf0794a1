"""Adversarial losses and regularisers against the printed formulas and plain autograd, image by image."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.autograd.functional import jacobian

from gmia_monai.losses import (
    PathLengthPenalty,
    discriminator_logistic_loss,
    generator_logistic_loss,
    r1_penalty,
)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def test_logistic_losses_are_the_log_sigmoids():
    real, fake = torch.randn(2, 6, 1, dtype=torch.float64) * 3
    generator = sum(-math.log(1 / (1 + math.exp(-v))) for v in fake.flatten().tolist()) / 6
    # log(1 - sigmoid(D(G))) + log sigmoid(D(x)), as printed.
    discriminator = sum(-math.log(1 - 1 / (1 + math.exp(-v))) for v in fake.flatten().tolist()) / 6
    discriminator += sum(-math.log(1 / (1 + math.exp(-v))) for v in real.flatten().tolist()) / 6
    assert generator_logistic_loss(fake).item() == pytest.approx(generator, rel=1e-10)
    assert discriminator_logistic_loss(real, fake).item() == pytest.approx(discriminator, rel=1e-10)


def test_logistic_losses_stay_finite_for_sure_discriminators():
    sure = torch.tensor([[-500.0], [500.0]], requires_grad=True)
    loss = generator_logistic_loss(sure)
    (gradient,) = torch.autograd.grad(loss, sure)
    # The generator learns most where its images are found out.
    assert loss.item() == pytest.approx(250.0)
    torch.testing.assert_close(gradient, torch.tensor([[-0.5], [0.0]]))
    assert discriminator_logistic_loss(-sure.detach(), sure.detach()).item() == pytest.approx(500.0)


@pytest.fixture
def discriminator():
    return nn.Sequential(
        nn.Conv2d(1, 3, 3), nn.Softplus(), nn.Flatten(), nn.Linear(3 * 3 * 4, 5), nn.Tanh(), nn.Linear(5, 1)
    ).double()


@pytest.mark.parametrize("gamma", [1.0, 0.3])
def test_r1_is_the_squared_gradient_of_each_image(discriminator, gamma):
    x = torch.randn(4, 1, 5, 6, dtype=torch.float64)
    squares = [jacobian(lambda v: discriminator(v[None])[0, 0], image).square().sum().item() for image in x]
    x.requires_grad_()
    ours = r1_penalty(discriminator(x), x, gamma)
    assert ours.item() == pytest.approx(gamma / 2 * sum(squares) / 4, rel=1e-10)
    if gamma == 1.0:
        assert r1_penalty(discriminator(x), x).item() == ours.item()


def test_gradient_of_r1_is_the_finite_difference(discriminator):
    x = torch.randn(3, 1, 5, 6, dtype=torch.float64, requires_grad=True)
    weight = discriminator[0].weight
    (gradient,) = torch.autograd.grad(r1_penalty(discriminator(x), x), weight)
    direction, values = torch.randn_like(weight), []
    for step in (1e-5, -1e-5):
        with torch.no_grad():
            weight.add_(step * direction)
        values.append(r1_penalty(discriminator(x), x).item())
        with torch.no_grad():
            weight.sub_(step * direction)
    assert gradient.abs().sum() > 0
    assert (gradient * direction).sum().item() == pytest.approx((values[0] - values[1]) / 2e-5, rel=1e-6)


class Generator(nn.Module):
    """``[b, 4]`` or ``[b, 3, 4]`` to ``[b, 1, 3, 5]``; layers have different weights, so that their order matters."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3, 4, 15) * 0.5)

    def forward(self, ws):
        if ws.dim() == 2:
            ws = ws[:, None].expand(-1, 3, -1)
        return torch.einsum("bld,ldp->bp", ws, self.weight).tanh().reshape(-1, 1, 3, 5)


def naive_lengths(generator, ws, y):
    """``||J^T y||`` of each image; in W+ the root of the mean over layers of the squared length of each."""
    lengths = []
    for code, noise in zip(ws, y, strict=True):
        j = jacobian(lambda v: generator(v[None])[0, 0], code)
        jty = (j * noise[0].reshape(3, 5, *[1] * code.dim())).sum(dim=(0, 1))
        lengths.append(jty.square().sum(-1).mean().sqrt())
    return torch.stack(lengths)


@pytest.mark.parametrize("shape", [(6, 4), (6, 3, 4)], ids=["w", "w_plus"])
def test_path_length_is_the_jacobian_on_a_random_image(shape):
    generator, ws = Generator(), torch.randn(shape)
    penalty = PathLengthPenalty(decay=0.1)
    mean = 0.0
    for seed in range(3):
        torch.manual_seed(seed)
        y = torch.randn(6, 1, 3, 5) / math.sqrt(15)
        lengths = naive_lengths(generator, ws, y)
        # The running mean takes the batch in first, as published.
        mean = mean + 0.1 * (lengths.mean().item() - mean)
        leaf = ws.clone().requires_grad_()
        torch.manual_seed(seed)
        value = penalty(generator(leaf), leaf)
        assert value.item() == pytest.approx((lengths - mean).square().mean().item(), rel=1e-4)
        assert penalty.mean.item() == pytest.approx(mean, rel=1e-4)
    assert not penalty.mean.requires_grad


def test_broadcast_w_and_w_plus_are_penalised_by_their_own_codes():
    # A broadcast code collects the gradients of all layers; given as W+, each layer counts by itself.
    generator, w = Generator(), torch.randn(2, 4)
    y = torch.randn(2, 1, 3, 5)
    in_w = naive_lengths(generator, w, y)
    in_w_plus = naive_lengths(generator, w[:, None].repeat(1, 3, 1), y)
    assert (in_w - in_w_plus).abs().max() > 1e-3


def test_path_length_is_differentiable_and_its_mean_follows():
    generator, ws = Generator(), torch.randn(8, 4, requires_grad=True)
    optimizer = torch.optim.SGD(generator.parameters(), lr=0.02)
    penalty = PathLengthPenalty(decay=0.01)
    values = []
    for _ in range(60):
        value = penalty(generator(ws), ws)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        values.append(value.item())
    # Lengths are pulled to a running mean that starts near zero.
    assert sum(values[-10:]) < 0.5 * sum(values[:10])


def test_path_length_state_resumes():
    generator, ws = Generator(), torch.randn(4, 4, requires_grad=True)
    first, second = PathLengthPenalty(), PathLengthPenalty()
    first(generator(ws), ws)
    second.load_state_dict(first.state_dict())
    assert second.mean.item() == first.mean.item() > 0
    values = []
    for penalty in (first, second):
        torch.manual_seed(3)
        values.append(penalty(generator(ws), ws).item())
    assert values[0] == values[1]


def test_linear_generator_has_a_constant_path_length():
    # For an orthonormal map ||J^T y|| is ||y||, whatever the code.
    basis = torch.linalg.qr(torch.randn(15, 15))[0]
    ws = torch.randn(5, 15, requires_grad=True)
    penalty = PathLengthPenalty(decay=1.0)
    torch.manual_seed(1)
    value = penalty((ws @ basis).reshape(5, 1, 3, 5), ws)
    torch.manual_seed(1)
    norms = (torch.randn(5, 1, 3, 5) / math.sqrt(15)).flatten(1).norm(dim=1)
    assert penalty.mean.item() == pytest.approx(norms.mean().item(), rel=1e-5)
    assert value.item() == pytest.approx(norms.var(unbiased=False).item(), rel=1e-4)
