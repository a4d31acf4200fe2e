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
from collections.abc import Callable, Iterable
from pathlib import Path

SHAPES = ((6, 64, 1024), (64, 64, 1024), (64, 512, 1024), (64, 512, 4096))
RUNS = 5


def one(peer: str, dim: int, width: int, batch: int) -> float:
    import torch
    from speed import works

    torch.set_num_threads(1)
    # imports, and what torch sets up at its first training, are nobody's fault
    works(peer, 6, 64, 1024, "cpu")["train"]()
    return grown(lambda: works(peer, dim, width, batch, "cpu")["train"])


def grown(prepare: Callable[[], Callable]) -> float:
    """Megabytes by which this process grows in a few steps of what is prepared, at its peak."""
    gc.collect()
    before = reset_peak()
    step = prepare()
    for _ in range(10):
        step()
    return (resident("VmHWM") - before) / 1024


def resident(which: str) -> int:
    """Kilobytes of this process that are in memory now (VmRSS) or were at the peak (VmHWM)."""
    return int(re.search(rf"{which}:\s+(\d+) kB", Path("/proc/self/status").read_text())[1])


def reset_peak() -> int:
    """From here on the peak is counted anew (Linux); what is in memory now."""
    Path("/proc/self/clear_refs").write_text("5")
    return resident("VmRSS")


def medians(script: str, names: Iterable[str], shape: tuple[int, ...]) -> dict[str, float]:
    """What `script --one NAME *SHAPE` prints, each time in a new process that measures itself."""
    # Arrays go back to the system when they are freed; otherwise the heap's habits are measured.
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "16384"}
    megabytes = {name: [] for name in names}
    for _ in range(RUNS):
        for name in megabytes:
            command = [sys.executable, script, "--one", name, *map(str, shape)]
            done = subprocess.run(
                command, env=environment, capture_output=True, text=True, check=True
            )
            megabytes[name].append(float(done.stdout))
    return {name: statistics.median(values) for name, values in megabytes.items()}


def main() -> None:
    from peers import REALNVP

    if sys.argv[1] == "--one":
        print(one(sys.argv[2], *map(int, sys.argv[3:])))
        return
    rows = []
    for shape in SHAPES:
        rows.append(dict(zip(("dim", "width", "batch"), shape, strict=True)))
        rows[-1]["megabytes"] = medians(__file__, REALNVP, shape)
        print(rows[-1], flush=True)
    Path(sys.argv[1]).parent.mkdir(exist_ok=True)
    Path(sys.argv[1]).write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
