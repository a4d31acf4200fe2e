"""flowlib: normalizing flows in PyTorch, the library under the book."""

from flowlib.autoregressive import (
    IAF,
    MAF,
    Autoregressive,
    Incremental,
    Inverter,
    Jacobi,
    Quickest,
    Sequential,
)
from flowlib.bases import (
    DiagonalNormal,
    DistributionBase,
    GaussianMixture,
    MultivariateNormal,
    StandardNormal,
)
from flowlib.checks import holds
from flowlib.coupling import (
    NICE,
    Coupling,
    MaskedCoupling,
    RealNVP,
    alternating_mask,
    half_mask,
    random_mask,
)
from flowlib.flow import Bijection, Compose, Density, Elementwise, Flow, Inverse
from flowlib.images import (
    Dequantize,
    FactorOut,
    Flatten,
    ImageRealNVP,
    Squeeze,
    checkerboard_mask,
)
from flowlib.made import MADE, BernoulliMADE, MaskedLinear
from flowlib.maps import (
    ElementwiseAffine,
    LeakyReLU,
    Logit,
    LULinear,
    Permutation,
    Sigmoid,
    Softplus,
)
from flowlib.masks import (
    cyclic_degrees,
    hidden_mask,
    output_mask,
    path_counts,
    random_degrees,
    ranks_of,
)
from flowlib.nn import MLP, ConvNet, Hardtanh
from flowlib.normalization import ActNorm, BatchNorm
from flowlib.structure import Structured
from flowlib.trained import pretrained
from flowlib.training import History, TrainingOptions, fit, fit_variational
from flowlib.transformers import Additive, Affine, Gate, Spline, Transformer
from flowlib.units import ContextNorm

__all__ = [
    "IAF",
    "MADE",
    "MAF",
    "MLP",
    "NICE",
    "ActNorm",
    "Additive",
    "Affine",
    "Autoregressive",
    "BatchNorm",
    "BernoulliMADE",
    "Bijection",
    "Compose",
    "ContextNorm",
    "ConvNet",
    "Coupling",
    "Density",
    "Dequantize",
    "DiagonalNormal",
    "DistributionBase",
    "Elementwise",
    "ElementwiseAffine",
    "FactorOut",
    "Flatten",
    "Flow",
    "Gate",
    "GaussianMixture",
    "Hardtanh",
    "History",
    "ImageRealNVP",
    "Incremental",
    "Inverse",
    "Inverter",
    "Jacobi",
    "LULinear",
    "LeakyReLU",
    "Logit",
    "MaskedCoupling",
    "MaskedLinear",
    "MultivariateNormal",
    "Permutation",
    "Quickest",
    "RealNVP",
    "Sequential",
    "Sigmoid",
    "Softplus",
    "Spline",
    "Squeeze",
    "StandardNormal",
    "Structured",
    "TrainingOptions",
    "Transformer",
    "alternating_mask",
    "checkerboard_mask",
    "cyclic_degrees",
    "fit",
    "fit_variational",
    "half_mask",
    "hidden_mask",
    "holds",
    "output_mask",
    "path_counts",
    "pretrained",
    "random_degrees",
    "random_mask",
    "ranks_of",
]
