"""The properties that MONAI's workflows look for in the training and inference configs."""

from __future__ import annotations

import pytest
from monai.bundle import ConfigWorkflow

TINY = {"aegan#channel_base": 64, "aegan#perceptual": "none"}
TRAININGS = {"train": TINY, "train_identity": {}, "train_utility": {"utility#min_positives_val": 1}}


def missing(config, kind, **override):
    workflow = ConfigWorkflow(str(config), logging_file=False, workflow_type=kind, device="cpu", **override)
    workflow.initialize()
    return workflow.check_properties()


@pytest.fixture(autouse=True)
def no_store_of_ours(monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.mark.parametrize("name", TRAININGS)
def test_training_config_has_all_properties(configs, cohort, tmp_path, name):
    settings = {"manifest": str(cohort), "output_dir": str(tmp_path / "run"), **TRAININGS[name]}
    assert missing(configs / f"{name}.yaml", "train", **settings) == []


def test_inference_config_has_all_properties(configs, cohort, models_dir, tmp_path):
    settings = {"input": str(cohort), "output_dir": str(tmp_path / "run"), "models_dir": str(models_dir)}
    assert missing(configs / "inference.yaml", "infer", **settings) == []


def test_a_missing_property_is_not_passed_over(configs, cohort, models_dir, tmp_path):
    text = (configs / "inference.yaml").read_text()
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "metadata.json").write_text((configs / "metadata.json").read_text())
    renamed = tmp_path / "configs" / "inference.yaml"
    renamed.write_text(text.replace("dataset_dir", "data_folder"))
    settings = {"input": str(cohort), "output_dir": str(tmp_path / "run"), "models_dir": str(models_dir)}
    with pytest.raises(KeyError, match="dataset_dir"):  # MONAI 1.6 raises where it should list
        missing(renamed, "infer", **settings)
