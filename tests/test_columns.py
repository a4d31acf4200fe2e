"""flowlib.columns: what has no density is named, and nothing else is."""

import re
import time
import warnings

import numpy as np
import pytest
import torch

from flowlib import BernoulliMADE, Flow, LULinear, RealNVP, StandardNormal, datasets, fit
from flowlib.columns import context_faults, faults
from flowlib.trained import noisy_digits


def smooth(n, dim=4, seed=0):
    return np.random.default_rng(seed).normal(size=(n, dim))


def one_hot(n, count, seed=1):
    return np.eye(count)[np.random.default_rng(seed).integers(count, size=n)]


def replaced(x, column, values):
    x = x.copy()
    x[:, column] = values
    return x


def some(n, share, seed=2):
    return np.random.default_rng(seed).random(n) < share


FAULTS = {
    "constant": (
        lambda x: replaced(x, 1, 7.0), r"^column 1 never varies: leave it out\.$",
    ),
    "two constants": (
        lambda x: replaced(replaced(x, 1, 7.0), 3, 0.1), "^column 1 and column 3 never vary",
    ),
    "copy": (lambda x: replaced(x, 2, x[:, 0]), "^column 2 is a copy of column 0"),
    "copy in other units": (
        lambda x: replaced(x, 2, 1.8 * x[:, 0] + 32), "^column 2 is a copy of column 0",
    ),
    "sum": (
        lambda x: replaced(x, 3, x[:, 0] - 2 * x[:, 1]),
        "^column 0, column 1 and column 3 determine each other.* leave one",
    ),
    "whole numbers": (
        lambda x: replaced(x, 0, np.round(3 * x[:, 0])), r"^column 0 holds whole numbers: add",
    ),
    "one-hot": (
        lambda x: np.concatenate([x, one_hot(len(x), 3)], 1),
        "^column 4, column 5 and column 6 are one category in 3 columns",
    ),
    "yes and no": (
        lambda x: replaced(x, 2, some(len(x), 0.3)), "^column 2 holds whole numbers",
    ),
    "levels of grey": (
        lambda x: replaced(x, 1, np.round(16 / (1 + np.exp(-x[:, 1]))) / 16),
        r"^column 1 holds multiples of 1/16, .* Dequantize\(17\)",
    ),
    "mostly zeros": (
        lambda x: replaced(x, 1, np.where(some(len(x), 0.9), 0, x[:, 1])),
        "^column 1 has the value 0 in many rows",
    ),
    "clipped": (
        lambda x: replaced(x, 1, np.minimum(x[:, 1], 1.0)), "^column 1 has the value 1 in many",
    ),
    "sentinel": (
        lambda x: replaced(x, 3, np.where(some(len(x), 0.03), -9999, x[:, 3])),
        "^column 3 has the value -9999 in .* of the rows, far from all others",
    ),
    "outlier": (
        lambda x: replaced(x, 2, np.where(np.arange(len(x)) == 5, 1e6, x[:, 2])),
        r"^column 2 has 1 of \d+ values far outside, such as 1e\+06",
    ),
}  # fmt: skip


@pytest.mark.parametrize("n", [200, 2000, 50_000])
@pytest.mark.parametrize("kind", FAULTS)
def test_a_fault_is_named_and_nothing_else(kind, n):
    spoil, message = FAULTS[kind]
    said = faults(torch.as_tensor(spoil(smooth(n)), dtype=torch.float32))
    assert len(said) == 1
    assert re.search(message, said[0])


def test_several_faults_at_once_and_names_of_a_table():
    x = smooth(1000, 6)
    x[:, 0], x[:, 1], x[::100, 2] = 3.0, np.round(x[:, 1]), -999
    said = faults(torch.as_tensor(x), ["id", "age", "salt", "ph", "lead", "iron"])
    assert [sentence.split(" ", 2)[1] for sentence in said] == ["'id'", "'salt'", "'age'"]


def test_many_columns_are_counted():
    said = faults(torch.zeros(50, 40))
    assert said == [
        "column 0, column 1, column 2, column 3 and 36 more never vary: leave them out."
    ]


def test_pixels_without_noise():
    levels, _ = datasets.digit_images()
    raw = faults(levels.train / 16)
    assert any("multiples of 1/16" in said and "pixel (0, 0, 2)" in said for said in raw)
    assert any("never var" in said for said in raw)


def test_a_rare_code_in_a_large_table():
    x = smooth(200_000, 2)
    x[17::20_000, 1] = -9999
    assert "-9999 in 0.005 %" in faults(torch.as_tensor(x))[0]


@pytest.mark.parametrize("n", [1, 2, 3, 19])
def test_of_a_few_rows_little_is_said(n):
    x = torch.as_tensor(smooth(n, 3))
    assert faults(x) == []
    x[:, 0] = 1
    assert len(faults(x)) == (n > 1)


def test_numbers_of_any_size():
    for size in (1e300, 1e-300):
        assert faults(torch.as_tensor(smooth(300) * size)) == []


# --- no false alarm ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["moons", "eight_gaussians", "checkerboard", "two_spirals", "rings"]
)
def test_no_alarm_on_the_toys(name):
    assert faults(getattr(datasets, name).sample(3000, np.random.default_rng(0))) == []


@pytest.mark.parametrize(
    "load",
    [datasets.wine, datasets.breast_cancer, lambda: datasets.digits(np.random.default_rng(0))[0]],
)
def test_no_alarm_on_the_books_tables(load):
    made = load()
    assert faults(made.train) == []
    assert faults(made.valid) == []


def test_no_alarm_on_raw_tables_and_noisy_pictures():
    from sklearn import datasets as real

    for load in (real.load_breast_cancer, real.load_wine):
        assert faults(torch.as_tensor(load().data)) == []
    levels, _ = datasets.digit_images()
    assert faults(noisy_digits(levels.train)) == []


def random_set(seed):
    """Smooth, and of any shape, offset, unit and number of rows."""
    rng = np.random.default_rng(seed)
    n, dim = int(rng.choice([50, 200, 1000, 5000, 20_000])), int(rng.integers(1, 21))
    kinds = (
        lambda: rng.normal(size=n), lambda: rng.standard_t(3, size=n),
        lambda: rng.gamma(rng.uniform(0.7, 5), size=n), lambda: rng.beta(2, 0.8, size=n),
        lambda: rng.lognormal(0, rng.uniform(0.2, 1), size=n), lambda: rng.random(n),
        lambda: rng.normal(size=n) * 0.1 + rng.integers(3, size=n),
    )  # fmt: skip
    x = np.stack([kinds[rng.integers(len(kinds))]() for _ in range(dim)], 1)
    if rng.random() < 0.5:
        x = x @ rng.normal(size=(dim, dim))
    unit = 10 ** rng.uniform(-6, 6, size=dim)
    return torch.as_tensor(unit * (x + rng.normal(size=dim) * 10), dtype=torch.float32)


@pytest.mark.parametrize("seed", range(50))
def test_no_alarm_on_random_smooth_sets(seed):
    assert faults(random_set(seed)) == []


@pytest.mark.parametrize("digits", [2, 3, 4])
@pytest.mark.parametrize("n", [100, 1000])
def test_no_alarm_on_rounded_measurements(digits, n):
    assert faults(torch.as_tensor(np.round(smooth(n), digits))) == []


def test_no_alarm_on_positions_in_a_building():
    assert faults(48.137 + 0.0005 * torch.as_tensor(smooth(10_000, 2)).float()) == []


def test_it_takes_little_time():
    """Seconds, where an epoch takes minutes: the bound is loose, since machines are shared."""
    for shape in ((1_000_000, 10), (2000, 3, 32, 32)):
        x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
        began = time.process_time()
        assert faults(x) == []
        assert time.process_time() - began < 8


# --- in fit -------------------------------------------------------------------------------------


def warned(call):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        call()
    return caught


def test_a_fit_warns_once_and_at_the_callers_line():
    x = replaced(replaced(smooth(300, 3), 0, 7.0), 2, np.round(smooth(300)[:, 2]))
    (caught,) = warned(lambda: fit(RealNVP(3, n_layers=2, hidden=(4,)), x, steps=60, eval_every=5))
    assert caught.category is UserWarning
    assert caught.filename == __file__
    assert "column 0 never varies" in str(caught.message)
    assert "column 2 holds whole numbers" in str(caught.message)


def test_a_fit_to_batches_of_a_function_warns_too():
    x = torch.as_tensor(replaced(smooth(300, 2), 0, 7.0), dtype=torch.float32)
    flow = Flow(LULinear(2), StandardNormal(2))
    (caught,) = warned(lambda: fit(flow, lambda step: x, steps=3))
    assert "column 0 never varies" in str(caught.message)


def test_a_context_has_to_vary():
    c = np.stack([np.full(300, 2.5), smooth(300)[:, 0]], 1)
    (caught,) = warned(lambda: fit(RealNVP(2, context_dim=2), (smooth(300, 2), c), steps=2))
    assert "Of the context, column 0 never varies: nothing can be learnt" in str(caught.message)
    assert context_faults(torch.as_tensor(one_hot(300, 3))) == []


def test_bits_are_no_fault_of_a_density_on_bits():
    assert not warned(lambda: fit(BernoulliMADE(3), one_hot(100, 3), steps=2))


def test_the_books_own_fits_warn_of_nothing():
    made = datasets.breast_cancer()
    assert not warned(lambda: fit(RealNVP(30), made.train, steps=2, validation=made.valid))
