"""Explorers with a kernel: in JupyterLab, and under the older widgets that Colab has."""

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

from tests.browser import Watch
from tools import notebooks

CELLS = [
    "from flowlib.widgets import WarpExplorer\nwarp = WarpExplorer()\nwarp",
    "print('the kernel has', warp.matrix[0])",
    "warp.matrix = [[2, 0], [0, 1]]\nprint(warp.matrix)",
]


def notebook(cells=CELLS):
    new = nbformat.v4.new_notebook(
        metadata={
            "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}
        }
    )
    new.cells = [nbformat.v4.new_code_cell(cell) for cell in cells]
    return new


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """JupyterLab over a folder with one notebook; its address and its token."""
    folder = tmp_path_factory.mktemp("lab")
    nbformat.write(notebook(), folder / "live.ipynb")
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
        yield address, token
    finally:
        server.terminate()
        server.wait(timeout=30)


@pytest.mark.browser
def test_in_jupyterlab_kernel_and_page_hear_each_other(chromium, lab):
    address, token = lab
    one = Watch(chromium, (address,), viewport={"width": 1280, "height": 900})
    try:
        page = one.page
        page.goto(f"{address}/lab/tree/live.ipynb?token={token}")
        cells = page.locator(".jp-Notebook .jp-CodeCell")
        cells.nth(1).wait_for(timeout=60_000)
        page.get_by_text("Python 3 (ipykernel) | Idle").wait_for(timeout=60_000)
        cells.first.locator(".cm-content").click()
        page.keyboard.press("Shift+Enter")
        warp = page.locator(".jp-OutputArea .fl-explorer[data-alive='true']")
        warp.wait_for(timeout=60_000)
        assert warp.count() == 1
        warp.locator('input[data-name="a11"]').focus()
        for _ in range(4):
            page.keyboard.press("ArrowRight")
        page.wait_for_function(
            "() => document.querySelector('.fl-explorer').dataset.matrix.startsWith('1.45,')"
        )
        cells.nth(1).locator(".cm-content").click()
        page.keyboard.press("Shift+Enter")
        page.get_by_text("the kernel has [1.45, 0.5]").wait_for(timeout=30_000)
        page.keyboard.press("Shift+Enter")
        page.locator(".fl-explorer[data-matrix='2,0,0,1']").wait_for(timeout=30_000)
    finally:
        one.context.close()
    assert not [wrong for wrong in one.wrong if wrong.startswith(("outside", "page error"))]


def test_what_a_cell_publishes_under_the_widgets_that_colab_has():
    overlay = notebooks.ROOT / ".venv" / "compat"
    if not (overlay / ".ready").exists():
        pytest.skip("no overlay of ipywidgets 7.7: make .venv/compat/.ready")
    path = os.pathsep.join([str(overlay), str(notebooks.ROOT)])
    code = "import ipywidgets, anywidget\nprint(ipywidgets.__version__, anywidget.__version__)"
    done = notebook([code, *CELLS])
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
