"""PLAN: privacy-preserving paths between two patients' codes (Pennisi et al., MICCAI 2023), in the W of the AE-GAN.

Between the codes of two images of different people lie ``n_points`` codes, at first on a line. The inner ones move
(Adam, rate 0.1, betas 0.9 and 0.999, 500 steps) towards images that no class of an identity classifier fits better
than another, that keep the finding of both ends, and that lie evenly on a short path:

    L = 0.1 sum_chunks KL(U || softmax phi_id(G(w_i))) + sum_i |w_{i+1} - w_i|^2 + sum_chunks CE(phi_class(G(w_i)), y)

with means over chunks of 4 points, ``w`` broadcast to all layers and constant noise. **The two ends stay where they are
and are never released: they are the reconstructions of real images.** ``steps`` 0 is the straight line, the paper's
"linear".

What is ours, because it is not published or does not fit: chunks are of inner points. 4 points, so that two images make
two, at 1/3 and 2/3, and a release is as large as its sources; the published number is not known, and with more points
the outer ones lie close to an end. One label with two classes becomes a set of findings: CE is the negative logarithm
of the probability of the whole set, the sum over findings of the binary cross-entropy. The published identity
classifier knows the very patients that are released; here it knows those of role S alone, as everything that a system
learns from.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from gmia_monai.anonymizers.plan_pairs import draw_pairs, shared_labels
from gmia_monai.anonymizers.store import Unit, UnitStore, finished_units, to_levels
from gmia_monai.data.release import RealImages, Release
from gmia_monai.errors import UsageError
from gmia_monai.networks.pretrained import load_recorded
from gmia_monai.typing import PathLike
from gmia_monai.weights import read_index, read_metadata

__all__ = ["Plan", "label_cross_entropy", "privacy_divergence"]

_Network = Callable[..., Tensor]


def privacy_divergence(logits: Float[Tensor, "b n"]) -> Float[Tensor, "b"]:
    """``KL(U || softmax(logits))`` of each image against the uniform distribution over ``n`` identities, in nats."""
    return -F.log_softmax(logits, dim=1).mean(dim=1) - float(np.log(logits.shape[1]))


def label_cross_entropy(logits: Float[Tensor, "b k"], labels: Float[Tensor, "b k"]) -> Float[Tensor, "b"]:
    """Binary cross-entropy of each image, summed over the findings that are known (not nan), in nats."""
    known = ~labels.isnan()
    losses = F.binary_cross_entropy_with_logits(logits, labels.nan_to_num(0.0).to(logits), reduction="none")
    return (losses * known).sum(dim=1)


class Plan:
    """Images from within paths between pairs of images of different people who share their findings.

    Each released image has the two ends as its sources, and the findings that they share as its labels: nan where they
    differ. ``unlinkable``, for the identity term asks for images that resemble nobody, so also none of another image of
    the same person; there is no guarantee, and two images of one path have the same two sources.

    Pairs are worked on in units and a unit is found again by its own images: an interrupted run goes on. The sum over
    pairs is minimised and Adam works on each coordinate alone, so a unit is the same as independent runs.

    Args:
        encoder: maps images ``[b, 1, h, w]`` in [0, 1] to codes ``[b, d]``; frozen and in eval mode, as all here.
        synthesis: maps codes to images, not yet cut to [0, 1]; with ``noise_mode``.
        phi_id: maps images to one logit an identity; None for ``steps`` 0.
        phi_class: maps images to logits of ``findings``; None for ``steps`` 0.
        weights: sha256 of each, for the fingerprint.
        findings: that ``phi_class`` looks for; None: those of the cohort.
        n_points: of a path with both ends; ``n_points - 2`` are released.
        steps: updates; 500 in the paper, 0 for the straight line.
        lr: rate of Adam.
        betas: its decay rates.
        lambda_id: weight of the identity term.
        lambda_path: weight of the path's length.
        lambda_class: weight of the label term.
        chunk: points that a mean is taken over.
        unit_pairs: pairs that are optimised together.
        name: for the result lines; None: made of steps and points.
        device: where it runs.

    Raises:
        UsageError: ``GM-U077`` for a setting outside its range.
    """

    policy = ""  # the inner points of a path have both sources in common, and are near each other

    def __init__(
        self,
        encoder: _Network,
        synthesis: _Network,
        phi_id: _Network | None,
        phi_class: _Network | None,
        weights: dict[str, str],
        findings: Sequence[str] | None = None,
        *,
        n_points: int = 4,
        steps: int = 500,
        lr: float = 0.1,
        betas: Sequence[float] = (0.9, 0.999),
        lambda_id: float = 0.1,
        lambda_path: float = 1.0,
        lambda_class: float = 1.0,
        chunk: int = 4,
        unit_pairs: int = 8,
        name: str | None = None,
        device: str = "cpu",
    ) -> None:
        _check("n_points", n_points, n_points >= 3, "at least 3, two of which are the ends")
        _check("steps", steps, steps >= 0, "at least 0")
        _check(
            "networks", "none to judge points by", not steps or None not in (phi_id, phi_class), "phi_id and phi_class"
        )
        _check("lr", lr, lr > 0, "above 0")
        _check("betas", betas, len(betas) == 2 and all(0 <= b < 1 for b in betas), "two, 0 to below 1")
        _check("weight", (lambda_id, lambda_path, lambda_class), min(lambda_id, lambda_path, lambda_class) >= 0, ">= 0")
        _check("chunk", (chunk, unit_pairs), min(chunk, unit_pairs) >= 1, "at least 1, as unit_pairs")
        self.encoder, self.synthesis, self.phi_id, self.phi_class = encoder, synthesis, phi_id, phi_class
        self.findings = None if findings is None else tuple(findings)
        self.settings: dict[str, Any] = {"n_points": n_points, "steps": steps}
        if steps:
            self.settings |= {"lr": lr, "betas": list(betas), "lambda_id": lambda_id, "lambda_path": lambda_path}
            self.settings |= {"lambda_class": lambda_class, "chunk": chunk}
        self.n_points, self.steps, self.unit_pairs, self.device = n_points, steps, unit_pairs, device
        points = "" if n_points == 4 else f" n={n_points}"
        self.name = name or (f"plan steps={steps}{points}" if steps else f"plan straight{points}")
        self.fingerprint = f"plan {json.dumps([weights, self.settings], sort_keys=True)}"
        self.description = f"paths of {n_points} points, {n_points - 2} released, " + (
            f"Adam, learning rate {lr:g}, {steps} steps; weight of identity {lambda_id:g}" if steps else "straight"
        )

    @classmethod
    def from_weights(
        cls, models_dir: PathLike, autoencoder: str = "aegan", device: str = "cpu", **settings: Any
    ) -> Plan:
        """From a folder of recorded weights: ``autoencoder`` and, but for ``steps`` 0, ``plan_identity`` and
        ``utility``.

        Raises:
            IntegrityError: ``GM-W001`` … ``GM-W006``.
            UsageError: ``GM-U077`` as the constructor.
        """
        names = [autoencoder] if settings.get("steps") == 0 else [autoencoder, "plan_identity", "utility"]
        networks = [load_recorded(models_dir, name).to(device) for name in names]
        index = read_index(models_dir)
        hashes = {name: index[name]["sha256"] for name in names}
        phi_id, phi_class = (*networks[1:], None, None)[:2]
        findings = None
        if phi_class is not None:
            findings = read_metadata(f"{models_dir}/{index['utility']['file']}").get("findings")
        network: Any = networks[0]
        settings = {"findings": findings, "device": device} | settings
        return cls(network.encoder, network.synthesis, phi_id, phi_class, hashes, **settings)

    def anonymize(self, real: RealImages, seed: int = 0, store: UnitStore | None = None) -> Release:
        """Makes a release: the inner points of every path, path by path.

        Args:
            real: images, each of which is an end of one path at most; a few without a partner are in none.
            seed: decides who is paired with whom.
            store: finished units are kept there, and are not made again.

        Raises:
            UsageError: ``GM-U077`` where no two patients can be paired, or the cohort does not look for the findings of
                ``phi_class``.
        """
        findings = real.cohort.findings if self.findings is None else self.findings
        unknown = set(findings or ()) - set(real.cohort.findings or ())
        _check("cohort", ", ".join(sorted(unknown)), not unknown, "labels of all findings that phi_class looks for")
        table = real.cohort.label_matrix(findings)
        pairs = draw_pairs(real.cohort, table, seed)
        _check("cohort", f"{len(real)} images", len(pairs) > 0, "images of two patients or more")
        labels = shared_labels(table, pairs)
        n_inner = self.n_points - 2

        def unit_of(part: slice) -> Unit:
            ends, shared = np.ascontiguousarray(real.pixels[pairs[part]]), labels[part]

            def make() -> tuple[UInt8[np.ndarray, "b 1 h w"], Int64[np.ndarray, "b 2"]]:
                levels = to_levels(self.paths(torch.from_numpy(ends), torch.from_numpy(shared)).flatten(0, 1))
                return levels, np.full((len(levels), 2), (1, self.steps), dtype=np.int64)

            facts = f"{self.fingerprint} {ends.shape} {shared.shape}".encode()
            return (facts, ends.tobytes(), shared.tobytes()), make

        released = np.empty((len(pairs) * n_inner, *real.pixels.shape[1:]), np.float32)
        for part, images, _ in finished_units(len(pairs), self.unit_pairs, unit_of, store, self.name, "paths"):
            released[part.start * n_inner : part.stop * n_inner] = images
        sources = tuple((int(a), int(b)) for a, b in pairs for _ in range(n_inner))
        repeated = np.repeat(labels, n_inner, axis=0)
        return Release(self.name, released, sources, self.policy, labels=repeated, findings=tuple(findings or ()))

    def paths(self, ends: Float[Tensor, "p 2 1 h w"], labels: Float[Tensor, "p k"]) -> Float[Tensor, "p i 1 h w"]:
        """Images of the inner points of each path, in [0, 1].

        Args:
            ends: the two real images of each pair, in [0, 1].
            labels: findings that both have; nan where they differ or nobody looked.
        """
        with torch.no_grad():
            codes = self.encoder(ends.to(self.device).flatten(0, 1)).unflatten(0, (-1, 2))
        share = torch.linspace(0, 1, self.n_points, device=codes.device)[None, :, None]
        line = torch.lerp(codes[:, :1], codes[:, 1:], share)
        inner = line[:, 1:-1].clone().requires_grad_(True)
        labels = labels.to(self.device)
        adam = None
        if self.steps:
            adam = torch.optim.Adam([inner], lr=self.settings["lr"], betas=tuple(self.settings["betas"]))
        for _ in range(self.steps):
            assert adam is not None
            with torch.enable_grad():
                loss = self.loss(codes, inner, labels)
                inner.grad = torch.autograd.grad(loss, inner)[0].nan_to_num()
            adam.step()
        with torch.no_grad():
            return self._images(inner)

    def loss(
        self, ends: Float[Tensor, "p 2 d"], inner: Float[Tensor, "p i d"], labels: Float[Tensor, "p k"]
    ) -> Float[Tensor, ""]:
        """The loss of all paths together, see the head of this module.

        Args:
            ends: codes of the fixed ends.
            inner: codes of the points that move.
            labels: as :meth:`paths`.
        """
        assert self.phi_id is not None and self.phi_class is not None
        n_pairs, n_inner = inner.shape[:2]
        images = self._images(inner).flatten(0, 1)
        identity = privacy_divergence(self.phi_id(images)).view(n_pairs, n_inner)
        wanted = labels.repeat_interleave(n_inner, dim=0)
        label = label_cross_entropy(self.phi_class(images), wanted).view(n_pairs, n_inner)
        path = torch.cat([ends[:, :1], inner, ends[:, 1:]], dim=1)
        length = path.diff(dim=1).square().sum()
        s = self.settings
        mean = _chunk_weights(n_inner, s["chunk"]).to(identity)
        return (
            s["lambda_id"] * (identity * mean).sum()
            + s["lambda_path"] * length
            + s["lambda_class"] * (label * mean).sum()
        )

    def _images(self, codes: Float[Tensor, "p i d"]) -> Float[Tensor, "p i 1 h w"]:
        images = self.synthesis(codes.flatten(0, 1), noise_mode="const").clamp(0.0, 1.0)
        return images.unflatten(0, codes.shape[:2])


def _chunk_weights(n: int, chunk: int) -> Float[Tensor, "n"]:
    """Weight of each point in the sum over chunks of the mean over a chunk."""
    sizes = torch.tensor([min(chunk, n - first) for first in range(0, n, chunk)])
    return (1.0 / sizes).repeat_interleave(sizes)


def _check(name: str, got: object, usable: object, expected: str) -> None:
    if not usable:
        raise UsageError("GM-U077", f"unusable {name} for PLAN", got=got, expected=expected)
