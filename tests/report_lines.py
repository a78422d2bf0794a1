"""Result lines of a made-up system, for tests of the report."""

from __future__ import annotations

import numpy as np

from gmia_monai.metrics.limits import Interval
from gmia_monai.metrics.results import RunContext

__all__ = ["DATA", "MORE_DATA", "more", "results", "wide", "worst"]


def results(system: str = "gmia m=-0.5"):
    context = RunContext(system, "cxr64", release_hash="ab" * 8, config_hash="cd" * 8, command="judge it --seeds 3")
    shared = {"n_patients": 309, "n_images": 1326, "negatives": "matched"}
    worst = {"attacker": "adaptive_cross", "variant": "two_sided"}
    of_metadata = {"attacker": "metadata", "extra": {"auc_on_choice": [0.6]}}
    return [
        context.result("verification_auc.T1.frozen.v1", Interval(0.41, 0.39, 0.44), attacker="frozen", **shared),
        context.result("verification_auc.T1.metadata.v1", Interval(0.61, 0.6, 0.63), **of_metadata, **shared),
        context.result("equal_error_rate.T1.frozen.v1", float("nan"), attacker="frozen", **shared),
        context.result("tar_at_far_0_1pct.T1.frozen.v1", 0.123, attacker="frozen", **shared),
        context.result(
            "verification_auc.T1.worst.v1", Interval(0.81, 0.78, 0.84), attacker="worst", extra=worst, **shared
        ),
        context.result(
            "rank_1.released_in_real.worst.v1",
            Interval(0.3, 0.2, 0.4),
            n_patients=309,
            n_images=1000,
            attacker="worst",
            extra={
                "rank_1_at_gallery": {"10": 0.8, "100": 0.4, "1000": 0.3},
                "rank_1_at_gallery_by_chance": {"10": 0.2, "100": 0.03, "1000": 0.003},
            },
        ),
        context.result("hidden_rate.T2.frozen.v1", 1.0, n_patients=675, n_images=1326, attacker="frozen"),
    ]


DATA = {
    "roc/T1/frozen": np.stack([np.linspace(0, 1, 201)] * 2),
    "roc/T1/metadata": np.stack([np.linspace(0, 1, 201)] * 2),
    "histogram/T1/adaptive_cross": np.stack([np.ones(61), np.ones(61), np.linspace(-1, 1, 61)]),
}


def worst(name: str, value: float, negatives: str | None, **extra: object):
    found = Interval(value, value - 0.02, value + 0.03)
    shared = {"n_patients": 9, "n_images": 9, "negatives": negatives, "attacker": "worst"}
    return RunContext("x", "p").result(name, found, extra=extra, **shared)


def more():
    """Lines of the sections that a whole evaluation has."""
    context = RunContext("gmia m=-0.5", "cxr64")
    shared = {"n_patients": 300, "n_images": 1000}
    sound = {"non_inferior_at_0.02": True}
    return [
        context.result("verification_auc_years.T1.worst.5_to_10.v1", Interval(0.7, 0.6, 0.8), **shared),
        context.result("verification_auc_subgroup.T1.worst.sex_F.v1", Interval(0.66, 0.6, 0.7), **shared),
        context.result("verification_auc_budget.T1.1_of_2.v1", Interval(0.75, 0.7, 0.8), **shared),
        context.result("utility_macro_auroc.released_to_real.small.v1", Interval(0.68, 0.66, 0.7), **shared),
        context.result("utility_macro_auroc.real_to_real.small.v1", Interval(0.69, 0.67, 0.71), **shared),
        context.result(
            "utility_macro_auroc_loss.released_to_real.small.v1", Interval(0.01, 0.0, 0.019), extra=sound, **shared
        ),
        context.result("kid.loss.v1", Interval(0.002, 0.001, 0.003), **shared),
        context.result("membership_auc.worst.v1", Interval(0.69, 0.66, 0.73), **shared),
        context.result(
            "release_converged.v1",
            0.93,
            extra={"mean_steps": 21.43, "settings": {"margin_cos": -0.5}, "description": "Latent <optimiser>"},
            **shared,
        ),
        context.result("inversion_left_out.v1", float("nan"), extra={"reason": "k_to_one <release>"}, **shared),
    ]


MORE_DATA = DATA | {
    "years/T1/worst": np.array([[0.5, 3.0], [0.8, 0.7], [0.75, 0.6], [0.85, 0.8]]),
    "patient_risk/T1/worst": np.stack([np.linspace(0, 1, 30), np.linspace(0.2, 0.8, 30)]),
    "budget/T1": np.array([[100.0, 200.0], [0.7, 0.75], [0.65, 0.7], [0.75, 0.8]]),
}


def wide():
    """Lines of linkability, of each finding, of subgroups and of drifts."""
    findings = [f"{name}_{i}" for i in range(7) for name in ("Pleural_Thickening", "Enlarged_Cardiomediastinum")]
    each = {"per_finding": {name: [0.7123, 0.6001, 0.8002] for name in findings}, "left_out": {"Hernia" * 9: 3}}
    lines = [worst(f"verification_auc.{t}.worst.v1", 0.8, "matched", attacker="adaptive_" * 6) for t in ("T2", "T3")]
    lines += [worst("presence_auc.worst.v1", 0.8, None, attacker="adaptive_" * 6, statistic="largest")]
    for side in ("inner", "outer"):
        for figure in ("f1", "accuracy", "tar", "far", "frr"):
            lines += [
                worst(f"linkability_{figure}.{side}.{name}.v1", 0.7, "balanced")
                for name in ("adaptive_cross_frozen", "snn")
            ]
    for part in ("real_to_real", "released_to_real", "real_to_released"):
        for name in ("small", "small_densenet"):
            lines += [
                worst(f"utility_{kind}_{figure}.{part}.{name}.v1", 0.7, None, **each)
                for kind in ("macro", "paper")
                for figure in ("auroc", "ap", "accuracy", "f1", "ece", "accuracy_at_half", "f1_at_half")
                if kind == "paper" or "half" not in figure
            ]
            lines += [
                worst(f"utility_macro_{figure}_loss.{part}.{name}.v1", 0.01, None, **each)
                for figure in ("auroc", "ap", "accuracy", "f1")
            ]
            lines += [
                worst(f"utility_macro_auroc_loss.{part}.{name}.{group}.v1", 0.01, None, released=0.6)
                for group in ("sex_F", "age_under_40", "age_40_59", "view_AP")
                if part != "real_to_real"
            ]
    for name in ("loss", "other"):
        drifts = [worst(f"{kind}_drift.{name}.v1", 0.01, None, **each) for kind in ("logit", "probability")]
        lines += [*drifts, worst(f"feature_drift.{name}.v1", 0.01, None)]
    return lines
