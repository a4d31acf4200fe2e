"""What the library asks of its arguments, and what it says when they are wrong.

Shapes are checked always. Values are checked where they can be seen: not while PyTorch compiles,
exports or traces, not under ``vmap``, and not of tensors that have no values (``meta`` and fake
ones). A check that needs values then passes.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable, Sequence
from numbers import Real
from typing import Any

import torch
from torch import Tensor

__all__ = [
    "as_count",
    "as_event_shape",
    "as_floats",
    "as_ints",
    "as_number",
    "as_sample_shape",
    "broadcast_leads",
    "channels_hint",
    "require_context",
    "require_event",
    "require_finite",
    "require_inside",
    "require_tensor",
    "seen",
]


# --- numbers and shapes -----------------------------------------------------------------------


def as_ints(value: Any) -> tuple[int, ...] | None:
    """One int or several as a tuple, NumPy's and tensors included; None if one is not an int.

    Example:
        >>> as_ints(3), as_ints([1, 2]), as_ints(2.0)
        ((3,), (1, 2), None)
    """
    try:
        return tuple(map(operator.index, value if _is_several(value) else (value,)))
    except TypeError:
        return None


def _is_several(value: Any) -> bool:
    return isinstance(value, Iterable) and getattr(value, "ndim", 1) > 0


def as_count(where: str, name: str, value: Any, least: int) -> int:
    """A whole number of any kind as Python's own.

    Raises:
        ValueError: if it is not whole, or less than ``least``.

    Example:
        >>> as_count("fit", "steps", 10, 1)
        10
    """
    ints = None if _is_several(value) else as_ints(value)
    if ints is None or ints[0] < least:
        raise ValueError(f"{where}: expected a whole {name} of {least} or more, got {value!r}")
    return ints[0]


def as_number(where: str, name: str, value: Any) -> float:
    """A positive, finite number of any kind as Python's own; ``ValueError`` for others.

    Example:
        >>> as_number("fit", "lr", 1)
        1.0
    """
    number = float(value) if isinstance(value, Real) else math.nan
    if not 0 < number < math.inf:
        raise ValueError(f"{where}: expected a positive, finite {name}, got {value!r}")
    return number


def as_event_shape(event_shape: int | Sequence[int]) -> torch.Size:
    """An int or a sequence of positive ints as a ``torch.Size``; ``ValueError`` for others.

    Example:
        >>> as_event_shape(2), as_event_shape((1, 8, 8))
        (torch.Size([2]), torch.Size([1, 8, 8]))
    """
    shape = as_ints(event_shape)
    if not shape or min(shape) < 1:
        raise ValueError(
            f"event_shape: expected a positive int or several of them, got {event_shape!r}"
        )
    return torch.Size(shape)


def as_sample_shape(n: int | Sequence[int]) -> torch.Size:
    """A number of draws, or the shape of an array of draws; ``ValueError`` for others.

    Example:
        >>> as_sample_shape(5), as_sample_shape(())
        (torch.Size([5]), torch.Size([]))
    """
    shape = as_ints(n)
    if shape is None or min(shape, default=0) < 0:
        raise ValueError(f"n: expected a count or a shape of counts, got {n!r}")
    return torch.Size(shape)


def broadcast_leads(x: torch.Size, context: torch.Size) -> torch.Size:
    """The common leading shape of data and context; ``ValueError`` if there is no common one."""
    try:
        return torch.Size(torch.broadcast_shapes(x, context))
    except RuntimeError:
        raise ValueError(
            f"the leading shapes of x {tuple(x)} and of context {tuple(context)} do not broadcast"
        ) from None


# --- tensors --------------------------------------------------------------------------------------


def require_tensor(where: str, name: str, value: Any) -> None:
    """Raise ``TypeError`` unless ``value`` is a tensor."""
    if not isinstance(value, Tensor):
        raise TypeError(
            f"{where}: expected {name} to be a torch.Tensor, got {type(value).__name__}; "
            "torch.as_tensor makes one"
        )


def require_event(where: str, x: Tensor, event_shape: Sequence[int], name: str = "x") -> None:
    """Raise ``ValueError`` unless the shape of ``x`` is ``(..., *event_shape)``.

    Without this check, PyTorch's broadcasting would compute a number from an array that does not
    fit.
    """
    lead = x.dim() - len(event_shape)
    if lead < 0 or x.shape[lead:] != tuple(event_shape):
        expected = ", ".join(["...", *map(str, event_shape)])
        raise ValueError(
            f"{where}: expected {name} of shape ({expected}), got {tuple(x.shape)}"
            + channels_hint(x, event_shape)
        )


def require_context(where: str, context: Tensor | None, context_dim: int) -> None:
    """Raise ``ValueError`` unless there is a context ``(..., context_dim)``, or 0 and None.

    Raises:
        TypeError: if the context is not a tensor.
    """
    if context is None:
        if context_dim:
            raise ValueError(
                f"{where}: expected a context of shape (..., {context_dim}), got no context"
            )
        return
    require_tensor(where, "context", context)
    if not context_dim:
        raise ValueError(
            f"{where}: takes no context, got one of shape {tuple(context.shape)}; a model whose "
            "context_dim is not 0 takes one"
        )
    require_event(where, context, (context_dim,), "context")
    require_finite(where, "context", context)


def channels_hint(x: Tensor, event_shape: Sequence[int]) -> str:
    """What to do if an image's channels are last, or its only one is left out; else ``""``."""
    if len(event_shape) == 3:
        c, *sides = event_shape
        if list(x.shape[-3:]) == [*sides, c]:
            return "; channels come first: x.movedim(-1, -3) puts them there"
        if c == 1 and x.dim() <= 3 and list(x.shape[-2:]) == sides:
            return "; x.unsqueeze(-3) adds the one channel"
    return ""


# --- values ---------------------------------------------------------------------------------------


def seen(values: Tensor) -> Any:
    """The values of a small tensor as ``tolist()`` gives them, or None if they cannot be seen.

    On a GPU this waits for the device, so that a check should ask once.

    Example:
        >>> seen(torch.tensor([1.0, 2.0]))
        [1.0, 2.0]
        >>> def shows(x):
        ...     print(seen(x.sum()))
        ...     return x
        >>> _ = torch.vmap(shows)(torch.ones(3, 2))
        None
    """
    if _hidden(values):
        return None
    found = _shown(values)
    if found is None:
        return None
    items = found if isinstance(found, list) else [found]
    # a symbolic trace gives symbols instead of numbers
    return found if all(isinstance(item, bool | int | float) for item in items) else None


def _shown(values: Tensor) -> Any:
    try:
        return values.tolist() if values.dim() else values.item()
    except RuntimeError:
        pass  # older versions of PyTorch give numbers under grad, and no lists
    try:
        return [v.item() for v in values] if values.dim() else None
    except RuntimeError:  # under vmap, and of a fake tensor, PyTorch refuses to show them
        return None


def _hidden(x: Tensor) -> bool:
    """Whether there is no use in trying to see values, which would leave traces in a graph."""
    return torch.compiler.is_compiling() or x.is_meta or torch.jit.is_tracing()


def require_finite(where: str, name: str, x: Tensor) -> None:
    """Raise ``ValueError`` with the place of the first NaN or infinity in ``x``, if any."""
    if _hidden(x) or seen(torch.isfinite(x.sum())) is not False:
        return  # one cheap reduction is nearly always enough
    finite = torch.isfinite(x)
    if finite.all():
        return  # only the sum is not
    bad = (~finite).nonzero()
    first = tuple(seen(bad[0]))
    raise ValueError(
        f"{where}: expected finite values, got {x[first].item()} at {name}{list(first)}"
        f" ({len(bad)} of {x.numel()} are not finite)"
    )


def require_inside(
    where: str, name: str, x: Tensor, domain: tuple[float, float], hint: str = ""
) -> None:
    """Raise ``ValueError`` unless all values lie strictly between two bounds."""
    if _hidden(x) or not x.numel():
        return
    ends = seen(torch.stack(x.aminmax()))
    low, high = domain
    if ends is None or (low < ends[0] and ends[1] < high):
        return
    require_finite(where, name, x)
    outside = x[~((x > low) & (x < high))][0].item()
    raise ValueError(
        f"{where}: expected {name} strictly between {0 + low:.4g} and {high:.4g}, got {outside:g}"
        f"{hint}"
    )


def as_floats(where: str, **arrays: Any) -> list[Tensor]:
    """Copies of arrays as tensors of floats, all of one dtype and finite."""
    tensors = [torch.as_tensor(a).detach().clone() for a in arrays.values()]
    dtype = tensors[0].dtype
    for tensor in tensors[1:]:
        dtype = torch.promote_types(dtype, tensor.dtype)
    dtype = dtype if dtype.is_floating_point else torch.get_default_dtype()
    for name, tensor in zip(arrays, tensors, strict=True):
        require_finite(where, name, tensor)
    return [tensor.to(dtype) for tensor in tensors]
