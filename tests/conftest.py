"""What all tests share: quiet, seeded, on two threads."""

import os

os.environ["FLOWLIB_PROGRESS"] = "0"
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
