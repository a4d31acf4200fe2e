"""Residual Flow: a training step and its memory, beside normflows in both of its modes.

`python benchmarks/residual_flow.py OUT.json [--rounds N] [--kinds NAME ...]`. As in `speed.py`: one
thread, CPU time, turns that alternate, ratios with 95 % intervals. Both have the same networks, a
coin of one half after two sure terms, and activations that learn how they bend. normflows has a
mode that saves memory, and one that does not; of ours, the plain block and the one that computes
its graph again. Memory is measured as in `memory.py`, each in a process of its own.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import json
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from made import compare
from memory import grown, medians
from peers import normflows_residual

from flowlib import LipSwish, ResidualFlow, RussianRoulette

PICTURE, CHANNELS, WIDTH = (1, 8, 8), 32, 128
OURS = {"flowlib": False, "recomputed": True}
THEIRS = {"normflows": "roulette", "normflows saving": "saving"}
TRAIN = ("D=2, one layer", "D=2, two layers", "D=64, one layer", "D=64, two layers", "pictures")
MEMORY = tuple(itertools.product(("D=2, two layers", "D=64, two layers"), (4, 16, 48)))


def training(name: str, peer: str, depth: int | None = None) -> Callable[[], None]:
    """A step of the peer on random rows: 256 vectors or 64 pictures."""
    torch.manual_seed(0)
    where, _, layers = name.partition(", ")
    pictures = where == "pictures"
    event = PICTURE if pictures else int(where[2:])
    hidden = (CHANNELS,) if pictures else (WIDTH,) * (2 if layers == "two layers" else 1)
    depth = depth or (4 if pictures else 8)
    if peer in OURS:
        flow = ResidualFlow(
            event, depth, hidden, activation=LipSwish, scale=1.0, recompute=OURS[peer],
            log_det=functools.partial(RussianRoulette, 0.5),
        )  # fmt: skip
    else:
        flow = normflows_residual(event, depth, hidden, THEIRS[peer])
    x = torch.randn(64 if pictures else 256, *(event if pictures else (event,)))
    flow.train()
    if peer in OURS:
        flow.initialize(x)
    optimizer = torch.optim.Adam(flow.parameters(), lr=1e-4, fused=True)

    def step() -> None:
        loss = -flow.log_prob(x).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if peer not in OURS:
            flow.after_step()

    return step


def train_row(name: str, rounds: int) -> dict:
    works = {peer: training(name, peer) for peer in (*OURS, *THEIRS)}
    works["again"] = training(name, "normflows")
    return {"shape": name, "ratios": compare(works, "normflows", rounds)}


def memory_of(peer: str, name: str, depth: int) -> float:
    torch.set_num_threads(1)
    training(name, peer, 2)()  # imports, and what torch sets up, are nobody's fault
    return grown(lambda: training(name, peer, depth))


def memory_row(name: str, depth: int) -> dict:
    script = str(Path(__file__).resolve())
    found = medians(script, (*OURS, *THEIRS), (name, depth))
    return {"shape": name, "depth": depth, "megabytes": found}


def rows(kind: str, rounds: int) -> list[dict]:
    found = (
        [train_row(name, rounds) for name in TRAIN]
        if kind == "train"
        else [memory_row(name, depth) for name, depth in MEMORY]
    )
    found = [{"kind": kind, **row} for row in found]
    print(*found, sep="\n", flush=True)
    return found


KINDS = ("train", "memory")


def main() -> None:
    if sys.argv[1:2] == ["--one"]:
        print(memory_of(sys.argv[2], sys.argv[3], int(sys.argv[4])))
        return
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    found = [row for kind in arguments.kinds for row in rows(kind, arguments.rounds)]
    arguments.out.write_text("[\n" + ",\n".join(json.dumps(row) for row in found) + "\n]\n")


if __name__ == "__main__":
    main()
