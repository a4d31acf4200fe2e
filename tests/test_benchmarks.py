"""The measured results that the book prints, and what was promised of them."""

import statistics
import sys

from tools.notebooks import ROOT

sys.path.insert(0, str(ROOT / "benchmarks"))

import report

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
