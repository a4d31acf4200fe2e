"""JacobianExplorer in a real browser: its numbers are autodiff's, at every point and step."""

import itertools
import math

import numpy as np
import pytest
import torch
from torch import nn
from traitlets import TraitError

from flowlib import (
    ActNorm,
    Affine,
    Bijection,
    Compose,
    Coupling,
    Flow,
    Inverse,
    Logit,
    LULinear,
    Permutation,
    RealNVP,
    StandardNormal,
    half_mask,
)
from flowlib.widgets import JacobianExplorer
from tests import browser
from tests.browser import solved, state
from tests.models import shaken

in_browser = pytest.mark.browser


def some_points(count, dim, seed=0):
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(count, dim, generator=draw).double()


def realnvp(dim, n_layers=4):
    return shaken(lambda: RealNVP(dim, n_layers=n_layers, hidden=(16,)), seed=dim)


def linear():
    return shaken(lambda: Flow(LULinear(3), StandardNormal(3)))


class Matrix(Bijection):
    """A matrix that may be singular, and a log-determinant that may be a lie."""

    def __init__(self, matrix, claimed=0.0):
        super().__init__()
        self.register_buffer("matrix", torch.as_tensor(matrix, dtype=torch.float64))
        self.claimed = claimed

    def forward(self, x, context=None):
        return x @ self.matrix.T, x.new_full(x.shape[:1], self.claimed)

    def inverse(self, z, context=None):
        raise NotImplementedError


def truth(flow, x, step, composed):
    """The Jacobian by torch, of the step at its own input or of all up to it, and the claim."""
    items = flow.bijection if isinstance(flow.bijection, Compose) else Compose([flow.bijection])
    if not composed:
        x, _ = items[:step](x[None])
        x, items = x[0], items[step : step + 1]
    else:
        items = items[: step + 1]
    jacobian = torch.autograd.functional.jacobian(lambda u: items(u[None])[0][0], x)
    return jacobian, items(x[None])[1].item()


def go(jac, **traits):
    """Put the explorer where the buttons would, by the buttons."""
    page = jac.page
    if "step" in traits:
        jac.locator(f'[data-step="{traits["step"]}"]').click()
    if "composed" in traits and jac.locator("[data-composed]").count():  # not of a single step
        jac.locator(f'[data-composed="{str(traits["composed"]).lower()}"]').click()
    if "sort" in traits and state(jac, "sort") != traits["sort"]:
        jac.locator('[data-action="sort"]').click()
    while "point" in traits and state(jac, "point") != traits["point"]:
        jac.locator('[data-action="next"]').click()
        browser.settle(jac)
    browser.settle(jac)
    return page


def said(jac):
    browser.settle(jac)
    return jac.locator(".fl-say").inner_text()


# --- its numbers --------------------------------------------------------------------------


@in_browser
@pytest.mark.parametrize(
    "flow",
    [
        pytest.param(realnvp(4), id="realnvp-4"),
        pytest.param(realnvp(6), id="realnvp-6"),
        pytest.param(linear(), id="linear-3"),
    ],
)
def test_every_readout_is_torchs(watch, flow):
    x = some_points(3, flow.event_shape[0])
    widget = JacobianExplorer(flow, x)
    jac = browser.alone(watch(), widget)
    names = ("point", "step", "composed", "sort")
    cases = list(
        itertools.product(range(3), range(len(widget.steps)), (False, True), (True, False))
    )
    states = [dict(zip(names, case, strict=True)) for case in cases]
    found = browser.each(jac, states, browser.READOUTS)
    for (point, step, composed, sort), shown in zip(cases, found, strict=True):
        jacobian, claimed = truth(flow, x[point], step, composed)
        structure = widget.steps[step]["structure"][composed]
        natural = list(range(len(jacobian)))
        rows = structure["rows"] if sort else natural
        columns = structure["columns"] if sort else natural
        expected = {
            "zeros": (jacobian == 0).sum().item(),
            "diagonal": jacobian[rows][:, columns].diagonal().abs().log().sum().item(),
            "slogdet": torch.linalg.slogdet(jacobian)[1].item(),
            "claimed": claimed,
        }
        if "zero_block" in shown:
            expected["zero_block"] = 0.0
            if widget.steps[step]["kept"] and not composed:
                kept = widget.steps[step]["kept"]
                moved = [i for i in natural if i not in kept]
                assert jacobian[kept][:, moved].abs().max() == 0
        assert shown == pytest.approx(expected, abs=1e-6), (point, step, composed, sort)
        assert shown["claimed"] == pytest.approx(shown["slogdet"], abs=1e-6)
        if sort and structure["triangular"]:
            assert shown["diagonal"] == pytest.approx(shown["slogdet"], abs=1e-6)


@in_browser
@pytest.mark.parametrize(
    "matrix",
    [
        [[0.0, 2.0], [3.0, 0.0]],
        [[0.0, 1.0, 0.0], [0.0, 0.0, -2.0], [0.5, 0.0, 0.0]],
        [[1e-9, 1.0, 2.0], [3.0, 4.0, 5.0], [6.0, 7.0, 9.0]],
        [[1.0, 2.0], [2.0, 4.0]],
        [[1.0, 2.0, 3.0], [0.0, 0.0, 0.0], [4.0, 5.0, 6.0]],
        np.random.default_rng(0).normal(size=(16, 16)).round(6),
    ],
)
def test_elimination_with_swaps_and_singular_matrices(watch, matrix):
    matrix = np.asarray(matrix)
    claimed = np.linalg.slogdet(matrix)[1] if np.linalg.det(matrix) else 0.25
    jac = browser.alone(
        watch(), JacobianExplorer(Matrix(matrix, claimed), some_points(2, len(matrix)))
    )
    slogdet = browser.readouts(jac)["slogdet"]
    assert slogdet == pytest.approx(np.linalg.slogdet(matrix)[1], abs=1e-6)
    if slogdet == -math.inf:
        assert "−∞" in jac.locator('[data-readout="slogdet"]').inner_text()
        assert "The layer says 0.250" in said(jac)


@in_browser
def test_a_wrong_order_is_called_wrong(watch):
    widget = JacobianExplorer(linear(), some_points(1, 3), order=[2, 0, 1])
    jac = browser.alone(watch(), widget)
    jacobian = np.array(widget.table[0][0]["jacobian"][0])[[2, 0, 1]][:, [2, 0, 1]]
    assert browser.readouts(jac)["zero_block"] == abs(np.triu(jacobian, 1)).max()
    assert "that structure is wrong" in said(jac)


# --- moving it ----------------------------------------------------------------------------


@in_browser
def test_words_differ_for_every_kind_of_step(watch):
    jac = browser.alone(watch(), JacobianExplorer())
    words = {}
    for step, composed, sort, part in (
        (0, False, True, "Diagonal"), (1, False, True, "Triangular in blocks. The coupling keeps"),
        (1, True, True, "Triangular: each output"), (3, False, True, "A permutation only moves"),
        (3, False, False, "is −∞"), (5, True, True, "no order makes it triangular"),
    ):  # fmt: skip
        go(jac, step=step, composed=composed, sort=sort)
        words[step, composed, sort] = said(jac)
        assert part in words[step, composed, sort]
    assert len(set(words.values())) == len(words)


@in_browser
def test_the_task(watch):
    widget = JacobianExplorer()
    full = [(np.array(s["jacobian"][1]) != 0).all() for s in widget.table[0]]
    first = full.index(True)
    assert first > 1
    jac = browser.alone(watch(), widget)
    for step, composed in itertools.product(range(len(full)), (False, True)):
        go(jac, step=step, composed=composed)
        assert solved(jac) == (composed and step == first), (step, composed)
    jac.locator('[data-action="reset"]').click()
    assert not solved(jac)
    assert state(jac, "step") == 0


@in_browser
def test_a_flow_that_never_fills_has_another_task(watch):
    layer = Coupling(
        half_mask(2), nn.Sequential(nn.Linear(1, 8), nn.Tanh(), nn.Linear(8, 2)), Affine(1)
    )
    x = some_points(5, 2)
    flow = shaken(lambda: Flow(Compose([ActNorm(2), layer]), StandardNormal(2)))
    best = flow.bijection(x)[1].argmax().item()
    jac = browser.alone(watch(), JacobianExplorer(flow, x))
    jac.locator('[data-action="all"]').click()
    for point in range(5):
        go(jac, point=point)
        assert solved(jac) == (point == best)


@in_browser
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_a_drag_snaps_to_the_nearest_point(watch, theme):
    one = watch(color_scheme=theme)
    widget = JacobianExplorer()
    jac = browser.alone(one, widget)
    dots = jac.locator("[data-point]")
    box = [dots.nth(k).bounding_box() for k in range(6)]
    handle = jac.locator('[data-handle="point"]')
    browser.drag(one.page, handle, box[3]["x"] - box[0]["x"] + 6, box[3]["y"] - box[0]["y"] - 5)
    assert state(jac, "point") == 3
    assert state(jac, "custom") == []
    dots.nth(4).click(force=True)
    assert state(jac, "point") == 4
    assert "point 5 of 6" in handle.get_attribute("aria-valuetext")


@in_browser
def test_touch_moves_the_point_and_not_the_page(watch):
    one = watch(width=390, height=844, has_touch=True, is_mobile=True)
    jac = browser.alone(one, JacobianExplorer())
    handle = jac.locator('[data-handle="point"]')
    handle.scroll_into_view_if_needed()
    before = one.page.evaluate("scrollY")
    start, end = (jac.locator("[data-point]").nth(k).bounding_box() for k in (0, 1))
    browser.swipe(one, handle, end["x"] - start["x"], end["y"] - start["y"])
    assert state(jac, "point") == 1
    assert one.page.evaluate("scrollY") == before
    jac.locator('[data-step="2"]').tap()
    assert state(jac, "step") == 2


@in_browser
def test_keyboard(watch):
    one = watch()
    widget = JacobianExplorer(step=1)
    jac = browser.alone(one, widget)
    jac.locator('[data-step="1"]').focus()
    one.page.keyboard.press("ArrowRight")
    assert state(jac, "step") == 2
    assert jac.locator('[data-step="2"]').evaluate("e => e === document.activeElement")
    x = np.array([steps[0]["input"] for steps in widget.table])
    jac.locator('[data-handle="point"]').focus()
    one.page.keyboard.press("ArrowUp")
    point = state(jac, "point")
    assert x[point, 1] > x[0, 1]
    jac.locator('[data-action="previous"]').press("Enter")
    assert state(jac, "point") == (point - 1) % 6
    jac.locator(".fl-heat").focus()
    for key in ("ArrowDown", "ArrowDown", "ArrowRight"):
        one.page.keyboard.press(key)
    go(jac, point=0, step=1)
    value = widget.table[0][1]["jacobian"][0][1][1]
    assert value == 1
    assert jac.locator("[data-cell]").inner_text() == "∂z2/∂x2 = 1"


@in_browser
def test_other_axes_and_names(watch):
    names = ["bill", "flipper", "mass", "<age>"]
    jac = browser.alone(watch(), JacobianExplorer(realnvp(4), some_points(4, 4), names))
    jac.locator('[data-axis="0"]').select_option("3")
    assert state(jac, "axes") == [3, 1]
    jac.locator('[data-axis="0"]').select_option("1")
    assert state(jac, "axes") == [1, 3]
    jac.locator(".fl-heat").press("ArrowDown")
    browser.settle(jac)
    assert "(x1: bill)" in jac.locator("[data-cell]").inner_text()


@in_browser
def test_with_a_kernel_the_point_goes_anywhere(watch):
    """A page whose model says that there is a kernel, which is this test."""
    one, widget = watch(), JacobianExplorer(step=1)
    html = widget._page()
    assert "_kernel" not in widget.state()  # so that a published page knows that it has none
    place = '{\\"answer\\"'
    assert html.count(place) == 1
    one.page.set_content(html.replace(place, '{\\"_kernel\\": true, \\"answer\\"'))
    jac = one.page.locator('.fl-explorer[data-alive="true"]')
    jac.wait_for()
    browser.drag(one.page, jac.locator('[data-handle="point"]'), -60, -40)
    custom = state(jac, "custom")
    x = widget.table[0][0]["input"]
    assert custom[2:] == x[2:]
    assert custom[0] < x[0] - 0.1
    assert custom[1] > x[1] + 0.1
    assert "waiting for the kernel" in jac.inner_text()
    widget.custom = custom
    one.page.set_content(widget._page())
    jac.wait_for()
    assert "a point of your own" in jac.inner_text()
    expected = widget.answer["steps"][1]["claimed"][0]
    assert browser.readouts(jac)["slogdet"] == pytest.approx(expected, abs=1e-6)
    jac.locator('[data-action="next"]').click()
    assert state(jac, "custom") == []


# --- the Python side ----------------------------------------------------------------------


def test_a_custom_point_is_recomputed():
    flow, x = realnvp(4), some_points(2, 4)
    jac = JacobianExplorer(flow, x)
    assert jac.answer == {}
    place = torch.tensor([0.5, -1.0, 2.0, 0.25], dtype=torch.float64)
    jac.custom = place.tolist()
    assert jac.answer["at"] == place.tolist()
    for step, shown in enumerate(jac.answer["steps"]):
        for composed in (False, True):
            jacobian, claimed = truth(flow, place, step, composed)
            torch.testing.assert_close(
                torch.tensor(shown["jacobian"][composed], dtype=torch.float64), jacobian
            )
            assert shown["claimed"][composed] == pytest.approx(claimed, abs=1e-7)
    jac.custom = []
    assert jac.answer == {}


def test_where_the_flow_is_not_defined_it_says_so():
    jac = JacobianExplorer(Logit(), torch.tensor([[0.2, 0.7]]))
    jac.custom = [0.5, 1.5]
    assert "steps" not in jac.answer
    assert jac.answer["error"]


def test_the_flow_and_the_global_randomness_stay_as_they_are():
    flow = RealNVP(4, n_layers=2).train()
    before, state = torch.get_rng_state(), {k: v.clone() for k, v in flow.state_dict().items()}
    with torch.no_grad():
        JacobianExplorer(flow, torch.zeros(1, 4))
    JacobianExplorer()
    assert torch.equal(torch.get_rng_state(), before)
    assert flow.training
    assert all(torch.equal(v, state[k]) for k, v in flow.state_dict().items())
    assert all(p.grad is None and p.dtype == torch.float32 for p in flow.parameters())


def test_structures():
    coupling = Coupling(half_mask(3), nn.Linear(1, 4), Affine(2))
    steps = [ActNorm(3), coupling, Inverse(Permutation([2, 0, 1])), LULinear(3)]
    orders = [None, None, None, [1, 0, 2]]
    jac = JacobianExplorer(Compose(steps), torch.zeros(1, 3), order=orders)
    alone = [step["structure"][0] for step in jac.steps]
    assert [s["support"] for s in alone] == [
        ["100", "010", "001"], ["100", "110", "101"], ["010", "001", "100"], ["110", "010", "111"],
    ]  # fmt: skip
    assert [s["rows"] for s in alone] == [[0, 1, 2], [0, 1, 2], [0, 1, 2], [1, 0, 2]]
    assert [s["columns"] for s in alone] == [[0, 1, 2], [0, 1, 2], [1, 2, 0], [1, 0, 2]]
    assert [step["name"] for step in jac.steps] == [
        "ActNorm",
        "Coupling",
        "Permutation⁻¹",
        "LULinear",
    ]
    nested = JacobianExplorer(Inverse(Compose(steps[:3])), torch.zeros(1, 3))
    support = nested.steps[0]["structure"][0]["support"]
    values = np.array(nested.table[0][0]["jacobian"][0])
    assert support == ["001", "101", "011"]
    assert (values[[[c == "0" for c in row] for row in support]] == 0).all()


def test_a_page_stays_small():
    assert len(JacobianExplorer()._page()) < 120_000
    assert len(JacobianExplorer(realnvp(6, 6), some_points(6, 6))._page()) < 200_000


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((None, torch.zeros(1, 2)), TypeError, "expected a Flow or a Bijection, got a NoneType"),
        ((nn.Linear(2, 2), torch.zeros(1, 2)), TypeError, "got a Linear"),
        ((LULinear(2),), TypeError, "expected points x"),
        ((LULinear(2), torch.zeros(2)), ValueError, "expected x"),
        ((LULinear(2), torch.zeros(0, 2)), ValueError, "expected x"),
        ((LULinear(2), torch.zeros(13, 2)), ValueError, "1 to 12 points"),
        ((LULinear(17), torch.zeros(1, 17)), ValueError, "2 to 16 coordinates"),
        ((LULinear(2), torch.zeros(1, 3)), ValueError, "expected"),
        ((RealNVP(3), torch.zeros(1, 2)), ValueError, r"for a flow on \(3,\)"),
        ((RealNVP(2, context_dim=1), torch.zeros(1, 2)), ValueError, "without a context"),
        ((LULinear(2), torch.full((1, 2), math.nan)), ValueError, "not finite"),
        (
            (Matrix([[1, 0], [0, 1]], math.inf), torch.zeros(1, 2)),
            ValueError,
            "step 1 is not finite",
        ),
        ((Compose([]), torch.zeros(1, 2)), ValueError, "at least one step"),
        ((LULinear(2), torch.zeros(1, 2), ["a"]), ValueError, "expected 2 names, got 1"),
        ((LULinear(2), torch.zeros(1, 2), None, [0, 0]), ValueError, "as order"),
        ((LULinear(2), torch.zeros(1, 2), None, [None, None]), ValueError, "each of 1 steps"),
    ],
)
def test_bad_arguments(arguments, error, message):
    with pytest.raises(error, match=message):
        JacobianExplorer(*arguments)


@pytest.mark.parametrize(
    ("traits", "message"),
    [
        ({"point": 6}, "point: expected an index from 0 to 5, got 6"),
        ({"step": -1}, "step: expected an index"),
        ({"axes": [1, 1]}, "axes: expected two different coordinates from 0 to 3"),
        ({"axes": [0, 4]}, "axes"),
        ({"custom": [1.0]}, r"custom: expected finite numbers of shape \(4,\) or an empty list"),
        ({"custom": [0, 0, 0, math.inf]}, "custom"),
        ({"custom": ["a", 0, 0, 0]}, "custom"),
    ],
)
def test_bad_states(traits, message):
    with pytest.raises(TraitError, match=message):
        JacobianExplorer(**traits)
