from __future__ import annotations

import math
import re
from pathlib import Path

import pytest

from gmia_monai.data import Cohort, ImageRecord, load_cohort, read_manifest, write_manifest
from gmia_monai.data.manifest import COLUMNS, common_folders
from gmia_monai.errors import ExitCode, ManifestError

_HEADER = ",".join(COLUMNS)


@pytest.fixture
def manifest(tmp_path, make_image):
    """Writes a manifest beside four images ``img/0.png`` … ``img/3.png``."""
    for i in range(4):
        make_image(tmp_path / f"img/{i}.png")

    def write(text: str | bytes) -> Path:
        path = tmp_path / "list.csv"
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return path

    return write


def test_reads_all_columns(manifest, tmp_path):
    cohort = read_manifest(
        manifest(
            f"{_HEADER}\n"
            "img/0.png,Ann,s1,pa,f,61.5,Mass|?Edema,train\n"
            "\n"
            '"img/1.png","Bob, Jr",s2,AP,M,,No Finding,val\n'
            "img/2.png,Cy,,,U,0,,TEST\n"
        )
    )
    ann, bob, cy = cohort
    assert ann.image == tmp_path / "img/0.png" and ann.image.is_absolute() and ann.key == "img/0.png"
    assert (ann.patient_id, ann.study_id, ann.view, ann.sex, ann.age) == ("Ann", "s1", "PA", "F", 61.5)
    assert ann.labels == (("Mass", 1.0), ("Edema", -1.0))
    assert (bob.patient_id, bob.labels) == ("Bob, Jr", ()) and math.isnan(bob.age)
    assert (cy.labels, cy.sex, cy.age) == (None, "", 0.0)
    assert cohort.roles == ("S", "V1", "T") and cohort.role_scheme == "split"
    assert cohort.findings == ("Edema", "Mass")


def test_two_columns_are_enough(manifest):
    cohort = read_manifest(manifest(b"\xef\xbb\xbfimage,patient_id\r\nimg/0.png,a\r\nimg/1.png,b\r\n"))
    assert len(cohort) == 2 and cohort.role_scheme == "hash" and cohort[0].labels is None
    assert read_manifest(manifest("patient_id,image\nNIH00005,img/0.png\n")).roles == ("T",)


def test_roots(manifest, tmp_path):
    path = manifest("image,patient_id\n0.png,a\n")
    assert read_manifest(path, tmp_path / "img")[0].key == "0.png"
    assert read_manifest(path, fallback_root=tmp_path / "img")[0].image == tmp_path / "img/0.png"
    with pytest.raises(ManifestError, match="GM-M013"):
        read_manifest(path)
    absolute = read_manifest(manifest(f"image,patient_id\n{tmp_path}/img/1.png,a\n"))
    assert absolute[0].key == "img/1.png"


# what is wrong -> text of the file, code, place that must be named
_WRONG = {
    "unknown column": (
        "image,patient_id,sexx\nimg/0.png,a,M\n",
        "GM-M008",
        "row 1, column 3: is not known; did you mean sex?",
    ),
    "near miss": (
        "image,Patient ID\nimg/0.png,a\n",
        "GM-M008",
        "row 1, column 2: is not known; did you mean patient_id?",
    ),
    "missing column": ("image,view\nimg/0.png,PA\n", "GM-M010", "row 1, column patient_id: is missing"),
    "column twice": (
        "image,patient_id,view,view\nimg/0.png,a,PA,PA\n",
        "GM-M009",
        "row 1, column view: is given twice",
    ),
    "no header": ("img/0.png,Jane Doe\n", "GM-M008", "the header may be missing"),
    "semicolons": ("image;patient_id\nimg/0.png;a\n", "GM-M008", "cells are divided by ;"),
    "empty image": ("image,patient_id\n,Jane Doe\n", "GM-M011", "row 2, column image: is empty"),
    "empty patient": ("image,patient_id\nimg/0.png, \n", "GM-M012", "row 2, column patient_id: is empty"),
    "absent file": ("image,patient_id\nimg/0.png,a\nJane.png,a\n", "GM-M013", "row 3, column image: names a file"),
    "age in words": ("image,patient_id,age\nimg/0.png,a,Jane\n", "GM-M014", "row 2, column age: is not a number"),
    "age 121": ("image,patient_id,age\n\nimg/0.png,a,121\n", "GM-M015", "row 3, column age: is outside 0 to 120"),
    "age negative": ("image,patient_id,age\nimg/0.png,a,-1\n", "GM-M015", "row 2, column age"),
    "age nan": ("image,patient_id,age\nimg/0.png,a,nan\n", "GM-M015", "row 2, column age"),
    "view": ("image,patient_id,view\nimg/0.png,a,Jane\n", "GM-M016", "row 2, column view: is none of PA, AP"),
    "sex": ("image,patient_id,sex\nimg/0.png,a,Jane\n", "GM-M017", "row 2, column sex: is none of M, F"),
    "image twice": (
        "image,patient_id\nimg/0.png,a\nimg/../img/0.png,b\n",
        "GM-M018",
        "row 3, column image: names the same file as row 2",
    ),
    "two splits": (
        "image,patient_id,split\nimg/0.png,a,train\nimg/1.png,a,test\n",
        "GM-M019",
        "row 3, column split: puts the patient of row 2",
    ),
    "labels": (
        "image,patient_id,labels\nimg/0.png,a,No Finding|Mass\n",
        "GM-M020",
        "row 2, column labels: names No Finding beside",
    ),
    "label twice": (
        "image,patient_id,labels\nimg/0.png,a,?Mass|Mass\n",
        "GM-M020",
        "row 2, column labels: names a finding twice",
    ),
    "empty label": (
        "image,patient_id,labels\nimg/0.png,a,Mass|?\n",
        "GM-M020",
        "row 2, column labels: has an empty name",
    ),
    "split": ("image,patient_id,split\nimg/0.png,a,Jane\n", "GM-M021", "row 2, column split: is none of train"),
    "split partly": (
        "image,patient_id,split\nimg/0.png,a,train\nimg/1.png,b,\n",
        "GM-M022",
        "row 3, column split: is empty",
    ),
    "short row": ("image,patient_id,age\nimg/0.png,Jane\n", "GM-M007", "row 2: has 2 cells where the header has 3"),
    "line breaks in a cell": ('image,patient_id\n"img/0.png","a\nb"\n,Jane\n', "GM-M011", "row 4, column image"),
    "empty file": ("", "GM-M004", "list.csv is empty"),
    "blank file": ("\n \n", "GM-M004", "list.csv is empty"),
    "header alone": ("image,patient_id\n", "GM-M004", "no rows"),
    "encoding": (b"image,patient_id\nimg/0.png,Ren\xe9\n", "GM-M005", "UTF-8"),
    "an image": (b"\x89PNG\r\n\x1a\n\x00\x00", "GM-M005", "list.csv"),
    "not CSV": ('image,patient_id\n"img/0.png"x,Jane\n', "GM-M006", "list.csv"),
}


@pytest.mark.parametrize("name", _WRONG)
def test_errors_name_the_place_and_no_content(manifest, name):
    text, code, place = _WRONG[name]
    with pytest.raises(ManifestError, match=re.escape(place)) as error:
        read_manifest(manifest(text))
    assert error.value.code == code
    assert "list.csv" in str(error.value)
    assert "Jane" not in str(error.value)
    assert error.value.exit_code is ExitCode.USAGE


def test_absent_manifest(tmp_path):
    with pytest.raises(ManifestError, match="GM-M003"):
        read_manifest(tmp_path / "none.csv")


def test_all_problems_at_once_but_not_more_than_twenty(manifest):
    rows = "".join(f"gone{i}.png,a,x\n" for i in range(15))
    with pytest.raises(ManifestError) as error:
        read_manifest(manifest("image,patient_id,age\n" + rows))
    text = str(error.value)
    assert "30 problems in list.csv" in text and "and 10 more" in text
    assert text.count("list.csv: row") == 20
    assert "GM-M013" in text and "GM-M014" in text


def test_round_trip(tmp_path, make_image):
    records = [
        ImageRecord(
            make_image(tmp_path / "in/x/0.png"), "Ann", "s", "PA", "F", 1 / 3, (("Mass", 1.0), ("Edema", -1.0))
        ),
        ImageRecord(make_image(tmp_path / "in/y/1.png"), "Bob", labels=()),
        ImageRecord(make_image(tmp_path / "out/2.png"), 'Cy, "D"', labels=None, age=7.0),
    ]
    cohort = Cohort(tuple(records))
    path = tmp_path / "in/list.csv"
    path.write_text("old")
    assert write_manifest(cohort, path) == path
    assert [p.name for p in path.parent.iterdir() if p.is_file()] == ["list.csv"], "no temporary file is left"
    text = path.read_text()
    assert "x/0.png" in text and f"{tmp_path}/out/2.png" in text
    back = read_manifest(path)
    assert back.roles == cohort.roles
    for one, other in zip(back, cohort, strict=True):
        assert (one.image, one.patient_id, one.study_id, one.view, one.sex, one.labels) == (
            other.image, other.patient_id, other.study_id, other.view, other.sex, other.labels,
        )  # fmt: skip
        assert one.age == pytest.approx(other.age, nan_ok=True)


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "list.csv"
    path.write_text("old")

    def full(*_):
        raise OSError("disk full")

    monkeypatch.setattr("gmia_monai.data.manifest._cells", full)
    with pytest.raises(OSError, match="disk full"):
        write_manifest(Cohort((ImageRecord(tmp_path / "a.png", "a"),)), path)
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_common_folders():
    assert common_folders(["a/1", "a/2", "b/3", "b/4"], ["p", "q", "p", "r"]) == ["a", "a", "b", "b"]
    assert common_folders(["p/1", "p/2", "q/3"], ["p", "p", "q"]) == ["", "", ""], "folders of patients"
    assert common_folders(["1", "2"], ["p", "q"]) == ["", ""]


def test_real_cohort_survives_the_round_trip(cxr_dir, tmp_path):
    cohort = load_cohort(dataset_dir=cxr_dir)[::7]
    back = read_manifest(write_manifest(cohort, tmp_path / "list.csv", cxr_dir), cxr_dir)
    assert back.roles == cohort.roles
    assert [(r.key, r.folder, r.age, r.sex, r.view, r.labels) for r in back] == [
        (r.key, r.folder, r.age, r.sex, r.view, r.labels) for r in cohort
    ]
