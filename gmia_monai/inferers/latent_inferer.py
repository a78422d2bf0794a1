"""Latent optimisation as a MONAI ``Inferer``: for evaluators, bundles and MONAI Deploy."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from monai.inferers import Inferer
from torch import Tensor

from gmia_monai.errors import ResourceError, UsageError, is_out_of_memory
from gmia_monai.inferers.autocast import AutocastInferer
from gmia_monai.inferers.latent_optimization import LatentOptimizationResult, optimize_latents

__all__ = ["LatentOptimizationInferer"]

_log = logging.getLogger(__name__)
_TELL_EVERY_S = 10.0
# Without it, torch.compile writes what follows `--only` on the command line into its code, unquoted.
_COMPILE = {"benchmark_harness": False}
_FIRST_BATCH = {"cpu": 16, "cuda": 128}


class LatentOptimizationInferer(Inferer):
    """Anonymizes radiographs by :func:`gmia_monai.inferers.optimize_latents`.

    Args:
        batch_size: images that are optimised together; None: 16 on a CPU, 128 on a GPU, halved until it fits.
        bfloat16: run the networks under bfloat16 autocast; codes, losses and Adam stay in float32. Faster where the
            device computes it; paths differ by as much as rounding makes them.
        compiled: let ``torch.compile`` fuse the networks: it takes long at the start, and each step is shorter then.
            Needs a C++ compiler; not for TorchScript.
        settings: keyword arguments of :func:`optimize_latents`, e.g. ``margin_cos``, ``max_steps``, ``stop``.

    Raises:
        UsageError: ``GM-U051`` for a batch size below 1.

    Attributes:
        last_result: what the last call found, image by image.
    """

    def __init__(
        self, batch_size: int | None = None, bfloat16: bool = False, compiled: bool = False, **settings: Any
    ) -> None:
        super().__init__()
        if batch_size is not None and batch_size < 1:
            raise UsageError("GM-U051", "batch size below 1", got=batch_size, expected="null or at least 1")
        self.batch_size = batch_size
        self.settings = settings
        self.compiled = compiled
        self._run = AutocastInferer(bfloat16)
        self._parts_of: tuple[Any, list[Callable[..., Tensor]]] | None = None
        self.last_result: LatentOptimizationResult | None = None

    def __call__(
        self, inputs: Tensor, network: Any, *args: Any, seeds: list[int] | None = None, **kwargs: Any
    ) -> Tensor:
        """Maps ``[b, 1, h, w]`` in [0, 1] to anonymized images of the same shape.

        Args:
            inputs: real images.
            network: module with ``encoder``, ``synthesis``, ``identity`` and ``utility`` (whose ``features`` is taken),
                as :class:`gmia_monai.networks.AnonymizerNet`; also as TorchScript, or MONAI Deploy's wrapper around it.
            args: not used.
            seeds: one an image, for ``start_noise``.
            kwargs: not used.
        """
        self._told = time.monotonic()
        self.last_result = self.optimize(inputs, network, seeds, self._tell)
        return self.last_result.image

    def optimize(
        self,
        inputs: Tensor,
        network: Any,
        seeds: list[int] | None = None,
        on_step: Callable[[int, int], None] | None = None,
    ) -> LatentOptimizationResult:
        """As a call, with all that is known of each image.

        Raises:
            ResourceError: ``GM-R050`` when not even one image fits into memory.
        """
        # MONAI Deploy hands over a wrapper of the scripted module.
        network = getattr(network, "predictor", network)
        inputs = inputs.as_tensor() if hasattr(inputs, "as_tensor") else inputs
        if inputs.shape[0] == 0:
            # A unit whose images were all rejected.
            return LatentOptimizationResult.empty(inputs)
        parts: list[LatentOptimizationResult] = []
        first, size = 0, self.batch_size or _FIRST_BATCH.get(inputs.device.type, 16)
        while first < inputs.shape[0]:
            chunk = inputs[first : first + size]
            try:
                parts.append(
                    optimize_latents(
                        chunk,
                        *self._parts(network),
                        seeds=None if seeds is None else seeds[first : first + size],
                        on_step=on_step,
                        **self.settings,
                    )
                )
            except (MemoryError, torch.OutOfMemoryError, RuntimeError) as error:
                size = self._smaller(size, chunk.shape[0], error)
                continue
            first += chunk.shape[0]
        return LatentOptimizationResult.cat(parts)

    def _parts(self, network: Any) -> list[Callable[..., Tensor]]:
        """Encoder, synthesis, identity and utility, as the settings say; compiled once for each network."""
        if self._parts_of is None or self._parts_of[0] is not network:
            parts = [network.encoder, network.synthesis, network.identity, network.utility.features]
            if self.compiled:
                parts = [torch.compile(part, dynamic=True, options=_COMPILE) for part in parts]
            self._parts_of = network, [partial(self._through, part) for part in parts]
        return self._parts_of[1]

    def _through(self, part: Callable[..., Tensor], inputs: Tensor, *args: Any) -> Tensor:
        return self._run(inputs, part, *args)

    def _tell(self, step: int, unfinished: int) -> None:
        """A line every ten seconds: a unit of images can take minutes."""
        if time.monotonic() - self._told >= _TELL_EVERY_S:
            self._told = time.monotonic()
            _log.info("step %d, %d images unfinished", step, unfinished)

    def _smaller(self, size: int, tried: int, error: Exception) -> int:
        """Half the batch size after an exhausted memory; anything else is raised again."""
        if not is_out_of_memory(error):
            raise error
        if tried <= 1:
            raise ResourceError(
                "GM-R050", "a single image does not fit into memory", next_step="use a smaller model or another device"
            ) from error
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        smaller = max(1, min(size, tried) // 2)
        _log.warning("a batch of %d images does not fit into memory, going on with %d", min(size, tried), smaller)
        self.batch_size = smaller
        return smaller
