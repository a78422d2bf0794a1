"""Settings of the command line: profiles of the bundle, options over them, the folder of weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from gmia_monai.attacks.refit import RefitRecipe
from gmia_monai.errors import UsageError
from gmia_monai.evaluation import options
from gmia_monai.evaluation.options import EVERYDAY, judgement_settings, profile_settings, weights_folder

CONFIGS = Path(__file__).parents[2] / "bundle" / "configs"


def test_without_a_profile_the_settings_are_those_of_the_config():
    suite = yaml.safe_load((CONFIGS / "evaluate.yaml").read_text())["suite"]
    assert judgement_settings() == EVERYDAY
    assert (EVERYDAY["seeds"], EVERYDAY["n_boot"]) == (suite["seeds"], suite["n_boot"])
    assert RefitRecipe(**EVERYDAY["refit"]) == RefitRecipe(**suite["refit"])


@pytest.mark.parametrize("profile", ["quick", "full"])
def test_a_profile_is_its_file_and_options_go_before(profile, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    suite = yaml.safe_load((CONFIGS / "profiles" / f"evaluate_{profile}.yaml").read_text())["+suite"]
    assert profile_settings(profile) == suite and judgement_settings(profile) == EVERYDAY | suite
    found = judgement_settings(profile, seeds=2, refit_steps=10, n_boot=None, attacks=["budget"], attackers=[])
    assert found == EVERYDAY | suite | {
        "seeds": [0, 1],
        "attacks": ["budget"],
        "refit": suite["refit"] | {"steps": 10, "validate_every": 2},
    }


def test_profiles_that_are_none_are_refused(monkeypatch, tmp_path):
    with pytest.raises(UsageError, match="GM-U339.*cxr64.*full, quick.*--label"):
        profile_settings("cxr64")
    monkeypatch.setattr(options, "_FOLDERS", (tmp_path,))
    for name, text in (("a", "+suite: {core: false}"), ("b", "suite: {n_boot: 2}"), ("c", "[]")):
        (tmp_path / f"evaluate_{name}.yaml").write_text(text)
        with pytest.raises(UsageError, match="GM-U339.*unusable"):
            profile_settings(name)


def test_weights_are_there_or_expressly_not(tmp_path):
    assert weights_folder("none") is None and weights_folder(str(CONFIGS.parent / "models")).name == "models"
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(UsageError, match="GM-U338.*index.json.*--models-dir"):
            weights_folder(str(folder))
