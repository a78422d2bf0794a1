"""MONAI data sets and batches for the training configs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.data import CacheDataset, Dataset, PersistentDataset
from monai.data.utils import pickle_hashing
from torch import Tensor

from gmia_monai.data.cohort import Cohort
from gmia_monai.data.roles import check_disjoint
from gmia_monai.errors import UsageError

__all__ = [
    "disjoint_roles",
    "identity_datalist",
    "make_dataset",
    "scored_findings",
    "select_findings",
]


def make_dataset(
    data: Sequence[Mapping[str, Any]],
    transform: Callable,
    cache: str = "memory",
    cache_dir: str | None = None,
    num_workers: int = 2,
) -> Dataset:
    """A MONAI data set that keeps what the deterministic transforms give.

    Args:
        data: items, as made by :meth:`gmia_monai.data.Cohort.datalist`.
        transform: MONAI ``Compose``.
        cache: ``memory`` (CacheDataset), ``disk`` (PersistentDataset, in ``cache_dir``) or ``none``.
        cache_dir: folder of the disk cache.
        num_workers: threads that fill the memory cache.

    Raises:
        UsageError: ``GM-U040`` for another cache, ``GM-U041`` for an empty list, ``GM-U045`` for a disk cache without
            folder.
    """
    if not data:
        raise UsageError(
            "GM-U041", "no images for this role", expected="at least one", next_step="check --manifest / --dataset_dir"
        )
    # Identifiers are of no use to a network, and text slows the collation of batches.
    kept = ("image", "label", "patient")
    items = [{k: v for k, v in item.items() if k in kept} for item in data]
    if cache == "memory":
        return CacheDataset(items, transform, num_workers=num_workers, progress=False)
    if cache == "disk":
        if not cache_dir:
            raise UsageError("GM-U045", "cache: disk needs cache_dir", next_step="give the folder of the cache")
        # The transforms are part of what is looked up: with another image size the cache is made anew.
        return PersistentDataset(items, transform, cache_dir=cache_dir, hash_transform=pickle_hashing)
    if cache == "none":
        return Dataset(items, transform)
    raise UsageError("GM-U040", "unknown cache", got=cache, expected="memory, disk or none")


def disjoint_roles(cohort: Cohort, names: Sequence[str] = ("S", "V1")) -> dict[str, Cohort]:
    """The cohorts of some roles, each with at least one patient, no patient or image in two.

    Raises:
        ManifestError: as :func:`gmia_monai.data.check_disjoint`, or ``GM-M035`` for a role without patients.
    """
    roles = {name: cohort.role(name, min_patients=1) for name in names}
    check_disjoint(roles)
    return roles


def identity_datalist(cohort: Cohort, min_images: int = 1) -> list[dict[str, Any]]:
    """Items whose ``label`` is the dense number of the patient.

    Args:
        cohort: images of the training role.
        min_images: patients with fewer images are left out.
    """
    counts: dict[str, int] = {}
    for record in cohort:
        counts[record.patient_id] = counts.get(record.patient_id, 0) + 1
    kept = cohort[[i for i, record in enumerate(cohort) if counts[record.patient_id] >= min_images]]
    return [item | {"label": item["patient"]} for item in kept.datalist()]


def scored_findings(items: Sequence[Mapping[str, Any]], min_positives: int) -> list[int]:
    """Positions of the findings with at least ``min_positives`` positives and one negative among validation items.

    Raises:
        UsageError: ``GM-U044`` when there is none.
    """
    labels = np.stack([item["label"] for item in items])
    enough = ((labels == 1).sum(axis=0) >= min_positives) & ((labels == 0).sum(axis=0) >= 1)
    found = [int(i) for i in np.flatnonzero(enough)]
    if not found:
        raise UsageError(
            "GM-U044", f"no finding has {min_positives} positive validation images", next_step="lower min_positives_val"
        )
    return found


def select_findings(columns: Sequence[int]) -> Callable[[Any], tuple[list[Tensor], list[Tensor]]]:
    """An Ignite ``output_transform`` that keeps some findings of ``pred`` and ``label``."""
    columns = list(columns)

    def transform(output: Sequence[Mapping[str, Tensor]]) -> tuple[list[Tensor], list[Tensor]]:
        return [o["pred"][columns] for o in output], [torch.as_tensor(o["label"])[columns] for o in output]

    return transform
