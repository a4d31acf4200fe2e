"""Rows that one process has of a batch which several share.

A batch is one batch, on however many processes its rows are. So numbers that belong to rows, such
as probes, are those that the rows would have on one process, and a mean over rows is the mean over
all of them. :func:`flowlib.fit` says here which rows a process has; whoever draws or averages asks.
Where nobody has said anything, every function here does nothing.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

__all__ = ["NOTICE", "EndedElsewhere", "Share", "drawn", "on_a_share", "present", "summed"]

# How many numbers processes tell each other wherever they meet: whether one has failed, whether one
# was interrupted, and one more. They are added up, which takes the same size and type on all.
NOTICE = 3


class Share(NamedTuple):
    """Rows ``start`` to ``stop`` of a batch of ``whole`` rows, of which others have the rest.

    Example:
        >>> [Share.of(10, k, 3)[:2] for k in range(3)]
        [(0, 3), (3, 6), (6, 10)]
    """

    start: int
    stop: int
    whole: int
    together: bool = False  # whether other processes compute the rest now

    @classmethod
    def of(cls, rows: int, part: int, parts: int) -> Share:
        """One of so many parts, which differ by a row at most."""
        return cls(rows * part // parts, rows * (part + 1) // parts, rows, parts > 1)

    @property
    def rows(self) -> int:
        """How many they are."""
        return self.stop - self.start

    def cut(self, parts: int) -> list[Share]:
        """The same rows in so many pieces, which are computed one after the other."""
        pieces = [Share.of(self.rows, k, parts) for k in range(parts)]
        return [
            self._replace(start=self.start + piece.start, stop=self.start + piece.stop)
            for piece in pieces
        ]


# One for the process and not one for each thread, as PyTorch's random streams are: on a GPU what is
# computed again for a gradient is computed in a thread of autograd's.
_PRESENT: list[Share] = []


@contextlib.contextmanager
def on_a_share(share: Share) -> Iterator[None]:
    """Within this context what is computed are these rows of a batch."""
    _PRESENT.append(share)
    try:
        yield
    finally:
        _PRESENT.pop()


def present() -> Share | None:
    """The share that is computed now, None where a batch is whole."""
    return _PRESENT[-1] if _PRESENT else None


def drawn(rows: int, draw: Callable[[int], Any], dim: int = 0) -> Any:
    """Random numbers of ``rows`` rows: those that they have in the whole batch.

    The numbers of all rows are drawn, and the others are left; beside a network that is cheap.

    Args:
        rows: how many there are.
        draw: makes the numbers of so many rows, a tensor or an array.
        dim: the dimension of the rows in what ``draw`` makes.

    Example:
        >>> draw = lambda rows: torch.rand(rows, generator=torch.Generator().manual_seed(0))
        >>> with on_a_share(Share(2, 5, 8)):
        ...     torch.equal(drawn(3, draw), draw(8)[2:5])
        True
    """
    share = present()
    if share is None or share.rows != rows:
        return draw(rows)
    return draw(share.whole)[(slice(None),) * dim + (slice(share.start, share.stop),)]


def summed(x: Tensor) -> Tensor:
    """The sum over all processes that share a batch, with its gradient; else ``x``.

    A process that has failed does not come here to add. So all first exchange how it goes, in the
    form in which that one says that it has failed.

    Raises:
        EndedElsewhere: if another process has failed, or was interrupted, before it came here.
    """
    share = present()
    if share is None or not share.together:
        return x
    made: Tensor = _Summed.apply(x)  # type: ignore[no-untyped-call]
    return made


class EndedElsewhere(RuntimeError):
    """Another process has failed, or was interrupted; ``notice`` is what all have said."""

    def __init__(self, notice: list[float]) -> None:
        super().__init__("another process has ended")
        self.notice = notice


class _Summed(torch.autograd.Function):
    """Each process's loss depends on each process's term, so the gradients add up, too."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        total = x.clone(memory_format=torch.contiguous_format)
        notice = torch.zeros(NOTICE, dtype=torch.float64, device=x.device)
        torch.distributed.all_reduce(notice)
        if notice[:2].any():
            raise EndedElsewhere(notice.tolist())
        torch.distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        total = grad.clone(memory_format=torch.contiguous_format)
        torch.distributed.all_reduce(total)
        return total
