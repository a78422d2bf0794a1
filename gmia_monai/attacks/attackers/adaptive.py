"""Attackers that have seen what the system does: refitted on releases of the role A.

``adaptive_released`` learns to tell released images of a patient from those of others, which is how the verifier of
PriCheXy-Net's evaluation is trained (Packhäuser et al., MICCAI 2023); ``adaptive_cross`` learns released images beside
real ones of the patient, ``adaptive_source`` beside their very sources, both with a network for either side. Where an
image has several sources, it is an image of each of their patients.

A refit starts from whichever is best on V2: the network as it is, its scores turned, or the network behind the linear
maps that the ``linear`` attacker solves for. So it has to end at least where that attacker is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial

import numpy as np
import torch
from jaxtyping import Int
from torch import nn

from gmia_monai.attacks.attackers.base import CosineScore, EmbeddingAttacker
from gmia_monai.attacks.attackers.embedder import NetworkEmbedder
from gmia_monai.attacks.attackers.linear import use_best_maps
from gmia_monai.attacks.attackers.trained import load_attacker_network
from gmia_monai.attacks.base import AttackerKnowledge, Judged
from gmia_monai.attacks.linear_maps import LinearMaps, linear_maps
from gmia_monai.attacks.refit import RefitRecipe, Side, refit
from gmia_monai.attacks.refit_pair import RefitPair
from gmia_monai.attacks.refit_store import RefitStore, refit_key
from gmia_monai.data.cohort import Cohort
from gmia_monai.data.pairs import PAIRS_VERSION
from gmia_monai.data.threats import threat_pairs
from gmia_monai.inferers.autocast import computes_bfloat16
from gmia_monai.metrics.verification import roc_auc
from gmia_monai.networks.identity import IdentityNet
from gmia_monai.typing import PathLike
from gmia_monai.weights import sha256_of

__all__ = ["AdaptiveAttacker", "real_side", "released_side", "within_budget"]


def released_side(judged: Judged) -> Side:
    """Released images with the patient and the radiograph behind each; one of several sources comes once for each, one
    without any is left out."""
    pairs = [(i, s) for i, sources in enumerate(judged.release.sources) for s in sources]
    image, source = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
    cohort = judged.real.cohort
    return Side(judged.release.pixels[image], cohort.patient_index[source], source, _strata(cohort)[source])


def real_side(judged: Judged) -> Side:
    """The real images behind a release."""
    cohort = judged.real.cohort
    return Side(judged.real.pixels, cohort.patient_index, np.arange(len(cohort)), _strata(cohort))


def _strata(cohort: Cohort) -> Int[np.ndarray, "n"]:
    """A number for each folder, sex and view."""
    known: dict[tuple[str, str, str], int] = {}
    return np.array([known.setdefault((r.folder, r.sex, r.view), len(known)) for r in cohort], dtype=np.int64)


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
        against: ``released`` (both sides released, one network), ``real`` (released against other real images of the
            patient, two networks) or ``source`` (released against sources, two networks).
        recipe: how it is refitted.
        max_patients: patients of A that it learns from; None: all.
        device: where it runs.
        store: refitted networks that are there already; None: none are.
        two_views: embeds the mirror image, too: a mirrored patient is another patient to the refit. Not for the
            optimiser's own encoder, which systems were made against with one view.

    Attributes:
        kept_start: after :meth:`fit`, whether no update brought more on V2 than the start, so that the network is the
            one that it started from, turned or behind linear maps where that is better.
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
        two_views: bool = True,
    ) -> None:
        super().__init__(name)
        self.weights = tuple(weights)
        self.against = against
        self.recipe = recipe or RefitRecipe()
        self.max_patients = max_patients
        self.device = device
        self.store = store or RefitStore()
        self.two_views = two_views
        self.kept_start = False

    def fit(self, knowledge: AttackerKnowledge, seed: int) -> None:
        """Refits the network of a seed.

        Raises:
            UsageError: ``GM-U303`` for a release with several sources an image where both sides are released,
                ``GM-U313`` without weights, ``GM-U314`` for too few patients, as in a generated release.
        """
        network = load_attacker_network(self.weights, seed)
        if isinstance(network, IdentityNet):
            network.two_views = self.two_views
        shared = self.against == "released"
        if shared:
            knowledge.own.release.only_source()
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
            "records": [part.real.cohort.records_hash for part in (knowledge.own, knowledge.choice)],
            "start": ["linear", knowledge.training.content_hash],
        }
        if not self.two_views:
            facts["two_views"] = False
        key = refit_key(facts, released, other)
        pair = RefitPair(network, shared=shared).to(self.device)
        if not self.store.fill(key, pair):
            found = self._validation(knowledge.choice)
            self._start(pair, network, knowledge, released, found)
            refit(
                pair,
                released,
                other,
                recipe=self.recipe,
                seed=seed,
                validate=partial(self._validate, found=found),
                device=self.device,
                to_source=self.against == "source",
                name=f"refit {self.name}, seed {seed}",
            )
            self.store.keep(key, pair)
        fitted = zip(network.parameters(), pair.released.network.parameters(), strict=True)
        self.kept_start = all(torch.equal(a.cpu(), b.cpu()) for a, b in fitted)
        self._take(pair)

    def _start(
        self,
        pair: RefitPair,
        network: nn.Module,
        knowledge: AttackerKnowledge,
        released: Side,
        found: Callable[[], float],
    ) -> None:
        """Brings the pair to the best start on V2."""
        plain = self._validate(pair, found)
        if plain < 0.5:
            pair.turn()
            plain = 1.0 - plain
        if len(np.unique(released.patient)) < 2:  # the refit says why not
            return
        embed = NetworkEmbedder(network, device=self.device)
        candidates = linear_maps(
            embed(knowledge.training.pixels),
            knowledge.training.cohort.patient_index,
            embed(released.pixels),
            embed(knowledge.own.real.pixels)[released.exposure],
        )
        if pair.real is pair.released:
            candidates = (LinearMaps(maps.released, maps.released) for maps in candidates)
        maps, linear = use_best_maps(self, embed, candidates, found)
        if linear > plain:
            pair.place(maps)

    def _validation(self, judged: Judged) -> Callable[[], float]:
        """The AUC on V2 of the networks that are in use when it is called."""
        if judged.release.kind == "k_to_one":
            return partial(_auc_of_sources, self, judged, own=self.against == "source")
        threat = {"released": "T3", "real": "T1", "source": "T2"}[self.against]
        pairs = threat_pairs(judged.real.cohort, threat, "matched", judged.released, 20)
        return lambda: roc_auc(EmbeddingAttacker.score(self, judged, pairs, threat), pairs.same, pairs.weight)

    def _released_side(self, knowledge: AttackerKnowledge) -> Side:
        """The released images that it learns from."""
        return released_side(knowledge.own)

    def _validate(self, pair: RefitPair, found: Callable[[], float]) -> float:
        self._take(pair)
        return found()

    def _take(self, pair: RefitPair) -> None:
        self.compare = pair.compare if pair.by_head else CosineScore(float(pair.sign))
        self.use(
            NetworkEmbedder(pair.released, device=self.device),
            None if pair.real is pair.released else NetworkEmbedder(pair.real, device=self.device),
        )


def _auc_of_sources(attacker: EmbeddingAttacker, judged: Judged, own: bool) -> float:
    """How well released images find their sources, or other images of the sources' patients, among real images."""
    assert attacker.embed_released is not None and attacker.embed_real is not None
    scores = attacker.compare_all(
        attacker.embed_released(judged.release.pixels), attacker.embed_real(judged.real.pixels)
    )
    patient = judged.real.cohort.patient_index
    source = np.zeros(scores.shape, dtype=bool)
    for image, sources in enumerate(judged.release.sources):
        source[image, list(sources)] = True
    person = np.stack([np.isin(patient, list(p)) for p in judged.release.source_patients(judged.real.cohort)])
    positive = source if own else person & ~source
    asked = positive | ~person
    return roc_auc(scores[asked], positive[asked])
