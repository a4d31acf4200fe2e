"""Figures come when they are near, in the colours of the theme, with the room that they take."""

from __future__ import annotations

import copy
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
from bs4 import BeautifulSoup
from PIL import Image

# Paper and ink of the figures, and those of the dark theme.
PAPER, INK = 0.985, 0.25  # how light they are
DARK_PAPER, DARK_INK = np.array([[25, 28, 32], [236, 238, 240]]) / 255


def in_the_dark(picture: Image.Image) -> Image.Image:
    """The same figure on dark paper; colours keep their hue, as those of the explorers do.

    Each pixel is a mixture of white, black and a pure hue. White and black change places.
    """
    rgb = np.asarray(picture.convert("RGB"), dtype=float) / 255
    white, black = rgb.min(-1, keepdims=True), 1 - rgb.max(-1, keepdims=True)
    plain = white + black  # the share of the mixture that is no hue
    ink = (black / np.maximum(plain, 1e-9) - (1 - PAPER)) / (PAPER - INK)
    there = DARK_PAPER + ink.clip(0, 1) * (DARK_INK - DARK_PAPER)
    mixed = rgb - white + plain * there
    return Image.fromarray((255 * mixed.clip(0, 1)).round().astype(np.uint8))


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
        image.insert_after(twin)
