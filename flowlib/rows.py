"""Rows to train on: what people have, as tensors of a model's dtype, or an error that says why not.

Arrays come from many places: with masks, in another byte order, as tables with names, with more
digits than a float32 holds. What would be lost on the way to the model is said here and not
trained on. An array that lies in a file stays there: it is checked, counted and read in pieces.
"""

from __future__ import annotations

import functools
import itertools
import math
import zlib
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from contextlib import AbstractContextManager, contextmanager
from numbers import Real
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torch.utils.data.distributed import DistributedSampler

from flowlib.arguments import channels_hint, require_finite
from flowlib.arrays import (
    Names,
    as_tensor,
    from_numpy,
    opened,
    require_no_gaps,
    require_one_order,
)
from flowlib.columns import column_name
from flowlib.flow import Density
from flowlib.shares import Share

__all__ = [
    "Batches",
    "Exhausted",
    "Function",
    "Given",
    "HeldOut",
    "Judges",
    "Loader",
    "Rows",
    "Stream",
    "Table",
    "as_batches",
    "as_judges",
    "as_rows",
    "digest",
    "hold_out",
    "is_batches",
    "is_rows",
    "looked_at",
    "whole",
]

T = TypeVar("T")
SPLIT = 2**31  # a stream of randomness that is no step's
NOISE = 0.01  # of a column's spread, how much of it rounding may be
SAMPLE = 4096  # rows that tell a column's spread
JUDGED = 4096  # rows that judge at a time
PIECE = 2**18  # numbers of an array in a file that are in memory at a time


class Rows(NamedTuple):
    """Data points ``x (n, *event)``, contexts ``(n, C)`` and weights ``(n,)``; None for no such.

    Of data in a file, ``x`` and ``context`` are :class:`Stored`, and their parts are tensors.
    """

    x: Tensor
    context: Tensor | None = None
    weights: Tensor | None = None

    def each(self, change: Callable[[Tensor], Tensor]) -> Rows:
        """The same change made to every part that there is."""
        context, weights = (None if part is None else change(part) for part in self[1:])
        return Rows(change(self.x), context, weights)

    def between(self, start: int, stop: int) -> Rows:
        """Some of the rows, one after the other."""
        return self.each(lambda part: part[start:stop])

    def kind(self) -> str:
        """The names of the parts that there are."""
        return ", ".join(n for n, part in zip(self._fields, self, strict=True) if part is not None)


# --- from what people have ----------------------------------------------------------------------


def as_rows(
    where: str, flow: Density, name: str, data: Any, known: Names | None = None, **named: Any
) -> tuple[Rows, Names]:
    """Checked rows in the model's dtype, and the names of their columns.

    Args:
        where: the function that asks, for the messages.
        flow: the model that will be given them.
        name: what the caller calls ``data``.
        data: ``x``, or a tuple ``(x, context)`` or ``(x, context, weights)``; each a tensor, an
            array, a table such as pandas' DataFrame, or a list of rows. None stands for no context
            or no weights. What lies in a file, except weights, stays there.
        known: the names that the columns of tables must have, in any order; those that the model
            knows by default.
        **named: ``context`` and ``weights`` that were given apart from ``data``.

    Raises:
        TypeError: if a part is of another kind, or has other values than numbers.
        ValueError: if a shape does not fit, a value is missing, not finite, not a real number or
            one that the model cannot take, if the model's dtype is too coarse for a column, if
            a table has other columns than those that are known, or if weights are negative.
    """
    known = flow.columns if known is None else known
    parts = dict(zip(Rows._fields, data if isinstance(data, tuple) else (data,), strict=False))
    if isinstance(data, tuple) and not 1 <= len(data) <= 3:
        raise TypeError(
            f"{where}: expected {name} as x, (x, context) or (x, context, weights), got "
            f"{len(data)} parts"
        )
    for part, value in named.items():
        if value is not None and parts.get(part) is not None:
            raise TypeError(f"{where}: got two {part}, in {name} and by name")
        parts[part] = value if value is not None else parts.get(part)
    labels = {"x": name, "context": f"the context of {name}", "weights": f"the weights of {name}"}
    require_one_order(where, labels, parts)
    found = {
        part: _as_tensor(where, labels[part], value, getattr(known, part, None))
        for part, value in parts.items()
        if value is not None or part == "x"
    }
    raw = Rows(**{part: tensor for part, (tensor, _) in found.items()})
    names = Names(*(found[part][1] if part in found else None for part in Names._fields))
    _require_shapes(where, flow, labels, raw)
    if raw.context is None or raw.context.shape[1] == flow.context_dim:
        names = names.or_else(known)
    own = next(flow.parameters())
    for part, columns in names._asdict().items():
        for label, piece in _pieces(labels[part], getattr(raw, part)) if columns else ():
            require_no_gaps(where, label, piece, columns or ())
    for label, piece in _pieces(name, raw.x):
        flow.check_values(where, label, piece)
    for part in ("context", "weights"):
        for label, piece in _pieces(labels[part], getattr(raw, part)):
            require_finite(where, label, piece)
    rows = raw.each(lambda part: part.to(own.dtype))
    for part, columns in names._asdict().items():
        if part in found:
            _require_digits(where, labels[part], getattr(raw, part), getattr(rows, part), columns)
    for label, piece in _pieces(name, rows.x) if rows.x.dtype != raw.x.dtype else ():
        flow.check_values(where, label, piece)
    if rows.weights is not None:
        _require_weights(where, labels["weights"], rows.weights)
        if not rows.weights.all():  # rows that do not count
            rows = take(rows, rows.weights.nonzero()[:, 0])
    # what was made under inference_mode cannot be trained on
    return rows.each(_trainable), names


def _trainable(part: Tensor) -> Tensor:
    return part.clone() if isinstance(part, Tensor) and part.is_inference() else part


def _as_tensor(
    where: str, label: str, part: Any, known: tuple[str, ...] | None
) -> tuple[Tensor, tuple[str, ...] | None]:
    if isinstance(part, DataLoader | Dataset):
        hint = "which fit trains on as its data"
        if isinstance(part, Dataset):
            hint = "of which DataLoader(dataset, batch_size=256, shuffle=True) makes batches to fit"
        raise TypeError(f"{where}: expected {label} as arrays, got a {type(part).__name__}, {hint}")
    part, names = opened(where, label, part, known)
    if isinstance(part, np.ndarray) and is_mapped(part):
        stored: Any = Stored(where, label, part)
        return (stored[:] if part.ndim < 2 else stored), names  # weights are few
    return as_tensor(where, label, part, names), names


# --- what is asked of them ------------------------------------------------------------------------


def _require_shapes(where: str, flow: Density, labels: dict[str, str], rows: Rows) -> None:
    x, event = rows.x, flow.event_shape
    expected = ", ".join(["rows", *map(str, event)])
    if x.dim() == 0 or tuple(x.shape[1:]) != tuple(event):
        raise ValueError(
            f"{where}: expected {labels['x']} of shape ({expected}), got {tuple(x.shape)}"
            f"{channels_hint(x, event)}{'; [:, None] makes one column' if x.dim() == 1 else ''}"
        )
    if len(x) == 0:
        raise ValueError(f"{where}: {labels['x']} is empty; expected shape ({expected})")
    for part, dims, size in (("context", 2, ", C"), ("weights", 1, ",")):
        value = getattr(rows, part)
        if value is not None and (value.dim() != dims or len(value) != len(x)):
            hint = "; [:, None] makes one column" if value.dim() == 1 < dims else ""
            hint = hint or ("; drop the same rows in both" if value.dim() == dims else "")
            raise ValueError(
                f"{where}: expected {labels[part]} of shape ({len(x)}{size}), got "
                f"{tuple(value.shape)}{hint}"
            )


def _require_weights(where: str, label: str, weights: Tensor) -> None:
    if (weights < 0).any():
        raise ValueError(
            f"{where}: expected {label} of 0 or more, got {weights.min().item():g}; with negative "
            "ones the likelihood has no largest value"
        )
    if not weights.any():
        raise ValueError(f"{where}: {label} are all 0")


def _require_digits(
    where: str, label: str, raw: Tensor, cast: Tensor, names: Sequence[str] | None
) -> None:
    """Raise ``ValueError`` if a column is not the same any more in the model's dtype."""
    if raw.dtype == cast.dtype or not raw.shape.numel():
        return
    event, error = raw.shape[1:], torch.zeros((), dtype=torch.float64)
    for (_, exact), (_, near) in zip(_pieces("", raw), _pieces("", cast), strict=True):
        exact, near = (part.cpu().flatten(1) for part in (exact, near))
        beyond = ~near.isfinite()
        if beyond.any():
            row, i = beyond.nonzero()[0].tolist()
            raise ValueError(
                f"{where}: {exact[row, i].item():g} in {column_name(i, names, event)} of {label} "
                f"is beyond {cast.dtype}, in which the model is; flow.double() has room for it, or "
                "divide the column"
            )
        error = error + (exact.double() - near.double()).square().sum(0)
    error = (error / len(raw)).sqrt()
    if not error.any():
        return
    some = raw[:: -(-len(raw) // SAMPLE)].cpu().flatten(1).double().sort(0).values
    low, high = (some[int(share * (len(some) - 1))] for share in (0.25, 0.75))
    spread = (high - low) / 1.35
    if not (high > low).all():
        # in half of a column's values is less noise from outliers; if they are all one, in all
        spread = torch.where(high > low, spread, _deviation(raw))
    lost = (error > NOISE * spread) & (spread > 0)
    if lost.any():
        columns = lost.nonzero()[:, 0].tolist()
        i = columns[0]
        which = ", ".join(column_name(k, names, event) for k in columns[:4])
        more = f" and {len(columns) - 4} more" if len(columns) > 4 else ""
        typical = some[:, i].abs().median().item()
        raise ValueError(
            f"{where}: {cast.dtype}, in which the model is, loses the digits of {which}{more} of "
            f"{label}: values near {typical:.4g} vary by {spread[i].item():.2g}, and its steps "
            f"there are {typical * torch.finfo(cast.dtype).eps:.2g}. flow.double() keeps them, or "
            "subtract the mean first"
        )


def _deviation(raw: Tensor) -> Tensor:
    """Of each column, in float64, by three passes through the pieces."""

    def columns() -> Iterator[Tensor]:
        return (piece.cpu().flatten(1).double() for _, piece in _pieces("", raw))

    largest = functools.reduce(torch.maximum, (piece.abs().amax(0) for piece in columns()))
    unit = largest.clamp(min=torch.finfo(torch.float64).tiny)
    zero = torch.zeros_like(unit)
    mean = sum(((piece / unit).sum(0) for piece in columns()), zero) / len(raw)
    squares = sum(((piece / unit - mean).square().sum(0) for piece in columns()), zero)
    return (squares / len(raw)).sqrt() * unit


# --- what lies in a file --------------------------------------------------------------------------


class Stored:
    """Rows of an array that lies in a file, in place of a tensor: its parts are read as tensors.

    Args:
        where: the function that asks, for the messages.
        label: what the caller calls the array.
        array: memory-mapped.
        rows: the numbers of the rows that belong to it, None for all.
        dtype: of what is read; None for that of the array.
    """

    def __init__(
        self,
        where: str,
        label: str,
        array: np.ndarray,
        rows: np.ndarray | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        self.where, self.label, self.array, self.rows = where, label, array, rows
        self.dtype = dtype or from_numpy(where, label, array[:0], None).dtype
        count = len(array) if rows is None else len(rows)
        self.shape = torch.Size((count, *array.shape[1:]))

    def __len__(self) -> int:
        return self.shape[0]

    def dim(self) -> int:
        return len(self.shape)

    def to(self, dtype: torch.dtype) -> Stored:
        """The same, of which parts are read in another dtype."""
        return Stored(self.where, self.label, self.array, self.rows, dtype)

    def at(self, index: Tensor) -> Stored:
        """Some of the rows; none is read."""
        chosen = index.numpy()
        rows = chosen if self.rows is None else self.rows[chosen]
        return Stored(self.where, self.label, self.array, rows, self.dtype)

    def __getitem__(self, index: Tensor | slice) -> Tensor:
        """These rows, read."""
        at: Any = index.numpy() if isinstance(index, Tensor) else index
        part = self.array[at if self.rows is None else self.rows[at]]
        return from_numpy(self.where, self.label, np.asarray(part), None).to(self.dtype)

    def in_order(self) -> Iterator[np.ndarray]:
        """The bytes of all the array, by pieces of rows."""
        count = piece_of(self.array.shape)
        for k in range(0, len(self.array), count):
            yield np.ascontiguousarray(self.array[k : k + count])


def is_mapped(array: np.ndarray) -> bool:
    """Whether an array, or what it is a view of, is memory-mapped."""
    base: Any = array
    while isinstance(base, np.ndarray):
        if isinstance(base, np.memmap):
            return not isinstance(array, np.ma.MaskedArray)
        base = base.base
    return False


def piece_of(shape: Sequence[int]) -> int:
    """How many rows are in memory at a time."""
    return max(1, PIECE // max(1, math.prod(shape[1:])))


def _pieces(label: str, part: Any) -> Iterator[tuple[str, Tensor]]:
    """A tensor as it is, or what lies in a file piece by piece, and what a message calls it."""
    if not isinstance(part, Stored):
        yield from () if part is None else [(label, part)]
        return
    count = piece_of(part.shape)
    for k in range(0, len(part), count):
        yield f"{label}[{k}:]" if k else label, part[k : k + count]


def take(rows: Rows, index: Tensor) -> Rows:
    """Some of the rows. What lies in a file stays there."""
    return rows.each(lambda part: part.at(index) if isinstance(part, Stored) else part[index])


# --- batches ---------------------------------------------------------------------------------


def is_rows(value: Any) -> bool:
    """Whether it is data, and not the share of data to hold out."""
    return value is not None and not isinstance(value, Real)


def hold_out(rows: Rows, share: Any, seed: int) -> tuple[Rows, Rows]:
    """Two parts of the rows, the second of this share."""
    if not 0 <= share < 1:
        raise ValueError(f"fit: expected a validation share in [0, 1), got {share}")
    n = len(rows.x)
    order = torch.from_numpy(np.random.default_rng([seed, SPLIT]).permutation(n))
    cut = n - (max(1, round(share * n)) if share else 0)
    return take(rows, order[:cut]), take(rows, order[cut:])


def looked_at(rows: Rows) -> Rows:
    """All rows, or of those in a file a sample that is spread evenly."""
    if not any(isinstance(part, Stored) for part in rows):
        return rows
    n = len(rows.x)
    count = min(n, max(SAMPLE // 64, piece_of(rows.x.shape)))
    some = torch.arange(count) * n // max(count, 1)
    return rows.each(lambda part: part[some])


def is_batches(data: Any) -> bool:
    """Whether it gives batches one after the other, and is no array, table or list of rows.

    Example:
        >>> is_batches(iter([torch.zeros(3, 2)])), is_batches([[1.0, 2.0]]), is_batches("abc")
        (True, False, False)
    """
    if isinstance(data, DataLoader):
        return True
    other = (str, bytes, Mapping, Set, list, tuple, Tensor, np.ndarray, Dataset)
    table = any(hasattr(data, name) for name in ("to_numpy", "__array__", "toarray", "shape"))
    return isinstance(data, Iterable) and not isinstance(data, other) and not table


class Exhausted(Exception):
    """There are no more batches."""


class Batches(ABC):
    """The batches of a run, one for each step, from 1.

    Args:
        flow: the model that will be given them.
        names: of the columns, as far as they are known before the first batch.
    """

    def __init__(self, flow: Density, names: Names) -> None:
        self.flow, self.names = flow, names

    @abstractmethod
    def batch(self, step: int) -> Rows:
        """The rows of a step, to look at; their mean weight is 1, or that of all rows is."""

    def part(self, step: int, share_of: Callable[[int], Share]) -> tuple[Rows, Share]:
        """A process's rows of a step, and which of them they are. Steps are asked in their order.

        Args:
            step: which.
            share_of: from the number of all rows to this process's; :func:`whole` for all.
        """
        rows = self.batch(step)
        share = share_of(len(rows.x))
        return rows.between(share.start, share.stop), share

    def known(self, first: Rows) -> Rows:
        """The rows that are looked at before the first step, given its batch."""
        return first

    def checked(self, step: int, item: Any) -> Rows:
        """What was given for a step, by a function or an iterable; its mean weight is 1."""
        rows, self.names = as_batch(self.flow, f"batch {step}", item, self.names)
        return with_mean_one(rows)

    @abstractmethod
    def about(self) -> str:
        """What they are, for a checkpoint."""


class Table(Batches):
    """Batches of rows: epoch after epoch, each in an order of its own."""

    def __init__(
        self, flow: Density, rows: Rows, names: Names, n_valid: int, batch_size: int, seed: int
    ) -> None:
        super().__init__(flow, names)
        self.count = len(rows.x)
        if self.count < 2:
            held = f", and {n_valid} to validate" if n_valid else ""
            raise ValueError(f"fit: expected 2 rows or more to train on, got {self.count}{held}")
        self.rows = with_mean_one(rows)
        self.batch_size, self.seed = min(batch_size, self.count), seed
        self.epoch, self.order = -1, torch.empty(0)

    def batch(self, step: int) -> Rows:
        index = self.index(step)
        return self.rows.each(lambda part: part[index])

    def part(self, step: int, share_of: Callable[[int], Share]) -> tuple[Rows, Share]:
        index = self.index(step)
        share = share_of(len(index))
        own = index[share.start : share.stop]
        return self.rows.each(lambda part: part[own]), share

    def known(self, first: Rows) -> Rows:
        return looked_at(self.rows)

    def index(self, step: int) -> Tensor:
        """The numbers of a step's rows."""
        per_epoch = self.count // self.batch_size  # an epoch's last, incomplete batch is dropped
        epoch, at = divmod(step - 1, per_epoch)
        if epoch != self.epoch:
            rng = np.random.default_rng([self.seed, epoch])
            self.epoch, self.order = epoch, torch.from_numpy(rng.permutation(self.count))
        return self.order[at * self.batch_size : (at + 1) * self.batch_size]

    def about(self) -> str:
        return f"{self.count} rows in batches of {self.batch_size}, digest {digest(self.rows)}"


class Function(Batches):
    """Batches that the caller's function makes."""

    def __init__(self, flow: Density, make: Callable[[int], Any]) -> None:
        super().__init__(flow, flow.columns)
        self.make = make

    def batch(self, step: int) -> Rows:
        return self.checked(step, self.make(step))

    def about(self) -> str:
        return "a function"


class Stream(Batches):
    """What an iterable gives, one batch after the other; at its end it is gone through anew.

    What can be gone through once only, such as a generator, ends the run where it ends. A run that
    goes on from a checkpoint goes again through what it has seen.
    """

    def __init__(self, flow: Density, source: Iterable[Any], seed: int) -> None:
        super().__init__(flow, flow.columns)
        self.source, self.seed = source, seed
        self.kind = type(source).__name__
        self.at, self.latest = 0, Rows(torch.empty(0))
        self.left: Iterator[Any] | None = None

    def batch(self, step: int) -> Rows:
        while self.at < step:
            with stream_of(self.seed, self.at, *generators_of(self.source)):
                item = self._next()
            self.at += 1
            if self.at == step:
                self.latest = self.checked(step, item)
        return self.latest

    def _next(self) -> Any:
        if self.left is not None:
            for item in self.left:
                return item
            if self.left is self.source:
                raise Exhausted(f"the {self.kind} has given {self.at} batches and has no more")
        self.left = iter(self.source)
        for item in self.left:
            return item
        if not self.at:
            raise ValueError(f"fit: expected batches, got a {self.kind} that gives none")
        raise Exhausted(f"the {self.kind} has given {self.at} batches and, the next time, none")

    def about(self) -> str:
        return f"a {self.kind}"


class Loader(Batches):
    """What a ``DataLoader`` gives, epoch after epoch; of a batch each process loads its own rows.

    The order of an epoch comes from the seed and the epoch's number, so that every process has the
    same one, and a run that goes on has it again without loading what it has seen. It is so with a
    generator of the loader's, too, which is afterwards as it was.
    """

    def __init__(self, flow: Density, loader: DataLoader[Any], seed: int) -> None:
        super().__init__(flow, flow.columns)
        self.loader, self.seed = loader, seed
        if not len(loader):
            raise ValueError("fit: expected batches, got a DataLoader that gives none")
        self.generators = generators_of(loader)
        self.whole = False  # whether every process loads all rows
        self.at = 0
        self.latest = 0, Rows(torch.empty(0))  # what was loaded whole
        self.left: Iterator[Any] = iter(())
        self.shares: deque[Share] = deque()

    @staticmethod
    def takes(data: Any) -> bool:
        """Whether its rows can be shared out, since they are called by numbers."""
        if type(data) is not DataLoader or data.batch_sampler is None:
            return False
        try:
            return len(data) >= 0
        except TypeError:  # a sampler without a length
            return False

    def batch(self, step: int) -> Rows:
        """The batch of a step, loaded whole, and apart from the run's other batches."""
        if self.latest[0] == step:
            return self.latest[1]
        batches = self._batches(step, whole)
        with self._stream(step):
            item = next(batches)
        self.shares.clear()
        rows = self.checked(step, item)
        self.whole = self.whole or rows.weights is not None  # of which all make the mean
        self.latest = step, rows
        return rows

    def part(self, step: int, share_of: Callable[[int], Share]) -> tuple[Rows, Share]:
        seen = (step - 1) % len(self.loader)
        if step != self.at + 1 or not seen:
            self.shares.clear()
            self.left = self._batches(step, whole if self.whole else share_of)
        with self._stream(step):
            item = next(self.left, None)
        if item is None:
            raise ValueError(
                f"fit: expected {len(self.loader)} batches from the DataLoader, got {seen}"
            )
        self.at = step
        rows, share = self.checked(step, item), self.shares.popleft()
        if not share.together:  # all rows are here, as many as the loader has made
            share = share_of(len(rows.x))
            return rows.between(share.start, share.stop), share
        asked = max(1, share.rows)
        if len(rows.x) != asked or rows.weights is not None:
            got = f"{len(rows.x)} rows" + (", with weights" if rows.weights is not None else "")
            raise ValueError(
                f"fit: expected {asked} rows for {asked} row numbers of batch {step} from the "
                f"DataLoader, and weights from the first batch on or never, got {got}: what its "
                "collate function leaves out or adds, processes cannot have shares of; leave it "
                "out of the data set"
            )
        return rows.between(0, share.rows), share

    def _stream(self, step: int) -> AbstractContextManager[None]:
        """Where what is drawn besides the order comes from, such as a worker's seed."""
        return stream_of(self.seed, SPLIT + step, *self.generators)

    def _batches(self, step: int, share_of: Callable[[int], Share]) -> Iterator[Any]:
        """An epoch from a step on, of each batch this process's rows."""
        its, sampler = self.loader, self.loader.batch_sampler
        assert sampler is not None
        epoch, seen = divmod(step - 1, len(its))

        def shares() -> Iterator[list[Any]]:
            order = apart(lambda: iter(sampler), self.seed, epoch, self.generators)
            for index in itertools.islice(order, seen, None):
                rows = list(index)
                share = share_of(len(rows))
                self.shares.append(share)
                # a process without a row loads one, and leaves it
                yield rows[share.start : share.stop] or rows[:1]

        def copy(indices: Any) -> DataLoader[Any]:
            return DataLoader(
                its.dataset,
                batch_sampler=indices,
                num_workers=its.num_workers,
                collate_fn=its.collate_fn,
                pin_memory=its.pin_memory,
                timeout=its.timeout,
                worker_init_fn=its.worker_init_fn,
                multiprocessing_context=its.multiprocessing_context,
                generator=its.generator,
                prefetch_factor=its.prefetch_factor,
            )

        with self._stream(step):  # workers start here, with numbers of their own
            return iter(copy(shares()))

    def about(self) -> str:
        return f"a DataLoader of {len(self.loader)} batches an epoch"


def as_batches(flow: Density, data: Any, seed: int) -> Batches:
    """The batches of a ``DataLoader`` or of another iterable.

    Raises:
        ValueError: if it gives none, or gives each process rows of its own already.
    """
    if isinstance(data, DataLoader):
        kind = type(data)
        if kind.__module__.partition(".")[0] == "accelerate":
            raise ValueError(
                "fit: expected a DataLoader as it was before engine.prepare, whose batches are "
                f"whole, got a {kind.__name__}; fit gives each process its rows"
            )
        if isinstance(data.sampler, DistributedSampler):
            raise ValueError(
                "fit: expected a DataLoader whose batches are whole, got one with a "
                "DistributedSampler; shuffle=True will do, and fit gives each process its rows"
            )
    return Loader(flow, data, seed) if Loader.takes(data) else Stream(flow, data, seed)


def as_batch(flow: Density, name: str, item: Any, known: Names) -> tuple[Rows, Names]:
    """What a function, a loader or an iterable has given, checked, and its columns' names."""
    tensors = isinstance(item, list) and item and all(isinstance(part, Tensor) for part in item)
    if tensors and item[0].dim() > len(flow.event_shape):
        item = tuple(item)  # what a DataLoader makes of a TensorDataset's rows, and no list of rows
    return as_rows("fit", flow, name, item, known)


def whole(rows: int) -> Share:
    """All rows of a batch, which nobody else has."""
    return Share.of(rows, 0, 1)


@contextmanager
def stream_of(seed: int, number: int, *others: torch.Generator) -> Iterator[None]:
    """PyTorch's random numbers of that seed and number; afterwards they are as they were.

    Args:
        seed: of the run.
        number: which of its streams.
        *others: generators to which the same happens.
    """
    mixed = np.random.SeedSequence([seed, SPLIT, number]).generate_state(1, np.uint64)[0]
    generators = torch.random.default_generator, *others
    before = [generator.get_state() for generator in generators]
    try:
        for generator in generators:
            generator.manual_seed(int(mixed) >> 1)
        yield
    finally:
        for generator, state in zip(generators, before, strict=True):
            generator.set_state(state)


def apart(
    make: Callable[[], Iterator[T]], seed: int, number: int, others: Sequence[torch.Generator] = ()
) -> Iterator[T]:
    """What an iterator gives whose random numbers are a stream of their own, whoever draws between.

    Example:
        >>> draws = lambda: (torch.rand(()).item() for _ in range(3))
        >>> list(apart(draws, 0, 1)) == [(torch.rand(9), x)[1] for x in apart(draws, 0, 1)]
        True
    """
    generators = torch.random.default_generator, *others
    states: list[Tensor] = []
    items: Iterator[T] | None = None
    while True:
        with stream_of(seed, number, *others):
            for generator, state in zip(generators, states, strict=False):
                generator.set_state(state)
            items = make() if items is None else items
            found = list(itertools.islice(items, 1))
            states = [generator.get_state() for generator in generators]
        if not found:
            return
        yield found[0]


def generators_of(source: Any) -> list[torch.Generator]:
    """Those that a ``DataLoader`` and its samplers draw from; of another iterable, none."""
    if not isinstance(source, DataLoader):
        return []
    parts: list[Any] = [source]
    for part in parts:  # which grows on the way
        for inner in (getattr(part, name, None) for name in ("sampler", "batch_sampler")):
            if inner is not None and all(inner is not other for other in parts):
                parts.append(inner)
    its = [getattr(part, "generator", None) for part in parts]
    return list(dict.fromkeys(one for one in its if isinstance(one, torch.Generator)))


# --- rows that judge ------------------------------------------------------------------------------


class Judges(ABC):
    """The rows by which weights are judged: all of them at every look, in pieces.

    Attributes:
        names: of the columns, as far as they are known before the first look.
        weight: of all rows together, known when the pieces have been gone through.
    """

    names: Names
    weight: float

    @abstractmethod
    def pieces(self, share_of: Callable[[int], Share]) -> Iterator[tuple[Rows, Share]]:
        """A process's rows of each piece, and which of them they are."""

    @abstractmethod
    def about(self) -> str:
        """What they are, for a checkpoint."""


class HeldOut(Judges):
    """Rows of a table that are not trained on, or were given to judge."""

    def __init__(self, rows: Rows, names: Names) -> None:
        self.rows, self.names, self.count = rows, names, len(rows.x)
        self.weight = self.count if rows.weights is None else rows.weights.sum().item()

    def pieces(self, share_of: Callable[[int], Share]) -> Iterator[tuple[Rows, Share]]:
        for k in range(0, self.count, JUDGED):
            share = share_of(min(JUDGED, self.count - k))
            yield self.rows.between(k + share.start, k + share.stop), share

    def about(self) -> str:
        return f"{self.count} to validate"


class Given(Judges):
    """The batches of a ``DataLoader`` or of another iterable, the same ones at every look.

    Args:
        flow: the model that is judged.
        source: what gives them; it is gone through at every look.
        known: gives the names that the columns of tables must have.
        seed: of the run; what the source draws is a stream of its own.
    """

    def __init__(
        self, flow: Density, source: Iterable[Any], known: Callable[[], Names], seed: int
    ) -> None:
        self.flow, self.source, self.known, self.seed = flow, source, known, seed
        self.names, self.weight, self.kind = Names(), 0.0, type(source).__name__
        if isinstance(source, Iterator):
            raise ValueError(
                "fit: expected validation batches that can be gone through at every look, got a "
                f"{self.kind}, which can be gone through once; give rows, or a DataLoader"
            )

    def pieces(self, share_of: Callable[[int], Share]) -> Iterator[tuple[Rows, Share]]:
        self.weight = 0.0
        generators = generators_of(self.source)
        items = apart(lambda: iter(self.source), self.seed, 2 * SPLIT, generators)
        for k, item in enumerate(items, 1):
            rows, _ = as_batch(self.flow, f"validation batch {k}", item, self.known())
            self.weight += len(rows.x) if rows.weights is None else rows.weights.sum().item()
            share = share_of(len(rows.x))
            yield rows.between(share.start, share.stop), share
        if not self.weight:
            raise ValueError(f"fit: expected validation batches, got a {self.kind} that gives none")

    def about(self) -> str:
        return f"a {self.kind} to validate"


def as_judges(flow: Density, validation: Any, known: Callable[[], Names], seed: int) -> Judges:
    """The rows that a caller gives to judge by, or batches of them."""
    if is_batches(validation):
        return Given(flow, validation, known, seed)
    return HeldOut(*as_rows("fit", flow, "validation", validation, known()))


def with_mean_one(rows: Rows) -> Rows:
    """The rows with weights whose mean is 1."""
    if rows.weights is None:
        return rows
    return rows._replace(weights=rows.weights / rows.weights.mean())


def digest(rows: Rows) -> str:
    """A few digits that other rows would hardly have."""
    found = 0
    for part in rows:
        for piece in () if part is None else _bytes_of(part):
            found = zlib.crc32(piece, found)
    return format(found, "08x")


def _bytes_of(part: Any) -> Iterator[Any]:
    if isinstance(part, Stored):  # all of the file, in its order: it is read quickest so
        yield from part.in_order()
        return
    count = piece_of(part.shape)
    for k in range(0, len(part), count):
        yield part[k : k + count].cpu().contiguous().view(torch.uint8).numpy()
