"""Retrieval finds unchanged images, not noise; its curve over the gallery is that of drawn galleries."""

from __future__ import annotations

import numpy as np
import pytest
from attack_cohorts import judged, knowledge

from gmia_monai.attacks.attackers.frozen import FrozenAttacker
from gmia_monai.attacks.pool import AttackerPool
from gmia_monai.attacks.retrieval import RetrievalAttack
from gmia_monai.metrics.results import RunContext
from gmia_monai.metrics.retrieval import identify

CONTEXT = RunContext("x", "cxr64")


def _table(system: str) -> dict:
    attack = RetrievalAttack(AttackerPool({"frozen": FrozenAttacker}), n_boot=50)
    attack.fit(knowledge(system))
    return {r.name: r for r in attack.score(judged(system), CONTEXT)}


@pytest.mark.parametrize("direction", ["released_in_real", "real_in_released"])
def test_it_rings_on_unchanged_images_and_is_silent_on_noise(direction):
    loud, quiet = _table("unchanged"), _table("noise")
    assert loud[f"rank_1.{direction}.frozen.v1"].value > 0.99
    assert loud[f"map_at_r.{direction}.worst.v1"].value > 0.99
    assert quiet[f"rank_1.{direction}.frozen.v1"].value < 0.12  # 2 of 71 at chance
    curve = loud[f"rank_1.{direction}.frozen.v1"].extra["rank_1_at_gallery"]
    assert list(curve) == ["10", "30", "71"] and min(curve.values()) > 0.99


def test_an_inverted_identity_is_found_at_the_far_end():
    table = _table("negative")
    for direction in ("released_in_real", "real_in_released"):
        line = table[f"rank_1.{direction}.worst.v1"]
        assert line.value > 0.9 and line.extra["sign"] == -1.0


def test_the_own_source_is_no_hit():
    rng = np.random.default_rng(0)
    gallery = rng.standard_normal((40, 16))
    patients = np.repeat(np.arange(20), 2)
    # Each query is its own gallery image exactly, and tells nothing of the patient's other image.
    table = identify(gallery, patients, queries=gallery)
    assert table.rank_k(1) < 0.2


def test_expected_rank_at_a_gallery_size_is_the_mean_over_drawn_galleries():
    rng = np.random.default_rng(1)
    n, patients = 60, np.repeat(np.arange(20), 3)
    centre = rng.standard_normal((20, 6))
    embeddings = centre[patients] + 1.2 * rng.standard_normal((n, 6))
    table = identify(embeddings, patients)
    unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    size, hits, draws = 12, 0, 400
    for q in range(n):
        scores = unit @ unit[q]
        mates = [i for i in range(n) if patients[i] == patients[q] and i != q]
        others = [i for i in range(n) if patients[i] != patients[q]]
        best = scores[mates].max()
        for _ in range(draws):
            drawn = rng.choice(others, size=size - 1, replace=False)
            hits += int(scores[drawn].max() < best)
    assert table.rank_k_at_gallery(size) == pytest.approx(hits / (n * draws), abs=0.01)
    assert table.rank_k_at_gallery(10_000) == pytest.approx(table.rank_k(1))
    assert table.rank_k_at_gallery(1) == 1.0


def test_another_comparison_than_the_cosine():
    rng = np.random.default_rng(2)
    patients = np.repeat(np.arange(10), 2)
    embeddings = rng.standard_normal((10, 4))[patients] + 0.01 * rng.standard_normal((20, 4))
    distance = lambda a, b: -np.linalg.norm(a[:, None] - b[None], axis=2)  # noqa: E731
    assert identify(embeddings, patients, compare=distance).rank_k(1) == 1.0
    assert identify(embeddings, patients, compare=lambda a, b: -distance(a, b)).rank_k(1) < 0.2


def test_only_the_asked_are_queries():
    patients = np.repeat(np.arange(4), 2)
    asked = np.array([True, False] * 4)
    table = identify(np.eye(8), patients, asked=asked)
    assert table.query.tolist() == [0, 2, 4, 6]
