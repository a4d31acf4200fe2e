"""Figures come when they are near, in the colours of the theme, with the room that they take."""

from __future__ import annotations

import copy
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
from bs4 import BeautifulSoup
from numpy.typing import NDArray
from PIL import Image

Floats = NDArray[np.float64]

# On a phone a figure 6.4 inches wide takes 480 pixels, so that words of 10 points have 10 pixels.
LEAST = 480 / (6.4 * 220)
# Colours of the figures, and those that the dark theme has for them; book.css has these, too.
PAPER = {"light": "#fcfcfa", "dark": "#191c20"}
INK = {"light": "#3c4046", "dark": "#e6e8ea"}
HUES = {"#D55E00": "#f28a3c", "#0072B2": "#56b4e9", "#009E73": "#35c79b", "#CC79A7": "#e29ac3"}


def in_the_dark(picture: Image.Image) -> Image.Image:
    """The same figure on dark paper, with the colours of the dark theme.

    Each pixel is taken for paper with some ink and some of one of the four colours on it, and mixed
    anew from the dark ones; what that leaves over, where two colours overlap, is added as it is.
    """
    pixels = np.asarray(picture.convert("RGB"))
    packed = pixels.astype(np.uint32) @ np.array([65536, 256, 1], np.uint32)
    found, where = np.unique(packed, return_inverse=True)
    colors = np.stack([found >> 16, found >> 8 & 255, found & 255], -1) / 255
    dark = (255 * _mixed_anew(colors).clip(0, 1)).round().astype(np.uint8)
    return Image.fromarray(dark[where].reshape(pixels.shape))


def _mixed_anew(colors: Floats) -> Floats:
    left = colors - _rgb(PAPER["light"])
    best, result = np.full(len(colors), np.inf), np.zeros_like(colors)
    ink = _rgb(INK["light"]) - _rgb(PAPER["light"])
    for light, dark in HUES.items():
        hue = _rgb(light) - _rgb(PAPER["light"])
        shares = left @ np.linalg.pinv(np.stack([hue, ink]))
        # where one of the two would be taken away, the other alone
        for k, only in ((0, ink), (1, hue)):
            rest = left @ only / (only @ only)
            alone = np.stack([rest, 0 * rest] if k else [0 * rest, rest], -1)
            shares = np.where(shares[:, k : k + 1] < 0, alone, shares)
        shares = shares.clip(0, 1.2)
        over = left - shares @ np.stack([hue, ink])
        mixed = shares @ (np.stack([_rgb(dark), _rgb(INK["dark"])]) - _rgb(PAPER["dark"]))
        error = (over**2).sum(-1)
        better = error < best
        best = np.where(better, error, best)
        result = np.where(better[:, None], mixed + over, result)
    return result + _rgb(PAPER["dark"])


def _rgb(color: str) -> Floats:
    return np.array([int(color[k : k + 2], 16) for k in (1, 3, 5)]) / 255


def improve(page: BeautifulSoup, path: Path) -> None:
    """A file for each theme, of which a browser fetches the one that it shows."""
    for image in page.select("article img"):
        source = (path.parent / urlsplit(image.get("src", "")).path).resolve()
        if source.parent.name != "_images" or source.suffix != ".png":
            continue
        names = {
            "only-light": source.with_suffix(".webp"),
            "only-dark": source.with_suffix(".dark.webp"),
        }
        with Image.open(source) as picture:
            image["width"], image["height"] = picture.size
            least = round(LEAST * picture.width)
            sheet = picture.convert("RGB")
        for name, file in names.items():
            if not file.exists():
                shown = in_the_dark(sheet) if name == "only-dark" else sheet
                shown.save(file, quality=90, method=4)
        image["loading"], image["decoding"] = "lazy", "async"
        owner = image.find_parent("a", class_="image-reference")
        if owner is not None:
            owner.unwrap()
        twin = copy.copy(image)
        for one, (name, file) in zip((image, twin), names.items(), strict=True):
            one["src"] = one["src"].replace(source.name, file.name)
            one["class"] = [*one.get("class", []), name]
        sheet = {"class": "fl-sheet", "style": f"--fl-least: {least}px"}
        image.wrap(page.new_tag("div", attrs=sheet))
        image.insert_after(twin)
