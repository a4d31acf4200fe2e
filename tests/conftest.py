"""What all tests share: quiet, seeded, on one thread, and in any number of processes."""

import os

os.environ["FLOWLIB_PROGRESS"] = "0"
os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported; kernels have it from here
import matplotlib

matplotlib.use("agg")  # here only: the kernels of the notebooks draw inline

import pytest
import torch
from hypothesis import settings

pytest_plugins = ["tests.browser"]

settings.register_profile("book", deadline=None, derandomize=True, max_examples=30)
settings.load_profile("book")


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


def pytest_collection_modifyitems(items):
    """First one test that builds the site, and late those that find it built then, so that no
    process waits for another; last what is short, so that none is left alone with a long one."""
    of_site = [item for item in items if "built" in getattr(item, "fixturenames", ())]
    late = set(of_site[1:])

    def turn(item):
        if item in late:
            return 2
        return 0 if item in of_site[:1] else 3 if isinstance(item, pytest.DoctestItem) else 1

    items.sort(key=turn)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """One test at a time for each process, except that the cells of a notebook share a kernel, and
    the tests in JupyterLab a server; those begin, for they take longest."""
    from xdist.scheduler import LoadScopeScheduling

    class Scheduler(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            file = nodeid.split("::")[0]
            return file if file.endswith((".ipynb", "test_kernel.py")) else nodeid

    return Scheduler(config, log)
