"""Trains the book's flows anew and stores their weights: `python tools/weights.py`."""

from __future__ import annotations

import json

import torch

from flowlib import datasets
from flowlib.trained import RECIPES, WEIGHTS, digit_bits, train


def main() -> None:
    WEIGHTS.mkdir(exist_ok=True)
    _, valid, test = datasets.digit_images()[0]
    losses = {}
    for name in RECIPES:
        flow, history = train(name)
        torch.save(flow.state_dict(), WEIGHTS / f"{name}.pt")
        # Rounding grows in a training. By how it begins one sees that this recipe made the weights.
        losses[name] = [round(loss, 4) for loss in history.train[:20]]
        bits = [f"{digit_bits(flow, part):.3f}" for part in (valid, test)]
        print(f"{name}: {' and '.join(bits)} bits/dim on the validation and the test part")
    (WEIGHTS / "first-losses.json").write_text(json.dumps(losses, indent=1) + "\n")


if __name__ == "__main__":
    main()
