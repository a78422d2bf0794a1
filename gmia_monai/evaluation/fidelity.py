"""How far a release is from its real images: per image from its own source, and as a whole from all of them.

Image against source (one-to-one releases only): PSNR, SSIM, multi-scale SSIM, IW-SSIM from 161 px, a perceptual
distance, and the drift of feature, logits and probabilities under diagnostic networks. As a whole (every release): the
kernel distance (KID) on the features of those networks. Intervals draw patients.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from gmia_monai.attacks.base import Judged, Pixels
from gmia_monai.errors import UsageError
from gmia_monai.evaluation.reconstruction import folder_means
from gmia_monai.losses.utility import utility_drift
from gmia_monai.metrics import image_quality
from gmia_monai.metrics.intervals import patient_bootstrap, patient_counts
from gmia_monai.metrics.kid import KernelDistance
from gmia_monai.metrics.limits import percentile_interval
from gmia_monai.metrics.results import Result, RunContext
from gmia_monai.networks.utility import UtilityNet

__all__ = ["evaluate_fidelity"]

_log = logging.getLogger(__name__)
_SUBSET, _SUBSETS = 1000, 100


def evaluate_fidelity(
    judged: Judged,
    context: RunContext,
    *,
    networks: Mapping[str, UtilityNet],
    findings: Sequence[str] = (),
    perceptual: Mapping[str, nn.Module] | None = None,
    batch_size: int = 64,
    n_boot: int = 500,
    device: str = "cpu",
) -> list[Result]:
    """Measures a release against its real images.

    Args:
        judged: release and real images.
        context: what the result lines share.
        networks: diagnostic networks by name, e.g. ``{"loss": the one in the loss, "other": another}``.
        findings: names of their logits; numbers if empty.
        perceptual: distances by name, e.g. ``{"lpips_cxr": CXRPerceptualLoss(utility)}``.
        batch_size: images at a time.
        n_boot: bootstrap resamples of patients.
        device: where networks run.

    Returns:
        ``fidelity_<metric>.v1`` with ``psnr`` (dB), ``ssim``, ``ms_ssim_3scale``, ``ms_ssim``, ``iw_ssim`` and each
        perceptual distance; ``feature_drift.<network>.v1`` (mean squared difference), ``logit_drift.<network>.v1`` and
        ``probability_drift.<network>.v1`` (mean absolute ones, each finding's in ``extra``), all with the mean of each
        folder in ``extra["per_folder"]``; ``kid.<network>.v1``. Of a release without one source an image, ``kid``
        alone.

    Raises:
        UsageError: ``GM-U350`` where a network has other logits than ``findings``; ``GM-U351`` for a release of fewer
            than two images.
    """
    for name, network in networks.items():
        if findings and network.n_findings != len(findings):
            raise UsageError(
                "GM-U350", f"findings do not fit the network {name}", got=len(findings), expected=network.n_findings
            )
    views = {name: _View.of(network, judged, batch_size, device) for name, network in networks.items()}
    results: list[Result] = []
    if judged.release.kind == "one_to_one":
        results += _against_sources(judged, context, views, findings, perceptual or {}, batch_size, n_boot, device)
    for name, view in views.items():
        results.append(_kid(name, view, judged, context, n_boot))
    return results


@dataclass(frozen=True, eq=False)
class _View:
    """What a diagnostic network makes of real and of released images."""

    real_features: Float[np.ndarray, "n d"]
    real_logits: Float[np.ndarray, "n k"]
    features: Float[np.ndarray, "m d"]
    logits: Float[np.ndarray, "m k"]

    @classmethod
    @torch.no_grad()
    def of(cls, network: UtilityNet, judged: Judged, batch_size: int, device: str) -> _View:
        network = network.to(device).eval()
        found = []
        for pixels in (judged.real.pixels, judged.release.pixels):
            parts = [network.features(x.to(device)) for x in torch.from_numpy(pixels).split(batch_size)]
            found += [torch.cat([part.cpu() for part in parts]).numpy()]
            found += [torch.cat([network.head(part).float().cpu() for part in parts]).numpy()]
        return cls(*found)


def _against_sources(
    judged: Judged,
    context: RunContext,
    views: Mapping[str, _View],
    findings: Sequence[str],
    perceptual: Mapping[str, nn.Module],
    batch_size: int,
    n_boot: int,
    device: str,
) -> list[Result]:
    source, image = np.array(sorted(judged.release.image_of_source.items()), dtype=np.int64).T
    patients = judged.real.cohort.patient_index[source]
    folders = np.array([judged.real.cohort[int(i)].folder for i in source])
    real, released = judged.real.pixels[source], judged.release.pixels[image]
    columns: dict[str, tuple[np.ndarray, dict[str, object]]] = {
        f"fidelity_{name}": (values, {}) for name, values in _distances(real, released, perceptual, batch_size, device)
    }
    for name, view in views.items():
        names = list(findings) or [str(k) for k in range(view.logits.shape[1])]
        feature = utility_drift(torch.from_numpy(view.real_features[source]), torch.from_numpy(view.features[image]))
        columns[f"feature_drift.{name}"] = feature.double().numpy(), {}
        logits = [torch.from_numpy(x).double() for x in (view.real_logits[source], view.logits[image])]
        for kind, (one, other) in {
            "logit_drift": logits,
            "probability_drift": [x.sigmoid() for x in logits],
        }.items():
            each = (one - other).abs().numpy()
            per_finding = {n: round(float(v), 6) for n, v in zip(names, each.mean(axis=0), strict=True)}
            columns[f"{kind}.{name}"] = each.mean(axis=1), {"per_finding": per_finding}
    results = []
    for name, (values, extra) in columns.items():
        known = ~np.isnan(values)
        if not known.all():
            extra = extra | {"n_not_measurable": int((~known).sum())}
        extra = extra | {"per_folder": folder_means(values[known], folders[known])}
        value = (
            np.nan
            if not known.any()
            else patient_bootstrap(_mean(values[known]), patients[known], n_boot, context.seed)
        )
        n_patients = len(np.unique(patients[known]))
        results.append(
            context.result(f"{name}.v1", value, n_patients=n_patients, n_images=int(known.sum()), extra=extra)
        )
    return results


@torch.no_grad()
def _distances(
    real: Pixels, released: Pixels, perceptual: Mapping[str, nn.Module], batch_size: int, device: str
) -> list[tuple[str, Float[np.ndarray, "n"]]]:
    """Each metric's values, the real image as the reference."""
    side = min(real.shape[2:])
    metrics: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"psnr": image_quality.psnr, "ssim": image_quality.ssim}
    metrics["ms_ssim_3scale"] = image_quality.ms_ssim_3scale
    if side >= image_quality.MS_SSIM_MIN_SIDE:
        metrics["ms_ssim"] = image_quality.ms_ssim
    if side >= image_quality.IW_SSIM_MIN_SIDE and find_spec("piq") is not None:
        metrics["iw_ssim"] = image_quality.iw_ssim
    elif side >= image_quality.IW_SSIM_MIN_SIDE:
        _log.warning("piq is not installed: no IW-SSIM")
    for name, distance in perceptual.items():
        metrics[name] = distance.to(device).eval()
    values: dict[str, list[Tensor]] = {name: [] for name in metrics}
    both = zip(torch.from_numpy(real).split(batch_size), torch.from_numpy(released).split(batch_size), strict=True)
    for x, y in both:
        x, y = x.to(device), y.to(device)
        for name, metric in metrics.items():
            values[name].append(metric(y, x).cpu())
    return [(name, torch.cat(parts).double().numpy()) for name, parts in values.items()]


def _mean(values: Float[np.ndarray, "n"]) -> Callable[[Float[np.ndarray, "n"]], float]:
    # equal images have an infinite PSNR, which times no weight would give nan
    return lambda weights: float(np.sum(values[weights > 0] * weights[weights > 0]) / weights.sum())


def _kid(name: str, view: _View, judged: Judged, context: RunContext, n_boot: int) -> Result:
    """Released images are drawn with the patient of their source; those of several or none each by itself."""
    patient = judged.real.cohort.patient_index
    units = _units(judged, patient)
    distance = KernelDistance(view.real_features, view.features, patient, units, judged.release.sources)
    rows = np.array([distance(counts) for counts in patient_counts(distance.n_units, n_boot, context.seed)])
    size = min(_SUBSET, max(2, min(len(view.features), len(view.real_features)) // 2))
    subset = distance.over_subsets(size, _SUBSETS, context.seed)
    extra = {
        "n_released": len(view.features),
        "subset_size": size,
        "subsets_mean": round(subset.mean, 9),
        "subsets_sd": round(subset.sd, 9),
    }
    interval = percentile_interval(float(rows[0]), rows[1:])
    n = len(judged.real.cohort.patients)
    return context.result(f"kid.{name}.v1", interval, n_patients=n, n_images=len(judged.real), extra=extra)


def _units(judged: Judged, patient: Int[np.ndarray, "n"]) -> Int[np.ndarray, "m"]:
    own = int(patient.max()) + 1
    sources = judged.release.sources
    return np.array([patient[s[0]] if len(s) == 1 else own + i for i, s in enumerate(sources)], dtype=np.int64)
