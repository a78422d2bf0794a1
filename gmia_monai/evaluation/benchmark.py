"""Every system under every attack: any number of processes share the systems, and each goes on where one stopped.

What is done is known by a hash of all that decides it; a system is claimed by a lock that dies with its process;
finished units, refitted attackers and what classifiers said are shared by all.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from gmia_monai.anonymizers.base import Anonymizer
from gmia_monai.anonymizers.store import UnitStore
from gmia_monai.data.cohort import Cohort
from gmia_monai.data.pairs import PAIRS_VERSION
from gmia_monai.data.release import RealImages
from gmia_monai.errors import ExitCode, GmiaError, IntegrityError, UsageError
from gmia_monai.evaluation.benchmark_progress import ProgressLog
from gmia_monai.evaluation.benchmark_state import SystemState, claimed
from gmia_monai.evaluation.case import MIN_PATIENTS, ROLE_OF, make_case
from gmia_monai.evaluation.command import Judgement, spelled_command, weight_hashes
from gmia_monai.evaluation.cost import COST, cost_lines
from gmia_monai.evaluation.read import read_real
from gmia_monai.evaluation.suite import ATTACK_VERSIONS, SUITE_VERSION, attacker_weights, checked_attacks
from gmia_monai.evaluation.workers import shared_work
from gmia_monai.evaluation.zoo import SystemEntry, build_system, missing_weights, read_entries, resolved_settings
from gmia_monai.handlers.tracking import flatten_settings
from gmia_monai.metrics.replicates import keep_replicates
from gmia_monai.metrics.results import Result, RunContext, append_results, read_results
from gmia_monai.typing import PathLike
from gmia_monai.weights import NOT_FOUND

__all__ = ["BenchmarkOutcome", "BenchmarkPlan", "benchmark_commands", "run_benchmark"]

_log = logging.getLogger(__name__)
_CONFIG = "python -m monai.bundle run benchmark --config_file bundle/configs/benchmark.yaml"
_CHOICE = "V1"  # role of those on whom settings of systems are chosen
_CORE, _HALF = 4, 2  # images a patient


@dataclass(frozen=True)
class BenchmarkPlan:
    """What a benchmark does; it is handed to each of its processes.

    Attributes:
        cohort: real images of all roles.
        systems: entries, see :func:`gmia_monai.evaluation.zoo.read_entries`.
        judgement: how each is judged; ``cost`` may be among its attacks. Its ``command``, ``store_dir`` and
            ``cache_dir`` are set here. For several processes its ``more_handlers`` has to be a function of a module.
        output_dir: a folder a system for its release's lines and report, and ``units``, ``refitted``, ``classifiers``
            and ``claims`` for all.
        results_dir: ``<id>.jsonl`` a system, and ``<id>.npz`` with replicates of its headline, for docs and tables.
        only: ids; None: all systems.
        image_size: of the systems, and what attackers look at.
        max_images: images a patient that are judged; an entry may have its own.
        n_images: images of each released role at most; None: all.
        cost_images: images that cost is measured on.
        commands: of each system, for the result lines.
    """

    cohort: Cohort
    systems: Mapping[str, Any]
    judgement: Judgement
    output_dir: PathLike
    results_dir: PathLike
    only: Sequence[str] | None = None
    image_size: int = 64
    max_images: int = 4
    n_images: int | None = None
    cost_images: int = 64
    commands: Mapping[str, str] = field(default_factory=dict)

    def entries(self) -> dict[str, SystemEntry]:
        """The systems that are asked for.

        Raises:
            UsageError: as :func:`gmia_monai.evaluation.zoo.read_entries`.
        """
        return read_entries(self.systems, self.only)

    def check(self) -> None:
        """Refuses what can be refused before the first image is read.

        Raises:
            UsageError: ``GM-U380`` … ``GM-U382`` for systems, ``GM-U384`` for numbers that cannot be used, and as
                :func:`gmia_monai.evaluation.checks.check_judgement`.
            ManifestError: ``GM-M035`` for a role with too few patients.
        """
        numbers = {
            "max_images": self.max_images,
            "cost_images": self.cost_images,
            "n_images": 1 if self.n_images is None else self.n_images,
        }
        for name, number in numbers.items():
            if number < 1:
                raise UsageError("GM-U384", f"{name} cannot be used", got=number, expected="1 or more")
        for entry in self.entries().values():
            checked_attacks([name for name in entry.attacks or () if name != COST])
        replace(self.judgement, attacks=_without_cost(self.judgement.attacks)).check(self.output_dir)
        for role in (ROLE_OF | dict(self.judgement.roles or {})).values():
            self.cohort.role(role, MIN_PATIENTS)


@dataclass(frozen=True)
class BenchmarkOutcome:
    """How a benchmark came out.

    Attributes:
        done: systems that every attack was made on, by this run or an earlier one.
        left_out: systems that could not be built, with what they lack.
        failed: systems that a coded error ended, with the error.
        elsewhere: systems that another process was still at.
        failed_code: exit code of the first of the failed.
    """

    done: tuple[str, ...]
    left_out: Mapping[str, str] = field(default_factory=dict)
    failed: Mapping[str, str] = field(default_factory=dict)
    elsewhere: tuple[str, ...] = ()
    failed_code: ExitCode = ExitCode.USAGE

    @property
    def exit_code(self) -> ExitCode:
        """That of the first failure; 1 where systems were left out; 0 else."""
        if self.failed:
            return self.failed_code
        return ExitCode.SOME_REJECTED if self.left_out else ExitCode.OK

    def summary(self) -> str:
        """One line, and one for each system that was not judged."""
        n = len(self.done) + len(self.left_out) + len(self.failed) + len(self.elsewhere)
        lines = [f"{len(self.done)} of {n} systems are judged"]
        lines += [f"left out: {system}: {reason}" for system, reason in self.left_out.items()]
        lines += [f"failed: {system}: {error}" for system, error in self.failed.items()]
        lines += [f"another process is at it: {system}" for system in self.elsewhere]
        return "\n".join(lines)


def run_benchmark(plan: BenchmarkPlan, workers: int = 1) -> BenchmarkOutcome:
    """Judges the systems that are not done, and writes their result lines.

    A system whose weights are not recorded is left out, one that a coded error ends is named; the others go on. The
    same call again goes on where an interrupted one stopped, and does nothing where all is done.

    Args:
        plan: what is done.
        workers: processes that share the systems, this one among them; of several each computes with one thread.

    Raises:
        UsageError: as :meth:`BenchmarkPlan.check`; ``GM-U384`` for fewer than one worker.
        ManifestError: as :meth:`BenchmarkPlan.check`.
    """
    if workers < 1:
        raise UsageError("GM-U384", "workers cannot be used", got=workers, expected="1 or more")
    plan.check()
    entries = plan.entries()
    since = time.time()
    shared_work(_work, (plan, since, workers), min(workers, len(entries)))
    states = {system: SystemState.read(plan.output_dir, system) for system in entries}
    codes = [ExitCode(state.exit_code) for state in states.values() if state.failed]
    outcome = BenchmarkOutcome(
        tuple(system for system, state in states.items() if state.done),
        {system: state.left_out for system, state in states.items() if state.left_out},
        {system: state.failed for system, state in states.items() if state.failed},
        tuple(s for s, state in states.items() if not (state.done or state.left_out or state.failed)),
        *codes[:1],
    )
    for line in outcome.summary().split("\n"):
        _log.log(logging.INFO if outcome.exit_code == ExitCode.OK else logging.WARNING, "benchmark: %s", line)
    return outcome


def benchmark_commands(
    systems: Sequence[str], paths: Mapping[str, PathLike | None], settings: Mapping[str, Any], suite: Mapping[str, Any]
) -> dict[str, str]:
    """The command of ``bundle/configs/benchmark.yaml`` for each system, with all that was set for the whole benchmark;
    what is set for one system stands in the config.

    Args:
        systems: ids.
        paths: ``real`` and ``dataset_dir``: of the one the name is left, of the other a placeholder.
        settings: further entries of the config.
        suite: its block ``suite``.
    """
    shared: list[tuple[str, object]] = [
        (f"--{key}", path if key == "dataset_dir" or not path else Path(path)) for key, path in paths.items()
    ]
    shared += [(f"--{key}", value) for key, value in settings.items()]
    shared += [(f"--suite#{key.replace('.', '#')}", value) for key, value in flatten_settings(suite).items()]
    return {system: spelled_command(_CONFIG, [("--only", [system]), *shared]) for system in systems}


# -- one process ----------------------------------------------------------------------------------------------------
def _work(plan: BenchmarkPlan, since: float, workers: int) -> None:
    """Judges one system after the other that nobody else is at."""
    _Worker(plan, since, workers).work()


class _Worker:
    def __init__(self, plan: BenchmarkPlan, since: float, workers: int) -> None:
        self.plan = plan
        self.since = since
        self.entries = plan.entries()
        self.progress = ProgressLog(plan.output_dir, list(self.entries), since, workers)
        self.out = Path(plan.output_dir)
        self.known: RealImages | None = None
        self.files = _files_hash(plan.cohort)

    def work(self) -> None:
        for system, entry in self.entries.items():
            with claimed(self.out, system) as mine:
                if not mine:
                    _log.info("%s: another process is at it", system)
                elif SystemState.read(self.out, system).ended < self.since:
                    self._judge(entry)

    def _judge(self, entry: SystemEntry) -> None:
        state = SystemState.read(self.out, entry.id)
        self.progress.begin(entry.id)
        try:
            state = self._lines_of(entry, state)
        except GmiaError as error:
            _log.warning("%s: %s", entry.id, error)
            state = replace(state, done=False, failed=str(error), exit_code=int(error.exit_code), left_out="")
        state.ended = time.time()
        state.write(self.out)

    def _lines_of(self, entry: SystemEntry, before: SystemState) -> SystemState:
        plan = self.plan
        reason, system = "", None
        missing = missing_weights(entry, plan.judgement.models_dir)
        if missing:
            reason = f"weights that are not recorded: {', '.join(missing)}"
        else:
            try:
                images = (self._training, self._other_people)
                system = build_system(entry, plan.judgement.models_dir, plan.judgement.device, *images)
            except IntegrityError as error:
                if error.code != NOT_FOUND:
                    raise
                reason = str(error)
        if system is None:
            _log.warning("%s is left out: %s", entry.id, reason)
            return SystemState(entry.id, left_out=reason)
        names = _attacks_of(entry, plan.judgement.attacks)
        mark = self._mark(entry, system, names)
        results, kept = Path(plan.results_dir) / f"{entry.id}.jsonl", self.out / entry.id / "attacks"
        if before.done and before.mark == mark:
            _log.info("%s is done already", entry.id)
            if not results.is_file():
                append_results(results, self._of_list(entry, self._kept(entry)))
            keep_replicates(results, kept)
            return before
        same = before.mark == mark
        state = SystemState(entry.id, mark, before.attacks if same else {}, before.seconds if same else 0.0)
        state.write(self.out)
        spent, started = state.seconds, time.monotonic()
        lines: list[Result] = []
        if names is None or COST in names:
            lines += self._cost(entry, system, state)
        if (others := _without_cost(names)) is None or others:
            lines += self._attacked(entry, system, state, others)
        # Lines of another release, e.g. of weights before these, would stand beside those of this one.
        releases = {line.release_hash for line in lines if line.release_hash}
        append_results(
            results,
            self._of_list(entry, lines),
            lambda old: bool(releases and old.release_hash) and old.release_hash not in releases,
        )
        keep_replicates(results, kept)
        state.seconds, state.done = spent + time.monotonic() - started, True
        self.progress.end(state)
        return state

    def _kept(self, entry: SystemEntry) -> list[Result]:
        files = [self.out / entry.id / name for name in (f"{COST}.jsonl", "results.jsonl")]
        return [line for path in files if path.is_file() for line in read_results(path)]

    def _of_list(self, entry: SystemEntry, lines: Sequence[Result]) -> list[Result]:
        """The lines with the list of images that they rest on, where that is not the protocol's core."""
        most, images = entry.max_images or self.plan.max_images, self.plan.n_images
        name = {_CORE: "", _HALF: "half"}.get(most) if images is None else None
        if name is None:
            name = f"at most {most} images a patient" + ("" if images is None else f", {images} a role")
        if "n_members" in entry.suite:
            name = f"{name or 'core'}, {entry.suite['n_members']} to learn findings from"
        return [replace(line, extra={**line.extra, "list": name}) if name else line for line in lines]

    def _attacked(
        self, entry: SystemEntry, system: Anonymizer, state: SystemState, names: Sequence[str] | None
    ) -> list[Result]:
        plan, given = self.plan, replace(self.plan.judgement, **entry.suite)
        case = make_case(
            plan.cohort,
            system,
            plan.image_size,
            store=UnitStore(self.out / "units"),
            models_dir=given.models_dir,
            roles=given.roles,
            n_members=given.n_members,
            device=given.device,
            max_images=entry.max_images or plan.max_images,
            n_images=plan.n_images,
            known=self.known,
        )
        self.known = case.knowledge.training
        judgement = replace(
            given,
            attacks=names,
            store_dir=self.out / "refitted",
            cache_dir=self.out / "classifiers",
            command=plan.commands.get(entry.id, ""),
            more_handlers=lambda lines, tracker, judged: [
                *given.more_handlers(lines, tracker, judged),
                self.progress.handler(state, lines),
            ],
        )
        return judgement.run(case, self.out / entry.id)

    def _cost(self, entry: SystemEntry, system: Anonymizer, state: SystemState) -> list[Result]:
        plan, path = self.plan, self.out / entry.id / f"{COST}.jsonl"
        facts = [1, system.fingerprint, plan.cost_images, plan.image_size, plan.judgement.device, self.files]
        mark = _digest(facts)[:16]
        kept = read_results(path) if path.is_file() else []
        if not kept or any(line.config_hash != mark for line in kept):
            roles = ROLE_OF | dict(plan.judgement.roles or {})
            judged = plan.cohort.role(roles["judged"], MIN_PATIENTS).core(entry.max_images or plan.max_images)
            real = read_real(judged.sample(min(plan.cost_images, len(judged))), plan.image_size)
            profile = plan.judgement.profile or f"cxr{plan.image_size}"
            context = RunContext(system.name, profile, config_hash=mark, command=plan.commands.get(entry.id, ""))
            started = time.monotonic()
            kept = cost_lines(system, real, context, plan.judgement.device)
            path.unlink(missing_ok=True)
            append_results(path, kept)
            state.attacks[COST] = round(time.monotonic() - started, 1)
        state.attacks.setdefault(COST, 0.0)
        state.write(self.out)
        return kept

    def _training(self) -> RealImages:
        """The images that systems learn from, those that attackers have read already from memory."""
        role = (ROLE_OF | dict(self.plan.judgement.roles or {}))["members"]
        found = read_real(self.plan.cohort.role(role, MIN_PATIENTS), self.plan.image_size, self.known)
        self.known = self.known or found
        return found

    def _other_people(self) -> RealImages:
        """The images that settings of systems are chosen on."""
        return read_real(self.plan.cohort.role(_CHOICE, MIN_PATIENTS), self.plan.image_size)

    def _mark(self, entry: SystemEntry, system: Anonymizer, names: Sequence[str] | None) -> str:
        """Hash of all that decides the lines of a system."""
        plan, judged = self.plan, replace(self.plan.judgement, **entry.suite)
        weights = [p for stem in ("arcface", "siamese", "retrieval") for p in attacker_weights(judged.models_dir, stem)]
        used = {*(path.stem for path in weights), "identity", "utility"}
        hashes = {name: found for name, found in weight_hashes(judged.models_dir).items() if name in used}
        suite = [judged.attackers, judged.seeds, judged.roles, judged.refit, judged.train_steps, judged.n_boot]
        suite += [judged.n_members, judged.utility_seeds, judged.profile, judged.device]
        lists = [plan.image_size, entry.max_images or plan.max_images, plan.n_images, plan.cost_images, self.files]
        versions = [SUITE_VERSION, ATTACK_VERSIONS, PAIRS_VERSION]
        settings = [entry.name, resolved_settings(entry, judged.device), system.name, system.fingerprint, system.policy]
        return _digest([settings, names, suite, lists, versions, hashes])[:16]


def _attacks_of(entry: SystemEntry, asked: Sequence[str] | None) -> list[str] | None:
    """What is made on a system: all that is asked for, of an entry with a list of its own what stands in both."""
    if entry.attacks is None:
        return None if asked is None else list(asked)
    return [name for name in entry.attacks if asked is None or name in asked]


def _without_cost(names: Sequence[str] | None) -> list[str] | None:
    return None if names is None else [name for name in names if name != COST]


def _files_hash(cohort: Cohort) -> str:
    """Hash of the records, and of the sizes and times of their files: whether another run sees the same images."""
    facts: list[object] = [cohort.records_hash]
    for record in cohort:
        try:
            found = record.image.stat()
        except OSError:  # whoever reads it says so
            facts.append([record.key])
        else:
            facts.append([record.key, found.st_size, found.st_mtime_ns])
    return _digest(facts)


def _digest(facts: object) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=_jsonable).encode()).hexdigest()


def _jsonable(value: object) -> object:
    return list(value) if isinstance(value, range | tuple | set) else str(value)
