"""Seconds that check_flow takes, for every ready flow at D = 2, 16 and 784.

`python benchmarks/diagnosis.py OUT.json [FLOW...]`. One thread, CPU time, each flow in a process of
its own, so that its peak of memory is its own, too. Flows are fresh and of their default size, but
for exact determinants of pictures: four blocks of 16 channels, where the default's gradient alone
would take tens of gigabytes.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import torch

import flowlib

DIMS = (2, 16, 784)
PICTURE = (1, 28, 28)
VECTORS = ("NICE", "RealNVP", "MAF", "IAF", "IResNet", "ResidualFlow")
ROWS = 300
FLOWS = {
    **{f"{name}({dim})": (name, dim, {}) for name in VECTORS for dim in DIMS},
    "ImageRealNVP(1, 4, 4)": ("ImageRealNVP", (1, 4, 4), {}),
    "ImageRealNVP(1, 28, 28)": ("ImageRealNVP", PICTURE, {}),
    "IResNet(1, 28, 28)": ("IResNet", PICTURE, {"n_layers": 4, "hidden": 16}),
    "ResidualFlow(1, 28, 28)": ("ResidualFlow", PICTURE, {}),
}


def measured(name: str) -> dict[str, object]:
    """What one flow takes, and that nothing is said against it."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    kind, event, options = FLOWS[name]
    flow = getattr(flowlib, kind)(event, **options)
    x = torch.randn(ROWS, *flow.event_shape)
    x = x if flow.bijection.domain is None else x.sigmoid()
    began = time.process_time()
    report = flowlib.check_flow(flow, x)
    return {
        "flow": name,
        "dim": x[0].numel(),
        "seconds": round(time.process_time() - began, 2),
        "megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "wrong": [finding.line for finding in report.wrong],
        "not tried": [f.line for f in report.findings if f.verdict == "not tried"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("flows", nargs="*", default=list(FLOWS), metavar="FLOW")
    parser.add_argument("--here", action="store_true", help="one flow, in this process")
    options = parser.parse_args()
    if options.here:
        options.out.write_text(json.dumps(measured(*options.flows)))
        return
    rows = []
    for name in options.flows:
        command = [sys.executable, __file__, str(options.out), name, "--here"]
        subprocess.run(command, check=True)
        rows.append(json.loads(options.out.read_text()))
        print(rows[-1], flush=True)
    options.out.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
