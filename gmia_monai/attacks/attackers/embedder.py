"""Embeddings of arrays of images by a network, kept by content: attackers with the same network share them."""

from __future__ import annotations

import hashlib
from collections import OrderedDict

import numpy as np
import torch
from jaxtyping import Float32
from torch import nn

from gmia_monai.attacks.base import Pixels
from gmia_monai.inferers.autocast import AutocastInferer, computes_bfloat16

__all__ = ["NetworkEmbedder"]

_MAX_BYTES = 1 << 29


class _Kept:
    """Arrays by key; the one that was not asked for longest leaves when there are too many bytes."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.arrays: OrderedDict[str, np.ndarray] = OrderedDict()

    def get(self, key: str) -> np.ndarray | None:
        if key in self.arrays:
            self.arrays.move_to_end(key)
        return self.arrays.get(key)

    def put(self, key: str, array: np.ndarray) -> None:
        self.arrays[key] = array
        while sum(a.nbytes for a in self.arrays.values()) > self.max_bytes:
            self.arrays.popitem(last=False)


_kept = _Kept(_MAX_BYTES)


class NetworkEmbedder:
    """Embeds arrays of images by a network, a batch at a time; what it has embedded before, it remembers.

    Args:
        network: maps ``[b, 1, h, w]`` to ``[b, d]``; put into eval mode. Runs under bfloat16 autocast where the device
            computes that faster.
        batch_size: images at a time.
        device: where it runs.
    """

    def __init__(self, network: nn.Module, batch_size: int = 128, device: str = "cpu") -> None:
        self.network = network.to(device=device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
        self.batch_size = batch_size
        self.device = device
        self._run = AutocastInferer(computes_bfloat16(device))

    @torch.no_grad()
    def __call__(self, pixels: Pixels) -> Float32[np.ndarray, "n d"]:
        """Embeddings as the network gives them."""
        self.network.eval()
        key = f"{_digest_of(self.network)} {self.device} {self._run.enabled} {_digest(pixels)}"
        found = _kept.get(key)
        if found is None:
            parts = [
                self._run(torch.from_numpy(pixels[i : i + self.batch_size]).to(self.device), self.network).cpu().numpy()
                for i in range(0, len(pixels), self.batch_size)
            ]
            found = np.concatenate(parts) if parts else np.zeros((0, 1), np.float32)
            _kept.put(key, found)
        return found.copy()


def _digest_of(network: nn.Module) -> str:
    """Of what the network computes: its structure, its plain settings, its weights and buffers."""
    digest = hashlib.sha256()
    for name, module in network.named_modules():
        settings = {k: v for k, v in vars(module).items() if isinstance(v, (bool, int, float, str, tuple))}
        kind = f"{type(module).__module__}.{type(module).__qualname__}"
        digest.update(f"{name} {kind} {sorted(settings.items())}".encode())
    for name, tensor in (*network.named_parameters(), *network.named_buffers()):
        digest.update(f"{name} {tensor.dtype} {_digest(tensor.detach().double().cpu().numpy())}".encode())
    return digest.hexdigest()


def _digest(array: np.ndarray) -> str:
    header = f"{array.dtype} {array.shape} ".encode()
    return hashlib.sha256(header + np.ascontiguousarray(array).tobytes()).hexdigest()
