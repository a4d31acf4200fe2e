"""InversionExplorer in a real browser: values, passes and links are flowlib's."""

import json
import random

import pytest
import torch
from traitlets import TraitError

from flowlib import IAF, MAF, Gate, Jacobi, RealNVP
from flowlib.widgets import InversionExplorer
from tests import browser
from tests.browser import solved, state
from tests.models import shaken

in_browser = pytest.mark.browser


def make(dim=4, n_layers=2, hidden=7, seed=0, flow=MAF):
    return shaken(lambda: flow(dim, n_layers, hidden, order="natural"), 0.5, seed)


LOOK = """(e) => ({
  needed: e.dataset.needed.split(",").map(Number),
  costs: e.dataset.costs.split(",").map(Number),
  found: [...e.querySelectorAll("svg[data-flow]")].map((s) => JSON.parse(s.dataset.last)),
  shown: [...e.querySelectorAll("[data-cell]")].map((c) =>
    [c.dataset.cell, c.querySelector(".fl-value").textContent, c.getAttribute("class")]),
})"""


def links(layer):
    """How many weights of the layer's network are not masked."""
    made = layer.made
    return int(sum(m.mask.sum() for m in filter(None, (*made.layers, made.direct))))


def costs(explorer):
    """Multiplications of the quick side and of the slow one."""
    values = torch.tensor([explorer.values], dtype=torch.float64)
    quick = slow = 0
    for layer in explorer.maps() if explorer.judge else explorer.maps()[::-1]:
        jacobi = Jacobi()
        values, _ = jacobi(layer, values, None)
        passes = {"sequential": layer.n_ranks(), "incremental": 1, "jacobi": jacobi.passes}
        quick += links(layer)
        slow += links(layer) * passes[explorer.way]
    return quick, slow


@in_browser
@pytest.mark.parametrize(
    ("dim", "n_layers", "hidden"), [(2, 1, 1), (3, 3, 5), (5, 2, 8), (6, 1, 12)]
)
def test_values_passes_and_costs_are_flowlibs(watch, dim, n_layers, hidden):
    """Over 200 settings, at the end of the clock."""
    flow = make(dim, n_layers, hidden)
    explorer = browser.alone(watch(), InversionExplorer(flow))
    draw = random.Random(dim)
    settings = [
        {
            "values": [round(draw.gauss(0, 1), 2) for _ in range(dim)],
            "ranks": [draw.randint(1, dim) for _ in range(dim)],
            "layers": draw.randint(1, n_layers),
            "way": draw.choice(["sequential", "incremental", "jacobi"]),
            "judge": draw.random() < 0.5,
            "tick": 18,
            "chosen": draw.randint(-1, dim - 1),
        }
        for _ in range(50)
    ]
    python = InversionExplorer(flow)
    for setting, got in zip(settings, browser.each(explorer, settings, LOOK), strict=True):
        python.set_trait("layers", 1)
        for name in ("values", "ranks", "layers", "way", "judge"):
            setattr(python, name, setting[name])
        passes, found = python.passes(), python.found()
        for k, name in enumerate(("maf", "iaf")):
            assert got["found"][k] == pytest.approx(found[name], rel=1e-9, abs=1e-9), setting
            assert got["needed"][k] == passes[name], setting
        assert sorted(got["costs"]) == sorted(costs(python)), setting
        assert not any("?" in words or "fl-wrong" in how for _, words, how in got["shown"])


def test_its_layers_are_those_of_the_flow():
    """MAF or IAF, and with the flow's own ranks the very same map."""
    for flow in (make(), make(flow=IAF)):
        python = InversionExplorer(flow, values=[0.5, -1.0, 0.25, 2.0], judge=True)
        x = torch.tensor([python.values], dtype=torch.float64)
        for mine, step in zip(python.maps(), list(flow.bijection)[1:], strict=True):
            layer = step if isinstance(flow, MAF) else step.bijection
            torch.testing.assert_close(mine(x), layer(x), rtol=0, atol=5e-3)  # of 4 decimals


@in_browser
def test_what_is_known_grows_from_the_left_and_jacobi_is_wrong_first(watch):
    explorer = browser.alone(watch(), InversionExplorer(make(4, 1, 6), chosen=2))
    seen = []
    for way in ("sequential", "incremental", "jacobi"):
        states = [{"way": way, "tick": tick} for tick in range(5)]
        for tick, got in enumerate(browser.each(explorer, states, LOOK)):
            how = {cell: names for cell, _, names in got["shown"]}
            known = [i for i in range(4) if "fl-known" in how[f"maf,0,{i}"]]
            if way == "jacobi" and got["needed"][0] <= tick:
                assert known == [0, 1, 2, 3]
                continue
            assert known == list(range(tick)), (way, tick)
            others = {how[f"maf,0,{i}"].split()[2] for i in range(tick, 4)}
            seen += [(way, name) for name in others]
            assert ("fl-known" in how["iaf,0,0"]) == (tick > 0)
    assert {name for way, name in seen if way != "jacobi"} == {"fl-waits"}
    assert ("jacobi", "fl-wrong") in seen


@in_browser
def test_play_step_and_guess(watch):
    one = watch()
    explorer = browser.alone(one, InversionExplorer(make(3, 1, 4)))
    explorer.locator("[data-guess='2']").click()
    for _ in range(2):
        explorer.locator("[data-action='step']").click()
    assert state(explorer, "tick", "guess") == [2, 2]
    explorer.locator("[data-action='step']").click()
    browser.settle(explorer)
    assert "You said 2: it is 3." in explorer.locator(".fl-say").text_content()
    explorer.locator("[data-action='back']").click()
    assert state(explorer, "tick") == 2
    explorer.locator("[data-action='play']").click()
    explorer.locator("[data-action='play']", has_text="play").wait_for()  # by itself, at the end
    assert state(explorer, "tick") == 3


@in_browser
def test_how_long_it_takes_is_not_said_before_a_guess_or_the_end(watch):
    explorer = browser.alone(watch(), InversionExplorer(make(5, 1, 8)))
    parts = ("[data-count='maf']", ".fl-time output", ".fl-verdict", ".fl-say")

    def words():
        browser.settle(explorer)
        return [explorer.locator(part).first.inner_text().split("\n")[0] for part in parts]

    assert not any("5" in said for said in words())
    explorer.locator("[data-guess='4']").click()
    told = words()
    assert told[:3] == ["0 of 5 passes", "0 of 5", "It takes 5 ticks."]
    assert told[3].endswith("You said 4: it is 5.")  # before anything has run
    explorer.locator("[data-rank='4']").click()  # ranks 1, 2, 3, 4, 1
    assert state(explorer, "guess") == 0
    assert words()[:3] == ["0 passes", "0", "It takes more than 3 ticks."]
    for _ in range(4):
        explorer.locator("[data-action='step']").click()
    assert words()[:3] == ["4 of 4 passes", "4 of 4", "It takes 4 ticks."]


@in_browser
def test_with_fewer_layers_it_is_as_high(watch):
    explorer = browser.alone(watch(), InversionExplorer(make(4, 3, 6)))
    layers = [{"layers": count} for count in (1, 2, 3)]
    assert len(set(browser.each(explorer, layers, "e => e.querySelector('svg').clientHeight"))) == 1


@in_browser
def test_no_value_is_wider_than_its_circle(watch):
    look = """e => Math.max(...[...e.querySelectorAll(".fl-cell")].map((c) => {
      const [words, body] = [c.querySelector(".fl-value"), c.querySelector(".fl-body")];
      return words.getBBox().width / body.getBBox().width;
    }))"""
    values = [-1.61, -2.88, -12.34, 0.5, -0.04]
    for width in (800, 374):
        explorer = browser.alone(
            watch(width=width), InversionExplorer(make(5, 1, 8), values=values)
        )
        assert explorer.evaluate(look) < 1


@in_browser
def test_a_value_says_what_it_waits_for(watch):
    explorer = browser.alone(watch(), InversionExplorer(make(4, 1, 6)))
    explorer.locator("[data-cell='maf,0,2']").click()
    browser.settle(explorer)
    words = explorer.locator(".fl-say").text_content()
    assert "x3 asks for z3, which is given, and waits for x1 and x2" in words
    assert "IAF: x3 asks for z3 and for z1 and z2" in words
    assert explorer.locator(".fl-cell.fl-chosen").count() == 4
    explorer.locator("[data-cell='maf,0,2']").click()
    assert state(explorer, "chosen") == -1


@in_browser
def test_the_task_is_not_solved_by_cutting_links(watch):
    explorer = browser.alone(watch(), InversionExplorer(make(5, 1, 8)))
    for i in range(1, 5):  # all ranks become 1
        for _ in range(5 - i):
            explorer.locator(f"[data-rank='{i}']").click()
    assert state(explorer, "needed") == [1, 1]
    assert not solved(explorer)
    assert "Only 0 of 10 pairs" in explorer.locator(".fl-verdict").text_content()


@pytest.mark.parametrize(
    ("flow", "error", "message"),
    [
        (RealNVP(2), TypeError, "expected a MAF or an IAF, got a RealNVP"),
        (MAF(3, 1, 4, context_dim=1), ValueError, "a context of 1"),
        (MAF(7, 1, 4), ValueError, "got 7 coordinates"),
        (MAF(3, 1, (4, 4)), ValueError, r"hidden layers of \[4, 4\]"),
        (MAF(3, 1, 4, transformer=Gate), ValueError, "and Gate"),
    ],
)
def test_flows_that_it_cannot_show_are_refused(flow, error, message):
    with pytest.raises(error, match=message):
        InversionExplorer(flow)


def test_attributes_are_checked():
    for traits in (
        {"ranks": [1, 2]},
        {"layers": 2},
        {"way": "slowly"},
        {"values": [0.0]},
        {"chosen": 9},
    ):
        with pytest.raises(TraitError):
            InversionExplorer(**traits)
    with pytest.raises(TypeError, match="no option 'speed'"):
        InversionExplorer(speed=3)


def test_the_page_holds_its_state():
    explorer = InversionExplorer(make(), way="jacobi", tick=3)
    assert json.loads(json.dumps(explorer.state()))["way"] == "jacobi"
    assert "2 layers" in repr(explorer)
    for name, passes in explorer.passes().items():
        assert f"{name.upper()} needs {passes} pass" in explorer.reading
