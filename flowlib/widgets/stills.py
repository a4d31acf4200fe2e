"""The still pictures: pieces of SVG, and the document around them."""

from __future__ import annotations

import html
from collections.abc import Iterable

from flowlib.plotting import INK, PAPER

__all__ = [
    "Style",
    "circle",
    "element",
    "group",
    "number",
    "path",
    "picture",
    "point",
    "polyline",
    "rectangle",
    "said",
    "square",
    "text",
    "title",
]

WIDTH = 640
Style = dict[str, str | float]


def picture(height: int, *parts: str) -> str:
    """The document: a sheet of paper, 640 pixels wide, and the parts on it.

    Example:
        >>> picture(340, circle(20, 20, 5, fill="red")).split("/>")[1:]
        ['<circle cx="20" cy="20" r="5" fill="red"', '</svg>']
    """
    sheet = rectangle(0, 0, WIDTH, height, fill=PAPER)
    return element(
        "svg",
        sheet,
        *parts,
        xmlns="http://www.w3.org/2000/svg",
        viewBox=f"0 0 {WIDTH} {height}",
        font_family="sans-serif",
    )


def element(tag: str, *content: str, **attributes: str | float) -> str:
    """An element of SVG; in the attributes' names an underscore stands for a hyphen.

    Example:
        >>> element("path", d="M0 0h9", stroke_width=1.5)
        '<path d="M0 0h9" stroke-width="1.5"/>'
    """
    written = ""
    for name, value in attributes.items():
        shown = html.escape(value) if isinstance(value, str) else f"{value:g}"
        written += f' {name.replace("_", "-")}="{shown}"'
    return f"<{tag}{written}>{''.join(content)}</{tag}>" if content else f"<{tag}{written}/>"


def group(*parts: str, **style: str | float) -> str:
    """Parts that share a style."""
    return element("g", *parts, **style)


def path(d: str, **style: str | float) -> str:
    """A path; an empty one is drawn as a point without a width."""
    return element("path", d=d or "M0 0", **style)


def rectangle(x: float, y: float, width: float, height: float, **style: str | float) -> str:
    """A rectangle with its upper left corner at ``(x, y)``."""
    sides = {"width": number(width), "height": number(height)}
    return element("rect", x=number(x), y=number(y), **sides, **style)


def circle(x: float, y: float, radius: float, **style: str | float) -> str:
    """A circle round ``(x, y)``."""
    return element("circle", cx=number(x), cy=number(y), r=radius, **style)


def text(x: float, y: float, words: object, **style: str | float) -> str:
    """Words, or a number with a proper minus sign."""
    shown = html.escape(str(words), quote=False)
    if isinstance(words, int | float):
        shown = shown.replace("-", "−")
    return element("text", shown, x=number(x), y=number(y), **style)


def title(x: float, y: float, words: str, color: str = INK) -> str:
    """The title of a part of the picture."""
    return text(x, y, words, font_size=15, fill=color)


def polyline(points: Iterable[Iterable[float]], close: bool = False) -> str:
    """The data of a path through points ``(x, y)``.

    Example:
        >>> polyline([(0, 0), (1.25, 2)], close=True)
        'M0 0L1.2 2Z'
    """
    return "M" + "L".join(" ".join(map(number, point)) for point in points) + "Z" * close


def square(x: float, y: float, side: float) -> str:
    """The data of a path round a square with its upper left corner at ``(x, y)``.

    Example:
        >>> square(1, 2, 9.5)
        'M1 2h9.5v9.5h-9.5z'
    """
    s = number(side)
    return f"M{number(x)} {number(y)}h{s}v{s}h-{s}z"


def said(value: float, digits: int = 3) -> str:
    """A number in a sentence, with a proper minus sign.

    Example:
        >>> said(-0.25, 2), said(-0.0001)
        ('−0.25', '0.000')
    """
    shown = f"{value:.{digits}f}"
    return (shown if float(shown) else shown.lstrip("-")).replace("-", "−")


def point(values: Iterable[float], digits: int = 2) -> str:
    """A point in a sentence.

    Example:
        >>> point([1, -0.5])
        '(1.00, −0.50)'
    """
    return f"({', '.join(said(value, digits) for value in values)})"


def number(value: float) -> str:
    """A coordinate to a tenth of a pixel."""
    return f"{value:.1f}".removesuffix(".0")
