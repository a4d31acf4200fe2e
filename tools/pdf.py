"""Prints the book: `python -m tools.pdf _build/html book.pdf [--paper letter]`.

All pages but the library's reference become one, in the order of the contents, unfolded, and with
the still pictures of the explorers and what they say. Chromium prints it twice: to know the page
of each chapter, and with the contents. The pages are those of the built site, in light colours.
"""

from __future__ import annotations

import argparse
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import cast
from urllib.parse import urldefrag

from bs4 import BeautifulSoup, Tag
from playwright.sync_api import Browser, sync_playwright
from pypdf import PdfReader, PdfWriter
from pypdf.generic import DictionaryObject, NameObject, TextStringObject

LEFT_OUT = "book/api.html"  # a reference, for a screen that can search it
NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
FOOT = """<div style="width:100%; text-align:center; font:9px system-ui,sans-serif; color:#5d636b">
<span class="pageNumber"></span></div>"""
MARGINS = {"top": "18mm", "bottom": "20mm", "left": "18mm", "right": "18mm"}


def pages_of(site: Path) -> list[str]:
    """The pages of the book in the order of its contents, as paths within the site."""
    first = "book/index.html"
    page = BeautifulSoup((site / first).read_text(), "html.parser")
    links = page.select(".bd-sidebar-primary nav.bd-links a[href]")
    paths = [(site / "book" / urldefrag(a["href"]).url).resolve() for a in links]
    inside = [p.relative_to(site.resolve()).as_posix() for p in paths if p.is_file()]
    return [path for path in dict.fromkeys([first, *inside]) if path != LEFT_OUT]


def join(site: Path, paths: list[str]) -> BeautifulSoup:
    """One page of all; the ids of a page begin with its name, and links go to those."""
    book = BeautifulSoup((site / paths[0]).read_text(), "html.parser")
    for node in book.select("script"):
        node.decompose()
    for node in book.select("link[href]"):
        node["href"] = (site / "book" / node["href"]).resolve().as_uri()
    book.html["data-theme"] = "light"
    body = book.new_tag("main", attrs={"class": "bd-main fl-book"})
    for path in paths:
        page = BeautifulSoup((site / path).read_text(), "html.parser")
        article = page.select_one("article.bd-article")
        _settle(article, site / path, site, paths)
        article["id"] = _name(path)
        body.append(article)
    book.body.clear()
    book.body.append(body)
    return book


def _name(path: str) -> str:
    return "page-" + Path(path).stem


def _settle(article: Tag, path: Path, site: Path, paths: list[str]) -> None:
    """Open what is folded, drop what is not for paper, and make all links those of one page."""
    for node in article.select("script, .only-dark, .headerlink, .copybtn"):
        node.decompose()
    for node in article.select("details.fl-code"):
        if node.summary.get_text() == "Code of this explorer":
            node.decompose()
    for node in article.select("details"):
        node["open"] = ""
    own = _name(path.relative_to(site).as_posix())
    for node in article.select("[id]"):
        node["id"] = f"{own}--{node['id']}"
    for image in article.select("img[src]"):
        if not image["src"].startswith("data:"):
            image["src"] = (path.parent / image["src"]).resolve().as_uri()
            image["loading"] = "eager"
    for link in article.select("a[href]"):
        if re.match(r"[a-z]+:", link["href"]):
            continue
        target, place = urldefrag(link["href"])
        file = (path.parent / target).resolve() if target else path.resolve()
        inside = file.relative_to(site.resolve()).as_posix()
        if inside in paths:
            link["href"] = f"#{_name(inside)}" + (f"--{place}" if place else "")
        else:
            del link["href"]


def contents(book: BeautifulSoup, starts: dict[str, int]) -> Tag:
    """The list of chapters, with the page on which each begins."""
    nav = book.new_tag("nav", attrs={"class": "fl-contents"})
    title = book.new_tag("h2")
    title.string = "Contents"
    nav.append(title)
    for article in book.select("article"):
        line = book.new_tag("a", attrs={"href": f"#{article['id']}"})
        words, number = book.new_tag("span"), book.new_tag("span")
        words.string = article.find("h1").get_text().strip()
        number.string = str(starts.get(article["id"], ""))
        line.extend([words, number])
        nav.append(line)
    return nav


def print_book(site: Path, file: Path, paper: str, browser: Browser) -> int:
    """Write the book to ``file``; returns its number of pages."""
    site = site.resolve()
    paths = pages_of(site)
    starts: dict[str, int] = {}
    with tempfile.TemporaryDirectory() as folder:
        page = browser.new_page(java_script_enabled=False)
        source = Path(folder) / "book.html"
        for _ in range(2):
            book = join(site, paths)
            book.select("article")[0].insert_after(contents(book, starts))
            source.write_text(str(book))
            page.goto(source.as_uri(), wait_until="load")
            page.pdf(
                path=file, format=paper, margin=MARGINS, print_background=True, outline=True,
                tagged=True, display_header_footer=True, header_template="<span></span>",
                footer_template=FOOT,
            )  # fmt: skip
            reader = PdfReader(file)
            tops = [entry for entry in reader.outline if not isinstance(entry, list)]
            pages = [reader.get_destination_page_number(top) + 1 for top in tops]
            starts = dict(zip([a["id"] for a in book.select("article")], pages, strict=True))
        page.close()
    _name_sections(file, [h.get_text().strip() for h in book.select("h1, h2, h3, h4")])
    return len(reader.pages)


def _name_sections(file: Path, headings: list[str]) -> None:
    """Chromium says some titles of the outline twice; all get the words of their headings."""
    writer = PdfWriter(clone_from=file)
    entries = list(_entries(writer.get_outline_root()))
    for entry, words in zip(entries, headings, strict=True):
        entry[NameObject("/Title")] = TextStringObject(words)
    writer.write(file)


def _entries(parent: DictionaryObject) -> Iterator[DictionaryObject]:
    node = parent.get("/First")
    while node is not None:
        entry = cast(DictionaryObject, node.get_object())
        yield entry
        yield from _entries(entry)
        node = entry.get("/Next")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("site", type=Path)
    parser.add_argument("file", type=Path)
    parser.add_argument("--paper", default="A4", choices=["A4", "letter"])
    arguments = parser.parse_args()
    chrome = next(filter(None, map(shutil.which, NAMES)), None)
    if chrome is None:
        sys.exit(f"no browser: none of {', '.join(NAMES)} is on the path")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chrome, args=["--no-sandbox", "--disable-gpu"]
        )
        count = print_book(arguments.site, arguments.file, arguments.paper, browser)
        browser.close()
    print(f"{arguments.file}: {count} pages")


if __name__ == "__main__":
    main()
