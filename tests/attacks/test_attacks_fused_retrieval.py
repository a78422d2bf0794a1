"""Evidence in a gallery: that of the pairs, either way round, and honest on V2."""

from __future__ import annotations

import numpy as np
import pytest
from attack_cohorts import judged, knowledge

from gmia_monai.attacks.attackers.frozen import FrozenAttacker
from gmia_monai.attacks.base import Judged
from gmia_monai.attacks.fused_retrieval import FusedSearch
from gmia_monai.data.threats import threat_pairs
from gmia_monai.metrics.verification import roc_auc


class _Blind(FrozenAttacker):
    """Knows nothing, in its own way."""

    number = 0

    def fit(self, known, seed):
        self.use(lambda pixels: np.random.default_rng([self.number, len(pixels)]).standard_normal((len(pixels), 3)))


def _fitted(makers) -> list:
    attackers = [make() for make in makers]
    for attacker in attackers:
        attacker.fit(knowledge("unchanged"), 0)
    return attackers


def test_both_directions_say_the_same_of_a_pair():
    search = FusedSearch(_fitted([FrozenAttacker, _Blind]), knowledge("unchanged").choice)
    case = judged("unchanged")
    found = search.scores(case, "released_in_real")
    np.testing.assert_allclose(found, search.scores(case, "real_in_released").T)
    pairs = threat_pairs(case.real.cohort, "T1", "random", case.released)
    assert roc_auc(found[pairs.first, pairs.second], pairs.same, pairs.weight) > 0.99


@pytest.mark.parametrize("direction", ["released_in_real", "real_in_released"])
def test_on_v2_nobody_is_looked_for_by_what_was_learned_from_them(direction):
    makers = [type(f"Blind{k}", (_Blind,), {"number": k}) for k in range(8)]
    choice = knowledge("unchanged").choice
    search = FusedSearch(_fitted(makers), choice)
    pairs = threat_pairs(choice.real.cohort, "T1", "random", choice.released)
    auc = []
    for case in (choice, Judged(choice.real, choice.release)):
        found = search.scores(case, direction)
        found = found if direction == "released_in_real" else found.T
        auc.append(roc_auc(found[pairs.first, pairs.second], pairs.same, pairs.weight))
    assert auc[0] < 0.56 < auc[1], "as it would look to those whom it was learned from"
