"""flowlib.flow beyond the one list of test_bijections.py: densities, shapes, doors."""

import copy
import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx

from flowlib import (
    MLP,
    ActNorm,
    Additive,
    Affine,
    BatchNorm,
    Bijection,
    Compose,
    Coupling,
    DiagonalNormal,
    ElementwiseAffine,
    FactorOut,
    Flatten,
    Flow,
    ImageRealNVP,
    Inverse,
    LeakyReLU,
    Logit,
    LULinear,
    MaskedCoupling,
    MultivariateNormal,
    Permutation,
    RealNVP,
    Softplus,
    Squeeze,
    StandardNormal,
    half_mask,
    random_mask,
)
from flowlib.arguments import as_event_shape
from flowlib.structure import Structured
from tests.models import randomize


def linear_flow(dim=2):
    return Flow(randomize(LULinear(dim)), StandardNormal(dim)).double()


def test_standard_normal_is_torchs():
    base = StandardNormal((2, 3)).double()
    z = torch.randn(5, 4, 2, 3, dtype=torch.float64)
    expected = torch.distributions.Normal(0.0, 1.0).log_prob(z).sum((-1, -2))
    torch.testing.assert_close(base.log_prob(z), expected)


def test_linear_flow_is_the_multivariate_normal():
    flow = linear_flow(3)
    w, b = flow.bijection.matrix(), flow.bijection.bias
    exact = torch.distributions.MultivariateNormal(
        -torch.linalg.solve(w, b), precision_matrix=w.T @ w
    )
    x = torch.randn(50, 3, dtype=torch.float64)
    torch.testing.assert_close(flow.log_prob(x), exact.log_prob(x))


def test_samples_have_the_density_that_is_claimed():
    flow = linear_flow(2)
    x = flow.sample(40_000, generator=torch.Generator().manual_seed(1))
    w, b = flow.bijection.matrix(), flow.bijection.bias
    mean, cov = -torch.linalg.solve(w, b), torch.linalg.inv(w.T @ w)
    n = len(x)
    assert ((x.mean(0) - mean).abs() < 4 * (cov.diagonal() / n).sqrt()).all()
    error = (cov.diagonal().outer(cov.diagonal()) + cov**2).div(n).sqrt()
    assert ((x.T.cov() - cov).abs() < 4 * error).all()


def test_the_density_integrates_to_one():
    flow = linear_flow(2)
    axis = torch.linspace(-12, 12, 601, dtype=torch.float64)
    grid = torch.stack(torch.meshgrid(axis, axis, indexing="ij"), -1)
    total = flow.log_prob(grid).exp().sum() * (axis[1] - axis[0]) ** 2
    assert abs(total.item() - 1) < 1e-6


@pytest.mark.parametrize("lead", [(), (4,), (4, 3), (0,), (2, 0)])
def test_leading_shapes(lead):
    flow = linear_flow(2)
    x = torch.randn(*lead, 2, dtype=torch.float64)
    assert flow.log_prob(x).shape == lead
    assert flow.sample(lead).shape == (*lead, 2)
    samples, log_p = flow.rsample_and_log_prob(lead)
    assert samples.shape == (*lead, 2)
    assert log_p.shape == lead
    torch.testing.assert_close(log_p, flow.log_prob(samples))


def test_context_broadcasts_against_x():
    flow = randomize(RealNVP(2, hidden=(4,), context_dim=4)).double()
    x, context = torch.randn(5, 1, 2).double(), torch.randn(3, 4).double()
    log_p = flow.log_prob(x, context)
    assert log_p.shape == (5, 3)
    torch.testing.assert_close(log_p[4, 1], flow.log_prob(x[4, 0], context[1]))
    assert flow.sample(6, context).shape == (6, 3, 2)


def test_sampling_is_repeatable_and_carries_no_gradient():
    flow = linear_flow(2)
    one, two = (flow.sample(5, generator=torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(one, two)
    assert not one.requires_grad
    x, log_p = flow.rsample_and_log_prob(5)
    assert x.requires_grad
    assert log_p.requires_grad


def test_flow_under_vmap_and_grad():
    flow = linear_flow(2)
    x = torch.randn(6, 2, dtype=torch.float64)
    torch.testing.assert_close(torch.func.vmap(flow.log_prob)(x), flow.log_prob(x))
    score = torch.func.vmap(torch.func.grad(flow.log_prob))(x)
    w = flow.bijection.matrix()
    torch.testing.assert_close(score, -(flow.bijection(x)[0] @ w).detach())


def test_flow_compiles_whole():
    flow = linear_flow(2)
    x = torch.randn(6, 2, dtype=torch.float64)
    compiled = torch.compile(flow.log_prob, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(x), flow.log_prob(x))


@given(hnp.array_shapes(min_dims=1, max_dims=3, max_side=4))
def test_elementwise_affine_of_any_shape(shape):
    f = randomize(ElementwiseAffine(shape)).double()
    x = torch.randn(2, *shape, dtype=torch.float64)
    z, log_det = f(x)
    torch.testing.assert_close(f.inverse(z)[0], x)
    torch.testing.assert_close(log_det, f.log_scale.sum().expand(2))


@given(st.integers(1, 12), st.floats(0.01, 1.0))
def test_lu_determinant_is_the_dense_one(dim, scale):
    f = randomize(LULinear(dim), scale).double()
    sign, log_det = torch.linalg.slogdet(f.matrix())
    assert sign == 1
    torch.testing.assert_close(log_det, f.log_diagonal.sum())


def test_compose_initializes_layer_by_layer():
    seen = []

    class Spy(ElementwiseAffine):
        def initialize(self, x, context=None):
            seen.append(x.mean().item())
            self.loc.add_(1.0)

    Flow(Compose([Spy(2), Spy(2)]), StandardNormal(2)).initialize(torch.zeros(4, 2))
    assert seen == [0.0, -1.0]


def test_state_dict_holds_weights_only():
    flow = linear_flow(2)
    assert set(flow.state_dict()) == {
        f"bijection.{name}" for name in ("lower", "upper", "log_diagonal", "bias")
    }


@pytest.mark.parametrize("bad", [0, -1, (), (2, 0), (2.0,), "ab"])
def test_event_shapes_that_are_not_valid(bad):
    with pytest.raises(ValueError, match="expected a positive int"):
        as_event_shape(bad)


def test_doors():
    flow = Flow(LULinear(2), StandardNormal(2))
    with pytest.raises(ValueError, match=r"shape \(\.\.\., 2\), got \(3,\)"):
        flow.log_prob(torch.zeros(3))
    with pytest.raises(ValueError, match=r"got \(\)"):
        flow.log_prob(torch.tensor(1.0))
    with pytest.raises(ValueError, match=r"float32, x in torch\.float64"):
        flow.log_prob(torch.zeros(3, 2, dtype=torch.float64))
    with pytest.raises(ValueError, match=r"got inf at x\[1, 0\] \(1 of 6"):
        flow.log_prob(torch.tensor([[0, 0], [math.inf, 0], [0, 0]]))
    with pytest.raises(TypeError, match="got list"):
        flow.log_prob([[0.0, 0.0]])
    with pytest.raises(ValueError, match="expected a count"):
        flow.sample(-1)
    with pytest.raises(TypeError, match="item 1 is a ReLU"):
        Compose([LULinear(2), torch.nn.ReLU()])


def test_huge_but_finite_values_are_let_in():
    flow = Flow(LULinear(2), StandardNormal(2))
    assert flow.log_prob(torch.full((4, 2), 3e38)).shape == (4,)


# --- bases and doors ----------------------------------------------------------------------


def test_diagonal_and_multivariate_normals_are_torchs():
    loc, scale = torch.randn(2, 3).double(), torch.rand(2, 3).double() + 0.5
    z = torch.randn(7, 2, 3).double()
    expected = torch.distributions.Normal(loc, scale).log_prob(z).sum((-1, -2))
    torch.testing.assert_close(DiagonalNormal(loc, scale).log_prob(z), expected)
    factor = torch.randn(4, 4).double().tril()
    covariance = factor @ factor.T + torch.eye(4).double()
    base = MultivariateNormal(torch.arange(4.0).double(), covariance)
    z = torch.randn(7, 2, 4).double()
    exact = torch.distributions.MultivariateNormal(torch.arange(4.0).double(), covariance)
    torch.testing.assert_close(base.log_prob(z), exact.log_prob(z))
    x = base.sample(40_000, generator=torch.Generator().manual_seed(0))
    variance = covariance.diagonal()
    assert ((x.mean(0) - exact.mean).abs() < 4 * (variance / len(x)).sqrt()).all()
    error = (variance.outer(variance) + covariance**2).div(len(x)).sqrt()
    assert ((x.T.cov() - covariance).abs() < 4 * error).all()


BASES = {
    "StandardNormal": lambda: StandardNormal((2, 2)),
    "DiagonalNormal": lambda: DiagonalNormal([[0.0, 1.0], [2.0, -1.0]], [[1.0, 2.0], [0.5, 3.0]]),
    "MultivariateNormal": lambda: MultivariateNormal([1.0, 2.0], [[2.0, 1.0], [1.0, 3.0]]),
}


EXACT = {
    "StandardNormal": torch.distributions.Normal(torch.zeros(2, 2), torch.ones(2, 2)),
    "DiagonalNormal": torch.distributions.Normal(
        torch.tensor([[0.0, 1.0], [2.0, -1.0]]), torch.tensor([[1.0, 2.0], [0.5, 3.0]])
    ),
    "MultivariateNormal": torch.distributions.MultivariateNormal(
        torch.tensor([1.0, 2.0]), torch.tensor([[2.0, 1.0], [1.0, 3.0]])
    ),
}


@pytest.mark.parametrize("name", BASES)
def test_every_base(name):
    base = BASES[name]()
    for n in ((), 5, (2, 3), (0,)):
        lead = (n,) if isinstance(n, int) else n
        z = base.sample(n)
        assert z.shape == (*lead, *base.event_shape)
        assert base.log_prob(z).shape == lead
    double = copy.deepcopy(base).double()
    assert double.sample(3).dtype == torch.float64
    one, two = (base.sample(4, generator=torch.Generator().manual_seed(1)) for _ in range(2))
    assert torch.equal(one, two)
    twin = BASES[name]()
    for buffer in twin.state_dict().values():
        buffer.zero_()
    twin.load_state_dict(base.state_dict())
    with pytest.raises(ValueError, match=rf"{name}: expected z of shape \(\.\.\., "):
        base.log_prob(torch.zeros(3, 1))  # broadcasting would make some number of it
    z = base.sample(40_000, generator=torch.Generator().manual_seed(0)).double()
    double_base = copy.deepcopy(base).double()
    # The mean of log p over its own draws is minus the entropy, and integrates to one elsewhere.
    exact = EXACT[name]
    log_p = double_base.log_prob(z)
    assert abs(log_p.mean() + exact.entropy().sum()) < 4 * log_p.std() / math.sqrt(len(z))
    errors = (z.mean(0) - exact.mean) / (exact.variance / len(z)).sqrt()
    assert errors.abs().max() < 4
    z = base.sample(6)
    torch.testing.assert_close(torch.func.vmap(base.log_prob)(z), twin.log_prob(z))
    compiled = torch.compile(base.log_prob, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(z), base.log_prob(z))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: DiagonalNormal([0.0], [0.0]), r"positive scale of shape \(1,\)"),
        (lambda: DiagonalNormal([0.0, 0.0], [1.0]), r"got \[1.0\] of shape \(1,\)"),
        (lambda: DiagonalNormal([math.nan], [1.0]), r"got nan at loc\[0\]"),
        (lambda: MultivariateNormal([0.0, 0.0], [[1.0, 2.0], [2.0, 1.0]]), "positive definite"),
        (lambda: MultivariateNormal([0.0, 0.0], [[2.0, 1.0], [0.0, 2.0]]), "symmetric"),
        (lambda: MultivariateNormal([0.0], [[1.0, 0.0], [0.0, 1.0]]), r"got \(1,\) and \(2, 2\)"),
        (lambda: Logit(0.5), "alpha < 0.5, got 0.5"),
        (lambda: LeakyReLU(0.0), "positive, finite slope, got 0.0"),
        (lambda: Permutation([0, 2]), r"every number from 0 to D - 1 once, got \[0, 2\]"),
        (lambda: Permutation([[0, 1]]), "once"),
        (lambda: Permutation.random(0), "positive int"),
    ],
)
def test_impossible_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("f", "x"), [(Logit(), 1.0), (Logit(), -0.1), (Logit(0.1), 1.2), (Inverse(Softplus()), 0.0)]
)
def test_values_outside_of_a_maps_domain(f, x):
    with pytest.raises(ValueError, match=f"strictly between .* got {x:g}"):
        f(torch.tensor([[0.5, x]]))


def test_a_margin_lets_the_ends_of_the_interval_in():
    x = torch.tensor([[0.0, 1.0]], dtype=torch.float64)
    z, log_det = Logit(0.05)(x)
    assert z.tolist()[0] == pytest.approx([math.log(0.05 / 0.95), math.log(0.95 / 0.05)])
    assert log_det.item() == pytest.approx(2 * math.log(0.9 / (0.05 * 0.95)))


def test_softplus_far_out_keeps_its_slope_and_its_way_back():
    x = torch.tensor([[-30.0, 19.9, 20.1, 500.0]], dtype=torch.float64)
    z, log_det = Softplus()(x)
    torch.testing.assert_close(Softplus().inverse(z)[0], x)
    torch.testing.assert_close(z[0, 0], x[0, 0].exp())
    assert log_det.item() == pytest.approx(-30.0, abs=1e-8)


def test_a_drawn_permutation_travels_with_the_weights():
    p = Permutation.random(20, torch.Generator().manual_seed(3))
    other = Permutation.random(20, torch.Generator().manual_seed(4))
    x = torch.randn(2, 20)
    assert not torch.equal(p(x)[0], other(x)[0])
    other.load_state_dict(p.state_dict())
    assert torch.equal(p(x)[0], other(x)[0])
    assert torch.equal(other.inverse(p(x)[0])[0], x)


def test_a_flow_says_what_it_is_made_of():
    with pytest.raises(TypeError, match="expected a Bijection, got a Linear"):
        Flow(torch.nn.Linear(2, 2), StandardNormal(2))
    with pytest.raises(TypeError, match="a LULinear, has no log_prob"):
        Flow(LULinear(2), LULinear(2))
    with pytest.raises(TypeError, match="a Linear, has no event_shape"):
        Flow(LULinear(2), torch.nn.Linear(2, 2))


@pytest.mark.parametrize(
    ("x", "context", "message"),
    [
        (torch.zeros(5, 2), torch.zeros(3, 1), r"of x \(5,\) and of context \(3,\) do not"),
        (torch.zeros(5, 2), torch.tensor(1.0), r"context of shape \(\.\.\., 1\), got \(\)"),
        (torch.zeros(5, 2), torch.full((5, 1), math.inf), "got inf at context"),
    ],
)
def test_bad_context(x, context, message):
    flow = Flow(Adds(), StandardNormal(2), context_dim=1)
    with pytest.raises(ValueError, match=message):
        flow.log_prob(x, context)
    if context.isinf().any():
        with pytest.raises(ValueError, match=message):
            flow.sample(2, context)


def test_numpys_ints_are_ints():
    assert as_event_shape(np.int64(3)) == (3,)
    assert StandardNormal(np.int32(2)).sample(np.int64(4)).shape == (4, 2)


# --- what is not this flow's -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("f", "x"),
    [
        (ElementwiseAffine(1), torch.zeros(2, 5)),
        (ElementwiseAffine((2, 3)), torch.zeros(2, 3)),
        (Permutation([1, 0]), torch.zeros(2, 3)),
        (LULinear(3), torch.zeros(2, 2)),
    ],
)
def test_a_map_of_another_shape_is_refused_where_broadcasting_would_hide_it(f, x):
    with pytest.raises(ValueError, match="expected"):
        Flow(f, StandardNormal(x.shape[1:]))
    for go in (f, f.inverse):
        with pytest.raises(ValueError, match="expected"):
            go(x)


class Adds(Bijection):
    """z = x - context, row by row."""

    def forward(self, x, context=None):
        return x - context, x.new_zeros(len(x))

    def inverse(self, z, context=None):
        return z + context, z.new_zeros(len(z))


def test_every_row_of_context_meets_its_own_draws():
    flow = Flow(Adds(), StandardNormal(1), context_dim=1)
    context = torch.arange(6.0).reshape(3, 2, 1) * 1000
    x, log_prob = flow.rsample_and_log_prob((4,), context)
    assert x.shape == (4, 3, 2, 1)
    assert ((x - context).abs() < 10).all()
    torch.testing.assert_close(flow.log_prob(x, context), log_prob, rtol=0, atol=1e-3)


def test_a_slice_of_a_chain_is_a_chain():
    f = Compose([LULinear(2), ElementwiseAffine(2), LULinear(2)])
    x = torch.randn(3, 2)
    assert isinstance(f[1:], Compose)
    assert [*f[1:]] == [f[1], f[2]]
    torch.testing.assert_close(f[1:](f[0](x)[0])[0], f(x)[0])


def test_what_is_given_is_copied():
    order = torch.tensor([1, 0, 2])
    f = Permutation(order)
    order.zero_()
    assert f.order.tolist() == [1, 0, 2]


def test_meta_tensors_have_shapes_and_no_values():
    flow = linear_flow().float().to("meta")
    assert flow.log_prob(torch.empty(5, 2, device="meta")).shape == (5,)


# --- contexts, starts, doors -----------------------------------------------------------------


def test_a_context_that_nothing_uses_is_refused():
    context = torch.zeros(5, 3)
    with pytest.raises(ValueError, match="log_prob: takes no context"):
        Flow(LULinear(2), StandardNormal(2)).log_prob(torch.zeros(5, 2), context)
    with pytest.raises(ValueError, match="got 3, and the LULinear uses no context"):
        Flow(LULinear(2), StandardNormal(2), context_dim=3)
    with pytest.raises(ValueError, match="LULinear: takes no context"):
        LULinear(2)(torch.zeros(5, 2), context)
    with pytest.raises(ValueError, match="Inverse: takes no context"):
        Inverse(Compose([LULinear(2), LeakyReLU()])).inverse(torch.zeros(5, 2), context)
    with pytest.raises(ValueError, match="a whole context_dim of 0 or more, got -1"):
        Flow(Adds(), StandardNormal(2), context_dim=-1)
    with pytest.raises(ValueError, match=r"a context of shape \(5, C\), got \(3, 1\)"):
        Adds()(torch.zeros(5, 2), torch.zeros(3, 1))
    assert Adds()(torch.zeros(5, 2), torch.ones(5, 1))[0].sum() == -10


class Sized(Adds):
    def __init__(self, context_dim):
        super().__init__()
        self.context_dim = context_dim


def test_a_chain_knows_the_context_that_its_maps_need():
    assert Compose([LULinear(2), Sized(3)]).context_dim == 3
    assert Compose([LULinear(2), Adds(), Sized(3)]).context_dim == 3
    assert Compose([LULinear(2), Adds()]).context_dim is None
    with pytest.raises(ValueError, match="got 5, and the Compose uses 3"):
        Flow(Compose([Adds(), Sized(3)]), StandardNormal(2), context_dim=5)
    assert Compose([LULinear(2)]).context_dim == 0
    with pytest.raises(ValueError, match="contexts of different sizes"):
        Compose([Sized(3), Sized(2)])
    with pytest.raises(ValueError, match="got 0, and the Compose uses 3"):
        Flow(Compose([LULinear(2), Sized(3)]), StandardNormal(2))


def test_an_inverse_starts_from_its_data_too():
    x = 50 + 10 * torch.randn(300, 4)
    coupling = randomize(Coupling(half_mask(4), MLP(2, 4, 2), Additive()))
    flow = Flow(Inverse(Compose([ActNorm(4), coupling])), StandardNormal(4))
    flow.initialize(x)
    z, _ = flow.bijection(x)
    torch.testing.assert_close(z.mean(0), torch.zeros(4), atol=1e-4, rtol=0)
    torch.testing.assert_close(z.std(0, correction=0), torch.ones(4), atol=1e-4, rtol=0)
    before = copy.deepcopy(flow.state_dict())
    flow.initialize(x * 3)  # only once
    assert all(torch.equal(v, before[k]) for k, v in flow.state_dict().items())
    twice = Inverse(Inverse(ActNorm(4)))
    twice.initialize(x)
    torch.testing.assert_close(twice(x)[0], z_scores(x), atol=1e-4, rtol=0)


def z_scores(x):
    return (x - x.mean(0)) / x.std(0, correction=0)


def test_a_start_that_goes_one_way_only_is_refused_the_other_way():
    class Starts(ElementwiseAffine):
        def initialize(self, x, context=None):
            self.loc.copy_(x.mean(0))

    with pytest.raises(NotImplementedError, match=r"Starts: .* implement initialize_inverse"):
        Flow(Inverse(Starts(2)), StandardNormal(2)).initialize(torch.randn(5, 2))


def test_a_bijection_by_itself_looks_at_what_it_is_given():
    f = Compose([LULinear(2), ElementwiseAffine(2)])
    for name, way in (("x", f), ("z", f.inverse)):
        with pytest.raises(ValueError, match=r"LULinear|ElementwiseAffine.*got \(batch, 3\)"):
            way(torch.zeros(5, 3))
        with pytest.raises(ValueError, match=rf"got nan at {name}\[0, 1\]"):
            way(torch.tensor([[0.0, math.nan]]))
        with pytest.raises(TypeError, match="got list"):
            way([[0.0, 0.0]])
        with pytest.raises(ValueError, match=r"expected a batch .* got shape \(\)"):
            way(torch.tensor(0.0))


def test_maps_with_a_domain_look_in_the_middle_of_a_chain_too():
    f = Compose([ElementwiseAffine(1), Logit()])
    with pytest.raises(ValueError, match=r"Logit: expected values strictly between .* got 2"):
        f(torch.tensor([[2.0]]))
    with pytest.raises(ValueError, match=r"Softplus: expected values strictly between .* got -1"):
        Compose([Softplus(), ElementwiseAffine(1)]).inverse(torch.tensor([[-1.0]]))


def test_draws_and_starts_look_at_domains_too():
    for flow in (
        Flow(Softplus(), StandardNormal(2)),
        Flow(Compose([ElementwiseAffine(2), Softplus()]), StandardNormal(2)),
    ):
        for draw in (flow.sample, flow.rsample_and_log_prob):
            with pytest.raises(ValueError, match=r"Softplus|Compose: expected values strictly"):
                draw(50)
    last = ActNorm(2)
    flow = Flow(Compose([ElementwiseAffine(2), Logit(), last]), StandardNormal(2))
    with pytest.raises(ValueError, match="Logit: expected values strictly between"):
        flow.initialize(torch.randn(50, 2) * 3)
    assert not last.loc.any()
    inner = FactorOut((2, 2, 1), Compose([Logit(), Flatten((1, 2, 1))]))
    flow = Flow(inner, StandardNormal(4), (2, 2, 1))
    with pytest.raises(ValueError, match="Compose: expected values strictly between 0 and 1"):
        flow.log_prob(torch.full((2, 2, 2, 1), 1.5))


def test_a_normalization_started_by_itself_looks_at_shapes():
    for layer in (ActNorm(2), BatchNorm(2)):
        with pytest.raises(ValueError, match=r"expected shape \(batch, 2\), got \(batch, 1\)"):
            layer.initialize(torch.randn(50, 1))
    with pytest.raises(ValueError, match=r"got \(batch, 1\)"):
        ActNorm(2).initialize_inverse(torch.randn(50, 1))


# --- what somebody else's bijection may do -----------------------------------------------------


class Twice:
    """A mixin that changes both directions."""

    def forward(self, x, context=None):
        z, log_det = super().forward(x, context)
        return z * 2, log_det + z.shape[1] * math.log(2)

    def inverse(self, z, context=None):
        x, log_det = super().inverse(z / 2, context)
        return x, log_det - z.shape[1] * math.log(2)


class TwiceAffine(Twice, ElementwiseAffine):
    pass


class Above(Softplus):
    """A subclass with another domain, which calls its parent."""

    latent_domain = (1, math.inf)

    def forward(self, x, context=None):
        z, log_det = super().forward(x, context)
        return z + 1, log_det

    def inverse(self, z, context=None):
        return super().inverse(z - 1, context)


def test_a_mixin_is_heard_in_both_directions():
    flow = Flow(randomize(TwiceAffine(2)), StandardNormal(2)).double()
    x, log_p = flow.rsample_and_log_prob(9)
    torch.testing.assert_close(flow.log_prob(x), log_p)
    with pytest.raises(ValueError, match="TwiceAffine: expected shape"):
        flow.bijection.inverse(torch.zeros(2, 3, dtype=torch.float64))


def test_a_subclass_that_calls_its_parent_is_checked_once_by_its_own_domain():
    f, x = Above(), torch.randn(5, 2)
    z, _ = f(x)
    torch.testing.assert_close(f.inverse(z)[0], x)
    torch.testing.assert_close(f.unchecked_inverse(z)[0], x)
    with pytest.raises(ValueError, match="Above: expected values strictly between 1 and inf"):
        f.inverse(torch.full((1, 2), 0.5))


def test_an_inverse_that_is_replaced_later_is_the_one_that_is_called(monkeypatch):
    flow, calls = Flow(ElementwiseAffine(2), StandardNormal(2)), []
    ours = flow.bijection.inverse
    flow.bijection.inverse = lambda z, context=None: calls.append(1) or ours(z, context)
    flow.sample(3)
    assert calls == [1]
    del flow.bijection.inverse
    theirs = ElementwiseAffine.inverse
    patched = lambda self, z, context=None: calls.append(2) or theirs(self, z, context)  # noqa: E731
    monkeypatch.setattr(ElementwiseAffine, "inverse", patched)
    flow.sample(3)
    assert calls == [1, 2]


def test_options_of_ones_own_pass_the_door():
    class Steps(ElementwiseAffine):
        def forward(self, x, context=None, *, gain=1.0):
            return x * gain, x.new_zeros(len(x))

        def inverse(self, z, context=None, *, steps=10):
            return z * steps, z.new_zeros(len(z))

    x = torch.ones(1, 2)
    assert Steps(2)(x, gain=3.0)[0].tolist() == [[3.0, 3.0]]
    assert Steps(2).inverse(x, steps=2)[0].tolist() == [[2.0, 2.0]]


def test_a_base_may_say_its_shape_as_a_list():
    class Base(StandardNormal):
        def __init__(self):
            super().__init__(2)
            self.event_shape = [2]

        def log_prob(self, z):
            return -0.5 * z.square().sum(-1)

    assert Flow(LULinear(2), Base()).event_shape == (2,)
    with pytest.raises(ValueError, match="changes the shape sets event_shape and latent_shape"):
        Flow(Adds(), StandardNormal(4), (2, 2))


def test_doors_count_their_looks(monkeypatch):
    """On a GPU each look at a value waits for the device."""
    looks = []
    for name in ("tolist", "item", "__bool__", "__float__"):
        look = getattr(torch.Tensor, name)
        monkeypatch.setattr(torch.Tensor, name, lambda x, f=look: looks.append(1) or f(x))
    picture = ImageRealNVP((1, 4, 4), hidden=2)
    for flow, x in ((picture, torch.rand(3, 1, 4, 4)), (RealNVP(4), torch.rand(3, 4))):
        looks.clear()
        flow.log_prob(x)
        assert len(looks) == 1


def test_values_are_seen_under_grad_and_left_alone_where_there_are_none():
    flow = linear_flow(2)
    bad = torch.tensor([1.0, math.nan], dtype=torch.float64)
    with pytest.raises(ValueError, match="got nan at x"):
        torch.func.grad(flow.log_prob)(bad)
    assert torch.func.vmap(flow.log_prob)(bad[None]).isnan().all()  # here nobody can look
    x = torch.randn(4, 2, dtype=torch.float64)
    with FakeTensorMode(allow_non_fake_inputs=True):
        assert flow.log_prob(torch.empty(4, 2, dtype=torch.float64)).shape == (4,)
    for mode in ("real", "symbolic"):
        traced = make_fx(
            lambda x: flow.log_prob(x), tracing_mode=mode, _allow_non_fake_inputs=True
        )(x)
        torch.testing.assert_close(traced(x), flow.log_prob(x))
    exported = torch.export.export(Asked(flow), (x,)).module()
    torch.testing.assert_close(exported(x), flow.log_prob(x))


class Asked(torch.nn.Module):
    def __init__(self, flow):
        super().__init__()
        self.flow = flow

    def forward(self, x):
        return self.flow.log_prob(x)


def test_hooks_on_the_maps_of_a_chain_are_called():
    flow = Flow(Compose([LULinear(2), ElementwiseAffine(2)]), StandardNormal(2))
    seen = []
    for layer in flow.bijection:
        layer.register_forward_hook(lambda module, given, made: seen.append(made[0]))
    x = torch.randn(3, 2)
    flow.log_prob(x)
    assert len(seen) == 2
    torch.testing.assert_close(seen[-1], flow.bijection(x)[0])


def test_shapes_follow_through_a_chain():
    f = Compose([Squeeze((1, 4, 4)), Flatten((4, 2, 2))])
    assert f.forward_shape(torch.Size([1, 4, 4])) == (16,)
    assert f.inverse_shape(torch.Size([16])) == (1, 4, 4)
    assert Inverse(f).forward_shape(torch.Size([16])) == (1, 4, 4)
    with pytest.raises(ValueError, match=r"of shape \(1, 4, 4\) to latent points of shape \(16,\)"):
        Flow(f, StandardNormal(15), (1, 4, 4))


# --- which coordinate depends on which -------------------------------------------------------


@pytest.mark.parametrize(
    "f",
    [
        Coupling(random_mask(5, torch.Generator().manual_seed(1)), MLP(2, 8, 6), Affine(3)),
        MaskedCoupling(half_mask(5), MLP(5, 8, 10), Affine(5)),
        Permutation([3, 0, 4, 1, 2]),
        Inverse(Permutation([3, 0, 4, 1, 2])),
        ElementwiseAffine(5),
        Compose([
            Coupling(half_mask(5), MLP(2, 8, 6), Affine(3)),
            Permutation([3, 0, 4, 1, 2]),
            Inverse(Compose([Permutation([1, 0, 2, 3, 4]), LeakyReLU()])),
        ]),
    ],
)  # fmt: skip
def test_dependence_is_where_autodiff_finds_it(f):
    f = randomize(f).double()
    x = torch.randn(5, dtype=torch.float64)
    for go, inverse in ((f, False), (f.inverse, True)):
        J = torch.autograd.functional.jacobian(lambda v, go=go: go(v[None])[0][0], x)
        assert torch.equal(f.dependence(5, inverse), J != 0)


def test_dependence_that_nobody_knows():
    assert LULinear(3).dependence(3) is None
    assert Compose([LeakyReLU(), LULinear(3)]).dependence(3) is None


# --- structure that is saved with the weights ------------------------------------------------


def structured(seed):
    """Each kind of layer whose structure is drawn, and weights that differ."""
    draw = torch.Generator().manual_seed(seed)
    masks = [random_mask(6, draw), half_mask(6, second=bool(seed % 2)), random_mask(6, draw)]
    return randomize(
        Compose([
            Coupling(masks[0], MLP(3, 8, 6), Affine(3)),
            Permutation.random(6, draw),
            Coupling(masks[1], MLP(3, 8, 6), Affine(3)),
            MaskedCoupling(masks[2], MLP(6, 8, 12), Affine(6)),
        ])
    ).double()  # fmt: skip


def test_functional_call_with_another_models_state_is_that_model():
    one, two = structured(0), structured(1)
    x = torch.randn(7, 6, dtype=torch.float64)
    assert not torch.allclose(one(x)[0], two(x)[0])
    for state in (two.state_dict(), {**dict(two.named_parameters()), **dict(two.named_buffers())}):
        z, log_det = torch.func.functional_call(one, state, (x,))
        torch.testing.assert_close(z, two(x)[0])
        torch.testing.assert_close(log_det, two(x)[1])


def test_an_ensemble_of_stacked_states_is_each_of_its_members():
    members = [structured(seed) for seed in range(3)]
    params, buffers = torch.func.stack_module_state(members)
    base, x = structured(7), torch.randn(7, 6, dtype=torch.float64)
    z, log_det = torch.func.vmap(lambda *state: torch.func.functional_call(base, state, (x,)))(
        params, buffers
    )
    for k, member in enumerate(members):
        torch.testing.assert_close(z[k], member(x)[0])
        torch.testing.assert_close(log_det[k], member(x)[1])


def test_another_number_of_kept_coordinates_is_refused():
    one, two = (Coupling(m, MLP(3, 8, 6), Affine(3)) for m in (half_mask(6), half_mask(6)))
    wrong = {**two.state_dict(), "kept": torch.tensor([1, 1, 1, 1, 0, 0], dtype=torch.uint8)}
    with pytest.raises(ValueError, match=r"a mask with 3 coordinates kept .* got 4"):
        torch.func.functional_call(one, wrong, (torch.zeros(2, 6),))
    with pytest.raises(ValueError, match=r"saved mask of shape \(6,\) with 3 kept"):
        one.load_state_dict(wrong)


def test_a_saved_order_that_is_no_permutation_is_refused_and_changes_nothing():
    p = Permutation([2, 0, 1])
    with pytest.raises(ValueError, match="a saved order of every number from 0 to 2 once"):
        p.load_state_dict({"order": torch.tensor([0, 0, 1])})
    assert p.order.tolist() == [2, 0, 1]
    long = Permutation.random(300)
    with pytest.raises(ValueError, match=r"once, got torch.bfloat16"):
        long.load_state_dict({"order": long.order.bfloat16()})
    long.load_state_dict({"order": long.order.half()}, assign=True)  # exact, but of another dtype
    assert long.order.dtype == torch.long


def test_a_state_that_is_loaded_decides_which_halves_are_slices():
    first, second = (Coupling(half_mask(6, second=s), MLP(3, 8, 6), Affine(3)) for s in (0, 1))
    randomize(second)
    for assign in (False, True):
        twin = copy.deepcopy(first)
        twin.load_state_dict(second.state_dict(), assign=assign)
        x = torch.randn(4, 6)
        assert torch.equal(twin(x)[0], second(x)[0])
        assert twin.is_prepared


def test_buffers_that_are_changed_in_place_are_prepared_anew():
    """As DistributedDataParallel and averages of weights change them."""
    first, second = (Coupling(half_mask(6, second=s), MLP(3, 8, 6), Affine(3)) for s in (0, 1))
    randomize(second)
    state = first.state_dict()
    with torch.no_grad():
        for name, value in second.state_dict().items():
            state[name].copy_(value)
    x = torch.randn(4, 6)
    assert torch.equal(first(x)[0], second(x)[0])
    average = torch.optim.swa_utils.AveragedModel(structured(0), use_buffers=True)
    other, x = structured(1), torch.randn(4, 6, dtype=torch.float64)
    average.update_parameters(other)
    torch.testing.assert_close(average.module(x)[0], other(x)[0])


def test_a_model_on_meta_gets_its_memory_and_its_state_later():
    expected = structured(0)
    late = structured(1).to("meta").to_empty(device="cpu")
    late.load_state_dict(expected.state_dict())
    x = torch.randn(4, 6, dtype=torch.float64)
    torch.testing.assert_close(late(x)[0], expected(x)[0])
    assert all(m.is_prepared for m in late if isinstance(m, Structured))


def test_several_structures_of_one_module():
    class More(Permutation):
        def __init__(self, order):
            super().__init__(order)
            self.register_structure(extra=torch.arange(3))

        def check_structure(self, **loaded):
            super().check_structure(**loaded)
            assert sorted(loaded) == ["extra", "order"]

    more, twin = More([2, 0, 1]), More([1, 0, 2])
    twin.load_state_dict(more.state_dict())
    assert twin.order.tolist() == [2, 0, 1]
    assert twin.is_prepared


# --- beyond one process ---------------------------------------------------------------------------

DDP = """
import os, sys, tempfile, torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
from flowlib import RealNVP

def work(rank, store, out):
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    torch.manual_seed(0)
    flow = RealNVP(2, n_layers=2, hidden=(8,), context_dim=1).double()
    x, c = torch.randn(64, 2).double(), 300 + 10 * torch.randn(64, 1).double()
    flow.initialize(x, c)
    wrapped = DistributedDataParallel(flow)
    optimizer = torch.optim.SGD(wrapped.parameters(), lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        mine = slice(32 * rank, 32 * rank + 32)
        (-wrapped(x[mine], c[mine]).mean()).backward()
        optimizer.step()
    if rank == 0:
        torch.save(flow.state_dict(), out)
    dist.destroy_process_group()

if __name__ == "__main__":
    torch.multiprocessing.spawn(work, sys.argv[1:], nprocs=2)
"""


def test_two_processes_train_as_one(tmp_path):
    """Half of the rows each; DistributedDataParallel averages the gradients of `flow(x, c)`."""
    script = tmp_path / "ddp.py"
    script.write_text(DDP)
    subprocess.run(
        [sys.executable, script, tmp_path / "store", tmp_path / "out.pt"], check=True, timeout=120
    )
    torch.manual_seed(0)
    flow = RealNVP(2, n_layers=2, hidden=(8,), context_dim=1).double()
    x, c = torch.randn(64, 2).double(), 300 + 10 * torch.randn(64, 1).double()
    flow.initialize(x, c)
    optimizer = torch.optim.SGD(flow.parameters(), lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        (-flow(x, c).mean()).backward()
        optimizer.step()
    for name, value in torch.load(tmp_path / "out.pt").items():
        assert torch.allclose(value, flow.state_dict()[name], atol=1e-12), name


class Tall(ElementwiseAffine):
    """A map of one's own with a log-determinant (batch, 1)."""

    def forward(self, x, context=None):
        z, log_det = super().forward(x, context)
        return z, log_det[:, None]

    def inverse(self, z, context=None):
        x, log_det = super().inverse(z, context)
        return x, log_det[:, None]


@pytest.mark.parametrize(
    "use",
    [
        lambda: Tall(2)(torch.zeros(3, 2)),
        lambda: Tall(2).inverse(torch.zeros(3, 2)),
        lambda: Compose([LULinear(2), Tall(2)])(torch.zeros(3, 2)),
        lambda: Flow(Tall(2), StandardNormal(2)).log_prob(torch.zeros(3, 2)),
        lambda: Flow(Tall(2), StandardNormal(2)).rsample_and_log_prob(3),
    ],
)
def test_a_log_determinant_of_another_shape_is_refused(use):
    with pytest.raises(ValueError, match=r"Tall: .* of shape \(3,\) .* got \(3, 1\)"):
        use()
