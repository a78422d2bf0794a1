"""Does the alarm work? Every attack must ring on unchanged images and be silent on noise (protocol v1).

Silence is judged over the whole family of figures by Holm's step-down rule (Scandinavian Journal of Statistics 6:65,
1979): with some hundred figures, some 95 % intervals miss chance by chance. The distance of a figure from chance is
measured in units of that limit of its interval which lies on the side of chance; rates of a few hits are asked by exact
tests instead. A figure without an interval is judged by nothing and counts for nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import binomtest, norm

from gmia_monai.metrics.results import Result
from gmia_monai.report.cells import DASH, System, interval, number, row
from gmia_monai.typing import FloatArray

__all__ = ["CHANCE", "RINGS_ELSEWHERE", "Asked", "Figure", "alarm_parts", "figures_of", "holm"]

_HALF_WIDTH = 1.959964
_LEVEL = 0.05


@dataclass(frozen=True)
class Figure:
    """A figure of one attack beside chance.

    Attributes:
        attack: of :data:`CHANCE`.
        line: the result line.
        chance: its value where nothing is found.
        p: two-sided p-value of its being chance; of a risk or an excess, 1 where its interval holds 0 or less.
        rings: whether its interval lies on the side of chance where something is found.
    """

    attack: str
    line: Result
    chance: float
    p: float
    rings: bool


def _from_interval(line: Result, chance: float) -> float:
    assert line.value is not None and line.low is not None and line.high is not None
    if line.value == chance or (chance == 0.0 and line.low <= 0.0):  # less than no risk is no find
        return 1.0
    width = line.value - line.low if line.value > chance else line.high - line.value
    return float(2 * norm.sf(_HALF_WIDTH * abs(line.value - chance) / max(width, 1e-12)))


def _exact(line: Result, chance: float) -> float:
    """Each image hides with a known chance."""
    assert line.value is not None
    return float(binomtest(round(line.value * line.n_images), line.n_images, chance).pvalue)


@dataclass(frozen=True)
class Asked:
    """What is asked of the lines of one attack.

    Attributes:
        pattern: of their names.
        chance: the value where nothing is found, of a line; None: unknown, and the line is not asked.
        p_value: of a line and chance.
        finds_below: figures below chance are finds.
        of_labels: whether what is asked depends on whose image a released one is said to be, so that shuffled labels
            have to silence it.
    """

    pattern: str
    chance: Callable[[Result], float | None]
    p_value: Callable[[Result, float], float] = _from_interval
    finds_below: bool = False
    of_labels: bool = True


def _is(value: float) -> Callable[[Result], float | None]:
    return lambda line: value


def _says(key: str, otherwise: float | None = None) -> Callable[[Result], float | None]:
    """Chance as the line has it in ``extra``."""
    return lambda line: line.extra.get(key, otherwise)


def _places(share: Callable[[int], float]) -> Callable[[Result], float | None]:
    """Chance where the own image takes any of the places among ``n_others`` others alike."""
    return lambda line: share(line.extra["n_others"]) if line.extra.get("n_others") else None


def _spread(n: int) -> float:
    return float(np.abs(np.arange(n + 1) / n - 0.5).mean())


CHANCE: dict[str, Asked] = {
    **{
        f"verification, {threat}": Asked(
            rf"verification_auc(_two_sided)?\.{threat}\.(?!worst|metadata)\w+\.v1", _is(0.5)
        )
        for threat in ("T1", "T2", "T3")
    },
    "verification, budget": Asked(r"verification_auc_budget\.T1\.\w+\.v1", _is(0.5)),
    "linkability, accuracy": Asked(r"linkability_accuracy\.\w+\.(?!metadata)\w+\.v1", _is(0.5)),
    "retrieval, rank 1": Asked(r"rank_1\.\w+\.(?!worst)\w+\.v1", _says("chance")),
    "retrieval, rank 5": Asked(r"rank_5\.\w+\.(?!worst)\w+\.v1", _says("chance")),
    "retrieval, mAP@R": Asked(r"map_at_r\.\w+\.(?!worst)\w+\.v1", _says("chance")),
    "singling out, place": Asked(r"place_spread\.T2\.\w+\.v1", _places(_spread)),
    "singling out, hidden": Asked(
        r"hidden_rate_two_sided\.T2\.\w+\.v1", _places(lambda n: 1 - 2 / (n + 1)), _exact, finds_below=True
    ),
    "presence": Asked(r"presence_auc\.(?!worst)[\w.]+\.v1", _is(0.5)),
    "membership": Asked(r"membership_gain(_patient)?\.(?!worst)\w+\.v1", _is(0.0)),
    "memorisation": Asked(r"memorised_excess\.\w+\.v1", _is(0.0)),
    "attribute": Asked(r"attribute_auc\.\w+\.v1", _is(0.5)),
    "inversion": Asked(r"inversion_auc\.T[12]\.v1", _is(0.5)),
    "singling out, Anonymeter": Asked(r"anonymeter_singling_out_risk\.\w+\.v1", _is(0.0), of_labels=False),
    "linkability, Anonymeter": Asked(r"anonymeter_linkability_risk\.\w+\.v1", _is(0.0)),
    "inference, Anonymeter": Asked(r"anonymeter_inference_risk\.\w+\.\w+\.v1", _is(0.0)),
}
# Their positive controls are systems that know images by heart, not a release of unchanged ones.
RINGS_ELSEWHERE = ("membership", "memorisation")
SILENT_ON = ("noise", "shuffled")
_NAMED = 3
_NO_LABELS = (
    " Shuffled labels are no control of singling out as Anonymeter frames it: its predicates name nobody, and isolate "
    "the person whose image was released, whoever's it is said to be."
)


def figures_of(lines: Sequence[Result]) -> list[Figure]:
    """All figures of one system whose value by chance is known, and that have an interval."""
    found = []
    for line in lines:
        if line.value is None or line.low is None or line.high is None:
            continue
        for attack, asked in CHANCE.items():
            if not re.fullmatch(asked.pattern, line.name):
                continue
            chance = asked.chance(line)
            if chance is not None:
                rings = line.high < chance if asked.finds_below else line.low > chance
                found.append(Figure(attack, line, float(chance), asked.p_value(line, float(chance)), rings))
    return found


def holm(figures: Sequence[Figure]) -> FloatArray:
    """Adjusted p-values of the figures, in their order."""
    p = np.array([f.p for f in figures])
    order = np.argsort(p)
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)), 1.0)
    return adjusted


# -- the section of the page --------------------------------------------------------------------------------------
def alarm_parts(systems: Mapping[str, System]) -> list[str]:
    """What the attacks say of unchanged images, of noise and of shuffled patients; nothing without the first two."""
    parts = []
    for profile in dict.fromkeys(system.profile for system in systems.values()):
        of_profile = {s.name: s for s in systems.values() if s.profile == profile}
        if {"unchanged", "noise"} <= set(of_profile):
            parts += _of_profile(of_profile)
    return parts


def _of_profile(systems: Mapping[str, System]) -> list[str]:
    loud = figures_of(list(systems["unchanged"].lines.values()))
    quiet = {name: figures_of(list(systems[name].lines.values())) for name in SILENT_ON if name in systems}
    if "shuffled" in quiet:
        quiet["shuffled"] = [figure for figure in quiet["shuffled"] if CHANCE[figure.attack].of_labels]
    adjusted = {name: holm(figures) for name, figures in quiet.items()}
    heads = ["attack", "unchanged, most found", "who rings"]
    for name in quiet:
        heads += [f"{name}, farthest from chance", "chance", "p (Holm)", "silent"]
    rows = [row(heads), row(["---" if h in ("attack", "who rings", "silent") else "---:" for h in heads])]
    for attack, asked in CHANCE.items():
        cells = _ringing([f for f in loud if f.attack == attack], asked, attack)
        for name, figures in quiet.items():
            if name == "shuffled" and not asked.of_labels:
                cells += ["does not apply", DASH, DASH, DASH]
                continue
            cells += _silent([(f, p) for f, p in zip(figures, adjusted[name], strict=True) if f.attack == attack])
        rows.append(row([attack, *cells]))
    counts = ", ".join(f"{len(figures)} of {name}" for name, figures in quiet.items())
    shuffled = " and on a release whose patients' labels are permuted" if "shuffled" in quiet else ""
    return [
        "## Does the alarm work?",
        f"Each attack on unchanged images, where it has to ring, and on noise{shuffled}, where it has to be silent. "
        "Who rings: how many attackers find something on unchanged images with any of their figures, and up to "
        f"{_NAMED} of those who do not; what is read stands for attackers of attributes, the threat model for those of "
        "inversion, the share for the budget. "
        f"All figures of all attackers of a release are asked at once ({counts}), so p-values are Holm's; silent: p of "
        f"at least 0.05; {DASH}: no line, or none that says what chance gives. Membership is asked for what its AUC "
        "gains over that of the same signal where the released images are exchanged for real ones of strangers, with "
        "the interval of this difference; memorisation for the excess of copies over unseen real images; of either, "
        "less than nothing is no find. These two attacks do not ring on "
        "unchanged images: their positive controls are an auto-encoder that learned a few patients by heart and "
        "planted copies, on the synthetic cohort in the tests and, where `results.md` has a section of positive "
        "controls, on real radiographs. The likelihood-ratio attack on a small auto-encoder in `results.md` is another "
        "attack." + (_NO_LABELS if "shuffled" in quiet else ""),
        "\n".join(rows),
    ]


def _ringing(figures: Sequence[Figure], asked: Asked, attack: str) -> list[str]:
    if attack in RINGS_ELSEWHERE or not figures:
        return [DASH, DASH]
    side = -1.0 if asked.finds_below else 1.0
    most = max(figures, key=lambda f: side * (f.line.value or 0.0))
    return [interval(most.line), _who_rings(figures)]


def _who_rings(figures: Sequence[Figure]) -> str:
    """How many of those that have figures ring, and who does not. Who has several figures rings with any of them, by
    Holm's rule: with many, one rings by chance."""
    by_name: dict[str, list[Figure]] = {}
    for figure in figures:
        by_name.setdefault(figure.line.name.split(".")[-2], []).append(figure)
    dead = []
    for name, own in by_name.items():
        if not any(f.rings and p < _LEVEL for f, p in zip(own, holm(own), strict=True)):
            dead.append(name)
    count = f"{len(by_name) - len(dead)} of {len(by_name)}"
    if not dead:
        return count
    more = f" and {len(dead) - _NAMED} more" if len(dead) > _NAMED else ""
    return f"**{count}**, not {', '.join(f'`{name}`' for name in dead[:_NAMED])}{more}"


def _silent(figures: Sequence[tuple[Figure, float]]) -> list[str]:
    if not figures:
        return [DASH] * 4
    farthest, p = min(figures, key=lambda item: item[0].p)
    shown = f"{interval(farthest.line)} ({len(figures)} figures)"
    return [shown, number(farthest.chance), f"{p:.2g}", "yes" if p >= _LEVEL else "**no**"]
