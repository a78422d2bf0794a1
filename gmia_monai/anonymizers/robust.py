"""Ours: a release that nothing of a patient enters but what the policy lets through (design, parts 1 to 5).

Under ``unlinkable`` a code is drawn from the prior on W given what the record says of the image (findings, view, sex,
age), together with the diagnostic logits that go with it; it is then moved until the diagnostic network says those
logits of the synthesised image, which a decoded draw alone does not reach. In :meth:`Robust.anonymize` the source's
pixels are then not looked at: what an attacker finds can be no more than what findings, view, sex and age tell by
themselves (:meth:`Robust.anonymize_batch` has no records, and guesses the findings from the pixels). Under
``pseudonymous`` the draw has one seed a patient and project, so that a patient has one new anatomy for all visits. With
``start`` set to ``own`` or ``neighbours``, and weights for identity, features and logits of the source, it is the
optimisation of GMIA with each of our additions as a switch, which the ablation compares. A ``refiner`` may go over the
images at last: they are brought part of the way into the noise of a latent diffusion and denoised from there given the
findings (SDEdit; Meng et al., ICLR 2022), which gives them the texture that the decoder of the auto-encoder lacks; what
it changes beyond ``detail_px`` is taken back, for the findings lie there.

The seed is part of the secret: who knows it, and what the record says, can make the release again.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor, nn

from gmia_monai.anonymizers.base import ImageAnonymizer, Outcome
from gmia_monai.data.known import known_of_cohort
from gmia_monai.data.release import RealImages
from gmia_monai.errors import UsageError
from gmia_monai.inferers.latent_editing import Term, edit_latents
from gmia_monai.losses.editing import EnsembleIdentity, Near, Realism, view_parameters
from gmia_monai.networks.deformation import gaussian_blur, gaussian_taps
from gmia_monai.networks.pretrained import load_recorded
from gmia_monai.networks.siamese import SiameseVerifier
from gmia_monai.typing import PathLike
from gmia_monai.weights import read_index

__all__ = ["Robust"]

_STARTS = ("prior", "own", "neighbours")
_TOLERANCE = 0.02  # of the identity term; small beside the spread of cosines between strangers, about 0.1


class Robust(ImageAnonymizer):
    """Draws, or moves, the code of each image.

    Args:
        autoencoder: co-trained auto-encoder, with ``encoder`` and ``synthesis``.
        utility: diagnostic network, with ``features`` and logits.
        prior: of codes and logits, see :class:`gmia_monai.networks.prior.LatentPrior`.
        fingerprint: hash of weights and settings.
        encoders: identity encoders of the ensemble, and the mean cosine between strangers of each.
        discriminator: of the realism term; None without it.
        neighbours: codes of patients of S, ``[n, d]``, and the name of each patient, for ``start: neighbours``.
        refiner: latent diffusion that goes over the images, see
            :meth:`gmia_monai.networks.latent_diffusion.LatentDiffusionNet.redraw`; None without it.
        label: name for the result lines.
        policy: ``unlinkable`` or ``pseudonymous``.
        start: ``prior``, ``own`` (the encoder's code) or ``neighbours`` (the mean of the codes of the ``k`` nearest
            other patients of S, one image each).
        k: neighbours.
        temperature: of the prior's draw.
        emphasis: of the findings in the drawn logits, see :meth:`gmia_monai.networks.prior.LatentPrior.draw`.
        lambda_drawn: weight of the logits that were drawn with the code; ``prior`` only.
        lambda_id: weight of the identity of the source, two-sided under ``encoders``.
        two_sided: False for the hinge of GMIA at the same cosines.
        views: whether the encoders see random views.
        lambda_logits: weight of the logits of the source.
        lambda_features: weight of the diagnostic features of the source.
        lambda_prior: weight of the distance from what the prior expects.
        lambda_realism: weight of the discriminator.
        lr: learning rate of the editing.
        steps: updates.
        strength: share of the noise levels that the refiner goes through, in [0, 1].
        guidance: weight of the findings in it.
        refine_steps: steps that all its noise levels would take.
        detail_px: standard deviation of the Gaussian, in pixels, whose part of the refiner's change is taken back; 0
            leaves the whole change.
        device: where networks run.
        unit_size: images worked on together.

    Raises:
        UsageError: ``GM-U053`` for an unknown start or policy, or a part that the settings need and that is not given.
    """

    def __init__(
        self,
        autoencoder: nn.Module,
        utility: nn.Module,
        prior: nn.Module,
        fingerprint: str,
        encoders: Sequence[tuple[Callable[[Tensor], Tensor], float]] = (),
        discriminator: nn.Module | None = None,
        neighbours: tuple[Tensor, Sequence[str]] | None = None,
        refiner: nn.Module | None = None,
        *,
        label: str = "robust",
        policy: str = "unlinkable",
        start: str = "prior",
        k: int = 5,
        temperature: float = 1.0,
        emphasis: float = 1.0,
        lambda_drawn: float = 1.0,
        lambda_id: float = 0.0,
        two_sided: bool = True,
        views: bool = True,
        lambda_logits: float = 0.0,
        lambda_features: float = 0.0,
        lambda_prior: float = 0.0,
        lambda_realism: float = 0.0,
        lr: float = 0.05,
        steps: int = 20,
        strength: float = 0.4,
        guidance: float = 1.0,
        refine_steps: int = 25,
        detail_px: float = 2.0,
        device: str = "cpu",
        unit_size: int = 64,
    ) -> None:
        lacks = {
            "discriminator": lambda_realism > 0 and discriminator is None,
            "encoders": lambda_id > 0 and not encoders,
            "neighbours": start == "neighbours" and neighbours is None,
        }
        if start not in _STARTS or policy not in ("unlinkable", "pseudonymous") or any(lacks.values()):
            missing = [part for part, lacking in lacks.items() if lacking]
            raise UsageError(
                "GM-U053",
                "unusable settings of robust",
                got=f"start {start}, policy {policy}" + (f", without {', '.join(missing)}" if missing else ""),
                expected=f"start: one of {', '.join(_STARTS)}; policy: unlinkable or pseudonymous; every part in use",
            )
        weights = {
            "drawn": lambda_drawn if start == "prior" else 0.0, "identity": lambda_id, "logits": lambda_logits,
            "features": lambda_features, "prior": lambda_prior, "realism": lambda_realism,
        }  # fmt: skip
        shown = {"start": start, "steps": steps, "lr": lr, "temperature": temperature, "emphasis": emphasis} | {
            f"lambda_{key}": value for key, value in weights.items()
        }
        words = ", ".join(f"{key} {value:g}" for key, value in weights.items() if value > 0) or "nothing"
        description = f"start {start}; Adam, learning rate {lr:g}, {steps} steps; weights: {words}"
        if refiner is not None:
            shown |= {"strength": strength, "guidance": guidance, "refine_steps": refine_steps, "detail_px": detail_px}
            description += (
                f"; refined from {strength:g} of the noise levels, guidance {guidance:g}, below {detail_px:g} px"
            )
        super().__init__(label, fingerprint, policy, unit_size, True, shown, description)
        self.autoencoder = autoencoder.to(device)
        self.utility, self.prior = utility.to(device), prior.to(device)
        self.encoders = tuple(encoders)
        self.discriminator = discriminator
        self.neighbours = neighbours
        self.refiner = refiner
        self.strength, self.guidance, self.refine_steps = strength, guidance, refine_steps
        self.detail_px = detail_px
        self.weights = weights
        self.start, self.k, self.temperature, self.emphasis = start, k, temperature, emphasis
        self.two_sided, self.views = two_sided, views
        self.lr, self.steps, self.device = lr, steps, device

    @classmethod
    def from_weights(
        cls,
        models_dir: PathLike,
        autoencoder: str = "aegan",
        prior: str = "prior",
        encoders: Sequence[str] = (),
        strangers_cos: Sequence[float] = (),
        discriminator: str = "",
        refiner: str = "",
        training: Callable[[], RealImages] | None = None,
        device: str = "cpu",
        **settings: Any,
    ) -> Robust:
        """From a folder of recorded weights.

        Args:
            models_dir: with ``utility`` and whatever is named.
            autoencoder: name of the auto-encoder; ``aegan_e`` is that of E-training.
            prior: name of the prior, which must have been fitted to its codes.
            encoders: names of identity encoders; none of an evaluation attacker.
            strangers_cos: mean cosine between strangers of each; 0 for those not given.
            discriminator: name of the discriminator of the realism term.
            refiner: name of the latent diffusion that goes over the images.
            training: gives real images of S, for ``start: neighbours``.
            device: where networks run.
            settings: of the class.

        Raises:
            IntegrityError: ``GM-W001`` … ``GM-W006``.
            UsageError: ``GM-U053`` as the class.
        """
        names = [autoencoder, "utility", prior, *encoders, *(name for name in (discriminator, refiner) if name)]
        networks = {name: load_recorded(models_dir, name) for name in names}
        index = read_index(models_dir)
        facts = {name: index[name]["sha256"] for name in names} | {"strangers_cos": list(strangers_cos)}
        neighbours = None
        if settings.get("start") == "neighbours" and training is not None:
            real = training()
            facts["neighbours"] = real.content_hash
            neighbours = _codes(networks[autoencoder].to(device), real, device)
        cosines = [*strangers_cos, *[0.0] * (len(encoders) - len(strangers_cos))]
        judge = networks.get(discriminator)
        if judge is not None:
            judge.group_size = 1  # a statistic over the batch would let images touch each other
        return cls(
            networks[autoencoder],
            networks["utility"],
            networks[prior],
            f"robust {json.dumps([facts, settings], sort_keys=True)}",
            [(_embedding(networks[name].to(device)), cos) for name, cos in zip(encoders, cosines, strict=True)],
            None if judge is None else judge.to(device),
            neighbours,
            networks[refiner].to(device) if refiner else None,
            device=device,
            **settings,
        )

    def seeds_of(self, real: RealImages, seed: int) -> Sequence[int] | None:
        """``pseudonymous``: one seed a patient; else one an image, by its name: equal pixels do not give
        equal draws away."""
        who = [r.patient_id if self.policy == "pseudonymous" else f"{r.patient_id}/{r.key}" for r in real.cohort]
        digests = [hashlib.sha256(f"robust {seed} {text}".encode()).digest() for text in who]
        return [int.from_bytes(digest[:7], "little") for digest in digests]

    def known_of(self, real: RealImages) -> Float32[np.ndarray, "n k"] | None:
        """Findings, view, sex and age, as the prior takes them.

        Raises:
            UsageError: ``GM-U309`` where the records hold no finding of the prior's.
        """
        known = known_of_cohort(real.cohort, self.prior.known)
        if self.neighbours is None:
            return known
        # Nobody is his own neighbour: the place of the patient among those of S, or -1.
        places = {name: i for i, name in enumerate(self.neighbours[1])}
        own = np.array([[places.get(record.patient_id, -1)] for record in real.cohort], dtype=np.float32)
        return np.concatenate([known, own], axis=1)

    def anonymize_batch(
        self, images: Float[Tensor, "b 1 h w"], seeds: Sequence[int]
    ) -> tuple[Float[Tensor, "b 1 h w"], list[Outcome]]:
        """As :meth:`anonymize_known` for images whose records say nothing: with the findings that the diagnostic
        network holds more probable than not, and half way in all else."""
        with torch.no_grad():
            logits = self.utility(images.to(self.device)).cpu()
        known = np.zeros((len(images), len(self.prior.known)), dtype=np.float32)
        for column, name in enumerate(self.prior.known):
            if column < logits.shape[1]:
                known[:, column] = (logits[:, column] > 0).float().numpy()
            elif name in ("view_AP", "sex_M"):
                known[:, column] = 0.5
        return self.anonymize_known(images, seeds, known)

    def anonymize_known(
        self, images: Float[Tensor, "b 1 h w"], seeds: Sequence[int], known: Float32[np.ndarray, "b k"]
    ) -> tuple[Float[Tensor, "b 1 h w"], list[Outcome]]:
        """Drawn or moved images in [0, 1]; converged where drawn logits, or the cosines, were met."""
        images, facts = images.to(self.device), torch.from_numpy(known).to(self.device)
        n_known = len(self.prior.known)
        own = facts[:, n_known].long() if facts.shape[1] > n_known else torch.full((len(facts),), -1)
        with torch.no_grad():
            w, terms = self._terms(images, list(seeds), facts[:, :n_known], own.cpu())
        found = edit_latents(
            w, lambda code, mode: self.autoencoder.synthesis(code, noise_mode=mode), terms, lr=self.lr, steps=self.steps
        )
        converged = torch.ones(len(images), dtype=torch.bool)
        for name, limit in (("drawn", 0.05), ("identity", _TOLERANCE)):
            if name in found.last:
                converged &= found.last[name].cpu() <= limit
        outcomes = [Outcome(bool(c), self.steps) for c in converged.tolist()]
        return self._refined(found.image, list(seeds), facts[:, :n_known]).cpu(), outcomes

    def _refined(self, images: Tensor, seeds: list[int], known: Tensor) -> Tensor:
        """What the refiner makes of images, given their findings as far as it knows them by name."""
        if self.refiner is None:
            return images
        place = {name: i for i, name in enumerate(self.prior.known)}
        columns = [
            known[:, place[f]] if f in place else torch.full_like(known[:, 0], torch.nan) for f in self.refiner.findings
        ]
        labels = torch.stack(columns, dim=1)
        # Not the seeds of the draw: the noise of one must not tell that of the other.
        other = [seed ^ 0x5EED for seed in seeds]
        refined = self.refiner.redraw(images, self.strength, other, labels, self.guidance, self.refine_steps)
        if self.detail_px > 0:
            taps = gaussian_taps(2 * math.ceil(3.0 * self.detail_px) + 1, self.detail_px)
            refined = refined + gaussian_blur(images - refined, taps, "replicate")
        return refined.clamp(0.0, 1.0)

    def _terms(
        self, images: Tensor, seeds: list[int], known: Tensor, own: Tensor
    ) -> tuple[Tensor, dict[str, tuple[float, Term]]]:
        """Where codes start, and what they are moved by; what has no weight is not computed."""
        weights, spread = self.weights, self.prior.scale[self.prior.latent_dim :]
        terms: dict[str, tuple[float, Term]] = {}
        if self.start == "prior":
            w, drawn = self.prior.draw(known, seeds, self.temperature, self.emphasis)
            terms["drawn"] = weights["drawn"], Near(self.utility, drawn, spread)
        else:
            w = self.autoencoder.encoder(images)
            if self.start == "neighbours":
                w = self._mean_of_neighbours(w, own)
        if weights["identity"] > 0:
            views = view_parameters(seeds, self.steps) if self.views else None
            encoders, targets = zip(*self.encoders, strict=True)
            references = [encoder(images) for encoder in encoders]
            terms["identity"] = (
                weights["identity"],
                EnsembleIdentity(encoders, references, targets, views, self.two_sided),
            )
        if weights["logits"] > 0:
            terms["logits"] = weights["logits"], Near(self.utility, self.utility(images), spread)
        if weights["features"] > 0:
            own = self.utility.features(images)
            terms["features"] = weights["features"], Near(self.utility.features, own)
        if weights["prior"] > 0:
            terms["prior"] = weights["prior"], partial(_unexpected, self.prior, known)
        if weights["realism"] > 0 and self.discriminator is not None:
            terms["realism"] = weights["realism"], Realism(self.discriminator)
        return w, terms

    def _mean_of_neighbours(self, w: Tensor, own: Tensor) -> Tensor:
        """Mean of the ``k`` nearest codes of other patients; ``own`` is the place of each image's patient, or -1."""
        assert self.neighbours is not None
        codes = self.neighbours[0].to(w.device)
        distance = torch.cdist(w, codes)
        rows = torch.nonzero(own >= 0)[:, 0]
        distance[rows, own[rows].to(w.device)] = torch.inf
        k = min(self.k, len(codes) - 1)
        return codes[distance.topk(k, largest=False).indices].mean(dim=1)


def _unexpected(prior: nn.Module, known: Tensor, image: Tensor, w: Tensor, step: int) -> Tensor:
    return prior.distance(w, known)


def _embedding(network: nn.Module) -> Callable[[Tensor], Tensor]:
    """Embedding whose cosine means something: features of a verifier lie in (0, 1) and are taken from one half."""
    if isinstance(network, SiameseVerifier):
        return lambda image: network(image) - 0.5
    return network


@torch.no_grad()
def _codes(autoencoder: nn.Module, real: RealImages, device: str) -> tuple[Tensor, Sequence[str]]:
    """One code a patient, of the first image, and the names of the patients."""
    _, first = np.unique(real.cohort.patient_index, return_index=True)
    parts = [
        autoencoder.encoder(torch.from_numpy(real.pixels[first[i : i + 64]]).to(device))
        for i in range(0, len(first), 64)
    ]
    return torch.cat(parts), [real.cohort[int(i)].patient_id for i in first]
