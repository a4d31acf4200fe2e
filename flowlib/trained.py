"""Flows that the book has trained for you, and how.

What takes longer than a chapter should is trained beforehand, and its weights come with the
library. ``tools/weights.py`` makes them all, and with ``--check`` compares; a test replays the
first steps of each.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from flowlib.bases import StandardNormal
from flowlib.coupling import RealNVP
from flowlib.flow import Compose, Flow
from flowlib.images import Dequantize, Flatten, ImageRealNVP
from flowlib.iresnet import IResNet, PowerSeries
from flowlib.made import BernoulliMADE
from flowlib.maps import Logit
from flowlib.residual_flow import ResidualFlow
from flowlib.training import History, fit

__all__ = ["digit_bits", "noisy_digits", "pretrained", "train"]

WEIGHTS = Path(__file__).parent / "weights"
SHAPE, LEVELS = (1, 8, 8), 17


def _digits_as_images() -> Flow:
    return ImageRealNVP(SHAPE, hidden=12)


def _digits_as_vectors() -> Flow:
    """As many parameters as the images' flow has, within a percent."""
    couplings: Any = RealNVP(64, n_layers=10, hidden=28).bijection
    return Flow(Compose([Logit(0.05), Flatten(SHAPE), *couplings]), StandardNormal(64), SHAPE)


def _digits_by_residuals() -> Flow:
    inner = IResNet(SHAPE, hidden=48, squeeze=1, log_det=lambda: PowerSeries(8))
    layers: Any = inner.bijection
    return Flow(Compose([Logit(0.05), *layers]), inner.base, SHAPE)


def _binary_digits() -> BernoulliMADE:
    return BernoulliMADE(64, hidden=(160,))


def _digits_by_roulette() -> Flow:
    inner = ResidualFlow(SHAPE, squeeze=1)
    layers: Any = inner.bijection
    return Flow(Compose([Logit(0.05), *layers]), inner.base, SHAPE)


def _nudges() -> Flow:
    return ResidualFlow(2)


class Recipe(NamedTuple):
    """What to make, how long and how fast it learns, and from what.

    ``data`` is ``"grey"`` or ``"binary"`` for digits, or one of :data:`flowlib.datasets.TOYS`.
    """

    make: Callable[[], Flow | BernoulliMADE]
    options: dict[str, Any]
    data: str = "grey"


RECIPES = {
    "digits-as-images": Recipe(_digits_as_images, {"steps": 600, "lr": 5e-3}),
    "digits-as-vectors": Recipe(_digits_as_vectors, {"steps": 800, "lr": 2e-3}),
    "digits-by-residuals": Recipe(_digits_by_residuals, {"steps": 600, "lr": 5e-3}),
    "digits-by-roulette": Recipe(_digits_by_roulette, {"steps": 600, "lr": 5e-3}),
    "binary-digits": Recipe(_binary_digits, {"steps": 700, "lr": 1e-2}, "binary"),
    **{
        f"{toy}-by-residual-flow": Recipe(_nudges, {"steps": steps, "lr": 1e-2}, toy)
        for toy, steps in {"moons": 1500, "8gaussians": 1500, "rings": 3000}.items()
    },
}


def pretrained(name: str) -> Flow | BernoulliMADE:
    """One of the book's trained models, in evaluation mode.

    Args:
        name: ``"digits-as-images"``, an :class:`ImageRealNVP` on pictures ``(1, 8, 8)`` with pixels
            from the unit interval; ``"digits-as-vectors"``, a :class:`RealNVP` of as many
            parameters on the same pictures; ``"digits-by-residuals"``, the blocks of an
            :class:`IResNet` with eight terms of their series; ``"digits-by-roulette"``, the same by
            a :class:`ResidualFlow`; ``"binary-digits"``, a :class:`BernoulliMADE` on
            :func:`~flowlib.datasets.binary_digits`, pixel after pixel, row by row; or
            ``"moons-by-residual-flow"``, ``"8gaussians-by-residual-flow"`` and
            ``"rings-by-residual-flow"``, each a :class:`ResidualFlow` of the plane.

    Raises:
        ValueError: if no model has that name.

    Example:
        >>> pretrained("digits-as-images").sample(3).shape
        torch.Size([3, 1, 8, 8])
    """
    flow = _make(name, seed=0)
    flow.load_state_dict(torch.load(WEIGHTS / f"{name}.pt", weights_only=True))
    return flow.eval()


def train(
    name: str, seed: int = 0, progress: bool | None = None
) -> tuple[Flow | BernoulliMADE, History]:
    """Train one of the book's models anew, on a CPU, as its weights were.

    Args:
        name: as in :func:`pretrained`.
        seed: of the weights at the start, the batches and the noise; the book's is 0.
        progress: whether to show a bar.

    Returns:
        The model in evaluation mode, and the losses.
    """
    from flowlib import datasets  # scikit-learn is slow to import, and few flows are trained

    flow = _make(name, seed)
    recipe = RECIPES[name]
    levels, _ = datasets.digit_images()
    data: Any
    if recipe.data == "binary":
        data, valid, *_ = datasets.binary_digits()[0]
    elif recipe.data == "grey":
        valid = noisy_digits(levels.valid, torch.Generator().manual_seed(0))

        def data(step: int) -> Tensor:
            rows = torch.randint(len(levels.train), (128,))
            return noisy_digits(levels.train[rows])  # with other noise each time

    else:
        toy = datasets.TOYS[recipe.data]
        valid = toy.sample(2000, np.random.default_rng([seed, 0]))

        def data(step: int) -> Tensor:
            return toy.sample(256, np.random.default_rng([seed, step]))

    history = fit(
        flow,
        data,
        batch_size=128,
        validation=valid,
        seed=seed,
        device="cpu",
        progress=progress,
        **recipe.options,
    )
    return flow.eval(), history


def noisy_digits(levels: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Digits ``(rows, 1, 8, 8)`` in whole levels, as pictures in the unit cube with noise."""
    to_unit = Dequantize(LEVELS)
    return to_unit(to_unit.noisy(levels, generator))[0]


@torch.no_grad()
def digit_bits(flow: Flow, levels: Tensor) -> float:
    """Bits per dimension of digits in whole levels under a flow on the unit cube, with the noise of
    one fixed draw."""
    from flowlib import datasets

    own = next(flow.parameters())
    x = noisy_digits(levels.cpu(), torch.Generator().manual_seed(1)).to(own)
    return datasets.bits_per_dim(flow.log_prob(x), 64, LEVELS).item()


def _make(name: str, seed: int) -> Flow | BernoulliMADE:
    if name not in RECIPES:
        raise ValueError(f"trained: expected one of {', '.join(RECIPES)}, got {name!r}")
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return RECIPES[name].make()
