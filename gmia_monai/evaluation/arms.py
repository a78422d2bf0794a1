"""Classifiers of several seeds on a test list, and the paired difference of two such arms.

Rows of weights say how often each test image counts: the first row once, the others as its patients are drawn. Two
arms that share the draws share what chance does to them, which the difference loses. The difference is taken seed by
seed, and its interval has the margin of the seeds: see :func:`gmia_monai.metrics.intervals.intervals_over_seeds`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from gmia_monai.metrics.differences import Replicates
from gmia_monai.metrics.intervals import intervals_over_seeds
from gmia_monai.metrics.limits import Bounds, Interval
from gmia_monai.metrics.multilabel import FIGURES, resampled_figures
from gmia_monai.metrics.results import Result, RunContext

__all__ = ["MARGIN", "MIN_SEEDS", "Arm", "arm_lines", "loss_lines"]

MARGIN = 0.02
MIN_SEEDS = 5
COMPARED = ("auroc", "ap", "accuracy", "f1")
_OF_A_FIGURE: Bounds = (0.0, 1.0)
_OF_A_LOSS: Bounds = (-1.0, 1.0)


@dataclass(frozen=True, eq=False)
class Arm:
    """What the classifiers of all seeds say of one test list.

    Attributes:
        probabilities: in [0, 1].
        labels: 0, 1 or ``nan``.
        thresholds: of each seed's classifier, from the choice role.
        weights: rows of weights of the images.
        patients: patient of each image; None where an image has several or none.
        findings: names of the columns.
    """

    probabilities: Float[np.ndarray, "seeds n k"]
    labels: Float[np.ndarray, "n k"]
    thresholds: Float[np.ndarray, "seeds k"]
    weights: Float[np.ndarray, "rows n"]
    patients: Shaped[np.ndarray, "n"] | None
    findings: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def n_patients(self) -> int | None:
        """Patients behind the list, where each image has one."""
        return None if self.patients is None else len(np.unique(self.patients))

    @property
    def n_positive(self) -> dict[str, int]:
        """Positive images of each finding."""
        counts = np.nansum(self.labels, axis=0).astype(int).tolist()
        return dict(zip(self.findings, counts, strict=True))

    def enough(self, min_positives: int) -> Bool[np.ndarray, "k"]:
        """Findings with so many positive images, and a negative one."""
        positives, known = np.nansum(self.labels, axis=0), (~np.isnan(self.labels)).sum(axis=0)
        return (positives >= max(min_positives, 1)) & (positives < known)

    def images(self, index: Int[np.ndarray, "m"] | Bool[np.ndarray, "n"]) -> Arm:
        """The same for some of the images."""
        return replace(
            self,
            probabilities=self.probabilities[:, index],
            labels=self.labels[index],
            weights=self.weights[:, index],
            patients=None if self.patients is None else self.patients[index],
        )

    def only(self, kept: Bool[np.ndarray, "k"]) -> Arm:
        """The same for some of the findings."""
        return replace(
            self,
            probabilities=self.probabilities[:, :, kept],
            labels=self.labels[:, kept],
            thresholds=self.thresholds[:, kept],
            findings=tuple(name for name, keep in zip(self.findings, kept, strict=True) if keep),
        )

    def figures(self, names: Sequence[str] = FIGURES) -> dict[str, Float[np.ndarray, "seeds rows k"]]:
        """Each figure for each seed, row of weights and finding."""
        both = zip(self.probabilities, self.thresholds, strict=True)
        each = [resampled_figures(p, self.labels, t, self.weights, names) for p, t in both]
        return {name: np.stack([one[name] for one in each]) for name in names}


def arm_lines(
    arm: Arm, part: str, min_positives: int, paper: Bool[np.ndarray, "k"], context: RunContext
) -> Iterator[Result]:
    """Lines of one arm.

    ``utility_macro_<figure>.<part>.v1`` is over the findings with enough positives,
    ``utility_paper_<figure>.<part>.v1`` (AUROC, AP, accuracy, F1) over those of the paper's labels that are there, and
    ``utility_paper_accuracy_at_half.<part>.v1`` and ``utility_paper_f1_at_half.<part>.v1`` at the threshold one half,
    as the paper has them.
    """
    enough = arm.enough(min_positives)
    if not enough.any():
        yield _not_measurable(f"utility_macro_auroc.{part}.v1", arm, "no finding has enough positive images", context)
        return
    scored = arm.only(enough)
    for name, figure in scored.figures().items():
        extra = _left_out(arm, enough)
        if name == "ece":  # chance within bins adds to it in each resample anew, so no resample is centred on its value
            figure, extra = figure[:, :1], extra | {"no_interval": "a resample inflates the calibration error"}
        yield _line(f"utility_macro_{name}.{part}.v1", figure, scored, extra, context, _OF_A_FIGURE)
    looked_for = arm.only(paper & arm.enough(1))
    if looked_for.findings:
        for name, figure in looked_for.figures(COMPARED).items():
            yield _line(f"utility_paper_{name}.{part}.v1", figure, looked_for, {}, context, _OF_A_FIGURE)
        at_half = replace(looked_for, thresholds=np.full_like(looked_for.thresholds, 0.5))
        for name, figure in at_half.figures(("accuracy", "f1")).items():
            yield _line(f"utility_paper_{name}_at_half.{part}.v1", figure, at_half, {}, context, _OF_A_FIGURE)


def loss_lines(
    real: Arm,
    released: Arm,
    part: str,
    min_positives: int,
    paper: Bool[np.ndarray, "k"],
    context: RunContext,
    figures: Sequence[str] = COMPARED,
    kept: tuple[str, tuple[int, ...]] | None = None,
) -> Iterator[Result]:
    """``utility_macro_<figure>_loss.<part>.v1``, real minus released, and ``utility_paper_auroc_loss.<part>.v1``.

    ``kept``: name of the draws that rows of weights are, and the seeds, to keep the replicates of the loss of AUROC
    under; None: nobody asks for them.

    ``extra`` has each finding's loss with its limits, and for AUROC whether the upper limit is below :data:`MARGIN`;
    None where there are fewer than :data:`MIN_SEEDS` seeds, which allow no such claim.
    """
    enough = real.enough(min_positives) & released.enough(min_positives)
    if not enough.any():
        reason = "no finding has enough positive images"
        yield _not_measurable(f"utility_macro_auroc_loss.{part}.v1", released, reason, context)
        return
    ours, theirs = real.only(enough), released.only(enough)
    found = [arm.figures(figures) for arm in (ours, theirs)]
    for figure in figures:
        one, other = (of_arm[figure] for of_arm in found)
        extra = _left_out(released, enough) | {"real": _rounded(one), "released": _rounded(other)}
        name = f"utility_macro_{figure}_loss.{part}.v1"
        line = _line(name, one - other, theirs, extra, context, _OF_A_LOSS, claim=figure == "auroc")
        if figure == "auroc" and kept is not None and context.keep is not None:
            macro = _mean_known(one - other).T
            context.keep(line, Replicates(macro, _units(theirs), *kept, bounds=_OF_A_LOSS, by_seed=True))
        yield line
    there = paper & real.enough(1) & released.enough(1)
    if there.any():
        ours, theirs = real.only(there), released.only(there)
        difference = ours.figures(["auroc"])["auroc"] - theirs.figures(["auroc"])["auroc"]
        name = f"utility_paper_auroc_loss.{part}.v1"
        yield _line(name, difference, theirs, {}, context, _OF_A_LOSS, claim=True)


def _line(
    name: str,
    figure: Float[np.ndarray, "seeds rows k"],
    arm: Arm,
    extra: dict[str, object],
    context: RunContext,
    bounds: Bounds,
    claim: bool = False,
) -> Result:
    """Mean over findings and seeds, with that of each finding."""
    macro = _mean_known(figure)
    interval, *each = _intervals(np.concatenate([macro[..., None], figure], axis=-1), arm, bounds)
    shown: dict[str, object] = {
        "per_finding": {name: [_short(x) for x in found] for name, found in zip(arm.findings, each, strict=True)},
        "per_seed": [_short(x) for x in macro[:, 0]],
        "n_positive": arm.n_positive,
    }
    if claim:
        certain = len(macro) >= MIN_SEEDS and bool(np.isfinite(interval.high))
        shown[f"non_inferior_at_{MARGIN}"] = bool(interval.high < MARGIN) if certain else None
    return context.result(name, interval, n_patients=arm.n_patients, n_images=len(arm), extra=shown | extra)


def _intervals(figure: Float[np.ndarray, "seeds rows k"], arm: Arm, bounds: Bounds) -> list[Interval]:
    return intervals_over_seeds(np.swapaxes(figure, 0, 1), _units(arm), bounds=bounds)


def _units(arm: Arm) -> int:
    """What the arm's figures rest on: patients, or images that have none."""
    return len(arm) if arm.n_patients is None else arm.n_patients


def _mean_known(figure: Float[np.ndarray, "seeds rows k"]) -> Float[np.ndarray, "seeds rows"]:
    """Mean over the findings that a row of weights leaves a positive and a negative of."""
    known = np.isfinite(figure).sum(axis=-1)
    return np.divide(np.nansum(figure, axis=-1), known, out=np.full(known.shape, np.nan), where=known > 0)


def _rounded(figure: Float[np.ndarray, "seeds rows k"]) -> float | None:
    return _short(_mean_known(figure)[:, 0].mean())


def _short(number: float | np.floating) -> float | None:
    return round(float(number), 6) if np.isfinite(number) else None


def _left_out(arm: Arm, kept: Bool[np.ndarray, "k"]) -> dict[str, object]:
    return {"left_out": {n: p for (n, p), keep in zip(arm.n_positive.items(), kept, strict=True) if not keep}}


def _not_measurable(name: str, arm: Arm, reason: str, context: RunContext) -> Result:
    return context.result(name, np.nan, n_patients=arm.n_patients, n_images=len(arm), extra={"reason": reason})
