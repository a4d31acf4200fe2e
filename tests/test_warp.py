"""WarpExplorer in a real browser: alive without a kernel, moved by hand, equal to flowlib."""

import math
import random

import numpy as np
import pytest
import torch
import traitlets
from scipy.interpolate import PchipInterpolator

from flowlib import Flow, LULinear, StandardNormal
from flowlib.widgets import WarpExplorer
from tests import browser
from tests.browser import solved, state

pytestmark = pytest.mark.browser
ENTRIES = ("a11", "a12", "a21", "a22")


# --- the matrix ---------------------------------------------------------------------------


def numbers(warp):
    """The state, and every number shown, in full precision."""
    return *state(warp, "matrix", "point"), browser.readouts(warp)


def test_its_numbers_are_flowlibs(watch):
    warp = browser.alone(watch(), WarpExplorer())
    rng = random.Random(0)
    base = StandardNormal(2).double()
    entries = [[rng.randrange(-60, 61) / 20 for _ in range(4)] for _ in range(60)]
    x = torch.tensor(WarpExplorer().point, dtype=torch.float64)
    states = [{"matrix": [row[:2], row[2:]]} for row in entries]
    for given, shown in zip(states, browser.each(warp, states, browser.READOUTS), strict=True):
        a = torch.tensor(given["matrix"], dtype=torch.float64)
        log_pz = base.log_prob(a @ x).item()
        assert math.isclose(shown["det"], torch.det(a).item(), abs_tol=1e-9)
        assert math.isclose(shown["area"], abs(shown["det"]), abs_tol=1e-12)
        assert math.isclose(shown["log_pz"], log_pz, abs_tol=1e-9)
        if shown["area"] < 1e-9:
            continue
        log_det = torch.linalg.slogdet(a)[1].item()
        assert math.isclose(shown["log_det"], log_det, abs_tol=1e-9)
        log_px = log_pz + log_det
        if a[0, 0] > 0 and shown["det"] > 0:  # then the matrix is an L U, and the model ours
            flow = Flow(LULinear(2), StandardNormal(2)).double()
            with torch.no_grad():
                flow.bijection.lower.fill_(a[1, 0] / a[0, 0])
                flow.bijection.upper.fill_(a[0, 1])
                flow.bijection.log_diagonal.copy_(
                    torch.stack([a[0, 0].log(), (torch.det(a) / a[0, 0]).log()])
                )
                log_px = flow.log_prob(x).item()
        assert math.isclose(shown["log_px"], log_px, abs_tol=1e-9)


def test_every_entry_has_its_slider(watch):
    warp = browser.alone(watch(), WarpExplorer())
    browser.put_sliders(warp, dict(zip(ENTRIES, (-0.35, 1.1, 2.05, -3), strict=True)))
    assert numbers(warp)[0] == [-0.35, 1.1, 2.05, -3]


def test_a_flat_matrix_has_no_density(watch):
    one = watch()
    warp = browser.alone(one, WarpExplorer())
    warp.locator('[data-preset="flat"]:visible').click()
    _, _, shown = numbers(warp)
    assert shown["log_det"] == shown["log_px"] == -math.inf
    assert "no density" in warp.locator(".fl-say:visible").inner_text()
    assert "−∞" in warp.locator('[data-readout="log_px"]:visible').inner_text()


def test_keyboard(watch):
    one = watch()
    warp = browser.alone(one, WarpExplorer())
    warp.locator('input[data-name="a11"]').focus()
    one.page.keyboard.press("ArrowRight")
    assert numbers(warp)[0] == pytest.approx([1.3, 0.5, -0.25, 1.0])
    warp.locator('[data-handle="column-2"]').focus()
    one.page.keyboard.press("ArrowUp")
    assert numbers(warp)[0] == pytest.approx([1.3, 0.5, -0.25, 1.05])
    warp.locator('[data-handle="point"]').focus()
    one.page.keyboard.press("Shift+ArrowLeft")
    assert numbers(warp)[1] == pytest.approx([0.75, 1.0])


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_mouse_in_both_themes(watch, theme):
    one = watch(color_scheme=theme)
    warp = browser.alone(one, WarpExplorer())
    width = warp.locator("svg:visible").first.bounding_box()["width"]
    browser.drag(one.page, warp.locator('[data-handle="column-1"]'), width / 13, -width / 6.5)
    assert numbers(warp)[0] == pytest.approx([1.75, 0.5, 0.75, 1.0], abs=0.03)
    browser.drag(one.page, warp.locator('[data-handle="point"]'), -width / 6.5, 0)
    assert numbers(warp)[1] == pytest.approx([0, 1], abs=0.03)


def test_touch_moves_the_handle_and_not_the_page(watch):
    one = watch(width=390, height=844, has_touch=True, is_mobile=True)
    warp = browser.alone(one, WarpExplorer())
    before = one.page.evaluate("scrollY")
    browser.swipe(one, warp.locator('[data-handle="column-1"]'), 0, -50)
    matrix = numbers(warp)[0]
    assert matrix[2] > 0.4
    assert matrix[0] == pytest.approx(1.25, abs=0.03)
    assert one.page.evaluate("scrollY") == before


def test_presets_reset_and_task(watch):
    one = watch()
    warp = browser.alone(one, WarpExplorer())
    for preset in ("identity", "rotation", "stretch", "shear", "flip", "flat"):
        warp.locator(f'[data-preset="{preset}"]:visible').click()
        assert not solved(warp), preset  # also shear, which is what is asked for
        given = "given to you" in warp.locator("[data-task]:visible").inner_text()
        assert given == (preset == "shear"), preset
    warp.locator('[data-preset="identity"]:visible').click()
    warp.locator('[data-handle="column-2"]').focus()
    for _ in range(8):
        one.page.keyboard.press("ArrowRight")
    assert solved(warp)
    warp.locator('[data-action="reset"]:visible').click()
    assert numbers(warp)[0] == [1.25, 0.5, -0.25, 1.0]
    assert not solved(warp)
    warp.locator('[data-preset="shear"]:visible').click()  # it has been solved, and stays so
    browser.settle(warp)
    assert "given to you" not in warp.locator("[data-task]:visible").inner_text()


# --- the line -----------------------------------------------------------------------------

KNOTS = np.arange(-3.0, 4.0)


def random_knots(rng):
    knots = np.sort(rng.uniform(-3, 3, 7)) + 0.06 * np.arange(7) - 0.18
    return (knots if rng.random() < 0.7 else -knots).tolist()


def test_the_lines_numbers_are_scipys_and_flowlibs(watch):
    rng = np.random.default_rng(0)
    base = StandardNormal(1).double()
    warp = browser.alone(watch(), WarpExplorer(view="line"))
    states = [{"knots": random_knots(rng), "probe": rng.uniform(-2.99, 2.99)} for _ in range(60)]
    for given, shown in zip(states, browser.each(warp, states, browser.READOUTS), strict=True):
        probe, f = given["probe"], PchipInterpolator(KNOTS, given["knots"])
        z, slope = float(f(probe)), float(f(probe, 1))
        log_pz = base.log_prob(torch.tensor([z], dtype=torch.float64)).item()
        log_det = math.log(abs(slope))
        assert shown == pytest.approx(
            {"slope": slope, "log_pz": log_pz, "log_det": log_det, "log_px": log_pz + log_det},
            abs=1e-9,
        )


def test_the_hill_that_is_drawn_holds_all_the_probability(watch):
    """The outline's area is 1, read off the picture, whichever way the map goes."""
    rng = np.random.default_rng(1)
    one = watch()
    for sign in (1, -1):
        knots = [sign * k for k in (-3.2, -2.9, -1.7, 0.3, 1.1, 2.8, 3.2)]
        widget = WarpExplorer(view="line", knots=knots, probe=rng.uniform(-1, 1))
        path, axis, levels = browser.alone(one, widget).evaluate(
            """e => { const paths = [...e.querySelectorAll("svg path")];
            const hill = paths.find(p => p.getAttribute("fill-opacity") === "0.25");
            const ticks = [...e.querySelectorAll("svg text.fl-small")];
            const x = ticks.filter(t => ["−3", "3"].includes(t.textContent)
                && t.getAttribute("text-anchor") === "middle").map(t => +t.getAttribute("x"));
            const levels = [...e.querySelectorAll("svg g text.fl-small")]
                .map(t => [+t.textContent, +t.getAttribute("y") - 4.5]);
            return [hill.getAttribute("d"), x, levels]; }"""
        )
        points = np.array([p.split() for p in path.strip("MZ").split("L")], float)
        floor = points[0, 1]
        a_unit = (axis[1] - axis[0]) / 6
        p_unit = (floor - levels[0][1]) / levels[0][0]
        area = np.trapezoid((floor - points[1:-1, 1]) / p_unit, points[1:-1, 0] / a_unit)
        assert area == pytest.approx(1, abs=0.01)


def test_a_knot_is_dragged_and_the_map_stays_one_to_one(watch):
    one = watch()
    warp = browser.alone(one, WarpExplorer(view="line"))
    before = state(warp, "knots")
    browser.drag(one.page, warp.locator('[data-handle="knot-4"]'), 40, -40)
    after = state(warp, "knots")
    assert after[3] > before[3] + 0.4
    assert after[:3] + after[4:] == before[:3] + before[4:]
    browser.drag(one.page, warp.locator('[data-handle="knot-4"]'), 0, -600)
    assert state(warp, "knots")[3] == pytest.approx(after[4] - 0.05)
    warp.locator('[data-preset="flip"]:visible').click()
    flipped = state(warp, "knots")
    browser.drag(one.page, warp.locator('[data-handle="knot-4"]'), 0, -600)
    assert state(warp, "knots")[3] == pytest.approx(flipped[2] - 0.05)
    warp.locator('[data-action="reset"]:visible').click()
    assert state(warp, "knots") == before


def test_a_falling_map_has_the_same_density(watch):
    warp = browser.alone(watch(), WarpExplorer(view="line"))
    before = browser.readouts(warp)
    warp.locator('[data-preset="flip"]:visible').click()
    after = browser.readouts(warp)
    assert after["slope"] == -before["slope"]
    assert after["log_px"] == pytest.approx(before["log_px"], abs=1e-12)
    assert "It falls" in warp.locator(".fl-say:visible").inner_text()


def test_a_map_whose_end_is_flat_says_so(watch):
    warp = browser.alone(watch(), WarpExplorer(view="line", knots=[-3, -2.9, -1, 0, 1, 2, 3]))
    assert "At its left end it has become flat" in warp.locator(".fl-say:visible").inner_text()


def test_the_line_by_keyboard_and_by_touch(watch):
    one = watch(width=390, height=844, has_touch=True, is_mobile=True)
    warp = browser.alone(one, WarpExplorer(view="line"))
    warp.locator('[data-handle="knot-4"]').focus()
    one.page.keyboard.press("ArrowUp")
    assert state(warp, "knots")[3] == pytest.approx(-0.55)
    warp.locator('[data-handle="probe"]').focus()
    one.page.keyboard.press("ArrowLeft")
    assert state(warp, "probe") == pytest.approx(0.15)
    knot = warp.locator('[data-handle="knot-2"]')
    knot.scroll_into_view_if_needed()
    scrolled = one.page.evaluate("scrollY")
    browser.swipe(one, knot, 0, 15)
    assert -2.55 < state(warp, "knots")[1] < -2.2
    assert one.page.evaluate("scrollY") == scrolled


def test_two_hills_are_made_by_hand(watch):
    one = watch()
    warp = browser.alone(one, WarpExplorer(view="line"))
    for preset in ("identity", "squeeze", "spread", "skew"):
        warp.locator(f'[data-preset="{preset}"]:visible').click()
        assert not solved(warp), preset
    warp.locator('[data-preset="identity"]:visible').click()
    for knot, way in (("knot-3", "ArrowUp"), ("knot-5", "ArrowDown")):
        warp.locator(f'[data-handle="{knot}"]').focus()
        for _ in range(14):
            one.page.keyboard.press(way)
    assert solved(warp)


# --- the bend -----------------------------------------------------------------------------


def bend_map(shear, stretch):
    def f(x):
        z1 = x[..., 0] + shear * torch.sin(x[..., 1])
        return torch.stack([z1, x[..., 1] * torch.exp(stretch * torch.tanh(z1))], -1)

    return f


def polygon_area(corners):
    x, y = corners.unbind(-1)
    return (x * y.roll(-1) - y * x.roll(-1)).sum().abs().item() / 2


def test_the_bends_numbers_are_autodiffs(watch):
    rng = np.random.default_rng(0)
    warp = browser.alone(watch(), WarpExplorer(view="bend"))
    corners = torch.tensor([[0, 0], [1, 0], [1, 1], [0, 1]], dtype=torch.float64) - 0.5
    t = torch.arange(32, dtype=torch.float64)[:, None] / 32
    edge = torch.cat([corners[i] + t * (corners[(i + 1) % 4] - corners[i]) for i in range(4)])
    states = [
        {
            "bend": rng.uniform(-1, 1, 2).tolist(), "centre": rng.uniform(-2.5, 2.5, 2).tolist(),
            "side": float(np.exp(rng.uniform(math.log(0.02), math.log(1.5)))),
        }
        for _ in range(60)
    ]  # fmt: skip
    look = f"""(e) => [({browser.READOUTS})(e), e.querySelectorAll("svg")[1]
      .querySelector('path[stroke-dasharray="6 4"]').getAttribute("d")]"""
    size = warp.locator("svg").nth(1).evaluate("e => e.viewBox.baseVal.width")
    for given, (shown, d) in zip(states, browser.each(warp, states, look), strict=True):
        side = given["side"]
        f, c = bend_map(*given["bend"]), torch.tensor(given["centre"], dtype=torch.float64)
        log_det = torch.linalg.slogdet(torch.func.jacrev(f)(c))[1].item()
        det, ratio = math.exp(log_det), polygon_area(f(c + side * edge)) / side**2
        error = 100 * (det / ratio - 1)
        assert shown == pytest.approx(
            {"ratio": ratio, "det": det, "log_det": log_det, "error": error}, abs=1e-7
        )
        # The determinant of this map forgets two of the Jacobian's entries; its picture does not.
        points = np.array([p.split() for p in d.strip("MZ").split("L")], float)
        drawn = np.stack([points[:, 0] - size / 2, size / 2 - points[:, 1]], 1) * 6 / size
        tangent = f(c) + side * (corners @ torch.func.jacrev(f)(c).T)
        np.testing.assert_allclose(drawn, tangent, atol=1e-3)


def test_the_bends_handles(watch):
    one = watch()
    warp = browser.alone(one, WarpExplorer(view="bend"))
    width = warp.locator("svg:visible").first.bounding_box()["width"]
    browser.drag(one.page, warp.locator('[data-handle="centre"]'), -width / 6, width / 6)
    assert state(warp, "centre") == pytest.approx([-0.2, -0.1], abs=0.03)
    browser.drag(one.page, warp.locator('[data-handle="corner"]'), -width / 24, width / 24)
    assert state(warp, "side") == pytest.approx(0.5, abs=0.05)
    browser.drag(one.page, warp.locator('[data-handle="corner"]'), -200, 200)
    assert state(warp, "side") == 0.02
    warp.locator('input[data-name="stretch"]').focus()
    one.page.keyboard.press("ArrowRight")
    assert state(warp, "bend") == pytest.approx([0.6, 0.55])
    warp.locator('[data-preset="flat"]:visible').click()
    browser.settle(warp)
    assert browser.readouts(warp)["ratio"] == pytest.approx(1, abs=1e-9)


def test_the_parallelogram_is_trusted_only_close_up(watch):
    one = watch()
    warp = browser.alone(one, WarpExplorer(view="bend"))
    assert not solved(warp)
    far = browser.readouts(warp)
    assert far["ratio"] > 1.5
    assert abs(far["error"]) > 1
    browser.put_sliders(warp, {"side": 0.6})
    assert state(warp, "side") == pytest.approx(0.02 * 75**0.6)
    assert abs(browser.readouts(warp)["error"]) < 1
    assert not solved(warp)  # it is not large enough here, nor anywhere with this bend
    browser.put_sliders(warp, {"stretch": 0.9, "side": 0.2})
    warp.locator('[data-handle="centre"]').focus()
    for _ in range(8):
        one.page.keyboard.press("Shift+ArrowRight")
    assert solved(warp)


# --- the three together -------------------------------------------------------------------


def test_tabs_change_the_view_and_keep_the_states(watch):
    warp = browser.alone(watch(), WarpExplorer())
    for view in ("line", "bend", "matrix"):
        warp.locator(f'[data-view="{view}"]').click()
        browser.settle(warp)
        assert warp.get_attribute("data-view") == view
        pressed = warp.locator('[aria-pressed="true"]')
        assert pressed.get_attribute("data-view") == view
        assert warp.locator("[data-task]:visible").count() == 1
    assert numbers(warp)[0] == [1.25, 0.5, -0.25, 1.0]


@pytest.mark.parametrize(
    ("traits", "message"),
    [
        ({"view": "plane"}, "view"),
        ({"matrix": [[1, 2]]}, r"matrix: expected finite numbers of shape \(2, 2\)"),
        ({"point": [0, math.nan]}, "point"),
        ({"knots": [0, 1, 2]}, r"of shape \(7,\)"),
        ({"knots": [0, 1, 2, 2, 3, 4, 5]}, "all rise or all fall"),
        ({"probe": 4.0}, "probe"),
        ({"probe": math.nan}, "probe"),
        ({"bend": [2, 0]}, "from -1 to 1"),
        ({"side": 0.0}, "side: expected a number from 0.02 to 1.5"),
        ({"side": math.nan}, "side"),
        ({"centre": "here"}, "centre"),
    ],
)
def test_bad_states(traits, message):
    with pytest.raises(traitlets.TraitError, match=message):
        WarpExplorer(**traits)


@pytest.mark.parametrize("view", ["line", "matrix", "bend"])
def test_every_view_has_a_still_picture_and_a_caption(view):
    warp = WarpExplorer(view=view)
    assert warp.still().count("<path") > 3
    assert "nan" not in warp.still()
    assert len(warp.caption) > 60
