"""KLExplorer in a real browser: its divergences are flowlib's, its slides end in true minima."""

import math
import random

import pytest
import torch
from traitlets import TraitError

from flowlib import ElementwiseAffine, Flow, StandardNormal
from flowlib.widgets import KLExplorer
from tests import browser
from tests.browser import solved

pytestmark = pytest.mark.browser
DEFAULT = {"bumps": [[-2.5, 0.6], [2.5, 0.6]], "weight": 0.5, "q": [0.5, 1.0]}
# Four times as fine as the explorer's, and wider.
GRID = torch.arange(-80 * 512, 80 * 512 + 1, dtype=torch.float64) / 512


def log_data(bumps, weight):
    """log p on the grid."""
    shares = torch.tensor([weight, 1 - weight], dtype=torch.float64).log()
    normals = [torch.distributions.Normal(*bump) for bump in torch.tensor(bumps, dtype=GRID.dtype)]
    return torch.logsumexp(
        torch.stack([s + n.log_prob(GRID) for s, n in zip(shares, normals, strict=True)]), 0
    )


def log_model(m, s):
    """log q on the grid, as a flow: z = (x - m) / s."""
    flow = Flow(ElementwiseAffine(1), StandardNormal(1)).double()
    with torch.no_grad():
        flow.bijection.log_scale.fill_(-math.log(s))
        flow.bijection.loc.fill_(m)
        return flow.log_prob(GRID[:, None])


def divergence(log_a, log_b):
    return torch.trapezoid(log_a.exp() * (log_a - log_b), GRID).item()


def state(kl):
    """The explorer's state, and every number shown, in full precision."""
    (a, sa, b, sb), weight, q = browser.state(kl, "bumps", "weight", "q")
    return {"bumps": [[a, sa], [b, sb]], "weight": weight, "q": q}, browser.readouts(kl)


def pairs(text):
    return [[float(v) for v in pair.split(",")] for pair in text.split(";")]


def minima(kl):
    browser.settle(kl)
    return pairs(kl.get_attribute("data-minima"))


def slide(kl, kind):
    kl.locator(f'[data-slide="{kind}"]').click()
    kl.and_(kl.page.locator('[data-sliding="false"]')).wait_for()
    return state(kl)


# Presses a button and says where q ends: (q, minima, reverse KL before, and after).
SLID = """async (e) => {
  const reverse = () => Number(e.querySelector('[data-readout="reverse"]').dataset.value);
  const before = reverse();
  e.querySelector('[data-slide="%s"]').click();
  while (e.dataset.sliding === "true") await new Promise(requestAnimationFrame);
  await new Promise(requestAnimationFrame);
  return [e.dataset.q, e.dataset.minima, before, reverse()];
}"""


def slid(one, states, kind):
    """Each of the states, and what became of it."""
    kl = browser.alone(one, KLExplorer())
    for given, found in zip(states, browser.each(kl, states, SLID % kind), strict=True):
        q, places, before, after = found
        yield given, pairs(q)[0], pairs(places), before, after


def draw_state(rng):
    def gaussian(widest):
        return [rng.uniform(-4.5, 4.5), math.exp(rng.uniform(math.log(0.3), math.log(widest)))]

    return {
        "bumps": [gaussian(3), gaussian(3)],
        "weight": rng.uniform(0.05, 0.95),
        "q": gaussian(6),
    }


CORNERS = [
    {"bumps": [[-4.5, 0.3], [4.5, 0.3]], "weight": 0.5, "q": [-4.5, 6.0]},
    {"bumps": [[-4.5, 0.3], [4.5, 0.3]], "weight": 0.95, "q": [4.5, 0.3]},
    {"bumps": [[4.5, 3.0], [4.5, 0.3]], "weight": 0.05, "q": [-4.5, 0.3]},
    {"bumps": [[4.5, 3.0], [-4.5, 3.0]], "weight": 0.5, "q": [0.0, 6.0]},
    {"bumps": [[1.0, 1.0], [1.0, 1.0]], "weight": 0.5, "q": [1.0, 1.0]},
]


def test_its_numbers_are_flowlibs(watch):
    rng = random.Random(0)
    states = [DEFAULT, *CORNERS, *(draw_state(rng) for _ in range(60))]
    kl = browser.alone(watch(), KLExplorer())
    for given, shown in zip(states, browser.each(kl, states, browser.READOUTS), strict=True):
        log_p, log_q = log_data(given["bumps"], given["weight"]), log_model(*given["q"])
        expected = {"forward": divergence(log_p, log_q), "reverse": divergence(log_q, log_p)}
        for name, value in expected.items():
            assert math.isclose(shown[name], value, rel_tol=1e-9, abs_tol=1e-7), (name, given)
        assert [shown["m"], shown["s"]] == given["q"]
    for given in CORNERS:  # and on a page of its own
        assert state(browser.alone(watch(), KLExplorer(**given)))[0] == given


def test_forward_slides_to_the_moments_from_anywhere(watch):
    rng = random.Random(1)
    states = [CORNERS[3], *(draw_state(rng) for _ in range(15))]
    for given, q, places, _, _ in slid(watch(reduced_motion="reduce"), states, "forward"):
        p = log_data(given["bumps"], given["weight"]).exp()
        mean = torch.trapezoid(p * GRID, GRID).item()
        sd = torch.trapezoid(p * (GRID - mean) ** 2, GRID).sqrt().item()
        assert q == pytest.approx([mean, sd], abs=1e-4)
        assert places == [pytest.approx([mean, sd], abs=1e-9)]


def test_reverse_slides_to_where_the_gradient_vanishes(watch):
    rng = random.Random(2)
    states = [CORNERS[0], CORNERS[2], *(draw_state(rng) for _ in range(20))]
    for given, q, places, before, after in slid(watch(reduced_motion="reduce"), states, "reverse"):
        m, log_s = torch.tensor([q[0], math.log(q[1])], dtype=torch.float64)
        m.requires_grad_()
        log_s.requires_grad_()
        log_q = torch.distributions.Normal(m, log_s.exp()).log_prob(GRID)
        log_p = log_data(given["bumps"], given["weight"])
        loss = torch.trapezoid(log_q.exp() * (log_q - log_p), GRID)
        slopes = torch.stack(torch.autograd.grad(loss, [m, log_s]))
        assert slopes.abs().max() < 1e-3, given
        assert after <= before + 1e-12
        # and it is one of the minima that the landscape marks
        assert min(math.dist(q, place) for place in places) < 1e-3, given


@pytest.mark.parametrize(
    ("q", "end"), [([-1.5, 0.7], -2.5), ([1.5, 0.7], 2.5), ([0.0, 3.0], 0.0), ([0.5, 1.0], 2.5)]
)
def test_where_reverse_ends_depends_on_the_start(watch, q, end):
    kl = browser.alone(watch(reduced_motion="reduce"), KLExplorer(q=q))
    assert slide(kl, "reverse")[0]["q"][0] == pytest.approx(end, abs=0.01)
    assert [m for m, _ in minima(kl)] == pytest.approx([-2.5, 0, 2.5], abs=0.01)


def test_a_slide_takes_its_time_and_can_be_interrupted(watch):
    kl = browser.alone(watch(), KLExplorer())
    press = "e => { e.querySelector('[data-slide=reverse]').click(); return e.dataset.sliding; }"
    assert kl.evaluate(press) == "true"
    kl.and_(kl.page.locator('[data-sliding="false"]')).wait_for()
    assert state(kl)[0]["q"] == pytest.approx([2.5, 0.6], abs=1e-2)
    assert kl.evaluate(press.replace("reverse", "forward")) == "true"
    kl.locator('[data-action="reset"]').click()
    kl.page.wait_for_timeout(900)
    assert state(kl)[0] == DEFAULT


def test_the_landscape_is_switched(watch):
    kl = browser.alone(watch(), KLExplorer())
    image = "e => e.querySelector('canvas').toDataURL()"
    reverse, buttons = kl.evaluate(image), kl.locator("[data-landscape]")
    assert [b.get_attribute("aria-pressed") for b in buttons.all()] == ["false", "true"]
    kl.locator('[data-landscape="forward"]').click()
    assert [b.get_attribute("aria-pressed") for b in buttons.all()] == ["true", "false"]
    assert kl.evaluate(image) != reverse
    assert len(minima(kl)) == 1


def test_keyboard(watch):
    one = watch()
    kl = browser.alone(one, KLExplorer())

    def press(handle, *keys):
        kl.locator(f'[data-handle="{handle}"]').focus()
        for key in keys:
            one.page.keyboard.press(key)
        return state(kl)[0]

    assert press("q", "ArrowRight", "ArrowUp")["q"] == pytest.approx([0.55, 0.95])
    assert press("q-map", "Shift+ArrowLeft", "ArrowUp")["q"] == pytest.approx([0.3, 1.0])
    assert press("bump-1", "ArrowLeft", "ArrowDown")["bumps"][0] == pytest.approx([-2.55, 0.65])
    assert press("bump-2", *["Shift+ArrowRight"] * 12)["bumps"][1] == [4.5, 0.6]
    kl.locator('input[data-name="weight"]').focus()
    one.page.keyboard.press("ArrowLeft")
    assert state(kl)[0]["weight"] == pytest.approx(0.45)
    words = kl.locator('[data-handle="bump-1"]').get_attribute("aria-valuetext")
    assert words == "mean −2.55, standard deviation 0.65"


def test_an_arrow_key_leaves_the_other_number_alone(watch):
    kl = browser.alone(watch(), KLExplorer(q=[0.1234, 0.777]))
    for handle in ("q", "q-map"):
        kl.locator(f'[data-handle="{handle}"]').focus()
        kl.page.keyboard.press("ArrowRight")
    assert state(kl)[0]["q"] == pytest.approx([0.2, 0.777], abs=1e-12)


def units(kl):
    """Pixels for one unit of x, and for a density of one, in the upper panel."""
    places = [browser._centre(kl.locator(f'[data-handle="bump-{k}"]')) for k in (1, 2)]
    right = (places[1][0] - places[0][0]) / 5
    floor = kl.locator("svg").first.bounding_box()
    bottom = floor["y"] + floor["height"] * (1 - 8 / 218)
    return right, (bottom - places[0][1]) / (0.5 / (0.6 * math.sqrt(2 * math.pi)))


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_mouse_in_both_themes_and_the_task(watch, theme):
    one = watch(color_scheme=theme)
    kl = browser.alone(one, KLExplorer())
    assert not solved(kl)
    right, up = units(kl)
    height = 1 / math.sqrt(2 * math.pi)  # of q at first
    browser.drag(one.page, kl.locator('[data-handle="q"]'), 2 * right, -0.2 * up)
    kept, shown = state(kl)
    assert kept["q"] == pytest.approx([2.5, height / (height + 0.2)], abs=0.03)
    assert shown["reverse"] < 0.75
    assert shown["forward"] > 2
    assert solved(kl)
    assert "log 2 = 0.69 nats" in kl.locator("[data-task]").inner_text()
    browser.drag(one.page, kl.locator('[data-handle="q-map"]'), -50, -60)
    there = state(kl)[0]["q"]
    assert there[0] < 1.5
    assert there[1] > 1.2
    browser.drag(one.page, kl.locator('[data-handle="bump-1"]'), right, 0)
    assert state(kl)[0]["bumps"][0] == pytest.approx([-1.5, 0.6], abs=0.05)
    assert not solved(kl)


def test_at_the_top_the_scale_makes_room(watch):
    one = watch()
    kl = browser.alone(one, KLExplorer())
    x, y = browser._centre(kl.locator('[data-handle="q"]'))
    one.page.mouse.move(x, y)
    one.page.mouse.down()
    for k in range(40):
        one.page.mouse.move(x, y - 6 * k)
        browser.settle(kl)
    one.page.mouse.up()
    assert state(kl)[0]["q"] == pytest.approx([0.5, 0.3], abs=1e-2)


@pytest.mark.parametrize("width", [320, 390])
def test_touch_moves_the_handles_and_not_the_page(watch, width):
    one = watch(width=width, height=844, has_touch=True, is_mobile=True)
    kl = browser.alone(one, KLExplorer())
    for name, dx, dy in (("q", 40, 0), ("bump-1", -15, 0), ("q-map", 0, 40)):
        handle = kl.locator(f'[data-handle="{name}"]')
        handle.scroll_into_view_if_needed()
        before, page = state(kl)[0], one.page.evaluate("scrollY")
        browser.swipe(one, handle, dx, dy)
        after = state(kl)[0]
        assert one.page.evaluate("scrollY") == page
        if name == "bump-1":
            assert after["bumps"][0][0] < before["bumps"][0][0] - 0.3
        else:
            assert math.dist(after["q"], before["q"]) > 0.2


def test_it_is_rebuilt_for_another_width(watch):
    one = watch()
    kl = browser.alone(one, KLExplorer())
    wide = kl.locator("svg").first.get_attribute("viewBox")
    one.page.set_viewport_size({"width": 320, "height": 800})
    other = one.page.locator(f'svg:not([viewBox="{wide}"])')
    kl.locator("svg").first.and_(other).wait_for()
    kl.locator('[data-handle="q"]').focus()
    one.page.keyboard.press("ArrowRight")
    assert state(kl)[0]["q"] == pytest.approx([0.55, 1.0])


def test_presets_reset_and_words(watch):
    one = watch(reduced_motion="reduce")
    kl = browser.alone(one, KLExplorer())
    says = kl.locator(".fl-say")
    for preset, places, words in (
        ("two bumps", 3, "q falls between the bumps"),
        ("close together", 1, "make one hill"),
        ("unequal", 2, "q falls between the bumps"),
        ("one wide, one narrow", 2, "q falls between the bumps"),
    ):
        kl.locator(f'[data-preset="{preset}"]').click()
        assert len(minima(kl)) == places, preset
        assert words in says.inner_text(), preset
        assert not solved(kl)
    kl.locator('[data-action="reset"]').click()
    assert state(kl)[0] == DEFAULT
    slide(kl, "forward")
    assert "covers both bumps" in says.inner_text()
    slide(kl, "reverse")
    kl.locator('[data-action="reset"]').click()
    slide(kl, "reverse")
    assert "sits on one bump" in says.inner_text()
    assert "q is 2.0 times as dense as the data" in says.inner_text()
    assert "given to you" in kl.locator("[data-task]").inner_text()  # a slide solves nothing
    assert not solved(kl)
    kl.locator('[data-handle="q-map"]').focus()
    for key in ("Shift+ArrowRight", "Shift+ArrowLeft"):  # away, which must be seen
        for _ in range(3):
            one.page.keyboard.press(key)
        browser.settle(kl)
    assert solved(kl)
    kl.locator('[data-preset="unequal"]').click()
    assert not solved(kl)
    assert "with w from 0.4 to 0.6" in kl.locator("[data-task]").inner_text()


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        ({"bumps": [[0, 1]]}, r"bumps: expected finite numbers of shape \(2, 2\)"),
        ({"bumps": [[0, 1], [0, "a"]]}, "bumps"),
        ({"bumps": [[-5, 1], [0, 1]]}, "bumps: expected means from -4.5 to 4.5"),
        ({"bumps": [[0, 1], [0, 4]]}, "bumps: expected standard deviations from 0.3 to 3.0"),
        ({"q": [0, float("nan")]}, r"q: expected finite numbers of shape \(2,\)"),
        ({"q": [0, 0.1]}, "q: expected standard deviations from 0.3 to 6.0"),
        ({"weight": 1}, "weight: expected a number from 0.05 to 0.95, got 1"),
        ({"weight": float("nan")}, "weight"),
    ],
)
def test_it_refuses_what_it_cannot_show(bad, says):
    with pytest.raises(TraitError, match=says):
        KLExplorer(**bad)


def test_its_python_side():
    kl = KLExplorer(q=(0, 2))
    assert repr(kl) == "KLExplorer(q=[0.0, 2.0])"
    assert kl.state() == {**DEFAULT, "q": [0.0, 2.0]}
    assert "nan" not in kl.still()


def test_the_landscape_is_coarse_in_the_hand_and_fine_at_rest(watch):
    one = watch()
    kl = browser.alone(one, KLExplorer())
    width = "e => e.querySelector('canvas').width"
    assert kl.evaluate(width) == 96
    box = kl.locator('[data-handle="bump-1"] circle').last.bounding_box()
    one.page.mouse.move(box["x"] + 7, box["y"] + 7)
    one.page.mouse.down()
    one.page.mouse.move(box["x"] + 27, box["y"] + 7)
    browser.settle(kl)
    assert kl.evaluate(width) == 40
    assert len(minima(kl)) == 3  # places and values are exact all the same
    one.page.mouse.up()
    browser.settle(kl)
    assert kl.evaluate(width) == 96
