"""Room is kept for what is laid out late: explorers, and sections that are far from a reader."""

from __future__ import annotations

import tomllib
from pathlib import Path

from bs4 import BeautifulSoup, Tag

HEIGHTS = Path(__file__).resolve().parents[2] / "book" / "heights.toml"
EXPLORERS = ".fl-explorer[data-key]"
SECTIONS = ".bd-article > section > section[id]"


def keep_room(page: BeautifulSoup, path: str) -> None:
    """Give each the height that it had when it was last measured, on a phone and on a laptop.

    A browser lays out a section of a chapter when a reader comes near; until then it takes the
    section to be that high, so that the scroll bar and the links within the page are right.
    """
    noted = tomllib.loads(HEIGHTS.read_text())
    for node in page.select(EXPLORERS):
        _keep(node, noted["explorers"].get(node["data-key"]))
    for node in page.select(SECTIONS):
        if _keep(node, noted.get(path, {}).get(node["id"])):
            node["class"] = [*node.get("class", []), "fl-far"]


def _keep(node: Tag, heights: list[int] | None) -> bool:
    if heights is not None:
        narrow, wide = heights
        node["style"] = f"--fl-narrow: {narrow}px; --fl-wide: {wide}px"
    return heights is not None
