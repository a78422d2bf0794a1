"""What attackers recover, in words that need no statistics: one paragraph a system, made of its lines alone."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

from gmia_monai.metrics.results import Result
from gmia_monai.report.cells import Lines, System, chosen_line, find, kept_start, number, takes_farthest, who
from gmia_monai.report.floor import floor_line

__all__ = ["ATTACKERS", "HELD", "recovered"]

HELD = {
    "T1": "Holding other images of the person (T1)",
    "T2": "Holding the very source image (T2)",
    "T3": "Holding two released images (T3)",
}
ATTACKERS = {
    "frozen": "uses the encoder that the system optimised against",
    "snn": "uses a Siamese network trained on real images",
    "arcface": "uses an ArcFace network trained on real images",
    "linear": "fits a linear map from embeddings of released images to those of real ones",
    "linear_snn": "fits a linear map from a Siamese network's embeddings of released images to those of real ones",
    "linear_frozen": "fits a linear map from the optimiser's own embeddings of released images to those of real ones",
    "adaptive_released": "retrains a network on pairs of released images of other people",
    "adaptive_cross": "retrains a network on released and real images of other people",
    "adaptive_cross_snn": "retrains a Siamese network on released and real images of other people",
    "adaptive_cross_frozen": "retrains the optimiser's own encoder on released and real images of other people",
    "adaptive_source": "retrains a network on released images of other people and their very sources",
    "averaging": "scores all images of a person that there are together",
    "fusion": "weighs the evidence of all attackers together",
    "ensemble": "weighs the evidence of all attackers, each trained with several seeds, together",
    "fused_pairs": "weighs the evidence of all attackers on each pair of images",
    "owner_fresh": "has the system itself and compares with a fresh release of the real image",
    "owner": "has the system itself and weighs a refitted network, the system's encoder and fresh releases together",
}
_ADAPTIVE = [name for name in ATTACKERS if name.startswith(("linear", "adaptive", "owner"))]


def recovered(systems: Mapping[str, System]) -> list[str]:
    """A paragraph for each system with a headline; none otherwise."""
    found = [(label, _paragraph(system.lines)) for label, system in systems.items()]
    return [f"**{label}.** {text}" for label, text in found if text]


def _paragraph(lines: Lines) -> str:
    sentences = [f(lines, threat, held) for threat, held in HELD.items() for f in (_sentence, _adaptive, _more_updates)]
    sentences += [_presence(lines), _membership(lines)]
    sentences = [sentence for sentence in sentences if sentence]
    return " ".join([*sentences, _papers(lines)]).strip() if sentences else ""


def _sentence(lines: Lines, threat: str, held: str) -> str:
    worst = find(lines, f"verification_auc.{threat}.worst.v1", "matched")
    if worst is None:
        return ""
    floor = floor_line(lines, threat, "matched")
    beside = "" if floor is None else f"; metadata alone, in {_of_100(floor[0])}"
    return f"{held}, an attacker who {_does(worst, lines)} (`{who(worst)}`) is right in {_of_100(worst)}{beside}."


def _adaptive(lines: Lines, threat: str, held: str) -> str:
    """What is found by one network, or one map, that learned from releases; where it is not the worst already."""
    worst = find(lines, f"verification_auc.{threat}.worst.v1", "matched")
    chosen = chosen_line(lines, threat, _ADAPTIVE)
    if worst is None or chosen is None or worst.extra.get("attacker") in _ADAPTIVE:
        return ""
    found, variant = chosen
    helped = ", though no update helped it" if kept_start(found) else ""
    found = replace(found, extra=found.extra | {"attacker": found.attacker, "variant": variant})
    return (
        f"The best single attacker that adapts to the system, on releases of other people (`{who(found)}`), is right "
        f"in {_of_100(found)}, from two images at a time{helped}."
    )


def _more_updates(lines: Lines, threat: str, held: str) -> str:
    """Said where an attacker who learns longer has been shown to find more."""
    gain = find(lines, f"verification_auc_updates_gain.{threat}.v1", "matched")
    if gain is None or gain.low is None or gain.low <= 0:
        return ""
    return (
        f"This is no limit: with three times the updates, `{gain.attacker}` is right in "
        f"{_hundredths(gain.value or 0.0)} more of 100."
    )


def _presence(lines: Lines) -> str:
    worst = find(lines, "presence_auc.worst.v1")
    if worst is None:
        return ""
    return (
        "Asked which of two patients is among the sources of the release, given another image of both, an attacker "
        f"who {_does(worst, lines)} (`{who(worst)}`) is right in {_of_100(worst)}."
    )


def _membership(lines: Lines) -> str:
    worst = find(lines, "membership_auc.worst.v1")
    if worst is None:
        return ""
    without = worst.extra.get("auc_without_release")
    beside = "" if without is None else f"; without the release, in {_hundredths(float(without))} of 100"
    return (
        f"Asked from which of two people's images the system learned, the signal `{who(worst)}` is right in "
        f"{_of_100(worst)}{beside}."
    )


def _does(worst: Result, lines: Lines) -> str:
    name = str(worst.extra.get("attacker"))
    does = ATTACKERS.get(name, f"is called {name}")
    if takes_farthest(lines, worst):
        return does + " and takes the farthest match"
    return does + (" and takes unlikeness for a sign, too," if worst.extra.get("variant") == "two_sided" else "")


def _of_100(line: Result) -> str:
    assert line.value is not None
    upper = "" if line.high is None else f" (upper limit {_hundredths(line.high, up=True)})"
    return f"{_hundredths(line.value)} of 100{upper}"


def _hundredths(share: float, up: bool = False) -> str:
    """Whole numbers, but one decimal near 0 and 100; an upper limit is never rounded down."""
    scale = 1 if 0.01 <= share <= 0.99 else 10
    scaled = round(100 * share * scale, 6)
    return f"{(math.ceil(scaled) if up else round(scaled)) / scale:g}"


def _papers(lines: Lines) -> str:
    """The published figures of the same release."""
    hidden = find(lines, "paper_hidden_rate.T2.frozen.v1") or find(lines, "hidden_rate.T2.frozen.v1")
    tar = find(lines, "paper_linkability_tar.outer.frozen.v1")
    figures = [
        f"{name} {number(line.value)}"
        for name, line in (("hidden rate", hidden), ("outer true-accept rate", tar))
        if line is not None and line.value is not None
    ]
    return f"In the paper's own protocol the same release has: {', '.join(figures)}." if figures else ""
