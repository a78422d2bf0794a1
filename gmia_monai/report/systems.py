"""One page that compares systems, generated from their result lines:
``python -m gmia_monai.report.systems bundle/docs/results/systems OUT.md``.

The headline of the protocol first, then who found what, then the tables of GMIA's paper in its own protocol.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from gmia_monai.metrics.results import Result
from gmia_monai.report.alarm import CHANCE, RINGS_ELSEWHERE, figures_of, holm
from gmia_monai.report.page import write_page

__all__ = ["main", "systems_markdown"]

Lines = Mapping[tuple[str, str | None], Result]
# heading of a column: (name of the line, negatives)
Columns = Mapping[str, tuple[str, str | None]]

HEADLINE: Columns = {
    "T1 worst, matched": ("verification_auc.T1.worst.v1", "matched"),
    "T1 worst, random": ("verification_auc.T1.worst.v1", "random"),
    "T2 worst": ("verification_auc.T2.worst.v1", "matched"),
    "T3 worst": ("verification_auc.T3.worst.v1", "matched"),
    "T1 metadata": ("verification_auc.T1.metadata.v1", "matched"),
    "presence worst": ("presence_auc.worst.v1", None),
    "membership worst": ("membership_auc.worst.v1", None),
}
UTILITY: Columns = {
    "AUROC, trained on the release": ("utility_macro_auroc.released_to_real.small.v1", None),
    "loss": ("utility_macro_auroc_loss.released_to_real.small.v1", None),
    "loss, other architecture": ("utility_macro_auroc_loss.released_to_real.small_densenet.v1", None),
    "loss, tested on the release": ("utility_macro_auroc_loss.real_to_released.small.v1", None),
    "KID": ("kid.loss.v1", None),
    "PSNR": ("fidelity_psnr.v1", None),
}
PAPER_1: Columns = {
    "PSNR": ("fidelity_psnr.v1", None),
    "SSIM": ("fidelity_ssim.v1", None),
    "MS-SSIM, 3 scales": ("fidelity_ms_ssim_3scale.v1", None),
    "IW-SSIM": ("fidelity_iw_ssim.v1", None),
    "LPIPS, own trunk": ("fidelity_lpips_cxr.v1", None),
}
PAPER_2: Columns = {
    label: (f"utility_paper_{figure}.released_to_real.small.v1", None)
    for label, figure in {"Acc": "accuracy", "AP": "ap", "AUROC": "auroc", "F1": "f1"}.items()
}
PAPER_3 = ("f1", "accuracy", "tar", "frr")
PAPER_4 = {"HR": "hidden_rate", "LC avatars": "local_cloaking_avatars", "LC records": "local_cloaking_records"}


def systems_markdown(results: Sequence[Result], command: str = "python -m gmia_monai.report.systems") -> str:
    """Tables with one row a system, in the order of the lines.

    Args:
        results: lines of one or more systems.
        command: what made the page.
    """
    systems: dict[str, dict[tuple[str, str | None], Result]] = {}
    for result in results:
        systems.setdefault(result.system, {})[result.name, result.negatives] = result
    parts = [
        "# Systems under attack",
        f"Generated from the result lines in `results/systems/` by `{command}`; edits are lost. Test role of "
        "evaluation protocol v1 at 64 px, at most four images a patient; 95 % intervals over patients and attacker "
        "seeds. –: no line yet, or nothing to measure.",
    ]
    if not systems:
        return "\n\n".join([*parts, "No result lines yet."]) + "\n"
    parts += [
        "## Headline",
        "Verification AUC of the attacker that was worst on V2, among those that look at pixels, with its sign. T1: "
        "another image of the person; T2: the very source; T3: two released images. 0.5: nothing is found. `metadata` "
        "uses no pixels and is the floor. About 300 patients have pairs: differences below 0.03 near 0.5 mean nothing. "
        "Patients weigh alike, as far as negatives can be found for them"
        + _patients(systems)
        + "; negatives weigh so that each image is as frequent among them as among positives: a score of one image "
        "alone has AUC 0.5.",
        _table(systems, HEADLINE, _with_interval),
        "Which attacker that was:",
        _table(systems, {k: v for k, v in HEADLINE.items() if "worst" in k}, _who),
        "## Who finds whom",
        "T1, matched negatives: AUC of each attacker as it stands (signed), the same two-sided below it. Below 0.5 a "
        "signed attacker finds people by taking the farthest match.",
        _table(systems, _attackers(results, "verification_auc"), _plain),
        "Two-sided:",
        _table(systems, _attackers(results, "verification_auc_two_sided"), _plain),
    ]
    if any(key in lines for lines in systems.values() for key in UTILITY.values()):
        parts += [
            "## Utility and fidelity",
            "Macro AUROC of a classifier trained on released images and tested on real ones; loss against training on "
            "the same images, real.",
            _table(systems, UTILITY, _with_interval),
        ]
    parts += _alarm(systems)
    parts += [
        "## The paper's tables, in the paper's protocol",
        "Table 1, released images beside their sources (IW-SSIM needs 161 pixels; LPIPS on the trunk of the own "
        "utility encoder, on a scale of its own):",
        _table(systems, PAPER_1, _plain),
        "Table 2, trained on the release and tested on real images: mean over those of the paper's four labels that "
        f"the test images have ({_paper_labels(results) or 'none yet'}); `real` is trained on the same images, real:",
        _table(_with_real(systems), PAPER_2, _plain),
        "GMIA (Li et al., ISBI 2025) judges by the encoder that it optimises against. Its outer pairs are positives "
        'alone, and its "FAR" is the false-reject rate (FRR here). Table 3, linkability:',
        _table(systems, _paper_3(), _plain),
        "Table 4, singling out (images count alike, one side only):",
        _table(systems, {k: (f"{v}.T2.frozen.v1", None) for k, v in PAPER_4.items()}, _plain),
        "The same by an attacker refitted on releases, two-sided and by patient: the share whose own image is neither "
        "the nearest nor the farthest, and how far its place is from the middle (0.25 at chance, 0.5 at worst):",
        _table(
            systems,
            {
                "hidden, two-sided": ("hidden_rate_two_sided.T2.adaptive_cross.v1", None),
                "hidden, by patient": ("hidden_rate_patient.T2.adaptive_cross.v1", None),
                "spread of places": ("place_spread.T2.adaptive_cross.v1", None),
            },
            _with_interval,
        ),
        "## Commands",
        "\n".join(f"- `{c}`" for c in dict.fromkeys(r.command for r in results if r.command)),
    ]
    return "\n\n".join(parts) + "\n"


def _alarm(systems: Mapping[str, Lines]) -> list[str]:
    """What the attacks say of unchanged images and of noise; nothing where one of the two is missing."""
    if not {"unchanged", "noise"} <= set(systems):
        return []
    loud, quiet = (figures_of(list(systems[name].values())) for name in ("unchanged", "noise"))
    adjusted = holm(quiet)
    heads = ["attack", "unchanged, highest", "rings", "noise, farthest from chance", "chance", "p (Holm)", "silent"]
    rows = [_row(heads), _row(["---", "---:", "---", "---:", "---:", "---:", "---"])]
    for attack in CHANCE:
        rings = [f for f in loud if f.attack == attack and attack not in RINGS_ELSEWHERE]
        noise = [(abs(f.z), f, p) for f, p in zip(quiet, adjusted, strict=True) if f.attack == attack]
        highest = max(rings, key=lambda f: f.line.value or 0.0, default=None)
        farthest = max(noise, key=lambda item: item[0], default=None)
        cells = [attack, "–", "–"]
        if highest is not None:
            cells = [attack, _with_interval(highest.line), "yes" if highest.rings else "**no**"]
        if farthest is None:
            cells += ["–", "–", "–", "–"]
        else:
            _, figure, p = farthest
            shown = f"{_with_interval(figure.line)} ({len(noise)} figures)"
            cells += [shown, _number(figure.chance), f"{p:.2g}", "yes" if p >= 0.05 else "**no**"]
        rows.append(_row(cells))
    return [
        "## Does the alarm work?",
        f"Each attack on unchanged images, where it has to ring, and on noise, where it has to be silent: {len(quiet)} "
        "figures of all attackers are asked at once, so p-values are Holm's. Membership rings on its own positive "
        "control, a generator that learned its images by heart (`results.md`), not on unchanged images.",
        "\n".join(rows),
    ]


def _patients(systems: Mapping[str, Lines]) -> str:
    """How many patients each threat model rests on."""
    found = []
    for threat in ("T1", "T2", "T3"):
        key = (f"verification_auc.{threat}.worst.v1", "matched")
        found += [f"{threat}: {lines[key].n_patients} patients" for lines in systems.values() if key in lines][:1]
    return f" ({', '.join(found)})" if found else ""


def _with_real(systems: Mapping[str, Lines]) -> Mapping[str, Lines]:
    """The systems under a row of classifiers that learned from the same images, real."""
    real = {
        (name.replace("real_to_real", "released_to_real"), negatives): line
        for lines in systems.values()
        for (name, negatives), line in lines.items()
        if "real_to_real" in name
    }
    return {"real": real, **systems} if real else systems


def _paper_labels(results: Sequence[Result]) -> str:
    found = [r.extra["per_finding"] for r in results if r.name.startswith("utility_paper_auroc.")]
    return ", ".join(sorted({name for names in found if isinstance(names, dict) for name in names}))


def _attackers(results: Sequence[Result], figure: str) -> Columns:
    prefix = f"{figure}.T1."
    names = dict.fromkeys(r.name.removeprefix(prefix).split(".")[0] for r in results if r.name.startswith(prefix))
    return {name: (f"{prefix}{name}.v1", "matched") for name in names if name != "worst"}


def _paper_3() -> Columns:
    return {
        f"{side} {figure}": (
            f"paper_linkability_{figure}.{side}.frozen.v1",
            "balanced" if side == "inner" else None,
        )
        for side in ("inner", "outer")
        for figure in PAPER_3
    }


def _table(systems: Mapping[str, Lines], columns: Columns, show: Callable[[Result], str]) -> str:
    rows = [_row(["system", *columns]), _row(["---", *["---:"] * len(columns)])]
    for system, lines in systems.items():
        found = [lines.get(key) for key in columns.values()]
        rows.append(_row([system, *("–" if line is None or line.value is None else show(line) for line in found)]))
    return "\n".join(rows)


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _number(value: float) -> str:
    return f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}"


def _plain(result: Result) -> str:
    return _number(result.value or 0.0)


def _with_interval(result: Result) -> str:
    if result.low is None or result.high is None:
        return _plain(result)
    return f"{_plain(result)} [{_number(result.low)}, {_number(result.high)}]"


def _who(result: Result) -> str:
    variant = str(result.extra.get("variant", "")).replace("_", "-")
    return " ".join(word for word in (str(result.extra.get("attacker", "–")), variant) if word)


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line: reads result lines, writes the page."""
    return write_page("gmia_monai.report.systems", __doc__, systems_markdown, arguments)


if __name__ == "__main__":
    raise SystemExit(main())
