"""The explorers' validated traits, and the options that an explorer does not have."""

import math
import re

import numpy as np
import pytest
import torch
import traitlets
from traitlets import TraitError

from flowlib import widgets
from flowlib.widgets import CompletionExplorer, JacobianExplorer, MaskExplorer, WarpExplorer
from flowlib.widgets.traits import Index, Number, Numbers, Permutation, Whole, Wholes


class Explorer(traitlets.HasTraits):
    size = Whole(3, low=2, high=9)
    names = traitlets.List(["a", "b", "c"])
    share = Number(0.5, low=0, high=1)
    free = Number(1.0)
    known = Number(None, allow_none=True)
    below = Number(0.0, low=0, high=lambda e: e.size)
    step = Whole(0, low=0, high=lambda e: e.size)
    chosen = Index(lambda e: len(e.names))
    fixed = Index(4, default=1)
    matrix = Numbers([[1.0, 0.0], [0.0, 1.0]], shape=(2, 2))
    point = Numbers(shape=lambda e: (e.size,), or_empty=True)
    curves = Numbers(
        [[0.0, 1.0]] * 3, shape=(3, 2), ranges={"means": (-4, 4), "spreads": (0.5, 2.0)}
    )
    widths = Wholes([5], count=(1, 3), low=1, high=12)
    axes = Wholes([0, 1], count=2, low=0, high=lambda e: e.size - 1, different=True)
    pair = Wholes([0, 1], count=2, low=0, high=5, different=True, what="two different rows")
    bits = Wholes([0, 0, 0], count=lambda e: e.size, low=0, high=1)
    order = Permutation([1, 2, 3], first=1, last=lambda e: e.size, what="rank")
    places = Permutation([0, 1], first=0, last=1)


def test_the_defaults_are_copies():
    one, other = Explorer(), Explorer()
    one.matrix[0][0] = 7.0
    one.widths.append(6)
    assert other.matrix == [[1.0, 0.0], [0.0, 1.0]]
    assert (other.widths, other.point, other.known) == ([5], [], None)
    assert (other.share, other.step, other.chosen, other.fixed) == (0.5, 0, 0, 1)


@pytest.mark.parametrize(
    ("name", "given", "held"),
    [
        ("share", 1, 1.0),
        ("share", 0, 0.0),
        ("share", np.float32(0.25), 0.25),
        ("share", np.int64(1), 1.0),
        ("free", -1e300, -1e300),
        ("known", None, None),
        ("known", 3, 3.0),
        ("step", 3, 3),
        ("step", np.int32(2), 2),
        ("step", torch.tensor(2), 2),
        ("step", True, 1),
        ("chosen", np.uint8(2), 2),
        ("fixed", 3, 3),
        ("matrix", ((1, 2), (3, 4)), [[1.0, 2.0], [3.0, 4.0]]),
        ("matrix", np.arange(4).reshape(2, 2), [[0.0, 1.0], [2.0, 3.0]]),
        ("matrix", torch.eye(2), [[1.0, 0.0], [0.0, 1.0]]),
        ("matrix", [[np.float32(0.5), 0], [True, 1]], [[0.5, 0.0], [1.0, 1.0]]),
        ("point", [], []),
        ("point", [1, 2, 3], [1.0, 2.0, 3.0]),
        ("curves", [[-4, 0.5], [4, 2], [0, 1]], [[-4.0, 0.5], [4.0, 2.0], [0.0, 1.0]]),
        ("widths", (12, 1, 7), [12, 1, 7]),
        ("widths", np.array([3, 4]), [3, 4]),
        ("widths", torch.tensor([3, 4]), [3, 4]),
        ("axes", (2, 0), [2, 0]),
        ("bits", [True, 0, np.int64(1)], [1, 0, 1]),
        ("order", np.array([3, 1, 2]), [3, 1, 2]),
        ("places", [1, 0], [1, 0]),
    ],
)
def test_what_they_hold(name, given, held):
    explorer = Explorer(**{name: given})
    found = getattr(explorer, name)
    assert found == held
    numbers = np.array(found, dtype=object).ravel().tolist()
    assert {type(n) for n in numbers} <= {int, float, type(None)}  # as JSON needs them
    assert type(found) is type(held)
    setattr(explorer, name, found)
    assert getattr(explorer, name) == held


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        ("share", 1.5, "share: expected a number from 0 to 1, got 1.5"),
        ("share", -1e-9, "got -1e-09"),
        ("share", math.nan, "share: expected a number from 0 to 1, got nan"),
        ("share", "0.5", "got '0.5'"),
        ("share", [0.5], "got [0.5]"),
        ("share", None, "got None"),
        ("share", 1 + 0j, "got (1+0j)"),
        ("free", math.inf, "free: expected a finite number, got inf"),
        ("free", np.float64("nan"), "free: expected a finite number, got"),
        ("free", 10**400, "free: expected a finite number, got 1000"),
        ("known", math.nan, "known: expected a finite number, got nan"),
        ("below", 3.01, "below: expected a number from 0 to 3, got 3.01"),
        ("size", 1, "size: expected a whole number from 2 to 9, got 1"),
        ("step", 4, "step: expected a whole number from 0 to 3, got 4"),
        ("step", 1.0, "got 1.0"),
        ("step", "1", "got '1'"),
        ("step", math.nan, "got nan"),
        ("step", None, "got None"),
        ("chosen", 3, "chosen: expected an index from 0 to 2, got 3"),
        ("chosen", -1, "got -1"),
        ("fixed", 4, "fixed: expected an index from 0 to 3, got 4"),
        ("matrix", [[1, 2]], "matrix: expected finite numbers of shape (2, 2), got [[1.0, 2.0]]"),
        ("matrix", [[1, 2], [3]], "expected finite numbers of shape (2, 2), got [[1, 2], [3]]"),
        ("matrix", [[1, 2], [3, math.nan]], "got [[1, 2], [3, nan]]"),
        ("matrix", np.full((2, 2), np.inf), "expected finite numbers of shape (2, 2)"),
        ("matrix", [["1", "2"], ["3", "4"]], "expected finite numbers of shape (2, 2)"),
        ("matrix", [[1, 2], [3, None]], "expected finite numbers"),
        ("matrix", [[1, 2], [3, 1j]], "expected finite numbers"),
        ("matrix", "here", "got 'here'"),
        ("matrix", 3, "got 3"),
        ("matrix", None, "got None"),
        ("matrix", torch.ones(2, 2, requires_grad=True), "expected finite numbers"),
        ("point", [1], "point: expected finite numbers of shape (3,) or an empty list, got [1.0]"),
        ("curves", [[5, 1]] * 3, "curves: expected means from -4 to 4, got [[5.0, 1.0]"),
        ("curves", [[0, 1], [0, 1], [0, 3]], "curves: expected spreads from 0.5 to 2.0"),
        ("widths", [], "widths: expected 1 to 3 whole numbers from 1 to 12, got []"),
        ("widths", [1, 2, 3, 4], "got [1, 2, 3, 4]"),
        ("widths", [0, 3], "got [0, 3]"),
        ("widths", [13], "got [13]"),
        ("widths", [1.5], "got [1.5]"),
        ("widths", [math.nan], "got [nan]"),
        ("widths", 3, "got 3"),
        ("widths", "33", "got '33'"),
        ("widths", [[1, 2], [3]], "got [[1, 2], [3]]"),
        ("widths", np.ones((1, 2), int), "widths: expected 1 to 3 whole numbers"),
        ("axes", [1, 1], "axes: expected 2 whole numbers from 0 to 2, got [1, 1]"),
        ("axes", [0, 3], "got [0, 3]"),
        ("axes", [0, 1, 2], "got [0, 1, 2]"),
        ("pair", [5, 5], "pair: expected two different rows from 0 to 5, got [5, 5]"),
        ("bits", [0, 1], "bits: expected 3 zeros and ones, got [0, 1]"),
        ("bits", [0, 1, 2], "got [0, 1, 2]"),
        ("order", [1, 2, 2], "order: expected each rank from 1 to 3 once, got [1, 2, 2]"),
        ("order", [0, 1, 2], "got [0, 1, 2]"),
        ("order", [1, 2], "got [1, 2]"),
        ("places", [0, 2], "places: expected each number from 0 to 1 once, got [0, 2]"),
    ],
)
def test_what_they_refuse(name, given, message):
    with pytest.raises(TraitError, match=re.escape(message)):
        Explorer(**{name: given})
    explorer = Explorer()
    before = getattr(explorer, name)
    with pytest.raises(TraitError, match=re.escape(message)):
        setattr(explorer, name, given)
    assert getattr(explorer, name) == before


@pytest.mark.parametrize("turn", [1, -1])
def test_attributes_that_are_given_together_come_in_any_order(turn):
    given = {"size": 5, "step": 5, "order": [5, 4, 3, 2, 1], "bits": [1] * 5, "point": [0] * 5}
    assert Explorer(**dict(list(given.items())[::turn])).step == 5
    explorer = Explorer()
    with explorer.hold_trait_notifications():
        for name in list(given)[::turn]:
            setattr(explorer, name, given[name])
    assert explorer.order == [5, 4, 3, 2, 1]
    with pytest.raises(TraitError, match="step: "), explorer.hold_trait_notifications():
        explorer.step = 6
    assert explorer.step == 5


def test_a_validator_of_the_explorer_comes_after_that_of_the_trait():
    class Even(traitlets.HasTraits):
        number = Whole(0, low=0, high=8)

        @traitlets.validate("number")
        def _even(self, proposal):
            return 2 * (proposal.value // 2)

    assert Even(number=np.int64(7)).number == 6
    with pytest.raises(TraitError, match="from 0 to 8, got 9"):
        Even(number=9)


# --- options that an explorer does not have -----------------------------------------------


@pytest.mark.parametrize("name", sorted(set(widgets.__all__) - {"Explorer"}))
def test_an_option_that_is_not_there(name):
    explorer = getattr(widgets, name)
    with pytest.raises(TypeError, match=f"{name}: there is no option 'sidee'; the options are "):
        explorer(sidee=2)


def test_the_error_names_the_options():
    def options(explorer):
        with pytest.raises(TypeError) as caught:
            explorer(nothing=None)
        return str(caught.value).split("the options are ")[1].split(", ")

    assert sorted(options(WarpExplorer)) == sorted(WarpExplorer().state())
    assert sorted(options(MaskExplorer)) == sorted(MaskExplorer().state())
    assert sorted(options(JacobianExplorer)) == sorted(
        ["flow", "x", "names", "order", "point", "step", "composed", "sort", "axes", "custom"]
    )
    model = ["model", "pictures", "shape", "labels"]
    moving = ["pixels", "given", "painted", "seed", "chosen", "known", "pixel", "mean"]
    assert sorted(options(CompletionExplorer)) == sorted(model + moving)


def test_a_widgets_own_options_are_there():
    explorer = WarpExplorer(layout={"width": "50%"}, side=0.5)
    assert (explorer.layout.width, explorer.side) == ("50%", 0.5)
