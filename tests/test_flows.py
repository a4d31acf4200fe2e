"""One list that every whole flow of the library passes, as test_bijections.py is for its maps.

To enter a new one, add a line to FLOWS. Weights are drawn at random, and the truth is autodiff's
Jacobian in float64 and the base.
"""

import copy
import io
import math
import pickle

import pytest
import torch

import flowlib
from flowlib import (
    IAF,
    MAF,
    NICE,
    Compose,
    Density,
    DiagonalNormal,
    Flatten,
    Flow,
    GaussianMixture,
    ImageRealNVP,
    Inverse,
    IResNet,
    LeakyReLU,
    Logit,
    LULinear,
    RealNVP,
    ResidualFlow,
    RussianRoulette,
    Spline,
    StandardNormal,
    fit,
)
from tests.models import autodiff_log_det, randomize


def _vectors_of_pictures():
    layers = [Logit(0.05), Flatten((1, 2, 2)), *RealNVP(4, 2, (4,)).bijection]
    return Flow(Compose(layers), StandardNormal(4), (1, 2, 2))


FLOWS = {
    "Flow of linear maps": lambda: Flow(
        Compose([LULinear(3), LeakyReLU(), Inverse(LULinear(3))]),
        DiagonalNormal([0.0, 1.0, -1.0], [1.0, 2.0, 0.5]),
    ),
    "Flow on pictures": _vectors_of_pictures,
    "NICE(2)": lambda: NICE(2, hidden=(8,)),
    "NICE(5), context": lambda: NICE(5, hidden=(8,), context_dim=3),
    "RealNVP(2)": lambda: RealNVP(2, hidden=(8,)),
    "RealNVP(5), context": lambda: RealNVP(5, 3, (8, 8), context_dim=3),
    "MAF(2)": lambda: MAF(2, hidden=(8,)),
    "MAF(5), context": lambda: MAF(5, 3, (8, 8), context_dim=3),
    "MAF(3), mixture": lambda: MAF(3, 2, (8,), base=GaussianMixture(3, 4)),
    "RealNVP(5), splines": lambda: RealNVP(5, 2, (8,), transformer=Spline),
    "MAF(3), splines": lambda: MAF(3, 2, (8,), transformer=Spline),
    "IAF(4), context": lambda: IAF(4, 2, (8,), context_dim=2),
    "IResNet(2)": lambda: IResNet(2, 2, 8, lipschitz=0.6),
    "IResNet(5)": lambda: IResNet(5, 3, (8, 8), lipschitz=0.6),
    "IResNet(1,3,3)": lambda: IResNet((1, 3, 3), 2, 4, lipschitz=0.6),
    "ResidualFlow(2)": lambda: ResidualFlow(2, 2, 8, lipschitz=0.6),
    "ResidualFlow(5)": lambda: ResidualFlow(5, 2, (8, 8), lipschitz=0.6),
    "ImageRealNVP(1,4,4)": lambda: ImageRealNVP((1, 4, 4), 2, 3),
    "ImageRealNVP(2,4,4), context": lambda: ImageRealNVP((2, 4, 4), 1, 3, context_dim=2),
}


@pytest.fixture(params=FLOWS, ids=str)
def flow(request):
    return randomize(FLOWS[request.param]()).double()


def points(flow, n):
    """Data that the flow takes, and a context if it needs one."""
    x = torch.randn(n, *flow.event_shape, dtype=torch.float64)
    x = x if flow.bijection.domain is None else x.sigmoid()
    context = torch.randn(n, flow.context_dim, dtype=torch.float64) if flow.context_dim else None
    return x, context


def test_every_flow_of_the_library_is_in_the_list():
    public = (getattr(flowlib, name) for name in flowlib.__all__)
    flows = {c for c in public if isinstance(c, type) and issubclass(c, Flow)}
    assert {type(make()) for make in FLOWS.values()} == flows


@pytest.mark.parametrize("name", FLOWS)
def test_made_on_meta_and_filled_later(name):
    """As large models are: no weight is drawn that a file will replace."""
    flow = randomize(FLOWS[name]())
    with torch.device("meta"):
        empty = FLOWS[name]()
    filled = empty.to_empty(device="cpu")
    filled.load_state_dict(flow.state_dict())
    filled.eval()
    x, context = (None if part is None else part.float() for part in points(flow, 4))
    assert torch.equal(filled.log_prob(x, context), flow.log_prob(x, context))
    given = None if context is None else context[0]
    first, second = (f.sample(3, given, torch.Generator().manual_seed(0)) for f in (filled, flow))
    assert torch.equal(first, second)


def test_a_flow_called_as_a_module_is_its_log_prob(flow):
    x, context = points(flow, 5)
    assert torch.equal(flow(x, context), flow.log_prob(x, context))


def test_log_prob_is_the_base_and_autodiffs_log_det(flow):
    x, context = points(flow, 5)
    z, _ = flow.bijection(x, context)
    log_dets = [
        autodiff_log_det(
            lambda v, i=i: flow.bijection(v, None if context is None else context[i : i + 1]),
            x[i : i + 1],
        )
        for i in range(5)
    ]
    expected = flow.base.log_prob(z) + torch.cat(log_dets)
    torch.testing.assert_close(flow.log_prob(x, context), expected, rtol=0, atol=1e-10)


def test_a_rows_density_is_its_own_in_training_too(flow):
    if any(isinstance(part, RussianRoulette) for part in flow.modules()):
        pytest.skip("in training its log-determinants are random")
    x, context = points(flow.train(), 20)
    whole = flow.log_prob(x, context)
    part = flow.log_prob(x[:5], None if context is None else context[:5])
    torch.testing.assert_close(whole[:5], part)


def test_draws_have_the_density_that_is_claimed_and_carry_its_gradient(flow):
    _, context = points(flow, 4)
    flow.base.requires_grad_(getattr(flow.base, "has_rsample", True))
    x, log_p = flow.rsample_and_log_prob(3, context)
    torch.testing.assert_close(flow.log_prob(x, context), log_p, rtol=0, atol=1e-9)
    (x.square().sum() + log_p.sum()).backward()
    for name, p in flow.bijection.named_parameters():
        assert p.grad is not None, name
        assert p.grad.abs().sum() > 0, name


def test_the_likelihoods_gradient_reaches_every_parameter(flow):
    flow.log_prob(*points(flow, 6)).sum().backward()
    for name, p in flow.named_parameters():
        assert p.grad is not None, name
        assert p.grad.abs().sum() > 0, name


@pytest.mark.parametrize("lead", [(), (4,), (4, 3), (0,), (2, 0)])
def test_leading_shapes(flow, lead):
    _, context = points(flow, 1)
    context = None if context is None else context[0]
    x = flow.sample(lead, context)
    assert x.shape == (*lead, *flow.event_shape)
    assert not x.requires_grad
    assert flow.log_prob(x, context).shape == lead
    with torch.no_grad():
        again, log_p = flow.rsample_and_log_prob(lead, context)
    assert again.shape == x.shape
    assert log_p.shape == lead


def test_draws_are_repeatable(flow):
    _, context = points(flow, 2)
    one, two = (flow.sample(5, context, torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(one, two)
    assert not torch.equal(one, flow.sample(5, context, torch.Generator().manual_seed(4)))


def test_context_matters_and_is_asked_for(flow):
    x, context = points(flow, 4)
    if context is None:
        with pytest.raises(ValueError, match="takes no context"):
            flow.log_prob(x, torch.zeros(4, 1).double())
        with pytest.raises(ValueError, match="takes no context"):
            flow.sample(4, torch.zeros(4, 1).double())
        return
    size = flow.context_dim
    assert not torch.allclose(flow.log_prob(x, context), flow.log_prob(x, context + 1))
    for call in (lambda: flow.log_prob(x), lambda: flow.sample(3), lambda: flow.initialize(x)):
        with pytest.raises(ValueError, match=rf"a context of shape \(\.\.\., {size}\), got no"):
            call()
    with pytest.raises(ValueError, match=rf"context of shape \(\.\.\., {size}\), got \(4, 1\)"):
        flow.log_prob(x, context[:, :1])
    assert flow.sample((2, 3), context).shape == (2, 3, 4, *flow.event_shape)
    grid = flow.log_prob(x[:, None], context)
    assert grid.shape == (4, 4)
    torch.testing.assert_close(grid.diagonal(), flow.log_prob(x, context))


def test_save_copy_and_pickle(flow, request):
    x, context = points(flow, 4)
    expected = flow.log_prob(x, context)
    buffer = io.BytesIO()
    torch.save(flow.state_dict(), buffer)
    buffer.seek(0)
    fresh = FLOWS[request.node.callspec.params["flow"]]().double().eval()
    fresh.load_state_dict(torch.load(buffer))
    for twin in (fresh, copy.deepcopy(flow), pickle.loads(pickle.dumps(flow))):
        assert torch.equal(twin.log_prob(x, context), expected)


def test_functional_call_takes_another_flows_state(flow, request):
    x, context = points(flow, 4)
    torch.manual_seed(99)
    other = randomize(FLOWS[request.node.callspec.params["flow"]]()).double()

    class LogProb(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.flow = flow

        def forward(self, *arguments):
            return self.flow.log_prob(*arguments)

    state = {f"flow.{name}": value for name, value in other.state_dict().items()}
    got = torch.func.functional_call(LogProb(), state, (x, context))
    torch.testing.assert_close(got, other.log_prob(x, context))


@pytest.mark.parametrize("name", FLOWS)
def test_ten_steps_of_training(name):
    flow = FLOWS[name]()
    assert isinstance(flow, Density)
    x, context = points(flow, 60)
    before = copy.deepcopy(flow.state_dict())
    history = fit(flow, x if context is None else (x, context), steps=10, lr=1e-2, validation=0)
    assert len(history.train) == 10
    assert all(map(math.isfinite, history.train))
    moved = [n for n, p in flow.named_parameters() if not torch.equal(p, before[n])]
    assert len(moved) == len(list(flow.parameters()))
