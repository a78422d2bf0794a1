"""The part of the model card that says what attackers recover, generated from result lines:
``python -m gmia_monai.report.model_card bundle/docs/results/systems bundle/docs/README.md``.

The card is written by people; only what stands between the two marks is replaced.
"""

from __future__ import annotations

from collections.abc import Sequence

from gmia_monai.errors import UsageError
from gmia_monai.metrics.results import Result
from gmia_monai.report.cells import Columns, line, systems_of, table, who
from gmia_monai.report.page import renew_page

__all__ = ["BEGIN", "END", "card_with_figures", "main"]

BEGIN, END = "<!-- attackers: begin -->", "<!-- attackers: end -->"
_COLUMNS: Columns = {
    "other images of the person are held (T1)": line("verification_auc.T1.worst.v1", "matched"),
    "by": line("verification_auc.T1.worst.v1", "matched", show=who),
    "the very source (T2)": line("verification_auc.T2.worst.v1", "matched"),
    "two released images (T3)": line("verification_auc.T3.worst.v1", "matched"),
    "is a patient in the release": line("presence_auc.worst.v1"),
    "person found in a gallery (rank 1)": line("rank_1.released_in_real.worst.v1"),
    "hidden rate, as published": line("paper_hidden_rate.T2.frozen.v1"),
}


def card_with_figures(card: str, results: Sequence[Result], command: str = "") -> str:
    """The card, with the table of ``results`` between the marks.

    Args:
        card: Markdown with the lines ``<!-- attackers: begin -->`` and ``<!-- attackers: end -->``, once each.
        results: lines of one or more systems.
        command: what made the table.

    Raises:
        UsageError: ``GM-U336`` where the marks are missing, come twice or stand the wrong way round; ``GM-U335`` as
            :func:`gmia_monai.report.cells.systems_of`.
    """
    if card.count(BEGIN) != 1 or card.count(END) != 1 or card.index(BEGIN) > card.index(END):
        raise UsageError("GM-U336", "the card needs two marks, each on a line of its own", expected=f"{BEGIN} … {END}")
    systems = systems_of(results)
    found = [
        "AUC of the worst attacker (0.5: nothing is found; matched negatives, 95 % intervals)"
        + (f", by `{command}`:" if command else ":"),
        table(systems, _COLUMNS, always=True) if systems else "No result lines yet.",
    ]
    before, after = card.split(BEGIN)[0], card.split(END)[1]
    return f"{before}{BEGIN}\n" + "\n\n".join(found) + f"\n{END}{after}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line: reads result lines, renews the part of the card."""
    return renew_page("gmia_monai.report.model_card", __doc__, card_with_figures, arguments)


if __name__ == "__main__":
    raise SystemExit(main())
