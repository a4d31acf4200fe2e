"""flowlib: normalizing flows in PyTorch, the library under the book."""

from flowlib.checks import holds
from flowlib.flow import (
    Bijection,
    Compose,
    ElementwiseAffine,
    Flow,
    Inverse,
    LULinear,
    StandardNormal,
)
from flowlib.training import History, fit

__all__ = [
    "Bijection",
    "Compose",
    "ElementwiseAffine",
    "Flow",
    "History",
    "Inverse",
    "LULinear",
    "StandardNormal",
    "fit",
    "holds",
]
