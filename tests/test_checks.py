"""flowlib.checks: a check that cannot fail is refused."""

import pytest
import torch

from flowlib import holds


def sides(n=100):
    x = torch.rand(n, 3, dtype=torch.float64) + 0.5
    return (x * x).log().sum(1), 2 * x.log().sum(1)


def test_it_says_what_holds_and_not_how_closely(capsys):
    holds("9.9", *sides(), tol=1e-11)
    assert capsys.readouterr().out == "(9.9) holds on 100 random cases, to 1e-11.\n"


@pytest.mark.parametrize("which", [0, 1])
def test_one_wrong_case_is_named(which):
    both = list(sides())
    both[which] = both[which].clone()
    both[which][17] += 1e-6
    with pytest.raises(AssertionError, match=r"\(9.9\) does not hold: at \[17\]"):
        holds("9.9", *both)


def test_what_is_no_check_is_refused():
    lhs, rhs = sides()
    for arguments, message in [
        ((lhs, lhs), "one tensor under two names"),
        ((lhs[:, None], lhs[:, None][:]), "one tensor under two names"),
        ((lhs.float(), rhs), "the left side is float32"),
        ((lhs, rhs[:, None]), "differ in shape"),
        ((lhs[:99], rhs[:99]), "at least 100 cases"),
        ((lhs.sum(), rhs.sum()), "at least 100 cases"),
        ((lhs * torch.inf, rhs), "not finite"),
        ((0 * lhs, 0 * rhs), "proves nothing"),
    ]:
        with pytest.raises(ValueError, match=message):
            holds("9.9", *arguments)


def test_a_tolerance_that_forgives_is_refused():
    lhs, rhs = sides()
    with pytest.raises(ValueError, match="proves nothing, it passes with one side 1 % off"):
        holds("9.9", lhs, rhs, tol=0.1)
