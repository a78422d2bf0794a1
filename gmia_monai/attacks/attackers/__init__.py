"""Who scores a pair of images: the attackers of protocol v1, by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from gmia_monai.attacks.attackers.adaptive import AdaptiveAttacker
from gmia_monai.attacks.attackers.averaging import AveragingAttacker
from gmia_monai.attacks.attackers.base import Attacker, EmbeddingAttacker
from gmia_monai.attacks.attackers.embedder import NetworkEmbedder
from gmia_monai.attacks.attackers.frozen import FrozenAttacker
from gmia_monai.attacks.attackers.metadata import MetadataAttacker
from gmia_monai.attacks.attackers.owner import OwnerAttacker
from gmia_monai.attacks.attackers.trained import TrainedAttacker
from gmia_monai.attacks.refit import RefitRecipe
from gmia_monai.attacks.refit_store import RefitStore
from gmia_monai.errors import UsageError
from gmia_monai.typing import PathLike

__all__ = ["ATTACKERS", "Attacker", "EmbeddingAttacker", "NetworkEmbedder", "make_attackers"]

ATTACKERS: dict[str, type] = {
    "metadata": MetadataAttacker,
    "frozen": FrozenAttacker,
    "snn": TrainedAttacker,
    "arcface": TrainedAttacker,
    "adaptive_released": AdaptiveAttacker,
    "adaptive_cross": AdaptiveAttacker,
    "owner": OwnerAttacker,
    "averaging": AveragingAttacker,
}


def make_attackers(
    names: Sequence[str],
    arcface: Sequence[PathLike] = (),
    snn: Sequence[PathLike] = (),
    recipe: RefitRecipe | None = None,
    device: str = "cpu",
    store: RefitStore | None = None,
    frozen: Sequence[PathLike] = (),
) -> dict[str, Callable[[], Attacker]]:
    """Name to a function that makes the attacker.

    Args:
        names: of :data:`ATTACKERS`; ``adaptive_released`` and ``adaptive_cross`` can have ``_snn`` or ``_frozen``
            behind them to start from the Siamese network or the optimiser's own encoder instead of the ArcFace one.
        arcface: weights files of the ArcFace attacker, one a seed.
        snn: weights files of the Siamese one.
        recipe: how adaptive attackers are refitted.
        device: where networks run.
        store: keeps refitted networks; None: in memory, so that attackers that share one refit it once.
        frozen: weights file of the encoder that the system optimised against.

    Raises:
        UsageError: ``GM-U319`` for a name that is none.
    """
    store = store or RefitStore()
    adaptive = {"adaptive_released": "released", "adaptive_cross": "real"}
    made: dict[str, Callable[[], Attacker]] = {}
    for name in names:
        base, weights = name, arcface
        for suffix, start in (("_snn", snn), ("_frozen", frozen)):
            if name.endswith(suffix):
                base, weights = name.removesuffix(suffix), start
        if base in adaptive:
            made[name] = lambda n=name, w=weights, a=adaptive[base]: AdaptiveAttacker(
                n, w, a, recipe, device=device, store=store
            )
        elif name in ("snn", "arcface"):
            own = snn if name == "snn" else arcface
            made[name] = lambda n=name, w=own: TrainedAttacker(n, w, device)
        elif name == "owner":
            made[name] = lambda: OwnerAttacker(arcface, recipe, device=device, store=store)
        elif name == "averaging":
            made[name] = lambda: AveragingAttacker(
                AdaptiveAttacker("adaptive_cross", arcface, "real", recipe, device=device, store=store)
            )
        elif name in ("metadata", "frozen"):
            made[name] = ATTACKERS[name]
        else:
            raise UsageError("GM-U319", "unknown attacker", got=name, expected=", ".join(ATTACKERS))
    return made
