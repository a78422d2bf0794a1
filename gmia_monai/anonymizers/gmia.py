"""GMIA (Li et al., ISBI 2025) as a system under judgement: latent optimisation with given settings.

The optimisation itself is :func:`gmia_monai.inferers.optimize_latents`, as in ``inference.yaml``.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from gmia_monai.anonymizers.base import ImageAnonymizer, Outcome
from gmia_monai.inferers.latent_inferer import LatentOptimizationInferer
from gmia_monai.inferers.latent_optimization import optimize_latents
from gmia_monai.networks.anonymizer import AnonymizerNet
from gmia_monai.networks.pretrained import load_anonymizer, weights_hashes
from gmia_monai.typing import PathLike

__all__ = ["GMIA"]


class GMIA(ImageAnonymizer):
    """Latent optimisation, image by image.

    Args:
        network: its four networks.
        weights: sha256 of each.
        name: name for the result lines; None: made of the margin and of the losses that count.
        device: where it runs.
        unit_size: images that are optimised together.
        settings: of :class:`gmia_monai.inferers.LatentOptimizationInferer` and of
            :func:`gmia_monai.inferers.optimize_latents`, e.g. ``bfloat16``, ``margin_cos``, ``max_steps``.
    """

    def __init__(
        self,
        network: AnonymizerNet,
        weights: dict[str, str],
        name: str | None = None,
        device: str = "cpu",
        unit_size: int = 16,
        **settings: Any,
    ) -> None:
        text = json.dumps([weights, settings], sort_keys=True)
        whole = _all_settings(settings)
        super().__init__(
            name or _name(settings),
            f"gmia {text}",
            "pseudonymous",
            unit_size,
            bool(settings.get("start_noise")),
            whole,
            _description(whole),
        )
        self.network = network.to(device=device, memory_format=torch.channels_last)
        self.inferer = LatentOptimizationInferer(unit_size, **settings)
        self.device = device

    @classmethod
    def from_weights(cls, models_dir: PathLike, **settings: Any) -> GMIA:
        """From a folder of recorded weights.

        Raises:
            IntegrityError: ``GM-W001`` … ``GM-W006``.
        """
        return cls(load_anonymizer(models_dir), weights_hashes(models_dir), **settings)

    def anonymize_batch(
        self, images: Float[Tensor, "b 1 h w"], seeds: Sequence[int]
    ) -> tuple[Float[Tensor, "b 1 h w"], list[Outcome]]:
        """Optimised images; where the criterion was not met, what the last step gave.

        Raises:
            ResourceError: ``GM-R050`` when not even one image fits into memory.
        """
        result = self.inferer.optimize(images.to(self.device), self.network, list(seeds))
        return result.image, [
            Outcome(bool(c), int(s)) for c, s in zip(result.converged.tolist(), result.steps.tolist(), strict=True)
        ]


def _all_settings(given: dict[str, Any]) -> dict[str, Any]:
    """The settings with the defaults of those that were not given."""
    taken = inspect.signature(optimize_latents).parameters.values()
    defaults = {p.name: p.default for p in taken if p.default not in (inspect.Parameter.empty, None)}
    settings = {"bfloat16": False, "compiled": False} | defaults | given
    return {key: list(value) if isinstance(value, tuple) else value for key, value in settings.items()}


def _description(settings: dict[str, Any]) -> str:
    first, second = settings["betas"]
    return (
        f"Adam, learning rate {settings['lr']:g}, betas {first:g} and {second:g}, at most {settings['max_steps']} "
        f"steps; margin {settings['margin_cos']:g}, weight of identity {settings['lambda_id']:g}, of utility "
        f"{settings['lambda_ut']:g}"
    )


def _name(settings: dict[str, Any]) -> str:
    if settings.get("lambda_id", 1.0) == 0:
        return "gmia ut only"
    only = " id only" if settings.get("lambda_ut", 1.0) == 0 else ""
    return f"gmia m={settings.get('margin_cos', -0.5):g}{only}"
