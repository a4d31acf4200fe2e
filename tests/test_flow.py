"""flowlib.flow beyond the one list of test_bijections.py: densities, shapes, doors."""

import copy
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from flowlib import (
    Bijection,
    Compose,
    DiagonalNormal,
    ElementwiseAffine,
    Flow,
    Inverse,
    LeakyReLU,
    Logit,
    LULinear,
    MultivariateNormal,
    Permutation,
    Softplus,
    StandardNormal,
)
from flowlib.flow import as_event_shape
from tests.test_bijections import randomize


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
    flow = linear_flow(2)
    x, context = torch.randn(5, 1, 2).double(), torch.randn(3, 4).double()
    assert flow.log_prob(x, context).shape == (5, 3)
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
            self.shift.add_(1.0)

    Flow(Compose([Spy(2), Spy(2)]), StandardNormal(2)).initialize(torch.zeros(4, 2))
    assert seen == [0.0, 1.0]


def test_state_dict_holds_weights_only():
    flow = linear_flow(2)
    assert set(flow.state_dict()) == {
        f"bijection.{name}" for name in ("lower", "upper", "log_diagonal", "bias")
    }


@pytest.mark.parametrize("bad", [0, -1, (), (2, 0), (2.0,), "ab"])
def test_event_shapes_that_are_none(bad):
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
    with pytest.raises(ValueError, match=rf"{name}: expected shape \(\.\.\., "):
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
    with pytest.raises(TypeError, match="a LULinear, has no event_shape"):
        Flow(LULinear(2), LULinear(2))


@pytest.mark.parametrize(
    ("x", "context", "message"),
    [
        (torch.zeros(5, 2), torch.zeros(3, 1), r"of x \(5,\) and of context \(3,\) do not"),
        (torch.zeros(5, 2), torch.tensor(1.0), r"context of shape \(\.\.\., C\), got \(\)"),
        (torch.zeros(5, 2), torch.full((5, 1), math.inf), "got inf at context"),
    ],
)
def test_bad_context(x, context, message):
    with pytest.raises(ValueError, match=message):
        linear_flow(2).float().log_prob(x, context)
    if context.isinf().any():
        with pytest.raises(ValueError, match=message):
            linear_flow(2).float().sample(2, context)


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
    flow = Flow(f, StandardNormal(x.shape[1:]))
    for go in (lambda: flow.log_prob(x), lambda: flow.sample(2)):
        with pytest.raises(ValueError, match="expected"):
            go()


class Adds(Bijection):
    """z = x - context, row by row."""

    def forward(self, x, context=None):
        return x - context, x.new_zeros(len(x))

    def inverse(self, z, context=None):
        return z + context, z.new_zeros(len(z))


def test_every_row_of_context_meets_its_own_draws():
    flow = Flow(Adds(), StandardNormal(1))
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
