"""The data of the book: five shapes in the plane whose density is known, and three real tables.

A :class:`Toy` is drawn from and evaluated like a distribution, so that a model's held-out
likelihood can be put beside the truth. The real sets ship with scikit-learn: nothing is
downloaded. Each comes as a :class:`Split`, always the same one.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from sklearn import datasets as sklearn_datasets
from torch import Tensor

from flowlib.maps import Logit

__all__ = [
    "TOYS",
    "Split",
    "Toy",
    "bits_per_dim",
    "breast_cancer",
    "checkerboard",
    "digit_images",
    "digits",
    "eight_gaussians",
    "moons",
    "rings",
    "two_spirals",
    "wine",
]

Rng = np.random.Generator


# --- shapes in the plane ------------------------------------------------------------------


@dataclass(frozen=True)
class Toy:
    """A density in the plane that can be sampled and evaluated.

    Four of the five are a curve (or a few points) smeared by Gaussian noise: a point is drawn on
    the skeleton, then noise is added. Their density is the same sum written as an integral along
    the skeleton, here with 4,096 evenly weighted points, which is exact to about 1e-6.

    Attributes:
        name: as the tables of the book print it.
        noise: the standard deviation of the noise in either direction.

    Example:
        >>> x = moons.sample(1000, np.random.default_rng(0))
        >>> x.shape, x.dtype
        (torch.Size([1000, 2]), torch.float32)
        >>> 2.2 < -moons.log_prob(x).mean().item() < 2.6
        True
    """

    name: str
    noise: float
    _draw: Callable[[int, Rng], np.ndarray] = field(repr=False)
    _skeleton: Callable[[], np.ndarray] | None = field(repr=False)

    def sample(self, n: int, rng: Rng) -> Tensor:
        """``n`` independent points ``(n, 2)`` in float32, from a ``numpy.random.Generator``."""
        if n < 0:
            raise ValueError(f"{self.name}: expected a number of points, got {n}")
        points = self._draw(n, rng)
        if self.noise:
            points = points + self.noise * rng.standard_normal((n, 2))
        return torch.as_tensor(points, dtype=torch.float32)

    def log_prob(self, x: Tensor) -> Tensor:
        """The true log-density in nats, ``(..., 2)`` to ``(...)``; it is minus infinity outside
        of a checkerboard's squares."""
        if x.shape[-1:] != (2,):
            raise ValueError(f"{self.name}: expected points (..., 2), got {tuple(x.shape)}")
        flat = x.double().reshape(-1, 2)
        if self._skeleton is None:
            log_p = _checkerboard_log_prob(flat)
        else:
            skeleton = torch.as_tensor(self._skeleton())
            log_p = torch.cat([self._mixture(part, skeleton) for part in flat.split(2048)])
        dtype = x.dtype if x.is_floating_point() else torch.get_default_dtype()
        return log_p.reshape(x.shape[:-1]).to(dtype)

    def _mixture(self, x: Tensor, centres: Tensor) -> Tensor:
        squared = torch.cdist(x, centres, compute_mode="donot_use_mm_for_euclid_dist").square()
        log_kernel = -0.5 * squared / self.noise**2 - math.log(2 * math.pi * self.noise**2)
        return log_kernel.logsumexp(1) - math.log(len(centres))


def _draw_moons(n: int, rng: Rng) -> np.ndarray:
    t = rng.uniform(0.0, np.pi, n)
    return _moons_at(t, rng.integers(0, 2, n).astype(bool))


def _moons_at(t: np.ndarray, second: np.ndarray) -> np.ndarray:
    first_arc = np.stack([np.cos(t), np.sin(t)], 1)
    second_arc = np.stack([1 - np.cos(t), 0.5 - np.sin(t)], 1)
    return 2 * (np.where(second[:, None], second_arc, first_arc) - [0.5, 0.25])


def _moons_skeleton() -> np.ndarray:
    t = np.pi * _midpoints(2048)
    return np.concatenate([_moons_at(t, np.full(2048, second)) for second in (False, True)])


def _eight_centres() -> np.ndarray:
    angle = np.arange(8) * np.pi / 4
    return 2.83 * np.stack([np.cos(angle), np.sin(angle)], 1)


def _draw_eight_gaussians(n: int, rng: Rng) -> np.ndarray:
    return _eight_centres()[rng.integers(0, 8, n)]


def _draw_two_spirals(n: int, rng: Rng) -> np.ndarray:
    sign = rng.choice([-1.0, 1.0], n)[:, None]
    points: np.ndarray = sign * _spiral_at(rng.uniform(size=n))
    return points


def _spiral_at(u: np.ndarray) -> np.ndarray:
    r = 3 * np.pi * np.sqrt(u)
    return np.stack([-r * np.cos(r), r * np.sin(r)], 1) / 3


def _two_spirals_skeleton() -> np.ndarray:
    arm = _spiral_at(_midpoints(2048))
    return np.concatenate([arm, -arm])


RADII = np.array([0.75, 1.5, 2.25, 3.0])


def _ring_at(radius: np.ndarray, turn: np.ndarray) -> np.ndarray:
    angle = 2 * np.pi * turn
    points: np.ndarray = radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], 1)
    return points


def _draw_rings(n: int, rng: Rng) -> np.ndarray:
    return _ring_at(RADII[rng.integers(0, 4, n)], rng.uniform(size=n))


def _rings_skeleton() -> np.ndarray:
    return _ring_at(np.repeat(RADII, 1024), np.tile(_midpoints(1024), 4))


def _draw_checkerboard(n: int, rng: Rng) -> np.ndarray:
    x1 = rng.uniform(-4.0, 4.0, n)
    x2 = rng.uniform(0.0, 2.0, n) - 4.0 * rng.integers(0, 2, n) + 2.0 * (np.floor(x1 / 2) % 2)
    return np.stack([x1, x2], 1)


def _checkerboard_log_prob(x: Tensor) -> Tensor:
    inside = (x.abs() < 4).all(1) & ((x / 2).floor().sum(1) % 2 == 0)
    return torch.where(inside, -math.log(32.0), -math.inf).double()


def _midpoints(n: int) -> np.ndarray:
    return (np.arange(n) + 0.5) / n


moons = Toy("moons", 0.2, _draw_moons, _moons_skeleton)
eight_gaussians = Toy("8gaussians", 0.3536, _draw_eight_gaussians, _eight_centres)
checkerboard = Toy("checkerboard", 0.0, _draw_checkerboard, None)
two_spirals = Toy("2spirals", 0.1, _draw_two_spirals, _two_spirals_skeleton)
rings = Toy("rings", 0.08, _draw_rings, _rings_skeleton)
TOYS = {toy.name: toy for toy in (moons, eight_gaussians, checkerboard, two_spirals, rings)}


# --- real data ----------------------------------------------------------------------------


class Split(NamedTuple):
    """A data set in three parts, each ``(rows, *event)``; the rows never overlap."""

    train: Tensor
    valid: Tensor
    test: Tensor


def _split(x: np.ndarray, valid: float, test: float) -> list[np.ndarray]:
    """Permute by generator 7 and cut: the first rows to train on, the last to test on."""
    x = x[np.random.default_rng(7).permutation(len(x))]
    n_valid, n_test = round(valid * len(x)), round(test * len(x))
    n_train = len(x) - n_valid - n_test
    return np.split(x, [n_train, n_train + n_valid])


def _table(x: np.ndarray) -> Split:
    train, *_ = parts = _split(np.asarray(x, dtype=np.float64), valid=0.15, test=0.20)
    mean, std = train.mean(0), train.std(0)
    return Split(*(torch.as_tensor((part - mean) / std, dtype=torch.float32) for part in parts))


def wine() -> Split:
    """178 Italian wines, 13 chemical measurements each, standardised by the training part.

    Example:
        >>> [tuple(part.shape) for part in wine()]
        [(115, 13), (27, 13), (36, 13)]
    """
    return _table(sklearn_datasets.load_wine().data)


def breast_cancer() -> Split:
    """569 cell samples, 30 measurements each, standardised by the training part.

    Example:
        >>> [tuple(part.shape) for part in breast_cancer()]
        [(370, 30), (85, 30), (114, 30)]
    """
    return _table(sklearn_datasets.load_breast_cancer().data)


def digit_images() -> tuple[Split, Split]:
    """The digits as pictures of whole levels, and which digit each of them is.

    Returns:
        levels from 0 to 16, each part ``(rows, 1, 8, 8)`` in uint8, and labels from 0 to 9, each
        part ``(rows,)``. The rows are those of :func:`digits`.

    Example:
        >>> levels, labels = digit_images()
        >>> [tuple(part.shape) for part in levels], int(levels.train.max()), labels.test[0].item()
        ([(1258, 1, 8, 8), (180, 1, 8, 8), (359, 1, 8, 8)], 16, 1)
    """
    data = sklearn_datasets.load_digits()
    images = _split(data.images[:, None].astype(np.uint8), valid=0.10, test=0.20)
    labels = _split(data.target, valid=0.10, test=0.20)
    return Split(*map(torch.as_tensor, images)), Split(*map(torch.as_tensor, labels))


def binary_digits() -> tuple[Split, Split]:
    """The digits in black and white: ink, 1, where the level is 8 or more of 16.

    Returns:
        zeros and ones, each part ``(rows, 64)`` with the pixels row by row, and labels from 0 to 9,
        each part ``(rows,)``. The rows are those of :func:`digit_images`.

    Example:
        >>> x, labels = binary_digits()
        >>> x.test.shape, x.test.unique().tolist(), labels.test[0].item()
        (torch.Size([359, 64]), [0.0, 1.0], 1)
    """
    levels, labels = digit_images()
    return Split(*((part >= 8).flatten(1).float() for part in levels)), labels


def digits(rng: Rng) -> tuple[Split, Split]:
    """1,797 handwritten digits of 8×8 pixels in 17 grey levels, as numbers a flow can fit.

    A density needs a continuum, so each level gets uniform noise, ``x = (level + U(0, 1)) / 17``,
    and the unit interval is stretched over the line, ``y = logit(0.05 + 0.9 x)``.

    Args:
        rng: draws the noise.

    Returns:
        ``y``, each part ``(rows, 64)``, and ``log|det dy/dx|``, each part ``(rows,)``. The
        likelihood of a picture is ``bits_per_dim(log p(y) + log|det dy/dx|, 64, levels=17)``.

    Example:
        >>> y, log_det = digits(np.random.default_rng(0))
        >>> [tuple(part.shape) for part in y], log_det.test.shape
        ([(1258, 64), (180, 64), (359, 64)], torch.Size([359]))
    """
    levels = [part.flatten(1).double().numpy() for part in digit_images()[0]]
    x = [torch.as_tensor((part + rng.uniform(size=part.shape)) / 17) for part in levels]
    y, log_det = zip(*map(Logit(0.05), x), strict=True)
    return Split(*(part.float() for part in y)), Split(*(part.float() for part in log_det))


def bits_per_dim(log_p: Tensor, dims: int, levels: int = 256) -> Tensor:
    """The mean negative log-likelihood of pictures, in bits for each number in them.

    Args:
        log_p: log-densities in nats of dequantized pictures ``x = (level + U(0, 1)) / levels`` on
            the unit cube, any shape. A density of something computed from ``x`` needs that
            map's log-determinant added first.
        dims: how many numbers a picture has: pixels times channels.
        levels: how many values a number can take.

    Raises:
        ValueError: if ``dims`` or ``levels`` is less than 1.

    Example:
        The uniform density knows nothing, and needs all 8 bits of an 8-bit picture.

        >>> bits_per_dim(torch.zeros(5), dims=3 * 32 * 32).item()
        8.0

    Source: Theis, van den Oord and Bethge (2016), section 3.1.
    """
    if dims < 1 or levels < 1:
        raise ValueError(f"bits_per_dim: expected dims and levels from 1, got {dims} and {levels}")
    return math.log2(levels) - log_p.mean() / (dims * math.log(2))
