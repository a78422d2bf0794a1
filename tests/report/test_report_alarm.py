"""Silence is judged over a whole family; Holm's rule and each p-value against a plain statement."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom, norm

from gmia_monai.metrics.limits import Interval
from gmia_monai.metrics.results import Result, RunContext
from gmia_monai.report.alarm import CHANCE, figures_of, holm
from gmia_monai.report.systems import systems_markdown


def _line(
    system: str,
    name: str,
    value: float,
    half: float | tuple[float, float] | None = 0.02,
    negatives: str | None = None,
    **extra: object,
) -> Result:
    below, above = half if isinstance(half, tuple) else (half, half)
    found = value if half is None else Interval(value, value - below, value + above)
    context = RunContext(system, "cxr64", command="make it")
    return context.result(name, found, n_patients=100, n_images=200, negatives=negatives, extra=extra)


def test_figures_that_chance_decides_are_found_with_their_p_value():
    lines = [
        _line("noise", "verification_auc.T1.frozen.v1", 0.52, negatives="matched"),
        _line("noise", "verification_auc_two_sided.T3.adaptive_cross_snn.v1", 0.49, negatives="random"),
        _line("noise", "presence_auc.largest.frozen.v1", 0.5),
        _line("noise", "anonymeter_singling_out_risk.arcface.v1", 0.01, half=0.02),
        _line("noise", "anonymeter_linkability_risk.arcface.v1", 0.1, half=0.05),
        _line("noise", "anonymeter_inference_risk.sex.arcface.v1", 0.1, half=0.1),
        _line("noise", "verification_auc_budget.T1.1_of_8.v1", 0.5),
        # the limit on the side of chance counts, not the width
        _line("noise", "rank_1.released_in_real.frozen.v1", 0.001, half=(0.001, 0.003), chance=0.004),
        # no figures of their own, or none that chance decides
        _line("noise", "verification_auc.T1.worst.v1", 0.9),
        _line("noise", "verification_auc.T1.metadata.v1", 0.6),
        _line("noise", "verification_auc_budget_gain.T1.v1", 0.1),
        _line("noise", "presence_auc.worst.v1", 0.9),
        _line("noise", "fidelity_psnr.v1", 20.0),
        _line("noise", "map_at_r.released_in_real.frozen.v1", 0.002),
        _line("noise", "verification_auc.T1.snn.v1", 0.7, half=None),
    ]
    found = {f.line.name: f for f in figures_of(lines)}
    assert len(found) == 8
    assert found["verification_auc.T1.frozen.v1"].p == pytest.approx(0.05, abs=1e-6)
    two_sided = found["verification_auc_two_sided.T3.adaptive_cross_snn.v1"]
    assert two_sided.attack == "verification, T3" and two_sided.p == pytest.approx(2 * norm.sf(0.01 / 0.02 * 1.959964))
    assert found["presence_auc.largest.frozen.v1"].p == 1
    assert found["anonymeter_singling_out_risk.arcface.v1"].p == 1
    assert found["anonymeter_inference_risk.sex.arcface.v1"].p == 1
    assert found["anonymeter_linkability_risk.arcface.v1"].p == pytest.approx(2 * norm.sf(2 * 1.959964))
    assert found["rank_1.released_in_real.frozen.v1"].p == pytest.approx(0.05, abs=1e-6)


def test_membership_is_asked_for_its_gain_over_the_signal_without_the_release():
    """The control has an error of its own, which the interval of the difference holds and that of the AUC does not."""
    auc = [
        _line("noise", f"membership_auc{level}.nearest_frozen.v1", 0.6, half=0.001, auc_without_release=0.58)
        for level in ("", "_patient")
    ]
    assert figures_of(auc) == []
    for level in ("", "_patient"):
        name = f"membership_gain{level}.nearest_frozen.v1"
        silent, found, less = (figures_of([_line("noise", name, gain)])[0] for gain in (0.018, 0.04, -0.05))
        assert silent.attack == "membership" and silent.chance == 0.0 and silent.p == 1 and not silent.rings
        assert found.p == pytest.approx(2 * norm.sf(2 * 1.959964)) and found.rings
        assert less.p == 1 and not less.rings
    assert figures_of([_line("noise", "membership_gain.worst.v1", 0.5)]) == []


def test_places_are_uniform_by_chance():
    spread = figures_of([_line("noise", "place_spread.T2.frozen.v1", 0.26, n_others=4)])[0]
    assert spread.chance == pytest.approx(np.mean([0.5, 0.25, 0.0, 0.25, 0.5]))
    # 196 of 200 hide; 2 of 11 places give the source away
    hidden = figures_of([_line("x", "hidden_rate_two_sided.T2.frozen.v1", 0.98, n_others=10)])[0]
    expected = 9 / 11
    pmf = binom.pmf(np.arange(201), 200, expected)
    assert hidden.chance == pytest.approx(expected) and not hidden.rings
    assert hidden.p == pytest.approx(pmf[pmf <= pmf[196] * (1 + 1e-7)].sum())
    assert figures_of([_line("x", "hidden_rate_two_sided.T2.frozen.v1", 0.3, n_others=10)])[0].rings


def test_only_more_copies_than_among_unseen_images_are_a_find():
    found = [figures_of([_line("x", "memorised_excess.pixels.v1", excess)])[0] for excess in (-0.03, 0.01, 0.04)]
    assert [f.p for f in found] == pytest.approx([1.0, 1.0, 2 * norm.sf(2 * 1.959964)])
    assert [f.rings for f in found] == [False, False, True]


def test_holm_is_its_plain_statement():
    rng = np.random.default_rng(0)
    lines = [_line("noise", f"verification_auc.T1.a{i}.v1", 0.5 + 0.02 * rng.normal()) for i in range(12)]
    figures = figures_of(lines)
    p = [f.p for f in figures]
    adjusted = holm(figures)
    for rank, i in enumerate(np.argsort(p)):
        earlier = [min(1.0, (12 - r) * p[j]) for r, j in enumerate(np.argsort(p)) if r <= rank]
        assert adjusted[i] == pytest.approx(max(earlier))
    assert len(holm([])) == 0


def _rows(page: str) -> dict[str, list[str]]:
    section = page.split("## Does the alarm work?")[1].split("\n## ")[0]
    rows = [[c.strip() for c in row.strip("|").split("|")] for row in section.splitlines() if row.startswith("|")]
    return {row[0]: row[1:] for row in rows}


LINES = [
    _line("unchanged", "verification_auc.T1.frozen.v1", 0.97, negatives="matched"),
    _line("noise", "verification_auc.T1.frozen.v1", 0.51, negatives="matched"),
    _line("unchanged", "presence_auc.largest.frozen.v1", 0.9),
    _line("noise", "presence_auc.largest.frozen.v1", 0.7),
    _line("unchanged", "inversion_auc.T1.v1", 0.51),
    _line("unchanged", "hidden_rate_two_sided.T2.snn.v1", 0.9, n_others=999),
    _line("unchanged", "hidden_rate_two_sided.T2.frozen.v1", 0.1, n_others=999),
    _line("unchanged", "memorised_excess.pixels.v1", 0.0),
]


def test_the_page_says_which_attack_is_not_silent():
    page = systems_markdown(LINES)
    rows = _rows(page)
    assert set(CHANCE) < set(rows)
    assert rows["verification, T1"] == ["0.970 [0.950, 0.990]", "1 of 1", *rows["verification, T1"][2:5], "yes"]
    assert rows["presence"][-1] == "**no**" and "0.700" in rows["presence"][2]
    assert rows["inversion"][1] == "**0 of 1**, not `T1`" and rows["attribute"] == ["–"] * 6, "a dead attack is marked"
    assert rows["singling out, hidden"][:2] == ["0.100 [0.080, 0.120]", "2 of 2"], "the lowest hides least"
    assert rows["memorisation"][:2] == ["–", "–"] and "planted copies" in page
    assert "Membership is asked for what its AUC gains" in page
    assert "shuffled" not in page and "Does the alarm work" not in systems_markdown(LINES[:1])


def test_shuffled_patients_stand_beside_noise():
    more = [
        _line("shuffled", "verification_auc.T1.frozen.v1", 0.5, negatives="matched"),
        _line("shuffled", "presence_auc.largest.frozen.v1", 0.65),
    ]
    page = systems_markdown(LINES + more)
    rows = _rows(page)
    assert len(rows["presence"]) == 10 and rows["presence"][-1] == "**no**" and "0.650" in rows["presence"][6]
    assert rows["verification, T1"][-1] == "yes" and rows["inversion"][6:] == ["–"] * 4
    assert "permuted" in page and "2 of noise, 2 of shuffled" in page


def test_attackers_that_never_ring_are_named_beside_one_that_does():
    dead = [_line("unchanged", f"verification_auc.T1.{name}.v1", 0.5, negatives="matched") for name in "abcd"]
    by_luck = [  # one of thirty figures is just above chance, which Holm's rule forgives
        _line("unchanged", f"presence_auc.s{i}.lucky.v1", 0.521 if i == 7 else 0.5, half=0.02) for i in range(30)
    ]
    one_side = [
        _line("unchanged", "verification_auc.T1.turned.v1", 0.1, negatives="matched"),
        _line("unchanged", "verification_auc_two_sided.T1.turned.v1", 0.9, negatives="matched"),
    ]
    rows = _rows(systems_markdown([*LINES, *dead, *by_luck, *one_side]))
    assert rows["verification, T1"][:2] == ["0.970 [0.950, 0.990]", "**2 of 6**, not `a`, `b`, `c` and 1 more"]
    assert rows["presence"][1] == "**1 of 2**, not `lucky`"


def test_every_kind_of_figure_is_asked_of_shuffled_patients():
    more = [
        _line("shuffled", "hidden_rate_two_sided.T2.snn.v1", 0.2, n_others=999),
        _line("shuffled", "place_spread.T2.snn.v1", 0.251, n_others=999),
        _line("shuffled", "rank_5.released_in_real.snn.v1", 0.02, half=0.01, chance=0.021),
        _line("shuffled", "attribute_auc.sex.v1", 0.7),
        _line("shuffled", "anonymeter_inference_risk.sex.snn.v1", 0.01, half=0.02),
    ]
    rows = {attack: row[6:] for attack, row in _rows(systems_markdown(LINES + more)).items()}
    assert rows["singling out, hidden"][-1] == rows["attribute"][-1] == "**no**"
    for attack in ("singling out, place", "retrieval, rank 5", "inference, Anonymeter"):
        assert rows[attack][-1] == "yes"
    assert rows["memorisation"] == ["–"] * 4


def test_what_needs_no_labels_is_not_asked_of_shuffled_ones():
    more = [_line(system, "anonymeter_singling_out_risk.frozen.v1", 0.4) for system in ("noise", "shuffled")]
    rows = _rows(page := systems_markdown(LINES + more))
    assert rows["singling out, Anonymeter"][5] == "**no**"
    assert rows["singling out, Anonymeter"][6:] == ["does not apply", "–", "–", "–"]
    assert "3 of noise, 0 of shuffled" in page and "predicates name nobody" in page
