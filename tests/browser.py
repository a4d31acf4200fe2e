"""Fixtures for tests in a real browser: a fresh site, its server, Chromium, a watchful page."""

from __future__ import annotations

import functools
import http.server
import os
import shutil
import threading

import pytest

from tools import notebooks, site

ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip
NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        pass


@pytest.fixture(scope="session")
def built(tmp_path_factory):
    """The site, built from nothing, every warning an error."""
    folder = tmp_path_factory.mktemp("site") / "html"
    site.build(folder, fresh=True)
    return folder


@pytest.fixture(scope="session")
def server(built):
    handler = functools.partial(Quiet, directory=str(built))
    httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=httpd.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{httpd.server_port}"
    httpd.shutdown()


@pytest.fixture(scope="session")
def chromium():
    path = next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        message = f"no browser: none of {', '.join(NAMES)} is on the path"
        if os.environ.get("FLOWLIB_REQUIRE_BROWSER") == "1":
            pytest.fail(message)
        pytest.skip(message)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        yield browser
        browser.close()


class Watch:
    """A browser context that refuses whatever is not the site, and remembers what went wrong."""

    def __init__(self, browser, roots, **options):
        self.roots, self.wrong = roots, []
        self.context = browser.new_context(**options)
        self.context.set_default_timeout(15_000)
        self.context.route("**/*", self._route)
        self.page = self.context.new_page()
        self.page.on("console", self._console)
        self.page.on("pageerror", lambda error: self.wrong.append(f"page error: {error}"))
        self.page.on("response", self._response)

    def _route(self, route):
        url = route.request.url
        if url.startswith((*self.roots, "blob:", "data:")):
            route.continue_()
        else:
            self.wrong.append(f"outside request: {url}")
            route.abort()

    def _console(self, message):
        if message.type == "error":
            self.wrong.append(f"console: {message.text}")

    def _response(self, response):
        if response.status >= 400:
            self.wrong.append(f"{response.status}: {response.url}")


@pytest.fixture
def watch(chromium, request):
    """``watch(width=..., color_scheme=...)`` opens a watchful page; all must end clean."""
    opened, roots = [], ()
    if "server" in request.fixturenames:
        roots = (request.getfixturevalue("server"), request.getfixturevalue("built").as_uri())

    def open_one(width=1280, height=900, **options):
        one = Watch(chromium, roots, viewport={"width": width, "height": height}, **options)
        opened.append(one)
        return one

    yield open_one
    for one in opened:
        one.context.close()
    assert not [wrong for one in opened for wrong in one.wrong]


def content_pages() -> list[str]:
    """The pages that people write, as paths within the site."""
    book = sorted(p.stem for p in (notebooks.ROOT / "book").glob("*.md"))
    chapters = sorted(p.stem for p in notebooks.CHAPTERS.glob("[0-9]*.md"))
    return [f"book/{name}.html" for name in book] + [f"chapters/{name}.html" for name in chapters]


# --- explorers ----------------------------------------------------------------------------


def on_site(one: Watch, explorer: str, root: str):
    """The first explorer of that name on the chapters' pages, scrolled to."""
    for path in content_pages():
        if path.startswith("chapters"):
            one.page.goto(f"{root}/{path}", wait_until="load")
            found = one.page.locator(f'.fl-explorer[data-explorer="{explorer}"]')
            if found.count():
                return _alive(found.first)
    pytest.fail(f"no chapter shows {explorer}")


def alone(one: Watch, widget):
    """A new explorer on a page of its own, long enough to scroll, without a kernel."""
    bundle, _ = widget._repr_mimebundle_()
    head = '<meta name="viewport" content="width=device-width">'
    one.page.set_content(head + bundle["text/html"] + '<div style="height: 3000px"></div>')
    return _alive(one.page.locator(".fl-explorer"))


def _alive(explorer):
    explorer.and_(explorer.page.locator('[data-alive="true"]')).wait_for()
    explorer.scroll_into_view_if_needed()
    return explorer


def settle(explorer) -> None:
    """Wait for the redraw of the changes so far."""
    explorer.evaluate(
        "() => new Promise(r => requestAnimationFrame(() => requestAnimationFrame(r)))"
    )


def readouts(explorer) -> dict[str, float]:
    """Every visible number that the explorer shows, in full precision."""
    settle(explorer)
    shown = explorer.evaluate(
        "e => Object.fromEntries([...e.querySelectorAll('[data-readout]')]"
        ".filter(o => o.offsetParent).map(o => [o.dataset.readout, o.dataset.value]))"
    )
    return {name: float(value) for name, value in shown.items()}


def put_sliders(explorer, values: dict[str, float]) -> None:
    explorer.evaluate(
        "(e, values) => { for (const [name, v] of Object.entries(values)) {"
        " const s = e.querySelector(`input[data-name=${name}]`); s.value = v;"
        " s.dispatchEvent(new Event('input', { bubbles: true })); } }",
        values,
    )


def _centre(handle) -> tuple[float, float]:
    handle.scroll_into_view_if_needed()
    box = handle.locator("circle").last.bounding_box()
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def drag(page, handle, dx: float, dy: float) -> None:
    """Take a handle with the mouse and carry it that many pixels right and down."""
    x, y = _centre(handle)
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + dx / 2, y + dy / 2)
    page.mouse.move(x + dx, y + dy)
    page.mouse.up()


def swipe(one: Watch, handle, dx: float, dy: float) -> None:
    """The same with a finger, through the browser's own touch handling."""
    x, y = _centre(handle)
    session = one.context.new_cdp_session(one.page)
    path = [(x + dx * t, y + dy * t) for t in (0, 0.4, 1)]
    for kind, at in zip(("touchStart", "touchMove", "touchMove"), path, strict=True):
        point = {"x": at[0], "y": at[1]}
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [point]})
    session.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
