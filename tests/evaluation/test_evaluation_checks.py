"""What is refused before the first image is read."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from monai.bundle import ConfigWorkflow

from gmia_monai.anonymizers import Unchanged
from gmia_monai.data.cohort import Cohort
from gmia_monai.errors import UsageError, coded_cause
from gmia_monai.evaluation import command
from gmia_monai.evaluation.checks import check_device, check_folder, check_judgement, check_release
from gmia_monai.evaluation.command import Judgement, evaluate_anonymizer, evaluate_release

CONFIG = Path(__file__).parents[2] / "bundle" / "configs" / "evaluate.yaml"


def test_a_device_that_is_not_there():
    check_device("cpu")
    for device in ["foo", "cpu:x", "meta", *([] if torch.cuda.is_available() else ["cuda", "cuda:3"])]:
        with pytest.raises(UsageError, match=f"GM-U373 .*{device}.*expected: cpu"):
            check_device(device)


def test_a_folder_that_is_a_file_or_below_one(tmp_path):
    (tmp_path / "file").touch()
    for folder in (None, "", tmp_path, tmp_path / "new" / "er"):
        check_folder(folder)
    for folder in (tmp_path / "file", tmp_path / "file" / "below" / "it"):
        with pytest.raises(UsageError, match="GM-U374 .*file is a file"):
            check_folder(folder)
    assert not (tmp_path / "new").exists()


def test_names_and_numbers(tmp_path):
    check_judgement(["release", "utility", "budget"], ["frozen", "fusion", "adaptive_cross_snn"], "cpu", ())
    for attacks, attackers, shown, code in (
        (["rumour"], None, 0, "GM-U323"),
        (None, ["rumour"], 0, "GM-U319"),
        (None, None, -1, "GM-U375"),
    ):
        with pytest.raises(UsageError, match=code):
            check_judgement(attacks, attackers, "cpu", (), shown)


def test_files_of_the_release(tmp_path):
    (tmp_path / "release").mkdir()
    for released in ("", tmp_path / "none", tmp_path / "release"):
        with pytest.raises(UsageError, match="GM-U320"):
            check_release(released)
    (tmp_path / "release" / "a.png").touch()
    check_release(tmp_path / "release", None, tmp_path / "release" / "a.png", 32)
    for size in (-1, 0, 31):
        with pytest.raises(UsageError, match="GM-U372"):
            check_release(tmp_path / "release", image_size=size)
    for name, code in (("links", "GM-U321"), ("labels", "GM-U371")):
        with pytest.raises(UsageError, match=code):
            check_release(tmp_path / "release", **{name: tmp_path / "none.csv"})


def test_a_judgement_is_checked_before_the_cohort_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(command, "load_cohort", lambda *a, **k: pytest.fail("the cohort was read"))
    monkeypatch.setattr(command, "make_case", lambda *a, **k: pytest.fail("images were anonymized"))
    (tmp_path / "file").touch()
    for judgement, out, code in (
        (Judgement(attacks=["rumour"]), tmp_path, "GM-U323"),
        (Judgement(attackers=["rumour"]), tmp_path, "GM-U319"),
        (Judgement(device="foo"), tmp_path, "GM-U373"),
        (Judgement(), tmp_path / "file", "GM-U374"),
        (Judgement(cache_dir=tmp_path / "file"), tmp_path, "GM-U374"),
    ):
        with pytest.raises(UsageError, match=code):
            evaluate_release(None, tmp_path, out, judgement)
        with pytest.raises(UsageError, match=code):
            evaluate_anonymizer(Cohort(()), Unchanged(), out, judgement)
    with pytest.raises(UsageError, match="GM-U320"):
        evaluate_release(None, tmp_path / "none", tmp_path, Judgement())


@pytest.mark.parametrize(
    ("settings", "code"),
    [({"suite#attacks": ["rumour"]}, "GM-U323"), ({"released": "nowhere"}, "GM-U320"), ({"image_size": 0}, "GM-U372")],
)
def test_the_config_checks_first(settings, code, tmp_path, monkeypatch):
    monkeypatch.setattr("gmia_monai.errors.show_coded_errors", lambda: None)
    (tmp_path / "a.png").touch()
    given = {"released": str(tmp_path), "output_dir": str(tmp_path / "out"), "device": "cpu"} | settings
    workflow = ConfigWorkflow(str(CONFIG), workflow_type="eval", logging_file=False, run_id="evaluating", **given)
    with pytest.raises(Exception) as caught:  # MONAI wraps what its configs raise
        workflow.initialize()
    cause = coded_cause(caught.value)
    assert cause is not None and cause.code == code
