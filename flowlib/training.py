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
import math
import os
import pickle
import warnings
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from flowlib.arguments import as_count, as_number, channels_hint, require_finite
from flowlib.flow import Density, Flow

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["History", "TrainingOptions", "fit", "fit_variational"]

Array = Tensor | np.ndarray
Rows = Array | tuple[Array, Array]
Part = tuple[Tensor, ...]  # x, or x and its context
F = TypeVar("F", bound=Callable[..., Any])
VALIDATION, FIRST = 2**31, 2**31 + 1  # streams of randomness that are no step's


@dataclass
class History:
    """What a training run saw, in nats per data point; lower is better.

    Attributes:
        train: the loss of every step's batch.
        valid: pairs ``(step, loss)`` on the validation part, if there is one.
        best_step: the step whose weights the flow was left with.
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
        device: where to train; ``"auto"`` takes ``cuda``, ``mps`` or ``cpu``, the first there is.
        checkpoint: a file that the run's whole state is written to now and then. If it exists,
            the run goes on from there, and on a CPU ends with the bits it would have had. A file
            of a run with other settings, weights or data is refused, as far as can be seen: a
            function's data cannot.
        progress: whether to show a bar; by default when the environment variable
            ``FLOWLIB_PROGRESS`` is not 0.

    Raises:
        ValueError: if an option is out of its range.
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
        elsewhere = ("device", "checkpoint", "progress", "batch_size")  # the last is in `about`
        return {k: v for k, v in asdict(self).items() if k not in elsewhere}


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
    data: Rows | Callable[[int], Tensor | tuple[Tensor, Tensor]],
    *,
    validation: float | Rows | None = None,
    **options: Any,
) -> History:
    """Train a density by maximum likelihood with Adam, in place.

    The weights it ends with are those of the best validation loss; without a validation part,
    the last. Batches are drawn without replacement, epoch by epoch. If Ctrl-C ends the run, the
    flow has the best weights so far and the history comes back as usual.

    While it runs, PyTorch's random generator belongs to it. Two runs in two threads of one process
    would draw from each other's streams: both train, and neither can be repeated. Use processes.

    Args:
        flow: what to train. It comes back on the device that it came from.
        data: rows ``(n, *event)``, at least two, finite; or a pair ``(x, context)`` of as many
            rows each; or a function that makes the batch of step 1, 2, ....
        validation: the share of ``data`` kept from training to choose the weights by, or data of
            its own, with a context if ``data`` has one, or 0 for no validation. By default a
            tenth; no validation if ``data`` is a function.
        **options: the fields of :class:`TrainingOptions`, such as ``steps`` and ``lr``.

    Returns:
        The :class:`History` of losses.

    Raises:
        TypeError: if ``data`` is of another kind than these, or an option is unknown.
        ValueError: if ``data`` has the wrong shape, no row or one, or values that are not finite;
            if an option is out of its range; if the checkpoint is of another run.
        OSError: if nothing can be written at ``checkpoint``; raised before the first step.
        FloatingPointError: if a loss, a gradient or a validation loss stops being finite. The
            flow then has its best weights, and the error the run so far as its ``history``. Any
            other error that comes out of a step leaves the best weights, too.

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
    if callable(data):
        if isinstance(validation, Real) and validation:
            raise ValueError("fit: a function has no share to hold out; give validation data")
        batches: _Function | _Table = _Function(flow, data)
        valid: Part = (torch.empty(0, *flow.event_shape),)
    else:
        rows, valid = _as_rows(flow, "data", data, "fit"), ()
        if not _is_rows(validation):
            share = 0.1 if validation is None else validation
            rows, valid = _hold_out(rows, share, chosen.seed)
        batches = _Table(rows, valid, chosen.batch_size, chosen.seed)
    if _is_rows(validation):
        valid = _as_rows(flow, "validation", validation, "fit")
        if isinstance(batches, _Table) and len(valid) != len(batches.rows):
            kind = "(x, context)" if len(batches.rows) == 2 else "x alone"
            raise ValueError(f"fit: expected validation as {kind}, like data")

    def nll(part: Part) -> Tensor:
        return -flow.log_prob(*_on(flow, part))

    def evaluate() -> float:
        pieces = zip(*(part.split(4096) for part in valid), strict=True)
        return float(sum(nll(piece).sum().item() for piece in pieces)) / len(valid[0])

    task = _Task(
        where="fit",
        flow=flow,
        loss=lambda step: nll(batches.batch(step)).mean(),
        first=lambda: _on(flow, batches.batch(1)),
        evaluate=evaluate if len(valid[0]) else None,
        about=lambda: f"{batches.about()}, {len(valid[0])} to validate",
    )
    return _train(task, chosen)


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

    What is returned and what is raised is as with :func:`fit`.

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
    _require_weights("fit_variational", flow)

    def loss(n: int) -> Tensor:
        x, log_q = flow.rsample_and_log_prob(n)
        log_p = log_density(x)
        if not isinstance(log_p, Tensor) or log_p.shape != (n,):
            got = tuple(log_p.shape) if isinstance(log_p, Tensor) else type(log_p).__name__
            raise ValueError(f"fit_variational: expected log_density of shape ({n},), got {got}")
        if torch.is_grad_enabled() and not log_p.requires_grad:
            raise ValueError("fit_variational: log_density does not depend differentiably on x")
        return (log_q - log_p).mean()

    task = _Task(
        where="fit_variational",
        flow=flow,
        loss=lambda step: loss(chosen.batch_size),
        first=None,
        evaluate=(lambda: loss(validation).item()) if validation else None,
        about=lambda: f"{chosen.batch_size} draws a step, {validation} to validate",
    )
    return _train(task, chosen)


def _require_weights(where: str, flow: Density) -> None:
    if not any(p.requires_grad for p in flow.parameters()):
        raise ValueError(f"{where}: the flow has no weights to train")


# --- the loop -----------------------------------------------------------------------------


@dataclass
class _Task:
    """What is trained: the loss of a step's batch, and how weights are judged."""

    where: str
    flow: Density
    loss: Callable[[int], Tensor]
    first: Callable[[], Part] | None  # the batch that data-dependent starts are set from
    evaluate: Callable[[], float] | None
    about: Callable[[], str]  # the data in words, for a checkpoint; to digest them takes time


def _train(task: _Task, options: TrainingOptions) -> History:
    if options.patience is not None and task.evaluate is None:
        raise ValueError(f"{task.where}: patience needs a validation part, and there is none")
    file = _Checkpoint(task, options)
    device = _device(options.device, task.flow)
    with torch.enable_grad(), _at(task.flow, device), _random_streams(device) as stream:
        run = _Run(task, options, stream)
        if not file.load(run):
            run.begin()
        with run.bar:
            run.go(file)
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
            show = os.environ.get("FLOWLIB_PROGRESS") != "0"
        done = len(self.history.train)
        return tqdm(total=self.options.steps, initial=done, disable=not show, desc=self.task.where)

    def begin(self) -> None:
        if self.task.first is not None:
            self.stream(self.options.seed, FIRST)
            self.flow.initialize(*self.task.first())
        self.keep(0, math.inf)  # what a failure in the first steps goes back to

    def go(self, file: _Checkpoint) -> None:
        """All steps to the end, to Ctrl-C or to an error; the best weights stay."""
        self.flow.train()
        done = len(self.history.train)
        self.looked = done  # the training losses since the last look begin here
        try:
            for step in range(done + 1, self.options.steps + 1):
                if self.history.stopped_early:
                    break
                self.take(step)
                if step % self.options.eval_every == 0 or step == self.options.steps:
                    self.look(step)
                    file.save(self)
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

    def take(self, step: int) -> None:
        """One gradient step."""
        self.stream(self.options.seed, step)
        loss = self.task.loss(step)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        longest = self.options.clip_norm or math.inf
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, longest)
        value = loss.item()
        self.require_finite(step, **{"loss": value, "gradient's norm": norm.item()})
        self.optimizer.param_groups[0]["lr"] = self.options.rate(step)
        self.optimizer.step()
        self.history.train.append(value)
        self.bar.update()

    def look(self, step: int) -> None:
        """Judge the weights, and keep them if they are the best so far."""
        if self.task.evaluate is None:
            # Nothing judges the weights but the loss itself; a failure goes back to them.
            self.offer(step, float(np.mean(self.history.train[self.looked :])))
        else:
            self.stream(self.options.seed, VALIDATION)
            self.flow.eval()
            with torch.no_grad():
                judged = self.task.evaluate()
            self.flow.train()
            self.require_finite(step, **{"validation loss": judged})
            self.history.valid.append((step, judged))
            self.offer(step, judged)
            self.bar.set_postfix(valid=f"{judged:.3f}")
            patience = self.options.patience
            self.history.stopped_early = patience is not None and self.since_best >= patience
        self.looked = step

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
        self.where = task.where
        self.path = None if options.checkpoint is None else Path(options.checkpoint)
        if self.path is None:
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
        if self.path is None or not self.path.exists():
            return False
        try:
            state = torch.load(self.path, weights_only=True, map_location="cpu")
            state["settings"]
        except (KeyError, TypeError, EOFError, RuntimeError, pickle.UnpicklingError) as error:
            raise ValueError(f"{self.where}: {self.path} is no checkpoint: {error}") from error
        differ = [
            f"{name} was {state['settings'].get(name)}, is {value}"
            for name, value in self.settings.items()
            if state["settings"].get(name) != value
        ]
        if differ:
            raise ValueError(
                f"{self.where}: the checkpoint {self.path} is of another run: {'; '.join(differ)}. "
                "Remove the file, or name another"
            )
        run.load(state)
        return True

    def save(self, run: _Run) -> None:
        if self.path is None:
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


# --- where it runs, and with which randomness -----------------------------------------------


def _device(device: str | torch.device, flow: Density) -> torch.device:
    if device != "auto":
        return torch.device(device)
    if torch.cuda.is_available():
        return torch.device("cuda")
    doubles = any(t.dtype == torch.float64 for t in flow.state_dict().values())
    if torch.backends.mps.is_available() and not doubles:  # it has no float64
        return torch.device("mps")
    return torch.device("cpu")


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


# --- rows ---------------------------------------------------------------------------------


class _Function:
    """Batches that the caller's function makes."""

    def __init__(self, flow: Density, make: Callable[[int], Any]) -> None:
        self.flow, self.make = flow, make

    def batch(self, step: int) -> Part:
        return _as_rows(self.flow, f"batch {step}", self.make(step), "fit")

    def about(self) -> str:
        return "a function"


class _Table:
    """Batches of rows: epoch after epoch, each in an order of its own."""

    def __init__(self, rows: Part, valid: Part, batch_size: int, seed: int) -> None:
        self.rows, self.count = rows, len(rows[0])
        if self.count < 2:
            held = f", and {len(valid[0])} to validate" if valid else ""
            raise ValueError(f"fit: expected 2 rows or more to train on, got {self.count}{held}")
        self.batch_size, self.seed = min(batch_size, self.count), seed
        self.epoch, self.order = -1, torch.empty(0)

    def batch(self, step: int) -> Part:
        per_epoch = self.count // self.batch_size  # an epoch's last, incomplete batch is dropped
        epoch, at = divmod(step - 1, per_epoch)
        if epoch != self.epoch:
            rng = np.random.default_rng([self.seed, epoch])
            self.epoch, self.order = epoch, torch.from_numpy(rng.permutation(self.count))
        index = self.order[at * self.batch_size : (at + 1) * self.batch_size]
        return tuple(part[index] for part in self.rows)

    def about(self) -> str:
        return f"{self.count} rows in batches of {self.batch_size}, digest {_digest(self.rows)}"


def _is_rows(value: Any) -> bool:
    return value is not None and not isinstance(value, Real)


def _as_rows(flow: Density, name: str, data: Any, where: str) -> Part:
    """``(x,)`` or ``(x, context)`` in the flow's dtype, shape and values checked once."""
    names = (name, f"the context of {name}")
    parts = data if isinstance(data, tuple) else (data,)
    if not 1 <= len(parts) <= 2:
        raise TypeError(f"{where}: expected {name} as x or (x, context), got {len(parts)} parts")
    dtype = next(flow.parameters()).dtype
    rows = []
    for label, part in zip(names, parts, strict=False):
        if isinstance(part, np.ndarray):
            part = torch.from_numpy(np.array(part))  # a copy: torch takes no reversed array
        if not isinstance(part, Tensor):
            kind = type(part).__name__
            raise TypeError(f"{where}: expected {label} to be a tensor or array, got {kind}")
        rows.append(part.detach())
    x = rows[0]
    expected = ", ".join(["rows", *map(str, flow.event_shape)])
    if x.dim() == 0 or tuple(x.shape[1:]) != tuple(flow.event_shape):
        hint = channels_hint(x, flow.event_shape)
        raise ValueError(
            f"{where}: expected {name} of shape ({expected}), got {tuple(x.shape)}{hint}"
        )
    if len(x) == 0:
        raise ValueError(f"{where}: {name} is empty; expected shape ({expected})")
    if len(rows) == 2 and (rows[1].dim() != 2 or len(rows[1]) != len(x)):
        raise ValueError(
            f"{where}: expected {names[1]} of shape ({len(x)}, C), got {tuple(rows[1].shape)}"
        )
    flow.check_values(where, name, x)
    for part in rows[1:]:
        require_finite(where, names[1], part)
    return tuple(part.to(dtype) for part in rows)


def _digest(rows: Part) -> str:
    """A few digits that other rows would hardly have."""
    return format(
        functools.reduce(lambda crc, part: zlib.crc32(part.cpu().numpy().tobytes(), crc), rows, 0),
        "08x",
    )


def _on(flow: Density, rows: Part) -> Part:
    device = next(flow.parameters()).device
    return tuple(part.to(device, non_blocking=True) for part in rows)


def _hold_out(rows: Part, share: Any, seed: int) -> tuple[Part, Part]:
    if not 0 <= share < 1:
        raise ValueError(f"fit: expected a validation share in [0, 1), got {share}")
    n = len(rows[0])
    order = torch.from_numpy(np.random.default_rng([seed, VALIDATION]).permutation(n))
    cut = n - (max(1, round(share * n)) if share else 0)
    return tuple(part[order[:cut]] for part in rows), tuple(part[order[cut:]] for part in rows)
