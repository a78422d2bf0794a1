"""A cohort: paths and facts of radiographs, no pixels; indexable, sliced by role, the same for every source."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import overload

import numpy as np
from jaxtyping import Float32

from gmia_monai.data import labels as _labels
from gmia_monai.data.roles import DEFAULT_ROLE_KEY, ROLE_SCHEMES, ROLES, role_of_patient
from gmia_monai.errors import ManifestError, UsageError
from gmia_monai.typing import FloatArray, IntArray

__all__ = ["Cohort", "ImageRecord"]


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """What is known of one image without opening it. Its ``repr`` shows no identifier.

    Attributes:
        image: absolute path.
        patient_id: identifier of the patient.
        study_id: identifier of the visit; empty if not known.
        view: ``PA``, ``AP``, … or empty.
        sex: ``M``, ``F`` or empty.
        age: years; nan if not known.
        labels: pairs (finding, value): 1 present, 0 absent, -1 uncertain. A finding that is not named is absent.
            None: nobody looked for findings.
        folder: pairs of images are formed within one folder only.
        split: split of the source, as it wrote it; empty if none.
        key: name of the image relative to its data set, with ``/``; ``folder/name`` of the file if not given.
    """

    image: Path = field(repr=False)
    patient_id: str = field(repr=False)
    study_id: str = field(default="", repr=False)
    view: str = ""
    sex: str = ""
    age: float = math.nan
    labels: tuple[tuple[str, float], ...] | None = None
    folder: str = ""
    split: str = ""
    key: str = field(default="", repr=False)

    def __post_init__(self) -> None:
        if not self.key:
            object.__setattr__(self, "key", f"{self.folder}/{self.image.name}" if self.folder else self.image.name)


@dataclass(frozen=True, eq=False, repr=False)
class Cohort(Sequence[ImageRecord]):
    """Records of images in a fixed order.

    Attributes:
        records: the images.
        findings: names of the findings that the source looks for; slices keep it, so that label vectors stay aligned.
            Made from the labels (sorted) if not given.
        role_scheme: how patients got their roles: ``number``, ``split`` or ``hash`` (see :mod:`gmia_monai.data.roles`).
        role_key: key of the scheme ``hash``.
        source: name of the source or data set.
        notes: what was skipped or assumed while reading, in words.

    Raises:
        UsageError: ``GM-U030`` if there is no such scheme.
    """

    records: tuple[ImageRecord, ...]
    findings: tuple[str, ...] | None = None
    role_scheme: str = "hash"
    role_key: bytes = DEFAULT_ROLE_KEY
    source: str = ""
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "records", tuple(self.records))
        if self.role_scheme not in ROLE_SCHEMES:
            raise UsageError("GM-U030", "unknown scheme of roles", got=self.role_scheme, expected=ROLE_SCHEMES)
        if self.findings is None:
            object.__setattr__(self, "findings", _labels.findings_of(r.labels for r in self.records))

    def __repr__(self) -> str:
        return (
            f"Cohort(source={self.source!r}, images={len(self)}, patients={len(self.patients)}, "
            f"roles={self.role_scheme!r})"
        )

    def __len__(self) -> int:
        return len(self.records)

    def __iter__(self) -> Iterator[ImageRecord]:
        return iter(self.records)

    @overload
    def __getitem__(self, index: int) -> ImageRecord: ...

    @overload
    def __getitem__(self, index: slice | Sequence[int] | np.ndarray) -> Cohort: ...

    def __getitem__(self, index: int | np.integer | slice | Sequence[int] | np.ndarray) -> ImageRecord | Cohort:
        """``cohort[3]`` is a record; a slice, a list or an array of indices or of booleans gives a cohort."""
        if isinstance(index, (int, np.integer)):
            return self.records[index]
        if isinstance(index, slice):
            return replace(self, records=self.records[index])
        index = np.asarray(index)
        if index.dtype == bool:
            if index.shape != (len(self),):
                raise IndexError(f"a mask of length {len(self)} is needed, got shape {index.shape}")
            index = np.flatnonzero(index)
        return replace(self, records=tuple(self.records[i] for i in index.astype(np.int64)))

    # -- columns -----------------------------------------------------------------------------------------------------
    @cached_property
    def patients(self) -> tuple[str, ...]:
        """Identifiers of the patients, in order of first appearance."""
        return tuple(dict.fromkeys(r.patient_id for r in self.records))

    @cached_property
    def patient_index(self) -> IntArray:
        """For each image the position of its patient in :attr:`patients`: dense class numbers from 0."""
        position = {patient: i for i, patient in enumerate(self.patients)}
        return np.fromiter((position[r.patient_id] for r in self.records), dtype=np.int64, count=len(self))

    @cached_property
    def folders(self) -> tuple[str, ...]:
        """Names of the folders, in order of first appearance."""
        return tuple(dict.fromkeys(r.folder for r in self.records))

    @cached_property
    def ages(self) -> FloatArray:
        """Ages in years; nan if not known."""
        return np.fromiter((r.age for r in self.records), dtype=np.float64, count=len(self))

    @cached_property
    def patients_hash(self) -> str:
        """SHA-256 of the sorted identifiers of the patients: whether two cohorts are of the same people."""
        return hashlib.sha256("\n".join(sorted(self.patients)).encode("utf-8")).hexdigest()

    @cached_property
    def records_hash(self) -> str:
        """SHA-256 of what attacks read of the records: patient, visit, folder, sex, age, view, labels, role.

        Raises:
            ManifestError: ``GM-M034`` if a patient has two splits.
        """
        rows = [
            (r.patient_id, r.study_id, r.folder, r.sex, r.age, r.view, r.labels, role)
            for r, role in zip(self.records, self.roles, strict=True)
        ]
        return hashlib.sha256(json.dumps([self.findings, rows]).encode()).hexdigest()

    # -- parts -------------------------------------------------------------------------------------------------------
    @cached_property
    def roles(self) -> tuple[str, ...]:
        """Role of each image; all images of a patient have the same.

        Raises:
            ManifestError: ``GM-M034`` if a patient has two splits.
        """
        of_patient: dict[str, str] = {}
        roles = []
        for record in self.records:
            if self.role_scheme == "split" or record.patient_id not in of_patient:
                role = role_of_patient(record.patient_id, self.role_scheme, split=record.split, key=self.role_key)
                if of_patient.setdefault(record.patient_id, role) != role:
                    raise ManifestError("GM-M034", "a patient is in two roles", next_step="split by patient")
            roles.append(of_patient[record.patient_id])
        return tuple(roles)

    def role(self, name: str, min_patients: int = 0) -> Cohort:
        """The images of the patients of one role, or of several: ``S+A``.

        Args:
            name: one of :data:`gmia_monai.data.roles.ROLES`, or some of them with ``+`` between.
            min_patients: refuse a role with fewer patients.

        Raises:
            UsageError: ``GM-U031`` if there is no such role.
            ManifestError: ``GM-M035`` if the role has fewer than ``min_patients`` patients.
        """
        names = name.split("+")
        if not set(names) <= set(ROLES):
            raise UsageError("GM-U031", "unknown role", got=name, expected=ROLES)
        part = self[np.array([role in names for role in self.roles], dtype=bool)]
        if len(part.patients) < min_patients:
            raise ManifestError(
                "GM-M035",
                f"too few patients in role {name} (scheme {self.role_scheme})",
                got=f"{len(part.patients)} of the {len(self.patients)} patients",
                expected=f"at least {min_patients}",
                next_step="add patients, or give a manifest whose split column names the roles S, A, V1, V2, T: train, "
                "val and test are S, V1 and T alone, so that attackers have nobody to learn from (A) or to be chosen "
                "on (V2)",
            )
        return part

    def core(self, max_images: int = 4) -> Cohort:
        """At most ``max_images`` images a patient, those with the smallest SHA-256 of their key; order is kept."""
        by_patient: dict[str, list[tuple[bytes, int]]] = {}
        for i, record in enumerate(self.records):
            digest = hashlib.sha256(record.key.encode("utf-8")).digest()
            by_patient.setdefault(record.patient_id, []).append((digest, i))
        keep = sorted(i for images in by_patient.values() for _, i in sorted(images)[:max_images])
        return self[np.array(keep, dtype=np.int64)]

    def sample(self, n_images: int) -> Cohort:
        """The first ``n_images`` images when patients are sorted by the SHA-256 of their identifier; order is kept.

        Patients come whole but for the last one, so that a longer list holds every shorter one.

        Raises:
            UsageError: ``GM-U306`` if there are fewer images.
        """
        if n_images > len(self):
            raise UsageError("GM-U306", "fewer images than asked for", got=len(self), expected=f"at least {n_images}")
        rank = {p: hashlib.sha256(p.encode("utf-8")).digest() for p in self.patients}
        order = sorted(range(len(self)), key=lambda i: (rank[self.records[i].patient_id], i))
        return self[np.array(sorted(order[:n_images]), dtype=np.int64)]

    # -- labels ------------------------------------------------------------------------------------------------------
    def label_matrix(
        self, findings: Sequence[str] | None = None, uncertain: str = "zeros", seed: int = 0
    ) -> Float32[np.ndarray, "n k"]:
        """Labels as numbers, see :func:`gmia_monai.data.labels.label_matrix`; ``findings`` defaults to the cohort's."""
        names = (self.findings or ()) if findings is None else findings
        return _labels.label_matrix([r.labels for r in self.records], names, uncertain, seed)

    def findings_with_at_least(self, n_positive: int) -> tuple[str, ...]:
        """The findings that are present (value 1) in at least ``n_positive`` images."""
        names = self.findings or ()
        positives = (self.label_matrix(names, "ignore") == 1).sum(axis=0)
        return tuple(name for name, count in zip(names, positives, strict=True) if count >= n_positive)

    def datalist(
        self, findings: Sequence[str] | None = None, uncertain: str = "zeros", seed: int = 0
    ) -> list[dict[str, object]]:
        """Items for a MONAI dataset.

        Returns:
            one dictionary an image: ``image`` (path, str), ``label`` (float32 array [k], nan where not known),
            ``patient`` (int, position in :attr:`patients` of this cohort), ``patient_id``, ``study_id``, ``view``,
            ``sex``, ``age`` (years, nan), ``folder``, ``key``.
        """
        label = self.label_matrix(findings, uncertain, seed)
        return [
            {
                "image": str(record.image),
                "label": label[i],
                "patient": int(self.patient_index[i]),
                "patient_id": record.patient_id,
                "study_id": record.study_id,
                "view": record.view,
                "sex": record.sex,
                "age": record.age,
                "folder": record.folder,
                "key": record.key,
            }
            for i, record in enumerate(self.records)
        ]
