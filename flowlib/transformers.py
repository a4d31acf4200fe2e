"""Transformers: a monotone map of each coordinate by itself, with parameters from outside.

A coupling layer and an autoregressive one differ in whose word a coordinate's parameters are. What
they do to the coordinate is the same, and stands here once. A coupling hands over all coordinates
that move; a network that is run coordinate by coordinate hands over some of them, and says which.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flowlib.arguments import as_count, as_number
from flowlib.saving import Recorded

__all__ = ["Additive", "Affine", "Gate", "Spline", "Transformer"]


class Transformer(Recorded, nn.Module, ABC):
    """Base class of the transformers.

    Both methods take coordinates ``(batch, k)``, or channels ``(batch, k, ...)``, and their
    parameters ``(batch, n_params * k, ...)``, all first parameters first. They return the moved
    coordinates and the logarithm of the slope at each, both of the shape of the first argument.

    Args:
        dim: how many coordinates (or channels) there are in all, None if any number will do.

    Attributes:
        n_params: how many parameters a coordinate has.

    Raises:
        ValueError: if ``dim`` is not a positive whole number.

    Source: Papamakarios et al. (2021), section 3.1.
    """

    n_params: int

    def __init__(self, dim: int | None = None) -> None:
        super().__init__()
        self.dim = None if dim is None else as_count(type(self).__name__, "dim", dim, 1)

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

    Args:
        dim: how many coordinates there are, None if any number will do.

    Raises:
        ValueError: if ``dim`` is not a positive whole number.

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
        super().__init__(dim)
        bound = as_number("Affine", "bound", bound)
        self.low = nn.Parameter(torch.full((dim,), -bound))
        self.width = nn.Parameter(torch.full((dim,), 2 * bound))

    def forward(self, x: Tensor, params: Tensor, at: Tensor | None = None) -> tuple[Tensor, Tensor]:
        log_scale, shift = self._read(params, at)
        return x * log_scale.exp() + shift, log_scale  # addcmul has a slower gradient

    def inverse(self, z: Tensor, params: Tensor, at: Tensor | None = None) -> tuple[Tensor, Tensor]:
        log_scale, shift = self._read(params, at)
        log_scale = -log_scale
        return (z - shift) * log_scale.exp(), log_scale

    def _read(self, params: Tensor, at: Tensor | None) -> tuple[Tensor, Tensor]:
        raw, shift = params.chunk(2, dim=1)
        count = self.dim if at is None else at.shape[0]
        if raw.shape[1] != count:
            raise ValueError(
                f"Affine: expected 2 parameters for each of {count} coordinates, got "
                f"{params.shape[1]}; `at` says which of the {self.dim} coordinates are given"
            )
        low, width = (self._bound(bound, raw.dim(), at) for bound in (self.low, self.width))
        # the sigmoid is on a CPU five times as fast as tanh
        return raw.sigmoid() * width + low, shift

    def _bound(self, bound: Tensor, dims: int, at: Tensor | None) -> Tensor:
        """Of these coordinates, as ``(k, 1, 1)`` for images."""
        bound = bound if at is None else bound.index_select(0, at)
        return bound if dims == 2 else bound.reshape(bound.shape + (1,) * (dims - 2))


class Gate(Transformer):
    r"""``z = g x + (1 - g) m`` with ``g = sigmoid(s' + start)``: two parameters a coordinate.

    It forgets ``x`` for ``m``, as a gate of a recurrent network does, and can only shrink. At
    ``s' = 0`` it forgets little.

    Args:
        dim: how many coordinates there are, None if any number will do.
        start: the gate's logit at ``s' = 0``.

    Raises:
        ValueError: if ``dim`` is not a positive whole number, or ``start`` not finite.

    Example:
        >>> z, log_slope = Gate(start=0.0)(torch.tensor([[2.0]]), torch.tensor([[0.0, 1.0]]))
        >>> z.item(), round(log_slope.exp().item(), 4)
        (1.5, 0.5)

    Source: Kingma et al. (2016), eqs. 13 and 14.
    """

    n_params = 2

    def __init__(self, dim: int | None = None, *, start: float = 2.0) -> None:
        super().__init__(dim)
        if not math.isfinite(start):
            raise ValueError(f"Gate: expected a finite start, got {start!r}")
        self.start = float(start)

    def forward(self, x: Tensor, params: Tensor, at: Tensor | None = None) -> tuple[Tensor, Tensor]:
        logit, other = self._read(params)
        return torch.lerp(other, x, logit.sigmoid()), F.logsigmoid(logit)

    def inverse(self, z: Tensor, params: Tensor, at: Tensor | None = None) -> tuple[Tensor, Tensor]:
        logit, other = self._read(params)
        # x = m + (z - m) / g, and 1 / g = 1 + exp(-logit)
        return other + (z - other) * (1 + (-logit).exp()), -F.logsigmoid(logit)

    def _read(self, params: Tensor) -> tuple[Tensor, Tensor]:
        raw, other = params.chunk(2, dim=1)
        return raw + self.start, other


class Spline(Transformer):
    r"""A monotone curve of rational-quadratic pieces in ``(-bound, bound)``, outside the identity.

    A coordinate has ``n_bins`` widths, as many heights, and the slopes at the knots between them,
    ``3 n_bins - 1`` parameters. At zero it is the identity.

    Args:
        dim: how many coordinates there are, None if any number will do.
        n_bins: how many pieces the curve has.
        bound: where it ends; data that are normalized lie within 4 almost always.

    Raises:
        ValueError: if ``dim`` is not a positive whole number, ``n_bins`` is less than 2 or too
            many for their least size, or ``bound`` is not positive.

    Example:
        >>> spline = Spline(n_bins=4)
        >>> z, log_slope = spline(torch.tensor([[0.5]]), torch.zeros(1, spline.n_params))
        >>> round(z.item(), 5), abs(round(log_slope.item(), 5))
        (0.5, 0.0)

    Source: Durkan, Bekasov, Murray and Papamakarios (2019), section 3.1 and appendix A.
    """

    LEAST = 1e-3  # of a width and a height as a share of the whole, and of a slope

    def __init__(self, dim: int | None = None, *, n_bins: int = 8, bound: float = 4.0) -> None:
        super().__init__(dim)
        self.n_bins = as_count("Spline", "n_bins", n_bins, 2)
        if self.n_bins * self.LEAST >= 1:
            raise ValueError(f"Spline: expected fewer than {1 / self.LEAST:g} bins, got {n_bins}")
        self.bound = as_number("Spline", "bound", bound)
        self.n_params = 3 * self.n_bins - 1
        self._at_zero = math.log(math.expm1(1 - self.LEAST))  # softplus of it, and LEAST, are 1

    def forward(self, x: Tensor, params: Tensor, at: Tensor | None = None) -> tuple[Tensor, Tensor]:
        def piece(v: Tensor, here: list[Tensor]) -> tuple[Tensor, Tensor]:
            left, width, low, height, slope, first, last = here
            t = (v - left) / width
            other, both = 1 - t, t * (1 - t)
            below = slope + (first + last - 2 * slope) * both
            z = low + height * (slope * t * t + first * both) / below
            return z, self._log_slope(slope, first, last, t, other, both, below)

        return self._through(x, params, piece, inverse=False)

    def inverse(self, z: Tensor, params: Tensor, at: Tensor | None = None) -> tuple[Tensor, Tensor]:
        def piece(v: Tensor, here: list[Tensor]) -> tuple[Tensor, Tensor]:
            left, width, low, height, slope, first, last = here
            up = v - low
            bend = up * (first + last - 2 * slope)
            a, b, c = height * (slope - first) + bend, height * first - bend, -slope * up
            root = (b * b - 4 * a * c).clamp(min=0).sqrt()
            t = 2 * c / (-b - root)  # the root that loses no digits
            other, both = 1 - t, t * (1 - t)
            below = slope + (first + last - 2 * slope) * both
            return left + width * t, -self._log_slope(slope, first, last, t, other, both, below)

        return self._through(z, params, piece, inverse=True)

    @staticmethod
    def _log_slope(
        slope: Tensor,
        first: Tensor,
        last: Tensor,
        t: Tensor,
        other: Tensor,
        both: Tensor,
        below: Tensor,
    ) -> Tensor:
        above = last * t * t + 2 * slope * both + first * other * other
        return 2 * slope.log() + above.log() - 2 * below.log()

    def _through(
        self,
        v: Tensor,
        params: Tensor,
        piece: Callable[[Tensor, list[Tensor]], tuple[Tensor, Tensor]],
        inverse: bool,
    ) -> tuple[Tensor, Tensor]:
        """The piece that ``v`` lies in, and outside of all the identity."""
        shape = (v.shape[0], self.n_params, *v.shape[1:])
        widths, heights, slopes = (
            params.reshape(shape)
            .movedim(1, -1)
            .split([self.n_bins, self.n_bins, self.n_bins - 1], -1)
        )
        x, width = self._knots(widths)
        z, height = self._knots(heights)
        inner = self.LEAST + F.softplus(slopes + self._at_zero)
        slopes = F.pad(inner, (1, 1), value=1.0)
        inside = v.abs() < self.bound
        safe = v.clamp(-self.bound, self.bound)
        knots = z if inverse else x
        which = (safe[..., None] >= knots[..., 1:-1]).sum(-1, keepdim=True)
        parts = (
            x[..., :-1],
            width,
            z[..., :-1],
            height,
            height / width,
            slopes[..., :-1],
            slopes[..., 1:],
        )
        here = [part.gather(-1, which).squeeze(-1) for part in parts]
        made, log_slope = piece(safe, here)
        return torch.where(inside, made, v), log_slope.masked_fill(~inside, 0.0)

    def _knots(self, raw: Tensor) -> tuple[Tensor, Tensor]:
        """Where the pieces end, from ``-bound`` to ``bound`` exactly, and how long they are."""
        share = self.LEAST + (1 - self.LEAST * self.n_bins) * raw.softmax(-1)
        inner = self.bound * (2 * share.cumsum(-1)[..., :-1] - 1)
        ends = F.pad(inner, (1, 0), value=-self.bound)
        knots = F.pad(ends, (0, 1), value=self.bound)
        return knots, knots.diff(dim=-1)
