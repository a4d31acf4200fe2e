"""A training step with `compile=True` and without: every ready flow, and peers' flows likewise.

`python benchmarks/compile.py OUT.json [--rounds N] [--flows NAME ...]`. One thread, CPU time. Both
steps are of the same flow and the same rows, and take turns of a twentieth of a second. Reported is
how many times as long the plain step takes, as the median over the rounds with a 95 % interval, and
of each the fastest turn. The first step is measured with an empty cache, and is the processor time
of this process and of the compilers that it starts; before, one sum is compiled, since the first
code of all takes seconds more.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import peers
import torch
from speed import LAYERS, TURN, interval, turn
from torch import nn

import flowlib
from flowlib.training import _code

DIMS, BATCH, PICTURES, SETTLED = (2, 16), 256, 64, 40
WIDTHS = (64, 64)


class Case(NamedTuple):
    flow: str
    peer: str  # or "flowlib"
    shape: str
    make: Callable[[], nn.Module]
    rows: Callable[[], torch.Tensor] | None  # None: it is trained by its own draws


def cases() -> list[Case]:
    ready: dict[str, Callable[[int], nn.Module]] = {
        "NICE": flowlib.NICE,
        "RealNVP": lambda dim: peers.REALNVP["flowlib"](dim, LAYERS, WIDTHS),
        "MAF": lambda dim: peers.MAF["flowlib"](dim, LAYERS, WIDTHS),
        "IAF": lambda dim: peers.iaf(dim, LAYERS, WIDTHS),
        "IResNet": flowlib.IResNet,
        "ResidualFlow": flowlib.ResidualFlow,
    }
    found = [
        Case(
            name, "flowlib", f"D = {dim}", functools.partial(make, dim),
            None if name == "IAF" else functools.partial(torch.randn, BATCH, dim),
        )
        for name, make in ready.items() for dim in DIMS
    ]  # fmt: skip
    found += [
        Case(
            "ImageRealNVP", "flowlib", "1 × 8 × 8", lambda: flowlib.ImageRealNVP((1, 8, 8)),
            lambda: torch.rand(PICTURES, 1, 8, 8),
        ),
        Case(
            "BernoulliMADE", "flowlib", "D = 16", lambda: flowlib.BernoulliMADE(16),
            lambda: (torch.rand(BATCH, 16) < 0.3).float(),
        ),
    ]  # fmt: skip
    families = {"RealNVP": peers.REALNVP, "MAF": peers.MAF, "IAF": peers.IAF}
    found += [
        Case(
            name, peer, f"D = {dim}", functools.partial(family[peer], dim, LAYERS, WIDTHS),
            None if name == "IAF" else functools.partial(torch.randn, BATCH, dim),
        )
        for name, family in families.items()
        for peer in ("zuko", "nflows", "normflows") if peer in family
        for dim in DIMS[-1:]
    ]  # fmt: skip
    return found


def training(case: Case, compiled: bool) -> Callable[[], None]:
    """A step, whose flow is compiled as `fit` and `fit_variational` do."""
    torch.manual_seed(0)
    flow = case.make().train()
    if case.rows is None:
        work, argument = flow.rsample_and_log_prob, BATCH
    else:
        work, argument = flow.log_prob, case.rows()
        if hasattr(flow, "initialize"):
            flow.initialize(argument)
    if compiled:
        work = _code(work)
    optimizer = torch.optim.Adam(flow.parameters(), lr=1e-4, fused=True)

    def step() -> None:
        made = work(argument)
        if case.rows is None:  # to the standard normal density
            x, log_q = made
            loss = (log_q + x.square().sum(1) / 2).mean()
        else:
            loss = -made.mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def seconds(work: Callable[[], object]) -> float:
    """Of processors, those of waited-for children included."""
    began = sum(os.times()[:4])
    work()
    return sum(os.times()[:4]) - began


def row(case: Case, rounds: int) -> dict:
    torch.compiler.reset()
    works = {"plain": training(case, False), "compiled": training(case, True)}
    first = seconds(works["compiled"])
    next_steps = seconds(lambda: turn(works["compiled"], SETTLED, "cpu"))  # a coin's other numbers
    times = {name: max(1, round(TURN / turn(work, 5, "cpu"))) for name, work in works.items()}
    spent = {name: [] for name in works}
    for i in range(rounds):
        for name in sorted(works, reverse=i % 2):
            spent[name].append(turn(works[name], times[name], "cpu"))
    faster = [a / b for a, b in zip(spent["plain"], spent["compiled"], strict=True)]
    return {
        "flow": case.flow,
        "peer": case.peer,
        "shape": case.shape,
        "times_faster": interval(faster),
        "milliseconds": {name: 1e3 * min(values) for name, values in spent.items()},
        "first_step": first,
        "next_steps": next_steps,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--rounds", type=int, default=40)
    names = [*dict.fromkeys(case.flow for case in cases())]
    parser.add_argument("--flows", nargs="+", choices=names, default=names)
    arguments = parser.parse_args()
    if arguments.rounds < 6:
        parser.error("an interval of 95 % takes 6 rounds or more")
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as empty:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = empty
        os.environ["TORCHINDUCTOR_COMPILE_THREADS"] = "1"  # the time of others is not seen
        start = seconds(lambda: _code(lambda x: x + 1)(torch.zeros(2)))
        found = [{"flow": "a sum", "first_step": start}]
        for case in cases():
            if case.flow in arguments.flows:
                found.append(row(case, arguments.rounds))
                print(found[-1], flush=True)
    arguments.out.write_text("[\n" + ",\n".join(json.dumps(row) for row in found) + "\n]\n")


if __name__ == "__main__":
    main()
