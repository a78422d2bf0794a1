"""The ensemble of seeds: what is luck of a seed falls out, and the fusion of each seed is asked once."""

from __future__ import annotations

import numpy as np
import pytest
from attack_cohorts import judged, knowledge

from gmia_monai.attacks.attackers import make_attackers
from gmia_monai.attacks.attackers.ensemble import EnsembleAttacker
from gmia_monai.attacks.attackers.frozen import FrozenAttacker
from gmia_monai.attacks.attackers.fusion import FusionAttacker
from gmia_monai.attacks.pool import AttackerPool
from gmia_monai.data.threats import threat_pairs
from gmia_monai.errors import UsageError
from gmia_monai.metrics.verification import roc_auc


class _Lucky(FrozenAttacker):
    """Sees images with noise that is the seed's own."""

    def fit(self, known, seed):
        def embed(pixels: np.ndarray) -> np.ndarray:
            rng = np.random.default_rng([seed, int(1e6 * float(pixels.sum())) % 2**32])
            e = pixels.reshape(len(pixels), -1) - 0.5
            e = e / np.linalg.norm(e, axis=1, keepdims=True)
            return (e + 0.12 * rng.standard_normal(e.shape)).astype(np.float32)

        self.use(embed)


def test_seeds_together_find_more_than_each_and_are_the_same_for_every_seed():
    known, case = knowledge("unchanged"), judged("unchanged")
    makers = {"lucky": _Lucky}
    makers |= {"fusion": lambda: FusionAttacker({"lucky": _Lucky})}
    pool = AttackerPool(makers | {"ensemble": lambda: EnsembleAttacker(makers["fusion"], (0, 1, 2, 0))})
    pairs = threat_pairs(case.real.cohort, "T1", "random", case.released)
    scores = [pool.fitted("fusion", seed, known).score(case, pairs, "T1") for seed in range(3)]
    together = [pool.fitted("ensemble", seed, known).score(case, pairs, "T1") for seed in range(3)]
    assert np.allclose(together[0], np.sum(scores, axis=0))
    assert np.array_equal(together[0], together[1]) and np.array_equal(together[0], together[2])
    alone = [roc_auc(s, pairs.same, pairs.weight) for s in scores]
    assert len(set(alone)) == 3 and roc_auc(together[0], pairs.same, pairs.weight) > max(alone) + 0.01


def test_pairs_that_were_asked_about_are_not_scored_again(monkeypatch):
    known, case = knowledge("unchanged"), judged("unchanged")
    fused = FusionAttacker({"lucky": _Lucky})
    fused.fit(known, 0)
    pairs, others = (threat_pairs(case.real.cohort, "T1", kind, case.released) for kind in ("random", "matched"))
    first = fused.score(case, pairs, "T1")
    fused.score(case, others, "T1")
    asked = []
    monkeypatch.setattr(FusionAttacker, "_scores", lambda *a: asked.append(a) or np.zeros((len(pairs), 1)))
    again = fused.score(case, pairs, "T1")
    assert np.array_equal(first, again) and not asked
    again[:] = 0.0
    assert np.array_equal(fused.score(case, pairs, "T1"), first), "who changes the answer changes his own"
    fused.score(case, pairs, "T3")
    assert len(asked) == 1


def test_an_ensemble_is_one_of_fusions():
    made = make_attackers(["frozen", "fusion", "ensemble"], seeds=(4, 5))
    ensemble = made["ensemble"]()
    assert isinstance(ensemble, EnsembleAttacker) and ensemble.seeds == (4, 5)
    with pytest.raises(UsageError, match="GM-U319 ensemble needs fusion"):
        make_attackers(["frozen", "ensemble"])
    with pytest.raises(UsageError, match="GM-U311"):
        ensemble.score(judged("unchanged"), threat_pairs(judged("unchanged").real.cohort, "T1", "random"), "T1")
