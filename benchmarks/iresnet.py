"""Invertible residual networks: the way back, a training step and memory, beside normflows.

`python benchmarks/iresnet.py OUT.json [--rounds N] [--kinds NAME ...]`. As in `speed.py`: one
thread, CPU time, turns that alternate, ratios with 95 % intervals. The way back is measured at the
same **true** error: both invert the same blocks in float64, of a trained flow and of layers that
all reach their bounds, and each has the loosest tolerance at which no row of a thousand (of
pictures, a hundred) is off by more than 1e-5. Ours are `flowlib.Branch`es, and normflows' solver
gets a network of its own layers with the same weights.
"""

from __future__ import annotations

import argparse
import bisect
import functools
import itertools
import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from made import compare
from memory import grown, medians
from peers import normflows_residual
from torch import Tensor, nn

from flowlib import (
    Branch,
    ExactLogDet,
    IResNet,
    PowerSeries,
    ResidualBlock,
    Sine,
    datasets,
    fit,
)

WAY_BACK = tuple(itertools.product(("trained", "at the bound"), (2, 64, "pictures"), (0.9, 0.97)))
PICTURE, CHANNELS, WIDTH = (1, 8, 8), 32, 128
TRUE_ERROR = 1e-5
LADDER = [10 ** (-k / 4) for k in range(4, 92)]
TRAIN = ("D=2, exact", "D=2, series", "D=64, series", "pictures, series")
TERMS = 5
MEMORY = ("D=64, series", "pictures, series")


# --- the way back ---------------------------------------------------------------------------


def rows_of(shape: int | str) -> int:
    return 1000 if isinstance(shape, int) else 100


def trained(shape: int | str, lipschitz: float) -> tuple[list[nn.Module], Tensor]:
    """The residual blocks of a flow trained on moons or on digits, and a thousand of its data."""
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    event, hidden, depth = (shape, WIDTH, 8) if isinstance(shape, int) else (PICTURE, CHANNELS, 4)
    if shape == 2:
        x, log_det = datasets.TOYS["moons"].sample(10_000, rng), ExactLogDet
    else:
        x = datasets.digits(np.random.default_rng(7))[0].train
        x, log_det = x.unflatten(1, PICTURE) if shape == "pictures" else x, PowerSeries
    flow = IResNet(event, depth, hidden, lipschitz=lipschitz, log_det=log_det, activation=Sine)
    fit(flow, x, steps=400, lr=3e-3, batch_size=128, progress=False)
    flow = flow.double().eval()
    at, made = x[: rows_of(shape)].double(), []
    with torch.no_grad():
        for step in flow.bijection:
            if isinstance(step, ResidualBlock):
                made.append((step, at))
            at = step(at)[0]
    return [block for block, _ in made], made[0][1]


def at_the_bound(shape: int | str, lipschitz: float) -> tuple[list[nn.Module], Tensor]:
    """Residual blocks that move points as much as they may: ``g`` is nearly ``c`` times a rotation,
    of pictures ``c`` times a convolution and its transpose, whose norm is 1."""
    torch.manual_seed(0)
    event, hidden, depth = (shape, WIDTH, 8) if isinstance(shape, int) else (PICTURE, CHANNELS, 4)
    branches = (Branch(event, hidden, lipschitz, Sine, 1.0) for _ in range(depth))
    made = [ResidualBlock(branch) for branch in branches]
    for k, block in enumerate(made):
        first, last = block.branch.layers
        with torch.no_grad():
            if isinstance(shape, int):
                turn = nn.init.orthogonal_(torch.empty(shape, shape))
                last.weight.copy_(turn @ first.weight.mT)
            else:
                nn.init.normal_(first.weight)
                last.weight.copy_((-1) ** k * first.weight.transpose(0, 1).flip(2, 3))
            for layer in (first, last):
                layer.weight.mul_(10), layer.bias.zero_()
        block.double().eval()
    # near zero, where a sine is steepest
    return made, 0.2 * torch.randn(rows_of(shape), *made[0].event_shape).double()


WEIGHTS = {"trained": trained, "at the bound": at_the_bound}


class Curve(nn.Module):
    """An activation of ours for a network of theirs."""

    def __init__(self, activation: nn.Module) -> None:
        super().__init__()
        self.activation = activation

    def forward(self, h: Tensor) -> Tensor:
        s = self.activation.scale
        return torch.sin(s * h) / s


def theirs(block: nn.Module) -> nn.Module:
    """normflows' block of normflows' layers with the weights of ours."""
    import normflows as nf
    from normflows.nets.lipschitz import InducedNormConv2d, InducedNormLinear

    layers: list[nn.Module] = []
    for k, ours in enumerate(block.branch.layers):
        layers += [Curve(block.branch.activations[k - 1])] if k else []
        weight = ours.capped().detach()
        options = {"coeff": 2.0, "domain": 2, "codomain": 2, "n_iterations": 5}
        if weight.ndim == 2:
            layer = InducedNormLinear(ours.inputs, ours.outputs, **options)
        else:
            side = ours.kernel_size
            layer = InducedNormConv2d(ours.inputs, ours.outputs, side, 1, side // 2, **options)
        layer = layer.double()
        with torch.no_grad():
            layer.weight.copy_(weight)
            layer.bias.copy_(ours.bias.flatten())
        layers.append(layer)
    net = nn.Sequential(*layers)
    net(torch.zeros(1, *block.event_shape).double())  # a convolution learns its size
    return nf.flows.Residual(net.eval()).eval().iresblock


def way_back_row(weights: str, shape: int | str, lipschitz: float, rounds: int) -> dict:
    made, x = WEIGHTS[weights](shape, lipschitz)
    with torch.no_grad():
        z = x
        for block in made:
            z = z + block.branch(z)
        peers = [theirs(block) for block in made]
        assert torch.allclose(x + peers[0].nnet(x), x + made[0].branch(x), atol=1e-9)

    @torch.no_grad()
    def ours(tol: float, accelerated: bool = True) -> Tensor:
        back = z
        for block in reversed(made):
            block.tol = tol
            back = block.solve(back, accelerated).x
        return back

    @torch.no_grad()
    def normflows(tol: float) -> Tensor:
        back = z
        for block in reversed(peers):
            back = block._inverse_fixed_point(back, tol, tol)
        return back

    ways = {
        "flowlib": ours, "plain": functools.partial(ours, accelerated=False),
        "normflows": normflows,
    }  # fmt: skip
    row, works = {}, {}
    for name, way in ways.items():

        def off(tol: float, way: Callable = way) -> float:
            return float((way(tol) - x).flatten(1).norm(dim=1).max())

        # the first of the ladder that does: errors fall with the tolerance
        k = bisect.bisect_left(LADDER, True, key=lambda tol: off(tol) <= TRUE_ERROR)
        row[name] = {"tol": LADDER[k], "error": off(LADDER[k])}
        assert row[name]["error"] <= TRUE_ERROR, row
        works[name] = functools.partial(way, LADDER[k])
    ratios = compare(works, "flowlib", rounds)
    with torch.no_grad():
        back, evaluations = z, 0.0
        for block in reversed(made):
            block.tol = row["flowlib"]["tol"]
            found = block.solve(back)
            back, evaluations = found.x, evaluations + float(found.evaluations.double().mean())
    return {
        "weights": weights, "shape": shape, "lipschitz": lipschitz, "ways": row, "ratios": ratios,
        "evaluations": evaluations / len(made),
        "error_by_default": {
            name: float((way(1e-5) - x).flatten(1).norm(dim=1).max()) for name, way in ways.items()
        },
    }  # fmt: skip


# --- training -------------------------------------------------------------------------------


def training(name: str, peer: str) -> Callable[[], None]:
    torch.manual_seed(0)
    where, how = name.split(", ")
    event = PICTURE if where == "pictures" else int(where[2:])
    rows, depth, hidden = (64, 4, CHANNELS) if where == "pictures" else (256, 8, WIDTH)
    if peer == "flowlib":
        log_det = ExactLogDet if how == "exact" else functools.partial(PowerSeries, TERMS)
        flow = IResNet(event, depth, hidden, log_det=log_det, activation=Sine)
    else:
        flow = normflows_residual(event, depth, hidden, None if how == "exact" else TERMS)
    x = torch.randn(rows, *(event if where == "pictures" else (event,)))
    flow.train()
    if peer == "flowlib":
        flow.initialize(x)
    optimizer = torch.optim.Adam(flow.parameters(), lr=1e-4, fused=True)

    def step() -> None:
        loss = -flow.log_prob(x).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if peer != "flowlib":
            flow.after_step()

    return step


def train_row(name: str, rounds: int) -> dict:
    works = {peer: training(name, peer) for peer in ("flowlib", "normflows")}
    works["again"] = training(name, "normflows")
    return {"shape": name, "ratios": compare(works, "normflows", rounds)}


def memory_of(peer: str, name: str) -> float:
    torch.set_num_threads(1)
    training(name, peer)()  # imports, and what torch sets up, are nobody's fault
    return grown(lambda: training(name, peer))


# --- all of it ------------------------------------------------------------------------------


def memory_row(name: str) -> dict:
    script = str(Path(__file__).resolve())
    return {"shape": name, "megabytes": medians(script, ("flowlib", "normflows"), (name,))}


def rows(kind: str, rounds: int) -> list[dict]:
    found = []
    if kind == "inverse":
        found = []
        for shape in WAY_BACK:
            found.append(way_back_row(*shape, rounds))
            print(found[-1], flush=True)
    elif kind == "train":
        found = [train_row(name, rounds) for name in TRAIN]
    else:
        found = [memory_row(name) for name in MEMORY]
    found = [{"kind": kind, **row} for row in found]
    print(*found, sep="\n", flush=True)
    return found


KINDS = ("inverse", "train", "memory")


def main() -> None:
    if sys.argv[1:2] == ["--one"]:
        print(memory_of(sys.argv[2], sys.argv[3]))
        return
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    found = [row for kind in arguments.kinds for row in rows(kind, arguments.rounds)]
    arguments.out.write_text("[\n" + ",\n".join(json.dumps(row) for row in found) + "\n]\n")


if __name__ == "__main__":
    main()
