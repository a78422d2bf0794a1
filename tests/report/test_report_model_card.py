"""The model card takes the figures of the attackers from result lines, and keeps what people wrote."""

from __future__ import annotations

from pathlib import Path

import pytest

from gmia_monai.errors import UsageError
from gmia_monai.metrics.limits import Interval
from gmia_monai.metrics.results import RunContext, append_results, read_results
from gmia_monai.report.model_card import BEGIN, END, card_with_figures, main

ROOT = Path(__file__).parents[2]
CARD = f"# Card\n\nBefore.\n\n{BEGIN}\nold figures\n{END}\n\nAfter.\n"


def _worst(system: str):
    return RunContext(system, "cxr64").result(
        "verification_auc.T1.worst.v1",
        Interval(0.9, 0.85, 0.95),
        n_patients=10,
        n_images=20,
        negatives="matched",
        attacker="worst",
        extra={"attacker": "averaging", "variant": "signed"},
    )


def test_only_what_stands_between_the_marks_is_replaced():
    card = card_with_figures(CARD, [_worst("gmia m=0"), _worst("unchanged")])
    before, rest = card.split(BEGIN)
    table, after = rest.split(END)
    assert before == "# Card\n\nBefore.\n\n" and after == "\n\nAfter.\n"
    assert "old figures" not in table
    rows = [row for row in table.splitlines() if row.startswith("| ")]
    assert rows[2].startswith("| unchanged | 0.900 [0.850, 0.950] | averaging signed | –")
    assert rows[3].startswith("| gmia m=0 | 0.900")
    assert card_with_figures(card, [_worst("gmia m=0"), _worst("unchanged")]) == card


@pytest.mark.parametrize("card", ["# Card\n", f"{BEGIN}\n", f"{END}\n{BEGIN}\n", f"{BEGIN}\n{BEGIN}\n{END}\n"])
def test_a_card_without_its_marks_is_refused(card):
    with pytest.raises(UsageError, match="GM-U336"):
        card_with_figures(card, [_worst("unchanged")])


def test_command_line(tmp_path, capsys):
    append_results(tmp_path / "lines.jsonl", [_worst("unchanged")])
    card = tmp_path / "card.md"
    assert main([str(tmp_path / "lines.jsonl"), str(card)]) == 2
    assert "GM-U336" in capsys.readouterr().err
    card.write_text(CARD, encoding="utf-8")
    assert main([str(tmp_path / "lines.jsonl"), str(card)]) == 0
    assert "averaging signed" in card.read_text(encoding="utf-8")


def test_the_card_of_the_bundle_shows_its_result_lines():
    text = (ROOT / "bundle/docs/README.md").read_text(encoding="utf-8")
    command = "python -m gmia_monai.report.model_card bundle/docs/results/systems bundle/docs/README.md"
    assert card_with_figures(text, read_results(ROOT / "bundle/docs/results/systems"), command) == text
