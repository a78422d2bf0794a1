"""Memorisation: does a generated image repeat one that the generator was trained on?

Each released image is compared with its nearest training image. How near that is by chance is known from real images
that the generator has never seen: a released image counts as a copy where it is nearer to a training image than all but
a small share of the held-out images are. Held-out images of people who are not in the training set set the scale, so
that the rate of false alarms is chosen, not hoped for (compare Carlini et al., USENIX Security 2023, section 4).

Pixels know a copy only where it lies on its original. So each image, released or held out, is compared in all places up
to two pixels away and as its mirror image, and the nearest of these counts; held-out images get as many tries.

Copies among the held-out images of the judged role are what is expected by chance; what the release has beyond them is
the figure that an alarm reads. Images are drawn by patient: a released image goes with the patients it was made from,
and stands alone where it was made from nobody's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from gmia_monai.attacks.attackers.base import EmbeddingAttacker
from gmia_monai.attacks.base import AttackerKnowledge, Embed, Judged, Pixels
from gmia_monai.attacks.pool import AttackerPool
from gmia_monai.attacks.seeds import Statistics, checked_seeds, embedding_attackers, shared_statistics
from gmia_monai.data.roles import TRAINING_ROLE
from gmia_monai.errors import UsageError
from gmia_monai.metrics.intervals import patient_bootstrap_figures
from gmia_monai.metrics.results import Result, RunContext

__all__ = ["MemorisationAttack", "inner_features", "nearest_original", "nearest_similarity", "pixel_features"]

_SIDE = 16
_SHIFT = 2
_CHUNK = 512
_IMAGES = 16
# Whoever knows real images sees a copy; refitted networks would embed all of S, and see no more.
_ENCODERS = ("frozen", "snn", "arcface")
_UNITS = {"one_to_one": "patient", "k_to_one": "set of source patients", "generated": "released image"}
Nearness = Callable[[Pixels], Float[ndarray, "n"]]
"""Maps images to the similarity of each with the nearest training image."""


def pixel_features(pixels: Pixels) -> Float[ndarray, "n d"]:
    """Images averaged down to 16 x 16, without mean and contrast: a copy that was dimmed or blurred stays near."""
    n, _, h, w = pixels.shape
    small = pixels[:, 0, : h // _SIDE * _SIDE, : w // _SIDE * _SIDE]
    return _unit(small.reshape(n, _SIDE, h // _SIDE, _SIDE, w // _SIDE).mean(axis=(2, 4)))


def _unit(images: Float[ndarray, "n p q"]) -> Float[ndarray, "n d"]:
    """Rows without mean, of length 1."""
    rows = images.reshape(len(images), -1)
    rows = rows - rows.mean(axis=1, keepdims=True)
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12))


def inner_features(pixels: Pixels, moves: Sequence[int] = (0,)) -> Float[ndarray, "v d"]:
    """Means over blocks of a sixteenth of the side, without mean and contrast, of what is two pixels from the edge: no
    move by two pixels takes it out of the image.

    Args:
        pixels: at least 16 pixels a side.
        moves: numbers of pixels, at most two, that the images are moved by: all images for each move down and each
            move right, in this order.
    """
    h, w = pixels.shape[2:]
    rows, columns = h // _SIDE, w // _SIDE
    # the mean of the block that starts at each pixel: every move is a choice of some of them
    means = sum(pixels[:, 0, k : h - rows + 1 + k] for k in range(rows)) / rows
    means = sum(means[:, :, k : w - columns + 1 + k] for k in range(columns)) / columns
    down, right = (
        [slice(_SHIFT + k, _SHIFT + k + (side - 2 * _SHIFT) // block * block, block) for k in moves]
        for side, block in ((h, rows), (w, columns))
    )
    return _unit(np.concatenate([means[:, i, j] for i, j in product(down, right)]))


def nearest_original(pixels: Pixels, originals: Float[ndarray, "m d"]) -> Float[ndarray, "n"]:
    """Correlation of each image with the nearest original, wherever the image lies best: up to two pixels up, down,
    left and right, as it is and mirrored.

    Args:
        pixels: the images.
        originals: :func:`inner_features` of the others.
    """
    moves, parts = range(-_SHIFT, _SHIFT + 1), []
    for i in range(0, len(pixels), _IMAGES):
        some = pixels[i : i + _IMAGES]
        nearest = (inner_features(np.concatenate([some, some[..., ::-1]]), moves) @ originals.T).max(axis=1)
        parts.append(nearest.reshape(-1, len(some)).max(axis=0))
    return np.concatenate(parts) if parts else np.zeros(0)


def nearest_similarity(features: Float[ndarray, "n d"], others: Float[ndarray, "m d"]) -> Float[ndarray, "n"]:
    """Cosine of each vector with the nearest of the others."""
    a, b = (x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12) for x in (features, others))
    parts = [(a[i : i + _CHUNK] @ b.T).max(axis=1) for i in range(0, len(a), _CHUNK)]
    return np.concatenate(parts) if parts else np.zeros(0)


class MemorisationAttack:
    """Copies of training images among released ones, by pixels and by each attacker that embeds images.

    Args:
        attackers: ``frozen``, ``snn`` and ``arcface`` are used, for copies that pixels do not show, or, where there is
            none of them, all that embed images.
        seeds: of the attackers; figures are means over them, each with a threshold of its own.
        n_boot: bootstrap resamples.
        false_alarms: share of held-out images that may count as copies.

    Raises:
        UsageError: ``GM-U316`` without a seed.
    """

    name = "memorisation"

    def __init__(
        self, attackers: AttackerPool, seeds: Sequence[int] = (0,), n_boot: int = 500, false_alarms: float = 0.01
    ) -> None:
        self.attackers = attackers
        self.seeds = checked_seeds(seeds)
        self.n_boot = n_boot
        self.false_alarms = false_alarms
        self._fitted: dict[str, list[_Space]] = {}
        self._knowledge: AttackerKnowledge | None = None

    def fit(self, knowledge: AttackerKnowledge) -> None:
        """Sets each threshold from held-out images of V2.

        Raises:
            UsageError: ``GM-U325`` where no training image is known.
        """
        roles = np.array(knowledge.training.cohort.roles)
        if not (roles == TRAINING_ROLE).any():
            raise UsageError("GM-U325", "memorisation needs the images that the generator was trained on (role S)")
        self._knowledge = knowledge
        training, held_out = knowledge.training.pixels[roles == TRAINING_ROLE], knowledge.choice.real.pixels
        originals = inner_features(training)

        def by_pixels(pixels: Pixels) -> Float[ndarray, "n"]:
            return nearest_original(pixels, originals)

        self._fitted = {"pixels": [_Space.of(by_pixels, by_pixels, held_out, self.false_alarms)]}
        encoders = [name for name in _ENCODERS if name in self.attackers]
        by_name = {name: [self.attackers.fitted(name, seed, knowledge) for seed in self.seeds] for name in encoders}
        for name, of_seeds in (by_name or embedding_attackers(self.attackers, self.seeds, knowledge)).items():
            self._fitted[name] = []
            for attacker in of_seeds:
                assert isinstance(attacker, EmbeddingAttacker)
                assert attacker.embed_real is not None and attacker.embed_released is not None
                known = attacker.embed_real(training)
                near = (_nearness(embed, known) for embed in (attacker.embed_real, attacker.embed_released))
                self._fitted[name].append(_Space.of(*near, held_out, self.false_alarms))

    def score(self, judged: Judged, context: RunContext) -> list[Result]:
        """``memorised_share.<by>.v1``, the share of released images that count as copies, with that of real held-out
        images of the judged role beside it, and ``memorised_excess.<by>.v1``, the difference of the two, which is 0
        where nothing was memorised. ``extra["unit"]`` says what was drawn in the bootstrap: patients, sets of source
        patients, or, where images have no source, released images.

        Raises:
            UsageError: ``GM-U311`` before :meth:`fit`.
        """
        if self._knowledge is None:
            raise UsageError("GM-U311", "the memorisation attack has not been fitted")
        self._knowledge.refuse_overlap(judged)
        sources = judged.release.source_patients(judged.real.cohort)
        units = _units(sources, judged.real.cohort.patient_index)
        n, n_real = len(sources), len(judged.real.cohort.patients)
        n_units = len(np.unique(units[:n]))
        known = sorted(set().union(*sources))
        results = []
        for name, spaces in self._fitted.items():
            nearest = [space.of_released(judged.release.pixels) for space in spaces]
            held_out = [space.of_real(judged.real.pixels) for space in spaces]
            copies = [
                np.concatenate(both) > space.threshold for *both, space in zip(nearest, held_out, spaces, strict=True)
            ]
            share, control, excess = patient_bootstrap_figures(
                shared_statistics(copies, lambda c: _shares(c, n)),
                units,
                self.n_boot,
                context.seed,
                bounds=[(0.0, 1.0), (0.0, 1.0), (-1.0, 1.0)],
                n_patients=[n_units, n_real, min(n_units, n_real)],
            )
            quantiles = np.mean([np.quantile(of_seed, [0.5, 0.95, 1.0]) for of_seed in nearest], axis=0)
            extra = {
                "threshold": round(float(np.mean([space.threshold for space in spaces])), 6),
                "false_alarms_wanted": self.false_alarms,
                "share_of_real_held_out": round(control.value, 6),
                "share_of_real_held_out_95": [round(limit, 6) for limit in control[1:]],
                "nearest_quantiles_50_95_100": [round(float(q), 6) for q in quantiles],
                "attacker_seeds": list(self.seeds),
                "unit": _UNITS[judged.release.kind],
                "n_units": n_units,
            }
            for figure, interval in (("memorised_share", share), ("memorised_excess", excess)):
                results.append(
                    context.result(
                        f"{figure}.{name}.v1",
                        interval,
                        n_patients=len(known) or None,
                        n_images=n,
                        attacker=None if name == "pixels" else name,
                        extra=extra,
                    )
                )
        return results


@dataclass(frozen=True, eq=False)
class _Space:
    """How near real and released images come to a training image, and how near a copy is at least."""

    of_real: Nearness
    of_released: Nearness
    threshold: float

    @classmethod
    def of(cls, of_real: Nearness, of_released: Nearness, held_out: Pixels, false_alarms: float) -> _Space:
        return cls(of_real, of_released, float(np.quantile(of_real(held_out), 1.0 - false_alarms)))


def _nearness(embed: Embed, training: Float[ndarray, "m d"]) -> Nearness:
    return lambda pixels: nearest_similarity(embed(pixels), training)


def _shares(copies: Bool[ndarray, "m"], n: int) -> Statistics:
    """Weighted share of copies among the first n images, among the others, and the difference."""

    def shares(weights: Float[ndarray, "m"]) -> tuple[float, float, float]:
        drawn = weights * copies
        share, control = (
            drawn[side].sum() / weights[side].sum() if weights[side].any() else float("nan")
            for side in (slice(None, n), slice(n, None))
        )
        return share, control, share - control

    return shares


def _units(sources: Sequence[set[int]], patients: Int[ndarray, "m"]) -> Int[ndarray, "n"]:
    """What is drawn together: numbers for the released images, by their source patients, then for the real ones.

    A released image of one patient has the number of that patient's real images; others have numbers of their own.
    """
    sets = [frozenset(s) if s else frozenset({-1 - i}) for i, s in enumerate(sources)]
    sets += [frozenset({int(p)}) for p in patients]
    number = {s: i for i, s in enumerate(dict.fromkeys(sets))}
    return np.array([number[s] for s in sets], dtype=np.int64)
