"""One training loop for the whole book, and two things to put in it.

:func:`fit` maximises the likelihood of data. :func:`fit_variational` fits a flow to a density that
can be evaluated up to a constant and not sampled. Everything random in step ``n`` is drawn from a
stream that ``seed`` and ``n`` alone decide, so a run that was stopped and resumed sees what it
would have seen.
"""

from __future__ import annotations

import copy
import functools
import math
import operator
import os
import pickle
import warnings
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from numbers import Real
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from flowlib.flow import Flow, channels_hint, require_finite

__all__ = ["History", "fit", "fit_variational"]

Rows = Tensor | np.ndarray | tuple[Tensor | np.ndarray, Tensor | np.ndarray]
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

    def plot(self, ax=None):
        """Draw the losses over the steps; returns the matplotlib axes."""
        from flowlib import plotting  # matplotlib is slow to import, and few runs are plotted

        return plotting.plot_history(self, ax)


def fit(
    flow: Flow,
    data: Rows | Callable[[int], Tensor | tuple[Tensor, Tensor]],
    *,
    steps: int = 1000,
    batch_size: int = 256,
    lr: float = 1e-3,
    schedule: str = "cosine",
    clip_norm: float | None = None,
    validation: float | Rows | None = None,
    eval_every: int = 50,
    patience: int | None = None,
    seed: int = 0,
    device: str | torch.device = "auto",
    checkpoint: str | Path | None = None,
    progress: bool | None = None,
) -> History:
    """Train a flow by maximum likelihood with Adam, in place.

    The weights it ends with are those of the best validation loss; without a validation part,
    the last. Batches are drawn without replacement, epoch by epoch. If Ctrl-C ends the run, the
    flow has the best weights so far and the history comes back as usual.

    Args:
        flow: what to train. It comes back on the device that it came from.
        data: rows ``(n, *event)``, at least two, finite; or a pair ``(x, context)`` of as many
            rows each; or a function that makes the batch of step 1, 2, ....
        steps: how many gradient steps.
        batch_size: rows a step; a larger number than there are means all of them.
        lr: Adam's first rate.
        schedule: ``"cosine"``, falling to zero along half a cosine, or ``"constant"``.
        clip_norm: the largest norm of a gradient; longer ones are shortened to it.
        validation: the share of ``data`` kept from training to choose the weights by, or data of
            its own, with a context if ``data`` has one, or 0 for none. By default a tenth, and
            none if ``data`` is a function.
        eval_every: steps between two looks at the validation part, and between checkpoints.
        patience: stop after so many looks without a better one; by default never. It needs a
            validation part.
        seed: of the split, the batches, and whatever else is random inside the flow. The
            caller's own random state is left as it is.
        device: where to train; ``"auto"`` takes ``cuda``, ``mps`` or ``cpu``, the first there is.
        checkpoint: a file that the run's whole state is written to now and then. If it exists,
            the run goes on from there, and on a CPU ends with the bits it would have had. A file
            of a run with other settings, weights or data is refused, as far as can be seen: a
            function's data cannot.
        progress: whether to show a bar; by default when the environment variable
            ``FLOWLIB_PROGRESS`` is not 0.

    Returns:
        The :class:`History` of losses.

    Raises:
        TypeError: if ``data`` is nothing of the above.
        ValueError: if ``data`` has the wrong shape, no row or one, or values that are not finite;
            if an argument is out of its range; if the checkpoint is of another run.
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
    seed = _count("fit", "seed", seed, 0)
    batch_size = _count("fit", "batch_size", batch_size, 1)
    dtype = _require_weights("fit", flow)
    if callable(data):
        if isinstance(validation, Real) and validation:
            raise ValueError("fit: a function has no share to hold out; give validation data")

        def batch(step: int) -> tuple[Tensor, ...]:
            made = data(step)
            return _as_rows(flow, f"batch {step}", made, "fit")

        valid, about = _no_rows(flow) if not _is_rows(validation) else None, "a function"
    else:
        rows = _as_rows(flow, "data", data, "fit")
        valid = None
        if not _is_rows(validation):
            rows, valid = _hold_out(rows, 0.1 if validation is None else validation, seed)
        if len(rows[0]) < 2:
            held = f", and {len(valid[0])} to validate" if valid is not None else ""
            raise ValueError(f"fit: expected 2 rows or more to train on, got {len(rows[0])}{held}")
        order = _Order(len(rows[0]), batch_size, seed)

        def batch(step: int) -> tuple[Tensor, ...]:
            index = order.batch(step)
            return tuple(part[index] for part in rows)

        about = f"{len(rows[0])} rows in batches of {order.batch_size}, digest {_digest(rows)}"
    if valid is None:
        valid = _as_rows(flow, "validation", validation, "fit")
        if not callable(data) and len(valid) != len(rows):
            raise ValueError(
                f"fit: expected validation as {'(x, context)' if len(rows) == 2 else 'x alone'}, "
                "like data"
            )

    def nll(part: tuple[Tensor, ...]) -> Tensor:
        return -flow.log_prob(*_on(flow, part))

    def evaluate() -> float:
        pieces = zip(*(part.split(4096) for part in valid), strict=True)
        return sum(nll(piece).sum().item() for piece in pieces) / len(valid[0])

    return _train(
        "fit", flow, lambda step: nll(batch(step)).mean(),
        first=lambda: _on(flow, batch(1)),
        evaluate=evaluate if len(valid[0]) else None,
        about=f"{about}, {len(valid[0])} to validate, {dtype}",
        steps=steps, lr=lr, schedule=schedule, clip_norm=clip_norm, eval_every=eval_every,
        patience=patience, seed=seed, device=device,
        checkpoint=checkpoint, progress=progress,
    )  # fmt: skip


def fit_variational(
    flow: Flow,
    log_density: Callable[[Tensor], Tensor],
    *,
    steps: int = 1000,
    batch_size: int = 256,
    lr: float = 1e-3,
    schedule: str = "cosine",
    clip_norm: float | None = None,
    validation: int = 2000,
    eval_every: int = 50,
    patience: int | None = None,
    seed: int = 0,
    device: str | torch.device = "auto",
    checkpoint: str | Path | None = None,
    progress: bool | None = None,
) -> History:
    r"""Fit a flow to an unnormalised density by reverse KL, in place.

    The loss is :math:`\mathbb E_q[\log q(x) - \log \tilde p(x)]` over the flow's own draws, the
    negative of the evidence bound: where :math:`\tilde p` integrates to :math:`Z` it is
    :math:`\mathrm{KL}(q \| p) - \log Z`.

    Args:
        flow: what to train, able to sample with a gradient.
        log_density: takes points ``(n, *event)`` and gives ``log p`` up to a constant, ``(n,)``,
            differentiable.
        batch_size: draws a step.
        validation: how many draws, the same at every look, judge the weights; 0 for none.

    The other arguments, what is returned and what is raised are those of :func:`fit`.

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
    seed = _count("fit_variational", "seed", seed, 0)
    batch_size = _count("fit_variational", "batch_size", batch_size, 1)
    validation = _count("fit_variational", "validation", validation, 0)
    dtype = _require_weights("fit_variational", flow)

    def loss(n: int) -> Tensor:
        x, log_q = flow.rsample_and_log_prob(n)
        log_p = log_density(x)
        if not isinstance(log_p, Tensor) or log_p.shape != (n,):
            got = tuple(log_p.shape) if isinstance(log_p, Tensor) else type(log_p).__name__
            raise ValueError(f"fit_variational: expected log_density of shape ({n},), got {got}")
        if torch.is_grad_enabled() and not log_p.requires_grad:
            raise ValueError("fit_variational: log_density does not depend differentiably on x")
        return (log_q - log_p).mean()

    def evaluate() -> float:
        return loss(validation).item()

    return _train(
        "fit_variational", flow, lambda step: loss(batch_size), first=None,
        evaluate=evaluate if validation else None,
        about=f"{batch_size} draws a step, {validation} to validate, {dtype}",
        steps=steps, lr=lr, schedule=schedule, clip_norm=clip_norm, eval_every=eval_every,
        patience=patience, seed=seed, device=device, checkpoint=checkpoint, progress=progress,
    )  # fmt: skip


def _require_weights(where: str, flow: Flow) -> torch.dtype:
    if not any(p.requires_grad for p in flow.parameters()):
        raise ValueError(f"{where}: the flow has no weights to train")
    return next(flow.parameters()).dtype


def _count(where: str, name: str, value: int, least: int) -> int:
    """An int of any kind that is large enough, as Python's own."""
    try:
        count = operator.index(value)
    except TypeError:
        count = None
    if count is None or count < least:
        raise ValueError(f"{where}: expected a whole {name} of {least} or more, got {value!r}")
    return count


def _number(where: str, name: str, value: float) -> float:
    """A positive, finite number of any kind, as Python's own."""
    if not isinstance(value, Real) or not 0 < value < math.inf:
        raise ValueError(f"{where}: expected a positive, finite {name}, got {value!r}")
    return float(value)


# --- the loop -----------------------------------------------------------------------------


def _train(
    where: str,
    flow: Flow,
    loss_of: Callable[[int], Tensor],
    *,
    first: Callable[[], tuple[Tensor, ...]] | None,
    evaluate: Callable[[], float] | None,
    about: str,
    steps: int,
    lr: float,
    schedule: str,
    clip_norm: float | None,
    eval_every: int,
    patience: int | None,
    seed: int,
    device: str | torch.device,
    checkpoint: str | Path | None,
    progress: bool | None,
) -> History:
    steps, eval_every = _count(where, "steps", steps, 1), _count(where, "eval_every", eval_every, 1)
    patience = None if patience is None else _count(where, "patience", patience, 1)
    lr = _number(where, "lr", lr)
    clip_norm = None if clip_norm is None else _number(where, "clip_norm", clip_norm)
    if patience is not None and evaluate is None:
        raise ValueError(f"{where}: patience needs a validation part, and there is none")
    if schedule not in ("cosine", "constant"):
        raise ValueError(f'{where}: expected schedule "cosine" or "constant", got {schedule!r}')
    parameters = [p for p in flow.parameters() if p.requires_grad]
    file = _Checkpoint(where, checkpoint, {
        "about": about, "steps": steps, "lr": lr, "schedule": schedule, "clip_norm": clip_norm,
        "eval_every": eval_every, "patience": patience, "seed": seed,
        "weights": {
            name: [*p.shape, "trained" if p.requires_grad else "frozen"]
            for name, p in flow.named_parameters()
        },
    })  # fmt: skip
    show = os.environ.get("FLOWLIB_PROGRESS") != "0" if progress is None else progress
    history = History()
    at = _device(device, flow)
    with torch.enable_grad(), _at(flow, at), _random_streams(at) as stream:
        run = _Run(flow, torch.optim.Adam(parameters, lr=lr, fused=True), history)
        if not file.load(run):
            if first is not None:
                stream(seed, FIRST)
                flow.initialize(*first())
            run.keep(0, math.inf)  # what a failure in the first steps goes back to

        def require_sane(step: int, **values: float) -> None:
            for what, value in values.items():
                if not math.isfinite(value):
                    error = FloatingPointError(
                        f"{where}: the {what} is {value} at step {step}; the flow has its weights "
                        f"of step {history.best_step}. Try a smaller lr (it was {lr:g}), clip_norm "
                        f"(it was {clip_norm}), or data on a common scale"
                    )
                    error.history = history
                    raise error

        bar = tqdm(total=steps, initial=len(history.train), disable=not show, desc=where)
        flow.train()
        recent = len(history.train)  # the training losses since the last look begin here
        try:
            for step in range(len(history.train) + 1, steps + 1):
                if history.stopped_early:
                    break
                stream(seed, step)
                loss = loss_of(step)
                run.optimizer.zero_grad(set_to_none=True)
                loss.backward()
                norm = torch.nn.utils.clip_grad_norm_(parameters, clip_norm or math.inf)
                value = loss.item()
                require_sane(step, **{"loss": value, "gradient's norm": norm.item()})
                falling = 0.5 * (1 + math.cos(math.pi * (step - 1) / steps))
                run.optimizer.param_groups[0]["lr"] = lr * (
                    falling if schedule == "cosine" else 1.0
                )
                run.optimizer.step()
                history.train.append(value)
                bar.update()
                if step % eval_every and step != steps:
                    continue
                if evaluate is None:
                    # Nothing judges the weights but the loss itself; a failure goes back to them.
                    run.offer(step, float(np.mean(history.train[recent:])))
                else:
                    stream(seed, VALIDATION)
                    flow.eval()
                    with torch.no_grad():
                        judged = evaluate()
                    flow.train()
                    require_sane(step, **{"validation loss": judged})
                    history.valid.append((step, judged))
                    run.offer(step, judged)
                    bar.set_postfix(valid=f"{judged:.3f}")
                    history.stopped_early = patience is not None and run.since_best >= patience
                recent = step
                file.save(run)
        except KeyboardInterrupt:
            # No checkpoint here: a step may be half done. The last one on disk is whole.
            history.interrupted = True
        except Exception:
            run.restore()
            raise
        finally:
            bar.close()
        if evaluate is not None:
            run.restore()
        else:
            history.best_step = len(history.train)
    return history


class _Run:
    """All that a run is made of: weights, the best weights, the optimizer, what was seen."""

    def __init__(self, flow: Flow, optimizer: torch.optim.Optimizer, history: History) -> None:
        self.flow, self.optimizer, self.history = flow, optimizer, history
        self.best: dict = {}
        self.best_value = math.inf
        self.since_best = 0

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

    def state(self) -> dict:
        return {
            "flow": self.flow.state_dict(), "best": self.best, "best_value": self.best_value,
            "since_best": self.since_best, "optimizer": self.optimizer.state_dict(),
            "history": asdict(self.history),
        }  # fmt: skip

    def load(self, state: dict) -> None:
        self.flow.load_state_dict(state["flow"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.best, self.best_value = state["best"], state["best_value"]
        self.since_best = state["since_best"]
        for name, value in state["history"].items():
            setattr(self.history, name, value)
        self.history.valid = [tuple(pair) for pair in self.history.valid]
        self.history.interrupted = False


class _Checkpoint:
    """A run's state in a file, replaced whole or not at all."""

    def __init__(self, where: str, path: str | Path | None, settings: dict) -> None:
        self.where, self.settings = where, settings
        self.path = None if path is None else Path(path)
        if self.path is not None:
            try:
                if self.path.is_dir():
                    raise IsADirectoryError("it is a folder")
                self.fresh.write_bytes(b"")
                self.fresh.unlink()
            except OSError as error:
                raise OSError(f"{where}: cannot write a checkpoint at {path}: {error}") from error

    @property
    def fresh(self) -> Path:
        return self.path.with_name(self.path.name + ".new")

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
            torch.save({"settings": self.settings, **run.state()}, self.fresh)
            os.replace(self.fresh, self.path)
        except (OSError, RuntimeError) as error:  # torch reports a full disk as the latter
            warnings.warn(
                f"{self.where}: no checkpoint at step {len(run.history.train)}, training goes on: "
                f"{error}",
                stacklevel=4,
            )


# --- where it runs, and with which randomness -----------------------------------------------


def _device(device: str | torch.device, flow: Flow) -> torch.device:
    if device != "auto":
        return torch.device(device)
    if torch.cuda.is_available():
        return torch.device("cuda")
    doubles = any(t.dtype == torch.float64 for t in flow.state_dict().values())
    if torch.backends.mps.is_available() and not doubles:  # it has no float64
        return torch.device("mps")
    return torch.device("cpu")


@contextmanager
def _at(flow: Flow, device: torch.device) -> Iterator[None]:
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
    return int(np.random.SeedSequence([seed, step]).generate_state(1, np.uint64)[0] >> 1)


# --- rows ---------------------------------------------------------------------------------


def _is_rows(value) -> bool:
    return value is not None and not isinstance(value, Real)


def _no_rows(flow: Flow) -> tuple[Tensor]:
    return (torch.empty(0, *flow.event_shape),)


def _as_rows(flow: Flow, name: str, data: Rows, where: str) -> tuple[Tensor, ...]:
    """``(x,)`` or ``(x, context)`` in the flow's dtype, shape and values checked once."""
    names = (name,) if not isinstance(data, tuple) else (name, f"the context of {name}")
    parts = data if isinstance(data, tuple) else (data,)
    if not 1 <= len(parts) <= 2:
        raise TypeError(f"{where}: expected {name} as x or (x, context), got {len(parts)} parts")
    dtype = next(flow.parameters()).dtype
    rows = []
    for label, part in zip(names, parts, strict=True):
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
    for label, part in zip(names[1:], rows[1:], strict=True):
        require_finite(where, label, part)
    return tuple(part.to(dtype) for part in rows)


def _digest(rows: tuple[Tensor, ...]) -> str:
    """A few digits that other rows would hardly have."""
    return format(
        functools.reduce(lambda crc, part: zlib.crc32(part.cpu().numpy().tobytes(), crc), rows, 0),
        "08x",
    )


def _on(flow: Flow, rows: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    device = next(flow.parameters()).device
    return tuple(part.to(device, non_blocking=True) for part in rows)


def _hold_out(rows: tuple[Tensor, ...], share: float, seed: int):
    if not 0 <= share < 1:
        raise ValueError(f"fit: expected a validation share in [0, 1), got {share}")
    n = len(rows[0])
    order = torch.from_numpy(np.random.default_rng([seed, VALIDATION]).permutation(n))
    cut = n - (max(1, round(share * n)) if share else 0)
    return tuple(part[order[:cut]] for part in rows), tuple(part[order[cut:]] for part in rows)


class _Order:
    """Which rows step ``n`` sees: epoch after epoch, each in an order of its own."""

    def __init__(self, rows: int, batch_size: int, seed: int) -> None:
        self.rows, self.batch_size, self.seed = rows, min(batch_size, rows), seed
        self.epoch, self.order = -1, None

    def batch(self, step: int) -> Tensor:
        per_epoch = self.rows // self.batch_size  # an epoch's last, incomplete batch is dropped
        epoch, at = divmod(step - 1, per_epoch)
        if epoch != self.epoch:
            rng = np.random.default_rng([self.seed, epoch])
            self.epoch, self.order = epoch, torch.from_numpy(rng.permutation(self.rows))
        return self.order[at * self.batch_size : (at + 1) * self.batch_size]
