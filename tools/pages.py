"""What is done to the pages that Sphinx has written, so that they weigh little and come soon.

Mathematics is set here and not by the reader's browser; an explorer's code stands in one file, for
all that a book shows of its kind; so do all styles, without those that no page uses, and all
scripts, none of which holds up the first paint. Icons are drawn in the page.
"""

from __future__ import annotations

import hashlib
import json
import re
import tomllib
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

import lightningcss
from bs4 import BeautifulSoup, Tag
from PIL import Image
from py_mini_racer import MiniRacer

ROOT = Path(__file__).resolve().parent.parent
KATEX = "_static/katex.min.js"
HEIGHTS = ROOT / "book" / "explorer-heights.toml"

# What a page needs of the theme's and Sphinx's scripts, in this order. bootstrap.js has 81 kB for
# tooltips and menus, for which the browser has its own.
SCRIPTS = (
    "doctools.js", "sphinx_highlight.js", "clipboard.min.js", "copybutton.js",
    "scripts/sphinx-book-theme.js", "scripts/pydata-sphinx-theme.js", "site.js",
)  # fmt: skip
SEARCH = ("searchtools.js", "language_data.js", "searchindex.js")
NO_BOOTSTRAP = "window.bootstrap = { Tooltip: class {} };\n"

# A few strokes on a square of 24, in place of FontAwesome's 1.6 MB.
ICONS = {
    "bars": "M4 6h16M4 12h16M4 18h16",
    "list": "M9 6h11M9 12h11M9 18h11M4 6h1M4 12h1M4 18h1",
    "magnifying-glass": "M10.5 4a6.5 6.5 0 1 0 0 13a6.5 6.5 0 1 0 0-13zM15.2 15.2L20.5 20.5",
    "angle-left": "M15 5l-7 7l7 7",
    "angle-right": "M9 5l7 7l-7 7",
    "download": "M12 4v11M7 11l5 5l5-5M5 20h14",
    "file": "M6 3h8l4 4v14H6zM14 3v4h4",
    "file-pdf": "M6 3h8l4 4v14H6zM14 3v4h4M9 13h6M9 17h6",
    "play": "M7 5l12 7l-12 7z",
    "rocket": "M5 15c-1 2-1 4-1 5c1 0 3 0 5-1M9 17l-2-2c1-6 5-11 13-11c0 8-5 12-11 13zM14 9h1",
    "code": "M9 6l-6 6l6 6M15 6l6 6l-6 6",
    "sun": "M12 8a4 4 0 1 0 0 8a4 4 0 1 0 0-8zM12 2v3M12 19v3M2 12h3M19 12h3M5 5l2 2M17 17l2 2"
    "M5 19l2-2M17 7l2-2",
    "moon": "M20 14.5A8.5 8.5 0 1 1 9.5 4a7 7 0 0 0 10.5 10.5z",
    "circle-half-stroke": "M12 3a9 9 0 1 0 0 18a9 9 0 1 0 0-18zM12 3v18M14.5 4v16M17 5v14M19.5 8v8",
}  # fmt: skip


def finish(site: Path) -> None:
    """Rework every page of ``site``, in place."""
    pages = {path: BeautifulSoup(path.read_text(), "html.parser") for path in _written(site)}
    with closing(MiniRacer()) as engine:
        engine.eval((site / KATEX).read_text())
        for page in pages.values():
            set_mathematics(page, engine)
    for path, page in pages.items():
        simplify(page)
        draw_icons(page)
        describe(page)
        fold_code(page)
        share_explorers(page, site)
        improve_pictures(page, path)
    link_scripts(pages, site)
    link_styles(pages, site)
    for path, page in pages.items():
        path.write_text(str(page))
    drop_unused(site)


def _written(site: Path) -> Iterator[Path]:
    return (p for p in sorted(site.rglob("*.html")) if p != site / "index.html")


# --- mathematics --------------------------------------------------------------------------------


def set_mathematics(page: BeautifulSoup, engine: MiniRacer) -> None:
    """KaTeX's own work, done once; raises ``JSEvalException`` where it finds no mathematics."""
    for node in page.select(".math"):
        tex = node.get_text().strip()
        found = re.fullmatch(r"\\([(\[])(.*)\\[)\]]", tex, re.S)
        if found is None:
            raise ValueError(f"expected mathematics in \\(...\\) or \\[...\\], got {tex[:60]!r}")
        options = {"displayMode": found[1] == "[", "throwOnError": True}
        made = engine.call("katex.renderToString", found[2], options)
        made = re.sub(r"<annotation.*?</annotation>", "", made, flags=re.S)  # TeX, for no reader
        node.clear()
        node.append(BeautifulSoup(made, "html.parser"))


# --- the theme's own ----------------------------------------------------------------------------


def draw_icons(page: BeautifulSoup) -> None:
    """An SVG for each icon, with the classes that the theme's script looks for."""
    for node in page.select('[class*="fa-"]'):
        names = node.get("class")
        icon = next((n[3:] for n in names if n[3:] in ICONS and n.startswith("fa-")), None)
        if icon is None:
            raise ValueError(f"no icon is drawn for {' '.join(names)}")
        svg = _icon(page, icon)
        node["class"] = [n for n in names if n == "theme-switch"]
        if not node["class"]:
            node.replace_with(svg)
        else:
            node.name = "span"
            node.append(svg)


def _icon(page: BeautifulSoup, name: str) -> Tag:
    svg = page.new_tag(
        "svg", attrs={"viewBox": "0 0 24 24", "class": "fl-icon", "aria-hidden": "true"}
    )
    svg.append(page.new_tag("path", attrs={"d": ICONS[name]}))
    return svg


def simplify(page: BeautifulSoup) -> None:
    """Without the parts that need Bootstrap's script, or that nobody needs."""
    for node in page.select("#pst-back-to-top, .pst-async-banner-revealer, #ethical-ad-placement"):
        node.decompose()
    for node in page.select("[data-bs-toggle=tooltip]"):
        title = node.get("data-bs-title")
        if title and not node.get("title"):
            node["title"] = title
    for button in page.select("button[data-bs-toggle=dropdown]"):
        menu, name = button.parent, button["aria-label"]
        menu.name, menu["class"] = "details", ["fl-menu"]
        button.name, button.attrs = "summary", {"class": "btn", "title": name, "aria-label": name}
        menu.select_one(".dropdown-menu")["class"] = ["fl-menu-entries"]
    for node in page.select("meta[name=viewport]")[1:]:
        node.decompose()


def describe(page: BeautifulSoup) -> None:
    """What a search engine shows of a page: how its text begins."""
    words = next((p.get_text(" ", strip=True) for p in page.select("article.bd-article p")), "")
    words = re.sub(r"\s+", " ", words)
    if words and page.head is not None:
        short = words if len(words) <= 160 else words[:157].rsplit(" ", 1)[0] + " …"
        page.head.append(page.new_tag("meta", attrs={"name": "description", "content": short}))


# --- code ---------------------------------------------------------------------------------------

LONG = 24  # lines of a cell that trains, prints or compares
HOLDS = re.compile(r"^\([\d.]+\) holds on .*$", re.M)


def fold_code(page: BeautifulSoup) -> None:
    """Code waits until it is asked for: under its picture or table, or, where it is a check, behind
    what holds. Methods written from scratch and short cells stay open; so do cells tagged ``open``.
    """
    for cell in page.select("div.cell"):
        source = cell.select_one("div.cell_input")
        if source is None or "tag_open" in cell["class"]:
            continue
        code, output = source.get_text(), cell.select_one("div.cell_output")
        checks = [found for node in cell.select("div.stream pre") for found in _checks(node)]
        if checks:
            source.replace_with(_folded(page, source, "fl-check", *checks))
        elif output is not None and (name := _what_waits(code)):
            output.insert_after(_folded(page, source.extract(), "fl-code", name))
    buttons = page.select_one(".article-header-buttons")
    if page.select_one("details.fl-code") is not None and buttons is not None:
        title = {"title": "Show all code", "aria-label": "Show all code"}
        button = page.new_tag(
            "button", attrs={"class": "btn btn-sm fl-all-code", "aria-pressed": "false", **title}
        )
        button.append(_icon(page, "code"))
        buttons.insert(0, button)


def _what_waits(code: str) -> str:
    """What a line says in place of a cell's code; nothing if it stays open."""
    lines = len(code.strip().splitlines())
    if re.search(r"\w+Explorer\(", code):
        return "Code of this explorer"
    if re.search(r"\bplt\.", code):
        return "Code of this figure"
    if lines > LONG and re.search(r"\b(fit|print)\(", code):
        return f"Code of this experiment, {lines} lines"
    return ""


def _checks(node: Tag) -> list[str]:
    """What a cell has checked; it is taken from what the cell has printed."""
    words = node.get_text()
    found = HOLDS.findall(words)
    left = HOLDS.sub("", words).strip("\n")
    output = node.find_parent("div", class_="output")
    if found and not left:
        holder = output.parent
        output.decompose()
        if not holder.find("div"):
            holder.decompose()
    elif found:
        node.string = re.sub(r"\n{2,}", "\n", left) + "\n"
    return found


def _folded(page: BeautifulSoup, source: Tag, kind: str, *lines: str) -> Tag:
    details = page.new_tag("details", attrs={"class": kind})
    summary = page.new_tag("summary")
    for line in lines:
        words = page.new_tag("span")
        words.string = line
        summary.append(words)
    details.append(summary)
    details.append(BeautifulSoup(str(source), "html.parser"))
    return details


# --- explorers ----------------------------------------------------------------------------------


def share_explorers(page: BeautifulSoup, site: Path) -> None:
    """Leave an explorer's state in the page, and put its code where all pages find it.

    The room that it will take is kept free from the beginning: as high as it was last measured.
    """
    heights = tomllib.loads(HEIGHTS.read_text())
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
        root = script.find_previous_sibling("div", class_="fl-explorer")
        if parts["key"] in heights:
            narrow, wide = heights[parts["key"]]
            root["style"] = f"--fl-narrow: {narrow}px; --fl-wide: {wide}px"
        state = page.new_tag("script", attrs={"type": "application/json"})
        state.string = json.dumps(parts["state"], separators=(",", ":")).replace("</", "<\\/")
        script.replace_with(state)


# --- pictures -----------------------------------------------------------------------------------


def improve_pictures(page: BeautifulSoup, path: Path) -> None:
    """Smaller files, which come when they are near, and the room that they will take."""
    for image in page.select("article img"):
        source = (path.parent / urlsplit(image.get("src", "")).path).resolve()
        if source.suffix != ".png":
            continue
        smaller = source.with_suffix(".webp")
        with Image.open(source) as picture:
            image["width"], image["height"] = picture.size
            if not smaller.exists():
                picture.convert("RGBA").save(smaller, lossless=True, method=6)
        image["loading"], image["decoding"] = "lazy", "async"
        for name in ("src", "href"):
            owner = image if name == "src" else image.find_parent("a", class_="image-reference")
            if owner is not None and name in owner.attrs:
                owner[name] = re.sub(r"\.png$", ".webp", owner[name])


# --- scripts and styles ---------------------------------------------------------------------------


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
