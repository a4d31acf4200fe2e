"""flowlib.coupling beyond the one list: masks, context, normalization, and what goes wrong."""

import copy
import math

import numpy as np
import pytest
import torch

from flowlib import (
    MLP,
    NICE,
    ActNorm,
    Additive,
    Affine,
    BatchNorm,
    Compose,
    Coupling,
    Flow,
    MaskedCoupling,
    MultivariateNormal,
    RealNVP,
    StandardNormal,
    alternating_mask,
    datasets,
    fit,
    fit_variational,
    half_mask,
    random_mask,
)
from tests.models import randomize

# --- flows --------------------------------------------------------------------------------


def test_the_start_only_reorders_coordinates_and_initialize_scales_them():
    x = torch.randn(200, 4) * torch.tensor([1.0, 5.0, 0.1, 30.0]) + 7
    for make in (NICE, RealNVP):
        flow = make(4)
        for data in (x, (x - x.mean(0)) / x.std(0, correction=0)):
            z, _ = flow.bijection(x)
            torch.testing.assert_close(z.sort().values, data.sort().values)
            flow.initialize(x)


def test_realnvp_learns_two_moons():
    rng = np.random.default_rng(0)
    train, test = datasets.moons.sample(4000, rng).split(2000)
    flow = RealNVP(2)
    fit(flow, train, steps=600, lr=3e-3, validation=test)
    with torch.no_grad():
        above = (datasets.moons.log_prob(test) - flow.log_prob(test)).mean().item()
    assert above < 0.3


def test_a_conditional_flow_learns_which_moon():
    rng = np.random.default_rng(0)
    label = torch.as_tensor(rng.integers(0, 2, 2000), dtype=torch.float32)[:, None]
    x = torch.randn(2000, 2) * 0.3 + torch.cat([4 * label - 2, -label], 1)
    flow = RealNVP(2, hidden=(16,), context_dim=1)
    fit(flow, (x, label), steps=300, lr=0.01)
    drawn = flow.sample(500, torch.tensor([[0.0], [1.0]]))
    assert drawn.shape == (500, 2, 2)
    means = drawn.mean(0)
    torch.testing.assert_close(means, torch.tensor([[-2.0, 0.0], [2.0, -1.0]]), atol=0.2, rtol=0)


# --- layers -------------------------------------------------------------------------------


def test_the_split_form_is_the_mask_form():
    mask = random_mask(6, torch.Generator().manual_seed(1))
    layer = randomize(Coupling(mask, MLP(3, (8,), 6), Affine(3))).double()
    x = torch.randn(20, 6, dtype=torch.float64)
    z, log_det = layer(x)
    b = mask.double()
    raw, shift = layer.conditioner(x[:, mask]).chunk(2, 1)
    low, width = layer.transformer.low, layer.transformer.width
    s, t = torch.zeros(20, 6).double(), torch.zeros(20, 6).double()
    s[:, ~mask], t[:, ~mask] = low + width * raw.sigmoid(), shift
    torch.testing.assert_close(z, b * x + (1 - b) * (x * s.exp() + t))
    torch.testing.assert_close(log_det, ((1 - b) * s).sum(1))


def test_the_jacobian_is_triangular_in_blocks():
    mask = half_mask(5)
    layer = randomize(Coupling(mask, MLP(2, (8,), 6), Affine(3))).double()
    jacobian = torch.func.jacrev(lambda v: layer(v[None])[0][0])(torch.randn(5).double())
    assert torch.equal(jacobian[mask][:, mask], torch.eye(2).double())
    assert (jacobian[mask][:, ~mask] == 0).all()
    moved = jacobian[~mask][:, ~mask]
    assert (moved == moved.diag().diag()).all()
    assert (jacobian[~mask][:, mask] != 0).all()


def test_the_affine_scale_is_bounded_on_both_sides_and_the_same_both_ways():
    affine = Affine(1, bound=2.0).double()
    raw = torch.tensor([[-1e3], [-1.0], [1.0], [1e3]], dtype=torch.float64)
    params = torch.cat([raw, torch.zeros_like(raw)], 1)
    x = torch.ones(4, 1).double()
    z, log_slope = affine(x, params)
    torch.testing.assert_close(log_slope[[0, 3], 0], torch.tensor([-2.0, 2.0]).double())
    back, log_back = affine.inverse(z, params)
    torch.testing.assert_close(back, x)
    torch.testing.assert_close(log_back, -log_slope)
    assert log_slope.max().exp() > 5  # it can expand


def test_additive_layers_keep_volume():
    layer = randomize(Coupling(half_mask(4), MLP(2, (8,), 2), Additive()))
    assert torch.equal(layer(torch.randn(5, 4))[1], torch.zeros(5))


def test_masks():
    for dim in (2, 3, 8):
        for masks in (
            (alternating_mask(dim), alternating_mask(dim, 1)),
            (half_mask(dim), half_mask(dim, second=True)),
        ):
            assert torch.equal(masks[0], ~masks[1])
            assert masks[0].dtype == torch.bool
    one, two = (random_mask(20, torch.Generator().manual_seed(s)) for s in (0, 1))
    assert one.sum() == two.sum() == 10
    assert not torch.equal(one, two)


# --- normalization ------------------------------------------------------------------------


def test_actnorm_starts_once_and_remembers_it():
    flow = Flow(Compose([ActNorm(3)]), StandardNormal(3))
    x = torch.randn(100, 3) * 4 + 2
    flow.initialize(x)
    before = copy.deepcopy(flow.state_dict())
    loaded = Flow(Compose([ActNorm(3)]), StandardNormal(3))
    loaded.load_state_dict(before)
    loaded.initialize(x * 100)  # what fit does; the weights that were loaded must stay
    for name, value in loaded.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_actnorm_leaves_a_constant_column_its_scale():
    x = torch.randn(50, 2)
    x[:, 1] = 3.0
    norm = ActNorm(2)
    norm.initialize(x)
    z, log_det = norm(x)
    assert torch.isfinite(z).all()
    assert torch.isfinite(log_det).all()
    assert (z[:, 1] == 0).all()


@pytest.mark.parametrize("event", [(3,), (3, 4, 4)])
def test_batch_norm_in_training_is_torchs(event):
    norm = BatchNorm(event).double()
    make = torch.nn.BatchNorm1d if len(event) == 1 else torch.nn.BatchNorm2d
    theirs = make(3).double()
    x = (torch.randn(16, *event) * 3 + 1).double().requires_grad_()
    for _ in range(3):
        z, log_det = norm(x)
        expected = theirs(x)
        torch.testing.assert_close(z, expected)
    weight = torch.randn_like(z)
    ours, others = (torch.autograd.grad((y * weight).sum(), x)[0] for y in (z, expected))
    torch.testing.assert_close(ours, others)
    torch.testing.assert_close(norm.running_mean.flatten(), theirs.running_mean)
    var = x.var([d for d in range(x.dim()) if d != 1], correction=0)
    expected = 1 + (1 - 0.9**3) * (var - 1)  # three equal batches, from a variance of 1
    torch.testing.assert_close(norm.running_var.flatten(), expected)
    places = math.prod(event[1:])
    torch.testing.assert_close(log_det, (-0.5 * places * (var + 1e-5).log().sum()).expand(16))


def test_batch_norm_in_evaluation_does_not_mix_rows_and_in_training_does():
    norm = BatchNorm(2)
    x = torch.randn(30, 2) * 2 + 1
    for _ in range(100):
        norm(x)
    norm.eval()
    whole, alone = norm(x)[0][:1], norm(x[:1])[0]
    assert torch.equal(whole, alone)
    torch.testing.assert_close(norm.inverse(norm(x)[0])[0], x)
    norm.train()
    with pytest.raises(RuntimeError, match="has no inverse; call eval"):
        norm.inverse(x)
    with pytest.raises(ValueError, match=r"batch of shape \(1, 2\) has at most one value"):
        norm(x[:1])


def test_actnorm_knows_a_constant_from_a_small_deviation():
    x = torch.stack([torch.randn(500) * 1e-7, torch.full((500,), 1234.567), torch.zeros(500)], 1)
    norm = ActNorm(3)
    norm.initialize(x)
    assert norm(x)[0][:, 0].std().item() == pytest.approx(1, rel=0.01)
    assert norm.log_scale[1:].tolist() == [0, 0]


def test_weights_that_were_trained_are_not_started_again():
    flow = RealNVP(2, n_layers=2, hidden=(8,))
    target = MultivariateNormal([5.0, 5.0], [[0.1, 0.0], [0.0, 0.1]])
    fit_variational(flow, target.log_prob, steps=20, lr=0.05)
    before = copy.deepcopy(flow.state_dict())
    flow.initialize(target.sample(500))  # what a fit to data would do next
    for name, value in flow.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_batch_norm_starts_from_the_data():
    flow = Flow(Compose([BatchNorm(2), ActNorm(2)]), StandardNormal(2))
    x = torch.randn(100, 2) + 50
    flow.initialize(x)
    torch.testing.assert_close(flow.bijection[0].running_mean, x.mean(0))
    torch.testing.assert_close(flow.bijection[0].running_var, x.var(0, correction=0))


def test_one_row_or_running_statistics_start_nothing():
    x = 50 * torch.randn(500, 2)
    norm = ActNorm(2)
    norm.initialize(x[:1])
    norm.initialize(x)
    assert norm(x)[0].std(0).sub(1).abs().max() < 0.01
    batch = BatchNorm(2)
    batch.initialize(x)
    before = batch.running_var.clone()
    batch.initialize(x[:3])
    assert torch.equal(batch.running_var, before)


def test_actnorm_in_float64_sees_small_deviations():
    x = 1.7e9 + 1000 * torch.randn(500, 1).double()
    norm = ActNorm(1).double()
    norm.initialize(x)
    assert norm(x)[0].std().item() == pytest.approx(1, rel=0.01)


def test_states_that_were_cast_or_averaged_load():
    flow = RealNVP(4, n_layers=2, hidden=8)
    state = flow.state_dict()
    RealNVP(4, n_layers=2, hidden=8).load_state_dict({k: v.half() for k, v in state.items()})
    average = torch.optim.swa_utils.AveragedModel(flow)
    average.update_parameters(flow)
    average.update_parameters(flow)
    x = torch.randn(5, 4)
    torch.testing.assert_close(average.module.log_prob(x), flow.log_prob(x))


def test_a_state_of_another_size_is_refused_and_changes_nothing():
    layer = Coupling(half_mask(4), MLP(2, 8, 4), Affine(2))
    before = copy.deepcopy(layer.state_dict())
    other = {name: value + 1 for name, value in before.items()}
    with pytest.raises(ValueError, match=r"saved mask of shape \(4,\) with 2 kept, got .* with 3"):
        layer.load_state_dict({**other, "kept": half_mask(6).to(torch.uint8)})
    assert torch.equal(layer.kept, before["kept"])


# --- bad input ----------------------------------------------------------------------------


def test_another_mask_travels_with_its_weights():
    def make(seed):
        mask = random_mask(6, torch.Generator().manual_seed(seed))
        return Coupling(mask, MLP(3, (8,), 6, torch.nn.Tanh), Affine(3))

    one, two = make(0), make(1)
    for p in one.parameters():
        p.data.normal_()
    two.load_state_dict(one.state_dict())
    x = torch.randn(4, 6)
    assert torch.equal(one(x)[0], two(x)[0])


@pytest.mark.parametrize(
    ("conditioner", "transformer", "message"),
    [
        (MLP(2, (8,), 1), Additive(), "2 coordinates to move with 1 parameters .* made 1"),
        (MLP(2, (8,), 2), Affine(2), "with 2 parameters each, and the conditioner made 2"),
        (MLP(2, (8,), 6), Affine(2), "made 6"),
    ],
)
def test_a_conditioner_that_makes_another_number_of_parameters(conditioner, transformer, message):
    layer = Coupling(half_mask(4), conditioner, transformer)
    for way in (layer, layer.inverse):
        with pytest.raises(ValueError, match=message):
            way(torch.zeros(3, 4))


def test_a_transformer_of_another_number_of_coordinates():
    with pytest.raises(ValueError, match=r"transformer of 2 coordinates .* got Affine\(1\)"):
        Coupling(half_mask(4), MLP(2, (8,), 4), Affine(1))
    with pytest.raises(ValueError, match=r"transformer of 4 coordinates .* got Affine\(2\)"):
        MaskedCoupling(half_mask(4), MLP(4, (8,), 8), Affine(2))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RealNVP(1), r"at least 2 coordinates, got event_shape=\(1,\)"),
        (lambda: NICE((2, 3)), r"got event_shape=\(2, 3\)"),
        (lambda: RealNVP(2, n_layers=1), "a whole n_layers of 2 or more, got 1"),
        (lambda: RealNVP(2, n_layers=2.5), "a whole n_layers of 2 or more, got 2.5"),
        (lambda: NICE(2, context_dim=-1), "NICE: expected a whole context_dim of 0 or more"),
        (lambda: RealNVP(2, hidden=(0,)), r"positive widths, got inputs=1, hidden=\(0,\)"),
        (
            lambda: Coupling(torch.ones(3, dtype=torch.bool), None, None),
            "with 3 of 3 kept",
        ),
        (lambda: Coupling(torch.zeros(3, dtype=torch.bool), None, None), "some True"),
        (lambda: Coupling(torch.tensor([1, 0]), None, None), "of bools .* got torch.int64"),
        (lambda: Coupling(torch.eye(2).bool(), None, None), r"mask \(D,\), got shape \(2, 2\)"),
        (lambda: Affine(2, bound=0.0), "positive, finite bound, got 0.0"),
        (lambda: Affine(0), "a whole dim of 1 or more, got 0"),
        (lambda: BatchNorm(2, momentum=0.0), "momentum"),
    ],
)
def test_impossible_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()
