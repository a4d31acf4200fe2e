"""Structure that is saved with the weights: which coordinates go where, and who sees whom.

A mask, an ordering, a permutation is drawn or chosen once. The weights that are trained under it
are of no use under another one. So it is a buffer: it is saved, loaded, copied and moved with the
weights, and ``torch.func.functional_call`` and ``stack_module_state`` exchange it like them.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor, nn

from flowlib.arguments import seen
from flowlib.saving import Recorded

__all__ = ["Structured", "on_cpu"]

P = ParamSpec("P")
T = TypeVar("T")


def on_cpu(function: Callable[P, T]) -> Callable[P, T]:
    """Let a function that makes structure do so on the CPU, where its values can be seen.

    :meth:`Structured.register_structure` brings it to the device that is PyTorch's default then,
    which may be ``meta``.

    Example:
        >>> with torch.device("meta"):
        ...     on_cpu(torch.arange)(3)
        tensor([0, 1, 2])
    """

    @functools.wraps(function)
    def made(*args: P.args, **kwargs: P.kwargs) -> T:
        with torch.device("cpu"):
            return function(*args, **kwargs)

    return made


class Structured(Recorded, nn.Module):
    """Base class of modules with structure.

    A subclass registers its structure by :meth:`register_structure`, computes from those buffers in
    every call, and checks what is loaded in :meth:`check_structure`. What is faster when it is
    prepared in Python (sizes, lists, orders) it prepares in :meth:`prepare`, and uses only while
    :attr:`is_prepared`: under ``functional_call`` other buffers may stand in their place.

    Example:
        >>> class Reversed(Structured):
        ...     def __init__(self, dim):
        ...         super().__init__()
        ...         self.register_structure(order=torch.arange(dim).flip(0))
        ...     def forward(self, x):
        ...         return x[:, self.order]
        >>> layer = Reversed(3)
        >>> layer(torch.tensor([[1, 2, 3]])).tolist(), list(layer.state_dict())
        ([[3, 2, 1]], ['order'])
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._structure: tuple[str, ...] = ()
        self._prepared_for: tuple[tuple[str, Tensor, int], ...] = ()

    def register_structure(self, **buffers: Tensor) -> None:
        """Make buffers of these tensors and prepare what depends on them.

        What is on the CPU goes to the device on which PyTorch makes new weights.
        """
        default = torch.empty(0).device
        for name, value in buffers.items():
            self.register_buffer(name, value.to(default) if value.is_cpu else value)
        self._structure = (*self._structure, *buffers)
        self._prepare()

    def check_structure(self, **loaded: Tensor) -> None:
        """Raise ``ValueError`` if loaded buffers are not valid; this module is then unchanged.

        They may have another dtype, if somebody has cast a whole state.
        """

    def prepare(self) -> None:
        """Compute in Python what is needed of the structure."""

    @property
    def is_prepared(self) -> bool:
        """Whether the buffers are, and hold, what :meth:`prepare` saw last.

        If they have been changed in place, as DistributedDataParallel and averages of weights do,
        they are prepared anew.
        """
        changed = False
        for name, value, count in self._prepared_for:
            if self._buffers[name] is not value:
                return False
            # compiled code must not ask for the count, and has the buffers as they were
            changed |= not torch.compiler.is_compiling() and changes(value) != count
        if changed:
            self._prepare()
        return len(self._prepared_for) > 0

    def _prepare(self) -> None:
        now = [(name, getattr(self, name)) for name in self._structure]
        self._prepared_for = ()
        if all(seen(value.sum()) is not None for _, value in now):
            self.prepare()
            self._prepared_for = tuple((name, value, changes(value)) for name, value in now)

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        had_values = not any(getattr(self, name).is_meta for name in self._structure)
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self._prepared_for = ()
        if had_values:  # the same, on another device or of another dtype
            self._prepare()
        return self

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        names = [name for name in self._structure if prefix + name in state_dict]
        if len(names) == len(self._structure):
            self.check_structure(**{name: state_dict[prefix + name] for name in names})
        dtypes = {name: getattr(self, name).dtype for name in names}
        super()._load_from_state_dict(state_dict, prefix, *args)
        with torch.no_grad():
            for name, dtype in dtypes.items():  # load_state_dict(assign=True) takes any dtype
                setattr(self, name, getattr(self, name).to(dtype))
        self._prepare()


def changes(buffer: Tensor) -> int:
    """How often a tensor has been changed in place: the count that autograd keeps."""
    return 0 if buffer.is_inference() else buffer._version
