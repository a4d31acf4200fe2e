"""The networks inside the flows: plain, with the two starts that flows need."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from flowlib.arguments import as_count, as_ints
from flowlib.saving import Recorded

__all__ = ["MLP", "ConvNet", "Hardtanh"]


class _LeanHardtanh(torch.autograd.Function):
    """Keeps its result for the gradient, which the layer after it keeps as well."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return x.clamp(-1, 1)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        ctx.save_for_backward(output)
        ctx.save_for_forward(output)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        (z,) = ctx.saved_tensors
        return torch.ops.aten.hardtanh_backward(grad, z, -1, 1)

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor) -> Any:
        (z,) = ctx.saved_tensors
        return tangent * (z.abs() < 1)


class _HardtanhInPlace(torch.autograd.Function):
    """The same in the memory of its argument, since a new array of that size would cost time.

    It is never used under torch.func, and may have PyTorch's older form, which takes less time.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        z = x.clamp_(-1, 1)
        ctx.mark_dirty(z)
        ctx.save_for_backward(z)
        ctx.save_for_forward(z)
        return z

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        return torch.ops.aten.hardtanh_backward.default(grad, *ctx.saved_tensors, -1, 1)

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor) -> Any:
        (z,) = ctx.saved_tensors
        return tangent.mul_(z.abs() < 1)  # in place, as the forward


class _CompiledHardtanh(torch.autograd.Function):
    """The same for compiled code, which would else write down for each number whether it was cut.

    Compiled code takes PyTorch's older form with less around it.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        z = x.clamp(-1, 1)
        ctx.save_for_backward(z)
        return z

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (z,) = ctx.saved_tensors
        return torch.where(z.abs() < 1, grad, 0.0)


PRODUCTS = {"AddmmBackward0", "MmBackward0", "UnsafeViewBackward0"}


def _was_just_computed(x: Tensor) -> bool:
    """Whether ``x`` is a linear layer's own result: not a leaf, not a view that a hook has made."""
    if x.grad_fn is None or x.grad_fn.name() not in PRODUCTS:
        return False
    try:
        x.untyped_storage()
    except NotImplementedError:  # under torch.func a tensor has no memory of its own
        return False
    return True


class Hardtanh(Recorded, nn.Module):
    """``min(max(x, -1), 1)``: what a unit says far from the data is what it says at their edge.

    The same numbers and gradients as ``torch.nn.Hardtanh``, which keeps its argument for the
    gradient. The layer after it keeps the result, and the result is enough: a training takes half
    of the memory. For small arrays (below 65,536 numbers) and in compiled code this is PyTorch's
    own function.

    Args:
        inplace: whether the argument is overwritten where a linear layer has just computed it. Use
            it only where nothing else reads that layer's output.

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
        recorded = torch.is_grad_enabled() and not torch.jit.is_tracing()
        if recorded and torch.compiler.is_dynamo_compiling():
            quick: Tensor = _CompiledHardtanh.apply(x)  # type: ignore[no-untyped-call]
            return quick
        if not recorded or torch.compiler.is_compiling() or x.numel() < 2**16:
            return nn.functional.hardtanh(x)
        lean = _HardtanhInPlace if self.inplace and _was_just_computed(x) else _LeanHardtanh
        made: Tensor = lean.apply(x)  # type: ignore[no-untyped-call]
        return made


class MLP(Recorded, nn.Module):
    """A plain network of linear layers, with nothing after the last.

    Its last layer starts at zero, so that a flow whose parameters it makes starts as the identity.
    The others' weights start as LeCun's rule has it, which keeps the variance of what passes
    through. An
    activation after the last layer would let it make numbers of one sign only.

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
        TypeError: if ``activation`` is a module; expected is a class or function that makes one.

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
        inside = as_ints(hidden)
        widths = None if inside is None else as_ints([inputs, *inside, outputs])
        if widths is None or min(widths) < 1:
            raise ValueError(
                f"MLP: expected positive widths, got inputs={inputs}, hidden={hidden}, "
                f"outputs={outputs}"
            )
        layers: list[nn.Module] = []
        *within, last = (nn.Linear(*pair) for pair in itertools.pairwise(widths))
        for layer in within:
            nn.init.kaiming_uniform_(layer.weight, nonlinearity="linear")
            layers += [layer, activation() if activation is not None else Hardtanh(inplace=True)]
        _start_at_zero(last)
        self.layers = nn.Sequential(*layers, last)

    def forward(self, x: Tensor) -> Tensor:
        """``(..., inputs)`` to ``(..., outputs)``."""
        made: Tensor = self.layers(x)
        return made


def _start_at_zero(layer: nn.Linear | nn.Conv2d) -> None:
    for weights in layer.parameters():
        nn.init.zeros_(weights)


class ConvNet(Recorded, nn.Module):
    """A small residual network of convolutions from images to images of the same size.

    A convolution of 3×3 pixels, residual blocks of two more, and one of 1×1. The last starts at
    zero, as in :class:`MLP`. There is no normalization between the layers: one over a batch would
    let a picture's parameters depend on the other pictures of its batch.

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
        inputs = as_count("ConvNet", "inputs", inputs, 1)
        hidden = as_count("ConvNet", "hidden", hidden, 1)
        outputs = as_count("ConvNet", "outputs", outputs, 1)
        n_blocks = as_count("ConvNet", "n_blocks", n_blocks, 0)
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
        last = nn.Conv2d(hidden, outputs, 1)
        _start_at_zero(last)
        self.last = nn.Sequential(nn.SiLU(), last)

    def forward(self, x: Tensor) -> Tensor:
        """``(batch, inputs, H, W)`` to ``(batch, outputs, H, W)``."""
        x = self.first(x)
        for block in self.blocks:
            x = x + block(x)
        made: Tensor = self.last(x)
        return made
