"""`flow.as_distribution()` keeps the promises of `torch.distributions`."""

import math

import pytest
import torch
from torch.distributions import Distribution, Independent, MultivariateNormal, Normal, kl_divergence

from flowlib import (
    BernoulliMADE,
    Compose,
    DiagonalNormal,
    Flow,
    FlowDistribution,
    GaussianMixture,
    Inverse,
    Logit,
    LULinear,
    RealNVP,
    Softplus,
    StandardNormal,
)
from tests.models import randomize


@pytest.fixture(autouse=True)
def _looking():
    """Whatever was compiled before in this process: PyTorch then stops looking at values."""
    Distribution.set_default_validate_args(True)


@pytest.mark.parametrize("name", ["mean", "variance", "stddev", "mode", "entropy", "perplexity"])
def test_what_has_no_closed_form_says_what_estimates_it(name):
    p = RealNVP(2).as_distribution()
    with pytest.raises(NotImplementedError, match=r"has no closed form; .+ estimates it"):
        getattr(p, name)()  # a property raises before it is called


def a_linear_flow():
    """A normal density, of which all is known."""
    flow = randomize(Flow(LULinear(2), StandardNormal(2))).double()
    jacobian = torch.func.jacrev(lambda x: flow.bijection(x[None])[0][0])(torch.zeros(2).double())
    inverse = torch.linalg.inv(jacobian)
    loc = flow.bijection.inverse(torch.zeros(1, 2).double())[0][0].detach()
    return flow, MultivariateNormal(loc, inverse @ inverse.T)


@pytest.mark.parametrize("lead", [(), (3,), (4, 3)])
@pytest.mark.parametrize("shape", [(), (7,), (2, 5)])
@pytest.mark.parametrize("conditional", [False, True])
def test_shapes_are_those_of_pytorch(lead, shape, conditional):
    flow = RealNVP(2, context_dim=3) if conditional else RealNVP(2)
    p = FlowDistribution(flow, torch.randn(*lead, 3) if conditional else None)
    p = p if conditional else p.expand(lead)
    like = MultivariateNormal(torch.zeros(*lead, 2), torch.eye(2))
    assert p.batch_shape == like.batch_shape
    assert p.event_shape == like.event_shape
    x = p.sample(shape)
    assert x.shape == like.sample(shape).shape == p.rsample(shape).shape
    assert p.log_prob(x).shape == like.log_prob(x).shape
    one = torch.zeros(2)
    assert p.log_prob(one).shape == like.log_prob(one).shape
    with pytest.raises(ValueError, match="event"):
        p.log_prob(torch.zeros(3))


def test_the_density_is_the_normal_that_it_should_be():
    flow, truth = a_linear_flow()
    p = flow.as_distribution()
    x = p.sample((20000,))
    torch.testing.assert_close(p.log_prob(x), truth.log_prob(x))
    torch.testing.assert_close(x.mean(0), truth.mean, rtol=0, atol=0.05 * truth.stddev.max().item())
    spread = truth.covariance_matrix.diagonal().max().item()
    torch.testing.assert_close(x.T.cov(), truth.covariance_matrix, rtol=0, atol=0.06 * spread)


def test_the_divergence_by_its_draws_is_the_closed_form():
    flow, truth = a_linear_flow()
    other = MultivariateNormal(truth.mean + 0.5, 2 * truth.covariance_matrix)
    p = flow.as_distribution()
    x, log_p = p.rsample_and_log_prob((40000,))
    torch.testing.assert_close(log_p, p.log_prob(x))
    terms = (log_p - other.log_prob(x)).detach()
    error = terms.std().item() / math.sqrt(len(terms))
    assert abs(terms.mean().item() - kl_divergence(truth, other).item()) < 5 * error


def test_draws_carry_a_gradient_into_the_weights():
    flow = randomize(RealNVP(2, 2, (8,)))
    flow.as_distribution().rsample((50,)).square().mean().backward()
    assert all(w.grad is not None and w.grad.any() for w in flow.parameters())
    assert not flow.as_distribution().sample((5,)).requires_grad


def test_members_of_an_expanded_batch_are_drawn_apart_and_keep_their_contexts():
    flow = randomize(RealNVP(2, 2, (8,), context_dim=1))
    contexts = torch.tensor([[-2.0], [2.0]])
    p = flow.as_distribution(contexts)
    wide = p.expand((3, 2))
    assert torch.equal(wide.context, contexts.expand(3, 2, 1))
    x = wide.sample((4,))
    assert x.unique(dim=2).shape == x.shape
    assert len(x.flatten(0, -2).unique(dim=0)) == 24
    torch.testing.assert_close(wide.log_prob(x)[:, :, 1], flow.log_prob(x[:, :, 1], contexts[1]))
    assert len(RealNVP(2).as_distribution().expand((6,)).sample().unique(dim=0)) == 6


@pytest.mark.parametrize(
    ("first", "inside", "outside"),
    [(Logit(), 0.5, 1.5), (Logit(), 0.5, 1.0), (Inverse(Softplus()), 3.0, -0.1)],
)
def test_outside_of_the_support_is_refused_or_minus_infinity(first, inside, outside):
    flow = Flow(Compose([first, LULinear(2)]), StandardNormal(2))
    x = torch.tensor([[inside, inside], [inside, outside], [outside, inside]])
    assert FlowDistribution(flow).support.check(x).tolist() == [True, False, False]
    with pytest.raises(ValueError, match="within the support"):
        FlowDistribution(flow).log_prob(x)
    found = FlowDistribution(flow, validate_args=False).log_prob(x)
    assert torch.equal(found, torch.tensor([flow.log_prob(x[0]).item(), -math.inf, -math.inf]))


def test_a_model_of_bits_has_no_gradient_in_its_draws():
    p = BernoulliMADE(3, (8,)).as_distribution()
    assert p.support.check(torch.tensor([[0.0, 1, 1], [0.5, 0, 0]])).tolist() == [True, False]
    assert not p.has_rsample
    assert p.log_prob(p.sample((6,))).shape == (6,)
    with pytest.raises(NotImplementedError, match="BernoulliMADE"):
        p.rsample()


def test_a_base_without_gradients_in_its_draws_says_so():
    assert not Flow(LULinear(2), GaussianMixture(2)).as_distribution().has_rsample
    assert Flow(LULinear(2), DiagonalNormal([0.0, 1], [1.0, 2])).as_distribution().has_rsample


def test_a_wrong_context_is_refused_at_once():
    with pytest.raises(ValueError, match="as_distribution: expected context of shape"):
        RealNVP(2, context_dim=3).as_distribution(torch.zeros(5, 2))
    with pytest.raises(ValueError, match="as_distribution"):
        RealNVP(2, context_dim=3).as_distribution()
    with pytest.raises(ValueError, match="as_distribution"):
        RealNVP(2).as_distribution(torch.zeros(5, 2))


def test_it_can_be_wrapped_as_pytorchs_own_can():
    flow = randomize(RealNVP(2, 2, (8,)))
    p = Independent(flow.as_distribution().expand((5,)), 1)
    assert p.event_shape == (5, 2)
    x = p.sample((3,))
    torch.testing.assert_close(p.log_prob(x), flow.log_prob(x).sum(-1))
    mixture = torch.distributions.MixtureSameFamily(
        torch.distributions.Categorical(torch.ones(5)), flow.as_distribution().expand((5,))
    )
    torch.testing.assert_close(mixture.log_prob(x[0]), flow.log_prob(x[0]))


def test_it_is_a_prior_and_a_guide_of_a_variational_fit():
    """As Pyro's Trace_ELBO has it: log p(y | x) + log prior(x) - log guide(x), x from the guide."""
    prior, truth = a_linear_flow()
    y = torch.tensor([1.0, -1.0]).double()
    guide = Flow(LULinear(2), StandardNormal(2)).double()
    optimizer = torch.optim.Adam(guide.parameters(), lr=0.05)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 500)
    for _ in range(500):
        x, log_q = guide.as_distribution().rsample_and_log_prob((64,))
        log_joint = Normal(x, 1.0).log_prob(y).sum(-1) + prior.as_distribution().log_prob(x)
        loss = (log_q - log_joint).mean()
        optimizer.zero_grad()
        loss.backward(inputs=list(guide.parameters()))
        optimizer.step()
        schedule.step()
    # two normals: what is left of the loss is minus the log of y's own density
    evidence = MultivariateNormal(truth.mean, truth.covariance_matrix + torch.eye(2)).log_prob(y)
    assert abs(loss.item() + evidence.item()) < 0.01


def test_what_pytorch_does_not_expand_is_not_expanded():
    p = RealNVP(2).as_distribution().expand((6,))
    with pytest.raises(RuntimeError, match="expand"):
        p.expand((3,))
    with pytest.raises(RuntimeError, match="expand"):
        Independent(Normal(torch.zeros(6, 2), 1.0), 1).expand((3,))


def test_it_can_be_vmapped_and_a_nan_is_refused():
    flow = randomize(RealNVP(2, 2, (8,)))
    p, x = FlowDistribution(flow, validate_args=False), torch.randn(5, 2)
    torch.testing.assert_close(torch.vmap(p.log_prob)(x), flow.log_prob(x))
    with pytest.raises(ValueError, match="nan"):
        p.log_prob(torch.full((1, 2), math.nan))
