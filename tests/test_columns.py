"""What is wrong with columns is said by name, and nothing is said of columns that are right."""

import math
import re
import warnings

import numpy as np
import pytest
import torch
from sklearn import datasets as tables

from flowlib import BernoulliMADE, Flow, LULinear, RealNVP, StandardNormal, datasets, fit
from flowlib.columns import context_faults, faults, shared
from flowlib.trained import noisy_digits

COLUMNS = 24


def smooth(n: int, columns: int = COLUMNS, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, columns, generator=torch.Generator().manual_seed(seed))


# --- what has no density ------------------------------------------------------------------------


def plant(kind: str, x: torch.Tensor) -> str:
    """Spoil columns of ``x`` in place; what is to be said of them, as a pattern."""
    n, draw = len(x), torch.Generator().manual_seed(1)
    uniform = torch.rand(n, generator=draw)
    if kind == "constant":
        x[:, 0] = 7.25
        return r"column 0 never varies: drop it"
    if kind == "copy":
        x[:, 2] = 32 + 1.8 * x[:, 1]
        return r"column 2 is a copy of column 1, perhaps in other units: drop it"
    if kind == "sum":
        x[:, 5] = x[:, 3] + 2 * x[:, 4]
        return r"columns 3, 4 and 5 are bound by an exact linear equation.*: drop one of them"
    if kind == "shares":
        x[:, 6:9] = x[:, 6:9].softmax(1)
        return r"columns 6, 7 and 8 are bound by an exact linear equation.*: drop one of them"
    if kind == "one-hot":
        x[:, 9:12] = torch.eye(3)[(3 * uniform).long()]
        return r"columns 9, 10 and 11 are a one-hot code of 3 classes: .*context"
    if kind == "whole numbers":
        x[:, 12] = (5 * uniform).floor() + 1
        return r"column 12 takes only 5 values, whole numbers from 1 to 5: .*Dequantize\(6\)"
    if kind == "bytes":
        x[:, 13] = (256 * uniform).floor() / 255
        return r"column 13 takes only \d+ values, multiples of 1/255: .*Dequantize\(256\)"
    if kind == "few values":
        x[:, 14] = torch.tensor([-0.3, 0.41, 2.7, 9.9])[(4 * uniform).long()]
        return r"column 14 takes only 4 values: add uniform noise"
    if kind == "zeros":
        x[:, 15] *= uniform > 0.99
        return r"column 15 is 0 in 9[89]\S* % of rows"
    if kind == "clipped at both ends":
        x[:, 16] = x[:, 16].clamp(-1, 1)
        return r"column 16 is -?1 in 1\S* % of rows"
    if kind == "sentinel":
        x[: max(3, n // 200), 17] = -9999
        return rf"column 17 is -9999 in {max(3, n // 200)} rows, far from all"
    if kind == "sentinel above":
        x[:, 18] *= 1000
        x[-3:, 18] = 1e5
        return r"column 18 is 100000 in 3 rows, far from all"
    assert kind == "outlier"
    x[n // 3, 19] = -1e6
    return r"1 row of column 19 \(-1e\+06\) lies [5-9]e\+05 interquartile ranges"


KINDS = (
    "constant", "copy", "sum", "shares", "one-hot", "whole numbers", "bytes", "few values", "zeros",
    "clipped at both ends", "sentinel", "sentinel above", "outlier",
)  # fmt: skip


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("n", [200, 2000, 50000])
@pytest.mark.parametrize("kind", KINDS)
def test_a_fault_is_said_once_and_nothing_else(kind, n, dtype):
    x = smooth(n)
    pattern = plant(kind, x)
    (said,) = faults(x.to(dtype))
    assert re.search(pattern, said), said
    assert not faults(x[:, 20:])  # the rest


@pytest.mark.parametrize("n", [200, 2000, 50000])
def test_faults_together_are_all_said(n):
    x = smooth(n)
    patterns = [plant(kind, x) for kind in KINDS]
    order = torch.randperm(n, generator=torch.Generator().manual_seed(2))
    said = faults(x[order])
    for pattern in patterns:
        pattern = pattern.replace(", far", ".* far")  # two sentinels share a sentence
        assert sum(bool(re.search(pattern, sentence)) for sentence in said) == 1, pattern
    assert len(said) == len(KINDS) - 2
    named = [c for s in said for c in re.findall(r"\d+", " ".join(re.findall(NAMED, s)))]
    assert sorted(map(int, named)) == list(range(20))  # each once, the original of the copy too


NAMED = r"columns? (?:\d+, )*\d+(?: and \d+\b)?(?! rows)"


def test_columns_go_by_their_names_and_places():
    x = smooth(100, 12)
    x[:, 3:] = 1
    assert faults(x) == ["columns 3, 4, 5, 6 and 5 more never vary: drop them"]
    assert faults(x[:, :4], ["a", "b", "c", "site"]) == ["column 'site' never varies: drop it"]
    assert (
        "pixels (0, 0, 3), (0, 1, 0), (0, 1, 1), (0, 1, 2) and 5 more"
        in faults(x.reshape(100, 1, 3, 4))[0]
    )
    assert faults(x[:, :4].reshape(100, 2, 2)) == ["entry (1, 1) never varies: drop it"]
    x = x[:, :6].reshape(100, 3, 2)
    assert faults(x) == ["entries (1, 1), (2, 0) and (2, 1) never vary: drop them"]
    with pytest.raises(ValueError, match="expected 6 names, one for each column, got 2"):
        faults(x, ["a", "b"])


def test_contexts_have_to_vary_and_not_too_far():
    x = smooth(100, 5)
    x[:, 1], x[:, 3], x[::30, 2], x[7, 0] = 0, 1e30, -9999, 1e6
    assert [said.split(":")[0] for said in context_faults(x)] == [
        "of the context, columns 1 and 3 never vary",
        "of the context, column 2 is -9999 in 4 rows, far from all other values",
        "of the context, 1 row of column 0 (1e+06) lies 8e+05 interquartile ranges from the median",
    ]
    assert "'b' and 'd' never vary: nothing can be" in context_faults(x[:2], list("abcde"))[0]
    assert context_faults(x[:1]) == context_faults(x[:, :0]) == []
    assert context_faults(torch.eye(3)[torch.arange(300) % 3]) == []  # which has no density
    with pytest.raises(ValueError, match="expected 5 names"):
        context_faults(x, ["a"])


def test_equations_are_told_apart_and_counted():
    x = smooth(2000, 10)
    x[:, 2] = x[:, 0] - x[:, 1]
    x[:, 5] = 3 * x[:, 3] + 100  # a copy, which no equation names again
    x[:, 6:9] = x[:, [4, 4, 9]] * torch.tensor([1.0, -2.0, 1.0]) + x[:, [3, 9, 3]]
    said = faults(x)
    assert len(said) == 3
    assert "column 5 is a copy of column 3" in said[0]
    assert "columns 0, 1 and 2 are bound by an exact linear equation," in said[1]
    assert re.search(r"3, 4, 6, 7 and 2 more.* by 3 exact linear equations.*drop 3", said[2])


def test_an_equation_with_a_one_hot_code_or_one_of_noise():
    x = smooth(2000, 6)
    x[:, :3] = torch.eye(3)[torch.arange(2000) % 3]
    assert len(faults(x)) == 1
    x[:, 4] = x[:, 5] + x[:, 0] - x[:, 2]
    code, equation = faults(x)
    assert "one-hot" in code
    assert "4 and 5 are bound by an exact linear equation," in equation
    x[:, 4] += 1e-3 * x[:, 3].sin()
    assert len(faults(x)) == 1


def test_whole_numbers_that_add_up_are_said_to_be_whole():
    """Noise, which they need, ends the equation."""
    x = torch.randint(0, 4, (500, 3), generator=torch.Generator().manual_seed(0)).float()
    x[:, 2] = x[:, 0] + x[:, 1]
    (said,) = faults(x)
    assert "columns 0, 1 and 2 take at most 7 values, whole numbers from 0 to 6" in said


def test_columns_far_out_in_the_same_rows_are_no_copies():
    x = smooth(2000, 3)
    x[:2] = 1e9
    (said,) = faults(x)
    assert "2 rows of column 0 (1e+09), 2 rows of column 1" in said
    assert "lie up to" in said


def test_one_hot_codes_side_by_side_and_standardised():
    place = torch.arange(3000)
    flags = ((place % 5 < 2) & (place % 3 > 0)).float()[:, None]  # at odds with a later class
    first, second = torch.eye(3)[place % 3], torch.eye(4)[place // 3 % 4]
    x = torch.cat([flags, first, second, smooth(3000, 1)], 1)
    for y in (x, (x - x.mean(0)) / x.std(0)):
        said = faults(y)
        assert "columns 1, 2 and 3 are a one-hot code of 3 classes" in said[0]
        assert "columns 4, 5, 6 and 7 are a one-hot code of 4 classes" in said[1]
        assert "column 0 takes only 2 values" in said[2]
        assert len(said) == 3


def test_a_class_that_the_sample_lacks_and_a_gap_that_only_it_has():
    n = 200_000
    x = smooth(n, 4)
    x[:, :3] = torch.eye(3)[torch.arange(n) % 2]
    x[1, :3] = torch.tensor([0.0, 0.0, 1.0])
    x[5::20_000, 3] = torch.linspace(-95, -4, 10)
    x[3::70_000, 3] = -100
    (said,) = faults(x)
    assert "columns 0, 1 and 2 are a one-hot code" in said


@pytest.mark.parametrize("n", [40, 50, 60])
def test_fewer_rows_than_columns_have_no_equations(n):
    assert not faults(smooth(n, 50))


def test_nothing_but_faults():
    place = torch.arange(300)
    assert faults(torch.ones(50, 3)) == ["columns 0, 1 and 2 never vary: drop them"]
    for classes in (2, 3, 60):
        (said,) = faults(torch.eye(classes)[place % classes])
        assert f"are a one-hot code of {classes} classes" in said
    (said,) = faults((place % 4).float())
    assert "column 0 takes only 4 values, whole numbers from 0 to 3" in said
    (said,) = faults((place % 4 - 2).float())
    assert "Dequantize" not in said  # which takes no negative numbers


def test_rare_values_among_zeros_are_no_lattice():
    x = smooth(2000, 2)
    x[20:, 0] = 0
    (said,) = faults(x)
    assert "column 0 is 0 in 99 % of rows" in said


@pytest.mark.parametrize("rows", [40, 1258])
def test_pictures_without_noise_are_said_as_a_whole(rows):
    levels = datasets.digit_images()[0].train[:rows].float()
    (said,) = faults(levels)  # the dark corners are no constants, but pixels of 17 levels
    assert "and 60 more take only 17 values, whole numbers from 0 to 16" in said
    assert "flowlib.Dequantize(17)" in said
    (said,) = faults(levels.flatten(1) / 16)
    assert "multiples of 1/16: multiply by 16" in said
    (said,) = faults(levels / 8 - 1)
    assert "take only 17 values: add uniform noise as wide as the steps" in said
    assert len(faults(datasets.binary_digits()[0].train[:rows])) == 1


def test_grey_pictures_in_three_channels_are_copies():
    grey = noisy_digits(datasets.digit_images()[0].train)
    (said,) = faults(grey.expand(-1, 3, -1, -1))
    assert said.startswith("pixels (1, 0, 0), (1, 0, 1), (1, 0, 2), (1, 0, 3) and 124 more are cop")


def test_constant_pixels_of_noisy_pictures():
    x = noisy_digits(datasets.digit_images()[0].train)
    x[:, 0, 0, 0] = 0.5
    assert faults(x) == ["pixel (0, 0, 0) never varies: drop it"]


def test_a_single_row_among_a_million_is_seen_and_periods_are_not_mistaken():
    x = smooth(10**6, 2)
    x[123_457, 1] = 3e5
    x[::50, 0] = 7.0  # at every phase a sample with a stride could have
    x[[5, 77_777, 999_999], 1] = -1e4
    (said,) = faults(x)
    assert "column 1 is -10000 in 3 rows" in said


def test_few_rows():
    x = smooth(19, 4)
    x[:, 1], x[:, 2] = 3, x[:, 0]
    assert faults(x) == [
        "column 1 never varies: drop it",
        "column 2 is a copy of column 0, perhaps in other units: drop it",
    ]
    assert faults(x[:2]) == faults(x)
    assert faults(x[:1]) == faults(x[:0]) == []
    assert not faults(smooth(19, 4).round())
    assert not faults(smooth(2, 4))  # any two columns are copies in other units


# --- what has one ---------------------------------------------------------------------------------


@pytest.mark.parametrize("toy", datasets.TOYS.values(), ids=lambda toy: toy.name)
@pytest.mark.parametrize("n", [50, 1000, 20000])
def test_toys_are_sound(toy, n):
    assert not faults(toy.sample(n, np.random.default_rng(0)))


def test_the_books_tables_and_pictures_are_sound():
    for split in (datasets.wine(), datasets.breast_cancer()):
        assert not [said for part in split for said in faults(part)]
    for split in datasets.digits(np.random.default_rng(0))[:1]:
        assert not [said for part in split for said in faults(part)]
    levels = datasets.digit_images()[0].train
    assert not faults(noisy_digits(levels, torch.Generator().manual_seed(0)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("load", [tables.load_wine, tables.load_breast_cancer, tables.load_iris])
def test_real_measurements_are_sound(load, dtype):
    """Zeros in 2 % of rows, whole numbers with three rows each, radius beside perimeter."""
    x = torch.tensor(load().data, dtype=dtype)
    assert not faults(x)
    for c in range(x.shape[1]):
        assert not faults(x[:, c : c + 1]), c
        assert not faults(x[:, c]), c


def sources(rng: np.random.Generator, n: int, columns: int) -> np.ndarray:
    """Columns of a dozen shapes, in units in which they spread over about one."""
    centres, widths = rng.normal(0, 3, 4), rng.uniform(0.1, 2, 4)
    part = rng.integers(0, 4, n)
    kinds = (
        lambda: centres[part] + widths[part] * rng.standard_normal(n),
        lambda: rng.standard_t(3, n),
        lambda: rng.gamma(rng.uniform(0.7, 5), 1, n),
        lambda: 5 * rng.beta(*rng.uniform(0.7, 5, 2), n),
        lambda: rng.lognormal(0, rng.uniform(0.4, 1), n),
        lambda: rng.uniform(0, 5, n),
        lambda: rng.standard_normal(n),
    )
    return np.stack([kinds[rng.integers(len(kinds))]() for _ in range(columns)], 1)


def some_rows(rng: np.random.Generator) -> int:
    return round(math.exp(rng.uniform(math.log(50), math.log(20000))))


@pytest.mark.parametrize("seed", range(50))
def test_smooth_sets_are_sound(seed):
    rng = np.random.default_rng(seed)
    columns = int(rng.integers(1, 21))
    x = sources(rng, some_rows(rng), columns)
    if seed % 2:
        x = x @ rng.normal(size=(columns, columns))
    x = x + x.std(0) * rng.normal(0, 10, columns)
    x = x * 10 ** rng.uniform(-6, 6, columns)
    assert not faults(torch.tensor(x, dtype=torch.float32))
    assert not faults(torch.tensor(x))


@pytest.mark.parametrize("seed", range(20))
def test_rounded_measurements_are_sound(seed):
    rng = np.random.default_rng(seed)
    x = sources(rng, some_rows(rng), 8).round(rng.integers(2, 5)) * 10 ** rng.integers(0, 4)
    assert not faults(torch.tensor(x, dtype=torch.float32))


def test_places_on_earth_in_float32_are_sound():
    """About 600 numbers of float32 lie between the ends of a village."""
    noise = smooth(10000, 2).double()
    x = (torch.tensor([48.137, 11.575]) + 0.0005 * noise).float()
    assert x[:, 0].unique().numel() < 1000
    assert not faults(x)


def test_heavy_tails_are_sound_unless_they_are_absurd():
    rng = np.random.default_rng(0)
    assert not faults(torch.tensor(rng.standard_t(3, (200_000, 10))))
    assert not faults(torch.tensor(rng.lognormal(0, 1.5, (50_000, 10))))
    (said,) = faults(torch.tensor(rng.standard_cauchy((100_000, 1))))
    assert "take logarithms" in said


# --- any numbers, any layout ------------------------------------------------------------------


@pytest.mark.parametrize("unit", [1e-320, 1e-300, 1e-40, 1e40, 1e300])
@pytest.mark.filterwarnings("error")
def test_huge_and_tiny_numbers(unit):
    x = smooth(500).double()
    assert not faults(unit * x) or unit == 1e-320  # whose numbers have no more than four digits
    for kind in ("constant", "copy", "sum", "one-hot", "few values", "zeros", "outlier"):
        y = smooth(500)
        pattern = plant(kind, y)
        y = y.double() * unit
        if unit > 1e-320:
            pattern = pattern.split(r" \(")[0]  # where the value is given
            assert re.search(pattern, faults(y)[0]), kind
        else:
            faults(y)
    if unit == 1e300:
        y = x.abs() * 3e307
        y[:, 1] = y[:, 0] / 2
        assert "column 1 is a copy of column 0" in faults(y)[0]
    ends = torch.tensor([-1.7e308, 1.7e308], dtype=torch.float64)
    assert not faults(torch.rand(500, 1, dtype=torch.float64) * (ends[1] / 2) + ends[0] / 4)
    faults(ends.repeat(20)[:, None])


def test_any_dtype_shape_and_layout():
    x = smooth(300, 4)
    x[:, 1] = x[:, 0]
    said = faults(x)
    assert said == faults(x.T.contiguous().T)
    assert said == faults(x.clone().requires_grad_())
    for dtype in (torch.float16, torch.bfloat16, torch.float64):
        assert said == faults(x.to(dtype))
    assert not faults(x[:, 2:3])
    assert not faults(x[:, 2])
    assert not faults(x[:, :0])
    assert not faults(x[:, :0].reshape(300, 0, 8, 8))
    with torch.inference_mode():
        assert said == faults(x)


def test_the_rows_are_left_alone_and_the_random_state_too():
    x = smooth(30_000)
    for kind in KINDS:
        plant(kind, x)
    before, state = x.clone(), torch.get_rng_state()
    faults(x)
    assert x.equal(before)
    assert torch.get_rng_state().equal(state)


def test_many_columns():
    x = smooth(1000, 3072).reshape(1000, 3, 32, 32)
    assert not faults(x)
    x[:, 1, 2, 3] = -x[:, 0, 0, 0]
    x[:, 2, 2, 2] = x[:, 2, 2, 2].round()
    x[7, 2, 5, 5] = 1e6
    said = faults(x)
    assert [s.split(")")[0] for s in said] == [
        "pixel (1, 2, 3", "pixel (2, 2, 2", "1 row of pixel (2, 5, 5",
    ]  # fmt: skip


# --- in fit -------------------------------------------------------------------------------------


def warned(call):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        call()
    return caught


def test_a_fit_warns_once_and_at_the_callers_line():
    x = smooth(300, 3)
    x[:, 0], x[:, 2] = 7, x[:, 2].round()
    (caught,) = warned(lambda: fit(RealNVP(3, n_layers=2, hidden=(4,)), x, steps=60, eval_every=5))
    assert caught.category is UserWarning
    assert caught.filename == __file__
    assert "column 0 never varies" in str(caught.message)
    assert "column 2 takes only 7 values, whole numbers" in str(caught.message)


def test_a_fit_to_batches_of_a_function_warns_too():
    x = smooth(300, 2)
    x[:, 0] = 7
    flow = Flow(LULinear(2), StandardNormal(2))
    (caught,) = warned(lambda: fit(flow, lambda step: x, steps=3))
    assert "column 0 never varies" in str(caught.message)


def test_a_context_has_to_vary():
    c = smooth(300, 2, seed=1)
    c[:, 0] = 2.5
    (caught,) = warned(lambda: fit(RealNVP(2, context_dim=2), (smooth(300, 2), c), steps=2))
    assert "of the context, column 0 never varies: nothing can be learnt" in str(caught.message)


def test_what_is_data_and_context_at_once_is_named():
    x, c = smooth(300, 3), smooth(300, 4, seed=1)
    assert shared(x, c) == []
    c[:, 1], c[:, 3] = x[:, 2], x[:, 0]
    (found,) = shared(x, c, ["a", "b", "c"])
    assert found == (
        "column 'c' of the data is also column 1 of the context and column 'a' of the data is "
        "also column 3 of the context: drop them from one of the two"
    )
    c[299, 1] += 1e-3
    assert "column 2" not in shared(x, c)[0]
    assert shared(x[:19], c[:19]) == []  # of few rows it may be chance
    flat = torch.zeros(300, 1)
    assert shared(torch.cat([x, flat], 1), flat) == []  # which never vary: said elsewhere
    assert shared(x.double(), c) != []
    pictures = torch.rand(300, 1, 2, 2)
    assert "pixel (0, 1, 0) of the data is also" in shared(pictures, pictures[:, 0, 1, :1])[0]


def test_bits_are_no_fault_of_a_density_on_bits():
    assert not warned(lambda: fit(BernoulliMADE(3), torch.eye(3)[torch.arange(100) % 3], steps=2))


def test_the_books_own_fits_warn_of_nothing():
    made = datasets.breast_cancer()
    assert not warned(lambda: fit(RealNVP(30), made.train, steps=2, validation=made.valid))
