"""How well an auto-encoder keeps an image: PSNR, SSIM, multi-scale SSIM, beside linear baselines (PCA).

The figure is the mean over images of the per-image value, with intervals over patients. PCA with as many components as
the latent has numbers is what a linear code of that size keeps; it bounds nothing, but it says where the AE-GAN stands.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Shaped
from scipy.linalg import eigh
from torch import Tensor

from gmia_monai.errors import UsageError
from gmia_monai.metrics import image_quality
from gmia_monai.metrics.intervals import patient_bootstrap
from gmia_monai.metrics.results import Result, RunContext

__all__ = ["PCA", "evaluate_reconstruction", "fit_pca", "folder_means", "pca_reconstruct"]

_BLOCK = 1024


@dataclass(frozen=True)
class PCA:
    """Principal components of images, largest first.

    Attributes:
        mean: shape ``pixels``.
        components: orthonormal rows, shape ``k pixels``.
        variance: variance along each component (divisor n - 1), shape ``k``.
    """

    mean: Float[np.ndarray, "pixels"]
    components: Float[np.ndarray, "k pixels"]
    variance: Float[np.ndarray, "k"]

    def truncated(self, n_components: int) -> PCA:
        """The first ``n_components`` of these."""
        return PCA(self.mean, self.components[:n_components], self.variance[:n_components])


def fit_pca(train_images: Float[np.ndarray, "n pixels"], n_components: int) -> PCA:
    """Exact principal components, from whichever of the two Gram matrices is smaller.

    Args:
        train_images: one image a row, in [0, 1].
        n_components: at most n - 1 and at most the number of pixels.

    Raises:
        UsageError: GM-U261 where that many components do not exist.
    """
    n, pixels = train_images.shape
    if not 1 <= n_components <= min(n - 1, pixels):
        raise UsageError(
            "GM-U261", "number of components out of range", got=n_components, expected=f"1 to {min(n - 1, pixels)}"
        )
    mean = train_images.mean(axis=0, dtype=np.float64).astype(np.float32)
    centred = np.asarray(train_images, dtype=np.float32) - mean
    narrow = pixels <= n
    size = pixels if narrow else n
    gram = np.zeros((size, size))
    other = centred if narrow else centred.T
    for start in range(0, len(other), _BLOCK):  # float64 by blocks: small eigenvalues survive, memory stays flat
        block = other[start : start + _BLOCK].astype(np.float64)
        gram += block.T @ block
    values, vectors = eigh(gram, subset_by_index=(size - n_components, size - 1), overwrite_a=True)
    values, vectors = values[::-1], vectors[:, ::-1]
    components = vectors.T if narrow else (vectors.T @ centred)
    components = components / np.linalg.norm(components, axis=1, keepdims=True)
    return PCA(mean, components.astype(np.float32), (values / (n - 1)).astype(np.float32))


def pca_reconstruct(pca: PCA, images: Float[Tensor, "b 1 h w"]) -> Float[Tensor, "b 1 h w"]:
    """Images projected on the components and back, clipped to [0, 1]."""
    flat = images.detach().cpu().flatten(1).float() - torch.from_numpy(pca.mean)
    components = torch.from_numpy(pca.components)
    back = (flat @ components.T) @ components + torch.from_numpy(pca.mean)
    return back.clamp(0, 1).reshape(images.shape).to(images.device)


def evaluate_reconstruction(
    autoencoder: Callable[[Tensor], Tensor],
    images: Float[Tensor, "b 1 h w"],
    patients: Shaped[np.ndarray, "b"],
    context: RunContext,
    *,
    baselines: Mapping[str, Callable[[Tensor], Tensor]] | None = None,
    folders: Shaped[np.ndarray, "b"] | None = None,
    batch_size: int = 64,
    n_boot: int = 1000,
) -> list[Result]:
    """Measure an auto-encoder, and any baselines, on the same images.

    Args:
        autoencoder: takes ``b 1 h w`` in [0, 1] and gives the same shape; its output is clipped to [0, 1].
        images: the test images.
        patients: patient of each image.
        context: what the result lines share; ``context.system`` names the auto-encoder.
        baselines: further reconstructions by name, e.g. ``{"pca_512": partial(pca_reconstruct, pca)}``.
        folders: source folder of each image; adds the mean of each folder to ``extra``, since qualities of two
            folders should not be mixed unseen.
        batch_size: images at a time.
        n_boot: bootstrap resamples of patients.

    Returns:
        For each system ``reconstruction_psnr.v1`` (dB), ``reconstruction_ssim.v1``,
        ``reconstruction_ms_ssim_3scale.v1``, and ``reconstruction_ms_ssim.v1`` where the size allows it. ``extra`` of
        the PSNR has the PSNR of the pooled squared error.
    """
    if len(images) != len(patients) or len(images) == 0:
        raise UsageError("GM-U262", "images and patients do not fit", got=f"{len(images)} and {len(patients)}")
    results = []
    for system, reconstruct in {context.system: autoencoder, **(baselines or {})}.items():
        values = _measure(reconstruct, images, batch_size)
        pooled_mse = float(values.pop("mse").mean())
        for metric, per_image in values.items():
            finite = bool(np.isfinite(per_image).all())
            extra: dict[str, object] = {"sd": round(float(np.std(per_image)), 6) if finite else None}
            if metric == "psnr":
                extra["pooled_psnr"] = round(10 * float(np.log10(1 / pooled_mse)), 6) if pooled_mse > 0 else None
            if folders is not None:
                extra["per_folder"] = folder_means(per_image, np.asarray(folders))
            interval = patient_bootstrap(_weighted_mean(per_image), patients, n_boot, context.seed)
            results.append(
                context.result(
                    f"reconstruction_{metric}.v1",
                    interval,
                    n_patients=len(np.unique(patients)),
                    n_images=len(images),
                    system=system,
                    extra=extra,
                )
            )
    return results


@torch.no_grad()
def _measure(
    reconstruct: Callable[[Tensor], Tensor], images: Tensor, batch_size: int
) -> dict[str, Float[np.ndarray, "b"]]:
    metrics = {"mse": image_quality.mean_squared_error, "psnr": image_quality.psnr, "ssim": image_quality.ssim}
    metrics["ms_ssim_3scale"] = image_quality.ms_ssim_3scale
    if min(images.shape[2:]) >= image_quality.MS_SSIM_MIN_SIDE:
        metrics["ms_ssim"] = image_quality.ms_ssim
    values: dict[str, list[Tensor]] = {name: [] for name in metrics}
    for batch in images.split(batch_size):
        output = reconstruct(batch).clamp(0, 1)
        for name, metric in metrics.items():
            values[name].append(metric(output, batch).cpu())
    return {name: torch.cat(parts).double().numpy() for name, parts in values.items()}


def _weighted_mean(values: Float[np.ndarray, "b"]) -> Callable[[Float[np.ndarray, "b"]], float]:
    # np.average would give inf * 0 = nan for images drawn zero times; equal images have an infinite PSNR
    return lambda weights: float(np.sum(values[weights > 0] * weights[weights > 0]) / weights.sum())


def folder_means(values: Float[np.ndarray, "b"], folders: Shaped[np.ndarray, "b"]) -> dict[str, dict[str, object]]:
    """Mean and number of images of each folder; None where the mean is not finite."""
    table = {}
    for folder in np.unique(folders):
        chosen = values[folders == folder]
        mean = float(chosen.mean())
        table[str(folder)] = {"mean": round(mean, 6) if np.isfinite(mean) else None, "n_images": len(chosen)}
    return table
