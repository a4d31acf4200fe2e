"""Rows to train on: what people have, as tensors of a model's dtype, or an error that says why not.

Arrays come from many places: with masks, in another byte order, as tables with names, with more
digits than a float32 holds. What would be lost on the way to the model is said here and not
trained on.
"""

from __future__ import annotations

import functools
import zlib
from collections.abc import Callable, Sequence
from numbers import Real
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from flowlib.arguments import channels_hint, require_finite
from flowlib.columns import column_name
from flowlib.flow import Density

__all__ = ["Function", "Rows", "Table", "as_rows", "hold_out", "is_rows"]

SPLIT = 2**31  # a stream of randomness that is no step's
NOISE = 0.01  # of a column's spread, how much of it rounding may be
SAMPLE = 4096  # rows that tell a column's spread


class Rows(NamedTuple):
    """Data points ``x (n, *event)``, contexts ``(n, C)`` and weights ``(n,)``; None for no such."""

    x: Tensor
    context: Tensor | None = None
    weights: Tensor | None = None

    def each(self, change: Callable[[Tensor], Tensor]) -> Rows:
        """The same change made to every part that there is."""
        context, weights = (None if part is None else change(part) for part in self[1:])
        return Rows(change(self.x), context, weights)

    def kind(self) -> str:
        """The names of the parts that there are."""
        return ", ".join(n for n, part in zip(self._fields, self, strict=True) if part is not None)


# --- from what people have ----------------------------------------------------------------------


def as_rows(where: str, flow: Density, name: str, data: Any, **named: Any) -> tuple[Rows, Names]:
    """Checked rows in the model's dtype, and the names of their columns.

    Args:
        where: the function that asks, for the messages.
        flow: the model that will be given them.
        name: what the caller calls ``data``.
        data: ``x``, or a tuple ``(x, context)`` or ``(x, context, weights)``; each a tensor, an
            array, a table such as pandas' DataFrame, or a list of rows. None stands for no context
            or no weights.
        **named: ``context`` and ``weights`` that were given apart from ``data``.

    Raises:
        TypeError: if a part is of another kind, or has other values than numbers.
        ValueError: if a shape does not fit, a value is missing, not finite, not a real number or
            one that the model cannot take, if the model's dtype is too coarse for a column, or if
            weights are negative.
    """
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
    found = {
        part: _as_tensor(where, labels[part], value)
        for part, value in parts.items()
        if value is not None or part == "x"
    }
    raw = Rows(**{part: tensor for part, (tensor, _) in found.items()})
    names = Names(*(found[part][1] if part in found else None for part in ("x", "context")))
    _require_shapes(where, flow, labels, raw)
    own = next(flow.parameters())
    flow.check_values(where, name, raw.x)
    for part in ("context", "weights"):
        if part in found:
            require_finite(where, labels[part], getattr(raw, part))
    rows = raw.each(lambda part: part.to(own.dtype))
    for part, columns in zip(("x", "context"), names, strict=True):
        if part in found:
            _require_digits(where, labels[part], getattr(raw, part), getattr(rows, part), columns)
    flow.check_values(where, name, rows.x)
    if rows.weights is not None:
        _require_weights(where, labels["weights"], rows.weights)
        if not rows.weights.all():  # rows that do not count
            kept = rows.weights > 0
            rows = rows.each(lambda part: part[kept])
    # what was made under inference_mode cannot be trained on
    return rows.each(lambda part: part.clone() if part.is_inference() else part), names


class Names(NamedTuple):
    """The names that a table gives to its columns, None where there are no names."""

    x: list[str] | None
    context: list[str] | None


def _as_tensor(where: str, label: str, part: Any) -> tuple[Tensor, list[str] | None]:
    names = None
    if isinstance(part, DataLoader | Dataset):
        raise TypeError(
            f"{where}: expected {label} as arrays or a function that makes the batch of a step, "
            f"got a {type(part).__name__}. Of a DataLoader, batches = itertools.chain.from_iterable"
            "(itertools.repeat(loader)) goes round and round, and lambda step: next(batches) is "
            "such a function"
        )
    if not isinstance(part, Tensor | np.ndarray) and hasattr(part, "to_numpy"):
        if hasattr(part, "columns"):
            names = [str(column) for column in part.columns]
        part = part.to_numpy()
    if isinstance(part, list):
        part = _stacked(where, label, part)
    if isinstance(part, np.ndarray):
        part = _from_numpy(where, label, part, names)
    if not isinstance(part, Tensor):
        hint = "; its toarray() makes one" if hasattr(part, "toarray") else ""
        kind = type(part).__name__
        raise TypeError(
            f"{where}: expected {label} to be a tensor, array, table or list of rows, got "
            f"{kind}{hint}"
        )
    if part.is_complex():
        raise ValueError(
            f"{where}: expected {label} of real numbers, got {part.dtype}; "
            "torch.view_as_real makes two columns of each"
        )
    return part.detach().to_dense() if part.layout != torch.strided else part.detach(), names


def _stacked(where: str, label: str, part: list[Any]) -> Any:
    try:
        if part and all(isinstance(row, Tensor) for row in part):
            return torch.stack(part)
        return np.asarray(part)
    except (ValueError, RuntimeError) as error:
        raise ValueError(f"{where}: {label}: expected rows of one shape: {error}") from error


def _from_numpy(where: str, label: str, part: np.ndarray, names: Sequence[str] | None) -> Tensor:
    if isinstance(part, np.ma.MaskedArray):
        if np.ma.is_masked(part):
            raise ValueError(
                f"{where}: {int(np.ma.getmaskarray(part).sum())} of the {part.size} values of "
                f"{label} are masked; fill them, as filled() does, or leave their rows out"
            )
        part = part.data
    if part.dtype.kind == "c":
        raise ValueError(
            f"{where}: expected {label} of real numbers, got {part.dtype}; np.stack((x.real, "
            "x.imag), -1) has both parts"
        )
    if part.dtype.kind == "O":
        part = _numbers(where, label, part, names)
    if part.dtype.kind not in "bfiu":
        raise TypeError(f"{where}: expected {label} of numbers, got an array of {part.dtype}")
    # torch has no unsigned numbers worth the name, no long doubles, and one byte order
    if part.dtype.kind == "u" and part.itemsize > 1:
        part = part.astype(np.float64 if part.itemsize == 8 else np.int64)
    part = part.astype(np.float64 if part.itemsize > 8 else part.dtype.newbyteorder("="))
    return torch.from_numpy(np.array(part))  # a copy, since torch takes no reversed array


def _numbers(where: str, label: str, part: np.ndarray, names: Sequence[str] | None) -> np.ndarray:
    """An array of Python objects, as tables of several types are, as floats."""
    try:
        return part.astype(np.float64)
    except (TypeError, ValueError):
        pass
    columns = part.reshape(len(part), -1).T if part.ndim else part.reshape(1, 1)
    bad = [i for i, column in enumerate(columns) if not all(map(_is_number, column))]
    which = ", ".join(column_name(i, names, part.shape[1:]) for i in bad[:4])
    example = next(value for value in columns[bad[0]] if not _is_number(value))
    raise TypeError(
        f"{where}: expected {label} of numbers, got {example!r} in {which}; drop such columns, "
        "fill what is missing, or code categories as numbers of a context"
    )


def _is_number(value: Any) -> bool:
    try:
        float(value)
    except (TypeError, ValueError):
        return False
    return True


# --- what is asked of them ------------------------------------------------------------------------


def _require_shapes(where: str, flow: Density, labels: dict[str, str], rows: Rows) -> None:
    x, event = rows.x, flow.event_shape
    expected = ", ".join(["rows", *map(str, event)])
    if x.dim() == 0 or tuple(x.shape[1:]) != tuple(event):
        raise ValueError(
            f"{where}: expected {labels['x']} of shape ({expected}), got {tuple(x.shape)}"
            f"{channels_hint(x, event)}"
        )
    if len(x) == 0:
        raise ValueError(f"{where}: {labels['x']} is empty; expected shape ({expected})")
    for part, dims, size in (("context", 2, ", C"), ("weights", 1, ",")):
        value = getattr(rows, part)
        if value is not None and (value.dim() != dims or len(value) != len(x)):
            hint = "; [:, None] makes one column" if value.dim() == 1 < dims else ""
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
    if raw.dtype == cast.dtype or not raw.numel():
        return
    event = raw.shape[1:]
    exact, cast = (part.cpu().flatten(1) for part in (raw, cast))
    beyond = ~cast.isfinite()
    if beyond.any():
        row, i = beyond.nonzero()[0].tolist()
        raise ValueError(
            f"{where}: {exact[row, i].item():g} in {column_name(i, names, event)} of {label} is "
            f"beyond {cast.dtype}, in which the model is; flow.double() has room for it, or divide "
            "the column"
        )
    error = (exact.double() - cast.double()).square().mean(0).sqrt()
    if not error.any():
        return
    some = exact[:: -(-len(exact) // SAMPLE)].double().sort(0).values
    low, high = (some[int(share * (len(some) - 1))] for share in (0.25, 0.75))
    # in half of a column's values is less noise from outliers; if they are all one, in all
    spread = torch.where(high > low, (high - low) / 1.35, _deviation(exact))
    lost = (error > NOISE * spread) & (spread > 0)
    if lost.any():
        columns = lost.nonzero()[:, 0].tolist()
        i = columns[0]
        which = ", ".join(column_name(k, names, event) for k in columns[:4])
        more = f" and {len(columns) - 4} more" if len(columns) > 4 else ""
        typical = cast[:, i].abs().median().item()
        raise ValueError(
            f"{where}: {cast.dtype}, in which the model is, loses the digits of {which}{more} of "
            f"{label}: values near {typical:.4g} vary by {spread[i].item():.2g}, and its steps "
            f"there are {typical * torch.finfo(cast.dtype).eps:.2g}. flow.double() keeps them, or "
            "subtract the mean first"
        )


def _deviation(exact: Tensor) -> Tensor:
    unit = exact.double().abs().amax(0).clamp(min=torch.finfo(torch.float64).tiny)
    return (exact.double() / unit).std(0, correction=0) * unit


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
    return rows.each(lambda part: part[order[:cut]]), rows.each(lambda part: part[order[cut:]])


class Table:
    """Batches of rows: epoch after epoch, each in an order of its own."""

    def __init__(self, rows: Rows, n_valid: int, batch_size: int, seed: int) -> None:
        self.count = len(rows.x)
        if self.count < 2:
            held = f", and {n_valid} to validate" if n_valid else ""
            raise ValueError(f"fit: expected 2 rows or more to train on, got {self.count}{held}")
        self.rows = with_mean_one(rows)
        self.batch_size, self.seed = min(batch_size, self.count), seed
        self.epoch, self.order = -1, torch.empty(0)

    def batch(self, step: int) -> Rows:
        """The rows of a step; the mean weight of all rows is 1."""
        per_epoch = self.count // self.batch_size  # an epoch's last, incomplete batch is dropped
        epoch, at = divmod(step - 1, per_epoch)
        if epoch != self.epoch:
            rng = np.random.default_rng([self.seed, epoch])
            self.epoch, self.order = epoch, torch.from_numpy(rng.permutation(self.count))
        index = self.order[at * self.batch_size : (at + 1) * self.batch_size]
        return self.rows.each(lambda part: part[index])

    def about(self) -> str:
        return f"{self.count} rows in batches of {self.batch_size}, digest {_digest(self.rows)}"


class Function:
    """Batches that the caller's function makes."""

    def __init__(self, flow: Density, make: Callable[[int], Any]) -> None:
        self.flow, self.make = flow, make

    def batch(self, step: int) -> Rows:
        """The batch of a step; its mean weight is 1."""
        rows, _ = as_rows("fit", self.flow, f"batch {step}", self.make(step))
        return with_mean_one(rows)

    def about(self) -> str:
        return "a function"


def with_mean_one(rows: Rows) -> Rows:
    """The rows with weights whose mean is 1."""
    if rows.weights is None:
        return rows
    return rows._replace(weights=rows.weights / rows.weights.mean())


def _digest(rows: Rows) -> str:
    """A few digits that other rows would hardly have."""
    parts = (part.cpu().contiguous().view(torch.uint8) for part in rows if part is not None)
    return format(
        functools.reduce(lambda crc, part: zlib.crc32(part.numpy().tobytes(), crc), parts, 0),
        "08x",
    )
