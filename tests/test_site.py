"""The site as a reader meets it: every page, every link, three widths, two themes, no network."""

import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag

import pytest

from flowlib import widgets
from tests.browser import Watch, content_pages, settle
from tools import measure

AXE = (Path(__file__).parent / "vendor" / "axe.min.js").read_text()
OUTSIDE = re.compile(r"^(https?:|mailto:|data:)")
pytestmark = pytest.mark.browser

pages = pytest.mark.parametrize("path", content_pages())
themes = pytest.mark.parametrize("theme", ["light", "dark"])


class Page(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.ids, self.links, self.images = set(), [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.ids.add(attributes.get("id"))
        if tag == "a" and attributes.get("href"):
            self.links.append(attributes["href"])
        for name in ("src", "href") if tag in ("img", "script", "link") else ():
            if attributes.get(name) and attributes.get("rel") not in ("canonical",):
                self.links.append(attributes[name])
        if tag == "img":
            self.images.append(attributes)


def test_every_link_leads_somewhere(built):
    parsed = {path: Page(path.read_text()) for path in built.rglob("*.html")}
    assert len(parsed) > 10
    dead = []
    for path, page in parsed.items():
        for link in page.links:
            if OUTSIDE.match(link):
                continue
            target, fragment = urldefrag(unquote(link))
            file = (path.parent / target.split("?")[0]).resolve() if target else path
            if not file.exists():
                dead.append(f"{path.relative_to(built)}: {link}")
            elif fragment and file in parsed and fragment not in parsed[file].ids:
                dead.append(f"{path.relative_to(built)}: {link} (no such place)")
    assert not dead


def test_every_style_of_the_explorers_is_kept(built):
    """Their scripts put names together, such as `fl-key-${kind}`, and no page shows these."""
    (sheet,) = (built / "_static").glob("book.*.css")
    kept = set(re.findall(r"\.(fl-[\w-]+)", sheet.read_text()))
    own = "".join(p.read_text() for p in Path(widgets.__file__).parent.glob("*.css"))
    assert set(re.findall(r"\.(fl-[\w-]+)", own)) <= kept


def test_every_picture_says_what_it_shows(built):
    for path in content_pages():
        for image in Page((built / path).read_text()).images:
            assert "alt" in image, f"{path}: {image.get('src', '')[:80]}"
            if "logo__image" not in image.get("class", ""):
                assert len(image["alt"]) > 20, f"{path}: {image.get('src', '')[:80]}"


def test_what_a_page_asks_of_others_is_noticed_and_not_given(chromium):
    one = Watch(chromium, ())
    one.page.set_content("<img src='https://example.com/picture.png'>")
    one.page.wait_for_function("document.images[0].complete")
    one.context.close()
    outside, failed = one.wrong
    assert outside == "outside request: https://example.com/picture.png"
    assert "net::ERR_NAME_NOT_RESOLVED" in failed


@pytest.mark.parametrize("scheme", ["http", "file"])
def test_every_page_opens_without_the_network_and_every_explorer_lives(
    built, server, watch, scheme
):
    root = server if scheme == "http" else built.as_uri()
    page, lives = watch().page, set()
    for path in sorted(built.rglob("*.html")):
        if scheme == "file" and path.relative_to(built).as_posix() not in content_pages():
            continue  # the others are no different, and search reads its index over http only
        page.goto(f"{root}/{path.relative_to(built).as_posix()}", wait_until="load")
        if path == built / "index.html":
            page.wait_for_url("**/book/index.html")  # where it sends its readers
        for explorer in page.locator(".fl-explorer").all():
            explorer.scroll_into_view_if_needed()
            explorer.and_(page.locator('[data-alive="true"]')).wait_for()
            lives.add(explorer.get_attribute("data-explorer"))
    assert lives == set(widgets.__all__) - {"Explorer"}


@pages
@themes
def test_nothing_is_wider_than_the_screen(server, watch, path, theme):
    one = watch(width=320, color_scheme=theme)
    one.page.goto(f"{server}/{path}", wait_until="load")
    assert one.page.evaluate("document.documentElement.dataset.theme") == theme
    measure.lay_out(one.page)
    for width in (320, 390, 1280):
        one.page.set_viewport_size({"width": width, "height": 900})
        settle(one.page)
        assert one.page.evaluate("document.documentElement.scrollWidth") <= width


@pages
def test_mathematics_is_set_on_the_screen_with_its_number_beside_it(server, watch, path):
    one = watch(width=320)
    one.page.goto(f"{server}/{path}", wait_until="load")
    measure.lay_out(one.page)
    article = one.page.locator("article.bd-article")
    assert article.locator(".katex-error").count() == 0
    formulas = article.locator("span.math, div.math").count()
    assert article.locator(".katex").count() >= formulas
    if path.startswith("chapters") or "notation" in path:
        assert formulas > 5
    text = article.evaluate(
        "e => { const c = e.cloneNode(true);"
        " c.querySelectorAll('.katex, pre, code, script').forEach(n => n.remove());"
        " return c.textContent }"
    )
    assert not re.search(r"\\\(|\\\[|\$\$|\\tag", text)
    wrong = one.page.evaluate("""() => {
        const box = (e) => e.getBoundingClientRect();
        const { left } = box(document.querySelector("article.bd-article section"));
        return [...document.querySelectorAll(".katex-display .katex-html")].filter((formula) => {
            const bases = [...formula.querySelectorAll(":scope > .base")];
            const tag = formula.querySelector(":scope > .tag");
            const right = box(bases.at(-1)).right;
            // one that is wider than the screen scrolls under its number, which stays in sight
            const wide = formula.scrollWidth > formula.clientWidth + 1;
            const off = tag && box(tag).right > box(formula).right + 1;
            const lies = wide ? off : tag && box(tag).left < right;
            return box(bases[0]).left < left - 1 || lies;
        }).map((formula) => formula.textContent);
    }""")
    assert not wrong


# Of words that look alike on the same backgrounds, one is looked at for all: a page of code and
# formulas has thousands, and axe takes most of its time for their contrast. It skips hidden ones.
HIDE_TWINS = """() => {
  const looks = ["color", "backgroundColor", "backgroundImage", "opacity", "filter"];
  const known = new Map([[null, ""]]), seen = new Set(), twins = [];
  const look = (node) => {
    if (!known.has(node)) {
      const style = getComputedStyle(node);
      known.set(node, looks.map((name) => style[name]).join() + look(node.parentElement));
    }
    return known.get(node);
  };
  const names = "a, h1, h2, h3, th, summary, .fl-explorer"; // what is named by its words
  for (const node of document.querySelectorAll("article :is(span, p, strong, em, cite, code)")) {
    if (node.childElementCount || node.closest(names)) continue;
    const { fontSize, fontWeight, textShadow } = getComputedStyle(node);
    const key = [look(node), fontSize, fontWeight, textShadow].join();
    seen.has(key) ? twins.push(node) : seen.add(key);
  }
  for (const node of twins) node.style.visibility = "hidden";
}"""


# Of the other pages, what is no colour is the same in the dark.
EVERYTHING_IN_THE_DARK = ("book/index.html", "chapters/01-change-of-variables.html")


@pages
@themes
def test_accessibility(server, watch, path, theme):
    if theme == "dark" and path == "book/api.html":
        pytest.skip("a long page, of which nothing is special in the dark")
    one = watch(width=1280 if theme == "light" else 390, color_scheme=theme)
    one.page.goto(f"{server}/{path}", wait_until="load")
    measure.lay_out(one.page)
    one.page.evaluate(HIDE_TWINS)
    one.page.evaluate(AXE)
    options = {"preload": False, "resultTypes": ["violations"]}
    if theme == "dark" and path not in EVERYTHING_IN_THE_DARK:
        options["runOnly"] = ["color-contrast"]
    found = one.page.evaluate("options => axe.run(options).then(r => r.violations)", options)
    grave = [
        f"{v['id']}: {node['html'][:160]}"
        for v in found
        if v["impact"] in ("serious", "critical")
        for node in v["nodes"]
    ]
    assert not grave, "\n".join(grave)


def test_search_finds_the_chapter(server, watch):
    one = watch()
    one.page.goto(f"{server}/search.html?q=determinant")
    one.page.locator("#search-results li a", has_text="Change of variables").first.wait_for()


def test_a_chapter_can_be_downloaded(built):
    for path in content_pages():
        if path.startswith("chapters"):
            links = Page((built / path).read_text()).links
            notebook = next(link for link in links if link.endswith(".ipynb"))
            assert (built / path).parent.joinpath(notebook).resolve().exists()
