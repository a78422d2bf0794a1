"""One page that compares systems, generated from their result lines:
``python -m gmia_monai.report.systems bundle/docs/results/systems OUT.md``.

The headline of the protocol first, then the same in plain words, who found what, whether the alarm works, every attack,
and the tables of GMIA's paper in its own protocol.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence

from gmia_monai.metrics.results import Result
from gmia_monai.report.alarm import alarm_parts
from gmia_monai.report.attack_tables import section_parts
from gmia_monai.report.cells import (
    DASH,
    Cell,
    Columns,
    Lines,
    System,
    find,
    interval,
    kept_start,
    line,
    number,
    row,
    systems_of,
    table,
    takes_farthest,
    who,
)
from gmia_monai.report.floor import FLOOR_COLUMNS, FLOOR_NOTE
from gmia_monai.report.making import making_parts
from gmia_monai.report.page import write_page
from gmia_monai.report.paper_tables import paper_parts
from gmia_monai.report.plain_words import recovered
from gmia_monai.report.utility_tables import utility_parts

__all__ = ["main", "systems_markdown"]

# heading: name of the line, kinds of negatives
_HEADLINE: dict[str, tuple[str, ...]] = {
    "T1 worst, matched": ("verification_auc.T1.worst.v1", "matched"),
    "T1 worst, random": ("verification_auc.T1.worst.v1", "random"),
    "T2 worst": ("verification_auc.T2.worst.v1", "matched"),
    "T3 worst": ("verification_auc.T3.worst.v1", "matched"),
    "presence worst": ("presence_auc.worst.v1",),
    "membership worst (without release)": ("membership_auc.worst.v1",),
}
# heading: what a command calls it, from the last part of an option's name
_SETTINGS = {"updates a refit": ("steps", "refit_steps"), "resamples": ("n_boot",), "members": ("n_members",)}


def systems_markdown(results: Sequence[Result], command: str = "python -m gmia_monai.report.systems") -> str:
    """The page, with one row a system in each table: controls first, then the others by name.

    Args:
        results: lines of one or more systems.
        command: what made the page.

    Raises:
        UsageError: ``GM-U335`` as :func:`gmia_monai.report.cells.systems_of`.
    """
    systems = systems_of(results)
    parts = [
        "# Systems under attack",
        f"Generated from the result lines in `results/systems/` by `{command}`; edits are lost. Test role T of "
        f"evaluation protocol v1{_profiles(systems)}, at most four images a patient; 95 % intervals over patients and, "
        "for verification, attacker seeds; `ensemble` is one attacker made of all seeds, so over patients alone. "
        f"{DASH}: no line yet, or nothing to measure. T was scored repeatedly while attacks and intervals were "
        "developed; no attacker, sign or threshold was chosen on it, but for the highest risks of Anonymeter's form, "
        "as it says there. At 64 px, figures pool the folders nih128 (resized) and nih64, which are told apart by "
        "their spectrum; the two images of a pair, and a query and its gallery in retrieval, are of one folder.",
    ]
    if not systems:
        return "\n\n".join([*parts, "No result lines yet."]) + "\n"
    parts += [*_mixed(systems), *_headline(systems)]
    words = recovered(systems)
    if words:
        parts += [
            "## What attackers recover",
            "One image pair of one person and one of two people of like sex, view and age are laid before the "
            "attacker, who says which is which; guessing is right in 50 of 100. The attacker is the one who was most "
            "often right on other patients (V2). The upper limit is that of the 95 % interval. Metadata: sex, age, "
            "view and findings, without pixels.",
            *words,
        ]
    parts += [
        "## Who finds whom",
        "T1, matched negatives: AUC of each attacker, signed; the same two-sided below it. The sign is chosen on V2: "
        "(far) marks an attacker who takes the farthest match for the person, which finds who was pushed away too far; "
        "(start) a refit of which no update brought more on V2 than where it began: the network as it was, its scores "
        "turned, or behind linear maps.",
        table(systems, _attackers(results, "verification_auc"), always=True),
        "Two-sided, by likelihood ratios, so that near and far both count:",
        table(systems, _attackers(results, "verification_auc_two_sided"), always=True),
    ]
    parts += [*utility_parts(systems), *alarm_parts(systems), *section_parts(systems)]
    parts += [*paper_parts(systems, results), *making_parts(systems), *_how(systems, results)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _headline(systems: Mapping[str, System]) -> list[str]:
    values = {heading: line(*key) for heading, key in _HEADLINE.items()}
    values["membership worst (without release)"] = line("membership_auc.worst.v1", show=_beside_control)
    return [
        "## Headline",
        "Verification AUC of the attacker that was worst on V2, among those that look at pixels, with its sign. T1: "
        "other images of the person (one at a time, but for averaging, fusion and ensemble); T2: the very source; T3: "
        "two released images. 0.5: nothing is found. About 300 patients have pairs: differences below 0.03 near 0.5 "
        "mean nothing. Patients weigh alike, as far as negatives can be found for them"
        + _patients(systems)
        + "; negatives weigh so that each image is as frequent among them as among positives: a score of one image "
        "alone has AUC 0.5. Membership: in brackets what the same signal finds without the release.",
        table(systems, values, always=True),
        "Which attacker, or signal, that was:",
        table(systems, {heading: line(*key, show=who) for heading, key in _HEADLINE.items()}, always=True),
        FLOOR_NOTE,
        table(systems, FLOOR_COLUMNS, always=True),
    ]


def _beside_control(result: Result) -> str:
    control = result.extra.get("auc_without_release")
    return interval(result) if control is None else f"{interval(result)} ({number(float(control))})"


def _profiles(systems: Mapping[str, System]) -> str:
    """The profiles of the lines and, where their names end in one, the image size."""
    named = []
    for profile in dict.fromkeys(system.profile for system in systems.values()):
        size = re.search(r"\d+$", profile)
        named.append(f"`{profile}`" + (f" ({size.group()} px)" if size else ""))
    return f", profile {', '.join(named)}" if named else ""


def _version(found: Result) -> int:
    return int(found.extra.get("suite_version", 0))


def _mixed(systems: Mapping[str, System]) -> list[str]:
    """A warning for each system whose lines are of several releases, or of an older suite than those of others."""
    warnings = []
    newest: dict[str, int] = {}
    for system in systems.values():
        for found in system.lines.values():
            newest[found.name] = max(newest.get(found.name, 0), _version(found))
    for label, system in systems.items():
        older = {_version(found) for found in system.lines.values() if _version(found) < newest[found.name]}
        if older:
            found = " and ".join(
                f"version {version}" if version else "an unnumbered version" for version in sorted(older)
            )
            warnings.append(
                f"**Warning: lines of {label} were made by {found} of the suite**; the page has newer ones of the same "
                "figures. They have to be made again before they are compared."
            )
    for label, system in systems.items():
        hashes = [found.release_hash for found in system.lines.values() if found.release_hash]
        if len(set(hashes)) > 1:
            counts = ", ".join(f"`{h}` ({hashes.count(h)} lines)" for h in dict.fromkeys(hashes))
            warnings.append(
                f"**Warning: the lines of {label} are of {len(set(hashes))} different releases**: {counts}. Its "
                "figures must not be read together."
            )
    return warnings


def _patients(systems: Mapping[str, System]) -> str:
    """How many patients each threat model rests on."""
    found = []
    for threat in ("T1", "T2", "T3"):
        key = (f"verification_auc.{threat}.worst.v1", "matched")
        found += [f"{threat}: {s.lines[key].n_patients} patients" for s in systems.values() if key in s.lines][:1]
    return f" ({', '.join(found)})" if found else ""


def _attackers(results: Sequence[Result], figure: str) -> Columns:
    prefix = f"{figure}.T1."
    names = dict.fromkeys(r.name.removeprefix(prefix).split(".")[0] for r in results if r.name.startswith(prefix))
    return {name: _with_sign(f"{prefix}{name}.v1") for name in names if name != "worst"}


def _with_sign(name: str) -> Cell:
    def cell(lines: Lines) -> str:
        found = find(lines, name, "matched")
        if found is None:
            return DASH
        start = " (start)" if kept_start(found) else ""
        return interval(found) + (" (far)" if takes_farthest(lines, found) else "") + start

    return cell


# -- how it was judged ----------------------------------------------------------------------------------------------
def _how(systems: Mapping[str, System], results: Sequence[Result]) -> list[str]:
    heads = ["system", "release", "attacker seeds", *_SETTINGS]
    rows = [row(heads), row(["---", "---", *["---:"] * (len(heads) - 2)])]
    for label, system in systems.items():
        lines = list(system.lines.values())
        hashes = dict.fromkeys(f"`{r.release_hash}`" for r in lines if r.release_hash)
        seeds = sorted({len(r.extra["attacker_seeds"]) for r in lines if "attacker_seeds" in r.extra})
        options = [_options(c) for c in dict.fromkeys(r.command for r in lines)]
        cells = [_listed(hashes), _listed(str(n) for n in seeds)]
        for keys in _SETTINGS.values():
            cells.append(_listed(dict.fromkeys(o[key] for o in options for key in keys if key in o)))
        rows.append(row([label, *cells]))
    return [
        "## How it was judged",
        "Attackers learn on A, are chosen on V2 and judged on T. The suite's default is "
        "300 updates a refit and 500 resamples. Several numbers in a "
        "cell: parts of the lines were made with each, see the commands. Members: images of the system's training "
        "patients, at most; 0: no attack on membership and no training on the release.",
        "\n".join(rows),
        "Commands:",
        "\n".join(f"- `{c}`" for c in dict.fromkeys(r.command for r in results if r.command)),
    ]


def _listed(values: object) -> str:
    return ", ".join(values) or DASH  # type: ignore[call-overload]


def _options(command: str) -> dict[str, str]:
    """Values of the options of a command, by the last part of their names."""
    try:
        words = shlex.split(command)
    except ValueError:  # a quotation without an end
        return {}
    found = {}
    for option, value in zip(words, words[1:], strict=False):
        if option.startswith("--") and not value.startswith("--"):
            found[option.removeprefix("--").rsplit("#", 1)[-1].replace("-", "_")] = value
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line: reads result lines, writes the page."""
    return write_page("gmia_monai.report.systems", __doc__, systems_markdown, arguments)


if __name__ == "__main__":
    raise SystemExit(main())
