"""Explorers with a kernel: in JupyterLab, and under the older widgets that Colab has."""

import json
import os
import secrets
import socket
import subprocess
import sys
import time
import urllib.request

import nbformat
import pytest
from nbclient import NotebookClient

from tests import browser
from tests.test_explorers import all_faces
from tools import notebooks


def notebook(cells):
    new = nbformat.v4.new_notebook(
        metadata={
            "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}
        }
    )
    new.cells = [nbformat.v4.new_code_cell(cell) for cell in cells]
    return new


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """JupyterLab over an empty folder: its address, its token, the folder."""
    folder = tmp_path_factory.mktemp("lab")
    token = secrets.token_hex(8)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    options = {
        "ServerApp.ip": "127.0.0.1", "ServerApp.port": port, "ServerApp.root_dir": folder,
        "ServerApp.open_browser": False, "ServerApp.allow_root": True,
        "IdentityProvider.token": token,
        "LabApp.news_url": "", "LabApp.check_for_updates_class": "jupyterlab.NeverCheckForUpdate",
        "LabApp.workspaces_dir": folder / "workspaces",
        "LabApp.user_settings_dir": folder / "settings",
    }  # fmt: skip
    command = [sys.executable, "-m", "jupyterlab", *(f"--{k}={v}" for k, v in options.items())]
    with (folder / "log").open("w") as log:
        server = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log)
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(120):
            try:
                urllib.request.urlopen(f"{address}/api?token={token}", timeout=5).close()
                break
            except OSError:
                assert server.poll() is None, (folder / "log").read_text()
                time.sleep(0.5)
        else:
            pytest.fail(f"JupyterLab did not answer: {(folder / 'log').read_text()[-2000:]}")
        yield address, token, folder
    finally:
        server.terminate()
        server.wait(timeout=30)


CELLS = [
    """import json
from flowlib import widgets
name, traits = json.load(open("face.json"))
make = lambda: getattr(widgets, name)(**traits)
it = make()
print("here is", name, *traits.values(), ".")
it""",
    """print(name, *traits.values(), "moved in the kernel:", it.state() != make().state())""",
    """for trait, value in make().state().items():
    setattr(it, trait, value)""",
]


@pytest.fixture(scope="module")
def at_lab(chromium, lab):
    """A notebook in JupyterLab with a kernel at its side, which shows what face.json names."""
    address, token, folder = lab
    nbformat.write(notebook(CELLS), folder / "explorer.ipynb")
    one = browser.Watch(chromium, (address,), viewport={"width": 1280, "height": 1400})
    one.page.set_default_timeout(60_000)
    one.page.goto(f"{address}/lab/tree/explorer.ipynb?token={token}")
    one.page.locator(".jp-Notebook .jp-CodeCell").nth(len(CELLS) - 1).wait_for()
    one.page.get_by_text("Python 3 (ipykernel) | Idle").wait_for()
    yield one
    one.context.close()


@pytest.mark.browser
@all_faces
def test_in_jupyterlab_kernel_and_page_hear_each_other(lab, at_lab, explorer, traits):
    page, said = at_lab.page, " ".join([explorer.__name__, *traits.values()])
    (lab[2] / "face.json").write_text(json.dumps([explorer.__name__, traits]))

    def run(cell):
        page.locator(".jp-Notebook .jp-CodeCell").nth(cell).locator(".cm-content").click()
        page.keyboard.press("Shift+Enter")

    run(0)
    page.locator(".jp-OutputArea").get_by_text(f"here is {said} .").wait_for()
    shown = page.locator(".jp-OutputArea .fl-explorer[data-alive='true']")
    shown.wait_for()
    assert shown.count() == 1
    state = "() => JSON.stringify(document.querySelector('.fl-explorer').dataset)"
    start = page.evaluate(state)
    shown.evaluate("e => e.querySelectorAll('details').forEach(d => (d.open = true))")
    shown.locator(".fl-grab, input[type='range']").first.focus()
    for _ in range(3):
        page.keyboard.press("ArrowUp")
    page.wait_for_function(f"before => ({state})() !== before", arg=start)
    page.wait_for_timeout(300)  # the kernel is told at its own pace
    run(1)
    page.get_by_text(f"{said} moved in the kernel: True").wait_for()
    run(2)
    page.wait_for_function(f"before => ({state})() === before", arg=start)
    found, at_lab.wrong = at_lab.wrong, []
    assert not [wrong for wrong in found if wrong.startswith(("outside", "page error"))]


OFFLINE = """from flowlib.widgets import KLExplorer, WarpExplorer
WarpExplorer()"""


@pytest.mark.browser
def test_an_exported_notebook_needs_no_network(chromium, tmp_path):
    """nbconvert prefers a widget's view, which is empty without a distant server."""
    nbformat.write(notebook([OFFLINE, "KLExplorer()"]), tmp_path / "two.ipynb")
    command = ["-m", "nbconvert", "--execute", "--to", "html", "two.ipynb"]
    environment = {**os.environ, "PYTHONPATH": str(notebooks.ROOT)}
    subprocess.run([sys.executable, *command], cwd=tmp_path, env=environment, check=True)
    one = browser.Watch(chromium, (tmp_path.as_uri(),))
    one.page.goto((tmp_path / "two.html").as_uri())
    alive = one.page.locator(".fl-explorer[data-alive='true']")
    alive.nth(1).wait_for()
    assert alive.count() == one.page.locator(".fl-explorer").count() == 2
    state = "() => JSON.stringify(document.querySelector('.fl-explorer').dataset)"
    before = one.page.evaluate(state)
    alive.first.locator(".fl-grab").first.focus()
    one.page.keyboard.press("ArrowUp")
    one.page.wait_for_function(f"before => ({state})() !== before", arg=before)
    one.context.close()
    silent = chromium.new_context(java_script_enabled=False, offline=True)
    page = silent.new_page()
    page.goto((tmp_path / "two.html").as_uri())
    for name in ("WarpExplorer", "KLExplorer"):
        picture = page.locator(f"[data-explorer='{name}'] img")
        assert picture.is_visible()
        assert picture.bounding_box()["height"] > 100
    silent.close()


def test_what_a_cell_publishes_under_the_widgets_that_colab_has():
    overlay = notebooks.ROOT / ".venv" / "compat"
    if not (overlay / ".ready").exists():
        pytest.skip("no overlay of ipywidgets 7.7: make .venv/compat/.ready")
    path = os.pathsep.join([str(overlay), str(notebooks.ROOT)])
    code = "import ipywidgets, anywidget\nprint(ipywidgets.__version__, anywidget.__version__)"
    done = notebook([
        code,
        "from flowlib.widgets import WarpExplorer\nwarp = WarpExplorer()\nwarp",
        "print('the kernel has', warp.matrix[0])",
        "warp.matrix = [[2, 0], [0, 1]]\nprint(warp.matrix)",
    ])  # fmt: skip
    client = NotebookClient(done, timeout=120, kernel_name="python3")
    with client.setup_kernel(env={**os.environ, "PYTHONPATH": path}):
        for index, cell in enumerate(done.cells):
            client.execute_cell(cell, index)
    assert done.cells[0].outputs[0].text == "7.7.1 0.9.21\n"
    (shown,) = done.cells[1].outputs
    assert notebooks.VIEW in shown.data
    assert "0x" not in shown.data["text/plain"]
    assert "WarpExplorer" in shown.data["text/plain"]
    assert done.cells[2].outputs[0].text == "the kernel has [1.25, 0.5]\n"
    assert done.cells[3].outputs[0].text == "[[2.0, 0.0], [0.0, 1.0]]\n"
