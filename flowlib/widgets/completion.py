"""An explorer of chapter 3: the reader paints the upper half of a digit, a MADE completes it."""

from __future__ import annotations

import base64
import copy
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
import traitlets
from torch import Tensor, nn

from flowlib.arguments import as_ints
from flowlib.made import MADE, BernoulliMADE, MaskedLinear
from flowlib.plotting import DATA, GREY, INK, PAPER, THIRD
from flowlib.trained import pretrained
from flowlib.widgets.base import Explorer
from flowlib.widgets.inputs import as_names, picture_names
from flowlib.widgets.stills import path, picture, rectangle, said, square, title
from flowlib.widgets.traits import LARGEST_SEED, Index, Whole, Wholes

__all__ = ["CompletionExplorer"]

FEW, MANY = 8, 200  # completions that are shown, and of which the mean is taken
SOLVERS = 3  # at least so many pixels solve the task
STEPS = 32767  # of the weights' precision, from zero to a unit's largest: what 16 bits hold
MOST_PIXELS, MOST_A_SIDE, MOST_PICTURES, MOST_LINKS = 256, 32, 11, 100_000
FIXED = ("network", "shape", "pictures", "labels", "typical", "start", "goal")


class CompletionExplorer(Explorer):
    """A trained MADE in the page: paint the first pixels of its ordering, and it draws the rest.

    Views of one state: the picture, which the reader paints, with a border between given and drawn
    pixels, which the reader moves; eight completions; the probability of ink at each pixel given
    those before it, or the mean of 200 completions; and minus the log-probability of each pixel.
    Each pixel of each completion has a random number that stays the same while the reader paints,
    so that all changes are effects of the paint.

    The page contains only the links that the masks leave, each as 16 bits: a whole number of steps,
    32,767 of them from zero to the largest weight or bias of the unit that it leads to. The book's
    model has 10,000 links and makes a page of 101 kB; each thousand more add 2.7 kB. The page
    computes in float64.

    Args:
        model: a :class:`BernoulliMADE` on the pixels, row by row, in which every pixel has a rank
            of its own, with one set of masks, ReLU and no context, and any number of hidden layers.
            It is copied. The default is the book's model.
        pictures: the pictures to choose a start from, ``(n, ...)``, zeros and ones, each of as many
            numbers as the model has. The explorer starts with the upper half of the first. By
            default they are test digits, or a blank sheet if the shape is not that of the digits.
        shape: height and width of the pictures, at most 32 pixels a side and 256 in all.
        labels: what each picture is called, if not picture 1, picture 2, ...
        **traits: the attributes below.

    Attributes:
        pixels: the painted picture, row by row, ``D`` zeros and ones. Those that are not given have
            no effect.
        given: how many pixels are given, the first of the ordering; at first half of them.
        painted: of how many of them the paint is kept while the border is moved about; at first
            those that are given.
        seed: the seed of the random numbers.
        chosen: which of the 8 completions is shown large, from 0.
        known: how many pixels of the ordering are shown, at first all.
        pixel: the pixel whose numbers are shown, row by row from 0.
        mean: whether the second view shows the mean of 200 completions.

    Raises:
        TypeError: if ``model`` is not a :class:`BernoulliMADE`, the pictures are not a tensor, or
            there is no such option.
        ValueError: if the model is of another kind or has more than 100,000 links, or shape,
            pictures or labels do not fit it.
        traitlets.TraitError: if an attribute is given a value that it cannot hold.

    Example:
        >>> model = BernoulliMADE(12, hidden=(24,))
        >>> CompletionExplorer(model, torch.ones(1, 3, 4), shape=(3, 4), seed=7)
        CompletionExplorer(6 of 3 × 4 pixels given, seed 7)

    Source:
        Germain, Gregor, Murray and Larochelle (2015), *MADE: Masked Autoencoder for Distribution
        Estimation*, sections 3 and 6.
    """

    script = "completion.js"
    pixels = Wholes(count=lambda self: self._made.dim, low=0, high=1).tag(sync=True)
    given = Whole(0, low=0, high=lambda self: self._made.dim).tag(sync=True)
    painted = Whole(0, low=0, high=lambda self: self._made.dim).tag(sync=True)
    seed = Whole(1, low=0, high=LARGEST_SEED).tag(sync=True)
    chosen = Index(FEW).tag(sync=True)
    known = Whole(0, low=0, high=lambda self: self._made.dim).tag(sync=True)
    pixel = Index(lambda self: self._made.dim).tag(sync=True)
    mean = traitlets.Bool(False).tag(sync=True)
    # What the page computes with and starts from; fixed once the explorer is made.
    network: traitlets.Dict[str, Any] = traitlets.Dict().tag(sync=True, computed=True)
    shape: traitlets.List[int] = traitlets.List().tag(sync=True, computed=True)
    pictures: traitlets.List[str] = traitlets.List().tag(sync=True, computed=True)
    labels: traitlets.List[str] = traitlets.List().tag(sync=True, computed=True)
    typical: traitlets.List[float] = traitlets.List().tag(sync=True, computed=True)
    start: traitlets.Dict[str, Any] = traitlets.Dict().tag(sync=True, computed=True)
    goal: traitlets.Dict[str, Any] = traitlets.Dict().tag(sync=True, computed=True)

    def __init__(
        self,
        model: BernoulliMADE | None = None,
        pictures: Tensor | None = None,
        shape: Sequence[int] = (8, 8),
        labels: Sequence[str] | None = None,
        **traits: Any,
    ) -> None:
        self._fixed: dict[str, Any] = {}
        model = _require_simple(pretrained("binary-digits") if model is None else model)
        self._made, self.network = _rounded(model.made)
        dim = self._made.dim
        self.shape = _as_shape(shape, dim)
        if pictures is None and self.shape == [8, 8]:
            pictures, labels, self.typical = _digits(model, labels)
        rows = _as_rows(pictures, dim)
        self.pictures = ["".join(map(str, row)) for row in rows]
        default = picture_names(len(rows))
        self.labels = as_names("CompletionExplorer", "labels", labels, default)
        self._by_rank = self._made.ranks[0].argsort()
        self.pixels = rows[0] if rows else [0] * dim
        self.given, self.known = dim // 2, dim
        given = traits.get("given", self.given)
        if as_ints((given,)) is not None and 0 <= given <= dim:
            # one of the first that are drawn
            self.pixel = int(self._by_rank[min(given + self.shape[1] // 2, dim - 1)])
        self._fixed = self._as_made()
        super().__init__(**traits)
        if "painted" not in traits:
            self.painted = self.given
        self._fixed = {}
        moving = ("given", "painted", "seed", "chosen", "known", "pixel", "mean")
        self.start = {"pixels": list(self.pixels), **{name: getattr(self, name) for name in moving}}
        self.goal = self._find_goal()
        self._fixed = self._as_made()

    def _as_made(self) -> dict[str, Any]:
        return copy.deepcopy({name: getattr(self, name) for name in FIXED})

    @property
    def caption(self) -> str:
        """One sentence that says what the still picture shows."""
        h, w = self.shape
        return (
            f"A picture of {h} × {w} pixels of which the first {self.given} are given, in "
            "vermilion, and the others drawn by the model, in green; beside it, as greys, how "
            f"probable the model held ink at each pixel, and {FEW} completions of the same start."
        )

    @traitlets.validate(*FIXED)
    def _same(self, proposal: dict[str, Any]) -> Any:
        name = proposal["trait"].name
        if name in self._fixed and proposal["value"] != self._fixed[name]:
            raise traitlets.TraitError(
                f"{name}: it is fixed once the explorer is made; another CompletionExplorer can "
                "have another"
            )
        return proposal["value"]

    def __repr__(self) -> str:
        h, w = self.shape
        return f"CompletionExplorer({self.given} of {h} × {w} pixels given, seed {self.seed})"

    @property
    def reading(self) -> str:
        """How probable the picture shown is, and the task."""
        drawn = self.completions()
        x = drawn[self.chosen]
        logits = self._made(x[None])[0]
        log_p = -torch.nn.functional.softplus((1 - 2 * x) * logits).sum().item()
        words = f"Of the picture shown, with what was given, log p is {said(log_p, 1)} nats."
        if not self.goal:
            return words
        row, column = divmod(self.goal["pixel"], self.shape[1])
        count = int(drawn[:, self.goal["pixel"]].sum())
        least = "least" if self.goal["sign"] > 0 else "most"
        return words + (
            f" The pixel marked ?, in row {row}, column {column}, is ink in {count} of "
            f"{MANY} completions. Task: find a given pixel that matters to it. Change it, and it "
            f"alone, so that ? is ink in at {least} {self.goal['bound']} of them."
        )

    # --- what the page computes, too ---

    @torch.no_grad()
    def completions(self, prefixes: Tensor | None = None) -> Tensor:
        """The 200 completions that the page draws, ``(200, D)``; of prefixes ``(n, given)`` in the
        ordering those of each, ``(n, 200, D)``."""
        own = torch.tensor(self.pixels)[self._by_rank[: self.given]]
        rows = (own[None] if prefixes is None else prefixes).double()
        u = uniforms(self.seed, MANY, self._made.dim).repeat(len(rows), 1)

        def draw(dims: Tensor, logits: Tensor) -> tuple[Tensor, None]:
            return (u[:, dims] < logits[:, 0].sigmoid()).double(), None

        drawn, _ = self._made.autoregress(draw, len(u), given=rows.repeat_interleave(MANY, 0))
        drawn = drawn.reshape(len(rows), MANY, -1)
        return drawn[0] if prefixes is None else drawn

    def _find_goal(self) -> dict[str, Any]:
        """A late pixel that depends on three given ones, and how often it must be ink."""
        dim, given = self._made.dim, self.given
        late = self._by_rank[max(given, dim - dim // 4) :]
        flipped = torch.arange(max(0, given - 32), given)
        if not len(late) or len(flipped) < SOLVERS:
            return {}
        own = torch.tensor(self.pixels)[self._by_rank[:given]]
        flips = own.repeat(len(flipped) + 1, 1)
        flips[torch.arange(len(flipped)) + 1, flipped] ^= 1
        counts = self.completions(flips).sum(1)[:, late]
        moved = torch.stack([counts[1:] - counts[0], counts[0] - counts[1:]])  # more ink, or less
        far = moved.topk(SOLVERS, 1).values[:, -1]
        way, which = divmod(int(far.argmax()), len(late))
        if far[way, which] < MANY / 10:  # few pixels matter
            return {}
        sign = 1 - 2 * way
        # two thirds of the way of the third, in tens
        bound = 10 * round((counts[0, which].item() + sign * far[way, which].item() * 2 / 3) / 10)
        return {"pixel": late[which].item(), "bound": bound, "sign": sign}

    # --- the picture ---

    @torch.no_grad()
    def still(self) -> str:
        """The picture with its border, the probabilities, and the eight completions."""
        drawn = self.completions()[:FEW].long().tolist()
        x = drawn[self.chosen]
        p = self._made(torch.tensor([x]).double())[0].sigmoid().tolist()
        rank = self._made.ranks[0].tolist()
        large = 200 / max(self.shape)
        parts = list(self._ink(x, 14, 38, large))
        greys = [""] * 9
        for k, level in enumerate(p):
            greys[round(8 * level)] += self._cell(k, 232, 38, large)
        parts += [
            path(d, fill=INK, fill_opacity=round(0.05 + 0.95 * k / 8, 2), stroke=PAPER)
            for k, d in enumerate(greys)
            if d
        ]
        w = self.shape[1]
        edges = ""
        for k in range(len(x)):
            row, column = divmod(k, w)
            left, top = 14 + large * column, 38 + large * row
            is_given = rank[k] <= self.given
            if column + 1 < w and is_given != (rank[k + 1] <= self.given):
                edges += f"M{left + large:.1f} {top:.1f}v{large:.1f}"
            if k + w < len(x) and is_given != (rank[k + w] <= self.given):
                edges += f"M{left:.1f} {top + large:.1f}h{large:.1f}"
        parts.append(path(edges, stroke=INK, stroke_width=3))
        small = 44 / max(self.shape)
        for k, other in enumerate(drawn):
            left, top = 458 + 60 * (k % 3), 38 + 72 * (k // 3)
            parts += self._ink(other, left, top, small)
            if k == self.chosen:
                height, width = (small * side + 6 for side in self.shape)
                parts.append(rectangle(left - 3, top - 3, width, height, fill="none", stroke=INK))
        return picture(
            250,
            *parts,
            title(14, 24, "given, and drawn"),
            title(232, 24, "p(ink), pixel by pixel"),
            title(458, 24, "completions"),
        )

    def _cell(self, k: int, left: float, top: float, size: float) -> str:
        row, column = divmod(k, self.shape[1])
        return square(left + size * column, top + size * row, size)

    def _ink(self, x: list[int], left: float, top: float, size: float) -> Iterator[str]:
        """Given ink in vermilion and drawn ink in green, on a sheet."""
        h, w = self.shape
        yield rectangle(left, top, size * w, size * h, fill="none", stroke=GREY)
        rank = self._made.ranks[0].tolist()
        for color, is_given in ((DATA, True), (THIRD, False)):
            cells = [k for k in range(len(x)) if x[k] and (rank[k] <= self.given) == is_given]
            yield path("".join(self._cell(k, left, top, size) for k in cells), fill=color)


def uniforms(seed: int, count: int, dim: int) -> Tensor:
    """The page's random numbers in [0, 1), ``(count, dim)`` float64, of completions and pixels.

    The numbers of mulberry32, of which each is computed by itself from its place in the sequence.
    """
    low = 0xFFFFFFFF
    a = (np.arange(1, count * dim + 1) * 0x6D2B79F5 + seed * 0x9E3779B1) & low
    a = a.astype(np.uint64)  # its products wrap around, and their lower 32 bits are right
    t = ((a ^ (a >> 15)) * (a | 1)) & low
    t ^= (t + (((t ^ (t >> 7)) * (t | 61)) & low)) & low
    return torch.from_numpy((t ^ (t >> 14)).astype(np.float64) / 2**32).reshape(count, dim)


# --- what it is given -----------------------------------------------------------------------


def _digits(
    model: BernoulliMADE, labels: Sequence[str] | None
) -> tuple[Tensor, Sequence[str], list[float]]:
    """Test digits, their names, and the mean and the middle nine tenths of log p of all."""
    from flowlib import datasets  # scikit-learn is slow to import

    images, digits = datasets.binary_digits()
    x = images.test
    rows = [33, 52, 98, 6, 48, 32, 39]
    names = digits.test[rows].tolist()
    with torch.no_grad():
        log_p = model.log_prob(x.to(next(model.parameters()).device)).double().cpu()
    ends = log_p.quantile(torch.tensor([0.05, 0.95]).double()).tolist()
    typical = [round(value, 1) for value in [log_p.mean().item(), *ends]]
    if labels is None:
        labels = [f"digit {digit}" for digit in names]
    return x[rows], labels, typical


def _require_simple(model: object) -> BernoulliMADE:
    if not isinstance(model, BernoulliMADE):
        raise TypeError(
            f"CompletionExplorer: expected a BernoulliMADE, got a {type(model).__name__}"
        )
    made = model.made
    if not 2 <= made.dim <= MOST_PIXELS:
        raise ValueError(
            f"CompletionExplorer: expected a model of 2 to {MOST_PIXELS} pixels, got {made.dim}"
        )
    if model.n_masks > 1:
        raise ValueError(
            f"CompletionExplorer: expected a model of one set of masks, got {model.n_masks}"
        )
    if model.context_dim:
        raise ValueError("CompletionExplorer: expected a model without a context")
    if not isinstance(made.activation, nn.ReLU):
        raise ValueError(
            f"CompletionExplorer: expected a model with ReLU, got {type(made.activation).__name__}"
        )
    if made.ranks.max() < made.dim:
        raise ValueError(
            f"CompletionExplorer: expected a rank of its own for each of {made.dim} pixels, got "
            f"{int(made.ranks.max())} ranks"
        )
    links = sum(int(l.mask.count_nonzero()) for l in _masked(made))
    links += sum(l.out_features for l in _layers(made))
    if links > MOST_LINKS:
        raise ValueError(
            f"CompletionExplorer: expected a model of at most {MOST_LINKS:,} links, got {links:,}"
        )
    if not all(weights.isfinite().all() for weights in made.parameters()):
        raise ValueError("CompletionExplorer: the model has weights that are not finite")
    return model


def _layers(made: MADE) -> list[MaskedLinear]:
    return [layer for layer in made.layers if isinstance(layer, MaskedLinear)]


def _masked(made: MADE) -> list[MaskedLinear]:
    """The layers, and the direct links from inputs to outputs, if there are any."""
    return [*_layers(made), *([made.direct] if made.direct is not None else [])]


def _as_shape(shape: object, dim: int) -> list[int]:
    sides = as_ints(shape)
    if sides is None or len(sides) != 2 or min(sides) < 1 or math.prod(sides) != dim:
        raise ValueError(
            f"CompletionExplorer: expected a shape (height, width) of {dim} pixels, as the model "
            f"has them, got {shape}"
        )
    if max(sides) > MOST_A_SIDE:
        raise ValueError(
            f"CompletionExplorer: expected a shape of at most {MOST_A_SIDE} pixels a side, got "
            f"{shape}"
        )
    return list(sides)


def _as_rows(pictures: object, dim: int) -> list[list[int]]:
    if pictures is None:
        return []
    if not isinstance(pictures, Tensor):
        raise TypeError(
            f"CompletionExplorer: expected pictures as a Tensor, got a {type(pictures).__name__}"
        )
    fits = pictures.dim() >= 2 and pictures[0:1].numel() == dim
    if not fits or not 1 <= len(pictures) <= MOST_PICTURES:
        raise ValueError(
            f"CompletionExplorer: expected 1 to {MOST_PICTURES} pictures (n, ...) of {dim} "
            f"numbers each, got shape {tuple(pictures.shape)}"
        )
    if not ((pictures == 0) | (pictures == 1)).all():
        raise ValueError(
            "CompletionExplorer: expected pictures of zeros and ones; a threshold makes them, "
            "such as (x > 0.5)"
        )
    rows: list[list[int]] = pictures.detach().reshape(-1, dim).long().tolist()
    return rows


# --- what travels ---------------------------------------------------------------------------


@torch.no_grad()
def _rounded(made: MADE) -> tuple[MADE, dict[str, Any]]:
    """A copy in float64 with the weights that the page has, and those as text.

    In the order of their degrees the units of a layer are linked to the first so many of the layer
    before, so that the page needs no indices. For each unit there is its bias, then its links, and
    for an output last the direct links from the inputs.
    """
    made = copy.deepcopy(made).to("cpu", torch.float64)
    for layer in _masked(made):
        layer.weight.copy_(layer.masked_weight())
    degrees = [made.ranks[0], *(of_layer[0] for of_layer in made.degrees)]
    sorted_units = [m.argsort(stable=True) for m in degrees]
    units: list[float] = []
    numbers: list[Tensor] = []
    for l, layer in enumerate(_layers(made)):
        outputs = l + 1 == len(made.layers)
        parts = [layer.bias[:, None], layer.weight]
        if outputs and made.direct is not None:
            parts.append(made.direct.weight)
        rows = torch.cat(parts, 1)
        # Six digits are short, and with them the largest still fits its steps. A row of zeros needs
        # a unit, too, that is not zero.
        largest = rows.abs().amax(1).clamp(min=1e-300)
        unit = rows.new_tensor([float(f"{v / STEPS:.6g}") for v in largest.tolist()])
        steps = (rows / unit[:, None]).round()
        widths = [part.shape[1] for part in parts]
        for part, rounded in zip(parts, torch.split(steps * unit[:, None], widths, 1), strict=True):
            part.copy_(rounded)
        before, after = sorted_units[l], sorted_units[0 if outputs else l + 1]
        for u in after.tolist():
            # an output sees what is of a smaller degree, a hidden unit of its own, too
            most = degrees[0][u] - 1 if outputs else degrees[l + 1][u]
            seen = before[: int((degrees[l] <= most).sum())]
            numbers += [steps[u, :1], steps[u, 1 + seen]]
            if len(parts) == 3:
                numbers.append(steps[u, 1 + len(before) + after[:most]])
        units += unit[after].tolist()
    network = {
        "ranks": degrees[0].tolist(),
        "degrees": [m.sort().values.tolist() for m in degrees[1:]],
        "direct": made.direct is not None,
        "units": units,
        "links": base64.b64encode(torch.cat(numbers).numpy().astype("<i2").tobytes()).decode(),
    }
    return made, network
