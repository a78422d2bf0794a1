"""The loop over units: what it makes, what it finds again, under which key, and what it says meanwhile."""

from __future__ import annotations

import hashlib
import logging

import numpy as np
import pytest
import torch
from attack_cohorts import SIZE, real_images
from tiny_bundle import ToyNet, phantoms
from tiny_diffusion import tiny_diffusion

from gmia_monai.anonymizers import KSalsa, LatentDiffusion, Noise, Plan, Unchanged, UnitStore
from gmia_monai.anonymizers import store as module
from gmia_monai.anonymizers.base import image_seeds
from gmia_monai.anonymizers.plan_pairs import draw_pairs, shared_labels
from gmia_monai.anonymizers.store import finished_units, to_levels
from gmia_monai.networks import AEGAN, UtilityNet

PIXELS = np.random.default_rng(0).random((7, 1, 4, 4), dtype=np.float32)


class Maker:
    """Units of an array; remembers what it was asked to make."""

    def __init__(self) -> None:
        self.made: list[slice] = []

    def __call__(self, part: slice):
        def make():
            self.made.append(part)
            return to_levels(torch.from_numpy(PIXELS[part])), [(i % 2 == 0, i) for i in range(part.start, part.stop)]

        return (b"facts ", PIXELS[part].tobytes()), make


def _keys(store: UnitStore) -> set[str]:
    return {path.stem for path in store.folder.rglob("*.npz")}


def _key(*facts: bytes) -> str:
    return hashlib.sha256(b"".join(facts)).hexdigest()


def test_levels_are_those_of_a_file_of_8_bits():
    images = torch.tensor([-0.1, 0.0, 0.4 / 255, 0.6 / 255, 0.5, 1.0, 1.2]).view(1, 1, 1, 7).requires_grad_(True)
    found = to_levels(images)
    assert found.dtype == np.uint8 and found.ravel().tolist() == [0, 0, 0, 1, 128, 255, 255]


@pytest.mark.parametrize("kept", [True, False])
def test_units_are_made_once_and_found_again(tmp_path, kept):
    store, maker = UnitStore(tmp_path) if kept else None, Maker()
    runs = [list(finished_units(7, 3, maker, store, "x")) for _ in range(2)]
    parts = [slice(0, 3), slice(3, 6), slice(6, 7)]
    assert maker.made == (parts if kept else parts * 2)
    for run in runs:
        assert [part for part, _, _ in run] == parts
        pixels, outcomes = (np.concatenate([unit[i] for unit in run]) for i in (1, 2))
        assert pixels.dtype == np.float32 and outcomes.dtype == np.int64
        assert np.array_equal(pixels, np.round(PIXELS * 255) / np.float32(255))
        assert outcomes.tolist() == [[i % 2 == 0, i] for i in range(7)]
    if store is not None:
        assert _keys(store) == {_key(b"facts ", PIXELS[part].tobytes()) for part in parts}


def test_nothing_makes_no_units():
    assert list(finished_units(0, 3, Maker(), None, "x")) == []


def test_it_tells_only_of_what_takes_time(tmp_path, caplog, monkeypatch):
    store = UnitStore(tmp_path)
    with caplog.at_level(logging.INFO):
        list(finished_units(7, 3, Maker(), store, "x", "groups"))
        assert caplog.text == "", "seconds apart"
        monkeypatch.setattr(module, "_TELL_EVERY_S", 0.0)
        list(finished_units(7, 3, Maker(), store, "x", "groups"))
        assert caplog.text == "", "all were there"
        list(finished_units(7, 3, Maker(), None, "x", "groups"))
    told = [record.getMessage() for record in caplog.records]
    assert [text.partition(",")[0] for text in told] == [f"x: {i} of 7 groups" for i in (3, 6, 7)]
    assert told[-1].endswith(", 0 s left")


@pytest.mark.parametrize("system", [Unchanged(), Noise()], ids=lambda system: system.name)
def test_keys_of_systems_of_single_images(tmp_path, system):
    """A changed key would lose every unit that was finished before."""
    pixels, store = real_images("t", 3).pixels, UnitStore(tmp_path)
    system.unit_size = 5
    known = np.arange(2 * len(pixels), dtype=np.float32).reshape(-1, 2)
    given = list(range(len(pixels)))
    system.anonymize_pixels(pixels, 4, store)
    system.anonymize_pixels(pixels, 4, store, given, known)
    expected = set()
    for first in range(0, len(pixels), 5):
        unit, facts = pixels[first : first + 5], known[first : first + 5]
        for decides, more in ((4, b""), (given[first : first + 5], facts.tobytes())):
            text = f"{system.fingerprint} {decides if system.random else ''} {unit.shape}"
            expected.add(_key(text.encode(), unit.tobytes(), more))
    assert _keys(store) == expected
    assert image_seeds(pixels, 4) != given


def test_keys_of_k_salsa(tmp_path):
    networks = AEGAN(SIZE, channel_base=256, channel_max=32), UtilityNet(3, "small")
    aegan, utility = (network.eval().requires_grad_(False) for network in networks)
    system = KSalsa(aegan, utility, {"aegan": "0"}, k=2, n_steps=1, unit_size=2)
    real, store = real_images("t", 7), UnitStore(tmp_path)
    system.anonymize(real, 1, store)
    units = [real.pixels[groups] for groups in (system.groups(real, 1)[:2], system.groups(real, 1)[2:])]
    assert _keys(store) == {_key(f"{system.fingerprint} {u.shape}".encode(), u.tobytes()) for u in units}


def test_keys_of_plan(tmp_path):
    net = ToyNet(SIZE)
    system = Plan(net.encoder, net.synthesis, None, None, {"toy": "0"}, steps=0, unit_pairs=3)
    real, store = real_images("t", 6), UnitStore(tmp_path)
    release = system.anonymize(real, 1, store)
    table = real.cohort.label_matrix(real.cohort.findings)
    pairs = draw_pairs(real.cohort, table, 1)
    labels = shared_labels(table, pairs)
    assert len(release) == 2 * len(pairs) and len(pairs) > 3
    expected = set()
    for first in range(0, len(pairs), 3):
        ends, of = real.pixels[pairs[first : first + 3]], labels[first : first + 3]
        expected.add(_key(f"{system.fingerprint} {ends.shape} {of.shape}".encode(), ends.tobytes(), of.tobytes()))
    assert _keys(store) == expected


def test_keys_of_latent_diffusion(tmp_path):
    system = LatentDiffusion(tiny_diffusion(), "w", n_steps=1, unit_size=4)
    real, store = real_images("t", 3), UnitStore(tmp_path)
    system.anonymize(real, 1, store)
    labels = system.draw_labels(real, 1)
    expected = set()
    for first in range(0, len(labels), 4):
        unit = labels[first : first + 4]
        text = f"{system.fingerprint} 1 {real.cohort.patients_hash} {first} {unit.shape}"
        expected.add(_key(text.encode(), unit.tobytes()))
    assert _keys(store) == expected and len(expected) == 3


def test_a_file_that_is_no_unit_is_none(tmp_path):
    store, images = UnitStore(tmp_path), to_levels(phantoms(1))
    store.put("ab", images, np.zeros((1, 2), np.int64))
    found = store.get("ab")
    assert found is not None and np.array_equal(found[0], images) and store.get("abc") is None
    (tmp_path / "ab" / "ab.npz").write_bytes(b"")
    assert store.get("ab") is None
