"""How the book checks its equations: :func:`holds`.

Every display equation of a chapter carries a number, and every one that claims something is
followed by a cell that puts numbers in on both sides. ``holds`` compares the two sides, and then
turns on the check itself: it asks whether the same comparison would have noticed an error.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch

__all__ = ["CASES", "holds"]

CASES = 100  # an equation is checked on at least this many random cases


def holds(tag: str, lhs: Any, rhs: Any, *, tol: float = 1e-10) -> None:
    """Check that two sides of an equation agree, case by case, and say so.

    The comparison is absolute for values below 1 and relative above. After it has passed, it is
    repeated with either side wrong by 1 % in one case, and with either side's sign turned; a
    check that passes then too would prove nothing, and is refused.

    Args:
        tag: the equation's number, as in ``\\tag{1.3}``.
        lhs: the left side in float64, one case a row: a tensor or array ``(cases, ...)`` with at
            least 100 cases.
        rhs: the right side, of the same shape, computed another way.
        tol: the largest error that rounding may explain.

    Raises:
        ValueError: if the check would prove nothing: too few cases, not float64, different shapes,
            values that are not finite, two names for one tensor, a tolerance that forgives an
            error of 1 %.
        AssertionError: if the equation does not hold; it names the worst case.

    Example:
        >>> x = torch.rand(200, dtype=torch.float64)
        >>> holds("0.1", torch.log(x * x), 2 * torch.log(x))
        (0.1) holds on 200 random cases, to 1e-10.
    """
    lhs, rhs = _side(tag, "left", lhs), _side(tag, "right", rhs)
    if lhs.shape != rhs.shape:
        raise ValueError(f"({tag}): the sides differ in shape, {lhs.shape} and {rhs.shape}")
    if np.shares_memory(lhs, rhs):
        raise ValueError(f"({tag}): the two sides are one tensor under two names")
    error = _error(lhs, rhs)
    if not (error <= tol).all():
        worst = np.unravel_index(error.argmax(), error.shape)
        raise AssertionError(
            f"({tag}) does not hold: at {list(map(int, worst))} the left side is "
            f"{lhs[worst]:.12g}, the right side {rhs[worst]:.12g}; tolerance {tol:g}"
        )
    for side, other in ((lhs, rhs), (rhs, lhs)):
        _must_notice(tag, side, other, tol)
    print(f"({tag}) holds on {len(lhs)} random cases, to {tol:g}.")


def _side(tag: str, name: str, values: Any) -> Any:
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu().numpy()
    values = np.asarray(values)
    if values.dtype != np.float64:
        raise ValueError(f"({tag}): the {name} side is {values.dtype}; checks are made in float64")
    if values.ndim == 0 or len(values) < CASES:
        raise ValueError(
            f"({tag}): the {name} side has shape {values.shape}; "
            f"expected (cases, ...) with at least {CASES} cases"
        )
    if values[0].size == 0 or not np.isfinite(values).all():
        raise ValueError(f"({tag}): the {name} side is empty or not finite everywhere")
    return values


def _error(lhs: np.ndarray, rhs: np.ndarray) -> Any:
    return np.abs(lhs - rhs) / np.maximum(1.0, np.maximum(np.abs(lhs), np.abs(rhs)))


def _must_notice(tag: str, side: np.ndarray, other: np.ndarray, tol: float) -> None:
    """Refuse a check that would pass with ``side`` wrong."""
    typical = math.sqrt(float(np.mean(side**2)))
    one_wrong = side.copy()
    one_wrong.flat[side.size // 2] += 0.01 * typical
    for what, wrong in (("1 % off in one case", one_wrong), ("of the other sign", -side)):
        if (_error(wrong, other) <= tol).all():
            raise ValueError(
                f"({tag}): this check proves nothing, it passes with one side {what}; "
                f"tolerance {tol:g}, typical size {typical:.3g}"
            )
