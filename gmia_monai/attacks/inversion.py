"""Inversion: a network that is trained on the attacker's own releases to give the real image back.

Its output is judged by the person that it shows: verification against *other* real images of the patient (T1) and
against the source (T2). One network is in the loss, and another judges: what was trained to please a network says
nothing under it. The release itself is scored beside the output, by the same judge, each with the sign that it has on
V2. An inversion that tells no more of the person than the release does is a failed attack, not a safe release; the gain
over the release, with an interval of its own, says which of the two it was. Where the release tells all, as unchanged
images do, there is nothing to gain.
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
from gmia_monai.attacks.base import AttackerKnowledge, Judged, Pixels
from gmia_monai.attacks.pool import AttackerPool
from gmia_monai.attacks.seeds import Statistics, checked_seeds, shared_statistics
from gmia_monai.attacks.training import Schedule, train
from gmia_monai.data.pairs import Pairs
from gmia_monai.data.threats import threat_pairs
from gmia_monai.errors import UsageError
from gmia_monai.metrics.intervals import pair_bootstrap_figures, patient_bootstrap_figures
from gmia_monai.metrics.results import Result, RunContext
from gmia_monai.metrics.verification import SortedScores, roc_auc

__all__ = ["InversionAttack"]

_BATCH = 64
_ROUNDING = 1e-6  # of two AUCs that are the same
_THREATS = ("T1", "T2")
# The encoder that the system was optimised against is a friend of the system: it judges where there is no other.
_JUDGES = ("snn", "arcface", "frozen")
_IN_LOSS = ("arcface", "frozen")


class InversionAttack:
    """U-Net from released to real images; the loss is on pixels and on the embedding of a network other than the judge.

    Args:
        attackers: the first of ``snn``, ``arcface`` and ``frozen`` that there is judges; of the others, the first of
            ``arcface`` and ``frozen`` is in the loss. With one of them alone, the loss is on pixels.
        seeds: of networks, training and attackers; figures are means over them.
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

    def fit(self, knowledge: AttackerKnowledge) -> None:
        """Trains on releases of A; the best by the verification AUC of its output on V2, whichever its sign, is kept,
        and the signs of output and release are chosen there.

        Raises:
            UsageError: ``GM-U303`` for a release without one source an image, ``GM-U326`` without a judge.
        """
        self._knowledge = knowledge
        self._fitted = [self._trained(knowledge, seed) for seed in self.seeds]

    def _trained(self, knowledge: AttackerKnowledge, seed: int) -> _Inversion:
        judge = self._judge_of(knowledge, seed)
        in_loss, embed = self._network_of_loss(knowledge, judge, seed)
        released = knowledge.own.release.pixels
        real = knowledge.own.real.pixels[knowledge.own.release.only_source()]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = BasicUNet(2, 1, 1, features=(16, 32, 64, 64, 96, 16), act="relu").to(self.device)

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
            return roc_auc(_scores(judge, choice, pixels, pairs[threat]), pairs[threat].same, pairs[threat].weight)

        def validate() -> float:
            found = auc(_invert(network, choice.released_pixels()), "T2")
            return max(found, 1.0 - found)

        train(network, loss_of, self.schedule, seed, validate, name=f"inversion, seed {seed}")
        sides = (_invert(network, choice.released_pixels()), choice.released_pixels())
        signs = {}
        for threat in _THREATS:
            output, release = (-1.0 if auc(pixels, threat) < 0.5 else 1.0 for pixels in sides)
            signs[threat] = (output, release)
        return _Inversion(network, judge, in_loss, signs)

    def _judge_of(self, knowledge: AttackerKnowledge, seed: int) -> EmbeddingAttacker:
        names = [name for name in _JUDGES if name in self.attackers]
        if not names:
            raise UsageError(
                "GM-U326", "inversion needs an attacker that knows real images", expected="snn, arcface, frozen"
            )
        judge = self.attackers.fitted(names[0], seed, knowledge)
        if not isinstance(judge, EmbeddingAttacker):
            raise UsageError("GM-U326", "inversion needs an attacker that embeds images", got=names[0])
        return judge

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
        T1 and T2, matched negatives. ``extra["beats_release"]`` of the gain says whether its lower limit is above 0.
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
        """Output, release and gain under one threat model, from the same resamples."""
        pairs = _pairs(judged, threat)

        def figures_of(inversion: _Inversion, output: Pixels) -> Statistics:
            tables = [
                SortedScores(sign * _scores(inversion.judge, judged, pixels, pairs), pairs.same)
                for sign, pixels in zip(inversion.signs[threat], (output, released), strict=True)
            ]

            def figures(weights: Float[np.ndarray, "n"]) -> tuple[float, float, float]:
                won, before = (table.auc(weights) for table in tables)
                return won, before, won - before

            return figures

        intervals = pair_bootstrap_figures(
            [figures_of(inversion, output) for inversion, output in zip(self._fitted, outputs, strict=True)],
            pairs.same,
            pairs.patient_first,
            pairs.patient_second,
            pairs.weight,
            self.n_boot,
            context.seed,
            bounds=[(0.0, 1.0), (0.0, 1.0), (-1.0, 1.0)],
        )
        gain = intervals[2]
        first = self._fitted[0]
        shared = {"attacker_seeds": list(self.seeds), "network_in_loss": first.in_loss}
        signs = [list(inversion.signs[threat]) for inversion in self._fitted]
        extras: tuple[dict[str, object], ...] = (
            {"sign": [output for output, _ in signs]},
            {"sign": [release for _, release in signs]},
            {"signs": signs, "beats_release": bool(gain.low > _ROUNDING)},
        )
        names = ("inversion_auc", "inversion_auc_release", "inversion_gain")
        return [
            context.result(
                f"{name}.{threat}.v1",
                interval,
                n_patients=pairs.n_positive_patients,
                n_images=int(judged.released.sum()),
                negatives="matched",
                attacker=first.judge.name,
                extra=shared | extra,
            )
            for name, interval, extra in zip(names, intervals, extras, strict=True)
        ]


@dataclass(frozen=True, eq=False)
class _Inversion:
    """A trained inversion, its judge, the name of the network in its loss, and the signs of output and release."""

    network: BasicUNet
    judge: EmbeddingAttacker
    in_loss: str | None
    signs: dict[str, tuple[float, float]]


@torch.no_grad()
def _invert(network: BasicUNet, pixels: Pixels) -> Pixels:
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
    return threat_pairs(judged.real.cohort, threat, "matched", judged.released, negatives_per_positive)


def _scores(judge: EmbeddingAttacker, judged: Judged, pixels: Pixels, pairs: Pairs) -> Float[np.ndarray, "n"]:
    """The judge's score of each pair of one of these images and a real one."""
    assert judge.embed_real is not None
    return judge.compare_positions(judge.embed_real(pixels), judge.embed_real(judged.real.pixels), pairs)
