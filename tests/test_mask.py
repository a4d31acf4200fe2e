"""MaskExplorer in a real browser: degrees, masks and paths are flowlib.made's."""

import base64
import random

import pytest
import torch
from traitlets import TraitError

from flowlib import plotting
from flowlib.masks import cyclic_degrees, hidden_mask, output_mask, path_counts, ranks_of
from flowlib.widgets.mask import MaskExplorer
from tests import browser
from tests.browser import solved, state

in_browser = pytest.mark.browser


def truth(order, degrees, flips=()):
    """Masks, counts of paths, forbidden pairs and cut pairs."""
    ranks, *layers = map(torch.tensor, [order, *degrees])
    masks, before = [], ranks
    for layer in layers:
        masks.append(hidden_mask(layer, before))
        before = layer
    masks.append(output_mask(ranks, before))
    for l, row, column in flips:
        masks[l][row, column] = ~masks[l][row, column]
    counts = path_counts(masks)
    may = output_mask(ranks, ranks)
    illegal = ((counts > 0) & ~may).nonzero().tolist()
    missing = ((counts == 0) & may).nonzero().tolist()
    return [mask.int().tolist() for mask in masks], counts.tolist(), illegal, missing


READ = """(e) => {
  const masks = [...e.querySelectorAll("[data-mask]")].map((svg) => {
    const mask = [];
    for (const node of svg.querySelectorAll("[data-link]")) {
      const [, r, c] = node.dataset.link.split(",").map(Number);
      (mask[r] ??= [])[c] = Number(node.getAttribute("aria-checked") === "true");
    }
    return mask;
  });
  const counts = [];
  for (const node of e.querySelectorAll("[data-pair]")) {
    const [i, j] = node.dataset.pair.split(",").map(Number);
    (counts[i] ??= [])[j] = Number(node.dataset.count);
  }
  const keys = (nodes, name) => [...nodes].map((node) => node.dataset[name].split(",").map(Number));
  return {
    masks, counts,
    illegal: JSON.parse(e.dataset.illegal), missing: JSON.parse(e.dataset.missing),
    purple: keys(e.querySelectorAll(".fl-pair.fl-bad"), "pair").sort(),
    hollow: keys(e.querySelectorAll(".fl-pair.fl-missing"), "pair").sort(),
    drawn: e.querySelectorAll(".fl-edge:not(.fl-off):not(.fl-ghost)").length,
    dashed: e.querySelectorAll(".fl-edge.fl-bad").length,
    dashedCells: e.querySelectorAll("[data-link].fl-bad").length,
  };
}"""


def read(explorer):
    browser.settle(explorer)
    return explorer.evaluate(READ)


def link(explorer, *key):
    return explorer.locator(f'[data-link="{",".join(map(str, key))}"]')


def unit(explorer, k, u):
    return explorer.locator(f'[data-unit="{k},{u}"]')


def lit(explorer, what):
    """The keys of what is lit: "unit", "link" or "pair"; or the number of lit lines, "edge"."""
    browser.settle(explorer)
    return explorer.evaluate(
        """(e, what) => what === "edge" ? e.querySelectorAll(".fl-edge.fl-lit").length
          : [...e.querySelectorAll(`[data-${what}].fl-lit`)].map((n) => n.dataset[what]).sort()""",
        what,
    )


# --- what it computes -----------------------------------------------------------------------


def settings(count):
    draw = random.Random(5)
    for _ in range(count):
        dim = draw.randint(2, 8)
        widths = [draw.randint(1, 12) for _ in range(draw.randint(1, 3))]
        sizes = [dim, *widths, dim]
        order = draw.sample(range(1, dim + 1), dim)
        degrees = [[draw.randint(1, dim - 1) for _ in range(width)] for width in widths]
        flips = {
            (l := draw.randrange(len(sizes) - 1), draw.randrange(sizes[l + 1]),
             draw.randrange(sizes[l]))
            for _ in range(draw.choice([0, 0, 1, 2, 6]))
        }  # fmt: skip
        yield {
            "dim": dim, "widths": widths, "order": order, "degrees": degrees,
            "flips": sorted(map(list, flips)), "by_rank": draw.random() < 0.5,
        }  # fmt: skip


@in_browser
def test_masks_paths_and_verdicts_are_flowlibs(watch):
    all_settings = list(settings(200))
    explorer = browser.alone(watch(), MaskExplorer())
    shown = browser.each(explorer, all_settings, READ)
    for setting, got in zip(all_settings, shown, strict=True):
        names = ("order", "degrees", "flips")
        masks, counts, illegal, missing = truth(*(setting[name] for name in names))
        assert got["masks"] == masks, setting
        assert got["counts"] == counts, setting
        assert got["illegal"] == got["purple"] == illegal, setting
        assert got["missing"] == got["hollow"] == missing, setting
        assert got["drawn"] == sum(sum(row) for mask in masks for row in mask)
        assert got["dashed"] == got["dashedCells"]
        assert (got["dashed"] > 0) == bool(illegal)
        python = MaskExplorer(**setting)
        assert [mask.int().tolist() for mask in python.masks()] == masks
        wrong = python._forbidden(python.masks())
        assert got["dashed"] == sum(int(mask.sum()) for mask in wrong)


@in_browser
def test_cyclic_degrees_and_orderings_are_flowlibs(watch):
    explorer = browser.alone(watch(), MaskExplorer())
    browser.put_sliders(explorer, {"layers": 3})
    for dim in range(2, 9):
        browser.put_sliders(explorer, {"dim": dim})
        for first in (1, 5, 10):
            widths = [first, first + 1, first + 2]
            browser.put_sliders(explorer, {f"width-{l + 1}": w for l, w in enumerate(widths)})
            expected = [cyclic_degrees(width, 1, dim - 1).tolist() for width in widths]
            assert state(explorer, "dim", "widths", "degrees") == [dim, widths, expected]
    for kind in ("reversed", "natural"):
        explorer.locator(f'[data-order="{kind}"]').click()
        assert state(explorer, "order") == ranks_of(8, kind).tolist()
        pressed = explorer.locator('[data-order][aria-pressed="true"]')
        assert pressed.get_attribute("data-order") == kind


@in_browser
def test_random_degrees_are_each_at_least_once_sorted_and_not_below_the_lowest_before(watch):
    explorer = browser.alone(watch(), MaskExplorer(dim=5, widths=[3, 7, 12]))
    seen = set()
    explorer.locator('[data-degrees="random"]').click()
    for _ in range(12):
        layers, flips = state(explorer, "degrees", "flips")
        low = 1
        for layer, width in zip(layers, (3, 7, 12), strict=True):
            assert len(layer) == width
            assert layer == sorted(layer)
            assert low <= layer[0]
            assert layer[-1] <= 4
            if width > 4 - low:
                assert set(layer) == set(range(low, 5))
            low = layer[0]
        seen.add(str(layers))
        assert not flips
        explorer.locator('[data-action="again"]').click()
    assert len(seen) > 8
    pressed = explorer.locator('[data-degrees][aria-pressed="true"]')
    assert pressed.get_attribute("data-degrees") == "random"


@in_browser
def test_a_random_ordering_is_neither_of_the_others_and_is_drawn_again(watch):
    explorer = browser.alone(watch(), MaskExplorer(dim=3, widths=[4]))
    explorer.locator('[data-order="random"]').click()
    seen = set()
    for _ in range(10):
        order, degrees = state(explorer, "order", "degrees")
        assert sorted(order) == [1, 2, 3]
        assert order not in ([1, 2, 3], [3, 2, 1])
        assert degrees == [[1, 1, 2, 2]]
        seen.add(str(order))
        explorer.locator('[data-action="again"]').click()
    assert len(seen) > 2


# --- what is lit ----------------------------------------------------------------------------


@in_browser
def test_a_units_field_lights_up_in_all_views(watch):
    one = watch()
    explorer = browser.alone(one, MaskExplorer())
    assert lit(explorer, "unit") == []
    unit(explorer, 2, 2).click()  # output 3
    one.page.mouse.move(1, 1)
    assert state(explorer, "chosen") == 2
    assert lit(explorer, "unit") == ["0,0", "0,1", "1,0", "1,1", "1,2", "1,3", "2,2"]
    assert lit(explorer, "pair") == ["2,0", "2,1"]
    first = {"0,0,0", "0,1,0", "0,2,0", "0,2,1", "0,3,0", "0,3,1"}
    assert set(lit(explorer, "link")) == first | {f"1,2,{c}" for c in range(4)}
    assert lit(explorer, "edge") == 10
    assert "sees x1 and x2" in explorer.locator("[data-lit]").inner_text()
    unit(explorer, 1, 0).hover()  # what the mouse is on comes before what is chosen
    assert lit(explorer, "unit") == ["0,0", "1,0"]
    assert lit(explorer, "pair") == ["1,0", "2,0", "3,0"]
    unit(explorer, 0, 2).hover()
    assert lit(explorer, "unit") == ["0,2", "1,4", "2,3"]
    assert "seen by output 4" in explorer.locator("[data-lit]").inner_text()
    link(explorer, 0, 3, 1).hover()
    assert lit(explorer, "link") == ["0,3,1", "1,2,3", "1,3,3"]
    assert lit(explorer, "pair") == ["2,1", "3,1"]
    explorer.locator('[data-pair="1,0"]').hover()
    assert lit(explorer, "link") == ["0,0,0", "0,1,0", "1,1,0", "1,1,1"]
    assert "2 paths from x1 to output 2" in explorer.locator("[data-lit]").inner_text()
    one.page.mouse.move(1, 1)
    assert lit(explorer, "edge") == 10
    unit(explorer, 2, 2).click()
    assert state(explorer, "chosen") == -1


# --- moved by hand --------------------------------------------------------------------------


@in_browser
def test_a_flip_by_mouse_is_judged_and_taken_back(watch):
    explorer = browser.alone(watch(), MaskExplorer())
    verdict = explorer.locator(".fl-legal")
    link(explorer, 1, 1, 2).click()  # output 2 to a unit of degree 2
    assert state(explorer, "flips", "illegal", "missing") == [[[1, 1, 2]], [[1, 1]], []]
    words = "Output 2 now sees input 2: the loss can fall below the entropy."
    assert verdict.inner_text() == words
    assert read(explorer)["dashed"] == 2
    link(explorer, 1, 1, 2).click()
    assert state(explorer, "flips", "illegal") == [[], []]
    link(explorer, 1, 3, 4).click()
    assert state(explorer, "missing") == [[3, 2]]
    assert "Output 4 no longer sees input 3" in verdict.inner_text()
    explorer.locator('[data-action="unflip"]').click()
    assert state(explorer, "flips", "missing") == [[], []]
    assert "no other" in verdict.inner_text()


@in_browser
def test_a_forbidden_pair_without_a_circle_is_no_lie_about_the_loss(watch):
    # output 1 sees input 2, and output 2 not input 1: the loss is that of the other ordering
    widget = MaskExplorer(dim=2, widths=[1], flips=[[0, 0, 0], [0, 0, 1], [1, 0, 0], [1, 1, 0]])
    explorer = browser.alone(watch(), widget)
    assert state(explorer, "illegal", "missing") == [[[0, 1]], [[1, 0]]]
    assert "not this ordering" in explorer.locator(".fl-legal").inner_text()
    link(explorer, 1, 1, 0).click()
    browser.settle(explorer)
    assert "below the entropy" in explorer.locator(".fl-legal").inner_text()


@in_browser
def test_all_by_keyboard(watch):
    one = watch()
    explorer = browser.alone(one, MaskExplorer())
    press = one.page.keyboard.press

    def at():
        browser.settle(explorer)
        return one.page.evaluate("({...document.activeElement.dataset})")

    # one stop of the tab key in each view
    for what, count in (("unit", 1), ("pair", 1), ("link", 2)):
        assert explorer.locator(f'[data-{what}][tabindex="0"]').count() == count
    explorer.locator("[data-unit][tabindex='0']").focus()
    press("ArrowUp")
    k, u = map(int, at()["unit"].split(","))
    assert k == 1
    before = state(explorer, "degrees")[0][u]
    press("Enter")
    assert state(explorer, "degrees")[0][u] == 1 + before % 3
    assert at()["unit"] == f"{k},{u}"
    press("ArrowUp")
    press("Enter")
    assert f"2,{state(explorer, 'chosen')}" == at()["unit"]
    press("Enter")
    explorer.locator('[data-action="reset"]').focus()
    press("Enter")
    browser.settle(explorer)
    explorer.locator("[data-mask='1'] [tabindex='0']").focus()
    for key in ("ArrowDown", "ArrowRight", "ArrowRight"):
        press(key)
    assert at()["link"] == "1,1,2"
    assert lit(explorer, "unit")
    scrolled = one.page.evaluate("scrollY")
    press(" ")
    assert state(explorer, "flips") == [[1, 1, 2]]
    assert at()["link"] == "1,1,2"
    assert one.page.evaluate("scrollY") == scrolled  # as the space bar would
    press("Enter")
    assert state(explorer, "flips") == []
    explorer.locator("[data-product] [tabindex='0']").focus()
    press("ArrowDown")
    assert lit(explorer, "pair") == ["1,0"]
    explorer.locator('.fl-grab, input[type="range"]').first.focus()
    press("ArrowUp")
    assert state(explorer, "dim") == 5


@in_browser
def test_by_finger_on_a_phone(watch):
    one = watch(width=390, has_touch=True, is_mobile=True)
    explorer = browser.alone(one, MaskExplorer(dim=5, widths=[12, 5]))
    assert browser.too_small(explorer, ".fl-reach") == 0
    link(explorer, 0, 0, 1).tap()
    assert state(explorer, "flips") == [[0, 0, 1]]
    link(explorer, 0, 0, 1).tap()
    assert state(explorer, "flips") == []
    degree = state(explorer, "degrees")[1][2]
    unit(explorer, 2, 2).tap()  # the first tap lights it, the second raises its degree
    assert "2,2" in lit(explorer, "unit")
    assert state(explorer, "degrees")[1][2] == degree
    unit(explorer, 2, 2).tap()
    assert state(explorer, "degrees")[1][2] == 1 + degree % 4
    unit(explorer, 3, 3).tap()
    assert state(explorer, "chosen") == 3
    assert browser.smallest_words(explorer) >= 11


@in_browser
def test_the_mouse_raises_a_degree_and_it_goes_round(watch):
    explorer = browser.alone(watch(), MaskExplorer())
    for degree in (2, 3, 1):
        unit(explorer, 1, 1).click()
        assert state(explorer, "degrees") == [[1, degree, 2, 2, 3]]
    assert state(explorer, "missing") == []


# --- a draw ---------------------------------------------------------------------------------


@in_browser
def test_a_draw_computes_each_unit_once(watch):
    degrees, order = [[1, 3, 2], [3, 1, 1, 2]], [2, 4, 1, 3]
    widget = MaskExplorer(order=order, widths=[3, 4], degrees=degrees)
    explorer = browser.alone(watch(), widget)
    done = 0
    for step in range(1, 5):
        explorer.locator('[data-action="next"]').click()
        assert state(explorer, "step") == step
        fresh = [f"{k + 1},{u}" for k in (0, 1) for u, m in enumerate(degrees[k]) if m == step - 1]
        fresh.append(f"3,{order.index(step)}")
        shown = explorer.evaluate(
            "e => [...e.querySelectorAll('.fl-unit.fl-now')].map((n) => n.dataset.unit).sort()"
        )
        assert shown == sorted(fresh)
        known = explorer.locator(".fl-input:not(.fl-later)")
        assert known.count() == step
        done += len(fresh)
        counter = explorer.locator("[data-counter]")
        assert counter.get_attribute("data-done") == str(done)
        assert f"{step * 11}." in counter.inner_text()
    assert done == 11
    explorer.locator('[data-action="next"]').click()
    assert state(explorer, "step") == 4
    explorer.locator('[data-action="stop"]').click()
    assert state(explorer, "step") == 0


@in_browser
def test_a_draw_against_the_rule_says_what_is_not_known(watch):
    explorer = browser.alone(watch(), MaskExplorer(flips=[[1, 1, 2]], step=2))
    assert "output 2 needs input 2" in explorer.locator("[data-counter]").inner_text()


# --- the task -------------------------------------------------------------------------------

CUT = [[1, 2, 0], [1, 2, 1], [0, 2, 0], [0, 3, 0]]


@in_browser
def test_the_task_can_be_done_on_its_preset(watch):
    widget = MaskExplorer()
    _, counts, illegal, missing = truth(widget.order, widget.degrees, CUT)
    assert (illegal, missing) == ([], [[2, 0]])  # no pair but that one
    explorer = browser.alone(watch(), widget)
    assert not solved(explorer)
    for k, key in enumerate(CUT):
        link(explorer, *key).click()
        assert solved(explorer) == (k == 3)
    assert read(explorer)["counts"] == counts
    explorer.locator('[data-action="reset"]').click()
    assert not solved(explorer)


@in_browser
@pytest.mark.parametrize(
    ("traits", "says"),
    [
        ({}, "there are 4 paths"),
        ({"flips": [[0, k, 0] for k in range(5)]}, "2 other pairs"),
        ({"order": [4, 3, 2, 1]}, "must not see input 1 anyway"),
        ({"dim": 2}, "no output 3"),
        ({"flips": [*CUT, [1, 0, 0]]}, "another pair"),
    ],
)
def test_the_task_is_no_gift(watch, traits, says):
    explorer = browser.alone(watch(), MaskExplorer(**traits))
    assert says in explorer.locator("[data-task]").inner_text()
    assert not solved(explorer)


def test_no_ordering_and_no_degrees_do_the_task():
    for first in range(3**5):
        degrees = [[1 + first // 3**k % 3 for k in range(5)]]
        assert truth([1, 2, 3, 4], degrees)[2:] != ([], [[2, 0]])


# --- its page -------------------------------------------------------------------------------


@in_browser
def test_every_unit_link_and_pair_has_a_name(watch):
    shown = browser.alone(watch(), MaskExplorer(widths=[3, 4]))
    for what in ("unit", "link", "pair"):
        assert shown.locator(f"[data-{what}]:not([aria-label])").count() == 0


@pytest.mark.parametrize("traits", [{}, {"dim": 8, "widths": [12] * 3, "flips": [[0, 0, 5]]}])
def test_the_still_picture_and_the_page(traits):
    widget = MaskExplorer(**traits)
    svg = widget.still()
    assert svg.count("<path") > 3
    assert "nan" not in svg
    assert ("dasharray" in svg) == bool(traits)
    assert len(widget.caption) > 60
    pages = [MaskExplorer(**traits)._repr_mimebundle_()[0]["text/html"] for _ in range(2)]
    assert pages[0] == pages[1]
    assert base64.b64encode(svg.encode()).decode() in pages[0]
    assert len(pages[0]) < (100_000 if not traits else 160_000)


# --- what Python sets -----------------------------------------------------------------------


def test_other_sizes_bring_their_own_presets_and_keep_what_fits():
    widget = MaskExplorer(dim=6, widths=[3, 7])
    assert widget.order == [1, 2, 3, 4, 5, 6]
    assert widget.degrees == [cyclic_degrees(w, 1, 5).tolist() for w in (3, 7)]
    widget.degrees = [[1, 2, 2], [1, 1, 1, 2, 2, 3, 2]]
    widget.flips, widget.step, widget.chosen = [[0, 1, 5]], 6, 5
    widget.dim = 4
    assert widget.degrees == [[1, 2, 2], [1, 1, 1, 2, 2, 3, 2]]
    assert (widget.order, widget.flips) == ([1, 2, 3, 4], [])
    assert (widget.step, widget.chosen) == (4, 3)
    widget.widths = [2]
    assert widget.degrees == [[1, 3]]
    assert MaskExplorer(dim=6, degrees=[[1, 1, 2, 2, 3]]).degrees == [[1, 1, 2, 2, 3]]
    assert repr(widget) == "MaskExplorer(4 inputs, hidden layers [2], 0 entries flipped)"


def test_a_state_is_restored_trait_by_trait():
    widget, fresh = MaskExplorer(), MaskExplorer()
    widget.dim = 7
    for name, value in fresh.state().items():
        setattr(widget, name, value)
    assert widget.state() == fresh.state()


@pytest.mark.parametrize(
    ("traits", "message"),
    [
        ({"dim": 1}, "from 2 to 8, got 1"),
        ({"dim": 9}, "got 9"),
        ({"dim": 2.5}, "dim"),
        ({"widths": []}, r"1 to 3 whole numbers from 1 to 12, got \[\]"),
        ({"widths": [13]}, r"got \[13\]"),
        ({"widths": [0, 3]}, r"got \[0, 3\]"),
        ({"widths": [1, 2, 3, 4]}, "widths"),
        ({"widths": [1.5]}, r"got \[1.5\]"),
        ({"order": [1, 2, 3]}, r"each rank from 1 to 4 once, got \[1, 2, 3\]"),
        ({"order": [1, 2, 2, 3]}, "once"),
        ({"order": ["a", 2, 3, 4]}, "order"),
        ({"degrees": [[1, 1, 2, 2, 4]]}, r"from 1 to 3 for hidden layers of \[5\] units"),
        ({"degrees": [[1, 2]]}, r"got \[\[1, 2\]\]"),
        ({"degrees": [3]}, "degrees"),
        ({"degrees": [[0, 1, 2, 2, 3]]}, "degrees"),
        ({"flips": [[0, 5, 0]]}, r"masks of shapes \[\(5, 4\), \(4, 5\)\], got \[\[0, 5, 0\]\]"),
        ({"flips": [[2, 0, 0]]}, "flips"),
        ({"flips": [[0, 0, 0], [0, 0, 0]]}, "different"),
        ({"flips": [[0, 0]]}, "flips"),
        ({"flips": [7]}, "flips"),
        ({"chosen": 4}, "chosen: expected a whole number from -1 to 3, got 4"),
        ({"step": 5}, "from 0 to 4, got 5"),
        ({"seed": -1}, "seed"),
    ],
)
def test_what_an_attribute_cannot_take(traits, message):
    with pytest.raises(TraitError, match=message):
        MaskExplorer(**traits)


def test_the_reading_counts_pairs_and_says_what_is_seen():
    said = MaskExplorer(chosen=2).reading
    assert said.startswith(
        "Of the 6 pairs that may be linked 6 are. Output 3 sees inputs 1 and 2, by the dark links."
    )
    wrong = MaskExplorer(chosen=0, flips=[[1, 0, 0]]).reading  # output 1 listens to a unit
    assert "linked 6 are, and 1 that must not be. Output 1 sees input 1, by" in wrong
    assert "Output 1 sees no input." in MaskExplorer(chosen=0).reading


def test_the_still_picture_has_the_chosen_outputs_links():
    dark = f'stroke="{plotting.INK}" stroke-width="2.2"'
    lit = [part for part in MaskExplorer(chosen=2).still().split("<path") if dark in part]
    assert lit[0].count("M") == 10  # 2 units hear one input, 2 hear two, and all 4 speak
