"""Part 6 of ours: a k-anonymous release. One image stands for k distinct patients, and nothing but the group enters it.

Groups are made of images with like findings, one image a patient: same-size clusters of what is known of them and of
their diagnostic logits. The released code is drawn from the prior at the mean of the members' known facts, with logits
moved to the members' mean; start, targets and seed are functions of the group alone, so that it makes no difference
which member asks. A remainder of fewer than k patients is left out.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor, nn

from gmia_monai.anonymizers.grouping import (
    diversity_figures,
    label_diversity,
    majority_labels,
    one_image_per_patient,
    same_size_clusters,
)
from gmia_monai.anonymizers.store import Unit, UnitStore, finished_units, to_levels
from gmia_monai.data.known import known_of_cohort
from gmia_monai.data.release import RealImages, Release
from gmia_monai.errors import UsageError
from gmia_monai.inferers.latent_editing import edit_latents
from gmia_monai.losses.editing import Near
from gmia_monai.networks.pretrained import load_recorded
from gmia_monai.typing import IntArray, PathLike
from gmia_monai.weights import read_index

__all__ = ["RobustGroups"]


class RobustGroups:
    """Groups of k patients, one drawn image each.

    Args:
        autoencoder: co-trained auto-encoder; its synthesis is used.
        utility: diagnostic network.
        prior: of codes and logits.
        fingerprint: hash of weights and settings.
        k: patients a group, at least 2.
        n_rounds: how often all patients are grouped, each time by another image where they have one; a release holds
            about ``n_rounds / k`` images a patient, and a patient stands in at most ``n_rounds`` groups.
        temperature: of the prior's draw.
        lambda_drawn: weight of the mean logits of the members.
        lr: learning rate of the editing.
        steps: updates.
        device: where networks run.
        unit_size: groups worked on together.
        name: for the result lines; None: made of ``k``.

    Raises:
        UsageError: ``GM-U054`` for fewer than two patients a group, or less than one round.
    """

    policy = "k_anonymous"

    def __init__(
        self,
        autoencoder: nn.Module,
        utility: nn.Module,
        prior: nn.Module,
        fingerprint: str,
        *,
        k: int = 5,
        n_rounds: int = 1,
        temperature: float = 1.0,
        lambda_drawn: float = 1.0,
        lr: float = 0.05,
        steps: int = 20,
        device: str = "cpu",
        unit_size: int = 64,
        name: str | None = None,
    ) -> None:
        if k < 2 or n_rounds < 1:
            raise UsageError(
                "GM-U054", "unusable groups", got=f"k {k}, {n_rounds} rounds", expected="k of at least 2, a round"
            )
        self.name = name or f"robust k={k}"
        self.fingerprint = fingerprint
        self.autoencoder, self.utility, self.prior = (net.to(device) for net in (autoencoder, utility, prior))
        self.k, self.n_rounds, self.lambda_drawn = k, n_rounds, lambda_drawn
        self.temperature = temperature
        self._diversity: IntArray | None = None
        self.lr, self.steps, self.device, self.unit_size = lr, steps, device, unit_size

    @classmethod
    def from_weights(
        cls,
        models_dir: PathLike,
        autoencoder: str = "aegan",
        prior: str = "prior",
        device: str = "cpu",
        **settings: Any,
    ) -> RobustGroups:
        """From a folder with ``utility`` and the two that are named, see :meth:`Robust.from_weights`.

        Raises:
            IntegrityError: ``GM-W001`` … ``GM-W006``.
            UsageError: ``GM-U054`` as the class.
        """
        names = (autoencoder, "utility", prior)
        index = read_index(models_dir)
        networks = [load_recorded(models_dir, name) for name in names]
        facts = {name: index[name]["sha256"] for name in names}
        text = json.dumps([facts, settings], sort_keys=True)
        return cls(*networks, f"robust groups {text}", device=device, **settings)

    def anonymize(self, real: RealImages, seed: int = 0, store: UnitStore | None = None) -> Release:
        """One released image a group, whose sources are the k members.

        Raises:
            UsageError: ``GM-U309`` where the records hold no finding of the prior's.
        """
        groups = self._groups(real, seed)
        known = known_of_cohort(real.cohort, self.prior.known)

        def unit_of(part: slice) -> Unit:
            members, facts = ([rows[group] for group in groups[part]] for rows in (real.pixels, known))

            def make() -> tuple[UInt8[np.ndarray, "b 1 h w"], Int64[np.ndarray, "b 2"]]:
                levels = to_levels(self._draw(members, facts, seed))
                return levels, np.full((len(levels), 2), (1, self.steps), dtype=np.int64)

            of_groups = (rows.tobytes() for group in zip(members, facts, strict=True) for rows in group)
            return (f"{self.fingerprint} {seed}".encode(), *of_groups), make

        pixels = np.zeros((len(groups), *real.pixels.shape[1:]), dtype=np.float32)
        for part, images, _ in finished_units(len(groups), self.unit_size, unit_of, store, self.name, "groups"):
            pixels[part] = images
        sources = tuple(tuple(map(int, group)) for group in groups)
        findings = real.cohort.findings or ()
        labels = majority_labels(real.cohort, sources)
        release = Release(self.name, pixels, sources, self.policy, labels=labels, findings=findings)
        self._diversity = label_diversity(release, real.cohort)
        return release

    def figures_of(self, real: RealImages) -> dict[str, float]:
        """Different sets of findings in a group of the last release: ``label_diversity_min`` and ``_mean``."""
        return {} if self._diversity is None else diversity_figures(self._diversity)

    def _groups(self, real: RealImages, seed: int) -> list[np.ndarray]:
        """Members of each group, in ascending order: it does not matter in which order they came."""
        found: list[np.ndarray] = []
        known = known_of_cohort(real.cohort, self.prior.known)
        for number in range(self.n_rounds):
            chosen = np.asarray(one_image_per_patient(real, seed * 1_000_003 + number))
            points = np.concatenate([known[chosen], 0.5 * self._logits(real.pixels[chosen])], axis=1)
            found += [np.sort(chosen[list(cluster)]) for cluster in same_size_clusters(points, self.k)]
        return found

    @torch.no_grad()
    def _logits(self, pixels: Float[np.ndarray, "n 1 h w"]) -> np.ndarray:
        spread = self.prior.scale[self.prior.latent_dim :]
        parts = [self.utility(torch.from_numpy(pixels[i : i + 64]).to(self.device)) for i in range(0, len(pixels), 64)]
        return (torch.cat(parts) / spread).cpu().numpy()

    def _draw(self, members: list[np.ndarray], known: list[np.ndarray], seed: int) -> Tensor:
        """Images ``[groups, 1, h, w]``, each of a group alone."""
        with torch.no_grad():
            facts = torch.from_numpy(np.stack([rows.mean(axis=0) for rows in known])).to(self.device)
            targets = torch.stack(
                [self.utility(torch.from_numpy(images).to(self.device)).mean(dim=0) for images in members]
            )
            w, _ = self.prior.draw(facts, [self._seed_of(images, seed) for images in members], self.temperature)
        spread = self.prior.scale[self.prior.latent_dim :]
        found = edit_latents(
            w,
            lambda code, mode: self.autoencoder.synthesis(code, noise_mode=mode),
            {"drawn": (self.lambda_drawn, Near(self.utility, targets, spread))},
            lr=self.lr,
            steps=self.steps,
        )
        return found.image.cpu()

    @staticmethod
    def _seed_of(images: np.ndarray, seed: int) -> int:
        """From the members' pixels in sorted order."""
        parts = sorted(hashlib.sha256(np.ascontiguousarray(image).tobytes()).digest() for image in images)
        return int.from_bytes(hashlib.sha256(f"{seed} ".encode() + b"".join(parts)).digest()[:7], "little")
