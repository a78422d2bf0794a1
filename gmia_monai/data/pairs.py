"""Pairs of images for verification: threat model T1, another image of the same person (protocol v1, "Pairs").

Positives are all pairs of different images of one patient within one folder, each patient of equal weight. For each
positive one of its images meets strangers that stand in for the other one: at random within the folder, or with the
other one's sex, view and age, because those alone tell many patients apart. It is the other one that they have to
match: the two images of a patient often differ in view or age, and strangers who match the image at hand never would,
so that a difference would say "same person". Their weights are those of
:func:`gmia_monai.data.balance.balanced_weights`: each image is as frequent among negatives as among positives, so that
it takes both images of a pair to tell one from the other. Two images of a person are often of nearly one age, while
strangers who match may be five years from that: matched negatives weigh so that years between are as frequent among
them as among positives, except where findings are matched, too, which leaves too few for that.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from gmia_monai.data.balance import balanced_weights
from gmia_monai.data.cohort import Cohort
from gmia_monai.errors import UsageError
from gmia_monai.typing import BoolArray, FloatArray, IntArray

__all__ = ["MAX_AGE_GAP_YEARS", "NEGATIVES", "N_GAPS", "PAIRS_VERSION", "Pairs", "age_gaps", "t1_pairs"]

# Of how pairs are drawn and weighed: what was found with another is not taken for this one's.
PAIRS_VERSION = 3

MAX_AGE_GAP_YEARS = 5.0
NEGATIVES = ("random", "matched")
_GAPS = (0.5, 1.5, 2.5, 3.5, 4.5, MAX_AGE_GAP_YEARS + 0.5, 10.5)
N_GAPS = len(_GAPS) + 2
_Key = TypeVar("_Key", bound=Hashable)


@dataclass(frozen=True, eq=False, repr=False)
class Pairs:
    """Pairs of images of one cohort; all arrays have the length of the list of pairs.

    Attributes:
        first: index of an image in the cohort. Of a negative it is one of a positive's.
        second: index of another image. Of a negative it stands in for the positive's other one.
        same: whether both are of one patient.
        weight: positives sum to 1, each patient alike as far as negatives can be found; negatives sum to 1, with each
            image's share among the positives, and that of the years between where they are matched. Images without a
            positive weigh nothing.
        patient_first: position of the patient of ``first`` in ``cohort.patients``.
        patient_second: the same for ``second``.
        negatives: ``random`` or ``matched``.
        n_wanted: negatives that were asked for.
        n_short: positives for which fewer negatives exist than were asked for; all that exist were taken.
        weight_moved: share of the positives' weight that went to other positives, for lack of negatives.
        unbalanced: what is left of the difference between images' shares, 0 to 1.
    """

    first: IntArray
    second: IntArray
    same: BoolArray
    weight: FloatArray
    patient_first: IntArray
    patient_second: IntArray
    negatives: str
    n_wanted: int
    n_short: int
    weight_moved: float
    unbalanced: float

    def __len__(self) -> int:
        return len(self.first)

    def __repr__(self) -> str:
        return (
            f"Pairs({self.n_positives} positives, {self.n_negatives} of {self.n_wanted} {self.negatives} negatives, "
            f"{self.n_short} positives short of negatives)"
        )

    @property
    def n_positives(self) -> int:
        """Pairs of one patient."""
        return int(self.same.sum())

    @property
    def n_negatives(self) -> int:
        """Pairs of two patients."""
        return len(self) - self.n_positives

    @property
    def counted(self) -> BoolArray:
        """Which pairs weigh anything."""
        return self.weight > 0

    def facts(self) -> dict[str, object]:
        """What a result line says of its pairs: those that count, and how far their weights are from equal ones."""
        negative = self.weight[~self.same]
        return {
            "n_positive_pairs": int((self.same & self.counted).sum()),
            "n_negative_pairs": int((~self.same & self.counted).sum()),
            "n_negative_pairs_effective": round(float(negative.sum() ** 2 / max(np.square(negative).sum(), 1e-300))),
            "weight_moved": round(self.weight_moved, 6),
            **({"unbalanced": round(self.unbalanced, 6)} if self.unbalanced > 1e-4 else {}),
        }

    @property
    def n_positive_images(self) -> int:
        """Images in a positive that counts."""
        kept = self.same & self.counted
        return len(np.unique([self.first[kept], self.second[kept]]))

    @property
    def n_positive_patients(self) -> int:
        """Patients who have a positive that counts: what an interval rests on."""
        return len(np.unique(self.patient_first[self.same & self.counted]))


def t1_pairs(
    cohort: Cohort,
    negatives: str = "random",
    negatives_per_positive: int = 50,
    max_positives_per_patient: int | None = None,
    match_findings: bool = False,
    seed: int = 0,
    balanced: bool = True,
) -> Pairs:
    """Positives and negatives of threat model T1.

    Args:
        cohort: images.
        negatives: ``random``: any image of another patient in the same folder. ``matched``: also of the sex and view of
            the image that it stands in for, and at most 5 years from its age. What is not known is matched to what is
            not known.
        negatives_per_positive: negatives drawn for each positive, without replacement: an image never meets the same
            other image twice as ``first``. Where fewer exist, all are taken, and :class:`Pairs` counts those positives.
            Which of the positive's two images is stood in for, is drawn at random. Patients with long series have more
            negatives, too: ``max_positives_per_patient`` or :meth:`Cohort.core` bound that.
        max_positives_per_patient: at most so many positives of a patient, drawn at random; None: all.
        match_findings: match on the set of findings that are present, too (for threat model T2).
        seed: of all draws.
        balanced: see :func:`gmia_monai.data.threats.threat_pairs`.

    Returns:
        positives first, ordered by patient; then negatives, in the order of the positives.

    Raises:
        UsageError: ``GM-U038`` for an unknown kind of negatives or a number below its minimum.
    """
    if negatives not in NEGATIVES:
        raise UsageError("GM-U038", "unknown kind of negatives", got=negatives, expected=NEGATIVES)
    if negatives_per_positive < 0 or (max_positives_per_patient is not None and max_positives_per_patient < 1):
        raise UsageError("GM-U038", "numbers of pairs must be positive")
    rng = np.random.default_rng(seed)
    first, second = positives_within(cohort, max_positives_per_patient, rng)
    swapped = rng.random(len(first)) < 0.5
    drawn = (negatives, negatives_per_positive, match_findings, rng)
    return with_negatives(cohort, first, second, swapped, *drawn, ordered=False, balanced=balanced)


def with_negatives(
    cohort: Cohort,
    first: IntArray,
    second: IntArray,
    swapped: BoolArray,
    negatives: str,
    negatives_per_positive: int,
    match_findings: bool,
    rng: np.random.Generator,
    ordered: bool,
    balanced: bool = True,
) -> Pairs:
    """Positives ``first``, ``second`` with negatives: strangers for ``first`` that stand in for ``second``, or, where
    ``swapped``, the reverse.

    ``ordered``: the two places are of different kinds, as a released and a real image. Not ``balanced``: patients weigh
    alike among positives, and pairs among negatives.
    """
    patient = cohort.patient_index
    kept, replaced = np.where(swapped, second, first), np.where(swapped, first, second)
    of, negative_second = _strangers(cohort, kept, replaced, negatives, negatives_per_positive, match_findings, rng)
    negative_first, count = kept[of], np.bincount(of, minlength=len(first))
    per_patient = np.bincount(patient[first], minlength=len(cohort.patients))
    alike = 1.0 / (per_patient[patient[first]] * max(np.count_nonzero(per_patient), 1))
    positive_weight = alike
    negative_weight, unbalanced = np.full(len(of), 1.0 / max(len(of), 1)), 0.0
    if balanced:
        kinds = None
        if negatives == "matched" and not match_findings:
            kinds = age_gaps(cohort, first, second), age_gaps(cohort, negative_first, negative_second)
        positive_weight, negative_weight, unbalanced = balanced_weights(
            (first, second),
            alike,
            (negative_first, negative_second),
            alike[of] / count[of],  # those of a positive weigh together what it weighs
            max(len(cohort), N_GAPS),
            ordered,
            kinds,
        )
    all_first = np.concatenate([first, negative_first])
    all_second = np.concatenate([second, negative_second])
    return Pairs(
        first=all_first,
        second=all_second,
        same=np.arange(len(all_first)) < len(first),
        weight=np.concatenate([positive_weight, negative_weight]),
        patient_first=patient[all_first],
        patient_second=patient[all_second],
        negatives=negatives,
        n_wanted=len(first) * negatives_per_positive,
        n_short=int((count < negatives_per_positive).sum()),
        weight_moved=0.5 * float(np.abs(positive_weight - alike).sum()),
        unbalanced=unbalanced,
    )


def age_gaps(cohort: Cohort, first: IntArray, second: IntArray) -> IntArray:
    """Years between the ages of pairs, as a number below :data:`N_GAPS`: whole years to 5, up to 10, more, unknown."""
    gap = np.abs(cohort.ages[first] - cohort.ages[second])
    return np.where(np.isnan(gap), N_GAPS - 1, np.digitize(np.nan_to_num(gap), _GAPS))


def positives_within(cohort: Cohort, limit: int | None, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """All unordered pairs within a patient and folder, at most ``limit`` a patient."""
    by_patient: dict[int, list[tuple[np.ndarray, np.ndarray]]] = {}
    groups = _groups([(int(p), r.folder) for p, r in zip(cohort.patient_index, cohort, strict=True)])
    for (patient, _), members in groups.items():
        if len(members) > 1:
            i, j = np.triu_indices(len(members), k=1)
            by_patient.setdefault(patient, []).append((members[i], members[j]))
    first, second = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    for patient in sorted(by_patient):
        i, j = (np.concatenate(part) for part in zip(*by_patient[patient], strict=True))
        if limit is not None and len(i) > limit:
            keep = np.sort(rng.choice(len(i), size=limit, replace=False))
            i, j = i[keep], j[keep]
        first.append(i)
        second.append(j)
    return np.concatenate(first), np.concatenate(second)


def _strangers(
    cohort: Cohort,
    kept: IntArray,
    replaced: IntArray,
    kind: str,
    per_positive: int,
    match_findings: bool,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """For each positive, images of other patients that match ``replaced``, as many as asked for or as there are; none
    meets the same ``kept`` image twice. Position of the positive, and the image."""
    matched = kind == "matched"
    ages = np.where(np.isnan(cohort.ages), 0.0, cohort.ages) if matched else np.zeros(len(cohort))
    keys: list[Hashable] = []
    for record in cohort:
        key: tuple[Hashable, ...] = (record.folder,)
        if matched:
            key += (record.sex, record.view, math.isnan(record.age))
        if match_findings:
            key += (None if record.labels is None else frozenset(name for name, value in record.labels if value == 1),)
        keys.append(key)
    patient, group_of = cohort.patient_index, {}
    for members in _groups(keys).values():
        # sorted by age, the matches of an image are one stretch
        members = members[np.argsort(ages[members], kind="stable")]
        group_of.update(dict.fromkeys(members.tolist(), members))
    met: dict[int, list[np.ndarray]] = {}
    found = [np.empty(0, np.int64)]
    for image, other in zip(kept.tolist(), replaced.tolist(), strict=True):
        members = group_of[other]
        start = np.searchsorted(ages[members], ages[other] - MAX_AGE_GAP_YEARS, side="left")
        stop = np.searchsorted(ages[members], ages[other] + MAX_AGE_GAP_YEARS, side="right")
        before = met.setdefault(image, [])
        strangers = members[start:stop]
        strangers = strangers[patient[strangers] != patient[other]]
        if before:
            strangers = np.setdiff1d(strangers, np.concatenate(before), assume_unique=True)
        before.append(rng.choice(strangers, size=min(per_positive, len(strangers)), replace=False))
        found.append(before[-1])
    of = np.repeat(np.arange(len(kept)), [len(images) for images in found[1:]])
    return of, np.concatenate(found)


def _groups(keys: Sequence[_Key]) -> dict[_Key, np.ndarray]:
    """Positions of equal keys, ascending, in order of first appearance."""
    groups: dict[_Key, list[int]] = {}
    for i, key in enumerate(keys):
        groups.setdefault(key, []).append(i)
    return {key: np.array(members, dtype=np.int64) for key, members in groups.items()}
