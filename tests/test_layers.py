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


def shown_points(explorer, half):
    """The cloud's points in data units, from the path that is drawn."""
    browser.settle(explorer)
    d = explorer.locator("[data-cloud]").get_attribute("d")
    pixels = [tuple(map(float, part[:-2].split())) for part in d.split("M")[1:]]
    return torch.tensor([[(u / 160 - 1) * half, (1 - v / 160) * half] for u, v in pixels])


def reach(explorer):
    """Half the width of the plane, from the radius of the inner circle, which is 1."""
    return 160 / float(explorer.locator("svg circle").first.get_attribute("r"))


@in_browser
def test_its_numbers_are_flowlibs(watch):
    flow, x = make()
    explorer = browser.alone(watch(), LayersExplorer(flow, x, point=7))
    half = reach(explorer)
    for k in range(5):
        browser.put_sliders(explorer, {"depth": k})
        z, base, log_det = stop_after(flow, x, k)
        inside = (z.abs() < half).all(1)
        torch.testing.assert_close(
            shown_points(explorer, half)[inside], z[inside].float(), atol=0.01 * half, rtol=0
        )
        numbers = browser.readouts(explorer)
        assert numbers["nll"] == pytest.approx(-(base + log_det).mean().item(), abs=3e-3)
        assert numbers["base"] == pytest.approx(base[7].item(), abs=2e-2)
        assert numbers["det"] == pytest.approx(log_det[7].item(), abs=1e-3)
        assert numbers["sum"] == pytest.approx(numbers["base"] + numbers["det"], abs=1e-9)


@in_browser
def test_between_two_layers_points_travel_straight(watch):
    flow, x = make()
    explorer = browser.alone(watch(), LayersExplorer(flow, x, depth=1.5))
    half = reach(explorer)
    middle = (stop_after(flow, x, 1)[0] + stop_after(flow, x, 2)[0]) / 2
    inside = (middle.abs() < half).all(1)
    torch.testing.assert_close(
        shown_points(explorer, half)[inside], middle[inside].float(), atol=0.01 * half, rtol=0
    )
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
    half = reach(explorer)
    box = explorer.locator("svg").first.bounding_box()
    u, v = (x[far] / half).tolist()
    one.page.mouse.click(
        box["x"] + box["width"] * (1 + u) / 2, box["y"] + box["height"] * (1 - v) / 2
    )
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
def test_it_plays_to_the_end_and_stops(watch, motion):
    one = watch(reduced_motion=motion)
    flow, x = make(n_layers=2)
    explorer = browser.alone(one, LayersExplorer(flow, x, depth=2.0))
    play = explorer.locator('[data-action="play"]')
    play.click()
    assert play.inner_text() == "stop"
    one.page.wait_for_function("document.querySelector('input').value == 3")
    explorer.locator('[data-action="play"]').get_by_text("play").wait_for()
    play.click()  # at the end, it begins anew
    one.page.wait_for_function("document.querySelector('input').value < 2")
    play.click()
    assert play.inner_text() == "play"


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
    assert len(LayersExplorer(flow, x)._repr_mimebundle_()[0]["text/html"]) < 140_000


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
