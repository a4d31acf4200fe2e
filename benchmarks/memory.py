"""How much memory a training of RealNVP needs in four libraries, each in a process of its own.

`python benchmarks/memory.py OUT.json`: megabytes that the process grew by at its peak, counted
from before the model was made.
"""

from __future__ import annotations

import gc
import json
import os
import re
import statistics
import subprocess
import sys
from pathlib import Path

SHAPES = ((6, 64, 1024), (64, 64, 1024), (64, 512, 1024), (64, 512, 4096))
RUNS = 5


def one(peer: str, dim: int, width: int, batch: int) -> float:
    import torch
    from speed import works

    torch.set_num_threads(1)
    # imports, and what torch sets up at its first training, are nobody's fault
    works(peer, 6, 64, 1024, "cpu")["train"]()
    gc.collect()
    before = reset_peak()
    train = works(peer, dim, width, batch, "cpu")["train"]
    for _ in range(10):
        train()
    return (resident("VmHWM") - before) / 1024


def resident(which: str) -> int:
    """Kilobytes of this process that are in memory now (VmRSS) or were at the peak (VmHWM)."""
    return int(re.search(rf"{which}:\s+(\d+) kB", Path("/proc/self/status").read_text())[1])


def reset_peak() -> int:
    """From here on the peak is counted anew (Linux); what is in memory now."""
    Path("/proc/self/clear_refs").write_text("5")
    return resident("VmRSS")


def main() -> None:
    from peers import REALNVP

    if sys.argv[1] == "--one":
        print(one(sys.argv[2], *map(int, sys.argv[3:])))
        return
    # Arrays go back to the system when they are freed; otherwise the heap's habits are measured.
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "16384"}
    rows = []
    for shape in SHAPES:
        megabytes = {peer: [] for peer in REALNVP}
        for _ in range(RUNS):
            for peer in REALNVP:
                command = [sys.executable, __file__, "--one", peer, *map(str, shape)]
                done = subprocess.run(
                    command, env=environment, capture_output=True, text=True, check=True
                )
                megabytes[peer].append(float(done.stdout))
        medians = {peer: statistics.median(values) for peer, values in megabytes.items()}
        rows.append(
            {**dict(zip(("dim", "width", "batch"), shape, strict=True)), "megabytes": medians}
        )
        print(rows[-1], flush=True)
    Path(sys.argv[1]).parent.mkdir(exist_ok=True)
    Path(sys.argv[1]).write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
