"""Mathematics is set when the site is built, by KaTeX's own script, and not by the browser."""

from __future__ import annotations

import re

from bs4 import BeautifulSoup
from py_mini_racer import MiniRacer

SCRIPT = "_static/katex.min.js"


def set_mathematics(page: BeautifulSoup, engine: MiniRacer) -> None:
    """KaTeX's own work, done once; raises ``JSEvalException`` where it finds no mathematics."""
    known = set[str]()
    for node in page.select(".math"):
        tex = node.get_text().strip()
        found = re.fullmatch(r"\\([(\[])(.*)\\[)\]]", tex, re.S)
        if found is None:
            raise ValueError(f"expected mathematics in \\(...\\) or \\[...\\], got {tex[:60]!r}")
        options = {"displayMode": found[1] == "[", "throwOnError": True}
        made = engine.call("katex.renderToString", found[2], options)
        made = re.sub(r"<annotation.*?</annotation>", "", made, flags=re.S)  # TeX, for no reader
        number = re.search(r"\\tag\{([\d.]+)\}", tex)
        if number and number[1] not in known:
            known.add(number[1])
            node["id"] = f"equation-{number[1]}"
        node.clear()
        node.append(BeautifulSoup(made, "html.parser"))
