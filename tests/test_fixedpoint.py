"""FixedPointExplorer in a real browser: its counts, answers and errors are those of flowlib."""

import math

import numpy as np
import pytest
import torch
from torch import nn
from traitlets import TraitError

from flowlib import ELU, Branch, RealNVP, ResidualBlock, Sine, Tanh
from flowlib.widgets import FixedPointExplorer
from tests import browser
from tests.browser import solved, state
from tests.models import randomize

in_browser = pytest.mark.browser
TOL = 1e-3
FLAT = [0.0] * 7


def line_of(slope):
    return [slope * x for x in range(-3, 4)]


def random_points(rng, steepest):
    steps = rng.uniform(-1, 1, 6)
    steps *= steepest / abs(steps).max()
    return (np.concatenate([[0], steps.cumsum()]) - steps[:3].sum() + rng.uniform(-1, 1)).tolist()


def make(activation=Sine, hidden=12, lipschitz=0.9, seed=0, scale=0.8):
    """A block that is steep somewhere: its last weights are near to its first ones, turned."""
    block = ResidualBlock(Branch(2, hidden, lipschitz, activation, scale))
    randomize(block, 0.3, seed)
    first, *_, last = block.branch.layers
    with torch.no_grad():
        last.weight.copy_(first.weight.T @ torch.eye(first.outputs, last.inputs))
    return block.eval()


LOOK = f"""(e) => {{
  const {{ fate, answers, found, first }} = e.dataset;
  const numbers = (text) => text.split(",").map((v) => (v === "" ? NaN : Number(v)));
  return {{
    ...({browser.READOUTS})(e), fate, say: e.querySelector(".fl-say").textContent,
    answers: numbers(answers), found: found === "" ? [] : numbers(found),
    first: numbers(first ?? ""),
  }};
}}"""


def solve(explorer, accelerated):
    """The number of evaluations, NaN if they are more than 2000, and the answer."""
    try:
        found = explorer.solve(accelerated)
    except RuntimeError:
        return math.nan, [math.nan] * (2 if explorer.view == "block" else 1)
    return int(found.evaluations), found.x[0].tolist()


def compare(shown, python):
    """How many of the two counts differ by one; none may differ by more."""
    off = 0
    size = len(shown["answers"]) // 2
    for k, (name, accelerated) in enumerate((("plain", False), ("accelerated", True))):
        count, answer = solve(python, accelerated)
        assert math.isnan(count) == math.isnan(shown[name])
        if math.isnan(count):
            continue
        if count == shown[name]:
            assert shown["answers"][k * size : (k + 1) * size] == pytest.approx(answer, abs=1e-6)
        else:
            assert abs(count - shown[name]) == 1
            off += 1
    return off


@in_browser
def test_counts_and_answers_are_flowlibs(watch):
    rng = np.random.default_rng(0)
    steepest = np.concatenate([rng.uniform(0.05, 0.9, 120), rng.uniform(0.9, 0.999, 100)])
    states = [{"points": random_points(rng, s), "z": rng.uniform(-3, 3)} for s in steepest]
    states += [{"points": FLAT, "z": 0.7}, {"points": line_of(0.5), "z": 0.0}]
    explorer = browser.alone(watch(), FixedPointExplorer())
    off = 0
    for given, shown in zip(states, browser.each(explorer, states, LOOK), strict=True):
        python = FixedPointExplorer(**given)
        assert shown["slope"] == python.slope
        (x,) = python.solutions()
        assert shown["found"] == pytest.approx([x], abs=1e-9)
        assert (shown["solutions"], shown["fate"]) == (1, "arrives")
        for answer in shown["answers"]:
            assert math.isnan(answer) or abs(answer - x) <= TOL
        off += compare(shown, python)
    assert off <= 4  # a bound that equals the tolerance but for the last digits


@in_browser
@pytest.mark.parametrize(
    ("activation", "hidden", "lipschitz"),
    [(Sine, 12, 0.9), (Tanh, (8, 8), 0.97), (ELU, 5, 0.95), (Sine, (16, 16, 16), 0.99)],
)
def test_the_blocks_counts_and_answers_are_flowlibs(watch, activation, hidden, lipschitz):
    explorer = FixedPointExplorer(make(activation, hidden, lipschitz), view="block")
    rng = np.random.default_rng(1)
    states = [{"latent": rng.uniform(-2.5, 2.5, 2).tolist(), "step": 1} for _ in range(60)]
    shown = browser.each(browser.alone(watch(), explorer), states, LOOK)
    off = 0
    for given, got in zip(states, shown, strict=True):
        explorer.latent = given["latent"]
        off += compare(got, explorer)
        z, x = (torch.tensor([v], dtype=torch.float64) for v in (given["latent"], got["found"]))
        assert torch.allclose(x + explorer.branch()(x), z, rtol=0, atol=1e-11)
        first = z - explorer.branch()(z)
        assert got["first"] == pytest.approx(first[0].tolist(), abs=1e-12)
        far = lipschitz / (1 - lipschitz)
        assert got["radius"] == pytest.approx(far * float((first - z).norm()), rel=1e-9)
        assert got["error"] == pytest.approx(float((first - x).norm()), abs=1e-10)
    assert off <= 2


@in_browser
def test_the_circle_contains_the_solution_at_every_step_and_some_steps_are_taken_back(watch):
    explorer = FixedPointExplorer(make(hidden=16, lipschitz=0.95, seed=3), view="block")
    rng = np.random.default_rng(2)
    states = [
        {"latent": rng.uniform(-2.5, 2.5, 2).tolist(), "step": step, "accelerated": accelerated}
        for _ in range(12)
        for step in range(1, 13)
        for accelerated in (False, True)
    ]
    shown = browser.each(browser.alone(watch(), explorer), states, LOOK)
    assert all(got["error"] <= got["radius"] + 1e-12 for got in shown)
    backs = [given for given, got in zip(states, shown, strict=True) if "taken back" in got["say"]]
    assert backs
    assert all(given["accelerated"] for given in backs)


@in_browser
def test_every_x_is_found_and_counted(watch):
    """All solutions, where the curve folds, too: against a scan of the line."""
    rng = np.random.default_rng(3)
    scan = np.linspace(-60, 60, 240_001)
    states = [
        {"points": random_points(rng, rng.uniform(1, 1.3)), "z": rng.uniform(-3, 3)}
        for _ in range(220)
    ]
    explorer = browser.alone(watch(), FixedPointExplorer())
    several = 0
    for given, shown in zip(states, browser.each(explorer, states, LOOK), strict=True):
        python = FixedPointExplorer(**given)
        found = python.solutions()
        assert shown["found"] == pytest.approx(found, abs=1e-8)
        assert shown["solutions"] == len(found)
        x = torch.from_numpy(scan)[:, None]
        off = (x + python.branch()(x) - given["z"])[:, 0].numpy()
        crossed = scan[:-1][off[:-1] * off[1:] < 0]
        near = [x for x in found if abs(x) < 59.9]
        assert near == pytest.approx(crossed.tolist(), abs=5.1e-4)
        several += len(found) > 1
        assert ("cannot be undone" in shown["say"]) == (len(found) != 1)
    assert several > 20


CASES = {
    "leaves": ({"points": line_of(1.02), "z": 1.0}, "leaves", 1),
    "two places for ever": ({"points": line_of(1.0), "z": 1.0}, "goes round", 1),
    "a steep middle": ({"points": [-1.2] * 3 + [0] + [1.2] * 3, "z": 0.5}, "goes round", 1),
    "steep elsewhere": ({"points": [0, 0, 0, 0, 0, 0, 1.3], "z": -1.0}, "arrives", 1),
    "a fold": ({"points": [1.25] * 3 + [0] + [-1.25] * 3, "z": 0.1}, "arrives", 3),
    "slides away": ({"points": line_of(-1.0), "z": 1.0}, "leaves", 0),
    "everything": ({"points": line_of(-1.0), "z": 0.0}, "arrives", math.inf),
    "slow": ({"points": line_of(0.99), "z": 2.0}, "arrives", 1),
}


@in_browser
def test_past_a_slope_of_one_it_says_what_becomes_of_the_iteration(watch):
    explorer = browser.alone(watch(), FixedPointExplorer())
    states = [given for given, _, _ in CASES.values()]
    shown = browser.each(explorer, states, LOOK)
    for (name, (given, fate, count)), got in zip(CASES.items(), shown, strict=True):
        assert (got["fate"], got["solutions"]) == (fate, count), name
        assert math.isnan(got["accelerated"]) == (FixedPointExplorer(**given).slope >= 1), name
        assert math.isnan(got["plain"]) == (fate != "arrives"), name


@in_browser
def test_without_a_bound_it_counts_until_the_iterates_are_there(watch):
    """The number of plain evaluations after which the error stays within the tolerance."""
    given = {"points": [-0.9, -0.8, -0.7, 0, 0.7, 0.8, 2.1], "z": -0.6}
    (got,) = browser.each(browser.alone(watch(), FixedPointExplorer()), [given], LOOK)
    python = FixedPointExplorer(**given)
    (home,) = python.solutions()
    g, x, errors = python.branch(), torch.tensor([[given["z"]]], dtype=torch.float64), []
    for _ in range(200):
        x = given["z"] - g(x)
        errors.append(abs(float(x) - home))
    assert python.slope == 1.3
    assert got["plain"] == next(t for t in range(200) if max(errors[t:]) <= TOL) + 1


def test_the_curve_is_the_polyline_averaged():
    """``g`` is the mean of a polyline over x ± 0.25, and no slope is larger than the polyline's."""
    rng = np.random.default_rng(4)
    for _ in range(20):
        python = FixedPointExplorer(points=random_points(rng, rng.uniform(0.1, 1.3)))
        slopes = np.diff(python.points)
        x = rng.uniform(-5, 5, 40)
        around = x[:, None] + np.linspace(-0.25, 0.25, 4001)
        straight = np.interp(around, np.arange(-3, 4), python.points)
        straight += slopes[0] * np.minimum(around + 3, 0) + slopes[-1] * np.maximum(around - 3, 0)
        g = python.branch()(torch.from_numpy(x)[:, None])[:, 0].numpy()
        assert g == pytest.approx(np.trapezoid(straight, dx=1 / 4000, axis=1), abs=1e-6)
        dense = torch.linspace(-5, 5, 2001, dtype=torch.float64)[:, None]
        slope = (python.branch()(dense).diff(dim=0) / dense.diff(dim=0)).abs().max()
        assert float(slope) == pytest.approx(python.slope, abs=1e-6)


@pytest.mark.parametrize("activation", [Sine, Tanh, ELU])
def test_what_the_page_computes_is_the_block(activation):
    block = make(activation, (7, 9)).double()
    x = torch.randn(50, 2, dtype=torch.float64)
    made = FixedPointExplorer(block, view="block").branch()(x)
    assert torch.allclose(made, block.branch(x), rtol=0, atol=1e-4)
    assert made.std() > 0.1


def test_the_block_is_copied_and_its_gradients_are_left_alone():
    block = make().train()
    before = {name: value.clone() for name, value in block.state_dict().items()}
    explorer = FixedPointExplorer(block, view="block")
    assert block.training
    assert all(torch.equal(value, before[name]) for name, value in block.state_dict().items())
    assert explorer.solve().x.shape == (1, 2)
    assert explorer.longest["most"] >= explorer.longest["enough"]


# --- what hands do --------------------------------------------------------------------------


@in_browser
def test_a_point_is_dragged_on_the_graph_and_stops_where_it_gets_too_steep(watch):
    one = watch()
    explorer = browser.alone(one, FixedPointExplorer())
    before = state(explorer, "points")
    browser.drag(one.page, explorer.locator('[data-handle="point-4"]'), 0, -20)  # F up: g down
    after = state(explorer, "points")
    assert after[3] < before[3] - 0.2
    assert after[:3] + after[4:] == before[:3] + before[4:]
    browser.drag(one.page, explorer.locator('[data-handle="point-4"]'), 0, 900)
    points = state(explorer, "points")
    assert points[3] == pytest.approx(min(points[2], points[4]) + 1.3)
    explorer.locator('[data-handle="point-4"]').press("ArrowUp")
    browser.settle(explorer)
    assert state(explorer, "points")[3] == pytest.approx(points[3] - 0.05, abs=0.026)


@in_browser
def test_z_is_dragged_along_its_axis(watch):
    one = watch()
    explorer = browser.alone(one, FixedPointExplorer())
    browser.drag(one.page, explorer.locator('[data-handle="z"]'), 30, 40)
    assert state(explorer, "z") < 0.8
    browser.drag(one.page, explorer.locator('[data-handle="z"]'), 0, -900)
    assert state(explorer, "z") == 3
    explorer.locator('[data-handle="z"]').press("ArrowDown")
    assert state(explorer, "z") == 2.95


@in_browser
def test_the_slider_scales_the_curve_and_finds_its_shape_again(watch):
    explorer = browser.alone(watch(), FixedPointExplorer())
    points = np.array(state(explorer, "points"))
    for c in (1.3, 0.25, 0.0, 1.0):
        browser.put_sliders(explorer, {"slope": c})
        browser.settle(explorer)
        assert np.array(state(explorer, "points")) == pytest.approx(points * c / 0.5)
        assert browser.readouts(explorer)["slope"] == c
        assert FixedPointExplorer(points=state(explorer, "points")).slope == c


@in_browser
def test_the_slider_keeps_a_shape_that_was_never_drawn(watch):
    """A preset and the slider at zero, both before the next redraw, as on a slow machine."""
    explorer = browser.alone(watch(), FixedPointExplorer())
    explorer.evaluate(
        """e => {
          e.querySelector('[data-preset="slope +0.97"]').click();
          const slider = e.querySelector('input[data-name="slope"]');
          for (const value of ["0", "1.03"]) {
            slider.value = value;
            slider.dispatchEvent(new Event("input", { bubbles: true }));
          }
        }"""
    )
    slopes = np.diff(state(explorer, "points"))
    assert np.abs(slopes) == pytest.approx(1.03)


@in_browser
def test_flat_from_the_start_it_takes_the_presets_shape(watch):
    explorer = browser.alone(watch(), FixedPointExplorer(points=FLAT))
    browser.put_sliders(explorer, {"slope": 0.5})
    assert state(explorer, "points") == pytest.approx(FixedPointExplorer().points)


@in_browser
def test_z_is_dropped_where_the_plane_is_pressed(watch):
    one = watch()
    explorer = browser.alone(one, FixedPointExplorer(view="block", latent=[1, 1]))
    box = explorer.locator("svg").first.bounding_box()
    one.page.mouse.click(box["x"] + 0.25 * box["width"], box["y"] + 0.75 * box["height"])
    assert state(explorer, "latent") == pytest.approx([-1.6, -1.6], abs=0.03)
    browser.drag(one.page, explorer.locator('[data-handle="latent"]'), 40, -30)
    x, y = state(explorer, "latent")
    assert x > -1.4
    assert y > -1.4


@in_browser
def test_the_step_goes_to_where_the_path_stops(watch):
    explorer = browser.alone(watch(), FixedPointExplorer(view="block"))
    explorer.locator('[data-path="accelerated"]').click()
    needed = browser.readouts(explorer)["accelerated"]
    for key in ("Home", "End"):
        explorer.locator('input[data-name="step"]').press(key)
    assert state(explorer, "step") == needed
    shown = browser.readouts(explorer)
    assert shown["error"] <= shown["radius"] <= TOL
    assert "it stops" in explorer.locator(".fl-say").text_content()


@in_browser
def test_no_preset_solves_a_task(watch):
    explorer = browser.alone(watch(), FixedPointExplorer())
    for turn in (0, 1):
        explorer.locator(f'[data-turn="{turn}"]').click()
        for preset in explorer.locator("[data-preset]").all():
            preset.click()
            assert not solved(explorer)
    assert explorer.locator("[data-task]:visible").get_attribute("data-task") == "never"


@in_browser
@pytest.mark.parametrize(
    ("points", "words"), [(line_of(-1.2), "so it is"), (line_of(1.2), "it is where it falls")]
)
def test_what_was_expected_is_answered_past_one(watch, points, words):
    guess = "falls" if "so" in words else "rises"
    explorer = browser.alone(watch(), FixedPointExplorer(z=0.5))
    explorer.locator(f'[data-guess="{guess}"]').click()
    browser.settle(explorer)
    say = explorer.locator(".fl-say")
    assert "push c past 1 to see" in say.text_content()
    assert words not in say.text_content()
    browser.each(explorer, [{"points": points}], LOOK)
    assert words in say.text_content()


# --- what is refused ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("traits", "message"),
    [
        ({"points": [0, 1.4, 1, 1, 1, 1, 1]}, "slopes of at most 1.3"),
        ({"points": [0, 1]}, "shape"),
        ({"points": [9] * 7}, "from -8"),
        ({"points": [0, 0, 0, math.nan, 0, 0, 0]}, "finite"),
        ({"z": 4}, "z"),
        ({"turn": 2}, "turn"),
        ({"guess": "never"}, "guess"),
        ({"latent": [3, 0]}, "z1 from"),
        ({"step": 0}, "step"),
    ],
)
def test_what_it_cannot_draw_is_refused(traits, message):
    with pytest.raises(TraitError, match=message):
        FixedPointExplorer(**traits)


class Other(nn.Module):
    event_shape, lipschitz = torch.Size([2]), 0.5

    def forward(self, x):
        return 0.5 * x


def closed():
    """A block that is too slow: its steps shrink by 0.9999 each."""
    block = make(hidden=2, lipschitz=0.9999, scale=0.01)
    first, last = block.branch.layers
    with torch.no_grad():
        first.weight.copy_(torch.eye(2))
        last.weight.copy_(torch.eye(2))
    return block


@pytest.mark.parametrize(
    ("block", "error", "message"),
    [
        (lambda: RealNVP(2), TypeError, "expected a ResidualBlock, got a RealNVP"),
        (lambda: make().branch, TypeError, "got a Branch"),
        (lambda: ResidualBlock(Branch(3, 4)), ValueError, r"on 2 coordinates, got \(3,\)"),
        (lambda: ResidualBlock(Other()), ValueError, "expected as branch a Branch"),
        (lambda: ResidualBlock(Branch(2, (150, 150))), ValueError, "20000 weights, got 23100"),
        (closed, ValueError, "at most 2000 evaluations"),
    ],
)
def test_blocks_that_it_cannot_show_are_refused(block, error, message):
    with pytest.raises(error, match=message):
        FixedPointExplorer(block())


def test_without_a_block_there_is_only_the_curve():
    explorer = FixedPointExplorer()
    with pytest.raises(TraitError, match="expected a block"):
        explorer.view = "block"
    with pytest.raises(ValueError, match="below 1"):
        FixedPointExplorer(points=line_of(1)).solve()
    assert FixedPointExplorer(make()).view == "curve"
    with pytest.raises(TypeError, match="no option 'speed'"):
        FixedPointExplorer(speed=3)


@in_browser
def test_of_a_block_both_views_are_offered(watch):
    explorer = browser.alone(watch(), FixedPointExplorer(make()))
    explorer.locator('[data-view="block"]').click()
    assert not math.isnan(browser.readouts(explorer)["radius"])
    assert browser.alone(watch(), FixedPointExplorer()).locator("[data-view]").count() == 0
