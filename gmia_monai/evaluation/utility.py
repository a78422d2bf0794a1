"""Diagnostic content: what one classifier still sees, and all that the protocol asks of a release's usefulness."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from gmia_monai.attacks.base import Judged
from gmia_monai.data.cohort import Cohort
from gmia_monai.data.release import RealImages
from gmia_monai.evaluation.classifiers import TransferRecipe
from gmia_monai.evaluation.fidelity import evaluate_fidelity
from gmia_monai.evaluation.transfer import evaluate_transfer
from gmia_monai.metrics.classification import score_findings
from gmia_monai.metrics.results import Result, RunContext
from gmia_monai.networks.utility import UtilityNet
from gmia_monai.typing import PathLike

__all__ = ["SMALL_RECIPES", "evaluate_utility", "predict_logits", "utility_lines", "utility_list"]

# At 64 px: the architecture in the loss, and an unlike one.
SMALL_RECIPES = (
    TransferRecipe("small"),
    TransferRecipe("small_densenet", steps=600, lr=4e-3, dropout=0.0, validate_every=100),
)


def utility_list(cohort: Cohort, n_images: int = 3000) -> Cohort:
    """The images that classifiers learn from: those with the smallest SHA-256 of their key, in the order of the cohort.

    Take them of the core of role S, so that a patient has at most four.
    """
    digests = [hashlib.sha256(record.key.encode("utf-8")).digest() for record in cohort]
    return cohort[np.array(sorted(sorted(range(len(cohort)), key=digests.__getitem__)[:n_images]), dtype=np.int64)]


def utility_lines(
    training: Judged,
    judged: Judged,
    choice: RealImages,
    context: RunContext,
    *,
    cache_dir: PathLike,
    networks: Mapping[str, UtilityNet],
    findings: Sequence[str] = (),
    perceptual: Mapping[str, nn.Module] | None = None,
    recipes: Sequence[TransferRecipe] = SMALL_RECIPES,
    seeds: Sequence[int] = (0, 1, 2, 3, 4),
    n_boot: int = 500,
    device: str = "cpu",
) -> list[Result]:
    """Fidelity of the release of the test role, then transfer in both directions.

    Args:
        training: release of the training list; see :func:`utility_list`.
        judged: release of the test role.
        choice: real images of role V2.
        context: what the result lines share.
        cache_dir: as :func:`gmia_monai.evaluation.transfer.evaluate_transfer`, which says what is raised, too.
        networks: as :func:`gmia_monai.evaluation.fidelity.evaluate_fidelity`, which says what is raised, too.
        findings: names of the logits of ``networks``.
        perceptual: distances by name.
        recipes: one an architecture: the one in the loss, and another.
        seeds: of the classifiers.
        n_boot: bootstrap resamples.
        device: where networks run.
    """
    results = evaluate_fidelity(
        judged, context, networks=networks, findings=findings, perceptual=perceptual, n_boot=n_boot, device=device
    )
    return results + evaluate_transfer(
        training, judged, choice, recipes, context, cache_dir=cache_dir, seeds=seeds, n_boot=n_boot, device=device
    )


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
