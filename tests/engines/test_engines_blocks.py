"""Blocks of images of one patient: every image once a pass, no image alone, a function of seed, epoch and process."""

from __future__ import annotations

from collections import Counter
from itertools import groupby

import pytest

from gmia_monai.engines import PatientBlockSampler
from gmia_monai.errors import UsageError

COUNTS = (1, 2, 3, 8, 9, 16, 17, 1, 5, 11)
PATIENTS = [patient for patient, count in enumerate(COUNTS) for _ in range(count)]
N = sum(count for count in COUNTS if count > 1)


def _draws(epoch: int = 1, n_draws: int = N, **kwargs) -> list[int]:
    sampler = PatientBlockSampler(range(len(PATIENTS)), PATIENTS, n_draws, **kwargs)
    sampler.set_epoch(epoch)
    assert len(sampler) == n_draws // kwargs.get("num_replicas", 1)
    return list(sampler)


@pytest.mark.parametrize("seed", range(5))
def test_a_pass_takes_each_image_of_those_with_several_once_and_in_blocks(seed):
    draws = _draws(seed=seed)
    assert Counter(draws) == Counter(i for i, patient in enumerate(PATIENTS) if COUNTS[patient] > 1)
    runs = [len(list(run)) for _, run in groupby(PATIENTS[i] for i in draws)]
    assert min(runs) >= 2, "nobody is alone"
    assert len(runs) > sum(count > 1 for count in COUNTS), "large ones come in several blocks"
    small = [len(list(run)) for p, run in groupby(PATIENTS[i] for i in draws) if COUNTS[p] in (2, 3, 5, 8)]
    assert sorted(small) == [2, 3, 5, 8], "one block each"


@pytest.mark.parametrize(("count", "sizes"), [(4, {4}), (5, {2, 3}), (6, {2, 4}), (7, {3, 4})])
def test_blocks_have_at_most_so_many(count, sizes):
    """Between those of others, since two blocks of one patient can come one behind the other."""
    patients = [0] * count + [patient for patient in range(1, 60) for _ in range(2)]
    found = set()
    for seed in range(10):
        draws = list(PatientBlockSampler(range(len(patients)), patients, len(patients), block=4, seed=seed))
        of_first = [len(list(run)) for patient, run in groupby(patients[i] for i in draws) if patient == 0]
        found |= set(of_first) if len(of_first) == len(sizes) else set()
    assert found == sizes


def test_epochs_go_through_one_pass_after_another():
    stream = [i for epoch in range(1, 6) for i in _draws(epoch, n_draws=N // 2)]
    every = Counter(_draws())
    assert len(stream) >= 2 * N and Counter(stream[:N]) == Counter(stream[N : 2 * N]) == every
    assert stream[:N] == _draws() != stream[N : 2 * N]


def test_draws_depend_on_seed_and_epoch_alone():
    assert _draws(2, seed=3) == _draws(2, seed=3)
    assert _draws(2, seed=3) != _draws(3, seed=3) and _draws(2, seed=3) != _draws(2, seed=4)


def test_processes_take_one_part_each():
    whole = _draws(n_draws=60)
    parts = [_draws(n_draws=60, num_replicas=3, rank=rank) for rank in range(3)]
    assert [i for part in parts for i in part] == whole


@pytest.mark.parametrize(("patients", "block"), [([0, 1, 2], 8), ([0, 0, 1, 1], 2)])
def test_nothing_to_draw_is_refused(patients, block):
    with pytest.raises(UsageError, match="GM-U042"):
        PatientBlockSampler(range(len(patients)), patients, 4, block)
