"""What may be wider than a screen: tables, and what cells have printed."""

from __future__ import annotations

import re

from bs4 import BeautifulSoup, Tag

ROOM = 800  # pixels of a laptop's column
LETTER, GAP = 9.5, 16  # pixels of a letter, and between two columns
WORDS = 30  # letters of a cell that is read, and not looked up


def sort_out(page: BeautifulSoup) -> None:
    """Tables that need smaller letters, tables of words, and lines that a phone may wrap."""
    for table in page.select("article table.table"):
        names = table["class"]
        if _width(table) > ROOM:
            names.append("fl-wide")
        cells = [len(cell.get_text()) for cell in table.select("td")]
        if len(table.select("thead th")) > 3 and max(cells, default=0) > WORDS:
            names.append("fl-words")
    for printed in page.select("div.cell_output pre"):
        if not re.search(r"\S {2,}\S", printed.get_text()):  # no columns
            printed["class"] = [*printed.get("class", []), "fl-lines"]


def _width(table: Tag) -> float:
    """About what it takes, each column as narrow as its longest word."""
    longest: dict[int, int] = {}
    for row in table.select("tr"):
        for k, cell in enumerate(row.find_all(["th", "td"])):
            words = re.split(r"[ \n]", cell.get_text("\n"))
            longest[k] = max(longest.get(k, 0), *map(len, words))
    return sum(LETTER * letters + GAP for letters in longest.values())
