"""A density of this library as one of ``torch.distributions``: for Pyro, for losses, for priors.

The library normalizes: its maps go from data to latent points. PyTorch's transforms go the other
way, from base to data. Here the turn is made once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints

from flowlib.arguments import require_context
from flowlib.arrays import as_tensors

__all__ = ["FlowDistribution"]


class FlowDistribution(Distribution):
    """A density, for one context or for a batch of them; ``density.as_distribution()`` makes it.

    It shares the weights: what trains it trains the density, and it is where the density is, in its
    dtype and in its mode. Mean, variance, mode and entropy have no closed form and are not there;
    draws estimate them. A Kullback-Leibler divergence has none either, but an estimate: the mean of
    ``p.log_prob(x) - q.log_prob(x)`` over ``x`` drawn from ``p``.

    Args:
        density: a :class:`~flowlib.Density`, such as a flow.
        context: what it is conditioned on, ``batch_shape + (C,)``, a tensor, an array or a table;
            None if it takes no context.
        validate_args: whether values are checked against the support, and outside of it raise
            ``ValueError``. By default PyTorch's own default, which is yes. If not, the log-density
            outside of the support is minus infinity.

    Attributes:
        has_rsample: whether draws are differentiable: of a flow they are, unless its base has none.

    Raises:
        TypeError: if the context is of another kind.
        ValueError: if its last dimension, or a table's columns, are not what the density needs.

    Example:
        >>> from flowlib import RealNVP
        >>> p = RealNVP(2, context_dim=3).as_distribution(torch.zeros(5, 3))
        >>> p.batch_shape, p.event_shape, p.sample((7,)).shape
        (torch.Size([5]), torch.Size([2]), torch.Size([7, 5, 2]))
        >>> p.log_prob(torch.zeros(2)).shape
        torch.Size([5])

    Pyro calls its distributions. A class that derives from this one and from
    ``pyro.distributions.torch_distribution.TorchDistributionMixin`` can be called.
    """

    arg_constraints: dict[str, constraints.Constraint] = {}  # noqa: RUF012, PyTorch's own

    def __init__(
        self, density: Any, context: Tensor | None = None, validate_args: bool | None = None
    ) -> None:
        _, context, _ = as_tensors("as_distribution", density, None, context)
        require_context("as_distribution", context, density.context_dim)
        self.density, self.context = density, context
        drawn = hasattr(density, "rsample_and_log_prob")
        self.has_rsample = drawn and bool(getattr(density.base, "has_rsample", True))
        lead = torch.Size() if context is None else context.shape[:-1]
        super().__init__(lead, torch.Size(density.event_shape), validate_args=validate_args)

    @property
    def support(self) -> constraints.Constraint:
        """All numbers, or what the flow's first map takes; of a model of bits, 0 and 1."""
        made: constraints.Constraint = constraints.independent(self._each, len(self.event_shape))
        return made

    @property
    def _each(self) -> Any:
        """The support of each coordinate."""
        if self.density.discrete:
            return constraints.boolean
        bijection = getattr(self.density, "bijection", None)
        domain = None if bijection is None else bijection.domain
        return constraints.real if domain is None else _Between(*domain)

    @property
    def mean(self) -> Tensor:
        """Not known in closed form: raises ``NotImplementedError`` that says what estimates it."""
        raise _unknown("mean", "sample((n,)).mean(0)")

    @property
    def variance(self) -> Tensor:
        """Not known in closed form: raises ``NotImplementedError`` that says what estimates it."""
        raise _unknown("variance", "sample((n,)).var(0)")

    @property
    def mode(self) -> Tensor:
        """Not known in closed form: raises ``NotImplementedError`` that says what estimates it."""
        raise _unknown("mode", "of many draws the one with the largest log_prob")

    def entropy(self) -> Tensor:
        """Not known in closed form: raises ``NotImplementedError`` that says what estimates it."""
        raise _unknown("entropy", "-log_prob(sample((n,))).mean(0)")

    def expand(self, batch_shape: Sequence[int], _instance: Any = None) -> Any:
        """The same for a larger batch; draws of its members are independent."""
        torch.empty(self.batch_shape).expand(batch_shape)  # PyTorch says what does not fit
        made: Any = self._get_checked_instance(FlowDistribution, _instance)  # type: ignore[no-untyped-call]
        made.density, made.context, made.has_rsample = self.density, self.context, self.has_rsample
        if self.context is not None:
            made.context = self.context.expand(*batch_shape, self.context.shape[-1])
        super(FlowDistribution, made).__init__(
            torch.Size(batch_shape), self.event_shape, validate_args=False
        )
        made._validate_args = self._validate_args
        return made

    def log_prob(self, value: Tensor) -> Tensor:
        """The log-density in nats.

        Args:
            value: ``(..., *batch_shape, *event_shape)``, or what broadcasts against it.

        Returns:
            ``(..., *batch_shape)``.
        """
        if self._validate_args:
            self._validate_sample(value)
        lead = value.shape[: value.dim() - len(self.event_shape)]
        lead = torch.broadcast_shapes(lead, self.batch_shape)
        context = self.context
        if self._each is constraints.real:
            found: Tensor = self.density.log_prob(value, context)
            return found.expand(lead)
        inside = self.support.check(value)
        rows = inside.reshape(*inside.shape, *(1 for _ in self.event_shape))
        value = torch.where(rows, value, getattr(self._each, "inside", 0.0))
        found = self.density.log_prob(value, context)
        return found.masked_fill(~inside, -math.inf).expand(lead)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """``sample_shape + batch_shape + event_shape`` independent draws, without a gradient."""
        made: Tensor = self.density.sample(*self._asked(sample_shape))
        return made

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        """The same with a gradient in the weights.

        Raises:
            NotImplementedError: if :attr:`has_rsample` is false.
        """
        return self.rsample_and_log_prob(sample_shape)[0]

    def rsample_and_log_prob(self, sample_shape: Any = ()) -> tuple[Tensor, Tensor]:
        """Draws and their log-density, by one pass through the flow instead of two."""
        if not self.has_rsample:
            raise NotImplementedError(
                f"rsample: draws of a {type(self.density).__name__} have no gradient here; "
                "sample() has none and needs none"
            )
        made: tuple[Tensor, Tensor] = self.density.rsample_and_log_prob(*self._asked(sample_shape))
        return made

    def _asked(self, sample_shape: Any) -> tuple[torch.Size, Tensor | None]:
        """How many draws, of each context."""
        shape = torch.Size(sample_shape)
        return (shape if self.context is not None else shape + self.batch_shape), self.context

    def __repr__(self) -> str:
        return (
            f"FlowDistribution({type(self.density).__name__}, "
            f"batch_shape={tuple(self.batch_shape)}, event_shape={tuple(self.event_shape)})"
        )


def _unknown(name: str, estimate: str) -> NotImplementedError:
    return NotImplementedError(
        f"FlowDistribution: the {name} of a flow has no closed form; {estimate} estimates it"
    )


class _Between(constraints.Constraint):
    """Strictly between two bounds, either of which may be infinite."""

    def __init__(self, low: float, high: float) -> None:
        self.low, self.high = low, high
        ends = [end for end in (low + 1, high - 1) if math.isfinite(end)]
        self.inside = 0.5 * (low + high) if len(ends) == 2 else ends[0]  # one point of it
        super().__init__()

    def check(self, value: Tensor) -> Tensor:
        made: Tensor = (self.low < value) & (value < self.high)
        return made

    def __repr__(self) -> str:
        return f"between {0 + self.low:g} and {self.high:g}"
