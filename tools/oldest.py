"""Prints what the oldest environment consists of: `python tools/oldest.py`.

One line for pip each: the dependencies of pyproject.toml at their lower bounds, which are spelled
there alone, and the tools of the tests without a browser, as requirements.txt pins them. It runs
before anything is installed, so it imports the standard library only.
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# tests/browser.py, which every test run imports, wants the last two.
TOOLS = ("pytest", "pytest-xdist", "hypothesis", "jupytext", "nbclient")


def bounds(root: Path = ROOT) -> dict[str, str]:
    """The lower bound of each dependency that pyproject.toml names."""
    found = {}
    for line in tomllib.loads((root / "pyproject.toml").read_text())["project"]["dependencies"]:
        match = re.fullmatch(r"([A-Za-z0-9._-]+) *>= *([0-9]+(?:\.[0-9]+)*)", line)
        if match is None:
            sys.exit(f"pyproject.toml: expected a dependency as name>=version, got {line!r}")
        found[match[1]] = match[2]
    return found


def tools(root: Path = ROOT) -> dict[str, str]:
    """The version of each tool that requirements.txt pins."""
    text = (root / "requirements.txt").read_text()
    pins = dict(re.findall(r"^([A-Za-z0-9._-]+)==(\S+)", text, re.M))
    missing = [name for name in TOOLS if name not in pins]
    if missing:
        sys.exit(f"requirements.txt: expected a pin of {', '.join(missing)}, got none")
    return {name: pins[name] for name in TOOLS}


if __name__ == "__main__":
    for name, version in {**bounds(), **tools()}.items():
        print(f"{name}=={version}")
