"""Weights as safetensors: round trips, recorded hashes, every coded error, no half-written file."""

from __future__ import annotations

import hashlib
import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from gmia_monai import weights
from gmia_monai.errors import IntegrityError
from gmia_monai.weights import (
    load_weights,
    read_index,
    read_metadata,
    save_weights,
    sha256_of,
    update_index,
    watched_reads,
)


def network(width=3, seed=0):
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Conv2d(1, width, 3), nn.BatchNorm2d(width), nn.Flatten(), nn.Linear(width * 4, 2))
    net(torch.randn(8, 1, 4, 4))  # statistics and counters that differ from a new network's
    return net


def same(a, b, **tolerance):
    for name, tensor in a.state_dict().items():
        torch.testing.assert_close(b.state_dict()[name], tensor, **tolerance)


def code_of(call, *args):
    with pytest.raises(IntegrityError) as caught:
        call(*args)
    assert str(caught.value).startswith(caught.value.code)
    return caught.value.code


def test_round_trip_in_float32_is_exact(tmp_path):
    saved, loaded = network(), network(seed=1)
    sha256 = save_weights(tmp_path / "deep" / "a.safetensors", saved, {"width": 3})
    assert load_weights(loaded, tmp_path / "deep" / "a.safetensors", sha256) is loaded
    same(saved, loaded, rtol=0, atol=0)


def test_round_trip_in_half_keeps_counters_and_the_dtype_of_the_network(tmp_path):
    saved, loaded = network(), network(seed=1)
    path = tmp_path / "a.safetensors"
    save_weights(path, saved, {}, half=True)
    stored = load_file(path)
    assert stored["0.weight"].dtype == torch.float16 and stored["1.num_batches_tracked"].dtype == torch.int64
    load_weights(loaded, path)
    same(saved, loaded, rtol=1e-3, atol=1e-4)
    assert not torch.equal(loaded[0].weight, saved[0].weight)
    assert all(p.dtype == torch.float32 for p in loaded.parameters())
    # Nothing of the network that was saved is changed.
    assert saved[0].weight.dtype == torch.float32 and saved[0].weight.requires_grad


def test_half_takes_about_half_the_bytes(tmp_path):
    state = {"a": torch.randn(100, 100)}
    save_weights(tmp_path / "full", state, {})
    save_weights(tmp_path / "half", state, {}, half=True)
    assert (tmp_path / "half").stat().st_size < 0.6 * (tmp_path / "full").stat().st_size


def test_tied_and_transposed_tensors_are_stored(tmp_path):
    weight = torch.randn(3, 4)
    save_weights(tmp_path / "a", {"x": weight.t(), "y": weight, "z": weight}, {})
    stored = load_file(tmp_path / "a")
    assert torch.equal(stored["x"], weight.t()) and torch.equal(stored["z"], stored["y"])


def test_metadata_is_given_back(tmp_path):
    metadata = {"network": "AEGAN", "arguments": {"image_size": 64, "mean": 0.5}, "findings": ["a", "b"], "none": None}
    sha256 = save_weights(tmp_path / "a", network(), metadata)
    assert read_metadata(tmp_path / "a", sha256) == metadata
    save_file({"a": torch.zeros(1)}, tmp_path / "bare")
    assert read_metadata(tmp_path / "bare") == {}


def test_sha256_is_that_of_hashlib(tmp_path):
    content = bytes(range(256)) * 5000  # more than one block
    (tmp_path / "a").write_bytes(content)
    assert sha256_of(tmp_path / "a") == hashlib.sha256(content).hexdigest()
    assert save_weights(tmp_path / "b", network(), {}) == hashlib.sha256((tmp_path / "b").read_bytes()).hexdigest()


def test_the_index_records_hash_size_and_facts(tmp_path):
    sha256 = save_weights(tmp_path / "a.safetensors", network(), {})
    update_index(tmp_path, "z", "a.safetensors", network="Sequential")
    update_index(tmp_path, "b", "a.safetensors")
    index = read_index(tmp_path)
    assert list(index) == ["b", "z"]
    size = (tmp_path / "a.safetensors").stat().st_size
    assert index["z"] == {"file": "a.safetensors", "sha256": sha256, "bytes": size, "network": "Sequential"}
    # A new file under an old name replaces its record and leaves the others.
    other = save_weights(tmp_path / "a2.safetensors", network(5), {})
    update_index(tmp_path, "z", "a2.safetensors")
    assert read_index(tmp_path)["z"]["sha256"] == other != read_index(tmp_path)["b"]["sha256"]
    assert json.loads((tmp_path / "index.json").read_text()) == read_index(tmp_path)


def test_a_folder_without_an_index_has_an_empty_one(tmp_path):
    assert read_index(tmp_path) == {}


def test_absent_weights(tmp_path):
    assert code_of(load_weights, network(), tmp_path / "a") == "GM-W001"
    assert code_of(read_metadata, tmp_path / "a") == "GM-W001"
    assert code_of(read_metadata, tmp_path) == "GM-W001"  # a folder


def test_wrong_hash(tmp_path):
    path = tmp_path / "a"
    sha256 = save_weights(path, network(), {})
    content = bytearray(path.read_bytes())
    content[-1] ^= 1  # one bit of one weight: still a well-formed file
    path.write_bytes(content)
    untouched, target = network(seed=1), network(seed=1)
    assert code_of(load_weights, target, path, sha256) == "GM-W002"
    assert code_of(read_metadata, path, sha256) == "GM-W002"
    same(untouched, target, rtol=0, atol=0)
    load_weights(target, path)  # taken as it is where no hash is asked for


@pytest.mark.parametrize("damage", ["empty", "text", "truncated", "pickle"])
def test_not_safetensors(tmp_path, damage):
    path = tmp_path / "a"
    save_weights(path, network(), {})
    if damage == "pickle":
        torch.save(network().state_dict(), path)
    else:
        path.write_bytes({"empty": b"", "text": b"hello " * 50, "truncated": path.read_bytes()[:-8]}[damage])
    assert code_of(load_weights, network(), path) == "GM-W003"
    assert code_of(read_metadata, path) == "GM-W003"


@pytest.mark.parametrize("fault", ["shape", "missing", "extra"])
def test_weights_of_another_network(tmp_path, fault):
    state = network(seed=1).state_dict()
    if fault == "missing":
        del state["3.bias"]
    if fault == "extra":
        state["4.bias"] = torch.zeros(2)
    if fault == "shape":
        state["3.bias"] = torch.zeros(7)
    save_weights(tmp_path / "a", state, {})
    target, untouched = network(), network()
    with pytest.raises(IntegrityError) as caught:
        load_weights(target, tmp_path / "a")
    error = caught.value
    assert error.code == "GM-W004" and "1 tensors differ" in str(error)
    expected = {"shape": ((7,), (2,)), "missing": ("absent", (2,)), "extra": ((2,), "absent")}[fault]
    assert (error.got, error.expected) == expected
    same(untouched, target, rtol=0, atol=0)


@pytest.mark.parametrize("content", [b"{", b"", b"[1, 2]", b'"text"', b"\xff\xfe\x00"])
def test_broken_index(tmp_path, content):
    (tmp_path / "index.json").write_bytes(content)
    assert code_of(read_index, tmp_path) == "GM-W005"
    (tmp_path / "a").write_bytes(b"x")
    assert code_of(update_index, tmp_path, "a", "a") == "GM-W005"
    assert (tmp_path / "index.json").read_bytes() == content


@pytest.mark.parametrize("entry", ["text", {"file": "a"}, {"sha256": "0" * 64}, None])
def test_an_index_whose_entries_are_broken(tmp_path, entry):
    (tmp_path / "index.json").write_text(json.dumps({"a": entry}))
    assert code_of(read_index, tmp_path) == "GM-W005"


def test_the_same_weights_have_the_same_hash(tmp_path):
    facts = {f"fact{i}": i for i in range(20)}
    assert len({save_weights(tmp_path / f"{i}", network(), facts) for i in range(8)}) == 1


def test_metadata_of_another_writer(tmp_path):
    save_file({"a": torch.zeros(1)}, tmp_path / "a", metadata={"format": "pt"})
    assert read_metadata(tmp_path / "a") == {"format": "pt"}  # no JSON, but well-formed: as it stands


@pytest.mark.parametrize("existing", [True, False])
@pytest.mark.parametrize("fault", ["disk", "metadata"])
def test_nothing_is_left_behind_when_saving_fails(tmp_path, monkeypatch, existing, fault):
    path = tmp_path / "a.safetensors"
    if existing:
        save_weights(path, network(), {})
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}

    def fail(tensors, target, metadata):
        save_file(tensors, target, metadata=metadata)
        raise OSError("disk full")

    if fault == "disk":
        monkeypatch.setattr(weights, "save_file", fail)
    with pytest.raises((OSError, TypeError)):
        save_weights(path, network(seed=1), {"x": object()} if fault == "metadata" else {})
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_an_index_that_cannot_be_written_stays_as_it_was(tmp_path):
    (tmp_path / "a").write_bytes(b"x")
    update_index(tmp_path, "a", "a")
    before = (tmp_path / "index.json").read_bytes()
    with pytest.raises(TypeError):
        update_index(tmp_path, "b", "a", facts=object())
    assert (tmp_path / "index.json").read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "index.json"]


@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(tmp_path, wrong):
    network = nn.Linear(2, 3)
    with torch.no_grad():
        network.weight[0, 0] = wrong
    save_weights(tmp_path / "a.safetensors", network, {})
    with pytest.raises(IntegrityError, match="GM-W008"):
        load_weights(nn.Linear(2, 3), tmp_path / "a.safetensors")


def test_what_is_loaded_can_be_watched(tmp_path):
    digests = {name: save_weights(tmp_path / name, nn.Linear(2, 3), {}) for name in ("a", "b", "c")}
    with watched_reads() as read:
        load_weights(nn.Linear(2, 3), tmp_path / "a")
        with watched_reads() as inner:
            load_weights(nn.Linear(2, 3), tmp_path / "b", digests["b"])
    load_weights(nn.Linear(2, 3), tmp_path / "c")
    assert read == {name: digests[name] for name in ("a", "b")} and inner == {"b": digests["b"]}
