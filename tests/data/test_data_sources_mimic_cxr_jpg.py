from __future__ import annotations

import gzip
import math

import pytest

from gmia_monai.data import load_cohort
from gmia_monai.data.sources import mimic_cxr_jpg
from gmia_monai.errors import ManifestError, UsageError

_METADATA = (
    "dicom_id,subject_id,study_id,PerformedProcedureStepDescription,ViewPosition,Rows,Columns,StudyDate,StudyTime,"
    "ProcedureCodeSequence_CodeMeaning,ViewCodeSequence_CodeMeaning,PatientOrientationCodeSequence_CodeMeaning\n"
    '02aa-1,10000032,50414267,"CHEST (PA AND LAT)",PA,3056,2544,21800506,213014.531,x,postero-anterior,Erect\n'
    "02aa-2,10000032,50414267,CHEST (PA AND LAT),LATERAL,3056,2544,21800506,213014.531,x,lateral,Erect\n"
    "02aa-3,10000032,53189527,CHEST (PORTABLE AP),AP,3056,2544,21800626,165500.312,x,antero-posterior,\n"
    "02aa-4,11000764,57375967,CHEST (PORTABLE AP),AP,3056,2544,21800626,165500.312,x,antero-posterior,\n"
    "02aa-5,12000764,57375968,,,3056,2544,21800626,165500.312,x,,\n"
)
_SPLIT = (
    "dicom_id,study_id,subject_id,split\n"
    "02aa-1,50414267,10000032,train\n02aa-2,50414267,10000032,train\n02aa-3,53189527,10000032,train\n"
    "02aa-4,57375967,11000764,validate\n02aa-5,57375968,12000764,test\n"
)
_CHEXPERT = (
    "subject_id,study_id,Atelectasis,Cardiomegaly,Consolidation,Edema,Enlarged Cardiomediastinum,Fracture,Lung Lesion,"
    "Lung Opacity,No Finding,Pleural Effusion,Pleural Other,Pneumonia,Pneumothorax,Support Devices\n"
    "10000032,50414267,,,,,,,,,1.0,,,,,\n"
    "10000032,53189527,-1.0,,,,,,,1.0,,0.0,,,,1.0\n"
)


@pytest.fixture
def tree(tmp_path, make_image):
    for name, text in (("metadata", _METADATA), ("split", _SPLIT), ("chexpert", _CHEXPERT)):
        with gzip.open(tmp_path / f"mimic-cxr-2.0.0-{name}.csv.gz", "wt") as file:
            file.write(text)
    make_image(tmp_path / "files/p10/p10000032/s50414267/02aa-1.jpg")
    make_image(tmp_path / "files/p10/p10000032/s50414267/02aa-2.jpg")
    make_image(tmp_path / "files/p10/p10000032/s53189527/02aa-3.jpg")
    make_image(tmp_path / "files/p11/p11000764/s57375967/02aa-4.jpg")
    make_image(tmp_path / "files/p12/p12000764/s57375968/02aa-5.jpg")
    return tmp_path


def test_frontal_images_with_labels(tree):
    cohort = load_cohort(dataset_dir=tree)
    assert cohort.source == "mimic_cxr_jpg"
    assert [(r.patient_id, r.study_id, r.view) for r in cohort] == [
        ("10000032", "50414267", "PA"),
        ("10000032", "53189527", "AP"),
        ("11000764", "57375967", "AP"),
    ]
    assert cohort[0].key == "files/p10/p10000032/s50414267/02aa-1.jpg" and cohort[0].image.is_file()
    assert all(r.sex == "" and math.isnan(r.age) for r in cohort)
    assert cohort.notes == ("2 skipped: not a frontal view",)
    assert cohort[0].labels == () and cohort[2].labels is None
    label = dict(zip(cohort.findings, cohort.label_matrix(uncertain="ones")[1], strict=True))
    assert {name for name, value in label.items() if value} == {"Atelectasis", "Lung Opacity", "Support Devices"}
    assert "No Finding" not in cohort.findings and len(cohort.findings) == 13


def test_minimum_of_images_a_patient(tree):
    cohort = mimic_cxr_jpg.read(tree, min_images_per_patient=2)
    assert cohort.patients == ("10000032",)
    assert "1 skipped: patient has fewer than 2 images" in cohort.notes
    with pytest.raises(ManifestError, match="GM-M002.*3 frontal images before the filter of 20"):
        load_cohort(dataset_dir=tree, min_images_per_patient=20)
    with pytest.raises(UsageError, match="GM-U034"):
        mimic_cxr_jpg.read(tree, min_images_per_patient=0)


def test_roles(tree):
    assert mimic_cxr_jpg.read(tree).role_scheme == "hash"
    assert mimic_cxr_jpg.read(tree, roles="split").roles == ("S", "S", "V1")
    assert [r.split for r in mimic_cxr_jpg.read(tree)] == ["train", "train", "validate"]


def test_absent_images_and_tables(tree):
    (tree / "files/p11/p11000764/s57375967/02aa-4.jpg").unlink()
    assert "1 skipped: image file is absent" in mimic_cxr_jpg.read(tree).notes
    (tree / "mimic-cxr-2.0.0-split.csv.gz").unlink()
    with pytest.raises(ManifestError, match="GM-M003 mimic-cxr-2.0.0-split.csv.gz is absent"):
        mimic_cxr_jpg.read(tree)


def test_broken_tables(tree):
    table = tree / "mimic-cxr-2.0.0-chexpert.csv.gz"
    table.write_bytes(gzip.compress(_CHEXPERT.replace("-1.0", "maybe").encode()))
    with pytest.raises(ManifestError, match="GM-M023 row 3, column Atelectasis"):
        mimic_cxr_jpg.read(tree)
    table.write_bytes(gzip.compress(_CHEXPERT.encode())[:-20])
    with pytest.raises(ManifestError, match="GM-M006"):
        mimic_cxr_jpg.read(tree)
    table.write_text(_CHEXPERT)
    with pytest.raises(ManifestError, match="GM-M006.*BadGzipFile"):
        mimic_cxr_jpg.read(tree)
