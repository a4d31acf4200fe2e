"""Trains the book's flows anew and stores their weights: `python tools/weights.py [--check]`.

With `--check` nothing is stored: what is made anew must begin as the stored weights began, and in
the end, when rounding has grown, be as good as they are.
"""

from __future__ import annotations

import argparse
import json
import sys

import numpy as np
import torch

from flowlib import datasets
from flowlib.trained import RECIPES, WEIGHTS, digit_bits, pretrained, train

FIRST = WEIGHTS / "first-losses.json"
STEPS = 20  # whose losses are stored; by how a training begins one sees which recipe it has
AT_FIRST = 0.02  # nats between two machines; another seed is off by whole ones


def score(name: str, model: torch.nn.Module) -> tuple[float, float]:
    """How good it is on the validation and on the test part: in nats, or in bits/dim."""
    data = RECIPES[name].data
    if data == "grey":
        valid, test = (digit_bits(model, levels) for levels in datasets.digit_images()[0][1:])
        return valid, test
    if data == "binary":
        _, *parts = datasets.binary_digits()[0]
    else:
        parts = [datasets.TOYS[data].sample(20_000, np.random.default_rng(s)) for s in (98, 99)]
    with torch.no_grad():
        valid, test = (-model.log_prob(x).mean().item() for x in parts[:2])
    return valid, test


def store() -> None:
    WEIGHTS.mkdir(exist_ok=True)
    losses = {}
    for name in RECIPES:
        model, history = train(name)
        torch.save(model.state_dict(), WEIGHTS / f"{name}.pt")
        losses[name] = [round(loss, 4) for loss in history.train[:STEPS]]
        print(f"{name}: {_said(name, model)}")
    FIRST.write_text(json.dumps(losses, indent=1) + "\n")


def check() -> list[str]:
    """What is not as it was, model by model."""
    losses, wrong = json.loads(FIRST.read_text()), []
    for name in RECIPES:
        model, history = train(name)
        stored = pretrained(name)
        print(f"{name}: stored {_said(name, stored)}; made anew {_said(name, model)}", flush=True)
        off = max(abs(a - b) for a, b in zip(losses[name], history.train, strict=False))
        if off > AT_FIRST:
            wrong.append(f"{name}: its first {STEPS} losses are off by up to {off:.3f}")
        most = {"binary": 0.3, "grey": 0.02}.get(RECIPES[name].data, 0.05)
        if abs(score(name, model)[1] - score(name, stored)[1]) > most:
            wrong.append(f"{name}: made anew it is not as good, or better, by more than {most}")
    return wrong


def _said(name: str, model: torch.nn.Module) -> str:
    unit, digits = ("bits/dim", 3) if RECIPES[name].data == "grey" else ("nats", 2)
    valid, test = score(name, model)
    return f"{valid:.{digits}f} and {test:.{digits}f} {unit}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--check", action="store_true", help="compare with the stored, store nothing"
    )
    if not parser.parse_args().check:
        store()
    elif wrong := check():
        sys.exit("\n".join(wrong))
    else:
        print("All are as their recipes make them.")


if __name__ == "__main__":
    main()
