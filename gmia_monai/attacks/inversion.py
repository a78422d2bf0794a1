"""Inversion: a network that is trained on the attacker's own releases to give the real image back, by what it adds.

As Dosovitskiy and Brox (CVPR 2016) invert representations by a network that learned from pairs.

Its output is judged by the person that it shows: verification against *other* real images of the patient (T1) and
against the source (T2). One network is in the loss, and another judges: what was trained to please a network says
nothing under it. A judge may have grown out of a network like the one in the loss, the Siamese one out of the ArcFace
one of its seed; so the network in the loss is that of another seed.

The release itself is scored beside the output, by the same judge, each with the sign that it has on V2. An inversion
that tells no more of the person than the release does is a failed attack, not a safe release; the gain over the
release, with an interval of its own, says which of the two it was. A judge that is blind to the release makes it easy;
so the release is scored by whoever tells most of it on V2, too. Where the release tells all, as unchanged images do,
there is nothing to gain.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from monai.networks.nets import BasicUNet
from torch import Tensor, nn

from gmia_monai.attacks.attackers.base import EmbeddingAttacker
from gmia_monai.attacks.attackers.embedder import NetworkEmbedder
from gmia_monai.attacks.base import AttackerKnowledge, Judged, Pixels, TooLittleDataError
from gmia_monai.attacks.pool import AttackerPool
from gmia_monai.attacks.seeds import Statistics, checked_seeds, shared_statistics
from gmia_monai.attacks.training import Schedule, train
from gmia_monai.data.pairs import Pairs
from gmia_monai.data.threats import threat_pairs
from gmia_monai.errors import UsageError
from gmia_monai.metrics.intervals import pair_bootstrap_figures, patient_bootstrap_figures
from gmia_monai.metrics.limits import Interval
from gmia_monai.metrics.results import Result, RunContext
from gmia_monai.metrics.verification import SortedScores, roc_auc

__all__ = ["InversionAttack"]

_BATCH = 64
_ROUNDING = 1e-6  # of two AUCs that are the same
_PIXELS = 1e-3  # what a difference of 1 in all pixels counts against an AUC of 1, when a network is chosen
_THREATS = ("T1", "T2")
# The encoder that the system was optimised against is a friend of the system: it judges where there is no other.
_JUDGES = ("snn", "arcface", "frozen")
_IN_LOSS = ("arcface", "frozen")


class InversionAttack:
    """U-Net from released to real images; the loss is on pixels and on the embedding of a network other than the judge.

    Args:
        attackers: the first of ``snn``, ``arcface`` and ``frozen`` that there is judges; of the others, the first of
            ``arcface`` and ``frozen`` is in the loss. With one of them alone, the loss is on pixels.
        seeds: of networks, training and attackers; figures are means over them. The network in the loss is that of the
            next one, after the last that of the first; of a single seed, that of the number after it.
        n_boot: bootstrap resamples.
        schedule: how long each is trained.
        batch_size: images a step.
        device: where they run.

    Raises:
        UsageError: ``GM-U316`` without a seed.
    """

    name = "inversion"

    def __init__(
        self,
        attackers: AttackerPool,
        seeds: Sequence[int] = (0,),
        n_boot: int = 500,
        schedule: Schedule | None = None,
        batch_size: int = 16,
        device: str = "cpu",
    ) -> None:
        self.attackers = attackers
        self.seeds = checked_seeds(seeds)
        self.n_boot = n_boot
        self.schedule = schedule or Schedule(steps=1500, lr=2e-3, weight_decay=1e-4, validate_every=250)
        self.batch_size = batch_size
        self.device = device
        self._knowledge: AttackerKnowledge | None = None
        self._fitted: list[_Inversion] = []
        self._best: dict[str, _Reader] = {}

    def fit(self, knowledge: AttackerKnowledge) -> None:
        """Trains on releases of A; the best by the verification AUC of its output on V2 is kept: mean of T1 and T2,
        whichever the sign, of equals that with the smaller error of pixels. The signs of output and release are chosen
        there, as is who tells most of the release.

        Raises:
            UsageError: ``GM-U303`` for a release without one source an image, ``GM-U326`` without a judge.
        """
        self._knowledge = knowledge
        self._fitted = [self._trained(knowledge, k) for k in range(len(self.seeds))]
        self._best = {threat: self._best_reader(knowledge, threat) for threat in _THREATS}

    def _trained(self, knowledge: AttackerKnowledge, place: int) -> _Inversion:
        seed = self.seeds[place]
        judge = self._judge_of(knowledge, seed)
        loss_seed = _another_seed(self.seeds, place)
        in_loss, embed = self._network_of_loss(knowledge, judge, loss_seed)
        released = knowledge.own.release.pixels
        real = knowledge.own.real.pixels[knowledge.own.release.only_source()]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = _Corrector().to(self.device)

        def loss_of(rng: np.random.Generator) -> Tensor:
            i = rng.integers(0, len(released), self.batch_size)
            x, y = (torch.from_numpy(images[i]).to(self.device) for images in (released, real))
            if rng.random() < 0.5:
                x, y = x.flip(-1), y.flip(-1)
            out = network(x)
            loss = F.l1_loss(out, y) + 0.5 * F.l1_loss(F.avg_pool2d(out, 4), F.avg_pool2d(y, 4))
            if embed is not None:
                with torch.no_grad():
                    person = embed(y)
                loss = loss + 0.2 * (1.0 - F.cosine_similarity(embed(out), person)).mean()
            return loss

        choice = knowledge.choice
        pairs = {threat: _pairs(choice, threat, 20) for threat in _THREATS}

        def auc(pixels: Pixels, threat: str) -> float:
            return _auc(judge, choice, pixels, pairs[threat])

        there = choice.released

        def validate() -> float:
            output = _invert(network, choice.released_pixels())
            found = [auc(output, threat) for threat in _THREATS]
            # Where the judge tells all there is to tell, what looks more like the real image is better.
            off = float(np.abs(output - choice.real.pixels)[there].mean())
            return float(np.mean([max(a, 1.0 - a) for a in found])) - _PIXELS * off

        train(network, loss_of, self.schedule, seed, validate, name=f"inversion, seed {seed}")
        sides = (_invert(network, choice.released_pixels()), choice.released_pixels())
        signs = {}
        for threat in _THREATS:
            output, release = (-1.0 if auc(pixels, threat) < 0.5 else 1.0 for pixels in sides)
            signs[threat] = (output, release)
        return _Inversion(network, judge, in_loss, None if in_loss is None else loss_seed, signs)

    def _judge_of(self, knowledge: AttackerKnowledge, seed: int) -> EmbeddingAttacker:
        names = [name for name in _JUDGES if name in self.attackers]
        if not names:
            raise UsageError(
                "GM-U326", "inversion needs an attacker that knows real images", expected="snn, arcface, frozen"
            )
        return self._embedding(names[0], knowledge, seed)

    def _embedding(self, name: str, knowledge: AttackerKnowledge, seed: int) -> EmbeddingAttacker:
        attacker = self.attackers.fitted(name, seed, knowledge)
        if not isinstance(attacker, EmbeddingAttacker):
            raise UsageError("GM-U326", "inversion needs an attacker that embeds images", got=name)
        return attacker

    def _best_reader(self, knowledge: AttackerKnowledge, threat: str) -> _Reader:
        """Who is furthest from chance on the releases of V2, as a mean over seeds, and the sign of each seed there."""
        choice, pairs = knowledge.choice, _pairs(knowledge.choice, threat, 20)
        found = []
        for name in (name for name in _JUDGES if name in self.attackers):
            readers = tuple(self._embedding(name, knowledge, seed) for seed in self.seeds)
            aucs = np.array([_auc(reader, choice, choice.released_pixels(), pairs) for reader in readers])
            signs = tuple(-1.0 if auc < 0.5 else 1.0 for auc in aucs)
            found.append(_Reader(readers, signs, round(float(np.maximum(aucs, 1.0 - aucs).mean()), 6)))
        return max(found, key=lambda reader: reader.auc)

    def _network_of_loss(
        self, knowledge: AttackerKnowledge, judge: EmbeddingAttacker, seed: int
    ) -> tuple[str | None, nn.Module | None]:
        """Name and network of the attacker in the loss: not the judge, and one that gradients go through."""
        for name in _IN_LOSS:
            if name in self.attackers and name != judge.name:
                attacker = self.attackers.fitted(name, seed, knowledge)
                if isinstance(attacker, EmbeddingAttacker) and isinstance(attacker.embed_real, NetworkEmbedder):
                    return name, attacker.embed_real.network
        return None, None

    def score(self, judged: Judged, context: RunContext) -> list[Result]:
        """``inversion_auc.<threat>.v1`` of the output, ``inversion_auc_release.<threat>.v1`` of the release itself,
        each signed by V2, and ``inversion_gain.<threat>.v1``, by how much the first is above the second, in [-1, 1];
        T1 and T2, matched negatives. ``inversion_auc_release_best.<threat>.v1`` is the release under whichever of
        ``snn``, ``arcface`` and ``frozen`` tells most of it on V2, by its sign there. ``extra["beats_release"]`` of the
        gain says whether its lower limit is above 0, ``extra["beats_best_on_release"]`` the same of the gain over that
        best one, which is ``extra["gain_over_best"]`` with its limits.
        ``inversion_psnr.v1`` is the output's mean PSNR in dB against the source.

        Raises:
            UsageError: ``GM-U311`` before :meth:`fit`.
        """
        if self._knowledge is None:
            raise UsageError("GM-U311", "the inversion attack has not been fitted")
        self._knowledge.refuse_overlap(judged)
        released = judged.released_pixels()
        outputs = [_invert(inversion.network, released) for inversion in self._fitted]
        kept = judged.released
        results = []
        for threat in _THREATS:
            results += self._lines(judged, outputs, released, threat, context)
        patients = judged.real.cohort.patient_index[kept]
        psnr = patient_bootstrap_figures(
            shared_statistics([_psnr(output[kept], judged.real.pixels[kept]) for output in outputs], _mean),
            patients,
            self.n_boot,
            context.seed,
            bounds=(-np.inf, np.inf),
        )
        results.append(
            context.result(
                "inversion_psnr.v1",
                psnr[0],
                n_patients=len(np.unique(patients)),
                n_images=int(kept.sum()),
                extra={"attacker_seeds": list(self.seeds)},
            )
        )
        return results

    def _lines(
        self, judged: Judged, outputs: Sequence[Pixels], released: Pixels, threat: str, context: RunContext
    ) -> list[Result]:
        """Output, release, gain and release at its best under one threat model, from the same resamples."""
        pairs, best = _pairs(judged, threat), self._best[threat]
        intervals = pair_bootstrap_figures(
            [self._figures(k, judged, outputs[k], released, pairs, threat) for k in range(len(self.seeds))],
            pairs.same,
            pairs.patient_first,
            pairs.patient_second,
            pairs.weight,
            self.n_boot,
            context.seed,
            bounds=[(0.0, 1.0), (0.0, 1.0), (-1.0, 1.0), (0.0, 1.0), (-1.0, 1.0)],
        )
        _, _, gain, _, over_best = intervals
        first = self._fitted[0]
        shared = {
            "attacker_seeds": list(self.seeds),
            "network_in_loss": first.in_loss,
            "loss_seed": [inversion.loss_seed for inversion in self._fitted],
        }
        signs = [list(inversion.signs[threat]) for inversion in self._fitted]
        gains: dict[str, object] = {
            "signs": signs,
            "beats_release": bool(gain.low > _ROUNDING),
            "beats_best_on_release": bool(over_best.low > _ROUNDING),
            "best_on_release": best.name,
            "gain_over_best": [round(x, 6) if np.isfinite(x) else None for x in over_best],
        }
        lines: tuple[tuple[str, Interval, str, dict[str, object]], ...] = (
            ("auc", intervals[0], first.judge.name, {"sign": [output for output, _ in signs]}),
            ("auc_release", intervals[1], first.judge.name, {"sign": [release for _, release in signs]}),
            ("gain", gain, first.judge.name, gains),
            (
                "auc_release_best",
                intervals[3],
                best.name,
                {"sign": list(best.signs), "auc_on_choice": round(best.auc, 6)},
            ),
        )
        return [
            context.result(
                f"inversion_{name}.{threat}.v1",
                interval,
                n_patients=pairs.n_positive_patients,
                n_images=int(judged.released.sum()),
                negatives="matched",
                attacker=attacker,
                extra=shared | extra,
            )
            for name, interval, attacker, extra in lines
        ]

    def _figures(
        self, k: int, judged: Judged, output: Pixels, released: Pixels, pairs: Pairs, threat: str
    ) -> Statistics:
        """Of one seed: AUC of the output, of the release, the difference, the release at its best, the difference."""
        inversion, best = self._fitted[k], self._best[threat]
        by_output, by_release = inversion.signs[threat]
        asked = (
            (inversion.judge, by_output, output),
            (inversion.judge, by_release, released),
            (best.attackers[k], best.signs[k], released),
        )
        tables = [SortedScores(sign * _scores(who, judged, pixels, pairs), pairs.same) for who, sign, pixels in asked]

        def figures(weights: Float[np.ndarray, "n"]) -> tuple[float, ...]:
            won, before, at_best = (table.auc(weights) for table in tables)
            return won, before, won - before, at_best, won - at_best

        return figures


class _Corrector(nn.Module):
    """What a U-Net adds to the release; at first nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.unet = BasicUNet(2, 1, 1, features=(16, 32, 64, 64, 96, 16), act="relu")
        nn.init.zeros_(self.unet.final_conv.weight)
        nn.init.zeros_(self.unet.final_conv.bias)

    def forward(self, released: Tensor) -> Tensor:
        return released + self.unet(released)


@dataclass(frozen=True, eq=False)
class _Inversion:
    """A trained inversion, its judge, name and seed of the network in its loss, and the signs of output and release."""

    network: nn.Module
    judge: EmbeddingAttacker
    in_loss: str | None
    loss_seed: int | None
    signs: dict[str, tuple[float, float]]


@dataclass(frozen=True, eq=False)
class _Reader:
    """An attacker that looks at the release itself: the one of each seed, its sign on V2, and the mean AUC there."""

    attackers: tuple[EmbeddingAttacker, ...]
    signs: tuple[float, ...]
    auc: float

    @property
    def name(self) -> str:
        """As the protocol has it."""
        return self.attackers[0].name


def _another_seed(seeds: Sequence[int], place: int) -> int:
    """The next seed that is another one, from the first again after the last; the number after it where all are one."""
    others = [seed for seed in (*seeds[place + 1 :], *seeds[:place]) if seed != seeds[place]]
    return others[0] if others else seeds[place] + 1


@torch.no_grad()
def _invert(network: nn.Module, pixels: Pixels) -> Pixels:
    network.eval()
    device = next(network.parameters()).device
    parts = [network(torch.from_numpy(part).to(device)).clamp(0, 1).cpu().numpy() for part in _batches(pixels)]
    return np.concatenate(parts).astype(np.float32)


def _batches(pixels: Pixels) -> Iterator[Pixels]:
    return (pixels[i : i + _BATCH] for i in range(0, len(pixels), _BATCH))


def _mean(values: Float[np.ndarray, "n"]) -> Statistics:
    return lambda weights: (float(np.average(values, weights=weights)),)


def _psnr(output: Pixels, real: Pixels) -> Float[np.ndarray, "n"]:
    error = np.square(output - real).mean(axis=(1, 2, 3))
    return np.asarray(-10.0 * np.log10(np.maximum(error, 1e-12)))


def _pairs(judged: Judged, threat: str, negatives_per_positive: int = 50) -> Pairs:
    pairs = threat_pairs(judged.real.cohort, threat, "matched", judged.released, negatives_per_positive)
    if pairs.n_positives == 0 or pairs.n_negatives == 0:
        raise TooLittleDataError("GM-U317", f"no pairs for threat model {threat}", got=repr(pairs))
    return pairs


def _auc(judge: EmbeddingAttacker, judged: Judged, pixels: Pixels, pairs: Pairs) -> float:
    return roc_auc(_scores(judge, judged, pixels, pairs), pairs.same, pairs.weight)


def _scores(judge: EmbeddingAttacker, judged: Judged, pixels: Pixels, pairs: Pairs) -> Float[np.ndarray, "n"]:
    """The judge's score of each pair of one of these images and a real one."""
    assert judge.embed_real is not None
    return judge.compare_positions(judge.embed_real(pixels), judge.embed_real(judged.real.pixels), pairs)
