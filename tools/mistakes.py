"""Plants every mistake of tests/mistakes.toml in a copy and demands that the tests notice.

`python tools/mistakes.py [NAME ...]`. A mistake is one replacement in one file. The tests that it
names are run on the copy; if they pass, the suite would let that mistake through, and this
script fails. The same tests are first run on the untouched copy, where they must pass.
"""

from __future__ import annotations

import os
import queue
import shutil
import subprocess
import sys
import tempfile
import tomllib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LEFT_OUT = shutil.ignore_patterns(
    ".git", ".venv*", "_build", "__pycache__", ".*_cache", ".hypothesis"
)


WORKERS = os.cpu_count() or 1


def run(copy: Path, tests: list[str]) -> subprocess.CompletedProcess:
    """The tests on the copy, whose flowlib goes before the installed one."""
    environment = {
        **os.environ, "PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1",
        "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    command = [sys.executable, "-m", "pytest", "-q", "-x", "--no-header", "-p", "no:cacheprovider"]
    return subprocess.run(
        command + tests, cwd=copy, env=environment, capture_output=True, text=True, check=False
    )


def caught(copy: Path, mistake: dict) -> bool:
    """Whether the mistake's tests fail on the copy when it is made there."""
    path = copy / mistake["file"]
    text = path.read_text()
    if text.count(mistake["find"]) != 1:
        raise SystemExit(
            f"{mistake['name']}: {mistake['find']!r} occurs {text.count(mistake['find'])} times "
            f"in {mistake['file']}, expected once"
        )
    path.write_text(text.replace(mistake["find"], mistake["replace"]))
    try:
        result = run(copy, mistake["tests"])
    finally:
        path.write_text(text)
    # pytest says 1 when tests fail; any other code means that they did not run
    if result.returncode not in (0, 1):
        raise SystemExit(f"{mistake['name']}: pytest broke:\n{result.stdout[-3000:]}")
    return result.returncode == 1


def main() -> None:
    mistakes = tomllib.loads((ROOT / "tests" / "mistakes.toml").read_text())["mistake"]
    unknown = set(sys.argv[1:]) - {mistake["name"] for mistake in mistakes}
    if unknown:
        sys.exit(f"no such mistake: {', '.join(sorted(unknown))}")
    chosen = [m for m in mistakes if not sys.argv[1:] or m["name"] in sys.argv[1:]]
    tests = sorted({test for m in chosen for test in m["tests"]})
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(WORKERS) as pool:
        copies = queue.SimpleQueue()
        for k in range(WORKERS):
            copies.put(Path(folder) / f"copy-{k}")
            shutil.copytree(ROOT, Path(folder) / f"copy-{k}", ignore=LEFT_OUT)

        def on_a_copy(work, what):
            copy = copies.get()
            try:
                return work(copy, what)
            finally:
                copies.put(copy)

        for healthy in pool.map(lambda part: on_a_copy(run, part), _dealt(tests)):
            if healthy.returncode:
                sys.exit(f"the tests fail before any mistake is made:\n{healthy.stdout[-3000:]}")
        missed = []
        for mistake, noticed in zip(
            chosen, pool.map(lambda m: on_a_copy(caught, m), chosen), strict=True
        ):
            print(f"{'caught' if noticed else 'MISSED'}  {mistake['name']}", flush=True)
            if not noticed:
                missed.append(mistake["name"])
    if missed:
        sys.exit(f"{len(missed)} of {len(chosen)} mistakes pass the tests: {', '.join(missed)}")
    print(f"All {len(chosen)} mistakes are caught.")


def _dealt(tests: list[str]) -> list[list[str]]:
    """The tests in one part for each worker."""
    return [part for part in (tests[k::WORKERS] for k in range(WORKERS)) if part]


if __name__ == "__main__":
    main()
