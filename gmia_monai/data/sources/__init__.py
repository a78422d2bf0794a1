"""Layouts of data sets, in the order in which a folder is tried: each has ``matches(root)`` and ``read(root, ...)``."""

from __future__ import annotations

from types import ModuleType

from gmia_monai.data.sources import chestxray14, chexpert, cxr, dicom, folder, mimic_cxr_jpg

__all__ = ["SOURCES"]

# folder is last: it takes any tree with an image in it
SOURCES: dict[str, ModuleType] = {
    "cxr": cxr,
    "chestxray14": chestxray14,
    "mimic_cxr_jpg": mimic_cxr_jpg,
    "chexpert": chexpert,
    "dicom": dicom,
    "folder": folder,
}
