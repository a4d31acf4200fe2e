"""The explorers: interactive figures, one file each."""

from flowlib.widgets.base import Explorer
from flowlib.widgets.completion import CompletionExplorer
from flowlib.widgets.fixedpoint import FixedPointExplorer
from flowlib.widgets.inversion import InversionExplorer
from flowlib.widgets.jacobian import JacobianExplorer
from flowlib.widgets.kl import KLExplorer
from flowlib.widgets.layers import LayersExplorer
from flowlib.widgets.mask import MaskExplorer
from flowlib.widgets.multiscale import MultiscaleExplorer
from flowlib.widgets.roulette import RouletteExplorer
from flowlib.widgets.spline import SplineExplorer
from flowlib.widgets.warp import WarpExplorer

__all__ = [
    "CompletionExplorer",
    "Explorer",
    "FixedPointExplorer",
    "InversionExplorer",
    "JacobianExplorer",
    "KLExplorer",
    "LayersExplorer",
    "MaskExplorer",
    "MultiscaleExplorer",
    "RouletteExplorer",
    "SplineExplorer",
    "WarpExplorer",
]
