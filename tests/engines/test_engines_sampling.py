"""Draws are a function of seed, epoch and process."""

from __future__ import annotations

from collections import Counter

import pytest

from gmia_monai.engines import EpochSampler, patient_balanced_weights
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
