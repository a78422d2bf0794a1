"""How well an encoder tells patients apart on images of other visits (threat model T1), and who is who in a gallery.

Two settings stand side by side: the trial of the protocol (random negatives, at most 20 positive pairs a patient, each
pair of equal weight) and its headline form (matched negatives, all positive pairs, each patient of equal weight among
them).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from gmia_monai.data.cohort import Cohort
from gmia_monai.data.pairs import Pairs, t1_pairs
from gmia_monai.errors import UsageError
from gmia_monai.metrics.intervals import pair_bootstrap, patient_bootstrap
from gmia_monai.metrics.results import Result, RunContext
from gmia_monai.metrics.retrieval import Identification, identify
from gmia_monai.metrics.verification import SortedScores

__all__ = ["embed_images", "evaluate_identity", "pair_cosines"]

TRIAL_POSITIVES = 20
FALSE_ACCEPT_RATE = 0.01
_BALANCED = "positives: patients equal; negatives: each image as often as among positives"


@torch.no_grad()
def embed_images(
    embed: Callable[[Tensor], Tensor], images: Float[Tensor, "b 1 h w"], batch_size: int = 64
) -> Float[np.ndarray, "b d"]:
    """Unit embeddings of images, a batch at a time; the caller puts a network into evaluation mode."""
    parts = [torch.nn.functional.normalize(embed(batch).flatten(1).float()).cpu() for batch in images.split(batch_size)]
    return torch.cat(parts).numpy()


def pair_cosines(embeddings: Float[np.ndarray, "b d"], pairs: Pairs) -> Float[np.ndarray, "n"]:
    """Cosine of each pair of unit embeddings."""
    return np.einsum("nd,nd->n", embeddings[pairs.first], embeddings[pairs.second]).astype(np.float64)


def evaluate_identity(
    embed: Callable[[Tensor], Tensor],
    images: Float[Tensor, "b 1 h w"],
    cohort: Cohort,
    context: RunContext,
    *,
    attacker: str = "frozen",
    negatives_per_positive: int = 50,
    batch_size: int = 64,
    n_boot: int = 500,
) -> list[Result]:
    """Verification and identification of real images by one encoder.

    Args:
        embed: takes ``b 1 h w`` in [0, 1] and gives ``b d``.
        images: images of the cohort, in its order.
        cohort: patients, folders, sex, age, view of the images.
        context: what the result lines share.
        attacker: name of who scores the pairs, as the protocol names it.
        negatives_per_positive: negative pairs drawn for each positive one.
        batch_size: images at a time.
        n_boot: bootstrap resamples of patients.

    Raises:
        UsageError: GM-U263 where images and cohort differ in length, GM-U264 where no patient has a pair.

    Returns:
        For random negatives (the trial's form) and for matched negatives (patients of equal weight)
        ``verification_auc``, ``equal_error_rate`` and ``tar_at_far_1pct``, all ``.T1.<attacker>.v1``; for random ones
        ``verification_auc_patients_equal``, the same pairs with the protocol's weights, too; and
        ``rank_1``, ``map_at_r`` ``.<attacker>.v1``.
    """
    if len(images) != len(cohort):
        raise UsageError("GM-U263", "images and cohort do not fit", got=f"{len(images)} and {len(cohort)}")
    embeddings = embed_images(embed, images, batch_size)
    table = identify(embeddings, cohort.patient_index, np.array([record.folder for record in cohort]))
    if len(table.query) == 0:
        raise UsageError("GM-U264", "no patient has two images in one folder", next_step="use a larger cohort")
    results: list[Result] = []
    for negatives, cap in (("random", TRIAL_POSITIVES), ("matched", None)):
        pairs = t1_pairs(
            cohort,
            negatives=negatives,
            negatives_per_positive=negatives_per_positive,
            max_positives_per_patient=cap,
            seed=context.seed,
        )
        weights = np.ones(len(pairs)) if negatives == "random" else pairs.weight
        note = {
            "weights": "pairs equal" if negatives == "random" else _BALANCED,
            "max_positives_per_patient": cap,
        }
        results += _verification(embeddings, pairs, weights, negatives, attacker, context, n_boot, note)
    return results + _identification(table, attacker, context, n_boot)


def _verification(
    embeddings: Float[np.ndarray, "b d"],
    pairs: Pairs,
    weights: Float[np.ndarray, "n"],
    negatives: str,
    attacker: str,
    context: RunContext,
    n_boot: int,
    note: dict[str, object],
) -> list[Result]:
    same = pairs.same
    scores = SortedScores(pair_cosines(embeddings, pairs), same)
    tar = scores.tar_at_far(FALSE_ACCEPT_RATE, weights)
    extra = note | {
        "n_positive_pairs": pairs.n_positives,
        "n_negative_pairs": pairs.n_negatives,
        "n_negative_pairs_wanted": pairs.n_wanted,
        "weight_moved": round(pairs.weight_moved, 6),
        "n_patients_in_negatives": len(np.unique([pairs.patient_first[~same], pairs.patient_second[~same]])),
    }
    tar_extra = {"reason": tar.reason} if tar.reason else {"threshold_cos": _rounded(tar.threshold)}
    statistics = {
        "verification_auc": (scores.auc, {}),
        "equal_error_rate": (scores.eer, {}),
        "tar_at_far_1pct": (lambda w: scores.tar_at_far(FALSE_ACCEPT_RATE, w).value, tar_extra),
    }
    figures = [(name, weights, *statistic) for name, statistic in statistics.items()]
    if negatives == "random":
        more = {"weights": _BALANCED}
        figures.insert(1, ("verification_auc_patients_equal", pairs.weight, scores.auc, more))
    # an interval rests on the patients who have a positive, so those are the numbers shown
    counted = {
        "n_patients": pairs.n_positive_patients,
        "n_images": len(np.unique(np.concatenate([pairs.first[same], pairs.second[same]]))),
        "negatives": negatives,
        "attacker": attacker,
    }
    results = []
    for name, weighed, statistic, more in figures:
        interval = pair_bootstrap(
            statistic, same, pairs.patient_first, pairs.patient_second, weighed, n_boot, context.seed
        )
        results.append(context.result(f"{name}.T1.{attacker}.v1", interval, extra=extra | more, **counted))
    return results


def _rounded(number: float) -> float | None:
    return round(number, 6) if np.isfinite(number) else None


def _identification(table: Identification, attacker: str, context: RunContext, n_boot: int) -> list[Result]:
    values = {
        "rank_1": ((table.rank < 1.5).astype(np.float64), table.rank_k(1, per_patient=True)),
        "map_at_r": (table.average_precision_at_r, table.map_at_r(per_patient=True)),
    }
    results = []
    for name, (per_query, per_patient) in values.items():
        interval = patient_bootstrap(
            lambda w, per_query=per_query: float(np.average(per_query, weights=w)), table.patient, n_boot, context.seed
        )
        extra: dict[str, object] = {
            "patients_equal": round(per_patient, 6),
            "gallery_sizes": [int(size) for size in np.unique(table.gallery)],
            "interval": "queries resampled by patient, gallery fixed",
        }
        if name == "rank_1":
            extra |= {f"rank_{k}": round(table.rank_k(k), 6) for k in (5, 10, 50)}
        results.append(
            context.result(
                f"{name}.{attacker}.v1",
                interval,
                n_patients=len(np.unique(table.patient)),
                n_images=len(table.query),
                attacker=attacker,
                extra=extra,
            )
        )
    return results
