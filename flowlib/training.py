"""One training loop for the whole book, and two things to put in it.

:func:`fit` maximises the likelihood of data. :func:`fit_variational` fits a flow to a density that
can be evaluated up to a constant and not sampled. Everything random in step ``n`` is drawn from a
stream that ``seed`` and ``n`` alone decide, so a run that was stopped and resumed sees what it
would have seen.
"""

from __future__ import annotations

import copy
import functools
import inspect
import logging
import math
import os
import pickle
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field, fields
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import numpy as np
import torch
from torch import Tensor
from torch.distributions import Distribution, Normal
from tqdm.auto import tqdm

from flowlib import columns
from flowlib.arguments import as_count, as_number, require_context
from flowlib.arrays import Names
from flowlib.engines import Team
from flowlib.flow import Density, Flow
from flowlib.normalization import BatchNorm
from flowlib.rows import (
    SPLIT,
    Batches,
    Exhausted,
    Function,
    HeldOut,
    Judges,
    Rows,
    Table,
    as_batches,
    as_judges,
    as_rows,
    digest,
    hold_out,
    is_batches,
    is_rows,
    looked_at,
    whole,
)
from flowlib.shares import Share, on_a_share
from flowlib.units import far_from

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["History", "TrainingOptions", "fit", "fit_variational"]

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")
LOG = logging.getLogger("flowlib")
GO_ON = (
    ". A cosine's rates depend on steps: to train on, fit the trained flow again, with another file"
)
VALIDATION, FIRST = SPLIT, SPLIT + 1  # streams of randomness that are no step's


@dataclass
class History:
    """What a training run saw, in nats per data point; lower is better.

    Attributes:
        train: the loss of every step's batch.
        valid: pairs ``(step, loss)`` on the validation part, if there is one; the first is of step
            0, of the weights that the run began with.
        best_step: the step whose weights the flow was left with, 0 for those it began with.
        interrupted: whether Ctrl-C ended the run.
        stopped_early: whether ``patience`` ended it.
    """

    train: list[float] = field(default_factory=list)
    valid: list[tuple[int, float]] = field(default_factory=list)
    best_step: int = 0
    interrupted: bool = False
    stopped_early: bool = False

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the losses over the steps; returns the matplotlib axes."""
        from flowlib import plotting  # matplotlib is slow to import, and few runs are plotted

        return plotting.plot_history(self, ax)


@dataclass(frozen=True)
class TrainingOptions:
    """How a run goes; :func:`fit` and :func:`fit_variational` take each of these by its name.

    Attributes:
        steps: how many gradient steps.
        batch_size: rows, or draws, a step; of rows a larger number than there are means all.
        lr: Adam's first rate.
        schedule: ``"cosine"``, falling to zero along half a cosine, or ``"constant"``.
        clip_norm: the largest norm of a gradient; longer ones are shortened to it.
        eval_every: steps between two looks at the validation part, and between checkpoints.
        patience: stop after so many looks without a better one; by default never. It needs a
            validation part.
        seed: of the split, the batches, and whatever else is random inside the model. The
            caller's own random state is left as it is.
        device: where to train; ``"auto"`` takes ``cuda`` if there is one, and else ``cpu``.
            ``"mps"`` has no float64, in which norms are computed, and is taken only where it is
            asked for.
        checkpoint: a file that the run's whole state is written to now and then. If it exists,
            the run goes on from there, and on a CPU ends with the bits it would have had; a run
            that has ended comes back at once. A file of a run with other settings, weights or data
            is refused, as far as can be seen: a function's data cannot. Only ``steps`` may be
            others, where ``schedule`` is ``"constant"``.
        progress: whether to show a bar; by default in a terminal and in a notebook, and not where
            it would fill a log. The environment variable ``FLOWLIB_PROGRESS``, 0 or 1, decides for
            all runs that do not say. Python's log ``flowlib`` gets a line, of level INFO, where the
            run begins or goes on, and at every look.
        compile: whether ``torch.compile`` makes machine code of the training loss. It takes a C++
            compiler, and on a GPU triton. The first step waits for it, for five seconds to a minute
            and longer in a process that has compiled nothing: it is for long runs. On a CPU a step
            of NICE, RealNVP or MAF takes two thirds of the time, one of IAF three quarters, one of
            residual flows half to two thirds, one of ``ImageRealNVP`` five sixths. The flow stays
            what it is, and is judged without it. Losses have other last bits, and where values are
            not finite the loss says so, not the layer. PyTorch keeps eight versions of what it has
            compiled, for flows or batches of other shapes and a roulette's numbers of terms; then
            it warns and compiles no more, until ``torch.compiler.reset()``.
        engine: an ``accelerate.Accelerator``, to train on several processes; from it come the
            devices and the precision, so ``device`` is left as it is. The same call is then the
            same run on one process or on many: ``batch_size`` counts the rows of a step on all of
            them. How, and what it costs, is on the page *Beyond one machine*. Only :func:`fit`
            takes one.

    Raises:
        ValueError: if an option is out of its range, or does not go with another.
    """

    steps: int = 1000
    batch_size: int = 256
    lr: float = 1e-3
    schedule: str = "cosine"
    clip_norm: float | None = None
    eval_every: int = 50
    patience: int | None = None
    seed: int = 0
    device: str | torch.device = "auto"
    checkpoint: str | Path | None = None
    progress: bool | None = None
    compile: bool = False
    engine: Any = None

    @classmethod
    def of(cls, where: str, options: dict[str, Any]) -> TrainingOptions:
        """The options with these names; ``TypeError`` for a name that is unknown."""
        names = [f.name for f in fields(cls)]
        unknown = sorted(set(options) - set(names))
        if unknown:
            raise TypeError(
                f"{where}: expected options among {', '.join(names)}, got {', '.join(unknown)}"
            )
        return cls(**options)

    def __post_init__(self) -> None:
        where = "training"
        if self.schedule not in ("cosine", "constant"):
            raise ValueError(
                f'{where}: expected schedule "cosine" or "constant", got {self.schedule!r}'
            )
        if self.compile not in (True, False):
            raise ValueError(f"{where}: expected compile True or False, got {self.compile!r}")
        if self.engine is not None and (self.compile or self.device != "auto"):
            name, value = ("compile", True) if self.compile else ("device", self.device)
            raise ValueError(f"{where}: expected no {name} beside an engine, got {name}={value!r}")
        least = {"steps": 1, "batch_size": 1, "eval_every": 1, "patience": 1, "seed": 0}
        for name, value in vars(self).items():
            if name in least and value is not None:
                object.__setattr__(self, name, as_count(where, name, value, least[name]))
            elif name in ("lr", "clip_norm") and value is not None:
                object.__setattr__(self, name, as_number(where, name, value))

    def rate(self, step: int) -> float:
        """Adam's rate in a step."""
        falling = 0.5 * (1 + math.cos(math.pi * (step - 1) / self.steps))
        return self.lr * (falling if self.schedule == "cosine" else 1.0)

    def settings(self) -> dict[str, Any]:
        """What a checkpoint must agree on."""
        # the batch's size is in `about`; on how many processes a run began is nothing to it
        elsewhere = ("device", "checkpoint", "progress", "batch_size", "engine")
        own = {k: v for k, v in vars(self).items() if k not in elsewhere}
        if self.schedule == "constant":  # no step depends on how many there will be
            del own["steps"]
        return {**own, "precision": getattr(self.engine, "mixed_precision", "no")}


def _takes_options(function: F) -> F:
    """Show the options, which are spelled once, in the function's signature."""
    signature = inspect.signature(function)
    options = [
        inspect.Parameter(
            f.name, inspect.Parameter.KEYWORD_ONLY, default=f.default, annotation=f.type
        )
        for f in fields(TrainingOptions)
    ]
    *own, _ = signature.parameters.values()
    function.__signature__ = signature.replace(parameters=[*own, *options])  # type: ignore[attr-defined]
    return function


@_takes_options
def fit(
    flow: Density,
    data: Any,
    *,
    context: Any = None,
    weights: Any = None,
    validation: Any = None,
    **options: Any,
) -> History:
    """Train a density by maximum likelihood with Adam, in place.

    The weights it ends with are those of the best validation loss, and those it began with count,
    too: a run leaves nothing worse than it found. Without a validation part they are the last.
    Batches are drawn without replacement, epoch by epoch. If Ctrl-C ends the run, the flow has the
    best weights so far and the history comes back as usual.

    Data and contexts come in their own units: the flow's first layers and its contexts take mean
    and deviation from them, once. The names of a table's columns are kept in ``flow.columns``.
    Tables that come later, to another run, to ``validation`` or to ``flow.log_prob``, must have
    columns of these names, in any order.

    While it runs, PyTorch's random generator belongs to it. Two runs in two threads of one process
    would draw from each other's streams: both train, and neither can be repeated. Use processes.

    Args:
        flow: what to train. It comes back on the device that it came from.
        data: rows ``(n, *event)``, at least two: a tensor, an array, a table such as pandas'
            DataFrame, or a list of rows. Or a tuple ``(x, context)`` or ``(x, context, weights)``
            of as many rows each; None stands for no context. Or a function that makes such a batch
            for step 1, 2, .... Or a ``DataLoader``, or another iterable of such batches, which
            then have the sizes that they have: it is gone through again and again, and a generator,
            which cannot be, ends the run where it ends. An array that is memory-mapped, as by
            ``np.load(path, mmap_mode="r")``, stays in its file: rows are read when their step
            comes, and a sample of them is looked at for what has no density.
        context: the contexts ``(n, C)``, if they are not in ``data``.
        weights: how much each row counts, ``(n,)``, 0 or more, such as a survey's or those of
            importance sampling; a row of weight 2 counts as two rows. Only their ratios matter. Of
            a function's batches, only those within a batch.
        validation: the share of ``data`` kept from training to choose the weights by, or data of
            its own, or 0 for no validation. By default a tenth; no validation if ``data`` is a
            function or gives batches. Its own are rows as in ``data``, or a ``DataLoader`` or
            another iterable of batches, gone through from end to end at every look.
        **options: the fields of :class:`TrainingOptions`, such as ``steps`` and ``lr``.

    Returns:
        The :class:`History` of losses.

    Raises:
        TypeError: if ``data`` is of another kind than these or has other values than numbers, or
            an option is unknown.
        ValueError: if ``data`` has the wrong shape, no row or one, or values that are masked, not
            finite or not real; if a table has other columns than the flow knows; if the flow's
            dtype is too coarse for a column; if an option is out of its range; if the checkpoint is
            of another run, or on another host; if ``engine`` knows of one process where more were
            launched.
        OSError: if nothing can be written at ``checkpoint``; raised before the first step.
        RuntimeError: if ``compile`` is asked for where PyTorch has no compiler; raised before the
            first step, and the flow is as it was.
        FloatingPointError: if a loss, a gradient or a validation loss stops being finite. The
            flow then has its best weights, and the error the run so far as its ``history``. Any
            other error that comes out of a step leaves the best weights, too.

    Warns:
        UserWarning: once a run, if columns have no density (constants, copies, whole numbers, one
            value in many rows), if one has values far outside, if a context never varies or is one
            of the data's columns, or if data meet the flow in units that it does not know. And if a
            generator ends before the last step, or if no look found better weights than those
            that the run began with, and it is no overfitting: validation is in other units than
            data, or the training loss has not fallen either.

    Example:
        >>> from flowlib import LULinear, StandardNormal
        >>> x = 3 + 2 * torch.randn(500, 2, generator=torch.Generator().manual_seed(0))
        >>> flow = Flow(LULinear(2), StandardNormal(2))
        >>> history = fit(flow, x, steps=300, lr=0.05, progress=False)
        >>> history.valid[-1][1] < history.valid[0][1]
        True
    """
    chosen = TrainingOptions.of("fit", options)
    if not isinstance(flow, Density):
        raise TypeError(f"fit: expected a Density such as a Flow, got a {type(flow).__name__}")
    _require_weights("fit", flow)
    with torch.inference_mode(False):
        return _fit(flow, data, {"context": context, "weights": weights}, validation, chosen)


def _taken(
    flow: Density, data: Any, named: dict[str, Any], validation: Any, chosen: TrainingOptions
) -> tuple[Batches, Judges | None, Rows | None]:
    """The batches to train on, what judges the weights, and the rows that were held out for it."""
    judges: Judges | None = None
    held_out: Rows | None = None
    batches: Batches
    if callable(data) or is_batches(data):
        kind = "a function" if callable(data) else f"a {type(data).__name__}"
        given = [part for part, value in named.items() if value is not None]
        if given:
            raise ValueError(f"fit: {kind} returns its {given[0]} with each batch")
        if isinstance(validation, Real) and validation:
            raise ValueError(f"fit: {kind} has no share to hold out; give validation data")
        batches = Function(flow, data) if callable(data) else as_batches(flow, data, chosen.seed)
        if is_rows(validation):
            judges = as_judges(flow, validation, lambda: batches.names, chosen.seed)
            batches.names = batches.names.or_else(judges.names)
    else:
        rows, names = as_rows("fit", flow, "data", data, **named)
        its = rows.context  # of which the shape is looked at, not what is in the file
        shaped = None if its is None else torch.empty(its.shape, device="meta", dtype=its.dtype)
        require_context("fit", shaped, flow.context_dim)
        if is_rows(validation):
            judges = as_judges(flow, validation, lambda: names, chosen.seed)
        else:
            share = 0.1 if validation is None else validation
            rows, held_out = hold_out(rows, share, chosen.seed)
            judges = HeldOut(held_out, names) if len(held_out.x) else None
        valid = judges.rows if isinstance(judges, HeldOut) else None
        batches = Table(
            flow, rows, names, 0 if valid is None else len(valid.x), chosen.batch_size, chosen.seed
        )
        if valid is not None and (valid.context is None) != (rows.context is None):
            raise ValueError(
                f"fit: expected validation with a context if data has one, and only then: data is "
                f"({rows.kind()}), validation ({valid.kind()})"
            )
    return batches, judges, held_out


def _fit(
    flow: Density, data: Any, named: dict[str, Any], validation: Any, chosen: TrainingOptions
) -> History:
    team = None if chosen.engine is None else Team("fit", chosen.engine)
    if team is not None and team.pieces > 1:
        _require_independent_rows(flow, team.pieces)
    take = functools.partial(_taken, flow, data, named, validation, chosen)
    # one process may have another file, and what is wrong with it is said on all
    taken = take() if team is None else team.every("when it took its data", take)
    batches, judges, held_out = taken
    in_training = flow.log_prob
    if chosen.compile:
        in_training = _compiled("fit", flow.log_prob, _device(chosen.device))

    def on_device(step: int, share_of: Callable[[int], Share]) -> tuple[Rows, Share]:
        rows, share = batches.part(step, share_of)
        return _on(flow, rows), share

    def nll(rows: Rows, log_prob: Callable[..., Tensor] = flow.log_prob) -> Tensor:
        """Of each row, times its weight."""
        x, context, weights = _on(flow, rows)
        loss = -log_prob(x, context)
        return loss if weights is None else loss * weights

    def share_of(count: int) -> Share:
        return Share.of(count, 0, 1) if team is None else team.share_of(count)

    def judged(piece: Rows, share: Share) -> float:
        """The losses of some rows, of which this process has a share."""
        with on_a_share(share):
            return nll(piece).sum().item()

    def own() -> float:
        assert judges is not None
        return float(sum(judged(*piece) for piece in judges.pieces(share_of)))

    def evaluate() -> float:
        assert judges is not None
        total = own() if team is None else team.total("when weights were judged", own)
        return total / judges.weight

    to_judge = "0 to validate" if judges is None else judges.about()
    task = _Task(
        where="fit",
        flow=flow,
        loss=lambda step: nll(batches.part(step, whole)[0], in_training).mean(),
        begin=lambda: _start(flow, batches, held_out),
        evaluate=None if judges is None else evaluate,
        about=lambda: f"{batches.about()}, {to_judge}",
        team=team,
        descend=lambda team, step: team.descend(step, on_device, nll),
        first=lambda: (digest(batches.batch(1)), to_judge),
        names=lambda: batches.names,
    )
    history = _train(task, chosen)
    cause = _why_none_was_better(history, chosen, flow.event_shape.numel())
    if cause and task.is_main:
        warnings.warn(
            "fit: on the validation rows no weights were better than those that the run began "
            f"with, and the flow has kept those. {cause}",
            stacklevel=3,
        )
    return history


def _why_none_was_better(history: History, chosen: TrainingOptions, dim: int) -> str:
    """The likely cause if the first look was the best and it is no overfitting; else ``""``."""
    looks = [loss for _, loss in history.valid]
    if len(looks) < 3 or history.best_step or history.interrupted:  # one look more says little
        return ""
    first, last = (
        history.train[0],
        float(np.mean(history.train[-max(1, len(history.train) // 10) :])),
    )
    if looks[0] - first > dim:  # a nat for each number: no chance, and no tail
        return (
            f"At the start the loss is {looks[0]:.5g} on them and {first:.5g} on the data: are "
            "they in the units of the data, and their columns in the same order?"
        )
    if not last < first:
        return (
            f"The loss of the training rows has not fallen either, from {first:.5g} to {last:.5g}: "
            f"try a smaller lr (it was {chosen.lr:g}), unless an earlier run has left the weights "
            "where they are best"
        )
    return ""


def _require_independent_rows(flow: Density, pieces: int) -> None:
    if any(isinstance(part, BatchNorm) for part in flow.modules()):
        raise ValueError(
            "fit: expected gradient_accumulation_steps=1 of the engine for a flow with a "
            f"BatchNorm, whose statistics are those of a whole batch, got {pieces}; ActNorm has "
            "none"
        )


def _start(flow: Density, batches: Batches, held_out: Rows | None) -> list[str]:
    """Set what starts from data, and say what cannot be learnt of it or judged by it."""
    first = batches.batch(1)
    names = batches.names
    known = batches.known(first)
    first = _on(flow, first)
    if known.context is not None:
        flow.initialize_context(known.context.to(first.x.device))
    flow.initialize(first.x, first.context)
    rows = [known] if held_out is None else [known, looked_at(held_out)]
    found = []
    if not flow.discrete:
        found += columns.faults(torch.cat([part.x for part in rows]), names.x)
    if known.context is not None:
        contexts = torch.cat([part.context for part in rows if part.context is not None])
        found += columns.context_faults(contexts, names.context)
        found += columns.shared(torch.cat([part.x for part in rows]), contexts, *names)
    return found + _unknown_units(flow, first)


def _unknown_units(flow: Density, first: Rows) -> list[str]:
    """What to say if nothing in the flow starts from data, and data are far from its base."""
    if not isinstance(flow, Flow):
        return []
    flow.eval()  # nothing is to be counted or updated
    with torch.no_grad():
        z, _ = flow.bijection.unchecked(first.x, flow.in_own_units(first.context))
        found = far_from(z, flow.base.sample(1000))
    if not found.off.any():
        return []
    return [
        f"The flow does not know the units of the data: at its start {found.first()}, and "
        f"{int(found.off.sum())} of {found.off.numel()} are far from the base. Put an ActNorm in "
        "front, which starts where the data are; if it has one, and has been fitted before, make "
        "the flow anew."
    ]


@_takes_options
def fit_variational(
    flow: Flow,
    log_density: Callable[[Tensor], Tensor],
    *,
    validation: int = 2000,
    **options: Any,
) -> History:
    r"""Fit a flow to an unnormalised density by reverse KL, in place.

    The loss is :math:`\mathbb E_q[\log q(x) - \log \tilde p(x)]` over the flow's own draws, the
    negative of the evidence bound: where :math:`\tilde p` integrates to :math:`Z` it is
    :math:`\mathrm{KL}(q \| p) - \log Z`.

    Args:
        flow: what to train, able to sample with a gradient.
        log_density: takes points ``(n, *event)`` and gives ``log p`` up to a constant, ``(n,)``,
            differentiable.
        validation: how many draws, the same at every look, judge the weights; 0 for no validation.
        **options: the fields of :class:`TrainingOptions`, such as ``steps`` and ``lr``.

    What is returned and what is raised is as with :func:`fit`. Also:

    Raises:
        TypeError: if ``flow`` is not a :class:`Flow`: of other densities draws have no gradient.
        FloatingPointError: if the flow draws where ``log_density`` is minus infinity. Reverse KL
            is infinite then: let the flow end on the density's support.

    Example:
        >>> from flowlib import ElementwiseAffine, StandardNormal
        >>> flow = Flow(ElementwiseAffine(1), StandardNormal(1))
        >>> history = fit_variational(
        ...     flow, lambda x: -0.5 * (x[:, 0] - 3) ** 2, lr=0.05, progress=False
        ... )
        >>> round(-history.valid[-1][1], 2)  # log Z is 0.92
        0.92

    Source: Rezende and Mohamed (2015), eq. 15; Papamakarios et al. (2021), section 2.3.2.
    """
    chosen = TrainingOptions.of("fit_variational", options)
    validation = as_count("fit_variational", "validation", validation, 0)
    if not isinstance(flow, Flow):
        raise TypeError(
            f"fit_variational: expected a Flow, whose draws are differentiable, got a "
            f"{type(flow).__name__}"
        )
    if flow.context_dim:
        raise ValueError(
            f"fit_variational: expected a flow without a context, got one of {flow.context_dim}"
        )
    if chosen.engine is not None:
        raise ValueError(
            "fit_variational: expected no engine, which shares out rows of data, got one; fit "
            "takes it"
        )
    _require_weights("fit_variational", flow)
    Draw = Callable[[int], tuple[Tensor, Tensor]]
    own: Draw = flow.rsample_and_log_prob
    in_training = own
    if chosen.compile:
        in_training = _compiled("fit_variational", own, _device(chosen.device))

    def loss(n: int, draw: Draw = own) -> Tensor:
        x, log_q = draw(n)
        log_p = log_density(x)
        if not isinstance(log_p, Tensor) or log_p.shape != (n,):
            got = tuple(log_p.shape) if isinstance(log_p, Tensor) else type(log_p).__name__
            raise ValueError(f"fit_variational: expected log_density of shape ({n},), got {got}")
        if torch.is_grad_enabled() and not log_p.requires_grad:
            raise ValueError("fit_variational: log_density does not depend differentiably on x")
        _require_support(x, log_p)
        return (log_q - log_p).mean()

    task = _Task(
        where="fit_variational",
        flow=flow,
        loss=lambda step: loss(chosen.batch_size, in_training),
        begin=None,
        evaluate=(lambda: loss(validation).item()) if validation else None,
        about=lambda: f"{chosen.batch_size} draws a step, {validation} to validate",
    )
    with torch.inference_mode(False):
        return _train(task, chosen)


def _require_support(x: Tensor, log_p: Tensor) -> None:
    outside = log_p == -math.inf
    if outside.any():
        where = ", ".join(f"{value:.3g}" for value in x[outside][0].flatten()[:4].tolist())
        raise FloatingPointError(
            f"fit_variational: {int(outside.sum())} of {len(x)} draws are where log_density is "
            f"-inf, such as at ({where}), and reverse KL is infinite. Let the flow draw on the "
            "density's support alone: its first map is Logit() for an interval, Inverse(Softplus())"
            " for positive numbers"
        )


def _require_weights(where: str, flow: Density) -> None:
    if not any(p.requires_grad for p in flow.parameters()):
        raise ValueError(f"{where}: the flow has no weights to train")
    if any(t.is_inference() for t in (*flow.parameters(), *flow.buffers())):
        raise ValueError(
            f"{where}: the flow was made under torch.inference_mode, and its weights can never be "
            "trained; make it outside"
        )


def _on(flow: Density, rows: Rows) -> Rows:
    device = next(flow.parameters()).device
    return rows.each(lambda part: part.to(device, non_blocking=True))


# --- the loop -----------------------------------------------------------------------------


@dataclass
class _Task:
    """What is trained: the loss of a step's batch, and how weights are judged."""

    where: str
    flow: Density
    loss: Callable[[int], Tensor]
    begin: Callable[[], list[str]] | None  # set what starts from data; what is to be said of it
    evaluate: Callable[[], float] | None
    about: Callable[[], str]  # the data in words, for a checkpoint; to digest them takes time
    team: Team | None = None  # who trains it together
    descend: Callable[[Team, int], float] | None = None  # and a step's gradient, then
    first: Callable[[], Any] | None = None  # what must be the same on all of them
    names: Callable[[], Names] | None = None  # of the columns, after the first step

    def every(self, doing: str, work: Callable[[], T]) -> T:
        """What all processes do, or none."""
        return work() if self.team is None else self.team.every(doing, work)

    @property
    def is_main(self) -> bool:
        """Whether this process speaks and writes."""
        return self.team is None or self.team.is_main


def _train(task: _Task, options: TrainingOptions) -> History:
    if options.patience is not None and task.evaluate is None:
        raise ValueError(f"{task.where}: patience needs a validation part, and there is none")
    team = task.team
    file = task.every("at its start", lambda: _Checkpoint(task, options))
    device = _device(options.device) if team is None else team.device
    together = nullcontext() if team is None else team.training(task.flow)
    with (
        torch.enable_grad(),
        _at(task.flow, device),
        _random_streams(device) as stream,
        together,
    ):
        run = _Run(task, options, stream)
        if team is not None and task.first is not None:
            stream(options.seed, FIRST)
            team.require_same("the first batch", team.every("at its start", task.first))
        resumed = file.load(run)
        run.announce()
        if not resumed:
            run.begin()
        with run.bar:
            try:
                run.go(file)
            finally:
                if task.names is not None and any(task.names()):
                    task.flow.columns = task.names()
    return run.history


class _Run:
    """All that a run is made of: weights, the best weights, the optimizer, what was seen."""

    def __init__(
        self, task: _Task, options: TrainingOptions, stream: Callable[[int, int], None]
    ) -> None:
        self.task, self.options, self.stream = task, options, stream
        self.flow = task.flow
        self.parameters = [p for p in self.flow.parameters() if p.requires_grad]
        self.optimizer = torch.optim.Adam(self.parameters, lr=options.lr, fused=True)
        self.history = History()
        self.best: dict[str, Any] = {}
        self.best_value = math.inf
        self.since_best = 0

    @functools.cached_property
    def bar(self) -> Any:
        show = self.options.progress
        if show is None:
            wish = os.environ.get("FLOWLIB_PROGRESS")
            show = wish == "1" if wish in ("0", "1") else _is_watched()
        done = len(self.history.train)
        hidden = not show or not self.task.is_main
        return tqdm(total=self.options.steps, initial=done, disable=hidden, desc=self.task.where)

    def announce(self) -> None:
        """Say where the run begins, and on how many processes."""
        done, count = len(self.history.train), 1 if self.task.team is None else self.task.team.count
        after = f"goes on after step {done} of {self.options.steps}" if done else "begins"
        file = self.options.checkpoint
        named = "" if file is None else f"; its checkpoint is {file}"
        self.say(f"{after}, on {count} process{'es' if count > 1 else ''}{named}")

    def say(self, words: str) -> None:
        """A line for the log, from one process."""
        if self.task.is_main:
            LOG.info("%s: %s", self.task.where, words)

    def begin(self) -> None:
        if self.task.begin is not None:
            self.stream(self.options.seed, FIRST)
            found = self.task.every("at its start", self.task.begin)
            if found and self.task.is_main:
                warnings.warn("fit: " + "\n".join(found), stacklevel=5)
        self.keep(0, math.inf)  # what a failure in the first steps goes back to
        if self.task.evaluate is not None:
            value = self.judge()
            self.history.valid.append((0, value))
            if math.isfinite(value):  # or any weights are better
                self.keep(0, value)

    def go(self, file: _Checkpoint) -> None:
        """All steps to the end, to Ctrl-C or to an error; the best weights stay."""
        self.flow.train()
        done = len(self.history.train)
        self.looked = done  # the training losses since the last look begin here
        try:
            for step in range(done + 1, self.options.steps + 1):
                if self.history.stopped_early:
                    break
                try:
                    self.take(step)
                except Exhausted as end:
                    self.end(end, file)
                    break
                if step % self.options.eval_every == 0 or step == self.options.steps:
                    self.look(step)
                    file.save(self)
            self.task.every("at its end", lambda: None)  # Ctrl-C may have come since they met
        except KeyboardInterrupt:
            # No checkpoint here: a step may be half done. The last one on disk is whole.
            self.history.interrupted = True
        except Exception:
            self.restore()
            raise
        if self.task.evaluate is not None:
            self.restore()
        else:
            self.history.best_step = len(self.history.train)

    def end(self, end: Exhausted, file: _Checkpoint) -> None:
        """There are no more batches."""
        done = len(self.history.train)
        if self.task.is_main:
            warnings.warn(
                f"{self.task.where}: {end}; the run ends after {done} of {self.options.steps} "
                "steps",
                stacklevel=6,
            )
        if done > self.looked:
            self.look(done)
            file.save(self)

    def take(self, step: int) -> None:
        """One gradient step."""
        self.stream(self.options.seed, step)
        if self.task.team is not None and self.task.descend is not None:
            self.optimizer.zero_grad(set_to_none=True)
            value = self.task.descend(self.task.team, step)
            norm = self.clipped()
        else:
            loss = self.task.loss(step)
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            norm = self.clipped()
            value = loss.item()
        self.require_finite(step, **{"loss": value, "gradient's norm": norm.item()})
        self.optimizer.param_groups[0]["lr"] = self.options.rate(step)
        self.optimizer.step()
        self.history.train.append(value)
        self.bar.update()

    def clipped(self) -> Tensor:
        """The gradient's norm; a longer one than may be is shortened."""
        longest = self.options.clip_norm or math.inf
        return torch.nn.utils.clip_grad_norm_(self.parameters, longest)

    def look(self, step: int) -> None:
        """Judge the weights, and keep them if they are the best so far."""
        if self.task.team is not None:
            self.task.team.agree(self.flow)
        mean = float(np.mean(self.history.train[self.looked :]))
        news = f"step {step} of {self.options.steps}, training loss {mean:.4f}"
        if self.task.evaluate is None:
            # Nothing judges the weights but the loss itself; a failure goes back to them.
            self.offer(step, mean)
        else:
            judged = self.judge()
            self.require_finite(step, **{"validation loss": judged})
            self.history.valid.append((step, judged))
            self.offer(step, judged)
            self.bar.set_postfix(valid=f"{judged:.3f}")
            patience = self.options.patience
            self.history.stopped_early = patience is not None and self.since_best >= patience
            news += f", validation loss {judged:.4f}"
        self.say(news)
        self.looked = step

    def judge(self) -> float:
        """The validation loss of the present weights."""
        assert self.task.evaluate is not None
        self.stream(self.options.seed, VALIDATION)
        self.flow.eval()
        with torch.no_grad():
            judged = self.task.evaluate()
        self.flow.train()
        return judged

    def require_finite(self, step: int, **values: float) -> None:
        for what, value in values.items():
            if not math.isfinite(value):
                error = FloatingPointError(
                    f"{self.task.where}: the {what} is {value} at step {step}; the flow has its "
                    f"weights of step {self.history.best_step}. Try a smaller lr (it was "
                    f"{self.options.lr:g}), clip_norm (it was {self.options.clip_norm}), or data "
                    "on a common scale"
                )
                error.history = self.history  # type: ignore[attr-defined]
                raise error

    # --- the best weights, and the whole state ---

    def keep(self, step: int, value: float) -> None:
        self.best = copy.deepcopy(self.flow.state_dict())
        self.best_value, self.since_best, self.history.best_step = value, 0, step

    def offer(self, step: int, value: float) -> None:
        """Keep the present weights if they are the best so far."""
        if value < self.best_value:
            self.keep(step, value)
        else:
            self.since_best += 1

    def restore(self) -> None:
        self.flow.load_state_dict(self.best)

    def state(self) -> dict[str, Any]:
        return {
            "flow": self.flow.state_dict(), "best": self.best, "best_value": self.best_value,
            "since_best": self.since_best, "optimizer": self.optimizer.state_dict(),
            "history": asdict(self.history),
        }  # fmt: skip

    def load(self, state: dict[str, Any]) -> None:
        self.flow.load_state_dict(state["flow"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.best, self.best_value = state["best"], state["best_value"]
        self.since_best = state["since_best"]
        for name, value in state["history"].items():
            setattr(self.history, name, value)
        self.history.valid = [(step, loss) for step, loss in self.history.valid]
        self.history.interrupted = False


class _Checkpoint:
    """A run's state in a file, replaced whole or not at all; without a path it does nothing."""

    def __init__(self, task: _Task, options: TrainingOptions) -> None:
        self.where, self.team = task.where, task.team
        self.path = None if options.checkpoint is None else Path(options.checkpoint)
        if self.path is None or not task.is_main:  # one process writes and reads for all
            return
        try:
            if self.path.is_dir():
                raise IsADirectoryError("it is a folder")
            self._fresh(self.path).write_bytes(b"")
            self._fresh(self.path).unlink()
        except OSError as error:
            raise OSError(
                f"{self.where}: cannot write a checkpoint at {self.path}: {error}"
            ) from error
        weights = dict(task.flow.named_parameters())
        dtype = next(iter(weights.values())).dtype
        self.settings = {
            "about": f"{task.about()}, {dtype}",
            **options.settings(),
            "weights": {
                name: [*p.shape, "trained" if p.requires_grad else "frozen"]
                for name, p in weights.items()
            },
        }

    @staticmethod
    def _fresh(path: Path) -> Path:
        """Where the next state is written before it takes the place of the last."""
        return path.with_name(path.name + ".new")

    def load(self, run: _Run) -> bool:
        """Go on from the file, on all processes; False if there is no file."""
        if self.path is None:
            return False
        doing, team = "when it read the checkpoint", self.team
        state = self.read() if team is None else None
        if team is not None:
            state = team.every(doing, lambda: self.read() if team.is_main else None)
            state = team.given(state, doing)
        if state is None:
            self.require_nowhere()
            return False
        run.load(state)
        return True

    def require_nowhere(self) -> None:
        """Raise ``ValueError`` if another process has the file: the main one is on another host."""
        path, team = self.path, self.team
        if path is None or team is None:
            return
        if team.total("when it looked for the checkpoint", lambda: float(path.exists())):
            raise ValueError(
                f"{self.where}: expected the checkpoint {path} where the main process finds it, "
                "got one on another host and none there; put it into a folder that all hosts "
                "share, or remove it"
            )

    def read(self) -> dict[str, Any] | None:
        """What is in the file; None without a file."""
        if self.path is None or not self.path.exists():
            return None
        try:
            state = torch.load(self.path, weights_only=True, map_location="cpu")
            state["settings"]
        except (KeyError, TypeError, EOFError, RuntimeError, pickle.UnpicklingError) as error:
            raise ValueError(f"{self.where}: {self.path} is no checkpoint: {error}") from error
        # a file of an older version lacks the options that came later, and their defaults held
        before = {**TrainingOptions().settings(), **state["settings"]}
        differ = [
            f"{name} was {before.get(name)}, is {value}"
            for name, value in self.settings.items()
            if before.get(name) != value
        ]
        if differ:
            longer = [words for words in differ if words.startswith("steps ")]
            raise ValueError(
                f"{self.where}: the checkpoint {self.path} is of another run: {'; '.join(differ)}. "
                f"Remove the file, or name another{GO_ON if longer else ''}"
            )
        return cast(dict[str, Any], state)

    def save(self, run: _Run) -> None:
        if self.path is None or not run.task.is_main:
            return
        try:
            torch.save({"settings": self.settings, **run.state()}, self._fresh(self.path))
            os.replace(self._fresh(self.path), self.path)
        except (OSError, RuntimeError) as error:  # torch reports a full disk as the latter
            warnings.warn(
                f"{self.where}: no checkpoint at step {len(run.history.train)}, training goes on: "
                f"{error}",
                stacklevel=5,
            )


def _is_watched() -> bool:
    """Whether somebody sees a progress bar: in a terminal, or in a notebook."""
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    return sys.stderr.isatty() or "IPKernelApp" in getattr(shell, "config", {})


# --- compiled code ------------------------------------------------------------------------


def _compiled(where: str, function: F, device: torch.device) -> F:
    """The function as machine code, which draws the random numbers that it draws itself."""
    _require_compiler(where, device)
    return _code(function)


def _code(function: F) -> F:
    # PyTorch makes all distributions trust what they get, for good, when it first compiles; here
    # they do so only while compiled code runs, which would be interrupted where they look
    validated = _are_validated()
    compiled = torch.compile(function, options={"fallback_random": True})
    Distribution.set_default_validate_args(validated)

    @functools.wraps(function)
    def run(*args: Any) -> Any:
        Distribution.set_default_validate_args(False)
        try:
            return compiled(*args)
        finally:
            Distribution.set_default_validate_args(validated)

    return cast(F, run)


def _are_validated() -> bool:
    """Whether distributions look at what they get, by default; PyTorch has no way to ask."""
    try:
        Normal(0.0, -1.0)
    except ValueError:
        return True
    return False


@functools.cache
def _require_compiler(where: str, device: torch.device) -> None:
    """Compile a sum, once a process: a compiler that is missing is better missed now."""
    fresh = time.time_ns() % 1_000_003 + 0.5  # code that was compiled before would be found

    def moved(x: Tensor) -> Tensor:
        return x + fresh

    try:
        _code(moved)(torch.zeros(2, device=device))
    except Exception as error:  # torch has many kinds, and most of them are private
        missing = "triton, and a C++ compiler" if device.type == "cuda" else "a C++ compiler"
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise RuntimeError(
            f"{where}: compile=True: torch.compile was tried on {device} and failed: {first}. It "
            f"takes {missing} such as g++, on the path or named by the environment variable CXX. "
            "compile=False takes none of it"
        ) from error


# --- where it runs, and with which randomness -----------------------------------------------


def _device(device: str | torch.device) -> torch.device:
    if device != "auto":
        return torch.device(device)
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@contextmanager
def _at(flow: Density, device: torch.device) -> Iterator[None]:
    """The flow on a device, in whichever mode; afterwards as and where each part was."""
    home, modes = next(flow.parameters()).device, {m: m.training for m in flow.modules()}
    flow.to(device)
    try:
        yield
    finally:
        flow.to(home)
        for module, mode in modes.items():
            module.training = mode


@contextmanager
def _random_streams(device: torch.device) -> Iterator[Callable[[int, int], None]]:
    """A function that starts torch's random stream of a seed and a step; the caller's is kept."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):

        def stream(seed: int, step: int) -> None:
            mixed = _mixed(seed, step)
            torch.random.default_generator.manual_seed(mixed)
            if device.type == "cuda":  # this one alone: others are not ours, and were not kept
                with torch.cuda.device(device):
                    torch.cuda.manual_seed(mixed)
            elif device.type == "mps":
                torch.mps.manual_seed(mixed)

        yield stream


def _mixed(seed: int, step: int) -> int:
    """One number of two, so that neighbouring seeds share no stream."""
    return int(np.random.SeedSequence([seed, step]).generate_state(1, np.uint64)[0]) >> 1
