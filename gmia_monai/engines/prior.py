"""Fits the prior on W in closed form: a ridge regression on what is known, then principal directions of the rest."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gmia_monai.data.cohort import Cohort
from gmia_monai.data.known import FACTS, known_facts, known_of_cohort
from gmia_monai.networks.aegan import AEGAN
from gmia_monai.networks.pretrained import save_network
from gmia_monai.networks.prior import LatentPrior, undo_leaky_relu
from gmia_monai.networks.utility import UtilityNet
from gmia_monai.typing import PathLike

__all__ = ["fit_prior", "train_prior"]

_log = logging.getLogger(__name__)


@torch.no_grad()
def fit_prior(
    codes: Tensor,
    logits: Tensor,
    known: Tensor,
    names: Sequence[str] = (),
    rank: int = 128,
    n_components: int = 1,
    ridge: float = 10.0,
    seed: int = 0,
) -> tuple[LatentPrior, dict[str, Any]]:
    """Fits a prior.

    Args:
        codes: ``[n, latent_dim]`` in W.
        logits: ``[n, k]`` of the same images.
        known: ``[n, m]``, see :func:`known_of_cohort`.
        names: of the columns of ``known``.
        rank: principal directions of the residuals, each coordinate scaled to unit deviation, that are drawn together.
        n_components: normal distributions of the mixture along them (scikit-learn's ``GaussianMixture``).
        ridge: images' worth of weight that holds each slope back.
        seed: of the mixture.

    Returns:
        the prior, and the arguments that build it again.
    """
    from sklearn.mixture import GaussianMixture

    together = torch.cat([undo_leaky_relu(codes), logits], dim=1).double()
    x = known.double()
    centre, middle = x.mean(dim=0), together.mean(dim=0)
    gram = (x - centre).T @ (x - centre) + ridge * torch.eye(x.shape[1], dtype=torch.float64)
    slope = torch.linalg.solve(gram, (x - centre).T @ (together - middle))
    residual = together - middle - (x - centre) @ slope
    scale = residual.std(dim=0).clamp_min(1e-6)
    scaled = residual / scale
    rank = min(rank, len(scaled) - 1, scaled.shape[1])
    _, values, directions = torch.linalg.svd(scaled, full_matrices=False)
    low = scaled @ directions[:rank].T
    noise = (scaled - low @ directions[:rank]).std(dim=0)
    mixture = GaussianMixture(n_components, reg_covar=1e-3, random_state=seed, max_iter=50).fit(low.numpy())
    arguments = {
        "latent_dim": codes.shape[1], "n_logits": logits.shape[1], "n_known": known.shape[1], "rank": rank,
        "n_components": n_components, "known": list(names),
        "n_findings": sum(name not in FACTS for name in names) if names else None,
    }  # fmt: skip
    prior = LatentPrior(**arguments)
    state = {
        "base": middle - centre @ slope,
        "centre": centre,
        "slope": slope,
        "scale": scale,
        "directions": directions[:rank],
        "noise_sd": noise,
        "weights": torch.from_numpy(mixture.weights_),
        "means": torch.from_numpy(mixture.means_),
        "factors": torch.linalg.cholesky(torch.from_numpy(mixture.covariances_)),
    }
    prior.load_state_dict({key: value.float() for key, value in state.items()})
    kept = float(values[:rank].square().sum() / values.square().sum())
    _log.info("prior: %d images, %d directions hold %.3f of the variance", len(codes), rank, kept)
    return prior.eval().requires_grad_(False), arguments


@torch.no_grad()
def train_prior(
    output_dir: PathLike,
    batches: Iterable[dict[str, Tensor]],
    cohort: Cohort,
    autoencoder: AEGAN,
    utility: UtilityNet,
    device: str = "cpu",
    findings: Sequence[str] = (),
    facts: bool = True,
    name: str = "prior",
    **settings: Any,
) -> Path:
    """Encodes the training images, fits the prior and writes ``<output_dir>/models/<name>.safetensors``.

    Args:
        output_dir: folder of the run.
        batches: of the images of ``cohort``, in its order, each with ``image``.
        cohort: records of the training role.
        autoencoder: co-trained auto-encoder.
        utility: diagnostic network; logits are those of the real images.
        device: where networks run.
        findings: what is known beside facts; the cohort's if empty.
        facts: whether view, sex and age are known, too.
        name: of the weights file.
        settings: of :func:`fit_prior`.

    Returns:
        the file.
    """
    codes, logits = [], []
    for batch in batches:
        images = torch.as_tensor(batch["image"]).as_subclass(torch.Tensor).to(device)
        codes.append(autoencoder.encoder(images).cpu())
        logits.append(utility(images).cpu())
    names = known_facts(list(findings) or list(cohort.findings or ()), facts)
    known = torch.from_numpy(known_of_cohort(cohort, names))
    prior, arguments = fit_prior(torch.cat(codes), torch.cat(logits), known, names, **settings)
    path = Path(output_dir) / "models" / f"{name}.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    save_network(path, prior, arguments, patients=cohort.patients_hash)
    _log.info("%s written", path)
    return path
