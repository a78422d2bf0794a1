from __future__ import annotations

from collections import Counter

import pytest

from gmia_monai.data.sources import cxr
from gmia_monai.errors import ManifestError, UsageError

_TABLE = """image,patient_id,study_or_followup,view,age,sex,labels,nih_split,native_res,sha256
nih256/00000001_000.jpg,NIH00001,0,PA,57,M,Cardiomegaly,train_val,1024,b57f
nih128/00000001_000.jpg,NIH00001,0,PA,57,M,Cardiomegaly,train_val,1024,b57f
nih128/00000005_002.jpg,NIH00005,2,AP,9,F,No Finding,test,128,b57f
nih64/00000005_003.jpg,NIH00005,3,AP,9,F,Mass|Edema,test,64,b57f
originals/00000001_000.png,NIH00001,0,PA,57,M,Cardiomegaly,train_val,1024,b57f
"""


@pytest.fixture
def tree(tmp_path, make_image):
    (tmp_path / "metadata.csv").write_text(_TABLE)
    for line in _TABLE.splitlines()[1:]:
        make_image(tmp_path / line.split(",")[0])
    return tmp_path


@pytest.mark.parametrize(
    ("size", "folders"),
    [
        (32, {"nih128": 2, "nih64": 1}),
        (64, {"nih128": 2, "nih64": 1}),
        (65, {"nih128": 2}),
        (128, {"nih128": 2}),
        (256, {"nih256": 1}),
        (512, {"nih256": 1}),
    ],
)
def test_folders_follow_the_image_size(tree, size, folders):
    cohort = cxr.read(tree, size)
    assert Counter(r.folder for r in cohort) == folders
    assert all(r.image.is_file() and r.image.is_absolute() for r in cohort)


def test_values(tree):
    assert cxr.matches(tree)
    cohort = cxr.read(tree)
    last = cohort[2]
    assert (last.patient_id, last.study_id, last.view, last.sex, last.age) == ("NIH00005", "NIH00005_3", "AP", "F", 9.0)
    assert (last.labels, last.split, last.key) == ((("Mass", 1.0), ("Edema", 1.0)), "test", "nih64/00000005_003.jpg")
    assert cohort[1].labels == ()
    assert len(cohort.findings) == 14 and cohort.roles == ("S", "T", "T")


def test_absent_images_are_counted_and_absent_folders_refused(tree, caplog):
    (tree / "nih128/00000005_002.jpg").unlink()
    assert cxr.read(tree, 128).notes == ("1 skipped: image file is absent",)
    assert "1 skipped" in caplog.text and "00005" not in caplog.text
    (tree / "nih256/00000001_000.jpg").unlink()
    with pytest.raises(ManifestError, match="GM-M002 no images found for 256 px.*nih256"):
        cxr.read(tree, 256)
    with pytest.raises(UsageError, match="GM-U033"):
        cxr.read(tree, 0)


def test_a_table_without_a_column_is_refused(tree):
    (tree / "metadata.csv").write_text(_TABLE.replace("patient_id", "pid", 1))
    with pytest.raises(ManifestError, match="GM-M010 metadata.csv lacks columns; got: no patient_id"):
        cxr.read(tree)


@pytest.mark.parametrize(("size", "images", "patients"), [(64, 13694, 4034), (128, 9537, 3017), (256, 1483, 1161)])
def test_the_real_folder_as_it_stands(cxr_dir, size, images, patients):
    cohort = cxr.read(cxr_dir, size)
    assert (len(cohort), len(cohort.patients), cohort.notes) == (images, patients, ())
