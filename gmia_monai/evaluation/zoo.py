"""Systems from entries of a config: a name of :data:`gmia_monai.anonymizers.ANONYMIZERS`, settings, and what of it the
benchmark asks for."""

from __future__ import annotations

import inspect
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gmia_monai.anonymizers import ANONYMIZERS
from gmia_monai.anonymizers.base import Anonymizer
from gmia_monai.data.release import RealImages
from gmia_monai.errors import UsageError
from gmia_monai.inferers import computes_bfloat16
from gmia_monai.typing import PathLike
from gmia_monai.weights import read_index

__all__ = ["SystemEntry", "build_system", "is_built_in", "missing_weights", "read_entries", "resolved_settings"]

Images = Callable[[], RealImages]
"""Gives images, which are read when somebody asks."""

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")  # it becomes the name of a folder and of a file
_KINDS = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
_OF_SUITE = {"n_members", "utility_seeds"}
_GIVEN_HERE = ("models_dir", "device", "training", "other_people")
_WITHOUT_MODELS = "no_weights"  # a folder that nobody has: what needs weights says so by its own coded error


@dataclass(frozen=True)
class SystemEntry:
    """One system of the config.

    Attributes:
        id: names the folder of the system's results and its file of lines.
        name: a key of :data:`gmia_monai.anonymizers.ANONYMIZERS`.
        settings: of the system; ``auto`` for ``bfloat16`` and ``compiled``: where the machine can.
        attacks: the only attacks that are made on it, ``cost`` among them; None: all.
        max_images: images a patient in the lists that it is judged on; None: the benchmark's.
        suite: ``n_members`` and ``utility_seeds`` of its own.
        needs: recorded weights that it cannot do without.
    """

    id: str
    name: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    attacks: tuple[str, ...] | None = None
    max_images: int | None = None
    needs: tuple[str, ...] = ()
    suite: Mapping[str, Any] = field(default_factory=dict)


def read_entries(
    systems: Mapping[str, Any], only: Sequence[str] | None = None, strict: bool = True
) -> dict[str, SystemEntry]:
    """Entries by id, in the order of the config.

    Args:
        systems: id -> ``name``, and where wanted ``attacks``, ``max_images``, ``needs``, ``suite``; all else are
            settings.
        only: ids, or a single one; None: all.
        strict: refuse names that there are no classes for, and settings that a class does not take.

    Raises:
        UsageError: ``GM-U380`` an id that no entry has, ``GM-U381`` a name without a class, ``GM-U382`` an entry that
            cannot be used.
    """
    wanted = list(systems) if only is None else [only] if isinstance(only, str) else list(only)
    unknown = [system for system in wanted if system not in systems]
    if unknown or not wanted:
        raise UsageError(
            "GM-U380", "unknown system", got=", ".join(unknown) or "none", expected=", ".join(systems) or "an entry"
        )
    entries = {system: _entry(system, systems[system]) for system in systems if system in wanted}
    for entry in entries.values() if strict else ():
        _check(entry)
    return entries


def _entry(system: str, given: Any) -> SystemEntry:
    if not _ID.fullmatch(system):
        raise _unusable(system, "its id", "letters, digits, dots, underscores and hyphens")
    if not isinstance(given, Mapping) or not isinstance(given.get("name"), str):
        raise _unusable(system, "no name", "name: one of " + ", ".join(ANONYMIZERS))
    rest = dict(given)
    name, attacks, most = rest.pop("name"), rest.pop("attacks", None), rest.pop("max_images", None)
    needs, suite = rest.pop("needs", None) or (), rest.pop("suite", None) or {}
    for key, found in (("attacks", attacks or ()), ("needs", needs)):
        if not isinstance(found, list | tuple) or not all(isinstance(text, str) for text in found):
            raise _unusable(system, key, "a list of names")
    if most is not None and (isinstance(most, bool) or not isinstance(most, int) or most < 1):
        raise _unusable(system, "max_images", "1 or more")
    if not isinstance(suite, Mapping) or not suite.keys() <= _OF_SUITE:
        raise _unusable(system, "suite", "settings among " + ", ".join(sorted(_OF_SUITE)))
    return SystemEntry(system, name, rest, None if attacks is None else tuple(attacks), most, tuple(needs), suite)


def is_built_in(entry: SystemEntry) -> bool:
    """Whether there is a class of the entry's name."""
    return entry.name in ANONYMIZERS


def _check(entry: SystemEntry) -> None:
    if not is_built_in(entry):
        raise UsageError(
            "GM-U381",
            f"no system of that name, for {entry.id}",
            got=entry.name,
            expected=", ".join(ANONYMIZERS),
            next_step="leave it out with --only, or correct its name",
        )
    taken, whatever = _parameters(ANONYMIZERS[entry.name])
    strange = [] if whatever else sorted(set(entry.settings) - (taken - set(_GIVEN_HERE)))
    if strange:
        raise _unusable(entry.id, ", ".join(strange), "settings of its own: " + ", ".join(sorted(taken)))


def _unusable(system: str, got: str, expected: str) -> UsageError:
    return UsageError("GM-U382", f"the entry of system {system} cannot be used", got=got, expected=expected)


def _parameters(maker: type) -> tuple[set[str], bool]:
    """Names that a system is made from, and whether others go through to something else."""
    by_weights = getattr(maker, "from_weights", None)
    first = inspect.signature(maker if by_weights is None else by_weights).parameters.values()
    taken = {p.name for p in first if p.kind in _KINDS}
    through = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in first)
    if through and by_weights is not None:
        inner = inspect.signature(maker).parameters.values()
        taken |= {p.name for p in inner if p.kind in _KINDS}
        through = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in inner)
    return taken, through


def resolved_settings(entry: SystemEntry, device: str = "cpu") -> dict[str, Any]:
    """The settings with ``auto`` replaced: ``bfloat16`` where the device multiplies in it, ``compiled`` on a CPU with a
    C++ compiler."""
    able = {
        "bfloat16": lambda: computes_bfloat16(device),
        "compiled": lambda: device == "cpu" and shutil.which("g++") is not None,
    }
    return {
        key: able[key]() if value == "auto" and key in able else _plain(value) for key, value in entry.settings.items()
    }


def _plain(value: Any) -> Any:
    """Lists and mappings as JSON has them, whatever class a config parser gave them: fingerprints rest on them."""
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, list | tuple) else value


def missing_weights(entry: SystemEntry, models_dir: PathLike | None) -> list[str]:
    """Names of weights that the entry needs and a folder does not have on record; None is a folder without any.

    Raises:
        IntegrityError: ``GM-W005`` for an index that cannot be read.
    """
    recorded = {} if models_dir is None else read_index(models_dir)
    return [name for name in entry.needs if name not in recorded]


def build_system(
    entry: SystemEntry,
    models_dir: PathLike | None,
    device: str = "cpu",
    training: Images | None = None,
    other_people: Images | None = None,
) -> Anonymizer:
    """The system of an entry: by ``from_weights`` where its class has that, else by its constructor.

    ``device``, ``training`` and ``other_people`` are passed where the class takes arguments of these names.

    Args:
        entry: as :func:`read_entries` gives it.
        models_dir: folder of recorded weights; None: there are none.
        device: where networks run.
        training: gives the images that systems learn from, e.g. for a privacy filter.
        other_people: gives images of other people, by whom e.g. its threshold is chosen.

    Raises:
        UsageError: ``GM-U381``, ``GM-U382`` as :func:`read_entries`; whatever the system refuses.
        IntegrityError: ``GM-W001`` for weights that are not recorded, and others of the loader.
    """
    _check(entry)
    maker = ANONYMIZERS[entry.name]
    taken, _ = _parameters(maker)
    settings = resolved_settings(entry, device)
    if "device" in taken:
        settings["device"] = device
    for key, images in (("training", training), ("other_people", other_people)):
        if key in taken and images is not None:
            settings[key] = images
    by_weights: Callable[..., Anonymizer] | None = getattr(maker, "from_weights", None)
    if by_weights is None:
        return maker(**settings)
    return by_weights(Path(_WITHOUT_MODELS if models_dir is None else models_dir), **settings)
