"""What each of several processes does for test_engine.py: `torchrun team.py CASES FOLDER`.

They are processes of their own because a process group may hang when pytest takes it down.
`python team.py CASES FOLDER SECONDS COUNT` imports PyTorch once and forks them: so many, who wait
so long for each other.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import socket
import sys
import time
import traceback
from datetime import timedelta
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from torch.utils.data import DataLoader, TensorDataset

from flowlib import (
    MAF,
    BatchNorm,
    Compose,
    Flow,
    IResNet,
    LULinear,
    PowerSeries,
    RealNVP,
    ResidualFlow,
    RussianRoulette,
    StandardNormal,
    fit,
)

CASES = {}


def case(function):
    CASES[function.__name__] = function
    return function


# --- what is trained ------------------------------------------------------------------------


def normalized_maf():
    layers = [part for layer in MAF(6, 3, (16,)).bijection for part in (BatchNorm(6), layer)]
    return Flow(Compose(layers), StandardNormal(6))


FLOWS = {
    "RealNVP": lambda: RealNVP(6, 4, (16,)),
    "MAF": lambda: MAF(6, 3, (16,)),
    "MAF with BatchNorm": normalized_maf,
    # two widths above 64, so that a layer's norm is found by power iteration
    "ResidualFlow": lambda: ResidualFlow(6, 2, (80, 80)),
    "ResidualFlow, recomputed": lambda: ResidualFlow(6, 2, (80, 80), recompute=True),
    "ResidualFlow, judged by roulette": lambda: ResidualFlow(6, 2, 16, log_det=RussianRoulette),
    "IResNet by a power series": lambda: IResNet(6, 2, 16, log_det=PowerSeries),
}


def data(n=601, dim=6):
    random = torch.Generator().manual_seed(0)
    mixed = torch.randn(dim, dim, generator=random, dtype=torch.float64)
    return torch.randn(n, dim, generator=random, dtype=torch.float64) @ mixed + 3


def linear(dim=6):
    return Flow(LULinear(dim), StandardNormal(dim)).double()


def digest(tensors):
    found = hashlib.sha256()
    for tensor in tensors:
        found.update(tensor.detach().contiguous().numpy().tobytes())
    return found.hexdigest()


def everybodys(engine, value):
    values = [None] * engine.num_processes
    dist.all_gather_object(values, value)
    return values


def furthest(one, other):
    """How far two histories are apart; of a process that has one of them only, nothing is asked."""
    if one is None:
        return None
    return max(abs(a - b) for a, b in zip(one.train, other.train, strict=True))


def furthest_judged(one, other):
    if one is None:
        return None
    return max(abs(a - b) for (_, a), (_, b) in zip(one.valid, other.valid, strict=True))


def by_itself(engine, train):
    """What one process trains, without the others; they wait, since one answer is enough."""
    return train() if engine.is_main_process else None


def caught(function):
    try:
        function()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "nothing"


# --- two processes are one --------------------------------------------------------------------


@case
def agree(engine, folder):
    """Each flow on all processes, and by one process alone."""
    found = {}
    options = {"steps": 50, "batch_size": 101, "lr": 3e-3, "eval_every": 25, "clip_norm": 5.0}
    for name, make in FLOWS.items():
        torch.manual_seed(0)
        alone = by_itself(engine, lambda: fit(make().double(), data(), **options))  # noqa: B023
        torch.manual_seed(engine.process_index)  # the first one's weights count
        flow, buffers = make().double(), []

        def look(module, inputs, buffers=buffers):
            if module.training:
                buffers.append(digest(module.buffers()))

        hook = flow.register_forward_pre_hook(look)
        together = fit(flow, data(), engine=engine, **options)
        hook.remove()
        all_their = everybodys(engine, [buffers, digest(flow.state_dict().values()), together])
        found[name] = {
            "train": furthest(alone, together),
            "valid": furthest_judged(alone, together),
            "falls": together.train[-1] < together.train[0] - 0.05,
            "equal": all(their == all_their[0] for their in all_their),
            "states": len(set(buffers)),
        }
    return found


@case
def rows(engine, folder):
    """Shares of other kinds of data, and of few rows."""
    x = data(60)
    context, weights = x[:, :1] ** 2, torch.arange(60.0).double()
    made = TensorDataset(x, context)
    loaded = []

    class Watched(TensorDataset):
        def __getitem__(self, index):
            loaded.append(index)
            return super().__getitem__(index)

    def conditional():
        torch.manual_seed(0)
        return RealNVP(6, 2, (8,), context_dim=1).double()

    def noisy(step):
        return x + torch.rand(60, 6), context

    watched = DataLoader(Watched(x, context), batch_size=15, shuffle=True)
    sources = {
        "weights": lambda: (x, context, weights),
        "loader": lambda: DataLoader(made, batch_size=16, shuffle=True),
        "loader of weights": lambda: DataLoader(
            TensorDataset(x, context, weights), batch_size=16, shuffle=True
        ),
        "iterable": lambda: ((x[k : k + 7], context[k : k + 7]) for k in range(0, 49, 7)),
        "function": lambda: noisy,
        "one row": lambda: lambda step: (x[step : step + 1], context[step : step + 1]),
    }
    found = {}
    for name, source in sources.items():
        options = {"steps": 7, "batch_size": 9, "lr": 3e-3}
        alone = by_itself(engine, lambda: fit(conditional(), source(), **options))  # noqa: B023
        together = fit(conditional(), source(), engine=engine, **options)
        found[name] = furthest(alone, together)
    fit(conditional(), watched, engine=engine, steps=4)
    found["loaded"] = everybodys(engine, loaded[15:])  # the first batch was loaded whole at first
    return found


@case
def pieces(engine, folder):
    """The engine's accumulation of gradients changes nothing."""
    found = {}
    for name in ("RealNVP", "ResidualFlow", "ResidualFlow, recomputed"):
        histories = []
        for count in (1, 3):
            engine.gradient_accumulation_steps = count
            torch.manual_seed(0)
            options = {"steps": 20, "batch_size": 50, "lr": 3e-3}
            histories.append(fit(FLOWS[name]().double(), data(), engine=engine, **options))
        found[name] = furthest(*histories)
    found["refused"] = caught(lambda: fit(normalized_maf().double(), data(), engine=engine))
    engine.gradient_accumulation_steps = 1
    return found


@case
def halves(engine, folder):
    """Under bfloat16 on two processes."""
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state()
    half = Accelerator(cpu=True, mixed_precision="bf16")
    found = {}
    for name in ("RealNVP", "ResidualFlow, recomputed"):
        torch.manual_seed(0)
        flow = FLOWS[name]()
        seen = []
        hook = flow.register_forward_hook(lambda m, i, o: seen.append(str(o.dtype)))  # noqa: B023
        history = fit(flow, data().float(), engine=half, steps=30, lr=3e-3)
        hook.remove()
        torch.manual_seed(0)
        whole = {"steps": 30, "lr": 3e-3}
        full = by_itself(half, lambda: fit(FLOWS[name](), data().float(), **whole))  # noqa: B023
        equal = len(set(everybodys(half, digest(flow.state_dict().values())))) == 1
        found[name] = [furthest(full, history), sorted(set(seen)), equal]
    AcceleratorState._reset_state()
    Accelerator(cpu=True)
    return found


@case
def trouble(engine, folder):
    """What goes wrong on one process is said on all, and none waits."""
    rank, found = engine.process_index, {}

    def fails(step):
        if step == 3 and rank == 1:
            raise OSError("the disk is gone")
        return data(20)

    def explodes(step):
        x = data(20)
        return torch.where(torch.arange(20)[:, None] == 19, 1e200, x) if step == 3 else x

    def interrupted(step):
        if step == 7 and rank == 1:
            os.kill(os.getpid(), signal.SIGINT)
        return data(20)

    def ends():
        for _ in range(4):
            yield data(20)

    def ends_early():
        for _ in range(4 - rank):
            yield data(20)

    def counted(step):
        asked.append(step)
        return data(20)

    class Late(Flow):
        """Ctrl-C comes when the weights of the last step are kept, and nothing is exchanged."""

        def state_dict(self, *args, **kwargs):
            if rank == 1 and asked[-1:] == [10]:
                os.kill(os.getpid(), signal.SIGINT)
            return super().state_dict(*args, **kwargs)

    def breaks_between():
        """Between two layers that add up over both processes."""
        flow = normalized_maf().double()

        def look(module, inputs):
            if rank == 1 and module.training:
                taken.append(1)
                if len(taken) == 3:
                    raise OSError("the disk is gone")

        flow.bijection[2].register_forward_pre_hook(look)
        return flow

    asked, taken = [], []
    options = {"engine": engine, "steps": 20, "eval_every": 5}
    valid = data(30)
    flow = linear()
    found["one fails"] = caught(lambda: fit(flow, fails, validation=valid, **options))
    found["then"] = [digest(flow.state_dict().values()), digest(linear().state_dict().values())]
    found["not finite"] = caught(lambda: fit(linear(), explodes, **options))
    stopped = linear()
    history = fit(stopped, interrupted, validation=valid, **options)
    found["Ctrl-C"] = [history.interrupted, len(history.train), history.best_step]
    found["weights"] = digest(stopped.state_dict().values())
    found["ends"] = len(fit(linear(), ends(), **options).train)
    found["ends early"] = caught(lambda: fit(linear(), ends_early(), **options))
    late = Late(LULinear(6), StandardNormal(6)).double()
    history = fit(late, counted, validation=valid, **{**options, "steps": 10})
    found["late Ctrl-C"] = [history.interrupted, len(history.train), history.best_step]
    found["between"] = caught(lambda: fit(breaks_between(), data(), **options))
    found["other data"] = caught(lambda: fit(linear(), data() + rank, **options))
    no_folder = Path(folder) / "no" / "run.pt"
    found["no folder"] = caught(lambda: fit(linear(), data(), checkpoint=no_folder, **options))
    nonsense = Path(folder) / "nonsense.pt"
    nonsense.write_bytes(b"nonsense")
    found["nonsense"] = caught(lambda: fit(linear(), data(), checkpoint=nonsense, **options))
    return everybodys(engine, found)


@case
def page(engine, folder):
    """The script of the page that says how."""
    text = (Path(__file__).parent.parent / "book" / "scale.md").read_text()
    script = re.search(r"```python\n(import numpy.*?)```", text, re.S)[1]
    os.chdir(folder)
    if engine.is_main_process:
        np.save("rows.npy", data(300).numpy())
    engine.wait_for_everyone()
    names = {}
    exec(script.replace("20_000", "60"), names)
    history = names["history"]
    return [len(history.train), history.valid[-1][1] < history.valid[0][1], sorted(os.listdir())]


# --- a checkpoint, and who is lost --------------------------------------------------------------


def resumable(engine, path=None, look=None):
    torch.manual_seed(0)
    flow = FLOWS["ResidualFlow"]()
    if look is not None:
        flow.register_forward_pre_hook(look)
    options = {"steps": 40, "batch_size": 64, "eval_every": 7, "checkpoint": path}
    history = fit(flow, data().float(), engine=engine, **options)
    return [digest(flow.state_dict().values()), history.train, history.valid]


@case
def killed(engine, folder):
    """One process dies in the middle of a step, as of a power cut."""
    dies_at = torch.randint(10, 35, (), generator=torch.Generator().manual_seed(1)).item()
    taken = []

    def look(module, inputs):
        taken.append(module.training)
        if engine.process_index == 1 and sum(taken) == dies_at:
            os.kill(os.getpid(), signal.SIGKILL)

    return resumable(engine, Path(folder) / "run.pt", look)


@case
def resumed(engine, folder):
    """From there, and without any accident."""
    began = (Path(folder) / "run.pt").exists()
    found = [resumable(engine, Path(folder) / "run.pt"), resumable(engine), began]
    return [found[0] == found[1], everybodys(engine, found[0])[1] == found[0], began]


def lost(how):
    def run(engine, folder):
        def look(module, inputs):
            taken.append(module.training)
            if engine.process_index == 1 and sum(taken) == 5:
                os.kill(os.getpid(), how)

        taken, flow = [], linear()
        flow.register_forward_pre_hook(look)
        return caught(lambda: fit(flow, data(), engine=engine, steps=50))

    return run


CASES["dies"] = lost(signal.SIGKILL)
CASES["hangs"] = lost(signal.SIGSTOP)


def take_part(names, folder, seconds):
    """One of the processes; which of them, the environment says."""
    from accelerate import Accelerator  # here, as pytest looks into every file
    from accelerate.utils import InitProcessGroupKwargs

    limit = InitProcessGroupKwargs(timeout=timedelta(seconds=float(seconds)))
    if float(seconds) < 60:  # a short time-out, which begins when all are there
        Path(folder, f"{names}.{os.environ['RANK']}").touch()
        while not all(Path(folder, f"{names}.{rank}").exists() for rank in "01"):
            time.sleep(0.05)
    engine = Accelerator(cpu=True, kwargs_handlers=[limit])
    for name in names.split(","):
        found = CASES[name](engine, folder)
        if engine.is_main_process:
            (Path(folder) / f"{name}.json").write_text(json.dumps(found))


def fork(name, folder, seconds, count):
    """The processes of one case, the first one's first; each says on stderr what it fails of."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = str(s.getsockname()[1])
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": str(count)}
    started = []
    for rank in range(count):
        started.append(os.fork())
        if started[-1] == 0:
            os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank)}
            try:
                take_part(name, folder, seconds)
            except BaseException:
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
    return started


def ends(started):
    """How each has ended, in the order of ranks; who has stopped is ended when the first has."""
    found = []
    for pid in started:
        _, status = os.waitpid(pid, os.WUNTRACED)
        if os.WIFSTOPPED(status):
            os.kill(pid, signal.SIGKILL)
            _, status = os.waitpid(pid, 0)
        found.append(os.waitstatus_to_exitcode(status))
    return found


def lead(names, folder, seconds, count):
    """Fork for one case after another, and at once for those with a + between them."""
    import accelerate  # noqa: F401

    for together in names.split(","):
        teams = {name: fork(name, folder, seconds, int(count)) for name in together.split("+")}
        for name, started in teams.items():
            (Path(folder) / f"{name}.ends").write_text(json.dumps(ends(started)))


def main():
    names, folder, *forks = sys.argv[1:]
    if forks:
        lead(names, folder, *forks)
    else:
        take_part(names, folder, 180)


if __name__ == "__main__":
    main()
