"""Chapter 1's explorer: where the determinant comes from."""

from __future__ import annotations

import math

import numpy as np
import traitlets

from flowlib.plotting import DATA, GREY, INK, LATENT, PAPER
from flowlib.widgets.base import Explorer

__all__ = ["WarpExplorer"]


class WarpExplorer(Explorer):
    """A linear map ``z = A x`` that one takes by its columns.

    Two panels of one state: the data plane with a unit square and the density that the map gives
    it, and the latent plane with the square's image and the standard normal. Area, determinant,
    log-determinant and the density of one point move together.

    Attributes:
        matrix: the entries of ``A``, two rows of two.
        point: the point ``x`` whose density is shown.

    Raises:
        traitlets.TraitError: if the matrix is not two rows of two finite numbers, or the point
            not two.

    Example:
        >>> WarpExplorer(matrix=[[1, 0.5], [0, 2]])
        WarpExplorer(matrix=[[1.0, 0.5], [0.0, 2.0]])
    """

    script = "warp.js"
    caption = (
        "Left, data space with a unit square and two ellipses of equal density. Right, latent "
        "space with the square's image, a parallelogram, and two circles of the standard normal."
    )
    matrix = traitlets.List(default_value=[[1.25, 0.5], [-0.25, 1.0]]).tag(sync=True)
    point = traitlets.List(default_value=[1.0, 1.0]).tag(sync=True)

    @traitlets.validate("matrix", "point")
    def _finite(self, proposal):
        shape = {"matrix": (2, 2), "point": (2,)}[proposal.trait.name]
        try:
            value = np.asarray(proposal.value, dtype=float)
        except (TypeError, ValueError) as error:
            raise traitlets.TraitError(f"{proposal.trait.name}: {error}") from error
        if value.shape != shape or not np.isfinite(value).all():
            raise traitlets.TraitError(
                f"{proposal.trait.name}: expected finite numbers of shape {shape}, "
                f"got {proposal.value}"
            )
        return value.tolist()

    def __repr__(self) -> str:
        return f"WarpExplorer(matrix={self.matrix})"

    def still(self) -> str:
        """The two panels as they are before anything is moved."""
        a = np.array(self.matrix)
        square = np.array([[0, 0], [1, 0], [1, 1], [0, 1]])
        turn = np.linspace(0, 2 * math.pi, 61)
        circles = [r * np.stack([np.cos(turn), np.sin(turn)], 1) for r in (1, 2)]
        grid = [
            np.array(line) for k in range(-3, 4) for line in ([[k, -3], [k, 3]], [[-3, k], [3, k]])
        ]
        singular = abs(np.linalg.det(a)) < 1e-6
        back = [] if singular else [c @ np.linalg.inv(a).T for c in circles]
        x = np.array([self.point])
        left = _panel(20, grid, square, back, DATA, x, DATA, "data x")
        right = _panel(
            340, [g @ a.T for g in grid], square @ a.T, circles, LATENT, x @ a.T, LATENT,
            "latent z = A x",
        )  # fmt: skip
        return (
            '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 640 340" '
            'font-family="sans-serif">'
            f'<rect width="640" height="340" fill="{PAPER}"/>{left}{right}</svg>'
        )


def _panel(left, grid, square, curves, color, point, point_color, title) -> str:
    """One plane of the still picture, 280 pixels for 6 units, clipped to its frame."""

    def path(points, close=False):
        pixels = (140 + points * [280 / 6, -280 / 6]).round(1)
        return "M" + "L".join(f"{x:g} {y:g}" for x, y in pixels) + ("Z" if close else "")

    cx, cy = (140 + point[0] * [280 / 6, -280 / 6]).round(1)
    lines = "".join(path(g) for g in grid)
    rings = "".join(
        f'<path d="{path(c, True)}" fill="none" stroke="{color}" stroke-width="1.6"/>'
        for c in curves
    )
    return (
        f'<text x="{left}" y="26" font-size="15" fill="{INK}">{title}</text>'
        f'<svg x="{left}" y="40" width="280" height="280" viewBox="0 0 280 280">'
        f'<path d="{lines}" fill="none" stroke="{DATA}" stroke-width="0.8" opacity="0.4"/>'
        f'<path d="M0 140L280 140M140 0L140 280" stroke="{GREY}" fill="none"/>{rings}'
        f'<path d="{path(square, True)}" fill="{DATA}" fill-opacity="0.35" '
        f'stroke="{DATA}" stroke-width="2"/>'
        f'<circle cx="{cx:g}" cy="{cy:g}" r="6" fill="{point_color}"/></svg>'
    )
