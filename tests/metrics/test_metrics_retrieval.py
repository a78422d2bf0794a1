"""Identification against double loops."""

from __future__ import annotations

import numpy as np
import pytest

from gmia_monai.errors import UsageError
from gmia_monai.metrics.retrieval import identify


def _naive(embeddings, patients, folders):
    """For each query: place of its first match, average precision at R."""
    found = {}
    for i in range(len(embeddings)):
        gallery = [j for j in range(len(embeddings)) if j != i and folders[j] == folders[i]]
        relevant = sum(patients[j] == patients[i] for j in gallery)
        if not relevant:
            continue

        def cosine(j, i=i):
            a, b = embeddings[i], embeddings[j]
            return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))

        ranked = sorted(gallery, key=cosine, reverse=True)
        hits = [patients[j] == patients[i] for j in ranked]
        ap = sum(sum(hits[:k]) / k for k in range(1, relevant + 1) if hits[k - 1]) / relevant
        found[i] = (hits.index(True) + 1, ap, len(gallery))
    return found


@pytest.mark.parametrize("noise", [0.3, 1.5])
def test_ranks_and_map_are_those_of_the_double_loop(noise):
    rng = np.random.default_rng(0)
    patients = rng.integers(0, 25, 90)
    folders = np.where(rng.random(90) < 0.6, "a", "b")
    embeddings = rng.normal(size=(25, 8))[patients] + noise * rng.normal(size=(90, 8))
    naive = _naive(embeddings, patients, folders)
    table = identify(embeddings, patients, folders)
    assert table.query.tolist() == sorted(naive)
    assert table.rank.tolist() == [naive[i][0] for i in sorted(naive)]
    assert table.average_precision_at_r == pytest.approx([naive[i][1] for i in sorted(naive)])
    assert table.gallery.tolist() == [naive[i][2] for i in sorted(naive)]
    for k in (1, 5):
        assert table.rank_k(k) == pytest.approx(np.mean([naive[i][0] <= k for i in naive]))
    by_patient = [np.mean([naive[i][0] <= 1 for i in naive if patients[i] == p]) for p in set(patients[list(naive)])]
    assert table.rank_k(1, per_patient=True) == pytest.approx(np.mean(by_patient))
    assert table.precision_at_1() == table.rank_k(1)


def test_pairs_do_not_cross_folders():
    """The nearest image of the same patient in another folder must not help."""
    embeddings = np.eye(4)
    embeddings[2] = embeddings[0]
    table = identify(embeddings, np.array([1, 2, 1, 3]), np.array(["a", "a", "b", "b"]))
    assert len(table.query) == 0
    assert np.isnan(table.rank_k()) and np.isnan(table.map_at_r())


def test_constant_embeddings_are_in_the_middle_whatever_the_order():
    patients = np.repeat(np.arange(100), 2)
    table = identify(np.ones((200, 4)), patients)
    assert np.all(table.rank == 1 + 0.5 * 198)
    assert table.rank_k(1) == 0.0
    assert table.map_at_r() < 0.1


def test_chunks_do_not_matter(monkeypatch):
    rng = np.random.default_rng(3)
    patients, embeddings = rng.integers(0, 10, 50), rng.normal(size=(50, 5))
    whole = identify(embeddings, patients)
    monkeypatch.setattr("gmia_monai.metrics.retrieval._CHUNK", 7)
    parts = identify(embeddings, patients)
    assert np.array_equal(whole.rank, parts.rank)
    assert whole.map_at_r() == pytest.approx(parts.map_at_r())


def test_a_perfect_encoder_finds_everyone():
    patients = np.repeat(np.arange(20), 3)
    table = identify(np.eye(20)[patients], patients)
    assert table.rank_k(1) == table.map_at_r() == 1.0


def test_unusable_embeddings_are_refused():
    with pytest.raises(UsageError, match="GM-U221"):
        identify(np.full((2, 2), np.nan), np.array([0, 0]))
