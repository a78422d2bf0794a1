"""The tables of the benchmark: every system and headline figure; facts that only some systems have; who made what."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from gmia_monai.metrics.results import Result
from gmia_monai.report.attack_tables import SECTIONS
from gmia_monai.report.cells import DASH, System, plain, row, table, who
from gmia_monai.report.counted import Figure, compact, counted, counted_table, patients_of
from gmia_monai.report.floor import floor_line
from gmia_monai.report.frontier import architectures, utility

__all__ = ["budget_parts", "fact_parts", "how_parts", "overview_parts", "policies"]

_FLOOR, _POLICY = "metadata floor", "policy"
_PRIVACY: dict[str, Figure] = {
    "T1, matched": Figure("verification_auc.T1.worst.v1", ("matched",)),
    "T1 attacker": Figure("verification_auc.T1.worst.v1", ("matched",), who),
    "T1, random": Figure("verification_auc.T1.worst.v1", ("random",)),
    "T2": Figure("verification_auc.T2.worst.v1", ("matched",)),
    "T3": Figure("verification_auc.T3.worst.v1", ("matched",)),
    "presence": Figure("presence_auc.worst.v1"),
    "membership": Figure("membership_auc.worst.v1"),
    "membership, gain": Figure("membership_gain.worst.v1"),
    "hidden rate (paper)": Figure("paper_hidden_rate.T2.frozen.v1", show=plain),
    "PriCheXy's own AUC": Figure("prichexy_protocol_auc.v1", ("balanced", None)),
}
_QUALITY: dict[str, Figure] = {
    "KID": Figure("kid.other.v1", show=compact),
    "PSNR, dB": Figure("fidelity_psnr.v1", show=plain),
    "MS-SSIM, 3 scales": Figure("fidelity_ms_ssim_3scale.v1", show=plain),
    "PriCheXy's own AUROC": Figure("prichexy_protocol_macro_auroc.v1"),
}
_COST: dict[str, Figure] = {
    "seconds an image": Figure("cost_seconds_per_image.v1", show=compact),
    "GFLOP an image": Figure("cost_gflop_per_image.v1", show=compact),
}
_LIST = re.compile(r"--(?:\S+#)?(max_images|n_images)[ =](\d+)")
_FACT = re.compile(r"epsilon|reject|accept|left_out|diversity")
_RECALL = re.compile(r"privacy_filter_recall\.(\w+)\.v1")
_PRICHEXY = ("prichexy_protocol_auc.v1", "prichexy_protocol_macro_auroc.v1")


def policies(systems: Mapping[str, System]) -> dict[str, str]:
    """What a system says of two released images of one patient, where one of its lines has it in ``extra``."""
    found = {}
    for label, system in systems.items():
        said = dict.fromkeys(str(r.extra["policy"]) for r in system.lines.values() if r.extra.get("policy"))
        found[label] = ", ".join(said) or DASH
    return found


def overview_parts(systems: Mapping[str, System]) -> list[str]:
    """Every system with its headline figures: what is found, and what is left and what it costs."""
    policy = policies(systems)
    beside: dict[str, Mapping[str, str]] = {_POLICY: policy} if set(policy.values()) != {DASH} else {}
    floor = {label: _floor(system) for label, system in systems.items()}
    if set(floor.values()) != {DASH}:
        beside |= {_FLOOR: floor}
    privacy = counted_table(systems, _PRIVACY, beside)
    losses = {f"AUROC loss, `{name}`": utility(name) for name in architectures(systems)}
    rest = counted_table(systems, losses | _QUALITY | _COST)
    parts = ["## Every system"]
    if privacy:
        parts += [
            "What attackers find: AUC of the attacker that was worst on V2; 0.5 is chance. T1: another image of the "
            "person; T2: the very source; T3: two released images, meant to be found where the policy is "
            "`pseudonymous`; presence: is a patient among the sources; membership: did the system learn from the "
            "patient, and its gain over the same signal without the release. The floor: T1 by metadata alone, "
            "matched negatives. Systems without one source an image have no T1 to T3.",
            *privacy,
        ]
    if rest:
        parts += [
            "What is left, and what it costs: the loss of macro AUROC of classifiers that learn from the release, "
            "KID under a diagnostic network that no system optimises (lower: more like real images), fidelity to the "
            "source where there is one, and the measured cost of one image.",
            *rest,
        ]
    empty = [heading for heading, f in {**_PRIVACY, **losses, **_QUALITY, **_COST}.items() if not _any(systems, f)]
    if not beside.get(_POLICY):
        empty = [_POLICY, *empty]
    if empty:
        parts.append(f"No line yet: {'; '.join(empty)}.")
    return parts


def _any(systems: Mapping[str, System], figure: Figure) -> bool:
    return any(map(figure.of, systems.values()))


def _floor(system: System) -> str:
    found = floor_line(system.lines, "T1", "matched")
    return DASH if found is None else plain(found[0])


# -- facts that only some systems have -----------------------------------------------------------------------------
def fact_parts(systems: Mapping[str, System]) -> list[str]:
    """PriCheXy's protocol, the recall of privacy filters, and shares and budgets that lines carry in ``extra``."""
    parts = ["## In the systems' own terms"]
    missing = []
    protocol = counted_table(
        systems, {"AUC": Figure(_PRICHEXY[0], ("balanced", None)), "macro AUROC": Figure(_PRICHEXY[1])}
    )
    if protocol:
        parts += [
            "PriCheXy-Net's protocol: a fresh verifier learns from pairs of released images and is tested on a "
            "released and a real one, in balanced pairs; a classifier trained on real images reads released ones:",
            *protocol,
        ]
    else:
        missing.append("PriCheXy-Net's protocol (`prichexy_protocol_auc.v1`)")
    kinds = dict.fromkeys(m.group(1) for s in systems.values() for name, _ in s.lines if (m := _RECALL.fullmatch(name)))
    figures = {kind.replace("_", " "): Figure(f"privacy_filter_recall.{kind}.v1") for kind in kinds}
    recall = counted_table(systems, figures | {"other people": Figure("privacy_filter_rejection.other_people.v1")})
    if recall:
        parts += [
            "Share of planted copies of training images that the filter of generated images rejects, by kind of copy, "
            "and of real images of people whom it does not know, which it should let pass:",
            *recall,
        ]
    else:
        missing.append("the recall of privacy filters (`privacy_filter_recall.<kind>.v1`)")
    facts = _facts(systems)
    if facts:
        parts += [
            "What systems say of themselves in their lines: settings, privacy budgets, shares of rejected images:",
            facts,
        ]
    if not _FACT.search(facts):
        missing.append("DP-Pix's epsilon of a whole image and rates of rejection (in `extra` of a line)")
    if missing:
        parts.append(f"No lines yet of {'; '.join(missing)}.")
    return parts


def _facts(systems: Mapping[str, System]) -> str:
    rows = []
    for label, system in systems.items():
        found: dict[str, dict[str, None]] = {}
        patients: dict[str, set[str]] = {}
        for result in system.lines.values():
            for key, value in _said(result):
                found.setdefault(key, {})[value] = None
                patients.setdefault(key, set()).add(DASH if result.n_patients is None else f"{result.n_patients:,}")
        for key, values in found.items():
            rows.append(row([label, f"`{key}`", ", ".join(values), ", ".join(sorted(patients[key]))]))
    head = [row(["system", "fact", "value", "patients"]), row(["---", "---", "---:", "---:"])]
    return "\n".join([*head, *rows]) if rows else ""


def _said(result: Result) -> Iterator[tuple[str, str]]:
    settings = result.extra.get("settings")
    for group in (result.extra, settings if isinstance(settings, Mapping) else {}):
        for key, value in group.items():
            if _FACT.search(key) and isinstance(value, int | float) and not isinstance(value, bool):
                yield key, f"{value:g}"
    if result.extra.get("description"):
        yield "description", str(result.extra["description"])


# -- the attacker's budget ------------------------------------------------------------------------------------------
def budget_parts(systems: Mapping[str, System], picture: str | None) -> list[str]:
    """What attackers find who learn from more; the table is that of the page of systems."""
    section = next(s for s in SECTIONS if any("gain of the last doubling" in columns for columns in s.tables.values()))
    last = Figure("verification_auc_budget.T1.1_of_1.v1", ("matched",))
    having = {label: system for label, system in systems.items() if last.of(system) is not None}
    parts = [f"## {section.title}"]
    if not having:
        return [*parts, f"No lines yet: no system has `{last.name}`."]
    parts.append(section.note)
    if picture is not None:
        parts.append(f"![AUC against the patients that the attacker learns from]({picture})")
    parts += [text for columns in section.tables.values() if (text := table(having, columns))]
    parts.append(counted({last.name: patients_of(having, last)}))
    without = [label for label in systems if label not in having]
    if without:
        parts.append(f"Without such lines: {', '.join(without)}.")
    return parts


# -- what made the lines ----------------------------------------------------------------------------------------------
def how_parts(systems: Mapping[str, System]) -> list[str]:
    """Lists of images, seeds and commands of the lines."""
    heads = ["system", "profile", "list", "release", "attacker seeds", "seeds", "patients", "images"]
    rows = [row(heads), row(["---"] * 4 + ["---:"] * 4)]
    commands: dict[str, None] = {}
    for label, system in systems.items():
        lines = list(system.lines.values())
        commands |= dict.fromkeys(r.command for r in lines if r.command)
        lists = dict.fromkeys(str(found) for r in lines for found in (_list_of(r),) if found)
        hashes = dict.fromkeys(f"`{r.release_hash}`" for r in lines if r.release_hash)
        learned = sorted({len(r.extra["attacker_seeds"]) for r in lines if "attacker_seeds" in r.extra})
        counts = [[n for r in lines if (n := getattr(r, key)) is not None] for key in ("n_patients", "n_images")]
        cells = [system.profile, ", ".join(lists) or DASH, ", ".join(hashes) or DASH]
        cells += [", ".join(map(str, learned)) or DASH, ", ".join(map(str, sorted({r.seed for r in lines})))]
        rows.append(row([label, *cells, *(f"{max(c):,}" if c else DASH for c in counts)]))
    return [
        "## How it was judged",
        "Attackers learn on A, are chosen on V2 and judged on T. List: which images of a role are released and judged, "
        "as the lines or their commands say; `max_images`: images a patient, at most (4: the list `core`, 2: the half "
        f"of it); {DASH}: not said, `core`. Attacker seeds, several numbers: parts of the lines were made with "
        "each. Patients and images: the most that a line of the system rests on.",
        "\n".join(rows),
        f"<details><summary>{len(commands)} commands</summary>\n\n"
        + "\n".join(f"- `{c}`" for c in commands)
        + "\n\n</details>"
        if commands
        else "No line says which command made it.",
    ]


def _list_of(result: Result) -> str | None:
    """The list of images, from ``extra`` or from options of the command."""
    if result.extra.get("list"):
        return str(result.extra["list"])
    return ", ".join(f"`{key}={value}`" for key, value in _LIST.findall(result.command)) or None
