"""Retrieval finds unchanged images, not noise and not under shuffled names; its curves are those of drawn galleries."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from attack_cohorts import flat, judged, knowledge, released
from scipy.stats import norm

from gmia_monai.attacks.attackers.frozen import FrozenAttacker
from gmia_monai.attacks.base import AttackerKnowledge, Judged, TooLittleDataError
from gmia_monai.attacks.pool import AttackerPool
from gmia_monai.attacks.retrieval import RetrievalAttack
from gmia_monai.data.cohort import Cohort
from gmia_monai.data.release import RealImages
from gmia_monai.errors import UsageError
from gmia_monai.metrics.intervals import patient_bootstrap
from gmia_monai.metrics.results import RunContext
from gmia_monai.metrics.retrieval import identify
from gmia_monai.networks import RetrievalNet, UtilityNet, load_network, save_network

CONTEXT = RunContext("x", "cxr64")
DIRECTIONS = ("released_in_real", "real_in_released")
CHANCE_99_9 = norm.isf(0.0005) / norm.isf(0.025)
"""Half-width of a 99.9 % interval over that of a 95 % one."""


def _table(system: str, case: Judged | None = None, n_boot: int = 50, seeds: tuple[int, ...] = (0,), **makers) -> dict:
    attack = RetrievalAttack(AttackerPool(makers or {"frozen": FrozenAttacker}), seeds, n_boot)
    attack.fit(knowledge(system))
    return {r.name: r for r in attack.score(case or judged(system), CONTEXT)}


def _silent(line) -> bool:
    """Whether the 99.9 % interval of a line, from its 95 % one, holds chance."""
    return abs(line.value - line.extra["chance"]) <= CHANCE_99_9 * (line.high - line.low) / 2


def _unbalanced(system: str) -> Judged:
    """One image of every second patient is neither held nor released: patients have two or three."""
    whole = judged(system).real
    kept = np.array([i for i in range(len(whole)) if i % 6])
    return released(whole.take(kept), system, seed=3)


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_it_rings_on_unchanged_images(direction):
    loud = _table("unchanged")
    for figure in ("rank_1", "rank_5", "map_at_r"):
        for weighing in ("", "_patient"):
            for attacker in ("frozen", "worst"):
                line = loud[f"{figure}{weighing}.{direction}.{attacker}.v1"]
                assert line.value > 0.99
                curve = line.extra[f"{figure}_at_gallery"]
                assert list(curve) == ["10", "30", "71"] and min(curve.values()) > 0.99
                chance = line.extra[f"{figure}_at_gallery_by_chance"]
                assert list(chance) == list(curve) and 1 > chance["10"] > chance["30"] > chance["71"]
                assert chance["71"] == pytest.approx(line.extra["chance"], abs=2e-6)


def test_it_is_silent_on_noise_and_on_shuffled_patients():
    case = judged("unchanged")
    records = case.real.cohort.records
    ids = np.random.default_rng(0).permutation([r.patient_id for r in records])
    renamed = tuple(replace(r, patient_id=str(name)) for r, name in zip(records, ids, strict=True))
    shuffled = Judged(RealImages(Cohort(renamed, findings=("Effusion",)), case.real.pixels), case.release)
    for table in (_table("noise", n_boot=300), _table("unchanged", shuffled, n_boot=300)):
        figures = [f"{f}{w}" for f in ("rank_1", "rank_5", "map_at_r") for w in ("", "_patient")]
        assert all(
            _silent(table[f"{f}.{d}.{by}.v1"]) for f in figures for d in DIRECTIONS for by in ("frozen", "worst")
        )


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_patients_weigh_alike_in_lines_of_patients(direction):
    """Blurred images that are found now and then; some patients have more of them than others."""
    case = _unbalanced("unchanged")
    noise = np.random.default_rng(5).random(case.release.pixels.shape)
    pixels = (0.15 * case.release.pixels + 0.85 * noise).astype(np.float32)
    case = Judged(case.real, case.release.with_pixels(pixels))
    table = _table("unchanged", case)
    patient = case.real.cohort.patient_index
    sides = [flat(pixels).astype(float), flat(case.real.pixels).astype(float)]
    queries, gallery = sides if direction == "released_in_real" else sides[::-1]
    found = identify(gallery, patient, queries=queries)
    for figure, values in (("rank_1", found.rank < 1.5), ("map_at_r", found.average_precision_at_r)):
        by_patient = [np.mean(values[found.patient == p]) for p in np.unique(found.patient)]
        line = table[f"{figure}_patient.{direction}.frozen.v1"]
        assert line.value == pytest.approx(np.mean(by_patient), abs=1e-5)
        assert table[f"{figure}.{direction}.frozen.v1"].value == pytest.approx(np.mean(values), abs=1e-5)
        assert line.value != table[f"{figure}.{direction}.frozen.v1"].value
        assert line.extra[f"{figure}_at_gallery"]["59"] == pytest.approx(line.value, abs=1e-5)
    expected = patient_bootstrap(
        lambda w: float(np.average(found.rank < 1.5, weights=w)), found.patient, 50, CONTEXT.seed, bounds=(0.0, 1.0)
    )
    shown = table[f"rank_1.{direction}.frozen.v1"]
    assert (shown.low, shown.high) == pytest.approx((expected.low, expected.high), abs=1e-5)


class _Noisy(FrozenAttacker):
    """Another projection with each seed."""

    def fit(self, knowledge: AttackerKnowledge, seed: int) -> None:
        basis = np.random.default_rng(seed).normal(size=(32 * 32, 3)).astype(np.float32)
        self.use(lambda pixels: flat(pixels) @ basis)


def test_figures_are_means_over_seeds():
    single = [_table("unchanged", seeds=(seed,), noisy=_Noisy) for seed in (0, 1, 2)]
    all_seeds = _table("unchanged", seeds=(0, 1, 2), noisy=_Noisy)
    for figure in ("rank_1", "map_at_r_patient"):
        name = f"{figure}.released_in_real.noisy.v1"
        assert len({table[name].value for table in single}) > 1
        assert all_seeds[name].value == pytest.approx(np.mean([table[name].value for table in single]), abs=1e-5)
        key = f"{figure.removesuffix('_patient')}_at_gallery"
        curves = [table[name].extra[key]["30"] for table in single]
        assert all_seeds[name].extra[key]["30"] == pytest.approx(np.mean(curves), abs=1e-5)
        assert all_seeds[name].extra["n_seeds"] == 3
    one, three = (_table("unchanged", _unbalanced("noise"), seeds=seeds) for seeds in ((0,), (0, 1, 2)))
    for name, line in one.items():
        assert (line.value, line.low, line.high) == (three[name].value, three[name].low, three[name].high)


def test_what_cannot_be_asked_is_refused():
    with pytest.raises(UsageError, match="GM-U316"):
        RetrievalAttack(AttackerPool({"frozen": FrozenAttacker}), ())
    case = judged("unchanged")
    alone = released(case.real.take(np.arange(0, len(case.real), 3)), "unchanged")
    with pytest.raises(TooLittleDataError, match="GM-U327"):
        _table("unchanged", alone)
    known = knowledge("unchanged")
    single = released(known.choice.real.take(np.arange(0, len(known.choice.real), 3)), "unchanged")
    with pytest.raises(TooLittleDataError, match="GM-U327"):
        RetrievalAttack(AttackerPool({"frozen": FrozenAttacker})).fit(replace(known, choice=single))


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


class _Turned(_Noisy):
    """Yet another projection, at the far side."""

    def fit(self, knowledge: AttackerKnowledge, seed: int) -> None:
        super().fit(knowledge, seed + 100)
        embed = self.embed_released
        self.use(embed, lambda pixels: -embed(pixels))


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_several_attackers_find_more_together(direction):
    table = _table("unchanged", seeds=(0, 1), near=_Noisy, far=_Turned)
    alone = [table[f"map_at_r.{direction}.{name}.v1"] for name in ("near", "far")]
    fused, worst = (table[f"map_at_r.{direction}.{name}.v1"] for name in ("fusion", "worst"))
    assert [line.extra["sign"] for line in alone] == [1.0, -1.0] and fused.extra["sign"] == 1.0
    assert fused.value > max(line.value for line in alone) + 0.03
    assert worst.extra["attacker"] == "fusion" and worst.value == fused.value
    quiet = _table("noise", n_boot=300, near=_Noisy, far=_Turned)
    assert _silent(quiet[f"map_at_r.{direction}.fusion.v1"]) and _silent(quiet[f"rank_1.{direction}.fusion.v1"])
    assert f"map_at_r.{direction}.fusion.v1" not in _table("unchanged")


@pytest.fixture(scope="module")
def network(tmp_path_factory) -> str:
    torch.manual_seed(0)
    arguments = {"architecture": "small", "grid": 4, "squeezed": 8, "hidden": 16, "normalised": True}
    path = tmp_path_factory.mktemp("weights") / "retrieval.safetensors"
    save_network(path, RetrievalNet(**arguments), arguments)
    return str(path)


def test_the_retrieval_network_searches_by_distance(network):
    pool = AttackerPool({"frozen": FrozenAttacker})
    attack = RetrievalAttack(pool, (0, 1), 20, network=[network])
    attack.fit(knowledge("unchanged"))
    case = judged("unchanged")
    table = {r.name: r for r in attack.score(case, CONTEXT)}
    with torch.no_grad():
        embeddings = load_network(network)(torch.from_numpy(case.real.pixels)).numpy().astype(np.float64)
    distance = np.linalg.norm(embeddings[:, None] - embeddings[None], axis=2)
    np.fill_diagonal(distance, np.inf)
    patient = case.real.cohort.patient_index
    line = table["rank_1.released_in_real.retrieval.v1"]
    assert line.value == pytest.approx(np.mean(patient[distance.argmin(axis=1)] == patient), abs=0.02)
    assert line.attacker == "retrieval" and line.extra["sign"] == 1.0
    assert "map_at_r.real_in_released.retrieval.v1" in table
    assert "map_at_r.released_in_real.fusion.v1" in table, "with it there are two"
    without = _table("unchanged")
    assert not any(".retrieval." in name for name in without) and set(without) < set(table)
    frozen = "map_at_r.released_in_real.frozen.v1"
    assert table[frozen].value == without[frozen].value


def test_other_weights_of_the_network_are_another_attack(network, tmp_path):
    pool = AttackerPool({"frozen": FrozenAttacker})
    known = knowledge("unchanged")
    arguments = {"architecture": "small", "grid": 1, "hidden": 8}
    save_network(tmp_path / "other.safetensors", RetrievalNet(**arguments), arguments)
    given = [(), [network], [network], [tmp_path / "other.safetensors"]]
    facts = [RetrievalAttack(pool, network=weights).own_facts(known) for weights in given]
    assert facts[0] == "" and facts[1] == facts[2] != facts[3] and len(facts[1]) == 8


def test_weights_of_another_kind_are_refused(tmp_path):
    arguments = {"n_findings": 2, "architecture": "small"}
    save_network(tmp_path / "utility.safetensors", UtilityNet(**arguments), arguments)
    attack = RetrievalAttack(AttackerPool({"frozen": FrozenAttacker}), network=[tmp_path / "utility.safetensors"])
    with pytest.raises(UsageError, match="GM-U313"):
        attack.fit(knowledge("unchanged"))
