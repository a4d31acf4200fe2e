"""Explorers in a real browser: alive without a kernel, moved by hand, equal to flowlib."""

import math
import random

import pytest
import torch

from flowlib import Flow, LULinear, StandardNormal
from flowlib.widgets import WarpExplorer

pytestmark = pytest.mark.browser
PAGE = "chapters/01-change-of-variables.html"
ENTRIES = ("a11", "a12", "a21", "a22")


def open_warp(one, root=None):
    """The chapter's explorer on the site; without a site, a new one on an empty page."""
    if root is None:
        bundle, _ = WarpExplorer()._repr_mimebundle_()
        head = '<meta name="viewport" content="width=device-width">'
        one.page.set_content(head + bundle["text/html"] + '<div style="height: 3000px"></div>')
    else:
        one.page.goto(f"{root}/{PAGE}", wait_until="load")
    warp = one.page.locator('.fl-explorer[data-explorer="WarpExplorer"][data-alive="true"]')
    warp.wait_for()
    warp.scroll_into_view_if_needed()
    return warp


def settle(warp):
    warp.evaluate("() => new Promise(r => requestAnimationFrame(() => requestAnimationFrame(r)))")


def numbers(warp):
    """The state, and every number shown, in full precision."""
    settle(warp)
    shown = warp.evaluate(
        "e => Object.fromEntries([...e.querySelectorAll('[data-readout]')]"
        ".map(o => [o.dataset.readout, o.dataset.value]))"
    )
    matrix, point = (
        [float(v) for v in warp.get_attribute(f"data-{name}").split(",")]
        for name in ("matrix", "point")
    )
    return matrix, point, {name: float(value) for name, value in shown.items()}


def put_sliders(warp, values):
    warp.evaluate(
        "(e, values) => { for (const [name, v] of Object.entries(values)) {"
        " const s = e.querySelector(`input[data-name=${name}]`); s.value = v;"
        " s.dispatchEvent(new Event('input', { bubbles: true })); } }",
        dict(zip(ENTRIES, values, strict=True)),
    )


def drag(page, handle, dx, dy):
    box = handle.locator("circle").last.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + dx / 2, y + dy / 2)
    page.mouse.move(x + dx, y + dy)
    page.mouse.up()


@pytest.mark.parametrize("scheme", ["http", "file"])
def test_it_is_alive_without_a_kernel(watch, server, built, scheme):
    warp = open_warp(watch(), server if scheme == "http" else built.as_uri())
    matrix, point, shown = numbers(warp)
    assert matrix == [1.25, 0.5, -0.25, 1.0]
    assert point == [1, 1]
    assert shown["det"] == 1.375


def test_without_javascript_there_is_a_picture(watch, server):
    one = watch(java_script_enabled=False)
    one.page.goto(f"{server}/{PAGE}")
    picture = one.page.locator(".fl-explorer img")
    assert picture.is_visible()
    assert "unit square" in picture.get_attribute("alt")
    assert picture.bounding_box()["width"] > 300


def test_its_numbers_are_flowlibs(watch):
    warp = open_warp(watch())
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


def test_a_flat_matrix_has_no_density(watch, server):
    one = watch()
    warp = open_warp(one, server)
    warp.locator('[data-preset="flat"]').click()
    _, _, shown = numbers(warp)
    assert shown["log_det"] == shown["log_px"] == -math.inf
    assert "no density" in warp.locator(".fl-say").inner_text()
    assert "−∞" in warp.locator('[data-readout="log_px"]').inner_text()


def test_keyboard(watch, server):
    one = watch()
    warp = open_warp(one, server)
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
def test_mouse_in_both_themes(watch, server, theme):
    one = watch(color_scheme=theme)
    warp = open_warp(one, server)
    assert warp.evaluate("e => e.classList.contains('fl-dark')") == (theme == "dark")
    width = warp.locator("svg").first.bounding_box()["width"]
    drag(one.page, warp.locator('[data-handle="column-1"]'), width / 12, -width / 6)
    assert numbers(warp)[0] == pytest.approx([1.75, 0.5, 0.75, 1.0], abs=0.03)
    drag(one.page, warp.locator('[data-handle="point"]'), -width / 6, 0)
    assert numbers(warp)[1] == pytest.approx([0, 1], abs=0.03)
    other = "light" if theme == "dark" else "dark"
    one.page.evaluate(f"document.documentElement.dataset.theme = '{other}'")
    settle(warp)
    assert warp.evaluate("e => e.classList.contains('fl-dark')") == (other == "dark")


def test_touch_moves_the_handle_and_not_the_page(watch):
    one = watch(width=390, height=844, has_touch=True, is_mobile=True)
    warp = open_warp(one)
    handle = warp.locator('[data-handle="column-1"]')
    handle.scroll_into_view_if_needed()
    box = handle.locator("circle").last.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    before = one.page.evaluate("scrollY")
    session = one.context.new_cdp_session(one.page)
    for kind, points in (
        ("touchStart", [(x, y)]), ("touchMove", [(x, y - 20)]), ("touchMove", [(x, y - 50)]),
        ("touchEnd", []),
    ):  # fmt: skip
        session.send(
            "Input.dispatchTouchEvent",
            {"type": kind, "touchPoints": [{"x": a, "y": b} for a, b in points]},
        )
    matrix = numbers(warp)[0]
    assert matrix[2] > 0.4
    assert matrix[0] == pytest.approx(1.25, abs=0.03)
    assert one.page.evaluate("scrollY") == before


def test_presets_reset_and_task(watch, server):
    one = watch()
    warp = open_warp(one, server)

    def solved():
        return warp.locator("[data-task]").get_attribute("data-solved")

    for preset, expected in (
        ("identity", "false"), ("rotation", "false"), ("stretch", "false"), ("shear", "true"),
        ("flip", "false"), ("flat", "false"),
    ):  # fmt: skip
        warp.locator(f'[data-preset="{preset}"]').click()
        settle(warp)
        assert solved() == expected, preset
    warp.locator('[data-preset="identity"]').click()
    warp.locator('[data-handle="column-2"]').focus()
    for _ in range(8):
        one.page.keyboard.press("ArrowRight")
    settle(warp)
    assert solved() == "true"
    warp.locator('[data-action="reset"]').click()
    assert numbers(warp)[0] == [1.25, 0.5, -0.25, 1.0]
    assert solved() == "false"
