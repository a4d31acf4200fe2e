"""Chapter 4's second explorer: a curve of rational-quadratic pieces, moved by its knots."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
import traitlets
from scipy.special import ndtri
from torch import Tensor

from flowlib.plotting import DATA, GREY, INK, LATENT, THIRD
from flowlib.transformers import Spline
from flowlib.widgets.base import Explorer
from flowlib.widgets.stills import (
    circle,
    group,
    number,
    path,
    picture,
    polyline,
    said,
    text,
    title,
)
from flowlib.widgets.traits import Number, Numbers, Whole

__all__ = ["SplineExplorer"]

BOUND = 3.0
COUNT = 5  # knots between the two ends
KNOTS = [[-2.1, -2.0], [-1.1, -0.5], [0.0, 0.0], [1.1, 0.6], [2.0, 2.1]]
SLOPES = [1.3, 0.9, 0.3, 1.1, 1.2]
STEEP = {f"slope {k + 1}": (0.05, 8.0) for k in range(COUNT)}


class SplineExplorer(Explorer):
    """A monotone curve ``z = f(x)`` of six pieces, whose knots and slopes the reader moves.

    It is :class:`flowlib.Spline` with six bins on (-3, 3). At its left is the standard normal
    density of ``z``, and below it the density of ``x`` that the curve makes of it.

    Attributes:
        knots: ``[[x, z], ...]``, five knots between (-3, -3) and (3, 3), rising in both numbers.
        slopes: the curve's slopes at these knots, each from 0.05 to 8.
        probe: the position ``x`` whose density is shown, from -3 to 3.
        chosen: the knot, from 0, whose slope the slider moves.

    Raises:
        TypeError: if there is no such option.
        traitlets.TraitError: if an attribute has another shape or is outside of its range, or the
            knots do not rise.

    Example:
        >>> SplineExplorer(probe=1)
        SplineExplorer(probe=1.0)

    Source: Durkan, Bekasov, Murray and Papamakarios (2019), figure 1.
    """

    script, shared = "spline.js", ("line.js",)
    caption = (
        "A rising curve with five knots and a short tangent at each carries the standard normal at "
        "its left to the density of x below it, which is high where the curve is steep."
    )
    knots = Numbers(KNOTS, shape=(COUNT, 2)).tag(sync=True)
    slopes = Numbers(SLOPES, shape=(COUNT,), ranges=STEEP).tag(sync=True)
    probe = Number(0.2, low=-3, high=3).tag(sync=True)
    chosen = Whole(2, low=0, high=COUNT - 1).tag(sync=True)

    @traitlets.validate("knots")
    def _check_knots(self, proposal: dict[str, Any]) -> list[list[float]]:
        knots: list[list[float]] = proposal["value"]
        whole = np.array([[-BOUND] * 2, *knots, [BOUND] * 2])
        # of a piece flowlib's spline has a least size
        if not (np.diff(whole, axis=0) > 2 * BOUND * Spline.LEAST).all():
            raise traitlets.TraitError(
                f"knots: expected points that rise in x and in z from (-3, -3) to (3, 3), got "
                f"{knots}"
            )
        return knots

    def __repr__(self) -> str:
        return f"SplineExplorer(probe={self.probe})"

    def map(self) -> tuple[Spline, Tensor]:
        """The curve in ``flowlib``, and the 17 parameters ``(1, 17)`` that a network would say."""
        spline = Spline(n_bins=COUNT + 1, bound=BOUND)
        whole = np.array([[-BOUND] * 2, *self.knots, [BOUND] * 2])
        shares = np.diff(whole, axis=0) / (2 * BOUND)
        raw = np.log(shares - Spline.LEAST)  # of which a softmax makes the shares again

        def unsoftplus(y: Any) -> Any:
            return y + np.log(-np.expm1(-y))

        leans = unsoftplus(np.array(self.slopes) - Spline.LEAST) - unsoftplus(1 - Spline.LEAST)
        params = np.concatenate([raw[:, 0], raw[:, 1], leans])
        return spline, torch.from_numpy(params)[None]

    def at(self, x: Any) -> tuple[Any, Any]:
        """``f(x)`` and the logarithm of its slope, arrays like ``x``."""
        spline, params = self.map()
        x = torch.as_tensor(np.atleast_1d(np.asarray(x, dtype=float)))[:, None]
        z, log_slope = spline(x, params.expand(len(x), -1))
        return z[:, 0].numpy(), log_slope[:, 0].numpy()

    @property
    def reading(self) -> str:
        """The numbers at the probe, and the task."""
        (z,), (log_slope,) = self.at(self.probe)
        base = -0.5 * z**2 - 0.5 * math.log(2 * math.pi)
        return (
            f"At x = {said(self.probe, 2)} the slope of the curve is {said(math.exp(log_slope))}. "
            f"There log p_Z(z) is {said(base)}, log f′(x) is {said(log_slope)}, and their sum log "
            f"p(x) is {said(base + log_slope)}. Task: make three hills out of the one bell."
        )

    def still(self) -> str:
        """The curve and both densities, as they are before anything is moved."""
        x, z = np.linspace(-3.5, 3.5, 281), np.linspace(-3.4, 3.4, 121)
        here, log_slope = self.at(x)
        density = np.exp(-0.5 * here**2 + log_slope) / math.sqrt(2 * math.pi)
        high = max(0.55, 1.08 * density.max())
        floor = 490  # where p(x) is zero

        def across(x: Any) -> Any:  # pixels from the left, of x
            return 130 + (x + 3.5) * 70

        def up(z: Any) -> Any:  # pixels from the top, of z
            return 200 - z * 47

        top = zip(across(x), floor - 100 * density / high, strict=True)
        area = polyline([*top, (across(3.5), floor), (across(-3.5), floor)], close=True)
        hill = np.exp(-0.5 * z**2) / math.sqrt(2 * math.pi)
        left = [(36, up(z[0])), *zip(36 + 200 * hill, up(z), strict=True), (36, up(z[-1]))]
        carried = "".join(
            f"M36 {number(up(level))}H{number(across(np.interp(level, here, x)))}V{floor}"
            for level in ndtri(np.arange(1, 10) / 10)
        )
        seen = abs(here) <= 3.4
        curve = polyline(zip(across(x[seen]), up(here[seen]), strict=True))
        tangents = ""
        for (a, b), slope in zip(self.knots, self.slopes, strict=True):
            way = np.array([70, -47 * slope])
            ends = np.array([across(a), up(b)]) + np.outer([-20, 20], way / np.hypot(*way))
            tangents += polyline(ends)
        ticks = range(-3, 4)
        return picture(
            530,
            path(polyline(left, close=True), fill=LATENT, fill_opacity=0.2, stroke=LATENT),
            path(area, fill=DATA, fill_opacity=0.25, stroke=DATA),
            path(carried, fill="none", stroke=GREY),
            path("M36 40V360", stroke=LATENT),
            path("M130 360H620M130 490H620", stroke=DATA),
            path(curve, fill="none", stroke=THIRD, stroke_width=3),
            path(tangents, stroke=INK, stroke_width=2),
            *(circle(across(a), up(b), 6, fill=THIRD) for a, b in self.knots),
            group(
                *(text(28, up(v) + 5, v, text_anchor="end") for v in ticks),
                *(text(across(v), 510, v, text_anchor="middle") for v in ticks),
                font_size=14,
                fill=INK,
            ),
            title(36, 26, "latent z"),
            title(130, 26, "z = f(x)"),
            title(36, 410, "p(x) of data x"),
        )
