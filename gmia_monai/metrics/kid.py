"""Kernel distance of two sets of images (KID; Binkowski et al., ICLR 2018): the unbiased squared maximum mean
discrepancy of their features under the kernel ``(x . y / d + 1) ** 3``.

In the literature the features are those of an Inception network; here they are whatever is given, so a figure means
something only beside others of the same network. It can be below zero. The average over random subsets, which spares
the literature a large kernel matrix, stands beside the figure of all images.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy.sparse import csr_array

from gmia_monai.errors import UsageError

__all__ = ["KernelDistance", "SubsetKID", "kid_over_subsets", "polynomial_kernel"]


class SubsetKID(NamedTuple):
    """Mean and standard deviation of the distance over random subsets."""

    mean: float
    sd: float


def polynomial_kernel(x: Float[np.ndarray, "n d"], y: Float[np.ndarray, "m d"]) -> Float[np.ndarray, "n m"]:
    """``(x . y / d + 1) ** 3`` for all pairs, in double precision."""
    return (x.astype(np.float64) @ y.astype(np.float64).T / x.shape[1] + 1.0) ** 3


class KernelDistance:
    """The distance for any drawing of patients, from kernel values that are summed over patients once.

    A pair of two patients counts as often as the product of how often they were drawn, a pair within one patient as
    often as the patient was; an image is never paired with itself within its own set.

    Args:
        real: features of real images.
        fake: features of the others.
        unit_real: number of the patient (or other unit of drawing) of each real image, from 0.
        unit_fake: number of that of each other image; shared with real ones where an image was made from one patient.

    Raises:
        UsageError: ``GM-U351`` where features do not fit, are not finite, or a set has fewer than two images.
    """

    def __init__(
        self,
        real: Float[np.ndarray, "n d"],
        fake: Float[np.ndarray, "m e"],
        unit_real: Int[np.ndarray, "n"],
        unit_fake: Int[np.ndarray, "m"],
    ) -> None:
        _check(real, fake, 2)
        self.n_units = int(max(unit_real.max(), unit_fake.max())) + 1
        one, other = (self._of_units(units) for units in (unit_real, unit_fake))
        sets = ((real, real, one, one), (fake, fake, other, other), (real, fake, one, other))
        self._sums = []
        for (x, y, left, right), within in zip(sets, (True, True, False), strict=True):
            kernel, pairs = polynomial_kernel(x, y), np.ones((len(x), len(y)))
            if within:
                np.fill_diagonal(kernel, 0.0)
                np.fill_diagonal(pairs, 0.0)
            self._sums.append(tuple(_split(left @ (right @ table.T).T) for table in (kernel, pairs)))

    def _of_units(self, units: Int[np.ndarray, "n"]) -> csr_array:
        n = len(units)
        return csr_array((np.ones(n), (units, np.arange(n))), shape=(self.n_units, n))

    def __call__(self, counts: Float[np.ndarray, "units"] | None = None) -> float:
        """The distance when each unit is drawn ``counts`` times; None: once."""
        counts = np.ones(self.n_units) if counts is None else counts
        real, fake, cross = (_drawn(kernel, counts) / _drawn(pairs, counts) for kernel, pairs in self._sums)
        return float(real + fake - 2.0 * cross)


def _split(table: Float[np.ndarray, "u u"]) -> tuple[Float[np.ndarray, "u u"], Float[np.ndarray, "u"]]:
    """Sums between two units, and within one."""
    within = np.diag(table).copy()
    np.fill_diagonal(table, 0.0)
    return table, within


def _drawn(sums: tuple[Float[np.ndarray, "u u"], Float[np.ndarray, "u"]], counts: Float[np.ndarray, "u"]) -> float:
    between, within = sums
    return float(counts @ between @ counts + counts @ within)


def kid_over_subsets(
    real: Float[np.ndarray, "n d"],
    fake: Float[np.ndarray, "m e"],
    subset_size: int = 1000,
    n_subsets: int = 100,
    seed: int = 0,
) -> SubsetKID:
    """The distance averaged over random subsets of both sets, as the literature reports it.

    Args:
        real: features of real images.
        fake: features of the others.
        subset_size: images of each set in a subset, drawn without replacement.
        n_subsets: subsets.
        seed: of the draws.

    Raises:
        UsageError: ``GM-U351`` as :class:`KernelDistance`, or for subsets larger than a set.
    """
    _check(real, fake, max(subset_size, 2))
    rng = np.random.default_rng(seed)
    values = []
    for _ in range(n_subsets):
        x = real[rng.choice(len(real), subset_size, replace=False)]
        y = fake[rng.choice(len(fake), subset_size, replace=False)]
        n = subset_size * (subset_size - 1)
        within = [(k.sum() - np.trace(k)) / n for k in (polynomial_kernel(x, x), polynomial_kernel(y, y))]
        values.append(sum(within) - 2.0 * polynomial_kernel(x, y).mean())
    return SubsetKID(float(np.mean(values)), float(np.std(values)))


def _check(real: Float[np.ndarray, "n d"], fake: Float[np.ndarray, "m e"], least: int) -> None:
    if real.shape[1] != fake.shape[1] or not (np.isfinite(real).all() and np.isfinite(fake).all()):
        raise UsageError("GM-U351", "features do not fit, or are not finite", got=f"{real.shape}, {fake.shape}")
    if min(len(real), len(fake)) < least:
        raise UsageError(
            "GM-U351",
            "too few images for the kernel distance",
            got=min(len(real), len(fake)),
            expected=f"at least {least} of each set",
        )
