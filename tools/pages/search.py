"""The search: equations are found by their number, and nothing shows raw mathematics."""

from __future__ import annotations

import json
import re
from pathlib import Path

from bs4 import BeautifulSoup


def know_equations(pages: dict[Path, BeautifulSoup], site: Path) -> None:
    """Tell the search page where each numbered equation stands: its page, and the page's title."""
    known = {}
    for path, page in pages.items():
        for node in page.select('[id^="equation-"]'):
            place = f"{path.relative_to(site).as_posix()}#{node['id']}"
            section = node.find_previous(["h1", "h2", "h3"])
            words = re.sub(r"#$", "", section.get_text().strip()) if section else ""
            known[node["id"].removeprefix("equation-")] = [place, words]
    page = pages[site / "search.html"]
    data = page.new_tag("script", attrs={"type": "application/json", "id": "fl-equations"})
    data.string = json.dumps(known)
    page.body.append(data)
    # Of a formula the search would show each sign twice, once for the eye and once for the ear; and
    # code that waits is not what one looks for.
    script = site / "_static" / "searchtools.js"
    text = script.read_text()
    before = '[".headerlink", "script", "style"]'
    if before not in text:
        raise ValueError(f"expected {before} in {script.name}: Sphinx has another search")
    left_out = '[".headerlink", "script", "style", ".katex-mathml", ".fl-code"]'
    script.write_text(text.replace(before, left_out))
