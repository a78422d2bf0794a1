"""The classifier of patients: logits that are linear in an embedding."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from gmia_monai.errors import UsageError
from gmia_monai.networks.patient_classifier import PatientClassifier


def test_logits_are_linear_in_the_embedding():
    torch.manual_seed(0)
    network = PatientClassifier(32, 7, "small_pooled", embedding_dim=16).eval()
    images = torch.rand(3, 1, 32, 32)
    with torch.no_grad():
        logits = network(images)
        expected = network.encoder(images) @ network.head.weight.T + network.head.bias
    assert logits.shape == (3, 7) and torch.allclose(logits, expected, atol=1e-6)


def test_logits_are_float32_in_mixed_precision():
    network = PatientClassifier(32, 5, embedding_dim=16).eval()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert network(torch.rand(2, 1, 32, 32)).dtype == torch.float32


def test_it_learns_who_is_who():
    torch.manual_seed(0)
    images = torch.rand(4, 1, 32, 32)
    network = PatientClassifier(32, 4, embedding_dim=8)
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
    losses = []
    for _ in range(20):
        losses.append(F.cross_entropy(network(images), torch.arange(4)))
        optimizer.zero_grad()
        losses[-1].backward()
        optimizer.step()
    assert losses[-1] < 0.3 * losses[0]


def test_another_image_size_is_refused():
    with pytest.raises(UsageError) as caught:
        PatientClassifier(20, 4)
    assert caught.value.code == "GM-U011"
