"""What the flows stand beside: a Gaussian, kernels and a mixture on the eight sets, and the truth.

`python benchmarks/classics.py OUT.json`: held-out NLL, in the units and on the
test data of `learning.py`. Of a shape in the plane they learn from 10,000 points.
The kernels' width and the mixture's size are chosen on a validation part.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import torch
from learning import SETS, TOYS, load
from sklearn.mixture import GaussianMixture
from sklearn.neighbors import KernelDensity

from flowlib import datasets

WIDTHS = (0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.9, 1.2)
SIZES, FLOORS = (2, 3, 5, 8, 12, 20, 40), (1e-4, 1e-3, 1e-2, 1e-1)


def scores(name: str) -> dict[str, float]:
    """Of one set the held-out NLL of each method, as of `learning.py`."""
    _, valid, test, units = load(name, seed=0)
    if name in TOYS:
        toy = datasets.TOYS[name]
        train, valid = toy.sample(12_000, np.random.default_rng(5)).double().split([10_000, 2_000])
    elif name == "digits":
        train = datasets.digits(np.random.default_rng(7))[0].train
    else:
        train = getattr(datasets, name)().train
    train, valid = train.double().numpy(), valid.double().numpy()
    held_out = test.double().numpy()

    def best(models):
        return max((model.fit(train) for model in models), key=lambda model: model.score(valid))

    fitted = {
        "Gaussian": GaussianMixture(1, reg_covar=1e-6).fit(train),
        "kernels": best(KernelDensity(bandwidth=h) for h in WIDTHS),
        "mixture": best(
            GaussianMixture(k, reg_covar=r, random_state=0) for k in SIZES for r in FLOORS
        ),
    }
    found = {
        method: float(units(-torch.as_tensor(model.score_samples(held_out))).mean())
        for method, model in fitted.items()
    }
    if name in TOYS:
        found["truth"] = -datasets.TOYS[name].log_prob(test).mean().item()
    return found


def main() -> None:
    results = {name: scores(name) for name in SETS}
    Path(sys.argv[1]).write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
