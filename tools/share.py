"""The pictures that other people's pages show of ours: `python -m tools.share`.

One of the book and one of each method, from the landing page's own drawings, 1200 by 630 pixels,
in `book/assets/share`. They are committed: only this script needs a browser.
"""

from __future__ import annotations

import shutil

from playwright.sync_api import sync_playwright

from tools.pages.head import SHARED
from tools.site import METHODS, ROOT

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
STYLE = """
:root { --fl-data: #d55e00; --fl-latent: #0072b2; --fl-third: #009e73; --fl-wrong: #cc79a7;
  --fl-ink: #30343a; --fl-muted: #5d636b; --fl-faint: #c9cdd2; --fl-panel: #fcfcfa; }
body { margin: 0; width: 1200px; height: 630px; box-sizing: border-box; padding: 56px 70px;
  background: #fcfcfa; color: #30343a; font-family: system-ui, sans-serif; display: grid;
  grid-template-rows: auto 1fr auto; }
h1 { margin: 0; font-size: 62px; font-weight: 650; }
p { margin: 0; font-size: 33px; color: #5d636b; }
.pictures { display: grid; gap: 30px; place-items: center; }
.pictures svg { display: block; width: 100%; max-height: 330px; }
"""


def card(title: str, line: str, pictures: list[str]) -> str:
    """A page with a title, the drawings and a line."""
    svgs = [(ROOT / "book/assets/pictures" / f"{name}.svg").read_text() for name in pictures]
    columns = f"grid-template-columns: repeat({min(3, len(svgs))}, 1fr)"
    return (
        f"<meta charset='utf-8'><style>{STYLE}</style><h1>{title}</h1>"
        f"<div class='pictures' style='{columns}'>{''.join(svgs)}</div><p>{line}</p>"
    )


def main() -> None:
    SHARED.mkdir(exist_ok=True)
    line = "Six methods, one a chapter. Every equation runs."
    cards = {"book": card("Normalizing flows", line, [picture for picture, *_ in METHODS[:3]])}
    for picture, chapter, title, line in METHODS:
        cards[chapter] = card(title, line, [picture])
    chrome = next(filter(None, map(shutil.which, NAMES)))
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chrome, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1200, "height": 630})
        for name, text in cards.items():
            page.set_content(text)
            page.screenshot(path=SHARED / f"{name}.png")
        browser.close()


if __name__ == "__main__":
    main()
