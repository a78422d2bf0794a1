"""Attack models of membership: who learns from known members what an answer to a member looks like.

Shokri et al., "Membership inference attacks against machine learning models", IEEE S&P 2017, section V: the model is
fitted on the answers of shadow models, whose members are known, and asked about the judged system. A shadow's errors
are larger or smaller than the system's in general; so every feature is taken relative to the non-members of the same
system before it is learned from or asked about.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray
from sklearn.linear_model import LogisticRegression

__all__ = ["AttackModel"]

_LIMIT = 8.0


class AttackModel:
    """Logistic regression of membership on features relative to the non-members of the same system."""

    def __init__(self) -> None:
        self._model = LogisticRegression(class_weight="balanced", max_iter=1000)

    def fit(self, systems: Sequence[tuple[Float[ndarray, "n k"], Bool[ndarray, "n"]]]) -> AttackModel:
        """Learns from the features and the membership of the images of one or several systems."""
        rows = [_relative(features, features[~member]) for features, member in systems]
        self._model.fit(np.concatenate(rows), np.concatenate([member for _, member in systems]))
        return self

    def score(self, features: Float[ndarray, "n k"], non_members: Float[ndarray, "m k"]) -> Float[ndarray, "n"]:
        """Log odds of membership.

        Args:
            features: of the images asked about.
            non_members: features of images that the same system has certainly not learned from.
        """
        return np.asarray(self._model.decision_function(_relative(features, non_members)))


def _relative(features: Float[ndarray, "n k"], non_members: Float[ndarray, "m k"]) -> Float[ndarray, "n k"]:
    spread = np.maximum(non_members.std(axis=0), 1e-6)
    return np.clip((features - non_members.mean(axis=0)) / spread, -_LIMIT, _LIMIT)
