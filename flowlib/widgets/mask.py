"""The explorer of chapter 3: MADE's masks, moved by hand."""

from __future__ import annotations

import itertools

import torch
import traitlets
from torch import Tensor

from flowlib.flow import as_ints
from flowlib.made import cyclic_degrees, hidden_mask, output_mask, path_counts
from flowlib.plotting import DATA, GREY, INK, PAPER, THIRD, WRONG
from flowlib.widgets.base import Explorer

__all__ = ["MaskExplorer"]

MOST_INPUTS, MOST_LAYERS, MOST_UNITS = 8, 3, 12


class MaskExplorer(Explorer):
    """A network with MADE's masks: degrees and single links are changed by hand, and the paths
    from inputs to outputs counted.

    Three views of one state: the network, its masks, and their product. What is chosen lights up in
    all of them, and so does each path that leads to an output from an input that it must not see.
    A sample is drawn value by value, and each unit is computed once.

    The page itself computes the masks, as :mod:`flowlib.made` does. Only its random degrees come
    from another generator.

    Args:
        **traits: the attributes below. Without an ordering it is the natural one, without degrees
            they are cyclic.

    Attributes:
        dim: the number ``D`` of inputs, from 2 to 8.
        widths: of 1 to 3 hidden layers the widths, from 1 to 12.
        order: the rank of each input, a permutation of 1 to ``D``.
        degrees: for each hidden layer the degrees of its units, from 1 to ``D`` less 1.
        flips: ``[layer, row, column]`` of each entry of a mask that is the contrary of the rule.
        seed: of random degrees and orderings.
        chosen: the output whose inputs are lit, from 0, or -1 for none.
        step: how many values of a sample are drawn, 0 if none is being drawn.
        by_rank: whether the table of paths is in the order of the ranks.

    Raises:
        traitlets.TraitError: if an attribute is given what it cannot take.

    Example:
        >>> MaskExplorer(dim=3, widths=[4], flips=[[1, 0, 0]])
        MaskExplorer(3 inputs, hidden layers [4], 1 entry flipped)

    Source:
        Germain, Gregor, Murray and Larochelle (2015), *MADE: Masked Autoencoder for Distribution
        Estimation*, sections 3 and 4.
    """

    script = "mask.js"
    dim = traitlets.Int(4).tag(sync=True)
    widths = traitlets.List(default_value=[5]).tag(sync=True)
    order = traitlets.List(default_value=[1, 2, 3, 4]).tag(sync=True)
    degrees = traitlets.List(default_value=[[1, 1, 2, 2, 3]]).tag(sync=True)
    flips = traitlets.List().tag(sync=True)
    seed = traitlets.Int(0).tag(sync=True)
    chosen = traitlets.Int(-1).tag(sync=True)
    step = traitlets.Int(0).tag(sync=True)
    by_rank = traitlets.Bool(False).tag(sync=True)

    def __init__(self, **traits) -> None:
        super().__init__(**traits)
        if "degrees" in traits:  # though they be the preset of the default size
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

    @traitlets.validate("dim", "seed", "chosen", "step")
    def _number(self, proposal):
        name = proposal.trait.name
        low, high = {
            "dim": (2, MOST_INPUTS),
            "seed": (0, 2**31 - 1),
            "chosen": (-1, self.dim - 1),
            "step": (0, self.dim),
        }[name]
        if not low <= proposal.value <= high:
            raise traitlets.TraitError(
                f"{name}: expected a whole number from {low} to {high}, got {proposal.value}"
            )
        return proposal.value

    @traitlets.validate("widths")
    def _widths(self, proposal):
        widths = as_ints(proposal.value)
        fits = widths and len(widths) <= MOST_LAYERS and 1 <= min(widths) <= max(widths)
        if not fits or max(widths) > MOST_UNITS:
            raise traitlets.TraitError(
                f"widths: expected 1 to {MOST_LAYERS} whole numbers from 1 to {MOST_UNITS}, "
                f"got {proposal.value}"
            )
        return list(widths)

    @traitlets.validate("order")
    def _order(self, proposal):
        order = as_ints(proposal.value)
        if order is None or sorted(order) != list(range(1, self.dim + 1)):
            raise traitlets.TraitError(
                f"order: expected each rank from 1 to {self.dim} once, got {proposal.value}"
            )
        return list(order)

    @traitlets.validate("degrees")
    def _degrees(self, proposal):
        degrees = [as_ints(layer) for layer in proposal.value]
        if None in degrees or not self._have_degrees(degrees):
            raise traitlets.TraitError(
                f"degrees: expected whole numbers from 1 to {self.dim - 1} for hidden layers of "
                f"{self.widths} units, got {proposal.value}"
            )
        return list(map(list, degrees))

    @traitlets.validate("flips")
    def _flips(self, proposal):
        flips = [as_ints(flip) for flip in proposal.value]
        if len(set(flips)) < len(flips) or not self._have_entries(flips):
            raise traitlets.TraitError(
                "flips: expected different [layer, row, column] of masks of shapes "
                f"{self._shapes()}, got {proposal.value}"
            )
        return list(map(list, flips))

    @traitlets.observe("dim", "widths")
    def _refit(self, change):
        """What does not fit another size, or was its preset, becomes the preset of this one."""
        # at the start a list has no old value
        old = change.old if isinstance(change.old, int | list) else change.new
        dim, widths = (old, self.widths) if change.name == "dim" else (self.dim, old)
        if sorted(self.order) != list(range(1, self.dim + 1)):
            self.order = list(range(1, self.dim + 1))
        if self.degrees == _cyclic(dim, widths) or not self._have_degrees(self.degrees):
            self.degrees = _cyclic(self.dim, self.widths)
        if not self._have_entries(self.flips):
            self.flips = []
        self.chosen, self.step = min(self.chosen, self.dim - 1), min(self.step, self.dim)

    def _have_degrees(self, degrees) -> bool:
        return list(map(len, degrees)) == self.widths and all(
            1 <= m < self.dim for layer in degrees for m in layer
        )

    def _shapes(self) -> list[tuple[int, int]]:
        return [(after, before) for before, after in itertools.pairwise(self._sizes())]

    def _sizes(self) -> list[int]:
        return [self.dim, *self.widths, self.dim]

    def _have_entries(self, flips) -> bool:
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

    # --- the picture ---

    def still(self) -> str:
        """The network and the table of paths; purple and dashed is what the rule forbids."""
        masks = self.masks()
        layers = [self.order, *self.degrees, self.order]
        counts = path_counts(masks).long().tolist()
        gap = 190 / (len(layers) - 1)

        dashed = 'stroke-width="3" stroke-dasharray="6 3"'

        def spot(k: int, u: int) -> tuple[float, float]:
            pitch = min(58, 330 / len(layers[k]))
            return 180 + (u - (len(layers[k]) - 1) / 2) * pitch, 222 - k * gap

        def text(x: float, y: float, words, color: str = INK) -> str:
            return (
                f'<text x="{x:.1f}" y="{y:.1f}" font-size="13" text-anchor="middle" '
                f'fill="{color}">{words}</text>'
            )

        lines = ["", ""]  # by the rule, and against it
        for l, (mask, wrong) in enumerate(zip(masks, self._forbidden(masks), strict=True)):
            for r, c in mask.nonzero().tolist():
                (x1, y1), (x2, y2) = spot(l, c), spot(l + 1, r)
                lines[wrong[r, c]] += f"M{x1:.1f} {y1:.1f}L{x2:.1f} {y2:.1f}"
        parts = [f'<path d="{lines[0]}" stroke="{GREY}"/>']
        if lines[1]:
            parts.append(f'<path d="{lines[1]}" stroke="{WRONG}" {dashed}/>')
        for k, layer in enumerate(layers):
            color = {0: DATA, len(layers) - 1: THIRD}.get(k, INK)
            for u, degree in enumerate(layer):
                x, y = spot(k, u)
                parts.append(
                    f'<circle cx="{x:.1f}" cy="{y:.1f}" r="11.5" fill="{PAPER}" stroke="{color}" '
                    f'stroke-width="2"/>{text(x, y + 4.5, degree)}'
                )
        cell = min(30, 200 / self.dim)
        for i, j in itertools.product(range(self.dim), repeat=2):
            x, y = 400 + j * cell, 44 + i * cell
            may = self.order[j] < self.order[i]
            frame = f'stroke="{GREY}"' if may else 'stroke="none"'
            if counts[i][j] and not may:
                frame = f'stroke="{WRONG}" {dashed}'
            side = cell - 3
            box = f"M{x:.1f} {y:.1f}h{side:.1f}v{side:.1f}h-{side:.1f}z"
            parts.append(f'<path d="{box}" fill="none" {frame}/>')
            color = INK if may or counts[i][j] else GREY
            parts.append(text(x + side / 2, y + side / 2 + 4.5, counts[i][j], color))
        return (
            '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 640 250" '
            f'font-family="sans-serif"><rect width="640" height="250" fill="{PAPER}"/>'
            f"{''.join(parts)}{text(400 + self.dim * cell / 2, 28, 'paths')}</svg>"
        )

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
