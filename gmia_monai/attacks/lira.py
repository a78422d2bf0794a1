"""Likelihood-ratio attack on membership: how much likelier is an answer from a model that has learned from the image?

Carlini et al., "Membership inference attacks from first principles", IEEE S&P 2022, algorithm 1 (online): for each
image one Gaussian over the answers of shadow models that learned from it and one over those of models that did not.
With few models all images share one variance of either kind, as they advise.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray
from scipy.stats import norm

from gmia_monai.errors import UsageError

__all__ = ["AnswerGaussians", "fit_lira", "lira_scores"]

FEW_MODELS = 32
_SMALLEST = 1e-6


@dataclass(frozen=True, eq=False)
class AnswerGaussians:
    """Means and standard deviations of the answers to each image, by models with it (``in``) and without (``out``)."""

    mean_in: Float[ndarray, "n"]
    std_in: Float[ndarray, "n"]
    mean_out: Float[ndarray, "n"]
    std_out: Float[ndarray, "n"]


def fit_lira(answers: Float[ndarray, "m n"], learned: Bool[ndarray, "m n"]) -> AnswerGaussians:
    """Gaussians of the answers of shadow models.

    Args:
        answers: of each model to each image; any figure that is nearly normal, e.g. the logarithm of the error.
        learned: whether the model learned from the image. With fewer than 32 models of a kind for some image, images
            share the variance within the kind.

    Raises:
        UsageError: ``GM-U344`` where an image has fewer than two models of a kind.
    """
    fitted = []
    for kind in (learned, ~learned):
        count = kind.sum(axis=0)
        if count.min(initial=2) < 2:
            raise UsageError(
                "GM-U344",
                "an image has too few shadow models with or without it",
                got=int(count.min()),
                expected="at least 2",
                next_step="train more shadow models, in pairs that share the patients out",
            )
        mean = (answers * kind).sum(axis=0) / count
        squares = np.square(answers - mean) * kind
        variance = squares.sum(axis=0) / (count - 1)
        if count.min(initial=FEW_MODELS) < FEW_MODELS:
            variance = np.full(len(mean), squares.sum() / (count - 1).sum())
        fitted += [mean, np.maximum(np.sqrt(variance), _SMALLEST)]
    return AnswerGaussians(*fitted)


def lira_scores(gaussians: AnswerGaussians, answers: Float[ndarray, "n"]) -> Float[ndarray, "n"]:
    """Logarithm of the likelihood ratio of each answer of the judged model; above 0 speaks for membership."""
    g = gaussians
    return np.asarray(norm.logpdf(answers, g.mean_in, g.std_in) - norm.logpdf(answers, g.mean_out, g.std_out))
