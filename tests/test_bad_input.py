"""Input that cannot be used, from end to end: one coded error, or a rejected row while the others go on."""

from __future__ import annotations

import csv
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pydicom
import pytest
from PIL import Image
from tiny_bundle import CONFIG, overrides, save_tiny

from gmia_monai.data.phantom import Acquisition, Identity, generate_cohort, phantom_image
from gmia_monai.errors import GmiaError
from gmia_monai.workflows import AnonymizationWorkflow

pytestmark = pytest.mark.filterwarnings("ignore:parsing config")


@pytest.fixture(scope="module")
def models_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    return np.rint(phantom_image(Identity.from_seed(0), Acquisition.from_seed(0), (64, 64)) * 255).astype(np.uint8)


@pytest.fixture(scope="module")
def dicom(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("dicom")
    generate_cohort(root, 1, 1, size=64, formats=["dicom"])
    return next((root / "images").glob("*.dcm"))


@pytest.fixture
def folder(tmp_path: Path, pixels: np.ndarray) -> Path:
    """Two images that are fine."""
    root = tmp_path / "in"
    root.mkdir()
    Image.fromarray(pixels).save(root / "fine_1.png")
    Image.fromarray(pixels[:, ::-1].copy()).save(root / "fine_2.png")
    return root


@pytest.fixture
def anonymize(
    models_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., dict[str, dict[str, str]]]:
    """Runs the workflow; rows of the table by name of the source."""
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)

    def run(given: Path | str, **more: Any) -> dict[str, dict[str, str]]:
        out = tmp_path / "out"
        settings = {**overrides(models_dir, input=str(given), output_dir=str(out)), "optimization#max_steps": 1, **more}
        workflow = AnonymizationWorkflow(CONFIG, **settings)
        workflow.initialize()
        workflow.run()
        workflow.finalize()
        with out.with_name("out.links.csv").open(newline="") as stream:
            names = {row["handle"]: row["image"] for row in csv.DictReader(stream)}
        with (out / "table.csv").open(newline="") as stream:
            return {names[row["handle"]]: row for row in csv.DictReader(stream)}

    return run


def refused(anonymize: Callable[..., Any], given: Path | str, code: str, **more: Any) -> GmiaError:
    with pytest.raises(GmiaError) as caught:
        anonymize(given, **more)
    assert caught.value.code == code
    assert len(str(caught.value)) < 1500
    return caught.value


# -- input that is none ------------------------------------------------------------------------------------------------
def test_a_folder_that_is_not_there(anonymize, tmp_path) -> None:
    error = refused(anonymize, tmp_path / "none", "GM-U070")
    assert int(error.exit_code) == 2
    assert not (tmp_path / "out").exists()


def test_an_empty_folder(anonymize, tmp_path) -> None:
    (tmp_path / "in").mkdir()
    refused(anonymize, tmp_path / "in", "GM-M002")
    assert [path.name for path in tmp_path.iterdir() if path.name != "models"] == ["in"], "neither output nor key"


def test_files_of_other_kinds_are_counted(anonymize, folder, caplog) -> None:
    (folder / "photo.tif").write_bytes(b"II*\0")
    assert len(anonymize(folder)) == 2
    assert "1 files of other kinds" in caplog.text and "photo" not in caplog.text


@pytest.mark.parametrize("size", [0, -1])
def test_a_batch_size_that_is_none(anonymize, folder, size) -> None:
    refused(anonymize, folder, "GM-U051", batch_size=size)


def test_no_input_at_all(anonymize) -> None:
    refused(anonymize, "", "GM-U071")


def test_an_output_inside_the_input(anonymize, folder) -> None:
    refused(anonymize, folder, "GM-U073", output_dir=str(folder / "out"))


# -- one image of several ----------------------------------------------------------------------------------------------
def _truncated_png(path: Path, pixels: np.ndarray, dicom: Path) -> None:
    Image.fromarray(pixels).save(path.with_suffix(".png"))
    whole = path.with_suffix(".png").read_bytes()
    path.with_suffix(".png").write_bytes(whole[: len(whole) // 2])


def _no_png(path: Path, pixels: np.ndarray, dicom: Path) -> None:
    path.with_suffix(".png").write_bytes(b"not an image")


def _empty(path: Path, pixels: np.ndarray, dicom: Path) -> None:
    path.with_suffix(".png").write_bytes(b"")


def _truncated_dicom(path: Path, pixels: np.ndarray, dicom: Path) -> None:
    whole = dicom.read_bytes()
    path.with_suffix(".dcm").write_bytes(whole[: len(whole) - 3000])


def _beheaded_dicom(path: Path, pixels: np.ndarray, dicom: Path) -> None:
    path.with_suffix(".dcm").write_bytes(dicom.read_bytes()[:500])


def _colour_png(path: Path, pixels: np.ndarray, dicom: Path) -> None:
    Image.fromarray(np.stack([pixels, pixels // 2, pixels], axis=-1)).save(path.with_suffix(".png"))


def _colour_dicom(path: Path, pixels: np.ndarray, dicom: Path) -> None:
    data = pydicom.dcmread(dicom)
    rgb = np.stack([pixels, pixels // 2, pixels], axis=-1)
    data.set_pixel_data(rgb, "RGB", 8)
    data.save_as(path.with_suffix(".dcm"))


def _multi_frame(path: Path, pixels: np.ndarray, dicom: Path) -> None:
    data = pydicom.dcmread(dicom)
    data.NumberOfFrames = 2
    data.PixelData = data.PixelData * 2
    data.save_as(path.with_suffix(".dcm"))


def _small(path: Path, pixels: np.ndarray, dicom: Path) -> None:
    Image.fromarray(pixels[:31, :]).save(path.with_suffix(".png"))


def _constant(path: Path, pixels: np.ndarray, dicom: Path) -> None:
    Image.fromarray(np.full_like(pixels, 9)).save(path.with_suffix(".png"))


def _nan(path: Path, pixels: np.ndarray, dicom: Path) -> None:
    values = pixels.astype(np.float32)
    values[3, 4] = np.nan
    nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), path.with_suffix(".nii.gz"))


def _volume(path: Path, pixels: np.ndarray, dicom: Path) -> None:
    nibabel.save(nibabel.Nifti1Image(np.stack([pixels, pixels], -1), np.eye(4)), path.with_suffix(".nii"))


BAD = {
    "truncated PNG": (_truncated_png, "GM-D003"),
    "no PNG": (_no_png, "GM-D003"),
    "empty file": (_empty, "GM-D003"),
    "truncated DICOM": (_truncated_dicom, ("GM-D003", "GM-D009")),
    "DICOM cut off in its header": (_beheaded_dicom, ("GM-D003", "GM-D009")),
    "colour PNG": (_colour_png, "GM-D004"),
    "colour DICOM": (_colour_dicom, "GM-D004"),
    "multi-frame DICOM": (_multi_frame, "GM-D005"),
    "NIfTI of two slices": (_volume, "GM-D005"),
    "31 pixels": (_small, "GM-D006"),
    "constant": (_constant, "GM-D007"),
    "NaN": (_nan, "GM-D008"),
}


def test_each_bad_image_is_rejected_with_its_reason_and_the_others_go_on(
    anonymize, folder, pixels, dicom, tmp_path
) -> None:
    for name, (make, _) in BAD.items():
        make(folder / name.replace(" ", "_"), pixels, dicom)
    rows = anonymize(folder, unit_size=4)
    assert len(rows) == 2 + len(BAD)
    by_stem = {name.split(".")[0]: row for name, row in rows.items()}
    for name, (_, codes) in BAD.items():
        row = by_stem[name.replace(" ", "_")]
        assert (row["status"], row["file"], row["cos_after"]) == ("rejected", "", ""), name
        assert row["reason"] in ([codes] if isinstance(codes, str) else codes), (name, row["reason"])
        assert row["release"] == "not released"
    fine = [by_stem["fine_1"], by_stem["fine_2"]]
    assert [row["status"] for row in fine] == ["anonymized"] * 2
    written = sorted(path.name for path in (tmp_path / "out" / "images").iterdir())
    assert written == sorted(Path(row["file"]).name for row in fine)


def test_where_all_are_bad_the_table_says_so(anonymize, tmp_path, pixels, dicom) -> None:
    (tmp_path / "in").mkdir()
    _constant(tmp_path / "in" / "a", pixels, dicom)
    _small(tmp_path / "in" / "b", pixels, dicom)
    rows = anonymize(tmp_path / "in")
    assert {row["reason"] for row in rows.values()} == {"GM-D006", "GM-D007"}
    assert not (tmp_path / "out" / "images").exists()


def test_a_single_bad_image_as_input(anonymize, tmp_path, pixels, dicom) -> None:
    _truncated_png(tmp_path / "a", pixels, dicom)
    assert {row["reason"] for row in anonymize(tmp_path / "a.png").values()} == {"GM-D003"}


# -- manifests ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("text", "code", "told"),
    [
        ("image,patient_id,colour\nfine_1.png,Doe_J,red\n", "GM-M008", "row 1, column 3"),
        ("image\nfine_1.png\n", "GM-M010", "patient_id"),
        ("image,patient_id\nfine_1.png,Doe_J\nfine_1.png,Doe_J\n", "GM-M018", "row 3, column image"),
        ("image,patient_id\nfine_1.png,Doe_J\nDoe_J.png,Doe_J\n", "GM-M013", "row 3, column image"),
        (
            "image,patient_id,split\nfine_1.png,Doe_J,train\nfine_2.png,Doe_J,test\n",
            "GM-M019",
            "row 3, column split",
        ),
        ("image,patient_id\n", "GM-M004", "no rows"),
        ("", "GM-M004", "empty"),
    ],
)
def test_manifests_that_cannot_be_used(anonymize, folder, tmp_path, text, code, told) -> None:
    (folder / "manifest.csv").write_text(text)
    error = refused(anonymize, folder / "manifest.csv", code)
    assert told in str(error)
    assert "Doe" not in str(error) and "fine_1" not in str(error), "no cell's content is told"
    assert not (tmp_path / "out").exists()


def test_a_manifest_that_is_not_there(anonymize, tmp_path) -> None:
    refused(anonymize, tmp_path / "manifest.csv", "GM-U070")


# -- weights -----------------------------------------------------------------------------------------------------------
@pytest.fixture
def own_models(models_dir: Path, tmp_path: Path) -> Path:
    shutil.copytree(models_dir, tmp_path / "models")
    return tmp_path / "models"


def test_no_weights(anonymize, folder, tmp_path) -> None:
    (tmp_path / "models").mkdir()
    error = refused(anonymize, folder, "GM-W001", models_dir=str(tmp_path / "models"))
    assert int(error.exit_code) == 3
    refused(anonymize, folder, "GM-W001", models_dir=str(tmp_path / "not_there"))


@pytest.mark.parametrize("name", ["aegan", "identity", "utility"])
def test_a_file_of_weights_is_missing(anonymize, folder, own_models, name) -> None:
    (own_models / f"{name}.safetensors").unlink()
    assert name in str(refused(anonymize, folder, "GM-W001", models_dir=str(own_models)))


@pytest.mark.parametrize("name", ["aegan", "identity", "utility"])
def test_a_flipped_byte(anonymize, folder, own_models, tmp_path, name) -> None:
    path = own_models / f"{name}.safetensors"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))
    assert name in str(refused(anonymize, folder, "GM-W002", models_dir=str(own_models)))
    assert not (tmp_path / "out" / "images").exists()


def test_a_file_that_is_no_weights(anonymize, folder, own_models) -> None:
    from gmia_monai.weights import sha256_of

    path = own_models / "identity.safetensors"
    path.write_bytes(b"no safetensors")
    index = json.loads((own_models / "index.json").read_text())
    index["identity"]["sha256"] = sha256_of(path)
    (own_models / "index.json").write_text(json.dumps(index))
    refused(anonymize, folder, "GM-W003", models_dir=str(own_models))


@pytest.mark.parametrize(
    "change",
    [{"image_size": 64}, {"network_def#aegan#channel_base": 512}, {"network_def#utility#n_findings": 4}],
    ids=["image_size", "channels", "findings"],
)
def test_weights_of_another_network(anonymize, folder, change) -> None:
    refused(anonymize, folder, "GM-W004", **change)


def test_a_damaged_index(anonymize, folder, own_models) -> None:
    (own_models / "index.json").write_text("{")
    refused(anonymize, folder, "GM-W005", models_dir=str(own_models))


# -- settings ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"optimization#margin_cos": 1.5}, "GM-U050"),
        ({"optimization#stop": "never"}, "GM-U050"),
        ({"optimization#utility_form": "l1"}, "GM-U020"),
        ({"unit_size": 0}, "GM-U072"),
        ({"image_size": 48}, "GM-U010"),
    ],
)
def test_settings_that_cannot_be_used(anonymize, folder, change, code) -> None:
    refused(anonymize, folder, code, **change)


def test_nothing_fits_into_memory(anonymize, folder, monkeypatch) -> None:
    from gmia_monai.inferers import latent_inferer

    def exhausted(*args: Any, **kwargs: Any) -> None:
        raise MemoryError

    monkeypatch.setattr(latent_inferer, "optimize_latents", exhausted)
    assert int(refused(anonymize, folder, "GM-R050").exit_code) == 4
