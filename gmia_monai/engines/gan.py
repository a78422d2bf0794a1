"""Training of the unconditional generator: StyleGAN2 with mapping network and style mixing.

Karras et al., CVPR 2020, with the regularisation of the co-training. Its generator is the first stage of E-training,
the baseline of GMIA (Li et al., ISBI 2025): an encoder is then trained for it while it stays as it is.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from monai.engines.utils import IterationEvents
from monai.utils.enums import CommonKeys as Keys
from monai.utils.type_conversion import convert_to_tensor
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader

from gmia_monai.engines.adversarial import AdversarialTrainer
from gmia_monai.losses.adversarial import generator_logistic_loss
from gmia_monai.networks.generator import MappedGenerator

__all__ = ["GANTrainer"]


class GANTrainer(AdversarialTrainer):
    """Trains a :class:`MappedGenerator` against a discriminator.

    The output of an iteration holds ``loss`` and ``generator_loss`` (the same), ``discriminator_loss``, and
    ``r1_penalty`` / ``path_length_penalty`` as last measured.

    Args:
        device: where to train.
        max_epochs: number of epochs.
        train_data_loader: batches with ``image``, ``[b, 1, h, w]`` in [0, 1].
        generator: network to train.
        discriminator: its adversary.
        g_optimizer: optimizer of the generator.
        d_optimizer: optimizer of the discriminator.
        style_mixing: probability that an image takes the codes of two people, from a random layer on.
        shared: the further arguments of :class:`gmia_monai.engines.adversarial.AdversarialTrainer`.

    Raises:
        ResourceError: ``GM-R030`` as :class:`gmia_monai.engines.guarded.GuardedTrainer`.
    """

    def __init__(
        self,
        device: torch.device | str,
        max_epochs: int,
        train_data_loader: Iterable | DataLoader,
        generator: MappedGenerator,
        discriminator: nn.Module,
        g_optimizer: Optimizer,
        d_optimizer: Optimizer,
        style_mixing: float = 0.9,
        **shared: Any,
    ) -> None:
        super().__init__(
            device, max_epochs, train_data_loader, generator, discriminator, g_optimizer, d_optimizer, **shared
        )
        self.generator = generator
        self.style_mixing = style_mixing

    def _codes(self, n: int, device: torch.device) -> Tensor:
        """Codes of all layers, ``[n, layers, latent_dim]``, some of two people."""
        layers, dim = self.generator.synthesis.n_layers, self.generator.latent_dim
        w = self.generator.mapping(torch.randn(n, dim, device=device))
        self.generator.mapping.follow(w)
        ws = w.unsqueeze(1).expand(-1, layers, -1)
        if self.style_mixing <= 0:
            return ws
        other = self.generator.mapping(torch.randn(n, dim, device=device))
        mixed = torch.rand(n, 1, device=device) < self.style_mixing
        cut = torch.randint(1, layers, (n, 1), device=device)
        swap = mixed & (torch.arange(layers, device=device)[None] >= cut)
        return torch.where(swap[:, :, None], other[:, None, :], ws)

    def _generator_phase(self, n: int, device: torch.device) -> tuple[Tensor, float]:
        self.discriminator.requires_grad_(False)
        with self._autocast():
            fake = self.generator.synthesis(self._codes(n, device), noise_mode="random")
            loss = generator_logistic_loss(self.discriminator(fake))
        self._step("generator", self.g_optimizer, loss)
        self.discriminator.requires_grad_(True)
        return fake.detach(), loss.item()

    def _path_length_phase(self, n: int, device: torch.device) -> None:
        ws = self._codes(max(1, n // self.path_length_batch_shrink), device)
        penalty = self.path_length(self.generator.synthesis(ws, noise_mode="random"), ws)
        self._step("path-length", self.g_optimizer, penalty * (self.path_length_weight * self.path_length_interval))
        self._last["path_length_penalty"] = penalty.item()

    def _iteration(self, engine: Any, batchdata: dict[str, Tensor]) -> dict[str, float]:
        """One iteration; see the class."""
        batch = {Keys.IMAGE: convert_to_tensor(batchdata[Keys.IMAGE], track_meta=False)}
        real, _ = engine.prepare_batch(batch, engine.state.device, engine.non_blocking)
        real = real.contiguous(memory_format=torch.channels_last)
        self.generator.train()
        self.discriminator.train()
        done, device = engine.state.iteration - 1, real.device
        fake, loss = self._generator_phase(len(real), device)
        engine.fire_event(IterationEvents.FORWARD_COMPLETED)
        if self.path_length_interval and done % self.path_length_interval == 0:
            self._path_length_phase(len(real), device)
        output = {Keys.LOSS: loss, "generator_loss": loss}
        output["discriminator_loss"] = self._discriminator_phase(real, fake)
        if self.r1_interval and done % self.r1_interval == 0:
            self._r1_phase(real)
        output.update(self._last)
        engine.fire_event(IterationEvents.LOSS_COMPLETED)
        engine.fire_event(IterationEvents.MODEL_COMPLETED)
        return output
