"""Systems under judgement, by name: controls, the published systems, and ours."""

from __future__ import annotations

from gmia_monai.anonymizers.base import Anonymizer, ImageAnonymizer, Outcome
from gmia_monai.anonymizers.controls import Noise, Reconstruction, Shuffled, Unchanged
from gmia_monai.anonymizers.dp_pix import DPPix
from gmia_monai.anonymizers.falco import Falco
from gmia_monai.anonymizers.gmia import GMIA
from gmia_monai.anonymizers.gmia_e import GMIAE, ReconstructionE
from gmia_monai.anonymizers.k_salsa import KSalsa
from gmia_monai.anonymizers.latent_diffusion import LatentDiffusion
from gmia_monai.anonymizers.masks import BlackBoxes, Blur, Downsampled, RandomWarp
from gmia_monai.anonymizers.network import PriCheXy, PrivacyNet
from gmia_monai.anonymizers.plan import Plan
from gmia_monai.anonymizers.privacy_filter import PrivacyFilter
from gmia_monai.anonymizers.robust import Robust
from gmia_monai.anonymizers.robust_groups import RobustGroups
from gmia_monai.anonymizers.store import UnitStore

__all__ = [
    "ANONYMIZERS",
    "GMIA",
    "GMIAE",
    "Anonymizer",
    "BlackBoxes",
    "Blur",
    "DPPix",
    "Downsampled",
    "Falco",
    "ImageAnonymizer",
    "KSalsa",
    "LatentDiffusion",
    "Noise",
    "Outcome",
    "Plan",
    "PriCheXy",
    "PrivacyFilter",
    "PrivacyNet",
    "RandomWarp",
    "Reconstruction",
    "ReconstructionE",
    "Robust",
    "RobustGroups",
    "Shuffled",
    "Unchanged",
    "UnitStore",
]

ANONYMIZERS: dict[str, type[Anonymizer]] = {
    "identity": Unchanged,
    "noise": Noise,
    "shuffled": Shuffled,
    "masks": BlackBoxes,
    "blur": Blur,
    "downsampled": Downsampled,
    "random_warp": RandomWarp,
    "dp_pix": DPPix,
    "reconstruction": Reconstruction,
    "reconstruction_e": ReconstructionE,
    "gmia": GMIA,
    "gmia_e": GMIAE,
    "falco": Falco,
    "prichexy": PriCheXy,
    "privacy_net": PrivacyNet,
    "k_salsa": KSalsa,
    "plan": Plan,
    "latent_diffusion": LatentDiffusion,
    "robust": Robust,
    "robust_groups": RobustGroups,
}
