"""Markdown tables generated from result lines: ``python -m gmia_monai.report.tables bundle/docs/results OUT.md``."""

from __future__ import annotations

from collections.abc import Sequence

from gmia_monai.metrics.results import Result
from gmia_monai.report.page import write_page

__all__ = ["main", "results_markdown"]

# topic -> prefixes of the names that belong to it; the first that fits wins
TOPICS: dict[str, tuple[str, ...]] = {
    "Identity": ("verification_", "equal_error_rate", "tar_at_far", "rank_", "map_at_r", "precision_at"),
    "Utility": ("utility_",),
    "Reconstruction": ("reconstruction_",),
    "Latent optimisation": ("latent_optimization",),
    "Membership of a small auto-encoder": ("membership_",),
    "Coverage of the intervals": ("interval_coverage",),
}
# topic -> beginnings of the names of systems whose lines belong to it, whatever they are called
SYSTEMS: dict[str, tuple[str, ...]] = {"Positive controls": ("auto-encoder, by heart", "planted copies")}
OTHER = "Other"

NOTES = {
    "Identity": "T1: pairs of different images of one patient within one folder. `random` negatives: at most 20 "
    "positive pairs a patient, pairs of equal weight (`_patients_equal`: patients of equal weight, as the protocol has "
    "it); `matched` negatives (folder, sex, view, age): patients of equal weight. There, negatives weigh so that each "
    "image is as frequent among them as among positives. Patients and images: those with a positive pair. Higher means "
    "the encoder knows patients apart.",
    "Utility": "Mean over the findings with enough positive test images; each finding below. Images of both folders "
    "together.",
    "Reconstruction": "Mean over images of the per-image value; PSNR in dB for the data range 1. `pca_k`: linear "
    "codes of k numbers. Images of both folders together; by folder below, for they differ.",
    "Latent optimisation": "Research output, measured by the optimiser's own encoder on the images as written: it says "
    "that the optimisation did what it was asked, not that an independent attacker fails.",
    "Membership of a small auto-encoder": "Whom a small auto-encoder learned, by the likelihood ratio of shadow models "
    "and by the loss. It says how strong these attacks are, not how safe the system is.",
    "Positive controls": "Membership of an auto-encoder that learned the images of a few patients by heart, and "
    "releases with planted copies of training images: what the attacks have to find, for they cannot ring on unchanged "
    "images.",
    "Coverage of the intervals": "How often a nominal 95 % interval holds the truth, by simulation of clustered data. "
    "The intervals of these shares are Wilson's, over the simulated data sets. Rates of one class near 0 or 1 "
    "(`class_rate_at_a_bound`) are conservative: limits there are Wilson's of the patients, whose images are not all "
    "alike. So are those of verification with matched negatives (`matched_pairs`), of whom each patient has few: "
    "resampling both sides of a pair counts what is of the pair alone several times (Owen, Annals of Applied "
    "Statistics 1:386, 2007), so that an upper limit claims less than it could.",
}


def results_markdown(results: Sequence[Result], command: str = "python -m gmia_monai.report.tables") -> str:
    """Tables by topic with value, 95 % interval, numbers, and below each the commands that make its figures.

    Args:
        results: the result lines.
        command: the command that made this page, for its header.
    """
    parts = [
        "# Results",
        f"Generated from the result lines in `results/` by `{command}`; edits are lost. Intervals are 95 %: "
        "a bootstrap over patients, on the logit scale for verification and what else has bounds (Wilson's where a "
        "rate is 0 or 1), percentiles for the rest (`gmia_monai/metrics/intervals.py`), unless a topic says otherwise. "
        "Roles and pairs: evaluation protocol v1. How often the test role was looked at, and which targets were "
        "missed: the model card. What attackers find in releases, and whether each attack rings on unchanged images "
        "and is silent where nothing is left to find: [systems.md](systems.md).",
    ]
    for topic in (*TOPICS, *SYSTEMS, OTHER):
        chosen = [result for result in results if _topic(result) == topic]
        if chosen:
            parts += _section(topic, chosen)
    if not results:
        parts.append("No result lines yet.")
    return "\n\n".join(parts) + "\n"


def _topic(result: Result) -> str:
    by_system = (topic for topic, beginnings in SYSTEMS.items() if result.system.startswith(beginnings))
    by_name = (topic for topic, prefixes in TOPICS.items() if result.name.startswith(prefixes))
    return next(by_system, None) or next(by_name, OTHER)


def _section(topic: str, results: Sequence[Result]) -> list[str]:
    commands = list(dict.fromkeys(result.command for result in results if result.command))
    optional = {
        "negatives": any(result.negatives for result in results),
        "attacker": any(result.attacker for result in results),
    }
    header = ["figure", "system", "profile", *(key for key, used in optional.items() if used)]
    header += ["value", "95 % interval", "patients", "images", "seed", "made by"]
    numeric = {"value", "95 % interval", "patients", "images", "seed"}
    lines = [_row(header), _row(["---:" if title in numeric else "---" for title in header])]
    for result in results:
        cells = [f"`{result.name}`", result.system, result.profile]
        cells += [getattr(result, key) or "–" for key, used in optional.items() if used]
        cells += [_value(result), _interval(result), _count(result.n_patients), _count(result.n_images)]
        cells += [str(result.seed), f"({commands.index(result.command) + 1})" if result.command else "–"]
        lines.append(_row(cells))
    parts = [f"## {topic}"]
    if topic in NOTES:
        parts.append(NOTES[topic])
    parts.append("\n".join(lines))
    parts += _findings(results)
    parts += _folders(results)
    if commands:
        parts.append("\n".join(f"{number}. `{command}`" for number, command in enumerate(commands, start=1)))
    return parts


def _findings(results: Sequence[Result]) -> list[str]:
    """A table of findings for each system whose lines carry per-finding values."""
    tables = []
    detailed = [result for result in results if isinstance(result.extra.get("per_finding"), dict)]
    for key in dict.fromkeys((result.system, result.profile, result.seed) for result in detailed):
        group = [result for result in detailed if (result.system, result.profile, result.seed) == key]
        names = list(dict.fromkeys(name for result in group for name in result.extra["per_finding"]))
        positive = group[0].extra.get("n_positive", {})
        lines = [_row(["finding", "positive images", *(f"`{result.name}`" for result in group)])]
        lines.append(_row(["---", *["---:"] * (len(group) + 1)]))
        for name in names:
            numbers = [result.extra["per_finding"].get(name) for result in group]
            shown = [f"{number:.3f}" if isinstance(number, float | int) else "–" for number in numbers]
            lines.append(_row([name, _count(positive.get(name)), *shown]))
        tables += [f"Findings, {key[0]}, {key[1]}:", "\n".join(lines)]
    return tables


def _folders(results: Sequence[Result]) -> list[str]:
    """A table of the folders whose images lines pool, for lines that carry the means of each."""
    detailed = [result for result in results if isinstance(result.extra.get("per_folder"), dict)]
    names = list(dict.fromkeys(name for result in detailed for name in result.extra["per_folder"]))
    if not names:
        return []
    lines = [_row(["figure", "system", *names]), _row(["---", "---", *["---:"] * len(names)])]
    for result in detailed:
        means = [result.extra["per_folder"].get(name, {}).get("mean") for name in names]
        shown = [_format(mean) if isinstance(mean, float | int) else "–" for mean in means]
        lines.append(_row([f"`{result.name}`", result.system, *shown]))
    return ["By folder:", "\n".join(lines)]


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _format(number: float) -> str:
    size = abs(number)
    if size >= 2 and number == int(number):
        return f"{number:,.0f}"
    if size >= 100:
        return f"{number:.0f}"
    if size >= 10:
        return f"{number:.2f}"
    return f"{number:.3f}" if size >= 0.01 or size == 0 else f"{number:.2g}"


def _value(result: Result) -> str:
    return _format(result.value) if result.value is not None else f"– ({result.extra.get('reason', 'not measured')})"


def _interval(result: Result) -> str:
    if result.low is None or result.high is None:
        return "–"
    return f"{_format(result.low)} to {_format(result.high)}"


def _count(number: int | None) -> str:
    return f"{number:,}" if number is not None else "–"


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line: reads result lines, writes the page."""
    return write_page("gmia_monai.report.tables", __doc__, results_markdown, arguments)


if __name__ == "__main__":
    raise SystemExit(main())
