"""The likelihood-ratio attack: the naive re-statement with scipy, an alarm, silence, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from gmia_monai.attacks.lira import FEW_MODELS, fit_lira, lira_scores
from gmia_monai.attacks.shadow import patient_halves
from gmia_monai.errors import UsageError
from gmia_monai.metrics.verification import roc_auc


def _answers(n_models: int, n_images: int = 30, gap: float = 0.5, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    learned = patient_halves([f"p{i}" for i in range(n_images)], n_models, seed)
    hard, spread = rng.normal(0, 3, n_images), rng.uniform(0.2, 1.0, n_images)
    return hard - gap * learned + spread * rng.standard_normal(learned.shape), learned


@pytest.mark.parametrize("n_models", [8, 2 * FEW_MODELS + 2])
def test_scores_are_those_of_a_loop_over_images(n_models):
    answers, learned = _answers(n_models)
    found = lira_scores(fit_lira(answers[:-2], learned[:-2]), answers[-1])
    of_kind = [[answers[:-2, i][kind[:-2, i]] for i in range(30)] for kind in (learned, ~learned)]
    if n_models == 8:
        pooled = [
            np.sqrt(sum(np.square(a - a.mean()).sum() for a in kind) / sum(len(a) - 1 for a in kind))
            for kind in of_kind
        ]
        spreads = [[spread] * 30 for spread in pooled]
    else:
        spreads = [[a.std(ddof=1) for a in kind] for kind in of_kind]
    for i in range(30):
        likely = [
            stats.norm.pdf(answers[-1, i], np.mean(kind[i]), spread[i])
            for kind, spread in zip(of_kind, spreads, strict=True)
        ]
        assert found[i] == pytest.approx(np.log(likely[0] / likely[1]), abs=1e-9)


def test_it_finds_members_that_the_loss_does_not():
    answers, learned = _answers(18, n_images=400, gap=1.0)
    scores = lira_scores(fit_lira(answers[:-1], learned[:-1]), answers[-1])
    assert roc_auc(scores, learned[-1]) > 0.8
    assert roc_auc(-answers[-1], learned[-1]) < 0.65


def test_it_is_silent_where_learning_leaves_no_trace_and_on_shuffled_membership():
    answers, learned = _answers(18, n_images=1000, gap=0.0)
    assert roc_auc(lira_scores(fit_lira(answers[:-1], learned[:-1]), answers[-1]), learned[-1]) == pytest.approx(
        0.5, abs=0.065
    )
    answers, learned = _answers(18, n_images=1000, gap=1.0)
    shuffled = np.random.default_rng(1).permuted(learned, axis=1)
    with pytest.raises(UsageError, match="GM-U344"):
        fit_lira(answers[:3], shuffled[:3])
    scores = lira_scores(fit_lira(answers[:-1], learned[:-1]), answers[-1])
    assert roc_auc(scores, shuffled[-1]) == pytest.approx(0.5, abs=0.065)


def test_equal_answers_have_no_ratio():
    answers, learned = np.zeros((6, 4)), patient_halves(list("abcd"), 6, 0)
    assert lira_scores(fit_lira(answers, learned), np.zeros(4)).tolist() == [0.0] * 4


def test_an_image_without_models_of_a_kind_is_refused():
    with pytest.raises(UsageError, match="GM-U344.*got: 0"):
        fit_lira(np.zeros((6, 3)), np.ones((6, 3), dtype=bool))
