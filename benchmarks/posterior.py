"""IAF as the posterior of an autoencoder on the binary digits: three starts, each with its pair.

`python benchmarks/posterior.py OUT.json`: what chapter 4 does once. Decoder and features are
trained with a bell for each hidden number, then held fixed; a new guess with bells and one of four
layers are trained on them. Of each the bound on the test part, the bound by 200 weighted draws, and
the standard error of the difference between the two guesses, picture by picture.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path

import torch
from torch.distributions import Normal
from torch.nn.functional import binary_cross_entropy_with_logits

from flowlib import IAF, MLP, datasets

DRAWS = 200
GUESSES = {"bells": (1, [1, 1]), "four layers": (4, "random")}


def one(seed: int) -> dict:
    torch.manual_seed(seed)
    (train, _, test), _ = datasets.binary_digits()
    decoder, features = MLP(2, (128, 128), 64), MLP(64, 128, 32)
    torch.nn.init.normal_(features.layers[-1].weight, std=0.1)

    def gain(z, log_q, x):
        x = x.expand(*z.shape[:-1], 64)
        log_p = -binary_cross_entropy_with_logits(decoder(z), x, reduction="none").sum(-1)
        return log_p + Normal(0, 1).log_prob(z).sum(-1) - log_q

    def learn(guess, modules, steps):
        optimizer = torch.optim.Adam(p for m in modules for p in m.parameters())
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 5e-3, total_steps=steps)
        for _ in range(steps):
            x = train[torch.randint(len(train), (128,))]
            loss = -gain(*guess.rsample_and_log_prob((), features(x)), x).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()

    def guess_of(n_layers, order):
        return IAF(2, n_layers, 32, order=order, context_dim=32)

    first = guess_of(*GUESSES["bells"])
    learn(first, [first, features, decoder], 1500)
    features.requires_grad_(False)
    decoder.requires_grad_(False)
    row, bounds = {"seed": seed}, {}
    for name, shape in GUESSES.items():
        guess = guess_of(*shape)
        learn(guess, [guess], 700)
        with torch.no_grad():
            found = gain(*guess.rsample_and_log_prob(DRAWS, features(test)), test)
        bounds[name] = found.mean(0)
        weighted = found.logsumexp(0).mean() - math.log(DRAWS)
        row[name] = {"bound": bounds[name].mean().item(), "weighted": weighted.item()}
    better = bounds["four layers"] - bounds["bells"]
    row["error"] = (better.std() / len(better) ** 0.5).item()
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("out", type=Path)
    out = parser.parse_args().out
    torch.set_num_threads(1)
    rows = [one(seed) for seed in range(3)]
    out.write_text(json.dumps(rows, indent=1) + "\n")
    print(*rows, sep="\n")


if __name__ == "__main__":
    main()
