"""Orderings, degrees and masks: who may see whom in a network that goes by an ordering.

All are pure functions of whole numbers. A coordinate has a *rank*, its place in the ordering, from
1. A hidden unit has a *degree*, the largest rank of an input that it may see. Both together decide
every mask.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from flowlib.arguments import as_event_shape, as_ints
from flowlib.structure import on_cpu

__all__ = [
    "choose_degrees",
    "cut_pairs",
    "cyclic_degrees",
    "hidden_mask",
    "output_mask",
    "path_counts",
    "random_degrees",
    "ranks_of",
]


# --- orderings and degrees ----------------------------------------------------------------------


@on_cpu
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


@on_cpu
def cyclic_degrees(width: int, low: int, high: int) -> Tensor:
    """As many units of each degree from ``low`` to ``high`` as of every other, sorted.

    Where there are fewer units than degrees, those that there are lie evenly between the two ends.

    Example:
        >>> cyclic_degrees(5, 1, 3).tolist(), cyclic_degrees(2, 1, 9).tolist()
        ([1, 1, 2, 2, 3], [1, 9])
    """
    _require_degrees("cyclic_degrees", width, low, high)
    if width < high - low + 1:
        return (
            torch.linspace(low, high, width).round().long() if width > 1 else torch.tensor([high])
        )
    return low + (torch.arange(width) % (high - low + 1)).sort().values


@on_cpu
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
    sure = torch.arange(low, high + 1) if width >= count else torch.tensor([], dtype=torch.long)
    drawn = torch.randint(low, high + 1, (width - len(sure),), generator=generator)
    # shuffled: under several masks a unit should have now one degree and now another
    return torch.cat([sure, drawn])[torch.randperm(width, generator=generator)]


@on_cpu
def choose_degrees(
    degrees: str | Sequence[Sequence[int]],
    widths: Sequence[int],
    ranks: Tensor,
    context_dim: int = 0,
    generator: torch.Generator | None = None,
) -> list[Tensor]:
    """The degrees of each hidden layer's units.

    Args:
        degrees: ``"cyclic"``, ``"random"``, or for each hidden layer as many whole numbers as it
            has units: from 1, with a context from 0, to the number of ranks less 1.
        widths: how many units each hidden layer has.
        ranks: ``(D,)``, of the coordinates.
        context_dim: the size of the context, 0 if it takes no context.
        generator: of random degrees.

    Raises:
        ValueError: if the degrees are not as above.

    Example:
        >>> choose_degrees("cyclic", [4], ranks_of(3))
        [tensor([1, 1, 2, 2])]
    """
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
    layers = degrees if isinstance(degrees, Iterable) else []
    given = [as_ints(m.tolist() if isinstance(m, Tensor) else m) or () for m in layers]
    if [len(m) for m in given] != list(widths) or not isinstance(degrees, Iterable):
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


def _require_degrees(where: str, width: int, low: int, high: int) -> None:
    if as_ints((width, low, high)) is None or width < 1 or low > high:
        raise ValueError(
            f"{where}: expected whole numbers, a positive width and low <= high, got {width}, "
            f"{low} and {high}"
        )


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


def cut_pairs(ranks: Tensor, *degrees: Tensor) -> Tensor:
    """Which inputs an output may see and does not, ``(D, D)``, bool.

    From an input all units can be reached whose degree is at least the lowest that a path to them
    can have, and so it is enough to follow the lowest.

    Example:
        >>> cut_pairs(torch.tensor([1, 2, 3]), torch.tensor([2])).int().tolist()
        [[0, 0, 0], [1, 0, 0], [0, 0, 0]]
    """
    lowest = ranks
    for m in degrees:
        m = m.sort().values
        following = torch.searchsorted(m, lowest.contiguous())
        # where no unit is left, as if of a degree that no output sees
        lowest = torch.cat([m, ranks.max()[None]])[following]
    return output_mask(ranks, ranks) & ~output_mask(ranks, lowest)
