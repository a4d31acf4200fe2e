"""flowlib.rows: what people have is taken whole, or refused with what to do about it."""

import itertools
import math

import numpy as np
import pytest
import torch
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    RandomSampler,
    SequentialSampler,
    TensorDataset,
)
from torch.utils.data.distributed import DistributedSampler

from flowlib import BernoulliMADE, Flow, LULinear, RealNVP, StandardNormal, fit
from flowlib import rows as rows_module
from flowlib.rows import as_batches, as_rows
from flowlib.shares import Share


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
    assert names.x == ("height", "age")
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
        (Frame(a=X[:, 0], city=["Ulm"] * 50), TypeError, r"'Ulm' in column 'city' \(row 0\); drop"),
        (np.array([["a", "b"]] * 9), TypeError, r"of numbers, got 'a' in column 0 \(row 0\), 'b'"),
        (np.array(["2026-01-01"] * 4, "M8[D]"), TypeError, r"array of datetime64\[D\]"),
        ([[1.0, 2.0], [3.0]], ValueError, "rows of one shape"),
        ([torch.zeros(2), torch.zeros(3)], ValueError, "rows of one shape"),
        ("data.csv", TypeError, "tensor, array, table or list of rows, got str"),
        ({"x": X}, TypeError, "got dict"),
        ((X, None, None, None), TypeError, r"\(x, context, weights\), got 4 parts"),
        (TensorDataset(torch.zeros(3, 2)), TypeError, r"a TensorDataset, of which DataLoader\("),
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


# --- batches that come one after the other ------------------------------------------------------


def same(one, other):
    return all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def of_tensors(**options):
    rows = TensorDataset(torch.as_tensor(X, dtype=torch.float32), torch.arange(50.0)[:, None])
    return DataLoader(rows, **{"batch_size": 20, **options})


@pytest.mark.parametrize("workers", [0, 1])
def test_a_loader_gives_its_batches_epoch_after_epoch(workers):
    """50 rows in batches of 20: an epoch's third has 10, and they are no others' rows."""
    seen = []

    class Spy(RealNVP):
        def log_prob(self, x, context=None):
            seen.append(context[:, 0].long().tolist())
            return super().log_prob(x, context)

    model = Spy(2, n_layers=2, hidden=(4,), context_dim=1)
    loader = of_tensors(shuffle=True, num_workers=workers)
    history = fit(model, loader, steps=7)
    assert len(history.train) == 7
    assert [len(rows) for rows in seen] == [20, 20, 10, 20, 20, 10, 20]
    first, second = ([row for rows in part for row in rows] for part in (seen[:3], seen[3:6]))
    assert sorted(first) == sorted(second) == list(range(50))
    assert first != second != list(range(50))
    again = list(seen)
    seen.clear()
    torch.rand(3)  # what was drawn before is nothing to it
    fit(Spy(2, n_layers=2, hidden=(4,), context_dim=1), loader, steps=7)
    assert seen == again


def test_a_loader_that_is_resumed_goes_on_where_it_was(tmp_path):
    def run(steps, path, model):
        options = {"lr": 0.01, "schedule": "constant", "eval_every": 5, "checkpoint": path}
        batches, asked = of_tensors(shuffle=True), []

        class Dies(RealNVP):
            def log_prob(self, x, context=None):
                asked.append(1)
                if len(asked) == steps:
                    raise InterruptedError
                return super().log_prob(x, context)

        torch.manual_seed(1)
        made = Dies(2, n_layers=2, hidden=(4,), context_dim=1)
        try:
            return made, fit(made, batches, steps=13, **options)
        except InterruptedError:
            return made, None

    whole, history = run(100, None, None)
    run(12, tmp_path / "run.pt", None)
    resumed, its = run(100, tmp_path / "run.pt", None)
    assert its.train == history.train
    assert same(whole, resumed)


class Spy(Flow):
    """It keeps what it is trained on, and fails at a step."""

    def __init__(self, fails_at=None):
        super().__init__(LULinear(2), StandardNormal(2))
        self.seen, self.fails_at = [], fails_at

    def log_prob(self, x, context=None):
        self.seen.append(x.clone())
        if len(self.seen) == self.fails_at:
            raise InterruptedError
        return super().log_prob(x, context)


class Drawn(Dataset):
    """Rows that are drawn when they are asked for, as augmented pictures are."""

    def __len__(self):
        return 100

    def __getitem__(self, index):
        return torch.rand(2)


@pytest.mark.filterwarnings("ignore:fit. The flow does not know the units")
@pytest.mark.parametrize("workers", [0, 1])
def test_what_a_loader_draws_is_new_in_each_step(workers):
    """All steps of an epoch used to have the same numbers."""
    sampler, begun = BatchSampler(SequentialSampler(range(100)), 20, False), []

    class Counted(type(sampler)):
        def __iter__(self):
            begun.append(1)
            return super().__iter__()

    loader = DataLoader(
        Drawn(), batch_sampler=Counted(sampler.sampler, 20, False), num_workers=workers
    )
    model = Spy()
    fit(model, loader, steps=10)
    assert len(torch.cat(model.seen).unique(dim=0)) == 200
    assert len(begun) == 3  # for the first look, and each of two epochs


@pytest.mark.filterwarnings("ignore:fit. The flow does not know the units")
def test_what_a_loader_draws_is_the_same_in_a_run_that_goes_on(tmp_path):
    loader = DataLoader(Drawn(), batch_size=20, shuffle=True)
    options = {"steps": 10, "eval_every": 3}
    whole = fit(Spy(), loader, **options)
    with pytest.raises(InterruptedError):
        fit(Spy(fails_at=9), loader, checkpoint=tmp_path / "run.pt", **options)
    assert fit(Spy(), loader, checkpoint=tmp_path / "run.pt", **options).train == whole.train


@pytest.mark.parametrize("whose", ["loader's", "sampler's"])
def test_a_loader_with_a_generator_draws_without_replacement_and_goes_on(whose, tmp_path):
    own = torch.Generator().manual_seed(5)
    before = own.get_state()
    x = torch.as_tensor(X, dtype=torch.float32)
    if whose == "loader's":
        loader = DataLoader(x, batch_size=20, shuffle=True, generator=own)
    else:
        loader = DataLoader(
            x, batch_sampler=BatchSampler(RandomSampler(x, generator=own), 20, False)
        )
    model, options = Spy(), {"steps": 6, "eval_every": 2}
    history = fit(model, loader, **options)
    for epoch in (model.seen[:3], model.seen[3:]):
        assert torch.equal(torch.cat(epoch).sort(0).values, x.sort(0).values)
    assert not torch.equal(model.seen[0], model.seen[3])
    with pytest.raises(InterruptedError):
        fit(Spy(fails_at=5), loader, checkpoint=tmp_path / "run.pt", **options)
    assert torch.equal(own.get_state(), before)
    assert fit(Spy(), loader, checkpoint=tmp_path / "run.pt", **options).train == history.train


def test_a_loader_whose_rows_are_not_those_asked_for_cannot_be_shared_out():
    """Alone, a process takes as many as there are."""

    def without_the_first(rows):
        return torch.stack(rows[1:] or rows)

    loader = DataLoader(torch.as_tensor(X).float(), batch_size=20, collate_fn=without_the_first)
    model = Spy()
    fit(model, loader, steps=3)
    assert [len(x) for x in model.seen] == [19, 19, 9]
    rows, share = as_batches(flow(), loader, 0).part(1, lambda n: Share.of(n, 0, 1))
    assert (len(rows.x), share.whole) == (19, 19)
    with pytest.raises(ValueError, match=r"10 rows for 10 row numbers of .* got 9 rows: what"):
        as_batches(flow(), loader, 0).part(1, lambda n: Share.of(n, 0, 2))


class Again:
    """It can be gone through as often as one likes, and draws as it goes."""

    def __iter__(self):
        for _ in range(4):
            yield torch.randn(10, 2) + 3


def once():
    return (torch.as_tensor(X[k : k + 5]) for k in range(40))


@pytest.mark.parametrize("source", [Again, once])
def test_an_iterable_gives_the_same_batches_to_a_run_that_goes_on(source, tmp_path):
    options = {"lr": 0.01, "eval_every": 3, "steps": 11}
    whole, broken, resumed = flow(), flow(), flow()
    expected = fit(whole, source(), **options)
    path, count = tmp_path / "run.pt", itertools.count()

    def stops(module, inputs):
        if next(count) == 8:
            raise InterruptedError

    hook = broken.bijection.register_forward_pre_hook(stops)
    with pytest.raises(InterruptedError):
        fit(broken, source(), checkpoint=path, **options)
    hook.remove()
    found = fit(resumed, source(), checkpoint=path, **options)
    assert found.train == expected.train
    assert same(whole, resumed)


def test_a_generator_ends_the_run_where_it_ends():
    batches = (torch.randn(20, 2) for _ in range(7))
    with pytest.warns(UserWarning, match=r"generator has given 7 batches and has no more; the run"):
        history = fit(flow(), batches, steps=10, validation=X, eval_every=5)
    assert len(history.train) == 7
    assert [step for step, _ in history.valid] == [0, 5, 7]


@pytest.mark.parametrize(
    ("data", "named", "message"),
    [
        (iter([]), {}, "got a list_iterator that gives none"),
        (DataLoader(X[:3], batch_size=9, drop_last=True), {}, "got a DataLoader that gives none"),
        (of_tensors(), {"weights": np.ones(50)}, "a DataLoader returns its weights with each"),
        (of_tensors(), {"validation": 0.1}, "a DataLoader has no share to hold out"),
        (iter([X[:, :1]]), {}, r"batch 1 of shape \(rows, 2\), got \(50, 1\)"),
        (
            DataLoader(X, sampler=DistributedSampler(X, num_replicas=2, rank=0)), {},
            "DistributedSampler; shuffle=True will do",
        ),
    ],
)  # fmt: skip
def test_batches_that_cannot_be_trained_on(data, named, message):
    with pytest.raises(ValueError, match=message):
        fit(flow(), data, **named)


def test_a_dictionary_is_no_batch():
    with pytest.raises(TypeError, match="got dict"):
        fit(flow(), iter([{"x": X}]))


@pytest.mark.parametrize("data", [X, of_tensors(collate_fn=None)], ids=["rows", "loader"])
def test_batches_judge_like_the_rows_that_they_hold(data):
    """Of unequal sizes and weights, in an order of their own, from a generator of their own."""
    rng = np.random.default_rng(1)
    x, c, w = rng.normal(size=(50, 2)), rng.normal(size=(50, 1)), rng.uniform(1, 3, 50)
    parts = [torch.as_tensor(part, dtype=torch.float32) for part in (x, c, w)]
    own = torch.Generator().manual_seed(5)
    before = own.get_state()
    shuffled = DataLoader(TensorDataset(*parts), batch_size=20, shuffle=True, generator=own)
    cut = [0, 7, 8, 50]
    listed = [tuple(p[a:b] for p in parts) for a, b in itertools.pairwise(cut)]

    class Batches:
        def __iter__(self):
            return iter(listed)

    losses = []
    for validation in (tuple(parts), shuffled, Batches()):
        torch.manual_seed(0)
        model = RealNVP(2, n_layers=2, hidden=(4,), context_dim=1)
        given = {"context": np.arange(50.0)[:, None]} if data is X else {}
        history = fit(model, data, validation=validation, steps=20, eval_every=5, **given)
        losses.append([loss for _, loss in history.valid])
    assert len(losses[0]) == 5
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    assert losses[2] == pytest.approx(losses[0], rel=1e-5)
    assert torch.equal(own.get_state(), before)


def test_batches_that_cannot_judge():
    with pytest.raises(ValueError, match="gone through at every look, got a generator, which can"):
        fit(flow(), X, validation=(X for _ in range(3)))
    with pytest.raises(
        ValueError, match="expected validation batches, got a DataLoader that gives"
    ):
        fit(flow(), X, validation=DataLoader(torch.empty(0, 2)))
    odd = [*torch.zeros(2, 4, 2), torch.zeros(4, 3)]
    with pytest.raises(ValueError, match=r"validation batch 3 of shape \(rows, 2\), got \(4, 3\)"):
        fit(flow(), X, validation=DataLoader(odd, batch_size=None))
    with pytest.raises(ValueError, match="a context of shape"):
        fit(
            RealNVP(2, context_dim=1), X, context=X[:, :1], validation=DataLoader(torch.zeros(9, 2))
        )


# --- arrays in files ------------------------------------------------------------------------------


def in_a_file(tmp_path, array):
    np.save(tmp_path / "array.npy", array)
    return np.load(tmp_path / "array.npy", mmap_mode="r")


@pytest.mark.filterwarnings("ignore:fit. columns 0 and 1 take")
@pytest.mark.parametrize("kind", ["f4", "f8", ">f8", "f2", "i2", "u4", "u8"])
def test_an_array_in_a_file_is_trained_on_like_one_in_memory(tmp_path, kind, monkeypatch):
    monkeypatch.setattr(rows_module, "PIECE", 32)  # many pieces
    array = np.abs(9 * np.random.default_rng(0).normal(size=(300, 2))).astype(kind)
    stored = in_a_file(tmp_path, np.concatenate([array, array]))[::2]
    array = np.concatenate([array, array])[::2]
    one, other = flow(), flow()
    options = {"steps": 20, "batch_size": 64}
    assert fit(one, array, **options) == fit(other, stored, **options)
    assert same(one, other)


def test_with_contexts_weights_and_a_checkpoint(tmp_path):
    parts = [in_a_file(tmp_path, X), X[:, :1].copy(), np.arange(50.0)]
    (tmp_path / "c").mkdir()
    stored = [parts[0], in_a_file(tmp_path / "c", parts[1]), parts[2]]
    models = [RealNVP(2, n_layers=2, hidden=(8,), context_dim=1) for _ in range(2)]
    models[1].load_state_dict(models[0].state_dict())
    first = fit(models[0], (X, *parts[1:]), steps=12)
    options = {"steps": 12, "checkpoint": tmp_path / "run.pt"}
    assert fit(models[1], tuple(stored), **options) == first
    again = RealNVP(2, n_layers=2, hidden=(8,), context_dim=1)
    assert fit(again, tuple(stored), **options) == first
    (tmp_path / "d").mkdir()
    changed = X.copy()
    changed[33] += 1
    with pytest.raises(ValueError, match=r"of another run: about was .*digest"):
        fit(again, (in_a_file(tmp_path / "d", changed), *stored[1:]), **options)


def test_values_in_a_file_are_checked_too(tmp_path, monkeypatch):
    monkeypatch.setattr(rows_module, "PIECE", 32)
    bad = X.copy()
    bad[40, 1] = np.nan
    with pytest.raises(ValueError, match=r"got nan at data\[32:\]\[8, 1\]"):
        fit(flow(), in_a_file(tmp_path, bad))
    bad[:, 1] = 1e9 + X[:, 0]
    with pytest.raises(ValueError, match="loses the digits of column 1 of data"):
        fit(flow(), in_a_file(tmp_path, bad))
    bad[:, 1] = 0.0
    bad[40, 1] = 1e300
    with pytest.raises(ValueError, match=r"1e\+300 in column 1 of data is beyond torch.float32"):
        fit(flow(), in_a_file(tmp_path, bad))
    with pytest.raises(TypeError, match="of numbers, got 'a' in column 0"):
        fit(flow(), in_a_file(tmp_path, np.array([["a", "b"]] * 9)))
    with pytest.raises(ValueError, match=r"of shape \(rows, 2\), got \(50, 3\)"):
        fit(flow(), in_a_file(tmp_path, np.zeros((50, 3))))


def test_what_does_not_vary_in_a_file_is_measured_by_its_deviation(tmp_path, monkeypatch):
    monkeypatch.setattr(rows_module, "PIECE", 32)
    x = np.stack([X[:, 0], np.where(np.arange(50) == 9, 1e9 + 5, 1e9)], 1)
    for data in (x, in_a_file(tmp_path, x)):
        with pytest.raises(ValueError, match="loses the digits of column 1"):
            fit(flow(), data)


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


# --- what a practitioner's table gets wrong -------------------------------------------------------


def patients():
    pd = pytest.importorskip("pandas")
    generator = np.random.default_rng(0)
    x = pd.DataFrame(generator.normal(size=(40, 2)), columns=["bmi", "bp"])
    return x, pd.DataFrame({"age": generator.uniform(20, 80, 40)})


def test_a_gap_is_named_by_its_column_and_counted_by_rows():
    x, ages = patients()
    x.loc[[3, 7], "bp"] = None
    with pytest.raises(ValueError, match=r"got nan in column 'bp' of data, in 2 of 40 rows; drop"):
        fit(RealNVP(2, 2, (8,), context_dim=1), x, context=ages, steps=1)
    x, ages = patients()
    ages.loc[5, "age"] = np.inf
    with pytest.raises(ValueError, match="got inf in column 'age' of the context of data, in 1 of"):
        fit(RealNVP(2, 2, (8,), context_dim=1), x, context=ages, steps=1)


def test_text_among_numbers_is_named_with_its_place_and_its_cure():
    x, _ = patients()
    x = x.astype(object)
    x.loc[9, "bmi"] = "?"
    with pytest.raises(
        TypeError, match=r"got '\?' in column 'bmi' \(row 9\); pd.to_numeric\(column"
    ):
        fit(flow(), x)
    x.loc[5, "bp"] = "10,784"
    with pytest.raises(
        TypeError, match=r"'\?' in .*, '10,784' in column 'bp' \(row 5\); .*thousands"
    ):
        fit(flow(), x)
    x["bmi"] = None
    with pytest.raises(
        TypeError, match=r"got None in column 'bmi' \(row 0\).* fill what is missing"
    ):
        fit(flow(), x)
    text = np.array([["1", "2"], ["3", "4.5"]])
    assert taken(text)[0].x.tolist() == [[1.0, 2.0], [3.0, 4.5]]


def test_a_column_that_is_also_a_context_is_named():
    x, ages = patients()
    with pytest.warns(UserWarning, match="column 'bp' of the data is also column 'last' of"):
        fit(RealNVP(2, context_dim=2), x, context=ages.assign(last=x["bp"]), steps=1)


def test_tables_in_another_order_are_refused_and_not_paired_by_place():
    x, ages = patients()
    with pytest.raises(ValueError, match=r"row \d+ of data is .*: the tables are not in one order"):
        fit(RealNVP(2, 2, (8,), context_dim=1), x, context=ages.sort_values("age"), steps=1)
    shuffled = ages.sort_values("age")
    fit(RealNVP(2, 2, (8,), context_dim=1), x.loc[shuffled.index], context=shuffled, steps=1)


def test_shapes_that_do_not_fit_say_what_to_do():
    x, ages = patients()
    with pytest.raises(ValueError, match="got \\(39, 1\\); drop the same rows in both"):
        fit(RealNVP(2, 2, (8,), context_dim=1), x, context=ages[1:].to_numpy(), steps=1)
    with pytest.raises(ValueError, match=r"got \(40,\); \[:, None\] makes one column"):
        fit(RealNVP(2, 2, (8,)), x["bp"], steps=1)
    with pytest.raises(ValueError, match=r"fit: takes no context, got one of shape \(40, 1\)"):
        fit(RealNVP(2, 2, (8,)), x, context=ages, steps=1)


def test_one_wild_value_is_seen_wherever_it_falls():
    """In the rows that are held out, too: there it would judge every weight."""
    for row in range(40):
        x, _ = patients()
        x.loc[row, "bp"] = 1e6
        with pytest.warns(UserWarning, match="column 'bp'"):
            fit(RealNVP(2, 2, (8,)), x, steps=1)
