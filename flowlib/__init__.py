"""flowlib: normalizing flows in PyTorch, the library under the book."""

from flowlib.checks import holds
from flowlib.flow import (
    Bijection,
    Compose,
    DiagonalNormal,
    ElementwiseAffine,
    Flow,
    Inverse,
    LeakyReLU,
    Logit,
    LULinear,
    MultivariateNormal,
    Permutation,
    Sigmoid,
    Softplus,
    StandardNormal,
)
from flowlib.training import History, fit, fit_variational

__all__ = [
    "Bijection",
    "Compose",
    "DiagonalNormal",
    "ElementwiseAffine",
    "Flow",
    "History",
    "Inverse",
    "LULinear",
    "LeakyReLU",
    "Logit",
    "MultivariateNormal",
    "Permutation",
    "Sigmoid",
    "Softplus",
    "StandardNormal",
    "fit",
    "fit_variational",
    "holds",
]
