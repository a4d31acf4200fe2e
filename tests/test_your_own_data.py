"""The page *Train on your own data*, block after block, and what it says that they print."""

import contextlib
import io
import re

import pytest

from tools.notebooks import ROOT

PAGE = (ROOT / "book" / "your-own-data.md").read_text()
BLOCKS = re.findall(r"```(python|text)\n(.*?)```", PAGE, re.S)
NUMBER = re.compile(r"-?\d+\.?\d*(?:e[+-]?\d+)?")


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """All names at the end; of each block that prints, what it printed and what the page says."""
    here, outputs = {}, []
    with contextlib.chdir(tmp_path_factory.mktemp("page")):
        for k, (kind, text) in enumerate(BLOCKS):
            if kind == "python":
                printed = io.StringIO()
                with contextlib.redirect_stdout(printed):
                    exec(text, here)
                if printed.getvalue():
                    assert BLOCKS[k + 1][0] == "text", text
                    outputs.append((printed.getvalue(), BLOCKS[k + 1][1]))
    return here, outputs


def test_it_prints_what_the_page_says(ran):
    _, outputs = ran
    assert len(outputs) == sum(kind == "text" for kind, _ in BLOCKS) >= 6
    for printed, said in outputs:
        assert NUMBER.sub("#", printed.strip()) == NUMBER.sub("#", said.strip())
        for got, expected in zip(NUMBER.findall(printed), NUMBER.findall(said), strict=True):
            # another machine rounds otherwise, and a training run makes more of it
            assert float(got) == pytest.approx(float(expected), rel=0.1, abs=0.06), printed


def test_the_way_is_twenty_lines(ran):
    way = next(text for kind, text in BLOCKS if "read_csv" in text)
    assert len([line for line in way.splitlines() if line.strip()]) <= 20


def test_draws_follow_the_context(ran):
    here, _ = ran
    near = here["near_60"].mean().to_numpy()
    spread = here["near_60"].std().to_numpy()
    drawn = here["at_60"].mean(0).numpy()
    assert (abs(drawn - near) < 0.25 * spread).all()
    assert (here["at_60"].mean(0) > here["at_30"].mean(0)).all()


def test_nothing_is_wrong_with_the_flow_and_all_of_it_was_saved(ran):
    here, _ = ran
    assert here["report"].ok
    assert here["flow"].context_dim == 3
    assert here["context"].isna().sum().sum() == 0
    assert here["table"]["age"].isna().sum() == 22


def test_the_three_pits(ran):
    here, _ = ran
    assert 5 < len(here["both"]) < 20
    assert 0 <= (here["rank"] < 0.01).sum() < 20
    assert here["share"] > 0.9
