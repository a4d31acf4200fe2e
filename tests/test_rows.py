"""flowlib.rows: what people have is taken whole, or refused with what to do about it."""

import itertools
import math

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from flowlib import BernoulliMADE, Flow, LULinear, RealNVP, StandardNormal, fit
from flowlib.rows import as_rows


def flow(dim=2):
    return Flow(LULinear(dim), StandardNormal(dim))


def taken(data, model=None, **named):
    rows, names = as_rows("fit", model or flow(), "data", data, **named)
    return rows, names


class Frame:
    """As much of a table as pandas and polars share."""

    def __init__(self, **columns):
        self.columns = list(columns)
        self.values = list(columns.values())

    def to_numpy(self):
        kinds = {np.asarray(value).dtype.kind for value in self.values}
        return np.stack(self.values, 1) if len(kinds) == 1 else np.array(
            list(zip(*self.values, strict=True)), dtype=object
        )  # fmt: skip


X = np.random.default_rng(0).normal(size=(50, 2))


@pytest.mark.parametrize(
    "data",
    [
        X.astype(">f8"), X.astype(">f4"), X.tolist(), list(torch.as_tensor(X)), X.astype(object),
        np.ma.masked_array(X), Frame(a=X[:, 0], b=X[:, 1]), X[::-1][::-1], X.astype(np.longdouble),
        torch.as_tensor(X).to_sparse(), X.astype(np.float32), [tuple(row) for row in X],
    ],
)  # fmt: skip
def test_what_holds_the_same_numbers_is_the_same(data):
    rows, _ = taken(data)
    assert torch.equal(rows.x, torch.as_tensor(X, dtype=torch.float32))


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.uint32, np.uint64, ">u2", ">i4", "i1"])
def test_whole_numbers_of_any_kind(kind):
    levels = np.arange(100).reshape(50, 2)
    rows, _ = taken(levels.astype(kind))
    assert torch.equal(rows.x, torch.arange(100.0).reshape(50, 2))


def test_a_table_brings_its_names_and_mixed_types():
    table = Frame(height=X[:, 0], age=np.arange(50))
    rows, names = taken(table)
    assert names.x == ["height", "age"]
    assert rows.x[:, 1].tolist() == list(range(50))


def test_what_is_hidden_is_not_trained_on():
    """The numbers under a mask used to be: draws of deviation 1434 for 1."""
    x = np.ma.masked_array(X.copy(), mask=np.zeros_like(X, bool))
    x[3] = np.ma.masked
    with pytest.raises(ValueError, match=r"2 of the 100 values of data are masked; fill them"):
        fit(flow(), x)
    assert len(taken(x[~x.mask.any(1)].data)[0].x) == 49


@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        (X + 1j, ValueError, r"real numbers, got complex128; np.stack"),
        (torch.as_tensor(X + 1j), ValueError, r"real numbers, got torch.complex128; torch.view"),
        (Frame(a=X[:, 0], city=["Ulm"] * 50), TypeError, r"'Ulm' in column 'city'; drop such"),
        (np.array([["a", "b"]] * 9), TypeError, r"of numbers, got an array of <U1"),
        (np.array(["2026-01-01"] * 4, "M8[D]"), TypeError, r"array of datetime64\[D\]"),
        ([[1.0, 2.0], [3.0]], ValueError, "rows of one shape"),
        ([torch.zeros(2), torch.zeros(3)], ValueError, "rows of one shape"),
        ("data.csv", TypeError, "tensor, array, table or list of rows, got str"),
        ({"x": X}, TypeError, "got dict"),
        ((X, None, None, None), TypeError, r"\(x, context, weights\), got 4 parts"),
        (TensorDataset(torch.zeros(3, 2)), TypeError, r"got a TensorDataset. Of a DataLoader"),
    ],
)
def test_what_would_lose_something_is_refused(data, error, message):
    with pytest.raises(error, match=message):
        fit(flow(), data)


def test_a_sparse_matrix_is_told_how_to_become_an_array():
    class Sparse:
        def toarray(self):
            return X

    with pytest.raises(TypeError, match=r"got Sparse; its toarray\(\) makes one"):
        fit(flow(), Sparse())


def test_the_way_round_for_a_loader_that_the_error_shows():
    loader = DataLoader(torch.as_tensor(X, dtype=torch.float32), batch_size=20)
    with pytest.raises(TypeError, match=r"itertools.chain.from_iterable\(itertools.repeat"):
        fit(flow(), loader)
    batches = itertools.chain.from_iterable(itertools.repeat(loader))
    assert len(fit(flow(), lambda step: next(batches), steps=7).train) == 7


# --- digits -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (
            1e9 + X[:, 0],
            r"float32.* loses the digits of column 1 of data: values near 1e\+09",
        ),
        (48.0 + 1e-6 * X[:, 0], r"vary by 8.1e-07.*steps there are 5.7e-06.*flow.double"),
        (1_700_000_000 + np.arange(50), "loses the digits of column 1"),
        (1e-50 * X[:, 0], "loses the digits of column 1"),
        (np.where(np.arange(50) == 9, 0.0, 1e9 + X[:, 0]), "loses the digits of column 1"),
        (1e300 * X[:, 0], r"e\+\d+ in column 1 of data is beyond torch.float32.*flow.double\(\)"),
    ],
)
def test_a_column_that_loses_its_digits_is_named(column, message):
    x = np.stack([X[:, 0], column], 1)
    with pytest.raises(ValueError, match=message):
        fit(flow(), x)
    rows, _ = taken(x, flow().double())
    assert torch.equal(rows.x, torch.as_tensor(x, dtype=torch.float64))


def test_digits_of_contexts_and_of_pixels_are_counted_too():
    with pytest.raises(ValueError, match="loses the digits of column 0 of the context of data"):
        fit(RealNVP(2, context_dim=1), (X, 1e9 + X[:, :1]))
    picture = np.random.default_rng(0).normal(size=(20, 1, 2, 2))
    picture[:, 0, 1, 0] += 1e9
    model = Flow(LULinear(4), StandardNormal(4))
    model.event_shape = torch.Size([1, 2, 2])
    with pytest.raises(ValueError, match=r"loses the digits of pixel \(0, 1, 0\)"):
        as_rows("fit", model, "data", picture)


@pytest.mark.parametrize(
    "column",
    [
        48.137 + 0.0005 * X[:, 0], np.full(50, 0.1), np.where(np.arange(50) == 0, 1e6, X[:, 0]),
        np.where(np.arange(50) < 45, 0.0, X[:, 0]), 1e30 * X[:, 0], 1e-30 * X[:, 0],
    ],
)  # fmt: skip
def test_digits_that_do_not_matter_are_not(column):
    taken(np.stack([X[:, 0], column], 1))


# --- weights ----------------------------------------------------------------------------------


def test_a_weight_of_three_is_three_rows():
    x = torch.as_tensor(X, dtype=torch.float32)
    counts = torch.arange(50) % 4
    weighted, repeated = flow(), flow()
    valid = (x[:20], None, counts[:20].float())
    again = x[:20].repeat_interleave(counts[:20], 0)
    options = {"steps": 30, "lr": 0.05, "batch_size": 1000}
    one = fit(weighted, x, weights=10 * counts.float(), validation=valid, **options)
    other = fit(repeated, x.repeat_interleave(counts, 0), validation=again, **options)
    assert one.train == pytest.approx(other.train, abs=1e-4)
    assert [v for _, v in one.valid] == pytest.approx([v for _, v in other.valid], abs=1e-4)


def test_importance_weights_move_the_mean():
    """Draws of N(0, 1), weighted as draws of N(1, 1)."""
    z = torch.randn(20_000, 1, generator=torch.Generator().manual_seed(0))
    model = flow(1)
    fit(model, z, weights=(z[:, 0] - 0.5).exp(), steps=400, lr=0.02)
    f = model.bijection
    assert (-f.bias / f.matrix()[0]).item() == pytest.approx(1.0, abs=0.1)


def test_a_share_that_is_held_out_takes_its_weights_along():
    x = torch.cat([torch.zeros(500, 1), torch.ones(500, 1)]) + 0.1 * torch.randn(1000, 1)
    w = torch.cat([torch.full((500,), 1e-9), torch.ones(500)])
    model = flow(1)
    history = fit(model, x, weights=w, steps=300, lr=0.05)
    with torch.no_grad():
        assert history.valid[-1][1] == pytest.approx(
            -model.log_prob(x[500:]).mean().item(), abs=0.3
        )


def test_weights_of_a_functions_batches():
    x = torch.as_tensor(X, dtype=torch.float32)
    w = torch.arange(50.0)
    one, other = flow(), flow()
    fit(one, lambda step: (x, None, w), steps=20)
    fit(other, x, weights=w, validation=0, batch_size=50, steps=20)
    for a, b in zip(one.parameters(), other.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-5)


def test_a_context_may_come_by_its_name():
    model = RealNVP(2, context_dim=1)
    history = fit(model, X, context=X[:, :1], weights=np.ones(50), steps=3)
    assert len(history.train) == 3


@pytest.mark.parametrize(
    ("named", "error", "message"),
    [
        ({"weights": -np.ones(50)}, ValueError, "weights of data of 0 or more, got -1"),
        ({"weights": np.zeros(50)}, ValueError, "weights of data are all 0"),
        ({"weights": np.ones((50, 1))}, ValueError, r"of shape \(50,\), got \(50, 1\)"),
        ({"weights": np.ones(49)}, ValueError, r"of shape \(50,\), got \(49,\)"),
        ({"weights": np.full(50, math.nan)}, ValueError, r"got nan at the weights of data\[0\]"),
        ({"context": np.ones(50)}, ValueError, r"of shape \(50, C\), got \(50,\)"),
    ],
)
def test_bad_weights(named, error, message):
    with pytest.raises(error, match=message):
        fit(flow(), X, **named)


def test_parts_that_are_given_twice_or_nowhere():
    with pytest.raises(TypeError, match="got two context, in data and by name"):
        fit(RealNVP(2, context_dim=1), (X, X[:, :1]), context=X[:, :1])
    with pytest.raises(ValueError, match="a function returns its weights with each batch"):
        fit(flow(), lambda step: X, weights=np.ones(50))


def test_bits_are_taken_from_any_type():
    bits = np.random.default_rng(0).random((60, 3)) < 0.5
    for data in (bits, bits.astype(np.int8), bits.astype(float).tolist()):
        fit(BernoulliMADE(3, hidden=(4,)), data, steps=2)
