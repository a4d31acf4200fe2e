"""One training loop for the whole book: :func:`fit`."""

from __future__ import annotations

import copy
import os
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from flowlib.flow import Flow, require_finite

__all__ = ["History", "fit"]


@dataclass
class History:
    """What a training run saw, in nats per data point; lower is better.

    Attributes:
        train: the loss of every step's batch.
        valid: pairs ``(step, loss)`` on the validation part, if there is one.
        best_step: the step whose weights the flow was left with.
        interrupted: whether Ctrl-C ended the run.
    """

    train: list[float] = field(default_factory=list)
    valid: list[tuple[int, float]] = field(default_factory=list)
    best_step: int = 0
    interrupted: bool = False


def fit(
    flow: Flow,
    data: Tensor | np.ndarray,
    *,
    steps: int = 1000,
    batch_size: int = 256,
    lr: float = 1e-3,
    validation: float | Tensor | np.ndarray = 0.1,
    eval_every: int = 50,
    seed: int = 0,
    progress: bool | None = None,
) -> History:
    """Train a flow by maximum likelihood, with Adam and a cosine rate, in place.

    The weights it ends with are those of the best validation loss; without a validation part,
    the last. Batches are drawn without replacement, epoch by epoch.

    Args:
        flow: what to train.
        data: ``(rows, *event)``, finite, at least two rows.
        steps: how many gradient steps.
        batch_size: rows a step; a larger number than there are means all of them.
        lr: Adam's first rate; it falls to zero along half a cosine.
        validation: the share of ``data`` kept from training to choose the weights by, or data of
            its own, or 0 for none.
        eval_every: steps between two looks at the validation part.
        seed: of the split and the batches.
        progress: whether to show a bar; by default when the environment variable
            ``FLOWLIB_PROGRESS`` is not 0.

    Returns:
        The :class:`History` of losses.

    Raises:
        TypeError: if ``data`` is neither tensor nor array.
        ValueError: if ``data`` has the wrong shape, no row or one, or values that are not finite;
            if an argument is out of its range.
        FloatingPointError: if the loss stops being finite. The flow then has its best weights.

    Example:
        >>> from flowlib import LULinear, StandardNormal
        >>> x = 3 + 2 * torch.randn(500, 2, generator=torch.Generator().manual_seed(0))
        >>> flow = Flow(LULinear(2), StandardNormal(2))
        >>> history = fit(flow, x, steps=300, lr=0.05, progress=False)
        >>> history.valid[-1][1] < history.valid[0][1]
        True
    """
    for name, value, ok in (
        ("steps", steps, steps >= 1),
        ("batch_size", batch_size, batch_size >= 1),
        ("lr", lr, lr > 0),
        ("eval_every", eval_every, eval_every >= 1),
    ):
        if not ok:
            raise ValueError(f"fit: expected a positive {name}, got {value}")
    rng = np.random.default_rng(seed)
    data = _as_rows(flow, "data", data)
    if isinstance(validation, (int, float)):
        train, valid = _hold_out(data, validation, rng)
    else:
        train, valid = data, _as_rows(flow, "validation", validation)
    if len(train) < 2:
        raise ValueError(f"fit: expected at least 2 rows to train on, got {len(train)}")

    flow.initialize(train)
    history = History()
    best = _Best(flow)
    optimizer = torch.optim.Adam(flow.parameters(), lr=lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    batches = _batches(len(train), batch_size, rng)
    show = os.environ.get("FLOWLIB_PROGRESS") != "0" if progress is None else progress
    bar = tqdm(range(1, steps + 1), disable=not show, desc="fit", unit="step")
    was_training = flow.training
    flow.train()
    try:
        for step in bar:
            loss = -flow.log_prob(train[next(batches)]).mean()
            if not torch.isfinite(loss):
                raise FloatingPointError(
                    f"fit: the loss is {loss.item()} at step {step}; the flow keeps its weights of "
                    f"step {best.step}. Try a smaller lr (it was {lr:g}), or data on a common scale"
                )
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
            history.train.append(loss.item())
            if len(valid) and (step % eval_every == 0 or step == steps):
                value = _mean_nll(flow, valid)
                history.valid.append((step, value))
                best.offer(step, value)
                bar.set_postfix(valid=f"{value:.3f}")
            elif not len(valid):
                best.step = step
    except KeyboardInterrupt:
        history.interrupted = True
    finally:
        # Where there is validation, the best weights seen; where there is none, the last finite.
        if len(valid):
            best.restore()
        history.best_step = best.step
        flow.train(was_training)
        bar.close()
    return history


class _Best:
    """The best weights so far, beside the flow that is being trained."""

    def __init__(self, flow: Flow) -> None:
        self.flow, self.step, self.value = flow, 0, float("inf")
        self.state = copy.deepcopy(flow.state_dict())

    def offer(self, step: int, value: float) -> None:
        if value < self.value:
            self.step, self.value = step, value
            self.state = copy.deepcopy(self.flow.state_dict())

    def restore(self) -> None:
        self.flow.load_state_dict(self.state)


def _as_rows(flow: Flow, name: str, data: Tensor | np.ndarray) -> Tensor:
    """Data in the flow's dtype and on its device, shape and values checked once."""
    if not isinstance(data, (Tensor, np.ndarray)):
        raise TypeError(f"fit: expected {name} to be a tensor or array, got {type(data).__name__}")
    like = next(flow.parameters())
    rows = torch.as_tensor(data).detach().to(device=like.device, dtype=like.dtype)
    expected = ", ".join(["rows", *map(str, flow.event_shape)])
    if tuple(rows.shape[1:]) != tuple(flow.event_shape) or rows.dim() == 0:
        raise ValueError(f"fit: expected {name} of shape ({expected}), got {tuple(rows.shape)}")
    if len(rows) == 0:
        raise ValueError(f"fit: {name} is empty; expected shape ({expected})")
    require_finite("fit", name, rows)
    return rows


def _hold_out(data: Tensor, share: float, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    if not 0 <= share < 1:
        raise ValueError(f"fit: expected a validation share in [0, 1), got {share}")
    order = torch.as_tensor(rng.permutation(len(data)), device=data.device)
    cut = len(data) - (max(1, round(share * len(data))) if share else 0)
    return data[order[:cut]], data[order[cut:]]


def _batches(rows: int, batch_size: int, rng: np.random.Generator):
    """Index batches for ever; an epoch's last, incomplete batch is dropped."""
    batch_size = min(batch_size, rows)
    while True:
        order = torch.as_tensor(rng.permutation(rows))
        yield from order[: rows - rows % batch_size].split(batch_size)


@torch.no_grad()
def _mean_nll(flow: Flow, data: Tensor) -> float:
    flow.eval()
    value = -sum(flow.log_prob(part).sum().item() for part in data.split(4096)) / len(data)
    flow.train()
    return value
