r"""Invertible residual networks: ``z = x + g(x)``, where ``g`` never moves two points much.

If ``g`` has a Lipschitz constant ``c < 1``, then ``x = z - g(x)`` has exactly one solution, and the
iteration :math:`x \leftarrow z - g(x)` finds it from anywhere: the map can be undone although
nobody has a formula for its inverse. Its Jacobian is full, and

.. math:: \log\det(I + J) = \operatorname{tr}\log(I + J) =
    \sum_{k=1}^\infty \frac{(-1)^{k+1}}{k} \operatorname{tr} J^k

This is the code of chapter 5.
"""

from __future__ import annotations

import contextlib
import copy
import inspect
import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from flowlib.arguments import as_count, as_event_shape, as_ints, as_number, seen
from flowlib.bases import StandardNormal
from flowlib.flow import Bijection, Compose, Flow
from flowlib.images import Squeeze
from flowlib.normalization import ActNorm
from flowlib.precision import exactly
from flowlib.saving import Arguments, Recorded
from flowlib.shares import drawn

__all__ = [
    "ELU",
    "Activation",
    "Branch",
    "ExactLogDet",
    "FixedPoint",
    "IResNet",
    "Linearized",
    "Lipschitz",
    "LipschitzConv2d",
    "LipschitzLinear",
    "LogDet",
    "PowerSeries",
    "ResidualBlock",
    "Sine",
    "Tanh",
    "fixed_point",
]


def as_bound(where: str, lipschitz: Any) -> float:
    """A Lipschitz bound between 0 and 1, both excluded, as Python's own number."""
    bound = as_number(where, "lipschitz", lipschitz)
    if bound >= 1:
        raise ValueError(f"{where}: expected a lipschitz bound below 1, got {lipschitz!r}")
    return bound


# --- layers with a bound ----------------------------------------------------------------------

NARROW = 64  # inputs or outputs, up to which the norm is exact in every step
LANCZOS = 400  # steps at most
QUIET = 8  # steps without a change, after which a value is believed


class Lipschitz(Recorded, nn.Module, ABC):
    """Base class of linear maps with a bound on how much they lengthen a vector.

    The weight is scaled down where its largest singular value exceeds the bound, and left alone
    where it does not. In training, the singular value is that of a few Lanczos steps from the
    vector of the call before, and may lag behind. Whenever the map is frozen, in evaluation and in
    a saved state, it is exact, and does not change from call to call. Code that was compiled in
    evaluation keeps the value of that time, even if the weight changes.

    Args:
        lipschitz: the bound.
        n_steps: Lanczos steps for each call in training; 1 is power iteration.
    """

    weight: nn.Parameter
    bias: nn.Parameter
    reach: int | None = None  # of pictures: how many pixels away an output depends on an input
    right: Tensor  # the right singular vector of the largest value, as far as it is known
    length: Tensor  # that value, of the last time that the layer was frozen
    slack = 0.0  # by how much of itself the exact value may be wrong

    def __init__(self, lipschitz: float, n_steps: int) -> None:
        super().__init__()
        self.lipschitz = as_number(type(self).__name__, "lipschitz", lipschitz)
        self.n_steps = as_count(type(self).__name__, "n_steps", n_steps, 1)
        self.register_buffer("length", torch.zeros(()))
        self._frozen_at: list[float] | None = None  # what the weight looked like
        self._held: Tensor | None = None  # the weight within its bound, while it is held
        self.register_state_dict_pre_hook(_freeze)  # type: ignore[no-untyped-call]

    @abstractmethod
    def operate(self, v: Tensor, weight: Tensor) -> Tensor:
        """The linear map with that weight, of any ``(..., *inputs)``."""

    @abstractmethod
    def adjoint(self, w: Tensor, weight: Tensor) -> Tensor:
        """Its transpose, of any ``(..., *outputs)``."""

    @abstractmethod
    def exact(self) -> Tensor:
        """The right singular vector of the largest singular value, of length 1."""

    def forward(self, x: Tensor) -> Tensor:
        """``(..., *inputs)`` to ``(..., *outputs)``."""
        return self.affine(x, self.capped(), self.bias)

    def affine(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """The layer with that weight and that bias."""
        return self.operate(x, weight) + bias

    def capped(self) -> Tensor:
        """The weight within its bound."""
        if self._held is not None:
            return self._held
        with exactly(self.weight):
            capped: Tensor = self.weight / (self.norm() / self.lipschitz).clamp(min=1)
        return capped

    def norm(self) -> Tensor:
        """The largest singular value, with its gradient; in training as far as it is known."""
        if self.training:
            return self._length(self.iterated())
        right, length = self._frozen()
        if length is not None and not torch.is_grad_enabled() and not has_tangent(self.weight):
            return length
        found = self._length(right)
        # the value that was kept, to the last bit, with the gradient of this one
        return found if length is None else found + (length - found).detach()

    def _length(self, right: Tensor) -> Tensor:
        length: Tensor = torch.linalg.vector_norm(self.operate(right, self.weight))
        return length

    @torch.no_grad()
    def iterated(self) -> Tensor:
        """The singular vector after some more steps."""
        shape = self.right.shape

        def square(v: Tensor) -> Tensor:
            made = self.operate(v.reshape(shape), self.weight)
            return self.adjoint(made, self.weight).reshape(v.shape)

        right = lanczos(square, self.right.flatten(), self.n_steps).reshape(shape)
        self._keep(right)
        return right

    def _keep(self, right: Tensor) -> bool:
        """Set where the next call starts; False if that cannot be changed now."""
        if torch.compiler.is_compiling():
            self.right.copy_(right)
            return True
        try:
            self.right.copy_(right)
        except RuntimeError:  # PyTorch refuses under torch.func, and of inference tensors
            return False
        return True

    @torch.no_grad()
    def freeze(self) -> None:
        """Compute the singular vector exactly, and keep it until the weight changes."""
        if self.weight.is_meta:
            return
        with exactly(self.weight):
            self._freeze_exactly()

    def _freeze_exactly(self) -> None:
        exact = self.exact()
        found, largest = self._length(self.right), self._length(exact)
        near = max(self.slack, 8 * torch.finfo(self.weight.dtype).eps) * largest
        # what comes from a saved state is kept if it is right, for a sum has other last bits anew
        if not ((found >= largest - near) & ((self.length - found).abs() <= near)):
            if not self._keep(exact):
                self._frozen_at = None
                return
            self.length.copy_(largest)
        self._frozen_at = self._look()

    def _apply(self, fn: Any, recurse: bool = True) -> Self:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self._frozen_at = None  # on another device, or of another dtype
        return self

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        if not mode:
            self.freeze()
        return self

    @torch.no_grad()
    def _frozen(self) -> tuple[Tensor, Tensor | None]:
        """The singular vector and its value; without the value where it cannot be kept."""
        if not torch.compiler.is_compiling():
            look = self._look()
            if look is None:
                return self.exact(), None
            if look != self._frozen_at:
                self.freeze()
                if self._frozen_at is None:
                    return self.exact(), None
        return self.right, self.length

    def _look(self) -> list[float] | None:
        """Numbers that change with the weight, also where autograd counts no change."""
        weight = self.weight.double()
        places = torch.arange(weight.numel(), device=weight.device).view_as(weight)
        marks = [weight.sum(), torch.linalg.vector_norm(weight), (weight * places.sin()).sum()]
        kept = [self.right.double().sum(), self.length.double()]
        numbers: list[float] | None = seen(torch.stack(marks + kept))
        return numbers


def has_tangent(x: Tensor) -> bool:
    """Whether a derivative in forward mode is taken, which ``torch.no_grad`` does not stop."""
    if torch.compiler.is_compiling():
        return False
    tangent: Tensor | None = forward_ad.unpack_dual(x).tangent
    return tangent is not None


def _freeze(layer: Lipschitz, prefix: str, keep_vars: bool) -> None:
    layer.freeze()


class LipschitzLinear(Lipschitz):
    """A linear layer that lengthens no vector by more than a factor.

    Its weight is scaled down where its largest singular value exceeds the bound, and left alone
    where it does not. With at most 64 inputs or outputs the singular value is exact in every call.
    Of a wider layer it is in training that of a few Lanczos steps from the vector of the call
    before, and exact whenever the layer is frozen, in evaluation and in a saved state.

    Args:
        inputs: the number of inputs.
        outputs: the number of outputs.
        lipschitz: the bound.
        n_steps: Lanczos steps for each call in training; 1 is power iteration.

    Raises:
        ValueError: if a number is not positive.

    Example:
        >>> layer = LipschitzLinear(3, 4, lipschitz=0.5).eval()
        >>> bool(torch.linalg.matrix_norm(layer.capped(), 2) < 0.5001)
        True

    Source: Gouk et al. (2021); Behrmann et al. (2019), section 2.1; Miyato et al. (2018) for the
    power iteration.
    """

    def __init__(
        self, inputs: int, outputs: int, lipschitz: float = 1.0, *, n_steps: int = 5
    ) -> None:
        super().__init__(lipschitz, n_steps)
        self.inputs = as_count("LipschitzLinear", "inputs", inputs, 1)
        self.outputs = as_count("LipschitzLinear", "outputs", outputs, 1)
        self.weight = nn.Parameter(torch.empty(self.outputs, self.inputs))
        nn.init.orthogonal_(self.weight)
        self.bias = nn.Parameter(torch.empty(self.outputs))
        nn.init.uniform_(self.bias, -1 / math.sqrt(self.inputs), 1 / math.sqrt(self.inputs))
        self.register_buffer("right", torch.full((self.inputs,), 1 / math.sqrt(self.inputs)))

    def affine(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return nn.functional.linear(x, weight, bias)

    def operate(self, v: Tensor, weight: Tensor) -> Tensor:
        return v @ weight.mT

    def adjoint(self, w: Tensor, weight: Tensor) -> Tensor:
        return w @ weight

    @property
    def is_narrow(self) -> bool:
        """Whether the norm is exact in every step."""
        return min(self.inputs, self.outputs) <= NARROW

    def iterated(self) -> Tensor:
        return self.exact() if self.is_narrow else super().iterated()

    @torch.no_grad()
    def exact(self) -> Tensor:
        return top_direction(self.weight)

    def extra_repr(self) -> str:
        return f"{self.inputs}, {self.outputs}, lipschitz={self.lipschitz:g}"


def lanczos(square: Callable[[Tensor], Tensor], start: Tensor, n_steps: int) -> Tensor:
    """From vectors ``(..., n)`` of length 1 towards the top eigenvectors of a positive map.

    The best combination of so many powers of the map, and the map once more: one step is one of
    power iteration.
    """
    basis, images = [start], [square(start)]
    info = torch.finfo(start.dtype)
    for _ in range(n_steps - 1):
        new = images[-1]
        whole = torch.linalg.vector_norm(new, dim=-1, keepdim=True)
        for old in (*basis, *basis):  # once is not enough in floating point
            new = new - (new * old).sum(-1, keepdim=True) * old
        length = torch.linalg.vector_norm(new, dim=-1, keepdim=True)
        # where the powers say nothing new, what is left is rounding, and at right angles to nothing
        fresh = length > 100 * info.eps * whole
        basis.append(torch.where(fresh, new / length.clamp(min=info.tiny), 0.0))
        images.append(square(basis[-1]))
    image = images[0]
    if n_steps > 1:
        matrix = torch.stack(basis, -2) @ torch.stack(images, -1)
        weights = torch.linalg.eigh(_finite(matrix + matrix.mT)).eigenvectors[..., -1:]
        image = (torch.stack(images, -1) @ weights.to(image))[..., 0]
    length = torch.linalg.vector_norm(image, dim=-1, keepdim=True)
    return torch.where((length > 0) & length.isfinite(), image / length, start)


def _finite(matrix: Tensor) -> Tensor:
    """In double precision, and without NaN, which ``eigh`` refuses and the norm shows anyway."""
    return matrix.double().nan_to_num(0.0, 0.0, 0.0)


@torch.no_grad()
def top_direction(weight: Tensor) -> Tensor:
    """Of matrices ``(..., m, n)`` the right singular vectors ``(..., n)`` of the largest values."""
    wide = weight.double()
    if wide.shape[-1] <= wide.shape[-2]:
        right = torch.linalg.eigh(_finite(wide.mT @ wide)).eigenvectors[..., -1]
    else:
        left = torch.linalg.eigh(_finite(wide @ wide.mT)).eigenvectors[..., -1:]
        right = (wide.mT @ left)[..., 0]
        right = right / torch.linalg.vector_norm(right, dim=-1, keepdim=True).clamp(min=1e-300)
    made: Tensor = right.to(weight)
    return made


@contextlib.contextmanager
def capped_once(module: nn.Module) -> Iterator[None]:
    """Within this context each Lipschitz layer of a module caps its weight once.

    In training, linear layers of equal shapes and bounds are capped together, which is faster. The
    weights must not change meanwhile. In compiled code it does nothing.
    """
    layers = [m for m in module.modules() if isinstance(m, Lipschitz) and m._held is None]
    if torch.compiler.is_compiling():
        layers = []
    alike: dict[Any, list[LipschitzLinear]] = {}
    try:
        for layer in layers:
            if layer.training and type(layer) is LipschitzLinear:
                weight, of = layer.weight, (layer.lipschitz, layer.n_steps)
                alike.setdefault((weight.shape, weight.dtype, weight.device, of), []).append(layer)
            else:
                layer._held = layer.capped()
        for group in alike.values():
            for layer, capped in zip(group, _capped_together(group), strict=True):
                layer._held = capped
        yield
    finally:
        for layer in layers:
            layer._held = None


def _capped_together(layers: list[LipschitzLinear]) -> tuple[Tensor, ...]:
    """What :meth:`Lipschitz.capped` is of layers in training, of equal shapes and bounds."""
    with exactly(layers[0].weight):
        return _stacked(layers)


def _stacked(layers: list[LipschitzLinear]) -> tuple[Tensor, ...]:
    weight = torch.stack([layer.weight for layer in layers])
    if layers[0].is_narrow:
        right = top_direction(weight)[..., None]
    else:
        with torch.no_grad():
            start = torch.stack([layer.right for layer in layers])
            square = lambda v: (weight.mT @ (weight @ v[..., None]))[..., 0]  # noqa: E731
            right = lanczos(square, start, layers[0].n_steps)[..., None]
            for layer, own in zip(layers, right[..., 0], strict=True):
                layer._keep(own)
    length = torch.linalg.vector_norm(weight @ right, dim=1, keepdim=True)
    capped: Tensor = weight / (length / layers[0].lipschitz).clamp(min=1)
    return capped.unbind()


class LipschitzConv2d(Lipschitz):
    """A convolution that lengthens no picture by more than a factor.

    The singular value is that of the convolution itself, with its zeros round the picture. That of
    its kernel as a matrix is another number, too small by a factor of up to 3 and sometimes too
    large. So the pictures' size belongs to the layer. When it is frozen, the value is found by
    Lanczos' method, whose steps are repeated until the value has not changed for a while. In
    training it is that of a few steps, and may lag behind by some thousandths.

    Args:
        inputs: the number of input channels.
        outputs: the number of output channels.
        size: the pictures' height and width.
        kernel_size: the kernel's side, an odd number; pictures keep their size.
        lipschitz: the bound.
        n_steps: Lanczos steps for each call in training; 1 is power iteration.

    Raises:
        ValueError: if a number is not positive, the kernel's side is even, or a picture has
            another size.

    Example:
        >>> layer = LipschitzConv2d(1, 4, (8, 8), lipschitz=0.5)
        >>> layer(torch.randn(5, 1, 8, 8)).shape
        torch.Size([5, 4, 8, 8])

    Source: Gouk et al. (2021), section 4.2; Behrmann et al. (2019), section 2.1 and appendix D;
    Lanczos (1950).
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        size: tuple[int, int],
        kernel_size: int = 3,
        lipschitz: float = 1.0,
        *,
        n_steps: int = 5,
    ) -> None:
        super().__init__(lipschitz, n_steps)
        where = "LipschitzConv2d"
        self.inputs = as_count(where, "inputs", inputs, 1)
        self.outputs = as_count(where, "outputs", outputs, 1)
        sides = as_ints(size)
        if sides is None or len(sides) != 2 or min(sides) < 1:
            raise ValueError(f"{where}: expected a size (height, width), got {size!r}")
        self.size = sides
        self.kernel_size = as_count(where, "kernel_size", kernel_size, 1)
        if self.kernel_size % 2 == 0:
            raise ValueError(f"{where}: expected an odd kernel_size, got {kernel_size}")
        shape = (self.outputs, self.inputs, self.kernel_size, self.kernel_size)
        self.weight = nn.Parameter(torch.empty(shape))
        nn.init.orthogonal_(self.weight)
        self.bias = nn.Parameter(torch.zeros(self.outputs, 1, 1))
        # what somebody has made of this class may look further, around the edges for example
        self.reach = self.kernel_size // 2 if type(self) is LipschitzConv2d else None
        right = torch.ones(self.inputs, *self.size)
        self.register_buffer("right", right / math.sqrt(right.numel()))

    slack = 1e-7

    def operate(self, v: Tensor, weight: Tensor) -> Tensor:
        return self._convolved(nn.functional.conv2d, v, weight)

    def adjoint(self, w: Tensor, weight: Tensor) -> Tensor:
        return self._convolved(nn.functional.conv_transpose2d, w, weight)

    def _convolved(self, convolve: Callable[..., Tensor], v: Tensor, weight: Tensor) -> Tensor:
        if v.shape[-2:] != self.size:
            raise ValueError(
                f"LipschitzConv2d: expected pictures of {self.size}, got {tuple(v.shape[-2:])}"
            )
        made = convolve(v.reshape(-1, *v.shape[-3:]), weight, padding=self.kernel_size // 2)
        return made.reshape(*v.shape[:-3], *made.shape[1:])

    @torch.no_grad()
    def exact(self) -> Tensor:
        """By Lanczos' method on ``AᵀA``, in float64 and with all vectors kept orthogonal.

        A kernel of one pixel is a matrix, the same at every pixel.
        """
        if self.kernel_size == 1:
            alike = top_direction(self.weight[..., 0, 0])[:, None, None].expand_as(self.right)
            return alike / math.sqrt(math.prod(self.size))
        weight = self.weight.double()
        # with much of every direction: from an old vector alone it would settle on an old value
        rng = torch.Generator().manual_seed(0)
        noise = torch.randn(self.right.shape, generator=rng, device="cpu")
        start = self.right.double() + (noise / noise.norm()).to(weight)
        most = min(LANCZOS, start.numel())
        basis = weight.new_empty(most, start.numel())  # only what is written to takes memory
        new = start.flatten() / torch.linalg.vector_norm(start)
        diagonal: list[Tensor] = []
        beside: list[Tensor] = []
        last = torch.zeros((), dtype=torch.float64, device=weight.device)
        quiet = 0  # how many steps in a row have changed nothing
        for k in range(most):
            basis[k], span = new, basis[: k + 1]
            image = self.operate(new.reshape(start.shape), weight)
            flat = self.adjoint(image, weight).flatten()
            diagonal.append(flat @ new)
            for _ in range(2):  # once is not enough in floating point
                flat = flat - span.mT @ (span @ flat)
            length = torch.linalg.vector_norm(flat)
            T = torch.diag(torch.stack(diagonal))
            if beside:
                off = torch.stack(beside)
                T = T + off.diag(1) + off.diag(-1)
            values, vectors = torch.linalg.eigh(_finite(T))
            same = bool((values[-1] - last).abs() <= 1e-12 * values[-1])
            quiet = quiet + 1 if same else 0
            last = values[-1]
            if quiet == QUIET or not bool(length > 1e-12 * last.clamp(min=1e-300)):
                break
            beside.append(length)
            new = flat / length
        right = (vectors[:, -1] @ basis[: len(vectors)]).reshape(start.shape)
        made: Tensor = (right / torch.linalg.vector_norm(right)).to(self.weight)
        return made

    def extra_repr(self) -> str:
        return (
            f"{self.inputs}, {self.outputs}, {self.size}, {self.kernel_size}, "
            f"lipschitz={self.lipschitz:g}"
        )


# --- activations ------------------------------------------------------------------------------


class Activation(Recorded, nn.Module, ABC):
    """Base class of activations of slope at most 1, of each number by itself.

    With a ``scale`` an activation ``a`` is ``a(scale * h) / scale``. Its largest slope is the same,
    and it bends within a range of ``1 / scale``.

    Args:
        scale: positive.

    Raises:
        ValueError: if the scale is not positive.
    """

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        self.scale = as_number(type(self).__name__, "scale", scale)

    @abstractmethod
    def curve(self, h: Tensor) -> tuple[Tensor, Tensor]:
        """The activation of scale 1, and its slope."""

    def value(self, h: Tensor) -> Tensor:
        """The activation of scale 1 without its slope."""
        return self.curve(h)[0]

    def with_slope(self, h: Tensor) -> tuple[Tensor, Tensor]:
        """The activation and its slope, both of the shape of ``h``."""
        value, slope = self.curve(self.scale * h)
        return value * (1 / self.scale), slope

    def forward(self, h: Tensor) -> Tensor:
        return self.value(self.scale * h) * (1 / self.scale)

    def extra_repr(self) -> str:
        return f"scale={self.scale:g}"


class Sine(Activation):
    """``sin``: it bends everywhere, and its second derivative never dies out.

    Example:
        >>> Sine(2.0)(torch.tensor([0.0])).item()
        0.0

    Source: Sitzmann et al. (2020) for sines of a large scale.
    """

    def curve(self, h: Tensor) -> tuple[Tensor, Tensor]:
        return h.sin(), h.cos()

    def value(self, h: Tensor) -> Tensor:
        return h.sin()


class Tanh(Activation):
    """``tanh``."""

    def curve(self, h: Tensor) -> tuple[Tensor, Tensor]:
        value = h.tanh()
        return value, 1 - value * value

    def value(self, h: Tensor) -> Tensor:
        return h.tanh()


class ELU(Activation):
    """``h`` where it is positive, and ``exp(h) - 1`` where it is negative.

    Source: Clevert et al. (2016); Behrmann et al. (2019), section 5.
    """

    def curve(self, h: Tensor) -> tuple[Tensor, Tensor]:
        below = h.clamp(max=0).exp()
        return torch.where(h > 0, h, below - 1), torch.where(h > 0, torch.ones_like(h), below)

    def value(self, h: Tensor) -> Tensor:
        return nn.functional.elu(h)


def require_slopes(where: str, activation: Activation) -> None:
    """Raise ``ValueError`` if an activation is somewhere steeper than 1, as seen on a grid."""
    own = next(activation.parameters(), torch.empty(0, device="cpu"))
    if own.is_meta:
        return  # it has no values to see
    with torch.no_grad():
        h = torch.linspace(-20, 20, 8001, dtype=torch.float64, device=own.device)
        value = activation.value(h.clone())
        steepest = float((value.diff().abs() / h.diff()).max())
    if not steepest <= 1 + 1e-6:
        raise ValueError(
            f"{where}: expected an activation of slopes up to 1, got {activation}, whose slope "
            f"reaches {steepest:.3g}"
        )


# --- the branch -------------------------------------------------------------------------------


class Linearized(NamedTuple):
    """A map near a point.

    The ``value`` ``g(x)``, ``(batch, *event)``, and the products with the Jacobian from both sides,
    ``vjp`` from ``w`` to ``wᵀJ`` and ``jvp`` from ``v`` to ``Jv``, of ``(..., batch, *event)``. Of
    pictures ``(C, H, W)`` the ``reach``: up to how many pixels away, in height and in width, the
    value depends on a pixel. None if that is not known. It is believed: with a number that is too
    small, exact determinants are wrong.
    """

    value: Tensor
    vjp: Callable[[Tensor], Tensor]
    jvp: Callable[[Tensor], Tensor]
    reach: int | None = None


class Branch(Recorded, nn.Module):
    """A network ``g`` of layers with a bound and activations of slope at most 1.

    Its Lipschitz constant is at most the product of its layers' bounds, each of which is a root of
    the whole. The last layer starts at zero.

    Args:
        event_shape: the number of coordinates, or the shape ``(C, H, W)`` of a picture.
        hidden: the widths of the hidden layers, or the width of the only one; of pictures, their
            numbers of channels.
        lipschitz: the bound of the whole, below 1.
        activation: makes the activation from its scale; None for ``Sine`` of up to 3 coordinates
            and of pictures, and for ``ELU`` of more coordinates, where sines learn small tables by
            heart.
        scale: the activations' scale; None for ``sqrt(width / D)``, at least 1, of pictures with
            the number of channels for ``D``. The bound makes the first layer's rows as short as
            ``sqrt(D / width)``, so that without a scale every unit would be nearly a straight line.
        kernel_size: of pictures, the side of the first and the last kernel; in between it is 1.

    Raises:
        ValueError: if a number is out of its range, or an activation steeper than 1.

    Example:
        >>> g = Branch(2, 64, lipschitz=0.9)
        >>> near = g.linearize(torch.randn(5, 2))
        >>> near.vjp(torch.ones(5, 2)).shape
        torch.Size([5, 2])
        >>> Branch((1, 8, 8), 16)(torch.randn(5, 1, 8, 8)).shape
        torch.Size([5, 1, 8, 8])

    Source: Behrmann et al. (2019), section 2.1.
    """

    def __init__(
        self,
        event_shape: int | Sequence[int],
        hidden: int | Sequence[int] = 128,
        lipschitz: float = 0.97,
        activation: Callable[[float], Activation] | None = None,
        scale: float | None = None,
        *,
        kernel_size: int = 3,
    ) -> None:
        super().__init__()
        self.event_shape = as_event_shape(event_shape)
        if len(self.event_shape) not in (1, 3):
            raise ValueError(
                f"Branch: expected a vector or a picture (C, H, W), got {tuple(self.event_shape)}"
            )
        widths = as_ints(hidden)
        if not widths or min(widths) < 1:
            raise ValueError(f"Branch: expected positive widths, got hidden={hidden!r}")
        self.lipschitz = as_bound("Branch", lipschitz)
        size, *rest = self.event_shape
        pairs = list(itertools.pairwise([size, *widths, size]))
        each = self.lipschitz ** (1 / len(pairs))
        layers: list[Lipschitz] = []
        for k, pair in enumerate(pairs):
            if rest:
                side = kernel_size if k in (0, len(pairs) - 1) else 1
                layers.append(LipschitzConv2d(*pair, (rest[0], rest[1]), side, each))
            else:
                layers.append(LipschitzLinear(*pair, each))
        self.layers: Any = nn.ModuleList(layers)
        if activation is None:
            activation = Sine if rest or size <= 3 else ELU
        usual = [max(1.0, math.sqrt(width / size)) for width in widths]
        bends = [activation(s if scale is None else scale) for s in usual]
        for bend in bends:
            require_slopes("Branch", bend)
        self.activations: Any = nn.ModuleList(bends)
        for weights in self.layers[-1].parameters():
            nn.init.zeros_(weights)

    def forward(self, x: Tensor) -> Tensor:
        """``(..., *event)`` to ``(..., *event)``."""
        h = x
        for k, (layer, (weight, bias)) in enumerate(zip(self.layers, self.folded(), strict=True)):
            h = layer.affine(self.activations[k - 1].value(h) if k else h, weight, bias)
        return h

    def folded(self) -> list[tuple[Tensor, Tensor]]:
        """Each layer's weight and bias, with the scales of the activations before and after it."""
        scales = [1.0, *(activation.scale for activation in self.activations), 1.0]
        return [
            (_laid_out(layer.capped() * (after / before)), layer.bias * after)
            for layer, (before, after) in zip(self.layers, itertools.pairwise(scales), strict=True)
        ]

    def linearize(
        self, x: Tensor, folded: Sequence[tuple[Tensor, Tensor]] | None = None
    ) -> Linearized:
        """The value at ``x (batch, *event)``, and products with the Jacobian from both sides.

        The products are linear maps and elementwise operations only, and differentiable.

        Args:
            x: where.
            folded: the layers' weights and biases, by default those of :meth:`folded`.
        """
        folded = self.folded() if folded is None else folded
        h, slopes = x, []
        for k, (layer, (weight, bias)) in enumerate(zip(self.layers, folded, strict=True)):
            if k:
                h, slope = self.activations[k - 1].curve(h)
                slopes.append(slope)
            h = layer.affine(h, weight, bias)

        def vjp(w: Tensor) -> Tensor:
            dtype = w.dtype
            for k in reversed(range(len(folded))):
                w = self.layers[k].adjoint(w, folded[k][0])
                w = w * slopes[k - 1] if k else w
            return w.to(dtype)  # under autocast the layers compute in another one

        def jvp(v: Tensor) -> Tensor:
            dtype = v.dtype
            for k, (weight, _) in enumerate(folded):
                v = self.layers[k].operate(v * slopes[k - 1] if k else v, weight)
            return v.to(dtype)

        steps = [layer.reach for layer in self.layers]
        known = type(self).linearize is Branch.linearize and None not in steps
        return Linearized(h.to(x.dtype), vjp, jvp, sum(steps) if known else None)


def _laid_out(weight: Tensor) -> Tensor:
    """A matrix with its long side in a row of memory, with which products are much faster."""
    tall = weight.ndim == 2 and weight.shape[0] > weight.shape[1]
    return weight.mT.contiguous().mT if tall else weight


def linearize(branch: nn.Module, x: Tensor) -> Linearized:
    """The value and the products of any branch: its own, or those of ``torch.func``.

    A branch without a method ``linearize`` is a module from ``(batch, *event)`` to the same, each
    row by itself. Its products with the Jacobian are computed by autodiff.
    """
    own = getattr(branch, "linearize", None)
    if own is not None:
        made: Linearized = own(x)
        return made
    value, pull, *_ = torch.func.vjp(branch, x)

    def vjp(w: Tensor) -> Tensor:
        lead = w.shape[: w.ndim - x.ndim]
        made: Tensor = torch.func.vmap(lambda w: pull(w)[0])(w.reshape(math.prod(lead), *x.shape))
        return made.reshape(*lead, *x.shape)

    def jvp(v: Tensor) -> Tensor:
        lead = v.shape[: v.ndim - x.ndim]
        push = torch.func.vmap(lambda v: torch.func.jvp(branch, (x,), (v,))[1])
        made: Tensor = push(v.reshape(math.prod(lead), *x.shape))
        return made.reshape(*lead, *x.shape)

    return Linearized(value, vjp, jvp)


# --- log-determinants -------------------------------------------------------------------------

BESIDE = 2**32  # between the seeds of a flow's blocks: more than anybody's seeds are apart


class LogDet(Recorded, nn.Module, ABC):
    """Base class of the ways to compute ``log det(I + J)``."""

    @abstractmethod
    def forward(self, x: Tensor, at: Linearized) -> Tensor:
        """``(batch,)``, of the branch near ``x (batch, *event)``."""


def as_log_det(where: str, name: str, value: Any) -> LogDet:
    """A way to compute log-determinants; ``TypeError`` for all else."""
    if not isinstance(value, LogDet):
        raise TypeError(f"{where}: expected {name} to be a LogDet, got {value!r}")
    return value


def log_det_of_block(where: str, make: Callable[[], LogDet], k: int) -> LogDet:
    """What ``make`` makes, with probes of its own for block ``k`` of a flow.

    It is copied, as ``make`` may give out one object again and again.
    """
    if isinstance(make, nn.Module) or not callable(make):
        raise TypeError(
            f"{where}: expected log_det to be a function or a class that makes a LogDet, got "
            f"{make!r}; functools.partial(RussianRoulette, p=0.5) is one"
        )
    made = copy.deepcopy(as_log_det(where, "what log_det makes", make()))
    for part in made.modules():
        if isinstance(part, Probed):
            part.seed += k * BESIDE  # blocks with the same probes would have the same errors
    return made


PIECE = 2**19  # numbers, of which more are not computed at once unless a gradient keeps them all


def plus_identity(x: Tensor, at: Linearized) -> Tensor:
    """``I + J``, ``(batch, D, D)``, of all ``D`` columns of the Jacobian."""
    products, arranged = _unit_products(x, at)
    return arranged(products)


def _unit_products(x: Tensor, at: Linearized) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """Products of the Jacobian with unit vectors, ``(n, batch, D)``; and what makes ``I + J``.

    That function takes the products of all rows, or of some. Where the reach is known, unit vectors
    of pixels that are far apart share a product: no output sees two of them.

    Source: Curtis, Powell and Reid (1974) for the shared products.
    """
    event = x.shape[1:]
    dim = math.prod(event)
    eye = torch.eye(dim, dtype=x.dtype, device=x.device)
    reach = dim if at.reach is None or len(event) != 3 else at.reach
    side = [min(2 * reach + 1, pixels) for pixels in event[1:]]

    def products(probes: Tensor) -> Tensor:
        some = _pieces(probes, 0, x.numel())
        made = [at.jvp(v.reshape(-1, 1, *event).expand(-1, *x.shape)).flatten(2) for v in some]
        return torch.cat(made) if len(made) > 1 else made[0]

    if math.prod(side) == math.prod(event[1:]):
        return products(eye), lambda made: (made + eye[:, None]).movedim(0, -1)
    place = torch.arange(dim, device=x.device)
    height, width = place // event[2] % event[1], place % event[2]
    channel = place // math.prod(event[1:])
    shared = (channel * side[0] + height % side[0]) * side[1] + width % side[1]
    n = event[0] * math.prod(side)
    probes = (shared == torch.arange(n, device=x.device)[:, None]).to(x.dtype)
    far = [(along[:, None] - along).abs() > reach for along in (height, width)]
    unseen = (far[0] | far[1])[:, None]

    def arranged(made: Tensor) -> Tensor:
        columns = made.index_select(0, shared).masked_fill_(unseen, 0)
        return (columns + eye[:, None]).movedim(0, -1)

    return products(probes), arranged


def _pieces(x: Tensor, along: int, numbers: int) -> Sequence[Tensor]:
    """A tensor in pieces of as many slices as may be held at once, of so many numbers each."""
    if torch.compiler.is_compiling():  # there the number of rows is open
        return [x]
    pieces: Sequence[Tensor] = x.split(max(1, PIECE // max(1, numbers)), along)
    return pieces


class ExactLogDet(LogDet):
    """The determinant itself, of all ``D`` columns of the Jacobian.

    It costs ``D`` products with the Jacobian, and in more than three dimensions ``D³`` operations.
    Of pictures it is fewer products: pixels that are far apart share one, and of one channel and
    kernels of 3 that is 25 products, however large the picture is.

    It is NaN where the determinant is negative, which a branch within its bound rules out. In half
    precision it is computed in float32, and stays in it, in more than three dimensions.

    Example:
        >>> g = Branch(2, 16)
        >>> x = torch.randn(5, 2)
        >>> ExactLogDet()(x, g.linearize(x)).abs().max().item()  # g starts at zero
        0.0
    """

    def forward(self, x: Tensor, at: Linearized) -> Tensor:
        products, arranged = _unit_products(x, at)
        dim = products.shape[-1]
        if dim <= 3:
            return _small_log_det(arranged(products))
        found = []
        for some in _pieces(products, 1, dim**2):
            sign, log_det = torch.linalg.slogdet(widened(arranged(some)))
            found.append(torch.where(sign > 0, log_det, torch.nan))
        return torch.cat(found) if len(found) > 1 else found[0]


def _small_log_det(matrix: Tensor) -> Tensor:
    """Of matrices of up to three dimensions."""
    if matrix.shape[-1] == 1:
        return matrix[..., 0, 0].log()
    if matrix.shape[-1] == 2:
        (a, b), (c, d) = (row.unbind(-1) for row in matrix.unbind(-2))
        return (a * d - b * c).log()
    first, second, third = matrix.unbind(-1)
    log_det: Tensor = (first * torch.linalg.cross(second, third)).sum(-1).log()
    return log_det


class Probed(LogDet):
    """Base class of those that estimate a trace by random probes.

    Args:
        probes: how many for each row.
        distribution: ``"rademacher"``, signs, or ``"gaussian"``.
        seed: of the probes in evaluation.

    Raises:
        ValueError: if a number is not positive, or there is no such distribution.

    Source: Hutchinson (1990).
    """

    def __init__(self, probes: int, distribution: str, seed: int) -> None:
        super().__init__()
        where = type(self).__name__
        self.probes = as_count(where, "probes", probes, 1)
        if distribution not in ("rademacher", "gaussian"):
            raise ValueError(
                f'{where}: expected a distribution "rademacher" or "gaussian", got {distribution!r}'
            )
        self.distribution = distribution
        self.seed = as_count(where, "seed", seed, 0)
        self._rng: np.random.Generator | None = None  # of independent draws in evaluation

    def arguments(self) -> Arguments:
        args, kwargs = super().arguments()
        signature = inspect.signature(type(self))
        given = signature.bind(*args, **kwargs).arguments
        seed = {"seed": self.seed} if "seed" in signature.parameters else {}
        return Arguments((), {**given, **seed})  # a flow gives each block its own

    def draw(self, x: Tensor) -> Tensor:
        """Probes for each row of ``x``, ``(probes, batch, *event)``, of mean 0 and covariance 1."""
        options: dict[str, Any] = {"dtype": x.dtype, "device": x.device}

        def draw(rows: int) -> Tensor:
            shape = (self.probes, rows, *x.shape[1:])
            if self.distribution == "gaussian":
                return torch.randn(shape, **options)
            signs: Tensor = 2 * torch.randint(2, shape, **options) - 1
            return signs

        probes: Tensor = drawn(x.shape[0], draw, dim=1)
        return probes

    def again(self) -> np.random.Generator:
        """What all is drawn from in evaluation: from the seed, the same in every call."""
        # NumPy's numbers are the same on every device, and allowed under vmap
        return np.random.default_rng(self.seed) if self._rng is None else self._rng

    def redraw(self, x: Tensor, probes: int, rng: np.random.Generator) -> Tensor:
        """Probes as of :meth:`draw`, each row's by its place, whatever the other rows are."""

        def draw(rows: int) -> Any:
            shape = (rows, probes, *x.shape[1:])  # rows first: fewer have the same
            gaussian = self.distribution == "gaussian"
            return rng.standard_normal(shape) if gaussian else 2.0 * rng.integers(2, size=shape) - 1

        v = torch.as_tensor(drawn(x.shape[0], draw), dtype=x.dtype, device=x.device)
        return v.movedim(1, 0)


def is_half(x: Tensor) -> bool:
    """Whether it is in half precision."""
    return x.dtype in (torch.float16, torch.bfloat16)


def widened(terms: Tensor) -> Tensor:
    """In float32 what is in half precision, whose few digits a sum of many terms would lose."""
    return terms.float() if is_half(terms) else terms


class PowerSeries(Probed):
    r"""The first terms of the series, each trace estimated by random probes.

    :math:`\operatorname{tr} A = \mathbb E[v^\top A v]` for every ``v`` of covariance ``I`` and mean
    0. The terms that are left out are a bias, which :meth:`bias_bound` bounds. In evaluation the
    probes are drawn from ``seed``: in every call the same for the first row, the same for the
    second, and so on. In half precision the terms are added up in float32, and stay in it.

    Args:
        n_terms: how many terms.
        probes: how many probes for each row.
        distribution: of the probes, ``"rademacher"``, signs, or ``"gaussian"``.
        seed: of the probes in evaluation.

    Raises:
        ValueError: if a number is not positive, or there is no such distribution.

    Example:
        >>> g = Branch(2, 16)
        >>> x = torch.randn(5, 2)
        >>> PowerSeries(4)(x, g.linearize(x)).shape
        torch.Size([5])

    Source: Behrmann et al. (2019), section 3; Hutchinson (1990).
    """

    def __init__(
        self, n_terms: int = 5, probes: int = 1, distribution: str = "rademacher", seed: int = 0
    ) -> None:
        super().__init__(probes, distribution, seed)
        self.n_terms = as_count("PowerSeries", "n_terms", n_terms, 1)

    def forward(self, x: Tensor, at: Linearized) -> Tensor:
        v = self.draw(x) if self.training else self.redraw(x, self.probes, self.again())
        w, total = v, widened(x.new_zeros(x.shape[0]))
        for k in range(1, self.n_terms + 1):
            w = at.vjp(w)
            trace = (widened(w) * v).flatten(2).sum(-1).mean(0)
            total = total + (trace / k if k % 2 else -trace / k)
        return total

    @staticmethod
    def bias_bound(n_terms: int, lipschitz: float, dim: int) -> float:
        """The largest error of so many terms, ``-D (log(1 - c) + sum of c^k / k)``."""
        kept = sum(lipschitz**k / k for k in range(1, n_terms + 1))
        return -dim * (math.log1p(-lipschitz) + kept)


# --- the fixed point --------------------------------------------------------------------------


# One Jacobian for all rows pays from so many coordinates to so many, as the mean over so many rows:
# of two numbers the last two steps say as much, and one row's Jacobian is worse than none.
DIMS, SAMPLE = (4, 256), (4, 8)


class FixedPoint(NamedTuple):
    """What :func:`fixed_point` found.

    The points ``x``, ``(rows, ...)``; for each row the ``error``, a bound on its distance to the
    solution, ``(rows,)``; and how many ``evaluations`` it took, ``(rows,)``.
    """

    x: Tensor
    error: Tensor
    evaluations: Tensor


@torch.no_grad()
def fixed_point(
    F: Callable[[Tensor, Tensor], Tensor],
    x0: Tensor,
    lipschitz: float,
    tol: float = 1e-5,
    max_iter: int = 2000,
    accelerated: bool = True,
    slope: Tensor | None = None,
) -> FixedPoint:
    r"""The solution of ``x = F(x)`` of a contraction, row by row.

    A row is done when the bound on the error of its *answer* is within the tolerance: for the point
    that is returned, :math:`\|x^* - F(x)\| \le \frac{c}{1 - c} \|F(x) - x\|`. A small step alone
    says little: at :math:`c = 0.97` it is 32 times smaller than the error can be. Rows that are
    done leave the loop, a quarter of them at a time. What rounding may add is in ``error`` and not
    in this rule, so ``error`` is often more than the tolerance in float32. Where rounding does not
    allow the tolerance at all, as at 1e-5 and :math:`c = 0.97`, the row ends at a step of the size
    of rounding. Rounding is counted by the largest of the points ``x0`` and ``F(x)``; numbers
    within ``F`` that are much larger than these, and cancel, are not seen.

    Accelerated, a row goes where its last steps together point (Anderson, depth 2), as long as the
    step then shrinks by ``c`` at least, as a plain step's does. If not, it goes back and takes the
    plain step. With a ``slope`` that all rows share, an accelerated step starts from Newton's step
    with it. It cannot be compiled, and is not differentiable.

    Args:
        F: gets points ``(k, ...)``, which it must not change, and the numbers ``(k,)`` of their
            rows.
        x0: where to start, ``(rows, ...)``.
        lipschitz: the contraction's constant, below 1.
        tol: the largest error, in the units of ``x``, as the length of a whole row.
        max_iter: the largest number of evaluations of a row.
        accelerated: whether to use the last steps.
        slope: a matrix ``(D, D)`` that is near the Jacobian of ``F`` in most rows, such as its mean
            over some of them. The nearer, the fewer evaluations; the answers' errors are bounded
            whatever it is. It is not used if not ``accelerated``, or if Newton's step with it is
            not finite.

    Raises:
        ValueError: if a number is out of its range, ``x0`` is not finite or not of floating point,
            or ``slope`` has another shape.
        RuntimeError: if some rows are not done after ``max_iter`` evaluations, or ``F`` returns
            NaN.

    Example:
        >>> found = fixed_point(lambda x, rows: 1 - 0.5 * x, torch.zeros(3, 1), lipschitz=0.5)
        >>> bool((found.x - 2 / 3).abs().max() <= found.error.max())
        True

    Source: Banach (1922); Anderson (1965); Walker and Ni (2011).
    """
    c = as_bound("fixed_point", lipschitz)
    tol, max_iter = (
        as_number("fixed_point", "tol", tol),
        as_count("fixed_point", "max_iter", max_iter, 1),
    )
    if x0.dim() < 2 or not x0.is_floating_point():
        raise ValueError(
            f"fixed_point: expected x0 of shape (rows, ...) in floating point, got "
            f"{tuple(x0.shape)} in {x0.dtype}"
        )
    if not x0.isfinite().all():
        raise ValueError("fixed_point: expected a finite start, got NaN or infinite numbers")
    shape, far = x0.shape, c / (1 - c)
    trial = x0.flatten(1)  # where each row is evaluated next
    x, error = trial.clone(), trial.new_zeros(len(trial))
    evaluations = torch.zeros(len(trial), dtype=torch.long, device=trial.device)
    floor = 4 * torch.finfo(trial.dtype).eps
    beyond = _beyond(slope, trial) if accelerated and slope is not None else None

    rows = torch.arange(len(trial), device=trial.device)  # which are still evaluated
    answer, step = trial, torch.zeros_like(trial)  # F at the last accepted point, F - point there
    target = trial  # where a bold step starts from: the answer, or Newton's step beyond it
    length = bound = trial.new_zeros(len(trial))  # of the step, and on the error of the answer
    size = torch.linalg.vector_norm(trial, dim=1)  # of the largest point, which rounding goes by
    history: list[tuple[Tensor, Tensor]] = []  # how both changed, the newest first
    count = torch.zeros_like(rows)  # how many points a row has accepted since it went back
    bold = done = torch.zeros_like(rows, dtype=torch.bool)  # bold: its trial is extrapolated
    for evaluation in range(1, max_iter + 1 if len(trial) else 0):
        made = F(trial.reshape(-1, *shape[1:]), rows).flatten(1)
        moved, before = made - trial, length
        length = torch.linalg.vector_norm(moved, dim=1)
        if not (length.isfinite() | bold).all():  # where it is bold it has gone too far, and back
            raise RuntimeError(
                "fixed_point: F returned NaN, or numbers whose length is infinite in "
                f"{str(made.dtype)[6:]}"
            )
        kept = ~bold | (length <= c * before)
        if not kept.all():
            made = torch.where(kept[:, None], made, answer)
            moved = torch.where(kept[:, None], moved, step)
            length = torch.where(kept, length, before)
        count = torch.where(kept, count + 1, 1)
        size = torch.maximum(size, torch.linalg.vector_norm(made, dim=1))
        bound = far * length + floor * size * (1 + far)  # with what rounding may have hidden
        # rounding goes round in steps of up to floor / (1 - c), and they shrink no more
        stalled = kept & (count > 1) & (length >= before) & (length <= floor * (1 + far) * size)
        now = ~done & ((far * length <= tol) | (length <= floor * size) | stalled)
        if now.any():
            at = rows[now]
            x[at], error[at], evaluations[at] = made[now], bound[now], evaluation
            done = done | now
            if 4 * int(done.sum()) >= len(done):  # for few it would not pay to move the others
                left = ~done
                rows, done, kept, count, length, bound, size, made, moved, step, target = (
                    v[left]
                    for v in (
                        rows, done, kept, count, length, bound, size, made, moved, step, target
                    )
                )  # fmt: skip
                history = [(a[left], b[left]) for a, b in history]
                if not len(rows):
                    break
        ahead = made if beyond is None else torch.addmm(made, moved, beyond)
        if accelerated and evaluation > 1:
            history = [(ahead - target, moved - step), *history][:2]
        answer, step, target = made, moved, ahead
        trial, bold = answer, kept & (count > (beyond is None))
        if not history and beyond is None:
            bold = torch.zeros_like(bold)
        elif bold.any():
            there = _extrapolated(target, step, history, count) if history else target
            trial = torch.where(bold[:, None], there, answer)
    if len(rows):
        raise RuntimeError(
            f"fixed_point: {int((~done).sum())} of {len(x)} rows are not within {tol:g} after "
            f"{max_iter} evaluations; the error of the worst may be {float(bound[~done].max()):.2g}"
        )
    return FixedPoint(x.reshape(shape), error, evaluations)


def _beyond(slope: Tensor, x: Tensor) -> Tensor | None:
    """The matrix by which a step, as a row, is multiplied to get from the answer to Newton's."""
    dim = x.shape[1]
    if slope.shape != (dim, dim):
        raise ValueError(f"fixed_point: expected slope ({dim}, {dim}), got {tuple(slope.shape)}")
    eye = torch.eye(dim, dtype=x.dtype, device=x.device)
    newton = torch.linalg.inv_ex(widened(eye - slope)).inverse.to(x.dtype)
    return (newton - eye).mT.contiguous() if newton.isfinite().all() else None


def _extrapolated(
    answer: Tensor, step: Tensor, history: list[tuple[Tensor, Tensor]], count: Tensor
) -> Tensor:
    """Where the combination of the last answers lies whose step would be the shortest."""
    (da, ds), (db, dt) = history[0], history[-1]
    long = (count > 2)[:, None]  # a row with fewer points has no second difference
    if len(history) < 2 or not long.all():
        db, dt = (torch.where(long, d, 0.0) for d in (db, dt))
    aa, bb, ab = (ds * ds).sum(1), (dt * dt).sum(1), (ds * dt).sum(1)
    # by the scale first, so that no square vanishes
    scale = aa + bb + torch.finfo(aa.dtype).tiny
    aa, bb, ab, ar, br = (v / scale for v in (aa, bb, ab, (ds * step).sum(1), (dt * step).sum(1)))
    # a little is added to the diagonal: rows whose differences are zero or parallel stay solvable
    damping = 1e-10 if aa.dtype == torch.float64 else 1e-6
    aa, bb = aa + damping, bb + damping
    det = aa * bb - ab * ab
    first, second = (bb * ar - ab * br) / det, (aa * br - ab * ar) / det
    first, second = (torch.where((first + second).isfinite(), v, 0.0) for v in (first, second))
    return answer - first[:, None] * da - second[:, None] * db


# --- the block --------------------------------------------------------------------------------


class ResidualBlock(Bijection):
    """``z = x + g(x)`` for a branch ``g`` with a Lipschitz bound below 1.

    Its inverse is found by :func:`fixed_point`, to the stated tolerance. Of 4 to 256 coordinates,
    and with at least four rows for each, it first takes the branch's mean Jacobian over some rows,
    which saves a fifth to nine tenths of the evaluations. What an inverse is within the tolerance
    then depends on the other rows of its batch. Where a gradient is asked
    for, two steps of Newton's method follow, which are differentiable: with them derivatives
    through the inverse are right, the first and the second, and no step of the iteration is kept.
    Each costs what :class:`ExactLogDet` costs; without ``torch.no_grad()`` draws cost them, too.
    Where values cannot be seen, in compiled code and under ``vmap``, it takes as many plain steps
    as the bound asks for where ``g(z)`` is no longer than 1, and cannot say what was reached. They
    are some 500 at a bound of 0.97, and compiled one by one, which takes minutes.

    Args:
        branch: such as a :class:`Branch`. Any module will do that maps ``(batch, *event)`` to the
            same, each row by itself, and has an ``event_shape`` and a ``lipschitz`` bound below 1.
            The bound is believed: if it is not true, inverses and their errors are not, either.
        log_det: how the log-determinant is computed; None for :class:`ExactLogDet`.
        tol: the largest error of an inverse, as the length of a whole row, but for rounding; what
            was reached is in ``solve(z).error``.
        max_iter: the largest number of evaluations for an inverse.

    Raises:
        TypeError: if ``branch`` has no ``event_shape`` or no ``lipschitz``, or ``log_det`` is no
            :class:`LogDet`.
        ValueError: if its bound is not between 0 and 1.
        RuntimeError: from :meth:`inverse`, if ``max_iter`` evaluations are not enough.

    Example:
        >>> block = ResidualBlock(Branch(2, 16))
        >>> z, log_det = block(torch.randn(5, 2))
        >>> z.shape, log_det.shape
        (torch.Size([5, 2]), torch.Size([5]))

    Source: Behrmann et al. (2019), theorem 1 and algorithm 1.
    """

    context_dim = 0

    def __init__(
        self,
        branch: Branch | nn.Module,
        log_det: LogDet | None = None,
        *,
        tol: float = 1e-5,
        max_iter: int = 2000,
    ) -> None:
        super().__init__()
        for name in ("event_shape", "lipschitz"):
            if not hasattr(branch, name):
                raise TypeError(
                    f"ResidualBlock: expected a Branch, got a {type(branch).__name__} without "
                    f"the attribute {name}"
                )
        as_bound("ResidualBlock", branch.lipschitz)
        self.branch: Any = branch
        given = ExactLogDet() if log_det is None else log_det
        self.log_det = as_log_det("ResidualBlock", "log_det", given)
        self.tol = as_number("ResidualBlock", "tol", tol)
        self.max_iter = as_count("ResidualBlock", "max_iter", max_iter, 1)
        self.event_shape = as_event_shape(branch.event_shape)  # type: ignore[arg-type]

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        at = linearize(self.branch, x)
        return x + at.value, self.log_det(x, at)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        with exactly(z):  # in half precision no iteration comes near its solution
            own = next(self.branch.parameters(), z)
            return self._inverse(z.to(own.dtype) if is_half(z) else z)

    def _inverse(self, z: Tensor) -> tuple[Tensor, Tensor]:
        x = self._blindly(z) if seen(z.sum()) is None else self.solve(z).x
        at = linearize(self.branch, x)
        weights = [z, *self.branch.parameters()]
        backward = torch.is_grad_enabled() and any(w.requires_grad for w in weights)
        if backward or any(has_tangent(w) for w in weights):
            for _ in range(2):
                off = widened((x + at.value - z).flatten(1)[..., None])
                step = torch.linalg.solve(widened(plus_identity(x, at)), off)
                x = x - step.reshape(x.shape).to(x.dtype)
                at = linearize(self.branch, x)
        return x, -self.log_det(x, at)

    def solve(self, z: Tensor, accelerated: bool = True) -> FixedPoint:
        """The ``x`` of ``z (batch, *event)``, with its error and how many evaluations it took."""

        def step(x: Tensor, rows: Tensor) -> Tensor:
            made: Tensor = (z if len(rows) == len(z) else z[rows]) - self.branch(x)
            return made

        with torch.no_grad(), exactly(z), self._frozen(), capped_once(self.branch):
            bound = self.branch.lipschitz
            slope = self._mean_slope(z) if accelerated else None
            return fixed_point(step, z, bound, self.tol, self.max_iter, accelerated, slope)

    def _mean_slope(self, z: Tensor) -> Tensor | None:
        """The mean Jacobian of the step over some rows, where it costs at most one evaluation."""
        event = z.shape[1:]
        dim = event.numel()
        n = min(len(z) // dim, SAMPLE[1])
        if not DIMS[0] <= dim <= DIMS[1] or n < SAMPLE[0]:
            return None
        some = z[:: len(z) // n][:n]
        eye = torch.eye(dim, dtype=z.dtype, device=z.device)
        directions = eye.reshape(dim, 1, *event).expand(dim, *some.shape)
        columns = linearize(self.branch, some).jvp(directions).mean(1).flatten(1)
        return -columns.mT

    @torch.no_grad()
    def _blindly(self, z: Tensor) -> Tensor:
        bound = self.branch.lipschitz
        x = z
        n_steps = max(1, math.ceil(math.log(self.tol * (1 - bound)) / math.log(bound)))
        with exactly(z), self._frozen(), capped_once(self.branch):
            for _ in range(n_steps):
                x = z - self.branch(x)
        return x

    @contextlib.contextmanager
    def _frozen(self) -> Iterator[None]:
        """In training the bound is only approximate, and the weights move from call to call."""
        modes = [(part, part.training) for part in self.branch.modules()]
        try:
            if self.branch.training:
                self.branch.eval()
            yield
        finally:
            for part, mode in modes:
                part.training = mode


# --- the ready flow ---------------------------------------------------------------------------


class _Blocks(Compose):
    """Several blocks whose weights are capped together in training."""

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        with capped_once(self) if self.training else contextlib.nullcontext():
            return super().forward(x, context)


def residual_blocks(
    where: str,
    event_shape: int | Sequence[int],
    n_layers: int,
    squeeze: int,
    block: Callable[[torch.Size, int], ResidualBlock],
) -> tuple[Bijection, StandardNormal, torch.Size]:
    """What a flow of residual blocks is made of: an :class:`ActNorm` before each of them.

    Args:
        where: the flow's name, for errors.
        event_shape: as in :class:`IResNet`.
        n_layers: the number of blocks.
        squeeze: as in :class:`IResNet`.
        block: makes a block from the shape of its points and its number, from 0.
    """
    shape = outside = as_event_shape(event_shape)
    layers: list[Bijection] = []
    for _ in range(as_count(where, "squeeze", squeeze, 0)):
        layers.append(Squeeze(shape))
        shape = layers[-1].forward_shape(shape)
    for k in range(as_count(where, "n_layers", n_layers, 1)):
        layers += [ActNorm(shape), block(shape, k)]
    return _Blocks(layers), StandardNormal(shape), outside


class IResNet(Flow):
    """Invertible residual network: blocks ``x + g(x)``, and an :class:`ActNorm` before each.

    Args:
        event_shape: the number of coordinates, or the shape ``(C, H, W)`` of a picture.
        n_layers: the number of blocks. One block changes volumes at most by the factor
            ``(1 + c) ** D``, so there must be several.
        hidden: the widths of the branches.
        lipschitz: the bound of each branch, below 1.
        activation: makes a branch's activation from its scale; None as in :class:`Branch`.
        scale: as in :class:`Branch`.
        log_det: a function or a class that makes how a block computes its log-determinant. What is
            random there in evaluation comes from its ``seed``, and is another in each block.
        squeeze: of pictures, how often four pixels become four channels before the first block.
        tol: the largest error of each block's inverse.

    Raises:
        ValueError: if a number is out of its range, or the event no vector and no picture.
        TypeError: if ``log_det`` makes no :class:`LogDet`.

    Example:
        >>> flow = IResNet(2, n_layers=3, hidden=32)
        >>> flow.log_prob(torch.zeros(5, 2)).shape
        torch.Size([5])

    Source: Behrmann et al. (2019).
    """

    def __init__(
        self,
        event_shape: int | Sequence[int],
        n_layers: int = 8,
        hidden: int | Sequence[int] = 128,
        *,
        lipschitz: float = 0.97,
        activation: Callable[[float], Activation] | None = None,
        scale: float | None = None,
        log_det: Callable[[], LogDet] = ExactLogDet,
        squeeze: int = 0,
        tol: float = 1e-5,
    ) -> None:
        def block(shape: torch.Size, k: int) -> ResidualBlock:
            branch = Branch(shape, hidden, lipschitz, activation, scale)
            return ResidualBlock(branch, log_det_of_block("IResNet", log_det, k), tol=tol)

        super().__init__(*residual_blocks("IResNet", event_shape, n_layers, squeeze, block))
