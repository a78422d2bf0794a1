"""The report of a release: what was released, held and rejected, why, and on what the limits rest; from the ledger.

One HTML file without scripts or anything from the network, and the same as JSON. It holds handles, codes and numbers
only, and shows no image.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

import gmia_monai
from gmia_monai.dicom.atomic import atomic_path
from gmia_monai.dicom.ps315 import EDITION
from gmia_monai.errors import UsageError
from gmia_monai.release.ledger import Entry, read_ledger
from gmia_monai.release.reasons import reason
from gmia_monai.report.plots import as_svg
from gmia_monai.typing import PathLike

__all__ = ["MEANING", "ReleaseFacts", "release_facts", "release_report"]

_STATES = ("released", "held", "rejected")
MEANING = {
    "identity": "similarity to images of the same patient, by a network that had no part in making the image",
    "utility_drift": "mean change of the probabilities of findings",
    "contrast": "standard deviation of the grey values",
    "upscale": "enlargement of the model's image",
    "copy": "largest similarity to an image that the models learned from",
    "text": "words found in the new image",
    "header": "elements of the new header that should not be there",
    "pixels": "grey levels between what was meant and what was written",
}
_PICTURES = ("identity", "utility_drift", "contrast", "copy")


@dataclass(frozen=True)
class ReleaseFacts:
    """What a ledger says.

    Attributes:
        ends: number of instances by end.
        codes: number of instances by reason.
        scores: of each check, smallest and largest score of each image, ``[n, 2]``.
        released: whether each of these images was released, ``[n]``.
        run: the last run: settings, limits, weights.
        batch: what the attack on the whole release found; None where none was made.
        decisions: number of images by what a person said last, ``accept`` or ``hold``.
        overruled: number of released images that a person released against a check, by the check's code.
        complete: whether every file had its end.
        head: of the ledger.
    """

    ends: Mapping[str, int]
    codes: Mapping[str, int]
    scores: Mapping[str, np.ndarray] = field(repr=False)
    released: Mapping[str, np.ndarray] = field(repr=False)
    run: Mapping[str, Any] = field(repr=False)
    batch: Mapping[str, Any] | None
    decisions: Mapping[str, int]
    overruled: Mapping[str, int]
    complete: bool
    head: str

    def to_json(self) -> dict[str, Any]:
        """Plain values; of scores their quantiles."""
        quantiles = (0.0, 0.01, 0.5, 0.99, 1.0)
        shown = {}
        for name, pairs in self.scores.items():
            for kind, keep in (("released", self.released[name]), ("held", ~self.released[name])):
                if keep.any():
                    shown[f"{name}, {kind}"] = {
                        "n": int(keep.sum()),
                        **{f"q{q:g}": round(float(np.quantile(pairs[keep], q)), 6) for q in quantiles},
                    }
        run = dict(self.run)
        facts = {"ends": dict(self.ends), "codes": dict(self.codes), "scores": shown, "run": run}
        return facts | {
            "batch": self.batch,
            "decisions": dict(self.decisions),
            "overruled": dict(self.overruled),
            "complete": self.complete,
            "ledger_head": self.head,
        }


def release_facts(folder: PathLike, key: bytes | None = None) -> ReleaseFacts:
    """What the ledger of a release says.

    Args:
        folder: of the release.
        key: project key, to check the chain of the ledger with.

    Raises:
        UsageError: ``GM-U425`` where there is no ledger.
        IntegrityError: ``GM-W301`` where it was changed.
    """
    path = Path(folder) / "ledger.jsonl"
    if not path.is_file():
        raise UsageError("GM-U425", "no ledger there", next_step="name the folder of a release")
    entries = read_ledger(path, key)
    # One that waited for the attack on the whole release has two lines: the last one counts.
    instances = list({e.body["handle"]: dict(e.body) for e in entries if e.kind == "instance"}.values())
    found: dict[str, list[tuple[float, float]]] = {}
    released: dict[str, list[bool]] = {}
    for body in instances:
        for name, (low, high) in body.get("scores", {}).items():
            found.setdefault(name, []).append((float(low), float(high)))
            released.setdefault(name, []).append(body["state"] == "released")
    verdicts = {e.body["handle"]: str(e.body["verdict"]) for e in entries if "verdict" in e.body}
    counts = Counter(str(body["state"]) for body in instances)
    return ReleaseFacts(
        {state: counts[state] for state in _STATES},
        dict(sorted(Counter(code for body in instances for code in body.get("codes", ())).items())),
        {name: np.array(pairs) for name, pairs in found.items()},
        {name: np.array(flags) for name, flags in released.items()},
        _last(entries, "run") or {},
        _last(entries, "batch"),
        dict(sorted(Counter(verdicts.values()).items())),
        dict(sorted(Counter(code for body in instances for code in body.get("overruled", ())).items())),
        bool(entries) and entries[-1].kind == "complete",
        _head(path),
    )


def release_report(folder: PathLike, key: bytes | None = None, output: PathLike | None = None) -> Path:
    """Writes ``report.html`` and ``report.json``; returns the first.

    Args:
        folder: of the release.
        key: as :func:`release_facts`.
        output: folder to write to; None: that of the release.

    Raises:
        GmiaError: as :func:`release_facts`.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    facts = release_facts(folder, key)
    environment = Environment(
        loader=PackageLoader("gmia_monai.report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    page = environment.get_template("release.html").render(
        facts=facts,
        total=sum(facts.ends.values()),
        size=facts.run.get("image_size"),
        largest=_largest(facts, "upscale"),
        reasons_of={code: reason(code) for code in facts.overruled},
        reasons=[(code, number, reason(code)) for code, number in facts.codes.items()],
        checks=_checks(facts),
        pictures=[picture for name in _PICTURES if (picture := _picture(facts, name)) is not None],
        rates=facts.run.get("rates", {}),
        provenance=_provenance(facts, key is not None),
    )
    target = Path(folder if output is None else output)
    target.mkdir(parents=True, exist_ok=True)
    texts = {"report.json": json.dumps(facts.to_json(), indent=1, sort_keys=True) + "\n", "report.html": page}
    for name, text in texts.items():
        with atomic_path(target / name) as temporary:
            temporary.write_text(text, encoding="utf-8")
    return target / "report.html"


def _last(entries: Sequence[Entry], kind: str) -> dict[str, Any] | None:
    of_kind = [dict(entry.body) for entry in entries if entry.kind == kind]
    return of_kind[-1] if of_kind else None


def _head(path: Path) -> str:
    lines = path.read_bytes().splitlines(keepends=True)
    return hashlib.sha256(lines[-1]).hexdigest() if lines else ""


def _largest(facts: ReleaseFacts, name: str) -> float | None:
    """Largest score of the images that were released."""
    if name not in facts.scores or not facts.released[name].any():
        return None
    return float(facts.scores[name][facts.released[name]].max())


def _checks(facts: ReleaseFacts) -> list[tuple[str, str, str, str]]:
    """Name, meaning, limits, and the range of what was released, of each check."""
    rows = []
    for name, (low, high) in facts.run.get("limits", {}).items():
        limits = _limits(low, high)
        passed = facts.scores[name][facts.released[name]] if name in facts.scores else np.zeros((0, 2))
        seen = f"{passed.min():.4g} to {passed.max():.4g}" if len(passed) else "–"
        rows.append((name.replace("_", " "), MEANING.get(name, ""), limits, seen))
    return rows


def _limits(low: float | None, high: float | None) -> str:
    if low is None or high is None:
        return f"at most {high:g}" if high is not None else "–" if low is None else f"at least {low:g}"
    return f"{low:g} to {high:g}"


def _picture(facts: ReleaseFacts, name: str) -> dict[str, Any] | None:
    """Scores of all images, the limits as lines; every score stands for one image, its worst one."""
    if name not in facts.scores:
        return None
    from matplotlib.figure import Figure

    low, high = facts.run.get("limits", {}).get(name, (None, None))
    pairs, kept = facts.scores[name], facts.released[name]
    worst = pairs[:, 0] if high is None else pairs[:, 1]
    figure = Figure(figsize=(5.2, 3.2), layout="constrained")
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    ends = [float(limit) for limit in (low, high) if limit is not None]
    edges = np.linspace(min([*ends, float(worst.min())]), max([*ends, float(worst.max())]) + 1e-9, 41)
    groups = [(kept, "released", "#0b6b4f"), (~kept, "held", "#b42318")]
    shown = [(worst[keep], label, colour) for keep, label, colour in groups if keep.any()]
    axes.hist([g[0] for g in shown], edges, stacked=True, label=[g[1] for g in shown], color=[g[2] for g in shown])
    for limit in (low, high):
        if limit is not None:
            axes.axvline(limit, color="#444c56", linestyle="--", linewidth=1.2)
    axes.set(xlabel=name.replace("_", " "), ylabel="images")
    axes.legend(fontsize=8, frameon=False)
    return {"svg": as_svg(figure), "caption": f"{MEANING[name][0].upper()}{MEANING[name][1:]}. Dashed: the limits."}


def _provenance(facts: ReleaseFacts, keyed: bool) -> list[tuple[str, str]]:
    run = facts.run
    rows = [
        ("ledger head", facts.head),
        ("ledger", "chain checked with the project key" if keyed else "chain checked without the project key"),
        ("gmia_monai", f"{run.get('version', '')}; this page by {gmia_monai.__version__}"),
        ("policy, sha256", str(run.get("policy", ""))),
        ("calibration, sha256", str(run.get("calibration", ""))),
        ("headers", f"PS3.15 Basic Profile, edition {EDITION}"),
    ]
    for title, part in (("made by", "weights"), ("judged by", "watching")):
        rows += [(f"{title} {name}", str(digest)) for name, digest in run.get(part, {}).items()]
    return rows
