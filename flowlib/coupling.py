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

from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from flowlib.arguments import as_count, as_event_shape, seen
from flowlib.bases import StandardNormal
from flowlib.flow import Bijection, Compose, Flow, sum_event
from flowlib.maps import ElementwiseAffine, Permutation
from flowlib.nn import MLP
from flowlib.normalization import ActNorm
from flowlib.structure import Structured, on_cpu
from flowlib.transformers import Additive, Affine, Transformer

__all__ = [
    "NICE",
    "Coupling",
    "MaskedCoupling",
    "RealNVP",
    "alternating_mask",
    "half_mask",
    "random_mask",
]


# --- masks: True is kept ------------------------------------------------------------------


@on_cpu
def alternating_mask(dim: int, offset: int = 0) -> Tensor:
    """Every second coordinate, from ``offset`` 0 or 1 on.

    Example:
        >>> alternating_mask(5, 1).tolist()
        [False, True, False, True, False]
    """
    (dim,) = as_event_shape(dim)
    return torch.arange(dim) % 2 == offset % 2


@on_cpu
def half_mask(dim: int, second: bool = False) -> Tensor:
    """The first ``dim // 2`` coordinates, or the rest.

    Example:
        >>> half_mask(5).tolist(), half_mask(3, second=True).tolist()
        ([True, True, False, False, False], [False, True, True])
    """
    (dim,) = as_event_shape(dim)
    return (torch.arange(dim) < dim // 2) != second


@on_cpu
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


# --- the layers ---------------------------------------------------------------------------


class _CouplingLayer(Bijection, Structured):
    """What both forms share: the mask, which is saved with the weights, and the two directions."""

    kept: Tensor

    def __init__(self, mask: Tensor, conditioner: nn.Module, transformer: nn.Module) -> None:
        super().__init__()
        mask = mask if isinstance(mask, Tensor) else torch.as_tensor(mask, device="cpu")
        if mask.dim() < 1 or mask.dtype != torch.bool or mask.all() or not mask.any():
            raise ValueError(
                f"{type(self).__name__}: expected a mask of bools of an event's shape, some True "
                f"(kept) and some False (moved), got {mask.dtype} of shape {tuple(mask.shape)} "
                f"with {int(mask.sum())} of {mask.numel()} kept"
            )
        self.conditioner = conditioner
        self.transformer: Any = transformer
        self.n_kept = int(mask.sum())
        # a copy, since the caller's may change; numbers, since bools cannot be averaged
        self.register_structure(kept=mask.to(torch.uint8, copy=True))

    def check_structure(self, **loaded: Tensor) -> None:
        mask = loaded["kept"].bool()  # casting a whole state may have changed its dtype
        if mask.shape != self.kept.shape or mask.sum() != self.n_kept:
            raise ValueError(
                f"{type(self).__name__}: expected a saved mask of shape {tuple(self.kept.shape)} "
                f"with {self.n_kept} kept, got shape {tuple(mask.shape)} with {int(mask.sum())}"
            )

    def _require_dim(self, count: int) -> None:
        dim = getattr(self.transformer, "dim", None)
        if dim not in (None, count):
            raise ValueError(
                f"{type(self).__name__}: expected a transformer of {count} coordinates or "
                f"channels, got {type(self.transformer).__name__}({dim})"
            )

    @property
    def mask(self) -> Tensor:
        """Bool, what is kept."""
        return self.kept.bool()

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._move(self.transformer.forward, x, context)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._move(self.transformer.inverse, z, context)

    @abstractmethod
    def _move(
        self, transform: Callable[..., tuple[Tensor, Tensor]], x: Tensor, context: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Keep what is kept, and transform the rest."""

    def dependence(self, dim: int, inverse: bool = False) -> Tensor | None:
        mask = self.mask.cpu()
        if mask.shape != (dim,):
            return None
        return torch.eye(dim, dtype=torch.bool) | (~mask[:, None] & mask)


class Coupling(_CouplingLayer):
    """A coupling layer on vectors, or on the channels of images.

    Args:
        mask: ``(D,)``, bool: which coordinates, or channels, are kept. Some must be, and some
            must not.
        conditioner: a module from ``(batch, kept)``, or ``(batch, kept + C)`` with a context, to
            ``(batch, n_params * moved)``, all first parameters first. It need not be invertible.
            Of images both arrays end in ``(H, W)``, and the context is the same at each pixel.
        transformer: :class:`Additive` or :class:`Affine`, or another
            :class:`~flowlib.transformers.Transformer` of the coordinates that move.
        image_shape: ``()`` for vectors, ``(H, W)`` for images ``(D, H, W)``.

    Raises:
        ValueError: if the mask is not as above, or the transformer is of another number of
            coordinates; in use, if the conditioner makes another number of parameters.

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
        image_shape: Sequence[int] = (),
    ) -> None:
        super().__init__(mask, conditioner, transformer)
        if self.kept.dim() != 1:
            raise ValueError(
                f"Coupling: expected a mask (D,), got shape {tuple(self.kept.shape)}; "
                "MaskedCoupling takes masks of any shape"
            )
        self.event_shape = as_event_shape([len(self.kept), *image_shape])
        self._require_dim(len(self.kept) - self.n_kept)

    def prepare(self) -> None:
        """Find whether two halves can be taken as slices, which is faster than by indices."""
        self._order = self._kept_first()
        self._back = self._order.argsort()
        mask = self.mask
        ends = mask.diff().nonzero()
        self._halves: tuple[int, int, bool] | None = None  # their sizes, and if the first is kept
        if len(ends) == 1:
            first = int(ends) + 1
            self._halves = (first, len(mask) - first, bool(mask[0]))

    def _move(
        self, transform: Callable[..., tuple[Tensor, Tensor]], x: Tensor, context: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        prepared = self.is_prepared
        if prepared and self._halves is not None:
            *sizes, first_is_kept = self._halves
            kept, moving = x.split(sizes, 1) if first_is_kept else reversed(x.split(sizes, 1))
            moved, log_slope = self._transformed(transform, kept, moving, context)
            halves = (kept, moved) if first_is_kept else (moved, kept)
            return torch.cat(halves, 1), sum_event(log_slope)
        order = self._order if prepared else self._kept_first()
        back = self._back if prepared else order.argsort()
        kept, moving = x.index_select(1, order).tensor_split([self.n_kept], 1)
        moved, log_slope = self._transformed(transform, kept, moving, context)
        z = torch.cat((kept, moved), 1).index_select(1, back)
        return z, sum_event(log_slope)

    def _kept_first(self) -> Tensor:
        """The coordinates in the order in which those that are kept come first."""
        if seen(self.kept.sum()) not in (None, self.n_kept):
            raise ValueError(
                f"Coupling: expected a mask with {self.n_kept} coordinates kept in the place of "
                f"the module's own, got {int(self.kept.sum())}"
            )
        return self.kept.sort(descending=True, stable=True).indices

    def _transformed(
        self,
        transform: Callable[..., tuple[Tensor, Tensor]],
        kept: Tensor,
        moving: Tensor,
        context: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        params = self.conditioner(with_context(kept, context))
        require_params("Coupling", params, self.transformer.n_params, moving)
        return transform(moving, params.to(moving.dtype))  # under autocast they are halves


class MaskedCoupling(_CouplingLayer):
    r"""A coupling layer with any mask on an array of any shape.

    The conditioner reads the whole array, with zeros where values move, so that a convolution sees
    what was kept at its place. It also writes numbers for all of them, and half of its work is
    thrown away: :class:`Coupling` is cheaper where whole channels are kept.

    .. math:: z = b \odot x + (1 - b) \odot \big(x \odot e^{s(b \odot x)} + t(b \odot x)\big)

    Args:
        mask: bool, of the shape of one event: what is kept. Some must be, and some must not.
        conditioner: a module from ``(batch, *event)``, with a context's numbers as further
            channels, to ``(batch, n_params * C, ...)``, all first parameters first.
        transformer: such as ``Affine(C)``.

    Raises:
        ValueError: if the mask is not as above, or the transformer is of another number of
            channels; and, when it is used, if the conditioner makes another number of parameters.

    Example:
        >>> layer = MaskedCoupling(alternating_mask(5), MLP(5, 16, 10), Affine(5))
        >>> z, log_det = layer(torch.randn(3, 5))
        >>> z.shape, log_det.shape
        (torch.Size([3, 5]), torch.Size([3]))

    Source: Dinh, Sohl-Dickstein and Bengio (2017), section 3.4, eq. 9.
    """

    def __init__(self, mask: Tensor, conditioner: nn.Module, transformer: nn.Module) -> None:
        super().__init__(mask, conditioner, transformer)
        self.event_shape = torch.Size(self.kept.shape)
        self._require_dim(self.event_shape[0])

    def _move(
        self, transform: Callable[..., tuple[Tensor, Tensor]], x: Tensor, context: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        mask = self.mask
        params = self.conditioner(with_context(x.masked_fill(~mask, 0.0), context))
        require_params("MaskedCoupling", params, self.transformer.n_params, x)
        # Zeros where nothing moves: what is thrown away must not overflow either.
        params = params.unflatten(1, (self.transformer.n_params, -1)).masked_fill(mask, 0.0)
        moved, log_slope = transform(x, params.flatten(1, 2).to(x.dtype))
        return torch.where(mask, x, moved), sum_event(log_slope.masked_fill(mask, 0.0))


def with_context(x: Tensor, context: Tensor | None) -> Tensor:
    """What a conditioner reads: ``x (batch, C, ...)`` and the context, the same at each pixel."""
    if context is None:
        return x
    pixels = x.shape[2:]
    context = context.reshape(*context.shape, *(1 for _ in pixels)).expand(*context.shape, *pixels)
    return torch.cat([x, context], 1)


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
        context_dim: the size of the context, 0 if it takes no context.

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
        *,
        context_dim: int = 0,
    ) -> None:
        dim = _coupled_dim("NICE", event_shape)
        layers = _couplings("NICE", dim, n_layers, hidden, context_dim, Additive)
        super().__init__(
            Compose([ActNorm(dim), *layers, ElementwiseAffine(dim)]),
            StandardNormal(dim),
            context_dim=context_dim,
        )


class RealNVP(Flow):
    """Affine couplings, and an :class:`ActNorm` in front that starts where the data are.

    Layers come in pairs that keep complementary halves of the coordinates. Between two pairs the
    coordinates are shuffled once and for all, so that the halves are not always the same.

    Args:
        event_shape: the number of coordinates, at least 2.
        n_layers: the number of couplings, at least 2 so that each coordinate is moved.
        hidden: the widths of the conditioners.
        context_dim: the size of the context, 0 if it takes no context.
        transformer: makes a coupling's transformer from the number of coordinates that it moves;
            with :class:`Spline` it is a neural spline flow.

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
        *,
        context_dim: int = 0,
        transformer: Callable[[int], Transformer] = Affine,
    ) -> None:
        dim = _coupled_dim("RealNVP", event_shape)
        layers = _couplings("RealNVP", dim, n_layers, hidden, context_dim, transformer)
        super().__init__(
            Compose([ActNorm(dim), *layers]), StandardNormal(dim), context_dim=context_dim
        )


def _couplings(
    where: str,
    dim: int,
    n_layers: int,
    hidden: int | Sequence[int],
    context_dim: int,
    make_transformer: Callable[[int], Transformer],
) -> Iterator[Bijection]:
    n_layers = as_count(where, "n_layers", n_layers, 2)
    context_dim = as_count(where, "context_dim", context_dim, 0)
    for i in range(n_layers):
        if i and i % 2 == 0 and dim > 2:  # of two coordinates there are no other halves
            yield Permutation.random(dim)
        mask = half_mask(dim, second=i % 2 == 1)
        moved = int((~mask).sum())
        transformer = make_transformer(moved)
        conditioner = MLP(dim - moved + context_dim, hidden, transformer.n_params * moved)
        yield Coupling(mask, conditioner, transformer)


def _coupled_dim(where: str, event_shape: int | Sequence[int]) -> int:
    shape = as_event_shape(event_shape)
    if len(shape) != 1 or shape[0] < 2:
        raise ValueError(
            f"{where}: expected a vector of at least 2 coordinates, got event_shape={tuple(shape)}"
        )
    return shape[0]
