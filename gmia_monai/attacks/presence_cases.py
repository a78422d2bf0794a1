"""Who is asked for in a presence attack: members and non-members of one sort, and the image that is held of each.

==================  ==============================================  ==============================================
release             members                                         non-members
==================  ==============================================  ==============================================
of one or k         patients with a source other than the image     patients without a source
sources             held
of a generator      half of the patients that it was trained on;    patients of the judged cohort
                    the other half is asked for on V2
==================  ==============================================  ==============================================

The image held is one by hash; a member of a generator's training set is held by an image that it was trained on.
Released images that were made from the very image held are not looked at. Where more than half of the patients are
among the sources, as in a release of a whole cohort, patients are left out with all released images that they are a
source of, in the order of a hash, until half of the patients are in none that remains.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int

from gmia_monai.attacks.base import Judged, Pixels, TooLittleDataError
from gmia_monai.data.cohort import Cohort
from gmia_monai.data.release import RealImages

__all__ = ["PresenceCase", "halves", "presence_case"]

_SPLIT_SEED = 0


@dataclass(frozen=True, eq=False)
class PresenceCase:
    """What is asked of a release.

    Attributes:
        patients: identifiers of the patients that are asked for.
        held: the real image that the attacker holds of each, in [0, 1].
        held_at: its position among the real images that are judged; empty for a generated release.
        member: whether the patient is among the sources of ``images``, or was one that the generator learned from.
        images: positions of the released images that are attacked.
        own: whether a released image was made from the very image held; those pairs are not looked at.
        of_one_sort: whether members are patients like the others but for the release; False where attackers, too, may
            have learned from them.
    """

    patients: tuple[str, ...]
    held: Pixels
    held_at: Int[np.ndarray, "h"]
    member: Bool[np.ndarray, "p"]
    images: Int[np.ndarray, "r"]
    own: Bool[np.ndarray, "r p"]
    of_one_sort: bool = True


def presence_case(judged: Judged, members: RealImages | None = None, seed: int = _SPLIT_SEED) -> PresenceCase:
    """Members, non-members and the image that is held of each.

    The image held of a patient is one by hash; a member of a release with sources has another one among them.
    Non-members of such a release, too, must have two images: so both kinds are patients of one sort.

    Args:
        judged: the release.
        members: images that a generator was trained on; asked of generated releases alone.
        seed: of the hash that chooses images and patients.

    Raises:
        UsageError: ``GM-U324`` where either kind has fewer than two patients, or ``members`` lack.
    """
    case = _generated_case(judged, members, seed) if judged.release.kind == "generated" else _sourced_case(judged, seed)
    n_members, n_others = int(case.member.sum()), int((~case.member).sum())
    if min(n_members, n_others) < 2:
        raise TooLittleDataError(
            "GM-U324",
            "presence needs patients with two images who are among the sources, and such who are not",
            got=f"{n_members} and {n_others}",
            next_step="give --real more patients than were released",
        )
    return case


def _sourced_case(judged: Judged, seed: int) -> PresenceCase:
    cohort, release = judged.real.cohort, judged.release
    patients_of = release.source_patients(cohort)
    counts = np.bincount(cohort.patient_index)
    held = _held(cohort, np.flatnonzero(counts >= 2), seed)
    gone = _left_out(patients_of, sorted(held, key=lambda p: _hash(cohort.patients[p], seed)))
    images = [i for i in range(len(release)) if i not in gone]
    named = {p for i in images for p in patients_of[i]}
    present = {p for i in images for p in patients_of[i] & held.keys() if held[p] not in release.sources[i]}
    asked = [p for p in held if p in present or p not in named]
    column = {held[p]: k for k, p in enumerate(asked)}
    own = np.zeros((len(images), len(asked)), dtype=bool)
    for row, i in enumerate(images):
        own[row, [column[s] for s in release.sources[i] if s in column]] = True
    return PresenceCase(
        tuple(cohort.patients[p] for p in asked),
        judged.real.pixels[[held[p] for p in asked]],
        np.array([held[p] for p in asked], dtype=np.int64),
        np.array([p in present for p in asked], dtype=bool),
        np.array(images, dtype=np.int64),
        own,
    )


def _left_out(patients_of: Sequence[set[int]], patients: Sequence[int]) -> set[int]:
    """Released images that go, with one patient after the other, until at most half of the patients remain."""
    images_of: dict[int, list[int]] = {p: [] for p in patients}
    for i, sources in enumerate(patients_of):
        for p in sources & images_of.keys():
            images_of[p].append(i)
    remaining = {p: len(images) for p, images in images_of.items() if images}
    gone: set[int] = set()
    for p in patients:
        if 2 * len(remaining) <= len(patients) + 1:
            break
        for i in images_of[p]:
            if i in gone:
                continue
            gone.add(i)
            for q in patients_of[i] & remaining.keys():
                remaining[q] -= 1
                if not remaining[q]:
                    del remaining[q]
    return gone


def _generated_case(judged: Judged, members: RealImages | None, seed: int) -> PresenceCase:
    if members is None:
        raise TooLittleDataError(
            "GM-U324",
            "presence in a generated release needs images that the generator was trained on",
            next_step="give images of the training role",
        )
    sides = (members, judged.real)
    held = [list(_held(side.cohort, range(len(side.cohort.patients)), seed).values()) for side in sides]
    n = [len(h) for h in held]
    return PresenceCase(
        sum((side.cohort.patients for side in sides), ()),
        np.concatenate([side.pixels[h] for side, h in zip(sides, held, strict=True)]),
        np.zeros(0, dtype=np.int64),
        np.repeat([True, False], n),
        np.arange(len(judged.release)),
        np.zeros((len(judged.release), sum(n)), dtype=bool),
        of_one_sort=False,
    )


def _held(cohort: Cohort, patients: Iterable[int], seed: int) -> dict[int, int]:
    """For each of these patients the position of the image that the attacker holds."""
    positions: dict[int, list[int]] = {int(p): [] for p in patients}
    for i, p in enumerate(cohort.patient_index.tolist()):
        if p in positions:
            positions[p].append(i)
    return {p: min(found, key=lambda i: _hash(cohort[i].key, seed)) for p, found in positions.items()}


def halves(real: RealImages, seed: int = _SPLIT_SEED) -> tuple[RealImages, RealImages]:
    """The images of two halves of the patients, by hash."""
    patients = real.cohort.patients
    order = sorted(range(len(patients)), key=lambda p: _hash(patients[p], seed))
    first = np.isin(real.cohort.patient_index, order[: len(order) // 2])
    return real.take(np.flatnonzero(first)), real.take(np.flatnonzero(~first))


def _hash(text: str, seed: int) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed}:{text}".encode()).digest()[:8], "big")
