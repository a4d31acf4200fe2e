"""The explorer that opens chapter 2: data on their way through a flow, layer by layer."""

from __future__ import annotations

import math

import torch
import traitlets
from torch import Tensor

from flowlib.coupling import RealNVP
from flowlib.flow import Bijection, Flow, StandardNormal
from flowlib.plotting import DATA, GREY, INK, LATENT, PAPER
from flowlib.widgets.base import Explorer
from flowlib.widgets.jacobian import _as_steps, _name

__all__ = ["LayersExplorer"]

PLACES = 3


class LayersExplorer(Explorer):
    """Points of the plane on their way through a flow, and what each layer is worth.

    Left the points, where they are after ``depth`` layers; between two layers they travel in a
    straight line. Right the negative log-likelihood that they would have if the flow ended there,
    with a standard normal base. One point is chosen, and its share written out.

    Positions and log-determinants are computed in float64 and sent with three decimals: 400 points
    and 8 layers make a page of 135 kB.

    Args:
        flow: a :class:`flowlib.Flow` without a context, or a :class:`flowlib.Bijection`, on the
            plane. The items of a :class:`flowlib.Compose` are the layers. It is copied.
        x: ``(points, 2)``, 2 to 600 points. Without flow and points there is a small RealNVP with
            random weights and draws from it.
        truth: the entropy of the data in nats, where it is known: the floor of the curve.
        **traits: the attributes below.

    Attributes:
        depth: how many layers the points have passed, from 0; any number up to all of them.
        point: which point is chosen, from 0; at first the one that ends nearest to the middle.

    Raises:
        TypeError: if the flow is none, or there are no points.
        ValueError: if the flow takes a context, has no layers or another base than
            :class:`StandardNormal`, or does not fit the points, or a
            point's way is not finite.
        traitlets.TraitError: if an attribute is given what it cannot take.

    Example:
        >>> flow = RealNVP(2, n_layers=4)
        >>> LayersExplorer(flow, torch.randn(50, 2), depth=1.5)
        LayersExplorer(50 points after 1.5 of 5 layers)

    Source:
        Papamakarios et al. (2021), *Normalizing Flows for Probabilistic Modeling and Inference*,
        section 2.1.
    """

    script = "layers.js"
    depth = traitlets.Float(0.0).tag(sync=True)
    point = traitlets.Int(0).tag(sync=True)
    # What the page draws: after each layer x₁, x₂, x₁, x₂, ..., and the log-dets up to there.
    places = traitlets.List().tag(sync=True)
    log_dets = traitlets.List().tag(sync=True)
    layers = traitlets.List().tag(sync=True)
    truth = traitlets.Float(None, allow_none=True).tag(sync=True)

    def __init__(
        self,
        flow: Flow | Bijection | None = None,
        x: Tensor | None = None,
        truth: float | None = None,
        **traits,
    ) -> None:
        if flow is None and x is None:
            flow, x = _example()
        x = _as_points(flow, x)
        steps = _as_steps(flow, "LayersExplorer")
        places, log_dets = _travel(steps, x)
        self.places = [_rounded(p) for p in places]
        self.log_dets = [_rounded(d) for d in log_dets]
        self.layers = [_name(step) for step in steps]
        self.truth = truth
        self.point = int(places[-1].square().sum(1).argmin())
        super().__init__(**traits)

    @property
    def caption(self) -> str:
        """One sentence that says what the still picture shows."""
        return (
            f"{len(self.log_dets[0])} points of the plane, three times: as data, after half of the "
            f"{len(self.layers)} layers of a flow, and after all of them."
        )

    @traitlets.validate("depth")
    def _within(self, proposal):
        if not 0 <= proposal.value <= len(self.layers):
            raise traitlets.TraitError(
                f"depth: expected a number from 0 to {len(self.layers)}, got {proposal.value}"
            )
        return proposal.value

    @traitlets.validate("point")
    def _index(self, proposal):
        count = len(self.log_dets[0])
        if not 0 <= proposal.value < count:
            raise traitlets.TraitError(
                f"point: expected an index from 0 to {count - 1}, got {proposal.value}"
            )
        return proposal.value

    @traitlets.validate("truth")
    def _finite(self, proposal):
        if proposal.value is not None and not math.isfinite(proposal.value):
            raise traitlets.TraitError(f"truth: expected a finite number, got {proposal.value}")
        return proposal.value

    def __repr__(self) -> str:
        return (
            f"LayersExplorer({len(self.log_dets[0])} points after {self.depth:g} of "
            f"{len(self.layers)} layers)"
        )

    def still(self) -> str:
        """The points as data, halfway and as latents."""
        count = len(self.layers)
        half = max(2.6, max(abs(v) for place in self.places for v in place))
        shown = [(0, "data", DATA), (count // 2, "halfway", INK), (count, "latent", LATENT)]
        parts = []
        for i, (step, title, color) in enumerate(shown):
            middle, flat = 110 + 210 * i, self.places[step]
            dots = "".join(
                f"M{middle + 95 * u / half:.1f} {135 - 95 * v / half:.1f}h0"
                for u, v in zip(flat[::2], flat[1::2], strict=True)
            )
            parts.append(
                f'<path d="M{middle - 100} 35h200v200h-200z" fill="none" stroke="{GREY}"/>'
                f'<path d="{dots}" stroke="{color}" stroke-width="3.4" stroke-linecap="round" '
                f'stroke-opacity="0.7"/>'
                f'<text x="{middle - 100}" y="24" font-size="15" fill="{INK}">{title}</text>'
            )
        return (
            '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 640 250" '
            f'font-family="sans-serif"><rect width="640" height="250" fill="{PAPER}"/>'
            f"{''.join(parts)}</svg>"
        )


def _example() -> tuple[RealNVP, Tensor]:
    """A small RealNVP as if it were trained, and draws from it; no other randomness is touched."""
    draw = torch.Generator().manual_seed(11)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.default_generator.manual_seed(11)
        flow = RealNVP(2, n_layers=6, hidden=(16,))
        for weights in flow.parameters():
            weights.add_(0.3 * torch.randn(weights.shape, generator=draw))
    return flow, flow.sample(300, generator=draw)


def _as_points(flow, x) -> Tensor:
    if not isinstance(flow, Flow | Bijection):
        raise TypeError(
            f"LayersExplorer: expected a Flow or a Bijection, got a {type(flow).__name__}"
        )
    if x is None:
        raise TypeError("LayersExplorer: expected points x (points, 2), got none")
    x = torch.as_tensor(x).detach().to("cpu", torch.float64)
    if x.dim() != 2 or x.shape[1] != 2 or not 2 <= len(x) <= 600:
        raise ValueError(
            "LayersExplorer: expected x (points, 2) with 2 to 600 points, "
            f"got shape {tuple(x.shape)}"
        )
    if not x.isfinite().all():
        raise ValueError("LayersExplorer: x has values that are not finite")
    if isinstance(flow, Flow) and tuple(flow.event_shape) != (2,):
        raise ValueError(
            f"LayersExplorer: expected a flow on the plane, got one on {tuple(flow.event_shape)}"
        )
    if isinstance(flow, Flow) and not isinstance(flow.base, StandardNormal):
        raise ValueError(
            "LayersExplorer: expected a flow with a StandardNormal base, "
            f"got a {type(flow.base).__name__}"
        )
    if getattr(flow, "context_dim", None):
        raise ValueError("LayersExplorer: expected a flow without a context")
    return x


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


def _rounded(values: Tensor) -> list[float]:
    return values.flatten().double().round(decimals=PLACES).tolist()
