"""Class-conditional latent diffusion: a KL auto-encoder and a denoising U-Net of MONAI, in one module and so one file.

Rombach et al., CVPR 2022; for chest radiographs with privacy-enhancing sampling Packhaeuser et al., ISBI 2023. The
condition is a vector of findings: each finding is a token, one for present, absent and unknown, which the U-Net attends
to. All unknown is the unconditional network of classifier-free guidance (Ho and Salimans, 2021).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from monai.inferers import LatentDiffusionInferer
from monai.networks.nets import AutoencoderKL, DiffusionModelUNet
from monai.networks.schedulers import DDIMScheduler, DDPMScheduler
from torch import Tensor, nn

from gmia_monai.errors import UsageError
from gmia_monai.networks.layers import at_least_float32

__all__ = ["LatentDiffusionNet"]

PREDICTIONS = ("epsilon", "v_prediction")


class LatentDiffusionNet(nn.Module):
    """Images to latents and back, and the denoising of latents given findings.

    The defaults are the sizes of MONAI's template for chest radiographs; those of the paper are not known.

    Args:
        image_size: rows and columns, in pixels.
        findings: names of the findings of the condition.
        autoencoder_channels: of each level of the auto-encoder; each but the first halves the side.
        autoencoder_res_blocks: residual blocks a level.
        latent_channels: channels of the latent.
        channels: of each level of the U-Net; each but the first halves the side.
        res_blocks: residual blocks a level.
        attention: levels of the U-Net that attend to positions and findings.
        head_channels: channels of an attention head.
        context_dim: length of a token.
        norm_groups: groups of all normalisations, a divisor of all channels.
        n_train_steps: noise levels.
        beta_start: variance of the first step of the scaled linear schedule.
        beta_end: variance of its last step.
        prediction: what the U-Net gives: ``epsilon``, the noise, or ``v_prediction`` (Salimans and Ho, ICLR 2022).

    Raises:
        UsageError: ``GM-U014`` for settings that do not fit each other, and for ``n_steps`` or ``strength`` that do not
            fit the noise levels.
    """

    latent_mean: Tensor
    latent_std: Tensor

    def __init__(
        self,
        image_size: int,
        findings: Sequence[str],
        autoencoder_channels: Sequence[int] = (64, 128, 128, 128),
        autoencoder_res_blocks: int = 2,
        latent_channels: int = 3,
        channels: Sequence[int] = (256, 512, 768),
        res_blocks: int = 2,
        attention: Sequence[bool] = (False, True, True),
        head_channels: int = 64,
        context_dim: int = 256,
        norm_groups: int = 32,
        n_train_steps: int = 1000,
        beta_start: float = 0.0015,
        beta_end: float = 0.0195,
        prediction: str = "epsilon",
    ) -> None:
        super().__init__()
        self.image_size = image_size
        self.findings = tuple(findings)
        side = image_size >> (len(autoencoder_channels) - 1)
        self.latent_shape = (latent_channels, side, side)
        self.n_train_steps = n_train_steps
        self.prediction = prediction
        self._betas = {"beta_start": beta_start, "beta_end": beta_end}
        divisor = 1 << (len(autoencoder_channels) + len(channels) - 2)
        _check(bool(findings), "findings", 0, "at least one")
        _check(image_size % divisor == 0, "image_size", image_size, f"a multiple of {divisor}")
        _check(prediction in PREDICTIONS, "prediction", prediction, " or ".join(PREDICTIONS))
        _check(len(attention) == len(channels), "attention", len(attention), f"{len(channels)} levels")
        narrow = [c for c in (*autoencoder_channels, *channels) if c % norm_groups]
        _check(not narrow, "channels", narrow, f"multiples of norm_groups, {norm_groups}")
        self.autoencoder = AutoencoderKL(
            spatial_dims=2,
            num_res_blocks=autoencoder_res_blocks,
            channels=tuple(autoencoder_channels),
            attention_levels=(False,) * len(autoencoder_channels),
            latent_channels=latent_channels,
            norm_num_groups=norm_groups,
            with_encoder_nonlocal_attn=False,
            with_decoder_nonlocal_attn=False,
        )
        self.unet = DiffusionModelUNet(
            spatial_dims=2,
            in_channels=latent_channels,
            out_channels=latent_channels,
            num_res_blocks=res_blocks,
            channels=tuple(channels),
            attention_levels=tuple(attention),
            norm_num_groups=norm_groups,
            num_head_channels=head_channels,
            with_conditioning=True,
            cross_attention_dim=context_dim,
        )
        # Absent, present, unknown.
        self.tokens = nn.Parameter(torch.randn(3, len(self.findings), context_dim) / math.sqrt(context_dim))
        self.register_buffer("latent_mean", torch.zeros(1, latent_channels, 1, 1))
        self.register_buffer("latent_std", torch.ones(1, latent_channels, 1, 1))

    # -- images and latents ------------------------------------------------------------------------------------------
    def autoencode(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Reconstruction of ``[b, 1, h, w]`` in [0, 1] from a drawn latent, not clamped; mean and standard deviation of
        the latent, ``[b, c, h', w']``."""
        reconstruction, mean, sd = self.autoencoder(image * 2.0 - 1.0)
        return at_least_float32(reconstruction) * 0.5 + 0.5, at_least_float32(mean), at_least_float32(sd)

    def latent_moments(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the standardised latent, ``[b, c, h', w']``, of ``[b, 1, h, w]`` in [0, 1]."""
        mean, sd = self.autoencoder.encode(image * 2.0 - 1.0)
        return (at_least_float32(mean) - self.latent_mean) / self.latent_std, at_least_float32(sd) / self.latent_std

    def encode(self, image: Tensor) -> Tensor:
        """Mean of the standardised latent, ``[b, c, h', w']``."""
        return self.latent_moments(image)[0]

    def decode(self, latent: Tensor) -> Tensor:
        """Images in [0, 1], ``[b, 1, h, w]``, of standardised latents."""
        image = self.autoencoder.decode(latent * self.latent_std + self.latent_mean)
        return (at_least_float32(image) * 0.5 + 0.5).clamp(0.0, 1.0)

    def reconstruct(self, image: Tensor) -> Tensor:
        """What the auto-encoder makes of images, in [0, 1]."""
        return self.decode(self.encode(image))

    decode_stage_2_outputs = decode
    encode_stage_2_inputs = encode
    """Names under which MONAI's ``LatentDiffusionInferer`` calls the auto-encoder."""

    @torch.no_grad()
    def standardise(self, mean: Tensor, sd: Tensor) -> None:
        """Takes the mean of each channel and its standard deviation over images and positions for that of latents.

        Args:
            mean: means of latents as the auto-encoder gives them, ``[n, c, h', w']``.
            sd: their standard deviations, of that shape.
        """
        self.latent_mean.copy_(mean.mean(dim=(0, 2, 3), keepdim=True))
        variance = (mean - self.latent_mean.to(mean.device)).square() + sd.square()
        self.latent_std.copy_(variance.mean(dim=(0, 2, 3), keepdim=True).sqrt().clamp(min=1e-6))

    # -- denoising ---------------------------------------------------------------------------------------------------
    def context(self, labels: Tensor) -> Tensor:
        """Tokens ``[b, k, d]`` of findings ``[b, k]``: 0 absent, 1 present, between them in proportion, nan unknown."""
        absent, present, unknown = self.tokens
        known = torch.nan_to_num(labels, nan=0.0)[..., None]
        return torch.where(labels.isnan()[..., None], unknown, absent + known * (present - absent))

    def forward(self, x: Tensor, timesteps: Tensor, context: Tensor) -> Tensor:
        """Noise, or v, in latents ``[b, c, h', w']`` at noise levels ``[b]`` given findings ``[b, k]``; the names are
        those that MONAI's inferers use."""
        return at_least_float32(self.unet(x, timesteps, self.context(context)))

    def training_scheduler(self) -> DDPMScheduler:
        """The noise levels, for training."""
        return DDPMScheduler(
            self.n_train_steps, "scaled_linear_beta", prediction_type=self.prediction, clip_sample=False, **self._betas
        )

    def sampling_scheduler(self, n_steps: int) -> DDIMScheduler:
        """DDIM (Song et al., ICLR 2021) over equal strides, the first from the highest noise level, without new noise.

        Raises:
            UsageError: ``GM-U014`` where ``n_steps`` is no divisor of the noise levels.
        """
        fits = 1 <= n_steps <= self.n_train_steps and self.n_train_steps % n_steps == 0
        _check(fits, "n_steps", n_steps, f"a divisor of {self.n_train_steps}")
        scheduler = DDIMScheduler(
            self.n_train_steps, "scaled_linear_beta", prediction_type=self.prediction, clip_sample=False, **self._betas
        )
        scheduler.set_timesteps(n_steps)
        # MONAI's own levels reach from the first to the last, further apart than the stride that its step takes.
        stride = self.n_train_steps // n_steps
        scheduler.timesteps = torch.arange(self.n_train_steps - 1, -1, -stride)
        return scheduler

    def noise(self, seeds: Sequence[int]) -> Tensor:
        """Noise of the shape of latents, ``[b, c, h', w']``; an image has its own seed, so no neighbour changes it."""
        drawn = [torch.randn(self.latent_shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
        return torch.stack(drawn).to(self.tokens.device)

    def sample(self, labels: Tensor, seeds: Sequence[int], guidance: float = 1.0, n_steps: int = 50) -> Tensor:
        """Images in [0, 1], ``[b, 1, h, w]``, drawn for findings.

        Args:
            labels: findings, ``[b, k]``; nan where not known.
            seeds: one an image.
            guidance: weight of the condition: 1 follows the conditional network alone, 0 the unconditional one.
            n_steps: steps of denoising, a divisor of the noise levels.

        Raises:
            UsageError: ``GM-U014`` for ``n_steps``.
        """
        return self._denoise(self.noise(seeds), labels, guidance, self.sampling_scheduler(n_steps))

    @torch.no_grad()
    def redraw(
        self,
        image: Tensor,
        strength: float,
        seeds: Sequence[int],
        labels: Tensor | None = None,
        guidance: float = 1.0,
        n_steps: int = 50,
    ) -> Tensor:
        """Images that are brought to a noise level and denoised from there (SDEdit; Meng et al., ICLR 2022).

        Args:
            image: ``[b, 1, h, w]`` in [0, 1].
            strength: share of the noise levels that is gone through: 0 reconstructs, 1 draws almost anew.
            seeds: one an image.
            labels: findings, ``[b, k]``; None: unknown.
            guidance: as in :meth:`sample`.
            n_steps: steps that all noise levels would take.

        Raises:
            UsageError: ``GM-U014`` for ``n_steps``, and a strength out of [0, 1].
        """
        _check(0.0 <= strength <= 1.0, "strength", strength, "0 to 1")
        scheduler = self.sampling_scheduler(n_steps)
        left = round(strength * n_steps)
        latent = self.encode(image)
        if left == 0:
            return self.decode(latent)
        scheduler.timesteps = scheduler.timesteps[-left:]
        level = scheduler.timesteps[:1].expand(len(image)).to(image.device)
        noisy = scheduler.add_noise(original_samples=latent, noise=self.noise(seeds), timesteps=level)
        if labels is None:
            labels = torch.full((len(image), len(self.findings)), torch.nan, device=image.device)
        return self._denoise(noisy, labels, guidance, scheduler)

    def _denoise(self, latent: Tensor, labels: Tensor, guidance: float, scheduler: DDIMScheduler) -> Tensor:
        return LatentDiffusionInferer(scheduler).sample(
            latent,
            autoencoder_model=self,
            diffusion_model=self,
            scheduler=scheduler,
            conditioning=labels,
            verbose=False,
            cfg=None if guidance == 1.0 else guidance,
            cfg_fill_value=math.nan,
        )


def _check(holds: bool, name: str, got: object, expected: str) -> None:
    if not holds:
        raise UsageError("GM-U014", f"{name} of the latent diffusion network does not fit", got=got, expected=expected)
