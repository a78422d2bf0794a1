"""Identification against double loops."""

from __future__ import annotations

from itertools import permutations

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


@pytest.mark.parametrize("per_patient", [False, True])
def test_map_at_r_of_a_gallery_size_is_the_mean_over_drawn_galleries(per_patient):
    rng = np.random.default_rng(4)
    patients = np.repeat(np.arange(12), [2, 3, 4, 5] * 3)
    n = len(patients)
    embeddings = rng.normal(size=(12, 5))[patients] + 0.9 * rng.normal(size=(n, 5))
    table = identify(embeddings, patients)
    unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)

    def drawn_once(q: int, size: int) -> float:
        mates = [i for i in range(n) if patients[i] == patients[q] and i != q]
        others = [i for i in range(n) if patients[i] != patients[q]]
        gallery = mates + list(rng.choice(others, size=max(size - len(mates), 0), replace=False))
        ranked = sorted(gallery, key=lambda i: -float(unit[i] @ unit[q]))
        hits = np.array([i in mates for i in ranked[: len(mates)]])
        precision = np.cumsum(hits) / np.arange(1, len(mates) + 1)
        return float((precision * hits).sum() / len(mates))

    weights = table.weights(per_patient)
    for size in (3, 12):
        naive = [np.mean([drawn_once(q, size) for _ in range(150)]) for q in table.query]
        found = table.map_at_r_at_gallery(size, per_patient=per_patient)
        assert found == pytest.approx(np.average(naive, weights=weights), abs=0.01)
    assert table.map_at_r_at_gallery(1, per_patient=per_patient) == 1.0, "matches alone"
    assert table.map_at_r_at_gallery(n - 1, per_patient=per_patient) == pytest.approx(
        table.map_at_r(per_patient=per_patient)
    )
    with pytest.raises(UsageError, match="GM-U222"):
        table.map_at_r_at_gallery(0)


def test_with_one_match_each_map_at_r_is_rank_1_at_every_size():
    rng = np.random.default_rng(6)
    patients = np.repeat(np.arange(300), 2)
    embeddings = rng.normal(size=(300, 6))[patients] + 0.8 * rng.normal(size=(600, 6))
    table = identify(embeddings, patients)
    for size in (2, 10, 100, 599):
        assert table.map_at_r_at_gallery(size) == pytest.approx(table.rank_k_at_gallery(size), abs=1e-9)


@pytest.mark.parametrize("per_patient", [False, True])
def test_chance_is_the_mean_over_all_orders(per_patient):
    patients = np.array([0, 0, 1, 1, 1, 2])
    table = identify(np.random.default_rng(0).normal(size=(6, 3)), patients)
    expected = {"rank_1": [], "rank_2": [], "map_at_r": []}
    for i in table.query:
        others = [patients[j] == patients[i] for j in range(6) if j != i]
        r, orders = sum(others), list(permutations(others))
        expected["rank_1"].append(np.mean([hits[0] for hits in orders]))
        expected["rank_2"].append(np.mean([any(hits[:2]) for hits in orders]))
        precision = [sum(sum(hits[:k]) / k for k in range(1, r + 1) if hits[k - 1]) / r for hits in orders]
        expected["map_at_r"].append(np.mean(precision))
    weights = [1 / 2, 1 / 2, 1 / 3, 1 / 3, 1 / 3] if per_patient else None
    want = {name: np.average(values, weights=weights) for name, values in expected.items()}
    assert table.rank_k_by_chance(1, per_patient=per_patient) == pytest.approx(want["rank_1"])
    assert table.rank_k_by_chance(2, per_patient=per_patient) == pytest.approx(want["rank_2"])
    assert table.map_at_r_by_chance(per_patient=per_patient) == pytest.approx(want["map_at_r"])


@pytest.mark.parametrize("per_patient", [False, True])
def test_chance_at_a_gallery_size_is_the_mean_over_random_orders_and_drawn_galleries(per_patient):
    """Random scores, by the definition: the best match among drawn others; all matches among the rest."""
    rng = np.random.default_rng(9)
    patients = np.repeat(np.arange(8), [1, 2, 3, 4, 2, 3, 4, 5])
    folders = np.where(np.arange(8) < 4, "a", "b")[patients]
    table = identify(rng.normal(size=(24, 3)), patients, folders)
    weights, draws = table.weights(per_patient), 4000
    for size in (1, 3, 8, 100):
        best, ap = np.zeros((len(table.query), draws, 2)), np.zeros((len(table.query), draws))
        for i, q in enumerate(table.query):
            r = int(((patients == patients[q]) & (folders == folders[q])).sum()) - 1
            n_others = int(((patients != patients[q]) & (folders == folders[q])).sum())
            matches, others = rng.random((draws, r)), rng.random((draws, n_others))
            above = (others[:, : size - 1] > matches.max(axis=1)[:, None]).sum(axis=1)
            best[i] = np.stack([above < 1, above < 3], axis=1)
            gallery = np.concatenate([matches, others[:, : max(size - r, 0)]], axis=1)
            hits = np.argsort(-gallery, axis=1)[:, :r] < r
            ap[i] = (np.cumsum(hits, axis=1) / np.arange(1, r + 1) * hits).sum(axis=1) / r
        want = [np.average(best[..., j].mean(axis=1), weights=weights) for j in (0, 1)]
        found = [table.rank_k_by_chance_at_gallery(size, k, per_patient=per_patient) for k in (1, 3)]
        assert found == pytest.approx(want, abs=0.006)
        found_ap = table.map_at_r_by_chance_at_gallery(size, per_patient=per_patient)
        assert found_ap == pytest.approx(np.average(ap.mean(axis=1), weights=weights), abs=0.006)
    assert table.rank_k_by_chance_at_gallery(100, 5) == pytest.approx(table.rank_k_by_chance(5))
    assert table.map_at_r_by_chance_at_gallery(100) == pytest.approx(table.map_at_r_by_chance())
    for ask in (table.rank_k_by_chance_at_gallery, table.map_at_r_by_chance_at_gallery):
        with pytest.raises(UsageError, match="GM-U222"):
            ask(0)


def test_random_scores_are_at_their_chance_at_every_gallery_size():
    """Meaningless embeddings of many people land where chance says, which is well above one in the size."""
    patients = np.repeat(np.arange(400), 5)
    table = identify(np.random.default_rng(2).normal(size=(2000, 8)), patients)
    for size in (10, 100, 1000):
        chance = table.rank_k_by_chance_at_gallery(size)
        assert table.rank_k_at_gallery(size) == pytest.approx(chance, abs=0.02)
        assert chance == pytest.approx(4 / (size + 3))


def test_others_before_each_match_are_counted():
    angles = np.deg2rad([0, 10, 5, 40, 20])  # the query, its match, another, its match, another
    embeddings = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    table = identify(embeddings, np.array([0, 0, 1, 0, 2]), asked=np.array([True, False, False, False, False]))
    assert table.above.tolist() == [[1, 2]]
    assert table.average_precision_at_r.tolist() == [0.5 * 0.5]


def test_a_gallery_of_the_patient_alone():
    table = identify(np.eye(3), np.zeros(3, dtype=int))
    assert table.rank_k_at_gallery(2) == table.map_at_r_at_gallery(2) == 1.0


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
