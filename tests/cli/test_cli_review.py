"""The command of a review: it serves this machine alone, ends by itself, and says what came out."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
import urllib.error
import urllib.request

import pytest
from toy_release import KEY, release, write_input

from gmia_monai.release.ledger import read_ledger


@pytest.fixture
def out(tmp_path):
    release(write_input(tmp_path / "in", patients=1, images=2), tmp_path / "out")
    (tmp_path / "out.key").write_text(KEY.hex())
    (tmp_path / "out.key").chmod(0o600)
    return tmp_path / "out"


def _start(*arguments: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "gmia_monai.cli.main", "review", *arguments, "--no-browser"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def _ask(link: str, path: str, body: object = None) -> object:
    address, _, token = link.partition("#")
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(  # noqa: S310 - our own server
        address + path, data, {"X-Token": token, "Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=20) as answer:  # noqa: S310
        return json.load(answer)


def test_a_review_from_its_link_to_its_end(out):
    process = _start(str(out))
    try:
        link = re.search(r"http://127\.0\.0\.1:\d+/#\S+", process.stdout.readline())[0]
        with pytest.raises(urllib.error.HTTPError, match="403"):
            _ask(link.split("#")[0] + "#guess", "items")
        items = _ask(link, "items")["items"]
        assert len(items) == 2
        way_in = out.with_name("out.work") / "review.html"
        assert link in way_in.read_text() and way_in.stat().st_mode & 0o077 == 0
        assert _ask(link, "decide", {"handle": items[0]["handle"], "verdict": "hold"})["state"] == "held"
        _ask(link, "end", {})
        said, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 0 and "1 released, 1 held, 0 rejected" in said and "GET" not in errors
    assert link.split("#")[1] not in said + errors and not (out.with_name("out.work") / "review.html").exists()
    assert [e.kind for e in read_ledger(out / "ledger.jsonl", KEY)][-2:] == ["instance", "complete"]
    assert "A person looked at 1 new images" in (out / "report.html").read_text()


def test_what_is_no_release_is_refused(out, tmp_path):
    for folder, code in ((tmp_path / "none", "GM-U082"), (tmp_path / "in", "GM-U082")):
        process = _start(str(folder))
        assert process.wait(timeout=120) == 2 and code in process.communicate()[1]
    with socket.create_server(("127.0.0.1", 0)) as taken:
        process = _start(str(out), "--port", str(taken.getsockname()[1]))
        assert process.wait(timeout=120) == 4 and "GM-R308" in process.communicate()[1]
    process = _start(str(tmp_path / "in"), "--key", f"{out}.key")
    assert process.wait(timeout=120) == 2 and "GM-U424" in process.communicate()[1]
