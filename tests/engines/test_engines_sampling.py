"""Draws are a function of seed, epoch and process."""

from __future__ import annotations

from collections import Counter

import pytest

from gmia_monai.engines import EpochSampler, PatientPairSampler, patient_balanced_weights
from gmia_monai.errors import UsageError


def _draws(n: int, epoch: int, **kwargs) -> list[int]:
    sampler = EpochSampler(range(n), **kwargs)
    sampler.set_epoch(epoch)
    return list(sampler)


@pytest.mark.parametrize("weights", [None, [1.0 + i for i in range(10)]])
def test_draws_depend_on_seed_and_epoch_alone(weights):
    first = _draws(10, 3, n_draws=25, seed=4, weights=weights)
    assert first == _draws(10, 3, n_draws=25, seed=4, weights=weights)
    assert first != _draws(10, 4, n_draws=25, seed=4, weights=weights)
    assert first != _draws(10, 3, n_draws=25, seed=5, weights=weights)
    assert len(first) == 25


def test_draws_go_through_whole_permutations_across_epochs():
    stream = [i for epoch in range(1, 8) for i in _draws(10, epoch, n_draws=4)]
    assert len(stream) == 28
    for start in (0, 10):
        assert sorted(stream[start : start + 10]) == list(range(10))
    assert len(set(stream[20:])) == 8
    assert stream[:10] != stream[10:20]


@pytest.mark.parametrize("weights", [None, [1.0] * 48])
def test_the_shares_of_the_processes_make_up_the_draw_of_one_process(weights):
    whole = _draws(48, 2, n_draws=24, weights=weights)
    shares = [_draws(48, 2, n_draws=24, weights=weights, num_replicas=3, rank=r) for r in range(3)]
    assert [len(s) for s in shares] == [8, 8, 8]
    assert [i for step in zip(*shares, strict=True) for i in step] == whole
    if weights is None:
        assert not set(shares[0]) & set(shares[1]) and not set(shares[1]) & set(shares[2])


def test_weights_are_the_relative_frequencies():
    weights = [0.0, 1.0, 3.0]
    count = Counter(_draws(3, 1, n_draws=40_000, weights=weights))
    assert count[0] == 0
    assert count[2] / count[1] == pytest.approx(3.0, rel=0.05)


def test_nothing_to_draw_is_refused():
    with pytest.raises(UsageError, match="GM-U042"):
        EpochSampler(range(4), n_draws=1, num_replicas=2, rank=0)
    with pytest.raises(UsageError, match="GM-U042"):
        EpochSampler([], n_draws=1)


@pytest.mark.parametrize("power, ratio", [(0.0, 4.0), (0.5, 2.0), (1.0, 1.0)])
def test_patients_are_drawn_in_proportion_to_a_power_of_their_images(power, ratio):
    patients = [0, 1, 1, 1, 1]
    weights = patient_balanced_weights(patients, power)
    total = [sum(w for w, p in zip(weights, patients, strict=True) if p == k) for k in (0, 1)]
    assert total[1] / total[0] == pytest.approx(ratio)


def _pairs(**kwargs) -> list[int]:
    patients = [0, 0, 0, 1, 1, 2, 3, 3, 3, 3]
    sampler = PatientPairSampler(range(10), patients, **{"n_draws": 40, "seed": 1, **kwargs})
    sampler.set_epoch(2)
    return list(sampler)


def test_draws_come_in_two_images_of_a_patient():
    patients = [0, 0, 0, 1, 1, 2, 3, 3, 3, 3]
    drawn = _pairs()
    assert len(drawn) == 40 and drawn == _pairs() and drawn != _pairs(seed=2)
    for i, j in zip(drawn[::2], drawn[1::2], strict=True):
        assert patients[i] == patients[j] != 2 and i != j
    lonely = [(i, j) for i, j in zip(*[iter(_pairs(min_images=1, n_draws=400))] * 2, strict=True) if i == 5]
    assert lonely and all(j == 5 for _, j in lonely), "a patient with one image gives it twice"


def test_patients_are_drawn_by_the_power_of_their_images():
    patients = [0] * 2 + [1] * 8
    sampler = PatientPairSampler(range(10), patients, n_draws=40_000, power=0.5)
    sampler.set_epoch(1)
    share = sum(i >= 2 for i in sampler) / 40_000
    assert share == pytest.approx(8**0.5 / (8**0.5 + 2**0.5), abs=0.02)


def test_the_shares_of_processes_hold_whole_pairs():
    shares = [_pairs(num_replicas=2, rank=r) for r in range(2)]
    whole = _pairs(num_replicas=1, rank=0)
    pairs = list(zip(whole[::2], whole[1::2], strict=True))
    for r, share in enumerate(shares):
        assert list(zip(share[::2], share[1::2], strict=True)) == pairs[r::2]


def test_no_patient_with_enough_images_is_refused():
    with pytest.raises(UsageError, match="GM-U042"):
        PatientPairSampler(range(3), [0, 1, 2], n_draws=4)
