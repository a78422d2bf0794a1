"""The filter of privacy-enhancing sampling (Packhaeuser et al., ISBI 2023, arXiv 2211.01323): a generated image is
compared with the training images that resemble it most, and rejected where a verifier takes the two for one person.

``accept  <=>  max over the K nearest training images x_i of sigma(V(x, x_i)) < tau``

The published retrieval network is a ResNet-50 trained for the purpose; its place is taken by the recorded ``identity``
encoder, and that of the published verifier by the recorded ``verifier``, both trained on role S. The published
threshold is not known. Here ``tau`` comes from real images of people who are not in the training set: at most a given
share of them may be rejected. Whether the filter finds what it is for is measured on planted copies
(:mod:`gmia_monai.evaluation.planted_copies`); filters of this kind are known to miss generated near-duplicates (arXiv
2510.01793).
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict, dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, Int64
from torch import Tensor, nn

from gmia_monai.data.release import RealImages
from gmia_monai.data.roles import check_disjoint
from gmia_monai.errors import UsageError
from gmia_monai.networks.pretrained import load_recorded
from gmia_monai.networks.siamese import SiameseVerifier
from gmia_monai.typing import PathLike
from gmia_monai.weights import read_index

__all__ = ["Calibration", "PrivacyFilter", "threshold_at_rate"]

_BATCH = 256
NEGATIVES = ("nearest", "random")


@dataclass(frozen=True)
class Calibration:
    """Where a threshold comes from.

    Attributes:
        negatives: ``nearest``: each image of other people with its K nearest training images, as the filter is used;
            ``random``: each with every training image, one by one, as the rate of a verifier is usually given.
        rate: share of the negatives that may be rejected at most.
        n: negatives: images for ``nearest``, pairs for ``random``.
        n_patients: people whom they show.
        tau: probability at and above which an image is rejected.
        reached: share of the negatives that is.
    """

    negatives: str
    rate: float
    n: int
    n_patients: int
    tau: float
    reached: float


def threshold_at_rate(scores: Float[np.ndarray, "n"], rate: float) -> float:
    """The least threshold that at most ``rate`` of the scores reach: just above the one that would be too many."""
    allowed = min(math.floor(rate * len(scores)), len(scores) - 1)
    return float(np.nextafter(np.sort(scores.astype(np.float64))[::-1][allowed], np.inf))


class PrivacyFilter:
    """Compares images with the training images of a generator.

    Scores are logits: probabilities near one cannot be told apart in single precision.

    Args:
        training: images that the generator learned from.
        retrieval: maps ``[b, 1, h, w]`` in [0, 1] to embeddings ``[b, d]``; their cosine finds the nearest.
        verifier: compares with those.
        threshold_logit: score at and above which an image is rejected.
        n_nearest: K; 1 in the paper.
        calibration: where the threshold comes from.
        weights: sha256 of the two networks, for the fingerprint.
        device: where the networks run.
    """

    def __init__(
        self,
        training: RealImages,
        retrieval: nn.Module,
        verifier: SiameseVerifier,
        threshold_logit: float = 0.0,
        n_nearest: int = 1,
        calibration: Calibration | None = None,
        weights: dict[str, str] | None = None,
        device: str = "cpu",
    ) -> None:
        self.retrieval = retrieval.to(device).eval()
        self.verifier = verifier.to(device).eval()
        self.device = device
        self.threshold_logit = threshold_logit
        self.n_nearest = min(n_nearest, len(training))
        self.calibration = calibration
        self._facts = [training.content_hash, weights or {}]
        self._place = {record.image: i for i, record in enumerate(training.cohort)}
        self._embedded, self._features = self._look(torch.from_numpy(training.pixels))

    @classmethod
    def calibrated(
        cls,
        models_dir: PathLike,
        training: RealImages,
        other_people: RealImages,
        rate: float = 0.01,
        negatives: str = "nearest",
        n_nearest: int = 1,
        retrieval: str = "identity",
        verifier: str = "verifier",
        device: str = "cpu",
    ) -> PrivacyFilter:
        """A filter of recorded networks, with its threshold.

        Args:
            models_dir: folder of recorded weights.
            training: images that the generator learned from (role S).
            other_people: real images of other people (role V1).
            rate: share of the negatives that may be rejected at most. A rate far below one in the number of images
                rests on the largest score alone.
            negatives: ``nearest`` or ``random``, see :class:`Calibration`.
            n_nearest: K.
            retrieval: name of the encoder that retrieves.
            verifier: name of the verifier.
            device: where the networks run.

        Raises:
            IntegrityError: ``GM-W001`` … ``GM-W006``.
            ManifestError: as :func:`gmia_monai.data.check_disjoint`, where a person is in both.
            UsageError: ``GM-U079`` for other negatives, or a rate out of [0, 1).
        """
        if negatives not in NEGATIVES or not 0.0 <= rate < 1.0:
            raise UsageError(
                "GM-U079",
                "latent diffusion cannot sample as it is set",
                got=f"negatives {negatives}, rate {rate}",
                expected=f"negatives {' or '.join(NEGATIVES)}, a rate from 0 to below 1",
            )
        check_disjoint({"training": training.cohort, "other people": other_people.cohort})
        index = read_index(models_dir)
        networks = [load_recorded(models_dir, name) for name in (retrieval, verifier)]
        weights = {name: index[name]["sha256"] for name in (retrieval, verifier)}
        found = cls(training, *networks, n_nearest=n_nearest, weights=weights, device=device)  # type: ignore[arg-type]
        images = torch.from_numpy(other_people.pixels)
        scores = (found.scores(images) if negatives == "nearest" else found._all_scores(images)).double().numpy()
        found.threshold_logit = threshold_at_rate(scores, rate)
        found.calibration = Calibration(
            negatives,
            rate,
            len(scores),
            len(other_people.cohort.patients),
            1.0 / (1.0 + math.exp(-found.threshold_logit)),
            float((scores >= found.threshold_logit).mean()),
        )
        return found

    @property
    def fingerprint(self) -> str:
        """Hash of all that decides what is rejected."""
        text = json.dumps([*self._facts, self.threshold_logit, self.n_nearest], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def description(self) -> str:
        """Threshold and its origin in words."""
        tau = 1.0 / (1.0 + math.exp(-self.threshold_logit))
        text = f"nearest {self.n_nearest} of {len(self._features)} training images, tau {tau:.6g}"
        c = self.calibration
        if c is None:
            return text
        return f"{text}, which {c.reached:.3%} of {c.n} {c.negatives} negatives of {c.n_patients} patients reach"

    @property
    def facts(self) -> dict[str, object]:
        """Threshold and its origin for result lines."""
        own = {"threshold_logit": self.threshold_logit, "n_nearest": self.n_nearest, "n_training": len(self._features)}
        return own | ({} if self.calibration is None else asdict(self.calibration))

    def places(self, images: RealImages) -> Int64[np.ndarray, "n"]:
        """Positions of images among the training images; -1 for one that is none of them."""
        return np.array([self._place.get(record.image, -1) for record in images.cohort], dtype=np.int64)

    @torch.no_grad()
    def _look(self, images: Float[Tensor, "b 1 h w"]) -> tuple[Float[Tensor, "b d"], Float[Tensor, "b f"]]:
        embedded, features = [], []
        for part in images.split(_BATCH):
            part = part.to(self.device)
            embedded.append(F.normalize(self.retrieval(part).float(), dim=1))
            features.append(self.verifier(part).float())
        return torch.cat(embedded), torch.cat(features)

    @torch.no_grad()
    def nearest(
        self, images: Float[Tensor, "b 1 h w"]
    ) -> tuple[Float[Tensor, "b"], Int[Tensor, "b"], Int[Tensor, "b"]]:
        """For images in [0, 1] the largest logit over the retrieved training images, the position of the one that it
        comes from, and that of the nearest."""
        embedded, features = self._look(images)
        places = (embedded @ self._embedded.T).topk(self.n_nearest, dim=1).indices
        logits = self.verifier.compare(features[:, None], self._features[places])
        best, at = logits.max(dim=1)
        return best.cpu(), places.gather(1, at[:, None])[:, 0].cpu(), places[:, 0].cpu()

    def scores(self, images: Float[Tensor, "b 1 h w"]) -> Float[Tensor, "b"]:
        """The largest logit of each image over its K nearest training images."""
        return self.nearest(images)[0]

    def rejects(self, images: Float[Tensor, "b 1 h w"]) -> Bool[Tensor, "b"]:
        """Whether each image is taken for a person of the training set."""
        return self.scores(images).double() >= self.threshold_logit

    @torch.no_grad()
    def _all_scores(self, images: Float[Tensor, "b 1 h w"]) -> Float[Tensor, "n"]:
        """Logits of all pairs of an image and a training image."""
        features = self._look(images)[1]
        return torch.cat([self.verifier.compare(one[None], self._features) for one in features]).cpu()
