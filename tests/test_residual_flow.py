"""Residual Flow: right on average, in value and gradient, with memory that does not grow."""

import copy
import itertools
import math
import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch
from torch import nn

from flowlib import (
    ELU,
    ActNorm,
    Branch,
    ByMode,
    Compose,
    ExactLogDet,
    Flow,
    Inverse,
    IResNet,
    LipSwish,
    PowerSeries,
    RecomputedBlock,
    ResidualBlock,
    ResidualFlow,
    RussianRoulette,
    Sine,
    StandardNormal,
    Tanh,
    datasets,
    fit,
    log_prob_with_error,
    spectral_radius,
)
from flowlib.iresnet import plus_identity
from tests.models import randomize, shaken

KINDS = ["plain", "recomputed"]


def gen(seed):
    return torch.Generator().manual_seed(seed)


class Given(RussianRoulette):
    """A roulette whose throw is given."""

    thrown = None

    def throw(self, x):
        return self.thrown


def block_of(kind, branch, log_det):
    return (RecomputedBlock if kind == "recomputed" else ResidualBlock)(branch, log_det)


def branch_of(dim, activation=Sine, seed=0, hidden=12, lipschitz=0.9):
    branch = Branch(dim, hidden, lipschitz, activation, 2.0).double()
    randomize(branch, 1.0, seed)  # a LipSwish of any steepness, too
    return branch.train()


def gradients(value, parameters):
    return torch.autograd.grad(value, parameters, materialize_grads=True, allow_unused=True)


# --- right on average -------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("dim", "n_exact", "p", "activation"),
    [(2, 0, 0.5, Sine), (2, 2, 0.3, LipSwish), (3, 1, 0.4, LipSwish), (3, 5, 0.5, ELU)],
)
def test_unbiased_without_chance(kind, dim, n_exact, p, activation):
    """Every sign vector and every number of terms, with its probability; rows of unequal weight.

    What is left out beyond 150 terms is at most ``max(rho, 1 - p) ** 150``.
    """
    branch = branch_of(dim, activation)
    rows, most = 4, 150
    x = torch.randn(rows, dim, generator=gen(1)).double()
    weights = torch.tensor([1.0, -0.3, 2.5, 0.2]).double()
    parameters = [x.requires_grad_(), *branch.parameters()]
    _, exact = ResidualBlock(branch, ExactLogDet())(x)
    truth = [exact.detach(), *gradients((weights * exact).sum(), parameters)]

    roulette = Given(p, n_exact)
    block = block_of(kind, branch, roulette)
    signs = torch.tensor(list(itertools.product([-1.0, 1.0], repeat=dim))).double()
    several = x.repeat(len(signs), 1)  # all vectors for each row
    probes = signs.repeat_interleave(rows, 0)[None]
    found, reached = [torch.zeros_like(part) for part in truth], 0.0
    for n in range(n_exact + 1, most):
        chance = p * (1 - p) ** (n - n_exact - 1)
        roulette.thrown = n, probes
        _, log_det = block(several)
        each = log_det.unflatten(0, (len(signs), rows)).mean(0)
        parts = [each.detach(), *gradients((weights * each).sum(), parameters)]
        found = [total + chance * part for total, part in zip(found, parts, strict=True)]
        reached += chance
    assert reached == pytest.approx(1.0, abs=1e-10)
    assert truth[0].abs().min() > 0.01
    for ours, exactly in zip(found, truth, strict=True):
        torch.testing.assert_close(ours, exactly, rtol=0, atol=1e-10)


@pytest.mark.parametrize("training", [True, False])
def test_the_number_of_terms_has_the_distribution_that_the_weights_are_for(training):
    torch.manual_seed(0)
    roulette = RussianRoulette(0.4, 2, eval_n_exact=3).train(training)
    roulette._rng = np.random.default_rng(0)
    x, draws = torch.zeros(1, 2), 20_000
    n = torch.tensor([roulette.throw(x)[0] for _ in range(draws)])
    assert roulette.survival(1) == roulette.survival(roulette.sure + 1) == 1.0
    for k in range(1, 12):
        chance = roulette.survival(k)
        deviation = math.sqrt(chance * (1 - chance) / draws)
        assert abs((n >= k).double().mean().item() - chance) <= 4 * deviation
    products = n.double().mean().item() * (1 if training else 8)
    assert products == pytest.approx(roulette.expected_products, rel=0.02)


def trained(dim):
    torch.manual_seed(0)
    data = datasets.breast_cancer().train[:, :dim]
    flow = ResidualFlow(dim, 2, 16, log_det=ExactLogDet)
    fit(flow, data, steps=60, lr=1e-2, batch_size=64, progress=False)
    return [b for b in flow.bijection if isinstance(b, ResidualBlock)][1], data[:3]


def of_pictures():
    branch = shaken(lambda: Branch((2, 3, 3), 4, 0.9), 1.0)
    return ResidualBlock(branch), torch.randn(3, 2, 3, 3, generator=gen(0))


@pytest.mark.parametrize("n_exact", [0, 2, 6])
@pytest.mark.parametrize("distribution", ["rademacher", "gaussian"])
@pytest.mark.parametrize("case", ["6", "30", "pictures"])
def test_unbiased_by_draws(case, distribution, n_exact):
    """Each draw has its own number of terms: rows that share one are one draw."""
    block, x = of_pictures() if case == "pictures" else trained(int(case))
    block, x = block.double(), x.double()
    block.branch.eval()  # the bound is exact, and the weights stay
    parameters = [p for p in block.branch.parameters() if p.requires_grad]
    directions = [[torch.randn(p.shape, generator=gen(k)).to(p) for p in parameters]
                  for k in range(16)]  # fmt: skip

    def seen(log_det):
        """The mean value, and the mean's derivative in the directions."""
        gradient = gradients(log_det.mean(), parameters)
        along = [sum((g * d).sum() for g, d in zip(gradient, way, strict=True))
                 for way in directions]  # fmt: skip
        return torch.stack([log_det.mean().detach(), *along])

    block.log_det = ExactLogDet()
    exact = seen(block(x)[1])
    torch.manual_seed(7)
    block.log_det = RussianRoulette(0.3, n_exact, distribution=distribution).train()
    draws = torch.stack([seen(block(x)[1]) for _ in range(400)])
    error = draws.std(0) / math.sqrt(len(draws))
    assert ((draws.mean(0) - exact).abs() <= 4 * error + 1e-9).all()
    assert error.median() < 0.2 * exact.abs().max()  # so that a wrong mean would be seen


def test_the_value_is_its_own_series_and_not_the_neumann_scalar():
    branch = branch_of(2)
    x = torch.randn(50, 2, generator=gen(0)).double()
    roulette = RussianRoulette(0.1, 60, probes=2000)
    value = roulette.train()(x, branch.linearize(x))
    exact = ExactLogDet()(x, branch.linearize(x))
    assert (value - exact).abs().mean() < 0.1 * exact.abs().mean()
    (n, v), at = roulette.throw(x), branch.linearize(x)
    u = at.jvp(v)
    scalar = (roulette.walk(n, v, u, at.vjp)[1] * u).sum(-1).mean(0)
    assert (scalar - exact).mean() < -0.02  # the series without 1 / k is another number


def test_the_variance_is_finite_exactly_where_one_minus_p_exceeds_rho_squared():
    """For D = 1 a probe is a sign, and only the number of terms is random."""

    def second_moments(slope, p, n_exact=0):
        """Of the estimate, with the draws of up to 400, 800 and 1600 terms."""
        at = 1.0 * slope ** np.arange(1, 1601) / np.arange(1, 1601)
        at[1::2] *= -1
        roulette = RussianRoulette(p, n_exact)
        weights = np.array([roulette.survival(k) for k in range(1, 1601)])
        with np.errstate(over="ignore", invalid="ignore"):  # infinity times a chance of 0
            estimates = np.cumsum(np.where(weights > 0, at / np.maximum(weights, 1e-300), 0))
            chances = p * (1 - p) ** np.arange(1600.0)
            return [(chances * estimates**2)[:n].sum() for n in (200, 400, 800)]

    for slope, p in ((0.5, 0.5), (0.9, 0.15), (-0.9, 0.1)):
        one, two, three = second_moments(slope, p)
        assert two == pytest.approx(one, rel=1e-3)
        assert three == pytest.approx(two, rel=1e-3)
    for slope, p in ((0.9, 0.5), (-0.9, 0.25), (0.8, 0.5)):
        one, two, three = second_moments(slope, p)
        assert three > 100 * two > 1e4 * one


# --- the gradient -----------------------------------------------------------------------------


def graph_bytes(block, x):
    """What a call keeps for its gradient, weights aside."""
    kept = {}
    weights = {p.data_ptr() for p in block.parameters()}

    def pack(tensor):
        if tensor.data_ptr() not in weights and tensor.shape[:1] != ():
            kept[tensor.data_ptr()] = (tensor, tensor.numel() * tensor.element_size())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        _, log_det = block(x)
    log_det.sum().backward()
    return sum(size for _, size in kept.values())


@pytest.mark.parametrize("kind", KINDS)
def test_memory_does_not_grow_with_the_number_of_terms(kind):
    branch = Branch(6, (32, 32), 0.9)
    randomize(branch, 1.0, 0).train()
    x = torch.randn(200, 6)
    sizes = {}
    for n in (3, 100):
        roulette = Given(0.05, 2)
        roulette.thrown = n, roulette.draw(x)
        sizes[n] = graph_bytes(block_of(kind, branch, roulette), x)
    assert sizes[3] == sizes[100] > 0
    whole = graph_bytes(ResidualBlock(branch, PowerSeries(100)), x)
    assert whole > 20 * sizes[3]


def test_recomputation_keeps_three_vectors_a_row():
    branch = Branch(6, (32, 32), 0.9)
    randomize(branch, 1.0, 0).train()
    x = torch.randn(2000, 6)
    plain, recomputed = (graph_bytes(block_of(k, branch, RussianRoulette()), x) for k in KINDS)
    assert recomputed < 0.2 * plain
    assert recomputed < 1.1 * (3 * x.numel() * 4) + 40_000  # and the layers' weights


@pytest.mark.parametrize("activation", [Sine, LipSwish])
@pytest.mark.parametrize("shape", [(6,), (2, 3, 3)])
def test_a_recomputed_gradient_is_the_plain_one(shape, activation):
    branch = shaken(lambda: Branch(shape, (8, 5), 0.9, activation), 1.0).train()
    x = torch.randn(7, *shape, generator=gen(0)).double().requires_grad_()
    weights = torch.randn(7, generator=gen(1)).double()
    found = []
    for kind in KINDS:
        block = block_of(kind, branch, RussianRoulette())
        torch.manual_seed(3)
        branch.eval().train()
        z, log_det = block(x)
        loss = (weights * log_det).sum() + (z**3).sum()
        found.append([z, log_det, *gradients(loss, [x, *branch.parameters()])])
    for plain, recomputed in zip(*found, strict=True):
        torch.testing.assert_close(recomputed, plain, rtol=1e-12, atol=1e-12)


def test_a_recomputed_gradient_is_at_the_parameters_that_the_call_had():
    """Also where others stand in for the module's own, the activations' included."""
    branch = shaken(lambda: Branch(4, (8, 5), 0.9, LipSwish), 1.0).train()
    x = torch.randn(7, 4, generator=gen(0)).double()
    roulette = Given()
    roulette.thrown = 6, roulette.draw(x)
    found = {}
    for kind in KINDS:
        block = block_of(kind, branch, roulette)
        others = {
            name: (p.detach() + torch.randn(p.shape, generator=gen(k)).double()).requires_grad_()
            for k, (name, p) in enumerate(block.named_parameters())
        }
        z, log_det = torch.func.functional_call(block, others, (x,))
        loss = (log_det * torch.arange(7)).sum() + (z**3).sum()
        found[kind] = dict(zip(others, torch.autograd.grad(loss, others.values()), strict=True))
    assert found["plain"]["branch.activations.0.raw_beta"].abs() > 1e-3
    for name, plain in found["plain"].items():
        torch.testing.assert_close(found["recomputed"][name], plain, rtol=1e-10, atol=1e-12)


def test_a_parameter_that_changed_before_the_recomputed_gradient_is_noticed():
    for change in ("activations.0.raw_beta", "layers.0.weight"):
        branch = branch_of(4, LipSwish)
        z, log_det = RecomputedBlock(branch, RussianRoulette())(torch.randn(5, 4).double())
        with torch.no_grad():
            branch.get_parameter(change).add_(0.1)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            (z.sum() + log_det.sum()).backward()


@pytest.mark.parametrize("training", [True, False])
def test_forward_mode_has_the_derivative_of_reverse_mode(training):
    """And counts the Neumann gradient once."""
    branch = branch_of(3, LipSwish)
    x, way = torch.randn(2, 5, 3, generator=gen(0)).double()
    roulette = Given(0.3)
    roulette.thrown = 6, roulette.draw(x)
    block = ResidualBlock(branch, roulette).train(training)
    f = lambda x: block(x)[1]  # noqa: E731
    reverse = (torch.func.vjp(f, x)[1](torch.ones(5).double())[0] * way).sum(1)
    assert reverse.abs().min() > 1e-4
    torch.testing.assert_close(torch.func.jvp(f, (x,), (way,))[1], reverse)
    with torch.no_grad(), torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(x, way)
        alone = torch.autograd.forward_ad.unpack_dual(f(dual)).tangent
    torch.testing.assert_close(alone, reverse)
    torch.testing.assert_close(torch.func.jacfwd(f)(x), torch.func.jacrev(f)(x))
    given = dict(block.named_parameters())
    ways = {name: torch.randn_like(p) for name, p in given.items()}

    def of_weights(given):
        return torch.func.functional_call(block, given, (x,))[1].sum()

    _, along = torch.func.jvp(of_weights, (given,), (ways,))
    gradient = gradients(of_weights(given), list(given.values()))
    other = sum((g * w).sum() for g, w in zip(gradient, ways.values(), strict=True))
    torch.testing.assert_close(along, other)


def test_what_a_recomputed_gradient_cannot_do_is_said():
    block = RecomputedBlock(branch_of(4, LipSwish), RussianRoulette())
    plain = ResidualBlock(block.branch, block.log_det)
    x = torch.randn(5, 4).double()

    def twice(f):
        row = x.clone().requires_grad_()
        return torch.autograd.grad(f(row)[1].sum(), row, create_graph=True)

    ways = {
        "create_graph=True": twice,
        "torch.func.grad": lambda f: torch.func.grad(lambda x: f(x)[1].sum())(x),
        "forward mode": lambda f: torch.func.jvp(f, (x,), (x,)),
        "vmap": lambda f: torch.vmap(lambda x: f(x[None])[1], randomness="same")(x),
    }
    for name, way in ways.items():
        with pytest.raises(RuntimeError, match=f"RecomputedBlock: expected .* got .*{name}"):
            way(block)
        way(plain)


@pytest.mark.parametrize("randomness", ["error", "different"])
def test_a_vmap_for_which_one_coin_cannot_be_thrown_is_refused(randomness):
    block = ResidualBlock(branch_of(4), RussianRoulette())
    x = torch.randn(5, 4).double()
    with pytest.raises(RuntimeError, match=r'RussianRoulette: .* randomness="same"\) in training'):
        torch.vmap(lambda x: block(x[None])[1], randomness=randomness)(x)


def test_under_vmap_all_rows_have_one_coin_and_one_probe():
    branch = branch_of(4)
    x = torch.randn(5, 4).double()
    roulette, given = RussianRoulette(), Given()
    torch.manual_seed(1)
    given.thrown = roulette.throw(x[:1])
    torch.manual_seed(1)
    rows = torch.vmap(lambda x: ResidualBlock(branch, roulette)(x[None])[1][0], randomness="same")
    one_by_one = [ResidualBlock(branch, given)(row[None])[1] for row in x]
    torch.testing.assert_close(rows(x), torch.cat(one_by_one))


@pytest.mark.parametrize(
    ("kind", "log_det"),
    [("plain", RussianRoulette), ("recomputed", RussianRoulette), ("plain", PowerSeries)],
)
def test_in_half_precision_the_terms_are_added_in_float32(kind, log_det):
    branch = shaken(lambda: Branch(300, 32, 0.9), 1.0).eval()
    block = block_of(kind, branch, log_det()).eval()
    x = torch.randn(20, 300, generator=gen(0)).double().bfloat16()
    exact = block(x.double())[1].detach()
    half = block.bfloat16()(x)[1]
    assert half.dtype == torch.float32
    assert (half - exact).abs().max() < 0.02 * exact.abs().max()
    half.sum().backward()
    assert all(
        p.grad is not None and p.grad.isfinite().all() for p in branch.layers[0].parameters()
    )
    flow = Flow(Compose([block, block]), StandardNormal(300))
    assert flow.log_prob(x).isfinite().all()


@pytest.mark.parametrize("recompute", [False, True])
def test_under_autocast_the_sums_stay_in_float32_and_gradients_agree(recompute):
    torch.manual_seed(0)
    flow = ResidualFlow(6, 2, 16, recompute=recompute, activation=LipSwish)
    x = torch.randn(50, 6)
    flow.initialize(x)
    with torch.no_grad():
        for p in flow.parameters():
            p.add_(0.3 * torch.randn_like(p))
    found = {}
    for half in (False, True):
        torch.manual_seed(5)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=half):
            log_prob = flow.log_prob(x)
        assert log_prob.dtype == torch.float32
        gradient = torch.cat([g.flatten() for g in gradients(log_prob.mean(), flow.parameters())])
        found[half] = log_prob.mean().item(), gradient
    assert found[True][0] == pytest.approx(found[False][0], abs=0.05)
    cosine = torch.cosine_similarity(found[True][1], found[False][1], dim=0)
    assert cosine > 0.99


WRAPPED = """
import sys, torch
from flowlib import ResidualFlow
recompute, store = sys.argv[1] == "True", sys.argv[2]
torch.distributed.init_process_group("gloo", init_method=f"file://{store}", rank=0, world_size=1)
torch.manual_seed(0)
flow = ResidualFlow(6, 2, 16, recompute=recompute)
x = torch.randn(20, 6)
torch.manual_seed(1)
alone = torch.autograd.grad(-flow.log_prob(x).mean(), list(flow.parameters()))
wrapped = torch.nn.parallel.DistributedDataParallel(flow)
torch.manual_seed(1)
(-wrapped(x).mean()).backward()
for p, expected in zip(flow.parameters(), alone):
    torch.testing.assert_close(p.grad, expected)
print("equal", flush=True)
"""


@pytest.mark.parametrize("recompute", [False, True])
def test_under_distributed_data_parallel(recompute, tmp_path):
    """In a process of its own: a process group may hang when it is taken down."""
    command = [sys.executable, "-c", WRAPPED + "import os\nos._exit(0)", str(recompute)]
    done = subprocess.run(
        [*command, str(tmp_path / "store")], capture_output=True, text=True, timeout=120, check=True
    )
    assert "equal" in done.stdout


def test_a_step_in_the_gradients_direction_raises_the_exact_likelihood():
    torch.manual_seed(0)
    flow = ResidualFlow(6, 4, 32)
    x = datasets.breast_cancer().train[:, :6]
    history = fit(flow, x, steps=150, lr=1e-2, batch_size=128, progress=False)
    assert history.train[-1] < history.train[0] - 3
    flow.eval()  # exact from here on
    assert -flow.log_prob(x).mean().item() == pytest.approx(np.mean(history.train[-10:]), abs=1.0)


# --- modes ------------------------------------------------------------------------------------


def only_roulette(dim=6, **options):
    torch.manual_seed(0)
    flow = ResidualFlow(dim, 3, 16, lipschitz=0.8, log_det=lambda: RussianRoulette(**options))
    with torch.no_grad():
        for p in flow.parameters():
            p.add_(0.4 * torch.randn_like(p))
    return flow.eval()


def test_in_evaluation_it_is_the_same_in_every_call_whatever_the_other_rows():
    flow, x = only_roulette(), torch.randn(9, 6)
    whole = flow.log_prob(x)
    assert torch.equal(whole, flow.log_prob(x))
    torch.testing.assert_close(flow.log_prob(x[:4]), whole[:4])
    one_by_one = torch.cat([flow.log_prob(x[i : i + 1]) for i in range(9)])
    torch.testing.assert_close(torch.vmap(flow.log_prob)(x), one_by_one)
    others = flow.log_prob(torch.cat([x[:4], x[4:] + 1]))
    torch.testing.assert_close(others[:4], whole[:4])
    with torch.no_grad():
        torch.testing.assert_close(flow.log_prob(x), whole)
    with torch.inference_mode():
        torch.testing.assert_close(flow.log_prob(x), whole)
    twin = copy.deepcopy(flow)
    torch.testing.assert_close(twin.double().log_prob(x.double()).float(), whole)
    flow.train()
    assert not torch.equal(flow.log_prob(x), flow.log_prob(x))


def test_in_evaluation_it_is_nearer_than_in_training():
    flow, x = only_roulette(), torch.randn(200, 6)
    exact = copy.deepcopy(flow)
    for part in exact.modules():
        if isinstance(part, ResidualBlock):
            part.log_det = ExactLogDet()
    errors = {}
    for mode in (True, False):
        flow.train(mode)
        for branch in (m for m in flow.modules() if isinstance(m, Branch)):
            branch.eval()
        errors[mode] = (flow.log_prob(x) - exact.log_prob(x)).square().mean().sqrt().item()
    assert errors[False] < 0.6 * errors[True]


def test_blocks_of_a_flow_do_not_share_their_probes():
    blocks = [b for b in ResidualFlow(300, 3, 4).modules() if isinstance(b, RussianRoulette)]
    x = torch.zeros(1, 300)
    probes = [b.eval().throw(x)[1] for b in blocks]
    assert len(blocks) == 3
    assert not torch.equal(probes[0], probes[1])


def test_neighbouring_seeds_of_a_flow_share_no_probes():
    x = torch.zeros(2, 300)
    found = {
        (seed, k): part.eval().throw(x)[1]
        for seed in (0, 1)
        for k, part in enumerate(
            b
            for b in ResidualFlow(
                300, 3, 4, log_det=lambda seed=seed: RussianRoulette(seed=seed)
            ).modules()
            if isinstance(b, RussianRoulette)
        )
    }
    assert len(found) == 6
    for one, other in itertools.combinations(found.values(), 2):
        assert not torch.equal(one, other)


@pytest.mark.parametrize("make", [ResidualFlow, IResNet])
def test_a_log_det_that_is_given_out_twice_is_copied(make):
    mine = ByMode(RussianRoulette(seed=5), PowerSeries(3, seed=7))
    blocks = [
        b.log_det
        for b in make(4, 3, 8, log_det=lambda: mine).modules()
        if isinstance(b, ResidualBlock)
    ]
    assert (mine.in_training.seed, mine.in_evaluation.seed) == (5, 7)
    assert len({id(part.in_training) for part in (mine, *blocks)}) == 4
    assert blocks[0].in_training.seed == 5
    assert len({part.in_evaluation.seed for part in blocks}) == 3


def test_the_determinant_is_exact_where_that_is_cheaper():
    def ways(dim):
        flow = ResidualFlow(dim, 1, 4)
        return next(b for b in flow.modules() if isinstance(b, ResidualBlock)).log_det

    assert [type(ways(dim)) for dim in (1, 2, 3)] == [ExactLogDet] * 3
    between = ways(4)
    assert isinstance(between, ByMode)
    assert isinstance(between.in_training, RussianRoulette)
    assert isinstance(between.in_evaluation, ExactLogDet)
    assert isinstance(ways(257), RussianRoulette)
    assert isinstance(ways((1, 32, 32)), ByMode)
    assert isinstance(ways((1, 32, 33)), RussianRoulette)
    assert "ExactLogDet" in repr(ResidualFlow(2))
    assert "RussianRoulette(p=0.25, n_exact=2" in repr(ResidualFlow(300))


def test_draws_and_their_densities():
    flow = only_roulette()
    x, log_p = flow.rsample_and_log_prob(500, generator=gen(0))
    torch.testing.assert_close(flow.log_prob(x), log_p, rtol=0, atol=1e-3)
    (x.square().mean() + log_p.mean()).backward()
    assert all(p.grad is not None for p in flow.parameters())


# --- errors of estimates ----------------------------------------------------------------------


def test_an_estimates_error_is_the_one_that_is_seen():
    flow = only_roulette(eval_n_exact=2, eval_probes=1, p=0.3).double()
    x = torch.randn(3, 6, generator=gen(0)).double()
    exact = copy.deepcopy(flow)
    for part in exact.modules():
        if isinstance(part, ResidualBlock):
            part.log_det = ExactLogDet()
    truth = exact.log_prob(x)
    scores = []
    for seed in range(60):
        found = log_prob_with_error(flow, x, n_draws=32, seed=seed)
        assert found.draws.shape == (32, 3)
        scores.append((found.value - truth) / found.error)
    scores = torch.stack(scores)
    assert (scores.mean(0).abs() < 4 / math.sqrt(len(scores))).all()
    assert 0.8 < scores.std() < 1.3


def test_an_estimate_leaves_the_flow_as_it_was():
    flow, x = only_roulette().train(), torch.randn(4, 6)
    part = next(m for m in flow.modules() if isinstance(m, Branch))
    part.eval()
    one, two = (log_prob_with_error(flow, x, seed=s) for s in (0, 0))
    assert torch.equal(one.draws, two.draws)
    assert not torch.equal(one.draws, flow.log_prob_with_error(x, seed=1).draws)
    assert flow.training
    assert not part.training
    assert torch.equal(flow.eval().log_prob(x), flow.log_prob(x))


@pytest.mark.parametrize("distribution", ["rademacher", "gaussian"])
def test_the_error_of_a_short_series_is_that_of_its_probes(distribution):
    torch.manual_seed(0)
    flow = randomize(IResNet(6, 2, 16, log_det=lambda: PowerSeries(3, 1, distribution)), 1.0)
    x = torch.randn(4, 6)
    found = log_prob_with_error(flow, x, n_draws=64)
    assert (found.error > 0.01).all()
    assert torch.equal(found.draws, log_prob_with_error(flow, x, n_draws=64).draws)
    for part in flow.modules():
        if isinstance(part, PowerSeries):
            part.probes = 4096
    assert ((found.value - flow.log_prob(x)).abs() < 5 * found.error).all()


def test_an_exact_flow_has_no_error():
    found = ResidualFlow(2, 2, 8).log_prob_with_error(torch.zeros(3, 2), n_draws=2)
    assert torch.equal(found.error, torch.zeros(3))


def test_the_spectral_radius_is_the_largest_eigenvalues():
    for dim in (2, 6):
        flow = Flow(Compose([ActNorm(dim), ResidualBlock(branch_of(dim)),
                             ResidualBlock(branch_of(dim, Tanh, 5))]),
                    StandardNormal(dim)).double()  # fmt: skip
        x = torch.randn(20, dim, generator=gen(0)).double()
        flow.eval()
        expected, at = [], x
        for step in flow.bijection:
            if isinstance(step, ResidualBlock):
                matrix = plus_identity(at, step.branch.linearize(at)) - torch.eye(dim)
                expected.append(torch.linalg.eigvals(matrix).abs().max())
            at = step(at)[0]
        found = spectral_radius(flow, x, n_steps=400)
        torch.testing.assert_close(found, torch.stack(expected), rtol=0.02, atol=0)


def test_a_coin_that_stops_too_often_is_named():
    flow = Flow(ResidualBlock(branch_of(2), RussianRoulette(0.99)), StandardNormal(2)).double()
    x = torch.randn(5, 2).double()
    with pytest.warns(UserWarning, match=r"p=0\.99 has an infinite variance; a p below 0\.\d+ has"):
        spectral_radius(flow, x)
    flow.bijection.log_det.p = 0.01
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        spectral_radius(flow, x)
    assert torch.equal(spectral_radius(ResidualFlow(4, 1, 4), torch.zeros(3, 4)), torch.zeros(1))


# --- LipSwish ---------------------------------------------------------------------------------


def test_lipswish_is_nowhere_steeper_than_one_and_bends_where_an_elu_does_not():
    for raw in (-3.0, 0.5, 4.0):
        bend = LipSwish().double()
        with torch.no_grad():
            bend.raw_beta.fill_(raw)
        h = (torch.linspace(-30, 30, 60_001).double() / bend.beta.detach()).requires_grad_()
        value, slope = bend.curve(h)
        (true,) = torch.autograd.grad(value.sum(), h, create_graph=True)
        torch.testing.assert_close(slope, true)
        torch.testing.assert_close(bend.value(h), value)
        assert slope.abs().max().item() == pytest.approx(0.99985, abs=1e-5)
        (second,) = torch.autograd.grad(slope.sum(), h)
        flat = (second.abs() < 1e-3 * bend.beta.item()) & (slope > 0.95)
        assert flat.double().mean() < 2e-3  # at its peak only
    h = torch.linspace(0.1, 5, 100).double().requires_grad_()
    (second,) = torch.autograd.grad(ELU().curve(h)[1].sum(), h, allow_unused=True,
                                    materialize_grads=True)  # fmt: skip
    assert (second == 0).all()


# --- bad input --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"p": 0}, "a positive, finite p, got 0"),
        ({"p": 1.0}, r"a p of 0\.01 or more, below 1, got 1\.0"),
        ({"p": 1.5}, r"a p of 0\.01 or more, below 1, got 1\.5"),
        ({"p": 1e-12}, r"a p of 0\.01 or more, below 1, got 1e-12"),
        ({"p": float("nan")}, "a positive, finite p, got nan"),
        ({"n_exact": -1}, "a whole n_exact of 0 or more, got -1"),
        ({"n_exact": 1.5}, "a whole n_exact of 0 or more, got 1.5"),
        ({"probes": 0}, "a whole probes of 1 or more, got 0"),
        ({"eval_probes": 0}, "a whole eval_probes of 1 or more, got 0"),
        ({"distribution": "cauchy"}, 'a distribution "rademacher" or "gaussian", got \'cauchy\''),
        ({"seed": -1}, "a whole seed of 0 or more, got -1"),
    ],
)
def test_bad_arguments_are_refused(options, message):
    with pytest.raises(ValueError, match=f"RussianRoulette: expected {message}"):
        RussianRoulette(**options)


def test_bad_blocks_are_refused():
    with pytest.raises(ValueError, match=r"a lipschitz bound below 1, got 1\.0"):
        ResidualFlow(6, lipschitz=1.0)
    for make in (ResidualFlow, IResNet):
        with pytest.raises(TypeError, match=rf"{make.__name__}: .* makes a LogDet, got Russian"):
            make(6, log_det=RussianRoulette())
        with pytest.raises(TypeError, match="makes a LogDet, got 'exact'; functools"):
            make(6, log_det="exact")
        with pytest.raises(TypeError, match="what log_det makes to be a LogDet, got 3"):
            make(6, log_det=lambda: 3)
    with pytest.raises(TypeError, match="ResidualBlock: expected log_det to be a LogDet, got <cl"):
        ResidualBlock(Branch(6, 4), RussianRoulette)
    with pytest.raises(TypeError, match="ByMode: expected training to be a LogDet, got 'exact'"):
        ByMode("exact", ExactLogDet())
    with pytest.raises(TypeError, match="ByMode: expected evaluation to be a LogDet, got None"):
        ByMode(RussianRoulette(), None)
    with pytest.raises(TypeError, match="a RussianRoulette in training, got a ExactLogDet"):
        ResidualFlow(2, recompute=True)
    layer = nn.Linear(6, 6)
    layer.event_shape, layer.lipschitz = (6,), 0.5
    with pytest.raises(TypeError, match="expected a Branch, got a Linear"):
        RecomputedBlock(layer, RussianRoulette())
    with pytest.raises(ValueError, match="a whole n_draws of 2 or more, got 1"):
        log_prob_with_error(ResidualFlow(2), torch.zeros(1, 2), n_draws=1)
    with pytest.raises(ValueError, match=r"expected x of shape \(\.\.\., 6\), got \(3, 5\)"):
        log_prob_with_error(ResidualFlow(6, 1, 4), torch.zeros(3, 5))


def test_a_frozen_bend_is_left_out_of_the_recomputed_gradient():
    torch.manual_seed(0)
    branch = Branch(4, (8, 8), 0.8, LipSwish).double()
    block = RecomputedBlock(branch, RussianRoulette()).double().train()
    for bend in branch.activations:
        bend.raw_beta.requires_grad_(False)
    x = torch.randn(5, 4, dtype=torch.float64, requires_grad=True)
    z, log_det = block(x)
    (z.sum() + log_det.sum()).backward()
    assert x.grad is not None
    assert all(bend.raw_beta.grad is None for bend in branch.activations)
    assert all(layer.weight.grad is not None for layer in branch.layers)


def test_lipswish_is_made_on_meta():
    with torch.device("meta"):
        flow = ResidualFlow(4, 2, 8, activation=LipSwish)
    assert next(flow.parameters()).is_meta


def test_the_radius_of_a_block_that_is_used_twice_or_never():
    block = ResidualBlock(Branch(4, 8, 0.8), RussianRoulette())
    assert spectral_radius(Compose([block, block]), torch.randn(5, 4)).shape == (2,)
    with pytest.raises(ValueError, match="none of them used"):
        spectral_radius(Compose([Inverse(block)]), torch.randn(5, 4))
    with pytest.raises(ValueError, match="at least one row"):
        spectral_radius(block, torch.zeros(0, 4))
