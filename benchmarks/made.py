"""MADE's training step and draws: flowlib beside its peers, and beside the network without masks.

`python benchmarks/made.py OUT.json [--rounds N]`. As in `speed.py`: one thread, CPU time, turns
that alternate, ratios with 95 % intervals. A training is of binary vectors. Of
draws the ratio is to as many full passes as there are coordinates, which is how the others draw.
Memory is measured as in `memory.py`, each library in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from memory import grown, medians
from speed import TURN, interval, turn
from torch import nn

# coordinates, the width of two hidden layers, and rows of a batch
TRAIN = ((63, 64, 128), (63, 64, 1024), (63, 512, 128), (784, 64, 128), (784, 512, 128))
# coordinates and width
MEMORY = ((63, 512), (784, 512))
SAMPLE = ((8, 64), (63, 64), (784, 512))
BATCH, DRAWS = 128, 100


def flowlib(dim: int, width: int) -> nn.Module:
    from flowlib import MADE

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # 512 units have not each degree to 783
        return MADE(dim, (width, width))


def zuko(dim: int, width: int) -> nn.Module:
    from zuko.nn import MaskedMLP

    return MaskedMLP(torch.ones(dim, dim).tril(-1).bool(), (width, width))


def nflows(dim: int, width: int) -> nn.Module:
    from nflows.transforms.made import MADE

    return MADE(dim, width, num_blocks=1, use_residual_blocks=False)


def normflows(dim: int, width: int) -> nn.Module:
    from normflows.nets.made import MADE

    return MADE(dim, width, num_blocks=1, use_residual_blocks=False)


def unmasked(dim: int, width: int) -> nn.Module:
    layers = [nn.Linear(dim, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(width, dim))


MODELS = {
    "flowlib": flowlib, "zuko": zuko, "nflows": nflows, "normflows": normflows,
    "unmasked": unmasked,
}  # fmt: skip
PEERS = ("zuko", "nflows", "normflows")


def check_same(dim: int, width: int) -> None:
    """All have layers of the same shapes."""
    shapes = {
        name: sorted(tuple(p.shape) for p in make(dim, width).parameters())
        for name, make in MODELS.items()
    }
    assert all(of == shapes["unmasked"] for of in shapes.values()), shapes


def training(
    make: Callable[[int, int], nn.Module], dim: int, width: int, batch: int = BATCH
) -> Callable[[], None]:
    torch.manual_seed(0)
    model = make(dim, width)
    x = (torch.rand(batch, dim) < 0.3).float()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4, fused=True)

    def step() -> None:
        loss = F.binary_cross_entropy_with_logits(model(x), x, reduction="none").sum(1).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def drawing(dim: int, width: int) -> dict[str, Callable[[], torch.Tensor]]:
    """Our draws, and the same by full passes; both of the same numbers."""
    torch.manual_seed(0)
    model, u = flowlib(dim, width), torch.rand(DRAWS, dim)
    for p in model.parameters():
        nn.init.normal_(p, 0.0, 0.05)

    @torch.no_grad()
    def ours() -> torch.Tensor:
        x, _ = model.autoregress(
            lambda d, logits: ((u.index_select(1, d) < logits[:, 0].sigmoid()).to(u), None), DRAWS
        )
        return x

    @torch.no_grad()
    def passes() -> torch.Tensor:
        x = torch.zeros(DRAWS, dim)
        for d in range(dim):
            x[:, d] = u[:, d] < model(x)[:, d].sigmoid()
        return x

    assert torch.equal(ours(), passes())
    return {"flowlib": ours, "passes": passes}


def compare(
    works: dict[str, Callable], base: str, rounds: int, device: str = "cpu"
) -> dict[str, tuple]:
    """Each work's time over that of ``base``, round by round: median and interval."""
    for work in works.values():
        turn(work, 2, device)
    times = {name: max(1, round(TURN / turn(work, 2, device))) for name, work in works.items()}
    spent = {name: [] for name in works}
    order = list(works)
    for i in range(rounds):
        for name in order[i % len(order) :] + order[: i % len(order)]:
            spent[name].append(turn(works[name], times[name], device))
    return {
        name: interval([a / b for a, b in zip(spent[name], spent[base], strict=True)])
        for name in works
    }


def memory_of(name: str, dim: int, width: int) -> float:
    torch.set_num_threads(1)
    training(MODELS[name], 8, 16)()  # imports, and what torch sets up, are nobody's fault
    return grown(lambda: training(MODELS[name], dim, width))


def main() -> None:
    if sys.argv[1:2] == ["--one"]:
        print(memory_of(sys.argv[2], *map(int, sys.argv[3:])))
        return
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--rounds", type=int, default=40)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for dim, width, batch in TRAIN:
        check_same(dim, width)
        works = {name: training(make, dim, width, batch) for name, make in MODELS.items()}
        trial = {p: statistics.median(turn(works[p], 5, "cpu") for _ in range(5)) for p in PEERS}
        fastest = min(trial, key=trial.get)
        works["again"] = training(MODELS[fastest], dim, width, batch)
        ratios = compare(works, fastest, arguments.rounds)
        floor = compare(
            {k: works[k] for k in ("flowlib", "unmasked")}, "unmasked", arguments.rounds
        )
        rows.append({"kind": "train", "dim": dim, "width": width, "batch": batch,
                     "fastest": fastest, "ratios": ratios,
                     "of_unmasked": floor["flowlib"]})  # fmt: skip
        print(rows[-1], flush=True)
    for dim, width in SAMPLE:
        rounds = max(6, arguments.rounds // (4 if dim > 100 else 1))
        ratio = compare(drawing(dim, width), "flowlib", rounds)["passes"]
        rows.append({"kind": "sample", "dim": dim, "width": width, "times_faster": ratio})
        print(rows[-1], flush=True)
    for dim, width in MEMORY:
        megabytes = medians(__file__, MODELS, (dim, width))
        rows.append({"kind": "memory", "dim": dim, "width": width, "megabytes": megabytes})
        print(rows[-1], flush=True)
    arguments.out.write_text("[\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]\n")


if __name__ == "__main__":
    main()
