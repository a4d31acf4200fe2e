"""What explorers are given: a flow and its points, and names."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor

from flowlib.arguments import require_finite
from flowlib.coupling import RealNVP
from flowlib.flow import Bijection, Compose, Flow, Inverse

__all__ = [
    "as_names",
    "as_points",
    "as_steps",
    "picture_names",
    "random_realnvp",
    "require_flow",
    "step_name",
]


def require_flow(where: str, flow: object, x: object, what: str) -> tuple[Flow | Bijection, Tensor]:
    """The flow, and ``x`` in float64 on the CPU; errors call it ``what``.

    Raises:
        TypeError: if ``flow`` is not a :class:`Flow` or a :class:`Bijection`, or ``x`` is None.
        ValueError: if the flow takes a context.
    """
    if not isinstance(flow, Flow | Bijection):
        raise TypeError(f"{where}: expected a Flow or a Bijection, got a {type(flow).__name__}")
    if x is None:
        raise TypeError(f"{where}: expected {what}, got None")
    if getattr(flow, "context_dim", None):
        raise ValueError(f"{where}: expected a flow without a context")
    return flow, torch.as_tensor(x).detach().to("cpu", torch.float64)


def as_points(
    where: str, flow: object, x: object, counts: tuple[int, int], dims: tuple[int, int]
) -> tuple[Flow | Bijection, Tensor]:
    """A flow on vectors, and points ``(points, D)`` in float64 on the CPU.

    Args:
        where: the explorer's name.
        flow: what is given as the flow.
        x: what is given as its points.
        counts: the least and the largest number of points.
        dims: the least and the largest number ``D`` of coordinates.

    Raises:
        TypeError: as :func:`require_flow`.
        ValueError: as :func:`require_flow`, and if the points have another shape or one that does
            not fit the flow, or are not finite.
    """
    plane = dims[0] == dims[1]
    shape = f"x (points, {dims[0] if plane else 'D'})"
    flow, x = require_flow(where, flow, x, f"points {shape}")
    if x.dim() != 2 or not (dims[0] <= x.shape[1] <= dims[1] and counts[0] <= len(x) <= counts[1]):
        coordinates = "" if plane else f" of {dims[0]} to {dims[1]} coordinates"
        raise ValueError(
            f"{where}: expected {shape} with {counts[0]} to {counts[1]} points{coordinates}, got "
            f"shape {tuple(x.shape)}"
        )
    require_finite(where, "x", x)
    if isinstance(flow, Flow) and tuple(flow.event_shape) != tuple(x.shape[1:]):
        raise ValueError(
            f"{where}: expected x (points, D) for a flow on {tuple(flow.event_shape)}, got shape "
            f"{tuple(x.shape)}"
        )
    return flow, x


def as_steps(where: str, flow: Flow | Bijection) -> list[Bijection]:
    """The steps of a copy of the flow, in float64 on the CPU and in eval mode.

    Raises:
        ValueError: if there are no steps.
    """
    bijection = flow.bijection if isinstance(flow, Flow) else flow
    bijection = copy.deepcopy(bijection).to("cpu", torch.float64).eval()
    steps = list(bijection) if isinstance(bijection, Compose) else [bijection]
    if not steps:
        raise ValueError(f"{where}: expected a flow with at least one step, got one without steps")
    return steps


def step_name(bijection: Bijection) -> str:
    """The name of the bijection's class without ``Block``; ``⁻¹`` marks an inverse.

    Example:
        >>> step_name(Inverse(RealNVP(2).bijection))
        'Compose⁻¹'
    """
    if type(bijection) is Inverse:
        return f"{step_name(bijection.bijection)}⁻¹"
    return type(bijection).__name__.removesuffix("Block")


def as_names(
    where: str, what: str, names: Sequence[object] | None, default: Sequence[str]
) -> list[str]:
    """The names as strings, or the default if ``names`` is None.

    Raises:
        ValueError: if there are more or fewer names than in the default.
    """
    found = [str(name) for name in (default if names is None else names)]
    if len(found) != len(default):
        raise ValueError(f"{where}: expected {len(default)} {what}, got {len(found)}")
    return found


def picture_names(count: int) -> list[str]:
    """picture 1, picture 2, ..."""
    return [f"picture {k + 1}" for k in range(count)]


def random_realnvp(
    dim: int, n_layers: int, spread: float, seed: int
) -> tuple[RealNVP, torch.Generator]:
    """A small RealNVP with random weights, and the generator that drew them.

    PyTorch's own random numbers stay as they are.

    Args:
        dim: the number of coordinates.
        n_layers: the number of coupling layers.
        spread: the standard deviation of what is added to each weight.
        seed: of the weights.

    Example:
        >>> flow, generator = random_realnvp(3, n_layers=2, spread=0.4, seed=0)
        >>> flow.sample(5, generator=generator).shape
        torch.Size([5, 3])
    """
    draw = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.default_generator.manual_seed(seed)
        flow = RealNVP(dim, n_layers=n_layers, hidden=(16,))
        for weights in flow.parameters():
            weights.add_(spread * torch.randn(weights.shape, generator=draw))
    return flow, draw
