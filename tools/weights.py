"""Trains the book's flows anew and stores their weights: `python tools/weights.py`."""

from __future__ import annotations

import json

import torch

from flowlib import datasets
from flowlib.trained import RECIPES, WEIGHTS, digit_bits, train


def judge(name: str, flow: torch.nn.Module) -> str:
    """How good it is on the validation and on the test part."""
    if RECIPES[name].binary:
        with torch.no_grad():
            nats = [-flow.log_prob(x).mean().item() for x in datasets.binary_digits()[0][1:]]
        return f"{nats[0]:.2f} and {nats[1]:.2f} nats"
    bits = [digit_bits(flow, levels) for levels in datasets.digit_images()[0][1:]]
    return f"{bits[0]:.3f} and {bits[1]:.3f} bits/dim"


def main() -> None:
    WEIGHTS.mkdir(exist_ok=True)
    losses = {}
    for name in RECIPES:
        flow, history = train(name)
        torch.save(flow.state_dict(), WEIGHTS / f"{name}.pt")
        # Rounding grows in a training. By how it begins one sees that this recipe made the weights.
        losses[name] = [round(loss, 4) for loss in history.train[:20]]
        print(f"{name}: {judge(name, flow)}")
    (WEIGHTS / "first-losses.json").write_text(json.dumps(losses, indent=1) + "\n")


if __name__ == "__main__":
    main()
