"""check_flow on other people's flows: nothing is said against right ones, and wrong ones are found.

The libraries lie in a folder of their own, `make .venv/peers/.ready`, and are on the path only in
these tests: check_flow knows their flows by the modules of their classes, and imports none.
"""

import os
import subprocess
import sys

import pytest
import torch
from torch.distributions import (
    AffineTransform,
    ComposeTransform,
    ExpTransform,
    Independent,
    Normal,
    SigmoidTransform,
    StickBreakingTransform,
    TanhTransform,
    TransformedDistribution,
)

from flowlib import check_flow
from tools.notebooks import ROOT

OVERLAY = ROOT / ".venv" / "peers"
DIMS = (2, 16)
HIDDEN = (16, 16)
STEPS = 60


@pytest.fixture
def libraries(monkeypatch):
    if not (OVERLAY / ".ready").exists():
        message = "no overlay of zuko, nflows and normflows: make .venv/peers/.ready"
        if os.environ.get("FLOWLIB_REQUIRE_BROWSER") == "1":  # .ci/run allows no skip
            pytest.fail(message)
        pytest.skip(message)
    monkeypatch.syspath_prepend(str(OVERLAY))
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))


def data(dim, n=300):
    """Columns that depend on each other, and a context that moves the first of them."""
    generator = torch.Generator().manual_seed(0)
    x, context = (torch.randn(n, k, generator=generator) for k in (dim, 2))
    x[:, 1::2] = 0.5 * x[:, 1::2] + x[:, ::2].sin()
    return x + 0.5 * context[:, :1], context


# --- right ones -----------------------------------------------------------------------------------


def of_zuko(name, dim, context=0):
    import zuko

    return getattr(zuko.flows, name)(dim, context, transforms=3, hidden_features=HIDDEN)


def peer(name, dim):
    """As the benchmarks build them."""
    import peers

    return getattr(peers, name)(dim, 3, HIDDEN).flow


def nflows_splines(dim):
    from nflows.distributions.normal import StandardNormal
    from nflows.flows.base import Flow
    from nflows.transforms.autoregressive import (
        MaskedPiecewiseRationalQuadraticAutoregressiveTransform as Splines,
    )
    from nflows.transforms.base import CompositeTransform
    from nflows.transforms.lu import LULinear
    from nflows.transforms.normalization import ActNorm

    steps = [ActNorm(dim), LULinear(dim, identity_init=False)]
    steps += [Splines(dim, 16, num_blocks=1, tails="linear", tail_bound=4.0)]
    return Flow(CompositeTransform(steps), StandardNormal([dim]))


def nflows_conditional(dim):
    from nflows.distributions.normal import StandardNormal
    from nflows.flows.base import Flow
    from nflows.transforms.autoregressive import MaskedAffineAutoregressiveTransform as Affine
    from nflows.transforms.base import CompositeTransform
    from nflows.transforms.permutations import ReversePermutation

    steps = [Affine(dim, 16, context_features=2), ReversePermutation(dim)]
    return Flow(CompositeTransform([*steps, Affine(dim, 16, context_features=2)]),
                StandardNormal([dim]))  # fmt: skip


def normflows_splines(dim):
    import normflows as nf

    flows = [nf.flows.AutoregressiveRationalQuadraticSpline(dim, 1, 16) for _ in range(2)]
    flows.insert(1, nf.flows.LULinearPermute(dim))
    return nf.NormalizingFlow(nf.distributions.DiagGaussian(dim), flows)


def normflows_residual(dim):
    """Of an exact determinant in two dimensions, of roulette in more."""
    import normflows as nf

    flows = []
    for _ in range(2):
        net = nf.nets.LipschitzMLP([dim, 16, 16, dim], lipschitz_const=0.9)
        exact = {"brute_force": True} if dim == 2 else {}
        flows += [nf.flows.Residual(net, reduce_memory=False, **exact), nf.flows.ActNorm((dim,))]
    return nf.NormalizingFlow(nf.distributions.DiagGaussian(dim, trainable=False), flows)


RIGHT = {
    "zuko NSF": lambda dim: of_zuko("NSF", dim),
    "zuko MAF": lambda dim: of_zuko("MAF", dim),
    "zuko RealNVP": lambda dim: of_zuko("RealNVP", dim),
    "zuko MAF, context": lambda dim: of_zuko("MAF", dim, 2),
    "nflows RealNVP": lambda dim: peer("Nflows", dim),
    "nflows MAF": lambda dim: peer("NflowsMAF", dim),
    "nflows MAF, context": nflows_conditional,
    "nflows splines": nflows_splines,
    "normflows RealNVP": lambda dim: peer("Normflows", dim),
    "normflows MAF": lambda dim: peer("NormflowsMAF", dim),
    "normflows splines": normflows_splines,
    "normflows Residual": normflows_residual,
}


def log_prob(flow, x, context):
    if type(flow).__module__.startswith("zuko"):
        return flow(context).log_prob(x)
    return flow.log_prob(x) if context is None else flow.log_prob(x, context)


def trained(flow, x, context):
    optimizer = torch.optim.Adam(flow.parameters(), lr=3e-3)
    for _ in range(STEPS):
        optimizer.zero_grad()
        (-log_prob(flow, x, context).mean()).backward()
        optimizer.step()
        if "Lipschitz" in str(flow):
            import normflows as nf

            nf.utils.update_lipschitz(flow, 5)
    return flow


@pytest.mark.usefixtures("libraries")
@pytest.mark.parametrize("dim", DIMS)
@pytest.mark.parametrize("name", RIGHT)
def test_no_false_alarm_on_flows_of_other_libraries(name, dim):
    flow = RIGHT[name](dim)
    x, context = data(dim)
    context = context if name.endswith("context") else None
    assert_right(check_flow(flow, x, context), name)
    assert_right(check_flow(trained(flow, x, context), x, context), name)


def assert_right(report, name):
    wrong = {finding.line for finding in report.wrong}
    if name == "normflows Residual":
        # its inverse stops on its step, squared: data come back off by up to 0.006
        assert wrong <= {"round trip"}, report
        assert 19 in report["round trip"].mistakes or not wrong
        return
    assert not wrong, report
    assert report["log-determinant"].verdict == report["round trip"].verdict == "ok"
    assert report["draws"].verdict == "ok"


def pushed_forward(dim, *parts):
    base = Independent(Normal(torch.zeros(dim), torch.ones(dim)), 1)
    return TransformedDistribution(base, list(parts))


@pytest.mark.parametrize("dim", DIMS)
def test_no_false_alarm_on_distributions_of_torch(dim):
    scales = torch.linspace(0.5, 2.0, dim)
    for flow in (
        pushed_forward(dim, AffineTransform(torch.arange(dim) * 1.0, scales)),
        pushed_forward(dim, AffineTransform(0.5, 0.7), ExpTransform()),
        pushed_forward(dim, ComposeTransform([AffineTransform(0.0, 0.5), SigmoidTransform()])),
    ):
        report = check_flow(flow, flow.sample((300,)))
        assert report.ok, report
        assert report["log-determinant"].verdict == "ok"


def test_a_map_between_different_numbers_of_coordinates_has_no_jacobian_to_compare():
    flow = pushed_forward(3, StickBreakingTransform())
    report = check_flow(flow, flow.sample((300,)))
    assert report.ok, report
    assert "not square" in report["log-determinant"].measured


# --- wrong ones -----------------------------------------------------------------------------------


def zuko_wrong(dim, monkeypatch):
    """|s| for s, in every affine map."""
    import zuko

    part = zuko.transforms.MonotonicAffineTransform
    right = part.log_abs_det_jacobian
    monkeypatch.setattr(part, "log_abs_det_jacobian", lambda *given: right(*given).abs())
    return of_zuko("MAF", dim)


def nflows_wrong(dim, monkeypatch):
    """A layer whose log-determinant is left out."""
    from nflows.flows.base import Flow
    from nflows.transforms.base import CompositeTransform, Transform

    class Doubled(Transform):
        def forward(self, x, context=None):
            return 2 * x, x.new_zeros(len(x))

        def inverse(self, z, context=None):
            return z / 2, z.new_zeros(len(z))

    flow = peer("NflowsMAF", dim)
    return Flow(CompositeTransform([Doubled(), flow._transform]), flow._distribution)


def normflows_wrong(dim, monkeypatch):
    """The sign of the other direction."""
    import normflows as nf

    class Turned(nf.flows.AffineCouplingBlock):
        def inverse(self, x):
            z, log_det = super().inverse(x)
            return z, -log_det

    half = dim // 2
    net = nf.nets.MLP([dim - half, 16, 2 * half])
    return nf.NormalizingFlow(nf.distributions.DiagGaussian(dim), [Turned(net)])


@pytest.mark.usefixtures("libraries")
@pytest.mark.parametrize("dim", DIMS)
@pytest.mark.parametrize("make", [zuko_wrong, nflows_wrong, normflows_wrong])
def test_a_wrong_log_determinant_of_other_libraries_is_found(make, dim, monkeypatch):
    found = check_flow(make(dim, monkeypatch), data(dim)[0])["log-determinant"]
    assert found.verdict == "wrong"
    assert {6, 11} & set(found.mistakes)


@pytest.mark.parametrize("dim", DIMS)
def test_a_wrong_log_determinant_of_a_distribution_is_found(dim):
    class Forgot(TanhTransform):
        def log_abs_det_jacobian(self, x, y):
            return 0 * x

    flow = pushed_forward(dim, AffineTransform(0.0, 0.5), Forgot())
    assert check_flow(flow, flow.sample((300,)))["log-determinant"].verdict == "wrong"


@pytest.mark.usefixtures("libraries")
def test_a_flow_without_an_inverse_is_tried_one_way():
    """nflows has an error of its own for that."""
    from nflows.distributions.normal import StandardNormal
    from nflows.flows.base import Flow
    from nflows.transforms.base import Transform

    class OneWay(Transform):
        def forward(self, x, context=None):
            return x.sinh(), x.cosh().log().sum(1)

    report = check_flow(Flow(OneWay(), StandardNormal([2])), data(2)[0])
    assert report.ok, report
    assert report["log-determinant"].verdict == "ok"
    assert report["round trip"].verdict == "not tried"


# --- in Pyro --------------------------------------------------------------------------------------

IN_PYRO = """
import math, sys
sys.path.insert(0, sys.argv[1])
import pyro, torch
from pyro.distributions import Normal
from pyro.distributions.torch_distribution import TorchDistributionMixin
from pyro.infer import SVI, Trace_ELBO
from flowlib import Flow, FlowDistribution, LULinear, RealNVP, StandardNormal

class PyroFlow(FlowDistribution, TorchDistributionMixin):
    pass

torch.manual_seed(0)
prior = RealNVP(2, 2, (8,))  # fresh, it is a standard normal
guided = Flow(LULinear(2), StandardNormal(2))
y = torch.tensor([1.0, -1.0])

def model():
    with pyro.plate("copies", 64):
        x = pyro.sample("x", PyroFlow(prior))
        pyro.sample("y", Normal(x, 0.5).to_event(1), obs=y.expand(64, 2))

def guide():
    pyro.module("guided", guided)
    with pyro.plate("copies", 64):
        pyro.sample("x", PyroFlow(guided))

svi = SVI(model, guide, pyro.optim.ClippedAdam({"lr": 0.05, "lrd": 0.985}), Trace_ELBO())
for _ in range(400):
    loss = svi.step() / 64
evidence = torch.distributions.Normal(0.0, math.sqrt(1.25)).log_prob(y).sum().item()
mean = guided.sample(5000).mean(0)
print(loss + evidence, *(mean - y / 1.25).tolist())
"""


def test_a_flow_is_a_prior_and_a_guide_in_pyro(libraries, tmp_path):
    """In a process of its own, since Pyro changes the distributions of PyTorch."""
    script = tmp_path / "in_pyro.py"
    script.write_text(IN_PYRO)
    command = [sys.executable, str(script), str(OVERLAY)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=ROOT)
    assert ran.returncode == 0, ran.stderr
    too_much, *off = map(float, ran.stdout.split())
    assert abs(too_much) < 0.03
    assert max(map(abs, off)) < 0.05
