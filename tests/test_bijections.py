"""One list that every bijection of the library passes.

To enter a new one, add a line to CASES. Weights are drawn at random, never left at their start;
the Jacobian is autodiff's, in float64, because a forward and an inverse that make the same
mistake agree with each other (mistake 29).
"""

import copy
import io
import pickle

import pytest
import torch
from torch import nn

from flowlib import (
    Compose,
    ElementwiseAffine,
    Flow,
    Inverse,
    LULinear,
    StandardNormal,
)

CASES = {
    "ElementwiseAffine(1)": lambda: (ElementwiseAffine(1), (1,)),
    "ElementwiseAffine(5)": lambda: (ElementwiseAffine(5), (5,)),
    "ElementwiseAffine(2,3)": lambda: (ElementwiseAffine((2, 3)), (2, 3)),
    "LULinear(1)": lambda: (LULinear(1), (1,)),
    "LULinear(2)": lambda: (LULinear(2), (2,)),
    "LULinear(7)": lambda: (LULinear(7), (7,)),
    "Inverse(LULinear)": lambda: (Inverse(LULinear(3)), (3,)),
    "Compose": lambda: (Compose([LULinear(4), ElementwiseAffine(4), LULinear(4)]), (4,)),
    "Compose of Inverse": lambda: (Compose([LULinear(3), Inverse(ElementwiseAffine(3))]), (3,)),
    "Compose of none": lambda: (Compose([]), (3,)),
}
DEVICES = ["cpu"] + ["cuda"] * torch.cuda.is_available()


def randomize(module: nn.Module, scale: float = 0.3) -> nn.Module:
    """Replace all weights by draws, so that nothing is tested at the identity."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(0.0, scale)
    return module.eval()


@pytest.fixture(params=CASES, ids=str)
def case(request):
    bijection, event = CASES[request.param]()
    return randomize(bijection), event


def autodiff_log_det(f, x):
    """log|det| of the Jacobian of ``f`` at each row of ``x``, by autodiff, in float64."""
    rows = []
    for row in x:
        jacobian = torch.autograd.functional.jacobian(lambda v: f(v[None])[0][0], row)
        rows.append(torch.linalg.slogdet(jacobian.reshape(row.numel(), row.numel()))[1])
    return torch.stack(rows)


def test_log_det_equals_autodiff_in_both_directions(case):
    b, event = case
    b = b.double()
    x = torch.randn(6, *event, dtype=torch.float64)
    for f in (b.forward, b.inverse):
        _, log_det = f(x)
        assert log_det.shape == (6,)
        torch.testing.assert_close(log_det, autodiff_log_det(f, x), rtol=0, atol=1e-10)


@pytest.mark.parametrize(("dtype", "tol"), [(torch.float32, 1e-4), (torch.float64, 1e-10)])
@pytest.mark.parametrize("device", DEVICES)
def test_round_trip(case, dtype, tol, device):
    b, event = case
    b = b.to(device, dtype)
    x = torch.randn(64, *event, dtype=dtype, device=device)
    z, forward = b(x)
    back, inverse = b.inverse(z)
    assert (z.dtype, z.device) == (x.dtype, x.device)
    torch.testing.assert_close(back, x, rtol=0, atol=tol)
    torch.testing.assert_close(forward, -inverse, rtol=0, atol=tol)


def test_it_is_no_identity(case):
    b, event = case
    if any(True for _ in b.parameters()):
        x = torch.randn(8, *event)
        assert not torch.allclose(b(x)[0], x, atol=1e-2)


def test_gradients_reach_every_parameter_from_both_directions(case):
    b, event = case
    for f in (b.forward, b.inverse):
        b.zero_grad()
        y, log_det = f(torch.randn(8, *event))
        if y.requires_grad:  # not so for the composition of nothing
            (y.square().sum() + log_det.sum()).backward()
        for name, parameter in b.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.numel() == 0 or parameter.grad.abs().sum() > 0, name


def test_the_input_is_left_alone(case):
    b, event = case
    x = torch.randn(5, *event)
    kept = x.clone()
    b(x)
    b.inverse(x)
    assert torch.equal(x, kept)


def test_zero_rows(case):
    b, event = case
    for f in (b.forward, b.inverse):
        y, log_det = f(torch.zeros(0, *event))
        assert y.shape == (0, *event)
        assert log_det.shape == (0,)


def test_no_grad_and_inference_mode(case):
    b, event = case
    x = torch.randn(3, *event)
    expected = b(x)[0]
    with torch.no_grad():
        assert torch.equal(b(x)[0], expected)
    with torch.inference_mode():
        assert torch.equal(b(x)[0], expected)


def test_torch_func(case):
    b, event = case
    x = torch.randn(3, 2, *event)
    expected = torch.stack([b(part)[1] for part in x])
    torch.testing.assert_close(torch.func.vmap(lambda v: b(v)[1])(x), expected)
    torch.testing.assert_close(
        torch.func.vmap(lambda v: b.inverse(v)[0])(x), torch.stack([b.inverse(p)[0] for p in x])
    )
    row = x[0, 0]
    jacobian = torch.func.jacrev(lambda v: b(v[None])[0][0])(row)
    assert jacobian.shape == (*event, *event)


def test_compile(case):
    b, event = case
    x = torch.randn(3, *event)
    compiled = torch.compile(b, backend="aot_eager", fullgraph=True)
    for got, expected in zip(compiled(x), b(x), strict=True):
        torch.testing.assert_close(got, expected)


def test_save_copy_and_pickle(case):
    b, event = case
    x = torch.randn(4, *event)
    expected = b(x)[0]
    buffer = io.BytesIO()
    torch.save(b.state_dict(), buffer)
    buffer.seek(0)
    loaded = randomize(copy.deepcopy(b), scale=1.0)
    loaded.load_state_dict(torch.load(buffer))
    for twin in (loaded, copy.deepcopy(b), pickle.loads(pickle.dumps(b))):
        assert torch.equal(twin(x)[0], expected)


def test_as_a_flow_it_is_a_density_and_its_door_is_guarded(case):
    b, event = case
    flow = Flow(b, StandardNormal(event)).double()
    x, log_p = flow.rsample_and_log_prob(7)
    torch.testing.assert_close(flow.log_prob(x), log_p, rtol=0, atol=1e-9)
    with pytest.raises(ValueError, match=r"expected x of shape \(\.\.\., .*got \(2, 99\)"):
        flow.log_prob(torch.zeros(2, 99, dtype=torch.float64))
    bad = torch.zeros(2, *event, dtype=torch.float64)
    bad.view(-1)[-1] = float("nan")
    with pytest.raises(ValueError, match="expected finite values, got nan at x"):
        flow.log_prob(bad)
