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
from gmia_monai.typing import BoolArray

__all__ = ["THREATS", "threat_pairs"]

THREATS = ("T1", "T2", "T3")


def threat_pairs(
    cohort: Cohort,
    threat: str,
    negatives: str = "matched",
    released: BoolArray | None = None,
    negatives_per_positive: int = 50,
    seed: int = 0,
) -> Pairs:
    """Pairs under one threat model; positions are those of the cohort on both sides.

    Args:
        cohort: the real images behind a release with one source an image.
        threat: ``T1``, ``T2`` or ``T3``; see the table above.
        negatives: ``random`` (within the folder) or ``matched`` (also sex, view, age within 5 years; under T2 the
            findings, too, since the attacker has them before the eyes).
        released: which images have a released one; None: all. Others are real images only.
        negatives_per_positive: negatives drawn for each positive, all with the positive's released image.
        seed: of all draws.

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
    if threat == "T3":
        inside = np.flatnonzero(released)
        part = t1_pairs(cohort[inside], negatives, negatives_per_positive, seed=seed)
        first, second, patient = inside[part.first], inside[part.second], cohort.patient_index
        return replace(part, first=first, second=second, patient_first=patient[first], patient_second=patient[second])
    rng = np.random.default_rng(seed)
    if threat == "T2":
        first = second = np.flatnonzero(released)
    else:
        one, two = positives_within(cohort, None, rng)
        first, second = np.concatenate([one, two]), np.concatenate([two, one])
        keep = released[first]
        order = np.argsort(cohort.patient_index[first[keep]], kind="stable")
        first, second = first[keep][order], second[keep][order]
    match_findings = threat == "T2" and negatives == "matched"
    return with_negatives(cohort, first, second, first, negatives, negatives_per_positive, match_findings, rng)
