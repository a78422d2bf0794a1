"""Contrastive loss with a memory, against loops over pairs; the memory survives a checkpoint."""

from __future__ import annotations

import io

import pytest
import torch

from gmia_monai.losses import MemoryContrastive


def _naive(batch: torch.Tensor, labels: torch.Tensor, remembered: list[tuple[torch.Tensor, int]], margin: float):
    """Of each image of a batch with all that is remembered, but not with itself: the last entries are the batch."""
    same, other = [], []
    own = len(remembered) - len(batch)
    for i, (embedding, label) in enumerate(zip(batch, labels.tolist(), strict=True)):
        for j, (held, of) in enumerate(remembered):
            distance = ((embedding - held) ** 2).sum().sqrt()
            if label == of:
                if j != own + i:
                    same.append(distance)
            else:
                other.append(torch.relu(margin - distance))
    costly = [[x for x in kind if x > 0] for kind in (same, other)]
    return sum(torch.stack(kind).mean() for kind in costly if kind)


def test_batches_are_compared_with_themselves_and_with_the_last_ones():
    g = torch.Generator().manual_seed(0)
    loss = MemoryContrastive(embedding_dim=4, memory_size=12, margin=1.5)
    remembered: list[tuple[torch.Tensor, int]] = []
    for step in range(4):
        batch, labels = 0.5 * torch.randn(6, 4, generator=g), torch.randint(0, 3, (6,), generator=g)
        remembered = [*remembered, *zip(batch, labels.tolist(), strict=True)][-12:]
        expected = _naive(batch, labels, remembered, 1.5)
        assert expected > 0 and loss(batch, labels).item() == pytest.approx(float(expected), rel=1e-3), step


def test_lengths_count():
    """Embeddings are not normalised: longer ones of strangers cost nothing."""
    near, labels = torch.tensor([[0.1, 0.0], [0.0, 0.1]]), torch.tensor([0, 1])
    assert MemoryContrastive(2, 8)(near, labels) > 0.8
    assert MemoryContrastive(2, 8)(20 * near, labels) == 0.0


def test_a_resumed_memory_goes_on_where_it_was():
    g = torch.Generator().manual_seed(1)
    batches = [(torch.randn(4, 3, generator=g), torch.randint(0, 2, (4,), generator=g)) for _ in range(4)]
    whole, first, second = (MemoryContrastive(3, 10, margin=4.0) for _ in range(3))
    expected = [whole(*batch).item() for batch in batches]
    for batch in batches[:3]:
        first(*batch)
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    second.load_state_dict(torch.load(file, weights_only=True))
    assert second(*batches[3]).item() == pytest.approx(expected[3], rel=1e-6)
    assert MemoryContrastive(3, 10, margin=4.0)(*batches[3]).item() != pytest.approx(expected[3], rel=1e-3)
