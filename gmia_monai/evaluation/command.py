"""The evaluation as one function, for the command line and for notebooks; configs wire the same pieces."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from gmia_monai.data.load import load_cohort
from gmia_monai.evaluation.suite import (
    attack_engine,
    attack_fingerprint,
    attacker_weights,
    make_attacks,
    read_case,
    run_attacks,
    usable_attackers,
)
from gmia_monai.handlers.attacks import AttackLines
from gmia_monai.handlers.tracking import RunTracker
from gmia_monai.metrics.results import Result, RunContext
from gmia_monai.typing import PathLike

__all__ = ["evaluate_release"]


def evaluate_release(
    real: PathLike | None,
    released: PathLike,
    output_dir: PathLike,
    *,
    dataset_dir: PathLike | None = None,
    links: PathLike | None = None,
    models_dir: PathLike | None = None,
    system: str = "",
    policy: str = "",
    profile: str = "cxr64",
    image_size: int = 64,
    attacks: Sequence[str] | None = None,
    seeds: Sequence[int] = (0, 1, 2),
    roles: Mapping[str, str] | None = None,
    refit: Mapping[str, Any] | None = None,
    train_steps: int | None = None,
    n_boot: int = 500,
    device: str = "cpu",
    more_handlers: Callable[[AttackLines, RunTracker], Sequence[Any]] = lambda lines, tracker: (),
) -> list[Result]:
    """Judges a release, and leaves ``results.jsonl`` and an MLflow run; see ``bundle/configs/evaluate.yaml``.

    Args:
        real: manifest of the real images, with all roles.
        released: folder of the released images.
        output_dir: folder to write to.
        dataset_dir: folder of a data set in the place of, or behind, a manifest.
        links: handle to source; None: ``<released>.links.csv`` where it exists.
        models_dir: weights of the system and of the trained attackers.
        system: name for the result lines.
        policy: what the system says of released images of one patient.
        profile: training profile, for the result lines.
        image_size: what attackers look at.
        attacks: names; None: all.
        seeds: of the attackers.
        roles: other roles than those of the protocol, by purpose.
        refit: settings of :class:`gmia_monai.attacks.refit.RefitRecipe`.
        train_steps: updates of the attacks that train a network of their own; None: their default.
        n_boot: bootstrap resamples.
        device: where networks run.
        more_handlers: makes further handlers, e.g. :func:`gmia_monai.report.evaluation.report_handlers`.

    Raises:
        GmiaError: whatever the release, the manifest or the weights refuse.
    """
    cohort = load_cohort(real, dataset_dir, image_size)
    case = read_case(
        cohort,
        released,
        image_size,
        links=links,
        system=system,
        policy=policy,
        models_dir=models_dir,
        roles=roles,
        device=device,
    )
    arcface, snn = (attacker_weights(models_dir, stem) for stem in ("arcface", "siamese"))
    attackers = usable_attackers(case.knowledge.frozen is not None, arcface, snn)
    made = make_attacks(attacks, attackers, arcface, snn, seeds, refit, train_steps, n_boot, device)
    settings = {
        "attackers": attackers,
        "seeds": list(seeds),
        "refit": dict(refit or {}),
        "n_boot": n_boot,
        "train_steps": train_steps,
        "profile": profile,
    }
    fingerprint = attack_fingerprint(case, [*arcface, *snn], settings)
    release = case.judged.release
    context = RunContext(
        system=release.system, profile=profile, release_hash=release.content_hash[:16], config_hash=fingerprint
    )
    lines = AttackLines(output_dir, fingerprint, list(made))
    tracker = RunTracker(output_dir, "evaluation", settings | {"system": release.system}, every_iterations=1)
    return run_attacks(attack_engine(case, made, context), lines, [*more_handlers(lines, tracker), tracker])
