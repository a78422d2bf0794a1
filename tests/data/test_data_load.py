from __future__ import annotations

import subprocess
import sys

import pytest

from gmia_monai.data import load_cohort
from gmia_monai.data.roles import role_of_patient
from gmia_monai.errors import ManifestError, UsageError


@pytest.mark.parametrize("nothing", [None, ""])
def test_nothing_given(nothing):
    with pytest.raises(ManifestError, match="GM-M001.*the manifest .* or the folder") as caught:
        load_cohort(manifest=nothing, dataset_dir=nothing)
    assert "--" not in str(caught.value), "commands and configs name the two in their own ways"


def test_absent_folder_and_file_for_folder(tmp_path, make_image):
    with pytest.raises(ManifestError, match="GM-M003 dataset_dir is not a folder"):
        load_cohort(dataset_dir=tmp_path / "none")
    with pytest.raises(ManifestError, match="GM-M003"):
        load_cohort(dataset_dir=make_image(tmp_path / "a.png"))
    with pytest.raises(ManifestError, match="GM-M003 none.csv is not a file"):
        load_cohort(manifest=tmp_path / "none.csv")


def test_empty_folder_says_what_was_tried(tmp_path):
    with pytest.raises(ManifestError, match="GM-M002 no images found in .*chestxray14.*mimic_cxr_jpg.*dicom"):
        load_cohort(dataset_dir=tmp_path)


def test_manifest_wins_and_finds_images_in_the_data_set(tmp_path, make_image):
    make_image(tmp_path / "data/a.png")
    make_image(tmp_path / "data/b.png")
    (tmp_path / "list.csv").write_text("image,patient_id\na.png,ann\n")
    cohort = load_cohort(str(tmp_path / "list.csv"), str(tmp_path / "data"))
    assert cohort.patients == ("ann",) and cohort[0].image == tmp_path / "data/a.png"
    assert len(load_cohort("", tmp_path / "data")) == 2


def test_options(tmp_path, make_image):
    make_image(tmp_path / "a.png")
    with pytest.raises(UsageError, match="GM-U036 the source folder has no option min_images"):
        load_cohort(dataset_dir=tmp_path, min_images=20)
    (tmp_path / "a.dcm").touch()
    with pytest.raises(UsageError, match="did you mean missing_patient"):
        load_cohort(dataset_dir=tmp_path, missing_patients="own")
    with pytest.raises(UsageError, match="GM-U037"):
        load_cohort(dataset_dir=tmp_path, source="nih")
    assert load_cohort(dataset_dir=tmp_path, source="folder").source == "folder"


def test_role_key(tmp_path, make_image):
    for i in range(40):
        make_image(tmp_path / f"{i}.png")
    keyed = load_cohort(dataset_dir=tmp_path, role_key="secret")
    assert keyed.roles == tuple(role_of_patient(r.patient_id, "hash", key=b"secret") for r in keyed)
    assert keyed.roles != load_cohort(dataset_dir=tmp_path).roles


def test_a_role_key_that_is_not_used_is_said(tmp_path, make_image, caplog):
    make_image(tmp_path / "a.png")
    (tmp_path / "list.csv").write_text("image,patient_id,split\na.png,ann,T\n")
    assert load_cohort(tmp_path / "list.csv", role_key="secret").roles == ("T",)
    assert "the role key is not used" in caplog.text and "secret" not in caplog.text


def test_the_real_folder_is_recognised(cxr_dir):
    assert load_cohort(dataset_dir=cxr_dir, image_size=256).source == "cxr"


def test_the_room_loads_neither_torch_nor_monai():
    code = "import sys, gmia_monai.data; print({'torch', 'monai', 'mlflow', 'matplotlib'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
