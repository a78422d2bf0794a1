"""Copies: several files of the input that say they are the same image."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

from gmia_monai.release.instance import Instance

__all__ = ["without_copies"]


def without_copies(found: Mapping[str, Instance]) -> dict[str, Instance]:
    """Files with the identifier of another one: copies of the first by handle are rejected, others are held, the first
    as well, since nobody can say which is right."""
    by_name: dict[str, list[Instance]] = defaultdict(list)
    for instance in sorted(found.values(), key=lambda i: i.handle):
        if instance.name:
            by_name[instance.name].append(instance)
    ended = dict(found)
    for same in by_name.values():
        if len({instance.content for instance in same}) > 1:
            ended |= {i.handle: i.stopped("held", (*i.codes, "GM-H008")) for i in same if i.state != "rejected"}
            continue
        ended |= {i.handle: i.stopped("rejected", ("GM-D035",)) for i in same[1:]}
    return ended
