"""Redrawing by a system of the benchmark: any that makes one image of one, with what a hospital's headers can tell."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32
from torch import nn

from gmia_monai.anonymizers import ANONYMIZERS, ImageAnonymizer
from gmia_monai.data.cohort import Cohort
from gmia_monai.data.known import FACTS
from gmia_monai.data.release import RealImages
from gmia_monai.errors import UsageError
from gmia_monai.networks.pretrained import load_recorded
from gmia_monai.release.policy import Policy
from gmia_monai.release.records import record_of
from gmia_monai.typing import PathLike
from gmia_monai.weights import watched_reads

__all__ = ["SystemRedraw"]

_LIKELY = 0.5


class SystemRedraw:
    """A system behind :class:`gmia_monai.release.parts.Redrawing`.

    Records of a hospital name no findings: those that a diagnostic network of the system's own side holds more probable
    than not stand in their place.

    Args:
        system: makes one image of one.
        utility: gives logits of ``findings``.
        findings: names of its outputs.
        image_size: side of its images.
        weights: file name and SHA-256 of every network that has a part in it.
    """

    def __init__(
        self,
        system: ImageAnonymizer,
        utility: Callable[[torch.Tensor], torch.Tensor],
        findings: Sequence[str],
        image_size: int,
        weights: Mapping[str, str],
    ) -> None:
        self.system = system
        self.image_size = image_size
        self.weights = dict(weights)
        self.description = f"Anonymized by gmia_monai ({system.name})"
        self._utility = utility
        self._findings = tuple(findings)

    @classmethod
    def from_policy(cls, policy: Policy, models_dir: PathLike, device: str = "cpu") -> SystemRedraw:
        """The system that a policy names, from a folder of recorded weights.

        Raises:
            UsageError: ``GM-U419`` for a system that does not make one image of one, or one that does not promise what
                the policy says of linkage; whatever the system says of its settings.
            IntegrityError: ``GM-W001`` … ``GM-W008`` for weights that are missing or not what was recorded.
        """
        maker = ANONYMIZERS.get(policy.system.name)
        build = getattr(maker, "from_weights", None)
        if maker is None or not issubclass(maker, ImageAnonymizer) or build is None:
            names = [n for n, m in ANONYMIZERS.items() if issubclass(m, ImageAnonymizer) and hasattr(m, "from_weights")]
            raise UsageError(
                "GM-U419", "no system that a release can use", got=policy.system.name, expected=", ".join(names)
            )
        settings: dict[str, Any] = dict(policy.system.settings)
        taken = inspect.signature(maker.__init__).parameters
        if "policy" in taken:
            settings["policy"] = policy.linkage
        with watched_reads() as read:
            try:
                system = build(Path(models_dir), device=device, **settings)
            except TypeError:
                raise UsageError(
                    "GM-U420", "a setting that the system does not have", got=", ".join(sorted(settings))
                ) from None
            utility = load_recorded(models_dir, "utility").to(device).eval()
        if system.policy and system.policy != policy.linkage:
            raise UsageError(
                "GM-U419",
                "the system does not promise what the policy says",
                got=f"{system.policy} releases",
                expected=policy.linkage,
            )
        return cls(system, _on(utility, device), _findings_of(system, utility), policy.system.image_size, read)

    def __call__(
        self,
        images: Float32[np.ndarray, "n s s"],
        known: Sequence[Mapping[str, Any]],
        handles: Sequence[str],
        patients: Sequence[str],
        seed: int,
    ) -> Float32[np.ndarray, "n s s"]:
        """New images, see :class:`gmia_monai.release.parts.Redrawing`."""
        pixels = np.ascontiguousarray(images[:, None], dtype=np.float32)
        with torch.no_grad():
            likely = torch.sigmoid(self._utility(torch.from_numpy(pixels))).numpy() > _LIKELY
        labels = [[(name, float(x)) for name, x in zip(self._findings, row, strict=False)] for row in likely]
        records = map(record_of, handles, patients, known, labels)
        cohort = Cohort(tuple(records), findings=self._findings)
        return self.system.anonymize(RealImages(cohort, pixels), seed).pixels[:, 0]


def _on(network: nn.Module, device: str) -> Callable[[torch.Tensor], torch.Tensor]:
    return lambda images: network(images.to(device)).float().cpu()


def _findings_of(system: ImageAnonymizer, utility: nn.Module) -> list[str]:
    """Names of the first outputs of the diagnostic network, as far as the system knows them; else numbers."""
    known = [name for name in getattr(getattr(system, "prior", None), "known", ()) if name not in FACTS]
    n = int(utility.n_findings)  # type: ignore[arg-type]
    return known[:n] if known else [f"finding {i}" for i in range(n)]
