"""What is judged, and by whom: real images and releases dealt out by the roles of the protocol.

A release comes from a folder, as any system can leave it, or from a system that is at hand and is then an attacker's
tool, too (``owner``).
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from gmia_monai.anonymizers.base import Anonymizer, ImageAnonymizer
from gmia_monai.anonymizers.store import UnitStore
from gmia_monai.attacks.attackers import NetworkEmbedder
from gmia_monai.attacks.base import AttackerKnowledge, Judged
from gmia_monai.data.cohort import Cohort
from gmia_monai.data.release import RealImages, Release
from gmia_monai.errors import UsageError
from gmia_monai.evaluation.held import Anonymize, held_anonymizer
from gmia_monai.evaluation.kinds import of_one_kind
from gmia_monai.evaluation.links import Links
from gmia_monai.evaluation.origin import origin_notes
from gmia_monai.evaluation.read import (
    ReleasedLabels,
    find_links,
    read_labels,
    read_real,
    read_release,
    release_files,
)
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
        notes: what was left out while reading, by topic, in words.
    """

    knowledge: AttackerKnowledge
    judged: Judged
    fingerprint: str
    members: str = ""
    notes: Mapping[str, str] = field(default_factory=dict)


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
    labels: PathLike | None = None,
    anonymizer: ImageAnonymizer | None = None,
    units_dir: PathLike | None = None,
) -> Case:
    """Reads real and released images and deals them out by role; first whatever can be refused without an image.

    A role is judged on its core images, the members on a sample; where released images have several sources, all
    images of the role that these name are added, since no source of a released image can be missing.

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
        n_members: images of the role ``members`` at most; where released images have several sources, those whose first
            is of a patient of these come whole.
        device: where the frozen encoder runs.
        labels: findings that are released with the images, as :func:`gmia_monai.evaluation.read.read_labels` takes
            them.
        anonymizer: the system that made the release, for the attackers ``owner`` and ``owner_fresh``; None: nobody
            holds it.
        units_dir: folder where fresh releases of these attackers are kept, so that none is made twice; None: they are
            not.

    Raises:
        UsageError: ``GM-U322`` where a role has no released image; ``GM-U320``, ``GM-U321`` as :func:`read_release`;
            ``GM-U358`` where most released images of a role have sources outside of it, too; ``GM-U371`` for labels;
            ``GM-U307`` for an unknown policy; ``GM-U376`` as :func:`gmia_monai.evaluation.kinds.of_one_kind`.
        ManifestError: a shared patient, or a role with too few.
    """
    Release(system, np.empty((0, 1, 1, 1), dtype=np.float32), (), policy)  # refuses the policy now
    role_of = ROLE_OF | dict(roles or {})
    handles = {handle for handle, _ in release_files(released)}
    found = find_links(released, links, cohort)
    said = None if labels is None else read_labels(labels, handles, cohort.findings or ())
    cohorts = _cohorts(cohort, role_of, core, n_members, found)
    notes = origin_notes(cohort, role_of, models_dir) | _label_notes(said, handles, cohort)
    if found is not None:
        notes |= _left_out(cohort, cohorts, role_of, found, handles)
        for purpose in [name for name in cohorts if name != "training"]:
            linked = found.within(cohorts[purpose]).keys()
            if not linked & handles and purpose in _RELEASED:
                raise UsageError(
                    "GM-U322",
                    f"the release holds no image of role {role_of[purpose]}",
                    got=f"none of {len(linked)} linked images",
                    expected="released images of the roles A, V2 and T",
                    next_step="anonymize the whole manifest: attackers learn from releases of A and are chosen on V2",
                )
            if not linked & handles:
                del cohorts[purpose]
    training, real = _read_parts(cohorts, image_size)
    parts = {
        purpose: Judged(images, read_release(images.cohort, released, image_size, found, system, policy, said))
        for purpose, images in real.items()
    }
    parts, of_kinds = of_one_kind(parts, role_of)
    store = None if units_dir is None or anonymizer is None else UnitStore(units_dir)
    held = (
        (None, "")
        if anonymizer is None
        else (held_anonymizer(anonymizer, store, real.values()), anonymizer.fingerprint)
    )
    return replace(_case(training, parts, models_dir, device, *held), notes=notes | of_kinds)


def make_case(
    cohort: Cohort,
    anonymizer: Anonymizer,
    image_size: int,
    *,
    seed: int = 0,
    store: UnitStore | None = None,
    models_dir: PathLike | None = None,
    roles: Mapping[str, str] | None = None,
    core: bool = True,
    n_members: int = 3000,
    device: str = "cpu",
    max_images: int = 4,
    n_images: int | None = None,
    known: RealImages | None = None,
) -> Case:
    """Anonymizes the images of each role, and lets attackers hold the system itself where it takes image by image.

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
        max_images: images a patient that are judged, and released of members, where ``core``.
        n_images: images of each of the roles ``own``, ``choice`` and ``judged`` at most; None: all.
        known: images that have been read already, and are not read again.

    Raises:
        ManifestError: a shared patient, or a role with too few.
    """
    role_of = ROLE_OF | dict(roles or {})
    notes = origin_notes(cohort, role_of, models_dir)
    cohorts = _cohorts(cohort, role_of, core, n_members, max_images=max_images, n_images=n_images)
    training, real = _read_parts(cohorts, image_size, known)
    parts = {}
    for purpose, images in real.items():
        _log.info("%s: %d images for %s", anonymizer.name, len(images), purpose)
        parts[purpose] = Judged(images, anonymizer.anonymize(images, seed, store))
    held = held_anonymizer(anonymizer, store, real.values()) if isinstance(anonymizer, ImageAnonymizer) else None
    return replace(_case(training, parts, models_dir, device, held, anonymizer.fingerprint), notes=notes)


def _cohorts(
    cohort: Cohort,
    role_of: Mapping[str, str],
    core: bool,
    n_members: int,
    links: Links | None = None,
    max_images: int = 4,
    n_images: int | None = None,
) -> dict[str, Cohort]:
    """What attackers learn from (``training``), and by purpose the images of all that are released, none empty."""
    parts = {"training": cohort.role(role_of["training"], MIN_PATIENTS)}
    for purpose in (*_RELEASED, "members"):
        role = cohort.role(role_of[purpose], min_patients=MIN_PATIENTS)
        part = role.core(max_images) if core else role
        limit = n_members if purpose == "members" else n_images
        if limit is not None:
            part = part.sample(min(limit, len(part)))
        if len(part):
            parts[purpose] = part if links is None else links.enlarge(part, role)
    return parts


def _read_parts(
    cohorts: Mapping[str, Cohort], image_size: int, known: RealImages | None = None
) -> tuple[RealImages, dict[str, RealImages]]:
    """Real images that attackers learn from, and those of each purpose."""
    training = read_real(cohorts["training"], image_size, known)
    parts = {name: part for name, part in cohorts.items() if name != "training"}
    return training, {name: read_real(part, image_size, known=training) for name, part in parts.items()}


def _left_out(
    cohort: Cohort, cohorts: Mapping[str, Cohort], role_of: Mapping[str, str], links: Links, handles: set[str]
) -> dict[str, str]:
    """Notes of released images without a link, of links that lead to nothing, to images that are not there and into
    several roles at once.

    Raises:
        UsageError: ``GM-U358`` where more than half of a role's released images with several sources are lost so.
    """
    notes, absent, mixed = {}, [], []
    unlinked = len(handles - links.sources.keys())
    if unlinked:
        notes["unlinked"] = (
            f"{unlinked} of {len(handles)} released images have no row in the links, and nothing is judged of them: "
            "figures are of those alone that the links name"
        )
    if links.unresolved:
        notes["unresolved"] = (
            f"{links.unresolved} of {len(links.sources)} handles are left out: a source of theirs is not among the "
            "real images, or is named by a file name that several images have"
        )
    for purpose in [name for name in cohorts if name != "training"]:
        role = role_of[purpose]
        linked = links.within(cohorts[purpose]).keys()
        if linked - handles:
            absent.append(f"{len(linked - handles)} of {len(linked)} linked images of role {role}")
        lost, every = links.crossing(cohort.role(role))
        if 2 * lost > every:
            raise UsageError(
                "GM-U358",
                f"most released images of role {role} with several sources have sources outside of it, too",
                got=f"{lost} of {every}",
                expected="released images whose sources are all of one role, and in the cohort",
                next_step="group the images of each role apart, and give --real all of them",
            )
        if lost:
            mixed.append(f"{lost} of {every} of role {role}")
    if absent:
        notes["absent"] = f"absent from the release: {', '.join(absent)}; nothing is judged of them"
    if mixed:
        notes["mixed"] = f"released images left out since they have sources outside their role: {', '.join(mixed)}"
    return notes


def _label_notes(labels: ReleasedLabels | None, handles: set[str], cohort: Cohort) -> dict[str, str]:
    if labels is None:
        return {}
    unlabelled = len(handles - labels.labels.keys())
    strange = len(set(labels.findings) - set(cohort.findings or ()))
    found = [f"{unlabelled} of {len(handles)} released images have none"] if unlabelled else []
    found += [f"{strange} of their {len(labels.findings)} findings are none of the real images'"] if strange else []
    return {"labels": "; ".join(found)} if found else {}


def _case(
    training: RealImages,
    parts: Mapping[str, Judged],
    models_dir: PathLike | None,
    device: str,
    anonymize: Anonymize | None = None,
    anonymizer: str = "",
) -> Case:
    frozen = None if models_dir is None else NetworkEmbedder(load_recorded(models_dir, "identity"), device=device)
    knowledge = AttackerKnowledge(training, parts["own"], parts["choice"], frozen, anonymize, parts.get("members"))
    judged = parts["judged"]
    knowledge.refuse_overlap(judged)
    facts = [_facts(training), anonymizer, judged.release.system, judged.release.policy]
    facts += [f"{name} {_facts(parts[name].real)} {_released(parts[name].release)}" for name in _RELEASED]
    index = {} if models_dir is None else read_index(models_dir)
    facts += [str(index[name]["sha256"]) if name in index else "" for name in ("identity", "utility")]
    found = parts.get("members")
    members = "" if found is None else f"{_facts(found.real)} {_released(found.release)}"
    return Case(knowledge, judged, _digest("\n".join(facts)), _digest(members))


def _facts(real: RealImages) -> str:
    return f"{real.content_hash} {real.cohort.records_hash}"


def _released(release: Release) -> str:
    if release.labels is None:
        return release.content_hash
    return f"{release.content_hash} {_digest(f'{release.findings} {release.labels.tolist()}')}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
