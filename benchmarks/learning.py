"""Held-out NLL after equal seconds of CPU time: the same loop for every library's model.

`python benchmarks/learning.py OUT.json [--family maf] [--sets NAME ...] [--seeds N] [--peers NAME
...]`
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import time
from pathlib import Path

import numpy as np
import peers
import torch

from flowlib import datasets

LAYERS = {"realnvp": 6, "maf": 5, "parts": 5, "ours": 5, "iresnet": 8, "residual": 8, "whole": 5}
HIDDEN = (64, 64)
RATE = {"iresnet": 5e-3, "residual": 1e-2}  # of Adam; else 1e-3
DECAYS = ("residual",)  # to 0, as a cosine does, over the seconds
TOYS = ("moons", "8gaussians", "checkerboard", "2spirals", "rings")
SETS = (*TOYS, "digits", "breast_cancer", "wine")
SECONDS = {**dict.fromkeys(TOYS, 5.0), "digits": 10.0, "breast_cancer": 3.0, "wine": 3.0}


def load(name: str, seed: int):
    """A function step -> batch, a validation part or None, a test part, a map from NLL to units."""
    rng = np.random.default_rng([seed, 1])
    if name in TOYS:
        toy = datasets.TOYS[name]
        # what a step costs must not depend on who draws: the batches are drawn before
        pool = toy.sample(400_000, rng)
        test = toy.sample(20_000, np.random.default_rng(99))
        return lambda step: pool[(step * 256) % 399_000 :][:256], None, test, lambda nll: nll
    if name == "digits":
        parts, log_det = datasets.digits(np.random.default_rng(7))

        def units(nll):
            return datasets.bits_per_dim(-nll + log_det.test, 64, levels=17)

    else:
        parts = getattr(datasets, name)()

        def units(nll):
            return nll.mean()

    order = rng.integers(0, len(parts.train), (20_000, 128))
    return lambda step: parts.train[order[step % 20_000]], parts.valid, parts.test, units


def learn(
    name: str, peer: str, seed: int, family: str, seconds: float, keep: dict | None = None
) -> dict:
    """Train with Adam for so many seconds; the test NLL, for tables at the best step. The model of
    the first seed goes to ``keep``."""
    torch.manual_seed(seed)
    batch, valid, test, units = load(name, seed)
    model = peers.FAMILIES[family][peer](test.shape[1], LAYERS[family], HIDDEN)
    kind = {"IResNet": "iresnet", "ResidualFlow": "residual"}.get(peer, family)
    rate = RATE.get(kind, 1e-3)
    optimizer = torch.optim.Adam(model.parameters(), lr=rate)
    best, kept, step, spent = math.inf, None, 0, 0.0
    while spent < seconds:
        began = time.process_time()
        if kind in DECAYS:
            optimizer.param_groups[0]["lr"] = rate * (1 + math.cos(math.pi * spent / seconds)) / 2
        for _ in range(25):
            x = batch(step)
            if step == 0 and hasattr(model, "initialize"):
                model.initialize(x)
            loss = -model.log_prob(x).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if hasattr(model, "after_step"):
                model.after_step()
            step += 1
        spent += time.process_time() - began
        if valid is not None:
            model.eval()
            with torch.no_grad():
                value = -model.log_prob(valid).mean().item()
            if value < best:
                best, kept = value, copy.deepcopy(model.state_dict())
            model.train()
    if kept is not None:
        model.load_state_dict(kept)
    model.eval()
    with torch.no_grad():
        nll = -model.log_prob(test)
    if keep is not None and seed == 0:
        keep[peer] = model
    row = {"set": name, "peer": peer, "seed": seed, "seconds": seconds, "steps": step,
           "nll": float(units(nll).mean())}  # fmt: skip
    if peer == "roulette":
        with torch.no_grad():
            row["claim"] = float(units(-peers.by_itself(model).log_prob(test)).mean())
    return row


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("--sets", nargs="+", default=SETS)
    parser.add_argument("--family", choices=peers.FAMILIES, default="realnvp")
    parser.add_argument("--peers", nargs="+")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--seconds", type=float, help="of each; by default the set's own")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for name in arguments.sets:
        for seed in range(arguments.seeds):
            for peer in arguments.peers or peers.FAMILIES[arguments.family]:
                seconds = arguments.seconds or SECONDS[name]
                rows.append(learn(name, peer, seed, arguments.family, seconds))
                print(rows[-1], flush=True)
    arguments.out.parent.mkdir(exist_ok=True)
    arguments.out.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
