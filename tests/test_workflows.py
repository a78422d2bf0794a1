"""One anonymization through each entry point, and what must not be in anything that it leaves behind."""

from __future__ import annotations

import csv
import logging
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from monai.bundle import create_workflow, run_workflow
from monai.bundle import run as run_bundle
from tiny_bundle import CONFIG, REPOSITORY, overrides, save_tiny
from toy_release import open_workshop, write_input

from gmia_monai.data.phantom import generate_cohort
from gmia_monai.dicom.pseudonyms import load_key
from gmia_monai.errors import UsageError
from gmia_monai.inferers import LatentOptimizationInferer
from gmia_monai.release.opening import Opening
from gmia_monai.release.verify import verify_folder
from gmia_monai.release.workshop import Workshop
from gmia_monai.transforms import read_radiograph
from gmia_monai.workflows import AnonymizationWorkflow, BenchmarkWorkflow

WORKFLOW = "gmia_monai.workflows.AnonymizationWorkflow"
pytestmark = pytest.mark.filterwarnings("ignore:parsing config")


@pytest.fixture(scope="module")
def models_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Manifest of two made-up patients with two images each, PNG and DICOM."""
    return generate_cohort(tmp_path_factory.mktemp("cohort"), 2, 2, size=64)


@pytest.fixture(autouse=True)
def restored_hook(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)  # the config sets its own


def given_key(out: Path, digit: str = "a") -> None:
    """The same key for several outputs, so that they can be compared."""
    key = out.with_name(out.name + ".key")
    key.write_text(digit * 64)
    key.chmod(0o600)


def table(out: Path) -> list[dict[str, str]]:
    with (out / "table.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


def run_class(config: str, **settings: Any) -> None:
    workflow = AnonymizationWorkflow(config, **settings)
    workflow.initialize()
    workflow.run()
    workflow.finalize()


def run_created(config: str, **settings: Any) -> None:
    workflow = create_workflow(WORKFLOW, config_file=config, **settings)
    assert isinstance(workflow, AnonymizationWorkflow)
    workflow.run()
    workflow.finalize()


def run_by_name(config: str, **settings: Any) -> None:
    run_workflow(WORKFLOW, config_file=config, **settings)


def run_config(config: str, **settings: Any) -> None:
    run_bundle(config_file=config, bundle_root=str(REPOSITORY / "bundle"), workflow_type="infer", **settings)


@pytest.mark.parametrize("entry", [run_class, run_created, run_by_name, run_config])
def test_each_entry_point_anonymizes(entry: Callable[..., None], models_dir, cohort, tmp_path) -> None:
    out = tmp_path / "out"
    entry(CONFIG, **overrides(models_dir, input=str(cohort), output_dir=str(out)))
    rows = table(out)
    assert [row["status"] for row in rows] == ["anonymized"] * 4
    with out.with_name("out.links.csv").open(newline="") as stream:
        links = {row["handle"]: row for row in csv.DictReader(stream)}
    for row in rows:
        assert 1 <= int(row["steps"]) <= 3
        assert float(row["cos_optimized"]) < float(row["cos_before"])
        before, frame = read_radiograph(cohort.parent / links[row["handle"]]["image"])
        after, written = read_radiograph(out / row["file"])
        assert after.shape == before.shape and written.kind == "png", "no DICOM without a policy"
        assert written.bits == (8 if frame.bits == 8 else 16)
        assert np.abs(after - before).max() > 0.05
    assert (out / "NOT_RELEASED.txt").is_file()


def _bytes(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((out / "images").iterdir())}


def test_the_same_seed_and_settings_give_the_same_bytes(models_dir, cohort, tmp_path) -> None:
    for name in ("one", "two", "other"):
        given_key(tmp_path / name)
        more: dict[str, Any] = {"optimization#start_noise": 0.2, "seed": 2 if name == "other" else 1}
        run_class(CONFIG, **overrides(models_dir, input=str(cohort), output_dir=str(tmp_path / name), **more))
    assert _bytes(tmp_path / "one") == _bytes(tmp_path / "two")
    other = _bytes(tmp_path / "other")
    assert other.keys() == _bytes(tmp_path / "one").keys() and other != _bytes(tmp_path / "one")
    assert [row["seed"] for row in table(tmp_path / "one")] != [row["seed"] for row in table(tmp_path / "other")]


def test_a_second_run_computes_nothing_and_a_lost_file_costs_its_unit(
    models_dir, cohort, tmp_path, monkeypatch
) -> None:
    seen: list[int] = []
    optimize = LatentOptimizationInferer.optimize

    def counted(self: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        seen.append(len(inputs))
        return optimize(self, inputs, *args, **kwargs)

    monkeypatch.setattr(LatentOptimizationInferer, "optimize", counted)
    out = tmp_path / "out"
    settings = overrides(models_dir, input=str(cohort), output_dir=str(out), unit_size=1)

    def again(**more: Any) -> list[int]:
        seen.clear()
        run_class(CONFIG, **{**settings, **more})
        return list(seen)

    assert again() == [1, 1, 1, 1]
    whole = _bytes(out)
    assert again() == []
    (out / table(out)[2]["file"]).unlink()
    assert again() == [1]
    assert _bytes(out) == whole
    assert again(**{"optimization#margin_cos": -0.9}) == [1, 1, 1, 1]
    assert len(table(out)) == 4


def _secrets(cohort: Path) -> set[str]:
    """What identifies the made-up patients: names of files, identifiers, and all text of the headers."""
    found: set[str] = set()
    with cohort.open(newline="") as stream:
        for row in csv.DictReader(stream):
            found |= {row["patient_id"], row["study_id"], Path(row["image"]).name, Path(row["image"]).stem}
    kinds = ("PN", "LO", "SH", "ST", "LT", "UI", "DA")
    for path in (cohort.parent / "images").glob("*.dcm"):
        for element in pydicom.dcmread(path).iterall():
            value = str(element.value or "")
            if element.VR in kinds and len(value) > 5 and not value.startswith("1.2.840.10008."):
                found |= {value, *(part for part in value.split("^") if len(part) > 5)}
    return found


@pytest.mark.parametrize("as_folder", [False, True], ids=["manifest", "folder"])
def test_nothing_of_the_source_in_files_names_table_or_log(
    models_dir, cohort, tmp_path, caplog, capfd, as_folder
) -> None:
    secrets = _secrets(cohort)
    assert any("Quillfeather" in secret for secret in secrets) and "Phantomworks" in secrets and len(secrets) > 20
    # One of them cannot be read: its reason is told, its name is not.
    source = tmp_path / "in"
    generate_cohort(source, 2, 2, size=64)
    victim = sorted((source / "images").glob("*.dcm"))[0]
    victim.write_bytes(victim.read_bytes()[:3000])
    out = tmp_path / "out"
    given = source if as_folder else source / "manifest.csv"
    with caplog.at_level(logging.DEBUG):
        run_class(CONFIG, **overrides(models_dir, input=str(given), output_dir=str(out)))
    assert sorted(row["status"] for row in table(out)) == ["anonymized"] * 3 + ["rejected"]
    screen = capfd.readouterr()
    told = "\n".join([*(record.getMessage() for record in caplog.records), caplog.text, screen.out, screen.err])
    assert "3 images anonymized" in told
    files = [path for path in out.rglob("*") if path.is_file()]
    assert len(files) == 3 + 3, "images, table, note, one record"
    for secret in secrets:
        assert secret not in told, secret
        for path in files:
            assert secret not in str(path.relative_to(out)), secret
            content = path.read_bytes()
            assert secret.encode() not in content and secret.encode("utf-16-le") not in content, secret


@pytest.mark.parametrize("workflow", [AnonymizationWorkflow, BenchmarkWorkflow])
def test_a_missing_config_is_a_coded_error(workflow, tmp_path) -> None:
    for files in (str(tmp_path / "none.yaml"), [CONFIG, str(tmp_path / "none.yaml")]):
        with pytest.raises(UsageError) as caught:
            workflow(files)
        assert caught.value.code == "GM-U080"


def test_a_second_config_overrides_the_first(models_dir, cohort, tmp_path) -> None:
    extra = tmp_path / "extra.yaml"
    extra.write_text("optimization#max_steps: 1\n")
    out = tmp_path / "out"
    settings = overrides(models_dir, input=str(cohort), output_dir=str(out))
    del settings["optimization#max_steps"]
    workflow = AnonymizationWorkflow([CONFIG, str(extra)], **settings)
    workflow.initialize()
    workflow.run()
    assert {row["steps"] for row in table(out)} == {"1"}


def test_errors_of_the_config_parser_that_hide_no_coded_one_come_as_they_are(models_dir, cohort, tmp_path) -> None:
    settings = overrides(models_dir, input=str(cohort), output_dir=str(tmp_path / "out"), device="$1 / 0")
    workflow = AnonymizationWorkflow(CONFIG, **settings)
    with pytest.raises(Exception) as caught:  # noqa: B017, PT011 - whatever MONAI makes of it
        workflow.initialize()
        workflow.run()
    assert "GM-" not in str(caught.value)


def test_the_config_has_what_monai_expects_of_an_inference_bundle(models_dir, cohort, tmp_path) -> None:
    settings = overrides(models_dir, input=str(cohort), output_dir=str(tmp_path / "out"))
    workflow = create_workflow(WORKFLOW, config_file=CONFIG, **settings)
    assert not workflow.check_properties()
    assert workflow.get_workflow_type() in ("infer", "inference")


@pytest.mark.parametrize("policy", [{"linkage": "pseudonymous"}, "policy.yaml"])
@pytest.mark.parametrize("entry", [run_class, run_created, run_config])
def test_with_a_policy_dicom_goes_through_the_gate_and_nothing_else_does(
    entry, policy, models_dir, cohort, tmp_path, monkeypatch
) -> None:
    asked = []

    def opened(self: Opening) -> Workshop:
        asked.append((self.policy.linkage, self.models_dir, self.device))
        return open_workshop(self.places.source, self.places.output, self.policy, key=self.key)

    monkeypatch.setattr(Opening, "__call__", opened)
    monkeypatch.setattr(LatentOptimizationInferer, "optimize", lambda *given: pytest.fail("optimized without the gate"))
    if isinstance(policy, str):
        policy = str(tmp_path / policy)
        Path(policy).write_text("linkage: pseudonymous\n")
    source, out = write_input(tmp_path / "in", patients=2, images=1), tmp_path / "out"
    (source / "no image.txt").write_text("nothing")
    given_key(out)
    settings = overrides(models_dir, input=str(source), output_dir=str(out), policy=policy)
    if entry is run_config:
        with pytest.raises(SystemExit) as caught:
            entry(CONFIG, **settings)
        assert caught.value.code == 1, "one was rejected"
    else:
        entry(CONFIG, **settings)
    assert asked == [("pseudonymous", models_dir, "cpu")]
    assert len(list((out / "images").rglob("*.dcm"))) == 2 and (out / "report.html").is_file()
    assert not (out / "NOT_RELEASED.txt").exists() and verify_folder(out, load_key(Path(f"{out}.key"))).good


def test_a_release_takes_no_images_without_a_gate(models_dir, cohort, tmp_path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "ledger.jsonl").write_text("")
    with pytest.raises(UsageError, match="GM-U076"):
        run_class(CONFIG, **overrides(models_dir, input=str(cohort), output_dir=str(tmp_path / "out")))
    assert len(list((tmp_path / "out").iterdir())) == 1


def test_a_config_without_a_policy_runs(tmp_path) -> None:
    (tmp_path / "own.yaml").write_text("run:\n- $print('it ran')\n")
    workflow = AnonymizationWorkflow(str(tmp_path / "own.yaml"), logging_file=False)
    workflow.initialize()
    workflow.run()


def test_the_outcome_of_a_release_is_what_the_workflow_gives(models_dir, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(
        Opening,
        "__call__",
        lambda self: open_workshop(self.places.source, self.places.output, self.policy, key=self.key),
    )
    source = write_input(tmp_path / "in", patients=1, images=1)
    settings = overrides(models_dir, input=str(source), output_dir=str(tmp_path / "out"), policy={})
    given_key(tmp_path / "out")
    workflow = AnonymizationWorkflow(CONFIG, **settings)
    workflow.initialize()
    assert workflow.run().ends == {"released": 1, "held": 0, "rejected": 0}
    with pytest.raises(UsageError, match="GM-U404"):
        AnonymizationWorkflow(CONFIG, **settings | {"policy": {"linkage": "none"}}).run()


def test_real_radiographs_go_through_and_a_file_without_pixels_does_not(models_dir, cxr_dir, tmp_path) -> None:
    source = tmp_path / "in"
    shutil.copytree(cxr_dir / "dicom" / "cxr", source / "dicom")
    images = sorted((cxr_dir / "nih64").glob("*.jpg"))[:3]
    for image in images:
        shutil.copy(image, source)
    out = tmp_path / "out"
    run_class(CONFIG, **overrides(models_dir, input=str(source), output_dir=str(out)))
    rows = table(out)
    assert len(rows) == 3 + len(list((source / "dicom").iterdir()))
    rejected = [row for row in rows if row["status"] != "anonymized"]
    assert len(rejected) == 1
    assert rejected[0]["reason"].startswith("GM-D")
    sizes = sorted(read_radiograph(out / row["file"])[0].shape for row in rows if row["file"])
    files = [*images, *(p for p in (source / "dicom").iterdir() if "no_pixels" not in p.name)]
    assert sizes == sorted(read_radiograph(p)[0].shape for p in files)
    left = b"".join(p.read_bytes() for p in out.rglob("*") if p.is_file())
    assert not any(p.stem.encode() in left for p in files)
