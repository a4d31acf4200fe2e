"""The networks inside the flows: plain, with the two starts that flows need."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

from torch import Tensor, nn

from flowlib.flow import as_ints

__all__ = ["MLP"]


class MLP(nn.Module):
    """A plain network of linear layers, with nothing after the last.

    Its last layer starts at zero, so that a flow whose parameters it makes starts as the identity.
    An activation after the last layer would let it make numbers of one sign only.

    Args:
        inputs: the number of inputs.
        hidden: the widths of the hidden layers, such as ``(64, 64)``, or the width of the only
            one; ``()`` for a linear map.
        outputs: the number of outputs.
        activation: makes the activation between two layers.

    Raises:
        ValueError: if a width is not positive.

    Example:
        >>> import torch
        >>> MLP(3, (64, 64), 4)(torch.randn(10, 3)).abs().max().item()
        0.0
    """

    def __init__(
        self,
        inputs: int,
        hidden: int | Sequence[int],
        outputs: int,
        activation: Callable[[], nn.Module] = nn.ReLU,
    ) -> None:
        super().__init__()
        within = as_ints(hidden)
        widths = None if within is None else as_ints([inputs, *within, outputs])
        if widths is None or min(widths) < 1:
            raise ValueError(
                f"MLP: expected positive widths, got inputs={inputs}, hidden={hidden}, "
                f"outputs={outputs}"
            )
        layers: list[nn.Module] = []
        for before, after in itertools.pairwise(widths):
            layers += [nn.Linear(before, after), activation()]
        self.layers = nn.Sequential(*layers[:-1])
        nn.init.zeros_(self.layers[-1].weight)
        nn.init.zeros_(self.layers[-1].bias)

    def forward(self, x: Tensor) -> Tensor:
        """``(..., inputs)`` to ``(..., outputs)``."""
        return self.layers(x)
