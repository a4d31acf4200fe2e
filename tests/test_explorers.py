"""What every explorer must do; what each one is about stands in a file of its own."""

import base64

import pytest

from flowlib import widgets
from tests import browser

pytestmark = pytest.mark.browser
NAMES = sorted(set(widgets.__all__) - {"Explorer"})

explorers = pytest.mark.parametrize("name", NAMES)


@explorers
@pytest.mark.parametrize("scheme", ["http", "file"])
def test_it_is_alive_on_the_site(watch, server, built, name, scheme):
    browser.on_site(watch(), name, server if scheme == "http" else built.as_uri())


@explorers
def test_without_javascript_there_is_a_picture(watch, name):
    one = watch(java_script_enabled=False)
    one.page.set_content(getattr(widgets, name)()._repr_mimebundle_()[0]["text/html"])
    picture = one.page.locator(".fl-explorer img")
    assert picture.is_visible()
    assert len(picture.get_attribute("alt")) > 60
    box = picture.bounding_box()
    assert box["width"] > 300
    assert box["height"] > 150
    svg = base64.b64decode(picture.get_attribute("src").split(",")[1]).decode()
    assert svg.count("<path") > 3


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


@explorers
def test_on_the_narrowest_phone_nothing_is_cut(watch, name):
    one = watch(width=320, has_touch=True, is_mobile=True)
    explorer = browser.alone(one, getattr(widgets, name)())
    assert one.page.evaluate("document.documentElement.scrollWidth") <= 320
    cut = explorer.evaluate(
        "e => [...e.querySelectorAll('*')].filter(n => !n.closest('svg') || n.tagName == 'svg')"
        ".filter(n => n.getBoundingClientRect().right > e.getBoundingClientRect().right + 1)"
        ".map(n => n.outerHTML.slice(0, 100))"
    )
    assert not cut


@explorers
def test_everything_that_moves_has_a_name_and_is_reached_by_tab(watch, name):
    explorer = browser.alone(watch(), getattr(widgets, name)())
    nameless = explorer.evaluate(
        "e => [...e.querySelectorAll('input, button, .fl-grab')].filter(n => n.tabIndex < 0 ||"
        " !(n.getAttribute('aria-label') || n.textContent.trim())).map(n => n.outerHTML)"
    )
    assert not nameless


@explorers
def test_the_same_state_publishes_the_same_page(name):
    explorer = getattr(widgets, name)
    first, second = (explorer()._repr_mimebundle_()[0] for _ in range(2))
    assert first["text/html"] == second["text/html"]
    assert "0x" not in repr(explorer())
