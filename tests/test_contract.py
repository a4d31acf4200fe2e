"""What a later chapter builds on: transformers of some coordinates, rows that come with sums.

`Prototype` is a masked autoregressive layer on that contract, in as few lines as it takes.
"""

import inspect

import pytest
import torch

from flowlib import MADE, Additive, Affine, Bijection, Compose, Flow, Inverse, StandardNormal
from tests.models import autodiff_log_det, randomize


class Prototype(Bijection):
    """z_i = transformer(x_i; parameters from the coordinates before i), as MAF has it."""

    def __init__(self, made, transformer):
        super().__init__()
        self.made, self.transformer = made, transformer
        self.event_shape, self.context_dim = made.event_shape, made.context_dim

    def forward(self, x, context=None):
        z, log_slope = self.transformer(x, self.made.unchecked(x, context))
        return z, log_slope.sum(1)

    def inverse(self, z, context=None):
        def step(at, params):
            return self.transformer.inverse(z[:, at], params.flatten(1), at)

        return self.made.autoregress(step, len(z), context)

    def dependence(self, dim, inverse=False):
        ranks = self.made.ranks[0]
        return torch.eye(dim, dtype=torch.bool) | (ranks[:, None] > ranks)


def test_it_is_short():
    assert len(inspect.getsource(Prototype).splitlines()) <= 60


def made(dim=6, per=2, **options):
    generator = torch.Generator().manual_seed(3)
    options = {"order": "random", "activation": torch.nn.Tanh, "generator": generator, **options}
    return MADE(dim, (12, 10), outputs_per_dim=per, **options)


LAYERS = {
    "affine": lambda: Prototype(made(), Affine(6)),
    "additive": lambda: Prototype(made(per=1), Additive()),
    "several at a time": lambda: Prototype(made(order=[0, 1, 1, 0, 2, 2]), Affine(6)),
    "context": lambda: Prototype(made(context_dim=2, direct=True), Affine(6)),
    "one coordinate": lambda: Prototype(made(dim=1), Affine(1)),
}


@pytest.fixture(params=LAYERS, ids=str)
def layer(request):
    return randomize(LAYERS[request.param]()).double()


def given(layer, rows):
    x = torch.randn(rows, *layer.event_shape, dtype=torch.float64)
    context = torch.randn(rows, layer.context_dim).double() if layer.context_dim else None
    return x, context


def test_log_det_is_autodiffs_in_both_directions_and_the_inverse_comes_back(layer):
    x, context = given(layer, 5)
    z, forward = layer(x, context)
    back, inverse = layer.inverse(z, context)
    torch.testing.assert_close(back, x, rtol=0, atol=1e-10)
    torch.testing.assert_close(inverse, -forward, rtol=0, atol=1e-10)
    for f, at, log_det in ((layer, x, forward), (layer.inverse, z, inverse)):
        for i in range(5):
            c = None if context is None else context[i : i + 1]
            exact = autodiff_log_det(lambda v, f=f, c=c: f(v, c), at[i : i + 1])
            torch.testing.assert_close(log_det[i : i + 1], exact, rtol=0, atol=1e-10)


def test_it_is_a_flow_both_ways_round(layer):
    dim = layer.event_shape[0]
    for bijection in (layer, Inverse(layer), Compose([layer, Inverse(layer)])):
        flow = Flow(bijection, StandardNormal(dim), context_dim=layer.context_dim).double()
        _, context = given(layer, 3)
        draws, log_p = flow.rsample_and_log_prob(4, context)
        torch.testing.assert_close(flow.log_prob(draws, context), log_p, rtol=0, atol=1e-9)
        (log_p.sum() + draws.sum()).backward()
        for name, p in layer.named_parameters():
            assert p.grad is not None, name


def test_its_jacobian_is_triangular_in_the_ordering(layer):
    x, context = given(layer, 1)
    J = torch.autograd.functional.jacobian(lambda v: layer(v, context)[0][0], x)[:, 0]
    assert (J[~layer.dependence(len(J))] == 0.0).all()


@pytest.mark.parametrize("transformer", [Affine(5), Additive()])
@pytest.mark.parametrize("pixels", [(), (2, 3)])
def test_a_transformer_on_some_coordinates_is_the_whole_one_there(transformer, pixels):
    randomize(transformer)
    x, params = torch.randn(7, 5, *pixels), torch.randn(7, transformer.n_params, 5, *pixels)
    at = torch.tensor([3, 0, 4])
    for go in (transformer.forward, transformer.inverse):
        whole = go(x, params.flatten(1, 2))
        part = go(x[:, at], params[:, :, at].flatten(1, 2), at)
        for some, all_of_them in zip(part, whole, strict=True):
            torch.testing.assert_close(some, all_of_them[:, at])


def test_parameters_of_some_coordinates_without_their_places_are_refused():
    with pytest.raises(
        ValueError, match="2 parameters for each of 5 coordinates, got 2; `at` says"
    ):
        Affine(5)(torch.zeros(3, 1), torch.zeros(3, 2))
