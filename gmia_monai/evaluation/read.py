"""Reading what is judged: real images of a cohort, and a release with its links."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import Float32

from gmia_monai.data.cohort import Cohort
from gmia_monai.data.labels import Labels, findings_of, label_matrix, parse_labels
from gmia_monai.data.release import RealImages, Release
from gmia_monai.data.table import read_columns
from gmia_monai.dicom.pseudonyms import links_path
from gmia_monai.errors import InputError, ManifestError, UsageError
from gmia_monai.evaluation.links import Links, read_links
from gmia_monai.transforms.boxes import square_box
from gmia_monai.transforms.readers import SUFFIXES, read_radiograph
from gmia_monai.transforms.resample import resize_image
from gmia_monai.typing import PathLike

__all__ = [
    "ReleasedLabels",
    "find_links",
    "read_labels",
    "read_pixels",
    "read_real",
    "read_release",
    "release_files",
]

_log = logging.getLogger(__name__)
_EVERY = 2000


@dataclass(frozen=True, repr=False)
class ReleasedLabels:
    """Findings that come with released images.

    Attributes:
        findings: those that the table names, sorted.
        labels: by handle; None where nobody looked.
    """

    findings: tuple[str, ...]
    labels: Mapping[str, Labels | None] = field(repr=False)

    def matrix(self, handles: Sequence[str]) -> Float32[np.ndarray, "n k"]:
        """1 present, 0 absent, nan where unknown or uncertain, a row a handle."""
        return label_matrix([self.labels.get(handle) for handle in handles], self.findings, "ignore")


def read_pixels(path: PathLike, image_size: int) -> Float32[np.ndarray, "1 h w"]:
    """One image as the networks see it: centred square, scaled to ``image_size``.

    Raises:
        InputError: as :func:`gmia_monai.transforms.read_radiograph`.
    """
    image, _ = read_radiograph(Path(path))
    box = square_box(*image.shape)
    square = image[box.top : box.top + box.height, box.left : box.left + box.width]
    return resize_image(square, (image_size, image_size)).astype(np.float32)[None]


def read_real(cohort: Cohort, image_size: int, known: RealImages | None = None) -> RealImages:
    """All images of a cohort; those that ``known`` holds at this size are not read again.

    Raises:
        InputError: the first image that cannot be read.
    """
    pixels = np.empty((len(cohort), 1, image_size, image_size), dtype=np.float32)
    row = {} if known is None else {record.image: i for i, record in enumerate(known.cohort)}
    for i, record in enumerate(cohort):
        at = row.get(record.image)
        pixels[i] = read_pixels(record.image, image_size) if at is None or known is None else known.pixels[at]
        if (i + 1) % _EVERY == 0:
            _log.info("%d of %d real images read", i + 1, len(cohort))
    return RealImages(cohort, pixels)


def release_files(folder: PathLike) -> list[tuple[str, Path]]:
    """Handle and path of each file of a release, in it or in its ``images/``; sorted by path.

    The handle is the name without the suffix of an image format: a UID has dots of its own.

    Raises:
        UsageError: ``GM-U320`` no such folder or no file in it.
    """
    folder = Path(folder)
    inside = folder / "images" if (folder / "images").is_dir() else folder
    if not inside.is_dir():
        raise UsageError("GM-U320", "the release is not there", got=folder.name, next_step="check --released")
    paths = sorted(p for p in inside.iterdir() if p.is_file() and not p.name.startswith("."))
    if not paths:
        raise UsageError("GM-U320", "no released image there", got=folder.name, next_step="check --released")
    return [(_handle(path.name), path) for path in paths]


def find_links(folder: PathLike, links: PathLike | None, cohort: Cohort) -> Links | None:
    """The links that are given, else those beside the release, else None.

    Raises:
        UsageError: ``GM-U321``, ``GM-U322`` as :func:`gmia_monai.evaluation.links.read_links`.
    """
    beside = links_path(folder)
    links = beside if links is None and beside.is_file() else links
    return None if links is None else read_links(links, cohort)


def read_labels(path: PathLike, handles: Collection[str], findings: Sequence[str]) -> ReleasedLabels:
    """Findings that are released with the images: a table with the columns ``handle`` and ``labels``.

    Args:
        path: the table; its labels are written as in manifests.
        handles: of the released images.
        findings: that the real images' labels name.

    Raises:
        UsageError: ``GM-U371`` for a table that is not there or cannot be used, a handle twice or of no released image,
            or findings none of which the real images have.
    """
    path, found, strangers = Path(path), {}, 0
    known = set(handles)
    try:
        for number, row in read_columns(path, ("handle", "labels")):
            if not row["handle"] or row["handle"] in found:
                what = "is there twice" if row["handle"] else "is empty"
                raise UsageError("GM-U371", "unusable labels", got=f"the handle of row {number} {what}")
            found[row["handle"]] = parse_labels(row["labels"])
            strangers += row["handle"] not in known
    except ManifestError as error:
        raise UsageError(
            "GM-U371",
            f"unusable labels: {error.what}",
            got=error.got,
            expected="a CSV with the columns handle and labels",
            next_step=error.next_step or "check --labels",
        ) from error
    if strangers:
        raise UsageError(
            "GM-U371",
            "labels of images that the release does not hold",
            got=f"{strangers} of {len(found)} handles",
            expected="names of released images without their suffix",
            next_step="check --labels and --released",
        )
    named = findings_of(found.values())
    if not set(named) & set(findings):
        raise UsageError(
            "GM-U371",
            "the labels name no finding of the real images",
            got=f"{len(named)} other findings",
            expected=", ".join(findings) or "real images with labels",
            next_step="name findings in --labels as the real images' labels do",
        )
    return ReleasedLabels(named, found)


def read_release(
    cohort: Cohort,
    folder: PathLike,
    image_size: int,
    links: PathLike | Links | None = None,
    system: str = "",
    policy: str = "",
    labels: ReleasedLabels | None = None,
) -> Release:
    """A folder of released images, e.g. the output of the anonymization workflow.

    Args:
        cohort: the real images that it was made from.
        folder: released images, in it or in its ``images/``; their names without suffix are the handles.
        image_size: what the attackers look at.
        links: CSV with ``handle`` and ``image`` (the key of the record, or its file name); several rows of one handle
            are several sources. None: ``<folder>.links.csv`` where that exists; without links a release counts as
            generated. For a part of a cohort: what :func:`find_links` found for all of it, since a file name that is
            one patient's here can be another's there.
        system: name for the result lines; that of the folder if empty.
        policy: what the system says of two released images of one patient.
        labels: findings that are released with the images.

    Raises:
        UsageError: ``GM-U320`` no such folder, no image in it or one that cannot be read, ``GM-U321`` unusable links,
            ``GM-U322`` no released image of the cohort.
    """
    files = release_files(folder)
    found = links if isinstance(links, Links) else find_links(folder, links, cohort)
    sources = None if found is None else found.within(cohort)
    files = files if sources is None else [(handle, path) for handle, path in files if handle in sources]
    if not files:
        raise UsageError(
            "GM-U322",
            "no released image of this cohort",
            got=f"none of {len(sources or ())} linked images",
            next_step="check --released, --links and --real",
        )
    pixels = []
    for _, path in files:
        try:
            pixels.append(read_pixels(path, image_size))
        except InputError as error:
            got, mend = f"{path.name}, {error.code}", "make it anew, or take it out of the folder"
            raise UsageError("GM-U320", "a released image cannot be read", got=got, next_step=mend) from error
    made_from = tuple(sources[handle] if sources is not None else () for handle, _ in files)
    _log.info("%d released images, %d with a source", len(pixels), sum(bool(s) for s in made_from))
    return Release(
        system or Path(folder).name,
        np.clip(np.stack(pixels), 0.0, 1.0),
        made_from,
        policy,
        None if labels is None else labels.matrix([handle for handle, _ in files]),
        () if labels is None else labels.findings,
    )


def _handle(name: str) -> str:
    for suffix in sorted(SUFFIXES, key=len, reverse=True):
        if name.lower().endswith(suffix):
            return name[: -len(suffix)]
    return name
