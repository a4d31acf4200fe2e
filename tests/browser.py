"""Fixtures for tests in a real browser: a fresh site, its server, Chromium, a watchful page."""

from __future__ import annotations

import functools
import http.server
import json
import os
import shutil
import threading

import filelock
import pytest

from tools import notebooks, site

ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1", "--no-proxy-server",
]  # fmt: skip
NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        pass


@pytest.fixture(scope="session")
def built(tmp_path_factory):
    """The site, built from nothing, every warning an error; once for all processes of a run."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    with filelock.FileLock(folder / "site.lock"):
        if not (folder / "site.done").exists():
            site.build(folder / "html", fresh=True)
            (folder / "site.done").touch()
    return folder / "html"


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
    """A browser context that remembers what went wrong, and what was asked of anybody but the site;
    the browser finds nobody but this machine."""

    def __init__(self, browser, roots, **options):
        self.roots, self.wrong = roots, []
        self.context = browser.new_context(**options)
        self.context.set_default_timeout(15_000)
        self.context.on("request", self._request)
        self.page = self.context.new_page()
        self.page.on("console", self._console)
        self.page.on("pageerror", lambda error: self.wrong.append(f"page error: {error}"))
        self.page.on("response", self._response)

    def _request(self, request):
        if not request.url.startswith((*self.roots, "blob:", "data:")):
            self.wrong.append(f"outside request: {request.url}")

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


def alone(one: Watch, widget):
    """A new explorer on a page of its own, long enough to scroll, without a kernel."""
    head = '<meta name="viewport" content="width=device-width">'
    page = widget._repr_mimebundle_()[0]["text/html"]
    page = page.replace("</script>", "root.model = model;\n</script>")  # boot.js's, for `each`
    one.page.set_content(head + page + '<div style="height: 3000px"></div>')
    explorer = one.page.locator('.fl-explorer[data-alive="true"]')
    explorer.wait_for()
    explorer.evaluate("e => e.querySelectorAll('details').forEach(d => (d.open = true))")
    explorer.scroll_into_view_if_needed()
    return explorer


def settle(shown) -> None:
    """Wait for the redraw of the changes so far, of an explorer or a page."""
    shown.evaluate("() => new Promise(r => requestAnimationFrame(() => requestAnimationFrame(r)))")


def each(explorer, states: list[dict], look: str) -> list:
    """What `look`, a function of the explorer, finds in each of the states, on one page.

    A state's traits are set on the page's own model, as a kernel would set them.
    """
    return explorer.evaluate(
        """async (e, [states, look]) => {
          const find = eval(look), found = [];
          for (const state of states) {
            for (const [name, value] of Object.entries(state)) e.model.set(name, value);
            await new Promise((r) => requestAnimationFrame(() => requestAnimationFrame(r)));
            found.push(await find(e));
          }
          return found;
        }""",
        [states, look],
    )


READOUTS = """(e) => Object.fromEntries([...e.querySelectorAll("[data-readout]")]
  .filter((o) => o.offsetParent)
  .map((o) => [o.dataset.readout, Number(o.dataset.value)]))"""


def readouts(explorer) -> dict[str, float]:
    """Every visible number that the explorer shows, in full precision."""
    settle(explorer)
    return explorer.evaluate(READOUTS)


def state(explorer, *names: str):
    """Those of its data attributes, as numbers and lists: one, or a list of several."""
    settle(explorer)
    data = explorer.evaluate("e => ({...e.dataset})")
    found = [_parsed(data[name]) for name in names]
    return found[0] if len(names) == 1 else found


def _parsed(text: str):
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return json.loads(f"[{text}]")  # numbers with commas between them


def solved(explorer) -> bool:
    """Whether the task that is shown is."""
    settle(explorer)
    return explorer.locator("[data-task]:visible").get_attribute("data-solved") == "true"


def cut(explorer) -> list[str]:
    """What reaches beyond the explorer's right edge, but for curves that end at a plane's edge."""
    return explorer.evaluate(
        """(e) => {
          const { right } = e.getBoundingClientRect();
          return [...e.querySelectorAll(':not([data-explorer="WarpExplorer"] path)')]
            .filter((n) => n.getBoundingClientRect().right > right + 1)
            .map((n) => n.outerHTML.slice(0, 100));
        }"""
    )


def too_small(explorer, targets: str) -> int:
    """How many of the targets are too small for a finger."""
    return explorer.locator(targets).evaluate_all(
        "all => all.map(n => n.getBoundingClientRect())"
        ".filter(b => Math.min(b.width, b.height) < 24).length"
    )


def smallest_words(explorer) -> float:
    """The size of the smallest words of a picture, in pixels of the screen."""
    return explorer.locator("svg text").evaluate_all(
        "all => Math.min(...all.map(t =>"
        " parseFloat(getComputedStyle(t).fontSize) * t.ownerSVGElement.getScreenCTM().a))"
    )


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
