"""The explorer of chapter 3: MADE's masks, moved by hand."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import torch
import traitlets
from torch import Tensor

from flowlib.arguments import as_ints
from flowlib.masks import cyclic_degrees, hidden_mask, output_mask, path_counts
from flowlib.plotting import DATA, GREY, INK, PAPER, THIRD, WRONG
from flowlib.widgets.base import Explorer
from flowlib.widgets.stills import Style, circle, path, picture, polyline, square, text
from flowlib.widgets.traits import LARGEST_SEED, Permutation, Whole, Wholes

__all__ = ["MaskExplorer"]

MOST_INPUTS, MOST_LAYERS, MOST_UNITS = 8, 3, 12


class MaskExplorer(Explorer):
    """A network with MADE's masks: the reader changes degrees and single links, and the explorer
    counts the paths from inputs to outputs.

    Three views of one state: the network, its masks, and their product. What is chosen lights up in
    all of them, and so does each path to an output from an input that it must not depend on. A
    sample is drawn value by value, and each unit is computed once.

    The page itself computes the masks, as :mod:`flowlib.made` does. Only its random degrees come
    from another generator.

    Args:
        **traits: the attributes below. The default ordering is the natural one, the default
            degrees are cyclic.

    Attributes:
        dim: the number ``D`` of inputs, from 2 to 8.
        widths: the widths of 1 to 3 hidden layers, each from 1 to 12.
        order: the rank of each input, a permutation of 1 to ``D``.
        degrees: for each hidden layer the degrees of its units, from 1 to ``D`` less 1.
        flips: ``[layer, row, column]`` of each entry of a mask that is the opposite of the rule's.
        seed: of random degrees and orderings.
        chosen: the index of the output whose inputs are lit, or -1 for no output.
        step: how many values of a sample are drawn; 0 if no sample is being drawn.
        by_rank: whether the table of paths is in the order of the ranks.
        simple: whether only the network and the table of paths are shown, with a task of their own.

    Raises:
        TypeError: if there is no such option.
        traitlets.TraitError: if an attribute is given a value that it cannot hold.

    Example:
        >>> MaskExplorer(dim=3, widths=[4], flips=[[1, 0, 0]])
        MaskExplorer(3 inputs, hidden layers [4], 1 entry flipped)

    Source:
        Germain, Gregor, Murray and Larochelle (2015), *MADE: Masked Autoencoder for Distribution
        Estimation*, sections 3 and 4.
    """

    script, shared = "mask.js", ("degrees.js",)
    dim = Whole(4, low=2, high=MOST_INPUTS).tag(sync=True)
    widths = Wholes([5], count=(1, MOST_LAYERS), low=1, high=MOST_UNITS).tag(sync=True)
    order = Permutation([1, 2, 3, 4], first=1, last=lambda self: self.dim, what="rank").tag(
        sync=True
    )
    degrees: traitlets.List[Any] = traitlets.List(default_value=[[1, 1, 2, 2, 3]]).tag(sync=True)
    flips: traitlets.List[Any] = traitlets.List().tag(sync=True)
    seed = Whole(0, low=0, high=LARGEST_SEED).tag(sync=True)
    chosen = Whole(-1, low=-1, high=lambda self: self.dim - 1).tag(sync=True)
    step = Whole(0, low=0, high=lambda self: self.dim).tag(sync=True)
    by_rank = traitlets.Bool(False).tag(sync=True)
    simple = traitlets.Bool(False).tag(sync=True)

    def __init__(self, **traits: Any) -> None:
        super().__init__(**traits)
        if "degrees" in traits:  # the observers replace them if they are the default size's preset
            self.degrees = traits["degrees"]

    @property
    def caption(self) -> str:
        """One sentence that says what the still picture shows."""
        return (
            f"A network of {self.dim} inputs, below, hidden layers of "
            f"{' and '.join(map(str, self.widths))} units with their degrees, and {self.dim} "
            "outputs, with the links that MADE's masks leave; beside it the number of paths from "
            "each input to each output."
        )

    # --- the state ---

    @traitlets.validate("degrees")
    def _check_degrees(self, proposal: dict[str, Any]) -> list[list[int]]:
        degrees = [as_ints(layer) for layer in proposal["value"]]
        if not self._have_degrees(degrees):
            raise traitlets.TraitError(
                f"degrees: expected whole numbers from 1 to {self.dim - 1} for hidden layers of "
                f"{self.widths} units, got {proposal['value']}"
            )
        return [list(map(int, layer or ())) for layer in degrees]

    @traitlets.validate("flips")
    def _check_flips(self, proposal: dict[str, Any]) -> list[list[int]]:
        flips = [as_ints(flip) for flip in proposal["value"]]
        if len(set(flips)) < len(flips) or not self._have_entries(flips):
            raise traitlets.TraitError(
                "flips: expected different [layer, row, column] of masks of shapes "
                f"{self._shapes()}, got {proposal['value']}"
            )
        return [list(map(int, flip or ())) for flip in flips]

    @traitlets.observe("dim", "widths")
    def _refit(self, change: dict[str, Any]) -> None:
        """What does not fit another size, or was its preset, becomes the preset of this one."""
        # at the start a list has no old value
        old: Any = change["old"] if isinstance(change["old"], int | list) else change["new"]
        dim, widths = (old, self.widths) if change["name"] == "dim" else (self.dim, old)
        if sorted(self.order) != list(range(1, self.dim + 1)):
            self.order = list(range(1, self.dim + 1))
        if self.degrees == _cyclic(dim, widths) or not self._have_degrees(self.degrees):
            self.degrees = _cyclic(self.dim, self.widths)
        if not self._have_entries(self.flips):
            self.flips = []
        self.chosen, self.step = min(self.chosen, self.dim - 1), min(self.step, self.dim)

    def _have_degrees(self, degrees: Sequence[Sequence[int] | None]) -> bool:
        return len(degrees) == len(self.widths) and all(
            layer is not None and len(layer) == width and all(1 <= m < self.dim for m in layer)
            for layer, width in zip(degrees, self.widths, strict=True)
        )

    def _shapes(self) -> list[tuple[int, int]]:
        return [(after, before) for before, after in itertools.pairwise(self._sizes())]

    def _sizes(self) -> list[int]:
        return [self.dim, *self.widths, self.dim]

    def _have_entries(self, flips: Sequence[Sequence[int] | None]) -> bool:
        shapes = self._shapes()
        return all(
            flip is not None
            and len(flip) == 3
            and 0 <= flip[0] < len(shapes)
            and all(0 <= k < n for k, n in zip(flip[1:], shapes[flip[0]], strict=True))
            for flip in flips
        )

    def masks(self) -> list[Tensor]:
        """The masks with the flipped entries, bool, each ``(after, before)``."""
        ranks, *degrees = map(torch.tensor, [self.order, *self.degrees])
        pairs = itertools.pairwise([ranks, *degrees])
        masks = [hidden_mask(after, before) for before, after in pairs]
        masks.append(output_mask(ranks, degrees[-1]))
        for layer, row, column in self.flips:
            masks[layer][row, column] ^= True
        return masks

    def __repr__(self) -> str:
        count = len(self.flips)
        flipped = f"{count} {'entry' if count == 1 else 'entries'} flipped"
        return f"MaskExplorer({self.dim} inputs, hidden layers {self.widths}, {flipped})"

    @property
    def reading(self) -> str:
        """Which pairs are linked, what the chosen output sees, and the task."""
        counts = path_counts(self.masks())
        ranks = torch.tensor(self.order)
        may = output_mask(ranks, ranks)
        linked = int((counts[may] > 0).sum())
        words = f"Of the {int(may.sum())} pairs that may be linked {linked} are. "
        wrong = int((counts[~may] > 0).sum())
        if wrong:
            words = words[:-2] + f", and {wrong} that must not be. "
        if self.chosen >= 0:
            seen = [str(i + 1) for i in (counts[self.chosen] > 0).nonzero()[:, 0].tolist()]
            inputs = " and ".join([", ".join(seen[:-1]), seen[-1]] if seen[1:] else seen)
            what = (
                f"input{'s' * (len(seen) > 1)} {inputs}, by the dark links" if seen else "no input"
            )
            words += f"Output {self.chosen + 1} sees {what}. "
        if self.simple:
            last, before = (self.order.index(rank) + 1 for rank in (self.dim, self.dim - 1))
            return words + (
                f"Task: raise degrees of hidden units until output {last} no longer sees input "
                f"{before}, and all else is as it was."
            )
        return words + (
            "Task: disconnect output 3 from input 1, and leave every other pair connected, or not, "
            "as it was."
        )

    # --- the picture ---

    def still(self) -> str:
        """The network and the table of paths; purple and dashed is what the rule forbids."""
        masks = self.masks()
        layers = [self.order, *self.degrees, self.order]
        counts = path_counts(masks).long().tolist()
        gap = 190 / (len(layers) - 1)

        dashed: Style = {"stroke": WRONG, "stroke_width": 3, "stroke_dasharray": "6 3"}

        def spot(k: int, u: int) -> tuple[float, float]:
            pitch = min(58, 330 / len(layers[k]))
            return 180 + (u - (len(layers[k]) - 1) / 2) * pitch, 222 - k * gap

        def label(x: float, y: float, words: object, color: str = INK) -> str:
            return text(x, y, words, font_size=13, text_anchor="middle", fill=color)

        lines = ["", ""]  # by the rule, and against it
        for l, (mask, wrong) in enumerate(zip(masks, self._forbidden(masks), strict=True)):
            for r, c in mask.nonzero().tolist():
                lines[wrong[r, c]] += polyline([spot(l, c), spot(l + 1, r)])
        lit = self._lit(masks, spot)
        parts = [path(lines[0], stroke=GREY), path(lit, stroke=INK, stroke_width=2.2)]
        if lines[1]:
            parts.append(path(lines[1], **dashed))
        for k, layer in enumerate(layers):
            color = {0: DATA, len(layers) - 1: THIRD}.get(k, INK)
            for u, degree in enumerate(layer):
                x, y = spot(k, u)
                parts.append(circle(x, y, 11.5, fill=PAPER, stroke=color, stroke_width=2))
                parts.append(label(x, y + 4.5, degree))
        cell = min(30, 200 / self.dim)
        for i, j in itertools.product(range(self.dim), repeat=2):
            x, y = 400 + j * cell, 44 + i * cell
            may = self.order[j] < self.order[i]
            frame: Style = {"stroke": GREY if may else "none"}
            side = cell - 3
            parts.append(
                path(
                    square(x, y, side),
                    fill="none",
                    **(dashed if counts[i][j] and not may else frame),
                )
            )
            color = INK if may or counts[i][j] else GREY
            parts.append(label(x + side / 2, y + side / 2 + 4.5, counts[i][j], color))
        return picture(250, *parts, label(400 + self.dim * cell / 2, 28, "paths"))

    def _lit(self, masks: list[Tensor], spot: Callable[[int, int], tuple[float, float]]) -> str:
        """The links on paths from an input to the chosen output."""
        if self.chosen < 0:
            return ""
        befores = [torch.ones(self.dim, dtype=torch.bool)]
        for mask in masks:
            befores.append((mask & befores[-1]).any(1))
        after, lines = torch.arange(self.dim) == self.chosen, ""
        for l in reversed(range(len(masks))):
            lit = masks[l] & after[:, None] & befores[l]
            for r, c in lit.nonzero().tolist():
                lines += polyline([spot(l, c), spot(l + 1, r)])
            after = lit.any(0)
        return lines

    def _forbidden(self, masks: list[Tensor]) -> list[Tensor]:
        """Which links lie on a path from an input to an output of no larger rank."""
        ranks = torch.tensor(self.order)
        found = [torch.zeros_like(mask) for mask in masks]
        for j in range(self.dim):
            befores = [torch.arange(self.dim) == j]
            for mask in masks:
                befores.append((mask & befores[-1]).any(1))
            after = befores[-1] & (ranks <= ranks[j])
            for l in reversed(range(len(masks))):
                links = masks[l] & after[:, None] & befores[l]
                found[l] |= links
                after = links.any(0)
        return found


def _cyclic(dim: int, widths: list[int]) -> list[list[int]]:
    return [cyclic_degrees(width, 1, dim - 1).tolist() for width in widths]
