"""Inversion: a network that is trained on the attacker's own releases to give the real image back.

Its output is judged by the person that it shows: verification against *other* real images of the patient (T1) and
against the source (T2), by the strongest attacker on V2 that has seen real images alone. The release itself is scored
beside it. An inversion that tells no more of the person than the release does is a failed attack, not a safe release:
the line says which of the two it was.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from monai.networks.nets import BasicUNet
from torch import Tensor

from gmia_monai.attacks.attackers.base import EmbeddingAttacker
from gmia_monai.attacks.attackers.embedder import NetworkEmbedder
from gmia_monai.attacks.base import AttackerKnowledge, Judged, Pixels
from gmia_monai.attacks.pool import AttackerPool
from gmia_monai.attacks.training import Schedule, train
from gmia_monai.data.threats import threat_pairs
from gmia_monai.errors import UsageError
from gmia_monai.metrics.intervals import pair_bootstrap_auc
from gmia_monai.metrics.results import Result, RunContext
from gmia_monai.metrics.verification import roc_auc

__all__ = ["InversionAttack"]

_BATCH = 64


class InversionAttack:
    """U-Net from released to real images, with a loss on pixels and, where the judge is a network, on its embedding.

    Args:
        attackers: one of them judges the output: ``arcface``, else ``snn``, else ``frozen``.
        seed: of network and training.
        n_boot: bootstrap resamples.
        schedule: how long it is trained.
        batch_size: images a step.
        device: where it runs.
    """

    name = "inversion"

    def __init__(
        self,
        attackers: AttackerPool,
        seed: int = 0,
        n_boot: int = 500,
        schedule: Schedule | None = None,
        batch_size: int = 16,
        device: str = "cpu",
    ) -> None:
        self.attackers = attackers
        self.seed = seed
        self.n_boot = n_boot
        self.schedule = schedule or Schedule(steps=1500, lr=2e-3, weight_decay=1e-4, validate_every=250)
        self.batch_size = batch_size
        self.device = device
        self._network: BasicUNet | None = None
        self._judge: EmbeddingAttacker | None = None
        self._knowledge: AttackerKnowledge | None = None

    def fit(self, knowledge: AttackerKnowledge) -> None:
        """Trains on releases of A; the best by the verification AUC of its output on V2 is kept.

        Raises:
            UsageError: ``GM-U303`` for a release without one source an image, ``GM-U326`` without a judge.
        """
        self._knowledge = knowledge
        names = [name for name in ("arcface", "snn", "frozen") if name in self.attackers]
        if not names:
            raise UsageError(
                "GM-U326", "inversion needs an attacker that knows real images", expected="arcface, frozen"
            )
        judge = self.attackers.fitted(names[0], self.seed, knowledge)
        if not isinstance(judge, EmbeddingAttacker):
            raise UsageError("GM-U326", "inversion needs an attacker that embeds images", got=names[0])
        self._judge = judge
        released = knowledge.own.release.pixels
        real = knowledge.own.real.pixels[knowledge.own.release.only_source()]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            network = BasicUNet(2, 1, 1, features=(16, 32, 64, 64, 96, 16), act="relu").to(self.device)
        self._network = network

        embedder = judge.embed_real.network if isinstance(judge.embed_real, NetworkEmbedder) else None

        def loss_of(rng: np.random.Generator) -> Tensor:
            i = rng.integers(0, len(released), self.batch_size)
            x, y = (torch.from_numpy(images[i]).to(self.device) for images in (released, real))
            if rng.random() < 0.5:
                x, y = x.flip(-1), y.flip(-1)
            out = network(x)
            loss = F.l1_loss(out, y) + 0.5 * F.l1_loss(F.avg_pool2d(out, 4), F.avg_pool2d(y, 4))
            if embedder is not None:
                loss = loss + 0.2 * (1.0 - F.cosine_similarity(embedder(out), embedder(y))).mean()
            return loss

        def validate() -> float:
            return self._auc(knowledge.choice, self._invert(knowledge.choice.released_pixels()), "T2")

        train(network, loss_of, self.schedule, self.seed, validate, name="inversion")

    def score(self, judged: Judged, context: RunContext) -> list[Result]:
        """``inversion_auc.<threat>.v1`` of the output, ``inversion_auc_release.<threat>.v1`` of the release itself, by
        the same judge; matched negatives; and ``inversion_psnr.v1`` in dB against the source.

        Raises:
            UsageError: ``GM-U311`` before :meth:`fit`.
        """
        if self._knowledge is None or self._judge is None:
            raise UsageError("GM-U311", "the inversion attack has not been fitted")
        self._knowledge.refuse_overlap(judged)
        released = judged.released_pixels()
        output = self._invert(released)
        kept = judged.released
        results = []
        for threat in ("T1", "T2"):
            pairs = threat_pairs(judged.real.cohort, threat, "matched", kept)
            values = {}
            for label, pixels in (("inversion_auc", output), ("inversion_auc_release", released)):
                scores = self._scores(judged, pixels, pairs)
                values[label] = pair_bootstrap_auc(
                    scores,
                    pairs.same,
                    pairs.patient_first,
                    pairs.patient_second,
                    pairs.weight,
                    self.n_boot,
                    context.seed,
                )
            won = abs(values["inversion_auc"].value - 0.5) > abs(values["inversion_auc_release"].value - 0.5)
            for label, value in values.items():
                results.append(
                    context.result(
                        f"{label}.{threat}.v1",
                        value,
                        n_patients=pairs.n_positive_patients,
                        n_images=int(kept.sum()),
                        negatives="matched",
                        attacker=self._judge.name,
                        extra={"inversion_beats_release": bool(won)},
                    )
                )
        error = np.square(output[kept] - judged.real.pixels[kept]).mean(axis=(1, 2, 3))
        results.append(
            context.result(
                "inversion_psnr.v1",
                float(np.mean(-10.0 * np.log10(np.maximum(error, 1e-12)))),
                n_patients=len(np.unique(judged.real.cohort.patient_index[kept])),
                n_images=int(kept.sum()),
            )
        )
        return results

    @torch.no_grad()
    def _invert(self, pixels: Pixels) -> Pixels:
        assert self._network is not None
        self._network.eval()
        parts = [
            self._network(torch.from_numpy(pixels[i : i + _BATCH]).to(self.device)).clamp(0, 1).cpu().numpy()
            for i in range(0, len(pixels), _BATCH)
        ]
        return np.concatenate(parts).astype(np.float32)

    def _scores(self, judged: Judged, pixels: Pixels, pairs: object) -> np.ndarray:
        assert self._judge is not None and self._judge.embed_real is not None
        left, right = self._judge.embed_real(pixels), self._judge.embed_real(judged.real.pixels)
        return self._judge.compare_positions(left, right, pairs)  # type: ignore[arg-type]

    def _auc(self, judged: Judged, pixels: Pixels, threat: str) -> float:
        pairs = threat_pairs(judged.real.cohort, threat, "matched", judged.released, 20)
        return roc_auc(self._scores(judged, pixels, pairs), pairs.same, pairs.weight)
