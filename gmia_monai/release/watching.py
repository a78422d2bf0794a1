"""Watching by networks of the gate's own: a verifier for identity and copies, a diagnostic network for findings and for
images unlike the known ones. No network that makes images is among them."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor, nn

from gmia_monai.errors import IntegrityError
from gmia_monai.networks import IdentityNet, UtilityNet
from gmia_monai.networks.known_images import KnownImages
from gmia_monai.networks.pretrained import load_recorded
from gmia_monai.release.calibration import Surroundings
from gmia_monai.release.layout import Layout
from gmia_monai.typing import PathLike
from gmia_monai.weights import watched_reads

__all__ = ["GATE_NETWORKS", "NetworkWatch"]

GATE_NETWORKS = ("gate", "gate_utility", "gate_known")

_BATCH = 128


class NetworkWatch:
    """Networks behind :class:`gmia_monai.release.parts.Watching`.

    Args:
        verifier: embeds identity; cosines are compared.
        diagnostic: gives logits, and ``features``.
        surroundings: where features of known images lie.
        layout: how known images lie in their square.
        learned: embeddings of the images that the makers learned from, by the verifier.
        weights: file name and SHA-256 of both networks.
        device: where they run.
    """

    def __init__(
        self,
        verifier: nn.Module,
        diagnostic: nn.Module,
        surroundings: Surroundings,
        layout: Layout,
        learned: Float[np.ndarray, "n d"],
        weights: Mapping[str, str],
        device: str = "cpu",
    ) -> None:
        self.weights = dict(weights)
        self._verifier = verifier.to(device).eval()
        self._diagnostic = diagnostic.to(device).eval()
        self._surroundings = surroundings
        self._layout = layout
        self._learned = _unit(learned)
        self._device = device

    @classmethod
    def from_weights(cls, models_dir: PathLike, device: str = "cpu") -> NetworkWatch:
        """The recorded networks ``gate``, ``gate_utility`` and ``gate_known``.

        Raises:
            IntegrityError: ``GM-W001`` … ``GM-W008`` for weights that are missing or not what was recorded, ``GM-W309``
                where those under one of the names are of another kind.
        """
        with watched_reads() as read:
            verifier, diagnostic, known = (load_recorded(models_dir, name) for name in GATE_NETWORKS)
        kinds = (verifier, IdentityNet), (diagnostic, UtilityNet), (known, KnownImages)
        for name, (network, kind) in zip(GATE_NETWORKS, kinds, strict=True):
            if not isinstance(network, kind):
                raise IntegrityError(
                    "GM-W309", f"{name} is another kind of network", got=type(network).__name__, expected=kind.__name__
                )
        assert isinstance(known, KnownImages)
        names = ("mean", "whitening", "limit", "layout", "layout_bias")
        mean, whitening, limit, layout, bias = (getattr(known, name).double().numpy() for name in names)
        seen = Surroundings(mean, whitening, float(limit)), Layout(layout, float(bias))
        return cls(verifier, diagnostic, *seen, known.learned.numpy().astype(np.float32), read, device)

    def embed(self, images: Float32[np.ndarray, "n s s"]) -> Float[np.ndarray, "n d"]:
        """Embeddings of identity, of unit length."""
        return _unit(self._run(self._verifier, images))

    def compare(self, one: Float[np.ndarray, "d"], others: Float[np.ndarray, "m d"]) -> Float[np.ndarray, "m"]:
        """Cosines."""
        found: np.ndarray = others @ one
        return found

    def findings(self, images: Float32[np.ndarray, "n s s"]) -> Float[np.ndarray, "n k"]:
        """Probabilities of findings."""
        logits = self._run(self._diagnostic, images)
        found: np.ndarray = 1.0 / (1.0 + np.exp(-np.clip(logits, -60.0, 60.0)))
        return found

    def features(self, images: Float32[np.ndarray, "n s s"]) -> Float[np.ndarray, "n d"]:
        """Features of the diagnostic network."""
        network: Callable[[Tensor], Tensor] = self._diagnostic.features  # type: ignore[assignment]
        return self._run(network, images)

    def strangeness(self, images: Float32[np.ndarray, "n s s"]) -> Float[np.ndarray, "n"]:
        """The larger of two: distance from known images (``Surroundings.strangeness``), and odds that an image does not
        lie in its square as they do (``Layout.strangeness``).
        """
        distance = self._surroundings.strangeness(self.features(images))
        found: np.ndarray = np.maximum(distance, self._layout.strangeness(images))
        return found

    def nearest_copy(self, images: Float32[np.ndarray, "n s s"]) -> Float[np.ndarray, "n"]:
        """Largest cosine with an image that the makers learned from."""
        found: np.ndarray = (self.embed(images) @ self._learned.T).max(axis=1)
        return found

    @torch.no_grad()
    def _run(self, network: Callable[[Tensor], Tensor], images: Float32[np.ndarray, "n s s"]) -> np.ndarray:
        pixels = torch.from_numpy(np.ascontiguousarray(images[:, None]))
        parts = [network(pixels[i : i + _BATCH].to(self._device)).double().cpu() for i in range(0, len(pixels), _BATCH)]
        found: np.ndarray = torch.cat(parts).numpy()
        return found


def _unit(vectors: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n d"]:
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    found: np.ndarray = vectors / np.maximum(length, 1e-12)
    return found
