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
    """A notebook's cells share a kernel, so that they go to one process, the longest work first."""
    for item in items:
        if item.path.suffix == ".ipynb":
            item.add_marker(pytest.mark.xdist_group(item.path.stem))
