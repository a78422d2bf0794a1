"""Validation metric of the retrieval network: mAP@R of each image among the others of its folder."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ignite.distributed as idist
import numpy as np
import torch
from ignite.metrics import EpochMetric
from torch import Tensor

from gmia_monai.data.cohort import Cohort
from gmia_monai.metrics.retrieval import identify

__all__ = ["RetrievalMAP"]

_ROWS = 16


class RetrievalMAP(EpochMetric):
    """Mean average precision at R, images alike, as :meth:`gmia_monai.metrics.retrieval.Identification.map_at_r`.

    Args:
        cohort: the images in the order in which the evaluator sees them.
        compare: maps two sets of embeddings to the score of each pair.
        output_transform: takes embeddings out of the evaluator's output; twice, as Ignite wants a pair.
    """

    def __init__(
        self,
        cohort: Cohort,
        compare: Callable[[Tensor, Tensor], Tensor],
        output_transform: Callable[[Any], Any] = lambda x: x,
    ) -> None:
        self.compare = compare
        self.n_images = len(cohort)
        self.patients = cohort.patient_index
        self.folders = np.array([record.folder for record in cohort])
        super().__init__(self._map_at_r, output_transform=output_transform, check_compute_fn=False)

    def _map_at_r(self, embeddings: Tensor, _: Tensor) -> float:
        if len(embeddings) == self.n_images * idist.get_world_size():
            embeddings = embeddings[: self.n_images]  # each of several processes embeds all images
        if len(embeddings) != self.n_images:
            raise RuntimeError(f"{len(embeddings)} embeddings for {self.n_images} images: do not shuffle or drop")
        found = identify(embeddings.float().cpu().numpy(), self.patients, self.folders, compare=self._scores)
        return found.map_at_r()

    @torch.no_grad()
    def _scores(self, queries: np.ndarray, gallery: np.ndarray) -> np.ndarray:
        a, b = torch.from_numpy(queries), torch.from_numpy(gallery)
        return torch.cat([self.compare(rows[:, None], b[None]) for rows in a.split(_ROWS)]).double().numpy()
