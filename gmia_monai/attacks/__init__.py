"""Attacks on releases, by name: what an attacker could still learn of the patients behind them."""

from __future__ import annotations

from gmia_monai.attacks.anonymeter import AnonymeterAttack
from gmia_monai.attacks.attribute import AttributeAttack
from gmia_monai.attacks.base import Attack, AttackerKnowledge, Judged
from gmia_monai.attacks.budget import BudgetAttack
from gmia_monai.attacks.inversion import InversionAttack
from gmia_monai.attacks.linkability import LinkabilityAttack
from gmia_monai.attacks.membership import MembershipAttack
from gmia_monai.attacks.memorisation import MemorisationAttack
from gmia_monai.attacks.presence import PresenceAttack
from gmia_monai.attacks.retrieval import RetrievalAttack
from gmia_monai.attacks.singling_out import SinglingOutAttack
from gmia_monai.attacks.verification import VerificationAttack

__all__ = ["ATTACKS", "Attack", "AttackerKnowledge", "Judged"]

ATTACKS: dict[str, type[Attack]] = {
    "verification": VerificationAttack,
    "retrieval": RetrievalAttack,
    "linkability": LinkabilityAttack,
    "singling_out": SinglingOutAttack,
    "presence": PresenceAttack,
    "membership": MembershipAttack,
    "memorisation": MemorisationAttack,
    "attribute": AttributeAttack,
    "inversion": InversionAttack,
    "budget": BudgetAttack,
    "anonymeter": AnonymeterAttack,
}
