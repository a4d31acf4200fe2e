"""What the pages weigh and how soon they live: `python tools/measure.py _build/html [PAGE ...]`.

For each page at the width of a laptop and of a phone: the height of every explorer, how many bytes
a reader gets, raw and compressed, without figures, in how many requests, the first paint, when the
explorers near the top are alive, how long at most another one takes when a reader jumps to it, and
how far the layout shifts; the times also throttled, to a phone of 1.6 Mbit/s with a CPU four times
as slow. `--heights` notes the heights of explorers and sections instead, for which pages keep room.
`--lighthouse` adds its scores, which want node and `npm install --prefix DIR lighthouse`, with DIR
in the environment as LIGHTHOUSE.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import shutil
import subprocess
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page, sync_playwright

from tools.pages import room

ROOT = Path(__file__).resolve().parent.parent
PAGES = ["book/index.html"] + [
    f"chapters/{p.stem}.html" for p in sorted(ROOT.glob("chapters/[0-9]*.md"))
]
WIDTHS = {"laptop": (1280, 800), "phone": (390, 844)}
FIGURES = (".png", ".webp", ".jpg")
SLOW = {
    "offline": False,
    "latency": 150,
    "downloadThroughput": 1.6e6 / 8,
    "uploadThroughput": 0.75e6 / 8,
}
NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")

WATCH = """() => {
  window.seen = { shift: 0, paint: 0, alive: 0 };
  new PerformanceObserver((list) => {
    for (const e of list.getEntries()) if (!e.hadRecentInput) seen.shift += e.value;
  }).observe({ type: "layout-shift", buffered: true });
  new PerformanceObserver((list) => {
    for (const e of list.getEntries())
      if (e.name === "first-contentful-paint") seen.paint = e.startTime;
  }).observe({ type: "paint", buffered: true });
  const look = () => {
    const near = (e) => e.getBoundingClientRect().top < 2 * innerHeight;
    const waiting = [...document.querySelectorAll("[data-explorer]:not([data-alive])")];
    const ready = document.readyState === "complete" && !waiting.some(near);
    if (ready) seen.alive = performance.now();
    else setTimeout(look, 20);
  };
  addEventListener("DOMContentLoaded", look);
}"""
JUMP = """async () => {
  let longest = 0;
  for (const e of document.querySelectorAll("[data-explorer]:not([data-alive])")) {
    const start = performance.now();
    e.scrollIntoView({ block: "center" });
    while (!e.dataset.alive) await new Promise((r) => setTimeout(r, 5));
    longest = Math.max(longest, performance.now() - start);
  }
  return longest;
}"""


class Compressing(SimpleHTTPRequestHandler):
    """Serves as websites do: text compressed, where the browser takes it."""

    def log_message(self, *arguments: Any) -> None:
        pass

    def do_GET(self) -> None:
        path = Path(self.translate_path(self.path))
        if path.suffix not in {".html", ".css", ".js", ".svg", ".json"} or not path.is_file():
            super().do_GET()
            return
        body = gzip.compress(path.read_bytes())
        self.send_response(200)
        self.send_header("Content-Type", self.guess_type(str(path)))
        self.send_header("Content-Encoding", "gzip")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def visit(browser: Browser, url: str, size: tuple[int, int], slow: bool) -> dict[str, Any]:
    """One reader who opens one page, with nothing in the cache."""
    context = browser.new_context(viewport={"width": size[0], "height": size[1]})
    page = context.new_page()
    page.add_init_script(f"({WATCH})()")
    bodies: list[tuple[str, bytes]] = []
    if slow:
        session = context.new_cdp_session(page)
        session.send("Network.enable")
        session.send("Network.emulateNetworkConditions", SLOW)
        session.send("Emulation.setCPUThrottlingRate", {"rate": 4})
    else:
        page.on("response", lambda response: bodies.append((response.url, response.body())))
    page.goto(url, wait_until="load", timeout=120_000)
    page.wait_for_function("seen.alive > 0", timeout=120_000)
    jump = page.evaluate(JUMP)
    height = page.evaluate("document.documentElement.scrollHeight")
    for y in range(0, height, size[1]):  # what is lazy comes, and shifts the layout if it does
        page.evaluate(f"scrollTo(0, {y})")
        page.wait_for_timeout(30 if not slow else 5)
    heights = page.evaluate(
        "[...document.querySelectorAll('[data-explorer]')].map(e =>"
        " [e.dataset.explorer, Math.round(e.getBoundingClientRect().height)])"
    )
    seen = page.evaluate("seen")
    context.close()
    text = [(url, body) for url, body in bodies if not url.split("?")[0].endswith(FIGURES)]
    return {
        "heights": heights, "requests": len(bodies), "paint": seen["paint"] / 1000,
        "alive": seen["alive"] / 1000, "jump": jump / 1000, "shift": seen["shift"],
        "raw": sum(len(body) for _, body in text),
        "gzip": sum(len(gzip.compress(body)) for _, body in text),
    }  # fmt: skip


def lay_out(page: Page) -> None:
    """Bring all explorers to life, and have all sections laid out, as if all had been read."""
    page.add_style_tag(content=".fl-far { content-visibility: visible !important }")
    for explorer in page.locator("[data-explorer]").all():
        explorer.scroll_into_view_if_needed()
        explorer.and_(page.locator("[data-alive]")).wait_for()
    page.evaluate("scrollTo(0, 0)")


def note_heights(browser: Browser, server: str, pages: list[str]) -> None:
    """Write how high each explorer and section is, on a phone and on a laptop: so much room is
    kept for it."""
    found: dict[str, dict[str, list[int]]] = {"explorers": {}}
    for name in ("phone", "laptop"):
        width, height = WIDTHS[name]
        page = browser.new_page(viewport={"width": width, "height": height})
        for path in pages:
            page.goto(f"{server}/{path}", wait_until="load")
            lay_out(page)
            for table, nodes in (("explorers", room.EXPLORERS), (path, room.SECTIONS)):
                for key, high in page.locator(nodes).evaluate_all(
                    "all => all.map(e => [e.dataset.key ?? e.id,"
                    " Math.round(e.getBoundingClientRect().height)])"
                ):
                    found.setdefault(table, {}).setdefault(key, []).append(high)
        page.close()
    lines = ["# Pixels on a phone and on a laptop; `make heights` keeps them."]
    for table, heights in found.items():
        name = table if table == "explorers" else f'"{table}"'
        lines += ["", f"[{name}]", *(f"{key} = {high}" for key, high in heights.items())]
    room.HEIGHTS.write_text("\n".join(lines) + "\n")


def lighthouse(url: str, chrome: str, phone: bool) -> dict[str, int]:
    """The four scores of a hundred."""
    command = [
        str(Path(os.environ["LIGHTHOUSE"]) / "node_modules/.bin/lighthouse"), url, "--quiet",
        "--output=json", "--chrome-flags=--headless=new --no-sandbox --disable-gpu",
        "--only-categories=performance,accessibility,best-practices,seo",
    ]  # fmt: skip
    command += [] if phone else ["--preset=desktop"]
    found = subprocess.run(
        command, check=True, capture_output=True, env={**os.environ, "CHROME_PATH": chrome}
    )
    scores = json.loads(found.stdout)["categories"]
    return {name: round(100 * score["score"]) for name, score in scores.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("site", type=Path)
    parser.add_argument("pages", nargs="*", default=PAGES)
    parser.add_argument("--lighthouse", action="store_true")
    parser.add_argument("--heights", action="store_true", help="note the explorers' heights")
    arguments = parser.parse_args()
    chrome = next(filter(None, map(shutil.which, NAMES)))
    handler = partial(Compressing, directory=str(arguments.site.resolve()))
    httpd = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=httpd.serve_forever, daemon=True).start()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chrome, args=["--no-sandbox", "--disable-gpu"]
        )
        if arguments.heights:
            note_heights(browser, f"http://127.0.0.1:{httpd.server_port}", arguments.pages)
            arguments.pages = []
        for path in arguments.pages:
            url = f"http://127.0.0.1:{httpd.server_port}/{path}"
            for name, size in WIDTHS.items():
                one = visit(browser, url, size, slow=False)
                slow = visit(browser, url, size, slow=True)
                print(
                    f"{path} {name}: {one['raw'] / 1e6:.2f} MB, {one['gzip'] / 1e3:.0f} kB gzip, "
                    f"{one['requests']} requests; paint {one['paint']:.2f} s, alive "
                    f"{one['alive']:.2f} s, jump {one['jump']:.2f} s, throttled "
                    f"{slow['paint']:.1f}, {slow['alive']:.1f} and {slow['jump']:.1f} s; "
                    f"shift {one['shift']:.3f}; "
                    + ", ".join(f"{kind} {height}" for kind, height in one["heights"]),
                    flush=True,
                )
                if arguments.lighthouse:
                    print("  lighthouse", lighthouse(url, chrome, name == "phone"), flush=True)
        browser.close()
    httpd.shutdown()


if __name__ == "__main__":
    main()
