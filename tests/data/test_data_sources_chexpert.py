from __future__ import annotations

import math

import pytest

from gmia_monai.data import load_cohort
from gmia_monai.data.sources import chexpert
from gmia_monai.errors import ManifestError

_HEADER = (
    "Path,Sex,Age,Frontal/Lateral,AP/PA,No Finding,Enlarged Cardiomediastinum,Cardiomegaly,Lung Opacity,Lung Lesion,"
    "Edema,Consolidation,Pneumonia,Atelectasis,Pneumothorax,Pleural Effusion,Pleural Other,Fracture,Support Devices\n"
)
_SMALL = "CheXpert-v1.0-small"
_TRAIN = (
    f"{_SMALL}/train/patient00001/study1/view1_frontal.jpg,Female,68,Frontal,AP,1.0,,,,,,,,,0.0,,,,1.0\n"
    f"{_SMALL}/train/patient00002/study2/view1_frontal.jpg,Male,87,Frontal,PA,,,-1.0,1.0,,-1.0,-1.0,,-1.0,,,,1.0,\n"
    f"{_SMALL}/train/patient00002/study2/view2_lateral.jpg,Male,87,Lateral,,,,-1.0,1.0,,-1.0,-1.0,,,,-1.0,,1.0,\n"
    f"{_SMALL}/train/patient00003/study1/view1_frontal.jpg,Unknown,0,Frontal,AP,,,,,,1.0,,,,,,,,\n"
    f"{_SMALL}/train/patient00004/study1/view1_frontal.jpg,Male,20,Frontal,LL,,,,,,1.0,,,,,,,,\n"
)
_VALID = (
    f"{_SMALL}/valid/patient64541/study1/view1_frontal.jpg,Male,73,Frontal,AP,"
    "0.0,1.0,1.0,1.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0\n"
)


@pytest.fixture
def tree(tmp_path, make_image):
    root = tmp_path / _SMALL
    for line in (_TRAIN + _VALID).splitlines():
        make_image(tmp_path / line.split(",")[0])
    (root / "train.csv").write_text(_HEADER + _TRAIN)
    (root / "valid.csv").write_text(_HEADER + _VALID)
    return root


def test_frontal_images(tree):
    cohort = load_cohort(dataset_dir=tree)
    assert cohort.source == "chexpert"
    assert cohort.patients == ("patient00001", "patient00002", "patient00003", "patient64541")
    assert [(r.view, r.sex) for r in cohort] == [("AP", "F"), ("PA", "M"), ("AP", ""), ("AP", "M")]
    assert cohort[1].age == 87.0 and math.isnan(cohort[2].age)
    assert cohort[0].key == "train/patient00001/study1/view1_frontal.jpg" and cohort[0].image.is_file()
    assert cohort[0].study_id == "patient00001_study1"
    assert cohort.notes == ("2 skipped: not a frontal AP or PA view",)


def test_labels(tree):
    cohort = chexpert.read(tree)
    names = ("Cardiomegaly", "Lung Opacity", "Edema", "Pneumothorax", "Support Devices")
    assert cohort.label_matrix(names, "zeros")[:2].tolist() == [[0, 0, 0, 0, 1], [0, 1, 0, 0, 0]]
    assert cohort.label_matrix(names, "ones")[1].tolist() == [1, 1, 1, 0, 0]
    soft = cohort.label_matrix(names, "soft")[1]
    assert 0 <= soft[0] <= 0.3 and 0.55 <= soft[2] <= 0.85


def test_tables_beside_the_folder_of_the_data_set(tree, tmp_path):
    for name in ("train.csv", "valid.csv"):
        (tree / name).rename(tmp_path / name)
    assert len(load_cohort(dataset_dir=tmp_path)) == 4


def test_roles(tree):
    assert chexpert.read(tree).role_scheme == "hash"
    assert chexpert.read(tree, roles="split").roles == ("S", "S", "S", "V1")


def test_bad_tables(tree):
    (tree / "valid.csv").write_text(_HEADER + _VALID.replace(",1.0,1.0", ",yes,1.0", 1))
    with pytest.raises(ManifestError, match="GM-M023 row 2, column Enlarged Cardiomediastinum") as error:
        chexpert.read(tree)
    assert "yes" not in str(error.value)
    (tree / "valid.csv").unlink()
    (tree / "train.csv").write_text(_HEADER + _TRAIN.replace("patient0", "p"))
    with pytest.raises(ManifestError, match="GM-M002"):
        chexpert.read(tree)
