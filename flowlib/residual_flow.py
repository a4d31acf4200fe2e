r"""Residual Flow: the endless series of :mod:`flowlib.iresnet`, right on average.

A truncated series is wrong in the same direction in every step of training, and learns to be. Here
a coin decides how many terms are computed, and each is divided by the probability that it is
reached. The expectation is then the whole series:

.. math:: \log\det(I + J) = \mathbb E_{n, v}\left[
    \sum_{k=1}^n \frac{(-1)^{k+1}}{k} \frac{v^\top J^k v}{P(N \ge k)}\right]

Its gradient is a series of its own, which needs no graph of the terms, so that memory does not grow
with their number. This is the code of chapter 6.
"""

from __future__ import annotations

import contextlib
import functools
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, NoReturn

import numpy as np
import torch
from torch import Tensor, nn

from flowlib.arguments import as_count, as_event_shape, as_number
from flowlib.flow import Flow
from flowlib.iresnet import (
    Activation,
    Branch,
    ExactLogDet,
    Linearized,
    LogDet,
    Probed,
    ResidualBlock,
    as_log_det,
    linearize,
    log_det_of_block,
    residual_blocks,
    widened,
)
from flowlib.precision import exactly

__all__ = [
    "ByMode",
    "LipSwish",
    "RecomputedBlock",
    "ResidualFlow",
    "RussianRoulette",
    "WithError",
    "log_prob_with_error",
    "spectral_radius",
]

P = 0.25  # the coin, where none is given: its tail bears eigenvalues up to 0.866
LEAST_P = 0.01  # a hundred terms on average; one product each, and no end to be seen below


# --- the log-determinant ----------------------------------------------------------------------


class RussianRoulette(Probed):
    r"""The whole series on average: a random number of terms, each with the weight that it needs.

    Of the terms the first ``n_exact`` and one more are always computed. From there on a coin of
    probability ``p`` is thrown after each term, and the series ends where it says so:
    :math:`n = n_{exact} + N` with :math:`P(N = m) = p (1 - p)^{m - 1}` for :math:`m \ge 1`, once a
    call for all rows. Term :math:`k` is divided by :math:`P(n \ge k)`, see :meth:`survival`. It
    costs :math:`n_{exact} + 1 / p` products with the Jacobian on average.

    The mean is right. The variance is infinite where :math:`1 - p < \rho(J)^2`, ``rho`` being the
    largest absolute value of the Jacobian's eigenvalues: see :func:`spectral_radius`.

    The gradient is not that of the terms, whose graph would grow with them. It is
    :math:`\mathbb E[w^\top (\partial J) v]` with the Neumann series
    :math:`w^\top = \sum_{k=0}^{n-1} (-1)^k v^\top J^k / P(n > k)`, which is computed without a
    graph: memory does not depend on the number of terms. It is right on average whatever weights a
    loss gives to the rows. Forward mode, ``torch.func.jvp``, gives the same derivative as reverse
    mode. Second derivatives are not those of the log-determinant.

    In evaluation there are more sure terms and more probes, drawn from ``seed``: in every call the
    same for the first row, the same for the second, and so on. Rows have their own, so that the
    part of the error that comes from probes averages out over rows; the coin is one for all rows,
    and its part does not. The gradient is then no derivative of the value.

    Compiled code is interrupted where the coin is thrown. In training ``torch.vmap`` needs
    ``randomness="same"``, and all rows have one probe then. In half precision all is added up in
    float32, and stays in it.

    Args:
        p: the probability to stop after a term, 0.01 or more and below 1; None for 0.25. With it a
            step takes a tenth longer than with 0.5, and eigenvalues may be up to 0.866 instead of
            0.707.
        n_exact: how many terms are computed before the coin is thrown; one more is sure.
        probes: how many probes for each row.
        distribution: of the probes, ``"rademacher"``, signs, or ``"gaussian"``.
        eval_n_exact: how many terms are sure in evaluation.
        eval_probes: how many probes in evaluation.
        seed: of the coin and of the probes in evaluation.

    Raises:
        ValueError: if ``p`` is out of its range, a number is negative, there are no probes, or
            there is no such distribution.
        RuntimeError: under ``torch.vmap`` in training, without ``randomness="same"``.

    Example:
        >>> g = Branch(6, 16)
        >>> x = torch.randn(5, 6)
        >>> RussianRoulette(p=0.5)(x, g.linearize(x)).shape
        torch.Size([5])

    Source: Chen et al. (2019), theorems 1 and 2 and equation 8; Kahn (1956) for the roulette.
    """

    def __init__(
        self,
        p: float | None = None,
        n_exact: int = 2,
        probes: int = 1,
        distribution: str = "rademacher",
        *,
        eval_n_exact: int = 20,
        eval_probes: int = 8,
        seed: int = 0,
    ) -> None:
        super().__init__(probes, distribution, seed)
        where = "RussianRoulette"
        self.p = P if p is None else as_number(where, "p", p)
        if not LEAST_P <= self.p < 1:
            raise ValueError(f"{where}: expected a p of {LEAST_P:g} or more, below 1, got {p!r}")
        self.n_exact = as_count(where, "n_exact", n_exact, 0)
        self.eval_n_exact = as_count(where, "eval_n_exact", eval_n_exact, 0)
        self.eval_probes = as_count(where, "eval_probes", eval_probes, 1)

    @property
    def sure(self) -> int:
        """How many terms are sure in the present mode."""
        return self.n_exact if self.training else self.eval_n_exact

    def survival(self, k: int) -> float:
        """The probability that term ``k``, from 1, is computed, in the present mode.

        Example:
            >>> [RussianRoulette(p=0.5, n_exact=2).survival(k) for k in (1, 2, 3, 4, 5)]
            [1.0, 1.0, 1.0, 0.5, 0.25]
        """
        survival: float = (1 - self.p) ** max(0, k - self.sure - 1)
        return survival

    @property
    def expected_products(self) -> float:
        """How many products with the Jacobian a call takes on average, in the present mode."""
        return (self.sure + 1 / self.p) * (self.probes if self.training else self.eval_probes)

    def forward(self, x: Tensor, at: Linearized) -> Tensor:
        n, v = self.throw(x)
        u = at.jvp(v)
        value, w = self.walk(n, v, u, at.vjp)
        shadow = mean_product(w, u)
        return value + (shadow - shadow.detach())

    @torch.no_grad()
    def walk(
        self, n: int, v: Tensor, u: Tensor, vjp: Callable[[Tensor], Tensor]
    ) -> tuple[Tensor, Tensor]:
        """The value of so many terms, and the Neumann series of the probes, without a graph.

        Args:
            n: the number of terms.
            v: the probes, ``(probes, batch, *event)``.
            u: their images ``Jv``, with which a term costs one product and no more.
            vjp: from ``w`` to ``wᵀJ``.

        Returns:
            The log-determinant ``(batch,)``, and ``(probes, batch, *event)``.
        """
        left, weight = v, 1 / self.survival(1)
        w = widened(left)
        value, total = weight * mean_product(w, u), weight * w
        for k in range(2, n + 1):
            left = vjp(left)
            w, weight = widened(left), (1 if k % 2 else -1) / self.survival(k)
            value = value.add(mean_product(w, u), alpha=weight / k)
            total = total.add(w, alpha=weight)
        return value.detach(), total.detach()  # forward mode does not heed no_grad

    def throw(self, x: Tensor) -> tuple[int, Tensor]:
        """How many terms, and the probes ``(probes, batch, *event)``, in the present mode."""
        if self.training:
            tail = _throws(self.p)
            return self.n_exact + int(tail), self.draw(x)
        rng = self.again()
        n = self.eval_n_exact + int(rng.geometric(self.p))
        return n, self.redraw(x, self.eval_probes, rng)

    def extra_repr(self) -> str:
        return (
            f"p={self.p:g}, n_exact={self.n_exact}, probes={self.probes}, "
            f"rho below {math.sqrt(1 - self.p):.3g}"
        )


def _throws(p: float) -> Tensor:
    """How often a coin is thrown until it says stop, on PyTorch's own random state."""
    try:
        return torch.empty((), dtype=torch.float64, device="cpu").geometric_(p)
    except RuntimeError as error:
        raise RuntimeError(
            'RussianRoulette: expected torch.vmap(..., randomness="same") in training, as its coin '
            f"is one for all rows; PyTorch says: {error}"
        ) from error


def mean_product(w: Tensor, u: Tensor) -> Tensor:
    """``wᵀu`` of each row, ``(probes, batch, *event)`` to ``(batch,)``, the mean of the probes."""
    with exactly(w):
        products = torch.linalg.vecdot(w.flatten(2), u.flatten(2).to(w.dtype))
    made: Tensor = products.mean(0) if len(products) > 1 else products[0]
    return made


class ByMode(LogDet):
    """One way to compute the log-determinant in training, and another in evaluation.

    Args:
        training: the one in training.
        evaluation: the other.

    Raises:
        TypeError: if one is no :class:`~flowlib.LogDet`.

    Example:
        >>> ByMode(RussianRoulette(p=0.5), ExactLogDet())
        ByMode(
          (in_training): RussianRoulette(p=0.5, n_exact=2, probes=1, rho below 0.707)
          (in_evaluation): ExactLogDet()
        )
    """

    def __init__(self, training: LogDet, evaluation: LogDet) -> None:
        super().__init__()
        self.in_training = as_log_det("ByMode", "training", training)
        self.in_evaluation = as_log_det("ByMode", "evaluation", evaluation)

    def forward(self, x: Tensor, at: Linearized) -> Tensor:
        made: Tensor = (self.in_training if self.training else self.in_evaluation)(x, at)
        return made


# --- memory for time --------------------------------------------------------------------------


class RecomputedBlock(ResidualBlock):
    """A residual block that keeps no graph of its branch, and computes it again for the gradient.

    Of a call that records a gradient it keeps ``x``, the probes and their Neumann series: with one
    probe three tensors of the size of ``x``. Beside these it keeps each layer's weight and bias
    within their bound, which are as large as the parameters, whatever the batch; of the
    activations' parameters only references. A step takes about a quarter longer. As with any
    graph, PyTorch refuses the gradient where a parameter was changed in place in between.

    Its gradient is that of a plain backward pass, once: ``create_graph=True``, ``torch.func.grad``
    and the like, forward mode and ``vmap`` are refused where a gradient is recorded, and a
    :class:`ResidualBlock` allows them. In compiled code, and where none is recorded, it is one.

    Args:
        branch: a :class:`Branch`.
        log_det: a :class:`RussianRoulette`, or a :class:`ByMode` with one for training.
        tol: as in :class:`ResidualBlock`.
        max_iter: as in :class:`ResidualBlock`.

    Raises:
        TypeError: if the branch or the log-determinant is another one.
        RuntimeError: if a gradient is asked for in another way.

    Example:
        >>> block = RecomputedBlock(Branch(6, 16), RussianRoulette())
        >>> z, log_det = block(torch.randn(5, 6))
        >>> log_det.sum().backward()

    Source: Chen et al. (2019), section 3.2; Chen et al. (2016) for recomputation.
    """

    def __init__(
        self, branch: Branch, log_det: LogDet, *, tol: float = 1e-5, max_iter: int = 2000
    ) -> None:
        super().__init__(branch, log_det, tol=tol, max_iter=max_iter)
        if not isinstance(branch, Branch):
            raise TypeError(f"RecomputedBlock: expected a Branch, got a {type(branch).__name__}")
        if not isinstance(self._roulette(True), RussianRoulette):
            raise TypeError(
                "RecomputedBlock: expected a RussianRoulette in training, got a "
                f"{type(self._roulette(True)).__name__}"
            )

    def _roulette(self, training: bool) -> Any:
        if isinstance(self.log_det, ByMode):
            return self.log_det.in_training if training else self.log_det.in_evaluation
        return self.log_det

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        roulette = self._roulette(self.training)
        plain = torch.compiler.is_compiling() or not torch.is_grad_enabled()
        if plain or not isinstance(roulette, RussianRoulette):
            return super().forward(x, context)
        weights = [part for layer in self.branch.folded() for part in layer]
        value, log_det, *_ = _Recomputed.apply(  # type: ignore[no-untyped-call]
            self.branch, roulette, x, *weights, *self.branch.activations.parameters()
        )
        return x + value, log_det


class _Recomputed(torch.autograd.Function):
    """The value of a branch and its log-determinant, whose graph is made for the gradient only."""

    @staticmethod
    def forward(
        branch: Branch, roulette: RussianRoulette, x: Tensor, *weights: Tensor
    ) -> tuple[Tensor, ...]:
        at = branch.linearize(x, _pairs(branch, weights))
        n, v = roulette.throw(x)
        value, w = roulette.walk(n, v, at.jvp(v), at.vjp)
        return at.value, value, v, w

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.branch, _, *tensors = inputs
        ctx.names = [name for name, _ in ctx.branch.activations.named_parameters()]
        _, _, v, w = output
        ctx.mark_non_differentiable(v, w)
        ctx.save_for_backward(v, w, *tensors)
        device = v.device.type
        ctx.autocast = {
            "device_type": device,
            "dtype": torch.get_autocast_dtype(device),
            "enabled": torch.is_autocast_enabled(device),
        }

    @staticmethod
    def backward(ctx: Any, of_value: Tensor, of_log_det: Tensor, *_: Tensor) -> tuple[Any, ...]:
        if torch.is_grad_enabled():  # a second derivative would lack what is computed here
            _refuse("create_graph=True, as torch.func.grad, vjp and jacrev have it, too")
        v, w, *tensors = ctx.saved_tensors
        wanted = ctx.needs_input_grad[2:]  # frozen parameters are not differentiated
        inputs = [t.detach().requires_grad_(want) for t, want in zip(tensors, wanted, strict=True)]
        x, *weights = inputs
        n = 2 * len(ctx.branch.layers)
        # the layers' are given; of the activations, who read theirs, they take the place
        names = [f"branch.activations.{name}" for name in ctx.names]
        bends = dict(zip(names, weights[n:], strict=True))
        again, given = _Again(ctx.branch), (x, weights[:n], v, w)
        with torch.enable_grad(), torch.autocast(**ctx.autocast):
            value, shadow = (
                torch.func.functional_call(again, bends, given) if bends else again(*given)
            )
        needed = [t for t, want in zip(inputs, wanted, strict=True) if want]
        grads = iter(
            torch.autograd.grad([value, shadow], needed, [of_value, of_log_det], allow_unused=True)
        )
        return None, None, *(next(grads) if want else None for want in wanted)

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> NoReturn:
        _refuse("forward mode")

    @staticmethod
    def vmap(info: Any, in_dims: Any, *inputs: Any) -> NoReturn:
        _refuse("vmap where a gradient is recorded")


def _refuse(asked: str) -> NoReturn:
    raise RuntimeError(
        f"RecomputedBlock: expected to be differentiated by a plain backward pass, once, got "
        f"{asked}; a ResidualBlock allows it"
    )


class _Again(nn.Module):
    """What is computed a second time, as a module, whose parameters others can stand in for."""

    def __init__(self, branch: Branch) -> None:
        super().__init__()
        self.branch = branch

    def forward(
        self, x: Tensor, weights: Sequence[Tensor], v: Tensor, w: Tensor
    ) -> tuple[Tensor, Tensor]:
        at = self.branch.linearize(x, _pairs(self.branch, weights))
        return at.value, mean_product(w, at.jvp(v))


def _pairs(branch: Branch, weights: Sequence[Tensor]) -> list[tuple[Tensor, Tensor]]:
    return [(weights[2 * k], weights[2 * k + 1]) for k in range(len(branch.layers))]


# --- the activation ---------------------------------------------------------------------------


class LipSwish(Activation):
    r"""``h sigmoid(beta h) / 1.1``, with a learned ``beta`` above 0.

    The swish is nowhere steeper than 1.1, whatever ``beta``. It is nearly a straight line where
    many units live, of a slope near 1, and still bends there: its second derivative is zero at
    single points only, where an ELU's is zero for all positive numbers. The gradient of a
    log-determinant needs second derivatives.

    Example:
        >>> LipSwish()(torch.zeros(1)).item()
        0.0

    Source: Chen et al. (2019), section 3.3; Ramachandran et al. (2017) for the swish.
    """

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__(scale)
        self.raw_beta = nn.Parameter(torch.tensor(0.5))

    @property
    def beta(self) -> Tensor:
        """The steepness of its bend, above 0."""
        return nn.functional.softplus(self.raw_beta)

    def curve(self, h: Tensor) -> tuple[Tensor, Tensor]:
        u = self.beta * h
        gate = u.sigmoid()
        part = gate * (1 / 1.1)
        return h * part, part * (1 + u * (1 - gate))

    def value(self, h: Tensor) -> Tensor:
        return h * (self.beta * h).sigmoid() * (1 / 1.1)


# --- the ready flow ---------------------------------------------------------------------------

FEW = 3  # dimensions up to which the determinant itself is the cheaper one in training
EXACT_IN_EVALUATION = {1: 256, 3: 1024}  # of vectors and of pictures, whose pixels share products


def usual_log_det(event: torch.Size) -> LogDet:
    """How a :class:`ResidualFlow` computes log-determinants of such events."""
    dim, roulette = math.prod(event), RussianRoulette()
    if dim <= FEW:
        return ExactLogDet()
    return ByMode(roulette, ExactLogDet()) if dim <= EXACT_IN_EVALUATION[len(event)] else roulette


class ResidualFlow(Flow):
    """Residual blocks ``x + g(x)`` whose log-determinant is right on average.

    Args:
        event_shape: the number of coordinates, or the shape ``(C, H, W)`` of a picture.
        n_layers: the number of blocks; None for 16 in up to 3 dimensions, 4 in more, and 8 of
            pictures.
        hidden: the widths of the branches; None for 64 in up to 3 dimensions, 256 in more, and 48
            channels of pictures. A plane needs many small steps, a table of many columns wide ones.
        lipschitz: the bound of each branch, below 1.
        activation: makes a branch's activation from its scale; None as in :class:`Branch`.
        scale: the activations' scale; None for 20 in up to 3 dimensions, where densities have fine
            detail and data are many, and else as in :class:`Branch`.
        log_det: a function or a class that makes how a block computes its log-determinant; None for
            what is cheapest: exact in up to 3 dimensions, and in more a :class:`RussianRoulette` in
            training. In evaluation it is an :class:`ExactLogDet` in up to 256 dimensions and for
            pictures of up to 1,024 numbers. What is random there in evaluation comes from its
            ``seed``, and is another in each block.
        squeeze: of pictures, how often four pixels become four channels before the first block.
        recompute: whether to use :class:`RecomputedBlock`, which takes less memory and more time.
        tol: the largest error of each block's inverse.

    Raises:
        ValueError: if a number is out of its range, or the event no vector and no picture.
        TypeError: if ``recompute`` is asked for where the log-determinant is no roulette, or
            ``log_det`` makes no :class:`~flowlib.LogDet`.

    Example:
        >>> flow = ResidualFlow(6, n_layers=3, hidden=32)
        >>> flow.log_prob(torch.zeros(5, 6)).shape
        torch.Size([5])

    Source: Chen et al. (2019).
    """

    def __init__(
        self,
        event_shape: int | Sequence[int],
        n_layers: int | None = None,
        hidden: int | Sequence[int] | None = None,
        *,
        lipschitz: float = 0.97,
        activation: Callable[[float], Activation] | None = None,
        scale: float | None = None,
        log_det: Callable[[], LogDet] | None = None,
        squeeze: int = 0,
        recompute: bool = False,
        tol: float = 1e-5,
    ) -> None:
        event = as_event_shape(event_shape)
        few = math.prod(event) <= FEW
        depth, usual_width = (8, 48) if len(event) > 1 else (16, 64) if few else (4, 256)
        width = usual_width if hidden is None else hidden
        if scale is None and few and len(event) == 1:
            scale = 20.0

        def block(shape: torch.Size, k: int) -> ResidualBlock:
            branch = Branch(shape, width, lipschitz, activation, scale)
            usual = functools.partial(usual_log_det, shape)
            made = log_det_of_block("ResidualFlow", usual if log_det is None else log_det, k)
            return (RecomputedBlock if recompute else ResidualBlock)(branch, made, tol=tol)

        n_layers = depth if n_layers is None else n_layers
        super().__init__(*residual_blocks("ResidualFlow", event, n_layers, squeeze, block))

    def log_prob_with_error(
        self, x: Tensor, context: Tensor | None = None, n_draws: int = 16, seed: int = 0
    ) -> WithError:
        """:func:`log_prob_with_error` of this flow."""
        return log_prob_with_error(self, x, context, n_draws, seed)


# --- what to know about an estimate -------------------------------------------------------------


class WithError(NamedTuple):
    """An estimate with its standard error, and the independent draws that both come from.

    The ``value`` and the ``error``, of the leading shape of ``x``, and ``draws`` with one dimension
    more in front.
    """

    value: Tensor
    error: Tensor
    draws: Tensor


@torch.no_grad()
def log_prob_with_error(
    flow: Flow, x: Tensor, context: Tensor | None = None, n_draws: int = 16, seed: int = 0
) -> WithError:
    """The log-density by independent draws of all coins and probes, and its standard error.

    The error counts what is random in :class:`RussianRoulette` and in a
    :class:`~flowlib.PowerSeries`, in evaluation mode; the draws of an exact flow are all the same.
    It does not count the bias of a series that is cut off: :meth:`flowlib.PowerSeries.bias_bound`
    does. All rows of a draw share their numbers of terms, so that the
    error of a mean over rows comes from the draws' means, and not from the rows' errors:
    ``draws.mean(-1).std() / n_draws ** 0.5``. Where the variance is infinite, the error is not one:
    see :func:`spectral_radius`.

    Args:
        flow: a flow; its mode is left as it is.
        x: as in :meth:`Flow.log_prob`.
        context: as there.
        n_draws: how many draws, 2 or more.
        seed: of the draws.

    Raises:
        ValueError: if there are fewer than two draws, or ``x`` does not fit.

    Example:
        >>> flow = ResidualFlow(6, 2, 16, log_det=RussianRoulette)
        >>> found = log_prob_with_error(flow, torch.zeros(5, 6))
        >>> found.value.shape, found.error.shape, found.draws.shape
        (torch.Size([5]), torch.Size([5]), torch.Size([16, 5]))
    """
    n_draws = as_count("log_prob_with_error", "n_draws", n_draws, 2)
    with _in_evaluation(flow), _independent(flow, seed):
        draws = torch.stack([flow.log_prob(x, context) for _ in range(n_draws)])
    return WithError(draws.mean(0), draws.std(0) / math.sqrt(n_draws), draws)


@contextlib.contextmanager
def _independent(flow: nn.Module, seed: int) -> Iterator[None]:
    """Each call of what is random draws anew, in evaluation, too."""
    estimators = [part for part in flow.modules() if isinstance(part, Probed)]
    rng = np.random.default_rng(as_count("log_prob_with_error", "seed", seed, 0))
    try:
        for part in estimators:
            part._rng = rng
        yield
    finally:
        for part in estimators:
            part._rng = None


@contextlib.contextmanager
def _in_evaluation(flow: nn.Module) -> Iterator[None]:
    modes = [(part, part.training) for part in flow.modules()]
    try:
        flow.eval()
        yield
    finally:
        for part, mode in modes:
            part.training = mode


@torch.no_grad()
def spectral_radius(flow: nn.Module, x: Tensor, n_steps: int = 64) -> Tensor:
    """Of each residual block the largest absolute eigenvalue of its branch's Jacobian at data.

    A :class:`RussianRoulette` has a finite variance in a block where ``1 - p`` is more than its
    square. Found by repeated products with the Jacobian; it says so in a warning where a
    roulette's ``p`` is too large.

    Args:
        flow: a flow, or a bijection of residual blocks.
        x: ``(batch, *event)``, at least one row.
        n_steps: how many products. The error shrinks as one over their number.

    Returns:
        ``(blocks,)``, the largest over the rows, in the order in which data meet the blocks.

    Raises:
        ValueError: if no data go through a residual block, or ``x`` has no row.

    Example:
        >>> spectral_radius(ResidualFlow(6, 3, 16), torch.randn(5, 6)).shape
        torch.Size([3])
    """
    n_steps = as_count("spectral_radius", "n_steps", n_steps, 2)
    if not len(x):
        raise ValueError("spectral_radius: expected at least one row, got none")
    found: list[tuple[Any, Tensor]] = []

    def look(block: Any, inputs: tuple[Any, ...]) -> None:
        radius = _radius(linearize(block.branch, inputs[0]), inputs[0], n_steps).max()
        found.append((block, radius))

    blocks = [part for part in flow.modules() if isinstance(part, ResidualBlock)]
    hooks = [block.register_forward_pre_hook(look) for block in blocks]
    try:
        with _in_evaluation(flow):
            flow.bijection.unchecked(x) if isinstance(flow, Flow) else flow(x)
    finally:
        for hook in hooks:
            hook.remove()
    if not found:
        raise ValueError(
            f"spectral_radius: expected residual blocks that data go through, got a "
            f"{type(flow).__name__} with {len(blocks)}, none of them used"
        )
    radii = torch.stack([radius for _, radius in found])
    for radius, block in zip(radii.tolist(), [block for block, _ in found], strict=True):
        for part in block.log_det.modules():
            if isinstance(part, RussianRoulette) and not radius**2 <= 1 - part.p:
                warnings.warn(
                    f"spectral_radius: a block has {radius:.3g}, at which a roulette with "
                    f"p={part.p:g} has an infinite variance; a p below {1 - radius**2:.2g} has not",
                    stacklevel=2,
                )
    return radii


def _radius(at: Linearized, x: Tensor, n_steps: int) -> Tensor:
    """The growth of a vector over the last half of so many products, ``(batch,)``."""
    generator = torch.Generator(x.device).manual_seed(0)
    w = torch.randn(x.shape, generator=generator, dtype=x.dtype, device=x.device)
    growths = []
    for _ in range(n_steps):
        w = at.vjp(w)
        length = torch.linalg.vector_norm(w.flatten(1), dim=1)
        growths.append(length)
        w = w / length.clamp(min=torch.finfo(w.dtype).tiny).view(-1, *[1] * (w.dim() - 1))
    return torch.stack(growths[n_steps // 2 :]).log().mean(0).exp()
