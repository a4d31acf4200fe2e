"""Structure that is saved with the weights: which coordinates go where, and who sees whom.

A mask, an ordering, a permutation is drawn or chosen once. The weights that are trained under it
are of no use under another one. So it is a buffer: it is saved, loaded, copied and moved with the
weights, and ``torch.func.functional_call`` and ``stack_module_state`` exchange it like them.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["Structured"]


class Structured(nn.Module):
    """Base class of modules with structure.

    A subclass registers its structure once, by :meth:`register_structure`, computes from those
    buffers in every call, and checks what is loaded in :meth:`check_structure`. What is faster when
    it is prepared in Python (sizes, lists, orders) it prepares in :meth:`prepare`, and uses only
    while :attr:`is_prepared`: under ``functional_call`` other buffers may stand in their place.
    """

    def register_structure(self, **buffers: Tensor) -> None:
        """Make buffers of these tensors and prepare what depends on them."""
        for name, value in buffers.items():
            self.register_buffer(name, value)
        self._prepared: dict[str, Tensor | None] = dict.fromkeys(buffers)
        self._prepare()

    def check_structure(self, **loaded: Tensor) -> None:
        """Raise ``ValueError`` if loaded buffers are not valid; nothing has been changed yet.

        They may have another dtype, if somebody has cast a whole state.
        """

    def prepare(self) -> None:
        """Compute in Python what is needed of the structure."""

    @property
    def is_prepared(self) -> bool:
        """Whether the buffers are those that :meth:`prepare` saw last."""
        return all(self._buffers[name] is value for name, value in self._prepared.items())

    def _prepare(self) -> None:
        self._prepared = {name: self._buffers[name] for name in self._prepared}
        if not any(value is None or value.is_meta for value in self._prepared.values()):
            self.prepare()

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self._prepare()  # the same, on another device or of another dtype
        return self

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        names = [name for name in self._prepared if prefix + name in state_dict]
        if len(names) == len(self._prepared):
            self.check_structure(**{name: state_dict[prefix + name] for name in names})
        dtypes = {name: getattr(self, name).dtype for name in names}
        super()._load_from_state_dict(state_dict, prefix, *args)
        with torch.no_grad():
            for name, dtype in dtypes.items():  # load_state_dict(assign=True) takes any dtype
                setattr(self, name, getattr(self, name).to(dtype))
        self._prepare()
