"""An explorer's state stays in its page; the code of its kind stands once, for all pages."""

from __future__ import annotations

import json
import re
from pathlib import Path

from bs4 import BeautifulSoup


def share_explorers(page: BeautifulSoup, site: Path) -> None:
    """Leave an explorer's state in the page, and put its code where all pages find it."""
    for script in page.select("script[type=module]"):
        found = re.search(r"^const page = JSON\.parse\((\".*\")\);$", script.string or "", re.M)
        if found is None:
            continue
        parts = json.loads(json.loads(found[1]))
        kind = parts["key"].rsplit("-", 1)[0]
        folder = site / "_static" / "explorers"
        folder.mkdir(exist_ok=True)
        code = parts["code"].replace("export default {", "return {")
        (folder / f"{kind}.js").write_text(
            f"(window.flExplorers ??= {{}}).{kind} = (() => {{\n{code}\n}})();\n"
        )
        for name, text in parts["styles"].items():
            (folder / f"{name}.css").write_text(text)
        state = page.new_tag("script", attrs={"type": "application/json"})
        state.string = json.dumps(parts["state"], separators=(",", ":")).replace("</", "<\\/")
        script.replace_with(state)
