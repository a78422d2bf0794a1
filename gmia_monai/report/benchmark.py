"""The benchmark as one page with its pictures, generated from result lines:
``python -m gmia_monai.report.benchmark bundle/docs/results/systems bundle/docs``.

The frontier of privacy and utility first; then every system and figure, differences, the ablation of ours, the
attacker's budget, costs, re-identification as published, and how all of it was judged.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float

from gmia_monai.errors import GmiaError, UsageError
from gmia_monai.metrics.replicates import read_replicates
from gmia_monai.metrics.results import read_results
from gmia_monai.report.ablation import ablation_parts
from gmia_monai.report.benchmark_differences import Differences, difference_parts
from gmia_monai.report.benchmark_plots import budget_picture, cost_picture, frontier_picture
from gmia_monai.report.benchmark_tables import budget_parts, fact_parts, how_parts, overview_parts
from gmia_monai.report.cells import DASH, System, systems_of
from gmia_monai.report.counted import Figure, compact, counted_table
from gmia_monai.report.frontier import PRIVACY, architectures, frontier_parts, points
from gmia_monai.report.reidentification import reidentification_parts
from gmia_monai.typing import PathLike

__all__ = ["budget_curves", "costs", "main", "write_benchmark_pages"]

PAGE = "benchmark.md"
_COSTS = {
    "seconds an image": "cost_seconds_per_image.v1",
    "GFLOP an image": "cost_gflop_per_image.v1",
}
_PARTS_OF_A = (8, 4, 2, 1)
# Drawn by scripts/draw_systems.py, of sources that are no real radiographs.
_SHEETS = {
    "contact_sheet_systems.png": "The same sources through every system",
    "figure_2_reconstructions.png": "Reconstructions by co-training and by E-training (figure 2 of GMIA)",
    "figure_3_losses.png": "What each loss of GMIA changes (figure 3 of GMIA)",
}


def write_benchmark_pages(
    results_dir: PathLike,
    docs_dir: PathLike,
    command: str = "python -m gmia_monai.report.benchmark",
    reference: str | None = None,
) -> list[Path]:
    """Writes ``benchmark.md`` and the pictures it shows (each a temporary file, then renamed).

    Pictures of an earlier run that the lines no longer give are removed.

    Args:
        results_dir: folder of ``*.jsonl`` with replicates in ``*.npz`` beside them, or one such file.
        docs_dir: folder of the page.
        command: what made the page.
        reference: system that the others are compared with; None: ours, else the best on T1.

    Returns:
        Paths of all files, the page first.

    Raises:
        UsageError: ``GM-U252`` where nothing is at ``results_dir``; ``GM-U385`` where no result line is there;
            ``GM-U335`` where two lines say the same of one system.
        IntegrityError: ``GM-W251`` for a malformed line, ``GM-W252`` for replicates that cannot be read.
    """
    from gmia_monai.dicom.atomic import atomic_path  # its room loads Pillow

    results = read_results(results_dir)
    if not results:
        raise UsageError(
            "GM-U385",
            "no result lines to compare",
            got=Path(results_dir).name,
            expected="a folder with lines of systems",
            next_step="judge systems with bundle/configs/benchmark.yaml",
        )
    systems, source = systems_of(results), Path(results_dir)
    differences = Differences(read_replicates(source if source.is_dir() else source.with_suffix(".npz")))
    folder = Path(docs_dir)
    folder.mkdir(parents=True, exist_ok=True)
    pictures = _pictures(systems)
    sheets = {name for name in _SHEETS if (folder / name).is_file()}
    text = _page(systems, {*pictures, *sheets}, command, differences, reference)
    for old in folder.glob("benchmark_*.svg"):
        if old.name not in pictures:
            old.unlink()
    for name, content in {PAGE: text, **pictures}.items():
        with atomic_path(folder / name) as temporary:
            temporary.write_text(content, encoding="utf-8")
    return [folder / name for name in (PAGE, *pictures)]


# -- pictures -------------------------------------------------------------------------------------------------------
def _pictures(systems: Mapping[str, System]) -> dict[str, str]:
    """Markup by name of file."""
    made = {}
    for attack in PRIVACY:
        for architecture in architectures(systems):
            found = points(systems, attack, architecture)
            if found:
                picture = frontier_picture(found, attack.axis, architecture, list(systems))
                made[_frontier_file(attack.stem, architecture)] = str(picture)
    curves = budget_curves(systems)
    if curves:
        made["benchmark_budget.svg"] = str(
            budget_picture(curves, "patients that the attacker learns from", list(systems))
        )
    panels = {label: found for label, name in _COSTS.items() if (found := costs(systems, name))}
    if panels:
        made["benchmark_cost.svg"] = str(cost_picture(panels, list(systems)))
    return made


def _frontier_file(stem: str, architecture: str) -> str:
    return f"benchmark_frontier_{stem}_{architecture}.svg"


def budget_curves(systems: Mapping[str, System]) -> dict[str, Float[np.ndarray, "4 n"]]:
    """Patients to learn from, AUC, and its limits, for each system that has at least two such lines."""
    curves = {}
    for label, system in systems.items():
        columns = []
        for part in _PARTS_OF_A:
            found = Figure(f"verification_auc_budget.T1.1_of_{part}.v1", ("matched",)).of(system)
            if found is not None and isinstance(found.extra.get("patients"), int | float):
                low, high = (found.value if v is None else v for v in (found.low, found.high))
                columns.append([float(found.extra["patients"]), found.value, low, high])
        if len(columns) > 1:
            curves[label] = np.array(columns, dtype=np.float64).T
    return curves


def costs(systems: Mapping[str, System], name: str) -> dict[str, float]:
    """A measured cost of an image by system; only positive ones fit a logarithmic axis."""
    found = {label: Figure(name).of(system) for label, system in systems.items()}
    return {
        label: float(r.value) for label, r in found.items() if r is not None and r.value is not None and r.value > 0
    }


# -- the page -------------------------------------------------------------------------------------------------------
def _page(
    systems: Mapping[str, System], files: set[str], command: str, differences: Differences, reference: str | None
) -> str:
    profiles = dict.fromkeys(system.profile for system in systems.values())
    parts = [
        "# The benchmark",
        f"Generated from result lines by `{command}`; edits are lost. {len(systems)} systems, test role T of "
        f"evaluation protocol v1, profile {', '.join(f'`{p}`' for p in profiles)}; 95 % intervals over patients and, "
        f"for verification, attacker seeds. {DASH}: no line. Every attack in full is in `systems.md`.",
        "## Privacy against utility",
        "AUC of the attacker that was worst on V2 against the loss of macro AUROC of classifiers that learn from the "
        "release and are tested on real images. Both are better where lower; a value beyond chance, or beyond no "
        "loss, counts as chance or no loss. Which points are on the frontier goes by their values alone: points whose "
        "bars overlap may change places on other patients. Presence can be asked of every release, also of one "
        "without one source an image, so that all systems stand in its ranking.",
    ]
    for attack in PRIVACY:
        named = {a: _frontier_file(attack.stem, a) for a in architectures(systems)}
        parts += frontier_parts(systems, attack, {a: file for a, file in named.items() if file in files})
    budget = "benchmark_budget.svg"
    parts += [
        *_sheet_parts(files),
        *overview_parts(systems),
        *difference_parts(systems, differences, reference),
        *ablation_parts(systems, differences),
        *budget_parts(systems, budget if budget in files else None),
        *_cost_parts(systems, "benchmark_cost.svg" in files),
        *reidentification_parts(systems),
        *fact_parts(systems),
        *how_parts(systems),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _sheet_parts(files: set[str]) -> list[str]:
    """The sheets that have been drawn; nothing where none has."""
    shown = [f"{title}:\n\n![{title}]({name})" for name, title in _SHEETS.items() if name in files]
    about = "Sources are synthesised or drawn, no real radiograph is shown (`scripts/draw_systems.py`)."
    return ["## What releases look like", about, *shown] if shown else []


def _cost_parts(systems: Mapping[str, System], drawn: bool) -> list[str]:
    title = "## What an image costs"
    if not drawn:
        return [title, f"No lines yet: no system has {' or '.join(f'`{name}`' for name in _COSTS.values())}."]
    figures = {label: Figure(name, show=compact) for label, name in _COSTS.items()}
    return [
        title,
        "Measured, on one image size and one machine a line; training is not counted. Logarithmic axes:",
        "![cost of an image](benchmark_cost.svg)",
        *counted_table(systems, figures),
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line: reads result lines, writes the page and its pictures; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m gmia_monai.report.benchmark", description=__doc__)
    parser.add_argument("results", type=Path, help="a .jsonl file or a folder of them")
    parser.add_argument("docs", type=Path, help="folder of the page and its pictures")
    parser.add_argument("--reference", help="system that the others are compared with; by default ours")
    options = parser.parse_args(arguments)
    command = f"{parser.prog} {options.results.as_posix()} {options.docs.as_posix()}"
    if options.reference:
        command += f" --reference {shlex.quote(options.reference)}"
    try:
        written = write_benchmark_pages(options.results, options.docs, command, options.reference)
    except GmiaError as error:
        sys.stderr.write(f"{error}\n")
        return int(error.exit_code)
    sys.stdout.write(f"{', '.join(path.name for path in written)}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
