"""What an attacker on membership sees of candidate images: one row of signals and of features each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from gmia_monai.attacks.base import Embed, Judged, Pixels
from gmia_monai.attacks.membership_signals import PAIR_FEATURES, Pool, difficulty, nearest_released, pair_features
from gmia_monai.attacks.memorisation import pixel_features
from gmia_monai.attacks.shadow import Shadow
from gmia_monai.data.release import RealImages, hash_pixels

__all__ = ["Observed", "Observer"]

_MSE, _HARD = PAIR_FEATURES.index("log_mse"), len(PAIR_FEATURES)


@dataclass(frozen=True, eq=False)
class Observed:
    """What is seen of some candidates.

    Attributes:
        patients: identifier of the patient of each.
        pair: features of source and released image; no columns where images have no source.
        signals: by name; higher for members.
    """

    patients: list[str]
    pair: Float[ndarray, "n k"]
    signals: dict[str, Float[ndarray, "n"]]

    @property
    def everything(self) -> Float[ndarray, "n k"]:
        """Features of the supervised attacker."""
        return np.column_stack([self.pair, *(v for k, v in self.signals.items() if k.startswith("nearest"))])


class Observer:
    """Looks at candidates, with what the attacker has at hand.

    Args:
        frozen: the system's own encoder, where the attacker has it.
        shadows: models that learned from none of the candidates but those of A; empty where released images have no
            source of their own.
        usual: real images that say how near people are in general.
        blank: real images of A that take the place of released ones in the control.
        seed: of which blank image takes the place of which.
    """

    def __init__(
        self, frozen: Embed | None, shadows: Sequence[Shadow], usual: Pixels, blank: Pixels, seed: int
    ) -> None:
        self.shadows = tuple(shadows)
        self.usual = usual
        self.blank = blank
        self.seed = seed
        self._spaces: dict[str, Embed] = {"pixels": pixel_features}
        if frozen is not None:
            self._spaces["frozen"] = frozen
        self._kept: dict[tuple[str, str], ndarray] = {}

    def observe(self, judged: Judged, index: Int[ndarray, "n"], pool: Pool | None) -> Observed:
        """Signals and features of candidates; without a pool those of the control, where nothing was released."""
        real = judged.real.pixels[index]
        patients = [judged.real.cohort[int(i)].patient_id for i in index]
        pair, signals = np.zeros((len(index), 0)), {}
        if self.shadows:
            output = judged.released_pixels()[index] if pool is not None else self._blank_for(len(index))
            pair = self.answers(real, output, patients)
            signals = {"loss_pixels": -pair[:, _MSE], "loss_calibrated": pair[:, _HARD] - pair[:, _MSE]}
            if "frozen" in self._spaces:
                signals["loss_frozen"] = pair[:, -1]
        released = Pool(self.blank) if pool is None else pool
        for space in self._spaces:
            signals[f"nearest_{space}"], signals[f"nearest_calibrated_{space}"] = nearest_released(
                self._features(space, real),
                patients,
                self._features(space, released.pixels),
                released.made_from,
                self._features(space, self.usual),
            )
        return Observed(patients, pair, signals)

    def answers(self, images: Pixels, output: Pixels, patients: Sequence[str]) -> Float[ndarray, "n k"]:
        """Features of a model's output for images of these patients; shadows that know a patient tell no difficulty."""
        outputs = [shadow.reconstruct(images) for shadow in self.shadows]
        return self._pair(images, output, difficulty(*self._shadow_errors(images, patients, outputs)))

    def shadow_examples(self, real: RealImages) -> list[tuple[Float[ndarray, "n k"], Bool[ndarray, "n"]]]:
        """Features of what each shadow makes of the images that shadows learned from, and whether this one did."""
        outputs = [shadow.reconstruct(real.pixels) for shadow in self.shadows]
        errors, learned = self._shadow_errors(real.pixels, [r.patient_id for r in real.cohort], outputs)
        examples = []
        for i, output in enumerate(outputs):
            others = np.arange(len(outputs)) != i
            hard = difficulty(errors[others], learned[others])
            examples.append((self._pair(real.pixels, output, hard), learned[i]))
        return examples

    def _blank_for(self, n: int) -> Pixels:
        return self.blank[np.random.default_rng(self.seed).integers(0, len(self.blank), n)]

    def _shadow_errors(
        self, real: Pixels, patients: Sequence[str], outputs: Sequence[Pixels]
    ) -> tuple[Float[ndarray, "m n"], Bool[ndarray, "m n"]]:
        """Logarithm of each shadow's error on images, and whether it learned from their patients."""
        errors = [pair_features(real, output)[:, _MSE] for output in outputs]
        return np.stack(errors), np.stack([shadow.knows(patients) for shadow in self.shadows])

    def _pair(self, real: Pixels, output: Pixels, hard: Float[ndarray, "n"]) -> Float[ndarray, "n k"]:
        """:data:`PAIR_FEATURES`, then the difficulty, then the cosine under the encoder."""
        columns = [pair_features(real, output), hard]
        if "frozen" in self._spaces:
            columns.append((self._features("frozen", real) * self._features("frozen", output)).sum(axis=1))
        return np.column_stack(columns)

    def _features(self, space: str, pixels: Pixels) -> Float[ndarray, "n d"]:
        """Unit features of images, computed once."""
        key = (space, hash_pixels(pixels))
        if key not in self._kept:
            found = self._spaces[space](pixels)
            self._kept[key] = found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-12)
        return self._kept[key]
