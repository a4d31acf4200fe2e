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

from flowlib.coupling import ActNorm, Affine, Coupling, beside, half_mask, require_params
from flowlib.flow import (
    Bijection,
    Compose,
    Flow,
    Logit,
    StandardNormal,
    as_event_shape,
    as_ints,
    require_event,
    sum_event,
    values_are_visible,
)
from flowlib.nn import ConvNet

__all__ = [
    "Dequantize",
    "FactorOut",
    "Flatten",
    "ImageRealNVP",
    "MaskedCoupling",
    "Squeeze",
    "checkerboard_mask",
]


# --- who moves ------------------------------------------------------------------------------


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


class MaskedCoupling(Bijection):
    r"""A coupling layer with any mask on an array of any shape.

    The conditioner reads the whole array, with zeros where values move, so that a convolution sees
    what was kept at its place. It also writes numbers for all of them, and half of its work is
    thrown away: :class:`Coupling` is cheaper where whole channels are kept.

    .. math:: z = b \odot x + (1 - b) \odot \big(x \odot e^{s(b \odot x)} + t(b \odot x)\big)

    Args:
        mask: bool, of the shape of one event: what is kept. Some must be, and some must not.
        conditioner: a module from ``(batch, *event)``, with a context's numbers as further
            channels, to ``(batch, n_params * C, ...)``, all first parameters first.
        transformer: such as ``Affine(C)``.

    Raises:
        ValueError: if the mask is not as above, or, when it is used, the conditioner makes another
            number of parameters.

    Example:
        >>> mask = checkerboard_mask((1, 4, 4))
        >>> layer = MaskedCoupling(mask, ConvNet(1, 8, 2), Affine(1))
        >>> z, log_det = layer(torch.randn(5, 1, 4, 4))
        >>> z.shape, log_det.shape
        (torch.Size([5, 1, 4, 4]), torch.Size([5]))

    Source: Dinh, Sohl-Dickstein and Bengio (2017), section 3.4, eq. 9.
    """

    def __init__(self, mask: Tensor, conditioner: nn.Module, transformer: nn.Module) -> None:
        super().__init__()
        mask = torch.as_tensor(mask)
        if mask.dim() < 1 or mask.dtype != torch.bool or mask.all() or not mask.any():
            raise ValueError(
                "MaskedCoupling: expected a mask of bools of an event's shape, some True (kept) "
                f"and some False (moved), got {mask.dtype} of shape {tuple(mask.shape)} with "
                f"{int(mask.sum())} of {mask.numel()} kept"
            )
        # a copy, since the caller's may change; as numbers, since bools cannot be averaged
        self.register_buffer("kept", mask.to(torch.uint8, copy=True), persistent=False)
        self.event_shape = torch.Size(mask.shape)
        self.conditioner = conditioner
        self.transformer = transformer

    @property
    def mask(self) -> Tensor:
        """Bool, of the shape of one event: what is kept."""
        return self.kept.bool()

    def get_extra_state(self) -> Tensor:
        """The mask, saved with the weights, which are of no use under another one."""
        return self.mask

    def set_extra_state(self, mask: Tensor) -> None:
        mask = mask.to(self.kept.device, torch.bool)  # casting a whole state may have changed it
        if mask.shape != self.event_shape or mask.all() or not mask.any():
            raise ValueError(
                f"MaskedCoupling: expected a saved mask of shape {tuple(self.event_shape)}, some "
                f"kept and some moved, got shape {tuple(mask.shape)} with {int(mask.sum())} kept"
            )
        self.kept = mask.to(torch.uint8, copy=True)

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._move(self.transformer.forward, x, context)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._move(self.transformer.inverse, z, context)

    def _move(self, transform, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        require_event("MaskedCoupling", x, self.event_shape)
        mask = self.mask
        params = self.conditioner(beside(x.masked_fill(~mask, 0.0), context))
        require_params("MaskedCoupling", params, self.transformer.n_params, x)
        # Zeros where nothing moves: what is thrown away must not overflow either.
        params = params.unflatten(1, (self.transformer.n_params, -1)).masked_fill(mask, 0.0)
        moved, log_slope = transform(x, params.flatten(1, 2))
        return torch.where(mask, x, moved), sum_event(log_slope.masked_fill(mask, 0.0))


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

    def __init__(self, event_shape: Sequence[int]) -> None:
        super().__init__()
        c, h, w = self.event_shape = _as_image_shape("Squeeze", event_shape, divisor=2)
        self.latent_shape = torch.Size([4 * c, h // 2, w // 2])

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        require_event("Squeeze", x, self.event_shape)
        c, h, w = self.event_shape
        z = x.reshape(-1, c, h // 2, 2, w // 2, 2).permute(0, 3, 5, 1, 2, 4)
        return z.reshape(-1, *self.latent_shape), x.new_zeros(x.shape[0])

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        require_event("Squeeze", z, self.latent_shape)
        c, h, w = self.event_shape
        x = z.reshape(-1, 2, 2, c, h // 2, w // 2).permute(0, 3, 4, 1, 5, 2)
        return x.reshape(-1, *self.event_shape), z.new_zeros(z.shape[0])


class Flatten(Bijection):
    """An array as a vector, ``(C, H, W)`` to ``(C * H * W,)``: where a picture's latent ends.

    Example:
        >>> Flatten((3, 2, 2))(torch.zeros(5, 3, 2, 2))[0].shape
        torch.Size([5, 12])
    """

    def __init__(self, event_shape: Sequence[int]) -> None:
        super().__init__()
        self.event_shape = as_event_shape(event_shape)
        self.latent_shape = torch.Size([math.prod(self.event_shape)])

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        require_event("Flatten", x, self.event_shape)
        return x.reshape(-1, *self.latent_shape), x.new_zeros(x.shape[0])

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        require_event("Flatten", z, self.latent_shape)
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
        ValueError: if there is one channel only, or, when it is used, ``rest`` makes no vectors of
            as many numbers.

    Example:
        >>> layer = FactorOut((4, 1, 1), Flatten((2, 1, 1)))
        >>> layer(torch.tensor([1.0, 2.0, 3.0, 4.0]).reshape(1, 4, 1, 1))[0].tolist()
        [[3.0, 4.0, 1.0, 2.0]]

    Source: Dinh, Sohl-Dickstein and Bengio (2017), section 3.6, eqs. 13 to 16.
    """

    def __init__(self, event_shape: Sequence[int], rest: Bijection) -> None:
        super().__init__()
        c, h, w = self.event_shape = _as_image_shape("FactorOut", event_shape)
        if c < 2:
            raise ValueError(f"FactorOut: expected at least 2 channels, got {c}")
        if not isinstance(rest, Bijection):
            raise TypeError(f"FactorOut: expected rest to be a Bijection, got {type(rest)}")
        self.rest = rest
        self.leaving, self.going_on = c // 2, c - c // 2
        self.latent_shape = torch.Size([c * h * w])

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        require_event("FactorOut", x, self.event_shape)
        going_on, leaving = x.split([self.going_on, self.leaving], 1)
        z, log_det = self.rest(going_on, context)
        require_event("FactorOut: rest", z, torch.Size([math.prod(going_on.shape[1:])]))
        return torch.cat([leaving.flatten(1), z], 1), log_det

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        require_event("FactorOut", z, self.latent_shape)
        _, h, w = self.event_shape
        n = self.leaving * h * w
        going_on, log_det = self.rest.inverse(z[:, n:], context)
        leaving = z[:, :n].reshape(-1, self.leaving, h, w)
        return torch.cat([going_on, leaving], 1), log_det

    def initialize(self, x: Tensor, context: Tensor | None = None) -> None:
        self.rest.initialize(x[:, : self.going_on], context)


# --- levels of grey ---------------------------------------------------------------------------


class Dequantize(Bijection):
    r"""Pixels with ``levels`` values to the unit interval: ``z = (level + u) / levels``.

    A density on whole numbers could be infinite at each of them. With uniform noise ``u`` they
    fill ``[0, levels)``, and then a density bounds their probability,

    .. math:: \mathbb E_{u \sim U(0, 1)} \log p(x + u) \le \log \int_0^1 p(x + u)\, \mathrm d u
        = \log P(x).

    The map takes a level and its noise as their sum, which loses neither. The noise is drawn by
    :meth:`noisy`, anew for each step of a training.

    Args:
        levels: how many values a pixel can take, such as 256.

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
        ints = as_ints(levels)
        if ints is None or len(ints) != 1 or ints[0] < 2:
            raise ValueError(f"Dequantize: expected at least 2 levels, got {levels!r}")
        self.levels = ints[0]

    def noisy(
        self,
        pixels: Tensor,
        generator: torch.Generator | None = None,
        dtype: torch.dtype | None = None,
    ) -> Tensor:
        """Levels with noise, ``level + u``, of the shape of ``pixels``.

        Args:
            pixels: whole numbers from 0 to ``levels - 1``, of any type.
            generator: the source of the noise, torch's own if there is none.
            dtype: of the result, torch's default if there is none.

        Raises:
            TypeError: if ``pixels`` is no tensor.
            ValueError: if a value is no such number, or the dtype too coarse for levels and noise.
        """
        if not isinstance(pixels, Tensor):
            raise TypeError(
                f"Dequantize: expected pixels as a torch.Tensor, got {type(pixels).__name__}"
            )
        dtype = dtype or torch.get_default_dtype()
        # Rounding may lift a sum to the next level, which the noise therefore keeps away from.
        edge = 2 * self.levels * torch.finfo(dtype).eps
        if edge > 0.1:
            raise ValueError(
                f"Dequantize: {dtype} is too coarse for {self.levels} levels and noise"
            )
        if values_are_visible(pixels) and pixels.numel():
            low, high = (v.item() for v in pixels.aminmax())
            whole = not pixels.is_floating_point() or bool((pixels == pixels.floor()).all())
            if not (low >= 0 and high < self.levels and whole):
                also = "" if whole else ", not all of them whole"
                raise ValueError(
                    f"Dequantize: expected pixels as whole numbers from 0 to {self.levels - 1}, "
                    f"got values from {low:g} to {high:g}{also}"
                )
        u = torch.rand(pixels.shape, generator=generator, dtype=dtype, device=pixels.device)
        return pixels.to(dtype) + torch.lerp(u.new_tensor(edge), u.new_tensor(1 - edge), u)

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

    Other than in the paper, an :class:`ActNorm` before each coupling stands for its batch
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
        context_dim: the size of the context, 0 for none.
        alpha: the margin of the logit.

    Raises:
        ValueError: if the shape is none of a picture, or cannot be halved so often.

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
        numbers = as_ints([n_scales, context_dim])
        if numbers is None or n_scales < 1 or context_dim < 0:
            raise ValueError(
                "ImageRealNVP: expected whole numbers n_scales from 1 and context_dim from 0, "
                f"got {n_scales} and {context_dim}"
            )
        if h * w < 2 * 4 ** (n_scales - 1):
            raise ValueError(
                f"ImageRealNVP: the last of {n_scales} scales of {tuple(shape)} has less than two "
                "pixels, which a checkerboard needs"
            )
        shape = _as_image_shape("ImageRealNVP", event_shape, 2 ** (n_scales - 1))

        def conditioner(reads: int, moves: int) -> ConvNet:
            return ConvNet(reads + context_dim, hidden, Affine.n_params * moves, n_blocks)

        scales = _scales(shape, n_scales, conditioner)
        super().__init__(Compose([Logit(alpha), *scales]), StandardNormal(math.prod(shape)), shape)
        self.context_dim = context_dim
        self.alpha = alpha

    def check_values(self, where: str, name: str, x: Tensor) -> None:
        super().check_values(where, name, x)
        margin = self.alpha / (1 - 2 * self.alpha)
        got = None
        if not x.is_floating_point():
            got = f"{x.dtype}"
        elif values_are_visible(x) and x.numel():
            low, high = (v.item() for v in x.aminmax())
            if not (-margin < low and high < 1 + margin):
                got = f"values from {low:g} to {high:g}"
        if got:
            raise ValueError(
                f"{where}: expected {name} with pixels strictly between {0 - margin:.4g} and "
                f"{1 + margin:.4g}, the unit interval and its margin, got {got}; of whole levels "
                "0, 1, ... Dequantize makes such pixels"
            )


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
    n_scales, sides = 1, shape[1:]
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
