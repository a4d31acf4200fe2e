r"""MADE: masks that make an autoencoder a density.

By the chain rule of probability every density is a product of conditional ones,

.. math:: p(x) = \prod_{d=1}^{D} p(x_d \mid x_{<d}),

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

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flowlib.flow import (
    as_event_shape,
    as_ints,
    as_sample_shape,
    broadcast_leads,
    require_event,
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
            return torch.unique(torch.tensor(given), return_inverse=True)[1] + 1
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
    if width < high - low + 1:
        return torch.linspace(low, high, width).round().long() if width > 1 else _full(1, high)
    return low + (torch.arange(width) % (high - low + 1)).sort().values


def random_degrees(
    width: int, low: int, high: int, generator: torch.Generator | None = None
) -> Tensor:
    """Uniform draws with replacement from ``low`` to ``high``, sorted.

    If there are enough units, the first draws are one of each degree, because a degree that is
    missing cuts the links between two neighbours in the ordering.

    Example:
        >>> random_degrees(6, 1, 3, torch.Generator().manual_seed(0)).tolist()
        [1, 1, 2, 3, 3, 3]
    """
    count = high - low + 1
    sure = torch.arange(low, high + 1) if width >= count else _full(0, low)
    drawn = torch.randint(low, high + 1, (width - len(sure),), generator=generator)
    return torch.cat([sure, drawn]).sort().values


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


class MaskedLinear(nn.Linear):
    """A linear layer some of whose weights are 0 and stay so.

    The mask multiplies the weights in each pass, so that the others are trained as if these were
    not there. It starts as :class:`torch.nn.Linear` does, but for the number of inputs of a unit
    it takes those that the unit has.

    Args:
        mask: ``(outputs, inputs)``: 1 or True where there is a link.
        bias: whether there is a bias.

    Raises:
        ValueError: if the mask is none.

    Example:
        >>> layer = MaskedLinear(torch.tensor([[1, 0], [1, 1]]))
        >>> x = torch.randn(5, 2)
        >>> torch.equal(layer(x)[:, 0], layer(x * torch.tensor([1.0, 9.0]))[:, 0])
        True
    """

    mask: Tensor

    def __init__(self, mask: Tensor, bias: bool = True) -> None:
        mask = torch.as_tensor(mask)
        if mask.dim() != 2 or not ((mask == 0) | (mask == 1)).all():
            raise ValueError(
                f"MaskedLinear: expected a mask (outputs, inputs) of zeros and ones, got shape "
                f"{tuple(mask.shape)} and values {mask.unique().tolist()[:5]}"
            )
        super().__init__(mask.shape[1], mask.shape[0], bias)
        # in the weights' own dtype, with which the product is fastest
        self.register_buffer("mask", mask.to(self.weight.dtype))
        links = mask.sum(1).clamp(min=1)
        with torch.no_grad():
            self.weight.mul_((mask.shape[1] / links).sqrt()[:, None])

    def masked_weight(self) -> Tensor:
        return self.weight * self.mask

    def forward(self, x: Tensor) -> Tensor:
        """``(..., inputs)`` to ``(..., outputs)``."""
        return F.linear(x, self.masked_weight(), self.bias)


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
        context_dim: the size of the context, which every unit may see, 0 for none.
        order: as in :func:`ranks_of`.
        degrees: ``"cyclic"``, ``"random"``, or for each hidden layer as many whole numbers as it
            has units: from 1, with a context from 0, to the number of ranks less 1.
        activation: makes the activation between two layers, one that acts on each number by itself.
        direct: whether the inputs are also linked to the outputs directly.
        generator: of random orderings and degrees.

    Attributes:
        ranks: ``(D,)``, the rank of each coordinate.
        degrees: for each hidden layer the degrees of its units.

    Raises:
        ValueError: if a number is out of its range, or an ordering or degrees are none.

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
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        (dim,) = as_event_shape(dim)
        widths, numbers = as_ints(hidden), as_ints([outputs_per_dim, context_dim])
        if widths is None or numbers is None or min([*widths, numbers[0]]) < 1 or numbers[1] < 0:
            raise ValueError(
                "MADE: expected positive widths and outputs_per_dim and a context_dim from 0, got "
                f"hidden={hidden}, outputs_per_dim={outputs_per_dim}, context_dim={context_dim}"
            )
        self.dim, self.outputs_per_dim, self.context_dim = dim, outputs_per_dim, context_dim
        ranks = ranks_of(dim, order, generator)
        degrees = _as_degrees(degrees, widths, ranks, context_dim, generator)
        befores = [ranks, *degrees]
        masks = [hidden_mask(m, before) for before, m in itertools.pairwise(befores)]
        masks.append(output_mask(ranks, befores[-1]).repeat(outputs_per_dim, 1))
        self.layers = nn.ModuleList(map(MaskedLinear, masks))
        self.activation = activation()
        across = output_mask(ranks, ranks)
        self.direct = None
        if direct:
            self.direct = MaskedLinear(across.repeat(outputs_per_dim, 1), bias=False)
            nn.init.zeros_(self.direct.weight)
        self.context = nn.Linear(context_dim, len(masks[0]), bias=False) if context_dim else None
        for start in (self.layers[-1].weight, self.layers[-1].bias):
            nn.init.zeros_(start)
        self._wire(ranks, degrees)
        cut = across & (path_counts(masks)[:dim] == 0) & (not direct)
        low = 0 if context_dim else 1
        _warn_of_cuts(cut, context_dim and any(m.min() > 0 for m in degrees), widths, low, ranks)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """``(..., D)`` and a context ``(..., C)`` to ``(..., outputs_per_dim * D)``, all first
        numbers first."""
        require_event("MADE", x, torch.Size([self.dim]), leading=None)
        h = self.layers[0](x)
        if context is not None or self.context is not None:
            h = h + self._from_context(context)
        for layer in self.layers[1:]:
            h = layer(self.activation(h))
        return h if self.direct is None else h + self.direct(x)

    def _from_context(self, context: Tensor | None) -> Tensor:
        if self.context is None:
            raise ValueError("MADE: it takes no context; context_dim makes one that does")
        if context is None or context.shape[-1:] != (self.context_dim,):
            got = "none" if context is None else f"one of shape {tuple(context.shape)}"
            raise ValueError(
                f"MADE: expected a context of shape (..., {self.context_dim}), got {got}"
            )
        return self.context(context)

    # --- degrees: saved with the weights, which are of no use under others ---

    def _wire(self, ranks: Tensor, degrees: Sequence[Tensor]) -> None:
        self.register_buffer("ranks", ranks, persistent=False)
        self.n_hidden = len(degrees)
        for i, m in enumerate([ranks, *degrees]):
            # the units by their degrees, and how many there are up to each degree
            self.register_buffer(f"sorted_{i}", m.argsort(stable=True), persistent=False)
            self.register_buffer(f"degrees_{i}", m, persistent=False)
        n_ranks = int(ranks.max())
        self.ends = [
            torch.bincount(m, minlength=n_ranks + 1).cumsum(0).tolist() for m in [ranks, *degrees]
        ]

    @property
    def degrees(self) -> list[Tensor]:
        return [getattr(self, f"degrees_{i}") for i in range(1, self.n_hidden + 1)]

    def get_extra_state(self) -> Tensor:
        return torch.cat([self.ranks, *self.degrees])

    def set_extra_state(self, wiring: Tensor) -> None:
        sizes = [self.dim, *(len(m) for m in self.degrees)]
        exact = not wiring.is_floating_point() or torch.finfo(wiring.dtype).eps * self.dim < 1
        if wiring.shape != (sum(sizes),) or not exact:
            raise ValueError(
                f"MADE: expected saved degrees of {sizes} inputs and units, exact to {self.dim}, "
                f"got {wiring.dtype} of shape {tuple(wiring.shape)}"
            )
        ranks, *degrees = wiring.to(self.ranks.device, torch.long).split(sizes)
        self._wire(ranks, degrees)

    # --- one coordinate after the other ---

    @torch.no_grad()
    def autoregress(
        self,
        draw: Callable[[Tensor, Tensor], Tensor],
        rows: int,
        context: Tensor | None = None,
        given: Tensor | None = None,
    ) -> Tensor:
        """Fill rows coordinate by coordinate, with the arithmetic of a single pass.

        A unit is computed once, when the last input that it sees is known. So in the step of a rank
        only the units of one degree are: a few rows of each layer's weights.

        Args:
            draw: gets the indices ``(k,)`` of the coordinates of one rank and their parameters
                ``(rows, outputs_per_dim, k)``, and returns their values ``(rows, k)``.
            rows: how many.
            context: ``(rows, C)``.
            given: ``(rows, g)``, the values of the first ``g`` coordinates in the ordering.

        Returns:
            ``(rows, D)``, without a gradient.
        """
        by_rank, *hidden = (getattr(self, f"sorted_{i}") for i in range(self.n_hidden + 1))
        per, dim = self.outputs_per_dim, self.dim
        # each coordinate's outputs together, coordinates by rank
        outputs = (by_rank[:, None] + dim * torch.arange(per, device=by_rank.device)).flatten()
        befores, afters = [by_rank, *hidden], [*hidden, outputs]
        weights = [
            layer.masked_weight()[after][:, before]
            for layer, before, after in zip(self.layers, befores, afters, strict=True)
        ]
        starts = [
            layer.bias[after][:, None] for layer, after in zip(self.layers, afters, strict=True)
        ]
        if context is not None or self.context is not None:
            starts[0] = starts[0] + self._from_context(context).T[afters[0]]
        across = None
        if self.direct is not None:
            across = self.direct.masked_weight()[outputs][:, by_rank]
        like = weights[0]
        known = [like.new_zeros(len(b), rows) for b in befores]  # features first: slices are whole
        n_given = 0 if given is None else given.shape[1]
        if n_given:
            known[0][:n_given] = given.T
        rank = 1
        while self.ends[0][rank] <= n_given < dim:
            rank += 1
        done = [0] * (self.n_hidden + 1)
        at = n_given
        while at < dim:
            ends = [e[rank - 1] for e in self.ends]  # what is known, and what can be now
            for i in range(1, self.n_hidden + 1):
                new = slice(done[i], ends[i])
                if new.start < new.stop:
                    start = starts[i - 1][new].expand(-1, rows)
                    h = torch.addmm(
                        start, weights[i - 1][new, : ends[i - 1]], known[i - 1][: ends[i - 1]]
                    )
                    known[i][new] = self.activation(h)
                    done[i] = ends[i]
            end = self.ends[0][rank]
            new = slice(at * per, end * per)
            before = ends[-1]
            params = torch.addmm(
                starts[-1][new].expand(-1, rows), weights[-1][new, :before], known[-1][:before]
            )
            if across is not None:
                params = params + across[new, : ends[0]] @ known[0][: ends[0]]
            params = params.reshape(end - at, per, rows).permute(2, 1, 0)
            known[0][at:end] = draw(by_rank[at:end], params).T
            at, rank = end, rank + 1
        x = like.new_empty(rows, dim)
        x[:, by_rank] = known[0].T
        return x


def _as_degrees(
    degrees: str | Sequence[Sequence[int]],
    widths: Sequence[int],
    ranks: Tensor,
    context_dim: int,
    generator: torch.Generator | None,
) -> list[Tensor]:
    """The degrees of each hidden layer's units."""
    # A unit of degree 0 sees no input. With a context it is worth having: through it alone does
    # the first output see the context.
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


def _warn_of_cuts(
    cut: Tensor, no_context: bool, widths: Sequence[int], low: int, ranks: Tensor
) -> None:
    pairs = [f"output {d + 1} from input {e + 1}" for d, e in cut.nonzero()[:3].tolist()]
    pairs += ["the first output from the context"] if no_context else []
    if pairs:
        more = f" and {int(cut.sum()) - 3} more pairs" if cut.sum() > 3 else ""
        warnings.warn(
            f"MADE: the masks cut off {', '.join(pairs)}{more}. Hidden layers of {list(widths)} "
            f"units have not each degree from {low} to {int(ranks.max()) - 1}; take more units, "
            "other degrees or direct=True",
            stacklevel=3,
        )


# --- binary data --------------------------------------------------------------------------------


class BernoulliMADE(nn.Module):
    r"""A density on binary vectors, :math:`p(x) = \prod_d p(x_d \mid x_{<d})`.

    With several masks there are as many densities on one set of weights, and this is their mean:
    of the **probabilities**, since a mean of logits under different orderings is none. A call in
    training takes one of the masks at random, and the average over a training is a network that
    bears any of them; in evaluation all are taken.

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
        members: the :class:`MADE` of each mask; they share their weights.

    Raises:
        ValueError: as :class:`MADE`, and if there are several masks and nothing that tells them
            apart.

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
        count = as_ints(n_masks)
        if count is None or len(count) != 1 or count[0] < 1:
            raise ValueError(f"BernoulliMADE: expected n_masks from 1, got {n_masks!r}")
        if count[0] > 1 and "random" not in (order, degrees):
            raise ValueError(
                f"BernoulliMADE: {n_masks} masks would be equal; expected a random order or random "
                "degrees"
            )
        first, *others = self.members = nn.ModuleList(
            MADE(dim, hidden, 1, context_dim, order, degrees, activation, direct, generator)
            for _ in range(count[0])
        )
        for member in others:
            _share_weights(first, member)
        self.event_shape = torch.Size([first.dim])
        self.context_dim = context_dim

    def initialize(self, batch: Tensor, context: Tensor | None = None) -> None:
        """Nothing: it starts as the uniform distribution. :func:`flowlib.fit` asks for it."""

    def log_prob(self, x: Tensor, context: Tensor | None = None, given: int = 0) -> Tensor:
        """The log-probability in nats.

        Args:
            x: zeros and ones, ``(..., D)``, of any type.
            context: ``(..., C)``; its leading dimensions broadcast against those of ``x``.
            given: condition on the first so many coordinates in the ordering.

        Returns:
            ``log p(x)``, or ``log p(rest | given)``, of the leading shape. With several masks and
            in training under one of them, drawn at random.

        Raises:
            ValueError: if a value is neither 0 nor 1, or a shape not as above.
        """
        x, context, lead = self._at_the_door(x, context, self.event_shape[0])
        self._check_given(given)
        if self.training and len(self.members) > 1:
            chosen = [self.members[int(torch.randint(len(self.members), ()))]]
        else:
            chosen = self.members
        terms = torch.stack([_log_bernoulli(member, x, context) for member in chosen])
        whole = _mean_prob(terms.sum(-1))
        if given:
            first = terms[..., chosen[0].sorted_0[:given]].sum(-1)
            whole = whole - _mean_prob(first)
        return whole.reshape(lead)

    @torch.no_grad()
    def sample(
        self,
        n: int | Sequence[int] = (),
        context: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Independent draws, ``n + context.shape[:-1] + (D,)``; each is under one of the masks."""
        nothing = (
            self.members[0]
            .layers[0]
            .weight.new_zeros(*(() if context is None else context.shape[:-1]), 0)
        )
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
            prefix: ``(..., g)``, zeros and ones, in the ordering of :attr:`members`.
            n: how many for each prefix, an int or a shape.
            context: ``(..., C)``; its leading dimensions broadcast against those of ``prefix``.
            generator: the source of randomness, torch's own if there is none.

        Returns:
            ``n + lead + (D,)``, whole vectors in the order of the data.

        Raises:
            ValueError: also if there are several masks of different orderings: then no values
                come first.
        """
        _require_tensor(prefix)
        self._check_given(prefix.shape[-1] if prefix.dim() else 0)
        return self._draw(prefix, n, context, generator)

    def _draw(self, prefix, n, context, generator) -> Tensor:
        prefix, context, lead = self._at_the_door(prefix, context, prefix.shape[-1])
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

        for k, member in enumerate(self.members):
            rows = (which == k).nonzero()[:, 0]
            if len(rows):
                its_context = None if context is None else context[rows]
                x[rows] = member.autoregress(draw, len(rows), its_context, prefix[rows])
        return x.reshape(*n, *lead, *self.event_shape)

    def _choose(self, prefix: Tensor, context: Tensor | None, generator) -> Tensor:
        """Under which mask each row is drawn: by how probable each makes its prefix."""
        if len(self.members) == 1:
            return torch.zeros(len(prefix), dtype=torch.long, device=prefix.device)
        weights = prefix.new_ones(len(prefix), len(self.members))
        g = prefix.shape[1]
        if g and len(prefix):
            x = prefix.new_zeros(len(prefix), *self.event_shape)
            x[:, self.members[0].sorted_0[:g]] = prefix
            terms = torch.stack([_log_bernoulli(m, x, context) for m in self.members], 1)
            weights = terms[..., self.members[0].sorted_0[:g]].sum(-1).softmax(1)
        if not len(prefix):
            return torch.zeros(0, dtype=torch.long, device=prefix.device)
        return torch.multinomial(weights, 1, generator=generator)[:, 0]

    def _check_given(self, given: int) -> None:
        dim = self.event_shape[0]
        if as_ints(given) is None or not 0 <= given <= dim:
            raise ValueError(f"BernoulliMADE: expected 0 to {dim} given values, got {given!r}")
        first, *others = self.members
        if given and any(not torch.equal(m.ranks, first.ranks) for m in others):
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

    def _at_the_door(self, x: Tensor, context: Tensor | None, size: int):
        """Rows of zeros and ones in the weights' dtype, rows of context, their leading shape."""
        _require_tensor(x)
        if x.shape[-1:] != (size,):
            raise ValueError(f"BernoulliMADE: expected shape (..., {size}), got {tuple(x.shape)}")
        self.check_values("BernoulliMADE", "x", x)
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
            lead = broadcast_leads(lead, context.shape[:-1])
            context = context.expand(*lead, -1).reshape(math.prod(lead), -1)
            x = x.expand(*lead, -1)
        x = x.reshape(math.prod(lead), size).to(self.members[0].layers[0].weight.dtype)
        return x, context, lead


def _require_tensor(x) -> None:
    if not isinstance(x, Tensor):
        raise TypeError(
            f"BernoulliMADE: expected a torch.Tensor, got {type(x).__name__}; torch.as_tensor "
            "makes one"
        )


def _share_weights(one: MADE, other: MADE) -> None:
    for (_, mine), (_, theirs) in zip(one.named_modules(), other.named_modules(), strict=True):
        for weight in theirs._parameters:
            theirs._parameters[weight] = mine._parameters[weight]


def _log_bernoulli(made: MADE, x: Tensor, context: Tensor | None) -> Tensor:
    """``(rows, D)``: of each coordinate, given those before it."""
    return -F.binary_cross_entropy_with_logits(made(x, context), x, reduction="none")


def _mean_prob(log_p: Tensor) -> Tensor:
    """The logarithm of the mean over the masks of the probabilities, ``(masks, rows)``."""
    return log_p.logsumexp(0) - math.log(len(log_p))
