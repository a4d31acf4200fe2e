"""The five tables of the MAF paper: read as its authors do, and a MAF trained on each.

`python benchmarks/tables.py FOLDER [OUT.json] [--sets NAME ...] [--steps N]`. The folder is the
public archive of the paper's data, unpacked: `power/data.npy`, `gas/ethylene_CO.pickle`,
`hepmass/1000_train.csv` and `1000_test.csv`, `miniboone/data.npy`, `BSDS300/BSDS300.hdf5`. The data
are some gigabytes and no part of this project. What is printed is the mean log-likelihood of the
test part in nats with two standard errors, as in the paper's Table 1.

Source: Papamakarios, Pavlakou and Murray (2017), appendix D; the archive of the data is Zenodo
record 1161203. Where the authors' program and their words differ, this follows the program, since
the published figures come from it; each such place says so.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from flowlib import MAF, datasets, fit

Parts = tuple[np.ndarray, np.ndarray, np.ndarray]


def split(data: np.ndarray) -> Parts:
    """The last tenth for the test, the last tenth of what is left for validation."""
    n_test = len(data) // 10
    rest, test = data[:-n_test], data[-n_test:]
    n_valid = len(rest) // 10
    return rest[:-n_valid], rest[-n_valid:], test


def standardized(parts: Parts) -> Parts:
    """By mean and deviation of all that is not the test part."""
    seen = np.concatenate(parts[:2])
    mean, deviation = seen.mean(0), seen.std(0)
    train, valid, test = ((part - mean) / deviation for part in parts)
    return train, valid, test


def power(folder: Path) -> Parts:
    """Electric power of a household: 6 columns. The readings are rounded, so noise fills them."""
    rng = np.random.RandomState(42)  # the authors' own numbers come from this generator
    data = np.load(folder / "power" / "data.npy")
    rng.shuffle(data)
    data = np.delete(data, (1, 3), axis=1)  # reactive power and intensity
    n = len(data)
    voltage = 0.01 * rng.rand(n, 1)
    active = 0.001 * rng.rand(n, 1)
    meters = rng.rand(n, 3)
    return standardized(split(data + np.hstack([active, voltage, meters, np.zeros((n, 1))])))


def gas(folder: Path) -> Parts:
    """Sensors in a mixture of gases: 8 of 16 columns are left. It is standardized as a whole."""
    import pandas as pd

    frame = pd.read_pickle(folder / "gas" / "ethylene_CO.pickle")
    frame = frame.drop(columns=["Meth", "Eth", "Time"])
    while True:  # of columns that nearly repeat one another the first goes
        twins = np.flatnonzero((frame.corr().to_numpy() > 0.98).sum(1) > 1)
        if not len(twins):
            break
        frame = frame.drop(columns=frame.columns[twins[0]])
    return split(((frame - frame.mean()) / frame.std()).to_numpy())


def hepmass(folder: Path) -> Parts:
    """Collisions with a new particle: 21 columns. Test part and training come as two files."""
    train, test = (
        _collisions(folder / "hepmass" / f"1000_{part}.csv") for part in ("train", "test")
    )
    test = test[:, : train.shape[1]]  # it has one column more
    mean, deviation = train.mean(0), train.std(0, ddof=1)
    train, test = (train - mean) / deviation, (test - mean) / deviation
    # The paper drops columns in which a value repeats; the program counts the smallest one only.
    kept = [k for k, column in enumerate(train.T) if (column == column.min()).sum() <= 5]
    n_valid = len(train) // 10
    return train[:-n_valid, kept], train[-n_valid:, kept], test[:, kept]


def _collisions(file: Path) -> np.ndarray:
    """Those of the signal, without their label."""
    with file.open() as lines:
        next(lines)
        rows = np.loadtxt(lines, delimiter=",", ndmin=2)
    return rows[rows[:, 0] == 1, 1:]


def miniboone(folder: Path) -> Parts:
    """Neutrinos: 43 columns, from which the authors have taken outliers and repetitions."""
    return standardized(split(np.load(folder / "miniboone" / "data.npy")))


def bsds300(folder: Path) -> Parts:
    """Patches of 8 × 8 pixels of photographs, less their mean and the last pixel: 63 columns."""
    import h5py

    with h5py.File(folder / "BSDS300" / "BSDS300.hdf5") as file:
        train, valid, test = (file[part][:] for part in ("train", "validation", "test"))
    return train, valid, test


LOADERS: dict[str, Callable[[Path], Parts]] = {
    "POWER": power, "GAS": gas, "HEPMASS": hepmass, "MINIBOONE": miniboone, "BSDS300": bsds300,
}  # fmt: skip


def load(name: str, folder: Path) -> datasets.Split:
    """Training, validation and test part in float32."""
    parts = LOADERS[name](folder)
    return datasets.Split(*(torch.from_numpy(part.astype(np.float32)) for part in parts))


def learn(name: str, folder: Path, steps: int) -> dict:
    """The test log-likelihood of a MAF of five layers, at the best step on the validation part."""
    parts = load(name, folder)
    torch.manual_seed(0)
    flow = MAF(parts.train.shape[1], n_layers=5, hidden=(512, 512))
    fit(flow, parts.train, steps=steps, batch_size=512, validation=parts.valid)
    flow.eval()
    with torch.no_grad():
        found = torch.cat([flow.log_prob(x) for x in parts.test.split(4096)])
    return {
        "set": name, "log_likelihood": found.mean().item(),
        "two_errors": 2 * (found.std() / len(found) ** 0.5).item(), "steps": steps,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path, nargs="?")
    parser.add_argument("--sets", nargs="+", choices=LOADERS, default=list(LOADERS))
    parser.add_argument("--steps", type=int, default=50_000)
    arguments = parser.parse_args()
    rows = []
    for name in arguments.sets:
        rows.append(learn(name, arguments.folder, arguments.steps))
        print(rows[-1], flush=True)
    if arguments.out:
        arguments.out.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
