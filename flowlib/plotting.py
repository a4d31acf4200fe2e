"""The book's look, and its four plots: points, a density, a map, a training run.

Colours are Okabe and Ito's and mean the same on every page, in figures and explorers alike:
what lives in data space is vermilion, what lives in latent space blue, a model's third thing
green, and what is wrong purple.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import torch
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import LinearSegmentedColormap
from torch import Tensor

__all__ = [
    "DATA",
    "DENSITY",
    "LATENT",
    "THIRD",
    "WRONG",
    "plot_density",
    "plot_history",
    "plot_map",
    "plot_points",
    "use_style",
]

DATA = "#D55E00"
LATENT = "#0072B2"
THIRD = "#009E73"
WRONG = "#CC79A7"
INK = "#3c4046"
GREY = "#9aa0a6"
PAPER = "#fcfcfa"

# White paper to ink with evenly falling lightness: points of any colour stand out on it.
DENSITY = LinearSegmentedColormap.from_list(
    "flowlib", [PAPER, "#d9dde2", "#bac0c8", "#9ca3ad", "#7f8792", "#646c78", "#4a525e"]
)


def use_style() -> None:
    """Set matplotlib to the book's style; every notebook calls it once, at its head."""
    mpl.rcParams.update(
        {
            "figure.dpi": 220,  # twice what a screen has where a column is widest
            "savefig.dpi": 220,
            "figure.figsize": (6.4, 4.0),  # on a phone this width shows 12 points as 9 pixels
            "figure.facecolor": PAPER,
            "savefig.facecolor": PAPER,
            "axes.facecolor": PAPER,
            "figure.constrained_layout.use": True,
            "font.size": 12,
            "axes.titlesize": 12,
            "axes.titlelocation": "left",
            "axes.labelcolor": INK,
            "axes.titlecolor": INK,
            "text.color": INK,
            "axes.edgecolor": GREY,
            "xtick.color": INK,
            "ytick.color": INK,
            "axes.linewidth": 0.8,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.prop_cycle": cycler(color=[DATA, LATENT, THIRD, WRONG]),
            "lines.linewidth": 2.0,
            "legend.frameon": False,
            "mathtext.fontset": "cm",
        }
    )


def plot_points(ax: Axes, x: Tensor, *, color: str = DATA, size: float = 4, **kwargs: Any) -> None:
    """Scatter points ``(n, 2)`` with equal axes."""
    points = _as_points("plot_points", x)
    alpha = kwargs.pop("alpha", 0.6)
    ax.scatter(points[:, 0], points[:, 1], s=size, c=color, linewidths=0, alpha=alpha, **kwargs)
    ax.set_aspect("equal")


def plot_density(
    ax: Axes,
    log_prob: Callable[[Tensor], Tensor],
    *,
    extent: tuple[float, float, float, float] = (-4, 4, -4, 4),
    resolution: int = 200,
    vmax: float | None = None,
) -> None:
    """Draw a density in the plane, from its logarithm.

    Args:
        ax: where to draw.
        log_prob: takes points ``(n, 2)``, returns ``log p`` ``(n,)``. The points are in float32, or
            in the dtype of a flow whose ``log_prob`` it is.
        extent: left, right, bottom, top.
        resolution: pixels a side.
        vmax: the density drawn darkest; give the same to panels that are to be compared.
    """
    left, right, bottom, top = extent
    step_x, step_y = (right - left) / resolution, (top - bottom) / resolution
    xs = left + step_x * (torch.arange(resolution) + 0.5)
    ys = bottom + step_y * (torch.arange(resolution) + 0.5)
    grid = torch.stack(torch.meshgrid(xs, ys, indexing="xy"), -1).reshape(-1, 2)
    owner = getattr(log_prob, "__self__", None)
    own = next(owner.parameters(), None) if isinstance(owner, torch.nn.Module) else None
    with torch.no_grad():
        log_p = log_prob(grid if own is None else grid.to(own)).float()
    p = log_p.exp().reshape(resolution, resolution).cpu().numpy()
    ax.imshow(p, origin="lower", extent=extent, cmap=DENSITY, vmin=0, vmax=vmax, zorder=0)
    ax.set_aspect("equal")


def plot_map(
    axes: tuple[Axes, Axes],
    f: Callable[[Tensor], Tensor],
    *,
    extent: tuple[float, float, float, float] = (-2, 2, -2, 2),
    lines: int = 17,
) -> None:
    """Draw a grid of data space on the left and its image under ``f`` on the right.

    Args:
        axes: the data-space panel and the latent-space panel.
        f: takes float32 points ``(n, 2)`` to points ``(n, 2)``.
        extent: of the grid: left, right, bottom, top.
        lines: how many in either direction.
    """
    left, right, bottom, top = extent
    t = np.linspace(0, 1, 101)
    grid = [
        np.stack([np.full_like(t, x), bottom + (top - bottom) * t], 1)
        for x in np.linspace(left, right, lines)
    ] + [
        np.stack([left + (right - left) * t, np.full_like(t, y)], 1)
        for y in np.linspace(bottom, top, lines)
    ]
    with torch.no_grad():
        image = [f(torch.as_tensor(line, dtype=torch.float32)).cpu().numpy() for line in grid]
    for ax, curves, color in zip(axes, (grid, image), (DATA, LATENT), strict=True):
        ax.add_collection(LineCollection(curves, colors=color, linewidths=0.9, alpha=0.8))
        ax.autoscale_view()
        ax.set_aspect("equal")


class Run(Protocol):
    """What :func:`plot_history` draws of a run, such as a :class:`flowlib.History`."""

    train: list[float]
    valid: list[tuple[int, float]]
    best_step: int


def plot_history(history: Run, ax: Axes | None = None) -> Axes:
    """Draw a training run: every step's loss, its running mean, and the validation losses.

    Args:
        history: what :func:`flowlib.fit` returned.
        ax: where to draw; by default on new axes.

    Raises:
        ValueError: if no step was taken.
    """
    if not history.train:
        raise ValueError("plot_history: no step was taken, there is nothing to draw")
    ax = ax or plt.subplots(figsize=(6.4, 3.2))[1]
    losses = np.array(history.train)
    steps = np.arange(1, len(losses) + 1)
    window = max(1, len(losses) // 50)
    smooth = np.convolve(losses, np.ones(window) / window, "valid")
    ax.plot(steps, losses, color=GREY, lw=0.7, alpha=0.6)
    ax.plot(steps[window - 1 :], smooth, color=INK, label="training")
    if history.valid:
        ax.plot(*zip(*history.valid, strict=True), "o-", color=THIRD, ms=4, label="validation")
        ax.axvline(history.best_step, color=GREY, lw=0.8, ls=":")
        ax.text(history.best_step, 0.98, " best", transform=ax.get_xaxis_transform(), va="top")
    # The first steps of a run are often so bad that nothing else could be seen.
    shown = np.concatenate([smooth, [value for step, value in history.valid if step]])
    low, high = shown.min(), np.quantile(shown, 0.98)
    margin = 0.1 * max(high - low, 1e-3)
    ax.set_ylim(low - margin, high + 2 * margin)
    ax.set(xlabel="step", ylabel="nats per point")
    ax.legend()
    return ax


def _as_points(where: str, x: Tensor) -> np.ndarray:
    points = torch.as_tensor(x).detach().cpu().numpy()
    if points.ndim != 2 or points.shape[1] != 2:
        raise ValueError(f"{where}: expected points (n, 2), got {points.shape}")
    return points
