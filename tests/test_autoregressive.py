"""MAF, IAF and their layer: exact, undone in three ways, and right where things are small."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from flowlib import (
    IAF,
    MADE,
    MAF,
    MLP,
    Additive,
    Affine,
    Autoregressive,
    Coupling,
    Flow,
    Gate,
    Incremental,
    Inverse,
    Jacobi,
    RealNVP,
    Sequential,
    Spline,
    StandardNormal,
    datasets,
    fit,
    half_mask,
)
from tests.models import autodiff_log_det, randomize, shaken

TRANSFORMERS = {
    "additive": Additive,
    "affine": Affine,
    "gate": Gate,
    "spline": lambda dim: Spline(n_bins=4),
}


def layer_of(dim, kind="affine", hidden=(12,), seed=0, inverter=None, **options):
    transformer = TRANSFORMERS[kind](dim)
    made = MADE(dim, hidden, outputs_per_dim=transformer.n_params, **options)
    return shaken(lambda: Autoregressive(made, transformer, inverter), seed=seed)


# --- exactness ------------------------------------------------------------------------------


@settings(max_examples=40)
@given(data=st.data())
def test_the_jacobian_is_autodiffs_with_zeros_where_they_must_be(data):
    dim = data.draw(st.integers(1, 6))
    kind = data.draw(st.sampled_from(sorted(TRANSFORMERS)))
    order = data.draw(st.lists(st.integers(0, 5), min_size=dim, max_size=dim))
    hidden = tuple(data.draw(st.lists(st.integers(6, 9), max_size=2)))
    context_dim = data.draw(st.integers(0, 2))
    direct = data.draw(st.booleans()) or not hidden
    layer = layer_of(dim, kind, hidden, order=order, context_dim=context_dim, direct=direct)
    context = torch.randn(3, context_dim).double() if context_dim else None
    x = 2 * torch.randn(3, dim).double()
    z, log_det = layer(x, context)
    expected = []
    for k in range(3):
        one = None if context is None else context[k : k + 1]
        jacobian = torch.autograd.functional.jacobian(
            lambda v, one=one: layer(v[None], one)[0][0], x[k]
        )
        may = layer.dependence(dim)
        assert (jacobian[~may] == 0).all()
        expected.append(torch.linalg.slogdet(jacobian)[1])
    torch.testing.assert_close(log_det, torch.stack(expected), rtol=0, atol=1e-10)
    for inverter in (Sequential(), Incremental(), Jacobi()):
        layer.inverter = inverter
        back, undone = layer.inverse(z, context)
        torch.testing.assert_close(back, x, rtol=0, atol=1e-9)
        torch.testing.assert_close(undone, -log_det, rtol=0, atol=1e-9)


@pytest.mark.parametrize(("dtype", "atol"), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
def test_the_three_ways_back_agree_and_so_do_their_gradients(dtype, atol):
    layer = layer_of(7, hidden=(20, 20)).to(dtype)
    z = torch.randn(50, 7, dtype=dtype)
    found = []
    for inverter in (Sequential(), Incremental(), Jacobi()):
        layer.inverter = inverter
        start = z.clone().requires_grad_()
        x, log_det = layer.inverse(start)
        (x.square().sum() + log_det.sum()).backward()
        weights = [p.grad.clone() for p in layer.parameters()]
        layer.zero_grad()
        found.append([x, log_det, start.grad, *weights])
    for other in found[1:]:
        for a, b in zip(found[0], other, strict=True):
            torch.testing.assert_close(a, b, rtol=100 * atol, atol=100 * atol)
    torch.testing.assert_close(found[0][0], found[1][0], rtol=0, atol=10 * atol)


def test_jacobi_stops_when_no_bit_changes_and_says_after_how_many_passes():
    jacobi = Jacobi()
    layer = layer_of(12, hidden=(30,), inverter=jacobi)
    z = torch.randn(40, 12).double()
    x, _ = layer.inverse(z)
    assert 1 < jacobi.passes <= 12
    again, _ = layer.transformer.inverse(z, layer.params(x))
    assert torch.equal(again, x)
    few = Jacobi(max_iter=2)
    layer.inverter = few
    rough, _ = layer.inverse(z)
    assert few.passes == 2
    assert (rough - x).abs().max() > 1e-6
    assert torch.allclose(rough[:, :2], x[:, :2])  # the first are right all the same
    independent = layer_of(5, order=[3] * 5, inverter=Jacobi())
    independent.inverse(torch.randn(4, 5).double())
    assert independent.inverter.passes == 1


def test_a_small_step_would_say_nothing_of_the_error():
    """x_i = 3 x_{i-1} + z_i: the map that shows why there is no tolerance."""
    made = MADE(30, (), outputs_per_dim=1).double()
    with torch.no_grad():
        made.layers[0].weight.copy_(-3.0 * torch.eye(30).double().roll(1, 0))
    layer = Autoregressive(made, Additive(), Jacobi())
    z = torch.randn(5, 30).double()
    x, _ = layer.inverse(z)
    assert (layer(x)[0] - z).abs().max() < 1e-15 * x.abs().max()  # as much as its digits say
    layer.inverter = Sequential()
    torch.testing.assert_close(x, layer.inverse(z)[0], rtol=1e-12, atol=0)


# --- special cases --------------------------------------------------------------------------


@pytest.mark.parametrize("context_dim", [0, 2])
def test_of_one_coordinate_it_is_a_map_of_the_context_alone(context_dim):
    flow = randomize(MAF(1, 3, (8,), context_dim=context_dim)).double()
    x = torch.linspace(-8, 8, 4001).double()[:, None]
    context = torch.randn(1, context_dim).double().expand(len(x), -1) if context_dim else None
    total = torch.trapezoid(flow.log_prob(x, context).exp(), x[:, 0])
    assert abs(total.item() - 1) < 1e-3
    z, _ = flow.bijection(x, context)
    slopes = z.diff(dim=0) / x.diff(dim=0)
    assert (slopes - slopes[0]).abs().max() < 1e-8  # one scale, one shift


def test_realnvp_is_the_order_of_two_ranks():
    """With the first half's outputs held at the identity, weights copied."""
    torch.manual_seed(1)
    mask = half_mask(4)
    coupling = shaken(lambda: Coupling(mask, MLP(2, (9,), 4, torch.nn.Tanh), Affine(2)))
    made = MADE(4, (9,), outputs_per_dim=2, order=[1, 1, 2, 2], activation=torch.nn.Tanh)
    layer = Autoregressive(made, Affine(4)).double()
    first, last = (m for m in coupling.conditioner.modules() if isinstance(m, torch.nn.Linear))
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.zero_()
        made.layers[0].weight[:, :2] = first.weight
        made.layers[0].bias.copy_(first.bias)
        moved = torch.tensor([2, 3, 6, 7])  # log-scales, then shifts, of the second half
        made.layers[1].weight[moved] = last.weight
        made.layers[1].bias[moved] = last.bias
        layer.transformer.low[2:] = coupling.transformer.low
        layer.transformer.width[2:] = coupling.transformer.width
    x = torch.randn(20, 4).double()
    for a, b in ((layer, coupling), (layer.inverse, coupling.inverse)):
        for one, other in zip(a(x), b(x), strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=1e-14)


def test_one_class_serves_both():
    torch.manual_seed(2)
    maf = MAF(4, 2, (8,))
    torch.manual_seed(2)
    iaf = IAF(4, 2, (8,))
    turned = [layer for layer in iaf.bijection if isinstance(layer, Inverse)]
    assert [type(layer.bijection) for layer in turned] == [Autoregressive] * 2
    layers = [layer for layer in maf.bijection if isinstance(layer, Autoregressive)]
    x = torch.randn(3, 4)
    for one, other in zip(layers, turned, strict=True):
        other.bijection.load_state_dict(one.state_dict())
        assert torch.equal(one(x)[0], other.inverse(x)[0])


def test_pairs_of_layers_have_an_order_and_its_reverse():
    def orders(flow):
        return [m.ranks for m in flow.bijection if isinstance(m, Autoregressive)]

    for flow in (MAF(6, 4), MAF(6, 4, order="natural")):
        first, second, third, fourth = orders(flow)
        assert torch.equal(first + second, torch.full((6,), 7))
        assert torch.equal(third + fourth, torch.full((6,), 7))
    assert torch.equal(third, first)  # the natural one
    assert orders(MAF(2, 2))[0].tolist() in ([1, 2], [2, 1])
    one, two = (MAF(6, 4, generator=torch.Generator().manual_seed(5)) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(orders(one), orders(two), strict=True))


def test_the_first_pair_of_more_than_three_coordinates_has_direct_links():
    def links(flow):
        return [m.made.direct is not None for m in flow.modules() if isinstance(m, Autoregressive)]

    assert links(MAF(4, 4)) == links(IAF(4, 4)) == [True, True, False, False]
    assert links(MAF(3, 4)) == [False] * 4
    assert links(MAF(128, 2, 8)) == [True] * 2
    with pytest.warns(UserWarning, match="cut off"):  # of a single pair; of more, orders differ
        assert links(MAF(129, 2, 8)) == [False] * 2
    assert links(MAF(129, 3, 8)) == [False] * 3


def test_the_fewer_coordinates_the_larger_the_weights_start():
    def gain(dim):
        torch.manual_seed(0)
        flow = MAF(dim, 1, 64, order="natural")
        torch.manual_seed(0)
        usual = MADE(dim, 64, outputs_per_dim=2, direct=True)
        return (flow.bijection[1].made.layers[0].weight / usual.layers[0].weight).mean().item()

    for dim, expected in ((2, 3), (8, 3), (12, 2), (24, 1), (48, 0.5), (100, 1 / 3)):
        assert gain(dim) == pytest.approx(expected, rel=1e-5), dim


def test_few_coordinates_are_undone_by_whole_passes():
    way = layer_of(2).inverter
    assert repr(way) == "Quickest()"
    for dim, rows, chosen in (
        (1, 1000, Sequential), (2, 200, Sequential), (3, 255, Sequential), (2, 256, Incremental),
        (3, 1000, Incremental), (4, 1, Incremental), (64, 5, Incremental),
    ):  # fmt: skip
        assert isinstance(way.choose(dim, rows), chosen), (dim, rows)
    assert (repr(Jacobi()), repr(Jacobi(3))) == ("Jacobi()", "Jacobi(3)")


# --- splines and gates ----------------------------------------------------------------------


def test_a_spline_is_exact_at_its_knots_and_beyond_its_end():
    torch.manual_seed(3)
    spline = Spline(n_bins=6, bound=3.0)
    params = 3 * torch.randn(1, spline.n_params).double()
    knots, _ = spline._knots(params[:, :6])
    ends = torch.tensor([[-9.0, -3.0, 3.0, 9.0, -3.0 - 1e-12, 3.0 + 1e-12]]).double()
    x = torch.cat([knots, ends], 1).T.clone().requires_grad_()
    z, log_slope = spline(x, params.expand(len(x), -1))
    (slope,) = torch.autograd.grad(z.sum(), x)
    inside = (x.abs() < 3).detach()
    torch.testing.assert_close(log_slope[inside], slope[inside].log(), rtol=0, atol=1e-10)
    assert (log_slope[~inside] == 0).all()
    assert torch.equal(z[~inside], x[~inside])
    back, undone = spline.inverse(z, params.expand(len(x), -1))
    torch.testing.assert_close(back, x, rtol=0, atol=1e-10)
    torch.testing.assert_close(undone[inside], -log_slope[inside], rtol=0, atol=1e-8)
    order = x[:, 0].argsort()
    assert (z[order, 0].diff() >= 0).all()


def test_a_spline_has_numbers_and_gradients_in_float32_whatever_its_parameters():
    torch.manual_seed(4)
    spline = Spline(n_bins=8)
    for spread in (0.0, 1.0, 30.0, 300.0):
        params = (spread * torch.randn(9, spline.n_params)).requires_grad_()
        knots, _ = spline._knots(params[:, :8])
        for x in [*knots.detach().T, torch.zeros(9), torch.full((9,), 4.0), torch.full((9,), -4.0)]:
            for turn in (spline.forward, spline.inverse):
                start = x[:, None].clone().requires_grad_()
                y, log_slope = turn(start, params)
                (y.sum() + log_slope.sum()).backward()
                for part in (y, log_slope, start.grad, params.grad):
                    assert part.isfinite().all()


def test_a_spline_is_the_identity_at_zero():
    spline = Spline(n_bins=5)
    x = torch.linspace(-6, 6, 101).double()[:, None]
    z, log_slope = spline(x, torch.zeros(101, spline.n_params).double())
    torch.testing.assert_close(z, x, rtol=0, atol=1e-14)
    torch.testing.assert_close(log_slope, torch.zeros_like(x), rtol=0, atol=1e-12)


def test_a_gate_forgets():
    x, params = torch.tensor([[2.0, 4.0]]), torch.tensor([[0.0, 1.0, -1.0, 5.0]])
    z, log_slope = Gate(start=0.0)(x, params)
    g = params[0, :2].sigmoid()
    torch.testing.assert_close(z[0], g * x[0] + (1 - g) * params[0, 2:])
    torch.testing.assert_close(log_slope[0], g.log())
    assert (log_slope < 0).all()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Spline(n_bins=1), "n_bins"),
        (lambda: Spline(n_bins=1000), "fewer than 1000 bins, got 1000"),
        (lambda: Spline(bound=0.0), "bound"),
        (lambda: Gate(start=math.inf), "finite start, got inf"),
        (lambda: Jacobi(0), "max_iter"),
        (lambda: MAF((2, 2)), r"a vector, got event_shape=\(2, 2\)"),
        (lambda: IAF(3, 0), "n_layers"),
        (lambda: MAF(3, order=[1, 2]), "order"),
        (lambda: MAF(3, base=StandardNormal(2)), "3"),
        (lambda: Autoregressive(MADE(3), Affine(3)), "2 outputs for each coordinate"),
        (
            lambda: Autoregressive(MADE(3, outputs_per_dim=2), Affine(4)),
            r"of 3 coordinates, got Affine\(4\)",
        ),
        (lambda: MAF(2).log_prob(torch.zeros(3, 2), torch.zeros(3, 1)), "context"),
        (lambda: MAF(2, context_dim=1).log_prob(torch.zeros(3, 2)), "context"),
        (
            lambda: MAF(2, context_dim=1).log_prob(torch.zeros(3, 2), torch.zeros(3, 2)),
            "context",
        ),
        (lambda: MAF(2).bijection.inverse(torch.full((1, 2), math.nan)), "finite"),
    ],
)
def test_what_does_not_fit_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_another_network_is_refused():
    with pytest.raises(TypeError, match="expected a MADE, got a Linear"):
        Autoregressive(torch.nn.Linear(2, 4), Affine(2))


# --- they learn -----------------------------------------------------------------------------


def test_draws_have_their_density():
    """IAF says of its own draws what it says of them from outside, and MAF likewise."""
    for flow in (randomize(IAF(3, 2, (8,))), randomize(MAF(3, 2, (8,)))):
        x, log_p = flow.rsample_and_log_prob(200)
        torch.testing.assert_close(log_p, flow.log_prob(x), rtol=1e-4, atol=1e-4)
        back = flow.bijection(x)[0]
        assert autodiff_log_det(flow.bijection, x[:2].detach()).shape == (2,)
        assert back.isfinite().all()


@pytest.mark.parametrize(
    ("make", "least"),
    [
        (lambda: MAF(2, 3, (32, 32)), 0.25),
        (lambda: MAF(2, 2, (32, 32), transformer=Spline), 0.2),
    ],
)
def test_it_learns_two_moons(make, least):
    torch.manual_seed(0)
    rows = datasets.moons.sample(3000, np.random.default_rng(0))
    flow = make()
    assert isinstance(flow, Flow)
    fit(flow, rows, steps=500, lr=3e-3, batch_size=256)
    test = datasets.moons.sample(2000, np.random.default_rng(1))
    with torch.no_grad():
        lost = (datasets.moons.log_prob(test) - flow.log_prob(test)).mean().item()
    assert 0 < lost < least


def test_the_right_order_is_exact_and_the_wrong_one_is_not():
    """The example of the MAF paper: x2 ~ N(0, 4), x1 given x2 ~ N(x2^2 / 4, 1)."""
    draw = torch.Generator().manual_seed(0)

    def rows(n):
        x2 = 2 * torch.randn(n, generator=draw)
        x1 = x2.square() / 4 + torch.randn(n, generator=draw)
        return torch.stack([x1, x2], 1)

    train, test = rows(6000), rows(4000)
    truth = torch.distributions.Normal(0, 2).log_prob(test[:, 1])
    truth = truth + torch.distributions.Normal(test[:, 1].square() / 4, 1).log_prob(test[:, 0])
    lost = {}
    for name, order in {"right": [2, 1], "wrong": [1, 2]}.items():
        torch.manual_seed(0)
        flow = MAF(2, 1, (32, 32), order=order)
        fit(flow, train, steps=700, lr=3e-3, batch_size=256)
        with torch.no_grad():
            lost[name] = (truth - flow.log_prob(test)).mean().item()
    assert lost["right"] < 0.02
    assert lost["wrong"] > 0.1
    assert not isinstance(RealNVP(2), MAF)
