"""The ``gmia`` command."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

import gmia_monai
from gmia_monai.dicom.pseudonyms import create_key
from gmia_monai.errors import GmiaError

__all__ = ["app", "main"]

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Anonymization of chest radiographs.")
key_app = typer.Typer(no_args_is_help=True, help="Project keys, from which pseudonyms are made.")
app.add_typer(key_app, name="key")


@app.callback(invoke_without_command=True)
def _version(version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False) -> None:
    if version:
        typer.echo(f"gmia_monai {gmia_monai.__version__}")
        raise typer.Exit


@key_app.command("new")
def key_new(
    path: Annotated[Path, typer.Argument(help="File to make; an existing one is never overwritten.")] = Path(
        "project.key"
    ),
) -> None:
    """Make a project key: 32 random bytes, readable by you only (mode 0600).

    Handles in the output are keyed hashes: whoever has the key and the names of the sources can link the two.
    """
    typer.echo(f"{create_key(path)}: new project key; keep it secret, and keep a copy where the project's data is kept")


def main() -> None:
    """Entry point: coded errors become one line and their exit code."""
    try:
        app()
    except GmiaError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(int(error.exit_code))


if __name__ == "__main__":
    main()
