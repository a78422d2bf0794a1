"""Writes what latent optimisation gives: images in the input's size and depth, and a table with one row an image."""

from __future__ import annotations

import logging
import time
from typing import Any

import numpy as np
import torch
from ignite.engine import Engine, Events
from torch import Tensor, nn

from gmia_monai.data.units import AnonymizationRun, Source
from gmia_monai.dicom.atomic import atomic_path
from gmia_monai.losses.identity import cosine
from gmia_monai.transforms.frame import Frame, restore
from gmia_monai.transforms.resample import resize_image
from gmia_monai.transforms.write import write_image

__all__ = ["COLUMNS", "AnonymizationWriter"]

_log = logging.getLogger(__name__)

COLUMNS = [
    "handle",
    "status",
    "reason",
    "file",
    "release",
    "steps",
    "converged",
    "cos_before",
    "cos_optimized",
    "cos_after",
    "drift_before",
    "utility_drift",
    "seconds",
    "seed",
    "rows",
    "cols",
    "bits",
]


class AnonymizationWriter:
    """Handler of the evaluator that runs the work units.

    Column ``cos_after`` is measured on the image as it stands in the file: brought back to the input's size, quantised
    to its depth, then cropped and scaled to the model again, as an attacker would.

    Args:
        run: plan of the run.
        inferer: :class:`gmia_monai.inferers.LatentOptimizationInferer`, for its ``last_result``.
        identity: identity network.
        fill: what stands outside the crop, ``edge`` or ``zero``.
    """

    def __init__(self, run: AnonymizationRun, inferer: Any, identity: nn.Module, fill: str = "edge") -> None:
        self.run = run
        self.inferer = inferer
        self.identity = identity
        self.fill = fill

    def attach(self, engine: Engine) -> None:
        """Registers the handler."""
        engine.add_event_handler(Events.STARTED, self._started)
        engine.add_event_handler(Events.ITERATION_STARTED, self._clock)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)
        engine.add_event_handler(Events.COMPLETED, self.finish)

    def _started(self, engine: Engine) -> None:
        self._t0 = time.monotonic()
        self._images = 0
        left = self.run.pending()
        self.run.forget_others()
        done = len(self.run.units) - len(left)
        if done:
            _log.info("resuming: %d of %d units are done", done, len(self.run.units))
        self._left = sum(len(self.run.units[i]) for i in left)

    def _clock(self, engine: Engine) -> None:
        self._unit_started = time.monotonic()

    def __call__(self, engine: Engine) -> None:
        """Writes the unit of this iteration."""
        batch = engine.state.batch
        rows = [self._rejected(source, code) for source, code in batch["rejected"]]
        if batch["sources"]:
            rows += self._write(batch, time.monotonic() - self._unit_started)
        unit = self.run.units[batch["unit"]]
        self.run.finish_unit(unit, sorted(rows, key=lambda row: row["handle"]))
        self._images += len(unit)
        spent = time.monotonic() - self._t0
        left = spent / self._images * (self._left - self._images)
        steps = [row["steps"] for row in rows if row["status"] == "anonymized"]
        _log.info(
            "%d of %d images  median steps %s  %.2f s an image  left %d:%02d",
            self._images,
            self._left,
            f"{np.median(steps):.0f}" if steps else "-",
            spent / self._images,
            *divmod(int(left), 60),
        )

    def _rejected(self, source: Source, code: str) -> dict[str, Any]:
        return {"handle": source.handle, "status": "rejected", "reason": code, "file": "", "release": "not released"}

    def _write(self, batch: dict[str, Any], seconds: float) -> list[dict[str, Any]]:
        result = self.inferer.last_result
        device = next(self.identity.parameters()).device
        written, files, sources, frames = [], [], batch["sources"], batch["frames"]
        for image, source, frame in zip(result.image, sources, frames, strict=True):
            full = restore(image[0].cpu().numpy(), frame, fill=self.fill)
            target = self.run.output_dir / "images" / source.handle
            path, stored = write_image(target, full, frame)
            files.append(path.relative_to(self.run.output_dir).as_posix())
            written.append(self._as_model_sees(stored, frame))
        cos_after = self._cosine(batch["image"].to(device), torch.stack(written).to(device))
        rows = []
        for i, (source, frame) in enumerate(zip(sources, frames, strict=True)):
            rows.append(
                {
                    "handle": source.handle,
                    "status": "anonymized",
                    "reason": "",
                    "file": files[i],
                    "release": "not released",
                    "steps": int(result.steps[i]),
                    "converged": int(result.converged[i]),
                    "cos_before": round(float(result.cos_start[i]), 6),
                    "cos_optimized": round(float(result.cos_end[i]), 6),
                    "cos_after": round(float(cos_after[i]), 6),
                    "drift_before": round(float(result.drift_start[i]), 6),
                    "utility_drift": round(float(result.drift_end[i]), 6),
                    "seconds": round(seconds / len(sources), 3),
                    "seed": self.run.image_seed(source),
                    "rows": frame.rows,
                    "cols": frame.cols,
                    "bits": frame.bits,
                }
            )
        return rows

    @torch.no_grad()
    def _cosine(self, real: Tensor, written: Tensor) -> Tensor:
        dtype = next(self.identity.parameters()).dtype
        return cosine(self.identity(real.to(dtype)), self.identity(written.to(dtype)))

    @staticmethod
    def _as_model_sees(stored: np.ndarray, frame: Frame) -> Tensor:
        box, size = frame.kept, frame.model_size or frame.kept.height
        part = stored[box.top : box.top + box.height, box.left : box.left + box.width]
        return torch.from_numpy(resize_image(np.asarray(part, dtype=np.float32), (size, size)))[None]

    def finish(self, engine: Engine | None = None) -> None:
        """Writes ``table.csv`` and the note that nothing here has been released."""
        path = self.run.write_table(COLUMNS)
        rows = list(self.run.rows())
        done = [row for row in rows if row["status"] == "anonymized"]
        with atomic_path(self.run.output_dir / "NOT_RELEASED.txt") as temporary:
            temporary.write_text(
                "Research output of gmia_monai. Not released: no attack, no burned-in text check and no release gate\n"
                "has been applied to these images. Do not pass them on as anonymous.\n"
            )
        _log.info(
            "%d images anonymized (%d converged), %d rejected; %s, not released",
            len(done),
            sum(row["converged"] for row in done),
            len(rows) - len(done),
            path.name,
        )
