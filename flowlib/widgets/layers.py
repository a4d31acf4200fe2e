"""The explorer of chapter 2: data becoming Gaussian, layer by layer."""

from __future__ import annotations

import base64
import math

import numpy as np
import torch
import traitlets
from torch import Tensor, nn

from flowlib.coupling import ActNorm, Affine, Coupling, half_mask
from flowlib.flow import Bijection, Compose, Flow, StandardNormal
from flowlib.plotting import DATA, GREY, INK, LATENT, PAPER
from flowlib.widgets.base import Explorer
from flowlib.widgets.jacobian import _as_steps, _name

__all__ = ["LayersExplorer"]

SCALE = 1000  # numbers are sent as whole thousandths


class LayersExplorer(Explorer):
    """Points in the plane on their way through a flow, from data to noise.

    Beside the points, which can be stopped at any depth, stands what the flow would pay if it
    ended there, in nats per point: the mean of ``-(log N(z; 0, I) + log|det|)`` of the steps so
    far. One point can be chosen; then its way through all layers and its own sum are shown.
    Between two steps the points are drawn on a straight line, because a flow has no half steps.

    Python computes the places and log-determinants in float64 and sends them in thousandths: 8 or
    9 bytes for each point and step, in a page of 60 to 70 kB; 400 points of 8 steps make 105 kB.

    Args:
        flow: a :class:`flowlib.Flow` with a :class:`flowlib.StandardNormal` base, or a
            :class:`flowlib.Bijection`, on 2 coordinates and without a context. The items of a
            :class:`flowlib.Compose` are the steps; any other bijection is the only one. It is
            copied, and the copy is taken to float64, to the CPU and to eval mode.
        x: ``(points, 2)``, 2 to 600 points. Without flow and points there is a small flow with
            fixed weights.
        truth: the entropy of the data in nats, below which no flow can be. The mean of the true
            ``-log p`` over the very points ``x`` is best: another sample has another mean.
        **traits: the attributes below.

    Attributes:
        depth: how many steps are done, from 0 to all of them, fractions between.
        point: which point is chosen, from 0, or -1 for none.

    Raises:
        TypeError: if the flow is none, or there are no points.
        ValueError: if the flow takes a context, has no steps, another base or other than 2
            coordinates, or the points do not match it, or a step is not finite at one of them.
        traitlets.TraitError: if an attribute or ``truth`` is given what it cannot take.

    Example:
        >>> flow = RealNVP(2, n_layers=6)
        >>> LayersExplorer(flow, torch.randn(400, 2), depth=2.5)
        LayersExplorer(400 points, 7 steps, depth 2.5)

    Source:
        Papamakarios et al. (2021), *Normalizing Flows for Probabilistic Modeling and Inference*,
        section 2.1 and figure 1.
    """

    script = "layers.js"
    depth = traitlets.Float(0.0).tag(sync=True)
    point = traitlets.Int(-1).tag(sync=True)
    # What the page draws: of each step its name and the axes along which it moves anything; nats
    # per point after 0, 1, ... steps; and {"bits": 16 or 32, "places": (steps + 1, points, 2),
    # "log_dets": (steps, points)}, both in thousandths, little-endian, base64, log_dets summed up.
    steps = traitlets.List().tag(sync=True)
    nats = traitlets.List().tag(sync=True)
    truth = traitlets.Float(None, allow_none=True).tag(sync=True)
    table = traitlets.Dict().tag(sync=True)

    def __init__(
        self,
        flow: Flow | Bijection | None = None,
        x: Tensor | None = None,
        truth: float | None = None,
        **traits,
    ) -> None:
        example = flow is None and x is None
        if example:
            flow, x = _example()
        x = _as_points(flow, x)
        bijections = _as_steps(flow)
        self._places, log_dets = _walk(bijections, x)
        self.steps = [
            {"name": _name(step), "moves": [i for i in (0, 1) if (old != new)[:, i].any()]}
            for step, old, new in zip(bijections, self._places, self._places[1:], strict=False)
        ]
        self.nats = _nats(self._places, log_dets)
        self.table = _pack(self._places, log_dets[1:])
        # The example's data are the flow's own draws: what it pays for them is their entropy.
        self.truth = self.nats[-1] if example and truth is None else truth
        super().__init__(**traits)

    @property
    def caption(self) -> str:
        """One sentence that says what the still picture shows."""
        count, half = len(self.steps), _half(self._places)
        return (
            f"{self._places.shape[1]} points of data, left, on their way through a flow of {count} "
            f"{'step' if count == 1 else 'steps'}: after {half} of them, middle, and at the end, "
            "right, where they should look like draws from a normal distribution; circles of one "
            "and two standard deviations."
        )

    @traitlets.validate("depth")
    def _within(self, proposal):
        if not 0 <= proposal.value <= len(self.steps):
            raise traitlets.TraitError(
                f"depth: expected a number from 0 to {len(self.steps)}, got {proposal.value}"
            )
        return proposal.value

    @traitlets.validate("point")
    def _index(self, proposal):
        count = self._places.shape[1]
        if not -1 <= proposal.value < count:
            raise traitlets.TraitError(
                f"point: expected an index from 0 to {count - 1}, or -1 for none, "
                f"got {proposal.value}"
            )
        return proposal.value

    @traitlets.validate("truth")
    def _floor(self, proposal):
        if proposal.value is not None and not math.isfinite(proposal.value):
            raise traitlets.TraitError(
                f"truth: expected a finite number or None, got {proposal.value}"
            )
        return proposal.value

    def __repr__(self) -> str:
        count = len(self.steps)
        return (
            f"LayersExplorer({self._places.shape[1]} points, {count} "
            f"{'step' if count == 1 else 'steps'}, depth {self.depth:g})"
        )

    def still(self) -> str:
        """The points at the start, in the middle and at the end."""
        half = _half(self._places)
        shown = {0: ("data", DATA), half: (f"after step {half}", INK), -1: ("the end", LATENT)}
        corners = np.concatenate([self._places.reshape(-1, 2), [[-2.2, -2.2], [2.2, 2.2]]])
        middle = (corners.min(0) + corners.max(0)) / 2
        unit = 376 / np.ptp(corners, 0).max()  # of 400: half units are half pixels
        panels = ""
        for k, (depth, (words, color)) in enumerate(shown.items()):
            left, top = 20 + 420 * k, 80
            dots = np.rint((self._places[depth] - middle) * unit * [1, -1]).astype(int)
            steps = np.diff(dots, axis=0, prepend=[[-left - 200, -top - 200]])
            path = "".join(f"m{u} {v}h0" for u, v in steps)
            cx, cy = [left + 200, top + 200] - middle * unit * [1, -1]
            rings = "".join(
                f'<circle cx="{cx:.1f}" cy="{cy:.1f}" r="{sd * unit:.1f}"/>' for sd in (1, 2)
            )
            panels += (
                f'<g fill="none" stroke="{GREY}" stroke-width="2">'
                f'<path d="M{left} {top}h400v400h-400z"/>{rings}</g>'
                f'<path d="{path}" fill="none" stroke="{color}" stroke-width="7" '
                'stroke-linecap="round" stroke-opacity="0.7"/>'
                f'<text x="{left}" y="{top - 20}">{words}</text>'
            )
        return (
            '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 1280 500" '
            f'font-family="sans-serif"><rect width="1280" height="500" fill="{PAPER}"/>'
            f'<g font-size="32" fill="{INK}">{panels}</g></svg>'
        )


# --- what it is given -----------------------------------------------------------------------


class _Wave(nn.Module):
    """``(batch, 1)`` to a raw log-scale and a shift ``(batch, 2)``: a slope and a cosine."""

    def __init__(self, slope: float, height: float) -> None:
        super().__init__()
        self.slope, self.height = slope, height

    def forward(self, u: Tensor) -> Tensor:
        return torch.cat([self.slope * u, self.height * torch.cos(1.6 * u)], 1)


def _example() -> tuple[Compose, Tensor]:
    """An ActNorm and four couplings, and 300 points that they turn into normal draws."""
    waves = [(0.6, -1.8), (-0.8, 1.0), (0.8, 0.3), (-0.9, 0.5)]
    draw = torch.Generator().manual_seed(5)
    norm = ActNorm(2)
    layers = [
        Coupling(half_mask(2, second=k % 2 == 1), _Wave(*wave), Affine(1))
        for k, wave in enumerate(waves)
    ]
    flow = Compose([norm, *layers]).double()
    with torch.no_grad():
        norm.shift.copy_(torch.tensor([-0.3, 0.2]))
        norm.log_scale.copy_(torch.tensor([-0.3, -0.1]))
        x, _ = flow.inverse(torch.randn(300, 2, generator=draw, dtype=torch.float64))
    return flow, x.round(decimals=3)


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
    if getattr(flow, "context_dim", None):
        raise ValueError("LayersExplorer: expected a flow without a context")
    if isinstance(flow, Flow):
        if tuple(flow.event_shape) != (2,):
            raise ValueError(
                f"LayersExplorer: expected a flow on (2,), got one on {tuple(flow.event_shape)}"
            )
        if not isinstance(flow.base, StandardNormal):
            raise ValueError(
                "LayersExplorer: expected a flow with a StandardNormal base, got a "
                f"{type(flow.base).__name__}"
            )
    bijection = flow.bijection if isinstance(flow, Flow) else flow
    if isinstance(bijection, Compose) and not len(bijection):
        raise ValueError("LayersExplorer: expected a flow with at least one step, got none")
    return x


# --- what it computes -----------------------------------------------------------------------


@torch.no_grad()
def _walk(bijections: list[Bijection], x: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Places ``(steps + 1, points, 2)`` and the log-det up to there ``(steps + 1, points)``."""
    places, log_dets = [x], [x.new_zeros(len(x))]
    for k, bijection in enumerate(bijections):
        z, log_det = bijection(places[-1])
        if z.shape != x.shape or log_det.shape != x.shape[:1]:
            raise ValueError(
                f"LayersExplorer: step {k + 1} made shapes {tuple(z.shape)} and "
                f"{tuple(log_det.shape)} of {tuple(x.shape)}"
            )
        if not (z.isfinite().all() and log_det.isfinite().all()):
            raise ValueError(f"LayersExplorer: step {k + 1} is not finite at these points")
        places.append(z)
        log_dets.append(log_dets[-1] + log_det)
    return torch.stack(places).numpy(), torch.stack(log_dets).numpy()


def _nats(places: np.ndarray, log_dets: np.ndarray) -> list[float]:
    log_p = -0.5 * (places**2).sum(2) - math.log(2 * math.pi) + log_dets
    return [round(float(v), 6) + 0.0 for v in -log_p.mean(1)]


def _pack(places: np.ndarray, log_dets: np.ndarray) -> dict:
    """Thousandths as base64: a third of what the same numbers are as text."""
    whole = {"places": np.rint(places * SCALE), "log_dets": np.rint(log_dets * SCALE)}
    most = max(abs(v).max() for v in whole.values())
    if most >= 2**31:
        raise ValueError(
            f"LayersExplorer: expected numbers below {2**31 // SCALE:,}, got {most / SCALE:,.0f}"
        )
    bits = 16 if most < 2**15 else 32
    packed = {
        name: base64.b64encode(values.astype(f"<i{bits // 8}").tobytes()).decode()
        for name, values in whole.items()
    }
    return {"bits": bits, **packed}


def _half(places: np.ndarray) -> int:
    """The step after which the middle picture is; of a single step it is the end."""
    return max(1, (len(places) - 1) // 2)
