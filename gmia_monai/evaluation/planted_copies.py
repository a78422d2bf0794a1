"""Does the privacy filter find copies? Near-duplicates of training images are planted, and those it rejects counted.

A filter whose verifier was trained on real pairs may miss what a generator makes of a training image (arXiv
2510.01793). So the copies range from the image itself over noise, blur and shifts to what the generator makes of it:
a reconstruction, and partial denoising from some noise level (``redraw_<percent>``), whose upper end is
hardly a copy. Beside them stands the share of real images of other people that is rejected.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from monai.networks.layers import gaussian_1d, separable_filtering
from torch import Tensor

from gmia_monai.anonymizers.base import image_seeds
from gmia_monai.anonymizers.privacy_filter import PrivacyFilter
from gmia_monai.data.release import RealImages
from gmia_monai.errors import UsageError
from gmia_monai.metrics.intervals import patient_bootstrap
from gmia_monai.metrics.results import Result, RunContext
from gmia_monai.networks.latent_diffusion import LatentDiffusionNet

__all__ = ["KINDS", "NETWORK_KINDS", "filter_lines", "planted_copies"]

Change = Callable[[Float[Tensor, "b 1 h w"], Sequence[int]], Float[Tensor, "b 1 h w"]]
_BATCH = 64


def _noisy(sd: float) -> Change:
    def change(images: Tensor, seeds: Sequence[int]) -> Tensor:
        drawn = [torch.randn(images.shape[1:], generator=torch.Generator().manual_seed(seed)) for seed in seeds]
        return images + sd * torch.stack(drawn)

    return change


def _blurred(sigma_px: float) -> Change:
    def change(images: Tensor, seeds: Sequence[int]) -> Tensor:
        # MONAI's GaussianFilter, but for the border, which zeros beyond it would darken. Its taps are integrals over
        # pixels, those of the system "blur" are samples.
        taps = gaussian_1d(torch.tensor(sigma_px))
        return separable_filtering(images, [taps, taps], mode="replicate")

    return change


def _shifted(shift_px: int) -> Change:
    def change(images: Tensor, seeds: Sequence[int]) -> Tensor:
        wide = F.pad(images, (shift_px, 0, shift_px, 0), mode="replicate")
        return wide[..., : images.shape[-2], : images.shape[-1]]

    return change


KINDS: dict[str, Change] = {
    "unchanged": lambda images, seeds: images,
    "noise_05": _noisy(0.05),
    "noise_10": _noisy(0.1),
    "noise_20": _noisy(0.2),
    "blur_1px": _blurred(1.0),
    "blur_2px": _blurred(2.0),
    "shift_1px": _shifted(1),
    "shift_4px": _shifted(4),
    "brighter_10": lambda images, seeds: images + 0.1,
    "darker_20": lambda images, seeds: images - 0.2,
    "mirrored": lambda images, seeds: images.flip(-1),
}
"""Copies that need no network, by name: numbers are percent of the range of grey values, or pixels."""
REDRAWN = (0.1, 0.2, 0.4, 0.6, 0.8)
NETWORK_KINDS = ("reconstruction", *(f"redraw_{round(100 * s)}" for s in REDRAWN))
"""Copies that the generator makes: percent of the noise levels that are gone through."""


@torch.no_grad()
def planted_copies(
    images: Float[Tensor, "b 1 h w"],
    kind: str,
    network: LatentDiffusionNet | None = None,
    seed: int = 0,
    n_steps: int = 50,
) -> Float[Tensor, "b 1 h w"]:
    """Copies in [0, 1] of one kind, rounded to 8 bits, as a released image would be.

    Args:
        images: ``[b, 1, h, w]`` in [0, 1].
        kind: one of :data:`KINDS` or :data:`NETWORK_KINDS`.
        network: the generator, for the latter; its findings are left unknown.
        seed: decides, with an image's own pixels, the noise.
        n_steps: steps of denoising over all noise levels.

    Raises:
        UsageError: ``GM-U378`` for another kind, or one that needs the generator where there is none.
    """
    if kind not in KINDS and (kind not in NETWORK_KINDS or network is None):
        known = [*KINDS, *(NETWORK_KINDS if network is not None else ())]
        raise UsageError("GM-U378", "no such planted copies", got=kind, expected=", ".join(known))
    seeds = image_seeds(images.numpy(), seed)
    if kind in KINDS:
        found = KINDS[kind](images, seeds)
    else:
        assert network is not None
        parts = zip(images.split(_BATCH), [seeds[i : i + _BATCH] for i in range(0, len(seeds), _BATCH)], strict=True)
        strength = 0.0 if kind == "reconstruction" else int(kind.removeprefix("redraw_")) / 100.0
        device = network.tokens.device
        found = torch.cat([network.redraw(i.to(device), strength, s, n_steps=n_steps).cpu() for i, s in parts])
    return (found.clamp(0.0, 1.0) * 255.0).round() / 255.0


def filter_lines(
    privacy_filter: PrivacyFilter,
    training: RealImages,
    other_people: RealImages,
    context: RunContext,
    network: LatentDiffusionNet | None = None,
    kinds: Sequence[str] | None = None,
    n_steps: int = 50,
    n_boot: int = 1000,
) -> list[Result]:
    """Share of the planted copies of each kind that the filter rejects, and that of real images of other people.

    Args:
        privacy_filter: to test.
        training: training images to copy, some of those that the filter holds.
        other_people: real images of people who are neither in training nor in the calibration.
        context: of the lines; its seed decides the noise of copies.
        network: the generator; None: only copies that need none.
        kinds: of copies; None: all that can be made.
        n_steps: steps of denoising over all noise levels.
        n_boot: resamples of patients.

    Returns:
        ``privacy_filter_recall.<kind>.v1``, with the mean absolute change of the copies in ``extra``, and
        ``privacy_filter_rejection.other_people.v1``. Intervals over patients.

    Raises:
        UsageError: ``GM-U378`` as :func:`planted_copies`.
    """
    kinds = (*KINDS, *(NETWORK_KINDS if network is not None else ())) if kinds is None else kinds
    images = torch.from_numpy(training.pixels)
    own = privacy_filter.places(training)
    lines = []
    for kind in kinds:
        copies = planted_copies(images, kind, network, context.seed, n_steps)
        logits, best, _ = privacy_filter.nearest(copies)
        extra = privacy_filter.facts | {
            "mean_absolute_change": float((copies - images).abs().mean()),
            "best_match_is_the_source": float((best.numpy() == own).mean()),
            "median_logit": float(logits.median()),
        }
        name = f"privacy_filter_recall.{kind}.v1"
        lines.append(_line(name, logits, privacy_filter, training, context, n_boot, extra))
    logits = privacy_filter.scores(torch.from_numpy(other_people.pixels))
    extra = privacy_filter.facts | {"median_logit": float(logits.median())}
    name = "privacy_filter_rejection.other_people.v1"
    return [*lines, _line(name, logits, privacy_filter, other_people, context, n_boot, extra)]


def _line(
    name: str,
    logits: Float[Tensor, "n"],
    privacy_filter: PrivacyFilter,
    of: RealImages,
    context: RunContext,
    n_boot: int,
    extra: dict[str, object],
) -> Result:
    rejected = (logits.double().numpy() >= privacy_filter.threshold_logit).astype(np.float64)
    patients = of.cohort.patient_index
    found = patient_bootstrap(
        lambda w: float(np.average(rejected, weights=w)), patients, n_boot, context.seed, bounds=(0.0, 1.0)
    )
    return context.result(name, found, n_patients=len(of.cohort.patients), n_images=len(of), extra=extra)
