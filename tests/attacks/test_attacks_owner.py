"""The owner: compares like with like, uses whichever of its networks tells most, and repeats nobody elsewhere."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from attack_cohorts import SIZE, flat, knowledge, real_images

from gmia_monai.attacks.attackers import make_attackers
from gmia_monai.attacks.attackers.fresh import FreshReleaseAttacker
from gmia_monai.attacks.attackers.owner import OwnerAttacker
from gmia_monai.attacks.base import AttackerKnowledge, Judged
from gmia_monai.attacks.pool import AttackerPool
from gmia_monai.attacks.refit import RefitRecipe
from gmia_monai.data.release import Release
from gmia_monai.data.threats import threat_pairs
from gmia_monai.errors import UsageError
from gmia_monai.metrics.verification import roc_auc
from gmia_monai.networks import IdentityNet, save_network

SHORT = RefitRecipe(steps=4, patients=8)


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> list[Path]:
    path = tmp_path_factory.mktemp("owner") / "arcface.safetensors"
    arguments = {"image_size": SIZE, "architecture": "small", "embedding_dim": 32}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        save_network(path, IdentityNet(**arguments), arguments)
    return [path]


def _known(anonymize, **more) -> tuple[AttackerKnowledge, Judged]:
    """What is known of a system, and its release of T."""

    def case(name: str, seed: int) -> Judged:
        real = real_images(name)
        return Judged(real, Release("own", anonymize(real.pixels, seed), tuple((i,) for i in range(len(real)))))

    known = AttackerKnowledge(
        **{
            "training": real_images("s", 16),
            "own": case("a", 0),
            "choice": case("v", 1),
            "frozen": flat,
            "anonymize": anonymize,
            **more,
        }
    )
    return known, case("t", 2)


def _auc(attacker, case: Judged, threat: str = "T1") -> float:
    pairs = threat_pairs(case.real.cohort, threat, "random", case.released)
    return roc_auc(attacker.score(case, pairs, threat), pairs.same, pairs.weight)


def _shuffled(pixels: np.ndarray, seed: int) -> np.ndarray:
    order = np.random.default_rng(0).permutation(SIZE * SIZE)
    return pixels.reshape(len(pixels), -1)[:, order].reshape(pixels.shape)


def _noisy_negative(pixels: np.ndarray, seed: int) -> np.ndarray:
    """Identity at the far side, with other noise each time."""
    noise = 0.4 * np.random.default_rng(seed).standard_normal(pixels.shape)
    return np.clip(1.0 - pixels + noise, 0, 1).astype(np.float32)


@pytest.mark.parametrize("frozen", [None, flat])
def test_the_owner_compares_like_with_like(weights, frozen):
    """A keyed shuffle of pixels that keeps nothing an encoder could learn from few patients, yet is always the same."""
    known, case = _known(_shuffled, frozen=frozen)
    owner = OwnerAttacker(weights, SHORT, n_releases=1)
    owner.fit(known, 0)
    assert _auc(owner, case) > 0.95 and _auc(owner, case, "T2") > 0.99
    with pytest.raises(UsageError, match="GM-U318"):
        OwnerAttacker(weights).fit(knowledge("unchanged"), 0)
    with pytest.raises(UsageError, match="GM-U311"):
        _auc(OwnerAttacker(weights), case)


def test_the_owner_has_the_systems_own_encoder_too(weights):
    """The encoder sees all, at the far side; the network that is refitted sees little of it after so few updates."""
    known, case = _known(_noisy_negative)
    owner = OwnerAttacker(weights, SHORT, n_releases=1)
    owner.fit(known, 0)
    without, _ = _known(_noisy_negative, frozen=None)
    blind = OwnerAttacker(weights, SHORT, n_releases=1)
    blind.fit(without, 0)
    for threat in ("T1", "T2", "T3"):
        assert _auc(owner, case, threat) > max(0.95, _auc(blind, case, threat)), threat


def test_weights_that_v2_has_given_are_honest_on_v2(weights):
    """What weighs several comparisons is asked about patients whom it was not fitted on."""
    known, case = _known(_noisy_negative)
    owner = OwnerAttacker(weights, SHORT, n_releases=1)
    owner.fit(known, 0)
    pairs = threat_pairs(known.choice.real.cohort, "T1", "matched", known.choice.released)
    scores = owner._scores(known.choice, pairs, "T1")
    assert scores.shape == (len(pairs), 4) and owner._scores(case, pairs, "T3").shape == (len(pairs), 2)
    chosen = owner._chosen["T1"]
    alone = [roc_auc(column, pairs.same, pairs.weight) for column in scores.T]
    found = roc_auc(owner.score(known.choice, pairs, "T1"), pairs.same, pairs.weight)
    assert found >= max(max(a, 1.0 - a) for a in alone) - 1e-9
    if chosen.weighed is not None:
        assert not np.allclose(owner.score(known.choice, pairs, "T1"), chosen.weighed.all(scores))


def test_embedding_attacks_hear_the_owner_only_where_its_network_is_another(weights):
    names = ["adaptive_cross", "owner"]
    for anonymize, offered in ((_shuffled, False), (_noisy_negative, True)):
        known, _ = _known(anonymize)
        pool = AttackerPool(make_attackers(names, weights, recipe=SHORT))
        assert ("owner" in pool.embedding(0, known)) == offered
        assert "adaptive_cross" in pool.embedding(0, known)
    alone = AttackerPool(make_attackers(["owner"], weights, recipe=SHORT))
    assert list(alone.embedding(0, _known(_shuffled)[0])) == ["owner"]


def test_a_fresh_release_of_the_source_is_the_release_where_there_is_no_chance(weights):
    made = []

    def counted(pixels: np.ndarray, seed: int) -> np.ndarray:
        made.append(len(pixels))
        return _shuffled(pixels, seed)

    known, case = _known(counted)
    attacker = FreshReleaseAttacker(weights)
    made.clear()
    attacker.fit(known, 0)
    released, real = attacker.embeddings(case)
    np.testing.assert_array_equal(released, real)
    assert attacker.name in AttackerPool(make_attackers(["owner_fresh"], weights)).embedding(0, known)
    assert _auc(attacker, case) > 0.95 and _auc(attacker, case, "T2") > 0.99
    n = len(known.choice.real)
    assert made[:2] == [n, len(case.real)], "each real image is released once, for both encoders"
    assert attacker.embed_real is not None
    np.testing.assert_array_equal(attacker.embed_real(case.real.pixels[5:8]), real[5:8])
    assert sum(made) == 2 * n + len(case.real), "and not again for a part of them"
    with pytest.raises(UsageError, match="GM-U318"):
        FreshReleaseAttacker(weights).fit(knowledge("unchanged"), 0)


def test_fresh_releases_choose_the_encoder_on_v2(weights):
    known, _ = _known(_noisy_negative)
    attacker = FreshReleaseAttacker(weights)
    attacker.fit(known, 0)
    assert attacker.embed_released is flat, "an untrained network tells less"
    blind, _ = _known(_noisy_negative, frozen=None)
    attacker.fit(blind, 0)
    assert attacker.embed_released is not flat
    with pytest.raises(UsageError, match="GM-U313"):
        FreshReleaseAttacker([]).fit(blind, 0)
