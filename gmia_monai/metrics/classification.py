"""Multi-label findings: AUROC and average precision of each, macro means, patient-cluster intervals.

A label of ``nan`` is unknown and left out for its finding. Only findings with enough positive images are averaged.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float, Shaped

from gmia_monai.errors import UsageError
from gmia_monai.metrics.intervals import patient_bootstrap
from gmia_monai.metrics.limits import Interval
from gmia_monai.metrics.verification import SortedScores

__all__ = ["FindingScore", "FindingScores", "score_findings"]


@dataclass(frozen=True)
class FindingScore:
    """One finding: AUROC and average precision in [0, 1], numbers of positive and of known labels."""

    name: str
    auroc: float
    average_precision: float
    n_positive: int
    n_known: int


@dataclass(frozen=True)
class FindingScores:
    """All findings and their macro means.

    Attributes:
        findings: those that were scored, in the order given.
        left_out: findings with too few positives (or no negatives), with their number of positives.
    """

    findings: list[FindingScore]
    macro_auroc: Interval
    macro_average_precision: Interval
    left_out: dict[str, int] = field(default_factory=dict)


class _Column:
    """One finding's known images, sorted once."""

    def __init__(self, scores: Float[np.ndarray, "n"], labels: Float[np.ndarray, "n"]) -> None:
        self.known = np.flatnonzero(~np.isnan(labels))
        self.n_positive = int((labels[self.known] > 0.5).sum())
        self.sorted = SortedScores(scores[self.known], labels[self.known] > 0.5)

    def auroc(self, weights: Float[np.ndarray, "n"]) -> float:
        return self.sorted.auc(weights[self.known])

    def average_precision(self, weights: Float[np.ndarray, "n"]) -> float:
        return self.sorted.average_precision(weights[self.known])


def score_findings(
    scores: Float[np.ndarray, "n findings"],
    labels: Float[np.ndarray, "n findings"],
    findings: Sequence[str],
    patients: Shaped[np.ndarray, "n"],
    min_positives: int = 30,
    n_boot: int = 1000,
    seed: int = 0,
) -> FindingScores:
    """Score a multi-label classifier.

    Args:
        scores: logits or probabilities, finite.
        labels: 0, 1 or ``nan`` for unknown.
        findings: names of the columns.
        patients: patient of each image.
        min_positives: positive images that a finding needs to be averaged.
        n_boot: number of bootstrap resamples of patients; 0 gives ``nan`` limits.
        seed: seed of the resamples.

    Raises:
        UsageError: GM-U241 where shapes do not fit, GM-U242 where no finding has enough positives.
    """
    scores, labels = np.asarray(scores, dtype=np.float64), np.asarray(labels, dtype=np.float64)
    if scores.shape != labels.shape or scores.shape != (len(patients), len(findings)):
        raise UsageError(
            "GM-U241",
            "scores, labels, patients and findings do not fit",
            got=f"{scores.shape}, {labels.shape}, {len(patients)} patients, {len(findings)} findings",
        )
    columns: dict[str, _Column] = {}
    left_out: dict[str, int] = {}
    for index, name in enumerate(findings):
        column = _Column(scores[:, index], labels[:, index])
        if column.n_positive >= max(min_positives, 1) and column.n_positive < len(column.known):
            columns[name] = column
        else:
            left_out[name] = column.n_positive
    if not columns:
        raise UsageError("GM-U242", "no finding has enough positive images", expected=f"at least {min_positives}")
    ones = np.ones(len(scores))
    table = [
        FindingScore(name, c.auroc(ones), c.average_precision(ones), c.n_positive, len(c.known))
        for name, c in columns.items()
    ]
    chosen = list(columns.values())
    auroc = patient_bootstrap(lambda w: float(np.mean([c.auroc(w) for c in chosen])), patients, n_boot, seed)
    precision = patient_bootstrap(
        lambda w: float(np.mean([c.average_precision(w) for c in chosen])), patients, n_boot, seed
    )
    return FindingScores(table, auroc, precision, left_out)
