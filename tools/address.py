"""Sets the repository's public address: `python tools/address.py https://github.com/OWNER/REPO`.

The address stands in `_config.yml`, under `repository: url`. What follows from it is written
here and nowhere by hand: the theme's Colab button, and in every chapter a first cell that fetches
flowlib where it is missing. An empty address takes all of it away again.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ADDRESS = re.compile(r"https://github\.com/[\w.-]+/[\w.-]+")
CELL = """```{{code-cell}} python3
# Colab has no flowlib: fetch it, and replace nothing that is there.
import importlib.util

if importlib.util.find_spec("flowlib") is None:
    %pip install --quiet "git+{url}"
```

"""
FETCH = re.compile(r"```\{code-cell\} python3\n# Colab has no flowlib:.*?\n```\n\n", re.S)


def site_of(root: Path = ROOT) -> str:
    """Where GitHub shows the site of the repository in the configuration; "" if it has none."""
    found = re.search(r'^  url: "(.*)"$', (root / "_config.yml").read_text(), re.M)
    if found is None or not found[1]:
        return ""
    owner, name = found[1].removeprefix("https://github.com/").split("/")
    return f"https://{owner.lower()}.github.io" + (
        "" if name == f"{owner}.github.io" else f"/{name}"
    )


def set_address(url: str, root: Path = ROOT) -> None:
    """Write ``url``, or nothing, to the configuration and all that follows from it."""
    if url and not ADDRESS.fullmatch(url):
        sys.exit(f"expected https://github.com/OWNER/REPOSITORY, or nothing, got {url!r}")
    config = root / "_config.yml"
    text = config.read_text()
    text = re.sub(r'^  url: ".*"$', f'  url: "{url}"', text, count=1, flags=re.M)
    colab = "https://colab.research.google.com" if url else ""
    text = re.sub(r'^  colab_url: ".*"$', f'  colab_url: "{colab}"', text, count=1, flags=re.M)
    config.write_text(text)
    for chapter in sorted((root / "chapters").glob("[0-9]*.md")):
        text = FETCH.sub("", chapter.read_text())
        if url:
            text = text.replace("```{code-cell}", CELL.format(url=url) + "```{code-cell}", 1)
        chapter.write_text(text)


if __name__ == "__main__":
    set_address(sys.argv[1] if len(sys.argv) > 1 else "")
