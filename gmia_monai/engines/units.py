"""Work units as batches of a MONAI DataLoader; an image that cannot be read becomes a coded reason, not a crash."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from monai.data import DataLoader
from monai.engines import Evaluator
from torch import Tensor
from torch.utils.data import Dataset

from gmia_monai.data.units import AnonymizationRun
from gmia_monai.errors import ExitCode, InputError, coded_cause, end_bundle_run
from gmia_monai.transforms.frame import frame_key

__all__ = ["UnitDataset", "run_units", "unit_batch", "unit_loader"]


_log = logging.getLogger(__name__)


class UnitDataset(Dataset):
    """Item ``i`` is the ``i``-th unfinished unit of a run.

    Args:
        run: plan of the run.
        transform: reads and prepares one image; must keep its ``Frame`` (``LoadRadiographd(track_meta=True)``).
        image_size: side of the prepared images, in pixels.
    """

    def __init__(self, run: AnonymizationRun, transform: Callable[[Mapping[str, Any]], Any], image_size: int) -> None:
        self.run = run
        self.transform = transform
        self.image_size = image_size
        self.pending = run.pending()
        self.data = [{"image": str(s.path)} for i in self.pending for s in run.units[i]]

    def __len__(self) -> int:
        return len(self.pending)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """``unit`` (its number), ``image`` ``[b, 1, s, s]``, ``sources``, ``seeds`` and ``frames`` of the images that
        could be read, and ``rejected``: (source, code) of the others."""
        number = self.pending[index]
        images, sources, frames, rejected = [], [], [], []
        for source in self.run.units[number]:
            try:
                item = self.transform({"image": str(source.path)})
            except Exception as error:
                coded = coded_cause(error)
                if not isinstance(coded, InputError):
                    raise
                rejected.append((source, coded.code))
                continue
            images.append(torch.as_tensor(item["image"]))
            sources.append(source)
            frames.append(item[frame_key("image")])
        shape = (0, 1, self.image_size, self.image_size)
        image = torch.stack(images) if images else torch.zeros(shape)
        return {
            "unit": number,
            "image": image,
            "sources": sources,
            "seeds": [self.run.image_seed(source) for source in sources],
            "frames": frames,
            "rejected": rejected,
        }


def _only(batch: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return batch[0]


def unit_loader(dataset: UnitDataset) -> DataLoader:
    """One unit a batch, in order."""
    return DataLoader(dataset, batch_size=1, shuffle=False, num_workers=0, collate_fn=_only)


def unit_batch(
    batch: Mapping[str, Any], device: torch.device | None = None, non_blocking: bool = False, **kwargs: Any
) -> tuple[Tensor, None, tuple[()], dict[str, list[int]]]:
    """``prepare_batch`` of the evaluator that runs units; the inferer gets the seed of each image."""
    return batch["image"].to(device, non_blocking=non_blocking, **kwargs), None, (), {"seeds": batch["seeds"]}


def run_units(evaluator: Evaluator, writer: Any) -> None:
    """Runs the unfinished units; where all are done, the tables are written again and nothing is computed.

    ``python -m monai.bundle`` ends with 1 where an image was rejected.
    """
    if len(evaluator.data_loader) == 0:
        _log.info("all units are done already")
        writer.finish()
    else:
        evaluator.run()
    if any(row["status"] == "rejected" for row in writer.run.rows()):
        end_bundle_run(ExitCode.SOME_REJECTED)
