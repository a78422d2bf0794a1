"""The cards at the head of the report: the worst case of each threat model, of presence and of membership.

A colour is a verdict, and stands only where a high figure is known to be a failure; green only where an aim was set
(T1, and T3 of unlinkable releases) and attackers were as strong as the protocol has them. Two released images of one
patient (T3) are meant to be alike under the policy ``pseudonymous``, and must not be under ``unlinkable``; what is
found of membership has to be read beside what is found without the release. Without an interval nothing is claimed.
"""

from __future__ import annotations

from collections.abc import Mapping

from gmia_monai.metrics.results import Result
from gmia_monai.report.cells import FLOOR, number, takes_farthest, who
from gmia_monai.report.floor import floor_line
from gmia_monai.report.html_cells import limits

__all__ = ["AIM", "BAD", "THREATS", "headline_cards"]

# What the benchmark aims at under T1: an upper limit of at most this. Of a value of BAD or more the card is red.
AIM, BAD = 0.60, 0.75
THREATS = {
    "T1": "Another image of the person (T1)",
    "T2": "The very source image (T2)",
    "T3": "Two released images (T3)",
}
_LINKED = {
    "pseudonymous": "high is what the policy pseudonymous promises",
    "k_anonymous": "no verdict under the policy k_anonymous",
}
_UNSTATED = "no policy is stated, so no verdict"
Lines = Mapping[tuple[str, str | None], Result]


def headline_cards(lines: Lines, policy: str = "", weak: bool = False) -> list[dict[str, str]]:
    """Title, value, tone (``good``, ``mid``, ``bad`` or none) and note of each card that there is a line for.

    A threat model under which metadata alone were the worst attacker has none: no pixels were judged.

    Args:
        lines: by name and kind of negatives.
        policy: of the release, see :class:`gmia_monai.data.release.Release`.
        weak: whether attackers were weaker than they could have been, so that nothing is green.
    """
    cards = []
    for threat, title in THREATS.items():
        worst = _line(lines, f"verification_auc.{threat}.worst.v1", "matched")
        if worst is not None and worst.extra.get("attacker") != FLOOR:
            said = None if threat != "T3" or policy == "unlinkable" else _LINKED.get(policy, _UNSTATED)
            note = f"worst attacker: {_who(lines, worst)}" + (f"; {said}" if said else "")
            random = _line(lines, worst.name, "random")
            note += "" if random is None else f"; random negatives: {number(random.value or 0.0)}"
            tone = "" if said else _tone(worst, None if threat == "T2" or weak else AIM)
            cards.append(_card(title, worst, note, tone))
    presence = _line(lines, "presence_auc.worst.v1", None)
    if presence is not None:
        cards.append(
            _card("Among the sources? (presence)", presence, f"by {_who(lines, presence)}", _tone(presence, None))
        )
    membership = _line(lines, "membership_auc.worst.v1", None)
    if membership is not None:
        without = membership.extra.get("auc_without_release")
        beside = "" if without is None else f"; without the release {number(float(without))}"
        cards.append(_card("Learned from? (membership)", membership, f"by {who(membership)}{beside}", ""))
    floor = floor_line(lines, "T1", "matched")
    if cards and floor is not None:
        line, variant = floor
        others = [(threat, floor_line(lines, threat, "matched")) for threat in THREATS if threat != "T1"]
        beside = "".join(f"; {threat}: {number(found[0].value or 0)}" for threat, found in others if found is not None)
        cards.append(_card("Floor: metadata alone", line, f"T1, no pixels, {variant}{beside}", "", upper=False))
    return cards


def _who(lines: Lines, worst: Result) -> str:
    return who(worst) + (", farthest match" if takes_farthest(lines, worst) else "")


def _line(lines: Lines, name: str, negatives: str | None) -> Result | None:
    found = lines.get((name, negatives))
    return None if found is None or found.value is None else found


def _card(title: str, line: Result, note: str, tone: str, upper: bool = True) -> dict[str, str]:
    found = "without an interval" if line.high is None else limits(line)
    high = f"; upper limit {line.high:.3f}" if upper and line.high is not None else ""
    return {
        "title": title,
        "value": number(line.value or 0.0),
        "tone": tone,
        "note": f"AUC {found}{high}; {note}",
    }


def _tone(line: Result, aim: float | None) -> str:
    """Green where an aim was set for the figure, and is met."""
    if line.high is None:
        return ""
    return "good" if aim is not None and line.high <= aim else "bad" if (line.value or 0.0) >= BAD else "mid"
