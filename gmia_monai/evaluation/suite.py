"""One command that judges a release: real cohort and release in, result lines out.

An Ignite engine goes through the attacks, one an iteration, so that progress, tracking and resuming are handlers.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ignite.engine import Engine

from gmia_monai.attacks import ATTACKS
from gmia_monai.attacks.attackers import NetworkEmbedder, make_attackers
from gmia_monai.attacks.base import Attack, AttackerKnowledge, Judged
from gmia_monai.attacks.pool import AttackerPool
from gmia_monai.attacks.refit import RefitRecipe
from gmia_monai.attacks.training import Schedule
from gmia_monai.data.cohort import Cohort
from gmia_monai.data.release import RealImages
from gmia_monai.errors import UsageError
from gmia_monai.evaluation.read import read_real, read_release
from gmia_monai.handlers.attacks import AttackLines
from gmia_monai.metrics.results import Result, RunContext
from gmia_monai.networks.pretrained import load_recorded
from gmia_monai.typing import PathLike
from gmia_monai.weights import read_index, sha256_of

__all__ = [
    "Case",
    "attack_engine",
    "attack_fingerprint",
    "attacker_weights",
    "make_attacks",
    "read_case",
    "run_attacks",
    "usable_attackers",
]

_log = logging.getLogger(__name__)
MIN_PATIENTS = 2
TRAINED_ATTACKS = ("attribute", "inversion")
ROLE_OF = {"training": "S+A", "own": "A", "choice": "V2", "judged": "T"}


@dataclass(frozen=True)
class Case:
    """What is judged, and by whom.

    Attributes:
        knowledge: what attackers may use.
        judged: the release of the judged role.
        fingerprint: hash of everything that decides the figures but the attacks' own settings.
    """

    knowledge: AttackerKnowledge
    judged: Judged
    fingerprint: str


def read_case(
    cohort: Cohort,
    released: PathLike,
    image_size: int,
    *,
    links: PathLike | None = None,
    system: str = "",
    policy: str = "",
    models_dir: PathLike | None = None,
    roles: Mapping[str, str] | None = None,
    core: bool = True,
    device: str = "cpu",
) -> Case:
    """Reads real and released images and deals them out by role.

    Args:
        cohort: real images of all roles.
        released: folder of the release of the roles ``own``, ``choice`` and ``judged``.
        image_size: what attackers look at.
        links: links file of the release.
        system: name of the system for the result lines; the folder's if empty.
        policy: the release's.
        models_dir: folder of the weights of the system; the frozen attacker takes its ``identity``. None: there is no
            frozen attacker.
        roles: role of each purpose, over :data:`ROLE_OF`.
        core: judge at most four images a patient, as protocol v1 does.
        device: where the frozen encoder runs.

    Raises:
        UsageError: ``GM-U322`` where a role has no released image; ``GM-U320``, ``GM-U321`` as :func:`read_release`.
        ManifestError: a shared patient, or a role with too few.
    """
    role_of = ROLE_OF | dict(roles or {})
    parts: dict[str, Judged] = {}
    for purpose in ("own", "choice", "judged"):
        part = cohort.role(role_of[purpose], min_patients=MIN_PATIENTS)
        real = read_real(part.core() if core else part, image_size)
        parts[purpose] = _released_part(real, released, image_size, links, system, policy, role_of[purpose])
    training = read_real(cohort.role(role_of["training"], min_patients=MIN_PATIENTS), image_size)
    frozen = None if models_dir is None else NetworkEmbedder(load_recorded(models_dir, "identity"), device=device)
    knowledge = AttackerKnowledge(training, parts["own"], parts["choice"], frozen)
    knowledge.refuse_overlap(parts["judged"])
    judged = parts["judged"].release
    facts = [training.content_hash, *(f"{p.real.content_hash} {p.release.content_hash}" for p in parts.values())]
    facts += [judged.system, judged.policy, "" if models_dir is None else read_index(models_dir)["identity"]["sha256"]]
    digest = hashlib.sha256("\n".join(facts).encode()).hexdigest()
    return Case(knowledge, parts["judged"], digest)


def _released_part(
    real: RealImages,
    released: PathLike,
    image_size: int,
    links: PathLike | None,
    system: str,
    policy: str,
    role: str,
) -> Judged:
    try:
        return Judged(real, read_release(real.cohort, released, image_size, links, system, policy))
    except UsageError as error:
        if error.code != "GM-U322":
            raise
        raise UsageError(
            "GM-U322",
            f"the release holds no image of role {role}",
            expected="released images of the roles A, V2 and T",
            next_step="anonymize the whole manifest: attackers learn from releases of A and are chosen on V2",
        ) from error


def make_attacks(
    names: Sequence[str] | None = None,
    attackers: Sequence[str] = ("metadata", "frozen", "adaptive_released", "adaptive_cross", "averaging"),
    arcface: Sequence[PathLike] = (),
    snn: Sequence[PathLike] = (),
    seeds: Sequence[int] = (0, 1, 2),
    recipe: RefitRecipe | Mapping[str, Any] | None = None,
    train_steps: int | None = None,
    n_boot: int = 500,
    device: str = "cpu",
) -> dict[str, Attack]:
    """The attacks by name, with attackers that they share.

    Args:
        names: of :data:`gmia_monai.attacks.ATTACKS`; None: all.
        attackers: as :func:`gmia_monai.attacks.attackers.make_attackers` takes them.
        arcface: weights of the ArcFace attacker, one file a seed.
        snn: weights of the Siamese one.
        seeds: seeds of the attackers; attacks other than verification use the first.
        recipe: how adaptive attackers are refitted.
        train_steps: updates of the attacks that train a network of their own; None: their default.
        n_boot: bootstrap resamples of each interval.
        device: where networks run.

    Raises:
        UsageError: ``GM-U323`` for an attack that is none, ``GM-U319`` for such an attacker.
    """
    names = list(ATTACKS) if names is None else list(names)
    unknown = [name for name in names if name not in ATTACKS]
    if unknown:
        raise UsageError("GM-U323", "unknown attack", got=", ".join(unknown), expected=", ".join(ATTACKS))
    recipe = RefitRecipe(**recipe) if isinstance(recipe, Mapping) else recipe
    pool = AttackerPool(make_attackers(attackers, arcface, snn, recipe, device))
    made: dict[str, Attack] = {}
    for name in names:
        settings: dict[str, Any] = {"seed": seeds[0], "n_boot": n_boot}
        if name == "verification":
            settings = {"seeds": tuple(seeds), "n_boot": n_boot}
        elif name in TRAINED_ATTACKS:
            settings["device"] = device
            if train_steps is not None:
                settings["schedule"] = Schedule(steps=train_steps, lr=2e-3, validate_every=max(1, train_steps // 6))
        made[name] = ATTACKS[name](pool, **settings)  # type: ignore[call-arg]
    return made


def attacker_weights(models_dir: PathLike | None, stem: str) -> list[Path]:
    """Weights files of one kind of attacker in a folder of weights: ``<stem>``, ``<stem>_1``, …, one a seed."""
    index = {} if models_dir is None else read_index(models_dir)
    names = sorted(name for name in index if name == stem or name.removeprefix(f"{stem}_").isdigit())
    return [Path(models_dir or "") / index[name]["file"] for name in names]


def usable_attackers(frozen: bool, arcface: Sequence[PathLike], snn: Sequence[PathLike]) -> list[str]:
    """The attackers of the protocol that the given weights allow; the others are named in the log."""
    needs = {
        "metadata": True,
        "frozen": frozen,
        "snn": bool(snn),
        "arcface": bool(arcface),
        "adaptive_released": bool(arcface),
        "adaptive_cross": bool(arcface),
        "adaptive_cross_snn": bool(snn),
        "averaging": bool(arcface),
    }
    left_out = [name for name, there in needs.items() if not there]
    if left_out:
        _log.warning("attackers without weights are left out: %s", ", ".join(left_out))
    return [name for name, there in needs.items() if there]


def run_attacks(engine: Engine, lines: AttackLines, handlers: Sequence[Any] = ()) -> list[Result]:
    """Runs the attacks that are not done, and gives the lines of all.

    Args:
        engine: from :func:`attack_engine`.
        lines: writes the lines, and knows what is done.
        handlers: further handlers, e.g. a :class:`gmia_monai.handlers.RunTracker`; those with a method ``finish`` are
            also called where all is done already.
    """
    pending = lines.pending()
    if not pending:
        _log.info("all attacks are done already")
        for handler in handlers:
            getattr(handler, "finish", lambda: None)()
        return lines.finish()
    for handler in (lines, *handlers):
        handler.attach(engine)
    engine.run(pending, max_epochs=1)
    return lines.finish()


def attack_fingerprint(case: Case, weights: Sequence[PathLike], settings: Mapping[str, Any]) -> str:
    """Hash of the case, the attackers' weights and their settings: what has it is done already."""
    text = json.dumps([case.fingerprint, [sha256_of(path) for path in weights], settings], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def attack_engine(case: Case, attacks: Mapping[str, Attack], context: RunContext) -> Engine:
    """An engine whose data are names of attacks.

    The output of each is ``{"attack", "results", "figure_data"}``, with the value of each line beside them.
    """

    def process(engine: Engine, name: str) -> dict[str, Any]:
        _log.info("attack %s", name)
        attack = attacks[name]
        attack.fit(case.knowledge)
        results: list[Result] = list(attack.score(case.judged, context))
        figures = {f"{r.name}.{r.negatives}" if r.negatives else r.name: r.value for r in results}
        data = getattr(attack, "figure_data", dict)()
        return {"attack": name, "results": results, "figure_data": data} | {
            k: v for k, v in figures.items() if v is not None
        }

    return Engine(process)
