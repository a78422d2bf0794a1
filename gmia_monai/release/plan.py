"""The plan of a run: which images are worked on together, fixed before the work begins.

Networks round otherwise in other company, so the same images have to stand in the same units whatever was interrupted
and however many workers there are: units are cut from all images of a run, in the order of their handles, and the plan
is kept until every instance of it has an end.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gmia_monai.dicom.atomic import atomic_path
from gmia_monai.errors import IntegrityError
from gmia_monai.typing import PathLike

__all__ = ["UNIT_SIZE", "Plan", "make_plan", "read_plan", "write_plan"]

UNIT_SIZE = 16


@dataclass(frozen=True)
class Plan:
    """Units of handles.

    Attributes:
        units: handles of the images that are worked on together.
        settings: hash of policy, system and key: a plan of other settings is none of this run.
    """

    units: tuple[tuple[str, ...], ...]
    settings: str

    @property
    def sha256(self) -> str:
        """Of units and settings: names the plan in the ledger."""
        return hashlib.sha256(json.dumps([self.units, self.settings]).encode()).hexdigest()

    def open_units(self, ended: set[str]) -> list[tuple[str, ...]]:
        """Units of which an image has no end yet."""
        return [unit for unit in self.units if not ended.issuperset(unit)]


def make_plan(handles: Sequence[str], settings: str, unit_size: int = UNIT_SIZE) -> Plan:
    """Units of images in the order of their handles.

    Args:
        handles: of the images that were taken.
        settings: see :class:`Plan`.
        unit_size: images a unit.
    """
    ordered = sorted(set(handles))
    units = (tuple(ordered[i : i + unit_size]) for i in range(0, len(ordered), unit_size))
    return Plan(tuple(units), settings)


def write_plan(plan: Plan, path: PathLike) -> None:
    """Keeps a plan, whole or not at all."""
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps({"settings": plan.settings, "units": plan.units}) + "\n", encoding="ascii")


def read_plan(path: PathLike) -> Plan | None:
    """The plan that was kept; None where there is none.

    Raises:
        IntegrityError: ``GM-W302`` for a file that is no plan.
    """
    path = Path(path)
    if not path.is_file():
        return None
    try:
        found = json.loads(path.read_text(encoding="ascii"))
        units = tuple(tuple(str(handle) for handle in unit) for unit in found["units"])
        return Plan(units, str(found["settings"]))
    except (ValueError, TypeError, KeyError, RecursionError):
        raise IntegrityError(
            "GM-W302", "the plan of an earlier run is damaged", next_step="make the release anew in another folder"
        ) from None
