from __future__ import annotations

import math

import pytest

from gmia_monai.data import load_cohort
from gmia_monai.data.sources import chestxray14
from gmia_monai.errors import ManifestError

# as published: two headings with a comma of their own, and one at the end of every line
_HEADER = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
    "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y],\n"
)
_ROWS = (
    "00000001_000.png,Cardiomegaly,0,1,058Y,M,PA,2682,2749,0.143,0.143,\n"
    "00000001_001.png,Cardiomegaly|Emphysema,1,1,58,M,PA,2894,2729,0.143,0.143,\n"
    "00000002_000.png,No Finding,0,2,411,F,AP,2500,2048,0.168,0.168,\n"
    "00000005_000.png,Hernia,0,5,006M,F,AP,2500,2048,0.168,0.168,\n"
)
_PLACES = ("images_001/images", "images_001/images", "images_002/images", "images")


@pytest.fixture
def tree(tmp_path, make_image):
    (tmp_path / "Data_Entry_2017.csv").write_text(_HEADER + _ROWS)
    (tmp_path / "BBox_List_2017.csv").write_text("Image Index,Finding Label,Bbox [x,y,w,h],,,\n")
    for folder, line in zip(_PLACES, _ROWS.splitlines(), strict=True):
        make_image(tmp_path / folder / line.split(",")[0])
    (tmp_path / "train_val_list.txt").write_text("00000001_000.png\n00000001_001.png\n00000002_000.png")
    (tmp_path / "test_list.txt").write_text("00000005_000.png\n")
    return tmp_path


def test_reads_the_published_layout(tree):
    cohort = load_cohort(dataset_dir=tree)
    assert cohort.source == "chestxray14" and len(cohort) == 4
    assert cohort.patients == ("NIH00001", "NIH00002", "NIH00005")
    assert [r.key for r in cohort][:2] == ["images_001/images/00000001_000.png", "images_001/images/00000001_001.png"]
    assert [r.sex for r in cohort] == ["M", "M", "F", "F"] and [r.view for r in cohort] == ["PA", "PA", "AP", "AP"]
    assert [r.age for r in cohort][:2] == [58.0, 58.0] and cohort[3].age == 0.5
    assert math.isnan(cohort[2].age), "nobody is 411 years old"
    assert cohort[1].labels == (("Cardiomegaly", 1.0), ("Emphysema", 1.0)) and cohort[2].labels == ()
    assert cohort.folders == ("chestxray14",)


def test_roles_by_number_or_by_the_official_lists(tree):
    cohort = chestxray14.read(tree)
    assert cohort.roles == ("S", "S", "A", "T")
    assert [r.split for r in cohort] == ["train_val"] * 3 + ["test"]
    assert chestxray14.read(tree, roles="split").roles == ("S", "S", "S", "T")


def test_the_table_of_2020(tree):
    text = (tree / "Data_Entry_2017.csv").read_text().replace("Gender", "Sex").replace(",\n", "\n")
    (tree / "Data_Entry_2017.csv").unlink()
    (tree / "Data_Entry_2017_v2020.csv").write_text(text)
    assert [r.sex for r in chestxray14.read(tree)] == ["M", "M", "F", "F"]


def test_archives_not_fetched(tree):
    (tree / "images_002/images/00000002_000.png").unlink()
    assert chestxray14.read(tree).notes == ("1 skipped: image file is absent",)
    for path in tree.rglob("*.png"):
        path.unlink()
    with pytest.raises(ManifestError, match="GM-M002"):
        chestxray14.read(tree)


def test_missing_column(tree):
    (tree / "Data_Entry_2017.csv").write_text(_HEADER.replace("Patient ID", "PID") + _ROWS)
    with pytest.raises(ManifestError, match="GM-M010.*no Patient ID"):
        chestxray14.read(tree)
