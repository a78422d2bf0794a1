"""Generated radiographs in place of real ones: class-conditional latent diffusion with privacy-enhancing sampling.

Packhaeuser et al., ISBI 2023 (arXiv 2211.01323). Of the real images the findings alone are used: one image is drawn for
each of their label vectors, in another order. What a released image may give away are the training images of the
generator, which is what the filter is against.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Int64, UInt8

from gmia_monai.anonymizers.privacy_filter import PrivacyFilter
from gmia_monai.anonymizers.store import Unit, UnitStore, finished_units, to_levels
from gmia_monai.data.release import RealImages, Release
from gmia_monai.errors import UsageError
from gmia_monai.networks.latent_diffusion import LatentDiffusionNet
from gmia_monai.networks.pretrained import load_recorded
from gmia_monai.typing import PathLike
from gmia_monai.weights import read_index

__all__ = ["LatentDiffusion"]

_log = logging.getLogger(__name__)
_LEVELS = 255.0
Images = RealImages | Callable[[], RealImages]


class LatentDiffusion:
    """Draws an image for each label vector; images that the filter rejects are drawn again.

    An image all of whose draws are rejected is left out of the release: what the filter says is never overruled.

    Attributes:
        last_rejection_rate: share of the draws of the last release that the filter rejected; nan before, 0 without
            filter.
        last_left_out: images that are missing from it.

    Args:
        network: of the generator; frozen, in eval mode.
        weights: sha256 of its weights.
        guidance: weight of the condition, 1 for none beyond what was learned.
        n_steps: steps of denoising.
        filter: rejects images; None: all are accepted.
        max_draws: draws an image at most.
        unit_size: images that are drawn together.
        bfloat16: autocast.
        device: where it runs.
    """

    policy = "unlinkable"

    def __init__(
        self,
        network: LatentDiffusionNet,
        weights: str,
        guidance: float = 1.5,
        n_steps: int = 25,
        filter: PrivacyFilter | None = None,
        max_draws: int = 10,
        unit_size: int = 32,
        bfloat16: bool = False,
        device: str = "cpu",
    ) -> None:
        self.network = network.to(device)
        self.filter = filter
        self.guidance = guidance
        self.n_steps = n_steps
        self.max_draws = max_draws
        self.unit_size = unit_size
        self.bfloat16 = bfloat16
        self.device = device
        self.name = f"latent diffusion g={guidance:g}{'' if filter is None else ' filtered'}"
        screen = "" if filter is None else filter.fingerprint
        settings = [weights, guidance, n_steps, screen, max_draws if filter else 1, unit_size, bfloat16]
        self.fingerprint = f"latent diffusion {json.dumps(settings)}"
        self.last_rejection_rate = float("nan")
        self.last_left_out = 0

    @classmethod
    def from_weights(
        cls,
        models_dir: PathLike,
        training: Images | None = None,
        other_people: Images | None = None,
        filtered: bool = True,
        filter: PrivacyFilter | None = None,
        rate: float = 0.01,
        n_nearest: int = 1,
        negatives: str = "nearest",
        device: str = "cpu",
        **settings: Any,
    ) -> LatentDiffusion:
        """From a folder of recorded weights (``latent_diffusion``), with a filter of recorded networks.

        Args:
            models_dir: folder of the weights.
            training: images that the generator learned from (role S), or what gives them when they are needed.
            other_people: images of other people (role V1) that decide the filter's threshold, or what gives them.
            filtered: whether images are filtered; without, neither of the two is needed.
            filter: a filter that is at hand, in place of one made from the two.
            rate: as :meth:`gmia_monai.anonymizers.privacy_filter.PrivacyFilter.calibrated`.
            n_nearest: as there.
            negatives: as there.
            device: where networks run.
            settings: of the constructor.

        Raises:
            IntegrityError: ``GM-W001`` … ``GM-W006``.
            ManifestError: a person in both sets of images.
            UsageError: ``GM-U079`` where it is to be filtered and images for that are missing.
        """
        network = load_recorded(models_dir, "latent_diffusion")
        if filtered and filter is None:
            if training is None or other_people is None:
                raise _refusal("a filter without images", "training images and images of other people, or filtered off")
            parts = [images() if callable(images) else images for images in (training, other_people)]
            filter = PrivacyFilter.calibrated(models_dir, *parts, rate, negatives, n_nearest, device=device)
        sha256 = read_index(models_dir)["latent_diffusion"]["sha256"]
        return cls(network, sha256, filter=filter if filtered else None, device=device, **settings)  # type: ignore[arg-type]

    @property
    def description(self) -> str:
        """Settings, and what became of the draws of the last release, in words."""
        text = f"DDIM, {self.n_steps} steps, guidance {self.guidance:g}"
        if self.filter is None:
            return f"{text}; no filter"
        text = f"{text}; filter: {self.filter.description}; at most {self.max_draws} draws an image"
        if np.isnan(self.last_rejection_rate):
            return text
        return f"{text}; {self.last_rejection_rate:.2%} of the draws rejected, {self.last_left_out} images left out"

    def figures_of(self, real: RealImages) -> dict[str, float]:
        """``rejection_rate`` of the last release, and the share of images ``left_out`` of it."""
        return {"rejection_rate": self.last_rejection_rate, "left_out": self.last_left_out / max(1, len(real))}

    def anonymize(self, real: RealImages, seed: int = 0, store: UnitStore | None = None) -> Release:
        """Draws as many images as there are real ones, with the findings that they were drawn for.

        Args:
            real: whose findings are taken, in another order; where some images have none, those of others serve again.
            seed: decides order and noise.
            store: finished units are kept there, and are not made again.

        Raises:
            UsageError: ``GM-U079`` where no findings of the generator are known of the real images, or the filter
                rejected every draw; ``GM-U014`` for ``n_steps``.
        """
        labels = self.draw_labels(real, seed)
        # Releases of two cohorts with one seed must not share their noise.
        origin = f"{seed} {real.cohort.patients_hash}"

        def unit_of(part: slice) -> Unit:
            unit = labels[part]
            facts = f"{self.fingerprint} {origin} {part.start} {unit.shape}".encode()
            return (facts, unit.tobytes()), lambda: self._draw(unit, origin, part.start)

        pixels = np.empty((len(labels), 1, self.network.image_size, self.network.image_size), np.float32)
        outcomes = np.empty((len(labels), 2), np.int64)
        for part, images, how in finished_units(len(labels), self.unit_size, unit_of, store, self.name):
            pixels[part], outcomes[part] = images, how
        accepted: Bool[np.ndarray, "n"] = outcomes[:, 0] == 1
        draws = max(int(outcomes[:, 1].sum()), 1)
        self.last_rejection_rate = float(1.0 - accepted.sum() / draws)
        self.last_left_out = int((~accepted).sum())
        if self.filter is not None:
            _log.info("%s: %s", self.name, self.description)
        if not accepted.any():
            raise _refusal(f"a filter that rejected all {draws} draws", "a filter that accepts some image")
        return Release(
            self.name,
            pixels[accepted],
            ((),) * int(accepted.sum()),
            self.policy,
            labels=labels[accepted],
            findings=self.network.findings,
        )

    def draw_labels(self, real: RealImages, seed: int = 0) -> Float32[np.ndarray, "n k"]:
        """The label vectors of the real images, each once, in an order that the seed decides; nan where not known.

        Raises:
            UsageError: ``GM-U079`` where none is known.
        """
        findings = self.network.findings
        labels = real.cohort.label_matrix(findings, "ignore")
        looked_for = np.isin(findings, real.cohort.findings or ())
        labels[:, ~looked_for] = np.nan  # not named means absent only where somebody looked
        known = labels[~np.isnan(labels).all(axis=1)]
        if len(known) == 0:
            raise _refusal(
                f"{len(real)} images without these findings", f"labels of some of {', '.join(findings[:4])}, …"
            )
        rng = np.random.default_rng(seed)
        rounds = -(-len(labels) // len(known))
        return known[np.concatenate([rng.permutation(len(known)) for _ in range(rounds)])[: len(labels)]]

    def _draw(
        self, labels: Float[np.ndarray, "b k"], origin: str, first: int
    ) -> tuple[UInt8[np.ndarray, "b 1 h w"], Int64[np.ndarray, "b 2"]]:
        """Images of a unit in 8 bits; whether each was accepted, and its draws."""
        size = self.network.image_size
        pixels = np.zeros((len(labels), 1, size, size), np.uint8)
        outcomes = np.zeros((len(labels), 2), np.int64)
        open_ = np.arange(len(labels))
        for draw in range(1 if self.filter is None else self.max_draws):
            seeds = [_seed(f"{origin} {first + i} {draw}") for i in open_.tolist()]
            condition = torch.from_numpy(labels[open_]).to(self.device)
            with torch.autocast(torch.device(self.device).type, dtype=torch.bfloat16, enabled=self.bfloat16):
                found = self.network.sample(condition, seeds, self.guidance, self.n_steps)
            levels = to_levels(found.float())
            outcomes[open_, 1] += 1
            good = np.ones(len(open_), dtype=bool)
            if self.filter is not None:
                # What is released is judged: the image after rounding.
                good = ~self.filter.rejects(torch.from_numpy(levels / np.float32(_LEVELS))).numpy()
            pixels[open_[good]] = levels[good]
            outcomes[open_[good], 0] = 1
            open_ = open_[~good]
            if len(open_) == 0:
                break
        return pixels, outcomes


def _seed(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:7], "little")


def _refusal(got: str, expected: str) -> UsageError:
    return UsageError("GM-U079", "latent diffusion cannot sample as it is set", got=got, expected=expected)
