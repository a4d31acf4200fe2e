"""What is wrong with the columns of a table that a density is to be fitted to.

A density of continuous data is fitted to columns that have one. A column that never varies, a copy
of another, whole numbers, a value that many rows share: on each of them the likelihood has no
bound, and a flow that runs after it spoils the columns beside it. Nothing of this is an error by
itself, and all of it is worth a sentence.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

__all__ = ["column_name", "context_faults", "faults"]

VALUES = 4_000_000  # numbers that are sorted; more rows than that are thinned out evenly
FEW, ROWS_EACH = 300, 8  # so few values, each in so many rows on average, are no density
SHARE = 0.05  # of the rows with one and the same value
FAR = 100  # interquartile ranges from the median
RARE = 0.01  # the share of rows that are outliers and no tail
COLUMNS = 512  # of which linear combinations are looked for
NOTHING = 1e-10  # of a column's variance, what rounding to float32 leaves of a sum


def column_name(i: int, names: Sequence[str] | None, event: Sequence[int]) -> str:
    """How a message calls column ``i`` of flattened rows.

    Example:
        >>> column_name(1, ["height", "age"], (2,)), column_name(5, None, (1, 2, 3))
        ("column 'age'", 'pixel (0, 1, 2)')
    """
    if names is not None:
        return f"column {names[i]!r}"
    if len(event) > 1:
        return f"pixel {tuple(int(k) for k in np.unravel_index(i, tuple(event)))}"
    return f"column {i}"


def faults(rows: Tensor, names: Sequence[str] | None = None) -> list[str]:
    """What keeps columns from having a density, a sentence for each kind of fault.

    A column has one fault, the one that says most. Of many rows values are counted in a part that
    is thinned out evenly; ends and outliers are looked for in all. Linear combinations are looked
    for among 512 columns at most, and where there are twice as many rows as columns. Of fewer than
    20 rows only constants and copies are said.

    Args:
        rows: finite numbers, ``(n, *event)``.
        names: of the columns of vectors, such as a table has.

    Example:
        >>> g = torch.Generator().manual_seed(0)
        >>> x = torch.randn(500, 3, generator=g)
        >>> faults(x)
        []
        >>> x[:, 1] = 7
        >>> faults(x)
        ['column 1 never varies: leave it out.']
    """
    table = _Table(rows, names)
    return [
        *table.constants("leave it out", "leave them out"),
        *table.sentinels(),
        *table.few_values(),
        *table.shared_values(),
        *table.outliers(),
        *table.combinations(),
    ]


def context_faults(rows: Tensor, names: Sequence[str] | None = None) -> list[str]:
    """The same of contexts ``(n, C)``, which need no density but have to vary, and not too far."""
    table = _Table(rows, names)
    cure = "nothing can be learnt from it", "nothing can be learnt from them"
    found = [*table.constants(*cure), *table.sentinels(), *table.outliers()]
    return [f"Of the context, {sentence}" for sentence in found]


class _Table:
    """Columns, each of which takes part in the checks until its first fault."""

    def __init__(self, rows: Tensor, names: Sequence[str] | None) -> None:
        self.names, self.event = names, rows.shape[1:]
        x = rows.detach().cpu().flatten(1)
        self.x = x if x.dtype == torch.float64 else x.float()
        self.n, count = x.shape
        part = self.x[:: max(1, -(-self.n * count // max(VALUES, 1000 * count)))].double()
        self.part, self.m = part, len(part)
        self.sorted = part.sort(0).values
        self.low, self.high = (part.double() for part in self.x.aminmax(dim=0))
        self.open = torch.ones(count, dtype=torch.bool)

    # --- each check closes the columns that it has found ---

    def constants(self, cure: str, cure_of_many: str) -> list[str]:
        found = (self.low == self.high) & (self.n > 1)
        self.open &= ~found
        return self.say(found, f"never varies: {cure}", f"never vary: {cure_of_many}")

    def sentinels(self) -> list[str]:
        """An end that several rows share, far from all other values: a code for "missing"."""
        if self.m < 20:
            return []
        said = []
        often = ((self.x == self.low.to(self.x)).sum(0) > 2) | (
            (self.x == self.high.to(self.x)).sum(0) > 2
        )
        for i in _where(self.open & often):
            values = self.sorted[:, i]
            for end, rest in ((self.low[i], values[values > self.low[i]]), (
                self.high[i], values[values < self.high[i]].flip(0)
            )):  # fmt: skip
                if len(rest) < 10 or int((self.x[:, i] == end).sum()) < 3:
                    continue
                spread = (_quantile(rest, 0.9) - _quantile(rest, 0.1)).abs()
                if (rest[0] - end).abs() > 10 * spread > 0:
                    self.open[i] = False
                    share = (self.x[:, i] == end).double().mean().item()
                    said.append(
                        f"{self.name(i)} has the value {end.item():g} in {_percent(share)} of the "
                        "rows, far from all others: if it stands for a missing value, leave those "
                        "rows out or fill them."
                    )
                    break
        return said

    def few_values(self) -> list[str]:
        """Numbers on a lattice: counts, codes, levels of grey."""
        if self.m < 20:
            return []
        distinct = (self.sorted.diff(dim=0) != 0).sum(0) + 1
        few = self.open & (distinct <= FEW) & (self.m >= ROWS_EACH * distinct)
        for i in _where(few):  # and not because of one value alone
            _, counts = self.sorted[:, i].unique_consecutive(return_counts=True)
            few[i] = self.m - counts.max() >= ROWS_EACH * (len(counts) - 1)
        self.open &= ~few
        said, codes = [], []
        bits = _where(few & (self.low == 0) & (self.high == 1) & (distinct == 2))
        for group in _one_hot(self.part, bits):
            codes += group
            said.append(
                f"{self.names_of(group)} are one category in {len(group)} columns of 0 and 1: make "
                "it a context."
            )
        rest = few.clone()
        rest[codes] = False
        whole = rest & (self.part == self.part.round()).all(0)
        said += self.say(
            whole,
            "holds whole numbers: add noise from [0, 1), or make it a context",
            "hold whole numbers: add noise from [0, 1), as Dequantize does, or make them contexts",
        )
        for steps, columns in self.lattices(rest & ~whole).items():
            more = f"multiples of 1/{steps}, without noise between them" if steps else "few values"
            cure = f"Dequantize({steps + 1}) adds noise" if steps else "add noise of their distance"
            said += self.say(
                columns, f"holds {more}: {cure}, or make it a context",
                f"hold {more}: {cure}, or make them contexts",
            )  # fmt: skip
        return said

    def lattices(self, columns: Tensor) -> dict[int, Tensor]:
        """Columns by the number of steps to 1, 0 for those on no lattice."""
        groups: dict[int, Tensor] = {}
        for i in _where(columns):
            values = self.sorted[:, i].unique()
            steps = (1 / values.diff().min()).round()
            off = (values * steps - (values * steps).round()).abs().max()
            key = int(steps) if 1 < steps <= 4096 and off < 1e-2 else 0
            groups.setdefault(key, torch.zeros_like(columns))[i] = True
        if len(groups) > 1:  # a dark pixel may have only some of the levels
            largest = max(groups)
            for key in [k for k in groups if k and largest % k == 0 and k != largest]:
                groups[largest] |= groups.pop(key)
        return groups

    def shared_values(self) -> list[str]:
        """One value in many rows of a column that otherwise varies: zeros, a clipped end."""
        if self.m < 20:
            return []
        said: dict[str, Tensor] = {}
        run = int(max(8, SHARE * self.m))
        often = (self.sorted[run - 1 :] == self.sorted[: self.m - run + 1]).any(0)
        for i in _where(self.open & often):
            values, counts = self.sorted[:, i].unique_consecutive(return_counts=True)
            top = counts.topk(min(5, len(counts))).values
            # numbers that are rounded to some digits share values too, all of them alike
            if top[0] >= 5 * top[-1]:
                self.open[i] = False
                value = f"{values[counts.argmax()].item():g}"
                said.setdefault(value, torch.zeros_like(self.open))[i] = True
        return [
            sentence
            for value, columns in said.items()
            for sentence in self.say(
                columns,
                f"has the value {value} in many rows: fit those rows apart, or add noise to them",
                f"have the value {value} in many rows: fit those rows apart, or add noise to them",
            )
        ]

    def outliers(self) -> list[str]:
        if self.m < 20:
            return []
        low, middle, high = (_quantile(self.sorted, share) for share in (0.25, 0.5, 0.75))
        reach = FAR * (high - low)
        beyond = (self.low < middle - reach) | (self.high > middle + reach)
        said = []
        for i in _where(self.open & beyond & (high > low)):
            far = (self.x[:, i].double() - middle[i]).abs()
            count = int((far > reach[i]).sum())
            if count <= max(1, RARE * self.n):
                self.open[i] = False
                value = self.x[far.argmax(), i].item()
                said.append(
                    f"{self.name(i)} has {count} of {self.n} values far outside, such as {value:g} "
                    f"where half of them lie between {low[i].item():.3g} and {high[i].item():.3g}: "
                    "clip or remove it, or take logarithms."
                )
        return said

    def combinations(self) -> list[str]:
        """Columns that others determine: copies, sums, parts of a whole."""
        left = _where(self.open & (self.sorted[0] < self.sorted[-1]))
        if not 2 <= len(left) <= COLUMNS or self.m < 3:
            return []
        x = self.part[:, left]
        x = x / x.abs().amax(0)
        x = x - x.mean(0)
        x = x / x.square().mean(0).sqrt()
        correlation = x.T @ x / self.m
        copies = (correlation.abs() > 1 - NOTHING / 2).tril(-1)
        copied = copies.any(1)
        said = []
        for k in _where(copied):
            first = left[_where(copies[k])[0]]
            said.append(
                f"{self.name(left[k])} is a copy of {self.name(first)}, in the same or other "
                "units: leave one out."
            )
        rest = ~copied
        if self.m >= max(20, 2 * len(left)):
            eigenvalues, vectors = torch.linalg.eigh(correlation[rest][:, rest])
            null = vectors[:, eigenvalues < NOTHING]
            if null.shape[1]:
                remaining = [left[k] for k in _where(rest)]
                bound = [remaining[k] for k in _where(null.square().sum(1) > 1e-6)]
                count = null.shape[1]
                said.append(
                    f"{self.names_of(bound)} determine each other, as parts of a sum do: leave "
                    f"{count if count > 1 else 'one'} of them out."
                )
        return said

    # --- words ---

    def name(self, i: int) -> str:
        return column_name(i, self.names, self.event)

    def names_of(self, columns: Sequence[int]) -> str:
        named = [self.name(i) for i in columns[:4]]
        if len(columns) > 5:
            named.append(f"{len(columns) - 4} more")
        elif len(columns) == 5:
            named.append(self.name(columns[4]))
        return ", ".join(named[:-1]) + f" and {named[-1]}" if len(named) > 1 else named[0]

    def say(self, columns: Tensor, of_one: str, of_many: str) -> list[str]:
        found = _where(columns)
        return [f"{self.names_of(found)} {of_many if found[1:] else of_one}."] if found else []


def _where(columns: Tensor) -> list[int]:
    found: list[int] = columns.nonzero()[:, 0].tolist()
    return found


def _quantile(values: Tensor, share: float) -> Tensor:
    """Of values that are sorted."""
    return values[int(share * (len(values) - 1))]


def _percent(share: float) -> str:
    return f"{100 * share:.2g} %"


def _one_hot(x: Tensor, bits: Sequence[int]) -> list[list[int]]:
    """Groups of neighbouring columns of zeros and ones that sum to one."""
    groups, at = [], 0
    while at < len(bits):
        total = torch.zeros(len(x), dtype=x.dtype)
        for end in range(at, len(bits)):
            if bits[end] - bits[at] != end - at:
                break
            total = total + x[:, bits[end]]
            if (total > 1).any():
                break
            if (total == 1).all():
                groups.append(list(bits[at : end + 1]))
                at = end
                break
        at += 1
    return groups
