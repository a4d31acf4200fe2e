"""Transformers: a monotone map of each coordinate by itself, with parameters from outside.

A coupling layer and an autoregressive one differ in whose word a coordinate's parameters are. What
they do to the coordinate is the same, and stands here once. A coupling hands over all coordinates
that move; a network that is run coordinate by coordinate hands over some of them, and says which.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from flowlib.arguments import as_count, as_number

__all__ = ["Additive", "Affine", "Transformer"]


class Transformer(nn.Module, ABC):
    """Base class of the transformers.

    Both methods take coordinates ``(batch, k)``, or channels ``(batch, k, ...)``, and their
    parameters ``(batch, n_params * k, ...)``, all first parameters first. They return the moved
    coordinates and the logarithm of the slope at each, both of the shape of the first argument.

    Attributes:
        n_params: how many parameters a coordinate has.
        dim: how many coordinates (or channels) there are in all, None if any number will do.

    Source: Papamakarios et al. (2021), section 3.1.
    """

    n_params: int
    dim: int | None = None

    @abstractmethod
    def forward(self, x: Tensor, params: Tensor, at: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Normalize.

        Args:
            x: coordinates, ``(batch, k, ...)``.
            params: their parameters, ``(batch, n_params * k, ...)``.
            at: ``(k,)``, which coordinates ``x`` holds; by default all, in order.
        """

    @abstractmethod
    def inverse(self, z: Tensor, params: Tensor, at: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Generate; the arguments are those of :meth:`forward`."""


class Additive(Transformer):
    """``z = x + t``: one parameter a coordinate, of slope 1.

    Example:
        >>> Additive()(torch.tensor([[2.0]]), torch.tensor([[0.5]]))
        (tensor([[2.5000]]), tensor([[0.]]))

    Source: Dinh, Krueger and Bengio (2015), section 3.2.
    """

    n_params = 1

    def forward(self, x: Tensor, params: Tensor, at: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return x + params, torch.zeros_like(x)

    def inverse(self, z: Tensor, params: Tensor, at: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return z - params, torch.zeros_like(z)


class Affine(Transformer):
    r"""``z = x exp(s) + t``: two parameters a coordinate.

    The log-scale is bounded on both sides, ``s = low + width * sigmoid(s')`` with learned ``low``
    and ``width`` for each coordinate, so that a single outlier cannot make it explode and it can
    expand as well as shrink. They start at ``-bound`` and ``2 * bound``, where this is
    ``bound * tanh(s' / 2)``: at ``s' = t = 0`` it is the identity.

    Args:
        dim: how many coordinates there are; of images, how many channels, whose pixels share
            their bounds.
        bound: where the bounds on the log-scale start.

    Raises:
        ValueError: if ``dim`` is not a positive whole number, or ``bound`` not positive.

    Example:
        >>> affine = Affine(1)
        >>> z, log_slope = affine(torch.tensor([[2.0]]), torch.tensor([[0.5, 1.0]]))
        >>> torch.allclose(z, 2 * log_slope.exp() + 1)
        True

    Source: Dinh, Sohl-Dickstein and Bengio (2017), section 3.2 and its appendix.
    """

    n_params = 2

    def __init__(self, dim: int, bound: float = 0.5) -> None:
        super().__init__()
        self.dim = as_count("Affine", "dim", dim, 1)
        bound = as_number("Affine", "bound", bound)
        self.low = nn.Parameter(torch.full((self.dim,), -bound))
        self.width = nn.Parameter(torch.full((self.dim,), 2 * bound))

    def forward(self, x: Tensor, params: Tensor, at: Tensor | None = None) -> tuple[Tensor, Tensor]:
        log_scale, shift = self._read(params, at)
        return torch.addcmul(shift, x, log_scale.exp()), log_scale

    def inverse(self, z: Tensor, params: Tensor, at: Tensor | None = None) -> tuple[Tensor, Tensor]:
        log_scale, shift = self._read(params, at)
        return (z - shift) * (-log_scale).exp(), -log_scale

    def _read(self, params: Tensor, at: Tensor | None) -> tuple[Tensor, Tensor]:
        raw, shift = params.chunk(2, dim=1)
        count = self.dim if at is None else len(at)
        if raw.shape[1] != count:
            raise ValueError(
                f"Affine: expected 2 parameters for each of {count} coordinates, got "
                f"{params.shape[1]}; `at` says which of the {self.dim} coordinates are given"
            )
        low, width = (self._bound(bound, raw.dim(), at) for bound in (self.low, self.width))
        # the sigmoid is on a CPU five times as fast as tanh
        return torch.addcmul(low, width, raw.sigmoid()), shift

    def _bound(self, bound: Tensor, dims: int, at: Tensor | None) -> Tensor:
        """Of these coordinates, as ``(k, 1, 1)`` for images."""
        bound = bound if at is None else bound.index_select(0, at)
        return bound.reshape(bound.shape + (1,) * (dims - 2))
