"""Chapter 1's explorer: where the determinant comes from."""

from __future__ import annotations

import math

import numpy as np
import traitlets

from flowlib.plotting import DATA, GREY, INK, LATENT, PAPER, THIRD
from flowlib.widgets.base import Explorer

__all__ = ["WarpExplorer"]

KNOTS = np.arange(-3.0, 4.0)  # where the knots of the 1-D map stand
GAP = 0.05  # the least difference in height between two of them
SQUARE = np.array([[0, 0], [1, 0], [1, 1], [0, 1]])
SIDES = (0.02, 1.5)


class WarpExplorer(Explorer):
    """A map that one bends with the hand, and what it does to space and to the density.

    Three views of the change of variables. ``"line"``: a monotone map of the line, taken by its
    knots, the interval that it stretches, and the density that follows. ``"matrix"``: a linear map
    ``z = A x``, taken by its columns; area, determinant, log-determinant and the density of one
    point move together. ``"bend"``: a nonlinear map of the plane and a square that shrinks until
    its image is the parallelogram of the Jacobian.

    Attributes:
        view: ``"line"``, ``"matrix"`` or ``"bend"``.
        matrix: the entries of ``A``, two rows of two.
        point: the point ``x`` of the plane whose density is shown.
        knots: the heights ``z`` of the 1-D map at ``x = -3, -2, ..., 3``, all rising or all
            falling, at least 0.05 apart. Between them it is the monotone cubic whose slope at a
            knot is the harmonic mean of the slopes on either side; beyond them it goes straight on.
        probe: the point ``x`` of the line whose density is shown, from -3 to 3.
        bend: ``shear`` and ``stretch``, each from -1 to 1, of the map
            ``u = x1 + shear sin(x2)``, ``v = x2 exp(stretch tanh(u))``.
        corner: the middle of the square.
        side: the side of the square, from 0.02 to 1.5.

    Raises:
        traitlets.TraitError: if one of them is given what is not as above.

    Example:
        >>> WarpExplorer(matrix=[[1, 0.5], [0, 2]])
        WarpExplorer(matrix=[[1.0, 0.5], [0.0, 2.0]])
        >>> WarpExplorer(view="bend", side=0.1)
        WarpExplorer(view='bend', bend=[0.6, 0.5], corner=[0.8, 0.9], side=0.1)
    """

    script = "warp.js"
    view = traitlets.Enum(("line", "matrix", "bend"), default_value="matrix").tag(sync=True)
    matrix = traitlets.List(default_value=[[1.25, 0.5], [-0.25, 1.0]]).tag(sync=True)
    point = traitlets.List(default_value=[1.0, 1.0]).tag(sync=True)
    knots = traitlets.List(default_value=[-2.8, -2.3, -1.7, -0.45, 1.4, 2.3, 2.8]).tag(sync=True)
    probe = traitlets.Float(0.5, min=-3, max=3).tag(sync=True)
    bend = traitlets.List(default_value=[0.6, 0.5]).tag(sync=True)
    corner = traitlets.List(default_value=[0.8, 0.9]).tag(sync=True)
    side = traitlets.Float(1.0, min=SIDES[0], max=SIDES[1]).tag(sync=True)

    @property
    def caption(self) -> str:
        """What the still picture of the present view shows."""
        return {
            "line": (
                "A rising map from data x to latent z with seven knots. A normal density leans on "
                "the z axis; below the map stands the density of x, high where the map is steep."
            ),
            "matrix": (
                "Left, data space with a unit square and two ellipses of equal density. Right, "
                "latent space with the square's image, a parallelogram, and two circles of the "
                "standard normal."
            ),
            "bend": (
                "Left, a square on the grid of data space. Right, the bent grid of latent space "
                "with the square's curved image and, dashed, the parallelogram of the Jacobian."
            ),
        }[self.view]

    @traitlets.validate("matrix", "point", "knots", "bend", "corner")
    def _check(self, proposal):
        name = proposal.trait.name
        shape = {"matrix": (2, 2), "knots": (7,)}.get(name, (2,))
        try:
            value = np.asarray(proposal.value, dtype=float)
        except (TypeError, ValueError) as error:
            raise traitlets.TraitError(f"{name}: {error}") from error
        if value.shape != shape or not np.isfinite(value).all():
            raise traitlets.TraitError(
                f"{name}: expected finite numbers of shape {shape}, got {proposal.value}"
            )
        if name == "knots":
            steps = np.diff(value)
            if not (np.sign(steps) == np.sign(steps[0])).all() or abs(steps).min() < GAP - 1e-9:
                raise traitlets.TraitError(
                    f"knots: expected heights that all rise or all fall, by {GAP} or more, "
                    f"got {proposal.value}"
                )
        if name == "bend" and abs(value).max() > 1:
            raise traitlets.TraitError(
                f"bend: expected shear and stretch from -1 to 1, got {proposal.value}"
            )
        return value.tolist()

    @traitlets.validate("probe", "side")
    def _check_number(self, proposal):
        if not math.isfinite(proposal.value):
            raise traitlets.TraitError(
                f"{proposal.trait.name}: expected a finite number, got {proposal.value}"
            )
        return proposal.value

    def __repr__(self) -> str:
        if self.view == "matrix":
            return f"WarpExplorer(matrix={self.matrix})"
        names = {"line": ("knots", "probe"), "bend": ("bend", "corner", "side")}[self.view]
        state = ", ".join(f"{name}={getattr(self, name)}" for name in names)
        return f"WarpExplorer(view={self.view!r}, {state})"

    def still(self) -> str:
        """The present view as it is before anything is moved."""
        body = {"line": self._line, "matrix": self._matrix, "bend": self._bend}[self.view]()
        return (
            '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 640 340" '
            'font-family="sans-serif">'
            f'<rect width="640" height="340" fill="{PAPER}"/>{body}</svg>'
        )

    def _line(self) -> str:
        x = np.linspace(-3.4, 3.4, 200)
        z, slope = monotone(np.array(self.knots), x)
        p = np.exp(-0.5 * z**2) / math.sqrt(2 * math.pi) * abs(slope)
        seen = abs(z) <= 3.3

        def at(x, z):
            return np.stack([330 + 80 * np.asarray(x), 105 - 28 * np.asarray(z)], -1)

        def low(x, p):
            return np.stack([330 + 80 * np.asarray(x), 310 - 75 * np.asarray(p)], -1)

        heights = np.linspace(-3.3, 3.3, 60)
        wall = at(-3.4 - 1.4 * np.exp(-0.5 * heights**2) / math.sqrt(2 * math.pi), heights)
        knots = "".join(
            f'<circle cx="{cx:g}" cy="{cy:g}" r="5" fill="{THIRD}"/>'
            for cx, cy in at(KNOTS, self.knots)
        )
        wall = np.concatenate([wall, at([-3.4, -3.4], [3.3, -3.3])])
        hill = np.concatenate([low(x, p / max(1.0, p.max())), low([3.4, -3.4], [0, 0])])
        return (
            _filled(wall, LATENT) + _drawn(at([-3.4, -3.4, 3.4], [3.3, -3.3, -3.3]), GREY, 1)
            + _drawn(at(x, z)[seen], THIRD, 3) + knots + _filled(hill, DATA)
            + f'<text x="300" y="24" font-size="15" fill="{INK}">z = f(x)</text>'
            f'<text x="500" y="250" font-size="15" fill="{INK}">p(x)</text>'
        )  # fmt: skip

    def _matrix(self) -> str:
        a = np.array(self.matrix)
        grid = _grid(2)
        circles = [r * _circle() for r in (1, 2)]
        singular = abs(np.linalg.det(a)) < 1e-6
        back = [] if singular else [c @ np.linalg.inv(a).T for c in circles]
        x = np.array(self.point)

        def panel(left, title, lines, square, rings, color, dot):
            at = _plane(left)
            dot_x, dot_y = at(dot)
            return _panel(left, title, "".join(
                [_drawn(at(line), DATA, 0.8, 0.4) for line in lines]
                + [_drawn(at(ring), color, 1.6) for ring in rings]
                + [_filled(at(square), DATA)]
                + [f'<circle cx="{dot_x:g}" cy="{dot_y:g}" r="6" fill="{color}"/>']
            ))  # fmt: skip

        return panel(20, "data x", grid, SQUARE, back, DATA, x) + panel(
            340,
            "latent z = A x",
            [line @ a.T for line in grid],
            SQUARE @ a.T,
            circles,
            LATENT,
            a @ x,
        )

    def _bend(self) -> str:
        shear, stretch = self.bend

        def f(x):
            u = x[:, 0] + shear * np.sin(x[:, 1])
            return np.stack([u, x[:, 1] * np.exp(stretch * np.tanh(u))], 1)

        centre = np.array(self.corner)
        t = np.linspace(0, 1, 33)[:-1, None]
        edge = np.concatenate([SQUARE[i] + t * (SQUARE[(i + 1) % 4] - SQUARE[i]) for i in range(4)])
        edge, corners = (centre + self.side * (part - 0.5) for part in (edge, SQUARE))
        step = 1e-6 * np.eye(2)
        jacobian = ((f(centre + step) - f(centre - step)) / 2e-6).T
        guess = f(centre[None]) + (corners - centre) @ jacobian.T
        at = _plane(20)
        data = "".join(_drawn(at(line), DATA, 0.8, 0.4) for line in _grid(2))
        left = _panel(20, "data x", data + _filled(at(edge), DATA))
        at = _plane(340)
        bent = "".join(_drawn(at(f(line)), LATENT, 0.8, 0.5) for line in _grid(41))
        dashed = _drawn(at(np.concatenate([guess, guess[:1]])), THIRD, 2.5, dash="7 5")
        return left + _panel(340, "latent z = f(x)", bent + _filled(at(f(edge)), LATENT) + dashed)


def monotone(knots: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The 1-D map through the knots, and its slope, at ``x``: Fritsch and Carlson's cubic.

    The slope at an inner knot is the harmonic mean of the slopes on either side, at an outer one
    that of its only neighbour.
    """
    rise = np.diff(knots)
    inner = 2 * rise[:-1] * rise[1:] / (rise[:-1] + rise[1:])
    slopes = np.concatenate([rise[:1], inner, rise[-1:]])
    k = np.clip(np.floor(x - KNOTS[0]).astype(int), 0, len(rise) - 1)
    t = x - KNOTS[k]
    a = 3 * rise[k] - 2 * slopes[k] - slopes[k + 1]
    b = slopes[k] + slopes[k + 1] - 2 * rise[k]
    z, slope = knots[k] + t * (slopes[k] + t * (a + t * b)), slopes[k] + t * (2 * a + 3 * t * b)
    for outside, end in ((x < KNOTS[0], 0), (x > KNOTS[-1], -1)):
        z = np.where(outside, knots[end] + slopes[end] * (x - KNOTS[end]), z)
        slope = np.where(outside, slopes[end], slope)
    return z, slope


# --- pieces of a still picture ------------------------------------------------------------


def _grid(samples: int) -> list[np.ndarray]:
    t = np.linspace(-3, 3, samples)
    lines = [np.stack([np.full_like(t, k), t], 1) for k in range(-3, 4)]
    return lines + [line[:, ::-1] for line in lines]


def _circle() -> np.ndarray:
    turn = np.linspace(0, 2 * math.pi, 61)
    return np.stack([np.cos(turn), np.sin(turn)], 1)


def _plane(left: float):
    """Points of the plane to the pixels of a panel: 280 for 6 units, y upwards."""
    return lambda points: np.array([left + 140, 180]) + np.asarray(points) * [280 / 6, -280 / 6]


def _path(pixels: np.ndarray) -> str:
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in pixels)


def _drawn(pixels, color: str, width: float, opacity: float = 1, dash: str = "none") -> str:
    return (
        f'<path d="{_path(pixels)}" fill="none" stroke="{color}" stroke-width="{width}" '
        f'opacity="{opacity}" stroke-dasharray="{dash}"/>'
    )


def _filled(pixels, color: str) -> str:
    return (
        f'<path d="{_path(pixels)}Z" fill="{color}" fill-opacity="0.35" stroke="{color}" '
        'stroke-width="2"/>'
    )


def _panel(left: float, title: str, body: str) -> str:
    """A panel with its axes, clipped to its frame."""
    clip = f"fl-panel-{left}"
    axes = _drawn([[left, 180], [left + 280, 180]], GREY, 1)
    axes += _drawn([[left + 140, 40], [left + 140, 320]], GREY, 1)
    return (
        f'<clipPath id="{clip}"><rect x="{left}" y="40" width="280" height="280"/></clipPath>'
        f'<text x="{left}" y="26" font-size="15" fill="{INK}">{title}</text>'
        f'<g clip-path="url(#{clip})">{axes}{body}</g>'
    )
