"""`fit(..., compile=True)`: the same training, and the flow is what it was."""

import copy
import os
import pickle
import subprocess
import sys

import pytest
import torch
from torch.distributions import Distribution, Independent, Laplace

import flowlib
from flowlib import Affine, BernoulliMADE, Flow, LULinear, PowerSeries, fit, fit_variational
from flowlib.training import _are_validated

FLOWS = {
    "NICE": lambda: flowlib.NICE(2, 2, 8),
    "RealNVP": lambda: flowlib.RealNVP(2, 2, 8, context_dim=3),
    "MAF": lambda: flowlib.MAF(2, 1, 8),
    "IAF": lambda: flowlib.IAF(2, 1, 8),
    "IResNet": lambda: flowlib.IResNet(2, 1, 8),
    "ResidualFlow": lambda: flowlib.ResidualFlow(2, 1, 8),
    "by roulette": lambda: flowlib.ResidualFlow(5, 1, 8),
    "a base of PyTorch": lambda: Flow(
        LULinear(2), Independent(Laplace(torch.zeros(2).double(), torch.ones(2).double()), 1)
    ),
}


@pytest.fixture(autouse=True)
def _as_before():
    """What is compiled counts as compiled by that test alone, and distributions are strict."""
    were = _are_validated()
    Distribution.set_default_validate_args(True)
    yield
    Distribution.set_default_validate_args(were)
    torch.compiler.reset()


@pytest.fixture
def traced(monkeypatch):
    """PyTorch traces, and writes no machine code, which takes ten times as long."""
    asked, own = [], torch.compile

    def compiled(function, **options):
        asked.append(function)
        return own(function, backend="aot_eager")

    monkeypatch.setattr(torch, "compile", compiled)
    return asked


def by_probes():
    return flowlib.IResNet(4, 1, 4, log_det=lambda: PowerSeries(2, distribution="gaussian"))


def trained(make, **options):
    """A flow in float64, in which Adam makes no large steps of gradients that are rounding."""
    torch.manual_seed(0)
    flow = make().double()
    x = torch.randn(100, *flow.event_shape).double()
    context = torch.randn(100, flow.context_dim).double() if flow.context_dim else None
    options = {"steps": 4, "batch_size": 32, "lr": 0.01, "device": "cpu", **options}
    return flow, fit(flow, x, context=context, **options)


def require_same(one, other, off=1e-7):
    (flow, history), (twin, its) = one, other
    torch.testing.assert_close(history.train, its.train, rtol=0, atol=off)
    torch.testing.assert_close(history.valid, its.valid, rtol=0, atol=off)
    torch.testing.assert_close(flow.state_dict(), twin.state_dict(), rtol=0, atol=off)


@pytest.mark.parametrize("name", FLOWS)
def test_a_compiled_run_is_the_plain_run(name, traced):
    compiled = trained(FLOWS[name], compile=True, steps=2)
    assert traced.count(compiled[0].log_prob) == 1
    count = len(traced)
    require_same(compiled, trained(FLOWS[name], steps=2))
    assert len(traced) == count


def test_as_machine_code_too_and_the_flow_is_what_it_was():
    """Its random numbers are PyTorch's own, those of probes here."""
    plain, history = trained(by_probes)
    flow, its = trained(by_probes, compile=True)
    require_same((flow, its), (plain, history))
    assert [*flow.state_dict()] == [*plain.state_dict()]
    for ours, theirs in zip(flow.modules(), plain.modules(), strict=True):
        assert type(ours) is type(theirs)
        assert vars(ours).keys() == vars(theirs).keys()
    x = torch.randn(7, 4).double()
    flow.eval()
    for twin in (copy.deepcopy(flow), pickle.loads(pickle.dumps(flow))):
        assert torch.equal(twin.log_prob(x), flow.log_prob(x))


def test_only_the_loss_is_compiled(traced):
    """Looks at the validation part are Python still, and so is everything without the option."""
    ways = []

    class Watched(Affine):
        def forward(self, x, params, at=None):
            ways.append((torch.compiler.is_compiling(), torch.is_grad_enabled()))
            return super().forward(x, params, at)

    trained(lambda: flowlib.RealNVP(2, 2, 8, transformer=Watched), compile=True)
    assert (True, True) in ways  # traced in training
    assert (False, False) in ways  # and run in evaluation
    assert (True, False) not in ways
    ways.clear()
    trained(lambda: flowlib.RealNVP(2, 2, 8, transformer=Watched))
    assert not any(compiling for compiling, _ in ways)


def test_eager_by_default(monkeypatch):
    def refused(*args, **kwargs):
        raise AssertionError("nobody asked for it")

    monkeypatch.setattr(torch, "compile", refused)
    trained(FLOWS["RealNVP"])
    fit_variational(FLOWS["IAF"](), lambda x: -x.square().sum(1), steps=2)


def test_a_discrete_density(traced):
    x = (torch.rand(50, 6) < 0.3).float()
    losses = []
    for compile in (True, False):
        torch.manual_seed(0)
        losses.append(fit(BernoulliMADE(6, 8), x, steps=3, compile=compile, device="cpu").train)
    assert losses[0] == pytest.approx(losses[1], abs=1e-4)


@pytest.mark.parametrize("name", ["NICE", "IAF"])
def test_fit_variational(name, traced):
    found = []
    for compile in (True, False):
        torch.manual_seed(0)
        flow = FLOWS[name]().double()
        history = fit_variational(
            flow, lambda x: -(x - 1).square().sum(1), steps=4, lr=0.01, batch_size=32,
            compile=compile, device="cpu",
        )  # fmt: skip
        found.append((flow, history))
        assert traced.count(flow.rsample_and_log_prob) == compile
    require_same(*found)


def test_a_run_that_was_stopped_goes_on_and_only_as_it_was(tmp_path, traced):
    x, stops = torch.randn(5, 32, 4), []

    def rows(step):
        if step in stops:
            raise KeyboardInterrupt
        return x[step]

    def run(**options):
        torch.manual_seed(0)
        flow = by_probes()
        return flow, fit(flow, rows, validation=x[0], steps=4, eval_every=2, **options)

    whole = run(compile=True)
    path = tmp_path / "run.pt"
    stops.append(4)
    assert run(compile=True, checkpoint=path)[1].interrupted
    stops.clear()
    with pytest.raises(ValueError, match="compile was True, is False"):
        run(checkpoint=path)
    require_same(run(compile=True, checkpoint=path), whole, off=0)


def test_what_is_not_finite_stops_a_compiled_run(traced):
    """The layers cannot say so there; the loss does, and the best weights come back."""
    flow = FLOWS["NICE"]().double()
    x = torch.randn(100, 2).double()

    def spoilt(step):
        if step == 4:
            torch.nn.init.constant_(next(flow.parameters()), torch.nan)
        return x

    with pytest.raises(FloatingPointError, match="the loss is nan at step 4") as at:
        fit(flow, spoilt, validation=x, steps=6, eval_every=1, compile=True, device="cpu", lr=1e-3)
    assert len(at.value.history.train) == 3
    assert torch.isfinite(flow.log_prob(x)).all()


@pytest.mark.parametrize("strict", [True, False])
def test_distributions_look_at_what_they_get_as_before(strict, traced):
    """PyTorch would stop that in the whole process."""
    Distribution.set_default_validate_args(strict)
    seen = []

    def log_density(x):
        seen.append(_are_validated())
        return -x.square().sum(1)

    fit_variational(FLOWS["NICE"](), log_density, steps=2, compile=True, device="cpu")
    assert seen == [strict] * len(seen)
    with pytest.raises(ZeroDivisionError):
        fit_variational(FLOWS["NICE"](), lambda x: 1 / 0, validation=0, steps=2, compile=True)
    assert _are_validated() == strict


def test_the_flow_as_a_module_is_compiled_by_pytorchs_own_method():
    flow = FLOWS["RealNVP"]().double()
    x, context = torch.randn(7, 2).double(), torch.randn(7, 3).double()
    names, plain = [*flow.state_dict()], flow.log_prob(x, context)
    compiled = []

    def backend(graph, inputs):
        compiled.append(graph)
        return graph.forward

    flow.compile(backend=backend, fullgraph=True)
    flow.log_prob(x, context)
    assert not compiled
    torch.testing.assert_close(flow(x, context), plain)
    assert len(compiled) == 1
    assert [*flow.state_dict()] == names
    for twin in (copy.deepcopy(flow), pickle.loads(pickle.dumps(flow))):
        assert torch.equal(twin.log_prob(x, context), plain)


def test_only_yes_or_no():
    with pytest.raises(ValueError, match="expected compile True or False, got 'max-autotune'"):
        fit(FLOWS["NICE"](), torch.randn(9, 2), compile="max-autotune")


WITHOUT = """
import torch
from flowlib import RealNVP, fit
flow = RealNVP(2, 2, 8)
before = {name: value.clone() for name, value in flow.state_dict().items()}
flow.eval()
try:
    fit(flow, torch.randn(50, 2), steps=1, compile=True, device="cpu")
except RuntimeError as error:
    assert error.__cause__ is not None
    print(error)
assert not flow.training
assert all(torch.equal(value, before[name]) for name, value in flow.state_dict().items())
print("as it was")
"""


def test_a_missing_compiler_is_named_and_the_flow_is_as_it_was(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT], capture_output=True, text=True, timeout=120,
        env={**os.environ, "CXX": "/nowhere/to/be/found",
             "TORCHINDUCTOR_CACHE_DIR": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    said, state = done.stdout.strip().splitlines()
    assert said.startswith("fit: compile=True: torch.compile was tried on cpu and failed:")
    assert "/nowhere/to/be/found" in said
    assert "a C++ compiler such as g++" in said
    assert state == "as it was"
