"""What is done to the pages that Sphinx has written, so that they weigh little and come soon.

Each part has a room of its own: mathematics, the theme's icons and menus, what a page's head says,
folded code, explorers, figures, and at last the scripts and styles that all pages share.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from bs4 import BeautifulSoup
from py_mini_racer import MiniRacer

from tools.pages import (
    assets,
    explorers,
    figures,
    folding,
    head,
    mathematics,
    room,
    search,
    theme,
    wide,
)

LISTING = re.compile(r"\[listing \d+\]")


def finish(site: Path, address: str = "") -> None:
    """Rework every page of ``site``, in place; ``address`` is where it will stand, if it will."""
    listings = dict[str, str]()
    pages = {
        path: BeautifulSoup(_without_listing(path, site, listings), "html.parser")
        for path in _written(site)
    }
    for path, page in pages.items():
        theme.simplify(page)
        theme.draw_icons(page)
        head.describe(page, path.relative_to(site).as_posix(), address)
        folding.fold_code(page)
        explorers.share_explorers(page, site)
        room.keep_room(page, path.relative_to(site).as_posix())
        figures.improve(page, path)
        wide.sort_out(page)
    # Late, for a formula has hundreds of nodes, and all that looks for something must pass them.
    with closing(MiniRacer()) as engine:
        engine.eval((site / mathematics.SCRIPT).read_text())
        for page in pages.values():
            mathematics.set_mathematics(page, engine)
    search.know_equations(pages, site)
    assets.link_scripts(pages, site)
    assets.link_styles(pages, site)
    for path, page in pages.items():
        path.write_text(LISTING.sub(lambda found: listings[found[0]], str(page)))
    assets.drop_unused(site)


def _written(site: Path) -> Iterator[Path]:
    return (p for p in sorted(site.rglob("*.html")) if p != site / "index.html")


def _without_listing(path: Path, site: Path, kept: dict[str, str]) -> str:
    """A page's text; of the library's sources, which nothing here changes, without the source:
    each is most of its page, and all that looks for something in a page would go through it."""
    text = path.read_text()
    if path.parent != site / "_modules" and site / "_modules" not in path.parents:
        return text

    def keep(found: re.Match[str]) -> str:
        name = f"[listing {len(kept)}]"
        kept[name] = found[1]
        return f"<pre>{name}</pre>"

    return re.sub(r"<pre>(.*?)</pre>", keep, text, flags=re.S)
