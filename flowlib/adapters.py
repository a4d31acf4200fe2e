"""One view of a flow, whoever made it: what :func:`flowlib.check_flow` looks at.

Every library names the same five things in its own way: the map to the latent side with its
log-determinant, the map back, the density, the draws and the base. A :class:`View` has them all
under one name. :func:`view` makes one of flows of this library, of zuko, nflows and normflows, of
``torch.distributions``, and of anything that maps ``x`` to ``(z, log_det)``.

None of these libraries is imported: a flow of theirs is known by the module of its class.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributions import (
    ComposeTransform,
    Distribution,
    Independent,
    TransformedDistribution,
)

from flowlib.flow import Bijection, Density, Flow

__all__ = ["Foreign", "View", "view"]

Map = Callable[[Tensor, Tensor | None], tuple[Tensor, Any]]


@dataclass(frozen=True)
class View:
    """What a flow can do; None where it cannot.

    Attributes:
        name: the class of the flow.
        forward: ``(x, context) -> z, log_det``, to the latent side.
        inverse: ``(z, context) -> x, log_det`` of the inverse; its log_det may be None.
        log_prob: ``(x, context) -> (batch,)``.
        sample: ``(n, context) -> (n, *event)``, with one row of context or None.
        draws_with_density: ``(n, context) -> x, log p(x)`` as the flow itself returns them.
        base_log_prob: ``z -> (batch,)``.
        base_sample: ``n -> (n, *event)``.
        discrete: whether it gives probabilities to zeros and ones.
        settle: brings up to date what follows the weights, such as norms by power iteration.
    """

    name: str
    forward: Map | None = None
    inverse: Map | None = None
    log_prob: Callable[[Tensor, Tensor | None], Tensor] | None = None
    sample: Callable[[int, Tensor | None], Tensor] | None = None
    draws_with_density: Callable[[int, Tensor | None], tuple[Tensor, Tensor]] | None = None
    base_log_prob: Callable[[Tensor], Tensor] | None = None
    base_sample: Callable[[int], Tensor] | None = None
    discrete: bool = False
    settle: Callable[[], None] | None = None


class Foreign(nn.Module):
    """Functions of another library as a flow that :func:`flowlib.check_flow` takes.

    The functions take and return tensors, or NumPy arrays if ``arrays`` says so. Where they do not
    compute gradients, as functions that call another framework, Jacobians are taken by finite
    differences. In JAX ``jax.vmap`` makes a function of rows of one of vectors: of a flow of
    FlowJAX ``forward`` is ``jax.vmap(flow.bijection.inverse_and_log_det)``, and ``inverse`` is
    ``jax.vmap(flow.bijection.transform_and_log_det)``.

    Args:
        forward: ``x (batch, *event) -> z, log_det``; with a context ``(x, context)``.
        inverse: ``z -> x, log_det`` or ``z -> x``.
        base: the latent density, with ``log_prob`` and ``sample``, as a
            ``torch.distributions.Distribution`` has them.
        log_prob: the density of ``x``, if the library computes it by itself.
        sample: ``n -> x``, the same.
        arrays: whether the functions take arrays and return them, or what ``numpy.asarray`` makes
            arrays of.

    Example:
        >>> import numpy as np
        >>> from flowlib import check_flow
        >>> base = torch.distributions.Normal(torch.zeros(2), torch.ones(2))
        >>> forward = lambda x: (x / 2, np.zeros(len(x)))  # the log of 1/4 is missing
        >>> half = Foreign(forward, lambda z: 2 * z, base, arrays=True)
        >>> check_flow(half, torch.randn(100, 2))["log-determinant"].verdict
        'wrong'
    """

    def __init__(
        self,
        forward: Callable[..., tuple[Any, Any]],
        inverse: Callable[..., Any] | None = None,
        base: Distribution | nn.Module | None = None,
        *,
        log_prob: Callable[..., Any] | None = None,
        sample: Callable[..., Any] | None = None,
        arrays: bool = False,
    ) -> None:
        super().__init__()
        of = _of_arrays if arrays else lambda function: function
        self.map = of(forward)
        self.base = base
        for name, function in (("inverse", inverse), ("log_prob", log_prob), ("sample", sample)):
            if function is not None:
                object.__setattr__(self, name, of(function))

    def forward(self, *given: Tensor) -> tuple[Tensor, Tensor]:
        """What the function ``forward`` returns."""
        made: tuple[Tensor, Tensor] = self.map(*given)
        return made


def _of_arrays(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function of arrays as one of tensors, in the precision in which it computes."""

    def on_tensors(*given: Any) -> Any:
        device = next((g.device for g in given if isinstance(g, Tensor)), None)
        made = function(*(g.detach().cpu().numpy() if isinstance(g, Tensor) else g for g in given))

        def as_tensor(array: Any) -> Tensor:
            return torch.tensor(np.asarray(array), device=device)

        return tuple(map(as_tensor, made)) if isinstance(made, tuple) else as_tensor(made)

    return on_tensors


def view(flow: Any) -> View:
    """A flow of any kind as a :class:`View`.

    Raises:
        TypeError: if it is of no kind that is known here.
    """
    if isinstance(flow, TransformedDistribution):
        return _of_distribution(flow)
    if isinstance(flow, Density):
        return _of_density(flow)
    if isinstance(flow, Bijection):
        return View(type(flow).__name__, forward=flow, inverse=flow.inverse)
    libraries = {c.__module__.partition(".")[0] for c in type(flow).__mro__}
    for library, of in (("zuko", _of_zuko), ("nflows", _of_nflows), ("normflows", _of_normflows)):
        if library in libraries:
            return of(flow)
    if callable(flow):
        return _of_callable(flow)
    raise TypeError(
        "check_flow: expected a flow of flowlib, zuko, nflows, normflows or torch.distributions, "
        f"or a callable x -> (z, log_det), got a {type(flow).__name__}; flowlib.Foreign makes one "
        "of functions"
    )


# --- this library ---------------------------------------------------------------------------------


def _of_density(flow: Density) -> View:
    sample: Callable[..., Tensor] = lambda n, c: flow.sample(n, c)  # noqa: E731
    if not isinstance(flow, Flow):
        return View(
            type(flow).__name__, log_prob=flow.log_prob, sample=sample, discrete=flow.discrete
        )

    def forward(x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        return flow.bijection(x, flow.in_own_units(context))

    def inverse(z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        return flow.bijection.inverse(z, flow.in_own_units(context))

    return View(
        type(flow).__name__,
        forward,
        inverse,
        flow.log_prob,
        sample,
        lambda n, c: flow.rsample_and_log_prob(n, c),
        flow.base.log_prob,
        flow.base.sample,
    )


# --- others ---------------------------------------------------------------------------------------


def _of_distribution(flow: TransformedDistribution) -> View:
    if flow.batch_shape:
        raise ValueError(
            "check_flow: expected one distribution, got a batch of them, of shape "
            f"{tuple(flow.batch_shape)}; torch.distributions.Independent makes an event of it"
        )
    whole = ComposeTransform(flow.transforms)
    base = flow.base_dist
    lacking = len(flow.event_shape) - len(base.event_shape)
    if lacking > 0:
        base = Independent(base, lacking)

    def summed(log_det: Tensor) -> Tensor:
        return log_det.flatten(1).sum(1) if log_det.dim() > 1 else log_det

    def require_support(x: Tensor) -> None:
        if not flow.support.check(x).all():
            raise ValueError(f"check_flow: x lies outside of the support, {flow.support}")

    def log_prob(x: Tensor, context: Tensor | None) -> Tensor:
        require_support(x)  # the distribution's own check may be off, as torch.compile leaves it
        log_p: Tensor = flow.log_prob(x)
        return log_p

    def forward(x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        require_support(x)
        z = whole.inv(x)
        return z, -summed(whole.log_abs_det_jacobian(z, x))

    def inverse(z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        x = whole(z)
        return x, summed(whole.log_abs_det_jacobian(z, x))

    return View(
        type(flow).__name__,
        forward,
        inverse,
        log_prob,
        lambda n, c: flow.sample(torch.Size((n,))),
        None,
        base.log_prob,
        lambda n: base.sample(torch.Size((n,))),
    )


def _of_zuko(flow: Any) -> View:
    def conditioned(context: Tensor | None) -> Any:
        return flow(context)

    def drawn(n: int, context: Tensor | None) -> tuple[Tensor, Tensor]:
        made: tuple[Tensor, Tensor] = conditioned(context).rsample_and_log_prob((n,))
        return made

    return View(
        type(flow).__name__,
        lambda x, c: conditioned(c).transform.call_and_ladj(x),
        lambda z, c: conditioned(c).transform.inv.call_and_ladj(z),
        lambda x, c: conditioned(c).log_prob(x),
        lambda n, c: conditioned(c).sample((n,)),
        drawn,
        lambda z: conditioned(None).base.log_prob(z),
        lambda n: conditioned(None).base.sample((n,)),
    )


def _of_nflows(flow: Any) -> View:
    transform, base = flow._transform, flow._distribution

    def embedded(context: Tensor | None) -> Any:
        return None if context is None else flow._embedding_net(context)

    def inverse(z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        with _plain_refusals():
            made: tuple[Tensor, Tensor] = transform.inverse(z, embedded(context))
        return made

    def drawn(n: int, context: Tensor | None) -> tuple[Tensor, Tensor]:
        with _plain_refusals():
            x, log_p = flow.sample_and_log_prob(n, None if context is None else context[None])
        return (x, log_p) if context is None else (x[0], log_p[0])

    def sample(n: int, context: Tensor | None) -> Tensor:
        with _plain_refusals():
            x: Tensor = flow.sample(n, None if context is None else context[None])
        return x if context is None else x[0]

    return View(
        type(flow).__name__,
        lambda x, c: transform(x, embedded(c)),
        inverse,
        lambda x, c: flow.log_prob(x, c),
        sample,
        drawn,
        base.log_prob,
        base.sample,
    )


@contextlib.contextmanager
def _plain_refusals() -> Iterator[None]:
    """nflows has an error of its own for an inverse that is not implemented."""
    try:
        yield
    except Exception as error:
        if type(error).__name__ == "InverseNotAvailable":
            raise NotImplementedError("this flow has no inverse") from error
        raise


def _of_normflows(flow: Any) -> View:
    def options(context: Tensor | None) -> dict[str, Tensor]:
        return {} if context is None else {"context": context}

    def through(
        steps: Sequence[Callable[..., tuple[Tensor, Tensor]]], x: Tensor, context: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        total = x.new_zeros(len(x))
        for step in steps:
            x, log_det = step(x, **options(context))
            total = total + log_det
        return x, total

    def settle() -> None:
        for layer in flow.modules():
            if hasattr(layer, "compute_weight"):  # as normflows.utils.update_lipschitz does
                layer.compute_weight(update=True, n_iterations=200)

    def drawn(n: int, context: Tensor | None) -> tuple[Tensor, Tensor]:
        rows = None if context is None else context.expand(n, -1)
        made: tuple[Tensor, Tensor] = flow.sample(n, **options(rows))
        return made

    return View(
        type(flow).__name__,
        lambda x, c: through([step.inverse for step in reversed(flow.flows)], x, c),
        lambda z, c: through(list(flow.flows), z, c),
        lambda x, c: flow.log_prob(x, **options(c)),
        lambda n, c: drawn(n, c)[0],
        drawn,
        flow.q0.log_prob,
        lambda n: flow.q0(n)[0],
        settle=settle,
    )


def _of_callable(flow: Any) -> View:
    """By the names that most people choose: ``inverse``, ``base``, ``log_prob``, ``sample``."""

    def given(context: Tensor | None) -> tuple[Tensor, ...]:
        return () if context is None else (context,)

    def forward(x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        made = flow(x, *given(context))
        if not isinstance(made, tuple) or len(made) != 2:
            raise TypeError(
                f"check_flow: expected {type(flow).__name__} to return (z, log_det), got "
                f"{type(made).__name__}"
            )
        return made

    def inverse(z: Tensor, context: Tensor | None) -> tuple[Tensor, Any]:
        made = flow.inverse(z, *given(context))
        return made if isinstance(made, tuple) else (made, None)

    base = getattr(flow, "base", None)
    event_dims = len(getattr(base, "event_shape", ()))

    def base_log_prob(z: Tensor) -> Tensor:
        log_p: Tensor = base.log_prob(z)  # type: ignore[union-attr]
        return log_p.flatten(1).sum(1) if not event_dims and log_p.dim() > 1 else log_p

    def base_sample(n: int) -> Tensor:
        draws: Tensor = base.sample((n,) if isinstance(base, Distribution) else n)  # type: ignore[union-attr]
        return draws

    def log_prob(x: Tensor, context: Tensor | None) -> Tensor:
        z, log_det = forward(x, context)
        return base_log_prob(z) + log_det

    def sample(n: int, context: Tensor | None) -> Tensor:
        rows = None if context is None else context.expand(n, -1)
        return inverse(base_sample(n), rows)[0]

    own_density, own_draws = getattr(flow, "log_prob", None), getattr(flow, "sample", None)
    own_pair = getattr(flow, "rsample_and_log_prob", None)
    invertible = hasattr(flow, "inverse")
    return View(
        type(flow).__name__,
        forward,
        inverse if invertible else None,
        (lambda x, c: own_density(x, *given(c))) if own_density else log_prob if base else None,
        (lambda n, c: own_draws(n, *given(c)))
        if own_draws
        else sample
        if base and invertible
        else None,
        (lambda n, c: own_pair(n, *given(c))) if own_pair else None,
        base_log_prob if base else None,
        base_sample if base else None,
    )
