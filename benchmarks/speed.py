"""The speed of RealNVP in four libraries, on the same work, in one run.

`python benchmarks/speed.py OUT.json [--rounds N]`. One thread, CPU time. In each
round every library has one short turn, so that what else the machine does hits all of them; what is
reported is the ratio to the fastest peer, round by round, as its median with a 95 % interval. That
peer is entered twice: its ratio to itself is the noise of the row. Where there is a GPU, it is
measured too, by the clock.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import peers
import torch
from scipy.stats import binom

LAYERS = 5
DIMS, WIDTHS, BATCHES = (2, 6, 64), (64, 512), (256, 1024)
TURN = 0.04  # seconds


def works(
    peer: str, dim: int, width: int, batch: int, device: str, family: str = "realnvp"
) -> dict[str, Callable]:
    """What is timed: a training step, the density of a batch, a batch of draws."""
    torch.manual_seed(0)
    make = peers.unmasked if peer == "unmasked" else peers.FAMILIES[family][peer]
    model = make(dim, LAYERS, (width, width)).to(device)
    x = torch.randn(batch, dim, device=device)
    if hasattr(model, "initialize"):
        model.initialize(x)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4, fused=True)

    def train():
        loss = -model.log_prob(x).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return {
        "train": train,
        "log_prob": torch.no_grad()(lambda: model.log_prob(x)),
        "sample": torch.no_grad()(lambda: model.sample(batch)),
    }


def turn(work: Callable, times: int, device: str) -> float:
    clock = time.process_time if device == "cpu" else time.perf_counter
    if device != "cpu":
        torch.cuda.synchronize()
    began = clock()
    for _ in range(times):
        work()
    if device != "cpu":
        torch.cuda.synchronize()
    return (clock() - began) / times


def interval(values: list[float]) -> tuple[float, float, float]:
    """The median, and the two order statistics that enclose it in at least 95 % of all cases."""
    ordered, n = sorted(values), len(values)
    k = int(binom.ppf(0.025, n, 0.5))
    return statistics.median(ordered), ordered[k - 1], ordered[n - k]


def row(kind: str, dim: int, width: int, batch: int, device: str, rounds: int) -> dict:
    entries = {peer: works(peer, dim, width, batch, device)[kind] for peer in peers.REALNVP}
    for work in entries.values():
        turn(work, 3, device)
    times = max(1, round(TURN / turn(entries["flowlib"], 3, device)))
    trial = {
        peer: statistics.median(turn(work, times, device) for _ in range(5))
        for peer, work in entries.items()
    }
    fastest = min((seconds, peer) for peer, seconds in trial.items() if peer != "flowlib")[1]
    entries["again"] = works(fastest, dim, width, batch, device)[kind]
    turn(entries["again"], 3, device)
    spent = {peer: [] for peer in entries}
    order = list(entries)
    for i in range(rounds):
        for peer in order[i % len(order) :] + order[: i % len(order)]:
            spent[peer].append(turn(entries[peer], times, device))
    ratios = {
        peer: interval([a / b for a, b in zip(spent[peer], spent[fastest], strict=True)])
        for peer in entries
    }
    return {
        "kind": kind, "dim": dim, "width": width, "batch": batch, "device": device,
        "fastest": fastest, "ratios": ratios,
        "milliseconds": {peer: 1e3 * statistics.median(s) for peer, s in spent.items()},
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("--rounds", type=int, default=40)
    arguments = parser.parse_args()
    if arguments.rounds < 6:
        parser.error("an interval of 95 % takes 6 rounds or more")
    torch.set_num_threads(1)
    rows = []
    for device in ["cpu"] + ["cuda"] * torch.cuda.is_available():
        for kind, *shape in itertools.product(
            ("train", "log_prob", "sample"), DIMS, WIDTHS, BATCHES
        ):
            rows.append(row(kind, *shape, device, arguments.rounds))
            ratio, low, high = rows[-1]["ratios"]["flowlib"]
            noise = rows[-1]["ratios"]["again"]
            print(
                f"{device} {kind:8} D={shape[0]:2} width={shape[1]:3} batch={shape[2]:4}  "
                f"{ratio:.3f} [{low:.3f}, {high:.3f}] of {rows[-1]['fastest']}, "
                f"which is {noise[0]:.3f} [{noise[1]:.3f}, {noise[2]:.3f}] of itself",
                flush=True,
            )
    arguments.out.parent.mkdir(exist_ok=True)
    arguments.out.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
