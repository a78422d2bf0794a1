"""What is said before the figures: no links, no policy, another size."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from attack_cohorts import SIZE, judged, knowledge

from gmia_monai.attacks.base import Judged
from gmia_monai.evaluation.case import Case
from gmia_monai.evaluation.notes import case_notes, trained_sizes, weaknesses
from gmia_monai.evaluation.suite import attackers_left_out, protocol_attackers, usable_attackers
from gmia_monai.networks import IdentityNet, SiameseVerifier, save_network


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        arguments = {"image_size": 64, "architecture": "small_pooled", "embedding_dim": 16}
        save_network(folder / "arcface.safetensors", IdentityNet(**arguments), arguments)
        arguments = {"architecture": "small", "features": 16}
        save_network(folder / "siamese.safetensors", SiameseVerifier(**arguments), arguments)
    return [folder / "arcface.safetensors", folder / "siamese.safetensors"]


def _case(policy: str = "unlinkable", linked: bool = True) -> Case:
    found = judged("noise", policy)
    if not linked:
        sources = ((),) * len(found.release)
        found = Judged(found.real, replace(found.release, sources=sources))
    return Case(knowledge("noise"), found, "ab" * 32)


def test_nothing_is_said_of_a_plain_case(caplog):
    assert case_notes(_case()) == {} and caplog.text == ""


def test_a_release_without_links_or_policy_says_what_is_lost(caplog):
    notes = case_notes(_case("", linked=False))
    assert set(notes) == {"links", "policy"}
    assert "verification" in notes["links"] and "no headline" in notes["links"] and "--links" in notes["links"]
    assert "T3" in notes["policy"] and "are averaged as if one pseudonym stood above them" in notes["policy"]
    assert [record.levelname for record in caplog.records] == ["WARNING"] * 2


def test_attackers_of_another_size_are_named_with_both_sizes(weights):
    assert trained_sizes(weights) == {"arcface": 64, "siamese": 64}, "the second from what stands beside it"
    note = case_notes(_case(), weights)["image_size"]
    assert f"images of {SIZE} px" in note and "arcface, siamese learned from images of 64 px" in note
    assert case_notes(_case(), []) == {}


def test_attackers_that_are_left_out_are_named_with_what_they_lack(weights):
    arcface, snn = weights[:1], weights[1:]
    nothing = attackers_left_out(_case(), arcface, snn)
    assert set(nothing) == {"owner", "owner_fresh"}, "nobody holds the system of a folder"
    assert "the system itself" in nothing["owner"]
    lacking = attackers_left_out(_case(), arcface, [])
    assert set(lacking) - set(nothing) == {"snn", "linear_snn", "adaptive_cross_snn"}
    assert lacking["snn"] == lacking["adaptive_cross_snn"] == "weights siamese*"
    generated = attackers_left_out(_case(linked=False), arcface, snn)
    assert "generated" in generated["metadata"] and generated["adaptive_cross"] == "sources"
    blind = attackers_left_out(replace(_case(), knowledge=knowledge("noise", frozen=None)), [], [])
    assert blind["averaging"] == "weights of any attacker" and blind["frozen"] == "weights identity"
    assert not set(usable_attackers(_case(), arcface, [])) & set(lacking)

    note = case_notes(_case(), [], lacking)["attackers"]
    assert "snn, linear_snn, adaptive_cross_snn for lack of weights siamese*" in note
    assert "owner, owner_fresh for lack of the system itself" in note


def test_what_reading_left_out_is_said(caplog):
    found = replace(_case(), notes={"absent": "2 of 4"})
    assert case_notes(found) == {"absent": "2 of 4"} and "absent: 2 of 4" in caplog.text


def test_what_makes_attackers_weaker_than_they_could_be_is_said():
    everyone, held = protocol_attackers(), {"owner": "the system itself, which a folder does not hold"}
    there = [name for name in everyone if name not in held]
    assert weaknesses(everyone, {}, (0, 1, 2), {"steps": 300}) == ""
    unheld = "nobody holds the system for owner"
    assert weaknesses(there, held, range(3), None) == unheld
    assert weaknesses(there[:-1], held, (0, 1, 2), None) == f"not asked for: {there[-1]}; {unheld}"
    assert weaknesses(everyone, {}, (0,), None) == "1 attacker seed instead of 3"
    assert weaknesses(everyone, {}, (0, 1, 2), {"steps": 60}) == "60 updates a refit instead of 300"
    lacking = {"snn": "weights siamese*", "linear": "one source an image (the release is generated)"}
    assert weaknesses([n for n in everyone if n not in lacking], lacking, (0, 1, 2), None) == "no weights for snn"
    note = case_notes(_case(), weaker="1 attacker seed instead of 3")["strength"]
    assert "no figure is called good" in note and note.endswith("1 attacker seed instead of 3")
