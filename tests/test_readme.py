"""The README's lines, run as a new user would: one after the other, in one session."""

import re
import warnings

import numpy as np
import pytest

from tools.notebooks import ROOT

BLOCKS = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S)


@pytest.fixture(scope="module")
def names():
    """What is defined after each block."""
    here, seen = {}, []
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for block in BLOCKS:
            exec(block, here)
            seen.append(dict(here))
    return seen


def test_ten_lines_fit_an_array(names):
    assert len([line for line in BLOCKS[0].splitlines() if line.strip()]) <= 10
    first = names[0]
    assert first["new"].shape == (10, 3)
    assert first["log_p"].shape == (10,)
    # three normals have 3/2 log(2 pi e) nats; what 450 rows do not say is on top
    assert min(loss for _, loss in first["history"].valid) == pytest.approx(4.26, abs=0.4)


def test_a_table_of_mixed_units_with_a_context(names):
    """Draws at 305 kelvin have the mean and the deviation of the formula that made the rows."""
    hot = names[1]["hot"].double().numpy()
    pascals = 101_325 + 40 * (290 - 305)
    water = 0.002 * np.exp((305 - 270) / 15)
    z = (np.log(hot) - np.log([pascals, water])) / [0.002, 0.2]
    assert z.mean(0) == pytest.approx([0, 0], abs=0.2)
    assert z.std(0) == pytest.approx([1, 1], abs=0.2)
