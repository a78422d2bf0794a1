"""What a release does with each element is said as it is done."""

from __future__ import annotations

import io

import pytest
from pydicom import Dataset, dcmread
from pydicom.datadict import keyword_for_tag
from pydicom.sequence import Sequence
from toy_release import KEY, dicom_file

from gmia_monai.dicom.decode import decode_bytes
from gmia_monai.dicom.release_header import Derivation, HeaderRules, release_dataset, release_names
from gmia_monai.dicom.tag_actions import tag_actions


@pytest.fixture
def source() -> Dataset:
    dataset = dcmread(io.BytesIO(dicom_file("P1", 0)))
    block = dataset.private_block(0x0019, "SECRET MAKER", create=True)
    block.add_new(1, "LO", "Doe")
    nested = Dataset()
    nested.InstitutionName = "St Mary"
    dataset.RequestAttributesSequence = Sequence([nested])
    dataset.OperatorsName = "Roe"
    return dataset


@pytest.fixture
def actions(source) -> dict[str, tuple[str, str]]:
    stream = io.BytesIO()
    source.save_as(stream, enforce_file_format=True)
    decoded = decode_bytes(stream.getvalue())
    names = release_names(KEY, decoded.header, "d")
    new = release_dataset(
        KEY, decoded.header, names, HeaderRules(), Derivation("drawn", "a" * 64, "0.1", True, 32, (72, 64))
    )
    return {a.name: (a.action, a.profile) for a in tag_actions(decoded.elements, new)}


def test_each_element_has_an_action_and_the_profile_beside(actions):
    assert actions["PatientName"] == ("pseudonym", "Z") and actions["SOPInstanceUID"] == ("pseudonym", "U")
    assert actions["OperatorsName"] == ("removed", "X/Z/D") and actions["InstitutionName"][0] == "removed"
    assert actions["private"] == ("removed", "X") and actions["RequestAttributesSequence"][0] == "removed"
    assert actions["StudyDate"][0] == "date shifted" and actions["PixelData"][0] == "redrawn"
    assert actions["PatientSex"][0] == actions["ViewPosition"][0] == "kept"
    assert actions["TransferSyntaxUID"][0] == actions["WindowCenter"][0] == "written anew"
    assert actions["Rows"][0] == actions["PhotometricInterpretation"][0] == "kept"


def test_all_elements_of_the_source_are_named(source, actions):
    names = {keyword_for_tag(int(e.tag)) or "private" for e in (*source.iterall(), *source.file_meta)}
    assert names <= set(actions) | {"FileMetaInformationGroupLength"}


def test_without_options_nothing_is_kept_of_the_patient():
    decoded = decode_bytes(dicom_file("P1", 0))
    names = release_names(KEY, decoded.header, "d")
    rules = HeaderRules(characteristics=False, shift_dates=False)
    new = release_dataset(KEY, decoded.header, names, rules, Derivation("d", "a" * 64, "0.1", True, 32, (72, 64)))
    found = {a.name: a.action for a in tag_actions(decoded.elements, new)}
    assert (found["PatientSex"], found["PatientAge"], found["StudyDate"]) == ("emptied", "removed", "emptied")
