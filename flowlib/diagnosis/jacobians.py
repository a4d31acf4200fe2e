"""The Jacobian of a flow at one row, whatever the flow is made of: what is true of it.

By autodiff, in the quickest of the ways that the flow allows; by finite differences where functions
of another framework have no gradient here.
"""

from __future__ import annotations

import time
from typing import NamedTuple

import torch
from torch import Tensor

from flowlib.adapters import Map, View
from flowlib.diagnosis.findings import NotTried
from flowlib.diagnosis.versions import Version

__all__ = ["Jacobians", "jacobians_of"]

PATIENCE = 2.0  # seconds, above which another way is looked for
TOGETHER = 64  # copies of a row at once, if there is room
ALIKE = 1e-6  # how close the two directions' Jacobians must be


class Jacobians(NamedTuple):
    """What autodiff says at some rows, beside what the flow says."""

    version: Version
    signs: Tensor
    log_dets: Tensor
    said: Tensor
    condition: float


def jacobians_of(version: Version, together: int = 1) -> Jacobians:
    """Of each of its rows, of which so many may be held together."""
    signs, logs, said, conditions = [], [], [], []
    for row, context in version.rows():
        jacobian = _jacobian(version.view, row, context, together)
        if not jacobian.isfinite().all():
            raise ValueError("at one row by itself the Jacobian is not finite")
        sign, log_det = torch.linalg.slogdet(jacobian)
        signs.append(sign)
        logs.append(log_det)
        conditions.append(float(torch.linalg.cond(jacobian)))
    with torch.no_grad():
        assert version.view.forward is not None
        said = version.view.forward(version.x, version.context)[1]
    return Jacobians(version, torch.stack(signs), torch.stack(logs), said.detach(), max(conditions))


def _jacobian(v: View, row: Tensor, context: Tensor | None, together: int) -> Tensor:
    """``(D, D)`` at one row: by autodiff, or by finite differences where there is no gradient."""
    assert v.forward is not None
    made = _Rows(v.forward, row, context)
    if made.dim != row.numel():
        raise NotTried(f"it maps {row.numel()} numbers to {made.dim}: its Jacobian is not square")
    if not made.differentiable:
        return _by_differences(v.forward, row, context)
    if made.seconds < PATIENCE:
        return made.whole()
    if v.inverse is not None and _is_quicker(v.inverse, made, context):
        back = _Rows(v.inverse, made.z.detach().view(1, *made.shape), context)
        if back.differentiable and back.seconds < made.seconds / 2:
            found: Tensor = torch.linalg.inv(back.whole())
            # it is that of the map itself only if the inverse is one
            if made.agrees_with(found):
                return found
    if together >= TOGETHER:
        n = min(TOGETHER, made.dim)
        began = time.thread_time()
        made.together(0, n)
        if (time.thread_time() - began) / n * made.dim < made.seconds:
            return made.whole_together()
    return made.whole()


def _is_quicker(inverse: Map, made: _Rows, context: Tensor | None) -> bool:
    """Whether the way back takes half of the map's time at most, without a gradient."""
    seconds = []
    with torch.no_grad():
        for f, given in ((made.f, made.leaf), (inverse, made.z.view(1, *made.shape))):
            began = time.thread_time()
            f(given.detach(), context)
            seconds.append(time.thread_time() - began)
    return seconds[1] <= seconds[0] / 2


class _Rows:
    """The rows of a map's Jacobian at one point, one by one or many at once.

    A few are computed at once; ``seconds`` is what all would take at their pace.
    """

    def __init__(self, f: Map, row: Tensor, context: Tensor | None) -> None:
        self.f, self.context = f, context
        self.leaf = row.clone().requires_grad_()
        z = f(self.leaf, context)[0]
        self.z, self.dim, self.shape = z.flatten(), z.numel(), z.shape[1:]
        self.differentiable = z.requires_grad
        self.seen: dict[int, Tensor] = {}
        if self.differentiable:
            began = time.thread_time()
            # both ends: of a triangular map one of them says little
            for k in dict.fromkeys((self.dim - 1, 0, self.dim // 2, self.dim // 4)):
                if len(self.seen) < 2 or time.thread_time() - began < PATIENCE / 4:
                    self.seen[k] = self.row(k)
            self.seconds = (time.thread_time() - began) / len(self.seen) * self.dim

    def row(self, k: int) -> Tensor:
        return torch.autograd.grad(self.z[k], self.leaf, retain_graph=True)[0].flatten()

    def whole(self) -> Tensor:
        return torch.stack(
            [self.seen[k] if k in self.seen else self.row(k) for k in range(self.dim)]
        )

    def agrees_with(self, jacobian: Tensor) -> bool:
        """Whether the rows that are known are those."""
        known = torch.stack(list(self.seen.values()))
        return bool((jacobian[list(self.seen)] - known).abs().max() <= ALIKE * known.abs().max())

    def together(self, first: int, last: int) -> Tensor:
        """Some rows, each from a copy of the point."""
        n = last - first
        copies = self.leaf.detach().expand(n, *self.leaf.shape[1:]).clone().requires_grad_()
        contexts = None if self.context is None else self.context.expand(n, -1)
        made = self.f(copies, contexts)[0].flatten(1)
        chosen = made[torch.arange(n), torch.arange(first, last)].sum()
        return torch.autograd.grad(chosen, copies)[0].flatten(1)

    def whole_together(self) -> Tensor:
        steps = range(0, self.dim, TOGETHER)
        return torch.cat([self.together(k, min(k + TOGETHER, self.dim)) for k in steps])


def _by_differences(f: Map, row: Tensor, context: Tensor | None) -> Tensor:
    dim = row.numel()
    step = torch.finfo(row.dtype).eps ** (1 / 3) * max(1.0, float(row.abs().max()))
    shift = step * torch.eye(dim, dtype=row.dtype, device=row.device).view(dim, *row.shape[1:])
    contexts = None if context is None else context.expand(dim, -1)
    with torch.no_grad():
        ahead, behind = (f(row + s, contexts)[0] for s in (shift, -shift))
    slopes: Tensor = (ahead - behind) / (2 * step)
    return slopes.flatten(1).T
