"""Distributions of PyTorch's as bases."""

import copy
import math
import pickle

import pytest
import torch
from torch import distributions as D

from flowlib import (
    DistributionBase,
    ElementwiseAffine,
    Flow,
    GaussianMixture,
    Inverse,
    Logit,
    LULinear,
    RealNVP,
    fit,
)

ZEROS, ONES = torch.zeros(2), torch.ones(2)
BASES = {
    "normal": lambda: D.Independent(D.Normal(ZEROS, ONES), 1),
    "multivariate": lambda: D.MultivariateNormal(ZEROS, torch.tensor([[2.0, 0.5], [0.5, 1.0]])),
    "low rank": lambda: D.LowRankMultivariateNormal(ZEROS, torch.ones(2, 1), ONES),
    "mixture": lambda: D.MixtureSameFamily(
        D.Categorical(torch.tensor([0.2, 0.3, 0.5])),
        D.Independent(D.Normal(torch.tensor([[-4.0, 0], [0, 4], [4, 0]]), torch.ones(3, 2)), 1),
    ),
    "student": lambda: D.Independent(D.StudentT(3 * ONES, ZEROS, ONES), 1),
    "uniform": lambda: D.Independent(D.Uniform(ZEROS, ONES), 1),
    "beta": lambda: D.Independent(D.Beta(2 * ONES, 3 * ONES), 1),
    "transformed": lambda: D.TransformedDistribution(
        D.Independent(D.Normal(ZEROS, ONES), 1), [D.AffineTransform(ONES, 2 * ONES, event_dim=1)]
    ),
}


@pytest.fixture(params=BASES)
def distribution(request):
    return BASES[request.param]()


def drawn(base, n=7):
    return base.sample(n, torch.Generator().manual_seed(0))


def test_it_says_what_the_distribution_says(distribution):
    base = DistributionBase(distribution)
    z = drawn(base, (4, 5))
    assert z.shape == (4, 5, 2)
    assert torch.allclose(base.log_prob(z), distribution.log_prob(z))


def test_draws_have_its_moments_and_follow_a_generator(distribution):
    base = DistributionBase(distribution)
    state = torch.get_rng_state()
    z = drawn(base, 20_000)
    assert torch.equal(drawn(base, 20_000), z)
    assert torch.equal(torch.get_rng_state(), state)
    transformed = isinstance(distribution, D.TransformedDistribution)
    mean = ONES if transformed else distribution.mean
    error = (z.mean(0) - mean) / (z.std(0) / math.sqrt(20_000))
    assert error.abs().max() < 4.5


def test_outside_of_the_support_the_density_is_0():
    base = DistributionBase(BASES["uniform"]())
    z = torch.tensor([[0.5, 0.5], [0.5, 1.5]], requires_grad=True)
    log_p = base.log_prob(z)
    assert log_p.tolist() == [0.0, -math.inf]
    beta = DistributionBase(BASES["beta"]())
    inside = beta.log_prob(z)
    inside[0].backward()
    assert torch.isfinite(z.grad).all()
    assert inside[1] == -math.inf


def test_its_tensors_move_and_are_saved_with_the_flow(distribution):
    flow = Flow(LULinear(2), distribution)
    x = torch.full((3, 2), 0.4)
    expected = flow.log_prob(x)
    flow.double()
    assert flow.sample(4).dtype == torch.float64
    assert torch.allclose(flow.log_prob(x.double()).float(), expected, atol=1e-5)
    for again in (copy.deepcopy(flow), pickle.loads(pickle.dumps(flow))):
        assert torch.equal(again.log_prob(x.double()), flow.log_prob(x.double()))
    other = Flow(LULinear(2), distribution)
    state = {name: value * 1.0 for name, value in flow.state_dict().items()}
    other.double().load_state_dict(state)
    assert torch.equal(other.log_prob(x.double()), flow.log_prob(x.double()))


def test_a_saved_base_is_that_of_the_flow():
    one = Flow(LULinear(2), D.Independent(D.Normal(ONES, 2 * ONES), 1))
    other = Flow(LULinear(2), BASES["normal"]())
    other.load_state_dict(one.state_dict())
    x = torch.randn(5, 2)
    assert torch.equal(one.log_prob(x), other.log_prob(x))


def test_flows_on_it_work_as_on_others(distribution):
    flow = Flow(LULinear(2), distribution).double()
    x = drawn(flow.base).double()
    assert torch.allclose(torch.vmap(flow.log_prob)(x), flow.log_prob(x))
    draws, log_p = flow.rsample_and_log_prob(6)
    assert torch.allclose(flow.log_prob(draws), log_p)


def test_a_mixture_is_trained_on():
    """Three bumps, moved: what the base has, the flow need not learn."""
    x = drawn(DistributionBase(BASES["mixture"]()), 3000) * 2 + 5
    flow = Flow(ElementwiseAffine(2), BASES["mixture"]())
    history = fit(flow, x, steps=600, lr=0.05)
    entropy = -BASES["mixture"]().log_prob((x - 5) / 2).mean().item() + 2 * math.log(2)
    assert abs(history.valid[-1][1] - entropy) < 0.15


def test_a_flow_onto_the_unit_square():
    flow = Flow(Inverse(Logit()), BASES["uniform"]())
    x = torch.randn(100, 2)
    logistic = torch.nn.functional.logsigmoid
    assert torch.allclose(flow.log_prob(x), (logistic(x) + logistic(-x)).sum(1), atol=1e-5)


@pytest.mark.parametrize(
    ("base", "message"),
    [
        (D.Normal(ZEROS, ONES), r"a batch \(2,\) of Normal; .*Independent\(..., 1\)"),
        (D.Normal(0.0, 1.0), "of vectors, got Normal of single numbers"),
        (D.Independent(D.Poisson(ONES), 1), "expected a density, got Independent, .* discrete"),
        (
            D.Independent(D.Normal(ZEROS, torch.ones(2, requires_grad=True)), 1),
            "Independent that stays as it is, got one with a gradient; a map before the base",
        ),
    ],
)
def test_what_is_no_base_is_refused(base, message):
    with pytest.raises(ValueError, match=message):
        Flow(RealNVP(2).bijection, base)
    with pytest.raises(TypeError, match="expected a torch Distribution, got a int"):
        DistributionBase(3)


# --- a mixture that is trained --------------------------------------------------------------


def mixture(dim=2, count=3):
    base = GaussianMixture(dim, count, generator=torch.Generator().manual_seed(0)).double()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in base.parameters():
            parameter.normal_(generator=generator)
    exact = D.MixtureSameFamily(
        D.Categorical(logits=base.logits.detach()),
        D.Independent(D.Normal(base.loc.detach(), base.log_scale.detach().exp()), 1),
    )
    return base, exact


@pytest.mark.parametrize("dim", [1, 2, 5])
def test_a_mixture_is_that_of_its_weights_means_and_scales(dim):
    base, exact = mixture(dim)
    z = 3 * torch.randn(4, 6, dim, dtype=torch.float64)
    torch.testing.assert_close(base.log_prob(z), exact.log_prob(z), rtol=1e-12, atol=1e-12)


def test_draws_of_a_mixture_are_its_own():
    base, exact = mixture()
    state = torch.get_rng_state()
    z = drawn(base, (100, 400))
    assert torch.equal(torch.get_rng_state(), state)
    assert z.shape == (100, 400, 2)
    assert base.sample().shape == (2,)
    assert base.sample((0, 3)).shape == (0, 3, 2)
    with pytest.raises(ValueError, match="GaussianMixture: expected z of shape"):
        base.log_prob(z[..., :1])  # broadcasting would make some number of it
    rows = z.reshape(-1, 2)
    for power in (1, 2, 3):
        error = rows.pow(power) - exact.sample((200_000,)).pow(power).mean(0)
        assert (
            error.mean(0) / (error.std(0) * math.sqrt(1 / 40_000 + 1 / 200_000))
        ).abs().max() < 5
    neighbours = torch.stack([rows[:-1, 0], rows[1:, 0]])
    assert torch.corrcoef(neighbours)[0, 1].abs() < 0.03  # each chooses for itself


def test_a_mixture_starts_with_the_spread_of_a_standard_normal():
    base = GaussianMixture(3, 500)
    z = base.sample(20_000)
    assert z.mean(0).abs().max() < 0.2
    assert (z.std(0) - 1).abs().max() < 0.1


def test_a_mixture_is_trained_with_its_flow():
    x = drawn(DistributionBase(BASES["mixture"]()), 3000)
    torch.manual_seed(0)
    base = GaussianMixture(2, 3)
    flow = Flow(ElementwiseAffine(2), base)
    before = {name: value.clone() for name, value in base.state_dict().items()}
    history = fit(flow, x, steps=800, lr=0.03)
    entropy = -BASES["mixture"]().log_prob(x).mean().item()
    assert abs(history.valid[-1][1] - entropy) < 0.1
    assert all(not torch.equal(before[name], now) for name, now in base.state_dict().items())


def test_draws_that_are_not_differentiable_in_the_base_are_not_said_to_be():
    flow = Flow(ElementwiseAffine(2), GaussianMixture(2))
    with pytest.raises(ValueError, match="got a GaussianMixture that is trained"):
        flow.rsample_and_log_prob(5)
    with torch.no_grad():
        x, log_p = flow.rsample_and_log_prob(5)
        torch.testing.assert_close(log_p, flow.log_prob(x))
    flow.base.requires_grad_(False)
    flow.rsample_and_log_prob(5)[1].sum().backward()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (((2, 3), 4), r"expected a vector, got event_shape=\(2, 3\)"),
        ((2, 0), "n_components"),
        ((0, 2), "event_shape"),
    ],
)
def test_what_is_no_mixture_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        GaussianMixture(*arguments)
