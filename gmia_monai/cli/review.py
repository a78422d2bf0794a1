"""``gmia review``: a person looks at the new images of a release."""

from __future__ import annotations

import logging
import os
import secrets
import socket
import threading
import webbrowser
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from gmia_monai.dicom.pseudonyms import default_key_path, load_key
from gmia_monai.errors import ResourceError

__all__ = ["review"]


def review(
    folder: Annotated[Path, typer.Argument(metavar="OUT", help="A release; its work folder has to be beside it.")],
    key_file: Annotated[Path | None, typer.Option("--key", help="Project key; OUT.key by default.")] = None,
    port: Annotated[int, typer.Option(help="Of the page; 0: any that is free.", min=0, max=65535)] = 0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Look only: no decision is taken down.")] = False,
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Open the page.")] = True,
) -> None:
    """Look at released and held images beside their scores, on a page that this machine serves to itself alone.

    Decisions go to the ledger. Hold takes a released image back; accept releases a held one where the policy lets a
    person overrule what held it (`review.may_release`). Ends with Finish on the page, or Ctrl-C.
    """
    from werkzeug.serving import make_server

    from gmia_monai.release.review import ReviewDesk
    from gmia_monai.report.release import release_report
    from gmia_monai.report.review_page import review_app

    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # a line each request
    key, token = load_key(key_file or default_key_path(folder)), secrets.token_urlsafe(24)
    with ReviewDesk(folder, key, dry_run) as desk:
        # Stopping waits for the answer that asked for it, so it is another thread's.
        app = review_app(desk, token, lambda: threading.Thread(target=server.shutdown).start())
        server = make_server("127.0.0.1", port, app, threaded=True, fd=_listening(port))
        link = f"http://127.0.0.1:{server.port}/#{token}"
        typer.echo(f"review at {link} (only on this machine, only with this link); Ctrl-C ends it")
        try:
            with _way_in(desk.places.work / "review.html", link) as page:
                if browser:  # some browsers stay in front
                    threading.Thread(target=webbrowser.open, args=(page.as_uri(),), daemon=True).start()
                server.serve_forever()
        except KeyboardInterrupt:
            typer.echo("", err=True)
        finally:
            server.server_close()
        counts = desk.counts
    if not dry_run:
        release_report(folder, key)
    typer.echo(", ".join(f"{number} {state}" for state, number in counts.items()))


def _listening(port: int) -> int:
    """A socket of this machine alone."""
    found = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        found.bind(("127.0.0.1", port))
        found.listen()
    except OSError as error:
        found.close()
        raise ResourceError(
            "GM-R308", "the port cannot be used", got=error.strerror, next_step="leave --port out"
        ) from None
    return found.detach()


@contextmanager
def _way_in(page: Path, link: str) -> Iterator[Path]:
    """A file that only its owner can read and that leads to the link: a command line, which everybody on the machine
    can read, would tell the token."""
    page.unlink(missing_ok=True)
    descriptor = os.open(page, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
        stream.write(f'<!doctype html><meta http-equiv="refresh" content="0;url={link}"><a href="{link}">review</a>\n')
    try:
        yield page
    finally:
        page.unlink(missing_ok=True)
