"""From whom the weights of a folder learned: figures on members say nothing of a system that learned from others."""

from __future__ import annotations

from collections.abc import Mapping

from gmia_monai.data.cohort import Cohort
from gmia_monai.data.thirds import without_third
from gmia_monai.typing import PathLike
from gmia_monai.weights import read_index

__all__ = ["origin_notes"]

_SYSTEM = ("aegan", "identity", "utility")
_ATTACKERS = ("arcface", "siamese", "retrieval")


def origin_notes(cohort: Cohort, role_of: Mapping[str, str], models_dir: PathLike | None) -> dict[str, str]:
    """Notes by topic on weights that did not learn from the cohort's own patients, or do not say from whom.

    Args:
        cohort: real images of all roles.
        role_of: role of each purpose; ``members`` are whom a system learns from, ``training`` whom attackers do.
        models_dir: folder of weights; None: there are none to ask.

    Raises:
        IntegrityError: ``GM-W005`` for an index that cannot be read.
    """
    index = {} if models_dir is None else read_index(models_dir)

    def others(stems: tuple[str, ...], role: str) -> list[str]:
        learned = cohort.role(role)
        # Encoders of an ensemble learn without one third each.
        own = {part.patients_hash for third in (None, 0, 1, 2) if len(part := without_third(learned, third))}
        named = [name for name in index if name in stems or name.rsplit("_", 1)[0] in stems]
        return [name for name in named if index[name].get("patients") not in own]

    notes = {}
    system = others(_SYSTEM, role_of["members"])
    if system:
        notes["members"] = (
            f"{', '.join(system)} learned from other patients than those of role {role_of['members']}, or do not say "
            "from whom: what a system made with them tells of membership and memorisation is asked of people whom it "
            "may never have seen, so that chance says nothing of its safety"
        )
    attackers = others(_ATTACKERS, role_of["training"])
    if attackers:
        notes["trained_elsewhere"] = (
            f"{', '.join(attackers)} learned from other patients than those of role {role_of['training']}, or do not "
            "say from whom: such attackers may be weaker here than ones trained on this cohort, or know its patients"
        )
    return notes
