"""Survey: what is in a folder and what would become of it, before anything is written."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import Float32

from gmia_monai.dicom.decode import Decoded
from gmia_monai.dicom.decoder import Decoder, read_file
from gmia_monai.dicom.tag_actions import TagAction, tag_actions
from gmia_monai.errors import InputError
from gmia_monai.release.instance import Instance
from gmia_monai.release.intake import admit
from gmia_monai.release.parts import Redrawing
from gmia_monai.release.pixels import bytes_written
from gmia_monai.release.policy import Intake

__all__ = ["Found", "Survey", "look_at", "seconds_each", "survey_with"]


@dataclass(frozen=True)
class Found:
    """One file.

    Attributes:
        path: relative to the input; it may name a patient, so that it is shown where somebody asks for it alone.
        state: ``taken``, ``held`` or ``rejected``.
        codes: why it is not taken.
        kind: of its image, as ``CR``, ``png``; empty where nothing could be read.
        view, body_part: of the header.
        rows, columns, bits: 0 where nothing could be read.
    """

    path: str = field(repr=False)
    state: str
    codes: tuple[str, ...] = ()
    kind: str = ""
    view: str = ""
    body_part: str = ""
    rows: int = 0
    columns: int = 0
    bits: int = 0

    @property
    def bytes_released(self) -> int:
        """What a release of it takes on the disk, about."""
        return bytes_written(self.rows, self.columns, self.bits) if self.state == "taken" else 0


@dataclass
class Survey:
    """All files of a folder.

    Attributes:
        files: one after another.
        patients: how many there are, as far as headers say.
        studies: likewise.
        tags: what would be done with each element, and in how many files it is.
    """

    files: list[Found] = field(default_factory=list)
    patients: int = 0
    studies: int = 0
    tags: dict[TagAction, int] = field(default_factory=dict)

    def count(self, name: str) -> dict[str, int]:
        """How many files there are of each value of an attribute of :class:`Found`, largest number first."""
        return dict(Counter(str(getattr(file, name)) for file in self.files if file.kind).most_common())

    @property
    def states(self) -> dict[str, int]:
        """How many files would be taken, held, rejected."""
        counts = Counter(file.state for file in self.files)
        return {state: counts[state] for state in ("taken", "held", "rejected")}

    @property
    def codes(self) -> dict[str, int]:
        """How many files there are of each reason."""
        return dict(sorted(Counter(code for file in self.files for code in file.codes).items()))

    @property
    def bytes_released(self) -> int:
        """Disk that a release takes at most, about."""
        return sum(file.bytes_released for file in self.files)


def look_at(source: Path, path: str, intake: Intake, decoder: Decoder) -> tuple[Found, Decoded | None]:
    """One file by its header alone: without networks, keys and a search for text."""
    decoded = None
    try:
        raw, _ = read_file(source / path, intake.max_file_mib << 20)
        decoded = decoder.decode(raw)
        held = tuple(admit(decoded, intake))
        return _found(path, "held" if held else "taken", held, decoded), decoded
    except InputError as error:
        return _found(path, "rejected", (error.code,), decoded), decoded


def survey_with(
    paths: Iterable[str],
    look: Callable[[str], tuple[Instance | Found, Decoded | None]],
    watch: Callable[[Found], None] = lambda found: None,
) -> Survey:
    """Looks at files, one after another.

    Args:
        paths: relative to the input.
        look: gives what is known of each: :meth:`gmia_monai.release.workshop.Workshop.examine`, or :func:`look_at`.
        watch: is told of each file.
    """
    found, patients, studies, tags = Survey(), set(), set(), Counter[TagAction]()
    for path in paths:
        one, decoded = look(path)
        file = one if isinstance(one, Found) else _found(path, one.state, one.codes, decoded)
        found.files.append(file)
        header = None if decoded is None else decoded.header
        if header is not None:
            patients.add(header.patient)
            studies.add(header.study)
        if isinstance(one, Instance) and one.header is not None and decoded is not None:
            tags.update(tag_actions(decoded.elements, one.dataset()))
        watch(file)
    found.patients, found.studies = len(patients), len(studies)
    found.tags = dict(sorted(tags.items(), key=lambda item: (item[0].tag, item[0].action)))
    return found


def seconds_each(redraw: Redrawing, images: Sequence[Float32[np.ndarray, "s s"]]) -> float:
    """How long a new image takes on this machine, tried on a few; 0 without images."""
    if not images:
        return 0.0
    names, began = [f"{i:016x}" for i in range(len(images))], time.monotonic()
    redraw(np.stack(images), [{}] * len(images), names, names, 0)
    return (time.monotonic() - began) / len(images)


def _found(path: str, state: str, codes: tuple[str, ...], decoded: Decoded | None) -> Found:
    if decoded is None:
        return Found(path, state, codes)
    header = decoded.header
    kind, view, part = (header.kind, header.view, header.body_part) if header else (decoded.format, "", "")
    rows, columns = decoded.levels.shape
    return Found(path, state, codes, kind, view, part, rows, columns, decoded.bits)
