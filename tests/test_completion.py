"""CompletionExplorer in a real browser: probabilities, draws and paint are flowlib's."""

import base64
import json
import re
import warnings

import pytest
import torch
from torch import nn
from traitlets import TraitError

from flowlib import datasets
from flowlib.made import BernoulliMADE
from flowlib.trained import pretrained
from flowlib.widgets.completion import CompletionExplorer, uniforms
from tests import browser
from tests.browser import solved, state

in_browser = pytest.mark.browser
MANY = 200


def make(dim=64, hidden=(40,), seed=0, scale=1.5, **options):
    """A model whose probabilities are neither equal nor certain."""
    draw = torch.Generator().manual_seed(seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of masks that cut something off
        model = BernoulliMADE(dim, hidden, generator=draw, **options)
    with torch.no_grad():
        for w in model.parameters():
            w.copy_(scale * torch.randn(w.shape, generator=draw) / w.shape[-1] ** 0.5)
    return model


@torch.no_grad()
def as_the_page_has_it(model):
    """In float64, the weights in whole steps; each unit's largest linked one has 32,767."""
    made = model.made
    copy = make(
        made.dim, made.widths, order=made.ranks[0], degrees=[m[0] for m in made.degrees],
        direct=made.direct is not None,
    ).double()  # fmt: skip
    copy.load_state_dict(model.state_dict())
    for layer in copy.made.layers:
        direct = copy.made.direct if layer is copy.made.layers[-1] else None
        for u in range(len(layer.bias)):
            row = [layer.bias[u : u + 1], layer.weight[u][layer.mask[u] > 0]]
            row += [] if direct is None else [direct.weight[u][direct.mask[u] > 0]]
            step = float(f"{torch.cat(row).abs().max().item() / 32767:.5e}") or 1.0
            for of in (layer.bias, layer.weight, *([] if direct is None else [direct.weight])):
                of[u] = (of[u] / step).round() * step
    return copy


def mulberry(seed, k):
    """Number k, in plain integers: a second opinion."""
    low = 2**32 - 1
    a = (seed * 0x9E3779B1 + (k + 1) * 0x6D2B79F5) & low
    t = ((a ^ (a >> 15)) * (a | 1)) & low
    t ^= (t + ((t ^ (t >> 7)) * (t | 61))) & low
    return (t ^ (t >> 14)) / 2**32


def noise(seed, dim, count=MANY):
    rows = [[mulberry(seed, i * dim + d) for d in range(dim)] for i in range(count)]
    return torch.tensor(rows, dtype=torch.float64)


@torch.no_grad()
def complete(model, pixels, given, u):
    """One pixel after the other, a whole pass for each: slow, and right."""
    order = model.made.ranks[0].argsort()
    x = torch.tensor(pixels, dtype=torch.float64).repeat(len(u), 1)
    for d in order[given:]:
        p = model.made(x)[:, d].sigmoid()
        x[:, d] = (u[:, d] < p).double()
    return x


READ = """(e) => {
  const all = (query) => [...e.querySelectorAll(query)];
  return {
    levels: all('[data-view="chance"] > rect').map((r) => r.dataset.level ?? null),
    kinds: all('[data-view="picture"] > rect').map((r) => r.getAttribute("class")),
    dots: all('[data-view="chance"] > circle').map((c) => c.getAttribute("class")),
    tiles: all("[data-completion]").map((button) => {
      const ink = [...button.querySelectorAll("path")].slice(2).map((p) => p.getAttribute("d"));
      return [...ink.join("").matchAll(/M(\\d+) (\\d+)h/g)].map((m) => [+m[2], +m[1]]);
    }),
    bars: all("[data-bill] rect:not(.fl-bill-at)").map((r) => r.height.baseVal.value),
  };
}"""


def read(explorer):
    browser.settle(explorer)
    found = explorer.evaluate(READ)
    found["levels"] = [None if v is None else float(v) for v in found["levels"]]
    return found


def drawn(explorer):
    """The eight completions, row by row of pixels."""
    browser.settle(explorer)
    texts = explorer.evaluate("e => e.dataset.drawn").split(",")
    return [[int(c) for c in text] for text in texts]


def middle(explorer, d, view="picture"):
    """The middle of a pixel on the page."""
    return explorer.evaluate(
        """(e, [view, d]) => {
          const b = e.querySelectorAll(`[data-view="${view}"] > rect`)[d].getBoundingClientRect();
          return [b.x + b.width / 2, b.y + b.height / 2];
        }""",
        [view, d],
    )


def press(explorer, name, value=""):
    explorer.locator(f'[data-{name}="{value}"]').click()


def told(explorer):
    browser.settle(explorer)
    return explorer.locator("[data-told]").inner_text()


def adds_up(explorer):
    """Whether the sum is right to all the digits that it has, of the numbers as one reads them."""
    of = ("given", "drawn", "total")
    texts = [explorer.locator(f'[data-readout="{name}"]').inner_text() for name in of]
    given, drawn, total = (float(text.replace("−", "-")) for text in texts)
    return abs(given + drawn - total) < 0.5 / 10 ** len(texts[2].split(".")[1]) + 1e-9


def focused(one):
    return one.page.evaluate("({...document.activeElement.dataset})")


# --- what it computes -----------------------------------------------------------------------

UNEVEN = make(36, (20,), seed=10, direct=True)
with torch.no_grad():
    UNEVEN.made.layers[0].bias[3] = -5000.0
    UNEVEN.made.layers[1].bias[20] = -5000.0
    UNEVEN.made.layers[0].weight[7], UNEVEN.made.layers[0].bias[7] = 0, 0

MODELS = {
    "uneven": (UNEVEN, (6, 6), {"given": 12}),
    "one layer": (make(64, (40,)), (8, 8), {"seed": 5}),
    "two layers": (make(48, (60, 50), seed=1), (6, 8), {"given": 10, "chosen": 3}),
    "three layers": (make(12, (9, 8, 7), seed=2, scale=2), (3, 4), {"given": 5}),
    "direct": (make(30, (20,), seed=3, direct=True), (5, 6), {"given": 0, "seed": 2**31 - 1}),
    "no layer": (make(25, (), seed=4, scale=4), (5, 5), {}),
    "few units": (make(40, (7,), seed=5, direct=True), (4, 10), {"given": 39}),
    "random": (make(64, (30, 40), seed=6, order="random", degrees="random"), (8, 8), {}),
    "backwards": (make(16, (30,), seed=7, order="reversed", direct=True), (2, 8), {"given": 16}),
}


@in_browser
def test_probabilities_and_draws_are_flowlibs(watch):
    one = watch()
    for name, (model, shape, traits) in MODELS.items():
        pixels = torch.randint(2, (model.made.dim,), generator=torch.Generator().manual_seed(9))
        widget = CompletionExplorer(model, shape=shape, pixels=pixels.tolist(), **traits)
        explorer = browser.alone(one, widget)
        copy, given = as_the_page_has_it(model), widget.given
        x = complete(copy, widget.pixels, given, noise(widget.seed, len(pixels)))
        assert drawn(explorer) == x[:8].long().tolist(), name
        assert torch.equal(widget.completions(), x), name
        shown = x[widget.chosen]
        with torch.no_grad():
            logits = copy.made(shown[None])[0]
            whole, rest = copy.log_prob(shown), copy.log_prob(shown, given=given)
        assert read(explorer)["levels"] == pytest.approx(logits.sigmoid().tolist(), abs=1e-12)
        found = browser.readouts(explorer)
        assert found["drawn"] == pytest.approx(rest.item(), abs=1e-10), name
        assert found["given"] == pytest.approx((whole - rest).item(), abs=1e-10), name
        assert found["total"] == pytest.approx(whole.item(), abs=1e-10), name
        terms = -nn.functional.binary_cross_entropy_with_logits(logits, shown, reduction="none")
        by_rank = -terms[copy.made.ranks[0].argsort()]
        assert read(explorer)["bars"] == pytest.approx(by_rank.clamp(max=5).tolist(), abs=1e-5)
        width = shape[1]
        for tile, row in zip(read(explorer)["tiles"], x[:8], strict=True):
            assert sorted(r * width + c for r, c in tile) == row.nonzero()[:, 0].tolist()
        press(explorer, "mean", "true")
        assert read(explorer)["levels"] == pytest.approx(x.mean(0).tolist(), abs=1e-12)


def test_what_travels_is_nearly_the_model():
    model = pretrained("binary-digits")
    x = datasets.binary_digits()[0].test
    with torch.no_grad():
        there = as_the_page_has_it(model).log_prob(x)
        assert (there - model.log_prob(x)).abs().max() < 0.0012
        # What is large in one unit spoils no other, and there are units of nothing but zeros.
        made = model.made
        made.layers[0].bias[5] = -5000.0
        made.layers[1].bias[40] = -5000.0
        for w in (made.layers[0].weight, made.layers[0].bias):
            w[7] = 0
        x[:, 40] = 0
        found = CompletionExplorer(model)._made(x.double())
        assert (found - made(x))[:, torch.arange(64) != 40].abs().max() < 0.001
        there = as_the_page_has_it(model)
        assert torch.equal(there.made(x.double()), found)
        assert (there.log_prob(x) - model.log_prob(x)).abs().max() < 0.0012


def test_the_random_numbers_are_uniform_and_each_seeds_own():
    for seed in (0, 1, 12345, 2**31 - 1):
        u = uniforms(seed, MANY, 64)
        assert torch.equal(u[:3], noise(seed, 64, 3))
        assert 0 <= u.min() <= u.max() < 1
        histogram = u.histc(20, 0, 1) - u.numel() / 20
        assert (histogram**2 / (u.numel() / 20)).sum() < 46  # chi-square of 19, 1 in 2,000
        flat = u.flatten() - 0.5
        for other in (u.roll(1, 0), u.roll(1, 1), uniforms((seed + 1) % 2**31, MANY, 64)):
            assert abs((flat * (other.flatten() - 0.5)).mean()) < 5 / 12 / u.numel() ** 0.5


@in_browser
def test_frequencies_are_the_models(watch):
    model = make(20, (30,), seed=8)
    widget = CompletionExplorer(model, shape=(4, 5), pixels=[1, 0] * 10, given=6, mean=True)
    explorer = browser.alone(watch(), widget)
    shown = []
    for _ in range(12):
        shown.append(read(explorer)["levels"])
        press(explorer, "action", "again")
    assert len({tuple(row) for row in shown}) == 12
    found = torch.tensor(shown).double().mean(0)
    prefix = torch.tensor([1, 0] * 3)
    p = model.complete(prefix, 100_000, generator=torch.Generator().manual_seed(0)).mean(0)
    assert found[:6].tolist() == [1, 0] * 3
    assert ((found - p).abs() < 4.5 * (p * (1 - p) / 2400).sqrt() + 0.01).all()


# --- painted --------------------------------------------------------------------------------


@in_browser
def test_painted_by_mouse(watch):
    one = watch()
    widget = CompletionExplorer(shape=(8, 8), given=24, pixels=[0] * 64)
    explorer = browser.alone(one, widget)
    mouse = one.page.mouse
    before = drawn(explorer)
    mouse.click(*middle(explorer, 9))
    pixels, pixel = state(explorer, "pixels", "pixel")
    assert (pixels, pixel) == ([int(k == 9) for k in range(64)], 9)
    assert focused(one) == {"ring": "picture"}  # and the arrows go on from there
    after = drawn(explorer)
    assert after != before
    expected = complete(as_the_page_has_it(pretrained("binary-digits")), pixels, 24, noise(1, 64))
    assert after == expected[:8].long().tolist()
    mouse.click(*middle(explorer, 9))
    assert sum(state(explorer, "pixels")) == 0
    assert drawn(explorer) == before  # the same paint and the same random numbers
    # a stroke in two steps leaves no gap, and begins with ink where there was none
    mouse.move(*middle(explorer, 0))
    mouse.down()
    mouse.move(*middle(explorer, 7))
    mouse.move(*middle(explorer, 23))
    mouse.move(*middle(explorer, 47))  # what is drawn is not painted
    mouse.up()
    mouse.move(*middle(explorer, 17))  # nor anything after it
    inked = [k for k, v in enumerate(state(explorer, "pixels")) if v]
    assert inked == [*range(8), 15, 23]
    mouse.move(*middle(explorer, 2))  # from ink it erases
    mouse.down()
    mouse.move(*middle(explorer, 8))
    mouse.move(*middle(explorer, 15))
    mouse.up()
    inked = [k for k, v in enumerate(state(explorer, "pixels")) if v]
    assert 2 not in inked
    assert {8, 15}.isdisjoint(inked)
    assert {0, 23} < set(inked) < {*range(8), 23}
    kinds = read(explorer)["kinds"]
    assert [k for k in range(24) if kinds[k] == "fl-ink-given"] == inked
    shown = drawn(explorer)[0]
    assert kinds[24:] == [f"fl-{'ink' if v else 'sheet'}-drawn" for v in shown[24:]]
    browser.drag(one.page, explorer.locator("[data-handle]"), 0, 1)
    assert focused(one) == {"handle": "border"}
    mouse.click(*middle(explorer, 50))
    assert focused(one) == {"ring": "picture"}
    assert state(explorer, "pixel") == 50
    assert [k for k, v in enumerate(state(explorer, "pixels")) if v] == inked


@in_browser
def test_painted_by_finger_without_scrolling(watch):
    one = watch(width=390, has_touch=True, is_mobile=True)
    explorer = browser.alone(one, CompletionExplorer(pixels=[0] * 64, mean=True))
    session = one.context.new_cdp_session(one.page)

    def swipe(path):
        for kind, at in [("touchStart", path[0]), *(("touchMove", p) for p in path[1:])]:
            point = {"x": at[0], "y": at[1]}
            session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [point]})
        session.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})

    explorer.locator('[data-view="picture"]').scroll_into_view_if_needed()
    scrolled = one.page.evaluate("scrollY")
    swipe([middle(explorer, d) for d in (1, 9, 25)])
    assert [k for k, v in enumerate(state(explorer, "pixels")) if v] == [1, 9, 17, 25]
    assert one.page.evaluate("scrollY") == scrolled
    one.page.touchscreen.tap(*middle(explorer, 9))
    assert state(explorer, "pixels")[9] == 0
    one.page.touchscreen.tap(*middle(explorer, 40))
    assert state(explorer, "pixel") == 40
    explorer.locator('[data-view="chance"]').scroll_into_view_if_needed()
    one.page.touchscreen.tap(*middle(explorer, 12, "chance"))
    assert state(explorer, "pixel") == 12
    # the border, with a finger
    explorer.locator("[data-handle]").scroll_into_view_if_needed()
    scrolled = one.page.evaluate("scrollY")
    (_, upper), (_, lower) = middle(explorer, 0), middle(explorer, 8)
    browser.swipe(one, explorer.locator("[data-handle]"), 0, upper - lower)
    assert state(explorer, "given") == 24
    assert one.page.evaluate("scrollY") == scrolled


@in_browser
def test_all_by_keyboard(watch):
    one = watch()
    explorer = browser.alone(one, CompletionExplorer(pixels=[0] * 64, pixel=9))
    keys = one.page.keyboard
    ring = explorer.locator('[data-ring="picture"]')
    ring.focus()
    for key in ("ArrowRight", "ArrowDown", "ArrowDown", "ArrowLeft", "ArrowUp"):
        keys.press(key)
    assert state(explorer, "pixel") == 17
    scrolled = one.page.evaluate("scrollY")
    assert ring.get_attribute("aria-checked") == "false"
    keys.press(" ")
    assert [k for k, v in enumerate(state(explorer, "pixels")) if v] == [17]
    assert ring.get_attribute("aria-checked") == "true"
    assert "row 2, column 1, given, ink" in ring.get_attribute("aria-label")
    keys.press("Enter")
    assert sum(state(explorer, "pixels")) == 0
    for _ in range(9):
        keys.press("ArrowDown")  # to the last row, and no further
    assert state(explorer, "pixel") == 57
    keys.press(" ")
    assert sum(state(explorer, "pixels")) == 0
    assert ring.get_attribute("aria-disabled") == "true"
    keys.press("ArrowLeft")
    keys.press("ArrowLeft")
    assert state(explorer, "pixel") == 56
    explorer.locator('[data-ring="chance"]').focus()
    keys.press("ArrowUp")
    assert state(explorer, "pixel") == 48
    explorer.locator('[data-handle="border"]').focus()
    for key, given in [
        ("ArrowUp", 24), ("ArrowRight", 25), ("ArrowLeft", 24), ("ArrowDown", 32), ("Home", 0),
        ("ArrowUp", 0), ("End", 64), ("ArrowDown", 64),
    ]:  # fmt: skip
        keys.press(key)
        assert state(explorer, "given") == given
    explorer.locator("input[data-name=given]").focus()
    keys.press("ArrowLeft")
    assert state(explorer, "given") == 63
    assert one.page.evaluate("scrollY") == scrolled


# --- the border -----------------------------------------------------------------------------


@in_browser
def test_the_border_is_dragged_and_what_it_passes_becomes_given_as_it_is(watch):
    one = watch()
    explorer = browser.alone(one, CompletionExplorer(chosen=2))
    before, pixels = drawn(explorer), state(explorer, "pixels")
    (_, upper), (_, lower) = middle(explorer, 0), middle(explorer, 8)
    knob = explorer.locator("[data-handle]")
    browser.drag(one.page, knob, 5, 2.5 * (lower - upper))
    assert state(explorer, "given") == 52
    after = drawn(explorer)
    assert after[2] == before[2]  # the chosen one is what it was
    assert state(explorer, "pixels") == [*pixels[:32], *before[2][32:52], *pixels[52:]]
    assert all(x[:52] == before[2][:52] for x in after)
    total = browser.readouts(explorer)
    assert total["given"] < -1
    browser.drag(one.page, knob, 0, -2.5 * (lower - upper))
    assert state(explorer, "given") == 32
    assert drawn(explorer) == before
    box = knob.locator("circle").last.bounding_box()  # taken near its edge it does not jump
    one.page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] - 2)
    one.page.mouse.down()
    one.page.mouse.move(box["x"] + box["width"] / 2 + 3, box["y"] + box["height"] - 2)
    one.page.mouse.up()
    assert state(explorer, "given") == 32
    browser.drag(one.page, knob, 0, -2000)
    assert state(explorer, "given") == 0
    assert browser.readouts(explorer)["given"] == 0
    assert drawn(explorer) == complete(
        as_the_page_has_it(pretrained("binary-digits")), [0] * 64, 0, noise(1, 64)
    )[:8].long().tolist()  # fmt: skip
    browser.drag(one.page, knob, 0, 4000)
    assert state(explorer, "given") == 64
    found = browser.readouts(explorer)
    assert found["drawn"] == 0
    assert len({tuple(x) for x in drawn(explorer)}) == 1
    assert found["given"] == found["total"]
    browser.put_sliders(explorer, {"given": 17})
    assert state(explorer, "given") == 17
    press(explorer, "border", 32)
    assert state(explorer, "given") == 32
    line = explorer.locator('[data-view="picture"] .fl-border').first.bounding_box()
    assert line["y"] + line["height"] / 2 == pytest.approx(
        (middle(explorer, 24)[1] + middle(explorer, 32)[1]) / 2, abs=2.5
    )


# --- pixel by pixel -------------------------------------------------------------------------


@in_browser
def test_it_is_drawn_pixel_by_pixel(watch):
    one = watch()
    order = torch.randperm(64, generator=torch.Generator().manual_seed(4)).tolist()
    model = make(64, (50,), seed=9, order=order)
    widget = CompletionExplorer(model, given=60, chosen=5)
    explorer = browser.alone(one, widget)
    by_rank = model.made.ranks[0].argsort().tolist()
    copy, u = as_the_page_has_it(model), noise(1, 64)
    x = complete(copy, widget.pixels, 60, u)[5]
    p = copy.made(x[None])[0].sigmoid().tolist()
    for k in (61, 62, 63):
        press(explorer, "action", "next")
        d = by_rank[k - 1]
        assert state(explorer, "known", "pixel") == [k, d]
        shown = read(explorer)
        hidden = [by_rank.index(d) for d in range(64) if shown["kinds"][d] == "fl-vacant"]
        assert sorted(hidden) == list(range(k, 64))
        unknown = [by_rank.index(d) for d in range(64) if shown["levels"][d] is None]
        assert sorted(unknown) == list(range(k + 1, 64))  # of the next one it is known
        words = told(explorer)
        assert f"Pixel {k} of 64" in words
        assert f"p(ink) = {p[d]:.2f}" in words
        assert f"u = {u[5, d]:.2f} is {'less: ink' if x[d] else 'not less: no ink'}" in words
        assert bool(x[d]) == bool(u[5, d] < p[d])
        with torch.no_grad():
            so_far = copy.log_prob(x, given=60) - copy.log_prob(x, given=k)
        assert browser.readouts(explorer)["drawn"] == pytest.approx(so_far.item(), abs=1e-9)
    one.page.mouse.move(*middle(explorer, by_rank[63]))
    words = told(explorer)
    assert f"the 63 before it the model says p(ink) = {p[by_rank[63]]:.2f}" in words
    press(explorer, "action", "next")
    assert state(explorer, "known") == 64
    assert None not in read(explorer)["levels"]
    browser.put_sliders(explorer, {"known": 20})  # what is given is known
    assert state(explorer, "known") == 60
    one.page.mouse.move(*middle(explorer, by_rank[62]))
    assert "waits for those before it" in told(explorer)
    press(explorer, "action", "all")
    assert state(explorer, "known") == 64
    one.page.mouse.move(*middle(explorer, by_rank[3]))
    gives = p[by_rank[3]] if x[by_rank[3]] else 1 - p[by_rank[3]]
    assert f"to which the model gives {gives:.2f}" in told(explorer)
    press(explorer, "mean", "true")
    one.page.mouse.move(*middle(explorer, by_rank[62], "chance"))
    count = int(complete(copy, widget.pixels, 60, u)[:, by_rank[62]].sum())
    assert f"ink in {count} of 200" in told(explorer)


@in_browser
def test_two_numbers_that_differ_look_different(watch):
    u = noise(1, 6)[0]
    model = make(6, (), scale=0)
    gaps = torch.tensor([3e-2, 2e-3, -2e-3, 1e-4, -2e-5, 1e-12]).double()
    with torch.no_grad():
        model.made.layers[0].bias.copy_((u + gaps).logit())
    one = watch()
    widget = CompletionExplorer(model.double(), shape=(2, 3), given=0)
    explorer = browser.alone(one, widget)
    p = widget._made(torch.zeros(6).double()).sigmoid()
    counts = []
    for d in range(6):
        one.page.mouse.move(*middle(explorer, d))
        pair = re.search(r"p\(ink\) = ([\d.]+), .* u = ([\d.]+) is (not )?less", told(explorer))
        counts.append(len(pair[1]) - 2)
        assert pair[1] == f"{p[d]:.{counts[-1]}f}"
        assert pair[2] == f"{u[d]:.{counts[-1]}f}"
        assert (pair[3] is None) == (u[d] < p[d]).item()
        assert pair[1] != pair[2] or counts[-1] == 6
        assert f"{p[d]:.{counts[-1] - 1}f}" == f"{u[d]:.{counts[-1] - 1}f}" or counts[-1] == 2
    assert counts[0] == 2
    assert {3, 4} <= set(counts)
    assert counts[-1] == 6


@in_browser
def test_long_shapes_have_the_size_of_others(watch):
    one = watch()
    for shape in ((32, 2), (2, 32)):
        widget = CompletionExplorer(make(64, (20,)), torch.zeros(1, 64), shape, given=32)
        explorer = browser.alone(one, widget)
        assert explorer.bounding_box()["height"] < 1300
        for query in ("[data-view]", ".fl-thumbs button"):
            boxes = [node.bounding_box() for node in explorer.locator(query).all()]
            assert all(24 <= box["height"] <= 500 for box in boxes)
        for d in (4, 41):  # given, and drawn
            one.page.mouse.click(*middle(explorer, d))
            assert state(explorer, "pixel") == d
        assert [k for k, v in enumerate(state(explorer, "pixels")) if v] == [4]


@in_browser
def test_a_bar_of_the_bill_is_a_pixel(watch):
    explorer = browser.alone(watch(), CompletionExplorer())
    bill = explorer.locator("[data-bill]")
    box = bill.bounding_box()
    bill.click(position={"x": box["width"] * 40.5 / 64, "y": 20})
    assert state(explorer, "pixel") == 40
    colors = bill.evaluate(
        "e => [...e.querySelectorAll('rect:not(.fl-bill-at)')].map(r => r.getAttribute('class'))"
    )
    assert colors == ["fl-ink-given"] * 32 + ["fl-ink-drawn"] * 32


# --- presets, and what leads back -----------------------------------------------------------


@in_browser
def test_pictures_completions_and_reset(watch):
    x, _ = datasets.binary_digits()
    explorer = browser.alone(watch(), CompletionExplorer())
    start = explorer.evaluate("e => ({...e.dataset})")
    pressed = explorer.locator('[data-picture][aria-pressed="true"]')
    assert pressed.get_attribute("data-picture") == "0"
    rows = {tuple(row) for row in x.test.long().tolist()}
    seen = set()
    for k in range(7):
        press(explorer, "picture", k)
        browser.settle(explorer)
        assert pressed.get_attribute("data-picture") == str(k)
        pixels = tuple(state(explorer, "pixels"))
        assert pixels in rows
        seen.add(pixels)
        assert all(tuple(y[:32]) == pixels[:32] for y in drawn(explorer))
        assert adds_up(explorer)
    assert len(seen) == 7
    press(explorer, "border", 64)  # what was drawn is given
    press(explorer, "picture", 2)  # and this is a digit to judge
    with torch.no_grad():
        copy = as_the_page_has_it(pretrained("binary-digits"))
        expected = copy.log_prob(torch.tensor(state(explorer, "pixels")).double()).item()
    assert browser.readouts(explorer)["total"] == pytest.approx(expected, abs=1e-9)
    press(explorer, "border", 0)
    press(explorer, "picture", 7)  # the blank sheet, of which some is given
    assert state(explorer, "given", "pixels") == [32, [0] * 64]
    before = drawn(explorer)
    press(explorer, "completion", 6)
    assert state(explorer, "chosen") == 6
    ink = [k for k, kind in enumerate(read(explorer)["kinds"]) if "ink" in kind]
    assert ink == [k for k, v in enumerate(before[6]) if v]
    press(explorer, "action", "again")
    assert state(explorer, "seed") == 2
    assert drawn(explorer) != before
    press(explorer, "action", "next")
    press(explorer, "mean", "true")
    press(explorer, "action", "reset")
    browser.settle(explorer)
    assert explorer.evaluate("e => ({...e.dataset})") == start


# --- the task -------------------------------------------------------------------------------


def solvers(widget):
    """The given pixels whose change solves the task, and how often ? is ink at first."""
    goal = widget.goal
    own = torch.tensor(widget.pixels[: widget.given])  # in the natural order
    flips = own ^ torch.eye(widget.given, dtype=torch.long)
    counts = widget.completions(flips)[:, :, goal["pixel"]].sum(1)
    found = ((counts - goal["bound"]) * goal["sign"] >= 0).nonzero()[:, 0].tolist()
    return found, int(widget.completions()[:, goal["pixel"]].sum())


@in_browser
def test_the_task_is_solved_by_some_pixels_and_not_without_moving(watch):
    one = watch()
    widget = CompletionExplorer()
    found, count = solvers(widget)
    assert 3 <= len(found) <= 8
    assert widget.goal["pixel"] >= 48
    assert (count - widget.goal["bound"]) * widget.goal["sign"] <= -20
    explorer = browser.alone(one, widget)
    words = explorer.locator("[data-task]").inner_text
    assert not solved(explorer)
    assert f"Now {count} of 200." in words()
    assert explorer.locator("[data-count]").get_attribute("data-count") == str(count)
    wrong = next(k for k in range(20, 32) if k not in found)
    for d, says in [(wrong, "with one pixel changed"), (found[0], "2 given pixels")]:
        one.page.mouse.click(*middle(explorer, d))
        assert not solved(explorer)
        assert says in words()
    one.page.mouse.click(*middle(explorer, wrong))
    assert solved(explorer)
    rows = widget.goal["pixel"] // 8 - found[0] // 8
    assert f"{rows} rows away" in words()
    press(explorer, "action", "again")
    assert not solved(explorer)
    assert "other random numbers" in words()
    press(explorer, "action", "reset")
    assert not solved(explorer)
    press(explorer, "border", 64)
    assert not solved(explorer)
    assert "border" in words()


@in_browser
def test_paint_is_kept_while_the_border_moves(watch):
    one = watch()
    explorer = browser.alone(one, CompletionExplorer())
    one.page.mouse.click(*middle(explorer, 9))
    painted = state(explorer, "pixels")[:32]
    for border in (0, 32, 64, 32, 0, 64):
        press(explorer, "border", border)
        assert state(explorer, "given") == border
    assert state(explorer, "pixels")[:32] == painted


def test_what_chapter_3_says_of_the_task():
    widget = CompletionExplorer()
    found, _ = solvers(widget)
    assert len(found) == 5
    assert {6, 7} <= set(found)
    row, column = divmod(widget.goal["pixel"], 8)
    assert row == 6
    x, labels = datasets.binary_digits()
    pixels = x.train.flatten(1)
    there, asked = pixels[:, 6] == 1, pixels[:, 8 * row + column]
    assert int(there.sum()) == 84
    assert round(100 * asked[there].mean().item()) == 25
    assert round(100 * asked[~there].mean().item()) == 64
    assert int(torch.bincount(labels.train[there].long()).argmax()) == 7
    assert asked[labels.train == 7].sum() == 0
    assert pixels[:, 7].mean() < 0.01


@in_browser
def test_other_digits_have_a_task_too_and_a_flat_model_has_none(watch):
    x, labels = datasets.binary_digits()
    for digit in range(0, 10, 3):
        row = x.test[labels.test == digit][:1]
        widget = CompletionExplorer(pretrained("binary-digits"), row)
        found, count = solvers(widget)
        assert found, digit
        assert (count - widget.goal["bound"]) * widget.goal["sign"] < 0
    one = watch()
    for widget in (
        CompletionExplorer(BernoulliMADE(64)), CompletionExplorer(given=0),
        CompletionExplorer(given=64),
    ):  # fmt: skip
        assert widget.goal == {}
        explorer = browser.alone(one, widget)
        assert explorer.locator("[data-task]").count() == 0
        press(explorer, "action", "again")


# --- its page -------------------------------------------------------------------------------


@in_browser
@pytest.mark.parametrize("traits", [{}, {"mean": True, "given": 20, "known": 40}])
def test_on_the_narrowest_phone_a_finger_can_press_all(watch, traits):
    one = watch(width=320, has_touch=True, is_mobile=True)
    shown = browser.alone(one, CompletionExplorer(**traits))
    targets = "button, .fl-knob .fl-halo, [data-view] > rect"
    assert browser.too_small(shown, targets) == 0
    tops = shown.evaluate(
        "e => [...e.querySelectorAll('[data-picture]')].map(n => n.getBoundingClientRect().top)"
    )
    assert len(set(tops)) == 1


@in_browser
def test_dark_is_dark(watch):
    shown = browser.alone(watch(color_scheme="dark"), CompletionExplorer())
    fills = shown.evaluate(
        "e => ['.fl-sheet-given', '.fl-sheet-drawn', '.fl-ink-given'].map(q =>"
        " getComputedStyle(e.querySelector(`[data-view] ${q}`)).fill)"
    )

    def lightness(fill):
        numbers = [float(v) for v in re.findall(r"[\d.]+", fill)[:3]]
        return sum(numbers) / 3 / (1 if "srgb" in fill else 255)

    given, free, ink = map(lightness, fills)
    assert max(given, free) < 0.3 < ink


@in_browser
def test_a_page_of_256_pixels_is_redrawn_within_a_frame(watch):
    draw = torch.Generator().manual_seed(0)
    model = make(256, (255,), seed=1)
    x = torch.randint(2, (2, 1, 16, 16), generator=draw)
    explorer = browser.alone(watch(), CompletionExplorer(model, x, shape=(16, 16)))
    times = []
    for _ in range(8):
        times.append(
            explorer.evaluate(
                """async (e) => {
                  const frame = () => new Promise((r) => requestAnimationFrame(r));
                  await frame();
                  const ring = e.querySelector('[data-ring="picture"]');
                  const before = performance.now();
                  e.querySelector('[data-action="again"]').click();
                  await frame();
                  await new Promise((r) => setTimeout(r));
                  return performance.now() - before;
                }"""
            )
        )
    assert min(times) < 100  # the machine is shared, and has its moments


def test_the_still_picture_and_the_page():
    for make_one in (
        CompletionExplorer,
        lambda: CompletionExplorer(MODELS["random"][0], given=20, chosen=7, known=30),
    ):
        widget = make_one()
        svg = widget.still()
        assert svg.count("<path") > 3
        assert "nan" not in svg
        assert len(widget.caption) > 60
        pages = [make_one()._repr_mimebundle_()[0]["text/html"] for _ in range(2)]
        assert pages[0] == pages[1]
        assert base64.b64encode(svg.encode()).decode() in pages[0]
        assert len(pages[0]) < 150_000
    assert repr(CompletionExplorer()) == "CompletionExplorer(32 of 8 × 8 pixels given, seed 1)"


# --- what Python sets -----------------------------------------------------------------------


def test_a_model_is_neither_changed_nor_are_the_callers_random_numbers():
    model = make(20, (10,))
    before = [w.clone() for w in model.parameters()]
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    CompletionExplorer(model, shape=(4, 5)).still()
    assert torch.equal(torch.rand(1), expected)
    assert all(map(torch.equal, model.parameters(), before))


def test_pictures_of_any_form_become_presets():
    x = torch.tensor([[1, 0, 1, 1, 0, 0], [0, 0, 0, 0, 0, 1]])
    model = make(6, (8,))
    for pictures in (x, x.reshape(2, 2, 3).bool(), x.reshape(2, 1, 2, 3).double()):
        widget = CompletionExplorer(model, pictures, (2, 3), ["a", "b"])
        assert widget.pictures == ["101100", "000001"]
        assert widget.pixels == [1, 0, 1, 1, 0, 0]
        assert (widget.given, widget.known, widget.labels) == (3, 6, ["a", "b"])
    bare = CompletionExplorer(model, shape=(1, 6))
    assert (bare.pictures, bare.pixels, bare.typical) == ([], [0] * 6, [])
    own = make(64, (20,))
    mean, low, high = CompletionExplorer(own).typical
    with torch.no_grad():
        log_p = own.log_prob(datasets.binary_digits()[0].test)
    assert mean == pytest.approx(log_p.mean().item(), abs=0.06)
    assert ((log_p > low) & (log_p < high)).float().mean().item() == pytest.approx(0.9, abs=0.02)


def test_a_state_is_restored_trait_by_trait():
    widget, fresh = CompletionExplorer(), CompletionExplorer()
    widget.given, widget.seed, widget.mean = 10, 77, True
    state = json.loads(json.dumps(fresh.state()))
    for name, value in state.items():
        setattr(widget, name, value)
    assert widget.state() == fresh.state() == state


def test_what_the_page_computes_with_is_fixed():
    widget = CompletionExplorer()
    state = widget.state()
    others = {
        "network": {}, "shape": [4, 16], "pictures": [], "labels": ["a"] * 7, "typical": [],
        "start": {}, "goal": {},
    }  # fmt: skip
    for name, other in others.items():
        with pytest.raises(TraitError, match=f"{name}: it is fixed"):
            setattr(widget, name, other)
        with pytest.raises(TraitError, match="fixed"), widget.hold_trait_notifications():
            setattr(widget, name, other)
        assert widget.state() == state
    for name in ("network", "typical", "start", "goal"):
        with pytest.raises(TraitError, match=f"{name}: it is fixed"):
            CompletionExplorer(**{name: {"a": 1} if name != "typical" else [1]})
    widget.pixels[0] = 1  # in place
    assert widget.start["pixels"][0] == 0


@pytest.mark.parametrize(
    ("error", "message", "arguments", "options"),
    [
        (TypeError, "expected a BernoulliMADE, got a Linear", [nn.Linear(2, 2)], {}),
        (ValueError, "one set of masks, got 2", [make(64, 80, order="random", n_masks=2)], {}),
        (ValueError, "without a context", [make(64, 80, context_dim=2)], {}),
        (ValueError, "ReLU, got Tanh", [make(64, 80, activation=nn.Tanh)], {}),
        (ValueError, "each of 6 pixels, got 3 ranks", [make(6, 9, order=[1, 1, 2, 2, 3, 3])], {}),
        (ValueError, "2 to 256 pixels, got 289", [make(289, 300)], {"shape": (17, 17)}),
        (ValueError, r"64 pixels, as the model has them, got \(8, 9\)", [], {"shape": (8, 9)}),
        (ValueError, "height, width", [], {"shape": (4, 4, 4)}),
        (ValueError, "height, width", [], {"shape": "88"}),
        (TypeError, "as a Tensor, got a list", [None, [[0] * 64]], {}),
        (ValueError, r"of 64 numbers each, got shape \(2, 60\)", [None, torch.zeros(2, 60)], {}),
        (ValueError, r"got shape \(64,\)", [None, torch.zeros(64)], {}),
        (ValueError, r"1 to 11 pictures .* got shape \(0, 64\)", [None, torch.zeros(0, 64)], {}),
        (ValueError, "zeros and ones; a threshold", [None, torch.full((1, 64), 0.5)], {}),
        (ValueError, "expected 1 labels, got 2", [None, torch.zeros(1, 64)], {"labels": "ab"}),
        (ValueError, "expected 7 labels, got 1", [], {"labels": ["a"]}),
        (ValueError, "expected 7 labels, got 0", [], {"labels": []}),
        (ValueError, r"most 32 pixels a side, got \(1, 64\)", [], {"shape": (1, 64)}),
        (ValueError, r"most 32 pixels a side, got \(33, 1\)", [make(33, 40)], {"shape": (33, 1)}),
        (TraitError, "pixels: expected 64 zeros and ones", [], {"pixels": [0] * 63}),
        (TraitError, "pixels: expected 64 zeros and ones", [], {"pixels": [2] * 64}),
        (TraitError, "pixels", [], {"pixels": ["a"] * 64}),
        (TraitError, "given: expected a whole number from 0 to 64, got 65", [], {"given": 65}),
        (TraitError, "given", [], {"given": 1.5}),
        (TraitError, "given", [], {"given": [3]}),
        (TraitError, "given", [], {"given": "3"}),
        (TraitError, "known: .* got -1", [], {"known": -1}),
        (TraitError, "chosen: .* from 0 to 7, got 8", [], {"chosen": 8}),
        (TraitError, "pixel: .* from 0 to 63, got 64", [], {"pixel": 64}),
        (TraitError, "seed", [], {"seed": -1}),
    ],
)  # fmt: skip
def test_what_it_does_not_take(error, message, arguments, options):
    with pytest.raises(error, match=message):
        CompletionExplorer(*arguments, **options)


def test_weights_that_are_not_finite_and_too_many_links(monkeypatch):
    model = make(64, 80)
    with torch.no_grad():
        model.made.layers[0].bias[3] = torch.inf
    with pytest.raises(ValueError, match="not finite"):
        CompletionExplorer(model)
    with pytest.raises(ValueError, match=r"at most 100,000 links, got 12\d,\d\d\d"):
        CompletionExplorer(BernoulliMADE(256, (300, 300)), shape=(16, 16))
    # They are counted before anything is copied, and are as many as travel.
    model, shape, _ = MODELS["direct"]
    links = len(base64.b64decode(CompletionExplorer(model, shape=shape).network["links"])) // 2
    monkeypatch.setattr("flowlib.widgets.completion.MOST_LINKS", links)
    CompletionExplorer(model, shape=shape)
    monkeypatch.setattr("flowlib.widgets.completion.MOST_LINKS", links - 1)
    monkeypatch.setattr("copy.deepcopy", None)
    with pytest.raises(ValueError, match=f"got {links:,}$"):
        CompletionExplorer(model, shape=shape)
