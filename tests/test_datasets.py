"""flowlib.datasets against data.md's figures and against themselves."""

import math

import numpy as np
import pytest
import torch

from flowlib import datasets
from flowlib.datasets import TOYS

ENTROPY = {  # nats: the held-out NLL of the truth
    "moons": 2.398,
    "8gaussians": 2.847,
    "checkerboard": 3.466,
    "2spirals": 2.564,
    "rings": 2.637,
}


@pytest.mark.parametrize("name", TOYS)
def test_truth_has_the_known_entropy(name):
    x = TOYS[name].sample(20_000, np.random.default_rng(0)).double()
    log_p = TOYS[name].log_prob(x)
    error = log_p.std().item() / math.sqrt(len(x))
    assert abs(-log_p.mean().item() - ENTROPY[name]) < 4 * error + 2e-3


@pytest.mark.parametrize("name", TOYS)
def test_truth_integrates_to_one(name):
    axis = -6 + 0.1 * (torch.arange(120, dtype=torch.float64) + 0.5)  # midpoints
    grid = torch.stack(torch.meshgrid(axis, axis, indexing="ij"), -1)
    total = TOYS[name].log_prob(grid).exp().sum() * 0.1**2
    assert abs(total.item() - 1) < 1e-3


@pytest.mark.parametrize("name", TOYS)
def test_toys_are_seeded_and_take_any_number(name):
    toy = TOYS[name]
    one, two = (toy.sample(50, np.random.default_rng(3)) for _ in range(2))
    assert torch.equal(one, two)
    assert toy.sample(0, np.random.default_rng(0)).shape == (0, 2)
    assert toy.log_prob(torch.zeros(4, 3, 2)).shape == (4, 3)
    with pytest.raises(ValueError, match="got -1"):
        toy.sample(-1, np.random.default_rng(0))
    with pytest.raises(ValueError, match=r"expected points \(\.\.\., 2\)"):
        toy.log_prob(torch.zeros(4, 3))


@pytest.mark.parametrize("table", [datasets.wine, datasets.breast_cancer])
def test_tables_are_standardised_by_their_training_part(table):
    train, valid, test = table()
    torch.testing.assert_close(train.mean(0), torch.zeros(train.shape[1]), atol=1e-5, rtol=0)
    torch.testing.assert_close(train.std(0, correction=0), torch.ones(train.shape[1]))
    assert test.mean(0).abs().max() > 1e-3
    rows = [tuple(r.tolist()) for part in (train, valid, test) for r in part]
    assert len(rows) == {13: 178, 30: 569}[train.shape[1]]


def gaussian_nll(train, test):
    train, test = train.double(), test.double()
    exact = torch.distributions.MultivariateNormal(train.mean(0), train.T.cov())
    return -exact.log_prob(test).mean().item()


def test_gaussians_score_what_is_known():
    train, valid, test = datasets.wine()
    assert abs(gaussian_nll(torch.cat([train, valid]), test) - 18.4) < 1.0
    y, log_det = datasets.digits(np.random.default_rng(0))
    nll = gaussian_nll(torch.cat([y.train, y.valid]), y.test)
    bits = datasets.bits_per_dim(log_det.test - nll, 64, levels=17).item()
    assert abs(bits - 2.46) < 0.03


def test_digits_log_det_is_autodiffs():
    (y, log_det) = datasets.digits(np.random.default_rng(0))
    inner = y.test[:3].double().sigmoid()
    x = ((inner - 0.05) / 0.9).requires_grad_()
    (slope,) = torch.autograd.grad((0.05 + 0.9 * x).logit().sum(), x)
    torch.testing.assert_close(slope.log().sum(1).float(), log_det.test[:3], rtol=1e-4, atol=1e-3)


def test_the_uniform_density_on_pictures_needs_exactly_their_bits():
    for levels, bits in ((256, 8.0), (2, 1.0), (17, math.log2(17))):
        assert datasets.bits_per_dim(torch.zeros(3), 64, levels).item() == pytest.approx(bits)


def test_every_other_density_needs_more():
    rng = np.random.default_rng(0)
    x = torch.as_tensor((rng.integers(0, 256, (4000, 3)) + rng.uniform(size=(4000, 3))) / 256)
    beta = torch.distributions.Beta(torch.tensor(2.0), torch.tensor(2.0))
    assert datasets.bits_per_dim(beta.log_prob(x).sum(1), 3).item() > 8.01
    with pytest.raises(ValueError, match="got 0 and 256"):
        datasets.bits_per_dim(torch.zeros(3), 0)


def test_binary_digits_are_the_pictures_with_ink_from_half_the_levels_on():
    (levels, labels), (x, same) = datasets.digit_images(), datasets.binary_digits()
    for part, picture in zip(x, levels, strict=True):
        assert part.dtype == torch.float32
        assert torch.equal(part.reshape(-1, 1, 8, 8) == 1, picture.float() > 7.5)
        assert part.unique().tolist() == [0, 1]
    assert all(torch.equal(a, b) for a, b in zip(labels, same, strict=True))
