"""The finished pages: what they weigh, how they are folded, printed, found, and read by anybody."""

import itertools
import json
import re
import tomllib
import unicodedata
from pathlib import Path
from urllib.parse import unquote, urldefrag

import numpy as np
import pydata_sphinx_theme
import pytest
import sphinx_book_theme
from bs4 import BeautifulSoup
from PIL import Image
from pypdf import PdfReader

from tests.browser import Watch, content_pages, settle
from tools import address, measure, pdf
from tools.pages import explorers, figures, folding, head, mathematics, room, wide
from tools.pages import theme as themes

pages = pytest.mark.parametrize("path", content_pages())
CHAPTERS = [path for path in content_pages() if path.startswith("chapters")]
chapters = pytest.mark.parametrize("path", CHAPTERS)


def bare(words):
    return re.sub(r"\s", "", unicodedata.normalize("NFKC", words))


def soup(text):
    return BeautifulSoup(text, "html.parser")


# --- weight, and room -----------------------------------------------------------------------


@pytest.mark.browser
@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("path", measure.PAGES)
def test_a_page_weighs_little_and_nothing_jumps(chromium, server, path, width):
    size = next(size for size in measure.WIDTHS.values() if size[0] == width)
    seen = measure.visit(chromium, f"{server}/{path}", size, slow=False)
    assert seen["raw"] <= 1.5e6
    assert seen["gzip"] <= 450e3
    assert seen["shift"] <= 0.02
    assert seen["requests"] <= 30
    if width == 1280:
        assert all(height <= 720 for _, height in seen["heights"]), seen["heights"]


@pytest.mark.browser
@pytest.mark.parametrize("width", [1280, 390])
def test_the_room_that_is_kept_for_an_explorer_is_what_it_takes(watch, server, width):
    noted = tomllib.loads(room.HEIGHTS.read_text())["explorers"]
    page = watch(width=width).page
    shown = set()
    for path in CHAPTERS:
        page.goto(f"{server}/{path}", wait_until="load")
        measure.lay_out(page)
        for key, height in page.locator(room.EXPLORERS).evaluate_all(
            "all => all.map(e => [e.dataset.key, e.getBoundingClientRect().height])"
        ):
            assert height == pytest.approx(noted[key][width == 1280], abs=40), "make heights"
            shown.add(key)
    assert shown == set(noted), "make heights"


@pytest.mark.browser
def test_an_explorer_comes_to_life_when_one_is_near_or_the_address_names_it(watch, server):
    page = watch().page
    url = f"{server}/chapters/01-change-of-variables.html"
    page.goto(url, wait_until="load")
    explorers = page.locator("[data-explorer]")
    first, last = explorers.first, explorers.last
    first.and_(page.locator("[data-alive]")).wait_for()
    page.wait_for_timeout(500)
    assert last.get_attribute("data-begun") is None  # nobody is there, and nothing is spent on it
    page.evaluate("document.querySelector('#quiz').scrollIntoView()")
    page.wait_for_timeout(500)
    assert explorers.nth(1).get_attribute("data-alive") is None  # and not what was passed by
    key = last.get_attribute("data-key")
    for start in (url, f"{url}#{key}={{}}"):
        page.goto("about:blank")
        page.goto(start, wait_until="load")
        page.evaluate(f"location.hash = '{key}={{}}'")
        last.and_(page.locator("[data-alive]")).wait_for()
        assert -100 < last.bounding_box()["y"] < 900


@pytest.mark.browser
def test_the_contents_mark_the_one_section_that_one_is_in(watch, server):
    page = watch().page
    page.goto(f"{server}/{CHAPTERS[0]}", wait_until="load")
    page.mouse.move(640, 400)
    sections = page.locator(room.SECTIONS)
    marked = page.locator(".bd-sidebar-secondary a:is(.active, [aria-current])")
    seen = set()
    for _ in range(12):
        page.mouse.wheel(0, 700)
        page.wait_for_timeout(200)
        names = marked.evaluate_all("all => all.map(a => a.hash.slice(1))")
        tops = sections.evaluate_all("all => all.map(e => [e.id, e.getBoundingClientRect().top])")
        assert names == [name for name, top in tops if top < 0.3 * 900][-1:]
        seen.update(names)
    assert len(seen) > 2


# A page with nothing but explorers, a screen and more apart, that say when they have begun.
FEW = """<!doctype html><body><script>
window.flExplorers = { Some: {} };
window.bring = (kind, root, state) => (root.dataset.alive = state.at);
</script>{explorers}<script>{script}</script>"""
ONE = """<div data-explorer="Some" data-key="Some-{at}">Some</div>
<script type="application/json">{{"at": {at}}}</script><div style="height: 3000px"></div>"""


@pytest.mark.browser
def test_the_script_wakes_the_explorers_that_are_near_or_named(chromium, tmp_path):
    """The same as above for the script alone, without the site."""
    file = tmp_path / "few.html"
    explorers = "".join(ONE.format(at=at) for at in range(4))
    script = (measure.ROOT / "book/assets/site.js").read_text()
    file.write_text(FEW.replace("{explorers}", explorers).replace("{script}", script))
    one = Watch(chromium, (file.as_uri(),))
    alive = one.page.locator("[data-alive]")
    for name, expected in (("", ["0"]), ("#Some-2={}", ["0", "2"])):
        one.page.goto("about:blank")
        one.page.goto(file.as_uri() + name, wait_until="load")
        for at in expected:
            one.page.locator(f"[data-alive='{at}']").wait_for()
        settle(one.page)
        assert alive.evaluate_all("all => all.map(e => e.dataset.alive)") == expected
    one.page.evaluate("location.hash = 'Some-3={}'")
    one.page.locator("[data-alive='3']").wait_for()
    one.context.close()
    assert not one.wrong


def test_the_themes_script_finds_no_contents_to_mark():
    """It would a moment later than ours, which a busy machine may not show."""
    page = soup(
        '<html><nav id="pst-page-toc-nav" class="page-toc"><a href="#one">One</a></nav></html>'
    )
    script = Path(pydata_sphinx_theme.__file__).parent.rglob(
        "static/scripts/pydata-sphinx-theme.js"
    )
    assert page.nav["id"] in "".join(file.read_text() for file in script)
    themes.simplify(page)
    assert "id" not in page.nav.attrs
    assert page.nav["class"] == ["page-toc"]


def test_nothing_is_shipped_that_no_page_asks_for(built):
    asked = "".join(p.read_text() for p in built.rglob("*.html"))
    asked += "".join(p.read_text() for p in (built / "_static").glob("book.*.css"))
    for file in (built / "_static").rglob("*.*"):
        assert file.name in asked or file.is_dir(), file
    for file in (built / "_images").iterdir():
        assert file.name in asked, file
        assert file.stat().st_size < 500_000


def test_the_state_of_an_explorer_stays_in_its_page_and_its_code_is_shared(tmp_path):
    parts = {"key": "A-1", "state": {"a": "</script>"}, "code": "export default {};", "styles": {}}
    literal = json.dumps(json.dumps(parts)).replace("</", "<\\/")
    page = soup(f'<script type="module">\nconst page = JSON.parse({literal});\n</script>')
    (tmp_path / "_static").mkdir()
    explorers.share_explorers(page, tmp_path)
    assert "</script>" not in page.script.string
    assert json.loads(page.script.string) == {"a": "</script>"}
    assert (tmp_path / "_static/explorers/A.js").exists()


def test_room_is_kept_for_explorers_and_for_sections_that_are_laid_out_late():
    noted = tomllib.loads(room.HEIGHTS.read_text())
    key, (narrow, wide) = next(iter(noted["explorers"].items()))
    path = CHAPTERS[0]
    name, (low, high) = next(iter(noted[path].items()))
    page = soup(
        f'<div class="bd-article"><section><section id="{name}">'
        f'<div class="fl-explorer" data-key="{key}"></div>'
        '</section><section id="new"></section></section></div>'
    )
    room.keep_room(page, path)
    assert (
        page.select_one(".fl-explorer")["style"] == f"--fl-narrow: {narrow}px; --fl-wide: {wide}px"
    )
    (section,) = page.select(".fl-far")
    assert section["id"] == name
    assert section["style"] == f"--fl-narrow: {low}px; --fl-wide: {high}px"


@pytest.mark.browser
@pytest.mark.parametrize("width", [1280, 390])
@chapters
def test_the_room_of_a_section_is_what_it_takes(watch, server, path, width):
    noted = tomllib.loads(room.HEIGHTS.read_text())[path]
    page = watch(width=width).page
    page.goto(f"{server}/{path}", wait_until="load")
    measure.lay_out(page)
    sections = page.locator(room.SECTIONS).evaluate_all(
        "all => all.map(e => [e.id, e.getBoundingClientRect().height])"
    )
    assert [name for name, _ in sections] == list(noted), "make heights"
    for name, height in sections:
        assert height == pytest.approx(noted[name][width == 1280], rel=0.25), "make heights"


@pytest.mark.browser
@pytest.mark.parametrize("width", [1280, 820, 390])
@chapters
def test_a_link_into_what_is_not_laid_out_yet_leads_there(watch, server, path, width):
    page = watch(width=width).page
    for name in ("exercises", "quiz"):
        page.goto(f"{server}/{path}#{name}", wait_until="load")
        page.wait_for_timeout(300)  # sections above come near, and may be higher than was noted
        top = page.locator(f"#{name}").evaluate("e => e.getBoundingClientRect().top")
        assert 0 <= top < 200, (name, top)


# --- code that waits ------------------------------------------------------------------------

CELL = """<div class="cell{kind}"><div class="cell_input"><pre>{code}</pre></div>
<div class="cell_output"><div class="output stream"><pre>{printed}</pre></div></div></div>"""


def folded(code, printed="", kind=""):
    page = soup(CELL.format(code=code, printed=printed, kind=kind))
    folding.fold_code(page)
    return page


def test_a_check_is_what_it_has_said():
    page = folded('holds("2.1", a, b)', "(2.1) holds on 400 random cases, to 1e-10.\n")
    (check,) = page.select("details.fl-check")
    assert check.summary.get_text() == "(2.1) holds on 400 random cases, to 1e-10."
    assert "holds(" in check.select_one(".cell_input").get_text()
    assert not page.select(".stream")  # it is said once
    page = folded('holds("2.1", a, b)\nprint(3)', "(2.1) holds on 9 cases.\nand 3\n")
    assert page.select_one(".stream").get_text().strip() == "and 3"


@pytest.mark.parametrize(
    ("code", "summary"),
    [
        ("plt.plot(x)\nplt.show()", "Code of this figure"),
        ("WarpExplorer()", "Code of this explorer"),
        ("\n".join(["a = 1"] * 25 + ["print(a)"]), "Code of this experiment, 26 lines"),
        ("print(a)", None),
        ("\n".join(["a = 1"] * 40), None),  # a method, from scratch
    ],
)
def test_code_of_figures_explorers_and_long_experiments_waits(code, summary):
    page = folded(code)
    found = page.select("details.fl-code")
    assert [one.summary.get_text() for one in found] == ([summary] if summary else [])
    if summary:  # under what it has made
        assert page.select_one(".cell_output").find_next("details") is found[0]
    assert not folded(code, kind=" tag_open").select("details")


@pytest.mark.browser
@chapters
def test_one_button_opens_all_code_and_shuts_it(watch, server, path):
    page = watch().page
    page.goto(f"{server}/{path}", wait_until="load")
    count = page.locator("details:is(.fl-code, .fl-check)").count()
    assert count > 12
    for opened in (count, 0):
        page.locator(".fl-all-code").click()
        assert page.locator("details:is(.fl-code, .fl-check)[open]").count() == opened


# --- figures --------------------------------------------------------------------------------


def dark(color):
    picture = Image.new("RGB", (1, 1), color)
    return np.array(figures.in_the_dark(picture))[0, 0].astype(int)


def rgb(color):
    return np.array([int(color[k : k + 2], 16) for k in (1, 3, 5)])


@pytest.mark.parametrize(
    ("light", "there"),
    [
        *figures.HUES.items(),
        *([sheet["light"], sheet["dark"]] for sheet in (figures.PAPER, figures.INK)),
    ],
)
def test_in_the_dark_a_figure_has_the_dark_themes_colours(light, there):
    assert np.abs(dark(light) - rgb(there)).max() <= 1
    css = (measure.ROOT / "book/assets/book.css").read_text().lower()
    assert there.lower() in css
    # and half of it on paper is half of it on the other paper
    paper, night = rgb(figures.PAPER["light"]), rgb(figures.PAPER["dark"])
    half = tuple(((rgb(light) + paper) / 2).round().astype(int).tolist())
    assert np.abs(dark(half) - (rgb(there) + night) / 2).max() <= 2


def test_greys_keep_their_order_in_the_dark():
    greys = [dark((v, v, v)).mean() for v in range(70, 250, 5)]
    assert all(a >= b for a, b in itertools.pairwise(greys))
    assert greys[0] - greys[-1] > 180


@pytest.mark.browser
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_a_reader_gets_the_figures_of_the_theme_and_no_others(watch, server, theme):
    one = watch(color_scheme=theme)
    asked = []
    one.page.on("request", lambda request: asked.append(request.url))
    one.page.goto(f"{server}/chapters/01-change-of-variables.html", wait_until="load")
    shown = one.page.locator("article img:not(.fl-explorer img)").locator("visible=true")
    other = {"light": ".dark.webp", "dark": ".webp"}[theme]
    assert shown.count() >= 3
    for image in shown.all():
        image.scroll_into_view_if_needed()
        one.page.wait_for_function("e => e.complete && e.naturalWidth", arg=image.element_handle())
        source = image.get_attribute("src")
        assert source.endswith(".dark.webp") == (theme == "dark")
        box = image.bounding_box()
        natural = image.evaluate("e => e.naturalWidth / e.naturalHeight")
        assert box["width"] / box["height"] == pytest.approx(natural, rel=0.02)
        assert image.evaluate("e => e.naturalWidth") >= 1.6 * box["width"]  # a screen of two
    fetched = [url for url in asked if "/_images/" in url]
    assert fetched
    assert not [
        url for url in fetched if url.endswith(other) and (theme == "dark") != (".dark." in url)
    ]


# Of every figure: how many of its pictures are seen, and the captions that are.
SHOWN = """() => {
  const seen = (node) => {
    const { width, height } = node.getBoundingClientRect();
    return width > 0 && height > 0 && getComputedStyle(node).visibility === "visible";
  };
  return [...document.querySelectorAll("article figure")].map((figure) => {
    figure.scrollIntoView();
    const captions = [...figure.querySelectorAll("figcaption")].filter(seen);
    const pictures = [...figure.querySelectorAll("img")].filter(seen);
    return [pictures.length, captions.map((caption) => caption.textContent)];
  });
}"""


def theme_styles():
    """Those of the two themes, as they come."""
    folders = [Path(module.__file__).parent for module in (pydata_sphinx_theme, sphinx_book_theme)]
    files = [file for folder in folders for file in folder.rglob("static/styles/*.css")]
    assert len(files) >= 2
    return "".join(file.read_text() for file in files)


@pytest.mark.browser
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_a_caption_is_one_of_both_pictures(watch, theme):
    """The same as below for the style sheets alone, without the site."""
    css = theme_styles() + (measure.ROOT / "book/assets/book.css").read_text()
    picture = '<img class="only-{}" src="data:image/gif;base64,R0lGODlhAQABAAAAACw=" width="300">'
    caption = "<figcaption><p>What is marked below on the right.</p></figcaption>"
    page = watch().page
    page.set_content(
        f'<!doctype html><html data-theme="{theme}"><style>{css}</style>'
        f'<article class="bd-article"><figure>{picture.format("light")}{picture.format("dark")}'
        f"{caption}</figure></article>"
    )
    assert page.evaluate(SHOWN) == [[1, ["What is marked below on the right."]]]


@pytest.mark.browser
@pytest.mark.parametrize(
    "reader",
    [
        {"color_scheme": "light"},
        {"color_scheme": "dark"},
        {"java_script_enabled": False, "color_scheme": "light"},
        {"java_script_enabled": False, "color_scheme": "dark"},
    ],
    ids=str,
)
def test_every_figure_is_seen_once_with_its_caption(watch, server, reader):
    page = watch(**reader).page
    for path in CHAPTERS:
        page.goto(f"{server}/{path}", wait_until="load")
        for media in ("print", "screen"):
            page.emulate_media(media=media, color_scheme=reader["color_scheme"])
            shown = page.evaluate(SHOWN)
            assert shown
            for pictures, captions in shown:
                assert pictures == 1
                assert len(captions) == 1
                assert len(captions[0]) > 20


# --- what is wider than its box --------------------------------------------------------------

# What scrolls and does not say so, or says so and does not; and what does not stop at its end.
SAYS = """async () => {
  const kinds = ".katex-display .katex-html, .pst-scrollable-table-container, .fl-sheet, "
    + ".cell_output pre";
  const frame = () => new Promise(requestAnimationFrame), wrong = [];
  for (const box of document.querySelectorAll(kinds)) {
    if (!box.clientWidth) continue;
    const words = new Range();
    words.selectNodeContents(box);
    const wide = box.matches("pre")
      ? words.getBoundingClientRect().right > box.getBoundingClientRect().right + 2
      : box.scrollWidth > box.clientWidth + 2;
    const place = box.closest("div.math") ?? box;
    const says = getComputedStyle(place, "::after").content.includes("scrolls");
    if (wide !== says) wrong.push([box.className, box.textContent.slice(0, 80)]);
    if (!wide || place !== box) continue;
    if (getComputedStyle(box).maskImage === "none") wrong.push(["no edge", box.className]);
    box.scrollLeft = box.scrollWidth;
    await frame();
    await frame();
    if (box.dataset.scrolls !== "end") wrong.push(["no end", box.className]);
  }
  return wrong;
}"""


@pytest.mark.browser
@pytest.mark.parametrize("width", [1280, 390])
@pages
def test_what_scrolls_says_so_until_its_end(watch, server, path, width):
    page = watch(width=width).page
    page.goto(f"{server}/{path}", wait_until="load")
    measure.lay_out(page)
    settle(page)
    assert page.evaluate(SAYS) == []


@pytest.mark.browser
@pytest.mark.parametrize("width", [1280, 390])
def test_no_word_of_code_is_broken_in_a_table(watch, server, width):
    page = watch(width=width).page
    page.goto(f"{server}/book/notation.html", wait_until="load")
    lines = page.locator("td code").evaluate_all("all => all.map(e => e.getClientRects().length)")
    assert len(lines) > 20
    assert set(lines) == {1}


# What hides a part of a formula within a line, and signs behind one that stand on the next line.
CLIPPED = """() => [...document.querySelectorAll("article span.math")].filter((node) => {
  const text = node.closest("p, li, td, th, h1, h2, h3, figcaption, article");
  let at = node.querySelector(".katex-html");
  while (at !== text && getComputedStyle(at).overflow === "visible") at = at.parentElement;
  return at !== text;
}).map((node) => node.textContent)"""
ALONE = """() => [...document.querySelectorAll("article .fl-keep")].filter((node) => {
  const bases = node.querySelectorAll(".base"), last = node.lastChild, range = new Range();
  if (!node.offsetParent || last.nodeType !== 3 || !last.length) return false;
  range.selectNode(last);
  const end = bases[bases.length - 1].getBoundingClientRect();
  return range.getBoundingClientRect().left < end.right - 2;
}).map((node) => node.parentElement.textContent)"""


@pytest.mark.browser
@chapters
def test_formulas_within_a_line_are_whole(watch, server, path):
    page = watch(width=390).page
    page.goto(f"{server}/{path}", wait_until="load")
    measure.lay_out(page)
    page.evaluate("document.querySelectorAll('article details').forEach((d) => (d.open = true))")
    assert page.locator(".fl-keep").count() > 30
    assert page.evaluate(CLIPPED) == []
    assert page.evaluate(ALONE) == []


class Set:
    """In KaTeX's place."""

    def call(self, _, tex, __):
        return f"<span>{tex}</span>"


@pytest.mark.parametrize(
    ("before", "after", "kept"),
    [
        ("so (", ") is", "(x)"),
        ("the ", "-th of", "x-th"),
        ("is ", ". So", "x."),
        ("is ", "-dimensional", "x-"),
        ("is ", " or", None),
        ("is ", "", None),
    ],
)
def test_signs_stay_with_their_formula(before, after, kept):
    page = soup(f'<p>{before}<span class="math">\\(x\\)</span>{after}</p>')
    mathematics.set_mathematics(page, Set())
    assert page.get_text() == f"{before}x{after}"
    assert [node.get_text() for node in page.select(".fl-keep")] == ([kept] if kept else [])


def test_wide_tables_have_small_letters_and_lines_without_columns_may_wrap():
    def table(cells, count):
        row = f"<tr>{cells * count}</tr>"
        return f'<table class="table"><thead>{row.replace("td", "th")}</thead>{row}</table>'

    page = soup(
        f"<article>{table('<td>four words in it</td>', 10)}{table('<td>four_words_in_it</td>', 10)}"
        f"{table('<td>' + 8 * 'more ' + '</td>', 4)}</article>"
        '<div class="cell_output"><pre>mean 3.5,  truth 4\n</pre><pre>mean 3.5, 4\n</pre></div>'
    )
    wide.sort_out(page)
    assert [t["class"][1:] for t in page.select("table")] == [[], ["fl-wide"], ["fl-words"]]
    assert [pre.get("class") for pre in page.select("pre")] == [None, ["fl-lines"]]


# --- mathematics, search --------------------------------------------------------------------


def test_what_is_no_mathematics_is_refused():
    with pytest.raises(ValueError, match="expected mathematics"):
        mathematics.set_mathematics(soup('<div class="math">x</div>'), None)


def test_every_equation_has_a_place(built):
    for path in CHAPTERS:
        page = soup((built / path).read_text())
        number = path.split("/")[1][1]
        found = [node["id"] for node in page.select('[id^="equation-"]')]
        assert len(found) == len(set(found)) > 8
        assert all(name.startswith(f"equation-{number}.") for name in found)


@pytest.mark.browser
def test_the_search_finds_an_equation_by_its_number(watch, server):
    page = watch().page
    for query in ("2.15", "(1.3)"):
        page.goto(f"{server}/search.html?q={query}")
        page.locator(".fl-found a").click()
        number = query.strip("()")
        page.wait_for_url(f"**/chapters/*.html#equation-{number}")
        assert page.locator(f'[id="equation-{number}"]').bounding_box()["y"] < 900
    page.goto(f"{server}/search.html?q=99.1")
    assert page.locator(".fl-found").count() == 0


@pytest.mark.browser
def test_the_search_shows_no_raw_mathematics_and_opens_where_the_word_is(watch, server):
    page = watch().page
    page.goto(f"{server}/search.html?q=elimination")
    page.locator("#search-results li .context").first.wait_for()
    for text in page.locator("#search-results li .context").all_inner_texts():
        assert not re.search(r"\\[a-zA-Z(\[]|\$", text), text
    page.locator("#search-results li a", has_text="RealNVP").first.click()
    marked = page.locator("article span.highlighted").first
    marked.wait_for()
    assert 0 < marked.bounding_box()["y"] < 900


@pytest.mark.browser
def test_the_search_passes_by_code_that_waits(watch, server):
    page = watch().page
    page.goto(f"{server}/search.html?q=jacobian")
    page.locator("#search-results li a", has_text="RealNVP").first.click()
    page.locator("article span.highlighted:not(.fl-code *)").first.wait_for()
    page.wait_for_timeout(300)
    assert page.locator("article span.highlighted").locator("visible=true").count() > 0
    assert page.locator("details.fl-code[open]").count() == 0


# --- heads ----------------------------------------------------------------------------------


def test_every_page_says_what_it_is_about(built):
    described = {}
    for path in content_pages():
        page = soup((built / path).read_text())
        (description,) = page.select("meta[name=description]")
        assert 40 < len(description["content"]) <= 162
        assert "\\" not in description["content"]
        described[description["content"]] = path
        assert not page.select("link[rel=canonical], meta[property]")  # there is no address as yet
    assert len(described) == len(content_pages())


def test_with_an_address_a_page_has_a_canonical_one_and_a_picture(tmp_path):
    page = soup("<head><title>T</title></head><article class='bd-article'><p>Words.</p></article>")
    head.describe(page, "chapters/02-realnvp.html", "https://example.github.io/flows")
    assert page.select_one("link[rel=canonical]")["href"].endswith(
        "/flows/chapters/02-realnvp.html"
    )
    picture = page.select_one("meta[property='og:image']")["content"]
    assert (head.SHARED / picture.rsplit("/", 1)[1]).exists()
    config = tmp_path / "_config.yml"
    for url, site in [
        ("", ""), ("https://github.com/Some/flows", "https://some.github.io/flows"),
        ("https://github.com/some/some.github.io", "https://some.github.io"),
    ]:  # fmt: skip
        config.write_text(f'repository:\n  url: "{url}"\n')
        assert address.site_of(tmp_path) == site


# --- readers without a script, with a keyboard, on paper ------------------------------------


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("path", ["book/index.html", "book/api.html", CHAPTERS[0]])
def test_without_a_script_it_is_readable_in_the_systems_colours(watch, server, path, scheme):
    page = watch(java_script_enabled=False, color_scheme=scheme).page
    page.goto(f"{server}/{path}", wait_until="load")
    back = page.locator("body").evaluate("e => getComputedStyle(e).backgroundColor")
    ink = page.locator("article p").first.evaluate("e => getComputedStyle(e).color")
    back, ink = (sum(map(int, re.findall(r"\d+", text)[:3])) for text in (back, ink))
    assert (back > ink) == (scheme == "light")
    assert abs(back - ink) > 350
    if path in CHAPTERS:
        assert page.locator(".katex-html").count() > 20
        assert page.locator(".fl-explorer img").first.is_visible()


@pytest.mark.browser
@chapters
def test_tab_goes_in_reading_order(watch, server, path):
    one = watch()
    one.page.goto(f"{server}/{path}", wait_until="load")
    order = one.page.evaluate("""() => {
      const kinds = "article :is(a[href], button, input, summary, select)";
      return [...document.querySelectorAll(kinds)].filter(n => n.tabIndex > 0).length;
    }""")
    assert order == 0  # nobody jumps the queue
    one.page.keyboard.press("Tab")
    assert "skip" in one.page.evaluate("document.activeElement.textContent").lower()
    one.page.keyboard.press("Enter")
    tops = []
    for _ in range(12):
        one.page.keyboard.press("Tab")
        here = one.page.evaluate(
            "(e => [!!e.closest('article'), !!e.closest('.fl-explorer'),"
            " e.getBoundingClientRect().top + scrollY])(document.activeElement)"
        )
        if here[0] and not here[1]:  # an explorer has two columns
            tops.append(here[2])
    assert tops == sorted(tops)


WIDE = "pre, table, .katex-display .katex-html, p, img"
CUT = f"""() => [...document.querySelectorAll("article :is({WIDE})")]
  .filter(n => n.getClientRects().length && n.scrollWidth > n.clientWidth + 2 && n.clientWidth > 0)
  .map(n => n.outerHTML.slice(0, 120))"""


@pytest.mark.browser
@pytest.mark.parametrize("theme", ["dark"])
@chapters
def test_on_paper_it_is_light_open_and_whole(watch, server, path, theme):
    one = watch(width=660, color_scheme=theme)  # what a sheet of A4 has between its margins
    one.page.goto(f"{server}/{path}", wait_until="load")
    one.page.emulate_media(media="print")
    one.page.evaluate("dispatchEvent(new Event('beforeprint'))")
    settle(one.page)
    assert one.page.locator("article details:not([open])").count() == 0
    assert one.page.evaluate("document.documentElement.dataset.theme") == "light"
    assert one.page.locator(".fl-explorer.fl-dark").count() == 0
    for part in (".bd-sidebar-primary", ".bd-header-article", ".prev-next-footer", ".copybtn"):
        assert one.page.locator(part).locator("visible=true").count() == 0
    assert not one.page.evaluate(CUT)
    one.page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert one.page.evaluate("document.documentElement.dataset.theme") == theme
    assert one.page.locator("article details:not([open])").count() > 5


@pytest.mark.browser
def test_the_printed_book_has_its_pages_its_contents_and_all_lines(built, chromium, tmp_path):
    file = tmp_path / "book.pdf"
    count = pdf.print_book(built, file, "letter", chromium)  # the shorter of the two papers
    reader = PdfReader(file)
    assert count == len(reader.pages)
    assert 30 * len(CHAPTERS) - 10 < count < 40 * len(CHAPTERS) + 30
    tops = [entry for entry in reader.outline if not isinstance(entry, list)]
    titles = [top.title for top in tops]
    assert titles[0] == "Normalizing flows"
    assert next(t for t in titles if re.match(r"\d\. ", t)) == "1. Change of variables"
    # without spaces, and with ligatures taken apart
    texts = [bare(page.extract_text()) for page in reader.pages]
    listed = next(text for text in texts if "Contents" in text)
    for top in tops:
        start = reader.get_destination_page_number(top)
        words = bare(top.title)
        assert words in texts[start]
        assert f"{words}{start + 1}" in listed
        assert str(start + 1) in texts[start][-4:]  # at its foot
    whole = "".join(texts)
    book = pdf.join(built, pdf.pages_of(built))
    lines = [line for pre in book.select("pre") for line in pre.get_text().split("\n")]
    long = [line for line in lines if len(line) > 84]
    assert len(long) > 10
    for line in long:  # it is wrapped, and not cut off
        assert bare(line)[-12:] in whole, line


def test_links_of_the_printed_book_stay_inside_it(built):
    paths = pdf.pages_of(built)
    assert "book/api.html" not in paths
    book = pdf.join(built, paths)
    ids = [node["id"] for node in book.select("[id]")]
    assert len(ids) == len(set(ids))
    inner = [urldefrag(unquote(a["href"])).fragment for a in book.select("article a[href^='#']")]
    assert len(inner) > 5
    assert not set(inner) - set(ids)
    assert not [
        a["href"] for a in book.select("article a[href]") if not re.match(r"#|[a-z]+:", a["href"])
    ]


def test_states_stand_in_the_page_as_data(built):
    for path in CHAPTERS:
        page = soup((built / path).read_text())
        for root in page.select("[data-explorer]"):
            state = root.find_next_sibling("script", type="application/json")
            assert isinstance(json.loads(state.string), dict)
            script = f"_static/explorers/{root['data-explorer']}.js"
            assert page.select(f'script[src$="{script}"][defer]')
