"""What is judged, and by whom: real images and releases dealt out by the roles of the protocol.

A release comes from a folder, as any system can leave it, or from a system that is at hand and is then an attacker's
tool, too (``owner``).
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32

from gmia_monai.anonymizers.base import ImageAnonymizer
from gmia_monai.anonymizers.store import UnitStore
from gmia_monai.attacks.attackers import NetworkEmbedder
from gmia_monai.attacks.base import AttackerKnowledge, Judged
from gmia_monai.data.cohort import Cohort
from gmia_monai.data.release import RealImages
from gmia_monai.errors import UsageError
from gmia_monai.evaluation.read import read_real, read_release
from gmia_monai.networks.pretrained import load_recorded
from gmia_monai.typing import PathLike
from gmia_monai.weights import read_index

__all__ = ["Case", "make_case", "read_case"]

_log = logging.getLogger(__name__)
MIN_PATIENTS = 2
ROLE_OF = {"training": "S+A", "members": "S", "own": "A", "choice": "V2", "judged": "T"}
_RELEASED = ("own", "choice", "judged")


@dataclass(frozen=True)
class Case:
    """What is judged, and by whom.

    Attributes:
        knowledge: what attackers may use.
        judged: the release of the judged role.
        fingerprint: hash of everything that decides the figures but the attacks' own settings and the members.
        members: hash of the members and their release; empty where nobody asked for it.
    """

    knowledge: AttackerKnowledge
    judged: Judged
    fingerprint: str
    members: str = ""


def read_case(
    cohort: Cohort,
    released: PathLike,
    image_size: int,
    *,
    links: PathLike | None = None,
    system: str = "",
    policy: str = "",
    models_dir: PathLike | None = None,
    roles: Mapping[str, str] | None = None,
    core: bool = True,
    n_members: int = 3000,
    device: str = "cpu",
) -> Case:
    """Reads real and released images and deals them out by role.

    Args:
        cohort: real images of all roles.
        released: folder of the release of the roles ``own``, ``choice`` and ``judged``; those of ``members`` are taken
            where it holds some.
        image_size: what attackers look at.
        links: links file of the release.
        system: name of the system for the result lines; the folder's if empty.
        policy: the release's.
        models_dir: folder of the weights of the system; the frozen attacker takes its ``identity``. None: there is no
            frozen attacker.
        roles: role of each purpose, over :data:`ROLE_OF`.
        core: judge at most four images a patient, as protocol v1 does.
        n_members: images of the role ``members`` at most.
        device: where the frozen encoder runs.

    Raises:
        UsageError: ``GM-U322`` where a role has no released image; ``GM-U320``, ``GM-U321`` as :func:`read_release`.
        ManifestError: a shared patient, or a role with too few.
    """
    training, real = _real_parts(cohort, image_size, roles, core, n_members)
    parts = {}
    for purpose, images in real.items():
        try:
            parts[purpose] = Judged(images, read_release(images.cohort, released, image_size, links, system, policy))
        except UsageError as error:
            if error.code != "GM-U322":
                raise
            if purpose in _RELEASED:
                raise UsageError(
                    "GM-U322",
                    f"the release holds no image of role {(ROLE_OF | dict(roles or {}))[purpose]}",
                    expected="released images of the roles A, V2 and T",
                    next_step="anonymize the whole manifest: attackers learn from releases of A and are chosen on V2",
                ) from error
    return _case(training, parts, models_dir, device)


def make_case(
    cohort: Cohort,
    anonymizer: ImageAnonymizer,
    image_size: int,
    *,
    seed: int = 0,
    store: UnitStore | None = None,
    models_dir: PathLike | None = None,
    roles: Mapping[str, str] | None = None,
    core: bool = True,
    n_members: int = 3000,
    device: str = "cpu",
) -> Case:
    """Anonymizes the images of each role, and lets attackers hold the system itself.

    Args:
        cohort: real images of all roles.
        anonymizer: the system.
        image_size: its size, and what attackers look at.
        seed: of the release.
        store: finished units of the anonymizer.
        models_dir: as :func:`read_case`.
        roles: as :func:`read_case`.
        core: as :func:`read_case`.
        n_members: images of the role ``members``; 0: no attack on members and no training on released images.
        device: as :func:`read_case`.

    Raises:
        ManifestError: a shared patient, or a role with too few.
    """
    training, real = _real_parts(cohort, image_size, roles, core, n_members)
    parts = {}
    for purpose, images in real.items():
        _log.info("%s: %d images for %s", anonymizer.name, len(images), purpose)
        parts[purpose] = Judged(images, anonymizer.anonymize(images, seed, store))

    def anonymize(pixels: Float32[np.ndarray, "n 1 h w"], another: int) -> Float32[np.ndarray, "n 1 h w"]:
        return anonymizer.anonymize_pixels(pixels, another, store)[0]

    return _case(training, parts, models_dir, device, anonymize, anonymizer.fingerprint)


def _real_parts(
    cohort: Cohort, image_size: int, roles: Mapping[str, str] | None, core: bool, n_members: int
) -> tuple[RealImages, dict[str, RealImages]]:
    """Real images that attackers learn from, and by purpose those of all that are released."""
    role_of = ROLE_OF | dict(roles or {})
    training = read_real(cohort.role(role_of["training"], MIN_PATIENTS), image_size)
    parts = {}
    for purpose in (*_RELEASED, "members"):
        part = cohort.role(role_of[purpose], min_patients=MIN_PATIENTS)
        part = part.core() if core else part
        if purpose == "members":
            part = part.sample(min(n_members, len(part)))
        if len(part):
            parts[purpose] = read_real(part, image_size, known=training)
    return training, parts


def _case(
    training: RealImages,
    parts: Mapping[str, Judged],
    models_dir: PathLike | None,
    device: str,
    anonymize: Callable[[Float32[np.ndarray, "n 1 h w"], int], Float32[np.ndarray, "n 1 h w"]] | None = None,
    anonymizer: str = "",
) -> Case:
    frozen = None if models_dir is None else NetworkEmbedder(load_recorded(models_dir, "identity"), device=device)
    knowledge = AttackerKnowledge(training, parts["own"], parts["choice"], frozen, anonymize, parts.get("members"))
    judged = parts["judged"]
    knowledge.refuse_overlap(judged)
    facts = [_facts(training), anonymizer, judged.release.system, judged.release.policy]
    facts += [f"{name} {_facts(parts[name].real)} {parts[name].release.content_hash}" for name in _RELEASED]
    index = {} if models_dir is None else read_index(models_dir)
    facts += [str(index[name]["sha256"]) if name in index else "" for name in ("identity", "utility")]
    found = parts.get("members")
    members = "" if found is None else f"{_facts(found.real)} {found.release.content_hash}"
    return Case(knowledge, judged, _digest("\n".join(facts)), _digest(members))


def _facts(real: RealImages) -> str:
    return f"{real.content_hash} {real.cohort.records_hash}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
