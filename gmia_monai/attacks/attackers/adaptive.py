"""Attackers that have seen what the system does: refitted on releases of the role A.

``adaptive_released`` learns to tell released images of a patient from those of others, which is how the verifier of
PriCheXy-Net's evaluation is trained (Packhäuser et al., MICCAI 2023); ``adaptive_cross`` learns released images beside
real ones, with a network for either side.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from functools import partial

import numpy as np

from gmia_monai.attacks.attackers.base import EmbeddingAttacker
from gmia_monai.attacks.attackers.embedder import NetworkEmbedder
from gmia_monai.attacks.attackers.trained import load_attacker_network
from gmia_monai.attacks.base import AttackerKnowledge, Judged
from gmia_monai.attacks.refit import RefitPair, RefitRecipe, Side, refit
from gmia_monai.attacks.refit_store import RefitStore, refit_key
from gmia_monai.data.pairs import PAIRS_VERSION, Pairs
from gmia_monai.data.threats import threat_pairs
from gmia_monai.inferers.autocast import computes_bfloat16
from gmia_monai.metrics.verification import roc_auc
from gmia_monai.networks.identity import IdentityNet
from gmia_monai.typing import PathLike
from gmia_monai.weights import sha256_of

__all__ = ["AdaptiveAttacker", "real_side", "released_side", "within_budget"]


def released_side(judged: Judged) -> Side:
    """Released images with the patient and the radiograph behind each."""
    source = judged.release.only_source()
    return Side(judged.release.pixels, judged.real.cohort.patient_index[source], source)


def real_side(judged: Judged) -> Side:
    """The real images behind a release."""
    return Side(judged.real.pixels, judged.real.cohort.patient_index, np.arange(len(judged.real)))


def within_budget(side: Side, max_patients: int | None, seed: int) -> Side:
    """Images of so many patients, drawn by the seed: those of a smaller budget are among those of a larger one."""
    if max_patients is None:
        return side
    patients = np.random.default_rng(seed).permutation(np.unique(side.patient))
    return side.of_patients(patients[:max_patients])


class AdaptiveAttacker(EmbeddingAttacker):
    """A trained attacker refitted on the attacker's own releases, validated on those of V2.

    Args:
        name: of the attacker.
        weights: weights files to start from, one a seed.
        against: ``released`` (both sides released, one network) or ``real`` (released against real, two networks).
        recipe: how it is refitted.
        max_patients: patients of A that it learns from; None: all.
        device: where it runs.
        store: refitted networks that are there already; None: none are.
    """

    def __init__(
        self,
        name: str,
        weights: Sequence[PathLike],
        against: str = "real",
        recipe: RefitRecipe | None = None,
        max_patients: int | None = None,
        device: str = "cpu",
        store: RefitStore | None = None,
    ) -> None:
        super().__init__(name)
        self.weights = tuple(weights)
        self.against = against
        self.recipe = recipe or RefitRecipe()
        self.max_patients = max_patients
        self.device = device
        self.store = store or RefitStore()

    def fit(self, knowledge: AttackerKnowledge, seed: int) -> None:
        """Refits the network of a seed.

        Raises:
            UsageError: ``GM-U303`` for a release without one source an image, ``GM-U313`` without weights, ``GM-U314``
                for too few patients.
        """
        network = load_attacker_network(self.weights, seed)
        if isinstance(network, IdentityNet):
            network.two_views = True  # a mirrored patient is another patient to the refit, too
        shared = self.against == "released"
        released = within_budget(self._released_side(knowledge), self.max_patients, seed)
        other = released if shared else real_side(knowledge.own)
        facts = {
            "base": sha256_of(self.weights[seed % len(self.weights)]),
            "against": self.against,
            "pairs": PAIRS_VERSION,
            "bfloat16": self.recipe.bfloat16 and computes_bfloat16(self.device),
            "recipe": asdict(self.recipe),
            "seed": seed,
            "choice": [knowledge.choice.release.content_hash, knowledge.choice.real.content_hash],
        }
        key = refit_key(facts, released, other)
        pair = RefitPair(network, shared=shared).to(self.device)
        if not self.store.fill(key, pair):
            judged, threat = knowledge.choice, "T3" if shared else "T1"
            pairs = threat_pairs(judged.real.cohort, threat, "matched", judged.released, 20)
            validate = partial(self._validate, judged=judged, pairs=pairs, threat=threat)
            if validate(pair) < 0.5:
                pair.turn()
            refit(pair, released, other, recipe=self.recipe, seed=seed, validate=validate, device=self.device)
            self.store.keep(key, pair)
        self._take(pair)

    def _released_side(self, knowledge: AttackerKnowledge) -> Side:
        """The released images that it learns from."""
        return released_side(knowledge.own)

    def _validate(self, pair: RefitPair, judged: Judged, pairs: Pairs, threat: str) -> float:
        self._take(pair)
        return roc_auc(EmbeddingAttacker.score(self, judged, pairs, threat), pairs.same, pairs.weight)

    def _take(self, pair: RefitPair) -> None:
        self.compare = pair.compare
        self.use(
            NetworkEmbedder(pair.released, device=self.device),
            None if pair.real is pair.released else NetworkEmbedder(pair.real, device=self.device),
        )
