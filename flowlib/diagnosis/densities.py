"""Lines about the density: draws, its integral, what depends on what, the data, its unit.

Each function is one line of the report. A line that cannot be tried raises ``NotTried``.
"""

from __future__ import annotations

import itertools
import math

import torch
from scipy import stats
from torch import Tensor

from flowlib import columns
from flowlib.adapters import View
from flowlib.diagnosis.findings import NOTE, OK, WRONG, NotTried, Outcome
from flowlib.diagnosis.patient import MANY, SIGMAS, Patient
from flowlib.diagnosis.versions import Version, density, far_apart
from flowlib.units import far_from

__all__ = [
    "bits",
    "columns_of_data",
    "context_used",
    "draws",
    "integral",
    "latents",
    "links",
]

FEW = 8  # coordinates up to which a density is integrated


def draws(p: Patient) -> Outcome:
    p.need("sample", "log_prob")
    if p.own.view.discrete:
        raise NotTried("its values are zeros and ones: see the integral")
    version = p.own if p.is_dear else _that_draws(p)
    v, context = version.view, None if version.context is None else version.context[0]
    assert v.sample is not None
    assert v.log_prob is not None
    n = 500 if p.dim <= 16 else 64 if p.dim <= MANY else p.n_double
    few = min(n, 64 if p.dim <= MANY else 8)  # whose densities are compared
    rows = None if context is None else context.expand(n, -1)
    first = None if rows is None else rows[:few]
    if v.draws_with_density is not None and p.estimator is None:
        with torch.no_grad():
            x, said = v.draws_with_density(few, context)
            true = v.log_prob(x, first)
        apart = far_apart(true, said.reshape(true.shape))
        if not apart <= 1e-2 and not apart <= 1e3 * version.eps * p.condition:
            return Outcome(
                WRONG,
                f"draws come with log-densities that differ from log_prob by up to {apart:.2g}",
                "log q without log|det dx/dz|: an evidence bound above the evidence",
                "log q(x) = log p_Z(z) - log|det dx/dz|",
                (10,),
            )
    if v.forward is None or v.base_sample is None or v.base_log_prob is None:
        return Outcome(OK, "draws carry the density that log_prob gives them")
    with torch.no_grad():
        x = v.sample(n, context)
        z, log_det = v.forward(x, rows)
        logs = v.base_log_prob(z)
        if p.estimator is None:
            apart = far_apart(v.log_prob(x[:few], first), (logs + log_det)[:few])
            if apart > 1e-3:
                return Outcome(
                    WRONG,
                    f"log_prob differs from log p_Z(f(x)) + log|det| by up to {apart:.2g}",
                    "a term left out, or a unit: pixels for numbers in [0, 1]",
                    "log p(x) = log p_Z(f(x)) + log|det df/dx|, and bits in one function",
                    (11, 28),
                )
        if p.is_dear:
            return Outcome(OK, "the density of draws is that of the base and the map")
        base = v.base_sample(n if p.dim <= MANY else 1000)
    latents = zip(z.flatten(1).T[:16], base.flatten(1).T[:16], strict=True)
    pairs = [(logs, v.base_log_prob(base).detach()), *latents]
    least = min(float(stats.ks_2samp(*(s.cpu().numpy() for s in pair)).pvalue) for pair in pairs)
    if least < 1e-6 / len(pairs):
        return Outcome(
            WRONG,
            f"draws taken to the latent side are not draws of the base (p = {least:.0e})",
            "sampling goes through another map than the density: a wrong inverse, a base with "
            "another scale, or draws that are clipped",
            "sample is the inverse of forward on the base's draws, and nothing else",
            (5, 9),
        )
    return Outcome(OK, f"{n} draws taken to the latent side look like the base's")


def _that_draws(p: Patient) -> Version:
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


def integral(p: Patient) -> Outcome:
    v = p.need("log_prob")
    assert v.log_prob is not None
    if v.discrete:
        return _sum(p)
    if p.dim > FEW:
        raise NotTried(f"a density in more than {FEW} dimensions is too wide to integrate")
    n = 2000 if p.estimator is None else 500
    context = None if p.own.context is None else p.own.context[:1].expand(n, -1)
    with torch.no_grad():
        if v.sample is not None:
            centers = v.sample(n, None if context is None else context[0])
        elif context is None:
            centers = p.own.x[torch.randint(len(p.own.x), (n,))]
        else:
            raise NotTried("it neither samples nor are there many rows of one context")
        near, log_r = _spread(centers.flatten(1), n)
        try:
            log_p = v.log_prob(near.reshape(n, *p.x.shape[1:]), context)
        except ValueError as edge:
            raise NotTried(f"its domain has an edge: {edge}") from edge
    weights = (log_p.double() - log_r).exp()
    mean, error = float(weights.mean()), float(weights.std() / math.sqrt(n))
    effective = float(weights.sum() ** 2 / (weights**2).sum())
    if effective < 0.05 * n:
        raise NotTried("its draws do not cover its density well enough to integrate it")
    measured = f"the density integrates to {mean:.3f}, standard error {error:.3f}"
    if abs(mean - 1) < max(SIGMAS * error, 0.02):
        return Outcome(OK, measured)
    if p.condition * p.own.eps > 1:
        raise NotTried(f"rounding moves its draws: the condition number is {p.condition:.1g}")
    return Outcome(
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


def _sum(p: Patient) -> Outcome:
    if p.dim > 12:
        raise NotTried(f"2^{p.dim} values are too many to sum")
    assert p.own.view.log_prob is not None
    cube = torch.tensor(list(itertools.product((0.0, 1.0), repeat=p.dim)))
    x = cube.to(p.x).reshape(-1, *p.x.shape[1:])
    context = None if p.own.context is None else p.own.context[:1].expand(len(x), -1)
    with torch.no_grad():
        total = float(p.own.view.log_prob(x, context).double().exp().sum())
    measured = f"the probabilities of all {len(x)} values add up to {total:.4f}"
    if abs(total - 1) < 1e-3:
        return Outcome(OK, measured)
    return Outcome(
        WRONG,
        measured,
        "an ensemble over orderings averaged as logits, a mask that lets an output see its own "
        "input, or an autoencoder without masks",
        "average probabilities, by log-sum-exp of log p; > in the last mask",
        (3, 4),
    )


def links(p: Patient) -> Outcome:
    if not 2 <= p.dim <= 16:
        raise NotTried("looked for in 2 to 16 dimensions")
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
        return Outcome(OK, "every two coordinates can depend on each other")
    pairs = ", ".join(f"{j} and {i}" for i, j in apart[:4])
    return Outcome(
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


def columns_of_data(p: Patient) -> Outcome:
    if p.own.view.discrete:
        raise NotTried("its values are zeros and ones")
    found = columns.faults(p.all_x, p.names.x)
    if p.context is not None:
        found += columns.shared(p.x, p.context, *p.names)
    if found:
        return Outcome(
            NOTE,
            " ".join(found),
            "a density on a line or a lattice can be as high as a flow likes",
            "drop such columns, or add the noise that their rounding took away",
            (28,),
        )
    return Outcome(OK, "every column has a density")


def latents(p: Patient) -> Outcome:
    v = p.need("forward", "base_sample")
    if p.n_many < min(len(p.x), 16):
        raise NotTried(f"its rows take long: {p.n_many} of them are too few")
    assert v.forward is not None
    assert v.base_sample is not None
    with torch.no_grad():
        z, _ = v.forward(p.many.x, p.many.context)
        found = far_from(z, v.base_sample(1000))
    if found.off.any():
        return Outcome(
            NOTE,
            f"the data are far from the base: {found.first()}",
            "a flow that does not know the units of its data, or running statistics from zero",
            "an ActNorm in front, or standardize the columns; if it has been fitted to other data, "
            "make the flow anew",
            (13,),
        )
    return Outcome(OK, "the data lie where the base is")


def context_used(p: Patient) -> Outcome:
    if p.context is None:
        raise NotTried("there is no context")
    version = p.shaken.some(p.n_many)
    assert version.context is not None
    with torch.no_grad():
        before = density(version.view, version.x, version.context)
        ignored = []
        for k in range(version.context.shape[1]):
            moved = version.context.clone()
            moved[:, k] = moved[:, k].roll(1) + 1
            if torch.equal(before, density(version.view, version.x, moved)):
                ignored.append(k)
    if ignored:
        name = columns.column_name(ignored[0], p.names.context, version.context.shape[1:])
        return Outcome(
            WRONG,
            f"at shaken weights the density does not change with {name} of the "
            f"context ({len(ignored)} of {version.context.shape[1]} columns)",
            "a context that is not passed on, or masked as if it were an input",
            "the context goes to every unit, unmasked",
            (8,),
        )
    return Outcome(OK, "the density changes with every column of the context")


def bits(p: Patient) -> Outcome:
    if p.bits_per_dim is None:
        raise NotTried("bits_per_dim was not given")
    v = p.need("log_prob")
    assert v.log_prob is not None
    with torch.no_grad():
        log_p = v.log_prob(p.many.x, p.many.context)
        said = torch.as_tensor(p.bits_per_dim(p.many.x)).double()
    unit = float(p.own.x.min()) >= 0 and float(p.own.x.max()) <= 1
    shift = math.log2(p.levels) if unit else 0.0
    true = -log_p.double() / (p.dim * math.log(2)) + shift
    true = true.mean() if said.dim() == 0 else true
    apart = float((said - true).mean())
    units = f"numbers in [0, 1] with {p.levels} levels" if unit else "whole levels"
    if abs(apart) < 1e-3:
        return Outcome(OK, f"bits per dimension are those of {units}")
    return Outcome(
        WRONG,
        f"they are off by {apart:+.3g}: the mean should be {float(true.mean()):.4g} for {units}",
        f"a shift of log2({p.levels}) for another unit of the pixels, nats for bits, or a sign",
        "one function: -log p / (D log 2), with log p in units of whole levels",
        (28,),
    )
