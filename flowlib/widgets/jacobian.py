"""The explorer of chapters 2, 4 and 5: a flow's Jacobian, step by step and composed."""

from __future__ import annotations

import copy
import functools
from collections.abc import Sequence

import numpy as np
import torch
import traitlets
from torch import Tensor

from flowlib.coupling import ActNorm, BatchNorm, Coupling, RealNVP
from flowlib.flow import (
    Bijection,
    Compose,
    ElementwiseAffine,
    Flow,
    Inverse,
    LeakyReLU,
    Logit,
    Permutation,
    Softplus,
)
from flowlib.plotting import DATA, GREY, INK, PAPER, THIRD
from flowlib.widgets.base import Explorer

__all__ = ["JacobianExplorer"]

ELEMENTWISE = (ActNorm, BatchNorm, ElementwiseAffine, LeakyReLU, Logit, Softplus)
DIGITS = 9
SUBSCRIPTS = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")


class JacobianExplorer(Explorer):
    """The Jacobian of a flow on vectors, of each of its steps and of all of them up to it.

    Beside the points, of which one is taken, stands the Jacobian there as a heat map, with what
    its structure says is zero, the sum of the logarithms on its diagonal, ``log|det J|`` of it by
    elimination, and the log-determinant that the library claims. With a kernel the point can be
    dragged anywhere; without one it snaps to the points given.

    Python computes all Jacobians by automatic differentiation in float64 and sends numbers of 9
    significant digits. A page of 60 kB grows by 20 to 30 bytes times ``points * steps * D**2``:
    50 kB for 6 points of 9 steps on 6 coordinates; on 16 coordinates few points are better.

    Args:
        flow: a :class:`flowlib.Flow` without a context, or a :class:`flowlib.Bijection`. The items
            of a :class:`flowlib.Compose` are the steps; any other bijection is the only one. It is
            copied, and the copy is taken to float64, to the CPU and to eval mode.
        x: ``(points, D)``, 1 to 12 points of 2 to 16 coordinates. Without flow and points there
            is a small RealNVP with random weights.
        names: what the ``D`` coordinates are called, if not ``x₁, x₂, ...``.
        order: of steps whose structure the library does not know, that ``z[order[k]]`` depends
            on ``x[order[:k + 1]]`` only: one order for all of them, or a list with an order or
            None for each step.
        **traits: the attributes below.

    Attributes:
        point: which point is shown, from 0.
        step: which step is shown, from 0.
        composed: whether all steps up to this one are shown, or this one alone.
        sort: whether rows and columns are in the order in which the Jacobian is triangular, where
            there is one (of a coupling, what is kept comes first), or in their own.
        axes: the two coordinates that the points are drawn by.
        custom: ``D`` numbers, a point that is shown in the place of the one given; or none.

    Raises:
        TypeError: if the flow is none, or there are no points.
        ValueError: if the flow takes a context or has no steps, or points, names or order do not
            match it, or a Jacobian is not finite.
        traitlets.TraitError: if an attribute is given what it cannot take.

    Example:
        >>> flow = RealNVP(4, n_layers=2)
        >>> JacobianExplorer(flow, torch.randn(5, 4), step=1)
        JacobianExplorer(5 points, step 2 of 3: Coupling)

    Source:
        Papamakarios et al. (2021), *Normalizing Flows for Probabilistic Modeling and Inference*,
        section 3.
    """

    script = "jacobian.js"
    point = traitlets.Int(0).tag(sync=True)
    step = traitlets.Int(0).tag(sync=True)
    composed = traitlets.Bool(False).tag(sync=True)
    sort = traitlets.Bool(True).tag(sync=True)
    axes = traitlets.List(default_value=[0, 1]).tag(sync=True)
    custom = traitlets.List(default_value=[]).tag(sync=True)
    # What the page draws: of each point each step; of each step its name and structures; and of a
    # custom point the same, {"at": custom, "steps": [...]}. Pairs are [alone, composed].
    table = traitlets.List().tag(sync=True)
    steps = traitlets.List().tag(sync=True)
    names = traitlets.List().tag(sync=True)
    answer = traitlets.Dict().tag(sync=True)
    # Underscored, it is no part of a published page: only who has a kernel sees it.
    _kernel = traitlets.Bool(True, read_only=True).tag(sync=True)

    def __init__(
        self,
        flow: Flow | Bijection | None = None,
        x: Tensor | None = None,
        names: Sequence[str] | None = None,
        order: Sequence | None = None,
        **traits,
    ) -> None:
        if flow is None and x is None:
            flow, x = _example()
        x = _as_points(flow, x)
        dim = x.shape[1]
        names = _coordinates(dim) if names is None else [str(n) for n in names]
        if len(names) != dim:
            raise ValueError(f"JacobianExplorer: expected {dim} names, got {len(names)}")
        self._bijections = _as_steps(flow, "JacobianExplorer")
        table = _measure(self._bijections, x)
        orders = _as_orders(order, dim, len(self._bijections))
        self.table, self.names = table, names
        self.steps = _structures(self._bijections, dim, orders)
        super().__init__(**traits)

    @property
    def caption(self) -> str:
        """One sentence that says what the still picture shows."""
        of = f"steps 1 to {self.step + 1}" if self.composed else f"step {self.step + 1}"
        name = "together" if self.composed else self.steps[self.step]["name"]
        return (
            f"Left, {len(self.table)} points of data. Right, a flow's Jacobian at one of them, of "
            f"{of}, {name}, as a heat map on a logarithmic scale; entries that are exactly zero "
            "are empty cells with a dot."
        )

    @traitlets.validate("point", "step")
    def _index(self, proposal):
        name = proposal.trait.name
        count = len({"point": self.table, "step": self.steps}[name])
        if not 0 <= proposal.value < count:
            raise traitlets.TraitError(
                f"{name}: expected an index from 0 to {count - 1}, got {proposal.value}"
            )
        return proposal.value

    @traitlets.validate("axes")
    def _two(self, proposal):
        dim, value = len(self.names), list(proposal.value)
        if len(value) != 2 or value[0] == value[1] or any(i not in range(dim) for i in value):
            raise traitlets.TraitError(
                f"axes: expected two different coordinates from 0 to {dim - 1}, got {value}"
            )
        return [int(i) for i in value]

    @traitlets.validate("custom")
    def _place(self, proposal):
        try:
            value = np.asarray(proposal.value, dtype=float)
        except (TypeError, ValueError) as error:
            raise traitlets.TraitError(f"custom: {error}") from error
        if value.shape not in {(0,), (len(self.names),)} or not np.isfinite(value).all():
            raise traitlets.TraitError(
                f"custom: expected {len(self.names)} finite numbers or none, got {proposal.value}"
            )
        return value.tolist()

    @traitlets.observe("custom")
    def _recompute(self, change):
        answer = {}
        if change.new:
            answer = {"at": change.new}
            try:
                x = torch.tensor([change.new], dtype=torch.float64)
                answer["steps"] = _measure(self._bijections, x)[0]
            except ValueError as error:  # a flow need not be defined everywhere
                answer["error"] = str(error)
        self.answer = answer

    def __repr__(self) -> str:
        upto = "all up to step" if self.composed else "step"
        return (
            f"JacobianExplorer({len(self.table)} points, {upto} {self.step + 1} of "
            f"{len(self.steps)}: {self.steps[self.step]['name']})"
        )

    def _shown(self) -> dict:
        return (self.answer.get("steps") or self.table[self.point])[self.step]

    def still(self) -> str:
        """The points and the Jacobian as they are before anything is moved."""
        jacobian = np.array(self._shown()["jacobian"][self.composed])
        structure = self.steps[self.step]["structure"][self.composed]
        dim = len(jacobian)
        rows, columns = (
            structure[name] if self.sort else range(dim) for name in ("rows", "columns")
        )
        points = np.array([steps[0]["input"] for steps in self.table])[:, self.axes]
        low, span = points.min(0), np.ptp(points, 0) + 1e-9
        dots = "".join(
            f'<circle cx="{40 + 200 * u:.1f}" cy="{280 - 200 * v:.1f}" r="6" fill="{DATA}" '
            f'fill-opacity="{1 if k == self.point else 0.45}"/>'
            for k, (u, v) in enumerate((points - low) / span)
        )
        cell, most = 260 / dim, max(abs(jacobian).max(), 1e-3)
        cells = marks = ""
        for r, i in enumerate(rows):
            for c, j in enumerate(columns):
                value, left, top = jacobian[i, j], 340 + c * cell, 60 + r * cell
                middle = f'"{left + cell / 2:.1f}" cy="{top + cell / 2:.1f}"'
                if value == 0:
                    marks += f'<circle cx={middle} r="1.6" fill="{GREY}"/>'
                strength = np.log(max(abs(value), 1e-4) / 1e-4) / np.log(most / 1e-4)
                cells += (
                    f'<path d="M{left:.1f} {top:.1f}h{cell:.1f}v{cell:.1f}h-{cell:.1f}z" '
                    f'fill="{THIRD if value > 0 else INK}" '
                    f'fill-opacity="{(value != 0) * (0.08 + 0.7 * strength):.2f}"/>'
                )
                if dim <= 6 and value:
                    marks += (
                        f'<text x="{left + cell / 2:.1f}" y="{top + cell / 2 + 5:.1f}" '
                        f'text-anchor="middle">{value:.2f}</text>'.replace(">-", ">−")
                    )
        rim = f'fill="none" stroke="{GREY}"'
        axes = " and ".join(self.names[i] for i in self.axes)
        return (
            '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 640 340" '
            'font-family="sans-serif">'
            f'<rect width="640" height="340" fill="{PAPER}"/>'
            f'<path d="M20 60h240v240h-240z" {rim}/>{dots}{cells}'
            f'<path d="M340 60h260v260h-260z" {rim}/>'
            f'<g font-size="14" fill="{INK}">{marks}<text x="20" y="46">data, {_escape(axes)}'
            '</text><text x="340" y="46">Jacobian ∂z/∂x</text></g></svg>'
        )


def _escape(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;")


# --- what it is given -----------------------------------------------------------------------


def _example() -> tuple[RealNVP, Tensor]:
    """A small RealNVP as if it were trained, and six points; no other randomness is touched."""
    draw = torch.Generator().manual_seed(5)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.default_generator.manual_seed(5)
        flow = RealNVP(4, n_layers=4, hidden=(16,))
        for weights in flow.parameters():
            weights.add_(0.4 * torch.randn(weights.shape, generator=draw))
    return flow, (0.8 * torch.randn(6, 4, generator=draw)).double().round(decimals=2)


def _as_points(flow, x) -> Tensor:
    if not isinstance(flow, Flow | Bijection):
        raise TypeError(
            f"JacobianExplorer: expected a Flow or a Bijection, got a {type(flow).__name__}"
        )
    if x is None:
        raise TypeError("JacobianExplorer: expected points x (points, D), got none")
    x = torch.as_tensor(x).detach().to("cpu", torch.float64)
    dim = x.shape[-1] if x.dim() == 2 else 0
    if not (2 <= dim <= 16 and 1 <= len(x) <= 12):
        raise ValueError(
            "JacobianExplorer: expected x (points, D) with 1 to 12 points of 2 to 16 coordinates, "
            f"got shape {tuple(x.shape)}"
        )
    if not x.isfinite().all():
        raise ValueError("JacobianExplorer: x has values that are not finite")
    if isinstance(flow, Flow) and tuple(flow.event_shape) != (dim,):
        raise ValueError(
            f"JacobianExplorer: expected x (points, D) for a flow on {tuple(flow.event_shape)}, "
            f"got shape {tuple(x.shape)}"
        )
    if getattr(flow, "context_dim", None):
        raise ValueError("JacobianExplorer: expected a flow without a context")
    return x


def _coordinates(dim: int) -> list[str]:
    return ["x" + str(i + 1).translate(SUBSCRIPTS) for i in range(dim)]


def _as_steps(flow: Flow | Bijection, where: str) -> list[Bijection]:
    bijection = flow.bijection if isinstance(flow, Flow) else flow
    bijection = copy.deepcopy(bijection).to("cpu", torch.float64).eval()
    steps = list(bijection) if isinstance(bijection, Compose) else [bijection]
    if not steps:
        raise ValueError(f"{where}: expected a flow with at least one step, got none")
    return steps


def _as_orders(order, dim: int, count: int) -> list[list[int] | None]:
    order = [None] * count if order is None else list(order)
    if all(isinstance(i, int) for i in order):
        order = [order] * count
    orders = [None if one is None else [int(i) for i in one] for one in order]
    if len(orders) != count or any(one and sorted(one) != [*range(dim)] for one in orders):
        raise ValueError(
            f"JacobianExplorer: expected as order every number from 0 to {dim - 1} once, or such "
            f"an order or None for each of {count} steps, got {order}"
        )
    return orders


# --- what it computes -----------------------------------------------------------------------


def _measure(bijections: list[Bijection], x: Tensor) -> list[list[dict]]:
    """Of each point each step: its input, and Jacobian and claimed log-det, alone and composed."""
    table = [[] for _ in x]
    with torch.inference_mode(False), torch.enable_grad():
        start = here = x.clone().requires_grad_()
        total = torch.zeros(len(x), dtype=x.dtype)
        for k, bijection in enumerate(bijections):
            alone = here.detach().clone().requires_grad_()
            out, claimed = bijection(alone)
            here, _ = bijection(here)
            total = total + claimed
            if out.shape != x.shape:
                raise ValueError(
                    f"JacobianExplorer: step {k + 1} made shape {tuple(out.shape)} of {x.shape}"
                )
            own, both = _jacobian(out, alone), _jacobian(here, start)
            if not all(t.isfinite().all() for t in (own, both, total)):
                raise ValueError(f"JacobianExplorer: step {k + 1} is not finite at these points")
            for p, steps in enumerate(table):
                steps.append(
                    {
                        "input": _short(alone[p]),
                        "jacobian": [_short(own[p]), _short(both[p])],
                        "claimed": [_short(claimed[p]), _short(total[p])],
                    }
                )
    return table


def _jacobian(z: Tensor, x: Tensor) -> Tensor:
    """``(points, D, D)``: one sweep back an output, for all points at once."""
    options = {"retain_graph": True, "materialize_grads": True}
    return torch.stack([torch.autograd.grad(out.sum(), x, **options)[0] for out in z.T], 1)


def _short(value: Tensor):
    def rounded(v):
        return [rounded(u) for u in v] if isinstance(v, list) else float(f"{v:.{DIGITS}g}") + 0.0

    return rounded(value.tolist())


def _structures(bijections, dim: int, orders) -> list[dict]:
    """Of each step its name, what it keeps if it is a coupling, and its structures."""
    steps, reach = [], torch.eye(dim, dtype=torch.bool)
    for bijection, order in zip(bijections, orders, strict=True):
        support = _support(bijection, dim, order)
        reach = _product(support, reach)
        kept = bijection.kept.tolist() if isinstance(bijection, Coupling) else []
        structure = [_triangular(support), _triangular(reach)]
        steps.append({"name": _name(bijection), "kept": kept, "structure": structure})
    return steps


def _name(bijection: Bijection) -> str:
    if type(bijection) is Inverse:
        return f"{_name(bijection.bijection)}⁻¹"
    return type(bijection).__name__


def _product(second: Tensor, first: Tensor) -> Tensor:
    return (second.float() @ first.float()) > 0


def _support(bijection, dim: int, order: list[int] | None, inverse: bool = False) -> Tensor:
    """``(D, D)``, bool: which outputs may depend on which inputs."""
    if isinstance(bijection, Inverse):
        return _support(bijection.bijection, dim, order, not inverse)
    support = torch.eye(dim, dtype=torch.bool)
    if isinstance(bijection, Compose):
        items = [_support(item, dim, order, inverse) for item in bijection]
        return functools.reduce(_product, items if inverse else items[::-1], support)
    if isinstance(bijection, Permutation):
        return support[:, bijection.order] if inverse else support[bijection.order]
    if isinstance(bijection, Coupling):
        support[bijection.moved[:, None], bijection.kept] = True
        return support
    if isinstance(bijection, ELEMENTWISE):
        return support
    if order is None:
        return torch.ones_like(support)
    rank = torch.tensor(order).argsort()
    return rank[:, None] >= rank


def _triangular(support: Tensor) -> dict:
    """The order of rows and columns in which the matrix is triangular, if there is one.

    A row with a single entry comes first; without it and its column, again.
    """
    rows, columns, left = [], [], support.clone()
    while single := [i for i, row in enumerate(left.tolist()) if sum(row) == 1 and i not in rows]:
        rows.append(single[0])
        columns.append(int(left[single[0]].float().argmax()))
        left[:, columns[-1]] = False
    triangular = len(rows) == len(support)
    natural = [*range(len(support))]
    return {
        "support": ["".join("01"[v] for v in row) for row in support.tolist()],
        "triangular": triangular,
        "rows": rows if triangular else natural,
        "columns": columns if triangular else natural,
    }
