"""One list that every bijection of the library passes.

To enter a new one, add a line to CASES. Weights are drawn at random, never left at their start;
the Jacobian is autodiff's, in float64, because a forward and an inverse that make the same
mistake agree with each other (mistake 29).
"""

import copy
import io
import math
import pickle
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch

import flowlib
from flowlib import (
    MADE,
    MLP,
    ActNorm,
    Additive,
    Affine,
    Autoregressive,
    BatchNorm,
    Bijection,
    Branch,
    ByMode,
    Compose,
    ConvNet,
    Coupling,
    Dequantize,
    Elementwise,
    ElementwiseAffine,
    ExactLogDet,
    FactorOut,
    Flatten,
    Flow,
    Gate,
    ImageRealNVP,
    Incremental,
    Inverse,
    Jacobi,
    LeakyReLU,
    Logit,
    LULinear,
    MaskedCoupling,
    Permutation,
    RecomputedBlock,
    ResidualBlock,
    RussianRoulette,
    Sigmoid,
    Softplus,
    Spline,
    Squeeze,
    StandardNormal,
    Tanh,
    alternating_mask,
    checkerboard_mask,
    half_mask,
    random_mask,
)
from tests.models import autodiff_log_det, randomize


def _then_flat(event):
    return Compose([ActNorm(event), Flatten(event)])


def _image_stack(event, n_scales=None):
    """All of the flow but its base; with a margin that random draws do not leave."""
    return ImageRealNVP(event, n_scales, hidden=3, alpha=0.05).bijection


# what to make, and the shape of one data point
CASES = {
    "ElementwiseAffine(1)": lambda: (ElementwiseAffine(1), (1,)),
    "ElementwiseAffine(5)": lambda: (ElementwiseAffine(5), (5,)),
    "ElementwiseAffine(2,3)": lambda: (ElementwiseAffine((2, 3)), (2, 3)),
    "LULinear(1)": lambda: (LULinear(1), (1,)),
    "LULinear(2)": lambda: (LULinear(2), (2,)),
    "LULinear(7)": lambda: (LULinear(7), (7,)),
    "Sigmoid": lambda: (Sigmoid(), (3,)),
    "Sigmoid on images": lambda: (Sigmoid(), (2, 3, 3)),
    "Logit": lambda: (Logit(), (3,)),
    "Logit with a margin": lambda: (Logit(0.05), (2, 2)),
    "Softplus": lambda: (Softplus(), (4,)),
    "Inverse(Softplus)": lambda: (Inverse(Softplus()), (4,)),
    "LeakyReLU": lambda: (LeakyReLU(0.3), (4,)),
    "LeakyReLU, steep": lambda: (LeakyReLU(3.0), (2, 3)),
    "Permutation": lambda: (Permutation([2, 0, 3, 1]), (4,)),
    "Permutation of channels": lambda: (Permutation([1, 2, 0]), (3, 2, 2)),
    "Inverse(LULinear)": lambda: (Inverse(LULinear(3)), (3,)),
    "Compose": lambda: (
        Compose([LULinear(4), LeakyReLU(), Permutation.reversal(4), ElementwiseAffine(4)]),
        (4,),
    ),
    "Compose through the unit cube": lambda: (
        Compose([LULinear(3), Sigmoid(), Permutation([1, 2, 0]), Logit(0.1)]),
        (3,),
    ),
    "Coupling, affine": lambda: (
        Coupling(alternating_mask(5), MLP(3, (8,), 4, torch.nn.Tanh), Affine(2)),
        (5,),
    ),
    "Coupling, additive": lambda: (
        Coupling(half_mask(3, second=True), MLP(2, (8,), 1, torch.nn.Tanh), Additive()),
        (3,),
    ),
    "Coupling, any mask": lambda: (
        Coupling(
            random_mask(6, torch.Generator().manual_seed(0)),
            MLP(3, (8,), 6, torch.nn.Tanh),
            Affine(3),
        ),
        (6,),
    ),
    "ActNorm": lambda: (ActNorm(3), (3,)),
    "ActNorm on images": lambda: (ActNorm((3, 2, 2)), (3, 2, 2)),
    "BatchNorm": lambda: (BatchNorm(3), (3,)),
    "BatchNorm on images": lambda: (BatchNorm((2, 3, 3)), (2, 3, 3)),
    "Coupling of channels": lambda: (
        Coupling(half_mask(3), ConvNet(1, 4, 4), Affine(2), (2, 4)),
        (3, 2, 4),
    ),
    "MaskedCoupling": lambda: (
        MaskedCoupling(checkerboard_mask((2, 3, 2), 1), ConvNet(2, 4, 4), Affine(2)),
        (2, 3, 2),
    ),
    "MaskedCoupling of vectors": lambda: (
        MaskedCoupling(alternating_mask(5), MLP(5, (8,), 10, torch.nn.Tanh), Affine(5)),
        (5,),
    ),
    "Squeeze": lambda: (Squeeze((2, 4, 2)), (2, 4, 2)),
    "Flatten": lambda: (Flatten((2, 1, 3)), (2, 1, 3)),
    "FactorOut": lambda: (FactorOut((3, 1, 2), _then_flat((2, 1, 2))), (3, 1, 2)),
    "Dequantize": lambda: (Dequantize(17), (1, 2, 2)),
    "ImageRealNVP(1,4,4), 2 scales": lambda: (
        ImageRealNVP((1, 4, 4), 2, hidden=2, n_blocks=0).bijection,
        (1, 4, 4),
    ),
    "ImageRealNVP(1,8,8)": lambda: (_image_stack((1, 8, 8)), (1, 8, 8)),
    "ImageRealNVP(3,16,16)": lambda: (_image_stack((3, 16, 16)), (3, 16, 16)),
    "ImageRealNVP(2,4,8), 3 scales": lambda: (_image_stack((2, 4, 8), 3), (2, 4, 8)),
    "Coupling, spline": lambda: (
        Coupling(
            half_mask(4),
            MLP(2, (8,), 2 * Spline(n_bins=5).n_params, torch.nn.Tanh),
            Spline(n_bins=5),
        ),
        (4,),
    ),
    "Autoregressive, affine": lambda: (
        Autoregressive(MADE(5, (12,), outputs_per_dim=2), Affine(5)),
        (5,),
    ),
    "Autoregressive, gate": lambda: (
        Autoregressive(MADE(4, (9,), outputs_per_dim=2, order="reversed"), Gate()),
        (4,),
    ),
    "Autoregressive, spline": lambda: (
        Autoregressive(MADE(3, (9,), outputs_per_dim=Spline(n_bins=4).n_params), Spline(n_bins=4)),
        (3,),
    ),
    "Autoregressive, two ranks": lambda: (
        Autoregressive(MADE(4, (6,), order=[1, 2, 1, 2], direct=True), Additive(), Jacobi()),
        (4,),
    ),
    "Inverse(Autoregressive)": lambda: (
        Inverse(Autoregressive(MADE(5, (12,), outputs_per_dim=2), Affine(5), Incremental())),
        (5,),
    ),
    "ResidualBlock": lambda: (ResidualBlock(Branch(4, (8, 6), lipschitz=0.5)), (4,)),
    "ResidualBlock on images": lambda: (
        ResidualBlock(Branch((2, 3, 2), 5, lipschitz=0.5)),
        (2, 3, 2),
    ),
    "ResidualBlock of two": lambda: (ResidualBlock(Branch(2, 8, 0.8, Tanh, scale=3.0)), (2,)),
    "RecomputedBlock": lambda: (
        RecomputedBlock(Branch(4, 8, lipschitz=0.5), ByMode(RussianRoulette(), ExactLogDet())),
        (4,),
    ),
    "Compose of Inverse": lambda: (Compose([LULinear(3), Inverse(ElementwiseAffine(3))]), (3,)),
    "Compose of none": lambda: (Compose([]), (3,)),
}
# where the data live, if not everywhere
DOMAINS = {
    "Logit": torch.sigmoid,
    "Logit with a margin": torch.sigmoid,
    "Inverse(Softplus)": torch.exp,
    **{name: torch.sigmoid for name in CASES if name.startswith("ImageRealNVP")},
}
# At the usual spread of the weights, 16 couplings of 768 numbers are badly conditioned.
SPREADS = {"ImageRealNVP(3,16,16)": 0.1}
# Their ways back are the step of "ResidualBlock" again, hundreds of times; PyTorch traces them all,
# and goes on with those of "ResidualBlock" only.
REPEATED = {"ResidualBlock of two", "ResidualBlock on images", "RecomputedBlock"}
DEVICES = ["cpu"] + ["cuda"] * torch.cuda.is_available()


@dataclass
class Case:
    b: Bijection
    event: tuple[int, ...]
    domain: Callable

    def x(self, n, **kwargs):
        return self.domain(torch.randn(n, *self.event, **kwargs))

    def z(self, n, **kwargs):
        return self.b(self.x(n, **kwargs))[0].detach()

    def rows(self, n):
        """So many, or two where a Jacobian of 768 by 768 takes its time."""
        return n if math.prod(self.event) < 200 else 2

    def both(self, n, **kwargs):
        """Each direction with an input that it takes."""
        return (self.b.forward, self.x(n, **kwargs)), (self.b.inverse, self.z(n, **kwargs))


@pytest.fixture(params=CASES, ids=str)
def case(request):
    bijection, event = CASES[request.param]()
    randomize(bijection, SPREADS.get(request.param, 0.3))
    return Case(bijection, event, DOMAINS.get(request.param, torch.nn.Identity()))


def test_every_bijection_of_the_library_is_in_the_list():
    public = (getattr(flowlib, name) for name in flowlib.__all__)
    bijections = {c for c in public if isinstance(c, type) and issubclass(c, Bijection)}
    made = [make()[0] for make in CASES.values()]
    assert {type(b) for b in made} == bijections - {Bijection, Elementwise}


def test_log_det_equals_autodiff_in_both_directions(case):
    case.b.double()
    rows = case.rows(6)
    for f, x in case.both(rows, dtype=torch.float64):
        _, log_det = f(x)
        assert log_det.shape == (rows,)
        torch.testing.assert_close(log_det, autodiff_log_det(f, x), rtol=0, atol=1e-10)


@pytest.mark.parametrize(("dtype", "tol"), [(torch.float32, 1e-4), (torch.float64, 1e-10)])
@pytest.mark.parametrize("device", DEVICES)
def test_round_trip(case, dtype, tol, device):
    case.b.to(device, dtype)
    x = case.x(64, dtype=dtype, device=device)
    z, forward = case.b(x)
    back, inverse = case.b.inverse(z)
    for y in (z, forward, back, inverse):
        assert (y.dtype, y.device) == (x.dtype, x.device)
    torch.testing.assert_close(back, x, rtol=0, atol=tol)
    torch.testing.assert_close(forward, -inverse, rtol=tol / 100, atol=tol)


def test_it_is_no_identity(case):
    x = case.x(8)
    z = case.b(x)[0]
    is_one = isinstance(case.b, Compose) and len(case.b) == 0
    assert (z.shape == x.shape and torch.allclose(z, x, atol=1e-2)) == is_one


def test_gradients_reach_every_parameter_from_both_directions(case):
    for f, x in case.both(8):
        case.b.zero_grad()
        y, log_det = f(x)
        if y.requires_grad:  # not so where there are no weights
            (y.square().sum() + log_det.sum()).backward()
        for name, parameter in case.b.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.numel() == 0 or parameter.grad.abs().sum() > 0, name


def test_the_log_dets_gradient_is_autodiffs(case):
    """A log-determinant may have the right value and still not be differentiated."""
    if math.prod(case.event) > 200:
        pytest.skip("a Jacobian of 768 by 768, differentiated again; smaller ones are in the list")
    case.b.double()
    parameters = [p for p in case.b.parameters() if p.numel()]
    for f, x in case.both(3, dtype=torch.float64):
        inputs = [x.requires_grad_(), *parameters]
        claimed, true = f(x)[1].sum(), sum(differentiable_log_det(f, row) for row in x)
        for ours, exact in zip(gradients(claimed, inputs), gradients(true, inputs), strict=True):
            torch.testing.assert_close(ours, exact, rtol=1e-8, atol=1e-8)


def differentiable_log_det(f, row):
    J = torch.autograd.functional.jacobian(
        lambda v: f(v[None])[0][0], row, create_graph=True, vectorize=True
    )
    return torch.linalg.slogdet(J.reshape(row.numel(), row.numel()))[1]


def gradients(value, inputs):
    """The gradient by each input, zero where the value does not depend on it."""
    if not value.requires_grad:
        return [torch.zeros_like(p) for p in inputs]
    return torch.autograd.grad(value, inputs, allow_unused=True, materialize_grads=True)


def test_the_input_is_left_alone(case):
    for f, x in case.both(5):
        kept = x.clone()
        f(x)
        assert torch.equal(x, kept)


def test_zero_rows(case):
    for (f, x), (_, some) in zip(case.both(0), reversed(case.both(3)), strict=True):
        y, log_det = f(x)
        assert y.shape == (0, *some.shape[1:])
        assert log_det.shape == (0,)


def test_no_grad_and_inference_mode(case):
    x = case.x(3)
    expected = case.b(x)[0]
    with torch.no_grad():
        assert torch.equal(case.b(x)[0], expected)
    with torch.inference_mode():
        assert torch.equal(case.b(x)[0], expected)


def test_torch_func(case):
    for f, x in case.both(6):
        batches = x.unflatten(0, (3, 2))
        for i in (0, 1):
            torch.testing.assert_close(
                torch.func.vmap(lambda v, f=f, i=i: f(v)[i])(batches),
                torch.stack([f(part)[i] for part in batches]),
            )
        jacobian = torch.func.jacrev(lambda v, f=f: f(v[None])[0][0])(x[0])
        assert jacobian.shape == (*f(x)[0].shape[1:], *x.shape[1:])
        per_row = torch.func.vmap(torch.func.grad(lambda v, f=f: f(v[None])[0].sum()))(x)
        assert per_row.shape == x.shape


def test_compile(case, request):
    if len(list(case.b.modules())) > 100:
        pytest.skip("the same layers as in ImageRealNVP(1,4,4), which is compiled, and many more")
    torch._dynamo.reset()  # it would count the cases before as compilations of one function
    back = "eager" if request.node.callspec.id in REPEATED else "aot_eager"
    for (f, x), backend in zip(case.both(3), ("aot_eager", back), strict=True):
        compiled = torch.compile(f, backend=backend, fullgraph=True)
        for got, expected in zip(compiled(x), f(x), strict=True):
            torch.testing.assert_close(got, expected)


def test_save_copy_and_pickle(case):
    b, x = case.b, case.x(4)
    expected = b(x)[0]
    buffer = io.BytesIO()
    torch.save(b.state_dict(), buffer)
    buffer.seek(0)
    loaded = randomize(copy.deepcopy(b), scale=1.0)
    loaded.load_state_dict(torch.load(buffer))
    for twin in (loaded, copy.deepcopy(b), pickle.loads(pickle.dumps(b))):
        assert torch.equal(twin(x)[0], expected)


def test_as_a_flow_it_is_a_density_and_its_door_is_guarded(case):
    event, rows = case.event, case.rows(7)
    flow = Flow(case.b, StandardNormal(case.z(1).shape[1:]), event).double()
    x, z = case.x(rows, dtype=torch.float64), case.b(case.x(rows, dtype=torch.float64))[0]
    expected = flow.base.log_prob(case.b(x)[0]) + autodiff_log_det(case.b.forward, x)
    torch.testing.assert_close(flow.log_prob(x), expected, rtol=0, atol=1e-9)
    back, log_det = case.b.inverse(z)
    torch.testing.assert_close(
        flow.log_prob(back), flow.base.log_prob(z) - log_det, rtol=0, atol=1e-9
    )
    with pytest.raises(ValueError, match=r"expected x of shape \(\.\.\., .*got \(2, 99\)"):
        flow.log_prob(torch.zeros(2, 99, dtype=torch.float64))
    bad = torch.zeros(2, *event, dtype=torch.float64)
    bad.view(-1)[-1] = float("nan")
    with pytest.raises(ValueError, match="expected finite values, got nan at x"):
        flow.log_prob(bad)
