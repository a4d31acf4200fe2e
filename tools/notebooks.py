"""Executes chapters: `python tools/notebooks.py [--all] [NAME ...]`.

People edit `chapters/NAME.md`; this script makes `chapters/NAME.ipynb` of it, with the same cells
and their outputs. It does so for every chapter whose code cells, or any file of flowlib, have
changed since it was last executed: by content, as a stamp in the notebook says, for git keeps no
file times. Where only prose has changed, the outputs are kept. What it writes is canonical:
cell ids come from the cells, nothing in the file says when or where it ran.
"""

from __future__ import annotations

import argparse
import hashlib
import math
import os
import sys
import time
import tomllib
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode

ROOT = Path(__file__).resolve().parent.parent
CHAPTERS = ROOT / "chapters"
TIMES = CHAPTERS / "run-times.toml"
VIEW = "application/vnd.jupyter.widget-view+json"


def read_pair(md: Path) -> tuple[NotebookNode, NotebookNode | None]:
    """The cells as people wrote them, and the stored notebook if there is one."""
    source = jupytext.read(md)
    path = md.with_suffix(".ipynb")
    return source, nbformat.read(path, as_version=4) if path.exists() else None


def cells(notebook: NotebookNode) -> list[tuple]:
    """What the two files of a pair must share, cell by cell."""
    return [(cell.cell_type, cell.source, dict(cell.metadata)) for cell in notebook.cells]


def stamp(notebook: NotebookNode) -> str:
    """A digest of all that the outputs depend on: the code cells and the library."""
    digest = hashlib.sha256()
    for cell in notebook.cells:
        if cell.cell_type == "code":
            digest.update(cell.source.encode() + b"\0")
    kinds = {".py", ".js", ".css", ".pt"}
    library = (p for p in (ROOT / "flowlib").rglob("*") if p.suffix in kinds)
    for path in sorted(library):
        digest.update(path.relative_to(ROOT).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


def canonical(source: NotebookNode) -> NotebookNode:
    """The source's cells as a fresh notebook, with ids that depend on the cells alone."""
    notebook = nbformat.v4.new_notebook()
    notebook.metadata = NotebookNode(
        kernelspec={"display_name": "Python 3", "language": "python", "name": "python3"},
        language_info={"name": "python"},
    )
    seen: dict[str, int] = {}
    for cell in source.cells:
        name = hashlib.sha256(f"{cell.cell_type}\0{cell.source}".encode()).hexdigest()[:8]
        seen[name] = seen.get(name, 0) + 1
        make = (
            nbformat.v4.new_code_cell if cell.cell_type == "code" else nbformat.v4.new_markdown_cell
        )
        twin = "" if seen[name] == 1 else f"-{seen[name]}"
        notebook.cells.append(make(cell.source, metadata=cell.metadata, id=name + twin))
    return notebook


def execute(notebook: NotebookNode) -> None:
    """Run every cell, in place, and drop from the outputs what differs from run to run."""
    os.environ["FLOWLIB_PROGRESS"] = "0"
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # as in the Makefile
    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    client = NotebookClient(
        notebook, timeout=300, record_timing=False, store_widget_state=False, coalesce_streams=True,
        resources={"metadata": {"path": str(CHAPTERS)}},
    )  # fmt: skip
    client.execute()
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            # Explorers carry their own page in text/html; a view without a kernel is a dead link.
            output.get("data", {}).pop(VIEW, None)
    notebook.metadata.pop("widgets", None)
    notebook.metadata.language_info = NotebookNode(name="python")  # the kernel adds its version


def carry_over(old: NotebookNode, new: NotebookNode) -> None:
    """Keep the stored outputs of code cells that are as they were."""
    code = [cell for cell in new.cells if cell.cell_type == "code"]
    stored = [cell for cell in old.cells if cell.cell_type == "code"]
    for cell, before in zip(code, stored, strict=True):
        cell.outputs, cell.execution_count = before.outputs, before.execution_count


def run_times() -> dict[str, int]:
    """Seconds that each chapter takes on two CPU cores, rounded up to tens, as last measured."""
    return tomllib.loads(TIMES.read_text()) if TIMES.exists() else {}


def record(name: str, seconds: float) -> None:
    """Note a chapter's run time where it is longer than the one on record, or under half of it."""
    times, now = run_times(), 10 * math.ceil(seconds / 10)
    if now > times.get(name, 0) or now < times[name] / 2:
        times[name] = now
    head = "# Seconds on two CPU cores, rounded up to tens; `make notebooks` keeps them.\n"
    TIMES.write_text(head + "".join(f'"{k}" = {v}\n' for k, v in sorted(times.items())))


def update(md: Path, force: bool = False) -> str:
    """Bring one notebook up to date; says what was done."""
    source, stored = read_pair(md)
    notebook = canonical(source)
    now = stamp(source)
    if not force and stored is not None and stored.metadata.get("executed_with") == now:
        carry_over(stored, notebook)
        notebook.metadata["executed_with"] = now
        same = nbformat.writes(notebook) == nbformat.writes(stored)
        done = "is up to date" if same else "has new prose; its outputs are kept"
    else:
        start = time.monotonic()
        execute(notebook)
        notebook.metadata["executed_with"] = now
        seconds = time.monotonic() - start
        record(md.stem, seconds)
        done = f"was executed in {seconds:.0f} s"
    md.with_suffix(".ipynb").write_text(nbformat.writes(notebook) + "\n")
    return done


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="chapters, such as 01-change-of-variables")
    parser.add_argument("--all", action="store_true", help="execute whatever the stamp says")
    arguments = parser.parse_args()
    known = {md.stem: md for md in sorted(CHAPTERS.glob("[0-9]*.md"))}
    unknown = set(arguments.names) - set(known)
    if unknown:
        sys.exit(f"no such chapter: {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    for name in arguments.names or known:
        print(f"{name} {update(known[name], arguments.all)}")


if __name__ == "__main__":
    main()
