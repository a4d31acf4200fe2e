"""check_flow: it finds planted mistakes by the right line, and says nothing about right flows.

Each planted flow is small and stands by itself. The number is the row of the errata (part 2 of the
plan's sources) that the finding must name.
"""

import itertools
import math
import re

import numpy as np
import pytest
import torch
from torch import nn
from torch.distributions import (
    AffineTransform,
    ExpTransform,
    Independent,
    Normal,
    TanhTransform,
    TransformedDistribution,
)

from flowlib import (
    IAF,
    MAF,
    BernoulliMADE,
    Bijection,
    Compose,
    Flow,
    Foreign,
    IResNet,
    LeakyReLU,
    LULinear,
    PowerSeries,
    RealNVP,
    ResidualFlow,
    StandardNormal,
    check_flow,
    fit,
)
from flowlib.arrays import Names
from flowlib.diagnosis import jacobians, patient
from flowlib.diagnosis.findings import NotTried
from flowlib.diagnosis.maps import one_sign
from tests.models import randomize
from tests.test_flows import FLOWS
from tools.notebooks import ROOT

DIM = 4


def rows(n=300, dim=DIM, seed=0):
    return torch.randn(n, dim, generator=torch.Generator().manual_seed(seed))


# --- small flows, right and wrong -----------------------------------------------------------------


class Small(nn.Module):
    """A flow by hand, with the names that people choose."""

    def __init__(self, dim=DIM, seed=0):
        super().__init__()
        torch.manual_seed(seed)
        self.base = StandardNormal(dim)
        half = dim // 2
        self.net = nn.Sequential(nn.Linear(half, 16), nn.ReLU(), nn.Linear(16, 2 * (dim - half)))

    def scales(self, a):
        s, t = self.net(a).chunk(2, -1)
        return s.tanh(), t

    def split(self, x):
        half = x.shape[1] // 2
        return x[:, :half], x[:, half:]

    def forward(self, x):
        a, b = self.split(x)
        s, t = self.scales(a)
        return torch.cat([b * s.exp() + t, a], 1), s.sum(1)

    def inverse(self, z):
        c, a = z[:, self.split(z)[1].shape[1] :], z[:, : self.split(z)[1].shape[1]]
        a, c = c, a
        s, t = self.scales(a)
        return torch.cat([a, (c - t) * (-s).exp()], 1), -s.sum(1)


class Shapes(Small):
    def forward(self, x):
        z, log_det = super().forward(x)
        return z, log_det.sum()


class Batch(Small):
    def forward(self, x):
        z, log_det = super().forward(x)
        return z, log_det.mean().expand(len(x))


class Absolute(Small):
    def forward(self, x):
        z, _ = super().forward(x)
        return z, self.scales(self.split(x)[0])[0].abs().sum(1)


class NoLog(Small):
    def forward(self, x):
        z, log_det = super().forward(x)
        return z, log_det.exp()


class Cancels(Small):
    """Wrong both ways: the sum of both log-determinants is 0 all the same."""

    def forward(self, x):
        z, log_det = super().forward(x)
        return z, log_det + x.square().sum(1)

    def inverse(self, z):
        x, log_det = super().inverse(z)
        return x, log_det - x.square().sum(1)


class InPlace(Small):
    def forward(self, x):
        z, log_det = super().forward(x)
        x[:, 0] = z[:, 0]
        return z, log_det


class Divides(Small):
    def inverse(self, z):
        x, log_det = super().inverse(z)
        a, b = self.split(x)
        s, _ = self.scales(a)
        return torch.cat([a, b * s.exp() / s], 1), log_det


class OneWayClamp(Small):
    def scales(self, a):
        s, t = self.net(a).chunk(2, -1)
        return 3 * s, t

    def forward(self, x):
        a, b = self.split(x)
        s, t = self.scales(a)
        s = s.clamp(-0.5, 0.5)
        return torch.cat([b * s.exp() + t, a], 1), s.sum(1)


class Rectified(Small):
    def __init__(self):
        super().__init__()
        self.net.append(nn.ReLU())


class Normed(Small):
    def __init__(self):
        super().__init__()
        self.net.insert(1, nn.BatchNorm1d(16))


class AlwaysBatch(Small):
    """Batch statistics in evaluation, too."""

    def scales(self, a):
        return super().scales((a - a.mean(0)) / (a.std(0, correction=0) + 1e-3))


class NewMasks(Small):
    def scales(self, a):
        mask = (torch.rand(16, device=a.device) > 0.5).to(a)
        return tuple(
            part.tanh() for part in self.net[2](self.net[1](self.net[0](a)) * mask).chunk(2, -1)
        )


class PlainMask(Small):
    def __init__(self, seed=0):
        super().__init__(seed=seed)
        self.order = torch.randperm(DIM)

    def forward(self, x):
        return super().forward(x[:, self.order])

    def inverse(self, z):
        x, log_det = super().inverse(z)
        return x[:, self.order.argsort()], log_det


class WrongPermutation(PlainMask):
    def inverse(self, z):
        x, log_det = Small.inverse(self, z)
        return x[:, torch.tensor([1, 2, 3, 0])], log_det

    def __init__(self):
        super().__init__()
        self.order = torch.tensor([1, 2, 3, 0])


class StartsAgain(Small):
    """An ActNorm whose flag is a plain attribute."""

    def __init__(self, seed=0):
        super().__init__(seed=seed)
        self.shift = nn.Parameter(torch.zeros(DIM))
        self.started = False

    def forward(self, x):
        if self.training and not self.started:
            self.shift.data = -x.mean(0)
            self.started = True
        return super().forward(x + self.shift)

    def inverse(self, z):
        x, log_det = super().inverse(z)
        return x - self.shift, log_det


class NoLogDetInDraws(Small):
    def rsample_and_log_prob(self, n):
        z = self.base.sample(n)
        x, _ = self.inverse(z.to(next(self.parameters()).dtype))
        return x, self.base.log_prob(z)


class ImageNorm(nn.Module):
    """Batch norm of pictures whose log-det is not times height and width."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor([0.3]))

    def forward(self, x):
        return x * self.scale.exp(), self.scale.expand(len(x))


class Context(Small):
    """The context is masked away."""

    def forward(self, x, context):
        return super().forward(x + 0 * context.sum())

    def inverse(self, z, context):
        return super().inverse(z)


class Made(nn.Module):
    """One masked layer after another; what the masks are is the argument."""

    def __init__(self, dim=3, hidden=30, inside=torch.ge, last=torch.gt, degrees=None):
        super().__init__()
        torch.manual_seed(1)
        self.base = StandardNormal(dim)
        inputs, outputs = torch.arange(1, dim + 1), torch.arange(1, dim + 1)
        degrees = torch.arange(hidden) % (dim - 1) + 1 if degrees is None else degrees
        self.register_buffer("first", inside(degrees[:, None], inputs).float())
        self.register_buffer("second", inside(degrees[:, None], degrees).float())
        self.register_buffer("out", last(outputs[:, None], degrees).float().repeat(2, 1))
        self.layers = nn.ModuleList(
            [nn.Linear(dim, hidden), nn.Linear(hidden, hidden), nn.Linear(hidden, 2 * dim)]
        )

    def parameters_of(self, x):
        for layer, mask in zip(self.layers, (self.first, self.second, self.out), strict=True):
            x = nn.functional.linear(x, layer.weight * mask, layer.bias)
            x = x if layer is self.layers[-1] else x.relu()
        m, s = x.chunk(2, -1)
        return m, s.tanh()

    def forward(self, x):
        m, s = self.parameters_of(x)
        return (x - m) * (-s).exp(), -s.sum(1)

    def inverse(self, z):
        x = torch.zeros_like(z)
        for k in range(z.shape[1]):
            m, s = self.parameters_of(x)
            x = torch.cat([x[:, :k], (m + z * s.exp())[:, k : k + 1], x[:, k + 1 :]], 1)
        return x, self.parameters_of(x)[1].sum(1)


class OneShot(Made):
    def inverse(self, z):
        m, s = self.parameters_of(z)
        return m + z * s.exp(), s.sum(1)


class Residual(nn.Module):
    """x + W2 tanh(W1 x): an exact log-determinant, a fixed point back."""

    def __init__(self, dim=2, norm=None, steps=200, cut=None):
        super().__init__()
        torch.manual_seed(3)
        self.base = StandardNormal(dim)
        self.a, self.b = nn.Linear(dim, 16), nn.Linear(16, dim, bias=False)
        self.norm, self.steps, self.cut = norm or spectral, steps, cut

    def g(self, x):
        w, v = (layer.weight / self.norm(layer.weight) * 0.97 for layer in (self.a, self.b))
        return (x @ w.T + self.a.bias).tanh() @ v.T

    def log_det(self, x):
        with torch.enable_grad():
            jacobians = torch.func.vmap(
                torch.func.jacrev(lambda r: self.g(r[None])[0]), randomness="same"
            )(x)
        eye = torch.eye(x.shape[1], dtype=x.dtype)
        return torch.linalg.slogdet(jacobians + eye)[1]

    def forward(self, x):
        return x + self.g(x), self.log_det(x)

    def inverse(self, z):
        x = z
        for _ in range(self.steps):
            new = z - self.g(x)
            if self.cut is not None and (new - x).square().max() / self.cut < 1:
                break
            x = new
        return x, -self.log_det(x)


def spectral(w):
    return torch.linalg.matrix_norm(w, 2)


def too_small(w):
    """A quarter of the norm, as a radius or a reshaped kernel may be."""
    return torch.linalg.matrix_norm(w, 2) / 4


class Estimated(nn.Module):
    """A residual map of one matrix whose log-determinant is a series with probes."""

    def __init__(self, mean=0.0, tail=0, over_k=True, sign=-1.0, weighted=True, neumann=False):
        super().__init__()
        torch.manual_seed(5)
        self.base = StandardNormal(3)
        self.a = nn.Parameter(torch.eye(3) + 0.3 * torch.randn(3, 3))
        self.mean, self.tail, self.over_k, self.sign = mean, tail, over_k, sign
        self.weighted, self.neumann = weighted, neumann

    def matrix(self):
        return 0.6 * self.a / spectral(self.a)

    def forward(self, x):
        j = self.matrix()
        v = (torch.rand_like(x) > 0.5).to(x) * 2 - 1 + self.mean
        n = 1 + int(torch.distributions.Geometric(0.3).sample())
        total, w, y = torch.zeros_like(x[:, 0]), v, (x @ j.T).tanh()
        slope = 1 - y**2
        if self.neumann:
            w = terms = (v * slope) @ j
            for k in range(1, n + 1):
                terms = terms + (-1) ** k * (w := (w * slope) @ j) / 0.7 ** max(0, k - 1)
            return x + y, (terms * v).sum(1)
        for k in range(1, n + 1):
            w = (w * slope) @ j
            p = 0.7 ** max(0, k - 1 + self.tail)
            total = total + self.sign ** (k + 1) / (k if self.over_k else 1) * (w * v).sum(1) / p
        if not self.weighted:  # a backward by hand: every row gets the mean of all rows' gradients
            total = total.detach() + (total.mean() - total.mean().detach())
        return x + y, total


class Ensemble(BernoulliMADE):
    """Two orderings, averaged as logits."""

    def __init__(self):
        super().__init__(4, (16,))
        self.one = randomize(BernoulliMADE(4, (16,), order="reversed"), 1.5, seed=1)

    def log_prob(self, x, context=None):
        return 0.5 * (super().log_prob(x) + self.one.log_prob(x)) + 0.3


class Eval(Residual):
    """A power iteration that still runs in evaluation, from a random start."""

    def g(self, x):
        u = torch.randn(self.a.weight.shape[1], dtype=x.dtype)
        w = self.a.weight / (self.a.weight @ (u / u.norm())).norm() * 0.5
        return (x @ w.T).tanh() @ (self.b.weight / spectral(self.b.weight)).T


class Overshoots(Residual):
    """-0.97 x, and Anderson's step taken without a look at the residual: it stops wherever."""

    def g(self, x):
        return -0.97 * x + 0.01 * x.tanh() + 0 * self.a.bias.sum()

    def inverse(self, z):
        x, before = z, z + 1
        for k in range(30):
            x, before = (2 * before - x if k % 2 else z - self.g(x)), x
        return x, -self.log_det(x)


def spectral_radius(w):
    return torch.linalg.eigvals(w @ torch.roll(w, 1, 0).T).abs().max().sqrt() / 2


PLANTED = {
    1: (lambda: NewMasks(), "repeatable"),
    2: (lambda: Made(10, 100, degrees=torch.randperm(100) + 1), "hidden units"),
    3: (lambda: Made(last=torch.ge), "log-determinant"),
    4: (lambda: randomize(Ensemble(), 1.5, seed=0), "integral"),
    5: (lambda: OneShot(), "round trip"),
    6: (lambda: Absolute(), "log-determinant"),
    7: (lambda: Rectified(), "last layer"),
    8: (lambda: Context(), "context"),
    9: (lambda: WrongPermutation(), "round trip"),
    10: (lambda: NoLogDetInDraws(), "draws"),
    11: (lambda: NoLog(), "log-determinant"),
    12: (lambda: Normed(), "modes"),
    13: (lambda: ImageNorm(), "log-determinant"),
    15: (lambda: InPlace(), "input"),
    16: (lambda: Residual(norm=spectral_radius), "round trip"),
    17: (lambda: Residual(norm=too_small), "one sign"),
    18: (lambda: Eval(), "repeatable"),
    19: (lambda: Residual(cut=10.0), "round trip"),
    20: (lambda: Residual(norm=lambda w: spectral(w) / 3), "round trip"),
    21: (lambda: Estimated(mean=1.0), "estimate"),
    22: (lambda: Estimated(tail=1), "estimate"),
    23: (lambda: Estimated(over_k=False), "estimate"),
    24: (lambda: Estimated(neumann=True), "estimate"),
    25: (lambda: Estimated(weighted=False), "gradients"),
    26: (lambda: OneWayClamp(), "round trip"),
    29: (lambda: Cancels(), "log-determinant"),
}


@pytest.mark.parametrize("row", PLANTED)
def test_a_planted_mistake_is_found_by_its_line(row):
    make, line = PLANTED[row]
    flow = make()
    dim = 3 if isinstance(flow, Made | Estimated) else 2 if isinstance(flow, Residual) else DIM
    x = rows(dim=10) if row == 2 else rows(dim=dim)
    if row == 13:
        x = torch.rand(100, 1, 4, 4)
    if row == 4:
        x = (x > 0).float()
    report = check_flow(flow, x, rows(dim=2) if row == 8 else None)
    found = report[line]
    assert found.verdict == "wrong", report
    assert row in found.mistakes, report
    assert found.cause
    assert found.cure


def test_units_that_large_weights_saturate_are_not_dead():
    torch.manual_seed(0)
    flow = IAF(2)  # at the weights that seed 0 shakes them to, units of its third layer saturate
    report = check_flow(flow, torch.randn(300, 2))
    assert report["hidden units"].verdict == "ok", report


def test_a_long_chain_of_steep_maps_has_no_wrong_gradient_and_no_sign():
    torch.manual_seed(0)
    chain = MAF(2, n_layers=24, hidden=(3,))  # where moved weights leave layers without a unit on
    assert check_flow(chain, rows(dim=2))["gradients"].verdict == "ok"

    class Rapid(Bijection):
        """As steep in its weights as many layers are."""

        event_shape, context_dim = torch.Size([2]), 0

        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(2))

        def forward(self, x, context=None):
            log_scale = (1e8 * self.weight).sin()
            return x * log_scale.exp(), log_scale.sum().expand(len(x))

        def inverse(self, z, context=None):
            log_scale = (1e8 * self.weight).sin()
            return z * (-log_scale).exp(), -log_scale.sum().expand(len(z))

    flow = Flow(Rapid(), StandardNormal(2))
    assert check_flow(flow, rows(dim=2))["gradients"].verdict == "ok"

    torch.manual_seed(0)
    tried = patient.Patient(flow, rows(dim=2), None, None, None, 256, Names())
    (found, *_) = tried.jacobians
    signs = torch.tensor([1.0, -1.0] * 4)
    tried.jacobians = [found._replace(signs=signs, condition=1e6)]
    assert one_sign(tried).verdict == "wrong"
    tried.jacobians = [found._replace(signs=signs, condition=1e15)]
    with pytest.raises(NotTried, match=r"rounding hides it: the condition number is 1e\+15"):
        one_sign(tried)


def test_links_lost_by_a_mask_are_noted():
    found = check_flow(Made(inside=torch.gt), rows(dim=3))["links"]
    assert found.verdict == "note"
    assert 3 in found.mistakes


def test_an_anderson_step_without_a_look_is_found():
    assert check_flow(Overshoots(), rows(dim=2))["round trip"].verdict == "wrong"


def test_one_number_for_a_batch_is_found():
    assert check_flow(Shapes(), rows())["shapes"].verdict == "wrong"
    found = check_flow(Batch(), rows())["log-determinant"]
    assert found.verdict == "wrong"
    assert "whole batch" in found.cause


def test_division_by_the_scale_is_found():
    assert check_flow(Divides(), rows())["round trip"].verdict == "wrong"


def test_batch_statistics_in_evaluation_are_found():
    found = check_flow(AlwaysBatch(), rows())["rows"]
    assert found.verdict == "wrong"
    assert 12 in found.mistakes


@pytest.mark.parametrize(("make", "row"), [(PlainMask, 1), (StartsAgain, 27)])
def test_what_state_dict_does_not_carry_is_found(make, row):
    seeds = itertools.count(1)
    flow = make().train()
    flow(rows())
    found = check_flow(flow, rows(), rebuild=lambda: make(seed=next(seeds)))["state"]
    assert found.verdict == "wrong"
    assert row in found.mistakes
    assert check_flow(Small(), rows(), rebuild=Small)["state"].verdict == "ok"


class Shuffled(Bijection):
    """An order drawn when the layer is made, and kept where state_dict does not look."""

    context_dim = 0

    def __init__(self, dim):
        super().__init__()
        self.event_shape = torch.Size([dim])
        self.order = torch.randperm(dim)

    def forward(self, x, context=None):
        return x[:, self.order], x.new_zeros(len(x))

    def inverse(self, z, context=None):
        return z[:, self.order.argsort()], z.new_zeros(len(z))


def test_a_flow_that_keeps_its_arguments_needs_no_second_flow():
    right = Flow(Compose([LULinear(6), LeakyReLU()]), StandardNormal(6))
    found = check_flow(right, rows(dim=6))["state"]
    assert found.verdict == "ok"
    assert "made anew" in found.measured
    torch.manual_seed(7)
    wrong = Flow(Compose([LULinear(6), Shuffled(6), LeakyReLU()]), StandardNormal(6))
    found = check_flow(wrong, rows(dim=6))["state"]
    assert found.verdict == "wrong", found
    assert 1 in found.mistakes
    right.bijection = Compose([LULinear(6)])  # changed since: its arguments say nothing of it
    assert check_flow(right, rows(dim=6))["state"].verdict == "ok"


def test_a_plain_mask_is_noted_without_a_second_flow():
    assert check_flow(PlainMask(), rows())["state"].verdict == "note"


def test_bits_of_another_unit_are_found():
    flow = Small()
    x = torch.rand(200, DIM)

    def bits(x, shift):
        z, log_det = flow(x)
        return -(flow.base.log_prob(z) + log_det) / (DIM * math.log(2)) + shift

    right = check_flow(flow, x, bits_per_dim=lambda x: bits(x, 8.0))["bits"]
    wrong = check_flow(flow, x, bits_per_dim=lambda x: bits(x, 0.0))["bits"]
    assert right.verdict == "ok", right
    assert wrong.verdict == "wrong"
    assert 28 in wrong.mistakes


# --- flows that are right -------------------------------------------------------------------------


@pytest.mark.parametrize("weights", ["fresh", "random"])
@pytest.mark.parametrize("name", FLOWS)
def test_no_false_alarm_on_the_flows_of_the_library(name, weights):
    torch.manual_seed(0)
    flow = FLOWS[name]()
    if weights == "random":
        randomize(flow)
    x = torch.randn(200, *flow.event_shape)
    x = x if flow.bijection.domain is None else x.sigmoid()
    context = torch.randn(200, flow.context_dim) if flow.context_dim else None
    report = check_flow(flow, x, context)
    assert report.ok, report
    assert not report.notes, report


def shaped(flow, n=400):
    """Data that a flow can learn something of, and a context if it takes one."""
    x = torch.randn(n, *flow.event_shape)
    flat = x.view(n, -1)
    flat[:, 1::2] = 0.5 * flat[:, 1::2] + (2 * flat[:, ::2][:, : flat[:, 1::2].shape[1]]).sin()
    x = x if flow.bijection.domain is None else x.sigmoid()
    context = torch.randn(n, flow.context_dim) if flow.context_dim else None
    if context is not None:
        x = x + context[:, :1].view(n, *[1] * (x.dim() - 1)) if flow.bijection.domain is None else x
    return x, context


@pytest.mark.parametrize("name", FLOWS)
def test_no_false_alarm_on_trained_flows(name):
    flow = FLOWS[name]()
    x, context = shaped(flow)
    fit(flow, x, context=context, steps=80, batch_size=100, lr=5e-3)
    report = check_flow(flow, x, context)
    assert report.ok, report


@pytest.mark.parametrize(
    "make", [Small, Made, Residual, Estimated, lambda: Normed().eval().net and Small(seed=2)]
)
def test_no_false_alarm_on_the_small_flows_without_a_mistake(make):
    flow = make()
    dim = {"Made": 3, "Estimated": 3, "Residual": 2}.get(type(flow).__name__, DIM)
    report = check_flow(flow, rows(dim=dim))
    assert report.ok, report


def test_a_distribution_of_torch():
    base = Independent(Normal(torch.zeros(3), torch.ones(3)), 1)
    # torch.compile turns the validation of all distributions off for the whole process
    parts = [AffineTransform(1.0, 2.0), ExpTransform()]
    right = TransformedDistribution(base, parts, validate_args=False)
    assert check_flow(right, right.sample((200,))).ok

    class Wrong(TanhTransform):
        def log_abs_det_jacobian(self, x, y):
            return 0 * x

    wrong = TransformedDistribution(base, [Wrong()])
    assert check_flow(wrong, wrong.sample((200,)))["log-determinant"].verdict == "wrong"


def test_functions_without_gradients():
    """As those of another framework are: by finite differences."""
    base = Independent(Normal(torch.zeros(2), torch.ones(2)), 1)

    def forward(x, log_two):
        return torch.from_numpy(x.detach().numpy() * 2), torch.full((len(x),), log_two)

    def inverse(z):
        return torch.from_numpy(z.detach().numpy() / 2)

    right = Foreign(lambda x: forward(x, 2 * math.log(2)), inverse, base)
    wrong = Foreign(lambda x: forward(x, math.log(2)), inverse, base)
    assert check_flow(right, rows(dim=2)).ok
    assert not check_flow(wrong, rows(dim=2)).ok


def affine(x):
    """A flow of NumPy's by hand, as those of other frameworks are: (z, log_det) of arrays."""
    z = np.stack([x[:, 0] * 2, x[:, 1] * np.exp(np.sin(x[:, 0]))], 1)
    return z, np.log(2) + np.sin(x[:, 0])


def affine_back(z):
    first = z[:, 0] / 2
    return np.stack([first, z[:, 1] * np.exp(-np.sin(first))], 1)


@pytest.mark.parametrize("computes_in", [np.float64, np.float32])
def test_functions_of_arrays(computes_in):
    """JAX computes in float32 unless it is told otherwise, whatever it is given."""
    base = Independent(Normal(torch.zeros(2), torch.ones(2)), 1)

    def rounded(function):
        def call(given):
            assert isinstance(given, np.ndarray)
            made = function(given.astype(computes_in))
            return made if isinstance(made, np.ndarray) else tuple(made)

        return call

    right = Foreign(rounded(affine), rounded(affine_back), base, arrays=True)
    report = check_flow(right, rows(dim=2).double())
    assert report.ok, report
    assert report["log-determinant"].verdict == report["round trip"].verdict == "ok"
    wrong = Foreign(rounded(lambda x: (affine(x)[0], affine(x)[1] * 1.1)), None, base, arrays=True)
    assert check_flow(wrong, rows(dim=2))["log-determinant"].verdict == "wrong"
    wrong = Foreign(rounded(affine), rounded(lambda z: z / 2), base, arrays=True)
    assert check_flow(wrong, rows(dim=2))["round trip"].verdict == "wrong"


def test_functions_of_arrays_with_a_context_and_their_own_density():
    def forward(x, context):
        z, log_det = affine(x - context)
        return z, log_det

    def log_prob(x, context):
        z, log_det = forward(x, context)
        return log_det - 0.5 * (z**2).sum(1) - math.log(2 * math.pi)

    flow = Foreign(forward, log_prob=log_prob, arrays=True)
    report = check_flow(flow, rows(dim=2), rows(dim=2, seed=1))
    assert report.ok, report
    assert report["log-determinant"].verdict == "ok"


def test_truncated_series_are_noted_and_roulette_is_right():
    torch.manual_seed(0)
    cut = randomize(IResNet(5, 2, (8,), lipschitz=0.9, log_det=lambda: PowerSeries(2)), 1.0)
    report = check_flow(cut, rows(dim=5))
    assert report.ok, report
    roulette = check_flow(randomize(ResidualFlow(5, 2, (8,), lipschitz=0.6)), rows(dim=5))
    assert roulette["estimate"].verdict == "ok"


# --- the function itself --------------------------------------------------------------------------


def test_the_flow_and_the_random_state_stay_as_they_are():
    flow = RealNVP(2, hidden=(8,)).train()
    kept = {name: value.clone() for name, value in flow.state_dict().items()}
    state = torch.get_rng_state()
    check_flow(flow, rows(dim=2))
    assert torch.equal(state, torch.get_rng_state())
    assert flow.training
    assert all(torch.equal(kept[name], value) for name, value in flow.state_dict().items())


def test_the_culprit_is_named():
    class Wrong(RealNVP):
        pass

    flow = Wrong(2, 2, (8,))
    layer = flow.bijection[1]
    right = layer.forward
    layer.forward = lambda x, context=None: (right(x, context)[0], right(x, context)[1] + 0.5)
    found = check_flow(flow, rows(dim=2))["log-determinant"]
    assert found.verdict == "wrong"
    assert f"layer 1, {type(layer).__name__}" in found.measured


def test_the_report_prints_and_is_read_by_line():
    report = check_flow(Absolute(), rows())
    text = str(report)
    assert text.startswith("Absolute: ")
    assert "Common mistakes: row" in text
    assert max(map(len, text.splitlines())) <= 90
    assert report.wrong
    with pytest.raises(KeyError, match="expected one of the lines input, shapes"):
        report["log_det"]


def test_what_a_flow_raises_is_a_finding():
    class Broken(Small):
        def inverse(self, z):
            raise RuntimeError("no way back")

    found = check_flow(Broken(), rows())["round trip"]
    assert found.verdict == "wrong"
    assert "RuntimeError: no way back" in found.measured


@pytest.mark.parametrize(
    "error",
    [
        torch.cuda.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: not enough memory"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes"),
        MemoryError("of Python's own"),
        NotImplementedError("no closed form"),
    ],
    ids=["GPU", "not enough", "can't allocate", "Python", "not implemented"],
)
def test_what_the_machine_or_the_flow_cannot_do_is_not_wrong(error):
    class Unable(Small):
        def inverse(self, z):
            raise error

    report = check_flow(Unable(), rows())
    assert report.ok, report
    assert report["round trip"].verdict == "not tried"
    assert str(error) in report["round trip"].measured
    assert report["log-determinant"].verdict == "ok"


def test_a_gradient_that_would_not_fit_is_not_tried(monkeypatch):
    """Exact determinants of a picture keep gigabytes a row."""
    monkeypatch.setattr(patient, "ROOM", 1e-6)
    report = check_flow(Small(80), rows(20, 80))
    assert report.ok, report
    found = report["gradients"]
    assert found.verdict == "not tried"
    assert re.match(r"autograd would keep \d+\.\d GB for the gradient at one row", found.measured)


@pytest.mark.parametrize("wrong", [False, True])
def test_a_map_that_takes_many_passes_is_judged_by_its_inverse(wrong, monkeypatch):
    """An IAF's Jacobian is read off the way back, which takes one pass; if that is the way back."""

    class Timed(jacobians._Rows):
        """The way there takes 100 seconds and the way back one, whatever this machine does."""

        made = itertools.count()

        def __init__(self, *given):
            super().__init__(*given)
            self.seconds = 1.0 if next(self.made) % 2 else 100.0

    monkeypatch.setattr(jacobians, "_Rows", Timed)
    monkeypatch.setattr(jacobians, "_is_quicker", lambda *of: True)
    flow = randomize(IAF(6, 2, (8,)))
    if wrong:
        layer = flow.bijection[1]
        right = layer.forward
        layer.forward = lambda x, context=None: (right(x, context)[0], 1.1 * right(x, context)[1])
    found = check_flow(flow, rows(dim=6))["log-determinant"]
    assert found.verdict == ("wrong" if wrong else "ok"), found
    assert check_flow(OneShot(), rows(dim=3))["log-determinant"].verdict == "ok"


def test_bad_input_is_refused():
    with pytest.raises(TypeError, match=r"expected x to be a torch\.Tensor"):
        check_flow(Small(), [[0.0]])
    with pytest.raises(ValueError, match="two or more"):
        check_flow(Small(), torch.zeros(4))
    with pytest.raises(ValueError, match="finite"):
        check_flow(Small(), torch.full((3, 4), math.nan))
    with pytest.raises(ValueError, match="context of shape"):
        check_flow(Small(), rows(), rows(7))
    with pytest.raises(TypeError, match="expected a flow of flowlib, zuko"):
        check_flow(3, rows())


def test_the_page_names_every_mistake_and_lines_that_exist():
    page = (ROOT / "book" / "common-mistakes.md").read_text()
    numbers = {int(n) for n in re.findall(r"(?:\*\*|\s)(\d+)\. [A-Z`$]", page)}
    assert numbers >= set(range(1, 30))
    named = set(re.findall(r"\*([a-z][a-z -]+)\*", re.sub(r"\*\*.*?\*\*", "", page, flags=re.S)))
    assert named <= {finding.line for finding in check_flow(Small(), rows(20)).findings}


def test_the_pages_lines_run(capsys):
    page = (ROOT / "book" / "common-mistakes.md").read_text()
    first, second = re.findall(r"```python\n(.*?)```", page, re.S)
    names = {"x": rows(dim=2)}
    exec(first, names)
    exec(second, names)
    assert " wrong" not in capsys.readouterr().out
    assert check_flow(names["flow"], rows(dim=2)).ok
    assert names["report"].ok


def test_a_flow_that_starts_at_the_identity_is_tried_elsewhere():
    flow = Absolute()
    nn.init.zeros_(flow.net[2].weight)
    nn.init.zeros_(flow.net[2].bias)
    found = check_flow(flow, rows())["log-determinant"]
    assert found.verdict == "wrong"
    assert "at shaken weights" in found.measured


def test_a_context_that_is_missing_is_said_at_once():
    x = torch.randn(20, 2)
    with pytest.raises(ValueError, match=r"check_flow: expected a context of shape \(\.\.\., 3\)"):
        check_flow(RealNVP(2, 2, (8,), context_dim=3), x)
    with pytest.raises(ValueError, match="check_flow"):
        check_flow(RealNVP(2, 2, (8,)), x, torch.randn(20, 1))
