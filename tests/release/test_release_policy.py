"""The policy: careful defaults, plain values only, and errors that say which word was meant."""

from __future__ import annotations

import json

import pytest

from gmia_monai.dicom.text import MARKERS
from gmia_monai.errors import UsageError
from gmia_monai.release.policy import Policy, explain_policy, load_policy


def _file(folder, text: str):
    path = folder / "policy.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_defaults_are_those_without_a_file_and_of_an_empty_one(tmp_path):
    assert load_policy(None) == load_policy(_file(tmp_path, "")) == Policy()
    assert Policy().linkage == "unlinkable" and Policy().text.markers == list(MARKERS)
    assert not Policy().intake.images_without_header


def test_yaml_and_json_say_the_same(tmp_path):
    wanted = {"linkage": "pseudonymous", "checks": {"identity_share": 0.02, "max_upscale": 4.0}}
    text = "linkage: pseudonymous\nchecks:\n  identity_share: 0.02\n  max_upscale: 4.0\n"
    one, other = load_policy(_file(tmp_path, text)), load_policy(_file(tmp_path, json.dumps(wanted)))
    assert one == other and one.checks.identity_share == 0.02
    assert one.sha256 == other.sha256 != Policy().sha256


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(UsageError, match="GM-U402"):
        load_policy(tmp_path / "none.yaml")


@pytest.mark.parametrize(
    "text",
    [
        "- a list",
        "just words",
        "a: [1",
        "linkage: !!python/object/apply:os.system ['true']",
        "linkage: !!python/name:os.system",
        "linkage: unlinkable\nlinkage: pseudonymous",
        "checks: &a {identity_share: 0.01}\ntext: *a",
        "a: &a [*a]",
        "[" * 5000,
        "---\nversion: 1\n---\nversion: 1\n",
        "\x00",
    ],
)
def test_what_is_no_plain_mapping_is_refused(tmp_path, text):
    with pytest.raises(UsageError, match="GM-U403"):
        load_policy(_file(tmp_path, text))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("linkag: unlinkable", "did you mean linkage"),
        ("checks: {identity_shar: 0.1}", "did you mean checks.identity_share"),
        ("checks: {min_age_years: 3}", "did you mean intake.min_age_years"),
        ("linkage: everything", "linkage"),
        ("checks: {identity_share: 0.0}", "identity_share"),
        ("checks: {identity_share: .nan}", "identity_share"),
        ("checks: {identity_share: .inf}", "identity_share"),
        ("checks: {identity_share: '0.01'}", "identity_share"),
        ("version: 2", "version"),
        ("version: true", "version"),
        ("system: {name: ../robust}", "system.name"),
        ("system: {settings: {a: {b: 1}}}", "system.settings"),
        ("system: {settings: {policy: pseudonymous}}", "linkage is said once"),
        ("intake: {views: [PA, XX]}", "intake.views"),
        ("intake: null", "intake"),
    ],
)
def test_settings_that_cannot_be_used_are_named(tmp_path, text, said):
    with pytest.raises(UsageError, match="GM-U404") as raised:
        load_policy(_file(tmp_path, text))
    assert said in str(raised.value)


def test_a_policy_does_not_change():
    with pytest.raises(ValueError, match="frozen"):
        Policy().linkage = "pseudonymous"


def test_every_setting_is_explained_with_its_default():
    found = {name: (default, meaning) for name, default, meaning in explain_policy()}
    assert all(meaning and "None" not in meaning for _, meaning in found.values())
    assert found["intake.min_age_years"][0] == "18" and "unlinkable, pseudonymous" in found["linkage"][1]
    shown: dict = {}
    for name, (default, _) in found.items():
        place = shown
        *parts, last = name.split(".")
        for part in parts:
            place = place.setdefault(part, {})
        place[last] = json.loads(default)
    assert Policy.model_validate(shown) == Policy()
