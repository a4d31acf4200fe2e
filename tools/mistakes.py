"""Plants every mistake of tests/mistakes.toml in a copy and demands that the tests notice.

`python tools/mistakes.py [NAME ...]`. A mistake is one replacement in one file. The tests that it
names are run on the copy; if they pass, the suite would let that mistake through, and this
script fails. The same tests are first run on the untouched copy, where they must pass.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LEFT_OUT = shutil.ignore_patterns(
    ".git", ".venv*", "_build", "__pycache__", ".*_cache", ".hypothesis"
)


def run(copy: Path, tests: list[str]) -> subprocess.CompletedProcess:
    """The tests on the copy, whose flowlib goes before the installed one."""
    environment = {**os.environ, "PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-x", "--no-header", "-p", "no:cacheprovider"]
    return subprocess.run(
        command + tests, cwd=copy, env=environment, capture_output=True, text=True, check=False
    )


def plant(copy: Path, mistake: dict) -> None:
    """Make the replacement; the text to replace must occur exactly once."""
    path = copy / mistake["file"]
    text = path.read_text()
    if text.count(mistake["find"]) != 1:
        sys.exit(
            f"{mistake['name']}: {mistake['find']!r} occurs {text.count(mistake['find'])} times "
            f"in {mistake['file']}, expected once"
        )
    path.write_text(text.replace(mistake["find"], mistake["replace"]))


def main() -> None:
    mistakes = tomllib.loads((ROOT / "tests" / "mistakes.toml").read_text())["mistake"]
    unknown = set(sys.argv[1:]) - {mistake["name"] for mistake in mistakes}
    if unknown:
        sys.exit(f"no such mistake: {', '.join(sorted(unknown))}")
    chosen = [m for m in mistakes if not sys.argv[1:] or m["name"] in sys.argv[1:]]
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "copy"
        shutil.copytree(ROOT, copy, ignore=LEFT_OUT)
        healthy = run(copy, sorted({test for m in chosen for test in m["tests"]}))
        if healthy.returncode:
            sys.exit(f"the tests fail before any mistake is made:\n{healthy.stdout[-3000:]}")
        missed = []
        for mistake in chosen:
            path = copy / mistake["file"]
            original = path.read_bytes()
            plant(copy, mistake)
            # pytest says 1 when tests fail; any other code means that they did not run
            result = run(copy, mistake["tests"])
            path.write_bytes(original)
            if result.returncode not in (0, 1):
                sys.exit(f"{mistake['name']}: pytest broke:\n{result.stdout[-3000:]}")
            caught = result.returncode == 1
            print(f"{'caught' if caught else 'MISSED'}  {mistake['name']}", flush=True)
            if not caught:
                missed.append(mistake["name"])
    if missed:
        sys.exit(f"{len(missed)} of {len(chosen)} mistakes pass the tests: {', '.join(missed)}")
    print(f"All {len(chosen)} mistakes are caught.")


if __name__ == "__main__":
    main()
