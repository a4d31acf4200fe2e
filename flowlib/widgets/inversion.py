"""The explorer of chapter 4: MAF and IAF as a clock, one network in two directions."""

from __future__ import annotations

import itertools
from typing import Any

import torch
import traitlets
from torch import Tensor

from flowlib.autoregressive import IAF, MAF, Autoregressive, Jacobi, Sequential
from flowlib.flow import Bijection, Inverse
from flowlib.made import MADE
from flowlib.masks import choose_degrees, hidden_mask, output_mask, ranks_of
from flowlib.nn import Hardtanh
from flowlib.plotting import DATA, GREY, INK, LATENT, PAPER
from flowlib.transformers import Affine
from flowlib.widgets.base import Explorer
from flowlib.widgets.inputs import as_steps
from flowlib.widgets.stills import circle, path, picture, polyline, said, text, title
from flowlib.widgets.traits import Numbers, Whole, Wholes

__all__ = ["InversionExplorer"]

MOST_DIMS, MOST_LAYERS, MOST_UNITS = 6, 3, 12
PLACES = 4  # decimals of the weights
WAYS = ("sequential", "incremental", "jacobi")


class InversionExplorer(Explorer):
    """MAF and IAF side by side as a clock: which coordinate is known after which pass.

    Both flows have the same networks, turned round. Either *draw*: latent values are given, and the
    data are looked for; or *judge*: the other way. One of the two flows has all that its networks
    ask for, and is done after a pass for each layer. The other one waits, and the reader chooses
    how: a full pass for each rank, each unit once, or all coordinates at once until no bit changes.

    The page itself computes the networks, as :class:`flowlib.MADE` and :class:`flowlib.Affine` do.

    Args:
        flow: a :class:`flowlib.MAF` or :class:`flowlib.IAF` of 2 to 6 coordinates without a
            context, of at most 3 layers whose networks have one hidden layer of at most 12 units
            and whose transformer is :class:`flowlib.Affine`. What is not autoregressive in it, such
            as the :class:`flowlib.ActNorm` in front, is left out. Without one it shows a small MAF
            with random weights.
        **traits: the attributes below.

    Attributes:
        values: ``(D,)``, the values that are given, latent in a draw and data else.
        ranks: the rank of each coordinate in the first layer, from 1; equal ones are moved
            together. Every second layer has the reverse.
        layers: how many of the flow's layers are used.
        way: how the slow side inverts: ``"sequential"``, ``"incremental"`` or ``"jacobi"``.
        judge: whether data are judged; False: they are drawn.
        tick: how many passes have been made.
        guess: the reader's guess, in passes, of when the slow side is done; 0 for no guess.
        chosen: the index of the coordinate whose links are lit, or -1 for no coordinate.

    Raises:
        TypeError: if ``flow`` is not a MAF or an IAF, or there is no such option.
        ValueError: if the flow is not as above.
        traitlets.TraitError: if an attribute is given a value that it cannot hold.

    Example:
        >>> InversionExplorer(MAF(3, 2, 6), way="jacobi")
        InversionExplorer(3 coordinates, 2 layers, a draw by jacobi)

    Source:
        Papamakarios, Pavlakou and Murray (2017), section 3; Song, Meng, Liao and Ermon (2021).
    """

    script, shared = "inversion.js", ("degrees.js",)
    values = Numbers([], shape=lambda self: (self.dim,)).tag(sync=True)
    ranks = Wholes([], count=lambda self: self.dim, low=1, high=lambda self: self.dim).tag(
        sync=True
    )
    layers = Whole(1, low=1, high=lambda self: len(self.weights)).tag(sync=True)
    way = traitlets.Enum(WAYS, "sequential").tag(sync=True)
    judge = traitlets.Bool(False).tag(sync=True)
    tick = Whole(0, low=0, high=MOST_DIMS * MOST_LAYERS).tag(sync=True)
    guess = Whole(0, low=0, high=MOST_DIMS * MOST_LAYERS).tag(sync=True)
    chosen = Whole(-1, low=-1, high=lambda self: self.dim - 1).tag(sync=True)
    # of each layer its arrays, by their names, as nested lists
    weights: traitlets.List[Any] = traitlets.List().tag(sync=True, computed=True)

    def __init__(self, flow: MAF | IAF | None = None, **traits: Any) -> None:
        if flow is None:
            flow = _example()
        if not isinstance(flow, MAF | IAF):
            raise TypeError(
                f"InversionExplorer: expected a MAF or an IAF, got a {type(flow).__name__}"
            )
        layers = [layer for step in as_steps("InversionExplorer", flow) if (layer := _layer(step))]
        self.weights = [_weights(layer) for layer in layers]
        self.ranks = layers[0].ranks.tolist()
        self.layers = len(layers)
        generator = torch.Generator().manual_seed(4)
        drawn = torch.randn(self.dim, generator=generator, dtype=torch.float64)
        self.values = drawn.round(decimals=2).tolist()
        super().__init__(**traits)

    @property
    def dim(self) -> int:
        """The number of coordinates."""
        return len(self.weights[0]["low"]) if self.weights else 0

    @property
    def caption(self) -> str:
        """One sentence that says what the still picture shows."""
        return (
            f"Two networks on {self.dim} coordinates, MAF and IAF, the second upside down: in a "
            "draw the one has its inputs still to find and takes a pass for each rank, the other "
            "has them all and takes one."
        )

    def __repr__(self) -> str:
        many = f"{self.layers} layer{'s' * (self.layers > 1)}"
        what = "a judgement" if self.judge else "a draw"
        return f"InversionExplorer({self.dim} coordinates, {many}, {what} by {self.way})"

    # --- the flows ---

    def maps(self) -> list[Autoregressive]:
        """The layers, with the present ranks, in float64."""
        ranks = ranks_of(self.dim, self.ranks)
        made = []
        for k, weights in enumerate(self.weights[: self.layers]):
            turned = ranks if k % 2 == 0 else int(ranks.max()) + 1 - ranks
            made.append(_rebuilt(weights, turned))
        return made

    def passes(self) -> dict[str, int]:
        """How many passes each flow needs, with the present values and way."""
        needed = {"maf": 0, "iaf": 0}
        values = torch.tensor([self.values], dtype=torch.float64)
        layers = self.maps() if self.judge else self.maps()[::-1]
        slow, fast = ("iaf", "maf") if self.judge else ("maf", "iaf")
        for layer in layers:
            jacobi = Jacobi()
            values, _ = jacobi(layer, values, None)
            needed[slow] += jacobi.passes if self.way == "jacobi" else layer.n_ranks()
            needed[fast] += 1
        return needed

    def found(self) -> dict[str, list[float]]:
        """What each flow makes of the values."""
        values = torch.tensor([self.values], dtype=torch.float64)
        layers = self.maps() if self.judge else self.maps()[::-1]
        quick, slow = values, values
        for layer in layers:
            quick = layer(quick)[0]
            slow = Sequential()(layer, slow, None)[0]
        maf, iaf = (quick, slow) if self.judge else (slow, quick)
        return {"maf": maf[0].tolist(), "iaf": iaf[0].tolist()}

    # --- words and the picture ---

    @property
    def reading(self) -> str:
        """What is given, how long both take, and the task."""
        given = f"{'x' if self.judge else 'z'} = ({', '.join(said(v, 2) for v in self.values)})"
        counts = " and ".join(
            f"{name.upper()} needs {count} pass{'es' * (count > 1)}"
            for name, count in self.passes().items()
        )
        return (
            f"Given is {given}; {counts}. Task: find ranks and a way of inverting under which the "
            f"slow side is done after {_goal(self.dim)} ticks a layer, and at least "
            f"{_enough(self.dim)} of the {_pairs(self.dim)} pairs of coordinates are still linked."
        )

    def still(self) -> str:
        """Both flows before the clock starts: what is given is filled, what waits is dashed."""
        dim = self.dim
        ranks = ranks_of(dim, self.ranks)
        degrees = _degrees(len(self.weights[0]["b1"]), ranks)
        masks = [hidden_mask(degrees, ranks), output_mask(ranks, degrees)]
        parts = []
        for side, name in enumerate(("MAF", "IAF")):
            top, bottom = 62.0, 226.0

            def spot(row: int, k: int, count: int, side: int = side) -> tuple[float, float]:
                pitch = min(52.0, 270 / count)
                up = (62.0, 144.0, 226.0)[2 - row if side == 0 else row]
                return 165 + 310 * side + (k - (count - 1) / 2) * pitch, up

            sizes = [dim, len(degrees), dim]
            parts.append(title(40 + 310 * side, 26, name))
            for row, mask in enumerate(masks):
                ends = mask.nonzero().tolist()
                lines = (
                    [spot(row, c, sizes[row]), spot(row + 1, r, sizes[row + 1])] for r, c in ends
                )
                parts.append(path("".join(map(polyline, lines)), stroke=GREY))
            for row, count in enumerate(sizes):
                for k in range(count):
                    x, y = spot(row, k, count)
                    if row == 1:
                        parts.append(circle(x, y, 8, fill=PAPER, stroke=INK))
                        continue
                    below = y == bottom
                    color = DATA if below else LATENT
                    known = below == self.judge
                    drawn: dict[str, str | float] = {"fill": color if known else PAPER}
                    if not known:
                        drawn |= {"stroke_dasharray": "4 3"}
                    parts.append(circle(x, y, 17, stroke=color, stroke_width=2, **drawn))
                    shown = said(self.values[k], 2) if known else "?"
                    ink = PAPER if known and y == top else INK
                    parts.append(
                        text(x, y + 4, shown, font_size=12, text_anchor="middle", fill=ink)
                    )
        return picture(262, *parts)


def _pairs(dim: int) -> int:
    return dim * (dim - 1) // 2


def _goal(dim: int) -> int:
    """The task's number of ticks for a layer."""
    return (dim + 1) // 2


def _enough(dim: int) -> int:
    """Pairs that are left where so many ranks are shared as equally as they can be."""
    sizes = [len(range(k, dim, _goal(dim))) for k in range(_goal(dim))]
    return sum(a * b for a, b in itertools.combinations(sizes, 2))


def _degrees(width: int, ranks: Tensor) -> Tensor:
    (degrees,) = choose_degrees("cyclic", [width], ranks)
    return degrees


def _example() -> MAF:
    generator = torch.Generator().manual_seed(8)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.default_generator.manual_seed(8)
        flow = MAF(5, 1, 8, order="natural")
        for weights in flow.parameters():
            weights.add_(0.5 * torch.randn(weights.shape, generator=generator))
    return flow


def _layer(step: Bijection) -> Autoregressive | None:
    while isinstance(step, Inverse):
        step = step.bijection
    return step if isinstance(step, Autoregressive) else None


ARRAYS = {
    "w1": "made.layers.0.weight", "b1": "made.layers.0.bias",
    "w2": "made.layers.1.weight", "b2": "made.layers.1.bias", "direct": "made.direct.weight",
    "low": "transformer.low", "width": "transformer.width",
}  # fmt: skip


def _weights(layer: Autoregressive) -> dict[str, Any]:
    made = layer.made
    fits = (
        2 <= made.dim <= MOST_DIMS and not made.context_dim and len(made.widths) == 1
        and made.widths[0] <= MOST_UNITS and isinstance(layer.transformer, Affine)
        and isinstance(made.activation, Hardtanh)
    )  # fmt: skip
    if not fits:
        raise ValueError(
            f"InversionExplorer: expected layers of 2 to {MOST_DIMS} coordinates without a "
            f"context, with one hidden layer of at most {MOST_UNITS} units and an Affine "
            f"transformer, got {made.dim} coordinates, a context of {made.context_dim}, hidden "
            f"layers of {list(made.widths)} and {type(layer.transformer).__name__}"
        )
    state = layer.state_dict()
    return {
        name: state[key].double().round(decimals=PLACES).tolist() if key in state else []
        for name, key in ARRAYS.items()
    }


def _rebuilt(weights: dict[str, Any], ranks: Tensor) -> Autoregressive:
    dim, hidden = len(weights["low"]), len(weights["b1"])
    made = MADE(
        dim, hidden, outputs_per_dim=2, order=ranks, activation=Hardtanh,
        direct=bool(weights["direct"]),
    )  # fmt: skip
    layer = Autoregressive(made, Affine(dim)).double().requires_grad_(False)
    state = layer.state_dict()
    for name, key in ARRAYS.items():
        if key in state:
            state[key].copy_(torch.tensor(weights[name], dtype=torch.float64))
    return layer
