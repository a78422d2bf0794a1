"""Confusion losses against their plain forms, and what the published one does not measure."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from gmia_monai.losses.confusion import (
    CONFUSIONS,
    minimax_confusion,
    one_sided_confusion,
    two_sided_confusion,
    verification_loss,
)
from gmia_monai.metrics.verification import roc_auc

SAME = torch.arange(60) < 20


def _logits(seed: int = 0) -> torch.Tensor:
    return 2.0 * torch.randn(60, generator=torch.Generator().manual_seed(seed)) + SAME.float()


def test_losses_are_their_plain_forms():
    z = _logits().double()
    p = torch.sigmoid(z)
    cross = -(torch.where(SAME, p.log(), (1 - p).log())).mean()
    assert one_sided_confusion(z, SAME).item() == pytest.approx(-(1 - p).log().mean().item())
    assert verification_loss(z, SAME).item() == pytest.approx(cross.item())
    assert minimax_confusion(z, SAME).item() == pytest.approx(-cross.item())
    divergence = 0.5 * (0.5 / p).log() + 0.5 * (0.5 / (1 - p)).log()
    expected = 0.5 * (divergence[SAME].mean() + divergence[~SAME].mean())
    assert two_sided_confusion(z, SAME).item() == pytest.approx(expected.item())


def test_the_published_loss_vanishes_under_a_shift_that_leaves_the_auc_as_it_was():
    z = _logits()
    auc = roc_auc(z.double().numpy(), SAME.numpy())
    assert roc_auc((z - 20).double().numpy(), SAME.numpy()) == auc != 0.5
    assert one_sided_confusion(z - 20, SAME) < 1e-6 < 0.5 < one_sided_confusion(z, SAME)
    assert two_sided_confusion(z - 20, SAME) > 5 > two_sided_confusion(z, SAME)


def test_the_two_sided_loss_is_least_at_one_half_and_weighs_both_kinds_alike():
    assert two_sided_confusion(torch.zeros(60), SAME).abs() < 1e-6
    z = torch.where(SAME, 4.0, 0.0)
    few = two_sided_confusion(z, SAME)
    many = two_sided_confusion(torch.where(SAME, 0.0, 4.0), SAME)
    assert few.item() == pytest.approx(many.item(), rel=1e-5)
    assert two_sided_confusion(z[:20], SAME[:20]).item() == pytest.approx(2 * few.item(), rel=1e-5), "one kind alone"


def test_large_logits_stay_finite():
    z = torch.tensor([-200.0, 200.0])
    for name, loss in CONFUSIONS.items():
        assert math.isfinite(loss(z, torch.tensor([True, False])).item()), name
    assert set(CONFUSIONS) == {"confusion", "two_sided", "minimax"}
    assert np.isfinite(one_sided_confusion(z, torch.tensor([True, False])).item())
