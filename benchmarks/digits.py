"""Bits per dimension of the digits by four flows of as many parameters: three seeds.

`python benchmarks/digits.py OUT.json`
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from flowlib import datasets
from flowlib.trained import digit_bits, train

FLOWS = (
    "digits-as-images", "digits-as-vectors", "digits-by-residuals", "digits-by-roulette"
)  # fmt: skip
SEEDS = (0, 1, 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("out", type=Path)
    out = parser.parse_args().out
    test = datasets.digit_images()[0].test
    rows = []
    for seed in SEEDS:
        for name in FLOWS:
            flow, _ = train(name, seed)
            weights = sum(p.numel() for p in flow.parameters())
            bits = round(digit_bits(flow, test), 4)
            rows.append({"flow": name, "seed": seed, "weights": weights, "bits": bits})
            print(rows[-1], flush=True)
    out.write_text("[\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]\n")


if __name__ == "__main__":
    main()
