"""What runs on machines of others: the workflows, and the oldest dependencies they may have."""

import os
import re
import shlex
import subprocess
import tomllib

import pytest
import yaml
from packaging.specifiers import SpecifierSet
from packaging.version import Version

from tools import oldest
from tools.notebooks import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
MAKEFILE = (ROOT / "Makefile").read_text()
# yaml reads the key `on` as True.
WORKFLOWS = {
    path.name: yaml.safe_load(path.read_text())
    for path in sorted((ROOT / ".github/workflows").glob("*.y*ml"))
}
JOBS = [
    pytest.param(workflow, job, id=f"{name}-{title}")
    for name, workflow in WORKFLOWS.items()
    for title, job in workflow["jobs"].items()
]
# What Colab has, which the bounds must not exceed.
COLAB = {"torch": "2.11.0", "numpy": "2.1.0", "ipywidgets": "7.7.1", "anywidget": "0.9.21"}


def commands(job: dict) -> list[str]:
    """The lines of a job's `run:` steps."""
    lines = "\n".join(step.get("run", "") for step in job["steps"]).splitlines()
    return [line for line in lines if line.strip()]


def using(job: dict, action: str) -> list[int]:
    """The places of the steps that use the action."""
    return [k for k, step in enumerate(job["steps"]) if step.get("uses", "").startswith(action)]


def is_here(command: str) -> bool:
    """Whether the command is a target of the Makefile or a script that can be executed."""
    first, *rest = shlex.split(command)
    if first == "make":
        targets = re.findall(r"^([a-z][a-z-]*):(?!=)", MAKEFILE, re.M)
        return bool(rest) and all(word in targets for word in rest)
    return "/" in first and (ROOT / first).is_file() and os.access(ROOT / first, os.X_OK)


def dry(target: str) -> list[str]:
    """The commands that make would run for the target, if everything were to be done."""
    command = ["make", "--dry-run", "--always-make", "--no-print-directory", target]
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()


def test_one_workflow_tests_and_one_publishes():
    assert list(WORKFLOWS) == ["ci.yml", "pages.yml"]
    run = {name: [commands(job) for job in w["jobs"].values()] for name, w in WORKFLOWS.items()}
    assert run == {"ci.yml": [[".ci/run"]], "pages.yml": [["make book"], []]}
    assert set(WORKFLOWS["ci.yml"][True]) == {"push", "pull_request"}
    assert WORKFLOWS["pages.yml"][True]["push"] == {"branches": ["main"]}
    assert "pull_request" not in WORKFLOWS["pages.yml"][True]


@pytest.mark.parametrize(("workflow", "job"), JOBS)
def test_every_command_is_here(workflow, job):
    assert [command for command in commands(job) if not is_here(command)] == []


@pytest.mark.parametrize("wrong", ["make", "make bok", "make SITE", ".ci/ran", "Makefile", ".ci"])
def test_a_command_that_is_missing_would_be_noticed(wrong):
    assert not is_here(wrong)


@pytest.mark.parametrize(("workflow", "job"), JOBS)
def test_nothing_but_publishing_may_write(workflow, job):
    """GitHub takes away every permission that is not named once one is named."""
    assert workflow["permissions"] == {"contents": "read"}
    given = job.get("permissions", workflow["permissions"])
    assert isinstance(given, dict)
    assert given.keys() <= {"contents", "pages", "id-token"}
    writes = {what for what, how in given.items() if how != "read"}
    assert writes == ({"pages", "id-token"} if using(job, "actions/deploy-pages") else set())
    if writes:
        assert commands(job) == []
    for k in using(job, "actions/checkout"):
        assert job["steps"][k]["with"]["persist-credentials"] is False


@pytest.mark.parametrize(("workflow", "job"), JOBS)
def test_actions_are_githubs_own_at_a_major_version(workflow, job):
    used = [step["uses"] for step in job["steps"] if "uses" in step]
    assert used
    for action in used:
        assert re.fullmatch(r"actions/[a-z-]+@v[0-9]+", action), action


@pytest.mark.parametrize(("workflow", "job"), JOBS)
def test_python_is_one_that_the_project_allows(workflow, job):
    """And what pip fetched is kept until the pins change."""
    places = using(job, "actions/setup-python")
    assert len(places) == bool(commands(job))
    for k in places:
        options = job["steps"][k]["with"]
        assert isinstance(options["python-version"], str)  # 3.10 would be read as 3.1
        assert Version(options["python-version"]) in SpecifierSet(PROJECT["requires-python"])
        assert options["cache"] == "pip"
        assert options["cache-dependency-path"] == "requirements.txt"


def test_the_folder_that_make_book_writes_is_published():
    build, deploy = (WORKFLOWS["pages.yml"]["jobs"][name] for name in ("build", "deploy"))
    (upload,) = using(build, "actions/upload-pages-artifact")
    (written,) = re.findall(r"-m tools\.site (\S+)$", "\n".join(dry("book")), re.M)
    assert build["steps"][upload]["with"] == {"path": written}
    (made,) = (k for k, step in enumerate(build["steps"]) if step.get("run") == "make book")
    assert made < upload
    assert deploy["needs"] == "build"
    assert deploy["environment"]["name"] == "github-pages"
    assert WORKFLOWS["pages.yml"]["concurrency"]["cancel-in-progress"] is False


def test_make_test_checks_types():
    assert any(re.search(r"/mypy\b", line) for line in dry("test"))


# --- the oldest dependencies ----------------------------------------------------------------


def test_the_oldest_environment_has_every_bound():
    bounds = oldest.bounds()
    assert [f"{name}>={version}" for name, version in bounds.items()] == PROJECT["dependencies"]
    assert oldest.tools().keys() == set(oldest.TOOLS)
    assert COLAB.keys() <= bounds.keys()
    for name, version in COLAB.items():
        assert Version(bounds[name]) <= Version(version), name


@pytest.mark.parametrize("line", ["torch", "torch==2.4", "torch>=2.4,<3", "torch<3", "torch>2.4"])
def test_a_dependency_without_a_plain_lower_bound_is_refused(tmp_path, line):
    (tmp_path / "pyproject.toml").write_text(f'[project]\ndependencies = ["{line}"]\n')
    with pytest.raises(SystemExit, match=re.escape(f"name>=version, got {line!r}")):
        oldest.bounds(tmp_path)


def test_a_tool_without_a_pin_is_refused(tmp_path):
    (tmp_path / "requirements.txt").write_text("pytest==9.2.0\npytest-xdist==3.8.0\n")
    with pytest.raises(SystemExit, match="a pin of hypothesis, jupytext, nbclient, got none"):
        oldest.tools(tmp_path)


def test_make_oldest_runs_the_library_without_a_browser():
    words = shlex.split("\n".join(line.rstrip("\\") for line in dry("oldest")))
    assert words[words.index("pytest") :][1:3] == ["tests", "flowlib"]
    assert words[words.index("not browser") - 1] == "-m"
    left_out = [word.removeprefix("--ignore=") for word in words if word.startswith("--ignore=")]
    assert left_out
    assert [path for path in left_out if not (ROOT / path).is_file()] == []
