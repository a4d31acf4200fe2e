"""The weights that come with the library: small, as good as they say, and made by the recipe."""

import pytest
import torch

from flowlib import datasets
from flowlib.trained import RECIPES, WEIGHTS, digit_bits, noisy_digits, pretrained, train
from tests.test_benchmarks import report
from tools.notebooks import ROOT

names = pytest.mark.parametrize("name", RECIPES)


@pytest.fixture(scope="module")
def test_part():
    return datasets.digit_images()[0].test


def test_nothing_else_is_stored():
    assert {path.stem for path in WEIGHTS.iterdir()} == set(RECIPES)


@names
def test_weights_are_small(name):
    assert (WEIGHTS / f"{name}.pt").stat().st_size <= 200_000


@names
def test_the_recipe_makes_them_again(name, test_part):
    """To the digit where the arithmetic is the same; where it is not, one as good."""
    stored, again = pretrained(name), train(name)
    assert not stored.training
    bits = digit_bits(stored, test_part)
    assert digit_bits(again, test_part) == pytest.approx(bits, abs=0.02)
    x = noisy_digits(test_part, torch.Generator().manual_seed(3))
    with torch.no_grad():
        difference = (stored.log_prob(x) - again.log_prob(x)).abs().mean()
    assert difference < 5  # nats, of a hundred: the same flow but for rounding that has grown


def test_images_beat_vectors_at_equal_parameters_and_the_old_methods():
    rows = {(r["flow"], r["seed"]): r for r in report.read("digits")}
    for seed in (0, 1, 2):
        images, vectors = (rows[f"digits-as-{kind}", seed] for kind in ("images", "vectors"))
        assert abs(images["weights"] / vectors["weights"] - 1) < 0.01
        assert images["bits"] < vectors["bits"] - 0.1
        assert images["bits"] < 2.29


def test_the_chapter_quotes_them():
    chapter = " ".join((ROOT / "chapters" / "02-realnvp.md").read_text().split())
    rows = report.read("digits")
    images, vectors = (
        {f"{row['bits']:.2f}" for row in rows if row["flow"] == f"digits-as-{kind}"}
        for kind in ("images", "vectors")
    )
    (image_bits,), (vector_bits,) = images, vectors
    assert (
        f"Over three seeds the one has {image_bits} bits/dim and the other {vector_bits}" in chapter
    )
    assert f"with {rows[0]['weights']:,} weights" in chapter


@names
def test_the_stored_ones_are_those_that_were_measured(name, test_part):
    (row,) = (r for r in report.read("digits") if (r["flow"], r["seed"]) == (name, 0))
    assert digit_bits(pretrained(name), test_part) == pytest.approx(row["bits"], abs=0.02)


def test_an_unknown_name():
    with pytest.raises(ValueError, match=r"expected one of digits-as-images, .*got 'mnist'"):
        pretrained("mnist")


def test_loading_leaves_the_callers_randomness_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    pretrained("digits-as-vectors")
    assert torch.equal(torch.rand(3), expected)
