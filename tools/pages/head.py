"""What search engines and other people's pages show of a page."""

from __future__ import annotations

import re
from pathlib import Path

from bs4 import BeautifulSoup

SHARED = Path(__file__).resolve().parents[2] / "book" / "assets" / "share"


def describe(page: BeautifulSoup, path: str, address: str) -> None:
    """How its text begins; and, of a site that has an address, where it is and a picture of it."""
    if page.head is None:
        return

    def add(tag: str, **attributes: str) -> None:
        page.head.append(page.new_tag(tag, attrs=attributes))

    words = next((p.get_text(" ", strip=True) for p in page.select("article.bd-article p")), "")
    words = re.sub(r"\s+", " ", re.sub(r"\\[()]", "", words))
    short = words if len(words) <= 160 else words[:157].rsplit(" ", 1)[0] + " …"
    if words:
        add("meta", name="description", content=short)
    if not address:
        return
    add("link", rel="canonical", href=f"{address}/{path}")
    name = Path(path).stem if (SHARED / f"{Path(path).stem}.png").exists() else "book"
    picture = f"{address}/_static/share/{name}.png"
    title = page.title.get_text().strip() if page.title else ""
    for key, value in {
        "og:type": "article", "og:title": title, "og:description": short,
        "og:url": f"{address}/{path}", "og:image": picture,
    }.items():  # fmt: skip
        add("meta", property=key, content=value)
    add("meta", name="twitter:card", content="summary_large_image")
