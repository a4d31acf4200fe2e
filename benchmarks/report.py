"""The tables that the book prints: `python benchmarks/report.py` makes `book/benchmarks.inc`.

It reads `benchmarks/results/*.json` and needs nothing that was measured to be installed.
"""

from __future__ import annotations

import json
import math
import re
import statistics
from pathlib import Path

from scipy.stats import t as student

HERE = Path(__file__).resolve().parent
PAGE = HERE.parent / "book" / "benchmarks.inc"
PEERS = ("zuko", "nflows", "normflows")
WORKS = {"train": "A training step", "log_prob": "The density of a batch", "sample": "Drawing"}
SHAPES_IN_THE_PLANE = ("moons", "8gaussians", "checkerboard", "2spirals", "rings")
LABELS = {"breast_cancer": "breast cancer", "digits": "digits, bits/dim"}


def read(name: str) -> list | dict:
    return json.loads((HERE / "results" / f"{name}.json").read_text())


def _cell(words: str) -> str:
    """In one piece, with a minus sign, and an interval in small letters."""
    words = re.sub(r"(?<![\w])-(?=\d)", "−", words).replace(" ", "\u00a0")
    return re.sub(r"<br>(\(.*\))", r"<br><small>\1</small>", words)


def table(head: list[str], rows: list[list[str]]) -> str:
    rows = [[_cell(words) for words in row] for row in rows]
    lines = [head, ["---:" if i else ":---" for i in range(len(head))], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def speed(kind: str, device: str) -> str:
    """Ratios of the time to that of the fastest peer; in brackets a 95 % interval."""
    rows = []
    for row in read("speed"):
        if (row["kind"], row["device"]) == (kind, device):
            middle, low, high = row["ratios"]["flowlib"]
            _, below, above = row["ratios"]["again"]
            shape = f"{row['dim']}, {row['width']}, {row['batch']}"
            peers = [f"{row['ratios'][peer][0]:.2f}" for peer in PEERS]
            own = f"**{middle:.2f}**<br>({low:.2f} to {high:.2f})"
            rows.append([shape, own, *peers, f"{below:.2f} to {above:.2f}"])
    return table(["D, width, batch", "flowlib", *PEERS, "noise"], rows)


def memory() -> str:
    """Megabytes at the peak of a training."""
    rows = [
        [
            f"{row['dim']}, {row['width']}, {row['batch']}",
            *(f"{row['megabytes'][peer]:.1f}" for peer in ("flowlib", *PEERS)),
        ]
        for row in read("memory")
    ]
    return table(["D, width, batch", "flowlib", *PEERS], rows)


def paired(ours: list[float], theirs: list[float]) -> tuple[float, float, float]:
    """The mean difference over the seeds, and its 95 % interval by Student's distribution."""
    differences = [a - b for a, b in zip(ours, theirs, strict=True)]
    half = student.ppf(0.975, len(differences) - 1) * statistics.stdev(differences)
    half /= len(differences) ** 0.5
    mean = statistics.mean(differences)
    return mean, mean - half, mean + half


def learned(results: str = "learning") -> dict[str, dict[str, list[float]]]:
    """Of each set the held-out NLL of each library, seed by seed."""
    found: dict[str, dict[str, list[float]]] = {}
    for row in sorted(read(results), key=lambda row: row["seed"]):
        found.setdefault(row["set"], {}).setdefault(row["peer"], []).append(row["nll"])
    return found


def best_peer(nll: dict[str, list[float]], peers: tuple[str, ...] = PEERS) -> str:
    """The peer with the best mean, of those whose trainings all ended in a number."""
    whole = [peer for peer in peers if all(map(math.isfinite, nll[peer]))]
    return min(whole, key=lambda peer: statistics.mean(nll[peer]))


def learning(
    results: str = "learning", others: tuple[str, ...] = (), peers: tuple[str, ...] = PEERS
) -> str:
    """Held-out NLL, means over the seeds, and the difference to the best of the peers."""
    rows = []
    for name, nll in learned(results).items():
        mean, low, high = paired(nll["flowlib"], nll[best_peer(nll, peers)])
        means = (statistics.mean(nll[peer]) for peer in ("flowlib", *peers, *others))
        shown = [f"{value:.2f}" if math.isfinite(value) else "diverged" for value in means]
        difference = f"{mean:+.2f}<br>({low:+.2f} to {high:+.2f})".replace("-", "−")
        rows.append([LABELS.get(name, name), *shown, difference])
    less = f"flowlib less {'the best peer' if len(peers) > 1 else peers[0]}"
    return table(["set", "flowlib", *peers, *others, less], rows)


def beside() -> str:
    """Held-out NLL of flowlib's RealNVP beside methods that are no flows."""
    classics, rows = read("classics"), []
    for name, nll in learned().items():
        others = [f"{classics[name][m]:.2f}" for m in ("Gaussian", "kernels", "mixture")]
        truth = f"{classics[name]['truth']:.2f}" if "truth" in classics[name] else "–"
        rows.append(
            [LABELS.get(name, name), *others, f"{statistics.mean(nll['flowlib']):.2f}", truth]
        )
    return table(["set", "Gaussian", "kernels", "mixture", "RealNVP", "truth"], rows)


def pictures() -> str:
    """Bits per dimension of the digits for each seed, as vectors and as images."""
    names = {
        "digits-as-vectors": "RealNVP of vectors", "digits-as-images": "ImageRealNVP",
        "digits-by-residuals": "IResNet of pictures, by eight terms",
        "digits-by-roulette": "ResidualFlow of pictures",
    }  # fmt: skip
    found: dict[str, list[dict]] = {}
    for row in read("digits"):
        found.setdefault(row["flow"], []).append(row)
    head = ["flow", "weights", *(f"seed {row['seed']}" for row in found["digits-as-images"])]
    rows = [
        [title, f"{found[name][0]['weights']:,}", *(f"{row['bits']:.2f}" for row in found[name])]
        for name, title in names.items()
    ]
    return table(head, rows)


def made(kind: str) -> dict[tuple[int, ...], dict]:
    """The rows of one kind, by coordinates and width, and of a training the rows of a batch."""
    keys = ("dim", "width", "batch") if kind == "train" else ("dim", "width")
    return {tuple(row[k] for k in keys): row for row in read("made") if row["kind"] == kind}


def masked() -> str:
    """A training step of MADE as ratios to the fastest peer's, and to the network's own floor."""
    rows = []
    for (dim, width, batch), row in made("train").items():
        ratios = row["ratios"]
        middle, low, high = ratios["flowlib"]
        own = f"**{middle:.2f}**<br>({low:.2f} to {high:.2f})"
        middle, low, high = row["of_unmasked"]
        floor = f"{middle:.2f}<br>({low:.2f} to {high:.2f})"
        peers = [f"{ratios[peer][0]:.2f}" for peer in PEERS]
        noise = f"{ratios['again'][1]:.2f} to {ratios['again'][2]:.2f}"
        rows.append([f"{dim}, 2 × {width}, {batch}", own, *peers, noise, floor])
    return table(["D, widths, batch", "flowlib", *PEERS, "noise", "flowlib to no masks"], rows)


def drawn() -> str:
    """How long draws of MADE take, and what a training needs, in sentences."""
    times = {dim: row["times_faster"] for (dim, _), row in made("sample").items()}
    dim, width = max(made("memory"))
    megabytes = {name: f"{of:.0f}" for name, of in made("memory")[dim, width]["megabytes"].items()}
    middle, low, high = times[784]
    return (
        "Between narrow layers the masks cost you what they cost in any library, and the less of a "
        "step, the larger the batch. Between wide ones "
        "whole blocks of the weights are masked, and `flowlib` leaves them out of the product: "
        "there a step takes no longer than without masks.\n\nThe others draw by one full pass for "
        "each coordinate. `flowlib` computes each unit once: a hundred draws of 784 numbers take "
        f"1/{middle:.0f} of the time of its own 784 passes (1/{high:.0f} to 1/{low:.0f}). Of 63 "
        f"numbers they take {1 / times[63][0]:.2f} of it, and of 8 numbers "
        f"{1 / times[8][0]:.2f}: small networks spend their time on calls, not on products.\n\n"
        f"A training of the network of {dim} numbers, 2 × {width}, needs {megabytes['flowlib']} MB "
        f"at its peak, {megabytes['zuko']} in zuko, {megabytes['nflows']} in nflows, "
        f"{megabytes['normflows']} in normflows, and {megabytes['unmasked']} without masks.\n"
    )


RUNNING = (
    "RealNVP",
    "MAF",
    "MAF with splines",
    "IResNet",
    "ResidualFlow",
)  # chapter by chapter one more


def running(chapter: int) -> str:
    """A chapter's running table: what is no flow, the book's flows so far, and the truth."""
    classics, rows, flows = read("classics"), [], RUNNING[: chapter - 1]
    for name, nll in learned("ours").items():
        means = (f"{statistics.mean(nll[flow]):.2f}".replace("-", "−") for flow in flows)
        truth = f"{classics[name]['truth']:.2f}" if "truth" in classics[name] else "–"
        rows.append([LABELS.get(name, name), f"{classics[name]['mixture']:.2f}", *means, truth])
    return table(["set", "mixture", *flows, "truth"], rows)


def maf(kind: str, device: str = "cpu") -> list[dict]:
    """The rows of one kind."""
    return [row for row in read("maf") if (row["kind"], row["device"]) == (kind, device)]


def between(interval: list[float]) -> str:
    """A ratio and its interval."""
    middle, low, high = interval
    return f"{middle:.2f}<br>({low:.2f} to {high:.2f})"


def maf_steps() -> str:
    """A training step of MAF as ratios to the fastest peer's, and to the flow without masks."""
    rows = []
    for row in maf("train"):
        ratios = row["ratios"]
        rows.append(
            [
                f"{row['dim']}, {row['width']}, {row['rows']}",
                f"**{ratios['flowlib'][0]:.2f}**" + between(ratios["flowlib"])[4:],
                *(f"{ratios[peer][0]:.2f}" for peer in PEERS),
                f"{ratios['again'][1]:.2f} to {ratios['again'][2]:.2f}",
                between(row["of_unmasked"]),
            ]
        )
    return table(["D, width, batch", "flowlib", *PEERS, "noise", "to no masks"], rows)


def times(kind: str, peers: tuple[str, ...]) -> str:
    """How many times as long others take as flowlib."""
    rows = [
        [
            f"{row['dim']}, {row['width']}, {row['rows']}",
            *(between(row["ratios"][peer]) for peer in peers),
        ]
        for row in maf(kind)
    ]
    names = ["D full passes" if peer == "passes" else peer for peer in peers]
    return table(["D, width, rows", *names], rows)


def maf_memory() -> str:
    """Megabytes at the peak of a training."""
    names = ("flowlib", *PEERS, "unmasked")
    rows = [
        [
            f"{row['dim']}, {row['width']}, {row['rows']}",
            *(f"{row['megabytes'][name]:.1f}" for name in names),
        ]
        for row in maf("memory")
    ]
    return table(["D, width, batch", *names[:-1], "no masks"], rows)


def jacobi() -> str:
    """Of trained flows the passes that Jacobi's way takes, and the time of each way."""
    rows = []
    for row in maf("trained"):
        passes = ", ".join(map(str, row["jacobi_passes"]))
        spent = (f"{row['of_passes'][way][0]:.2f}" for way in ("incremental", "jacobi"))
        rows.append([LABELS.get(row["set"], row["set"]).split(",")[0], str(row["dim"]), passes,
                     *spent])  # fmt: skip
    return table(["set", "D", "passes, layer by layer", "one by one", "all at once"], rows)


def parts() -> dict[str, dict[str, tuple[float, float, float]]]:
    """Of each set what each change of MAF costs, paired seed by seed."""
    return {
        name: {part: paired(nll[part], nll["as it is"]) for part in nll if part != "as it is"}
        for name, nll in learned("maf-parts").items()
    }


def worth() -> str:
    """What MAF's parts are worth on each set."""
    found, rows = parts(), []
    names = list(next(iter(found.values())))
    for name, costs in found.items():
        # of two coordinates there are no direct links, and the orders are the natural one's
        gone = (SHAPES_IN_THE_PLANE, ("no direct links", "natural orders"))
        cells = [
            "–" if name in gone[0] and part in gone[1] else
            f"{costs[part][0]:+.2f}<br>({costs[part][1]:+.2f} to {costs[part][2]:+.2f})".replace(
                "-", "−"
            )
            for part in names
        ]  # fmt: skip
        rows.append([LABELS.get(name, name), *cells])
    return table(["set", *names], rows)


def posteriors() -> str:
    """The bound of the two guesses for each start, and what they leave to log p(x)."""
    rows = []
    for row in read("posterior"):
        bells, layers = row["bells"], row["four layers"]
        gaps = [f"{one['weighted'] - one['bound']:.2f}" for one in (bells, layers)]
        shown = [f"{one['bound']:.2f}".replace("-", "−") for one in (bells, layers)]
        gained = f"{layers['bound'] - bells['bound']:.2f} ± {row['error']:.2f}"
        rows.append([f"start {row['seed']}", *shown, gained, *gaps])
    head = ["", "bells", "four layers", "gained", "left by bells", "left by four layers"]
    return table(head, rows)


def iresnet(kind: str) -> list[dict]:
    """The rows of one kind."""
    return [row for row in read("iresnet") if row["kind"] == kind]


def way_back() -> str:
    """How long the way back takes at the same true error, and what the defaults reach."""
    rows = []
    for row in iresnet("inverse"):
        shape = f"D = {row['shape']}" if isinstance(row["shape"], int) else row["shape"]
        rows.append(
            [
                f"{row['weights']}, {shape}, {row['lipschitz']}",
                f"{row['evaluations']:.1f}",
                between(row["ratios"]["plain"]),
                between(row["ratios"]["normflows"]),
                *(f"{row['error_by_default'][name]:.0e}".replace("e-0", "e−").replace("e+0", "e")
                  for name in ("flowlib", "normflows")),
            ]
        )  # fmt: skip
    head = ["blocks", "evaluations", "plain", "normflows", "flowlib's error", "normflows' error"]
    return table(head, rows)


def residual_steps() -> str:
    """A training step as a ratio to normflows', and megabytes at the peak of a training."""
    megabytes = {row["shape"]: row["megabytes"] for row in iresnet("memory")}
    rows = []
    for row in iresnet("train"):
        ratios, used = row["ratios"], megabytes.get(row["shape"])
        noise = f"{ratios['again'][1]:.2f} to {ratios['again'][2]:.2f}"
        both = [f"{used[name]:.1f}" for name in ("flowlib", "normflows")] if used else ["", ""]
        own = f"**{ratios['flowlib'][0]:.2f}**" + between(ratios["flowlib"])[4:]
        rows.append([row["shape"], own, noise, *both])
    return table(["blocks", "flowlib to normflows", "noise", "MB", "normflows' MB"], rows)


def residual_flow(kind: str) -> list[dict]:
    return [row for row in read("residual-flow") if row["kind"] == kind]


def roulette_steps() -> str:
    """How many times as long normflows' faster mode takes for a step, and by recomputation."""
    rows = []
    for row in residual_flow("train"):
        ratios = {name: values[0] for name, values in row["ratios"].items()}
        fastest = min(ratios["normflows"], ratios["normflows saving"])
        _, below, above = row["ratios"]["again"]
        faster = (f"{fastest / ratios[name]:.2f}" for name in ("flowlib", "recomputed"))
        rows.append([row["shape"], *faster, f"{below:.2f} to {above:.2f}"])
    return table(["blocks", "plain", "recomputed", "noise"], rows)


def roulette_memory() -> str:
    """Megabytes at the peak of a training, by depth."""
    names = ("flowlib", "recomputed", "normflows", "normflows saving")
    rows = [
        [row["shape"], str(row["depth"]), *(f"{row['megabytes'][name]:.0f}" for name in names)]
        for row in residual_flow("memory")
    ]
    return table(["blocks", "depth", *names], rows)


def after_thirty_seconds() -> str:
    """Held-out NLL after thirty seconds, and the truth."""
    classics = read("classics")
    rows = [
        [name, f"{statistics.mean(nll['flowlib']):.2f}",
         f"{min(nll['flowlib']):.2f} to {max(nll['flowlib']):.2f}",
         f"{classics[name]['truth']:.2f}"]
        for name, nll in learned("residual-30").items()
    ]  # fmt: skip
    return table(["set", "ResidualFlow", "its seeds", "truth"], rows)


def whole() -> str:
    """The whole book: what each flow has learnt, and what it costs to use it."""
    sets = ("moons", "2spirals", "digits", "breast_cancer")
    rows, found = [], {(row["set"], row["flow"]): row for row in read("whole")}
    for flow in dict.fromkeys(row["flow"] for row in read("whole")):
        learnt = (f"{statistics.mean(found[name, flow]['nll']):.2f}" for name in sets)
        times = (
            f"{1000 * found[name, flow][what]:.{0 if found[name, flow][what] >= 0.01 else 1}f}"
            for name in ("moons", "digits") for what in ("draws", "densities")
        )  # fmt: skip
        off = max(found[name, flow]["error"] for name in sets)
        weights = f"{found['moons', flow]['weights']:,}"
        rows.append([flow, weights, *(v.replace("-", "−") for v in learnt), *times, f"{off:.0e}"])
    named = (LABELS.get(name, name) for name in sets)
    uses = (f"{what}, D = {dim}" for dim in (2, 64) for what in ("draws", "densities"))
    return table(["flow", "weights, D = 2", *named, *uses, "error"], rows).replace("e-", "e−")


def machine_code() -> list[dict]:
    """The rows of flows; the first of the file is of a sum, the first code of a process."""
    return read("compile")[1:]


def machine_code_steps() -> str:
    """A training step with and without machine code, and the seconds of the first."""
    rows = []
    for row in machine_code():
        name = row["flow"] if row["peer"] == "flowlib" else f"{row['peer']}: {row['flow']}"
        ms = (f"{row['milliseconds'][which]:.1f}" for which in ("plain", "compiled"))
        first = f"{row['first_step']:.0f}"
        rows.append([name, row["shape"], *ms, between(row["times_faster"]), first])
    head = ["flow", "shape", "plain, ms", "compiled, ms", "times as fast", "first step, s"]
    return table(head, rows)


def page() -> str:
    shown = []
    for device in dict.fromkeys(row["device"] for row in read("speed")):
        for kind, title in WORKS.items():
            where = "" if device == "cpu" else ", on a GPU"
            shown.append(f"### {title}{where}\n\n{speed(kind, device)}")
    shown.append(f"## Memory\n\nMegabytes at the peak of a training.\n\n{memory()}")
    shown.append(
        "## What is learnt\n\nHeld-out negative log-likelihood in nats, less is better, of RealNVP "
        "after the same seconds of one processor for every library: five on a shape in the plane, "
        "ten on the digits, three on a table. Means of five seeds; the last column is paired seed "
        f"by seed, with a 95 % interval.\n\n{learning()}"
    )
    shown.append(
        "## Beside methods that are no flows\n\nThe same held-out data. Kernels and mixture learn "
        "from 10,000 points of a shape, a flow from fresh ones in every step. The kernels' width "
        "and the number of Gaussians in the mixture are chosen on a validation part. On most of "
        "these sets a mixture wins; [chapter 2](../chapters/02-realnvp.ipynb) says why.\n\n"
        f"{beside()}"
    )
    shown.append(
        "## Pictures as pictures\n\nBits per dimension of the digits' test part after a full "
        "training, less is better; a Gaussian has 2.47 and the best mixture 2.27. "
        "Chapters [2](../chapters/02-realnvp.ipynb) and [5](../chapters/05-iresnet.ipynb) show "
        "how.\n\n"
        f"{pictures()}"
    )
    shown.append(
        "## MADE\n\nA training step of one masked network on binary vectors, as a "
        "ratio to the fastest peer. All libraries have the same layers. The last column is the "
        "ratio of `flowlib` to the same network without masks.\n\n"
        f"{masked()}\n{drawn()}"
    )
    shown.append(
        "## MAF\n\nA training step of five autoregressive layers, as a ratio to the fastest peer; "
        "the last column is the ratio to the same flow without masks. Of wide networks `flowlib` "
        "leaves out blocks that are masked. Of narrow ones a step is mostly calls, and it has some "
        "more: bounds on the log-scales, an `ActNorm`, and in two of the layers, of 4 to 128 "
        "coordinates, links from the inputs to the outputs.\n\n"
        f"{maf_steps()}"
    )
    shown.append(
        "### Draws\n\nHow many times as long others take for the same number of draws: `flowlib` "
        "itself by as many full passes as there are coordinates, and the other libraries.\n\n"
        f"{times('sample', ('passes', *PEERS))}\n"
        "On flows that were trained on data for 500 steps, how many passes it takes to compute all "
        "coordinates at once until no bit changes, and both ways' time as a share of that of D "
        f"full passes.\n\n{jacobi()}"
    )
    shown.append("### Memory of MAF\n\nMegabytes at the peak of a training.\n\n" + maf_memory())
    shown.append(
        "### What MAF learns\n\nHeld-out negative log-likelihood in nats of five autoregressive "
        "layers, under the same rules as RealNVP's above. The two columns of splines are "
        "`MAF(D, 3, transformer=Spline)` and zuko's spline flow of five layers.\n\n"
        f"{learning('maf-learning', ('flowlib splines', 'zuko splines'))}"
    )
    shown.append(
        "### What its parts are worth\n\nBy how many nats (of the digits, bits) the held-out "
        "figure grows when one part is changed: no links from the inputs to the outputs, or such "
        "links in all layers instead of two; natural orders; ReLUs instead of units that saturate; "
        "weights that start as usual; an `ActNorm` after each layer instead of one in front. Means "
        "of three seeds, paired, with a 95 % interval; of two coordinates there are neither links "
        f"nor other orders.\n\n{worth()}"
    )
    shown.append(
        "## IAF\n\nThe same comparison of the density of points that it has not drawn, and of a "
        "training step by its own draws. zuko has no flow that draws in one pass.\n\n"
        f"{times('judge', ('passes', 'nflows', 'normflows'))}\n"
        f"{times('imitate', ('nflows', 'normflows'))}"
    )
    shown.append(
        "## IAF as a posterior\n\nThe autoencoder of [chapter 4](../chapters/04-maf-iaf.ipynb) "
        "from three starts: the lower bound on the log-likelihood of the test digits in nats, with "
        "a bell for each hidden number and with an IAF of four layers on the same decoder. *Left* "
        "is what a "
        f"bound by 200 weighted draws is above it.\n\n{posteriors()}"
    )
    shown.append(
        "## Invertible residual networks\n\nThe way back of eight blocks (of pictures, four) for "
        "a thousand rows (a hundred pictures), in float64. Both libraries invert the same blocks, "
        "each with the loosest tolerance at which no row is off by more than 1e−5. *Trained* "
        "blocks are those of a flow on moons, on digits as vectors and on digits as pictures; "
        "blocks *at the bound* move points as much as they may. Evaluations are `flowlib`'s, a "
        "block and row; the next two columns are how many times as long its plain guesses and "
        "normflows take. The last two are the true errors with each library's default tolerance of "
        "1e−5. Of a thousand rows of 64 numbers one Jacobian for all rows is taken first; of two "
        "numbers, and of a hundred pictures, it would not pay. Trained blocks differ from row to "
        "row, and of 64 numbers need half as many evaluations as normflows; their arithmetic takes "
        f"a part of that back.\n\n{way_back()}"
    )
    shown.append(
        "### A training step of residual networks\n\nBlocks as above, batches of 256 (of "
        "pictures, 64); a series has five terms and one probe. The last columns are megabytes at "
        f"the peak of a training.\n\n{residual_steps()}"
    )
    shown.append(
        "### What residual networks learn\n\nHeld-out negative log-likelihood in nats after equal "
        "seconds, as above, of eight blocks with 128 units, by Adam at 0.005 for all. In the plane "
        "the log-determinants are exact; elsewhere training has eight terms of the series, and the "
        "figure is exact for `flowlib`, and normflows' own estimate for normflows. `flowlib` has "
        "sines in the plane and ELUs elsewhere; beside it each activation everywhere, tanh and ELU "
        "in the plane as means of three seeds.\n\n"
        f"{learning('iresnet-learning', ('sine', 'tanh', 'ELU'), ('normflows',))}"
    )
    shown.append(
        "## Residual Flow\n\nA training step of `flowlib`'s blocks and of those that compute their "
        "graph again: how many times as long the faster of normflows' two modes takes. The same "
        "networks, a fair coin after two sure terms, batches of 256 (of pictures, 64). Noise is "
        f"normflows' ratio to itself.\n\n{roulette_steps()}\n"
        f"Megabytes at the peak of a training of two hidden layers:\n\n{roulette_memory()}"
    )
    shown.append(
        "### What Residual Flows learn\n\nHeld-out negative log-likelihood in nats after equal "
        "seconds, as above, by Adam at 0.01, falling along a cosine, for all; determinants in the "
        "plane are exact but in the column *roulette*; all of `flowlib`'s are scored exactly.\n\n"
        f"{learning('residual-learning', ('roulette',), ('normflows',))}\n"
        f"After thirty seconds, five seeds:\n\n{after_thirty_seconds()}"
    )
    start = read("compile")[0]["first_step"]
    coin = max(row["next_steps"] for row in machine_code() if row["flow"] == "ResidualFlow")
    shown.append(
        "## Machine code\n\nA training step with `fit(…, compile=True)` and without, processor "
        "time, in turns: the fastest turn of each, and how many times as fast the compiled one is, "
        "with a 95 % interval. Peers' flows are compiled in the same way. Batches of 256 rows (of "
        "pictures, 64); IAF learns by its own draws. The last column is the processor's seconds of "
        "the first step, the C++ compiler's included, with nothing compiled before; the first code "
        f"of a process takes {start:.0f} more, and a roulette's other numbers of terms "
        f"{coin:.0f}.\n\n"
        "Every flow of the book gains. A step of NICE, RealNVP or MAF is half as fast again, one "
        "of residual flows up to twice as fast; least is gained where most of the time goes into "
        "large products, as with pictures. Peers gain as much, but for normflows' RealNVP, which "
        "is slower compiled.\n\n"
        f"{machine_code_steps()}"
    )
    shown.append(
        "## The whole book\n\nHeld-out figures after equal seconds, milliseconds for a thousand "
        "draws and for a thousand densities, and the largest error of a log-determinant against "
        "autodiff's in float64. [Chapter 6](../chapters/06-residual-flow.ipynb) says what it "
        f"means.\n\n{whole()}"
    )
    return "\n".join(shown)


if __name__ == "__main__":
    PAGE.write_text(page())
