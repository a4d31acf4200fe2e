"""MAF's training step, memory, draws and ways back, and IAF's: flowlib beside its peers.

`python benchmarks/maf.py OUT.json [--rounds N] [--kinds NAME ...]`. As in `speed.py`: one thread,
CPU time, turns that alternate, ratios with 95 % intervals, and on a GPU by the clock. Flows have
five layers. A training step is also compared with the same flow without masks. Draws are compared
with as many full passes as there are coordinates, and on trained flows the passes of Jacobi's way
are counted. Memory is measured as in `memory.py`, each library in a process of its own.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import peers
import torch
from made import compare
from memory import grown, medians
from speed import LAYERS, turn, works
from torch import nn

PEERS = ("zuko", "nflows", "normflows")
TRAIN = tuple(itertools.product((2, 6, 21, 63, 784), (64, 512), (256, 1024)))
MEMORY = ((6, 64, 1024), (63, 512, 1024), (784, 512, 256))
# coordinates, width, draws
SAMPLE = ((2, 64, 1000), (6, 64, 1000), (63, 64, 1000), (63, 512, 200), (784, 512, 16))
IAF = ((2, 64, 1000), (6, 64, 1000), (63, 64, 1000))
TRAINED = ("moons", "wine", "breast_cancer", "digits")


def training(name: str, dim: int, width: int, batch: int, device: str = "cpu") -> Callable:
    return works(name, dim, width, batch, device, "maf")["train"]


def train_row(dim: int, width: int, batch: int, device: str, rounds: int) -> dict:
    names = ("flowlib", *PEERS, "unmasked")
    made = {name: training(name, dim, width, batch, device) for name in names}
    trial = {}
    for name in PEERS:
        turn(made[name], 3, device)
        trial[name] = statistics.median(turn(made[name], 3, device) for _ in range(5))
    fastest = min(trial, key=trial.get)
    made["again"] = training(fastest, dim, width, batch, device)
    if trial[fastest] > 0.1:  # a step lasts longer than the noise
        rounds = max(6, rounds // 4)
    ratios = compare(made, fastest, rounds, device)
    floor = compare({k: made[k] for k in ("flowlib", "unmasked")}, "unmasked", rounds, device)
    return {"fastest": fastest, "ratios": ratios, "of_unmasked": floor["flowlib"]}


def drawing(dim: int, width: int, n: int, device: str) -> dict[str, Callable]:
    made = {name: works(name, dim, width, n, device, "maf")["sample"] for name in PEERS}
    for name, inverter in (("flowlib", "default"), ("passes", "Sequential"), ("jacobi", "Jacobi")):
        flow = shaken(peers.maf(dim, LAYERS, (width, width), inverter)).to(device)
        made[name] = torch.no_grad()(lambda flow=flow: flow.sample(n))
    return made


def shaken(flow: nn.Module) -> nn.Module:
    """Its weights moved, so that nothing is zero."""
    with torch.no_grad():
        for weights in flow.parameters():
            weights.add_(0.02 * torch.randn_like(weights))
    return flow


def judging(dim: int, width: int, n: int, device: str) -> dict[str, Callable]:
    """IAF's density of points that it has not drawn."""
    x = torch.randn(n, dim, device=device)
    made = {}
    for name, inverter in (("flowlib", "default"), ("passes", "Sequential")):
        flow = shaken(peers.iaf(dim, LAYERS, (width, width), inverter)).to(device)
        made[name] = torch.no_grad()(lambda flow=flow: flow.log_prob(x))
    for name, make in peers.IAF.items():
        model = make(dim, LAYERS, (width, width)).to(device)
        made[name] = torch.no_grad()(lambda model=model: model.log_prob(x))
    return made


def imitating(dim: int, width: int, n: int, device: str) -> dict[str, Callable]:
    """A step of an IAF that learns by its own draws, towards a normal density elsewhere."""

    def step_of(model: nn.Module) -> Callable:
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-4, fused=True)

        def step() -> None:
            x, log_q = model.rsample_and_log_prob(n)
            loss = (log_q + 0.5 * (x - 1).square().sum(1)).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

        return step

    models = {"flowlib": peers.iaf(dim, LAYERS, (width, width), "default")}
    models |= {name: make(dim, LAYERS, (width, width)) for name, make in peers.IAF.items()}
    return {name: step_of(model.to(device)) for name, model in models.items()}


def trained_row(name: str, rounds: int) -> dict:
    """Of a trained flow the passes of each layer, and what the ways back take."""
    from flowlib import MAF, Incremental, Jacobi, Sequential, datasets, fit

    torch.manual_seed(0)
    if name == "moons":
        rng = np.random.default_rng(0)
        data, valid = (datasets.TOYS["moons"].sample(n, rng) for n in (20_000, 2_000))
    elif name == "digits":
        data, valid, _ = datasets.digits(np.random.default_rng(7))[0]
    else:
        data, valid, _ = getattr(datasets, name)()
    flow = MAF(data.shape[1], LAYERS, (64, 64))
    fit(flow, data, steps=500, batch_size=128, validation=valid)
    flow.eval()
    layers = list(flow.bijection)[:0:-1]  # without the ActNorm in front
    z = torch.randn(500, data.shape[1])

    @torch.no_grad()
    def back(way: object) -> list[int]:
        x, passes = z, []
        for layer in layers:
            x, _ = way(layer, x, None)
            passes.append(getattr(way, "passes", layer.n_ranks()))
        return passes

    ways = {"passes": Sequential(), "incremental": Incremental(), "jacobi": Jacobi()}
    spent = compare({k: lambda way=way: back(way) for k, way in ways.items()}, "passes", rounds)
    return {"set": name, "dim": data.shape[1], "jacobi_passes": back(ways["jacobi"]),
            "of_passes": spent}  # fmt: skip


def memory_of(name: str, dim: int, width: int, batch: int) -> float:
    torch.set_num_threads(1)
    training(name, 6, 64, 1024)()  # imports, and what torch sets up, are nobody's fault
    return grown(lambda: training(name, dim, width, batch))


def rows(kind: str, device: str, rounds: int) -> list[dict]:
    found = []
    shapes = {"train": TRAIN, "sample": SAMPLE, "judge": IAF, "imitate": IAF, "memory": MEMORY}
    if kind == "trained":
        todo = [{"set": name} for name in TRAINED]
    else:
        todo = [dict(zip(("dim", "width", "rows"), s, strict=True)) for s in shapes[kind]]
    for shape in todo:
        torch.manual_seed(0)
        if kind == "train":
            row = train_row(*shape.values(), device, rounds)
        elif kind == "memory":
            row = {
                "megabytes": medians(
                    str(Path(__file__).resolve()), ("flowlib", *PEERS, "unmasked"), shape.values()
                )
            }
        elif kind == "trained":
            row = trained_row(shape["set"], max(6, rounds // 4))
        else:
            make = {"sample": drawing, "judge": judging, "imitate": imitating}[kind]
            few = max(6, rounds // (1 if shape["dim"] < 10 else 4))
            row = {"ratios": compare(make(*shape.values(), device), "flowlib", few, device)}
        found.append({"kind": kind, "device": device, **shape, **row})
        print(found[-1], flush=True)
    return found


KINDS = ("train", "sample", "judge", "imitate", "trained", "memory")
ON_A_CPU_ALONE = ("trained", "memory")


def main() -> None:
    if sys.argv[1:2] == ["--one"]:
        print(memory_of(sys.argv[2], *map(int, sys.argv[3:])))
        return
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    found = []
    for device in ["cpu"] + ["cuda"] * torch.cuda.is_available():
        for kind in arguments.kinds:
            if device == "cpu" or kind not in ON_A_CPU_ALONE:
                found += rows(kind, device, arguments.rounds)
    arguments.out.write_text("[\n" + ",\n".join(json.dumps(row) for row in found) + "\n]\n")


if __name__ == "__main__":
    main()
