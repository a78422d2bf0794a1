"""Review: a person looks at the new images of a release, and takes one back or, where the policy lets him, releases one
that a check held.

Every decision is one line of the ledger, and what follows from it is in the same line; the move of the file comes
after it, and whoever opens the release next finishes one that was interrupted. What a person writes beside a decision
may name somebody: it stays in the work folder, and the ledger holds its keyed hash.
"""

from __future__ import annotations

import errno
import hashlib
import hmac
import json
import math
import os
import threading
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float32, UInt16

from gmia_monai.dicom.decoder import Decoder
from gmia_monai.dicom.hashing import sha256_of
from gmia_monai.errors import InputError, IntegrityError, ResourceError, UsageError
from gmia_monai.release.instance import read_instance
from gmia_monai.release.ledger import Ledger
from gmia_monai.release.places import Places
from gmia_monai.release.policy import Policy, load_policy
from gmia_monai.release.reasons import BY_PERSON, HELD_BY_CHECK, reason
from gmia_monai.release.recovery import place_of, put_right
from gmia_monai.typing import PathLike

__all__ = ["ReviewDesk", "ReviewItem"]

Verdict = Literal["accept", "hold"]
_MAX_COMMENT = 4000
_ROUNDED = 1e-4  # of the ledger's scores


@dataclass(frozen=True)
class ReviewItem:
    """One new image that a person can look at.

    Attributes:
        handle: of the instance.
        state: ``released`` or ``held``.
        codes: why it is held.
        reasons: the same in words.
        scores: of each check the smallest and the largest.
        verdict: of a person; empty where nobody looked.
        comment: his words.
        can_release: whether the policy lets a person release it.
        has_source: whether its source can be shown.
    """

    handle: str
    state: str
    codes: tuple[str, ...]
    reasons: tuple[str, ...]
    scores: dict[str, tuple[float, float]]
    verdict: str
    comment: str
    can_release: bool
    has_source: bool


class ReviewDesk:
    """A release that lies open for a person; a context that holds the lock of its folder.

    Args:
        folder: of a release.
        key: project key.
        look_only: take no decision down.

    Raises:
        UsageError: ``GM-U424`` without a ledger, ``GM-U413`` while another process is at work, ``GM-U426`` without the
            work folder, ``GM-U415`` where that is open to others.
        IntegrityError: ``GM-W301`` for a ledger that was changed, ``GM-W311`` for a policy that is not the ledger's.
    """

    def __init__(self, folder: PathLike, key: bytes, look_only: bool = False) -> None:
        root = Path(folder).resolve()
        self.places = Places(root, root, root.with_name(root.name + ".work"))
        if not self.places.ledger.is_file():
            raise UsageError("GM-U424", "no ledger there", next_step="name the folder of a release")
        if not self.places.work.is_dir():
            raise UsageError(
                "GM-U426", "the work folder is not there", got=self.places.work.name,
                next_step="review where the release was made",
            )  # fmt: skip
        self._key = key
        self._look_only = look_only
        self._guard = threading.RLock()
        self.places.check_private()
        self._closing = ExitStack()
        with ExitStack() as stack:
            stack.enter_context(self.places.locked())
            self._ledger = stack.enter_context(Ledger(self.places.ledger, key))
            self.policy = self._policy()
            seconds = float(self.policy.intake.decode_seconds)
            self._decoder = stack.enter_context(Decoder(seconds, self.policy.intake.decode_memory_mib))
            ends = [entry.body for entry in self._ledger if entry.kind == "instance"]
            self._bodies = {str(body["handle"]): dict(body) for body in ends}
            decided = [e.body for e in self._ledger if e.kind in ("decision", "instance") and "verdict" in e.body]
            self._verdicts = {str(body["handle"]): str(body["verdict"]) for body in decided}
            self._comments = self._read_comments()
            self._kept = {path.stem: path for path in sorted((self.places.work / "intake").glob("*/*.npz"))}
            self._complete = bool(len(self._ledger)) and self._ledger.entries[-1].kind == "complete"
            self._open = True
            for body in () if look_only else self._bodies.values():
                put_right(self.places, body)
            self._closing = stack.pop_all()

    def __enter__(self) -> ReviewDesk:
        return self

    def __exit__(self, *of: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the review; the lock is free, and who still asks is refused."""
        with self._guard:
            self._open = False
            self._closing.close()

    # -- looking ----------------------------------------------------------------------------------------------------
    @property
    def limits(self) -> dict[str, Any]:
        """Of the gate, as the ledger names them."""
        runs = [e.body for e in self._ledger if e.kind == "run"]
        return dict(runs[-1].get("limits", {})) if runs else {}

    @property
    def counts(self) -> dict[str, int]:
        """Number of instances by end."""
        states = Counter(str(body["state"]) for body in self._bodies.values())
        return {state: states[state] for state in ("released", "held", "rejected")}

    def items(self) -> list[ReviewItem]:
        """Every instance that has a new image: held ones first, then released ones, each in the order of handles."""
        with self._guard:
            there = [handle for handle in sorted(self._bodies) if self._place(handle) is not None]
            return sorted(map(self.item, there), key=lambda item: item.state != "held")

    def item(self, handle: str) -> ReviewItem:
        """One instance.

        Raises:
            UsageError: ``GM-U427`` where there is none with a new image.
        """
        body = self._known(handle)
        codes = tuple(body.get("codes", ()))
        return ReviewItem(
            handle,
            str(body["state"]),
            codes,
            tuple(map(reason, codes)),
            {name: (float(pair[0]), float(pair[1])) for name, pair in body.get("scores", {}).items()},
            self._verdicts.get(handle, ""),
            self._comments.get(handle, ""),
            self._can_release(body),
            self.policy.review.show_sources and handle in self._kept,
        )

    def image(self, handle: str) -> UInt16[np.ndarray, "h w"]:
        """The new image, as it is written.

        Raises:
            UsageError: ``GM-U427``.
            IntegrityError: ``GM-W304`` where the file is not the one that the ledger names, or no image.
        """
        with self._guard:
            body, place = self._known(handle), self._place(handle)
            assert place is not None
            if sha256_of(place) != body["sha256"]:
                raise IntegrityError("GM-W304", "a file was changed", got=handle, next_step="find out by whom")
            try:
                levels: np.ndarray = self._decoder.decode(place.read_bytes()).levels
            except InputError:
                raise IntegrityError("GM-W304", "a file is no image any more", got=handle) from None
            return levels

    def source(self, handle: str) -> Float32[np.ndarray, "s s"]:
        """The source at the model's size, in [0, 1].

        Raises:
            UsageError: ``GM-U427``; ``GM-U428`` where the policy does not let sources be shown, or it is not kept.
        """
        with self._guard:
            self._known(handle)
            found = read_instance(self._kept[handle]) if handle in self._kept else None
            if not self.policy.review.show_sources or found is None or found.image is None:
                raise UsageError(
                    "GM-U428", "sources are not shown", expected="a policy with review.show_sources", got=handle
                )
            image: np.ndarray = found.image
            return image

    # -- deciding ---------------------------------------------------------------------------------------------------
    def decide(self, handle: str, verdict: Verdict, comment: str = "") -> ReviewItem:
        """Takes a decision down, and does what follows from it.

        Args:
            handle: of the instance.
            verdict: ``hold`` takes a released image back; ``accept`` releases a held one where the policy lets a person
                overrule all that held it, and is an opinion else.
            comment: for the reviewers alone.

        Raises:
            UsageError: ``GM-U427``; ``GM-U429`` for another verdict, or a comment that is too long; ``GM-U430`` for a
                desk that is only looked at.
            IntegrityError: ``GM-W304`` where the file is not the one that the gate judged.
            ResourceError: ``GM-R307`` where the disk does not take it; nothing more is taken down then.
        """
        if verdict not in ("accept", "hold") or len(comment) > _MAX_COMMENT or not _is_text(comment):
            raise UsageError(
                "GM-U429", "no decision", expected=f"accept or hold, at most {_MAX_COMMENT} characters beside it"
            )
        with self._guard:
            body = self._known(handle)
            if self._look_only:
                raise UsageError(
                    "GM-U430", "only looked at: no decision is taken down", next_step="leave --dry-run out"
                )
            try:
                if comment != self._comments.get(handle, ""):
                    self._keep_comment(handle, comment)
                self._take_down(handle, body, verdict, comment)
            except OSError as error:
                self._open = False  # what is on the disk is found by who opens the release next
                raise ResourceError(
                    "GM-R307", "the disk does not take the decision", got=error.strerror,
                    next_step="make room, and start the review again",
                ) from error  # fmt: skip
            return self.item(handle)

    def _take_down(self, handle: str, body: dict[str, Any], verdict: Verdict, comment: str) -> None:
        said = hmac.new(self._key, f"comment {comment}".encode(), hashlib.sha256).hexdigest()[:32]
        line: dict[str, Any] = {"handle": handle, "verdict": verdict} | ({"comment": said} if comment else {})
        plain = {
            name: value for name, value in body.items() if name not in ("codes", "overruled", "verdict", "comment")
        }
        against = sorted({*body.get("codes", ()), *body.get("overruled", ())} - {BY_PERSON})
        after: dict[str, Any] | None = None
        if verdict == "hold" and body["state"] == "released":
            after = plain | {"state": "held", "codes": [*against, BY_PERSON]}
        elif verdict == "accept" and self._can_release(body):
            place = self._place(handle)
            if place is None or sha256_of(place) != body["sha256"]:
                raise IntegrityError("GM-W304", "a held file was changed", got=handle, next_step="find out by whom")
            after = plain | {"state": "released"} | ({"overruled": against} if against else {})
        if after is None:
            self._ledger.append("decision", line)
        else:
            self._ledger.append("instance", after | line)
            self._bodies[handle] = after | line
        self._verdicts[handle] = verdict
        if self._complete:  # the last line of a release that is; of one that is not a review makes none
            self._ledger.append("complete", self.counts)
        if after is not None and not put_right(self.places, after):
            raise OSError(errno.ENOENT, "the file is gone")

    def _can_release(self, body: dict[str, Any]) -> bool:
        """Whether a person may release an instance: all that held it can be overruled, and by the limits of today
        nothing else speaks against it."""
        codes = set(body.get("codes", ()))
        if body["state"] != "held" or not codes or not codes <= {BY_PERSON, *self.policy.review.may_release}:
            return False
        scores = body.get("scores", {})
        for name, (low, high) in self.limits.items():
            if codes & set(HELD_BY_CHECK.get(name, ())):
                continue
            least, most = scores.get(name, (math.nan, math.nan))
            low, high = (-math.inf if low is None else low), (math.inf if high is None else high)
            if not (least >= low - _ROUNDED and most <= high + _ROUNDED):
                return False
        return self.policy.batch.attack != "require" or self._was_attacked(body)

    def _was_attacked(self, body: dict[str, Any]) -> bool:
        """Whether the last attack on the whole release passed with this very image in it."""
        entries = self._ledger.entries
        last = max((e.number for e in entries if e.kind == "batch"), default=-1)
        if last < 0 or not entries[last].body.get("passed"):
            return False
        before = [e.body for e in entries[:last] if e.kind == "instance" and e.body.get("handle") == body["handle"]]
        return bool(before) and before[-1].get("state") in ("released", "waiting") and (
            before[-1].get("sha256") == body["sha256"]
        )  # fmt: skip

    # -- what is there ----------------------------------------------------------------------------------------------
    def _known(self, handle: str) -> dict[str, Any]:
        if not self._open:
            raise UsageError("GM-U432", "the review is over", next_step="start gmia review again")
        if handle not in self._bodies or self._place(handle) is None:
            raise UsageError("GM-U427", "no new image of that handle")
        return self._bodies[handle]

    def _place(self, handle: str) -> Path | None:
        """Where the new image of an instance is."""
        place = place_of(self.places, self._bodies[handle])
        return place if place is not None and place.is_file() and not place.is_symlink() else None

    def _policy(self) -> Policy:
        runs = [e.body for e in self._ledger if e.kind == "run"]
        path = self.places.policy
        if not runs or not path.is_file() or runs[-1].get("policy") != sha256_of(path):
            raise IntegrityError(
                "GM-W311", "the policy is not the one that the ledger names", next_step="find out who changed it"
            )
        return load_policy(path)

    @property
    def _comment_file(self) -> Path:
        return self.places.work / "comments.jsonl"

    def _keep_comment(self, handle: str, comment: str) -> None:
        line = "\n" + json.dumps({"handle": handle, "comment": comment}) + "\n"  # half a line may be there
        descriptor = os.open(self._comment_file, os.O_CREAT | os.O_APPEND | os.O_WRONLY | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            stream.write(line)
            stream.flush()
            os.fsync(stream.fileno())
        self._comments[handle] = comment

    def _read_comments(self) -> dict[str, str]:
        if not self._comment_file.is_file():
            return {}
        found = {}
        for line in self._comment_file.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                one = json.loads(line)
                found[str(one["handle"])] = str(one["comment"])
            except (ValueError, TypeError, KeyError):  # half a line of a process that was killed
                continue
        return found


def _is_text(comment: str) -> bool:
    """Whether it can be written."""
    try:
        comment.encode()
    except UnicodeEncodeError:
        return False
    return True
