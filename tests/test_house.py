"""The plan of the house: who may import whom, and by which doors."""

import ast
import re
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import flowlib
from tools.notebooks import ROOT

LIBRARY = ROOT / "flowlib"
# what is built on first, in the order of the chapters
STOREYS = (
    "arguments", "precision", "shares", "columns", "arrays", "saving", "structure", "units",
    "bases", "distribution", "flow", "maps", "masks", "nn", "transformers", "normalization",
    "coupling", "images", "made", "autoregressive", "iresnet", "residual_flow", "rows", "engines",
    "training", "datasets", "trained", "plotting", "checks", "adapters", "diagnosis",
)  # fmt: skip


def modules() -> dict[str, Path]:
    return {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
        for path in LIBRARY.rglob("*.py")
    }


def imports(path: Path) -> set[str]:
    """The modules of flowlib that a file imports anywhere: in functions and for types, too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= names if node.module in ("flowlib", "flowlib.widgets") else {node.module}
    known = modules()
    return {name for name in found if name in known and known[name] != path}


def cycle(graph: dict[str, set[str]]) -> list[str]:
    try:
        list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        return error.args[1]
    return []


def test_imports_go_in_no_circle():
    graph = {name: imports(path) for name, path in modules().items() if name != "flowlib"}
    assert len(graph) > 20
    assert "flowlib.flow" in graph["flowlib.coupling"]
    assert not cycle(graph)
    graph["flowlib.arguments"].add("flowlib.images")
    assert cycle(graph)  # it would be noticed


def test_an_earlier_module_never_imports_a_later_one():
    top = [name.split(".")[1] for name in modules() if name.count(".") == 1]
    assert sorted(top) == sorted([*STOREYS, "widgets"])
    for place, name in enumerate(STOREYS):
        below = {f"flowlib.{other}" for other in STOREYS[:place]}
        files = [*LIBRARY.glob(f"{name}.py"), *LIBRARY.glob(f"{name}/*.py")]
        own = {other for other in modules() if other.startswith(f"flowlib.{name}.")}
        above = set().union(*map(imports, files)) - below - own
        assert files
        # a history plots itself, and weights are trained on data: both only when they are asked to
        assert above <= {"training": {"flowlib.plotting"}}.get(name, set()), name


def test_no_private_doors_of_pytorch():
    private = re.compile(r"torch\._\w+|\._is_view|\._base\b|_functorch")
    for path in LIBRARY.rglob("*.py"):
        assert not private.findall(path.read_text()), path


def test_no_drawer_for_odds_and_ends():
    assert not [name for name in modules() if re.search("util|helper|misc|common", name)]


def test_the_public_names_are_sorted_and_there():
    assert all(hasattr(flowlib, name) for name in flowlib.__all__)
    for name, path in modules().items():
        module = __import__(name, fromlist=["_"])
        public = getattr(module, "__all__", None)
        if name != "flowlib" and public is not None:
            assert all(hasattr(module, entry) for entry in public), path


@pytest.mark.parametrize("words", [r"\bis none\b", r"are none\b", r"\bWho looks\b", r"may look\b"])
def test_docstrings_speak_plainly(words):
    """`None` is a value of Python's; what is not valid is called that."""
    for path in LIBRARY.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            kinds = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
            text = ast.get_docstring(node) if isinstance(node, kinds) else None
            assert not re.search(words, text or ""), f"{path}: {text[:80]}"
