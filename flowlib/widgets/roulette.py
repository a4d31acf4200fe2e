"""Chapter 6's explorer: an endless series that a coin ends, right on average, and what it costs."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import traitlets

from flowlib.plotting import GREY, INK, THIRD, WRONG
from flowlib.widgets.base import Explorer
from flowlib.widgets.completion import uniforms
from flowlib.widgets.stills import (
    circle,
    group,
    path,
    picture,
    polyline,
    rectangle,
    said,
    text,
    title,
)
from flowlib.widgets.traits import LARGEST_SEED, Number, Numbers, Whole

__all__ = ["RouletteExplorer"]

LARGEST = 0.98  # absolute value of an eigenvalue
LEAST_P, MOST_P = 0.02, 0.95
MOST_PROBES = 8
MOST_DRAWS = 2000
BASIS = [[1.0, 1.0], [0.5, 1.5]]  # of determinant 1
BACK = [[1.5, -1.0], [-0.5, 1.0]]  # its inverse
SIGNS = [[1, 1], [1, -1], [-1, 1], [-1, -1]]  # the four probes
SUMMED = 20_000  # remainders in the variance
BEYOND = 2000  # terms after them, in the last remainder
Array = npt.NDArray[np.float64]


class RouletteExplorer(Explorer):
    r"""The log-determinant of ``I + J`` by Russian roulette, for a matrix ``J`` of two dimensions.

    The reader moves the two eigenvalues of ``J``. The matrix itself is ``S B S^-1`` with ``S = [[1,
    1], [0.5, 1.5]]`` and ``B`` the diagonal matrix of real eigenvalues, or ``[[a, -b], [b, a]]`` of
    a pair ``a ± bi``. It is neither symmetric nor diagonal, so that probes have noise, too.

    An estimate has ``n = n_exact + N`` terms, where ``N`` is 1, 2, ... with probability
    ``p (1 - p)^(N - 1)``, and is the mean over the probes ``v`` of

    .. math:: \sum_{k=1}^n \frac{(-1)^{k+1}}{k} \frac{v^\top J^k v}{P(n \ge k)}

    It is compared with the series that always has ``round(n_exact + 1 / p)`` terms, as many as
    roulette has on average. That one is taken with exact traces, so that all of its error is bias.

    The variance is a sum. With :math:`r_m = \sum_{k \ge m} \frac{(-1)^{k+1}}{k} \operatorname{tr}
    J^k`, what is missing before term ``m``, and :math:`s_m`, the same sum of :math:`J^k_{12} +
    J^k_{21}`, in which probes differ, it is

    .. math:: \frac{s_1^2}{probes} + \sum_{m \ge n_{exact} + 2}
        \frac{p}{(1 - p)^{m - n_{exact} - 1}} \left(r_m^2 + \frac{s_m^2}{probes}\right)

    It is infinite where ``1 - p < rho^2``. Where both are equal it is still finite, since the terms
    of this series shrink faster than powers of ``rho``, by ``1 / k``. Of the sum the first
    20 000 terms are computed: next to this edge it is short by 0.2 % at most.

    Args:
        **traits: the attributes below.

    Attributes:
        eigenvalues: real and imaginary part of each, ``[[re, im], [re, im]]``: two real ones or a
            conjugate pair, of absolute value 0.98 or less.
        p: the probability to stop after a term, from 0.02 to 0.95.
        n_exact: how many terms are sure, from 0 to 10.
        probes: how many probes an estimate has, from 1 to 8. They share its number of terms.
        draws: how many estimates have been drawn, from 1 to 2000.
        seed: of the draws.
        view: what is shown beside the plane, ``"cost"``, cost times variance against ``p``, or
            ``"tail"``, the histogram of the draws.
        turn: which task is asked, 0 or 1.
        guess: what the reader expects to grow without end, ``"bias"``, ``"deviation"``, ``"both"``
            or ``""``.

    Raises:
        TypeError: if there is no such option.
        traitlets.TraitError: if an attribute is given a value that it cannot hold.

    Example:
        >>> RouletteExplorer(p=0.25)
        RouletteExplorer(eigenvalues=[[0.4, 0.0], [-0.2, 0.0]], p=0.25, n_exact=2, probes=1)
        >>> turning = RouletteExplorer(eigenvalues=[[0, 0.5], [0, -0.5]])
        >>> round(turning.exact, 4)  # log(1 + 0.5**2)
        0.2231

    Source: Chen et al. (2019), theorem 1; Kahn (1956) for the roulette.
    """

    script, shared = "roulette.js", ("line.js",)
    eigenvalues = Numbers(
        [[0.4, 0.0], [-0.2, 0.0]],
        shape=(2, 2),
        ranges=dict.fromkeys(("real parts", "imaginary parts"), (-LARGEST, LARGEST)),
    ).tag(sync=True)
    p = Number(0.5, low=LEAST_P, high=MOST_P).tag(sync=True)
    n_exact = Whole(2, low=0, high=10).tag(sync=True)
    probes = Whole(1, low=1, high=MOST_PROBES).tag(sync=True)
    draws = Whole(100, low=1, high=MOST_DRAWS).tag(sync=True)
    seed = Whole(0, low=0, high=LARGEST_SEED).tag(sync=True)
    view = traitlets.Enum(["cost", "tail"], default_value="cost").tag(sync=True)
    turn = Whole(0, low=0, high=1).tag(sync=True)
    guess = traitlets.Enum(["", "bias", "deviation", "both"], default_value="").tag(sync=True)

    @traitlets.validate("eigenvalues")
    def _check_eigenvalues(self, proposal: dict[str, Any]) -> list[list[float]]:
        pair: list[list[float]] = proposal["value"]
        (a, b), (c, d) = pair
        if not (b == d == 0 or (a == c and b == -d)):
            raise traitlets.TraitError(
                f"eigenvalues: expected two real ones or a conjugate pair, got {pair}"
            )
        if max(math.hypot(a, b), math.hypot(c, d)) > LARGEST + 1e-9:
            raise traitlets.TraitError(
                f"eigenvalues: expected absolute values of at most {LARGEST}, got {pair}"
            )
        return pair

    def __repr__(self) -> str:
        return (
            f"RouletteExplorer(eigenvalues={self.eigenvalues}, p={self.p}, "
            f"n_exact={self.n_exact}, probes={self.probes})"
        )

    # --- the matrix and its series ---

    def matrix(self) -> Array:
        """The matrix ``J``, ``(2, 2)``.

        Example:
            >>> RouletteExplorer(eigenvalues=[[0.5, 0], [0.25, 0]]).matrix()
            array([[ 0.625 , -0.25  ],
                   [ 0.1875,  0.125 ]])
        """
        (a, b), (c, _) = self.eigenvalues
        block = [[a, -b], [b, a]] if b else [[a, 0], [0, c]]
        made: Array = np.array(BASIS) @ np.array(block) @ np.array(BACK)
        return made

    @property
    def rho(self) -> float:
        """The spectral radius, the largest absolute value of the eigenvalues."""
        return max(math.hypot(*pair) for pair in self.eigenvalues)

    @property
    def exact(self) -> float:
        """The log-determinant of ``I + J``."""
        (a, b), (c, _) = self.eigenvalues
        return math.log((1 + a) ** 2 + b**2) if b else math.log((1 + a) * (1 + c))

    @property
    def n_terms(self) -> int:
        """How many terms the truncated series has: ``n_exact + 1 / p``, rounded, a half up."""
        return math.floor(self.n_exact + 1 / self.p + 0.5)

    def truncated(self) -> float:
        """The series of so many terms, with exact traces.

        Example:
            >>> fair = RouletteExplorer(eigenvalues=[[0.5, 0], [0, 0]], n_exact=0)
            >>> fair.n_terms, fair.truncated()  # 0.5 - 0.5**2 / 2
            (2, 0.375)
        """
        J, power, total = self.matrix(), np.eye(2), 0.0
        for k in range(1, self.n_terms + 1):
            power = power @ J
            total += (-1) ** (k + 1) / k * float(np.trace(power))
        return total

    # --- roulette ---

    def survival(self, k: int) -> float:
        """The probability that term ``k``, from 1, is computed.

        Example:
            >>> [RouletteExplorer(p=0.5, n_exact=2).survival(k) for k in (1, 3, 4, 5)]
            [1.0, 1.0, 0.5, 0.25]
        """
        survival: float = (1 - self.p) ** max(0, k - self.n_exact - 1)
        return survival

    @property
    def expected_products(self) -> float:
        """How many products with ``J`` an estimate takes on average."""
        return (self.n_exact + 1 / self.p) * self.probes

    def throw(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """The numbers of terms ``(draws,)``, and the probes ``(draws, probes, 2)``.

        Each draw has nine numbers of mulberry32, one for the coin and one for each probe that it
        might have. ``N`` is 1 and one more for each power of ``1 - p`` that is above the first one.

        Example:
            >>> n, v = RouletteExplorer(draws=3).throw()
            >>> bool(n.min() > 2), v.shape
            (True, (3, 1, 2))
        """
        u = uniforms(self.seed, self.draws, 1 + MOST_PROBES).numpy()
        powers = []
        power = 1 - self.p
        while power > 2.0**-33:  # half of the finest step of u
            powers.append(power)
            power *= 1 - self.p
        more = (u[:, :1] + 2.0**-33 < np.array(powers)).sum(1)
        which = np.floor(4 * u[:, 1 : 1 + self.probes]).astype(np.int64)
        return self.n_exact + 1 + more, np.array(SIGNS)[which]

    def estimates(self) -> Array:
        """The estimates of the log-determinant, ``(draws,)``.

        Example:
            >>> roulette = RouletteExplorer(p=0.9, draws=2000)
            >>> bool(abs(roulette.estimates().mean() - roulette.exact) < 0.02)
            True
        """
        n, v = self.throw()
        J, power, four = self.matrix(), np.eye(2), np.array(SIGNS)
        weighted = np.empty((int(n.max()), 4))  # of each term and each of the four probes
        for k in range(1, len(weighted) + 1):
            power = power @ J
            quadratic = np.einsum("vi,ij,vj->v", four, power, four)
            weighted[k - 1] = (-1) ** (k + 1) / k * quadratic / self.survival(k)
        sums = weighted.cumsum(0)
        which = (v[..., 0] < 0) * 2 + (v[..., 1] < 0)
        made: Array = sums[n[:, None] - 1, which].mean(1)
        return made

    @property
    def spent(self) -> int:
        """How many products with ``J`` the draws took."""
        return int(self.throw()[0].sum()) * self.probes

    def mean(self) -> tuple[float, float]:
        """The mean of the draws and its standard error, NaN of a single draw.

        Example:
            >>> [math.isnan(v) for v in RouletteExplorer(draws=1).mean()]
            [False, True]
        """
        x = self.estimates()
        error = x.std(ddof=1) / math.sqrt(len(x)) if len(x) > 1 else math.nan
        return float(x.mean()), float(error)

    def variance(self, p: float | None = None) -> float:
        """The variance of an estimate, exactly, or infinity.

        Args:
            p: another probability to stop than the present one.

        Example:
            >>> roulette = RouletteExplorer(eigenvalues=[[0.9, 0], [0.6, 0]])
            >>> roulette.variance(0.5), round(roulette.variance(0.1), 5)
            (inf, 0.00558)
        """
        return self._variance(self._remainders(), self.p if p is None else p)

    def price(self, p: float | None = None) -> float:
        """The expected products times the variance: the variance that one product buys.

        Args:
            p: another probability to stop than the present one.
        """
        p = self.p if p is None else p
        return (self.n_exact + 1 / p) * self.probes * self.variance(p)

    def cheapest(self) -> float:
        """The ``p``, to three decimals, of the least price for the present matrix and numbers.

        Example:
            >>> RouletteExplorer(eigenvalues=[[0.9, 0], [0.6, 0]]).cheapest()
            0.093
        """
        grid = np.arange(round(1000 * LEAST_P), round(1000 * MOST_P) + 1) / 1000
        squares = self._remainders()
        prices = [(self.n_exact + 1 / p) * self._variance(squares, p) for p in grid]
        return float(grid[int(np.argmin(prices))])

    def _remainders(self) -> Array:
        """What the variance adds up: ``(r_m² + s_m² / probes) / rho^(2 m)`` for ``m`` from 1."""
        # s_1² / probes stands at 0, as it is
        (a, b), (c, d) = self.eigenvalues
        if not self.rho:
            return np.zeros(SUMMED + 1)
        S, S_inverse = np.array(BASIS), np.array(BACK)
        if b:
            half = S @ np.array([[0.5, 0.5j], [-0.5j, 0.5]]) @ S_inverse
            parts = np.stack([half, half.conj()])
        else:
            parts = np.stack([np.outer(S[:, i], S_inverse[i]) for i in range(2)])
        # J^k is the sum of each part times its eigenvalue's power k
        k = np.arange(1, SUMMED + BEYOND + 1)
        powers = (np.array([[a + b * 1j], [c + d * 1j]]) / self.rho) ** k
        factor = (-1.0) ** (k + 1) / k
        traces = factor * powers.sum(0).real
        noises = factor * ((parts[:, 0, 1] + parts[:, 1, 0])[:, None] * powers).sum(0).real
        both = np.stack([traces, noises])
        kept, rest = np.zeros((2, len(k))), np.zeros(2)
        for m in range(len(k) - 1, -1, -1):
            rest = both[:, m] + self.rho * rest
            kept[:, m] = rest
        made = np.zeros(SUMMED + 1)
        made[0] = (kept[1, 0] * self.rho) ** 2 / self.probes
        made[1:] = (kept[0] ** 2 + kept[1] ** 2 / self.probes)[:SUMMED]
        return made

    def _variance(self, squares: Array, p: float) -> float:
        ratio = self.rho**2 / (1 - p)
        if ratio > 1 + 1e-12:
            return math.inf
        tail = squares[self.n_exact + 2 :]
        if 0 < ratio < 1:
            tail = tail[: 1 + math.ceil(-50 / math.log(ratio))]  # the rest is below rounding
        powers = ratio ** np.arange(1, len(tail) + 1)
        scale = p * self.rho ** (2 * (self.n_exact + 1))
        return float(squares[0] + scale * (tail * powers).sum())

    # --- words and the picture ---

    @property
    def caption(self) -> str:
        """One sentence that says what the present view's still picture shows."""
        third = {
            "cost": "cost times variance as a curve of p, which ends where that is infinite",
            "tail": "the histogram of the draws with what lies far out in its last bars",
        }[self.view]
        return (
            "Left, the eigenvalues of J in the unit circle, with the circle outside which the "
            f"variance is infinite; below, {third}. Right, estimates of log det(I + J) and their "
            "running mean, the exact value, and the truncated series beside it."
        )

    @property
    def reading(self) -> str:
        """The eigenvalues' size, the values and their errors, what they cost, and the task."""
        mean, error = self.mean()
        of = "" if math.isnan(error) else f" with a standard error of {said(error, 4)}"
        variance = self.variance()
        each = "is infinite" if math.isinf(variance) else f"is {said(variance, 4)}"
        draws = "One draw has" if self.draws == 1 else f"{self.draws} draws have"
        return (
            f"The eigenvalues reach to ρ = {said(self.rho, 2)}; the variance is infinite beyond "
            f"{said(math.sqrt(1 - self.p), 2)}. log det(I + J) is {said(self.exact, 4)}. With "
            f"{self.n_terms} terms the series gives {said(self.truncated(), 4)}. {draws} the mean "
            f"{said(mean, 4)}{of}, for {self.spent} products. The variance of a draw {each}, and "
            f"a draw takes {said(self.expected_products, 2)} products on average. Task: "
            + (
                "with the eigenvalues of “fair coin”, make 2000 products enough: two standard "
                "errors of their mean, by the exact variance, within 0.01.",
                "with the eigenvalues of “fair coin”, find the p at which cost times variance is "
                "least, within 5 %.",
            )[self.turn]
        )

    def still(self) -> str:
        """The present view as it is before anything is moved."""
        return picture(340, self._plane(), self._third(), self._run())

    def _plane(self) -> str:
        x, y, unit = 120.0, 110.0, 74.0
        inner = unit * math.sqrt(1 - self.p)

        def round_(r: float, way: int) -> str:
            halves = (f"a{r:g} {r:g} 0 1 {way} {dx:g} 0" for dx in (2 * r, -2 * r))
            return f"M{x - r:g} {y:g}{''.join(halves)}"

        return group(
            title(30, 24, "the eigenvalues of J"),
            path(round_(unit, 0) + round_(inner, 1), fill=WRONG, fill_opacity=0.22),
            path(f"M{x - 85:g} {y:g}h170M{x:g} {y - 80:g}v160", stroke=GREY),
            path(round_(unit, 0), fill="none", stroke=GREY),
            path(round_(inner, 0), fill="none", stroke=INK, stroke_width=1.6),
            *(circle(x + unit * a, y - unit * b, 6, fill=INK) for a, b in self.eigenvalues),
        )

    def _third(self) -> str:
        left, right, top, bottom = 50.0, 225.0, 222.0, 310.0
        frame = path(f"M{left:g} {top:g}V{bottom:g}H{right:g}", fill="none", stroke=GREY)
        return (self._cost if self.view == "cost" else self._tail)(frame, left, right, top, bottom)

    def _cost(self, frame: str, left: float, right: float, top: float, bottom: float) -> str:
        def across(p: float) -> float:
            return left + (right - left) * math.log(p / LEAST_P) / math.log(MOST_P / LEAST_P)

        grid = LEAST_P * (MOST_P / LEAST_P) ** (np.arange(121) / 120)
        squares = self._remainders()
        prices = [(self.n_exact + 1 / p) * self.probes * self._variance(squares, p) for p in grid]
        seen = [(p, math.log10(v)) for p, v in zip(grid, prices, strict=True) if 0 < v < math.inf]
        wall = min(max(1 - self.rho**2, LEAST_P), MOST_P)
        low, high = (f(v for _, v in seen) for f in (min, max)) if seen else (0.0, 0.0)

        def up(v: float) -> float:
            return bottom - 8 - (bottom - top - 16) * (v - low) / max(high - low, 0.1)

        price = self.price()
        here = up(math.log10(price)) if 0 < price < math.inf else top
        return group(
            title(30, 210, "cost × variance, by p"),
            rectangle(across(wall), top, right - across(wall), bottom - top, fill=WRONG,
                      fill_opacity=0.22),
            frame,
            path(polyline((across(p), up(v)) for p, v in seen) if seen else "", fill="none",
                 stroke=THIRD, stroke_width=2.4),
            circle(across(self.p), here, 6, fill=INK),
            group(*(text(across(p), 328, p, text_anchor="middle") for p in (0.02, 0.1, 0.5)),
                  font_size=14, fill=INK),
        )  # fmt: skip

    def _tail(self, frame: str, left: float, right: float, top: float, bottom: float) -> str:
        half = self._half()
        bins = 16
        place = np.floor((self.estimates() - self.exact + half) / (2 * half) * bins)
        counts = np.bincount(np.clip(place, -1, bins).astype(int) + 1, minlength=bins + 2)
        step = (right - left) / (bins + 2)
        bars = "".join(
            f"M{left + k * step:.1f} {bottom:g}v{-8 - 22 * math.log10(c):.1f}h{step:.1f}"
            f"V{bottom:g}z"
            for k, c in enumerate(counts)
            if c
        )
        middle = (left + right) / 2
        return group(
            title(30, 210, "how many draws lie where"),
            path(bars, fill=THIRD),
            frame,
            path(f"M{middle:g} {top:g}V{bottom:g}", stroke=INK, stroke_width=2),
            text(left, 328, "farther", font_size=14, fill=INK),
            text(right, 328, "farther", font_size=14, fill=INK, text_anchor="end"),
        )

    def _half(self) -> float:
        """How far the picture reaches on either side of the exact value."""
        away = np.sort(abs(self.estimates() - self.exact))
        bias = abs(self.truncated() - self.exact)
        return max(1.3 * bias, 1.5 * float(away[int(0.9 * (len(away) - 1))]), 1e-3)

    def _run(self) -> str:
        left, right, top, bottom = 320.0, 620.0, 40.0, 310.0
        x, half = self.estimates(), self._half()
        mean = x.cumsum() / np.arange(1, len(x) + 1)

        def up(v: float) -> float:
            share = min(1.0, max(-1.0, (v - self.exact) / half))
            return (top + bottom) / 2 - share * (bottom - top) / 2

        def across(k: int) -> float:
            return left + (right - left) * (k + 1) / len(x)

        dots = "".join(
            f"M{across(k):.1f} {up(v):.1f}h0" for k, v in enumerate(x) if abs(v - self.exact) < half
        )
        return group(
            title(left - 40, 24, "estimates, by draws"),
            path(f"M{left:g} {top:g}V{bottom:g}H{right:g}", fill="none", stroke=GREY),
            path(dots, fill="none", stroke=THIRD, stroke_opacity=0.35, stroke_width=4,
                 stroke_linecap="round"),
            path(f"M{left:g} {up(self.truncated()):g}H{right:g}", stroke=WRONG, stroke_width=3,
                 stroke_dasharray="8 4"),
            path(f"M{left:g} {up(self.exact):g}H{right:g}", stroke=INK, stroke_width=1.6),
            path(polyline((across(k), up(v)) for k, v in enumerate(mean)), fill="none",
                 stroke=THIRD, stroke_width=2.6),
            group(
                *(text(left - 6, up(v) + 5, said(v, 2), text_anchor="end")
                  for v in (self.exact - 0.8 * half, self.exact, self.exact + 0.8 * half)),
                text(left, 328, 0, text_anchor="middle"),
                text(right, 328, len(x), text_anchor="end"),
                font_size=14, fill=INK,
            ),
        )  # fmt: skip
