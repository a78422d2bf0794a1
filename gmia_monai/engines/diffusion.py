"""Training of latent diffusion in two stages: the auto-encoder, then, with that frozen, the denoising U-Net.

Rombach et al., CVPR 2022. The first stage minimises ``L1 + perceptual + KL (+ adversarial)``, the second the mean
squared error of the predicted noise, with the condition left out now and then for classifier-free guidance.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from monai.data import Dataset
from monai.engines.utils import IterationEvents
from monai.inferers import DiffusionInferer
from monai.losses import PatchAdversarialLoss
from monai.utils.enums import CommonKeys as Keys
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader

from gmia_monai.engines.finish import start_from
from gmia_monai.engines.guarded import GuardedTrainer
from gmia_monai.errors import UsageError
from gmia_monai.networks.latent_diffusion import LatentDiffusionNet
from gmia_monai.typing import PathLike

__all__ = ["LatentDiffusionTrainer", "findings_batch", "kl_divergence", "latent_dataset", "start_stage"]

STAGES = ("autoencoder", "diffusion")
_BATCH = 64


def start_stage(
    network: LatentDiffusionNet, stage: str, init_from: PathLike | None, dataset: Sequence[Mapping[str, Tensor]]
) -> LatentDiffusionNet:
    """Fills the network, freezes what the stage does not train, and standardises latents for the second stage.

    Args:
        network: to train, on the device where it will be.
        stage: ``autoencoder`` or ``diffusion``.
        init_from: weights file to start from; needed for the second stage.
        dataset: training items with ``image``; the first 512 decide mean and standard deviation of latents.

    Raises:
        UsageError: ``GM-U047`` for another stage, or a second one without the first.
        IntegrityError: as :func:`gmia_monai.weights.load_weights`.
    """
    if stage not in STAGES or (stage == "diffusion" and not init_from):
        raise UsageError(
            "GM-U047",
            "this stage of latent diffusion cannot be trained",
            got=stage if stage not in STAGES else "diffusion without an auto-encoder",
            expected="stage autoencoder, then stage diffusion with init_from",
            next_step="give diffusion#init_from the weights file that the stage autoencoder left",
        )
    start_from(network, init_from)
    network.autoencoder.requires_grad_(stage == "autoencoder")
    network.unet.requires_grad_(stage == "diffusion")
    network.tokens.requires_grad_(stage == "diffusion")
    if stage == "diffusion":
        network.standardise(torch.zeros_like(network.latent_mean), torch.ones_like(network.latent_std))
        moments = [_moments(network, batch) for batch in _batches(dataset, min(512, len(dataset)))]
        network.standardise(torch.cat([m for m, _ in moments]), torch.cat([s for _, s in moments]))
    return network


def latent_dataset(network: LatentDiffusionNet, dataset: Sequence[Mapping[str, Tensor]]) -> Dataset:
    """The moments of the latents of a data set, computed once: where images are not changed at random, they stay.

    Returns:
        items with ``latent``, mean and standard deviation ``[2 c, h', w']``, and ``label`` ``[k]``.
    """
    items = []
    for first, batch in zip(range(0, len(dataset), _BATCH), _batches(dataset, len(dataset)), strict=True):
        for i, latent in enumerate(torch.cat(_moments(network, batch), dim=1).cpu()):
            items.append({"latent": latent, "label": torch.as_tensor(dataset[first + i]["label"])})
    return Dataset(items)


def _batches(dataset: Sequence[Mapping[str, Tensor]], n: int) -> Iterable[Tensor]:
    for first in range(0, n, _BATCH):
        yield torch.stack([torch.as_tensor(dataset[i]["image"]) for i in range(first, min(first + _BATCH, n))])


@torch.no_grad()
def _moments(network: LatentDiffusionNet, images: Tensor) -> tuple[Tensor, Tensor]:
    return network.latent_moments(images.to(network.tokens.device))


def findings_batch(
    batch: Mapping[str, Tensor], device: torch.device | None = None, non_blocking: bool = False, **kwargs: Any
) -> tuple[Tensor, Tensor, tuple[()], dict[str, Tensor]]:
    """``prepare_batch`` of the validation: the image as its own target, and its findings for the inferer."""
    image = batch["image"].to(device, non_blocking=non_blocking, **kwargs)
    return image, image, (), {"labels": batch["label"].to(device, non_blocking=non_blocking)}


def kl_divergence(mean: Float[Tensor, "b c h w"], sd: Float[Tensor, "b c h w"]) -> Float[Tensor, ""]:
    """Divergence of normal latents from the standard normal, summed over a latent, averaged over the batch."""
    terms = mean.square() + sd.square() - 2.0 * sd.clamp(min=1e-12).log() - 1.0
    return 0.5 * terms.sum(dim=(1, 2, 3)).mean()


class LatentDiffusionTrainer(GuardedTrainer):
    """Trains one stage of a :class:`LatentDiffusionNet`.

    The output of an iteration holds ``loss``; in the first stage also ``pixel_loss``, ``perceptual_loss``, ``kl_loss``,
    ``generator_loss`` and ``discriminator_loss``. For gradients that are not finite, give
    :class:`gmia_monai.handlers.GradientHandler`.

    Args:
        device: where to train.
        max_epochs: number of epochs.
        train_data_loader: batches with ``image`` ``[b, 1, h, w]`` in [0, 1], or ``latent`` as :func:`latent_dataset`
            makes it; in the second stage with ``label`` ``[b, k]``, nan where not known.
        network: network to train.
        optimizer: of what the stage trains.
        stage: ``autoencoder`` or ``diffusion``.
        perceptual_loss: callable ``(prediction, target) -> [b]``; None leaves the term out.
        perceptual_weight: its weight.
        kl_weight: weight of the divergence of latents, a sum over a latent beside a mean over pixels.
        discriminator: MONAI ``PatchDiscriminator``; None: no adversarial term.
        d_optimizer: its optimizer.
        adversarial_weight: weight of the adversarial term (least squares).
        adversarial_start: iterations before it starts.
        condition_dropout: share of images whose findings are withheld.
        augmentation: takes and gives ``[b, 1, h, w]``; None: images as they are.
        shared: ``epoch_length``, ``amp`` and ``train_handlers`` of
            :class:`gmia_monai.engines.guarded.GuardedTrainer`.
    """

    def __init__(
        self,
        device: torch.device | str,
        max_epochs: int,
        train_data_loader: Iterable | DataLoader,
        network: LatentDiffusionNet,
        optimizer: Optimizer,
        stage: str,
        perceptual_loss: Callable[[Tensor, Tensor], Tensor] | None = None,
        perceptual_weight: float = 0.0,
        kl_weight: float = 1e-6,
        discriminator: nn.Module | None = None,
        d_optimizer: Optimizer | None = None,
        adversarial_weight: float = 0.0,
        adversarial_start: int = 0,
        condition_dropout: float = 0.1,
        augmentation: Callable[[Tensor], Tensor] | None = None,
        **shared: Any,
    ) -> None:
        super().__init__(device, max_epochs, train_data_loader, **shared)
        self.network = network
        self.optimizer = optimizer
        self.stage = stage
        self.perceptual_loss = perceptual_loss
        self.perceptual_weight = perceptual_weight
        self.kl_weight = kl_weight
        self.discriminator = discriminator
        self.d_optimizer = d_optimizer
        self.adversarial_weight = adversarial_weight
        self.adversarial_start = adversarial_start
        self.condition_dropout = condition_dropout
        self.augmentation = augmentation
        self._adversarial = PatchAdversarialLoss(criterion="least_squares")
        self._scheduler = network.training_scheduler()
        self._inferer = DiffusionInferer(self._scheduler)

    def _images(self, batch: Mapping[str, Tensor]) -> Tensor:
        image = batch["image"].to(self.state.device)
        return image if self.augmentation is None else self.augmentation(image)

    def _autoencoder_loss(self, real: Tensor, adversarial: bool) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        with self._autocast():
            fake, mean, sd = self.network.autoencode(real)
        parts = {"pixel_loss": (fake - real).abs().mean(), "kl_loss": kl_divergence(mean, sd)}
        loss = parts["pixel_loss"] + self.kl_weight * parts["kl_loss"]
        if self.perceptual_loss is not None and self.perceptual_weight > 0:
            with self._autocast():
                parts["perceptual_loss"] = self.perceptual_loss(fake, real).mean()
            loss = loss + self.perceptual_weight * parts["perceptual_loss"]
        if adversarial:
            with self._autocast():
                logits = self.discriminator(fake)[-1]  # type: ignore[misc]
            parts["generator_loss"] = self._adversarial(logits.float(), target_is_real=True, for_discriminator=False)
            loss = loss + self.adversarial_weight * parts["generator_loss"]
        return loss, fake.detach(), parts

    def _diffusion_loss(self, batch: Mapping[str, Tensor]) -> Tensor:
        device = self.state.device
        labels = batch["label"].to(device).float()
        withheld = torch.rand(len(labels)) < self.condition_dropout
        labels = torch.where(withheld.to(device)[:, None], torch.nan, labels)
        if "latent" in batch:
            mean, sd = batch["latent"].to(device).chunk(2, dim=1)
        else:
            with torch.no_grad(), self._autocast():
                mean, sd = self.network.latent_moments(self._images(batch))
        latent = mean + sd * torch.randn(mean.shape).to(device)
        noise = torch.randn(latent.shape).to(device)
        levels = torch.randint(0, self.network.n_train_steps, (len(latent),)).to(device)
        with self._autocast():
            found = self._inferer(latent, self.network, noise, levels, labels)
        wanted = noise
        if self.network.prediction == "v_prediction":
            wanted = self._scheduler.get_velocity(latent, noise, levels)
        return F.mse_loss(found, wanted)

    def _discriminator_step(self, real: Tensor, fake: Tensor) -> float:
        assert self.discriminator is not None and self.d_optimizer is not None
        self.discriminator.requires_grad_(True)
        with self._autocast():
            on_fake, on_real = (self.discriminator(images)[-1] for images in (fake, real))
        loss = 0.5 * sum(
            self._adversarial(logits.float(), target_is_real=is_real, for_discriminator=True)
            for logits, is_real in ((on_fake, False), (on_real, True))
        )
        self.d_optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if math.isfinite(float(nn.utils.clip_grad_norm_(self.discriminator.parameters(), 1.0))):
            self.d_optimizer.step()
        return loss.item()

    def _iteration(self, engine: Any, batchdata: Mapping[str, Tensor]) -> dict[str, float]:
        adversarial = (
            self.stage == "autoencoder"
            and self.discriminator is not None
            and self.adversarial_weight > 0
            and self.state.iteration > self.adversarial_start
        )
        self.network.train()
        self.optimizer.zero_grad(set_to_none=True)
        parts: dict[str, Tensor] = {}
        if self.stage == "autoencoder":
            real = self._images(batchdata)
            if self.discriminator is not None:
                self.discriminator.requires_grad_(False)
            loss, fake, parts = self._autoencoder_loss(real, adversarial)
        else:
            loss = self._diffusion_loss(batchdata)
        engine.fire_event(IterationEvents.FORWARD_COMPLETED)
        engine.fire_event(IterationEvents.LOSS_COMPLETED)
        loss.backward()
        engine.fire_event(IterationEvents.BACKWARD_COMPLETED)
        self.optimizer.step()
        output = {Keys.LOSS: loss.item()} | {name: part.item() for name, part in parts.items()}
        if adversarial:
            output["discriminator_loss"] = self._discriminator_step(real, fake)
        engine.fire_event(IterationEvents.MODEL_COMPLETED)
        return output
