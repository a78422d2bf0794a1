"""Identity hinge against the loss of PyTorch that the published code calls."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from gmia_monai.losses import cosine, identity_hinge


@pytest.mark.parametrize("margin", [-0.7, -0.5, 0.0, 0.3])
@pytest.mark.parametrize("scale", [1e-2, 1.0, 50.0])
def test_hinge_is_the_cosine_embedding_loss_of_torch(margin, scale):
    torch.manual_seed(0)
    a = torch.randn(40, 6, dtype=torch.float64) * scale
    b = torch.randn(40, 6, dtype=torch.float64)
    theirs = F.cosine_embedding_loss(a, b, torch.full((40,), -1), margin=margin, reduction="none")
    ours = identity_hinge(a, b, margin)
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-8)
    assert (ours > 0).any() and (ours == 0).any()


def test_cosine_of_each_pair():
    a = torch.tensor([[1.0, 0.0], [1.0, 0.0], [2.0, 0.0], [1.0, 1.0], [0.0, 0.0]])
    b = torch.tensor([[5.0, 0.0], [0.0, 3.0], [-1.0, 0.0], [1.0, 0.0], [1.0, 0.0]])
    torch.testing.assert_close(cosine(a, b), torch.tensor([1.0, 0.0, -1.0, 0.5**0.5, 0.0]))


def test_gradient_stops_at_the_margin():
    reference = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    embedding = torch.tensor([[1.0, 0.2], [-1.0, 0.2]], requires_grad=True)
    identity_hinge(reference, embedding, -0.5).sum().backward()
    assert embedding.grad[0].abs().sum() > 0 and embedding.grad[1].abs().sum() == 0
    # A step against the gradient turns the embedding away from the reference.
    moved = (embedding - embedding.grad).detach()
    assert cosine(reference, moved)[0] < cosine(reference, embedding)[0]
