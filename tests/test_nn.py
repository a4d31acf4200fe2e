"""The networks inside the flows."""

import pytest
import torch
from torch import nn
from torch.autograd import forward_ad

from flowlib import MLP, Hardtanh

LARGE = (256, 256)  # at 65,536 numbers the lean function takes over


def saved_numbers(f, x):
    """How many numbers autograd keeps for the gradient of ``f`` at ``x``."""
    storages = {}

    def pack(tensor):
        storages[tensor.untyped_storage().data_ptr()] = tensor.numel()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        f(x).sum()
    return sum(storages.values())


@pytest.mark.parametrize("shape", [(3, 5), LARGE])
@pytest.mark.parametrize("inplace", [False, True])
def test_hardtanh_is_pytorchs(shape, inplace):
    x = 2 * torch.randn(shape, dtype=torch.float64)
    x[0, :3] = torch.tensor([-1.0, 1.0, 0.0])
    x.requires_grad_()
    weights = torch.randn(shape, dtype=torch.float64)
    results = []
    for f in (Hardtanh(inplace), nn.Hardtanh()):
        z = f(1 * x)
        (once,) = torch.autograd.grad((weights * z**2).sum(), x, create_graph=True)
        (twice,) = torch.autograd.grad((once * weights).sum(), x)
        with forward_ad.dual_level():
            dual = f(1 * forward_ad.make_dual(x.detach(), weights))
            tangent = forward_ad.unpack_dual(dual).tangent
        results.append((z.detach(), once.detach(), twice, tangent))
    for ours, theirs in zip(*results, strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("inplace", [False, True])
def test_hardtanh_overwrites_only_what_a_linear_layer_has_just_computed(inplace):
    leaf = (2 * torch.randn(LARGE)).requires_grad_()
    product = nn.functional.linear(leaf, 2 * torch.eye(256))
    for x, its_own in ((leaf, True), (1 * leaf, True), (product, not inplace)):
        before = x.detach().clone()
        z = Hardtanh(inplace)(x)
        assert torch.equal(x.detach(), before) == its_own
        assert torch.equal(z.detach(), before.clamp(-1, 1))
        z.sum().backward()


def test_hardtanh_after_a_linear_layer_in_every_transform():
    layer, x = nn.Linear(256, 256), torch.randn(LARGE)
    nn.init.normal_(layer.weight)
    results = []
    for f in (Hardtanh(inplace=True), nn.Hardtanh()):
        g = lambda x, f=f: f(layer(x)).square().sum()  # noqa: E731
        tangent = torch.ones_like(x)
        with forward_ad.dual_level():
            dual = forward_ad.unpack_dual(g(forward_ad.make_dual(x, tangent))).tangent
        results.append([
            torch.func.grad(g)(x), torch.vmap(torch.func.grad(g))(x[None]), torch.vmap(g)(x[None]),
            torch.func.jvp(g, (x,), (tangent,))[1], dual,
            torch.autograd.grad(g(x), layer.weight)[0],
        ])  # fmt: skip
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_an_mlp_of_more_dimensions():
    lean = MLP(4, (64, 64), 2)
    nn.init.normal_(lean.layers[-1].weight)
    plain = MLP(4, (64, 64), 2, nn.Hardtanh)
    plain.load_state_dict(lean.state_dict())
    x = torch.randn(16, 64, 4)
    results = []
    for mlp in (lean, plain):
        z = mlp(x)
        results.append([z, *torch.autograd.grad(z.square().sum(), list(mlp.parameters()))])
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_hooks_do_not_mind():
    """They hand on a view, which must not be overwritten."""
    mlp = MLP(4, (64, 64), 3)
    for layer in mlp.layers:
        layer.register_full_backward_hook(lambda *arguments: None)
    mlp(torch.randn(1024, 4, requires_grad=True)).sum().backward()
    assert mlp.layers[-1].weight.grad.abs().max() > 0


def test_an_exported_mlp_takes_any_batch():
    sizes = {0: torch.export.Dim("batch", min=2, max=100_000)}
    exported = torch.export.export(
        MLP(4, 64, 2), (torch.randn(8, 4),), dynamic_shapes=(sizes,)
    ).module()
    assert exported(torch.randn(5000, 4)).shape == (5000, 2)


def test_an_activation_is_given_by_its_class():
    with pytest.raises(TypeError, match=r"class, or a function .* got the module ReLU"):
        MLP(2, 8, 1, nn.ReLU())


def test_hardtanh_keeps_one_array_for_the_gradient():
    torch.manual_seed(0)
    x = torch.randn(256, 8, requires_grad=True)
    lean = MLP(8, (256, 256, 256), 4)
    heavy = MLP(8, (256, 256, 256), 4, nn.Hardtanh)
    weights = sum(p.numel() for p in lean.parameters() if p.dim() == 2)
    assert saved_numbers(lean, x) == weights + x.numel() + 3 * 256 * 256
    assert saved_numbers(heavy, x) == weights + x.numel() + 6 * 256 * 256


def test_hardtanh_in_transforms_and_compiled_code():
    x = torch.randn(LARGE)
    slope = (x.abs() < 1).float()
    f = Hardtanh()
    assert torch.equal(torch.func.grad(lambda x: f(x).sum())(x), slope)
    assert torch.equal(torch.vmap(torch.func.grad(lambda x: f(x).sum()))(x), slope)
    assert torch.equal(torch.func.jvp(f, (x,), (torch.ones_like(x),))[1], slope)
    compiled = torch.compile(f, backend="aot_eager", fullgraph=True)
    argument = x.clone().requires_grad_()
    compiled(argument).sum().backward()
    assert torch.equal(argument.grad, slope)


def test_an_mlp_starts_at_zero_and_keeps_the_variance():
    torch.manual_seed(0)
    mlp = MLP(400, (300, 200), 7, nn.Identity)
    x = torch.randn(1000, 400)
    assert mlp(x).eq(0).all()
    within = mlp.layers[:-1](x)
    assert 0.8 < within.var() < 1.2


def test_one_width_is_one_hidden_layer():
    assert [type(m).__name__ for m in MLP(2, 8, 1).layers] == ["Linear", "Hardtanh", "Linear"]


def test_an_mlp_makes_numbers_of_both_signs():
    torch.manual_seed(0)
    mlp = MLP(3, 16, 4)
    nn.init.normal_(mlp.layers[2].weight)
    z = mlp(torch.randn(200, 3))
    assert (z > 0).any()
    assert (z < 0).any()


def test_compiled_hardtanh_is_hardtanh_with_its_gradients():
    """Also under torch.func, in one piece; and where a value is cut exactly at its end."""
    unit = Hardtanh()
    x = torch.tensor([[-3.0, -0.9, -0.5], [0.0, 0.9, 1.5]])

    def cubes(v):
        return (unit(v) ** 3).sum()

    for ask in (unit, torch.func.grad(cubes), torch.func.vmap(torch.func.grad(cubes))):
        compiled = torch.compile(ask, fullgraph=True, backend="aot_eager")
        assert torch.equal(compiled(x), ask(x))
    at_the_end = torch.tensor([-1.0, 0.5, 1.0], requires_grad=True)
    compiled = torch.compile(unit, fullgraph=True, backend="aot_eager")
    (grad,) = torch.autograd.grad((compiled(at_the_end) ** 3).sum(), at_the_end)
    assert torch.equal(grad, torch.func.grad(cubes)(at_the_end.detach()))
