"""Summary of a latent-optimisation table: how many images converged, in how many steps, with what left of identity."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from jaxtyping import Float, Shaped

from gmia_monai.errors import UsageError
from gmia_monai.metrics.intervals import patient_bootstrap
from gmia_monai.metrics.limits import Interval
from gmia_monai.metrics.results import Result, RunContext

__all__ = ["evaluate_latent_optimization"]

_SHARES = ("converged", "within_margin")
COLUMNS = ("steps", "converged", "cos_before", "cos_after", "utility_drift", "seconds")


def evaluate_latent_optimization(
    rows: Sequence[Mapping[str, object]],
    context: RunContext,
    *,
    patients: Shaped[np.ndarray, "n"] | None = None,
    margin_cos: float | None = None,
    n_boot: int = 1000,
) -> list[Result]:
    """Summarise the per-image rows of one run.

    Args:
        rows: one mapping an image with steps, converged, cos_before, cos_after, utility_drift and seconds, as numbers
            or as the text of a CSV. Rows with an empty cell (images that were skipped) are counted and left out.
        context: what the result lines share; put the margin into ``context.system``.
        patients: patient of each row, for intervals; without them there are none.
        margin_cos: the margin m; adds the share of images whose cosine, as written, is at most m.
        n_boot: bootstrap resamples of patients.

    Returns:
        ``latent_optimization.<figure>.v1`` with figure ``converged`` (share, in the loop), ``within_margin`` (share, as
        written: rounding to the depth of the file moves the cosine), ``steps_median``, ``cos_before_median``,
        ``cos_before_mean``, ``cos_after_median``, ``cos_after_mean``, ``utility_drift_median``, ``seconds_mean``.

    Raises:
        UsageError: GM-U271 where a column is missing, a cell is no number, or no row is complete.
    """
    table, kept = _columns(rows)
    member = None if patients is None else np.asarray(patients)[kept]
    figures: dict[str, tuple[str, Callable[..., float]]] = {
        "converged": ("converged", _mean),
        "steps_median": ("steps", _median),
        "cos_before_median": ("cos_before", _median),
        "cos_before_mean": ("cos_before", _mean),
        "cos_after_median": ("cos_after", _median),
        "cos_after_mean": ("cos_after", _mean),
        "utility_drift_median": ("utility_drift", _median),
        "seconds_mean": ("seconds", _mean),
    }
    if margin_cos is not None:
        table["within_margin"] = (table["cos_after"] <= margin_cos).astype(np.float64)
        figures = {"converged": figures.pop("converged"), "within_margin": ("within_margin", _mean), **figures}
    shared: dict[str, object] = {"n_skipped": len(rows) - len(kept)}
    if margin_cos is not None:
        shared["margin_cos"] = margin_cos
    results = []
    for figure, (column, statistic) in figures.items():
        values = table[column]
        extra = dict(shared)
        if column not in _SHARES:
            extra["quantiles_05_25_75_95"] = [round(float(q), 6) for q in np.quantile(values, [0.05, 0.25, 0.75, 0.95])]
        value: Interval | float = statistic(values, np.ones(len(values)))
        if member is not None:
            bound = lambda w, values=values, statistic=statistic: statistic(values, w)  # noqa: E731
            shares = (0.0, 1.0) if column in _SHARES else None
            value = patient_bootstrap(bound, member, n_boot, context.seed, bounds=shares)
        results.append(
            context.result(
                f"latent_optimization.{figure}.v1",
                value,
                n_patients=None if member is None else len(np.unique(member)),
                n_images=len(kept),
                extra=extra,
            )
        )
    return results


def _columns(rows: Sequence[Mapping[str, object]]) -> tuple[dict[str, Float[np.ndarray, "n"]], list[int]]:
    """Numbers of the complete rows, and which rows those are."""
    missing = [column for column in COLUMNS if any(column not in row for row in rows)]
    if missing:
        raise UsageError("GM-U271", "table without a column", got=", ".join(missing) + " missing", expected=COLUMNS)
    kept = [index for index, row in enumerate(rows) if all(row[column] not in (None, "") for column in COLUMNS)]
    if not kept:
        raise UsageError("GM-U271", "no row of the table is complete", got=f"{len(rows)} rows")
    return {column: np.array([_number(rows[index][column], column) for index in kept]) for column in COLUMNS}, kept


def _number(cell: object, column: str) -> float:
    words = {"true": 1.0, "false": 0.0}
    try:
        number = words[cell.strip().lower()] if str(cell).strip().lower() in words and isinstance(cell, str) else cell
        number = float(number)
    except (TypeError, ValueError) as error:
        raise UsageError("GM-U271", f"a cell of {column} is no number") from error
    if not np.isfinite(number):
        raise UsageError("GM-U271", f"a cell of {column} is not finite")
    return number


def _mean(values: Float[np.ndarray, "n"], weights: Float[np.ndarray, "n"]) -> float:
    return float(np.average(values, weights=weights))


def _median(values: Float[np.ndarray, "n"], weights: Float[np.ndarray, "n"]) -> float:
    """Median of each value repeated as often as its whole-number weight."""
    return float(np.median(np.repeat(values, weights.astype(int))))
