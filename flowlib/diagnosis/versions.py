"""Copies of a flow and rows for them, and what every line asks of both."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from flowlib.adapters import View
from flowlib.diagnosis.findings import NotTried

__all__ = ["Version", "density", "far_apart", "mapped_by", "outward"]


class Version(NamedTuple):
    """One copy of the flow, and rows for it."""

    what: str
    flow: Any
    view: View
    x: Tensor
    context: Tensor | None

    def some(self, n: int) -> Version:
        """The first rows."""
        context = None if self.context is None else self.context[:n]
        return self._replace(x=self.x[:n], context=context)

    def rows(self) -> Iterator[tuple[Tensor, Tensor | None]]:
        for i in range(len(self.x)):
            yield self.x[i : i + 1], None if self.context is None else self.context[i : i + 1]

    @property
    def eps(self) -> float:
        return float(torch.finfo(self.x.dtype).eps)


def mapped_by(version: Version) -> tuple[Tensor, Tensor]:
    """``z, log_det``; of a density without a map its log-density in the place of both."""
    if version.view.forward is not None:
        return version.view.forward(version.x.clone(), version.context)
    if version.view.log_prob is None:
        raise NotTried("the flow offers neither forward nor log_prob")
    log_p = version.view.log_prob(version.x.clone(), version.context)
    return log_p, log_p


def density(v: View, x: Tensor, context: Tensor | None) -> Tensor:
    """The log-density, or the log-determinant of a map without a base."""
    if v.log_prob is not None:
        return v.log_prob(x, context)
    assert v.forward is not None
    log_det: Tensor = v.forward(x, context)[1]
    return log_det


def outward(x: Tensor, times: float) -> Tensor:
    """The rows, so many times as far from their mean."""
    mean = x.mean(0, keepdim=True)
    return mean + times * (x - mean)


def far_apart(a: Tensor, b: Tensor) -> float:
    """The largest difference, relative above 1; infinite where one alone is not finite."""
    difference = (a - b).abs() / a.abs().clamp(min=1)
    difference[(a == b) | (a.isnan() & b.isnan())] = 0
    return float(torch.nan_to_num(difference, nan=math.inf, posinf=math.inf).max())
