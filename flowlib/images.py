r"""RealNVP on pictures: which pixels move, how space becomes channels, who leaves when.

A picture is an array ``(C, H, W)``, channels first. Three things make couplings fit for it, and
they are easily taken for one another. A **checkerboard** says which pixels a coupling moves, and
rearranges nothing. :class:`Squeeze` rearranges, four pixels become four channels, and moves no
value. :class:`FactorOut` lets half of the channels go to the latent as they are, while the others
stay to be transformed further. With :class:`Dequantize`, which gives levels of grey a density,
they make :class:`ImageRealNVP`.

This is the code of the second half of chapter 2.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn

from flowlib.arguments import as_count, as_event_shape, require_inside, require_tensor, seen
from flowlib.bases import StandardNormal
from flowlib.coupling import Coupling, MaskedCoupling, half_mask
from flowlib.flow import Bijection, Compose, Elementwise, Flow
from flowlib.maps import Logit
from flowlib.nn import ConvNet
from flowlib.normalization import ActNorm
from flowlib.shares import drawn
from flowlib.structure import on_cpu
from flowlib.transformers import Affine

__all__ = [
    "Dequantize",
    "FactorOut",
    "Flatten",
    "ImageRealNVP",
    "Squeeze",
    "checkerboard_mask",
]


# --- who moves ------------------------------------------------------------------------------


@on_cpu
def checkerboard_mask(event_shape: Sequence[int], offset: int = 0) -> Tensor:
    """``(C, H, W)``, bool: the fields of one colour, in every channel alike.

    With ``offset`` 0 the pixel in the upper left corner is kept, with 1 it is moved.

    Example:
        >>> checkerboard_mask((1, 2, 3)).int().tolist()
        [[[1, 0, 1], [0, 1, 0]]]
    """
    _, h, w = shape = _as_image_shape("checkerboard_mask", event_shape)
    fields = (torch.arange(h)[:, None] + torch.arange(w)) % 2 == offset % 2
    return fields.expand(shape).clone()


# --- what goes where --------------------------------------------------------------------------


class Squeeze(Bijection):
    """Space to channels: ``(C, H, W)`` to ``(4C, H/2, W/2)``; no value changes.

    Each square of 2×2 pixels becomes one, with four times the channels: first all channels of the
    upper left pixels, then of the upper right, the lower left and the lower right ones.

    Args:
        event_shape: ``(C, H, W)``, with even ``H`` and ``W``.

    Raises:
        ValueError: if they are not even.

    Example:
        >>> squeeze = Squeeze((1, 2, 4))
        >>> x = torch.tensor([[[[11.0, 12.0, 13.0, 14.0], [21.0, 22.0, 23.0, 24.0]]]])
        >>> squeeze(x)[0].tolist()
        [[[[11.0, 13.0]], [[12.0, 14.0]], [[21.0, 23.0]], [[22.0, 24.0]]]]

    Source: Dinh, Sohl-Dickstein and Bengio (2017), section 3.6.
    """

    context_dim = 0
    event_shape: torch.Size
    latent_shape: torch.Size

    def __init__(self, event_shape: Sequence[int]) -> None:
        super().__init__()
        c, h, w = self.event_shape = _as_image_shape("Squeeze", event_shape, divisor=2)
        self.latent_shape = torch.Size([4 * c, h // 2, w // 2])

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        c, h, w = self.event_shape
        z = x.reshape(-1, c, h // 2, 2, w // 2, 2).permute(0, 3, 5, 1, 2, 4)
        return z.reshape(-1, *self.latent_shape), x.new_zeros(x.shape[0])

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        c, h, w = self.event_shape
        x = z.reshape(-1, 2, 2, c, h // 2, w // 2).permute(0, 3, 4, 1, 5, 2)
        return x.reshape(-1, *self.event_shape), z.new_zeros(z.shape[0])


class Flatten(Bijection):
    """An array as a vector, ``(C, H, W)`` to ``(C * H * W,)``: where a picture's latent ends.

    Example:
        >>> Flatten((3, 2, 2))(torch.zeros(5, 3, 2, 2))[0].shape
        torch.Size([5, 12])
    """

    context_dim = 0
    event_shape: torch.Size
    latent_shape: torch.Size

    def __init__(self, event_shape: Sequence[int]) -> None:
        super().__init__()
        self.event_shape = as_event_shape(event_shape)
        self.latent_shape = torch.Size([math.prod(self.event_shape)])

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return x.reshape(-1, *self.latent_shape), x.new_zeros(x.shape[0])

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return z.reshape(-1, *self.event_shape), z.new_zeros(z.shape[0])


class FactorOut(Bijection):
    """Half of the channels leave for the latent, and only the first half goes on.

    The latent is a vector: first what leaves here, then what ``rest`` makes of the others. With
    another :class:`FactorOut` at the end of ``rest`` there are several scales.

    Args:
        event_shape: ``(C, H, W)``, with at least two channels; of an odd number the larger part
            goes on.
        rest: a bijection from ``(C - C // 2, H, W)`` to vectors, such as one that ends in
            :class:`Flatten`.

    Raises:
        ValueError: if there is one channel only, or ``rest`` does not map ``(C - C // 2, H, W)`` to
            vectors of as many numbers.

    Example:
        >>> layer = FactorOut((4, 1, 1), Flatten((2, 1, 1)))
        >>> layer(torch.tensor([1.0, 2.0, 3.0, 4.0]).reshape(1, 4, 1, 1))[0].tolist()
        [[3.0, 4.0, 1.0, 2.0]]

    Source: Dinh, Sohl-Dickstein and Bengio (2017), section 3.6, eqs. 13 to 16.
    """

    event_shape: torch.Size
    latent_shape: torch.Size

    def __init__(self, event_shape: Sequence[int], rest: Bijection) -> None:
        super().__init__()
        c, h, w = self.event_shape = _as_image_shape("FactorOut", event_shape)
        if c < 2:
            raise ValueError(f"FactorOut: expected at least 2 channels, got {c}")
        if not isinstance(rest, Bijection):
            raise TypeError(f"FactorOut: expected rest to be a Bijection, got {type(rest)}")
        self.rest = rest
        self.context_dim = rest.context_dim
        self.leaving, self.going_on = c // 2, c - c // 2
        self.latent_shape = torch.Size([c * h * w])
        made = rest.forward_shape(torch.Size([self.going_on, h, w]))
        if made != (self.going_on * h * w,):
            raise ValueError(
                f"FactorOut: expected rest to make vectors of {self.going_on * h * w} numbers, got "
                f"shape {tuple(made)}"
            )

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        going_on, leaving = x.split([self.going_on, self.leaving], 1)
        z, log_det = self.rest.after(going_on, context)
        return torch.cat([leaving.flatten(1), z], 1), log_det

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        _, h, w = self.event_shape
        n = self.leaving * h * w
        going_on, log_det = self.rest.after_inverse(z[:, n:], context)
        leaving = z[:, :n].reshape(-1, self.leaving, h, w)
        return torch.cat([going_on, leaving], 1), log_det

    def initialize(self, x: Tensor, context: Tensor | None = None) -> None:
        self.rest.initialize(x[:, : self.going_on], context)

    def initialize_inverse(self, z: Tensor, context: Tensor | None = None) -> None:
        _, h, w = self.event_shape
        self.rest.initialize_inverse(z[:, self.leaving * h * w :], context)


# --- levels of grey ---------------------------------------------------------------------------


class Dequantize(Elementwise):
    r"""Pixels with ``levels`` values to the unit interval: ``z = (level + u) / levels``.

    A density on whole numbers could be infinite at each of them. With uniform noise ``u`` they
    fill ``[0, levels)``, and then a density bounds their probability,

    .. math:: \mathbb E_{u \sim U(0, 1)} \log p(x + u) \le \log \int_0^1 p(x + u)\, \mathrm d u
        = \log P(x).

    The map takes a level and its noise as their sum, which loses neither. The noise is drawn by
    :meth:`noisy`, anew for each step of a training.

    Args:
        levels: how many values a pixel can take, such as 256.

    Raises:
        ValueError: if there are fewer than 2 levels.

    Example:
        >>> to_unit = Dequantize(256)
        >>> pixels = torch.tensor([[0, 255]], dtype=torch.uint8)
        >>> x, log_det = to_unit(to_unit.noisy(pixels))
        >>> to_unit.levels_of(x).tolist(), round(log_det.item() / math.log(256), 5)
        ([[0, 255]], -2.0)

    Source: Theis, van den Oord and Bethge (2016), section 3.1.
    """

    def __init__(self, levels: int = 256) -> None:
        super().__init__()
        self.levels = as_count("Dequantize", "number of levels", levels, 2)

    def noisy(
        self,
        pixels: Tensor,
        generator: torch.Generator | None = None,
        dtype: torch.dtype | None = None,
    ) -> Tensor:
        """Levels with noise, ``level + u``, of the shape of ``pixels``.

        Args:
            pixels: whole numbers from 0 to ``levels - 1``, of any type.
            generator: the source of the noise; by default torch's own.
            dtype: of the result; by default torch's default.

        Raises:
            TypeError: if ``pixels`` is not a tensor.
            ValueError: if a value is not such a number, or the dtype is too coarse for levels and
                noise.
        """
        require_tensor("Dequantize", "pixels", pixels)
        dtype = dtype or torch.get_default_dtype()
        # Rounding may lift a sum to the next level, which the noise therefore keeps away from.
        edge = 2 * self.levels * torch.finfo(dtype).eps
        if edge > 0.1:
            raise ValueError(
                f"Dequantize: {dtype} is too coarse for {self.levels} levels and noise"
            )
        self._require_levels(pixels)

        def draw(rows: int) -> Tensor:
            shape = (rows, *pixels.shape[1:])
            return torch.rand(shape, generator=generator, dtype=dtype, device=pixels.device)

        u = drawn(len(pixels), draw) if pixels.dim() else draw(1)[0]
        return pixels.to(dtype) + torch.lerp(u.new_tensor(edge), u.new_tensor(1 - edge), u)

    def _require_levels(self, pixels: Tensor) -> None:
        """Raise ``ValueError`` unless the values are whole numbers from 0 to ``levels - 1``."""
        if not pixels.numel():
            return
        whole = not pixels.is_floating_point() or (pixels == pixels.floor()).all()
        found = seen(torch.stack([*pixels.aminmax(), torch.as_tensor(whole).to(pixels)]))
        if found is not None and not (found[0] >= 0 and found[1] < self.levels and found[2]):
            also = "" if found[2] else ", not all of them whole"
            raise ValueError(
                f"Dequantize: expected pixels as whole numbers from 0 to {self.levels - 1}, "
                f"got values from {found[0]:g} to {found[1]:g}{also}"
            )

    def levels_of(self, z: Tensor) -> Tensor:
        """The levels, whole numbers, of draws from the unit interval; what left it is cut off."""
        return (z * self.levels).floor().clamp(0, self.levels - 1).long()

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        if not x.is_floating_point():
            raise ValueError(
                f"Dequantize: expected levels with noise, got {x.dtype}; noisy() adds the noise"
            )
        return x / self.levels, self._log_det(x)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return z * self.levels, -self._log_det(z)

    def _log_det(self, x: Tensor) -> Tensor:
        dims = math.prod(x.shape[1:])
        return x.new_full((x.shape[0],), -dims * math.log(self.levels))


# --- the flow ---------------------------------------------------------------------------------


class ImageRealNVP(Flow):
    """RealNVP on pictures with values from the unit interval.

    The stack is the paper's: at each scale three couplings on a checkerboard, a squeeze, and three
    couplings on halves of the channels; then half of the channels leave. The last scale is four
    couplings on a checkerboard. The latent is a vector of ``C * H * W`` numbers; first comes what
    left first.

    Unlike the paper, an :class:`ActNorm` before each coupling stands for its batch
    normalization, the conditioners are of one width at all scales and have none inside, and what
    leaves are the last channels of the squeeze, not a checkerboard of pixels. A :class:`Logit`
    stands before them all. In float32 draws whose latents are far out (beyond 16 where the logit
    ends) may land on the interval's edge and not come back.

    Args:
        event_shape: ``(C, H, W)``, channels first. ``H`` and ``W`` are divided by 2 at each scale
            but the last.
        n_scales: how many scales, 1 for the four couplings alone; by default as many as leave
            a last scale of 4×4 pixels or more.
        hidden: the channels of the conditioners' hidden layers.
        n_blocks: the residual blocks of each conditioner.
        context_dim: the size of the context, 0 if it takes no context.
        alpha: the margin of the logit.

    Raises:
        ValueError: if the shape is not that of a picture, or cannot be halved so often.

    Example:
        >>> flow = ImageRealNVP((1, 8, 8), hidden=8)
        >>> flow.log_prob(torch.rand(5, 1, 8, 8)).shape, flow.sample(2).shape
        (torch.Size([5]), torch.Size([2, 1, 8, 8]))

    Source: Dinh, Sohl-Dickstein and Bengio (2017), sections 3.4 to 3.6 and 4.1.
    """

    def __init__(
        self,
        event_shape: Sequence[int],
        n_scales: int | None = None,
        hidden: int = 32,
        *,
        n_blocks: int = 1,
        context_dim: int = 0,
        alpha: float = 0.05,
    ) -> None:
        shape = _as_image_shape("ImageRealNVP", event_shape)
        c, h, w = shape
        if w in (1, 3) and min(c, h) >= 8:
            raise ValueError(
                f"ImageRealNVP: {tuple(shape)} looks like a picture with its channels last; "
                f"expected (C, H, W), such as {(w, c, h)}, and data to match: x.movedim(-1, -3)"
            )
        n_scales = _scales_that_fit(shape) if n_scales is None else n_scales
        n_scales = as_count("ImageRealNVP", "n_scales", n_scales, 1)
        context_dim = as_count("ImageRealNVP", "context_dim", context_dim, 0)
        if h * w < 2 * 4 ** (n_scales - 1):
            raise ValueError(
                f"ImageRealNVP: the last of {n_scales} scales of {tuple(shape)} has less than two "
                "pixels, which a checkerboard needs"
            )
        shape = _as_image_shape("ImageRealNVP", event_shape, 2 ** (n_scales - 1))

        def conditioner(reads: int, moves: int) -> ConvNet:
            return ConvNet(reads + context_dim, hidden, Affine.n_params * moves, n_blocks)

        scales = _scales(shape, n_scales, conditioner)
        super().__init__(
            Compose([Logit(alpha), *scales]),
            StandardNormal(math.prod(shape)),
            shape,
            context_dim=context_dim,
        )
        self.alpha = alpha

    def check_values(self, where: str, name: str, x: Tensor) -> None:
        hint = (
            ", the unit interval and its margin; of whole levels 0, 1, ... Dequantize makes such "
            "pixels"
        )
        if not x.is_floating_point():
            raise ValueError(f"{where}: expected {name} with pixels as floats, got {x.dtype}{hint}")
        if self.bijection.domain is not None:
            require_inside(where, f"{name} with pixels", x, self.bijection.domain, hint)


def _scales(
    shape: torch.Size, n_scales: int, conditioner: Callable[[int, int], nn.Module]
) -> Iterator[Bijection]:
    """The layers from a picture of that shape to its latent."""
    c, h, w = shape
    for i in range(4 if n_scales == 1 else 3):
        mask = checkerboard_mask(shape, i % 2)
        yield ActNorm(shape)
        yield MaskedCoupling(mask, conditioner(c, c), Affine(c))
    if n_scales == 1:
        yield Flatten(shape)
        return
    yield Squeeze(shape)
    squeezed = (4 * c, h // 2, w // 2)
    for i in range(3):
        yield ActNorm(squeezed)
        mask = half_mask(4 * c, second=i % 2 == 1)
        yield Coupling(mask, conditioner(2 * c, 2 * c), Affine(2 * c), squeezed[1:])
    rest = _scales(torch.Size([2 * c, h // 2, w // 2]), n_scales - 1, conditioner)
    yield FactorOut(squeezed, Compose(rest))


def _scales_that_fit(shape: torch.Size) -> int:
    """As many as leave sides of 4 pixels or more to the last one."""
    n_scales, sides = 1, list(shape[1:])
    while all(side % 2 == 0 and side >= 8 for side in sides):
        n_scales, sides = n_scales + 1, [side // 2 for side in sides]
    return n_scales


def _as_image_shape(where: str, event_shape: Sequence[int], divisor: int = 1) -> torch.Size:
    """``(C, H, W)`` with sides that can be divided; ``ValueError`` for others."""
    shape = as_event_shape(event_shape)
    if len(shape) != 3 or shape[1] % divisor or shape[2] % divisor:
        sides = f", and sides that {divisor} divides" if divisor > 1 else ""
        raise ValueError(f"{where}: expected (C, H, W), channels first{sides}, got {tuple(shape)}")
    return shape
