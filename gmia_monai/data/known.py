"""What is known of an image besides its pixels, as numbers: findings, view, sex, age."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float32

from gmia_monai.data.cohort import Cohort
from gmia_monai.errors import UsageError

__all__ = ["FACTS", "known_facts", "known_of_cohort"]

FACTS = ("view_AP", "sex_M", "age_decades", "age_decades_squared")


def known_facts(findings: Sequence[str], facts: bool = True) -> list[str]:
    """Names of the columns of :func:`known_of_cohort`."""
    return [*findings, *(FACTS if facts else ())]


def known_of_cohort(cohort: Cohort, known: Sequence[str]) -> Float32[np.ndarray, "n k"]:
    """What is known of each image, ``[n, len(known)]`` float32: findings as 0 or 1 (unknown ones as absent), view AP,
    male sex, and age in decades from 50 and its square; what the record does not say counts half way, or as 50 years.

    Raises:
        UsageError: ``GM-U309`` where the records hold none of the findings.
    """
    findings = [name for name in known if name not in FACTS]
    if findings and not set(findings) & set(cohort.findings or ()):
        raise UsageError(
            "GM-U309", "the images have no findings to draw by", expected=", ".join(findings[:3]) + ", …",
            next_step="give a manifest with labels",
        )  # fmt: skip
    present = [name for name in findings if name in (cohort.findings or ())]
    labels = np.nan_to_num(cohort.label_matrix(present, "zeros"))
    table = {name: labels[:, k] for k, name in enumerate(present)}
    decades = np.array([0.0 if np.isnan(r.age) else (r.age - 50.0) / 10.0 for r in cohort])
    table["view_AP"] = np.array([{"AP": 1.0, "PA": 0.0}.get(r.view, 0.5) for r in cohort])
    table["sex_M"] = np.array([{"M": 1.0, "F": 0.0}.get(r.sex, 0.5) for r in cohort])
    table["age_decades"], table["age_decades_squared"] = decades, decades**2
    zeros = np.zeros(len(cohort))
    return np.stack([table.get(name, zeros) for name in known], axis=1).astype(np.float32)
