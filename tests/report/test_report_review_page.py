"""The page of a review: who is let in, what it says, and that keys do what they say, in a real browser."""

from __future__ import annotations

import io
import re
import shutil
import threading

import numpy as np
import pytest
from PIL import Image
from toy_release import KEY, LIMITS, contents, release, toy_parts, write_input
from werkzeug.serving import make_server

from gmia_monai.release.gate import Bounds, Gate
from gmia_monai.release.policy import Policy, Review
from gmia_monai.release.review import ReviewDesk
from gmia_monai.report.release import release_facts, release_report
from gmia_monai.report.review_page import review_app

TOKEN = {"X-Token": "open sesame"}
PARTS = toy_parts(Gate(LIMITS | {"contrast": Bounds(low=0.155)}))
BROWSER = next((found for name in ("chromium", "google-chrome", "chrome") if (found := shutil.which(name))), None)
needs_browser = pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine: NOT checked here are the keys")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp("page")
    policy = Policy(review=Review(may_release=["GM-H104"], show_sources=True))
    release(write_input(root / "in", patients=4, images=3), root / "out", policy=policy, parts=PARTS)
    return root


@pytest.fixture
def desk(made, tmp_path):
    for name in ("out", "out.work"):
        shutil.copytree(made / name, tmp_path / name)
    with ReviewDesk(tmp_path / "out", KEY) as desk:
        yield desk


@pytest.fixture
def client(desk):
    return review_app(desk, TOKEN["X-Token"]).test_client()


def test_without_the_token_there_is_an_empty_page_and_nothing_else(client, desk):
    page = client.get("/")
    handle = desk.items()[0].handle
    assert page.status_code == 200 and handle not in page.text and TOKEN["X-Token"] not in page.text
    ways = [("get", "/items"), ("get", f"/image/{handle}"), ("get", f"/source/{handle}"), ("post", "/decide")]
    for headers in ({}, {"X-Token": ""}, {"X-Token": "guess"}, {"Cookie": "X-Token=open sesame"}):
        for method, path in [*ways, ("post", "/end"), ("get", "/nothing")]:
            assert getattr(client, method)(path, headers=headers).status_code == 403
    assert client.get(f"/items?X-Token={TOKEN['X-Token']}").status_code == 403


def test_other_names_of_this_machine_are_refused(client):
    assert client.get("/items", headers=TOKEN | {"Host": "127.0.0.1:5000"}).status_code == 200
    for host in ("evil.example", "127.0.0.1.evil.example", "10.0.0.1"):
        for path in ("/items", "/"):
            answer = client.get(path, headers=TOKEN | {"Host": host})
            assert answer.status_code == 400 and len(answer.data) < 400


def test_the_page_runs_its_own_script_alone_and_is_kept_nowhere(client):
    page, other = client.get("/"), client.get("/")
    [nonce] = set(re.findall(r"nonce=\"([^\"]+)\"", page.text))
    assert f"script-src 'nonce-{nonce}'" in page.headers["Content-Security-Policy"] and nonce not in other.text
    assert "default-src 'none'" in page.headers["Content-Security-Policy"] and "http" not in page.text
    for answer in (page, client.get("/items", headers=TOKEN)):
        assert answer.headers["Cache-Control"] == "no-store" and "Access-Control-Allow-Origin" not in answer.headers


def test_items_and_images(client, desk):
    found = client.get("/items", headers=TOKEN).json
    assert len(found["items"]) == 12 and found["limits"]["contrast"] == [0.155, None] and found["without_image"] == 0
    handle = found["items"][0]["handle"]
    with Image.open(io.BytesIO(client.get(f"/image/{handle}", headers=TOKEN).data)) as picture:
        assert picture.size == (64, 72) and picture.mode == "L"
        np.testing.assert_allclose(np.asarray(picture), desk.image(handle) / 257, atol=0.6)
    with Image.open(io.BytesIO(client.get(f"/source/{handle}", headers=TOKEN).data)) as picture:
        assert picture.size == (32, 32)


def test_requests_that_say_nothing_are_refused_with_words(client):
    for bad in ({"handle": 3, "verdict": "hold"}, ["hold"], {"handle": "x", "verdict": "hold"}, {}):
        assert client.post("/decide", headers=TOKEN, json=bad).status_code == 400
    assert client.post("/decide", headers=TOKEN, data="verdict=hold").status_code == 415
    assert client.post("/decide", headers=TOKEN, data=b"x" * (1 << 17)).status_code in (413, 415)
    assert "GM-U427" in client.get("/image/0000", headers=TOKEN).json["error"]


def test_a_decision_is_in_ledger_and_report(client, desk, tmp_path):
    handle = next(item.handle for item in desk.items() if item.state == "held")
    told = client.post("/decide", headers=TOKEN, json={"handle": handle, "verdict": "accept", "comment": "fine"})
    assert told.json["state"] == "released" and told.json["comment"] == "fine"
    assert release_facts(tmp_path / "out", KEY).decisions == {"accept": 1}
    page = release_report(tmp_path / "out", KEY).read_text()
    assert "A person looked at 1 new images: 1 accepted, 0 held" in page


@pytest.fixture
def page(desk):
    """The page in a browser without a window."""
    sync_api = pytest.importorskip("playwright.sync_api")
    ended = threading.Event()
    server = make_server("127.0.0.1", 0, review_app(desk, "token", ended.set), threaded=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        page.asked, page.wrong, page.ended = [], [], ended
        page.on("request", lambda request: page.asked.append(request.url))
        page.on("pageerror", lambda error: page.wrong.append(str(error)))
        page.on("console", lambda message: page.wrong.append(message.text) if message.type == "error" else None)
        page.link = f"http://127.0.0.1:{server.port}/#token"
        page.goto(page.link)
        page.wait_for_selector("nav button[aria-current]")
        yield page
        browser.close()
    server.shutdown()
    server.server_close()


def _said(page, text: str) -> None:
    page.get_by_text(text).first.wait_for(timeout=20_000)


def _press(page, key: str) -> None:
    """A key that decides, as soon as there is something to decide on."""
    page.locator("[data-verdict=accept]:enabled").wait_for()
    page.keyboard.press(key)


@needs_browser
def test_keys_decide_in_a_browser(page, desk, tmp_path):
    before = contents(tmp_path / "out/images")
    held = [item.handle for item in desk.items() if item.state == "held"]
    released = [item.handle for item in desk.items() if item.state == "released"]
    _said(page, "new image, held")
    assert page.locator("#image").evaluate("e => e.naturalWidth") == 64 and page.locator("#beside").is_visible()
    assert page.inner_text("#handle") == held[0] and "token" not in page.url
    _press(page, "a")
    _said(page, f"{held[0]}: now released")
    assert page.inner_text("#handle") == held[1], "on to the next one"
    page.keyboard.press("c")
    page.keyboard.type("a heart that has gone, h and a are letters here")
    page.keyboard.press("Escape")
    _press(page, "h")
    _said(page, f"{held[1]}: held, still held")
    page.keyboard.press("ArrowLeft")
    _said(page, "held by a person")
    assert page.input_value("#comment").startswith("a heart") and page.inner_text("#handle") == held[1]
    for _ in range(2):
        page.keyboard.press("f")  # all, held, released
    page.click(f"nav button:has-text('{released[0]}')")
    _press(page, "h")
    _said(page, f"{released[0]}: now held")
    assert "3 of 12 decided" in page.inner_text("#progress")
    assert desk.item(released[0]).codes == ("GM-H301",) and desk.item(held[1]).comment.startswith("a heart")
    after = contents(tmp_path / "out/images")
    assert len(after) == len(before) and after.keys() != before.keys()
    page.reload()
    _said(page, "3 of 12 decided")
    own = page.link.split("#")[0]
    assert all(url.startswith((own, f"blob:{own}")) for url in page.asked) and page.wrong == []
    page.click("#end")
    _said(page, "The review is over")
    assert page.ended.wait(5)


@needs_browser
def test_only_what_stands_on_the_page_is_decided_and_once(page, desk):
    """Keys that come before the image has, or again while one is held down, decide nothing."""
    _said(page, "new image, held")
    items = desk.items()
    waiting = []
    page.route(f"**/image/{items[1].handle}", lambda route: waiting.append(route))  # noqa: PLW0108
    page.keyboard.press("c")
    page.keyboard.type("draft of the first")
    page.keyboard.press("Escape")
    page.keyboard.press("j")
    page.keyboard.press("a")
    assert page.inner_text("#handle") == items[1].handle and page.locator("[data-verdict=accept]").is_disabled()
    assert page.locator("#image").get_attribute("src") is None, "no other image under its name"
    waiting[0].continue_()
    page.locator("[data-verdict=accept]:enabled").wait_for()
    assert [item.verdict for item in desk.items()] == [""] * 12
    page.evaluate(
        "for (let i = 0; i < 30; i++) document.dispatchEvent(new KeyboardEvent('keydown', {key: 'h', repeat: i > 0}))"
    )
    _said(page, f"{items[1].handle}: held, still held")
    assert sum(bool(item.verdict) for item in desk.items()) == 1
    page.click(f"nav button:has-text('{items[0].handle}')")
    assert page.input_value("#comment") == "draft of the first"


@needs_browser
def test_a_page_without_its_token_says_so(page):
    page.evaluate("sessionStorage.clear()")
    page.goto(page.link.split("#")[0] + "?")
    _said(page, "not without the link that gmia review printed")
