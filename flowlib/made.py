r"""MADE: masks that make an autoencoder a density.

By the chain rule of probability every density is a product of conditional ones,

.. math:: p(x) = \prod_{d=1}^{D} p(x_d \mid x_{\lt d}),

and one network can compute the parameters of all ``D`` factors at once, if its output ``d`` sees
the inputs before ``d`` and no other. Give each unit a *degree*, the last input that it may see.
Then a link may only lead to a unit of at least the same degree, and to an output of a larger one.
That is a mask on each layer's weights, and the masks' product is strictly triangular.

A density costs one pass. A draw needs the inputs one after the other, and still not ``D`` passes:
what a unit of degree ``m`` says is final once input ``m`` is known.

This is the code of chapter 3.
"""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Callable, Iterable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flowlib.flow import (
    as_event_shape,
    as_ints,
    as_sample_shape,
    broadcast_leads,
    require_event,
    require_finite,
    values_are_visible,
)

__all__ = [
    "MADE",
    "BernoulliMADE",
    "MaskedLinear",
    "cyclic_degrees",
    "hidden_mask",
    "output_mask",
    "path_counts",
    "random_degrees",
    "ranks_of",
]

WIDE = 2**18  # from so many weights on a layer leaves out blocks of zeros
STRETCH = 32  # a draw gathers what it knows after so many steps


# --- orderings and degrees ----------------------------------------------------------------------


def ranks_of(
    dim: int,
    order: str | Sequence[int] | Tensor = "natural",
    generator: torch.Generator | None = None,
) -> Tensor:
    """The rank of each coordinate, from 1: an output sees the inputs of smaller rank.

    Args:
        dim: the number ``D`` of coordinates.
        order: ``"natural"``, ``"reversed"``, ``"random"``, or ``D`` whole numbers, one for each
            coordinate, of which only the order counts. Coordinates of equal number do not see each
            other: given what comes before, they are independent.
        generator: of the random ordering.

    Returns:
        ``(D,)``, with every rank from 1 to their number taken.

    Example:
        >>> ranks_of(3, "reversed").tolist(), ranks_of(4, [7, 0, 7, 2]).tolist()
        ([3, 2, 1], [3, 1, 3, 2])
    """
    (dim,) = as_event_shape(dim)
    if isinstance(order, str):
        if order == "natural":
            return torch.arange(1, dim + 1)
        if order == "reversed":
            return torch.arange(dim, 0, -1)
        if order == "random":
            return torch.randperm(dim, generator=generator) + 1
    else:
        given = as_ints(order.tolist() if isinstance(order, Tensor) else order)
        if given is not None and len(given) == dim:
            rank = {number: r for r, number in enumerate(sorted(set(given)), 1)}
            return torch.tensor([rank[number] for number in given])
    raise ValueError(
        f'order: expected "natural", "reversed", "random" or {dim} whole numbers, got {order!r}'
    )


def cyclic_degrees(width: int, low: int, high: int) -> Tensor:
    """As many units of each degree from ``low`` to ``high`` as of every other, sorted.

    Where there are fewer units than degrees, those that there are lie evenly between the two ends.

    Example:
        >>> cyclic_degrees(5, 1, 3).tolist(), cyclic_degrees(2, 1, 9).tolist()
        ([1, 1, 2, 2, 3], [1, 9])
    """
    _require_degrees("cyclic_degrees", width, low, high)
    if width < high - low + 1:
        return torch.linspace(low, high, width).round().long() if width > 1 else _full(1, high)
    return low + (torch.arange(width) % (high - low + 1)).sort().values


def random_degrees(
    width: int, low: int, high: int, generator: torch.Generator | None = None
) -> Tensor:
    """Uniform draws with replacement from ``low`` to ``high``, in any order.

    If there are enough units, one of each degree is among them, because a degree that is missing
    cuts the links between two neighbours in the ordering.

    Example:
        >>> random_degrees(5, 1, 3, torch.Generator().manual_seed(0)).tolist()
        [3, 2, 1, 1, 3]
    """
    _require_degrees("random_degrees", width, low, high)
    count = high - low + 1
    sure = torch.arange(low, high + 1) if width >= count else _full(0, low)
    drawn = torch.randint(low, high + 1, (width - len(sure),), generator=generator)
    # shuffled: under several masks a unit should have now one degree and now another
    return torch.cat([sure, drawn])[torch.randperm(width, generator=generator)]


def _require_degrees(where: str, width: int, low: int, high: int) -> None:
    if as_ints((width, low, high)) is None or width < 1 or low > high:
        raise ValueError(
            f"{where}: expected whole numbers, a positive width and low <= high, got {width}, "
            f"{low} and {high}"
        )


def _full(width: int, value: int) -> Tensor:
    return torch.full((width,), value)


# --- masks ------------------------------------------------------------------------------------


def hidden_mask(degrees: Tensor, before: Tensor) -> Tensor:
    """Which links a hidden layer has: ``(units, units before)``, bool.

    A unit sees those before it whose degree is **not larger** than its own. The degree of an
    input is its rank.

    Example:
        >>> hidden_mask(torch.tensor([1, 2]), torch.tensor([1, 2, 3])).int().tolist()
        [[1, 0, 0], [1, 1, 0]]

    Source: Germain et al. (2015), eqs. 8 and 12.
    """
    return degrees[:, None] >= before


def output_mask(ranks: Tensor, before: Tensor) -> Tensor:
    """Which links the outputs have: ``(D, units before)``, bool.

    An output sees units whose degree is **smaller** than its rank. Here the inequality is strict,
    or an output would see its own input.

    Example:
        >>> output_mask(torch.tensor([1, 2, 3]), torch.tensor([1, 2])).int().tolist()
        [[0, 0], [1, 0], [1, 1]]

    Source: Germain et al. (2015), eq. 9.
    """
    return ranks[:, None] > before


def path_counts(masks: Sequence[Tensor]) -> Tensor:
    """How many paths lead from each input to each output: the product of a network's masks.

    Args:
        masks: of the layers, the first first, each ``(after, before)``.

    Returns:
        ``(outputs, inputs)``, float64, exact up to 2**53.

    Example:
        >>> first = torch.tensor([[1, 0], [1, 0], [1, 1]])
        >>> last = torch.tensor([[0, 0, 0], [1, 1, 0]])
        >>> path_counts([first, last]).tolist()
        [[0.0, 0.0], [2.0, 0.0]]

    Source: Germain et al. (2015), section 3.
    """
    product = torch.eye(masks[0].shape[1], dtype=torch.float64)
    for mask in masks:
        product = mask.to(product) @ product
    return product


def _spans(mask: Tensor, blocks: int) -> list[slice] | None:
    """For each block of the rows the inputs from the first to the last that it sees.

    None where it saves nothing to leave the others out: in a small layer several products cost more
    than one, and units that are not sorted by their degrees see inputs from end to end.
    """
    if mask.dim() == 3 or mask.numel() < WIDE:
        return None
    parts = mask.chunk(blocks)
    seen = [part.any(0).nonzero().flatten().tolist() or [0, -1] for part in parts]
    spans = [slice(columns[0], columns[-1] + 1) for columns in seen]
    left = sum(len(part) * (s.stop - s.start) for part, s in zip(parts, spans, strict=True))
    return spans if left < 0.8 * mask.numel() else None


class MaskedLinear(nn.Linear):
    """A linear layer some of whose weights are 0 and stay so.

    The mask multiplies the weights in each pass, so that the others are trained as if these were
    not there. It starts as :class:`torch.nn.Linear` does, but for the number of inputs of a unit
    it takes those that the unit has.

    Args:
        mask: ``(outputs, inputs)``, 1 or True where there is a link; or several on the same
            weights, ``(masks, outputs, inputs)``.
        bias: whether there is a bias.
        blocks: on a CPU, the product of a wide layer with a single mask is computed in so many
            blocks of outputs, each with the inputs from the first to the last that it sees.

    Raises:
        ValueError: if the mask is none.

    Example:
        >>> layer = MaskedLinear(torch.tensor([[1, 0], [1, 1]]))
        >>> x = torch.randn(5, 2)
        >>> torch.equal(layer(x)[:, 0], layer(x * torch.tensor([1.0, 9.0]))[:, 0])
        True
    """

    mask: Tensor

    def __init__(self, mask: Tensor, bias: bool = True, blocks: int = 4) -> None:
        mask = torch.as_tensor(mask)
        if mask.dim() not in (2, 3) or not ((mask == 0) | (mask == 1)).all():
            raise ValueError(
                "MaskedLinear: expected a mask (outputs, inputs) of zeros and ones, or several, "
                f"got shape {tuple(mask.shape)} and values {mask.unique().tolist()[:5]}"
            )
        *_, outputs, inputs = mask.shape
        super().__init__(inputs, outputs, bias)
        # a copy, in the weights' own dtype, with which the product is fastest
        mask = mask.to(self.weight.dtype, copy=True)
        self.register_buffer("mask", mask)
        links = mask.reshape(-1, outputs, inputs).sum(2).mean(0)
        grown = (inputs / links.clamp(min=1)).sqrt()
        with torch.no_grad():
            self.weight.mul_(grown[:, None])
            if bias:
                self.bias.mul_(grown)
        self.blocks = blocks
        self._find_spans()

    def _find_spans(self) -> None:
        self.spans = _spans(self.mask, self.blocks)
        self.spans_of = self.mask  # torch.func may put another mask in its place

    def _apply(self, fn, recurse=True):
        super()._apply(fn, recurse)
        self.spans_of = self.mask  # the same on another device or of another dtype
        return self

    def _load_from_state_dict(self, *args) -> None:
        super()._load_from_state_dict(*args)
        self._find_spans()

    def masked_weight(self, which: int = 0) -> Tensor:
        """The weights under one of the masks."""
        mask = self.mask
        return self.weight * (mask if mask.dim() == 2 else mask[which])

    def forward(self, x: Tensor, which: int = 0) -> Tensor:
        """``(..., inputs)`` to ``(..., outputs)``."""
        # a GPU's cost is the number of products
        if self.spans is None or self.mask is not self.spans_of or not x.is_cpu:
            return F.linear(x, self.masked_weight(which), self.bias)
        parts = [self.spans, self.weight.chunk(self.blocks), self.mask.chunk(self.blocks)]
        none = [None] * len(self.spans)
        parts.append(none if self.bias is None else self.bias.chunk(self.blocks))
        return torch.cat(
            [
                F.linear(x[..., span], weight[:, span] * mask[:, span], bias)
                for span, weight, mask, bias in zip(*parts, strict=True)
            ],
            -1,
        )


# --- the network ------------------------------------------------------------------------------


class MADE(nn.Module):
    """A network whose outputs for coordinate ``d`` see the coordinates before ``d`` alone.

    The masks are made once and kept with the weights. The last layer starts at zero, so that a
    flow whose parameters it makes starts as the identity.

    Args:
        dim: the number ``D`` of coordinates; of a single one the outputs see nothing but the
            context.
        hidden: the widths of the hidden layers, or the width of the only one; ``()`` for none.
        outputs_per_dim: how many numbers each coordinate gets.
        context_dim: the size of the context, which every output sees, 0 for none.
        order: as in :func:`ranks_of`.
        degrees: ``"cyclic"``, ``"random"``, or for each hidden layer as many whole numbers as it
            has units: from 1, with a context from 0, to the number of ranks less 1.
        activation: makes the activation between two layers, one that acts on each number by itself.
        direct: whether the inputs are also linked to the outputs directly.
        n_masks: how many sets of masks the weights have, each with an ordering and degrees of its
            own. More than one needs a random order or random degrees.
        generator: of random orderings and degrees.

    Attributes:
        ranks: ``(n_masks, D)``, the rank of each coordinate.
        degrees: for each hidden layer ``(n_masks, width)``, the degrees of its units.

    Raises:
        ValueError: if a number is out of its range, an ordering or degrees are none, or several
            sets of masks are all equal.

    Warns:
        UserWarning: if an output is cut off from an input that it may see. Layers with a unit of
            each degree, or direct links, keep all of them connected.

    Example:
        >>> made = MADE(5, hidden=(32, 32), outputs_per_dim=2)
        >>> made(torch.randn(7, 5)).shape
        torch.Size([7, 10])

    Source: Germain, Gregor, Murray and Larochelle (2015).
    """

    def __init__(
        self,
        dim: int,
        hidden: int | Sequence[int] = (64, 64),
        outputs_per_dim: int = 1,
        context_dim: int = 0,
        order: str | Sequence[int] | Tensor = "natural",
        degrees: str | Sequence[Sequence[int]] = "cyclic",
        activation: Callable[[], nn.Module] = nn.ReLU,
        direct: bool = False,
        n_masks: int = 1,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        widths = as_ints(hidden)
        numbers = as_ints((dim, outputs_per_dim, n_masks, context_dim))
        if None in (widths, numbers) or min([*widths, *numbers[:3]]) < 1 or numbers[3] < 0:
            raise ValueError(
                "MADE: expected whole numbers dim, hidden, outputs_per_dim and n_masks from 1 and "
                f"context_dim from 0, got dim={dim}, hidden={hidden}, outputs_per_dim="
                f"{outputs_per_dim}, n_masks={n_masks}, context_dim={context_dim}"
            )
        dim, outputs_per_dim, n_masks, context_dim = numbers
        self.dim, self.outputs_per_dim, self.n_masks, self.context_dim = numbers
        self.event_shape = torch.Size([self.dim])
        self.widths = widths
        wirings = []
        for _ in range(n_masks):
            ranks = ranks_of(dim, order, generator)
            wirings.append([ranks, *_as_degrees(degrees, widths, ranks, context_dim, generator)])
        wiring = torch.stack([torch.cat(parts) for parts in wirings])
        if n_masks > 1 and (wiring == wiring[0]).all():
            raise ValueError(
                f"MADE: the {n_masks} sets of masks are all equal; expected a random order or "
                "random degrees"
            )
        *inside, last = zip(*(self._masks(*parts) for parts in wirings), strict=True)
        blocks = 4 * outputs_per_dim  # the outputs of a rank are far apart
        self.layers = nn.ModuleList(MaskedLinear(_one_or_all(masks)) for masks in inside)
        self.layers.append(MaskedLinear(_one_or_all(last), blocks=blocks))
        self.activation = activation()
        self.direct = self.context = self.context_out = None
        if direct:
            across = [output_mask(r, r).repeat(outputs_per_dim, 1) for r, *_ in wirings]
            self.direct = MaskedLinear(_one_or_all(across), bias=False, blocks=blocks)
        if context_dim:
            # Through hidden units the first output sees the context only by those of degree 0,
            # and they may be few: every output sees it directly, too.
            self.context = nn.Linear(context_dim, widths[0], bias=False) if widths else None
            self.context_out = nn.Linear(context_dim, outputs_per_dim * dim, bias=False)
        for layer in filter(None, (self.layers[-1], self.direct, self.context_out)):
            for weights in layer.parameters():
                nn.init.zeros_(weights)
        self._wire(wiring)
        if not direct:
            cut = torch.stack([_cut_pairs(*parts) for parts in wirings]).any(0)
            _warn_of_cuts(cut, widths, int(wiring[:, :dim].max()))

    def _masks(self, ranks: Tensor, *degrees: Tensor) -> list[Tensor]:
        """The masks of all layers, the last one's rows once for each number of a coordinate."""
        inside = [hidden_mask(m, before) for before, m in itertools.pairwise([ranks, *degrees])]
        last = output_mask(ranks, [ranks, *degrees][-1])
        return [*inside, last.repeat(self.outputs_per_dim, 1)]

    def forward(self, x: Tensor, context: Tensor | None = None, which: int = 0) -> Tensor:
        """``(..., D)`` and a context ``(..., C)`` to ``(..., outputs_per_dim * D)``, all first
        numbers first, under one of the sets of masks."""
        require_event("MADE", x, self.event_shape, leading=None)
        self._check_context(context)
        self._check_which(which)
        first, *others = self.layers
        h = first(x, which)
        if self.context is not None:
            h = h + self.context(context)
        for layer in others:
            h = layer(self.activation(h), which)
        if self.direct is not None:
            h = h + self.direct(x, which)
        return h if self.context_out is None else h + self.context_out(context)

    def _check_context(self, context: Tensor | None) -> None:
        if context is None and not self.context_dim:
            return
        if not self.context_dim:
            raise ValueError("MADE: it takes no context; context_dim makes one that does")
        if context is None or context.shape[-1:] != (self.context_dim,):
            got = "none" if context is None else f"one of shape {tuple(context.shape)}"
            raise ValueError(
                f"MADE: expected a context of shape (..., {self.context_dim}), got {got}"
            )

    def _check_which(self, which: int) -> None:
        if not 0 <= which < self.n_masks:
            raise ValueError(f"MADE: expected which from 0 to {self.n_masks - 1}, got {which!r}")

    # --- ranks and degrees: saved with the weights, which are of no use under others ---

    def _wire(self, wiring: Tensor) -> None:
        ranks, *degrees = wiring.split([self.dim, *self.widths], 1)
        self.register_buffer("wiring", wiring, persistent=False)
        # the units by their degrees, and how many there are up to each degree
        by_degree = [part.argsort(dim=1, stable=True) for part in (ranks, *degrees)]
        # each coordinate's outputs together, coordinates by rank
        per = self.dim * torch.arange(self.outputs_per_dim, device=wiring.device)
        by_degree.append((by_degree[0][:, :, None] + per).flatten(1))
        self.register_buffer("by_degree", torch.cat(by_degree, 1), persistent=False)
        # most are so already, and need no copies then
        self.in_order = [
            [bool((part.diff() == 1).all()) for part in parts]
            for parts in zip(*by_degree, strict=True)
        ]
        count = int(ranks.max()) + 1
        self.ends = [
            [torch.bincount(part, minlength=count).cumsum(0).tolist() for part in parts]
            for parts in zip(ranks, *degrees, strict=True)
        ]
        self._wired = wiring

    def _apply(self, fn, recurse=True):
        super()._apply(fn, recurse)
        self._wired = self.wiring  # the same on another device
        return self

    @property
    def ranks(self) -> Tensor:
        return self.wiring[:, : self.dim]

    @property
    def degrees(self) -> list[Tensor]:
        return list(self.wiring.split([self.dim, *self.widths], 1)[1:])

    def get_extra_state(self) -> Tensor:
        return self.wiring

    def set_extra_state(self, wiring: Tensor) -> None:
        exact = not wiring.is_floating_point() or torch.finfo(wiring.dtype).eps * self.dim < 1
        fits = wiring.shape == self.wiring.shape and bool((wiring >= 0).all())
        if not (fits and exact and (wiring <= self.dim).all()):
            raise ValueError(
                f"MADE: expected saved ranks and degrees of shape {tuple(self.wiring.shape)}, "
                f"exact to {self.dim}, got {wiring.dtype} of shape {tuple(wiring.shape)}"
            )
        self._wire(wiring.to(self.wiring.device, torch.long, copy=True))

    # --- one coordinate after the other ---

    def autoregress(
        self,
        draw: Callable[[Tensor, Tensor], Tensor],
        rows: int,
        context: Tensor | None = None,
        given: Tensor | None = None,
        which: int = 0,
    ) -> Tensor:
        """Fill rows coordinate by coordinate, with the arithmetic of a single pass.

        A unit is computed once, when the last input that it sees is known. So in the step of a rank
        only the units of one degree are: a few rows of each layer's weights. Now and then all that
        is known goes into the constants of the units to come, and a smaller network is left. The
        result is differentiable if ``draw`` is.

        Args:
            draw: gets the indices ``(k,)`` of the coordinates of one rank and their parameters
                ``(rows, outputs_per_dim, k)``, and returns their values ``(rows, k)``.
            rows: how many.
            context: ``(rows, C)``.
            given: ``(rows, g)``, the values of the first ``g`` coordinates in the ordering.
            which: of several sets of masks.

        Returns:
            ``(rows, D)``.

        Raises:
            ValueError: if a shape is not as above.
        """
        self._check_context(context)
        self._check_which(which)
        if self.wiring is not self._wired:
            raise ValueError(
                "autoregress: expected the module's own ranks and degrees, got others in their "
                "place; give torch.func.functional_call the parameters only"
            )
        for name, part in (("context", context), ("given", given)):
            if part is not None and (part.dim() != 2 or len(part) != rows):
                raise ValueError(
                    f"autoregress: expected {name} of {rows} rows, got shape {tuple(part.shape)}"
                )
        at = 0 if given is None else given.shape[1]
        if at > self.dim:
            raise ValueError(f"autoregress: expected 0 to {self.dim} given values, got {at}")
        per, dim, activation = self.outputs_per_dim, self.dim, self.activation
        by_rank = self.by_degree[which, :dim]
        layers = self._stepwise(context, which)
        hidden, (last, *direct) = layers[: len(self.widths)], layers[len(self.widths) :]
        # What is known, features first and by degree; each step adds the rows that it makes.
        known = [last.weight.new_zeros(0, rows) for _ in self.layers]
        if given is not None:
            known[0] = given.T.to(known[0])
        (ends, *found), rank = self.ends[which], 1
        while ends[rank] <= at < dim:
            rank += 1
        settled = []
        while at < dim:
            stop = min(rank + STRETCH, len(ends))
            for layer, end in zip(hidden, found, strict=True):
                layer.cut([*end[rank - 1 : stop - 1], end[-1]])
            for layer in (last, *direct):
                layer.cut([per * end for end in (at, *ends[rank:stop], dim)])
            for step, end in enumerate(ends[rank:stop]):
                for i, layer in enumerate(hidden):
                    if layer.sizes[step]:
                        h = activation(layer.compute(step, known[i]))
                        known[i + 1] = torch.cat([known[i + 1], h])
                # before the first cut are the outputs of what was given
                params = last.compute(step + 1, known[-1])
                for layer in direct:
                    params = params + layer.compute(step + 1, known[0])
                values = draw(by_rank[at:end], params.reshape(end - at, per, rows).permute(2, 1, 0))
                if values.shape != (rows, end - at):
                    raise ValueError(
                        f"autoregress: expected draw to return values {(rows, end - at)}, got "
                        f"{tuple(values.shape)}"
                    )
                known[0] = torch.cat([known[0], values.T.to(known[0])])
                at = end
            settled.append(known[0])
            if at < dim:
                for layer, part in zip(layers, [*known, known[0]], strict=False):
                    layer.settle(part)
                known, rank = [part[:0] for part in known], stop
        x = torch.cat(settled or known[:1])
        return x.index_copy(0, by_rank, x).T.contiguous()

    def _stepwise(self, context: Tensor | None, which: int) -> list[_Stepwise]:
        """The layers, and the direct links if there are any, with their units by degree."""
        sizes = [self.dim, *self.widths, self.outputs_per_dim * self.dim]
        units = self.by_degree[which].split(sizes)
        units = [None if same else u for same, u in zip(self.in_order[which], units, strict=True)]
        weights = [
            _taken(_taken(layer.masked_weight(which), after), before, 1)
            for layer, before, after in zip(self.layers, units, units[1:], strict=False)
        ]
        starts = [
            _taken(layer.bias, after)[:, None]
            for layer, after in zip(self.layers, units[1:], strict=True)
        ]
        if self.context is not None:
            starts[0] = starts[0] + _taken(self.context(context).T, units[1])
        if self.context_out is not None:
            starts[-1] = starts[-1] + _taken(self.context_out(context).T, units[-1])
        if self.direct is not None:
            weights.append(_taken(_taken(self.direct.masked_weight(which), units[-1]), units[0], 1))
            starts.append(torch.zeros_like(starts[-1]))
        return [_Stepwise(*both) for both in zip(weights, starts, strict=True)]


def _taken(of: Tensor, units: Tensor | None, dim: int = 0) -> Tensor:
    """In the order of these units; None where they are in order."""
    return of if units is None else of.index_select(dim, units)


class _Stepwise:
    """A layer whose units are computed in steps, a few rows of its weights in each."""

    def __init__(self, weight: Tensor, start: Tensor) -> None:
        self.weight, self.start, self.first = weight, start, 0
        self.sizes, self.weights, self.starts = [], (), ()

    def cut(self, ends: Sequence[int]) -> None:
        """Cut the rows at these units; all at once, or slices would take longer than products."""
        self.sizes = [b - a for a, b in itertools.pairwise([self.first, *ends])]
        self.weights, self.starts = self.weight.split(self.sizes), self.start.split(self.sizes)
        self.first = ends[-2]

    def compute(self, step: int, known: Tensor) -> Tensor:
        """The units of a step, ``(units, rows)``; what they do not see is masked, or unknown."""
        weight = self.weights[step].narrow(1, 0, len(known))
        return torch.addmm(self.starts[step], weight, known)

    def settle(self, known: Tensor) -> None:
        """Keep the rows after the last cut, and of what is known no more than it adds to them."""
        self.start = self.compute(-1, known)
        self.weight = self.weights[-1][:, len(known) :]


def _as_degrees(
    degrees: str | Sequence[Sequence[int]],
    widths: Sequence[int],
    ranks: Tensor,
    context_dim: int,
    generator: torch.Generator | None,
) -> list[Tensor]:
    """The degrees of each hidden layer's units."""
    # A unit of degree 0 sees no input. It is worth having where it sees a context.
    high = int(ranks.max()) - 1
    low = min(high, 0 if context_dim else 1)
    if isinstance(degrees, str):
        if degrees == "cyclic":
            return [cyclic_degrees(width, low, high) for width in widths]
        if degrees == "random":
            found: list[Tensor] = []
            for width in widths:
                # no lower than the lowest before, or a unit would see nothing
                lowest = int(found[-1].min()) if found else low
                found.append(random_degrees(width, lowest, high, generator))
            return found
        raise ValueError(f'degrees: expected "cyclic", "random" or whole numbers, got {degrees!r}')
    given = [None]
    if isinstance(degrees, Iterable):
        given = [as_ints(m.tolist() if isinstance(m, Tensor) else m) for m in degrees]
    if any(m is None for m in given) or [len(m) for m in given] != list(widths):
        raise ValueError(
            f"degrees: expected whole numbers for hidden layers of {list(widths)} units, "
            f"got {degrees!r}"
        )
    least = 0 if context_dim else low
    if any(not least <= m <= high for layer in given for m in layer):
        raise ValueError(
            f"degrees: expected whole numbers from {least} to {high}, for {high + 1} ranks, "
            f"got {degrees!r}"
        )
    return [torch.tensor(m) for m in given]


def _one_or_all(masks: Sequence[Tensor]) -> Tensor:
    return torch.stack(list(masks)) if len(masks) > 1 else masks[0]


def _cut_pairs(ranks: Tensor, *degrees: Tensor) -> Tensor:
    """Which inputs an output may see and does not, ``(D, D)``.

    From an input all units can be reached whose degree is at least the lowest that a path to them
    can have, and so it is enough to follow the lowest.
    """
    lowest = ranks
    for m in degrees:
        m = m.sort().values
        following = torch.searchsorted(m, lowest.contiguous())
        # where no unit is left, as if of a degree that no output sees
        lowest = torch.cat([m, ranks.max()[None]])[following]
    return output_mask(ranks, ranks) & ~output_mask(ranks, lowest)


def _warn_of_cuts(cut: Tensor, widths: Sequence[int], n_ranks: int) -> None:
    if cut.any():
        pairs = [f"output {d + 1} from input {e + 1}" for d, e in cut.nonzero()[:3].tolist()]
        more = f" and {int(cut.sum()) - 3} more pairs" if cut.sum() > 3 else ""
        warnings.warn(
            f"MADE: the masks cut off {', '.join(pairs)}{more}. Hidden layers of {list(widths)} "
            f"units have not each degree from 1 to {n_ranks - 1}; take more units, other degrees "
            "or direct=True",
            stacklevel=3,
        )


# --- binary data --------------------------------------------------------------------------------


class BernoulliMADE(nn.Module):
    r"""A density on binary vectors, :math:`p(x) = \prod_d p(x_d \mid x_{\lt d})`.

    With several masks there are as many densities on one set of weights, and this is their mean:
    of the **probabilities**, since a mean of logits under different orderings is none. A call in
    training takes one of the masks at random, and the average over a training is a network that
    bears any of them; in evaluation, after ``eval()``, all are taken.

    Args:
        dim: the number ``D`` of coordinates.
        hidden: the widths of the hidden layers.
        context_dim: the size of the context, 0 for none.
        order: as in :func:`ranks_of`.
        degrees: as in :class:`MADE`.
        n_masks: how many; of more than one, order or degrees are random.
        activation: as in :class:`MADE`.
        direct: as in :class:`MADE`.
        generator: of random orderings and degrees.

    Attributes:
        made: the :class:`MADE` that makes the logits.

    Raises:
        ValueError: as :class:`MADE`.

    Example:
        >>> model = BernoulliMADE(4, hidden=(16,))
        >>> x = model.sample(10, generator=torch.Generator().manual_seed(0))
        >>> model.log_prob(x).exp().tolist()[:2]  # before a training all 16 are equally likely
        [0.0625, 0.0625]

    Source: Germain et al. (2015), sections 3, 4.2 and 4.3.
    """

    def __init__(
        self,
        dim: int,
        hidden: int | Sequence[int] = (64, 64),
        context_dim: int = 0,
        order: str | Sequence[int] | Tensor = "natural",
        degrees: str | Sequence[Sequence[int]] = "cyclic",
        n_masks: int = 1,
        activation: Callable[[], nn.Module] = nn.ReLU,
        direct: bool = False,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.made = MADE(
            dim, hidden, 1, context_dim, order, degrees, activation, direct, n_masks, generator
        )
        self.n_masks = self.made.n_masks
        self.event_shape = torch.Size([self.made.dim])
        self.context_dim = context_dim

    def initialize(self, batch: Tensor, context: Tensor | None = None) -> None:
        """Nothing: it starts as the uniform distribution. :func:`flowlib.fit` asks for it."""

    def log_prob(
        self,
        x: Tensor,
        context: Tensor | None = None,
        given: int = 0,
        which: int | None = None,
    ) -> Tensor:
        """The log-probability in nats.

        Args:
            x: zeros and ones, ``(..., D)``, of any type.
            context: ``(..., C)``; its leading dimensions broadcast against those of ``x``.
            given: condition on the first so many coordinates in the ordering.
            which: under which of several masks. By default it is the mean over all of them, and in
                training that under one, which torch's own generator chooses; that choice is what
                ``vmap`` cannot do.

        Returns:
            ``log p(x)``, or ``log p(rest | given)``, of the leading shape.

        Raises:
            ValueError: if a value is neither 0 nor 1, a shape is not as above, or there is no such
                mask.
        """
        x, context, lead = self._at_the_door("x", x, context, self.event_shape[0])
        self._check_given(given)
        chosen = range(self.n_masks) if which is None else [which]
        if which is None and self.training and self.n_masks > 1:
            chosen = [int(torch.randint(self.n_masks, ()))]
        terms = torch.stack([self._terms(x, context, which) for which in chosen])
        whole = _mean_prob(terms.sum(-1))
        if given:
            whole = whole - _mean_prob(terms[..., self._first(given)].sum(-1))
        return whole.reshape(lead)

    @torch.no_grad()
    def sample(
        self,
        n: int | Sequence[int] = (),
        context: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Independent draws, ``n + context.shape[:-1] + (D,)``; each is under one of the masks."""
        if context is not None:
            _require_tensor("context", context)
        lead = () if context is None else context.shape[:-1]
        nothing = self.made.layers[0].weight.new_zeros(*lead, 0)
        return self._draw(nothing, n, context, generator)

    @torch.no_grad()
    def complete(
        self,
        prefix: Tensor,
        n: int | Sequence[int] = (),
        context: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Draws of the rest, given the first values of the ordering.

        Args:
            prefix: ``(..., g)``, zeros and ones, in the ordering.
            n: how many for each prefix, an int or a shape.
            context: ``(..., C)``; its leading dimensions broadcast against those of ``prefix``.
            generator: the source of randomness, torch's own if there is none.

        Returns:
            ``n + lead + (D,)``, whole vectors in the order of the data.

        Raises:
            ValueError: also if there are several masks of different orderings: then no values
                come first.
        """
        _require_tensor("prefix", prefix)
        if not prefix.dim():
            raise ValueError("BernoulliMADE: expected a prefix of shape (..., g), got shape ()")
        self._check_given(prefix.shape[-1])
        return self._draw(prefix, n, context, generator)

    def _draw(self, prefix, n, context, generator) -> Tensor:
        prefix, context, lead = self._at_the_door("prefix", prefix, context, prefix.shape[-1])
        n = as_sample_shape(n)
        repeat = math.prod(n)
        prefix = prefix.repeat(repeat, 1)
        context = None if context is None else context.repeat(repeat, 1)
        which = self._choose(prefix, context, generator)
        x = prefix.new_empty(len(prefix), *self.event_shape)

        def draw(dims: Tensor, logits: Tensor) -> Tensor:
            p = logits[:, 0].sigmoid()
            u = torch.rand(p.shape, generator=generator, dtype=p.dtype, device=p.device)
            return (u < p).to(p)

        for k in range(self.n_masks):
            rows = (which == k).nonzero()[:, 0]
            if len(rows):
                its_context = None if context is None else context[rows]
                x[rows] = self.made.autoregress(draw, len(rows), its_context, prefix[rows], k)
        return x.reshape(*n, *lead, *self.event_shape)

    def _choose(self, prefix: Tensor, context: Tensor | None, generator) -> Tensor:
        """Under which masks each row is drawn: by how probable they make its prefix."""
        if self.n_masks == 1 or not len(prefix):
            return torch.zeros(len(prefix), dtype=torch.long, device=prefix.device)
        weights = prefix.new_ones(len(prefix), self.n_masks)
        if prefix.shape[1]:
            first = self._first(prefix.shape[1])
            x = prefix.new_zeros(len(prefix), *self.event_shape)
            x[:, first] = prefix
            terms = torch.stack([self._terms(x, context, k) for k in range(self.n_masks)], 1)
            weights = terms[..., first].sum(-1).softmax(1)
        return torch.multinomial(weights, 1, generator=generator)[:, 0]

    def _first(self, count: int) -> Tensor:
        """The first coordinates in the ordering, where all sets of masks have the same."""
        return self.made.by_degree[0, :count]

    def _terms(self, x: Tensor, context: Tensor | None, which: int) -> Tensor:
        """``(rows, D)``: the log-probability of each coordinate, given those before it."""
        logits = self.made(x, context, which)
        return -F.binary_cross_entropy_with_logits(logits, x, reduction="none")

    def _check_given(self, given: int) -> None:
        dim = self.event_shape[0]
        if as_ints((given,)) is None or not 0 <= given <= dim:
            raise ValueError(f"BernoulliMADE: expected 0 to {dim} given values, got {given!r}")
        if given and (self.made.ranks != self.made.ranks[0]).any():
            raise ValueError(
                "BernoulliMADE: the masks have different orderings, so that no values come first"
            )

    def check_values(self, where: str, name: str, x: Tensor) -> None:
        """Raise ``ValueError`` if ``x`` has other values than 0 and 1, where one may look."""
        if values_are_visible(x) and not ((x == 0) | (x == 1)).all():
            other = x[(x != 0) & (x != 1)][0].item()
            raise ValueError(
                f"{where}: expected {name} of zeros and ones, got {other:g}; a threshold makes "
                f"them, such as ({name} > 0.5)"
            )

    def _at_the_door(self, name: str, x: Tensor, context: Tensor | None, size: int):
        """Rows of zeros and ones in the weights' dtype, rows of context, their leading shape."""
        _require_tensor(name, x)
        if x.shape[-1:] != (size,):
            raise ValueError(
                f"BernoulliMADE: expected {name} of shape (..., {size}), got {tuple(x.shape)}"
            )
        self.check_values("BernoulliMADE", name, x)
        if context is not None:
            _require_tensor("context", context)
        if (context is None) != (self.context_dim == 0) or (
            context is not None and context.shape[-1:] != (self.context_dim,)
        ):
            got = "none" if context is None else f"one of shape {tuple(context.shape)}"
            raise ValueError(
                "BernoulliMADE: expected "
                + (f"a context (..., {self.context_dim})" if self.context_dim else "no context")
                + f", got {got}"
            )
        lead = x.shape[:-1]
        if context is not None:
            if values_are_visible(context):
                require_finite("BernoulliMADE", "context", context)
            lead = broadcast_leads(lead, context.shape[:-1])
            context = context.expand(*lead, -1).reshape(math.prod(lead), -1)
            x = x.expand(*lead, -1)
        dtype = self.made.layers[0].weight.dtype
        x = x.reshape(math.prod(lead), size).to(dtype)
        return x, None if context is None else context.to(dtype), lead


def _require_tensor(name: str, x) -> None:
    if not isinstance(x, Tensor):
        raise TypeError(
            f"BernoulliMADE: expected {name} as a torch.Tensor, got {type(x).__name__}; "
            "torch.as_tensor makes one"
        )


def _mean_prob(log_p: Tensor) -> Tensor:
    """The logarithm of the mean over the masks of the probabilities, ``(masks, rows)``."""
    return log_p.logsumexp(0) - math.log(len(log_p))
