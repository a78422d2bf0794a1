"""FALCO (Barattin et al., CVPR 2023): the middle layers of an image's code start at the nearest synthetic person.

Published for faces at 1024 px: layers 3-7 of the 18 of a code in W+ are optimised, the others stay those of the real
image's code; the loss is ``lambda_id |cos - m| + lambda_attr L_attr``. Here:

- the range of layers is scaled to the layers that there are, e.g. 2-4 of the 10 at 64 px;
- 2,000 synthetic images in place of 60,000, drawn at the same truncation, 0.7;
- the nearest one is that with the largest cosine of our utility network's pooled feature (CLIP or FaRL there);
- ``L_attr`` compares the last feature map of the same network (tokens of FaRL's ViT there). Published: 0.1 times the
  sum over 197 tokens of the mean absolute difference; here: 20, about 0.1 * 197, times the mean over positions of the
  mean absolute difference, so that the weight does not depend on the size of the image. On 20 radiographs at 64 px
  (codes of other patients for the synthetic ones) the weighted terms were 5.0 for identity and 6.9 for attributes at
  the start, their gradients 2.2 and 1.7 long: of one size;
- images are clamped to [0, 1], in the loop as well as at its end, where the published code stretches each image to its
  own smallest and largest value, which is no grey scale of a radiograph;
- the features of the real image are computed once.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from gmia_monai.anonymizers.base import ImageAnonymizer, Outcome
from gmia_monai.errors import UsageError
from gmia_monai.losses.identity import cosine
from gmia_monai.networks.aegan import AEGAN
from gmia_monai.networks.identity import IdentityNet
from gmia_monai.networks.pretrained import load_recorded
from gmia_monai.networks.utility import UtilityNet
from gmia_monai.typing import PathLike
from gmia_monai.weights import read_index

__all__ = ["PUBLISHED_LAYERS", "Falco", "trainable_layers"]

PUBLISHED_LAYERS = (3, 7, 18)
"""First and last trainable layer, counted from 0, and the number of layers, at 1024 px."""

_PARTS = ("aegan_e", "generator", "identity", "utility")
_MILESTONES, _GAMMA = (0.75, 0.9), 0.8
_MET = 0.1
_BANK_BATCH = 250


class _Codes(Protocol):
    def sample_codes(self, n: int, seed: int = 0, truncation: float = 1.0) -> Tensor: ...


def trainable_layers(n_layers: int) -> slice:
    """The published range of layers, scaled to a network of ``n_layers``: 3-7 of 18, 2-5 of 14, 2-4 of 10."""
    first, last, published = PUBLISHED_LAYERS
    return slice(round(first * n_layers / published), round(last * n_layers / published) + 1)


class Falco(ImageAnonymizer):
    """FALCO, image by image; an image counts as done when its cosine is within 0.1 of ``target_cos`` after all steps.

    Args:
        aegan: encoder, and the synthesis network of ``generator``; all networks are frozen and in eval mode.
        generator: draws codes of people who do not exist, as
            :meth:`gmia_monai.networks.generator.MappedGenerator.sample_codes` does.
        identity: identity embeddings.
        utility: features for the nearest synthetic image and for ``L_attr``.
        weights: sha256 of each.
        target_cos: ``m``, the cosine with the real image that is aimed at from both sides, in [-1, 1].
        lambda_id: weight of ``|cos - m|``.
        lambda_attr: weight of ``L_attr``.
        lr: learning rate of Adam; multiplied by 0.8 after three quarters and nine tenths of the steps.
        n_steps: updates, all of which are made.
        n_synthetic: synthetic images to choose from.
        truncation: of their codes, in (0, 1].
        synthetic_seed: of their codes; they are the same for every release.
        name: name for the result lines; None: made of ``target_cos``.
        device: where it runs.
        unit_size: images that are optimised together; each of them as if alone.
        bfloat16: run the networks of the loop under bfloat16 autocast; codes and Adam stay in float32.

    Raises:
        UsageError: ``GM-U068`` for a setting outside its range.
    """

    def __init__(
        self,
        aegan: AEGAN,
        generator: _Codes,
        identity: IdentityNet,
        utility: UtilityNet,
        weights: Mapping[str, str],
        *,
        target_cos: float = 0.0,
        lambda_id: float = 10.0,
        lambda_attr: float = 20.0,
        lr: float = 0.01,
        n_steps: int = 50,
        n_synthetic: int = 2000,
        truncation: float = 0.7,
        synthetic_seed: int = 0,
        name: str | None = None,
        device: str = "cpu",
        unit_size: int = 16,
        bfloat16: bool = False,
    ) -> None:
        for setting, got, usable, expected in (
            ("target_cos", target_cos, -1.0 <= target_cos <= 1.0, "-1 to 1"),
            ("lambda_id", lambda_id, lambda_id >= 0.0, "at least 0"),
            ("lambda_attr", lambda_attr, lambda_attr >= 0.0, "at least 0"),
            ("lr", lr, lr > 0.0, "above 0"),
            ("n_steps", n_steps, n_steps >= 0, "at least 0"),
            ("n_synthetic", n_synthetic, n_synthetic >= 1, "at least 1"),
            ("truncation", truncation, 0.0 < truncation <= 1.0, "above 0, at most 1"),
        ):
            if not usable:
                raise UsageError("GM-U068", f"unusable {setting} of FALCO", got=got, expected=expected)
        self.layers = trainable_layers(aegan.synthesis.n_layers)
        settings: dict[str, Any] = {
            "target_cos": target_cos,
            "lambda_id": lambda_id,
            "lambda_attr": lambda_attr,
            "lr": lr,
            "n_steps": n_steps,
            "n_synthetic": n_synthetic,
            "truncation": truncation,
            "synthetic_seed": synthetic_seed,
            "layers": list(range(self.layers.start, self.layers.stop)),
        } | ({"bfloat16": True} if bfloat16 else {})
        description = (
            f"Adam, learning rate {lr:g}, {n_steps} steps on layers {self.layers.start} to {self.layers.stop - 1} of "
            f"{aegan.synthesis.n_layers}, from the nearest of {n_synthetic} synthetic images; target cosine "
            f"{target_cos:g}, weight of identity {lambda_id:g}, of attributes {lambda_attr:g}"
        )
        text = json.dumps([dict(weights), settings], sort_keys=True)
        name = name or f"falco m={target_cos:g}"
        super().__init__(name, f"falco {text}", "pseudonymous", unit_size, False, settings, description)
        place = {"device": device, "memory_format": torch.channels_last}
        self.aegan, self.identity, self.utility = (net.to(**place) for net in (aegan, identity, utility))
        self.generator = generator
        self.device, self.bfloat16 = device, bfloat16
        self.target_cos, self.lambda_id, self.lambda_attr = target_cos, lambda_id, lambda_attr
        self.lr, self.n_steps = lr, n_steps
        self.n_synthetic, self.truncation, self.synthetic_seed = n_synthetic, truncation, synthetic_seed

    @classmethod
    def from_weights(cls, models_dir: PathLike, **settings: Any) -> Falco:
        """From a folder of recorded weights: ``aegan_e``, ``generator``, ``identity`` and ``utility``.

        Raises:
            IntegrityError: ``GM-W001`` … ``GM-W006``.
        """
        networks: list[Any] = [load_recorded(models_dir, name) for name in _PARTS]
        index = read_index(models_dir)
        return cls(*networks, weights={name: index[name]["sha256"] for name in _PARTS}, **settings)

    @cached_property
    def synthetic(self) -> tuple[Float[Tensor, "n d"], Float[Tensor, "n f"]]:
        """Codes of the synthetic images, and unit-length features of what the synthesis network makes of them."""
        codes = self.generator.sample_codes(self.n_synthetic, self.synthetic_seed, self.truncation).to(self.device)
        with torch.no_grad():
            found = [self.utility.features(self._synthesise(part)) for part in codes.split(_BANK_BATCH)]
        return codes, F.normalize(torch.cat(found), dim=1)

    @torch.no_grad()
    def nearest_codes(self, images: Float[Tensor, "b 1 h w"]) -> Float[Tensor, "b d"]:
        """Code of the synthetic image whose feature has the largest cosine with that of each real image in [0, 1]."""
        codes, features = self.synthetic
        return codes[(F.normalize(self.utility.features(images), dim=1) @ features.T).argmax(dim=1)]

    @torch.no_grad()
    def start(self, images: Float[Tensor, "b 1 h w"]) -> Float[Tensor, "b layers d"]:
        """Codes in W+ from which images in [0, 1] start: their own, the trainable layers those of the nearest synthetic
        image."""
        own = self.aegan.encoder(images)
        ws = own.unsqueeze(1).repeat(1, self.aegan.synthesis.n_layers, 1)
        ws[:, self.layers] = self.nearest_codes(images).unsqueeze(1)
        return ws

    def losses(
        self,
        synthesised: Float[Tensor, "b 1 h w"],
        embedding: Float[Tensor, "b e"],
        attributes: Float[Tensor, "b c hf wf"],
    ) -> tuple[Float[Tensor, "b"], Float[Tensor, "b"]]:
        """``|cos - m|`` and ``L_attr`` of each image, not weighted.

        Args:
            synthesised: images in [0, 1].
            embedding: identity embeddings of the real images.
            attributes: what :meth:`attributes` makes of the real images.
        """
        off_target = (cosine(embedding, self.identity(synthesised)) - self.target_cos).abs()
        return off_target, (self.attributes(synthesised) - attributes).abs().mean(dim=(1, 2, 3))

    def attributes(self, images: Float[Tensor, "b 1 h w"]) -> Float[Tensor, "b c hf wf"]:
        """The last feature map of the utility network: a token for each position."""
        return torch.relu(self.utility.trunk((images - self.utility.mean) / self.utility.std))

    def optimize(self, images: Float[Tensor, "b 1 h w"]) -> Float[Tensor, "b layers d"]:
        """Codes in W+ after all steps.

        The sum over the images is minimised and Adam works on each coordinate alone: every image goes its own way.
        """
        with torch.no_grad():
            embedding, attributes, ws = self.identity(images), self.attributes(images), self.start(images)
        free = ws[:, self.layers].clone().requires_grad_(True)
        adam = torch.optim.Adam([free], lr=self.lr)
        schedule = torch.optim.lr_scheduler.MultiStepLR(adam, [int(m * self.n_steps) for m in _MILESTONES], _GAMMA)
        before, after = ws[:, : self.layers.start], ws[:, self.layers.stop :]
        kind = torch.device(self.device).type
        for _ in range(self.n_steps):
            with torch.enable_grad(), torch.autocast(kind, dtype=torch.bfloat16, enabled=self.bfloat16):
                image = self._synthesise(torch.cat([before, free, after], dim=1))
                off_target, drift = self.losses(image, embedding, attributes)
                loss = (self.lambda_id * off_target + self.lambda_attr * drift).sum()
            free.grad = torch.nan_to_num(torch.autograd.grad(loss, free)[0])
            adam.step()
            schedule.step()
        return torch.cat([before, free.detach(), after], dim=1)

    def anonymize_batch(
        self, images: Float[Tensor, "b 1 h w"], seeds: Sequence[int]
    ) -> tuple[Float[Tensor, "b 1 h w"], list[Outcome]]:
        """Optimised images, clamped to [0, 1]; where the target was missed, what the last step gave."""
        images = images.to(self.device)
        ws = self.optimize(images)
        with torch.no_grad():
            made = self._synthesise(ws)
            met = (cosine(self.identity(images), self.identity(made)) - self.target_cos).abs() < _MET
        return made, [Outcome(hit, self.n_steps) for hit in met.tolist()]

    def _synthesise(self, w: Tensor) -> Tensor:
        return self.aegan.synthesis(w, "const").clamp(0.0, 1.0)
