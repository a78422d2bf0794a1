from __future__ import annotations

import pytest

from gmia_monai.data import load_cohort
from gmia_monai.data.sources import folder
from gmia_monai.errors import ManifestError


def test_a_csv_inside_is_the_manifest(tmp_path, make_image):
    make_image(tmp_path / "a.png")
    make_image(tmp_path / "not listed.png")
    (tmp_path / "my list.csv").write_text("image,patient_id\na.png,ann\n")
    cohort = load_cohort(dataset_dir=tmp_path)
    assert cohort.patients == ("ann",) and cohort.source == "folder" and cohort.notes == ()
    (tmp_path / "manifest.csv").write_text("image,patient_id\na.png,bob\n")
    assert load_cohort(dataset_dir=tmp_path).patients == ("bob",), "the name manifest.csv goes first"
    (tmp_path / "manifest.csv").write_text("image,patient\na.png,bob\n")
    with pytest.raises(ManifestError, match="did you mean patient_id"):
        load_cohort(dataset_dir=tmp_path)


def test_a_table_of_something_else_is_no_manifest(tmp_path, make_image):
    make_image(tmp_path / "a.png")
    (tmp_path / "weather.csv").write_text("day,rain\n1,2\n")
    assert len(load_cohort(dataset_dir=tmp_path)) == 1


def test_bare_images_are_each_a_patient_and_that_is_said(tmp_path, make_image, caplog):
    for name in ("b.jpeg", "a.png", "C.JPG"):
        make_image(tmp_path / name)
    (tmp_path / "scan.nii.gz").touch()
    (tmp_path / ".hidden.png").touch()
    (tmp_path / "notes.txt").touch()
    cohort = load_cohort(dataset_dir=tmp_path)
    assert [r.key for r in cohort] == ["C.JPG", "a.png", "b.jpeg", "scan.nii.gz"]
    assert len(cohort.patients) == 4 and cohort.folders == ("",)
    assert cohort.notes == ("4 images lie in no patient's folder: each is taken as a patient of its own",)
    assert "patient of its own" in caplog.text
    assert cohort[0].labels is None and cohort.findings == ()


def test_folders_name_patients(tmp_path, make_image):
    for name in ("images/p1/s1/a.png", "images/p1/s2/b.png", "images/p2/a.png"):
        make_image(tmp_path / name)
    cohort = load_cohort(dataset_dir=tmp_path)
    assert [r.patient_id for r in cohort] == ["p1", "p1", "p2"], "the lone images/ is not a patient"
    assert len(cohort.folders) == 1, "folders of patients are no collections: negatives are found across them"
    assert "first folder" in cohort.notes[0]


def test_one_patient_alone_is_not_split_by_studies_unless_it_is_all_there_is(tmp_path, make_image):
    make_image(tmp_path / "p1/a.png")
    make_image(tmp_path / "loose.png")
    assert [r.patient_id for r in folder.read(tmp_path)] == ["loose.png", "p1"]


def test_nothing_inside(tmp_path):
    assert not folder.matches(tmp_path)
    with pytest.raises(ManifestError, match="GM-M002 no images found"):
        folder.read(tmp_path)
