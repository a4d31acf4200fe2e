"""What every explorer must do; what each one is about stands in a file of its own."""

import base64
import re
from xml.etree import ElementTree

import pytest
import torch

from flowlib import ImageRealNVP, widgets
from flowlib.widgets import (
    CompletionExplorer,
    InversionExplorer,
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
def test_on_the_narrowest_phone_nothing_is_cut_and_words_can_be_read(watch, explorer, traits):
    one = watch(width=320, has_touch=True, is_mobile=True)
    shown = browser.alone(one, explorer(**traits))
    assert one.page.evaluate("document.documentElement.scrollWidth") <= 320
    assert not browser.cut(shown)
    assert browser.smallest_words(shown) >= 11


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


# --- what hands have done -------------------------------------------------------------------


def stand_alone(tmp_path, widget):
    """The explorer in a file of its own, as an address."""
    page = widget._repr_mimebundle_()[0]["text/html"]
    file = tmp_path / "explorer.html"
    file.write_text(f"<!DOCTYPE html><title>One explorer</title><body>{page}")
    return file.as_uri()


def opened(one, address):
    one.roots = (*one.roots, "file://")
    one.page.goto(address)
    explorer = one.page.locator('.fl-explorer[data-alive="true"]')
    explorer.wait_for()
    browser.settle(explorer)
    return explorer


# What a key changes, the handle that takes it, and the state that it changes.
CHANGES = [
    (widgets.WarpExplorer, {}, '[data-handle="column-2"]', "ArrowUp", "matrix"),
    (widgets.WarpExplorer, {"view": "bend"}, '[data-handle="centre"]', "ArrowUp", "centre"),
    (widgets.KLExplorer, {}, '[data-handle="q"]', "ArrowRight", "q"),
    (LayersExplorer, {}, 'input[data-name="depth"]', "ArrowRight", "depth"),
    (widgets.JacobianExplorer, {}, '[data-step="2"]', "Enter", "step"),
    (MultiscaleExplorer, {}, 'input[data-name="depth"]', "ArrowRight", "depth"),
    (MaskExplorer, {}, '[data-link="0,4,3"]', "Enter", "flips"),
    (CompletionExplorer, {}, '[data-ring="picture"]', " ", "pixels"),
    (widgets.SplineExplorer, {}, '[data-handle="knot-3"]', "ArrowUp", "knots"),
    (widgets.FixedPointExplorer, {}, '[data-handle="point-3"]', "ArrowUp", "points"),
    (widgets.FixedPointExplorer, {"view": "block"}, '[data-handle="latent"]', "ArrowUp", "latent"),
    (widgets.RouletteExplorer, {}, '[data-handle="eigenvalue-1"]', "ArrowUp", "eigenvalues"),
]
changes = pytest.mark.parametrize(
    ("explorer", "traits", "node", "key", "name"),
    [pytest.param(*c, id=f"{c[0].__name__}-{c[4]}") for c in CHANGES],
)


def change(explorer, node, key, name):
    before = explorer.get_attribute(f"data-{name}")
    if name == "pixels":  # the pixel chosen at first is drawn, and only given ones are painted
        explorer.locator('[data-view="picture"] .fl-ink-given').first.click()
        key = "ArrowUp"
    explorer.locator(node).first.focus()
    explorer.page.keyboard.press(key)
    browser.settle(explorer)
    after = explorer.get_attribute(f"data-{name}")
    assert after != before
    return before, after


@changes
def test_a_link_and_a_reload_bring_the_state_back(
    watch, tmp_path, explorer, traits, node, key, name
):
    address = stand_alone(tmp_path, explorer(**traits))
    one = watch()
    shown = opened(one, address)
    before, after = change(shown, node, key, name)
    shown.locator('[data-action="link"]').first.click()
    link = one.page.url
    assert link.startswith(f"{address}#{explorer.__name__}-")
    assert opened(watch(), link).get_attribute(f"data-{name}") == after
    again = opened(one, address)
    assert again.get_attribute(f"data-{name}") == after  # still the same visit
    again.locator('[data-action="reset"]').first.click()
    browser.settle(again)
    assert again.get_attribute(f"data-{name}") == before
    one.page.reload()
    assert opened(watch(), address).get_attribute(f"data-{name}") == before


@pytest.mark.parametrize(
    "text",
    [
        "%7B", "5", "null", '{"matrix":1}', '{"matrix":[[1,"2"],[3,4]]}', '{"matrix":[]}',
        '{"probe":"0.9"}',
    ],
)  # fmt: skip
def test_a_link_that_says_nothing_changes_nothing(watch, tmp_path, text):
    widget = widgets.WarpExplorer()
    address = stand_alone(tmp_path, widget)
    key = re.search(r'data-key="([^"]+)"', widget._repr_mimebundle_()[0]["text/html"])[1]
    explorer = opened(watch(), f"{address}#{key}={text}")
    assert browser.state(explorer, "matrix", "probe") == [[1.25, 0.5, -0.25, 1], 0.2]


def test_a_link_to_what_cannot_be_drawn_shows_the_explorer_as_it_was_made(watch, tmp_path):
    widget = LayersExplorer()
    address = stand_alone(tmp_path, widget)
    key = re.search(r'data-key="([^"]+)"', widget._repr_mimebundle_()[0]["text/html"])[1]
    explorer = opened(watch(), f'{address}#{key}={{"point":99999}}')
    assert browser.state(explorer, "point") == widget.point


@changes
def test_ctrl_z_and_a_button_take_back_one_change(watch, explorer, traits, node, key, name):
    one = watch()
    shown = browser.alone(one, explorer(**traits))
    undo = shown.locator('[data-action="undo"]').locator("visible=true")
    if not undo.count():  # where nothing can be spoilt
        assert explorer in (LayersExplorer, widgets.JacobianExplorer, MultiscaleExplorer)
        return
    assert undo.is_disabled()
    before, _ = change(shown, node, key, name)
    one.page.keyboard.press("Control+z")
    browser.settle(shown)
    assert shown.get_attribute(f"data-{name}") == before
    assert undo.is_disabled()
    change(shown, node, key, name)
    undo.click()
    browser.settle(shown)
    assert shown.get_attribute(f"data-{name}") == before


def test_one_drag_is_taken_back_as_one(watch):
    one = watch()
    shown = browser.alone(one, widgets.WarpExplorer())
    handle = shown.locator('[data-handle="column-1"]')
    browser.drag(one.page, handle, 20, 10)
    browser.drag(one.page, handle, 10, -30)
    undo = shown.locator('[data-action="undo"]')
    undo.click()
    assert browser.state(shown, "matrix") != [1.25, 0.5, -0.25, 1]
    undo.click()
    assert browser.state(shown, "matrix") == [1.25, 0.5, -0.25, 1]


@all_faces
def test_its_picture_is_one_file_that_needs_nothing_else(watch, tmp_path, explorer, traits):
    one = watch()
    shown = opened(one, stand_alone(tmp_path, explorer(**traits)))
    with one.page.expect_download() as download:
        shown.locator('[data-action="picture"]').locator("visible=true").click()
    file = tmp_path / "picture.svg"
    download.value.save_as(file)
    assert download.value.suggested_filename == f"{explorer.__name__}.svg"
    root = ElementTree.parse(file).getroot()
    tags = {node.tag.split("}")[1] for node in root.iter()}
    assert tags <= {"svg", "g", "path", "circle", "rect", "text", "tspan", "image", "title", "line"}
    words = " ".join("".join(node.itertext()) for node in root.iter() if node.tag.endswith("text"))
    assert "One explorer" in words  # the page's title
    assert "var(" not in file.read_text()
    for number in shown.locator("output:visible").all_inner_texts():
        assert number in words
    one.page.goto(file.as_uri())
    box = one.page.evaluate("document.documentElement.getBoundingClientRect().toJSON()")
    assert box["width"] == pytest.approx(shown_width(root))


def shown_width(root):
    return float(root.get("width"))


@all_faces
def test_it_fits_on_a_screen(watch, explorer, traits):
    """Beside its rail 720 pixels high at most; on a phone picture and verdict within 640."""
    wide = watch(width=850).page
    page = explorer(**traits)._repr_mimebundle_()[0]["text/html"]
    wide.set_content(f'<body style="margin: 8px">{page}')
    shown = wide.locator('.fl-explorer[data-alive="true"]')
    assert shown.bounding_box()["height"] <= 720
    phone = watch(width=390, height=4000, has_touch=True, is_mobile=True).page
    phone.set_content(
        f'<meta name="viewport" content="width=device-width"><body style="margin: 16px">{page}'
    )
    shown = phone.locator('.fl-explorer[data-alive="true"]')
    verdict = shown.locator(".fl-verdict").locator("visible=true").first.bounding_box()
    assert verdict["y"] + verdict["height"] - shown.bounding_box()["y"] <= 640


SMALL = """(e, least) => [...e.querySelectorAll("button, input, summary, select, circle.fl-halo")]
  .filter(n => n.getBoundingClientRect().width && getComputedStyle(n).visibility === "visible")
  .filter(n => Math.max(n.getBoundingClientRect().width, n.getBoundingClientRect().height) < least
    || n.getBoundingClientRect().height < least && !n.closest(".fl-thumbs"))
  .map(n => n.outerHTML.slice(0, 90))"""


@all_faces
def test_on_a_wide_page_no_slider_is_short(watch, explorer, traits):
    """Of the width that it has in the book at 1280 pixels, with all that folds open."""
    shown = browser.alone(watch(width=816), explorer(**traits))
    assert shown.bounding_box()["width"] == 800
    lengths = shown.locator("input[type=range]:visible").evaluate_all(
        "all => all.map(n => [n.dataset.name, n.getBoundingClientRect().width])"
    )
    assert not [one for one in lengths if one[1] < 120]
    assert not browser.cut(shown)


# States with short and with long sentences.
LONG_WORDS = [
    (widgets.WarpExplorer, {"view": "bend"}, [{"side": s} for s in (0.02, 0.3, 1.5)]),
    (widgets.SplineExplorer, {}, [{"slopes": [1, 1, s, 1, 1]} for s in (0.05, 1, 4)]),
    (CompletionExplorer, {}, [{"mean": m, "known": k} for m in (False, True) for k in (33, 64)]),
    (InversionExplorer, {}, [{"chosen": c, "tick": t} for c in (-1, 1, 4) for t in (0, 3, 5)]),
    (MultiscaleExplorer, {}, [{"depth": d} for d in (0, 1, 6, 15, 23)]),
    (widgets.JacobianExplorer, {}, [{"step": k // 2, "composed": k % 2 > 0} for k in range(12)]),
    (LayersExplorer, {}, [{"depth": d} for d in (0, 0.5, 7)]),
]  # fmt: skip
PLACES = """e => Object.fromEntries([...e.querySelectorAll("input, button:not(.fl-tool)")]
  .filter((n) => n.offsetParent)
  .map((n, k) => [`${k} ${n.dataset.name ?? n.textContent}`,
    n.getBoundingClientRect().top - e.getBoundingClientRect().top]))"""


@pytest.mark.parametrize(
    ("explorer", "traits", "states"), LONG_WORDS, ids=[c[0].__name__ for c in LONG_WORDS]
)
@pytest.mark.parametrize("width", [816, 374])
def test_nothing_that_is_pressed_moves_when_other_words_are_said(
    watch, width, explorer, traits, states
):
    shown = browser.alone(watch(width=width), explorer(**traits))
    first, *others = browser.each(shown, states, PLACES)
    for tops in others:
        assert tops == pytest.approx(first, abs=0.5)


@all_faces
def test_a_finger_finds_what_it_needs(watch, explorer, traits):
    shown = browser.alone(watch(width=390, has_touch=True, is_mobile=True), explorer(**traits))
    assert not shown.evaluate(SMALL, 39.5)
