"""Tables of text: rows with the number an editor shows; problems are told together, never with a cell's value."""

from __future__ import annotations

import csv
import gzip
from collections.abc import Iterator, Sequence
from pathlib import Path
from zlib import error as ZlibError

from gmia_monai.errors import ManifestError

__all__ = ["MAX_PROBLEMS", "Problems", "read_columns", "read_table"]

MAX_PROBLEMS = 20


class Problems:
    """Collects problems of one file and raises them as one :class:`ManifestError`.

    Args:
        path: the table; its name is told, its folder is not.
    """

    def __init__(self, path: Path) -> None:
        self._name = path.name
        self._found: list[tuple[str, str]] = []
        self._count = 0

    def add(self, code: str, what: str, row: int | None = None, column: str | None = None) -> None:
        """Note one problem; the first :data:`MAX_PROBLEMS` are told, all are counted."""
        self._count += 1
        if len(self._found) < MAX_PROBLEMS:
            place = [f"row {row}"] if row is not None else []
            place += [f"column {column}"] if column is not None else []
            self._found.append((code, f"{', '.join(place)}: {what}" if place else what))

    def raise_if_any(self, next_step: str | None = None) -> None:
        """Raise what was collected under the code of the first problem.

        Raises:
            ManifestError: at least one problem was added.
        """
        if not self._count:
            return
        told = [f"{self._name}: {text} [{code}]" for code, text in self._found]
        if self._count > len(told):
            told.append(f"and {self._count - len(told)} more")
        raise ManifestError(
            self._found[0][0],
            f"{self._count} problem{'s' * (self._count > 1)} in {self._name}\n  " + "\n  ".join(told),
            next_step=next_step,
        )


def read_table(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Rows of a comma-separated table in UTF-8 (with or without BOM), gzipped if its name ends in ``.gz``.

    Yields:
        (number of the row's first line, cells without surrounding blanks); blank lines are left out. First the header.

    Raises:
        ManifestError: ``GM-M003`` absent, ``GM-M004`` empty, ``GM-M005`` not UTF-8, ``GM-M006`` not CSV.
    """
    opener = gzip.open if path.suffix == ".gz" else open
    if not path.is_file():
        raise ManifestError("GM-M003", f"{path.name} is not a file", next_step="check the path")
    empty = True
    try:
        with opener(path, "rt", encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            line = 1
            for cells in reader:
                if any(cell.strip() for cell in cells):
                    empty = False
                    yield line, [cell.strip() for cell in cells]
                line = reader.line_num + 1
    except UnicodeDecodeError:
        raise ManifestError(
            "GM-M005", f"{path.name} is not text in UTF-8", next_step="save it as CSV with the encoding UTF-8"
        ) from None
    except (csv.Error, EOFError, gzip.BadGzipFile, ZlibError) as error:
        raise ManifestError("GM-M006", f"{path.name} is not a readable CSV", got=type(error).__name__) from None
    if empty:
        raise ManifestError("GM-M004", f"{path.name} is empty", expected="a header and a row an image")


def read_columns(path: Path, required: Sequence[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """Rows of a published table as dictionaries; columns that are not needed, and ragged ends, are let be.

    Yields:
        (row number, column -> cell, empty where the row is short).

    Raises:
        ManifestError: as :func:`read_table`, or ``GM-M010`` if a required column is missing.
    """
    rows = read_table(path)
    _, header = next(rows)
    missing = [name for name in required if name not in header]
    if missing:
        raise ManifestError("GM-M010", f"{path.name} lacks columns", got=f"no {', '.join(missing)}", expected=required)
    for number, cells in rows:
        yield number, dict(zip(header, cells + [""] * (len(header) - len(cells)), strict=False))
