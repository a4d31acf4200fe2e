"""One script and one style sheet for all pages, without what no page uses."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from urllib.parse import urlsplit

import lightningcss
from bs4 import BeautifulSoup

ROOT = Path(__file__).resolve().parents[2]

# What a page needs of the theme's and Sphinx's scripts, in this order. bootstrap.js has 81 kB for
# tooltips and menus, for which the browser has its own.
SCRIPTS = (
    "doctools.js", "sphinx_highlight.js", "clipboard.min.js", "copybutton.js",
    "scripts/sphinx-book-theme.js", "scripts/pydata-sphinx-theme.js", "site.js",
)  # fmt: skip
SEARCH = ("searchtools.js", "language_data.js", "searchindex.js")
NO_BOOTSTRAP = "window.bootstrap = { Tooltip: class {} };\n"
# The theme has the whole page laid out, at the start and again after every change, to see what is
# wider than its box. site.js has that told to it, box by box, when a box is laid out.
ASKS_FOR_WIDTHS = re.compile(
    r'const e=\(\)=>\{document\.querySelectorAll\(\["pre",(?:(?!function).)*'
    r"childList:!0\}\),e\(\)(?=\})"
)


def _named(folder: Path, name: str, text: str) -> str:
    """Write a file whose name changes with what it says, so that browsers may keep it."""
    stem, suffix = name.rsplit(".", 1)
    file = f"{stem}.{hashlib.sha256(text.encode()).hexdigest()[:8]}.{suffix}"
    (folder / file).write_text(text)
    return file


def _up(path: Path, site: Path) -> str:
    return "../" * (len(path.relative_to(site).parts) - 1)


def link_scripts(pages: dict[Path, BeautifulSoup], site: Path) -> None:
    """One script for all pages, one for each kind of explorer; all wait for the page."""
    static = site / "_static"
    options = (static / "documentation_options.js").read_text()
    alive = (ROOT / "flowlib/widgets/alive.js").read_text()
    parts = [(static / name).read_text() for name in SCRIPTS]
    text = ";\n".join([NO_BOOTSTRAP, *parts[:-1], alive + parts[-1]])
    text = re.sub(r"^//# sourceMappingURL=.*$", "", text, flags=re.M)
    text, found = ASKS_FOR_WIDTHS.subn("", text)
    if found != 1:
        raise ValueError("the theme's script asks for widths in another way than it did")
    shared = _named(static, "book.js", text)
    for path, page in pages.items():
        up = _up(path, site)
        searches = path == site / "search.html"
        for node in page.select("script"):
            source, words = node.get("src", ""), node.string or ""
            if (source and "://" not in source) or re.search(r"toggle|DOCUMENTATION_OPT", words):
                node.decompose()
        for node in page.select("link[rel=preload], link[rel=prefetch]"):
            node.decompose()
        if page.head is None:
            continue
        first = page.new_tag("script")
        first.string = options
        page.head.append(first)
        kinds = {node["data-explorer"] for node in page.select("[data-explorer]")}
        wanted = [f"_static/explorers/{kind}.js" for kind in sorted(kinds)]
        wanted += [f"_static/{shared}"]
        if searches:
            wanted += [f"_static/{name}" for name in SEARCH[:2]] + [SEARCH[2]]
        for name in wanted:
            page.head.append(page.new_tag("script", attrs={"defer": "", "src": up + name}))


def link_styles(pages: dict[Path, BeautifulSoup], site: Path) -> None:
    """One style sheet for all pages, without the classes that none of them has."""
    files: list[Path] = []
    for path, page in pages.items():
        for node in page.select("link[rel=stylesheet]"):
            file = (path.parent / urlsplit(node["href"]).path).resolve()
            if file.exists() and file not in files:
                files.append(file)
            node.decompose()
    explorers = site / "_static" / "explorers"
    own = sorted(explorers.glob("*.css"), key=lambda p: (p.stem != "base", p.stem))
    last = [file for file in files if file.name == "book.css"]
    files = [file for file in files if file not in last] + own + last
    text = "\n".join(_with_own_paths(file, site / "_static") for file in files)
    used = set[str]()
    for page in pages.values():
        for node in page.find_all(True):
            used |= {node.name, *node.get("class", []), node.get("id", "")}
    for script in (site / "_static").rglob("*.js"):
        if script.name != "katex.min.js":
            used |= set(re.findall(r"[A-Za-z_][\w-]*", script.read_text()))
    bare = re.sub(r"/\*.*?\*/|url\([^)]*\)", "", text, flags=re.S)
    unused = set(re.findall(r"[.#]([A-Za-z_][\w-]*)", bare)) - used
    unused = {name for name in unused if not name.startswith("fl-")}  # explorers join such names
    text = lightningcss.process_stylesheet(text, error_recovery=True, unused_symbols=unused)
    text = re.sub(r"@font-face\{[^}]*(?:Awesome|fontawesome)[^}]*\}", "", text)
    text = _without_unused_names(text)
    text += _for_the_system(text)
    for file in own:
        file.unlink()
    shared = _named(site / "_static", "book.css", text)
    for path, page in pages.items():
        if page.head is not None:
            href = f"{_up(path, site)}_static/{shared}"
            page.head.append(page.new_tag("link", attrs={"rel": "stylesheet", "href": href}))


def _with_own_paths(file: Path, static: Path) -> str:
    """A style sheet whose pictures and fonts are found from ``static``."""

    def moved(match: re.Match[str]) -> str:
        name = match[1].strip("\"'")
        if name.startswith(("data:", "http", "#", "/")):
            return match[0]
        target = (file.parent / urlsplit(name).path).resolve()
        return f'url("{target.relative_to(static.resolve()).as_posix()}")'

    def imported(match: re.Match[str]) -> str:
        return _with_own_paths((file.parent / match[1]).resolve(), static)

    text = re.sub(r"url\(([^)]*)\)", moved, file.read_text())
    return re.sub(r'@import "([^"]+)";', imported, text)


def _for_the_system(text: str) -> str:
    """The theme's colours without a script: light ones, or dark ones where the system has them."""

    def rules(theme: str) -> str:
        mark = re.compile(rf'html\[data-theme="?{theme}"?\]')
        found = re.findall(r"([^{}]*)\{([^{}]*)\}", text)
        return "".join(
            f"{mark.sub('html:not([data-theme])', selectors)}{{{body}}}"
            for selectors, body in ((_matching(one, mark), body) for one, body in found)
            if selectors
        )

    return f"{rules('light')}@media (prefers-color-scheme:dark){{{rules('dark')}}}"


def _matching(selectors: str, mark: re.Pattern[str]) -> str:
    parts = re.split(r",(?![^(]*\))", selectors)
    return ",".join(
        part
        for part in parts
        # book.css says itself which of two pictures is shown
        if mark.search(part) and not part.startswith("@") and ".only-" not in part
    )


def _without_unused_names(text: str) -> str:
    """Custom properties that nothing reads are most of what the theme begins with."""
    while True:
        read = set(re.findall(r"var\((--[\w-]+)", text)) | set(re.findall(r'"(--[\w-]+)"', text))
        gone = set(re.findall(r"[{;](--[\w-]+):", text)) - read
        gone = {name for name in gone if not name.startswith("--fl-")}
        if not gone:
            return text
        names = "|".join(map(re.escape, sorted(gone)))
        text = re.sub(rf"(?<=[{{;])(?:{names}):[^;{{}}]*;?", "", text)


def drop_unused(site: Path) -> None:
    """What no page asks for any more."""
    static = site / "_static"
    asking = [*site.rglob("*.html"), *static.glob("book.????????.css")]
    asked = "\n".join(file.read_text() for file in asking)
    for file in [p for p in static.rglob("*") if p.is_file()]:
        if file.name not in asked:
            file.unlink()
    for folder in sorted((p for p in static.rglob("*") if p.is_dir()), reverse=True):
        if not any(folder.iterdir()):
            folder.rmdir()
    for picture in (site / "_images").glob("*.png"):
        if picture.with_suffix(".webp").exists():
            picture.unlink()
