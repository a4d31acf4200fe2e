"""Chapters: pairs in step, outputs fresh, every cell run again, every equation accounted for."""

import re
import tomllib

import jupytext
import nbformat
import pytest

from tools import notebooks

SOURCES = sorted(notebooks.CHAPTERS.glob("[0-9]*.md"))
LEDGER = notebooks.ROOT / "tests" / "equations.toml"
UNCOMPARED = "nbval-ignore-output"

chapters = pytest.mark.parametrize("md", SOURCES, ids=lambda path: path.stem)


def test_there_are_chapters():
    assert SOURCES


@chapters
def test_the_pair_is_in_step(md):
    source, stored = notebooks.read_pair(md)
    assert stored is not None, f"{md.stem} was never executed: make notebooks"
    assert notebooks.cells(source) == notebooks.cells(stored), "the pair differs: make notebooks"


@chapters
def test_outputs_are_those_of_this_code_and_this_library(md):
    source, stored = notebooks.read_pair(md)
    assert stored.metadata["executed_with"] == notebooks.stamp(source), "stale: make notebooks"
    counts = [cell.execution_count for cell in stored.cells if cell.cell_type == "code"]
    assert counts == list(range(1, len(counts) + 1))


@chapters
def test_the_notebook_is_canonical(md):
    source, stored = notebooks.read_pair(md)
    again = notebooks.canonical(source)
    notebooks.carry_over(stored, again)
    again.metadata["executed_with"] = stored.metadata["executed_with"]
    assert md.with_suffix(".ipynb").read_text() == nbformat.writes(again) + "\n"


@chapters
def test_at_most_four_cells_are_not_compared_and_each_asserts(md):
    loose = [c for c in jupytext.read(md).cells if UNCOMPARED in c.metadata.get("tags", [])]
    assert len(loose) <= 4
    for cell in loose:
        assert re.search(r"^\s*assert ", cell.source, re.M), cell.source


@chapters
def test_it_states_the_run_time_that_was_measured(md):
    seconds = notebooks.run_times()[md.stem]
    assert seconds <= 60
    prose = " ".join(md.read_text().split())
    stated = re.search(r"runs in under (\d+) seconds on two CPU cores", prose)
    assert stated, "the chapter does not say how long it runs"
    assert seconds <= int(stated[1]) <= 2 * seconds


@chapters
def test_code_fits_beside_the_sidebars(md):
    lines = [
        line
        for c in jupytext.read(md).cells
        if c.cell_type == "code"
        for line in c.source.split("\n")
    ]
    assert not [line for line in lines if len(line) > 88]


def equations():
    """(chapter, tag, latex, what stands between it and the next section) of every equation."""
    for md in SOURCES:
        text = md.read_text()
        for match in re.finditer(r"\$\$(.+?)\$\$", text, re.S):
            tags = re.findall(r"\\tag\{([\d.]+)\}", match[1])
            after = re.split(r"^## ", text[match.end() :], maxsplit=1, flags=re.M)[0]
            yield md, tags, " ".join(match[1].split()), after


def ledger():
    return tomllib.loads(LEDGER.read_text())


def test_every_display_equation_has_one_number_of_its_chapter():
    seen = []
    for md, tags, latex, _ in equations():
        assert len(tags) == 1, f"{md.stem}: one \\tag in {latex}"
        assert tags[0].split(".")[0] == str(int(md.stem[:2]))
        seen += tags
    assert len(seen) == len(set(seen))
    assert sorted(seen) == sorted(ledger()), "equations.toml lists other equations than the book"


def test_every_equation_reads_as_it_did_when_its_check_was_last_read_against_it():
    for _, (tag,), latex, _ in equations():
        assert latex == " ".join(ledger()[tag]["latex"].split()), (
            f"({tag}) has changed. Read its check once more, then enter it in equations.toml."
        )


def test_every_equation_is_checked_in_its_section_or_is_a_definition():
    for md, (tag,), _, after in equations():
        says = re.compile(rf"^\({re.escape(tag)}\) holds on (\d+) random cases", re.M)
        stored = nbformat.read(md.with_suffix(".ipynb"), as_version=4)
        printed = [
            output.text
            for cell in stored.cells
            if cell.cell_type == "code" and UNCOMPARED not in cell.metadata.get("tags", [])
            for output in cell.outputs
            if output.output_type == "stream" and says.search(output.text)
        ]
        definition = ledger()[tag].get("definition")
        if definition:
            assert len(definition) > 20, f"({tag}): why is there nothing to check?"
            assert not printed
        else:
            assert printed, f"({tag}) is neither checked nor listed as a definition"
            assert f'holds("{tag}"' in after, f"({tag}) is not checked in its own section"


@chapters
def test_solutions_run(md):
    """The code of every folded solution, after the notebook's own cells."""
    parts = re.findall(r"<details>.*?</details>", md.read_text(), re.S)
    solutions = [code for part in parts for code in re.findall(r"```python\n(.*?)```", part, re.S)]
    assert len(solutions) >= 3
    for code in solutions:
        assert "assert" in code
        namespace = {}
        exec("import math, numpy as np, torch\nfrom flowlib import *", namespace)
        exec(compile(code, f"{md.stem}: a solution", "exec"), namespace)
