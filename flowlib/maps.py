r"""Simple bijections, which chapter 1 composes: linear maps, bends of each coordinate, orders.

Each has a log-determinant that can be read off, from a diagonal or a triangular matrix; where
coordinates only change places it is 0.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flowlib.arguments import as_count, as_event_shape
from flowlib.flow import Bijection, Elementwise, Inverse, sum_event
from flowlib.precision import exactly
from flowlib.structure import Structured

__all__ = [
    "ElementwiseAffine",
    "LULinear",
    "LeakyReLU",
    "Logit",
    "Permutation",
    "Sigmoid",
    "Softplus",
]


class ElementwiseAffine(Elementwise):
    r"""``z = (x - loc) * exp(log_scale)``, each coordinate by itself.

    The Jacobian is diagonal and the same everywhere, so that
    :math:`\log|\det| = \sum_i \texttt{log\_scale}_i`. It starts as the identity, whatever the data;
    :class:`ActNorm` starts where they are.

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
        self.loc = nn.Parameter(torch.zeros(self.event_shape))
        self.log_scale = nn.Parameter(torch.zeros(self.event_shape))

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return (x - self.loc) * self.log_scale.exp(), self.log_scale.sum().expand(x.shape[0])

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return z * (-self.log_scale).exp() + self.loc, -self.log_scale.sum().expand(z.shape[0])


class LULinear(Bijection):
    r"""A linear map ``z = L U x + bias`` whose determinant is read off a diagonal.

    ``L`` is unit lower triangular and ``U`` upper triangular with the positive diagonal
    ``exp(log_diagonal)``, so that :math:`\log|\det LU| = \sum_i \texttt{log\_diagonal}_i` costs
    ``D`` additions where a dense determinant costs ``D**3``. It starts as the identity.

    Not every matrix is such a product (a swap of two coordinates is not), but for every
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

    context_dim = 0

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.event_shape = as_event_shape(as_count("LULinear", "dim", dim, 1))
        below = dim * (dim - 1) // 2
        self.lower = nn.Parameter(torch.zeros(below))
        self.upper = nn.Parameter(torch.zeros(below))
        self.log_diagonal = nn.Parameter(torch.zeros(dim))
        self.bias = nn.Parameter(torch.zeros(dim))

    def factors(self) -> tuple[Tensor, Tensor]:
        """The triangular factors ``L`` and ``U``, each ``(D, D)``."""
        dim = self.log_diagonal.shape[0]
        empty = self.lower.new_zeros(dim, dim)
        below = torch.ones_like(empty, dtype=torch.bool).tril(-1)
        lower = empty.masked_scatter(below, self.lower) + torch.eye(dim).to(empty)
        upper = empty.masked_scatter(below, self.upper).T + self.log_diagonal.exp().diag()
        return lower, upper

    def matrix(self) -> Tensor:
        """The matrix ``L U`` of the map, ``(D, D)``."""
        lower, upper = self.factors()
        return lower @ upper

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        lower, upper = self.factors()
        with exactly(x):  # it moves the data themselves
            z = x @ upper.T @ lower.T + self.bias
        return z, self.log_diagonal.sum().expand(x.shape[0])

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        lower, upper = self.factors()
        y = torch.linalg.solve_triangular(lower, (z - self.bias).T, upper=False, unitriangular=True)
        x = torch.linalg.solve_triangular(upper, y, upper=True).T
        return x, -self.log_diagonal.sum().expand(z.shape[0])


# --- monotone maps of each coordinate, without weights --------------------------------------


class Logit(Elementwise):
    r"""``z = logit(alpha + (1 - 2 alpha) x)``, from the unit interval to the line.

    For data that live in an interval, such as the brightness of a pixel. With ``alpha > 0`` the
    interval's ends are allowed and go to a finite place; draws may then land a little outside,
    by less than ``alpha / (1 - 2 alpha)``, and can come back.

    Args:
        alpha: the margin, ``0 <= alpha < 1/2``.

    Raises:
        ValueError: if ``alpha`` is out of its range, or a value of ``x`` is not strictly inside
            the interval and its margin.

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
        margin = alpha / (1 - 2 * alpha)
        self.domain = (-margin, 1 + margin)

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
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


class Softplus(Elementwise):
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

    latent_domain = (0, math.inf)

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        # not F.softplus, which is the identity above 20 and there disagrees with its own slope
        return -F.logsigmoid(-x), sum_event(F.logsigmoid(x))

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        shrunk = torch.log(-torch.expm1(-z))
        return z + shrunk, -sum_event(shrunk)


class LeakyReLU(Elementwise):
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


class Permutation(Bijection, Structured):
    """The coordinates in another order: ``z[:, i] = x[:, order[i]]``.

    Of the first event dimension, so that a vector's coordinates or an image's channels move. Its
    log-determinant is 0. Alone it does nothing to a standard normal; between layers that treat
    coordinates differently it lets each have every role.

    Args:
        order: every number from 0 to ``D - 1``, once.

    Raises:
        ValueError: if ``order`` is not a permutation.

    Example:
        >>> p = Permutation([2, 0, 1])
        >>> z, _ = p(torch.tensor([[10.0, 20.0, 30.0]]))
        >>> z.tolist(), p.inverse(z)[0].tolist()
        ([[30.0, 10.0, 20.0]], [[10.0, 20.0, 30.0]])
    """

    context_dim = 0
    order: Tensor

    def __init__(self, order: Sequence[int] | Tensor) -> None:
        super().__init__()
        order = torch.as_tensor(order, device="cpu")
        if order.dim() != 1 or order.sort().values.tolist() != list(range(len(order))):
            raise ValueError(
                f"Permutation: expected every number from 0 to D - 1 once, got {order.tolist()}"
            )
        self.register_structure(order=order.long().clone())

    def check_structure(self, **loaded: Tensor) -> None:
        order = loaded["order"]
        if order.sort().values.tolist() != list(range(len(self.order))):
            raise ValueError(
                f"Permutation: expected a saved order of every number from 0 to "
                f"{len(self.order) - 1} once, got {order.dtype} of shape {tuple(order.shape)}"
            )

    @classmethod
    def reversal(cls, dim: int) -> Permutation:
        """The last coordinate first."""
        (dim,) = as_event_shape(dim)
        return cls(torch.arange(dim, device="cpu").flip(0))

    @classmethod
    def random(cls, dim: int, generator: torch.Generator | None = None) -> Permutation:
        """An order drawn once and kept with the weights."""
        (dim,) = as_event_shape(dim)
        return cls(torch.randperm(dim, generator=generator, device="cpu"))

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._take(x, self.order)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._take(z, self.order.argsort())

    def _take(self, x: Tensor, order: Tensor) -> tuple[Tensor, Tensor]:
        return x.index_select(1, order), x.new_zeros(x.shape[0])

    def forward_shape(self, shape: torch.Size) -> torch.Size:
        if shape[:1] != self.order.shape:
            raise ValueError(
                f"Permutation: expected {len(self.order)} coordinates, got a point of shape "
                f"{tuple(shape)}"
            )
        return shape

    def inverse_shape(self, shape: torch.Size) -> torch.Size:
        return self.forward_shape(shape)

    def dependence(self, dim: int, inverse: bool = False) -> Tensor | None:
        moved = torch.eye(dim, dtype=torch.bool)[self.order.cpu()]
        return moved.T if inverse else moved
