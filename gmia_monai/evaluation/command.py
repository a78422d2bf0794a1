"""The evaluation as functions, for the command line, scripts and notebooks; configs wire the same pieces."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gmia_monai.anonymizers.base import Anonymizer
from gmia_monai.anonymizers.store import UnitStore
from gmia_monai.attacks.base import Judged
from gmia_monai.data.cohort import Cohort
from gmia_monai.data.load import load_cohort
from gmia_monai.evaluation.case import Case, make_case, read_case
from gmia_monai.evaluation.checks import check_judgement, check_release
from gmia_monai.evaluation.notes import case_notes, weaknesses
from gmia_monai.evaluation.suite import (
    SUITE_VERSION,
    attack_engine,
    attack_fingerprint,
    attacker_weights,
    attackers_left_out,
    make_attacks,
    member_fingerprints,
    run_attacks,
    usable_attackers,
)
from gmia_monai.handlers.attacks import AttackLines
from gmia_monai.handlers.tracking import RunTracker, flatten_settings
from gmia_monai.metrics.results import Result, RunContext
from gmia_monai.typing import PathLike
from gmia_monai.weights import read_index, sha256_of

__all__ = [
    "Judgement",
    "bundle_command",
    "evaluate_anonymizer",
    "evaluate_release",
    "spelled_command",
    "weight_hashes",
]

_CONFIG = "python -m monai.bundle run evaluating --config_file bundle/configs/evaluate.yaml"


@dataclass(frozen=True)
class Judgement:
    """How a release is judged, whatever made it.

    Attributes:
        models_dir: weights of the system (its ``identity`` is the frozen attacker) and of the trained attackers.
        profile: training profile, for the result lines; empty: ``cxr`` and the image size.
        attacks: names; None: all.
        attackers: names; None: all that there are weights for.
        seeds: of the attackers.
        roles: other roles than those of the protocol, by purpose.
        refit: settings of :class:`gmia_monai.attacks.refit.RefitRecipe`.
        train_steps: updates of the attacks that train a network of their own; None: their default.
        n_boot: bootstrap resamples.
        n_members: images of the system's training patients at most.
        device: where networks run.
        store_dir: folder for refitted networks; None: ``refitted`` in the output folder.
        utility_seeds: of the classifiers that learn from the release.
        cache_dir: folder of what they said, best shared by all releases; None: ``classifiers`` in the output folder.
        command: for the result lines.
        more_handlers: makes further handlers, e.g. :func:`gmia_monai.report.evaluation.report_handlers`.
    """

    models_dir: PathLike | None = None
    profile: str = ""
    attacks: Sequence[str] | None = None
    attackers: Sequence[str] | None = None
    seeds: Sequence[int] = (0, 1, 2)
    roles: Mapping[str, str] | None = None
    refit: Mapping[str, Any] = field(default_factory=dict)
    train_steps: int | None = None
    n_boot: int = 500
    n_members: int = 3000
    device: str = "cpu"
    store_dir: PathLike | None = None
    utility_seeds: Sequence[int] = (0, 1, 2, 3, 4)
    cache_dir: PathLike | None = None
    command: str = ""
    more_handlers: Callable[[AttackLines, RunTracker, Judged], Sequence[Any]] = lambda lines, tracker, judged: ()

    def check(self, output_dir: PathLike) -> None:
        """Refuses what can be refused before the first image is read.

        Raises:
            UsageError: as :func:`gmia_monai.evaluation.checks.check_judgement`.
        """
        check_judgement(self.attacks, self.attackers, self.device, (output_dir, self.store_dir, self.cache_dir))

    def run(self, case: Case, output_dir: PathLike) -> list[Result]:
        """Goes through the attacks; leaves ``results.jsonl`` and an MLflow run."""
        arcface, snn = (attacker_weights(self.models_dir, stem) for stem in ("arcface", "siamese"))
        attackers = list(self.attackers or usable_attackers(case, arcface, snn))
        made = make_attacks(
            case,
            self.attacks,
            attackers,
            arcface,
            snn,
            self.seeds,
            self.refit,
            self.train_steps,
            self.n_boot,
            self.device,
            self.store_dir or Path(output_dir) / "refitted",
            self.models_dir,
            self.utility_seeds,
            self.cache_dir or Path(output_dir) / "classifiers",
        )
        profile = self.profile or f"cxr{case.judged.real.pixels.shape[-1]}"
        settings = {
            "attackers": attackers,
            "seeds": list(self.seeds),
            "refit": dict(self.refit),
            "n_boot": self.n_boot,
            "train_steps": self.train_steps,
            "utility_seeds": list(self.utility_seeds),
            "profile": profile,
            "seed": 0,
        }
        fingerprint = attack_fingerprint(case, [*arcface, *snn], settings)
        release = case.judged.release
        context = RunContext(
            system=release.system,
            profile=profile,
            release_hash=release.content_hash[:16],
            config_hash=fingerprint,
            command=self.command,
            suite_version=SUITE_VERSION,
        )
        lines = AttackLines(output_dir, fingerprint, list(made), member_fingerprints(case, fingerprint))
        logged = settings | {"system": release.system, "weights": weight_hashes(self.models_dir, [*arcface, *snn])}
        left_out = attackers_left_out(case, arcface, snn)
        weaker = weaknesses(attackers, left_out, self.seeds, self.refit)
        logged["notes"] = case_notes(case, [*arcface, *snn], left_out, weaker)
        tracker = RunTracker(output_dir, "evaluation", logged, every_iterations=1)
        handlers = [*self.more_handlers(lines, tracker, case.judged), tracker]
        return run_attacks(attack_engine(case, made, context), lines, handlers)


def evaluate_release(
    real: PathLike | None,
    released: PathLike,
    output_dir: PathLike,
    judgement: Judgement,
    *,
    dataset_dir: PathLike | None = None,
    links: PathLike | None = None,
    system: str = "",
    policy: str = "",
    image_size: int = 64,
    labels: PathLike | None = None,
    role_key: bytes | str | None = None,
) -> list[Result]:
    """Judges a folder of released images; see ``bundle/configs/evaluate.yaml``.

    Args:
        real: manifest of the real images, with all roles.
        released: folder of the released images.
        output_dir: folder to write to.
        judgement: how.
        dataset_dir: folder of a data set in the place of, or behind, a manifest.
        links: handle to source; None: ``<released>.links.csv`` where it exists.
        system: name for the result lines.
        policy: what the system says of released images of one patient.
        image_size: what attackers look at.
        labels: findings that are released with the images, by handle.
        role_key: key of roles by hash that the system was trained under, as in ``cohort#role_key`` of its config.

    Raises:
        GmiaError: whatever the release, the manifest or the weights refuse.
    """
    judgement.check(output_dir)
    check_release(released, links, labels, image_size)
    case = read_case(
        load_cohort(real, dataset_dir, image_size, role_key=role_key),
        released,
        image_size,
        links=links,
        system=system,
        policy=policy,
        models_dir=judgement.models_dir,
        roles=judgement.roles,
        n_members=judgement.n_members,
        device=judgement.device,
        labels=labels,
    )
    return judgement.run(case, output_dir)


def evaluate_anonymizer(
    cohort: Cohort,
    anonymizer: Anonymizer,
    output_dir: PathLike,
    judgement: Judgement,
    *,
    image_size: int = 64,
    store: UnitStore | None = None,
) -> list[Result]:
    """Lets a system anonymize the roles of a cohort, and judges what it made; attackers hold the system, too.

    Args:
        cohort: real images of all roles.
        anonymizer: the system.
        output_dir: folder to write to.
        judgement: how.
        image_size: of the system.
        store: finished units of the system.

    Raises:
        GmiaError: whatever the cohort, the system or the weights refuse.
    """
    judgement.check(output_dir)
    case = make_case(
        cohort,
        anonymizer,
        image_size,
        store=store,
        models_dir=judgement.models_dir,
        roles=judgement.roles,
        n_members=judgement.n_members,
        device=judgement.device,
    )
    return judgement.run(case, output_dir)


# -- what made the lines --------------------------------------------------------------------------------------------
def weight_hashes(models_dir: PathLike | None, others: Sequence[PathLike] = ()) -> dict[str, str]:
    """Name to the first 16 digits of the sha256 of recorded weights, and of other weights files.

    Raises:
        IntegrityError: ``GM-W005`` for an index that cannot be read.
    """
    recorded = {} if models_dir is None else read_index(models_dir)
    hashes = {name: str(entry["sha256"]) for name, entry in recorded.items()}
    hashes |= {Path(path).stem: sha256_of(path) for path in others if Path(path).stem not in hashes}
    return {name: digest[:16] for name, digest in hashes.items()}


def spelled_command(program: str, options: Sequence[tuple[str, object]]) -> str:
    """A command with all its settings and no path of this machine.

    Of a :class:`Path` the name is left, of a folder of a data set and of a key a placeholder; options without a value
    (None, an empty text, list or mapping) are left out.

    Args:
        program: what stands before the options.
        options: names, with their dashes, and values.
    """
    words = [program]
    for option, value in options:
        if value is None or value in ("", [], {}):
            continue
        if option.lstrip("-").replace("-", "_") == "dataset_dir":
            shown = "$GMIA_CXR_DIR" if str(value) == os.environ.get("GMIA_CXR_DIR") else "$DATASET_DIR"
        elif option == "--role-key":
            shown = "$ROLE_KEY"
        else:
            shown = shlex.quote(_without_folders(value))
        words += [option, shown]
    return " ".join(words)


def bundle_command(paths: Mapping[str, str | None], settings: Mapping[str, Any], suite: Mapping[str, Any]) -> str:
    """The command of ``bundle/configs/evaluate.yaml`` with everything that was set, whichever files it came from.

    Args:
        paths: ``real``, ``released`` and the like.
        settings: further entries of the config.
        suite: its block ``suite``.
    """
    options: list[tuple[str, object]] = [
        (f"--{key}", path if key == "dataset_dir" or not path else Path(path)) for key, path in paths.items()
    ]
    options += [(f"--{key}", value) for key, value in settings.items()]
    options += [(f"--suite#{key.replace('.', '#')}", value) for key, value in flatten_settings(suite).items()]
    return spelled_command(_CONFIG, options)


def _without_folders(value: object) -> str:
    if isinstance(value, Path) or (isinstance(value, str) and Path(value).is_absolute()):
        return Path(value).name
    if isinstance(value, list | tuple):
        return json.dumps([_without_folders(v) if isinstance(v, str | Path) else v for v in value])
    return str(value)
