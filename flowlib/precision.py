"""What ``torch.autocast`` must not round.

Under autocast networks compute in half precision, which has three digits. A log-determinant is a
sum of many terms, a norm decides whether a map is invertible, and a linear map moves data
themselves: those stay in the dtype that they came in.
"""

from __future__ import annotations

import contextlib

import torch
from torch import Tensor

__all__ = ["exactly"]


def exactly(x: Tensor) -> contextlib.AbstractContextManager[None]:
    """A context without autocast on the device of ``x``.

    Example:
        >>> x = torch.full((1, 1), 1.001)
        >>> with torch.autocast("cpu", dtype=torch.bfloat16), exactly(x):
        ...     (x @ x).dtype
        torch.float32
    """
    if x.is_meta:  # which has no values, and no autocast
        return contextlib.nullcontext()
    off: contextlib.AbstractContextManager[None] = torch.autocast(x.device.type, enabled=False)
    return off
