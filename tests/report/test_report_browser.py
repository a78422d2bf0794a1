"""The report in a browser: no errors, no requests, and nothing that runs out of the page."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from report_lines import MORE_DATA, more, results, wide

from gmia_monai.report.evaluation import evaluation_report

BROWSER = next((found for name in ("chromium", "google-chrome", "chrome") if (found := shutil.which(name))), None)
needs_browser = pytest.mark.skipif(
    BROWSER is None,
    reason="no Chromium on this machine: NOT checked here are console errors and requests of the report in a browser",
)


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
    page = evaluation_report(results() + more(), tmp_path / "report.html", MORE_DATA)
    told, asked = _browse(page, tmp_path, width)
    assert "CONSOLE" not in told and asked == []
    picture = Image.open(tmp_path / "page.png")
    assert np.asarray(picture.convert("L")).std() > 5, "an empty page"


# A frame, for Chromium's windows are at least 500 px wide. A width that content does not fit, and what sticks out.
_FRAME = """<!doctype html><body><iframe srcdoc="{page}" style="width: {width}px; height: 900px; border: 0"></iframe>
<pre></pre><script>
addEventListener("load", () => {{
  const inner = document.querySelector("iframe").contentDocument, root = inner.documentElement;
  const out = [...inner.querySelectorAll("body *")].filter((e) => !e.closest(".scroll, svg")
    && e.getBoundingClientRect().right > root.clientWidth + 0.5);
  document.querySelector("pre").textContent = JSON.stringify({{needed: root.scrollWidth, shown: root.clientWidth,
    inner: inner.defaultView.innerWidth, sections: inner.querySelectorAll("h2").length,
    out: out.map((e) => e.tagName + "." + e.className + " " + e.textContent.slice(0, 40))}});
}});
</script></body>"""


def _laid_out(page: Path, folder: Path, width: int) -> dict[str, Any]:
    """How wide the page is laid out in a window of some width, and what sticks out of it."""
    frame = folder / "frame.html"
    frame.write_text(_FRAME.format(page=html.escape(page.read_text()), width=width))
    done = subprocess.run(
        [
            *[BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync"],
            *["--disable-background-networking", f"--user-data-dir={folder / 'profile'}", "--window-size=1600,1000"],
            *["--dump-dom", frame.as_uri()],
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    found = re.search(r"<pre>(.*?)</pre>", done.stdout, re.S)
    assert found is not None and found.group(1), done.stderr
    return json.loads(html.unescape(found.group(1)))


def _whole(folder: Path) -> Path:
    """A page with all sections, and with names and texts that cannot be broken."""
    images = np.linspace(0, 1, 6 * 64 * 64, dtype=np.float32).reshape(6, 1, 64, 64)
    notes = {"notes.image_size": f"weights {'x' * 90} learned at 64 px", "weights.identity": "0" * 90, "y" * 60: "z"}
    by_name = {(line.name, line.negatives): line for line in [*results(), *more(), *wide()]}
    lines = [replace(line, system="gmia_" + "of_a_long_name_" * 5) for line in by_name.values()]
    return evaluation_report(lines, folder / "report.html", MORE_DATA, notes, shown=(images, images))


@needs_browser
@pytest.mark.parametrize("width", [360, 800, 1400])
def test_nothing_runs_out_of_the_page(tmp_path, width):
    page = _whole(tmp_path)
    text = page.read_text()
    for title in (
        *["Linkability", "Each finding: released to real, small", "Diagnosis by subgroup", "Images", "Left out"],
        *["Drift of each finding", "The paper&#39;s labels", "Membership", "Presence"],
    ):
        assert f"<h2>{title}</h2>" in text, title
    found = _laid_out(page, tmp_path, width)
    assert found["inner"] == width and found["sections"] == text.count("<h2>")
    assert found["needed"] <= found["shown"] and found["out"] == [], found


@needs_browser
@pytest.mark.parametrize("width", [360, 1400])
def test_the_browser_would_tell_of_what_runs_out(tmp_path, width):
    page = _whole(tmp_path)
    text = page.read_text()
    page.write_text(text.replace("<h2>", '<div class="wide" style="width: 2000px">x</div><h2>', 1))
    found = _laid_out(page, tmp_path, width)
    assert found["needed"] >= 2000 > found["inner"] and any(".wide" in name for name in found["out"])


@needs_browser
def test_the_browser_would_tell_of_errors_and_requests(tmp_path):
    page = tmp_path / "bad.html"
    page.write_text('<img src="http://outside.invalid/x.png"><script>console.error("broken")</script>')
    told, asked = _browse(page, tmp_path)
    assert "CONSOLE" in told and asked == ["http://outside.invalid/x.png"]
