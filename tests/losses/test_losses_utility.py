"""Utility drift in both forms."""

from __future__ import annotations

import pytest
import torch

from gmia_monai.errors import UsageError
from gmia_monai.losses import utility_drift


def test_both_forms_are_the_loops():
    torch.manual_seed(0)
    a, b = torch.randn(3, 8, dtype=torch.float64), torch.randn(3, 8, dtype=torch.float64)
    for i, row in enumerate(utility_drift(a, b).tolist()):
        assert row == pytest.approx(sum((p - q) ** 2 for p, q in zip(a[i].tolist(), b[i].tolist(), strict=True)) / 8)
    torch.testing.assert_close(utility_drift(a, b, "mse"), utility_drift(a, b))
    torch.testing.assert_close(utility_drift(a, b, "norm"), torch.linalg.vector_norm(a - b, dim=1))


@pytest.mark.parametrize("form", ["mse", "norm"])
def test_equal_features_have_no_drift_and_a_finite_gradient(form):
    a = torch.randn(2, 8)
    b = a.clone().requires_grad_()
    drift = utility_drift(a, b, form)
    drift.sum().backward()
    assert drift.max() <= 1e-6 and torch.isfinite(b.grad).all() and b.grad.abs().max() == 0


def test_another_form_is_refused():
    with pytest.raises(UsageError) as caught:
        utility_drift(torch.zeros(1, 2), torch.zeros(1, 2), "l1")
    assert caught.value.code == "GM-U020" and caught.value.got == "l1"
