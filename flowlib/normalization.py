"""Normalization between the layers of a flow: affine maps that start from data."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from flowlib.arguments import as_event_shape
from flowlib.flow import Elementwise
from flowlib.shares import present, summed
from flowlib.units import deviation_and_mean

__all__ = ["ActNorm", "BatchNorm"]


class _ChannelAffine(Elementwise):
    """A shift and a log-scale for each coordinate of a vector, or for each channel of an image."""

    def __init__(self, event_shape: int | Sequence[int]) -> None:
        super().__init__()
        self.event_shape = as_event_shape(event_shape)
        self.channels = torch.Size((self.event_shape[0], *(1 for _ in self.event_shape[1:])))
        self.shift = nn.Parameter(torch.zeros(self.channels))
        self.log_scale = nn.Parameter(torch.zeros(self.channels))

    def _log_det(self, log_slope: Tensor, x: Tensor) -> Tensor:
        total = log_slope.sum()
        if x.dim() > 2:
            total = math.prod(x.shape[2:]) * total
        return total.expand(x.shape[0])

    def _has_deviations(self, x: Tensor) -> bool:
        """Whether there is more than one value for each channel."""
        return x.numel() > x.shape[1]


def _others(x: Tensor) -> list[int]:
    """All dimensions but that of the channels."""
    return [d for d in range(x.dim()) if d != 1]


class ActNorm(_ChannelAffine):
    r"""A shift and a scale for each coordinate (or channel), started from a batch of data.

    :meth:`Flow.initialize` sets them so that this batch leaves with mean 0 and deviation 1; from
    then on they are weights like any others. Before, it is the identity, and only the identity
    is ever started: weights that were trained or loaded stay as they are.

    The batch's mean stays apart from the weights and is subtracted first,

    .. math:: z = (x - \mu) \odot e^{s} + t,

    so that a small step of the scale moves :math:`z` by little, however far the data are from 0
    compared with their spread. In :math:`x \odot e^{s} + t` it moves :math:`z` by
    :math:`|\mu| / \sigma` times that step, which for positions inside a building is some 100,000.

    Args:
        event_shape: the shape of one data point; of an image, channels first.

    Attributes:
        loc: the mean :math:`\mu` of the first batch, a buffer.

    Example:
        >>> norm = ActNorm(2)
        >>> x = torch.randn(100, 2) * 5 + 3
        >>> norm.initialize(x)
        >>> z, _ = norm(x)
        >>> bool(z.mean(0).abs().max() < 1e-5), bool((z.std(0) - 1).abs().max() < 1e-2)
        (True, True)

    Source: Kingma and Dhariwal (2018), section 3.1.
    """

    # Of a map that starts in the other direction the data are at the side of z. Then their mean is
    # `latent_loc`, and the shift is counted in their deviation, `latent_unit`.
    loc: Tensor
    latent_loc: Tensor
    latent_unit: Tensor

    def __init__(self, event_shape: int | Sequence[int]) -> None:
        super().__init__(event_shape)
        self.register_buffer("loc", torch.zeros(self.channels))
        self.register_buffer("latent_loc", torch.zeros(self.channels))
        self.register_buffer("latent_unit", torch.ones(self.channels))

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        offset = self.shift * self.latent_unit + self.latent_loc
        z = (x - self.loc) * self.log_scale.exp() + offset
        return z, self._log_det(self.log_scale, x)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        moved = (z - self.latent_loc) - self.shift * self.latent_unit
        return moved * (-self.log_scale).exp() + self.loc, -self._log_det(self.log_scale, z)

    @torch.no_grad()
    def initialize(self, x: Tensor, context: Tensor | None = None) -> None:
        self.forward_shape(x.shape[1:])
        if self._is_fresh(x):
            mean, log_deviation = self._measure(x)
            self.loc.copy_(mean)
            self.log_scale.copy_(-log_deviation)

    @torch.no_grad()
    def initialize_inverse(self, z: Tensor, context: Tensor | None = None) -> None:
        self.inverse_shape(z.shape[1:])
        if self._is_fresh(z):
            mean, log_deviation = self._measure(z)
            self.latent_loc.copy_(mean)
            self.latent_unit.copy_(log_deviation.exp())
            self.log_scale.copy_(log_deviation)

    def _is_fresh(self, x: Tensor) -> bool:
        parts = (self.shift, self.log_scale, self.loc, self.latent_loc)
        is_identity = not any(part.any() for part in parts)
        return is_identity and self._has_deviations(x)

    def _measure(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The mean of each channel and the logarithm of its deviation."""
        deviation, mean = deviation_and_mean(x, _others(x))
        # A coordinate that never changes is only moved; what scale it has, nobody can tell.
        return mean[0], torch.where(deviation > 0, deviation.log(), 0.0)[0]


class BatchNorm(_ChannelAffine):
    r"""Batch normalization as a bijection, of each coordinate or channel.

    In evaluation the running mean and variance make it an affine map like any other. In training
    the batch's own are used, with their gradient; if several processes share the batch, those of
    the whole. Then the map of a whole batch is not a bijection: rows depend on one another and the
    batch's mean is lost, so :meth:`inverse` refuses.

    .. math:: \log|\det| = H W \sum_c \left(\gamma_c - \tfrac12 \log(\sigma_c^2 + \epsilon)\right)

    Args:
        event_shape: the shape of one data point; of an image, channels first.
        momentum: the share of a new batch in the running statistics.
        epsilon: added to the variance.

    Raises:
        ValueError: in training, on a batch with a single value for a channel.
        RuntimeError: from :meth:`inverse` in training.

    Example:
        >>> norm = BatchNorm(2)
        >>> z, _ = norm(torch.randn(50, 2) + 7)
        >>> bool(z.mean(0).abs().max() < 1e-5)
        True

    Source: Dinh, Sohl-Dickstein and Bengio (2017), section 3.7 and appendix E.
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(
        self,
        event_shape: int | Sequence[int],
        momentum: float = 0.1,
        epsilon: float = 1e-5,
    ) -> None:
        super().__init__(event_shape)
        if not 0 < momentum <= 1 or not epsilon > 0:
            raise ValueError(
                "BatchNorm: expected momentum in (0, 1] and a positive epsilon, "
                f"got {momentum} and {epsilon}"
            )
        self.momentum, self.epsilon = momentum, epsilon
        self.register_buffer("running_mean", torch.zeros(self.channels))
        self.register_buffer("running_var", torch.ones(self.channels))

    @torch.no_grad()
    def initialize(self, x: Tensor, context: Tensor | None = None) -> None:
        """Take the running statistics from a batch, unless they have been set before.

        Without this start the first hundred steps are lost. Where the batch's variance is small
        beside epsilon, the scale makes up for it: the batch leaves with deviation 1.
        """
        self.forward_shape(x.shape[1:])
        fresh = not self.running_mean.any() and bool((self.running_var == 1).all())
        if fresh and self._has_deviations(x):
            var, mean = self._measure(x)
            self.running_mean.copy_(mean)
            self.running_var.copy_(var)
            if not self.log_scale.any():
                scale = 0.5 * ((var + self.epsilon) / var).log()
                self.log_scale.copy_(torch.where(var > 0, scale, 0.0))

    def _measure(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The variance and the mean of each channel; the variance is the biased one everywhere."""
        var, mean = torch.var_mean(x, _others(x), correction=0, keepdim=True)
        return var[0], mean[0]

    def _measure_together(self, x: Tensor, rows: int) -> tuple[Tensor, Tensor]:
        """The same of all rows that processes share; each gets the whole gradient."""
        count, others = rows * math.prod(x.shape[2:]), _others(x)
        mean = summed(x.sum(others)).reshape(self.channels) / count
        var = summed((x - mean).square().sum(others)).reshape(self.channels) / count
        return var, mean

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        if self.training:
            share = present()
            together = share is not None and share.together and share.rows == len(x)
            rows = share.whole if share is not None and together else len(x)
            if rows * math.prod(x.shape[2:]) < 2:
                raise ValueError(
                    "BatchNorm: in training the batch's variance is needed, and a batch of shape "
                    f"{tuple(x.shape)} has at most one value for each channel; use eval()"
                )
            var, mean = self._measure_together(x, rows) if together else self._measure(x)
            with torch.no_grad():
                self.running_mean.lerp_(mean, self.momentum)
                self.running_var.lerp_(var, self.momentum)
        else:
            var, mean = self.running_var, self.running_mean
        log_slope = self.log_scale - 0.5 * (var + self.epsilon).log()
        return (x - mean) * log_slope.exp() + self.shift, self._log_det(log_slope, x)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        if self.training:
            raise RuntimeError(
                "BatchNorm: with a batch's own statistics the map has no inverse; call eval() "
                "first, or use ActNorm where a flow is trained by its own samples"
            )
        log_slope = self.log_scale - 0.5 * (self.running_var + self.epsilon).log()
        x = (z - self.shift) * (-log_slope).exp() + self.running_mean
        return x, -self._log_det(log_slope, z)
