"""k-SALSA (Jeon et al., ECCV 2022): one image for k patients, in content and local style between them.

The published system groups images; here groups are of k different patients, one image each, so that k counts people.
Its networks are replaced by ours: the auto-encoder's encoder for ReStyle, the utility network's pooled feature for
MoCo-v2 (content) and its first activations for the first convolution of VGG-19 (style). Further deviations:

- codes are in W, one for all layers, as our encoder makes them; ReStyle's are in W+;
- Gram matrices are divided by channels and positions, and ``lambda_style`` is 150 in place of 1e-6. Measured on 40
  radiographs at 64 px (8 groups of 5), that makes the gradient of the weighted style half as long as that of the
  weighted content at the start, and 1.1 to 1.3 times as long from a quarter of the steps on;
- the sources whose content and style are looked at are the reconstructions ``G(w_k)``. That is published for the
  content; for the style it is our choice.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Float32, Int, UInt8
from torch import Tensor, nn

from gmia_monai.anonymizers.base import Outcome
from gmia_monai.anonymizers.grouping import (
    diversity_figures,
    label_diversity,
    majority_labels,
    one_image_per_patient,
    same_size_clusters,
)
from gmia_monai.anonymizers.store import Unit, UnitStore, finished_units, to_levels
from gmia_monai.data.release import Convergence, RealImages, Release
from gmia_monai.errors import UsageError
from gmia_monai.losses.style import crop_grams, local_style
from gmia_monai.networks.aegan import AEGAN
from gmia_monai.networks.pretrained import load_recorded
from gmia_monai.networks.utility import UtilityNet
from gmia_monai.typing import IntArray, PathLike
from gmia_monai.weights import read_index

__all__ = ["KSalsa", "ramped_rate"]

_log = logging.getLogger(__name__)
_PARTS = ("aegan", "utility")
_RAMP_UP, _RAMP_DOWN = 0.05, 0.25
_ENCODED_TOGETHER = 64


def ramped_rate(step: int, n_steps: int, lr: float) -> float:
    """Learning rate of StyleGAN2's projector: up over the first 5 % of the steps, down a cosine over the last 25 %.

    Args:
        step: from 0; there the rate is 0.
        n_steps: of the whole run.
        lr: the highest rate.
    """
    done = step / n_steps
    down = 0.5 - 0.5 * math.cos(math.pi * min(1.0, (1.0 - done) / _RAMP_DOWN))
    return lr * down * min(1.0, done / _RAMP_UP)


class KSalsa:
    """k-SALSA over groups of ``k`` different patients; patients beyond the last whole group are not released.

    The findings of the majority of its sources are released with an image; it is done when its loss has come down.

    Args:
        aegan: encoder and synthesis; both networks are frozen and in eval mode.
        utility: features of content and style.
        weights: sha256 of each.
        k: patients of a group, at least 2; 2, 5 and 10 in the paper.
        lambda_content: weight of ``mean_k 1 - cos``.
        lambda_style: weight of local style alignment, see :func:`gmia_monai.losses.style.local_style`.
        lr: highest learning rate of Adam, see :func:`ramped_rate`.
        n_steps: updates, all of which are made.
        grid: crops along each axis.
        name: name for the result lines; None: made of ``k``.
        device: where it runs.
        unit_size: groups that are worked on together; each of them as if alone.

    Attributes:
        name: of the system and of ``k``.
        fingerprint: hash of the settings and the weights.
        policy: ``k_anonymous``.

    Raises:
        UsageError: ``GM-U068`` for a setting outside its range.
    """

    policy = "k_anonymous"

    def __init__(
        self,
        aegan: AEGAN,
        utility: UtilityNet,
        weights: Mapping[str, str],
        *,
        k: int = 5,
        lambda_content: float = 100.0,
        lambda_style: float = 150.0,
        lr: float = 0.1,
        n_steps: int = 100,
        grid: int = 4,
        name: str | None = None,
        device: str = "cpu",
        unit_size: int = 8,
    ) -> None:
        for setting, got, usable, expected in (
            ("k", k, k >= 2, "at least 2"),
            ("lambda_content", lambda_content, lambda_content >= 0.0, "at least 0"),
            ("lambda_style", lambda_style, lambda_style >= 0.0, "at least 0"),
            ("lr", lr, lr > 0.0, "above 0"),
            ("n_steps", n_steps, n_steps >= 1, "at least 1"),
            ("grid", grid, grid >= 1, "at least 1"),
        ):
            if not usable:
                raise UsageError("GM-U068", f"unusable {setting} of k-SALSA", got=got, expected=expected)
        self.settings: dict[str, Any] = {
            "k": k,
            "lambda_content": lambda_content,
            "lambda_style": lambda_style,
            "lr": lr,
            "n_steps": n_steps,
            "grid": grid,
        }
        self.description = (
            f"groups of {k} different patients, Adam, learning rate up to {lr:g}, {n_steps} steps from the mean code; "
            f"weight of content {lambda_content:g}, of style {lambda_style:g}"
        )
        self.name = name or f"k_salsa k={k}"
        self.fingerprint = f"k_salsa {json.dumps([dict(weights), self.settings], sort_keys=True)}"
        place = {"device": device, "memory_format": torch.channels_last}
        self.aegan, self.utility = aegan.to(**place), utility.to(**place)
        self.k, self.lr, self.n_steps, self.grid = k, lr, n_steps, grid
        self.lambda_content, self.lambda_style = lambda_content, lambda_style
        self.device, self.unit_size = device, unit_size
        self._diversity: IntArray | None = None

    @classmethod
    def from_weights(cls, models_dir: PathLike, **settings: Any) -> KSalsa:
        """From a folder of recorded weights: ``aegan`` and ``utility``.

        Raises:
            IntegrityError: ``GM-W001`` … ``GM-W006``.
        """
        networks: list[Any] = [load_recorded(models_dir, name) for name in _PARTS]
        index = read_index(models_dir)
        return cls(*networks, weights={name: index[name]["sha256"] for name in _PARTS}, **settings)

    def anonymize(self, real: RealImages, seed: int = 0, store: UnitStore | None = None) -> Release:
        """Makes a release of one image a group; its sources are the positions of the ``k`` images of the group.

        The same images in another order give the same groups and the same images, in the same order.

        Args:
            real: what to anonymize.
            seed: decides which image of a patient is used.
            store: finished groups are kept there, and are not made again.

        Raises:
            UsageError: ``GM-U067`` for fewer than ``k`` patients.
        """
        groups = self.groups(real, seed)

        def unit_of(part: slice) -> Unit:
            unit = np.ascontiguousarray(real.pixels[groups[part]], dtype=np.float32)

            def make() -> tuple[UInt8[np.ndarray, "b 1 h w"], list[tuple[bool, int]]]:
                found, how = self.merge(torch.from_numpy(unit))
                return to_levels(found), [(o.converged, o.steps) for o in how]

            return (f"{self.fingerprint} {unit.shape}".encode(), unit.tobytes()), make

        released, outcomes = np.empty((len(groups), *real.pixels.shape[1:]), np.float32), []
        for part, images, how in finished_units(len(groups), self.unit_size, unit_of, store, self.name, "groups"):
            released[part] = images
            outcomes.append(how)
        converged, steps = np.concatenate(outcomes).T
        convergence = Convergence(converged.astype(bool), steps, self.settings, self.description)
        release = Release(
            self.name,
            released,
            tuple(tuple(group) for group in groups.tolist()),
            self.policy,
            labels=majority_labels(real.cohort, groups.tolist()),
            findings=real.cohort.findings or (),
            convergence=convergence,
        )
        self._diversity = sets = label_diversity(release, real.cohort)
        _log.info(
            "%s: %d groups of %d of the %d patients; different sets of findings in a group: at least %d, mean %.1f",
            self.name,
            len(groups),
            self.k,
            len(real.cohort.patients),
            sets.min(),
            sets.mean(),
        )
        return release

    def figures_of(self, real: RealImages) -> dict[str, float]:
        """Different sets of findings in a group of the last release: ``label_diversity_min`` and ``_mean``."""
        sets = self._diversity
        return {} if sets is None else diversity_figures(sets)

    def groups(self, real: RealImages, seed: int = 0) -> Int[np.ndarray, "groups k"]:
        """Positions of the images of each group: equal groups by the Euclidean distance of codes.

        Raises:
            UsageError: ``GM-U067`` for fewer than ``k`` patients.
        """
        chosen = one_image_per_patient(real, seed)
        return chosen[same_size_clusters(self._codes(real.pixels[chosen]), self.k)]

    def losses(
        self,
        synthesised: Float[Tensor, "b 1 h w"],
        content: Float[Tensor, "b k f"],
        style: Float[Tensor, "b k t c c"],
    ) -> tuple[Float[Tensor, "b"], Float[Tensor, "b"]]:
        """Content and style of each image against its sources, not weighted.

        Args:
            synthesised: images in [0, 1].
            content: unit-length features of the sources.
            style: Gram matrices of the crops of the sources.
        """
        cos = (F.normalize(self.utility.features(synthesised), dim=1).unsqueeze(1) * content).sum(dim=2)
        grams = crop_grams(self.early_features(synthesised), self.grid)
        return (1.0 - cos).mean(dim=1), local_style(grams, style)

    def early_features(self, image: Float[Tensor, "b 1 h w"]) -> Float[Tensor, "b c hf wf"]:
        """First activations of the utility network."""
        x = (image - self.utility.mean) / self.utility.std
        for name, module in self.utility.trunk.named_children():
            # A ReLU of the trunk may work in place, on what the gradient needs.
            x = torch.relu(x) if isinstance(module, nn.ReLU) else module(x)
            if name == self.utility.perceptual_layers[0]:
                break
        return x

    def merge(self, images: Float[Tensor, "b k 1 h w"]) -> tuple[Float[Tensor, "b 1 h w"], list[Outcome]]:
        """One image in [0, 1] for each group of ``k`` real ones, and how each came out.

        The sum over the groups is minimised and Adam works on each coordinate alone: every group goes its own way.
        """
        b, k = images.shape[:2]
        with torch.no_grad():
            codes = self.aegan.encoder(images.flatten(0, 1).to(self.device))
            sources = self._synthesise(codes)
            content = F.normalize(self.utility.features(sources), dim=1).unflatten(0, (b, k))
            style = crop_grams(self.early_features(sources), self.grid).unflatten(0, (b, k))
            start = codes.unflatten(0, (b, k)).mean(dim=1)
            before = self._loss(self._synthesise(start), content, style)
        w = start.clone().requires_grad_(True)
        adam = torch.optim.Adam([w], lr=self.lr)
        for step in range(self.n_steps):
            adam.param_groups[0]["lr"] = ramped_rate(step, self.n_steps, self.lr)
            with torch.enable_grad():
                loss = self._loss(self._synthesise(w), content, style).sum()
                w.grad = torch.nan_to_num(torch.autograd.grad(loss, w)[0])
            adam.step()
        with torch.no_grad():
            made = self._synthesise(w)
            better = self._loss(made, content, style) < before
        return made, [Outcome(down, self.n_steps) for down in better.tolist()]

    def _loss(self, image: Tensor, content: Tensor, style: Tensor) -> Tensor:
        apart, other_style = self.losses(image, content, style)
        return self.lambda_content * apart + self.lambda_style * other_style

    @torch.no_grad()
    def _codes(self, pixels: Float32[np.ndarray, "n 1 h w"]) -> Float[np.ndarray, "n d"]:
        parts = torch.from_numpy(pixels).split(_ENCODED_TOGETHER)
        return torch.cat([self.aegan.encoder(part.to(self.device)) for part in parts]).double().cpu().numpy()

    def _synthesise(self, w: Tensor) -> Tensor:
        return self.aegan.synthesis(w, "const").clamp(0.0, 1.0)
