"""What is tried on: copies of a flow in float64, with shaken weights, in training; how many rows.

Everything here is computed when a line of the report first asks for it, and kept.
"""

from __future__ import annotations

import copy
import functools
import math
import time
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from flowlib.adapters import Foreign, View, view
from flowlib.arrays import Names
from flowlib.diagnosis.findings import NotTried
from flowlib.diagnosis.jacobians import Jacobians, jacobians_of
from flowlib.diagnosis.versions import Version, mapped_by

__all__ = ["LEAST", "MANY", "MOST", "SIGMAS", "Call", "Patient", "drawn", "is_module"]

SHAKE = 0.3  # how far weights are moved, in the units in which layers are usually started
WILD = 10.0  # nats a coordinate: so far a log-determinant may move with them
MANY = 64  # coordinates from which on fewer rows are tried
MOST = 1024  # coordinates up to which a whole Jacobian is taken
SECONDS = 1.0  # an estimator is drawn from so long, and at least LEAST times
LEAST = 24
SIGMAS = 5.0  # standard errors that are no chance
ROWS = 256  # at most
MOMENT = 0.5  # seconds in which rows are mapped at once
DEAR = 0.1  # seconds a row, from which on every row counts
ROOM = 2.0  # gigabytes that autograd may keep for one gradient

T = TypeVar("T")


class Call(NamedTuple):
    """One call of the flow: what it was given, as it was before and after, and what it made."""

    before: Tensor
    after: Tensor
    made: Any


class Patient:
    """Copies of the flow: as it is, in float64, with shaken weights, in training."""

    def __init__(
        self,
        flow: Any,
        x: Tensor,
        context: Tensor | None,
        rebuild: Callable[[], nn.Module] | None,
        bits_per_dim: Callable[[Tensor], Tensor] | None,
        levels: int,
        names: Names,
    ) -> None:
        self.flow, self.rebuild = flow, rebuild
        self.bits_per_dim, self.levels, self.names = bits_per_dim, levels, names
        self.all_x = x
        every = max(1, len(x) // ROWS)
        self.x = x[::every][:ROWS].clone()
        self.context = None if context is None else context.detach()[::every][:ROWS].clone()
        self.dim = x[0].numel()
        self._timed: dict[int, float] = {}  # by how many rows

    def copied(self) -> Any:
        """A copy whose weights, modes and buffers can be changed."""
        try:
            return copy.deepcopy(self.flow)
        except (RuntimeError, TypeError) as error:
            raise NotTried(f"the flow cannot be copied: {error}") from error

    def version(self, what: str, flow: Any, dtype: torch.dtype | None = None) -> Version:
        if isinstance(flow, nn.Module):
            flow.eval()
            if dtype is not None:
                flow.to(dtype)
        x, context = self.x.clone(), None if self.context is None else self.context.clone()
        if dtype is not None:
            x, context = x.to(dtype), None if context is None else context.to(dtype)
        return Version(what, flow, view(flow), x, context)

    # --- versions -----------------------------------------------------------------------------

    @functools.cached_property
    def own(self) -> Version:
        """In its own dtype."""
        try:
            flow = self.copied()
        except NotTried:
            flow = self.flow
        own = self.version("as it is", flow)
        if isinstance(flow, Foreign):  # it may compute in float32, whatever it is given
            with torch.no_grad():
                computed = mapped_by(own.some(1))[0].dtype
            own = self.version("as it is", flow, computed)
        return own

    @functools.cached_property
    def double(self) -> Version:
        """In float64, or in its own dtype if it cannot be turned into that."""
        return self._doubled("in float64", self.copied)

    @functools.cached_property
    def shaken(self) -> Version:
        """In float64, each weight moved by a draw: a map that is not the identity by its start."""
        if not self.parameters(self.flow):
            raise NotTried("it has no weights")
        n = self.n_many if self.dim <= MANY else 1 if self.is_dear else 4
        with torch.no_grad():
            _, at_rest = mapped_by(self.own.some(n))
        for scale in (SHAKE, SHAKE / 4, SHAKE / 16, SHAKE / 64):
            made = self._doubled("at shaken weights", functools.partial(self.moved, scale))
            with torch.no_grad():
                moved = mapped_by(made.some(n))[1] - at_rest
            if (moved.abs() < WILD * self.dim).all():  # what is not finite is not, either
                return made
        raise NotTried("at weights moved by little its values are far from finite")

    @functools.cached_property
    def moved_little(self) -> Version:
        """The same with weights that are near to those that they were."""
        little = functools.partial(self.moved, SHAKE / 16)
        return self._doubled("at weights moved by little", little)

    def moved(self, scale: float) -> nn.Module:
        """A copy with shaken weights."""
        flow = _shaken(self.copied(), scale)
        settle = view(flow).settle
        if settle is not None:
            settle()
        return flow

    def _doubled(self, what: str, make: Callable[[], Any]) -> Version:
        wanted = self.version(what, make(), torch.float64)
        if not isinstance(self.flow, nn.Module):  # a distribution's own tensors keep their dtype
            return self.version(what, make()) if self.x.dtype != torch.float64 else wanted
        try:
            with torch.no_grad():
                computed = mapped_by(wanted.some(1 if self.is_dear else 2))[0].dtype
        except (RuntimeError, TypeError, ValueError):
            return self.version(what, make())
        return wanted if computed == torch.float64 else self.version(what, make(), self.own.x.dtype)

    def versions(self) -> list[Version]:
        """As it is and shaken, where there are weights."""
        try:
            return [self.double, self.shaken]
        except NotTried:
            return [self.double]

    def fewer_versions(self) -> list[Version]:
        """The same, and shaken alone where rows are large."""
        if self.dim <= ROWS:
            return self.versions()
        try:
            return [self.shaken]
        except NotTried:
            return [self.double]

    @staticmethod
    def parameters(flow: Any) -> list[nn.Parameter]:
        return [p for p in flow.parameters() if p.requires_grad] if is_module(flow) else []

    def need(self, *names: str) -> View:
        """The view, if it has all of these."""
        found = self.own.view
        for name in names:
            if getattr(found, name) is None:
                raise NotTried(f"the flow offers no {name}")
        return found

    # --- how many rows ------------------------------------------------------------------------

    @property
    def n_rows(self) -> int:
        """Of which Jacobians are taken."""
        return 8 if self.dim <= MANY else 1

    @functools.cached_property
    def n_many(self) -> int:
        """As many as are mapped in a moment or so; all of them where they are small."""
        if self.dim <= MANY:
            return len(self.x)
        if self.is_dear:
            return 2
        two, eight = self._seconds(2), self._seconds(8)
        each = max((eight - two) / 6, 1e-6)  # a call itself may take long, whatever its rows are
        return min(max(4, 8 + int((MOMENT - eight) / each)), len(self.x))

    @property
    def n_double(self) -> int:
        """In float64, where a row takes twice as long."""
        return 32 if self.dim <= MANY else min(max(1, self.n_many // 2), 32)

    @functools.cached_property
    def is_dear(self) -> bool:
        """Whether the map of a single row takes long, as with exact determinants of pictures."""
        if self.dim <= MANY:
            return False
        one, two = self._seconds(1), self._seconds(2)
        return two > 2 * DEAR and two > 1.4 * one

    @property
    def is_slow(self) -> bool:
        """Whether that of a single row takes long, or a call does, whatever its rows are."""
        return self.is_dear or (self.dim > MANY and self._seconds(1) > DEAR)

    def _seconds(self, n: int) -> float:
        if n not in self._timed:
            with torch.no_grad():
                if not self._timed:  # the first call may prepare what later ones find
                    mapped_by(self.own.some(1))
                began = time.thread_time()  # of this thread, however busy the machine is
                mapped_by(self.own.some(n))
            self._timed[n] = time.thread_time() - began
        return self._timed[n]

    def n_graded(self, n: int) -> int:
        """So many rows, or fewer if autograd would keep more than there is room for."""
        if self.dim <= MANY:
            return n
        fit = int(ROOM / max(self._kept_a_row, 1e-9))
        if fit < 1:
            raise NotTried(
                f"autograd would keep {self._kept_a_row:.1f} GB for the gradient at one row"
            )
        return min(n, fit)

    @functools.cached_property
    def _kept_a_row(self) -> float:
        """Gigabytes that autograd keeps for one row in float64; here they are counted alone."""
        kept = 0

        def count(tensor: Tensor) -> Tensor:
            nonlocal kept
            kept += 8 * tensor.numel()
            return torch.empty(0)  # nothing is kept

        with torch.autograd.graph.saved_tensors_hooks(count, lambda nothing: nothing):
            mapped_by(self.own.some(1))
        return kept / 1e9

    @functools.cached_property
    def few(self) -> Version:
        """As it is, with few rows where they are large."""
        large = 2 if self.is_dear else 4
        return self.own.some(ROWS if self.dim <= 16 else 16 if self.dim <= MANY else large)

    @property
    def many(self) -> Version:
        """As it is, with as many rows as are mapped within a moment."""
        return self.own.some(self.n_many)

    # --- what was seen ------------------------------------------------------------------------

    @functools.cached_property
    def calls(self) -> dict[str, Call]:
        """What the flow makes of few rows, by ``forward``, ``log_prob`` and ``inverse``."""
        v = self.few.view
        made: dict[str, Call] = {}
        given = self.few.x
        for name in ("forward", "log_prob", "inverse"):
            call = getattr(v, name)
            if call is None or (name == "inverse" and "forward" not in made):
                continue
            if name == "inverse":
                given = made["forward"].made[0]
            after = given.detach().clone()
            try:
                with torch.no_grad():
                    result = call(after, self.few.context)
            except NotImplementedError:  # of a line that needs it this is the answer
                continue
            made[name] = Call(given.detach(), after, result)
        return made

    @functools.cached_property
    def jacobians(self) -> list[Jacobians]:
        """Of both versions, at some rows."""
        self.need("forward")
        if self.dim > MOST:
            raise NotTried(f"a Jacobian of {self.dim} by {self.dim} numbers is too large")
        n = self.n_graded(self.n_rows)
        together = self.n_graded(64)
        return [jacobians_of(version.some(n), together) for version in self.fewer_versions()]

    @property
    def condition(self) -> float:
        """The largest seen; rounding errors grow by it."""
        try:
            return max(j.condition for j in self.jacobians)
        except (NotTried, ValueError):  # its own lines say so
            return 1.0

    @functools.cached_property
    def estimator(self) -> Version | None:
        """A version whose log-determinant is drawn anew in each call, if there is one."""
        if self.own.view.forward is None or not is_module(self.flow):
            return None
        for version in reversed(self.fewer_versions()):
            for training in (True,) if self.is_dear else (False, True):
                made = version.some(4 if self.dim <= MANY else 1)
                flow: Any = copy.deepcopy(made.flow).train(training)
                made = made._replace(flow=flow, view=view(flow))
                with torch.no_grad():
                    if training:
                        mapped_by(made)  # what starts from a first batch has started
                    (z, one), (again, other) = mapped_by(made), mapped_by(made)
                same = float((z - again).abs().max()) < 1e-3
                if same and (one - other).abs().max() > 1e4 * made.eps * one.abs().max().clamp(1):
                    return made  # type: ignore[no-any-return]
        return None

    def within_one_draw(self, error: float) -> bool:
        """Whether an error is as small as an estimator's own noise."""
        if self.estimator is None:
            return False
        version = self.estimator
        with torch.no_grad():
            draws = torch.stack([mapped_by(version)[1] for _ in range(LEAST)])
        return error < 6 * float(draws.std(0).max())


def is_module(flow: Any) -> bool:
    return isinstance(flow, nn.Module)


@torch.no_grad()
def _shaken(flow: nn.Module, scale: float) -> nn.Module:
    for p in flow.parameters():
        if p.requires_grad:
            fan_in = p[0].numel() if p.dim() > 1 else 1
            p.add_(torch.randn_like(p) * scale * min(1.0, math.sqrt(16 / fan_in)))
    return flow


def drawn(draw: Callable[[], T]) -> list[T]:
    """What a function returns in some seconds of calls: a few draws at least, thousands at most."""
    draws: list[T] = []
    began = time.thread_time()
    while len(draws) < LEAST or (time.thread_time() - began < SECONDS and len(draws) < 4000):
        draws.append(draw())
    return draws
