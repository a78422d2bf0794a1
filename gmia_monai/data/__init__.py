"""Cohorts of radiographs: manifests, published data sets, roles by patient, pairs. No pixels are read here."""

from __future__ import annotations

from gmia_monai.data.cohort import Cohort, ImageRecord
from gmia_monai.data.load import load_cohort
from gmia_monai.data.manifest import read_manifest, write_manifest
from gmia_monai.data.pairs import Pairs, t1_pairs
from gmia_monai.data.roles import check_disjoint, role_of_number
from gmia_monai.data.thirds import without_third
from gmia_monai.data.units import AnonymizationRun, find_sources

__all__ = [
    "AnonymizationRun",
    "Cohort",
    "ImageRecord",
    "Pairs",
    "check_disjoint",
    "find_sources",
    "load_cohort",
    "read_manifest",
    "role_of_number",
    "t1_pairs",
    "without_third",
    "write_manifest",
]
