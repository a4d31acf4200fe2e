"""Chapter 1's second explorer: what forward and reverse KL ask of one Gaussian."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from flowlib.plotting import DATA, GREY, INK, THIRD
from flowlib.widgets.base import Explorer
from flowlib.widgets.stills import (
    Style,
    circle,
    group,
    path,
    picture,
    polyline,
    said,
    text,
    title,
)
from flowlib.widgets.traits import Number, Numbers

__all__ = ["KLExplorer"]

MEANS = (-4.5, 4.5)
BUMPS = {"means": MEANS, "standard deviations": (0.3, 3.0)}
# wide enough for the moments of every p that can be set
Q = {"means": MEANS, "standard deviations": (0.3, 6.0)}


class KLExplorer(Explorer):
    """One Gaussian ``q`` that is to fit two bumps ``p``.

    The data density is ``p(x) = w N(x; a, sa²) + (1 - w) N(x; b, sb²)``, the model is
    ``q(x) = N(x; m, s²)``; the reader drags all three Gaussians by their peaks. Below them are the
    integrands of ``KL(p‖q)`` and ``KL(q‖p)`` and, over ``m`` and ``s``, the landscape of either
    divergence, which ``q`` can slide down.

    Attributes:
        bumps: ``[[a, sa], [b, sb]]``, means within ±4.5, standard deviations from 0.3 to 3.
        weight: ``w``, the first bump's share of the data, from 0.05 to 0.95.
        q: ``[m, s]``, the mean within ±4.5, the standard deviation from 0.3 to 6.

    Raises:
        TypeError: if there is no such option.
        traitlets.TraitError: if an attribute has another shape, or a number outside of its range.

    Example:
        >>> KLExplorer(q=[2, 1])
        KLExplorer(q=[2.0, 1.0])

    Source:
        Papamakarios et al. (2021), *Normalizing Flows for Probabilistic Modeling and Inference*,
        section 2.3.
    """

    script = "kl.js"
    caption = (
        "Two bumps of data, p, filled, and one Gaussian, q, a line, which cannot be both of them: "
        "forward KL charges for data that q leaves out, reverse KL for q where there are no data."
    )
    bumps = Numbers([[-2.5, 0.6], [2.5, 0.6]], shape=(2, 2), ranges=BUMPS).tag(sync=True)
    weight = Number(0.5, low=0.05, high=0.95).tag(sync=True)
    q = Numbers([0.5, 1.0], shape=(2,), ranges=Q).tag(sync=True)

    def __repr__(self) -> str:
        return f"KLExplorer(q={self.q})"

    @property
    def reading(self) -> str:
        """The means and widths, both divergences, and the task."""
        x = np.linspace(-60, 60, 48_001)
        bumps = list(zip((self.weight, 1 - self.weight), self.bumps, strict=True))
        tiny = np.finfo(float).tiny
        p = np.maximum(np.sum([w * _normal(x, *bump) for w, bump in bumps], 0), tiny)
        q = np.maximum(_normal(x, *self.q), tiny)
        forward, reverse = (
            float(np.sum(a * np.log(a / b)) * (x[1] - x[0])) for a, b in ((p, q), (q, p))
        )
        (a, s_a), (b, s_b) = self.bumps
        return (
            f"p has bumps at {said(a, 1)} and {said(b, 1)}, of deviations {said(s_a, 1)} and "
            f"{said(s_b, 1)}; q has mean {said(self.q[0], 1)} and deviation {said(self.q[1], 1)}. "
            f"KL(p‖q) = {said(forward, 2)} nats and KL(q‖p) = {said(reverse, 2)} nats. Task: put q "
            "so that KL(q‖p) is below 0.75 nats although half of the data is left out."
        )

    def still(self) -> str:
        """The two densities as they are before anything is moved."""
        x = np.linspace(-6, 6, 301)
        bumps = list(zip((self.weight, 1 - self.weight), self.bumps, strict=True))
        p = np.sum([w * _normal(x, *bump) for w, bump in bumps], 0)
        q = _normal(x, *self.q)
        high = max(0.64, 1.12 * p.max(), 1.12 * q.max())

        def curve(density: npt.NDArray[np.float64], close: bool = False) -> str:
            return polyline(zip(20 + (x + 6) * 50, 270 - density / high * 220, strict=True), close)

        def peak(color: str, w: float, m: float, s: float) -> str:
            top = 270 - w / (s * math.sqrt(2 * math.pi)) / high * 220
            return path(polyline([(20 + (m + 6) * 50, top)]) + "h0", stroke=color)

        ticks = (text(20 + (v + 6) * 50, 294, v) for v in range(-4, 5, 2))
        peaks = [*(peak(DATA, w, *bump) for w, bump in bumps), peak(THIRD, 1, *self.q)]
        filled: Style = {"fill": DATA, "fill_opacity": 0.3, "stroke": DATA, "stroke_width": 1.8}
        return picture(
            310,
            circle(28, 21, 5, fill=DATA),
            circle(150, 21, 5, fill=THIRD),
            title(40, 26, "data p(x)"),
            title(162, 26, "Gaussian q(x)"),
            path("M20 270H620", stroke=GREY),
            group(*ticks, font_size=14, fill=INK, text_anchor="middle"),
            path(curve(p, close=True), **filled),
            path(curve(q), fill="none", stroke=THIRD, stroke_width=2.8),
            group(*peaks, stroke_width=14, stroke_linecap="round"),
        )


def _normal(x: npt.NDArray[np.float64], m: float, s: float) -> npt.NDArray[np.float64]:
    density: npt.NDArray[np.float64] = np.exp(-0.5 * ((x - m) / s) ** 2)
    return density / (s * math.sqrt(2 * math.pi))
