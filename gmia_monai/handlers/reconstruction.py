"""Validation of auto-encoders: image-quality metrics and pictures of real images beside their reconstructions."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from ignite.engine import Engine, Events
from ignite.metrics import Average, Metric
from PIL import Image
from torch import Tensor

from gmia_monai.dicom.atomic import atomic_path
from gmia_monai.handlers.tracking import RunTracker
from gmia_monai.metrics import image_quality
from gmia_monai.typing import PathLike

__all__ = ["ReconstructionPictures", "quality_metrics"]

_MS_SSIM_MIN_PX = 176


class _MeanOverImages(Average):
    """Mean of ``[b, 1]`` values as a float; Ignite takes a vector for one observation of many numbers."""

    def compute(self) -> float:
        return float(super().compute())


def quality_metrics(
    image_size: int, perceptual_loss: Callable[[Tensor, Tensor], Tensor] | None = None
) -> dict[str, Metric]:
    """SSIM, multi-scale SSIM (three scales under its own name where five do not fit) and the perceptual distance.

    Args:
        image_size: rows and columns, in pixels.
        perceptual_loss: callable ``(prediction, target) -> [b]``, or None.

    Returns:
        Ignite metrics over an output with ``pred`` and ``label``, ``[b, 1, h, w]`` in [0, 1].
    """

    def average(function: Callable[[Tensor, Tensor], Tensor]) -> Average:
        return _MeanOverImages(lambda out: function(out["pred"], out["label"]).detach().cpu().unsqueeze(1))

    metrics: dict[str, Metric] = {"ssim": average(image_quality.ssim)}
    if image_size >= _MS_SSIM_MIN_PX:
        metrics["ms_ssim"] = average(image_quality.ms_ssim)
    elif image_size >= 64:
        metrics["ms_ssim_3scale"] = average(image_quality.ms_ssim_3scale)
    if perceptual_loss is not None:
        metrics["perceptual"] = average(perceptual_loss)
    return metrics


class ReconstructionPictures:
    """Writes a PNG of the first validation images, their reconstructions and the differences.

    Args:
        folder: where ``epoch=<n>.png`` goes.
        tracker: run that gets the picture too.
        n_images: columns of the picture.
    """

    def __init__(self, folder: PathLike, tracker: RunTracker | None = None, n_images: int = 8) -> None:
        self.folder = Path(folder)
        self.tracker = tracker
        self.n_images = n_images

    def attach(self, engine: Engine) -> None:
        """Registers the handler on an evaluator."""
        engine.add_event_handler(Events.STARTED, self._rearm)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)

    def _rearm(self, engine: Engine) -> None:
        self._armed = True

    def __call__(self, engine: Engine) -> None:
        """Draws the picture from the first batch of a run."""
        if not self._armed:
            return
        self._armed = False
        output: dict[str, Any] = engine.state.output
        real, fake = (output[k][: self.n_images, 0].float().cpu().numpy() for k in ("label", "pred"))
        difference = np.clip(0.5 + (fake - real), 0.0, 1.0)
        rows = [np.concatenate(list(images), axis=1) for images in (real, fake, difference)]
        # Reconstructions may leave [0, 1], and conversion to 8 bits would wrap around.
        pixels = (np.concatenate(rows, axis=0).clip(0.0, 1.0) * 255).round().astype(np.uint8)
        path = self.folder / f"epoch={engine.state.epoch:04d}.png"
        with atomic_path(path) as temporary:
            Image.fromarray(pixels).save(temporary)
        if self.tracker is not None:
            self.tracker.log_picture(path)
