"""New headers: what a source says comes through as parsed facts or keyed hashes, and in no other way."""

from __future__ import annotations

import json

import numpy as np
import pytest
from pydicom import Dataset, dcmread

from gmia_monai.dicom.ps315 import EDITION, basic_profile_action
from gmia_monai.dicom.release_header import Derivation, HeaderRules, release_dataset, release_names
from gmia_monai.dicom.source_header import SOP_CLASSES, SourceHeader, read_source_header
from gmia_monai.errors import InputError

KEY, OTHER = bytes(range(32)), bytes(32)
DONE = Derivation("drawn anew", "a" * 64, "0.1", True, 64, (1024, 900))
# Kept by name although the profile removes or empties them: the options say so.
BY_OPTION = {"PatientSex", "PatientAge", "StudyDate", "SeriesDate", "AcquisitionDate", "ContentDate"}
MADE_HERE = {"DerivationDescription", "AcquisitionContextSequence", "ContributionDescription", "StudyID", "StudyTime"}


def _source(kind: str = "CR", **more) -> Dataset:
    dataset = Dataset()
    dataset.SOPClassUID = next(uid for uid, k in SOP_CLASSES.items() if k == kind)
    dataset.SOPInstanceUID, dataset.StudyInstanceUID, dataset.SeriesInstanceUID = "1.2.3", "1.2", "1.2.1"
    dataset.PatientID, dataset.PatientName, dataset.PatientSex, dataset.PatientBirthDate = "77", "A^B", "F", "19600501"
    dataset.StudyDate, dataset.SeriesDate, dataset.AccessionNumber = "20200430", "20200501", "ACC"
    dataset.ViewPosition, dataset.BodyPartExamined, dataset.PatientOrientation = "PA", "CHEST", ["L", "F"]
    dataset.ImagerPixelSpacing, dataset.SeriesNumber, dataset.InstanceNumber = [0.2, 0.2], 3, 4
    for keyword, value in more.items():
        setattr(dataset, keyword, value)
    return dataset


def _new(source: Dataset | None = None, key: bytes = KEY, rules: HeaderRules | None = None, derivation: str = "d"):
    header = read_source_header(_source() if source is None else source)
    return release_dataset(key, header, release_names(key, header, derivation), rules or HeaderRules(), DONE)


def test_facts_are_read_and_go_through_json():
    header = read_source_header(_source())
    assert (header.kind, header.sex, header.view, header.body_part, header.age_years) == ("CR", "F", "PA", "CHEST", 59)
    assert header.spacing_mm == (0.2, 0.2) and header.orientation == ("L", "F")
    assert SourceHeader.from_json(json.loads(json.dumps(header.to_json()))) == header
    assert "77" not in repr(header) and "1.2.3" not in repr(header) and "2020" not in repr(header)


@pytest.mark.parametrize(
    ("age", "years"), [("045Y", 45), ("018M", 1), ("100W", 1), ("900D", 2), ("45", 59), ("x", 59), ("", 59)]
)
def test_age_is_that_of_the_header_or_of_the_birth_date(age, years):
    assert read_source_header(_source(PatientAge=age)).age_years == years


def test_age_is_not_guessed():
    assert read_source_header(_source(PatientBirthDate="")).age_years is None
    assert read_source_header(_source(PatientBirthDate="20300101")).age_years is None


@pytest.mark.parametrize(
    ("keyword", "value", "attribute", "found"),
    [
        ("ViewPosition", "LATERAL", "view", "LL"),
        ("ViewPosition", "OBLIQUE^Doe", "view", "other"),
        ("ViewPosition", "", "view", ""),
        ("BodyPartExamined", "Chest ", "body_part", "CHEST"),
        ("BodyPartExamined", "HAND", "body_part", "other"),
        ("PatientSex", "Doe", "sex", ""),
        ("PatientOrientation", ["Doe", "F"], "orientation", ()),
        ("ImagerPixelSpacing", [1e9, 1e9], "spacing_mm", None),
        ("SeriesNumber", 2**31 - 1, "series_number", 0),
    ],
)
def test_codes_and_numbers_are_among_what_they_can_be(keyword, value, attribute, found):
    assert getattr(read_source_header(_source(**{keyword: value})), attribute) == found


def test_other_objects_and_missing_identifiers_are_refused():
    for changed, code in (
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.2"}, "GM-D020"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.1.1.1"}, "GM-D020"),
        ({"StudyInstanceUID": ""}, "GM-D021"),
        ({"PatientID": "", "PatientName": ""}, "GM-D021"),
        ({"SOPClassUID": next(u for u, k in SOP_CLASSES.items() if k == "DX"), "ImagerPixelSpacing": None}, "GM-D022"),
    ):
        with pytest.raises(InputError, match=code):
            read_source_header(_source(**changed))


@pytest.mark.parametrize("kind", ["CR", "DX", "SC"])
def test_what_the_profile_removes_is_there_by_a_named_option_only(kind):
    header = _new(_source(kind))
    kept = set()
    for element in header.iterall():
        action = basic_profile_action(int(element.tag))
        if action is not None and not (element.keyword in MADE_HERE or element.VR == "UI"):
            kept.add(element.keyword)
    assert kept - {"PatientName", "PatientID", "AccessionNumber", "PatientBirthDate", "ReferringPhysicianName"} <= (
        BY_OPTION
    ), EDITION
    bare = _new(_source(kind), rules=HeaderRules(characteristics=False, shift_dates=False))
    assert not [name for name in BY_OPTION if bare.get(name)]


@pytest.mark.parametrize("kind", ["CR", "DX", "SC"])
def test_no_text_of_the_source_comes_through(kind):
    source = _source(kind)
    token = "TOKEN"
    for keyword in ("StudyDescription", "SeriesDescription", "InstitutionName", "PatientComments", "ProtocolName"):
        setattr(source, keyword, token)
    source.PatientID, source.PatientName, source.AccessionNumber = token + "1", token + "^2", token + "3"
    source.add_new(0x00091001, "LO", token)
    source.add_new(0x60000010, "US", 3)
    assert token not in str(_new(source)) and token not in _new(source).to_json()
    assert not [e for e in _new(source) if e.tag.is_private or e.tag.group == 0x6000]


def test_identifiers_are_those_of_a_project():
    one, again, other = _new(), _new(_source(InstanceNumber=9)), _new(key=OTHER)
    names = ("PatientID", "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "AccessionNumber")
    assert all(one[name].value == again[name].value for name in names)
    assert all(one[name].value != other[name].value for name in names)
    another_study = _new(_source(StudyInstanceUID="1.9", SOPInstanceUID="1.9.3"))
    assert another_study.PatientID == one.PatientID and another_study.StudyInstanceUID != one.StudyInstanceUID
    by_another_model = _new(derivation="e")
    assert by_another_model.StudyInstanceUID == one.StudyInstanceUID
    assert by_another_model.SOPInstanceUID != one.SOPInstanceUID
    assert by_another_model.SeriesInstanceUID != one.SeriesInstanceUID


def test_dates_are_shifted_together_and_ages_have_an_upper_end():
    from gmia_monai.dicom.dates import parse_date

    new = _new(_source(PatientAge="097Y"))
    study, series = parse_date(new.StudyDate), parse_date(new.SeriesDate)
    assert new.StudyDate != "20200430" and (series - study).days == 1 and new.PatientAge == "090Y"
    assert new.LongitudinalTemporalInformationModified == "MODIFIED" and new.StudyTime == ""


def test_what_ran_is_what_is_claimed():
    claims = lambda new: [item.CodeValue for item in new.DeidentificationMethodCodeSequence]  # noqa: E731
    assert claims(_new()) == ["113100", "113108", "113107", "113101"]
    bare = _new(rules=HeaderRules(characteristics=False, shift_dates=False))
    assert claims(bare) == ["113100", "113101"] and bare.LongitudinalTemporalInformationModified == "REMOVED"
    assert "113102" not in claims(_new())
    new = _new()
    assert "64 x 64" in new.DerivationDescription and "1024 x 900" in new.DerivationDescription
    assert "a" * 64 in new.ContributingEquipmentSequence[0].ContributionDescription
    assert list(new.ImageType)[:2] == ["DERIVED", "SECONDARY"] and new.BurnedInAnnotation == "NO"


@pytest.mark.parametrize("kind", ["CR", "DX", "SC"])
def test_it_is_written_and_read_back(kind, tmp_path):
    new = _new(_source(kind))
    pixels = np.arange(64 * 48, dtype=np.uint16).reshape(64, 48)
    new.set_pixel_data(pixels, "MONOCHROME1", 12, generate_instance_uid=False)
    new.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    raw = (tmp_path / "a.dcm").read_bytes()
    assert raw[:128] == bytes(128)
    back = dcmread(tmp_path / "a.dcm")
    assert np.array_equal(back.pixel_array, pixels) and back.SOPClassUID == new.SOPClassUID
    assert back.file_meta.MediaStorageSOPInstanceUID == back.SOPInstanceUID


def test_the_table_knows_private_and_repeating_groups():
    assert basic_profile_action(0x00091001) == basic_profile_action(0x60003000) == "X"
    assert basic_profile_action(0x50020010) == "X" and basic_profile_action(0x00100010) == "Z"
    assert basic_profile_action(0x00080018) == "U" and basic_profile_action(0x00280010) is None
