"""Systems from entries of a config: what is refused, what is passed on, what is missing."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from tiny_bundle import REPOSITORY, phantoms, save_tiny

from gmia_monai.anonymizers import ANONYMIZERS, GMIA, Noise, Unchanged
from gmia_monai.errors import IntegrityError, UsageError
from gmia_monai.evaluation import zoo
from gmia_monai.evaluation.zoo import build_system, missing_weights, read_entries, resolved_settings
from gmia_monai.inferers import computes_bfloat16
from gmia_monai.weights import read_index

CONFIG = REPOSITORY / "bundle" / "configs" / "benchmark.yaml"
GMIA_ENTRY = {"name": "gmia", "margin_cos": 0.0, "lr": 0.1, "betas": (0.7, 0.99), "max_steps": 2, "bfloat16": "auto"}


class Taught(Unchanged):
    """A system that asks for training images and a device."""

    def __init__(self, learned: int, device: str, strength: float = 1.0) -> None:
        super().__init__()
        self.learned, self.device, self.strength = learned, device, strength

    @classmethod
    def from_weights(cls, models_dir, training, other_people, device="cpu", **settings):
        return cls(len(training()) + len(other_people()), device, **settings)


class Wide(Unchanged):
    """A system that passes on what it does not know."""

    def __init__(self, **settings: object) -> None:
        super().__init__()
        self.given = settings


@pytest.fixture
def more_systems(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, system in (("taught", Taught), ("wide", Wide)):
        monkeypatch.setitem(ANONYMIZERS, name, system)


def _code(systems, only=None) -> str:
    with pytest.raises(UsageError) as caught:
        read_entries(systems, only)
    return caught.value.code


def test_entries_come_in_the_order_of_the_config_with_what_the_benchmark_asks_for() -> None:
    systems = {
        "b": {"name": "noise", "attacks": ["cost"], "max_images": 2},
        "a": {"name": "identity", "needs": ["x", "y"]},
        "c": GMIA_ENTRY,
    }
    found = read_entries(systems, ["a", "b"])
    assert list(found) == ["b", "a"] and list(read_entries(systems, "a")) == ["a"]
    assert (found["b"].attacks, found["b"].max_images, found["b"].needs) == (("cost",), 2, ())
    assert (found["a"].attacks, found["a"].max_images, found["a"].needs) == (None, None, ("x", "y"))
    assert not found["b"].settings and list(read_entries(systems)) == ["b", "a", "c"]
    assert set(read_entries(systems)["c"].settings) == set(GMIA_ENTRY) - {"name"}


def test_what_cannot_be_used_has_its_own_code(more_systems) -> None:
    assert _code({"a": {"name": "noise"}}, ["a", "z"]) == "GM-U380"
    assert _code({"a": {"name": "noise"}}, []) == "GM-U380" and _code({}) == "GM-U380"
    assert _code({"a": {"name": "nobody"}}) == "GM-U381"
    assert "nobody" in read_entries({"a": {"name": "nobody"}}, strict=False)["a"].name
    for entry in (
        {},
        {"name": 3},
        "noise",
        {"name": "noise", "strength": 1},
        {"name": "reconstruction", "device": "cpu"},
        {"name": "taught", "weakness": 1},
        {"name": "taught", "training": 1},
        {"name": "noise", "attacks": "cost"},
        {"name": "noise", "needs": [1]},
        {"name": "noise", "max_images": 0},
        {"name": "noise", "suite": {"seeds": [0]}},
        {"name": "noise", "suite": 2},
    ):
        assert _code({"a": entry}) == "GM-U382", entry
    assert _code({"../a": {"name": "noise"}}) == "GM-U382"
    assert list(read_entries({"a": {"name": "taught", "strength": 2.0}, "b": {"name": "wide", "any": 1}})) == ["a", "b"]


def test_device_and_training_images_are_passed_where_the_class_takes_them(more_systems) -> None:
    systems = {"a": {"name": "taught", "strength": 2.0}, "b": {"name": "wide", "depth": 3}, "c": {"name": "noise"}}
    entries = read_entries(systems)
    asked = []
    taught = build_system(entries["a"], None, "meta", lambda: asked.append(1) or [1, 2, 3], lambda: [4])
    assert (taught.learned, taught.device, taught.strength) == (4, "meta", 2.0) and asked == [1]
    assert build_system(entries["b"], None, training=lambda: asked.append(1)).given == {"depth": 3}
    assert isinstance(build_system(entries["c"], None), Noise) and asked == [1]


def test_auto_is_what_the_machine_can(monkeypatch) -> None:
    entry = read_entries({"a": GMIA_ENTRY | {"compiled": "auto", "name_of": "auto"}})["a"]
    for compiler, compiled in (("/bin/g++", True), (None, False)):
        monkeypatch.setattr(zoo.shutil, "which", lambda name, path=compiler: path)
        found = resolved_settings(entry)
        assert found["compiled"] is compiled and found["bfloat16"] is computes_bfloat16("cpu")
        assert found["name_of"] == "auto" and found["betas"] == [0.7, 0.99]
    monkeypatch.setattr(zoo, "computes_bfloat16", lambda device: device == "cuda:0")
    monkeypatch.setattr(zoo.shutil, "which", lambda name: "/bin/g++")
    assert resolved_settings(entry, "cuda:0")["compiled"] is False
    assert resolved_settings(entry, "cuda:0")["bfloat16"] is True


def test_a_built_system_is_the_one_of_its_class_and_lacks_what_is_not_recorded(tmp_path) -> None:
    entry = read_entries({"a": GMIA_ENTRY | {"needs": ["aegan", "identity", "utility"]}})["a"]
    assert missing_weights(entry, None) == missing_weights(entry, tmp_path / "none") == list(entry.needs)
    for nowhere in (None, tmp_path / "none"):
        with pytest.raises(IntegrityError) as caught:
            build_system(entry, nowhere)
        assert caught.value.code == "GM-W001"
    models = save_tiny(tmp_path / "models")
    assert missing_weights(entry, models) == []
    found = build_system(entry, models)
    settings = resolved_settings(entry)
    own = GMIA.from_weights(models, **settings)
    assert isinstance(found, GMIA) and (found.fingerprint, found.name) == (own.fingerprint, own.name)
    images = phantoms(1)
    assert (found.anonymize_batch(images, [0])[0] == own.anonymize_batch(images, [0])[0]).all()


def test_the_shipped_systems_are_there_and_gmia_has_the_settings_of_its_kept_lines() -> None:
    systems = yaml.safe_load(CONFIG.read_text())["systems"]
    entries = read_entries(systems, strict=False)
    names = {entry.name for entry in entries.values()}
    assert names >= set(ANONYMIZERS)
    lines = {path.stem for path in (REPOSITORY / "bundle" / "docs" / "results" / "systems").glob("*.jsonl")}
    others = {line for line in lines if line.startswith(("prichexy_protocol", "privacy_filter"))}  # of scripts
    assert lines and lines - others <= set(entries)
    read_entries(systems, sorted(id for id, entry in entries.items() if entry.name in ANONYMIZERS))
    settings = resolved_settings(entries["gmia_m0"])
    assert settings.pop("bfloat16") is computes_bfloat16("cpu") and settings.pop("compiled") is False
    assert settings == {"margin_cos": 0.0, "lr": 0.15, "betas": [0.7, 0.99], "max_steps": 100, "unit_size": 64}
    only = resolved_settings(entries["gmia_ut_only"])
    assert (only["lambda_id"], only["lr"], only["max_steps"], only["min_steps"]) == (0.0, 0.05, 30, 30)
    assert resolved_settings(entries["gmia_id_only"])["lambda_ut"] == 0.0
    assert [resolved_settings(entries[f"gmia_m-{m}"])["margin_cos"] for m in (0.5, 0.7)] == [-0.5, -0.7]


def test_systems_of_the_config_ask_for_weights_that_exist_or_are_to_come() -> None:
    """The classes load no more than the config says: with all of an entry's weights recorded, none is missing."""
    models = REPOSITORY / "bundle" / "models"
    recorded = set(read_index(models))
    systems = yaml.safe_load(CONFIG.read_text())["systems"]
    entries = [e for e in read_entries(systems, strict=False).values() if e.name in ("reconstruction", "gmia")]
    assert len(entries) == 6
    for entry in entries:
        assert set(entry.needs) <= recorded
        assert build_system(entry, Path(models)).fingerprint
