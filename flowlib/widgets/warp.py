"""Chapter 1's explorer: where the determinant comes from."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import traitlets
from scipy.interpolate import PchipInterpolator
from scipy.special import ndtri

from flowlib.plotting import DATA, GREY, INK, LATENT, THIRD
from flowlib.widgets.base import Explorer
from flowlib.widgets.stills import (
    Style,
    circle,
    element,
    group,
    number,
    path,
    picture,
    point,
    polyline,
    said,
    text,
    title,
)
from flowlib.widgets.traits import Number, Numbers

__all__ = ["WarpExplorer"]

KNOTS = np.arange(-3.0, 4.0)
DX = 0.3
Array = npt.NDArray[np.float64]


class WarpExplorer(Explorer):
    """What a map does to lengths, areas and densities, in three views.

    ``"line"``: a map ``z = f(x)`` of the line, a monotone cubic through seven knots that the reader
    moves; beside it the standard normal of ``z``, below it the density ``p(x)``. ``"matrix"``: a
    linear map ``z = A x`` of the plane, of which the reader moves the columns, and the area of a
    square. ``"bend"``: ``z1 = x1 + a sin x2``, ``z2 = x2 exp(b tanh z1)``, and a square that the
    reader shrinks until its image is the parallelogram that the Jacobian makes of it.

    Attributes:
        view: ``"line"``, ``"matrix"`` or ``"bend"``.
        knots: line: ``f(-3), f(-2), ..., f(3)``, all rising or all falling.
        probe: line: the position ``x`` whose density is shown, from -3 to 3.
        matrix: matrix: the entries of ``A``, two rows of two.
        point: matrix: the point ``x`` whose density is shown.
        bend: bend: ``[a, b]``, shear and stretch, each from -1 to 1.
        centre: bend: the point in the middle of the square.
        side: bend: the square's side, from 0.02 to 1.5.

    Raises:
        TypeError: if there is no such option.
        traitlets.TraitError: if there is no such view, or an attribute has another shape, is not
            finite, or is outside of its range, or the knots do not all rise or all fall.

    Example:
        >>> WarpExplorer(matrix=[[1, 0.5], [0, 2]])
        WarpExplorer(matrix=[[1.0, 0.5], [0.0, 2.0]])
        >>> WarpExplorer(view="bend", side=0.1)
        WarpExplorer(view='bend', bend=[0.6, 0.5], centre=[0.8, 0.9], side=0.1)
    """

    script, shared = "warp.js", ("line.js",)
    view = traitlets.Enum(["line", "matrix", "bend"], default_value="matrix").tag(sync=True)
    knots = Numbers([-2.6, -2.0, -1.4, -0.6, 0.8, 1.8, 2.3], shape=(7,)).tag(sync=True)
    probe = Number(0.2, low=-3, high=3).tag(sync=True)
    matrix = Numbers([[1.25, 0.5], [-0.25, 1.0]], shape=(2, 2)).tag(sync=True)
    point = Numbers([1.0, 1.0], shape=(2,)).tag(sync=True)
    bend = Numbers([0.6, 0.5], shape=(2,), ranges={"shear": (-1, 1), "stretch": (-1, 1)}).tag(
        sync=True
    )
    centre = Numbers([0.8, 0.9], shape=(2,)).tag(sync=True)
    side = Number(1.0, low=0.02, high=1.5).tag(sync=True)

    @property
    def caption(self) -> str:
        """One sentence that says what the present view's still picture shows."""
        return {
            "line": "A curve, the map from data x to latent z, carries ten portions of equal "
            "probability from the standard normal at its left to the density of x below it, "
            "which is high where the curve is steep.",
            "matrix": "Left, data space with a unit square and two ellipses of equal density. "
            "Right, latent space with the square's image, a parallelogram, and two circles of the "
            "standard normal.",
            "bend": "Left, data space with a grid and a square. Right, latent space with the bent "
            "grid, the square's image, and dashed the parallelogram that the Jacobian makes of it.",
        }[self.view]

    @traitlets.validate("knots")
    def _check_knots(self, proposal: dict[str, Any]) -> list[float]:
        knots: list[float] = proposal["value"]
        steps = np.diff(knots)
        if not ((steps > 0).all() or (steps < 0).all()):
            raise traitlets.TraitError(
                f"knots: expected numbers that all rise or all fall, got {knots}"
            )
        return knots

    def __repr__(self) -> str:
        if self.view == "matrix":
            return f"WarpExplorer(matrix={self.matrix})"
        names = {"line": ("view", "knots", "probe"), "bend": ("view", "bend", "centre", "side")}
        state = ", ".join(f"{name}={getattr(self, name)!r}" for name in names[self.view])
        return f"WarpExplorer({state})"

    @property
    def reading(self) -> str:
        """The numbers of the present view, and its task."""
        return {
            "line": self._line_reading, "matrix": self._matrix_reading, "bend": self._bend_reading,
        }[self.view]()  # fmt: skip

    def _line_reading(self) -> str:
        f = PchipInterpolator(KNOTS, self.knots)
        z, slope = float(f(self.probe)), float(f.derivative()(self.probe))
        base, log_slope = -0.5 * z**2 - 0.5 * math.log(2 * math.pi), math.log(abs(slope))
        return (
            f"At x = {said(self.probe, 2)} the slope of the map is {said(slope)}. There "
            f"log p_Z(z) is {said(base)}, log |f′(x)| is {said(log_slope)}, and their sum log p(x) "
            f"is {said(base + log_slope)}. Task: bend the map so that the data have two hills."
        )

    def _matrix_reading(self) -> str:
        a, x = np.array(self.matrix), np.array(self.point)
        det = float(np.linalg.det(a))
        words = (
            f"The columns of A are the arrows a₁ = {point(a[:, 0])} and a₂ = {point(a[:, 1])}, "
            f"and det A = {said(det)}. "
        )
        if abs(det) >= 1e-6:
            z = a @ x
            base = -0.5 * float(z @ z) - math.log(2 * math.pi)
            log_det = math.log(abs(det))
            words += (
                f"At x = {point(x)} log p_Z(z) is {said(base)}, log |det A| is {said(log_det)}, "
                f"and their sum log p(x) is {said(base + log_det)}. "
            )
        return words + "Task: make the determinant 1, within 0.05, without a rotation."

    def _bend_reading(self) -> str:
        _, jacobian = self._at_centre()
        det = float(np.linalg.det(jacobian))
        return (
            f"At x = {point(self.centre)}, in the middle of a square of side {said(self.side, 2)}, "
            f"the Jacobian's determinant is {said(det)} and log |det J| = "
            f"{said(math.log(abs(det)))}. Task: find a bend and a place where the square’s "
            "image is at least twice as large, and a size at which the parallelogram predicts it "
            "within 1 %."
        )

    def still(self) -> str:
        """The present view as it is before anything is moved."""
        return {"line": self._line, "matrix": self._matrix, "bend": self._bend}[self.view]()

    def _line(self) -> str:
        f = PchipInterpolator(KNOTS, self.knots)
        slope = f.derivative()
        way = math.copysign(1, self.knots[-1] - self.knots[0])

        def at(x: Array) -> Array:  # straight beyond the knots
            near = np.clip(x, -3, 3)
            z: Array = f(near) + slope(near) * (x - near)
            return z

        def normal(z: Array) -> Array:
            density: Array = np.exp(-0.5 * z**2) / math.sqrt(2 * math.pi)
            return density

        def density(x: Array) -> Array:
            jacobian: Array = slope(np.clip(x, -3, 3))
            return normal(at(x)) * abs(jacobian)

        x, z = np.linspace(-3.5, 3.5, 281), np.linspace(-3.4, 3.4, 121)
        high = max(0.55, 1.08 * density(x).max())
        floor = 490  # where p(x) is zero

        def across(x: Any) -> Any:  # pixels from the left, of x
            return 130 + (x + 3.5) * 70

        def up(z: Any) -> Any:  # pixels from the top, of z
            return 200 - z * 47

        def area(x: Array) -> str:
            """Below the density, from the first x to the last."""
            top = zip(across(x), floor - 100 * density(x) / high, strict=True)
            ends = [(across(x[-1]), floor), (across(x[0]), floor)]
            return polyline([*top, *ends], close=True)

        carried = ""
        for level in ndtri(np.arange(1, 10) / 10):
            here = float(np.interp(way * level, way * at(x), x, -9, 9))
            down = f"V{floor}" if abs(here) < 9 else ""
            carried += f"M36 {number(up(level))}H{number(across(np.clip(here, -3.5, 3.5)))}{down}"
        near = np.linspace(self.probe, self.probe + DX, 13)
        top = up(np.clip(at(near), -3.4, 3.4))
        hill = zip(36 + 200 * normal(z), up(z), strict=True)
        left = polyline([(36, up(z[0])), *hill, (36, up(z[-1]))], close=True)
        seen = abs(at(x)) <= 3.4
        curve = polyline(zip(across(x[seen]), up(at(x[seen])), strict=True))
        dx = f"M{number(across(near[0]))} 360H{number(across(near[-1]))}"
        ticks = range(-3, 4)
        return picture(
            530,
            path(left, fill=LATENT, fill_opacity=0.2, stroke=LATENT),
            path(area(x), fill=DATA, fill_opacity=0.25, stroke=DATA),
            path(area(near), fill=DATA, fill_opacity=0.6),
            path(carried, fill="none", stroke=GREY),
            path("M36 40V360", stroke=LATENT),
            path("M130 360H620M130 490H620", stroke=DATA),
            path(curve, fill="none", stroke=THIRD, stroke_width=3),
            *(
                circle(across(x), up(z), 6, fill=THIRD)
                for x, z in zip(KNOTS, self.knots, strict=True)
                if abs(z) <= 3.4
            ),
            path(f"M36 {number(top[0])}V{number(top[-1])}", stroke=LATENT, stroke_width=8),
            path(dx, stroke=DATA, stroke_width=8),
            group(
                *(text(28, up(v) + 5, v, text_anchor="end") for v in ticks),
                *(text(across(v), 510, v, text_anchor="middle") for v in ticks),
                text(46, (top[0] + top[-1]) / 2 + 5, "dz", font_style="italic"),
                text(across(near.mean()), 380, "dx", text_anchor="middle", font_style="italic"),
                font_size=14,
                fill=INK,
            ),
            title(36, 26, "latent z"),
            title(130, 26, "z = f(x)"),
            title(36, 410, "p(x) of data x"),
        )

    def _matrix(self) -> str:
        a = np.array(self.matrix)
        square = np.array([[0, 0], [1, 0], [1, 1], [0, 1]])
        turn = np.linspace(0, 2 * math.pi, 61)
        circles = [r * np.stack([np.cos(turn), np.sin(turn)], 1) for r in (1, 2)]
        grid = _grid(2)
        singular = abs(np.linalg.det(a)) < 1e-6
        back = [] if singular else [c @ np.linalg.inv(a).T for c in circles]
        x = np.array(self.point)
        return picture(
            340,
            _panel(20, "data x", grid, square, *_rings(back, DATA), _dot(x, DATA)),
            _panel(
                340, "latent z = A x", [g @ a.T for g in grid], square @ a.T,
                *_rings(circles, LATENT), _dot(a @ x, LATENT),
                *_arrow(a[:, 0], "a₁"), *_arrow(a[:, 1], "a₂"),
            ),
        )  # fmt: skip

    def _at_centre(self) -> tuple[Array, Array]:
        """Where the bend takes the square's middle, and its Jacobian there."""
        (shear, stretch), x = self.bend, self.centre
        u = x[0] + shear * math.sin(x[1])
        grow = math.exp(stretch * math.tanh(u))
        pull = x[1] * grow * stretch / math.cosh(u) ** 2
        lean = shear * math.cos(x[1])
        return np.array([u, x[1] * grow]), np.array([[1, lean], [pull, pull * lean + grow]])

    def _bend(self) -> str:
        shear, stretch = self.bend
        x = np.array(self.centre)
        corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * self.side / 2
        t = np.linspace(0, 1, 32, endpoint=False)[:, None]
        ways = zip(corners, np.roll(corners, -1, 0), strict=True)
        square = x + np.concatenate([a + t * (b - a) for a, b in ways])

        def bent(points: Array) -> Array:
            u = points[..., 0] + shear * np.sin(points[..., 1])
            return np.stack([u, points[..., 1] * np.exp(stretch * np.tanh(u))], -1)

        z, jacobian = self._at_centre()
        image = _path(z + corners @ jacobian.T, True)
        dashed: Style = {"stroke": THIRD, "stroke_width": 2.4, "stroke_dasharray": "6 4"}
        grid = _grid(49)
        return picture(
            340,
            _panel(20, "data x", grid, square, _dot(x, DATA)),
            _panel(
                340, "latent z = f(x)", [bent(g) for g in grid], bent(square),
                path(image, fill="none", **dashed), _dot(z, LATENT),
            ),
        )  # fmt: skip


def _arrow(tip: Array, name: str) -> list[str]:
    """A column of the matrix, from the origin, with its name beyond the tip."""
    length = float(np.hypot(*tip))
    if length < 0.05:
        return []
    along = tip / length
    side = 0.09 * np.array([-along[1], along[0]])
    head = np.stack([tip, tip - 0.28 * along + side, tip - 0.28 * along - side])
    x, y = _pixels(tip + 0.3 * along)
    return [
        path(_path(np.stack([0 * tip, tip - 0.2 * along])), stroke=INK, stroke_width=2.6),
        path(_path(head, True), fill=INK),
        text(x, y + 5, name, font_size=15, text_anchor="middle", fill=INK),
    ]


def _grid(points: int) -> list[Array]:
    """The lines of the grid on [-3, 3]², each of that many points."""
    t = np.linspace(-3, 3, points)
    return [np.stack(line, 1) for k in range(-3, 4) for line in ((0 * t + k, t), (t, 0 * t + k))]


def _pixels(points: Array) -> Array:
    """Where points of the plane are in their panel, 280 pixels for 6 units."""
    return 140 + points * [280 / 6, -280 / 6]


def _path(points: Array, close: bool = False) -> str:
    return polyline(_pixels(points), close)


def _dot(point: Array, color: str) -> str:
    x, y = _pixels(point)
    return circle(x, y, 6, fill=color)


def _rings(curves: Sequence[Array], color: str) -> list[str]:
    return [path(_path(c, True), fill="none", stroke=color, stroke_width=1.6) for c in curves]


def _panel(left: int, words: str, grid: Sequence[Array], body: Array, *more: str) -> str:
    """One plane of the still picture, clipped to its frame."""
    filled: Style = {"fill": DATA, "fill_opacity": 0.35, "stroke": DATA, "stroke_width": 2}
    plane = element(
        "svg",
        path("".join(map(_path, grid)), fill="none", stroke=DATA, stroke_width=0.8, opacity=0.4),
        path("M0 140L280 140M140 0L140 280", stroke=GREY, fill="none"),
        path(_path(body, True), **filled),
        *more,
        x=left,
        y=40,
        width=280,
        height=280,
        viewBox="0 0 280 280",
    )
    return title(left, 26, words) + plane
