"""Moves latent codes downhill on a weighted sum of terms, image by image in one batch, for a fixed number of steps.

What :func:`gmia_monai.inferers.optimize_latents` is for GMIA, this is for systems with more terms: each term sees the
synthesised images, their codes, which images they are, and the step.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from gmia_monai.errors import UsageError

__all__ = ["EditingResult", "Term", "edit_latents"]

Term = Callable[[Tensor, Tensor, int], Tensor]
"""Images ``[b, 1, h, w]`` in [0, 1], codes and the number of the step to the loss of each image, ``[b]``."""


@dataclass(frozen=True)
class EditingResult:
    """What a batch became.

    Attributes:
        image: synthesised images in [0, 1].
        w: codes.
        first: each term at the start, by name.
        last: each term at the end, by name.
    """

    image: Float[Tensor, "b 1 h w"]
    w: Float[Tensor, "b d"]
    first: dict[str, Tensor]
    last: dict[str, Tensor]


def edit_latents(
    start: Float[Tensor, "b d"],
    synthesis: Callable[[Tensor, str], Tensor],
    terms: Mapping[str, tuple[float, Term]],
    *,
    lr: float = 0.05,
    betas: Sequence[float] = (0.7, 0.99),
    steps: int = 30,
    noise_mode: str = "const",
) -> EditingResult:
    """Adam on the sum over images of ``sum_t weight_t term_t``; works inside ``torch.no_grad``.

    Images do not touch each other, since Adam works on each coordinate and no term is between images.

    Args:
        start: codes to start from.
        synthesis: maps codes and a noise mode to images; in eval mode.
        terms: by name, the weight of each, at least 0, and the term; those of weight 0 are not computed.
        lr: learning rate; falls to a tenth along a cosine.
        betas: decay rates of Adam, in [0, 1).
        steps: updates; 0 gives the image of the start.
        noise_mode: of the synthesis.

    Raises:
        UsageError: ``GM-U052`` for a setting outside its range.
    """
    if lr <= 0 or steps < 0 or len(betas) != 2 or not all(0.0 <= b < 1.0 for b in betas):
        raise UsageError("GM-U052", "unusable settings of latent editing", got=f"lr {lr}, betas {betas}, steps {steps}")
    if any(weight < 0 for weight, _ in terms.values()):
        raise UsageError("GM-U052", "a term with a negative weight", got={k: w for k, (w, _) in terms.items()})
    used = {name: (weight, term) for name, (weight, term) in terms.items() if weight > 0}
    w = start.detach().clone().requires_grad_(True)
    adam = torch.optim.Adam([w], lr=lr, betas=(float(betas[0]), float(betas[1])))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(adam, max(1, steps), eta_min=0.1 * lr)
    first: dict[str, Tensor] = {}
    values: dict[str, Tensor] = {}
    image = start.new_empty(0)
    for step in range(steps + 1):
        last = step == steps
        with torch.set_grad_enabled(not last):
            image = synthesis(w, noise_mode).clamp(0.0, 1.0)
            values = {name: term(image, w, step) for name, (_, term) in used.items()}
        if step == 0:
            first = {name: value.detach() for name, value in values.items()}
        if last or not used:
            break
        with torch.enable_grad():
            loss = torch.stack([used[name][0] * value for name, value in values.items()]).sum()
            (gradient,) = torch.autograd.grad(loss, w)
        w.grad = torch.nan_to_num(gradient)
        adam.step()
        schedule.step()
    return EditingResult(image.detach(), w.detach(), first, {name: value.detach() for name, value in values.items()})
