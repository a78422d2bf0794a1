"""Recovery: where the file of an end belongs, and how it gets there after an interruption.

A line of the ledger comes before the move that it speaks of. Whoever opens the release next, the runner or a review,
finishes the moves that were interrupted.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gmia_monai.dicom.hashing import sha256_of
from gmia_monai.errors import IntegrityError
from gmia_monai.release.moves import move, stem_and_suffix
from gmia_monai.release.places import Places

__all__ = ["place_of", "put_right"]

_VISIBLE, _PRIVATE = 0o644, 0o600


def place_of(places: Places, body: Mapping[str, Any]) -> Path | None:
    """Where the new image of an instance belongs, by its last line; None where none was made.

    Args:
        places: folders of the release.
        body: of the line.
    """
    if "file" not in body or "sha256" not in body:
        return None
    name = Path(str(body["file"]))
    where = {"waiting": places.waiting, "held": places.held}.get(str(body.get("state")))
    if where is not None:
        return where(*stem_and_suffix(name))
    return places.output / name if body.get("state") == "released" else None


def put_right(places: Places, body: Mapping[str, Any]) -> bool:
    """Moves a file where its last line says, if an interruption kept it from there; whether it is there.

    Args:
        places: folders of the release.
        body: of the line.

    Raises:
        IntegrityError: ``GM-W304`` where another file stands in the place of a released or waiting one.
    """
    place = place_of(places, body)
    if place is None:
        return False
    if place.is_file() and not place.is_symlink():
        if body["state"] != "held" and sha256_of(place) != body["sha256"]:
            raise IntegrityError(
                "GM-W304",
                "a released file was changed" if body["state"] == "released" else "a file that waits was changed",
                got=str(body["file"]),
                next_step="find out by whom",
            )
        return True
    stem = stem_and_suffix(Path(str(body["file"])))
    for path in (places.staged(*stem), places.waiting(*stem), places.held(*stem), places.output / str(body["file"])):
        if path.is_file() and not path.is_symlink() and sha256_of(path) == body["sha256"]:
            move(path, place, _VISIBLE if body["state"] == "released" else _PRIVATE)
            return True
    return False
