"""What holds the house together: pins, the address, the explorers' Python side."""

import re
import shutil

import pytest
import traitlets
from traitlets import TraitError

from flowlib.widgets import Explorer, WarpExplorer
from tools import address, notebooks, site
from tools.mistakes import LEFT_OUT, chosen

ROOT = notebooks.ROOT


def test_requirements_install_anywhere():
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    pins = [line for line in lines if line.strip() and not line.lstrip().startswith("#")]
    assert len(pins) > 50
    for pin in pins:
        assert re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][A-Za-z0-9.]*( ;.*)?", pin), pin
        assert not pin.startswith("nvidia"), pin
    assert any("pip-compile" in line for line in lines[:8])


def test_no_address_no_colab_and_nothing_is_installed():
    """Nobody has published yet; a made-up address could one day be a stranger's."""
    if re.search(r'^  url: ""$', (ROOT / "_config.yml").read_text(), re.M):
        for md in notebooks.CHAPTERS.glob("*.md"):
            assert "pip install" not in md.read_text()


def test_an_example_address_reaches_every_place(tmp_path, monkeypatch):
    copy = tmp_path / "copy"
    shutil.copytree(ROOT, copy, ignore=LEFT_OUT)
    url = "https://github.com/example/normalizing-flows"
    address.set_address(url, copy)
    for md in sorted((copy / "chapters").glob("[0-9]*.md")):
        source, _ = notebooks.read_pair(md)
        first = next(cell for cell in source.cells if cell.cell_type == "code")
        assert f'%pip install --quiet "git+{url}"' in first.source
        paired = notebooks.canonical(source)
        md.with_suffix(".ipynb").write_text(notebooks.nbformat.writes(paired))
    monkeypatch.setattr(site, "ROOT", copy)
    chapter = "chapters/01-change-of-variables"
    toc = f"format: jb-book\nroot: book/index\nchapters:\n  - file: {chapter}\n"
    (copy / "_toc.yml").write_text(toc)  # one is as good as three, and soon done
    site.build(tmp_path / "html")
    page = (tmp_path / f"html/{chapter}.html").read_text()
    here = "https://example.github.io/normalizing-flows"
    assert f'<link href="{here}/{chapter}.html" rel="canonical"/>' in page
    (picture,) = re.findall(rf'content="{here}/(_static/share/[\w-]+\.png)"', page)
    assert (tmp_path / "html" / picture).exists()
    colab = "https://colab.research.google.com/github/example/normalizing-flows/blob/main/"
    assert colab + "chapters/01-change-of-variables.ipynb" in page
    address.set_address("", copy)
    for path in ("_config.yml", "chapters/01-change-of-variables.md"):
        assert (copy / path).read_text() == (ROOT / path).read_text()


def test_the_cards_of_the_landing_page_lead_to_the_chapters():
    links = re.findall(r'href="([^"]+)"', site.landing())
    found = [(ROOT / "book" / link).with_suffix(".ipynb").resolve() for link in links]
    assert found == sorted((ROOT / "chapters").glob("[0-9]*.ipynb"))


def test_every_mistake_names_one_test_and_can_be_made():
    for mistake in chosen([]):
        assert re.fullmatch(r"[\w/.-]+\.(py|ipynb)::.+", mistake["test"]), mistake["name"]
        assert (ROOT / mistake["test"].split("::")[0]).exists(), mistake["name"]


def test_an_address_that_is_not_valid():
    with pytest.raises(SystemExit, match="expected https://"):
        address.set_address("example.com/x")


def test_an_explorer_publishes_a_page_that_depends_on_its_state_only():
    one, two, other = WarpExplorer(), WarpExplorer(), WarpExplorer(point=[0, 1])
    pages = [e._repr_mimebundle_()[0]["text/html"] for e in (one, two, other)]
    assert pages[0] == pages[1] != pages[2]
    keys = [re.search(r'data-key="([^"]+)"', page)[1] for page in pages]
    assert keys[0] != keys[2]
    assert pages[0].count("</script") == 1
    assert repr(one) == "WarpExplorer(matrix=[[1.25, 0.5], [-0.25, 1.0]])"


@pytest.mark.parametrize(
    "bad", [{"matrix": [[1, 2]]}, {"matrix": [[1, 2], [3, float("nan")]]}, {"point": [1, "a"]}]
)
def test_an_explorer_refuses_what_it_cannot_show(bad):
    with pytest.raises(TraitError, match=next(iter(bad))):
        WarpExplorer(**bad)


def test_an_explorer_without_a_still_picture_says_so():
    class Bare(Explorer):
        script = "warp.js"
        matrix = traitlets.List().tag(sync=True)

    with pytest.raises(NotImplementedError, match="Bare has no still picture"):
        Bare().still()
