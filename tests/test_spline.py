"""SplineExplorer in a real browser: its curve is flowlib.Spline, its knots stay in order."""

import numpy as np
import pytest
import torch
from scipy.special import ndtri
from traitlets import TraitError

from flowlib import StandardNormal
from flowlib.widgets import SplineExplorer
from tests import browser
from tests.browser import state

in_browser = pytest.mark.browser


def rising(rng, gap):
    """Five numbers between -3 and 3, no two and no end nearer than the gap."""
    shares = rng.dirichlet(np.full(6, 1.0))
    return -3 + np.cumsum(gap + (6 - 6 * gap) * shares)[:5]


def random_state(rng, gap=0.02):
    knots = np.stack([rising(rng, gap), rising(rng, gap)], 1)
    slopes = np.exp(rng.uniform(np.log(0.05), np.log(8), 5))
    return {"knots": knots.tolist(), "slopes": slopes.tolist(), "probe": rng.uniform(-3, 3)}


@in_browser
def test_its_numbers_are_flowlibs(watch):
    rng = np.random.default_rng(0)
    base = StandardNormal(1).double()
    explorer = browser.alone(watch(), SplineExplorer())
    states = [random_state(rng) for _ in range(200)]
    # at the knots themselves, too
    states += [{**s, "probe": s["knots"][k % 5][0]} for k, s in enumerate(states[:20])]
    for given, shown in zip(states, browser.each(explorer, states, browser.READOUTS), strict=True):
        (z,), (log_slope,) = SplineExplorer(**given).at(given["probe"])
        log_pz = base.log_prob(torch.tensor([z])).item()
        assert shown == pytest.approx(
            {
                "slope": np.exp(log_slope), "log_pz": log_pz, "log_det": log_slope,
                "log_px": log_pz + log_slope,
            },
            abs=1e-9, rel=1e-9,
        )  # fmt: skip


@in_browser
def test_the_lines_that_it_carries_are_the_inverse(watch):
    """Where the deciles of z end on the axis of x, flowlib's spline takes them back to z."""
    rng = np.random.default_rng(1)
    explorer = browser.alone(watch(), SplineExplorer())
    look = """(e) => { const ticks = [...e.querySelectorAll("svg text.fl-small")];
        const at = (name) => ticks.filter((t) => t.textContent === name
            && t.getAttribute("text-anchor") === "middle").map((t) => +t.getAttribute("x"))[0];
        const lines = [...e.querySelectorAll("svg path")].map((p) => p.getAttribute("d"))
            .find((d) => (d.match(/M/g) ?? []).length === 9 && /H.*V/.test(d));
        return [at("−3"), at("3"), lines]; }"""
    states = [random_state(rng, gap=0.05) for _ in range(30)]
    for given, (low, high, lines) in zip(states, browser.each(explorer, states, look), strict=True):
        ends = [float(one.split("H")[1].split("V")[0]) for one in lines.strip("M").split("M")]
        x = -3 + 6 * (np.array(ends) - low) / (high - low)
        z, _ = SplineExplorer(**given).at(x)
        assert z == pytest.approx(ndtri(np.arange(1, 10) / 10), abs=1e-9)


def test_its_map_is_a_spline_through_the_knots_with_these_slopes():
    rng = np.random.default_rng(2)
    for _ in range(20):
        given = random_state(rng)
        explorer = SplineExplorer(**given)
        knots = np.array(given["knots"])
        z, log_slope = explorer.at(knots[:, 0])
        assert z == pytest.approx(knots[:, 1], abs=1e-12)
        assert np.exp(log_slope) == pytest.approx(given["slopes"], rel=1e-9)
        z, log_slope = explorer.at([-3.2, 3.0, 4.0])
        assert z.tolist() == [-3.2, 3.0, 4.0]
        assert log_slope.tolist() == [0, 0, 0]


@in_browser
def test_a_knot_is_dragged_and_the_curve_still_rises(watch):
    one = watch()
    explorer = browser.alone(one, SplineExplorer())
    before = state(explorer, "knots")
    browser.drag(one.page, explorer.locator('[data-handle="knot-2"]'), 30, -20)
    after = state(explorer, "knots")
    assert after[2] > before[2] + 0.2
    assert after[3] > before[3] + 0.1
    assert after[:2] + after[4:] == before[:2] + before[4:]
    assert state(explorer, "chosen") == 1
    browser.drag(one.page, explorer.locator('[data-handle="knot-2"]'), 900, -900)
    knots = state(explorer, "knots")
    assert knots[2:4] == pytest.approx([v - 0.1 for v in knots[4:6]])
    explorer.locator('[data-handle="knot-2"]').focus()
    one.page.keyboard.press("ArrowDown")
    browser.settle(explorer)
    assert state(explorer, "knots")[3] == pytest.approx(knots[3] - 0.05, abs=0.026)


@in_browser
def test_a_tangent_is_turned_by_hand_and_by_keys(watch):
    one = watch()
    explorer = browser.alone(one, SplineExplorer())
    browser.drag(one.page, explorer.locator('[data-handle="slope"]'), -10, -40)
    slopes = state(explorer, "slopes")
    assert slopes[2] > 1
    assert slopes[:2] + slopes[3:] == [1.3, 0.9, 1.1, 1.2]
    explorer.locator('[data-handle="slope"]').focus()
    one.page.keyboard.press("ArrowUp")
    browser.settle(explorer)
    assert state(explorer, "slopes")[2] == pytest.approx(slopes[2] * 1.1)
    explorer.locator('[data-knot="0"]').click()
    for _ in range(40):
        explorer.locator('[data-handle="slope"]').press("Shift+ArrowDown")
    browser.settle(explorer)
    assert state(explorer, "slopes")[0] == 0.05


@pytest.mark.parametrize(
    ("traits", "message"),
    [
        ({"knots": [[0, 0]] * 5}, "rise"),
        ({"knots": [[-2, -1], [-1, 1], [0, 0], [1, 2], [2, 2.5]]}, "rise"),
        ({"knots": [[-2, -1], [-1, 0], [0, 1], [1, 2], [3, 2.5]]}, "rise"),
        ({"knots": [[-2, -1], [-1, 0]]}, "shape"),
        ({"slopes": [1, 1, 1, 1, 0]}, "slope 5 from 0.05 to 8"),
        ({"slopes": [1, 1, 1, float("nan"), 1]}, "finite"),
        ({"probe": 4}, "probe"),
        ({"chosen": 5}, "chosen"),
    ],
)
def test_what_it_cannot_draw_is_refused(traits, message):
    with pytest.raises(TraitError, match=message):
        SplineExplorer(**traits)
