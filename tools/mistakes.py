"""Plants every mistake of tests/mistakes.toml in a copy and demands that its test notices.

`python tools/mistakes.py [--tested] [NAME ...]`. A mistake is one replacement in one file, and
names one test. That test is run on the copy; if it passes, the suite would let the mistake through,
and this script fails. First the tests are run on the untouched copy, where they must pass; with
`--tested` they are not, which is for whoever has just run them all.

Everything slow to import is imported once, here; each run is a fork of this process that imports
flowlib from its copy.
"""

from __future__ import annotations

import argparse
import compileall
import gc
import importlib
import os
import py_compile
import shutil
import sys
import tempfile
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
LEFT_OUT = shutil.ignore_patterns(
    ".git", ".venv*", "_build", "__pycache__", ".*_cache", ".hypothesis"
)
WORKERS = os.cpu_count() or 1
SLOW = [
    "_hypothesis_pytestplugin", "accelerate", "anywidget", "anyio.pytest_plugin", "bs4", "h5py",
    "hypothesis.strategies", "jupytext", "lightningcss", "matplotlib.pyplot", "nbclient",
    "nbval.plugin", "numpy", "pandas", "playwright.sync_api", "py_mini_racer", "pypdf", "pytest",
    "safetensors.torch", "scipy.interpolate", "sklearn.datasets", "torch.distributed.tensor",
    "torch.func", "torch.utils.data", "xdist.plugin", "yaml",
]  # fmt: skip
BY_CONTENT = py_compile.PycInvalidationMode.CHECKED_HASH  # and not by the time it was written
LONG = ("chapters/", "tests/test_engine.py", "tests/test_kernel.py")
PASSED, NOTICED, BROKE = range(3)
WORDS = {PASSED: "MISSED", NOTICED: "caught"}


class Job(NamedTuple):
    """What is run on a copy: tests, and the mistake that is made there before, if any."""

    tests: list[str]
    mistake: dict | None = None


def run(copy: Path, tests: list[str], log: Path) -> int:
    """The tests on the copy, in this process: whether they pass, and if not, whether it is one of
    them that fails, and not what they need to run at all."""
    with log.open("w") as out:
        os.dup2(out.fileno(), 1)
        os.dup2(out.fileno(), 2)
    os.chdir(copy)
    os.environ["PYTHONPATH"] = sys.path[0] = str(
        copy
    )  # before the installed flowlib, in kernels too
    import pytest

    # A cell needs those before it: of a notebook, all are run up to the first that fails.
    files = dict.fromkeys(test.split("::")[0] if ".ipynb::" in test else test for test in tests)
    failed = []

    class Listener:
        def pytest_runtest_logreport(self, report):
            if report.failed:
                failed.append((report.when, report.nodeid))

    # That an assertion fails is enough here; what it compared is not.
    options = ["-q", "-x", "--no-header", "--assert=plain", "-p", "no:cacheprovider"]
    code = pytest.main([*options, *files], plugins=[Listener()])
    sys.stdout.flush()
    if code == pytest.ExitCode.OK:
        return PASSED
    noticed = [when == "call" and any(map(node.startswith, tests)) for when, node in failed]
    return NOTICED if code == pytest.ExitCode.TESTS_FAILED and all(noticed) else BROKE


def plant(copy: Path, mistake: dict) -> str:
    """Make the mistake on the copy; returns the file's text as it was."""
    path = copy / mistake["file"]
    text = path.read_text()
    path.write_text(text.replace(mistake["find"], mistake["replace"]))
    return text


def work(folder: Path, jobs: Iterable[Job]) -> Iterator[tuple[Job, int, str]]:
    """Each job, how it ended and what pytest said, as they end; one at a time on each copy."""
    waiting, running = list(jobs), {}
    free = [folder / f"copy-{k}" for k in range(WORKERS)]
    while waiting or running:
        if waiting and free:
            copy, job = free.pop(), waiting.pop(0)
            text = job.mistake and plant(copy, job.mistake)
            log = copy.with_suffix(".log")
            sys.stdout.flush()
            pid = os.fork()
            if pid == 0:
                code = BROKE
                try:
                    code = run(copy, job.tests, log)
                finally:
                    os._exit(code)
            running[pid] = copy, job, text, log
            continue
        pid, status = os.wait()
        copy, job, text, log = running.pop(pid)
        if job.mistake:
            (copy / job.mistake["file"]).write_text(text)
        free.append(copy)
        yield job, os.waitstatus_to_exitcode(status), log.read_text()[-3000:]


def chosen(names: list[str]) -> list[dict]:
    """The mistakes of those names, or all; first the long ones, whose tests start processes."""
    mistakes = tomllib.loads((ROOT / "tests" / "mistakes.toml").read_text())["mistake"]
    unknown = set(names) - {mistake["name"] for mistake in mistakes}
    if unknown:
        sys.exit(f"no such mistake: {', '.join(sorted(unknown))}")
    found = [m for m in mistakes if not names or m["name"] in names]
    for mistake in found:
        count = (ROOT / mistake["file"]).read_text().count(mistake["find"])
        if count != 1:
            sys.exit(
                f"{mistake['name']}: {mistake['find']!r} occurs {count} times in "
                f"{mistake['file']}, expected once"
            )
    return sorted(found, key=lambda mistake: not mistake["test"].startswith(LONG))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="mistakes; by default all")
    parser.add_argument("--tested", action="store_true", help="the tests have just passed")
    arguments = parser.parse_args()
    mistakes, wrong = chosen(arguments.names), []
    os.environ.update(OMP_NUM_THREADS="1", PYTHONDONTWRITEBYTECODE="1")
    sys.dont_write_bytecode = True  # a file that changes back within a second looks unchanged
    for name in SLOW:
        importlib.import_module(name)
    gc.freeze()  # no fork looks through what they all share
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for k in range(WORKERS):
            copy = shutil.copytree(ROOT, folder / f"copy-{k}", ignore=LEFT_OUT)
            compileall.compile_dir(copy, quiet=1, invalidation_mode=BY_CONTENT)
        if not arguments.tested:
            tests = list(dict.fromkeys(mistake["test"] for mistake in mistakes))
            parts = [Job(part) for k in range(WORKERS) if (part := tests[k::WORKERS])]
            broken = [said for _, code, said in work(folder, parts) if code != PASSED]
            if broken:
                sys.exit("\n".join(["the tests fail before any mistake is made:", *broken]))
        for job, code, said in work(folder, [Job([m["test"]], m) for m in mistakes]):
            name = job.mistake["name"]
            print(f"{WORDS.get(code, 'BROKEN')}  {name}", flush=True)
            if code != NOTICED:
                wrong.append(name)
            if code not in WORDS:
                print(f"{job.tests[0]} did not run, or not as far as its own lines:\n{said}")
    if wrong:
        sys.exit(f"{len(wrong)} of {len(mistakes)} mistakes are not caught: {', '.join(wrong)}")
    print(f"All {len(mistakes)} mistakes are caught.")


if __name__ == "__main__":
    main()
