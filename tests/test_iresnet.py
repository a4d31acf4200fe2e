"""Residual blocks: bounds are true, the inverse is within its tolerance, estimators are right."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from flowlib import (
    ELU,
    Activation,
    Branch,
    Compose,
    ExactLogDet,
    IResNet,
    LipschitzConv2d,
    LipschitzLinear,
    PowerSeries,
    ResidualBlock,
    Sine,
    Tanh,
    datasets,
    fit,
    fixed_point,
)
from flowlib.iresnet import Linearized, capped_once, lanczos, plus_identity
from tests.models import randomize

CURVES = [Sine, Tanh, ELU]


def gen(seed):
    return torch.Generator().manual_seed(seed)


def pushed(dim, hidden=16, lipschitz=0.97, seed=0, **options):
    """A branch whose layers all reach their bounds, in float64."""
    branch = Branch(dim, hidden, lipschitz, **options).double()
    return randomize(branch, 3.0, seed)


# --- layers ---------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 40), st.integers(1, 40), st.floats(0.1, 2), st.floats(0.01, 5),
    st.sampled_from([torch.float32, torch.float64]), st.integers(0, 99),
)  # fmt: skip
def test_a_frozen_layer_keeps_its_bound_and_no_more(inputs, outputs, bound, spread, dtype, seed):
    layer = LipschitzLinear(inputs, outputs, bound).to(dtype)
    randomize(layer, spread, seed)
    true = torch.linalg.matrix_norm(layer.weight.double(), 2)
    got = torch.linalg.matrix_norm(layer.capped().double(), 2)
    assert layer.norm().item() == pytest.approx(true.item(), rel=1e-4)
    assert got <= bound + 1e-4
    if true < 0.999 * bound:  # within it, the weight is left alone
        assert torch.equal(layer.capped(), layer.weight)
    else:
        assert got.item() == pytest.approx(min(true.item(), bound), rel=1e-4)


def test_singular_values_and_not_eigenvalues():
    layer = LipschitzLinear(2, 2)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[0.5, 5.0], [0.0, 0.5]]))
    assert layer.eval().norm().item() == pytest.approx(5.0495, abs=1e-3)
    assert torch.linalg.matrix_norm(layer.capped(), 2) < 1.0001


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("n_steps", [2, 3, 5, 8])
def test_more_steps_than_there_are_singular_values_do_no_harm(n_steps, dtype):
    """What is left of a power that says nothing new is rounding, and not a direction."""
    values = torch.tensor([2.0, 1.0, 1.0, 0.5], dtype=dtype)
    for seed in range(20):
        start = torch.nn.functional.normalize(torch.randn(4, generator=gen(seed)), dim=0).to(dtype)
        found = lanczos(lambda v: values * v, start, n_steps)
        assert found**2 @ values >= lanczos(lambda v: values * v, start, 1) ** 2 @ values - 1e-5
        if n_steps >= 3:
            assert float(found**2 @ values) == pytest.approx(2, abs=1e-4)


def true_norm(layer):
    """Of a convolution within its bound, as a matrix."""
    unit = torch.eye(layer.right.numel()).reshape(-1, *layer.right.shape)
    return torch.linalg.matrix_norm(layer.operate(unit, layer.capped()).flatten(1), 2).item()


@pytest.mark.parametrize(
    ("inputs", "outputs", "size", "kernel_size"),
    [(2, 2, (8, 8), 1), (4, 4, (4, 4), 1), (1, 1, (2, 2), 3), (1, 4, (2, 2), 3), (3, 2, (5, 1), 3)],
)
def test_small_convolutions_keep_their_bounds_in_training(inputs, outputs, size, kernel_size):
    for seed in range(20):
        layer = randomize(LipschitzConv2d(inputs, outputs, size, kernel_size, 0.5), 3.0, seed)
        layer.train()
        for _ in range(30):
            layer.norm()
        assert max(true_norm(layer) for _ in range(30)) <= 0.5 * 1.001
        assert true_norm(layer.eval()) <= 0.5 * 1.00001


def test_eigenvalues_below_one_are_not_enough_to_be_positive_definite():
    branch = Branch(2, 2, 0.97, scale=1.0).double().eval()
    with torch.no_grad():
        for layer, weight in zip(
            branch.layers, ([[0.9, 50.0], [0.0, -0.9]], [[1.0, 0.0], [0.0, 1.0]]), strict=True
        ):
            layer.weight.copy_(torch.tensor(weight))
            layer.bias.zero_()
    x = torch.zeros(1, 2).double()
    matrix = plus_identity(x, branch.linearize(x))[0]
    assert torch.linalg.eigvalsh((matrix + matrix.T) / 2).min() >= 1 - 0.97


def test_a_narrow_layer_is_exact_in_every_step_and_a_wide_one_converges():
    torch.manual_seed(0)
    for inputs, outputs in ((2, 64), (64, 8), (64, 128)):
        layer = randomize(LipschitzLinear(inputs, outputs)).train()
        for _ in range(3):
            randomize(layer, 1.0).train()
            exact = torch.linalg.matrix_norm(layer.weight, 2).item()
            assert layer.norm().item() == pytest.approx(exact, rel=1e-4)
    calls = {}
    for n_steps in (1, 5):
        wide = randomize(LipschitzLinear(100, 80, n_steps=n_steps)).train()
        wide.right.copy_(torch.nn.functional.normalize(torch.ones(100), dim=0))
        exact = torch.linalg.matrix_norm(wide.weight, 2).item()
        found = [wide.norm().item() for _ in range(300)]
        assert found[0] < 0.99 * exact  # a call starts from the vector of the one before
        assert all(b > a - 1e-5 for a, b in itertools.pairwise(found))
        assert found[-1] == pytest.approx(exact, rel=1e-3)
        calls[n_steps] = next(k for k, one in enumerate(found) if one > 0.999 * exact)
    assert 5 * calls[5] < calls[1]  # more than as many steps of power iteration


def test_one_lanczos_step_is_power_iteration_and_all_of_them_are_exact():
    W = torch.randn(3, 7, 5, generator=gen(0)).double()
    start = torch.nn.functional.normalize(torch.randn(3, 5, generator=gen(1)), dim=1).double()

    def square(v):
        return (W.mT @ (W @ v[..., None]))[..., 0]

    power = torch.nn.functional.normalize(square(start), dim=1)
    torch.testing.assert_close(lanczos(square, start, 1), power)
    right = lanczos(square, start, 5)
    found = (W @ right[..., None]).flatten(1).norm(dim=1)
    torch.testing.assert_close(found, torch.linalg.matrix_norm(W, 2))
    nothing = lanczos(lambda v: 0 * v, start, 4)
    assert torch.equal(nothing, start)


def test_in_evaluation_nothing_changes_between_two_calls_and_a_new_weight_is_seen():
    layer = randomize(LipschitzLinear(100, 80), 1.0)
    x = torch.randn(5, 100)
    first, state = layer(x), {k: v.clone() for k, v in layer.state_dict().items()}
    assert torch.equal(layer(x), first)
    assert all(torch.equal(v, state[k]) for k, v in layer.state_dict().items())
    with torch.no_grad():
        layer.weight.mul_(0.5).add_(torch.randn(80, 100))  # as an optimizer does, in place
    exact = torch.linalg.matrix_norm(layer.weight, 2)
    assert layer.norm().item() == pytest.approx(exact.item(), rel=1e-4)
    layer.weight.data.normal_()  # which autograd does not count
    exact = torch.linalg.matrix_norm(layer.weight, 2)
    assert layer.norm().item() == pytest.approx(exact.item(), rel=1e-4)
    layer.weight.data = torch.randn(80, 100)
    exact = torch.linalg.matrix_norm(layer.weight, 2)
    assert layer.norm().item() == pytest.approx(exact.item(), rel=1e-4)


def test_the_norm_is_differentiated():
    layer = randomize(LipschitzLinear(5, 7), 1.0).double()
    weight = layer.weight
    (ours,) = torch.autograd.grad(layer.norm(), weight)
    (exact,) = torch.autograd.grad(torch.linalg.matrix_norm(weight, 2), weight)
    torch.testing.assert_close(ours, exact, rtol=1e-6, atol=1e-6)


def matrix_of(layer, weight):
    """The convolution as a matrix, column by column."""
    inputs = layer.right.numel()
    columns = layer.operate(
        torch.eye(inputs, dtype=weight.dtype).reshape(-1, *layer.right.shape), weight
    )
    return columns.reshape(inputs, -1).T


@pytest.mark.parametrize(
    ("inputs", "outputs", "size", "kernel_size"),
    [(1, 4, (8, 8), 3), (3, 2, (5, 7), 3), (4, 4, (4, 4), 5), (6, 3, (3, 5), 1),
     (16, 16, (8, 8), 3), (2, 2, (1, 1), 3)],
)  # fmt: skip
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_convolutions_norm_is_the_operators(inputs, outputs, size, kernel_size, dtype):
    layer = LipschitzConv2d(inputs, outputs, size, kernel_size, lipschitz=0.7).to(dtype)
    randomize(layer, 0.5, seed=1)
    A = matrix_of(layer, layer.weight.detach()).double()
    true = torch.linalg.matrix_norm(A, 2).item()
    assert layer.norm().item() == pytest.approx(true, rel=1e-5)
    capped = torch.linalg.matrix_norm(matrix_of(layer, layer.capped().detach()).double(), 2)
    assert capped <= 0.7 + 1e-4
    w = torch.randn(3, outputs, *size, dtype=dtype)
    torch.testing.assert_close(
        layer.adjoint(w, layer.weight).flatten(1).double(), w.flatten(1).double() @ A,
        rtol=1e-4, atol=1e-4,
    )  # fmt: skip
    if kernel_size > 1 and size != (1, 1):
        kernel = torch.linalg.matrix_norm(layer.weight.detach().flatten(1).double(), 2).item()
        assert abs(kernel / true - 1) > 0.1  # the reshaped kernel's is another number


def test_a_convolution_in_training_converges_to_it():
    layer = randomize(LipschitzConv2d(3, 5, (6, 6)), 0.5, seed=0)
    exact = layer.norm().item()
    layer.n_steps = 1
    layer.train().right.copy_(
        torch.nn.functional.normalize(torch.ones(108), dim=0).reshape(3, 6, 6)
    )
    found = [layer.norm().item() for _ in range(200)]
    assert found[0] < exact
    assert found[-1] == pytest.approx(exact, rel=1e-3)


@pytest.mark.parametrize("gain", [1.1, 1.01])
def test_a_convolution_is_not_believed_to_have_its_old_vector(gain):
    layer = LipschitzConv2d(2, 2, (8, 8), lipschitz=0.9).eval()
    with torch.no_grad():
        kernel = torch.randn(3, 3, generator=gen(0))
        layer.weight.zero_()[0, 0] = kernel
        layer.freeze()
        layer.weight[1, 1] = gain * kernel
    true = torch.linalg.matrix_norm(matrix_of(layer, layer.weight.detach()).double(), 2)
    assert layer.norm().item() == pytest.approx(true.item(), rel=1e-6)


def test_a_norm_is_not_rounded_by_autocast_and_half_precision_works():
    layer = randomize(LipschitzLinear(100, 80, 0.9), 1.0)
    for training in (True, False):
        layer.train(training)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            capped = layer.capped()
        for _ in range(20):
            layer.capped()
        capped = layer.capped()
        assert torch.linalg.matrix_norm(capped, 2) <= 0.9 + 1e-3
    half = randomize(LipschitzLinear(100, 80, 0.9), 1.0).train().bfloat16()
    assert half(torch.ones(2, 100, dtype=torch.bfloat16)).isfinite().all()


@pytest.mark.parametrize(
    "layer", [LipschitzLinear(3, 4), LipschitzLinear(100, 80), LipschitzConv2d(1, 2, (4, 4))]
)
def test_weights_that_are_not_numbers_show_and_can_be_saved(layer):
    with torch.no_grad():
        layer.weight.view(-1)[0] = math.nan
    for mode in (True, False):
        assert layer.train(mode).capped().isnan().any()
    assert layer.state_dict()["weight"].isnan().any()


def test_equal_sums_are_not_taken_for_equal_weights():
    layer = LipschitzLinear(2, 2).eval()
    for weight, norm in (([[2.0, 0.0], [0.0, 1.0]], 2.0), ([[2.0, 0.0], [1.0, 0.0]], 5**0.5)):
        with torch.no_grad():
            layer.weight.copy_(torch.tensor(weight))
        assert layer.norm().item() == pytest.approx(norm, rel=1e-6)
    state = layer.state_dict()
    layer.load_state_dict(state | {"length": torch.zeros(())})
    assert layer.norm().item() == pytest.approx(5**0.5, rel=1e-6)


@pytest.mark.parametrize("training", [True, False])
def test_transforms_of_wide_layers_change_no_buffer(training):
    flow = randomize(IResNet(80, 1, 100), 0.5).train(training)
    x = torch.randn(80, generator=gen(0))
    with torch.no_grad():
        for weights in flow.parameters():
            weights.add_(0.01)  # since it was frozen
    before = {k: v.clone() for k, v in flow.named_buffers()}
    J = torch.func.jacrev(lambda v: flow.bijection(v[None])[0][0])(x)
    assert J.isfinite().all()
    assert all(torch.equal(v, before[k]) for k, v in flow.named_buffers())


def test_compiled_training_goes_on_where_it_was():
    torch.compiler.reset()
    layer = randomize(LipschitzLinear(100, 80, 0.9), 1.0).train()
    before = layer.right.clone()
    torch.compile(layer, backend="eager")(torch.randn(2, 100))
    assert not torch.equal(layer.right, before)


def test_a_trained_flow_keeps_its_bounds_in_training_evaluation_and_after_loading():
    torch.manual_seed(0)
    toy = datasets.TOYS["rings"]
    flow = IResNet(2, n_layers=4, hidden=32, lipschitz=0.9)
    x = toy.sample(4000, np.random.default_rng(0))
    fit(flow, x, steps=150, lr=1e-2)
    twin = IResNet(2, n_layers=4, hidden=32, lipschitz=0.9)
    twin.load_state_dict(flow.state_dict())
    for one, mode in itertools.product((flow, twin), (True, False)):
        one.train(mode)
        for block in one.modules():
            if isinstance(block, Branch):
                norms = [torch.linalg.matrix_norm(l.capped(), 2).item() for l in block.layers]
                assert math.prod(norms) <= 0.9 + 1e-4
                J = plus_identity(x[:200], block.linearize(x[:200])) - torch.eye(2)
                assert torch.linalg.matrix_norm(J, 2).max() <= 0.9 + 1e-4
    torch.testing.assert_close(twin.eval().log_prob(x), flow.eval().log_prob(x))


@pytest.mark.parametrize("dim", [2, 70])
def test_layers_that_are_capped_together_are_capped_as_each_by_itself(dim):
    def made():
        flow = randomize(IResNet(dim, 3, (80, 66), lipschitz=0.9).double(), 0.5)
        torch.manual_seed(0)
        for layer in flow.modules():
            if isinstance(layer, LipschitzLinear):
                layer.right.copy_(torch.nn.functional.normalize(torch.randn(layer.inputs), dim=0))
        return flow.train()

    x = torch.randn(50, dim, generator=gen(0)).double()
    together, apart = made(), made()
    with capped_once(together):
        held = [m for m in together.modules() if isinstance(m, LipschitzLinear)]
        assert all(layer.capped() is layer.capped() for layer in held)
    together, first = made(), Compose(list(apart.bijection))
    (z, log_det), (z_1, log_det_1) = together.bijection(x), first(x)
    torch.testing.assert_close((z, log_det), (z_1, log_det_1))
    grads = [
        torch.autograd.grad(z.square().sum() + l.sum(), flow.parameters(), allow_unused=True)
        for z, l, flow in ((z, log_det, together), (z_1, log_det_1, apart))
    ]
    for one, other in zip(*grads, strict=True):
        torch.testing.assert_close(one, other)
    for one, other in zip(together.buffers(), apart.buffers(), strict=True):
        torch.testing.assert_close(one, other)
    assert all(m._held is None for m in together.modules() if isinstance(m, LipschitzLinear))


# --- activations and branches -----------------------------------------------------------------


@pytest.mark.parametrize("curve", CURVES)
@pytest.mark.parametrize("scale", [0.5, 1.0, 7.0])
def test_an_activations_slope_is_autodiffs_and_at_most_one(curve, scale):
    h = torch.linspace(-6, 6, 1001, dtype=torch.float64).requires_grad_()
    value, slope = curve(scale).with_slope(h)
    (exact,) = torch.autograd.grad(value.sum(), h)
    torch.testing.assert_close(slope, exact, rtol=1e-9, atol=1e-9)
    assert slope.abs().max() <= 1
    assert value[500].abs() < 1e-12


@pytest.mark.parametrize("curve", CURVES)
@pytest.mark.parametrize(("event", "hidden"), [(3, 5), (3, (7, 4)), ((2, 3, 2), 4)])
def test_products_with_the_jacobian_are_autodiffs(curve, event, hidden):
    branch = pushed(event, hidden, activation=curve)
    event = branch.event_shape
    x = torch.randn(6, *event, generator=gen(0)).double()
    at = branch.linearize(x)
    torch.testing.assert_close(at.value, branch(x))
    J = torch.func.vmap(torch.func.jacrev(branch))(x).reshape(6, event.numel(), event.numel())
    for lead in ((6,), (4, 6)):
        v = torch.randn(*lead, *event, generator=gen(1)).double()
        flat = v.flatten(len(lead))
        forward, backward = (f(v).flatten(len(lead)) for f in (at.jvp, at.vjp))
        torch.testing.assert_close(forward, (J @ flat[..., None])[..., 0])
        torch.testing.assert_close(backward, (flat[..., None, :] @ J)[..., 0, :])
    assert torch.linalg.matrix_norm(J, 2).max() <= 0.97 + 1e-9


class Plain(torch.nn.Module):
    """A branch that says nothing of its Jacobian."""

    def __init__(self, branch):
        super().__init__()
        self.branch, self.event_shape = branch, branch.event_shape
        self.lipschitz = branch.lipschitz

    def forward(self, x):
        return self.branch(x)


@pytest.mark.parametrize("event", [2, 4, (2, 3, 2)])
@pytest.mark.parametrize("log_det", [ExactLogDet, lambda: PowerSeries(3, 2)])
def test_a_branch_of_another_kind_has_autodiffs_products(event, log_det):
    branch = pushed(event, 5)
    ours = ResidualBlock(branch, log_det()).eval()
    plain = ResidualBlock(Plain(branch), log_det()).eval()
    x = torch.randn(6, *branch.event_shape, generator=gen(0)).double()
    torch.testing.assert_close(plain(x), ours(x))
    z, _ = ours(x)
    assert (plain.inverse(z)[0] - x).abs().max() < 1e-5
    torch.testing.assert_close(plain.inverse(z), ours.inverse(z))
    grads = [
        torch.autograd.grad(block(x)[1].sum(), list(branch.parameters())[:-1], allow_unused=True)
        for block in (ours, plain)
    ]
    for one, other in zip(*grads, strict=True):
        torch.testing.assert_close(one, other)


def test_pictures_are_squeezed_where_asked():
    flow = randomize(IResNet((1, 4, 8), 2, 6, squeeze=2), 0.5)
    assert flow.base.event_shape == (16, 1, 2)
    x = torch.randn(5, 1, 4, 8)
    z, _ = flow.bijection(x)
    assert z.shape == (5, 16, 1, 2)
    torch.testing.assert_close(flow.bijection.inverse(z)[0], x, rtol=1e-4, atol=1e-4)
    assert flow.sample(3).shape == (3, 1, 4, 8)


def test_it_starts_as_the_identity():
    z, log_det = ResidualBlock(Branch(4, 8))(x := torch.randn(5, 4))
    assert torch.equal(z, x)
    assert torch.equal(log_det, torch.zeros(5))
    scales = [a.scale for a in Branch(2, (8, 50)).activations]
    assert scales == [2.0, 5.0]
    assert [a.scale for a in Branch(9, 4).activations] == [1.0]
    bounds = [layer.lipschitz for layer in Branch(2, (8, 50), 0.9).layers]
    assert bounds == pytest.approx([0.9 ** (1 / 3)] * 3)


# --- log-determinants -------------------------------------------------------------------------


@pytest.mark.parametrize("dim", [1, 2, 3, 4, 7])
def test_the_exact_log_det_is_slogdets(dim):
    branch = pushed(dim)
    x = torch.randn(50, dim, generator=gen(0)).double()
    J = torch.func.vmap(torch.func.jacrev(branch))(x)
    exact = torch.linalg.slogdet(torch.eye(dim) + J)
    assert (exact.sign == 1).all()
    got = ExactLogDet()(x, branch.linearize(x))
    torch.testing.assert_close(got, exact.logabsdet, rtol=0, atol=1e-10)


@pytest.mark.parametrize(
    ("event", "kernel_size", "products"),
    [
        ((1, 11, 12), 3, 25),
        ((2, 6, 9), 3, 50),
        ((1, 3, 12), 3, 15),  # lower than what an output sees
        ((2, 4, 4), 3, 32),  # an output sees all of it
        ((1, 9, 1), 3, 5),
        ((1, 5, 11), 5, 45),
        ((3, 4, 2), 1, 3),
    ],
)
def test_pixels_that_are_far_apart_share_a_product(event, kernel_size, products):
    branch = pushed(event, 4, kernel_size=kernel_size)
    x = torch.randn(3, *event, generator=gen(0)).double()
    dim = branch.event_shape.numel()
    J = torch.func.vmap(torch.func.jacrev(branch))(x).reshape(3, dim, dim)
    at, seen = branch.linearize(x), []
    counted = at._replace(jvp=lambda v: (seen.append(len(v)), at.jvp(v))[1])
    matrix = plus_identity(x, counted)
    assert seen == [products]
    torch.testing.assert_close(matrix, torch.eye(dim).double() + J, rtol=0, atol=1e-12)
    torch.testing.assert_close(
        ExactLogDet()(x, at), torch.linalg.slogdet(matrix)[1], rtol=0, atol=1e-10
    )


class Mixed(Branch):
    """The mean of the whole picture, beside the layers."""

    def forward(self, x):
        return super().forward(x) + 0.02 * x.mean((-1, -2), keepdim=True)

    def linearize(self, x, folded=None):
        at = super().linearize(x, folded)
        mean = lambda v: 0.02 * v.mean((-1, -2), keepdim=True)  # noqa: E731
        return Linearized(
            at.value + mean(x), *(lambda v, f=f: f(v) + mean(v) for f in at[1:3]), at.reach
        )


class Dilated(LipschitzConv2d):
    """A kernel with gaps, which looks twice as far."""

    def _convolved(self, convolve, v, weight):
        made = convolve(v.reshape(-1, *v.shape[-3:]), weight, padding=2, dilation=2)
        return made.reshape(*v.shape[:-3], *made.shape[1:])


def test_a_branch_that_may_look_further_shares_no_products():
    mixed = randomize(Mixed((1, 8, 9), 4, 0.5).double(), 1.0)
    gaps = randomize(Branch((1, 8, 9), 4, 0.5).double(), 1.0)
    gaps.layers[0] = randomize(Dilated(1, 4, (8, 9), 3, 0.5).double(), 1.0, 3)
    x = torch.randn(3, 1, 8, 9, generator=gen(0)).double()
    for branch in (mixed, gaps):
        J = torch.func.vmap(torch.func.jacrev(branch))(x).reshape(3, 72, 72)
        exact = torch.linalg.slogdet(torch.eye(72) + J)[1]
        got = ExactLogDet()(x, branch.linearize(x))
        torch.testing.assert_close(got, exact, rtol=0, atol=1e-10)


def test_a_reach_of_events_that_are_no_pictures_is_not_used():
    x = torch.zeros(1, 2, 2).double()
    at = Linearized(
        x, lambda w: w, lambda v: 0.1 * v.sum((-1, -2), keepdim=True).expand(v.shape), 0
    )
    assert ExactLogDet()(x, at).item() == pytest.approx(math.log(1.4))


def test_determinants_in_pieces_are_those_of_the_whole(monkeypatch):
    branch = pushed((1, 7, 8), 4)
    x = torch.randn(5, 1, 7, 8, generator=gen(0)).double()
    whole = ExactLogDet()(x, branch.linearize(x))
    monkeypatch.setattr("flowlib.iresnet.PIECE", 2 * 56**2)
    torch.testing.assert_close(ExactLogDet()(x, branch.linearize(x)), whole, rtol=0, atol=1e-12)


def test_the_gradient_goes_through_shared_products():
    branch = pushed((1, 7, 8), 4)
    x = torch.randn(3, 1, 7, 8, generator=gen(0)).double()
    weights = torch.rand(3, generator=gen(1)).double()
    grads = []
    for at in (branch.linearize(x), branch.linearize(x)._replace(reach=None)):
        loss = (weights * ExactLogDet()(x, at)).sum()
        grads.append(torch.autograd.grad(loss, list(branch.parameters()), materialize_grads=True))
    assert all(g.any() for g in grads[0][:-1])  # the last bias only shifts
    torch.testing.assert_close(grads[0], grads[1], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("lipschitz", [0.5, 0.9])
def test_the_series_error_is_within_its_bound_on_every_row(lipschitz):
    branch = pushed(3, lipschitz=lipschitz)
    x = torch.randn(200, 3, generator=gen(0)).double()
    J = torch.func.vmap(torch.func.jacrev(branch))(x)
    exact, total, power = torch.linalg.slogdet(torch.eye(3) + J)[1], 0, torch.eye(3).double()
    for k in range(1, 9):
        power = power @ J
        total = total + (-1) ** (k + 1) * power.diagonal(dim1=1, dim2=2).sum(1) / k
        assert (total - exact).abs().max() <= PowerSeries.bias_bound(k, lipschitz, 3)
    assert PowerSeries.bias_bound(1, 0.5, 2) == pytest.approx(2 * (math.log(2) - 0.5))


@pytest.mark.parametrize("distribution", ["rademacher", "gaussian"])
def test_the_estimator_is_unbiased_with_the_variance_that_is_predicted(distribution):
    """One term is vᵀJv. Its variance is twice the sum of the symmetric part's squared entries, of
    signs without the diagonal."""
    branch = pushed(4)
    row = torch.randn(1, 4, generator=gen(3)).double()
    x = row.expand(40_000, 4)
    J = torch.func.jacrev(lambda v: branch(v))(row[0])
    torch.manual_seed(0)
    one = PowerSeries(1, distribution=distribution).train()(x, branch.linearize(x))
    trace, part = J.trace(), (J + J.T) / 2
    if distribution == "rademacher":
        part = part - part.diagonal().diag()
    predicted = 2 * part.square().sum()
    assert abs(one.mean() - trace) < 4 * (predicted / len(x)).sqrt()
    assert one.var().item() == pytest.approx(predicted.item(), rel=0.05)
    several = PowerSeries(5, 2, distribution).train()(x, branch.linearize(x))
    powers = [torch.linalg.matrix_power(J, k).trace() / k for k in range(1, 6)]
    expected = sum((-1) ** k * p for k, p in enumerate(powers))
    assert abs(several.mean() - expected) < 4 * several.std() / len(x) ** 0.5


def test_in_evaluation_the_probes_are_the_same_in_every_call():
    block = ResidualBlock(pushed(3), PowerSeries(3)).eval()
    x = torch.randn(5, 3).double()
    assert torch.equal(block(x)[1], block(x)[1])
    block.train()
    assert not torch.equal(block(x)[1], block(x)[1])


@pytest.mark.parametrize("distribution", ["rademacher", "gaussian"])
def test_in_evaluation_a_rows_probes_do_not_depend_on_the_other_rows(distribution):
    block = ResidualBlock(pushed(3), PowerSeries(3, 2, distribution)).eval()
    x = torch.randn(9, 3, generator=gen(0)).double()
    whole = block(x)[1]
    torch.testing.assert_close(block(x[:4])[1], whole[:4])
    torch.testing.assert_close(block(torch.cat([x[:4], x[4:] + 1]))[1][:4], whole[:4])
    rows = torch.vmap(lambda x: block(x[None])[1][0])(x)
    torch.testing.assert_close(rows, torch.cat([block(row[None])[1] for row in x]))
    assert (rows[1:] != whole[1:]).all()  # each row of a batch has probes of its own
    many = PowerSeries(1, 4000, distribution)
    v = many.redraw(x[:2], 4000, many.again()).flatten(1).double()
    torch.testing.assert_close(v.T @ v / 4000, torch.eye(6).double(), rtol=0, atol=0.1)
    assert v.mean(0).abs().max() < 0.08


# --- the fixed point --------------------------------------------------------------------------


@pytest.mark.parametrize("accelerated", [True, False])
@pytest.mark.parametrize("slope", [-0.97, 0.97])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_error_that_is_stated_is_the_error(accelerated, slope, dtype):
    z = torch.randn(1000, 1, generator=gen(0)).to(dtype)
    found = fixed_point(
        lambda x, rows: z[rows] - slope * x, torch.zeros_like(z), 0.97, accelerated=accelerated
    )
    true = (found.x.double() - z.double() / (1 + slope)).norm(dim=1)
    assert (true <= found.error).all()
    if dtype == torch.float64:
        assert (true <= 1e-5).all()
        assert (found.error <= 1.001e-5).all()


@pytest.mark.parametrize("accelerated", [True, False])
@pytest.mark.parametrize("dim", [1, 2, 16])
def test_in_float32_the_error_is_stated_where_large_numbers_cancel(accelerated, dim):
    for seed in range(5):
        torch.manual_seed(seed)
        branch = randomize(Branch(dim, 64), 1.0, seed)
        with torch.no_grad():
            branch.layers[-1].bias.normal_(0, 3)
        block = ResidualBlock(branch.double()).eval()
        x = torch.randn(500, dim).double() * torch.logspace(-4, 0, 500).double()[:, None]
        with torch.no_grad():
            z = (x + branch(x)).float()
            exact = block.solve(z.double()).x
        found = block.float().solve(z, accelerated)
        assert ((found.x.double() - exact).norm(dim=1) <= found.error + 1e-5).all()


@pytest.mark.parametrize("event", [2, 16, (1, 4, 4)])
@pytest.mark.parametrize("lipschitz", [0.9, 0.97])
def test_an_inverse_is_within_the_tolerance(event, lipschitz):
    block = ResidualBlock(pushed(event, 64, lipschitz), tol=1e-5).eval()
    x = 2 * torch.randn(1000, *block.event_shape, generator=gen(1)).double()
    with torch.no_grad():
        z, _ = block(x)
        for accelerated in (True, False):
            found = block.solve(z, accelerated)
            true = (found.x - x).flatten(1).norm(dim=1)
            assert (true <= found.error).all()
            assert (true <= 1e-5).all()


def test_a_rotation_takes_six_evaluations_at_most():
    turn = torch.tensor([[math.cos(1), -math.sin(1)], [math.sin(1), math.cos(1)]]).double()
    A, z = 0.97 * turn, torch.randn(1000, 2, generator=gen(0)).double()
    found = fixed_point(lambda x, rows: z[rows] - x @ A.T, torch.zeros_like(z), 0.97)
    assert found.evaluations.max() <= 6
    plain = fixed_point(lambda x, rows: z[rows] - x @ A.T, 0 * z, 0.97, accelerated=False)
    assert plain.evaluations.min() > 300
    torch.testing.assert_close(found.x, plain.x, rtol=0, atol=2e-5)


def test_with_the_jacobian_of_an_affine_map_two_evaluations_are_enough():
    A = torch.nn.init.orthogonal_(torch.empty(16, 16, dtype=torch.float64), generator=gen(0)) * 0.97
    z = torch.randn(50, 16, generator=gen(1)).double()
    found = fixed_point(lambda x, rows: z[rows] - x @ A.T, 0 * z, 0.97, slope=-A)
    assert found.evaluations.max() == 2
    true = torch.linalg.solve(torch.eye(16).double() + A, z.T).T
    assert (found.x - true).norm(dim=1).max() < 1e-9


def test_a_slope_that_is_wrong_costs_evaluations_and_no_accuracy():
    A = torch.nn.init.orthogonal_(torch.empty(8, 8, dtype=torch.float64), generator=gen(0)) * 0.9
    z = torch.randn(50, 8, generator=gen(1)).double()
    true = torch.linalg.solve(torch.eye(8).double() + A, z.T).T
    for slope in (A, A.T, 0.99 * torch.eye(8).double(), torch.zeros_like(A)):
        found = fixed_point(lambda x, rows: z[rows] - x @ A.T, 0 * z, 0.9, slope=slope)
        assert ((found.x - true).norm(dim=1) <= found.error).all()
        assert (found.error <= 1.001e-5).all()


@pytest.mark.parametrize("event", [16, (1, 4, 4)])
def test_one_jacobian_for_all_rows_saves_evaluations(event):
    branch = Branch(event, 64, 0.97, Sine, 1.0)
    first, last = branch.layers
    with torch.no_grad():  # nearly 0.97 times a rotation, or a convolution and its transpose
        if event == 16:
            turn = torch.nn.init.orthogonal_(torch.empty(16, 16), generator=gen(0))
            last.weight.copy_(turn @ first.weight.mT)
        else:
            last.weight.copy_(first.weight.transpose(0, 1).flip(2, 3))
        for layer in (first, last):
            layer.weight.mul_(10), layer.bias.zero_()
    block = ResidualBlock(branch.double()).eval()
    x = 0.2 * torch.randn(200, *block.event_shape, generator=gen(1)).double()
    with torch.no_grad():
        z, _ = block(x)
        alone = fixed_point(lambda x, rows: z[rows] - branch(x), z, branch.lipschitz)
    found = block.solve(z)
    assert ((found.x - x).flatten(1).norm(dim=1) <= found.error).all()
    assert 2 * found.evaluations.double().mean() < alone.evaluations.double().mean()


def test_a_step_that_does_not_shrink_is_taken_back():
    """What lies across a kink, an extrapolation does not foresee: then the plain step follows."""
    back = 0
    for seed in range(120):
        z = 6 * torch.randn(1, 2, generator=gen(seed)).double()
        A = torch.randn(2, 2, generator=gen(seed + 1)).double()
        A = 0.97 * A / torch.linalg.matrix_norm(A, 2)
        points, answers = [], []

        def step(x, rows, z=z, A=A, points=points, answers=answers):
            points.append(x)
            answers.append(z - (x @ A.T).abs())
            return answers[-1]

        found = fixed_point(step, torch.zeros_like(z), 0.97, tol=1e-8)
        assert torch.equal(found.x, answers[-1])
        assert (answers[-1] - step(found.x, None)).norm() < 1e-8
        best, plain = 0, True
        for k in range(1, found.evaluations.item()):
            before, now = (float((answers[i] - points[i]).norm()) for i in (best, k))
            if plain or now <= 0.97 * before:
                best, plain = k, False
            else:
                back, plain = back + 1, True
                if k + 1 < found.evaluations.item():
                    assert torch.equal(points[k + 1], answers[best])
    assert back > 5


def test_an_inverse_freezes_the_branch_and_leaves_its_modes():
    branch = pushed(2)
    branch.train()
    branch.layers[0].eval()
    block, modes = ResidualBlock(branch), []
    original = branch.forward
    branch.forward = lambda x: (modes.append(branch.layers[1].training), original(x))[1]
    block.solve(torch.zeros(3, 2).double())
    assert modes
    assert not any(modes)
    assert branch.training
    assert branch.layers[1].training
    assert not branch.layers[0].training


def test_a_determinant_that_is_not_positive_is_not_a_log_det():
    x = torch.zeros(1, 4).double()
    turned = Linearized(x, lambda w: w, lambda v: v * torch.tensor([-3.0, 0, 0, 0]).double())
    assert ExactLogDet()(x, turned).isnan().all()


def test_rows_that_are_done_are_not_evaluated_any_more():
    z = torch.tensor([[0.0], [1e6]]).double()
    seen = []

    def step(x, rows):
        seen.append(rows.tolist())
        return z[rows] - 0.9 * x

    found = fixed_point(step, torch.zeros_like(z), 0.9, accelerated=False)
    assert seen[0] == [0, 1]
    assert seen[-1] == [1]
    assert found.evaluations.tolist() == [1, len(seen)]


def test_gradients_through_the_inverse_are_those_of_500_plain_steps():
    block = ResidualBlock(pushed(3, 8, 0.9)).eval()
    z = torch.randn(6, 3, generator=gen(0)).double().requires_grad_()
    weights = [z, *block.parameters()]
    x, log_det = block.inverse(z)
    ours = torch.autograd.grad(x.square().sum() + log_det.sum(), weights)
    x = z
    for _ in range(500):
        x = z - block.branch(x)
    log_det = -ExactLogDet()(x, block.branch.linearize(x))
    exact = torch.autograd.grad(x.square().sum() + log_det.sum(), weights)
    for one, other in zip(ours, exact, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6)


# --- bad input --------------------------------------------------------------------------------


class Steep(Activation):
    def curve(self, h):
        return 1.5 * h.tanh(), 1.5 * (1 - h.tanh() ** 2)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Branch(2, lipschitz=1.0), "a lipschitz bound below 1, got 1.0"),
        (lambda: Branch(2, lipschitz=0), "positive, finite lipschitz, got 0"),
        (lambda: IResNet(2, lipschitz=1.2), "below 1, got 1.2"),
        (lambda: Branch(2, hidden=()), "positive widths"),
        (lambda: Branch(2, 8, activation=Steep), r"slope reaches 1\.5"),
        (lambda: Branch(2, 8, activation=Steep, scale=1e3), r"slope reaches 1\.5"),
        (lambda: Sine(0), "positive, finite scale"),
        (lambda: IResNet((2, 2)), "expected a vector or a picture"),
        (lambda: IResNet((1, 3, 4), squeeze=1), "sides that 2 divides"),
        (lambda: IResNet((1, 4, 4), squeeze=-1), "squeeze of 0 or more"),
        (lambda: LipschitzConv2d(1, 2, 8), "expected a size"),
        (lambda: LipschitzConv2d(1, 2, (8, 8), 2), "odd kernel_size, got 2"),
        (lambda: PowerSeries(0), "n_terms of 1 or more"),
        (lambda: PowerSeries(2, distribution="uniform"), "uniform"),
        (lambda: LipschitzLinear(2, 0), "outputs"),
        (lambda: ResidualBlock(Branch(2), tol=-1), "tol"),
        (lambda: fixed_point(lambda x, r: x, torch.zeros(2, 1), 1.0), "below 1"),
        (lambda: fixed_point(lambda x, r: x, torch.tensor([[math.nan]]), 0.5), "finite start"),
        (lambda: fixed_point(lambda x, r: x, torch.zeros(3), 0.5), r"\(rows, \.\.\.\).*got \(3,\)"),
        (
            lambda: fixed_point(lambda x, r: x, torch.zeros(3, 1).int(), 0.5),
            "got .* in torch.int32",
        ),
        (
            lambda: LipschitzConv2d(1, 2, (2, 2))(torch.zeros(1, 1, 3, 2)),
            r"of \(2, 2\), got \(3, 2\)",
        ),
        (
            lambda: fixed_point(lambda x, r: x, torch.zeros(1, 2), 0.5, slope=torch.eye(3)),
            r"slope \(2, 2\), got \(3, 3\)",
        ),
    ],
)
def test_bad_input_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_what_does_not_converge_is_said():
    z = torch.ones(3, 1).double()
    with pytest.raises(RuntimeError, match="3 of 3 rows are not within 1e-05 after 5"):
        fixed_point(lambda x, rows: z[rows] - 0.97 * x, 0 * z, 0.97, 1e-5, 5, accelerated=False)
    with pytest.raises(RuntimeError, match="F returned NaN, or numbers whose length is infinite"):
        fixed_point(lambda x, rows: x / 0, z, 0.5)
    with pytest.raises(TypeError, match="a Linear without the attribute event_shape"):
        ResidualBlock(torch.nn.Linear(2, 2))
    unbounded = Plain(Branch(2, 4))
    unbounded.lipschitz = 1.1
    with pytest.raises(ValueError, match=r"below 1, got 1\.1"):
        ResidualBlock(unbounded)
    with pytest.raises(ValueError, match="expected finite values"):
        IResNet(2, 1, 4).bijection.inverse(torch.tensor([[1.0, math.inf]]))


# --- where little is asked of a block ---------------------------------------------------------


class Bent(torch.nn.Module):
    """``sin(x) / 2``, without a parameter."""

    event_shape, lipschitz = torch.Size([1]), 0.5

    def forward(self, x):
        return 0.5 * x.sin()


def test_forward_mode_through_the_inverse():
    block, z = ResidualBlock(Bent()), torch.zeros(1, 1).double()
    inverse = lambda z: block.inverse(z)[0]  # noqa: E731
    slope = torch.func.jvp(inverse, (z,), (torch.ones_like(z),))[1]
    assert slope.item() == pytest.approx(2 / 3, abs=1e-10)
    assert torch.func.jacfwd(inverse)(z).item() == pytest.approx(2 / 3, abs=1e-10)


@pytest.mark.parametrize("way", ["forward", "inverse"])
@pytest.mark.parametrize("grad", [True, False])
def test_forward_mode_along_the_weights(way, grad):
    block = ResidualBlock(pushed(2)).eval()
    x = torch.randn(5, 2, generator=gen(0)).double()
    block(x)  # frozen now
    weights = {name: w.detach() for name, w in block.named_parameters()}
    along = {name: torch.randn(w.shape, generator=gen(1)).double() for name, w in weights.items()}

    class Way(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.block = block

        def forward(self, x):
            return getattr(self.block, way)(x)

    def made(weights):
        named = {f"block.{name}": w for name, w in weights.items()}
        return torch.func.functional_call(Way(), named, (x,))

    with torch.set_grad_enabled(grad):
        tangents = torch.func.jvp(made, (weights,), (along,))[1]
    step = 1e-5
    ahead, behind = (
        made({name: w + s * step * along[name] for name, w in weights.items()}) for s in (1, -1)
    )
    for tangent, a, b in zip(tangents, ahead, behind, strict=True):
        torch.testing.assert_close(tangent, (a - b) / (2 * step), rtol=1e-4, atol=1e-4)


def test_solve_computes_in_full_precision_under_autocast():
    block = ResidualBlock(pushed(6, 64).float()).eval()
    z = torch.randn(64, 6, generator=gen(0))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = block.solve(z).x
    torch.testing.assert_close(found, block.solve(z).x, rtol=0, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("log_det", [ExactLogDet, lambda: PowerSeries(4)])
def test_half_precision_both_ways(dtype, log_det):
    block = ResidualBlock(Branch(4, 16, 0.5), log_det()).to(dtype).eval()
    x = torch.randn(64, 4, generator=gen(0)).to(dtype)
    for grad in (False, True):
        with torch.set_grad_enabled(grad):
            z, _ = block(x)
            back, _ = block.inverse(z)
        assert back.dtype == dtype
        torch.testing.assert_close(back, x, rtol=0, atol=0.1)


def test_half_precision_comes_back_from_autocast():
    block = ResidualBlock(pushed(4).float(), PowerSeries(4)).eval()
    x = torch.randn(64, 4, generator=gen(0)).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        back, _ = block.inverse(block(x)[0])
    torch.testing.assert_close(back, x.float(), rtol=0, atol=0.1)


def test_no_rows_of_a_branch_that_says_nothing_of_its_jacobian():
    block = ResidualBlock(Plain(Branch(2, 4)))
    for made in (block(torch.zeros(0, 2)), block.inverse(torch.zeros(0, 2))):
        assert [part.shape for part in made] == [(0, 2), (0,)]


@pytest.mark.parametrize("slope", [torch.eye(4), torch.full((4, 4), math.nan)])
def test_a_slope_without_newtons_step_is_not_used(slope):
    found = fixed_point(lambda x, rows: 1 - 0.5 * x, torch.zeros(3, 4), 0.5, slope=slope)
    torch.testing.assert_close(found.x, torch.full((3, 4), 2 / 3), rtol=0, atol=1e-5)


def test_a_bold_step_out_of_the_domain_is_taken_back():
    start = torch.full((3, 4), 4.0)
    found = fixed_point(lambda x, rows: x.sqrt(), start, 0.5, slope=0.99 * torch.eye(4))
    torch.testing.assert_close(found.x, torch.ones(3, 4), rtol=0, atol=1e-4)


def test_under_vmap_there_is_one_step_at_least():
    block = ResidualBlock(Bent(), tol=1e3)
    z = torch.ones(3, 1).double()
    found = torch.vmap(lambda z: block.inverse(z[None])[0][0])(z)
    torch.testing.assert_close(found, z - 0.5 * z.sin())
