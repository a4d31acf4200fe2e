"""Chapter 1's second explorer: what forward and reverse KL ask of one Gaussian."""

from __future__ import annotations

import math

import numpy as np
import traitlets

from flowlib.plotting import DATA, GREY, INK, PAPER, THIRD
from flowlib.widgets.base import Explorer

__all__ = ["KLExplorer"]

MEANS = (-4.5, 4.5)
BUMP_SDS = (0.3, 3.0)
Q_SDS = (0.3, 6.0)  # wide enough for the moments of every p that can be set


class KLExplorer(Explorer):
    """One Gaussian ``q`` that is asked to be two bumps ``p``.

    The data density is ``p(x) = w N(x; a, sa²) + (1 - w) N(x; b, sb²)``, the model is
    ``q(x) = N(x; m, s²)``; all three Gaussians are taken by their peaks. Below them stand the
    integrands of ``KL(p‖q)`` and ``KL(q‖p)`` and, for every ``m`` and ``s``, the landscape of
    either divergence, which ``q`` can slide down.

    Attributes:
        bumps: ``[[a, sa], [b, sb]]``, means within ±4.5, standard deviations from 0.3 to 3.
        weight: ``w``, the first bump's share of the data, from 0.05 to 0.95.
        q: ``[m, s]``, the mean within ±4.5, the standard deviation from 0.3 to 6.

    Raises:
        traitlets.TraitError: if a trait has another shape, or a number outside of its range.

    Example:
        >>> KLExplorer(q=[2, 1])
        KLExplorer(q=[2.0, 1.0])

    Source:
        Papamakarios et al. (2021), *Normalizing Flows for Probabilistic Modeling and Inference*,
        section 2.3.
    """

    script = "kl.js"
    caption = (
        "Two bumps of data, p, filled, and one Gaussian, q, a line, which cannot be both of them: "
        "forward KL charges for data that q leaves out, reverse KL for q where there are no data."
    )
    bumps = traitlets.List(default_value=[[-2.5, 0.6], [2.5, 0.6]]).tag(sync=True)
    weight = traitlets.Float(0.5).tag(sync=True)
    q = traitlets.List(default_value=[0.5, 1.0]).tag(sync=True)

    @traitlets.validate("bumps", "q")
    def _gaussians(self, proposal):
        name = proposal.trait.name
        shape, sds = {"bumps": ((2, 2), BUMP_SDS), "q": ((2,), Q_SDS)}[name]
        try:
            value = np.asarray(proposal.value, dtype=float)
        except (TypeError, ValueError) as error:
            raise traitlets.TraitError(f"{name}: {error}") from error
        if value.shape != shape or not np.isfinite(value).all():
            raise traitlets.TraitError(
                f"{name}: expected finite numbers of shape {shape}, got {proposal.value}"
            )
        for what, numbers, (low, high) in (
            ("means", value[..., 0], MEANS),
            ("standard deviations", value[..., 1], sds),
        ):
            if (numbers < low).any() or (numbers > high).any():
                raise traitlets.TraitError(
                    f"{name}: expected {what} from {low} to {high}, got {proposal.value}"
                )
        return value.tolist()

    @traitlets.validate("weight")
    def _share(self, proposal):
        if not 0.05 <= proposal.value <= 0.95:
            raise traitlets.TraitError(
                f"weight: expected a number from 0.05 to 0.95, got {proposal.value}"
            )
        return proposal.value

    def __repr__(self) -> str:
        return f"KLExplorer(q={self.q})"

    def still(self) -> str:
        """The two densities as they are before anything is moved."""
        x = np.linspace(-6, 6, 301)
        shares = (self.weight, 1 - self.weight)
        bumps = list(zip(shares, self.bumps, strict=True))
        p, q = sum(w * _normal(x, *bump) for w, bump in bumps), _normal(x, *self.q)
        high = max(0.64, 1.12 * p.max(), 1.12 * q.max())

        def at(u, v):
            return f"{20 + (u + 6) * 50:.1f} {270 - v / high * 220:.1f}"

        def path(y):
            return "M" + "L".join(at(u, v) for u, v in zip(x, y, strict=True))

        def peak(w, m, s, color):
            return f'<path d="M{at(m, w * _normal(m, m, s))}h0" stroke="{color}"/>'

        ticks = "".join(
            f'<text x="{20 + (v + 6) * 50}" y="294">{v}</text>'.replace(">-", ">−")
            for v in range(-4, 5, 2)
        )
        peaks = "".join(peak(w, *bump, DATA) for w, bump in bumps) + peak(1, *self.q, THIRD)
        return (
            '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 640 310" '
            'font-family="sans-serif">'
            f'<rect width="640" height="310" fill="{PAPER}"/>'
            f'<circle cx="28" cy="21" r="5" fill="{DATA}"/>'
            f'<circle cx="150" cy="21" r="5" fill="{THIRD}"/>'
            f'<g font-size="15" fill="{INK}"><text x="40" y="26">data p(x)</text>'
            f'<text x="162" y="26">Gaussian q(x)</text></g>'
            f'<path d="M20 270H620" stroke="{GREY}"/>'
            f'<g font-size="14" fill="{INK}" text-anchor="middle">{ticks}</g>'
            f'<path d="{path(p)}Z" fill="{DATA}" fill-opacity="0.3" stroke="{DATA}" '
            'stroke-width="1.8"/>'
            f'<path d="{path(q)}" fill="none" stroke="{THIRD}" stroke-width="2.8"/>'
            f'<g stroke-width="14" stroke-linecap="round">{peaks}</g></svg>'
        )


def _normal(x, m, s):
    return np.exp(-0.5 * ((x - m) / s) ** 2) / (s * math.sqrt(2 * math.pi))
