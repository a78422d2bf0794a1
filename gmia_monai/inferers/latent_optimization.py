"""Latent optimisation of GMIA (Li et al., ISBI 2025, section 2.2, eq. 1-3), for a batch of images at once.

Each code ``w`` starts at ``E(x)`` and minimises ``lambda_id max(0, cos(E_id(x), E_id(G(w))) - m) + lambda_ut L_ut``.
The sum over the batch is minimised, networks are frozen and Adam works on each coordinate alone, so that a batch is the
same as independent runs. Deviations from the published code, each of which it lacks: the code that met the criterion is
the one that is returned (there, one more step is taken after the check), the noise of the loop is that of the output,
and a finished image no longer moves or costs anything.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from gmia_monai.errors import UsageError
from gmia_monai.losses.identity import cosine, identity_hinge
from gmia_monai.losses.utility import utility_drift

__all__ = ["LatentOptimizationResult", "optimize_latents"]

_CONVERGED = 1e-8


@dataclass(frozen=True)
class LatentOptimizationResult:
    """What a batch became; all tensors have one entry an image.

    Attributes:
        image: synthesised images in [0, 1].
        w: optimised codes.
        steps: updates made.
        converged: whether the stopping criterion was met.
        cos_start: cosine of the identity embeddings of the real image and of ``G(E(x))``.
        cos_end: the same for ``image``, clamped but not yet quantised.
        drift_start: utility drift of ``G(E(x))``.
        drift_end: utility drift of ``image``.
    """

    image: Float[Tensor, "b 1 h w"]
    w: Float[Tensor, "b d"]
    steps: Int[Tensor, "b"]
    converged: Bool[Tensor, "b"]
    cos_start: Float[Tensor, "b"]
    cos_end: Float[Tensor, "b"]
    drift_start: Float[Tensor, "b"]
    drift_end: Float[Tensor, "b"]

    @classmethod
    def cat(cls, parts: list[LatentOptimizationResult]) -> LatentOptimizationResult:
        """Results of several batches, one after the other."""
        return cls(*(torch.cat([getattr(part, f.name) for part in parts]) for f in fields(cls)))

    @classmethod
    def empty(cls, image: Float[Tensor, "0 1 h w"]) -> LatentOptimizationResult:
        """The result for no images."""
        none = image.new_zeros(0)
        return cls(image, image.new_zeros(0, 0), none.long(), none.bool(), none, none, none, none)


class _Adam:
    """torch's Adam over the codes of the unfinished images; its state leaves together with a finished image."""

    def __init__(self, w: Tensor, lr: float, betas: tuple[float, float]) -> None:
        self.lr, self.betas = lr, betas
        self._renew(w, None)

    def _renew(self, w: Tensor, state: dict[str, Tensor] | None) -> None:
        self.w = w.detach().requires_grad_(True)
        self.optimizer = torch.optim.Adam([self.w], lr=self.lr, betas=self.betas)
        if state is not None:
            self.optimizer.state[self.w] = state

    def keep(self, rows: Tensor) -> None:
        state = self.optimizer.state.get(self.w)
        kept = None if not state else {k: v[rows] if v.ndim else v for k, v in state.items()}
        self._renew(self.w.detach()[rows], kept)

    def step(self, gradient: Tensor) -> None:
        self.w.grad = gradient
        self.optimizer.step()


def optimize_latents(
    image: Float[Tensor, "b 1 h w"],
    encoder: Callable[[Tensor], Tensor],
    synthesis: Callable[[Tensor, str], Tensor],
    identity: Callable[[Tensor], Tensor],
    utility: Callable[[Tensor], Tensor],
    *,
    margin_cos: float = -0.5,
    lambda_id: float = 1.0,
    lambda_ut: float = 1.0,
    utility_form: str = "mse",
    lr: float = 0.01,
    betas: Sequence[float] = (0.0, 0.99),
    max_steps: int = 1000,
    min_steps: int = 1,
    stop: str = "paper",
    max_drift: float = 0.05,
    noise_mode: str = "const",
    start_noise: float = 0.0,
    seeds: list[int] | None = None,
    on_step: Callable[[int, int], None] | None = None,
) -> LatentOptimizationResult:
    """Optimises the code of each image; works inside ``torch.no_grad``.

    Args:
        image: real images in [0, 1].
        encoder: maps images to codes ``[b, d]``; in eval mode, as all networks here.
        synthesis: maps codes and a noise mode to images.
        identity: maps images to identity embeddings.
        utility: maps images to diagnostic features.
        margin_cos: cosine that the identity loss pushes below, in [-1, 1].
        lambda_id: weight of the identity hinge.
        lambda_ut: weight of the utility drift.
        utility_form: ``mse`` or ``norm``, see :func:`gmia_monai.losses.utility_drift`.
        lr: learning rate of Adam.
        betas: its two decay rates, in [0, 1).
        max_steps: updates at most.
        min_steps: updates at least.
        stop: ``paper``: stop when the identity hinge is below 1e-8. ``joint``: and the drift is at most ``max_drift``.
            With ``lambda_id`` 0 the identity criterion does not count.
        max_drift: utility drift that is small enough, for ``joint``.
        noise_mode: ``const`` or ``none``, in the loop and in the output.
        start_noise: standard deviation of a seeded perturbation of the start, relative to the code's own.
        seeds: one an image, for ``start_noise``.
        on_step: called with the step and the number of unfinished images.

    Raises:
        UsageError: ``GM-U050`` for a setting outside its range.
    """
    _check(
        {
            "stop": (stop, stop in ("paper", "joint"), "paper or joint"),
            "noise_mode": (noise_mode, noise_mode in ("const", "none"), "const or none"),
            "margin_cos": (margin_cos, -1.0 <= margin_cos <= 1.0, "-1 to 1"),
            "lambda_id": (lambda_id, lambda_id >= 0.0, "at least 0"),
            "lambda_ut": (lambda_ut, lambda_ut >= 0.0, "at least 0"),
            "lr": (lr, lr > 0.0, "above 0"),
            "betas": (betas, len(betas) == 2 and all(0.0 <= b < 1.0 for b in betas), "two, 0 to below 1"),
            "max_steps": (f"{min_steps} to {max_steps}", 0 <= min_steps <= max_steps, "0 <= min_steps <= max_steps"),
            "max_drift": (max_drift, max_drift >= 0.0, "at least 0"),
            "start_noise": (start_noise, start_noise >= 0.0, "at least 0"),
            "seeds": (len(seeds or []), start_noise == 0 or len(seeds or []) == len(image), "one an image"),
        }
    )

    def synthesise(w: Tensor) -> Tensor:
        return synthesis(w, noise_mode).clamp(0.0, 1.0)

    with torch.no_grad():
        reference_id = identity(image)
        reference_ut = utility(image)
        w = encoder(image)
        if start_noise > 0:
            w = w + start_noise * w.std(dim=1, keepdim=True) * _noise(w, seeds)

    n = image.shape[0]
    rows = torch.arange(n, device=image.device)
    adam = _Adam(w, lr, (float(betas[0]), float(betas[1])))
    final_w = w.clone()
    final_image = torch.empty_like(image, dtype=w.dtype)
    steps = torch.zeros(n, dtype=torch.int64, device=image.device)
    converged = torch.zeros(n, dtype=torch.bool, device=image.device)
    cos_start, cos_end, drift_start, drift_end = (w.new_zeros(n) for _ in range(4))

    for step in range(max_steps + 1):
        with torch.enable_grad():
            synthesised = synthesise(adam.w)
            embedding = identity(synthesised)
            hinge = identity_hinge(reference_id, embedding, margin_cos)
            drift = utility_drift(reference_ut, utility(synthesised), utility_form)
            loss = (lambda_id * hinge + lambda_ut * drift).sum()
            last = step == max_steps
            gradient = None if last else torch.autograd.grad(loss, adam.w)[0]
        with torch.no_grad():
            cos = cosine(reference_id, embedding)
            if step == 0:
                cos_start, drift_start = cos.clone(), drift.detach().clone()
            met = hinge < _CONVERGED if lambda_id > 0 else torch.ones_like(hinge, dtype=torch.bool)
            if stop == "joint":
                met = met & (drift <= max_drift)
            met = met & (step >= min_steps)
            done = torch.ones_like(met) if last else met
            if done.any():
                where = rows[done]
                final_w[where] = adam.w.detach()[done]
                final_image[where] = synthesised.detach()[done]
                steps[where] = step
                converged[where] = met[done]
                cos_end[where] = cos[done]
                drift_end[where] = drift.detach()[done]
            if on_step is not None:
                on_step(step, int((~done).sum()))
            if done.all():
                break
            adam.step(torch.nan_to_num(gradient))
            if done.any():
                kept = ~done
                adam.keep(kept)
                rows, reference_id, reference_ut = rows[kept], reference_id[kept], reference_ut[kept]
    return LatentOptimizationResult(final_image, final_w, steps, converged, cos_start, cos_end, drift_start, drift_end)


def _noise(w: Tensor, seeds: list[int] | None) -> Tensor:
    rows = [torch.randn(w.shape[1], generator=torch.Generator().manual_seed(s), dtype=w.dtype) for s in seeds or []]
    return torch.stack(rows).to(w.device)


def _check(settings: dict[str, tuple[object, bool, str]]) -> None:
    for name, (got, usable, expected) in settings.items():
        if not usable:
            raise UsageError("GM-U050", f"unusable {name} of the latent optimisation", got=got, expected=expected)
