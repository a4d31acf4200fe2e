r"""Change of variables: bijections, their composition, and the density that they carry.

A normalizing flow is an invertible map :math:`f` from data :math:`x` to latent
:math:`z = f(x)` together with a simple density :math:`p_Z` on the latent side. The change of
variables turns the two into a density on the data side,

.. math:: \log p(x) = \log p_Z(f(x)) + \log\left|\det \frac{\partial f}{\partial x}\right|.

Everything in this library is a :class:`Bijection`, which returns the mapped points *and* the
log-determinant, or a :class:`Flow`, which adds the base density and speaks of probabilities.
This is the code of chapter 1.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor, nn

__all__ = [
    "Bijection",
    "Compose",
    "ElementwiseAffine",
    "Flow",
    "Inverse",
    "LULinear",
    "StandardNormal",
]


# --- bijections ---------------------------------------------------------------------------


class Bijection(nn.Module, ABC):
    """An invertible, differentiable map ``f: x -> z`` that knows its own log-determinant.

    Subclasses implement :meth:`forward` and :meth:`inverse`. Both take a batch of shape
    ``(batch, *event)`` and return the mapped batch and a log-determinant of shape ``(batch,)``:
    the one **of the map just applied**, so that the two differ in sign at matching points.
    Neither may modify its input.

    Source: Rezende and Mohamed (2015), eqs. 5 to 7.
    """

    @abstractmethod
    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Normalize: ``x (batch, *event)`` to ``z`` and ``log|det dz/dx|`` ``(batch,)``."""

    @abstractmethod
    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Generate: ``z (batch, *event)`` to ``x`` and ``log|det dx/dz|`` ``(batch,)``."""

    def initialize(self, x: Tensor, context: Tensor | None = None) -> None:
        """Set data-dependent starting values from a batch ``x``; most maps have none."""


class Compose(Bijection):
    """Several bijections, one after the other: ``x -> b1 -> b2 -> ... -> z``.

    The log-determinants add, because the determinant of a product of Jacobians is the product
    of their determinants.

    Args:
        bijections: the maps in the order in which data meets them. None at all is the identity.

    Raises:
        TypeError: if one of them is no :class:`Bijection`.

    Example:
        >>> f = Compose([ElementwiseAffine(2), LULinear(2)])
        >>> z, log_det = f(torch.zeros(5, 2))
        >>> z.shape, log_det.shape, len(f)
        (torch.Size([5, 2]), torch.Size([5]), 2)

    Source: Rezende and Mohamed (2015), eqs. 6 and 7.
    """

    def __init__(self, bijections: Iterable[Bijection]) -> None:
        super().__init__()
        bijections = list(bijections)
        for i, b in enumerate(bijections):
            if not isinstance(b, Bijection):
                raise TypeError(f"Compose: item {i} is a {type(b).__name__}, not a Bijection")
        self.bijections = nn.ModuleList(bijections)

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        log_det = x.new_zeros(x.shape[0])
        for bijection in self.bijections:
            x, term = bijection(x, context)
            log_det = log_det + term
        return x, log_det

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        log_det = z.new_zeros(z.shape[0])
        for bijection in reversed(self.bijections):
            z, term = bijection.inverse(z, context)
            log_det = log_det + term
        return z, log_det

    def initialize(self, x: Tensor, context: Tensor | None = None) -> None:
        for bijection in self.bijections:
            bijection.initialize(x, context)
            x, _ = bijection(x, context)

    def __len__(self) -> int:
        return len(self.bijections)

    def __iter__(self) -> Iterator[Bijection]:
        return iter(self.bijections)

    def __getitem__(self, index: int) -> Bijection:
        return self.bijections[index]


class Inverse(Bijection):
    """The same map the other way round: what was ``inverse`` normalizes.

    Args:
        bijection: the map to turn round. It is shared, not copied.

    Example:
        >>> f = ElementwiseAffine(3)
        >>> x = torch.randn(4, 3)
        >>> torch.equal(Inverse(f)(x)[0], f.inverse(x)[0])
        True
    """

    def __init__(self, bijection: Bijection) -> None:
        super().__init__()
        self.bijection = bijection

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.bijection.inverse(x, context)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.bijection.forward(z, context)


class ElementwiseAffine(Bijection):
    r"""``z = x * exp(log_scale) + shift``, each coordinate by itself.

    The Jacobian is diagonal and the same everywhere, so that
    :math:`\log|\det| = \sum_i \texttt{log\_scale}_i`. It starts as the identity.

    Args:
        event_shape: the shape of one data point, an int for a vector.

    Example:
        >>> f = ElementwiseAffine(2)
        >>> with torch.no_grad():
        ...     _ = f.log_scale.copy_(torch.tensor([math.log(2.0), math.log(3.0)]))
        >>> z, log_det = f(torch.ones(1, 2))
        >>> z.tolist(), round(log_det.exp().item(), 4)
        ([[2.0, 3.0]], 6.0)
    """

    def __init__(self, event_shape: int | Sequence[int]) -> None:
        super().__init__()
        self.event_shape = as_event_shape(event_shape)
        self.shift = nn.Parameter(torch.zeros(self.event_shape))
        self.log_scale = nn.Parameter(torch.zeros(self.event_shape))

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return x * self.log_scale.exp() + self.shift, self.log_scale.sum().expand(x.shape[0])

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return (z - self.shift) * (-self.log_scale).exp(), -self.log_scale.sum().expand(z.shape[0])


class LULinear(Bijection):
    r"""A linear map ``z = L U x + bias`` whose determinant is read off a diagonal.

    ``L`` is unit lower triangular and ``U`` upper triangular with the positive diagonal
    ``exp(log_diagonal)``, so that :math:`\log|\det LU| = \sum_i \texttt{log\_diagonal}_i` costs
    ``D`` additions where a dense determinant costs ``D**3``. It starts as the identity.

    Not every matrix is such a product (a swap of two coordinates is none), but for every
    covariance there is one that whitens it: with a standard normal base this map is the whole
    Gaussian family.

    Args:
        dim: the number ``D`` of coordinates.

    Raises:
        ValueError: if ``dim`` is less than 1.

    Example:
        >>> f = LULinear(2)
        >>> with torch.no_grad():
        ...     _ = f.lower.fill_(0.5), f.upper.fill_(-1.0)
        >>> f.matrix().tolist()
        [[1.0, -1.0], [0.5, 0.5]]
        >>> x, _ = f.inverse(torch.tensor([[0.0, 1.0]]))
        >>> x.tolist()
        [[1.0, 1.0]]

    Source: Kingma and Dhariwal (2018), section 3.2, without the fixed permutation.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        (dim,) = as_event_shape(dim)
        below = torch.ones(dim, dim, dtype=torch.bool).tril(-1)
        self.register_buffer("below", below, persistent=False)
        self.lower = nn.Parameter(torch.zeros(int(below.sum())))
        self.upper = nn.Parameter(torch.zeros(int(below.sum())))
        self.log_diagonal = nn.Parameter(torch.zeros(dim))
        self.bias = nn.Parameter(torch.zeros(dim))

    def factors(self) -> tuple[Tensor, Tensor]:
        """The triangular factors ``L`` and ``U``, each ``(D, D)``."""
        dim = self.log_diagonal.shape[0]
        empty = self.lower.new_zeros(dim, dim)
        lower = empty.masked_scatter(self.below, self.lower) + torch.eye(dim).to(empty)
        upper = empty.masked_scatter(self.below, self.upper).T + self.log_diagonal.exp().diag()
        return lower, upper

    def matrix(self) -> Tensor:
        """The matrix ``L U`` of the map, ``(D, D)``."""
        lower, upper = self.factors()
        return lower @ upper

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        lower, upper = self.factors()
        z = x @ upper.T @ lower.T + self.bias
        return z, self.log_diagonal.sum().expand(x.shape[0])

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        lower, upper = self.factors()
        y = torch.linalg.solve_triangular(lower, (z - self.bias).T, upper=False, unitriangular=True)
        x = torch.linalg.solve_triangular(upper, y, upper=True).T
        return x, -self.log_diagonal.sum().expand(z.shape[0])


# --- base densities -----------------------------------------------------------------------


class StandardNormal(nn.Module):
    r"""The density :math:`\mathcal N(0, I)` on arrays of a given shape.

    Args:
        event_shape: the shape of one point, an int for a vector.

    Example:
        >>> base = StandardNormal(2)
        >>> round(base.log_prob(torch.zeros(2)).exp().item() * 2 * math.pi, 6)
        1.0
    """

    def __init__(self, event_shape: int | Sequence[int]) -> None:
        super().__init__()
        self.event_shape = as_event_shape(event_shape)
        # Carries the dtype and the device to `sample`; there is nothing to save.
        self.register_buffer("origin", torch.zeros(self.event_shape), persistent=False)

    def log_prob(self, z: Tensor) -> Tensor:
        """``log p_Z(z)`` in nats: ``(..., *event)`` to ``(...)``."""
        event_dims = tuple(range(-len(self.event_shape), 0))
        return -0.5 * (z.square() + math.log(2 * math.pi)).sum(event_dims)

    def sample(
        self,
        n: int | Sequence[int] = (),
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """``n + event`` independent draws; they carry no gradient and need none."""
        shape = (*as_sample_shape(n), *self.event_shape)
        like = self.origin
        return torch.randn(shape, dtype=like.dtype, device=like.device, generator=generator)


# --- the flow -----------------------------------------------------------------------------


class Flow(nn.Module):
    r"""A density: a :class:`Bijection` to the latent side, and a base density there.

    Args:
        bijection: the map ``f: x -> z``.
        base: the latent density, a module with ``event_shape``, ``log_prob`` and ``sample``,
            such as :class:`StandardNormal`.

    Attributes:
        event_shape: the shape of one data point.

    Example:
        >>> flow = Flow(LULinear(2), StandardNormal(2))
        >>> x = flow.sample(3, generator=torch.Generator().manual_seed(0))
        >>> x.shape, flow.log_prob(x).shape
        (torch.Size([3, 2]), torch.Size([3]))
        >>> flow.log_prob(torch.zeros(5, 3))
        Traceback (most recent call last):
            ...
        ValueError: log_prob: expected x of shape (..., 2), got (5, 3)

    Source: Rezende and Mohamed (2015), section 3; Papamakarios et al. (2021), section 2.
    """

    def __init__(self, bijection: Bijection, base: nn.Module) -> None:
        super().__init__()
        self.bijection = bijection
        self.base = base

    @property
    def event_shape(self) -> torch.Size:
        return self.base.event_shape

    def log_prob(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """The log-density in nats.

        Args:
            x: data, ``(..., *event)``, finite, in the flow's own dtype.
            context: what the density is conditioned on, ``(..., C)``; its leading dimensions
                broadcast against those of ``x``.

        Returns:
            ``log p(x)``, of the shape of the leading dimensions.

        Raises:
            TypeError: if ``x`` is no tensor.
            ValueError: if shape, dtype or values are not as above. Values are looked at in eager
                mode only, not under ``torch.compile`` or ``torch.func``.
        """
        self._check("log_prob", "x", x)
        lead = x.shape[: x.dim() - len(self.event_shape)]
        if context is not None:
            lead = torch.broadcast_shapes(lead, context.shape[:-1])
            x = x.expand(*lead, *self.event_shape)
            context = context.expand(*lead, context.shape[-1]).reshape(-1, context.shape[-1])
        z, log_det = self.bijection(x.reshape(math.prod(lead), *self.event_shape), context)
        return (self.base.log_prob(z) + log_det).reshape(lead)

    @torch.no_grad()
    def sample(
        self,
        n: int | Sequence[int] = (),
        context: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Independent draws, without a gradient.

        Args:
            n: how many, an int or a shape; ``()`` is a single one.
            context: as in :meth:`log_prob`; every row of it gets ``n`` draws.
            generator: the source of randomness, torch's own if there is none.

        Returns:
            ``n + context.shape[:-1] + event``.
        """
        return self.rsample_and_log_prob(n, context, generator)[0]

    def rsample_and_log_prob(
        self,
        n: int | Sequence[int] = (),
        context: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Draws that are differentiable in the flow's parameters, and their log-density.

        The arguments are those of :meth:`sample`. One pass through the inverse gives both:
        ``log p(x) = log p_Z(z) - log|det dx/dz|``.

        Returns:
            ``x`` of shape ``n + context.shape[:-1] + event`` and ``log p(x)`` of the same shape
            without the event.
        """
        lead = as_sample_shape(n)
        if context is not None:
            lead = (*lead, *context.shape[:-1])
            context = context.expand(*lead, context.shape[-1]).reshape(-1, context.shape[-1])
        z = self.base.sample(math.prod(lead), generator)
        x, log_det = self.bijection.inverse(z, context)
        log_prob = self.base.log_prob(z) - log_det
        return x.reshape(*lead, *self.event_shape), log_prob.reshape(lead)

    @torch.no_grad()
    def initialize(self, batch: Tensor, context: Tensor | None = None) -> None:
        """Let every layer set its data-dependent start from a batch ``(batch, *event)``."""
        self._check("initialize", "batch", batch)
        self.bijection.initialize(batch, context)

    def _check(self, where: str, name: str, x: Tensor) -> None:
        """The flow's door: shapes always, values where they can be seen."""
        if not isinstance(x, Tensor):
            raise TypeError(
                f"{where}: expected {name} to be a torch.Tensor, got {type(x).__name__}; "
                "torch.as_tensor makes one"
            )
        event = tuple(self.event_shape)
        if tuple(x.shape[max(0, x.dim() - len(event)) :]) != event:
            expected = ", ".join(["...", *map(str, event)])
            raise ValueError(
                f"{where}: expected {name} of shape ({expected}), got {tuple(x.shape)}"
            )
        own = next((t for t in (*self.parameters(), *self.buffers()) if t.is_floating_point()), x)
        if x.dtype != own.dtype:
            raise ValueError(
                f"{where}: the flow is in {own.dtype}, {name} in {x.dtype}; "
                f"{name}.to({own.dtype}) makes them one"
            )
        if values_are_visible():
            require_finite(where, name, x)


# --- what the flows share at their doors --------------------------------------------------


def as_event_shape(event_shape: int | Sequence[int]) -> torch.Size:
    """An int or a sequence of positive ints as a ``torch.Size``; ``ValueError`` for others."""
    shape = (event_shape,) if isinstance(event_shape, int) else tuple(event_shape)
    if not shape or not all(isinstance(d, int) and d >= 1 for d in shape):
        raise ValueError(
            f"event_shape: expected a positive int or several of them, got {event_shape!r}"
        )
    return torch.Size(shape)


def as_sample_shape(n: int | Sequence[int]) -> torch.Size:
    """A number of draws, or the shape of an array of draws; ``ValueError`` for others."""
    shape = (n,) if isinstance(n, int) else tuple(n)
    if not all(isinstance(d, int) and d >= 0 for d in shape):
        raise ValueError(f"n: expected a count or a shape of counts, got {n!r}")
    return torch.Size(shape)


def values_are_visible() -> bool:
    """Whether code may branch on a tensor's values: not when compiling or transforming."""
    return (
        not torch.compiler.is_compiling() and torch._C._functorch.peek_interpreter_stack() is None
    )


def require_finite(where: str, name: str, x: Tensor) -> None:
    """Raise ``ValueError`` with the place of the first NaN or infinity in ``x``, if any."""
    if torch.isfinite(x.sum()):  # one cheap reduction says yes nearly always
        return
    bad = (~torch.isfinite(x)).nonzero()
    if len(bad):
        first = tuple(bad[0].tolist())
        raise ValueError(
            f"{where}: expected finite values, got {x[first].item()} at {name}{list(first)}"
            f" ({len(bad)} of {x.numel()} are not finite)"
        )
