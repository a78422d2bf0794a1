"""Limits by size, values and header."""

from __future__ import annotations

import numpy as np
import pytest
from pydicom import Dataset

from gmia_monai.dicom.limits import check_dataset, check_image, check_size
from gmia_monai.errors import InputError


def image_header(**values) -> Dataset:
    dataset = Dataset()
    defaults = {"Rows": 64, "Columns": 64, "BitsAllocated": 16, "BitsStored": 12, "PixelData": b"\0\0"}
    for keyword, value in {**defaults, "PhotometricInterpretation": "MONOCHROME2", **values}.items():
        setattr(dataset, keyword, value)
    return dataset


def code_of(check, *args) -> str | None:
    try:
        check(*args)
    except InputError as error:
        return error.code
    return None


@pytest.mark.parametrize(
    ("shape", "code"),
    [
        ((32, 32), None),
        ((31, 500), "GM-D006"),
        ((500, 31), "GM-D006"),
        ((10_000, 10_000), None),
        ((60000, 60000), "GM-D010"),
    ],
)
def test_size(shape, code):
    assert code_of(check_size, *shape) == code


def test_values():
    image = np.random.default_rng(0).random((40, 40)).astype(np.float32)
    assert code_of(check_image, image) is None
    assert code_of(check_image, np.full((40, 40), 0.5)) == "GM-D007"
    for bad in (np.nan, np.inf):
        image[3, 4] = bad
        assert code_of(check_image, image) == "GM-D008"


@pytest.mark.parametrize(
    ("values", "code"),
    [
        ({}, None),
        ({"SamplesPerPixel": 3}, "GM-D004"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "GM-D004"),
        ({"NumberOfFrames": 2}, "GM-D005"),
        ({"Rows": 16}, "GM-D006"),
        ({"Rows": 65535, "Columns": 65535}, "GM-D010"),
        ({"BitsAllocated": 32, "BitsStored": 32}, "GM-D011"),
        ({"BitsAllocated": 8, "BitsStored": 12}, "GM-D011"),
        ({"BitsStored": 1}, "GM-D011"),
    ],
)
def test_header(values, code):
    assert code_of(check_dataset, image_header(**values)) == code


@pytest.mark.parametrize("keyword", ["PixelData", "Rows", "Columns"])
def test_no_image(keyword):
    dataset = image_header()
    del dataset[keyword]
    assert code_of(check_dataset, dataset) == "GM-D009"
