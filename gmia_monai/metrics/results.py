"""A result is one JSON line; tables and figures are generated from such lines, never typed.

The identity of a line is (name, system, profile, negatives, attacker, seed): a newer line replaces the older one.
A setting that distinguishes two runs of one system (a margin, say) belongs in ``system``, e.g. ``gmia m=-0.5``.
"""

from __future__ import annotations

import json
import math
import os
import re
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from gmia_monai.errors import IntegrityError, UsageError
from gmia_monai.metrics.differences import Replicates
from gmia_monai.metrics.limits import Interval
from gmia_monai.typing import PathLike

__all__ = ["Result", "RunContext", "append_results", "read_results"]

NAME_PATTERN = re.compile(r"[a-z][a-z0-9_]*(\.[A-Za-z0-9][A-Za-z0-9_]*)*\.v[1-9][0-9]*")
_NUMBERS = ("value", "low", "high")
_NEGATIVES = (None, "random", "matched", "balanced")
_HASH_PATTERN = re.compile(r"[0-9a-f]{8,64}")


@dataclass(frozen=True)
class Result:
    """One measured figure.

    Attributes:
        name: what was measured, with the protocol's version, e.g. ``verification_auc.T1.frozen.v1``.
        value: the figure; ``None`` where it could not be measured (``extra["reason"]`` says why).
        low: lower limit of the 95 % interval, or ``None``.
        high: upper limit of the 95 % interval, or ``None``.
        n_patients: patients behind the figure; ``None`` where patients are unknown.
        n_images: images behind the figure.
        system: what was judged, e.g. ``unchanged``, ``ae_gan``, ``gmia m=-0.5``.
        profile: training profile, e.g. ``cxr64``.
        negatives: how negative pairs were drawn: ``random``, ``matched``, ``balanced``, or ``None`` without pairs.
        attacker: who scored the pairs, a name of the protocol, or ``None``.
        seed: seed of the system or of the pairs.
        release_hash: hash of the release or of the weights judged, hexadecimal, or ``None``.
        config_hash: hash of the configuration, hexadecimal, or ``None``.
        command: the command that makes the figure again.
        extra: further values that JSON can hold.

    Raises:
        UsageError: GM-U251 for a field that is not as described.
    """

    name: str
    value: float | None
    low: float | None
    high: float | None
    n_patients: int | None
    n_images: int
    system: str
    profile: str
    negatives: str | None = None
    attacker: str | None = None
    seed: int = 0
    release_hash: str | None = None
    config_hash: str | None = None
    command: str = ""
    extra: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check(vars(self))
        for key in _NUMBERS:
            if getattr(self, key) is not None:
                object.__setattr__(self, key, float(getattr(self, key)))

    @property
    def identity(self) -> tuple[object, ...]:
        """What makes two lines the same figure."""
        return (self.name, self.system, self.profile, self.negatives, self.attacker, self.seed)

    def to_json(self) -> str:
        """One line of JSON, keys in the order of the fields."""
        return json.dumps(asdict(self), allow_nan=False, ensure_ascii=False)

    @classmethod
    def from_json(cls, line: str) -> Result:
        """Read a line back.

        Raises:
            UsageError: GM-U251 for a malformed line.
        """
        try:
            record = json.loads(line, parse_constant=_refuse_constant)
        except ValueError as error:
            raise _bad("line", "one JSON object") from error
        known = {entry.name for entry in fields(cls)}
        if not isinstance(record, dict) or set(record) != known:
            raise _bad("line", "exactly the fields " + ", ".join(sorted(known)))
        _check(record)
        return cls(**record | {key: float(record[key]) for key in _NUMBERS if record[key] is not None})


@dataclass(frozen=True)
class RunContext:
    """What all figures of one evaluation share; makes `Result`\\ s.

    Attributes:
        suite_version: what the figures mean, for ``extra``: lines of several versions must not be read together; None
            for figures that are not of the suite.
        keep: takes a line and what its interval was made of, where somebody keeps that; None: nobody does.
    """

    system: str
    profile: str
    seed: int = 0
    release_hash: str | None = None
    config_hash: str | None = None
    command: str = ""
    suite_version: int | None = None
    keep: Callable[[Result, Replicates], None] | None = field(default=None, compare=False, repr=False)

    def result(
        self,
        name: str,
        value: Interval | float,
        *,
        n_patients: int | None,
        n_images: int,
        system: str | None = None,
        negatives: str | None = None,
        attacker: str | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> Result:
        """A result of this run; values and limits that are not finite become ``None`` with a reason in ``extra``."""
        interval = value if isinstance(value, Interval) else Interval(float(value), math.nan, math.nan)
        extra = dict(extra or {})
        if self.suite_version is not None:
            extra["suite_version"] = self.suite_version
        if not math.isfinite(interval.value):
            extra.setdefault("reason", "infinite" if math.isinf(interval.value) else "not measurable")
        shown = [round(float(number), 6) if math.isfinite(number) else None for number in interval]
        return Result(
            name,
            *shown,
            n_patients=n_patients,
            n_images=n_images,
            system=system or self.system,
            profile=self.profile,
            negatives=negatives,
            attacker=attacker,
            seed=self.seed,
            release_hash=self.release_hash,
            config_hash=self.config_hash,
            command=self.command,
            extra=extra,
        )


def append_results(
    path: PathLike, results: Iterable[Result], outdated: Callable[[Result], bool] = lambda line: False
) -> None:
    """Write results into a JSON-lines file, each replacing an older line of the same identity.

    The file is written beside its place and moved there, so that a crash leaves the old one.

    Args:
        path: the file; made where absent.
        results: lines to write.
        outdated: older lines that do not stay.
    """
    path = Path(path)
    older = read_results(path) if path.exists() else []
    merged = {result.identity: result for result in older if not outdated(result)}
    for result in results:
        merged[result.identity] = result
    text = "".join(result.to_json() + "\n" for result in merged.values())
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o644)  # mkstemp makes it private; results are meant to be read
        os.replace(temporary, path)  # noqa: PTH105
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def read_results(path: PathLike) -> list[Result]:
    """Results of a JSON-lines file, or of all ``*.jsonl`` files of a folder in the order of their names.

    Raises:
        UsageError: GM-U252 where nothing is at ``path``.
        IntegrityError: GM-W251 for a malformed line, with file and line number.
    """
    path = Path(path)
    if not path.exists():
        raise UsageError("GM-U252", "no results there", got=path.name, expected="a .jsonl file or a folder of them")
    results = []
    for file in sorted(path.glob("*.jsonl")) if path.is_dir() else [path]:
        for number, line in enumerate(file.read_text(encoding="utf-8").split("\n"), start=1):
            if not line.strip():
                continue
            try:
                results.append(Result.from_json(line))
            except UsageError as error:
                raise IntegrityError(
                    "GM-W251", f"malformed result in {file.name}, line {number}: {error.what}", expected=error.expected
                ) from error
    return results


def _check(record: Mapping[str, Any]) -> None:
    """Refuse fields that are not as `Result` describes them."""
    if not isinstance(record["name"], str) or not NAME_PATTERN.fullmatch(record["name"]):
        raise _bad("name", "words joined by dots, ending in .v1, e.g. verification_auc.T1.frozen.v1")
    for key in _NUMBERS:
        number = record[key]
        if number is not None and (isinstance(number, bool) or not isinstance(number, float | int)):
            raise _bad(key, "a number or null")
        if number is not None and not math.isfinite(number):
            raise _bad(key, "a finite number or null")
    for key in ("n_patients", "n_images", "seed"):
        number = record[key]
        if number is None and key == "n_patients":
            continue
        if isinstance(number, bool) or not isinstance(number, int) or (key != "seed" and number < 0):
            raise _bad(key, "a whole number")
    if record["low"] is not None and record["high"] is not None and record["low"] > record["high"]:
        raise _bad("low, high", "low <= high")
    if record["negatives"] not in _NEGATIVES:
        raise _bad("negatives", "random, matched, balanced or null")
    for key in ("release_hash", "config_hash"):
        text = record[key]
        if text is not None and not (isinstance(text, str) and _HASH_PATTERN.fullmatch(text)):
            raise _bad(key, "8 to 64 hexadecimal digits or null")
    for key in ("system", "profile", "command"):
        text = record[key]
        if not isinstance(text, str) or "\n" in text or (key != "command" and not text):
            raise _bad(key, "one line of text")
    if record["attacker"] is not None and not isinstance(record["attacker"], str):
        raise _bad("attacker", "text or null")
    if not isinstance(record["extra"], dict):
        raise _bad("extra", "an object")


def _bad(key: str, expected: str) -> UsageError:
    return UsageError("GM-U251", f"result with an unusable {key}", expected=expected)


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")
