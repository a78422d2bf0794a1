"""Refitted networks are found again by all that decides them, in memory and in files."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from attack_cohorts import SIZE, real_images, released

from gmia_monai.attacks.attackers.adaptive import real_side, released_side
from gmia_monai.attacks.refit import Side
from gmia_monai.attacks.refit_pair import RefitPair
from gmia_monai.attacks.refit_store import RefitStore, refit_key
from gmia_monai.errors import IntegrityError
from gmia_monai.networks import IdentityNet


def _pair(seed: int, shared: bool = False) -> RefitPair:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return RefitPair(IdentityNet(SIZE, "small", 8), shared)


def _same(a: RefitPair, b: RefitPair) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


@pytest.mark.parametrize("on_disk", [False, True])
@pytest.mark.parametrize("shared", [False, True])
def test_what_is_kept_is_found(tmp_path, on_disk, shared):
    store = RefitStore(tmp_path / "refitted" if on_disk else None)
    kept, other = _pair(0, shared), _pair(1, shared)
    assert not store.fill("a", other) and not _same(kept, other)
    store.keep("a", kept)
    assert store.fill("a", other) and _same(kept, other) and not other.training
    assert not store.fill("b", other)
    assert RefitStore(store.folder).fill("a", _pair(2, shared)) == on_disk


def test_a_damaged_file_is_refused(tmp_path):
    store = RefitStore(tmp_path)
    store.keep("a", _pair(0))
    (tmp_path / "a.safetensors").write_bytes(b"no weights")
    with pytest.raises(IntegrityError, match="GM-W003"):
        store.fill("a", _pair(1))


def test_the_key_holds_settings_and_every_array():
    judged = released(real_images("a", 4), "unchanged")
    side, other = released_side(judged), real_side(judged)
    keys = {refit_key({"seed": 0}, side, other), refit_key({"seed": 1}, side, other), refit_key({"seed": 0}, side)}
    for changed in (
        Side(side.pixels + np.float32(1e-3), side.patient, side.exposure),
        Side(side.pixels, side.patient[::-1], side.exposure),
        Side(side.pixels, side.patient, side.exposure + 1),
    ):
        keys.add(refit_key({"seed": 0}, changed, other))
    assert len(keys) == 6
    assert refit_key({"seed": 0, "a": 1}, side) == refit_key({"a": 1, "seed": 0}, side)
