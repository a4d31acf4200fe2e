r"""Coupling: move some coordinates by what the others say.

A coupling layer keeps the coordinates of its mask, feeds them to a network of any kind, the
conditioner, and moves each of the others by a simple monotone map, the transformer, whose
parameters the network makes. What was kept is still there on the other side, so that the same
parameters can be made again and the move undone. The Jacobian is triangular in blocks, and its
determinant the product of the transformer's slopes,

.. math:: z_{\text{kept}} = x_{\text{kept}}, \qquad
    z_{\text{moved}} = x_{\text{moved}} \odot e^{s(x_{\text{kept}})} + t(x_{\text{kept}}), \qquad
    \log\left|\det \frac{\partial z}{\partial x}\right| = \sum_i s_i(x_{\text{kept}}).

This is the code of chapter 2.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn

from flowlib.flow import (
    Bijection,
    Compose,
    ElementwiseAffine,
    Flow,
    Permutation,
    StandardNormal,
    as_event_shape,
    as_ints,
    require_event,
    sum_event,
)
from flowlib.nn import MLP

__all__ = [
    "NICE",
    "ActNorm",
    "Additive",
    "Affine",
    "BatchNorm",
    "Coupling",
    "RealNVP",
    "alternating_mask",
    "half_mask",
    "random_mask",
]


# --- masks: True is kept ------------------------------------------------------------------


def alternating_mask(dim: int, offset: int = 0) -> Tensor:
    """Every second coordinate, from ``offset`` 0 or 1 on.

    Example:
        >>> alternating_mask(5, 1).tolist()
        [False, True, False, True, False]
    """
    (dim,) = as_event_shape(dim)
    return torch.arange(dim) % 2 == offset % 2


def half_mask(dim: int, second: bool = False) -> Tensor:
    """The first ``dim // 2`` coordinates, or the rest.

    Example:
        >>> half_mask(5).tolist(), half_mask(3, second=True).tolist()
        ([True, True, False, False, False], [False, True, True])
    """
    (dim,) = as_event_shape(dim)
    return (torch.arange(dim) < dim // 2) != second


def random_mask(dim: int, generator: torch.Generator | None = None) -> Tensor:
    """Any ``dim // 2`` of the coordinates.

    Example:
        >>> random_mask(10, torch.Generator().manual_seed(0)).sum().item()
        5
    """
    (dim,) = as_event_shape(dim)
    mask = torch.zeros(dim, dtype=torch.bool)
    mask[torch.randperm(dim, generator=generator)[: dim // 2]] = True
    return mask


# --- transformers: a monotone map of one coordinate, with parameters from outside ------------


class Additive(nn.Module):
    """``z = x + t``: a transformer with one parameter a coordinate, of slope 1.

    Source: Dinh, Krueger and Bengio (2015), section 3.2.
    """

    n_params = 1

    def forward(self, x: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        """``z`` and the logarithm of the slope at each coordinate, both of the shape of ``x``."""
        return x + params, torch.zeros_like(x)

    def inverse(self, z: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        return z - params, torch.zeros_like(z)


class Affine(nn.Module):
    r"""``z = x exp(s) + t``: a transformer with two parameters a coordinate.

    The log-scale is bounded on both sides, ``s = low + width * sigmoid(s')`` with learned ``low``
    and ``width`` for each coordinate, so that a single outlier cannot make it explode and it can
    expand as well as shrink. They start at ``-bound`` and ``2 * bound``, where this is
    ``bound * tanh(s' / 2)``: at ``s' = t = 0`` it is the identity.

    Args:
        dim: how many coordinates it moves; of images, how many channels, whose pixels share
            their bounds.
        bound: where the bounds on the log-scale start.

    Raises:
        ValueError: if ``bound`` is not positive.

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
        if not 0 < bound < math.inf:
            raise ValueError(f"Affine: expected a positive bound, got {bound}")
        (dim,) = as_event_shape(dim)
        self.low = nn.Parameter(torch.full((dim,), -float(bound)))
        self.width = nn.Parameter(torch.full((dim,), 2.0 * bound))

    def forward(self, x: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        """``z`` and the logarithm of the slope at each coordinate, both of the shape of ``x``."""
        log_scale, shift = self._read(params)
        return torch.addcmul(shift, x, log_scale.exp()), log_scale

    def inverse(self, z: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        log_scale, shift = self._read(params)
        return (z - shift) * (-log_scale).exp(), -log_scale

    def _read(self, params: Tensor) -> tuple[Tensor, Tensor]:
        raw, shift = params.chunk(2, dim=1)
        require_event("Affine", raw, self.low.shape + raw.shape[2:])
        low, width = (_on_places(bound, raw) for bound in (self.low, self.width))
        # the sigmoid is on a CPU five times as fast as tanh
        return torch.addcmul(low, width, raw.sigmoid()), shift


def _on_places(values: Tensor, like: Tensor) -> Tensor:
    """``(C,)`` as ``(C, 1, 1)`` for a batch of images, as it is for vectors."""
    return values.reshape(values.shape + (1,) * (like.dim() - 2))


# --- the layer ----------------------------------------------------------------------------


class Coupling(Bijection):
    """A coupling layer on vectors, or on the channels of images.

    Args:
        mask: ``(D,)``, bool: which coordinates, or channels, are kept. Some must be, and some
            must not.
        conditioner: a module from ``(batch, kept)``, or ``(batch, kept + C)`` with a context, to
            ``(batch, n_params * moved)``, all first parameters first. It need not be invertible.
            Of images both arrays end in ``(H, W)``, and the context is the same at each pixel.
        transformer: :class:`Additive` or :class:`Affine`, or another with ``n_params``,
            ``forward`` and ``inverse``.
        places: ``()`` for vectors, ``(H, W)`` for images ``(D, H, W)``.

    Raises:
        ValueError: if the mask is not as above, or, when it is used, the conditioner makes another
            number of parameters.

    Example:
        >>> layer = Coupling(half_mask(4), MLP(2, (16,), 4), Affine(2))
        >>> z, log_det = layer(torch.randn(3, 4))
        >>> z.shape, log_det.tolist()
        (torch.Size([3, 4]), [0.0, 0.0, 0.0])

    Source: Dinh, Sohl-Dickstein and Bengio (2017), section 3.
    """

    def __init__(
        self,
        mask: Tensor,
        conditioner: nn.Module,
        transformer: nn.Module,
        places: Sequence[int] = (),
    ) -> None:
        super().__init__()
        mask = torch.as_tensor(mask)
        if mask.dim() != 1 or mask.dtype != torch.bool or mask.all() or not mask.any():
            raise ValueError(
                "Coupling: expected a mask (D,) of bools, some True (kept) and some False "
                f"(moved), got {mask.tolist()}"
            )
        self.conditioner = conditioner
        self.transformer = transformer
        self.register_buffer("kept", mask.nonzero()[:, 0], persistent=False)
        self.register_buffer("moved", (~mask).nonzero()[:, 0], persistent=False)
        self.event_shape = as_event_shape([len(mask), *places])
        # Halves are taken and put together as slices, which is faster than by their indices.
        self.sizes = _runs(mask)

    @property
    def mask(self) -> Tensor:
        """``(D,)``, bool: which coordinates are kept."""
        nothing = torch.zeros(self.event_shape[0], dtype=torch.bool, device=self.kept.device)
        return nothing.index_fill(0, self.kept, True)

    def get_extra_state(self) -> Tensor:
        """The mask, saved with the weights, which are of no use under another one."""
        return self.mask

    def set_extra_state(self, mask: Tensor) -> None:
        mask = mask.to(self.kept.device, torch.bool)  # casting a whole state may have changed it
        if mask.shape != self.event_shape[:1] or mask.all() or not mask.any():
            raise ValueError(
                f"Coupling: expected a saved mask of {self.event_shape[0]} coordinates, some kept "
                f"and some moved, got {mask.tolist()}"
            )
        self.kept, self.moved = mask.nonzero()[:, 0], (~mask).nonzero()[:, 0]
        self.sizes = _runs(mask)

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._move(self.transformer.forward, x, context)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._move(self.transformer.inverse, z, context)

    def _move(self, transform, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        require_event("Coupling", x, self.event_shape)
        kept, moving = self._split(x)
        params = self.conditioner(beside(kept, context))
        require_params("Coupling", params, self.transformer.n_params, moving)
        moved, log_slope = transform(moving, params)
        return self._join(x, kept, moved), sum_event(log_slope)

    def _split(self, x: Tensor) -> tuple[Tensor, Tensor]:
        if self.sizes is None:
            return x.index_select(1, self.kept), x.index_select(1, self.moved)
        first, second = x.split(self.sizes[:2], 1)
        return (first, second) if self.sizes[2] else (second, first)

    def _join(self, x: Tensor, kept: Tensor, moved: Tensor) -> Tensor:
        if self.sizes is None:
            return x.index_copy(1, self.moved, moved)
        return torch.cat((kept, moved) if self.sizes[2] else (moved, kept), 1)


def beside(x: Tensor, context: Tensor | None) -> Tensor:
    """What a conditioner reads: ``x (batch, C, ...)`` and a context, the same at each pixel."""
    if context is None:
        return x
    return torch.cat([x, _on_places(context, x).expand(*context.shape, *x.shape[2:])], 1)


def require_params(where: str, params: Tensor, n_params: int, moving: Tensor) -> None:
    """Raise ``ValueError`` unless a conditioner made so many numbers for each that moves."""
    count = moving.shape[1]
    if params.shape[1:] != (n_params * count, *moving.shape[2:]):
        what = "coordinates" if moving.dim() == 2 else f"channels of {tuple(moving.shape[2:])}"
        made = params.shape[1] if params.dim() == moving.dim() == 2 else tuple(params.shape[1:])
        raise ValueError(
            f"{where}: {count} {what} to move with {n_params} parameters each, and the "
            f"conditioner made {made}"
        )


def _runs(mask: Tensor) -> tuple[int, int, bool] | None:
    """The sizes of a mask's two halves, and whether the first is kept; None if it has no two."""
    ends = mask.diff().nonzero()
    return (
        (ends.item() + 1, len(mask) - ends.item() - 1, mask[0].item()) if len(ends) == 1 else None
    )


# --- normalization between the layers -------------------------------------------------------


class ActNorm(Bijection):
    """A shift and a scale for each coordinate (or channel), started from a batch of data.

    :meth:`Flow.initialize` sets them so that this batch leaves with mean 0 and deviation 1; from
    then on they are weights like any others. Before, it is the identity, and only the identity
    is ever started: weights that were trained or loaded stay as they are.

    Args:
        event_shape: the shape of one data point; of an image, channels first.

    Example:
        >>> norm = ActNorm(2)
        >>> x = torch.randn(100, 2) * 5 + 3
        >>> norm.initialize(x)
        >>> z, _ = norm(x)
        >>> bool(z.mean(0).abs().max() < 1e-5), bool((z.std(0) - 1).abs().max() < 1e-2)
        (True, True)

    Source: Kingma and Dhariwal (2018), section 3.1.
    """

    def __init__(self, event_shape: int | Sequence[int]) -> None:
        super().__init__()
        self.event_shape = as_event_shape(event_shape)
        self.shift = nn.Parameter(torch.zeros(self._shape()))
        self.log_scale = nn.Parameter(torch.zeros(self._shape()))

    def _shape(self) -> tuple[int, ...]:
        return (self.event_shape[0], *(1 for _ in self.event_shape[1:]))

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        require_event("ActNorm", x, self.event_shape)
        return torch.addcmul(self.shift, x, self.log_scale.exp()), self._log_det(x)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        require_event("ActNorm", z, self.event_shape)
        return (z - self.shift) * (-self.log_scale).exp(), -self._log_det(z)

    def _log_det(self, x: Tensor) -> Tensor:
        places = math.prod(self.event_shape[1:])
        return (places * self.log_scale.sum()).expand(x.shape[0])

    @torch.no_grad()
    def initialize(self, x: Tensor, context: Tensor | None = None) -> None:
        require_event("ActNorm", x, self.event_shape)
        if self.shift.any() or self.log_scale.any() or x.numel() <= x.shape[1]:
            return
        others = [d for d in range(x.dim()) if d != 1]
        deviation, mean = torch.std_mean(x, others, correction=0)
        # A coordinate that never changes is only moved; what scale it has, nobody can tell.
        changes = deviation > 8 * torch.finfo(x.dtype).eps * mean.abs()
        log_scale = torch.where(changes, -deviation.log(), 0.0)
        self.shift.copy_((-mean * log_scale.exp()).reshape(self._shape()))
        self.log_scale.copy_(log_scale.reshape(self._shape()))


class BatchNorm(Bijection):
    r"""Batch normalization as a bijection, of each coordinate or channel.

    In evaluation the running mean and variance make it an affine map like any other. In training
    the batch's own are used, with their gradient. Then the map of a whole batch is no bijection:
    rows depend on one another and the batch's mean is lost, so :meth:`inverse` refuses.

    .. math:: \log|\det| = H W \sum_c \left(\gamma_c - \tfrac12 \log(\sigma_c^2 + \epsilon)\right)

    Args:
        event_shape: the shape of one data point; of an image, channels first.
        momentum: the share of a new batch in the running statistics.
        epsilon: added to the variance.

    Raises:
        ValueError: in training, on a batch with a single value for a channel.
        RuntimeError: from :meth:`inverse` in training.

    Example:
        >>> norm = BatchNorm(2)
        >>> z, _ = norm(torch.randn(50, 2) + 7)
        >>> bool(z.mean(0).abs().max() < 1e-5)
        True

    Source: Dinh, Sohl-Dickstein and Bengio (2017), section 3.7 and appendix E.
    """

    def __init__(
        self,
        event_shape: int | Sequence[int],
        momentum: float = 0.1,
        epsilon: float = 1e-5,
    ) -> None:
        super().__init__()
        self.event_shape = as_event_shape(event_shape)
        if not 0 < momentum <= 1 or not epsilon > 0:
            raise ValueError(
                "BatchNorm: expected momentum in (0, 1] and a positive epsilon, "
                f"got {momentum} and {epsilon}"
            )
        self.momentum, self.epsilon = momentum, epsilon
        shape = (self.event_shape[0], *(1 for _ in self.event_shape[1:]))
        self.shift = nn.Parameter(torch.zeros(shape))
        self.log_scale = nn.Parameter(torch.zeros(shape))
        self.register_buffer("running_mean", torch.zeros(shape))
        self.register_buffer("running_var", torch.ones(shape))

    @torch.no_grad()
    def initialize(self, x: Tensor, context: Tensor | None = None) -> None:
        """Take the running statistics from a batch, unless there are some: without, the first
        hundred steps are lost."""
        require_event("BatchNorm", x, self.event_shape)
        fresh = not self.running_mean.any() and bool((self.running_var == 1).all())
        if fresh and x.numel() > x.shape[1]:
            others = [d for d in range(x.dim()) if d != 1]
            var, mean = torch.var_mean(x, others, correction=0, keepdim=True)
            self.running_mean.copy_(mean[0])
            self.running_var.copy_(var[0])

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        require_event("BatchNorm", x, self.event_shape)
        if self.training:
            if x.numel() <= x.shape[1]:
                raise ValueError(
                    "BatchNorm: in training the batch's variance is needed, and a batch of shape "
                    f"{tuple(x.shape)} has one value for each channel or none; use eval()"
                )
            others = [d for d in range(x.dim()) if d != 1]
            # The same, biased variance for the batch and for the running one.
            var, mean = torch.var_mean(x, others, correction=0, keepdim=True)
            var, mean = var[0], mean[0]
            with torch.no_grad():
                self.running_mean.lerp_(mean, self.momentum)
                self.running_var.lerp_(var, self.momentum)
        else:
            var, mean = self.running_var, self.running_mean
        log_slope = self.log_scale - 0.5 * (var + self.epsilon).log()
        return (x - mean) * log_slope.exp() + self.shift, self._log_det(log_slope, x)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        if self.training:
            raise RuntimeError(
                "BatchNorm: with a batch's own statistics the map has no inverse; call eval() "
                "first, or use ActNorm where a flow is trained by its own samples"
            )
        require_event("BatchNorm", z, self.event_shape)
        log_slope = self.log_scale - 0.5 * (self.running_var + self.epsilon).log()
        x = (z - self.shift) * (-log_slope).exp() + self.running_mean
        return x, -self._log_det(log_slope, z)

    def _log_det(self, log_slope: Tensor, x: Tensor) -> Tensor:
        places = math.prod(self.event_shape[1:])
        return (places * log_slope.sum()).expand(x.shape[0])


# --- ready flows --------------------------------------------------------------------------


class NICE(Flow):
    """Additive couplings, which keep volume, and a scale for each coordinate at the end.

    Layers come in pairs that keep complementary halves of the coordinates. Between two pairs the
    coordinates are shuffled once and for all, so that the halves are not always the same. The
    :class:`ActNorm` in front starts where the data are.

    Args:
        event_shape: the number of coordinates, at least 2.
        n_layers: the number of couplings, at least 2 so that each coordinate is moved.
        hidden: the widths of the conditioners.
        context_dim: the size of the context, 0 for none.

    Raises:
        ValueError: if there are fewer than 2 coordinates or couplings, or the context's size is
            negative.

    Example:
        >>> flow = NICE(3)
        >>> flow.log_prob(torch.zeros(5, 3)).shape
        torch.Size([5])

    Source: Dinh, Krueger and Bengio (2015), sections 3 and 5.1, with a normal base.
    """

    def __init__(
        self,
        event_shape: int | Sequence[int],
        n_layers: int = 6,
        hidden: int | Sequence[int] = (64, 64),
        context_dim: int = 0,
    ) -> None:
        dim = _coupled_dim("NICE", event_shape, n_layers, context_dim)
        layers = _couplings(dim, n_layers, hidden, context_dim, lambda moved: Additive())
        super().__init__(
            Compose([ActNorm(dim), *layers, ElementwiseAffine(dim)]), StandardNormal(dim)
        )
        self.context_dim = context_dim


class RealNVP(Flow):
    """Affine couplings, and an :class:`ActNorm` in front that starts where the data are.

    Layers come in pairs that keep complementary halves of the coordinates. Between two pairs the
    coordinates are shuffled once and for all, so that the halves are not always the same.

    Args:
        event_shape: the number of coordinates, at least 2.
        n_layers: the number of couplings, at least 2 so that each coordinate is moved.
        hidden: the widths of the conditioners.
        context_dim: the size of the context, 0 for none.

    Raises:
        ValueError: if there are fewer than 2 coordinates or couplings, or the context's size is
            negative.

    Example:
        >>> flow = RealNVP(3, context_dim=2)
        >>> flow.log_prob(torch.zeros(5, 3), torch.zeros(2)).shape
        torch.Size([5])

    Source: Dinh, Sohl-Dickstein and Bengio (2017).
    """

    def __init__(
        self,
        event_shape: int | Sequence[int],
        n_layers: int = 6,
        hidden: int | Sequence[int] = (64, 64),
        context_dim: int = 0,
    ) -> None:
        dim = _coupled_dim("RealNVP", event_shape, n_layers, context_dim)
        layers = _couplings(dim, n_layers, hidden, context_dim, Affine)
        super().__init__(Compose([ActNorm(dim), *layers]), StandardNormal(dim))
        self.context_dim = context_dim


def _couplings(
    dim: int,
    n_layers: int,
    hidden: int | Sequence[int],
    context_dim: int,
    make_transformer: Callable[[int], nn.Module],
) -> Iterator[Bijection]:
    for i in range(n_layers):
        if i and i % 2 == 0 and dim > 2:  # of two coordinates there are no other halves
            yield Permutation.random(dim)
        mask = half_mask(dim, second=i % 2 == 1)
        moved = int((~mask).sum())
        transformer = make_transformer(moved)
        conditioner = MLP(dim - moved + context_dim, hidden, transformer.n_params * moved)
        yield Coupling(mask, conditioner, transformer)


def _coupled_dim(
    where: str, event_shape: int | Sequence[int], n_layers: int, context_dim: int
) -> int:
    shape = as_event_shape(event_shape)
    if as_ints([n_layers, context_dim]) is None or context_dim < 0:
        raise ValueError(
            f"{where}: expected whole numbers n_layers and context_dim, the second from 0, "
            f"got {n_layers} and {context_dim}"
        )
    if len(shape) != 1 or shape[0] < 2 or n_layers < 2:
        raise ValueError(
            f"{where}: expected a vector of at least 2 coordinates and at least 2 layers, "
            f"got event_shape={tuple(shape)} and n_layers={n_layers}"
        )
    return shape[0]
