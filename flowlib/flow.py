r"""Change of variables: bijections, their composition, and the density that they carry.

A normalizing flow is an invertible map :math:`f` from data :math:`x` to latent
:math:`z = f(x)` together with a simple density :math:`p_Z` on the latent side. The change of
variables turns the two into a density on the data side,

.. math:: \log p(x) = \log p_Z(f(x)) + \log\left|\det \frac{\partial f}{\partial x}\right|.

Everything in this library is a :class:`Bijection`, which returns the mapped points *and* the
log-determinant, or a :class:`Flow`, which adds the base density and speaks of probabilities.
This is the code of chapter 1.
"""

from __future__ import annotations

import functools
import itertools
import math
import operator
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, overload

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from flowlib.arguments import (
    as_count,
    as_event_shape,
    as_sample_shape,
    broadcast_leads,
    require_context,
    require_event,
    require_finite,
    require_inside,
    require_tensor,
)
from flowlib.arrays import Names, as_tensors
from flowlib.bases import DistributionBase
from flowlib.distribution import FlowDistribution
from flowlib.saving import Arguments, Recorded, save
from flowlib.units import ContextNorm

__all__ = [
    "Bijection",
    "Compose",
    "Density",
    "Elementwise",
    "Flow",
    "Inverse",
]


# --- bijections ---------------------------------------------------------------------------


class Bijection(Recorded, nn.Module, ABC):
    """An invertible, differentiable map ``f: x -> z`` that knows its own log-determinant.

    Subclasses implement :meth:`forward` and :meth:`inverse`. Both take a batch of shape
    ``(batch, *event)`` and return the mapped batch and a log-determinant of shape ``(batch,)``:
    the one **of the map just applied**, so that the two differ in sign at matching points.
    Neither may modify its input.

    ``b(x)`` and ``b.inverse(z)`` check what they are given: shapes always, values where they can be
    seen, which on a GPU waits for the device. Inside a :class:`Compose` or a :class:`Flow`, which
    has checked, the maps are called by :meth:`unchecked` and :meth:`unchecked_inverse`.

    A flow with a map of your own can be saved like any other: the arguments of its constructor are
    kept, see :class:`~flowlib.saving.Recorded`.

    Attributes:
        event_shape: the shape of one data point, None if the map takes any.
        latent_shape: the shape of one latent point, None if it is that of a data point.
        context_dim: the size of the context that it must be given, 0 if it cannot use any; None,
            as here, if it is not known.
        domain: two bounds that its data lie strictly between; None for all finite numbers.
        latent_domain: the same of its latent points.

    Raises:
        ValueError: if a shape, the context or a value is not as said above.

    Source: Rezende and Mohamed (2015), eqs. 5 to 7.
    """

    event_shape: torch.Size | None = None
    latent_shape: torch.Size | None = None
    context_dim: int | None = None
    domain: tuple[float, float] | None = None
    latent_domain: tuple[float, float] | None = None
    _door: Any  # the inverse with its check, and the same without
    _behind_door: Any

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Put the check before ``inverse``, as :meth:`__call__` puts it before ``forward``."""
        super().__init_subclass__(**kwargs)
        if cls.inverse is not getattr(cls, "_door", None):  # the class's own, or that of a mixin
            cls._behind_door = cls.inverse
            cls.inverse = cls._door = _checked(cls.inverse)  # type: ignore[method-assign]

    def __call__(
        self, x: Tensor, context: Tensor | None = None, **options: Any
    ) -> tuple[Tensor, Tensor]:
        self._check("x", x, context, self.forward_shape, self.domain)
        z, log_det = self.unchecked(x, context, **options)
        return z, self.require_log_det(log_det, x.shape[0])

    def unchecked(
        self, x: Tensor, context: Tensor | None = None, **options: Any
    ) -> tuple[Tensor, Tensor]:
        """What ``b(x)`` is without the checks."""
        made: tuple[Tensor, Tensor] = nn.Module.__call__(self, x, context, **options)
        return made

    @abstractmethod
    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Normalize: ``x (batch, *event)`` to ``z`` and ``log|det dz/dx|`` ``(batch,)``."""

    @abstractmethod
    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Generate: ``z (batch, *event)`` to ``x`` and ``log|det dx/dz|`` ``(batch,)``."""

    def unchecked_inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """What :meth:`inverse` is without the checks."""
        replaced = "inverse" in self.__dict__
        if not torch.compiler.is_compiling():  # which cannot compare functions in older PyTorch
            replaced = replaced or type(self).inverse is not type(self)._door
        inverse: Callable[..., tuple[Tensor, Tensor]] = (
            self.inverse if replaced else self._behind_door
        )
        return inverse(z, context)

    def after(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """:meth:`unchecked` on what another map has made: only its :attr:`domain` is checked."""
        if self.domain is not None:
            require_inside(type(self).__name__, "values", x, self.domain)
        made: tuple[Tensor, Tensor] = nn.Module.__call__(self, x, context)
        return made

    def after_inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """:meth:`unchecked_inverse` after another map: only :attr:`latent_domain` is checked."""
        if self.latent_domain is not None:
            require_inside(type(self).__name__, "values", z, self.latent_domain)
        return self.unchecked_inverse(z, context)

    def initialize(self, x: Tensor, context: Tensor | None = None) -> None:
        """Set data-dependent starting values from a batch ``x``; most maps have none.

        A map that has some implements :meth:`initialize_inverse`, too, or cannot be turned round.
        """

    def initialize_inverse(self, z: Tensor, context: Tensor | None = None) -> None:
        """The same from a batch that :meth:`inverse` will be given: see :class:`Inverse`.

        Raises:
            NotImplementedError: if the map starts from data in the other direction only.
        """
        if type(self).initialize is not Bijection.initialize:
            raise NotImplementedError(
                f"{type(self).__name__}: its inverse has no start from data; implement "
                "initialize_inverse"
            )

    def forward_shape(self, shape: torch.Size) -> torch.Size:
        """The shape of a latent point for a data point of that shape.

        Raises:
            ValueError: if it does not take such points.
        """
        return self._mapped(shape, self.event_shape, self.latent_shape or self.event_shape)

    def inverse_shape(self, shape: torch.Size) -> torch.Size:
        """The shape of a data point for a latent point of that shape; ``ValueError`` as above."""
        return self._mapped(shape, self.latent_shape or self.event_shape, self.event_shape)

    def _mapped(
        self, shape: torch.Size, expected: torch.Size | None, made: torch.Size | None
    ) -> torch.Size:
        if expected is not None and shape != expected:
            wanted, got = (", ".join(["batch", *map(str, s)]) for s in (expected, shape))
            raise ValueError(f"{type(self).__name__}: expected shape ({wanted}), got ({got})")
        return shape if made is None else made

    def dependence(self, dim: int, inverse: bool = False) -> Tensor | None:
        """Which outputs may depend on which inputs, of vectors of ``dim`` coordinates.

        Args:
            dim: the number of coordinates.
            inverse: whether of the inverse map.

        Returns:
            ``(dim, dim)``, bool, a row for each output; None, as here, if it is not known.
        """
        return None

    def require_log_det(self, log_det: Tensor, rows: int) -> Tensor:
        """What a map has returned as its log-determinant, if it is one number a row.

        Raises:
            ValueError: if it is not; broadcasting would make something else of it.
        """
        if log_det.shape != (rows,):
            raise ValueError(
                f"{type(self).__name__}: expected a log-determinant of shape ({rows},) from its "
                f"forward and its inverse, got {tuple(log_det.shape)}"
            )
        return log_det

    def _check(
        self,
        name: str,
        x: Tensor,
        context: Tensor | None,
        shape_of: Callable[[torch.Size], torch.Size],
        domain: tuple[float, float] | None,
    ) -> None:
        where = type(self).__name__
        require_tensor(where, name, x)
        if not x.dim():
            raise ValueError(f"{where}: expected a batch (batch, ...), got shape ()")
        shape_of(x.shape[1:])
        if self.context_dim is not None:
            require_context(where, context, self.context_dim)
        elif context is not None:
            require_tensor(where, "context", context)
            require_finite(where, "context", context)
        if context is not None and context.shape[:-1] != x.shape[:1]:
            raise ValueError(
                f"{where}: expected a context of shape ({len(x)}, C), got {tuple(context.shape)}"
            )
        if domain is None:
            require_finite(where, name, x)
        else:
            require_inside(where, "values", x, domain)


def _checked(inverse: Callable[..., tuple[Tensor, Tensor]]) -> Callable[..., tuple[Tensor, Tensor]]:
    @functools.wraps(inverse)
    def checked(
        self: Bijection, z: Tensor, context: Tensor | None = None, **options: Any
    ) -> tuple[Tensor, Tensor]:
        if type(self).inverse is checked:  # and not called by a subclass as super().inverse
            self._check("z", z, context, self.inverse_shape, self.latent_domain)
            x, log_det = inverse(self, z, context, **options)
            return x, self.require_log_det(log_det, z.shape[0])
        return inverse(self, z, context, **options)

    return checked


def sum_event(x: Tensor) -> Tensor:
    """``(batch, *event)`` to ``(batch,)``."""
    return x.flatten(1).sum(1)


class Compose(Bijection):
    """Several bijections, one after the other: ``x -> b1 -> b2 -> ... -> z``.

    The log-determinants add, because the determinant of a product of Jacobians is the product
    of their determinants. The context goes to all of them.

    Args:
        bijections: the maps in the order in which data meets them. An empty list is the identity.

    Raises:
        TypeError: if an item is not a :class:`Bijection`.
        ValueError: if two of them need contexts of different sizes.

    Example:
        >>> from flowlib import ElementwiseAffine, LULinear
        >>> f = Compose([ElementwiseAffine(2), LULinear(2)])
        >>> z, log_det = f(torch.zeros(5, 2))
        >>> z.shape, log_det.shape, len(f)
        (torch.Size([5, 2]), torch.Size([5]), 2)

    Source: Rezende and Mohamed (2015), eqs. 6 and 7.
    """

    bijections: Any  # a ModuleList of them

    def __init__(self, bijections: Iterable[Bijection]) -> None:
        super().__init__()
        bijections = list(bijections)
        for i, b in enumerate(bijections):
            if not isinstance(b, Bijection):
                raise TypeError(f"Compose: item {i} is a {type(b).__name__}, not a Bijection")
        self.bijections = nn.ModuleList(bijections)
        sizes = {b.context_dim for b in bijections} - {0}
        known = sizes - {None}
        if len(known) > 1:
            raise ValueError(f"Compose: the maps need contexts of different sizes, {known}")
        self.context_dim = known.pop() if known else (None if sizes else 0)

    @property
    def domain(self) -> tuple[float, float] | None:  # type: ignore[override]
        return self.bijections[0].domain if len(self) else None

    @property
    def latent_domain(self) -> tuple[float, float] | None:  # type: ignore[override]
        return self.bijections[-1].latent_domain if len(self) else None

    def arguments(self) -> Arguments:
        own = type(self).__init__ is Compose.__init__
        return Arguments(([*self.bijections],)) if own else super().arguments()

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        terms = []
        for k, bijection in enumerate(self.bijections):
            # what meets the first map has been checked at the door
            x, term = (bijection.after if k else bijection.unchecked)(x, context)
            terms.append(bijection.require_log_det(term, x.shape[0]))
        return x, functools.reduce(operator.add, terms) if terms else x.new_zeros(x.shape[0])

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        terms = []
        for k, bijection in enumerate(reversed(self.bijections)):
            z, term = (bijection.after_inverse if k else bijection.unchecked_inverse)(z, context)
            terms.append(bijection.require_log_det(term, z.shape[0]))
        return z, functools.reduce(operator.add, terms) if terms else z.new_zeros(z.shape[0])

    def initialize(self, x: Tensor, context: Tensor | None = None) -> None:
        for bijection in self.bijections:
            bijection.initialize(x, context)
            x, _ = bijection.after(x, context)

    def initialize_inverse(self, z: Tensor, context: Tensor | None = None) -> None:
        for bijection in reversed(self.bijections):
            bijection.initialize_inverse(z, context)
            z, _ = bijection.after_inverse(z, context)

    def forward_shape(self, shape: torch.Size) -> torch.Size:
        for bijection in self.bijections:
            shape = bijection.forward_shape(shape)
        return shape

    def inverse_shape(self, shape: torch.Size) -> torch.Size:
        for bijection in reversed(self.bijections):
            shape = bijection.inverse_shape(shape)
        return shape

    def dependence(self, dim: int, inverse: bool = False) -> Tensor | None:
        total = torch.eye(dim, dtype=torch.bool)
        for bijection in reversed(self.bijections) if inverse else self.bijections:
            part = bijection.dependence(dim, inverse)
            if part is None:
                return None
            total = (part.double() @ total.double()) > 0
        return total

    def __len__(self) -> int:
        return len(self.bijections)

    def __iter__(self) -> Iterator[Bijection]:
        return iter(self.bijections)

    def __reversed__(self) -> Iterator[Bijection]:
        last_first: Iterator[Bijection] = reversed(self.bijections)
        return last_first

    @overload
    def __getitem__(self, index: int) -> Bijection: ...

    @overload
    def __getitem__(self, index: slice) -> Compose: ...

    def __getitem__(self, index: int | slice) -> Bijection:
        part = self.bijections[index]
        made: Bijection = Compose(part) if isinstance(index, slice) else part
        return made


class Inverse(Bijection):
    """The same map the other way round: what was ``inverse`` normalizes.

    Args:
        bijection: the map to turn round. It is shared, not copied.

    Example:
        >>> from flowlib import ElementwiseAffine
        >>> f = ElementwiseAffine(3)
        >>> x = torch.randn(4, 3)
        >>> torch.equal(Inverse(f)(x)[0], f.inverse(x)[0])
        True
    """

    def __init__(self, bijection: Bijection) -> None:
        super().__init__()
        self.bijection = bijection
        self.context_dim = bijection.context_dim
        self.domain, self.latent_domain = bijection.latent_domain, bijection.domain

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.bijection.unchecked_inverse(x, context)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.bijection.unchecked(z, context)

    def initialize(self, x: Tensor, context: Tensor | None = None) -> None:
        self.bijection.initialize_inverse(x, context)

    def initialize_inverse(self, z: Tensor, context: Tensor | None = None) -> None:
        self.bijection.initialize(z, context)

    def forward_shape(self, shape: torch.Size) -> torch.Size:
        return self.bijection.inverse_shape(shape)

    def inverse_shape(self, shape: torch.Size) -> torch.Size:
        return self.bijection.forward_shape(shape)

    def dependence(self, dim: int, inverse: bool = False) -> Tensor | None:
        return self.bijection.dependence(dim, not inverse)


class Elementwise(Bijection):
    """Base class of maps of each coordinate by itself, the same for every context."""

    context_dim = 0

    def dependence(self, dim: int, inverse: bool = False) -> Tensor | None:
        return torch.eye(dim, dtype=torch.bool)


# --- densities ----------------------------------------------------------------------------


class Density(Recorded, nn.Module, ABC):
    """What :func:`flowlib.fit` trains: a density with a ``log_prob``, that one can sample from.

    Subclasses implement :meth:`log_prob` and :meth:`sample`, and set the two attributes. Called as
    a module, ``density(x, context)``, it returns ``log_prob``: what wraps a module's ``forward``,
    as ``torch.nn.parallel.DistributedDataParallel`` does, wraps that. ``density.compile()``, which
    is ``torch.nn.Module``'s, makes machine code of that call and of no other; for a training there
    is ``fit(..., compile=True)``.

    Attributes:
        event_shape: the shape of one data point.
        context_dim: the size of the context that it must be given, 0 if it takes no context.
        discrete: whether it gives probabilities to single values, and is no density on numbers.
        columns: the names ``x`` and ``context`` of the columns that it was fitted on, if they came
            as tables; each None if not. They are saved with it.
    """

    event_shape: torch.Size
    context_dim: int
    discrete: bool = False
    columns: Names = Names()

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """:meth:`log_prob`."""
        return self.log_prob(x, context)

    @abstractmethod
    def log_prob(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """The log-density in nats: ``(..., *event)`` to ``(...)``."""

    @abstractmethod
    def sample(
        self,
        n: int | Sequence[int] = (),
        context: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Independent draws without a gradient, ``n + context.shape[:-1] + event``."""

    def initialize(self, batch: Tensor, context: Tensor | None = None) -> None:
        """Set data-dependent starting values from a batch; most densities have none."""
        if context is not None:
            self.initialize_context(context)

    def initialize_context(self, context: Tensor) -> None:
        """Take the means and deviations of contexts from rows ``(rows, C)``.

        :meth:`initialize` does so from its batch. To give more rows, call this before.
        """
        norm = getattr(self, "context_norm", None)
        if norm is not None:
            norm.initialize(context)

    def in_own_units(self, context: Tensor | None) -> Tensor | None:
        """A context as the networks get it."""
        if context is None:
            return None
        norm: Any = self.context_norm
        made: Tensor = norm(context)
        return made

    def as_distribution(self, context: Tensor | None = None) -> FlowDistribution:
        """It as a ``torch.distributions.Distribution``: see :class:`flowlib.FlowDistribution`."""
        return FlowDistribution(self, context)

    def save(self, path: str | Path) -> None:
        """Write it to a file, which :func:`flowlib.load` reads: see :func:`flowlib.saving.save`."""
        save(self, path)

    def check_values(self, where: str, name: str, x: Tensor) -> None:
        """Raise ``ValueError`` if ``x`` has values that this density cannot take.

        Args:
            where: the function that checks, for the message.
            name: the caller's name of ``x``, for the message.
            x: data of the right shape.
        """
        require_finite(where, name, x)

    def _require(self, where: str, name: str, x: Tensor, event: Sequence[int]) -> None:
        """Raise if ``x`` is not a tensor ``(..., *event)`` of values that this density takes."""
        require_tensor(where, name, x)
        require_event(where, x, event, name)
        self.check_values(where, name, x)

    def _paired(
        self, x: Tensor, context: Tensor | None, event: Sequence[int]
    ) -> tuple[Tensor, Tensor | None, torch.Size]:
        """Rows of ``x``, as many rows of context, and the common leading shape of both."""
        lead = x.shape[: x.dim() - len(event)]
        if context is not None:
            lead = broadcast_leads(lead, context.shape[:-1])
            x = x.expand(*lead, *event)
            context = context.expand(*lead, -1).reshape(math.prod(lead), context.shape[-1])
        return x.reshape(math.prod(lead), *event), context, lead


class Flow(Density):
    r"""A density: a :class:`Bijection` to the latent side, and a base density there.

    Args:
        bijection: the map ``f: x -> z``.
        base: the latent density, a module with ``event_shape``, ``log_prob`` and ``sample``,
            such as :class:`StandardNormal`; or a ``torch.distributions.Distribution``, of which
            :class:`DistributionBase` makes one.
        event_shape: the shape of one data point, if it is not that of a latent point.
        context_dim: the size of the context that the bijection is given, 0 if it takes no context.

    Raises:
        TypeError: if ``bijection`` is not a :class:`Bijection`, or ``base`` lacks one of the three.
        ValueError: if the bijection does not map data points to latent points of the base, or does
            not use a context of that size.

    Example:
        >>> from flowlib import LULinear, StandardNormal
        >>> flow = Flow(LULinear(2), StandardNormal(2))
        >>> x = flow.sample(3, generator=torch.Generator().manual_seed(0))
        >>> x.shape, flow.log_prob(x).shape
        (torch.Size([3, 2]), torch.Size([3]))
        >>> flow.log_prob(torch.zeros(5, 3))
        Traceback (most recent call last):
            ...
        ValueError: log_prob: expected x of shape (..., 2), got (5, 3)

    Source: Rezende and Mohamed (2015), section 3; Papamakarios et al. (2021), section 2.
    """

    def __init__(
        self,
        bijection: Bijection,
        base: nn.Module | Distribution,
        event_shape: int | Sequence[int] | None = None,
        *,
        context_dim: int = 0,
    ) -> None:
        super().__init__()
        if not isinstance(bijection, Bijection):
            raise TypeError(f"Flow: expected a Bijection, got a {type(bijection).__name__}")
        if isinstance(base, Distribution):
            base = DistributionBase(base)
        for name in ("event_shape", "log_prob", "sample"):
            if not hasattr(base, name):
                raise TypeError(f"Flow: the base, a {type(base).__name__}, has no {name}")
        self.bijection = bijection
        self.base: Any = base
        its_shape: Any = base.event_shape
        base_shape = as_event_shape(its_shape)
        self.event_shape = base_shape if event_shape is None else as_event_shape(event_shape)
        latent = bijection.forward_shape(self.event_shape)
        if latent != base_shape:
            raise ValueError(
                f"Flow: the bijection maps data points of shape {tuple(self.event_shape)} to "
                f"latent points of shape {tuple(latent)}, expected the base's {tuple(base_shape)}; "
                "a bijection that changes the shape sets event_shape and latent_shape"
            )
        self.context_dim = as_count("Flow", "context_dim", context_dim, 0)
        if bijection.context_dim not in (None, self.context_dim):
            uses = bijection.context_dim or "no context"
            raise ValueError(
                f"Flow: expected context_dim to be what the bijection uses, got {context_dim}, and "
                f"the {type(bijection).__name__} uses {uses}"
            )
        self.context_norm = ContextNorm(self.context_dim) if self.context_dim else None

    def arguments(self) -> Arguments:
        if type(self).__init__ is not Flow.__init__:
            return super().arguments()
        return Arguments(
            (self.bijection, self.base, tuple(self.event_shape)), {"context_dim": self.context_dim}
        )

    def log_prob(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """The log-density in nats.

        Args:
            x: data, ``(..., *event)``, finite, in the flow's own dtype. Or an array, or a table
                such as pandas' DataFrame, which become such a tensor; of a table the columns are
                brought into the order of :attr:`columns`, if the flow knows their names.
            context: what the density is conditioned on, ``(..., C)``; its leading dimensions
                broadcast against those of ``x``. An array or a table, too.

        Returns:
            ``log p(x)``, of the shape of the leading dimensions.

        Raises:
            TypeError: if ``x`` or ``context`` is of another kind, or has other values than numbers.
            ValueError: if shape, dtype or values are not as above, or if a table has other columns
                than those that the flow was fitted on. Values are checked where they can be seen:
                not under ``torch.compile`` or ``vmap``.
        """
        x, context, _ = as_tensors("log_prob", self, x, context)
        self._require("log_prob", "x", x, self.event_shape)
        require_context("log_prob", context, self.context_dim)
        self._require_own_dtype("log_prob", x=x, context=context)
        context = self.in_own_units(context)
        x, context, lead = self._paired(x, context, self.event_shape)
        z, log_det = self.bijection.unchecked(x, context)
        self.bijection.require_log_det(log_det, x.shape[0])
        log_prob: Tensor = self.base.log_prob(z) + log_det
        return log_prob.reshape(lead)

    @torch.no_grad()
    def sample(
        self,
        n: int | Sequence[int] = (),
        context: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Independent draws, without a gradient.

        Args:
            n: how many, an int or a shape; ``()`` is a single one.
            context: as in :meth:`log_prob`; every row of it gets ``n`` draws.
            generator: the source of randomness; by default torch's own.

        Returns:
            ``n + context.shape[:-1] + event``.
        """
        _, x, _ = self._draw("sample", n, context, generator)
        return x

    def rsample_and_log_prob(
        self,
        n: int | Sequence[int] = (),
        context: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Draws that are differentiable in the flow's parameters, and their log-density.

        The arguments are those of :meth:`sample`. One pass through the inverse gives both:
        ``log p(x) = log p_Z(z) - log|det dx/dz|``.

        Returns:
            ``x`` of shape ``n + context.shape[:-1] + event`` and ``log p(x)`` of the same shape
            without the event.

        Raises:
            ValueError: as :meth:`sample`; and if the base is trained, and its draws are not
                differentiable in what is trained.
        """
        self._require_rsample()
        z, x, log_det = self._draw("rsample_and_log_prob", n, context, generator)
        log_prob = self.base.log_prob(z) - log_det
        return x, log_prob.reshape(x.shape[: x.dim() - len(self.event_shape)])

    def _require_rsample(self) -> None:
        trained = any(p.requires_grad for p in self.base.parameters())
        if torch.is_grad_enabled() and trained and not getattr(self.base, "has_rsample", True):
            raise ValueError(
                f"rsample_and_log_prob: expected a base whose draws are differentiable, got a "
                f"{type(self.base).__name__} that is trained; train the flow on data, or keep the "
                "base as it is, with base.requires_grad_(False)"
            )

    def _draw(
        self,
        where: str,
        n: int | Sequence[int],
        context: Tensor | None,
        generator: torch.Generator | None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Base draws in one batch, what becomes of them in their shape, ``log|det dx/dz|``."""
        lead = as_sample_shape(n)
        _, context, _ = as_tensors(where, self, None, context)
        require_context(where, context, self.context_dim)
        self._require_own_dtype(where, context=context)
        context = self.in_own_units(context)
        if context is not None:
            lead = torch.Size((*lead, *context.shape[:-1]))
            context = context.expand(*lead, -1).reshape(math.prod(lead), context.shape[-1])
        z = self.base.sample(math.prod(lead), generator)
        x, log_det = self.bijection.after_inverse(z, context)
        self.bijection.require_log_det(log_det, z.shape[0])
        return z, x.reshape(*lead, *self.event_shape), log_det

    @torch.no_grad()
    def initialize(self, batch: Tensor, context: Tensor | None = None) -> None:
        """Let every layer set its data-dependent start from a batch ``(batch, *event)``.

        A context gets the units in which the layers will see it, from then on in every method: see
        :class:`~flowlib.units.ContextNorm`.
        """
        self._require("initialize", "batch", batch, self.event_shape)
        require_context("initialize", context, self.context_dim)
        self._require_own_dtype("initialize", batch=batch, context=context)
        if batch.dim() != len(self.event_shape) + 1:
            raise ValueError(
                f"initialize: expected one batch dimension, got shape {tuple(batch.shape)}"
            )
        super().initialize(batch, context)
        self.bijection.initialize(batch, self.in_own_units(context))

    def check_values(self, where: str, name: str, x: Tensor) -> None:
        if self.bijection.domain is None:
            require_finite(where, name, x)
        else:
            require_inside(where, name, x, self.bijection.domain)

    def _own_dtype(self) -> torch.dtype | None:
        for tensor in itertools.chain(self.parameters(), self.buffers()):
            if tensor.is_floating_point():
                return tensor.dtype
        return None

    def _require_own_dtype(self, where: str, **tensors: Tensor | None) -> None:
        """Raise ``ValueError`` if a tensor has another dtype than the weights."""
        dtype = self._own_dtype()
        for name, tensor in tensors.items():
            if tensor is not None and dtype not in (None, tensor.dtype):
                raise ValueError(
                    f"{where}: the flow is in {dtype}, {name} in {tensor.dtype}; "
                    f"{name}.to({dtype}) has the flow's dtype"
                )
