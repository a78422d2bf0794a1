"""Tables of single attacks on the page of systems: what each found, by whom, and how to read it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from gmia_monai.metrics.results import Result
from gmia_monai.report.cells import (
    DASH,
    Cell,
    Columns,
    Lines,
    System,
    by_worst,
    find,
    interval,
    line,
    number,
    plain,
    table,
    who,
    who_is_worst,
)

__all__ = ["SECTIONS", "Section", "section_parts"]

_YEARS = ("under_1", "1_to_2", "2_to_5", "5_to_10", "10_or_more")
_SIGNALS = (
    *("loss_pixels", "loss_calibrated", "loss_frozen", "nearest_pixels", "nearest_calibrated_pixels"),
    *("nearest_frozen", "nearest_calibrated_frozen", "supervised", "shadow"),
)
_MEMORISED_BY = ("pixels", "frozen", "snn", "arcface")
_SUBGROUP = "verification_auc_subgroup.T1.worst."


@dataclass(frozen=True)
class Section:
    """Tables under one heading; left out where no line says anything.

    Attributes:
        title: the heading.
        note: how to read it.
        tables: by what stands above them; an empty text where nothing needs to.
    """

    title: str
    note: str
    tables: Mapping[str, Columns] = field(default_factory=dict)


def section_parts(systems: Mapping[str, System]) -> list[str]:
    """Paragraphs and tables of all sections that there are lines for."""
    parts = []
    for section in SECTIONS:
        shown = [(caption, table(systems, columns)) for caption, columns in section.tables.items()]
        shown = [(caption, text) for caption, text in shown if text]
        if shown:
            parts += [f"## {section.title}", section.note]
            parts += [text for item in shown for text in item if text]
    return parts


_CURVES = ("", "_by_chance")
_GALLERIES = (10, 30, 100, 300)


# -- cells of several lines ----------------------------------------------------------------------------------------
def _beside(key: str) -> Callable[[Result], str]:
    """The figure with a value of its ``extra`` in brackets."""

    def show(result: Result) -> str:
        other = result.extra.get(key)
        return interval(result) if other is None else f"{interval(result)} ({number(float(other))})"

    return show


def _extra(name: str, key: str, *negatives: str | None, show: Callable[[object], str] = str) -> Cell:
    def cell(lines: Lines) -> str:
        found = find(lines, name, *negatives)
        return DASH if found is None or found.extra.get(key) is None else show(found.extra[key])

    return cell


# -- verification ---------------------------------------------------------------------------------------------------
def _rates(threat: str) -> Columns:
    def worst(figure: str, negatives: str = "matched") -> Cell:
        def cell(lines: Lines) -> str:
            chosen = find(lines, f"verification_auc.{threat}.worst.v1", "matched")
            name = None if chosen is None else chosen.extra.get("attacker")
            return line(f"{figure}.{threat}.{name}.v1", negatives)(lines)

        return cell

    return {
        "attacker": line(f"verification_auc.{threat}.worst.v1", "matched", show=who),
        "TAR at FAR 1 %": worst("tar_at_far_1pct"),
        "TAR at FAR 0.1 %": worst("tar_at_far_0_1pct"),
        "TAR at FAR 0.1 %, random": worst("tar_at_far_0_1pct", "random"),
        "EER": worst("equal_error_rate"),
        "calibration error": worst("calibration_error"),
    }


def _highest_subgroup(lines: Lines) -> str:
    found = [r for (name, _), r in lines.items() if name.startswith(_SUBGROUP) and r.value is not None]
    if not found:
        return DASH
    highest = max(found, key=lambda r: r.value or 0.0)
    part = highest.name.removeprefix(_SUBGROUP).removesuffix(".v1").replace("_", " ")
    return f"{part}: {interval(highest)} ({len(found)} asked)"


def _years(part: str) -> Cell:
    def show(result: Result) -> str:
        return f"{interval(result)} ({result.n_patients})"

    return line(f"verification_auc_years.T1.worst.{part}.v1", "matched", show=show)


def _risk(part: str) -> Cell:
    return line(f"patient_risk.T1.worst.{part}.v1", "matched", show=_beside("chance"))


# -- linkability ----------------------------------------------------------------------------------------------------
def _linkability(side: str, threat: str) -> Columns:
    f1 = f"linkability_f1.{side}"

    def figure(name: str, show: Callable[[Result], str] = interval) -> Cell:
        return by_worst(threat, f1, f"linkability_{name}.{side}.{{}}.v1", "balanced", show=show)

    def threshold(result: Result) -> str:
        extra = result.extra
        values = extra.get("thresholds") or [extra[key] for key in ("threshold",) if key in extra]
        shown = ", ".join(number(float(value)) for value in values)
        return shown + (" (sign turned)" if shown and extra.get("sign") == -1.0 else "") or DASH

    paper = {
        f"paper's {label}": line(f"paper_linkability_{name}.{side}.frozen.v1", "balanced", None, show=plain)
        for label, name in {"F1": "f1", "accuracy": "accuracy", "TAR": "tar"}.items()
    }
    return {
        "attacker": who_is_worst(threat, f1),
        "F1": figure("f1"),
        "accuracy": figure("accuracy"),
        "TAR": figure("tar"),
        "FAR": figure("far"),
        "FRR": figure("frr", plain),
        "threshold": figure("f1", threshold),
        **paper,
    }


# -- the other attacks ------------------------------------------------------------------------------------------------
def _retrieval(direction: str) -> Columns:
    rank_1 = f"rank_1.{direction}.worst.v1"
    return {
        "attacker": line(rank_1, show=who),
        "rank-1": line(rank_1),
        "chance": _extra(rank_1, "chance", show=_as_number),
        "rank-5": line(f"rank_5.{direction}.worst.v1"),
        "mAP@R": line(f"map_at_r.{direction}.worst.v1"),
        "images in the gallery": _extra(rank_1, "gallery_sizes", show=_sizes),
    }


def _by_gallery(direction: str) -> Columns:
    """Rank-1 / rank-5 / mAP@R in galleries of the best match and random others, the same by chance in brackets."""
    names = {figure: f"{figure}.{direction}.worst.v1" for figure in ("rank_1", "rank_5", "map_at_r")}

    def cell(size: int) -> Cell:
        def show(lines: Lines) -> str:
            shown = []
            for figure, name in names.items():
                found = find(lines, name)
                curves = (
                    [{}, {}] if found is None else [found.extra.get(f"{figure}_at_gallery{k}") or {} for k in _CURVES]
                )
                value, chance = (curve.get(str(size)) for curve in curves)
                if value is not None:
                    shown.append(number(float(value)) + ("" if chance is None else f" ({number(float(chance))})"))
            return " / ".join(shown) or DASH

        return show

    return {f"{size} images": cell(size) for size in _GALLERIES}


def _as_number(value: object) -> str:
    return number(float(value)) if isinstance(value, float | int) else DASH


def _sizes(sizes: object) -> str:
    return " or ".join(f"{size:,}" for size in sizes) if isinstance(sizes, list) else DASH


def _attribute(name: str) -> Columns:
    released = f"attribute_auc.{name}.v1"
    return {
        "AUC, release": line(released),
        "AUC, real": line(f"attribute_auc_real.{name}.v1"),
        "accuracy, release": _extra(released, "accuracy", show=_as_number),
        "most frequent class": _extra(released, "most_frequent_class", show=_as_number),
    }


def _inversion(threat: str) -> Columns:
    gain = f"inversion_gain.{threat}.v1"

    def beats(lines: Lines) -> str:
        found = find(lines, gain, "matched", None)
        said = None if found is None else found.extra.get("beats_release")
        return DASH if said is None else "yes" if said else "no"

    return {
        "judge": line(f"inversion_auc.{threat}.v1", "matched", show=lambda r: r.attacker or DASH),
        "AUC, output": line(f"inversion_auc.{threat}.v1", "matched"),
        "AUC, release": line(f"inversion_auc_release.{threat}.v1", "matched"),
        "AUC, release, best judge": line(f"inversion_auc_release_best.{threat}.v1", "matched"),
        "gain": line(gain, "matched", None),
        "beats the release": beats,
    }


def _memorised(by: str) -> Cell:
    return line(f"memorised_share.{by}.v1", show=_beside("share_of_real_held_out"))


def _highest_risk(figure: str) -> Cell:
    """The highest risk of all attackers, with its attacker: no line says what V2 gave, so none can be chosen there."""
    prefix = f"anonymeter_{figure}."

    def cell(lines: Lines) -> str:
        found = [r for (name, _), r in lines.items() if name.startswith(prefix) and r.value is not None]
        if not found:
            return DASH
        highest = max(found, key=lambda r: r.value or 0.0)
        return f"{_no_better_marked(highest)} {highest.attacker} of {len(found)}"

    return cell


def _no_better_marked(result: Result) -> str:
    return interval(result) + ("" if result.extra.get("better_than_baseline", True) else " *")


def _budget(of: str) -> Cell:
    def show(result: Result) -> str:
        pairs = result.extra.get("training_pairs")
        return interval(result) + ("" if pairs is None else f" ({float(pairs):,.0f} pairs)")

    return line(f"verification_auc_budget.T1.{of}.v1", "matched", show=show)


_INNER_OUTER = {"inner": ("T3", "two released images"), "outer": ("T2", "a released image and its source")}

SECTIONS = (
    Section(
        "Error rates of the worst attacker",
        "The attacker of the headline, matched negatives but where a column says otherwise. TAR: share of pairs of one "
        "person that are accepted where 1 % or 0.1 % of pairs of two people are, of whom the latter needs 10,000; EER: "
        "where both errors are equal. These are of its signed score, also where the two-sided variant is the headline. "
        "Calibration error: how far its stated chance of one person is from the share that is right.",
        {
            "T1, another image of the person:": _rates("T1"),
            "T2, the very source:": _rates("T2"),
            "T3, two released images:": _rates("T3"),
        },
    ),
    Section(
        "Years between two images, and the tail",
        "T1, the attacker of the headline, matched negatives: does time hide a person? In brackets the patients for "
        "whom there are strangers with as many years between the images. Below it the patients who are found most "
        "easily; the risk of a patient is the chance that one of their pairs outscores a pair of two "
        "people, and brackets hold what chance gives. The subgroup is the highest of all that were asked, so some of "
        "it is luck.",
        {
            "": {p.replace("_", " "): _years(p) for p in _YEARS},
            "Patients and subgroups:": {
                "median risk": _risk("median"),
                "95th percentile": _risk("p95"),
                "share with risk above 0.9": _risk("above_0_9"),
                "share found at FAR 1 %": _risk("found_at_far_1pct"),
                "subgroup with the highest AUC": _highest_subgroup,
            },
        },
    ),
    Section(
        "The attacker's budget",
        "T1 AUC of the refitted attacker that was best on V2, matched negatives, with parts of the patients of A to "
        "learn from, and what the last doubling brought; then all of them with three times the updates, and what these "
        "brought. A gain above 0 says that the headline is no limit; where all columns are equal, no refit brought "
        "more on V2 than the network that it started from.",
        {
            "": {
                "attacker": line("verification_auc_budget.T1.1_of_1.v1", "matched", show=lambda r: str(r.attacker)),
                **{f"1/{part}" if part > 1 else "all": _budget(f"1_of_{part}") for part in (8, 4, 2, 1)},
                "gain of the last doubling": line("verification_auc_budget_gain.T1.v1", "matched"),
                "three times the updates": _budget("3_times_the_updates"),
                "gain of the updates": line("verification_auc_updates_gain.T1.v1", "matched"),
            }
        },
    ),
    Section(
        "Linkability",
        "Verdicts by a threshold, that of the highest F1 on V2, on pairs of one person and of two (random "
        "negatives) of equal weight: 0.5 accuracy and 0.667 F1 are had without looking. The attacker has the highest "
        "AUC on V2 under the threat model. FAR: pairs of two people that are accepted; FRR: pairs of one that are not. "
        "One threshold an attacker seed. Beside it the paper's figures of the same release by the optimiser's own "
        "encoder and the threshold of real pairs; its outer ones have no pairs of two people, so that accuracy and TAR "
        "are one number.",
        {
            f"{side.capitalize()} ({threat}), {what}:": _linkability(side, threat)
            for side, (threat, what) in _INNER_OUTER.items()
        },
    ),
    Section(
        "Retrieval",
        "An image looks for another image of its patient; the source itself is not in the gallery. The attacker has "
        "the highest mAP@R on V2. Chance is that of rank-1.",
        {
            "A released image in a gallery of real ones:": _retrieval("released_in_real"),
            "A real image in a gallery of released ones:": _retrieval("real_in_released"),
            "Rank-1, rank-5 and mAP@R of a released image in galleries of so many real ones (by chance):": _by_gallery(
                "released_in_real"
            ),
        },
    ),
    Section(
        "Singling out, linking and inferring, as Anonymeter frames them",
        "Risk: how much more often guesses on released patients are right than on strangers; 0: no more often. The "
        "attacker may hold the very source. Here the highest of all attackers on the judged role stands, which luck "
        "favours. *: no better than guesses without the release, so that the risk is not to be relied on.",
        {
            "": {
                "singling out": _highest_risk("singling_out_risk"),
                "linkability": _highest_risk("linkability_risk"),
            },
            "Inference of a secret:": {
                s: _highest_risk(f"inference_risk.{s}") for s in ("sex", "view", "age", "finding")
            },
        },
    ),
    Section(
        "Presence and membership",
        "Presence: is a patient among the sources of the release, given another image? Membership: did the system "
        "learn from the patient? Brackets: what the signal of membership finds without the release, so that only what "
        "is above it comes from there. Attacker, statistic and signal are chosen on V2. As published: the share of "
        "members that are taken for members, which says nothing without those who wrongly are.",
        {
            "Presence:": {
                "AUC": line("presence_auc.worst.v1"),
                "TPR at FPR 1 %": line("presence_tpr_at_fpr_1pct.worst.v1"),
                "attacker": line("presence_auc.worst.v1", show=who),
            },
            "Membership:": {
                "AUC (without release)": line("membership_auc.worst.v1", show=_beside("auc_without_release")),
                "gain over that": line("membership_gain.worst.v1"),
                "signal": line("membership_auc.worst.v1", show=who),
                "TPR at FPR 1 %": line("membership_tpr_at_fpr_1pct.worst.v1"),
                "AUC by patient": line("membership_auc_patient.worst.v1"),
                "members found, as published": line("membership_accuracy_members_only.paper.v1"),
            },
            "Membership by each signal:": {
                signal.replace("_", " "): line(f"membership_auc.{signal}.v1", show=_beside("auc_without_release"))
                for signal in _SIGNALS
            },
        },
    ),
    Section(
        "Memorisation",
        "Share of released images that are nearer to a training image than 99 % of unseen real images of V2 are, by "
        "pixels and by encoders; in brackets the share of unseen real images of the judged role that are. Excess: the "
        "difference of the two.",
        {
            "": {by: _memorised(by) for by in _MEMORISED_BY},
            "Excess:": {by: line(f"memorised_excess.{by}.v1") for by in _MEMORISED_BY},
        },
    ),
    Section(
        "Attributes",
        "What a network that learned from releases and real images reads off released images, beside what it reads off "
        "the real images behind them, either by the checkpoint that does it best on V2; 0.5 AUC is chance (macro over "
        "classes). Accuracy stands beside the share of the most frequent class, which a guess finds.",
        {"Sex:": _attribute("sex"), "View:": _attribute("view"), "Age band:": _attribute("age")},
    ),
    Section(
        "Inversion",
        "A network gives the real image back; the judge compares its output, and the release itself, with another "
        "image of the person (T1) and with the source (T2). An output that tells less than the release is a failed "
        "attack, not a safe release.",
        {"T1:": _inversion("T1"), "T2:": _inversion("T2")},
    ),
)
