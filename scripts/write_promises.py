"""Writes the table of promises into a page, from the lines that `make promises` leaves.

The table stands between two marks; without a failure in n trials the true rate is below 3 / n with 95 % confidence.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

BEGIN, END = "<!-- promises: begin -->", "<!-- promises: end -->"


def table(lines: list[dict[str, object]]) -> str:
    """A row for each promise, the last line of it."""
    rows = ["| promise | tried | failures | rate below | |", "| --- | ---: | ---: | ---: | --- |"]
    for line in {str(line["promise"]): line for line in lines}.values():
        tried, failures = int(str(line["tried"])), int(str(line["failures"]))
        bound = f"{300 / tried:.2g} %" if not failures else "–"
        note = str(line["note"]) + ("" if line["full"] else " (fast size)")
        rows.append(f"| {line['promise']} | {tried:,} | {failures} | {bound} | {note.strip()} |")
    return "\n".join(rows)


def main(arguments: list[str] | None = None) -> int:
    """Writes; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("lines", type=Path, help="lines of JSON, from GMIA_PROMISES_LINES")
    parser.add_argument("page", type=Path, help="Markdown page with the two marks")
    options = parser.parse_args(arguments)
    try:
        lines = [json.loads(line) for line in options.lines.read_text(encoding="utf-8").splitlines() if line]
        page = options.page.read_text(encoding="utf-8")
        before, rest = page.split(BEGIN)
        _, after = rest.split(END)
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    options.page.write_text(f"{before}{BEGIN}\n{table(lines)}\n{END}{after}", encoding="utf-8")
    print(f"{options.page}: {len(lines)} lines")
    return 0


if __name__ == "__main__":
    sys.exit(main())
