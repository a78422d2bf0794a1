from __future__ import annotations

import math

import pydicom
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from gmia_monai.data import load_cohort
from gmia_monai.data.sources import dicom
from gmia_monai.errors import ManifestError, UsageError

_UID = "1.2.826.0.1.3680043.8.498.1"


def _write(path, **tags):
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID = "1.2.840.10008.5.1.4.1.1.1.1"
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID = generate_uid()
    for name, value in tags.items():
        setattr(data, name, value)
    path.parent.mkdir(parents=True, exist_ok=True)
    pydicom.dcmwrite(path, data, enforce_file_format=True)


@pytest.fixture
def tree(tmp_path):
    image = {"Rows": 4, "Columns": 4, "StudyInstanceUID": _UID}
    _write(tmp_path / "a/1.dcm", PatientID="ann", ViewPosition="PA", PatientSex="F", PatientAge="061Y", **image)
    _write(tmp_path / "a/IM0002", PatientID="ann", ViewPosition="OBLIQUE", PatientSex="O", PatientAge="018M", **image)
    _write(tmp_path / "b/3.dcm", PatientID="bob", **image)
    _write(tmp_path / "b/report.dcm", PatientID="bob")
    _write(tmp_path / "b/nobody.dcm", PatientID="", **image)
    (tmp_path / "readme.txt").write_text("not DICOM")
    (tmp_path / "broken.dcm").write_bytes((tmp_path / "a/1.dcm").read_bytes()[:100])
    return tmp_path


def test_headers(tree):
    cohort = load_cohort(dataset_dir=tree)
    assert cohort.source == "dicom" and cohort.role_scheme == "hash"
    assert [r.key for r in cohort] == ["a/1.dcm", "a/IM0002", "b/3.dcm"]
    ann, second, bob = cohort
    assert (ann.patient_id, ann.study_id, ann.view, ann.sex, ann.age) == ("ann", _UID, "PA", "F", 61.0)
    assert (second.view, second.sex, second.age) == ("", "", 1.5)
    assert bob.patient_id == "bob" and math.isnan(bob.age) and bob.labels is None


def test_what_was_left_out_is_counted(tree, caplog):
    notes = dicom.read(tree).notes
    assert notes == (
        "1 skipped: DICOM without PatientID",
        "1 skipped: DICOM without an image",
        "2 skipped: not a readable DICOM file",
    )
    assert "ann" not in caplog.text and "bob" not in caplog.text


def test_no_value_of_a_header_gets_into_a_log_or_a_warning(tmp_path, caplog, recwarn):
    with pydicom.config.disable_value_validation():
        _write(
            tmp_path / "1.dcm",
            PatientID="SECRET" * 20,
            StudyInstanceUID="SECRET",
            PatientSex="secret",
            Rows=1,
            Columns=1,
        )
    assert len(dicom.read(tmp_path)) == 1
    assert "SECRET" not in caplog.text.upper() and not [w for w in recwarn if "SECRET" in str(w.message).upper()]


def test_images_without_a_patient_as_their_own(tree):
    cohort = load_cohort(dataset_dir=tree, missing_patient="own")
    assert len(cohort) == 4 and len(cohort.patients) == 3
    with pytest.raises(UsageError, match="GM-U035"):
        dicom.read(tree, missing_patient="guess")


def test_files_without_a_suffix_are_found(tmp_path):
    _write(tmp_path / "IM0001", PatientID="ann", Rows=4, Columns=4)
    assert dicom.matches(tmp_path)


def test_no_image_at_all(tmp_path):
    (tmp_path / "x.dcm").write_text("nothing")
    with pytest.raises(ManifestError, match="GM-M002.*1 skipped: not a readable DICOM file"):
        load_cohort(dataset_dir=tmp_path)


def test_corner_cases_never_raise(cxr_dir):
    cohort = dicom.read(cxr_dir / "dicom", missing_patient="own")
    assert len(cohort) > 60
    assert sum(int(note.split()[0]) for note in cohort.notes) + len(cohort) == sum(
        path.is_file() for path in (cxr_dir / "dicom").rglob("*")
    )
