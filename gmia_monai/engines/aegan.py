"""Co-training of encoder, generator and discriminator: the AE-GAN engine.

GMIA (Li et al., ISBI 2025, section 2.1): encoder and generator jointly minimise ``softplus(-D(G(E(x)))) + 10 MSE + 10
LPIPS``, then the discriminator takes its logistic step. Lazy R1 and path-length regularisation are those of StyleGAN2.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
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
from gmia_monai.networks.aegan import AEGAN

__all__ = ["AEGANTrainer"]


class AEGANTrainer(AdversarialTrainer):
    """Trains an :class:`AEGAN` against a discriminator.

    The output of an iteration holds the scalars ``loss`` (all of the generator's terms), ``pixel_loss``,
    ``perceptual_loss``, ``generator_loss``, ``discriminator_loss``, and ``r1_penalty`` / ``path_length_penalty`` as
    last measured.

    Args:
        device: where to train.
        max_epochs: number of epochs.
        train_data_loader: batches with ``image``, ``[b, 1, h, w]`` in [0, 1].
        autoencoder: network to train.
        discriminator: its adversary.
        g_optimizer: optimizer of the auto-encoder.
        d_optimizer: optimizer of the discriminator.
        perceptual_loss: callable ``(prediction, target) -> [b]``; None leaves the term out.
        pixel_weight: weight of the mean squared error.
        perceptual_weight: weight of the perceptual loss.
        adversarial_weight: weight of the adversarial term.
        adversarial_start: iterations before the adversarial game starts; 0 in the paper. A short budget is better
            spent on reconstruction first.
        shared: the further arguments of :class:`gmia_monai.engines.adversarial.AdversarialTrainer`.

    Raises:
        ResourceError: ``GM-R030`` as :class:`gmia_monai.engines.guarded.GuardedTrainer`.
    """

    def __init__(
        self,
        device: torch.device | str,
        max_epochs: int,
        train_data_loader: Iterable | DataLoader,
        autoencoder: AEGAN,
        discriminator: nn.Module,
        g_optimizer: Optimizer,
        d_optimizer: Optimizer,
        perceptual_loss: Callable[[Tensor, Tensor], Tensor] | None = None,
        pixel_weight: float = 10.0,
        perceptual_weight: float = 10.0,
        adversarial_weight: float = 1.0,
        adversarial_start: int = 0,
        **shared: Any,
    ) -> None:
        super().__init__(
            device, max_epochs, train_data_loader, autoencoder, discriminator, g_optimizer, d_optimizer, **shared
        )
        self.autoencoder = autoencoder
        self.perceptual_loss = perceptual_loss
        self.pixel_weight = pixel_weight
        self.perceptual_weight = perceptual_weight
        self.adversarial_weight = adversarial_weight
        self.adversarial_start = adversarial_start

    def _generator_phase(self, real: Tensor, adversarial: bool) -> tuple[Tensor, dict[str, float]]:
        self.discriminator.requires_grad_(False)
        with self._autocast():
            fake = self.autoencoder.synthesis(self.autoencoder.encoder(real), noise_mode="random")
            pixel = (fake - real).square().mean()
            perceptual = real.new_zeros(())
            if self.perceptual_loss is not None and self.perceptual_weight > 0:
                perceptual = self.perceptual_loss(fake, real).mean()
            loss = self.pixel_weight * pixel + self.perceptual_weight * perceptual
            generator = real.new_zeros(())
            if adversarial:
                generator = generator_logistic_loss(self.discriminator(fake))
                loss = loss + self.adversarial_weight * generator
        self._step("generator", self.g_optimizer, loss)
        self.discriminator.requires_grad_(True)
        scalars = {
            Keys.LOSS: loss.item(),
            "pixel_loss": pixel.item(),
            "perceptual_loss": perceptual.item(),
            "generator_loss": generator.item(),
        }
        return fake.detach(), scalars

    def _path_length_phase(self, real: Tensor) -> None:
        # Second derivatives in bfloat16 are noise; this phase and R1 run in float32.
        part = real[: max(1, real.shape[0] // self.path_length_batch_shrink)]
        w = self.autoencoder.encoder(part)
        ws = w.unsqueeze(1).expand(-1, self.autoencoder.synthesis.n_layers, -1)
        penalty = self.path_length(self.autoencoder.synthesis(ws, noise_mode="random"), ws)
        self._step("path-length", self.g_optimizer, penalty * (self.path_length_weight * self.path_length_interval))
        self._last["path_length_penalty"] = penalty.item()

    def _iteration(self, engine: Any, batchdata: dict[str, Tensor]) -> dict[str, float]:
        """One iteration; see the class."""
        # Without metadata: a MetaTensor would pass into the path-length mean, and checkpoints could not be read again.
        batch = {Keys.IMAGE: convert_to_tensor(batchdata[Keys.IMAGE], track_meta=False)}
        real, _ = engine.prepare_batch(batch, engine.state.device, engine.non_blocking)
        real = real.contiguous(memory_format=torch.channels_last)
        self.autoencoder.train()
        self.discriminator.train()
        done = engine.state.iteration - 1
        adversarial = self.adversarial_weight > 0 and done >= self.adversarial_start
        fake, output = self._generator_phase(real, adversarial)
        engine.fire_event(IterationEvents.FORWARD_COMPLETED)
        if adversarial and self.path_length_interval and done % self.path_length_interval == 0:
            self._path_length_phase(real)
        output["discriminator_loss"] = 0.0
        if adversarial:
            output["discriminator_loss"] = self._discriminator_phase(real, fake)
            if self.r1_interval and done % self.r1_interval == 0:
                self._r1_phase(real)
        output.update(self._last)
        engine.fire_event(IterationEvents.LOSS_COMPLETED)
        engine.fire_event(IterationEvents.MODEL_COMPLETED)
        return output
