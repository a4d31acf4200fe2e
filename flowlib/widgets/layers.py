"""The explorer that opens chapter 2: data on their way through a flow, layer by layer."""

from __future__ import annotations

import math
from typing import Any

import torch
import traitlets
from torch import Tensor

from flowlib.bases import StandardNormal
from flowlib.coupling import RealNVP
from flowlib.flow import Bijection, Flow
from flowlib.plotting import DATA, GREY, INK, LATENT
from flowlib.widgets.base import Explorer
from flowlib.widgets.inputs import as_points, as_steps, random_realnvp, step_name
from flowlib.widgets.stills import number, path, picture, point, said, square, title
from flowlib.widgets.traits import Index, Number

__all__ = ["LayersExplorer"]

PLACES = 3
LINES, ALONG = 9, 25  # of the grid, each way; points along a line


class LayersExplorer(Explorer):
    """Points of the plane on their way through a flow, and what each layer is worth.

    Left are the points after ``depth`` layers, coloured by where they lay among the data, and a
    grid that is carried along; between two layers they travel in a straight line. Right is the
    negative log-likelihood that they would have if the flow ended there, with a standard normal
    base. One point is chosen, and its part of the log-likelihood is written out.

    Positions and log-determinants are computed in float64 and sent with three decimals, the grid's
    with two: 400 points and 8 layers make a page of 190 kB.

    Args:
        flow: a :class:`flowlib.Flow` without a context, or a :class:`flowlib.Bijection`, on the
            plane. The items of a :class:`flowlib.Compose` are the layers. It is copied.
        x: ``(points, 2)``, 2 to 600 points. Without flow and points it shows a small RealNVP with
            random weights and draws from it.
        truth: the entropy of the data in nats, if it is known: the lower bound of the curve.
        **traits: the attributes below.

    Attributes:
        depth: how many layers the points have passed, from 0; any number up to all of them.
        point: which point is chosen, from 0; at first the one that ends nearest to the middle.

    Raises:
        TypeError: if ``flow`` is not a :class:`flowlib.Flow` or a :class:`flowlib.Bijection`, there
            are no points, or there is no such option.
        ValueError: if the flow takes a context, has no layers or another base than
            :class:`StandardNormal`, or does not fit the points, or a layer's output is not finite.
        traitlets.TraitError: if an attribute is given a value that it cannot hold.

    Example:
        >>> flow = RealNVP(2, n_layers=4)
        >>> LayersExplorer(flow, torch.randn(50, 2), depth=1.5)
        LayersExplorer(50 points after 1.5 of 5 layers)

    Source:
        Papamakarios et al. (2021), *Normalizing Flows for Probabilistic Modeling and Inference*,
        section 2.1.
    """

    script = "layers.js"
    depth = Number(0.0, low=0, high=lambda self: len(self.layers)).tag(sync=True)
    point = Index(lambda self: len(self.log_dets[0])).tag(sync=True)
    truth = Number(None, allow_none=True).tag(sync=True)
    # What the page draws: after each layer x₁, x₂, x₁, x₂, ..., of the points and of each line of
    # the grid, and the log-dets up to there.
    places: traitlets.List[Any] = traitlets.List().tag(sync=True, computed=True)
    grid: traitlets.List[Any] = traitlets.List().tag(sync=True, computed=True)
    log_dets: traitlets.List[Any] = traitlets.List().tag(sync=True, computed=True)
    layers: traitlets.List[str] = traitlets.List().tag(sync=True, computed=True)

    def __init__(
        self,
        flow: Flow | Bijection | None = None,
        x: Tensor | None = None,
        truth: float | None = None,
        **traits: Any,
    ) -> None:
        if flow is None and x is None:
            flow, x = _example()
        flow, x = as_points("LayersExplorer", flow, x, (2, 600), (2, 2))
        if isinstance(flow, Flow) and not isinstance(flow.base, StandardNormal):
            raise ValueError(
                "LayersExplorer: expected a flow with a StandardNormal base, "
                f"got a {type(flow.base).__name__}"
            )
        steps = as_steps("LayersExplorer", flow)
        places, log_dets = _travel(steps, x)
        self.places = [_rounded(p) for p in places]
        self.grid = [[_rounded(line, 2) for line in lines] for lines in _carried(steps, x)]
        self.log_dets = [_rounded(d) for d in log_dets]
        self.layers = [step_name(step) for step in steps]
        self.point = int(places[-1].square().sum(1).argmin())
        super().__init__(truth=truth, **traits)

    @property
    def caption(self) -> str:
        """One sentence that says what the still picture shows."""
        return (
            f"{len(self.log_dets[0])} points of the plane, three times: as data, after half of the "
            f"{len(self.layers)} layers of a flow, and after all of them."
        )

    def __repr__(self) -> str:
        return (
            f"LayersExplorer({len(self.log_dets[0])} points after {self.depth:g} of "
            f"{len(self.layers)} layers)"
        )

    @property
    def reading(self) -> str:
        """Where the chosen point goes, its log-likelihood, and the task."""
        k = self.point
        x, z = (self.places[layer][2 * k : 2 * k + 2] for layer in (0, -1))
        log_p_z = -0.5 * sum(v * v for v in z) - math.log(2 * math.pi)
        log_det = self.log_dets[-1][k]
        return (
            f"The point {point(x)} ends at z = {point(z)}. There log p_Z(z) = {said(log_p_z, 2)}; "
            f"the layers' log-determinants add {said(log_det, 2)}, and log p(x) = "
            f"{said(log_p_z + log_det, 2)}. Task: among the data, before the first layer, find a "
            "point that will end outside of the circle of 2."
        )

    def still(self) -> str:
        """The points as data, halfway and as latents."""
        count = len(self.layers)
        half = max(2.6, max(abs(v) for place in self.places for v in place))
        shown = [(0, "data", DATA), (count // 2, "halfway", INK), (count, "latent", LATENT)]
        parts = []
        for i, (step, words, color) in enumerate(shown):
            middle, flat = 110 + 210 * i, self.places[step]
            dots = "".join(
                f"M{number(middle + 95 * u / half)} {number(135 - 95 * v / half)}h0"
                for u, v in zip(flat[::2], flat[1::2], strict=True)
            )
            parts += [
                path(square(middle - 100, 35, 200), fill="none", stroke=GREY),
                path(
                    dots,
                    stroke=color,
                    stroke_width=3.4,
                    stroke_linecap="round",
                    stroke_opacity=0.7,
                ),
                title(middle - 100, 24, words),
            ]
        return picture(250, *parts)


def _example() -> tuple[RealNVP, Tensor]:
    """A small RealNVP as if it were trained, and draws from it."""
    flow, draw = random_realnvp(2, n_layers=6, spread=0.3, seed=11)
    return flow, flow.sample(300, generator=draw)


@torch.no_grad()
def _travel(steps: list[Bijection], x: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """Where the points are after 0, 1, ... steps, and the log-determinants up to there."""
    places, log_dets = [x], [x.new_zeros(len(x))]
    for k, step in enumerate(steps):
        z, log_det = step(places[-1])
        if z.shape != x.shape:
            raise ValueError(f"LayersExplorer: layer {k + 1} made shape {tuple(z.shape)}")
        places.append(z)
        log_dets.append(log_dets[-1] + log_det)
        if not (z.isfinite().all() and log_dets[-1].isfinite().all()):
            raise ValueError(f"LayersExplorer: layer {k + 1} is not finite at these points")
    return places, log_dets


def _carried(steps: list[Bijection], x: Tensor) -> list[Tensor]:
    """A grid over the data, after 0, 1, ... steps: ``(lines, points, 2)`` each."""
    low, high = x.aminmax(dim=0)
    edge = 0.08 * (high - low)
    ends = torch.stack([low - edge, high + edge])
    share = torch.linspace(0, 1, LINES).to(x), torch.linspace(0, 1, ALONG).to(x)
    fixed, free = (ends[0] + part[:, None] * (ends[1] - ends[0]) for part in share)
    upright = torch.stack(torch.broadcast_tensors(fixed[:, None, 0], free[None, :, 1]), -1)
    level = torch.stack(torch.broadcast_tensors(free[None, :, 0], fixed[:, None, 1]), -1)
    lines = torch.cat([upright, level])
    places, _ = _travel(steps, lines.flatten(0, 1))
    return [place.unflatten(0, lines.shape[:2]) for place in places]


def _rounded(values: Tensor, decimals: int = PLACES) -> list[float]:
    rounded: list[float] = values.flatten().double().round(decimals=decimals).tolist()
    return rounded
