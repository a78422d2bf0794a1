"""Memorisation: does a generated image repeat one that the generator was trained on?

Each released image is compared with its nearest training image. How near that is by chance is known from real images
that the generator has never seen: a released image counts as a copy where it is nearer to a training image than all but
a small share of the held-out images are. Held-out images of people who are not in the training set set the scale, so
that the rate of false alarms is chosen, not hoped for (compare Carlini et al., USENIX Security 2023, section 4).

Copies among the held-out images of the judged role are what is expected by chance; what the release has beyond them is
the figure that an alarm reads. Images are drawn by patient: a released image goes with the patients it was made from,
and stands alone where it was made from nobody's.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from gmia_monai.attacks.attackers.base import EmbeddingAttacker
from gmia_monai.attacks.base import AttackerKnowledge, Judged, Pixels
from gmia_monai.attacks.pool import AttackerPool
from gmia_monai.data.roles import TRAINING_ROLE
from gmia_monai.errors import UsageError
from gmia_monai.metrics.intervals import patient_bootstrap_figures
from gmia_monai.metrics.results import Result, RunContext

__all__ = ["MemorisationAttack", "nearest_similarity", "pixel_features"]

_SIDE = 16
_CHUNK = 512
_UNITS = {"one_to_one": "patient", "k_to_one": "set of source patients", "generated": "released image"}


def pixel_features(pixels: Pixels) -> Float[ndarray, "n d"]:
    """Images averaged down to 16 x 16, without mean and contrast: a copy that was shifted or dimmed stays near."""
    n, _, h, w = pixels.shape
    small = pixels[:, 0, : h // _SIDE * _SIDE, : w // _SIDE * _SIDE]
    small = small.reshape(n, _SIDE, h // _SIDE, _SIDE, w // _SIDE).mean(axis=(2, 4)).reshape(n, -1)
    small = small - small.mean(axis=1, keepdims=True)
    return np.asarray(small / np.maximum(np.linalg.norm(small, axis=1, keepdims=True), 1e-12))


def nearest_similarity(features: Float[ndarray, "n d"], others: Float[ndarray, "m d"]) -> Float[ndarray, "n"]:
    """Cosine of each vector with the nearest of the others."""
    a, b = (x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12) for x in (features, others))
    parts = [(a[i : i + _CHUNK] @ b.T).max(axis=1) for i in range(0, len(a), _CHUNK)]
    return np.concatenate(parts) if parts else np.zeros(0)


class MemorisationAttack:
    """Copies of training images among released ones, by pixels and by each attacker that embeds images.

    Args:
        attackers: those of them that embed images are used, for copies that pixels do not show.
        seed: seed of the attackers.
        n_boot: bootstrap resamples.
        false_alarms: share of held-out images that may count as copies.
    """

    name = "memorisation"

    def __init__(self, attackers: AttackerPool, seed: int = 0, n_boot: int = 500, false_alarms: float = 0.01) -> None:
        self.attackers = attackers
        self.seed = seed
        self.n_boot = n_boot
        self.false_alarms = false_alarms
        self._fitted: dict[str, EmbeddingAttacker] = {}
        self._knowledge: AttackerKnowledge | None = None
        self._threshold: dict[str, float] = {}
        self._training: Pixels | None = None
        self._training_features: dict[str, np.ndarray] = {}

    def fit(self, knowledge: AttackerKnowledge) -> None:
        """Sets each threshold from held-out images of V2.

        Raises:
            UsageError: ``GM-U325`` where no training image is known.
        """
        roles = np.array(knowledge.training.cohort.roles)
        if not (roles == TRAINING_ROLE).any():
            raise UsageError("GM-U325", "memorisation needs the images that the generator was trained on (role S)")
        self._knowledge = knowledge
        self._training = knowledge.training.pixels[roles == TRAINING_ROLE]
        self._fitted = self.attackers.embedding(self.seed, knowledge)
        self._training_features.clear()
        for name in ("pixels", *self._fitted):
            held_out = self._nearest(name, knowledge.choice.real.pixels, released=False)
            self._threshold[name] = float(np.quantile(held_out, 1.0 - self.false_alarms))

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
        n, n_units = len(sources), len(np.unique(units[: len(sources)]))
        known = sorted(set().union(*sources))
        results = []
        for name, threshold in self._threshold.items():
            nearest = self._nearest(name, judged.release.pixels, released=True)
            held_out = self._nearest(name, judged.real.pixels, released=False)
            copies = np.concatenate([nearest, held_out]) > threshold

            def shares(weights: Float[ndarray, "m"], copies: ndarray = copies) -> tuple[float, float, float]:
                drawn = weights * copies
                share, control = (
                    drawn[side].sum() / weights[side].sum() if weights[side].any() else float("nan")
                    for side in (slice(None, n), slice(n, None))
                )
                return share, control, share - control

            share, control, excess = patient_bootstrap_figures(
                [shares], units, self.n_boot, context.seed, bounds=[(0.0, 1.0), (0.0, 1.0), (-1.0, 1.0)]
            )
            extra = {
                "threshold": round(threshold, 6),
                "false_alarms_wanted": self.false_alarms,
                "share_of_real_held_out": round(control.value, 6),
                "share_of_real_held_out_95": [round(limit, 6) for limit in control[1:]],
                "nearest_quantiles_50_95_100": [round(float(q), 6) for q in np.quantile(nearest, [0.5, 0.95, 1.0])],
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

    def _nearest(self, name: str, pixels: Pixels, released: bool) -> Float[ndarray, "n"]:
        embed = real = pixel_features
        if name != "pixels":
            attacker = self._fitted[name]
            embed, real = (attacker.embed_released if released else attacker.embed_real), attacker.embed_real
        if name not in self._training_features:
            self._training_features[name] = real(self._training)
        return nearest_similarity(embed(pixels), self._training_features[name])


def _units(sources: Sequence[set[int]], patients: Int[ndarray, "m"]) -> Int[ndarray, "n"]:
    """What is drawn together: numbers for the released images, by their source patients, then for the real ones.

    A released image of one patient has the number of that patient's real images; others have numbers of their own.
    """
    sets = [frozenset(s) if s else frozenset({-1 - i}) for i, s in enumerate(sources)]
    sets += [frozenset({int(p)}) for p in patients]
    number = {s: i for i, s in enumerate(dict.fromkeys(sets))}
    return np.array([number[s] for s in sets], dtype=np.int64)
