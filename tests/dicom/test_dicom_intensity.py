"""Intensity against pydicom's own pipeline, and against the printed formulas."""

from __future__ import annotations

import numpy as np
import pydicom
import pytest
from pydicom import Dataset
from pydicom.pixels import apply_modality_lut, apply_voi_lut
from pydicom.uid import ExplicitVRLittleEndian

from gmia_monai.dicom.intensity import apply_window, dicom_to_unit, from_unit, integer_to_unit, quantise
from gmia_monai.dicom.intensity_tags import IntensityTags
from gmia_monai.errors import InputError

RNG = np.random.default_rng(0)
STORED = RNG.integers(0, 4096, (40, 50)).astype(np.uint16)


def header(**values) -> Dataset:
    dataset = Dataset()
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    defaults = {"PhotometricInterpretation": "MONOCHROME2", "BitsStored": 12, "BitsAllocated": 16}
    for keyword, value in {**defaults, "PixelRepresentation": 0, **values}.items():
        setattr(dataset, keyword, value)
    return dataset


def table(first: int, bits: int, entries: np.ndarray) -> pydicom.Sequence:
    item = Dataset()
    item.add_new("LUTDescriptor", "US", [len(entries), first, bits])
    item.add_new("LUTData", "US", [int(e) for e in entries])
    return pydicom.Sequence([item])


def by_pydicom(stored: np.ndarray, dataset: Dataset) -> np.ndarray:
    """pydicom's modality and VOI step, scaled by pydicom's documented output range."""
    out = apply_voi_lut(apply_modality_lut(stored, dataset), dataset).astype(np.float64)
    if "VOILUTSequence" in dataset:
        low, high = 0, 2 ** dataset.VOILUTSequence[0].LUTDescriptor[2] - 1
    else:
        low, high = 0, 2**dataset.BitsStored - 1
        if dataset.PixelRepresentation:
            low, high = -(2 ** (dataset.BitsStored - 1)), 2 ** (dataset.BitsStored - 1) - 1
        if "RescaleSlope" in dataset:
            low, high = (v * dataset.RescaleSlope + dataset.RescaleIntercept for v in (low, high))
    unit = (out - low) / (high - low)
    return 1 - unit if dataset.PhotometricInterpretation == "MONOCHROME1" else unit


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
@pytest.mark.parametrize("rescale", [{}, {"RescaleSlope": "1.5", "RescaleIntercept": "-100"}])
def test_window_agrees_with_pydicom(photometric, function, rescale):
    dataset = header(
        PhotometricInterpretation=photometric,
        WindowCenter=["1500", "3"],
        WindowWidth=["900", "7"],
        VOILUTFunction=function,
        **rescale,
    )
    unit = dicom_to_unit(STORED, IntensityTags.from_dataset(dataset))
    assert unit.dtype == np.float32 and 0 <= unit.min() < 0.2 and 0.8 < unit.max() <= 1
    np.testing.assert_allclose(unit, by_pydicom(STORED, dataset), atol=1e-6)


def test_signed_window_agrees_with_pydicom():
    stored = RNG.integers(-2000, 2000, (40, 50)).astype(np.int16)
    dataset = header(PixelRepresentation=1, WindowCenter="40", WindowWidth="400")
    unit = dicom_to_unit(stored, IntensityTags.from_dataset(dataset))
    np.testing.assert_allclose(unit, by_pydicom(stored, dataset), atol=1e-6)


def test_modality_table_then_voi_table_agree_with_pydicom():
    modality = np.sort(RNG.integers(0, 65536, 4000))
    voi = np.sort(RNG.integers(0, 4096, 60000))
    dataset = header(ModalityLUTSequence=table(50, 16, modality), VOILUTSequence=table(100, 12, voi))
    unit = dicom_to_unit(STORED, IntensityTags.from_dataset(dataset))
    np.testing.assert_allclose(unit, by_pydicom(STORED, dataset), atol=1e-6)
    assert unit.std() > 0.1


def test_modality_table_given_as_bytes_equals_the_same_as_numbers():
    entries = np.sort(RNG.integers(0, 65536, 4096))
    numbers = header(ModalityLUTSequence=table(0, 16, entries))
    packed = header(ModalityLUTSequence=table(0, 16, entries))
    del packed.ModalityLUTSequence[0].LUTData
    packed.ModalityLUTSequence[0].add_new("LUTData", "OW", entries.astype("<u2").tobytes())
    first, second = (dicom_to_unit(STORED, IntensityTags.from_dataset(d)) for d in (numbers, packed))
    np.testing.assert_array_equal(first, second)
    np.testing.assert_allclose(first, (entries[STORED] - entries[STORED].min()) / np.ptp(entries[STORED]), atol=1e-6)


def test_voi_table_takes_precedence_over_window():
    with_table = header(VOILUTSequence=table(0, 12, np.arange(4096)), WindowCenter="10", WindowWidth="5")
    unit = dicom_to_unit(STORED, IntensityTags.from_dataset(with_table))
    np.testing.assert_allclose(unit, STORED / 4095, atol=1e-6)


def test_monochrome1_is_the_negative_of_monochrome2():
    one = header(PhotometricInterpretation="MONOCHROME1", WindowCenter="2048", WindowWidth="4096")
    two = header(WindowCenter="2048", WindowWidth="4096")
    first = dicom_to_unit(4095 - STORED, IntensityTags.from_dataset(one))
    np.testing.assert_allclose(first, dicom_to_unit(STORED, IntensityTags.from_dataset(two)), atol=1e-6)


def test_range_without_window():
    eight = IntensityTags("MONOCHROME2", 8)
    stored = np.array([[10, 200], [20, 30]], dtype=np.uint8)
    np.testing.assert_allclose(dicom_to_unit(stored, eight), stored / 255, atol=1e-7)
    twelve = dicom_to_unit(STORED // 4, IntensityTags("MONOCHROME2", 12))
    assert (twelve.min(), twelve.max()) == (0.0, 1.0)


def test_rescaled_values_and_json_give_the_same_array():
    dataset = header(
        PhotometricInterpretation="MONOCHROME1",
        RescaleSlope="2.5",
        RescaleIntercept="-300",
        WindowCenter="4000",
        WindowWidth="5000",
    )
    meta = dataset.to_json_dict()
    direct = dicom_to_unit(STORED, IntensityTags.from_dataset(dataset))
    rescaled = (STORED.astype(np.float32) * 2.5 - 300).astype(np.float32)
    np.testing.assert_allclose(dicom_to_unit(rescaled, IntensityTags.from_json(meta), rescaled=True), direct, atol=1e-6)
    assert IntensityTags.from_json(meta) == IntensityTags.from_dataset(dataset)


def test_window_formula_as_printed():
    """PS3.3 C.11.2.1.2: x <= c-0.5-(w-1)/2 is lowest, x > c-0.5+(w-1)/2 highest, linear between."""
    x = np.arange(0, 100, dtype=np.float64)[None]
    c, w = 50.0, 21.0
    expected = ((x - (c - 0.5)) / (w - 1) + 0.5) * ((x > c - 0.5 - (w - 1) / 2) & (x <= c - 0.5 + (w - 1) / 2))
    expected = expected + (x > c - 0.5 + (w - 1) / 2)
    np.testing.assert_allclose(apply_window(x, c, w), expected, atol=1e-12)
    np.testing.assert_array_equal(apply_window(x, c, 1.0), (x > 49.5).astype(float))


@pytest.mark.parametrize("bits", [8, 10, 12, 16])
def test_from_unit_inverts_every_level(bits):
    levels = np.arange(2**bits, dtype=np.int64)[None]
    unit = integer_to_unit(levels, bits)
    np.testing.assert_array_equal(from_unit(unit, bits), levels)
    np.testing.assert_array_equal(from_unit(unit, bits, "MONOCHROME1"), levels[:, ::-1])
    np.testing.assert_array_equal(quantise(unit, bits), unit)


def test_quantise_rounds_to_the_nearest_level_and_clips():
    image = np.array([[0.49 / 255, 0.51 / 255, -1.0, 2.0]], dtype=np.float32)
    np.testing.assert_array_equal(from_unit(image, 8), [[0, 1, 0, 255]])
    fine = RNG.random((32, 32)).astype(np.float32)
    assert 0 < np.abs(quantise(fine, 8) - fine).max() <= 0.5 / 255 + 1e-7
    np.testing.assert_array_equal(quantise(fine, 32), fine)


def test_from_unit_refuses():
    with pytest.raises(InputError, match="GM-D011"):
        from_unit(np.zeros((2, 2), dtype=np.float32), 7)
    with pytest.raises(InputError, match="GM-D004"):
        from_unit(np.zeros((2, 2), dtype=np.float32), 8, "RGB")
    with pytest.raises(InputError, match="GM-D008"):
        from_unit(np.full((2, 2), np.nan, dtype=np.float32), 8)
