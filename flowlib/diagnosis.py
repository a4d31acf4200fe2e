"""What is wrong with a flow, ours or anybody's: :func:`check_flow`.

A normalizing flow with an error in its log-determinant trains without complaint, and its loss may
even look better than that of a right one. This module tries what can be tried from outside. Each
line of the report is one question with one answer; what is found names the symptom, the likely
cause, a cure, and rows of the page *Common mistakes*.

The flow itself is never changed: all is tried on copies, in evaluation unless a line says
otherwise, in float64 where the flow can be turned into it, with random numbers of its own.
"""

from __future__ import annotations

import copy
import functools
import itertools
import math
import textwrap
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from scipy import stats
from torch import Tensor, nn

from flowlib import columns
from flowlib.adapters import View, view
from flowlib.arguments import require_finite, require_tensor
from flowlib.iresnet import PowerSeries
from flowlib.units import far_from

__all__ = ["Finding", "Report", "check_flow"]

OK, NOTE, WRONG, SKIPPED = "ok", "note", "wrong", "not tried"

SHAKE = 0.3  # how far weights are moved, in the units in which layers are usually started
MANY = 64  # coordinates from which on fewer rows are tried
MOST = 1024  # coordinates up to which a whole Jacobian is taken
FEW = 8  # coordinates up to which a density is integrated
SECONDS = 1.5  # an estimator is drawn from so long, and at least LEAST times
LEAST = 24
SIGMAS = 5.0  # standard errors that are no chance
WALK_DEPTH = 100_000  # nodes of an autograd graph


# --- what is said ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Finding:
    """One line of a report.

    Attributes:
        line: the question.
        verdict: ``"ok"``, ``"wrong"``, ``"note"`` (true of some flows that are right), or
            ``"not tried"``.
        measured: what was seen, or why it was not tried.
        cause: what it usually comes from.
        cure: what to do.
        mistakes: rows of the page *Common mistakes*.
    """

    line: str
    verdict: str
    measured: str
    cause: str = ""
    cure: str = ""
    mistakes: tuple[int, ...] = ()


class Report:
    """What :func:`check_flow` found; it prints as a table.

    Attributes:
        name: the class of the flow.
        findings: one :class:`Finding` a line, in the order in which they were tried.
    """

    def __init__(self, name: str, findings: Iterable[Finding]) -> None:
        self.name = name
        self.findings = list(findings)

    def __getitem__(self, line: str) -> Finding:
        for finding in self.findings:
            if finding.line == line:
                return finding
        lines = ", ".join(finding.line for finding in self.findings)
        raise KeyError(f"expected one of the lines {lines}; got {line!r}")

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong; notes are allowed."""
        return not self.wrong

    @property
    def wrong(self) -> list[Finding]:
        """The findings whose verdict is ``"wrong"``."""
        return [finding for finding in self.findings if finding.verdict == WRONG]

    @property
    def notes(self) -> list[Finding]:
        """The findings whose verdict is ``"note"``."""
        return [finding for finding in self.findings if finding.verdict == NOTE]

    def __str__(self) -> str:
        wide = max(len(finding.line) for finding in self.findings)
        counts = ", ".join(
            f"{n} {verdict}"
            for verdict in (WRONG, NOTE, OK, SKIPPED)
            if (n := sum(finding.verdict == verdict for finding in self.findings))
        )
        rows = [f"{self.name}: {counts}"]
        for finding in self.findings:
            head = f"{finding.verdict:<9}  {finding.line:<{wide}}  "
            rows += _filled(head, finding.measured)
            for name, text in (("cause", finding.cause), ("cure", finding.cure)):
                if text:
                    rows += _filled(" " * (11 + 2) + f"{name:<5}  ", text)
            if finding.mistakes:
                which = ", ".join(map(str, finding.mistakes))
                rows += _filled(" " * 13, f"Common mistakes: row {which}")
        return "\n".join(rows)

    __repr__ = __str__


def _filled(head: str, text: str) -> list[str]:
    lines = textwrap.wrap(text, 88 - len(head)) or [""]
    return [head + lines[0], *(" " * len(head) + line for line in lines[1:])]


class _Outcome(NamedTuple):
    verdict: str
    measured: str
    cause: str = ""
    cure: str = ""
    mistakes: tuple[int, ...] = ()


class _NotTried(Exception):
    """A line that cannot be tried on this flow; the message says why."""


# --- the function ---------------------------------------------------------------------------------


def check_flow(
    flow: Any,
    x: Tensor,
    context: Tensor | None = None,
    *,
    rebuild: Callable[[], nn.Module] | None = None,
    bits_per_dim: Callable[[Tensor], Tensor] | None = None,
    levels: int = 256,
    seed: int = 0,
) -> Report:
    """Try a flow, trained or fresh, and report what is wrong with it.

    Args:
        flow: a :class:`~flowlib.Flow` or other density of this library, a flow of zuko, nflows or
            normflows, a ``torch.distributions.TransformedDistribution``, a module or function that
            maps ``x`` to ``(z, log_det)``, or a :class:`~flowlib.adapters.Foreign` made of
            functions. It is left as it is.
        x: rows of data ``(n, *event)``, some hundred are enough.
        context: their contexts ``(n, C)``, if the flow takes some.
        rebuild: makes the same flow anew, with other random weights. With it the report knows
            whether ``state_dict`` carries all that the flow is made of. The ready flows of this
            library need none.
        bits_per_dim: what your code reports as bits per dimension: rows to one number each.
        levels: of the whole numbers behind ``x`` when ``bits_per_dim`` is given.
        seed: of the random numbers that the tries take. The caller's random state stays as it is.

    Returns:
        A :class:`Report`. Under 5 s for flows of 16 dimensions or less, some 20 s for pictures of
        784, mostly for draws.

    Raises:
        TypeError: if ``flow`` is of no kind that is known, or ``x`` is not a tensor.
        ValueError: if ``x`` has fewer than two rows or values that are not finite.

    Example:
        >>> from flowlib import RealNVP
        >>> x = torch.randn(200, 2, generator=torch.Generator().manual_seed(0))
        >>> report = check_flow(RealNVP(2), x)
        >>> report.ok, report["log-determinant"].verdict
        (True, 'ok')
    """
    require_tensor("check_flow", "x", x)
    if x.dim() < 2 or len(x) < 2:
        raise ValueError(f"check_flow: expected rows (n, ...), two or more, got {tuple(x.shape)}")
    require_finite("check_flow", "x", x)
    if context is not None:
        require_tensor("check_flow", "context", context)
        if context.dim() != 2 or len(context) != len(x):
            raise ValueError(
                f"check_flow: expected a context of shape ({len(x)}, C), got {tuple(context.shape)}"
            )
    name = view(flow).name
    devices = [x.device] if x.device.type == "cuda" else []
    with torch.random.fork_rng(devices), torch.enable_grad():
        torch.manual_seed(seed)
        patient = _Patient(flow, x.detach(), context, rebuild, bits_per_dim, levels)
        return Report(name, [_tried(line, ask, patient) for line, ask in _LINES.items()])


def _tried(line: str, ask: Callable[[_Patient], _Outcome], patient: _Patient) -> Finding:
    try:
        return Finding(line, *ask(patient))
    except _NotTried as why:
        return Finding(line, SKIPPED, str(why))
    except Exception as error:  # the flow's own: it is what the report is about
        text = " ".join(str(error).split())
        return Finding(
            line,
            WRONG,
            f"it raised {type(error).__name__}: {text[:300]}",
            "an error in the flow's own code, or data that it does not take",
            "call it on these rows by itself, and read the trace",
        )


# --- what is tried on -----------------------------------------------------------------------------


class _Version(NamedTuple):
    """One copy of the flow, and rows for it."""

    what: str
    flow: Any
    view: View
    x: Tensor
    context: Tensor | None

    def some(self, n: int) -> _Version:
        """The first rows."""
        context = None if self.context is None else self.context[:n]
        return self._replace(x=self.x[:n], context=context)

    def rows(self) -> Iterator[tuple[Tensor, Tensor | None]]:
        for i in range(len(self.x)):
            yield self.x[i : i + 1], None if self.context is None else self.context[i : i + 1]

    @property
    def eps(self) -> float:
        return float(torch.finfo(self.x.dtype).eps)


class _Patient:
    """Copies of the flow: as it is, in float64, with shaken weights, in training."""

    def __init__(
        self,
        flow: Any,
        x: Tensor,
        context: Tensor | None,
        rebuild: Callable[[], nn.Module] | None,
        bits_per_dim: Callable[[Tensor], Tensor] | None,
        levels: int,
    ) -> None:
        self.flow, self.rebuild = flow, rebuild
        self.bits_per_dim, self.levels = bits_per_dim, levels
        self.all_x = x
        every = max(1, len(x) // 256)
        self.x = x[::every][:256].clone()
        self.context = None if context is None else context.detach()[::every][:256].clone()
        self.dim = x[0].numel()
        self.n_rows = 8 if self.dim <= MANY else 1

    def copied(self) -> Any:
        """A copy whose weights, modes and buffers can be changed."""
        try:
            return copy.deepcopy(self.flow)
        except (RuntimeError, TypeError) as error:
            raise _NotTried(f"the flow cannot be copied: {error}") from error

    def version(self, what: str, flow: Any, dtype: torch.dtype | None = None) -> _Version:
        if isinstance(flow, nn.Module):
            flow.eval()
            if dtype is not None:
                flow.to(dtype)
        x, context = self.x.clone(), None if self.context is None else self.context.clone()
        if dtype is not None:
            x, context = x.to(dtype), None if context is None else context.to(dtype)
        return _Version(what, flow, view(flow), x, context)

    @functools.cached_property
    def own(self) -> _Version:
        """In its own dtype."""
        try:
            flow = self.copied()
        except _NotTried:
            flow = self.flow
        return self.version("as it is", flow)

    @functools.cached_property
    def few(self) -> _Version:
        """The same with fewer rows where they are large."""
        return self.own.some(256 if self.dim <= 16 else 16 if self.dim <= MANY else 4)

    @functools.cached_property
    def double(self) -> _Version:
        """In float64, or in its own dtype if it cannot be turned into that."""
        return self._doubled("in float64", self.copied)

    @functools.cached_property
    def shaken(self) -> _Version:
        """In float64, each weight moved by a draw: a map that is not the identity by its start."""
        if not self.parameters(self.flow):
            raise _NotTried("it has no weights")
        for scale in (SHAKE, SHAKE / 4, SHAKE / 16):
            made = self._doubled("at shaken weights", functools.partial(self.moved, scale))
            _, log_det = _mapped_by(made)
            if log_det.isfinite().all():
                return made
        raise _NotTried("its values are not finite at shaken weights")

    def moved(self, scale: float) -> nn.Module:
        """A copy with shaken weights."""
        return _shaken(self.copied(), scale)

    def _doubled(self, what: str, make: Callable[[], Any]) -> _Version:
        wanted = self.version(what, make(), torch.float64)
        if not isinstance(self.flow, nn.Module):  # a distribution's own tensors keep their dtype
            return self.version(what, make()) if self.x.dtype != torch.float64 else wanted
        try:
            _mapped_by(wanted.some(2))
        except (RuntimeError, TypeError, ValueError):
            return self.version(what, make())
        return wanted

    def versions(self) -> list[_Version]:
        """As it is and shaken, where there are weights."""
        try:
            return [self.double, self.shaken]
        except _NotTried:
            return [self.double]

    @staticmethod
    def parameters(flow: Any) -> list[nn.Parameter]:
        return [p for p in flow.parameters() if p.requires_grad] if _is_module(flow) else []

    def need(self, *names: str) -> View:
        """The view, if it has all of these."""
        found = self.own.view
        for name in names:
            if getattr(found, name) is None:
                raise _NotTried(f"the flow offers no {name}")
        return found

    @functools.cached_property
    def jacobians(self) -> list[_Jacobians]:
        """Of both versions, at some rows."""
        self.need("forward")
        if self.dim > MOST:
            raise _NotTried(f"a Jacobian of {self.dim} by {self.dim} numbers is too large")
        versions = self.versions()[-1 if self.dim > 256 else 0 :]  # shaken alone where it is dear
        return [_jacobians(version.some(self.n_rows)) for version in versions]

    @functools.cached_property
    def estimator(self) -> _Version | None:
        """A version whose log-determinant is drawn anew in each call, if there is one."""
        if self.own.view.forward is None or not _is_module(self.flow):
            return None
        for version in reversed(self.versions()):
            for training in (False, True):
                made = version.some(4)
                flow: Any = copy.deepcopy(made.flow).train(training)
                made = made._replace(flow=flow, view=view(flow))
                with torch.no_grad():
                    _mapped_by(made)
                    (z, one), (again, other) = _mapped_by(made), _mapped_by(made)
                same = float((z - again).abs().max()) < 1e-3
                if same and (one - other).abs().max() > 1e4 * made.eps * one.abs().max().clamp(1):
                    return made  # type: ignore[no-any-return]
        return None

    @property
    def condition(self) -> float:
        """The largest seen; rounding errors grow by it."""
        try:
            return max(j.condition for j in self.jacobians)
        except (_NotTried, ValueError):  # its own lines say so
            return 1.0


def _is_module(flow: Any) -> bool:
    return isinstance(flow, nn.Module)


@torch.no_grad()
def _shaken(flow: nn.Module, scale: float) -> nn.Module:
    for p in flow.parameters():
        if p.requires_grad:
            fan_in = p[0].numel() if p.dim() > 1 else 1
            p.add_(torch.randn_like(p) * scale * min(1.0, math.sqrt(16 / fan_in)))
    return flow


def _mapped_by(version: _Version) -> tuple[Tensor, Tensor]:
    """``z, log_det``; of a density without a map its log-density in the place of both."""
    if version.view.forward is not None:
        return version.view.forward(version.x, version.context)
    if version.view.log_prob is None:
        raise _NotTried("the flow offers neither forward nor log_prob")
    log_p = version.view.log_prob(version.x, version.context)
    return log_p, log_p


def _density(v: View, x: Tensor, context: Tensor | None) -> Tensor:
    """The log-density, or the log-determinant of a map without a base."""
    if v.log_prob is not None:
        return v.log_prob(x, context)
    assert v.forward is not None
    log_det: Tensor = v.forward(x, context)[1]
    return log_det


class _Jacobians(NamedTuple):
    """What autodiff says at some rows, beside what the flow says."""

    version: _Version
    signs: Tensor
    log_dets: Tensor
    said: Tensor
    condition: float


def _jacobians(version: _Version) -> _Jacobians:
    signs, logs, said, conditions = [], [], [], []
    for row, context in version.rows():
        jacobian = _jacobian(version.view, row, context)
        if not jacobian.isfinite().all():
            raise ValueError("at one row by itself the Jacobian is not finite")
        sign, log_det = torch.linalg.slogdet(jacobian)
        signs.append(sign)
        logs.append(log_det)
        conditions.append(float(torch.linalg.cond(jacobian)))
    with torch.no_grad():
        assert version.view.forward is not None
        said = version.view.forward(version.x, version.context)[1]
    return _Jacobians(
        version, torch.stack(signs), torch.stack(logs), said.detach(), max(conditions)
    )


def _jacobian(v: View, row: Tensor, context: Tensor | None) -> Tensor:
    """``(D, D)`` at one row: by autodiff, or by finite differences where there is no gradient."""
    dim = row.numel()
    assert v.forward is not None
    leaf = row.clone().requires_grad_()
    z = v.forward(leaf, context)[0].flatten()
    if z.requires_grad:
        return _by_autodiff(v, leaf, z, context)
    step = torch.finfo(row.dtype).eps ** (1 / 3) * max(1.0, float(row.abs().max()))
    shift = step * torch.eye(dim, dtype=row.dtype, device=row.device).view(dim, *row.shape[1:])
    contexts = None if context is None else context.expand(dim, -1)
    with torch.no_grad():
        ahead, behind = (v.forward(row + s, contexts)[0] for s in (shift, -shift))
    slopes: Tensor = (ahead - behind) / (2 * step)
    return slopes.flatten(1).T


def _by_autodiff(v: View, leaf: Tensor, z: Tensor, context: Tensor | None) -> Tensor:
    """Row after row of one graph, or all rows of a batch of copies at once: the quicker of both."""
    dim = len(z)
    assert v.forward is not None

    def row(k: int) -> Tensor:
        return torch.autograd.grad(z[k], leaf, retain_graph=True)[0].flatten()

    def together(first: int, last: int) -> Tensor:
        n = last - first
        copies = leaf.detach().expand(n, *leaf.shape[1:]).clone().requires_grad_()
        contexts = None if context is None else context.expand(n, -1)
        made = v.forward(copies, contexts)[0].flatten(1)  # type: ignore[misc]
        chosen = made[torch.arange(n), torch.arange(first, last)].sum()
        return torch.autograd.grad(chosen, copies)[0].flatten(1)

    began = time.monotonic()
    rows = [row(k) for k in range(min(dim, 4))]
    one_by_one = (time.monotonic() - began) / len(rows) * dim
    if one_by_one > 2:
        began = time.monotonic()
        together(0, 64)
        if (time.monotonic() - began) / 64 * dim < one_by_one:
            return torch.cat([together(k, min(k + 64, dim)) for k in range(0, dim, 64)])
    return torch.stack(rows + [row(k) for k in range(len(rows), dim)])


# --- the lines ------------------------------------------------------------------------------------


def _input(p: _Patient) -> _Outcome:
    v, changed = p.few.view, ""
    with torch.no_grad():
        z = p.few.x if v.forward is None else v.forward(p.few.x.clone(), p.few.context)[0]
    for name, call in (("forward", v.forward), ("log_prob", v.log_prob), ("inverse", v.inverse)):
        before = (z if name == "inverse" else p.few.x).detach().clone()
        given = before.clone()
        with torch.no_grad():
            call is None or call(given, p.few.context)
        if not torch.equal(before, given) and not before.isnan().any():
            changed = f"{name} changed {int((before != given).sum())} of {given.numel()} numbers"
    if not changed:
        return _Outcome(OK, "the caller's tensors are untouched")
    return _Outcome(
        WRONG,
        f"{changed} of the caller's tensor",
        "an operation in place (x[:, half] = ..., x *= ..., add_) on an argument",
        "clone first, or build the result with torch.cat or torch.where",
        (15,),
    )


def _shape(p: _Patient) -> _Outcome:
    v = p.few.view
    for name in ("forward", "inverse", "log_prob"):
        call = getattr(v, name)
        if call is None:
            continue
        given = p.few.x
        if name == "inverse":
            if v.forward is None:
                continue
            with torch.no_grad():
                given = v.forward(p.few.x, p.few.context)[0]
        with torch.no_grad():
            made = call(given, p.few.context)
        numbers = made if isinstance(made, Tensor) else made[1]
        if numbers is not None and numbers.shape != (len(given),):
            return _Outcome(
                WRONG,
                f"{name} gives {tuple(numbers.shape)} for {len(given)} rows, not one number a row",
                "a sum over the whole batch, or over no dimension",
                "log_det.flatten(1).sum(1): over the event, never over the batch",
                (6,),
            )
    return _Outcome(OK, "one log-determinant and one density a row")


def _finite(p: _Patient) -> _Outcome:
    with torch.no_grad():
        log_p = _density(p.own.view, p.own.x, p.own.context)
    bad = ~log_p.isfinite()
    if bad.any():
        return _Outcome(
            WRONG,
            f"{int(bad.sum())} of {len(log_p)} rows of the data have a density of "
            f"{log_p[bad][0].item()}",
            "an exp of a log-scale without a bound, a logarithm or logit at the edge of its domain",
            "bound log-scales on both sides, by the same map both ways; map the edge inside first, "
            "as alpha + (1 - 2 alpha) x does before a logit",
            (5, 26),
        )
    for times in (3.0, 10.0):
        try:
            with torch.no_grad():
                far = _density(p.own.view, _outward(p.own.x, times), p.own.context)
        except ValueError:  # outside of its domain, and it says so
            return _Outcome(OK, "finite at the data; points outside of the domain are refused")
        if not far.isfinite().all():
            return _Outcome(
                NOTE,
                f"finite at the data; {times:g} times as far from their mean "
                f"{int((~far.isfinite()).sum())} of {len(far)} densities are not",
                "an exp of a log-scale that grows with the input",
                "bound log-scales on both sides",
                (26,),
            )
    return _Outcome(OK, "finite at the data, and at ten times their distance from the mean")


def _outward(x: Tensor, times: float) -> Tensor:
    mean = x.mean(0, keepdim=True)
    return mean + times * (x - mean)


def _repeatable(p: _Patient) -> _Outcome:
    with torch.no_grad():
        (z, log_det), (again, other) = _mapped_by(p.few), _mapped_by(p.few)
    moved = _far_apart(z, again)
    if p.few.view.forward is not None and moved > 1e-6:
        return _Outcome(
            WRONG,
            f"in evaluation two equal calls give latents that differ by {moved:.2g}",
            "masks or permutations drawn anew in every call, dropout left on, or a power "
            "iteration that still runs in evaluation",
            "draw structure once and keep it in buffers; freeze norms when eval() is called",
            (1, 18),
        )
    apart = float((log_det - other).abs().max())
    if apart > 1e-6 * max(1.0, float(log_det.abs().max())):
        return _Outcome(
            NOTE,
            f"in evaluation two equal calls give densities that differ by {apart:.2g}",
            "a log-determinant that is estimated with fresh draws in evaluation, too",
            "report a mean over draws with its standard error, or fix the draws in evaluation",
            (18,),
        )
    return _Outcome(OK, "two equal calls agree")


def _far_apart(a: Tensor, b: Tensor) -> float:
    """The largest difference, relative above 1; infinite where one alone is not finite."""
    difference = (a - b).abs() / a.abs().clamp(min=1)
    difference[(a == b) | (a.isnan() & b.isnan())] = 0
    return float(torch.nan_to_num(difference, nan=math.inf, posinf=math.inf).max())


def _coupled(version: _Version, n: int = 6) -> tuple[float, float]:
    """How much a row's latents and its values change with the rest of its batch."""
    few = version.some(n)
    with torch.no_grad():
        whole = _mapped_by(few)
        rows = [_mapped_by(few._replace(x=x, context=c)) for x, c in few.rows()]
        # one row alone has no variance: pairs, where that is refused or has no value
        pair = _mapped_by(few.some(2))
    apart = []
    for k, part in enumerate(zip(*rows, strict=True)):
        alone = _far_apart(whole[k], torch.cat(part))
        apart.append(alone if math.isfinite(alone) else _far_apart(whole[k][:2], pair[k]))
    return apart[0], apart[1]


def _rows(p: _Patient) -> _Outcome:
    if p.estimator is not None and not _same_estimate(p.own):
        raise _NotTried("the log-determinant is drawn anew in each call")
    latents, values = _coupled(p.own)
    tolerance = max(1e-4, 100 * p.own.eps * p.condition)
    if max(latents, values) < tolerance:
        return _Outcome(OK, "a row's density does not depend on the other rows")
    apart = max(latents, values)
    if latents < tolerance and _within_one_draw(p, values):
        return _Outcome(
            NOTE,
            f"in evaluation a row's density changes by {values:.2g} with its batch; its latents "
            "do not",
            "an estimated log-determinant whose probes depend on a row's place in its batch",
            "take differences between rows of one batch as no more exact than that",
        )
    return _Outcome(
        WRONG,
        f"in evaluation a row's value changes by {apart:.2g} with the other rows of its batch",
        "batch statistics inside a conditioner or a residual branch, or a normalization that "
        "ignores eval()",
        "ActNorm, or batch norm as a bijection between the layers with running statistics",
        (12,),
    )


def _same_estimate(version: _Version) -> bool:
    with torch.no_grad():
        return bool(torch.equal(_mapped_by(version.some(2))[1], _mapped_by(version.some(2))[1]))


def _modes(p: _Patient) -> _Outcome:
    if not _is_module(p.flow):
        raise _NotTried("it has no mode of training")
    flow = p.copied().train()
    trained = p.few._replace(flow=flow, view=view(flow))
    with torch.no_grad():
        _mapped_by(trained)  # what starts from a first batch has started
        flow.eval()
        evaluated, _ = _mapped_by(trained)
        flow.train()
        z, _ = _mapped_by(trained)
        coupled = _coupled_latents(trained)
    inside = [name for name, m in flow.named_modules() if isinstance(m, _BATCH_NORMS)]
    if coupled and inside:
        return _Outcome(
            WRONG,
            f"in training the latents of a row depend on its batch, by {inside[0]}",
            "torch's batch norm inside a conditioner or a branch: its determinant is in no "
            "log-det, and training and evaluation are different maps",
            "no normalization inside, or ActNorm",
            (12,),
        )
    if coupled:
        return _Outcome(
            NOTE,
            "in training the latents of a row depend on its batch",
            "batch statistics: right between layers, as long as evaluation uses running ones",
            "report densities in evaluation only; inside a conditioner use none of it",
            (12, 13),
        )
    if p.few.view.forward is not None and (apart := _far_apart(z, evaluated)) > 0.01:
        return _Outcome(
            NOTE,
            f"training and evaluation are different maps: latents differ by up to {apart:.2g}",
            "dropout, or statistics and norms that are not at rest yet",
            "report densities in evaluation only",
            (12, 13, 18),
        )
    return _Outcome(OK, "training and evaluation are one map")


_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


def _coupled_latents(version: _Version) -> bool:
    half = version.some(max(2, len(version.x) // 2))
    one, other = _mapped_by(version)[0], _mapped_by(half)[0]
    again = _mapped_by(half)[0]
    noise = _far_apart(other, again)
    return version.view.forward is not None and _far_apart(one[: len(other)], other) > max(
        1e-3, 3 * noise
    )


def _log_det(p: _Patient) -> _Outcome:
    worst = 0.0
    for found in p.jacobians:
        error = (found.said - found.log_dets).abs()
        scale = found.log_dets.abs().clamp(min=1)
        eps = found.version.eps
        tolerance = max(1e-8, 1e3 * eps * found.condition, 20 * math.sqrt(eps) * (eps > 1e-10))
        off = float((error / scale).max())
        worst = max(worst, off)
        if not off <= tolerance:
            if _within_one_draw(p, float(error.max())):
                return _Outcome(
                    OK,
                    f"an estimate, within {float(error.max()):.2g} of autodiff {found.version.what}"
                    "; its bias is judged below",
                )
            return _log_det_off(p, found)
    where = " and at shaken weights" if len(p.jacobians) > 1 else ""
    return _Outcome(
        OK, f"agrees with autodiff to {_rounded(worst)}, {p.jacobians[0].version.what}{where}"
    )


def _rounded(error: float) -> str:
    return f"{10 ** math.ceil(math.log10(max(error, 1e-14))):.0e}"


def _within_one_draw(p: _Patient, error: float) -> bool:
    if p.estimator is None:
        return False
    with torch.no_grad():
        draws = torch.stack([_mapped_by(p.estimator)[1] for _ in range(LEAST)])
    return error < 6 * float(draws.std(0).max())


def _log_det_off(p: _Patient, found: _Jacobians) -> _Outcome:
    said, true = found.said, found.log_dets
    k = int((said - true).abs().argmax())
    measured = (
        f"{found.version.what} it is {said[k].item():.4g} at row {k}, and autodiff says "
        f"{true[k].item():.4g}"
    )
    cause, cure, rows = "", "", tuple[int, ...]()
    if len(said) > 1 and said.std() == 0 and true.std() > 1e-6:
        cause, cure, rows = (
            "one number for the whole batch",
            "sum over the event, never over the batch",
            (6,),
        )
    elif torch.allclose(said, -true, atol=1e-6):
        cause, cure, rows = (
            "the sign of the other direction",
            "log|det dz/dx| for x to z, minus that for z to x",
            (6, 23),
        )
    elif torch.allclose(said, true.exp(), atol=1e-6):
        cause, cure, rows = ("the determinant without its logarithm", "return log|det|", (11,))
    elif len(said) > 2 and (said - true).std() < 1e-6:
        cause, cure, rows = (
            "a constant is left out: that of a scaling, of a normalization (without height times "
            "width for pictures), or of a permutation taken for a scaling",
            "each layer's log-determinant by itself against autodiff shows which one",
            (11, 13, 28),
        )
    else:
        cause, cure, rows = (
            "|s| for s, the determinant of the absolute values, a Jacobian that is not triangular "
            "(a mask with >= at the output, a context masked as an input), or a series whose "
            "terms are not those of log(1 + x) or whose norm is above 1",
            "each layer's log-determinant by itself against autodiff shows which one",
            (3, 6, 8, 11, 16, 17, 20, 23, 29),
        )
    layer = _culprit(found.version)
    return _Outcome(WRONG, measured + layer, cause, cure, rows)


def _culprit(version: _Version) -> str:
    """Which layer of a sequence is off, if the flow is a sequence."""
    steps = getattr(getattr(version.flow, "bijection", version.flow), "bijections", None)
    if steps is None:
        return ""
    few = version.some(2)
    x, context = few.x, few.context
    if hasattr(version.flow, "in_own_units"):
        context = version.flow.in_own_units(context)
    for k, step in enumerate(steps):
        found = _jacobians(_Version("", step, view(step), x.detach(), context))
        error = (found.said - found.log_dets).abs().max()
        if not error <= max(1e-8, 1e3 * version.eps * found.condition):
            return f" (layer {k}, {type(step).__name__}, is off by {float(error):.2g})"
        with torch.no_grad():
            x = step(x, context)[0]
    return ""


def _estimate(p: _Patient) -> _Outcome:
    if p.estimator is None:
        raise _NotTried("the log-determinant is not drawn at random")
    if p.dim > MOST:
        raise _NotTried("its exact value is too dear")
    version = p.estimator.some(4 if p.dim <= MANY else 1)
    draws: list[Tensor] = []
    began = time.monotonic()
    with torch.no_grad():
        while len(draws) < LEAST or (time.monotonic() - began < SECONDS and len(draws) < 4000):
            draws.append(_mapped_by(version)[1])
    exact = _jacobians(version).log_dets
    errors = (torch.stack(draws) - exact).mean(1)  # rows may share their draws: a call is one
    bias, error = float(errors.mean()), float(errors.std() / math.sqrt(len(errors)))
    measured = f"bias {bias:+.2g}, standard error {error:.2g}, over {len(errors)} calls"
    if not abs(bias) > SIGMAS * error:
        return _Outcome(OK, measured)
    truncated = any(isinstance(m, PowerSeries) for m in version.flow.modules())
    if truncated:
        return _Outcome(
            NOTE,
            measured,
            "a power series that is cut off: its bias is bounded, and known",
            "more terms, or RussianRoulette, which has none",
            (23,),
        )
    return _Outcome(
        WRONG,
        measured,
        "probes with a mean, weights of the terms that do not match how many are drawn (the "
        "geometric tail off by one), a series without 1/k or with the sign (-1)^k, a bound on "
        "the branch that does not hold, or the scalar of the Neumann gradient reported as a value",
        "probes with E[v v^T] = I; divide term k by P(N >= k); report the value's own series",
        (16, 17, 20, 21, 22, 23, 24),
    )


def _round_trip(p: _Patient) -> _Outcome:
    p.need("forward", "inverse")
    worst = 0.0
    for version in p.versions():
        few = version.some(32 if p.dim <= MANY else 4)
        far = version.some(4 if p.dim <= MANY else 1)
        far = far._replace(x=_outward(far.x, 3.0))
        for where, tried in (("", few), (" far from the data", far)):
            try:
                condition = _jacobians(tried).condition if where else p.condition
                error, log_dets = _there_and_back(tried)
            except ValueError:
                if where:
                    continue  # outside of its domain, or beyond the numbers' range
                raise
            if where and condition > 1e12:
                continue  # no number comes back from there
            tolerance = max(1e-3, 1e3 * few.eps * condition)
            worst = max(worst, error)
            if not error <= tolerance:
                return _not_invertible(p, f"{version.what}{where}", error)
            if p.estimator is None and not log_dets <= tolerance * 10:
                return _Outcome(
                    WRONG,
                    f"{version.what}{where} the log-determinants of a map and of its inverse add "
                    f"up to {log_dets:.2g}, not to 0",
                    "the inverse returns the log-determinant of the forward map, or leaves it out",
                    "the inverse's is minus the forward's at the matching point",
                    (6, 10),
                )
    own = p.own.some(16 if p.dim <= MANY else 2)
    error, _ = _there_and_back(own)
    if error > 0.01:
        return _Outcome(
            NOTE,
            f"in {str(own.x.dtype)[6:]} data come back with an error of {error:.2g}; the largest "
            f"condition number seen is {p.condition:.1g}",
            "a map that stretches one direction much more than another",
            "flow.double(), or fewer and gentler layers",
        )
    return _Outcome(OK, f"x to z to x within {_rounded(max(worst, error))}, and back")


def _there_and_back(version: _Version) -> tuple[float, float]:
    """The largest error of both round trips, and of the two log-determinants' sum."""
    v, context = version.view, version.context
    assert v.forward is not None
    assert v.inverse is not None
    with torch.no_grad():
        z, log_det = v.forward(version.x, context)
        back, inverse_log_det = v.inverse(z, context)
        again, _ = v.forward(back, context)
    error = max(_far_apart(version.x, back), _far_apart(z, again))
    if inverse_log_det is None:
        return error, 0.0
    return error, _far_apart(log_det, -inverse_log_det)


def _not_invertible(p: _Patient, where: str, error: float) -> _Outcome:
    return _Outcome(
        WRONG,
        f"{where} data come back with an error of {error:.2g}; the largest condition number is "
        f"{p.condition:.1g}",
        "a MAF inverted in one shot, a division by s instead of exp(s), the wrong inverse "
        "permutation, a log-scale clamped in one direction only, a fixed point that stopped on its "
        "step, or a residual branch whose norm is not below 1",
        "coordinate by coordinate with exp(-s); argsort; the same bound both ways; stop on the "
        "residual; the largest singular value of the true operator",
        (5, 9, 16, 17, 18, 19, 20, 26),
    )


def _sign(p: _Patient) -> _Outcome:
    for found in p.jacobians:
        if len(set(found.signs.tolist())) > 1 or (found.signs == 0).any():
            return _Outcome(
                WRONG,
                f"{found.version.what} the determinant is positive at some rows and not at others",
                "the map folds: a residual branch with a norm above 1, by its spectral radius "
                "taken for its norm or its kernel for its operator; or a scale that may be zero",
                "normalize by the largest singular value of the true operator; exp(s) for s",
                (5, 16, 17, 20),
            )
    return _Outcome(OK, "the determinant has one sign")


def _draws(p: _Patient) -> _Outcome:
    p.need("sample", "log_prob")
    if p.own.view.discrete:
        raise _NotTried("its values are zeros and ones: see the integral")
    version = _that_draws(p)
    v, context = version.view, None if version.context is None else version.context[0]
    assert v.sample is not None
    assert v.log_prob is not None
    n = 500 if p.dim <= 16 else 64
    rows = None if context is None else context.expand(n, -1)
    if v.draws_with_density is not None and p.estimator is None:
        with torch.no_grad():
            x, said = v.draws_with_density(min(n, 64), context)
            true = v.log_prob(x, None if rows is None else rows[: len(x)])
        apart = _far_apart(true, said.reshape(true.shape))
        if not apart <= max(1e-2, 1e3 * version.eps * p.condition):
            return _Outcome(
                WRONG,
                f"draws come with log-densities that differ from log_prob by up to {apart:.2g}",
                "log q without log|det dx/dz|: an evidence bound above the evidence",
                "log q(x) = log p_Z(z) - log|det dx/dz|",
                (10,),
            )
    if v.forward is None or v.base_sample is None or v.base_log_prob is None:
        return _Outcome(OK, "draws carry the density that log_prob gives them")
    with torch.no_grad():
        x = v.sample(n, context)
        z, log_det = v.forward(x, rows)
        sum_of = v.base_log_prob(z) + log_det
        base = v.base_sample(n)
        if p.estimator is None and (apart := _far_apart(v.log_prob(x, rows), sum_of)) > 1e-3:
            return _Outcome(
                WRONG,
                f"log_prob differs from log p_Z(f(x)) + log|det| by up to {apart:.2g}",
                "a term left out, or a unit: pixels for numbers in [0, 1]",
                "log p(x) = log p_Z(f(x)) + log|det df/dx|, and bits in one function",
                (11, 28),
            )
        logs = v.base_log_prob(z), v.base_log_prob(base)
    pairs = [logs, *zip(z.flatten(1).T[:16], base.flatten(1).T[:16], strict=True)]
    least = min(float(stats.ks_2samp(*(s.cpu().numpy() for s in pair)).pvalue) for pair in pairs)
    if least < 1e-6 / len(pairs):
        return _Outcome(
            WRONG,
            f"draws taken to the latent side are not draws of the base (p = {least:.0e})",
            "sampling goes through another map than the density: a wrong inverse, a base with "
            "another scale, or draws that are clipped",
            "sample is the inverse of forward on the base's draws, and nothing else",
            (5, 9),
        )
    return _Outcome(OK, f"{n} draws taken to the latent side look like the base's")


def _that_draws(p: _Patient) -> _Version:
    """In float64, where draws do not meet the edges of a domain, if the flow draws in float64."""
    if p.double.x.dtype == torch.float64:
        v, context = p.double.view, p.double.context
        assert v.sample is not None
        try:
            with torch.no_grad():
                x = v.sample(2, None if context is None else context[0])
        except RuntimeError:  # float32 draws meet float64 weights
            return p.own
        if x.dtype == torch.float64:
            return p.double
    return p.own


def _integral(p: _Patient) -> _Outcome:
    v = p.need("log_prob")
    assert v.log_prob is not None
    if v.discrete:
        return _sum(p)
    if p.dim > FEW:
        raise _NotTried(f"a density in more than {FEW} dimensions is too wide to integrate")
    n = 2000 if p.estimator is None else 500
    context = None if p.own.context is None else p.own.context[:1].expand(n, -1)
    with torch.no_grad():
        if v.sample is not None:
            centers = v.sample(n, None if context is None else context[0])
        elif context is None:
            centers = p.own.x[torch.randint(len(p.own.x), (n,))]
        else:
            raise _NotTried("it neither samples nor are there many rows of one context")
        near, log_r = _spread(centers.flatten(1), n)
        try:
            log_p = v.log_prob(near.reshape(n, *p.x.shape[1:]), context)
        except ValueError as edge:
            raise _NotTried(f"its domain has an edge: {edge}") from edge
    weights = (log_p.double() - log_r).exp()
    mean, error = float(weights.mean()), float(weights.std() / math.sqrt(n))
    effective = float(weights.sum() ** 2 / (weights**2).sum())
    if effective < 0.05 * n:
        raise _NotTried("its draws do not cover its density well enough to integrate it")
    measured = f"the density integrates to {mean:.3f}, standard error {error:.3f}"
    if abs(mean - 1) < max(SIGMAS * error, 0.02):
        return _Outcome(OK, measured)
    return _Outcome(
        WRONG,
        measured,
        "a log-determinant that is off, a constant left out, an average of logits taken for one "
        "of probabilities, a unit",
        "see the log-determinant's line; the mean of densities is log-sum-exp of log p less log n",
        (4, 6, 11, 28),
    )


def _spread(centers: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """Draws of a smooth density around the centers, with heavy tails, and its logarithm."""
    centers = centers.double()
    dim = centers.shape[1]
    few = centers[torch.randperm(len(centers))[:400]]
    # median distances instead of deviations: far draws do not widen it
    width = (centers - centers.median(0).values).abs().median(0).values.clamp(min=1e-12) * 1.48
    width = width * 1.5 * len(few) ** (-1 / (dim + 4))
    kernel = torch.distributions.StudentT(3.0)
    near = few[torch.randint(len(few), (n,))] + width * kernel.sample((n, dim)).double()
    apart = (near[:, None] - few) / width
    log_r = torch.logsumexp(kernel.log_prob(apart).sum(2), 1) - width.log().sum()
    return near.to(torch.get_default_dtype()), log_r - math.log(len(few))


def _sum(p: _Patient) -> _Outcome:
    if p.dim > 12:
        raise _NotTried(f"2^{p.dim} values are too many to sum")
    assert p.own.view.log_prob is not None
    cube = torch.tensor(list(itertools.product((0.0, 1.0), repeat=p.dim)))
    x = cube.to(p.x).reshape(-1, *p.x.shape[1:])
    context = None if p.own.context is None else p.own.context[:1].expand(len(x), -1)
    with torch.no_grad():
        total = float(p.own.view.log_prob(x, context).double().exp().sum())
    measured = f"the probabilities of all {len(x)} values add up to {total:.4f}"
    if abs(total - 1) < 1e-3:
        return _Outcome(OK, measured)
    return _Outcome(
        WRONG,
        measured,
        "an ensemble over orderings averaged as logits, a mask that lets an output see its own "
        "input, or an autoencoder without masks",
        "average probabilities, by log-sum-exp of log p; > in the last mask",
        (3, 4),
    )


def _links(p: _Patient) -> _Outcome:
    if not 2 <= p.dim <= 16:
        raise _NotTried("looked for in 2 to 16 dimensions")
    v = p.need("log_prob")
    version = p.shaken.some(3)
    v = version.view
    assert v.log_prob is not None
    linked = torch.zeros(p.dim, p.dim, dtype=torch.bool)
    for row, context in version.rows():
        for other in (0.3, 0.15):
            linked |= _moved(v, row, context, other, v.discrete)
    linked = linked | linked.T
    apart = [(i, j) for i in range(p.dim) for j in range(i) if not linked[i, j]]
    if not apart:
        return _Outcome(OK, "every two coordinates can depend on each other")
    pairs = ", ".join(f"{j} and {i}" for i, j in apart[:4])
    return _Outcome(
        NOTE,
        f"at shaken weights {len(apart)} of {p.dim * (p.dim - 1) // 2} pairs of coordinates do "
        f"not depend on each other, given the rest: {pairs}",
        "> in a mask between hidden layers (it is >= there), or too few layers for the "
        "alternating masks to link all",
        ">= between hidden layers, > at the output; two couplings more, or permutations",
        (3,),
    )


def _moved(v: View, row: Tensor, context: Tensor | None, by: float, flip: bool) -> Tensor:
    """Which slopes (of zeros and ones: differences) of the density change with which coordinate."""
    dim = row.numel()
    flat = row.flatten(1).expand(dim, -1)
    eye = torch.eye(dim, dtype=row.dtype, device=row.device)
    inward = 1.0 - 2.0 * (flat > 0.5)  # rows of pictures stay in [0, 1]
    step = 1 - 2 * flat if flip else by * inward
    moved = torch.cat([flat[:1], flat + step * eye])
    contexts = None if context is None else context.expand(len(moved), -1)
    assert v.log_prob is not None
    if flip:
        slopes = torch.stack(
            [
                v.log_prob((moved * (1 - e)).reshape(-1, *row.shape[1:]), contexts)
                - v.log_prob((moved * (1 - e) + e).reshape(-1, *row.shape[1:]), contexts)
                for e in eye
            ],
            1,
        )
    else:
        leaf = moved.reshape(-1, *row.shape[1:]).clone().requires_grad_()
        (slopes,) = torch.autograd.grad(v.log_prob(leaf, contexts).sum(), leaf)
    changes = (slopes.flatten(1)[1:] - slopes.flatten(1)[:1]).abs()
    return (changes > 1e-9 * changes.max()).cpu()


def _gradients(p: _Patient) -> _Outcome:
    version = p.shaken.some(32)
    named = [(n, q) for n, q in version.flow.named_parameters() if q.requires_grad]
    weights = torch.rand(len(version.x), dtype=version.x.dtype, device=version.x.device) + 0.1
    log_p = _density(version.view, version.x, version.context)
    if not log_p.requires_grad:
        raise _NotTried("its density has no gradient")
    grads = torch.autograd.grad((weights * log_p).sum(), [q for _, q in named], allow_unused=True)
    unreached = [n for (n, _), g in zip(named, grads, strict=True) if g is None or not g.any()]
    if unreached:
        return _Outcome(
            WRONG,
            f"{len(unreached)} of {len(named)} parameters have no gradient at shaken weights: "
            + ", ".join(unreached[:3]),
            "a detach, a layer that is not called, masks that leave nothing, or a ReLU after the "
            "last layer",
            "follow the first of these parameters to the output",
            (2, 3, 7),
        )
    if p.estimator is not None:
        return _estimated_gradient(p)
    # a row beside a kink needs a small step, a norm that is iterated a large one
    for nearer in (10.0, 1.0, 0.1, 0.01):
        direction = [torch.randn_like(q) for _, q in named]
        slope = sum(float((g * d).sum()) for g, d in zip(grads, direction, strict=True))
        numeric = _numeric_slope(version, named, direction, weights, nearer)
        apart = abs(slope - numeric) / max(1.0, abs(numeric))
        if apart < (1e-3 if version.eps < 1e-10 else 0.05):
            return _Outcome(OK, f"all {len(named)} parameters are reached, by the right amounts")
    return _wrong_gradient(f"along a random direction it is {slope:.4g}", numeric)


def _wrong_gradient(measured: str, numeric: float) -> _Outcome:
    return _Outcome(
        WRONG,
        f"of a weighted sum of log-densities {measured}, and the density changes by {numeric:.4g}",
        "a backward written by hand that takes all rows to count alike, a detach, or a value whose "
        "gradient is that of something else",
        "scale each row by its incoming gradient",
        (25,),
    )


def _numeric_slope(
    version: _Version,
    named: list[tuple[str, nn.Parameter]],
    direction: list[Tensor],
    weights: Tensor,
    nearer: float = 1.0,
    exact: bool = False,
) -> float:
    """Of the weighted log-density along a direction of the weights, by central differences."""
    step = version.eps ** (1 / 3) * 0.1 * nearer
    values = []
    with torch.no_grad():
        for sign in (1, -2):
            for (_, q), d in zip(named, direction, strict=True):
                q.add_(sign * step * d)
            if exact:
                with torch.enable_grad():
                    log_dets = _jacobians(version).log_dets
                values.append(float((weights * (log_dets + _base_part(version))).sum()))
            else:
                log_p = _density(version.view, version.x, version.context)
                values.append(float((weights * log_p).sum()))
        for (_, q), d in zip(named, direction, strict=True):
            q.add_(step * d)
    return float((values[0] - values[1]) / (2 * step))


def _base_part(version: _Version) -> Tensor:
    assert version.view.forward is not None
    if version.view.base_log_prob is None:
        return torch.zeros(len(version.x), dtype=version.x.dtype)
    return version.view.base_log_prob(version.view.forward(version.x, version.context)[0])


def _estimated_gradient(p: _Patient) -> _Outcome:
    """The mean of many gradients of an estimator against the exact density's."""
    if p.dim > 16:
        raise _NotTried("the exact gradient is too dear")
    assert p.estimator is not None
    by_size = p.shaken.x.flatten(1).norm(dim=1).argsort()
    three = by_size[[0, len(by_size) // 2, -1]]  # rows whose gradients differ
    context = None if p.shaken.context is None else p.shaken.context[three]
    version = p.estimator._replace(x=p.shaken.x[three], context=context)
    named = [(n, q) for n, q in version.flow.named_parameters() if q.requires_grad]
    weights = torch.tensor([0.1, 0.5, 2.4], dtype=version.x.dtype, device=version.x.device)
    direction = [torch.randn_like(q) for _, q in named]
    slopes: list[float] = []
    began = time.monotonic()
    while len(slopes) < LEAST or (time.monotonic() - began < SECONDS and len(slopes) < 4000):
        log_det = _mapped_by(version)[1] + _base_part(version)
        grads = torch.autograd.grad(
            (weights * log_det).sum(), [q for _, q in named], allow_unused=True
        )
        slopes.append(
            sum(
                float((g * d).sum()) for g, d in zip(grads, direction, strict=True) if g is not None
            )
        )
    numeric = _numeric_slope(version, named, direction, weights, exact=True)
    drawn = torch.tensor(slopes, dtype=torch.float64)
    mean, error = float(drawn.mean()), float(drawn.std() / math.sqrt(len(drawn)))
    truncated = any(isinstance(m, PowerSeries) for m in version.flow.modules())
    off = abs(mean - numeric)
    if off > SIGMAS * error + 0.03 * abs(numeric) and not truncated:
        return _wrong_gradient(f"the mean of {len(drawn)} is {mean:.4g} ± {error:.2g}", numeric)
    return _Outcome(
        OK, f"the mean of {len(drawn)} is {mean:.3g} ± {error:.1g}, the exact one {numeric:.3g}"
    )


def _units(p: _Patient) -> _Outcome:
    """Hidden units that no row reaches: a bias without gradient."""
    version = p.shaken
    found = {
        name: module.bias
        for name, module in version.flow.named_modules()
        if isinstance(getattr(module, "bias", None), nn.Parameter)
        and getattr(module, "weight", None) is not None
        and module.weight.dim() == 2
        and module.bias.requires_grad
    }
    if not found:
        raise _NotTried("it has no linear layers that are known as such")
    log_p = _density(version.view, version.x, version.context)
    weights = torch.rand_like(log_p) + 0.1
    grads = torch.autograd.grad((weights * log_p).sum(), list(found.values()), allow_unused=True)
    worst, share, size = "", 0.0, 0
    for (name, bias), grad in zip(found.items(), grads, strict=True):
        dead = 1.0 if grad is None else float((grad == 0).double().mean())
        if dead > share:
            worst, share, size = name, dead, bias.numel()
    if share <= 0.5:  # of ReLUs, a part is off at every row
        return _Outcome(OK, "every layer's units reach the density")
    return _Outcome(
        WRONG,
        f"{share:.0%} of the {size} units of {worst} change nothing at any row",
        "degrees of hidden units that reach D, or are a permutation of 1 to K: such units feed "
        "no output",
        "degrees drawn from 1 to D - 1 with replacement, or cyclic",
        (2,),
    )


def _last_layer(p: _Patient) -> _Outcome:
    version = p.shaken.some(8)
    if version.view.forward is None:
        raise _NotTried("the flow offers no forward")
    z, log_det = version.view.forward(version.x, version.context)
    roots = [t.grad_fn for t in (z, log_det) if t.grad_fn is not None]
    seen: set[Any] = set()
    stack = list(roots)
    while stack and len(seen) < WALK_DEPTH:
        node = stack.pop()
        kind = type(node).__name__
        if node in seen or kind.startswith(_PRODUCTS):
            continue
        seen.add(node)
        if kind.startswith("ReluBackward") or (
            kind.startswith("ThresholdBackward") and _fed_by_product(node)
        ):
            if not _fed_by_product(node):
                continue
            return _Outcome(
                WRONG,
                "a ReLU stands between the last layer of a network and the map",
                "an activation after the last layer of a conditioner: scales and shifts of 0 or "
                "more only",
                "no activation after the last layer",
                (7,),
            )
        stack += [parent for parent, _ in node.next_functions if parent is not None]
    return _Outcome(OK, "no ReLU stands after the last layer of a network")


_PRODUCTS = ("Addmm", "Mm", "Bmm", "Baddbmm", "Convolution", "Linear", "Mv", "Addmv")


def _fed_by_product(node: Any) -> bool:
    return any(
        type(parent).__name__.startswith(_PRODUCTS)
        for parent, _ in node.next_functions
        if parent is not None
    )


def _state(p: _Patient) -> _Outcome:
    if not _is_module(p.flow):
        raise _NotTried("it has no state_dict")
    if p.rebuild is None:
        return _hidden_tensors(p)
    fresh = p.rebuild()
    fresh.to(p.x.dtype)
    missing = fresh.load_state_dict(p.own.flow.state_dict(), strict=False)
    names = [*missing.missing_keys, *missing.unexpected_keys]
    loaded, kept = (p.version("", flow) for flow in (fresh, p.copied()))
    seed = torch.randint(2**31, ()).item()
    for training in (False, True):
        values = []
        for version in (kept, loaded):
            torch.manual_seed(seed)
            with torch.no_grad():
                if training:  # what starts from a batch must not start again
                    version.flow.train()
                    _mapped_by(version._replace(x=5 * version.x + 3))
                    version.flow.eval()
                values.append(_mapped_by(version))
        apart = max(_far_apart(a, b) for a, b in zip(*values, strict=True))
        if apart > max(1e-5, 100 * p.own.eps):
            when = "after a step in training " if training else ""
            return _Outcome(
                WRONG,
                f"a copy made anew and loaded from state_dict differs {when}by {apart:.2g}",
                "masks, permutations or the flag of a start from data are plain attributes"
                + (f"; keys that differ: {', '.join(names[:3])}" if names else ""),
                "register_buffer for all that is drawn or measured, flags included",
                (1, 27),
            )
    return _Outcome(OK, "a copy made anew and loaded from state_dict is the same flow")


def _hidden_tensors(p: _Patient) -> _Outcome:
    """Tensors that matter and that ``state_dict`` does not carry."""
    flow = p.copied().eval()
    version = p.own.some(8)._replace(flow=flow, view=view(flow))
    torch.manual_seed(0)
    with torch.no_grad():
        before = _mapped_by(version)[1]
        for name, tensor in _outside_of_state(flow):
            kept = tensor.clone()
            tensor.copy_(tensor.flatten().flip(0).reshape(tensor.shape))
            if torch.equal(kept, tensor):
                continue
            torch.manual_seed(0)
            try:
                changed = _far_apart(before, _mapped_by(version)[1]) > 1e-4
            except Exception:  # it can no longer be used: it matters
                changed = True
            tensor.copy_(kept)
            if changed:
                return _Outcome(
                    NOTE,
                    f"{name} decides on the density and is not in state_dict",
                    "a mask or permutation kept as a plain attribute: if it is drawn at random, a "
                    "flow loaded from state_dict is another one",
                    "register_buffer; or give rebuild=, and it is tried",
                    (1, 27),
                )
    return _Outcome(OK, "no tensor outside of state_dict decides on the density")


def _outside_of_state(flow: nn.Module) -> Iterator[tuple[str, Tensor]]:
    own = {"_parameters", "_buffers", "_modules"}
    for prefix, module in flow.named_modules():
        for name, value in vars(module).items():
            items = value if isinstance(value, list | tuple) else [value]
            for item in items if name not in own else ():
                if isinstance(item, Tensor) and item.numel() > 1 and not item.requires_grad:
                    yield f"{prefix}.{name}".strip("."), item


def _data(p: _Patient) -> _Outcome:
    if p.own.view.discrete:
        raise _NotTried("its values are zeros and ones")
    found = columns.faults(p.all_x)
    if found:
        return _Outcome(
            NOTE,
            " ".join(found),
            "a density on a line or a lattice can be as high as a flow likes",
            "drop such columns, or add the noise that their rounding took away",
            (28,),
        )
    return _Outcome(OK, "every column has a density")


def _latents(p: _Patient) -> _Outcome:
    v = p.need("forward", "base_sample")
    assert v.forward is not None
    assert v.base_sample is not None
    with torch.no_grad():
        z, _ = v.forward(p.own.x, p.own.context)
        found = far_from(z, v.base_sample(1000))
    if found.off.any():
        return _Outcome(
            NOTE,
            f"the data are far from the base: {found.first()}",
            "a flow that does not know the units of its data, or running statistics from zero",
            "an ActNorm in front, or standardize the columns",
            (13,),
        )
    return _Outcome(OK, "the data lie where the base is")


def _context(p: _Patient) -> _Outcome:
    if p.context is None:
        raise _NotTried("there is no context")
    version = p.shaken
    assert version.context is not None
    with torch.no_grad():
        before = _density(version.view, version.x, version.context)
        ignored = []
        for k in range(version.context.shape[1]):
            moved = version.context.clone()
            moved[:, k] = moved[:, k].roll(1) + 1
            if torch.equal(before, _density(version.view, version.x, moved)):
                ignored.append(k)
    if ignored:
        return _Outcome(
            WRONG,
            f"at shaken weights the density does not change with column {ignored[0]} of the "
            f"context ({len(ignored)} of {version.context.shape[1]} columns)",
            "a context that is not passed on, or masked as if it were an input",
            "the context goes to every unit, unmasked",
            (8,),
        )
    return _Outcome(OK, "the density changes with every column of the context")


def _bits(p: _Patient) -> _Outcome:
    if p.bits_per_dim is None:
        raise _NotTried("bits_per_dim was not given")
    v = p.need("log_prob")
    assert v.log_prob is not None
    with torch.no_grad():
        log_p = v.log_prob(p.own.x, p.own.context)
        said = torch.as_tensor(p.bits_per_dim(p.own.x)).double()
    unit = float(p.own.x.min()) >= 0 and float(p.own.x.max()) <= 1
    shift = math.log2(p.levels) if unit else 0.0
    true = -log_p.double() / (p.dim * math.log(2)) + shift
    true = true.mean() if said.dim() == 0 else true
    apart = float((said - true).mean())
    units = f"numbers in [0, 1] with {p.levels} levels" if unit else "whole levels"
    if abs(apart) < 1e-3:
        return _Outcome(OK, f"bits per dimension are those of {units}")
    return _Outcome(
        WRONG,
        f"they are off by {apart:+.3g}: the mean should be {float(true.mean()):.4g} for {units}",
        f"a shift of log2({p.levels}) for another unit of the pixels, nats for bits, or a sign",
        "one function: -log p / (D log 2), with log p in units of whole levels",
        (28,),
    )


_LINES: dict[str, Callable[[_Patient], _Outcome]] = {
    "input": _input,
    "shapes": _shape,
    "finite": _finite,
    "repeatable": _repeatable,
    "rows": _rows,
    "modes": _modes,
    "log-determinant": _log_det,
    "estimate": _estimate,
    "round trip": _round_trip,
    "one sign": _sign,
    "draws": _draws,
    "integral": _integral,
    "links": _links,
    "gradients": _gradients,
    "hidden units": _units,
    "last layer": _last_layer,
    "state": _state,
    "context": _context,
    "columns": _data,
    "latents": _latents,
    "bits": _bits,
}
