"""What every explorer must do; what each one is about stands in a file of its own."""

import base64
import re

import pytest
import torch

from flowlib import ImageRealNVP, widgets
from flowlib.widgets import (
    CompletionExplorer,
    LayersExplorer,
    MaskExplorer,
    MultiscaleExplorer,
)
from tests import browser

pytestmark = pytest.mark.browser
NAMES = sorted(set(widgets.__all__) - {"Explorer"})


def faces() -> list:
    """Every explorer in every view that it has."""
    found = []
    for name in NAMES:
        explorer = getattr(widgets, name)
        views = getattr(explorer.class_traits().get("view"), "values", None)
        states = [{"view": view} for view in views] if views else [{}]
        found += [pytest.param(explorer, s, id="-".join([name, *s.values()])) for s in states]
    return found


explorers = pytest.mark.parametrize("name", NAMES)
all_faces = pytest.mark.parametrize(("explorer", "traits"), faces())
# Those that grow with what they show, at their widest; and with other words.
WIDEST = [
    (MaskExplorer, {"dim": 8, "widths": [12, 12, 12], "chosen": 5}),
    (CompletionExplorer, {"mean": True, "given": 20, "known": 40}),
]


@all_faces
def test_without_javascript_there_is_a_picture(watch, explorer, traits):
    one = watch(java_script_enabled=False)
    one.page.set_content(explorer(**traits)._repr_mimebundle_()[0]["text/html"])
    picture = one.page.locator(".fl-explorer img")
    assert picture.is_visible()
    assert len(picture.get_attribute("alt")) > 60
    box = picture.bounding_box()
    assert box["width"] > 300
    assert box["height"] > 150
    svg = base64.b64decode(picture.get_attribute("src").split(",")[1]).decode()
    assert svg.count("<path") > 3
    assert "nan" not in svg


END = {LayersExplorer: "layers", MultiscaleExplorer: "steps"}
ALL_WORDS = """e => [e, ...e.querySelectorAll('*')].flatMap(n => [...Object.values(n.dataset),
    n.getAttribute('aria-label'), n.getAttribute('aria-valuetext'),
    n.children.length ? '' : n.textContent]).join(' ') + ' ' + e.innerText"""


def plain(words):
    return re.sub(r"[^a-z0-9]+", " ", words.lower())


def numbers(words):
    found = re.findall(r"[−-]?\d+(?:\.\d+)?", words.replace("−", "-"))
    return [float(number) for number in found]


@all_faces
def test_under_the_picture_stands_what_the_live_one_says(watch, explorer, traits):
    """For readers on paper: every number of this state, and the task in the same words."""
    widget = explorer(**traits)
    still = watch(java_script_enabled=False)
    still.page.set_content(widget._repr_mimebundle_()[0]["text/html"])
    words = still.page.locator(".fl-explorer p").inner_text()
    assert words == widget.reading
    reading, task = words.split("Task: ")
    live = [browser.alone(watch(), widget)]
    steps = END.get(explorer)
    if steps:  # the reading tells of the end, too
        live.append(browser.alone(watch(), explorer(depth=len(getattr(widget, steps)))))
    said = " ".join(shown.evaluate(ALL_WORDS) for shown in live)
    there = torch.tensor(numbers(said), dtype=torch.float64)
    if explorer is not MaskExplorer:  # which counts pairs, as test_mask.py does
        for number in numbers(reading):
            assert (there - number).abs().min() < 6e-3 * max(1, abs(number)), (number, reading)
    first = " ".join(plain(task).split()[:7])
    assert first in plain(live[0].locator(".fl-task").first.inner_text())


@explorers
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_it_takes_the_theme_and_follows_it(watch, name, theme):
    one = watch(color_scheme=theme)
    explorer = browser.alone(one, getattr(widgets, name)())
    assert explorer.evaluate("e => e.classList.contains('fl-dark')") == (theme == "dark")
    other = "light" if theme == "dark" else "dark"
    one.page.evaluate(f"document.documentElement.dataset.theme = '{other}'")
    browser.settle(explorer)
    assert explorer.evaluate("e => e.classList.contains('fl-dark')") == (other == "dark")


@pytest.mark.parametrize(("explorer", "traits"), [*faces(), *WIDEST])
def test_on_the_narrowest_phone_nothing_is_cut(watch, explorer, traits):
    one = watch(width=320, has_touch=True, is_mobile=True)
    shown = browser.alone(one, explorer(**traits))
    assert one.page.evaluate("document.documentElement.scrollWidth") <= 320
    assert not browser.cut(shown)


@all_faces
def test_everything_that_moves_has_a_name_and_is_reached_by_tab(watch, explorer, traits):
    shown = browser.alone(watch(), explorer(**traits))
    nameless = shown.locator("input, button, [tabindex]").evaluate_all(
        "all => all.filter(n => !(n.getAttribute('aria-label') || n.textContent.trim()))"
        ".map(n => n.outerHTML)"
    )
    unreached = shown.locator("input, button, .fl-grab").evaluate_all(
        "all => all.filter(n => n.tabIndex < 0).map(n => n.outerHTML)"
    )
    assert not nameless + unreached


@all_faces
def test_the_same_state_publishes_the_same_page(explorer, traits):
    one, two = explorer(**traits), explorer(**traits)
    first, second = (widget._repr_mimebundle_()[0]["text/html"] for widget in (one, two))
    assert first == second
    assert "0x" not in repr(one)


@explorers
def test_two_of_the_same_live_on_one_page(watch, name):
    page = watch().page
    page.set_content(2 * getattr(widgets, name)()._repr_mimebundle_()[0]["text/html"])
    for k in range(2):
        page.locator('.fl-explorer[data-alive="true"]').nth(k).wait_for()


def test_each_brings_the_styles_that_are_its_own(watch):
    """Also when another explorer was there before."""
    one = watch()
    pages = [w()._repr_mimebundle_()[0]["text/html"] for w in (MaskExplorer, CompletionExplorer)]
    one.page.set_content("".join(pages))
    one.page.locator('.fl-explorer[data-alive="true"]').nth(1).wait_for()
    for part, display in ((".fl-matrices", "flex"), (".fl-thumbs", "grid")):  # of one each
        shown = one.page.locator(part).first
        assert shown.evaluate("e => getComputedStyle(e).display") == display
    assert one.page.locator("style#fl-style-base").count() == 1


def test_what_a_label_says_is_left_as_it_is(watch):
    labels = ["__ESM__ __STYLES__", "</script><!--<script>\"'&"]
    flow, x = ImageRealNVP((1, 4, 4), n_scales=1, hidden=2), torch.rand(2, 1, 4, 4)
    explorer = browser.alone(watch(), MultiscaleExplorer(flow, x, labels=labels))
    shown = explorer.locator("[data-picture]").all_inner_texts()
    assert shown == labels
