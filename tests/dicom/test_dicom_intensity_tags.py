"""Intensity tags: what is read from a header, and what is refused."""

from __future__ import annotations

import numpy as np
import pydicom
import pytest
from pydicom import Dataset

from gmia_monai.dicom.intensity_tags import IntensityTags, LookUpTable
from gmia_monai.errors import InputError


def header(**values) -> Dataset:
    dataset = Dataset()
    for keyword, value in {"PhotometricInterpretation": "MONOCHROME2", "BitsStored": 12, **values}.items():
        setattr(dataset, keyword, value)
    return dataset


def table(first: int, bits: int, entries: np.ndarray) -> pydicom.Sequence:
    item = Dataset()
    item.add_new("LUTDescriptor", "US", [len(entries), first, bits])
    item.add_new("LUTData", "US", [int(e) for e in entries])
    return pydicom.Sequence([item])


def test_defaults_where_the_header_is_silent():
    assert IntensityTags.from_dataset(header()) == IntensityTags("MONOCHROME2", 12)
    empty = header(WindowCenter=None, WindowWidth=None, RescaleSlope=None, VOILUTFunction="", VOILUTSequence=[])
    assert IntensityTags.from_dataset(empty) == IntensityTags("MONOCHROME2", 12)


def test_first_of_several_windows():
    tags = IntensityTags.from_dataset(
        header(WindowCenter=["40", "400"], WindowWidth=["80", "900"], PixelRepresentation=1)
    )
    assert tags.window == (40.0, 80.0) and tags.signed


def test_table_clamps_and_takes_the_nearest_index():
    lut = LookUpTable(10, 8, np.array([5, 6, 7]))
    np.testing.assert_array_equal(lut(np.array([[-3, 10, 11, 12, 400]])), [[5, 5, 6, 7, 7]])
    np.testing.assert_array_equal(lut(np.array([[10.4, 10.6, np.float64(1e9)]])), [[5, 6, 7]])


def test_first_value_of_a_signed_image_is_signed():
    tags = IntensityTags.from_dataset(header(PixelRepresentation=1, ModalityLUTSequence=table(65436, 8, np.arange(9))))
    assert tags.modality_lut.first == -100


def test_bytes_two_to_a_word():
    sequence = table(0, 8, np.arange(6))
    del sequence[0].LUTData
    sequence[0].add_new("LUTData", "OW", bytes([9, 8, 7, 6, 5, 4]))
    assert IntensityTags.from_dataset(header(VOILUTSequence=sequence)).voi_lut.entries.tolist() == [9, 8, 7, 6, 5, 4]


@pytest.mark.parametrize(
    ("values", "code"),
    [
        ({"PhotometricInterpretation": "RGB"}, "GM-D004"),
        ({"BitsStored": 1}, "GM-D011"),
        ({"BitsStored": 32}, "GM-D011"),
        ({"WindowCenter": "7771", "WindowWidth": "0"}, "GM-D012"),
        ({"WindowCenter": "7771", "WindowWidth": "5", "VOILUTFunction": "SECRET"}, "GM-D012"),
        ({"RescaleSlope": "0", "RescaleIntercept": "7771"}, "GM-D012"),
        ({"VOILUTSequence": table(0, 12, np.array([5000] * 10))}, "GM-D012"),
        ({"VOILUTSequence": pydicom.Sequence([Dataset()])}, "GM-D012"),
    ],
)
def test_bad_headers_have_codes_and_no_values(values, code):
    with pytest.raises(InputError) as caught:
        IntensityTags.from_dataset(header(**values))
    assert caught.value.code == code
    assert "7771" not in str(caught.value) and "SECRET" not in str(caught.value)
    assert caught.value.__cause__ is None
