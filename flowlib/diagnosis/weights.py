"""Lines about weights: gradients, units that reach nothing, what a saved state carries.

Each function is one line of the report. A line that cannot be tried raises ``NotTried``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from flowlib.adapters import view
from flowlib.diagnosis.findings import NOTE, OK, WRONG, NotTried, Outcome
from flowlib.diagnosis.jacobians import jacobians_of
from flowlib.diagnosis.patient import MANY, SIGMAS, Patient, drawn, is_module
from flowlib.diagnosis.versions import Version, density, far_apart, mapped_by
from flowlib.iresnet import PowerSeries
from flowlib.saving import Recorded, remake

__all__ = ["gradients", "hidden_units", "last_layer", "state"]

DIRECTIONS = 8  # of the weights, along which an estimator's gradient is judged
WALK_DEPTH = 100_000  # nodes of an autograd graph


def gradients(p: Patient) -> Outcome:
    version = p.shaken.some(p.n_graded(p.n_double))
    named = [(n, q) for n, q in version.flow.named_parameters() if q.requires_grad]
    weights = torch.rand(len(version.x), dtype=version.x.dtype, device=version.x.device) + 0.1
    log_p = density(version.view, version.x, version.context)
    if not log_p.requires_grad:
        raise NotTried("its density has no gradient")
    grads = torch.autograd.grad((weights * log_p).sum(), [q for _, q in named], allow_unused=True)
    missed = {n: q for (n, q), g in zip(named, grads, strict=True) if g is None or not g.any()}
    if missed:  # in a long chain a draw of the weights may leave a layer without a unit that is on
        little = p.moved_little.some(len(version.x))
        parameters = dict(little.flow.named_parameters())
        again = torch.autograd.grad(
            density(little.view, little.x, little.context).sum(),
            [parameters[n] for n in missed],
            allow_unused=True,
        )
        found = zip(missed.items(), again, strict=True)
        missed = {n: q for (n, q), g in found if g is None or not g.any()}
    unreached = list(missed)
    if all(q.numel() == 1 for q in missed.values()) and unreached:
        return Outcome(
            NOTE,
            f"{len(unreached)} parameters of one number have no gradient: "
            + ", ".join(unreached[:3]),
            "settings that are kept as parameters, or a scale that is not used",
            "a buffer for what is not trained",
        )
    if unreached:
        return Outcome(
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
    # a row beside a kink needs a small step, and so do many steep layers; a norm that is iterated
    # needs a large one
    for nearer in (10.0, 1.0, 0.1, 0.01, 1e-3, 1e-4):
        direction = [torch.randn_like(q) for _, q in named]
        slope = sum(float((g * d).sum()) for g, d in zip(grads, direction, strict=True))
        numeric = _numeric_slope(version, named, direction, weights, nearer)
        apart = abs(slope - numeric) / max(1.0, abs(numeric))
        if apart < (1e-3 if version.eps < 1e-10 else 0.05):
            return Outcome(OK, f"all {len(named)} parameters are reached, by the right amounts")
    return _wrong_gradient(f"along a random direction it is {slope:.4g}", numeric)


def _wrong_gradient(measured: str, numeric: float) -> Outcome:
    return Outcome(
        WRONG,
        f"of a weighted sum of log-densities {measured}, and the density changes by {numeric:.4g}",
        "a backward written by hand that takes all rows to count alike, a detach, or a value whose "
        "gradient is that of something else",
        "scale each row by its incoming gradient",
        (25,),
    )


def _numeric_slope(
    version: Version,
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
                    log_dets = jacobians_of(version).log_dets
                values.append(float((weights * (log_dets + _base_part(version))).sum()))
            else:
                log_p = density(version.view, version.x, version.context)
                values.append(float((weights * log_p).sum()))
        for (_, q), d in zip(named, direction, strict=True):
            q.add_(step * d)
    return float((values[0] - values[1]) / (2 * step))


def _base_part(version: Version) -> Tensor:
    assert version.view.forward is not None
    if version.view.base_log_prob is None:
        return torch.zeros(len(version.x), dtype=version.x.dtype)
    return version.view.base_log_prob(version.view.forward(version.x, version.context)[0])


def _estimated_gradient(p: Patient) -> Outcome:
    """The mean of many gradients of an estimator against the exact density's."""
    if p.dim > 16:
        raise NotTried("the exact gradient is too dear")
    assert p.estimator is not None
    by_size = p.shaken.x.flatten(1).norm(dim=1).argsort()
    three = by_size[[0, len(by_size) // 2, -1]]  # rows whose gradients differ
    context = None if p.shaken.context is None else p.shaken.context[three]
    version = p.estimator._replace(x=p.shaken.x[three], context=context)
    named = [(n, q) for n, q in version.flow.named_parameters() if q.requires_grad]
    weights = torch.tensor([0.1, 0.5, 2.4], dtype=version.x.dtype, device=version.x.device)
    # one direction alone may be one along which a wrong gradient is right
    directions = [[torch.randn_like(q) for _, q in named] for _ in range(DIRECTIONS)]
    across = torch.stack([torch.cat([d.flatten() for d in ds]) for ds in directions])

    def slopes() -> Tensor:
        log_p = mapped_by(version)[1] + _base_part(version)
        parameters = [q for _, q in named]
        grads = torch.autograd.grad((weights * log_p).sum(), parameters, materialize_grads=True)
        return across @ torch.cat([g.flatten() for g in grads])

    found = torch.stack(drawn(slopes))
    means, errors = found.mean(0).tolist(), (found.std(0) / math.sqrt(len(found))).tolist()
    numeric = [_numeric_slope(version, named, d, weights, exact=True) for d in directions]
    truncated = any(isinstance(m, PowerSeries) for m in version.flow.modules())
    for mean, error, true in zip(means, errors, numeric, strict=True):
        if abs(mean - true) > SIGMAS * error + 0.03 * abs(true) and not truncated:
            return _wrong_gradient(f"the mean of {len(found)} is {mean:.4g} ± {error:.2g}", true)
    return Outcome(
        OK,
        f"the mean of {len(found)} is {means[0]:.3g} ± {errors[0]:.1g} along a direction, and the "
        f"exact one {numeric[0]:.3g}",
    )


def hidden_units(p: Patient) -> Outcome:
    """Hidden units that no row reaches: a bias without gradient."""
    n = p.n_graded(p.n_many)
    if n < min(len(p.x), 16):
        raise NotTried(f"its rows are large, or take long: {n} of them are too few")
    dead = _dead_units(p.shaken.some(n))
    if not dead:
        raise NotTried("it has no linear layers that are known as such")
    worst = max(dead, key=lambda name: float(dead[name].mean()))
    if dead[worst].mean() > 0.5:  # large weights may saturate what a mask does not cut off
        again = _dead_units(p.moved_little.some(n))
        dead = {name: units * again[name] for name, units in dead.items()}
        worst = max(dead, key=lambda name: float(dead[name].mean()))
    share, size = float(dead[worst].mean()), len(dead[worst])
    if share <= 0.5:  # of ReLUs, a part is off at every row
        return Outcome(OK, "every layer's units reach the density")
    return Outcome(
        WRONG,
        f"{share:.0%} of the {size} units of {worst} change nothing at any row",
        "degrees of hidden units that reach D, or are a permutation of 1 to K: such units feed "
        "no output",
        "degrees drawn from 1 to D - 1 with replacement, or cyclic",
        (2,),
    )


def _dead_units(version: Version) -> dict[str, Tensor]:
    """By the names of the linear layers: ones for the units whose bias has no gradient."""
    biases = {
        name: module.bias
        for name, module in version.flow.named_modules()
        if isinstance(getattr(module, "bias", None), nn.Parameter)
        and isinstance(getattr(module, "weight", None), Tensor)
        and module.weight.dim() == 2
        and module.bias.requires_grad
    }
    if not biases:
        return {}
    log_p = density(version.view, version.x, version.context)
    weights = torch.rand_like(log_p) + 0.1
    grads = torch.autograd.grad(
        (weights * log_p).sum(), list(biases.values()), materialize_grads=True
    )
    return {name: (g == 0).double() for name, g in zip(biases, grads, strict=True)}


def last_layer(p: Patient) -> Outcome:
    version = p.shaken.some(p.n_graded(8 if p.dim <= MANY else 1))
    if version.view.forward is None:
        raise NotTried("the flow offers no forward")
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
            return Outcome(
                WRONG,
                "a ReLU stands between the last layer of a network and the map",
                "an activation after the last layer of a conditioner: scales and shifts of 0 or "
                "more only",
                "no activation after the last layer",
                (7,),
            )
        stack += [parent for parent, _ in node.next_functions if parent is not None]
    return Outcome(OK, "no ReLU stands after the last layer of a network")


_PRODUCTS = ("Addmm", "Mm", "Bmm", "Baddbmm", "Convolution", "Linear", "Mv", "Addmv")


def _fed_by_product(node: Any) -> bool:
    return any(
        type(parent).__name__.startswith(_PRODUCTS)
        for parent, _ in node.next_functions
        if parent is not None
    )


def state(p: Patient) -> Outcome:
    if not is_module(p.flow):
        raise NotTried("it has no state_dict")
    fresh = _twin(p)
    if fresh is None:
        return _hidden_tensors(p)
    fresh.to(p.x)
    missing = fresh.load_state_dict(p.own.flow.state_dict(), strict=False)
    names = [*missing.missing_keys, *missing.unexpected_keys]
    loaded, kept = (p.version("", flow).some(p.n_many) for flow in (fresh, p.copied()))
    seed = torch.randint(2**31, ()).item()
    for training in (False, True):
        values = []
        for version in (kept, loaded):
            torch.manual_seed(seed)
            with torch.no_grad():
                if training:  # what starts from a batch must not start again
                    version.flow.train()
                    mapped_by(_larger_half(version))
                    version.flow.eval()
                values.append(mapped_by(version))
        apart = max(far_apart(a, b) for a, b in zip(*values, strict=True))
        if apart > max(1e-5, 100 * p.own.eps):
            when = "after a step in training " if training else ""
            return Outcome(
                WRONG,
                f"a copy made anew and loaded from state_dict differs {when}by {apart:.2g}",
                "masks, permutations or the flag of a start from data are plain attributes"
                + (f"; keys that differ: {', '.join(names[:3])}" if names else ""),
                "register_buffer for all that is drawn or measured, flags included",
                (1, 27),
            )
    return Outcome(OK, "a copy made anew and loaded from state_dict is the same flow")


def _twin(p: Patient) -> Any:
    """Another one, made as this one was: by the caller, or by the arguments that it has kept."""
    if p.rebuild is not None:
        return p.rebuild()
    if not isinstance(p.flow, Recorded):
        return None
    try:
        twin: Any = remake(p.flow)
    except (TypeError, ValueError):  # it was made with a lambda, say
        return None
    own, its = ({k: v.shape for k, v in f.state_dict().items()} for f in (p.copied(), twin))
    return twin if own == its else None  # else it has been changed since it was made


def _larger_half(version: Version) -> Version:
    """Rows of another mean, and of no new values."""
    n = max(2, len(version.x) // 2)
    chosen = version.x.flatten(1).sum(1).argsort()[-n:]
    context = None if version.context is None else version.context[chosen]
    return version._replace(x=version.x[chosen], context=context)


def _hidden_tensors(p: Patient) -> Outcome:
    """Tensors that matter and that ``state_dict`` does not carry."""
    flow = p.copied().eval()
    version = p.own.some(min(8, p.n_many))._replace(flow=flow, view=view(flow))
    torch.manual_seed(0)
    with torch.no_grad():
        before = mapped_by(version)[1]
        for name, tensor in _outside_of_state(flow):
            kept = tensor.clone()
            tensor.copy_(tensor.flatten().flip(0).reshape(tensor.shape))
            if torch.equal(kept, tensor):
                continue
            torch.manual_seed(0)
            try:
                changed = far_apart(before, mapped_by(version)[1]) > 1e-4
            except Exception:  # it can no longer be used: it matters
                changed = True
            tensor.copy_(kept)
            if changed:
                return Outcome(
                    NOTE,
                    f"{name} decides on the density and is not in state_dict",
                    "a mask or permutation kept as a plain attribute: if it is drawn at random, a "
                    "flow loaded from state_dict is another one",
                    "register_buffer; or give rebuild=, and it is tried",
                    (1, 27),
                )
    return Outcome(OK, "no tensor outside of state_dict decides on the density")


def _outside_of_state(flow: nn.Module) -> Iterator[tuple[str, Tensor]]:
    own = {"_parameters", "_buffers", "_modules"}
    for prefix, module in flow.named_modules():
        for name, value in vars(module).items():
            items = value if isinstance(value, list | tuple) else [value]
            for item in items if name not in own else ():
                if isinstance(item, Tensor) and item.numel() > 1 and not item.requires_grad:
                    yield f"{prefix}.{name}".strip("."), item
