"""Every task is solved by keyboard alone, and by a finger alone; and what is solved stays so."""

import pytest

from flowlib.widgets import (
    CompletionExplorer,
    FixedPointExplorer,
    InversionExplorer,
    JacobianExplorer,
    KLExplorer,
    LayersExplorer,
    MaskExplorer,
    MultiscaleExplorer,
    RouletteExplorer,
    SplineExplorer,
    WarpExplorer,
)
from tests import browser
from tests.browser import solved

pytestmark = pytest.mark.browser
CENTRE = "e => e.scrollIntoView({ block: 'center' })"  # and not under the task, which is stuck
CUT = ["1,2,0", "1,2,1", "0,2,0", "0,3,0"]


class Hand:
    """What a reader does; a task's solution is written in these."""

    def __init__(self, one, explorer):
        self.one, self.explorer = one, explorer

    def find(self, selector):
        return self.explorer.locator(selector).locator("visible=true").first

    def solved(self):
        return solved(self.explorer)


class Keyboard(Hand):
    def press(self, selector):
        self.find(selector).focus()
        self.one.page.keyboard.press("Enter")

    def move(self, name, to):
        """A handle to a place of its panel, by arrow keys."""
        node = self.find(f'[data-handle="{name}"]')
        node.focus()
        for axis, keys in ((0, ("ArrowLeft", "ArrowRight")), (1, ("ArrowDown", "ArrowUp"))):
            for _ in range(200):
                here = self.place(name)
                if to[axis] is None or abs(here[axis] - to[axis]) < 0.026:
                    break
                self.one.page.keyboard.press(keys[here[axis] < to[axis]])
                browser.settle(self.explorer)

    def slide(self, name, to):
        node = self.find(f'input[data-name="{name}"]')
        node.focus()
        self.one.page.keyboard.press("Home")
        low, high, step = (float(node.get_attribute(n)) for n in ("min", "max", "step"))
        for _ in range(round((min(to, high) - low) / step)):
            self.one.page.keyboard.press("ArrowRight")

    def walk(self, selector, keys):
        self.find(selector).focus()
        for key in keys:
            self.one.page.keyboard.press(key)


class Finger(Hand):
    def press(self, selector):
        self.find(selector).tap()

    def move(self, name, to):
        node = self.find(f'[data-handle="{name}"]')
        node.evaluate(CENTRE)
        here = self.place(name)
        unit = self.unit(name)
        dx, dy = (0 if t is None else (t - h) * u for t, h, u in zip(to, here, unit, strict=True))
        browser.swipe(self.one, node, dx, -dy)
        browser.settle(self.explorer)

    def slide(self, name, to):
        node = self.find(f'input[data-name="{name}"]')
        node.evaluate(CENTRE)
        box = node.bounding_box()
        low, high = (float(node.get_attribute(n)) for n in ("min", "max"))
        share, thumb = (to - low) / (high - low), 16
        x = box["x"] + thumb / 2 + share * (box["width"] - thumb)
        self.one.page.touchscreen.tap(x, box["y"] + box["height"] / 2)


def described(hand, places, units):
    """Where handles are and how many pixels a unit has, for those that a task needs."""
    hand.place, hand.unit = places, units


def shear(hand):
    def column(name):
        return [browser.state(hand.explorer, "matrix")[k] for k in (1, 3)]

    size = hand.find("svg").evaluate("e => e.getBoundingClientRect().width")
    described(hand, column, lambda name: (size / 6.5, size / 6.5))
    hand.move("column-2", (None, 0.7))


def hills(hand):
    def place(name):
        k = int(name[-1]) - 1
        return k - 3, browser.state(hand.explorer, "knots")[k]

    ends = [hand.find(f'[data-handle="knot-{k}"]').evaluate("e => e.getCTM().f") for k in (1, 7)]
    unit = (ends[0] - ends[1]) / (place("knot-7")[1] - place("knot-1")[1])
    described(hand, place, lambda name: (1, unit))
    hand.move("knot-5", (None, 0.3))
    hand.move("knot-4", (None, 0.0))
    hand.move("knot-3", (None, -0.3))


def trust(hand):
    size = hand.find("svg").evaluate("e => e.getBoundingClientRect().width")
    described(
        hand, lambda name: browser.state(hand.explorer, "centre"), lambda name: (size / 6, size / 6)
    )
    hand.slide("stretch", 0.9)
    hand.slide("side", 0.3)
    hand.move("centre", (2.2, None))


def half(hand):
    def place(name):
        return hand.find(f'[data-handle="{name}"]').evaluate("e => [e.getCTM().e, -e.getCTM().f]")

    goal = hand.explorer.locator('svg circle[r="5.5"]').evaluate_all(
        "all => all.map(c => [c.cx.baseVal.value, -c.cy.baseVal.value])"
        ".sort((a, b) => a[0] - b[0]).at(-1)"
    )
    if isinstance(hand, Finger):
        described(hand, place, lambda name: (1, 1))
        hand.move("q-map", goal)
        return
    described(hand, lambda name: browser.state(hand.explorer, "q"), None)
    hand.move("q-map", (2.5, 0.6))


def edge(hand):
    if isinstance(hand, Keyboard):
        for key in ("ArrowRight", "ArrowUp", "ArrowLeft", "ArrowDown") * 3:
            for _ in range(12):
                hand.walk('[data-handle="point"]', [key])
                if hand.solved():
                    return
        return
    far = hand.explorer.evaluate(
        """e => { const end = e.model.get("places").at(-1);
        const r = (i) => Math.hypot(end[2 * i], end[2 * i + 1]);
        const seen = [...e.querySelectorAll("[data-cloud]")].flatMap((path) => {
          const spots = path.getAttribute("d").slice(1).split("M").map((d) => d.slice(0, -2));
          const members = path.dataset.cloud.split(",");
          return members.map((i, k) => [i, ...spots[k].split(" ")].map(Number));
        });
        const { width, height } = e.querySelector("svg").viewBox.baseVal;
        const inside = seen.filter(([, x, y]) => 0 < x && x < width && 0 < y && y < height);
        return inside.sort((a, b) => r(b[0]) - r(a[0]))[0].slice(1); }"""
    )
    svg = hand.find("svg")
    svg.evaluate(CENTRE)
    box = svg.bounding_box()
    hand.one.page.touchscreen.tap(box["x"] + far[0], box["y"] + far[1])


def fill(hand):
    hand.press('[data-composed="true"]')
    for k in range(hand.explorer.locator("[data-step]").count()):
        hand.press(f'[data-step="{k}"]')
        if hand.solved():
            return


def follow(hand):
    hand.press('[data-preset="end"]')
    if isinstance(hand, Keyboard):
        hand.walk('[data-view="z32"] [data-handle]', ["ArrowUp"] + ["ArrowRight"] * 3)
    else:
        hand.find('[data-view="z32"] > g:nth-of-type(6)').tap()
    hand.press('[data-preset="data"]')


def lose(hand):
    unit = '[data-unit="1,4"]'
    hand.find(unit).evaluate(CENTRE)
    hand.press(unit)
    if isinstance(hand, Finger):  # the first tap shows what the unit sees
        hand.press(unit)


def cut(hand):
    for link in CUT:
        hand.press(f'[data-link="{link}"]')


def far(hand):
    if isinstance(hand, Keyboard):
        hand.walk('[data-ring="picture"]', ["ArrowUp"] * 8 + ["ArrowRight"] * 2 + [" "])
        return
    sheet = hand.find('[data-view="picture"]')
    sheet.evaluate(CENTRE)
    x, y = sheet.evaluate(
        "e => { const box = e.getBoundingClientRect(), v = e.viewBox.baseVal, cell = 320 / 8;"
        " return [[6.5 * cell - v.x, v.width, box.left, box.width],"
        " [0.5 * cell - v.y, v.height, box.top, box.height]]"
        ".map(([at, all, low, size]) => low + at / all * size); }"
    )
    hand.one.page.touchscreen.tap(x, y)


def share(hand):
    for i in (1, 3):  # ranks 1, 1, 3, 3, 5
        for _ in range(4):
            hand.press(f'[data-rank="{i}"]')


def three(hand):
    for knot, share in ((1, 0.1), (3, 0.1), (2, 0.7)):  # gentle, gentle, and steep between them
        hand.press(f'[data-knot="{knot}"]')
        hand.slide("slope", share)


def slow(hand):
    hand.press('[data-preset="slope +0.97"]')
    hand.slide("slope", 0.4)
    hand.slide("slope", 0.9)


def never(hand):
    hand.press('[data-preset="slope +0.97"]')
    hand.slide("slope", 1.03)


def long(hand):
    def place(name):
        return browser.state(hand.explorer, "latent")

    svg = hand.find("svg").evaluate("e => e.getBoundingClientRect().width")
    described(hand, place, lambda name: (svg / 6.4, svg / 6.4))
    hand.move("latent", hand.explorer.evaluate("e => e.model.get('longest').from"))


def sure(hand):
    hand.press('[data-preset="fair coin"]')
    hand.slide("n_exact", 5)
    hand.slide("p", 0.14)


def least(hand):
    hand.press('[data-preset="fair coin"]')
    hand.slide("p", 0.095)


TASKS = {
    "shear": (shear, WarpExplorer, {}),
    "hills": (hills, WarpExplorer, {"view": "line"}),
    "trust": (trust, WarpExplorer, {"view": "bend"}),
    "half": (half, KLExplorer, {}),
    "edge": (edge, LayersExplorer, {}),
    "fill": (fill, JacobianExplorer, {}),
    "follow": (follow, MultiscaleExplorer, {}),
    "lose": (lose, MaskExplorer, {"simple": True}),
    "cut": (cut, MaskExplorer, {}),
    "far": (far, CompletionExplorer, {}),
    "ticks": (share, InversionExplorer, {}),
    "three": (three, SplineExplorer, {}),
    "slow": (slow, FixedPointExplorer, {}),
    "never": (never, FixedPointExplorer, {"turn": 1}),
    "sure": (sure, RouletteExplorer, {}),
    "least": (least, RouletteExplorer, {"turn": 1}),
    "long": (long, FixedPointExplorer, {"view": "block"}),
}


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("by", [Keyboard, Finger])
def test_solved_by_one_of_them_alone_and_kept(watch, by, task):
    solve, explorer, traits = TASKS[task]
    phone = {"width": 390, "height": 844, "has_touch": True, "is_mobile": True}
    one = watch(**(phone if by is Finger else {}))
    shown = browser.alone(one, explorer(**traits))
    hand = by(one, shown)
    turn = hand.find("[data-task]")
    assert turn.get_attribute("data-task") == task
    assert turn.get_attribute("data-kept") == "false"
    solve(hand)
    assert hand.solved(), turn.inner_text()
    assert turn.locator(".fl-verdict").inner_text().startswith("✓ Solved. ")
    hand.find('[data-action="reset"]').press("Enter")
    assert not hand.solved()
    assert turn.get_attribute("data-kept") == "true"
    assert turn.locator(".fl-verdict").inner_text().startswith("✓ Solved before. Now: ")


def test_it_is_read_out_when_the_hand_rests(watch):
    one = watch()
    shown = browser.alone(one, WarpExplorer())
    heard = shown.locator('[data-task="shear"] [role="status"]')
    handle = shown.locator('[data-handle="column-2"]')
    handle.hover()
    one.page.mouse.down()
    for k in range(12):
        one.page.mouse.move(*[200 + 5 * k] * 2)
        one.page.wait_for_timeout(90)
        assert heard.text_content() == ""
    one.page.wait_for_timeout(1000)
    assert heard.text_content() == ""  # nor where the hand stays and holds on
    one.page.mouse.up()
    one.page.wait_for_function(
        "document.querySelector('[data-task=shear] [role=status]').textContent"
    )
    assert heard.text_content() == shown.locator('[data-task="shear"] .fl-verdict').inner_text()
