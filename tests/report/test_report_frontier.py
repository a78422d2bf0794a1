"""The frontier: who is dominated, what a missing coordinate says, and labels that do not lie on each other."""

from __future__ import annotations

import numpy as np
import pytest

from gmia_monai.metrics.limits import Interval
from gmia_monai.metrics.results import Result, RunContext
from gmia_monai.report.benchmark_plots import family, frontier_picture, looks
from gmia_monai.report.cells import systems_of
from gmia_monai.report.frontier import (
    PRIVACY,
    Point,
    architectures,
    frontier_parts,
    missing,
    non_dominated,
    points,
)
from gmia_monai.report.label_places import leader, overlapping, place_labels

T1, PRESENCE = PRIVACY


def _line(system: str, name: str, value: float, negatives: str | None = None, **extra: object) -> Result:
    found = Interval(value, value - 0.02, value + 0.01)
    return RunContext(system, "cxr64").result(
        name, found, n_patients=300, n_images=900, negatives=negatives, extra=extra
    )


def lines(system: str, auc: float | None, loss: float | None, architecture: str = "small", **extra: object):
    """T1 and loss of one system; without one of them where it is None."""
    found = []
    if auc is not None:
        facts = {"attacker": "ensemble", "variant": "signed"}
        found.append(_line(system, "verification_auc.T1.worst.v1", auc, "matched", **facts))
    if loss is not None:
        found.append(_line(system, f"utility_macro_auroc_loss.released_to_real.{architecture}.v1", loss, **extra))
    return found


def _points(*values: tuple[str, float, float]) -> list[Point]:
    return points(systems_of([r for name, auc, loss in values for r in lines(name, auc, loss)]), T1, "small")


def test_the_frontier_is_whom_no_other_beats_in_both():
    rng = np.random.default_rng(0)
    values = [(f"s{i}", float(0.5 + 0.5 * rng.random()), float(0.2 * rng.random())) for i in range(30)]
    kept = {p.label for p in non_dominated(_points(*values))}
    naive = {
        name
        for name, auc, loss in values
        if not any(a <= auc and b <= loss and (a, b) != (auc, loss) for _, a, b in values)
    }
    assert kept == naive and 0 < len(kept) < 30
    ordered = [p.utility.value for p in non_dominated(_points(*values))]
    assert ordered == sorted(ordered)


def test_nothing_is_worth_more_than_chance_or_no_loss():
    kept = non_dominated(_points(("a", 0.42, 0.05), ("b", 0.5, 0.01), ("c", 0.9, -0.05), ("d", 0.8, 0.0)))
    assert [p.label for p in kept] == ["d", "b"], "below 0.5 is chance, below 0 no loss"
    twins = non_dominated(_points(("a", 0.7, 0.1), ("b", 0.7, 0.1)))
    assert [p.label for p in twins] == ["a", "b"], "equal points do not beat each other"


def test_a_system_without_a_coordinate_is_named_with_the_reason():
    context = RunContext("generated", "cxr64")
    nan = context.result(
        "verification_left_out.v1", float("nan"), n_patients=None, n_images=9, extra={"reason": "no source an image"}
    )
    empty = RunContext("empty", "cxr64").result(
        "verification_auc.T1.worst.v1",
        float("nan"),
        n_patients=3,
        n_images=9,
        negatives="matched",
        extra={"reason": "too few pairs"},
    )
    found = [
        *lines("whole", 0.8, 0.1),
        *lines("generated", None, 0.2),
        *lines("lost", 0.7, None),
        *lines("empty", None, 0.1),
    ]
    systems = systems_of([*found, nan, empty])
    said = missing(systems, T1, ["small"])
    assert [line.split(":")[0] for line in said] == ["- empty", "- generated", "- lost"]
    assert "too few pairs" in said[0] and "no source an image" in said[1]
    assert "no line `utility_macro_auroc_loss.released_to_real.small.v1`" in said[2]
    text = "\n\n".join(frontier_parts(systems, T1, {"small": "picture.svg"}))
    assert "(picture.svg)" in text and all(line in text for line in said)
    assert "Patients: 300." in text and "0.800 [0.780, 0.810]" in text and "| ensemble signed |" in text


def test_without_points_one_sentence_says_what_is_missing():
    parts = frontier_parts(systems_of(lines("a", 0.8, None)), PRESENCE, {})
    assert len(parts) == 2 and "No frontier yet" in parts[1] and "presence_auc.worst.v1" in parts[1]


def test_the_architecture_in_the_loss_of_systems_comes_last():
    found = [*lines("a", 0.8, 0.1, in_loss=True), *lines("a", None, 0.2, "other")]
    assert architectures(systems_of(found)) == ["other", "small"]


def test_a_picture_of_many_close_points_names_each():
    values = [(f"robust {i}", 0.9 + 0.002 * i, 0.01 + 0.0005 * (i % 4)) for i in range(14)]
    markup = frontier_picture(_points(*values), "AUC", "small")
    assert markup.startswith("<svg") and all(f"<!-- robust {i} -->" in markup for i in range(14))
    assert markup == frontier_picture(_points(*values), "AUC", "small"), "the same bytes"
    one = frontier_picture(_points(("alone", 0.8, 0.1)), "AUC", "small")
    assert "<!-- alone -->" in one


def test_a_point_without_limits_is_drawn():
    plain = [r.__class__(**(vars(r) | {"low": None, "high": None})) for r in lines("a", 0.8, 0.1)]
    [point] = points(systems_of(plain), T1, "small")
    assert "<!-- a -->" in frontier_picture([point], "AUC", "small")


def test_families_share_their_looks_and_differ_from_others():
    names = ["unchanged", "noise", "gmia m=0", "gmia m=-0.5", "falco m=0", "robust", "robust k=5"]
    look = looks(names)
    assert look["unchanged"] == look["noise"] and look["gmia m=0"] == look["gmia m=-0.5"]
    assert look["robust"] == look["robust k=5"] and len(set(look.values())) == 4
    assert looks(["gmia m=0"], names)["gmia m=0"] == look["gmia m=0"] != looks(["gmia m=0"])["gmia m=0"]
    assert family("unchanged (cxr64)") == "control" and family("robustly named") == "robust"


@pytest.mark.parametrize("n", [1, 12, 30])
def test_labels_lie_inside_and_not_on_each_other(n):
    rng = np.random.default_rng(n)
    anchors = np.array([100.0, 300.0]) + rng.normal(0, 25, (n, 2))
    sizes = np.column_stack([rng.uniform(40, 110, n), np.full(n, 11.0)])
    bounds = np.array([0.0, 0.0, 800.0, 500.0])
    marks = np.concatenate([anchors - 5, anchors + 5], axis=1)
    boxes = place_labels(anchors, sizes, bounds, marks)
    hits = overlapping(boxes, boxes) & ~np.eye(n, dtype=bool)
    assert not hits.any()
    assert (boxes[:, :2] >= bounds[:2]).all() and (boxes[:, 2:] <= bounds[2:]).all()
    np.testing.assert_allclose(boxes[:, 2:] - boxes[:, :2], sizes)
    assert np.array_equal(boxes, place_labels(anchors, sizes, bounds, marks))


def test_boxes_overlap_where_they_share_area():
    boxes = np.array([[0.0, 0, 2, 2], [1, 1, 3, 3], [2, 0, 4, 2]])
    assert overlapping(boxes, boxes).tolist() == [[True, True, False], [True, True, True], [False, True, True]]
    line = leader(np.array([0.0, 5.0]), np.array([1.0, 1.0, 3.0, 3.0]))
    assert line.tolist() == [[0.0, 5.0], [1.0, 3.0]]
