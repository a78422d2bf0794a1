"""The report of an evaluation: self-contained, escaped, honest where figures are missing, and readable by a browser."""

from __future__ import annotations

import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from gmia_monai.errors import UsageError
from gmia_monai.metrics.intervals import Interval
from gmia_monai.metrics.results import RunContext
from gmia_monai.report.evaluation import evaluation_report

BROWSER = next((found for name in ("chromium", "google-chrome", "chrome") if (found := shutil.which(name))), None)


def _results(system: str = "gmia m=-0.5"):
    context = RunContext(system, "cxr64", release_hash="ab" * 8, config_hash="cd" * 8)
    shared = {"n_patients": 309, "n_images": 1326, "negatives": "matched"}
    worst = {"attacker": "adaptive_cross", "variant": "two_sided"}
    return [
        context.result("verification_auc.T1.frozen.v1", Interval(0.41, 0.39, 0.44), attacker="frozen", **shared),
        context.result("verification_auc.T1.metadata.v1", Interval(0.61, 0.6, 0.63), attacker="metadata", **shared),
        context.result("equal_error_rate.T1.frozen.v1", float("nan"), attacker="frozen", **shared),
        context.result(
            "verification_auc.T1.worst.v1", Interval(0.81, 0.78, 0.84), attacker="worst", extra=worst, **shared
        ),
        context.result(
            "rank_1.released_in_real.worst.v1",
            Interval(0.3, 0.2, 0.4),
            n_patients=309,
            n_images=1000,
            attacker="worst",
            extra={"rank_1_at_gallery": {"10": 0.8, "100": 0.4, "1000": 0.3}},
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
    page = evaluation_report(_results(), tmp_path / "report.html", DATA, {"profile of attackers": "quick"}).read_text()
    links = _Links()
    links.feed(page)
    assert links.fetched == [] and "script" not in links.tags and "img" not in links.tags
    assert not re.search(r"url\(\s*['\"]?(?!#)", page) and "@import" not in page
    assert links.tags.count("svg") == 3
    assert "0.810" in page and "upper limit 0.840" in page and "adaptive_cross, two-sided" in page
    assert page.index("Floor: metadata alone") < page.index("Another image of the person (T1)</h2>")
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


@pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine")
@pytest.mark.parametrize("width", [360, 800, 1400])
def test_a_browser_shows_it_without_errors(tmp_path, width):
    page = evaluation_report(_results(), tmp_path / "report.html", DATA)
    picture = tmp_path / "page.png"
    done = subprocess.run(
        [
            *[BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--v=0"],
            *[f"--user-data-dir={tmp_path / 'profile'}", f"--window-size={width},900", "--dump-dom"],
            *["--host-resolver-rules=MAP * ~NOTFOUND", f"--screenshot={picture}", page.as_uri()],
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert "CONSOLE" not in done.stderr and Path(picture).stat().st_size > 5000
