"""flowlib.training: the exact answer where there is one, and nothing lost where it goes wrong."""

import math

import numpy as np
import pytest
import torch

from flowlib import Flow, LULinear, StandardNormal, datasets, fit
from flowlib.flow import ElementwiseAffine


def linear_flow(dim):
    return Flow(LULinear(dim), StandardNormal(dim))


def gaussian_nll(train, test):
    """The exact maximum-likelihood Gaussian's mean negative log-likelihood."""
    train, test = train.double(), test.double()
    exact = torch.distributions.MultivariateNormal(train.mean(0), train.T.cov(correction=0))
    return -exact.log_prob(test).mean().item()


def wine():
    train, valid, test = datasets.wine()
    return torch.cat([train, valid]), test


def two_moons():
    rng = np.random.default_rng(0)
    return datasets.moons.sample(2000, rng), datasets.moons.sample(2000, rng)


@pytest.mark.parametrize("data", [wine, two_moons])
def test_a_linear_flow_meets_the_exact_gaussian(data):
    train, test = data()
    flow = linear_flow(train.shape[1])
    fit(flow, train, steps=1500, batch_size=len(train), lr=0.05, validation=0)
    for part in (train, test):
        with torch.no_grad():
            assert abs(-flow.log_prob(part).mean().item() - gaussian_nll(train, part)) < 0.02


def test_the_best_weights_are_kept():
    rng = np.random.default_rng(0)
    train, valid = (torch.as_tensor(rng.normal(size=(n, 5)), dtype=torch.float32) for n in (12, 64))
    flow = linear_flow(5)
    history = fit(flow, train, steps=400, lr=0.05, validation=valid, eval_every=10)
    best_step, best = min(history.valid, key=lambda pair: pair[1])
    assert history.best_step == best_step < 400  # twelve rows in five dimensions: it overfits
    with torch.no_grad():
        assert math.isclose(-flow.log_prob(valid).mean().item(), best, rel_tol=1e-5)


def test_the_same_seed_gives_the_same_run():
    x = datasets.moons.sample(300, np.random.default_rng(0))
    runs = []
    for seed in (1, 1, 2):
        flow = linear_flow(2)
        runs.append(fit(flow, x, steps=30, seed=seed, batch_size=32).train)
    assert runs[0] == runs[1] != runs[2]


def test_arrays_and_other_dtypes_are_taken():
    flow = linear_flow(2)
    fit(flow, np.random.default_rng(0).normal(size=(50, 2)), steps=5)
    fit(flow.double(), torch.randn(50, 2), steps=5)


def test_data_and_validation_share_no_row():
    x = torch.arange(40.0).reshape(20, 2)
    seen = []

    class Spy(ElementwiseAffine):
        def forward(self, x, context=None):
            seen.append((self.training, x.detach().clone()))
            return super().forward(x, context)

    fit(Flow(Spy(2), StandardNormal(2)), x / 40, steps=20, batch_size=4, eval_every=5, lr=1e-4)
    rows = {
        mode: {tuple(r.tolist()) for m, part in seen if m == mode for r in part}
        for mode in (True, False)
    }
    assert len(rows[False]) == 2
    assert not rows[True] & rows[False]
    assert len(rows[True]) == 18


class Explodes(ElementwiseAffine):
    """Gives a NaN, or Ctrl-C, at its twentieth training pass."""

    def __init__(self, dim, raises=None):
        super().__init__(dim)
        self.calls, self.raises = 0, raises

    def forward(self, x, context=None):
        self.calls += self.training
        z, log_det = super().forward(x, context)
        if self.calls == 20:
            if self.raises:
                raise self.raises
            return z * float("nan"), log_det
        return z, log_det


def test_a_nan_keeps_the_best_weights_and_names_the_step():
    flow = Flow(Explodes(2), StandardNormal(2))
    x = torch.randn(100, 2) + 3
    with pytest.raises(FloatingPointError, match=r"nan at step 20.*weights of step 15.*smaller lr"):
        fit(flow, x, steps=50, eval_every=5, lr=0.01, validation=0.2)
    assert all(torch.isfinite(p).all() for p in flow.parameters())
    assert flow.bijection.shift.abs().sum() > 0.1


def test_ctrl_c_keeps_the_best_weights_and_returns_the_history():
    flow = Flow(Explodes(2, KeyboardInterrupt()), StandardNormal(2))
    history = fit(flow, torch.randn(100, 2) + 3, steps=50, eval_every=5, lr=0.01)
    assert history.interrupted
    assert len(history.train) == 19
    assert history.best_step == 15


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (torch.zeros(5, 3), r"expected data of shape \(rows, 2\), got \(5, 3\)"),
        (torch.zeros(2), r"got \(2,\)"),
        (torch.tensor(1.0), r"got \(\)"),
        (torch.zeros(0, 2), "data is empty"),
        (np.zeros((0, 2)), "data is empty"),
        (torch.zeros(1, 2), "at least 2 rows to train on, got"),
        (torch.tensor([[0, 0], [0, math.nan]]), r"got nan at data\[1, 1\]"),
    ],
)
def test_bad_data(data, message):
    with pytest.raises(ValueError, match=message):
        fit(linear_flow(2), data, steps=2)


@pytest.mark.parametrize(
    "argument",
    [{"steps": 0}, {"batch_size": 0}, {"lr": -1.0}, {"validation": 1.0}, {"eval_every": 0}],
)
def test_bad_arguments(argument):
    with pytest.raises(ValueError, match=next(iter(argument))):
        fit(linear_flow(2), torch.randn(20, 2), **argument)


def test_a_list_is_no_data():
    with pytest.raises(TypeError, match="got list"):
        fit(linear_flow(2), [[0.0, 1.0]])


def test_progress_bar_is_for_people(capfd, monkeypatch):
    fit(linear_flow(2), torch.randn(20, 2), steps=2)
    assert capfd.readouterr().err == ""
    monkeypatch.setenv("FLOWLIB_PROGRESS", "1")
    fit(linear_flow(2), torch.randn(20, 2), steps=2)
    assert "fit" in capfd.readouterr().err
