"""DICOM and pixel values: intensity, limits, pseudonyms. No torch, no monai."""

from __future__ import annotations

from gmia_monai.dicom.atomic import atomic_path
from gmia_monai.dicom.intensity import dicom_to_unit, from_unit, integer_to_unit, quantise
from gmia_monai.dicom.intensity_tags import IntensityTags, LookUpTable
from gmia_monai.dicom.limits import check_dataset, check_image, check_size
from gmia_monai.dicom.pseudonyms import create_key, default_key_path, handle, links_path, load_key, uid

__all__ = [
    "IntensityTags",
    "LookUpTable",
    "atomic_path",
    "check_dataset",
    "check_image",
    "check_size",
    "create_key",
    "default_key_path",
    "dicom_to_unit",
    "from_unit",
    "handle",
    "integer_to_unit",
    "links_path",
    "load_key",
    "quantise",
    "uid",
]
