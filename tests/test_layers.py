"""LayersExplorer in a real browser: positions, likelihoods and the ledger are flowlib's."""

import pytest
import torch
from torch import nn
from traitlets import TraitError

from flowlib import (
    ActNorm,
    Compose,
    DiagonalNormal,
    Flow,
    LULinear,
    Permutation,
    RealNVP,
    StandardNormal,
)
from flowlib.widgets import LayersExplorer
from tests import browser
from tests.browser import solved
from tests.models import shaken

in_browser = pytest.mark.browser


def make(n_layers=3, points=40):
    flow = shaken(lambda: RealNVP(2, n_layers=n_layers, hidden=(8,)), seed=3)
    draw = torch.Generator().manual_seed(3)
    return flow, 1.3 * torch.randn(points, 2, generator=draw).double()


def stop_after(flow, x, k):
    """Where the points are after k layers, and their log-density if the flow ended there."""
    with torch.no_grad():
        z, log_det = flow.bijection[:k](x) if k else (x, torch.zeros(len(x)).double())
        return z, StandardNormal(2).double().log_prob(z), log_det


PLACES = """e => [...e.querySelectorAll("[data-cloud]")].flatMap((path) => {
    const parts = path.getAttribute("d").slice(1).split("M");
    const at = parts.map((part) => part.slice(0, -2).split(" ").map(Number));
    return path.dataset.cloud.split(",").map((i, k) => [Number(i), ...at[k]]);
}).sort((a, b) => a[0] - b[0]).map(([, x, y]) => [x, y])"""


def shown_points(explorer):
    """The cloud's points in data units, from the paths that are drawn."""
    browser.settle(explorer)
    unit, middle = scale(explorer)
    return (torch.tensor(explorer.evaluate(PLACES)) - middle) / unit * torch.tensor([1, -1])


def scale(explorer):
    """Pixels a unit, and where the origin is."""
    unit, *middle = explorer.locator("svg").first.evaluate(
        "e => [e.dataset.unit, ...e.dataset.middle.split(',')].map(Number)"
    )
    return unit, torch.tensor(middle)


@in_browser
def test_its_numbers_are_flowlibs(watch):
    flow, x = make()
    explorer = browser.alone(watch(), LayersExplorer(flow, x, point=7))
    for k in range(5):
        browser.put_sliders(explorer, {"depth": k})
        z, base, log_det = stop_after(flow, x, k)
        torch.testing.assert_close(shown_points(explorer), z.float(), atol=2e-3, rtol=0)
        numbers = browser.readouts(explorer)
        assert numbers["nll"] == pytest.approx(-(base + log_det).mean().item(), abs=3e-3)
        assert numbers["base"] == pytest.approx(base[7].item(), abs=2e-2)
        assert numbers["det"] == pytest.approx(log_det[7].item(), abs=1e-3)
        assert numbers["sum"] == pytest.approx(numbers["base"] + numbers["det"], abs=1e-9)


@in_browser
def test_between_two_layers_points_travel_straight(watch):
    flow, x = make()
    explorer = browser.alone(watch(), LayersExplorer(flow, x, depth=1.5))
    middle = (stop_after(flow, x, 1)[0] + stop_after(flow, x, 2)[0]) / 2
    torch.testing.assert_close(shown_points(explorer), middle.float(), atol=2e-3, rtol=0)
    assert "up and down only" in explorer.locator(".fl-say").inner_text()  # it keeps the first
    browser.put_sliders(explorer, {"depth": 2.5})
    browser.settle(explorer)
    assert "left and right only" in explorer.locator(".fl-say").inner_text()


@in_browser
def test_the_marker_is_dragged_and_takes_the_keys(watch):
    one = watch()
    explorer = browser.alone(one, LayersExplorer(*make()))
    marker = explorer.locator('[data-handle="depth"]')
    browser.drag(one.page, marker, 120, 0)
    browser.settle(explorer)
    dragged = float(marker.get_attribute("aria-valuenow"))
    assert 1 < dragged < 2.5
    marker.focus()
    one.page.keyboard.press("ArrowRight")
    browser.settle(explorer)
    assert float(marker.get_attribute("aria-valuenow")) > dragged
    explorer.locator("input").focus()
    for _ in range(200):
        one.page.keyboard.press("ArrowRight")
    browser.settle(explorer)
    assert explorer.locator("input").evaluate("e => Number(e.value)") == 4


@in_browser
def test_a_finger_drags_the_marker(watch):
    one = watch(width=390, has_touch=True, is_mobile=True)
    explorer = browser.alone(one, LayersExplorer(*make()))
    marker = explorer.locator('[data-handle="depth"]')
    marker.evaluate("e => e.scrollIntoView({ block: 'center' })")
    scrolled = one.page.evaluate("scrollY")
    browser.swipe(one, marker, 100, 20)
    browser.settle(explorer)
    assert float(marker.get_attribute("aria-valuenow")) > 0.5
    assert abs(one.page.evaluate("scrollY") - scrolled) < 2 or scrolled == 0


@in_browser
def test_the_task_is_solved_by_choosing_a_point_of_the_data(watch):
    flow, x = make()
    final = stop_after(flow, x, 4)[0].norm(dim=1)
    far = int(final.argmax())
    assert final[far] > 2
    one = watch()
    explorer = browser.alone(one, LayersExplorer(flow, x))
    assert not solved(explorer)
    unit, middle = scale(explorer)
    box = explorer.locator("svg").first.bounding_box()
    right, down = (middle + unit * x[far] * torch.tensor([1, -1])).tolist()
    one.page.mouse.click(box["x"] + right, box["y"] + down)
    assert solved(explorer)
    explorer.locator('[data-preset="latent"]').click()
    assert not solved(explorer)  # among the latents it is no riddle
    explorer.locator('[data-action="reset"]').click()
    assert not solved(explorer)
    assert browser.readouts(explorer)["det"] == 0


@in_browser
def test_the_arrow_keys_go_from_point_to_point(watch):
    one = watch()
    explorer = browser.alone(one, LayersExplorer(*make()))
    point = explorer.locator('[data-handle="point"]')
    before = point.get_attribute("aria-valuetext")
    point.focus()
    one.page.keyboard.press("ArrowRight")
    browser.settle(explorer)
    assert point.get_attribute("aria-valuetext") != before


@in_browser
@pytest.mark.parametrize("motion", ["no-preference", "reduce"])
def test_it_plays_there_and_back_until_it_is_stopped(watch, motion):
    one = watch(reduced_motion=motion)
    flow, x = make(n_layers=2)
    explorer = browser.alone(one, LayersExplorer(flow, x, depth=2.0))
    play = explorer.locator('[data-action="play"]')
    play.click()
    assert play.inner_text() == "stop"
    for goal in ("== 3", "< 2", "== 0", "> 0.5"):
        one.page.wait_for_function(f"document.querySelector('input').value {goal}")
    play.click()
    assert play.inner_text() == "play"


@in_browser
def test_the_grid_is_carried_by_the_flow(watch):
    flow, x = make()
    widget = LayersExplorer(flow, x)
    lines = torch.tensor(widget.grid)
    lines = lines.reshape(*lines.shape[:2], -1, 2).double()
    assert len(lines) == len(widget.layers) + 1
    low, high = x.min(0).values, x.max(0).values
    edge = 0.08 * (high - low)
    assert torch.allclose(lines[0].flatten(0, 1).min(0).values, low - edge, atol=0.01)
    assert torch.allclose(lines[0].flatten(0, 1).max(0).values, high + edge, atol=0.01)
    for k in range(len(widget.layers) + 1):
        carried = stop_after(flow, lines[0].flatten(0, 1), k)[0]
        assert torch.allclose(lines[k].flatten(0, 1), carried, atol=0.03)
    explorer = browser.alone(watch(), widget)
    unit, middle = scale(explorer)
    browser.put_sliders(explorer, {"depth": 2})
    browser.settle(explorer)
    d = explorer.locator("svg").first.locator("path").nth(1).get_attribute("d")
    drawn = [[float(v) for v in p.split()] for l in d.split("M")[1:] for p in l.split("L")]
    found = (torch.tensor(drawn) - middle) / unit * torch.tensor([1, -1])
    assert torch.allclose(found.double(), lines[2].flatten(0, 1), atol=2e-4)


def test_layers_are_named_and_the_flow_is_copied():
    flow, x = make(n_layers=2)
    before = [p.clone() for p in flow.parameters()]
    explorer = LayersExplorer(flow.float(), x, truth=2.5)
    assert explorer.layers == ["ActNorm", "Coupling", "Coupling"]
    assert next(flow.parameters()).dtype == torch.float32
    assert all(torch.equal(a.float(), b) for a, b in zip(before, flow.parameters(), strict=True))
    assert len(LayersExplorer(Flow(LULinear(2), StandardNormal(2)), x).layers) == 1


def test_at_first_the_point_is_chosen_that_ends_in_the_middle():
    flow, x = make()
    assert LayersExplorer(flow, x).point == int(stop_after(flow, x, 4)[0].norm(dim=1).argmin())


def test_no_randomness_is_touched():
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    LayersExplorer()
    assert torch.equal(torch.rand(3), expected)


def test_four_hundred_points_make_a_page_that_loads():
    flow, x = make(n_layers=6, points=400)
    assert len(LayersExplorer(flow, x)._repr_mimebundle_()[0]["text/html"]) < 210_000


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((nn.Linear(2, 2), torch.zeros(5, 2)), TypeError, "a Flow or a Bijection, got a Linear"),
        ((RealNVP(2), None), TypeError, "expected points x"),
        ((RealNVP(2), torch.zeros(5, 3)), ValueError, r"2 to 600 points, got shape \(5, 3\)"),
        ((RealNVP(2), torch.zeros(601, 2)), ValueError, r"got shape \(601, 2\)"),
        ((RealNVP(3), torch.zeros(5, 2)), ValueError, r"for a flow on \(3,\)"),
        (
            (Flow(LULinear(2), DiagonalNormal([0.0, 0.0], [1.0, 1.0])), torch.zeros(5, 2)),
            ValueError,
            "StandardNormal base, got a DiagonalNormal",
        ),
        ((RealNVP(2, context_dim=1), torch.zeros(5, 2)), ValueError, "without a context"),
        ((RealNVP(2), torch.tensor([[0.0, 1.0], [torch.inf, 0.0]])), ValueError, "not finite"),
        (
            (Compose([]), torch.zeros(5, 2)),
            ValueError,
            "LayersExplorer: expected a flow with at least one step",
        ),
    ],
)
def test_what_does_not_fit_is_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        LayersExplorer(*arguments)


def test_a_layer_that_is_not_finite_is_named():
    broken = Compose([Permutation([1, 0]), ActNorm(2)])
    broken[1].log_scale.data.fill_(torch.inf)
    with pytest.raises(ValueError, match="layer 2 is not finite"):
        LayersExplorer(broken, torch.ones(5, 2))


@pytest.mark.parametrize(
    ("trait", "value", "message"),
    [
        ("depth", 4.5, "from 0 to 4, got 4.5"),
        ("depth", -0.1, "got -0.1"),
        ("point", 40, "from 0 to 39, got 40"),
        ("truth", float("nan"), "finite number, got nan"),
    ],
)
def test_what_an_attribute_cannot_take(trait, value, message):
    flow, x = make()
    with pytest.raises(TraitError, match=message):
        LayersExplorer(flow, x, **{trait: value})


CONTRASTS = """e => {
  const brush = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const light = (color) => {
    brush.fillStyle = color;
    brush.fillRect(0, 0, 1, 1);
    const rgb = [...brush.getImageData(0, 0, 1, 1).data].slice(0, 3).map((v) => v / 255);
    const [r, g, b] = rgb.map((v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b + 0.05;
  };
  const paper = light(getComputedStyle(e).backgroundColor);
  return [...e.querySelectorAll("[data-cloud]")]
    .map((n) => light(getComputedStyle(n).stroke) / paper)
    .map((ratio) => Math.max(ratio, 1 / ratio));
}"""


@in_browser
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_every_point_stands_out_from_the_paper(watch, theme):
    explorer = browser.alone(watch(color_scheme=theme), LayersExplorer(*make()))
    found = explorer.evaluate(CONTRASTS)
    assert len(found) == 12
    assert min(found) > 2


@in_browser
def test_hardly_a_point_is_outside_of_the_picture(watch):
    explorer = browser.alone(watch(width=374), LayersExplorer(*make(points=400)))
    outside = """e => {
      const { width, height } = e.querySelector("svg").viewBox.baseVal;
      return [...e.querySelectorAll("[data-cloud]")]
        .flatMap((n) => n.getAttribute("d").slice(1).split("M"))
        .map((d) => d.slice(0, -2).split(" "))
        .filter(([x, y]) => x < 3 || x > width - 3 || y < 3 || y > height - 3).length;
    }"""
    assert explorer.evaluate(outside) <= 2
