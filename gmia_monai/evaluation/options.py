"""Options of ``gmia evaluate``: profiles, read from the overrides of ``evaluate.yaml``, and the folder of weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

import gmia_monai
from gmia_monai.errors import UsageError
from gmia_monai.weights import INDEX

__all__ = ["EVERYDAY", "judgement_settings", "profile_settings", "weights_folder"]

# Without a profile: those of evaluate.yaml.
EVERYDAY: dict[str, Any] = {"seeds": [0, 1, 2], "n_boot": 500, "refit": {"steps": 300, "validate_every": 75}}
_ROOT = Path(gmia_monai.__file__).parents[1]
_FOLDERS = (Path("bundle/configs/profiles"), _ROOT / "bundle/configs/profiles", _ROOT / "configs/profiles")
_PREFIX, _BLOCK = "evaluate_", "+suite"
_KNOWN = ("attacks", "attackers", "seeds", "refit", "train_steps", "n_boot", "n_members", "utility_seeds")


def weights_folder(given: str) -> Path | None:
    """The folder of weights; None for ``none``, which goes without.

    Raises:
        UsageError: ``GM-U338`` where no such folder, or no ``index.json`` in it, is there.
    """
    if given == "none":
        return None
    folder = Path(given)
    if not (folder / INDEX).is_file():
        raise UsageError(
            "GM-U338",
            "no recorded weights there",
            got=folder.name,
            expected=f"a folder with {INDEX}",
            next_step="check --models-dir; 'none' goes without, and then no attacker looks at pixels",
        )
    return folder


def profile_settings(profile: str) -> dict[str, Any]:
    """Settings of the suite that ``configs/profiles/evaluate_<profile>.yaml`` overrides.

    Raises:
        UsageError: ``GM-U339`` for an unknown profile, or one with settings that the command does not have.
    """
    there = {path.stem.removeprefix(_PREFIX): path for folder in reversed(_FOLDERS) for path in _files(folder)}
    if profile not in there:
        raise UsageError(
            "GM-U339",
            "unknown profile",
            got=profile,
            expected=", ".join(sorted(there)) or "one of configs/profiles of the bundle, which is not here",
            next_step="the name in the result lines is --label",
        )
    found = yaml.safe_load(there[profile].read_text(encoding="utf-8"))
    suite = found.get(_BLOCK) if isinstance(found, dict) and set(found) == {_BLOCK} else None
    if not isinstance(suite, dict) or not set(suite) <= set(_KNOWN):
        expected = f"a block {_BLOCK} of {', '.join(_KNOWN)}"
        raise UsageError("GM-U339", f"unusable profile {profile}", expected=expected)
    return suite


def judgement_settings(
    profile: str = "", seeds: int | None = None, refit_steps: int | None = None, **others: Any
) -> dict[str, Any]:
    """Fields of :class:`gmia_monai.evaluation.command.Judgement`: :data:`EVERYDAY`, the profile over it, and over both
    what was given.

    Args:
        profile: as :func:`profile_settings`; empty: none.
        seeds: number of attacker seeds.
        refit_steps: updates of each adaptive attacker.
        others: further fields; None, or an empty list, is not given.

    Raises:
        UsageError: ``GM-U339`` as :func:`profile_settings`.
    """
    settings = EVERYDAY | (profile_settings(profile) if profile else {})
    given: dict[str, Any] = {key: value for key, value in others.items() if value not in (None, [], ())}
    if seeds is not None:
        given["seeds"] = list(range(seeds))
    if refit_steps is not None:
        given["refit"] = _refit(settings["refit"], refit_steps)
    return settings | given


def _refit(of_profile: Mapping[str, Any], steps: int) -> dict[str, Any]:
    return {**of_profile, "steps": steps, "validate_every": max(1, steps // 4)}


def _files(folder: Path) -> list[Path]:
    return sorted(folder.glob(f"{_PREFIX}*.yaml"))
