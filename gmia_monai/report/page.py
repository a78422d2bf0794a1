"""The command line that turns result lines into a page."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from gmia_monai.errors import GmiaError
from gmia_monai.metrics.results import Result, read_results

__all__ = ["renew_page", "write_page"]


def write_page(
    module: str,
    description: str | None,
    render: Callable[[Sequence[Result], str], str],
    arguments: Sequence[str] | None = None,
) -> int:
    """As :func:`renew_page`, for a page that is generated as a whole, by ``render`` from the lines and the command."""
    return renew_page(module, description, lambda old, results, command: render(results, command), arguments)


def renew_page(
    module: str,
    description: str | None,
    render: Callable[[str, Sequence[Result], str], str],
    arguments: Sequence[str] | None = None,
) -> int:
    """Reads result lines, writes the page (temporary file, then rename); returns the exit code.

    Args:
        module: what stands behind ``python -m``.
        description: for the help text.
        render: makes the page of what stands there (empty where there is none), of the lines and of the command.
        arguments: of the command line; None: those of the process.
    """
    from gmia_monai.dicom.atomic import atomic_path  # its room loads Pillow

    parser = argparse.ArgumentParser(prog=f"python -m {module}", description=description)
    parser.add_argument("results", type=Path, help="a .jsonl file or a folder of them")
    parser.add_argument("output", type=Path, help="the Markdown page to write")
    options = parser.parse_args(arguments)
    try:
        results = read_results(options.results)
        old = options.output.read_text(encoding="utf-8") if options.output.is_file() else ""
        command = f"python -m {module} {options.results.as_posix()} {options.output.as_posix()}"
        text = render(old, results, command)
    except GmiaError as error:
        sys.stderr.write(f"{error}\n")
        return int(error.exit_code)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(options.output) as temporary:
        temporary.write_text(text, encoding="utf-8")
    sys.stdout.write(f"{options.output.name}: {len(results)} results\n")
    return 0
