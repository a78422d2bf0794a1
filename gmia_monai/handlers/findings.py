"""Validation metrics of utility encoders where some labels are uncertain or missing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from monai.handlers import IgniteMetricHandler
from monai.metrics import CumulativeIterationMetric
from torch import Tensor

__all__ = ["FindingsMetric"]


class _MaskedMacro(CumulativeIterationMetric):
    def __init__(self, compute: Callable[[Tensor, Tensor], float]) -> None:
        super().__init__()
        self.compute = compute

    def _compute_tensor(self, y_pred: Tensor, y: Tensor | None = None, **kwargs: Any) -> tuple[Tensor, Tensor]:
        return y_pred, y

    def aggregate(self) -> float:
        scores, labels = (torch.as_tensor(buffer).float() for buffer in self.get_buffer())
        values = []
        for score, label in zip(scores.T, labels.T, strict=True):
            known = ~label.isnan()
            if (label == 1).any() and (label == 0).any():
                values.append(float(self.compute(score[known], label[known])))
        return sum(values) / len(values) if values else float("nan")


class FindingsMetric(IgniteMetricHandler):
    """Mean over the findings of one of MONAI's metrics, each over the images whose label is known.

    MONAI's own ROCAUC and AveragePrecision handlers give NaN when one label is NaN.

    Args:
        compute: ``monai.metrics.compute_roc_auc`` or ``compute_average_precision``: takes ``[n]`` scores and labels.
        output_transform: takes lists of scores and of labels (1, 0 or NaN), ``[n_findings]`` each, from the output.
    """

    def __init__(
        self,
        compute: Callable[[Tensor, Tensor], float],
        output_transform: Callable[[Any], tuple[Sequence[Tensor], Sequence[Tensor]]] = lambda x: x,
    ) -> None:
        super().__init__(metric_fn=_MaskedMacro(compute), output_transform=output_transform, save_details=False)
