"""Findings as numbers, and the four ways to treat an uncertain one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import Float32

from gmia_monai.errors import UsageError

__all__ = [
    "NO_FINDING",
    "UNCERTAIN",
    "UNCERTAIN_POLICIES",
    "U_ONES",
    "Labels",
    "findings_of",
    "label_matrix",
    "parse_labels",
]

Labels = tuple[tuple[str, float], ...]
NO_FINDING = "No Finding"
UNCERTAIN = -1.0
UNCERTAIN_POLICIES = ("zeros", "ones", "ignore", "soft")
U_ONES = frozenset({"Atelectasis", "Edema"})
_SOFT_ONES, _SOFT_ZEROS = (0.55, 0.85), (0.0, 0.3)


def findings_of(labels: Iterable[Labels | None]) -> tuple[str, ...]:
    """All findings that are named, sorted."""
    return tuple(sorted({name for one in labels if one for name, _ in one}))


def parse_labels(text: str) -> Labels | None:
    """Findings from ``A|?B``: A present, B uncertain. ``No Finding``: none. An empty text: nobody looked (None)."""
    names = [name.strip() for name in text.split("|") if name.strip()]
    if not names:
        return None
    labels = {}
    for name in names:
        finding = name.removeprefix("?").strip()
        if finding and finding != NO_FINDING:
            labels[finding] = UNCERTAIN if name.startswith("?") else 1.0
    return tuple(labels.items())


def label_matrix(
    labels: Sequence[Labels | None], findings: Sequence[str], uncertain: str = "zeros", seed: int = 0
) -> Float32[np.ndarray, "n k"]:
    """Labels of ``n`` images for ``k`` findings.

    Args:
        labels: for each image pairs (finding, value), or None where nobody looked.
        findings: the columns.
        uncertain: what an uncertain label (-1) becomes. ``zeros`` or ``ones``; ``ignore``: nan; ``soft``: the soft
            labels of GMIA (ISBI 2025), uniform in [0.55, 0.85] for atelectasis and edema and in [0, 0.3] for the
            others. The published code draws one scalar a column; here each element has a draw of its own.
        seed: of the soft labels; an image's draws depend on its row, so take the matrix of the whole list at once.

    Returns:
        float32 in [0, 1]. A finding that an image does not name is 0; all are nan where nobody looked (None), so a loss
        has to leave nan out.

    Raises:
        UsageError: ``GM-U032`` if there is no such policy.
    """
    if uncertain not in UNCERTAIN_POLICIES:
        raise UsageError("GM-U032", "unknown way to treat uncertain labels", got=uncertain, expected=UNCERTAIN_POLICIES)
    column = {name: j for j, name in enumerate(findings)}
    matrix = np.zeros((len(labels), len(findings)), dtype=np.float32)
    for i, one in enumerate(labels):
        if one is None:
            matrix[i] = np.nan
            continue
        for name, value in one:
            if name in column:
                matrix[i, column[name]] = value
    doubtful = matrix == UNCERTAIN
    if uncertain == "soft":
        low, high = np.array([_SOFT_ONES if name in U_ONES else _SOFT_ZEROS for name in findings]).reshape(-1, 2).T
        drawn = np.random.default_rng(seed).uniform(low, high, size=matrix.shape)
        matrix[doubtful] = drawn.astype(np.float32)[doubtful]
    else:
        matrix[doubtful] = {"zeros": 0.0, "ones": 1.0, "ignore": np.nan}[uncertain]
    return matrix
