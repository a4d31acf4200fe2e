"""flowlib.training: the exact answer where there is one, and nothing lost where it goes wrong."""

import copy
import dataclasses
import inspect
import itertools
import math
import os
import sys
import types
import warnings

import numpy as np
import pytest
import torch

from flowlib import (
    BernoulliMADE,
    Bijection,
    Compose,
    ElementwiseAffine,
    Flow,
    History,
    Inverse,
    LULinear,
    MultivariateNormal,
    RealNVP,
    Softplus,
    StandardNormal,
    TrainingOptions,
    datasets,
    fit,
    fit_variational,
    rows,
    training,
)


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


def test_a_run_leaves_nothing_worse_than_it_found():
    """A flow that is trained, and then a rate that throws it far away."""
    train, valid = two_moons()
    flow = linear_flow(2)
    fit(flow, train, steps=300, lr=0.05, validation=valid)
    before = copy.deepcopy(flow.state_dict())
    again = fit(flow, train, steps=20, lr=1.0, validation=valid, schedule="constant")
    assert again.best_step == 0
    assert again.valid[0][0] == 0
    assert min(loss for _, loss in again.valid) == again.valid[0][1]
    assert all(torch.equal(before[name], value) for name, value in flow.state_dict().items())


def test_a_run_that_found_nothing_better_says_so_and_why():
    train, valid = two_moons()
    flow = linear_flow(2)
    fit(flow, train, steps=300, lr=0.05, validation=valid)
    wild = {"lr": 1.0, "validation": valid, "schedule": "constant", "eval_every": 10}
    has_not_fallen = r"no weights were better .* has not fallen either, .* smaller lr \(it was 1\)"
    with pytest.warns(UserWarning, match=has_not_fallen) as found:
        assert fit(flow, train, steps=30, **wild).best_step == 0
    assert found[0].filename == __file__
    elsewhere = {"steps": 30, "lr": 0.05, "eval_every": 10, "validation": 100 * valid + 1000}
    with pytest.warns(UserWarning, match="no weights were better .* are they in the units of the"):
        assert fit(linear_flow(2), train, **elsewhere).best_step == 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit(linear_flow(2), train, steps=30, lr=0.05, validation=valid, eval_every=10)
        fit(flow, train, steps=30, **{**wild, "validation": 0})
        fit(flow, train, steps=1, **wild)  # one look says little
        # twelve rows are learnt by heart: the history says so, and the start is the best there is
        few = fit(linear_flow(2), train[:12], steps=300, lr=0.02, validation=torch.randn(500, 2))
        assert few.best_step == 0 < few.train[0] - few.train[-1]


def test_continuations_never_lose_anything():
    train, valid = two_moons()
    flow = RealNVP(2, n_layers=2, hidden=(16,))
    losses = []
    for _ in range(4):
        fit(flow, train, steps=60, lr=0.02, validation=valid)
        with torch.no_grad():
            losses.append(-flow.log_prob(valid).mean().item())
    assert all(later <= earlier + 1e-6 for earlier, later in itertools.pairwise(losses))


def test_a_start_without_a_density_at_the_validation_part_is_no_error():
    """A loss of infinity before the first step; any weights are better."""

    class Opens(ElementwiseAffine):
        def forward(self, x, context=None):
            z, log_det = super().forward(x, context)
            return (z if self.training or self.loc.any() else z * 1e30), log_det

    with pytest.warns(UserWarning, match="does not know the units"):
        history = fit(Flow(Opens(1), StandardNormal(1)), torch.randn(200, 1) + 3, steps=3)
    assert math.isinf(history.valid[0][1])
    assert history.best_step == 3


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
    _, *looks = seen  # the first is at the first batch, before any step
    rows = {
        mode: {tuple(r.tolist()) for m, part in looks if m == mode for r in part}
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
    x, valid = torch.randn(80, 2) + 3, torch.randn(50, 2) + 3
    with pytest.raises(
        FloatingPointError, match=r"nan at step 20.*weights of step 15.*smaller lr"
    ) as caught:
        fit(flow, x, steps=50, eval_every=5, lr=0.01, validation=valid)
    step, best = caught.value.history.valid[-1]
    assert step == 15
    flow.bijection.calls = 0
    with torch.no_grad():
        assert -flow.log_prob(valid).mean().item() == pytest.approx(best, abs=1e-6)


def test_without_validation_a_nan_goes_back_to_the_best_stretch_of_the_run():
    flow = Flow(Explodes(2), StandardNormal(2))
    start = copy.deepcopy(flow.state_dict())
    with pytest.raises(FloatingPointError, match="weights of step 15") as caught:
        fit(flow, torch.randn(100, 2) + 3, steps=50, eval_every=5, lr=0.01, validation=0)
    assert len(caught.value.history.train) == 19
    assert not torch.equal(flow.state_dict()["bijection.loc"], start["bijection.loc"])
    assert torch.isfinite(flow.bijection.loc).all()


def test_a_gradient_that_is_not_finite_never_touches_the_weights():
    class Infinite(ElementwiseAffine):
        def forward(self, x, context=None):
            z, log_det = super().forward(x, context)
            return z, log_det + 0 * (self.loc[0] - self.loc[0].detach()).abs().sqrt()

    flow = Flow(Infinite(2), StandardNormal(2))
    with pytest.raises(FloatingPointError, match=r"gradient's norm is nan at step 1\b"):
        fit(flow, torch.randn(20, 2), steps=3)
    assert torch.equal(flow.bijection.loc, torch.zeros(2))


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
        (torch.zeros(1, 2), "2 rows or more to train on, got 0, and 1 to validate"),
        (torch.tensor([[0, 0], [0, math.nan]]), r"got nan at data\[1, 1\]"),
    ],
)
def test_bad_data(data, message):
    with pytest.raises(ValueError, match=message):
        fit(linear_flow(2), data, steps=2)


@pytest.mark.parametrize(
    "argument",
    [
        {"steps": 0}, {"batch_size": 0}, {"lr": -1.0}, {"validation": 1.0}, {"eval_every": 0},
        {"patience": 0}, {"clip_norm": 0.0}, {"schedule": "linear"}, {"seed": -1}, {"steps": 2.5},
        {"eval_every": 2.5}, {"patience": 1.5}, {"lr": math.inf}, {"lr": "a"},
        {"validation": 0, "patience": 3},
    ],
)  # fmt: skip
def test_bad_arguments(argument):
    with pytest.raises(ValueError, match=next(iter(argument))):
        fit(linear_flow(2), torch.randn(20, 2), **argument)


def test_what_is_no_density_is_refused():
    with pytest.raises(TypeError, match="expected a Density such as a Flow, got a Linear"):
        fit(torch.nn.Linear(2, 2), torch.randn(9, 2))


def test_progress_bar_is_for_people(capfd, monkeypatch):
    """A log gets no bar unless it is asked for; a terminal and a notebook get one."""

    def shown(**options):
        fit(linear_flow(2), torch.randn(20, 2), steps=2, **options)
        return "fit" in capfd.readouterr().err

    monkeypatch.delenv("FLOWLIB_PROGRESS", raising=False)
    assert not shown()
    assert shown(progress=True)
    with monkeypatch.context() as patch:
        patch.setattr(sys.stderr, "isatty", lambda: True)
        assert shown()
        assert not shown(progress=False)
        patch.setenv("FLOWLIB_PROGRESS", "0")
        assert not shown()
    monkeypatch.setenv("FLOWLIB_PROGRESS", "1")
    assert shown()


def test_a_notebook_is_a_place_with_people(monkeypatch):
    shell = types.SimpleNamespace(config={"IPKernelApp": {}})
    monkeypatch.setitem(sys.modules, "IPython", types.SimpleNamespace(get_ipython=lambda: shell))
    assert training._is_watched()
    monkeypatch.setitem(sys.modules, "IPython", types.SimpleNamespace(get_ipython=lambda: None))
    assert training._is_watched() == sys.stderr.isatty()


def test_options_are_spelled_once_and_shown_where_they_are_taken():
    names = [f.name for f in dataclasses.fields(TrainingOptions)]
    for function in (fit, fit_variational):
        parameters = inspect.signature(function).parameters
        assert list(parameters)[-len(names) :] == names
        assert parameters["steps"].default == TrainingOptions().steps
        with pytest.raises(TypeError, match=r"among steps, .*, engine, got step$"):
            function(linear_flow(2), torch.zeros(9, 2), step=3)
    x = torch.randn(60, 2)
    options = TrainingOptions(steps=4, batch_size=16, eval_every=2, seed=3, progress=False)
    by_name = fit(linear_flow(2), x, steps=4, batch_size=16, eval_every=2, seed=3, progress=False)
    assert fit(linear_flow(2), x, **vars(options)) == by_name


def test_rows_are_digested_for_a_checkpoint_only(tmp_path, monkeypatch):
    digested = []
    digest = rows.digest
    monkeypatch.setattr(rows, "digest", lambda part: digested.append(part) or digest(part))
    fit(linear_flow(2), torch.randn(60, 2), steps=2)
    assert not digested
    fit(linear_flow(2), torch.randn(60, 2), steps=2, checkpoint=tmp_path / "run.pt")
    assert len(digested) == 1


# --- what can be trained on ---------------------------------------------------------------


def test_a_function_makes_the_batches():
    asked = []

    def batch(step):
        asked.append(step)
        return datasets.moons.sample(64, np.random.default_rng(step))

    flow = linear_flow(2)
    history = fit(flow, batch, steps=200, lr=0.05, validation=two_moons()[1], eval_every=100)
    assert asked[:2] == [1, 1]  # the first also starts what starts from data
    assert asked[2:] == list(range(2, 201))
    assert abs(history.valid[-1][1] - 3.29) < 0.1
    assert fit(linear_flow(2), batch, steps=3).valid == []
    with pytest.raises(ValueError, match="no share to hold out"):
        fit(flow, batch, steps=3, validation=0.1)
    with pytest.raises(ValueError, match=r"batch 1 of shape \(rows, 2\), got \(4, 3\)"):
        fit(flow, lambda step: torch.zeros(4, 3), steps=3)


class ShiftByContext(Bijection):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def forward(self, x, context=None):
        return x - self.weight * context, x.new_zeros(len(x))

    def inverse(self, z, context=None):
        return z + self.weight * context, z.new_zeros(len(z))


def test_pairs_of_data_and_context():
    context = torch.randn(500, 1)
    x = 2.5 * context + torch.randn(500, 1)
    flow = Flow(ShiftByContext(), StandardNormal(1), context_dim=1)
    fit(flow, (x, context), steps=400, lr=0.05)
    assert abs(flow.bijection.weight.item() - 2.5) < 0.15
    with pytest.raises(ValueError, match=r"the context of data of shape \(500, C\), got \(3, 1\)"):
        fit(flow, (x, context[:3]))


def test_reversed_and_read_only_arrays():
    x = np.random.default_rng(0).normal(size=(50, 2))
    x.setflags(write=False)
    fit(linear_flow(2), x[::-1], steps=2)


def test_a_flow_without_weights_is_refused():
    from flowlib import Sigmoid

    with pytest.raises(ValueError, match="no weights to train"):
        fit(Flow(Sigmoid(), StandardNormal(2)).requires_grad_(False), torch.randn(9, 2))


# --- how it is trained --------------------------------------------------------------------


def test_schedules_and_clipping():
    x = torch.randn(200, 2) * 5 + 3
    last = {}
    for schedule in ("cosine", "constant"):
        flow = linear_flow(2)
        before = [p.detach().clone() for p in flow.parameters()]
        fit(flow, x, steps=1, lr=0.1, schedule=schedule)
        moved = [(p - b).abs().max().item() for p, b in zip(flow.parameters(), before, strict=True)]
        assert max(moved) == pytest.approx(0.1, rel=1e-3)  # Adam's first step, at the full rate
        last[schedule] = fit(linear_flow(2), x, steps=60, lr=0.1, schedule=schedule).train[-1]
    assert last["cosine"] != last["constant"]
    rates = []
    step = torch.optim.Adam.step

    def watched(self, *args):
        rates.append(self.param_groups[0]["lr"])
        return step(self, *args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.optim.Adam, "step", watched)
        fit(linear_flow(2), x, steps=4, lr=0.1)
    assert rates == pytest.approx([0.1 * (1 + math.cos(math.pi * k / 4)) / 2 for k in range(4)])
    norms = []

    class Watched(ElementwiseAffine):
        pass

    flow = Flow(Watched(2), StandardNormal(2))
    flow.bijection.loc.register_post_accumulate_grad_hook(lambda p: norms.append(p.grad.norm()))
    fit(flow, x * 10, steps=5, clip_norm=1e-3)
    assert min(norms) > 1  # what arrives; the optimizer sees it shortened
    assert flow.bijection.loc.grad.norm() <= 1e-3 + 1e-6


def test_early_stopping():
    rng = np.random.default_rng(0)
    train, valid = (torch.as_tensor(rng.normal(size=(n, 5)), dtype=torch.float32) for n in (12, 64))
    history = fit(
        linear_flow(5), train, steps=4000, lr=0.05, validation=valid, eval_every=10, patience=3
    )
    assert history.stopped_early
    assert len(history.train) == history.best_step + 30


def test_the_callers_randomness_and_mode_are_left_alone():
    flow = linear_flow(2).eval()
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    fit(flow, torch.zeros(20, 2) + torch.arange(20.0)[:, None], steps=3)
    assert torch.equal(torch.rand(3), expected)
    assert not flow.training


def test_every_part_keeps_its_own_mode():
    flow = Flow(Compose([LULinear(2), ElementwiseAffine(2)]), StandardNormal(2)).train()
    flow.bijection[0].eval()
    fit(flow, torch.randn(20, 2), steps=2)
    assert [m.training for m in flow.bijection] == [False, True]


def test_on_a_cpu_no_other_devices_randomness_is_touched(monkeypatch):
    monkeypatch.setattr(torch.cuda, "manual_seed_all", lambda seed: pytest.fail("cuda was seeded"))
    fit(linear_flow(2), torch.randn(20, 2), steps=2, device="cpu")


def test_it_trains_where_the_caller_has_switched_gradients_off():
    flow = linear_flow(2)
    with torch.no_grad():
        fit(flow, torch.randn(50, 2) + 3, steps=5)
    assert flow.bijection.bias.abs().sum() > 0


def test_numbers_of_numpy_are_numbers(tmp_path):
    options = {
        "steps": np.array(4), "batch_size": np.int32(8), "lr": np.float64(0.01),
        "clip_norm": np.float32(1), "seed": np.int64(3), "eval_every": np.int64(2),
        "checkpoint": tmp_path / "run.pt",
    }  # fmt: skip
    x = torch.randn(40, 2)
    assert fit(linear_flow(2), x, **options) == fit(linear_flow(2), x, **options)


def test_what_goes_wrong_in_a_step_leaves_the_best_weights():
    def batch(step):
        if step == 30:
            raise RuntimeError("the data base is gone")
        return torch.randn(16, 2, generator=torch.Generator().manual_seed(step)) + 3

    flow, other = linear_flow(2), linear_flow(2)
    valid = torch.randn(20, 2) + 3
    with pytest.raises(RuntimeError, match="the data base is gone"):
        fit(flow, batch, steps=40, lr=0.1, eval_every=10, schedule="constant", validation=valid)
    fit(other, batch, steps=20, lr=0.1, eval_every=10, schedule="constant", validation=valid)
    assert torch.equal(flow.bijection.bias, other.bijection.bias)


def test_a_validation_loss_that_is_not_finite_is_an_error():
    valid = torch.randn(20, 2)
    valid[0] = 1e25
    with pytest.raises(FloatingPointError, match="the validation loss is inf at step 50"):
        fit(linear_flow(2), torch.randn(200, 2), steps=60, validation=valid)


def test_validation_has_a_context_where_data_has_one():
    flow = Flow(ShiftByContext(), StandardNormal(1), context_dim=1)
    x, context = torch.randn(50, 1), torch.randn(50, 1)
    with pytest.raises(ValueError, match=r"data is \(x, context\), validation \(x\)"):
        fit(flow, (x, context), validation=x)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA")
def test_on_cuda_the_flow_comes_home():
    flow = linear_flow(2)
    history = fit(flow, two_moons()[0], steps=300, lr=0.05)
    assert next(flow.parameters()).device.type == "cpu"
    assert abs(history.valid[-1][1] - 3.29) < 0.2


def test_on_another_device(monkeypatch):
    seen = []
    flow = linear_flow(2)
    original = flow.to
    monkeypatch.setattr(flow, "to", lambda d: seen.append(str(d)) or original(d), raising=False)
    fit(flow, torch.randn(20, 2), steps=2, device="cpu")
    assert seen == ["cpu", "cpu"]


@pytest.mark.parametrize("cuda", [True, False])
def test_the_device_that_is_taken_unasked(cuda, monkeypatch):
    """Never ``mps``: it has no float64, in which a residual block's norms are computed."""
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    assert str(training._device("auto")) == ("cuda" if cuda else "cpu")
    assert str(training._device("mps")) == "mps"


# --- reverse KL ---------------------------------------------------------------------------


def test_a_gaussian_is_found_from_its_density_and_the_bound_is_its_evidence():
    covariance = torch.tensor([[2.0, 0.9], [0.9, 0.7]])
    target = MultivariateNormal([1.0, -2.0], covariance)
    log_z = 3.7
    flow = linear_flow(2)
    history = fit_variational(flow, lambda x: target.log_prob(x) + log_z, steps=900, lr=0.05)
    assert history.best_step > 400
    assert abs(-history.valid[-1][1] - log_z) < 5e-3
    with torch.no_grad():
        x = target.sample(1000)
        assert (flow.log_prob(x) - target.log_prob(x)).abs().mean() < 0.1


@pytest.mark.parametrize(
    ("density", "message"),
    [
        (lambda x: x, r"of shape \(2000,\), got \(2000, 2\)"),
        (lambda x: 1.0, "got float"),
        (lambda x: torch.zeros(len(x)), "does not depend differentiably on x"),
    ],
)
def test_bad_densities(density, message):
    with pytest.raises(ValueError, match=message):
        fit_variational(linear_flow(2), density, steps=2)


def test_a_density_that_ends_somewhere():
    """-inf outside: reverse KL is infinite unless the flow draws inside alone."""

    def exponential(x):
        return torch.where((x > 0).all(1), -x.sum(1), -math.inf)

    with pytest.raises(FloatingPointError, match=r"\d+ of 2000 draws are where log_d"):
        fit_variational(linear_flow(2), exponential, steps=3)
    inside = Flow(Compose([Inverse(Softplus()), LULinear(2)]), StandardNormal(2))
    history = fit_variational(inside, exponential, steps=300, lr=0.05)
    assert abs(history.valid[-1][1]) < 0.05  # its integral is 1


def test_reverse_kl_wants_draws_with_a_gradient():
    with pytest.raises(TypeError, match=r"expected a Flow, .* got a BernoulliMADE"):
        fit_variational(BernoulliMADE(3), lambda x: x.sum(1))
    with pytest.raises(ValueError, match="expected a flow without a context, got one of 2"):
        fit_variational(RealNVP(2, context_dim=2), lambda x: x.sum(1))


def test_training_in_half_precision_with_and_without_a_checkpoint(tmp_path):
    for checkpoint in (None, tmp_path / "run.pt"):
        flow = RealNVP(2, n_layers=2, hidden=(8,)).bfloat16()
        history = fit(flow, torch.randn(200, 2), steps=10, checkpoint=checkpoint)
        assert len(history.train) == 10
        assert next(flow.parameters()).dtype == torch.bfloat16


def test_training_under_inference_mode():
    flow = RealNVP(2, n_layers=2, hidden=(8,))
    with torch.inference_mode():
        x = torch.randn(200, 2)
        assert len(fit(flow, (x)[:150], steps=5, validation=x[150:]).train) == 5
        fit_variational(flow, lambda x: -(x**2).sum(1), steps=2)
        made_inside = RealNVP(2)
    with pytest.raises(ValueError, match=r"made under torch\.inference_mode"):
        fit(made_inside, torch.randn(50, 2))


def test_a_density_that_explodes():
    calls = []

    def density(x):
        calls.append(len(x))
        return x.sum(1) * (math.nan if len(calls) > 11 else 1.0)

    flow = linear_flow(2)
    with pytest.raises(FloatingPointError, match=r"the loss is nan at step 9; .* of step 6\."):
        fit_variational(flow, density, steps=50, eval_every=3, lr=0.1)
    assert flow.bijection.bias.abs().min() > 0.1


# --- checkpoints --------------------------------------------------------------------------


def train_and_die(kind, path, dies_at, out):
    """A run that ends its process in the middle, as a power cut does, or goes to its end."""
    flow = Flow(Compose([LULinear(2), ElementwiseAffine(2)]), StandardNormal(2))
    options = {"steps": 60, "lr": 0.05, "eval_every": 10, "checkpoint": path, "progress": False}
    seen = []

    def die(*args):
        seen.append(1)
        if len(seen) == dies_at:
            os._exit(9)

    if kind == "fit":
        flow.register_forward_pre_hook(die)
        flow.bijection.register_forward_pre_hook(die)
        x = datasets.moons.sample(300, np.random.default_rng(0))
        history = fit(flow, x, batch_size=32, **options)
    else:

        def density(x):
            die()
            return -x.square().sum(1) - x[:, 0] * x[:, 1]

        history = fit_variational(flow, density, batch_size=16, validation=50, **options)
    losses = {"train": history.train, "valid": history.valid, "best": history.best_step}
    torch.save({"weights": flow.state_dict(), **losses}, out)


@pytest.mark.parametrize("kind", ["fit", "variational"])
def test_a_run_that_was_killed_and_resumed_ends_with_the_same_bits(tmp_path, kind):
    def run(path, dies_at, out):
        """In a process of its own, which ends with 0 if it goes well."""
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                train_and_die(kind, path, dies_at, tmp_path / out)
                code = 0
            finally:
                os._exit(code)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    assert run(None, 0, "whole") == 0
    assert run(tmp_path / "run.pt", 43, "killed") == 9
    assert (tmp_path / "run.pt").exists()
    assert not (tmp_path / "killed").exists()
    assert run(tmp_path / "run.pt", 0, "resumed") == 0
    whole, resumed = (torch.load(tmp_path / name) for name in ("whole", "resumed"))
    for name, weights in whole.pop("weights").items():
        assert torch.equal(weights, resumed["weights"][name]), name
    resumed.pop("weights")
    assert whole == resumed
    assert list(tmp_path.glob("*.new")) == []


def test_a_finished_run_is_not_run_again(tmp_path):
    x = torch.randn(60, 2)
    one, two = linear_flow(2), linear_flow(2)
    first = fit(one, x, steps=20, checkpoint=tmp_path / "run.pt")
    second = fit(two, x, steps=20, checkpoint=tmp_path / "run.pt")
    assert first == second
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))


def test_a_checkpoint_from_before_an_option_was_there_is_gone_on_with(tmp_path):
    path, x = tmp_path / "run.pt", torch.randn(60, 2)
    whole = fit(linear_flow(2), x, steps=20, checkpoint=path)
    state = torch.load(path, weights_only=True)
    for name in ("compile", "precision"):
        del state["settings"][name]
    torch.save(state, path)
    assert fit(linear_flow(2), x, steps=20, checkpoint=path) == whole
    del state["settings"]["lr"]
    state["settings"]["steps"] = 19
    torch.save(state, path)
    with pytest.raises(ValueError, match=r"of another run: steps was 19, is 20; lr was 0.001, is"):
        fit(linear_flow(2), x, steps=20, lr=0.5, checkpoint=path)


def test_a_checkpoint_of_another_run_is_refused(tmp_path):
    path = tmp_path / "run.pt"
    x = torch.randn(60, 2)
    fit(linear_flow(2), x, steps=20, checkpoint=path)
    with pytest.raises(ValueError, match=r"of another run: lr was 0\.001, is 0\.5"):
        fit(linear_flow(2), x, steps=20, lr=0.5, checkpoint=path)
    with pytest.raises(ValueError, match=r"of another run: .*weights was"):
        fit(linear_flow(3), torch.randn(60, 3), steps=20, checkpoint=path)
    with pytest.raises(ValueError, match=r"of another run: about was .*digest"):
        fit(linear_flow(2), torch.randn(60, 2), steps=20, checkpoint=path)
    frozen = linear_flow(2)
    frozen.bijection.bias.requires_grad_(False)
    with pytest.raises(ValueError, match=r"of another run: .*frozen"):
        fit(frozen, torch.randn(60, 2), steps=20, checkpoint=path)
    assert frozen.bijection.lower.item() == 0
    path.write_bytes(b"nonsense")
    with pytest.raises(ValueError, match="is no checkpoint"):
        fit(linear_flow(2), torch.randn(60, 2), steps=20, checkpoint=path)


def test_where_nothing_can_be_written_nothing_is_trained(tmp_path):
    for path in (tmp_path / "no" / "run.pt", tmp_path):
        flow = linear_flow(2)
        with pytest.raises(OSError, match="fit: cannot write a checkpoint"):
            fit(flow, torch.randn(60, 2), steps=20, checkpoint=path)
        assert torch.equal(flow.bijection.bias, torch.zeros(2))


def test_a_disk_that_fills_up_in_the_middle_does_not_end_the_run(tmp_path, monkeypatch):
    folder = tmp_path / "folder"
    folder.mkdir()

    def batch(step):
        if step == 30:
            for file in folder.iterdir():
                file.unlink()
            folder.rmdir()
        return torch.randn(16, 2, generator=torch.Generator().manual_seed(step))

    with pytest.warns(UserWarning, match="no checkpoint at step 40, training goes on"):
        history = fit(linear_flow(2), batch, steps=40, eval_every=20, checkpoint=folder / "run.pt")
    assert len(history.train) == 40


def test_ctrl_c_leaves_a_whole_checkpoint(tmp_path):
    path = tmp_path / "run.pt"
    x = torch.randn(100, 2) + 3
    whole = linear_flow(2)
    expected = fit(whole, x, steps=50, eval_every=5, lr=0.01)
    flow = Flow(Explodes(2, KeyboardInterrupt()), StandardNormal(2))
    options = {"steps": 50, "eval_every": 5, "lr": 0.01}
    broken = fit(flow, x, checkpoint=path, **options)
    assert broken.interrupted
    assert len(broken.train) == 19
    again = Flow(ElementwiseAffine(2), StandardNormal(2))
    resumed = fit(again, x, checkpoint=path, **options)
    assert not resumed.interrupted
    straight = Flow(ElementwiseAffine(2), StandardNormal(2))
    assert resumed == fit(straight, x, **options)
    assert torch.equal(again.bijection.loc, straight.bijection.loc)
    assert len(expected.train) == len(resumed.train)


def test_a_resumed_run_without_validation_knows_its_best_stretch(tmp_path):
    """A NaN after the resumption goes back to where it would have gone without it."""

    def best_step(stop):
        def batch(step):
            if step == stop:
                raise KeyboardInterrupt
            made = torch.randn(16, 2, generator=torch.Generator().manual_seed(step)) + 3
            return made * (1e30 if step == 45 else 1)

        try:
            fit(
                linear_flow(2), batch, steps=60, lr=0.05, eval_every=10, schedule="constant",
                checkpoint=tmp_path / "run.pt",
            )  # fmt: skip
        except FloatingPointError as error:
            return error.history.best_step

    assert best_step(35) is None
    resumed = best_step(None)
    (tmp_path / "run.pt").unlink()
    assert resumed == best_step(None) == 40


def test_a_history_plots_itself():
    history = fit(linear_flow(2), torch.randn(100, 2), steps=60, eval_every=10)
    ax = history.plot()
    labels = [text.get_text() for text in ax.get_legend().get_texts()]
    assert labels == ["training", "validation"]
    assert ax.lines[2].get_xdata().tolist() == [0, 10, 20, 30, 40, 50, 60]
    with pytest.raises(ValueError, match="no step was taken"):
        History().plot()
