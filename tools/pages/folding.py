"""Code waits until it is asked for."""

from __future__ import annotations

import re

from bs4 import BeautifulSoup, Tag

from tools.pages.theme import icon

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
        button.append(icon(page, "code"))
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
        words, number = page.new_tag("span"), page.new_tag("span", attrs={"class": "fl-number"})
        words.string, number.string = re.fullmatch(r"(.*?)(\S*)", line, re.S).groups()
        words.append(number)
        summary.append(words)
    details.append(summary)
    details.append(BeautifulSoup(str(source), "html.parser"))
    return details
