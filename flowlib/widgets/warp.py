"""Chapter 1's explorer: where the determinant comes from."""

from __future__ import annotations

import math

import numpy as np
import traitlets
from scipy.interpolate import PchipInterpolator
from scipy.special import ndtri

from flowlib.plotting import DATA, GREY, INK, LATENT, PAPER, THIRD
from flowlib.widgets.base import Explorer

__all__ = ["WarpExplorer"]

KNOTS = np.arange(-3.0, 4.0)
DX = 0.3
SHAPES = {"matrix": (2, 2), "point": (2,), "knots": (7,), "bend": (2,), "centre": (2,)}
RANGES = {"probe": (-3, 3), "side": (0.02, 1.5)}


class WarpExplorer(Explorer):
    """What a map does to lengths, areas and densities, in three views.

    ``"line"``: a map ``z = f(x)`` of the line, a monotone cubic through seven knots that one moves
    by hand; beside it the standard normal of ``z``, below it the density ``p(x)``. ``"matrix"``: a
    linear map ``z = A x`` of the plane that one takes by its columns, and the area of a square.
    ``"bend"``: ``z1 = x1 + a sin x2``, ``z2 = x2 exp(b tanh z1)``, and a square that one shrinks
    until its image is the parallelogram that the Jacobian makes of it.

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
        traitlets.TraitError: if there is no such view, or a trait has another shape, is not
            finite, or is outside of its range, or the knots do not all rise or all fall.

    Example:
        >>> WarpExplorer(matrix=[[1, 0.5], [0, 2]])
        WarpExplorer(matrix=[[1.0, 0.5], [0.0, 2.0]])
        >>> WarpExplorer(view="bend", side=0.1)
        WarpExplorer(view='bend', bend=[0.6, 0.5], centre=[0.8, 0.9], side=0.1)
    """

    script = "warp.js"
    view = traitlets.Enum(["line", "matrix", "bend"], default_value="matrix").tag(sync=True)
    knots = traitlets.List(default_value=[-2.6, -2.0, -1.4, -0.6, 0.8, 1.8, 2.3]).tag(sync=True)
    probe = traitlets.Float(0.2).tag(sync=True)
    matrix = traitlets.List(default_value=[[1.25, 0.5], [-0.25, 1.0]]).tag(sync=True)
    point = traitlets.List(default_value=[1.0, 1.0]).tag(sync=True)
    bend = traitlets.List(default_value=[0.6, 0.5]).tag(sync=True)
    centre = traitlets.List(default_value=[0.8, 0.9]).tag(sync=True)
    side = traitlets.Float(1.0).tag(sync=True)

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

    @traitlets.validate(*SHAPES)
    def _numbers(self, proposal):
        name = proposal.trait.name
        try:
            value = np.asarray(proposal.value, dtype=float)
        except (TypeError, ValueError) as error:
            raise traitlets.TraitError(f"{name}: {error}") from error
        if value.shape != SHAPES[name] or not np.isfinite(value).all():
            raise traitlets.TraitError(
                f"{name}: expected finite numbers of shape {SHAPES[name]}, got {proposal.value}"
            )
        steps = np.diff(value)
        if name == "knots" and not ((steps > 0).all() or (steps < 0).all()):
            raise traitlets.TraitError(
                f"knots: expected numbers that all rise or all fall, got {proposal.value}"
            )
        if name == "bend" and (abs(value) > 1).any():
            raise traitlets.TraitError(
                f"bend: expected shear and stretch from -1 to 1, got {proposal.value}"
            )
        return value.tolist()

    @traitlets.validate(*RANGES)
    def _number(self, proposal):
        name = proposal.trait.name
        low, high = RANGES[name]
        if not low <= proposal.value <= high:
            raise traitlets.TraitError(
                f"{name}: expected a number from {low} to {high}, got {proposal.value}"
            )
        return proposal.value

    def __repr__(self) -> str:
        if self.view == "matrix":
            return f"WarpExplorer(matrix={self.matrix})"
        names = {"line": ("view", "knots", "probe"), "bend": ("view", "bend", "centre", "side")}
        state = ", ".join(f"{name}={getattr(self, name)!r}" for name in names[self.view])
        return f"WarpExplorer({state})"

    def still(self) -> str:
        """The present view as it is before anything is moved."""
        return {"line": self._line, "matrix": self._matrix, "bend": self._bend}[self.view]()

    def _line(self) -> str:
        f = PchipInterpolator(KNOTS, self.knots)
        slope = f.derivative()
        way = math.copysign(1, self.knots[-1] - self.knots[0])

        def at(x):  # straight beyond the knots
            near = np.clip(x, -3, 3)
            return f(near) + slope(near) * (x - near)

        def normal(z):
            return np.exp(-0.5 * z**2) / math.sqrt(2 * math.pi)

        def density(x):
            return normal(at(x)) * abs(slope(np.clip(x, -3, 3)))

        x, z = np.linspace(-3.5, 3.5, 281), np.linspace(-3.4, 3.4, 121)
        high = max(0.55, 1.08 * density(x).max())

        def X(x):
            return 130 + (x + 3.5) * 70

        def Z(z):
            return 200 - z * 47

        def P(p):
            return 490 - 100 * p / high

        def hump(z):
            return 36 + 200 * normal(z)

        def shape(xs, ys, close=False):
            pairs = zip(np.broadcast_to(xs, np.shape(ys)), ys, strict=True)
            return "M" + "L".join(f"{u:.1f} {v:.1f}" for u, v in pairs) + "Z" * close

        seen = abs(at(x)) <= 3.4
        carried = ""
        for level in ndtri(np.arange(1, 10) / 10):
            here = float(np.interp(way * level, way * at(x), x, -9, 9))
            down = f"V{P(0):.1f}" if abs(here) < 9 else ""
            carried += f"M36 {Z(level):.1f}H{X(np.clip(here, -3.5, 3.5)):.1f}{down}"
        near = np.linspace(self.probe, self.probe + DX, 13)
        top = Z(np.clip(at(near), -3.4, 3.4))
        bars = [
            f'<path d="M36 {top[0]:.1f}V{top[-1]:.1f}" stroke="{LATENT}" stroke-width="8"/>',
            f'<path d="M{X(near[0]):.1f} 360H{X(near[-1]):.1f}" stroke="{DATA}" stroke-width="8"/>',
        ]
        ends = np.array([0.0])
        hill = shape(np.r_[X(x), X(3.5), X(-3.5)], np.r_[P(density(x)), P(ends), P(ends)], True)
        part = shape(
            np.r_[X(near), X(near[-1]), X(near[0])], np.r_[P(density(near)), P(ends), P(ends)], True
        )
        left = shape(np.r_[36, hump(z), 36], np.r_[Z(z[:1]), Z(z), Z(z[-1:])], True)
        ticks = "".join(
            f'<text x="28" y="{Z(v) + 5:g}" text-anchor="end">{v}</text>'
            f'<text x="{X(v):g}" y="510" text-anchor="middle">{v}</text>'
            for v in range(-3, 4)
        ).replace(">-", ">−")
        dots = "".join(
            f'<circle cx="{X(k):g}" cy="{Z(v):.1f}" r="6" fill="{THIRD}"/>'
            for k, v in zip(KNOTS, self.knots, strict=True)
            if abs(v) <= 3.4
        )
        mid = (top[0] + top[-1]) / 2 + 5
        return (
            _svg(530)
            + f'<path d="{left}" fill="{LATENT}" fill-opacity="0.2" stroke="{LATENT}"/>'
            + f'<path d="{hill}" fill="{DATA}" fill-opacity="0.25" stroke="{DATA}"/>'
            + f'<path d="{part}" fill="{DATA}" fill-opacity="0.6"/>'
            + f'<path d="{carried}" fill="none" stroke="{GREY}"/>'
            + f'<path d="M36 40V360" stroke="{LATENT}"/>'
            + f'<path d="M130 360H620M130 490H620" stroke="{DATA}"/>'
            + f'<path d="{shape(X(x[seen]), Z(at(x[seen])))}" fill="none" stroke="{THIRD}" '
            + f'stroke-width="3"/>{dots}{"".join(bars)}'
            + f'<g font-size="14" fill="{INK}">{ticks}'
            + '<text x="36" y="26" font-size="15">latent z</text><text x="130" y="26" '
            + 'font-size="15">z = f(x)</text><text x="36" y="410" font-size="15">p(x) of data x'
            + f'</text><text x="46" y="{mid:.1f}" font-style="italic">dz</text>'
            + f'<text x="{X(near.mean()):.1f}" y="380" text-anchor="middle" font-style="italic">dx'
            + "</text></g></svg>"
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
        return (
            _svg(340)
            + _panel(20, "data x", grid, square, _dot(x, DATA), _rings(back, DATA))
            + _panel(
                340, "latent z = A x", [g @ a.T for g in grid], square @ a.T,
                _dot(a @ x, LATENT), _rings(circles, LATENT),
            )
            + "</svg>"
        )  # fmt: skip

    def _bend(self) -> str:
        shear, stretch = self.bend
        x = np.array(self.centre)
        corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * self.side / 2
        t = np.linspace(0, 1, 32, endpoint=False)[:, None]
        ways = zip(corners, np.roll(corners, -1, 0), strict=True)
        square = x + np.concatenate([a + t * (b - a) for a, b in ways])

        def bent(points):
            u = points[..., 0] + shear * np.sin(points[..., 1])
            return np.stack([u, points[..., 1] * np.exp(stretch * np.tanh(u))], -1)

        z = bent(x)
        grow = np.exp(stretch * np.tanh(z[0]))
        pull = x[1] * grow * stretch / np.cosh(z[0]) ** 2
        lean = shear * np.cos(x[1])
        jacobian = np.array([[1, lean], [pull, pull * lean + grow]])
        tangent = f'<path d="{_path(z + corners @ jacobian.T, True)}" fill="none" stroke="{THIRD}" '
        grid = _grid(49)
        return (
            _svg(340)
            + _panel(20, "data x", grid, square, _dot(x, DATA))
            + _panel(
                340, "latent z = f(x)", [bent(g) for g in grid], bent(square), _dot(z, LATENT),
                tangent + 'stroke-width="2.4" stroke-dasharray="6 4"/>',
            )
            + "</svg>"
        )  # fmt: skip


def _svg(height) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 640 {height}" '
        f'font-family="sans-serif"><rect width="640" height="{height}" fill="{PAPER}"/>'
    )


def _grid(points):
    """The lines of the grid on [-3, 3]², each of that many points."""
    t = np.linspace(-3, 3, points)
    return [np.stack(line, 1) for k in range(-3, 4) for line in ((0 * t + k, t), (t, 0 * t + k))]


def _pixels(points):
    return (140 + points * [280 / 6, -280 / 6]).round(1)


def _path(points, close=False) -> str:
    return "M" + "L".join(f"{x:g} {y:g}" for x, y in _pixels(points)) + ("Z" if close else "")


def _dot(point, color) -> str:
    x, y = _pixels(point)
    return f'<circle cx="{x:g}" cy="{y:g}" r="6" fill="{color}"/>'


def _rings(curves, color) -> str:
    return "".join(
        f'<path d="{_path(c, True)}" fill="none" stroke="{color}" stroke-width="1.6"/>'
        for c in curves
    )


def _panel(left, title, grid, body, *more) -> str:
    """One plane of the still picture, 280 pixels for 6 units, clipped to its frame."""
    lines = "".join(_path(g) for g in grid)
    return (
        f'<text x="{left}" y="26" font-size="15" fill="{INK}">{title}</text>'
        f'<svg x="{left}" y="40" width="280" height="280" viewBox="0 0 280 280">'
        f'<path d="{lines}" fill="none" stroke="{DATA}" stroke-width="0.8" opacity="0.4"/>'
        f'<path d="M0 140L280 140M140 0L140 280" stroke="{GREY}" fill="none"/>'
        f'<path d="{_path(body, True)}" fill="{DATA}" fill-opacity="0.35" '
        f'stroke="{DATA}" stroke-width="2"/>{"".join(reversed(more))}</svg>'
    )
