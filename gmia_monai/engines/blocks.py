"""Batches for metric learning: images of one patient come together, in blocks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Sized

import torch

from gmia_monai.engines.sampling import EpochSampler
from gmia_monai.errors import UsageError

__all__ = ["PatientBlockSampler"]


class PatientBlockSampler(EpochSampler):
    """Goes through all images, those of one patient in blocks, so that a batch has pairs of one person.

    A patient's images are shuffled and cut into blocks of at most ``block``; an image is never alone in a block, and a
    patient with a single image is left out. The blocks of all patients then come in random order, and when all have
    come, they are cut anew (sampling of Packhäuser et al., Scientific Reports 12:14851, 2022: blocks of 8).

    Args:
        dataset: data set to draw from.
        patients: patient of each item.
        n_draws: images an epoch, over all processes.
        block: images in a block at most; at least 3, since three images make no blocks of two.
        seed: seed of all draws.
        num_replicas: number of processes; that of the default group if None. Each takes a part of the epoch in a row.
        rank: number of this process.

    Raises:
        UsageError: ``GM-U042`` where no patient has two images, or for a ``block`` below 3.
    """

    def __init__(
        self,
        dataset: Sized,
        patients: Sequence[int],
        n_draws: int,
        block: int = 8,
        seed: int = 0,
        num_replicas: int | None = None,
        rank: int | None = None,
    ) -> None:
        super().__init__(dataset, n_draws, None, seed, num_replicas, rank)
        groups: dict[int, list[int]] = {}
        for i, patient in enumerate(patients):
            groups.setdefault(patient, []).append(i)
        self.groups = [torch.tensor(images) for images in groups.values() if len(images) > 1]
        if not self.groups or block < 3:
            got = f"{len(self.groups)} patients with two images, blocks of {block}"
            raise UsageError("GM-U042", "nothing to draw", got=got, expected="at least one, blocks of 3 or more")
        self.block = block
        self.n_images = sum(len(images) for images in self.groups)

    def _pass(self, number: int) -> torch.Tensor:
        """All images once, by blocks."""
        generator = self._generator(number)
        blocks: list[torch.Tensor] = []
        for images in self.groups:
            shuffled = images[torch.randperm(len(images), generator=generator)]
            sizes = [self.block] * (len(images) // self.block)
            rest = len(images) - sum(sizes)
            if rest == 1:  # it gets a companion
                sizes[-1] -= 1
                rest = 2
            blocks += shuffled.split([*sizes, rest] if rest else sizes)
        return torch.cat([blocks[i] for i in torch.randperm(len(blocks), generator=generator).tolist()])

    def __iter__(self) -> Iterator[int]:
        start = max(self.epoch - 1, 0) * self.total_size
        first, last = start // self.n_images, (start + self.total_size - 1) // self.n_images
        stream = torch.cat([self._pass(number) for number in range(first, last + 1)])
        draws = stream[start - first * self.n_images :][: self.total_size]
        return iter(draws[self.rank * self.num_samples :][: self.num_samples].tolist())
