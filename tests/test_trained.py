"""The weights that come with the library: small, as good as they say, and made by the recipe."""

import itertools
import json

import numpy as np
import pytest
import torch

from flowlib import datasets
from flowlib.trained import RECIPES, WEIGHTS, digit_bits, pretrained, train
from tests.test_benchmarks import report
from tools.notebooks import ROOT
from tools.weights import AT_FIRST, FIRST, STEPS, score

names = pytest.mark.parametrize("name", RECIPES)
flows = pytest.mark.parametrize("name", [n for n in RECIPES if RECIPES[n].data == "grey"])


@pytest.fixture(scope="module")
def test_part():
    return datasets.digit_images()[0].test


def test_nothing_else_is_stored():
    names = {f"{name}.pt" for name in RECIPES}
    assert {path.name for path in WEIGHTS.iterdir()} == names | {"first-losses.json"}


@names
def test_weights_are_small(name):
    assert (WEIGHTS / f"{name}.pt").stat().st_size <= 200_000


@names
def test_the_recipe_begins_as_theirs_did(name, monkeypatch):
    """Its first steps, after which the run is interrupted, as by Ctrl-C.

    On one machine they agree in every digit that is stored. On another, sums are rounded
    otherwise, which grows from step to step; another seed is off by nats. The whole recipe is run
    by `tools/weights.py --check`.
    """
    recipe, steps = RECIPES[name], itertools.count()

    def make():
        model = recipe.make()
        log_prob = model.log_prob

        def stopping(x, context=None):
            if torch.is_grad_enabled() and next(steps) == STEPS:  # not where the start is judged
                raise KeyboardInterrupt
            return log_prob(x, context)

        model.log_prob = stopping
        return model

    monkeypatch.setitem(RECIPES, name, recipe._replace(make=make))
    _, history = train(name)
    first = json.loads(FIRST.read_text())[name]
    assert len(history.train) == len(first) == STEPS
    assert history.train[:5] == pytest.approx(first[:5], abs=1e-3)
    assert history.train == pytest.approx(first, abs=AT_FIRST)


def test_the_black_and_white_one_is_as_good_as_it_was():
    valid, test = score("binary-digits", pretrained("binary-digits"))
    assert (valid, test) == pytest.approx((17.10, 17.63), abs=0.02)  # in nats
    assert test < 17.8  # a mixture of Bernoullis, the best old method


@pytest.mark.parametrize(("toy", "gap"), [("moons", 0.02), ("8gaussians", 0.03), ("rings", 0.1)])
def test_those_of_the_plane_are_nearly_as_good_as_the_truth(toy, gap):
    name = f"{toy}-by-residual-flow"
    x = datasets.TOYS[toy].sample(20_000, np.random.default_rng(5))
    with torch.no_grad():
        nll = -pretrained(name).log_prob(x).mean()
    truth = -datasets.TOYS[toy].log_prob(x).mean()
    assert -0.02 < nll - truth < gap


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


@flows
def test_the_stored_ones_are_those_that_were_measured(name, test_part):
    (row,) = (r for r in report.read("digits") if (r["flow"], r["seed"]) == (name, 0))
    assert digit_bits(pretrained(name), test_part) == pytest.approx(row["bits"], abs=0.02)


def test_an_unknown_name():
    with pytest.raises(ValueError, match=r"expected one of digits-as-images, .*got 'mnist'"):
        pretrained("mnist")


def test_it_is_judged_in_its_own_dtype(test_part):
    flow = pretrained("digits-as-images")
    bits = digit_bits(flow, test_part)
    assert digit_bits(flow.double(), test_part) == pytest.approx(bits, abs=1e-4)


def test_loading_leaves_the_callers_randomness_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    pretrained("digits-as-vectors")
    assert torch.equal(torch.rand(3), expected)
