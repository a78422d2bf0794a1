"""The page of a review: served to this machine alone, by a token that only the command tells."""

from __future__ import annotations

import hmac
import io
import secrets
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import numpy as np
from flask import Flask, Response, abort, jsonify, render_template, request
from PIL import Image

from gmia_monai.dicom.intensity import from_unit, integer_to_unit
from gmia_monai.errors import GmiaError, IntegrityError
from gmia_monai.release.review import ReviewDesk
from gmia_monai.report.release import MEANING

__all__ = ["review_app"]

_LONGEST = 1400  # of a picture on the page


def review_app(desk: ReviewDesk, token: str, finish: Callable[[], object] = lambda: None) -> Flask:
    """The page, its data and its one way to write.

    Everything but the empty page asks for the token in the header ``X-Token``, which no other site can send, and every
    name of this machine but its own is refused.

    Args:
        desk: the release that is looked at.
        token: what a request has to show.
        finish: is called when the person has finished.
    """
    app = Flask(__name__, static_folder=None)
    app.config.update(TRUSTED_HOSTS=["127.0.0.1", "localhost"], MAX_CONTENT_LENGTH=1 << 16)

    @app.before_request
    def known() -> None:
        given = request.headers.get("X-Token", "")
        if request.endpoint != "page" and not hmac.compare_digest(given.encode(), token.encode()):
            answer = jsonify(error="not without the link that gmia review printed")
            answer.status_code = 403
            abort(answer)

    @app.after_request
    def careful(answer: Response) -> Response:
        answer.headers.setdefault("Content-Security-Policy", "default-src 'none'")
        answer.headers["Cache-Control"] = "no-store"
        answer.headers["X-Content-Type-Options"] = "nosniff"
        answer.headers["Referrer-Policy"] = "no-referrer"
        return answer

    @app.errorhandler(GmiaError)
    def refused(error: GmiaError) -> tuple[Response, int]:
        return jsonify(error=str(error)), 500 if isinstance(error, IntegrityError) else 400

    @app.get("/")
    def page() -> Response:
        nonce = secrets.token_urlsafe(16)
        answer = Response(render_template("review.html", nonce=nonce, meaning=MEANING))
        answer.headers["Content-Security-Policy"] = (
            f"default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; img-src blob:; "
            "connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
        )
        return answer

    @app.get("/items")
    def items() -> Response:
        found = desk.items()
        without = desk.counts["held"] - sum(item.state == "held" for item in found)
        return jsonify(items=list(map(asdict, found)), limits=desk.limits, without_image=without)

    @app.get("/image/<handle>")
    def image(handle: str) -> Response:
        return _png(integer_to_unit(desk.image(handle), 16))

    @app.get("/source/<handle>")
    def source(handle: str) -> Response:
        return _png(desk.source(handle))

    @app.post("/decide")
    def decide() -> Response:
        asked: Any = request.get_json()
        texts = (
            [asked.get(name, "") for name in ("handle", "verdict", "comment")] if isinstance(asked, dict) else [None]
        )
        if not all(isinstance(text, str) for text in texts):
            abort(400)
        return jsonify(asdict(desk.decide(*texts)))

    @app.post("/end")
    def end() -> Response:
        finish()
        return jsonify(ended=True)

    return app


def _png(image: np.ndarray) -> Response:
    picture = Image.fromarray(from_unit(np.clip(image, 0.0, 1.0), 8))
    picture.thumbnail((_LONGEST, _LONGEST), Image.Resampling.BOX)
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return Response(buffer.getvalue(), mimetype="image/png")
