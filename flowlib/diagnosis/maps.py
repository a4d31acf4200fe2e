"""Lines about the map: its log-determinant against the Jacobian's, and the way there and back.

Each function is one line of the report. A line that cannot be tried raises ``NotTried``.
"""

from __future__ import annotations

import math

import torch

from flowlib.adapters import view
from flowlib.diagnosis.findings import NOTE, OK, WRONG, NotTried, Outcome
from flowlib.diagnosis.jacobians import Jacobians, jacobians_of
from flowlib.diagnosis.patient import MANY, MOST, SIGMAS, Patient, drawn
from flowlib.diagnosis.versions import Version, far_apart, mapped_by, outward
from flowlib.iresnet import PowerSeries

__all__ = ["estimate", "log_determinant", "one_sign", "round_trip"]


def log_determinant(p: Patient) -> Outcome:
    worst = 0.0
    for found in p.jacobians:
        error = (found.said - found.log_dets).abs()
        scale = found.log_dets.abs().clamp(min=1)
        eps = found.version.eps
        tolerance = max(1e-8, 1e3 * eps * found.condition, 20 * math.sqrt(eps) * (eps > 1e-10))
        off = float((error / scale).max())
        worst = max(worst, off)
        if not off <= tolerance:
            if p.within_one_draw(float(error.max())):
                return Outcome(
                    OK,
                    f"an estimate, within {float(error.max()):.2g} of autodiff {found.version.what}"
                    "; its bias is judged below",
                )
            return _off(found)
    where = " and at shaken weights" if len(p.jacobians) > 1 else ""
    return Outcome(
        OK, f"agrees with autodiff to {_rounded(worst)}, {p.jacobians[0].version.what}{where}"
    )


def _rounded(error: float) -> str:
    return f"{10 ** math.ceil(math.log10(max(error, 1e-14))):.0e}"


def _off(found: Jacobians) -> Outcome:
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
    return Outcome(WRONG, measured + layer, cause, cure, rows)


def _culprit(version: Version) -> str:
    """Which layer of a sequence is off, if the flow is a sequence."""
    steps = getattr(getattr(version.flow, "bijection", version.flow), "bijections", None)
    if steps is None:
        return ""
    few = version.some(2 if version.x[0].numel() <= MANY else 1)
    x, context = few.x, few.context
    if hasattr(version.flow, "in_own_units"):
        context = version.flow.in_own_units(context)
    for k, step in enumerate(steps):
        found = jacobians_of(Version("", step, view(step), x.detach(), context))
        error = (found.said - found.log_dets).abs().max()
        if not error <= max(1e-8, 1e3 * version.eps * found.condition):
            return f" (layer {k}, {type(step).__name__}, is off by {float(error):.2g})"
        with torch.no_grad():
            x = step(x, context)[0]
    return ""


def estimate(p: Patient) -> Outcome:
    if p.estimator is None:
        raise NotTried("the log-determinant is not drawn at random")
    if p.dim > MOST:
        raise NotTried("its exact value is too dear")
    version = p.estimator.some(4 if p.dim <= MANY else 1)
    with torch.no_grad():
        draws = drawn(lambda: mapped_by(version)[1])
    exact = jacobians_of(version).log_dets
    errors = (torch.stack(draws) - exact).mean(1)  # rows may share their draws: a call is one
    bias, error = float(errors.mean()), float(errors.std() / math.sqrt(len(errors)))
    measured = f"bias {bias:+.2g}, standard error {error:.2g}, over {len(errors)} calls"
    if not abs(bias) > SIGMAS * error:
        return Outcome(OK, measured)
    truncated = any(isinstance(m, PowerSeries) for m in version.flow.modules())
    if truncated:
        return Outcome(
            NOTE,
            measured,
            "a power series that is cut off: its bias is bounded, and known",
            "more terms, or RussianRoulette, which has none",
            (23,),
        )
    return Outcome(
        WRONG,
        measured,
        "probes with a mean, weights of the terms that do not match how many are drawn (the "
        "geometric tail off by one), a series without 1/k or with the sign (-1)^k, a bound on "
        "the branch that does not hold, or the scalar of the Neumann gradient reported as a value",
        "probes with E[v v^T] = I; divide term k by P(N >= k); report the value's own series",
        (16, 17, 20, 21, 22, 23, 24),
    )


def round_trip(p: Patient) -> Outcome:
    p.need("forward", "inverse")
    worst = 0.0
    n = 32 if p.dim <= MANY else 1 if p.is_dear else 2
    for version in p.fewer_versions() if p.is_slow else p.versions():
        far = version.some(4 if p.dim <= MANY else 1)
        far = far._replace(x=outward(far.x, 3.0))
        near = version.some(n)
        for where, tried in (("", near), (" far from the data", far))[: 1 if p.is_slow else 2]:
            try:
                error, log_dets = _there_and_back(tried)
                tolerance = _tolerance(p, tried, where, error, log_dets)
            except ValueError:
                if where:
                    continue  # outside of its domain, or beyond the numbers' range
                raise
            if tolerance is None:
                continue  # no number comes back from there
            worst = max(worst, error)
            if not error <= tolerance:
                return _not_invertible(p, f"{version.what}{where}", error)
            if p.estimator is None and not log_dets <= tolerance * 10:
                return Outcome(
                    WRONG,
                    f"{version.what}{where} the log-determinants of a map and of its inverse add "
                    f"up to {log_dets:.2g}, not to 0",
                    "the inverse returns the log-determinant of the forward map, or leaves it out",
                    "the inverse's is minus the forward's at the matching point",
                    (6, 10),
                )
    error, _ = _there_and_back(p.own.some(16 if p.dim <= MANY else min(n, 2)))
    if error > 0.01:
        return Outcome(
            NOTE,
            f"in {str(p.own.x.dtype)[6:]} data come back with an error of {error:.2g}; the largest "
            f"condition number seen is {p.condition:.1g}",
            "a map that stretches one direction much more than another",
            "flow.double(), or fewer and gentler layers",
        )
    return Outcome(OK, f"x to z to x within {_rounded(max(worst, error))}, and back")


CLOSE = 1e-3  # an error on the way there and back that is small for any map


def _tolerance(
    p: Patient, tried: Version, where: str, error: float, log_dets: float
) -> float | None:
    """What rounding can do to the way there and back; None where no number survives it.

    The condition is asked for only where it decides.
    """
    if error <= CLOSE and (p.estimator is not None or log_dets <= CLOSE * 10):
        return CLOSE
    condition = p.condition
    if where:
        p.n_graded(1)
        condition = jacobians_of(tried).condition
    return None if condition > 1e12 else max(CLOSE, 1e3 * tried.eps * condition)


def _there_and_back(version: Version) -> tuple[float, float]:
    """The largest error of both round trips, and of the two log-determinants' sum."""
    v, context = version.view, version.context
    assert v.forward is not None
    assert v.inverse is not None
    with torch.no_grad():
        z, log_det = v.forward(version.x, context)
        back, inverse_log_det = v.inverse(z, context)
        again, _ = v.forward(back, context)
    error = max(far_apart(version.x, back), far_apart(z, again))
    if inverse_log_det is None:
        return error, 0.0
    return error, far_apart(log_det, -inverse_log_det)


def _not_invertible(p: Patient, where: str, error: float) -> Outcome:
    return Outcome(
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


def one_sign(p: Patient) -> Outcome:
    told = [j for j in p.jacobians if j.condition * j.version.eps < 1e-3 or (j.signs == 0).any()]
    if not told:
        raise NotTried(f"rounding hides it: the condition number is {p.condition:.1g}")
    for found in told:
        if len(set(found.signs.tolist())) > 1 or (found.signs == 0).any():
            return Outcome(
                WRONG,
                f"{found.version.what} the determinant is positive at some rows and not at others",
                "the map folds: a residual branch with a norm above 1, by its spectral radius "
                "taken for its norm or its kernel for its operator; or a scale that may be zero",
                "normalize by the largest singular value of the true operator; exp(s) for s",
                (5, 16, 17, 20),
            )
    return Outcome(OK, "the determinant has one sign")
