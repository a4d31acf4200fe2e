"""flowlib.images beyond the one list: who moves, who goes where, levels of grey, bad input."""

import math

import pytest
import torch
from torch import nn

from flowlib import (
    ActNorm,
    Affine,
    BatchNorm,
    Compose,
    ConvNet,
    Coupling,
    Dequantize,
    ElementwiseAffine,
    FactorOut,
    Flatten,
    Flow,
    ImageRealNVP,
    MaskedCoupling,
    Squeeze,
    StandardNormal,
    checkerboard_mask,
    datasets,
    fit,
    half_mask,
)
from tests.models import autodiff_log_det, randomize

# --- who moves ------------------------------------------------------------------------------


def test_a_checkerboard_has_no_two_neighbours_of_one_colour():
    mask = checkerboard_mask((2, 5, 4))
    assert mask.dtype == torch.bool
    assert mask[0, 0, 0]
    assert (mask[:, 1:] != mask[:, :-1]).all()
    assert (mask[:, :, 1:] != mask[:, :, :-1]).all()
    assert torch.equal(mask[0], mask[1])
    assert torch.equal(checkerboard_mask((2, 5, 4), 1), ~mask)


def test_a_masked_coupling_is_the_formula_and_sees_only_what_is_kept():
    mask = checkerboard_mask((2, 4, 4))
    layer = randomize(MaskedCoupling(mask, ConvNet(2, 4, 4), Affine(2))).double()
    x = torch.randn(5, 2, 4, 4).double()
    z, log_det = layer(x)
    b = mask.double()
    raw, t = layer.conditioner(b * x).chunk(2, 1)
    low, width = (v[:, None, None] for v in (layer.transformer.low, layer.transformer.width))
    s = low + width * raw.sigmoid()
    torch.testing.assert_close(z, b * x + (1 - b) * (x * s.exp() + t))
    torch.testing.assert_close(log_det, ((1 - b) * s).flatten(1).sum(1))
    jacobian = torch.func.jacrev(lambda v: layer(v[None])[0][0].flatten())(x[0]).reshape(32, 32)
    kept = mask.flatten()
    assert torch.equal(jacobian[kept][:, kept], torch.eye(16).double())
    assert (jacobian[kept][:, ~kept] == 0).all()
    moved = jacobian[~kept][:, ~kept]
    assert (moved == moved.diag().diag()).all()


def test_a_coupling_of_channels_is_the_masked_coupling_of_its_channels():
    inner = randomize(ConvNet(1, 4, 4)).double()
    narrow = Coupling(half_mask(3), inner, Affine(2), (4, 2)).double()

    class Wide(nn.Module):
        def forward(self, x):
            raw, t = inner(x[:, :1]).chunk(2, 1)
            nothing = torch.zeros_like(x[:, :1])
            return torch.cat([nothing, raw, nothing, t], 1)

    mask = half_mask(3)[:, None, None].expand(3, 4, 2)
    wide = MaskedCoupling(mask, Wide(), Affine(3)).double()
    x = torch.randn(6, 3, 4, 2).double()
    for one, other in zip(narrow(x) + narrow.inverse(x), wide(x) + wide.inverse(x), strict=True):
        torch.testing.assert_close(one, other)


def test_a_mask_is_a_copy():
    mask = checkerboard_mask((1, 4, 4))
    one, other = (MaskedCoupling(mask, ConvNet(1, 4, 2), Affine(1)) for _ in "ab")
    opposite = MaskedCoupling(~mask, ConvNet(1, 4, 2), Affine(1))
    one.load_state_dict(opposite.state_dict())
    assert torch.equal(one.mask, ~mask)
    assert torch.equal(other.mask, mask)
    assert torch.equal(mask, checkerboard_mask((1, 4, 4)))


def test_states_that_were_cast_or_averaged_load_and_others_are_refused():
    flow = ImageRealNVP((1, 4, 4), 2, hidden=2)
    state = flow.state_dict()
    ImageRealNVP((1, 4, 4), 2, hidden=2).load_state_dict({k: v.half() for k, v in state.items()})
    average = torch.optim.swa_utils.AveragedModel(flow, use_buffers=True)
    for _ in range(2):
        average.update_parameters(flow)
    x = torch.rand(5, 1, 4, 4)
    torch.testing.assert_close(average.module.log_prob(x), flow.log_prob(x))
    layer = MaskedCoupling(checkerboard_mask((1, 4, 4)), ConvNet(1, 4, 2), Affine(1))
    for wrong in (torch.ones(1, 4, 4).bool(), checkerboard_mask((1, 2, 4))):
        with pytest.raises(ValueError, match=r"saved mask of shape \(1, 4, 4\) with 8 kept"):
            layer.load_state_dict({**layer.state_dict(), "kept": wrong})


def test_what_is_thrown_away_may_overflow():
    class Steep(nn.Module):
        def forward(self, x):
            return torch.full_like(x, 500.0) + 0 * x

    class Exp(nn.Module):
        n_params = 1

        def forward(self, x, params):
            return x * params.exp(), params

    mask = checkerboard_mask((1, 2, 2))
    layer = MaskedCoupling(mask, Steep(), Exp())
    x = torch.rand(1, 1, 2, 2, requires_grad=True)
    layer(x)[0][:, mask].sum().backward()
    assert torch.isfinite(x.grad[:, mask]).all()


def test_a_mask_that_was_saved_is_taken():
    one, two = (
        MaskedCoupling(checkerboard_mask((1, 4, 4), k), ConvNet(1, 4, 2), Affine(1)) for k in (0, 1)
    )
    randomize(one)
    two.load_state_dict(one.state_dict())
    x = torch.randn(3, 1, 4, 4)
    assert torch.equal(one(x)[0], two(x)[0])


# --- what goes where --------------------------------------------------------------------------


def test_squeeze_takes_squares_apart_and_is_no_checkerboard():
    x = torch.arange(3 * 4 * 6.0).reshape(1, 3, 4, 6)
    z, log_det = Squeeze((3, 4, 6))(x)
    assert z.shape == (1, 12, 2, 3)
    assert log_det.tolist() == [0.0]
    for place, (row, column) in enumerate([(0, 0), (0, 1), (1, 0), (1, 1)]):
        assert torch.equal(z[:, 3 * place : 3 * place + 3], x[:, :, row::2, column::2])
    # Pixel by pixel: a half of the channels is the upper pixels of the squares, two rows of four.
    back, _ = Squeeze((1, 4, 4)).inverse(half_mask(4)[None, :, None, None].expand(1, 4, 2, 2))
    assert back[0, 0].int().tolist() == [[1, 1, 1, 1], [0, 0, 0, 0]] * 2
    assert not torch.equal(back[0].bool(), checkerboard_mask((1, 4, 4)))


@pytest.mark.parametrize("channels", [2, 3, 5])
def test_factoring_out_keeps_every_value(channels):
    going_on = channels - channels // 2
    rest = Compose([ActNorm((going_on, 2, 3)), Flatten((going_on, 2, 3))])
    layer = FactorOut((channels, 2, 3), rest)
    x = torch.randn(4, channels, 2, 3)
    z, log_det = layer(x)  # ActNorm is still the identity
    assert z.shape == (4, channels * 6)
    assert torch.equal(z.sort(1).values, x.flatten(1).sort(1).values)
    assert torch.equal(z[:, : (channels // 2) * 6], x[:, going_on:].flatten(1))  # these left
    assert torch.equal(layer.inverse(z)[0], x)
    assert log_det.tolist() == [0.0] * 4
    layer.initialize(x * 7)
    assert rest[0].log_scale.abs().min() > 1  # the start reaches what goes on


def test_what_has_left_is_not_moved_any_more():
    flow = randomize(ImageRealNVP((1, 8, 8), 3, hidden=4)).double()
    x = torch.rand(2, 1, 8, 8).double()
    stack = list(flow.bijection)
    *first, factor_out = stack
    z = flow.bijection(x)[0]
    before, _ = Compose(first)(x)
    leaving = before[:, factor_out.going_on :].flatten(1)
    assert leaving.shape == (2, 32)
    assert torch.equal(z[:, :32], leaving)
    inner = factor_out.rest[-1]
    assert isinstance(inner, FactorOut)
    assert inner.latent_shape == (32,)


def test_the_stack_is_the_papers():
    def names(stack):
        for layer in stack:
            if isinstance(layer, FactorOut):
                yield f"leave {layer.leaving} of {layer.event_shape[0]}"
                yield from names(layer.rest)
            elif isinstance(layer, MaskedCoupling):
                yield "checkerboard" + "+-"[int(layer.mask.flatten()[0])]
            elif isinstance(layer, Coupling):
                yield "channels" + "+-"[int(layer.mask[0])]
            elif not isinstance(layer, ActNorm):
                yield type(layer).__name__

    assert list(names(ImageRealNVP((3, 8, 8), 2).bijection)) == [
        "Logit", "checkerboard-", "checkerboard+", "checkerboard-", "Squeeze",
        "channels-", "channels+", "channels-", "leave 6 of 12",
        "checkerboard-", "checkerboard+", "checkerboard-", "checkerboard+", "Flatten",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("shape", "expected"),
    [((1, 8, 8), 2), ((3, 32, 32), 4), ((1, 28, 28), 3), ((2, 4, 8), 1), ((1, 7, 7), 1)],
)
def test_how_many_scales_there_are(shape, expected):
    flow = ImageRealNVP(shape, hidden=2, n_blocks=0)
    assert sum(isinstance(m, FactorOut) for m in flow.modules()) == expected - 1
    x = flow.sample(2)
    assert x.shape == (2, *shape)
    x, log_p = flow.rsample_and_log_prob(2)
    torch.testing.assert_close(flow.log_prob(x), log_p, rtol=1e-3, atol=1e-3)


def test_its_arguments_are_heeded():
    flow = ImageRealNVP((1, 4, 4), 1, hidden=3, n_blocks=2, alpha=0.2)
    nets = [m for m in flow.modules() if isinstance(m, ConvNet)]
    assert len(nets) == 4
    assert all(len(net.blocks) == 2 and net.first.out_channels == 3 for net in nets)
    assert flow.bijection[0].alpha == 0.2
    flow.log_prob(torch.full((1, 1, 4, 4), 1.3))  # within the margin of 1/3
    with pytest.raises(ValueError, match="takes no context"):
        flow.log_prob(torch.rand(1, 1, 4, 4), torch.zeros(1, 2))
    with pytest.raises(ValueError, match="expected a context of shape"):
        ImageRealNVP((1, 4, 4), 1, hidden=2, context_dim=2).log_prob(torch.rand(1, 1, 4, 4))


def test_batch_norm_between_image_couplings_is_a_density():
    """Its H·W: a picture's own density, against autodiff, with the statistics of a batch."""
    event = (2, 4, 4)
    coupling = MaskedCoupling(checkerboard_mask(event), ConvNet(2, 3, 4), Affine(2))
    stack = Compose([BatchNorm(event), coupling, BatchNorm(event), Flatten(event)]).double()
    for p in stack.parameters():
        p.data.normal_(0, 0.3)
    batch = 3 * torch.randn(50, *event).double() + 1
    for _ in range(100):
        stack(batch)
    flow = Flow(stack, StandardNormal(32), event).double().eval()
    x = batch[:3]
    expected = flow.base.log_prob(stack(x)[0]) + autodiff_log_det(stack.forward, x)
    torch.testing.assert_close(flow.log_prob(x), expected, rtol=0, atol=1e-10)


# --- levels of grey ---------------------------------------------------------------------------


def test_levels_survive_their_noise():
    to_unit = Dequantize(17)
    pixels = torch.arange(17).repeat(40).reshape(40, 1, 1, 17).to(torch.uint8)
    noisy = to_unit.noisy(pixels, torch.Generator().manual_seed(0))
    assert torch.equal(noisy.floor(), pixels.float())
    u = noisy - pixels
    assert abs(u.mean().item() - 0.5) < 4 * math.sqrt(1 / 12 / u.numel())
    x, log_det = to_unit(noisy)
    assert x.min() >= 0
    assert x.max() < 1
    assert torch.equal(to_unit.levels_of(x), pixels.long())
    torch.testing.assert_close(log_det, torch.full((40,), -17 * math.log(17)))
    assert to_unit.levels_of(torch.tensor([-0.01, 1.02])).tolist() == [0, 16]
    again = to_unit.noisy(pixels, torch.Generator().manual_seed(0))
    assert torch.equal(noisy, again)


@pytest.mark.parametrize("levels", [2, 17, 22, 41, 256, 4096])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_noise_never_leaves_its_cell(levels, dtype, monkeypatch):
    """Not even at the ends of what a generator may draw."""
    to_unit, pixels = Dequantize(levels), torch.arange(levels)
    for u in (0.0, 1 - torch.finfo(dtype).eps / 2):
        monkeypatch.setattr(
            torch, "rand", lambda shape, u=u, **kw: torch.full(shape, u, dtype=dtype)
        )
        x = to_unit.noisy(pixels, dtype=dtype)
        assert x.dtype == dtype
        assert torch.equal(x.floor().long(), pixels)
        z, _ = to_unit(x[None])
        assert torch.equal(to_unit.levels_of(z[0]), pixels)
        assert z.max() < 1


def test_noise_bounds_the_probability_of_levels():
    """E log p(x + u) <= log P(x), the integral of the flow's density over the level's cell."""
    affine = ElementwiseAffine(1)
    affine.log_scale.data.fill_(1.5)
    affine.loc.data.fill_(2.0 * math.exp(-1.5))
    to_unit = Dequantize(8)
    flow = Flow(Compose([to_unit, affine]), StandardNormal(1)).double()
    pixels = torch.arange(8).repeat(20_000)[:, None]
    noisy = to_unit.noisy(pixels, torch.Generator().manual_seed(0), torch.float64)
    with torch.no_grad():
        bound = flow.log_prob(noisy).reshape(20_000, 8)
        ends = flow.bijection(torch.arange(9.0)[:, None].double())[0][:, 0]
    P = torch.distributions.Normal(0.0, 1.0).cdf(ends).diff()
    assert (bound.mean(0) < P.log()).all()
    u = (torch.arange(4000).double() + 0.5) / 4000
    with torch.no_grad():
        exact = flow.log_prob((torch.arange(8.0)[:, None] + u)[..., None].double()).mean(1)
    error = bound.std(0) / 20_000**0.5
    assert ((bound.mean(0) - exact).abs() < 4 * error).all()


@pytest.mark.parametrize("dims", [1, 12, 768])
def test_eight_bits_of_noise_are_eight_bits(dims):
    pixels = torch.randint(0, 256, (4, dims))
    to_unit = Dequantize(256)
    _, log_det = to_unit(to_unit.noisy(pixels))
    log_p_of_levels = (
        torch.zeros(4) + log_det
    )  # the uniform density on the cube, seen from [0, 256)
    nats = -log_p_of_levels.mean().item()
    assert nats / (dims * math.log(2)) == pytest.approx(8)
    assert datasets.bits_per_dim(torch.zeros(4), dims).item() == 8.0


# --- learning ---------------------------------------------------------------------------------


def test_it_learns_the_digits():
    """Far below one Gaussian (2.46) after a few seconds; the whole training is in the chapter."""
    torch.manual_seed(0)
    levels, _ = datasets.digit_images()
    to_unit = Dequantize(17)
    flow = ImageRealNVP((1, 8, 8), hidden=8)

    def batch(step):
        rows = torch.randint(len(levels.train), (64,))
        return to_unit(to_unit.noisy(levels.train[rows]))[0]

    fit(flow, batch, steps=150, lr=1e-2)
    with torch.no_grad():
        log_p = flow.log_prob(to_unit(to_unit.noisy(levels.test))[0])
        drawn = flow.sample(20)
    assert datasets.bits_per_dim(log_p, 64, 17) < 2.4
    assert drawn.shape == (20, 1, 8, 8)


# --- bad input --------------------------------------------------------------------------------

FLOW = ImageRealNVP((3, 4, 4), hidden=2, n_blocks=0)
GREY = ImageRealNVP((1, 4, 4), hidden=2, n_blocks=0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Squeeze((1, 7, 8)), r"channels first, and sides that 2 divides, got \(1, 7, 8\)"),
        (lambda: Squeeze((8, 8)), r"\(C, H, W\), channels first"),
        (lambda: ImageRealNVP(64), r"\(C, H, W\), channels first, got \(64,\)"),
        (lambda: ImageRealNVP((1, 6, 6), 3), r"sides that 4 divides, got \(1, 6, 6\)"),
        (lambda: ImageRealNVP((1, 4, 4), 3), "last of 3 scales .* less than two pixels"),
        (lambda: ImageRealNVP((28, 28, 1)), r"its channels last; .* such as \(1, 28, 28\)"),
        (lambda: ImageRealNVP((24, 32, 3)), r"its channels last; .* such as \(3, 24, 32\)"),
        (lambda: ImageRealNVP((1, 8, 8), 0), "a whole n_scales of 1 or more, got 0"),
        (lambda: ImageRealNVP((1, 8, 8), 1.5), "a whole n_scales of 1 or more, got 1.5"),
        (lambda: ImageRealNVP((1, 8, 8), context_dim=-1), "whole context_dim of 0 or more"),
        (lambda: ImageRealNVP((1, 8, 8), hidden=0), "a whole hidden of 1 or more, got 0"),
        (lambda: ConvNet(1, 4, 1, n_blocks=-1), "a whole n_blocks of 0 or more, got -1"),
        (lambda: FactorOut((1, 4, 4), Flatten((1, 4, 4))), "at least 2 channels, got 1"),
        (lambda: FactorOut((2, 2, 2), Squeeze((1, 2, 2))), r"vectors of 4 numbers, .*\(4, 1, 1\)"),
        (lambda: MaskedCoupling(torch.ones(4, 4), None, None), "mask of bools .*float32"),
        (lambda: MaskedCoupling(checkerboard_mask((1, 1, 1)), None, None), "1 of 1 kept"),
        (
            lambda: MaskedCoupling(checkerboard_mask((1, 2, 2)), ConvNet(1, 2, 1), Affine(1))(
                torch.zeros(1, 1, 2, 2)
            ),
            r"1 channels of \(2, 2\) to move with 2 parameters each, .* made \(1, 2, 2\)",
        ),
        (lambda: FLOW.log_prob(torch.rand(2, 4, 4, 3)), r"come first: x.movedim\(-1, -3\)"),
        (lambda: fit(FLOW, torch.rand(9, 4, 4, 3)), r"come first: x.movedim\(-1, -3\)"),
        (lambda: GREY.log_prob(torch.rand(2, 4, 4)), r"x.unsqueeze\(-3\) adds the one channel"),
        (lambda: GREY.log_prob(255 * torch.rand(2, 1, 4, 4)), "the unit interval.* Dequantize"),
        (lambda: GREY.log_prob(torch.rand(2, 1, 4, 4) - 1), "strictly between -0.05556 and 1.056"),
        (lambda: GREY.log_prob(torch.zeros(2, 1, 4, 4).byte()), "uint8, the unit interval"),
        (lambda: fit(GREY, 17 * torch.rand(9, 1, 4, 4)), "fit: expected data with pixels"),
        (lambda: fit(GREY, torch.zeros(9, 1, 4, 4).byte()), "fit: expected data .*uint8"),
        (lambda: fit(GREY, torch.rand(9, 1, 4, 4), validation=9 * torch.ones(2, 1, 4, 4)),
         "fit: expected validation with pixels"),
        (lambda: GREY.log_prob(torch.rand(2, 3, 4, 4)), r"got \(2, 3, 4, 4\)$"),
        (lambda: ImageRealNVP((3, 1, 1)), "last of 1 scales .* less than two pixels"),
        (lambda: ImageRealNVP((3, 8, 8), 100), "last of 100 scales"),
        (lambda: Dequantize(256).noisy(torch.tensor([3]), dtype=torch.float16), "too coarse"),
        (lambda: Dequantize(17)(torch.tensor([[3]])), "levels with noise, got torch.int64"),
        (lambda: Dequantize(1), "a whole number of levels of 2 or more, got 1"),
        (lambda: Dequantize(17).noisy(torch.tensor([0, 17])), "to 16, got values from 0 to 17"),
        (lambda: Dequantize(17).noisy(torch.tensor([-1])), "got values from -1"),
        (lambda: Dequantize(17).noisy(torch.tensor([0.5])), "0.5 to 0.5, not all of them whole"),
        (lambda: Dequantize(17).noisy(torch.tensor([0.0, math.nan])), "from 0 to 16"),
        (lambda: datasets.bits_per_dim(torch.zeros(1), 0), "dims and levels from 1"),
    ],
)  # fmt: skip
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_pixels_are_a_tensor():
    with pytest.raises(TypeError, match=r"expected pixels to be a torch.Tensor, got list"):
        Dequantize(17).noisy([1, 2])


def test_factor_out_takes_a_bijection():
    with pytest.raises(TypeError, match="rest to be a Bijection"):
        FactorOut((2, 2, 2), nn.Identity())
