"""Chapter 5's explorer: when ``x = z - g(x)`` arrives, how fast, and what one may believe."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import traitlets
from torch import Tensor

from flowlib.iresnet import (
    ELU,
    Activation,
    Branch,
    FixedPoint,
    LipschitzLinear,
    ResidualBlock,
    Sine,
    Tanh,
    fixed_point,
)
from flowlib.plotting import DATA, GREY, INK, LATENT
from flowlib.widgets.base import Explorer
from flowlib.widgets.stills import circle, group, path, picture, point, polyline, said, text, title
from flowlib.widgets.traits import Number, Numbers, Whole

__all__ = ["FixedPointExplorer"]

KNOTS = np.arange(-3.0, 4.0)
CORNER = 0.25  # half the width of a rounded corner
STEEPEST = 1.3
POINTS = [-0.9, -0.7, -0.2, 0.3, 0.6, 0.4, 0.1]
TOL = 1e-3
MOST = 2000  # evaluations
MOST_WEIGHTS = 20_000
DIGITS = 6
ACTIVATIONS: dict[str, type[Activation]] = {"Sine": Sine, "Tanh": Tanh, "ELU": ELU}
Array = npt.NDArray[np.float64]


class FixedPointExplorer(Explorer):
    """How ``z = x + g(x)`` is undone by iterating ``x = F(x) = z - g(x)`` from ``x = z``.

    ``"curve"``: ``g`` is a curve of one number, through seven points that the reader moves and with
    round corners. Its picture is the graph of ``F`` with the path of the iterates, and beside it
    their error after each evaluation of ``g``, plain and accelerated, with the bound ``c**t``. All
    ``x`` that have this ``z`` are found exactly. ``"block"``: the same for a trained block of the
    plane, with the circle round ``F(x)`` that contains the solution.

    Both stop by the rule of :func:`flowlib.fixed_point`, at an error of at most 0.001. The page
    itself computes the block's network, with weights of 6 significant digits.

    Args:
        block: a :class:`flowlib.ResidualBlock` on the plane whose branch is a
            :class:`flowlib.Branch` with activations :class:`flowlib.Sine`, :class:`flowlib.Tanh` or
            :class:`flowlib.ELU` and at most 20 000 weights. It is copied. Without one there is only
            the curve, unless ``view`` is ``"block"``: then it shows a small one of its own.
        **traits: the attributes below.

    Attributes:
        view: ``"curve"`` or ``"block"``.
        points: curve: ``g(-3), g(-2), ..., g(3)``, each from -8 to 8, with slopes between them of
            at most 1.3. Beyond the ends the slopes go on.
        z: curve: the latent number, from -3 to 3.
        turn: curve: which task is asked, 0 or 1.
        guess: curve: what the reader expects to break where, ``"rises"``, ``"falls"``, ``"both"``
            or ``""``.
        latent: block: the latent point, its coordinates from -2.5 to 2.5.
        step: block: the evaluation that is shown, from 1.
        accelerated: block: whether the path is the accelerated one.

    Raises:
        TypeError: if ``block`` is not a :class:`flowlib.ResidualBlock`, or there is no such option.
        ValueError: if the block is not on the plane, its branch is of another kind or too large, or
            its inverse takes more than 2000 evaluations.
        traitlets.TraitError: if an attribute is given a value that it cannot hold, or the view
            becomes ``"block"`` of an explorer that has only the curve.

    Example:
        >>> FixedPointExplorer(z=1)
        FixedPointExplorer(z=1.0, largest slope 0.5)
        >>> FixedPointExplorer(ResidualBlock(Branch(2, 8)), view="block", latent=[1, 2])
        FixedPointExplorer(view='block', latent=[1.0, 2.0], lipschitz=0.97)

    Source: Banach (1922); Anderson (1965); Behrmann et al. (2019), theorem 1 and algorithm 1.
    """

    script, shared = "fixedpoint.js", ("line.js",)
    view = traitlets.Enum(["curve", "block"], default_value="curve").tag(sync=True)
    points = Numbers(
        POINTS, shape=(7,), ranges={f"point {k + 1}": (-8.0, 8.0) for k in range(7)}
    ).tag(sync=True)
    z = Number(-0.5, low=-3, high=3).tag(sync=True)
    turn = Whole(0, low=0, high=1).tag(sync=True)
    guess = traitlets.Enum(["", "rises", "falls", "both"], default_value="").tag(sync=True)
    latent = Numbers(
        [1.6, 1.2], shape=(2,), ranges={f"z{k + 1}": (-2.5, 2.5) for k in range(2)}
    ).tag(sync=True)
    step = Whole(10, low=1, high=MOST).tag(sync=True)
    accelerated = traitlets.Bool(False).tag(sync=True)
    # What the page computes with: of each layer the weight within its bound and the bias, of each
    # activation its name and scale, and the bound. Empty without a block.
    network: traitlets.Dict[str, Any] = traitlets.Dict().tag(sync=True, computed=True)
    # The block's task: from how many evaluations on a way is long, the longest way and its start.
    longest: traitlets.Dict[str, Any] = traitlets.Dict().tag(sync=True, computed=True)

    def __init__(self, block: ResidualBlock | None = None, **traits: Any) -> None:
        if block is None and traits.get("view") == "block":
            block = _example()
        if block is not None:
            self.network = _network(block)
            self.longest = _longest(_branch(self.network), self.network["lipschitz"])
        super().__init__(**traits)

    @traitlets.validate("view")
    def _check_view(self, proposal: dict[str, Any]) -> str:
        view: str = proposal["value"]
        if view == "block" and not self.network:
            raise traitlets.TraitError('view: expected a block for the view "block", got None')
        return view

    @traitlets.validate("points")
    def _check_points(self, proposal: dict[str, Any]) -> list[float]:
        points: list[float] = proposal["value"]
        if abs(np.diff(points)).max() > STEEPEST + 1e-9:
            raise traitlets.TraitError(
                f"points: expected slopes of at most {STEEPEST} from one to the next, got {points}"
            )
        return points

    def __repr__(self) -> str:
        if self.view == "block":
            bound = self.network["lipschitz"]
            return f"FixedPointExplorer(view='block', latent={self.latent}, lipschitz={bound:g})"
        return f"FixedPointExplorer(z={self.z}, largest slope {self.slope:g})"

    # --- the algorithm, by flowlib ---

    @property
    def slope(self) -> float:
        """The Lipschitz constant: the curve's largest slope, to nine decimals, or the bound.

        Example:
            >>> FixedPointExplorer(points=[0, 0.5, 0, 0, 0, 0, 0]).slope
            0.5
        """
        if self.view == "block":
            return float(self.network["lipschitz"])
        return round(float(abs(np.diff(self.points)).max()), 9)

    def branch(self) -> Callable[[Tensor], Tensor]:
        """The function ``g`` of the present view, ``(rows, D)`` to ``(rows, D)`` in float64.

        ``D`` is 1 for the curve and 2 for the block.

        Example:
            >>> g = FixedPointExplorer(points=[3, 2, 1, 0, -1, -2, -3]).branch()
            >>> g(torch.tensor([[1.5], [4.0]], dtype=torch.float64)).tolist()
            [[-1.5], [-4.0]]
        """
        if self.view == "block":
            return _branch(self.network)
        points = np.array(self.points)
        return lambda x: torch.from_numpy(_curve(points, x.numpy())[0])

    def solve(self, accelerated: bool = True) -> FixedPoint:
        """What :func:`flowlib.fixed_point` finds in float64 from ``x = z``, within 0.001.

        Args:
            accelerated: whether it uses the last steps.

        Raises:
            ValueError: if the slope is 1 or more.
            RuntimeError: if 2000 evaluations are not enough.

        Example:
            >>> found = FixedPointExplorer(points=[0] * 7, z=1.5).solve()
            >>> found.x.item(), found.evaluations.item()
            (1.5, 1)
        """
        start = self.latent if self.view == "block" else [self.z]
        z, g = torch.tensor([start], dtype=torch.float64), self.branch()
        bound = max(self.slope, 1e-9)  # a curve may be flat
        return fixed_point(lambda x, rows: z[rows] - g(x), z, bound, TOL, MOST, accelerated)

    def solutions(self) -> list[float]:
        """Every ``x`` with ``x + g(x) = z`` for the curve, rising; exact, piece by piece.

        Where a whole stretch of them lies on a straight piece, its ends in the picture.

        Example:
            >>> fold = [1.25, 1.25, 1.25, 0, -1.25, -1.25, -1.25]
            >>> FixedPointExplorer(points=fold, z=0).solutions()
            [-1.25, 0.0, 1.25]
        """
        return _solutions(np.array(self.points), self.z)

    # --- words and the picture ---

    @property
    def caption(self) -> str:
        """One sentence that says what the present view's still picture shows."""
        if self.view == "block":
            return (
                "Left, the plane: iterates walk in steps from a latent point z to the data point x "
                "that has it. Right, their error on a logarithmic axis, under the dashed bound."
            )
        return (
            "Left, the falling and rising graph of F(x) = z - g(x), the diagonal, and the path of "
            "the iterates to the point where both meet. Right, their error on a logarithmic axis."
        )

    def _count(self, accelerated: bool) -> str:
        try:
            return str(int(self.solve(accelerated).evaluations))
        except RuntimeError:
            return f"more than {MOST}"

    @property
    def reading(self) -> str:
        """The slope, what both iterations need, the answer, and the task."""
        bound = f"The largest slope of g is at most {said(self.slope, 2)}. "
        if self.view == "curve":
            bound = f"The largest slope of g is {said(self.slope, 2)}. "
        if self.slope < 1:
            needs = (
                f"Plain, the iteration needs {self._count(False)} evaluations, accelerated "
                f"{self._count(True)}. "
            )
        else:
            needs = "There is no bound at a slope of 1 or more. "
        if self.view == "block":
            found = point(self.solve().x[0].tolist(), 3)
            return (
                f"{bound}{needs}The answer for z = {point(self.latent)} is x = {found}. Task: find "
                f"a z from which the plain iteration needs at least {self.longest['enough']} "
                "evaluations."
            )
        found = " and ".join(said(x) for x in self.solutions())
        return (
            f"{bound}{needs}For z = {said(self.z, 2)}, x = {found}. Task: "
            + (
                "bend the curve so that the plain iteration needs more than 60 evaluations and "
                "still arrives.",
                "make the iteration never arrive, with a largest slope of at most 1.05.",
            )[self.turn]
        )

    def _plain(self, steps: int) -> Array:
        """The first iterates, ``(steps + 1, D)``, as far as they stay near."""
        z = torch.tensor([self.latent if self.view == "block" else [self.z]], dtype=torch.float64)
        g, walk = self.branch(), [z]
        while len(walk) <= steps and walk[-1].abs().max() < 1e3:
            walk.append(z - g(walk[-1]))
        return torch.cat(walk).numpy()

    def still(self) -> str:
        """The present view as it is before anything is moved."""
        walk = self._plain(MOST if self.view == "block" else 60)
        home = walk[-1] if self.view == "block" else np.array([min(
            self.solutions(), key=lambda x: abs(x - walk[-1, 0]), default=walk[-1, 0]
        )])  # fmt: skip
        errors = np.linalg.norm(walk[:61] - home, axis=1)
        left = self._plane(walk, home) if self.view == "block" else self._cobweb(walk[:, 0])

        def spot(t: int, error: float) -> tuple[float, float]:
            return 380 + 4 * t, 40 + 30 * (1.5 - math.log10(max(error, 1e-8)))

        seen = [t for t in range(len(errors)) if errors[t] > 10**-7.5]
        bound = [spot(t, errors[0] * self.slope**t) for t in range(61) if errors[0] > 0]
        dashed = path(polyline(p for p in bound if p[1] < 310), fill="none", stroke=GREY,
                      stroke_dasharray="6 4") if self.slope < 1 and bound else ""  # fmt: skip
        level = spot(0, TOL)[1]
        return picture(
            340,
            left,
            title(380, 26, "error after t evaluations"),
            path("M380 40V310H620", fill="none", stroke=GREY),
            path(f"M380 {level:g}H620", stroke=GREY, stroke_dasharray="2 3"),
            dashed,
            path(polyline(spot(t, errors[t]) for t in seen) if seen else "", fill="none",
                 stroke=DATA, stroke_width=2.4),
            group(
                *(text(374, spot(0, 10.0**k)[1] + 5, f"1e{k}" if k else "1", text_anchor="end")
                  for k in (0, -3, -6)),
                *(text(380 + 4 * t, 328, t, text_anchor="middle") for t in (0, 30, 60)),
                font_size=14, fill=INK,
            ),
        )  # fmt: skip

    def _cobweb(self, walk: Array) -> str:
        x = np.linspace(-3.5, 3.5, 281)
        y = self.z - _curve(np.array(self.points), x)[0]
        web = [(walk[0], walk[0])]
        for here, there in itertools.pairwise(walk):
            web += [(here, there), (there, there)]
        return group(
            title(45, 26, "F(x) = z − g(x)"),
            path("M45 40V320H325", fill="none", stroke=GREY),
            path("M45 320L325 40", stroke=GREY),
            path(_within(np.stack([x, y], 1)), fill="none", stroke=INK, stroke_width=2.6),
            path(_within(np.array(web)), fill="none", stroke=DATA, stroke_width=1.6),
            *(_dot([k, self.z - p], 5, INK)
              for k, p in zip(KNOTS, self.points, strict=True) if abs(self.z - p) <= 3.5),
            *(_dot([s, s], 6, DATA) for s in self.solutions() if abs(s) <= 3.5),
            _dot([-3.5, self.z], 7, LATENT),
            group(
                *(text(_pixels([v, 0])[0], 337, v, text_anchor="middle") for v in range(-3, 4)),
                *(text(34, _pixels([0, v])[1] + 5, v, text_anchor="end") for v in range(-3, 4)),
                font_size=14, fill=INK,
            ),
        )  # fmt: skip

    def _plane(self, walk: Array, home: Array) -> str:
        found = self.solve(False)
        needed = int(found.evaluations)
        step = min(self.step, needed)
        far = self.slope / (1 - self.slope)
        radius = far * float(np.linalg.norm(walk[step] - walk[step - 1]))
        turns = np.linspace(0, 2 * math.pi, 721)
        rim = walk[step] + radius * np.stack([np.cos(turns), np.sin(turns)], 1)
        return group(
            title(45, 26, "from z to x"),
            path("M45 40H325V320H45Z", fill="none", stroke=GREY),
            path(_within(rim), fill="none", stroke=GREY, stroke_width=2),
            path(_within(walk[: needed + 1]), fill="none", stroke=DATA, stroke_width=1.6),
            *(_dot(p, 3, DATA) for p in walk[: min(needed, 30)]),
            _dot(walk[step], 5, INK),
            _dot(home, 7, DATA),
            _dot(self.latent, 7, LATENT),
        )  # fmt: skip


HALF = 3.5  # of the still pictures' squares


def _pixels(p: Any) -> tuple[float, float]:
    """Where a point is in the still picture's square; the nearest place in it."""
    x, y = np.clip(p, -HALF, HALF)
    return 45 + 40 * (float(x) + HALF), 40 + 40 * (HALF - float(y))


def _dot(p: Any, radius: float, color: str) -> str:
    return circle(*_pixels(p), radius, fill=color)


def _within(points: Array) -> str:
    """The path through points ``(n, 2)``, as far as it stays in the square."""
    inside = np.all(abs(points) <= HALF, axis=1)
    parts = np.split(np.arange(len(points)), np.flatnonzero(np.diff(inside)) + 1)
    kept = [part for part in parts if inside[part[0]] and len(part) > 1]
    return "".join(polyline(map(_pixels, points[part])) for part in kept)


# --- the curve --------------------------------------------------------------------------------


def _curve(points: Array, x: Array) -> tuple[Array, Array]:
    """``g`` and its slope: straight pieces whose corners are averaged over ``x ± CORNER``."""
    slopes = np.diff(points)
    value = points[0] + slopes[0] * (x - KNOTS[0])
    slope = slopes[0] + 0 * x
    for knot, turn in zip(KNOTS[1:-1], np.diff(slopes), strict=True):
        u = np.clip(x - knot, -CORNER, CORNER)
        value = value + turn * ((u + CORNER) ** 2 / (4 * CORNER) + np.maximum(x - knot - CORNER, 0))
        slope = slope + turn * (u + CORNER) / (2 * CORNER)
    return value, slope


def _solutions(points: Array, z: float) -> list[float]:
    """Every ``x`` with ``x + g(x) = z``, rising; of a whole piece of them its ends.

    Between the corners the equation is linear, and in a corner it is quadratic.
    """
    slopes = 1 + np.diff(points)
    last, near = len(slopes) - 1, 1e-9
    found: list[float] = []

    def solve(low: float, high: float, start: float, a: float, b: float) -> None:
        """Add the roots of ``a u² + b u + c``, where ``u`` is counted from the start."""
        c = start + float(_curve(points, np.array(start))[0]) - z
        roots = np.roots([a, b, c] if abs(a) > near else [b, c] if abs(b) > near else [])
        at = start + np.real(roots[abs(np.imag(roots)) == 0])
        found.extend(at[(low - near <= at) & (at <= high + near)].tolist())
        if max(abs(a), abs(b), abs(c)) <= near:
            found.extend([max(low, -HALF), min(high, HALF)])

    for k, b in enumerate(slopes):
        low = KNOTS[k] + CORNER if k else -math.inf
        high = KNOTS[k + 1] - CORNER if k < last else math.inf
        solve(low, high, high if k < last else low, 0.0, b)
        if k < last:
            turn = (slopes[k + 1] - b) / (4 * CORNER)
            solve(high, high + 2 * CORNER, high, turn, b)
    found.sort()
    return [x for i, x in enumerate(found) if not i or x - found[i - 1] > 1e-7]


# --- the block --------------------------------------------------------------------------------


def _example() -> ResidualBlock:
    """A block that turns and is steep in the middle: its iterates walk home in a spiral."""
    block = ResidualBlock(Branch(2, 16, lipschitz=0.9, scale=0.8))
    first, last = block.branch.layers
    angles = torch.arange(16) * math.pi / 16
    ways = torch.stack([angles.cos(), angles.sin()], 1) / math.sqrt(8)  # its columns have length 1
    turn = torch.tensor([[math.cos(1.3), -math.sin(1.3)], [math.sin(1.3), math.cos(1.3)]])
    with torch.no_grad():
        first.weight.copy_(ways)
        last.weight.copy_(turn @ ways.T)
        first.bias.copy_(0.5 * torch.randn(16, generator=torch.Generator().manual_seed(3)))
        last.bias.copy_(torch.tensor([0.4, -0.3]))
    return block


def _network(block: object) -> dict[str, Any]:
    """What the page needs of the block, rounded."""
    if not isinstance(block, ResidualBlock):
        raise TypeError(
            f"FixedPointExplorer: expected a ResidualBlock, got a {type(block).__name__}"
        )
    event = tuple(block.event_shape or ())
    if event != (2,):
        raise ValueError(f"FixedPointExplorer: expected a block on 2 coordinates, got {event}")
    branch = copy.deepcopy(block.branch).to("cpu", torch.float64).eval()
    fits = isinstance(branch, Branch) and all(
        type(a) in ACTIVATIONS.values() for a in branch.activations
    )
    if not fits or not all(isinstance(layer, LipschitzLinear) for layer in branch.layers):
        raise ValueError(
            "FixedPointExplorer: expected as branch a Branch with activations Sine, Tanh or ELU, "
            f"got {block.branch}"
        )
    count = sum(layer.weight.numel() for layer in branch.layers)
    if count > MOST_WEIGHTS:
        raise ValueError(
            f"FixedPointExplorer: expected at most {MOST_WEIGHTS} weights, got {count}"
        )
    with torch.no_grad():
        layers = [[_short(layer.capped()), _short(layer.bias)] for layer in branch.layers]
    return {
        "layers": layers,
        "activations": [[type(a).__name__, a.scale] for a in branch.activations],
        "lipschitz": branch.lipschitz,
    }


def _short(values: Tensor) -> Any:
    if values.dim():
        return [_short(row) for row in values]
    return float(f"{float(values):.{DIGITS}g}") + 0.0


def _branch(network: dict[str, Any]) -> Callable[[Tensor], Tensor]:
    """The function ``g`` that the page computes, ``(rows, 2)`` to ``(rows, 2)``."""
    layers = [
        [torch.tensor(part, dtype=torch.float64) for part in pair] for pair in network["layers"]
    ]
    bends = [ACTIVATIONS[name](scale) for name, scale in network["activations"]]

    def g(x: Tensor) -> Tensor:
        for k, (weight, bias) in enumerate(layers):
            x = (bends[k - 1](x) if k else x) @ weight.mT + bias
        return x

    return g


def _longest(g: Callable[[Tensor], Tensor], bound: float) -> dict[str, Any]:
    """On a grid of the plane: how many evaluations are many, the most of them, and from where."""
    z = torch.cartesian_prod(
        torch.linspace(-2.2, 2.2, 23, dtype=torch.float64),
        torch.linspace(-1.6, 1.6, 17, dtype=torch.float64),
    )
    try:
        found = fixed_point(lambda x, rows: z[rows] - g(x), z, bound, TOL, MOST, False)
    except RuntimeError as error:
        raise ValueError(
            f"FixedPointExplorer: expected a block whose inverse takes at most {MOST} evaluations"
        ) from error
    counts = found.evaluations
    least, most = int(counts.min()), int(counts.max())
    start = z[int(counts.argmax())].round(decimals=2).tolist()
    return {"enough": least + round(0.85 * (most - least)), "most": most, "from": start}
