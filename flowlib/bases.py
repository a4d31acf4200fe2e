"""Base densities: what a flow maps its data to.

A base is a module with an ``event_shape``, a ``log_prob`` from ``(..., *event)`` to ``(...)``, and
a ``sample`` that takes a number or a shape of draws and a generator. These are the normal ones, a
mixture that is trained with the flow, and one that makes a base of a distribution of PyTorch's.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Transform

from flowlib.arguments import (
    as_count,
    as_event_shape,
    as_floats,
    as_sample_shape,
    require_event,
    seen,
)
from flowlib.saving import Arguments, Recorded

__all__ = [
    "DiagonalNormal",
    "DistributionBase",
    "GaussianMixture",
    "MultivariateNormal",
    "StandardNormal",
]

START = 0.5  # the scale with which the normals of a mixture start


class StandardNormal(Recorded, nn.Module):
    r"""The density :math:`\mathcal N(0, I)` on arrays of a given shape.

    Args:
        event_shape: the shape of one point, an int for a vector.

    Example:
        >>> base = StandardNormal(2)
        >>> round(base.log_prob(torch.zeros(2)).exp().item() * 2 * math.pi, 6)
        1.0
    """

    def __init__(self, event_shape: int | Sequence[int]) -> None:
        super().__init__()
        self.event_shape = as_event_shape(event_shape)
        self.origin: Tensor  # carries the dtype and the device to `sample`; nothing to save
        self.register_buffer("origin", torch.zeros(self.event_shape), persistent=False)

    def log_prob(self, z: Tensor) -> Tensor:
        """``log p_Z(z)`` in nats: ``(..., *event)`` to ``(...)``."""
        require_event("StandardNormal", z, self.event_shape, "z")
        squared = z.square().sum(tuple(range(-len(self.event_shape), 0)))
        return -0.5 * squared - 0.5 * math.log(2 * math.pi) * math.prod(self.event_shape)

    def sample(
        self,
        n: int | Sequence[int] = (),
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """``n + event`` independent draws; they carry no gradient and need none."""
        return standard_draws(self.origin, n, self.event_shape, generator)


class DiagonalNormal(Recorded, nn.Module):
    """Independent normals, each with its own mean and standard deviation, which stay as given.

    One that learns them is an :class:`ElementwiseAffine` before a :class:`StandardNormal`.

    Args:
        loc: the means, an array of the event's shape.
        scale: the standard deviations, positive, of the same shape.

    Raises:
        ValueError: if shapes differ, a value is not finite, or a scale is not positive.

    Example:
        >>> base = DiagonalNormal([0.0, 10.0], [1.0, 2.0])
        >>> base.sample(3).shape, round(base.log_prob(base.loc).exp().item() * 4 * math.pi, 4)
        (torch.Size([3, 2]), 1.0)
    """

    loc: Tensor
    scale: Tensor

    def __init__(self, loc: Any, scale: Any) -> None:
        super().__init__()
        loc, scale = as_floats("DiagonalNormal", loc=loc, scale=scale)
        self.event_shape = as_event_shape(loc.shape)
        if scale.shape != loc.shape or seen((scale > 0).all()) is False:
            raise ValueError(
                f"DiagonalNormal: expected a positive scale of shape {tuple(loc.shape)}, "
                f"got {scale.tolist()} of shape {tuple(scale.shape)}"
            )
        self.register_buffer("loc", loc)
        self.register_buffer("scale", scale)

    def log_prob(self, z: Tensor) -> Tensor:
        """``log p_Z(z)`` in nats: ``(..., *event)`` to ``(...)``."""
        require_event("DiagonalNormal", z, self.event_shape, "z")
        log_p = -0.5 * (((z - self.loc) / self.scale).square() + math.log(2 * math.pi))
        return (log_p - self.scale.log()).sum(tuple(range(-len(self.event_shape), 0)))

    def sample(
        self, n: int | Sequence[int] = (), generator: torch.Generator | None = None
    ) -> Tensor:
        """``n + event`` independent draws."""
        return self.loc + self.scale * standard_draws(self.loc, n, self.event_shape, generator)


class MultivariateNormal(Recorded, nn.Module):
    """A normal density on vectors with any covariance, which stays as given.

    One that learns it is an :class:`LULinear` before a :class:`StandardNormal`.

    Args:
        loc: the mean, ``(D,)``.
        covariance: symmetric and positive definite, ``(D, D)``.

    Raises:
        ValueError: if the shapes differ from these, a value is not finite, or the
            matrix is not a covariance.

    Example:
        >>> base = MultivariateNormal([0.0, 0.0], [[2.0, 1.0], [1.0, 2.0]])
        >>> round(base.log_prob(torch.zeros(2)).exp().item() * 2 * math.pi * math.sqrt(3), 4)
        1.0
    """

    loc: Tensor
    scale_tril: Tensor

    def __init__(self, loc: Any, covariance: Any) -> None:
        super().__init__()
        loc, covariance = as_floats("MultivariateNormal", loc=loc, covariance=covariance)
        self.event_shape = as_event_shape(loc.shape)
        dim = loc.shape[0]
        if loc.dim() != 1 or covariance.shape != (dim, dim):
            raise ValueError(
                "MultivariateNormal: expected loc of shape (D,) and covariance of shape (D, D), "
                f"got {tuple(loc.shape)} and {tuple(covariance.shape)}"
            )
        factor, failed = torch.linalg.cholesky_ex(covariance)
        symmetric = torch.isclose(covariance, covariance.T).all()
        if seen(failed) or seen(symmetric) is False:
            raise ValueError(
                "MultivariateNormal: expected a symmetric, positive definite covariance, "
                f"got {covariance.tolist()}"
            )
        self.register_buffer("loc", loc)
        self.register_buffer("scale_tril", factor)

    def log_prob(self, z: Tensor) -> Tensor:
        """``log p_Z(z)`` in nats: ``(..., D)`` to ``(...)``."""
        require_event("MultivariateNormal", z, self.event_shape, "z")
        rows = (z - self.loc).reshape(-1, len(self.loc))  # one solve for all, not one for each
        white = torch.linalg.solve_triangular(self.scale_tril, rows.T, upper=False)
        log_p = -0.5 * (white.square() + math.log(2 * math.pi)).sum(0)
        log_prob: Tensor = log_p.reshape(z.shape[:-1]) - self.scale_tril.diagonal().log().sum()
        return log_prob

    def sample(
        self, n: int | Sequence[int] = (), generator: torch.Generator | None = None
    ) -> Tensor:
        """``n + (D,)`` independent draws."""
        draws = standard_draws(self.loc, n, self.event_shape, generator)
        return self.loc + draws @ self.scale_tril.T


class GaussianMixture(Recorded, nn.Module):
    r"""A mixture of normals whose weights, means and scales are trained with the flow.

    .. math:: p_Z(z) = \sum_{k=1}^{K} w_k \prod_d \mathcal N(z_d;\, \mu_{kd}, \sigma_{kd}^2)

    It starts with equal weights, scales of a half, and means that are drawn, so that together they
    have about the spread of a standard normal.

    Args:
        event_shape: the number ``D`` of coordinates.
        n_components: the number ``K`` of normals.
        generator: of the first means.

    Attributes:
        logits: ``(K,)``, the weights are their softmax.
        loc: ``(K, D)``, the means.
        log_scale: ``(K, D)``, the logarithms of the standard deviations.

    Raises:
        ValueError: if it is not a vector, or ``n_components`` is not a positive whole number.

    Draws are not differentiable in the weights, so that a flow on this base is trained on data:
    :meth:`~flowlib.flow.Flow.rsample_and_log_prob` refuses it while the base is trained.

    Example:
        >>> base = GaussianMixture(2, n_components=3)
        >>> base.sample(5).shape, base.log_prob(torch.zeros(7, 2)).shape
        (torch.Size([5, 2]), torch.Size([7]))

    Source: Papamakarios, Pavlakou and Murray (2017), section 3.4, puts a mixture before the flow.
    """

    has_rsample = False

    def __init__(
        self,
        event_shape: int | Sequence[int],
        n_components: int = 10,
        *,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.event_shape = as_event_shape(event_shape)
        if len(self.event_shape) != 1:
            shape = tuple(self.event_shape)
            raise ValueError(f"GaussianMixture: expected a vector, got event_shape={shape}")
        count = as_count("GaussianMixture", "n_components", n_components, 1)
        means = torch.randn(count, *self.event_shape, generator=generator)
        self.logits = nn.Parameter(torch.zeros(count))
        self.loc = nn.Parameter(means * math.sqrt(1 - START**2))
        self.log_scale = nn.Parameter(torch.full_like(means, math.log(START)))

    def log_prob(self, z: Tensor) -> Tensor:
        """``log p_Z(z)`` in nats: ``(..., D)`` to ``(...)``."""
        require_event("GaussianMixture", z, self.event_shape, "z")
        standard = (z[..., None, :] - self.loc) * (-self.log_scale).exp()
        log_p = -0.5 * (standard.square() + math.log(2 * math.pi)) - self.log_scale
        return (self.logits.log_softmax(0) + log_p.sum(-1)).logsumexp(-1)

    @torch.no_grad()
    def sample(
        self, n: int | Sequence[int] = (), generator: torch.Generator | None = None
    ) -> Tensor:
        """``n + (D,)`` independent draws."""
        draws = standard_draws(self.loc, n, self.event_shape, generator)
        count = math.prod(draws.shape[:-1])
        weights = self.logits.softmax(0)
        chosen = torch.multinomial(weights, max(count, 1), replacement=True, generator=generator)
        chosen = chosen[:count].reshape(draws.shape[:-1])
        return self.loc[chosen] + self.log_scale.exp()[chosen] * draws


class DistributionBase(Recorded, nn.Module):
    """A ``torch.distributions.Distribution`` as a base, which stays as given.

    Its tensors become buffers of this module: they move, are cast and are saved with the flow.
    Outside the distribution's support the log-density is minus infinity.

    Args:
        distribution: one of vectors or arrays, without a batch shape, such as
            ``Independent(Normal(loc, scale), 1)``, ``MultivariateNormal(loc, covariance)`` or a
            ``MixtureSameFamily`` of these.

    Raises:
        TypeError: if it is not a distribution.
        ValueError: if it has a batch shape or no event shape, gives single values a probability, or
            has parameters that are to be trained.

    Example:
        >>> from torch.distributions import Independent, Laplace
        >>> base = DistributionBase(Independent(Laplace(torch.zeros(2), torch.ones(2)), 1))
        >>> round(base.log_prob(torch.zeros(2)).exp().item(), 4), base.sample(3).shape
        (0.25, torch.Size([3, 2]))
    """

    inside: Tensor

    def __init__(self, distribution: Distribution) -> None:
        super().__init__()
        if not isinstance(distribution, Distribution):
            kind = type(distribution).__name__
            raise TypeError(f"DistributionBase: expected a torch Distribution, got a {kind}")
        _require_one_density(distribution)
        self.event_shape = torch.Size(distribution.event_shape)
        if any(vars(owner)[key].requires_grad for owner, key in _tensors_of(distribution)):
            raise ValueError(
                f"DistributionBase: expected a {type(distribution).__name__} that stays as it is, "
                "got one with a gradient; a map before the base, such as ElementwiseAffine or "
                "LULinear, learns its mean and spread"
            )
        self.distribution = copy.deepcopy(distribution)
        self._kept: list[tuple[Any, str, str]] = []
        for owner, key in _tensors_of(self.distribution):
            self._kept.append((owner, key, f"{key.strip('_')}_{len(self._kept)}"))
            self.register_buffer(self._kept[-1][-1], vars(owner)[key].clone())
        # a point to put in the place of those outside, where a formula may have no number
        self.register_buffer("inside", distribution.sample(), persistent=False)

    def arguments(self) -> Arguments:
        return Arguments((copy.deepcopy(self._current()),))

    def _current(self) -> Distribution:
        """The distribution with this module's buffers, wherever and of whichever dtype they are."""
        for owner, key in _tensors_of(self.distribution):
            del vars(owner)[key]  # what it has computed from them and kept, too
        for owner, key, name in self._kept:
            vars(owner)[key] = self._buffers[name]
        return self.distribution

    def log_prob(self, z: Tensor) -> Tensor:
        """``log p_Z(z)`` in nats: ``(..., *event)`` to ``(...)``."""
        require_event("DistributionBase", z, self.event_shape, "z")
        distribution = self._current()
        support: Any = distribution.support
        found = support.check(z)
        outside = ~found.reshape(*found.shape, *(1 for _ in self.event_shape))
        log_p: Tensor = distribution.log_prob(torch.where(outside, self.inside, z))
        return log_p.masked_fill(~found, -math.inf)

    def sample(
        self, n: int | Sequence[int] = (), generator: torch.Generator | None = None
    ) -> Tensor:
        """``n + event`` independent draws.

        PyTorch's distributions take no generator: a given one seeds its global one for these draws.
        """
        shape, distribution = as_sample_shape(n), self._current()
        if generator is None:
            return distribution.sample(shape)
        seed = int(torch.randint(2**62, (), generator=generator, device=generator.device))
        device = self.inside.device
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            torch.random.default_generator.manual_seed(seed)
            if device.type == "cuda":
                with torch.cuda.device(device):
                    torch.cuda.manual_seed(seed)
            return distribution.sample(shape)


def _require_one_density(distribution: Distribution) -> None:
    name, batch = type(distribution).__name__, tuple(distribution.batch_shape)
    if batch:
        raise ValueError(
            f"DistributionBase: expected one distribution, got a batch {batch} of {name}; "
            f"torch.distributions.Independent(..., {len(batch)}) makes one of them"
        )
    if not distribution.event_shape:
        raise ValueError(
            f"DistributionBase: expected a distribution of vectors, got {name} of single numbers; "
            "Independent(..., 1) of one with parameters of shape (1,) is of vectors"
        )
    support: Any = distribution.support
    if support.is_discrete:
        raise ValueError(f"DistributionBase: expected a density, got {name}, which is discrete")


def _tensors_of(distribution: Distribution) -> list[tuple[Any, str]]:
    """What a distribution is made of, and the names under which it keeps tensors of floats."""
    places: list[tuple[Any, str]] = []
    parts: list[Any] = [distribution]
    met: set[int] = set()
    while parts:
        owner = parts.pop()
        if id(owner) in met:  # a transform and its inverse know each other
            continue
        met.add(id(owner))
        for key, value in vars(owner).items():
            if isinstance(value, Tensor):
                places += [(owner, key)] if value.is_floating_point() else []
            elif isinstance(value, list | tuple):
                parts += [part for part in value if isinstance(part, Distribution | Transform)]
            elif isinstance(value, Distribution | Transform):
                parts.append(value)
    return places


def standard_draws(
    like: Tensor,
    n: int | Sequence[int],
    event_shape: torch.Size,
    generator: torch.Generator | None,
) -> Tensor:
    """Standard normal draws ``n + event`` with the dtype and on the device of ``like``."""
    shape = (*as_sample_shape(n), *event_shape)
    return torch.randn(shape, dtype=like.dtype, device=like.device, generator=generator)
