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
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flowlib.arguments import (
    as_count,
    as_ints,
    as_number,
    as_sample_shape,
    require_context,
    require_event,
    require_finite,
    require_tensor,
    seen,
)
from flowlib.arrays import as_tensors
from flowlib.flow import Density
from flowlib.masks import choose_degrees, cut_pairs, hidden_mask, output_mask, ranks_of
from flowlib.structure import Structured, changes
from flowlib.units import ContextNorm

__all__ = ["MADE", "BernoulliMADE", "MaskedLinear"]

WIDE = 2**18  # weights from which on a layer leaves out blocks of zeros
STEPS_OF_A_STAGE = 32  # ranks, after which what is known goes into the constants of the rest

# gets which coordinates and their parameters, gives their values and the logarithm of each slope
Step = Callable[[Tensor, Tensor], tuple[Tensor, Tensor | None]]


# --- a layer under a mask ---------------------------------------------------------------------


class _Blocks:
    """A product that leaves out blocks of zeros: of each block of outputs a span of the inputs.

    Below :data:`WIDE` weights several products cost more than one, and units that are not sorted
    by their degrees see inputs from end to end; :meth:`of` says when there is something to gain.
    """

    def __init__(self, spans: list[slice]) -> None:
        self.spans = spans

    @classmethod
    def of(cls, mask: Tensor, n_blocks: int) -> _Blocks | None:
        """The blocks of a mask ``(outputs, inputs)``, None where they save too little."""
        if mask.dim() == 3 or mask.numel() < WIDE or mask.is_meta:
            return None
        parts = mask.chunk(n_blocks)
        columns = [part.any(0).nonzero().flatten().tolist() or [0, -1] for part in parts]
        spans = [slice(c[0], c[-1] + 1) for c in columns]
        left = sum(len(part) * (s.stop - s.start) for part, s in zip(parts, spans, strict=True))
        return cls(spans) if left < 0.8 * mask.numel() else None

    def linear(self, x: Tensor, weight: Tensor, mask: Tensor, bias: Tensor | None) -> Tensor:
        """``F.linear(x, weight * mask, bias)``."""
        count = len(self.spans)
        biases = [None] * count if bias is None else bias.chunk(count)
        parts = zip(self.spans, weight.chunk(count), mask.chunk(count), biases, strict=True)
        products = [F.linear(x[..., s], w[:, s] * m[:, s], b) for s, w, m, b in parts]
        return torch.cat(products, -1)


class MaskedLinear(nn.Linear, Structured):
    """A linear layer some of whose weights are 0 and stay so.

    The mask multiplies the weights in each pass, so that the others are trained as if these were
    not there. It starts as :class:`torch.nn.Linear` does, but for the number of inputs of a unit
    it takes those that the unit has.

    Args:
        mask: ``(outputs, inputs)``, 1 or True where there is a link; or several on the same
            weights, ``(masks, outputs, inputs)``.
        bias: whether there is a bias.
        n_blocks: on a CPU, the product of a wide layer with a single mask is computed in so many
            blocks of outputs, each with the inputs from the first to the last that it sees.

    Raises:
        ValueError: if the mask has another shape, or other values than 0 and 1.

    Example:
        >>> layer = MaskedLinear(torch.tensor([[1, 0], [1, 1]]))
        >>> x = torch.randn(5, 2)
        >>> torch.equal(layer(x)[:, 0], layer(x * torch.tensor([1.0, 9.0]))[:, 0])
        True
    """

    mask: Tensor

    def __init__(self, mask: Any, bias: bool = True, *, n_blocks: int = 4) -> None:
        mask = mask if isinstance(mask, Tensor) else torch.as_tensor(mask, device="cpu")
        if mask.dim() not in (2, 3) or not ((mask == 0) | (mask == 1)).all():
            raise ValueError(
                "MaskedLinear: expected a mask (outputs, inputs) of zeros and ones, or several, "
                f"got shape {tuple(mask.shape)} and values {mask.unique().tolist()[:5]}"
            )
        *_, outputs, inputs = mask.shape
        super().__init__(inputs, outputs, bias)
        # a copy, in the weights' own dtype, with which the product is fastest
        mask = mask.to(self.weight.dtype, copy=True)
        links = mask.reshape(-1, outputs, inputs).sum(2).mean(0)
        grown = (inputs / links.clamp(min=1)).sqrt()
        with torch.no_grad():
            grown = grown.to(self.weight.device)
            self.weight.mul_(grown[:, None])
            if bias:
                self.bias.mul_(grown)
        self.n_blocks = n_blocks
        self.register_structure(mask=mask)

    def prepare(self) -> None:
        mask = self.mask
        self.blocks = _Blocks.of(mask, self.n_blocks)
        self.is_full = not mask.is_meta and bool(mask.all())

    def masked_weight(self, which: int = 0) -> Tensor:
        """The weights under one of the masks."""
        # as between hidden layers of two coordinates; a mask that has changed is looked at anew
        if self.is_full and self.is_prepared and self.is_full:
            return self.weight
        mask = self.mask
        return self.weight * (mask if mask.dim() == 2 else mask[which])

    def forward(self, x: Tensor, which: int = 0) -> Tensor:
        """``(..., inputs)`` to ``(..., outputs)``."""
        # a GPU's cost is the number of products
        if self.blocks is None or not x.is_cpu or not self.is_prepared:
            return F.linear(x, self.masked_weight(which), self.bias)
        return self.blocks.linear(x, self.weight, self.mask, self.bias)


# --- the network ------------------------------------------------------------------------------


class MADE(Structured):
    """A network whose outputs for coordinate ``d`` see the coordinates before ``d`` alone.

    The masks are made once and kept with the weights. The last layer starts at zero, so that a
    flow whose parameters it makes starts as the identity.

    Args:
        dim: the number ``D`` of coordinates; with a single one the outputs see the
            context only.
        hidden: the widths of the hidden layers, or the width of the only one; ``()`` for no hidden
            layer.
        outputs_per_dim: how many numbers each coordinate gets.
        context_dim: the size of the context, which every output sees; 0 for no context.
        order: as in :func:`~flowlib.masks.ranks_of`.
        degrees: as in :func:`~flowlib.masks.choose_degrees`.
        activation: makes the activation between two layers, one that acts on each number by itself.
        direct: whether the inputs are also linked to the outputs directly.
        n_masks: how many sets of masks the weights have, each with an ordering and degrees of its
            own. More than one needs a random order or random degrees.
        gain: how many times larger than in :class:`MaskedLinear` the hidden layers' weights start.
            With a large one, what an output says bends often over the range of an input.
        warn: whether to warn of outputs that are cut off from inputs.
        generator: of random orderings and degrees.

    Attributes:
        ranks: ``(n_masks, D)``, the rank of each coordinate.
        degrees: for each hidden layer ``(n_masks, width)``, the degrees of its units.

    Raises:
        ValueError: if a number is out of its range, an ordering or degrees are not valid, or
            several sets of masks are all equal.

    Warns:
        UserWarning: if an output is cut off from an input that it may see. Layers with a unit of
            each degree, or direct links, keep all of them connected.

    Example:
        >>> made = MADE(5, hidden=(32, 32), outputs_per_dim=2)
        >>> made(torch.randn(7, 5)).shape
        torch.Size([7, 10])

    Source: Germain, Gregor, Murray and Larochelle (2015).
    """

    wiring: Tensor
    layers: Any  # a ModuleList of MaskedLinear
    direct: MaskedLinear | None
    context: nn.Linear | None
    context_out: nn.Linear | None

    def __init__(
        self,
        dim: int,
        hidden: int | Sequence[int] = (64, 64),
        *,
        outputs_per_dim: int = 1,
        context_dim: int = 0,
        order: str | Sequence[int] | Tensor = "natural",
        degrees: str | Sequence[Sequence[int]] = "cyclic",
        activation: Callable[[], nn.Module] = nn.ReLU,
        direct: bool = False,
        n_masks: int = 1,
        gain: float = 1.0,
        warn: bool = True,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.dim = dim = as_count("MADE", "dim", dim, 1)
        self.outputs_per_dim = as_count("MADE", "outputs_per_dim", outputs_per_dim, 1)
        self.context_dim = as_count("MADE", "context_dim", context_dim, 0)
        self.n_masks = as_count("MADE", "n_masks", n_masks, 1)
        widths = as_ints(hidden)
        if widths is None or min(widths, default=1) < 1:
            raise ValueError(f"MADE: expected positive widths, got hidden={hidden!r}")
        self.widths = widths
        self.event_shape = torch.Size([dim])
        wirings = []
        for _ in range(self.n_masks):
            ranks = ranks_of(dim, order, generator)
            chosen = choose_degrees(degrees, widths, ranks, self.context_dim, generator)
            wirings.append([ranks, *chosen])
        wiring = torch.stack([torch.cat(parts) for parts in wirings])
        if self.n_masks > 1 and (wiring == wiring[0]).all():
            raise ValueError(
                f"MADE: the {n_masks} sets of masks are all equal; expected a random order or "
                "random degrees"
            )
        self._make_layers(wirings, direct, as_number("MADE", "gain", gain))
        self.activation = activation()
        self.register_structure(wiring=wiring)
        if warn and not direct:
            cut = torch.stack([cut_pairs(*parts) for parts in wirings]).any(0)
            _warn_of_cuts(cut, widths, int(wiring[:, :dim].max()))

    @torch.no_grad()
    def _make_layers(self, wirings: list[list[Tensor]], direct: bool, gain: float) -> None:
        per, size = self.outputs_per_dim, self.outputs_per_dim * self.dim
        *inside, last = zip(*(self._masks(*parts) for parts in wirings), strict=True)
        n_blocks = 4 * per  # the outputs of a rank are far apart
        self.layers = nn.ModuleList(MaskedLinear(_one_or_all(masks)) for masks in inside)
        if gain != 1:
            for weights in self.layers.parameters():
                weights.mul_(gain)
        self.layers.append(MaskedLinear(_one_or_all(last), n_blocks=n_blocks))
        self.direct = self.context = self.context_out = None
        if direct:
            across = [output_mask(r, r).repeat(per, 1) for r, *_ in wirings]
            self.direct = MaskedLinear(_one_or_all(across), bias=False, n_blocks=n_blocks)
        if self.context_dim:
            # Through hidden units the first output sees the context only by those of degree 0,
            # and they may be few: every output sees it directly, too.
            if self.widths:
                self.context = nn.Linear(self.context_dim, self.widths[0], bias=False)
            self.context_out = nn.Linear(self.context_dim, size, bias=False)
        for layer in filter(None, (self.layers[-1], self.direct, self.context_out)):
            for weights in layer.parameters():
                nn.init.zeros_(weights)

    def _masks(self, ranks: Tensor, *degrees: Tensor) -> list[Tensor]:
        """The masks of all layers, the last one's rows once for each number of a coordinate."""
        inside = [hidden_mask(m, before) for before, m in itertools.pairwise([ranks, *degrees])]
        last = output_mask(ranks, [ranks, *degrees][-1])
        return [*inside, last.repeat(self.outputs_per_dim, 1)]

    def __call__(self, x: Tensor, context: Tensor | None = None, which: int = 0) -> Tensor:
        require_event("MADE", x, self.event_shape)
        self._check(context, which)
        return self.unchecked(x, context, which)

    def unchecked(self, x: Tensor, context: Tensor | None = None, which: int = 0) -> Tensor:
        """What ``made(x, context, which)`` is without the checks."""
        made: Tensor = nn.Module.__call__(self, x, context, which)
        return made

    def forward(self, x: Tensor, context: Tensor | None = None, which: int = 0) -> Tensor:
        """``(..., D)`` and a context ``(..., C)`` to ``(..., outputs_per_dim * D)``, all first
        numbers first, under one of the sets of masks."""
        first, *others = self.layers
        h: Tensor = first(x, which)
        if self.context is not None:
            h = h + self.context(context)
        for layer in others:
            h = layer(self.activation(h), which)
        if self.direct is not None:
            h = h + self.direct(x, which)
        return h if self.context_out is None else h + self.context_out(context)

    def _check(self, context: Tensor | None, which: int) -> None:
        if context is not None and self.context_dim:
            require_event("MADE", context, (self.context_dim,), "context")
        else:
            require_context("MADE", context, self.context_dim)
        if not 0 <= which < self.n_masks:
            raise ValueError(f"MADE: expected which from 0 to {self.n_masks - 1}, got {which!r}")

    # --- ranks and degrees: the structure ---

    def prepare(self) -> None:
        self._schedules = self._make_schedules()
        self._masks_checked: list[tuple[Tensor, int]] = []

    def check_structure(self, **loaded: Tensor) -> None:
        wiring = loaded["wiring"]
        exact = not wiring.is_floating_point() or torch.finfo(wiring.dtype).eps * self.dim < 1
        fits = wiring.shape == self.wiring.shape and bool((wiring >= 0).all())
        fits = fits and all(_are_ranks(row) for row in wiring[:, : self.dim])
        if not (fits and exact and (wiring <= self.dim).all()):
            raise ValueError(
                f"MADE: expected saved ranks and degrees of shape {tuple(self.wiring.shape)}, "
                f"exact to {self.dim}, got {wiring.dtype} of shape {tuple(wiring.shape)}"
            )

    @property
    def ranks(self) -> Tensor:
        return self.wiring[:, : self.dim]

    @property
    def degrees(self) -> list[Tensor]:
        return list(self.wiring.split([self.dim, *self.widths], 1)[1:])

    def _make_schedules(self) -> list[_Schedule]:
        sizes = [self.dim, *self.widths]
        return [_Schedule(*row.split(sizes), per=self.outputs_per_dim) for row in self.wiring]

    def schedule(self, which: int = 0) -> _Schedule:
        """In which order the units are computed when coordinates come one after the other."""
        if self.is_prepared:
            self._require_own_masks()
            return self._schedules[which]
        if seen(self.wiring.sum()) is None:
            raise ValueError(
                "autoregress: expected ranks and degrees that can be read, got others in the place "
                "of the module's own under vmap; give torch.func.functional_call the parameters "
                "only"
            )
        self._require_masks()
        return self._make_schedules()[which]

    def _require_own_masks(self) -> None:
        """Check once that the layers' masks are those of the ranks and degrees."""
        now = [(layer.mask, changes(layer.mask)) for layer in self.layers]
        checked = self._masks_checked
        if len(checked) != len(now) or any(
            a[0] is not b[0] or a[1] != b[1] for a, b in zip(checked, now, strict=True)
        ):
            self._require_masks()
            self._masks_checked = now

    def _require_masks(self) -> None:
        sizes = [self.dim, *self.widths]
        for k, row in enumerate(self.wiring):
            for layer, mask in zip(self.layers, self._masks(*row.split(sizes)), strict=True):
                own = layer.mask if layer.mask.dim() == 2 else layer.mask[k]
                if not torch.equal(own.bool(), mask):
                    raise ValueError(
                        "MADE: the layers' masks are not those of its ranks and degrees; load a "
                        "whole state, not that of its layers alone"
                    )

    # --- one coordinate after the other ---

    def autoregress(
        self,
        step: Step,
        rows: int,
        context: Tensor | None = None,
        given: Tensor | None = None,
        which: int = 0,
    ) -> tuple[Tensor, Tensor | None]:
        """Fill rows coordinate by coordinate, with the arithmetic of a single pass.

        A unit is computed once, when the last input that it sees is known. So in the step of a rank
        only the units of one degree are: a few rows of each layer's weights. Now and then all that
        is known goes into the constants of the units to come, and a smaller network is left. The
        result is differentiable if ``step`` is. It cannot be compiled to one graph.

        Args:
            step: gets the indices ``(k,)`` of the coordinates of one rank and their parameters
                ``(rows, outputs_per_dim, k)``. It returns their values ``(rows, k)`` and the
                logarithm of the slope, or of the probability, of each, ``(rows, k)``; None in its
                place if the sums are not needed.
            rows: how many.
            context: ``(rows, C)``.
            given: ``(rows, g)``, the values of the first ``g`` coordinates in the ordering.
            which: of several sets of masks.

        Returns:
            The rows ``(rows, D)``, and for each the sum of its logarithms ``(rows,)`` over the
            coordinates that were not given; None if ``step`` gave None.

        Raises:
            ValueError: if a shape is not as above.

        Example:
            >>> made = MADE(3)
            >>> x, sums = made.autoregress(lambda at, p: (p[:, 0] + 1, p[:, 0]), rows=2)
            >>> x.shape, sums.tolist()
            (torch.Size([2, 3]), [0.0, 0.0])
        """
        self._check(context, which)
        for name, part in (("context", context), ("given", given)):
            if part is not None and (part.dim() != 2 or len(part) != rows):
                raise ValueError(
                    f"autoregress: expected {name} of {rows} rows, got shape {tuple(part.shape)}"
                )
        if given is not None and given.shape[1] > self.dim:
            raise ValueError(
                f"autoregress: expected 0 to {self.dim} given values, got {given.shape[1]}"
            )
        return _Autoregression(self, rows, context, given, which).run(step)


def _are_ranks(row: Tensor) -> bool:
    """Whether these are all whole numbers from 1 to the largest."""
    taken: list[int] = row.unique().tolist()
    return taken == list(range(1, len(taken) + 1))


class _Schedule:
    """Which units of a network are computed when its inputs come by their ranks.

    Attributes:
        units: of the inputs, of each hidden layer and of the outputs the indices by degree, None
            where they are in that order already; outputs have those of a coordinate together.
        ends: of the inputs and of each hidden layer how many units there are up to each degree.
        by_rank: the coordinates in the order in which they come.
    """

    def __init__(self, ranks: Tensor, *degrees: Tensor, per: int) -> None:
        units = [part.argsort(stable=True) for part in (ranks, *degrees)]
        self.by_rank = units[0]
        steps = len(ranks) * torch.arange(per, device=ranks.device)
        units.append((units[0][:, None] + steps).flatten())
        # most are in order, and need no copies then
        self.units = [None if bool((part.diff() == 1).all()) else part for part in units]
        count = int(ranks.max()) + 1
        self.ends: list[list[int]] = [
            torch.bincount(part, minlength=count).cumsum(0).tolist() for part in (ranks, *degrees)
        ]


class _Autoregression:
    """A network that is run rank by rank; each method is one stage of it.

    All arrays have units first and rows second, and units are sorted by degree.
    """

    def __init__(
        self,
        made: MADE,
        rows: int,
        context: Tensor | None,
        given: Tensor | None,
        which: int,
    ) -> None:
        self.schedule = made.schedule(which)
        self.rows, self.dim, self.per = rows, made.dim, made.outputs_per_dim
        self.activation = made.activation
        layers = self._sorted_layers(made, context, which)
        self.hidden, self.outputs = layers[: len(made.widths)], layers[len(made.widths) :]
        # Inputs and hidden units of the present stage; each step adds the rows that it makes.
        self.known = [layers[0].weight.new_zeros(0, rows) for _ in (0, *made.widths)]
        if given is not None:
            self.known[0] = given.T.to(self.known[0])
        self.finished: list[Tensor] = []
        self.at = len(self.known[0])  # how many coordinates have values

    def run(self, step: Step) -> tuple[Tensor, Tensor | None]:
        """All ranks, in stages of a few each."""
        (ends, *_), rank = self.schedule.ends, 1
        terms: list[Tensor] = []
        judged = True
        while ends[rank] <= self.at < self.dim:
            rank += 1
        while self.at < self.dim:
            stop = min(rank + STEPS_OF_A_STAGE, len(ends))
            self._begin_stage(rank, stop)
            for k, end in enumerate(ends[rank:stop]):
                self._compute_hidden(k)
                values, term = step(self.schedule.by_rank[self.at : end], self._parameters(k, end))
                shape = (self.rows, end - self.at)
                if values.shape != shape or (term is not None and term.shape != shape):
                    got = [None if part is None else tuple(part.shape) for part in (values, term)]
                    raise ValueError(
                        "autoregress: expected step to return values and logarithms of shape "
                        f"{shape}, got {got[0]} and {got[1]}"
                    )
                if term is None:
                    judged = False
                else:
                    terms.append(term)
                self.known[0] = torch.cat([self.known[0], values.T.to(self.known[0])])
                self.at = end
            self._end_stage()
            rank = stop
        x = torch.cat(self.finished or self.known[:1])
        x = x.index_copy(0, self.schedule.by_rank, x).T.contiguous()
        if not judged:
            return x, None
        return x, torch.cat(terms, 1).sum(1) if terms else x.new_zeros(self.rows)

    def _sorted_layers(self, made: MADE, context: Tensor | None, which: int) -> list[_Stepwise]:
        """The layers, and the direct links if there are any, with their units by degree."""
        units = self.schedule.units
        weights = [
            _reordered(_reordered(layer.masked_weight(which), after), before, 1)
            for layer, before, after in zip(made.layers, units, units[1:], strict=False)
        ]
        starts = [
            _reordered(layer.bias, after)[:, None]
            for layer, after in zip(made.layers, units[1:], strict=True)
        ]
        if made.context is not None:
            starts[0] = starts[0] + _reordered(made.context(context).T, units[1])
        if made.context_out is not None:
            starts[-1] = starts[-1] + _reordered(made.context_out(context).T, units[-1])
        if made.direct is not None:
            links = _reordered(made.direct.masked_weight(which), units[-1])
            weights.append(_reordered(links, units[0], 1))
            starts.append(torch.zeros_like(starts[-1]))
        return [_Stepwise(*both) for both in zip(weights, starts, strict=True)]

    def _begin_stage(self, rank: int, stop: int) -> None:
        """Cut each layer's weights at the units of the ranks from ``rank`` to before ``stop``."""
        ends, *found = self.schedule.ends
        for layer, end in zip(self.hidden, found, strict=True):
            layer.cut([*end[rank - 1 : stop - 1], end[-1]])
        for layer in self.outputs:
            # before the first cut are the outputs of what was given
            layer.cut([self.per * end for end in (self.at, *ends[rank:stop], self.dim)])

    def _compute_hidden(self, k: int) -> None:
        """The hidden units that have now all of their inputs."""
        for i, layer in enumerate(self.hidden):
            if layer.sizes[k]:
                h = self.activation(layer.compute(k, self.known[i]))
                self.known[i + 1] = torch.cat([self.known[i + 1], h])

    def _parameters(self, k: int, end: int) -> Tensor:
        """``(rows, outputs_per_dim, k)``, of the coordinates up to ``end``."""
        last, *direct = self.outputs
        params = last.compute(k + 1, self.known[-1])
        for layer in direct:
            params = params + layer.compute(k + 1, self.known[0])
        return params.reshape(end - self.at, self.per, self.rows).permute(2, 1, 0)

    def _end_stage(self) -> None:
        """Put what is known into the constants of the units to come, and forget it."""
        self.finished.append(self.known[0])
        if self.at < self.dim:
            inputs, *_ = self.known
            for layer, part in zip(
                (*self.hidden, *self.outputs), (*self.known, inputs), strict=False
            ):
                layer.settle(part)
            self.known = [part[:0] for part in self.known]


class _Stepwise:
    """A layer whose units are computed in steps, a few rows of its weights in each."""

    def __init__(self, weight: Tensor, start: Tensor) -> None:
        self.weight, self.start, self.first = weight, start, 0
        self.sizes: list[int] = []
        self.weights: tuple[Tensor, ...] = ()
        self.starts: tuple[Tensor, ...] = ()

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
        """Keep the rows after the last cut, and of what is known only what it adds to them."""
        self.start = self.compute(-1, known)
        self.weight = self.weights[-1][:, len(known) :]


def _reordered(of: Tensor, units: Tensor | None, dim: int = 0) -> Tensor:
    """In the order of these units; None where they are in order."""
    return of if units is None else of.index_select(dim, units)


def _one_or_all(masks: Sequence[Tensor]) -> Tensor:
    return torch.stack(list(masks)) if len(masks) > 1 else masks[0]


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


class BernoulliMADE(Density):
    r"""A density on binary vectors, :math:`p(x) = \prod_d p(x_d \mid x_{\lt d})`.

    With several masks there are as many densities on one set of weights, and this is their mean:
    of the **probabilities**, since a mean of logits under different orderings is not a density. A
    call in training takes one of the masks at random, and the average over a training is a network
    that bears any of them; in evaluation, after ``eval()``, all are taken.

    Args:
        dim: the number ``D`` of coordinates.
        hidden: the widths of the hidden layers.
        context_dim: the size of the context, 0 if it takes no context.
        order: as in :func:`~flowlib.masks.ranks_of`.
        degrees: as in :func:`~flowlib.masks.choose_degrees`.
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

    discrete = True

    def __init__(
        self,
        dim: int,
        hidden: int | Sequence[int] = (64, 64),
        *,
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
            dim,
            hidden,
            context_dim=context_dim,
            order=order,
            degrees=degrees,
            activation=activation,
            direct=direct,
            n_masks=n_masks,
            generator=generator,
        )
        self.n_masks = self.made.n_masks
        self.event_shape = self.made.event_shape
        self.context_dim = self.made.context_dim
        self.context_norm = ContextNorm(self.context_dim) if self.context_dim else None

    def log_prob(
        self,
        x: Tensor,
        context: Tensor | None = None,
        given: int = 0,
        which: int | None = None,
    ) -> Tensor:
        """The log-probability in nats.

        Args:
            x: zeros and ones, ``(..., D)``, of any type; or an array or a table of them, whose
                columns are brought into the order of :attr:`columns`, if their names are known.
            context: ``(..., C)``; its leading dimensions broadcast against those of ``x``.
            given: condition on the first so many coordinates in the ordering.
            which: under which of several masks. By default it is the mean over all of them, and in
                training that under one, which torch's own generator chooses; that choice is what
                ``vmap`` cannot do.

        Returns:
            ``log p(x)``, or ``log p(rest | given)``, of the leading shape.

        Raises:
            TypeError: if ``x`` or ``context`` is of another kind.
            ValueError: if a value is neither 0 nor 1, a shape is not as above, ``which`` is not a
                mask's number, or a table has other columns than those that it was fitted on.
        """
        x, context, _ = as_tensors("log_prob", self, x, context)
        x, context, lead = self._enter("x", x, context, self.event_shape[0])
        self._check_given(given)
        if which is not None and not 0 <= which < self.n_masks:
            raise ValueError(
                f"BernoulliMADE: expected which from 0 to {self.n_masks - 1}, got {which!r}"
            )
        chosen = range(self.n_masks) if which is None else [which]
        if which is None and self.training and self.n_masks > 1:
            chosen = [int(torch.randint(self.n_masks, ()))]
        return self._mean_log_prob(x, context, given, chosen).reshape(lead)

    @torch.no_grad()
    def sample(
        self,
        n: int | Sequence[int] = (),
        context: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Independent draws, ``n + context.shape[:-1] + (D,)``; each is under one of the masks."""
        x, _ = self._draw(self._no_prefix(context), n, context, generator)
        return x

    @torch.no_grad()
    def sample_and_log_prob(
        self,
        n: int | Sequence[int] = (),
        context: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Draws as in :meth:`sample` and their log-probability, which costs next to nothing more.

        With several masks it is the mean over all of them, a pass for each.
        """
        x, log_p = self._draw(self._no_prefix(context), n, context, generator, judged=True)
        assert log_p is not None
        return x, log_p

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
            generator: the source of randomness; by default torch's own.

        Returns:
            ``n + lead + (D,)``, whole vectors in the order of the data.

        Raises:
            ValueError: also if there are several masks of different orderings: then no values
                come first.
        """
        require_tensor("BernoulliMADE", "prefix", prefix)
        if not prefix.dim():
            raise ValueError("BernoulliMADE: expected a prefix of shape (..., g), got shape ()")
        self._check_given(prefix.shape[-1])
        x, _ = self._draw(prefix, n, context, generator)
        return x

    def _no_prefix(self, context: Tensor | None) -> Tensor:
        require_context("BernoulliMADE", context, self.context_dim)
        lead = () if context is None else context.shape[:-1]
        return torch.zeros(*lead, 0, dtype=self._weight.dtype, device=self._weight.device)

    @property
    def _weight(self) -> Tensor:
        weight: Tensor = self.made.layers[0].weight
        return weight

    def _draw(
        self,
        prefix: Tensor,
        n: int | Sequence[int],
        context: Tensor | None,
        generator: torch.Generator | None,
        judged: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        prefix, context, lead = self._enter("prefix", prefix, context, prefix.shape[-1])
        n = as_sample_shape(n)
        prefix = prefix.repeat(math.prod(n), 1)
        context = None if context is None else context.repeat(math.prod(n), 1)
        which = self._choose(prefix, context, generator)
        x = prefix.new_empty(len(prefix), *self.event_shape)
        log_p = None
        step = _bernoulli_step(generator, judged and self.n_masks == 1)
        for k in range(self.n_masks):
            rows = (which == k).nonzero()[:, 0]
            if len(rows):
                its_context = None if context is None else context[rows]
                x[rows], sums = self.made.autoregress(step, len(rows), its_context, prefix[rows], k)
                log_p = sums if judged and self.n_masks == 1 else None
        if judged and log_p is None:
            log_p = self._mean_log_prob(x, context, prefix.shape[1], range(self.n_masks))
        if log_p is not None:
            log_p = log_p.reshape(*n, *lead)
        return x.reshape(*n, *lead, *self.event_shape), log_p

    def _choose(
        self, prefix: Tensor, context: Tensor | None, generator: torch.Generator | None
    ) -> Tensor:
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

    def _mean_log_prob(
        self, x: Tensor, context: Tensor | None, given: int, chosen: Sequence[int]
    ) -> Tensor:
        """``(rows,)``: the log of the mean probability under the chosen masks."""
        terms = torch.stack([self._terms(x, context, which) for which in chosen])
        whole = _mean_prob(terms.sum(-1))
        if given:
            whole = whole - _mean_prob(terms[..., self._first(given)].sum(-1))
        return whole

    def _first(self, count: int) -> Tensor:
        """The first coordinates in the ordering, where all sets of masks have the same."""
        return self.made.ranks[0].argsort(stable=True)[:count]

    def _terms(self, x: Tensor, context: Tensor | None, which: int) -> Tensor:
        """``(rows, D)``: the log-probability of each coordinate, given those before it."""
        logits = self.made.unchecked(x, context, which)
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
        bits = (x == 0) | (x == 1)
        if seen(bits.all()) is False:
            if x.is_floating_point():
                require_finite(where, name, x)
            raise ValueError(
                f"{where}: expected {name} of zeros and ones, got {x[~bits][0].item():g}; a "
                f"threshold makes them, such as ({name} > 0.5)"
            )

    def _enter(
        self, name: str, x: Tensor, context: Tensor | None, size: int
    ) -> tuple[Tensor, Tensor | None, torch.Size]:
        """Rows of zeros and ones in the weights' dtype, rows of context, their leading shape."""
        self._require("BernoulliMADE", name, x, (size,))
        require_context("BernoulliMADE", context, self.context_dim)
        dtype = self._weight.dtype
        context = None if context is None else self.in_own_units(context.to(dtype))
        x, context, lead = self._paired(x, context, (size,))
        return x.to(dtype), context, lead


def _bernoulli_step(generator: torch.Generator | None, judged: bool) -> Step:
    """Draws bits from their logits; with their log-probabilities if they are asked for."""

    def step(at: Tensor, logits: Tensor) -> tuple[Tensor, Tensor | None]:
        logits = logits[:, 0]
        p = logits.sigmoid()
        u = torch.rand(p.shape, generator=generator, dtype=p.dtype, device=p.device)
        bits = (u < p).to(p)
        return bits, F.logsigmoid(torch.where(bits == 1, logits, -logits)) if judged else None

    return step


def _mean_prob(log_p: Tensor) -> Tensor:
    """The logarithm of the mean over the masks of the probabilities, ``(masks, rows)``."""
    return log_p.logsumexp(0) - math.log(len(log_p))
