"""Networks rebuilt from the files that describe them."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import save_file

from gmia_monai.errors import IntegrityError
from gmia_monai.networks import (
    AEGAN,
    AnonymizerNet,
    Discriminator,
    IdentityNet,
    UtilityNet,
    load_anonymizer,
    load_network,
    load_recorded,
    save_network,
)
from gmia_monai.weights import read_index, read_metadata, save_weights, sha256_of

AEGAN_ARGUMENTS = {"image_size": 32, "latent_dim": 16, "channel_base": 256, "channel_max": 8}
IDENTITY_ARGUMENTS = {"image_size": 32, "architecture": "small", "embedding_dim": 8}


@pytest.fixture
def aegan():
    torch.manual_seed(0)
    return AEGAN(**AEGAN_ARGUMENTS)


@pytest.mark.parametrize(
    ("network", "arguments"),
    [
        (AEGAN, AEGAN_ARGUMENTS),
        (Discriminator, {"image_size": 32, "channel_base": 256, "channel_max": 8}),
        (IdentityNet, IDENTITY_ARGUMENTS),
    ],
)
def test_a_file_builds_its_network_again(tmp_path, network, arguments):
    original = network(**arguments).eval()
    sha256 = save_network(tmp_path / "x.safetensors", original, arguments, findings=["a", "b"])
    loaded = load_network(tmp_path / "x.safetensors", sha256)
    assert type(loaded) is network and not loaded.training
    assert not any(p.requires_grad for p in loaded.parameters())
    image = torch.rand(2, 1, 32, 32)
    with torch.no_grad():
        assert torch.equal(loaded(image), original(image))
    assert read_metadata(tmp_path / "x.safetensors")["findings"] == ["a", "b"]


def test_the_index_records_hash_size_class_and_arguments(tmp_path, aegan):
    path = tmp_path / "aegan.safetensors"
    sha256 = save_network(path, aegan, AEGAN_ARGUMENTS)
    assert read_index(tmp_path)["aegan"] == {
        "file": "aegan.safetensors",
        "sha256": sha256,
        "bytes": path.stat().st_size,
        "network": "AEGAN",
        "arguments": AEGAN_ARGUMENTS,
    }
    assert sha256 == sha256_of(path)


def test_a_folder_of_three_networks_is_an_anonymizer(tmp_path, aegan):
    torch.manual_seed(1)
    identity, utility = IdentityNet(**IDENTITY_ARGUMENTS), UtilityNet(3)
    save_network(tmp_path / "aegan.safetensors", aegan, AEGAN_ARGUMENTS)
    save_network(tmp_path / "identity.safetensors", identity, IDENTITY_ARGUMENTS)
    save_network(tmp_path / "utility.safetensors", utility, {"n_findings": 3}, half=True)
    loaded = load_anonymizer(tmp_path)
    expected = AnonymizerNet(aegan, identity, utility).eval()
    assert not loaded.training and not any(p.requires_grad for p in loaded.parameters())
    image = torch.rand(2, 1, 32, 32)
    with torch.no_grad():
        assert torch.equal(loaded(image), expected(image))
        assert torch.equal(loaded.identity(image), expected.identity(image))
        feature = expected.utility.features(image)
        torch.testing.assert_close(loaded.utility.features(image), feature, rtol=0.02, atol=0.02)
    assert next(loaded.utility.parameters()).dtype == torch.float32


def test_a_folder_that_lacks_a_network_says_which(tmp_path, aegan):
    save_network(tmp_path / "aegan.safetensors", aegan, AEGAN_ARGUMENTS)
    with pytest.raises(IntegrityError) as caught:
        load_anonymizer(tmp_path)
    assert caught.value.code == "GM-W001" and "identity" in str(caught.value) and caught.value.got == "aegan"


def test_a_file_other_than_the_recorded_one_is_refused(tmp_path, aegan):
    path = tmp_path / "aegan.safetensors"
    save_network(path, aegan, AEGAN_ARGUMENTS)
    # A well-formed file of the same network, whose hash the index does not have.
    save_weights(path, AEGAN(**AEGAN_ARGUMENTS), {"network": "AEGAN", "arguments": AEGAN_ARGUMENTS})
    with pytest.raises(IntegrityError) as caught:
        load_recorded(tmp_path, "aegan")
    assert caught.value.code == "GM-W002"


def test_a_recorded_file_that_is_gone_is_said(tmp_path, aegan):
    save_network(tmp_path / "aegan.safetensors", aegan, AEGAN_ARGUMENTS)
    (tmp_path / "aegan.safetensors").unlink()
    with pytest.raises(IntegrityError) as caught:
        load_recorded(tmp_path, "aegan")
    assert caught.value.code == "GM-W001"


@pytest.mark.parametrize("metadata", [{}, {"network": "ResNet"}, {"network": None}])
def test_a_file_of_an_unknown_network_is_refused(tmp_path, metadata):
    save_weights(tmp_path / "x.safetensors", {"a": torch.zeros(1)}, metadata)
    with pytest.raises(IntegrityError) as caught:
        load_network(tmp_path / "x.safetensors")
    assert caught.value.code == "GM-W006" and "AEGAN" in str(caught.value)


@pytest.mark.parametrize(
    "metadata",
    [
        {"format": "pt"},
        {"network": "AEGAN"},
        {"network": json.dumps("AEGAN")},
        {"network": json.dumps("AEGAN"), "arguments": json.dumps({"no_such_argument": 1})},
        {"network": json.dumps(["AEGAN"])},
    ],
    ids=["written by others", "not JSON", "no arguments", "other arguments", "a list"],
)
def test_a_safetensors_file_with_other_metadata_is_refused(tmp_path, metadata):
    save_file({"a": torch.zeros(1)}, tmp_path / "x.safetensors", metadata=metadata)
    with pytest.raises(IntegrityError) as caught:
        load_network(tmp_path / "x.safetensors")
    assert caught.value.code == "GM-W006"


def test_arguments_that_do_not_fit_the_tensors_are_refused(tmp_path, aegan):
    save_network(tmp_path / "x.safetensors", aegan, {**AEGAN_ARGUMENTS, "latent_dim": 24})
    with pytest.raises(IntegrityError) as caught:
        load_network(tmp_path / "x.safetensors")
    assert caught.value.code == "GM-W004"


def test_every_class_can_be_recorded(tmp_path):
    utility = UtilityNet(2, mean=0.4)
    save_network(tmp_path / "u.safetensors", utility, {"n_findings": 2, "mean": 0.4})
    loaded = load_recorded(tmp_path, "u")
    assert isinstance(loaded, UtilityNet) and loaded.mean == 0.4
