"""WarpExplorer in a real browser: alive without a kernel, moved by hand, equal to flowlib."""

import math
import random

import pytest
import torch

from flowlib import Flow, LULinear, StandardNormal
from flowlib.widgets import WarpExplorer
from tests import browser

pytestmark = pytest.mark.browser
ENTRIES = ("a11", "a12", "a21", "a22")


def numbers(warp):
    """The state, and every number shown, in full precision."""
    shown = browser.readouts(warp)
    matrix, point = (
        [float(v) for v in warp.get_attribute(f"data-{name}").split(",")]
        for name in ("matrix", "point")
    )
    return matrix, point, shown


def put_sliders(warp, values):
    browser.put_sliders(warp, dict(zip(ENTRIES, values, strict=True)))


def test_its_numbers_are_flowlibs(watch):
    warp = browser.alone(watch(), WarpExplorer())
    rng = random.Random(0)
    base = StandardNormal(2).double()
    for _ in range(60):
        put_sliders(warp, [rng.randrange(-60, 61) / 20 for _ in ENTRIES])
        matrix, point, shown = numbers(warp)
        a = torch.tensor(matrix, dtype=torch.float64).reshape(2, 2)
        x = torch.tensor(point, dtype=torch.float64)
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


def test_a_flat_matrix_has_no_density(watch):
    one = watch()
    warp = browser.alone(one, WarpExplorer())
    warp.locator('[data-preset="flat"]').click()
    _, _, shown = numbers(warp)
    assert shown["log_det"] == shown["log_px"] == -math.inf
    assert "no density" in warp.locator(".fl-say").inner_text()
    assert "−∞" in warp.locator('[data-readout="log_px"]').inner_text()


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
    width = warp.locator("svg").first.bounding_box()["width"]
    browser.drag(one.page, warp.locator('[data-handle="column-1"]'), width / 12, -width / 6)
    assert numbers(warp)[0] == pytest.approx([1.75, 0.5, 0.75, 1.0], abs=0.03)
    browser.drag(one.page, warp.locator('[data-handle="point"]'), -width / 6, 0)
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

    def solved():
        return warp.locator("[data-task]").get_attribute("data-solved")

    for preset, expected in (
        ("identity", "false"), ("rotation", "false"), ("stretch", "false"), ("shear", "true"),
        ("flip", "false"), ("flat", "false"),
    ):  # fmt: skip
        warp.locator(f'[data-preset="{preset}"]').click()
        browser.settle(warp)
        assert solved() == expected, preset
    warp.locator('[data-preset="identity"]').click()
    warp.locator('[data-handle="column-2"]').focus()
    for _ in range(8):
        one.page.keyboard.press("ArrowRight")
    browser.settle(warp)
    assert solved() == "true"
    warp.locator('[data-action="reset"]').click()
    assert numbers(warp)[0] == [1.25, 0.5, -0.25, 1.0]
    assert solved() == "false"
