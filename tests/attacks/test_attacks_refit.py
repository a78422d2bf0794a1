"""Refitting: who meets whom in a batch, and what is left as it was."""

from __future__ import annotations

import logging

import numpy as np
import torch
from attack_cohorts import SIZE, real_images, released

from gmia_monai.attacks.attackers.adaptive import released_side
from gmia_monai.attacks.refit import RefitRecipe, Side, _Batches, _partners, refit
from gmia_monai.attacks.refit_pair import RefitPair
from gmia_monai.networks import IdentityNet


def test_refitting_leaves_the_state_of_the_random_generator():
    torch.manual_seed(3)
    expected = torch.rand(1)
    pair = RefitPair(IdentityNet(SIZE, "small", 8), shared=True)
    torch.manual_seed(3)
    side = released_side(released(real_images("a"), "unchanged"))
    refit(pair, side, side, recipe=RefitRecipe(steps=2, patients=4), seed=0)
    assert torch.equal(torch.rand(1), expected)


def test_images_of_one_exposure_meet_only_where_there_are_no_others():
    pixels = np.zeros((4, 1, 8, 8), np.float32)
    side = Side(pixels, np.array([0, 0, 1, 2]), np.arange(4))
    other = Side(pixels[:3], np.array([0, 0, 1]), np.array([0, 1, 2]))
    assert _partners(side, other) == {0: [(0, 1), (1, 0)], 1: [(2, 2)]}
    assert _partners(side, side) == {0: [(0, 1), (1, 0)]}, "an image beside itself teaches nothing"
    assert _partners(side, other, to_source=True) == {0: [(0, 0), (1, 1)], 1: [(2, 2)]}, "sources alone"


def _drawn(matched: float, patients: int, times: int = 300) -> list[np.ndarray]:
    """Batches of forty patients with two images each; one image of the last ten is of another stratum."""
    patient = np.repeat(np.arange(40), 2)
    stratum = np.where((patient >= 30) & (np.arange(80) % 2 == 1), 1, 0)
    side = Side(np.zeros((80, 1, 8, 8), np.float32), patient, np.arange(80), stratum)
    batches = _Batches(_partners(side, side), stratum, RefitRecipe(patients=patients, matched=matched))
    rng = np.random.default_rng(0)
    drawn = [batches.draw(rng) for _ in range(times)]
    for i, j in (pairs.T for pairs in drawn):
        assert len(i) == patients and len(set(patient[i])) == patients
        assert np.array_equal(patient[i], patient[j]) and (i != j).all()
    return [stratum[pairs[:, 1]] for pairs in drawn]


def test_half_of_the_batches_are_of_one_stratum():
    pure = [len(set(of_batch)) == 1 for of_batch in _drawn(0.5, 8)]
    by_chance = [len(set(of_batch)) == 1 for of_batch in _drawn(0.0, 8)]
    assert 0.55 < np.mean(pure) < 0.75 and np.mean(by_chance) < 0.4
    always = _drawn(1.0, 8)
    assert all(len(set(of_batch)) == 1 for of_batch in always)
    # Forty patients are in the larger stratum, ten in the smaller one.
    assert 0.1 < np.mean([of_batch[0] for of_batch in always]) < 0.3


def test_a_stratum_that_is_too_small_is_filled_up_with_others():
    small = [of_batch for of_batch in _drawn(1.0, 20) if of_batch.any()]
    assert small and all(of_batch.sum() >= 10 for of_batch in small)


def test_the_log_says_who_is_refitted_and_how_long_it_takes(caplog):
    side = released_side(released(real_images("a", 4), "unchanged"))
    pair = RefitPair(IdentityNet(SIZE, "small", 8), shared=True)
    recipe = RefitRecipe(steps=2, patients=4, validate_every=1)
    with caplog.at_level(logging.INFO, "gmia_monai.attacks.training"):
        refit(pair, side, side, recipe=recipe, seed=0, validate=lambda pair: 0.5, name="refit me, seed 4")
    first, *later = [record.getMessage() for record in caplog.records]
    assert first == "refit me, seed 4: step 0 of 2, validation 0.5000"
    assert later[0].startswith("refit me, seed 4: step 1 of 2, validation 0.5000, ") and later[0].endswith(" s left")
    assert later[1].endswith(", 0 s left")
