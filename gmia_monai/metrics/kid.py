"""Kernel distance of two sets of images (KID; Binkowski et al., ICLR 2018): the unbiased squared maximum mean
discrepancy of their features under the kernel ``(x . y / d + 1) ** 3``.

In the literature the features are those of an Inception network; here they are whatever is given, so a figure means
something only beside others of the same network. The literature also takes the two sets for independent: an image and
the one that was made from it are not, and as a pair would pull the distance of a near copy below zero. Such pairs are
left out, as an image with itself is, so that a copy of a set is at zero from it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.sparse import csr_array

from gmia_monai.errors import UsageError

__all__ = ["KernelDistance", "SubsetKID", "polynomial_kernel"]


class SubsetKID(NamedTuple):
    """Mean and standard deviation of the distance over random subsets."""

    mean: float
    sd: float


def polynomial_kernel(x: Float[np.ndarray, "n d"], y: Float[np.ndarray, "m d"]) -> Float[np.ndarray, "n m"]:
    """``(x . y / d + 1) ** 3`` for all pairs, in double precision."""
    return (x.astype(np.float64) @ y.astype(np.float64).T / x.shape[1] + 1.0) ** 3


class KernelDistance:
    """The distance of two sets, for all images, for any drawing of patients, and over random subsets.

    In a drawing a pair of two patients counts as often as the product of how often they were drawn, a pair within one
    patient as often as the patient was.

    Args:
        real: features of real images.
        fake: features of the others.
        unit_real: number of the patient (or other unit of drawing) of each real image, from 0.
        unit_fake: number of that of each other image; shared with real ones where an image was made from one patient.
        sources: positions of the real images that each other one was made from; None: of none.

    Raises:
        UsageError: ``GM-U351`` where features do not fit, are not finite, or a set has fewer than two images.
    """

    def __init__(
        self,
        real: Float[np.ndarray, "n d"],
        fake: Float[np.ndarray, "m e"],
        unit_real: Int[np.ndarray, "n"],
        unit_fake: Int[np.ndarray, "m"],
        sources: Sequence[Sequence[int]] | None = None,
    ) -> None:
        if real.shape[1] != fake.shape[1] or not (np.isfinite(real).all() and np.isfinite(fake).all()):
            raise UsageError("GM-U351", "features do not fit, or are not finite", got=f"{real.shape}, {fake.shape}")
        if min(len(real), len(fake)) < 2:
            raise UsageError(
                "GM-U351", "the kernel distance needs two images of each set", got=f"{len(real)}, {len(fake)}"
            )
        apart = np.ones((len(real), len(fake)), dtype=bool)
        for j, source in enumerate(sources or ()):
            apart[list(source), j] = False
        self._tables = [
            (polynomial_kernel(real, real), ~np.eye(len(real), dtype=bool)),
            (polynomial_kernel(fake, fake), ~np.eye(len(fake), dtype=bool)),
            (polynomial_kernel(real, fake), apart),
        ]
        self.n_units = int(max(unit_real.max(), unit_fake.max())) + 1
        one, other = (self._of_units(units) for units in (unit_real, unit_fake))
        sides = ((one, one), (other, other), (one, other))
        # Kernel values and numbers of pairs, summed over patients: a drawing then costs no more than its patients.
        self._sums = [
            tuple(
                _split(left @ (right @ table.T).T) for table in (np.where(allowed, kernel, 0.0), allowed.astype(float))
            )
            for (kernel, allowed), (left, right) in zip(self._tables, sides, strict=True)
        ]

    def _of_units(self, units: Int[np.ndarray, "n"]) -> csr_array:
        n = len(units)
        return csr_array((np.ones(n), (units, np.arange(n))), shape=(self.n_units, n))

    def __call__(self, counts: Float[np.ndarray, "units"] | None = None) -> float:
        """The distance when each unit is drawn ``counts`` times; None: once."""
        counts = np.ones(self.n_units) if counts is None else counts
        real, fake, cross = (_drawn(kernel, counts) / _drawn(pairs, counts) for kernel, pairs in self._sums)
        return float(real + fake - 2.0 * cross)

    def over_subsets(self, size: int = 1000, n_subsets: int = 100, seed: int = 0) -> SubsetKID:
        """The distance averaged over random subsets of both sets, as the literature reports it.

        Args:
            size: images of each set in a subset, drawn without replacement.
            n_subsets: subsets.
            seed: of the draws.

        Raises:
            UsageError: ``GM-U351`` for subsets of fewer than two images, or larger than a set.
        """
        n, m = self._tables[2][0].shape
        if not 2 <= size <= min(n, m):
            raise UsageError("GM-U351", "size of subsets out of range", got=size, expected=f"2 to {min(n, m)}")
        rng = np.random.default_rng(seed)
        values = []
        for _ in range(n_subsets):
            x, y = rng.choice(n, size, replace=False), rng.choice(m, size, replace=False)
            parts = zip(self._tables, ((x, x), (y, y), (x, y)), strict=True)
            real, fake, cross = (_mean(kernel[np.ix_(*p)], allowed[np.ix_(*p)]) for (kernel, allowed), p in parts)
            values.append(real + fake - 2.0 * cross)
        return SubsetKID(float(np.mean(values)), float(np.std(values)))


def _mean(kernel: Float[np.ndarray, "n m"], allowed: Bool[np.ndarray, "n m"]) -> float:
    return float(np.sum(kernel, where=allowed) / allowed.sum())


def _split(table: Float[np.ndarray, "u u"]) -> tuple[Float[np.ndarray, "u u"], Float[np.ndarray, "u"]]:
    """Sums between two units, and within one."""
    within = np.diag(table).copy()
    np.fill_diagonal(table, 0.0)
    return table, within


def _drawn(sums: tuple[Float[np.ndarray, "u u"], Float[np.ndarray, "u"]], counts: Float[np.ndarray, "u"]) -> float:
    between, within = sums
    return float(counts @ between @ counts + counts @ within)
