"""Validated traits: which numbers and lists an explorer's attributes can hold.

All numbers must be finite. Those of NumPy are accepted, as arrays are, and become Python's own
numbers and lists, which JSON can hold. A bound, a shape or a count may be a function of the
explorer, where it depends on other attributes. It is checked last, so that attributes that are
given together may come in any order. An error names the attribute, says what was expected, and
shows what was given.
"""

from __future__ import annotations

import contextlib
import copy
import math
import operator
from collections.abc import Callable, Mapping, Sequence
from numbers import Real
from typing import TYPE_CHECKING, Any, Generic, NoReturn, TypeVar

import numpy as np
import traitlets

from flowlib.arguments import as_ints

__all__ = ["LARGEST_SEED", "Index", "Number", "Numbers", "Permutation", "Whole", "Wholes"]

LARGEST_SEED = 2**31 - 1

T = TypeVar("T")
S = TypeVar("S")
Bound = float | Callable[[Any], float]
Count = int | Callable[[Any], int]
Shape = tuple[int, ...] | Callable[[Any], tuple[int, ...]]

if TYPE_CHECKING:
    TraitType = traitlets.TraitType
else:  # in older versions, such as 5.7.1, the class takes no parameters

    class TraitType(traitlets.TraitType, Generic[T, S]):
        pass


class Checked(TraitType[T, Any]):
    """Base class of the traits.

    :meth:`validate` looks at the value alone, :meth:`check` at the value and the explorer.
    """

    def expected(self, explorer: Any) -> str:
        """What the trait can be given, in words that follow "expected"."""
        raise NotImplementedError

    def check(self, explorer: Any, value: T) -> None:
        """Refuse a value that does not fit the explorer's other attributes."""
        raise NotImplementedError

    def refuse(self, explorer: Any, value: Any, expected: str | None = None) -> NoReturn:
        """Raise the error that says what was expected and what was given."""
        expected = self.expected(explorer) if expected is None else expected
        raise traitlets.TraitError(f"{self.name}: expected {expected}, got {value!r}")

    def _cross_validate(self, obj: Any, value: Any) -> Any:
        # traitlets calls this when all attributes that are given together are set
        if value is not None:
            self.check(obj, value)
        return super()._cross_validate(obj, value)


# --- one number -----------------------------------------------------------------------------


class Bounded(Checked[T]):
    """Base class of the traits that hold one number.

    Args:
        default: the value at the start.
        low: the least number, or a function of the explorer that returns it.
        high: the largest, or a function that returns it.
        **options: those of :class:`traitlets.TraitType`.
    """

    what: str

    def __init__(
        self, default: T | None, *, low: Bound = -math.inf, high: Bound = math.inf, **options: Any
    ) -> None:
        super().__init__(default, **options)
        self.low, self.high = low, high

    def expected(self, explorer: Any) -> str:
        return self.what + _span(_of(self.low, explorer), _of(self.high, explorer))

    def check(self, explorer: Any, value: Any) -> None:
        if not _of(self.low, explorer) <= value <= _of(self.high, explorer):
            self.refuse(explorer, value)


class Number(Bounded[float]):
    """A finite number in a range. For the arguments see :class:`Bounded`.

    Example:
        >>> class Mixture(traitlets.HasTraits):
        ...     weight = Number(0.5, low=0.05, high=0.95)
        >>> Mixture(weight=np.float32(0.25)).weight
        0.25
        >>> Mixture(weight=float("nan"))
        Traceback (most recent call last):
        traitlets.traitlets.TraitError: weight: expected a number from 0.05 to 0.95, got nan
    """

    what = "a number"

    def expected(self, explorer: Any) -> str:
        expected = super().expected(explorer)
        return "a finite number" if expected == self.what else expected

    def validate(self, obj: Any, value: Any) -> float:
        number = math.nan
        if isinstance(value, Real):
            with contextlib.suppress(OverflowError):  # an int may be larger than every float
                number = float(value)
        if not math.isfinite(number):
            self.refuse(obj, value)
        return number


class Whole(Bounded[int]):
    """A whole number in a range. For the arguments see :class:`Bounded`.

    Example:
        >>> class Sample(traitlets.HasTraits):
        ...     dim = Whole(4, low=2, high=8)
        ...     step = Whole(0, low=0, high=lambda sample: sample.dim)
        >>> Sample(step=6, dim=6).step
        6
        >>> Sample(step=6)
        Traceback (most recent call last):
        traitlets.traitlets.TraitError: step: expected a whole number from 0 to 4, got 6
    """

    what = "a whole number"

    def validate(self, obj: Any, value: Any) -> int:
        try:
            return int(operator.index(value))
        except TypeError:
            self.refuse(obj, value)


class Index(Whole):
    """An index, from 0, of something of which there are ``count``.

    Args:
        count: how many there are, or a function of the explorer that returns it.
        default: the index at the start.
        **options: those of :class:`traitlets.TraitType`.

    Example:
        >>> class Menu(traitlets.HasTraits):
        ...     dishes = traitlets.List(["soup", "rice"])
        ...     chosen = Index(lambda menu: len(menu.dishes))
        >>> Menu(chosen=1).chosen
        1
        >>> Menu(chosen=2)
        Traceback (most recent call last):
        traitlets.traitlets.TraitError: chosen: expected an index from 0 to 1, got 2
    """

    what = "an index"

    def __init__(self, count: Count, default: int = 0, **options: Any) -> None:
        super().__init__(default, low=0, high=lambda explorer: _of(count, explorer) - 1, **options)


# --- several numbers ------------------------------------------------------------------------


class Listed(Checked[list[T]]):
    """Base class of the traits that hold a list; each explorer has a copy of the default."""

    def __init__(self, default: Sequence[Any], **options: Any) -> None:
        super().__init__(**options)
        self._default = list(default)

    def make_dynamic_default(self) -> list[Any]:
        """The name is that of traitlets."""
        return copy.deepcopy(self._default)


class Numbers(Listed[Any]):
    """An array of finite numbers of a given shape, as nested lists.

    Args:
        default: the numbers at the start.
        shape: the array's shape, or a function of the explorer that returns it.
        ranges: of each number of the last axis what it is called, and its least and largest value.
        or_empty: whether an empty list is accepted, too.
        **options: those of :class:`traitlets.TraitType`.

    Example:
        >>> class Gaussian(traitlets.HasTraits):
        ...     q = Numbers([0.0, 1.0], shape=(2,), ranges={"mean": (-4, 4), "spread": (0.1, 3)})
        >>> Gaussian(q=np.array([2, 1])).q
        [2.0, 1.0]
        >>> Gaussian(q=[1])
        Traceback (most recent call last):
        traitlets.traitlets.TraitError: q: expected finite numbers of shape (2,), got [1.0]
        >>> Gaussian(q=[0, 0])
        Traceback (most recent call last):
        traitlets.traitlets.TraitError: q: expected spread from 0.1 to 3, got [0.0, 0.0]
    """

    def __init__(
        self,
        default: Sequence[Any] = (),
        *,
        shape: Shape,
        ranges: Mapping[str, tuple[float, float]] | None = None,
        or_empty: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(default, **options)
        self.shape, self.ranges, self.or_empty = shape, ranges or {}, or_empty

    def expected(self, explorer: Any) -> str:
        empty = " or an empty list" if self.or_empty else ""
        return f"finite numbers of shape {_of(self.shape, explorer)}{empty}"

    def validate(self, obj: Any, value: Any) -> list[Any]:
        try:
            array = np.asarray(value)
        except (TypeError, ValueError, RuntimeError):  # lists of unequal lengths, some tensors
            self.refuse(obj, value)
        if not array.ndim or array.dtype.kind not in "biuf" or not np.isfinite(array).all():
            self.refuse(obj, value)
        numbers: list[Any] = array.astype(float).tolist()
        return numbers

    def check(self, explorer: Any, value: list[Any]) -> None:
        array = np.array(value)
        if self.or_empty and array.shape == (0,):
            return
        if array.shape != _of(self.shape, explorer):
            self.refuse(explorer, value)
        for k, (what, (low, high)) in enumerate(self.ranges.items()):
            if ((array[..., k] < low) | (array[..., k] > high)).any():
                self.refuse(explorer, value, what + _span(low, high))


class Wholes(Listed[int]):
    """A list of whole numbers in a range.

    Args:
        default: the numbers at the start.
        count: how many there are: a number, the least and the most, or a function of the explorer.
        low: the least number, or a function of the explorer that returns it.
        high: the largest, or a function that returns it.
        different: whether no two may be equal.
        what: what the error calls them, if not "3 whole numbers" or "3 zeros and ones".
        **options: those of :class:`traitlets.TraitType`.

    Example:
        >>> class Network(traitlets.HasTraits):
        ...     widths = Wholes([5], count=(1, 3), low=1, high=12)
        >>> Network(widths=np.array([3, 4])).widths
        [3, 4]
        >>> Network(widths=[13])
        Traceback (most recent call last):
        traitlets.traitlets.TraitError: widths: expected 1 to 3 whole numbers from 1 to 12, got [13]
    """

    def __init__(
        self,
        default: Sequence[int] = (),
        *,
        count: Count | tuple[int, int],
        low: Bound,
        high: Bound,
        different: bool = False,
        what: str | None = None,
        **options: Any,
    ) -> None:
        super().__init__(default, **options)
        self.count, self.low, self.high = count, low, high
        self.different, self.what = different, what

    def expected(self, explorer: Any) -> str:
        least, most = self._counts(explorer)
        many = str(most) if least == most else f"{least} to {most}"
        low, high = _of(self.low, explorer), _of(self.high, explorer)
        if self.what is None and (low, high) == (0, 1):
            return f"{many} zeros and ones"
        return (self.what or f"{many} whole numbers") + _span(low, high)

    def validate(self, obj: Any, value: Any) -> list[int]:
        try:
            ints = as_ints(list(value))
        except TypeError:
            ints = None
        if ints is None:
            self.refuse(obj, value)
        return [int(i) for i in ints]

    def check(self, explorer: Any, value: list[int]) -> None:
        least, most = self._counts(explorer)
        low, high = _of(self.low, explorer), _of(self.high, explorer)
        repeats = self.different and len(set(value)) < len(value)
        if not least <= len(value) <= most or repeats or not all(low <= i <= high for i in value):
            self.refuse(explorer, value)

    def _counts(self, explorer: Any) -> tuple[int, int]:
        count = _of(self.count, explorer)
        return count if isinstance(count, tuple) else (count, count)


class Permutation(Wholes):
    """Each whole number from ``first`` to ``last`` once, in any order.

    Args:
        default: the permutation at the start.
        first: the least number.
        last: the largest, or a function of the explorer that returns it.
        what: what the error calls one of them.
        **options: those of :class:`traitlets.TraitType`.

    Example:
        >>> class Deck(traitlets.HasTraits):
        ...     order = Permutation([1, 2, 3], first=1, last=3, what="card")
        >>> Deck(order=(2, 3, 1)).order
        [2, 3, 1]
        >>> Deck(order=[1, 1, 2])
        Traceback (most recent call last):
        traitlets.traitlets.TraitError: order: expected each card from 1 to 3 once, got [1, 1, 2]
    """

    def __init__(
        self,
        default: Sequence[int],
        *,
        first: int,
        last: Count,
        what: str = "number",
        **options: Any,
    ) -> None:
        super().__init__(
            default,
            count=lambda explorer: _of(last, explorer) - first + 1,
            low=first,
            high=last,
            different=True,
            what=what,
            **options,
        )

    def expected(self, explorer: Any) -> str:
        return f"each {self.what} from {self.low} to {_of(self.high, explorer)} once"


def _of(value: T | Callable[[Any], T], explorer: Any) -> T:
    """The value, or what a function says that it is for this explorer."""
    return value(explorer) if callable(value) else value


def _span(low: float, high: float) -> str:
    return "" if low == -math.inf and high == math.inf else f" from {low} to {high}"
