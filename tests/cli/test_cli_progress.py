"""Progress on a terminal and elsewhere."""

from __future__ import annotations

from gmia_monai.cli.progress import Shown


def test_plain_lines_come_every_ten_seconds(capsys):
    now = [0.0]
    with Shown(terminal=False, clock=lambda: now[0]) as shown:
        for done in range(1, 101):
            now[0] += 1.0
            shown.tell("making", done, 100, f"{done} released")
        shown.tell("done", 100, 100)
    lines = capsys.readouterr().err.splitlines()
    assert 10 <= len(lines) <= 13 and lines[0].startswith("making: 1 of 100")
    assert "about 0:00:" in lines[5] and "released" in lines[5] and lines[-2].startswith("making: 100 of 100;")


def test_a_terminal_gets_a_bar(capsys):
    with Shown(terminal=True) as shown:
        shown.tell("reading", 1, 4)
        shown.tell("reading", 4, 4)
        shown.tell("making", 2, 4, "2 released")
    err = capsys.readouterr().err
    assert "reading" in err and "making" in err and "4/4" in err
