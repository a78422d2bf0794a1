"""Who scores a pair of images: the attackers of protocol v1, by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from gmia_monai.attacks.attackers.adaptive import AdaptiveAttacker
from gmia_monai.attacks.attackers.averaging import AveragingAttacker
from gmia_monai.attacks.attackers.base import Attacker, EmbeddingAttacker
from gmia_monai.attacks.attackers.embedder import NetworkEmbedder
from gmia_monai.attacks.attackers.ensemble import EnsembleAttacker
from gmia_monai.attacks.attackers.fresh import FreshReleaseAttacker
from gmia_monai.attacks.attackers.frozen import FrozenAttacker
from gmia_monai.attacks.attackers.fusion import FusionAttacker
from gmia_monai.attacks.attackers.linear import LinearAttacker
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
    "adaptive_source": AdaptiveAttacker,
    "linear": LinearAttacker,
    "owner": OwnerAttacker,
    "owner_fresh": FreshReleaseAttacker,
    "averaging": AveragingAttacker,
    "fusion": FusionAttacker,
    "ensemble": EnsembleAttacker,
}

_COMBINED = ("averaging", "fusion", "ensemble")


def make_attackers(
    names: Sequence[str],
    arcface: Sequence[PathLike] = (),
    snn: Sequence[PathLike] = (),
    recipe: RefitRecipe | None = None,
    device: str = "cpu",
    store: RefitStore | None = None,
    frozen: Sequence[PathLike] = (),
    seeds: Sequence[int] = (0, 1, 2),
) -> dict[str, Callable[[], Attacker]]:
    """Name to a function that makes the attacker.

    Args:
        names: of :data:`ATTACKERS`; ``linear``, ``adaptive_released``, ``adaptive_cross`` and ``adaptive_source`` can
            have ``_snn`` or ``_frozen`` behind them to start from the Siamese network or the optimiser's own encoder
            instead of the ArcFace one. ``averaging`` and ``fusion`` build on those of the others that are named,
            ``ensemble`` on ``fusion``.
        arcface: weights files of the ArcFace attacker, one a seed.
        snn: weights files of the Siamese one.
        recipe: how adaptive attackers are refitted.
        device: where networks run.
        store: keeps refitted networks; None: in memory, so that attackers that share one refit it once.
        frozen: weights file of the encoder that the system optimised against.
        seeds: of the networks of ``ensemble``.

    Raises:
        UsageError: ``GM-U319`` for a name that is none, or one whose attackers to build on are not named.
    """
    store = store or RefitStore()
    adaptive = {"adaptive_released": "released", "adaptive_cross": "real", "adaptive_source": "source"}
    made: dict[str, Callable[[], Attacker]] = {}
    for name in names:
        base, weights = name, arcface
        for suffix, start in (("_snn", snn), ("_frozen", frozen)):
            if name.endswith(suffix):
                base, weights = name.removesuffix(suffix), start
        if base in adaptive:
            how = _own_encoder(recipe) if name.endswith("_frozen") else {"recipe": recipe}
            made[name] = lambda n=name, w=weights, a=adaptive[base], h=how: AdaptiveAttacker(
                n, w, a, device=device, store=store, **h
            )
        elif base == "linear":
            own = () if name.endswith("_frozen") else weights
            made[name] = lambda n=name, w=own: LinearAttacker(n, w, device)
        elif name in ("snn", "arcface"):
            own = snn if name == "snn" else arcface
            made[name] = lambda n=name, w=own: TrainedAttacker(n, w, device)
        elif name == "owner":
            made[name] = lambda: OwnerAttacker(arcface, recipe, device=device, store=store)
        elif name == "owner_fresh":
            made[name] = lambda: FreshReleaseAttacker(arcface, device=device)
        elif name in ("metadata", "frozen"):
            made[name] = ATTACKERS[name]
        elif name not in _COMBINED:
            raise UsageError("GM-U319", "unknown attacker", got=name, expected=", ".join(ATTACKERS))
    alone = {name: make for name, make in made.items() if name != "metadata"}
    for name in _COMBINED:
        if name in names and not alone:
            raise UsageError("GM-U319", f"{name} needs another attacker that looks at pixels", got=", ".join(names))
    if "averaging" in names:
        made["averaging"] = lambda: AveragingAttacker(alone)
    if "fusion" in names:
        heard = {name: make for name, make in made.items() if name != "metadata"}
        made["fusion"] = lambda: FusionAttacker(heard)
    if "ensemble" in names:
        if "fusion" not in made:
            raise UsageError("GM-U319", "ensemble needs fusion", got=", ".join(names))
        made["ensemble"] = lambda: EnsembleAttacker(made["fusion"], seeds)
    return made


def _own_encoder(recipe: RefitRecipe | None) -> dict[str, Any]:
    """How the optimiser's own encoder is refitted: it starts where the system was aimed at, and large steps
    forget that."""
    recipe = recipe or RefitRecipe()
    return {"recipe": replace(recipe, lr=recipe.lr / 10), "two_views": False}
