r"""Autoregressive flows: MAF and IAF, one network in two directions.

A MADE makes the parameters of coordinate ``i`` from the coordinates before it, and a transformer
moves the coordinate by them. The Jacobian is triangular, and its determinant the product of the
transformer's slopes,

.. math:: z_i = \tau\big(x_i;\, h_i(x_{\lt i})\big), \qquad
    \log\left|\det \frac{\partial z}{\partial x}\right| =
    \sum_i \log \frac{\partial \tau}{\partial x_i}.

From ``x`` to ``z`` everything is known at once, and one pass does it. From ``z`` to ``x`` each
coordinate waits for those before it. A *masked autoregressive flow* normalizes the quick way: it
judges a point in one pass and draws slowly. An *inverse autoregressive flow* is the same map the
other way round: it draws in one pass and judges slowly. So one class serves both, and
:class:`IAF` is :class:`~flowlib.flow.Inverse` of what :class:`MAF` is.

This is the code of chapter 4.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from flowlib.arguments import as_count, as_event_shape, seen
from flowlib.bases import StandardNormal
from flowlib.flow import Bijection, Compose, Flow, Inverse
from flowlib.made import MADE
from flowlib.masks import ranks_of
from flowlib.nn import Hardtanh
from flowlib.normalization import ActNorm
from flowlib.saving import Recorded
from flowlib.transformers import Affine, Transformer

__all__ = [
    "IAF",
    "MAF",
    "Autoregressive",
    "Incremental",
    "Inverter",
    "Jacobi",
    "Quickest",
    "Sequential",
]


# --- three ways to invert ---------------------------------------------------------------------


class Inverter(Protocol):
    """How an :class:`Autoregressive` map is undone."""

    def __call__(
        self, layer: Autoregressive, z: Tensor, context: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """``z (batch, D)`` to ``x`` and ``log|det dx/dz|`` ``(batch,)``."""


class Sequential(Recorded):
    """A full pass for each rank, of which the coordinates of that rank are kept.

    It asks nothing of the network but that it is autoregressive, and costs ``D`` passes.

    Source: Papamakarios, Pavlakou and Murray (2017), section 3.1, eq. 4.
    """

    def __call__(
        self, layer: Autoregressive, z: Tensor, context: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        x, log_det = torch.zeros_like(z), z.new_zeros(z.shape[0])
        for rank in range(1, layer.n_ranks() + 1):
            now = layer.ranks == rank
            values, log_slope = layer.transformer.inverse(z, layer.params(x, context))
            x = torch.where(now, values, x)
            log_det = log_det + log_slope.masked_fill(~now, 0.0).sum(1)
        return x, log_det

    def __repr__(self) -> str:
        return "Sequential()"


class Incremental(Recorded):
    """Coordinate by coordinate, with the arithmetic of a single pass.

    A hidden unit is computed once, when the last coordinate that it sees is known: see
    :meth:`flowlib.MADE.autoregress`.
    """

    def __call__(
        self, layer: Autoregressive, z: Tensor, context: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        in_turn = z.index_select(1, layer.made.schedule().by_rank)  # once, and then only narrowed
        done = 0

        def step(at: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
            nonlocal done
            count = at.shape[0]
            part = in_turn.narrow(1, done, count)
            done += count
            params = params.flatten(1).to(part.dtype)
            made: tuple[Tensor, Tensor] = layer.transformer.inverse(part, params, at)
            return made

        x, log_det = layer.made.autoregress(step, z.shape[0], context)
        assert log_det is not None
        return x, log_det

    def __repr__(self) -> str:
        return "Incremental()"


class Jacobi(Recorded):
    """All coordinates at once, again and again, until none of them changes.

    After pass ``k`` the coordinates of the first ``k`` ranks are right, whatever the network is, so
    that ``D`` passes are always enough; trained networks need fewer. It stops when no bit changes:
    a small step would say nothing about the error that is left.

    Args:
        max_iter: the largest number of passes; by default as many as there are ranks.

    Attributes:
        passes: how many the last call took, the one included that saw that nothing changes.

    Raises:
        ValueError: if ``max_iter`` is not a positive whole number.

    Source: Song, Meng, Liao and Ermon (2021), *Accelerating Feedforward Computation via Parallel
    Nonlinear Equation Solving*.
    """

    def __init__(self, max_iter: int | None = None) -> None:
        self.max_iter = None if max_iter is None else as_count("Jacobi", "max_iter", max_iter, 1)
        self.passes = 0

    def __call__(
        self, layer: Autoregressive, z: Tensor, context: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        most = layer.n_ranks()
        if self.max_iter is not None:
            most = min(self.max_iter, most)
        x, log_slope = z, torch.zeros_like(z)
        for self.passes in range(1, most + 1):
            before = x
            x, log_slope = layer.transformer.inverse(z, layer.params(before, context))
            if seen((x == before).all()):  # which nobody sees under vmap: then it makes all passes
                break
        return x, log_slope.sum(1)

    def __repr__(self) -> str:
        return f"Jacobi({'' if self.max_iter is None else self.max_iter})"


FEW = 3  # coordinates, up to which whole passes of not many rows are the quickest
IN_PASSES, BY_UNITS = Sequential(), Incremental()  # made once: compiled code can use them
MANY = 128  # coordinates, beyond which direct links would be most of a network


class Quickest(Recorded):
    """Whichever of :class:`Sequential` and :class:`Incremental` takes less time; the default.

    Of one coordinate, and of up to three on fewer than 256 rows, full passes do.
    """

    def __call__(
        self, layer: Autoregressive, z: Tensor, context: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        return self.choose(layer.made.dim, z.shape[0])(layer, z, context)

    @staticmethod
    def choose(dim: int, rows: int) -> Inverter:
        """The way for so many coordinates and rows."""
        return IN_PASSES if dim == 1 or (dim <= FEW and rows < 256) else BY_UNITS

    def __repr__(self) -> str:
        return "Quickest()"


# --- the layer --------------------------------------------------------------------------------


class Autoregressive(Bijection):
    """Each coordinate is moved by what a masked network makes of those before it.

    Args:
        made: a :class:`MADE` with the transformer's number of outputs for each coordinate and one
            set of masks.
        transformer: such as ``Affine(D)``.
        inverter: how it is inverted: :class:`Incremental`, :class:`Sequential` or :class:`Jacobi`;
            None for :class:`Quickest`.

    Attributes:
        ranks: ``(D,)``, the place of each coordinate in the ordering.

    Raises:
        TypeError: if ``made`` is not a :class:`MADE`.
        ValueError: if network and transformer do not fit together.

    In compiled code it is inverted by :class:`Sequential`, whatever the inverter is.

    Example:
        >>> layer = Autoregressive(MADE(3, outputs_per_dim=2), Affine(3))
        >>> z, log_det = layer(torch.randn(5, 3))
        >>> z.shape, log_det.shape
        (torch.Size([5, 3]), torch.Size([5]))

    Source: Papamakarios, Pavlakou and Murray (2017), section 3; Kingma et al. (2016), section 3.
    """

    def __init__(
        self, made: MADE, transformer: Transformer, inverter: Inverter | None = None
    ) -> None:
        super().__init__()
        if not isinstance(made, MADE):
            raise TypeError(f"Autoregressive: expected a MADE, got a {type(made).__name__}")
        dim = made.dim
        if made.outputs_per_dim != transformer.n_params or made.n_masks != 1:
            raise ValueError(
                f"Autoregressive: expected a MADE with {transformer.n_params} outputs for each "
                f"coordinate, as {type(transformer).__name__} has parameters, and one set of "
                f"masks, got {made.outputs_per_dim} and {made.n_masks}"
            )
        if transformer.dim not in (None, dim):
            raise ValueError(
                f"Autoregressive: expected a transformer of {dim} coordinates, got "
                f"{type(transformer).__name__}({transformer.dim})"
            )
        self.made = made
        self.transformer: Any = transformer
        self.inverter: Inverter = inverter or Quickest()
        self.event_shape = made.event_shape
        self.context_dim = made.context_dim

    @property
    def ranks(self) -> Tensor:
        return self.made.ranks[0]

    def n_ranks(self) -> int:
        """How many ranks there are; under ``vmap`` and in compiled code as many as coordinates."""
        most = seen(self.ranks.max())
        return len(self.ranks) if most is None else int(most)

    def params(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """``(batch, n_params * D)``: for each coordinate, from those before it."""
        made: Tensor = self.made.unchecked(x, context)
        return made.to(x.dtype)  # under autocast a network computes in halves

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        z, log_slope = self.transformer.forward(x, self.params(x, context))
        return z, log_slope.sum(1)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        if torch.compiler.is_compiling():  # the other ways are no single graph
            return Sequential()(self, z, context)
        return self.inverter(self, z, context)

    def dependence(self, dim: int, inverse: bool = False) -> Tensor | None:
        ranks = self.ranks.cpu()
        if ranks.shape != (dim,):
            return None
        return (ranks[:, None] > ranks) | torch.eye(dim, dtype=torch.bool)


# --- ready flows ------------------------------------------------------------------------------


class _AutoregressiveFlow(Flow):
    """What both flows are: layers one after the other, each as it is or the other way round."""

    def __init__(
        self,
        event_shape: int | Sequence[int],
        n_layers: int = 5,
        hidden: int | Sequence[int] = (64, 64),
        *,
        context_dim: int = 0,
        order: str | Sequence[int] | Tensor = "random",
        base: nn.Module | None = None,
        transformer: Callable[[int], Transformer] = Affine,
        inverter: Inverter | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        where = type(self).__name__
        shape = as_event_shape(event_shape)
        if len(shape) != 1:
            raise ValueError(f"{where}: expected a vector, got event_shape={tuple(shape)}")
        (dim,) = shape
        context_dim = as_count(where, "context_dim", context_dim, 0)
        layers: list[Bijection] = []
        n_layers = as_count(where, "n_layers", n_layers, 1)
        for k, ranks in enumerate(_orders(dim, n_layers, order, generator)):
            move = transformer(dim)
            made = MADE(
                dim,
                hidden,
                outputs_per_dim=move.n_params,
                context_dim=context_dim,
                order=ranks,
                activation=functools.partial(Hardtanh, inplace=True),  # nothing else reads them
                direct=_is_direct(dim, k),
                warn=n_layers < 3,  # what one layer cuts off, another order links
                gain=_gain(dim),
            )
            layers.append(self._directed(Autoregressive(made, move, inverter)))
        super().__init__(
            Compose([ActNorm(dim), *layers]),
            StandardNormal(dim) if base is None else base,
            context_dim=context_dim,
        )

    @staticmethod
    def _directed(layer: Autoregressive) -> Bijection:
        """The layer in the direction in which the flow uses it."""
        return layer


class MAF(_AutoregressiveFlow):
    """Masked autoregressive flow: it judges a point in one pass for each layer, and draws slowly.

    Layers come in pairs of opposite orders: of two coordinates there are no others, and of more
    each pair has a random one and its reverse. The :class:`ActNorm` in front starts where the data
    are. The networks have saturating units, so that far from the data they say what they say at
    their edge. Of 4 to 128 coordinates, the networks of the first pair also have links from the
    inputs to the outputs.

    Args:
        event_shape: the number of coordinates.
        n_layers: the number of autoregressive layers.
        hidden: the widths of their networks.
        context_dim: the size of the context, 0 if it takes no context.
        order: ``"random"`` as said above, ``"natural"`` for the natural order and its reverse in
            turn, or an order for the first layer, as :func:`flowlib.masks.ranks_of` takes them.
        base: a base density on vectors of that size, such as a :class:`GaussianMixture`; None for
            :class:`StandardNormal`.
        transformer: makes a layer's transformer from the number of coordinates.
        inverter: as in :class:`Autoregressive`.
        generator: of the random orders.

    Raises:
        ValueError: if a number is out of its range, the order is not valid, or the base is of
            another shape.

    Example:
        >>> flow = MAF(3, context_dim=2)
        >>> flow.log_prob(torch.zeros(5, 3), torch.zeros(2)).shape
        torch.Size([5])

    Source: Papamakarios, Pavlakou and Murray (2017).
    """


class IAF(_AutoregressiveFlow):
    """Inverse autoregressive flow: it draws in one pass for each layer, and judges slowly.

    It is :class:`MAF` with each layer turned round by :class:`~flowlib.flow.Inverse`. The density
    of its own draws comes with them, in the same pass.

    Args:
        event_shape: the number of coordinates.
        n_layers: the number of autoregressive layers.
        hidden: the widths of their networks.
        context_dim: the size of the context, 0 if it takes no context.
        order: as in :class:`MAF`.
        base: as in :class:`MAF`.
        transformer: as in :class:`MAF`.
        inverter: how the density of a point that it has not drawn is computed.
        generator: of the random orders.

    Raises:
        ValueError: as :class:`MAF`.

    Example:
        >>> flow = IAF(3)
        >>> x, log_p = flow.rsample_and_log_prob(10)
        >>> torch.allclose(log_p, flow.log_prob(x), atol=1e-5)
        True

    Source: Kingma et al. (2016).
    """

    @staticmethod
    def _directed(layer: Autoregressive) -> Bijection:
        return Inverse(layer)


def _is_direct(dim: int, k: int) -> bool:
    """Whether layer ``k`` has direct links.

    Hidden units alone are slow to find that columns nearly repeat one another. The first pair of
    layers can say it in both directions; in the others the links cost more time than they save.
    Of up to three coordinates they are not worth theirs at all, and of very many they would be most
    of the weights.
    """
    return k < 2 and FEW < dim <= MANY


def _gain(dim: int) -> float:
    """The fewer coordinates there are, the more often the density of one bends on another's range.

    Measured on validation parts: two coordinates learn best from weights three times as large as
    usual, thirty from smaller ones, for which the same start is 5 nats worse.
    """
    return min(max(24 / dim, 1 / 3), 3.0)


def _orders(
    dim: int,
    n_layers: int,
    order: str | Sequence[int] | Tensor,
    generator: torch.Generator | None,
) -> Iterator[Tensor]:
    """The ranks of each layer: every second one has those of the one before, reversed."""
    anew = isinstance(order, str) and order == "random" and dim > 2
    ranks = ranks_of(dim, order, generator)
    for k in range(n_layers):
        if k and k % 2 == 0 and anew:
            ranks = ranks_of(dim, order, generator)
        yield ranks if k % 2 == 0 else int(ranks.max()) + 1 - ranks
