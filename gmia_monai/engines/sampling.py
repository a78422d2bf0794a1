"""Which images an epoch takes: a function of seed and epoch, so that a resumed run continues exactly."""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Sized

import torch
from torch.utils.data.distributed import DistributedSampler

from gmia_monai.errors import UsageError

__all__ = ["EpochSampler", "PatientPairSampler", "patient_balanced_weights"]


def patient_balanced_weights(patients: list[int], power: float = 1.0) -> list[float]:
    """Weight of each image so that patients are drawn in proportion to ``images ** (1 - power)``.

    Args:
        patients: dense patient number of each image.
        power: 1 draws every patient equally often, 0 every image.
    """
    count: dict[int, int] = {}
    for p in patients:
        count[p] = count.get(p, 0) + 1
    return [count[p] ** -power for p in patients]


class EpochSampler(DistributedSampler):
    """Draws a fixed number of images an epoch.

    Without weights the draws run through one permutation of the data set after another, across the borders of epochs;
    with weights they are independent, with replacement. Being a ``DistributedSampler``, it is told the epoch by MONAI's
    engines.

    Args:
        dataset: data set to draw from.
        n_draws: images an epoch, over all processes; the length of the data set if None.
        weights: relative weight of each image.
        seed: seed of all draws.
        num_replicas: number of processes; that of the default group if None.
        rank: number of this process.

    Raises:
        UsageError: ``GM-U042`` for an empty data set or fewer draws than processes.
    """

    def __init__(
        self,
        dataset: Sized,
        n_draws: int | None = None,
        weights: list[float] | None = None,
        seed: int = 0,
        num_replicas: int | None = None,
        rank: int | None = None,
    ) -> None:
        if num_replicas is None or rank is None:
            distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
            num_replicas = torch.distributed.get_world_size() if distributed else 1
            rank = torch.distributed.get_rank() if distributed else 0
        super().__init__(dataset, num_replicas=num_replicas, rank=rank, shuffle=True, seed=seed)
        n_draws = len(dataset) if n_draws is None else n_draws
        if len(dataset) == 0 or n_draws < num_replicas:
            raise UsageError(
                "GM-U042", "nothing to draw", got=f"{len(dataset)} images, {n_draws} draws", expected="at least one"
            )
        self.num_samples = n_draws // num_replicas
        self.total_size = self.num_samples * num_replicas
        self.weights = None if weights is None else torch.tensor(weights, dtype=torch.float64)

    def _generator(self, number: int) -> torch.Generator:
        return torch.Generator().manual_seed(self.seed * 1_000_003 + number)

    def __iter__(self) -> Iterator[int]:
        if self.weights is not None:
            draws = torch.multinomial(self.weights, self.total_size, True, generator=self._generator(self.epoch))
        else:
            n = len(self.dataset)
            start = max(self.epoch - 1, 0) * self.total_size
            first, last = start // n, (start + self.total_size - 1) // n
            stream = torch.cat([torch.randperm(n, generator=self._generator(k)) for k in range(first, last + 1)])
            draws = stream[start - first * n :][: self.total_size]
        return iter(draws[self.rank :: self.num_replicas].tolist())


class PatientPairSampler(EpochSampler):
    """Draws patients, and two different images of each, one after the other: every batch then holds positive pairs.

    Args:
        dataset: data set to draw from.
        patients: patient of each item; patients with one image are drawn, too, as twice that image, so that random
            changes make it two views. Give ``min_images`` 2 to leave them out.
        n_draws: images an epoch, over all processes; rounded down to pairs.
        power: patients are drawn in proportion to ``images ** power``.
        min_images: patients with fewer images are left out.
        seed: seed of all draws.
        num_replicas: number of processes; that of the default group if None.
        rank: number of this process.

    Raises:
        UsageError: ``GM-U042`` where nothing is to be drawn.
    """

    def __init__(
        self,
        dataset: Sized,
        patients: Sequence[int],
        n_draws: int,
        power: float = 0.5,
        min_images: int = 2,
        seed: int = 0,
        num_replicas: int | None = None,
        rank: int | None = None,
    ) -> None:
        super().__init__(dataset, n_draws // 2 * 2, None, seed, num_replicas, rank)
        groups: dict[int, list[int]] = {}
        for i, patient in enumerate(patients):
            groups.setdefault(patient, []).append(i)
        self.groups = [torch.tensor(images) for images in groups.values() if len(images) >= min_images]
        if not self.groups:
            raise UsageError("GM-U042", "nothing to draw", got="no patient with enough images", expected=min_images)
        self.patient_weights = torch.tensor([float(len(g)) ** power for g in self.groups], dtype=torch.float64)

    def __iter__(self) -> Iterator[int]:
        generator = self._generator(self.epoch)
        n_pairs = self.total_size // 2
        drawn = torch.multinomial(self.patient_weights, n_pairs, True, generator=generator).tolist()
        pairs = []
        for patient in drawn:
            images = self.groups[patient]
            order = torch.randperm(len(images), generator=generator)
            pairs.append((int(images[order[0]]), int(images[order[1 % len(images)]])))
        return iter([i for pair in pairs[self.rank :: self.num_replicas] for i in pair][: self.num_samples])
