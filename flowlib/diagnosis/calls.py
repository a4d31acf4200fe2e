"""Lines about calls: whether a flow leaves its input alone, keeps rows and modes apart, is finite.

Each function is one line of the report. A line that cannot be tried raises ``NotTried``.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from flowlib.adapters import view
from flowlib.diagnosis.findings import NOTE, OK, WRONG, NotTried, Outcome
from flowlib.diagnosis.patient import MANY, Patient, is_module
from flowlib.diagnosis.versions import Version, density, far_apart, mapped_by, outward

__all__ = ["finite", "modes", "repeatable", "rows", "shapes", "untouched"]


def untouched(p: Patient) -> Outcome:
    changed = ""
    for name, call in p.calls.items():
        before, after = call.before, call.after
        if not torch.equal(before, after) and not before.isnan().any():
            changed = f"{name} changed {int((before != after).sum())} of {after.numel()} numbers"
    if not changed:
        return Outcome(OK, "the caller's tensors are untouched")
    return Outcome(
        WRONG,
        f"{changed} of the caller's tensor",
        "an operation in place (x[:, half] = ..., x *= ..., add_) on an argument",
        "clone first, or build the result with torch.cat or torch.where",
        (15,),
    )


def shapes(p: Patient) -> Outcome:
    for name, call in p.calls.items():
        numbers = call.made if isinstance(call.made, Tensor) else call.made[1]
        n = len(call.before)
        if numbers is not None and numbers.shape != (n,):
            return Outcome(
                WRONG,
                f"{name} gives {tuple(numbers.shape)} for {n} rows, not one number a row",
                "a sum over the whole batch, or over no dimension",
                "log_det.flatten(1).sum(1): over the event, never over the batch",
                (6,),
            )
    return Outcome(OK, "one log-determinant and one density a row")


def finite(p: Patient) -> Outcome:
    with torch.no_grad():
        log_p = density(p.many.view, p.many.x, p.many.context)
    bad = ~log_p.isfinite()
    if bad.any():
        return Outcome(
            WRONG,
            f"{int(bad.sum())} of {len(log_p)} rows of the data have a density of "
            f"{log_p[bad][0].item()}",
            "an exp of a log-scale without a bound, a logarithm or logit at the edge of its domain",
            "bound log-scales on both sides, by the same map both ways; map the edge inside first, "
            "as alpha + (1 - 2 alpha) x does before a logit",
            (5, 26),
        )
    for times in (3.0, 10.0) if p.dim <= MANY else (10.0,):
        try:
            with torch.no_grad():
                x = outward(p.own.x, times)[: len(p.many.x)]
                far = density(p.many.view, x, p.many.context)
        except ValueError:  # outside of its domain, and it says so
            return Outcome(OK, "finite at the data; points outside of the domain are refused")
        if not far.isfinite().all():
            return Outcome(
                NOTE,
                f"finite at the data; {times:g} times as far from their mean "
                f"{int((~far.isfinite()).sum())} of {len(far)} densities are not",
                "an exp of a log-scale that grows with the input",
                "bound log-scales on both sides",
                (26,),
            )
    return Outcome(OK, "finite at the data, and at ten times their distance from the mean")


def repeatable(p: Patient) -> Outcome:
    with torch.no_grad():
        known = p.calls.get("forward")
        z, log_det = mapped_by(p.few) if known is None else known.made
        again, other = mapped_by(p.few)
    moved = far_apart(z, again)
    if p.few.view.forward is not None and moved > 1e-6:
        return Outcome(
            WRONG,
            f"in evaluation two equal calls give latents that differ by {moved:.2g}",
            "masks or permutations drawn anew in every call, dropout left on, or a power "
            "iteration that still runs in evaluation",
            "draw structure once and keep it in buffers; freeze norms when eval() is called",
            (1, 18),
        )
    apart = float((log_det - other).abs().max())
    if apart > 1e-6 * max(1.0, float(log_det.abs().max())):
        return Outcome(
            NOTE,
            f"in evaluation two equal calls give densities that differ by {apart:.2g}",
            "a log-determinant that is estimated with fresh draws in evaluation, too",
            "report a mean over draws with its standard error, or fix the draws in evaluation",
            (18,),
        )
    return Outcome(OK, "two equal calls agree")


def _coupled(version: Version, n: int) -> tuple[float, float]:
    """How much a row's latents and its values change with the rest of its batch."""
    few = version.some(n)
    with torch.no_grad():
        whole = mapped_by(few)
        singles = [mapped_by(few._replace(x=x, context=c)) for x, c in few.rows()]
        apart = []
        for k, part in enumerate(zip(*singles, strict=True)):
            alone = far_apart(whole[k], torch.cat(part))
            if not math.isfinite(alone):  # one row alone has no variance: a pair
                alone = far_apart(whole[k][:2], mapped_by(few.some(2))[k])
            apart.append(alone)
    return apart[0], apart[1]


def rows(p: Patient) -> Outcome:
    if p.estimator is not None and not _same_estimate(p.own):
        raise NotTried("the log-determinant is drawn anew in each call")
    latents, values = _coupled(p.own, 6 if p.dim <= MANY else 2)
    apart = max(latents, values)
    tolerance = 1e-4 if apart < 1e-4 else max(1e-4, 100 * p.own.eps * p.condition)
    if apart < tolerance:
        return Outcome(OK, "a row's density does not depend on the other rows")
    if latents < tolerance and p.within_one_draw(values):
        return Outcome(
            NOTE,
            f"in evaluation a row's density changes by {values:.2g} with its batch; its latents "
            "do not",
            "an estimated log-determinant whose probes depend on a row's place in its batch",
            "take differences between rows of one batch as no more exact than that",
        )
    return Outcome(
        WRONG,
        f"in evaluation a row's value changes by {apart:.2g} with the other rows of its batch",
        "batch statistics inside a conditioner or a residual branch, or a normalization that "
        "ignores eval()",
        "ActNorm, or batch norm as a bijection between the layers with running statistics",
        (12,),
    )


def _same_estimate(version: Version) -> bool:
    with torch.no_grad():
        return bool(torch.equal(mapped_by(version.some(2))[1], mapped_by(version.some(2))[1]))


def modes(p: Patient) -> Outcome:
    if not is_module(p.flow):
        raise NotTried("it has no mode of training")
    flow = p.copied().train()
    some = p.own.some(3) if p.is_dear else p.few
    trained = some._replace(flow=flow, view=view(flow))
    with torch.no_grad():
        mapped_by(trained)  # what starts from a first batch has started
        flow.eval()
        evaluated, _ = mapped_by(trained)
        flow.train()
        z, _ = mapped_by(trained)
        coupled = _is_coupled(trained, z)
    inside = [name for name, m in flow.named_modules() if isinstance(m, _BATCH_NORMS)]
    if coupled and inside:
        return Outcome(
            WRONG,
            f"in training the latents of a row depend on its batch, by {inside[0]}",
            "torch's batch norm inside a conditioner or a branch: its determinant is in no "
            "log-det, and training and evaluation are different maps",
            "no normalization inside, or ActNorm",
            (12,),
        )
    if coupled:
        return Outcome(
            NOTE,
            "in training the latents of a row depend on its batch",
            "batch statistics: right between layers, as long as evaluation uses running ones",
            "report densities in evaluation only; inside a conditioner use none of it",
            (12, 13),
        )
    if p.few.view.forward is not None and (apart := far_apart(z, evaluated)) > 0.01:
        return Outcome(
            NOTE,
            f"training and evaluation are different maps: latents differ by up to {apart:.2g}",
            "dropout, or statistics and norms that are not at rest yet",
            "report densities in evaluation only",
            (12, 13, 18),
        )
    return Outcome(OK, "training and evaluation are one map")


_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


def _is_coupled(version: Version, z: Tensor) -> bool:
    """Whether some of the rows alone have other latents than with the rest of their batch."""
    if version.view.forward is None:
        return False
    half = version.some(max(2, len(version.x) // 2))
    other = mapped_by(half)[0]
    apart = far_apart(z[: len(other)], other)
    return apart > 1e-3 and apart > 3 * far_apart(other, mapped_by(half)[0])
