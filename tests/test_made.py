"""flowlib.made: masks, their guarantee under autodiff, exact probabilities, draws, bad input."""

import copy
import io
import itertools
import math
import pickle
import warnings
from unittest import mock

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from flowlib import (
    MADE,
    BernoulliMADE,
    MaskedLinear,
    cyclic_degrees,
    fit,
    hidden_mask,
    output_mask,
    path_counts,
    random_degrees,
    ranks_of,
)
from flowlib.masks import cut_pairs


def gen(seed):
    return torch.Generator().manual_seed(seed)


def randomize(module, seed=0, scale=1.0):
    with torch.no_grad():
        for p in module.parameters():
            p.copy_(scale * torch.randn(p.shape, generator=gen(seed + p.numel())))
    return module.double().eval()


@st.composite
def networks(draw):
    """A MADE of any shape, in float64 with random weights; half of them leave out zeros."""
    dim = draw(st.integers(1, 7))
    ties = st.lists(st.integers(0, 3), min_size=dim, max_size=dim)
    named = st.sampled_from(["natural", "reversed", "random"])
    context = draw(st.sampled_from([0, 2]))
    wide = mock.patch("flowlib.made.WIDE", draw(st.sampled_from([0, 2**18])))
    with wide, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # narrow layers cut; another test is about that
        made = MADE(
            dim,
            hidden=draw(st.lists(st.integers(1, 12), max_size=3)),
            outputs_per_dim=draw(st.integers(1, 3)),
            context_dim=context,
            order=draw(st.one_of(named, ties)),
            degrees=draw(st.sampled_from(["cyclic", "random"])),
            activation=torch.nn.Tanh,
            direct=draw(st.booleans()),
            generator=gen(draw(st.integers(0, 99))),
        )
    return randomize(made)


def given_context(made, rows):
    size = made.context_dim
    return torch.randn(rows, size, generator=gen(5)).double() if size else None


# --- the promise ----------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(networks())
def test_an_output_sees_what_comes_before_it_and_nothing_else(made):
    context = given_context(made, 1)
    jacobian = torch.zeros(made.outputs_per_dim, made.dim, made.dim, dtype=torch.float64)
    for seed in range(3):  # a weight may be tiny by chance, but not three times
        x = torch.randn(1, made.dim, generator=gen(seed)).double()
        J = torch.autograd.functional.jacobian(lambda v: made(v, context)[0], x)[:, 0]
        jacobian += J.reshape(made.outputs_per_dim, made.dim, made.dim).abs()
    ranks = made.ranks[0]
    allowed = ranks[:, None] > ranks
    assert (jacobian[:, ~allowed] == 0.0).all()  # exactly
    masks = [layer.mask for layer in made.layers]
    joined = path_counts(masks)[: made.dim] > 0
    if made.direct is not None:
        joined |= allowed
    assert torch.equal(joined, joined & allowed)
    assert torch.equal(jacobian[0] > 0, joined)
    degrees = range(0 if made.context_dim else 1, int(ranks.max()))
    permit = all(width >= len(degrees) for width in made.widths)
    if permit or made.direct is not None:
        assert torch.equal(joined, allowed)  # connected wherever the widths permit it


@settings(max_examples=60, deadline=None)
@given(networks(), st.integers(0, 7), st.sampled_from([1, 2, 32]))
def test_coordinate_by_coordinate_is_what_full_passes_say(made, n_given, stretch):
    """Draws made step by step satisfy the equations of one whole pass."""
    n_given = min(n_given, made.dim)
    context = given_context(made, 4)
    fixed = torch.randn(4, n_given, generator=gen(1)).double()
    noise = torch.randn(4, made.dim, generator=gen(2)).double()

    def step(at, params):
        return noise[:, at] + params.tanh().sum(1), params.sin().sum(1)

    with mock.patch("flowlib.made.STEPS_OF_A_STAGE", stretch):
        x, sums = made.autoregress(step, 4, context, fixed)
    x = x.detach()
    params = made(x, context).reshape(4, made.outputs_per_dim, made.dim)
    expected, terms = noise + params.tanh().sum(1), params.sin().sum(1)
    first = made.ranks[0].argsort(stable=True)[:n_given]
    expected[:, first], terms[:, first] = fixed, 0.0
    torch.testing.assert_close(x, expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(sums, terms.sum(1), rtol=0, atol=1e-12)


def test_every_output_sees_the_context_the_first_one_too():
    for hidden in ((), (1,), (6, 5)):  # with ReLUs, too, of which the few of degree 0 may be off
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            made = randomize(MADE(3, hidden, context_dim=2))
        c = torch.randn(1, 2).double()
        x = torch.randn(1, 3).double()
        J = torch.autograd.functional.jacobian(lambda v, m=made, x=x: m(x, v)[0], c)[:, 0]
        assert (J != 0).all()


# --- degrees, orderings, masks -------------------------------------------------------------


def test_masks_by_hand():
    """Three inputs, four units of degrees 1, 2, 1, 2."""
    degrees, ranks = torch.tensor([1, 2, 1, 2]), torch.arange(1, 4)
    first, last = hidden_mask(degrees, ranks), output_mask(ranks, degrees)
    assert first.int().tolist() == [[1, 0, 0], [1, 1, 0], [1, 0, 0], [1, 1, 0]]
    assert last.int().tolist() == [[0, 0, 0, 0], [1, 0, 1, 0], [1, 1, 1, 1]]
    assert path_counts([first, last]).tolist() == [[0, 0, 0], [2, 0, 0], [4, 2, 0]]


@given(st.integers(1, 30), st.integers(0, 3), st.integers(0, 12), st.integers(0, 99))
def test_degrees_are_in_range_sorted_and_whole_where_they_can_be(width, low, more, seed):
    high = low + more
    for m in (cyclic_degrees(width, low, high), random_degrees(width, low, high, gen(seed))):
        assert m.shape == (width,)
        assert m.dtype == torch.long
        assert low <= m.min()
        assert m.max() <= high
        if width > more:
            assert m.unique().tolist() == list(range(low, high + 1))
    assert (cyclic_degrees(width, low, high).diff() >= 0).all()
    counts = torch.bincount(cyclic_degrees(width, low, high))[low:]
    if width > more:
        assert counts.max() - counts.min() <= 1


@pytest.mark.parametrize("degrees", ["cyclic", "random"])
@pytest.mark.parametrize("hidden", [(2,), (3, 7), (40, 40, 40)])
def test_no_unit_is_dead(degrees, hidden):
    """None of degree D, which no output would see, and none that sees nothing (mistake 2)."""
    for seed in range(20):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            made = MADE(5, hidden, order="random", degrees=degrees, generator=gen(seed))
        masks = [layer.mask for layer in made.layers]
        for k in range(len(hidden)):
            assert (path_counts(masks[: k + 1]).sum(1) > 0).all()  # from an input
            assert (path_counts(masks[k + 1 :]).sum(0) > 0).all()  # to an output


def test_random_degrees_are_uniform_beyond_the_sure_ones():
    m = torch.cat([random_degrees(1009, 1, 9, gen(seed)) for seed in range(10)])
    counts = torch.bincount(m)[1:].double() - 10
    z = (counts - 10_000 / 9) / (10_000 * (1 / 9) * (8 / 9)) ** 0.5
    assert z.abs().max() < 4


def test_orderings():
    assert ranks_of(4).tolist() == [1, 2, 3, 4]
    assert ranks_of(4, "reversed").tolist() == [4, 3, 2, 1]
    assert ranks_of(3, torch.tensor([10, -5, 10])).tolist() == [2, 1, 2]
    drawn = {tuple(ranks_of(3, "random", gen(s)).tolist()) for s in range(100)}
    assert len(drawn) == 6
    assert all(sorted(r) == [1, 2, 3] for r in drawn)


def test_masks_stay_as_they_were_drawn():
    """In every call, and in a copy, a pickle and a model that loads the weights (mistake 1)."""

    def make(seed):
        return randomize(
            MADE(6, (9, 8), order="random", degrees="random", direct=True, generator=gen(seed)),
            seed,
        )

    made, other = make(0), make(1)
    x = torch.randn(20, 6).double()
    expected = made(x)
    assert torch.equal(made(x), expected)
    buffer = io.BytesIO()
    torch.save(made.state_dict(), buffer)
    buffer.seek(0)
    other.load_state_dict(torch.load(buffer))
    for twin in (other, copy.deepcopy(made), pickle.loads(pickle.dumps(made))):
        assert torch.equal(twin(x), expected)
        draws = [m.autoregress(lambda d, p: (p[:, 0].cos(), None), 5)[0] for m in (made, twin)]
        assert torch.equal(*draws)
        assert torch.equal(twin.ranks, made.ranks)
    assert torch.equal(make(0).ranks, made.ranks)  # the generator decides


def test_a_state_of_other_widths_or_too_coarse_is_refused():
    made = MADE(300, (400,))
    state = made.state_dict()
    wiring = state["wiring"].clone()
    made.load_state_dict({**state, "wiring": wiring.half()})  # exact to 2048
    for wrong in (wiring[:, 1:], wiring.bfloat16(), -wiring, wiring + 300):
        with pytest.raises(
            ValueError, match=r"ranks and degrees of shape \(1, 700\), exact to 300"
        ):
            made.load_state_dict({**state, "wiring": wrong})
    assert torch.equal(made.wiring, wiring)


def test_masks_of_another_model_than_the_ranks_are_refused():
    one, two = (BernoulliMADE(6, (9,), order="random", generator=gen(s)) for s in (0, 1))
    two.made.layers.load_state_dict(one.made.layers.state_dict())
    with pytest.raises(ValueError, match="masks are not those of its ranks and degrees"):
        two.sample(3)
    two.load_state_dict(one.state_dict())
    assert two.sample(3).shape == (3, 6)
    with pytest.raises(ValueError, match="saved ranks and degrees"):
        two.load_state_dict({**two.state_dict(), "made.wiring": torch.zeros(1, 15).long()})


def test_ranks_that_are_changed_in_place_are_those_of_the_draws():
    one, two = (BernoulliMADE(6, (9,), order="random", generator=gen(s)) for s in (0, 1))
    randomize(one), randomize(two, 1)
    state = two.state_dict()
    for name, value in one.state_dict().items():
        state[name].copy_(value)
    x, log_p = two.sample_and_log_prob(20, generator=gen(3))
    assert torch.equal(x, one.sample(20, generator=gen(3)))
    torch.testing.assert_close(log_p, one.log_prob(x))


def test_wide_blocks_follow_a_mask_that_is_changed_in_place(monkeypatch):
    monkeypatch.setattr("flowlib.made.WIDE", 0)
    one, two = (randomize(MADE(9, (16,), order=order)) for order in ("natural", "reversed"))
    x = torch.randn(3, 9).double()
    two(x)
    state = two.state_dict()
    for name, value in one.state_dict().items():
        state[name].copy_(value)
    torch.testing.assert_close(two(x), one(x))


def test_a_layer_that_masks_nothing_is_a_plain_one_until_it_gets_a_mask():
    layer = MaskedLinear(torch.ones(3, 2))
    assert layer.masked_weight() is layer.weight
    x, other = torch.randn(5, 2), torch.tensor([[1.0, 0], [1, 1], [0, 0]])
    expected = torch.nn.functional.linear(x, layer.weight * other, layer.bias)
    called = torch.func.functional_call(layer, {"mask": other}, (x,))
    torch.testing.assert_close(called, expected)
    layer.load_state_dict({**layer.state_dict(), "mask": other})
    torch.testing.assert_close(layer(x), expected)
    layer.mask.fill_(1.0)
    layer.load_state_dict(layer.state_dict())
    assert layer.masked_weight() is layer.weight
    layer.mask.zero_()  # in place, as averages of weights do
    assert (layer.masked_weight() == 0).all()


def test_cut_pairs_are_named():
    with pytest.warns(UserWarning, match=r"cut off output 2 from input 1.* \[2\] units .* 1 to 3"):
        MADE(4, (2,), degrees=[[2, 3]])
    with pytest.warns(UserWarning, match="and 18 more pairs"):
        MADE(9, (2,))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        MADE(4, (2,), direct=True)
        MADE(4, (3, 3))
        MADE(1, (2,))
        MADE(4, ())


# --- as a network ---------------------------------------------------------------------------


def test_it_starts_at_zero_and_learns_from_there():
    made = MADE(5, (16, 16), outputs_per_dim=2, context_dim=1, direct=True)
    x, c = torch.randn(30, 5), torch.randn(30, 1)
    assert (made(x, c) == 0).all()
    randomize(made).float()
    (made(x, c) ** 2).sum().backward()
    for name, p in made.named_parameters():
        assert p.grad.abs().sum() > 0, name
    for layer in made.layers:
        assert (layer.weight.grad[layer.mask == 0] == 0).all()
    bare = MADE(5, (), outputs_per_dim=2, context_dim=1)
    assert (bare(x, c) == 0).all()


def test_a_gain_makes_the_hidden_layers_start_larger_and_nothing_else():
    torch.manual_seed(0)
    one = MADE(5, (16, 16), context_dim=1, direct=True)
    torch.manual_seed(0)
    three = MADE(5, (16, 16), context_dim=1, direct=True, gain=3.0)
    for name, weights in three.state_dict().items():
        scaled = name.startswith(("layers.0.", "layers.1.")) and not name.endswith("mask")
        torch.testing.assert_close(weights, (3 if scaled else 1) * one.state_dict()[name])
    with pytest.raises(ValueError, match="positive, finite gain, got 0"):
        MADE(5, gain=0)


def test_each_unit_is_computed_once():
    """In drawing, the activation sees as many numbers as there are units."""
    seen = []

    class Counted(torch.nn.ReLU):
        def forward(self, h):
            seen.append(len(h))
            return super().forward(h)

    made = MADE(9, (20, 30), context_dim=2, activation=Counted)
    calls = []
    made.autoregress(lambda d, p: calls.append(len(d)) or (p[:, 0], None), 4, torch.zeros(4, 2))
    assert sum(seen) == 50
    assert calls == [1] * 9


@pytest.mark.parametrize("stretch", [1, 32])
def test_draws_carry_gradients(stretch, monkeypatch):
    monkeypatch.setattr("flowlib.made.STEPS_OF_A_STAGE", stretch)
    made = randomize(MADE(4, (6,), context_dim=2, order=[0, 1, 1, 2], direct=True))
    noise, c = torch.randn(3, 4).double(), torch.randn(3, 2).double()

    def fill(noise, c, given):
        def step(at, p):
            return noise[:, at] + p[:, 0].tanh(), p[:, 0].cos()

        x, sums = made.autoregress(step, len(noise), c, given)
        return torch.cat([x, sums[:, None]], 1)

    inputs = [v.requires_grad_() for v in (noise, c, torch.randn(3, 1).double())]
    assert torch.autograd.gradcheck(fill, inputs)
    batches = [v.detach().expand(5, *v.shape) + torch.arange(5.0).reshape(5, 1, 1) for v in inputs]
    many = torch.func.vmap(fill)(*batches)
    torch.testing.assert_close(many[2], fill(*(b[2] for b in batches)))


def test_wide_layers_leave_out_blocks_of_zeros(monkeypatch):
    """With the same result, whichever end the ordering starts at."""
    wide = MADE(513, (512,), direct=True)
    assert all(layer.blocks for layer in (*wide.layers, wide.direct))
    monkeypatch.setattr("flowlib.made.WIDE", 0)
    for order, per in (("natural", 1), ("reversed", 2)):
        options = {"order": order, "activation": torch.nn.Tanh, "direct": True}
        made = MADE(9, (16, 20), outputs_per_dim=per, **options)
        randomize(made)
        x = torch.randn(3, 9, generator=gen(0)).double().requires_grad_()
        out = made(x)
        assert torch.autograd.gradgradcheck(made, x)
        assert all(layer.blocks for layer in made.layers)
        for layer in (*made.layers, made.direct):
            layer.blocks = None
        torch.testing.assert_close(made(x), out)
    unsorted = randomize(MADE(9, (16, 20), order="random", degrees="random", generator=gen(0)))
    made = MADE(9, (16, 20), activation=torch.nn.ReLU).double()
    made.load_state_dict(unsorted.state_dict())
    for mine, theirs in zip(made.layers, unsorted.layers, strict=True):
        assert getattr(mine.blocks, "spans", None) == getattr(theirs.blocks, "spans", None)
    torch.testing.assert_close(made(x), unsorted(x))
    assert not any(layer.blocks for layer in MADE(9, (16,), degrees="random", n_masks=2).layers)


def test_blocks_are_those_of_the_mask_that_is_there(monkeypatch):
    """Whoever brings other masks, by whatever door, gets the outputs of those."""
    monkeypatch.setattr("flowlib.made.WIDE", 0)
    one, other = (randomize(MADE(9, (16,), order=order)) for order in ("natural", "reversed"))
    x = torch.randn(3, 9, generator=gen(0)).double()
    params, buffers = torch.func.stack_module_state([one, other])
    base = copy.deepcopy(one)
    both = torch.func.vmap(lambda *state: torch.func.functional_call(base, state, (x,)))(
        params, buffers
    )
    torch.testing.assert_close(both, torch.stack([one(x), other(x)]))
    base.layers.load_state_dict(other.layers.state_dict())
    torch.testing.assert_close(base(x), other(x))
    for same in (copy.deepcopy(one), pickle.loads(pickle.dumps(one)), one.float()):
        assert all(layer.blocks and layer.is_prepared for layer in same.layers)


class Drawing(torch.nn.Module):
    def __init__(self, made):
        super().__init__()
        self.made = made

    def forward(self, noise):
        return self.made.autoregress(lambda at, p: (noise[:, at] + p[:, 0], p[:, 0]), len(noise))


def test_draws_go_by_the_ranks_that_are_there():
    """Under functional_call another model's are taken; under vmap they cannot be read."""
    one, two = (
        Drawing(randomize(MADE(9, (16,), order="random", generator=gen(seed)), seed))
        for seed in (0, 1)
    )
    noise = torch.randn(3, 9, generator=gen(2)).double()
    x, sums = torch.func.functional_call(one, two.state_dict(), (noise,))
    torch.testing.assert_close(x, two(noise)[0])
    torch.testing.assert_close(sums, two(noise)[1])
    params, buffers = torch.func.stack_module_state([one, two])
    with pytest.raises(ValueError, match="others in the place of the module's own under vmap"):
        torch.func.vmap(lambda *state: torch.func.functional_call(one, state, (noise,)))(
            params, buffers
        )
    assert one.float()(noise.float())[0].shape == (3, 9)  # after a change of dtype, too


@settings(max_examples=60, deadline=None)
@given(networks())
def test_cut_pairs_are_those_without_a_path(made):
    ranks = made.ranks[0]
    joined = path_counts([layer.mask for layer in made.layers])[: made.dim] > 0
    cut = cut_pairs(ranks, *(m[0] for m in made.degrees))
    assert torch.equal(cut, (ranks[:, None] > ranks) & ~joined)


def test_a_start_that_keeps_the_variance():
    """A unit's weights start as wide as the inputs that it has allow, not all that there are."""
    layer = MaskedLinear(output_mask(torch.arange(1, 401), torch.arange(1, 401)))
    spread = (
        layer.weight.detach()[[10, 100, 399]].std(1) * torch.tensor([10.0, 100.0, 399.0]) ** 0.5
    )
    torch.testing.assert_close(spread, torch.full((3,), 3**-0.5), rtol=0.1, atol=0)
    assert layer.bias.detach()[10].abs() <= 10**-0.5


def test_a_mask_is_a_copy():
    mask = torch.ones(2, 2)
    layer = MaskedLinear(mask)
    layer.load_state_dict(MaskedLinear(torch.eye(2)).state_dict())
    assert (mask == 1).all()


@pytest.mark.parametrize("wide", [0, 2**18])
def test_leading_shapes_dtypes_and_transforms(wide, monkeypatch):
    monkeypatch.setattr("flowlib.made.WIDE", wide)
    made = randomize(MADE(4, (8,), outputs_per_dim=2, context_dim=3))
    assert all((layer.blocks is None) == (wide > 0) for layer in made.layers)
    x, c = torch.randn(2, 3, 4).double(), torch.randn(3, 3).double()
    out = made(x, c)
    assert out.shape == (2, 3, 8)
    rows = torch.stack([made(x[i, j], c[j]) for i in range(2) for j in range(3)])
    torch.testing.assert_close(out.reshape(6, 8), rows)
    torch.testing.assert_close(torch.func.vmap(made)(x, c.expand(2, 3, 3)), out)
    compiled = torch.compile(made, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(x, c), out)
    hessian = torch.func.hessian(lambda v: made(v, c[0]).sin().sum())(x[0, 0])
    assert hessian.shape == (4, 4)
    assert made.float()(x.float(), c.float()).dtype == torch.float32
    assert made(x.float()[:, :0], c.float()[:0]).shape == (2, 0, 8)


# --- binary densities -----------------------------------------------------------------------

DENSITIES = {
    "natural": {},
    "reversed, direct": {"order": "reversed", "direct": True},
    "ties": {"order": [0, 1, 0, 2, 1]},
    "no hidden layer": {"hidden": ()},
    "ensemble of orderings": {"order": "random", "n_masks": 3},
    "ensemble of masks": {"degrees": "random", "n_masks": 4, "hidden": (5, 9)},
}
EVERY = torch.tensor(list(itertools.product([0.0, 1.0], repeat=5)), dtype=torch.float64)


@pytest.fixture(params=DENSITIES, ids=str)
def density(request):
    options = {"hidden": (8, 7), "generator": gen(3), **DENSITIES[request.param]}
    return randomize(BernoulliMADE(5, **options))


def z_scores(draws, p):
    """How many standard errors the frequencies of five bits are from their probabilities."""
    index = (draws.double() @ 2.0 ** torch.arange(4, -1, -1, dtype=torch.float64)).long()
    seen = torch.bincount(index, minlength=32) / len(draws)
    return (seen - p) / (p * (1 - p) / len(draws)).sqrt().clamp(min=1e-12)


def test_probabilities_sum_to_one_and_draws_have_them(density):
    p = density.log_prob(EVERY).exp()
    assert p.sum().item() == pytest.approx(1, abs=1e-6)
    assert p.max() - p.min() > 0.01
    draws = density.sample(40_000, generator=gen(7))
    assert draws.shape == (40_000, 5)
    assert z_scores(draws, p).abs().max() < 4
    assert torch.equal(density.sample(3, generator=gen(1)), density.sample(3, generator=gen(1)))


def test_completions_too(density):
    if (density.made.ranks != density.made.ranks[0]).any():
        with pytest.raises(ValueError, match="different orderings, so that no values come first"):
            density.complete(torch.ones(2))
        return
    first = density.made.ranks[0].argsort(stable=True)[:2]
    prefix = torch.tensor([1.0, 0.0], dtype=torch.float64)
    fits = (EVERY[:, first] == prefix).all(1)
    p = torch.zeros(32, dtype=torch.float64)
    p[fits] = density.log_prob(EVERY[fits], given=2).exp()
    assert p.sum().item() == pytest.approx(1, abs=1e-6)
    whole = density.log_prob(EVERY).exp()
    torch.testing.assert_close(p[fits], whole[fits] / whole[fits].sum())
    draws = density.complete(prefix, 40_000, generator=gen(2))
    assert (draws[:, first] == prefix).all()
    assert z_scores(draws, p).abs().max() < 4
    assert density.complete(prefix.expand(3, 2), 2).shape == (2, 3, 5)
    order = density.made.ranks[0].argsort(stable=True)
    assert torch.equal(density.complete(EVERY[:4, order]), EVERY[:4])


def test_draws_come_with_their_log_probability(density):
    x, log_p = density.sample_and_log_prob((4, 3), generator=gen(2))
    assert x.shape == (4, 3, 5)
    torch.testing.assert_close(log_p, density.log_prob(x))
    assert torch.equal(x, density.sample((4, 3), generator=gen(2)))


def test_an_ensemble_is_the_mean_of_probabilities(density):
    members = torch.stack([
        -torch.nn.functional.binary_cross_entropy_with_logits(
            density.made(EVERY, which=k), EVERY, reduction="none"
        ).sum(1)
        for k in range(density.n_masks)
    ])  # fmt: skip
    torch.testing.assert_close(density.log_prob(EVERY).exp(), members.exp().mean(0))


def test_masks_share_weights_and_differ():
    model = BernoulliMADE(6, (12,), degrees="random", order="random", n_masks=3, generator=gen(0))
    alone = MADE(6, (12,))
    shapes = [{n: p.shape for n, p in m.named_parameters()} for m in (model.made, alone)]
    assert shapes[0] == shapes[1]
    assert len({tuple(ranks) for ranks in model.made.ranks.tolist()}) == 3
    # A unit has now one degree and now another: else the masks would hardly differ.
    many = MADE(50, (400,), degrees="random", n_masks=8, generator=gen(0))
    assert many.degrees[0].double().std(0).mean() > 10


@pytest.mark.parametrize(
    "options",
    [{}, {"hidden": (), "degrees": "random"}, {"dim": 1, "order": "random"}, {"order": [1, 2, 3]}],
)
def test_masks_that_would_be_equal_are_refused(options):
    with pytest.raises(ValueError, match="3 sets of masks are all equal; expected a random order"):
        BernoulliMADE(**{"dim": 3, "n_masks": 3, **options})


def test_in_training_one_mask_is_taken_at_random_in_evaluation_all():
    model = randomize(BernoulliMADE(5, (9,), order="random", n_masks=4, generator=gen(0)))
    each = {round(v, 9) for v in (model.train().log_prob(EVERY[3]).item() for _ in range(60))}
    assert len(each) == 4
    values = torch.tensor(sorted(each), dtype=torch.float64)
    for _ in range(10):
        p = model.eval().log_prob(EVERY[3]).exp()
        torch.testing.assert_close(p, values.exp().mean(), rtol=1e-6, atol=0)


def test_one_mask_can_be_asked_for():
    model = randomize(BernoulliMADE(4, (8,), order="random", n_masks=3, generator=gen(0)))
    x = (torch.rand(5, 4, generator=gen(1)) < 0.5).double()
    one = torch.stack([model.log_prob(x, which=k) for k in range(3)])
    torch.testing.assert_close(one.logsumexp(0) - math.log(3), model.eval().log_prob(x))
    model.train()
    vmapped = torch.func.vmap(lambda row: model.log_prob(row, which=2))(x)
    torch.testing.assert_close(vmapped, one[2])


def test_context_and_shapes():
    model = randomize(BernoulliMADE(5, (8,), context_dim=2))
    c = torch.randn(3, 2).double()
    assert model.log_prob(EVERY[:4, None], c).shape == (4, 3)
    torch.testing.assert_close(
        model.log_prob(EVERY[:4, None], c)[2, 1], model.log_prob(EVERY[2], c[1])
    )
    assert model.sample(4, c).shape == (4, 3, 5)
    p = model.log_prob(EVERY[:, None], c).exp()
    torch.testing.assert_close(p.sum(0), torch.ones(3).double())
    draws = model.sample(40_000, c, generator=gen(0))
    for k in range(3):
        assert z_scores(draws[:, k], p[:, k]).abs().max() < 4
    assert model.sample(0, c).shape == (0, 3, 5)
    assert model.sample(context=c[0]).shape == (5,)
    assert model.log_prob(EVERY[:3].bool(), c).dtype == torch.float64
    with pytest.raises(ValueError, match=r"a context of shape \(\.\.\., 2\), got no context"):
        model.sample(3)
    with pytest.raises(ValueError, match="takes no context, got one of shape"):
        BernoulliMADE(2).log_prob(torch.zeros(2), c)


def test_draws_with_a_context_come_with_their_log_probability():
    model = randomize(BernoulliMADE(5, (8,), context_dim=2))
    c = torch.randn(3, 2).double()
    x, log_p = model.sample_and_log_prob(4, c)
    assert log_p.shape == (4, 3)
    torch.testing.assert_close(log_p, model.log_prob(x, c))
    empty, none = model.sample_and_log_prob(0, c)
    assert (empty.shape, none.shape) == ((0, 3, 5), (0, 3))


def test_what_comes_after_the_widths_has_a_name():
    for make in (MADE, BernoulliMADE):
        with pytest.raises(TypeError, match="positional"):
            make(5, 8, 2)


def test_it_learns_dependence():
    """Two equal bits and one free: entropy 2 log 2, where independent pixels have 3 log 2."""
    bits = torch.randint(0, 2, (2000, 2), generator=gen(0)).float()
    x = torch.cat([bits, bits[:, :1]], 1)
    for options in ({}, {"order": "random", "n_masks": 4, "generator": gen(1)}):
        model = BernoulliMADE(3, (16,), **options)
        fit(model, x, steps=300, lr=0.02, progress=False)
        with torch.no_grad():
            nll = -model.eval().log_prob(x).mean().item()
        assert nll == pytest.approx(2 * 0.6931, abs=0.06)


def test_one_coordinate_is_a_coin():
    model = BernoulliMADE(1, (4,))
    assert model.log_prob(torch.ones(3, 1)).tolist() == pytest.approx([-0.6931] * 3, abs=1e-4)
    fit(model, (torch.rand(1000, 1, generator=gen(0)) < 0.8).float(), steps=200, lr=0.05)
    assert model.log_prob(torch.ones(1)).exp().item() == pytest.approx(0.8, abs=0.05)
    made = randomize(MADE(1, (4,), outputs_per_dim=2))
    assert torch.equal(made(torch.zeros(1, 1).double()), made(torch.ones(1, 1).double()))


# --- bad input --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: MADE(3, (4, 0)), r"positive widths, got hidden=\(4, 0\)"),
        (lambda: MADE(3, 2.5), "hidden=2.5"),
        (lambda: MADE(3, outputs_per_dim=0), "a whole outputs_per_dim of 1 or more, got 0"),
        (lambda: MADE(3, context_dim=-1), "a whole context_dim of 0 or more, got -1"),
        (lambda: MADE(0), "a whole dim of 1 or more, got 0"),
        (lambda: MADE((2, 3)), r"a whole dim of 1 or more, got \(2, 3\)"),
        (lambda: cyclic_degrees(0, 1, 3), "positive width and low <= high, got 0, 1 and 3"),
        (lambda: random_degrees(3, 3, 2), "got 3, 3 and 2"),
        (
            lambda: MADE(3).autoregress(lambda d, p: (p, None), 5),
            r"shape \(5, 1\), got \(5, 1, 1\) and None",
        ),
        (
            lambda: MADE(3).autoregress(lambda d, p: (p[:, 0], p), 5),
            r"shape \(5, 1\), got \(5, 1\) and \(5, 1, 1\)",
        ),
        (lambda: MADE(3).autoregress(None, 5, given=torch.zeros(4, 1)), "of 5 rows"),
        (
            lambda: MADE(3).autoregress(None, 5, given=torch.zeros(5, 4)),
            "expected 0 to 3 given values, got 4",
        ),
        (
            lambda: BernoulliMADE(2, context_dim=1).sample(3, torch.tensor([float("nan")])),
            "finite values, got nan at context",
        ),
        (lambda: MADE(3, order=[1, 2]), r"or 3 whole numbers, got \[1, 2\]"),
        (lambda: MADE((5,)), r"a whole dim .* got \(5,\)"),
        (lambda: MADE(5, 8, n_masks=[2]), r"a whole n_masks of 1 or more, got \[2\]"),
        (lambda: MADE(5, 8, degrees=3), "whole numbers for hidden layers of .8. units, got 3"),
        (lambda: MADE(3)(torch.zeros(2, 3), which=1), "which from 0 to 0, got 1"),
        (lambda: BernoulliMADE(3).log_prob(torch.zeros(3), which=-1), "which from 0 to 0, got -1"),
        (lambda: BernoulliMADE(3).log_prob(torch.zeros(3), given=[1]), r"given values, got \[1\]"),
        (
            lambda: BernoulliMADE(3).complete(torch.tensor(1.0)),
            r"prefix of shape .* got shape \(\)",
        ),
        (lambda: cyclic_degrees(5.0, 1, 3), "whole numbers, .* got 5.0"),
        (lambda: MADE(3, order=[1.5, 2.0, 3.0]), "whole numbers"),
        (lambda: MADE(3, order="backwards"), "got 'backwards'"),
        (lambda: MADE(3, (2,), degrees=[[1, 3]]), r"from 1 to 2, for 3 ranks, got \[\[1, 3\]\]"),
        (lambda: MADE(3, (2,), degrees=[[0, 1]]), "from 1 to 2"),
        (lambda: MADE(3, (2,), degrees=[[1, 2, 1]]), r"layers of \[2\] units"),
        (lambda: MADE(3, (2,), degrees="uniform"), '"cyclic", "random" or whole numbers'),
        (lambda: MADE(3)(torch.zeros(2, 4)), r"expected x of shape \(\.\.\., 3\), got \(2, 4\)"),
        (lambda: MADE(3)(torch.zeros(2, 3), torch.zeros(2, 1)), "takes no context"),
        (lambda: MADE(3, context_dim=2)(torch.zeros(2, 3)), "context of shape .* got no context"),
        (lambda: MaskedLinear(torch.tensor([[2.0, 0.0]])), "zeros and ones"),
        (lambda: BernoulliMADE(3, n_masks=0), "a whole n_masks of 1 or more, got 0"),
        (lambda: BernoulliMADE(3).log_prob(torch.full((2, 3), 0.5)), "zeros and ones, got 0.5"),
        (lambda: BernoulliMADE(3).log_prob(torch.zeros(2, 4)), r"\(\.\.\., 3\), got \(2, 4\)"),
        (lambda: BernoulliMADE(3).log_prob(torch.zeros(3), given=4), "0 to 3 given values, got 4"),
        (lambda: BernoulliMADE(3).complete(torch.zeros(4)), "0 to 3 given values, got 4"),
        (lambda: BernoulliMADE(3).complete(torch.tensor([0.5])), "zeros and ones"),
        (lambda: fit(BernoulliMADE(3), torch.rand(9, 3)), "fit: expected data of zeros and ones"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_binary_data_are_a_tensor():
    with pytest.raises(TypeError, match=r"torch\.Tensor, got list"):
        BernoulliMADE(2).log_prob([[0, 1]])
