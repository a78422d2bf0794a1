"""ArcFace and masked cross-entropy against loops over the printed formulas."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from gmia_monai.losses import ArcFace, MaskedBCE, positive_weights


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def naive_arcface(weight, embeddings, labels, margin_rad, scale):
    losses = []
    for x, y in zip(embeddings, labels.tolist(), strict=True):
        cosines = [float(x @ w / (x.norm() * w.norm())) for w in weight.t()]
        logits = [scale * c for c in cosines]
        logits[y] = scale * math.cos(math.acos(cosines[y]) + margin_rad)
        top = max(logits)
        losses.append(top + math.log(sum(math.exp(v - top) for v in logits)) - logits[y])
    return sum(losses) / len(losses)


@pytest.mark.parametrize(("margin_rad", "scale"), [(0.5, 64.0), (0.3, 32.0), (0.0, 16.0)])
def test_arcface_is_the_printed_formula_with_the_margin_in_radians(margin_rad, scale):
    loss = ArcFace(7, 5, margin_rad=margin_rad, scale=scale)
    labels = torch.tensor([0, 3, 6, 3])
    # Near their own class, where theta + margin is below pi.
    embeddings = loss.W.detach().t()[labels] * 2 + 0.5 * loss.W.std().item() * torch.randn(4, 5)
    expected = naive_arcface(loss.W.detach(), embeddings, labels, margin_rad, scale)
    assert loss(embeddings, labels).item() == pytest.approx(expected, rel=1e-3, abs=1e-4)


def test_defaults_are_those_of_the_paper():
    loss = ArcFace(3)
    assert loss.margin == pytest.approx(0.5) and loss.scale == 64.0 and loss.W.shape == (512, 3)


def test_margin_can_be_ramped_up_in_radians():
    loss = ArcFace(6, 4, margin_rad=0.0, scale=8.0)
    labels = torch.tensor([1, 5, 2])
    embeddings = loss.W.detach().t()[labels] + 0.3 * loss.W.std().item() * torch.randn(3, 4)
    values = []
    for margin_rad in (0.0, 0.15, 0.3):
        loss.set_margin_rad(margin_rad)
        assert loss.margin == margin_rad
        values.append(loss(embeddings, labels).item())
        expected = naive_arcface(loss.W.detach(), embeddings, labels, margin_rad, 8.0)
        assert values[-1] == pytest.approx(expected, rel=1e-3)
    assert values[0] < values[1] < values[2]


def test_arcface_falls_with_the_angle_up_to_the_opposite_pole():
    loss = ArcFace(2, 2, margin_rad=0.5, scale=4.0)
    with torch.no_grad():
        loss.W.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
    angles = torch.linspace(0, -math.pi + 1e-3, 40)
    points = torch.stack([angles.cos(), angles.sin()], 1)
    values = [loss(p[None], torch.tensor([0])).item() for p in points]
    target_logits = [loss.modify_cosine_of_target_classes(p[:1]).item() for p in points]
    assert all(a > b for a, b in zip(target_logits, target_logits[1:], strict=False))
    assert values[0] < values[20] and all(math.isfinite(v) for v in values)


def test_arcface_trains_its_classes_and_the_embedding():
    loss = ArcFace(4, 3)
    embeddings = torch.randn(5, 3, requires_grad=True)
    loss(embeddings, torch.tensor([0, 1, 2, 3, 0])).backward()
    assert loss.W.grad.abs().sum() > 0 and embeddings.grad.abs().sum() > 0
    # Only the direction of an embedding counts.
    labels = torch.tensor([0, 1, 2, 3, 0])
    torch.testing.assert_close(loss(embeddings * 7.0, labels), loss(embeddings, labels), rtol=1e-4, atol=1e-4)


def naive_bce(logits, labels, weights):
    total, n = 0.0, 0
    for row, truth in zip(logits.tolist(), labels.tolist(), strict=True):
        for k, (logit, label) in enumerate(zip(row, truth, strict=True)):
            if math.isnan(label):
                continue
            p = 1 / (1 + math.exp(-logit))
            total -= weights[k] * label * math.log(p) + (1 - label) * math.log(1 - p)
            n += 1
    return total / n


@pytest.mark.parametrize("weights", [None, [1.0, 3.0, 0.5]])
def test_masked_bce_is_the_loop_over_known_labels(weights):
    logits = torch.randn(5, 3) * 2
    labels = torch.tensor([[1, 0, math.nan], [math.nan] * 3, [0.7, 0.2, 1], [0, math.nan, 0], [1, 1, 1]])
    expected = naive_bce(logits, labels, weights or [1.0] * 3)
    assert MaskedBCE(weights)(logits, labels).item() == pytest.approx(expected, rel=1e-5)


def test_unknown_labels_have_no_gradient():
    logits = torch.randn(2, 2, requires_grad=True)
    MaskedBCE()(logits, torch.tensor([[1.0, math.nan], [math.nan, 0.0]])).backward()
    assert (logits.grad != 0).tolist() == [[True, False], [False, True]]


def test_a_batch_without_any_known_label_costs_nothing():
    logits = torch.randn(2, 2, requires_grad=True)
    loss = MaskedBCE([2.0, 2.0])(logits, torch.full((2, 2), math.nan))
    loss.backward()
    assert loss.item() == 0 and logits.grad.abs().sum() == 0


def test_masked_bce_without_gaps_is_that_of_torch():
    logits, labels = torch.randn(6, 4), torch.randint(0, 2, (6, 4)).float()
    weight = torch.tensor([1.0, 2.0, 3.0, 4.0])
    theirs = F.binary_cross_entropy_with_logits(logits, labels, pos_weight=weight)
    torch.testing.assert_close(MaskedBCE(weight.tolist())(logits, labels), theirs)


def test_positive_weights_are_the_ratio_under_a_power_and_a_limit():
    nan = np.nan
    labels = np.array([[1, 1, 0, nan], [0, 0, 0, 1], [0, 0, 0, nan], [0, 0, nan, 1], [0, 1, 0, 0]], np.float32)
    assert positive_weights(labels, power=1.0) == pytest.approx([4.0, 1.5, 10.0, 0.5])
    assert positive_weights(labels) == pytest.approx([2.0, 1.5**0.5, 10.0, 0.5**0.5])
    assert positive_weights(labels, power=1.0, limit=3.0) == pytest.approx([3.0, 1.5, 3.0, 0.5])
    assert positive_weights(labels[:, [0, 1, 3]], power=0.0) == pytest.approx([1.0, 1.0, 1.0])
    # What it gives is what MaskedBCE takes.
    assert MaskedBCE(positive_weights(labels)).positive_weight.shape == (4,)
