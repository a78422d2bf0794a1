"""``gmia benchmark``: every system under every attack, or some of both."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

import gmia_monai
from gmia_monai.errors import INTERRUPTED, ExitCode, UsageError

__all__ = ["benchmark"]

_ROOT = Path(gmia_monai.__file__).parents[1]
_CONFIGS = (Path("bundle/configs"), _ROOT / "bundle/configs", _ROOT / "configs")
_CONFIG, _PREFIX = "benchmark.yaml", "benchmark_"


def benchmark(
    only: Annotated[list[str] | None, typer.Option(help="Id of a system; may be given again. All by default.")] = None,
    attack: Annotated[
        list[str] | None, typer.Option(help="An attack, or cost; may be given again. All by default.")
    ] = None,
    workers: Annotated[int, typer.Option(help="Processes that share the systems, one thread each.", min=1)] = 1,
    profile: Annotated[str, typer.Option(help="quick or paper: settings of the bundle's configs/profiles.")] = "",
    real: Annotated[Path | None, typer.Option(help="Manifest (CSV) of the real images, all roles.")] = None,
    dataset_dir: Annotated[Path | None, typer.Option(help="Folder of a data set; GMIA_CXR_DIR by default.")] = None,
    models_dir: Annotated[Path | None, typer.Option(help="Recorded weights; the bundle's by default.")] = None,
    output_dir: Annotated[Path | None, typer.Option(help="Releases, reports, and what is kept between runs.")] = None,
    results_dir: Annotated[Path | None, typer.Option(help="Result lines, one file a system.")] = None,
    docs_dir: Annotated[Path | None, typer.Option(help="Where the pages are written.")] = None,
    image_size: Annotated[int | None, typer.Option(help="Side in pixels (64).", min=32)] = None,
    device: Annotated[str, typer.Option(help="cpu or cuda; cuda where there is one.")] = "",
    show: Annotated[bool, typer.Option("--list", help="Show the systems with the weights they need, and end.")] = False,
) -> None:
    """Judge systems: each anonymizes the protocol's roles, and is attacked.

    The same command goes on where an interrupted one stopped, and does nothing where all is done; started twice, both
    share the work. Exit code 1: systems were left out, e.g. since their weights are not there.
    """
    from gmia_monai.workflows import BenchmarkWorkflow

    given = {"only": only, "suite#attacks": attack, "workers": workers, "image_size": image_size, "device": device}
    paths = {"real": real, "models_dir": models_dir, "output_dir": output_dir, "results_dir": results_dir}
    paths |= {"docs_dir": docs_dir, "dataset_dir": dataset_dir}
    settings: dict[str, Any] = {key: value for key, value in given.items() if value}
    settings |= {key: str(path) for key, path in paths.items() if path is not None}
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    workflow = BenchmarkWorkflow(_files(profile), logging_file=False, **settings)
    if show:
        workflow.parser.parse(reset=True)
        content = workflow.parser.get_parsed_content
        _show(content("systems"), content("only"), Path(content("models_dir")))
        return
    try:
        workflow.initialize()
        workflow.run()
    except KeyboardInterrupt:
        typer.echo(f"\n{INTERRUPTED}", err=True)
        raise typer.Exit(int(ExitCode.INTERRUPTED)) from None
    outcome = workflow.outcome
    typer.echo(f"{workflow.parser.get_parsed_content('results_dir')}: the result lines")
    typer.echo(outcome.summary())
    raise typer.Exit(int(outcome.exit_code))


def _files(profile: str) -> list[str]:
    """The config, and the profile behind it.

    Raises:
        UsageError: ``GM-U383`` for an unknown profile; ``GM-U080``, later, where the config is not there.
    """
    folder = next((folder for folder in _CONFIGS if (folder / _CONFIG).is_file()), _CONFIGS[0])
    there = sorted(path.stem.removeprefix(_PREFIX) for path in (folder / "profiles").glob(f"{_PREFIX}*.yaml"))
    if profile and profile not in there:
        raise UsageError("GM-U383", "unknown profile of the benchmark", got=profile, expected=", ".join(there))
    return [str(folder / _CONFIG), *([str(folder / "profiles" / f"{_PREFIX}{profile}.yaml")] if profile else [])]


def _show(systems: dict[str, Any], only: Sequence[str] | None, models_dir: Path) -> None:
    """Prints a line for each system: what it is, and which of its weights are there."""
    from gmia_monai.evaluation.zoo import is_built_in, missing_weights, read_entries

    entries = read_entries(systems, only, strict=False)
    width = max(map(len, entries))
    for system, entry in entries.items():
        missing = missing_weights(entry, models_dir)
        if not is_built_in(entry):
            found = f"no class {entry.name} here"
        elif missing:
            found = f"weights missing: {', '.join(missing)} (of {', '.join(entry.needs)})"
        else:
            found = f"weights there: {', '.join(entry.needs)}" if entry.needs else "needs no weights"
        typer.echo(f"{system:{width}}  {found}")
