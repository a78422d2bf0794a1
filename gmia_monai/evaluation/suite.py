"""The attacks on a case, with attackers that they share; an Ignite engine goes through them, one an iteration, so that
progress, tracking and resuming are handlers.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ignite.engine import Engine

from gmia_monai.attacks import ATTACKS
from gmia_monai.attacks.anonymeter import AnonymeterAttack
from gmia_monai.attacks.attackers import make_attackers
from gmia_monai.attacks.attribute import AttributeAttack
from gmia_monai.attacks.base import Attack, TooLittleDataError
from gmia_monai.attacks.budget import BudgetAttack
from gmia_monai.attacks.inversion import InversionAttack
from gmia_monai.attacks.linkability import LinkabilityAttack
from gmia_monai.attacks.membership import MembershipAttack
from gmia_monai.attacks.memorisation import MemorisationAttack
from gmia_monai.attacks.pool import AttackerPool
from gmia_monai.attacks.presence import PresenceAttack
from gmia_monai.attacks.refit import RefitRecipe
from gmia_monai.attacks.refit_store import RefitStore
from gmia_monai.attacks.retrieval import RetrievalAttack
from gmia_monai.attacks.singling_out import SinglingOutAttack
from gmia_monai.attacks.training import Schedule
from gmia_monai.attacks.verification import VerificationAttack
from gmia_monai.data.pairs import PAIRS_VERSION
from gmia_monai.errors import UsageError
from gmia_monai.evaluation.case import Case
from gmia_monai.evaluation.probes import FidelityProbe, ReleaseProbe, TransferProbe, transfer_recipes
from gmia_monai.handlers.attacks import AttackLines
from gmia_monai.metrics.replicates import ReplicateLog
from gmia_monai.metrics.results import Result, RunContext
from gmia_monai.typing import PathLike
from gmia_monai.weights import read_index, sha256_of

__all__ = [
    "ATTACK_VERSIONS",
    "NO_SYSTEM",
    "SUITE_VERSION",
    "AttackEngine",
    "attack_engine",
    "attack_fingerprint",
    "attacker_weights",
    "attackers_left_out",
    "checked_attacks",
    "make_attacks",
    "member_fingerprints",
    "protocol_attackers",
    "run_attacks",
    "unfit_attacks",
    "usable_attackers",
]

_log = logging.getLogger(__name__)
SUITE_VERSION = 4  # raised whenever pairs, intervals or most attacks change what they mean
# of an attack that alone has changed since
ATTACK_VERSIONS = {"verification": 7, "linkability": 6, "singling_out": 5, "budget": 6, "inversion": 5, "attribute": 5}
NO_SYSTEM = "the system itself, which a folder does not hold"  # why ``owner`` is left out
PROBES = ("release", "utility", "fidelity")  # the second network of fidelity is one that utility trained
ONE_TO_ONE_ATTACKS = (
    *("verification", "retrieval", "linkability", "singling_out"),
    *("attribute", "inversion", "budget"),
)
USE_MEMBERS = ("membership", "utility", "fidelity")  # presence, too, where the release is generated
_MEMBERS_DIGITS = 8
_NOT_HASHED = ("attacks", "arcface", "snn", "n_members", "roles", "core")


def make_attacks(
    case: Case,
    names: Sequence[str] | None = None,
    attackers: Sequence[str] = ("metadata", "frozen", "adaptive_released", "adaptive_cross", "averaging"),
    arcface: Sequence[PathLike] = (),
    snn: Sequence[PathLike] = (),
    seeds: Sequence[int] = (0, 1, 2),
    recipe: RefitRecipe | Mapping[str, Any] | None = None,
    train_steps: int | None = None,
    n_boot: int = 500,
    device: str = "cpu",
    store_dir: PathLike | None = None,
    models_dir: PathLike | None = None,
    utility_seeds: Sequence[int] = (0, 1, 2, 3, 4),
    cache_dir: PathLike = "output/classifiers",
) -> dict[str, Attack]:
    """The attacks and probes by name, with attackers that they share.

    Args:
        case: what will be judged.
        names: of :data:`gmia_monai.attacks.ATTACKS` and :data:`PROBES`; None: all. Where the release says how its
            images came out, ``release`` is always among them.
        attackers: as :func:`gmia_monai.attacks.attackers.make_attackers` takes them.
        arcface: weights of the ArcFace attacker, one file a seed.
        snn: weights of the Siamese one.
        seeds: seeds of the attackers and of the networks that attacks train.
        recipe: how adaptive attackers are refitted.
        train_steps: updates of the attacks that train a network of their own; None: their default.
        n_boot: bootstrap resamples of each interval.
        device: where networks run.
        store_dir: folder for refitted networks; None: in memory.
        models_dir: weights of the system, for the diagnostic network in its loss, and of the retrieval network.
        utility_seeds: seeds of the classifiers that learn from the release.
        cache_dir: folder of what these classifiers said, shared by all releases.

    Raises:
        UsageError: ``GM-U323`` for an attack that is none, ``GM-U319`` for such an attacker.
    """
    names = checked_attacks(names)
    if case.judged.release.convergence is not None and "release" not in names:
        names = ["release", *names]
    names.sort(key=lambda name: name == "fidelity")  # whose second network utility trains
    frozen = [] if models_dir is None else attacker_weights(models_dir, "identity")
    recipe = RefitRecipe(**recipe) if isinstance(recipe, Mapping) else recipe
    store = RefitStore(store_dir)
    pool = AttackerPool(make_attackers(attackers, arcface, snn, recipe, device, store, frozen, seeds))
    over_seeds: dict[str, Any] = {"seeds": tuple(seeds), "n_boot": n_boot}
    trained = over_seeds | {"device": device}
    if train_steps is not None:
        trained["schedule"] = Schedule(steps=train_steps, lr=2e-3, validate_every=max(1, train_steps // 6))
    classifiers = {"seeds": utility_seeds, "n_boot": n_boot, "device": device}
    makers: dict[str, Callable[[], Attack]] = {
        "verification": lambda: VerificationAttack(pool, **over_seeds),
        "retrieval": lambda: RetrievalAttack(
            pool, **over_seeds, network=attacker_weights(models_dir, "retrieval"), device=device
        ),
        "linkability": lambda: LinkabilityAttack(pool, **over_seeds),
        "singling_out": lambda: SinglingOutAttack(pool, **over_seeds),
        "presence": lambda: PresenceAttack(pool, **over_seeds),
        "membership": lambda: MembershipAttack(**trained),
        "memorisation": lambda: MemorisationAttack(pool, **over_seeds),
        "attribute": lambda: AttributeAttack(**trained),
        "inversion": lambda: InversionAttack(pool, **trained),
        "budget": lambda: BudgetAttack(pool, tuple(seeds), n_boot),
        "anonymeter": lambda: AnonymeterAttack(pool, tuple(seeds)),
        "release": lambda: ReleaseProbe(n_boot),
        "fidelity": lambda: FidelityProbe.from_weights(
            models_dir, n_boot, device, training=case.knowledge.members, cache_dir=cache_dir
        ),
        "utility": lambda: TransferProbe(
            case.knowledge.members, cache_dir, transfer_recipes(models_dir), **classifiers
        ),
    }
    return {name: makers[name]() for name in names}


def checked_attacks(names: Sequence[str] | None) -> list[str]:
    """Names of attacks and probes; None: all.

    Raises:
        UsageError: ``GM-U323`` for one that is none.
    """
    known = ("release", *ATTACKS, *PROBES[1:])
    unknown = [name for name in names or () if name not in known]
    if unknown:
        raise UsageError("GM-U323", "unknown attack", got=", ".join(unknown), expected=", ".join(known))
    return list(known if names is None else names)


def attacker_weights(models_dir: PathLike | None, stem: str) -> list[Path]:
    """Weights files of one kind of attacker in a folder of weights: ``<stem>``, ``<stem>_1``, …, one a seed."""
    index = {} if models_dir is None else read_index(models_dir)
    names = sorted(name for name in index if name == stem or name.removeprefix(f"{stem}_").isdigit())
    return [Path(models_dir or "") / index[name]["file"] for name in names]


def usable_attackers(case: Case, arcface: Sequence[PathLike], snn: Sequence[PathLike]) -> list[str]:
    """The attackers of the protocol that the case and the given weights allow; the others are named in the log."""
    left_out = attackers_left_out(case, arcface, snn)
    if left_out:
        _log.warning("attackers that lack weights, sources or the system are left out: %s", ", ".join(left_out))
    return [name for name in _allowed() if name not in left_out]


def protocol_attackers() -> list[str]:
    """The attackers of the protocol by name, also those that a case leaves no place for."""
    return list(_allowed())


def attackers_left_out(case: Case, arcface: Sequence[PathLike], snn: Sequence[PathLike]) -> dict[str, str]:
    """The attackers of the protocol that :func:`usable_attackers` leaves out, each with what it lacks."""
    kind = case.judged.release.kind
    there = {
        "one_to_one": kind == "one_to_one",
        "sources": kind != "generated",
        "arcface": bool(arcface),
        "snn": bool(snn),
        "frozen": case.knowledge.frozen is not None,
        "system": case.knowledge.anonymize is not None,
    }
    told = {"one_to_one": f"one source an image (the release is {kind})", "sources": "sources"}
    told |= {name: f"weights {stem}*" for name, stem in (("arcface", "arcface"), ("snn", "siamese"))}
    told |= {"frozen": "weights identity", "system": NO_SYSTEM}
    lacking = [name for name, held in there.items() if not held]
    left_out = {}
    for name in (name for name, possible in _allowed(**there).items() if not possible):
        decisive = [what for what in lacking if not _allowed(**{what: False})[name]]
        left_out[name] = ", ".join(told[what] for what in decisive) or "weights of any attacker"
    return left_out


def _allowed(
    one_to_one: bool = True,
    sources: bool = True,
    arcface: bool = True,
    snn: bool = True,
    frozen: bool = True,
    system: bool = True,
) -> dict[str, bool]:
    """The attackers of the protocol, and whether each has what it needs."""
    return {
        "metadata": one_to_one,
        "frozen": frozen,
        "snn": snn,
        "arcface": arcface,
        "linear": one_to_one and arcface,
        "linear_snn": one_to_one and snn,
        "linear_frozen": one_to_one and frozen,
        "adaptive_released": one_to_one and arcface,
        "adaptive_cross": sources and arcface,
        "adaptive_cross_snn": sources and snn,
        "adaptive_cross_frozen": sources and frozen,
        "adaptive_source": one_to_one and arcface,
        "owner": one_to_one and arcface and system,
        "owner_fresh": one_to_one and (arcface or frozen) and system,
        "averaging": one_to_one and (arcface or frozen),
        "fusion": one_to_one and (arcface or frozen),
        "ensemble": one_to_one and (arcface or frozen),
    }


def unfit_attacks(case: Case) -> dict[str, str]:
    """Attacks that make no sense for this release, with the reason that their place in the results gets."""
    unfit = {}
    if case.judged.release.kind != "one_to_one":
        unfit = dict.fromkeys(
            ONE_TO_ONE_ATTACKS, f"the release is {case.judged.release.kind}: no single source an image"
        )
    if case.knowledge.members is None:
        unfit["membership"] = "no release of patients that the system was trained on"
        unfit["utility"] = "no release of patients of the training role to learn from"
    return unfit


class AttackEngine(Engine):
    """An engine that goes through attacks.

    Args:
        process: does one attack.
        facts: digits that stand behind an attack's fingerprint, by its name: what decides its figures and may change
            while the others run.
    """

    def __init__(self, process: Callable[[Engine, str], Any], facts: Callable[[str], str]) -> None:
        super().__init__(process)
        self.facts = facts


def run_attacks(engine: Engine, lines: AttackLines, handlers: Sequence[Any] = ()) -> list[Result]:
    """Runs the attacks that are not done, and gives the lines of all.

    Args:
        engine: from :func:`attack_engine`.
        lines: writes the lines, and knows what is done.
        handlers: further handlers, e.g. a :class:`gmia_monai.handlers.RunTracker`; those with a method ``finish`` are
            also called where all is done already.
    """
    if isinstance(engine, AttackEngine):
        lines.facts = engine.facts
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
    """Hash of the case, the attackers' weights and their settings: what has it is done already.

    Neither the list of attacks nor what only says how the case was read (its images are hashed) changes it.
    """
    kept = {key: value for key, value in settings.items() if key not in _NOT_HASHED}
    facts = [SUITE_VERSION, PAIRS_VERSION, case.fingerprint, [sha256_of(path) for path in weights], kept]
    text = json.dumps(facts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def member_fingerprints(case: Case, fingerprint: str) -> dict[str, str]:
    """Fingerprints of the attacks that use members: that of all, and behind it who the members are."""
    more = ("presence",) if case.judged.release.kind == "generated" else ()
    return {name: fingerprint + case.members[:_MEMBERS_DIGITS] for name in (*USE_MEMBERS, *more)}


def attack_engine(case: Case, attacks: Mapping[str, Attack], context: RunContext) -> AttackEngine:
    """An engine whose data are names of attacks.

    The output of each is ``{"attack", "results", "figure_data"}``, with the value of each line beside them.
    """

    unfit = unfit_attacks(case)
    own = {} if context.config_hash is None else member_fingerprints(case, context.config_hash)

    def facts(name: str) -> str:
        of_attack = getattr(attacks.get(name), "own_facts", None)
        version = f"{ATTACK_VERSIONS[name]:02x}" if name in ATTACK_VERSIONS else ""
        return version + ("" if of_attack is None else str(of_attack(case.knowledge)))

    def left_out(name: str, reason: str, shared: RunContext) -> dict[str, Any]:
        _log.warning("attack %s is left out: %s", name, reason)
        line = shared.result(
            f"{name}_left_out.v1",
            float("nan"),
            n_patients=None,
            n_images=len(case.judged.release),
            extra={"reason": reason},
        )
        return {"attack": name, "results": [line], "figure_data": {}}

    def process(engine: Engine, name: str) -> dict[str, Any]:
        _log.info("attack %s", name)
        mark = own.get(name, context.config_hash)
        version = context.suite_version and ATTACK_VERSIONS.get(name, context.suite_version)
        log = ReplicateLog()
        shared = replace(context, config_hash=mark and mark + facts(name), suite_version=version, keep=log.add)
        if name in unfit:
            return left_out(name, unfit[name], shared)
        attack = attacks[name]
        try:
            attack.fit(case.knowledge)
            results: list[Result] = list(attack.score(case.judged, shared))
        except TooLittleDataError as error:
            return left_out(name, error.what, shared)
        figures = {f"{r.name}.{r.negatives}" if r.negatives else r.name: r.value for r in results}
        data = {**getattr(attack, "figure_data", dict)(), **log.arrays()}
        return {"attack": name, "results": results, "figure_data": data} | {
            k: v for k, v in figures.items() if v is not None
        }

    return AttackEngine(process, facts)
