"""Data in their own units: what is learnt does not depend on them."""

import math

import numpy as np
import pytest
import torch

from flowlib import (
    NICE,
    ActNorm,
    BatchNorm,
    BernoulliMADE,
    Compose,
    ContextNorm,
    ElementwiseAffine,
    Flow,
    ImageRealNVP,
    Inverse,
    RealNVP,
    StandardNormal,
    fit,
)

N, HELD_OUT = 3000, 1000


def rng():
    return np.random.default_rng(5)


def banana(n):
    r = rng()
    a = r.normal(size=n)
    return np.stack([a, 0.5 * a**2 + 0.5 * r.normal(size=n)], 1)


def opposed(u):
    """x = (u, -u) + 0.3 noise: the truth is 2 log 0.3 + log 2 pi e = 0.43 nats."""
    return np.stack([u, -u], 1) + 0.3 * np.random.default_rng(6).normal(size=(len(u), 2))


def context(loc, scale):
    """Rows that depend on a context, which comes as loc + scale * u."""
    u = rng().normal(size=N)
    x = opposed(u)
    return x, u[:, None], x, (loc + scale * u)[:, None], 0.0


def columns(loc, scale):
    """Bananas whose coordinates come as loc + scale * x."""
    x, scale = banana(N), np.broadcast_to(scale, 2)
    return x, None, loc + scale * x, None, float(np.log(scale).sum())


KINDS = {
    "context in kelvin": (RealNVP, lambda: context(300, 10)),
    "context in years": (RealNVP, lambda: context(2010, 5)),
    "context in unix time": (RealNVP, lambda: context(1.7e9, 1e7)),
    "context of large units": (RealNVP, lambda: context(0, 1e4)),
    "context of small units": (RealNVP, lambda: context(0, 1e-3)),
    "context in kelvin, additive": (NICE, lambda: context(300, 10)),
    "positions in a building": (RealNVP, lambda: columns([48.137, 11.575], 0.0005)),
    "unix time in float64": (RealNVP, lambda: columns([1.7e9, 1.7e9], [3600.0, 60.0])),
    "far from 0 in float64": (RealNVP, lambda: columns(1e9, 1.0)),
    "mixed units": (RealNVP, lambda: columns([1e-6, -3e6], [1e-7, 1e6])),
    "huge numbers": (RealNVP, lambda: columns([0.0, 0.0], [1e25, 1e30])),
    "tiny numbers": (RealNVP, lambda: columns([0.0, 0.0], [1e-25, 1e-30])),
}


def held_out(kind, make, x, c):
    """The held-out loss of a fit on all rows but the last thousand."""
    torch.manual_seed(0)
    flow = make(2, n_layers=4, hidden=(32,), context_dim=0 if c is None else 1)
    if "float64" in kind:
        flow = flow.double()
    dtype = next(flow.parameters()).dtype
    rows = x if c is None else (x, c)
    train = rows[:-HELD_OUT] if c is None else tuple(part[:-HELD_OUT] for part in rows)
    fit(flow, train, steps=400, lr=5e-3)
    test = torch.as_tensor(x[-HELD_OUT:]).to(dtype)
    given = None if c is None else torch.as_tensor(c[-HELD_OUT:]).to(dtype)
    with torch.no_grad():
        return -flow.log_prob(test, given).double().mean().item()


@pytest.mark.parametrize("kind", KINDS)
def test_units_do_not_matter(kind):
    """Within 0.05 nats of the same data standardised by hand."""
    make, data = KINDS[kind]
    x, c, raw_x, raw_c, log_scale = data()
    by_hand = held_out(kind, make, x, c)
    assert abs(held_out(kind, make, raw_x, raw_c) - log_scale - by_hand) < 0.05
    if c is not None and make is RealNVP:
        assert by_hand < 0.55


def test_a_picture_hears_of_a_raw_context():
    """Grey pictures of a brightness that the context tells, in kelvin."""
    r = np.random.default_rng(0)
    u = r.normal(size=600)
    level = 1 / (1 + np.exp(-u))[:, None, None, None]
    x = 0.1 + 0.8 * level + 0.02 * r.normal(size=(600, 1, 4, 4))
    losses = []
    for c in (u, 300 + 10 * u):
        torch.manual_seed(0)
        flow = ImageRealNVP((1, 4, 4), 1, hidden=8, context_dim=1)
        history = fit(flow, (x, c[:, None]), steps=150, lr=1e-2, batch_size=128)
        losses.append(min(loss for _, loss in history.valid))
    assert abs(losses[0] - losses[1]) < 0.05


def test_bits_hear_of_a_raw_context():
    """Bits that are 1 where the context is above its mean: log 2 nats for each that ignores it."""
    r = np.random.default_rng(0)
    u = r.normal(size=2000)
    x = np.repeat((u > 0)[:, None], 4, 1) ^ (r.random((2000, 4)) < 0.1)
    losses = []
    for c in (u, 300 + 10 * u):
        torch.manual_seed(0)
        model = BernoulliMADE(4, hidden=(16,), context_dim=1)
        history = fit(model, (x.astype(float), c[:, None]), steps=300, lr=1e-2)
        losses.append(min(loss for _, loss in history.valid))
    assert abs(losses[0] - losses[1]) < 0.05
    assert losses[1] < 1.75  # 4 * 0.325 = 1.3 at best, 2.77 without the context


def test_contexts_are_standardized_once_and_saved():
    flow = RealNVP(2, context_dim=2)
    x, c = torch.randn(500, 2), torch.randn(500, 2) * torch.tensor([10.0, 0.1]) + 300
    flow.initialize(x, c)
    seen = flow.context_norm(c)
    assert seen.mean(0).abs().max() < 1e-2
    assert (seen.std(0) - 1).abs().max() < 1e-2
    other = RealNVP(2, context_dim=2)
    other.load_state_dict(flow.state_dict())
    assert torch.equal(other.context_norm(c), seen)
    other.initialize(x, c * 2)  # what has been set stays
    assert torch.equal(other.context_norm(c), seen)


def test_contexts_take_their_units_from_all_rows_of_a_training():
    """A batch of 8 would know neither their mean nor their deviation."""
    c = torch.as_tensor(np.random.default_rng(0).normal(300, 10, size=(4000, 1)))
    flow = RealNVP(2, context_dim=1)
    fit(flow, (torch.randn(4000, 2), c), steps=1, batch_size=8)
    assert flow.context_norm.loc.item() == pytest.approx(300, abs=0.5)
    assert flow.context_norm.scale.item() == pytest.approx(10, rel=0.05)


def test_every_direction_has_the_same_units():
    torch.manual_seed(0)
    flow = RealNVP(2, context_dim=1).double()
    c = 300 + 10 * torch.randn(50, 1, dtype=torch.float64)
    x = torch.randn(50, 2, dtype=torch.float64)
    fit(flow, (x, c), steps=30, lr=0.05, validation=0)
    draws, log_p = flow.rsample_and_log_prob(3, c)
    assert torch.allclose(flow.log_prob(draws, c), log_p)
    z, _ = flow.bijection(x, flow.context_norm(c))
    back, _ = flow.bijection.inverse(z, flow.context_norm(c))
    assert torch.allclose(back, x)


def test_a_context_that_never_varies_is_moved_to_0():
    norm = ContextNorm(2)
    norm.initialize(torch.tensor([[7.0, 0.0], [7.0, 0.0], [7.0, 0.0]]))
    assert norm(torch.tensor([7.0, 0.0])).tolist() == [0.0, 0.0]
    assert norm(torch.tensor([8.0, 1.0])).tolist() == [1.0, 1.0]


# --- normalizations ---------------------------------------------------------------------------


def test_a_small_step_of_a_scale_moves_far_data_a_little():
    x = 48.137 + 0.0005 * torch.randn(500, 1, dtype=torch.float64)
    for norm in (ActNorm(1).double(), BatchNorm(1).double().eval()):
        norm.initialize(x)
        before, _ = norm(x)
        with torch.no_grad():
            norm.log_scale += 1e-3
        after, _ = norm(x)
        assert (after - before).abs().max() < 0.01  # a product with the raw x moves it by 96


def test_an_inverse_starts_where_far_data_are_and_moves_little():
    z = 48.137 + 0.0005 * torch.randn(500, 1, dtype=torch.float64)
    norm = Inverse(ActNorm(1).double())
    norm.initialize(z)
    before, _ = norm(z)
    assert abs(before.mean()) < 1e-9
    assert before.std(correction=0).item() == pytest.approx(1)
    with torch.no_grad():
        for weights in norm.parameters():
            weights += 1e-3
    after, _ = norm(z)
    assert (after - before).abs().max() < 0.01


def test_batch_norm_starts_with_deviation_1_below_epsilon():
    x = 1e-4 * torch.randn(500, 2, dtype=torch.float64)
    norm = BatchNorm(2).double()
    norm.initialize(x)
    for mode in (True, False):
        z, _ = norm.train(mode)(x)
        assert (z.std(0, correction=0) - 1).abs().max() < 1e-6


def test_an_elementwise_affine_moves_before_it_scales():
    f = ElementwiseAffine(1)
    with torch.no_grad():
        f.loc.fill_(5.0)
        f.log_scale.fill_(math.log(3.0))
    z, log_det = f(torch.tensor([[7.0]]))
    assert z.item() == pytest.approx(6.0)
    assert log_det.item() == pytest.approx(math.log(3.0))


@pytest.mark.parametrize("where", [0.0, 300.0])
def test_a_flow_that_does_not_know_the_units_says_so(where):
    """Nothing in this flow starts from data."""
    flow = Flow(Compose([ElementwiseAffine(2)]), StandardNormal(2))
    x = where + (1e-3 if not where else 1.0) * torch.randn(500, 2)
    with pytest.warns(UserWarning, match="does not know the units .* an ActNorm in front"):
        fit(flow, x, steps=2)
