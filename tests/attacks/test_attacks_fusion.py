"""Fusion of attackers: stronger than each, honest on V2, and fitted once where a pool has fitted the others."""

from __future__ import annotations

import numpy as np
import pytest
from attack_cohorts import SIZE, judged, knowledge

from gmia_monai.attacks.attackers.averaging import AveragingAttacker
from gmia_monai.attacks.attackers.frozen import FrozenAttacker
from gmia_monai.attacks.attackers.fusion import FusionAttacker
from gmia_monai.attacks.base import Judged
from gmia_monai.attacks.pool import AttackerPool
from gmia_monai.data.threats import threat_pairs
from gmia_monai.errors import UsageError
from gmia_monai.metrics.verification import roc_auc


def _auc(attacker, case: Judged, threat: str = "T1") -> float:
    pairs = threat_pairs(case.real.cohort, threat, "random", case.released)
    return roc_auc(attacker.score(case, pairs, threat), pairs.same, pairs.weight)


class _Half(FrozenAttacker):
    """Sees the left or the right half of an image, with noise of its own; the right half the wrong way round."""

    right = False

    def fit(self, known, seed):
        half = slice(SIZE // 2, None) if self.right else slice(SIZE // 2)
        sign = -1.0 if self.right else 1.0

        def embed(pixels: np.ndarray, sign: float = 1.0) -> np.ndarray:
            rng = np.random.default_rng(int(1e6 * abs(float(pixels[..., half].sum()))) % 2**32)
            e = pixels[..., half].reshape(len(pixels), -1) - 0.5
            e = e / np.linalg.norm(e, axis=1, keepdims=True)
            return (sign * (e + 0.2 * rng.standard_normal(e.shape))).astype(np.float32)

        self.use(embed, lambda pixels: embed(pixels, sign))


class _Right(_Half):
    right = True


def test_fusion_hears_all_attackers_also_those_that_turn():
    known, case = knowledge("unchanged"), judged("unchanged")
    parts = {"left": _Half, "right": _Right}
    fused = FusionAttacker(parts)
    fused.fit(known, 0)
    alone = []
    for make in parts.values():
        attacker = make()
        attacker.fit(known, 0)
        alone.append(abs(_auc(attacker, case) - 0.5))
    assert 0.1 < max(alone) < _auc(fused, case) - 0.5 - 0.01


def test_fusion_hears_the_means_of_every_attacker():
    known, case = knowledge("unchanged"), judged("unchanged")
    parts = {"left": _Half, "right": _Right}
    averaging = {"averaging": lambda: AveragingAttacker(parts)}
    plain, one, both = (FusionAttacker(makers) for makers in (parts, averaging, parts | averaging))
    for fused in (plain, one, both):
        fused.fit(known, 0)
    pairs = threat_pairs(case.real.cohort, "T1", "random", case.released)
    columns = both._scores(case, pairs, "T1")
    assert columns.shape == (len(pairs), 2 + 2 * 2), "two sides each"
    averages = both._attackers["averaging"]
    chosen = averages.score(case, pairs, "T1")
    assert any(np.array_equal(chosen, column) for column in columns.T[2:])
    assert both._scores(case, threat_pairs(case.real.cohort, "T3", "random", case.released), "T3").shape[1] == 3
    assert _auc(both, case) > max(_auc(plain, case), _auc(averages, case)) + 0.01


def test_fusion_scores_v2_without_the_patient_whom_it_scores():
    """Attackers that know nothing: fitted and read on the same pairs they would seem to know something."""

    class Blind(FrozenAttacker):
        number = 0

        def fit(self, known, seed):
            number = self.number
            self.use(
                lambda pixels: (
                    np.random.default_rng([number, int(pixels.sum())])
                    .standard_normal((len(pixels), 3))
                    .astype(np.float32)
                )
            )

    makers = {f"blind{k}": type(f"Blind{k}", (Blind,), {"number": k}) for k in range(8)}
    fused = FusionAttacker(makers)
    known = knowledge("unchanged")
    fused.fit(known, 0)
    pairs = threat_pairs(known.choice.real.cohort, "T1", "matched", known.choice.released)
    honest = roc_auc(fused.score(known.choice, pairs, "T1"), pairs.same, pairs.weight)
    own = fused._weighed["T1"].all(fused._scores(known.choice, pairs, "T1"))
    assert roc_auc(own, pairs.same, pairs.weight) > 0.6, "eight attackers that know nothing fit 24 patients"
    assert honest < 0.6
    with pytest.raises(UsageError, match="GM-U317"):
        FusionAttacker(makers).score(known.choice, pairs, "T1")


def test_combining_attackers_share_what_a_pool_has_fitted():
    fits = []

    class Counted(FrozenAttacker):
        def fit(self, known, seed):
            fits.append(seed)
            super().fit(known, seed)

    known = knowledge("unchanged")
    both = {"a": Counted, "b": Counted}
    pool = AttackerPool(both | {"averaging": lambda: AveragingAttacker(both), "fusion": lambda: FusionAttacker(both)})
    for name in pool:
        pool.fitted(name, 0, known)
    assert fits == [0, 0]
    FusionAttacker(both).fit(known, 1)
    assert fits == [0, 0, 1, 1], "without a pool they are fitted anew"


@pytest.mark.parametrize("negatives", ["matched", "random"])
def test_scores_of_v2_and_of_others_are_of_one_scale(negatives):
    """The same images under another name: a threshold of V2 has to mean the same there."""
    known = knowledge("unchanged")
    fused = FusionAttacker({"left": _Half, "right": _Right})
    fused.fit(known, 0)
    choice = known.choice
    pairs = threat_pairs(choice.real.cohort, "T1", negatives, choice.released)
    on_choice = fused.score(choice, pairs, "T1")
    elsewhere = fused.score(Judged(choice.real, choice.release), pairs, "T1")
    spread = elsewhere.std()
    assert abs(np.median(on_choice - elsewhere)) < 0.1 * spread
    assert np.corrcoef(on_choice, elsewhere)[0, 1] > 0.97
