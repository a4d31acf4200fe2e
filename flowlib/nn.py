"""The networks inside the flows: plain, with the two starts that flows need."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from flowlib.flow import as_ints, values_are_visible

__all__ = ["MLP", "ConvNet", "Hardtanh"]


_hardtanh_backward = torch.ops.aten.hardtanh_backward.default


class _Hardtanh(torch.autograd.Function):
    """In place. Its slope is 1 where its result is inside (-1, 1): it must keep nothing else."""

    @staticmethod
    def forward(ctx, x):
        z = x.clamp_(-1, 1)
        ctx.mark_dirty(z)
        ctx.save_for_backward(z)
        ctx.save_for_forward(z)
        return z

    @staticmethod
    def backward(ctx, grad):
        return _hardtanh_backward(grad, *ctx.saved_tensors, -1, 1)

    @staticmethod
    def jvp(ctx, tangent):
        (z,) = ctx.saved_tensors
        return tangent.mul_(z.abs() < 1)  # in place, as the forward


class Hardtanh(nn.Module):
    """``min(max(x, -1), 1)``: what a unit says far from the data is what it says at their edge.

    The same numbers and gradients as ``torch.nn.Hardtanh``, which keeps its argument for the
    gradient. The layer after it keeps the result, and the result is enough: with ``inplace`` a
    training takes half of the memory. Where the arrays are small (below 65,536 numbers), in
    transforms and when compiling this is PyTorch's own function.

    Args:
        inplace: may the argument be overwritten? Who looks at it later may then see the result.

    Example:
        >>> Hardtanh()(torch.tensor([-3.0, 0.5, 2.0])).tolist()
        [-1.0, 0.5, 1.0]
    """

    def __init__(self, inplace: bool = False) -> None:
        super().__init__()
        self.inplace = inplace

    def forward(self, x: Tensor) -> Tensor:
        """``(...)`` to ``(...)``."""
        # A Python function costs tens of microseconds, which only a large array is worth. Its size
        # is looked at last: compiled code would otherwise be compiled for small and large anew.
        plain = not torch.is_grad_enabled() or not values_are_visible(x) or torch.jit.is_tracing()
        if plain or x.numel() < 2**16:
            return nn.functional.hardtanh(x)
        # What a hook hands on is a view, which nobody may overwrite, and a leaf is somebody's own.
        free = self.inplace and not x._is_view() and not x.is_leaf
        return _Hardtanh.apply(x if free else x.clone())


class MLP(nn.Module):
    """A plain network of linear layers, with nothing after the last.

    Its last layer starts at zero, so that a flow whose parameters it makes starts as the identity.
    The others' weights start as LeCun's rule has it, which keeps the variance of what passes
    through. Between two layers an array may be overwritten: see :class:`Hardtanh`.
    An activation after the last layer would let it make numbers of one sign only.

    Args:
        inputs: the number of inputs.
        hidden: the widths of the hidden layers, such as ``(64, 64)``, or the width of the only
            one; ``()`` for a linear map.
        outputs: the number of outputs.
        activation: makes the activation between two layers; None for :class:`Hardtanh`, which
            saturates. On small tables, ReLUs, which go on growing where there are no data, cost
            a flow tens of nats.

    Raises:
        ValueError: if a width is not positive.
        TypeError: if ``activation`` is a module and not what makes one.

    Example:
        >>> MLP(3, (64, 64), 4)(torch.randn(10, 3)).abs().max().item()
        0.0

    Source: for the start, LeCun, Bottou, Orr and Müller (1998), Efficient BackProp, section 4.6.
    """

    def __init__(
        self,
        inputs: int,
        hidden: int | Sequence[int],
        outputs: int,
        activation: Callable[[], nn.Module] | None = None,
    ) -> None:
        super().__init__()
        if isinstance(activation, nn.Module):
            raise TypeError(
                "MLP: expected an activation's class, or a function that makes one, "
                f"got the module {activation}"
            )
        within = as_ints(hidden)
        widths = None if within is None else as_ints([inputs, *within, outputs])
        if widths is None or min(widths) < 1:
            raise ValueError(
                f"MLP: expected positive widths, got inputs={inputs}, hidden={hidden}, "
                f"outputs={outputs}"
            )
        layers: list[nn.Module] = []
        for before, after in itertools.pairwise(widths):
            between = activation() if activation is not None else Hardtanh(inplace=True)
            layers += [nn.Linear(before, after), between]
        self.layers = nn.Sequential(*layers[:-1])
        for layer in self.layers[:-1:2]:
            nn.init.kaiming_uniform_(layer.weight, nonlinearity="linear")
        nn.init.zeros_(self.layers[-1].weight)
        nn.init.zeros_(self.layers[-1].bias)

    def forward(self, x: Tensor) -> Tensor:
        """``(..., inputs)`` to ``(..., outputs)``."""
        return self.layers(x)


class ConvNet(nn.Module):
    """A small residual network of convolutions from images to images of the same size.

    A convolution of 3×3 pixels, residual blocks of two more, and one of 1×1. The last starts at
    zero, as in :class:`MLP`. There is no normalization between the layers: one over a batch would
    let a picture's parameters depend on the others beside it.

    Args:
        inputs: the number of input channels.
        hidden: the number of channels in between.
        outputs: the number of output channels.
        n_blocks: the number of residual blocks; each adds four pixels to the sides of what an
            output sees, which are three without any.

    Raises:
        ValueError: if a number of channels is not positive, or ``n_blocks`` negative.

    Example:
        >>> ConvNet(1, 16, 2)(torch.randn(10, 1, 8, 8)).shape
        torch.Size([10, 2, 8, 8])

    Source: for the blocks, He et al. (2016), Identity Mappings in Deep Residual Networks.
    """

    def __init__(self, inputs: int, hidden: int, outputs: int, n_blocks: int = 1) -> None:
        super().__init__()
        numbers = as_ints([inputs, hidden, outputs, n_blocks])
        if numbers is None or min(numbers[:3]) < 1 or numbers[3] < 0:
            raise ValueError(
                f"ConvNet: expected positive numbers of channels and n_blocks from 0, got "
                f"inputs={inputs}, hidden={hidden}, outputs={outputs}, n_blocks={n_blocks}"
            )
        self.first = nn.Conv2d(inputs, hidden, 3, padding=1)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.SiLU(),
                nn.Conv2d(hidden, hidden, 3, padding=1),
                nn.SiLU(),
                nn.Conv2d(hidden, hidden, 3, padding=1),
            )
            for _ in range(n_blocks)
        )
        self.last = nn.Sequential(nn.SiLU(), nn.Conv2d(hidden, outputs, 1))
        nn.init.zeros_(self.last[-1].weight)
        nn.init.zeros_(self.last[-1].bias)

    def forward(self, x: Tensor) -> Tensor:
        """``(batch, inputs, H, W)`` to ``(batch, outputs, H, W)``."""
        x = self.first(x)
        for block in self.blocks:
            x = x + block(x)
        return self.last(x)
