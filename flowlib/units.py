"""The units in which data come: their means and deviations, and contexts without them.

Data meet a normalization in front of a flow. A context goes straight into networks, and a unit that
saturates sees of a temperature of 300 ± 10 kelvin, or of a year, nothing but "large". So densities
standardize their contexts, by numbers that come from data once and are saved with the weights.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from flowlib.arguments import as_count
from flowlib.saving import Recorded

__all__ = ["ContextNorm", "Far", "deviation_and_mean", "far_from"]


class ContextNorm(Recorded, nn.Module):
    r"""Subtracts a mean from each number of a context and divides by a deviation.

    Both come from the first rows that :meth:`initialize` is given, and stay as they are. Before, it
    changes nothing. A number that never varies in those rows is only moved to 0.

    Args:
        context_dim: the size ``C`` of the context, at least 1.

    Attributes:
        loc: the means, a buffer ``(C,)``.
        scale: the deviations, a buffer ``(C,)``.

    Raises:
        ValueError: if ``context_dim`` is not a positive whole number.

    Example:
        >>> norm = ContextNorm(1)
        >>> norm.initialize(torch.tensor([[290.0], [310.0]]))
        >>> norm(torch.tensor([300.0])), norm(torch.tensor([[310.0]]))
        (tensor([0.]), tensor([[1.]]))
    """

    loc: Tensor
    scale: Tensor

    def __init__(self, context_dim: int) -> None:
        super().__init__()
        context_dim = as_count("ContextNorm", "context_dim", context_dim, 1)
        self.register_buffer("loc", torch.zeros(context_dim))
        self.register_buffer("scale", torch.ones(context_dim))

    def forward(self, context: Tensor) -> Tensor:
        """``(..., C)`` to the same shape."""
        return (context - self.loc) / self.scale

    @torch.no_grad()
    def initialize(self, context: Tensor) -> None:
        """Take means and deviations from rows ``(rows, C)``, unless they have been set before."""
        fresh = not self.loc.any() and bool((self.scale == 1).all())
        if not fresh or len(context) < 2:
            return
        scale, loc = deviation_and_mean(context, [0])
        self.loc.copy_(loc[0])
        self.scale.copy_(torch.where(scale > 0, scale, 1.0)[0])


def deviation_and_mean(x: Tensor, dims: list[int]) -> tuple[Tensor, Tensor]:
    """Over these dimensions, which are kept; the deviation is 0 where nothing but rounding varies.

    Example:
        >>> deviation_and_mean(torch.tensor([[2.0, 5.0], [4.0, 5.0]]), [0])
        (tensor([[1., 0.]]), tensor([[3., 5.]]))
    """
    # In a unit of their own, since squares of very large or small values have no room.
    unit = x.abs().amax(dims, keepdim=True)
    unit = torch.where(unit > 0, unit, 1.0)
    deviation, mean = torch.std_mean(x / unit, dims, correction=0, keepdim=True)
    varies = deviation > 8 * torch.finfo(x.dtype).eps * mean.abs()
    return torch.where(varies, deviation, 0.0) * unit, mean * unit


FAR = 30  # deviations between two means, at which draws of one never meet the other


class Far(NamedTuple):
    """Of each coordinate, whether it is far from where it should be, its mean and deviation."""

    off: Tensor
    mean: Tensor
    deviation: Tensor

    def first(self) -> str:
        """Which coordinate is the first that is far, and where it is."""
        k = int(self.off.flatten().nonzero()[0])
        mean, deviation = (part.flatten()[k].item() for part in (self.mean, self.deviation))
        return f"coordinate {k} of the latents has mean {mean:.3g} and deviation {deviation:.2g}"


def far_from(z: Tensor, draws: Tensor) -> Far:
    """Which coordinates of points lie in another place, or on another scale, than draws do.

    Args:
        z: points ``(n, *event)``.
        draws: where they should be, ``(m, *event)``.
    """
    deviation, mean = (part[0] for part in deviation_and_mean(z, [0]))
    its_deviation, its_mean = (part[0] for part in deviation_and_mean(draws, [0]))
    ratio = deviation / its_deviation
    far = (mean - its_mean).abs() > FAR * torch.maximum(deviation, its_deviation)
    return Far((deviation > 0) & (far | (ratio < 0.01) | (ratio > 100)), mean, deviation)
