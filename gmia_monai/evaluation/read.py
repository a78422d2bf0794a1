"""Reading what is judged: real images of a cohort, and a release with its links."""

from __future__ import annotations

import csv
import logging
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Float32

from gmia_monai.data.cohort import Cohort
from gmia_monai.data.release import RealImages, Release
from gmia_monai.dicom.pseudonyms import links_path
from gmia_monai.errors import InputError, UsageError
from gmia_monai.transforms.crop import square_box
from gmia_monai.transforms.readers import read_radiograph
from gmia_monai.transforms.resample import resize_image
from gmia_monai.typing import PathLike

__all__ = ["read_pixels", "read_real", "read_release"]

_log = logging.getLogger(__name__)
_EVERY = 2000


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


def read_release(
    cohort: Cohort,
    folder: PathLike,
    image_size: int,
    links: PathLike | None = None,
    system: str = "",
    policy: str = "",
) -> Release:
    """A folder of released images, e.g. the output of the anonymization workflow.

    Args:
        cohort: the real images that it was made from.
        folder: released images, in it or in its ``images/``; their names without suffix are the handles.
        image_size: what the attackers look at.
        links: CSV with ``handle`` and ``image`` (the key of the record, or its file name); several rows of one handle
            are several sources. None: ``<folder>.links.csv`` where that exists; without links a release counts as
            generated.
        system: name for the result lines; that of the folder if empty.
        policy: what the system says of two released images of one patient.

    Raises:
        UsageError: ``GM-U320`` no such folder or no image in it, ``GM-U321`` unusable links, ``GM-U322`` links
            of other images than those of the cohort.
    """
    folder = Path(folder)
    inside = folder / "images" if (folder / "images").is_dir() else folder
    if not inside.is_dir():
        raise UsageError("GM-U320", "the release is not there", got=folder.name, next_step="check --released")
    beside = links_path(folder)
    links = beside if links is None and beside.is_file() else links
    sources = None if links is None else _read_links(Path(links), cohort)
    pixels, names = [], []
    for path in sorted(p for p in inside.iterdir() if p.is_file() and not p.name.startswith(".")):
        handle = path.name.split(".")[0]
        if sources is not None and handle not in sources:
            continue
        try:
            pixels.append(read_pixels(path, image_size))
        except InputError as error:
            raise UsageError("GM-U320", "a released image cannot be read", got=error.code) from error
        names.append(handle)
    if not pixels:
        raise UsageError(
            "GM-U320",
            "no released image of this cohort",
            got=folder.name,
            next_step="check --released, --links and --real",
        )
    found = tuple(sources[name] if sources is not None else () for name in names)
    _log.info("%d released images, %d with a source", len(pixels), sum(bool(s) for s in found))
    return Release(system or folder.name, np.clip(np.stack(pixels), 0.0, 1.0), found, policy)


def _read_links(path: Path, cohort: Cohort) -> dict[str, tuple[int, ...]]:
    """Positions of the sources of each handle; a handle with a source outside the cohort is left out."""
    if not path.is_file():
        raise UsageError("GM-U321", "the links file is not there", got=path.name, next_step="check --links")
    with path.open(newline="", encoding="utf-8") as stream:
        rows: list[Mapping[str, str]] = list(csv.DictReader(stream))
    if not rows or not {"handle", "image"} <= rows[0].keys():
        raise UsageError("GM-U321", "unusable links", got=path.name, expected="columns handle and image")
    places = {record.key: i for i, record in enumerate(cohort)}
    by_file: dict[str, int] = {}
    for i, record in enumerate(cohort):
        by_file[record.image.name] = -1 if record.image.name in by_file else i
    links: dict[str, list[int]] = {}
    for row in rows:
        place = places.get(row["image"], by_file.get(Path(row["image"]).name, -1))
        links.setdefault(row["handle"], []).append(place)
    inside = {handle: tuple(found) for handle, found in links.items() if min(found) >= 0}
    if not inside:
        raise UsageError(
            "GM-U322",
            "no link leads to an image of the cohort",
            got=f"{len(links)} handles",
            next_step="give --real the manifest that was anonymized",
        )
    return inside
