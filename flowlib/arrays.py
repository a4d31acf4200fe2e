"""What people have as tensors: arrays, lists and tables, whose columns go by their names.

A table knows which of its columns is which, and a flow that was fitted on one keeps their names. A
table with the same columns in another order is then brought into the flow's, and one with others is
refused. Nothing here needs pandas: a table is what has ``to_numpy`` and ``columns``.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from flowlib.columns import column_name, listed

__all__ = [
    "Names",
    "as_tensor",
    "as_tensors",
    "from_numpy",
    "opened",
    "require_no_gaps",
    "require_one_order",
]


class Names(NamedTuple):
    """The names that tables give to the columns of data and of contexts; None for no names."""

    x: tuple[str, ...] | None = None
    context: tuple[str, ...] | None = None

    @classmethod
    def of(cls, **lists: Any) -> Names:
        """From lists, such as a file has; ``TypeError`` if one holds anything but text."""
        for names in lists.values():
            if names is not None and not all(isinstance(name, str) for name in names):
                raise TypeError(f"expected the names of columns, got {names!r:.80}")
        return cls(**{part: None if of is None else tuple(of) for part, of in lists.items()})

    def or_else(self, other: Names) -> Names:
        """The other's names for a part that has no names here."""
        return Names(*(own or its for own, its in zip(self, other, strict=True)))


def as_tensors(where: str, model: Any, x: Any, context: Any = None) -> tuple[Any, Any, Names]:
    """What a model is asked about: tables and arrays as tensors of its dtype, on its device.

    A table's columns are brought into the order of the names in ``model.columns``, if there are
    any; so are the numbers of one row of a table, a pandas Series. All that is no table and no
    array is left as it is.

    Args:
        where: the function that is asked, for the messages.
        model: the density or other module; what is no module takes torch's default dtype.
        x: rows of data, or None.
        context: contexts, or None.

    Returns:
        ``x``, ``context``, and the names of their columns: those of tables, or else the model's.

    Raises:
        TypeError: if an array or a table has other values than numbers.
        ValueError: if a table's columns are not those that the model knows, if values of a table
            are missing, or if the rows of two tables are in different orders.
    """
    known = getattr(model, "columns", None)
    known = known if isinstance(known, Names) else Names()
    parts = {"x": x, "context": context}
    if not any(map(_is_array, parts.values())):
        return x, context, known
    tables = {label: value for label, value in parts.items() if hasattr(value, "columns")}
    require_one_order(where, {label: label for label in tables}, tables)
    floats = itertools.chain(model.parameters(), model.buffers()) if _is_module(model) else ()
    like = next((part for part in floats if part.is_floating_point()), torch.empty(0))
    found: list[Any] = []
    names = []
    for label, value, its in zip(parts, parts.values(), known, strict=True):
        own = None
        if _is_array(value):
            value, own = opened(where, label, value, its, rows=False)
            value = as_tensor(where, label, value, own)
            if own is not None:
                require_no_gaps(where, label, torch.atleast_2d(value), own)
            value = value.to(like)
        found.append(value)
        names.append(own)
    return found[0], found[1], Names(*names).or_else(known)


def _is_array(value: Any) -> bool:
    return not isinstance(value, Tensor) and (
        isinstance(value, np.ndarray) or hasattr(value, "to_numpy")
    )


def _is_module(model: Any) -> bool:
    return isinstance(model, nn.Module)


# --- names ----------------------------------------------------------------------------------------


def opened(
    where: str, label: str, part: Any, known: tuple[str, ...] | None, rows: bool = True
) -> tuple[Any, tuple[str, ...] | None]:
    """A table as an array, its columns in the order of the known names, and those names.

    What is no table comes back as it is. Columns that are only numbered have no names.

    Args:
        where: the function that asks, for the messages.
        label: what the caller calls the table.
        part: a table, or anything else.
        known: the names that its columns should have, None for any.
        rows: whether it must be rows; if not, a pandas Series is a row, and its index its names.

    Raises:
        ValueError: if it has other columns than the known ones, or one of them twice.
    """
    if isinstance(part, Tensor | np.ndarray) or not hasattr(part, "to_numpy"):
        return part, None
    names, table = None, hasattr(part, "columns")
    if table or (known is not None and not rows and hasattr(part, "index")):
        columns = list(part.columns if table else part.index)
        numbered = table and columns == list(range(len(columns)))
        names = None if numbered else tuple(map(str, columns))
    array = part.to_numpy()
    if names is None or known is None or names == known:
        return array, names
    if sorted(names) != sorted(known) or len(set(names)) < len(names):
        _refuse(where, label, names, known)
    return array[..., [names.index(name) for name in known]], known


def _refuse(where: str, label: str, names: tuple[str, ...], known: tuple[str, ...]) -> None:
    differ = [
        f"{word} {listed([repr(name) for name in these])}"
        for word, these in (
            ("without", [name for name in known if name not in names]),
            ("with", [name for name in names if name not in known]),
            ("with more than one", sorted({name for name in names if names.count(name) > 1})),
        )
        if these
    ]
    raise ValueError(
        f"{where}: expected a table {label} with the columns that the flow was fitted on, "
        f"{listed([repr(name) for name in known])}; got one {' and '.join(differ)}. Choose or "
        "rename its columns, or give its to_numpy(), whose columns go by their places"
    )


def require_one_order(where: str, labels: dict[str, Any], parts: dict[str, Any]) -> None:
    """Raise ``ValueError`` if tables name their rows, and the names are in another order."""
    indices = {
        part: value.index
        for part, value in parts.items()
        if hasattr(value, "index") and hasattr(value, "to_numpy")
    }
    first = indices.pop("x", None)
    for part, index in indices.items():
        if first is not None and len(index) == len(first) and not index.equals(first):
            at = next(k for k in range(len(first)) if first[k] != index[k])
            raise ValueError(
                f"{where}: row {at} of {labels['x']} is {first[at]!r}, and of {labels[part]} it is "
                f"{index[at]!r}: the tables are not in one order. .loc[data.index] brings the "
                "other into that of data; if they are, reset_index(drop=True) on both"
            )


def require_no_gaps(where: str, label: str, part: Tensor, names: Sequence[str]) -> None:
    """Raise ``ValueError`` that names the columns of a table in which values are missing."""
    gaps = ~part.flatten(1).isfinite()
    if gaps.any():
        columns = gaps.any(0).nonzero()[:, 0].tolist()
        which = ", ".join(column_name(i, names, part.shape[1:]) for i in columns[:4])
        more = f" and {len(columns) - 4} more" if len(columns) > 4 else ""
        rows = gaps.any(1)
        value = part.flatten(1)[rows][0][gaps[rows][0]][0].item()
        raise ValueError(
            f"{where}: expected finite values, got {value:g} in {which}{more} of {label}, in "
            f"{int(rows.sum())} of {len(part)} rows; drop these rows, or in a context fill them "
            "and add a column that says so"
        )


# --- tensors --------------------------------------------------------------------------------------


def as_tensor(where: str, label: str, part: Any, names: Sequence[str] | None) -> Tensor:
    """A tensor, an array or a list of rows as a dense tensor without a gradient.

    Args:
        where: the function that asks, for the messages.
        label: what the caller calls it.
        part: what it is made of; an array is copied.
        names: of its columns, None for no names.

    Raises:
        TypeError: if it is of another kind, or has other values than numbers.
        ValueError: if values are masked or complex, or if rows are of different shapes.
    """
    if isinstance(part, list):
        part = _stacked(where, label, part)
    if isinstance(part, np.ndarray):
        part = from_numpy(where, label, part, names)
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
    return part.detach().to_dense() if part.layout != torch.strided else part.detach()


def _stacked(where: str, label: str, part: list[Any]) -> Any:
    try:
        if part and all(isinstance(row, Tensor) for row in part):
            return torch.stack(part)
        return np.asarray(part)
    except (ValueError, RuntimeError) as error:
        raise ValueError(f"{where}: {label}: expected rows of one shape: {error}") from error


def from_numpy(where: str, label: str, part: np.ndarray, names: Sequence[str] | None) -> Tensor:
    """A copy of an array as a tensor, of the nearest type of numbers that PyTorch has."""
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
    if part.dtype.kind in "OUT":  # of objects, or of text as NumPy has it
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
    numeric = [[_is_number(value) for value in column] for column in columns]
    bad = [i for i, good in enumerate(numeric) if not all(good)]
    said, cures = [], []
    for i in bad[:4]:
        row = numeric[i].index(False)
        value = columns[i][row]
        value = str(value) if isinstance(value, str) else value  # NumPy's own shows its class
        said.append(f"{value!r} in {column_name(i, names, part.shape[1:])} (row {row})")
        cures.append(_cure(value, sum(numeric[i]), len(numeric[i])))
    more = f" and in {len(bad) - 4} more columns" if len(bad) > 4 else ""
    raise TypeError(
        f"{where}: expected {label} of numbers, got {', '.join(said)}{more}; "
        f"{'; '.join(dict.fromkeys(cures))}"
    )


def _cure(value: Any, numbers: int, rows: int) -> str:
    """What to do about the first value of a column that is no number, as so many of it are."""
    if isinstance(value, str) and _is_number(value.replace(",", "")):
        return 'pd.read_csv(..., thousands=","), or decimal=",", reads it as a number'
    if isinstance(value, str) and 2 * numbers >= rows:
        return (
            'pd.to_numeric(column, errors="coerce") makes gaps of what is no number; drop these '
            "rows, or in a context fill them"
        )
    return "drop such columns, fill what is missing, or code categories as numbers of a context"


def _is_number(value: Any) -> bool:
    try:
        float(value)
    except (TypeError, ValueError):
        return False
    return True
