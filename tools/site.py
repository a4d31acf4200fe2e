"""Builds the website: `python -m tools.site _build/html [--fresh]`.

Jupyter Book exits 0 on a good deal of trouble and keeps pages that it does not re-read, so a
build for the tests (`--fresh`) starts from nothing and takes every warning for an error. The
landing page's cards are put together here from the pictures and the chapters that exist.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

from tools import address, pages

ROOT = Path(__file__).resolve().parent.parent

# picture, chapter, title, what its determinant costs
METHODS = [
    ("1-change-of-variables", "01-change-of-variables", "Change of variables",
     "Bend space, and count how much each piece of it grows."),
    ("2-realnvp", "02-realnvp", "NICE and RealNVP",
     "Move one half of the coordinates by what the other half says."),
    ("3-made", "03-made", "MADE",
     "Cut a network's wires until every output sees only the past."),
    ("4-maf-iaf", "04-maf-iaf", "MAF and IAF",
     "One network, two directions: fast to judge, or fast to draw."),
    ("5-iresnet", "05-iresnet", "Invertible residual networks",
     "Add a nudge so gentle that it can always be taken back."),
    ("6-residual-flow", "06-residual-flow", "Residual Flow",
     "Toss a coin to end an endless series, and be right on average."),
]  # fmt: skip


def landing() -> str:
    """The six cards; a method without a notebook yet says so and is no link."""
    cards = []
    for number, (picture, chapter, title, line) in enumerate(METHODS, 1):
        svg = (ROOT / "book/assets/pictures" / f"{picture}.svg").read_text()
        ready = (ROOT / "chapters" / f"{chapter}.ipynb").exists()
        tag = "a" if ready else "div"
        href = f' href="../chapters/{chapter}.html"' if ready else ""
        coming = "" if ready else '<span class="fl-coming">still to come</span>'
        cards.append(
            f'<{tag} class="fl-card{"" if ready else " fl-card-coming"}"{href}>{svg}'
            f'<span class="fl-card-title"><b>{number}</b> {title}{coming}</span>'
            f'<span class="fl-card-line">{line}</span></{tag}>'
        )
    return '<div class="fl-cards">\n' + "\n".join(cards) + "\n</div>\n"


def build(site: Path, fresh: bool = False) -> None:
    """Write the site to ``site``; raises ``CalledProcessError`` where it cannot."""
    page = ROOT / "book" / "landing.html"
    text = landing()
    if not page.exists() or page.read_text() != text:
        page.write_text(text)
    work = site.parent / (site.name + ".work")
    if fresh:
        shutil.rmtree(work, ignore_errors=True)
    command = [str(Path(sys.executable).with_name("jupyter-book")), "build", str(ROOT)]
    command += ["--path-output", str(work), "--quiet", "--all"]
    command += ["-W", "--keep-going"] if fresh else []
    subprocess.run(command, check=True, cwd=ROOT)
    shutil.rmtree(site, ignore_errors=True)
    # The theme ships two of its own templates, unrendered, as if they were pages.
    leftovers = shutil.ignore_patterns(".buildinfo", "*webpack-macros.html")
    shutil.copytree(work / "_build" / "html", site, ignore=leftovers)
    # docutils gives an entry a role that ARIA has given up and that no list may hold.
    for bibliography in site.glob("book/bibliography.html"):
        text = bibliography.read_text()
        bibliography.write_text(text.replace('role="doc-biblioentry"', 'role="listitem"'))
    pages.finish(site, address.site_of(ROOT))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("site", type=Path, help="where the finished pages go")
    parser.add_argument("--fresh", action="store_true", help="from nothing, warnings are errors")
    arguments = parser.parse_args()
    site = arguments.site.resolve()
    build(site, arguments.fresh)
    print(f"The book is built. Open {site / 'index.html'}")
    print(f"or serve it: {sys.executable} -m http.server --bind 127.0.0.1 --directory {site}")


if __name__ == "__main__":
    main()
