"""flowlib.arrays: tables go by the names of their columns, and a flow keeps the names."""

import copy
import json
import pickle

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch.utils.data import DataLoader

import flowlib
from flowlib import BernoulliMADE, Flow, LULinear, RealNVP, StandardNormal, check_flow, fit
from flowlib.arrays import Names, as_tensors
from flowlib.rows import as_rows
from flowlib.saving import _contents, digest

pd = pytest.importorskip("pandas")
X, C = ["bmi", "bp", "glucose"], ["age", "sex"]


def tables(n=60):
    generator = np.random.default_rng(0)
    x = pd.DataFrame(generator.normal([25, 95, 91], [4, 14, 11], size=(n, 3)), columns=X)
    c = pd.DataFrame({"age": generator.uniform(20, 80, n), "sex": generator.integers(0, 2, n)})
    return x, c


def tensors(*parts):
    return [torch.tensor(part.to_numpy(), dtype=torch.float32) for part in parts]


def fitted(**options):
    torch.manual_seed(0)
    x, c = tables()
    flow = RealNVP(3, 2, (8,), context_dim=2)
    fit(flow, x, context=c, **{"steps": 3, "progress": False, **options})
    return flow.eval()


def test_a_table_in_another_order_has_the_same_density():
    flow, (x, c) = fitted(), tables()
    assert flow.columns == Names(tuple(X), tuple(C))
    expected = flow.log_prob(*tensors(x, c))
    for turned in (x, x[["glucose", "bmi", "bp"]], x[X[::-1]]):
        for context in (c, c[C[::-1]], tensors(c)[0]):
            assert torch.equal(flow.log_prob(turned, context), expected)
            assert torch.equal(flow(turned, context), expected)
    assert torch.equal(flow.log_prob(x.to_numpy(), c.to_numpy()), expected)
    # one row, and one context for all rows
    row, given = x.iloc[4][X[::-1]], c.iloc[4][C[::-1]]
    assert flow.log_prob(row, given).item() == pytest.approx(expected[4].item(), rel=1e-5)
    assert flow.log_prob(x, given).shape == (60,)


def test_a_table_of_bits_goes_by_its_names():
    table = pd.DataFrame(torch.rand(60, 3).gt(0.4).int().numpy(), columns=X)
    made = BernoulliMADE(3, (8,))
    fit(made, table, steps=3, progress=False)
    (x,) = tensors(table)
    assert torch.equal(made.log_prob(table[X[::-1]]), made.log_prob(x))
    with pytest.raises(ValueError, match="one without 'bp'"):
        made.log_prob(table[["bmi", "glucose"]])


def test_draws_take_contexts_by_name():
    flow, (_, c) = fitted(), tables()
    (given,) = tensors(c[:5])
    turned = c[:5][C[::-1]]
    for draw in (
        lambda context: flow.sample(7, context, torch.Generator().manual_seed(0)),
        lambda context: flow.rsample_and_log_prob(7, context, torch.Generator().manual_seed(0))[1],
        lambda context: flow.as_distribution(context).log_prob(torch.zeros(3)),
    ):
        assert torch.equal(draw(given), draw(turned))
    assert flow.sample(7, c.iloc[0]).shape == (7, 3)
    assert flow.as_distribution(c[:5]).batch_shape == (5,)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda x: x.rename(columns={"bp": "BP"}),
            "on, 'bmi', 'bp' and 'glucose'; got one without 'bp' and with 'BP'. Choose or",
        ),
        (lambda x: x.assign(age=1.0), "got one with 'age'"),
        (lambda x: x[["bmi", "bp"]], "got one without 'glucose'"),
        (lambda x: x[["bmi", "bp", "bp", "glucose"]], "got one with more than one 'bp'"),
        (lambda x: x["bmi"][:3], "and with '0', '1' and '2'"),  # which is not a row of three
        (lambda x: x.assign(bp=np.nan), "got nan in column 'bp' of x, in 60 of 60 rows"),
        (lambda x: x.assign(bp="?"), r"expected x of numbers, got '\?' in column 'bp' \(row 0\)"),
        (lambda x: x[::-1], "row 0 of x is 59, and of context it is 0: the tables are not in one"),
    ],
)
def test_tables_with_other_columns_are_refused_by_name(change, message):
    flow, (x, c) = fitted(), tables()
    error = TypeError if "numbers" in message else ValueError
    with pytest.raises(error, match=f"log_prob: .*{message}"):
        flow.log_prob(change(x), c)
    with pytest.raises(error, match=f"check_flow: .*{message}"):
        check_flow(flow, change(x), c)


def test_names_twice_have_no_order():
    """Such a table is as good as an array, as long as it looks the same."""
    x, _ = tables()
    twice = x.set_axis(["a", "b", "a"], axis=1)
    flow = Flow(LULinear(3), StandardNormal(3))
    fit(flow, twice, steps=2)
    assert torch.equal(flow.log_prob(twice), flow.log_prob(*tensors(x)))
    with pytest.raises(ValueError, match="got one with more than one 'a'"):
        flow.log_prob(twice.iloc[:, [1, 0, 2]])


def test_columns_that_are_only_numbered_have_no_names():
    x, _ = tables()
    flow = Flow(LULinear(3), StandardNormal(3))
    fit(flow, pd.DataFrame(x.to_numpy()), steps=2)
    assert flow.columns == Names()
    assert flow.log_prob(x[X[::-1]]).shape == (60,)  # it knows no order to bring them into
    fit(flow, x, steps=2)
    assert flow.columns.x == tuple(X)
    assert flow.log_prob(pd.DataFrame(x.to_numpy())).shape == (60,)


def test_what_is_no_table_is_left_to_the_door():
    flow, (x, c) = fitted(), tables()
    (tensor,) = tensors(x)
    assert as_tensors("log_prob", flow, tensor, None)[0] is tensor
    with pytest.raises(TypeError, match=r"expected x to be a torch.Tensor, got list"):
        flow.log_prob(x.to_numpy().tolist(), c)
    with pytest.raises(ValueError, match=r"expected x of shape \(..., 3\), got \(60, 2\)"):
        flow.log_prob(x.to_numpy()[:, :2], c)
    with pytest.raises(ValueError, match=r"got nan at x\[0, 1\]"):
        flow.log_prob(x.assign(bp=np.nan).to_numpy(), c)
    double = copy.deepcopy(flow).double()
    assert double.log_prob(x, c).dtype == torch.float64


def test_a_table_without_pandas():
    class Frame:  # as much of it as is asked for
        columns = ("bp", "glucose", "bmi")

        def to_numpy(self):
            return tables()[0][list(self.columns)].to_numpy()

    flow, (x, c) = fitted(), tables()
    assert torch.equal(flow.log_prob(Frame(), c), flow.log_prob(x, c))


# --- fit ------------------------------------------------------------------------------------------


def test_validation_and_later_runs_go_by_the_names_of_data():
    x, c = tables()
    valid = x[:20], c[:20]
    turned = x[X[::-1]][:20], c[C[::-1]][:20]
    runs = []
    for validation in (valid, turned):
        torch.manual_seed(0)
        flow = RealNVP(3, 2, (8,), context_dim=2)
        runs.append(fit(flow, x[20:], context=c[20:], validation=validation, steps=4))
    assert runs[0] == runs[1]
    rows, names = as_rows("fit", flow, "data", x[X[::-1]], context=c)
    assert torch.equal(rows.x, tensors(x)[0])
    assert names == flow.columns
    with pytest.raises(ValueError, match="fit: expected a table validation with the columns"):
        fit(RealNVP(3), x, validation=x.rename(columns={"bp": "BP"}), steps=1)
    with pytest.raises(ValueError, match="fit: expected a table data with the columns"):
        fit(flow, x.rename(columns={"bp": "BP"}), context=c, steps=1)


def test_batches_of_tables_are_brought_into_one_order():
    x, _ = tables()
    chunks = [x[:20], x[X[::-1]][20:40], x[["bp", "bmi", "glucose"]][40:]]

    class File:  # as one reads a large file again and again
        def __iter__(self):
            return iter(chunks)

    runs = []
    for data in (File(), lambda step: tensors(x)[0][(step - 1) % 3 * 20 :][:20]):
        torch.manual_seed(0)
        flow = RealNVP(3, 2, (8,))
        runs.append(fit(flow, data, steps=6, validation=tensors(x)[0], eval_every=3))
        flow_names = flow.columns.x
        assert runs[0] == runs[-1]
    assert flow_names is None
    flow = RealNVP(3, 2, (8,))
    fit(flow, File(), steps=2, validation=x[X[::-1]])
    assert flow.columns.x == tuple(X[::-1])  # that of the rows that were given whole
    chunks[1] = chunks[1].rename(columns={"bp": "BP"})
    with pytest.raises(ValueError, match="expected a table batch 2 with the columns"):
        fit(RealNVP(3, 2, (8,)), File(), steps=3)


def test_names_are_kept_by_a_run_that_goes_on_and_not_by_one_that_never_began(tmp_path):
    x, _ = tables()
    options = {"steps": 4, "eval_every": 2, "checkpoint": tmp_path / "run.pt"}
    for _ in range(2):
        flow = Flow(LULinear(3), StandardNormal(3))
        fit(flow, x, **options)
        assert flow.columns.x == tuple(X)
    fresh = Flow(LULinear(3), StandardNormal(3))
    with pytest.raises(ValueError, match="patience needs a validation part"):
        fit(fresh, x, validation=0, patience=1)
    assert fresh.columns == Names()


# --- files ----------------------------------------------------------------------------------------


def test_names_travel_with_the_flow(tmp_path):
    flow, (x, c) = fitted(), tables()
    flow.save(tmp_path / "flow.safetensors")
    again = flowlib.load(tmp_path / "flow.safetensors")
    for other in (again, copy.deepcopy(flow), pickle.loads(pickle.dumps(flow))):
        assert other.columns == flow.columns
        assert torch.equal(other.log_prob(x[X[::-1]], c), flow.log_prob(x, c))
    again.save(tmp_path / "again.safetensors")
    assert flowlib.load(tmp_path / "again.safetensors").columns == flow.columns


def test_files_without_names_are_read_and_changed_names_are_not(tmp_path):
    RealNVP(3).save(tmp_path / "plain.safetensors")
    weights, header = _contents(tmp_path / "plain.safetensors")
    assert "columns" not in json.loads(header["recipe"])  # as a file of an older version
    assert flowlib.load(tmp_path / "plain.safetensors").columns == Names()

    fitted().save(tmp_path / "named.safetensors")
    weights, header = _contents(tmp_path / "named.safetensors")
    swapped = {**header, "recipe": header["recipe"].replace('"bmi", "bp"', '"bp", "bmi"')}
    assert swapped != header
    save_file(weights, tmp_path / "swapped.safetensors", swapped)
    with pytest.raises(ValueError, match="has been changed"):
        flowlib.load(tmp_path / "swapped.safetensors")
    for bad in ({"x": [1, 2]}, {"x": ["a"], "weights": ["b"]}, ["a"], {"x": 3}):
        recipe = json.dumps({**json.loads(header["recipe"]), "columns": bad})
        forged = {**header, "recipe": recipe, "digest": digest(recipe, weights)}
        save_file(weights, tmp_path / "forged.safetensors", forged)
        with pytest.raises(ValueError, match="by another flowlib, or by hand"):
            flowlib.load(tmp_path / "forged.safetensors")


# --- check_flow -----------------------------------------------------------------------------------


def test_a_report_takes_tables_and_calls_columns_by_their_names():
    flow, (x, c) = fitted(), tables()
    report = check_flow(flow, x[X[::-1]], c)
    assert str(report) == str(check_flow(flow, *tensors(x, c)))
    assert report.ok
    flat = x.assign(bp=95.0)
    assert "column 'bp' never varies" in check_flow(flow, flat, c)["columns"].measured
    given = c.assign(sex=x["glucose"])
    found = check_flow(flow, x, given)["columns"].measured
    assert "column 'glucose' of the data is also column 'sex' of the context" in found


def test_a_report_on_anothers_map_takes_a_table_too():
    x, _ = tables()
    report = check_flow(torch.nn.Identity(), x)
    assert report["shapes"].verdict == "wrong"  # a map without a log-determinant
    of = check_flow(lambda x: (x, x.sum(1) * 0), x.assign(bp=95.0))
    assert "column 'bp' never varies" in of["columns"].measured


def test_a_loader_of_rows_has_no_names():
    flow = RealNVP(3, 2, (8,))
    fit(flow, DataLoader(tensors(tables()[0])[0], batch_size=20), steps=2)
    assert flow.columns == Names()
