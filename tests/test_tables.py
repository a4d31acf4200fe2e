"""The MAF paper's five tables, read from small files of the same make."""

import json
import sys

import h5py
import numpy as np
import pandas as pd
import pytest
import torch

from tools.notebooks import ROOT

sys.path.insert(0, str(ROOT / "benchmarks"))

import tables

rng = np.random.default_rng(0)
PARTS = {"POWER": (81, 9, 10), "GAS": (81, 9, 10), "HEPMASS": (36, 4, 12), "MINIBOONE": (81, 9, 10),
         "BSDS300": (20, 6, 5)}  # fmt: skip
COLUMNS = {"POWER": 6, "GAS": 3, "HEPMASS": 3, "MINIBOONE": 4, "BSDS300": 63}


def write(folder):
    for name in ("power", "gas", "hepmass", "miniboone", "BSDS300"):
        (folder / name).mkdir()
    rounded = rng.integers(0, 9, (100, 7)).astype(float)
    np.save(folder / "power" / "data.npy", np.column_stack([rounded, rng.random(100)]))
    np.save(folder / "miniboone" / "data.npy", 5 + 3 * rng.normal(size=(100, 4)))
    a, b, c = rng.normal(size=(3, 100))
    names = ["Time", "Meth", "Eth", "R1", "R2", "R3", "R4"]
    values = [np.arange(100), a, b, a, b, a + 0.01 * c, c]  # R1 and R3 nearly repeat each other
    frame = pd.DataFrame(dict(zip(names, values, strict=True)))
    frame.to_pickle(folder / "gas" / "ethylene_CO.pickle")
    for part, rows, extra in (("train", 80, 0), ("test", 24, 1)):
        label = np.arange(rows) % 2
        x = rng.normal(size=(rows, 4 + extra)) + 10 * label[:, None]
        x[:, 1] = np.maximum(x[:, 1], 10)  # its smallest value repeats
        x[label == 1, 2] = np.minimum(x[label == 1, 2], 10.2)  # its largest does
        head = ",".join(["# label", *(f"f{k}" for k in range(4 + extra))])
        file = folder / "hepmass" / f"1000_{part}.csv"
        np.savetxt(file, np.column_stack([label, x]), delimiter=",", header=head, comments="")
    with h5py.File(folder / "BSDS300" / "BSDS300.hdf5", "w") as file:
        for part, rows in zip(("train", "validation", "test"), PARTS["BSDS300"], strict=True):
            file[part] = rng.normal(size=(rows, 63))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    write(folder)
    return folder


@pytest.mark.parametrize("name", tables.LOADERS)
def test_the_parts_have_their_sizes(folder, name):
    parts = tables.load(name, folder)
    assert tuple(map(len, parts)) == PARTS[name]
    assert {part.shape[1] for part in parts} == {COLUMNS[name]}
    assert all(part.dtype == torch.float32 and part.isfinite().all() for part in parts)


@pytest.mark.parametrize("name", ["POWER", "MINIBOONE"])
def test_test_rows_have_no_say_in_the_units(folder, name):
    train, valid, _ = tables.load(name, folder)
    seen = torch.cat([train, valid]).double()
    assert seen.mean(0).abs().max() < 1e-6
    assert (seen.std(0, correction=0) - 1).abs().max() < 1e-5


def test_power_is_shuffled_filled_with_noise_and_without_two_columns(folder):
    """All but the noise can be read back."""
    data = np.load(folder / "power" / "data.npy")
    order = np.arange(100)
    np.random.RandomState(42).shuffle(order)
    parts = np.concatenate(tables.power(folder))
    for column, noise, made in zip((0, 2, 4, 5, 6), (0.001, 0.01, 1, 1, 1), parts.T, strict=False):
        known = data[order, column]
        scale, shift = np.polyfit(made, known, 1)
        assert np.abs(scale * made + shift - known).max() < noise
    scale, shift = np.polyfit(parts[:, 5], data[order, 7], 1)  # time has none
    assert scale * parts[:, 5] + shift == pytest.approx(data[order, 7], abs=1e-9)


def test_gas_loses_the_first_of_two_columns_that_repeat_each_other(folder):
    frame = pd.read_pickle(folder / "gas" / "ethylene_CO.pickle")[["R2", "R3", "R4"]]
    parts = np.concatenate(tables.gas(folder))
    assert parts == pytest.approx(((frame - frame.mean()) / frame.std()).to_numpy())


def test_hepmass_has_the_signal_alone_without_columns_whose_smallest_value_repeats(folder):
    train, valid, test = tables.hepmass(folder)
    raw = np.loadtxt(folder / "hepmass" / "1000_train.csv", delimiter=",", skiprows=1)
    signal = raw[raw[:, 0] == 1][:, [1, 3, 4]]
    units = (signal - signal.mean(0)) / signal.std(0, ddof=1)
    assert np.concatenate([train, valid]) == pytest.approx(units)
    raw = np.loadtxt(folder / "hepmass" / "1000_test.csv", delimiter=",", skiprows=1)
    expected = raw[raw[:, 0] == 1][:, [1, 3, 4]]
    assert test == pytest.approx((expected - signal.mean(0)) / signal.std(0, ddof=1))


def test_one_command_runs_the_papers_table(folder, tmp_path, monkeypatch, capsys):
    out = tmp_path / "tables.json"
    words = ["tables.py", str(folder), str(out), "--sets", "POWER", "GAS", "--steps", "2"]
    monkeypatch.setattr(sys, "argv", words)
    tables.main()
    rows = json.loads(out.read_text())
    assert [row["set"] for row in rows] == ["POWER", "GAS"]
    assert all(np.isfinite(row["log_likelihood"]) and row["two_errors"] > 0 for row in rows)
    assert "POWER" in capsys.readouterr().out
