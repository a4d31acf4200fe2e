"""The explorer of the second half of chapter 2: a picture on its way through RealNVP."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, cast

import torch
import traitlets
from torch import Tensor

from flowlib.coupling import Coupling, MaskedCoupling
from flowlib.datasets import digit_images
from flowlib.flow import Bijection, Compose, Flow
from flowlib.images import FactorOut, Flatten, Squeeze, checkerboard_mask
from flowlib.plotting import DATA, INK, LATENT, PAPER
from flowlib.trained import noisy_digits, pretrained
from flowlib.widgets.base import Explorer
from flowlib.widgets.inputs import as_names, as_steps, picture_names, require_flow, step_name
from flowlib.widgets.stills import number, path, picture, said, square, title
from flowlib.widgets.traits import Index, Whole

__all__ = ["MultiscaleExplorer"]

PLACES = 2
REACH = 3.0  # what is fully black, once values have left the unit interval; white is -REACH


class MultiscaleExplorer(Explorer):
    """A picture on its way through a flow: which pixels move, which wait, and which have left.

    Three views of the same numbers: where they were in the picture, where they are in the array
    that is still on its way, and where they are in the latent. One pixel is chosen and marked in
    all of them. No layer mixes places, so that each number of the latent belongs to one pixel.

    An :class:`ActNorm` is a step of its own, in which every value moves; a coupling leaves the
    values that it keeps exactly as they are. Values are computed in float64 and sent with two
    decimals; 4 pictures of 64 pixels and 24 layers make a page of 110 kB, which grows with their
    product.

    Args:
        flow: an :class:`ImageRealNVP`, or a :class:`flowlib.Flow` or :class:`flowlib.Bijection` of
            its kinds of layers: maps of each value by itself such as :class:`Logit` and
            :class:`ActNorm`, :class:`MaskedCoupling`, :class:`Coupling` on channels,
            :class:`Squeeze`, :class:`FactorOut`, and :class:`Flatten` as the last. It is copied.
        x: pictures ``(n, C, H, W)`` with values from the unit interval, 1 to 6 of at most 3
            channels and 256 numbers. Without flow and pictures it shows the book's trained flow
            and four digits.
        labels: what each picture is called, if not picture 1, picture 2, ...
        **traits: the attributes below.

    Attributes:
        picture: which picture is shown, from 0.
        depth: how many steps it has passed, from 0 to all of them.
        pixel: which number is chosen, as an index into the flattened picture; at first in the
            middle.

    Raises:
        TypeError: if ``flow`` is not a :class:`flowlib.Flow` or a :class:`flowlib.Bijection`, there
            are no pictures, or there is no such option.
        ValueError: if the flow takes a context or has other layers, or pictures or labels do not
            fit, or a step is not finite.
        traitlets.TraitError: if an attribute is given a value that it cannot hold.

    Example:
        >>> from flowlib import ImageRealNVP
        >>> flow = ImageRealNVP((1, 8, 8), hidden=4)
        >>> MultiscaleExplorer(flow, torch.rand(2, 1, 8, 8), depth=8)
        MultiscaleExplorer(2 pictures after step 8 of 24: squeeze)

    Source:
        Dinh, Sohl-Dickstein and Bengio (2017), *Density Estimation using Real NVP*, sections 3.4
        to 3.6.
    """

    script = "multiscale.js"
    picture = Index(lambda self: len(self.labels)).tag(sync=True)
    depth = Whole(0, low=0, high=lambda self: len(self.steps)).tag(sync=True)
    pixel = Index(lambda self: math.prod(self.shape)).tag(sync=True)
    # What the page draws: of each picture the values after 0, 1, ... steps, in the picture's own
    # order, and the log-det of each step; and of each step what _travel says.
    values: traitlets.List[Any] = traitlets.List().tag(sync=True, computed=True)
    log_dets: traitlets.List[Any] = traitlets.List().tag(sync=True, computed=True)
    steps: traitlets.List[Any] = traitlets.List().tag(sync=True, computed=True)
    shape: traitlets.List[int] = traitlets.List().tag(sync=True, computed=True)
    labels: traitlets.List[str] = traitlets.List().tag(sync=True, computed=True)

    def __init__(
        self,
        flow: Flow | Bijection | None = None,
        x: Tensor | None = None,
        labels: Sequence[str] | None = None,
        **traits: Any,
    ) -> None:
        if flow is None and x is None:
            flow, x, labels = _example()
        flow, x = _as_pictures(flow, x)
        self.labels = as_names("MultiscaleExplorer", "labels", labels, picture_names(len(x)))
        layers = list(_unfold(as_steps("MultiscaleExplorer", flow)))
        self.steps, values, log_dets = _travel(layers, x)
        self.values, self.log_dets = _rounded(values), _rounded(log_dets)
        self.shape = list(x.shape[1:])
        _, h, w = self.shape
        self.pixel = h // 2 * w + w // 2
        super().__init__(**traits)

    @property
    def caption(self) -> str:
        """One sentence that says what the still picture shows."""
        return (
            f"A picture of {' × '.join(map(str, self.shape))} numbers, three times: with dots "
            "where the first coupling of a flow moves it; as the array of channels, with a blue "
            "edge what leaves first; and as the latent, what left first above."
        )

    def __repr__(self) -> str:
        name = f": {self.steps[self.depth - 1]['name']}" if self.depth else ""
        plural = "s" * (len(self.labels) > 1)
        return (
            f"MultiscaleExplorer({len(self.labels)} picture{plural} after step {self.depth} of "
            f"{len(self.steps)}{name})"
        )

    @property
    def reading(self) -> str:
        """What becomes of the chosen pixel, and the task."""
        latent = self.steps[-1]["order"]
        dim = math.prod(self.shape)
        late = range(int(0.58 * dim), dim)
        goal = next((k for k in late if latent[k] != self.pixel), 0)
        _, h, w = self.shape
        channel, place = divmod(self.pixel, h * w)
        row, column = divmod(place, w)
        value = self.values[self.picture][-1][self.pixel]
        of = f"channel {channel}, " if self.shape[0] > 1 else ""
        return (
            f"The pixel in {of}row {row}, column {column} becomes z[{latent.index(self.pixel)}] = "
            f"{said(value, 2)}. Task: which pixel of the data becomes z[{goal}]? Go to the end, "
            "choose that number in the latent, and follow it back to the data, before the first "
            "step."
        )

    def still(self) -> str:
        """The picture and what moves first, its channels and what leaves first, and its latent."""
        count = math.prod(self.shape)
        moves = next((k for k, step in enumerate(self.steps) if "m" in step["status"]), 0)
        leaves = next(k for k, step in enumerate(self.steps) if "l" in step["status"])
        array = self.steps[leaves - 1]["shape"] if leaves else self.shape
        natural = list(range(count))
        before = self.steps[leaves - 1]["order"] if leaves else natural
        latent = self.steps[-1]["order"]
        side = 8 if count <= 64 else 16
        shown = [
            ("data", DATA, 0, self.shape, natural, "m", self.steps[moves]["status"]),
            ("on its way", INK, leaves, array, before, "l", self.steps[leaves]["status"]),
            ("latent", LATENT, len(self.steps), [1, -(-count // side), side], latent, "", ""),
        ]
        parts = []
        for i, (words, color, depth, shape, order, letter, status) in enumerate(shown):
            values = self.values[self.picture][depth]
            low, high = (0, 1) if depth == 0 else (-REACH, REACH)
            columns = math.ceil(math.sqrt(shape[0]))
            size = 184 / (columns * shape[2] + 0.5 * (columns - 1))
            cells, marks = [""] * 9, ""
            for k, j in enumerate(order):
                column, row = _corner(k, shape, columns)
                left, top = 14 + 210 * i + size * column, 40 + size * row
                grey = round(8 * min(1, max(0, (values[j] - low) / (high - low))))
                cells[grey] += square(left, top, size)
                if letter and status[j] == letter:
                    middle = f"M{number(left + size / 2)} {number(top + size / 2)}h0"
                    edge = square(left + 1.5, top + 1.5, size - 3)
                    marks += middle if letter == "m" else edge
            parts += [
                path(d, fill=INK, fill_opacity=round(0.06 + 0.94 * grey / 8, 2), stroke=PAPER)
                for grey, d in enumerate(cells)
            ]
            ink, width = (DATA, 8) if letter == "m" else (LATENT, 2.5)
            parts += [
                path(marks, fill="none", stroke=ink, stroke_width=width, stroke_linecap="round"),
                title(14 + 210 * i, 26, words, color),
            ]
        return picture(250, *parts)


def _corner(k: int, shape: Sequence[int], columns: int) -> tuple[float, float]:
    """Column and row of number ``k`` of an array whose channels are drawn as planes, in cells."""
    channel, place = divmod(k, shape[1] * shape[2])
    row, column = divmod(place, shape[2])
    return (
        channel % columns * (shape[2] + 0.5) + column,
        channel // columns * (shape[1] + 0.5) + row,
    )


# --- what it is given -----------------------------------------------------------------------


def _example() -> tuple[Flow, Tensor, list[str]]:
    """The trained flow and four test digits with fixed noise; no other randomness is touched."""
    levels, labels = digit_images()
    digits = [3, 0, 7, 4]
    rows = [labels.test.tolist().index(digit) for digit in digits]
    x = noisy_digits(levels.test[rows], torch.Generator().manual_seed(2))
    flow = cast(Flow, pretrained("digits-as-images"))
    return flow, x, [f"digit {digit}" for digit in digits]


def _as_pictures(flow: object, x: object) -> tuple[Flow | Bijection, Tensor]:
    flow, x = require_flow("MultiscaleExplorer", flow, x, "pictures x (n, C, H, W)")
    fits = x.dim() == 4 and 1 <= len(x) <= 6 and 1 <= x.shape[1] <= 3
    if not fits or not 2 <= x[0].numel() <= 256:
        raise ValueError(
            "MultiscaleExplorer: expected x (n, C, H, W), 1 to 6 pictures of 1 to 3 channels and "
            f"2 to 256 numbers, got shape {tuple(x.shape)}"
        )
    if not ((x >= 0) & (x <= 1)).all():
        raise ValueError(
            "MultiscaleExplorer: expected x with values from the unit interval, got values from "
            f"{x.min().item():g} to {x.max().item():g}"
        )
    if isinstance(flow, Flow) and flow.event_shape != x.shape[1:]:
        raise ValueError(
            f"MultiscaleExplorer: expected pictures of shape {tuple(flow.event_shape)}, as the "
            f"flow has them, got {tuple(x.shape[1:])}"
        )
    return flow, x


def _unfold(layers: Iterable[Bijection]) -> Iterator[Bijection]:
    """The layers in the order in which a number meets them, those after each scale included."""
    for layer in layers:
        if isinstance(layer, Compose):
            yield from _unfold(layer)
            continue
        yield layer
        if isinstance(layer, FactorOut):
            yield from _unfold([layer.rest])


# --- what it computes -----------------------------------------------------------------------


@torch.no_grad()
def _travel(layers: list[Bijection], x: Tensor) -> tuple[list[dict[str, Any]], Tensor, Tensor]:
    """What each step does, ``(n, steps + 1, D)`` values in data order, ``(n, steps)`` log-dets.

    Of a step: its name and kind; the shape of the array on its way after it; ``order``, of which
    pixels the numbers are, first those in the latent, then those in the array; and ``status``, a
    letter for each pixel: m moved by what others say, e moved each by itself, k kept,
    r rearranged, l leaves, - left before.
    """
    # Indices travel with the pictures, as one more of them, through all that carries numbers.
    index = torch.arange(x[0].numel()).to(x).reshape(1, *x.shape[1:])
    array, latent = torch.cat([index, x]), x.new_zeros(len(x) + 1, 0)
    steps, values, log_dets = [], [x.flatten(1)], []
    for k, layer in enumerate(layers):
        if not array.numel():
            raise ValueError(
                f"MultiscaleExplorer: everything has left before layer {k + 1}: {step_name(layer)}"
            )
        name, kind, letters = _describe(layer, k, array[1:])
        status = ["-"] * index.numel()
        for i, letter in zip(array[0].flatten().long().tolist(), letters, strict=True):
            status[i] = letter
        log_det = x.new_zeros(len(x))
        if kind == "squeeze":
            array, _ = layer(array)
        elif isinstance(layer, FactorOut | Flatten):
            leaving, array = _part(layer, array)
            latent = torch.cat([latent, leaving], 1)
            for i in leaving[0].long().tolist():
                status[i] = "l"
        else:
            moved, log_det = layer(array[1:])
            array = torch.cat([array[:1], moved])
        numbers = torch.cat([latent, array.flatten(1)], 1)
        if not (numbers.isfinite().all() and log_det.isfinite().all()):
            raise ValueError(f"MultiscaleExplorer: layer {k + 1} is not finite at these pictures")
        order = numbers[0].long()
        values.append(numbers[1:, order.argsort()])
        log_dets.append(log_det)
        steps.append(
            {
                "name": name,
                "kind": kind,
                "shape": list(array.shape[1:]),
                "order": order.tolist(),
                "status": "".join(status),
            }
        )
    if array.numel():
        raise ValueError(
            "MultiscaleExplorer: expected layers that end in a Flatten, got a "
            f"{step_name(layers[-1])} as the last"
        )
    return steps, torch.stack(values, 1), torch.stack(log_dets, 1)


def _describe(layer: Bijection, k: int, array: Tensor) -> tuple[str, str, str]:
    """A layer's name, its kind, and a letter for each number of the array that it gets."""
    shape, count = array.shape[1:], array[0].numel()
    if isinstance(layer, Coupling):
        layer.forward_shape(shape)
        kept = layer.mask.repeat_interleave(count // shape[0])
        return "channel coupling", "channels", _letters(kept)
    if isinstance(layer, MaskedCoupling):
        layer.forward_shape(shape)
        boards = [checkerboard_mask(shape, offset) for offset in (0, 1)]
        board = any(torch.equal(layer.mask, one) for one in boards)
        name = "checkerboard coupling" if board else "masked coupling"
        return name, "pixels", _letters(layer.mask.flatten())
    if isinstance(layer, Squeeze):
        return "squeeze", "squeeze", "r" * count
    if isinstance(layer, FactorOut):
        half = layer.leaving == layer.going_on
        return ("half leaves" if half else "a part leaves"), "leave", "k" * count
    if isinstance(layer, Flatten):
        return "the rest leaves", "leave", "k" * count
    depends = layer.dependence(count)
    if depends is not None and torch.equal(depends, torch.eye(count, dtype=torch.bool)):
        name = step_name(layer)
        return ("logit" if name == "Logit" else name), "each", "e" * count
    raise ValueError(
        "MultiscaleExplorer: expected maps of each value by itself, MaskedCoupling, Coupling, "
        f"Squeeze, FactorOut and Flatten, got a {step_name(layer)} as layer {k + 1}"
    )


def _letters(kept: Tensor) -> str:
    return "".join("mk"[i] for i in kept.tolist())


def _part(layer: FactorOut | Flatten, array: Tensor) -> tuple[Tensor, Tensor]:
    """What leaves for the latent, in its order there, and what is still on its way."""
    if isinstance(layer, Flatten):
        return layer(array)[0], array[:, :0]
    _, h, w = layer.event_shape
    rest = (layer.going_on, h, w)
    vector, _ = FactorOut(layer.event_shape, Flatten(rest))(array)
    leaving, going_on = torch.split(vector, [layer.leaving * h * w, layer.going_on * h * w], 1)
    return leaving, going_on.reshape(-1, *rest)


def _rounded(values: Tensor) -> list[Any]:
    rounded: list[Any] = (values.round(decimals=PLACES) + 0.0).tolist()  # the sum has no -0.0
    return rounded
