"""The ``gmia`` command."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

import gmia_monai
from gmia_monai.cli.benchmark import benchmark
from gmia_monai.cli.doctor import doctor
from gmia_monai.cli.policy import policy_app
from gmia_monai.cli.release import anonymize, check, report, verify
from gmia_monai.cli.review import review
from gmia_monai.dicom.pseudonyms import create_key
from gmia_monai.errors import INTERRUPTED, ExitCode, GmiaError

__all__ = ["app", "main"]

app = typer.Typer(
    no_args_is_help=True, add_completion=False, help="Anonymize chest radiographs, and attack what is released."
)
key_app = typer.Typer(no_args_is_help=True, help="Project keys, from which pseudonyms are made.")
app.add_typer(key_app, name="key")
app.add_typer(policy_app, name="policy")
for command in (doctor, check, anonymize, verify, report, review, benchmark):
    app.command(command.__name__)(command)


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


@app.command("evaluate")
def evaluate(
    released: Annotated[Path, typer.Option(help="Folder of the released images.")],
    real: Annotated[Path | None, typer.Option(help="Manifest (CSV) of the real images, all roles.")] = None,
    dataset_dir: Annotated[Path | None, typer.Option(help="Folder of a data set, instead of a manifest.")] = None,
    links: Annotated[
        Path | None, typer.Option(help="Handle to source (CSV); by default RELEASED.links.csv where it exists.")
    ] = None,
    labels: Annotated[
        Path | None, typer.Option(help="Findings released with the images (CSV: handle, labels, with | between).")
    ] = None,
    output_dir: Annotated[Path, typer.Option(help="Folder for result lines.")] = Path("output/evaluation"),
    models_dir: Annotated[
        str, typer.Option(help="Weights of the system and of the trained attackers; none: go without.")
    ] = "bundle/models",
    system: Annotated[str, typer.Option(help="Name for the result lines; that of the folder if not given.")] = "",
    policy: Annotated[str, typer.Option(help="pseudonymous, unlinkable, k_anonymous, or nothing.")] = "",
    role_key: Annotated[
        str, typer.Option(help="Key of roles by hash, where the system was trained under one (cohort#role_key).")
    ] = "",
    image_size: Annotated[int, typer.Option(help="Side in pixels that attackers look at.", min=32)] = 64,
    profile: Annotated[
        str,
        typer.Option(help="quick or full: settings of the bundle's configs/profiles; options given here go before."),
    ] = "",
    label: Annotated[str, typer.Option(help="Profile in the result lines; cxr and the image size if not given.")] = "",
    attack: Annotated[list[str] | None, typer.Option(help="An attack; may be given again. All by default.")] = None,
    attackers: Annotated[
        list[str] | None, typer.Option(help="An attacker; may be given again. All that there are weights for.")
    ] = None,
    seeds: Annotated[int | None, typer.Option(help="Number of attacker seeds (3).", min=1)] = None,
    refit_steps: Annotated[int | None, typer.Option(help="Updates of each adaptive attacker (300).", min=1)] = None,
    train_steps: Annotated[
        int | None, typer.Option(help="Updates of attacks that train a network of their own; theirs by default.", min=1)
    ] = None,
    n_boot: Annotated[int | None, typer.Option(help="Bootstrap resamples of each interval (500).", min=2)] = None,
    n_members: Annotated[
        int | None, typer.Option(help="Released images of the system's training patients at most (3000).", min=0)
    ] = None,
    cache_dir: Annotated[
        Path | None, typer.Option(help="What classifiers said, best shared by all releases; in OUTPUT_DIR by default.")
    ] = None,
    show_images: Annotated[
        int,
        typer.Option(help="Patients whose real and released image the report shows, where they may be shown.", min=0),
    ] = 0,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
) -> None:
    """Attack a release: how much of the patients behind it can still be found?

    Attackers learn from releases of role A, are chosen on role V2 and scored on role T, so all three are needed.
    Lines of other attacks that an earlier run with the same settings left in OUTPUT_DIR are kept.
    """
    from gmia_monai.evaluation.command import Judgement, evaluate_release, spelled_command
    from gmia_monai.evaluation.options import judgement_settings, weights_folder
    from gmia_monai.report.cells import who
    from gmia_monai.report.evaluation import report_handlers

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    weights = weights_folder(models_dir)
    label = label or f"cxr{image_size}"
    given = {"n_boot": n_boot, "n_members": n_members, "train_steps": train_steps}
    settings = judgement_settings(profile, seeds, refit_steps, attacks=attack, attackers=attackers, **given)
    shown = (seeds, refit_steps, n_boot)
    if not profile:  # defaults can change; a profile stands for its settings
        shown = len(settings["seeds"]), settings["refit"]["steps"], settings["n_boot"]
    options: list[tuple[str, object]] = [
        *(("--real", real), ("--dataset-dir", dataset_dir), ("--released", released), ("--links", links)),
        *(("--labels", labels), ("--system", system), ("--policy", policy), ("--role-key", role_key)),
        ("--image-size", image_size),
        *(("--profile", profile), ("--label", label)),
        *(("--attack", name) for name in attack or ()),
        *(("--attackers", name) for name in attackers or ()),
        *zip(("--seeds", "--refit-steps", "--n-boot"), shown, strict=True),
        *(("--train-steps", train_steps), ("--n-members", n_members)),
        *((("--models-dir", models_dir),) if weights is None else ()),
    ]
    judgement = Judgement(
        models_dir=weights,
        profile=label,
        device=device,
        cache_dir=cache_dir,
        command=spelled_command("gmia evaluate", options),
        more_handlers=partial(report_handlers, n_shown=show_images),
        **settings,
    )
    with _resumable():
        results = evaluate_release(
            real,
            released,
            output_dir,
            judgement,
            dataset_dir=dataset_dir,
            links=links,
            system=system,
            policy=policy,
            image_size=image_size,
            labels=labels,
            role_key=role_key,
        )
    for result in results:
        if result.attacker == "worst" and result.value is not None:
            limits = "" if result.high is None else f" [{result.low:.3f}, {result.high:.3f}]"
            negatives = f" ({result.negatives})" if result.negatives else ""
            typer.echo(f"{result.name}{negatives}: {result.value:.3f}{limits}, {who(result)}")
    typer.echo(f"{output_dir / 'results.jsonl'}: {len(results)} result lines")
    typer.echo(f"{output_dir / 'report.html'}: the report")


@contextmanager
def _resumable() -> Iterator[None]:
    """Says of an interrupted command that it can go on."""
    try:
        yield
    except KeyboardInterrupt:
        typer.echo(f"\n{INTERRUPTED}", err=True)
        raise typer.Exit(int(ExitCode.INTERRUPTED)) from None


def main() -> None:
    """Entry point: coded errors become one line and their exit code."""
    try:
        app()
    except GmiaError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(int(error.exit_code))


if __name__ == "__main__":
    main()
