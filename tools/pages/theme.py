"""What the theme brings: its icons are drawn in the page, and what needs Bootstrap goes."""

from __future__ import annotations

from bs4 import BeautifulSoup, Tag

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


def draw_icons(page: BeautifulSoup) -> None:
    """An SVG for each icon, with the classes that the theme's script looks for."""
    for node in page.select('[class*="fa-"]'):
        names = node.get("class")
        name = next((n[3:] for n in names if n[3:] in ICONS and n.startswith("fa-")), None)
        if name is None:
            raise ValueError(f"no icon is drawn for {' '.join(names)}")
        svg = icon(page, name)
        node["class"] = [n for n in names if n == "theme-switch"]
        if not node["class"]:
            node.replace_with(svg)
        else:
            node.name = "span"
            node.append(svg)


def icon(page: BeautifulSoup, name: str) -> Tag:
    """One of the icons by its name."""
    svg = page.new_tag(
        "svg", attrs={"viewBox": "0 0 24 24", "class": "fl-icon", "aria-hidden": "true"}
    )
    svg.append(page.new_tag("path", attrs={"d": ICONS[name]}))
    return svg


def simplify(page: BeautifulSoup) -> None:
    """Without the parts that need Bootstrap's script, or that nobody needs."""
    page.html.attrs.pop("data-theme", None)  # a script says it; without one, the system does
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
    for node in page.select("#pst-page-toc-nav"):
        del node["id"]  # by which the theme's script would mark a section, too, and later
    for node in page.select("meta[name=viewport]")[1:]:
        node.decompose()
    for content in page.select(".bd-content"):
        if content.select_one(".bd-sidebar-secondary") is None:
            content["class"] = [*content["class"], "fl-alone"]
    for number in page.select(".prev-next-title .section-number"):
        number.string = number.get_text().replace(" ", "\u00a0")
