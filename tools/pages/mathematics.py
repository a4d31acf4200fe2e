"""Mathematics is set when the site is built, by KaTeX's own script, and not by the browser."""

from __future__ import annotations

import re

from bs4 import BeautifulSoup, NavigableString, Tag
from py_mini_racer import MiniRacer

SCRIPT = "_static/katex.min.js"
OPENS = re.compile(r"[(\[“‘]+$")
CLOSES = re.compile(r"(?:-?[a-z]{1,2}\b)?[^\w\s(\[“‘]*")  # 3-d, n-th, and what ends a sentence


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
        if node.name == "span":
            _keep_together(page, node)


def _keep_together(page: BeautifulSoup, node: Tag) -> None:
    """A formula within a line, with the signs that stand close to it, which must not begin one."""
    before, after = node.previous_sibling, node.next_sibling
    opens = OPENS.search(before) if isinstance(before, NavigableString) else None
    closes = CLOSES.match(after) if isinstance(after, NavigableString) else None
    keep = page.new_tag("span", attrs={"class": "fl-keep"})
    if opens:
        before.replace_with(before[: opens.start()])
    if closes and closes[0]:
        after.replace_with(after[closes.end() :])
    if opens or (closes and closes[0]):
        node.wrap(keep)
        keep.insert(0, opens[0] if opens else "")
        keep.append(closes[0] if closes else "")
        for base in node.select(".katex-html > .base")[:-1]:  # it may break where KaTeX lets it
            base.insert_after(page.new_tag("wbr"))
