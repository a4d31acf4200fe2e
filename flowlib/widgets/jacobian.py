"""The explorer of chapters 2, 4 and 5: a flow's Jacobian, step by step and composed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import traitlets
from torch import Tensor

from flowlib.arguments import as_ints
from flowlib.coupling import RealNVP
from flowlib.flow import Bijection, Flow
from flowlib.plotting import DATA, GREY, INK, THIRD
from flowlib.widgets.base import Explorer
from flowlib.widgets.inputs import as_names, as_points, as_steps, random_realnvp, step_name
from flowlib.widgets.stills import Style, circle, group, path, picture, said, square, text
from flowlib.widgets.traits import Index, Numbers, Wholes

__all__ = ["JacobianExplorer"]

DIGITS = 9
SUBSCRIPTS = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")


class JacobianExplorer(Explorer):
    """The Jacobian of a flow on vectors: of each step alone, and of all steps up to it.

    Left are the points, one of which is chosen. Right is the Jacobian at that point as a heat map,
    with the entries that are zero by its structure, the sum of the logarithms on its diagonal, its
    ``log|det J|`` by elimination, and the log-determinant that the library claims. With a kernel
    the point can be dragged anywhere; without one it snaps to the points given.

    Python computes all Jacobians by automatic differentiation in float64 and sends numbers of 9
    significant digits. A page of 60 kB grows by 20 to 30 bytes times ``points * steps * D**2``:
    50 kB for 6 points of 9 steps on 6 coordinates; on 16 coordinates few points are better.

    Args:
        flow: a :class:`flowlib.Flow` without a context, or a :class:`flowlib.Bijection`. The items
            of a :class:`flowlib.Compose` are the steps; any other bijection is the only one. It is
            copied, and the copy is taken to float64, to the CPU and to eval mode.
        x: ``(points, D)``, 1 to 12 points of 2 to 16 coordinates. Without flow and points
            it shows a small RealNVP with random weights.
        names: what the ``D`` coordinates are called, if not ``x₁, x₂, ...``.
        order: the structure of steps that the library does not know: ``z[order[k]]`` depends on
            ``x[order[:k + 1]]`` only. One order for all of them, or a list with an order or None
            for each step.
        **traits: the attributes below.

    Attributes:
        point: which point is shown, from 0.
        step: which step is shown, from 0.
        composed: whether all steps up to this one are shown, or this one alone.
        sort: whether rows and columns are in the order in which the Jacobian is triangular, if
            there is such an order (a coupling's kept coordinates come first), or in their own.
        axes: the two coordinates that the points are drawn by.
        custom: ``D`` numbers, a point that is shown instead of the one given; or an empty list.

    Raises:
        TypeError: if ``flow`` is not a :class:`flowlib.Flow` or a :class:`flowlib.Bijection`, there
            are no points, or there is no such option.
        ValueError: if the flow takes a context or has no steps, or points, names or order do not
            match it, or a Jacobian is not finite.
        traitlets.TraitError: if an attribute is given a value that it cannot hold.

    Example:
        >>> flow = RealNVP(4, n_layers=2)
        >>> JacobianExplorer(flow, torch.randn(5, 4), step=1)
        JacobianExplorer(5 points, step 2 of 3: Coupling)

    Source:
        Papamakarios et al. (2021), *Normalizing Flows for Probabilistic Modeling and Inference*,
        section 3.
    """

    script = "jacobian.js"
    point = Index(lambda self: len(self.table)).tag(sync=True)
    step = Index(lambda self: len(self.steps)).tag(sync=True)
    composed = traitlets.Bool(False).tag(sync=True)
    sort = traitlets.Bool(True).tag(sync=True)
    axes = Wholes(
        [0, 1],
        count=2,
        low=0,
        high=lambda self: len(self.names) - 1,
        different=True,
        what="two different coordinates",
    ).tag(sync=True)
    custom = Numbers(shape=lambda self: (len(self.names),), or_empty=True).tag(sync=True)
    # What the page draws: of each point each step; of each step its name and structures; and of a
    # custom point the same, {"at": custom, "steps": [...]}. Pairs are [alone, composed].
    table: traitlets.List[Any] = traitlets.List().tag(sync=True, computed=True)
    steps: traitlets.List[Any] = traitlets.List().tag(sync=True, computed=True)
    names: traitlets.List[str] = traitlets.List().tag(sync=True, computed=True)
    answer: traitlets.Dict[str, Any] = traitlets.Dict().tag(sync=True, computed=True)
    # The underscore keeps it out of published pages: it is there only with a kernel.
    _kernel = traitlets.Bool(True, read_only=True).tag(sync=True)

    def __init__(
        self,
        flow: Flow | Bijection | None = None,
        x: Tensor | None = None,
        names: Sequence[str] | None = None,
        order: Sequence[int] | Sequence[Sequence[int] | None] | None = None,
        **traits: Any,
    ) -> None:
        if flow is None and x is None:
            flow, x = _example()
        flow, x = as_points("JacobianExplorer", flow, x, (1, 12), (2, 16))
        dim = x.shape[1]
        self.names = as_names("JacobianExplorer", "names", names, _coordinates(dim))
        self._bijections = as_steps("JacobianExplorer", flow)
        self.table = _measure(self._bijections, x)
        orders = _as_orders(order, dim, len(self._bijections))
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

    @traitlets.observe("custom")
    def _recompute(self, change: dict[str, Any]) -> None:
        answer: dict[str, Any] = {}
        if custom := change["new"]:
            answer["at"] = custom
            try:
                x = torch.tensor([custom], dtype=torch.float64)
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

    def _shown(self) -> dict[str, Any]:
        steps = self.answer.get("steps") or self.table[self.point]
        shown: dict[str, Any] = steps[self.step]
        return shown

    @property
    def reading(self) -> str:
        """How many entries are zero, the log-determinant by two ways, and the task."""
        jacobian = np.array(self._shown()["jacobian"][self.composed])
        zeros = int((jacobian == 0).sum())
        _, measured = np.linalg.slogdet(jacobian)
        claimed = self._shown()["claimed"][self.composed]
        fills = any(0 < _first_without_zeros(steps) != self.step for steps in self.table)
        task = (
            "after how many steps does every output depend on every input? Show all steps up to "
            "the first at which no zero is left."
            if fills
            else "of the points, find the one at which all steps together make volume grow most."
        )
        return (
            f"Of the {jacobian.size} entries {zeros} are exactly zero. The flow says log |det| = "
            f"{said(claimed, 4)}; measured from the whole matrix it is {said(float(measured), 4)}. "
            f"Task: {task}"
        )

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
        dots = [
            circle(
                40 + 200 * u,
                280 - 200 * v,
                6,
                fill=DATA,
                fill_opacity=1 if k == self.point else 0.45,
            )
            for k, (u, v) in enumerate((points - low) / span)
        ]
        size, most = 260 / dim, max(abs(jacobian).max(), 1e-3)
        cells, marks = [], []
        for r, i in enumerate(rows):
            for c, j in enumerate(columns):
                value, left, top = jacobian[i, j], 340 + c * size, 60 + r * size
                if value == 0:
                    marks.append(circle(left + size / 2, top + size / 2, 1.6, fill=GREY))
                    continue
                strength = np.log(max(abs(value), 1e-4) / 1e-4) / np.log(most / 1e-4)
                cells.append(
                    path(
                        square(left, top, size),
                        fill=THIRD if value > 0 else INK,
                        fill_opacity=round(0.08 + 0.7 * strength, 2),
                    )
                )
                if dim <= 6:
                    middle = left + size / 2, top + size / 2 + 5
                    shown = f"{value:.2f}".replace("-", "−")
                    marks.append(text(*middle, shown, text_anchor="middle"))
        axes = " and ".join(self.names[i] for i in self.axes)
        titles = text(20, 46, f"data, {axes}"), text(340, 46, "Jacobian ∂z/∂x")
        rim: Style = {"fill": "none", "stroke": GREY}
        return picture(
            340,
            path(square(20, 60, 240), **rim),
            *dots,
            *cells,
            path(square(340, 60, 260), **rim),
            group(*marks, *titles, font_size=14, fill=INK),
        )


def _first_without_zeros(steps: list[dict[str, Any]]) -> int:
    """The first step after which the composed Jacobian has no zero, -1 if it always has one."""
    full = (k for k, step in enumerate(steps) if all(v for row in step["jacobian"][1] for v in row))
    return next(full, -1)


# --- what it is given -----------------------------------------------------------------------


def _example() -> tuple[RealNVP, Tensor]:
    """A small RealNVP as if it were trained, and six points."""
    flow, draw = random_realnvp(4, n_layers=4, spread=0.4, seed=5)
    return flow, (0.8 * torch.randn(6, 4, generator=draw)).double().round(decimals=2)


def _coordinates(dim: int) -> list[str]:
    return ["x" + str(i + 1).translate(SUBSCRIPTS) for i in range(dim)]


def _as_orders(order: Any, dim: int, count: int) -> list[tuple[int, ...] | None]:
    """An order or None for each of ``count`` steps."""
    each = [None] * count if order is None else list(order)
    if as_ints(each) is not None:
        each = [each] * count
    orders = [None if one is None else as_ints(one) or () for one in each]
    natural = list(range(dim))
    if len(orders) != count or any(one is not None and sorted(one) != natural for one in orders):
        raise ValueError(
            f"JacobianExplorer: expected as order every number from 0 to {dim - 1} once, or such "
            f"an order or None for each of {count} steps, got {order}"
        )
    return orders


# --- what it computes -----------------------------------------------------------------------


def _measure(bijections: list[Bijection], x: Tensor) -> list[list[dict[str, Any]]]:
    """Of each point each step: its input, and Jacobian and claimed log-det, alone and composed."""
    table: list[list[dict[str, Any]]] = [[] for _ in x]
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
    return torch.stack(
        [
            torch.autograd.grad(out.sum(), x, retain_graph=True, materialize_grads=True)[0]
            for out in z.T
        ],
        1,
    )


def _short(value: Tensor) -> Any:
    def rounded(v: Any) -> Any:
        return [rounded(u) for u in v] if isinstance(v, list) else float(f"{v:.{DIGITS}g}") + 0.0

    return rounded(value.tolist())


def _structures(
    bijections: list[Bijection], dim: int, orders: list[tuple[int, ...] | None]
) -> list[dict[str, Any]]:
    """Of each step its name, the coordinates that its mask keeps, and its structures."""
    steps, reach = [], torch.eye(dim, dtype=torch.bool)
    for bijection, order in zip(bijections, orders, strict=True):
        support = _support(bijection, dim, order)
        reach = (support.float() @ reach.float()) > 0
        mask = getattr(bijection, "mask", None)
        kept = [] if mask is None else mask.nonzero().flatten().tolist()
        structure = [_triangular(support), _triangular(reach)]
        steps.append({"name": step_name(bijection), "kept": kept, "structure": structure})
    return steps


def _support(bijection: Bijection, dim: int, order: tuple[int, ...] | None) -> Tensor:
    """``(D, D)``, bool: which outputs may depend on which inputs."""
    known = bijection.dependence(dim)
    if known is not None:
        return known
    if order is None:
        return torch.ones(dim, dim, dtype=torch.bool)
    rank = torch.tensor(order).argsort()
    return rank[:, None] >= rank


def _triangular(support: Tensor) -> dict[str, Any]:
    """The order of rows and columns in which the matrix is triangular, if there is one.

    A row with a single entry comes first; without it and its column, again.
    """
    rows: list[int] = []
    columns: list[int] = []
    left = support.clone()
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
