"""The whole book on one page: every kind of flow, on the same data, after equal seconds.

`python benchmarks/whole.py OUT.json [--sets NAME ...] [--seeds N]`. Each flow learns as in
`learning.py`; then on the trained flow of the first seed: CPU seconds for a thousand draws and for
a thousand densities, the median of turns that alternate, and the largest error of its
log-determinant against autodiff's in float64, on fifty rows of the test part.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import learning
import torch
from torch import nn

SETS, TURNS = ("moons", "2spirals", "digits", "breast_cancer"), 9
FLOWS = ("NICE", "RealNVP", "MAF", "MAF with splines", "IAF", "IResNet", "ResidualFlow")


def inner(model: nn.Module) -> nn.Module:
    return getattr(model, "flow", model)


def seconds(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


@torch.no_grad()
def speeds(models: dict[str, nn.Module], x: torch.Tensor) -> dict[str, dict[str, float]]:
    works = {}
    for name, model in models.items():
        works[name, "draws"] = lambda flow=model: inner(flow).sample(1000)
        works[name, "densities"] = lambda flow=model: flow.log_prob(x)
    spent = {key: [] for key in works}
    for turn in range(TURNS + 1):
        for key, work in works.items():
            took = seconds(work)
            if turn:
                spent[key].append(took)
    found = {name: {} for name in models}
    for (name, what), values in spent.items():
        found[name][what] = statistics.median(values)
    return found


def error(model: nn.Module, x: torch.Tensor) -> float:
    """Of log-determinants of the map to the latent side, against autodiff."""
    model = copy.deepcopy(model).double().eval()
    if hasattr(model, "flow"):
        model.log_prob(x[:2].double())  # puts the log-determinants of evaluation in their place
    bijection, worst = inner(model).bijection, 0.0
    for row in x[:50].double():
        jacobian = torch.autograd.functional.jacobian(lambda v: bijection(v[None])[0][0], row)
        with torch.no_grad():
            claimed = bijection(row[None])[1][0]
        worst = max(worst, float((torch.linalg.slogdet(jacobian)[1] - claimed).abs()))
    return worst


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--sets", nargs="+", default=SETS)
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    found = []
    for name in arguments.sets:
        models, rows = {}, {}
        for peer in FLOWS:
            runs = [
                learning.learn(name, peer, seed, "whole", learning.SECONDS[name], models)
                for seed in range(arguments.seeds)
            ]
            rows[peer] = {"set": name, "flow": peer, "nll": [run["nll"] for run in runs]}
        _, _, test, _ = learning.load(name, 0)
        x = test.repeat(-(-1000 // len(test)), 1)[:1000]
        for peer, took in speeds(models, x).items():
            rows[peer] |= {
                **took,
                "weights": sum(p.numel() for p in models[peer].parameters()),
                "error": error(models[peer], test),
            }
            print(rows[peer], flush=True)
        found += rows.values()
    arguments.out.write_text("[\n" + ",\n".join(json.dumps(row) for row in found) + "\n]\n")


if __name__ == "__main__":
    main()
