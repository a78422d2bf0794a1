"""Images that are held out of a training list, and the start of a classifier of patients."""

from __future__ import annotations

import pytest
import torch

from gmia_monai.engines.patients import hold_out_images, start_patient_classifier
from gmia_monai.errors import IntegrityError
from gmia_monai.networks import IdentityNet, save_network
from gmia_monai.networks.patient_classifier import PatientClassifier

COUNTS = (1, 2, 3, 5)


def _items() -> list[dict[str, object]]:
    return [{"label": p, "key": f"{p}/{i}.png"} for p, n in enumerate(COUNTS) for i in range(n)]


@pytest.mark.parametrize(("min_images", "held_of"), [(3, [2, 3]), (2, [1, 2, 3]), (0, [1, 2, 3]), (9, [])])
def test_one_image_is_held_out_of_who_has_enough(min_images, held_of):
    items = _items()
    learned, held = hold_out_images(items, min_images)
    assert [item["label"] for item in held] == held_of
    assert sorted(map(str, learned + held)) == sorted(map(str, items)) and [i for i in items if i in learned] == learned
    assert {item["label"] for item in learned} == {0, 1, 2, 3}, "everybody is learned from"


def test_what_is_held_out_does_not_depend_on_the_order():
    first = hold_out_images(_items())[1]
    assert {str(i["key"]) for i in hold_out_images(_items()[::-1])[1]} == {str(i["key"]) for i in first}


def test_a_classifier_starts_from_an_identity_encoder(tmp_path):
    arguments = {"image_size": 32, "architecture": "small_pooled", "embedding_dim": 16}
    encoder = IdentityNet(**arguments)
    save_network(tmp_path / "identity.safetensors", encoder, arguments)
    network = PatientClassifier(32, 5, embedding_dim=16)
    assert start_patient_classifier(network, "") is network
    assert not torch.equal(network.encoder.fc.weight, encoder.fc.weight)
    start_patient_classifier(network, tmp_path / "identity.safetensors")
    assert all(torch.equal(v, network.encoder.state_dict()[k]) for k, v in encoder.state_dict().items())
    with pytest.raises(IntegrityError):
        start_patient_classifier(PatientClassifier(32, 5, embedding_dim=8), tmp_path / "identity.safetensors")
