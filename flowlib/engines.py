"""Beyond one process: a team of them that trains one flow.

Hugging Face Accelerate starts the processes, or finds that somebody else has; it says which this
one is, on which device, and in which precision. Each has the whole flow and its rows of each step's
batch, ``DistributedDataParallel`` averages their gradients, and all take every decision alike. What
goes wrong on one is said on all, and nobody waits for who will not come. Only what goes wrong in a
step's last backward pass, when gradients are on their way already, is said on its own process
alone: the others see that it has ended, or wait for the time-out.
"""

from __future__ import annotations

import contextlib
import inspect
import math
import os
import re
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from flowlib.rows import Exhausted, Rows
from flowlib.shares import NOTICE, EndedElsewhere, Share, on_a_share
from flowlib.structure import changes

__all__ = ["Team"]

T = TypeVar("T")
ASKED = (
    "autocast", "device", "distributed_type", "gradient_accumulation_steps", "is_main_process",
    "mixed_precision", "num_processes", "process_index",
)  # fmt: skip
LAUNCHED = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")
LOST = re.compile(
    r"gloo|nccl|\bmpi\b|connection|timed? ?out|reset by peer|broken pipe", re.IGNORECASE
)


class Team:
    """The processes that train one flow together, as one of them sees it.

    Args:
        where: the function that asks, for messages.
        engine: an ``accelerate.Accelerator``.

    Raises:
        TypeError: if the engine is another one.
        ValueError: if it divides the flow itself among processes, computes in a precision in which
            log-densities have no room, or knows of one process where a launcher started more.
    """

    def __init__(self, where: str, engine: Any) -> None:
        missing = [name for name in ASKED if not hasattr(engine, name)]
        if missing:
            raise TypeError(
                f"{where}: expected engine to be an accelerate.Accelerator, got a "
                f"{type(engine).__name__} without {', '.join(missing)}"
            )
        kind = str(engine.distributed_type).rpartition(".")[2]
        if kind != "NO" and not kind.startswith("MULTI_"):
            raise ValueError(
                f"{where}: expected an engine with the whole flow on each process, got one of "
                f"distributed_type {kind}"
            )
        if engine.mixed_precision not in ("no", "bf16"):
            raise ValueError(
                f'{where}: expected an engine of mixed_precision "no" or "bf16", got '
                f"{engine.mixed_precision!r}, whose range is too small for densities"
            )
        self.where, self.engine = where, engine
        self.device: torch.device = engine.device
        self.is_main: bool = engine.is_main_process
        self.rank, self.count = int(engine.process_index), int(engine.num_processes)
        self._require_company()
        self.pieces = int(engine.gradient_accumulation_steps)
        self.interrupted = self.told = self.rehearsed = False
        self.wrapped: Any = None

    def _require_company(self) -> None:
        """Raise ``ValueError`` if others were launched of whom the engine does not know."""
        sizes = {name: os.environ.get(name, "") for name in LAUNCHED}
        for name, size in sizes.items():
            if self.count == 1 and size.isdecimal() and int(size) > 1:
                raise ValueError(
                    f"{self.where}: expected an engine of {size} processes, since {name}={size} "
                    "says that so many were launched, got one of 1 process: each would train a "
                    "flow of its own. On CPUs make it as Accelerator(cpu=True)"
                )

    def share_of(self, rows: int) -> Share:
        """This process's part of so many rows."""
        return Share.of(rows, self.rank, self.count)

    # --- what is the same on all ---------------------------------------------------------------

    @contextlib.contextmanager
    def training(self, flow: nn.Module) -> Iterator[None]:
        """All begin with the main process's weights; within this context they train together."""
        wrapped: Any = flow
        if self.count > 1:
            mine = self._on_cpu(flow) if self.is_main else None
            state = self.given(mine, "at its start")
            if state is not None:
                self.every("at its start", lambda: self.is_main or flow.load_state_dict(state))
            handler = getattr(self.engine, "ddp_handler", None)
            options = {} if handler is None else handler.to_kwargs()
            # Masks are buffers, as large as weights. They never change; what changes (power
            # iterations, running statistics) changes alike, from equal weights and random numbers.
            newer = "forward_sync_buffers" in inspect.signature(DistributedDataParallel).parameters
            options.pop("broadcast_buffers", None)
            options["forward_sync_buffers" if newer else "broadcast_buffers"] = False
            if self.device.type != "cpu":
                options["device_ids"] = [self.device]
            with self._connected("at its start"):
                wrapped = DistributedDataParallel(flow, **options)
                if handler is not None:
                    handler.register_comm_hook(wrapped)
        self.wrapped = wrapped
        try:
            with self._listening():
                yield
        finally:
            self.wrapped = None

    @staticmethod
    def _on_cpu(flow: nn.Module) -> dict[str, Any]:
        """What goes to processes with other devices."""
        state: dict[str, Any] = flow.state_dict()
        return {k: v.cpu() if isinstance(v, Tensor) else v for k, v in state.items()}

    def given(self, value: T, doing: str) -> T:
        """The main process's value, on all."""
        if self.count == 1:
            return value
        box = [value]
        with self._connected(doing):
            dist.broadcast_object_list(box, src=0)
        return box[0]

    def require_same(self, what: str, value: Any) -> None:
        """Raise ``ValueError`` on all if it differs between them."""
        if self.count == 1:
            return
        values: list[Any] = [None] * self.count
        with self._connected("at its start"):
            dist.all_gather_object(values, value)
        for rank, other in enumerate(values):
            if other != values[0]:
                raise ValueError(
                    f"{self.where}: expected {what} to be the same on all {self.count} processes, "
                    f"got {values[0]} on process 0 and {other} on process {rank}; seed what makes "
                    "it in the same way on each"
                )

    @torch.no_grad()
    def agree(self, flow: nn.Module) -> None:
        """Where a layer keeps numbers that differ between processes, take the main one's.

        The layers of this library keep none. PyTorch's own batch normalization does.
        """
        if self.count == 1:
            return
        for buffer in flow.buffers():
            if buffer.is_floating_point():
                its = buffer.detach().clone(memory_format=torch.contiguous_format)
                with self._connected("when weights were judged"):
                    dist.broadcast(its, src=0)
                if not torch.equal(its, buffer):
                    buffer.copy_(its)

    # --- what each does, and all hear of -------------------------------------------------------

    def every(self, doing: str, work: Callable[[], T]) -> T:
        """The same work on all, or an error on all."""
        result, _ = self._attempt(doing, lambda: (work(), ()))
        return result

    def total(self, doing: str, work: Callable[[], float]) -> float:
        """The sum over all processes of a number that each computes."""

        def numbered() -> tuple[None, list[float]]:
            return None, [work()]

        return self._attempt(doing, numbered)[1][0]

    def _attempt(
        self, doing: str, work: Callable[[], tuple[T, Sequence[float]]]
    ) -> tuple[T, list[float]]:
        """What is made here, and sums over all; where one fails or is interrupted, all are."""
        if self.count == 1:
            made, numbers = work()
            return made, list(numbers)
        error: BaseException | None = None
        result: Any = None
        numbers = []
        try:
            result, numbers = work()
        except (Exception, KeyboardInterrupt) as caught:
            error = caught
        if isinstance(error, EndedElsewhere):  # they have met already, in the middle of the work
            sums, error = error.notice, None
        else:
            self.interrupted = self.interrupted or isinstance(error, KeyboardInterrupt)
            failed = isinstance(error, Exception)
            sums = self._reduced(doing, [failed, self.interrupted, *(numbers or [0.0])])
        if sums[0]:
            self._fail(doing, error)
        if sums[1]:
            self.told = True
            raise KeyboardInterrupt
        return result, sums[2:]

    def _reduced(self, doing: str, numbers: Sequence[float]) -> list[float]:
        flags = torch.tensor([float(n) for n in numbers], dtype=torch.float64, device=self.device)
        assert len(flags) == NOTICE
        with self._connected(doing):
            dist.all_reduce(flags)
            found: list[float] = flags.tolist()
        return found

    def _fail(self, doing: str, error: BaseException | None) -> None:
        """Raise one's own error, or one that says whose it is.

        That there are no more batches is an error unless all processes say so.
        """
        mine = f"{type(error).__name__}: {error}" if isinstance(error, Exception) else None
        its_end = isinstance(error, Exhausted)
        said: list[Any] = [None] * self.count
        with self._connected(doing):
            dist.all_gather_object(said, (mine, its_end))
        ended = [k for k, (_, end) in enumerate(said) if end]
        if error is not None and mine and (not its_end or len(ended) == self.count):
            raise error
        rank = next((k for k, (words, end) in enumerate(said) if words and not end), None)
        if rank is not None:
            raise RuntimeError(
                f"{self.where}: process {rank} of {self.count} failed {doing}, and all end: "
                f"{said[rank][0]}"
            )
        which = ", ".join(map(str, ended))
        raise RuntimeError(
            f"{self.where}: expected as many batches on each of {self.count} processes, and "
            f"{doing} got no more on process {which}, but one on others, and all end: "
            f"{said[ended[0]][0]}"
        )

    @contextlib.contextmanager
    def _connected(self, doing: str) -> Iterator[None]:
        """Say in words what it means if the others are not there."""
        try:
            yield
        except RuntimeError as error:  # PyTorch's errors of the network are such
            if self.count == 1 or not LOST.search(str(error)):
                raise
            limit = getattr(getattr(self.engine, "init_handler", None), "timeout", None)
            within = "the time-out" if limit is None else f"the {limit.total_seconds():g} s"
            raise RuntimeError(
                f"{self.where}: process {self.rank} of {self.count} has lost the others {doing}: "
                f"one has ended, or has not answered within {within} of the process group, which "
                "InitProcessGroupKwargs(timeout=...) sets. What they printed last says why. With a "
                f"checkpoint, the same call goes on from there. PyTorch says: {_first_line(error)}"
            ) from error

    @contextlib.contextmanager
    def _listening(self) -> Iterator[None]:
        """Ctrl-C waits until all processes hear of it; a second one does not wait.

        One that comes when they do not meet any more ends this process's call. A SIGTERM that the
        script has made a Ctrl-C waits, too. And torchrun sends each process once more what a
        terminal or SLURM has sent to all: that echo is no second Ctrl-C.
        """
        main_thread = threading.current_thread() is threading.main_thread()
        if self.count == 1 or not main_thread:
            yield
            return
        before = {signal.SIGINT: signal.getsignal(signal.SIGINT)}
        if signal.getsignal(signal.SIGTERM) is signal.default_int_handler:
            before[signal.SIGTERM] = signal.default_int_handler
        echoes, times = int(dist.is_torchelastic_launched()), dict.fromkeys(before, 0)

        def heard(number: int, frame: Any) -> None:
            its = signal.Signals(number)
            times[its] += 1
            if its == signal.SIGINT and times[its] > 1 + echoes:
                self.told = True
                signal.signal(its, before[its])
                signal.raise_signal(its)
            self.interrupted = True

        def echoed(number: int, frame: Any) -> None:
            signal.signal(number, before[signal.Signals(number)])

        for number in before:
            signal.signal(number, heard)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, echoed if echoes and times[number] == 1 else handler)
        if self.interrupted and not self.told:
            raise KeyboardInterrupt

    # --- a step --------------------------------------------------------------------------------

    def descend(
        self,
        step: int,
        part: Callable[[int, Callable[[int], Share]], tuple[Rows, Share]],
        losses: Callable[[Rows, Callable[..., Tensor]], Tensor],
    ) -> float:
        """Put the gradient of a whole step's mean loss in place.

        Args:
            step: which.
            part: makes this process's rows of a step.
            losses: the losses of rows, given what stands in for the flow's ``log_prob``.

        Returns:
            The mean loss of the whole batch.
        """
        doing = f"at step {step}"
        rows, share = self.every(doing, lambda: part(step, self.share_of))
        pieces = share.cut(self.pieces)

        def forward(piece: Share) -> Tensor:
            a, b = piece.start - share.start, piece.stop - share.start
            own = rows.each(lambda of: of[a:b])
            with self._repeated(), self.engine.autocast():
                # gradients are averaged over processes, and losses are not
                return losses(own, self.wrapped).sum() / (share.whole / self.count)

        def rehearsal() -> None:
            rewind = self._buffers()
            with torch.random.fork_rng(self._cuda()), on_a_share(share):
                forward(share).backward()
            self.wrapped.zero_grad(set_to_none=True)
            rewind()
            self.rehearsed = True

        # After its first backward pass PyTorch puts gradients into other buckets, and three numbers
        # are added in another order. A run that goes on must have the order that it had.
        if self.count > 2 and not self.rehearsed:
            self.every(doing, rehearsal)

        def all_but_the_last() -> tuple[tuple[Tensor, Share], list[float]]:
            value, rewind = 0.0, self._buffers() if self.pieces > 1 else lambda: None
            for piece in pieces[:-1]:
                with self._apart(), on_a_share(piece):
                    loss = forward(piece)
                    loss.backward()
                value += loss.item()
                rewind()
            with on_a_share(pieces[-1]):
                loss = forward(pieces[-1])
            return (loss, pieces[-1]), [(value + loss.item()) / self.count]

        (loss, piece), (value,) = self._attempt(doing, all_but_the_last)
        if math.isfinite(value):  # else nobody takes the step
            with self._connected(doing), on_a_share(piece):
                loss.backward()
        return value

    def _apart(self) -> contextlib.AbstractContextManager[Any]:
        """Gradients stay on their process for now."""
        if self.count == 1:
            return contextlib.nullcontext()
        apart: contextlib.AbstractContextManager[Any] = self.wrapped.no_sync()
        return apart

    def _buffers(self) -> Callable[[], None]:
        """What puts back the buffers that a piece has changed, as power iterations: a step is one
        step of theirs, too."""
        kept = [(b, b.clone(), changes(b)) for b in self.wrapped.buffers() if b.is_floating_point()]

        @torch.no_grad()
        def rewind() -> None:
            for buffer, value, count in kept:
                if changes(buffer) != count:
                    buffer.copy_(value)

        return rewind

    def _repeated(self) -> contextlib.AbstractContextManager[Any]:
        """Each piece draws from the same place, so that it finds its own rows' numbers."""
        if self.pieces == 1:
            return contextlib.nullcontext()
        forked: contextlib.AbstractContextManager[Any] = torch.random.fork_rng(self._cuda())
        return forked

    def _cuda(self) -> list[torch.device]:
        """Whose random numbers are drawn beside the CPU's."""
        return [self.device] if self.device.type == "cuda" else []


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
