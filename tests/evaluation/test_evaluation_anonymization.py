"""Summaries of latent-optimisation tables, as numbers and as the text of a CSV."""

from __future__ import annotations

import csv
import io

import numpy as np
import pytest

from gmia_monai.errors import UsageError
from gmia_monai.evaluation.anonymization import evaluate_latent_optimization
from gmia_monai.metrics.results import RunContext

CONTEXT = RunContext("gmia m=0", "cxr64", command="c")


def _rows(n: int = 31):
    rng = np.random.default_rng(0)
    return [
        {
            "steps": int(rng.integers(3, 60)),
            "converged": bool(rng.random() < 0.8),
            "cos_before": float(rng.uniform(0.8, 1)),
            "cos_after": float(rng.normal(0, 0.02)),
            "utility_drift": float(rng.random()),
            "seconds": float(rng.random()),
        }
        for _ in range(n)
    ]


def test_figures_are_those_of_the_rows():
    rows = _rows()
    table = {r.name: r for r in evaluate_latent_optimization(rows, CONTEXT, margin_cos=0.0)}
    column = {key: np.array([row[key] for row in rows], dtype=float) for key in rows[0]}
    expected = {
        "converged": column["converged"].mean(),
        "within_margin": (column["cos_after"] <= 0).mean(),
        "steps_median": np.median(column["steps"]),
        "cos_before_median": np.median(column["cos_before"]),
        "cos_before_mean": column["cos_before"].mean(),
        "cos_after_median": np.median(column["cos_after"]),
        "cos_after_mean": column["cos_after"].mean(),
        "utility_drift_median": np.median(column["utility_drift"]),
        "seconds_mean": column["seconds"].mean(),
    }
    found = {name.split(".")[1]: result.value for name, result in table.items()}
    assert found == pytest.approx(expected, abs=1e-5)
    after = table["latent_optimization.cos_after_mean.v1"]
    assert after.low is None and after.n_patients is None and after.n_images == 31


def test_text_of_a_csv_gives_the_same_and_skipped_images_are_counted():
    rows = _rows()
    file = io.StringIO()
    writer = csv.DictWriter(file, [*rows[0], "status"])
    writer.writeheader()
    writer.writerows([row | {"status": "done"} for row in rows] + [dict.fromkeys(rows[0], "") | {"status": "GM-D003"}])
    file.seek(0)
    text = evaluate_latent_optimization(list(csv.DictReader(file)), CONTEXT)
    numbers = evaluate_latent_optimization(rows, CONTEXT)
    assert [r.value for r in text] == [r.value for r in numbers]
    assert text[0].extra["n_skipped"] == 1 and numbers[0].extra["n_skipped"] == 0


def test_intervals_over_patients_also_with_skipped_rows():
    rows = _rows(40)
    rows[3] = dict.fromkeys(rows[0], None)
    results = evaluate_latent_optimization(rows, CONTEXT, patients=np.arange(40) // 2, n_boot=100)
    for result in results:
        assert result.low <= result.value <= result.high
        assert result.n_patients == 20 and result.n_images == 39
    patients = np.delete(np.arange(40) // 2, 3)
    complete = evaluate_latent_optimization(rows[:3] + rows[4:], CONTEXT, patients=patients, n_boot=100)
    assert [(r.low, r.high) for r in complete] == [(r.low, r.high) for r in results]


@pytest.mark.parametrize("change", [{"steps": "many"}, {"cos_after": float("nan")}])
def test_cells_that_are_no_numbers_are_refused(change):
    with pytest.raises(UsageError, match="GM-U271"):
        evaluate_latent_optimization([_rows()[0] | change], CONTEXT)


def test_tables_without_columns_or_rows_are_refused():
    row = _rows()[0]
    del row["seconds"]
    for rows in ([row], []):
        with pytest.raises(UsageError, match="GM-U271"):
            evaluate_latent_optimization(rows, CONTEXT)


def test_a_share_at_its_bound_has_limits():
    rows = [row | {"converged": True, "cos_after": -0.1} for row in _rows(40)]
    results = evaluate_latent_optimization(rows, CONTEXT, patients=np.arange(40) // 2, margin_cos=0.0, n_boot=20)
    for result in (r for r in results if r.name.split(".")[1] in ("converged", "within_margin")):
        assert result.value == result.high == 1.0 and 0.5 < result.low < 1.0
