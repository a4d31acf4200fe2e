"""RouletteExplorer in a real browser: its draws, its values and its variance are Python's."""

import itertools
import math

import numpy as np
import pytest
import torch
from traitlets import TraitError

from flowlib import RussianRoulette
from flowlib.widgets import RouletteExplorer
from tests import browser
from tests.browser import solved, state
from tests.test_completion import mulberry

in_browser = pytest.mark.browser
FAIR = [[0.9, 0], [0.6, 0]]


def random_eigenvalues(rng, largest=0.98):
    size, other = largest * rng.uniform(0, 1, 2) ** 0.5
    if rng.random() < 0.5:
        return [[size * rng.choice([-1, 1]), 0], [other * rng.choice([-1, 1]), 0]]
    a, b = size * np.cos(angle := rng.uniform(0, math.pi)), size * np.sin(angle)
    return [[a, b], [a, -b]]


def random_state(rng):
    return {
        "eigenvalues": random_eigenvalues(rng), "p": round(rng.uniform(0.02, 0.95), 3),
        "n_exact": int(rng.integers(11)), "probes": int(rng.integers(1, 9)),
        "draws": int(rng.integers(1, 2001)), "seed": int(rng.integers(2**31)),
    }  # fmt: skip


LOOK = f"""(e) => {{
  const {{ last, terms, counts, prices, half }} = e.dataset;
  const numbers = (text) => (text === "" ? [] : text.split(",").map(Number));
  return {{
    ...({browser.READOUTS})(e), say: e.querySelector(".fl-say").textContent, last: Number(last),
    terms: Number(terms), counts: numbers(counts), prices: numbers(prices), half: Number(half),
    verdict: e.querySelector(".fl-task:not([hidden]) .fl-verdict").textContent,
  }};
}}"""


# --- the page's numbers ---------------------------------------------------------------------


@in_browser
def test_every_number_is_pythons(watch):
    rng = np.random.default_rng(0)
    states = [random_state(rng) for _ in range(120)]
    states += [
        {"eigenvalues": [[0, 0], [0, 0]], "p": 0.5, "draws": 5},
        {"eigenvalues": [[0.98, 0], [0.98, 0]], "p": 0.02, "draws": 2000},
        {"eigenvalues": [[0.9, 0], [0, 0]], "p": 0.19, "n_exact": 0},  # on the circle
        {"eigenvalues": FAIR, "p": 0.4, "n_exact": 0, "draws": 1},  # 2.5 terms
        {"eigenvalues": [[-0.98, 0], [-0.98, 0]], "p": 0.95, "n_exact": 10},
    ]
    explorer = browser.alone(watch(), RouletteExplorer())
    infinite, shown = 0, browser.each(explorer, states, LOOK)
    python = RouletteExplorer()
    for given, got in zip(states, shown, strict=True):
        for name, value in given.items():
            setattr(python, name, value)
        close = {"rel": 1e-9, "abs": 1e-9}
        mean, error = python.mean()
        n, _ = python.throw()
        x = python.estimates()
        assert got["rho"] == pytest.approx(python.rho, **close)
        assert got["radius"] == pytest.approx(math.sqrt(1 - python.p), **close)
        assert got["exact"] == pytest.approx(python.exact, **close)
        assert got["truncated"] == pytest.approx(python.truncated(), **close)
        assert got["bias"] == pytest.approx(python.truncated() - python.exact, **close)
        assert f"{python.n_terms} terms" in got["say"] or math.isinf(got["variance"])
        assert (got["terms"], got["spent"]) == (n[-1], python.spent)
        assert got["last"] == pytest.approx(x[-1], **close)
        assert got["mean"] == pytest.approx(mean, **close)
        assert got["error"] == pytest.approx(error, nan_ok=True, **close)
        assert got["cost"] == pytest.approx(python.expected_products, **close)
        assert got["variance"] == pytest.approx(python.variance(), rel=1e-8, abs=1e-12)
        assert math.isinf(got["variance"]) == (1 - python.p < python.rho**2 - 1e-12)
        assert ("infinite" in got["say"]) == math.isinf(got["variance"])
        infinite += math.isinf(got["variance"])
    assert 20 < infinite < 100


@in_browser
def test_the_curve_is_cost_times_variance(watch):
    rng = np.random.default_rng(1)
    states = [random_state(rng) for _ in range(12)]
    explorer = browser.alone(watch(), RouletteExplorer())
    for given, got in zip(states, browser.each(explorer, states, LOOK), strict=True):
        python = RouletteExplorer(**given)
        curve = np.array(got["prices"]).reshape(-1, 2)
        assert (curve[0, 0], curve[-1, 0]) == pytest.approx((0.02, 0.95))
        wall = 1 - python.rho**2
        for p, price in curve[::10]:
            if abs(p - wall) > 1e-9:
                assert price == pytest.approx(python.price(p), rel=1e-8, abs=1e-12)
                assert math.isinf(price) == (p > wall)


@in_browser
def test_the_histogram_counts_the_draws(watch):
    rng = np.random.default_rng(2)
    states = [{**random_state(rng), "view": "tail"} for _ in range(20)]
    explorer = browser.alone(watch(), RouletteExplorer())
    far = 0
    for given, got in zip(states, browser.each(explorer, states, LOOK), strict=True):
        python = RouletteExplorer(**given)
        x = (python.estimates() - python.exact) / got["half"]
        edges = [-np.inf, *np.linspace(-1, 1, 17), np.inf]
        near = abs(x[:, None] - np.linspace(-1, 1, 17)).min() < 1e-9  # falls on either side
        assert sum(got["counts"]) == python.draws
        assert near or got["counts"] == np.histogram(x, edges)[0].tolist()
        far += got["counts"][0] + got["counts"][-1]
        away = np.sort(abs(x))
        assert away[int(0.8 * (len(x) - 1))] < 1 or len(x) < 50
    assert far > 20


# --- Python's numbers -----------------------------------------------------------------------


def quadratic(explorer, count):
    """``v^T J^k v``, ``(count, 4)``, by products with the matrix."""
    v = np.array(list(itertools.product([1, -1], repeat=2)), dtype=float)
    w, found = v, []
    for _ in range(count):
        w = w @ explorer.matrix()
        found.append((w * v).sum(1))
    return np.array(found)


def test_the_matrix_has_its_eigenvalues_and_its_log_determinant():
    rng = np.random.default_rng(3)
    for _ in range(50):
        python = RouletteExplorer(eigenvalues=random_eigenvalues(rng))
        J = python.matrix()
        found = np.sort_complex(np.linalg.eigvals(J))
        given = np.sort_complex([complex(*one) for one in python.eigenvalues])
        assert found == pytest.approx(given, abs=1e-7)
        assert python.rho == pytest.approx(abs(given).max())
        assert python.exact == pytest.approx(np.linalg.slogdet(np.eye(2) + J)[1])


@pytest.mark.parametrize(
    ("eigenvalues", "p", "n_exact", "probes"),
    [
        ([[0.5, 0], [-0.3, 0]], 0.5, 0, 1),
        ([[0.5, 0.4], [0.5, -0.4]], 0.3, 2, 3),
        ([[-0.8, 0], [0.2, 0]], 0.2, 1, 2),
        ([[0.3, 0], [0.3, 0]], 0.7, 4, 8),
    ],
)
def test_the_variance_is_the_double_sum_over_all_probes_and_lengths(
    eigenvalues, p, n_exact, probes
):
    """And the mean of all that can happen is the exact value."""
    python = RouletteExplorer(eigenvalues=eigenvalues, p=p, n_exact=n_exact, probes=probes)
    count = 250
    k = np.arange(1, count + 1)
    survival = np.array([python.survival(i) for i in k])
    a = ((-1.0) ** (k + 1) / k)[:, None] * quadratic(python, count)
    both = survival[np.maximum.outer(k, k) - 1] / np.outer(survival, survival)
    one = a @ a.T / 4  # the mean over the probes of a product
    two = np.outer(a.mean(1), a.mean(1))  # of two independent probes
    mean = a.mean(1).sum()
    second = (both * (one / probes + two * (1 - 1 / probes))).sum()
    assert mean == pytest.approx(python.exact, abs=1e-9)
    assert python.variance() == pytest.approx(second - mean**2, rel=1e-6)
    assert python.price() == pytest.approx(python.variance() * python.expected_products)


def test_draws_are_right_on_average_and_as_scattered_as_the_variance_says():
    for eigenvalues in ([[0.6, 0], [-0.5, 0]], [[0.3, 0.6], [0.3, -0.6]], [[-0.7, 0], [0.2, 0]]):
        for p, n_exact, probes in ((0.2, 0, 1), (0.3, 3, 2), (0.25, 1, 8)):
            python = RouletteExplorer(
                eigenvalues=eigenvalues, p=p, n_exact=n_exact, probes=probes, draws=2000, seed=7
            )
            mean, error = python.mean()
            assert abs(mean - python.exact) < 4 * error
            assert error**2 * 2000 == pytest.approx(python.variance(), rel=0.5)
            assert python.spent / 2000 == pytest.approx(python.expected_products, rel=0.06)


def test_a_draw_is_the_weighted_series_of_its_probes():
    python = RouletteExplorer(
        eigenvalues=[[0.4, 0.5], [0.4, -0.5]], p=0.3, n_exact=1, probes=3, draws=50, seed=11
    )
    n, v = python.throw()
    for estimate, terms, probes in zip(python.estimates(), n, v, strict=True):
        w, total = probes.astype(float), 0.0
        for k in range(1, terms + 1):
            w = w @ python.matrix()
            total += (-1) ** (k + 1) / k * (w * probes).sum(1).mean() / python.survival(k)
        assert estimate == pytest.approx(total)


@pytest.mark.parametrize("seed", [0, 5, 2**31 - 1])
def test_the_coin_and_the_probes_are_mulberry32s(seed):
    python = RouletteExplorer(p=0.1, n_exact=3, probes=8, draws=300, seed=seed)
    n, v = python.throw()
    for i in range(300):
        coin, *signs = (mulberry(seed, 9 * i + j) for j in range(9))
        N = 1 + math.floor(math.log(coin + 2**-33) / math.log(0.9))
        assert n[i] == 3 + N
        assert v[i].tolist() == [[1 - 2 * (u >= 0.5), 1 - 2 * (4 * u % 2 >= 1)] for u in signs]
    assert abs(v.mean()) < 0.05
    assert abs((v[..., 0] * v[..., 1]).mean()) < 0.05


@pytest.mark.parametrize(("p", "n_exact", "probes"), [(0.5, 0, 1), (0.25, 2, 3), (0.9, 10, 8)])
def test_its_roulette_is_flowlibs(p, n_exact, probes):
    python = RouletteExplorer(p=p, n_exact=n_exact, probes=probes)
    flowlib = RussianRoulette(p, n_exact, probes).train()
    assert python.expected_products == pytest.approx(flowlib.expected_products)
    for k in range(1, 40):
        assert python.survival(k) == pytest.approx(flowlib.survival(k))
    # and the value of one draw of given length and probes
    python.draws, python.seed = 20, 3
    J = torch.from_numpy(python.matrix())
    for n, v, estimate in zip(*python.throw(), python.estimates(), strict=True):
        probe = torch.from_numpy(v).double()[:, None]  # (probes, batch, D)
        value, _ = flowlib.walk(int(n), probe, probe @ J.T, lambda w: w @ J)
        assert float(value[0]) == pytest.approx(estimate)


def test_where_the_variance_ends():
    """Outside the circle it is infinite; on it the terms' 1 / k still keep it finite."""
    python = RouletteExplorer(eigenvalues=FAIR)
    on = python.variance(1 - 0.9**2)
    assert python.variance(0.1901) == math.inf
    assert python.variance(0.1899) < on < 1.01 * python.variance(0.1899)
    with_more = RouletteExplorer(eigenvalues=FAIR, n_exact=10)
    assert with_more.variance(0.1901) == math.inf
    assert python.price(python.cheapest()) <= min(python.price(p) for p in (0.05, 0.1, 0.15))
    still = RouletteExplorer(eigenvalues=[[0, 0], [0, 0]])
    assert (still.variance(), still.exact, still.truncated()) == (0, 0, 0)


# --- what hands do --------------------------------------------------------------------------


def two(explorer):
    a, b, c, d = state(explorer, "eigenvalues")
    return [[a, b], [c, d]]


@in_browser
def test_two_real_eigenvalues_become_a_pair_off_the_axis_and_part_on_it(watch):
    one = watch()
    explorer = browser.alone(one, RouletteExplorer())
    first = explorer.locator('[data-handle="eigenvalue-1"]')
    browser.drag(one.page, first, 20, 0)
    (a, b), other = two(explorer)
    assert b == 0
    assert a > 0.55
    assert other == [-0.2, 0]
    browser.drag(one.page, first, -10, -30)
    (a, b), (c, d) = two(explorer)
    assert b > 0.25
    assert (c, d) == (a, -b)
    browser.drag(one.page, explorer.locator('[data-handle="eigenvalue-2"]'), 500, 500)
    (a, b), (c, d) = two(explorer)
    assert (c, d) == (a, -b)
    assert d < -0.5
    assert math.hypot(a, b) == pytest.approx(0.98)
    RouletteExplorer(eigenvalues=two(explorer))
    height = explorer.locator("svg").first.bounding_box()["height"]
    browser.drag(one.page, first, -20, b * height / 2.2)
    (a, b), (c, d) = two(explorer)
    assert (b, d) == (0, 0)
    assert a == c
    browser.drag(one.page, explorer.locator('[data-handle="eigenvalue-2"]'), -30, 0)  # on top
    assert two(explorer)[0] == [a, 0]
    assert two(explorer)[1][0] < a - 0.2


@in_browser
def test_keys_take_eigenvalues_off_the_axis_and_back(watch):
    explorer = browser.alone(watch(), RouletteExplorer())
    second = explorer.locator('[data-handle="eigenvalue-2"]')
    second.press("ArrowRight")
    assert two(explorer) == [[0.4, 0], [-0.15, 0]]
    second.press("ArrowDown")
    assert two(explorer) == [[-0.15, 0.1], [-0.15, -0.1]]
    second.press("Shift+ArrowDown")
    assert two(explorer) == [[-0.15, 0.35], [-0.15, -0.35]]
    assert second.get_attribute("aria-valuetext") == "−0.15 − 0.35i"
    for _ in range(6):
        second.press("ArrowUp")
    assert two(explorer) == [[-0.15, 0], [-0.15, 0]]
    second.press("ArrowUp")
    assert two(explorer)[1] == [-0.15, 0.1]


@in_browser
def test_a_finger_moves_p_along_its_curve_and_the_circle_goes_with_it(watch):
    one = watch(width=390, has_touch=True, is_mobile=True)
    explorer = browser.alone(one, RouletteExplorer())
    browser.swipe(one, explorer.locator('[data-handle="p"]'), -50, 0)
    p = state(explorer, "p")
    assert 0.05 < p < 0.35
    assert browser.readouts(explorer)["radius"] == pytest.approx(math.sqrt(1 - p))
    browser.swipe(one, explorer.locator('[data-handle="p"]'), 300, 0)
    assert state(explorer, "p") == 0.95
    explorer.locator('[data-handle="p"]').press("ArrowLeft")
    assert state(explorer, "p") == 0.94


@in_browser
def test_draws_fall_in_by_buttons_and_by_play(watch):
    explorer = browser.alone(watch(), RouletteExplorer(draws=5))
    explorer.locator('[data-action="one"]').click()
    assert state(explorer, "draws") == 6
    explorer.locator('[data-action="hundred"]').click()
    assert state(explorer, "draws") == 106
    before = browser.readouts(explorer)["mean"]
    explorer.locator('[data-action="anew"]').click()
    assert state(explorer, "seed", "draws") == [1, 106]
    assert browser.readouts(explorer)["mean"] != before
    play = explorer.locator('[data-action="play"]')
    play.click()
    explorer.page.wait_for_function(
        "Number(document.querySelector('.fl-explorer').dataset.draws) > 150"
    )
    play.click()
    there = state(explorer, "draws")
    explorer.page.wait_for_timeout(200)
    assert state(explorer, "draws") == there
    assert play.text_content() == "play"
    explorer.locator('[data-action="reset"]').click()
    assert state(explorer, "draws", "seed") == [5, 0]
    browser.put_sliders(explorer, {"draws": 1990})
    play.click()
    explorer.page.wait_for_function(
        "document.querySelector('.fl-explorer').dataset.draws == '2000'"
    )
    assert play.text_content() == "play"


@in_browser
def test_who_wants_calm_gets_a_hundred_at_a_time(watch):
    explorer = browser.alone(watch(reduced_motion="reduce"), RouletteExplorer(draws=10))
    explorer.locator('[data-action="play"]').click()
    explorer.page.wait_for_function(
        "Number(document.querySelector('.fl-explorer').dataset.draws) > 10"
    )
    assert (state(explorer, "draws") - 10) % 100 == 0


@in_browser
def test_no_preset_solves_a_task_and_other_eigenvalues_solve_none(watch):
    explorer = browser.alone(watch(), RouletteExplorer())
    for turn in (0, 1):
        explorer.locator(f'[data-turn="{turn}"]').click()
        for preset in explorer.locator("[data-preset]").all():
            preset.click()
            assert not solved(explorer)
            assert "given" not in explorer.locator(".fl-verdict:visible").inner_text()
        for p in (0.02, 0.05, 0.1, 0.15, 0.5):
            browser.each(explorer, [{"eigenvalues": [[0.2, 0], [0.1, 0]], "p": p}], LOOK)
            assert not solved(explorer)


@in_browser
def test_the_tasks_are_judged_by_the_exact_variance(watch):
    grid = itertools.product((0.03, 0.06, 0.1, 0.14, 0.18, 0.3), (0, 2, 4, 7), (1, 2))
    states = [{"eigenvalues": FAIR, "p": p, "n_exact": n, "probes": m} for p, n, m in grid]
    explorer = browser.alone(watch(), RouletteExplorer())
    done = []
    for turn in (0, 1):
        shown = browser.each(explorer, [{**one, "turn": turn} for one in states], LOOK)
        for given, got in zip(states, shown, strict=True):
            python = RouletteExplorer(**given)
            enough = 2 * math.sqrt(python.price() / 2000) <= 0.01
            near = python.price() <= 1.05 * python.price(python.cheapest())
            is_done = (enough, near and python.price() < math.inf)[turn]
            assert is_done == ("Done" in got["verdict"] or "given" in got["verdict"]), given
            done.append(is_done)
    assert 5 < sum(done) < 50


@in_browser
def test_the_least_is_shown_when_it_is_found(watch):
    explorer = browser.alone(watch(), RouletteExplorer(turn=1))
    goal = explorer.locator('svg circle[r="5"]')
    explorer.locator('[data-preset="fair coin"]').click()
    assert not goal.is_visible()
    browser.put_sliders(explorer, {"p": 0.09})
    assert solved(explorer)
    assert goal.is_visible()


@in_browser
@pytest.mark.parametrize("guess", ["bias", "deviation", "both"])
def test_what_was_expected_is_answered_outside_the_circle(watch, guess):
    explorer = browser.alone(watch(), RouletteExplorer())
    explorer.locator(f'[data-guess="{guess}"]').click()
    browser.settle(explorer)
    say = explorer.locator(".fl-say")
    assert "You said" not in say.text_content()
    browser.each(explorer, [{"eigenvalues": FAIR}], LOOK)
    words = "so it is" if guess == "deviation" else "the deviation alone"
    assert words in say.text_content()


@in_browser
def test_it_redraws_within_a_frame_with_all_draws(watch):
    explorer = browser.alone(watch(), RouletteExplorer(draws=2000, n_exact=10, probes=8))
    took = explorer.evaluate(
        """async (e) => {
          const times = [];
          for (let k = 0; k < 30; k++) {
            e.model.set("eigenvalues", [[0.95 - k / 100, 0], [0.3, 0]]);
            e.model.set("p", 0.05 + k / 100);
            const frame = await new Promise((r) => requestAnimationFrame(r));
            times.push(performance.now() - frame);
          }
          return times.sort((a, b) => a - b)[15];
        }"""
    )
    assert took < 60  # a frame and more, for machines that share their cores


@in_browser
def test_a_link_may_say_anything(watch):
    """What a stranger's link says is drawn as far as it can be."""
    explorer = browser.alone(watch(), RouletteExplorer())
    states = [
        {"eigenvalues": [], "p": 0, "draws": 10**9, "n_exact": 10**9, "probes": -3},
        {"eigenvalues": [[7, 7], [1, 2]], "p": 1, "draws": 0.5},
    ]
    for got in browser.each(explorer, states, LOOK):
        assert got["rho"] <= 0.98 + 1e-9
        assert math.isfinite(got["mean"])


# --- what is refused ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("traits", "message"),
    [
        ({"eigenvalues": [[0.5, 0.2], [0.5, 0.2]]}, "conjugate pair"),
        ({"eigenvalues": [[0.5, 0.2], [0.4, -0.2]]}, "conjugate pair"),
        ({"eigenvalues": [[0.5, 0], [0.5, 0.1]]}, "conjugate pair"),
        ({"eigenvalues": [[0.8, 0.7], [0.8, -0.7]]}, "at most 0.98"),
        ({"eigenvalues": [[1, 0], [0, 0]]}, "real parts from -0.98"),
        ({"eigenvalues": [0.5, 0.2]}, "shape"),
        ({"p": 0.01}, "p"),
        ({"p": 1}, "p"),
        ({"n_exact": 11}, "n_exact"),
        ({"probes": 0}, "probes"),
        ({"draws": 0}, "draws"),
        ({"draws": 2001}, "draws"),
        ({"seed": -1}, "seed"),
        ({"view": "curve"}, "view"),
        ({"turn": 2}, "turn"),
        ({"guess": "neither"}, "guess"),
    ],
)
def test_what_it_cannot_draw_is_refused(traits, message):
    with pytest.raises(TraitError, match=message):
        RouletteExplorer(**traits)


def test_there_is_no_such_option():
    with pytest.raises(TypeError, match="no option 'rho'"):
        RouletteExplorer(rho=0.9)


def test_what_stands_under_the_picture():
    python = RouletteExplorer(eigenvalues=FAIR, draws=1, turn=1)
    assert "is infinite, and" in python.reading
    assert "One draw has the mean" in python.reading
    assert "standard error of" not in python.reading
    tail = RouletteExplorer(view="tail", eigenvalues=FAIR, draws=2000)
    assert "histogram" in tail.caption
    assert "inf" not in tail.still()
