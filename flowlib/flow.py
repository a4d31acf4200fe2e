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

import functools
import itertools
import math
import operator
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = [
    "Bijection",
    "Compose",
    "DiagonalNormal",
    "ElementwiseAffine",
    "Flow",
    "Inverse",
    "LULinear",
    "LeakyReLU",
    "Logit",
    "MultivariateNormal",
    "Permutation",
    "Sigmoid",
    "Softplus",
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
        terms = []
        for bijection in self.bijections:
            x, term = bijection(x, context)
            terms.append(term)
        return x, functools.reduce(operator.add, terms) if terms else x.new_zeros(x.shape[0])

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        terms = []
        for bijection in reversed(self.bijections):
            z, term = bijection.inverse(z, context)
            terms.append(term)
        return z, functools.reduce(operator.add, terms) if terms else z.new_zeros(z.shape[0])

    def initialize(self, x: Tensor, context: Tensor | None = None) -> None:
        for bijection in self.bijections:
            bijection.initialize(x, context)
            x, _ = bijection(x, context)

    def __len__(self) -> int:
        return len(self.bijections)

    def __iter__(self) -> Iterator[Bijection]:
        return iter(self.bijections)

    def __getitem__(self, index: int | slice) -> Bijection:
        part = self.bijections[index]
        return Compose(part) if isinstance(index, slice) else part


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
        require_event("ElementwiseAffine", x, self.event_shape)
        return x * self.log_scale.exp() + self.shift, self.log_scale.sum().expand(x.shape[0])

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        require_event("ElementwiseAffine", z, self.event_shape)
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
        require_event("LULinear", x, self.bias.shape)
        lower, upper = self.factors()
        z = x @ upper.T @ lower.T + self.bias
        return z, self.log_diagonal.sum().expand(x.shape[0])

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        require_event("LULinear", z, self.bias.shape)
        lower, upper = self.factors()
        y = torch.linalg.solve_triangular(lower, (z - self.bias).T, upper=False, unitriangular=True)
        x = torch.linalg.solve_triangular(upper, y, upper=True).T
        return x, -self.log_diagonal.sum().expand(z.shape[0])


# --- monotone maps of each coordinate, without weights --------------------------------------


class Logit(Bijection):
    r"""``z = logit(alpha + (1 - 2 alpha) x)``, from the unit interval to the line.

    For data that live in an interval, such as the brightness of a pixel. With ``alpha > 0`` the
    interval's ends are allowed and go to a finite place; draws may then land a little outside,
    by less than ``alpha / (1 - 2 alpha)``, and can come back.

    Args:
        alpha: the margin, ``0 <= alpha < 1/2``.

    Raises:
        ValueError: if ``alpha`` is out of its range, or a value of ``x`` not strictly inside the
            interval and its margin.

    Example:
        >>> z, log_det = Logit()(torch.tensor([[0.5, 0.5]]))
        >>> z.tolist(), round(log_det.exp().item(), 4)
        ([[0.0, 0.0]], 16.0)

    Source: Dinh, Sohl-Dickstein and Bengio (2017), section 4.1.
    """

    def __init__(self, alpha: float = 0.0) -> None:
        super().__init__()
        if not 0 <= alpha < 0.5:
            raise ValueError(f"Logit: expected 0 <= alpha < 0.5, got {alpha}")
        self.alpha = alpha

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        margin = self.alpha / (1 - 2 * self.alpha)
        require_inside("Logit", x, 0.0 - margin, 1 + margin)
        y = self.alpha + (1 - 2 * self.alpha) * x
        slope = math.log1p(-2 * self.alpha) - y.log() - torch.log1p(-y)
        return torch.logit(y), sum_event(slope)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        x = (torch.sigmoid(z) - self.alpha) / (1 - 2 * self.alpha)
        slope = F.logsigmoid(z) + F.logsigmoid(-z) - math.log1p(-2 * self.alpha)
        return x, sum_event(slope)


class Sigmoid(Inverse):
    """``z = 1 / (1 + exp(-x))``, from the line to the open unit interval: :class:`Logit` turned.

    In float32 a value above 17 lands on 1 itself and cannot come back; the way back says so.

    Example:
        >>> Sigmoid()(torch.zeros(1, 2))[0].tolist()
        [[0.5, 0.5]]
    """

    def __init__(self) -> None:
        super().__init__(Logit())


class Softplus(Bijection):
    r"""``z = log(1 + exp(x))``, from the line to the positive half line.

    Its inverse takes logarithms of data that must stay positive, and is gentler than a logarithm
    where they are large.

    Raises:
        ValueError: on the way back, if a value is not positive.

    Example:
        >>> z, _ = Softplus()(torch.tensor([[0.0]]))
        >>> round(z.exp().item(), 4)
        2.0
    """

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        # not F.softplus, which is the identity above 20 and there disagrees with its own slope
        return -F.logsigmoid(-x), sum_event(F.logsigmoid(x))

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        require_inside("Softplus", z, 0, math.inf)
        shrunk = torch.log(-torch.expm1(-z))
        return z + shrunk, -sum_event(shrunk)


class LeakyReLU(Bijection):
    """The leaky ramp: ``z = x`` where ``x`` is not negative, ``z = slope * x`` where it is.

    The simplest bend there is. With an :class:`LULinear` on either side it folds space along a
    line; a chain of them is a network with as many units in each layer as there are coordinates.

    Args:
        slope: the slope of the negative half, positive.

    Raises:
        ValueError: if ``slope`` is not positive and finite.

    Example:
        >>> z, log_det = LeakyReLU(0.5)(torch.tensor([[3.0, -4.0]]))
        >>> z.tolist(), round(log_det.exp().item(), 4)
        ([[3.0, -2.0]], 0.5)
    """

    def __init__(self, slope: float = 0.1) -> None:
        super().__init__()
        if not 0 < slope < math.inf:
            raise ValueError(f"LeakyReLU: expected a positive, finite slope, got {slope}")
        self.slope = slope

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._bend(x, self.slope)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._bend(z, 1 / self.slope)

    def _bend(self, x: Tensor, slope: float) -> tuple[Tensor, Tensor]:
        negative = x < 0
        return torch.where(negative, x * slope, x), sum_event(negative.to(x)) * math.log(slope)


class Permutation(Bijection):
    """The coordinates in another order: ``z[:, i] = x[:, order[i]]``.

    Of the first event dimension, so that a vector's coordinates or an image's channels move. Its
    log-determinant is 0. Alone it does nothing to a standard normal; between layers that treat
    coordinates differently it lets each have every role.

    Args:
        order: every number from 0 to ``D - 1``, once.

    Raises:
        ValueError: if ``order`` is no permutation.

    Example:
        >>> p = Permutation([2, 0, 1])
        >>> z, _ = p(torch.tensor([[10.0, 20.0, 30.0]]))
        >>> z.tolist(), p.inverse(z)[0].tolist()
        ([[30.0, 10.0, 20.0]], [[10.0, 20.0, 30.0]])
    """

    def __init__(self, order: Sequence[int] | Tensor) -> None:
        super().__init__()
        order = torch.as_tensor(order)
        if order.dim() != 1 or order.sort().values.tolist() != list(range(len(order))):
            raise ValueError(
                f"Permutation: expected every number from 0 to D - 1 once, got {order.tolist()}"
            )
        self.register_buffer("order", order.long().clone())

    @classmethod
    def reversal(cls, dim: int) -> Permutation:
        """The last coordinate first."""
        (dim,) = as_event_shape(dim)
        return cls(torch.arange(dim).flip(0))

    @classmethod
    def random(cls, dim: int, generator: torch.Generator | None = None) -> Permutation:
        """An order drawn once and kept with the weights."""
        (dim,) = as_event_shape(dim)
        return cls(torch.randperm(dim, generator=generator))

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._take(x, self.order)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._take(z, self.order.argsort())

    def _take(self, x: Tensor, order: Tensor) -> tuple[Tensor, Tensor]:
        if x.shape[1:2] != order.shape:
            raise ValueError(
                f"Permutation: expected {len(order)} coordinates, got shape {tuple(x.shape)}"
            )
        return x.index_select(1, order), x.new_zeros(x.shape[0])


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
        require_event("StandardNormal", z, self.event_shape, leading=None)
        squared = z.square().sum(tuple(range(-len(self.event_shape), 0)))
        return -0.5 * squared - 0.5 * math.log(2 * math.pi) * math.prod(self.event_shape)

    def sample(
        self,
        n: int | Sequence[int] = (),
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """``n + event`` independent draws; they carry no gradient and need none."""
        return standard_draws(self.origin, n, self.event_shape, generator)


class DiagonalNormal(nn.Module):
    """Independent normals, each with its own mean and standard deviation, which stay as given.

    One that learns them is an :class:`ElementwiseAffine` before a :class:`StandardNormal`.

    Args:
        loc: the means, an array of the event's shape.
        scale: the standard deviations, positive, of the same shape.

    Raises:
        ValueError: if shapes differ, a value is not finite, or a scale is not positive.

    Example:
        >>> base = DiagonalNormal([0.0, 10.0], [1.0, 2.0])
        >>> base.sample(3).shape, round(base.log_prob(base.loc).exp().item() * 4 * math.pi, 4)
        (torch.Size([3, 2]), 1.0)
    """

    def __init__(self, loc: Tensor | Sequence[float], scale: Tensor | Sequence[float]) -> None:
        super().__init__()
        loc, scale = as_floats("DiagonalNormal", loc=loc, scale=scale)
        self.event_shape = as_event_shape(loc.shape)
        if scale.shape != loc.shape or not (scale > 0).all():
            raise ValueError(
                f"DiagonalNormal: expected a positive scale of shape {tuple(loc.shape)}, "
                f"got {scale.tolist()} of shape {tuple(scale.shape)}"
            )
        self.register_buffer("loc", loc)
        self.register_buffer("scale", scale)

    def log_prob(self, z: Tensor) -> Tensor:
        """``log p_Z(z)`` in nats: ``(..., *event)`` to ``(...)``."""
        require_event("DiagonalNormal", z, self.event_shape, leading=None)
        log_p = -0.5 * (((z - self.loc) / self.scale).square() + math.log(2 * math.pi))
        return (log_p - self.scale.log()).sum(tuple(range(-len(self.event_shape), 0)))

    def sample(
        self, n: int | Sequence[int] = (), generator: torch.Generator | None = None
    ) -> Tensor:
        """``n + event`` independent draws."""
        return self.loc + self.scale * standard_draws(self.loc, n, self.event_shape, generator)


class MultivariateNormal(nn.Module):
    """A normal density on vectors with any covariance, which stays as given.

    One that learns it is an :class:`LULinear` before a :class:`StandardNormal`.

    Args:
        loc: the mean, ``(D,)``.
        covariance: symmetric and positive definite, ``(D, D)``.

    Raises:
        ValueError: if shapes do not fit, a value is not finite, or the matrix is no covariance.

    Example:
        >>> base = MultivariateNormal([0.0, 0.0], [[2.0, 1.0], [1.0, 2.0]])
        >>> round(base.log_prob(torch.zeros(2)).exp().item() * 2 * math.pi * math.sqrt(3), 4)
        1.0
    """

    def __init__(
        self, loc: Tensor | Sequence[float], covariance: Tensor | Sequence[Sequence[float]]
    ) -> None:
        super().__init__()
        loc, covariance = as_floats("MultivariateNormal", loc=loc, covariance=covariance)
        self.event_shape = as_event_shape(loc.shape)
        dim = loc.shape[0]
        if loc.dim() != 1 or covariance.shape != (dim, dim):
            raise ValueError(
                "MultivariateNormal: expected loc of shape (D,) and covariance of shape (D, D), "
                f"got {tuple(loc.shape)} and {tuple(covariance.shape)}"
            )
        factor, failed = torch.linalg.cholesky_ex(covariance)
        if failed or not torch.allclose(covariance, covariance.T):
            raise ValueError(
                "MultivariateNormal: expected a symmetric, positive definite covariance, "
                f"got {covariance.tolist()}"
            )
        self.register_buffer("loc", loc)
        self.register_buffer("scale_tril", factor)

    def log_prob(self, z: Tensor) -> Tensor:
        """``log p_Z(z)`` in nats: ``(..., D)`` to ``(...)``."""
        require_event("MultivariateNormal", z, self.event_shape, leading=None)
        rows = (z - self.loc).reshape(-1, len(self.loc))  # one solve for all, not one for each
        white = torch.linalg.solve_triangular(self.scale_tril, rows.T, upper=False)
        log_p = -0.5 * (white.square() + math.log(2 * math.pi)).sum(0)
        return log_p.reshape(z.shape[:-1]) - self.scale_tril.diagonal().log().sum()

    def sample(
        self, n: int | Sequence[int] = (), generator: torch.Generator | None = None
    ) -> Tensor:
        """``n + (D,)`` independent draws."""
        draws = standard_draws(self.loc, n, self.event_shape, generator)
        return self.loc + draws @ self.scale_tril.T


# --- the flow -----------------------------------------------------------------------------


class Flow(nn.Module):
    r"""A density: a :class:`Bijection` to the latent side, and a base density there.

    Args:
        bijection: the map ``f: x -> z``.
        base: the latent density, a module with ``event_shape``, ``log_prob`` and ``sample``,
            such as :class:`StandardNormal`.
        event_shape: the shape of one data point, if it is not that of a latent point.

    Raises:
        TypeError: if the one is no :class:`Bijection`, or the other lacks one of the three.
        ValueError: if data and latent points have not the same number of coordinates.

    Attributes:
        event_shape: the shape of one data point.
        context_dim: the size of the context that it must be given, 0 for none; None, as here,
            where only the bijection knows. Ready flows set it.

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

    context_dim: int | None = None

    def __init__(
        self,
        bijection: Bijection,
        base: nn.Module,
        event_shape: int | Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(bijection, Bijection):
            raise TypeError(f"Flow: expected a Bijection, got a {type(bijection).__name__}")
        for name in ("event_shape", "log_prob", "sample"):
            if not hasattr(base, name):
                raise TypeError(f"Flow: the base, a {type(base).__name__}, has no {name}")
        self.bijection = bijection
        self.base = base
        self.event_shape = as_event_shape(base.event_shape if event_shape is None else event_shape)
        if math.prod(self.event_shape) != math.prod(base.event_shape):
            raise ValueError(
                f"Flow: data points of shape {tuple(self.event_shape)} and latent ones of shape "
                f"{tuple(base.event_shape)} have not the same number of coordinates"
            )

    def log_prob(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """The log-density in nats.

        Args:
            x: data, ``(..., *event)``, finite, in the flow's own dtype.
            context: what the density is conditioned on, ``(..., C)``; its leading dimensions
                broadcast against those of ``x``.

        Returns:
            ``log p(x)``, of the shape of the leading dimensions.

        Raises:
            TypeError: if ``x`` or ``context`` is no tensor.
            ValueError: if shape, dtype or values are not as above. Values are looked at in eager
                mode only, not under ``torch.compile`` or ``torch.func``.
        """
        self._check("log_prob", "x", x, self.event_shape)
        lead = x.shape[: x.dim() - len(self.event_shape)]
        self._check_context("log_prob", context)
        if context is not None:
            lead = broadcast_leads(lead, context.shape[:-1])
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
        _, x, _ = self._draw(n, context, generator)
        return x

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
        z, x, log_det = self._draw(n, context, generator)
        log_prob = self.base.log_prob(z) - log_det
        return x, log_prob.reshape(x.shape[: x.dim() - len(self.event_shape)])

    def _draw(
        self,
        n: int | Sequence[int],
        context: Tensor | None,
        generator: torch.Generator | None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Base draws in one batch, what becomes of them in their shape, ``log|det dx/dz|``."""
        lead = as_sample_shape(n)
        self._check_context("sample", context)
        if context is not None:
            lead = (*lead, *context.shape[:-1])
            context = context.expand(*lead, context.shape[-1]).reshape(-1, context.shape[-1])
        z = self.base.sample(math.prod(lead), generator)
        x, log_det = self.bijection.inverse(z, context)
        return z, x.reshape(*lead, *self.event_shape), log_det

    @torch.no_grad()
    def initialize(self, batch: Tensor, context: Tensor | None = None) -> None:
        """Let every layer set its data-dependent start from a batch ``(batch, *event)``."""
        self._check("initialize", "batch", batch, self.event_shape)
        self._check_context("initialize", context)
        if batch.dim() != len(self.event_shape) + 1:
            raise ValueError(
                f"initialize: expected one batch dimension, got shape {tuple(batch.shape)}"
            )
        self.bijection.initialize(batch, context)

    def _check_context(self, where: str, context: Tensor | None) -> None:
        if context is None:
            if self.context_dim:
                raise ValueError(
                    f"{where}: this flow needs a context of shape (..., {self.context_dim})"
                )
        elif self.context_dim == 0:
            raise ValueError(
                f"{where}: this flow takes no context; context_dim makes one that does"
            )
        else:
            free = self.context_dim is None and isinstance(context, Tensor)
            size = context.shape[-1:] if free else (self.context_dim,)
            self._check(where, "context", context, size)

    def _check(self, where: str, name: str, x: Tensor, event: Sequence[int]) -> None:
        """The flow's door: shapes always, values where they can be seen."""
        if not isinstance(x, Tensor):
            raise TypeError(
                f"{where}: expected {name} to be a torch.Tensor, got {type(x).__name__}; "
                "torch.as_tensor makes one"
            )
        if x.dim() < max(1, len(event)) or tuple(x.shape[x.dim() - len(event) :]) != tuple(event):
            expected = ", ".join(["...", *map(str, event or "C")])
            raise ValueError(
                f"{where}: expected {name} of shape ({expected}), got {tuple(x.shape)}"
                + channels_hint(x, event)
            )
        if name == "context":
            if values_are_visible(x):
                require_finite(where, name, x)
        else:
            self.check_values(where, name, x)
        tensors = itertools.chain(self.parameters(), self.buffers())
        own = next((t for t in tensors if t.is_floating_point()), x)
        if x.dtype != own.dtype:
            raise ValueError(
                f"{where}: the flow is in {own.dtype}, {name} in {x.dtype}; "
                f"{name}.to({own.dtype}) makes them one"
            )

    def check_values(self, where: str, name: str, x: Tensor) -> None:
        """Raise ``ValueError`` if ``x`` has values that this flow cannot take, where one may look.

        Args:
            where: who asks, for the message.
            name: what the caller knows ``x`` as.
            x: data of the right shape.
        """
        if values_are_visible(x):
            require_finite(where, name, x)


# --- what the flows share at their doors --------------------------------------------------


def as_event_shape(event_shape: int | Sequence[int]) -> torch.Size:
    """An int or a sequence of positive ints as a ``torch.Size``; ``ValueError`` for others."""
    shape = as_ints(event_shape)
    if not shape or min(shape) < 1:
        raise ValueError(
            f"event_shape: expected a positive int or several of them, got {event_shape!r}"
        )
    return torch.Size(shape)


def as_sample_shape(n: int | Sequence[int]) -> torch.Size:
    """A number of draws, or the shape of an array of draws; ``ValueError`` for others."""
    shape = as_ints(n)
    if shape is None or min(shape, default=0) < 0:
        raise ValueError(f"n: expected a count or a shape of counts, got {n!r}")
    return torch.Size(shape)


def as_ints(value: int | Sequence[int]) -> tuple[int, ...] | None:
    """One int or several as a tuple, NumPy's included; None where one is no int."""
    try:
        return tuple(map(operator.index, value if isinstance(value, Iterable) else (value,)))
    except TypeError:
        return None


def broadcast_leads(x: torch.Size, context: torch.Size) -> torch.Size:
    """The common leading shape of data and context; ``ValueError`` where there is none."""
    try:
        return torch.broadcast_shapes(x, context)
    except RuntimeError:
        raise ValueError(
            f"the leading shapes of x {tuple(x)} and of context {tuple(context)} do not broadcast"
        ) from None


def standard_draws(
    like: Tensor,
    n: int | Sequence[int],
    event_shape: torch.Size,
    generator: torch.Generator | None,
) -> Tensor:
    """Standard normal draws ``n + event`` with the dtype and on the device of ``like``."""
    shape = (*as_sample_shape(n), *event_shape)
    return torch.randn(shape, dtype=like.dtype, device=like.device, generator=generator)


def as_floats(where: str, **arrays) -> list[Tensor]:
    """Copies of arrays as tensors of floats, all of one dtype and finite."""
    tensors = [torch.as_tensor(a).detach().clone() for a in arrays.values()]
    dtype = functools.reduce(torch.promote_types, (t.dtype for t in tensors))
    dtype = dtype if dtype.is_floating_point else torch.get_default_dtype()
    for name, tensor in zip(arrays, tensors, strict=True):
        require_finite(where, name, tensor)
    return [tensor.to(dtype) for tensor in tensors]


def sum_event(x: Tensor) -> Tensor:
    """``(batch, *event)`` to ``(batch,)``."""
    return x.flatten(1).sum(1)


def values_are_visible(x: Tensor) -> bool:
    """Whether code may branch on a tensor's values: not when compiling or transforming."""
    return (
        not torch.compiler.is_compiling()
        and torch._C._functorch.peek_interpreter_stack() is None
        and not x.is_meta
    )


def require_event(where: str, x: Tensor, event_shape: torch.Size, leading: int | None = 1) -> None:
    """Raise ``ValueError`` unless ``x`` has that shape after its leading dimensions (None: any).

    Without this, broadcasting would make some number of what does not fit.
    """
    count = x.dim() - len(event_shape)
    if x.shape[max(0, count) :] != event_shape or leading not in (None, count):
        expected = ", ".join(["..." if leading is None else "batch", *map(str, event_shape)])
        raise ValueError(f"{where}: expected shape ({expected}), got {tuple(x.shape)}")


def channels_hint(x: Tensor, event_shape: Sequence[int]) -> str:
    """What to do where an image's channels are last, or its only one is not written, else ''."""
    if len(event_shape) == 3:
        c, *sides = event_shape
        if list(x.shape[-3:]) == [*sides, c]:
            return "; channels come first: x.movedim(-1, -3) puts them there"
        if c == 1 and x.dim() <= 3 and list(x.shape[-2:]) == sides:
            return "; x.unsqueeze(-3) adds the one channel"
    return ""


def require_inside(where: str, x: Tensor, low: float, high: float) -> None:
    """Raise ``ValueError`` unless all values lie strictly between two bounds, if one may look."""
    if values_are_visible(x) and not ((x > low) & (x < high)).all():
        outside = x[~((x > low) & (x < high))][0].item()
        raise ValueError(
            f"{where}: expected values strictly between {low} and {high}, got {outside:g}"
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
