"""The table of promises says what the lines say, and nothing else of the page changes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[1] / "scripts" / "write_promises.py"


def _run(*arguments: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(SCRIPT), *map(str, arguments)], capture_output=True, text=True)


def test_the_table_is_made_from_the_lines(tmp_path):
    lines = [
        {"promise": "a", "tried": 10, "failures": 0, "note": "", "full": False},
        {"promise": "a", "tried": 1500, "failures": 0, "note": "eight kinds", "full": True},
        {"promise": "b", "tried": 4, "failures": 1, "note": "", "full": True},
    ]
    (tmp_path / "l.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    page = tmp_path / "p.md"
    page.write_text("# Top\n<!-- promises: begin -->\nold\n<!-- promises: end -->\nbottom\n")
    for _ in range(2):
        assert _run(tmp_path / "l.jsonl", page).returncode == 0
        text = page.read_text()
        assert text.startswith("# Top\n") and text.endswith("-->\nbottom\n") and "old" not in text
        assert "| a | 1,500 | 0 | 0.2 % | eight kinds |" in text and "| b | 4 | 1 | – |  |" in text
        assert text.count("| a |") == 1


def test_a_page_without_marks_is_left_alone(tmp_path):
    (tmp_path / "l.jsonl").write_text("")
    (tmp_path / "p.md").write_text("nothing here\n")
    assert _run(tmp_path / "l.jsonl", tmp_path / "p.md").returncode == 2
    assert _run(tmp_path / "none", tmp_path / "p.md").returncode == 2
    assert (tmp_path / "p.md").read_text() == "nothing here\n"
