"""The runner: from a folder of radiographs to a folder of released ones, with an end for every file and a line for
every end.

One process decides: it alone writes the ledger and moves files into the output, unit after unit in the order of the
plan, so that the ledger does not tell how many workers there were or how often they were interrupted. A file is
released in four steps: it stands in the work folder, on the disk; its ledger line is on the disk; it is renamed; its
folder is on the disk. Whatever ends the process between two of them, the next run finds the ledger and goes on.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from gmia_monai.errors import IntegrityError, ResourceError
from gmia_monai.release.copies import without_copies
from gmia_monai.release.instance import SUFFIX_OF, Instance, instance_handle, read_instance, write_instance
from gmia_monai.release.ledger import Ledger
from gmia_monai.release.moves import move, stem_and_suffix
from gmia_monai.release.parts import ReleasedImage
from gmia_monai.release.pixels import bytes_written, model_image
from gmia_monai.release.places import Places, input_files
from gmia_monai.release.plan import Plan, make_plan, read_plan, write_plan
from gmia_monai.release.reasons import BY_ATTACK
from gmia_monai.release.recovery import put_right
from gmia_monai.release.workshop import Made, Workshop
from gmia_monai.release.writing import put

__all__ = ["Outcome", "Progress", "Runner", "Workers"]

_DIGITS = 4


class Workers(Protocol):
    """Does the work of a workshop, on one process or several; answers come in the order of the questions."""

    def take_in(self, paths: Sequence[str]) -> Iterator[Instance]:
        """Instances of files."""

    def make(self, units: Iterable[tuple[Sequence[Instance], dict[str, np.ndarray]]]) -> Iterator[list[Made]]:
        """New images of units, of which only a few are asked for ahead."""


@dataclass
class Progress:
    """How far a run is.

    Attributes:
        stage: ``reading``, ``making``, ``attacking`` or ``done``.
        done: files or images of this stage that are done.
        total: of how many.
        ends: number of instances by end.
    """

    stage: str = "reading"
    done: int = 0
    total: int = 0
    ends: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes:
        ends: number of instances by end: ``released``, ``held``, ``rejected``.
        codes: number of instances by reason.
        head: of the ledger.
    """

    ends: dict[str, int]
    codes: dict[str, int]
    head: str


class Runner:
    """Makes one release, or goes on with it.

    Args:
        workshop: of the process that decides; others have their own.
        workers: who does the work.
        watch: is told of progress.
    """

    def __init__(
        self, workshop: Workshop, workers: Workers, watch: Callable[[Progress], None] = lambda progress: None
    ) -> None:
        self.workshop = workshop
        self.workers = workers
        self.places: Places = workshop.places
        self.progress = Progress()
        self._watch = watch
        self._ended: dict[str, dict[str, Any]] = {}

    def run(self) -> Outcome:
        """Gives every file of the input an end.

        Raises:
            UsageError: ``GM-U413`` where another process is at work here.
            ResourceError: ``GM-R303`` where the disk cannot hold what is to be made, ``GM-R305`` where it is full; the
                same command goes on when there is room.
            IntegrityError: ``GM-W301`` a ledger that was changed, ``GM-W304`` a released file that was, ``GM-W305`` one
                that is lost and cannot be made again.
        """
        self.places.make()
        try:
            with self.places.locked(), self._ledger() as ledger:
                self._ended = self._ends_of(ledger)
                redo = self._recover()
                self.progress.ends = Counter(body["state"] for body in self._ended.values())
                put(self.places.policy, self.workshop.policy.to_json().encode())
                instances = self._take_in(list(input_files(self.places.source)))
                self._end_before(ledger, instances)
                self._make(ledger, instances, redo)
                self._attack(ledger, instances)
                return self._complete(ledger)
        except OSError as error:
            raise ResourceError(
                "GM-R305",
                "the disk does not take the release",
                got=error.strerror,
                next_step="make room, and run the same command again: it goes on",
            ) from error

    def _ledger(self) -> Ledger:
        self.places.sweep()
        return Ledger(self.places.ledger, self.workshop.key)

    # -- what was there ---------------------------------------------------------------------------------------------
    def _recover(self) -> dict[str, str]:
        """Finishes what an interruption left between the ledger and the output; handles that have to be made again,
        with the hash that has to come out."""
        redo = {}
        for handle, body in list(self._ended.items()):
            if put_right(self.places, body):
                continue
            if body["state"] == "released":
                redo[handle] = str(body["sha256"])
            elif body["state"] == "waiting":
                del self._ended[handle]  # nobody has seen it: it is made again
        return redo

    def _ends_of(self, ledger: Ledger) -> dict[str, dict[str, Any]]:
        """Ends of earlier runs; what waited under other settings has none."""
        runs = [e.body["settings"] for e in ledger if e.kind == "run"]
        found = {e.body["handle"]: dict(e.body) for e in ledger if e.kind == "instance"}
        same = bool(runs) and runs[-1] == self._settings()
        return {handle: body for handle, body in found.items() if same or body["state"] != "waiting"}

    # -- reading ----------------------------------------------------------------------------------------------------
    def _take_in(self, paths: list[str]) -> dict[str, Instance]:
        """An instance of every file, read before or now; images stay on the disk, for there may be many."""
        self._kept().mkdir(parents=True, exist_ok=True, mode=0o700)
        found: dict[str, Instance] = {}
        missing = []
        for path in paths:
            handle = instance_handle(self.workshop.key, path)
            known = read_instance(self._kept() / f"{handle}.npz")
            if known is None:
                missing.append(path)
            else:
                found[handle] = replace(known, image=None)
        self._tell("reading", len(found), len(paths))
        for instance in self.workers.take_in(missing):
            write_instance(instance, self._kept() / f"{instance.handle}.npz")
            found[instance.handle] = replace(instance, image=None)
            self._tell("reading", len(found), len(paths))
        return dict(sorted(self._without_known(without_copies(found)).items()))

    def _without_known(self, found: dict[str, Instance]) -> dict[str, Instance]:
        """What has an end under another path, a renamed file or a copy that came later, does not get a second one."""
        ends = [(handle, body) for handle, body in self._ended.items() if "file" in body]
        owner = {stem_and_suffix(Path(body["file"]))[0]: handle for handle, body in ends}
        for handle, instance in found.items():
            first = owner.get(instance.name, handle)
            if first == handle or instance.state != "taken" or handle in self._ended:
                continue
            known = read_instance(self._kept() / f"{first}.npz")
            same = known is not None and known.content == instance.content
            found[handle] = instance.stopped(*(("rejected", ("GM-D035",)) if same else ("held", ("GM-H008",))))
        return found

    def _kept(self) -> Path:
        return self.places.work / "intake" / self._settings()[:16]

    def _with_image(self, handle: str) -> Instance:
        found = read_instance(self._kept() / f"{handle}.npz")
        if found is None or found.image is None:
            raise IntegrityError("GM-W306", "what was kept of an instance is gone", next_step="run again")
        return found

    def _work(
        self, units: Sequence[Sequence[str]], of_patient: Mapping[str, list[str]]
    ) -> Iterator[tuple[list[Instance], dict[str, np.ndarray]]]:
        """Units with the images of all their patients."""
        for unit in units:
            known = [self._with_image(handle) for handle in unit]
            others = {}
            for patient in {instance.patient for instance in known}:
                images = [self._with_image(handle).image for handle in of_patient[patient]]
                others[patient] = np.stack([image for image in images if image is not None])
            yield known, others

    def _settings(self) -> str:
        """Hash of all that decides what becomes of a file."""
        parts = self.workshop.parts
        facts: list[Any] = [
            self.workshop.policy.sha256,
            sorted(parts.redraw.weights.items()),
            sorted(parts.watch.weights.items()),
        ]
        facts += [parts.redraw.description, parts.calibration, parts.gate.limits, self.workshop.version]
        return hmac.new(self.workshop.key, json.dumps(facts).encode(), hashlib.sha256).hexdigest()

    def _end_before(self, ledger: Ledger, instances: dict[str, Instance]) -> None:
        """The run, and the ends of what is not taken."""
        run = {
            "settings": self._settings(),
            "policy": self.workshop.policy.sha256,
            "calibration": self.workshop.parts.calibration,
            "version": self.workshop.version,
            "weights": dict(sorted(self.workshop.parts.redraw.weights.items())),
            "watching": dict(sorted(self.workshop.parts.watch.weights.items())),
            "limits": self.workshop.parts.gate.limits,
            "rates": dict(sorted(self.workshop.parts.rates.items())),
            "image_size": self.workshop.parts.redraw.image_size,
        }
        runs = [e.body for e in ledger if e.kind == "run"]
        if not runs or runs[-1] != run:
            ledger.append("run", run)
        for instance in instances.values():
            if instance.state != "taken" and instance.handle not in self._ended:
                self._end(ledger, {"handle": instance.handle, "state": instance.state, "codes": list(instance.codes)})

    # -- making -----------------------------------------------------------------------------------------------------
    def _make(self, ledger: Ledger, instances: dict[str, Instance], redo: dict[str, str]) -> None:
        taken = {handle: i for handle, i in instances.items() if i.state == "taken"}
        plan = self._plan(taken)
        of_patient: dict[str, list[str]] = defaultdict(list)
        for instance in instances.values():
            if instance.rows:  # every image of a patient that could be read, also of those that are held
                of_patient[instance.patient].append(instance.handle)
        units = plan.open_units(set(self._ended) - set(redo))
        done = sum(len(unit) for unit in plan.units) - sum(len(unit) for unit in units)
        todo = [taken[handle] for unit in units for handle in unit]
        self.places.check_room(sum(bytes_written(i.rows, i.columns, i.bits) for i in todo))
        self._tell("making", done, done + len(todo))
        for unit, made in zip(units, self.workers.make(self._work(units, of_patient)), strict=True):
            for handle, one in zip(unit, made, strict=True):
                self._finish(ledger, taken[handle], one, redo)
                self._tell("making", self.progress.done + 1, self.progress.total)
        if redo:  # of an earlier plan, or their sources are gone
            raise _lost()

    def _plan(self, taken: dict[str, Instance]) -> Plan:
        """The plan that was begun, as long as it fits; else one for what has no end yet."""
        path, settings = self.places.work / "plan.json", self._settings()
        kept = read_plan(path)
        if kept is not None and kept.settings == settings:
            planned = {handle for unit in kept.units for handle in unit}
            if planned <= set(taken) and set(taken) - planned <= set(self._ended):
                return kept
        plan = make_plan([h for h in taken if h not in self._ended], settings)
        write_plan(plan, path)
        return plan

    def _finish(self, ledger: Ledger, instance: Instance, made: Made, redo: dict[str, str]) -> None:
        suffix = SUFFIX_OF[instance.format]
        staged, place = self.places.staged(instance.name, suffix), self.places.released(instance.name, suffix)
        if instance.handle in redo:
            if made.sha256 != redo[instance.handle]:  # its checks are those of its line, whoever was overruled
                raise _lost()
            del redo[instance.handle]
            move(staged, place)
            return
        if instance.handle in self._ended:  # its unit was made again for another's sake
            staged.unlink(missing_ok=True)
            return
        scores = {name: [round(x, _DIGITS) for x in pair] for name, pair in made.decision.scores.items()}
        body: dict[str, Any] = {"handle": instance.handle, "scores": scores}
        if made.sha256:
            body |= {"file": str(place.relative_to(self.places.output)), "sha256": made.sha256}
        if made.decision.released:
            waits = self.workshop.policy.batch.attack == "require"
            self._end(ledger, body | {"state": "waiting" if waits else "released"})
            if waits:
                move(staged, self.places.waiting(instance.name, suffix), 0o600)
            else:
                move(staged, place)
            return
        self._end(ledger, body | {"state": "held", "codes": list(made.decision.codes)})
        if staged.is_file():
            move(staged, self.places.held(instance.name, suffix), 0o600)

    def _attack(self, ledger: Ledger, instances: dict[str, Instance]) -> None:
        """The attack on the whole release, where the policy asks for it; then what waited for it has its end."""
        batch = self.workshop.parts.batch
        if batch is None:
            return
        judged = {
            handle: body
            for handle, body in sorted(self._ended.items())
            if body["state"] in ("released", "waiting") or BY_ATTACK in body.get("codes", ())
        }
        facts = sorted((handle, body["sha256"]) for handle, body in judged.items())
        of = hashlib.sha256(json.dumps([self._settings(), facts]).encode()).hexdigest()
        before = [entry.body for entry in ledger if entry.kind == "batch" and entry.body["of"] == of]
        if not before:
            there = [h for h, body in judged.items() if body["state"] != "held" and h in instances]
            images = [self._with_release(instances[h], judged[h]) for h in there]
            found = batch(images, lambda done, total: self._tell("attacking", done, total))
            before = [ledger.append("batch", found | {"of": of}).body]
        for body in [body for body in judged.values() if body["state"] == "waiting"]:
            name = Path(body["file"])
            waiting = self.places.waiting(*stem_and_suffix(name))
            if before[-1]["passed"]:
                self._end(ledger, body | {"state": "released"})
                move(waiting, self.places.output / name)
            else:
                self._end(ledger, body | {"state": "held", "codes": [BY_ATTACK]})
                move(waiting, self.places.held(*stem_and_suffix(name)), 0o600)

    def _with_release(self, instance: Instance, body: Mapping[str, Any]) -> ReleasedImage:
        """A new image beside its source, as an attacker sees both."""
        source, name = self._with_image(instance.handle), Path(body["file"])
        place = self.places.waiting(*stem_and_suffix(name)) if body["state"] == "waiting" else self.places.output / name
        levels = self.workshop.decoder.decode(place.read_bytes()).levels
        assert source.image is not None
        new = model_image(levels, self.workshop.parts.redraw.image_size).astype(np.float32)
        return ReleasedImage(instance.handle, instance.patient, instance.known, source.image, new)

    def _end(self, ledger: Ledger, body: dict[str, Any]) -> None:
        ledger.append("instance", body)
        if body["handle"] in self._ended:
            self.progress.ends[self._ended[body["handle"]]["state"]] -= 1
        self._ended[body["handle"]] = body
        self.progress.ends[body["state"]] += 1

    def _complete(self, ledger: Ledger) -> Outcome:
        codes = Counter(code for body in self._ended.values() for code in body.get("codes", ()))
        counts = {state: self.progress.ends[state] for state in ("released", "held", "rejected")}
        last = ledger.entries[-1] if ledger.entries else None
        if last is None or last.kind != "complete" or last.body != counts:
            ledger.append("complete", counts)
        for left in (self.places.work / "staged").iterdir():
            left.unlink()
        self._tell("done", self.progress.total, self.progress.total)
        return Outcome(counts, dict(sorted(codes.items())), ledger.head)

    def _tell(self, stage: str, done: int, total: int) -> None:
        self.progress.stage, self.progress.done, self.progress.total = stage, done, total
        self._watch(self.progress)


def _lost() -> IntegrityError:
    return IntegrityError(
        "GM-W305",
        "a released file is lost, and does not come out the same again",
        next_step="put it back, or make the release anew in another folder",
    )
