"""The report of an evaluation: self-contained, escaped, honest where figures are missing, and readable by a browser."""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
import subprocess
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from attack_cohorts import SIZE, judged
from PIL import Image

from gmia_monai.attacks.base import Judged
from gmia_monai.errors import UsageError
from gmia_monai.handlers.attacks import AttackLines
from gmia_monai.metrics.limits import Interval
from gmia_monai.metrics.results import RunContext
from gmia_monai.report import sections
from gmia_monai.report.attack_sections import attack_sections
from gmia_monai.report.evaluation import evaluation_report, report_handlers
from gmia_monai.report.plots import roc_picture

BROWSER = next((found for name in ("chromium", "google-chrome", "chrome") if (found := shutil.which(name))), None)
needs_browser = pytest.mark.skipif(
    BROWSER is None,
    reason="no Chromium on this machine: NOT checked here are console errors and requests of the report in a browser",
)


def _results(system: str = "gmia m=-0.5"):
    context = RunContext(system, "cxr64", release_hash="ab" * 8, config_hash="cd" * 8, command="judge it --seeds 3")
    shared = {"n_patients": 309, "n_images": 1326, "negatives": "matched"}
    worst = {"attacker": "adaptive_cross", "variant": "two_sided"}
    of_metadata = {"attacker": "metadata", "extra": {"auc_on_choice": [0.6]}}
    return [
        context.result("verification_auc.T1.frozen.v1", Interval(0.41, 0.39, 0.44), attacker="frozen", **shared),
        context.result("verification_auc.T1.metadata.v1", Interval(0.61, 0.6, 0.63), **of_metadata, **shared),
        context.result("equal_error_rate.T1.frozen.v1", float("nan"), attacker="frozen", **shared),
        context.result("tar_at_far_0_1pct.T1.frozen.v1", 0.123, attacker="frozen", **shared),
        context.result(
            "verification_auc.T1.worst.v1", Interval(0.81, 0.78, 0.84), attacker="worst", extra=worst, **shared
        ),
        context.result(
            "rank_1.released_in_real.worst.v1",
            Interval(0.3, 0.2, 0.4),
            n_patients=309,
            n_images=1000,
            attacker="worst",
            extra={
                "rank_1_at_gallery": {"10": 0.8, "100": 0.4, "1000": 0.3},
                "rank_1_at_gallery_by_chance": {"10": 0.2, "100": 0.03, "1000": 0.003},
            },
        ),
        context.result("hidden_rate.T2.frozen.v1", 1.0, n_patients=675, n_images=1326, attacker="frozen"),
    ]


DATA = {
    "roc/T1/frozen": np.stack([np.linspace(0, 1, 201)] * 2),
    "roc/T1/metadata": np.stack([np.linspace(0, 1, 201)] * 2),
    "histogram/T1/adaptive_cross": np.stack([np.ones(61), np.ones(61), np.linspace(-1, 1, 61)]),
}


class _Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.tags: list[str] = []

    def handle_starttag(self, tag, attrs) -> None:
        self.tags.append(tag)
        self.fetched += [v for k, v in attrs if k in ("src", "href", "xlink:href") and v and not v.startswith("#")]


def test_the_page_has_the_figures_and_fetches_nothing(tmp_path):
    page = evaluation_report(
        _results(), tmp_path / "report.html", DATA, {"profile of attackers": "quick", "roles": None}
    ).read_text()
    links = _Links()
    links.feed(page)
    assert links.fetched == [] and "script" not in links.tags and "img" not in links.tags
    assert not re.search(r"url\(\s*['\"]?(?!#)", page) and "@import" not in page
    assert links.tags.count("svg") == 3
    assert "0.810" in page and "upper limit 0.840" in page and "adaptive_cross two-sided" in page
    assert "is at most 0.60, the aim of this benchmark under T1; red: the value is 0.75 or more" in page
    assert page.index("Floor: metadata alone") < page.index("Another image of the person (T1)</h2>")
    assert "<dt>command</dt><dd><code>judge it --seeds 3</code></dd>" in page and "<dt>roles</dt><dd>–</dd>" in page
    assert ">TAR, 0.1\u00a0%</th>" in page and "0.123" in page
    assert "quick" in page and "ab" * 8 in page and "1,326" in page


def test_the_tone_follows_the_upper_limit(tmp_path):
    for value, high, tone in ((0.81, 0.84, "bad"), (0.65, 0.7, "mid"), (0.55, 0.65, "mid"), (0.52, 0.59, "good")):
        context = RunContext("x", "p")
        line = context.result(
            "verification_auc.T1.worst.v1",
            Interval(value, value - 0.02, high),
            n_patients=9,
            n_images=9,
            negatives="matched",
            attacker="worst",
            extra={"attacker": "snn", "variant": "signed"},
        )
        page = evaluation_report([line], tmp_path / "r.html").read_text()
        assert f'<b class="{tone}">{value:.3f}</b>' in page


def _worst(name: str, value: float, negatives: str | None, **extra: object):
    found = Interval(value, value - 0.02, value + 0.03)
    shared = {"n_patients": 9, "n_images": 9, "negatives": negatives, "attacker": "worst"}
    return RunContext("x", "p").result(name, found, extra=extra, **shared)


def _cards(page: str) -> dict[str, tuple[str, str, str]]:
    """Tone, value and note by title."""
    pattern = r'<div class="card"><span class="faint">(.*?)</span>\s*<b class="(.*?)">(.*?)</b>\s*<span.*?>(.*?)</span>'
    return {title: found for title, *found in re.findall(pattern, page, re.S)}


def test_a_release_without_pairs_has_cards_of_presence_and_membership(tmp_path):
    lines = [
        _worst("presence_auc.worst.v1", 0.8, None, attacker="frozen", statistic="largest"),
        _worst("membership_auc.worst.v1", 0.9, None, signal="loss", auc_without_release=0.88),
    ]
    cards = _cards(evaluation_report(lines, tmp_path / "r.html").read_text())
    assert list(cards) == ["Among the sources? (presence)", "Learned from? (membership)"]
    tone, value, note = cards["Among the sources? (presence)"]
    assert (tone, value) == ("bad", "0.800") and "upper limit 0.830" in note and "frozen largest" in note
    tone, value, note = cards["Learned from? (membership)"]
    assert (tone, value) == ("", "0.900") and "without the release 0.880" in note


def test_chance_is_drawn_where_the_lines_have_it(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(sections, "gallery_picture", lambda curves, chance: drawn.append((curves, chance)) or "")
    curve, chance = {"10": 0.8, "100": 0.4}, {"10": 0.2, "100": 0.03}
    for extra in ({}, {"rank_1_at_gallery_by_chance": chance}):
        lines = [
            _worst(f"rank_1.{direction}.worst.v1", 0.4, None, rank_1_at_gallery=curve, **extra)
            for direction in ("released_in_real", "real_in_released")
        ]
        page = evaluation_report(lines, tmp_path / "r.html").read_text()
        assert ("line of dots is chance" in page) == bool(extra)
    assert [found for _, found in drawn] == [[], [chance]]
    assert drawn[0][0] == {"released in real": curve, "real in released": curve}


def test_attacks_have_a_row_an_attacker():
    lines = [
        _worst("linkability_f1.inner.snn.v1", 0.7, "balanced"),
        _worst("linkability_far.inner.snn.v1", 0.3, "balanced"),
        _worst("linkability_f1.outer.frozen.v1", 0.8, "balanced"),
        _worst("anonymeter_inference_risk.sex.snn.v1", 0.1, None),
        _worst("anonymeter_linkability_risk.snn.v1", 0.2, None),
        _worst("inversion_auc.T1.v1", 0.6, "matched"),
        _worst("inversion_auc.T1.v1", 0.65, "random"),
        _worst("paper_hidden_rate.T2.frozen.v1", 0.9, None),
        _worst("hidden_rate_two_sided.T2.frozen.v1", 0.4, None),
    ]
    found = {s["title"]: (s["header"], s["rows"]) for s in attack_sections(lines)}
    header, rows = found["Linkability"]
    assert header == ["by", "F1", "FAR"]
    assert rows[0] == ["inner, snn", "0.700 (0.680 to 0.730)", "0.300 (0.280 to 0.330)"]
    assert rows[1] == ["outer, frozen", "0.800 (0.780 to 0.830)", "–"]
    header, rows = found["Singling out, linking, inferring"]
    assert header == ["by", "inference risk sex", "linkability risk"] and rows[0][0] == "snn" and len(rows) == 1
    assert [row[0] for row in found["Inversion"][1]] == ["T1, matched", "T1, random"], "no line hides another"
    assert found["Singling out, as published"][0] == ["by", "paper hidden rate"]
    assert found["Singling out, by patient and from both sides"][0] == ["by", "hidden rate two sided"]


def test_linked_releases_are_a_failure_only_where_they_must_not_be(tmp_path):
    lines = [_worst("verification_auc.T3.worst.v1", 0.9, "matched", attacker="snn")]
    tones = {}
    for policy in ("unlinkable", "pseudonymous", "k_anonymous", ""):
        page = evaluation_report(lines, tmp_path / "r.html", settings={"policy": policy}).read_text()
        tones[policy], _, note = _cards(page)["Two released images (T3)"]
        assert ("promises" in note) == (policy == "pseudonymous") and ("no policy" in note) == (policy == "")
    assert tones == {"unlinkable": "bad", "pseudonymous": "", "k_anonymous": "", "": ""}


def test_names_are_escaped(tmp_path):
    page = evaluation_report(_results("<script>alert(1)</script>"), tmp_path / "r.html", DATA).read_text()
    assert "<script" not in page and "&lt;script&gt;" in page


def test_the_same_lines_give_the_same_page(tmp_path):
    one, two = (evaluation_report(_results(), tmp_path / name, DATA).read_bytes() for name in ("a.html", "b.html"))
    assert one == two


def test_lines_of_two_systems_or_none_are_refused(tmp_path):
    for lines in ([], _results() + _results("other")):
        with pytest.raises(UsageError, match="GM-U330"):
            evaluation_report(lines, tmp_path / "r.html")
    assert not list(tmp_path.iterdir())


def _more():
    """Lines of the sections that a whole evaluation has."""
    context = RunContext("gmia m=-0.5", "cxr64")
    shared = {"n_patients": 300, "n_images": 1000}
    sound = {"non_inferior_at_0.02": True}
    return [
        context.result("verification_auc_years.T1.worst.5_to_10.v1", Interval(0.7, 0.6, 0.8), **shared),
        context.result("verification_auc_subgroup.T1.worst.sex_F.v1", Interval(0.66, 0.6, 0.7), **shared),
        context.result("verification_auc_budget.T1.1_of_2.v1", Interval(0.75, 0.7, 0.8), **shared),
        context.result("utility_macro_auroc.released_to_real.small.v1", Interval(0.68, 0.66, 0.7), **shared),
        context.result("utility_macro_auroc.real_to_real.small.v1", Interval(0.69, 0.67, 0.71), **shared),
        context.result(
            "utility_macro_auroc_loss.released_to_real.small.v1", Interval(0.01, 0.0, 0.019), extra=sound, **shared
        ),
        context.result("kid.loss.v1", Interval(0.002, 0.001, 0.003), **shared),
        context.result("membership_auc.worst.v1", Interval(0.69, 0.66, 0.73), **shared),
        context.result(
            "release_converged.v1",
            0.93,
            extra={"mean_steps": 21.43, "settings": {"margin_cos": -0.5}, "description": "Latent <optimiser>"},
            **shared,
        ),
        context.result("inversion_left_out.v1", float("nan"), extra={"reason": "k_to_one <release>"}, **shared),
    ]


MORE_DATA = DATA | {
    "years/T1/worst": np.array([[0.5, 3.0], [0.8, 0.7], [0.75, 0.6], [0.85, 0.8]]),
    "patient_risk/T1/worst": np.stack([np.linspace(0, 1, 30), np.linspace(0.2, 0.8, 30)]),
    "budget/T1": np.array([[100.0, 200.0], [0.7, 0.75], [0.65, 0.7], [0.75, 0.8]]),
}


def test_each_section_stands_where_there_are_lines_for_it(tmp_path):
    page = evaluation_report(_results() + _more(), tmp_path / "r.html", MORE_DATA).read_text()
    for title in (
        *["Patients and subgroups", "Years between the images", "The attacker&#39;s budget", "Membership", "Left out"],
        *["What is left for diagnosis", "What diagnosis loses", "Fidelity", "How the release was made"],
    ):
        assert f"<h2>{title}</h2>" in page, title
    assert "k_to_one &lt;release&gt;" in page and "Latent &lt;optimiser&gt;" in page
    for name, value in {"share converged": "0.930", "mean steps of an image": "21.4", "margin_cos": "-0.5"}.items():
        assert f'<tr><td>{name}</td><td class="n">{value}</td></tr>' in page
    rows = re.findall(r"<tr><td>released to real, small</td>(.*?)</tr>", page, re.S)
    left, lost = (re.findall(r">([^<>]+)</td>", row) for row in rows)
    assert left[0] == "0.680 (0.660\u00a0to\u00a00.700)" and lost[0] == "0.010 (0.000\u00a0to\u00a00.019)"
    assert lost[-1] == "yes"
    assert page.count("<svg") == 6
    plain = evaluation_report(_results(), tmp_path / "p.html", DATA).read_text()
    assert "Years between" not in plain and "Left out" not in plain


def test_images_are_shown_only_where_asked_and_with_a_banner(tmp_path):
    images = np.linspace(0, 1, 3 * 16 * 16, dtype=np.float32).reshape(3, 1, 16, 16)
    hidden = evaluation_report(_results(), tmp_path / "a.html", DATA).read_text()
    assert "<img" not in hidden and 'class="banner"' not in hidden
    shown = evaluation_report(_results(), tmp_path / "b.html", DATA, shown=(images, 1 - images)).read_text()
    assert 'class="banner"' in shown
    code = re.search(r'src="data:image/png;base64,([^"]+)"', shown)
    assert code is not None
    picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(code.group(1))))).astype(float)
    assert picture.shape == (64, 96)
    # Real images stand above: the first begins dark, its negative bright.
    assert picture[:8, :8].mean() < 30 and picture[32:40, :8].mean() > 225


def test_the_handler_shows_one_image_a_patient(tmp_path):
    lines = AttackLines(tmp_path, "ab" * 8, ["verification"])
    lines.path("verification").parent.mkdir()
    lines.path("verification").write_text("".join(r.to_json() + "\n" for r in _results()))
    case = judged("unchanged")
    case = Judged(case.real, replace(case.release, policy="pseudonymous"))
    page = report_handlers(lines, None, case, n_shown=5)[0].finish().read_text()
    assert "<dt>policy</dt><dd>pseudonymous</dd>" in page
    code = re.search(r'base64,([^"]+)"', page)
    assert code is not None
    picture = Image.open(io.BytesIO(base64.b64decode(code.group(1))))
    assert picture.size == (5 * 2 * SIZE, 2 * 2 * SIZE)
    assert "<img" not in report_handlers(lines, None, judged("unchanged"))[0].finish().read_text()


def test_of_many_attackers_the_strongest_have_colours_of_their_own():
    x = np.linspace(0, 1, 50)
    curves = {f"a{i:02}": np.stack([x, x ** (1 / (1 + i))]) for i in range(12)} | {"metadata": np.stack([x, x])}
    strokes = Counter(re.findall(r"stroke: (#[0-9a-f]{6})", str(roc_picture(curves))))
    assert strokes["#c9ced4"] == 4 + 1, "four curves in grey, and their place in the legend"
    assert str(roc_picture({"b": curves["a01"]})).count("#c9ced4") == 0


def test_the_floor_is_read_by_the_variant_that_was_better_on_v2(tmp_path):
    context, shared = RunContext("gmia m=-0.5", "cxr64"), {"n_patients": 9, "n_images": 9, "negatives": "matched"}
    better = context.result(
        "verification_auc_two_sided.T1.metadata.v1",
        Interval(0.72, 0.7, 0.74),
        attacker="metadata",
        extra={"auc_on_choice": [0.74]},
        **shared,
    )
    of_source = {"attacker": "metadata", "extra": {"auc_on_choice": [0.94]}}
    source = context.result("verification_auc.T2.metadata.v1", 0.95, **of_source, **shared)
    page = evaluation_report([*_results(), better, source], tmp_path / "r.html").read_text()
    assert '<b class="">0.720</b>' in page and "T1, no pixels, two-sided; T2: 0.950" in page


def test_pictures_are_files_of_their_own_too(tmp_path):
    folder = tmp_path / "figures"
    folder.mkdir()
    (folder / "of_an_earlier_run_1.svg").write_text("x")
    images = np.zeros((1, 1, 16, 16), dtype=np.float32)
    evaluation_report(_results(), tmp_path / "r.html", DATA, shown=(images, images), figures_dir=folder)
    names = sorted(p.name for p in folder.iterdir())
    assert names == [
        "another_image_of_the_person_t1_1.svg",
        "another_image_of_the_person_t1_2.svg",
        "finding_the_person_in_a_gallery_1.svg",
    ]
    for name in names:
        assert ElementTree.parse(folder / name).getroot().tag == "{http://www.w3.org/2000/svg}svg"


# -- in a browser ------------------------------------------------------------------------------------------------------
def _browse(page: Path, folder: Path, width: int = 800) -> tuple[str, list[str]]:
    """What Chromium writes to its console, and the addresses outside the page that the page asks for."""
    log = folder / "net.json"
    done = subprocess.run(
        [
            *[BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--v=0"],
            *["--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"],
            *[f"--user-data-dir={folder / 'profile'}", f"--window-size={width},900", f"--log-net-log={log}"],
            *["--host-resolver-rules=MAP * ~NOTFOUND", f"--screenshot={folder / 'page.png'}", page.as_uri()],
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    parameters = [event.get("params", {}) for event in json.loads(log.read_text())["events"]]
    # The browser itself asks for this and that, and is no origin.
    asked = {p["url"] for p in parameters if "url" in p and p.get("initiator", "not an origin") != "not an origin"}
    return done.stderr, sorted(url for url in asked if not url.startswith(("data:", "file:", "chrome:")))


@needs_browser
@pytest.mark.parametrize("width", [360, 800, 1400])
def test_a_browser_shows_it_without_errors_or_requests(tmp_path, width):
    page = evaluation_report(_results() + _more(), tmp_path / "report.html", MORE_DATA)
    told, asked = _browse(page, tmp_path, width)
    assert "CONSOLE" not in told and asked == []
    picture = Image.open(tmp_path / "page.png")
    assert picture.width >= width and np.asarray(picture.convert("L")).std() > 5, "an empty page"


@needs_browser
def test_the_browser_would_tell_of_errors_and_requests(tmp_path):
    page = tmp_path / "bad.html"
    page.write_text('<img src="http://outside.invalid/x.png"><script>console.error("broken")</script>')
    told, asked = _browse(page, tmp_path)
    assert "CONSOLE" in told and asked == ["http://outside.invalid/x.png"]
