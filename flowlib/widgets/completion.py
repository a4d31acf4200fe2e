"""An explorer of chapter 3: you paint the upper half of a digit, and a MADE completes it."""

from __future__ import annotations

import base64
import copy
import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch
import traitlets
from torch import Tensor, nn

from flowlib.flow import as_ints
from flowlib.made import MADE, BernoulliMADE, MaskedLinear
from flowlib.plotting import DATA, GREY, INK, PAPER, THIRD
from flowlib.trained import pretrained
from flowlib.widgets.base import Explorer

__all__ = ["CompletionExplorer"]

FEW, MANY = 8, 200  # completions that are shown, and of which the mean is taken
STEPS = 32767  # of the weights' precision, from zero to a unit's largest: what 16 bits hold
MOST_PIXELS, MOST_A_SIDE, MOST_PICTURES, MOST_LINKS = 256, 32, 11, 100_000
FIXED = ("network", "shape", "pictures", "labels", "typical", "start", "goal")


class CompletionExplorer(Explorer):
    """A trained MADE in the page: paint the first pixels of its ordering, and it draws the rest.

    Views of one state: the picture, which is painted and whose border between given and drawn is
    moved; eight completions; the probability of ink at each pixel given those before it, or the
    mean of 200 completions; and the bill, minus the log-probability of each pixel. A random number
    belongs to each pixel of each completion and stays while you paint, so that what changes is
    the effect of the paint.

    Only the links that the masks leave travel with the page, each as 16 bits: a whole number of
    steps, 32,767 of them from zero to the largest weight or bias of the unit that it leads to. The
    book's model has 10,000 links and makes a page of 101 kB; each thousand more add 2.7 kB. The
    page computes in float64.

    Args:
        model: a :class:`BernoulliMADE` on the pixels, row by row, in which every pixel has a rank
            of its own, with one set of masks, ReLU and no context; of any number of hidden layers.
            It is copied. Without one it is the book's.
        pictures: what one may start from, ``(n, ...)``, zeros and ones, each of as many numbers as
            the model has. Of the first the upper half is there at the start. Without them they are
            test digits, and of another shape than theirs there is a blank sheet only.
        shape: height and width of the pictures, at most 32 pixels a side and 256 in all.
        labels: what each picture is called, if not picture 1, picture 2, ...
        **traits: the attributes below.

    Attributes:
        pixels: the painted picture, row by row, ``D`` zeros and ones. What is not given is not
            looked at.
        given: how many pixels are given, the first of the ordering; at first half of them.
        seed: of the random numbers.
        chosen: which of the 8 completions is shown large, from 0.
        known: up to which pixel of the ordering one sees them drawn, at first all.
        pixel: of which pixel the numbers are told, row by row from 0.
        mean: whether the second view shows the mean of 200 completions.

    Raises:
        TypeError: if the model or a picture is none.
        ValueError: if the model is of another kind or has more than 100,000 links, or shape,
            pictures or labels do not fit it.
        traitlets.TraitError: if an attribute is given what it cannot take.

    Example:
        >>> model = BernoulliMADE(12, hidden=(24,))
        >>> CompletionExplorer(model, torch.ones(1, 3, 4), shape=(3, 4), seed=7)
        CompletionExplorer(6 of 3 × 4 pixels given, seed 7)

    Source:
        Germain, Gregor, Murray and Larochelle (2015), *MADE: Masked Autoencoder for Distribution
        Estimation*, sections 3 and 6.
    """

    script = "completion.js"
    pixels = traitlets.List().tag(sync=True)
    given = traitlets.Int(0).tag(sync=True)
    seed = traitlets.Int(1).tag(sync=True)
    chosen = traitlets.Int(0).tag(sync=True)
    known = traitlets.Int(0).tag(sync=True)
    pixel = traitlets.Int(0).tag(sync=True)
    mean = traitlets.Bool(False).tag(sync=True)
    # What the page computes with and starts from; fixed once it is made.
    network = traitlets.Dict().tag(sync=True)
    shape = traitlets.List().tag(sync=True)
    pictures = traitlets.List().tag(sync=True)
    labels = traitlets.List().tag(sync=True)
    typical = traitlets.List().tag(sync=True)
    start = traitlets.Dict().tag(sync=True)
    goal = traitlets.Dict().tag(sync=True)

    def __init__(
        self,
        model: BernoulliMADE | None = None,
        pictures: Tensor | None = None,
        shape: Sequence[int] = (8, 8),
        labels: Sequence[str] | None = None,
        **traits,
    ) -> None:
        self._fixed: dict = {}
        if model is None:
            model = pretrained("binary-digits")
        self._made, self.network = _rounded(_require_simple(model))
        dim = self._made.dim
        self.shape = _as_shape(shape, dim)
        if pictures is None and self.shape == [8, 8]:
            pictures, labels, self.typical = _digits(model, labels)
        rows = _as_rows(pictures, dim)
        self.pictures = ["".join(map(str, row)) for row in rows]
        if labels is None:
            labels = [f"picture {k + 1}" for k in range(len(rows))]
        self.labels = [str(label) for label in labels]
        if len(self.labels) != len(rows):
            raise ValueError(
                f"CompletionExplorer: expected {len(rows)} labels, got {len(self.labels)}"
            )
        self._by_rank = self._made.ranks[0].argsort()
        self.pixels = rows[0] if rows else [0] * dim
        self.given, self.known = dim // 2, dim
        given = traits.get("given", self.given)
        if as_ints((given,)) is not None and 0 <= given <= dim:
            # one of the first that are drawn
            self.pixel = self._by_rank[min(given + self.shape[1] // 2, dim - 1)].item()
        self._fixed = self._as_made()
        super().__init__(**traits)
        self._fixed = {}
        moving = ("given", "seed", "chosen", "known", "pixel", "mean")
        self.start = {"pixels": list(self.pixels), **{name: getattr(self, name) for name in moving}}
        self.goal = self._find_goal()
        self._fixed = self._as_made()

    def _as_made(self) -> dict:
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

    @traitlets.validate("given", "seed", "chosen", "known", "pixel")
    def _number(self, proposal):
        name, dim = proposal.trait.name, self._made.dim
        ends = {"seed": 2**31 - 1, "chosen": FEW - 1, "pixel": dim - 1}
        if not 0 <= proposal.value <= ends.get(name, dim):
            raise traitlets.TraitError(
                f"{name}: expected a whole number from 0 to {ends.get(name, dim)}, "
                f"got {proposal.value}"
            )
        return proposal.value

    @traitlets.validate("pixels")
    def _binary(self, proposal):
        pixels, dim = as_ints(proposal.value), self._made.dim
        if pixels is None or len(pixels) != dim or not set(pixels) <= {0, 1}:
            raise traitlets.TraitError(
                f"pixels: expected {dim} zeros and ones, got {proposal.value}"
            )
        return list(pixels)

    @traitlets.validate(*FIXED)
    def _same(self, proposal):
        name = proposal.trait.name
        if name in self._fixed and proposal.value != self._fixed[name]:
            raise traitlets.TraitError(
                f"{name}: it is fixed once the explorer is made; another CompletionExplorer can "
                "have another"
            )
        return proposal.value

    def __repr__(self) -> str:
        h, w = self.shape
        return f"CompletionExplorer({self.given} of {h} × {w} pixels given, seed {self.seed})"

    # --- what the page computes, too ---

    @torch.no_grad()
    def completions(self, prefixes: Tensor | None = None) -> Tensor:
        """The 200 completions that the page draws, ``(200, D)``; of prefixes ``(n, given)`` in the
        ordering those of each, ``(n, 200, D)``."""
        own = torch.tensor(self.pixels)[self._by_rank[: self.given]]
        rows = (own[None] if prefixes is None else prefixes).double()
        u = uniforms(self.seed, MANY, self._made.dim).repeat(len(rows), 1)

        def draw(dims: Tensor, logits: Tensor) -> Tensor:
            return (u[:, dims] < logits[:, 0].sigmoid()).double()

        drawn = self._made.autoregress(draw, len(u), given=rows.repeat_interleave(MANY, 0))
        drawn = drawn.reshape(len(rows), MANY, -1)
        return drawn[0] if prefixes is None else drawn

    def _find_goal(self) -> dict:
        """A late pixel that one given pixel moves far: which, and how often it is to be ink."""
        dim, given = self._made.dim, self.given
        late = self._by_rank[max(given, dim - dim // 4) :]
        flipped = torch.arange(max(0, given - 32), given)
        if not len(late) or not len(flipped):
            return {}
        own = torch.tensor(self.pixels)[self._by_rank[:given]]
        flips = own.repeat(len(flipped) + 1, 1)
        flips[torch.arange(len(flipped)) + 1, flipped] ^= 1
        counts = self.completions(flips).sum(1)[:, late]
        moved = counts[1:] - counts[0]
        flip, which = divmod(int(moved.abs().argmax()), len(late))
        far = moved[flip, which].item()
        if abs(far) < MANY / 5:  # no single pixel matters
            return {}
        # two thirds of the way, in tens
        bound = 10 * round((counts[0, which].item() + far * 2 / 3) / 10)
        return {"pixel": late[which].item(), "bound": bound, "sign": 1 if far > 0 else -1}

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
            f'<path d="{d}" fill="{INK}" fill-opacity="{0.05 + 0.95 * k / 8:.2f}" '
            f'stroke="{PAPER}"/>'
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
        parts.append(f'<path d="{edges or "M0 0"}" stroke="{INK}" stroke-width="3"/>')
        small = 44 / max(self.shape)
        for k, other in enumerate(drawn):
            left, top = 458 + 60 * (k % 3), 38 + 72 * (k // 3)
            parts += self._ink(other, left, top, small)
            if k == self.chosen:
                size = [small * side + 6 for side in self.shape]
                parts.append(
                    f'<rect x="{left - 3}" y="{top - 3}" width="{size[1]:.1f}" '
                    f'height="{size[0]:.1f}" fill="none" stroke="{INK}"/>'
                )
        titles = {14: "given, and drawn", 232: "p(ink), pixel by pixel", 458: "completions"}
        parts += [
            f'<text x="{x}" y="24" font-size="15" fill="{INK}">{text}</text>'
            for x, text in titles.items()
        ]
        return (
            '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 640 250" '
            f'font-family="sans-serif"><rect width="640" height="250" fill="{PAPER}"/>'
            f"{''.join(parts)}</svg>"
        )

    def _cell(self, k: int, left: float, top: float, size: float) -> str:
        row, column = divmod(k, self.shape[1])
        return f"M{left + size * column:.1f} {top + size * row:.1f}h{size:g}v{size:g}h-{size:g}z"

    def _ink(self, x: list[int], left: float, top: float, size: float) -> Iterator[str]:
        """Given ink in vermilion and drawn ink in green, on a sheet."""
        h, w = self.shape
        yield (
            f'<rect x="{left}" y="{top}" width="{size * w:g}" height="{size * h:g}" fill="none" '
            f'stroke="{GREY}"/>'
        )
        rank = self._made.ranks[0].tolist()
        for color, is_given in ((DATA, True), (THIRD, False)):
            cells = [k for k in range(len(x)) if x[k] and (rank[k] <= self.given) == is_given]
            d = "".join(self._cell(k, left, top, size) for k in cells)
            yield f'<path d="{d or "M0 0"}" fill="{color}"/>'


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


def _digits(model: BernoulliMADE, labels) -> tuple[Tensor, Sequence[str], list[float]]:
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


def _require_simple(model) -> MADE:
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
    links += sum(len(l.bias) for l in made.layers)
    if links > MOST_LINKS:
        raise ValueError(
            f"CompletionExplorer: expected a model of at most {MOST_LINKS:,} links, got {links:,}"
        )
    if not all(weights.isfinite().all() for weights in made.parameters()):
        raise ValueError("CompletionExplorer: the model has weights that are not finite")
    return made


def _masked(made: MADE) -> list[MaskedLinear]:
    return [*made.layers, *([made.direct] if made.direct is not None else [])]


def _as_shape(shape, dim: int) -> list[int]:
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


def _as_rows(pictures, dim: int) -> list[list[int]]:
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
    return pictures.detach().reshape(-1, dim).long().tolist()


# --- what travels ---------------------------------------------------------------------------


@torch.no_grad()
def _rounded(made: MADE) -> tuple[MADE, dict]:
    """A copy in float64 with the weights that the page has, and those as text.

    In the order of their degrees the units of a layer are linked to the first so many of the layer
    before: no index needs to travel. Of each unit there is its bias and then its links, of an
    output in the end those from the inputs directly.
    """
    made = copy.deepcopy(made).to("cpu", torch.float64)
    for layer in _masked(made):
        layer.weight.copy_(layer.masked_weight())
    degrees = [made.ranks[0], *(of_layer[0] for of_layer in made.degrees)]
    sorted_units = [m.argsort(stable=True) for m in degrees]
    units: list[float] = []
    numbers: list[Tensor] = []
    for l, layer in enumerate(made.layers):
        outputs = l + 1 == len(made.layers)
        parts = [layer.bias[:, None], layer.weight]
        if outputs and made.direct is not None:
            parts.append(made.direct.weight)
        rows = torch.cat(parts, 1)
        # six digits are short, and do not take the largest beyond its steps; nor has a row of
        # zeros a unit of zero
        largest = rows.abs().amax(1).clamp(min=1e-300)
        unit = rows.new_tensor([float(f"{v / STEPS:.6g}") for v in largest.tolist()])
        steps = (rows / unit[:, None]).round()
        for part, rounded in zip(
            parts, (steps * unit[:, None]).split([part.shape[1] for part in parts], 1), strict=True
        ):
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
