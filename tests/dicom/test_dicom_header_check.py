"""The second opinion on headers: silent on what a release writes, and loud on everything that is planted in it."""

from __future__ import annotations

import io

import numpy as np
import pytest
from pydicom import Dataset, dcmread
from pydicom.datadict import DicomDictionary, keyword_for_tag

from gmia_monai.dicom.header_check import check_header, listed_by_profile
from gmia_monai.dicom.release_header import Derivation, HeaderRules, release_dataset, release_names
from gmia_monai.dicom.source_header import SourceHeader

KEY = bytes(range(32))
_VALUES = {
    "DA": "20200430", "DT": "20200430120000", "TM": "120000", "UI": "1.2.840.99", "AS": "045Y", "SQ": [Dataset()],
    "DS": "1.5", "IS": "7", "US": 7, "UL": 7, "SS": 7, "SL": 7, "FL": 1.5, "FD": 1.5, "OB": b"ab", "OW": b"ab",
    "UN": b"ab", "AT": 0x00100010,
}  # fmt: skip


def released(kind: str = "CR", rules: HeaderRules | None = None, **facts) -> Dataset:
    """A released data set with pixels."""
    given = {"sex": "F", "age_years": 59, "dates": {"StudyDate": "20200430"}, "view": "PA", "body_part": "CHEST"}
    given |= {"orientation": ("L", "F"), "spacing_mm": (0.2, 0.2), "accession": "a", "series_number": 3}
    source = SourceHeader(kind, "p", "1.2", "1.2.1", "1.2.3", **(given | facts))
    done = Derivation("drawn anew", "a" * 64, "0.1.0", True, 64, (64, 48))
    new = release_dataset(KEY, source, release_names(KEY, source, "d"), rules or HeaderRules(), done)
    pixels = np.arange(64 * 48, dtype=np.uint16).reshape(64, 48)
    new.set_pixel_data(pixels, "MONOCHROME1", 12, generate_instance_uid=False)
    new.WindowCenter, new.WindowWidth = "2048", "4096"
    return new


def written(dataset: Dataset) -> bytes:
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["CR", "DX", "SC"])
@pytest.mark.parametrize("rules", [HeaderRules(), HeaderRules(False, False), HeaderRules(True, False)])
def test_it_is_silent_on_what_a_release_writes(kind, rules):
    assert check_header(written(released(kind, rules))) == []
    bare = released(kind, rules, sex="", age_years=None, dates={}, view="", orientation=(), accession="")
    assert check_header(written(bare)) == []


def test_every_element_that_the_profile_names_is_found_when_it_is_planted():
    clean, missed, n = written(released()), [], 0
    for tag in sorted(listed_by_profile()):
        if tag not in DicomDictionary or tag >> 16 == 0:  # commands are in no file
            continue
        vr, keyword = DicomDictionary[tag][0].split(" or ")[0], keyword_for_tag(tag)
        planted = dcmread(io.BytesIO(clean))
        value = _VALUES.get(vr, "PLANTED")
        if keyword in ("StudyDate", "SeriesDate", "AcquisitionDate", "ContentDate", "PatientAge"):
            continue  # kept by an option that this header claims
        (planted.file_meta if tag >> 16 == 2 else planted).add_new(tag, vr, value)
        n += 1
        if not check_header(written(planted)):
            missed.append(keyword)
    assert n > 380
    assert missed == ["MediaStorageSOPInstanceUID"]  # which writing sets right


@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("PatientName", "Doe^Jane"),
        ("PatientID", "4711"),
        ("ViewPosition", "Doe"),
        ("SOPInstanceUID", "1.2.3"),
        ("DerivationDescription", "Müller"),
        ("BurnedInAnnotation", "YES"),
        ("PatientAge", "101Y"),
        ("ImageComments", "x"),
        ("Manufacturer", "ACME"),
        ("BodyPartExamined", "HAND"),
    ],
)
def test_values_of_another_form_are_found(keyword, value):
    changed = released()
    setattr(changed, keyword, value)
    assert keyword in check_header(written(changed))


def test_elements_that_no_table_names_are_found():
    for plant, shown in (
        (lambda d: d.add_new(0x00091001, "LO", "x"), "(0009,1001)"),
        (lambda d: d.add_new(0x60003000, "OW", b"ab"), "(6000,3000)"),
        (lambda d: d.add_new(0x50003000, "OW", b"ab"), "(5000,3000)"),
        (lambda d: d.ContributingEquipmentSequence[0].add_new(0x00080080, "LO", "x"), "InstitutionName"),
        (lambda d: d.ContributingEquipmentSequence[0].add_new(0x00091001, "LO", "x"), "(0009,1001)"),
    ):
        changed = released()
        plant(changed)
        assert shown in check_header(written(changed))


def test_options_that_are_not_claimed_may_not_be_used():
    changed = released()
    del changed.DeidentificationMethodCodeSequence[1:]
    assert {"PatientSex", "PatientAge", "StudyDate"} <= set(check_header(written(changed)))
    claims_faces = released()
    item = claims_faces.DeidentificationMethodCodeSequence[0]
    item.CodeValue = "113102"
    assert "DeidentificationMethodCodeSequence" in check_header(written(claims_faces))


def test_missing_elements_are_named():
    for keyword in ("DeidentificationMethod", "PatientIdentityRemoved", "PixelData"):
        changed = released()
        del changed[keyword]
        assert f"{keyword} is missing" in check_header(written(changed))


def test_bytes_outside_the_elements_are_found():
    raw = written(released())
    assert "preamble" in check_header(b"MZ" + raw[2:])
    for changed in (raw + b"\0", raw + b"Doe", raw[:-3], b"", b"x" * 500):
        assert check_header(changed)
