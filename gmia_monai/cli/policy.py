"""``gmia policy``: what can be set, and what it means."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gmia_monai.release.policy import explain_policy, load_policy

__all__ = ["policy_app"]

policy_app = typer.Typer(no_args_is_help=True, help="The policy of a release: what may leave, how, after which checks.")


@policy_app.command("explain")
def explain(
    setting: Annotated[str, typer.Argument(help="A setting, or a part as `checks`; all by default.")] = "",
) -> None:
    """Print every setting of a policy with its default and its meaning."""
    shown = [row for row in explain_policy() if not setting or row[0] == setting or row[0].startswith(f"{setting}.")]
    if not shown:
        names = ", ".join(dict.fromkeys(name.partition(".")[0] for name, _, _ in explain_policy()))
        raise typer.BadParameter(f"no setting of that name; the parts are {names}")
    for name, default, meaning in shown:
        typer.echo(f"{name} = {default}\n    {meaning}")


@policy_app.command("check")
def check(path: Annotated[Path, typer.Argument(help="A policy file, YAML or JSON.")]) -> None:
    """Check a policy file; prints its hash, which ledger and report name it by."""
    typer.echo(f"{path.name}: good, sha256 {load_policy(path).sha256}")
