"""The measured results that the book prints, and what was promised of them."""

import itertools
import statistics
import sys

import pytest

from tools.notebooks import ROOT

sys.path.insert(0, str(ROOT / "benchmarks"))

import report

from flowlib import TrainingOptions

TABLES = ("breast_cancer", "wine")


def test_the_page_shows_the_results():
    assert report.PAGE.read_text() == report.page(), "python benchmarks/report.py"


def test_every_row_of_the_plan_was_measured():
    shapes = {(r["kind"], r["dim"], r["width"], r["batch"]) for r in report.read("speed")}
    assert len(shapes) == 3 * 3 * 2 * 2
    assert all(
        r["ratios"].keys() >= {"flowlib", "again", *report.PEERS} for r in report.read("speed")
    )
    nll = report.learned()
    assert len(nll) == 8
    assert all(len(values) == 5 for peers in nll.values() for values in peers.values())


def test_no_slower_than_the_fastest_peer():
    for row in report.read("speed"):
        assert row["ratios"]["flowlib"][1] < 1.05, row


def test_no_hungrier_than_the_leanest_peer():
    for row in report.read("memory"):
        megabytes = row["megabytes"]
        assert megabytes["flowlib"] <= 1.05 * min(megabytes[peer] for peer in report.PEERS)


def test_made_was_measured_in_every_shape():
    shapes = {kind: set(report.made(kind)) for kind in ("train", "sample", "memory")}
    assert shapes["train"] == {
        (63, 64, 128), (63, 64, 1024), (63, 512, 128), (784, 64, 128), (784, 512, 128)
    }  # fmt: skip
    assert shapes["sample"] == {(8, 64), (63, 64), (784, 512)}
    assert shapes["memory"] == {(63, 512), (784, 512)}
    for row in report.made("train").values():
        assert row["ratios"].keys() >= {"flowlib", "again", "unmasked", *report.PEERS}


def test_made_trains_no_slower_than_the_fastest_peer_and_little_slower_than_without_masks():
    # To multiply matrices of 64 × 64 by masks and their gradients, too, is itself 6 % of a step of
    # 128 rows, and less of a longer one.
    most = {
        (63, 64, 128): 1.1, (63, 64, 1024): 1.05, (63, 512, 128): 1.05,
        (784, 64, 128): 1.12, (784, 512, 128): 1.0,
    }  # fmt: skip
    for shape, row in report.made("train").items():
        assert row["ratios"]["flowlib"][1] < 1.05, row
        assert row["of_unmasked"][1] < most[shape], row


def test_made_draws_in_far_less_than_a_pass_for_each_coordinate():
    rows = report.made("sample")
    assert rows[784, 512]["times_faster"][1] > 25
    assert rows[63, 64]["times_faster"][1] > 1
    assert rows[8, 64]["times_faster"][2] > 1


def test_chapter_3_quotes_them():
    chapter = " ".join((ROOT / "chapters" / "03-made.md").read_text().split())
    assert "more than 40 times as fast as 784 full passes" in chapter
    assert report.made("sample")[784, 512]["times_faster"][1] > 40
    assert "up to a tenth longer where they are narrow" in chapter
    assert max(row["of_unmasked"][2] for row in report.made("train").values()) < 1.105


def test_made_is_hardly_hungrier_than_the_leanest_peer():
    # zuko's, whose masks are of a byte an entry; masks of the weights' own type multiply faster
    for row in report.made("memory").values():
        megabytes = row["megabytes"]
        assert megabytes["flowlib"] <= 1.06 * min(megabytes[peer] for peer in report.PEERS)


def test_no_worse_than_the_best_peer():
    for name, nll in report.learned().items():
        best = nll[report.best_peer(nll)]
        _, low, _ = report.paired(nll["flowlib"], best)
        assert low <= 0.1, name
        if name in TABLES:
            assert statistics.mean(nll["flowlib"]) < statistics.mean(best), name


def test_the_chapter_quotes_the_results():
    chapter = " ".join((ROOT / "chapters" / "02-realnvp.md").read_text().split())
    classics, nll = report.read("classics"), report.learned()
    means = {name: statistics.mean(of["flowlib"]) for name, of in nll.items()}
    ahead = sum(classics[name]["mixture"] < mean for name, mean in means.items())
    assert ahead == 7
    assert "on seven of the eight sets the mixture is ahead" in chapter
    ours, theirs = means["breast_cancer"], classics["breast_cancer"]["mixture"]
    assert f"has {ours:.1f} nats and the mixture {theirs:.1f}" in chapter


# --- MAF and IAF ----------------------------------------------------------------------------


def test_maf_was_measured_in_every_shape():
    shapes = {kind: [(r["dim"], r["width"], r["rows"]) for r in report.maf(kind)]
              for kind in ("train", "sample", "judge", "imitate", "memory")}  # fmt: skip
    assert set(shapes["train"]) == set(
        itertools.product((2, 6, 21, 63, 784), (64, 512), (256, 1024))
    )
    assert shapes["sample"] == [
        (2, 64, 1000), (6, 64, 1000), (63, 64, 1000), (63, 512, 200), (784, 512, 16)
    ]  # fmt: skip
    assert shapes["judge"] == shapes["imitate"] == shapes["sample"][:3]
    assert [row["set"] for row in report.maf("trained")] == [
        "moons", "wine", "breast_cancer", "digits"
    ]  # fmt: skip
    names = ("maf-learning", "maf-parts", "ours")
    for name, seeds in zip(names, (5, 3, 5), strict=True):
        found = report.learned(name)
        assert len(found) == 8
        assert all(len(values) == seeds for of in found.values() for values in of.values())


def test_maf_is_no_slower_than_peers_where_networks_are_wide_and_little_where_narrow():
    for row in report.maf("train"):
        # narrow networks spend their time on calls: bounds, an ActNorm, direct links are some more
        wide = row["width"] == 512 or row["dim"] == 784
        assert row["ratios"]["flowlib"][1] < (1.03 if wide else 1.25), row
        assert row["of_unmasked"][1] <= (1.02 if row["width"] == 512 else 1.1), row


def test_maf_draws_in_far_less_than_a_pass_for_each_coordinate():
    least = {(63, 64): 5, (63, 512): 10, (784, 512): 20}
    for row in report.maf("sample"):
        ratios = row["ratios"]
        assert ratios["passes"][2] > least.get((row["dim"], row["width"]), 1), row
        assert all(ratios[peer][1] > 1 for peer in report.PEERS), row
    for row in report.maf("judge"):
        assert all(row["ratios"][peer][2] > 1 for peer in ("passes", "nflows", "normflows")), row
    for row in report.maf("trained"):
        assert max(row["jacobi_passes"]) <= max(2, row["dim"] - 2), row


def test_maf_is_no_hungrier_than_the_leanest_peer():
    for row in report.maf("memory"):
        megabytes = row["megabytes"]
        least = min(megabytes[peer] for peer in report.PEERS)
        # as of MADE: zuko's masks are of a byte an entry
        assert megabytes["flowlib"] <= 1.07 * least, row


def test_maf_learns_no_worse_than_the_best_peer_and_better_on_four_sets():
    better = 0
    for name, nll in report.learned("maf-learning").items():
        _, low, high = report.paired(nll["flowlib"], nll[report.best_peer(nll)])
        # wine's test part has 36 rows, over which the difference has a standard error of 0.77
        assert low <= (2 * 0.77 if name == "wine" else 0), name
        better += high < 0
    assert better >= 4


@pytest.mark.parametrize(
    ("number", "name"), [(4, "04-maf-iaf"), (5, "05-iresnet"), (6, "06-residual-flow")]
)
def test_chapters_have_the_running_table(number, name):
    """Row by row: the mixture, the book's flows, the truth."""
    chapter = (ROOT / "chapters" / f"{name}.md").read_text()
    assert report.running(number) in chapter, report.running(number)


def test_chapter_4_quotes_what_splines_do():
    chapter = " ".join((ROOT / "chapters" / "04-maf-iaf.md").read_text().split())
    means = {
        (name, flow): statistics.mean(values)
        for name, of in report.learned("ours").items() for flow, values in of.items()
    }  # fmt: skip
    assert "learns rings and spirals 0.3 nats better" in chapter
    for name in ("rings", "2spirals"):
        assert round(means[name, "MAF"] - means[name, "MAF with splines"], 1) == 0.3, name
    assert "On breast cancer it costs five nats" in chapter
    assert round(means["breast_cancer", "MAF with splines"] - means["breast_cancer", "MAF"]) == 5
    coupled, masked = (
        f"{means['digits', f'{name} with splines']:.2f}" for name in ("RealNVP", "MAF")
    )
    assert f"to {coupled} bits where the masked network has {masked}." in chapter
    for name in ("digits", "breast_cancer"):
        assert means[name, "MAF"] < means[name, "RealNVP"]
    assert report.read("classics")["wine"]["mixture"] < means["wine", "RealNVP"]
    assert means["wine", "RealNVP"] < means["wine", "MAF"]


def test_chapter_4_quotes_what_mafs_parts_are_worth():
    chapter = " ".join((ROOT / "chapters" / "04-maf-iaf.md").read_text().split())
    assert (
        "worth 2.6 nats on breast cancer and 0.8 on wine, changing orders a nat on wine" in chapter
    )
    costs = report.parts()
    assert round(costs["breast_cancer"]["ReLUs"][0], 1) == 2.6
    assert round(costs["wine"]["ReLUs"][0], 1) == 0.8
    assert round(costs["wine"]["natural orders"][0]) == 1
    assert "and the start 0.12 on checkerboard, spirals and rings" in chapter
    for name in ("checkerboard", "2spirals", "rings"):
        assert round(costs[name]["the usual start"][0], 2) == 0.12, name
    for name, of in costs.items():
        _, low, high = of["no direct links"]
        assert low <= 0 <= high, name
        mean, low, _ = of["ActNorm after each layer"]
        assert low <= 0 or mean < 0.2, name


# --- residual networks ------------------------------------------------------------------------


def test_the_way_back_is_faster_than_normflows_where_acceleration_can_help():
    rows = {(r["weights"], r["shape"], r["lipschitz"]): r for r in report.iresnet("inverse")}
    assert len(rows) == 12
    for (weights, shape, _), row in rows.items():
        assert max(way["error"] for way in row["ways"].values()) <= 1e-5, row
        # of 64 numbers that all turn differently no combination of few steps is better than one
        least = {2: 1.8, 64: 1.0, "pictures": 1.3}[shape]
        if (weights, shape) != ("at the bound", 64):
            assert row["ratios"]["normflows"][0] > least, row
        if (weights, shape) == ("at the bound", 2):
            assert row["ratios"]["normflows"][1] > 10, row


def test_residual_networks_train_faster_and_leaner_than_normflows():
    assert len(report.iresnet("train")) == 4
    for row in report.iresnet("train"):
        assert row["ratios"]["flowlib"][2] < 0.85, row
    for row in report.iresnet("memory"):
        assert row["megabytes"]["flowlib"] < 0.7 * row["megabytes"]["normflows"], row


def test_residual_networks_learn_shapes_better_than_normflows():
    found = report.learned("iresnet-learning")
    assert len(found) == 8
    for name in ("moons", "8gaussians", "checkerboard", "2spirals", "rings"):
        _, _, high = report.paired(found[name]["flowlib"], found[name]["normflows"])
        assert high < -0.2, name
        assert found[name]["flowlib"] == found[name]["sine"]


def test_the_default_activation_is_the_better_one():
    """Means over all sets of the plane, and over the tables: where bits and nats are added."""
    found = report.learned("iresnet-learning")
    plane = set(report.SHAPES_IN_THE_PLANE)

    def mean(activation, sets):
        return statistics.mean(statistics.mean(found[name][activation]) for name in sets)

    for other in ("tanh", "ELU"):
        assert mean("sine", plane) < mean(other, plane) - 0.05
    for name in found.keys() - plane:
        assert found[name]["flowlib"] == found[name]["ELU"]
        assert statistics.mean(found[name]["ELU"]) < statistics.mean(found[name]["sine"]), name


def test_chapter_5_quotes_them():
    chapter = " ".join((ROOT / "chapters" / "05-iresnet.md").read_text().split())
    means = {
        (name, flow): statistics.mean(values)
        for name, of in report.learned("ours").items() for flow, values in of.items()
    }  # fmt: skip
    assert (
        "it is the best flow of the book so far on moons, bells (`8gaussians`) and spirals"
        in chapter
    )
    for name in ("moons", "8gaussians", "2spirals"):
        others = [means[name, flow] for flow in report.RUNNING[:3]]
        assert means[name, "IResNet"] < min(others), name
    assert "the splines of chapter 4 are ahead on checkerboard and rings" in chapter
    for name in ("checkerboard", "rings"):
        assert means[name, "MAF with splines"] < means[name, "IResNet"]
    assert "on breast cancer they cost two nats" in chapter
    found = report.learned("iresnet-learning")["breast_cancer"]
    assert round(statistics.mean(found["sine"]) - statistics.mean(found["ELU"])) == 2
    assert "behind both MAFs and ahead of RealNVP; on the 115 rows of wine it is last" in chapter
    mafs = max(means["digits", flow] for flow in ("MAF", "MAF with splines"))
    assert mafs < means["digits", "IResNet"] < means["digits", "RealNVP"]
    assert means["wine", "IResNet"] > max(means["wine", flow] for flow in report.RUNNING[:3])
    others = ("RealNVP", "MAF with splines")
    assert means["breast_cancer", "IResNet"] < min(means["breast_cancer", f] for f in others)
    errors = [
        row["error_by_default"]["normflows"]
        for row in report.iresnet("inverse") if row["weights"] == "trained"
    ]  # fmt: skip
    low, high = (f"{error:.2f}" for error in (min(errors), max(errors)))
    assert f"we measured errors of {low} to {high} on" in chapter


# --- Residual Flow ----------------------------------------------------------------------------


def test_residual_flows_train_faster_and_leaner_than_normflows():
    assert len(report.residual_flow("train")) == 5
    for row in report.residual_flow("train"):
        ratios = row["ratios"]
        fastest = min(ratios["normflows"][0], ratios["normflows saving"][0])
        assert ratios["flowlib"][0] < 0.85 * fastest, row
    rows = {
        (row["shape"], row["depth"]): row["megabytes"] for row in report.residual_flow("memory")
    }
    for megabytes in rows.values():
        assert megabytes["recomputed"] < 0.9 * megabytes["normflows saving"]
    assert (
        rows["D=2, two layers", 48]["recomputed"]
        < 0.7 * rows["D=2, two layers", 48]["normflows saving"]
    )


def test_residual_flows_learn_what_was_asked_for():
    most = {"moons": 2.45, "8gaussians": 2.9, "checkerboard": 3.7, "2spirals": 2.7, "rings": 3.2}
    soon, late = report.learned("residual-learning"), report.learned("residual-30")
    classics = report.read("classics")
    for name, limit in most.items():
        assert len(soon[name]["flowlib"]) == len(late[name]["flowlib"]) == 5
        assert statistics.mean(soon[name]["flowlib"]) < limit
        assert max(late[name]["flowlib"]) < classics[name]["truth"] + 0.12
        _, _, high = report.paired(soon[name]["flowlib"], soon[name]["normflows"])
        assert high < -0.2, name
    assert statistics.mean(soon["digits"]["flowlib"]) < 2.33


def test_a_roulette_loses_little_and_claims_what_it_has():
    rows = [row for row in report.read("residual-learning") if row["peer"] == "roulette"]
    for row in rows:
        if row["set"] in report.SHAPES_IN_THE_PLANE:
            assert abs(row["claim"] - row["nll"]) < 0.01, row
    found = report.learned("residual-30")
    for name in ("moons", "checkerboard"):
        roulette, exact = found[name]["roulette"], found[name]["flowlib"]
        mean, _, _ = report.paired(roulette, exact[: len(roulette)])
        assert mean < 0.03, name


def test_chapter_6_has_the_whole_book():
    chapter = (ROOT / "chapters" / "06-residual-flow.md").read_text()
    assert report.whole() in chapter, report.whole()
    assert max(row["error"] for row in report.read("whole")) < 1e-9


def test_chapter_6_says_why_its_two_tables_differ():
    chapter = " ".join((ROOT / "chapters" / "06-residual-flow.md").read_text().split())
    assert "three starts where the table above has five" in chapter
    assert "one start is up to three nats off another" in chapter
    assert "the means of the two tables differ by up to 1.4." in chapter
    above, apart, spread = report.learned("ours"), [], []
    for row in report.read("whole"):
        assert len(row["nll"]) == 3
        five = above[row["set"]].get(row["flow"])
        if five and row["set"] == "breast_cancer":
            apart.append(abs(statistics.mean(row["nll"]) - statistics.mean(five)))
            spread.append(max(five) - min(five))
    assert round(max(apart), 1) == 1.4
    assert round(max(spread)) == 3


# --- machine code ---------------------------------------------------------------------------


def test_compiled_steps_were_measured_of_every_ready_flow_beside_the_peers():
    measured = [(row["flow"], row["peer"], row["shape"]) for row in report.machine_code()]
    vectors = ("NICE", "RealNVP", "MAF", "IAF", "IResNet", "ResidualFlow")
    own = [(name, "flowlib", f"D = {dim}") for name in vectors for dim in (2, 16)]
    others = [("ImageRealNVP", "flowlib", "1 × 8 × 8"), ("BernoulliMADE", "flowlib", "D = 16")]
    peers = [(name, peer, "D = 16") for name in ("RealNVP", "MAF") for peer in report.PEERS]
    peers += [("IAF", peer, "D = 16") for peer in ("nflows", "normflows")]
    assert measured == [*own, *others, *peers]


def test_what_is_said_of_compiled_steps():
    """On the page, and where the option is described."""
    for row in report.machine_code():
        _, low, _ = row["times_faster"]
        assert (low > 1) != ((row["peer"], row["flow"]) == ("normflows", "RealNVP")), row
        assert 5 < row["first_step"] < 60, row
    option = " ".join((TrainingOptions.__doc__ or "").split())
    assert "for five seconds to a minute" in option
    spent = {
        (row["flow"], row["shape"]): 1 / row["times_faster"][0]
        for row in report.machine_code() if row["peer"] == "flowlib"
    }  # fmt: skip

    def between(least, most, *flows):
        assert all(least < spent[at] < most for at in spent if at[0] in flows), flows

    assert "NICE, RealNVP or MAF takes two thirds of the time, one of IAF three quarters" in option
    between(0.62, 0.71, "NICE", "RealNVP", "MAF")
    between(0.7, 0.8, "IAF")
    assert "residual flows half to two thirds" in option
    between(0.45, 0.68, "IResNet", "ResidualFlow")
    assert "``ImageRealNVP`` five sixths" in option
    between(0.8, 0.87, "ImageRealNVP")
