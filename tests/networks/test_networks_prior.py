"""Draws of the prior: their moments, what decides them, and the inverse of the activation."""

from __future__ import annotations

import pytest
import torch

from gmia_monai.engines.prior import fit_prior
from gmia_monai.networks.layers import scaled_leaky_relu
from gmia_monai.networks.prior import undo_leaky_relu


@pytest.fixture(scope="module")
def fitted():
    g = torch.Generator().manual_seed(0)
    n = 4000
    known = (torch.rand(n, 2, generator=g) < 0.3).float()
    hidden = torch.randn(n, 3, generator=g)
    before = hidden @ torch.randn(3, 6, generator=g) + 2.0 * known[:, :1] + 0.1 * torch.randn(n, 6, generator=g)
    logits = hidden[:, :2] + 3.0 * known
    prior, arguments = fit_prior(scaled_leaky_relu(before), logits, known, ["a", "b"], rank=5, ridge=1.0)
    return prior, arguments, before, logits, known


def test_the_activation_is_undone():
    x = torch.linspace(-3, 3, 50)
    assert torch.allclose(undo_leaky_relu(scaled_leaky_relu(x)), x, atol=1e-6)


def test_draws_have_the_moments_of_what_was_fitted(fitted):
    prior, _, before, logits, known = fitted
    rows = torch.tensor([[1.0, 0.0]]).expand(3000, -1)
    w, drawn = prior.draw(rows, list(range(3000)))
    found, real = torch.cat([undo_leaky_relu(w), drawn], dim=1), torch.cat([before, logits], dim=1)
    members = real[(known == rows[0]).all(dim=1)]
    assert (found.mean(0) - members.mean(0)).abs().max() < 0.2
    assert (torch.cov(found.T) - torch.cov(members.T)).abs().max() < 0.15 * torch.cov(members.T).abs().max()
    expected = torch.corrcoef(members.T)[:6, 6:]
    assert (torch.corrcoef(found.T)[:6, 6:] - expected).abs().max() < 0.1, "logits go with their codes"


def test_a_draw_depends_on_its_own_seed_and_on_what_is_known(fitted):
    prior = fitted[0]
    rows = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    both, alone = prior.draw(rows, [3, 4]), prior.draw(rows[1:], [4])
    assert torch.equal(both[0][1:], alone[0]) and torch.equal(both[1][1:], alone[1])
    assert not torch.equal(prior.draw(rows[1:], [5])[0], alone[0])
    still = prior.draw(rows, [1, 2], temperature=0.0)
    assert torch.allclose(torch.cat([undo_leaky_relu(still[0]), still[1]], 1), prior.mean(rows), atol=1e-5)


def test_distance_is_one_for_codes_of_its_own(fitted):
    prior, _, before, _, known = fitted
    assert prior.distance(scaled_leaky_relu(before), known).mean().item() == pytest.approx(1.0, abs=0.02)
    assert prior.distance(scaled_leaky_relu(before + 5.0), known).min() > 2.0


def test_emphasis_moves_logits_along_what_findings_do_and_leaves_codes(fitted):
    prior, _, _, _, known = fitted
    rows = torch.tensor([[1.0, 0.0], [0.0, 0.0]])
    plain, more = prior.draw(rows, [3, 4]), prior.draw(rows, [3, 4], emphasis=2.5)
    assert torch.equal(plain[0], more[0])
    expected = plain[1] + 1.5 * torch.stack([prior.slope[:, 6:].T @ (row - known.mean(0)) for row in rows])
    assert torch.allclose(more[1], expected, atol=1e-5)
    # on average over the records the logits stay where they are
    drawn = [prior.draw(known[:500], list(range(500)), 0.0, e)[1] - prior.mean(known[:500])[:, 6:] for e in (1.0, 3.0)]
    gap = 2.0 * (known[:500].mean(0) - known.mean(0)) @ prior.slope[:, 6:]
    assert torch.allclose(drawn[1].mean(0) - drawn[0].mean(0), gap, atol=1e-4)


def test_facts_are_not_emphasised():
    g = torch.Generator().manual_seed(1)
    known = (torch.rand(300, 2, generator=g) < 0.5).float()
    codes, logits = torch.randn(300, 4, generator=g), torch.randn(300, 2, generator=g) + known
    prior, arguments = fit_prior(codes, logits, known, ["a", "view_AP"], rank=3)
    assert arguments["n_findings"] == 1
    rows = torch.tensor([[0.0, 1.0], [0.0, 0.0]])
    plain, more = prior.draw(rows, [1, 1])[1], prior.draw(rows, [1, 1], emphasis=3.0)[1]
    assert torch.allclose((more - plain)[0], (more - plain)[1], atol=1e-6)
