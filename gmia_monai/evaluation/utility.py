"""Diagnostic content: macro AUROC and average precision of a multi-label classifier on real test images."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from gmia_monai.metrics.classification import score_findings
from gmia_monai.metrics.results import Result, RunContext

__all__ = ["evaluate_utility", "predict_logits"]


@torch.no_grad()
def predict_logits(
    network: Callable[[Tensor], Tensor], images: Float[Tensor, "b 1 h w"], batch_size: int = 64
) -> Float[np.ndarray, "b findings"]:
    """Outputs of a classifier, a batch at a time; the caller puts a network into evaluation mode."""
    return torch.cat([network(batch).float().cpu() for batch in images.split(batch_size)]).numpy()


def evaluate_utility(
    logits: Float[np.ndarray, "b findings"] | Float[Tensor, "b findings"],
    labels: Float[np.ndarray, "b findings"] | Float[Tensor, "b findings"],
    patients: Shaped[np.ndarray, "b"],
    findings: Sequence[str],
    context: RunContext,
    *,
    min_positives: int = 30,
    n_boot: int = 1000,
) -> list[Result]:
    """Score a classifier's outputs.

    Args:
        logits: outputs, or probabilities; only their order within a finding counts.
        labels: 0, 1 or ``nan`` for unknown.
        patients: patient of each image.
        findings: names of the columns.
        context: what the result lines share.
        min_positives: positive test images that a finding needs to enter the mean.
        n_boot: bootstrap resamples of patients.

    Returns:
        ``utility_macro_auroc.v1`` and ``utility_macro_ap.v1``; ``extra`` has each finding's value and number of
        positives, and what was left out.
    """
    scores = score_findings(
        np.asarray(logits), np.asarray(labels), findings, np.asarray(patients), min_positives, n_boot, context.seed
    )
    rows = {
        "utility_macro_auroc.v1": (scores.macro_auroc, {f.name: round(f.auroc, 6) for f in scores.findings}),
        "utility_macro_ap.v1": (
            scores.macro_average_precision,
            {f.name: round(f.average_precision, 6) for f in scores.findings},
        ),
    }
    shared = {
        "n_positive": {f.name: f.n_positive for f in scores.findings},
        "n_known": {f.name: f.n_known for f in scores.findings},
        "left_out": scores.left_out,
        "min_positives": min_positives,
    }
    return [
        context.result(
            name,
            interval,
            n_patients=len(np.unique(patients)),
            n_images=len(labels),
            extra={"per_finding": per_finding} | shared,
        )
        for name, (interval, per_finding) in rows.items()
    ]
