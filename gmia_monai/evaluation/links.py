"""Which real images a released one was made from: a links file, resolved once against all real images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath

import numpy as np

from gmia_monai.data.cohort import Cohort
from gmia_monai.data.table import read_columns
from gmia_monai.errors import ManifestError, UsageError
from gmia_monai.typing import PathLike

__all__ = ["Links", "read_links"]


@dataclass(frozen=True, repr=False)
class Links:
    """Sources of released images, over the cohort of all roles.

    Attributes:
        sources: handle to the image files of its sources; None for one that is not in the cohort, or not clear.
    """

    sources: Mapping[str, tuple[Path | None, ...]] = field(repr=False)

    @cached_property
    def unresolved(self) -> int:
        """Handles with a source that is not in the cohort, or whose file name several images have."""
        return sum(None in found for found in self.sources.values())

    @cached_property
    def several(self) -> dict[str, tuple[Path | None, ...]]:
        """The handles with several sources."""
        return {handle: found for handle, found in self.sources.items() if len(found) > 1}

    def within(self, part: Cohort) -> dict[str, tuple[int, ...]]:
        """Positions in ``part`` of the sources of each handle that has all of them there."""
        place = {record.image: i for i, record in enumerate(part)}
        found = {handle: tuple(place.get(s, -1) if s else -1 for s in those) for handle, those in self.sources.items()}
        return {handle: places for handle, places in found.items() if min(places) >= 0}

    def crossing(self, role: Cohort) -> tuple[int, int]:
        """Of the handles with several sources, one of them in ``role``: how many name one outside, and how many all."""
        images = {record.image for record in role}
        inside = [[s in images for s in found] for found in self.several.values()]
        return sum(any(one) and not all(one) for one in inside), sum(map(any, inside))

    def enlarge(self, part: Cohort, role: Cohort) -> Cohort:
        """``part`` of a role, and all images of the role behind released images with several sources, which a short
        list would cut off; only of those whose first source is of a patient of ``part``, so that a sample stays one.
        Order is that of ``role``."""
        patient = {record.image: record.patient_id for record in role}
        wanted, patients = {record.image for record in part}, set(part.patients)
        for found in self.several.values():
            known = [s for s in found if s is not None and s in patient]
            if len(known) == len(found) and patient[known[0]] in patients:
                wanted.update(known)
        return role[np.array([record.image in wanted for record in role], dtype=bool)]


def read_links(path: PathLike, cohort: Cohort) -> Links:
    """Reads a table with the columns ``handle`` and ``image``; several rows of one handle are several sources.

    An image is named by its key, else by its file name where one image of the cohort, and one of the table, has it:
    a name such as ``view1_frontal.jpg`` says nothing of whose it is.

    Args:
        path: the table.
        cohort: real images of all roles; a part of them would make names unique that are not.

    Raises:
        UsageError: ``GM-U321`` for a table that is not there or cannot be used, ``GM-U322`` where no handle has all its
            sources in the cohort.
    """
    path = Path(path)
    rows: list[tuple[str, str]] = []
    try:
        for number, row in read_columns(path, ("handle", "image")):
            if not (row["handle"] and row["image"]):
                raise UsageError("GM-U321", "unusable links", got=f"row {number} has no handle or no image")
            rows.append((row["handle"], row["image"]))
    except ManifestError as error:
        there = path.is_file()
        raise UsageError(
            "GM-U321",
            f"unusable links: {error.what}" if there else "the links file is not there",
            got=error.got if there else path.name,
            expected="a CSV with the columns handle and image",
            next_step=error.next_step if there else "check --links",
        ) from error
    if not rows:
        raise UsageError("GM-U321", "unusable links: no rows", got=path.name, expected="a row a source")
    by_key = _unique([(record.key, record.image) for record in cohort])
    by_file = _unique([(record.image.name, record.image) for record in cohort])
    for name, texts in _groups([(PurePosixPath(image).name, image) for _, image in rows]).items():
        if len(texts) > 1:
            by_file[name] = None
    sources: dict[str, dict[Path | None, None]] = {}
    for handle, image in rows:
        source = by_key[image] if image in by_key else by_file.get(PurePosixPath(image).name)
        sources.setdefault(handle, {})[source] = None
    links = Links({handle: tuple(found) for handle, found in sources.items()})
    if links.unresolved == len(links.sources):
        raise UsageError(
            "GM-U322",
            "no link leads to an image of the cohort",
            got=f"{len(links.sources)} handles",
            next_step="give --real the manifest that was anonymized",
        )
    return links


def _groups(pairs: list[tuple[str, str]]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for name, text in pairs:
        found.setdefault(name, set()).add(text)
    return found


def _unique(pairs: list[tuple[str, Path]]) -> dict[str, Path | None]:
    """The image of each name; None where several have it."""
    found: dict[str, Path | None] = {}
    for name, image in pairs:
        found[name] = None if name in found else image
    return found
