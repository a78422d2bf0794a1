"""Pairs of released and real images for the threat models of protocol v1.

=====  ===============  =======================  =========================================================
model  first            second                   the attacker holds
=====  ===============  =======================  =========================================================
T1     released image   real image               another image of the same person: re-identification
T2     released image   real image               the very source of the released image
T3     released image   released image           nothing but the release
=====  ===============  =======================  =========================================================
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from gmia_monai.data.cohort import Cohort
from gmia_monai.data.pairs import NEGATIVES, Pairs, positives_within, t1_pairs, with_negatives
from gmia_monai.errors import UsageError
from gmia_monai.typing import BoolArray, IntArray

__all__ = ["THREATS", "threat_pairs"]

THREATS = ("T1", "T2", "T3")


def threat_pairs(
    cohort: Cohort,
    threat: str,
    negatives: str = "matched",
    released: BoolArray | None = None,
    negatives_per_positive: int = 50,
    seed: int = 0,
    balanced: bool = True,
) -> Pairs:
    """Pairs under one threat model; positions are those of the cohort on both sides.

    Args:
        cohort: the real images behind a release with one source an image.
        threat: ``T1``, ``T2`` or ``T3``; see the table above.
        negatives: ``random`` (within the folder) or ``matched``: the stranger's image also has the sex and the view of
            the one that it stands in for, and its age within 5 years; under T2 the findings, too, since the attacker
            has them before the eyes.
        released: which images have a released one; None: all. Others are real images only.
        negatives_per_positive: negatives drawn for each positive, all with the positive's released image; the other
            image has a positive of its own, too.
        seed: of all draws.
        balanced: weigh pairs so that one image alone tells nothing; else patients weigh alike among positives, and
            pairs among negatives.

    Raises:
        UsageError: ``GM-U304`` for another threat model, ``GM-U038`` for other negatives, ``GM-U305`` where
            ``released`` does not fit.
    """
    if threat not in THREATS:
        raise UsageError("GM-U304", "unknown threat model", got=threat, expected=THREATS)
    if negatives not in NEGATIVES:
        raise UsageError("GM-U038", "unknown kind of negatives", got=negatives, expected=NEGATIVES)
    released = np.ones(len(cohort), dtype=bool) if released is None else np.asarray(released, dtype=bool)
    if released.shape != (len(cohort),):
        raise UsageError("GM-U305", "released and cohort do not fit", got=released.shape, expected=len(cohort))
    rng = np.random.default_rng(seed)
    one, two = positives_within(cohort, None, rng)
    if threat == "T3":
        keep = released[one] & released[two]
        inside = np.unique([one[keep], two[keep]])
        part = t1_pairs(cohort[inside], negatives, negatives_per_positive, seed=seed, balanced=balanced)
        return _moved(part, inside, cohort)
    if threat == "T2":
        first = second = np.flatnonzero(released)
    else:
        first, second = np.concatenate([one, two]), np.concatenate([two, one])
        keep = released[first]
        order = np.argsort(cohort.patient_index[first[keep]], kind="stable")
        first, second = first[keep][order], second[keep][order]
    # an image without a positive could not be balanced among the negatives
    inside = np.unique([first, second])
    first, second = np.searchsorted(inside, first), np.searchsorted(inside, second)
    findings = threat == "T2" and negatives == "matched"
    drawn = (negatives, negatives_per_positive, findings, rng)
    as_they_are = np.zeros(len(first), dtype=bool)
    part = with_negatives(cohort[inside], first, second, as_they_are, *drawn, ordered=True, balanced=balanced)
    return _moved(part, inside, cohort)


def _moved(pairs: Pairs, inside: IntArray, cohort: Cohort) -> Pairs:
    """Pairs of ``cohort[inside]`` as pairs of the cohort."""
    first, second, patient = inside[pairs.first], inside[pairs.second], cohort.patient_index
    return replace(pairs, first=first, second=second, patient_first=patient[first], patient_second=patient[second])
