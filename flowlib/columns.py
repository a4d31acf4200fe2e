"""What keeps the columns of a data set from having a density, and what to do about it.

A density on a line, a plane or a lattice can be as high as a flow likes. A column that is constant,
a copy of others or made of few values therefore makes a likelihood meaningless, and draws the flow
away from all other columns. One value far from all the others hides them in another way: it sets
the unit in which the flow sees them.

:func:`faults` looks for what is certain, not for what is suspicious: it stays silent about real
tables of measurements, which are rounded, correlated and skewed.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

__all__ = ["column_name", "context_faults", "faults", "listed", "shared"]

# How much is looked at
FEW_ROWS = 20  # with fewer, ties and distances say nothing
MOST_ROWS, MOST_VALUES = 20_000, 2**21  # of the sample in which ties are counted
LEAST_ROWS = 64  # of that sample, however many columns there are
MOST_TIED = 512  # columns among which linear equations are looked for
PICTURE = 48  # columns from which on the values of all of them are counted together

# What is a fault. Measured: smooth columns of 2,000 rows, rounded to a hundredth of their spread,
# have more than 340 values. Of 592 that are rounded to more or less and have too few rows for
# ROWS_PER_VALUE, none has a value with HEAP_OVER times the rows of the next. The least variance of
# a combination is 2e-7 in 400 smooth sets and 1e-4 in real tables; rounding to float32 leaves 1e-11
# of a sum whose columns lie a hundred spreads from zero. Of 10,000 columns of 200 rows from
# Student's t with 3 degrees, 2 have a row that is FAR and ALONE.
LEVELS, ROWS_PER_VALUE = 256, 8  # no more values than a byte has, and that many rows for each
HEAP, HEAP_ROWS, HEAP_OVER = 0.05, 8, 3  # share, rows and times what the next value has
EXACT = 1e-10  # of a column's variance is what rounding to float32 leaves, and less than noise does
GAP, REPEATS = 3, 3  # spreads between a sentinel and the rest, and how often it is there
FAR, ALONE, ABSURD = 100, 10, 1e4  # interquartile ranges; times the next; interquartile ranges


# --- what is said -----------------------------------------------------------------------------


@torch.no_grad()
def faults(rows: Tensor, names: Sequence[str] | None = None) -> list[str]:
    """What keeps columns from having a density, one sentence for each kind of fault.

    Found are columns that never vary; copies, in the same or other units; other exact linear
    equations, such as shares that sum to 1; one-hot codes; at most 256 values with eight rows or
    more for each on average, such as whole numbers or pixels without noise; one value in 5 % of
    the rows or more and three times as often as the next; a sentinel such as -9999, in three rows
    or more and far from all others; and rows that lie more than 100 interquartile ranges from the
    median with nothing near them. A column is named for one fault, the most specific; only
    equations and copies name others with it. If all of 48 columns or more share few values, as
    pictures do, they are said to do so together.

    Not found are equations that are curved, or that hold up to noise or to rounding coarser than
    float32's at a hundred spreads from zero; fewer equal values than these; and whole numbers of
    which there are many for the rows: whether they are too coarse is a matter of degree.

    The least and the largest values, and the rows that lie far out, are those of all rows. Ties,
    quartiles and equations are looked for in a sample, spread evenly over the rows and always the
    same: 20,000 of them, or as many as make two million values, but never fewer than 64. Among
    more than 512 columns, or in fewer than twice as many rows as columns, equations are not
    looked for. With fewer than 20 rows only constants and identical columns are.

    Args:
        rows: data ``(n, *event)``, finite, of any dtype and on any device. It is left alone.
        names: of the columns, as many as an event has numbers. By default those of a vector are
            called by their place, and those of a picture ``pixel (c, i, j)``.

    Returns:
        Sentences that say which columns, what is wrong and what to do; an empty list if nothing
        is.

    Raises:
        ValueError: if there are more or fewer names than columns.

    Example:
        >>> x = torch.randn(500, 4, generator=torch.Generator().manual_seed(0))
        >>> faults(x)
        []
        >>> x[:, 1], x[:, 3] = 7.0, 32 + 1.8 * x[:, 0]
        >>> for fault in faults(x, ["celsius", "year", "rain", "fahrenheit"]):
        ...     print(fault)
        column 'year' never varies: drop it
        column 'fahrenheit' is a copy of column 'celsius', perhaps in other units: drop it
    """
    call = _Names.of(rows.shape[1:], names)
    if len(rows) < 2 or not rows[0].numel():
        return []
    table = _Table.of(rows)
    flat = _indices(table.low == table.high)
    left = _without(range(len(table.low)), flat)
    if len(rows) < FEW_ROWS:
        return _say_constant(call, flat) + _say_copies(call, _identical(table, left))

    groups = _one_hot(table, left)
    said = [_say_one_hot(call, group) for group in groups]
    left = _without(left, *groups)
    pool = _pool(table, left)
    if pool is None:
        return _say_constant(call, flat) + said + _column_by_column(table, call, left, groups)
    unlike = [c for c in flat if table.value(table.low[c], c) not in pool]
    pixels = sorted(_without([*left, *flat], unlike))
    about = _say_values(call, pixels, f"only {len(pool)}", pool, _steps(pool))
    return [*_say_constant(call, unlike), *said, about]


def _column_by_column(
    table: _Table, call: _Names, left: list[int], groups: list[list[int]]
) -> list[str]:
    """What is wrong with columns that vary and are in no one-hot group, the most specific first."""
    copies = _copies(table, left)
    left = _without(left, copies)
    sentinels = _sentinels(table, left)
    few = _few(table, _without(left, sentinels))
    heaps = _heaps(table, _without(left, sentinels, few))
    outliers = _outliers(table, _without(left, sentinels, few, heaps))
    # a code without one of its classes says no less, and has no equation of its own
    codes = [c for group in groups for c in group[:-1]]
    return [
        *_say_copies(call, copies),
        *_say_tied(call, _tied(table, sorted([*left, *codes]), [*codes, *few])),
        *_say_few(call, few),
        *_say_heaps(call, heaps),
        *_say_sentinels(call, sentinels),
        *_say_outliers(call, outliers),
    ]


@torch.no_grad()
def context_faults(rows: Tensor, names: Sequence[str] | None = None) -> list[str]:
    """What keeps a flow from learning of contexts ``(n, C)``, one sentence for each kind of fault.

    They need no density. But a number that never varies teaches nothing, and a sentinel or a row
    far out sets the unit in which the flow sees all others.

    Raises:
        ValueError: if there are more or fewer names than columns.

    Example:
        >>> context_faults(torch.tensor([[1.0, 5.0], [2.0, 5.0]]), ["age", "site"])
        ["of the context, column 'site' never varies: nothing can be learnt from it"]
    """
    call = _Names.of(rows.shape[1:], names)
    if len(rows) < 2 or not rows[0].numel():
        return []
    table = _Table.of(rows)
    flat = _indices(table.low == table.high)
    said = _say_constant(call, flat, "nothing can be learnt from")
    if len(rows) >= FEW_ROWS:
        left = _without(range(len(table.low)), flat)
        sentinels = _sentinels(table, left)
        said += _say_sentinels(call, sentinels)
        said += _say_outliers(call, _outliers(table, _without(left, sentinels)))
    return [f"of the context, {sentence}" for sentence in said]


@torch.no_grad()
def shared(
    x: Tensor,
    context: Tensor,
    names: Sequence[str] | None = None,
    context_names: Sequence[str] | None = None,
) -> list[str]:
    """Columns of the data that are also columns of their contexts, in one sentence.

    Whoever is given a number knows it: such a column has no density, and the likelihood grows
    without end. Found are columns that are equal in every row, of 20 rows or more, and vary.

    Args:
        x: data ``(n, *event)``.
        context: of the same rows, ``(n, C)``.
        names: of the data's columns, as in :func:`faults`.
        context_names: of the contexts' columns.

    Raises:
        ValueError: if there are more or fewer names than columns.

    Example:
        >>> x = torch.randn(50, 3, generator=torch.Generator().manual_seed(0))
        >>> print(*shared(x, x[:, 1:2], ["height", "age", "weight"], ["age"]))
        column 'age' of the data is also column 'age' of the context: drop it from one of the two
    """
    call, its = (
        _Names.of(part.shape[1:], of) for part, of in ((x, names), (context, context_names))
    )
    if len(x) < FEW_ROWS or not x[0].numel():
        return []
    flat = x.flatten(1)
    found: list[str] = []
    for c, column in enumerate(context.to(flat).T):
        some = (flat[:FEW_ROWS] == column[:FEW_ROWS, None]).all(0)
        for k in _indices(some) if (column != column[0]).any() else ():
            if torch.equal(flat[:, k], column):
                found.append(f"{call([k])} of the data is also {its([c])} of the context")
    if not found:
        return []
    it = _choose(found, "it", "them")
    return [f"{listed(found)}: drop {it} from one of the two"]


def column_name(i: int, names: Sequence[str] | None, event: Sequence[int]) -> str:
    """How a message calls column ``i`` of rows of shape ``event``.

    Example:
        >>> column_name(1, ["height", "age"], (2,)), column_name(5, None, (1, 2, 3))
        ("column 'age'", 'pixel (0, 1, 2)')
    """
    return _Names.of(torch.Size(event), names)([i])


@dataclass(frozen=True)
class _Names:
    """What columns are called: ``column 3``, ``column 'age'``, ``pixel (0, 3, 4)``."""

    noun: str
    each: Sequence[str]

    @classmethod
    def of(cls, event: torch.Size, names: Sequence[str] | None) -> _Names:
        if names is not None:
            if len(names) != event.numel():
                raise ValueError(
                    f"columns: expected {event.numel()} names, one for each column, "
                    f"got {len(names)}"
                )
            return cls("column", [repr(str(name)) for name in names])
        if len(event) < 2:
            return cls("column", [str(c) for c in range(event.numel())])
        places = np.ndindex(*event)
        return cls("pixel" if len(event) == 3 else "entry", [str(place) for place in places])

    def __call__(self, columns: Sequence[int]) -> str:
        """Columns by their names, as many as one likes to read."""
        many = self.noun.replace("entry", "entrie") + "s"
        return f"{_choose(columns, self.noun, many)} {listed([self.each[c] for c in columns])}"


def listed(items: Sequence[str]) -> str:
    """As many as one likes to read, and how many more there are."""
    shown = list(items if len(items) <= 5 else items[:4])
    if len(shown) < len(items):
        shown.append(f"{len(items) - len(shown)} more")
    return " and ".join([", ".join(shown[:-1])] * (len(shown) > 1) + shown[-1:])


def _choose(of: Collection[object], one: str, many: str) -> str:
    """The word that agrees with so many columns."""
    return one if len(of) == 1 else many


def _say_constant(call: _Names, columns: list[int], cure: str = "drop") -> list[str]:
    """All in one sentence: they share the cure."""
    if not columns:
        return []
    vary, it = _choose(columns, "varies", "vary"), _choose(columns, "it", "them")
    return [f"{call(columns)} never {vary}: {cure} {it}"]


def _say_copies(call: _Names, copies: dict[int, int]) -> list[str]:
    """With their originals, which one may want to drop instead."""
    if not copies:
        return []
    are = _choose(copies, "is a copy", "are copies")
    originals = call(sorted(set(copies.values())))
    drop = _choose(copies, "it", "them")
    return [f"{call(list(copies))} {are} of {originals}, perhaps in other units: drop {drop}"]


def _say_tied(call: _Names, tied: list[tuple[list[int], int]]) -> list[str]:
    """One sentence for each set of columns, since each loses columns of its own."""
    return [
        f"{call(columns)} are bound by {'an' if rank == 1 else rank} exact linear "
        f"equation{'s' * (rank > 1)}, such as a sum, or shares of 1: "
        f"drop {'one' if rank == 1 else rank} of them"
        for columns, rank in tied
    ]


def _say_one_hot(call: _Names, group: list[int]) -> str:
    """One sentence for each code, whose columns go or stay together."""
    return (
        f"{call(group)} are a one-hot code of {len(group)} classes: "
        "leave it out, or use it as a context instead"
    )


def _say_few(call: _Names, few: dict[int, Tensor]) -> list[str]:
    """One sentence for the columns on one kind of lattice, with all their values."""
    by_steps: dict[int, list[int]] = {}
    for c, values in few.items():
        by_steps.setdefault(_steps(values), []).append(c)
    sentences = []
    for steps, columns in by_steps.items():
        values = torch.cat([few[c] for c in columns]).unique()
        most = max(len(few[c]) for c in columns)
        many = f"{_choose(columns, 'only', 'at most')} {most}"
        it = _choose(columns, "it", "them")
        sentences.append(
            f"{_say_values(call, columns, many, values, steps)}, or use {it} as a context instead"
        )
    return sentences


def _say_values(call: _Names, columns: list[int], many: str, values: Tensor, steps: int) -> str:
    """What the values have in common decides how to make a continuum of them."""
    low, high = values[0].item(), values[-1].item()
    kind, cure = "", "add uniform noise as wide as the steps between them"
    if steps == 1:
        kind = f", whole numbers from {low:.0f} to {high:.0f}"
        cure = "add uniform noise from 0 to 1"
        if low >= 0:
            cure += f", as flowlib.Dequantize({high + 1:.0f}) does to a tensor"
    elif steps:
        kind = f", multiples of 1/{steps}"
        cure = f"multiply by {steps} and add uniform noise, as flowlib.Dequantize({steps + 1}) does"
    return f"{call(columns)} {_choose(columns, 'takes', 'take')} {many} values{kind}: {cure}"


def _say_heaps(call: _Names, heaps: dict[int, tuple[float, float]]) -> list[str]:
    """With the value, from which one knows whether it is a real one."""
    if not heaps:
        return []
    each = [
        f"{call([c])} is {v:.6g} in {100 * share:.3g} % of rows" for c, (v, share) in heaps.items()
    ]
    return [
        f"{listed(each)}: drop these rows if the value is clipped or stands for a missing one, add "
        "noise to it, or use whether it is so as a context"
    ]


def _say_sentinels(call: _Names, sentinels: dict[int, tuple[float, int]]) -> list[str]:
    """With value and rows, which tell a code from an accident."""
    if not sentinels:
        return []
    each = [f"{call([c])} is {v:.6g} in {count} rows" for c, (v, count) in sentinels.items()]
    return [
        f"{listed(each)}, far from all other values: if it marks missing ones, drop these rows or "
        "fill them in"
    ]


def _say_outliers(call: _Names, outliers: dict[int, tuple[int, float, float]]) -> list[str]:
    """With the farthest value, so that its row can be looked up."""
    if not outliers:
        return []
    each = [
        f"{count} row{'s' * (count > 1)} of {call([c])} ({value:.6g})"
        for c, (count, _, value) in outliers.items()
    ]
    far = max(far for _, far, _ in outliers.values())
    alone = [count for count, _, _ in outliers.values()] == [1]
    lies, it = ("lies", "it") if alone else ("lie up to", "them")
    return [
        f"{listed(each)} {lies} {far:.0e} interquartile ranges from the median: "
        f"clip or remove {it}, or take logarithms"
    ]


# --- what is looked at ------------------------------------------------------------------------


def _indices(mask: Tensor) -> list[int]:
    """Where a mask is true: columns are few, and lists of them are easy to read."""
    found: list[int] = mask.nonzero()[:, 0].tolist()
    return found


def _without(columns: Iterable[int], *others: Collection[int]) -> list[int]:
    """What is left to look at, since a column is named for one fault."""
    gone = {c for other in others for c in other}
    return [c for c in columns if c not in gone]


@dataclass(frozen=True)
class _Table:
    """The rows, and what is known of each column, in float64 and on the CPU.

    Each column is measured in a unit of its own, a power of two near its largest value, so that
    squares neither overflow nor vanish and equal values stay equal.
    """

    rows: Tensor  # (n, D), as they were given
    unit: Tensor  # (D,)
    low: Tensor  # (D,), of all rows
    high: Tensor
    sample: Tensor  # (D, m), of the rows
    ordered: Tensor  # (D, m), each column from its least value to its largest

    @classmethod
    def of(cls, rows: Tensor) -> _Table:
        rows = rows.detach().reshape(len(rows), -1)
        # on a CPU two reductions of a wide table take a tenth of the time of one for both ends
        low, high = rows.amin(0).cpu().double(), rows.amax(0).cpu().double()
        unit = _power_of_two(torch.maximum(low.abs(), high.abs()))
        picked = _spread_evenly(*rows.shape)
        some = rows if len(picked) == len(rows) else rows[picked.to(rows.device)]
        sample = (some.cpu().double() / unit).T.contiguous()
        # several times as fast as PyTorch's own
        ordered = torch.from_numpy(np.sort(sample.numpy(), axis=1))
        return cls(rows, unit, low / unit, high / unit, sample, ordered)

    def whole(self, column: int) -> Tensor:
        """All rows of one column."""
        return self.rows[:, column].cpu().double() / self.unit[column]

    def value(self, x: Tensor, column: int) -> float:
        """As it was before it was measured in the column's unit."""
        return 0.0 + (x * self.unit[column]).item()  # zero has no sign


def _power_of_two(x: Tensor) -> Tensor:
    """One near each number, or 1 for zero: to divide by it changes no digit."""
    return torch.where(x == 0, 1.0, x / (2 * torch.frexp(x).mantissa))


def _spread_evenly(n: int, columns: int) -> Tensor:
    """Places of the sample's rows: one at random from each of as many equal parts, so that data
    with a period are seen at all of its phases."""
    m = min(n, max(LEAST_ROWS, min(MOST_ROWS, MOST_VALUES // columns)))
    if m == n:
        return torch.arange(n)
    jitter = torch.rand(m, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    return ((torch.arange(m) + jitter) * (n / m)).long().clamp(max=n - 1)


# --- values that repeat -----------------------------------------------------------------------


def _one_hot(table: _Table, columns: list[int]) -> list[list[int]]:
    """Groups of columns of two values of which in every row exactly one has its larger.

    They stand next to each other. A window moves over them, and loses its first columns until no
    two in it are high at once.
    """
    groups: list[list[int]] = []
    window: list[int] = []
    highs = _two_valued(table, columns)
    total = torch.zeros(table.sample.shape[1], dtype=torch.int8)
    for c, high in highs.items():
        if not high.any() and not window and groups and c == groups[-1][-1] + 1:
            groups[-1].append(c)  # a class so rare that the sample lacks it
            continue
        while (total * high).any():
            total = total - highs[window.pop(0)]
        window.append(c)
        total = total + high
        if total.all() and len(window) > 1:
            groups.append(window)
            window, total = [], torch.zeros_like(total)
    return groups


def _two_valued(table: _Table, columns: list[int]) -> dict[int, Tensor]:
    """Which rows of the sample have the larger value, for the columns that have two values."""
    is_high = table.sample == table.high[:, None]
    two = (is_high | (table.sample == table.low[:, None])).all(1)
    return {c: is_high[c].to(torch.int8) for c in columns if two[c]}


def _pool(table: _Table, columns: list[int]) -> Tensor | None:
    """The values of a picture's pixels, or of a table's answers, if all of them have but few.

    Each alone may have too few rows to say so.
    """
    if len(columns) < 2 or len(table.sample) < PICTURE:
        return None
    # data with a density show it in a few rows, and most of the work is spared
    for m in (1 + 4 * LEVELS // len(columns), None):
        x = table.sample[columns, :m]
        values = (x * table.unit[columns, None]).unique()
        if len(values) > LEVELS:
            return None
    return values if x.numel() >= ROWS_PER_VALUE * len(values) else None


def _few(table: _Table, columns: list[int]) -> dict[int, Tensor]:
    """The values of columns that have few for so many rows, or are made of bytes."""
    x = table.ordered[columns]
    count = 1 + (x[:, 1:] != x[:, :-1]).sum(1)
    bytes_ = (count > 2) & _bytes(table, columns)
    found = {}
    for k in _indices(bytes_ | ((count <= LEVELS) & (count * ROWS_PER_VALUE <= x.shape[1]))):
        values, rows = x[k].unique_consecutive(return_counts=True)
        # without the value that has most, which may be the only one that repeats
        if bytes_[k] or rows.sum() - rows.max() >= ROWS_PER_VALUE * (len(values) - 1):
            found[columns[k]] = values * table.unit[columns[k]]
    return found


def _bytes(table: _Table, columns: list[int]) -> Tensor:
    """Whether columns are multiples of 1/255: that is no accident, however few the rows are."""
    unit, low, high = (x[columns] for x in (table.unit, table.low, table.high))
    found = (low >= 0) & (high * unit <= 1)
    inside = _indices(found)
    found[inside] = _multiples(table.ordered[columns][inside] * unit[inside, None], 255)
    return found


def _multiples(x: Tensor, steps: int) -> Tensor:
    """Whether each row of ``x`` has nothing but multiples of ``1 / steps`` from 0 to 1, as
    float32 has them."""
    inside = (x.amin(1) >= 0) & (x.amax(1) <= 1)
    scaled = x.clamp(0, 1) * steps
    return inside & ((scaled - scaled.round()).abs().amax(1) < 1e-7 * steps)


def _steps(values: Tensor) -> int:
    """1 for whole numbers, ``m`` for multiples of ``1 / m`` from 0 to 1, and 0 for others."""
    if values.abs().max() < 2**24 and (values == values.round()).all():
        return 1
    if len(values) > 3:  # of fewer, any would be multiples of something
        for steps in range(2, LEVELS):
            if _multiples(values[None, :4], steps) and _multiples(values[None], steps):
                return steps
    return 0


def _heaps(table: _Table, columns: list[int]) -> dict[int, tuple[float, float]]:
    """The value that many rows share, and their share, where other values have far fewer.

    What is rounded has ties everywhere, and one of its values has the most. Up to three values
    may be heaps, such as both ends of what was clipped.
    """
    x = table.ordered[columns]
    many = max(math.ceil(HEAP * x.shape[1]), HEAP_ROWS)
    found = {}
    for k in _indices((x[:, many - 1 :] == x[:, : x.shape[1] - many + 1]).any(1)):
        values, counts = x[k].unique_consecutive(return_counts=True)
        most = counts.sort(descending=True).values[:4]
        if ((most[:-1] >= many) & (most[:-1] >= HEAP_OVER * most[1:])).any():
            top = counts.argmax()
            found[columns[k]] = table.value(values[top], columns[k]), (most[0] / x.shape[1]).item()
    return found


# --- values that are far out --------------------------------------------------------------------


def _sentinels(table: _Table, columns: list[int]) -> dict[int, tuple[float, int]]:
    """The least or the largest value, and its rows, where it repeats far from all others."""
    found = {}
    for sign, end in ((1, table.low), (-1, -table.high)):
        x = table.ordered if sign == 1 else -table.ordered.flip(1)
        for c in _suspects(x, end, columns):
            whole = sign * table.whole(c)
            rest = whole[whole != end[c]]
            count = len(whole) - len(rest)
            spread = _rest(x[c : c + 1], end[c : c + 1])[1]
            if count >= REPEATS and rest.min() - end[c] > GAP * spread:
                found[c] = table.value(sign * end[c], c), count
    return dict(sorted(found.items()))


def _suspects(x: Tensor, end: Tensor, columns: list[int]) -> list[int]:
    """Columns in whose sample there is a gap after the least value."""
    second, spread = _rest(x, end)
    gap = (spread > 0) & (second - end > GAP * spread)
    return [c for c in columns if gap[c]]


def _rest(x: Tensor, end: Tensor) -> tuple[Tensor, Tensor]:
    """Of the ordered values but the least, the first, and what lies between their 5th and 95th
    percentiles; if nothing does, their range."""
    last = x.shape[1] - 1
    start = torch.searchsorted(x, end[:, None], right=True).clamp(max=last)
    shares = torch.tensor([0.0, 0.05, 0.95, 1.0], dtype=x.dtype)
    first, low, high, final = x.gather(1, start + (shares * (last - start)).long()).T
    return first, torch.where(high > low, high - low, final - first)


def _outliers(table: _Table, columns: list[int]) -> dict[int, tuple[int, float, float]]:
    """How many rows are far out, how far the farthest is, and its value."""
    middle, width = _quartiles(table.ordered)
    farthest = torch.maximum(table.high - middle, middle - table.low)
    suspect = (width > 0) & (farthest > FAR * width)
    found = {}
    for c in _without(columns, _indices(~suspect)):
        whole = table.whole(c)
        far = (whole - middle[c]).abs() / width[c]
        beyond = far > FAR
        count = int(beyond.sum())
        # a heavy tail has a density: it leaves no gap, unless it is too heavy for any flow
        alone = far[beyond].min() > ALONE * far[~beyond].max().clamp(min=1)
        if count <= max(2, len(whole) // 100) and (alone or far.max() > ABSURD):
            found[c] = count, far.max().item(), table.value(whole[far.argmax()], c)
    return found


def _quartiles(ordered: Tensor) -> tuple[Tensor, Tensor]:
    """The median of each column and the distance between its quartiles."""
    m = ordered.shape[1]
    low, middle, high = (ordered[:, (m - 1) * k // 4] for k in (1, 2, 3))
    return middle, high - low


# --- columns that others determine ----------------------------------------------------------------


def _identical(table: _Table, columns: list[int]) -> dict[int, int]:
    """Columns that equal an earlier one in every row, and which."""
    first: dict[tuple[float, ...], int] = {}
    found = {}
    for c in columns:
        key = tuple((table.sample[c] * table.unit[c]).tolist())
        if first.setdefault(key, c) != c:
            found[c] = first[key]
    return found


def _copies(table: _Table, columns: list[int]) -> dict[int, int]:
    """Columns that are an earlier one in the same or other units, and which."""
    if not columns:
        return {}
    most = min(2000, max(256, MOST_VALUES // 4 // len(columns)))
    columns, z = _scores(table, columns, most)
    random = torch.Generator().manual_seed(0)
    weights = torch.randn(z.shape[1], dtype=z.dtype, generator=random) / math.sqrt(z.shape[1])
    # equal columns, and opposite ones, fall on the same point; few others do
    points, order = (z @ weights).abs().sort()
    near = torch.diff(points) < 10 * math.sqrt(EXACT)
    found: dict[int, int] = {}
    for run in _runs(order.tolist(), near.tolist()):
        left = sorted(run)
        while left:
            one, *others = left
            same = [k for k in others if 1 - (z[k] @ z[one]).abs() / z.shape[1] < EXACT]
            found |= {columns[k]: columns[one] for k in same}
            left = _without(others, same)
    return dict(sorted(found.items()))


def _runs(items: list[int], near: list[bool]) -> list[list[int]]:
    """Cut a list wherever two neighbours are not near."""
    runs = [[item] for item in items[:1]]
    for item, joined in zip(items[1:], near, strict=True):
        if joined:
            runs[-1].append(item)
        else:
            runs.append([item])
    return runs


def _tied(
    table: _Table, columns: list[int], coarse: Collection[int]
) -> list[tuple[list[int], int]]:
    """Columns that linear equations bind together, and how many equations there are.

    Equations among ``coarse`` columns alone are left out: noise, which these need, ends them.
    """
    if not 2 <= len(columns) <= MOST_TIED:
        return []
    columns, z = _scores(table, columns, max(1000, 4 * len(columns)))
    if z.shape[1] < 2 * len(columns) + FEW_ROWS:
        return []
    variances, axes = torch.linalg.eigh(z @ z.T / z.shape[1])
    null = axes[:, variances < EXACT]
    onto = null @ null.T  # blocks, one for each set of columns, whatever axes were chosen
    part = onto.diagonal()
    groups = _blocks(onto.abs() > 1e-3, _indices(part > 1e-4))
    named = [([columns[k] for k in group], round(part[group].sum().item())) for group in groups]
    return [(group, rank) for group, rank in named if rank and _without(group, coarse)]


def _blocks(linked: Tensor, members: list[int]) -> list[list[int]]:
    """The sets of members that links hold together."""
    left, blocks = set(members), []
    while left:
        block, fresh = set[int](), {min(left)}
        while fresh:
            block |= fresh
            fresh = set(_indices(linked[sorted(fresh)].any(0))) & left - block
        left -= block
        blocks.append(sorted(block))
    return blocks


def _scores(table: _Table, columns: list[int], most: int) -> tuple[list[int], Tensor]:
    """Columns ``(k, r)`` with mean 0 and variance 1, over rows of which none lies far out.

    One such row would make any two columns that have it equal. For the same reason columns are
    left out that hold one value in all but a few rows.
    """
    m = table.sample.shape[1]
    x = table.sample[columns][:, torch.arange(min(m, most)) * m // min(m, most)]
    middle, width = (stat[columns, None] for stat in _quartiles(table.ordered))
    usual = ((x - middle).abs() <= FAR * width) | (width == 0)
    x = x[:, usual.all(0)]
    if x.shape[1] < FEW_ROWS:
        return [], x[:0]
    varied = (x != x.median(1, keepdim=True).values).sum(1) >= FEW_ROWS // 2
    x = x[varied] - x[varied].mean(1, keepdim=True)
    x = x / x.abs().amax(1, keepdim=True)  # squares of tiny numbers would vanish
    z = x / x.square().mean(1, keepdim=True).sqrt()
    return [columns[k] for k in _indices(varied)], z
