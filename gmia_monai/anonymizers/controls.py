"""Controls: systems whose risk and utility are known beforehand; by them every attack is seen to ring and be silent.

``unchanged`` gives the real images away; ``noise`` keeps nothing of them; ``shuffled`` gives each image to another;
``reconstruction`` is the auto-encoder alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from gmia_monai.anonymizers.base import ImageAnonymizer, Outcome
from gmia_monai.networks.pretrained import load_anonymizer, weights_hashes
from gmia_monai.typing import PathLike

__all__ = ["Noise", "Reconstruction", "Shuffled", "Unchanged"]


class Unchanged(ImageAnonymizer):
    """Releases the real image."""

    def __init__(self) -> None:
        super().__init__("unchanged", "unchanged", unit_size=256)

    def anonymize_batch(
        self, images: Float[Tensor, "b 1 h w"], seeds: Sequence[int]
    ) -> tuple[Float[Tensor, "b 1 h w"], list[Outcome]]:
        """The images themselves."""
        return images, [Outcome()] * len(images)


class Noise(ImageAnonymizer):
    """Releases independent uniform noise in each pixel."""

    def __init__(self) -> None:
        super().__init__("noise", "noise", policy="unlinkable", unit_size=256, random=True)

    def anonymize_batch(
        self, images: Float[Tensor, "b 1 h w"], seeds: Sequence[int]
    ) -> tuple[Float[Tensor, "b 1 h w"], list[Outcome]]:
        """Noise of the images' shape."""
        draws = [torch.rand(images.shape[1:], generator=torch.Generator().manual_seed(seed)) for seed in seeds]
        return torch.stack(draws), [Outcome()] * len(images)


class Shuffled(ImageAnonymizer):
    """Releases the real images in another order: real radiographs, but those of other people.

    Who learns from it, learns from wrong labels. One image in as many as there are keeps its place.
    """

    def __init__(self) -> None:
        super().__init__("shuffled", "shuffled", policy="unlinkable", unit_size=1 << 20, random=True)

    def anonymize_batch(
        self, images: Float[Tensor, "b 1 h w"], seeds: Sequence[int]
    ) -> tuple[Float[Tensor, "b 1 h w"], list[Outcome]]:
        """The images in an order that the seed of the first decides."""
        order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seeds[0]))
        return images[order], [Outcome()] * len(images)


class Reconstruction(ImageAnonymizer):
    """Releases what the auto-encoder makes of the image, ``G(E(x))``: where latent optimisation starts.

    Args:
        network: encoder and synthesis, from ``[b, 1, h, w]`` in [0, 1] to the same; frozen, in eval mode.
        fingerprint: hash of its weights.
        device: where it runs.
    """

    def __init__(self, network: Callable[[Tensor], Tensor], fingerprint: str, device: str = "cpu") -> None:
        super().__init__("reconstruction", f"reconstruction {fingerprint}", unit_size=64)
        self.network = network
        self.device = device

    @classmethod
    def from_weights(cls, models_dir: PathLike, device: str = "cpu") -> Reconstruction:
        """From a folder of recorded weights.

        Raises:
            IntegrityError: ``GM-W001`` … ``GM-W006``.
        """
        return cls(load_anonymizer(models_dir).to(device), weights_hashes(models_dir)["aegan"], device)

    @torch.no_grad()
    def anonymize_batch(
        self, images: Float[Tensor, "b 1 h w"], seeds: Sequence[int]
    ) -> tuple[Float[Tensor, "b 1 h w"], list[Outcome]]:
        """Reconstructions in [0, 1]."""
        return self.network(images.to(self.device)), [Outcome()] * len(images)
